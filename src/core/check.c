/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing pools, records, catalog and image store; mending what can be. */
#include "core/core.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "core/image_store.h"
#include "core/instances.h"

void coppice_finding_list_free(struct coppice_finding_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		free(list->finding[i].pool);
		free(list->finding[i].what);
		free(list->finding[i].subject);
		free(list->finding[i].message);
	}
	free(list->finding);
	*list = (struct coppice_finding_list){ 0 };
}

/* A volume that was met, to find what is there twice. */
struct met {
	char *name; /* "c1", "c1/before" */
	enum volume_kind kind;
	struct uuid uuid;
	const char *pool;
};

struct checking {
	struct coppice *coppice;
	struct pool_entry *entry;
	bool is_repair;
	bool is_catalog_wrong;
	struct met *met;
	size_t n_met;
	struct coppice_finding_list list;
};

static void checking_done(struct checking *checking)
{
	for (size_t i = 0; i < checking->n_met; i++)
		free(checking->met[i].name);
	free(checking->met);
}

_printf_(5, 6) static int find(struct checking *checking, const char *what, const char *subject,
			       struct coppice_error *err, const char *fmt, ...)
{
	struct coppice_finding *more =
		reallocarray(checking->list.finding, checking->list.n + 1, sizeof(*more));
	struct coppice_finding *finding;
	va_list args;

	if (!more)
		return fail_memory(err);
	checking->list.finding = more;
	finding = &more[checking->list.n++];
	*finding = (struct coppice_finding){
		.pool = strdup(checking->entry ? checking->entry->name : ""),
		.what = strdup(what),
		.subject = strdup(subject),
	};
	va_start(args, fmt);
	if (vasprintf(&finding->message, fmt, args) < 0)
		finding->message = NULL;
	va_end(args);
	if (!finding->pool || !finding->what || !finding->subject || !finding->message)
		return fail_memory(err);
	return COPPICE_OK;
}

/* Subvolumes within an instance: no damage, and people should know. */
static int check_nested(struct checking *checking, const struct volume_ref *ref,
			const char *subject, struct coppice_error *err)
{
	char **path = NULL;
	size_t n = 0;
	int r = nested_list(checking->entry, ref, &path, &n, err);

	for (size_t i = 0; i < n; i++) {
		if (r == COPPICE_OK)
			r = find(checking, "subvolume-nested", subject, err,
				 "'%s' is a subvolume within it, which snapshots and copies cannot "
				 "have",
				 path[i]);
		if (r == COPPICE_OK)
			checking->list.finding[checking->list.n - 1].is_remark = true;
		free(path[i]);
	}
	free(path);
	return r;
}

static void mark_repaired(struct checking *checking)
{
	checking->list.finding[checking->list.n - 1].is_repaired = true;
}

/* ---- records ---- */

/*
 * A volume without a readable record gets a new one: it is somebody's data, and
 * cannot be used or deleted by its name without.
 */
static int give_record(struct checking *checking, const struct volume_ref *ref,
		       struct coppice_error *err)
{
	_cleanup_(record_done) struct record record = { .kind = ref->kind, .created_ns = now_ns() };
	_cleanup_(freep) char *text = NULL;
	struct pool_entry *entry = checking->entry;
	int r = uuid_new(&record.uuid, err);

	if (r == COPPICE_OK)
		r = record_format(&record, &text, err);
	if (r == COPPICE_OK)
		r = entry->driver->touch(entry->pool, err);
	if (r == COPPICE_OK)
		r = entry->driver->record_write(entry->pool, ref, text, err);
	if (r == COPPICE_OK)
		r = entry->driver->commit(entry->pool, err);
	if (r == COPPICE_OK) {
		checking->is_catalog_wrong = true;
		mark_repaired(checking);
	}
	return r;
}

static int meet(struct checking *checking, const struct volume_ref *ref, const struct uuid *uuid,
		struct coppice_error *err)
{
	char text[VOLUME_REF_TEXT_MAX];
	struct met *more;

