/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume that is made, where rbd-fuse is what maps images. That takes 128 KiB at a time, one
 * request after another, so what is unpacked would be waited for three times as long as librbd
 * takes to write it. So it is made on a file of this host that has no name, and of that the data is
 * written to the image at the end, many requests at a time. The file lives as long as it is
 * mounted, or we are: nothing of it is left by anybody but a mount below the draft's folder. That
 * is detached, whoever is in it: nobody needs it any more.
 *
 * What is made is nobody's yet: its file system is mounted without barriers, as each would write
 * all of the file to this host's disk; without discards, which would give back its room; and ext4
 * without its journal, which is there, and stays empty.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "base/parallel.h"
#include "base/text.h"
#include "driver/ceph/mapper.h"
#include "driver/generic/device_mount.h"
#include "driver/generic/loop.h"

/* What the host must have left besides, and besides an archive as large as the volume. */
#define SPARE_BYTES (1ULL << 30)

/* Requests are whole objects, of the default size, where the data is. */
#define PIECE_BYTES (4U << 20)
#define PIECES      8

#define BEHIND_MS 50

/* Writes to the file what is dirty in the volume, while that is filled. */
struct behind {
	int root_fd; /* of what is mounted */
	int stop_fd;
	bool is_running;
	atomic_int error; /* errno of the first write that failed: it is told once */
	pthread_t thread;
};

struct ceph_staged {
	struct ceph_staged *next;
	struct behind behind;
	bool is_sealed;
	bool is_ending; /* on this thread */
	pthread_t ending;
	struct loop loop;
	int fd;                  /* of the file */
	char path[PATH_MAX];     /* where it is mounted */
	char name[RBD_NAME_MAX]; /* of the image */
};

/* ---- filled ---- */

static void write_out(struct behind *behind)
{
	if (syncfs(behind->root_fd) < 0 && behind->error == 0)
		behind->error = errno;
}

static void *write_behind(void *user)
{
	struct behind *behind = user;
	struct pollfd stop = { .fd = behind->stop_fd, .events = POLLIN };

	while (poll(&stop, 1, BEHIND_MS) <= 0)
		write_out(behind);
	return NULL;
}

/* Without the thread all is written at the end. */
static int behind_begin(struct behind *behind, const char *path)
{
	behind->root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (behind->root_fd < 0)
		return -1;
	behind->stop_fd = eventfd(0, EFD_CLOEXEC);
	behind->is_running = behind->stop_fd >= 0 &&
			     thread_begin(&behind->thread, NULL, write_behind, behind) == 0;
	return 0;
}

static void behind_stop(struct behind *behind)
{
	if (!behind->is_running)
		return;
	(void)eventfd_write(behind->stop_fd, 1);
	(void)pthread_join(behind->thread, NULL);
	behind->is_running = false;
}

static void behind_end(struct behind *behind)
{
	behind_stop(behind);
	(void)close(take_fd(&behind->stop_fd));
	(void)close(take_fd(&behind->root_fd));
}

/* ---- made ---- */

/*
 * On file systems that have room for holes only when they say so, and that are known to tell right
 * where data is that has just been written. (Memory has no room to spare.)
 */
