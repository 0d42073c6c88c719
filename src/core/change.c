/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping the catalog and the pools together: changing both as one, and reading anew. */
#include "core/core.h"

#include <stdlib.h>
#include <string.h>

/* ---- ours, and not another state directory's ---- */

#define HOLD_WAIT_MS 2

struct holding {
	struct pool_entry *entry;
	enum pool_hold how;
};

static int try_hold(void *user, struct coppice_error *err)
{
	const struct holding *holding = user;

	return holding->entry->driver->pool_hold(holding->entry->pool, holding->how, err);
}

int pool_hold_as(struct coppice *coppice, struct pool_entry *entry, enum pool_hold how,
		 struct coppice_error *err)
{
	struct holding holding = { entry, how };
	int r;

	if (!entry->driver->pool_hold)
		return COPPICE_OK;
	r = wait_while_busy(coppice, try_hold, &holding, HOLD_WAIT_MS, err);
	entry->is_held = r == COPPICE_OK;
	return r;
}

void pool_release(struct pool_entry *entry)
{
	struct coppice_error ignored;

	if (entry->is_held && entry->pool)
		(void)entry->driver->pool_hold(entry->pool, POOL_RELEASE, &ignored);
	entry->is_held = false;
}

static int check_ours(struct coppice *coppice, const struct pool_entry *entry,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	const char *owner;
	json_t *json;
	int r = entry->driver->pool_record_read(entry->pool, &record, err);

	if (r < 0)
		return r;
	json = json_loads(record, JSON_REJECT_DUPLICATES, NULL);
	owner = json_string_value(json_object_get(json, "owner"));
	if (!owner || strcmp(owner, coppice->owner.text) != 0)
		r = fail(err, COPPICE_BUSY,
			 "pool '%s' was taken over by another Coppice meanwhile; nothing was "
			 "changed",
			 entry->name);
	json_decref(json);
	return r;
}

int pool_hold(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	int r;

	if (!entry->driver->pool_hold || coppice->options.is_dry_run)
		return COPPICE_OK;
	r = pool_hold_as(coppice, entry, POOL_SHARED, err);
	if (r == COPPICE_OK)
		r = check_ours(coppice, entry, err);
	if (r < 0)
		pool_release(entry);
	return r;
}

/* ---- changes ---- */

/* What those add to the stamp that are there, each once, and not by itself if a snapshot. */
static int stamp_part(struct pool_entry *entry, const struct volume_ref *refs, size_t n,
		      bool are_there, uint64_t *ret, struct coppice_error *err)
{
	_cleanup_(freep) struct volume_ref *volumes = calloc(n + 1, sizeof(*volumes));
	size_t n_there = 0, n_volumes = 0;

	if (!volumes)
		return fail_memory(err);
	for (size_t i = 0; i < n; i++) {
		if (!are_there && !volume_is_snapshot(&refs[i]))
			continue;
		volumes[n_there].kind = refs[i].kind;
		volumes[n_there++].name = refs[i].name;
	}
	qsort(volumes, n_there, sizeof(*volumes), volume_compare);
	for (size_t i = 0; i < n_there; i++)
		if (i == 0 || volume_compare(&volumes[i], &volumes[i - 1]) != 0)
			volumes[n_volumes++] = volumes[i];
	*ret = 0;
	return n_volumes == 0
		       ? COPPICE_OK
		       : entry->driver->stamp_part(entry->pool, volumes, n_volumes, ret, err);
}

/* Somebody changed the pool behind us since: what we store then must not hide it. */
static int compare_all(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	uint64_t now, known;
	int r = entry->driver->stamp(entry->pool, &now, err);

	if (r == COPPICE_OK)
		r = catalog_stamp_get(coppice->catalog, entry->name, &known, err);
	if (r == COPPICE_OK && now != known)
		r = catalog_rebuild(coppice, entry, err);
	return r == COPPICE_OK ? entry->driver->touch(entry->pool, err) : r;
}

/* In a sum that differs, what others did is still missing after ours is added. */
static int take_part(struct coppice *coppice, struct pool_entry *entry,
		     const struct volume_ref *refs, size_t n, bool are_there,
		     struct coppice_error *err)
{
	uint64_t known, part;
	int r = stamp_part(entry, refs, n, are_there, &part, err);

	if (r == COPPICE_OK)
		r = catalog_stamp_get(coppice->catalog, entry->name, &known, err);
	if (r == COPPICE_OK)
		entry->stamp_rest = (known - part) % STAMP_MODULUS;
	return r;
}