	if ((checking->n_met & (checking->n_met - 1)) == 0) {
		size_t capacity = checking->n_met ? 2 * checking->n_met : 1;

		more = reallocarray(checking->met, capacity, sizeof(*more));
		if (!more)
			return fail_memory(err);
		checking->met = more;
	}
	checking->met[checking->n_met] = (struct met){
		.name = strdup(volume_ref_format(ref, text)),
		.kind = ref->kind,
		.uuid = *uuid,
		.pool = checking->entry->name,
	};
	if (!checking->met[checking->n_met].name)
		return fail_memory(err);
	checking->n_met++;
	return COPPICE_OK;
}

/* ---- the pool against the catalog ---- */

struct row {
	const char *record;
	bool is_found, is_same;
};

static int compare_row(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	const struct found_volume *found = ((void **)user)[0];
	struct row *result = ((void **)user)[1];

	if (strcmp(row->snapshot, found->ref.snapshot.text) == 0) {
		result->is_found = true;
		result->is_same = strcmp(row->record, found->record) == 0;
	}
	return COPPICE_OK;
}

static int compare_with_catalog(struct checking *checking, const struct found_volume *found,
				const char *subject, struct coppice_error *err)
{
	struct row row = { 0 };
	void *user[2] = { (void *)(uintptr_t)found, &row };
	struct catalog_query query = { .pool = checking->entry->name,
				       .kinds = VOLUME_KIND_BIT(found->ref.kind),
				       .name = found->ref.name.text };
	int r = catalog_volumes(checking->coppice->catalog, &query, compare_row, user, err);

	if (r < 0 || row.is_same)
		return r;
	checking->is_catalog_wrong = true;
	return find(checking, row.is_found ? "catalog-differs" : "catalog-missing", subject, err,
		    row.is_found ? "the catalog holds another record of it than the pool; "
				   "--repair reads the pool anew"
				 : "it is in the pool and not in the catalog; --repair reads the "
				   "pool anew");
}

static int check_volume(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct checking *checking = user;
	_cleanup_(record_done) struct record record = { 0 };
	struct coppice_error why;
	char subject[VOLUME_REF_TEXT_MAX];
	int r;

	checking->list.n_volumes++;
	(void)volume_ref_format(&found->ref, subject);
	if (found->problem)
		return find(checking, found->what, subject, err, "%s", found->problem);
	if (!found->record) {
		r = find(checking, "record-missing", subject, err,
			 "it has no record; --repair gives it a new one");
		return r < 0 || !checking->is_repair ? r : give_record(checking, &found->ref, err);
	}
	r = record_parse(found->record, &record, &why);
	/* Nothing is wrong with that, and it is nothing for us to mend. */
	if (r == COPPICE_UNSUPPORTED)
		return find(checking, "record-newer", subject, err, "%s: use that one",
			    why.message);
	if (r < 0 && r != COPPICE_INVALID) {
		*err = why;
		return r;
	}
	if (r < 0) {
		r = find(checking, "record-damaged", subject, err,
			 "%s; --repair gives it a new one", why.message);
		return r < 0 || !checking->is_repair ? r : give_record(checking, &found->ref, err);
	}
	if (record.kind != found->ref.kind) {
		r = find(checking, "record-damaged", subject, err,
			 "its record is that of a volume of kind %s",
			 volume_kind_name(record.kind));
		return r;
	}
	r = meet(checking, &found->ref, &record.uuid, err);
	if (r == COPPICE_OK)
		r = check_nested(checking, &found->ref, subject, err);
	return r < 0 ? r : compare_with_catalog(checking, found, subject, err);
}

static int check_engine(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct checking *checking = user;
	char subject[VOLUME_REF_TEXT_MAX];
	int r;

	r = find(checking, found->what, volume_ref_format(&found->ref, subject), err, "%s",
		 found->problem);
	if (r == COPPICE_OK && found->is_repaired)
		mark_repaired(checking);
	if (r == COPPICE_OK)
		checking->list.finding[checking->list.n - 1].is_remark = found->is_remark;
	return r;
}

