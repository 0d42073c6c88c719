/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of instances, restoring them, and the configuration of instances. */
#include "core/instances.h"

#include <string.h>

#include "base/file.h"
#include "base/text.h"

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
				       .kinds = VOLUME_KIND_BIT(instance->ref.kind),
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

	r = room_check(coppice, instance->entry, err);
	if (r == COPPICE_OK)
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
		r = publish_clones(coppice, instance->entry, &draft, &instance->ref, &makings, true,
				   err);
	if (r == COPPICE_OK)
		undo_commit(&undo);
	return r;
}

int coppice_snapshot_create(struct coppice *coppice, const char *instance, const char *name,
			    unsigned may_lose, char **ret_name, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(volume_done) struct volume volume = { 0 };
	struct volume_ref ref = { .kind = VOLUME_CONTAINER };
	_cleanup_(freep) char *note = NULL;
	struct volume_name chosen;
	char *copy = NULL;
	int r;

	r = instance_name_parse(instance, &ref.name, err);
	if (r == COPPICE_OK && name)
		r = snapshot_name_parse(name, &chosen, err);
	if (r == COPPICE_OK)
		r = volume_lock(coppice, &ref, true, &locks, &volume, err);
	if (r == COPPICE_OK)
		r = choose_name(coppice, &volume, name, &chosen, err);
	if (r == COPPICE_OK)
		r = refuse_nested(volume.entry, &volume.ref, NESTED_LEFT_OUT, may_lose, &note, err);
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
	nested_tell(coppice, note);
	if (ret_name)
		*ret_name = copy;
	return COPPICE_OK;
}

/* ---- restore: clone the snapshot, exchange it with what is live, let that go ---- */

/*
 * As a change, though the catalog's row stays as it is: so nobody reads the pool anew while the
 * name is between the two.
 */
static int swap(struct coppice *coppice, struct pool_entry *entry, struct draft *draft,
		const struct new_volume *replacement, const struct volume_ref *instance,
		struct coppice_error *err)
{
	struct coppice_error ignored;
	int r = change_begin(coppice, entry, instance, 1, true, err);

	if (r < 0)
		return r;
	r = entry->driver->swap(draft, replacement, instance, err);
	if (r < 0 || change_end(coppice, entry, instance, 1, true, &ignored) < 0)
		change_abort(coppice);
	return r;
}

/* Whatever else fails: else what was live would go with the draft. */
static void take_back(struct coppice *coppice, struct pool_entry *entry, struct draft *draft,
		      const struct new_volume *replacement, const struct volume_ref *instance)
{
	struct coppice_error ignored;
	bool is_change = change_begin(coppice, entry, instance, 1, true, &ignored) == COPPICE_OK;

	(void)entry->driver->swap(draft, replacement, instance, &ignored);
	if (is_change && change_end(coppice, entry, instance, 1, true, &ignored) < 0)
		change_abort(coppice);
	if (!is_change)
		entry->is_fresh = false;
}

static int exchange(struct coppice *coppice, struct pool_entry *entry, struct draft *draft,
		    const struct new_volume *replacement, const struct volume_ref *instance,
		    struct coppice_error *err)
{
	int r = swap(coppice, entry, draft, replacement, instance, err);

	if (r < 0)
		return r;
	r = entry->driver->commit(entry->pool, err);
	if (r < 0)
		take_back(coppice, entry, draft, replacement, instance);
	return r;
}

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
		r = exchange(coppice, snapshot->entry, &draft, &making->volume, instance, err);
	return r; /* what is in the draft now goes with it */
}

int coppice_snapshot_restore(struct coppice *coppice, const char *instance, const char *snapshot,
			     unsigned may_lose, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(volume_done) struct volume volume = { 0 };
	struct volume_ref ref = { .kind = VOLUME_CONTAINER };
	_cleanup_(freep) char *note = NULL;
	struct volume_ref live;
	struct volume used;
	int r;

	r = instance_name_parse(instance, &ref.name, err);
	if (r == COPPICE_OK)
		r = snapshot_name_parse(snapshot, &ref.snapshot, err);
	if (r == COPPICE_OK)
		r = volume_lock(coppice, &ref, true, &locks, &volume, err);
	if (r < 0)
		return r;
	live = (struct volume_ref){ .kind = volume.ref.kind, .name = ref.name };
	used = volume;
	used.ref = live;
	r = refuse_nested(used.entry, &live, NESTED_DESTROYED, may_lose, &note, err);
	if (r == COPPICE_OK)
		r = refuse_in_use(coppice, &used, 1, may_lose, err);
	if (r == COPPICE_OK)
		r = restore(coppice, &volume, &live, err);
	if (r == COPPICE_OK)
		nested_tell(coppice, note);
	return r;
}

