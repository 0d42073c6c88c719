/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes change: their names, data, records and sizes. */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/text.h"
#include "driver/generic/limit.h"
#include "driver/generic/record_config.h"

/* ---- the stamp ---- */

/*
 * After a step that ended with @result, and made of @from, which @before tells of, @to: add the
 * difference to the stamp. Killed before that, there is a debt, and whoever pays it makes the stamp
 * another one.
 */
static int change_part(struct ceph_pool *ceph, const struct rbd_list *before,
		       const struct volume_ref *from, const struct volume_ref *to, int result,
		       struct coppice_error *err)
{
	const struct volume_ref refs[] = { *from, *to };
	_cleanup_(rbd_listing_done) struct rbd_list after = { 0 };
	int r = result;

	if (r == COPPICE_OK)
		r = rbd_listing_read_of(ceph, to, 1, &after, err);
	if (r == COPPICE_OK)
		r = ceph_stamp_add(ceph,
				   (rbd_part(&after, to) - rbd_part(before, from)) % STAMP_MODULUS,
				   refs, 2, err);
	if (r == COPPICE_OK)
		ceph_owe_nothing(ceph);
	else
		ceph_leave_owed(ceph);
	return r;
}

/* ---- records ---- */

/* Somebody took its metadata: it is who the record says that it is given. */
static void identify(const char *record, struct uuid *ret)
{
	json_t *json = json_loads(record, JSON_REJECT_DUPLICATES, NULL);
	const char *text = json_string_value(json_object_get(json, "uuid"));

	if (!text || !uuid_parse(text, ret))
		ret->text[0] = '\0';
	json_decref(json);
}

int ceph_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
		      struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	_cleanup_(freep) char *word = text_shell_quote(record);
	char key[RBD_NAME_MAX + 32], name[RBD_NAME_MAX], rbd_command[PATH_MAX];
	struct meta metas[5] = { { key, record } };
	struct rbd_snap *snap;
	struct uuid uuid;
	struct rbd *rbd;
	int r;

	if (!word)
		return fail_memory(err);
	(void)snprintf(key, sizeof(key), volume_is_snapshot(ref) ? META_SNAPSHOT "%s" : META_RECORD,
		       ref->snapshot.text);
	ceph_name(ref, name);
	ceph_explain_command(ceph, rbd_command);
	ceph_explain(pool, "%s image-meta set %s %s %s", rbd_command, name, key, word);
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = ceph_find(ceph, ref, &listing, &rbd, &snap, err);
	if (r < 0)
		return r;
	r = ceph_owe(ceph, err);
	if (r < 0)
		return r;
	if (!rbd->uuid.text[0] && !volume_is_snapshot(ref)) {
		identify(record, &uuid);
		metas[1] = (struct meta){ META_ID, rbd->id };
		metas[2] = (struct meta){ META_UUID, uuid.text };
		metas[3] = (struct meta){ META_GROUP, uuid.text };
	}
	return change_part(ceph, &listing, ref, ref, header_change(ceph, rbd->id, metas, err), err);
}

/* ---- sizes ---- */

uint64_t rbd_bytes_asked(const struct rbd *rbd, const struct rbd_snap *snap)
{
	const char *record = snap ? snap->record : rbd->record;
	_cleanup_(freep) char *own = record ? record_config(record, "size") : NULL;
	const char *text = snap ? NULL : rbd_meta(rbd, META_SIZE);
	uint64_t has = snap ? snap->size_bytes : rbd->size_bytes, asked = 0;

	if (text)
		asked = strtoull(text, NULL, 10);
	else if (!own || !size_parse(own, &asked))
		return has;
	return asked < has ? asked : has;
}

/* It never shrinks: XFS cannot, and what is cut short while ext4 does is lost. */
int ceph_limit_set(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
		   uint64_t limit_bytes, unsigned how, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	char name[RBD_NAME_MAX], command[PATH_MAX], size[32];
	struct rbd_snap *snap;
	struct rbd *rbd;
	int r;

	ceph_name(ref, name);
	ceph_explain_command(ceph, command);
	if (limit_bytes)
		ceph_explain(pool, "%s resize --size %lluB %s", command,
			     (unsigned long long)limit_bytes, name);
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = ceph_find(ceph, ref, &listing, &rbd, &snap, err);
	if (r == COPPICE_OK && limit_bytes)
		r = limit_check(ref->name.text, limit_bytes,
				volume_is_block(ref) ? "its disk has" : "its file system has",
				rbd_bytes_asked(rbd, NULL), err);
	if (r < 0)
		return r;
	(void)snprintf(size, sizeof(size), "%llu", (unsigned long long)limit_bytes);
	return header_change(
		ceph, rbd->id,
		(const struct meta[]){ { META_SIZE, limit_bytes ? size : NULL }, { NULL, NULL } },
		err);
}

/* ---- names ---- */

