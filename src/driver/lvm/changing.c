/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes change: their names, data, records and sizes. */
#include "driver/lvm/lvm.h"

#include <string.h>

#include "base/text.h"
#include "driver/generic/limit.h"

/* ---- records ---- */

/* In one command, so in one step. */
int lvm_tags_record(struct session *session, const struct lv *lv, const char *record,
		    struct coppice_error *err)
{
	_cleanup_(freep) char *change = tags_change(lv->tags, record, err);

	if (!change)
		return err->code;
	return change[0] ? session_do(session, NULL, err, "lvchange -q%s %s/%s", change,
				      session->lvm->vg, lv->name)
			 : COPPICE_OK;
}

/* Somebody took its tags: it is who the record says that it is given. */
static int identify(struct session *session, const struct lv *lv, const char *record,
		    struct coppice_error *err)
{
	json_t *json = json_loads(record, JSON_REJECT_DUPLICATES, NULL);
	const char *text = json_string_value(json_object_get(json, "uuid"));
	struct uuid uuid;
	int r = COPPICE_OK;

	if (text && uuid_parse(text, &uuid))
		r = session_do(session, NULL, err,
			       "lvchange -q --addtag=" TAG_UUID "=%s --addtag=" TAG_GROUP
			       "=%s %s/%s",
			       uuid.text, uuid.text, session->lvm->vg, lv->name);
	json_decref(json);
	return r;
}

int lvm_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
		     struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	_cleanup_(freep) char *tags = tags_of_record(record, " --addtag ", err);
	char name[LV_NAME_MAX];
	struct lv *lv;
	int r;

	if (!tags)
		return err->code;
	r = lvm_name(lvm, ref, name, err);
	if (r < 0)
		return r;
	lvm_explain(pool, "lvchange%s %s/%s", tags, lvm->vg, name);
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lvm_find(&session, ref, &listing, &lv, err);
	if (r == COPPICE_OK && !lv->uuid.text[0])
		r = identify(&session, lv, record, err);
	return r < 0 ? r : lvm_tags_record(&session, lv, record, err);
}

/* ---- sizes ---- */

/* Say what it is to have when it is mounted next; another mark of this goes. */
static int mark_size(struct session *session, const struct lv *lv, uint64_t bytes,
		     struct coppice_error *err)
{
	char text[32], gone[80] = "", added[80] = "";

	if (tag_get(lv->tags, TAG_SIZE, text, sizeof(text)))
		(void)snprintf(gone, sizeof(gone), " --deltag=" TAG_SIZE "=%s", text);
	if (bytes)
		(void)snprintf(added, sizeof(added), " --addtag=" TAG_SIZE "=%llu",
			       (unsigned long long)bytes);
	if (strcmp(gone[0] ? gone + 3 : "", added[0] ? added + 3 : "") == 0)
		return COPPICE_OK;
	return session_do(session, NULL, err, "lvchange -q%s%s %s/%s", gone, added,
			  session->lvm->vg, lv->name);
}

/* It never shrinks: XFS cannot, and what is cut short while ext4 does is lost. */
int lvm_limit_set(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
		  uint64_t limit_bytes, unsigned how, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	char name[LV_NAME_MAX];
	struct lv *lv;
	int r;

	r = lvm_name(lvm, ref, name, err);
	if (r < 0)
		return r;
	if (limit_bytes)
		lvm_explain(pool, "lvextend -r -L %llub %s/%s", whole_sectors(limit_bytes), lvm->vg,
			    name);
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lvm_find(&session, ref, &listing, &lv, err);
	if (r == COPPICE_OK && limit_bytes)
		r = limit_check(ref->name.text, limit_bytes,
				volume_is_block(ref) ? "its disk has" : "its file system has",
				lv_bytes_asked(lv), err);
	return r < 0 ? r : mark_size(&session, lv, limit_bytes, err);
}

/* ---- names ---- */

int lvm_names_mend(struct session *session, const struct lv_list *listing,
		   struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	int first = COPPICE_OK;

	for (size_t i = 0; i < listing->n; i++) {
		const struct lv *lv = &listing->lv[i];
		struct coppice_error why;
		char name[LV_NAME_MAX];
		struct volume_ref ref;
		int r;

		if (!lv->snapshot[0] || !lv_ref(lvm, lv, &ref))
			continue;
		/* What is too long for its name keeps the one that it has. */
		if (lvm_name(lvm, &ref, name, &why) < 0 || strcmp(name, lv->name) == 0)
			continue;
		r = session_do(session, NULL, &why, "lvrename -q %s/%s %s/%s", lvm->vg, lv->name,
			       lvm->vg, name);
		if (r < 0 && first == COPPICE_OK) {
			*err = why;
			first = r;
		}
	}
	return first;
}

