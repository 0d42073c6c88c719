/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes come into being: created and filled, or cloned, many at the same time. */
#include "driver/zfs/zfs.h"

#include <limits.h>
#include <string.h>

#include "base/parallel.h"
#include "base/text.h"

/* ---- creating ---- */

/* ROOT/drafts/ID/NAME, or below it what holds a snapshot that is nested in it. */
static void target_name(const struct zfs_pool *zfs, const struct draft *draft,
			const struct new_volume *volume, char ret[static DATASET_MAX])
{
	char item[DATASET_MAX];

	(void)zfs_item_name(zfs, draft, volume, item);
	if (volume->is_nested)
		(void)snprintf(ret, DATASET_MAX, "%.300s/%s", item, volume->uuid.text);
	else
		(void)snprintf(ret, DATASET_MAX, "%s", item);
}

static int check_record(const struct new_volume *volume, struct coppice_error *err)
{
	if (strlen(volume->record) > RECORD_MAX)
		return fail(err, COPPICE_INVALID, "the record of '%s' is too long for ZFS",
			    volume->ref.name.text);
	return COPPICE_OK;
}

static const char *item_text(const struct new_volume *volume)
{
	return volume->item ? volume->item : volume->ref.name.text;
}

/* "/$snapshot" for what is below an item. */
static const char *nested_text(const struct new_volume *volume)
{
	return volume->is_nested ? "/$(cat /proc/sys/kernel/random/uuid)" : "";
}

int zfs_volume_create(struct draft *draft, const struct new_volume *volume, char **ret_path,
		      struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	_cleanup_(limit_options_done) struct limit_options limit = { .n = 0 };
	_cleanup_(freep) char *record = NULL, *told = NULL, *path = NULL;
	const char *argv[8 + ARRAY_SIZE(limit.option)] = { "zfs", "create", "-o" };
	char target[DATASET_MAX];
	int r;

	r = check_record(volume, err);
	if (r == COPPICE_OK)
		r = zfs_draft_ensure(draft, err);
	if (r < 0)
		return r;
	target_name(zfs, draft, volume, target);
	record = text_format("%s=%s", PROPERTY_RECORD, volume->record);
	told = limit_options_told(volume);
	path = text_format("%s/drafts/%s/%s%s%s", zfs->mount, draft->id.text, item_text(volume),
			   volume->is_nested ? "@" : "", volume->ref.snapshot.text);
	r = limit_options_format(volume, &limit, err);
	if (r < 0 || !record || !told || !path)
		return fail_memory(err);
	argv[3] = record;
	memcpy(&argv[4], limit.option, limit.n * sizeof(*argv));
	argv[4 + limit.n] = target;
	zfs_explain(draft->pool,
		    "zfs create -o %s=%s%s -o mountpoint=%s/drafts/$draft/%s%s "
		    "%s/drafts/$draft/%s%s",
		    PROPERTY_RECORD, volume->explain_record, told, zfs->mount, item_text(volume),
		    nested_text(volume), zfs->root, item_text(volume), nested_text(volume));
	if (!draft->pool->is_dry_run) {
		r = zfs_run(argv, NULL, err);
		if (r == COPPICE_OK && !volume->is_nested && volume->ref.kind != VOLUME_IMAGE)
			r = zfs_guard_begin(zfs, target, err);
		if (r == COPPICE_OK)
			r = zfs_mount_at(zfs, target, path, err);
	}
	if (r == COPPICE_OK)
		*ret_path = take_ptr(&path);
	return r;
}

/* What was filled becomes a snapshot that users see below its volume. */
static int seal_snapshot(const char *target, const struct new_volume *volume, const char *record,
			 struct coppice_error *err)
{
	_cleanup_(freep) char *snapshot =
		text_format("%s@snapshot-%s", target, volume->ref.snapshot.text);
	int r;

	if (!snapshot)
		return fail_memory(err);
	r = zfs_run(ZFS_ARGS("zfs", "set", "canmount=off", target), NULL, err);
	return r < 0 ? r : zfs_run(ZFS_ARGS("zfs", "snapshot", "-o", record, snapshot), NULL, err);
}

