/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes cease to be. A mark takes one out of sight, then it goes into RBD's trash, which frees
 * its name, and from there as soon as nobody stands on it. A snapshot is removed at once; if
 * clones stand on it, RBD hides and keeps it for them.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/parallel.h"
#include "base/text.h"

int ceph_snap_remove(struct ceph_pool *ceph, const char *name, const char *snapshot,
		     struct coppice_error *err)
{
	rbd_image_t image;
	int r = rbd_open(ceph->io, name, &image, NULL);

	if (r == 0) {
		r = rbd_snap_remove(image, snapshot);
		(void)rbd_close(image);
	}
	return r < 0 && r != -ENOENT
		       ? fail_ceph(ceph, r, err, "cannot remove the snapshot '%s/%s@%s'",
				   ceph->osd_pool, name, snapshot)
		       : COPPICE_OK;
}

/* How long to wait for whoever is at the same: until nothing more goes; until it is gone. */
#define OTHERS_MS 1000
#define MISSED_MS 1000
#define WAIT_MS   10

/* ---- into the trash ---- */

/* By whom: as long as his debt is held, he is at it, and nobody else. */
static int mark(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	const char *by = ceph->files.owed_fd >= 0 ? ceph->files.owed.text : "nobody";

	return header_change(
		ceph, rbd->id,
		(const struct meta[]){ { META_ID, rbd->id }, { META_DELETED, by }, { NULL, NULL } },
		err);
}

/* Is nobody else at what was retired? @owed: read after what @rbd is of. */
static bool is_ours_to_finish(const struct ceph_pool *ceph, const struct root_list *owed,
			      const struct rbd *rbd)
{
	const char *by = rbd_meta(rbd, META_DELETED);

	return !by || strcmp(by, ceph->files.owed.text) == 0 || !root_list_has(owed, by) ||
	       (ceph->debts && root_list_has(&ceph->debts->all, by));
}

int ceph_trash_make(struct ceph_pool *ceph, struct coppice_error *err)
{
	rados_write_op_t op = rados_create_write_op();
	int r;

	rados_write_op_create(op, LIBRADOS_CREATE_IDEMPOTENT, NULL);
	r = rados_write_op_operate(op, ceph->io, RBD_TRASH, NULL, 0);
	rados_release_write_op(op);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot make '%s/" RBD_TRASH "'", ceph->osd_pool)
		     : COPPICE_OK;
}

/*
 * RBD says no more than -ENOENT, also where it can make no list of what is in the trash, as the
 * pool is full.
 */
static int look_for_name(struct ceph_pool *ceph, const struct rbd *rbd, bool *ret,
			 struct coppice_error *err)
{
	char id[RBD_ID_MAX];
	int r = header_id(ceph, rbd->name, id, err);

	if (r < 0 && r != COPPICE_NOT_FOUND)
		return r;
	*ret = r == COPPICE_OK && strcmp(id, rbd->id) == 0 && header_is_there(ceph, rbd->id);
	return COPPICE_OK;
}

static int trash(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	int64_t deadline_ms = clock_ms() + MISSED_MS;
	bool is_there;
	int r;

	while ((r = rbd_trash_move(ceph->io, rbd->name, 0)) == -ENOENT) {
		if (look_for_name(ceph, rbd, &is_there, err) < 0)
			return err->code;
		if (!is_there)
			return COPPICE_OK; /* somebody else has let it arrive there */
		if (clock_ms() >= deadline_ms)
			break;
		clock_pause(WAIT_MS); /* he is at it: then it has its name for a moment only */
	}
	if (r == -EBUSY)
		return fail(err, COPPICE_BUSY,
			    "'%s/%s' is in use: it is open elsewhere; see: rbd status %s/%s",
			    ceph->osd_pool, rbd->name, ceph->osd_pool, rbd->name);
	if (r == -ESTALE)
		return COPPICE_OK; /* the same */
	if (r == -ENOENT && !ceph->full)
		return fail(err, COPPICE_BUSY,
			    "cannot move '%s/%s' into the trash: RBD does not find what it has the "
			    "name of",
			    ceph->osd_pool, rbd->name);
	if (r == -ENOENT)
		r = ceph->full;
	return r < 0 ? fail_ceph(ceph, r, err, "cannot move '%s/%s' into the trash", ceph->osd_pool,
				 rbd->name)
		     : COPPICE_OK;
}

