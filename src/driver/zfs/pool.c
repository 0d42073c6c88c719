/* SPDX-License-Identifier: Apache-2.0 */
/* A pool on ZFS: where it lives, opening it, its record, its size. */
#include "driver/zfs/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/generic/explain.h"
#include "driver/generic/pool_file.h"
#include "driver/generic/pool_owner.h"

static bool is_dataset_name(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				"0123456789-_.:/");

	return name[n] == '\0' && n > 0 && n < 128 && name[0] != '-' && name[0] != '/' &&
	       name[n - 1] != '/' && !strstr(name, "//") && !strstr(name, "..");
}

int zfs_place_find(const struct pool_spec *spec, struct place *ret, struct coppice_error *err)
{
	const char *zpool = spec->get(spec, "zfs.pool_name");
	struct place place = { .kind = PLACE_OUR_FILE };

	if (spec->source && spec->source[0] != '/') {
		if (!is_dataset_name(spec->source))
			return fail(err, COPPICE_INVALID,
				    "source '%s' is neither an absolute path nor a dataset's name",
				    spec->source);
		place.kind = PLACE_DATASET;
		(void)snprintf(place.root, sizeof(place.root), "%s", spec->source);
		(void)snprintf(place.zpool, sizeof(place.zpool), "%.*s",
			       (int)strcspn(spec->source, "/"), spec->source);
		*ret = place;
		return COPPICE_OK;
	}
	zpool = zpool ? zpool : spec->name;
	if (!is_dataset_name(zpool) || strchr(zpool, '/'))
		return fail(err, COPPICE_INVALID,
			    "'%s' cannot be the name of a zpool; give another with zfs.pool_name=",
			    zpool);
	if (spec->source) {
		place.kind = PLACE_VDEV;
		(void)snprintf(place.vdev, sizeof(place.vdev), "%s", spec->source);
	} else {
		(void)snprintf(place.vdev, sizeof(place.vdev), "%s/disks/%s.img", spec->state_path,
			       spec->name);
	}
	(void)snprintf(place.root, sizeof(place.root), "%s", zpool);
	(void)snprintf(place.zpool, sizeof(place.zpool), "%s", zpool);
	*ret = place;
	return COPPICE_OK;
}

/* It is for those who ask for it: on OpenZFS it was tried in a virtual machine only. */
int zfs_choose(struct coppice_error *err)
{
	if (access("/dev/zfs", F_OK) < 0 || access("/sys/module/zfs", F_OK) < 0)
		return fail(err, COPPICE_UNSUPPORTED, "this kernel has no ZFS");
	return fail(err, COPPICE_UNSUPPORTED, "ZFS is used where it is named only");
}

int zfs_probe(const struct pool_spec *spec, struct coppice_error *err)
{
	if (geteuid() != 0)
		return fail(err, COPPICE_UNSUPPORTED, "ZFS needs root");
	return zfs_run(ZFS_ARGS("zpool", "list", "-H", "-o", "name"), NULL, err) < 0
		       ? wrap(err, "ZFS does not answer")
		       : COPPICE_OK;
}

/* ---- opening ---- */

void zfs_pool_close(struct pool *pool)
{
	struct zfs_pool *zfs;

	if (!pool)
		return;
	zfs = zfs_pool_of(pool);
	zfs_reading_end(pool);
	state_done(&zfs->files);
	free(zfs->root);
	free(zfs->zpool);
	free(zfs->source);
	free(zfs->mount);
	free(zfs);
}

int zfs_pool_new(const struct pool_spec *spec, const struct place *place, struct pool **ret,
		 struct coppice_error *err)
{
	const char *guard = spec->get(spec, "coppice.guard");
	struct zfs_pool *zfs = calloc(1, sizeof(*zfs));
	_cleanup_(zfs_pool_closep) struct pool *pool = NULL;

	if (!zfs)
		return fail_memory(err);
	pool = &zfs->pool;
	pool->driver = &driver_zfs;
	zfs->files.owed_fd = -1;
	zfs->root = strdup(place->root);
	zfs->zpool = strdup(place->zpool);
	zfs->source = place->kind == PLACE_DATASET ? NULL : strdup(place->vdev);
	zfs->is_our_file = place->kind == PLACE_OUR_FILE;
	zfs->files.path = text_format("%s/zfs/%s", spec->state_path, spec->name);
	zfs->mount = text_format("%s/mnt/%s", spec->state_path, spec->name);
	zfs->is_guarded = !guard || strcmp(guard, "false") != 0;
	if (!zfs->root || !zfs->zpool || (place->kind != PLACE_DATASET && !zfs->source) ||
	    !zfs->files.path || !zfs->mount)
		return fail_memory(err);
	*ret = take_ptr(&pool);
	return COPPICE_OK;
}

