/* SPDX-License-Identifier: Apache-2.0 */
/* All that there is in a thin pool, in one report. */
#include "driver/lvm/lvm.h"

#include <string.h>

#include "base/text.h"
#include "driver/generic/record_config.h"

void lv_list_done(struct lv_list *listing)
{
	for (size_t i = 0; i < listing->n; i++)
		free(listing->lv[i].record);
	free(listing->lv);
	json_decref(listing->report);
	*listing = (struct lv_list){ 0 };
}

void lv_list_free(struct lv_list *listing)
{
	if (listing)
		lv_list_done(listing);
	free(listing);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct lv *)a)->name, ((const struct lv *)b)->name);
}

static void uuid_get(const char *tags, const char *key, struct uuid *ret)
{
	char text[UUID_TEXT_SIZE];

	if (!tag_get(tags, key, text, sizeof(text)) || !uuid_parse(text, ret))
		ret->text[0] = '\0';
}

static struct lv lv_of_row(json_t *row)
{
	struct lv lv = {
		.name = lvm_field(row, "lv_name"),
		.tags = lvm_field(row, "lv_tags"),
		.size_bytes = strtoull(lvm_field(row, "lv_size"), NULL, 10),
		.thin_id = strtoull(lvm_field(row, "thin_id"), NULL, 10),
	};

	uuid_get(lv.tags, TAG_UUID, &lv.uuid);
	uuid_get(lv.tags, TAG_GROUP, &lv.group);
	uuid_get(lv.tags, TAG_DRAFT, &lv.draft);
	uuid_get(lv.tags, TAG_ANNOUNCED, &lv.announced);
	(void)tag_get(lv.tags, TAG_SNAPSHOT, lv.snapshot, sizeof(lv.snapshot));
	lv.record = record_of_tags(lv.tags);
	return lv;
}

/* ---- which snapshot is of which volume ---- */

/* Those of one draft mostly follow each other: whether that is there is looked up once. */
static void find_pending(const struct lvm_pool *lvm, struct lv_list *listing)
{
	const struct lv *last = NULL;

	for (size_t i = 0; i < listing->n; i++) {
		struct lv *lv = &listing->lv[i];

		if (!lv->announced.text[0])
			continue;
		if (last && strcmp(last->announced.text, lv->announced.text) == 0)
			lv->is_pending = last->is_pending;
		else
			lv->is_pending = state_lock_is_there(&lvm->files, lv->announced.text);
		last = lv;
	}
}

/* Has it the name of a volume, and is it none that a draft hides? */
static bool is_seen_volume(const struct lvm_pool *lvm, const struct lv *lv)
{
	struct volume_ref ref;

	return !lv->snapshot[0] && lvm_name_parse(lv->name, &ref) && !lv->is_pending;
}

static int compare_groups(const void *a, const void *b)
{
	return strcmp((*(struct lv *const *)a)->uuid.text, (*(struct lv *const *)b)->uuid.text);
}

static int find_volumes(const struct lvm_pool *lvm, struct lv_list *listing,
			struct coppice_error *err)
{
	_cleanup_(freep) struct lv **volume = calloc(listing->n + 1, sizeof(struct lv *));
	size_t n = 0;

	if (!volume)
		return fail_memory(err);
	for (size_t i = 0; i < listing->n; i++)
		if (listing->lv[i].uuid.text[0] && is_seen_volume(lvm, &listing->lv[i]))
			volume[n++] = &listing->lv[i];
	qsort(volume, n, sizeof(struct lv *), compare_groups);
	for (size_t i = 0; i < listing->n; i++) {
		struct lv key = { .uuid = listing->lv[i].group }, *wanted = &key, **found;

		if (!listing->lv[i].snapshot[0])
			continue;
		found = bsearch(&wanted, volume, n, sizeof(struct lv *), compare_groups);
		listing->lv[i].volume = found ? *found : NULL;
	}
	return COPPICE_OK;
}

/* ---- reading ---- */

static int take_rows(struct session *session, json_t *report, struct lv_list *ret,
		     struct coppice_error *err)
{
	json_t *rows = json_object_get(json_array_get(json_object_get(report, "report"), 0), "lv");
	struct lv_list listing = { .report = json_incref(report) };
	json_t *row;
	size_t i;
	int r;

	listing.lv = calloc(json_array_size(rows) + 1, sizeof(*listing.lv));
	if (!listing.lv) {
		lv_list_done(&listing);
		return fail_memory(err);
	}
	json_array_foreach (rows, i, row) {
		bool is_mending = lvm_is_mending(session->lvm, lvm_field(row, "lv_name"),
						 lvm_field(row, "lv_tags"));

		listing.has_mending |= is_mending;
		if (strcmp(lvm_field(row, "pool_lv"), session->lvm->thin) == 0)
			listing.lv[listing.n++] = lv_of_row(row);
		else if (strcmp(lvm_field(row, "lv_name"), session->lvm->thin) == 0)
			listing.pool_tags = lvm_field(row, "lv_tags");
		else if (!is_mending)
			listing.beside = lvm_field(row, "lv_name");
	}
	qsort(listing.lv, listing.n, sizeof(*listing.lv), compare_names);
	find_pending(session->lvm, &listing);
	r = find_volumes(session->lvm, &listing, err);
	if (r < 0)
		lv_list_done(&listing);
	else
		*ret = listing;
	return r;
}