/* ---- out of the trash ---- */

static bool is_own_snap(const char *name)
{
	return strcmp(name, IMAGE_SNAPSHOT) == 0 || strncmp(name, "snapshot_", 9) == 0 ||
	       strncmp(name, "copy_", 5) == 0;
}

/* Snapshots that are ours, of an image that is open; others may stand on them. */
static int remove_snaps(rbd_image_t image, const struct rbd *rbd)
{
	int r = 0;

	for (size_t i = 0; i < rbd->n_snaps && r >= 0; i++) {
		const char *name = rbd->snap[i].name;

		if (!is_own_snap(name))
			continue;
		r = rbd_snap_remove(image, name);
		r = r == -ENOENT ? 0 : r;
	}
	return r;
}

/* *ret_did: it is no more. What clones stand on stays, and is no error; *ret_busy: others have it.
 */
static int empty_one(struct ceph_pool *ceph, const struct rbd *rbd, bool *ret_did, bool *ret_busy,
		     struct coppice_error *err)
{
	bool was_moving = false;
	rbd_image_t image;
	int r = 0;

	*ret_did = false;
	*ret_busy = false;
	if (rbd->n_snaps > 0) {
		r = rbd_open_by_id(ceph->io, rbd->id, &image, NULL);
		if (r == 0) {
			r = remove_snaps(image, rbd);
			(void)rbd_close(image);
		}
	}
	if (r == 0)
		r = rbd_trash_remove(ceph->io, rbd->id, false);
	/* On its way into the trash, or out of it, or in use. Who moved it is dead, or is us. */
	if (r == -EUCLEAN || r == -EBUSY) {
		if (header_finish_move(ceph, rbd->name, rbd->id, &was_moving, err) < 0)
			return err->code;
		r = was_moving ? rbd_trash_remove(ceph->io, rbd->id, false) : r;
	}
	*ret_did = r == 0;
	*ret_busy = r == -EBUSY || r == -EINPROGRESS || r == -EUCLEAN;
	/* Others stand on it; or have it open; or have been faster. */
	if (r == -ENOTEMPTY || r == -ENOENT || *ret_busy)
		return COPPICE_OK;
	return r < 0 ? fail_ceph(ceph, r, err, "cannot remove '%s' from the trash of '%s'",
				 rbd->name, ceph->osd_pool)
		     : COPPICE_OK;
}

/* Clones stand on it, and nothing else of it could go. */
static bool is_pinned(const struct rbd *rbd)
{
	for (size_t i = 0; i < rbd->n_snaps; i++)
		if (is_own_snap(rbd->snap[i].name))
			return false;
	return rbd_children_of(rbd) > 0;
}

struct emptying {
	struct ceph_pool *ceph;
	const struct rbd **rbd; /* what may go; after the claims, what we may remove */
	size_t n, n_ours;
	const char **id; /* what we claimed for that */
	size_t n_ids;
	atomic_size_t n_removed, n_skipped;
};

static void emptying_done(struct emptying *emptying)
{
	ceph_images_release(emptying->ceph, emptying->id, emptying->n_ids);
	free(emptying->rbd);
	free(emptying->id);
}

/* One that could not be removed keeps nobody from trying the others. */
static int empty_step(void *user, size_t i, struct coppice_error *err)
{
	struct emptying *emptying = user;
	bool is_busy = false, did = false;
	int r = empty_one(emptying->ceph, emptying->rbd[i], &did, &is_busy, err);

	emptying->n_removed += did;
	emptying->n_skipped += is_busy;
	return r;
}

