/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes come into being: created and filled, or cloned, several at once. */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "base/text.h"
#include "driver/generic/device_mount.h"
#include "driver/generic/fill.h"
#include "driver/generic/filesystem.h"
#include "driver/generic/limit.h"
#include "driver/generic/record_config.h"

/* A snapshot that is not of the history of its volume's own image has an image that keeps it. */
void ceph_item_name(const struct draft *draft, const struct new_volume *volume,
		    char ret[static RBD_NAME_MAX])
{
	bool is_kept = volume_is_snapshot(&volume->ref);

	(void)snprintf(ret, RBD_NAME_MAX, "%s_%s.%s", is_kept ? "kept" : "draft",
		       is_kept ? volume->group.text : draft->id.text, volume->uuid.text);
}

char *ceph_item_path(const struct draft *draft, const struct new_volume *volume)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	char name[RBD_NAME_MAX];

	if (volume_is_block(&volume->ref)) {
		ceph_item_name(draft, volume, name);
		return text_format("%s/devices/%s", ceph->mount, name);
	}
	return text_format("%s/drafts/%s/%s%s%s", ceph->mount, draft->id.text,
			   volume->item ? volume->item : volume->ref.name.text,
			   volume_is_snapshot(&volume->ref) ? "@" : "", volume->ref.snapshot.text);
}

static const char *option_text(const struct new_volume *volume)
{
	return volume->item ? volume->item : volume->ref.name.text;
}

/* ---- images ---- */

static int options_make(struct ceph_pool *ceph, rbd_image_options_t *ret, struct coppice_error *err)
{
	uint64_t features = 0;
	int r = ceph_check_data_pool(ceph, err);

	/* Nobody named it now; and RBD says of it only that something is not there. */
	if (r == COPPICE_NOT_FOUND)
		err->code = COPPICE_UNAVAILABLE;
	if (r < 0)
		return err->code;
	rbd_image_options_create(ret);
	if (ceph->features)
		r = rbd_features_from_string(ceph->features, &features);
	if (r == 0 && ceph->features)
		r = rbd_image_options_set_uint64(*ret, RBD_IMAGE_OPTION_FEATURES,
						 features | RBD_FEATURE_LAYERING);
	if (r == 0 && ceph->data_pool)
		r = rbd_image_options_set_string(*ret, RBD_IMAGE_OPTION_DATA_POOL, ceph->data_pool);
	if (r == 0)
		return COPPICE_OK;
	rbd_image_options_destroy(*ret);
	return fail(err, COPPICE_INVALID, "ceph.rbd.features '%s' are no features of RBD",
		    ceph->features ? ceph->features : "");
}

int ceph_image_describe(const struct draft *draft, const struct new_volume *volume,
			const char *name, const struct rbd *origin, bool is_marked,
			struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	char id[RBD_ID_MAX], size[32], snapshot[RBD_NAME_MAX + 32];
	bool is_kept = volume_is_snapshot(&volume->ref);
	_cleanup_(freep) struct meta *metas = NULL;
	size_t n = 0, n_inherited = 0;
	int r = header_id(ceph, name, id, err);

	for (size_t i = 0; origin && origin->meta && origin->meta[i]; i += 2)
		n_inherited++;
	metas = calloc(n_inherited + 16, sizeof(*metas));
	if (!metas)
		return fail_memory(err);
	if (r < 0)
		return r;
	(void)snprintf(snapshot, sizeof(snapshot), META_SNAPSHOT "%s", volume->ref.snapshot.text);
	(void)snprintf(size, sizeof(size), "%llu", (unsigned long long)volume->limit_bytes);
	metas[n++] = (struct meta){ META_ID, id };
	metas[n++] = (struct meta){ META_UUID, volume->uuid.text };
	metas[n++] = (struct meta){ META_GROUP, volume->group.text };
	metas[n++] = (struct meta){ META_DRAFT, is_marked ? draft->id.text : NULL };
	metas[n++] = (struct meta){ is_kept ? snapshot : META_RECORD, volume->record };
	metas[n++] = (struct meta){ META_SIZE, volume->limit_bytes ? size : NULL };
	if (is_kept)
		metas[n++] = (struct meta){ META_RECORD, NULL };
	metas[n++] = (struct meta){ META_SWAP, NULL };
	metas[n++] = (struct meta){ META_HOST, NULL };
	for (size_t i = 0; i < n_inherited; i++) {
		const char *key = origin->meta[2 * i];
		bool is_of_snapshot = strncmp(key, META_SNAPSHOT, strlen(META_SNAPSHOT)) == 0 ||
				      strncmp(key, META_REMOVED, strlen(META_REMOVED)) == 0 ||
				      strncmp(key, META_PENDING, strlen(META_PENDING)) == 0 ||
				      strncmp(key, META_SAME, strlen(META_SAME)) == 0;

		if (is_of_snapshot && (!is_kept || strcmp(key, snapshot) != 0))
			metas[n++] = (struct meta){ key, NULL };
	}
	return header_change(ceph, id, metas, err);
}