static int seal_image(const char *target, struct coppice_error *err)
{
	_cleanup_(freep) char *snapshot = text_format("%s" ZFS_IMAGE_SNAPSHOT, target);
	int r;

	if (!snapshot)
		return fail_memory(err);
	r = zfs_run(ZFS_ARGS("zfs", "set", "readonly=on", target), NULL, err);
	return r < 0 ? r : zfs_run(ZFS_ARGS("zfs", "snapshot", snapshot), NULL, err);
}

static void seal_explain(struct draft *draft, const struct new_volume *volume, bool is_read_only)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	_cleanup_(freep) char *item = text_format("%s/drafts/$draft/%s%s", zfs->root,
						  item_text(volume), nested_text(volume));

	if (!item)
		return;
	zfs_explain(draft->pool, "zfs unmount %s", item);
	zfs_explain(draft->pool, "zfs set %s=%s %s", PROPERTY_RECORD, volume->explain_record, item);
	if (volume_is_snapshot(&volume->ref))
		zfs_explain(draft->pool, "zfs snapshot -o %s=%s %s@snapshot-%s", PROPERTY_RECORD,
			    volume->explain_record, item, volume->ref.snapshot.text);
	else if (is_read_only)
		zfs_explain(draft->pool, "zfs set readonly=on %s && zfs snapshot %s@readonly", item,
			    item);
}

/* Unmounting writes out all of its data, and waits for the disk. */
int zfs_volume_seal(struct draft *draft, const struct new_volume *volume, bool is_read_only,
		    struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	_cleanup_(freep) char *record = NULL;
	char target[DATASET_MAX];
	int r;

	seal_explain(draft, volume, is_read_only);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	target_name(zfs, draft, volume, target);
	r = check_record(volume, err);
	if (r == COPPICE_OK)
		r = zfs_umount(target, err);
	record = text_format("%s=%s", PROPERTY_RECORD, volume->record);
	if (!record)
		return fail_memory(err);
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zfs", "set", record, target), NULL, err);
	if (r == COPPICE_OK && volume_is_snapshot(&volume->ref))
		return seal_snapshot(target, volume, record, err);
	return r < 0 || !is_read_only ? r : seal_image(target, err);
}

/* ---- cloning ---- */

struct batch {
	struct draft *draft;
	const struct volume_ref *origin;
	const char *from; /* the snapshot to clone; for snapshots of @origin itself, it */
	bool are_own_snapshots;
	const struct new_volume *volumes;
	bool *is_aside; /* its name was taken: it is in the draft */
};

/* The options and the name that a clone is made with. */
static int clone_as(const struct batch *batch, const struct new_volume *volume, const char *target,
		    struct coppice_error *err)
{
	_cleanup_(limit_options_done) struct limit_options limit = { .n = 0 };
	_cleanup_(freep) char *record = NULL, *draft = NULL;
	const char *argv[16 + ARRAY_SIZE(limit.option)] = { "zfs", "clone" };
	size_t n = 2;
	int r;

	record = text_format("%s=%s", PROPERTY_RECORD, volume->record);
	draft = text_format("%s=%s", PROPERTY_DRAFT, batch->draft->id.text);
	r = limit_options_format(volume, &limit, err);
	if (r < 0 || !record || !draft)
		return fail_memory(err);
	argv[n++] = "-o";
	argv[n++] = record;
	argv[n++] = "-o";
	argv[n++] = batch->draft->is_announced ? draft : PROPERTY_DRAFT "=none";
	memcpy(&argv[n], limit.option, limit.n * sizeof(*argv));
	n += limit.n;
	/*
	 * Nothing asks for a read-only clone but to read it in the draft, and readonly=on
	 * would spoil that: see mounting.c.
	 */
	argv[n++] = batch->from;
	argv[n++] = target;
	r = zfs_run(argv, NULL, err);
	return r < 0 ? limit_options_failed(volume, batch->from, r, err) : COPPICE_OK;
}