static const struct rbd *find_by_id(const struct rbd_list *listing, const char *id)
{
	for (size_t i = 0; i < listing->n; i++)
		if (strcmp(listing->rbd[i].id, id) == 0)
			return &listing->rbd[i];
	return NULL;
}

/* Headers of what was cloned, and is not in the trash itself. */
static int read_parents(const struct emptying *emptying, const struct rbd_list *trashed,
			struct rbd_list *parents, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < emptying->n && r == COPPICE_OK; i++) {
		const char *id = emptying->rbd[i]->parent.id;

		if (id[0] && !find_by_id(trashed, id) && !find_by_id(parents, id))
			r = rbd_listing_add(emptying->ceph, parents, id, err);
	}
	return r;
}

/*
 * Is the snapshot that a clone stands on one that RBD keeps for its clones only? With the last of
 * them it goes, for which RBD opens the image that it is of.
 */
static bool is_opened(const struct rbd *parent, uint64_t snap_id)
{
	for (size_t i = 0; parent && i < parent->n_snaps; i++)
		if (parent->snap[i].id == snap_id)
			return !is_own_snap(parent->snap[i].name);
	return false;
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool has_id(const struct emptying *emptying, const char *id)
{
	return bsearch(&id, emptying->id, emptying->n_ids, sizeof(id), compare_ids) != NULL;
}

/*
 * Two librbds that remove snapshots of one image ask each other for its lock, and one that is
 * just closing it may end by an assertion (16.2.15): so an image is claimed with what RBD opens
 * beside it.
 * @opened  of each that may go, the id of that; or NULL
 */
static int claim(struct emptying *emptying, const char *const opened[], struct coppice_error *err)
{
	_cleanup_(freep) bool *claimed = calloc(2 * emptying->n + 1, sizeof(*claimed));
	size_t n = 0, n_all = 0;
	int r;

	emptying->id = calloc(2 * emptying->n + 1, sizeof(*emptying->id));
	if (!claimed || !emptying->id)
		return fail_memory(err);
	for (size_t i = 0; i < emptying->n; i++) {
		emptying->id[n_all++] = emptying->rbd[i]->id;
		if (opened[i])
			emptying->id[n_all++] = opened[i];
	}
	qsort(emptying->id, n_all, sizeof(*emptying->id), compare_ids);
	for (size_t i = 0; i < n_all; i++)
		if (n == 0 || strcmp(emptying->id[i], emptying->id[n - 1]) != 0)
			emptying->id[n++] = emptying->id[i];
	r = ceph_images_claim(emptying->ceph, emptying->id, n, claimed, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		if (claimed[i])
			emptying->id[emptying->n_ids++] = emptying->id[i];
	for (size_t i = 0; i < emptying->n && r == COPPICE_OK; i++)
		if (has_id(emptying, emptying->rbd[i]->id) &&
		    (!opened[i] || has_id(emptying, opened[i])))
			emptying->rbd[emptying->n_ours++] = emptying->rbd[i];
	return r;
}

/* What may go now; of it those that nobody else is at. */
static int choose(struct emptying *emptying, const struct rbd_list *trashed,
		  struct coppice_error *err)
{
	_cleanup_(freep) const char **opened = calloc(trashed->n + 1, sizeof(*opened));
	_cleanup_(rbd_listing_done) struct rbd_list parents = { 0 };
	int r;

	emptying->rbd = calloc(trashed->n + 1, sizeof(*emptying->rbd));
	if (!opened || !emptying->rbd)
		return fail_memory(err);
	for (size_t i = 0; i < trashed->n; i++) {
		const struct rbd *rbd = &trashed->rbd[i];

		if (is_pinned(rbd))
			continue;
		if (is_ours_to_finish(emptying->ceph, &trashed->owed, rbd))
			emptying->rbd[emptying->n++] = rbd;
		else
			emptying->n_skipped++;
	}
	r = read_parents(emptying, trashed, &parents, err);
	for (size_t i = 0; i < emptying->n && r == COPPICE_OK; i++) {
		const struct rbd_parent *from = &emptying->rbd[i]->parent;
		const struct rbd *parent = find_by_id(trashed, from->id);

		parent = parent ? parent : find_by_id(&parents, from->id);
		if (is_opened(parent, from->snap_id))
			opened[i] = from->id;
	}
	return r < 0 ? r : claim(emptying, opened, err);
}

/* What went may have been the last that stood on another: again, until nothing goes. */
int ceph_reap_trash(struct ceph_pool *ceph, bool *ret_all, struct coppice_error *err)
{
	int64_t deadline_ms = clock_ms() + OTHERS_MS;
	bool is_done = false;
	int r = COPPICE_OK;

	while (!is_done && r == COPPICE_OK) {
		_cleanup_(rbd_listing_done) struct rbd_list trashed = { 0 };
		struct emptying emptying = { .ceph = ceph };
		bool is_others;

		r = rbd_trash_read(ceph, &trashed, err);
		if (r == COPPICE_OK)
			r = choose(&emptying, &trashed, err);
		if (r == COPPICE_OK)
			r = parallel_run(emptying.n_ours, CEPH_THREADS, empty_step, &emptying, err);
		is_others = emptying.n_ours < emptying.n;
		emptying_done(&emptying);
		*ret_all = emptying.n_skipped == 0 && !is_others;
		is_done = emptying.n_removed == 0 && (!is_others || clock_ms() >= deadline_ms);
		if (emptying.n_removed > 0)
			deadline_ms = clock_ms() + OTHERS_MS;
		else if (!is_done)
			clock_pause(WAIT_MS);
	}
	return r;
}

/* What it could not remove, as others stand on it, is reaped when they are gone. */
static int finish_removal(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	bool did, is_busy;
	int r = empty_one(ceph, rbd, &did, &is_busy, err);

	if (r < 0 || did || !header_is_there(ceph, rbd->id))
		return r;
	return is_busy ? fail(err, COPPICE_BUSY, "'%s/%s' is in use: it is open elsewhere",
			      ceph->osd_pool, rbd->name)
		       : mark(ceph, rbd, err);
}

/* RBD has no name for it, or two: whoever moved it into the trash was killed. */
static int remove_nameless(struct ceph_pool *ceph, const struct rbd *rbd, int why,
			   struct coppice_error *err)
{
	bool was_moving = false;
	int r;

	if (why == -ENOENT && !header_is_there(ceph, rbd->id)) /* RBD leaves its name then */
		return header_forget(ceph, rbd->name, rbd->id, err);
	r = header_finish_move(ceph, rbd->name, rbd->id, &was_moving, err);
	if (r == COPPICE_OK && was_moving)
		return finish_removal(ceph, rbd, err);
	/* It had a name when it was listed: who took that away since is alive, and still at it. */
	if (r == COPPICE_OK && why == -ENOENT)
		return fail(err, COPPICE_BUSY, "somebody else is just removing the image '%s/%s'",
			    ceph->osd_pool, rbd->name);
	return r < 0 ? r
		     : fail_ceph(ceph, why, err, "cannot remove the image '%s/%s'", ceph->osd_pool,
				 rbd->name);
}

/* What has a header and no name somebody else is just removing, or was when he was killed. */
static int remove_patiently(struct ceph_pool *ceph, const struct rbd *rbd)
{
	int64_t deadline_ms = clock_ms() + MISSED_MS;
	int r;

	while ((r = rbd_remove(ceph->io, rbd->name)) == -ENOENT && clock_ms() < deadline_ms &&
	       header_is_there(ceph, rbd->id)) {
		clock_pause(WAIT_MS);
	}
	return r;
}

int ceph_remove_image(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	rbd_image_t image;
	int r;

	if (rbd->is_half_removed)
		return finish_removal(ceph, rbd, err);
	r = ceph_umount(ceph, rbd->name, err);
	if (r < 0)
		return r;
	r = 0;
	if (rbd->n_snaps > 0) {
		r = rbd_open(ceph->io, rbd->name, &image, NULL);
		if (r == 0) {
			r = remove_snaps(image, rbd);
			(void)rbd_close(image);
		}
	}
	if (r == 0)
		r = remove_patiently(ceph, rbd);
	if (r == 0)
		return COPPICE_OK;
	if (r != -ENOTEMPTY)
		return remove_nameless(ceph, rbd, r, err);
	r = mark(ceph, rbd, err);
	return r < 0 ? r : trash(ceph, rbd, err);
}

/* ---- out of sight ---- */

/* A retired snapshot: its record goes, and a mark comes, in one step. */
static int retire_snapshot(struct ceph_pool *ceph, const struct rbd *rbd,
			   const struct rbd_snap *snap, struct coppice_error *err)
{
	char record[RBD_NAME_MAX + 32], removed[RBD_NAME_MAX + 32];
	int r;

	(void)snprintf(record, sizeof(record), META_SNAPSHOT "%s", snap->snapshot);
	(void)snprintf(removed, sizeof(removed), META_REMOVED "%s", snap->snapshot);
	r = header_change(
		ceph, rbd->id,
		(const struct meta[]){ { record, NULL }, { removed, "true" }, { NULL, NULL } },
		err);
	if (r == COPPICE_OK)
		r = ceph_snap_remove(ceph, rbd->name, snap->name, err);
	return r < 0 ? r
		     : header_change(ceph, rbd->id,
				     (const struct meta[]){ { removed, NULL }, { NULL, NULL } },
				     err);
}

/* What could not go is there as before, and not for the next sweep to take. */
static int mark_and_trash(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	struct coppice_error ignored;
	int r = mark(ceph, rbd, err);

	if (r < 0)
		return r;
	r = trash(ceph, rbd, err);
	if (r < 0 && r != COPPICE_UNAVAILABLE) /* then nobody knows whether it has arrived there */
		(void)header_change(ceph, rbd->id,
				    (const struct meta[]){ { META_DELETED, NULL }, { NULL, NULL } },
				    &ignored);
	return r;
}

/* With it what keeps snapshots of it, which are out of sight without it. */
static int retire_volume(struct ceph_pool *ceph, const struct rbd_list *listing,
			 const struct rbd *rbd, struct coppice_error *err)
{
	int r = mark_and_trash(ceph, rbd, err);

	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		if (listing->rbd[i].volume != rbd)
			continue;
		r = mark(ceph, &listing->rbd[i], err);
		if (r == COPPICE_OK)
			r = trash(ceph, &listing->rbd[i], err);
	}
	return r;
}

struct retiring {
	struct ceph_pool *ceph;
	const struct rbd_list *listing;
	const struct volume_ref *refs;
};

static int retire_one(void *user, size_t i, struct coppice_error *err)
{
	const struct retiring *retiring = user;
	struct rbd_snap *snap;
	struct rbd *rbd = rbd_find_ref(retiring->listing, &retiring->refs[i], &snap);

	return snap ? retire_snapshot(retiring->ceph, rbd, snap, err)
		    : retire_volume(retiring->ceph, retiring->listing, rbd, err);
}

static void retire_explain(struct pool *pool, const struct volume_ref *ref)
{
	char rbd[PATH_MAX], name[RBD_NAME_MAX], snapshot[RBD_NAME_MAX];

	ceph_explain_command(ceph_pool_of(pool), rbd);
	ceph_name(ref, name);
	ceph_snapshot_name(ref, snapshot);
	if (volume_is_snapshot(ref))
		ceph_explain(pool, "%s snap rm %s@%s", rbd, name, snapshot);
	else
		ceph_explain(pool, "%s trash mv %s", rbd, name);
}

/* What it added to the stamp: a snapshot by itself, a volume with all of its own. */
static uint64_t part_of(const struct rbd_list *listing, const struct volume_ref *ref)
{
	struct rbd_snap *snap;

	(void)rbd_find_ref(listing, ref, &snap);
	return snap ? ceph_hash(ref, snap->record) : rbd_part(listing, ref);
}

int ceph_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
		size_t n, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	struct retiring retiring = { .ceph = ceph, .listing = &listing, .refs = refs };
	struct coppice_error missing = COPPICE_ERROR_INIT, ignored;
	uint64_t sum = 0;
	size_t n_there;
	int r;

	for (size_t i = 0; i < n; i++)
		retire_explain(pool, &refs[i]);
	if (pool->is_dry_run || n == 0)
		return COPPICE_OK;
	ceph_reading_end(pool);
	r = rbd_listing_read_of(ceph, refs, n, &listing, err);
	if (r < 0)
		return r;
	for (n_there = 0; n_there < n; n_there++)
		if (!rbd_find_ref(&listing, &refs[n_there], NULL)) {
			(void)ceph_fail_missing(&refs[n_there], &missing);
			break;
		}
	for (size_t i = 0; i < n_there && r == COPPICE_OK; i++)
		r = ceph_umount_ref(ceph, &listing, &refs[i], err);
	if (r == COPPICE_OK)
		r = ceph_owe(ceph, err);
	if (r == COPPICE_OK && n_there > 0)
		r = parallel_run(n_there, CEPH_THREADS, retire_one, &retiring, err);
	for (size_t i = 0; i < n_there; i++)
		sum += part_of(&listing, &refs[i]);
	if (r == COPPICE_OK)
		r = ceph_stamp_add(ceph, (0 - sum) % STAMP_MODULUS, refs, n_there, err);
	else
		(void)ceph_stamp_touch(ceph, &ignored);
	if (r < 0) {
		ceph_leave_owed(ceph);
		return r;
	}
	if (missing.code < 0)
		*err = missing;
	return missing.code;
}