/* Is there a volume that users see, and that a snapshot of this group is of? */
static bool is_group_seen(const struct rbd_list *listing, const struct uuid *group)
{
	for (size_t i = 0; i < listing->n; i++)
		if (!rbd_is_hidden(&listing->rbd[i]) &&
		    strcmp(listing->rbd[i].uuid.text, group->text) == 0)
			return true;
	return false;
}

/* What keeps a snapshot is not named for its draft. */
int ceph_draft_list_item(struct draft *draft, const struct new_volume *volume,
			 struct coppice_error *err)
{
	bool is_kept = volume_is_snapshot(&volume->ref);
	char name[RBD_NAME_MAX];

	ceph_item_name(draft, volume, name);
	return ceph_draft_list(draft, is_kept ? name : NULL, NULL, err);
}

/* ---- creating ---- */

static void create_explain(struct draft *draft, const struct new_volume *volume,
			   const char *file_system, uint64_t bytes)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	char rbd[PATH_MAX];

	ceph_explain_command(ceph, rbd);
	ceph_explain(draft->pool, "%s create --size %lluB draft_$draft.%s", rbd,
		     (unsigned long long)bytes, option_text(volume));
	ceph_explain(draft->pool, "device=$(%s map draft_$draft.%s)", rbd, option_text(volume));
	if (!volume_is_block(&volume->ref))
		ceph_explain(draft->pool, "%s $device && mount $device %s/drafts/$draft/%s",
			     file_system_maker(file_system), ceph->mount, option_text(volume));
}

/*
 * What is nested, or is to take another's place, has the size of that, which is not less than
 * what it ever held.
 */
static uint64_t bytes_of(const struct ceph_pool *ceph, const struct rbd_list *listing,
			 const struct new_volume *volume)
{
	bool has_own = strcmp(volume->uuid.text, volume->group.text) == 0;

	for (size_t i = 0; i < listing->n && !has_own; i++) {
		const struct rbd *rbd = &listing->rbd[i];
		const char *size = rbd_meta(rbd, META_SIZE);
		uint64_t least = size ? strtoull(size, NULL, 10) : ceph->size_bytes;

		if (strncmp(rbd->name, "kept_", 5) != 0 &&
		    strcmp(rbd->uuid.text, volume->group.text) == 0)
			return least > rbd->size_bytes ? least : rbd->size_bytes;
	}
	return volume->limit_bytes ? volume->limit_bytes : ceph->size_bytes;
}

/* RBD has images of whole sectors, as devices are. */
static uint64_t whole_sectors(uint64_t bytes)
{
	return (bytes + 511) / 512 * 512;
}

int ceph_image_create(struct ceph_pool *ceph, const char *name, uint64_t bytes,
		      struct coppice_error *err)
{
	rbd_image_options_t options;
	int r = options_make(ceph, &options, err);

	if (r < 0)
		return r;
	r = rbd_create4(ceph->making_io, name, whole_sectors(bytes), options);
	rbd_image_options_destroy(options);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot create the image '%s/%s'", ceph->osd_pool,
				 name)
		     : COPPICE_OK;
}

int ceph_make_and_mount(const struct ceph_pool *ceph, const struct new_file_system *wanted,
			const char *device, const char *options, struct coppice_error *err)
{
	int r = file_system_make(wanted->type, device, err);

	if (r == COPPICE_OK)
		r = folders_ensure(ceph->mount, wanted->path, err);
	if (r == COPPICE_OK)
		r = file_system_mount(device, options, false, wanted->path, err);
	if (r == COPPICE_OK)
		file_system_clear(wanted->path);
	return r;
}

struct making_mapped {
	const struct ceph_pool *ceph;
	const struct new_file_system *wanted;
	const char *device;
};

static int make_and_mount(void *user, struct coppice_error *err)
{
	const struct making_mapped *making = user;

	return ceph_make_and_mount(making->ceph, making->wanted, making->device,
				   making->wanted->options, err);
}

