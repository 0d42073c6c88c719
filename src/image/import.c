/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reading side: bytes go from the input to the hash, to the store, and
 * through a socket to coppice-unpack, whose short report comes back by a pipe.
 *
 * A socket and not a pipe for the bytes: only there a write after the child's
 * death can be kept from raising SIGPIPE in our caller's process.
 */
#include "image/import.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "image/child.h"
#include "image/unpack/report.h"

enum {
	PIECE_SIZE = 512 * 1024,
	MAGIC_SIZE = 4,
	TICK_MS = 100, /* between looks at is_interrupted, and calls of progress */
	WRITEBACK_SIZE = 8 << 20,
	LEAVE_MS = 1024, /* twice that, and a child that was killed is left to itself */
};

#define MEMORY_LIMIT_DEFAULT (256ULL << 20)
#define MEMORY_LIMIT_MIN     (1ULL << 20)

/* One file being read: the image, or one of the two of a split one. */
struct reading {
	const struct image_read *how;
	int in_fd, store_fd;
	const char *name;
	const char *what; /* UNPACK_…: what it shall hold */
	struct image_info *info;
	pid_t pid;     /* 0: not started, or reaped */
	int socket;    /* we send the archive here */
	int report;    /* and read the answer here */
	bool is_ended; /* the child has something to say before it has read all */
	int64_t told_ns;
	int64_t checked_ms;
	off_t store_offset, written_back;
	struct sha256_ctx *sha256; /* goes on from file to file; borrowed */
	char *metadata;            /* as reported; owned */
	size_t metadata_length;
	bool has_info;
	bool has_error; /* the child has said what went wrong */
	bool is_packer; /* coppice-pack: it reads a directory, and we its archive */
};

/* ---- the child ---- */

