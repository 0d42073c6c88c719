/* SPDX-License-Identifier: Apache-2.0 */

/* The drivers under test, and how to reach into their volumes. */

#include "conformance.h"

#include <fcntl.h>

#include "base/file.h"
#include "base/run.h"
#include "base/text.h"
#include "driver/btrfs/btrfs.h"
#ifdef HAS_CEPH
#include "driver/ceph/ceph.h"
#endif
#include "driver/dir/dir.h"
#include "driver/dir/projects.h"
#include "driver/lvm/lvm.h"
#include "driver/memory.h"
#include "driver/zfs/zfs.h"

static int file_of(struct pool *pool, const struct volume_ref *ref, const char *key, char **ret,
		   struct coppice_error *err)
{
	_cleanup_(freep) char *path = NULL;
	int r;

	r = pool->driver->path(pool, ref, &path, err);
	if (r < 0)
		return r;
	*ret = text_format("%s/%s", path, key);
	return *ret ? COPPICE_OK : fail_memory(err);
}

static int files_put(struct pool *pool, const struct volume_ref *ref, const char *key,
		     const char *value, struct coppice_error *err)
{
	_cleanup_(freep) char *path = NULL;
	_cleanup_(closep) int fd = -1;
	int r;

	r = file_of(pool, ref, key, &path, err);
	if (r < 0)
		return r;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	r = write_all(fd, value, strlen(value), path, err);
	if (r < 0)
		return r;
	/* So that what the engine has to say about space it says now. */
	return fsync(fd) < 0 ? fail_errno(err, errno, "cannot sync '%s'", path) : COPPICE_OK;
}

static char *files_get(struct pool *pool, const struct volume_ref *ref, const char *key)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *path = NULL;
	char *value;

	if (file_of(pool, ref, key, &path, &err) < 0 ||
	    file_read(AT_FDCWD, path, 1 << 20, &value, &err) < 0)
		return NULL;
	return value;
}

/* Mounted only for the moment: so unmounting is tried as often as mounting. */
static int mounted_put(struct pool *pool, const struct volume_ref *ref, const char *key,
		       const char *value, struct coppice_error *err)
{
	struct coppice_error ignored;
	bool did;
	int r;

	r = pool->driver->volume_mount(pool, ref, &did, err);
	if (r < 0)
		return r;
	r = files_put(pool, ref, key, value, err);
	if (r < 0)
		(void)pool->driver->volume_umount(pool, ref, &ignored);
	return r < 0 ? r : pool->driver->volume_umount(pool, ref, err);
}

static char *mounted_get(struct pool *pool, const struct volume_ref *ref, const char *key)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *value;
	bool did;

	if (pool->driver->volume_mount(pool, ref, &did, &err) < 0)
		return NULL;
	value = files_get(pool, ref, key);
	ok_call(pool->driver->volume_umount(pool, ref, &err), &err);
	return value;
}

/* All datasets and snapshots but the pool's own folders. */
static size_t zfs_n_left(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct zfs_pool *zfs = zfs_pool_of(pool);
	struct listing listing = { 0 };
	size_t n = 0;

	ok_call(listing_read_all(zfs, &listing, &err), &err);
	for (size_t i = 0; i < listing.n; i++) {
		const char *rest = listing.dataset[i].name + strlen(zfs->root);
		bool is_folder = !strchr(rest, '@') &&
				 (rest[0] == '\0' || !strchr(rest + 1, '/') ||
				  (strncmp(rest, "/deleted/", 9) == 0 && !strchr(rest + 9, '/')));

		if (is_folder)
			continue;
		printf("# left: %s\n", listing.dataset[i].name);
		n++;
	}
	listing_done(&listing);
	return n;
}

/* What was written into it, or else into the tree that it shares. */
static char *memory_get(struct pool *pool, const struct volume_ref *ref, const char *key)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *value;

	if (memory_volume_get(pool, ref, key, &value, &err) == COPPICE_OK)
		return value;
	return files_get(pool, ref, key);
}

static const char *needs_nothing(void)
{
	return NULL;
}

static const char *needs_root(void)
{
	return geteuid() != 0 ? "needs root" : NULL;
}

