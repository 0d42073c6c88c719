/* SPDX-License-Identifier: Apache-2.0 */
/* The table of ops, and what only looks. */
#include "driver/zfs/zfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/generic/fill.h"

/* Every command is durable when it returns: they are tasks of a transaction group that is synced.
 */
static int commit(struct pool *pool, struct coppice_error *err)
{
	return COPPICE_OK;
}

/* ---- the stamp ---- */

/* FNV-1a of both, their ends included; its bits mixed, as sums are made of these. */
static uint64_t hash_pair(const char *name, const char *value)
{
	const char *const texts[] = { name, value };
	uint64_t hash = 14695981039346656037ULL;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		for (const char *c = texts[i]; c == texts[i] || c[-1]; c++)
			hash = (hash ^ (unsigned char)*c) * 1099511628211ULL;
	hash ^= hash >> 32;
	hash *= 0xd6e8feb86659fd93ULL;
	return hash ^ hash >> 32;
}

/* Does it, or its name, tell that users see nothing of it? */
static bool is_hidden(const struct zfs_pool *zfs, const struct dataset *dataset)
{
	return zfs_is_guard(zfs, dataset->name) || zfs_is_hidden_snapshot(dataset->name) ||
	       dataset_is_hidden(zfs, dataset);
}

static uint64_t part_of(const struct zfs_pool *zfs, const struct dataset *dataset)
{
	return is_hidden(zfs, dataset)
		       ? 0
		       : hash_pair(dataset->name, dataset->record ? dataset->record : "-");
}

/* The sum over all that is in the folders of volumes. */
static uint64_t sum_of(const struct zfs_pool *zfs, const struct listing *listing)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < listing->n; i++)
		if (zfs_is_in_volumes(zfs, listing->dataset[i].name))
			sum += part_of(zfs, &listing->dataset[i]);
	return sum % STAMP_MODULUS;
}

/* The sum over a volume and what is of it or below. */
static uint64_t sum_of_volume(const struct zfs_pool *zfs, const struct listing *listing,
			      const struct volume_ref *ref)
{
	char name[DATASET_MAX];
	const struct dataset *end = listing->dataset + listing->n;
	const struct dataset *volume = listing_find(listing, zfs_volume_name(zfs, ref, name));
	size_t n = strlen(name);
	uint64_t sum = 0;

	for (const struct dataset *d = volume; d && d < end && strncmp(d->name, name, n) == 0; d++)
		sum += zfs_is_within(d->name, name) ? part_of(zfs, d) : 0;
	return sum;
}

/* Of what touch rewrites. */
static uint64_t hash_touched(const struct zfs_pool *zfs)
{
	_cleanup_(freep) char *path = text_format("%s/stamp", zfs->files.path);
	_cleanup_(freep) char *text = NULL;
	struct coppice_error ignored;

	return path && file_read(AT_FDCWD, path, 64, &text, &ignored) == COPPICE_OK
		       ? hash_pair("/touched", text)
		       : 0;
}

/* Who looked at all has seen whether the folders are there. */
static bool is_whole(const struct zfs_pool *zfs, const struct listing *listing)
{
	for (size_t kind = 0; kind < VOLUME_KINDS; kind++) {
		char name[DATASET_MAX];

		(void)snprintf(name, sizeof(name), "%s/%s", zfs->root,
			       zfs_kind_folder((enum volume_kind)kind));
		if (!listing_find(listing, name))
			return false;
	}
	return true;
}

/*
 * Of the names and records of all that users can see, as ZFS lists them: what others do
 * with zfs(8) shows as well.
 */
static int stamp(struct pool *pool, uint64_t *ret, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(listing_done) struct listing listing = { 0 };
	const struct listing *reading = zfs->is_reading_all ? zfs->reading : NULL;
	int r = COPPICE_OK;

	if (!reading || !is_whole(zfs, reading)) {
		r = listing_read_volumes(zfs, &listing, err);
		if (r == COPPICE_NOT_FOUND && zfs_folders_ensure(zfs, err) == COPPICE_OK)
			r = listing_read_volumes(zfs, &listing, err);
		reading = &listing;
	}
	if (r < 0)
		return r == COPPICE_NOT_FOUND
			       ? fail(err, COPPICE_UNAVAILABLE,
				      "the dataset '%s' is not whole any more", zfs->root)
			       : r;
	*ret = (sum_of(zfs, reading) + hash_touched(zfs)) % STAMP_MODULUS;
	return COPPICE_OK;
}

