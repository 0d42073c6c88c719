/* SPDX-License-Identifier: Apache-2.0 */
/* Copying instances with their snapshots. */
#include "core/copying.h"

#include <string.h>

#include "base/file.h"
#include "base/text.h"

void copying_done(struct copying *copying)
{
	volume_done(&copying->source);
	for (size_t i = 0; i < copying->n_snapshots; i++)
		record_done(&copying->snapshots[i].record);
	free(copying->snapshots);
	free(copying->nested_note);
}

/* ---- the snapshots that go along ---- */

static int note_snapshot(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct copying *copying = user;
	struct source_snapshot *more, *snapshot;
	int r;

	if (!row->snapshot[0])
		return COPPICE_OK;
	more = reallocarray(copying->snapshots, copying->n_snapshots + 1, sizeof(*more));
	if (!more)
		return fail_memory(err);
	copying->snapshots = more;
	snapshot = &more[copying->n_snapshots];
	*snapshot = (struct source_snapshot){ .ref = copying->source.ref };
	r = record_parse(row->record, &snapshot->record, err);
	if (r < 0)
		return r;
	copying->n_snapshots++;
	return snapshot_name_parse(row->snapshot, &snapshot->ref.snapshot, err);
}

static int compare_ages(const void *a, const void *b)
{
	const struct source_snapshot *x = a, *y = b;

	if (x->record.created_ns != y->record.created_ns)
		return x->record.created_ns < y->record.created_ns ? -1 : 1;
	return natural_compare(x->ref.snapshot.text, y->ref.snapshot.text);
}

int copying_find_snapshots(struct coppice *coppice, struct copying *copying,
			   struct coppice_error *err)
{
	struct catalog_query query = { .pool = copying->source.entry->name,
				       .kinds = VOLUME_KIND_BIT(copying->source.ref.kind),
				       .name = copying->source.ref.name.text };
	int r = catalog_volumes(coppice->catalog, &query, note_snapshot, copying, err);

	if (r == COPPICE_OK && copying->n_snapshots)
		qsort(copying->snapshots, copying->n_snapshots, sizeof(*copying->snapshots),
		      compare_ages);
	return r;
}

/* ---- describing ---- */

/* The source, as the youngest ancestor of what is cloned from it. */
static int add_origin(const struct copying *copying, struct record *record,
		      struct coppice_error *err)
{
	const struct volume *source = &copying->source;
	const struct record *from =
		volume_is_snapshot(&source->ref) ? &source->instance_record : &source->record;
	char text[VOLUME_REF_TEXT_MAX];
	struct ancestor origin = { .uuid = *volume_group(source) };
	int r;

	(void)volume_ref_format(&source->ref, text);
	origin.name = text;
	if (volume_is_snapshot(&source->ref))
		origin.snapshot = source->record.uuid;
	r = record_copy_lineage(record, from, err);
	return r < 0 ? r : record_add_ancestor(record, &origin, err);
}

/* What it is a clone of, or shares with when it is rebased: the image, if it began as one. */
int copying_add_lineage(const struct copying *copying, struct record *record,
			struct coppice_error *err)
{
	const struct volume *source = &copying->source;
	const struct record *from =
		volume_is_snapshot(&source->ref) ? &source->instance_record : &source->record;

	if (copying->way == COPY_CLONED)
		return add_origin(copying, record, err);
	if (copying->way == COPY_REBASED && from->n_lineage > 0 && from->lineage[0].is_image)
		return record_add_ancestor(record, &from->lineage[0], err);
	return COPPICE_OK;
}

int copying_take_config(const struct copying *copying, const struct record *from, struct record *to,
			struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < from->config.n && r == COPPICE_OK; i++) {
		const struct coppice_setting *setting = &from->config.setting[i];

		if (config_is_driver_key(copying->source.entry->driver, setting->key) &&
		    !config_is_driver_key(copying->target->driver, setting->key))
			continue;
		r = settings_put(&to->config, setting->key, setting->value, err);
	}
	return r;
}