/* Map a new image; and make its file system, and mount that, unless @wanted->path is NULL. */
static int make_mapped(struct draft *draft, const struct new_file_system *wanted,
		       struct coppice_error *err)
{
	_cleanup_(ceph_turn_give) struct ceph_turn turn = { .draft = draft };
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	char device[PATH_MAX];
	struct making_mapped making = { ceph, wanted, device };
	int r = ceph_turn_take(ceph, wanted->name, &turn, err);

	if (r == COPPICE_OK)
		r = ceph_map(ceph, &turn, wanted->name, device, err);
	if (r < 0 || !wanted->path)
		return r;
	return ceph_patiently(ceph, &turn, device, make_and_mount, &making, err,
			      "cannot make a file system on '%s'", device);
}

static int make_writable(struct draft *draft, const struct new_file_system *wanted,
			 struct coppice_error *err)
{
	bool is_staged = false;
	int r = wanted->path ? ceph_stage(draft, wanted, &is_staged, err) : COPPICE_OK;

	return r < 0 || is_staged ? r : make_mapped(draft, wanted, err);
}

int ceph_volume_create(struct draft *draft, const struct new_volume *volume, char **ret_path,
		       struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	_cleanup_(freep) char *path = ceph_item_path(draft, volume);
	_cleanup_(freep) char *own = record_config(volume->record, "block.filesystem");
	_cleanup_(freep) char *options = record_config(volume->record, "block.mount_options");
	const char *file_system = own ? own : ceph->file_system;
	char name[RBD_NAME_MAX];
	struct new_file_system wanted = { .name = name,
					  .type = file_system,
					  .options = options ? options : ceph->mount_options,
					  .path = volume_is_block(&volume->ref) ? NULL : path };
	bool is_marked = !volume->is_nested;
	int r = COPPICE_OK;

	if (!path)
		return fail_memory(err);
	create_explain(draft, volume, file_system, bytes_of(ceph, &listing, volume));
	if (draft->pool->is_dry_run) {
		*ret_path = take_ptr(&path);
		return COPPICE_OK;
	}
	/* It may be of what is in the draft, or is to take the place of another. */
	if (volume->is_nested || strcmp(volume->uuid.text, volume->group.text) != 0)
		r = rbd_listing_read(ceph, &listing, err);
	if (r == COPPICE_OK)
		r = ceph_draft_list_item(draft, volume, err);
	if (r < 0)
		return r;
	is_marked |= is_group_seen(&listing, &volume->group);
	ceph_making_of(draft)->has_items = true;
	ceph_item_name(draft, volume, name);
	wanted.bytes = whole_sectors(bytes_of(ceph, &listing, volume));
	r = ceph_image_create(ceph, name, wanted.bytes, err);
	if (r == COPPICE_OK)
		r = ceph_image_describe(draft, volume, name, NULL, is_marked, err);
	if (r == COPPICE_OK)
		r = make_writable(draft, &wanted, err);
	if (r == COPPICE_OK)
		*ret_path = take_ptr(&path);
	return r;
}

int ceph_resize_image(struct ceph_pool *ceph, const char *name, uint64_t bytes,
		      struct coppice_error *err)
{
	rbd_image_t image;
	int r = rbd_open(ceph->making_io, name, &image, NULL);

	if (r == 0) {
		r = rbd_resize(image, whole_sectors(bytes));
		(void)rbd_close(image);
	}
	return r < 0 ? fail_ceph(ceph, r, err, "cannot make the image '%s/%s' larger",
				 ceph->osd_pool, name)
		     : COPPICE_OK;
}

/* ---- snapshots of images ---- */

int ceph_snap_create(struct ceph_pool *ceph, const char *name, const char *snapshot,
		     struct coppice_error *err)
{
	rbd_image_t image;
	int r = rbd_open(ceph->making_io, name, &image, NULL);

	if (r == 0) {
		r = rbd_snap_create2(image, snapshot, RBD_SNAP_CREATE_SKIP_QUIESCE, NULL, NULL);
		(void)rbd_close(image);
	}
	return r < 0 ? fail_ceph(ceph, r, err, "cannot make the snapshot '%s/%s@%s'",
				 ceph->osd_pool, name, snapshot)
		     : COPPICE_OK;
}

static void sealed_name(const struct new_volume *volume, char ret[static RBD_NAME_MAX])
{
	if (volume_is_snapshot(&volume->ref))
		ceph_snapshot_name(&volume->ref, ret);
	else
		(void)snprintf(ret, RBD_NAME_MAX, IMAGE_SNAPSHOT);
}

