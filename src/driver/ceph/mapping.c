/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images as block devices. Three can do that, and the first that this machine has does:
 *
 *	krbd      the kernel's own driver, by its files in /sys/bus/rbd: rbd map -o noudev
 *	rbd-nbd   one process for each image, that serves it to the kernel's nbd
 *	rbd-fuse  one process for each image, that shows it as a file, and a loop device on that
 *
 * Whichever it is, DEVICES/IMAGE is a link to the device as long as it is there.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/loop.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/run.h"
#include "base/text.h"
#include "driver/generic/loop.h"

#define KRBD "/sys/bus/rbd"

static bool is_there(const char *path)
{
	return access(path, F_OK) == 0;
}

static bool has_nbd(void)
{
	return is_there("/dev/nbd0") && is_there("/usr/bin/rbd-nbd");
}

static bool has_fuse(void)
{
	return is_there("/dev/fuse") && is_there("/dev/loop-control") &&
	       (is_there("/usr/bin/rbd-fuse") || is_there("/usr/local/bin/rbd-fuse"));
}

const char *ceph_mapper(void)
{
	if (is_there(KRBD))
		return "krbd";
	if (has_nbd())
		return "rbd-nbd";
	return has_fuse() ? "rbd-fuse" : NULL;
}

/* ---- links ---- */

static char *link_of(const struct ceph_pool *ceph, const char *name)
{
	return text_format("%s/devices/%s", ceph->mount, name);
}

/* Where rbd-fuse shows an image. */
static char *folder_of(const struct ceph_pool *ceph, const char *name)
{
	return text_format("%s/map-%s", ceph->files.path, name);
}

static int make_link(const struct ceph_pool *ceph, const char *name, const char *device,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *folder = text_format("%s/devices", ceph->mount);
	_cleanup_(freep) char *path = link_of(ceph, name);
	int r;

	if (!folder || !path)
		return fail_memory(err);
	r = directory_ensure(AT_FDCWD, folder, 0700, err);
	if (r < 0)
		return r;
	if (unlink(path) < 0 && errno != ENOENT)
		return fail_errno(err, errno, "cannot remove '%s'", path);
	return symlink(device, path) < 0 ? fail_errno(err, errno, "cannot make '%s'", path)
					 : COPPICE_OK;
}

/* ---- rbd-fuse ---- */

static bool is_mount(const char *path)
{
	struct stat top, above;
	_cleanup_(freep) char *parent = text_format("%s/..", path);

	/* One whose process has died is a mount all the same. */
	if (!parent || stat(parent, &above) < 0)
		return false;
	return stat(path, &top) < 0 ? errno == ENOTCONN : top.st_dev != above.st_dev;
}

static int fuse_start(struct ceph_pool *ceph, const char *name, const char *folder,
		      struct coppice_error *err)
{
	const char *conf = ceph->conf ? ceph->conf : "/etc/ceph/ceph.conf";

	return run_checked((const char *const[]){ "rbd-fuse", "-c", conf, "-p", ceph->osd_pool,
						  "-r", name, folder, NULL },
			   err);
}

static int fuse_map(struct ceph_pool *ceph, const char *name, char ret[static PATH_MAX],
		    struct coppice_error *err)
{
	_cleanup_(loop_close) struct loop loop = LOOP_INIT;
	_cleanup_(freep) char *folder = folder_of(ceph, name), *file = NULL;
	int r = COPPICE_OK;

	if (!folder)
		return fail_memory(err);
	file = text_format("%s/%s", folder, name);
	if (!file)
		return fail_memory(err);
	if (!is_mount(folder)) {
		r = directory_ensure(AT_FDCWD, folder, 0700, err);
		if (r == COPPICE_OK)
			r = fuse_start(ceph, name, folder, err);
	}
	if (r == COPPICE_OK)
		r = loop_attach(file, &loop, err);
	if (r < 0)
		return r;
	(void)snprintf(ret, PATH_MAX, "%s", loop.path);
	return loop_keep(&loop, err);
}