static int rename_volume(struct session *session, const struct lv_list *listing,
			 const struct lv *lv, const struct volume_ref *from,
			 const struct volume_ref *to, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	char name[LV_NAME_MAX], shown[VOLUME_REF_TEXT_MAX];
	int r = lvm_name(lvm, to, name, err);

	if (r == COPPICE_OK)
		r = lvm_umount_ref(session, listing, from, err);
	if (r == COPPICE_OK)
		r = session_do(session, NULL, err, "lvrename -q %s/%s %s/%s", lvm->vg, lv->name,
			       lvm->vg, name);
	return r == COPPICE_EXISTS ? fail(err, COPPICE_EXISTS, "'%s' exists already",
					  volume_ref_format(to, shown))
				   : r;
}

/* What it is called is in a tag of it; then the name follows. */
static int rename_snapshot(struct session *session, const struct lv_list *listing,
			   const struct lv *lv, const struct volume_ref *from,
			   const struct volume_ref *to, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	char name[LV_NAME_MAX], shown[VOLUME_REF_TEXT_MAX];
	int r = lvm_name(lvm, to, name, err);

	if (r == COPPICE_OK && lv_list_find_ref(lvm, listing, to))
		r = fail(err, COPPICE_EXISTS, "'%s' exists already", volume_ref_format(to, shown));
	if (r == COPPICE_OK)
		r = lvm_umount_ref(session, listing, from, err);
	return r < 0 ? r
		     : session_do(session, NULL, err,
				  "lvchange -q --deltag=" TAG_SNAPSHOT "=%s --addtag=" TAG_SNAPSHOT
				  "=%s %s/%s",
				  lv->snapshot, to->snapshot.text, lvm->vg, lv->name);
}

int lvm_rename(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
	       struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	char old[LV_NAME_MAX], new[LV_NAME_MAX];
	struct lv *lv;
	int r;

	r = lvm_name(lvm, from, old, err);
	if (r == COPPICE_OK)
		r = lvm_name(lvm, to, new, err);
	if (r < 0)
		return r;
	lvm_explain(pool, "lvrename %s/%s %s/%s", lvm->vg, old, lvm->vg, new);
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lvm_find(&session, from, &listing, &lv, err);
	if (r < 0)
		return r;
	state_owe(&lvm->files); /* names, if we are killed before the last has its own */
	r = volume_is_snapshot(from) ? rename_snapshot(&session, &listing, lv, from, to, err)
				     : rename_volume(&session, &listing, lv, from, to, err);
	lv_list_done(&listing);
	if (r == COPPICE_OK)
		r = lv_list_read(&session, &listing, err);
	if (r == COPPICE_OK)
		r = lvm_names_mend(&session, &listing, err);
	if (r == COPPICE_OK)
		state_owe_nothing(&lvm->files);
	else
		state_leave_owed(&lvm->files);
	return r;
}

/* ---- swapping data ----
 *
 * LVM exchanges nothing in one step. So the one that was live goes aside, into the draft,
 * carrying the name that it had in a tag; then the new one gets the name:
 *
 *	1. identity, record, size and age of the live one are put on the new one
 *	2. live has the tags coppice.swap=NAME and that of the draft
 *	3. live → draft_ID
 *	4. new  → NAME
 *	5. the tag coppice.swap goes, and live gets the name that the new one had in the draft
 *
 * Killed between 3 and 4, a sweep gives the live one its name back; after 4 it does 5.
 */

/* Never a tag that is there already: LVM would take it away after it has added it. */
static void replace_tag(struct text *options, const char *key, const struct uuid *old,
			const struct uuid *new)
{
	if (strcmp(old->text, new->text) == 0)
		return;
	if (old->text[0])
		text_add(options, " --deltag=%s=%s", key, old->text);
	if (new->text[0])
		text_add(options, " --addtag=%s=%s", key, new->text);
}

static int mark(struct session *session, const struct lv *live, const struct lv *new,
		const struct draft *draft, const char *aside, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	_cleanup_(text_done) struct text text_new = TEXT_INIT;
	_cleanup_(text_done) struct text text_live = TEXT_INIT;
	_cleanup_(freep) char *for_new = NULL, *for_live = NULL;
	char born[BORN_TEXT_MAX];
	int r = COPPICE_OK;

	lvm_born(lvm, live, born);
	text_add(&text_new, " --addtag=" TAG_BORN "=%s", born);
	replace_tag(&text_new, TAG_UUID, &new->uuid, &live->uuid);
	replace_tag(&text_new, TAG_GROUP, &new->group, &live->group);
	text_add(&text_live, " --addtag=" TAG_SWAP "=%s", live->name);
	replace_tag(&text_live, TAG_DRAFT, &live->draft, &draft->id);
	for_new = text_take(&text_new);
	for_live = text_take(&text_live);
	if (!for_new || !for_live)
		return fail_memory(err);
	r = session_do(session, NULL, err, "lvchange -q%s %s/%s", for_new, lvm->vg, new->name);
	if (r == COPPICE_OK && live->record)
		r = lvm_tags_record(session, new, live->record, err);
	if (r == COPPICE_OK) {
		char text[32];

		r = mark_size(session, new,
			      tag_get(live->tags, TAG_SIZE, text, sizeof(text))
				      ? strtoull(text, NULL, 10)
				      : 0,
			      err);
	}
	if (r == COPPICE_OK)
		r = session_do(session, NULL, err, "lvchange -q%s %s/%s", for_live, lvm->vg,
			       live->name);
	return r < 0 ? r
		     : session_do(session, NULL, err, "lvrename -q %s/%s %s/%s", lvm->vg,
				  live->name, lvm->vg, aside);
}

