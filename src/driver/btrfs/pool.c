/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pool on Btrfs lives on: a file of ours on a loop device, somebody's
 * file or device, or a directory of a file system that is mounted already.
 */
#include "driver/btrfs/btrfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "base/file.h"
#include "base/run.h"
#include "base/text.h"
#include "base/undo.h"
#include "driver/btrfs/ballast.h"
#include "driver/btrfs/batch.h"
#include "driver/btrfs/quota.h"
#include "driver/generic/loop.h"
#include "driver/generic/mount.h"
#include "driver/generic/explain.h"
#include "driver/generic/pool_file.h"

/* Where a pool lives, worked out from its specification. */
struct place {
	enum place_kind {
		PLACE_OUR_FILE, /* STATE/disks/NAME.img, made and removed by us */
		PLACE_FILE,     /* somebody's file with a file system in it */
		PLACE_DEVICE,
		PLACE_DIRECTORY, /* in a file system that is mounted already */
	} kind;
	char file[PATH_MAX];  /* what holds the file system; unless a directory */
	char mount[PATH_MAX]; /* where the pool's root is */
};

/* Where it is mounted, unless its source is a directory. */
static void mount_point_find(const struct pool_spec *spec, struct place *ret)
{
	(void)snprintf(ret->mount, sizeof(ret->mount), "%s/mnt/%s", spec->state_path, spec->name);
}

static int place_find(const struct pool_spec *spec, struct place *ret, struct coppice_error *err)
{
	struct place place = { .kind = PLACE_OUR_FILE };
	struct stat st;

	mount_point_find(spec, &place);
	if (!spec->source) {
		(void)snprintf(place.file, sizeof(place.file), "%s/disks/%s.img", spec->state_path,
			       spec->name);
		*ret = place;
		return COPPICE_OK;
	}
	if (spec->source[0] != '/')
		return fail(err, COPPICE_INVALID, "source '%s' must be an absolute path",
			    spec->source);
	if (stat(spec->source, &st) < 0)
		return fail_errno(err, errno, "cannot use source '%s'", spec->source);
	if (S_ISDIR(st.st_mode)) {
		place.kind = PLACE_DIRECTORY;
		(void)snprintf(place.mount, sizeof(place.mount), "%s", spec->source);
	} else if (S_ISBLK(st.st_mode) || S_ISREG(st.st_mode)) {
		place.kind = S_ISBLK(st.st_mode) ? PLACE_DEVICE : PLACE_FILE;
		(void)snprintf(place.file, sizeof(place.file), "%s", spec->source);
	} else {
		return fail(err, COPPICE_INVALID,
			    "source '%s' is neither a directory nor a file nor a block device",
			    spec->source);
	}
	*ret = place;
	return COPPICE_OK;
}

static bool is_btrfs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC;
}

/* Is a file system mounted at this very place? */
static bool is_mounted(const struct place *place)
{
	char parent[PATH_MAX + 4];
	struct stat here, above;

	if (place->kind == PLACE_DIRECTORY)
		return true;
	(void)snprintf(parent, sizeof(parent), "%s/..", place->mount);
	return is_btrfs(place->mount) && stat(place->mount, &here) == 0 &&
	       stat(parent, &above) == 0 && here.st_dev != above.st_dev;
}

/* The same when the source may be gone: what is mounted of it is where we put it. */
static int place_find_mounted(const struct pool_spec *spec, struct place *ret,
			      struct coppice_error *err)
{
	int r = place_find(spec, ret, err);

	if (r != COPPICE_NOT_FOUND)
		return r;
	*ret = (struct place){ .kind = PLACE_FILE };
	(void)snprintf(ret->file, sizeof(ret->file), "%s", spec->source);
	mount_point_find(spec, ret);
	return COPPICE_OK;
}

bool btrfs_pool_is_mounted(const struct pool_spec *spec)
{
	struct coppice_error ignored;
	struct place place;

	return place_find_mounted(spec, &place, &ignored) == COPPICE_OK && is_mounted(&place);
}

static bool kernel_knows_btrfs(void)
{
	_cleanup_(fclosep) FILE *file = fopen("/proc/filesystems", "re");
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (strcmp(line, "\tbtrfs\n") == 0)
			return true;
	return false;
}