static int copy_config(const struct copying *copying, struct record *record,
		       struct coppice_error *err)
{
	int r = copying_take_config(copying, &copying->source.record, record, err);

	for (size_t i = 0; i < record->config.n && r == COPPICE_OK; i++)
		r = config_check(copying->target, &record->config.setting[i], err);
	return r < 0 ? r : config_add_defaults(copying->target, &record->config, err);
}

static int describe_instance(struct coppice *coppice, const struct copying *copying,
			     struct makings *makings, struct coppice_error *err)
{
	const struct volume *source = &copying->source;
	const struct record *from =
		volume_is_snapshot(&source->ref) ? &source->instance_record : &source->record;
	struct making *making = &makings->making[0];
	struct record *record = &making->record;
	int r = COPPICE_OK;

	making->volume.ref = (struct volume_ref){ .kind = source->ref.kind, .name = copying->name };
	record->kind = source->ref.kind;
	record->created_ns = copying->is_move ? from->created_ns : now_ns();
	if (copying->is_move) {
		record->uuid = from->uuid;
		record->moved_from = source->entry->uuid;
	}
	memcpy(record->image, from->image, sizeof(record->image));
	if (from->image_name) {
		record->image_name = strdup(from->image_name);
		r = record->image_name ? COPPICE_OK : fail_memory(err);
	}
	if (r == COPPICE_OK)
		r = copying_add_lineage(copying, record, err);
	if (r == COPPICE_OK)
		r = copy_config(copying, record, err);
	making->volume.limit_bytes = config_limit(&record->config);
	making->volume.limit_how = config_limit_how(copying->target->driver, &record->config);
	return r < 0 ? r : making_finish(coppice, makings, 0, NULL, NULL, err);
}

static int describe_snapshot(struct coppice *coppice, const struct copying *copying, size_t i,
			     struct makings *makings, struct coppice_error *err)
{
	const struct source_snapshot *snapshot = &copying->snapshots[i];
	struct making *making = &makings->making[1 + i];
	int r;

	making->volume.ref = (struct volume_ref){ .kind = snapshot->ref.kind,
						  .name = copying->name,
						  .snapshot = snapshot->ref.snapshot };
	making->volume.is_nested = true;
	making->record.kind = snapshot->ref.kind;
	making->record.created_ns = snapshot->record.created_ns;
	if (copying->is_move)
		making->record.uuid = snapshot->record.uuid;
	r = copying_take_config(copying, &snapshot->record, &making->record, err);
	return r < 0 ? r : making_finish(coppice, makings, 1 + i, NULL, &makings->making[0], err);
}

static int describe(struct coppice *coppice, const struct copying *copying, struct makings *makings,
		    struct coppice_error *err)
{
	int r = makings_new(makings, 1 + copying->n_snapshots, err);

	if (r == COPPICE_OK)
		r = describe_instance(coppice, copying, makings, err);
	for (size_t i = 0; i < copying->n_snapshots && r == COPPICE_OK; i++)
		r = describe_snapshot(coppice, copying, i, makings, err);
	return r;
}

/* ---- making the data ---- */

/* With snapshots it is several batches of clones, which are published as one. */
static int clone_all(const struct copying *copying, struct draft *draft,
		     const struct makings *makings, struct coppice_error *err)
{
	const struct driver *driver = copying->target->driver;
	int r;

	r = driver->clone(draft, &copying->source.ref, &makings->making[0].volume, 1, false, err);
	for (size_t i = 0; i < copying->n_snapshots && r == COPPICE_OK; i++)
		r = driver->clone(draft, &copying->snapshots[i].ref, &makings->making[1 + i].volume,
				  1, true, err);
	return r;
}

/* Copy the directory @from into a new volume. */
static int fill_one(struct draft *draft, const struct new_volume *volume, const char *from,
		    struct coppice_error *err)
{
	const struct driver *driver = draft->pool->driver;
	_cleanup_(freep) char *path = NULL;
	int r = driver->volume_create(draft, volume, &path, err);

