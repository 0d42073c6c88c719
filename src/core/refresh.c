/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing an earlier copy up to date. What is live is made anew in a draft and exchanged, as
 * when a snapshot is restored; snapshots that the source has and the copy has not are nested
 * in it; those that the source has no more are retired at the end. The copy's name, identity
 * and configuration stay. A snapshot is the same in both if name and time are, as copying
 * keeps both. Killed at any step, the copy is whole, the old one or the new, and doing it
 * again brings what is missing.
 */
#include "core/copying.h"

#include <string.h>

#include "base/file.h"
#include "base/text.h"

struct refreshing {
	const struct volume *target;
	struct record record; /* of the target, with what it shares from now on */
	char *text;
	struct volume_ref *refs; /* snapshots that go; first those whose names are taken again */
	struct uuid *uuids;
	size_t n, n_replaced;
};

static void refreshing_done(struct refreshing *refreshing)
{
	record_done(&refreshing->record);
	free(refreshing->text);
	free(refreshing->refs);
	free(refreshing->uuids);
}

/* ---- which snapshots go, stay, and come ---- */

static int note_gone(struct refreshing *refreshing, const struct source_snapshot *gone,
		     struct coppice_error *err)
{
	size_t n = refreshing->n + 1;
	struct volume_ref *refs = reallocarray(refreshing->refs, n, sizeof(*refs));
	struct uuid *uuids;

	if (!refs)
		return fail_memory(err);
	refreshing->refs = refs;
	uuids = reallocarray(refreshing->uuids, n, sizeof(*uuids));
	if (!uuids)
		return fail_memory(err);
	refreshing->uuids = uuids;
	refs[n - 1] = gone->ref;
	uuids[n - 1] = gone->record.uuid;
	refreshing->n = n;
	return COPPICE_OK;
}

static struct source_snapshot *find_named(const struct copying *copying, const char *name)
{
	for (size_t i = 0; i < copying->n_snapshots; i++)
		if (strcmp(copying->snapshots[i].ref.snapshot.text, name) == 0)
			return &copying->snapshots[i];
	return NULL;
}

/* Those that are left in @copying are to be made. */
static void keep_missing(struct copying *copying, const struct copying *have)
{
	size_t n = 0;

	for (size_t i = 0; i < copying->n_snapshots; i++) {
		struct source_snapshot *snapshot = &copying->snapshots[i];
		const struct source_snapshot *same = find_named(have, snapshot->ref.snapshot.text);

		if (same && same->record.created_ns == snapshot->record.created_ns)
			record_done(&snapshot->record);
		else
			copying->snapshots[n++] = *snapshot;
	}
	copying->n_snapshots = n;
}

static int compare_snapshots(struct coppice *coppice, struct refreshing *refreshing,
			     struct copying *copying, struct coppice_error *err)
{
	_cleanup_(copying_done) struct copying have = { 0 };
	int r;

	have.source.entry = refreshing->target->entry;
	have.source.ref = refreshing->target->ref;
	r = copying_find_snapshots(coppice, &have, err);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < have.n_snapshots && r == COPPICE_OK; i++) {
			const struct source_snapshot *old = &have.snapshots[i];
			const struct source_snapshot *new =
				find_named(copying, old->ref.snapshot.text);

			if (new &&new->record.created_ns == old->record.created_ns)
				continue;
			if ((new != NULL) == (round == 0))
				r = note_gone(refreshing, old, err);
		}
		if (round == 0)
			refreshing->n_replaced = refreshing->n;
	}
	keep_missing(copying, &have);
	return r;
}

/* ---- describing ---- */

static bool has_ancestor(const struct record *record, const struct ancestor *ancestor)
{
	for (size_t i = 0; i < record->n_lineage; i++)
		if (strcmp(record->lineage[i].uuid.text, ancestor->uuid.text) == 0 &&
		    strcmp(record->lineage[i].snapshot.text, ancestor->snapshot.text) == 0)
			return true;
	return false;
}

/* What it shared before, its snapshots share still. */
static int describe_record(struct refreshing *refreshing, const struct copying *copying,
			   struct coppice_error *err)
{
	struct record *record = &refreshing->record;
	struct record shared = { 0 };
	char *before = NULL;
	int r;

	r = volume_record_format(&refreshing->target->ref, &refreshing->target->record, &before,
				 err);
	if (r == COPPICE_OK)
		r = record_parse(before, record, err);
	free(before);
	if (r == COPPICE_OK)
		r = copying_add_lineage(copying, &shared, err);
	for (size_t i = 0; i < shared.n_lineage && r == COPPICE_OK; i++)
		if (!has_ancestor(record, &shared.lineage[i]))
			r = record_add_ancestor(record, &shared.lineage[i], err);
	record_done(&shared);
	return r < 0 ? r
		     : volume_record_format(&refreshing->target->ref, record, &refreshing->text,
					    err);
}

static int describe_snapshot(struct coppice *coppice, const struct refreshing *refreshing,
			     const struct copying *copying, size_t i, struct makings *makings,
			     struct coppice_error *err)
{
	const struct source_snapshot *snapshot = &copying->snapshots[i];
	struct making *making = &makings->making[1 + i];
	int r;

	making->volume.ref = refreshing->target->ref;
	making->volume.ref.snapshot = snapshot->ref.snapshot;
	making->volume.is_nested = true;
	making->record.kind = snapshot->ref.kind;
	making->record.created_ns = snapshot->record.created_ns;
	r = copying_take_config(copying, &snapshot->record, &making->record, err);
	return r < 0 ? r
		     : making_finish(coppice, makings, 1 + i, &refreshing->target->record.uuid,
				     NULL, err);
}