int zfs_state_ensure(const struct pool_spec *spec, const struct zfs_pool *zfs,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *folder = text_format("%s/zfs", spec->state_path);
	_cleanup_(freep) char *mnt = text_format("%s/mnt", spec->state_path);
	int r;

	if (!folder || !mnt)
		return fail_memory(err);
	r = directory_ensure(AT_FDCWD, folder, 0700, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, zfs->files.path, 0700, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, mnt, 0711, err);
	return r < 0 ? r : directory_ensure(AT_FDCWD, zfs->mount, 0711, err);
}

int zfs_root_property(const struct zfs_pool *zfs, const char *property, char **ret,
		      struct coppice_error *err)
{
	char *out = NULL;
	size_t n;
	int r;

	r = zfs_run(ZFS_ARGS("zfs", "get", "-Hp", "-s", "local,received", "-o", "value", property,
			     zfs->root),
		    &out, err);
	if (r < 0) {
		free(out);
		return r;
	}
	n = strlen(out);
	if (n > 0 && out[n - 1] == '\n')
		out[--n] = '\0';
	if (n == 0) {
		free(out);
		out = NULL;
	}
	*ret = out;
	return COPPICE_OK;
}

int zfs_check_owner(const struct zfs_pool *zfs, const struct pool_spec *spec, const char *text,
		    struct coppice_error *err)
{
	return pool_owner_check(spec, text, "in", zfs->root, err);
}

/* The folder that a zpool's file or device is looked for in. */
static void folder_of(const struct place *place, char ret[static PATH_MAX])
{
	char *slash;

	(void)snprintf(ret, PATH_MAX, "%s", place->vdev);
	slash = strrchr(ret, '/');
	slash[slash == ret] = '\0';
}

/* It was not exported by who had it last, by the number that a machine has from hostid(1). */
static int fail_elsewhere(const struct place *place, const char *folder, struct coppice_error *err)
{
	_cleanup_(freep) char *where = *folder ? text_format("-d %s ", folder) : strdup("");
	struct coppice_error why = *err;

	return fail(err, COPPICE_UNAVAILABLE,
		    "zpool '%s' was last used by another machine, or by this one when it had "
		    "another name or address (%s); only if no other has it now: zpool import -f "
		    "%s%s",
		    place->zpool, why.message, where ? where : "", place->zpool);
}

/* Bring in a zpool that was exported, or whose machine was started anew. */
static int import(const struct place *place, struct coppice_error *err)
{
	char folder[PATH_MAX] = "";
	int r;

	if (place->kind == PLACE_DATASET) {
		r = zfs_run(ZFS_ARGS("zpool", "import", place->zpool), NULL, err);
		return r < 0 && strstr(err->message, "other system")
			       ? fail_elsewhere(place, folder, err)
			       : r;
	}
	if (access(place->vdev, F_OK) < 0)
		return fail(err, COPPICE_NOT_FOUND, "the pool's file '%s' is not there",
			    place->vdev);
	folder_of(place, folder);
	r = zfs_run(ZFS_ARGS("zpool", "import", "-d", folder, place->zpool), NULL, err);
	if (r < 0 && strstr(err->message, "other system"))
		return fail_elsewhere(place, folder, err);
	if (r != COPPICE_NOT_FOUND || path_is_directory(place->vdev))
		return r;
	/* What is spoilt is not gone. */
	return fail(err, COPPICE_UNAVAILABLE, "no zpool '%s' that can be imported is in '%s'",
		    place->zpool, place->vdev);
}

static int open_root(const struct pool_spec *spec, struct pool *pool, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(freep) char *record = NULL;
	int r;

	r = zfs_root_property(zfs, PROPERTY_POOL, &record, err);
	if (r < 0)
		return r;
	if (!record)
		return fail(err, COPPICE_INVALID, "the dataset '%s' is no pool of Coppice",
			    zfs->root);
	r = zfs_check_owner(zfs, spec, record, err);
	/* Whose pool it is to be is not known yet: then it is looked at, and nothing made. */
	return r < 0 || !spec->owner.text[0] ? r : zfs_state_ensure(spec, zfs, err);
}

int zfs_pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err)
{
	_cleanup_(zfs_pool_closep) struct pool *pool = NULL;
	struct coppice_error why;
	struct place place;
	int r;

	r = zfs_place_find(spec, &place, err);
	if (r == COPPICE_OK)
		r = zfs_pool_new(spec, &place, &pool, err);
	if (r < 0)
		return r;
	r = open_root(spec, pool, &why);
	if (r == COPPICE_NOT_FOUND) {
		r = import(&place, &why);
		if (r == COPPICE_OK)
			r = open_root(spec, pool, &why);
	}
	if (r < 0) {
		*err = why;
		return why.code;
	}
	*ret = take_ptr(&pool);
	return COPPICE_OK;
}

