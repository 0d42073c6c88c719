/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/text.h"

#define TICK_NS 11000000 /* the longest of any kernel, and some more */

int file_read(int dir_fd, const char *path, size_t max, char **ret, struct coppice_error *err)
{
	_cleanup_(closep) int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	_cleanup_(text_done) struct text text = TEXT_INIT;
	char buffer[16384];
	char *whole;
	ssize_t n;

	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	while ((n = read(fd, buffer, sizeof(buffer))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(err, errno, "cannot read '%s'", path);
		text_add_bytes(&text, buffer, (size_t)n);
		if (text.length > max)
			return fail(err, COPPICE_INVALID, "'%s' is larger than %zu bytes", path,
				    max);
	}
	whole = text_take(&text);
	if (!whole)
		return fail_memory(err);
	*ret = whole;
	return COPPICE_OK;
}

int write_all(int fd, const void *data, size_t length, const char *what, struct coppice_error *err)
{
	const char *at = data;

	while (length > 0) {
		ssize_t n = write(fd, at, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(err, errno, "cannot write %s", what);
		at += n;
		length -= (size_t)n;
	}
	return COPPICE_OK;
}

/* Held by flock, so that who sweeps knows that its maker lives; another if it was swept. */
static int open_draft(int dir_fd, const char *draft)
{
	for (;;) {
		int fd = retry(
			openat(dir_fd, draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
		struct stat st;

		if (fd < 0)
			return -1;
		if (flock(fd, LOCK_EX) == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0)
			return fd;
		(void)close(fd);
	}
}

static int write_draft(int fd, const char *draft, const char *content, bool is_durable,
		       struct coppice_error *err)
{
	int r = write_all(fd, content, strlen(content), draft, err);

	if (r == COPPICE_OK && is_durable && retry(fsync(fd)) < 0)
		r = fail_errno(err, errno, "cannot sync '%s'", draft);
	return r;
}

static int sync_parent(int dir_fd, const char *path, struct coppice_error *err)
{
	_cleanup_(freep) char *copy = strdup(path);
	char *slash = copy ? strrchr(copy, '/') : NULL;
	_cleanup_(closep) int parent = -1;

	if (!copy)
		return fail_memory(err);
	if (slash)
		*slash = '\0';
	parent = openat(dir_fd, slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0)
		return fail_errno(err, errno, "cannot open the directory of '%s'", path);
	return directory_sync(parent, path, err);
}

/*
 * The two change places, so that what cannot be made durable is taken back. Where there
 * was nothing, or the file system cannot do that (NFS), the draft is just renamed.
 */
static int replace(int dir_fd, const char *draft, const char *path, bool is_durable,
		   struct coppice_error *err)
{
	bool is_exchanged = renameat2(dir_fd, draft, dir_fd, path, RENAME_EXCHANGE) == 0;
	bool is_new = !is_exchanged && errno == ENOENT;
	int r;

	if (!is_exchanged && !is_new && errno != EINVAL && errno != ENOSYS)
		return fail_errno(err, errno, "cannot replace '%s'", path);
	if (!is_exchanged && renameat(dir_fd, draft, dir_fd, path) < 0)
		return fail_errno(err, errno, "cannot replace '%s'", path);
	r = is_durable ? sync_parent(dir_fd, path, err) : COPPICE_OK;
	if (r < 0 && is_exchanged)
		(void)renameat2(dir_fd, draft, dir_fd, path, RENAME_EXCHANGE);
	else if (r < 0 && is_new)
		(void)unlinkat(dir_fd, path, 0);
	return r;
}

int file_write(int dir_fd, const char *path, const char *content, bool is_durable,
	       struct coppice_error *err)
{
	_cleanup_(freep) char *draft = text_format("%s.new", path);
	_cleanup_(closep) int fd = -1;
	int r;

	if (!draft)
		return fail_memory(err);
	fd = open_draft(dir_fd, draft);
	if (fd < 0)
		return fail_errno(err, errno, "cannot create '%s'", draft);
	r = write_draft(fd, draft, content, is_durable, err);
	if (r == COPPICE_OK)
		r = replace(dir_fd, draft, path, is_durable, err);
	(void)unlinkat(dir_fd, draft, 0); /* what was replaced, or what could not */
	return r;
}

int directory_ensure(int dir_fd, const char *path, mode_t mode, struct coppice_error *err)
{
	if (mkdirat(dir_fd, path, mode) < 0 && errno != EEXIST)
		return fail_errno(err, errno, "cannot create directory '%s'", path);
	return COPPICE_OK;
}

int directory_is_empty(const char *path, bool *ret, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir)
		return fail_errno(err, errno, "cannot read directory '%s'", path);
	while ((entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    strcmp(entry->d_name, "lost+found") == 0)
			continue;
		*ret = false;
		return COPPICE_OK;
	}
	*ret = true;
	return COPPICE_OK;
}

static int64_t nanoseconds_of(const struct timespec *time)
{
	return time->tv_sec * INT64_C(1000000000) + time->tv_nsec;
}

/* Marked, it has two times, one of them finer than ticks. */
uint64_t directory_stamp(const struct stat *st)
{
	int64_t changed = nanoseconds_of(&st->st_ctim), marked = nanoseconds_of(&st->st_mtim);
	int64_t now = now_ns();

	if (changed == marked && now >= changed && now - changed < TICK_NS)
		marked = now;
	return (uint64_t)changed * 1099511628211ULL ^ (uint64_t)marked;
}

int directory_mark(int dir_fd, const char *path, struct coppice_error *err)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };

	(void)clock_gettime(CLOCK_REALTIME, &times[1]);
	if (utimensat(dir_fd, path, times, 0) < 0)
		return fail_errno(err, errno, "cannot set the time of '%s'", path);
	return COPPICE_OK;
}

int directory_sync(int fd, const char *what, struct coppice_error *err)
{
	if (retry(fsync(fd)) < 0)
		return fail_errno(err, errno, "cannot sync the directory of '%s'", what);
	return COPPICE_OK;
}

char *boot_id(void)
{
	struct coppice_error ignored;
	char *id;

	return file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &id, &ignored) < 0 ? NULL
											     : id;
}

int64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void time_format(int64_t ns, char ret[static TIME_TEXT_SIZE])
{
	time_t seconds = (time_t)(ns / 1000000000);
	struct tm tm;

	(void)gmtime_r(&seconds, &tm);
	(void)strftime(ret, TIME_TEXT_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

void descriptors_reserve(size_t n)
{
	int highest = open("/", O_PATH | O_CLOEXEC), fd;

	fd = highest < 0 ? -1 : fcntl(highest, F_DUPFD_CLOEXEC, highest + (int)n);
	closep(&fd);
	closep(&highest);
}

bool path_is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
