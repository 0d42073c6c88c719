/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting, when somebody asks for a path; and what is mounted.
 *
 * On OpenZFS volumes have mountpoint=legacy, and it is mount(2) that mounts them, and
 * their snapshots, where we want; nothing is written on the pool for that.
 *
 * zfs-fuse can mount nothing but where the property says, and mounts a clone at once
 * unless that is none. So volumes have mountpoint=none at birth, and the property is set
 * for as long as they are mounted. A snapshot is read through a clone in ROOT/mounts, as
 * there is no other way. It is the mount that is read-only, not the clone: with
 * readonly=on, zfs-fuse answers ENOSYS when asked for the attributes of a file that has
 * none, and Linux then asks for nobody's any more.
 */
#include "driver/zfs/zfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <string.h>
#include <sys/mount.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/generic/inuse.h"

/* ---- what is mounted ---- */

typedef bool mount_fn(void *user, const char *dataset, const char *path);

/* What is looked for: by its dataset, or by where it is mounted. */
struct finding {
	const char *dataset; /* NULL: any */
	const char *path;    /* NULL: anywhere */
	bool is_below;       /* or what is below that, of it, or beside it after a colon */
	char *found;         /* DATASET_MAX, or NULL */
	char *where;         /* PATH_MAX, or NULL */
};

/* Is it @of, or, if that is @or_below, of what is in @of? A colon: a clone for reading it. */
static bool is_it(const char *name, const char *of, bool or_below)
{
	size_t n = strlen(of);

	if (strncmp(name, of, n) != 0)
		return false;
	return name[n] == '\0' || (or_below && strchr("/@:", name[n]));
}

static bool is_wanted(const struct finding *finding, const struct mntent *mount)
{
	if (strcmp(mount->mnt_type, "zfs") != 0 && strcmp(mount->mnt_type, "fuse.zfs") != 0)
		return false;
	if (finding->path && !is_it(mount->mnt_dir, finding->path, finding->is_below))
		return false;
	return !finding->dataset || is_it(mount->mnt_fsname, finding->dataset, finding->is_below);
}

/* Of several, the one that was mounted last, as it may be mounted in another. */
static bool mount_find(const struct finding *finding)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	char buffer[2 * PATH_MAX];
	struct mntent entry;
	bool is_found = false;

	while (mounts && getmntent_r(mounts, &entry, buffer, sizeof(buffer))) {
		if (!is_wanted(finding, &entry))
			continue;
		is_found = true;
		if (finding->found)
			(void)snprintf(finding->found, DATASET_MAX, "%s", entry.mnt_fsname);
		if (finding->where)
			(void)snprintf(finding->where, PATH_MAX, "%s", entry.mnt_dir);
	}
	if (mounts)
		(void)endmntent(mounts);
	return is_found;
}

bool zfs_mount_find(const char *dataset, char ret[static PATH_MAX])
{
	return mount_find(&(struct finding){ .dataset = dataset, .where = ret });
}

/* ---- mounting and unmounting ---- */

/* All but the last component of @path below the pool's mount directory. */
static int folders_ensure(struct zfs_pool *zfs, const char *path, struct coppice_error *err)
{
	_cleanup_(freep) char *copy = strdup(path);
	int r = COPPICE_OK;

	if (!copy)
		return fail_memory(err);
	for (char *slash = copy + strlen(zfs->mount) + 1; r == COPPICE_OK;) {
		slash = strchr(slash, '/');
		if (!slash)
			break;
		*slash = '\0';
		r = directory_ensure(AT_FDCWD, copy, 0700, err);
		*slash++ = '/';
	}
	return r;
}

/* By the kernel's own ZFS; a snapshot, too. */
static int mount_by_kernel(const char *dataset, const char *path, struct coppice_error *err)
{
	char where[PATH_MAX];

	if (mount(dataset, path, "zfs", strchr(dataset, '@') ? MS_RDONLY : 0, NULL) == 0)
		return COPPICE_OK;
	if (errno == EBUSY && zfs_mount_find(dataset, where))
		return COPPICE_OK; /* somebody else did it meanwhile */
	return errno == ENOENT ? fail(err, COPPICE_NOT_FOUND, "there is no dataset '%s'", dataset)
			       : fail_errno(err, errno, "cannot mount '%s' at '%s'", dataset, path);
}

/* By zfs-fuse: setting it mounts it, unless it had this very mountpoint already. */
static int mount_by_property(const char *dataset, const char *path, struct coppice_error *err)
{
	_cleanup_(freep) char *property = text_format("mountpoint=%s", path);
	char where[PATH_MAX];
	int r;

	if (!property)
		return fail_memory(err);
	r = zfs_run(ZFS_ARGS("zfs", "set", property, dataset), NULL, err);
	if (r == COPPICE_OK && !zfs_mount_find(dataset, where))
		r = zfs_run(ZFS_ARGS("zfs", "mount", dataset), NULL, err);
	return r;
}

