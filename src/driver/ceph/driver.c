/* SPDX-License-Identifier: Apache-2.0 */
/* The table of ops, and what only looks. */
#include "driver/ceph/ceph.h"

#include <string.h>

#include "base/text.h"

/* What a step changed is in the cluster when it returns. */
static int commit(struct pool *pool, struct coppice_error *err)
{
	return COPPICE_OK;
}

static const char *mapper(struct pool *pool)
{
	const char *found = ceph_mapper();

	return found ? found : "nothing";
}

/* ---- what changes something ---- */

static int publish(struct draft *draft, const struct new_volume *volumes, size_t n,
		   struct coppice_error *err)
{
	int r = ceph_publish(draft, volumes, n, err);

	ceph_pool_of(draft->pool)->has_changed |= r == COPPICE_OK;
	return r;
}

static int swap(struct draft *draft, const struct new_volume *replacement,
		const struct volume_ref *ref, struct coppice_error *err)
{
	int r = ceph_swap(draft, replacement, ref, err);

	ceph_pool_of(draft->pool)->has_changed |= r == COPPICE_OK;
	return r;
}

static int reap(struct pool *pool, struct coppice_error *err)
{
	int r = ceph_reap(pool, err);

	ceph_pool_of(pool)->has_changed |= r == COPPICE_OK;
	return r;
}

/* ---- the stamp ---- */

/* It is kept in the pool, as all who change something add to it. */
static int stamp(struct pool *pool, uint64_t *ret, struct coppice_error *err)
{
	return ceph_stamp(ceph_pool_of(pool), ret, err);
}