static const char *needs_loop_and_btrfs(void)
{
	struct pool_spec spec = { .name = "none", .state_path = "/tmp" };
	static struct coppice_error err;

	if (geteuid() != 0)
		return "needs root";
	if (access("/dev/loop-control", R_OK | W_OK) < 0)
		return "no loop devices here";
	return driver_btrfs.probe(&spec, &err) < 0 ? err.message : NULL;
}

/* The kernel's ZFS, or the daemon that tests/tools/with-zfs starts. */
static const char *needs_zfs(void)
{
	static struct coppice_error err;

	if (geteuid() != 0)
		return "needs root";
	return zfs_run(ZFS_ARGS("zpool", "list", "-H"), NULL, &err) < 0 ? err.message : NULL;
}

/* Where there is none, tests/tools/with-uml starts a kernel that has it. */
static const char *needs_device_mapper(void)
{
	struct pool_spec spec = { .name = "none", .state_path = "/tmp" };
	static struct coppice_error err;

	return driver_lvm.probe(&spec, &err) < 0 ? err.message : NULL;
}

static size_t lvm_n_left(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct lv_list list = { 0 };
	size_t n;

	ok_call(lvm_list_read(lvm_pool_of(pool), &list, &err), &err);
	for (size_t i = 0; i < list.n; i++)
		printf("# left: %s %s\n", list.lv[i].name, list.lv[i].tags);
	n = list.n;
	lv_list_done(&list);
	return n;
}

#ifdef HAS_CEPH
/* A cluster that tests/tools/with-ceph starts. */
static const char *needs_ceph(void)
{
	if (geteuid() != 0)
		return "needs root";
	if (!ceph_mapper())
		return "nothing here maps images of RBD";
	return access("/etc/ceph/ceph.conf", R_OK) < 0 ? "there is no cluster" : NULL;
}

/* As root only: a kernel that has it as a module gets it. */
static bool has_file_system(const char *name)
{
	const char *const argv[] = { "sh", "-c",
				     "grep -qw \"$0\" /proc/filesystems || modprobe -q \"$0\"",
				     name, NULL };
	struct coppice_error ignored;

	return run_checked(argv, &ignored) == COPPICE_OK;
}

static const char *needs_ceph_and_xfs(void)
{
	const char *why = needs_ceph();

	return why ? why : has_file_system("xfs") ? NULL : "no XFS in this kernel";
}

static const char *needs_ceph_and_btrfs(void)
{
	const char *why = needs_ceph();

	return why ? why : has_file_system("btrfs") ? NULL : "no Btrfs in this kernel";
}

/* A manager has heard of a pool some seconds after it was made. */
static void settle_ceph(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_space space = { 0 };

	for (int i = 0; i < 300 && !space.total.known; i++) {
		ok_call(pool->driver->pool_space(pool, &space, &err), &err);
		if (!space.total.known)
			(void)usleep(100000);
	}
}

/* What is in the trash counts, too. */
static size_t ceph_n_left(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct rbd_list lists[2] = { 0 };
	size_t n = 0;

	ok_call(rbd_listing_read(ceph_pool_of(pool), &lists[0], &err), &err);
	ok_call(rbd_trash_read(ceph_pool_of(pool), &lists[1], &err), &err);
	for (size_t k = 0; k < ARRAY_SIZE(lists); k++) {
		for (size_t i = 0; i < lists[k].n; i++, n++)
			printf("# left: %s%s\n", lists[k].rbd[i].name, k == 1 ? " in the trash" : "");
		rbd_listing_done(&lists[k]);
	}
	return n;
}
#endif

static const char *no_nanoseconds_of_zfs(void)
{
	return zfs_is_in_kernel() ? NULL : "zfs-fuse sets times of files to whole seconds";
}

static const char *no_limits_without_quotas(void)
{
	return "the pool has no simple quotas";
}