static bool has_room(const struct ceph_pool *ceph, uint64_t bytes)
{
	struct rlimit limit;
	struct statfs fs;

	return statfs(ceph->files.path, &fs) == 0 &&
	       (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC) &&
	       (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize >= 2 * bytes + SPARE_BYTES &&
	       getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
	       (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= bytes);
}

/* XFS is never without barriers. */
static bool can_stage(const struct ceph_pool *ceph, const char *file_system, uint64_t bytes)
{
	const char *mapper = ceph_mapper();

	return mapper && strcmp(mapper, mapper_fuse.name) == 0 && strcmp(file_system, "xfs") != 0 &&
	       has_room(ceph, bytes);
}

/* What is unmounted already is well. */
static int umount_staged(const char *path, struct coppice_error *err)
{
	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
		return fail_errno(err, errno, "cannot unmount '%s'", path);
	(void)rmdir(path);
	return COPPICE_OK;
}

/* The kernel forgets each page of it, for longer than it takes to publish the volume. */
static void *end_staged(void *user)
{
	struct ceph_staged *staged = user;
	struct coppice_error ignored; /* who sweeps the draft tries again */

	behind_end(&staged->behind);
	(void)umount_staged(staged->path, &ignored);
	loop_close(&staged->loop);
	(void)close(take_fd(&staged->fd));
	return NULL;
}

static void staged_free(struct ceph_staged *staged)
{
	if (staged->is_ending)
		(void)pthread_join(staged->ending, NULL);
	else if (!staged->is_sealed)
		(void)end_staged(staged);
	free(staged);
}

/* A volume that is sealed needs no more. */
static void seal(struct ceph_staged *staged)
{
	staged->is_ending = thread_begin(&staged->ending, NULL, end_staged, staged) == 0;
	if (!staged->is_ending)
		(void)end_staged(staged);
	staged->is_sealed = true;
}

static void forget_sealed(struct ceph_making *making)
{
	for (struct ceph_staged **at = &making->staged, *staged; (staged = *at) != NULL;) {
		if (!staged->is_sealed) {
			at = &staged->next;
			continue;
		}
		*at = staged->next;
		staged_free(staged);
	}
}

static void staged_freep(struct ceph_staged **staged)
{
	if (*staged)
		staged_free(*staged);
}

/* All of its room is taken at once: who fills this host's disk finds it full, and we do not. */
static int attach(const struct ceph_pool *ceph, uint64_t bytes, struct ceph_staged *staged)
{
	struct coppice_error ignored;

	staged->fd = open(ceph->files.path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return staged->fd < 0 || fallocate(staged->fd, 0, 0, (off_t)bytes) < 0
		       ? -1
		       : loop_attach_buffered(staged->fd, &staged->loop, &ignored);
}

/* Without a journal ext4 refuses options of that. */
static bool is_of_journal(const char *options)
{
	return strstr(options, "commit") || strstr(options, "journal") ||
	       strstr(options, "data=") || strstr(options, "data_err=");
}

static int make_and_mount(struct ceph_pool *ceph, const struct new_file_system *wanted,
			  const char *device, struct coppice_error *err)
{
	bool has_no_journal = strcmp(wanted->type, "ext4") == 0 && !is_of_journal(wanted->options);
	_cleanup_(freep) char *options =
		text_format("%s%snobarrier,nodiscard%s", wanted->options,
			    wanted->options[0] ? "," : "", has_no_journal ? ",noload" : "");

	return options ? ceph_make_and_mount(ceph, wanted, device, options, err) : fail_memory(err);
}

int ceph_stage(struct draft *draft, const struct new_file_system *wanted, bool *ret_did,
	       struct coppice_error *err)
{
	_cleanup_(staged_freep) struct ceph_staged *staged = calloc(1, sizeof(*staged));
	struct ceph_making *making = ceph_making_of(draft);
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	struct coppice_error ignored;

	*ret_did = false;
	if (!staged)
		return fail_memory(err);
	forget_sealed(making);
	staged->loop = (struct loop)LOOP_INIT;
	staged->fd = staged->behind.root_fd = staged->behind.stop_fd = -1;
	(void)snprintf(staged->path, sizeof(staged->path), "%s", wanted->path);
	(void)snprintf(staged->name, sizeof(staged->name), "%s", wanted->name);
	/* Whatever it is that fails here fails again, and is told, if it is no matter of this host.
	 */
	if (!can_stage(ceph, wanted->type, wanted->bytes) ||
	    attach(ceph, wanted->bytes, staged) < 0 ||
	    make_and_mount(ceph, wanted, staged->loop.path, &ignored) < 0 ||
	    behind_begin(&staged->behind, wanted->path) < 0)
		return pool_is_interrupted(draft->pool)
			       ? fail(err, COPPICE_INTERRUPTED, "interrupted")
			       : COPPICE_OK;
	staged->next = making->staged;
	making->staged = take_ptr(&staged);
	*ret_did = true;
	return COPPICE_OK;
}

/* NULL: that is not staged, or it is sealed. */
static struct ceph_staged *find(const struct draft *draft, const char *name)
{
	struct ceph_staged *staged = ceph_making_of(draft)->staged;

	while (staged && (staged->is_sealed || strcmp(staged->name, name) != 0))
		staged = staged->next;
	return staged;
}

bool ceph_is_staged(const struct draft *draft, const char *name)
{
	return find(draft, name) != NULL;
}

/* ---- written to the image ---- */

struct piece {
	char *data;
	rbd_completion_t completion; /* NULL: it is free */
};

struct writing {
	const struct pool *pool;
	rbd_image_t image;
	struct piece piece[PIECES];
	size_t next;
};

/* The one that was begun first is free again. */
static int wait_for_piece(struct piece *piece)
{
	int r = 0;

	if (piece->completion) {
		(void)rbd_aio_wait_for_complete(piece->completion);
		r = (int)rbd_aio_get_return_value(piece->completion);
		rbd_aio_release(piece->completion);
	}
	piece->completion = NULL;
	return r;
}

static int write_piece(struct writing *writing, int fd, off_t at, size_t n)
{
	struct piece *piece = &writing->piece[writing->next];
	int r = wait_for_piece(piece);

	writing->next = (writing->next + 1) % PIECES;
	if (r < 0)
		return r;
	if (!piece->data && !(piece->data = malloc(PIECE_BYTES)))
		return -ENOMEM;
	for (size_t done = 0; done < n;) {
		ssize_t got = retry(pread(fd, piece->data + done, n - done, at + (off_t)done));

		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		done += (size_t)got;
	}
	if (bytes_are_zero(piece->data, n))
		return 0;
	r = rbd_aio_create_completion(NULL, NULL, &piece->completion);
	if (r < 0)
		return r;
	r = rbd_aio_write(writing->image, (uint64_t)at, n, piece->data, piece->completion);
	if (r < 0) {
		rbd_aio_release(piece->completion);
		piece->completion = NULL;
	}
	return r;
}

static int write_range(struct writing *writing, int fd, off_t at, off_t end)
{
	int r = 0;

	while (at < end && r == 0) {
		off_t object_end = (at / PIECE_BYTES + 1) * PIECE_BYTES;
		off_t n = (end < object_end ? end : object_end) - at;

		r = pool_is_interrupted(writing->pool) ? -EINTR
						       : write_piece(writing, fd, at, (size_t)n);
		at += n;
	}
	return r;
}

/* What is between is a hole, and reads as zeros there too. */
static int write_data(struct writing *writing, int fd)
{
	off_t at = 0, end;
	int r = 0;

	while (r == 0 && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		r = end < 0 ? -errno : write_range(writing, fd, at, end);
		at = end;
	}
	return r < 0 || errno == ENXIO ? r : -errno;
}

/* The first failure; but one that took the cluster's time has whoever comes next do the rest. */
static void note(struct draft *draft, int *r, int result)
{
	ceph_making_of(draft)->is_left |= result == -ETIMEDOUT;
	if (*r >= 0 && result < 0)
		*r = result;
}

static int write_image(struct draft *draft, const char *name, int fd, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	struct writing writing = { .pool = draft->pool };
	int r = COPPICE_OK;

	note(draft, &r, rbd_open(ceph->making_io, name, &writing.image, NULL));
	if (r < 0)
		return fail_ceph(ceph, r, err, "cannot open '%s/%s'", ceph->osd_pool, name);
	note(draft, &r, write_data(&writing, fd));
	for (size_t i = 0; i < PIECES; i++) {
		note(draft, &r, wait_for_piece(&writing.piece[i]));
		free(writing.piece[i].data);
	}
	if (r == 0)
		note(draft, &r, rbd_flush(writing.image));
	note(draft, &r, rbd_close(writing.image));
	if (r < 0 && pool_is_interrupted(draft->pool))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	return r < 0 ? fail_ceph(ceph, r, err, "cannot write '%s/%s'", ceph->osd_pool, name)
		     : COPPICE_OK;
}

/* Who unpacked it ended just now. */
#define BUSY_STEPS 20

/*
 * All of it is in the file then, as unmounting would write it; but that tells of no error, and is
 * none for what is mounted in another namespace as well.
 */
static int make_read_only(int root_fd)
{
	struct statvfs fs;

	/* One that met an error is so by itself, and not whole. */
	if (fstatvfs(root_fd, &fs) < 0 || (fs.f_flag & ST_RDONLY))
		return -EIO;
	for (int i = 0;; i++) {
		_cleanup_(closep) int fd = fspick(root_fd, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);

		if (fd < 0 || fsconfig(fd, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0)
			return -errno;
		if (fsconfig(fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) == 0)
			return 0;
		if (errno != EBUSY || i == BUSY_STEPS)
			return -errno;
		wait_a_step();
	}
}

/* Of a device or file: did any write fail since it was opened? Waits for what is being written. */
static int write_error(int fd)
{
	return sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE) < 0 ? -errno : 0;
}

static int fail_staged(const struct ceph_pool *ceph, int error, struct coppice_error *err)
{
	return fail_errno(err, -error, "cannot write what is made in '%s', on this host first",
			  ceph->files.path);
}

static int finish(struct ceph_pool *ceph, struct ceph_staged *staged, struct coppice_error *err)
{
	struct behind *behind = &staged->behind;
	int r;

	behind_stop(behind);
	write_out(behind);
	r = -behind->error;
	if (r == 0)
		r = make_read_only(behind->root_fd);
	if (r == -EBUSY)
		return fail(err, COPPICE_BUSY, "'%s' is in use", staged->path);
	if (r == 0) {
		write_out(behind); /* of what that has written it tells no error */
		r = -behind->error;
	}
	if (r == 0)
		r = write_error(staged->loop.fd);
	return r < 0 ? fail_staged(ceph, r, err) : COPPICE_OK;
}

int ceph_unstage(struct draft *draft, const char *name, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	struct ceph_staged *staged = find(draft, name);
	int r = finish(ceph, staged, err);

	if (r == COPPICE_OK)
		r = write_image(draft, name, staged->fd, err);
	if (r < 0)
		return r;
	/* What was read had to be what was written, also if it was on the disk meanwhile. */
	r = write_error(staged->fd);
	if (r < 0)
		return fail_staged(ceph, r, err);
	seal(staged);
	return COPPICE_OK;
}

/* ---- taken back ---- */

void ceph_staged_done(struct draft *draft)
{
	struct ceph_staged *staged;

	while ((staged = ceph_making_of(draft)->staged) != NULL) {
		ceph_making_of(draft)->staged = staged->next;
		staged_free(staged);
	}
}

static bool is_in_draft(const void *id, const char *where)
{
	_cleanup_(freep) char *part = text_format("/drafts/%s/", (const char *)id);

	return part && strstr(where, part);
}

/* What is mapped has a file with a name; unmounting that may wait for the cluster. */
static int umount_in_draft(void *user, int sys_fd, const char *name, struct coppice_error *err)
{
	char file[PATH_MAX], device[LOOP_PATH_MAX], where[PATH_MAX];

	loop_name_of(sys_fd, name, file);
	(void)snprintf(device, sizeof(device), "/dev/%.32s", name);
	return strstr(file, " (deleted)") &&
			       device_mount_find(device, is_in_draft, user, true, where)
		       ? umount_staged(where, err)
		       : COPPICE_OK;
}

int ceph_staged_umount(const char *id, struct coppice_error *err)
{
	return loop_each(umount_in_draft, (void *)(uintptr_t)id, err);
}

static int umount_dead(void *user, const char *id, int fd, struct coppice_error *err)
{
	return ceph_staged_umount(id, err);
}

int ceph_staged_umount_dead(const struct ceph_pool *ceph, struct coppice_error *err)
{
	size_t ignored = 0;

	return access(ceph->files.path, F_OK) < 0
		       ? COPPICE_OK
		       : state_drafts_each(&ceph->files, umount_dead, &ignored, &ignored, err);
}
