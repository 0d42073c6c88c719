/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of instances, restoring them, and the configuration of instances. */
#include "core/instances.h"

#include <string.h>

#include "base/file.h"
#include "base/text.h"

/* Lock an instance alone, and find it. */
static int lock_and_find(struct coppice *coppice, const struct volume_ref *ref, struct locks *locks,
			 struct volume *ret, struct coppice_error *err)
{
	_cleanup_(freep) char *pool = NULL;
	int r = volume_pool_of(coppice, ref->name.text, &pool, err);

	if (r < 0)
		return r;
	if (pool)
		locks_add(locks, LOCK_POOLS, pool, false);
	locks_add(locks, LOCK_INSTANCES, ref->name.text, true);
	r = locks_take(coppice, locks, err);
	return r < 0 ? r : volume_find(coppice, ref, ret, err);
}

/* ---- create ---- */

struct naming {
	const char *wanted; /* NULL: count */
	bool is_taken;
	unsigned long next;
};

static int note_name(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct naming *naming = user;
	unsigned long number;
	char tail;

	if (naming->wanted && strcmp(row->snapshot, naming->wanted) == 0)
		naming->is_taken = true;
	if (sscanf(row->snapshot, "snap%lu%c", &number, &tail) == 1 && number >= naming->next)
		naming->next = number + 1;
	return COPPICE_OK;
}

/* As LXD counts: one more than the highest there is. */
static int choose_name(struct coppice *coppice, const struct volume *instance, const char *name,
		       struct volume_name *ret, struct coppice_error *err)
{
	struct naming naming = { .wanted = name };
	struct catalog_query query = { .pool = instance->entry->name,
				       .kind = (int)instance->ref.kind,
				       .name = instance->ref.name.text };
	char counted[32];
	int r;

	r = catalog_volumes(coppice->catalog, &query, note_name, &naming, err);
	if (r < 0)
		return r;
	if (naming.is_taken)
		return fail(err, COPPICE_EXISTS, "snapshot '%s/%s' exists already",
			    instance->ref.name.text, name);
	(void)snprintf(counted, sizeof(counted), "snap%lu", naming.next);
	return snapshot_name_parse(name ? name : counted, ret, err);
}

static int make_snapshot(struct coppice *coppice, const struct volume *instance,
			 const struct volume_name *name, struct coppice_error *err)
{
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	_cleanup_(makings_done) struct makings makings = { 0 };
	struct draft draft = { .fd = -1 };
	struct making *making;
	int r;

	r = draft_begin(instance->entry, &draft, &undo, err);
	if (r == COPPICE_OK)
		r = makings_new(&makings, 1, err);
	if (r < 0)
		return r;
	making = &makings.making[0];
	making->volume.ref = instance->ref;
	making->volume.ref.snapshot = *name;
	making->record.kind = instance->ref.kind;
	making->record.created_ns = now_ns();
	r = settings_copy(&making->record.config, &instance->record.config, err);
	if (r == COPPICE_OK)
		r = making_finish(coppice, &makings, 0, &instance->record.uuid, NULL, err);
	if (r == COPPICE_OK)
		r = instance->entry->driver->clone(&draft, &instance->ref, &making->volume, 1, true,
						   err);
	if (r == COPPICE_OK)
		r = publish(coppice, instance->entry, &draft, &makings, err);
	if (r == COPPICE_OK)
		undo_commit(&undo);
	return r;
}

int coppice_snapshot_create(struct coppice *coppice, const char *instance, const char *name,
			    char **ret_name, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(volume_done) struct volume volume = { 0 };
	struct volume_ref ref = { .kind = VOLUME_CONTAINER };
	struct volume_name chosen;
	char *copy = NULL;
	int r;

	r = instance_name_parse(instance, &ref.name, err);
	if (r == COPPICE_OK && name)
		r = snapshot_name_parse(name, &chosen, err);
	if (r == COPPICE_OK)
		r = lock_and_find(coppice, &ref, &locks, &volume, err);
	if (r == COPPICE_OK)
		r = choose_name(coppice, &volume, name, &chosen, err);
	if (r == COPPICE_OK && ret_name) {
		copy = strdup(chosen.text);
		r = copy ? COPPICE_OK : fail_memory(err);
	}
	if (r == COPPICE_OK)
		r = make_snapshot(coppice, &volume, &chosen, err);
	if (r < 0) {
		free(copy);
		return r;
	}
	if (ret_name)
		*ret_name = copy;
	return COPPICE_OK;
}