/* Rows of volumes that are not in the pool. */
static int check_row(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct checking *checking = user;
	struct pool_entry *entry = checking->entry;
	struct volume_ref ref = { .kind = (enum volume_kind)row->kind };
	_cleanup_(freep) char *record = NULL;
	struct coppice_error why;
	char subject[VOLUME_REF_TEXT_MAX];

	(void)snprintf(ref.name.text, sizeof(ref.name.text), "%s", row->name);
	(void)snprintf(ref.snapshot.text, sizeof(ref.snapshot.text), "%s", row->snapshot);
	if (entry->driver->record_read(entry->pool, &ref, &record, &why) != COPPICE_NOT_FOUND)
		return COPPICE_OK; /* there; what is wrong with it was told */
	checking->is_catalog_wrong = true;
	return find(checking, "catalog-stale", volume_ref_format(&ref, subject), err,
		    "it is in the catalog and not in the pool; --repair reads the pool anew");
}

static int repair_catalog(struct checking *checking, size_t first, struct coppice_error *err)
{
	struct coppice *coppice = checking->coppice;
	struct pool_entry *entry = checking->entry;
	uint64_t stamp;
	int r = catalog_begin(coppice->catalog, err);

	if (r == COPPICE_OK)
		r = entry->driver->stamp(entry->pool, &stamp, err);
	if (r == COPPICE_OK)
		r = catalog_rebuild(coppice, entry, err);
	if (r == COPPICE_OK)
		r = catalog_stamp_put(coppice->catalog, entry->name, stamp, err);
	if (r == COPPICE_OK)
		r = catalog_commit(coppice->catalog, err);
	catalog_rollback(coppice->catalog);
	for (size_t i = first; i < checking->list.n && r == COPPICE_OK; i++)
		if (strncmp(checking->list.finding[i].what, "catalog-", 8) == 0)
			checking->list.finding[i].is_repaired = true;
	return r;
}

static int check_room(struct checking *checking, struct coppice_error *err)
{
	_cleanup_(freep) char *warning = NULL;
	int r = room_filling(checking->entry, &warning, err);

	if (r == COPPICE_OK && warning)
		r = find(checking, "pool-filling", "", err, "pool '%s' %s", checking->entry->name,
			 warning);
	if (r == COPPICE_OK && warning)
		checking->list.finding[checking->list.n - 1].is_remark = true;
	return r;
}

/* Under the exclusive lock of the pool: nobody changes it meanwhile. */
static int check_pool(struct checking *checking, struct coppice_error *err)
{
	struct pool_entry *entry = checking->entry;
	struct catalog_query query = { .pool = entry->name };
	size_t first = checking->list.n;
	int r = COPPICE_OK;

	checking->is_catalog_wrong = false;
	/* The engine first: what it mends is whole then. */
	if (entry->driver->check)
		r = entry->driver->check(entry->pool, checking->is_repair, check_engine, checking,
					 err);
	if (r == COPPICE_OK)
		r = check_room(checking, err);
	if (r == COPPICE_OK && !checking->is_repair && entry->driver->reading_begin)
		r = entry->driver->reading_begin(entry->pool, NULL, 0, err);
	if (r == COPPICE_OK)
		r = entry->driver->scan(entry->pool, check_volume, checking, err);
	if (r == COPPICE_OK)
		r = catalog_volumes(checking->coppice->catalog, &query, check_row, checking, err);
	if (entry->driver->reading_end)
		entry->driver->reading_end(entry->pool);
	if (r == COPPICE_OK && checking->is_repair && !checking->coppice->options.is_dry_run)
		r = entry->driver->reap(entry->pool, err);
	if (r == COPPICE_OK && checking->is_repair && checking->is_catalog_wrong)
		r = repair_catalog(checking, first, err);
	return r;
}

/* ---- what is there twice ---- */

static int compare_uuids(const void *a, const void *b)
{
	const struct met *x = a, *y = b;

	return strcmp(x->uuid.text, y->uuid.text);
}

/* Containers and virtual machines have one together. */
static enum volume_kind name_space(enum volume_kind kind)
{
	return VOLUME_KIND_BIT(kind) & VOLUME_INSTANCES ? VOLUME_CONTAINER : kind;
}

static int compare_names(const void *a, const void *b)
{
	const struct met *x = a, *y = b;
	int order = (int)name_space(x->kind) - (int)name_space(y->kind);

	return order ? order : strcmp(x->name, y->name);
}