/* btrfs.quota: NULL takes what the kernel can; "simple" insists; "none" wants none. */
static bool wants_quota(const struct pool_spec *spec)
{
	const char *quota = spec->get ? spec->get(spec, "btrfs.quota") : NULL;

	return !quota || strcmp(quota, "none") != 0;
}

int btrfs_probe(const struct pool_spec *spec, struct coppice_error *err)
{
	static const char *const load[] = { "modprobe", "btrfs", NULL };
	const char *quota = spec->get ? spec->get(spec, "btrfs.quota") : NULL;
	struct coppice_error ignored;

	if (quota && strcmp(quota, "none") != 0 && strcmp(quota, "simple") != 0)
		return fail(err, COPPICE_INVALID, "btrfs.quota '%s' is neither simple nor none",
			    quota);

	if (geteuid() != 0)
		return fail(err, COPPICE_UNSUPPORTED, "Btrfs needs root");
	if (!kernel_knows_btrfs() && (run_checked(load, &ignored) < 0 || !kernel_knows_btrfs()))
		return fail(err, COPPICE_UNSUPPORTED, "this kernel has no Btrfs");
	if (!spec->source && access("/dev/loop-control", F_OK) < 0)
		return fail(err, COPPICE_UNSUPPORTED, "this machine has no loop devices");
	if (!spec->source && access("/sbin/mkfs.btrfs", X_OK) < 0 &&
	    access("/usr/bin/mkfs.btrfs", X_OK) < 0)
		return fail(err, COPPICE_UNSUPPORTED,
			    "mkfs.btrfs is not installed (Debian: apt install btrfs-progs)");
	return COPPICE_OK;
}

/* ---- attaching and mounting ---- */

/* @was_attached: by somebody who may have it mounted where we do not see it. */
static int mount_device(const struct pool_spec *spec, const char *device, const struct place *place,
			bool was_attached, int *ret_hold, struct coppice_error *err)
{
	const char *more = spec->get(spec, "btrfs.mount_options");
	_cleanup_(freep) char *options = NULL;
	int r;

	/*
	 * discard: what is freed goes back to the host at once, not some time later. What
	 * was reserved stays reserved.
	 */
	options = text_format(
		"%s%s%s", pool_spec_is_true(spec, "coppice.preallocate") ? "nodiscard" : "discard",
		more && *more ? "," : "", more ? more : "");
	if (!options)
		return fail_memory(err);
	/* noatime: else a clone grows by being read. */
	r = mount_held("btrfs", device, options, MOUNT_ATTR_NOATIME, place->mount, ret_hold);
	if (r == 0)
		return COPPICE_OK;
	if (r == -EINVAL && was_attached)
		return fail(err, COPPICE_UNAVAILABLE,
			    "'%s' cannot be mounted anew while it is mounted in another mount "
			    "namespace: "
			    "grep -l %s /proc/[0-9]*/mountinfo tells by whom",
			    place->file, device);
	/* One that we made ourselves, without options, is nobody's mistake. */
	if (r == -EINVAL)
		return fail(
			err,
			place->kind == PLACE_OUR_FILE && !more ? COPPICE_FAILED : COPPICE_INVALID,
			"'%s' does not hold a Btrfs file system that this kernel can mount with "
			"the options '%s'",
			place->file, options);
	(void)fail_errno(err, -r, "cannot mount '%s' at '%s'", place->file, place->mount);
	/* ENOENT: a device of it is missing, or a tree. That is not gone: it can be mended. */
	if (err->code == COPPICE_NOT_FOUND)
		err->code = COPPICE_UNAVAILABLE;
	return err->code;
}

static int make_mount_point(const struct pool_spec *spec, const struct place *place,
			    struct coppice_error *err)
{
	_cleanup_(freep) char *parent = text_format("%s/mnt", spec->state_path);
	int r;

	if (!parent)
		return fail_memory(err);
	r = directory_ensure(AT_FDCWD, parent, 0711, err);
	return r < 0 ? r : directory_ensure(AT_FDCWD, place->mount, 0711, err);
}