static int channels_open(int archive[2], int report[2], struct coppice_error *err)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, archive) < 0 ||
	    pipe2(report, O_CLOEXEC) < 0)
		return fail_errno(err, errno, "cannot make a channel to the unpacker");
	for (int i = 0; i < 2; i++) {
		int size = 1 << 20;

		if (child_fd_move_up(&archive[i]) < 0 || child_fd_move_up(&report[i]) < 0)
			return fail_errno(err, errno, "cannot make a channel to the unpacker");
		(void)setsockopt(archive[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
	return COPPICE_OK;
}

static int keep_dup(int keep_fd, int *ret, struct coppice_error *err)
{
	if (keep_fd < 0)
		return COPPICE_OK;
	*ret = fcntl(keep_fd, F_DUPFD_CLOEXEC, CHILD_FD_ABOVE);
	return *ret < 0 ? fail_errno(err, errno, "cannot keep the lock") : COPPICE_OK;
}

/* @file is what the child reads; -1: what we send it. */
static int child_start(struct reading *reading, int file, struct coppice_error *err)
{
	const struct image_read *how = reading->how;
	uint64_t limit = how->memory_limit_bytes ? how->memory_limit_bytes : MEMORY_LIMIT_DEFAULT;
	_cleanup_(freep) char *program = child_program("coppice-unpack");
	_cleanup_(freep) char *parent = text_format("%ld", (long)getpid());
	_cleanup_(freep) char *memory = text_format(
		"%llu", (unsigned long long)(limit < MEMORY_LIMIT_MIN ? MEMORY_LIMIT_MIN : limit));
	_cleanup_(closep) int keep = -1;
	int archive[2] = { -1, -1 }, report[2] = { -1, -1 };
	char format[] = UNPACK_TAR, file_format[] = UNPACK_SQUASHFS;
	char *argv[] = { program,
			 parent,
			 memory,
			 file >= 0 ? file_format : format,
			 (char *)(uintptr_t)reading->what,
			 (char *)(uintptr_t)how->target_path,
			 NULL };
	int r;

	if (!program || !parent || !memory)
		return fail_memory(err);
	if (keep_dup(how->keep_fd, &keep, err) < 0)
		return err->code;
	r = channels_open(archive, report, err);
	if (r == COPPICE_OK)
		r = child_spawn(file >= 0 ? file : archive[0], report[1], keep, how->check != NULL,
				argv, &reading->pid, err);
	closep(&archive[0]);
	closep(&report[1]);
	reading->socket = archive[1];
	reading->report = report[0];
	return r;
}

static int check_goes_on(struct reading *reading, struct coppice_error *err)
{
	const struct coppice_hooks *hooks = reading->how->hooks;

	if (hooks && hooks->is_interrupted && hooks->is_interrupted(hooks->user))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	if (!reading->how->check || reading->is_packer ||
	    clock_ms() < reading->checked_ms + TICK_MS)
		return COPPICE_OK;
	reading->checked_ms = clock_ms();
	return reading->how->check(reading->how->check_user, err);
}

/* What it has open may take a while to be closed. */
static int child_wait_for_end(struct reading *reading, int *ret, struct coppice_error *err)
{
	pid_t pid;
	int r;

	while ((pid = waitpid(reading->pid, ret, WNOHANG)) == 0) {
		r = check_goes_on(reading, err);
		if (r < 0)
			return r;
		clock_pause(1);
	}
	reading->pid = 0;
	return COPPICE_OK;
}

static void *wait_for_pid(void *pid)
{
	while (waitpid((pid_t)(intptr_t)pid, NULL, 0) < 0 && errno == EINTR)
		;
	return NULL;
}

/*
 * Killed, it ends at once, unless the kernel waits for what does not answer: then when that is
 * over, and somebody is to hear of it.
 */
static void child_leave(struct reading *reading)
{
	void *pid = (void *)(intptr_t)reading->pid;
	pthread_attr_t detached;
	pthread_t thread;

	for (unsigned ms = 1; ms <= LEAVE_MS; ms *= 2) {
		if (waitpid(reading->pid, NULL, WNOHANG) != 0) {
			reading->pid = 0;
			return;
		}
		clock_pause(ms);
	}
	if (pthread_attr_init(&detached) == 0) {
		(void)pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
		(void)pthread_create(&thread, &detached, wait_for_pid, pid);
		(void)pthread_attr_destroy(&detached);
	}
	reading->pid = 0;
}

static void reading_done(struct reading *reading)
{
	if (reading->pid > 0)
		(void)kill(reading->pid, SIGKILL);
	if (reading->pid > 0 && reading->how->check && !reading->is_packer)
		child_leave(reading);
	else if (reading->pid > 0)
		(void)wait_for_pid((void *)(intptr_t)reading->pid);
	closep(&reading->socket);
	closep(&reading->report);
	free(reading->metadata);
}

static void tell_progress(struct reading *reading, bool is_last)
{
	const struct coppice_hooks *hooks = reading->how->hooks;
	struct coppice_progress progress = {
		.what = reading->name,
		.done_bytes = reading->info->size_bytes,
		.total_bytes = reading->how->total_bytes,
	};
	int64_t now = now_ns();

	if (!hooks || !hooks->progress)
		return;
	if (!is_last && now - reading->told_ns < TICK_MS * 1000000LL)
		return;
	reading->told_ns = now;
	hooks->progress(hooks->user, &progress);
}

/* ---- the archive's bytes ---- */

/*
 * Wait until @fd is ready for @events, or the child says something too early:
 * then is_ended. Between ticks is_interrupted is asked.
 */
static int wait_ready(struct reading *reading, int fd, short events, struct coppice_error *err)
{
	for (;;) {
		struct pollfd wanted[] = {
			{ .fd = fd, .events = events },
			{ .fd = reading->report, .events = POLLIN },
		};
		int n = poll(wanted, ARRAY_SIZE(wanted), TICK_MS);

		if (n < 0 && errno != EINTR)
			return fail_errno(err, errno, "cannot wait for the archive");
		if (check_goes_on(reading, err) < 0)
			return err->code;
		if (n > 0 && wanted[0].revents)
			return COPPICE_OK;
		if (n > 0 && wanted[1].revents & (POLLHUP | POLLERR)) {
			reading->is_ended = true;
			return COPPICE_OK;
		}
	}
}

/* A child that is gone has said why; that is read later. */
static int send_piece(struct reading *reading, const char *data, size_t length,
		      struct coppice_error *err)
{
	while (length > 0 && !reading->is_ended) {
		ssize_t n = send(reading->socket, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		int why = errno; /* whoever waits asks others, and they the system */

		if (n >= 0) {
			data += n;
			length -= (size_t)n;
			continue;
		}
		if (why == EPIPE || why == ECONNRESET)
			reading->is_ended = true;
		else if (why == EAGAIN && wait_ready(reading, reading->socket, POLLOUT, err) < 0)
			return err->code;
		else if (why != EAGAIN && why != EINTR)
			return fail_errno(err, why, "cannot reach the unpacker");
	}
	return COPPICE_OK;
}

/* The disk begins early, so that there is less to wait for when the caller syncs. */
static int store_piece(struct reading *reading, const char *data, size_t length,
		       struct coppice_error *err)
{
	int fd = reading->store_fd;
	off_t behind;

	if (fd < 0)
		return COPPICE_OK;
	if (write_all(fd, data, length, "the image's bytes", err) < 0)
		return err->code;
	reading->store_offset += (off_t)length;
	behind = reading->store_offset - reading->written_back;
	if (behind >= WRITEBACK_SIZE) {
		(void)sync_file_range(fd, reading->written_back, behind, SYNC_FILE_RANGE_WRITE);
		reading->written_back = reading->store_offset;
	}
	return COPPICE_OK;
}

/* Read one piece; *ret_length is 0 at the end. */
static int read_piece(struct reading *reading, char *buffer, size_t *ret_length,
		      struct coppice_error *err)
{
	ssize_t n;

	do {
		if (wait_ready(reading, reading->in_fd, POLLIN, err) < 0)
			return err->code;
		if (reading->is_ended) {
			*ret_length = 0;
			return COPPICE_OK;
		}
		n = read(reading->in_fd, buffer, PIECE_SIZE);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	if (n < 0)
		return fail_errno(err, errno, "cannot read '%s'", reading->name);
	*ret_length = (size_t)n;
	return COPPICE_OK;
}

/* To wherever it goes. Without a child yet that is the hash and the store only. */
static int take_piece(struct reading *reading, const char *data, size_t length,
		      struct coppice_error *err)
{
	if (reading->socket >= 0 && send_piece(reading, data, length, err) < 0)
		return err->code;
	if (store_piece(reading, data, length, err) < 0)
		return err->code;
	sha256_update(reading->sha256, length, (const uint8_t *)data);
	reading->info->size_bytes += length;
	tell_progress(reading, false);
	return COPPICE_OK;
}

/* @buffer has the first @length bytes; it is used for the rest. */
static int archive_copy(struct reading *reading, char *buffer, size_t length,
			struct coppice_error *err)
{
	while (length > 0 && !reading->is_ended) {
		if (take_piece(reading, buffer, length, err) < 0 ||
		    read_piece(reading, buffer, &length, err) < 0)
			return err->code;
	}
	tell_progress(reading, true);
	if (reading->socket >= 0)
		(void)shutdown(reading->socket, SHUT_WR);
	return COPPICE_OK;
}

/* Enough to tell what it is, or all. */
static int read_start(struct reading *reading, char *buffer, size_t *ret_length,
		      struct coppice_error *err)
{
	size_t length = 1;

	for (*ret_length = 0; *ret_length < MAGIC_SIZE && length > 0; *ret_length += length)
		if (read_piece(reading, buffer + *ret_length, &length, err) < 0)
			return err->code;
	return COPPICE_OK;
}

/* ---- the report ---- */

/* Text from the child: it may quote names of the archive, which can hold anything. */
static char *text_clean(const char *data, size_t length)
{
	char *copy = strndup(data, length);

	if (copy)
		coppice_text_make_printable(copy);
	return copy;
}

static int warning_add(struct image_info *info, const char *data, size_t length,
		       struct coppice_error *err)
{
	char **more = reallocarray(info->warning, info->n_warnings + 1, sizeof(*more));

	if (!more)
		return fail_memory(err);
	info->warning = more;
	if (info->n_warnings == REPORT_WARNINGS_MAX)
		return COPPICE_OK;
	more[info->n_warnings] = text_clean(data, length);
	if (!more[info->n_warnings])
		return fail_memory(err);
	info->n_warnings++;
	return COPPICE_OK;
}

static const char *verb(const struct reading *reading)
{
	return reading->is_packer ? "pack" : "unpack";
}

/* What is wrong with the archive follows its name; all else is about our own doing. */
static int child_error(struct reading *reading, const char *data, size_t length,
		       struct coppice_error *err)
{
	const char *name = reading->name;
	struct report_error head;
	_cleanup_(freep) char *message = NULL;
	int code;

	if (length < sizeof(head))
		return fail(err, COPPICE_FAILED, "the unpacker says nonsense");
	memcpy(&head, data, sizeof(head));
	message = text_clean(data + sizeof(head), length - sizeof(head));
	if (!message)
		return fail_memory(err);
	reading->has_error = true;
	code = head.code <= COPPICE_FAILED && head.code >= COPPICE_INTERRUPTED ? head.code
									       : COPPICE_FAILED;
	if (code == COPPICE_NOT_FOUND || code == COPPICE_EXISTS)
		code = COPPICE_FAILED; /* of some file in there, not of what was asked for */
	if (code == COPPICE_INVALID)
		(void)fail(err, (enum coppice_code)code, "'%s' %s", name, message);
	else
		(void)fail(err, (enum coppice_code)code, "cannot %s '%s': %s", verb(reading), name,
			   message);
	err->os_errno = head.os_errno;
	return code;
}

static int frame_take(struct reading *reading, const struct report_frame *frame, char *data,
		      struct coppice_error *err)
{
	struct report_info head;

	switch (frame->type) {
	case 'W':
		return warning_add(reading->info, data, frame->length, err);
	case 'E':
		return child_error(reading, data, frame->length, err);
	case 'D':
		reading->has_info = true;
		return COPPICE_OK;
	case 'M':
		free(reading->metadata);
		reading->metadata = malloc(frame->length + 1u);
		if (!reading->metadata)
			return fail_memory(err);
		memcpy(reading->metadata, data, frame->length);
		reading->metadata_length = frame->length;
		return COPPICE_OK;
	case 'I':
		if (frame->length != sizeof(head))
			break;
		memcpy(&head, data, sizeof(head));
		reading->info->n_entries += head.n_entries;
		reading->info->unpacked_bytes += head.unpacked_bytes;
		reading->info->is_unified = head.is_unified != 0;
		reading->has_info = true;
		return COPPICE_OK;
	default:
		break;
	}
	return fail(err, COPPICE_FAILED, "the unpacker says nonsense");
}

/* Read exactly @length bytes. Returns false at the end. */
static int report_read(struct reading *reading, void *data, size_t length, bool *ret_is_end,
		       struct coppice_error *err)
{
	char *at = data;

	*ret_is_end = false;
	while (length > 0) {
		struct pollfd wanted = { .fd = reading->report, .events = POLLIN };
		ssize_t n;

		if (check_goes_on(reading, err) < 0)
			return err->code;
		if (poll(&wanted, 1, TICK_MS) <= 0)
			continue;
		n = read(reading->report, at, length);
		if (n < 0 && errno != EINTR)
			return fail_errno(err, errno, "cannot hear the unpacker");
		*ret_is_end = n == 0;
		if (n == 0)
			return COPPICE_OK;
		at += n > 0 ? n : 0;
		length -= n > 0 ? (size_t)n : 0;
	}
	return COPPICE_OK;
}

static int report_take(struct reading *reading, struct coppice_error *err)
{
	_cleanup_(freep) char *data = malloc(REPORT_FRAME_MAX);
	struct report_frame frame;
	bool is_end;

	if (!data)
		return fail_memory(err);
	for (;;) {
		if (report_read(reading, &frame, sizeof(frame), &is_end, err) < 0)
			return err->code;
		if (is_end)
			return COPPICE_OK;
		if (frame.length > REPORT_FRAME_MAX)
			return fail(err, COPPICE_FAILED, "the unpacker says nonsense");
		if (report_read(reading, data, frame.length, &is_end, err) < 0)
			return err->code;
		if (is_end)
			return COPPICE_OK;
		if (frame_take(reading, &frame, data, err) < 0)
			return err->code;
	}
}

/* What a library that an archive has led astray dies of; its walls held. */
static bool is_crash(int number)
{
	return number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL ||
	       number == SIGABRT;
}

/* All is well only if the child said so and ended so. */
static int child_finish(struct reading *reading, struct coppice_error *err)
{
	int status = 0;

	if (report_take(reading, err) < 0)
		return err->code;
	if (child_wait_for_end(reading, &status, err) < 0)
		return err->code;
	if (WIFSIGNALED(status) && is_crash(WTERMSIG(status)))
		return fail(err, COPPICE_INVALID, "'%s' is corrupt: reading it ended in a %s",
			    reading->name, strsignal(WTERMSIG(status)));
	if (WIFSIGNALED(status))
		return fail(err, COPPICE_FAILED, "cannot %s '%s': its child was killed by %s",
			    verb(reading), reading->name, strsignal(WTERMSIG(status)));
	if (status != 0 || !reading->has_info)
		return fail(err, COPPICE_FAILED, "cannot %s '%s': its child ended early",
			    verb(reading), reading->name);
	return COPPICE_OK;
}

/* ---- what was read ---- */

static int describe_plain(struct image_info *info, struct coppice_error *err)
{
	struct utsname machine;

	if (uname(&machine) < 0)
		return fail_errno(err, errno, "cannot tell this machine's architecture");
	info->architecture = strdup(machine.machine);
	return info->architecture ? COPPICE_OK : fail_memory(err);
}

static int describe_metadata(const struct reading *reading, struct image_info *info,
			     struct coppice_error *err)
{
	struct metadata metadata;
	const char *description;

	if (!reading->metadata)
		return fail(err, COPPICE_FAILED, "the unpacker says nonsense");
	if (metadata_parse(reading->metadata, reading->metadata_length, &metadata, err) < 0)
		return wrap(err, "'%s'", reading->name);
	info->architecture = take_ptr(&metadata.architecture);
	info->created_ns = metadata.created_ns;
	info->properties = metadata.properties;
	description = metadata_property(&info->properties, "description");
	if (!description)
		return COPPICE_OK;
	info->description = strdup(description);
	return info->description ? COPPICE_OK : fail_memory(err);
}

static void fingerprint_format(struct sha256_ctx *sha256, struct image_info *info)
{
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_digest(sha256, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		(void)snprintf(info->fingerprint + 2 * i, 3, "%02x", digest[i]);
}

/* ---- squashfs ---- */

static bool is_squashfs(const char *start, size_t length)
{
	return length >= MAGIC_SIZE && memcmp(start, "hsqs", MAGIC_SIZE) == 0;
}

/* The whole file once more, to be read at any place and not written. */
static int reopen(const struct reading *reading, int *ret, struct coppice_error *err)
{
	int fd = reading->store_fd >= 0 ? reading->store_fd : reading->in_fd;
	_cleanup_(freep) char *path = text_format("/proc/self/fd/%d", fd);
	struct stat st;

	if (!path)
		return fail_memory(err);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return fail(err, COPPICE_UNSUPPORTED,
			    "'%s' is a squashfs, which cannot be looked into before it is kept: "
			    "give it as a file",
			    reading->name);
	*ret = open(path, O_RDONLY | O_CLOEXEC);
	if (*ret < 0 || child_fd_move_up(ret) < 0)
		return fail_errno(err, errno, "cannot open '%s' again", reading->name);
	return COPPICE_OK;
}

/* Hashed and kept, then unpacked from what was kept: it cannot be read in one pass. */
static int read_squashfs(struct reading *reading, char *buffer, size_t length,
			 struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;

	if (strcmp(reading->what, UNPACK_METADATA) == 0)
		return fail(err, COPPICE_INVALID,
			    "'%s' is a squashfs, not a tar archive of metadata", reading->name);
	if (archive_copy(reading, buffer, length, err) < 0 || reopen(reading, &fd, err) < 0 ||
	    child_start(reading, fd, err) < 0)
		return err->code;
	return child_finish(reading, err);
}

static int read_file(struct reading *reading, struct coppice_error *err)
{
	off_t offset = reading->store_fd >= 0 ? lseek(reading->store_fd, 0, SEEK_CUR) : 0;
	_cleanup_(freep) char *buffer = malloc(PIECE_SIZE + MAGIC_SIZE);
	size_t length;

	if (!buffer)
		return fail_memory(err);
	reading->store_offset = reading->written_back = offset > 0 ? offset : 0;
	if (read_start(reading, buffer, &length, err) < 0)
		return err->code;
	if (is_squashfs(buffer, length))
		return read_squashfs(reading, buffer, length, err);
	if (child_start(reading, -1, err) < 0 || archive_copy(reading, buffer, length, err) < 0)
		return err->code;
	return child_finish(reading, err);
}

static struct reading reading_of(const struct image_read *how, struct image_info *info,
				 struct sha256_ctx *sha256)
{
	return (struct reading){
		.how = how,
		.in_fd = how->in_fd,
		.store_fd = how->store_fd,
		.name = how->name,
		.what = how->rootfs ? UNPACK_METADATA : UNPACK_IMAGE,
		.info = info,
		.sha256 = sha256,
		.socket = -1,
		.report = -1,
	};
}

/* ---- directories ---- */

static int packer_start(struct reading *packer, int *ret_archive, struct coppice_error *err)
{
	_cleanup_(freep) char *program = child_program("coppice-pack");
	_cleanup_(freep) char *parent = text_format("%ld", (long)getpid());
	_cleanup_(closep) int directory = fcntl(packer->in_fd, F_DUPFD_CLOEXEC, CHILD_FD_ABOVE);
	int archive[2] = { -1, -1 }, report[2] = { -1, -1 };
	char *argv[] = { program, parent, NULL };
	int r = COPPICE_OK;

	if (!program || !parent)
		return fail_memory(err);
	if (directory < 0 || pipe2(archive, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0 ||
	    child_fd_move_up(&archive[1]) < 0 || child_fd_move_up(&report[1]) < 0)
		r = fail_errno(err, errno, "cannot make a channel to the packer");
	if (r == COPPICE_OK)
		r = child_spawn(directory, report[1], archive[1], false, argv, &packer->pid, err);
	closep(&archive[1]);
	closep(&report[1]);
	*ret_archive = archive[0];
	packer->report = report[0];
	return r;
}

/*
 * A packer that failed explains why its archive is no good, not the other way round; but
 * one that nobody listens to any more has nothing to say.
 */
static int read_packed(struct reading *reading, struct coppice_error *err)
{
	_cleanup_(reading_done) struct reading packer =
		reading_of(reading->how, reading->info, reading->sha256);
	struct coppice_error packer_err = COPPICE_ERROR_INIT;
	int archive = -1;
	int r, packed;

	packer.is_packer = true;
	r = packer_start(&packer, &archive, err);
	reading->in_fd = archive;
	if (r == COPPICE_OK)
		r = read_file(reading, err);
	closep(&archive);
	if (packer.pid == 0 || r == COPPICE_INTERRUPTED)
		return r;
	packed = child_finish(&packer, &packer_err);
	if (packed < 0 && (r == COPPICE_OK || packer.has_error)) {
		*err = packer_err;
		return packed;
	}
	return r;
}

static bool is_directory(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

/* ---- all of it ---- */

/* The second file of a split image. */
static int read_rootfs(const struct image_read *how, struct image_info *info,
		       struct sha256_ctx *sha256, struct coppice_error *err)
{
	_cleanup_(reading_done) struct reading reading = reading_of(how, info, sha256);
	uint64_t before = info->size_bytes;
	int r;

	reading.in_fd = how->rootfs->in_fd;
	reading.store_fd = how->rootfs->store_fd;
	reading.name = how->rootfs->name;
	reading.what = UNPACK_ROOTFS;
	r = read_file(&reading, err);
	info->rootfs_size_bytes = info->size_bytes - before;
	info->is_unified = false;
	return r;
}

static int read_all(struct reading *reading, struct coppice_error *err)
{
	struct image_info *info = reading->info;
	bool has_metadata;
	int r;

	r = is_directory(reading->in_fd) ? read_packed(reading, err) : read_file(reading, err);
	if (r < 0)
		return r;
	has_metadata = info->is_unified;
	if (has_metadata && describe_metadata(reading, info, err) < 0)
		return err->code;
	if (!has_metadata && describe_plain(info, err) < 0)
		return err->code;
	if (reading->how->rootfs)
		return read_rootfs(reading->how, info, reading->sha256, err);
	return COPPICE_OK;
}

int image_read(const struct image_read *how, struct image_info *ret, struct coppice_error *err)
{
	_cleanup_(image_info_done) struct image_info info = { 0 };
	struct sha256_ctx sha256;
	_cleanup_(reading_done) struct reading reading = reading_of(how, &info, &sha256);
	int r;

	sha256_init(&sha256);
	r = read_all(&reading, err);
	if (r < 0)
		return r;
	fingerprint_format(&sha256, &info);
	*ret = info;
	info = (struct image_info){ 0 };
	return COPPICE_OK;
}

void image_info_done(struct image_info *info)
{
	struct metadata rest = { .architecture = info->architecture,
				 .properties = info->properties };

	metadata_done(&rest);
	free(info->description);
	for (size_t i = 0; i < info->n_warnings; i++)
		free(info->warning[i]);
	free(info->warning);
	*info = (struct image_info){ 0 };
}