/* Pools lie in the test's directory. */
static const char *no_limits_of_dir(void)
{
	_cleanup_(closep) int fd = open(tap_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct projects projects;

	projects_probe(fd, &projects);
	return projects.problem;
}

/* The kernel drops deleted subvolumes in the background. */
static void settle_btrfs(struct pool *pool)
{
	const char *path = pool->driver->pool_mount_path(pool);
	const char *const sync[] = { "btrfs", "filesystem", "sync", path, NULL };
	const char *const drop[] = { "btrfs", "subvolume", "sync", path, NULL };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(run_checked(sync, &err), &err);
	ok_call(run_checked(drop, &err), &err);
	ok_call(run_checked(sync, &err), &err);
}

const struct subject subject_memory = {
	.name = "memory",
	.driver = &driver_memory,
	.no_processes = "pools in memory are of one process",
	.no_files = "volumes in memory are no files",
	.has_tombstones = true,
	.why_not = needs_nothing,
	.put = memory_volume_put,
	.get = memory_get,
};

const struct subject subject_dir = {
	.name = "dir",
	.driver = &driver_dir,
	.no_read_only = "a plain directory cannot be made read-only",
	.no_limits = no_limits_of_dir,
	.why_not = needs_root,
	.put = files_put,
	.get = files_get,
};

/* As on kernels before 6.7, and where somebody wants that they can mount it. */
const struct subject subject_btrfs_noquota = {
	.name = "btrfs-noquota",
	.driver = &driver_btrfs,
	.quota = "none",
	.no_limits = no_limits_without_quotas,
	.size = "2GiB",
	.settle = settle_btrfs,
	.why_not = needs_loop_and_btrfs,
	.put = files_put,
	.get = files_get,
};

const struct subject subject_btrfs = {
	.name = "btrfs",
	.driver = &driver_btrfs,
	.size = "2GiB",
	.has_accounts = true,
	.settle = settle_btrfs,
	.why_not = needs_loop_and_btrfs,
	.put = files_put,
	.get = files_get,
};

const struct subject subject_zfs = {
	.name = "zfs",
	.driver = &driver_zfs,
	.size = "2GiB",
	.no_nanoseconds = no_nanoseconds_of_zfs,
	.keeps_some = true,
	.has_tombstones = true,
	.n_left = zfs_n_left,
	.why_not = needs_zfs,
	.put = mounted_put,
	.get = mounted_get,
};

/* Metadata grows with the pool, so it keeps some. */
#define ON_LVM                                                                                     \
	.driver = &driver_lvm, .keeps_some = true, .n_left = lvm_n_left,                           \
	.why_not = needs_device_mapper, .put = mounted_put, .get = mounted_get

const struct subject subject_lvm_ext4 = {
	.name = "lvm-ext4",
	ON_LVM,
	.file_system = "ext4",
	.volume_size = "64MiB",
	.size = "1GiB",
};

const struct subject subject_lvm_btrfs = {
	.name = "lvm-btrfs",
	ON_LVM,
	.file_system = "btrfs",
	.metadata_bytes = 1U << 20, /* it writes each block of its trees twice */
	.volume_size = "320MiB",
	.size = "4GiB",
};

const struct subject subject_lvm_xfs = {
	.name = "lvm-xfs",
	ON_LVM,
	.file_system = "xfs",
	.metadata_bytes = 4U << 20, /* it clears its log ahead when it is mounted */
	.volume_size = "320MiB",
	.size = "4GiB", /* mkfs.xfs writes 64 MiB of log into each */
};

#ifdef HAS_CEPH
/* Objects of 4 MiB are counted whole. */
#define ON_CEPH                                                                                    \
	.driver = &driver_ceph, .has_tombstones = true, .n_left = ceph_n_left,                     \
	.settle = settle_ceph, .put = mounted_put, .get = mounted_get

const struct subject subject_ceph = {
	.name = "ceph",
	ON_CEPH,
	.why_not = needs_ceph,
	.file_system = "ext4",
	.metadata_bytes = 16U << 20,
	.volume_size = "64MiB",
};

const struct subject subject_ceph_xfs = {
	.name = "ceph-xfs",
	ON_CEPH,
	.why_not = needs_ceph_and_xfs,
	.file_system = "xfs",
	.metadata_bytes = 96U << 20, /* its log is cleared ahead when it is mounted */
	.volume_size = "320MiB",
};

const struct subject subject_ceph_btrfs = {
	.name = "ceph-btrfs",
	ON_CEPH,
	.why_not = needs_ceph_and_btrfs,
	.file_system = "btrfs",
	.metadata_bytes = 48U << 20,
	.volume_size = "320MiB",
};
#endif