/* ---- after a kill ---- */

static int finish_snapshots(struct ceph_pool *ceph, const struct rbd *rbd,
			    struct coppice_error *err)
{
	size_t n = strlen(META_REMOVED);
	int r = COPPICE_OK;

	for (size_t i = 0; rbd->meta && rbd->meta[i] && r == COPPICE_OK; i += 2) {
		char snapshot[RBD_NAME_MAX];

		if (strncmp(rbd->meta[i], META_REMOVED, n) != 0 || !rbd_meta(rbd, rbd->meta[i]))
			continue;
		(void)snprintf(snapshot, sizeof(snapshot), "snapshot_%s", rbd->meta[i] + n);
		r = ceph_snap_remove(ceph, rbd->name, snapshot, err);
		if (r == COPPICE_OK)
			r = header_change(
				ceph, rbd->id,
				(const struct meta[]){ { rbd->meta[i], NULL }, { NULL, NULL } },
				err);
	}
	return r;
}

/* One that keeps snapshots of what is not there; and in no draft. */
static bool is_orphan(const struct rbd_list *listing, const struct rbd *rbd)
{
	if (strncmp(rbd->name, "kept_", 5) != 0 || rbd->volume || rbd->is_pending)
		return false;
	if (rbd->is_half_removed)
		return true;
	for (size_t i = 0; i < listing->n; i++) /* it is of what is being made */
		if (&listing->rbd[i] != rbd && rbd->group.text[0] &&
		    strcmp(listing->rbd[i].uuid.text, rbd->group.text) == 0 &&
		    strncmp(listing->rbd[i].name, "kept_", 5) != 0)
			return false;
	return true;
}