int change_begin(struct coppice *coppice, struct pool_entry *entry, const struct volume_ref *refs,
		 size_t n, bool are_there, struct coppice_error *err)
{
	int r;

	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	r = catalog_begin(coppice->catalog, err);
	if (r == COPPICE_OK)
		r = pool_hold(coppice, entry, err);
	if (r == COPPICE_OK)
		r = entry->driver->stamp_part ? take_part(coppice, entry, refs, n, are_there, err)
					      : compare_all(coppice, entry, err);
	if (r < 0) {
		pool_release(entry);
		catalog_rollback(coppice->catalog);
	}
	return r;
}

/* Store what the stamp is now, if that could be had, or store nothing. */
static int finish(struct coppice *coppice, struct pool_entry *entry, int r, uint64_t stamp,
		  struct coppice_error *err)
{
	pool_release(entry);
	if (r == COPPICE_OK)
		r = catalog_stamp_put(coppice->catalog, entry->name, stamp, err);
	if (r == COPPICE_OK)
		return catalog_commit(coppice->catalog, err);
	catalog_rollback(coppice->catalog);
	return r;
}

/* With what now is there of the part that changed. */
static int finish_sum(struct coppice *coppice, struct pool_entry *entry, uint64_t part,
		      struct coppice_error *err)
{
	uint64_t known, stamp;
	int r = catalog_stamp_get(coppice->catalog, entry->name, &known, err);

	/* 0 is what nobody compared yet, and stays so. */
	stamp = r < 0 || known == 0 ? 0 : (entry->stamp_rest + part) % STAMP_MODULUS;
	return finish(coppice, entry, r, stamp, err);
}

int change_end(struct coppice *coppice, struct pool_entry *entry, const struct volume_ref *refs,
	       size_t n, bool are_there, struct coppice_error *err)
{
	uint64_t stamp = 0;
	int r;

	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	if (!entry->driver->stamp_part) {
		r = entry->driver->stamp(entry->pool, &stamp, err);
		return finish(coppice, entry, r, stamp, err);
	}
	r = stamp_part(entry, refs, n, are_there, &stamp, err);
	return r < 0 ? finish(coppice, entry, r, 0, err) : finish_sum(coppice, entry, stamp, err);
}

int change_end_new(struct coppice *coppice, struct pool_entry *entry,
		   const struct new_volume *volumes, size_t n, struct coppice_error *err)
{
	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	return finish_sum(coppice, entry, entry->driver->stamp_new(entry->pool, volumes, n), err);
}

void change_abort(struct coppice *coppice)
{
	catalog_rollback(coppice->catalog);
	/* Some of it may have happened all the same. */
	for (size_t i = 0; i < coppice->n_pools; i++) {
		pool_release(coppice->pools[i]);
		coppice->pools[i]->is_fresh = false;
	}
}

/* ---- reading anew ---- */

static int put_row(struct coppice *coppice, const char *pool, const struct volume_ref *ref,
		   const struct record *record, const char *text, struct coppice_error *err)
{
	const struct ancestor *origin = record_origin(record);
	struct catalog_volume row = {
		.pool = pool,
		.kind = (int)ref->kind,
		.name = ref->name.text,
		.snapshot = ref->snapshot.text,
		.uuid = record->uuid.text,
		.created_ns = record->created_ns,
		.image = record->image,
		.image_name = record->image_name ? record->image_name : "",
		.origin = origin && !origin->is_image ? origin->name : "",
		.is_moving = record->moved_from.text[0] != '\0',
		.record = text,
	};

	return catalog_volume_put(coppice->catalog, &row, err);
}

int catalog_put_record(struct coppice *coppice, const char *pool, const struct volume_ref *ref,
		       const struct record *record, const char *text, struct coppice_error *err)
{
	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	return put_row(coppice, pool, ref, record, text, err);
}

/* What is damaged is not listed; check tells of it. */
static bool is_good(const struct found_volume *found, struct record *ret)
{
	struct coppice_error ignored;

	return found->record && !found->problem &&
	       record_parse(found->record, ret, &ignored) == COPPICE_OK;
}

bool volume_is_left_out(const struct found_volume *found)
{
	struct record record = { 0 };
	bool is_left_out = !is_good(found, &record);

	record_done(&record);
	return is_left_out;
}

/* Beside the stamps of pools, of which none can be called so. */
#define LEFT_OUT "left-out" /* how many volumes are */
#define SEEN     "seen"     /* the last change that was looked at */
#define KEY_SIZE 300

static const char *key_of(const struct pool_entry *entry, const char *what,
			  char buffer[static KEY_SIZE])
{
	(void)snprintf(buffer, KEY_SIZE, "/%s/%s", what, entry->name);
	return buffer;
}

int catalog_left_out(struct coppice *coppice, const struct pool_entry *entry, uint64_t *ret,
		     struct coppice_error *err)
{
	char key[KEY_SIZE];

	return catalog_stamp_get(coppice->catalog, key_of(entry, LEFT_OUT, key), ret, err);
}