static int clone_volume(const struct batch *batch, size_t i, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(batch->draft->pool);
	const struct new_volume *volume = &batch->volumes[i];
	char target[DATASET_MAX];
	int r;

	if (batch->draft->is_announced) {
		r = clone_as(batch, volume, zfs_volume_name(zfs, &volume->ref, target), err);
		if (r != COPPICE_EXISTS)
			return r;
		batch->is_aside[i] = true; /* publish will say so, unless it is free by then */
		r = zfs_draft_ensure_of(zfs, batch->draft->id.text, err);
		if (r < 0)
			return r;
	}
	return clone_as(batch, volume, zfs_item_name(zfs, batch->draft, volume, target), err);
}

/*
 * A snapshot that is not of its volume's own history: a clone below the volume, which
 * nobody mounts, has it. It is seen when the snapshot is there, so in one step.
 */
static int clone_snapshot(const struct batch *batch, const struct new_volume *volume,
			  struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(batch->draft->pool);
	_cleanup_(freep) char *record = NULL, *draft = NULL, *snapshot = NULL;
	bool is_draft = batch->draft->is_announced || !volume->is_nested;
	bool is_named = batch->draft->is_announced || volume->is_nested;
	char volume_name[DATASET_MAX], target[DATASET_MAX];
	int r;

	if (volume->is_nested)
		target_name(zfs, batch->draft, volume, target);
	else
		(void)snprintf(target, sizeof(target), "%.400s/%s",
			       zfs_volume_name(zfs, &volume->ref, volume_name), volume->uuid.text);
	record = text_format("%s=%s", PROPERTY_RECORD, volume->record);
	draft = text_format("%s=%s", PROPERTY_DRAFT, is_draft ? batch->draft->id.text : "none");
	snapshot = text_format("%s@%s-%s", target, is_named ? "snapshot" : "draft",
			       is_named ? volume->ref.snapshot.text : volume->uuid.text);
	if (!record || !draft || !snapshot)
		return fail_memory(err);
	r = zfs_run(
		ZFS_ARGS("zfs", "clone", "-o", draft, "-o", "canmount=off", batch->from, target),
		NULL, err);
	return r < 0 ? r
		     : zfs_run(ZFS_ARGS("zfs", "snapshot", "-o", record, "-o", draft, snapshot),
			       NULL, err);
}

static int own_snapshot_as(const struct batch *batch, const struct new_volume *volume,
			   const char *kind, const char *name, struct coppice_error *err)
{
	_cleanup_(freep) char *record = text_format("%s=%s", PROPERTY_RECORD, volume->record);
	_cleanup_(freep) char *draft = text_format("%s=%s", PROPERTY_DRAFT, batch->draft->id.text);
	_cleanup_(freep) char *snapshot = text_format("%s@%s-%s", batch->from, kind, name);
	int r;

	if (!record || !draft || !snapshot)
		return fail_memory(err);
	r = zfs_run(ZFS_ARGS("zfs", "snapshot", "-o", record, "-o", draft, snapshot), NULL, err);
	return r < 0 ? r
		     : zfs_guard_snapshot(zfs_pool_of(batch->draft->pool), batch->from, snapshot,
					  err);
}

static int own_snapshot(const struct batch *batch, size_t i, struct coppice_error *err)
{
	const struct new_volume *volume = &batch->volumes[i];
	int r;

	if (batch->draft->is_announced) {
		r = own_snapshot_as(batch, volume, "snapshot", volume->ref.snapshot.text, err);
		if (r != COPPICE_EXISTS)
			return r;
		batch->is_aside[i] = true;
	}
	return own_snapshot_as(batch, volume, "draft", volume->uuid.text, err);
}

static bool is_of(const struct volume_ref *snapshot, const struct volume_ref *volume)
{
	return volume_is_snapshot(snapshot) && !volume_is_snapshot(volume) &&
	       snapshot->kind == volume->kind &&
	       strcmp(snapshot->name.text, volume->name.text) == 0;
}

static bool is_own_snapshot(const struct batch *batch, const struct new_volume *volume)
{
	return !volume->is_nested && is_of(&volume->ref, batch->origin);
}