static int stamp_part(struct pool *pool, const struct volume_ref *refs, size_t n, uint64_t *ret,
		      struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list own = { 0 };
	const struct rbd_list *listing;
	uint64_t sum = 0;
	int r = ceph_look_at(ceph_pool_of(pool), refs, n, &own, &listing, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		sum += rbd_part(listing, &refs[i]);
	*ret = sum % STAMP_MODULUS;
	return COPPICE_OK;
}

static uint64_t stamp_new(struct pool *pool, const struct new_volume *volumes, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += ceph_hash(&volumes[i].ref, volumes[i].record);
	return sum % STAMP_MODULUS;
}

static int touch(struct pool *pool, struct coppice_error *err)
{
	return pool->is_dry_run ? COPPICE_OK : ceph_stamp_touch(ceph_pool_of(pool), err);
}

/* ---- looking ---- */

struct scanning {
	scan_fn *fn;
	void *user;
	struct volume_ref ref;
};

static int scan_one(struct scanning *scanning, const struct volume_ref *ref, const char *record,
		    struct coppice_error *err)
{
	struct found_volume found = { .ref = *ref, .record = record };

	if (!volume_name_is_valid(ref->kind, ref->name.text) ||
	    (volume_is_snapshot(ref) && !volume_name_is_valid(VOLUME_CUSTOM, ref->snapshot.text))) {
		found.what = "name-invalid";
		found.problem = "its name is none that Coppice gives";
		found.record = NULL;
	}
	return scanning->fn(scanning->user, &found, err);
}

static int scan_snap(void *user, struct rbd *rbd, struct rbd_snap *snap, struct coppice_error *err)
{
	struct scanning *scanning = user;
	struct volume_ref ref = scanning->ref;

	(void)snprintf(ref.snapshot.text, sizeof(ref.snapshot.text), "%s", snap->snapshot);
	return scan_one(scanning, &ref, snap->record, err);
}

static int scan_listing(const struct rbd_list *listing, scan_fn *fn, void *user,
			struct coppice_error *err)
{
	struct scanning scanning = { .fn = fn, .user = user };
	int r = COPPICE_OK;

	for (size_t i = 0; r >= 0 && i < listing->n; i++) {
		if (!rbd_ref(&listing->rbd[i], &scanning.ref))
			continue;
		r = scan_one(&scanning, &scanning.ref, listing->rbd[i].record, err);
		if (r >= 0)
			r = rbd_snaps_each(listing, &listing->rbd[i], scan_snap, &scanning, err);
	}
	return r < 0 ? r : COPPICE_OK;
}

static int scan(struct pool *pool, scan_fn *fn, void *user, struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list own = { 0 };
	const struct rbd_list *listing;
	int r = ceph_look(ceph_pool_of(pool), &own, &listing, err);

	return r < 0 ? r : scan_listing(listing, fn, user, err);
}

static int scan_of(struct pool *pool, const struct volume_ref *refs, size_t n, scan_fn *fn,
		   void *user, struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	int r = rbd_listing_read_of(ceph_pool_of(pool), refs, n, &listing, err);

	return r < 0 ? r : scan_listing(&listing, fn, user, err);
}

static int record_read(struct pool *pool, const struct volume_ref *ref, char **ret,
		       struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list own = { 0 };
	const struct rbd_list *listing;
	char name[VOLUME_REF_TEXT_MAX];
	struct rbd_snap *snap;
	const struct rbd *rbd;
	const char *record;
	int r = ceph_look_at(ceph_pool_of(pool), ref, 1, &own, &listing, err);

	if (r < 0)
		return r;
	rbd = rbd_find_ref(listing, ref, &snap);
	if (!rbd)
		return ceph_fail_missing(ref, err);
	record = snap ? snap->record : rbd->record;
	if (!record)
		return fail(err, COPPICE_FAILED, "'%s' has no record",
			    volume_ref_format(ref, name));
	*ret = strdup(record);
	return *ret ? COPPICE_OK : fail_memory(err);
}

static int reading_begin(struct pool *pool, const struct volume_ref *refs, size_t n,
			 struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	struct rbd_list *reading = calloc(1, sizeof(*reading));
	int r;

	ceph_reading_end(pool);
	if (!reading)
		return fail_memory(err);
	r = n ? rbd_listing_read_of(ceph, refs, n, reading, err)
	      : rbd_listing_read(ceph, reading, err);
	if (r < 0) {
		free(reading);
		return r;
	}
	ceph->reading = reading;
	return COPPICE_OK;
}

extern const char driver_ceph_version[];
__attribute__((visibility("default"))) const char driver_ceph_version[] = COPPICE_VERSION;

__attribute__((visibility("default"))) const struct driver driver_ceph = {
	.name = "ceph",
	.pool_keys = ceph_pool_keys,
	.volume_keys = ceph_volume_keys,
	.traits = CEPH_TRAITS,

	.probe = ceph_probe,
	.choose = ceph_choose,
	.pool_create = ceph_pool_create,
	.pool_check = ceph_pool_check,
	.pool_explain = ceph_pool_explain,
	.pool_open = ceph_pool_open,
	.pool_close = ceph_pool_close,
	.pool_is_mounted = ceph_pool_is_mounted,
	.pool_umount = ceph_pool_umount,
	.pool_destroy = ceph_pool_destroy,
	.pool_space = ceph_pool_space,
	.pool_record_read = ceph_pool_record_read,
	.pool_record_write = ceph_pool_record_write,
	.pool_mapper = mapper,
	.pool_mount_path = ceph_pool_mount_path,

	.pool_join = ceph_pool_join,
	.pool_leave = ceph_pool_leave,
	.names_lock = ceph_names_lock,
	.names_unlock = ceph_names_unlock,

	.draft_open = ceph_draft_open,
	.draft_announce = ceph_draft_announce,
	.draft_discard = ceph_draft_discard,
	.volume_create = ceph_volume_create,
	.volume_fill = ceph_volume_fill,
	.writing_check = ceph_draft_writing_check,
	.draft_path = ceph_draft_path,
	.volume_seal = ceph_volume_seal,
	.clone = ceph_clone,
	.copy_way = ceph_copy_way,
	.transfer = ceph_transfer,
	.publish = publish,
	.commit = commit,
	.draft_sweep = ceph_draft_sweep,

	.swap = swap,
	.rename = ceph_rename,
	.record_write = ceph_record_write,
	.limit_set = ceph_limit_set,

	.retire = ceph_retire,
	.reap = reap,
	.pinned = ceph_pinned,

	.stamp = stamp,
	.stamp_part = stamp_part,
	.stamp_new = stamp_new,
	.changes = ceph_changes,
	.scan_of = scan_of,
	.touch = touch,
	.scan = scan,
	.record_read = record_read,
	.reading_begin = reading_begin,
	.reading_end = ceph_reading_end,
	.path = ceph_path,
	.volume_mount = ceph_volume_mount,
	.volume_umount = ceph_volume_umount,
	.usage = ceph_usage,
	.in_use = ceph_in_use,
	.check = ceph_check,
};