/*
 * Attach and mount, once, whoever else is about to: under a lock on the file
 * itself, as attaching it twice would give two file systems on the same bytes.
 * The loop device goes by itself when it is unmounted, which nobody can do while
 * *ret_hold is open; it stays -1 if it was mounted meanwhile.
 */
static int mount_place(const struct pool_spec *spec, const struct place *place, int *ret_hold,
		       struct coppice_error *err)
{
	_cleanup_(loop_close) struct loop loop = LOOP_INIT;
	_cleanup_(closep) int lock_fd = -1;
	int r;

	r = make_mount_point(spec, place, err);
	if (r < 0)
		return r;
	if (access(place->file, F_OK) < 0 && errno == ENOENT)
		return fail(err, COPPICE_NOT_FOUND, "the pool's file '%s' is not there",
			    place->file);
	r = loop_lock(place->file, &lock_fd, err);
	if (r < 0 || is_mounted(place))
		return r;
	if (place->kind == PLACE_DEVICE)
		return mount_device(spec, place->file, place, false, ret_hold, err);
	r = loop_attach_locked(place->file, lock_fd, &loop, err);
	return r < 0 ? r : mount_device(spec, loop.path, place, loop.was_attached, ret_hold, err);
}

static int umount_how(const struct place *place, int flags, struct coppice_error *err)
{
	if (place->kind == PLACE_DIRECTORY || !is_mounted(place) ||
	    umount2(place->mount, UMOUNT_NOFOLLOW | flags) == 0)
		return COPPICE_OK;
	if (errno == EBUSY)
		return fail(err, COPPICE_BUSY, "'%s' is in use", place->mount);
	if (errno == EAGAIN && flags == MNT_EXPIRE)
		return COPPICE_OK; /* not in use: marked, until somebody uses it */
	return fail_errno(err, errno, "cannot unmount '%s'", place->mount);
}

static int umount_place(const struct place *place, struct coppice_error *err)
{
	return umount_how(place, 0, err);
}

/* Not by unmounting: that may be for good, while others have it in their mount namespaces. */
int btrfs_pool_can_umount(const struct pool_spec *spec, struct coppice_error *err)
{
	struct place place;
	int r = place_find_mounted(spec, &place, err);

	return r < 0 ? r : umount_how(&place, MNT_EXPIRE, err);
}

int btrfs_pool_umount(const struct pool_spec *spec, struct coppice_error *err)
{
	struct place place;
	int r = place_find_mounted(spec, &place, err);

	return r < 0 ? r : umount_place(&place, err);
}

/* ---- opening ---- */

void btrfs_pool_close(struct pool *pool)
{
	struct btrfs_pool *btrfs;

	if (!pool)
		return;
	btrfs = btrfs_pool_of(pool);
	layout_done(&btrfs->layout);
	free(btrfs);
}

DEFINE_CLEANUP(struct pool *, btrfs_pool_close)

/* Linux lets nobody write to a file system, nor read all of it, once a write of its own failed. */
static int fail_read_only(const struct pool_spec *spec, const struct place *place,
			  struct coppice_error *err)
{
	struct statvfs fs;

	if (statvfs(place->mount, &fs) < 0 || !(fs.f_flag & ST_RDONLY))
		return err->code;
	return fail(
		err, COPPICE_UNAVAILABLE,
		"the file system at '%s' turned read-only, as its disk was full or failed "
		"(dmesg tells); with some space free there: coppice storage umount %s; the next "
		"command mounts it again",
		place->mount, spec->name);
}

static int open_root(const struct pool_spec *spec, const struct place *place, struct pool **ret,
		     struct coppice_error *err)
{
	struct btrfs_pool *btrfs = calloc(1, sizeof(*btrfs));
	_cleanup_(btrfs_pool_closep) struct pool *pool = NULL;
	int r;