void zfs_pool_open_explain(const struct pool_spec *spec, explain_fn *explain, void *user)
{
	_cleanup_(freep) char *quoted = NULL;
	struct coppice_error ignored;
	struct place place;
	char folder[PATH_MAX];

	if (zfs_place_find(spec, &place, &ignored) < 0)
		return;
	if (place.kind == PLACE_DATASET) {
		explain_line(explain, user, "zpool import %s", place.zpool);
		return;
	}
	folder_of(&place, folder);
	quoted = text_shell_quote(folder);
	if (quoted)
		explain_line(explain, user, "zpool import -d %s %s", quoted, place.zpool);
}

bool zfs_pool_is_mounted(const struct pool_spec *spec)
{
	struct coppice_error ignored;
	struct place place;

	return zfs_place_find(spec, &place, &ignored) == COPPICE_OK &&
	       zfs_run(ZFS_ARGS("zfs", "list", "-H", "-o", "name", place.root), NULL, &ignored) ==
		       COPPICE_OK;
}

int zfs_pool_umount(const struct pool_spec *spec, struct coppice_error *err)
{
	struct place place;
	int r;

	r = zfs_place_find(spec, &place, err);
	if (r < 0)
		return r;
	r = zfs_umount_within(place.root, err);
	if (r < 0 || place.kind == PLACE_DATASET)
		return r;
	r = zfs_run(ZFS_ARGS("zpool", "export", place.zpool), NULL, err);
	return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
}

/* ---- record and size ---- */

int zfs_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	char *record = NULL;
	int r = zfs_root_property(zfs, PROPERTY_POOL, &record, err);

	if (r == COPPICE_OK && !record)
		r = fail(err, COPPICE_INVALID, "the dataset '%s' is no pool of Coppice", zfs->root);
	if (r == COPPICE_OK)
		*ret = record;
	return r;
}

int zfs_pool_record_write(struct pool *pool, const char *record, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(freep) char *property = NULL;

	if (pool->is_dry_run)
		return COPPICE_OK;
	property = text_format("%s=%s", PROPERTY_POOL, record);
	if (!property)
		return fail_memory(err);
	return zfs_run(ZFS_ARGS("zfs", "set", property, zfs->root), NULL, err);
}

const char *zfs_pool_mount_path(struct pool *pool)
{
	return zfs_pool_of(pool)->mount;
}

int zfs_pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	unsigned long long used, available;
	_cleanup_(freep) char *out = NULL;
	int r;

	r = zfs_run(ZFS_ARGS("zfs", "get", "-Hp", "-o", "value", "used,available", zfs->root), &out,
		    err);
	if (r < 0)
		return r;
	if (sscanf(out, "%llu %llu", &used, &available) != 2)
		return fail(err, COPPICE_FAILED, "cannot understand what zfs get says");
	*ret = (struct pool_space){
		.total = { COPPICE_EXACT, used + available },
		.used = { COPPICE_EXACT, used },
		.free = { COPPICE_EXACT, available },
	};
	return COPPICE_OK;
}

/* zfs-fuse sees that a file grew only when it opens it anew. */
static int grow_zpool(struct pool *pool, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	struct place place = { .kind = PLACE_OUR_FILE };
	struct pool_space before = { 0 }, after = { 0 };
	int r;

	r = zfs_pool_space(pool, &before, err);
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zpool", "online", "-e", zfs->zpool, zfs->source), NULL, err);
	if (r == COPPICE_OK)
		r = zfs_pool_space(pool, &after, err);
	if (r < 0 || after.total.bytes > before.total.bytes)
		return r;
	(void)snprintf(place.vdev, sizeof(place.vdev), "%s", zfs->source);
	(void)snprintf(place.zpool, sizeof(place.zpool), "%s", zfs->zpool);
	r = zfs_umount_within(zfs->root, err);
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zpool", "export", zfs->zpool), NULL, err);
	return r < 0 ? r : import(&place, err);
}

int zfs_pool_resize(struct pool *pool, uint64_t size_bytes, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(freep) char *file = NULL;
	struct stat st;

	if (!zfs->is_our_file)
		return fail(err, COPPICE_UNSUPPORTED,
			    "the pool's size is that of '%s', which Coppice did not make",
			    zfs->source ? zfs->source : zfs->zpool);
	if (stat(zfs->source, &st) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", zfs->source);
	if (size_bytes < (uint64_t)st.st_size)
		return fail(err, COPPICE_INVALID,
			    "size cannot shrink: '%s' has %lld bytes, %llu were asked for",
			    zfs->source, (long long)st.st_size, (unsigned long long)size_bytes);
	file = text_shell_quote(zfs->source);
	if (!file)
		return fail_memory(err);
	zfs_explain(pool, "truncate -s %llu %s", (unsigned long long)size_bytes, file);
	zfs_explain(pool, "zpool online -e %s %s", zfs->zpool, file);
	if (pool->is_dry_run)
		return COPPICE_OK;
	if (truncate(zfs->source, (off_t)(size_bytes & ~0xfffULL)) < 0)
		return fail_errno(err, errno, "cannot grow '%s'", zfs->source);
	return grow_zpool(pool, err);
}
