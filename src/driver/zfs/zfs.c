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

static uint64_t hash_text(uint64_t hash, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hash = (hash ^ (unsigned char)text[i]) * 1099511628211ULL;
	return hash;
}

/* NAME, rounded GUID, and the draft that made it or "-". */
static int list_all(struct zfs_pool *zfs, char **ret, struct coppice_error *err)
{
	char folder[VOLUME_KINDS][DATASET_MAX];

	for (size_t kind = 0; kind < VOLUME_KINDS; kind++)
		(void)snprintf(folder[kind], DATASET_MAX, "%s/%s", zfs->root,
			       zfs_kind_folder((enum volume_kind)kind));
	return zfs_run(ZFS_ARGS("zfs", "list", "-H", "-r", "-t", "filesystem,snapshot", "-o",
				"name,guid," PROPERTY_DRAFT, folder[VOLUME_IMAGE],
				folder[VOLUME_CONTAINER], folder[VOLUME_VIRTUAL_MACHINE],
				folder[VOLUME_CUSTOM]),
		       ret, err);
}

/* Is the line of what users cannot see? */
static bool is_line_hidden(const struct zfs_pool *zfs, const char *line, size_t n)
{
	const char *tab = memrchr(line, '\t', n);
	char id[UUID_TEXT_SIZE], name[DATASET_MAX];
	struct uuid uuid;

	(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(line, "\t"), line);
	if (zfs_is_guard(zfs, name) || memmem(line, n, "@copy-", 6) ||
	    memmem(line, n, "@deleted-", 9) || memmem(line, n, "@draft-", 7))
		return true;
	(void)snprintf(id, sizeof(id), "%.*s", (int)(line + n - tab - 1), tab + 1);
	return uuid_parse(id, &uuid) && zfs_draft_is_pending(zfs, uuid.text);
}

static uint64_t hash_touched(const struct zfs_pool *zfs, uint64_t hash)
{
	_cleanup_(freep) char *path = text_format("%s/stamp", zfs->state);
	_cleanup_(freep) char *text = NULL;
	struct coppice_error ignored;

	if (path && file_read(AT_FDCWD, path, 64, &text, &ignored) == COPPICE_OK)
		hash = hash_text(hash, text, strlen(text));
	return hash;
}

/*
 * Of all that users can see, as ZFS lists it: what others do with zfs(8) shows as well.
 * And of a file that our own changes of records rewrite, as those do not show there.
 */
static int stamp(struct pool *pool, uint64_t *ret, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	uint64_t hash = 14695981039346656037ULL;
	_cleanup_(freep) char *list = NULL;
	int r;

	r = list_all(zfs, &list, err);
	if (r == COPPICE_NOT_FOUND && zfs_folders_ensure(zfs, err) == COPPICE_OK) {
		free(take_ptr(&list));
		r = list_all(zfs, &list, err);
	}
	if (r < 0)
		return r == COPPICE_NOT_FOUND
			       ? fail(err, COPPICE_UNAVAILABLE,
				      "the dataset '%s' is not whole any more", zfs->root)
			       : r;
	for (const char *line = list, *end; *line; line = end + (*end == '\n')) {
		size_t n = strcspn(line, "\n");
		const char *tab = memrchr(line, '\t', n);

		end = line + n;
		if (tab && !is_line_hidden(zfs, line, n))
			hash = hash_text(hash, line, (size_t)(tab - line));
	}
	*ret = hash_touched(zfs, hash) >> 1; /* SQLite's integers have a sign */
	return COPPICE_OK;
}

static int touch(struct pool *pool, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("%s/stamp", zfs_pool_of(pool)->state);
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
	_cleanup_(listing_done) struct listing listing = { 0 };
	struct volume_ref ref;
	int r;

	r = listing_read_all(zfs, &listing, err);
	for (int snapshots = 0; snapshots < 2; snapshots++)
		for (size_t i = 0; i < listing.n && r >= 0; i++) {
			struct dataset *dataset = &listing.dataset[i];

			if (!zfs_name_parse(zfs, dataset->name, &ref) ||
			    volume_is_snapshot(&ref) != (snapshots == 1) ||
			    dataset_is_hidden(zfs, dataset))
				continue;
			r = scan_one(&listing, dataset, &ref, fn, user, err);
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

	dataset = zfs->records ? listing_find_ref(zfs, zfs->records, ref) : NULL;
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

static int records_begin(struct pool *pool, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	struct listing *records;
	int r;

	if (zfs->records)
		return COPPICE_OK;
	records = calloc(1, sizeof(*records));
	if (!records)
		return fail_memory(err);
	r = listing_read_all(zfs, records, err);
	if (r < 0) {
		free(records);
		return r;
	}
	zfs->records = records;
	return COPPICE_OK;
}

void zfs_records_end(struct pool *pool)
{
	struct listing *records = take_ptr(&zfs_pool_of(pool)->records);

	if (!records)
		return;
	listing_done(records);
	free(records);
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
		if (volume_name_is_valid(VOLUME_CUSTOM, slash + 1) &&
		    strlen(slash + 1) == UUID_TEXT_SIZE - 1)
			continue;
		if (zfs_is_guard(zfs, dataset->name))
			continue;
		found.problem = "it has a dataset below it that Coppice did not make";
		r = fn(user, &found, err);
	}
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
	.touch = touch,
	.scan = scan,
	.record_read = record_read,
	.records_begin = records_begin,
	.records_end = zfs_records_end,
	.path = zfs_path,
	.volume_mount = zfs_volume_mount,
	.volume_umount = zfs_volume_umount,
	.usage = zfs_usage,
	.in_use = zfs_in_use,
	.check = check,
};
