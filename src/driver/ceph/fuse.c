/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapping by rbd-fuse: a process for each image, that shows it as a file, and a loop device on
 * that.
 */
#include "driver/ceph/mapper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/run.h"
#include "base/text.h"
#include "driver/generic/loop.h"

static bool is_there(const char *path)
{
	return access(path, F_OK) == 0;
}

static bool fuse_is_usable(void)
{
	return is_there("/dev/fuse") && is_there("/dev/loop-control") &&
	       (is_there("/usr/bin/rbd-fuse") || is_there("/usr/local/bin/rbd-fuse"));
}

/* Where rbd-fuse shows an image. */
static char *folder_of(const struct ceph_pool *ceph, const char *name)
{
	return text_format("%s/map-%s", ceph->files.path, name);
}

static char *file_of(const struct ceph_pool *ceph, const char *name)
{
	_cleanup_(freep) char *folder = folder_of(ceph, name);

	return folder ? text_format("%s/%s", folder, name) : NULL;
}

static bool is_mount(const char *path)
{
	struct stat top, above;
	_cleanup_(freep) char *parent = text_format("%s/..", path);

	/* One whose process has died is a mount all the same. */
	if (!parent || stat(parent, &above) < 0)
		return false;
	return stat(path, &top) < 0 ? errno == ENOTCONN : top.st_dev != above.st_dev;
}

#define WORDS 13

static void command_make(const struct ceph_pool *ceph, const char *name, const char *folder,
			 const char *ret[static WORDS])
{
	const char *const words[] = {
		"rbd-fuse", "--cluster", ceph->cluster_name,       "--id",
		ceph->user, "-p",        ceph->osd_pool,           "-r",
		name,       folder,      ceph->conf ? "-c" : NULL, ceph->conf,
		NULL,
	};

	memcpy(ret, words, sizeof(words));
}

static int fuse_map(struct ceph_pool *ceph, const char *name, char ret_device[static PATH_MAX],
		    struct coppice_error *err)
{
	_cleanup_(loop_close) struct loop loop = LOOP_INIT;
	_cleanup_(freep) char *folder = folder_of(ceph, name), *file = file_of(ceph, name);
	const char *argv[WORDS];
	int r = COPPICE_OK;

	if (!folder || !file)
		return fail_memory(err);
	if (!is_mount(folder)) {
		command_make(ceph, name, folder, argv);
		r = directory_ensure(AT_FDCWD, folder, 0700, err);
		if (r == COPPICE_OK)
			r = run_checked(argv, err);
	}
	if (r == COPPICE_OK)
		r = loop_attach(file, &loop, err);
	if (r < 0)
		return r;
	(void)snprintf(ret_device, PATH_MAX, "%s", loop.path);
	return loop_keep(&loop, err);
}

/* Both let go a moment after they were told to. */
static int umount_soon(const char *folder, struct coppice_error *err)
{
	for (int i = 0; i < PATIENCE_STEPS; i++) {
		if (umount2(folder, 0) == 0 || errno == EINVAL)
			return COPPICE_OK;
		if (errno != EBUSY)
			return fail_errno(err, errno, "cannot unmount '%s'", folder);
		wait_a_step();
	}
	return fail(err, COPPICE_BUSY, "'%s' is in use", folder);
}

/*
 * rbd-fuse closes the image when it is unmounted already, and what is open cannot be removed. Who
 * else has it open keeps us for no longer than this.
 */
static void fuse_wait_until_closed(const struct ceph_pool *ceph, const char *name)
{
	rbd_image_watcher_t watcher[8];
	size_t n = 1;

	for (int i = 0; i < 200 && n > 0; i++) {
		rbd_image_t image;

		n = 0;
		if (!ceph->io || rbd_open_read_only(ceph->io, name, &image, NULL) < 0)
			return;
		n = ARRAY_SIZE(watcher);
		if (rbd_watchers_list(image, watcher, &n) == 0)
			rbd_watchers_list_cleanup(watcher, n);
		(void)rbd_close(image);
		if (n > 0)
			wait_a_step();
	}
}

