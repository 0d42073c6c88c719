/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching files to loop devices, once each; loop.h says why. */
#include "driver/generic/loop.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

#define LOCK_TRIES   6000 /* of 10 ms */
#define ATTACH_TRIES 200

static void nap(long ms)
{
	(void)nanosleep(&(struct timespec){ 0, ms * 1000000 }, NULL);
}

/* ---- finding ---- */

/* How the search for the device of one file stands. */
struct search {
	const char *file;
	char *real; /* the same without links; NULL: not known */
	bool is_on_fuse;
	struct stat st;
	struct loop found; /* fd -1: none yet */
};

static bool is_loop_name(const char *name)
{
	return !strncmp(name, "loop", 4) && isdigit((unsigned char)name[4]);
}

void loop_name_of(int sys_fd, const char *name, char ret[static PATH_MAX])
{
	char path[NAME_MAX + 32];
	_cleanup_(closep) int fd = -1;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%.*s/loop/backing_file", NAME_MAX, name);
	fd = openat(sys_fd, path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, ret, PATH_MAX - 1);
	ret[n > 0 ? n : 0] = '\0';
	if (n > 0 && ret[n - 1] == '\n')
		ret[n - 1] = '\0';
}

static bool is_backing_name(int sys_fd, const char *name, const char *real)
{
	char text[PATH_MAX];

	loop_name_of(sys_fd, name, text);
	return real && !strcmp(text, real);
}