/* ---- configuration ---- */

/* The step in the pool, and the catalog with it. */
static int write_record(struct coppice *coppice, const struct volume *volume, const char *text,
			struct coppice_error *err)
{
	struct pool_entry *entry = volume->entry;
	struct coppice_error ignored;
	int r;

	r = change_begin(coppice, entry, &volume->ref, 1, true, err);
	if (r < 0)
		return r;
	r = entry->driver->record_write(entry->pool, &volume->ref, text, err);
	if (r < 0) {
		change_abort(coppice);
		return r;
	}
	if (catalog_put_record(coppice, entry->name, &volume->ref, &volume->record, text,
			       &ignored) < 0 ||
	    change_end(coppice, entry, &volume->ref, 1, true, &ignored) < 0)
		change_abort(coppice);
	return COPPICE_OK;
}

/* An instance with the configuration that it has, and the one that it shall have. */
struct reconfiguring {
	struct volume volume; /* its record is the new one */
	char *old, *new;      /* both as text */
	uint64_t old_limit, new_limit;
	unsigned old_how, new_how;
};

static void reconfiguring_done(struct reconfiguring *reconfiguring)
{
	volume_done(&reconfiguring->volume);
	free(reconfiguring->old);
	free(reconfiguring->new);
}

static int set_limit(const struct reconfiguring *reconfiguring, uint64_t limit_bytes, unsigned how,
		     struct coppice_error *err)
{
	const struct volume *volume = &reconfiguring->volume;

	if (reconfiguring->old_limit == reconfiguring->new_limit &&
	    reconfiguring->old_how == reconfiguring->new_how)
		return COPPICE_OK;
	return volume->entry->driver->limit_set(volume->entry->pool, &volume->ref,
						&volume->record.uuid, limit_bytes, how, err);
}

/* The limit first: should it be refused, nothing says that it is there. */
static int reconfigure(struct coppice *coppice, const struct reconfiguring *reconfiguring,
		       struct coppice_error *err)
{
	struct pool_entry *entry = reconfiguring->volume.entry;
	struct coppice_error ignored;
	int r;

	r = set_limit(reconfiguring, reconfiguring->new_limit, reconfiguring->new_how, err);
	if (r < 0)
		return r;
	r = write_record(coppice, &reconfiguring->volume, reconfiguring->new, err);
	if (r == COPPICE_OK) {
		r = entry->driver->commit(entry->pool, err);
		if (r < 0) {
			/* The catalog is read anew: its row would be the new one. */
			(void)entry->driver->record_write(entry->pool, &reconfiguring->volume.ref,
							  reconfiguring->old, &ignored);
			(void)entry->driver->touch(entry->pool, &ignored);
			entry->is_fresh = false;
		}
	}
	if (r < 0)
		(void)set_limit(reconfiguring, reconfiguring->old_limit, reconfiguring->old_how,
				&ignored);
	return r;
}

int coppice_config_set(struct coppice *coppice, const char *instance,
		       const struct coppice_setting *settings, size_t n, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(reconfiguring_done) struct reconfiguring reconfiguring = { 0 };
	struct volume *volume = &reconfiguring.volume;
	struct volume_ref ref = { .kind = VOLUME_CONTAINER };
	int r;

	r = instance_name_parse(instance, &ref.name, err);
	if (r == COPPICE_OK)
		r = volume_lock(coppice, &ref, true, &locks, volume, err);
	if (r == COPPICE_OK)
		r = volume_record_format(&volume->ref, &volume->record, &reconfiguring.old, err);
	if (r < 0)
		return r;
	reconfiguring.old_limit = config_limit(&volume->record.config);
	reconfiguring.old_how = config_limit_how(volume->entry->driver, &volume->record.config);
	r = config_take(volume->entry, volume->ref.kind, settings, n, false, &volume->record.config,
			err);
	if (r == COPPICE_OK)
		r = volume_record_format(&volume->ref, &volume->record, &reconfiguring.new, err);
	if (r < 0)
		return r;
	reconfiguring.new_limit = config_limit(&volume->record.config);
	reconfiguring.new_how = config_limit_how(volume->entry->driver, &volume->record.config);
	return reconfigure(coppice, &reconfiguring, err);
}