static int describe(struct coppice *coppice, const struct refreshing *refreshing,
		    const struct copying *copying, struct makings *makings,
		    struct coppice_error *err)
{
	const struct volume *target = refreshing->target;
	int r = makings_new(makings, 1 + copying->n_snapshots, err);

	if (r < 0)
		return r;
	makings->making[0].volume.ref = target->ref;
	makings->making[0].volume.has_nested = copying->n_snapshots > 0;
	makings->making[0].record.kind = target->ref.kind;
	makings->making[0].record.created_ns = now_ns();
	r = settings_copy(&makings->making[0].record.config, &target->record.config, err);
	if (r == COPPICE_OK)
		r = making_finish(coppice, makings, 0, &target->record.uuid, NULL, err);
	for (size_t i = 0; i < copying->n_snapshots && r == COPPICE_OK; i++)
		r = describe_snapshot(coppice, refreshing, copying, i, makings, err);
	return r;
}

/* ---- the step that shows ---- */

/* What cannot be made durable was not made: the old data again, and no new snapshots. */
static void take_back(struct coppice *coppice, const struct refreshing *refreshing,
		      struct draft *draft, const struct makings *makings)
{
	const struct volume *target = refreshing->target;
	struct new_volume old = makings->making[0].volume;
	struct coppice_error ignored;

	old.has_nested = false;
	(void)target->entry->driver->swap(draft, &old, &target->ref, &ignored);
	for (size_t i = 1; i < makings->n; i++)
		(void)retire(coppice, target->entry, &makings->making[i].volume.ref,
			     &makings->making[i].record.uuid, 1, &ignored);
}

/* A longer lineage is true of the old data as well: so the record first. */
static int exchange(struct coppice *coppice, const struct refreshing *refreshing,
		    struct draft *draft, const struct makings *makings, struct coppice_error *err)
{
	const struct volume *target = refreshing->target;
	struct pool_entry *entry = target->entry;
	struct coppice_error ignored;
	int r;

	r = change_begin(coppice, entry, &target->ref, 1, true, err);
	if (r < 0)
		return r;
	r = entry->driver->record_write(entry->pool, &target->ref, refreshing->text, err);
	if (r == COPPICE_OK)
		r = entry->driver->swap(draft, &makings->making[0].volume, &target->ref, err);
	if (r < 0) {
		change_abort(coppice);
		return r;
	}
	r = catalog_put_record(coppice, entry->name, &target->ref, &refreshing->record,
			       refreshing->text, &ignored);
	for (size_t i = 1; i < makings->n && r == COPPICE_OK; i++)
		r = catalog_put_record(coppice, entry->name, &makings->making[i].volume.ref,
				       &makings->making[i].record, makings->making[i].text,
				       &ignored);
	if (r < 0 || change_end(coppice, entry, &target->ref, 1, true, &ignored) < 0)
		change_abort(coppice);
	r = entry->driver->commit(entry->pool, err);
	if (r < 0)
		take_back(coppice, refreshing, draft, makings);
	return r;
}

static int retire_some(struct coppice *coppice, const struct refreshing *refreshing, size_t from,
		       size_t to, struct coppice_error *err)
{
	return from == to ? COPPICE_OK
			  : retire(coppice, refreshing->target->entry, &refreshing->refs[from],
				   &refreshing->uuids[from], to - from, err);
}

static int refresh(struct coppice *coppice, struct refreshing *refreshing, struct copying *copying,
		   struct coppice_error *err)
{
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	_cleanup_(makings_done) struct makings makings = { 0 };
	struct draft draft = { .fd = -1 };
	int r;

	r = draft_begin(copying->target, &draft, &undo, err);
	if (r == COPPICE_OK)
		r = describe(coppice, refreshing, copying, &makings, err);
	if (r == COPPICE_OK)
		r = copying_make(copying, &draft, &makings, err);
	if (r == COPPICE_OK && is_interrupted(coppice))
		r = fail(err, COPPICE_INTERRUPTED, "interrupted; nothing was changed");
	if (r == COPPICE_OK)
		r = retire_some(coppice, refreshing, 0, refreshing->n_replaced, err);
	return r < 0 ? r : exchange(coppice, refreshing, &draft, &makings, err);
	/* What is in the draft now goes with it. */
}

int copying_refresh(struct coppice *coppice, struct copying *copying, const struct volume *target,
		    struct coppice_error *err)
{
	_cleanup_(refreshing_done) struct refreshing refreshing = { .target = target };
	_cleanup_(freep) char *left_out = NULL;
	_cleanup_(freep) char *destroyed = NULL;
	int r;

	copying->way = copying_way(copying);
	copying->base = &target->ref;
	r = refuse_nested(copying->source.entry, &copying->source.ref, NESTED_LEFT_OUT,
			  copying->may_lose, &left_out, err);
	if (r == COPPICE_OK)
		r = refuse_nested(target->entry, &target->ref, NESTED_DESTROYED, copying->may_lose,
				  &destroyed, err);
	if (r == COPPICE_OK)
		r = refuse_in_use(coppice, target, 1, copying->may_lose, err);
	if (r == COPPICE_OK)
		r = room_check(coppice, copying->target, err);
	if (r == COPPICE_OK)
		r = compare_snapshots(coppice, &refreshing, copying, err);
	if (r == COPPICE_OK)
		r = describe_record(&refreshing, copying, err);
	if (r == COPPICE_OK)
		r = refresh(coppice, &refreshing, copying, err);
	if (r < 0)
		return r;
	nested_tell(coppice, left_out);
	nested_tell(coppice, destroyed);
	return retire_some(coppice, &refreshing, refreshing.n_replaced, refreshing.n, err);
}