/* What is mapped is written out by unmounting it, and unmapping waits for the cluster. */
int ceph_volume_seal(struct draft *draft, const struct new_volume *volume, bool is_read_only,
		     struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	bool is_fixed = is_read_only || volume_is_snapshot(&volume->ref);
	char name[RBD_NAME_MAX], snapshot[RBD_NAME_MAX], id[RBD_ID_MAX], rbd[PATH_MAX];
	char key[RBD_NAME_MAX + 32];
	int r;

	sealed_name(volume, snapshot);
	ceph_explain_command(ceph, rbd);
	if (!volume_is_block(&volume->ref))
		ceph_explain(draft->pool, "umount %s/drafts/$draft/%s", ceph->mount,
			     option_text(volume));
	ceph_explain(draft->pool, "%s unmap $device", rbd);
	if (is_fixed)
		ceph_explain(draft->pool, "%s snap create draft_$draft.%s@%s", rbd,
			     option_text(volume), snapshot);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	ceph_item_name(draft, volume, name);
	if (ceph_is_staged(draft, name)) {
		r = ceph_unstage(draft, name, err);
	} else {
		r = ceph_umount(ceph, name, err);
		ceph_making_of(draft)->is_left |=
			r == COPPICE_UNAVAILABLE || r == COPPICE_INTERRUPTED;
	}
	if (r == COPPICE_OK)
		r = header_id(ceph, name, id, err);
	(void)snprintf(key, sizeof(key), META_SNAPSHOT "%s", volume->ref.snapshot.text);
	if (r == COPPICE_OK)
		r = header_change(ceph, id,
				  (const struct meta[]){
					  { volume_is_snapshot(&volume->ref) ? key : META_RECORD,
					    volume->record },
					  { NULL, NULL } },
				  err);
	return r < 0 || !is_fixed ? r : ceph_snap_create(ceph, name, snapshot, err);
}

/* ---- cloning ---- */

struct batch {
	struct draft *draft;
	struct ceph_pool *ceph;
	const struct rbd_list *listing; /* if that was needed */
	const struct new_volume *volumes;
	const struct rbd *origin; /* NULL: an image, which has no metadata of snapshots */
	char from[RBD_NAME_MAX], snapshot[RBD_NAME_MAX]; /* what is cloned */
	uint64_t origin_bytes;
	bool is_read_only;
	atomic_size_t n_named; /* have their own names already */
};

int ceph_image_clone(struct ceph_pool *ceph, const char *from, const char *snapshot,
		     const char *name, struct coppice_error *err)
{
	rbd_image_options_t options;
	int r = options_make(ceph, &options, err);

	if (r < 0)
		return r;
	r = rbd_clone3(ceph->making_io, from, snapshot, ceph->making_io, name, options);
	rbd_image_options_destroy(options);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot clone '%s/%s@%s' as '%s'", ceph->osd_pool,
				 from, snapshot, name)
		     : COPPICE_OK;
}

static int clone_as(struct batch *batch, const struct new_volume *volume, const char *name,
		    struct coppice_error *err)
{
	bool is_marked = !volume->is_nested || is_group_seen(batch->listing, &volume->group);
	char snapshot[RBD_NAME_MAX];
	int r = ceph_image_clone(batch->ceph, batch->from, batch->snapshot, name, err);

	if (r == COPPICE_OK)
		r = ceph_image_describe(batch->draft, volume, name, batch->origin, is_marked, err);
	if (r < 0 || (!batch->is_read_only && !volume_is_snapshot(&volume->ref)))
		return r;
	sealed_name(volume, snapshot);
	return ceph_snap_create(batch->ceph, name, snapshot, err);
}

/* On several threads; what the draft remembers is set before. */
static int clone_one(void *user, size_t i, struct coppice_error *err)
{
	struct batch *batch = user;
	struct draft *draft = batch->draft;
	const struct new_volume *volume = &batch->volumes[i];
	struct pool *pool = draft->pool;
	char name[RBD_NAME_MAX];
	int r;

	if (pool_is_interrupted(pool))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	if (draft->is_announced && !volume_is_snapshot(&volume->ref)) {
		ceph_name(&volume->ref, name);
		r = clone_as(batch, volume, name, err);
		if (r != COPPICE_EXISTS) {
			batch->n_named++;
			return r;
		}
	}
	ceph_item_name(draft, volume, name);
	return clone_as(batch, volume, name, err);
}

/* Is this a snapshot of what it is made from? Then it is one of RBD's, of that image. */
static bool is_of_itself(const struct volume_ref *origin, const struct new_volume *volume)
{
	return !volume_is_snapshot(origin) && volume_is_snapshot(&volume->ref) &&
	       !volume->is_nested && origin->kind == volume->ref.kind &&
	       strcmp(origin->name.text, volume->ref.name.text) == 0;
}

