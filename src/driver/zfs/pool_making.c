/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and unmaking what a pool on ZFS lives in: a zpool of ours on a sparse file, one that
 * we make on somebody's file or device, or a dataset of a zpool that was there before.
 */
#include "driver/zfs/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "base/undo.h"
#include "driver/generic/explain.h"
#include "driver/generic/pool_file.h"

/* The folders of a pool, each after the one that it is in. */
static const char *const folders[] = {
	"images",
	"containers",
	"virtual-machines",
	"custom",
	"drafts",
	"mounts",
	"deleted",
	"deleted/images",
	"deleted/containers",
	"deleted/virtual-machines",
	"deleted/custom",
};

/* ---- making ---- */

static struct pool_file our_file(const struct pool_spec *spec, const struct place *place)
{
	return (struct pool_file){
		.path = place->vdev, .driver = "zfs", .engine = "ZFS", .smallest_mib = 128
	};
}

/*
 * Of the pool's own datasets, which all volumes inherit: nothing is mounted at birth (see
 * mounting.c); a clone does not grow by being read; and on OpenZFS attributes lie with
 * their files and ACLs are kept, neither of which is its default.
 */
static const char *const options_kernel[] = { "mountpoint=legacy", "atime=off", "xattr=sa",
					      "acltype=posixacl", NULL };
static const char *const options_fuse[] = { "mountpoint=none", "atime=off", NULL };

static const char *const *options(void)
{
	return zfs_is_in_kernel() ? options_kernel : options_fuse;
}

/* Put them into @argv, each after @flag; returns its new length. */
static size_t options_put(const char *argv[], size_t n, const char *flag)
{
	for (const char *const *option = options(); *option; option++) {
		argv[n++] = flag;
		argv[n++] = *option;
	}
	return n;
}

/* The command that makes a zpool, as zfs_pool_explain tells it; without pool and device. */
static size_t zpool_create_put(const char *argv[], bool is_wiping)
{
	size_t n = 0;

	argv[n++] = "zpool";
	argv[n++] = "create";
	if (is_wiping)
		argv[n++] = "-f";
	if (zfs_is_in_kernel()) {
		argv[n++] = "-o"; /* of a file it would think 512, which is dear on most disks */
		argv[n++] = "ashift=12";
	}
	argv[n++] = "-m"; /* or it looks whether the default mountpoint is free */
	argv[n++] = strchr(options()[0], '=') + 1;
	argv[n++] = "-O";
	argv[n++] = "compression=on";
	return options_put(argv, n, "-O");
}

static int make_zpool(const struct pool_spec *spec, const struct place *place,
		      struct coppice_error *err)
{
	const char *argv[32] = { NULL };
	size_t n = zpool_create_put(argv, pool_spec_is_true(spec, "source.wipe"));

	argv[n++] = place->zpool;
	argv[n++] = place->vdev;
	return zfs_run(argv, NULL, err);
}

/* Make a dataset that is never mounted itself. */
static int make_folder(const char *name, const char *property, struct coppice_error *err)
{
	const char *argv[32] = { "zfs", "create", "-o", "canmount=off" };
	size_t n = options_put(argv, 4, "-o");

	if (property) {
		argv[n++] = "-o";
		argv[n++] = property;
	}
	argv[n++] = name;
	return zfs_run(argv, NULL, err);
}

static int undo_file(void *owner, const char *name, struct coppice_error *err)
{
	return unlink(name) < 0 && errno != ENOENT ? fail_errno(err, errno, "cannot remove")
						   : COPPICE_OK;
}

static int undo_zpool(void *owner, const char *name, struct coppice_error *err)
{
	return zfs_run(ZFS_ARGS("zpool", "destroy", name), NULL, err);
}

static int undo_dataset(void *owner, const char *name, struct coppice_error *err)
{
	return zfs_run(ZFS_ARGS("zfs", "destroy", name), NULL, err);
}