/* Its record is under both names until it has the new one. */
static int rename_snapshot(struct ceph_pool *ceph, const struct rbd_list *listing,
			   const struct rbd *rbd, const struct rbd_snap *snap,
			   const struct volume_ref *to, struct coppice_error *err)
{
	char old[RBD_NAME_MAX + 32], new[RBD_NAME_MAX + 32], pending[RBD_NAME_MAX + 32];
	char removed[RBD_NAME_MAX + 32], name[RBD_NAME_MAX];
	rbd_image_t image;
	int r;

	if (rbd_find_ref(listing, to, NULL))
		return ceph_fail_exists(to, err);
	ceph_snapshot_name(to, name);
	(void)snprintf(old, sizeof(old), META_SNAPSHOT "%s", snap->snapshot);
	(void)snprintf(new, sizeof(new), META_SNAPSHOT "%s", to->snapshot.text);
	(void)snprintf(pending, sizeof(pending), META_PENDING "%s", to->snapshot.text);
	(void)snprintf(removed, sizeof(removed), META_REMOVED "%s", to->snapshot.text);
	r = header_change(ceph, rbd->id,
			  (const struct meta[]){ { new, snap->record },
						 { pending, NULL },
						 { removed, NULL },
						 { NULL, NULL } },
			  err);
	if (r < 0)
		return r;
	r = rbd_open(ceph->making_io, rbd->name, &image, NULL);
	if (r == 0) {
		r = rbd_snap_rename(image, snap->name, name);
		(void)rbd_close(image);
	}
	if (r == -EEXIST)
		return ceph_fail_exists(to, err);
	if (r < 0)
		return fail_ceph(ceph, r, err, "cannot rename the snapshot '%s/%s@%s'",
				 ceph->osd_pool, rbd->name, snap->name);
	return header_change(ceph, rbd->id, (const struct meta[]){ { old, NULL }, { NULL, NULL } },
			     err);
}

int ceph_rename(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
		struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	char old[RBD_NAME_MAX], new[RBD_NAME_MAX], command[PATH_MAX];
	char old_snap[RBD_NAME_MAX], new_snap[RBD_NAME_MAX];
	struct claim claim = { .fd = -1 };
	struct rbd_snap *snap;
	struct rbd *rbd;
	int r;

	ceph_name(from, old);
	ceph_name(to, new);
	ceph_snapshot_name(from, old_snap);
	ceph_snapshot_name(to, new_snap);
	ceph_explain_command(ceph, command);
	if (volume_is_snapshot(from))
		ceph_explain(pool, "%s snap rename %s@%s %s@%s", command, old, old_snap, new,
			     new_snap);
	else
		ceph_explain(pool, "%s rename %s %s", command, old, new);
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = ceph_refuse_full(ceph, err);
	if (r < 0)
		return r;
	r = ceph_find(ceph, from, &listing, &rbd, &snap, err);
	if (r == COPPICE_OK)
		r = ceph_umount_ref(ceph, &listing, from, err);
	if (r < 0)
		return r;
	r = ceph_owe(ceph, err);
	if (r == COPPICE_OK && !snap)
		r = ceph_claim(ceph, new, rbd->id, &claim, err);
	if (r == COPPICE_OK)
		r = snap ? rename_snapshot(ceph, &listing, rbd, snap, to, err)
			 : ceph_rename_image_for(ceph, claim.id.text, rbd->name, new, err);
	ceph_claim_end(ceph, &claim);
	return r == COPPICE_EXISTS ? ceph_fail_exists(to, err)
				   : change_part(ceph, &listing, from, to, r, err);
}

/* ---- swapping data ----
 *
 * RBD exchanges nothing in one step, and an image's snapshots go with it. So the one that was
 * live goes aside, into the draft, carrying the name that it had in its metadata:
 *
 *	1. identity, record and size of the live one are put on the new one
 *	2. live has coppice.swap=NAME
 *	3. live → draft_ID.…
 *	4. new  → NAME
 *	5. live has snapshots of users: → kept_INSTANCE.…, and then the mark goes, with its
 *	   identity; else the mark goes, and live → what new was called
 *
 * Killed after 3, a sweep gives the live one its name back; after 4 it does 5.
 */

static bool has_user_snapshots(const struct rbd *rbd)
{
	for (size_t i = 0; i < rbd->n_snaps; i++)
		if (rbd->snap[i].snapshot && rbd->snap[i].record && !rbd->snap[i].is_removed)
			return true;
	return false;
}

static int mark(struct ceph_pool *ceph, const struct rbd *live, const struct rbd *new,
		struct coppice_error *err)
{
	const char *size = rbd_meta(live, META_SIZE);
	int r = header_change(ceph, new->id,
			      (const struct meta[]){ { META_UUID, live->uuid.text },
						     { META_GROUP, live->group.text },
						     { META_RECORD, live->record },
						     { META_SIZE, size },
						     { META_DRAFT, NULL },
						     { NULL, NULL } },
			      err);

	return r < 0 ? r
		     : header_change(
			       ceph, live->id,
			       (const struct meta[]){ { META_SWAP, live->name }, { NULL, NULL } },
			       err);
}