static int clone_one(void *user, size_t i, struct coppice_error *err)
{
	struct batch *batch = user;
	const struct new_volume *volume = &batch->volumes[i];
	struct pool *pool = batch->draft->pool;
	struct batch own = *batch;
	char name[DATASET_MAX];
	int r;

	if (pool_is_interrupted(pool))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	if (is_own_snapshot(batch, volume)) {
		own.from = zfs_volume_name(zfs_pool_of(pool), batch->origin, name);
		r = own_snapshot(&own, i, err);
	} else if (volume_is_snapshot(&volume->ref)) {
		r = clone_snapshot(batch, volume, err);
	} else {
		r = clone_volume(batch, i, err);
	}
	return r < 0 ? wrap(err, "cannot clone as '%s'", item_text(volume)) : COPPICE_OK;
}

int zfs_freeze(struct draft *draft, const struct volume_ref *origin, char ret[static DATASET_MAX],
	       struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	char volume[DATASET_MAX];
	int r;

	(void)snprintf(ret, DATASET_MAX, "%.400s@copy-%s", zfs_volume_name(zfs, origin, volume),
		       draft->id.text);
	r = zfs_run(ZFS_ARGS("zfs", "snapshot", ret), NULL, err);
	return r == COPPICE_EXISTS ? COPPICE_OK : r;
}

/* The snapshot that clones of @origin are made of. */
static int origin_find(struct draft *draft, const struct volume_ref *origin,
		       char ret[static DATASET_MAX], struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	_cleanup_(listing_done) struct listing listing = { 0 };
	struct dataset *found;
	char volume[DATASET_MAX];
	int r;

	if (origin->kind == VOLUME_IMAGE) {
		(void)snprintf(ret, DATASET_MAX, "%.400s" ZFS_IMAGE_SNAPSHOT,
			       zfs_volume_name(zfs, origin, volume));
		return COPPICE_OK;
	}
	if (!volume_is_snapshot(origin))
		return zfs_freeze(draft, origin, ret, err);
	r = zfs_find(zfs, origin, &listing, &found, err);
	if (r == COPPICE_OK)
		(void)snprintf(ret, DATASET_MAX, "%s", found->name);
	return r;
}

static void clone_explain(const struct batch *batch, const struct new_volume *volume)
{
	struct zfs_pool *zfs = zfs_pool_of(batch->draft->pool);
	_cleanup_(freep) char *from = NULL, *to = NULL, *limit = NULL;
	const char *folder = zfs_kind_folder(batch->origin->kind);
	bool is_announced = batch->draft->is_announced;

	if (is_own_snapshot(batch, volume)) {
		zfs_explain(&zfs->pool, "zfs snapshot -o %s=%s -o %s=$draft %s/%s/%s@%s-%s",
			    PROPERTY_RECORD, volume->explain_record, PROPERTY_DRAFT, zfs->root,
			    folder, volume->ref.name.text, is_announced ? "snapshot" : "draft",
			    is_announced ? volume->ref.snapshot.text : "$draft");
		return;
	}
	from = text_format("%s/%s/%s@%s%s", zfs->root, folder, batch->origin->name.text,
			   batch->origin->kind == VOLUME_IMAGE ? "readonly"
			   : volume_is_snapshot(batch->origin) ? "snapshot-"
							       : "copy-$draft",
			   batch->origin->snapshot.text);
	to = is_announced ? text_format("%s/%s/%s", zfs->root, zfs_kind_folder(volume->ref.kind),
					volume->ref.name.text)
			  : text_format("%s/drafts/$draft/%s%s", zfs->root, item_text(volume),
					nested_text(volume));
	limit = limit_options_told(volume);
	if (!from || !to || !limit)
		return;
	zfs_explain(&zfs->pool, "zfs clone -o %s=%s%s%s %s %s", PROPERTY_RECORD,
		    volume->explain_record, is_announced ? " -o " PROPERTY_DRAFT "=$draft" : "",
		    limit, from, to);
	if (is_announced && !volume_is_snapshot(&volume->ref))
		zfs_guard_explain(zfs, to, volume->ref.kind);
}