/* Is there nothing in a dataset that was there before? If it is a pool, whose? */
static int check_empty(const struct pool_spec *spec, const struct zfs_pool *zfs,
		       struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL, *out = NULL;
	int r;

	r = zfs_root_property(zfs, PROPERTY_POOL, &record, err);
	if (r == COPPICE_OK && record)
		r = zfs_check_owner(zfs,
				    &(struct pool_spec){ .name = spec->name, .owner = spec->owner },
				    record, err);
	if (r < 0)
		return r;
	if (record)
		return fail(err, COPPICE_EXISTS, "there is a pool in '%s' already", zfs->root);
	r = zfs_run(ZFS_ARGS("zfs", "list", "-H", "-r", "-o", "name", zfs->root), &out, err);
	if (r == COPPICE_OK && strchr(out, '\n') != strrchr(out, '\n'))
		r = fail(err, COPPICE_INVALID,
			 "source '%s' is not empty; name a dataset that is not there yet, as in "
			 "source=%s/coppice",
			 zfs->root, zfs->zpool);
	return r;
}

/* The dataset of `source`: empty, or what it is to be made in is there. */
static int check_dataset(const struct pool_spec *spec, const struct zfs_pool *zfs,
			 bool *ret_is_there, struct coppice_error *err)
{
	char parent[DATASET_MAX];
	bool has_parent;
	int r = zfs_is_there(zfs->root, ret_is_there, err);

	if (r < 0)
		return r;
	if (*ret_is_there)
		return check_empty(spec, zfs, err);
	if (!strchr(zfs->root, '/'))
		return fail(err, COPPICE_NOT_FOUND, "there is no zpool '%s'", zfs->root);
	(void)snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(zfs->root, '/') - zfs->root),
		       zfs->root);
	r = zfs_is_there(parent, &has_parent, err);
	if (r == COPPICE_OK && !has_parent)
		r = fail(err, COPPICE_NOT_FOUND, "there is no dataset '%s' to make '%s' in", parent,
			 zfs->root);
	return r;
}

static int make_root(const struct pool_spec *spec, const struct zfs_pool *zfs, struct undo *undo,
		     struct coppice_error *err)
{
	bool is_made;
	int r = check_dataset(spec, zfs, &is_made, err);

	if (r < 0 || is_made)
		return r;
	r = make_folder(zfs->root, PROPERTY_MADE "=true", err);
	if (r == COPPICE_OK)
		undo_push(undo, undo_dataset, NULL, zfs->root);
	return r;
}

/* What zpool create takes: less is no device to it. */
#define VDEV_SMALLEST_MIB 64

static int check_vdev(const struct pool_spec *spec, const struct place *place,
		      struct coppice_error *err)
{
	struct stat st;
	int r;

	if (stat(place->vdev, &st) < 0)
		return fail_errno(err, errno, "cannot use source '%s'", place->vdev);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return fail(err, COPPICE_INVALID,
			    "source '%s' is neither a file nor a block device; a dataset is named "
			    "without a slash before it",
			    place->vdev);
	r = pool_file_refuse_data(spec, place->vdev, err);
	return r < 0 ? r : pool_file_refuse_small(place->vdev, "ZFS", VDEV_SMALLEST_MIB, err);
}

/*
 * What zpool create takes for a word of its own or for a disk, as in libzfs's
 * zpool_name_valid(): "log", all that begins with the others, and c0t0.
 */