/* Both let go a moment after they were told to. */
static int umount_soon(const char *folder, struct coppice_error *err)
{
	for (int i = 0; i < 500; i++) {
		if (umount2(folder, 0) == 0 || errno == EINVAL)
			return COPPICE_OK;
		if (errno != EBUSY)
			return fail_errno(err, errno, "cannot unmount '%s'", folder);
		(void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	return fail(err, COPPICE_BUSY, "'%s' is in use", folder);
}

/*
 * rbd-fuse closes the image when it is unmounted already, and what is open cannot be removed. Who
 * else has it open keeps us for no longer than this.
 */
static void wait_until_closed(const struct ceph_pool *ceph, const char *name)
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
			(void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
}

static int fuse_unmap(const struct ceph_pool *ceph, const char *name, struct coppice_error *err)
{
	_cleanup_(freep) char *folder = folder_of(ceph, name), *file = NULL;
	char device[LOOP_PATH_MAX];
	bool is_found = false;
	int r;

	if (!folder)
		return fail_memory(err);
	file = text_format("%s/%s", folder, name);
	if (!file)
		return fail_memory(err);
	if (!is_mount(folder)) {
		(void)rmdir(folder);
		return COPPICE_OK;
	}
	r = loop_find(file, device, &is_found, err);
	if (r == COPPICE_OK && is_found)
		r = loop_detach(device, err);
	else if (r < 0) /* its process has died */
		r = COPPICE_OK;
	if (r == COPPICE_OK)
		r = umount_soon(folder, err);
	if (r < 0)
		return r;
	(void)rmdir(folder);
	wait_until_closed(ceph, name);
	return COPPICE_OK;
}

/* ---- krbd ---- */

/* Either prints the device: "/dev/rbd0". */
static int run_map(const char *const *argv, const char *image, char ret[static PATH_MAX],
		   struct coppice_error *err)
{
	struct run_result result = { 0 };
	int r = runner.run(argv, &result, err);

	if (r == COPPICE_OK && result.exit_status != 0)
		r = fail(err, COPPICE_FAILED, "cannot map '%s': %s", image, result.err);
	if (r == COPPICE_OK)
		(void)snprintf(ret, PATH_MAX, "%.*s", (int)strcspn(result.out, "\n"), result.out);
	run_result_done(&result);
	return r;
}

static int krbd_map(struct ceph_pool *ceph, const char *name, char ret[static PATH_MAX],
		    struct coppice_error *err)
{
	_cleanup_(freep) char *image = text_format("%s/%s", ceph->osd_pool, name);
	const char *const argv[] = {
		"rbd",      "--cluster", ceph->cluster_name, "--id", ceph->user,
		"map",      "-o",        "noudev",           image,  ceph->conf ? "-c" : NULL,
		ceph->conf, NULL
	};

	return image ? run_map(argv, image, ret, err) : fail_memory(err);
}

static int krbd_unmap(const struct ceph_pool *ceph, const char *device, struct coppice_error *err)
{
	return run_checked((const char *const[]){ "rbd", "unmap", "-o", "noudev", device, NULL },
			   err);
}

/* Is this device of krbd the image? */
static bool krbd_is(const struct ceph_pool *ceph, const char *device, const char *name)
{
	_cleanup_(freep) char *path = NULL, *found = NULL;
	struct coppice_error ignored;

	if (strncmp(device, "/dev/rbd", 8) != 0)
		return false;
	path = text_format(KRBD "/devices/%s/name", device + 8);
	return path && file_read(AT_FDCWD, path, RBD_NAME_MAX, &found, &ignored) == COPPICE_OK &&
	       strncmp(found, name, strlen(name)) == 0 && found[strlen(name)] == '\n';
}

/* ---- rbd-nbd ---- */

static int nbd_map(struct ceph_pool *ceph, const char *name, char ret[static PATH_MAX],
		   struct coppice_error *err)
{
	_cleanup_(freep) char *image = text_format("%s/%s", ceph->osd_pool, name);
	const char *const argv[] = { "rbd-nbd",  "map",      "--cluster", ceph->cluster_name,
				     "--id",     ceph->user, image,       ceph->conf ? "-c" : NULL,
				     ceph->conf, NULL };

	return image ? run_map(argv, image, ret, err) : fail_memory(err);
}

static int nbd_unmap(const struct ceph_pool *ceph, const char *name, const char *device,
		     struct coppice_error *err)
{
	int r = run_checked((const char *const[]){ "rbd-nbd", "unmap", device, NULL }, err);

	if (r == COPPICE_OK)
		wait_until_closed(ceph, name);
	return r;
}

/*
 * Does this device of nbd serve the image? As rbd-nbd itself finds out: the kernel says which
 * process serves it, and that has the image among its arguments.
 */
static bool nbd_is(const struct ceph_pool *ceph, const char *device, const char *name)
{
	_cleanup_(freep) char *path = NULL, *pid = NULL, *arguments = NULL, *command = NULL;
	_cleanup_(freep) char *image = text_format("%s/%s", ceph->osd_pool, name);
	_cleanup_(fclosep) FILE *file = NULL;
	struct coppice_error ignored;
	bool is_found = false;
	size_t size = 0;

	if (!image || strncmp(device, "/dev/nbd", 8) != 0)
		return false;
	path = text_format("/sys/block/%s/pid", device + 5);
	if (!path || file_read(AT_FDCWD, path, 32, &pid, &ignored) < 0)
		return false;
	arguments = text_format("/proc/%.*s/cmdline", (int)strcspn(pid, "\n"), pid);
	file = arguments ? fopen(arguments, "re") : NULL;
	while (file && !is_found && getdelim(&command, &size, '\0', file) > 0)
		is_found = strcmp(command, image) == 0;
	return is_found;
}

/* ---- any ---- */

bool ceph_mapped(const struct ceph_pool *ceph, const char *name, char ret[static PATH_MAX])
{
	_cleanup_(freep) char *path = link_of(ceph, name), *folder = folder_of(ceph, name);
	_cleanup_(freep) char *file = NULL;
	struct coppice_error ignored;
	char device[LOOP_PATH_MAX];
	bool is_found = false;
	ssize_t n;

	if (!path || !folder)
		return false;
	n = readlink(path, ret, PATH_MAX - 1);
	if (n < 0)
		return false;
	ret[n] = '\0';
	if (krbd_is(ceph, ret, name) || nbd_is(ceph, ret, name))
		return true;
	file = text_format("%s/%s", folder, name);
	return file && is_mount(folder) &&
	       loop_find(file, device, &is_found, &ignored) == COPPICE_OK && is_found &&
	       strcmp(device, ret) == 0;
}

int ceph_map(struct ceph_pool *ceph, const char *name, char ret_device[static PATH_MAX],
	     struct coppice_error *err)
{
	const char *mapper = ceph_mapper();
	int r;

	if (ceph_mapped(ceph, name, ret_device))
		return COPPICE_OK;
	if (!mapper)
		return fail(
			err, COPPICE_UNSUPPORTED,
			"this machine cannot map images of RBD: its kernel has no rbd; nor has it "
			"nbd and the package rbd-nbd, nor FUSE, loop devices and the package "
			"rbd-fuse");
	if (strcmp(mapper, "krbd") == 0)
		r = krbd_map(ceph, name, ret_device, err);
	else if (strcmp(mapper, "rbd-nbd") == 0)
		r = nbd_map(ceph, name, ret_device, err);
	else
		r = fuse_map(ceph, name, ret_device, err);
	return r < 0 ? wrap(err, "cannot map '%s/%s'", ceph->osd_pool, name)
		     : make_link(ceph, name, ret_device, err);
}

int ceph_unmap(struct ceph_pool *ceph, const char *name, struct coppice_error *err)
{
	_cleanup_(freep) char *path = link_of(ceph, name);
	char device[PATH_MAX];
	bool is_mapped = ceph_mapped(ceph, name, device);
	int r;

	if (!path)
		return fail_memory(err);
	if (is_mapped && krbd_is(ceph, device, name))
		r = krbd_unmap(ceph, device, err);
	else if (is_mapped && nbd_is(ceph, device, name))
		r = nbd_unmap(ceph, name, device, err);
	else
		r = fuse_unmap(ceph, name, err);
	if (r == COPPICE_OK)
		(void)unlink(path);
	return r;
}

int ceph_unmap_all(struct ceph_pool *ceph, struct coppice_error *err)
{
	_cleanup_(freep) char *folder = text_format("%s/devices", ceph->mount);
	_cleanup_(closedirp) DIR *dir = folder ? opendir(folder) : NULL;
	struct dirent *entry;
	int r = folder ? COPPICE_OK : fail_memory(err);

	while (r == COPPICE_OK && dir && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			r = strchr(entry->d_name, '@') ? COPPICE_OK
						       : ceph_umount(ceph, entry->d_name, err);
	return r;
}