static int stamp_part(struct pool *pool, const struct volume_ref *refs, size_t n, uint64_t *ret,
		      struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(listing_done) struct listing listing = { 0 };
	const struct listing *reading = zfs->reading;
	uint64_t sum = 0;
	int r = COPPICE_OK;

	if (!zfs_reading_has(zfs, refs, n)) {
		r = listing_read_those(zfs, refs, n, &listing, err);
		reading = &listing;
	}
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		sum += sum_of_volume(zfs, reading, &refs[i]);
	if (r == COPPICE_OK)
		*ret = sum % STAMP_MODULUS;
	return r;
}

static uint64_t stamp_new(struct pool *pool, const struct new_volume *volumes, size_t n)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		char name[DATASET_MAX];

		sum += hash_pair(zfs_volume_name(zfs, &volumes[i].ref, name), volumes[i].record);
	}
	return sum % STAMP_MODULUS;
}

static int touch(struct pool *pool, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("%s/stamp", zfs_pool_of(pool)->files.path);
	struct uuid uuid;
	int r;

	if (!path)
		return fail_memory(err);
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = uuid_new(&uuid, err);
	return r < 0 ? r : file_write(AT_FDCWD, path, uuid.text, false, err);
}

/* ---- looking ---- */

/* Did somebody make a clone of it the parent of all, by zfs promote? */
static bool is_promoted(const struct dataset *image)
{
	const char *at = image->origin ? strchr(image->origin, '@') : NULL;

	return at && strcmp(at, ZFS_IMAGE_SNAPSHOT) == 0;
}

static int scan_one(const struct listing *listing, const struct dataset *dataset,
		    const struct volume_ref *ref, scan_fn *fn, void *user,
		    struct coppice_error *err)
{
	struct found_volume found = { .ref = *ref, .record = dataset->record };

	if (!volume_name_is_valid(ref->kind, ref->name.text) ||
	    (volume_is_snapshot(ref) && !volume_name_is_valid(VOLUME_CUSTOM, ref->snapshot.text))) {
		found.what = "name-invalid";
		found.problem = "its name is none that Coppice gives";
		found.record = NULL;
	} else if (ref->kind == VOLUME_IMAGE && !volume_is_snapshot(ref) &&
		   !dataset_has_readonly(listing, dataset)) {
		found.what = is_promoted(dataset) ? "image-promoted" : "data-missing";
		found.problem = is_promoted(dataset)
					? "somebody used zfs promote: the snapshot that its clones "
					  "are made of is one of a clone's; --repair takes it back"
					: "the snapshot that its clones are made of is missing";
	}
	return fn(user, &found, err);
}

static int scan(struct pool *pool, scan_fn *fn, void *user, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(listing_done) struct listing own = { 0 };
	const struct listing *listing;
	struct volume_ref ref;
	int r;

	r = zfs_look(zfs, &own, &listing, err);
	for (int snapshots = 0; snapshots < 2; snapshots++)
		for (size_t i = 0; i < listing->n && r >= 0; i++) {
			const struct dataset *dataset = &listing->dataset[i];

			if (!zfs_name_parse(zfs, dataset->name, &ref) ||
			    volume_is_snapshot(&ref) != (snapshots == 1) ||
			    dataset_is_hidden(zfs, dataset))
				continue;
			r = scan_one(listing, dataset, &ref, fn, user, err);
		}
	return r < 0 ? r : COPPICE_OK;
}