/* Its process may have died, or wait for the cluster: it is not asked. */
static bool is_named(const struct ceph_pool *ceph, const char *name, const char *device)
{
	_cleanup_(freep) char *top = realpath(ceph->files.path, NULL), *file = NULL;

	file = top ? text_format("%s/map-%s/%s", top, name, name) : NULL;
	return file && loop_has_name(device, file);
}

static bool fuse_find(const struct ceph_pool *ceph, const char *name, const char *device,
		      char ret_device[static PATH_MAX])
{
	_cleanup_(freep) char *folder = folder_of(ceph, name), *file = file_of(ceph, name);
	struct coppice_error ignored;
	char loop[LOOP_PATH_MAX];
	bool is_found = false;

	if (device && is_named(ceph, name, device)) {
		(void)snprintf(ret_device, PATH_MAX, "%s", device);
		return true;
	}
	if (!folder || !file || !is_mount(folder) ||
	    loop_find(file, loop, &is_found, &ignored) < 0 || !is_found)
		return false;
	(void)snprintf(ret_device, PATH_MAX, "%s", loop);
	return !device || strcmp(device, loop) == 0;
}

static bool fuse_is_mapping(const struct ceph_pool *ceph, const char *name)
{
	_cleanup_(freep) char *folder = folder_of(ceph, name);
	const char *argv[WORDS];

	if (!folder || is_mount(folder))
		return false;
	command_make(ceph, name, folder, argv);
	return processes_each(argv, NULL, NULL);
}

static bool fuse_is_dead(const struct ceph_pool *ceph, const char *name)
{
	_cleanup_(freep) char *folder = folder_of(ceph, name);
	struct stat st;

	return folder && stat(folder, &st) < 0 && errno == ENOTCONN;
}

/* A container of this machine may have one with the same arguments. */
static bool end_process(void *user, const char *pid)
{
	_cleanup_(freep) char *path = text_format("/proc/%s/ns/mnt", pid);
	struct stat own, its;

	if (path && stat("/proc/self/ns/mnt", &own) == 0 && stat(path, &its) == 0 &&
	    own.st_dev == its.st_dev && own.st_ino == its.st_ino)
		(void)kill((pid_t)strtol(pid, NULL, 10), SIGKILL);
	return false;
}

static void fuse_forsake(const struct ceph_pool *ceph, const char *name)
{
	_cleanup_(freep) char *folder = folder_of(ceph, name);
	const char *argv[WORDS];

	if (!folder)
		return;
	command_make(ceph, name, folder, argv);
	(void)processes_each(argv, end_process, NULL);
}

bool fuse_shows(const struct ceph_pool *ceph, const char *name)
{
	_cleanup_(freep) char *folder = folder_of(ceph, name);

	return folder && is_mount(folder);
}

/* @device "": none was found. */
static int fuse_unmap(const struct ceph_pool *ceph, const char *name, const char *device,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *folder = folder_of(ceph, name);
	char loop[PATH_MAX];
	int r = COPPICE_OK;

	if (!folder)
		return fail_memory(err);
	if (!is_mount(folder)) {
		(void)rmdir(folder);
		return COPPICE_OK;
	}
	if (device[0] || fuse_find(ceph, name, NULL, loop))
		r = loop_detach(device[0] ? device : loop, err);
	if (r == COPPICE_OK)
		r = umount_soon(folder, err);
	if (r < 0)
		return r;
	(void)rmdir(folder);
	return COPPICE_OK;
}

const struct mapper mapper_fuse = {
	.name = "rbd-fuse",
	.is_usable = fuse_is_usable,
	.map = fuse_map,
	.find = fuse_find,
	.is_mapping = fuse_is_mapping,
	.is_dead = fuse_is_dead,
	.forsake = fuse_forsake,
	.unmap = fuse_unmap,
	.wait_until_closed = fuse_wait_until_closed,
};