int zfs_mount_at(struct zfs_pool *zfs, const char *dataset, const char *path,
		 struct coppice_error *err)
{
	char where[PATH_MAX];
	int r;

	if (zfs_mount_find(dataset, where))
		return COPPICE_OK;
	r = folders_ensure(zfs, path, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, path, 0755, err);
	if (r == COPPICE_OK)
		r = zfs_is_in_kernel() ? mount_by_kernel(dataset, path, err)
				       : mount_by_property(dataset, path, err);
	return r < 0 ? wrap(err, "cannot mount '%s'", dataset) : COPPICE_OK;
}

/* More than anybody mounts in one place; what a later mount hides is never found there. */
#define UMOUNT_TRIES 1000

/*
 * All that is mounted at @path and in it: whoever looked into .zfs/snapshot has left what
 * the kernel mounted there for him.
 */
static int umount_by_kernel(const char *path, struct coppice_error *err)
{
	char where[PATH_MAX];
	struct finding finding = { .path = path, .is_below = true, .where = where };

	for (int i = 0; mount_find(&finding); i++) {
		if (umount2(where, UMOUNT_NOFOLLOW) == 0)
			continue;
		if (errno == EBUSY)
			return fail(err, COPPICE_BUSY, "'%s' is in use", where);
		/* EINVAL: somebody else did it meanwhile. */
		if (errno != EINVAL || i == UMOUNT_TRIES)
			return fail_errno(err, errno, "cannot unmount '%s'", where);
	}
	(void)rmdir(path);
	return COPPICE_OK;
}

static int umount_by_property(const char *dataset, const char *path, struct coppice_error *err)
{
	char where[PATH_MAX];
	int r;

	r = zfs_run(ZFS_ARGS("zfs", "unmount", dataset), NULL, err);
	if (r < 0 && zfs_mount_find(dataset, where))
		return fail(err, COPPICE_BUSY, "'%s' is in use", where);
	r = zfs_run(ZFS_ARGS("zfs", "inherit", "mountpoint", dataset), NULL, err);
	(void)rmdir(path);
	return r;
}

int zfs_umount(const char *dataset, struct coppice_error *err)
{
	char where[PATH_MAX];
	int r = COPPICE_OK;

	if (!zfs_is_in_kernel())
		return zfs_mount_find(dataset, where) ? umount_by_property(dataset, where, err)
						      : COPPICE_OK;
	while (r == COPPICE_OK && zfs_mount_find(dataset, where))
		r = umount_by_kernel(where, err);
	return r;
}

int zfs_umount_within(const char *dataset, struct coppice_error *err)
{
	char found[DATASET_MAX];
	struct finding finding = { .dataset = dataset, .is_below = true, .found = found };
	int r = COPPICE_OK;

	while (r == COPPICE_OK && mount_find(&finding))
		r = zfs_umount(found, err);
	return r;
}

/* ---- paths ---- */

int zfs_path(struct pool *pool, const struct volume_ref *ref, char **ret, struct coppice_error *err)
{
	const char *folder = zfs_kind_folder(ref->kind), *mount = zfs_pool_of(pool)->mount;
	char *path;

	if (volume_is_snapshot(ref))
		path = text_format("%s/snapshots/%s/%s/%s", mount, folder, ref->name.text,
				   ref->snapshot.text);
	else
		path = text_format("%s/%s/%s", mount, folder, ref->name.text);
	if (!path)
		return fail_memory(err);
	*ret = path;
	return COPPICE_OK;
}

/* ---- snapshots ---- */

/* ROOT/mounts/containers:c1:s1, a clone for reading; without snapshot: how all of c1's begin. */
static const char *reading_name(const struct zfs_pool *zfs, const struct volume_ref *ref,
				char ret[static DATASET_MAX])
{
	(void)snprintf(ret, DATASET_MAX, "%s/mounts/%s:%s%s%s", zfs->root,
		       zfs_kind_folder(ref->kind), ref->name.text,
		       volume_is_snapshot(ref) ? ":" : "", ref->snapshot.text);
	return ret;
}

static int reading_end(const char *clone, struct coppice_error *err)
{
	int r = zfs_umount(clone, err);

	return r < 0 ? r : zfs_run(ZFS_ARGS("zfs", "destroy", clone), NULL, err);
}