/* Two who remove one at once are too many for librbd: one of them. */
static int remove_claimed(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	const char *id = rbd->id;
	bool is_claimed = false;
	int r = ceph_images_claim(ceph, &id, 1, &is_claimed, err);

	if (r < 0 || !is_claimed)
		return r;
	r = ceph_remove_image(ceph, rbd, err);
	ceph_images_release(ceph, &id, 1);
	return r == COPPICE_BUSY ? COPPICE_OK : r; /* it is left to whoever is at it */
}

static int finish_one(struct ceph_pool *ceph, const struct rbd_list *listing, const struct rbd *rbd,
		      struct coppice_error *err)
{
	int r;

	if (is_orphan(listing, rbd))
		return remove_claimed(ceph, rbd, err);
	if (rbd->is_half_removed) /* by a draft, which ends; or by a user, whose it is */
		return COPPICE_OK;
	if (!rbd->is_retired)
		return finish_snapshots(ceph, rbd, err);
	if (!is_ours_to_finish(ceph, &listing->owed, rbd))
		return COPPICE_OK;
	r = ceph_umount(ceph, rbd->name, err);
	return r < 0 ? r : trash(ceph, rbd, err);
}

int ceph_finish_retired(struct ceph_pool *ceph, const struct rbd_list *listing,
			struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++)
		r = finish_one(ceph, listing, &listing->rbd[i], err);
	return r;
}