	if (!btrfs)
		return fail_memory(err);
	pool = &btrfs->layout.pool;
	pool->driver = &driver_btrfs;
	if (!is_btrfs(place->mount))
		return fail(err, COPPICE_INVALID, "'%s' is not on Btrfs", place->mount);
	r = layout_open(&btrfs->layout, place->mount, &btrfs_engine, err);
	if (r == COPPICE_OK)
		r = layout_check_owner(&btrfs->layout, spec, err);
	if (r < 0)
		return fail_read_only(spec, place, err);
	r = quota_is_on(btrfs->layout.fd, &btrfs->has_quota, err);
	if (r < 0)
		return r;
	*ret = take_ptr(&pool);
	return COPPICE_OK;
}

static int open_place(const struct pool_spec *spec, const struct place *place, struct pool **ret,
		      struct coppice_error *err)
{
	bool was_mounted = is_mounted(place);
	_cleanup_(closep) int hold = -1;
	struct coppice_error ignored;
	int r = was_mounted ? COPPICE_OK : mount_place(spec, place, &hold, err);

	if (r == COPPICE_OK)
		r = open_root(spec, place, ret, err);
	if (r < 0 && !was_mounted) {
		closep(&hold);
		hold = -1;
		(void)umount_place(place, &ignored);
	}
	return r;
}

/* What is made in it now would not be durable: the last umount ends it. */
static int refuse_gone(const struct place *place, struct coppice_error *err)
{
	if (place->kind == PLACE_DIRECTORY || access(place->file, F_OK) == 0 || errno != ENOENT ||
	    !is_mounted(place))
		return COPPICE_OK;
	return fail(err, COPPICE_NOT_FOUND,
		    "'%s' is gone: what was in it is at '%s' only, until that is unmounted",
		    place->file, place->mount);
}

/* Somebody may unmount what was found mounted before it is opened; not what we mount. */
#define OPEN_TRIES 20

int btrfs_pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err)
{
	struct coppice_error why;
	struct place place;
	int r;

	r = place_find_mounted(spec, &place, err);
	if (r == COPPICE_OK)
		r = refuse_gone(&place, err);
	if (r == COPPICE_OK)
		r = place_find(spec, &place, err);
	if (r < 0)
		return r;
	for (int i = 0; i < OPEN_TRIES; i++) {
		r = open_place(spec, &place, ret, &why);
		if (r != COPPICE_INVALID || is_mounted(&place))
			break;
	}
	if (r < 0)
		*err = why;
	return r;
}

/* ---- making ---- */

static struct pool_file our_file(const struct pool_spec *spec, const struct place *place)
{
	return (struct pool_file){ .path = place->file,
				   .driver = "btrfs",
				   .engine = "Btrfs",
				   .smallest_mib = 256,
				   .is_preallocated =
					   pool_spec_is_true(spec, "coppice.preallocate") };
}

static int undo_unlink(void *owner, const char *name, struct coppice_error *err)
{
	return unlink(name) < 0 && errno != ENOENT ? fail_errno(err, errno, "cannot remove")
						   : COPPICE_OK;
}

static int undo_mount(void *owner, const char *name, struct coppice_error *err)
{
	const struct place *place = owner;
	int r = umount_place(place, err);

	if (r == COPPICE_OK)
		(void)rmdir(name);
	return r;
}

static bool holds_btrfs(const char *path)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	char magic[8];

	return fd >= 0 && pread(fd, magic, sizeof(magic), 0x10040) == sizeof(magic) &&
	       memcmp(magic, "_BHRfS_M", sizeof(magic)) == 0;
}

/* mkfs.btrfs of btrfs-progs 6.2 makes none in less, with both copies of metadata. */
#define SOURCE_SMALLEST_MIB 109

/* mkfs.btrfs refuses what holds a file system already; source.wipe=true says to go on. */
static int check_file(const struct pool_spec *spec, const struct place *place,
		      struct coppice_error *err)
{
	int r;

	if (!pool_spec_is_true(spec, "source.wipe") && holds_btrfs(place->file))
		return fail(err, COPPICE_EXISTS,
			    "'%s' holds a Btrfs file system already; to use a pool in it: coppice "
			    "storage recover; to lose what is in it: source.wipe=true",
			    place->file);
	r = pool_file_refuse_data(spec, place->file, err);
	return r < 0 ? r : pool_file_refuse_small(place->file, "Btrfs", SOURCE_SMALLEST_MIB, err);
}

