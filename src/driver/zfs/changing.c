/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes change: names, records, limits, and their data when a snapshot is restored. */
#include "driver/zfs/zfs.h"

#include <limits.h>
#include <string.h>

#include "base/text.h"

/* ---- names ---- */

/* Is @name what a dead maker announced and nobody published? Where its draft has room for it. */
static bool is_left_over(struct zfs_pool *zfs, const char *name, char ret[static DATASET_MAX])
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	_cleanup_(closep) int fd = -1;
	struct coppice_error ignored;
	struct dataset *dataset;

	if (strchr(name, '@') || listing_read(zfs, ZFS_ARGS(name), &listing, &ignored) < 0)
		return false;
	dataset = listing_find(&listing, name);
	if (!dataset || !dataset_is_hidden(zfs, dataset) ||
	    !state_lock_is_over(&zfs->files, dataset->draft, &fd) ||
	    zfs_draft_ensure_of(zfs, dataset->draft, &ignored) < 0)
		return false;
	(void)snprintf(ret, DATASET_MAX, "%s/drafts/%s%s", zfs->root, dataset->draft,
		       strrchr(name, '/'));
	return true;
}

int zfs_rename_displacing(struct zfs_pool *zfs, const char *from, const char *to,
			  struct coppice_error *err)
{
	char aside[DATASET_MAX];
	int r;

	r = zfs_run(ZFS_ARGS("zfs", "rename", from, to), NULL, err);
	if (r != COPPICE_EXISTS || !is_left_over(zfs, to, aside))
		return r;
	r = zfs_run(ZFS_ARGS("zfs", "rename", to, aside), NULL, err);
	return r < 0 ? r : zfs_run(ZFS_ARGS("zfs", "rename", from, to), NULL, err);
}

static int fail_exists(const struct volume_ref *ref, struct coppice_error *err)
{
	char name[VOLUME_REF_TEXT_MAX];

	return fail(err, COPPICE_EXISTS, "'%s' exists already", volume_ref_format(ref, name));
}

static int rename_snapshot(struct zfs_pool *zfs, const struct volume_ref *from,
			   const struct volume_ref *to, struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	_cleanup_(freep) char *name = NULL;
	struct dataset *dataset;
	int r;

	r = zfs_find(zfs, from, &listing, &dataset, err);
	if (r < 0)
		return r;
	if (listing_find_ref(zfs, &listing, to))
		return fail_exists(to, err);
	name = text_format("%.*s@snapshot-%s", (int)strcspn(dataset->name, "@"), dataset->name,
			   to->snapshot.text);
	if (!name)
		return fail_memory(err);
	return zfs_run(ZFS_ARGS("zfs", "rename", dataset->name, name), NULL, err);
}

int zfs_rename(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
	       struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	char from_name[DATASET_MAX], to_name[DATASET_MAX];
	bool is_snapshot = volume_is_snapshot(from);
	int r;

	(void)zfs_volume_name(zfs, from, from_name);
	(void)zfs_volume_name(zfs, to, to_name);
	zfs_explain(pool, "zfs rename %s%s%s %s%s%s", from_name, is_snapshot ? "@snapshot-" : "",
		    from->snapshot.text, to_name, is_snapshot ? "@snapshot-" : "",
		    to->snapshot.text);
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = zfs_umount_ref(zfs, from, err);
	if (r < 0)
		return r;
	r = is_snapshot ? rename_snapshot(zfs, from, to, err)
			: zfs_rename_displacing(zfs, from_name, to_name, err);
	if (r == COPPICE_NOT_FOUND)
		return zfs_missing(zfs, from, err);
	return r == COPPICE_EXISTS ? fail_exists(to, err) : r;
}

/* ---- records ---- */

int zfs_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
		     struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(listing_done) struct listing listing = { 0 };
	_cleanup_(freep) char *property = text_format("%s=%s", PROPERTY_RECORD, record);
	_cleanup_(freep) char *word = text_shell_quote(record);
	struct dataset *dataset;
	char name[DATASET_MAX];
	int r;

	if (!property || !word)
		return fail_memory(err);
	zfs_explain(pool, "zfs set %s=%s %s%s%s", PROPERTY_RECORD, word,
		    zfs_volume_name(zfs, ref, name), volume_is_snapshot(ref) ? "@snapshot-" : "",
		    ref->snapshot.text);
	if (pool->is_dry_run)
		return COPPICE_OK;
	if (strlen(record) > RECORD_MAX)
		return fail(err, COPPICE_INVALID, "the record is too long for ZFS");
	r = zfs_find(zfs, ref, &listing, &dataset, err);
	return r < 0 ? r : zfs_run(ZFS_ARGS("zfs", "set", property, dataset->name), NULL, err);
}

