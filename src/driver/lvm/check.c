/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong in a thin pool that only LVM and the kernel know. */
#include "driver/lvm/lvm.h"

#include <string.h>

#include "base/text.h"

struct checking {
	struct session *session;
	const struct lv_list *listing;
	bool is_repair;
	scan_fn *fn;
	void *user;
};

#define REPAIRED 1U
#define REMARK   2U

_printf_(6, 7) static int tell(struct checking *checking, const struct volume_ref *ref,
			       const char *what, unsigned flags, struct coppice_error *err,
			       const char *fmt, ...)
{
	_cleanup_(freep) char *problem = NULL;
	struct found_volume found = { .ref = *ref, .what = what };
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&problem, fmt, args) < 0)
		problem = NULL;
	va_end(args);
	if (!problem)
		return fail_memory(err);
	found.problem = problem;
	found.is_repaired = flags & REPAIRED;
	found.is_remark = flags & REMARK;
	return checking->fn(checking->user, &found, err);
}

/* Of what has no name of ours, that of its logical volume. */
static struct volume_ref ref_of(const struct lvm_pool *lvm, const struct lv *lv)
{
	struct volume_ref ref = { .kind = VOLUME_CUSTOM };

	if (!lv_ref(lvm, lv, &ref))
		(void)snprintf(ref.name.text, sizeof(ref.name.text), "%.*s", VOLUME_NAME_MAX,
			       lv->name);
	return ref;
}

/* ---- the pool ---- */

static unsigned percent(uint64_t part, uint64_t whole)
{
	return whole ? (unsigned)(part * 100 / whole) : 0;
}

static int check_status(struct checking *checking, struct coppice_error *err)
{
	const struct lvm_pool *lvm = checking->session->lvm;
	struct volume_ref pool = { .kind = VOLUME_CUSTOM };
	struct pool_status status;
	int r = lvm_pool_status(lvm, &status, err);

	if (r < 0)
		return r;
	(void)snprintf(pool.name.text, sizeof(pool.name.text), "%.*s", VOLUME_NAME_MAX, lvm->thin);
	if (status.needs_check)
		r = tell(checking, &pool, "pool-needs-check", 0, err,
			 "the kernel asks for a check of its metadata: unmount the pool, then: "
			 "lvconvert --repair %s/%s",
			 lvm->vg, lvm->thin);
	else if (status.is_read_only)
		r = tell(checking, &pool, "pool-read-only", 0, err,
			 "the kernel lets nothing be written into it: its data is %u %% full, its "
			 "metadata %u %%",
			 percent(status.used_blocks, status.total_blocks),
			 percent(status.used_metadata_blocks, status.total_metadata_blocks));
	return r;
}

/* ---- logical volumes ---- */

static int check_mode(struct checking *checking, const struct lv *lv, json_t *row,
		      struct coppice_error *err)
{
	struct lvm_pool *lvm = checking->session->lvm;
	struct volume_ref ref = ref_of(lvm, lv);
	bool is_fixed = volume_is_snapshot(&ref) || ref.kind == VOLUME_IMAGE;
	bool is_writable = strncmp(lvm_field(row, "lv_attr"), "Vw", 2) == 0; /* "Vri---tz-k" */
	int r = COPPICE_OK;

	if (is_fixed != is_writable)
		return COPPICE_OK;
	if (checking->is_repair)
		r = session_do(checking->session, NULL, err, "lvchange -q -p%s %s/%s",
			       is_fixed ? "r" : "rw", lvm->vg, lv->name);
	return r < 0 ? r
		     : tell(checking, &ref, "mode-wrong", checking->is_repair ? REPAIRED : 0, err,
			    "'%s/%s' is %s", lvm->vg, lv->name,
			    is_fixed ? "writable, and nobody is to change it"
				     : "read-only, and is to be written");
}

static int check_skip(struct checking *checking, const struct lv *lv, json_t *row,
		      struct coppice_error *err)
{
	struct lvm_pool *lvm = checking->session->lvm;
	struct volume_ref ref = ref_of(lvm, lv);
	int r = COPPICE_OK;