static bool is_reserved(const char *zpool)
{
	static const char *const words[] = { "mirror", "raidz", "draid", "spare" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strncmp(zpool, words[i], strlen(words[i])) == 0)
			return true;
	return strcmp(zpool, "log") == 0 || (zpool[0] == 'c' && zpool[1] >= '0' && zpool[1] <= '9');
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Can there be a zpool of that name, and is there none, wherever? */
static int check_zpool(const struct place *place, struct coppice_error *err)
{
	bool is_taken;
	int r;

	if (!is_letter(place->zpool[0]) || is_reserved(place->zpool))
		return fail(err, COPPICE_INVALID,
			    "'%s' cannot be the name of a zpool, as %s; give another with "
			    "zfs.pool_name=",
			    place->zpool,
			    is_letter(place->zpool[0]) ? "ZFS has reserved it"
						       : "it does not begin with a letter");
	r = zfs_is_there(place->zpool, &is_taken, err);
	if (r == COPPICE_OK && is_taken)
		r = fail(err, COPPICE_EXISTS,
			 "there is a zpool '%s' already; give another name with zfs.pool_name=",
			 place->zpool);
	return r;
}

static int check_place(const struct pool_spec *spec, const struct place *place,
		       const struct zfs_pool *zfs, struct coppice_error *err)
{
	struct pool_file file = our_file(spec, place);
	bool ignored;
	int r;

	if (place->kind == PLACE_DATASET)
		return check_dataset(spec, zfs, &ignored, err);
	r = check_zpool(place, err);
	if (r < 0)
		return r;
	return place->kind == PLACE_OUR_FILE ? pool_file_check(spec, &file, err)
					     : check_vdev(spec, place, err);
}

int zfs_pool_check(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(zfs_pool_closep) struct pool *pool = NULL;
	struct place place;
	int r = zfs_place_find(spec, &place, err);

	if (r == COPPICE_OK)
		r = zfs_pool_new(spec, &place, &pool, err);
	return r < 0 ? r : check_place(spec, &place, zfs_pool_of(pool), err);
}

/* What zfs_pool_destroy does as well, newest first. */
static int remove_folders(const char *root, struct coppice_error *err)
{
	char name[DATASET_MAX];
	int r;

	(void)snprintf(name, sizeof(name), "%s/ballast", root);
	r = zfs_run(ZFS_ARGS("zfs", "destroy", name), NULL, err);
	for (size_t i = ARRAY_SIZE(folders); i-- > 0 && (r >= 0 || r == COPPICE_NOT_FOUND);) {
		(void)snprintf(name, sizeof(name), "%s/%s", root, folders[i]);
		r = zfs_run(ZFS_ARGS("zfs", "destroy", name), NULL, err);
	}
	return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
}

static int undo_folders(void *owner, const char *name, struct coppice_error *err)
{
	return remove_folders(name, err);
}

static int make_folders(const struct zfs_pool *zfs, struct undo *undo, struct coppice_error *err)
{
	char name[DATASET_MAX];
	int r = COPPICE_OK;

	undo_push(undo, undo_folders, NULL, zfs->root); /* nothing of these was there */
	for (size_t i = 0; i < ARRAY_SIZE(folders) && r == COPPICE_OK; i++) {
		(void)snprintf(name, sizeof(name), "%s/%s", zfs->root, folders[i]);
		r = make_folder(name, NULL, err);
	}
	return r;
}

bool zfs_folders_are_there(const struct zfs_pool *zfs, const struct listing *listing)
{
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		char name[DATASET_MAX];

		(void)snprintf(name, sizeof(name), "%s/%s", zfs->root, folders[i]);
		if (!listing_find(listing, name))
			return false;
	}
	return true;
}

int zfs_folders_ensure(struct zfs_pool *zfs, struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	char name[DATASET_MAX];
	int r;

	r = zfs_root_property(zfs, PROPERTY_POOL, &record, err);
	if (r == COPPICE_OK && !record)
		r = fail(err, COPPICE_UNAVAILABLE, "the dataset '%s' is no pool any more",
			 zfs->root);
	for (size_t i = 0; i < ARRAY_SIZE(folders) && r == COPPICE_OK; i++) {
		(void)snprintf(name, sizeof(name), "%s/%s", zfs->root, folders[i]);
		r = zfs_run(ZFS_ARGS("zfs", "list", "-H", "-o", "name", name), NULL, err);
		if (r == COPPICE_NOT_FOUND)
			r = make_folder(name, NULL, err);
		r = r == COPPICE_EXISTS ? COPPICE_OK : r;
	}
	return r;
}