/* Snapshots that came with the replacement are the volume's now, one after another. */
static int take_nested(struct session *session, const struct lv_list *listing,
		       const struct lv *live, const struct draft *draft, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		const struct lv *lv = &listing->lv[i];

		if (lv->snapshot[0] && lv->volume == live &&
		    strcmp(lv->draft.text, draft->id.text) == 0)
			r = session_do(session, NULL, err,
				       "lvchange -q --deltag=" TAG_DRAFT "=%s %s/%s",
				       draft->id.text, lvm->vg, lv->name);
	}
	return r;
}

static int exchange(struct session *session, const struct lv *live, const struct lv *new,
		    const struct draft *draft, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	struct coppice_error ignored;
	char aside[LV_NAME_MAX];
	struct uuid id;
	int r = uuid_new(&id, err);

	if (r < 0)
		return r;
	(void)snprintf(aside, sizeof(aside), "draft_%s", id.text);
	r = mark(session, live, new, draft, aside, err);
	if (r < 0)
		return r;
	r = session_do(session, NULL, err, "lvrename -q %s/%s %s/%s", lvm->vg, new->name, lvm->vg,
		       live->name);
	if (r < 0) {
		(void)session_do(session, NULL, &ignored, "lvrename -q %s/%s %s/%s", lvm->vg, aside,
				 lvm->vg, live->name);
		return r;
	}
	r = session_do(session, NULL, err, "lvchange -q --deltag=" TAG_SWAP "=%s %s/%s", live->name,
		       lvm->vg, aside);
	if (r == COPPICE_OK && new->draft.text[0])
		r = session_do(session, NULL, err, "lvchange -q --deltag=" TAG_DRAFT "=%s %s/%s",
			       new->draft.text, lvm->vg, live->name);
	return r < 0 ? r
		     : session_do(session, NULL, err, "lvrename -q %s/%s %s/%s", lvm->vg, aside,
				  lvm->vg, new->name);
}

int lvm_swap(struct draft *draft, const struct new_volume *replacement,
	     const struct volume_ref *ref, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	char name[LV_NAME_MAX], item[LV_NAME_MAX];
	struct lv *live, *new;
	int r;

	r = lvm_name(lvm, ref, name, err);
	if (r < 0)
		return r;
	lvm_explain(draft->pool, "lvrename %s/%s %s/draft_$draft", lvm->vg, name, lvm->vg);
	lvm_explain(draft->pool, "lvrename %s/draft_%s %s/%s", lvm->vg,
		    replacement->item ? replacement->item : replacement->ref.name.text, lvm->vg,
		    name);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	lvm_item_name(replacement, item);
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lvm_find(&session, ref, &listing, &live, err);
	if (r < 0)
		return r;
	new = lv_list_find(&listing, item);
	if (!new)
		return fail(err, COPPICE_FAILED, "'%s' is not in the draft",
			    replacement->ref.name.text);
	r = lvm_umount(&session, live->name, err);
	if (r == COPPICE_OK)
		r = lvm_umount(&session, new->name, err);
	if (r == COPPICE_OK)
		r = take_nested(&session, &listing, live, draft, err);
	if (r == COPPICE_OK)
		r = exchange(&session, live, new, draft, err);
	if (r < 0)
		return r;
	lv_list_done(&listing);
	r = lv_list_read(&session, &listing, err);
	return r < 0 ? r : lvm_names_mend(&session, &listing, err);
}

int lvm_swap_recover(struct session *session, const struct lv_list *listing, const struct lv *old,
		     const char *name, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	const struct lv *found = lv_list_find(listing, name);
	int r;

	if (found && strcmp(found->uuid.text, old->uuid.text) != 0)
		return fail(err, COPPICE_FAILED,
			    "'%s' was to be restored and has been made anew meanwhile; what it was "
			    "lies in '%s/%s'",
			    name, lvm->vg, old->name);
	if (!found) {
		r = session_do(session, NULL, err, "lvrename -q %s/%s %s/%s", lvm->vg, old->name,
			       lvm->vg, name);
		return r < 0 ? r
			     : session_do(session, NULL, err,
					  "lvchange -q --deltag=" TAG_SWAP "=%s --deltag=" TAG_DRAFT
					  "=%s %s/%s",
					  name, old->draft.text, lvm->vg, name);
	}
	return session_do(session, NULL, err, "lvchange -q --deltag=" TAG_SWAP "=%s %s/%s", name,
			  lvm->vg, old->name);
}