/* ---- restore: clone the snapshot, exchange it with what is live, let that go ---- */

static int restore(struct coppice *coppice, const struct volume *snapshot,
		   const struct volume_ref *instance, struct coppice_error *err)
{
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	_cleanup_(makings_done) struct makings makings = { 0 };
	const struct driver *driver = snapshot->entry->driver;
	struct draft draft = { .fd = -1 };
	struct making *making;
	int r;

	r = draft_begin(snapshot->entry, &draft, &undo, err);
	if (r == COPPICE_OK)
		r = makings_new(&makings, 1, err);
	if (r < 0)
		return r;
	making = &makings.making[0];
	making->volume.ref = *instance;
	making->record.kind = instance->kind;
	making->record.created_ns = now_ns();
	r = making_finish(coppice, &makings, 0, &snapshot->instance_record.uuid, NULL, err);
	if (r == COPPICE_OK)
		r = driver->clone(&draft, &snapshot->ref, &making->volume, 1, false, err);
	if (r == COPPICE_OK && is_interrupted(coppice))
		r = fail(err, COPPICE_INTERRUPTED, "interrupted; nothing was restored");
	if (r == COPPICE_OK)
		r = driver->swap(&draft, &making->volume, instance, err);
	if (r == COPPICE_OK)
		r = driver->commit(snapshot->entry->pool, err);
	return r; /* what was live goes with the draft */
}

int coppice_snapshot_restore(struct coppice *coppice, const char *instance, const char *snapshot,
			     struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(volume_done) struct volume volume = { 0 };
	struct volume_ref ref = { .kind = VOLUME_CONTAINER };
	struct volume_ref live;
	struct volume used;
	int r;

	r = instance_name_parse(instance, &ref.name, err);
	if (r == COPPICE_OK)
		r = snapshot_name_parse(snapshot, &ref.snapshot, err);
	if (r == COPPICE_OK)
		r = lock_and_find(coppice, &ref, &locks, &volume, err);
	if (r < 0)
		return r;
	live = (struct volume_ref){ .kind = ref.kind, .name = ref.name };
	used = volume;
	used.ref = live;
	r = refuse_in_use(coppice, &used, 1, err);
	return r < 0 ? r : restore(coppice, &volume, &live, err);
}

/* ---- configuration ---- */

static int apply(struct coppice *coppice, struct volume *volume, bool is_limit_changed,
		 const char *text, struct coppice_error *err)
{
	struct pool_entry *entry = volume->entry;
	const struct driver *driver = entry->driver;
	int r;

	if (is_limit_changed) {
		r = driver->limit_set(entry->pool, &volume->ref, &volume->record.uuid,
				      config_limit(&volume->record.config), err);
		if (r < 0)
			return r;
	}
	r = change_begin(coppice, entry, err);
	if (r < 0)
		return r;
	r = driver->record_write(entry->pool, &volume->ref, text, err);
	if (r == COPPICE_OK)
		r = catalog_put_record(coppice, entry->name, &volume->ref, &volume->record, text,
				       err);
	if (r < 0) {
		change_abort(coppice);
		return r;
	}
	r = change_end(coppice, entry, err);
	return r < 0 ? r : driver->commit(entry->pool, err);
}

static int undo_limit(struct volume *volume, uint64_t before, struct coppice_error *err)
{
	return volume->entry->driver->limit_set(volume->entry->pool, &volume->ref,
						&volume->record.uuid, before, err);
}

int coppice_config_set(struct coppice *coppice, const char *instance,
		       const struct coppice_setting *settings, size_t n, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(volume_done) struct volume volume = { 0 };
	_cleanup_(freep) char *text = NULL;
	struct volume_ref ref = { .kind = VOLUME_CONTAINER };
	struct coppice_error ignored;
	uint64_t before;
	int r;

	r = instance_name_parse(instance, &ref.name, err);
	if (r == COPPICE_OK)
		r = lock_and_find(coppice, &ref, &locks, &volume, err);
	if (r < 0)
		return r;
	before = config_limit(&volume.record.config);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		r = config_check(volume.entry, &settings[i], err);
		if (r == COPPICE_OK)
			r = settings_put(&volume.record.config, settings[i].key, settings[i].value,
					 err);
	}
	if (r == COPPICE_OK)
		r = record_format(&volume.record, &text, err);
	if (r < 0)
		return r;
	r = apply(coppice, &volume, before != config_limit(&volume.record.config), text, err);
	if (r < 0 && before != config_limit(&volume.record.config))
		(void)undo_limit(&volume, before, &ignored);
	return r;
}
