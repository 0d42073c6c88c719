/* SPDX-License-Identifier: Apache-2.0 */
/* Moving instances between pools, and finishing what a killed move began. */
#include "core/copying.h"

#include <string.h>

/* ---- move ---- */

/* The record of what was moved no longer says from where. */
static int forget_source(struct coppice *coppice, struct pool_entry *entry,
			 const struct volume_ref *ref, struct coppice_error *err)
{
	_cleanup_(record_done) struct record record = { 0 };
	_cleanup_(freep) char *old = NULL;
	_cleanup_(freep) char *text = NULL;
	int r;

	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	r = entry->driver->record_read(entry->pool, ref, &old, err);
	if (r == COPPICE_OK)
		r = record_parse(old, &record, err);
	if (r < 0)
		return r;
	record.moved_from = (struct uuid){ "" };
	r = record_format(&record, &text, err);
	if (r == COPPICE_OK)
		r = change_begin(coppice, entry, err);
	if (r < 0)
		return r;
	r = entry->driver->record_write(entry->pool, ref, text, err);
	if (r == COPPICE_OK)
		r = catalog_put_record(coppice, entry->name, ref, &record, text, err);
	if (r < 0) {
		change_abort(coppice);
		return r;
	}
	r = change_end(coppice, entry, err);
	return r < 0 ? r : entry->driver->commit(entry->pool, err);
}

/*
 * The copy is made and durable: the source goes. While the source is still there
 * the copy can be taken back; once it is out of sight, the copy is the instance.
 */
static int retire_moved(struct coppice *coppice, struct copying *copying,
			const struct volume_ref *moved, struct coppice_error *err)
{
	const struct volume *source = &copying->source;
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;
	int r;

	r = retire(coppice, source->entry, &source->ref, &source->record.uuid, 1, err);
	if (r < 0 && source->entry->driver->record_read(source->entry->pool, &source->ref, &record,
							&ignored) != COPPICE_NOT_FOUND) {
		(void)retire(coppice, copying->target, moved, &source->record.uuid, 1, &ignored);
		return r;
	}
	/* What cannot be written now, the next command finishes. */
	if (forget_source(coppice, copying->target, moved, &ignored) < 0)
		notice(coppice, "the move of '%s' is finished by the next command: %s",
		       moved->name.text, ignored.message);
	return COPPICE_OK;
}

static int move_to_pool(struct coppice *coppice, struct copying *copying, struct coppice_error *err)
{
	struct volume_ref moved = { .kind = copying->source.ref.kind, .name = copying->name };
	int r;

	r = refuse_in_use(coppice, &copying->source, 1, err);
	if (r == COPPICE_OK)
		r = copying_find_snapshots(coppice, copying, err);
	if (r == COPPICE_OK)
		r = copying_run(coppice, copying, err);
	return r < 0 ? r : retire_moved(coppice, copying, &moved, err);
}

int coppice_instance_move(struct coppice *coppice, const char *source, const char *target,
			  const char *pool, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(copying_done) struct copying copying = { .is_move = true, .is_full = true };
	struct volume_ref ref;
	int r;

	r = instance_ref_parse(source, &ref, err);
	if (r == COPPICE_OK && volume_is_snapshot(&ref))
		r = fail(err, COPPICE_INVALID, "'%s' is a snapshot, and cannot move alone", source);
	if (r == COPPICE_OK)
		r = instance_name_parse(target, &copying.name, err);
	if (r == COPPICE_OK)
		r = copying_lock(coppice, &ref, true, &copying.name, pool, &locks, err);
	if (r == COPPICE_OK)
		r = volume_find(coppice, &ref, &copying.source, err);
	if (r == COPPICE_OK)
		r = copying_find_target(coppice, pool, &copying, err);
	if (r < 0)
		return r;
	if (copying.target == copying.source.entry) {
		locks_done(&locks); /* renaming takes its own */
		return coppice_rename(coppice, source, target, err);
	}
	if (strcmp(source, target) != 0)
		r = volume_must_not_exist(coppice, target, err);
	return r < 0 ? r : move_to_pool(coppice, &copying, err);
}