/* Make a clone of @snapshot and mount it; what is there from before, unmounted, is of no use. */
static int reading_begin(struct zfs_pool *zfs, const struct volume_ref *ref, const char *snapshot,
			 const char *path, struct coppice_error *err)
{
	struct coppice_error ignored;
	char clone[DATASET_MAX];
	int r;

	(void)zfs_run(ZFS_ARGS("zfs", "destroy", reading_name(zfs, ref, clone)), NULL, &ignored);
	r = zfs_run(ZFS_ARGS("zfs", "clone", "-o", "mountpoint=none", snapshot, clone), NULL, err);
	if (r == COPPICE_OK)
		r = zfs_mount_at(zfs, clone, path, err);
	if (r == COPPICE_OK &&
	    mount("none", path, "none", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOATIME, NULL) < 0)
		r = fail_errno(err, errno, "cannot mount '%s' read-only", path);
	if (r < 0)
		(void)reading_end(clone, &ignored);
	return r;
}

/* Where a volume or a snapshot is mounted; false: nowhere. */
static bool ref_find(struct zfs_pool *zfs, const struct volume_ref *ref, char ret[static PATH_MAX])
{
	_cleanup_(freep) char *path = NULL;
	struct coppice_error ignored;
	char name[DATASET_MAX];

	if (!volume_is_snapshot(ref))
		return zfs_mount_find(zfs_volume_name(zfs, ref, name), ret);
	if (!zfs_is_in_kernel())
		return zfs_mount_find(reading_name(zfs, ref, name), ret);
	/* Which of the datasets below its volume has it, one need not know. */
	return zfs_path(&zfs->pool, ref, &path, &ignored) == COPPICE_OK &&
	       mount_find(&(struct finding){ .path = path, .where = ret });
}

static int snapshot_mount(struct zfs_pool *zfs, const struct volume_ref *ref, const char *path,
			  struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	struct dataset *snapshot;
	int r = zfs_find(zfs, ref, &listing, &snapshot, err);

	if (r < 0)
		return r;
	return zfs_is_in_kernel() ? zfs_mount_at(zfs, snapshot->name, path, err)
				  : reading_begin(zfs, ref, snapshot->name, path, err);
}

static int snapshot_umount(struct zfs_pool *zfs, const struct volume_ref *ref,
			   struct coppice_error *err)
{
	char name[DATASET_MAX], where[PATH_MAX];

	if (!ref_find(zfs, ref, where))
		return COPPICE_OK;
	return zfs_is_in_kernel() ? umount_by_kernel(where, err)
				  : reading_end(reading_name(zfs, ref, name), err);
}

int zfs_umount_ref(struct zfs_pool *zfs, const struct volume_ref *ref, struct coppice_error *err)
{
	char name[DATASET_MAX], found[DATASET_MAX];
	struct finding finding = { .dataset = name, .is_below = true, .found = found };
	int r = COPPICE_OK;

	if (volume_is_snapshot(ref))
		return snapshot_umount(zfs, ref, err);
	(void)reading_name(zfs, ref, name);
	while (r == COPPICE_OK && mount_find(&finding))
		r = reading_end(found, err);
	return r < 0 ? r : zfs_umount_within(zfs_volume_name(zfs, ref, name), err);
}

int zfs_volume_mount(struct pool *pool, const struct volume_ref *ref, bool *ret_did,
		     struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(freep) char *path = NULL;
	char name[DATASET_MAX], where[PATH_MAX];
	int r;

	r = zfs_path(pool, ref, &path, err);
	if (r < 0)
		return r;
	*ret_did = false;
	if (pool->is_dry_run || ref_find(zfs, ref, where))
		return COPPICE_OK;
	r = volume_is_snapshot(ref) ? snapshot_mount(zfs, ref, path, err)
				    : zfs_mount_at(zfs, zfs_volume_name(zfs, ref, name), path, err);
	if (r == COPPICE_NOT_FOUND)
		return zfs_missing(zfs, ref, err);
	if (r == COPPICE_OK)
		*ret_did = true;
	return r;
}

int zfs_volume_umount(struct pool *pool, const struct volume_ref *ref, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	char name[DATASET_MAX];

	return volume_is_snapshot(ref) ? snapshot_umount(zfs, ref, err)
				       : zfs_umount(zfs_volume_name(zfs, ref, name), err);
}

/* ---- in use ---- */

static bool find_used(struct pool *pool, const struct volume_ref *ref, char ret[static PATH_MAX])
{
	return ref_find(zfs_pool_of(pool), ref, ret);
}

int zfs_in_use(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
	       void *user, struct coppice_error *err)
{
	return in_use_where(pool, refs, n, find_used, tell, user, err);
}