static void batch_explain(const struct batch *batch, size_t n)
{
	const struct volume_ref *origin = batch->origin;
	struct zfs_pool *zfs = zfs_pool_of(batch->draft->pool);

	if (origin->kind != VOLUME_IMAGE && !volume_is_snapshot(origin) &&
	    !batch->are_own_snapshots)
		zfs_explain(&zfs->pool, "zfs snapshot %s/%s/%s@copy-$draft", zfs->root,
			    zfs_kind_folder(origin->kind), origin->name.text);
	for (size_t i = 0; i < n; i++)
		clone_explain(batch, &batch->volumes[i]);
}

/* Remember what lies where, for publishing. */
static int remember(struct batch *batch, size_t n, struct coppice_error *err)
{
	struct making *making = making_of(batch->draft);
	struct uuid *aside = realloc(making->aside, (making->n_aside + n + 1) * sizeof(*aside));

	if (!aside)
		return fail_memory(err);
	making->aside = aside;
	for (size_t i = 0; i < n; i++) {
		const struct new_volume *volume = &batch->volumes[i];

		making->n_waiting += volume_is_snapshot(&volume->ref) && !volume->is_nested &&
				     (!batch->draft->is_announced || batch->is_aside[i]);
		if (!batch->draft->is_announced)
			continue;
		making->n_announced++;
		if (!batch->is_aside[i])
			continue;
		making->has_dataset = true;
		making->aside[making->n_aside++] = batch->volumes[i].uuid;
	}
	return COPPICE_OK;
}

/* What has its name already; what is in the draft is guarded when it gets one. */
static int guard_all(const struct batch *batch, size_t n, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(batch->draft->pool);
	_cleanup_(freep) char **guard = calloc(n + 1, sizeof(*guard));
	size_t n_guards = 0;
	int r = guard ? COPPICE_OK : fail_memory(err);

	for (size_t i = 0; i < n && r == COPPICE_OK && batch->draft->is_announced; i++) {
		const struct volume_ref *ref = &batch->volumes[i].ref;
		char name[DATASET_MAX];

		if (volume_is_snapshot(ref) || batch->is_aside[i])
			continue;
		guard[n_guards] =
			text_format("%s" ZFS_GUARD_SNAPSHOT, zfs_volume_name(zfs, ref, name));
		r = guard[n_guards++] ? COPPICE_OK : fail_memory(err);
	}
	if (r == COPPICE_OK)
		r = zfs_guard_begin_all(zfs, guard, n_guards, err);
	while (n_guards-- > 0)
		free(guard[n_guards]);
	return r;
}

int zfs_clone(struct draft *draft, const struct volume_ref *origin,
	      const struct new_volume *volumes, size_t n, bool is_read_only,
	      struct coppice_error *err)
{
	struct batch batch = {
		.draft = draft, .origin = origin, .volumes = volumes, .are_own_snapshots = true
	};
	_cleanup_(freep) bool *is_aside = calloc(n + 1, sizeof(*is_aside));
	char from[DATASET_MAX];
	int r = is_aside ? COPPICE_OK : fail_memory(err);

	batch.is_aside = is_aside;
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		batch.are_own_snapshots &= is_own_snapshot(&batch, &volumes[i]);
		r = check_record(&volumes[i], err);
	}
	/* Snapshots of a volume itself, and what is announced, are in no place of the draft's. */
	if (r == COPPICE_OK && !draft->is_announced && !batch.are_own_snapshots)
		r = zfs_draft_ensure(draft, err);
	if (r < 0)
		return r;
	batch_explain(&batch, n);
	if (draft->pool->is_dry_run)
		return remember(&batch, n, err);
	/* From here on there may be something of it: discarding must look for that. */
	making_of(draft)->n_waiting += n;
	if (!batch.are_own_snapshots)
		r = origin_find(draft, origin, from, err);
	batch.from = from;
	if (r == COPPICE_OK)
		r = remember(&batch, 0, err);
	if (r == COPPICE_OK && draft->is_announced && !batch.are_own_snapshots)
		r = zfs_draft_note(draft, from, volumes, n, err);
	if (r == COPPICE_OK)
		r = parallel_run(n, zfs_threads(), clone_one, &batch, err);
	if (r == COPPICE_OK)
		r = guard_all(&batch, n, err);
	making_of(draft)->n_waiting -= r == COPPICE_OK ? n : 0;
	if (r == COPPICE_NOT_FOUND)
		return zfs_missing(zfs_pool_of(draft->pool), origin, err);
	return r < 0 ? r : remember(&batch, n, err);
}