static int record_read(struct pool *pool, const struct volume_ref *ref, char **ret,
		       struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(listing_done) struct listing listing = { 0 };
	struct dataset *dataset;
	char name[VOLUME_REF_TEXT_MAX];
	char *record;
	int r;

	dataset = zfs->reading ? listing_find_ref(zfs, zfs->reading, ref) : NULL;
	r = dataset ? COPPICE_OK : zfs_find(zfs, ref, &listing, &dataset, err);
	if (r < 0)
		return r;
	if (!dataset->record)
		return fail(err, COPPICE_FAILED, "'%s' has no record",
			    volume_ref_format(ref, name));
	record = strdup(dataset->record);
	if (!record)
		return fail_memory(err);
	*ret = record;
	return COPPICE_OK;
}

static int reading_begin(struct pool *pool, const struct volume_ref *refs, size_t n,
			 struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	struct listing *reading;
	int r;

	zfs_reading_end(pool);
	reading = calloc(1, sizeof(*reading));
	if (!reading)
		return fail_memory(err);
	r = n == 0 ? listing_read_all(zfs, reading, err)
		   : listing_read_those(zfs, refs, n, reading, err);
	if (r < 0) {
		free(reading);
		return r;
	}
	zfs->reading = reading;
	zfs->is_reading_all = n == 0;
	return COPPICE_OK;
}

int zfs_look(struct zfs_pool *zfs, struct listing *own, const struct listing **ret,
	     struct coppice_error *err)
{
	*ret = zfs->is_reading_all ? zfs->reading : own;
	return zfs->is_reading_all ? COPPICE_OK : listing_read_all(zfs, own, err);
}

bool zfs_reading_has(const struct zfs_pool *zfs, const struct volume_ref *refs, size_t n)
{
	for (size_t i = 0; i < n && zfs->reading; i++) {
		char name[DATASET_MAX];

		if (!listing_find(zfs->reading, zfs_volume_name(zfs, &refs[i], name)))
			return false;
	}
	return zfs->reading != NULL;
}

void zfs_reading_end(struct pool *pool)
{
	struct listing *reading = take_ptr(&zfs_pool_of(pool)->reading);

	if (!reading)
		return;
	zfs_pool_of(pool)->is_reading_all = false;
	listing_done(reading);
	free(reading);
}

/* ---- checking ---- */

/* Give images their snapshots back; until then the scan tells of them. */
static int take_back_images(struct zfs_pool *zfs, const struct listing *listing, scan_fn *fn,
			    void *user, struct coppice_error *err)
{
	struct found_volume found = {
		.what = "image-promoted",
		.problem =
			"somebody used zfs promote: the snapshot that its clones are made of was "
			"one of a clone's",
		.is_repaired = true,
	};
	struct coppice_error ignored;
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r >= 0; i++) {
		const struct dataset *image = &listing->dataset[i];

		if (image->is_snapshot || !zfs_name_parse(zfs, image->name, &found.ref) ||
		    found.ref.kind != VOLUME_IMAGE || dataset_is_hidden(zfs, image) ||
		    dataset_has_readonly(listing, image) || !is_promoted(image))
			continue;
		/* What cannot be taken back the scan tells of. */
		if (zfs_run(ZFS_ARGS("zfs", "promote", image->name), NULL, &ignored) == COPPICE_OK)
			r = fn(user, &found, err);
	}
	return r;
}