static int check_twice(struct checking *checking, struct coppice_error *err)
{
	int r = COPPICE_OK;

	checking->entry = NULL;
	if (checking->n_met)
		qsort(checking->met, checking->n_met, sizeof(*checking->met), compare_uuids);
	for (size_t i = 1; i < checking->n_met && r == COPPICE_OK; i++) {
		const struct met *a = &checking->met[i - 1], *b = &checking->met[i];

		if (strcmp(a->uuid.text, b->uuid.text) == 0)
			r = find(checking, "uuid-twice", b->name, err,
				 "it has the uuid of '%s' in pool '%s'; was it copied behind "
				 "Coppice's back?",
				 a->name, a->pool);
	}
	if (checking->n_met)
		qsort(checking->met, checking->n_met, sizeof(*checking->met), compare_names);
	for (size_t i = 1; i < checking->n_met && r == COPPICE_OK; i++) {
		const struct met *a = &checking->met[i - 1], *b = &checking->met[i];

		if (a->kind != VOLUME_IMAGE && compare_names(a, b) == 0)
			r = find(checking, "name-twice", b->name, err,
				 "there is one in pool '%s' and one in pool '%s'; rename or delete "
				 "one with -s",
				 a->pool, b->pool);
	}
	return r;
}

/* ---- the image store ---- */

static int check_image(void *user, const struct catalog_image *row, struct coppice_error *err)
{
	struct checking *checking = user;
	struct image_record record = { 0 };
	struct coppice_error why;
	uint64_t size = 0;
	char path[128];
	int r;

	/* Only in pools: that is how a pool that was taken over comes; no damage. */
	(void)snprintf(path, sizeof(path), "images/%s.json", row->fingerprint);
	if (!row->has_bytes && faccessat(checking->coppice->root_fd, path, F_OK, 0) < 0)
		return COPPICE_OK;
	r = image_record_parse(row->record, &record, err);
	if (r < 0)
		return r;
	if (store_size(checking->coppice, row->fingerprint, &size, &why) < 0)
		r = find(checking, "bytes-missing", row->fingerprint, err, "%s", why.message);
	else if (record.size_bytes && size != record.size_bytes)
		r = find(checking, "bytes-damaged", row->fingerprint, err,
			 "the imported file had %llu bytes, and %llu are kept; import it again",
			 (unsigned long long)record.size_bytes, (unsigned long long)size);
	image_record_done(&record);
	return r;
}

/* ---- all of it ---- */

static int check_locked(struct checking *checking, struct pool_entry *only,
			struct coppice_error *err)
{
	struct coppice *coppice = checking->coppice;
	int r = COPPICE_OK;

	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++) {
		struct coppice_error why;

		checking->entry = coppice->pools[i];
		if (only && coppice->pools[i] != only)
			continue;
		if (pools_open(coppice, coppice->pools[i], &why) < 0)
			r = find(checking, "pool-unavailable", coppice->pools[i]->name, err, "%s",
				 why.message);
		else
			r = check_pool(checking, err);
	}
	if (r == COPPICE_OK)
		r = check_twice(checking, err);
	if (r == COPPICE_OK && !only)
		r = catalog_images(coppice->catalog, "", check_image, checking, err);
	return r;
}

int coppice_check(struct coppice *coppice, const char *pool, bool is_repair,
		  struct coppice_finding_list *ret, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	struct checking checking = { .coppice = coppice, .is_repair = is_repair };
	struct pool_entry *only = NULL;
	int r = COPPICE_OK;

	if (pool)
		r = pools_find(coppice, pool, &only, err);
	else
		pools_open_all(coppice); /* finishes moves before it is looked for things twice */
	for (size_t i = 0; i < coppice->n_pools; i++)
		if (!only || coppice->pools[i] == only)
			locks_add(&locks, LOCK_POOLS, coppice->pools[i]->name, true);
	if (r == COPPICE_OK)
		r = locks_take(coppice, &locks, err);
	if (r == COPPICE_OK)
		r = images_refresh(coppice, err);
	if (r == COPPICE_OK)
		r = check_locked(&checking, only, err);
	checking_done(&checking);
	if (r < 0) {
		coppice_finding_list_free(&checking.list);
		return r;
	}
	*ret = checking.list;
	return COPPICE_OK;
}