/* ---- swapping data ----
 *
 * ZFS exchanges nothing in one step, and a dataset's snapshots go with it. So the one
 * that was live goes aside, into the draft, carrying the name that it had in a property;
 * the new one gets the name; then the new one gets the snapshots:
 *
 *	1. record and limit of the live one are set on the new one
 *	2. live    → drafts/ID/new.old      (coppice:swap=containers/c1)
 *	3. new     → containers/c1
 *	4. promote containers/c1: snapshots up to the one it was cloned from are its own now
 *	5. snapshots after that stay with the old one, which goes below: containers/c1/UUID
 *	   else it stays in the draft, as the new one's item, without the mark
 *
 * Killed after 2, a sweep does 2 backwards; killed after 3, it goes on with 4, and so does
 * the next one if that is killed: what is in the draft with the mark is never destroyed.
 */

/* Of its own, not of what lies below it. */
static bool has_user_snapshots(const struct listing *listing, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < listing->n; i++) {
		const char *found = listing->dataset[i].name;

		if (strncmp(found, name, n) == 0 &&
		    strncmp(found + n, "@snapshot-", strlen("@snapshot-")) == 0)
			return true;
	}
	return false;
}

/* What lies below the old one, and holds snapshots of older histories, goes below the new one. */
static int move_children(const struct listing *listing, const char *old, const char *live,
			 struct coppice_error *err)
{
	size_t n = strlen(old);
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		const char *name = listing->dataset[i].name;
		_cleanup_(freep) char *to = NULL;

		if (strncmp(name, old, n) != 0 || name[n] != '/' || strpbrk(name + n + 1, "/@") ||
		    strcmp(name + n, ZFS_GUARD_BELOW) == 0)
			continue;
		to = text_format("%s%s", live, name + n);
		if (!to)
			return fail_memory(err);
		r = zfs_run(ZFS_ARGS("zfs", "rename", name, to), NULL, err);
	}
	return r;
}

/* Step 4, unless it was done, or what was restored is not of the old one's own history. */
static int take_snapshots(struct zfs_pool *zfs, const char *old, const char *live,
			  struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	struct dataset *dataset;
	int r;

	r = listing_read(zfs, ZFS_ARGS(live), &listing, err);
	if (r < 0)
		return r;
	dataset = listing_find(&listing, live);
	if (!dataset || !dataset->origin || !zfs_is_within(dataset->origin, old) ||
	    dataset->origin[strlen(old)] != '@')
		return COPPICE_OK;
	return zfs_run(ZFS_ARGS("zfs", "promote", live), NULL, err);
}

/* The old one still has users' snapshots, so it stays, below. Marked until it is safe there. */
static int keep_below(struct zfs_pool *zfs, const struct listing *listing, const char *old,
		      const char *live, struct coppice_error *err)
{
	_cleanup_(freep) char *below = NULL;
	struct coppice_error ignored;
	struct uuid id;
	int r;

	r = uuid_new(&id, err);
	if (r < 0)
		return r;
	below = text_format("%s/%s", live, id.text);
	if (!below)
		return fail_memory(err);
	r = zfs_guard_hold(zfs, listing, old, err);
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zfs", "set", "canmount=off", old), NULL, err);
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zfs", "rename", old, below), NULL, err);
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zfs", "inherit", PROPERTY_SWAP, below), NULL, err);
	/* Else whoever reaps next does it. */
	if (r == COPPICE_OK)
		(void)zfs_roll_back(below, &ignored);
	return r;
}

/*
 * Steps 4 and 5. Without its mark, what lies in the draft is what a sweep destroys: it is
 * taken off only where that is meant, or when it lies there no more.
 */
static int hand_over_snapshots(struct zfs_pool *zfs, const char *old, const char *live,
			       const char *item, struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	struct volume_ref ref;
	int r;

	if (!zfs_name_parse(zfs, live, &ref))
		return fail(err, COPPICE_FAILED, "'%s' is no volume's name", live);
	r = take_snapshots(zfs, old, live, err);
	if (r == COPPICE_OK)
		r = listing_read(zfs, ZFS_ARGS(old), &listing, err);
	if (r == COPPICE_OK)
		r = move_children(&listing, old, live, err);
	if (r == COPPICE_OK)
		r = zfs_guard_ensure(zfs, live, ref.kind, true, err);
	if (r == COPPICE_OK)
		r = zfs_guard_drop(&listing, old, err);
	if (r < 0)
		return r;
	if (has_user_snapshots(&listing, old)) {
		/* What is set aside is for what is live. */
		const struct dataset *dataset = listing_find(&listing, old);

		r = dataset ? zfs_limits_release(dataset, err) : COPPICE_OK;
		return r < 0 ? r : keep_below(zfs, &listing, old, live, err);
	}
	r = zfs_run(ZFS_ARGS("zfs", "inherit", PROPERTY_SWAP, old), NULL, err);
	return r < 0 ? r : zfs_run(ZFS_ARGS("zfs", "rename", old, item), NULL, err);
}