/* Step 5; @aside is where it lies, and @item what the new one was called. */
static int hand_over(struct ceph_pool *ceph, const struct rbd *old, const char *aside,
		     const char *item, struct coppice_error *err)
{
	bool is_kept = strncmp(aside, "kept_", 5) == 0, has_snapshots = has_user_snapshots(old);
	char kept[RBD_NAME_MAX];
	struct uuid id;
	int r = uuid_new(&id, err);

	(void)snprintf(kept, sizeof(kept), "kept_%s.%s", old->group.text, id.text);
	if (r == COPPICE_OK && has_snapshots && !is_kept)
		r = ceph_rename_image(ceph, aside, kept, err);
	if (r == COPPICE_OK)
		r = header_change(ceph, old->id,
				  (const struct meta[]){ { META_SWAP, NULL },
							 { META_UUID, NULL },
							 { META_RECORD, NULL },
							 { META_SIZE, NULL },
							 { META_DRAFT, NULL },
							 { NULL, NULL } },
				  err);
	return r < 0 || has_snapshots || !item ? r : ceph_rename_image(ceph, aside, item, err);
}

/* Snapshots that came with the replacement are the volume's now, one after another. */
static int take_nested(struct ceph_pool *ceph, const struct rbd_list *listing,
		       const struct rbd *live, const struct draft *draft, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		const struct rbd *rbd = &listing->rbd[i];

		if (strncmp(rbd->name, "kept_", 5) == 0 &&
		    strcmp(rbd->group.text, live->uuid.text) == 0 &&
		    strcmp(rbd->draft.text, draft->id.text) == 0)
			r = header_change(
				ceph, rbd->id,
				(const struct meta[]){ { META_DRAFT, NULL }, { NULL, NULL } }, err);
	}
	return r;
}

static int exchange(struct ceph_pool *ceph, const struct rbd *live, const struct rbd *new,
		    const struct draft *draft, struct coppice_error *err)
{
	struct coppice_error ignored;
	char aside[RBD_NAME_MAX];
	struct uuid id;
	int r = uuid_new(&id, err);

	if (r == COPPICE_OK)
		r = mark(ceph, live, new, err);
	(void)snprintf(aside, sizeof(aside), "draft_%s.%s", draft->id.text, id.text);
	if (r == COPPICE_OK)
		r = ceph_rename_image(ceph, live->name, aside, err);
	if (r < 0)
		return r;
	r = ceph_rename_image(ceph, new->name, live->name, err);
	if (r < 0) {
		(void)ceph_rename_image(ceph, aside, live->name, &ignored);
		return r;
	}
	return hand_over(ceph, live, aside, new->name, err);
}

int ceph_swap(struct draft *draft, const struct new_volume *replacement,
	      const struct volume_ref *ref, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	char name[RBD_NAME_MAX], item[RBD_NAME_MAX], command[PATH_MAX];
	struct new_volume both = *replacement;
	struct rbd_snap *snap;
	struct rbd *live, *new;
	int r;

	ceph_name(ref, name);
	ceph_explain_command(ceph, command);
	ceph_explain(draft->pool, "%s rename %s draft_$draft.old", command, name);
	ceph_explain(draft->pool, "%s rename draft_$draft.%s %s", command,
		     replacement->item ? replacement->item : replacement->ref.name.text, name);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	ceph_item_name(draft, replacement, item);
	both.ref = *ref;
	r = rbd_listing_read_making(draft, &both, 1, &listing, err);
	if (r < 0)
		return r;
	live = rbd_find_ref(&listing, ref, &snap);
	if (!live)
		return ceph_fail_missing(ref, err);
	new = rbd_find(&listing, item);
	if (!new)
		return fail(err, COPPICE_FAILED, "'%s' is not in the draft",
			    replacement->ref.name.text);
	r = ceph_check_elsewhere(ceph, live, err);
	if (r == COPPICE_OK)
		r = ceph_umount(ceph, live->name, err);
	if (r == COPPICE_OK)
		r = ceph_umount(ceph, new->name, err);
	if (r < 0)
		return r;
	r = ceph_owe(ceph, err);
	if (r == COPPICE_OK)
		r = ceph_draft_swaps(draft, err);
	if (r == COPPICE_OK)
		r = take_nested(ceph, &listing, live, draft, err);
	if (r == COPPICE_OK)
		r = exchange(ceph, live, new, draft, err);
	return change_part(ceph, &listing, ref, ref, r, err);
}

int ceph_swap_recover(struct ceph_pool *ceph, const struct rbd_list *listing, const struct rbd *old,
		      struct coppice_error *err)
{
	const char *name = rbd_meta(old, META_SWAP);
	const struct rbd *found = rbd_find(listing, name);
	int r;

	if (found && strcmp(found->uuid.text, old->uuid.text) != 0)
		return fail(err, COPPICE_FAILED,
			    "'%s' was to be restored and has been made anew meanwhile; what it was "
			    "lies in '%s/%s'",
			    name, ceph->osd_pool, old->name);
	if (found)
		return hand_over(ceph, old, old->name, NULL, err);
	r = ceph_rename_image(ceph, old->name, name, err);
	return r < 0 ? r
		     : header_change(ceph, old->id,
				     (const struct meta[]){ { META_SWAP, NULL },
							    { META_DRAFT, NULL },
							    { NULL, NULL } },
				     err);
}
