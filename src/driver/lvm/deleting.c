/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes cease to be. Nothing stands on a thin snapshot's origin, so what has no snapshots is
 * removed at once, and its blocks are free. One with snapshots is renamed first, which takes
 * them out of sight with it; then all are removed.
 */
#include "driver/lvm/lvm.h"

#include <string.h>

#include "base/text.h"

/* As many words as lvm takes in a line are 64. */
#define AT_ONCE 50

int lvm_remove(struct session *session, const char *const names[], size_t n,
	       struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i += AT_ONCE) {
		_cleanup_(text_done) struct text words = TEXT_INIT;
		_cleanup_(freep) char *line = NULL;

		for (size_t k = i; k < n && k < i + AT_ONCE; k++)
			text_add(&words, " %s/%s", session->lvm->vg, names[k]);
		line = text_take(&words);
		r = line ? session_do(session, NULL, err, "lvremove -q -y -f%s", line)
			 : fail_memory(err);
	}
	return r;
}

/* ---- out of sight ---- */

static bool has_snapshots(const struct lv_list *listing, const struct lv *lv)
{
	for (size_t i = 0; i < listing->n; i++)
		if (listing->lv[i].volume == lv)
			return true;
	return false;
}

/* All that is there, before the first that is not; *ret_n: how many. */
static int find_all(struct lvm_pool *lvm, const struct lv_list *listing,
		    const struct volume_ref *refs, size_t n, struct lv *ret[], size_t *ret_n,
		    struct coppice_error *err)
{
	for (*ret_n = 0; *ret_n < n; ++*ret_n) {
		ret[*ret_n] = lv_list_find_ref(lvm, listing, &refs[*ret_n]);
		if (!ret[*ret_n])
			return lvm_fail_missing(&refs[*ret_n], err);
	}
	return COPPICE_OK;
}

/* Under another name when one of this uuid lies there already: it was moved away and came back. */
static int bury(struct session *session, const struct lv_list *listing, const struct lv *lv,
		struct coppice_error *err)
{
	char to[LV_NAME_MAX];
	struct uuid other = lv->uuid;
	int r = COPPICE_OK;

	(void)snprintf(to, sizeof(to), "deleted_%s", other.text);
	if (lv_list_find(listing, to))
		r = uuid_new(&other, err);
	if (r < 0)
		return r;
	return session_do(session, NULL, err, "lvrename -q %s/%s %s/deleted_%s", session->lvm->vg,
			  lv->name, session->lvm->vg, other.text);
}

static int retire_all(struct session *session, const struct lv_list *listing,
		      const struct volume_ref *refs, struct lv *const lvs[], size_t n,
		      struct coppice_error *err)
{
	_cleanup_(freep) const char **bare = calloc(n + 1, sizeof(*bare));
	size_t n_bare = 0;
	int r = COPPICE_OK;

	if (!bare)
		return fail_memory(err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = lvm_umount_ref(session, listing, &refs[i], err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		if (!has_snapshots(listing, lvs[i])) {
			bare[n_bare++] = lvs[i]->name;
			continue;
		}
		state_owe(&session->lvm->files);
		r = bury(session, listing, lvs[i], err);
	}
	return r < 0 ? r : lvm_remove(session, bare, n_bare, err);
}

static void retire_explain(struct pool *pool, const struct volume_ref *ref)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	struct coppice_error ignored;
	char name[LV_NAME_MAX];

	if (lvm_name(lvm, ref, name, &ignored) == COPPICE_OK)
		lvm_explain(pool, "lvremove -y %s/%s", lvm->vg, name);
}

/* Under the locks that they are deleted under nobody has changed them since they were read. */
static int take_listing(struct session *session, struct lv_list *ret, struct coppice_error *err)
{
	struct lv_list *reading = take_ptr(&session->lvm->reading);

	if (!reading)
		return lv_list_read(session, ret, err);
	*ret = *reading;
	free(reading);
	return COPPICE_OK;
}

int lvm_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids, size_t n,
	       struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	_cleanup_(freep) struct lv **lvs = calloc(n + 1, sizeof(struct lv *));
	struct coppice_error missing = COPPICE_ERROR_INIT;
	size_t n_there = 0;
	int r, is_missing;

	for (size_t i = 0; i < n; i++)
		retire_explain(pool, &refs[i]);
	if (pool->is_dry_run || n == 0)
		return COPPICE_OK;
	if (!lvs)
		return fail_memory(err);
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = take_listing(&session, &listing, err);
	if (r < 0)
		return r;
	is_missing = find_all(lvm, &listing, refs, n, lvs, &n_there, &missing);
	r = retire_all(&session, &listing, refs, lvs, n_there, err);
	if (r == COPPICE_OK && is_missing < 0) {
		*err = missing;
		return is_missing;
	}
	if (r < 0)
		state_leave_owed(&lvm->files);
	return r;
}

/* ---- removing what was retired ---- */

/* By commands of their own, as lvm removes what one command names in an order of its own. */
static int remove_which(struct session *session, const struct lv_list *listing, bool are_snapshots,
			struct coppice_error *err)
{
	_cleanup_(freep) const char **name = calloc(listing->n + 1, sizeof(*name));
	size_t n = 0;
	int r = COPPICE_OK;

	if (!name)
		return fail_memory(err);
	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		const struct lv *lv = &listing->lv[i];

		if (are_snapshots ? !lv_is_of_deleted(listing, lv) : !lv_is_deleted(lv))
			continue;
		name[n++] = lv->name;
		r = lvm_umount(session, lv->name, err);
	}
	return r < 0 ? r : lvm_remove(session, name, n, err);
}

/* The snapshots before what says that they are to go. */
int lvm_reap_in(struct session *session, const struct lv_list *listing, struct coppice_error *err)
{
	int r = remove_which(session, listing, true, err);

	return r < 0 ? r : remove_which(session, listing, false, err);
}

int lvm_reap(struct pool *pool, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	_cleanup_(state_debts_done) struct state_debts debts = { 0 };
	int r;

	if (pool->is_dry_run || (lvm->files.owed_fd < 0 && state_is_clean(&lvm->files)))
		return COPPICE_OK;
	state_debts_take(&lvm->files, &debts);
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lv_list_read(&session, &listing, err);
	if (r == COPPICE_OK)
		r = lvm_reap_in(&session, &listing, err);
	if (r == COPPICE_OK)
		r = lvm_names_mend(&session, &listing, err);
	if (r == COPPICE_OK)
		state_debts_paid(&lvm->files, &debts);
	else
		state_leave_owed(&lvm->files);
	return r;
}

/* Nothing is ever held by others. */
int lvm_pinned(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err)
{
	return COPPICE_OK;
}