bool loop_has_name(const char *device, const char *path)
{
	_cleanup_(closep) int sys_fd = open("/sys/block", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *name = strrchr(device, '/');

	return sys_fd >= 0 && name && is_loop_name(name + 1) &&
	       is_backing_name(sys_fd, name + 1, path);
}

/* Is one of two paths the end of the other, as seen from another root? */
static bool is_end_of(const char *a, const char *b)
{
	size_t n_a = strlen(a), n_b = strlen(b);

	return n_a < n_b ? !strcmp(b + n_b - n_a, a) : !strcmp(a + n_a - n_b, b);
}

/*
 * Surely another file, by its name alone? To ask the device is to ask the file's file system, which
 * may not answer as long as a server does not; and others' files are not to keep us waiting. Where
 * processes answer, which is where that happens, the whole path counts; elsewhere there may be
 * several.
 */
static bool is_other(int sys_fd, const char *name, const struct search *search)
{
	const char *own = search->real ? strrchr(search->real, '/') : NULL, *other;
	char text[PATH_MAX];

	if (!own || search->st.st_nlink != 1)
		return false;
	loop_name_of(sys_fd, name, text);
	other = strrchr(text, '/');
	/* " (deleted)" may follow: then another one has its name by now. */
	if (other && strncmp(own, other, strlen(own)) != 0)
		return true;
	return search->is_on_fuse && text[0] && !is_end_of(text, search->real);
}

static int open_device(const char *name, char ret_path[static LOOP_PATH_MAX])
{
	(void)snprintf(ret_path, LOOP_PATH_MAX, "/dev/%.*s", LOOP_PATH_MAX - 8, name);
	return open(ret_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

static int check_usable(const struct search *search, const struct loop_info64 *info,
			const char *path, struct coppice_error *err)
{
	if (info->lo_offset != 0 || info->lo_sizelimit != 0)
		return fail(err, COPPICE_BUSY, "a part of '%s' is attached to %s", search->file,
			    path);
	if (info->lo_flags & LO_FLAGS_READ_ONLY)
		return fail(err, COPPICE_BUSY, "'%s' is attached read-only to %s", search->file,
			    path);
	return COPPICE_OK;
}

/* Is it this device? Then it is kept open, and 1. @sys_fd: of /sys/block, or -1. */
static int look_at(void *user, int sys_fd, const char *name, struct coppice_error *err)
{
	struct search *search = user;
	struct loop_info64 info;
	char path[LOOP_PATH_MAX];
	_cleanup_(closep) int fd = -1;
	int r;

	if (sys_fd >= 0 && is_other(sys_fd, name, search))
		return COPPICE_OK;
	fd = open_device(name, path);
	if (fd < 0 && sys_fd >= 0 && is_backing_name(sys_fd, name, search->real))
		return fail(err, COPPICE_UNSUPPORTED,
			    "'%s' is attached to a loop device that cannot be opened: %s",
			    search->file, path);
	if (fd < 0 || ioctl(fd, LOOP_GET_STATUS64, &info) < 0)
		return COPPICE_OK;
	if (info.lo_device != search->st.st_dev || info.lo_inode != search->st.st_ino)
		return COPPICE_OK;
	r = check_usable(search, &info, path, err);
	if (r < 0)
		return r;
	(void)snprintf(search->found.path, sizeof(search->found.path), "%s", path);
	search->found.was_attached = true;
	search->found.fd = take_fd(&fd);
	return 1;
}

/* Among the attached ones that sysfs lists; without sysfs, among all in /dev. */
int loop_each(loop_fn *fn, void *user, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = opendir("/sys/block");
	bool is_sys = dir != NULL;
	struct dirent *entry;
	int r = COPPICE_OK;

	if (!dir)
		dir = opendir("/dev");
	if (!dir)
		return fail_errno(err, errno, "cannot list the loop devices");
	while (r == COPPICE_OK && (entry = readdir(dir))) {
		char attached[NAME_MAX + 8];

		if (!is_loop_name(entry->d_name))
			continue;
		(void)snprintf(attached, sizeof(attached), "%s/loop", entry->d_name);
		if (is_sys && faccessat(dirfd(dir), attached, F_OK, 0) < 0)
			continue;
		r = fn(user, is_sys ? dirfd(dir) : -1, entry->d_name, err);
	}
	return r;
}

static int search_run(struct search *search, struct coppice_error *err)
{
	_cleanup_(freep) char *real = realpath(search->file, NULL);
	struct statfs fs;
	int r;

	search->real = real;
	search->is_on_fuse = real && statfs(real, &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC;
	r = loop_each(look_at, search, err);
	search->real = NULL;
	return r < 0 ? r : COPPICE_OK;
}

bool loop_file_of(int sys_fd, const char *name, struct loop_file *ret)
{
	struct loop_info64 info;
	char device[LOOP_PATH_MAX];
	_cleanup_(closep) int fd = open_device(name, device);
	struct stat st;

	loop_name_of(sys_fd, name, ret->path);
	if (fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0) {
		ret->dev = info.lo_device;
		ret->inode = info.lo_inode;
		if (!ret->path[0]) /* what whoever attached it says */
			(void)snprintf(ret->path, sizeof(ret->path), "%.*s", LO_NAME_SIZE,
				       (const char *)info.lo_file_name);
		return true;
	}
	if (!ret->path[0] || stat(ret->path, &st) < 0)
		return false;
	ret->dev = st.st_dev;
	ret->inode = st.st_ino;
	return true;
}

int loop_find(const char *file, char ret[static LOOP_PATH_MAX], bool *found,
	      struct coppice_error *err)
{
	struct search search = { .file = file, .found = LOOP_INIT };
	int r;

	if (stat(file, &search.st) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", file);
	r = search_run(&search, err);
	if (r < 0)
		return r;
	*found = search.found.fd >= 0;
	(void)snprintf(ret, LOOP_PATH_MAX, "%s", search.found.path);
	loop_close(&search.found);
	return COPPICE_OK;
}

/* ---- attaching ---- */

int loop_lock(const char *file, int *ret_fd, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", file);
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return fail_errno(err, errno, "cannot lock '%s'", file);
		if (i == LOCK_TRIES)
			return fail(err, COPPICE_BUSY, "'%s' is locked by another process", file);
		nap(10);
	}
	*ret_fd = take_fd(&fd);
	return COPPICE_OK;
}

/* A device that nobody has, for now: another may take it before us. */
static int free_device(int control_fd, struct loop *loop, struct coppice_error *err)
{
	int n = ioctl(control_fd, LOOP_CTL_GET_FREE);

	if (n < 0)
		return fail_errno(err, errno, "no loop device is free");
	(void)snprintf(loop->path, sizeof(loop->path), "/dev/loop%d", n);
	for (int i = 0; i < 20; i++) { /* udev may be making it */
		loop->fd = open(loop->path, O_RDWR | O_CLOEXEC);
		if (loop->fd >= 0 || errno != ENOENT)
			break;
		nap(10);
	}
	if (loop->fd < 0)
		return fail(err, COPPICE_UNSUPPORTED, "no loop devices on this machine: %s: %s",
			    loop->path, strerrordesc_np(errno));
	return COPPICE_OK;
}

static int configure(int device_fd, int file_fd, bool is_direct)
{
	struct loop_config config = {
		.fd = (unsigned)file_fd,
		.info = { .lo_flags = LO_FLAGS_AUTOCLEAR | (is_direct ? LO_FLAGS_DIRECT_IO : 0) },
	};

	if (ioctl(device_fd, LOOP_CONFIGURE, &config) == 0)
		return 0;
	if (errno != EINVAL || !is_direct)
		return -errno;
	/* The file's own file system cannot do direct I/O in such small blocks. */
	config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
	return ioctl(device_fd, LOOP_CONFIGURE, &config) < 0 ? -errno : 0;
}

static int attach_fd(const char *file, int file_fd, bool is_direct, struct loop *loop,
		     struct coppice_error *err)
{
	_cleanup_(closep) int control_fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int r = -EBUSY;

	if (control_fd < 0)
		return fail(err, COPPICE_UNSUPPORTED,
			    "no loop devices on this machine: /dev/loop-control: %s",
			    strerrordesc_np(errno));
	for (int i = 0; i < ATTACH_TRIES; i++) {
		int got = free_device(control_fd, loop, err);

		if (got < 0)
			return got;
		r = configure(loop->fd, file_fd, is_direct);
		if (r == 0)
			return COPPICE_OK;
		loop_close(loop);
		if (r != -EBUSY && r != -EAGAIN)
			break;
		nap(1 + i % 5);
	}
	return fail_errno(err, -r, "cannot attach '%s' to a loop device", file);
}

/* Opened anew: the device keeps what it is given, and with it locks, and errors that are told once.
 */
static int attach_new(const char *file, int fd, bool is_direct, struct loop *loop,
		      struct coppice_error *err)
{
	_cleanup_(closep) int file_fd = -1;
	char again[64];

	(void)snprintf(again, sizeof(again), "/proc/self/fd/%d", fd);
	file_fd = open(again, O_RDWR | O_CLOEXEC);
	if (file_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", file);
	return attach_fd(file, file_fd, is_direct, loop, err);
}

int loop_attach_buffered(int fd, struct loop *ret, struct coppice_error *err)
{
	_cleanup_(loop_close) struct loop loop = LOOP_INIT;
	int r = attach_new("a file without a name", fd, false, &loop, err);

	if (r < 0)
		return r;
	*ret = loop;
	loop.fd = -1;
	return COPPICE_OK;
}

int loop_attach_locked(const char *file, int lock_fd, struct loop *ret, struct coppice_error *err)
{
	struct search search = { .file = file, .found = LOOP_INIT };
	_cleanup_(loop_close) struct loop loop = LOOP_INIT;
	int r;

	/* What the descriptor has, not whatever has that name by now. */
	if (fstat(lock_fd, &search.st) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", file);
	r = search_run(&search, err);
	loop = search.found;
	if (r >= 0 && loop.fd < 0)
		r = attach_new(file, lock_fd, true, &loop, err);
	if (r < 0)
		return r;
	*ret = loop;
	loop.fd = -1;
	return COPPICE_OK;
}

int loop_attach(const char *file, struct loop *ret, struct coppice_error *err)
{
	_cleanup_(closep) int lock_fd = -1;
	int r;

	r = loop_lock(file, &lock_fd, err);
	if (r < 0)
		return r;
	return loop_attach_locked(file, lock_fd, ret, err);
}

int loop_keep(const struct loop *loop, struct coppice_error *err)
{
	struct loop_info64 info;

	if (ioctl(loop->fd, LOOP_GET_STATUS64, &info) == 0) {
		info.lo_flags &= ~(uint32_t)LO_FLAGS_AUTOCLEAR;
		if (ioctl(loop->fd, LOOP_SET_STATUS64, &info) == 0)
			return COPPICE_OK;
	}
	return fail_errno(err, errno, "cannot keep '%s' attached", loop->path);
}

int loop_detach(const char *path, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (ioctl(fd, LOOP_CLR_FD) < 0 && errno != ENXIO))
		return fail_errno(err, errno, "cannot detach '%s'", path);
	return COPPICE_OK;
}

int loop_resize(const char *path, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	if (ioctl(fd, LOOP_SET_CAPACITY) < 0)
		return fail_errno(err, errno, "cannot let '%s' grow", path);
	return COPPICE_OK;
}

void loop_close(struct loop *loop)
{
	if (loop->fd >= 0)
		(void)close(loop->fd);
	loop->fd = -1;
}