	if (lvm_field(row, "lv_skip_activation")[0])
		return COPPICE_OK;
	if (checking->is_repair)
		r = session_do(checking->session, NULL, err, "lvchange -q -ky %s/%s", lvm->vg,
			       lv->name);
	return r < 0 ? r
		     : tell(checking, &ref, "activation-wrong", checking->is_repair ? REPAIRED : 0,
			    err, "'%s/%s' would be activated when the machine starts", lvm->vg,
			    lv->name);
}

/* The snapshots of what somebody removed with lvremove. */
static int check_lost(struct checking *checking, const struct lv *lv, struct coppice_error *err)
{
	struct lvm_pool *lvm = checking->session->lvm;
	struct volume_ref ref = ref_of(lvm, lv);

	return tell(checking, &ref, "snapshot-lost", 0, err,
		    "'%s/%s' is the snapshot '%s' of a volume that is not there; its data is: "
		    "copy what you need, then: lvremove %s/%s",
		    lvm->vg, lv->name, lv->snapshot, lvm->vg, lv->name);
}

/* Neither in a draft, nor with one that is deleted. */
static bool is_lost(const struct checking *checking, const struct lv *lv)
{
	return lv->snapshot[0] && !lv->volume && !lv->draft.text[0] && !lv->is_pending &&
	       !lv_is_of_deleted(checking->listing, lv);
}

static int check_name(struct checking *checking, const struct lv *lv, struct coppice_error *err)
{
	struct lvm_pool *lvm = checking->session->lvm;
	struct volume_ref ref = ref_of(lvm, lv);
	struct coppice_error ignored;
	char name[LV_NAME_MAX];

	if (lvm_name(lvm, &ref, name, &ignored) < 0 || strcmp(name, lv->name) == 0)
		return COPPICE_OK;
	return tell(checking, &ref, "name-wrong", checking->is_repair ? REPAIRED : 0, err,
		    "'%s/%s' should be called '%s'", lvm->vg, lv->name, name);
}

static int check_one(struct checking *checking, const struct lv *lv, json_t *row,
		     struct coppice_error *err)
{
	struct lvm_pool *lvm = checking->session->lvm;
	int r;

	if (lv_is_stranger(lv)) {
		struct volume_ref stranger = ref_of(lvm, lv);

		return tell(checking, &stranger, "stranger", REMARK, err,
			    "'%s/%s' lies in the pool and is none of Coppice", lvm->vg, lv->name);
	}
	if (is_lost(checking, lv))
		return check_lost(checking, lv, err);
	if (lv_is_hidden(lvm, lv))
		return COPPICE_OK;
	r = check_mode(checking, lv, row, err);
	if (r >= 0)
		r = check_skip(checking, lv, row, err);
	return r < 0 || !lv->snapshot[0] ? r : check_name(checking, lv, err);
}

static int check_all(struct checking *checking, struct coppice_error *err)
{
	json_t *report, *rows, *row;
	size_t i;
	int r = session_do(checking->session, &report, err,
			   "lvs -o lv_name,lv_attr,lv_skip_activation %s",
			   checking->session->lvm->vg);

	if (r < 0)
		return r;
	rows = json_object_get(json_array_get(json_object_get(report, "report"), 0), "lv");
	json_array_foreach (rows, i, row) {
		const struct lv *lv = lv_list_find(checking->listing, lvm_field(row, "lv_name"));

		if (r >= 0 && lv)
			r = check_one(checking, lv, row, err);
	}
	json_decref(report);
	return r;
}

int lvm_check(struct pool *pool, bool is_repair, scan_fn *fn, void *user, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	struct checking checking = { .session = &session,
				     .listing = &listing,
				     .is_repair = is_repair && !pool->is_dry_run,
				     .fn = fn,
				     .user = user };
	int r;

	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lv_list_read(&session, &listing, err);
	if (r == COPPICE_OK)
		r = check_status(&checking, err);
	if (r >= 0)
		r = check_all(&checking, err);
	if (r >= 0 && checking.is_repair)
		r = lvm_names_mend(&session, &listing, err);
	return r < 0 ? r : COPPICE_OK;
}