static int make_file_system(const struct pool_spec *spec, const struct place *place,
			    struct coppice_error *err)
{
	const char *const argv[] = {
		"mkfs.btrfs", "-q",       pool_spec_is_true(spec, "source.wipe") ? "-f" : "-K",
		"-L",         spec->name, place->file,
		NULL
	};

	return run_checked(argv, err);
}

/* Simple quotas can be had from the first moment only: later they know nothing of before. */
static int switch_on_quota(const struct pool_spec *spec, const struct place *place,
			   struct coppice_error *err)
{
	const char *quota = spec->get(spec, "btrfs.quota");
	_cleanup_(closep) int fd = -1;
	int r;

	if (!wants_quota(spec))
		return COPPICE_OK;
	fd = open(place->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", place->mount);
	r = quota_enable(fd, err);
	return r == COPPICE_UNSUPPORTED && !quota ? COPPICE_OK : r;
}

static int check_directory(const struct place *place, struct coppice_error *err)
{
	bool is_empty;
	int r;

	if (!is_btrfs(place->mount))
		return fail(err, COPPICE_INVALID, "source '%s' is not on Btrfs", place->mount);
	r = directory_is_empty(place->mount, &is_empty, err);
	if (r == COPPICE_OK && !is_empty)
		r = fail(err, COPPICE_INVALID,
			 "source '%s' is not empty; if it holds a pool: coppice storage recover",
			 place->mount);
	return r;
}

/* Who owns what is there already, if it is a pool: said instead of "not empty". */
static int refuse_other_pool(const struct pool_spec *spec, const struct place *place,
			     struct coppice_error *err)
{
	struct btrfs_pool probe = { 0 };
	struct coppice_error why;
	int r;

	probe.layout.pool.driver = &driver_btrfs;
	if (layout_open(&probe.layout, place->mount, &btrfs_engine, &why) < 0) {
		layout_done(&probe.layout);
		return COPPICE_OK;
	}
	r = layout_check_owner(&probe.layout,
			       &(struct pool_spec){ .name = spec->name, .owner = spec->owner },
			       err);
	if (r == COPPICE_OK)
		r = fail(err, COPPICE_EXISTS, "there is a pool at '%s' already", place->mount);
	layout_done(&probe.layout);
	return r;
}

static int check_place(const struct pool_spec *spec, const struct place *place,
		       struct coppice_error *err)
{
	struct pool_file file = our_file(spec, place);
	int r;

	switch (place->kind) {
	case PLACE_OUR_FILE:
		return pool_file_check(spec, &file, err);
	case PLACE_FILE:
	case PLACE_DEVICE:
		return check_file(spec, place, err);
	case PLACE_DIRECTORY:
		break;
	}
	r = refuse_other_pool(spec, place, err);
	return r < 0 ? r : check_directory(place, err);
}

int btrfs_pool_check(const struct pool_spec *spec, struct coppice_error *err)
{
	struct place place;
	int r = place_find(spec, &place, err);

	return r < 0 ? r : check_place(spec, &place, err);
}

int btrfs_pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		      struct coppice_error *err)
{
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	_cleanup_(closep) int hold = -1; /* closed before that is rolled back */
	struct pool_file file;
	struct place place;
	int r;

	r = place_find(spec, &place, err);
	if (r < 0)
		return r;
	file = our_file(spec, &place);
	r = check_place(spec, &place, err);
	if (r == COPPICE_OK && place.kind != PLACE_DIRECTORY) {
		if (place.kind == PLACE_OUR_FILE)
			r = pool_file_make(spec, &file, err);
		if (r == COPPICE_OK && place.kind == PLACE_OUR_FILE)
			undo_push(&undo, undo_unlink, NULL, place.file);
		if (r == COPPICE_OK)
			r = make_file_system(spec, &place, err);
		if (r == COPPICE_OK)
			r = mount_place(spec, &place, &hold, err);
		if (r == COPPICE_OK)
			undo_push(&undo, undo_mount, &place, place.mount);
		if (r == COPPICE_OK)
			r = switch_on_quota(spec, &place, err);
	}
	if (r == COPPICE_OK)
		r = layout_make(place.mount, record, err);
	if (r == COPPICE_OK)
		r = open_root(spec, &place, ret, err);
	if (r == COPPICE_OK)
		r = batch_commit(btrfs_pool_of(*ret)->layout.fd, err);
	if (r < 0)
		return r;
	undo_commit(&undo);
	return COPPICE_OK;
}

