/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting, when somebody asks for a path. Volumes have mountpoint=none at birth, as
 * zfs-fuse mounts a clone at once otherwise, and can mount nothing but where the
 * property says; the property is set for as long as it is mounted. A snapshot is read
 * through a clone in ROOT/mounts, as zfs-fuse has no other way. It is the mount that is
 * read-only, not the clone: with readonly=on, zfs-fuse answers ENOSYS when asked for the
 * attributes of a file that has none, and Linux then asks for nobody's any more.
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

/* Ask @fn about each mount of ZFS, until it says that it has what it wanted. */
static bool mounts_find(mount_fn *fn, void *user)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	char buffer[2 * PATH_MAX];
	struct mntent entry;
	bool is_found = false;

	while (mounts && !is_found && getmntent_r(mounts, &entry, buffer, sizeof(buffer)))
		if (strcmp(entry.mnt_type, "zfs") == 0 || strcmp(entry.mnt_type, "fuse.zfs") == 0)
			is_found = fn(user, entry.mnt_fsname, entry.mnt_dir);
	if (mounts)
		(void)endmntent(mounts);
	return is_found;
}

struct finding {
	const char *dataset;
	bool is_below; /* or below it, or beside it after a colon: a snapshot's clone */
	char *found;   /* DATASET_MAX, or NULL */
	char *path;    /* PATH_MAX, or NULL */
};

static bool is_wanted(void *user, const char *dataset, const char *path)
{
	struct finding *finding = user;
	size_t n = strlen(finding->dataset);

	if (strncmp(dataset, finding->dataset, n) != 0 ||
	    (dataset[n] != '\0' &&
	     (!finding->is_below || (dataset[n] != '/' && dataset[n] != ':'))))
		return false;
	if (finding->found)
		(void)snprintf(finding->found, DATASET_MAX, "%s", dataset);
	if (finding->path)
		(void)snprintf(finding->path, PATH_MAX, "%s", path);
	return true;
}