int zfs_pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		    struct coppice_error *err)
{
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	_cleanup_(zfs_pool_closep) struct pool *pool = NULL;
	struct pool_file file;
	struct place place;
	int r;

	r = zfs_place_find(spec, &place, err);
	if (r == COPPICE_OK)
		r = zfs_pool_new(spec, &place, &pool, err);
	if (r == COPPICE_OK && place.kind != PLACE_DATASET)
		r = check_place(spec, &place, zfs_pool_of(pool), err);
	if (r == COPPICE_OK && place.kind == PLACE_OUR_FILE) {
		file = our_file(spec, &place);
		r = pool_file_make(spec, &file, err);
		if (r == COPPICE_OK)
			undo_push(&undo, undo_file, NULL, place.vdev);
	}
	if (r == COPPICE_OK && place.kind != PLACE_DATASET) {
		r = make_zpool(spec, &place, err);
		if (r == COPPICE_OK)
			undo_push(&undo, undo_zpool, NULL, place.zpool);
	} else if (r == COPPICE_OK) {
		r = make_root(spec, zfs_pool_of(pool), &undo, err);
	}
	if (r == COPPICE_OK)
		r = make_folders(zfs_pool_of(pool), &undo, err);
	if (r == COPPICE_OK)
		r = zfs_state_ensure(spec, zfs_pool_of(pool), err);
	if (r == COPPICE_OK)
		r = zfs_pool_record_write(pool, record, err);
	if (r < 0)
		return r;
	undo_commit(&undo);
	zfs_ballast_ensure(zfs_pool_of(pool));
	*ret = take_ptr(&pool);
	return COPPICE_OK;
}

/* The words of a command as a line; all but the last are ours and need no quotes. */
static char *line_of(const char *const argv[])
{
	char *line = strdup("");

	for (size_t i = 0; argv[i] && line; i++) {
		char *longer = text_format("%s%s ", line, argv[i]);

		free(line);
		line = longer;
	}
	return line;
}

void zfs_pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user)
{
	const char *zpool_argv[32] = { NULL };
	const char *create_argv[32] = { "zfs", "create", "-o", "canmount=off" };
	_cleanup_(freep) char *vdev = NULL, *zpool = NULL, *create = NULL;
	struct coppice_error ignored;
	struct pool_file our;
	struct place place;
	uint64_t size;

	if (zfs_place_find(spec, &place, &ignored) < 0)
		return;
	(void)zpool_create_put(zpool_argv, pool_spec_is_true(spec, "source.wipe"));
	(void)options_put(create_argv, 4, "-o");
	vdev = text_shell_quote(place.vdev);
	zpool = line_of(zpool_argv);
	create = line_of(create_argv);
	if (!vdev || !zpool || !create)
		return;
	our = our_file(spec, &place);
	if (place.kind == PLACE_OUR_FILE &&
	    pool_file_size(spec, &our, &size, &ignored) == COPPICE_OK)
		explain_line(explain, user, "truncate -s %llu %s", (unsigned long long)size, vdev);
	if (place.kind != PLACE_DATASET)
		explain_line(explain, user, "%s%s %s", zpool, place.zpool, vdev);
	else if (strchr(place.root, '/'))
		explain_line(explain, user, "zfs list %s || %s-o " PROPERTY_MADE "=true %s",
			     place.root, create, place.root);
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		explain_line(explain, user, "%s%s/%s", create, place.root, folders[i]);
}

/* ---- unmaking ---- */