static void explain_mount(const struct place *place, const char *file, const char *mount_point,
			  explain_fn *explain, void *user)
{
	explain_line(explain, user, "mkdir -p %s", mount_point);
	explain_line(explain, user, "mount -o %snoatime,discard %s %s",
		     place->kind == PLACE_DEVICE ? "" : "loop,", file, mount_point);
}

void btrfs_pool_open_explain(const struct pool_spec *spec, explain_fn *explain, void *user)
{
	_cleanup_(freep) char *file = NULL;
	_cleanup_(freep) char *mount_point = NULL;
	struct coppice_error ignored;
	struct place place;

	if (place_find(spec, &place, &ignored) < 0 || place.kind == PLACE_DIRECTORY)
		return;
	file = text_shell_quote(place.file);
	mount_point = text_shell_quote(place.mount);
	if (file && mount_point)
		explain_mount(&place, file, mount_point, explain, user);
}

void btrfs_pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user)
{
	_cleanup_(freep) char *file = NULL;
	_cleanup_(freep) char *mount_point = NULL;
	struct coppice_error ignored;
	struct pool_file our;
	struct place place;
	uint64_t size;

	if (place_find(spec, &place, &ignored) < 0)
		return;
	file = text_shell_quote(place.file);
	mount_point = text_shell_quote(place.mount);
	if (!file || !mount_point)
		return;
	our = our_file(spec, &place);
	if (place.kind == PLACE_OUR_FILE &&
	    pool_file_size(spec, &our, &size, &ignored) == COPPICE_OK)
		explain_line(explain, user, "truncate -s %llu %s", (unsigned long long)size, file);
	if (place.kind != PLACE_DIRECTORY) {
		explain_line(explain, user, "mkfs.btrfs -q %s-L %s %s",
			     pool_spec_is_true(spec, "source.wipe") ? "-f " : "", spec->name, file);
		explain_mount(&place, file, mount_point, explain, user);
		if (wants_quota(spec))
			explain_line(explain, user,
				     "btrfs quota enable --simple %s # btrfs-progs 6.7 or newer",
				     mount_point);
	}
	layout_make_explain(place.mount, explain, user);
}

/* ---- unmaking ---- */

static int unmake_in_directory(const struct pool_spec *spec, const struct place *place,
			       struct coppice_error *err)
{
	_cleanup_(btrfs_pool_closep) struct pool *pool = NULL;
	struct coppice_error why;

	if (open_root(spec, place, &pool, &why) < 0) {
		if (why.code == COPPICE_INVALID)
			return COPPICE_OK; /* never made, or unmade already */
		*err = why;
		return why.code;
	}
	(void)btrfs_ballast_drop(btrfs_pool_of(pool));
	return layout_unmake(&btrfs_pool_of(pool)->layout, err);
}

int btrfs_pool_destroy(const struct pool_spec *spec, struct coppice_error *err)
{
	struct place place;
	int r;

	r = place_find_mounted(spec, &place, err);
	if (r < 0)
		return r;
	if (place.kind == PLACE_DIRECTORY)
		return unmake_in_directory(spec, &place, err);
	r = umount_place(&place, err);
	if (r < 0)
		return r;
	(void)rmdir(place.mount);
	if (place.kind == PLACE_OUR_FILE && unlink(place.file) < 0 && errno != ENOENT)
		return fail_errno(err, errno, "cannot remove '%s'", place.file);
	if (place.kind != PLACE_OUR_FILE && access(place.file, F_OK) == 0) {
		const char *const argv[] = {
			"wipefs", "-q", "-a", "-t", "btrfs", place.file, NULL
		};

		return run_checked(argv, err);
	}
	return COPPICE_OK;
}

/* ---- size ---- */