struct rebuilding {
	struct coppice *coppice;
	struct pool_entry *entry;
	uint64_t n_left_out;
};

static int rebuild_one(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct rebuilding *rebuilding = user;
	struct record record;
	int r;

	if (!is_good(found, &record)) {
		rebuilding->n_left_out++;
		return COPPICE_OK;
	}
	r = put_row(rebuilding->coppice, rebuilding->entry->name, &found->ref, &record,
		    found->record, err);
	record_done(&record);
	return r;
}

int catalog_rebuild(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	struct rebuilding rebuilding = { .coppice = coppice, .entry = entry };
	char key[KEY_SIZE];
	int r;

	r = catalog_pool_clear(coppice->catalog, entry->name, err);
	if (r == COPPICE_OK)
		r = entry->driver->scan(entry->pool, rebuild_one, &rebuilding, err);
	if (r == COPPICE_OK)
		r = catalog_stamp_put(coppice->catalog, key_of(entry, LEFT_OUT, key),
				      rebuilding.n_left_out, err);
	return r == COPPICE_OK ? images_rebuild(coppice, err) : r;
}

/* Of these only; *ret_did false: some are left out, of which only who reads all keeps count. */
static int reread(struct coppice *coppice, struct pool_entry *entry, const struct volume_ref *refs,
		  size_t n, bool *ret_did, struct coppice_error *err)
{
	struct rebuilding rebuilding = { .coppice = coppice, .entry = entry };
	bool has_images = false;
	uint64_t n_left_out;
	int r = catalog_left_out(coppice, entry, &n_left_out, err);

	*ret_did = r == COPPICE_OK && n_left_out == 0;
	if (!*ret_did)
		return r;
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		has_images |= refs[i].kind == VOLUME_IMAGE;
		r = catalog_volume_delete(coppice->catalog, entry->name, (int)refs[i].kind,
					  refs[i].name.text, "", err);
	}
	if (r == COPPICE_OK && n > 0)
		r = entry->driver->scan_of(entry->pool, refs, n, rebuild_one, &rebuilding, err);
	*ret_did = rebuilding.n_left_out == 0;
	return r == COPPICE_OK && has_images && *ret_did ? images_rebuild(coppice, err) : r;
}

/* Read what changed since the last time, where that is known. @is_whole: it is not. */
static int catch_up(struct coppice *coppice, struct pool_entry *entry, bool is_whole,
		    struct coppice_error *err)
{
	_cleanup_(freep) struct volume_ref *refs = NULL;
	uint64_t seen = 0, last;
	char key[KEY_SIZE];
	bool did = false;
	size_t n;
	int r = COPPICE_OK;

	if (!entry->driver->changes)
		return catalog_rebuild(coppice, entry, err);
	if (!is_whole)
		r = catalog_stamp_get(coppice->catalog, key_of(entry, SEEN, key), &seen, err);
	if (r == COPPICE_OK)
		r = entry->driver->changes(entry->pool, seen, &refs, &n, &last, err);
	if (r == COPPICE_OK && refs)
		r = reread(coppice, entry, refs, n, &did, err);
	if (r == COPPICE_OK && !did)
		r = catalog_rebuild(coppice, entry, err);
	return r < 0 ? r : catalog_stamp_put(coppice->catalog, key_of(entry, SEEN, key), last, err);
}

/*
 * The stamp is read before the pool: what changes while it is read makes the next
 * command read it again. What a sweep published may hide behind the stamp of whoever
 * changed the pool at the same time: then it is read anyhow. In a dry run the catalog
 * may be brought up to date too: that changes nothing that anybody sees.
 */
int catalog_refresh(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	uint64_t now, known;
	int r;

	r = entry->driver->stamp(entry->pool, &now, err);
	if (r == COPPICE_OK)
		r = catalog_stamp_get(coppice->catalog, entry->name, &known, err);
	if (r < 0)
		return r;
	entry->is_fresh = true;
	if (now == known && !entry->is_swept)
		return COPPICE_OK;
	r = catalog_begin(coppice->catalog, err);
	if (r < 0)
		return r;
	pool_reading_end(entry);
	/* Others may have done it, or changed the pool properly, while we waited. */
	r = entry->driver->stamp(entry->pool, &now, err);
	if (r == COPPICE_OK)
		r = catalog_stamp_get(coppice->catalog, entry->name, &known, err);
	if (r == COPPICE_OK && (now != known || entry->is_swept)) {
		r = catch_up(coppice, entry, entry->is_swept || known == 0, err);
		if (r == COPPICE_OK)
			r = catalog_stamp_put(coppice->catalog, entry->name, now, err);
		entry->is_swept = r < 0;
	}
	if (r == COPPICE_OK)
		return catalog_commit(coppice->catalog, err);
	catalog_rollback(coppice->catalog);
	return r;
}