/* ---- finishing what a killed move began ---- */

struct unfinished {
	struct {
		char pool[256];
		struct volume_ref ref;
		struct uuid uuid, moved_from;
	} move[16];
	size_t n;
};

static int note_unfinished(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct unfinished *unfinished = user;
	struct record record;
	int r;

	if (unfinished->n == ARRAY_SIZE(unfinished->move))
		return COPPICE_OK;
	r = record_parse(row->record, &record, err);
	if (r < 0)
		return r;
	if (instance_name_parse(row->name, &unfinished->move[unfinished->n].ref.name, err) ==
	    COPPICE_OK) {
		unfinished->move[unfinished->n].ref.kind = (enum volume_kind)row->kind;
		unfinished->move[unfinished->n].uuid = record.uuid;
		unfinished->move[unfinished->n].moved_from = record.moved_from;
		(void)snprintf(unfinished->move[unfinished->n].pool, 256, "%s", row->pool);
		unfinished->n++;
	}
	record_done(&record);
	return COPPICE_OK;
}

struct same_uuid {
	const char *uuid;
	struct volume_ref ref;
	bool is_found;
};

static int match_uuid(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct same_uuid *same = user;

	if (strcmp(row->uuid, same->uuid) != 0)
		return COPPICE_OK;
	same->is_found = true;
	same->ref.kind = (enum volume_kind)row->kind;
	return instance_name_parse(row->name, &same->ref.name, err);
}

static int retire_source(struct coppice *coppice, struct pool_entry *entry, const struct uuid *uuid,
			 struct coppice_error *err)
{
	struct same_uuid same = { .uuid = uuid->text };
	struct catalog_query query = { .pool = entry->name,
				       .kind = VOLUME_CONTAINER,
				       .no_snapshots = true };
	int r;

	r = pools_open(coppice, entry, err);
	if (r == COPPICE_OK)
		r = catalog_volumes(coppice->catalog, &query, match_uuid, &same, err);
	if (r == COPPICE_OK && same.is_found)
		r = retire(coppice, entry, &same.ref, uuid, 1, err);
	return r;
}

static int finish_one(struct coppice *coppice, const struct unfinished *unfinished, size_t i,
		      struct coppice_error *err)
{
	struct pool_entry *target = pools_get(coppice, unfinished->move[i].pool);
	int r = target ? pools_open(coppice, target, err) : COPPICE_NOT_FOUND;

	for (size_t k = 0; k < coppice->n_pools && r == COPPICE_OK; k++)
		if (strcmp(coppice->pools[k]->uuid.text, unfinished->move[i].moved_from.text) == 0)
			r = retire_source(coppice, coppice->pools[k], &unfinished->move[i].uuid,
					  err);
	if (!target)
		return COPPICE_OK;
	return r < 0 ? r : forget_source(coppice, target, &unfinished->move[i].ref, err);
}

void moves_finish(struct coppice *coppice)
{
	struct unfinished unfinished = { .n = 0 };
	unsigned timeout_ms = coppice->locks.timeout_ms;
	struct coppice_error why;

	if (coppice->options.is_dry_run)
		return;
	if (catalog_volumes(coppice->catalog, &(struct catalog_query){ .is_moving = true },
			    note_unfinished, &unfinished, &why) < 0)
		notice(coppice, "cannot look for unfinished moves: %s", why.message);
	for (size_t i = 0; i < unfinished.n; i++) {
		_cleanup_(locks_done) struct locks locks = LOCKS_INIT;

		/* Who holds the name is moving it right now. */
		coppice->locks.timeout_ms = 0;
		locks_add(&locks, LOCK_INSTANCES, unfinished.move[i].ref.name.text, true);
		if (locks_take(coppice, &locks, &why) == COPPICE_OK &&
		    finish_one(coppice, &unfinished, i, &why) < 0)
			notice(coppice, "a move of '%s' is not finished yet: %s",
			       unfinished.move[i].ref.name.text, why.message);
		coppice->locks.timeout_ms = timeout_ms;
	}
}