/* Is this zpool the one on our file or device, and not another of the same name? */
static int is_our_zpool(const struct place *place, bool *ret, struct coppice_error *err)
{
	_cleanup_(freep) char *out = NULL;
	int r = zfs_run(ZFS_ARGS("zpool", "status", place->zpool), &out, err);

	*ret = false;
	if (r == COPPICE_NOT_FOUND)
		return COPPICE_OK;
	/* It shows devices without their folder. */
	if (r == COPPICE_OK)
		*ret = strstr(out, place->vdev) || (strncmp(place->vdev, "/dev/", 5) == 0 &&
						    strstr(out, strrchr(place->vdev, '/') + 1));
	return r;
}

static int unmake_zpool(const struct place *place, struct coppice_error *err)
{
	bool is_ours = false;
	int r;

	if (access(place->vdev, F_OK) < 0)
		return COPPICE_OK;
	r = is_our_zpool(place, &is_ours, err);
	if (r == COPPICE_OK && is_ours) {
		r = zfs_umount_within(place->root, err);
		if (r == COPPICE_OK)
			r = zfs_run(ZFS_ARGS("zpool", "destroy", place->zpool), NULL, err);
	}
	if (r == COPPICE_OK && place->kind == PLACE_OUR_FILE && unlink(place->vdev) < 0 &&
	    errno != ENOENT)
		r = fail_errno(err, errno, "cannot remove '%s'", place->vdev);
	return r;
}

/* A killed command may have left one, with nothing in it that is not elsewhere. */
static int remove_reading_clones(struct zfs_pool *zfs, struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	char mounts[DATASET_MAX];
	int r;

	(void)snprintf(mounts, sizeof(mounts), "%s/mounts", zfs->root);
	r = listing_read(zfs, ZFS_ARGS(mounts), &listing, err);
	if (r < 0)
		return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
	for (size_t i = listing.n; i-- > 1 && r == COPPICE_OK;)
		r = zfs_run(ZFS_ARGS("zfs", "destroy", listing.dataset[i].name), NULL, err);
	return r;
}

static int unmake_in_dataset(const struct pool_spec *spec, struct zfs_pool *zfs,
			     struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL, *made = NULL;
	struct coppice_error why;
	int r;

	r = zfs_root_property(zfs, PROPERTY_POOL, &record, err);
	if (r == COPPICE_NOT_FOUND)
		return COPPICE_OK;
	if (r == COPPICE_OK)
		r = zfs_root_property(zfs, PROPERTY_MADE, &made, err);
	if (r < 0)
		return r;
	if (record && zfs_check_owner(zfs, spec, record, &why) < 0)
		return COPPICE_OK; /* somebody else's; never made by this specification */
	r = zfs_umount_within(zfs->root, err);
	if (r == COPPICE_OK)
		r = remove_reading_clones(zfs, err);
	if (r == COPPICE_OK)
		r = zfs_reap_dead(zfs, err);
	if (r == COPPICE_OK)
		r = remove_folders(zfs->root, err);
	if (r == COPPICE_OK && made)
		return zfs_run(ZFS_ARGS("zfs", "destroy", zfs->root), NULL, err);
	return r < 0 ? r : zfs_run(ZFS_ARGS("zfs", "inherit", PROPERTY_POOL, zfs->root), NULL, err);
}

static void remove_state(struct zfs_pool *zfs)
{
	state_remove(&zfs->files);
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		_cleanup_(freep) char *folder = text_format("%s/%s", zfs->mount, folders[i]);

		if (folder)
			(void)rmdir(folder);
	}
	(void)rmdir(zfs->mount);
}

int zfs_pool_destroy(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(zfs_pool_closep) struct pool *pool = NULL;
	struct place place;
	int r;

	r = zfs_place_find(spec, &place, err);
	if (r == COPPICE_OK)
		r = zfs_pool_new(spec, &place, &pool, err);
	if (r == COPPICE_OK)
		r = place.kind == PLACE_DATASET ? unmake_in_dataset(spec, zfs_pool_of(pool), err)
						: unmake_zpool(&place, err);
	if (r == COPPICE_OK)
		remove_state(zfs_pool_of(pool));
	return r;
}