/* What it is to be is said first: found without its maker, it is known whose it is. */
static int snapshot_itself(struct batch *batch, const struct new_volume *volume,
			   struct coppice_error *err)
{
	char record[RBD_NAME_MAX + 32], pending[RBD_NAME_MAX + 32], removed[RBD_NAME_MAX + 32];
	char snapshot[RBD_NAME_MAX];
	const struct meta metas[] = {
		{ record, volume->record },
		{ pending, batch->draft->id.text },
		{ removed, NULL },
		{ NULL, NULL },
	};
	int r;

	ceph_snapshot_name(&volume->ref, snapshot);
	for (size_t i = 0; i < batch->origin->n_snaps; i++)
		if (strcmp(batch->origin->snap[i].name, snapshot) == 0)
			return fail(err, COPPICE_EXISTS, "'%s/%s' exists already",
				    volume->ref.name.text, volume->ref.snapshot.text);
	(void)snprintf(record, sizeof(record), META_SNAPSHOT "%s", volume->ref.snapshot.text);
	(void)snprintf(pending, sizeof(pending), META_PENDING "%s", volume->ref.snapshot.text);
	(void)snprintf(removed, sizeof(removed), META_REMOVED "%s", volume->ref.snapshot.text);
	r = header_change(batch->ceph, batch->origin->id, metas, err);
	return r < 0 ? r : ceph_snap_create(batch->ceph, batch->from, snapshot, err);
}

/*
 * An image's name says all of it; anything else is looked for, and the volumes that snapshots are
 * of. @refs: the origin first.
 */
static int find_origin(struct batch *batch, const struct volume_ref *refs, size_t n,
		       bool is_to_look, struct rbd_list *listing, struct coppice_error *err)
{
	const struct volume_ref *origin = &refs[0];
	struct rbd_snap *snap;
	struct rbd *rbd;
	int r;

	(void)snprintf(batch->snapshot, sizeof(batch->snapshot), IMAGE_SNAPSHOT);
	if (origin->kind == VOLUME_IMAGE && !is_to_look) {
		ceph_name(origin, batch->from);
		return COPPICE_OK;
	}
	r = rbd_listing_read_of(batch->ceph, refs, n, listing, err);
	rbd = r == COPPICE_OK ? rbd_find_ref(listing, origin, &snap) : NULL;
	if (!rbd)
		return r < 0 ? r : ceph_fail_missing(origin, err);
	batch->origin = rbd;
	batch->origin_bytes = rbd_bytes_asked(rbd, snap);
	(void)snprintf(batch->from, sizeof(batch->from), "%s", rbd->name);
	if (snap)
		(void)snprintf(batch->snapshot, sizeof(batch->snapshot), "%s", snap->name);
	return COPPICE_OK;
}

static int clone_dry(struct ceph_pool *ceph, const struct volume_ref *origin,
		     const struct new_volume *volumes, size_t n, struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	struct rbd_snap *snap;
	const struct rbd *rbd;
	bool is_limited = false;
	int r;

	for (size_t i = 0; i < n; i++)
		is_limited |= volumes[i].limit_bytes != 0;
	if (!is_limited)
		return COPPICE_OK;
	r = rbd_listing_read_of(ceph, origin, 1, &listing, err);
	rbd = r == COPPICE_OK ? rbd_find_ref(&listing, origin, &snap) : NULL;
	return rbd ? limits_check_clones(rbd_bytes_asked(rbd, snap), volumes, n, err) : r;
}

static void clone_explain(struct draft *draft, const struct volume_ref *origin,
			  const struct new_volume *volumes, size_t n)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	char rbd[PATH_MAX], from[RBD_NAME_MAX], snapshot[RBD_NAME_MAX], name[RBD_NAME_MAX];
	bool is_live = origin->kind != VOLUME_IMAGE && !volume_is_snapshot(origin);

	ceph_explain_command(ceph, rbd);
	ceph_name(origin, from);
	if (n == 1 && is_of_itself(origin, &volumes[0])) {
		ceph_snapshot_name(&volumes[0].ref, snapshot);
		ceph_explain(draft->pool, "%s snap create %s@%s", rbd, from, snapshot);
		return;
	}
	(void)snprintf(snapshot, sizeof(snapshot), "%s", is_live ? "copy_$draft" : IMAGE_SNAPSHOT);
	if (volume_is_snapshot(origin))
		ceph_snapshot_name(origin, snapshot);
	if (is_live)
		ceph_explain(draft->pool, "%s snap create %s@%s", rbd, from, snapshot);
	for (size_t i = 0; i < n; i++) {
		ceph_name(&volumes[i].ref, name);
		ceph_explain_clone(draft->pool, from, snapshot,
				   draft->is_announced && !volume_is_snapshot(&volumes[i].ref)
					   ? name
					   : "draft_$draft.$(uuidgen)");
	}
	if (is_live)
		ceph_explain(draft->pool, "%s snap rm %s@%s", rbd, from, snapshot);
}