bool zfs_mount_find(const char *dataset, char ret[static PATH_MAX])
{
	return mounts_find(is_wanted, &(struct finding){ .dataset = dataset, .path = ret });
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

int zfs_mount_at(struct zfs_pool *zfs, const char *dataset, const char *path,
		 struct coppice_error *err)
{
	_cleanup_(freep) char *property = text_format("mountpoint=%s", path);
	char where[PATH_MAX];
	int r;

	if (!property)
		return fail_memory(err);
	if (zfs_mount_find(dataset, where))
		return COPPICE_OK;
	r = folders_ensure(zfs, path, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, path, 0755, err);
	/* This mounts it, unless it had this very mountpoint already. */
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zfs", "set", property, dataset), NULL, err);
	if (r == COPPICE_OK && !zfs_mount_find(dataset, where))
		r = zfs_run(ZFS_ARGS("zfs", "mount", dataset), NULL, err);
	return r < 0 ? wrap(err, "cannot mount '%s'", dataset) : COPPICE_OK;
}

int zfs_umount(const char *dataset, struct coppice_error *err)
{
	char where[PATH_MAX];
	int r;

	if (!zfs_mount_find(dataset, where))
		return COPPICE_OK;
	r = zfs_run(ZFS_ARGS("zfs", "unmount", dataset), NULL, err);
	if (r < 0 && zfs_mount_find(dataset, where))
		return fail(err, COPPICE_BUSY, "'%s' is in use", where);
	r = zfs_run(ZFS_ARGS("zfs", "inherit", "mountpoint", dataset), NULL, err);
	(void)rmdir(where);
	return r;
}

int zfs_umount_within(const char *dataset, struct coppice_error *err)
{
	char found[DATASET_MAX];
	struct finding finding = { .dataset = dataset, .is_below = true, .found = found };
	int r = COPPICE_OK;

	while (r == COPPICE_OK && mounts_find(is_wanted, &finding))
		r = zfs_umount(found, err);
	return r;
}

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

int zfs_umount_ref(struct zfs_pool *zfs, const struct volume_ref *ref, struct coppice_error *err)
{
	char name[DATASET_MAX], found[DATASET_MAX];
	struct finding finding = { .dataset = name, .is_below = true, .found = found };
	int r = COPPICE_OK;

	(void)reading_name(zfs, ref, name);
	while (r == COPPICE_OK && mounts_find(is_wanted, &finding))
		r = reading_end(found, err);
	if (r < 0 || volume_is_snapshot(ref))
		return r;
	return zfs_umount_within(zfs_volume_name(zfs, ref, name), err);
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

/* Clone a snapshot to read it; what is there from before, unmounted, is of no use. */
static int reading_begin(struct zfs_pool *zfs, const struct volume_ref *ref, const char *path,
			 bool *did, struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	char clone[DATASET_MAX], where[PATH_MAX];
	struct coppice_error ignored;
	struct dataset *snapshot;
	int r;

	if (zfs_mount_find(reading_name(zfs, ref, clone), where)) {
		*did = false;
		return COPPICE_OK;
	}
	r = zfs_find(zfs, ref, &listing, &snapshot, err);
	if (r < 0)
		return r;
	(void)zfs_run(ZFS_ARGS("zfs", "destroy", clone), NULL, &ignored);
	r = zfs_run(ZFS_ARGS("zfs", "clone", "-o", "mountpoint=none", snapshot->name, clone), NULL,
		    err);
	if (r == COPPICE_OK)
		r = zfs_mount_at(zfs, clone, path, err);
	if (r == COPPICE_OK &&
	    mount("none", path, "none", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOATIME, NULL) < 0)
		r = fail_errno(err, errno, "cannot mount '%s' read-only", path);
	if (r < 0)
		(void)reading_end(clone, &ignored);
	return r;
}

int zfs_volume_mount(struct pool *pool, const struct volume_ref *ref, bool *ret_did,
		     struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(freep) char *path = NULL;
	char name[DATASET_MAX], where[PATH_MAX];
	bool did = true;
	int r;

	r = zfs_path(pool, ref, &path, err);
	if (r < 0)
		return r;
	*ret_did = false;
	if (pool->is_dry_run)
		return COPPICE_OK;
	if (volume_is_snapshot(ref)) {
		r = reading_begin(zfs, ref, path, &did, err);
	} else {
		did = !zfs_mount_find(zfs_volume_name(zfs, ref, name), where);
		r = zfs_mount_at(zfs, name, path, err);
	}
	if (r == COPPICE_NOT_FOUND)
		return zfs_missing(zfs, ref, err);
	if (r == COPPICE_OK)
		*ret_did = did;
	return r;
}

int zfs_volume_umount(struct pool *pool, const struct volume_ref *ref, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	char name[DATASET_MAX], where[PATH_MAX];

	if (!volume_is_snapshot(ref))
		return zfs_umount(zfs_volume_name(zfs, ref, name), err);
	if (!zfs_mount_find(reading_name(zfs, ref, name), where))
		return COPPICE_OK;
	return reading_end(name, err);
}

static void queries_free(struct in_use_query *queries, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((void *)(uintptr_t)queries[i].what);
		free((void *)(uintptr_t)queries[i].path);
	}
	free(queries);
}

/* What is not mounted is not in use. */
int zfs_in_use(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
	       void *user, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	struct in_use_query *queries = calloc(n + 1, sizeof(*queries));
	char name[DATASET_MAX], where[PATH_MAX], text[VOLUME_REF_TEXT_MAX];
	int r = COPPICE_OK;
	size_t used = 0;

	if (!queries)
		return fail_memory(err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		if (!zfs_mount_find(volume_is_snapshot(&refs[i])
					    ? reading_name(zfs, &refs[i], name)
					    : zfs_volume_name(zfs, &refs[i], name),
				    where))
			continue;
		queries[used++] = (struct in_use_query){
			.what = strdup(volume_ref_format(&refs[i], text)),
			.path = strdup(where),
		};
		if (!queries[used - 1].what || !queries[used - 1].path)
			r = fail_memory(err);
	}
	if (r == COPPICE_OK && used > 0)
		r = tell ? in_use_each(queries, used, tell, user, err)
			 : in_use_find(queries, used, NULL, 0, err);
	queries_free(queries, used);
	return r;
}