/* What is in a draft or deleted is looked after by sweep and reap; here, what they cannot know. */
static int check(struct pool *pool, bool is_repair, scan_fn *fn, void *user,
		 struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(listing_done) struct listing listing = { 0 };
	bool is_mending = is_repair && !pool->is_dry_run;
	int r;

	r = listing_read_all(zfs, &listing, err);
	if (r == COPPICE_OK && is_mending) {
		r = take_back_images(zfs, &listing, fn, user, err);
		listing_done(&listing);
		if (r >= 0)
			r = listing_read_all(zfs, &listing, err);
	}
	for (size_t i = 0; i < listing.n && r >= 0; i++) {
		struct dataset *dataset = &listing.dataset[i];
		struct found_volume found = { .what = "stranger" };
		struct volume_ref parent;
		char text[DATASET_MAX];
		char *slash;

		(void)snprintf(text, sizeof(text), "%s", dataset->name);
		slash = strrchr(text, '/');
		if (dataset->is_snapshot || !slash)
			continue;
		*slash = '\0';
		if (!zfs_name_parse(zfs, text, &parent) ||
		    zfs_name_parse(zfs, dataset->name, &found.ref))
			continue;
		found.ref = parent;
		found.record =
			listing_find(&listing, text) ? listing_find(&listing, text)->record : NULL;
		if (zfs_is_history(zfs, dataset) || zfs_is_guard(zfs, dataset->name))
			continue;
		found.problem = "it has a dataset below it that Coppice did not make";
		r = fn(user, &found, err);
	}
	/* Empty ones go with what somebody destroys carelessly, and no command reads them all. */
	if (r >= 0 && !pool->is_dry_run && !zfs_folders_are_there(zfs, &listing))
		r = zfs_folders_ensure(zfs, err);
	if (r >= 0)
		r = zfs_guard_check(zfs, &listing, is_mending, fn, user, err);
	if (r >= 0)
		r = zfs_held_check(zfs, &listing, fn, user, err);
	return r < 0 ? r : COPPICE_OK;
}

static const struct driver_key pool_keys[] = {
	{ .name = "zfs.pool_name" },
	{ .name = "zfs.clone_copy", .values = "true|false|rebase", .is_changeable = true },
	{ .name = "coppice.guard", .values = "true|false", .is_changeable = true },
	{ .name = NULL },
};

static const struct limit_key limit_keys[] = {
	{ "zfs.use_refquota", LIMIT_WITH_SNAPSHOTS, false },
	{ "zfs.reserve_space", LIMIT_RESERVED, true },
	{ .name = NULL },
};

const struct driver driver_zfs = {
	.name = "zfs",
	.pool_keys = pool_keys,
	.limit_keys = limit_keys,
	.traits = { .can_clone = true, .can_limit = true, .is_loop_able = true },

	.probe = zfs_probe,
	.choose = zfs_choose,
	.pool_create = zfs_pool_create,
	.pool_check = zfs_pool_check,
	.pool_explain = zfs_pool_explain,
	.pool_open = zfs_pool_open,
	.pool_open_explain = zfs_pool_open_explain,
	.pool_close = zfs_pool_close,
	.pool_is_mounted = zfs_pool_is_mounted,
	.pool_umount = zfs_pool_umount,
	.pool_destroy = zfs_pool_destroy,
	.pool_resize = zfs_pool_resize,
	.pool_space = zfs_pool_space,
	.pool_record_read = zfs_pool_record_read,
	.pool_record_write = zfs_pool_record_write,
	.pool_mount_path = zfs_pool_mount_path,

	.draft_open = zfs_draft_open,
	.draft_announce = zfs_draft_announce,
	.draft_discard = zfs_draft_discard,
	.volume_create = zfs_volume_create,
	.volume_fill = fill_by_copying,
	.draft_path = zfs_draft_path,
	.volume_seal = zfs_volume_seal,
	.clone = zfs_clone,
	.copy_way = zfs_copy_way,
	.transfer = zfs_transfer,
	.publish = zfs_publish,
	.commit = commit,
	.draft_sweep = zfs_draft_sweep,

	.swap = zfs_swap,
	.rename = zfs_rename,
	.record_write = zfs_record_write,
	.limit_set = zfs_limit_set,

	.retire = zfs_retire,
	.reap = zfs_reap,
	.pinned = zfs_pinned,

	.stamp = stamp,
	.stamp_part = stamp_part,
	.stamp_new = stamp_new,
	.touch = touch,
	.scan = scan,
	.record_read = record_read,
	.reading_begin = reading_begin,
	.reading_end = zfs_reading_end,
	.path = zfs_path,
	.volume_mount = zfs_volume_mount,
	.volume_umount = zfs_volume_umount,
	.usage = zfs_usage,
	.in_use = zfs_in_use,
	.check = check,
};