	if (r == COPPICE_OK)
		r = driver->volume_fill(draft, volume, path, from, err);
	return r < 0 ? r
		     : driver->volume_seal(draft, volume, volume_is_snapshot(&volume->ref), err);
}

static int fill_from(const struct pool_entry *entry, const struct volume_ref *ref,
		     struct draft *draft, const struct new_volume *volume,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *from = NULL;
	int r = entry->driver->path(entry->pool, ref, &from, err);

	return r < 0 ? r : fill_one(draft, volume, from, err);
}

static int fill_one_mute(struct draft *draft, const struct new_volume *volume, const char *from,
			 struct coppice_error *err)
{
	explain_fn *explain_hook = draft->pool->explain;
	int r;

	draft->pool->explain = NULL;
	r = fill_one(draft, volume, from, err);
	draft->pool->explain = explain_hook;
	return r;
}

/*
 * What is live may change while it is copied, so it is frozen first, in a draft of
 * its own pool, where the engine can do that for nothing. So are snapshots where they
 * must be mounted: what is mounted in a draft goes with it, whoever is killed. That is
 * not explained: in effect it is the copy of what is there.
 */
static int fill_from_frozen(const struct copying *copying, const struct volume_ref *ref,
			    struct draft *draft, const struct new_volume *volume,
			    struct coppice_error *err)
{
	struct pool_entry *entry = copying->source.entry;
	const struct driver *driver = entry->driver;
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	struct draft frozen_draft = { .fd = -1 };
	struct new_volume frozen = { .ref = *ref,
				     .group = copying->source.record.uuid,
				     .record = "{}" };
	_cleanup_(freep) char *from = NULL, *record = NULL;
	explain_fn *explain_hook = entry->pool->explain;
	int r;

	if (!driver->traits.can_clone || !driver->draft_path || entry->pool->is_dry_run ||
	    (volume_is_snapshot(ref) && !driver->volume_mount))
		return fill_from(entry, ref, draft, volume, err);
	draft->pool->is_dry_run = true;
	r = fill_from(entry, ref, draft, volume, err);
	draft->pool->is_dry_run = false;
	entry->pool->explain = NULL;
	frozen.ref.snapshot.text[0] = '\0'; /* in its draft it is a volume, made of a snapshot */
	if (r == COPPICE_OK)                /* the engine finds there how it is to be mounted */
		r = record_format(&copying->source.record, &record, err);
	frozen.record = record;
	if (r == COPPICE_OK)
		r = uuid_new(&frozen.uuid, err);
	if (r == COPPICE_OK)
		r = draft_begin(entry, &frozen_draft, &undo, err);
	if (r == COPPICE_OK)
		r = driver->clone(&frozen_draft, ref, &frozen, 1, true, err);
	entry->pool->explain = explain_hook;
	if (r == COPPICE_OK)
		r = driver->draft_path(&frozen_draft, &frozen, &from, err);
	draft->source_fd = frozen_draft.fd > 0 ? frozen_draft.fd : 0;
	if (r == COPPICE_OK)
		r = fill_one_mute(draft, volume, from, err);
	draft->source_fd = 0;
	return r;
}

static int fill_all(const struct copying *copying, struct draft *draft,
		    const struct makings *makings, struct coppice_error *err)
{
	int r;

	if (!copying->target->driver->volume_fill)
		return fail(err, COPPICE_UNSUPPORTED, "the %s driver cannot copy from elsewhere",
			    copying->target->driver->name);
	r = fill_from_frozen(copying, &copying->source.ref, draft, &makings->making[0].volume, err);
	for (size_t i = 0; i < copying->n_snapshots && r == COPPICE_OK; i++)
		r = fill_from_frozen(copying, &copying->snapshots[i].ref, draft,
				     &makings->making[1 + i].volume, err);
	return r;
}