int ceph_reap(struct pool *pool, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(ceph_debts_done) struct ceph_debts debts = { 0 };
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	bool is_all = true;
	int r;

	if (pool->is_dry_run || (ceph->files.owed_fd < 0 && state_is_clean(&ceph->files)))
		return COPPICE_OK;
	r = ceph_debts_take(ceph, &debts, err);
	ceph->debts = &debts;
	if (r == COPPICE_OK && debts.all.n > 0) {
		r = rbd_listing_read_rest(ceph, &listing, err);
		if (r == COPPICE_OK)
			r = ceph_finish_retired(ceph, &listing, err);
	}
	/* Whoever owed that may have changed what the stamp is to tell of. */
	if (r == COPPICE_OK && debts.all.n > 0)
		r = ceph_stamp_touch(ceph, err);
	if (r == COPPICE_OK)
		r = ceph_reap_trash(ceph, &is_all, err);
	ceph->debts = NULL;
	/* What others are at they may leave, if ours was the last that stood on it. */
	if (r == COPPICE_OK && is_all)
		ceph_debts_paid(ceph, &debts);
	else
		ceph_leave_owed(ceph);
	return r;
}

/* ---- what is still held ---- */

static int sum_extent(uint64_t offset, size_t length, int exists, void *user)
{
	if (exists)
		*(uint64_t *)user += length;
	return 0;
}

/* What its own objects take, with its snapshots, as far as RBD keeps count. */
static struct coppice_bytes bytes_of(struct ceph_pool *ceph, const struct rbd *rbd)
{
	struct coppice_bytes bytes = { 0 };
	uint64_t sum = 0;
	rbd_image_t image;

	if (rbd_open_by_id_read_only(ceph->io, rbd->id, &image, NULL) < 0)
		return bytes;
	if (rbd_diff_iterate2(image, NULL, 0, rbd->size_bytes, 0, 1, sum_extent, &sum) == 0)
		bytes = (struct coppice_bytes){ COPPICE_EXACT, sum };
	(void)rbd_close(image);
	return bytes;
}

int ceph_pinned(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(rbd_listing_done) struct rbd_list trashed = { 0 };
	int r = rbd_trash_read(ceph, &trashed, err);

	for (size_t i = 0; i < trashed.n && r >= 0; i++)
		if (trashed.rbd[i].record)
			r = fn(user, trashed.rbd[i].record, bytes_of(ceph, &trashed.rbd[i]), err);
	return r < 0 ? r : COPPICE_OK;
}