static int clone_all(struct batch *batch, size_t n, bool is_live, struct coppice_error *err)
{
	struct draft *draft = batch->draft;
	struct ceph_making *making = ceph_making_of(draft);
	bool had_items = making->has_items;
	struct coppice_error ignored;
	int r = COPPICE_OK;

	/* Until it is known that nothing has another name. */
	making->has_items = true;
	if (is_live) {
		(void)snprintf(batch->snapshot, sizeof(batch->snapshot), "copy_%s", draft->id.text);
		r = ceph_snap_create(batch->ceph, batch->from, batch->snapshot, err);
	}
	if (r == COPPICE_OK)
		r = parallel_run(n, n < CEPH_THREADS ? n : CEPH_THREADS, clone_one, batch, err);
	if (r == COPPICE_OK && batch->n_named == n)
		making->has_items = had_items;
	making->n_announced += batch->n_named;
	/* It is nobody's snapshot: it goes, and RBD keeps it for the clones. */
	if (is_live)
		(void)ceph_snap_remove(batch->ceph, batch->from, batch->snapshot, &ignored);
	return r;
}

int ceph_clone(struct draft *draft, const struct volume_ref *origin,
	       const struct new_volume *volumes, size_t n, bool is_read_only,
	       struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	struct batch batch = { .draft = draft,
			       .ceph = ceph,
			       .listing = &listing,
			       .volumes = volumes,
			       .is_read_only = is_read_only };
	bool is_live = origin->kind != VOLUME_IMAGE && !volume_is_snapshot(origin);
	_cleanup_(freep) struct volume_ref *refs = calloc(n + 1, sizeof(*refs));
	bool is_to_look = false;
	int r;

	clone_explain(draft, origin, volumes, n);
	if (draft->pool->is_dry_run)
		return clone_dry(ceph, origin, volumes, n, err);
	if (n == 0)
		return COPPICE_OK;
	if (!refs)
		return fail_memory(err);
	refs[0] = *origin;
	for (size_t i = 0; i < n; i++) {
		is_to_look |= volumes[i].limit_bytes || volume_is_snapshot(&volumes[i].ref);
		refs[i + 1] = volumes[i].ref;
	}
	r = find_origin(&batch, refs, n + 1, is_to_look, &listing, err);
	if (r == COPPICE_OK)
		r = limits_check_clones(batch.origin_bytes, volumes, n, err);
	if (r == COPPICE_OK && !(n == 1 && is_of_itself(origin, &volumes[0])))
		r = ceph_depth_check(ceph, batch.from, err);
	if (r == COPPICE_OK && is_live)
		r = ceph_settle(ceph, batch.origin, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = ceph_draft_list_item(draft, &volumes[i], err);
	if (r < 0)
		return r;
	if (n == 1 && is_of_itself(origin, &volumes[0])) {
		ceph_making_of(draft)->has_items = true;
		r = snapshot_itself(&batch, &volumes[0], err);
		if (r != COPPICE_EXISTS) /* then it is an item, and to publish that is refused */
			return r < 0 ? r : ceph_draft_is_made(draft, err);
	}
	r = clone_all(&batch, n, is_live, err);
	return r < 0 ? r : ceph_draft_is_made(draft, err);
}

/* ---- publishing ---- */

int ceph_rename_image(struct ceph_pool *ceph, const char *from, const char *to,
		      struct coppice_error *err)
{
	int r = rbd_rename(ceph->making_io, from, to);

	return r < 0 ? fail_ceph(ceph, r, err, "cannot rename the image '%s/%s' to '%s'",
				 ceph->osd_pool, from, to)
		     : COPPICE_OK;
}

int ceph_rename_image_for(struct ceph_pool *ceph, const char *id, const char *from, const char *to,
			  struct coppice_error *err)
{
	int r = root_name_take(ceph, to, id, err);

	if (r < 0)
		return r;
	r = ceph_rename_image(ceph, from, to, err);
	root_name_give_back(ceph, to);
	return r;
}

/*
 * What a dead maker announced and nobody published gives way. Who has his lock looks once more: he
 * may have published it, and be done.
 */
static int displace(struct ceph_pool *ceph, const struct volume_ref *ref, bool *ret_did,
		    struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list before = { 0 }, now = { 0 };
	const struct rbd *found, *rbd;
	_cleanup_(closep) int fd = -1;
	char name[RBD_NAME_MAX];
	int r;

	*ret_did = false;
	ceph_name(ref, name);
	r = rbd_listing_read_of(ceph, ref, 1, &before, err);
	found = r == COPPICE_OK ? rbd_find(&before, name) : NULL;
	if (!found || !found->is_pending || !found->draft.text[0] ||
	    !ceph_draft_is_over(ceph, found->draft.text, &fd))
		return r;
	r = rbd_listing_read_of(ceph, ref, 1, &now, err);
	rbd = r == COPPICE_OK ? rbd_find(&now, name) : NULL;
	if (!rbd || !rbd->is_pending || strcmp(rbd->draft.text, found->draft.text) != 0)
		return r;
	*ret_did = true;
	return ceph_remove_image(ceph, rbd, err);
}

static int give_name(struct draft *draft, const struct new_volume *volume, const struct rbd *item,
		     struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	char name[RBD_NAME_MAX];
	bool did = false;
	int r;

	ceph_name(&volume->ref, name);
	r = ceph_draft_list(draft, name, item->id, err);
	if (r == COPPICE_OK)
		r = ceph_rename_image_for(ceph, draft->id.text, item->name, name, err);
	if (r == COPPICE_EXISTS) {
		r = displace(ceph, &volume->ref, &did, err);
		if (r == COPPICE_OK)
			r = did ? ceph_rename_image_for(ceph, draft->id.text, item->name, name, err)
				: COPPICE_EXISTS;
	}
	return r == COPPICE_EXISTS ? ceph_fail_exists(&volume->ref, err) : r;
}

struct publishing {
	struct draft *draft;
	struct ceph_pool *ceph;
	const struct rbd_list *listing;
};

/* Where a snapshot of the draft is: in its volume's own image, or in one that keeps it. */
static const struct rbd *holder_of(const struct publishing *publishing,
				   const struct new_volume *volume, const struct rbd *parent)
{
	char name[RBD_NAME_MAX];
	const struct rbd *kept;

	ceph_item_name(publishing->draft, volume, name);
	kept = rbd_find(publishing->listing, name);
	return kept ? kept : parent;
}

static int check_snapshot(const struct publishing *publishing, const struct new_volume *volume,
			  const struct rbd **ret_parent, struct coppice_error *err)
{
	struct volume_ref parent = volume->ref;

	parent.snapshot.text[0] = '\0';
	*ret_parent = rbd_find_ref(publishing->listing, &parent, NULL);
	if (!*ret_parent)
		return ceph_fail_missing(&parent, err);
	return rbd_find_ref(publishing->listing, &volume->ref, NULL)
		       ? ceph_fail_exists(&volume->ref, err)
		       : COPPICE_OK;
}

static int show_snapshot(const struct publishing *publishing, const struct new_volume *volume,
			 const struct rbd *parent, struct coppice_error *err)
{
	const struct rbd *holder = holder_of(publishing, volume, parent);
	char pending[RBD_NAME_MAX + 32];

	(void)snprintf(pending, sizeof(pending), META_PENDING "%s", volume->ref.snapshot.text);
	return header_change(
		publishing->ceph, holder->id,
		(const struct meta[]){ { holder == parent ? pending : META_DRAFT, NULL },
				       { NULL, NULL } },
		err);
}

static int show_volume(const struct publishing *publishing, const struct rbd *item,
		       struct coppice_error *err)
{
	return header_change(publishing->ceph, item->id,
			     (const struct meta[]){ { META_DRAFT, NULL }, { NULL, NULL } }, err);
}

/* What has its name, and is not seen yet: by a clone that was announced, or as it was given it. */
static const struct rbd *item_of(const struct publishing *publishing,
				 const struct new_volume *volume, bool *ret_has_name)
{
	char name[RBD_NAME_MAX];
	const struct rbd *item;

	ceph_item_name(publishing->draft, volume, name);
	item = rbd_find(publishing->listing, name);
	*ret_has_name = false;
	if (item || !publishing->draft->is_announced)
		return item;
	ceph_name(&volume->ref, name);
	item = rbd_find(publishing->listing, name);
	*ret_has_name = true;
	return item && strcmp(item->uuid.text, volume->uuid.text) == 0 ? item : NULL;
}

/* Their names first, under which nobody sees them; then all is shown, one after another. */
static int publish_items(const struct publishing *publishing, const struct new_volume *volumes,
			 size_t n, struct coppice_error *err)
{
	struct ceph_pool *ceph = publishing->ceph;
	struct coppice_error ignored;
	char name[RBD_NAME_MAX];
	const struct rbd *item, *parent;
	bool has_name;
	size_t i;
	int r = COPPICE_OK;

	for (i = 0; i < n && r == COPPICE_OK; i++) {
		if (volume_is_snapshot(&volumes[i].ref)) {
			r = check_snapshot(publishing, &volumes[i], &parent, err);
			continue;
		}
		item = item_of(publishing, &volumes[i], &has_name);
		if (!item)
			r = fail(err, COPPICE_FAILED, "'%s' is not in the draft",
				 volumes[i].ref.name.text);
		else if (!has_name)
			r = give_name(publishing->draft, &volumes[i], item, err);
	}
	if (r < 0) {
		for (i--; i-- > 0;) {
			item = item_of(publishing, &volumes[i], &has_name);
			ceph_name(&volumes[i].ref, name);
			if (item && !has_name && !volume_is_snapshot(&volumes[i].ref))
				(void)ceph_rename_image(ceph, name, item->name, &ignored);
		}
		return r;
	}
	for (i = 0; i < n && r == COPPICE_OK; i++) {
		if (volume_is_snapshot(&volumes[i].ref)) {
			r = check_snapshot(publishing, &volumes[i], &parent, err);
			if (r == COPPICE_OK)
				r = show_snapshot(publishing, &volumes[i], parent, err);
		} else {
			r = show_volume(publishing, item_of(publishing, &volumes[i], &has_name),
					err);
		}
	}
	return r;
}

static void publish_explain(struct draft *draft, const struct new_volume *volumes, size_t n)
{
	char rbd[PATH_MAX], name[RBD_NAME_MAX];

	ceph_explain_command(ceph_pool_of(draft->pool), rbd);
	for (size_t i = 0; i < n && !draft->is_announced; i++) {
		if (volume_is_snapshot(&volumes[i].ref))
			continue;
		ceph_name(&volumes[i].ref, name);
		ceph_explain(draft->pool, "%s rename draft_$draft.%s %s", rbd,
			     option_text(&volumes[i]), name);
	}
}

/* What was shown adds to the stamp: snapshots by themselves, volumes with theirs. */
static int add_published(struct ceph_pool *ceph, const struct new_volume *volumes,
			 const struct volume_ref *refs, size_t n, struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	uint64_t sum = 0;
	int r = rbd_listing_read_of(ceph, refs, n, &listing, err);

	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		sum += volume_is_snapshot(&refs[i]) ? ceph_hash(&refs[i], volumes[i].record)
						    : rbd_part(&listing, &refs[i]);
	return r < 0 ? r : ceph_stamp_add(ceph, sum % STAMP_MODULUS, refs, n, err);
}

int ceph_publish(struct draft *draft, const struct new_volume *volumes, size_t n,
		 struct coppice_error *err)
{
	struct ceph_making *making = ceph_making_of(draft);
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	struct publishing publishing = { .draft = draft, .ceph = ceph, .listing = &listing };
	_cleanup_(freep) struct volume_ref *refs = NULL;
	uint64_t sum = 0;
	int r;

	publish_explain(draft, volumes, n);
	if (draft->pool->is_dry_run || n == 0)
		return COPPICE_OK;
	refs = calloc(n, sizeof(*refs));
	if (!refs)
		return fail_memory(err);
	for (size_t i = 0; i < n; i++)
		refs[i] = volumes[i].ref;
	making->is_shown = true;
	if (draft->is_announced && !making->has_items && n == making->n_announced) {
		for (size_t i = 0; i < n; i++)
			sum += ceph_hash(&volumes[i].ref, volumes[i].record);
		r = ceph_stamp_publish(ceph, draft->id.text, sum % STAMP_MODULUS, refs, n, err);
		if (r < 0)
			return r;
		making->is_listed = false;
		making->is_shown = false;
		making->n_announced = 0;
		return COPPICE_OK;
	}
	r = rbd_listing_read_making(draft, volumes, n, &listing, err);
	if (r == COPPICE_OK)
		r = publish_items(&publishing, volumes, n, err);
	if (r == COPPICE_OK)
		r = add_published(ceph, volumes, refs, n, err);
	making->is_shown = r < 0;
	return r;
}