/* By the engine's own stream, out of a pool of the same. */
static int transfer_all(const struct copying *copying, struct draft *draft,
			const struct makings *makings, struct coppice_error *err)
{
	size_t n = 1 + copying->n_snapshots;
	_cleanup_(freep) struct volume_ref *sources = calloc(n, sizeof(*sources));
	_cleanup_(freep) struct new_volume *volumes = calloc(n, sizeof(*volumes));

	if (!sources || !volumes)
		return fail_memory(err);
	sources[0] = copying->source.ref;
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			sources[i] = copying->snapshots[i - 1].ref;
		volumes[i] = makings->making[i].volume;
	}
	return copying->target->driver->transfer(draft, copying->source.entry->pool, sources,
						 volumes, n, copying->way, copying->base, err);
}

enum copy_way copying_way(const struct copying *copying)
{
	if (copying->is_full || copying->source.entry != copying->target)
		return COPY_FULL;
	return pool_copy_way(copying->target);
}

int copying_make(const struct copying *copying, struct draft *draft, const struct makings *makings,
		 struct coppice_error *err)
{
	const struct driver *driver = copying->target->driver;
	struct coppice_error why;
	int r = COPPICE_UNSUPPORTED;

	if (copying->way == COPY_CLONED)
		return clone_all(copying, draft, makings, err);
	if (driver->transfer && copying->source.entry->driver == driver)
		r = transfer_all(copying, draft, makings, &why);
	if (r == COPPICE_UNSUPPORTED)
		return fill_all(copying, draft, makings, err);
	if (r < 0)
		*err = why;
	return r;
}

static int make_and_publish(struct coppice *coppice, const struct copying *copying,
			    struct draft *draft, const struct makings *makings,
			    struct coppice_error *err)
{
	int r;

	if (copying->way == COPY_CLONED && copying->n_snapshots == 0)
		return publish_clones(coppice, copying->target, draft, &copying->source.ref,
				      makings, false, err);
	r = copying_make(copying, draft, makings, err);
	return r < 0 ? r : publish(coppice, copying->target, draft, makings, err);
}

/* Under the locks, with the source found: make the copy and publish it. */
int copying_run(struct coppice *coppice, struct copying *copying, struct coppice_error *err)
{
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	_cleanup_(makings_done) struct makings makings = { 0 };
	struct draft draft = { .fd = -1 };
	int r;

	copying->way = copying_way(copying);
	r = refuse_nested(copying->source.entry, &copying->source.ref,
			  copying->is_move ? NESTED_DESTROYED : NESTED_LEFT_OUT, copying->may_lose,
			  &copying->nested_note, err);
	if (r == COPPICE_OK)
		r = room_check(coppice, copying->target, err);
	if (r == COPPICE_OK)
		r = draft_begin(copying->target, &draft, &undo, err);
	if (r == COPPICE_OK)
		r = describe(coppice, copying, &makings, err);
	if (r == COPPICE_OK)
		r = make_and_publish(coppice, copying, &draft, &makings, err);
	if (r == COPPICE_OK)
		undo_commit(&undo);
	if (r == COPPICE_OK && !copying->is_move)
		nested_tell(coppice, copying->nested_note);
	return r;
}

/* ---- copy ---- */

/* Where to: the pool named, else that of the source. */
int copying_find_target(struct coppice *coppice, const char *pool, struct copying *copying,
			struct coppice_error *err)
{
	int r = COPPICE_OK;

	copying->target = copying->source.entry;
	if (pool)
		r = pools_choose(coppice, pool, 0, &copying->target, err);
	return r < 0 ? r : refuse_content(copying->target, copying->source.ref.kind, err);
}

int copying_lock(struct coppice *coppice, const struct volume_ref *source, bool is_move,
		 const struct volume_name *target, const char *pool, struct locks *locks,
		 struct coppice_error *err)
{
	_cleanup_(freep) char *source_pool = NULL;
	int r = volume_pool_of(coppice, source->name.text, &source_pool, err);

