/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong in a pool that only RBD knows. */
#include "driver/ceph/ceph.h"

#include <stdarg.h>
#include <string.h>

#include "base/text.h"

struct checking {
	struct ceph_pool *ceph;
	const struct rbd_list *listing;
	bool is_repair;
	scan_fn *fn;
	void *user;
};

_printf_(6, 7) static int tell(struct checking *checking, const struct volume_ref *ref,
			       const char *what, bool is_remark, struct coppice_error *err,
			       const char *fmt, ...)
{
	_cleanup_(freep) char *problem = NULL;
	struct found_volume found = { .ref = *ref, .what = what, .is_remark = is_remark };
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&problem, fmt, args) < 0)
		problem = NULL;
	va_end(args);
	if (!problem)
		return fail_memory(err);
	found.problem = problem;
	return checking->fn(checking->user, &found, err);
}

/* Of what has no name of ours, that of its image. */
static struct volume_ref ref_of(const struct rbd *rbd)
{
	struct volume_ref ref = { .kind = VOLUME_CUSTOM };

	if (!rbd_ref(rbd, &ref))
		(void)snprintf(ref.name.text, sizeof(ref.name.text), "%.*s", VOLUME_NAME_MAX,
			       rbd->name);
	return ref;
}

static bool has_snapshot(const struct rbd *rbd, const char *name)
{
	for (size_t i = 0; i < rbd->n_snaps; i++)
		if (strcmp(rbd->snap[i].name, name) == 0)
			return true;
	return false;
}

static int check_snapshots(struct checking *checking, const struct rbd *rbd,
			   struct coppice_error *err)
{
	struct volume_ref ref = ref_of(rbd);
	int r = COPPICE_OK;

	if (ref.kind == VOLUME_IMAGE && !has_snapshot(rbd, IMAGE_SNAPSHOT))
		r = tell(checking, &ref, "image-broken", false, err,
			 "'%s/%s' has no snapshot '" IMAGE_SNAPSHOT "', which clones are made of",
			 checking->ceph->osd_pool, rbd->name);
	for (size_t i = 0; i < rbd->n_snaps && r >= 0; i++) {
		const struct rbd_snap *snap = &rbd->snap[i];

		if (snap->snapshot && !snap->record && !snap->is_removed && !snap->is_pending)
			r = tell(checking, &ref, "stranger", true, err,
				 "'%s/%s@%s' is a snapshot that Coppice did not make",
				 checking->ceph->osd_pool, rbd->name, snap->name);
	}
	return r;
}

/* A reboot, or an unmount while the cluster did not answer, has left it: it is removed. */
static int check_view(struct checking *checking, const struct rbd *rbd, struct coppice_error *err)
{
	_cleanup_(ceph_turn_give) struct ceph_turn turn = { 0 };
	struct volume_ref ref = ref_of(rbd);
	struct found_volume found = { .ref = ref, .what = "view-left" };
	struct coppice_error ignored;
	_cleanup_(freep) char *problem =
		text_format("'%s/%s' is left of reading a snapshot, which it keeps",
			    checking->ceph->osd_pool, rbd->name);

	if (!problem)
		return fail_memory(err);
	found.problem = problem;
	/* Somebody who gave up may be about to have it. */
	if (checking->is_repair &&
	    ceph_turn_take(checking->ceph, rbd->name, &turn, &ignored) == COPPICE_OK) {
		if (!ceph_is_view_left(checking->ceph, rbd->name))
			return COPPICE_OK;
		found.is_repaired = rbd_remove(checking->ceph->io, rbd->name) == 0;
	}
	found.is_remark = !found.is_repaired;
	return checking->fn(checking->user, &found, err);
}

static int check_one(struct checking *checking, const struct rbd *rbd, struct coppice_error *err)
{
	struct volume_ref ref = ref_of(rbd);

	if (ceph_is_view_left(checking->ceph, rbd->name))
		return check_view(checking, rbd, err);
	if (strncmp(rbd->name, "kept_", 5) == 0 && !rbd->volume && !rbd->is_pending &&
	    rbd->group.text[0])
		return tell(checking, &ref, "snapshot-lost", false, err,
			    "'%s/%s' keeps snapshots of a volume that is not there; they are: rbd "
			    "snap ls %s/%s",
			    checking->ceph->osd_pool, rbd->name, checking->ceph->osd_pool,
			    rbd->name);
	return rbd_is_hidden(rbd) ? COPPICE_OK : check_snapshots(checking, rbd, err);
}

int ceph_check(struct pool *pool, bool is_repair, scan_fn *fn, void *user,
	       struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	struct checking checking = { .ceph = ceph_pool_of(pool),
				     .listing = &listing,
				     .is_repair = is_repair && !pool->is_dry_run,
				     .fn = fn,
				     .user = user };
	int r = rbd_listing_read(checking.ceph, &listing, err);

	if (checking.is_repair)
		ceph_depth_look(checking.ceph);
	for (size_t i = 0; i < listing.n && r >= 0; i++)
		r = check_one(&checking, &listing.rbd[i], err);
	return r < 0 ? r : COPPICE_OK;
}