/* ---- publishing ---- */

static int fail_exists(const struct volume_ref *ref, struct coppice_error *err)
{
	char name[VOLUME_REF_TEXT_MAX];

	return fail(err, COPPICE_EXISTS, "'%s' exists already", volume_ref_format(ref, name));
}

/* Where it lies in the draft, and what its name is to be. */
static int names_of(struct draft *draft, const struct new_volume *volume,
		    char draft_name[static DATASET_MAX], char name[static DATASET_MAX],
		    struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	_cleanup_(listing_done) struct listing listing = { 0 };
	char volume_name[DATASET_MAX], draft_end[DATASET_MAX];
	int r;

	(void)zfs_volume_name(zfs, &volume->ref, volume_name);
	if (!volume_is_snapshot(&volume->ref)) {
		(void)zfs_item_name(zfs, draft, volume, draft_name);
		(void)snprintf(name, DATASET_MAX, "%s", volume_name);
		return COPPICE_OK;
	}
	r = listing_read(zfs, ZFS_ARGS(volume_name), &listing, err);
	if (r == COPPICE_NOT_FOUND) {
		struct volume_ref parent = volume->ref;

		parent.snapshot.text[0] = '\0';
		return zfs_fail_missing(&parent, err);
	}
	if (r < 0)
		return r;
	if (listing_find_ref(zfs, &listing, &volume->ref))
		return fail_exists(&volume->ref, err);
	(void)snprintf(draft_end, sizeof(draft_end), "@draft-%s", volume->uuid.text);
	for (size_t i = 0; i < listing.n; i++) {
		const char *found = listing.dataset[i].name, *at = strchr(found, '@');

		if (!at || strcmp(at, draft_end) != 0)
			continue;
		(void)snprintf(draft_name, DATASET_MAX, "%s", found);
		(void)snprintf(name, DATASET_MAX, "%.*s@snapshot-%s", (int)(at - found), found,
			       volume->ref.snapshot.text);
		return COPPICE_OK;
	}
	return fail(err, COPPICE_FAILED, "'%s' is not in the draft", volume->ref.name.text);
}

static int publish_one(struct draft *draft, const struct new_volume *volume,
		       struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	char from[DATASET_MAX], to[DATASET_MAX];
	int r;

	r = names_of(draft, volume, from, to, err);
	if (r == COPPICE_OK && !volume_is_snapshot(&volume->ref))
		r = zfs_guard_ensure(zfs, from, volume->ref.kind, true, err);
	if (r == COPPICE_OK)
		r = zfs_rename_displacing(zfs, from, to, err);
	if (r == COPPICE_OK && volume_is_snapshot(&volume->ref) && !draft->is_announced)
		r = zfs_run(ZFS_ARGS("zfs", "set", PROPERTY_DRAFT "=none", to), NULL, err);
	if (r == COPPICE_EXISTS)
		return fail_exists(&volume->ref, err);
	return r == COPPICE_NOT_FOUND ? fail(err, COPPICE_FAILED, "'%s' is not in the draft",
					     volume->ref.name.text)
				      : r;
}

static void unpublish_one(struct draft *draft, const struct new_volume *volume)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	char item[DATASET_MAX], name[DATASET_MAX];
	struct coppice_error ignored;

	(void)zfs_volume_name(zfs, &volume->ref, name);
	if (volume_is_snapshot(&volume->ref)) {
		_cleanup_(freep) char *from =
			text_format("%s@snapshot-%s", name, volume->ref.snapshot.text);
		_cleanup_(freep) char *to = text_format("%s@draft-%s", name, volume->uuid.text);

		if (from && to)
			(void)zfs_run(ZFS_ARGS("zfs", "rename", from, to), NULL, &ignored);
		return;
	}
	(void)zfs_run(ZFS_ARGS("zfs", "rename", name, zfs_item_name(zfs, draft, volume, item)),
		      NULL, &ignored);
}