/* The device that a file system is on, if that is one and a loop device of a file. */
static int loop_of_mount(int fd, char device[static 64], char file[static PATH_MAX],
			 struct coppice_error *err)
{
	struct btrfs_ioctl_dev_info_args info = { .devid = 1 };
	_cleanup_(freep) char *text = NULL;
	char path[128];
	int r;

	if (ioctl(fd, BTRFS_IOC_DEV_INFO, &info) < 0)
		return fail_errno(err, errno, "cannot ask Btrfs for its device");
	(void)snprintf(device, 64, "%.63s", (const char *)info.path);
	if (strncmp(device, "/dev/loop", 9) != 0)
		return fail(err, COPPICE_UNSUPPORTED,
			    "the pool's size is that of '%s', which Coppice did not make", device);
	(void)snprintf(path, sizeof(path), "/sys/block/%.32s/loop/backing_file", device + 5);
	r = file_read(AT_FDCWD, path, PATH_MAX - 1, &text, err);
	if (r < 0)
		return r;
	text[strcspn(text, "\n")] = '\0';
	(void)snprintf(file, PATH_MAX, "%s", text);
	return COPPICE_OK;
}

int btrfs_pool_resize(struct pool *pool, uint64_t size_bytes, struct coppice_error *err)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(pool);
	struct btrfs_ioctl_vol_args args = { .name = "max" };
	char device[64], file[PATH_MAX];
	struct stat st;
	int r;

	r = loop_of_mount(btrfs->layout.fd, device, file, err);
	if (r < 0)
		return r;
	if (stat(file, &st) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", file);
	if (size_bytes < (uint64_t)st.st_size)
		return fail(err, COPPICE_INVALID,
			    "size cannot shrink: '%s' has %lld bytes, %llu were asked for", file,
			    (long long)st.st_size, (unsigned long long)size_bytes);
	layout_explain(&btrfs->layout, "truncate -s %llu %s", (unsigned long long)size_bytes, file);
	layout_explain(&btrfs->layout, "losetup -c %s", device);
	layout_explain(&btrfs->layout, "btrfs filesystem resize max %s", btrfs->layout.quoted);
	if (pool->is_dry_run)
		return COPPICE_OK;
	if (retry(truncate(file, (off_t)(size_bytes & ~0xfffULL))) < 0)
		return fail_errno(err, errno, "cannot grow '%s'", file);
	r = loop_resize(device, err);
	if (r == COPPICE_OK && ioctl(btrfs->layout.fd, BTRFS_IOC_RESIZE, &args) < 0)
		r = fail_errno(err, errno, "cannot grow the file system");
	return r;
}

int btrfs_pool_host(const struct pool_spec *spec, bool *ret_is_file, struct pool_host *ret,
		    struct coppice_error *err)
{
	struct place place;
	int r = place_find(spec, &place, err);

	if (r < 0)
		return r;
	*ret_is_file = place.kind == PLACE_OUR_FILE || place.kind == PLACE_FILE;
	if (!*ret_is_file)
		return COPPICE_OK;
	return pool_file_host(place.file, ret, err);
}

const char *btrfs_pool_remark(struct pool *pool)
{
	if (btrfs_pool_of(pool)->has_quota)
		return "has simple quotas: Linux before 6.7 cannot mount it, nor btrfs-progs "
		       "before "
		       "6.7 check it (btrfs.quota=none makes one without)";
	return "has no simple quotas: sizes of instances cannot be limited, and what they wrote is "
	       "unknown; any Linux can mount it";
}

int btrfs_pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err)
{
	struct statvfs fs;

	if (fstatvfs(btrfs_pool_of(pool)->layout.fd, &fs) < 0)
		return fail_errno(err, errno, "cannot ask for the pool's space");
	*ret = (struct pool_space){
		.total = { COPPICE_EXACT, (uint64_t)fs.f_blocks * fs.f_frsize },
		.used = { COPPICE_EXACT, (uint64_t)(fs.f_blocks - fs.f_bfree) * fs.f_frsize },
		.free = { COPPICE_EXACT, (uint64_t)fs.f_bavail * fs.f_frsize },
	};
	return COPPICE_OK;
}