int lv_list_read(struct session *session, struct lv_list *ret, struct coppice_error *err)
{
	json_t *report;
	int r = session_do(session, &report, err,
			   "lvs -o lv_name,lv_tags,lv_size,thin_id,pool_lv %s", session->lvm->vg);

	if (r < 0)
		return r;
	r = take_rows(session, report, ret, err);
	json_decref(report);
	return r;
}

int lvm_list_read(struct lvm_pool *lvm, struct lv_list *ret, struct coppice_error *err)
{
	_cleanup_(session_end) struct session session = { 0 };
	int r = session_begin(lvm, false, &session, err);

	return r < 0 ? r : lv_list_read(&session, ret, err);
}

int lvm_look(struct lvm_pool *lvm, struct lv_list *own, const struct lv_list **ret,
	     struct coppice_error *err)
{
	*ret = lvm->reading ? lvm->reading : own;
	return lvm->reading ? COPPICE_OK : lvm_list_read(lvm, own, err);
}

/* ---- finding ---- */

struct lv *lv_list_find(const struct lv_list *listing, const char *name)
{
	struct lv key = { .name = name };

	return listing->n ? bsearch(&key, listing->lv, listing->n, sizeof(key), compare_names)
			  : NULL;
}

uint64_t lv_bytes_asked(const struct lv *lv)
{
	_cleanup_(freep) char *own = record_config(lv->record, "size");
	uint64_t asked = 0;
	char text[32];

	if (tag_get(lv->tags, TAG_SIZE, text, sizeof(text)))
		asked = strtoull(text, NULL, 10);
	else if (!own || !size_parse(own, &asked)) /* a snapshot's record has what it was then */
		return lv->size_bytes;
	return asked < lv->size_bytes ? asked : lv->size_bytes;
}

bool lv_is_hidden(const struct lvm_pool *lvm, const struct lv *lv)
{
	if (lv->snapshot[0])
		return !lv->volume || lv->draft.text[0] || lv->is_pending;
	return !is_seen_volume(lvm, lv);
}

bool lv_is_stranger(const struct lv *lv)
{
	struct volume_ref ref;

	return !lv->uuid.text[0] && !lvm_name_parse(lv->name, &ref);
}

bool lv_is_deleted(const struct lv *lv)
{
	return strncmp(lv->name, "deleted_", 8) == 0 && lv->uuid.text[0];
}

bool lv_is_of_deleted(const struct lv_list *listing, const struct lv *lv)
{
	if (!lv->snapshot[0] || lv->volume)
		return false;
	for (size_t i = 0; i < listing->n; i++)
		if (lv_is_deleted(&listing->lv[i]) &&
		    strcmp(listing->lv[i].uuid.text, lv->group.text) == 0)
			return true;
	return false;
}

bool lv_ref(const struct lvm_pool *lvm, const struct lv *lv, struct volume_ref *ret)
{
	if (lv_is_hidden(lvm, lv) ||
	    !lvm_name_parse(lv->snapshot[0] ? lv->volume->name : lv->name, ret))
		return false;
	(void)snprintf(ret->snapshot.text, sizeof(ret->snapshot.text), "%s", lv->snapshot);
	return true;
}

static bool is_same(const struct volume_ref *a, const struct volume_ref *b)
{
	return a->kind == b->kind && strcmp(a->name.text, b->name.text) == 0 &&
	       strcmp(a->snapshot.text, b->snapshot.text) == 0;
}

struct lv *lv_list_find_ref(const struct lvm_pool *lvm, const struct lv_list *listing,
			    const struct volume_ref *ref)
{
	for (size_t i = 0; i < listing->n; i++) {
		struct volume_ref found;

		if ((listing->lv[i].snapshot[0] != '\0') == volume_is_snapshot(ref) &&
		    lv_ref(lvm, &listing->lv[i], &found) && is_same(&found, ref))
			return &listing->lv[i];
	}
	return NULL;
}

int lvm_fail_missing(const struct volume_ref *ref, struct coppice_error *err)
{
	char name[VOLUME_REF_TEXT_MAX];

	return fail(err, COPPICE_NOT_FOUND, "no %s '%s'",
		    volume_is_snapshot(ref) ? "snapshot" : volume_kind_name(ref->kind),
		    volume_ref_format(ref, name));
}

int lvm_find(struct session *session, const struct volume_ref *ref, struct lv_list *listing,
	     struct lv **ret, struct coppice_error *err)
{
	int r = lv_list_read(session, listing, err);

	if (r < 0)
		return r;
	*ret = lv_list_find_ref(session->lvm, listing, ref);
	return *ret ? COPPICE_OK : lvm_fail_missing(ref, err);
}