	if (r < 0)
		return r;
	if (source_pool)
		locks_add(locks, LOCK_POOLS, source_pool, false);
	if (pool)
		locks_add(locks, LOCK_POOLS, pool, false);
	locks_add(locks, LOCK_INSTANCES, source->name.text, is_move);
	locks_add(locks, LOCK_INSTANCES, target->text, true);
	return locks_take(coppice, locks, err);
}

/* An earlier copy is brought up to date where it is. */
static int copy_or_refresh(struct coppice *coppice, struct copying *copying, const char *pool,
			   bool is_refresh, struct coppice_error *err)
{
	_cleanup_(volume_done) struct volume target = { 0 };
	struct volume_ref ref = { .kind = copying->source.ref.kind, .name = copying->name };
	_cleanup_(freep) char *there = NULL;
	int r;

	r = is_refresh ? volume_pool_of(coppice, copying->name.text, &there, err) : COPPICE_OK;
	if (r < 0)
		return r;
	if (!there) {
		r = copying_find_target(coppice, pool, copying, err);
		if (r == COPPICE_OK)
			r = volume_must_not_exist(coppice, copying->name.text, err);
		return r < 0 ? r : copying_run(coppice, copying, err);
	}
	if (pool && strcmp(pool, there) != 0)
		return fail(err, COPPICE_INVALID,
			    "'%s' is in pool '%s', and is refreshed there, not in '%s'",
			    copying->name.text, there, pool);
	if (volume_is_snapshot(&copying->source.ref))
		return fail(err, COPPICE_INVALID,
			    "a snapshot does not change, and nothing is refreshed from one; to go "
			    "back to one: coppice restore");
	if (strcmp(copying->source.ref.name.text, copying->name.text) == 0)
		return fail(err, COPPICE_INVALID, "'%s' cannot be refreshed from itself",
			    copying->name.text);
	if (volume_is_block(&copying->source.ref))
		return fail(err, COPPICE_UNSUPPORTED,
			    "'%s' has block content, of which nobody knows what is newer: delete "
			    "'%s', and copy it anew",
			    copying->source.ref.name.text, copying->name.text);
	r = volume_find(coppice, &ref, &target, err);
	if (r == COPPICE_OK && volume_is_block(&target.ref))
		r = fail(err, COPPICE_INVALID, "'%s' has block content, and '%s' has files",
			 copying->name.text, copying->source.ref.name.text);
	copying->target = target.entry;
	return r < 0 ? r : copying_refresh(coppice, copying, &target, err);
}

int coppice_instance_copy(struct coppice *coppice, const char *source, const char *target,
			  const struct coppice_copy *options, struct coppice_error *err)
{
	static const struct coppice_copy defaults = { 0 };
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(copying_done) struct copying copying = { 0 };
	_cleanup_(freep) char *there = NULL;
	struct volume_ref ref;
	const char *pool;
	int r;

	if (!options)
		options = &defaults;
	copying.is_full = options->is_full;
	pool = options->pool;
	copying.may_lose = options->may_lose;
	r = instance_ref_parse(source, &ref, err);
	if (r == COPPICE_OK)
		r = instance_name_parse(target, &copying.name, err);
	if (r == COPPICE_OK && options->is_refresh && !pool) {
		r = volume_pool_of(coppice, copying.name.text, &there, err);
		pool = there;
	}
	if (r == COPPICE_OK)
		r = copying_lock(coppice, &ref, false, &copying.name, pool, &locks, err);
	if (r == COPPICE_OK)
		r = volume_find(coppice, &ref, &copying.source, err);
	if (r == COPPICE_OK && !volume_is_snapshot(&ref) && !options->is_instance_only)
		r = copying_find_snapshots(coppice, &copying, err);
	return r < 0 ? r
		     : copy_or_refresh(coppice, &copying, options->pool, options->is_refresh, err);
}