/* Step 1. */
static int take_over(const struct dataset *live, const char *item, struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	int r = COPPICE_OK;

	if (live->record) {
		record = text_format("%s=%s", PROPERTY_RECORD, live->record);
		if (!record)
			return fail_memory(err);
		r = zfs_run(ZFS_ARGS("zfs", "set", record, item), NULL, err);
	}
	return r < 0 ? r : zfs_limits_copy(live, item, err);
}

static int exchange(struct zfs_pool *zfs, const char *live, const char *item,
		    struct coppice_error *err)
{
	_cleanup_(freep) char *old = text_format("%s.old", item);
	_cleanup_(freep) char *mark =
		text_format("%s=%s", PROPERTY_SWAP, live + strlen(zfs->root) + 1);
	struct coppice_error ignored;
	int r;

	if (!old || !mark)
		return fail_memory(err);
	r = zfs_run(ZFS_ARGS("zfs", "set", mark, live), NULL, err);
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zfs", "rename", live, old), NULL, err);
	if (r < 0)
		return r;
	r = zfs_run(ZFS_ARGS("zfs", "rename", item, live), NULL, err);
	if (r < 0) {
		(void)zfs_run(ZFS_ARGS("zfs", "rename", old, live), NULL, &ignored);
		return r;
	}
	return hand_over_snapshots(zfs, old, live, item, err);
}

int zfs_swap(struct draft *draft, const struct new_volume *replacement,
	     const struct volume_ref *ref, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	_cleanup_(listing_done) struct listing listing = { 0 };
	char live[DATASET_MAX], item[DATASET_MAX];
	struct dataset *dataset;
	int r;

	(void)zfs_volume_name(zfs, ref, live);
	zfs_explain(draft->pool, "zfs rename %s %s/drafts/$draft/old", live, zfs->root);
	zfs_explain(draft->pool, "zfs rename %s/drafts/$draft/%s %s", zfs->root,
		    replacement->item ? replacement->item : replacement->ref.name.text, live);
	zfs_explain(draft->pool, "zfs promote %s", live);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	(void)zfs_item_name(zfs, draft, replacement, item);
	r = zfs_find(zfs, ref, &listing, &dataset, err);
	if (r == COPPICE_OK)
		r = zfs_umount_ref(zfs, ref, err);
	if (r == COPPICE_OK)
		r = zfs_umount(item, err);
	if (r == COPPICE_OK)
		r = take_over(dataset, item, err);
	return r < 0 ? r : exchange(zfs, live, item, err);
}

/* Is what has the name the one that was to take it? It was given the old one's record. */
static int check_successor(struct zfs_pool *zfs, const struct dataset *old, const char *live,
			   struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	struct dataset *dataset;
	int r;

	r = listing_read(zfs, ZFS_ARGS(live), &listing, err);
	if (r < 0)
		return r;
	dataset = listing_find(&listing, live);
	if (!dataset || !dataset->record || !old->record ||
	    strcmp(dataset->record, old->record) != 0)
		return fail(err, COPPICE_FAILED,
			    "'%s' was to be restored and has been made anew meanwhile; what it was "
			    "lies in '%s'",
			    live, old->name);
	return COPPICE_OK;
}

int zfs_swap_recover(struct zfs_pool *zfs, const struct dataset *old, struct coppice_error *err)
{
	char live[DATASET_MAX], item[DATASET_MAX];
	int r;

	(void)snprintf(live, sizeof(live), "%s/%s", zfs->root, old->swap);
	(void)snprintf(item, sizeof(item), "%.*s", (int)(strlen(old->name) - strlen(".old")),
		       old->name);
	r = zfs_run(ZFS_ARGS("zfs", "rename", old->name, live), NULL, err);
	if (r != COPPICE_EXISTS)
		return r;
	r = check_successor(zfs, old, live, err);
	return r < 0 ? r : hand_over_snapshots(zfs, old->name, live, item, err);
}