static bool is_aside(const struct draft *draft, const struct new_volume *volume)
{
	const struct making *making = making_of(draft);

	for (size_t i = 0; i < making->n_aside; i++)
		if (strcmp(making->aside[i].text, volume->uuid.text) == 0)
			return true;
	return false;
}

/* Rename those that do not have their names yet; back again all, if one fails. */
static int publish_names(struct draft *draft, const struct new_volume *volumes, size_t n,
			 struct coppice_error *err)
{
	for (size_t i = 0; i < n; i++) {
		int r;

		if (draft->is_announced && !is_aside(draft, &volumes[i]))
			continue;
		r = publish_one(draft, &volumes[i], err);
		if (r == COPPICE_OK) {
			making_of(draft)->n_waiting -= volume_is_snapshot(&volumes[i].ref);
			continue;
		}
		while (i-- > 0)
			if (!draft->is_announced || is_aside(draft, &volumes[i])) {
				unpublish_one(draft, &volumes[i]);
				making_of(draft)->n_waiting += volume_is_snapshot(&volumes[i].ref);
			}
		return r;
	}
	return COPPICE_OK;
}

/* Let some be seen, while others of the draft are not. */
static int show_some(struct draft *draft, const struct new_volume *volumes, size_t n,
		     struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		char volume[DATASET_MAX], name[2 * DATASET_MAX];

		(void)zfs_volume_name(zfs, &volumes[i].ref, volume);
		(void)snprintf(name, sizeof(name), "%s%s%s", volume,
			       volume_is_snapshot(&volumes[i].ref) ? "@snapshot-" : "",
			       volumes[i].ref.snapshot.text);
		r = zfs_run(ZFS_ARGS("zfs", "set", PROPERTY_DRAFT "=none", name), NULL, err);
		if (r == COPPICE_OK)
			making_of(draft)->n_announced--;
	}
	return r;
}

/* One that is not announced gets its name; what is announced, but not a snapshot, has it. */
static void publish_explain_one(struct zfs_pool *zfs, const struct new_volume *volume)
{
	const struct volume_ref *ref = &volume->ref;
	const char *folder = zfs_kind_folder(ref->kind);
	_cleanup_(freep) char *item = NULL;

	if (volume_is_snapshot(ref)) {
		zfs_explain(&zfs->pool, "zfs rename %s/%s/%s@draft-$draft %s/%s/%s@snapshot-%s",
			    zfs->root, folder, ref->name.text, zfs->root, folder, ref->name.text,
			    ref->snapshot.text);
		return;
	}
	item = text_format("%s/drafts/$draft/%s", zfs->root, item_text(volume));
	if (!item)
		return;
	zfs_guard_explain(zfs, item, ref->kind);
	zfs_explain(&zfs->pool, "zfs rename %s %s/%s/%s", item, zfs->root, folder, ref->name.text);
}

static void publish_explain(struct draft *draft, const struct new_volume *volumes, size_t n)
{
	for (size_t i = 0; i < n && !draft->is_announced; i++)
		publish_explain_one(zfs_pool_of(draft->pool), &volumes[i]);
}

int zfs_publish(struct draft *draft, const struct new_volume *volumes, size_t n,
		struct coppice_error *err)
{
	struct making *making = making_of(draft);
	int r = COPPICE_OK;

	publish_explain(draft, volumes, n);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	r = publish_names(draft, volumes, n, err);
	if (r < 0 || !draft->is_announced)
		return r;
	if (n != making->n_announced)
		return show_some(draft, volumes, n, err);
	state_lock_remove(&zfs_pool_of(draft->pool)->files, draft->id.text);
	making->n_announced = 0;
	return COPPICE_OK;
}
