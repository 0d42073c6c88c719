/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafts. One is a file STATE/lvm/NAME/UUID that its maker holds by flock. What is made in it
 * is called draft_UUID until it is published. Clones that were announced are made under their
 * names at once, with the draft's uuid in a tag: they are unseen as long as the file is there,
 * and removing it shows all of them in one step. A sweep that finds the maker dead does so.
 */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"

#define GIVEN_UP "given up\n"

/* What is announced is not to be: said before the first of it is removed. */
static int give_up(int fd, struct coppice_error *err)
{
	if (pwrite(fd, GIVEN_UP, strlen(GIVEN_UP), 0) < 0 || fsync(fd) < 0)
		return fail_errno(err, errno, "cannot write that a draft is given up");
	return COPPICE_OK;
}

static bool was_given_up(int fd)
{
	char first;

	return fd >= 0 && pread(fd, &first, 1, 0) == 1 && first == GIVEN_UP[0];
}

/* ---- beginning ---- */

int lvm_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err)
{
	struct draft draft = { .pool = pool, .fd = -1 };
	int r = COPPICE_OK;

	lvm_explain(pool, "draft=$(cat /proc/sys/kernel/random/uuid)");
	draft.driver = calloc(1, sizeof(struct lvm_making));
	if (!draft.driver)
		return fail_memory(err);
	if (!pool->is_dry_run)
		r = state_lock_new(&lvm_pool_of(pool)->files, "", &draft.id, &draft.fd, err);
	if (r < 0) {
		free(draft.driver);
		return r;
	}
	*ret = draft;
	return COPPICE_OK;
}

/* Not of what is whole only when others of the draft are. */
int lvm_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
		       struct coppice_error *err)
{
	bool has_nested = false;

	for (size_t i = 0; i < n; i++)
		has_nested |= volumes[i].has_nested;
	draft->is_announced = !has_nested && !lvm_making_of(draft)->has_items;
	return COPPICE_OK;
}

int lvm_draft_path(struct draft *draft, const struct new_volume *volume, char **ret,
		   struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	_cleanup_(freep) char *path = lvm_item_path(draft, volume);
	char name[LV_NAME_MAX];
	struct lv *lv;
	bool did;
	int r = COPPICE_OK;

	if (!path)
		return fail_memory(err);
	if (!draft->pool->is_dry_run) {
		lvm_item_name(volume, name);
		r = session_begin(lvm, true, &session, err);
		if (r == COPPICE_OK)
			r = lv_list_read(&session, &listing, err);
		lv = r == COPPICE_OK ? lv_list_find(&listing, name) : NULL;
		if (r == COPPICE_OK && !lv)
			r = fail(err, COPPICE_FAILED, "'%s' is not in the draft",
				 volume->ref.name.text);
		if (r == COPPICE_OK)
			r = volume_is_block(&volume->ref) ? lvm_open_block(&session, lv, &did, err)
							  : lvm_mount_at(&session, lv, path, err);
	}
	if (r == COPPICE_OK)
		*ret = take_ptr(&path);
	return r;
}

/* ---- ending ---- */

static bool is_named_draft(const struct lv *lv)
{
	return strncmp(lv->name, "draft_", 6) == 0;
}

/* A volume that is in draft @id, and has no name. */
static bool is_item(const struct lv *lv, const char *id)
{
	return is_named_draft(lv) && strcmp(lv->draft.text, id) == 0;
}

/* A snapshot that is to be seen with a volume that is in the draft. */
static bool is_nested_in(const struct lv_list *listing, const struct lv *lv, const char *id)
{
	if (!lv->snapshot[0] || lv->volume || lv->draft.text[0])
		return false;
	for (size_t i = 0; i < listing->n; i++)
		if (is_item(&listing->lv[i], id) && !listing->lv[i].snapshot[0] &&
		    strcmp(listing->lv[i].uuid.text, lv->group.text) == 0)
			return true;
	return false;
}

static bool is_to_go(const struct lv_list *listing, const struct lv *lv, const char *id,
		     bool is_given_up)
{
	/* A snapshot that was to be published, and has got its name, but is not seen. */
	if (lv->snapshot[0] && strcmp(lv->draft.text, id) == 0)
		return true;
	if (is_given_up && strcmp(lv->announced.text, id) == 0)
		return true;
	return is_item(lv, id) || is_nested_in(listing, lv, id);
}

/* Of a maker who died while he swapped: the data that was live lies in the draft. */
static int recover_swaps(struct session *session, const struct lv_list *listing, const char *id,
			 bool *ret_did, struct coppice_error *err)
{
	int r = COPPICE_OK;

	*ret_did = false;
	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		char name[LV_NAME_MAX];

		if (!is_item(&listing->lv[i], id) ||
		    !tag_get(listing->lv[i].tags, TAG_SWAP, name, sizeof(name)))
			continue;
		*ret_did = true;
		r = lvm_swap_recover(session, listing, &listing->lv[i], name, err);
	}
	return r;
}

static int remove_which(struct session *session, const struct lv_list *listing, const char *id,
			bool is_given_up, bool are_snapshots, struct coppice_error *err)
{
	_cleanup_(freep) const char **name = calloc(listing->n + 1, sizeof(*name));
	size_t n = 0;
	int r = COPPICE_OK;

	if (!name)
		return fail_memory(err);
	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		if ((listing->lv[i].snapshot[0] != '\0') != are_snapshots ||
		    !is_to_go(listing, &listing->lv[i], id, is_given_up))
			continue;
		name[n++] = listing->lv[i].name;
		r = lvm_umount(session, listing->lv[i].name, err);
	}
	return r < 0 ? r : lvm_remove(session, name, n, err);
}

/* Snapshots first: that they are to go is known by what they are of. */
static int remove_content(struct session *session, const struct lv_list *listing, const char *id,
			  bool is_given_up, struct coppice_error *err)
{
	int r = remove_which(session, listing, id, is_given_up, true, err);

	return r < 0 ? r : remove_which(session, listing, id, is_given_up, false, err);
}

static void remove_folder(struct lvm_pool *lvm, const char *id)
{
	_cleanup_(freep) char *folder = text_format("%s/drafts/%s", lvm->mount, id);

	if (folder)
		(void)rmdir(folder);
}

/* End draft @id, held by @fd: what it announced is shown, or removed; the rest removed. */
static int draft_end(struct lvm_pool *lvm, const char *id, int fd, struct coppice_error *err)
{
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	bool did_recover = false;
	int r;

	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK && lvm->is_doubtful)
		r = lvm_confirm(&session, err);
	if (r == COPPICE_OK)
		r = lv_list_read(&session, &listing, err);
	if (r == COPPICE_OK)
		r = recover_swaps(&session, &listing, id, &did_recover, err);
	if (r == COPPICE_OK && did_recover) {
		lv_list_done(&listing);
		r = lv_list_read(&session, &listing, err);
	}
	if (r == COPPICE_OK)
		r = remove_content(&session, &listing, id, was_given_up(fd), err);
	if (r < 0)
		return r;
	/* Who publishes has the catalog, and wants the group: not the other way round here. */
	session_end(&session);
	remove_folder(lvm, id);
	if (!was_given_up(fd))
		return state_draft_show(&lvm->files, &lvm->pool, id, err);
	state_lock_remove(&lvm->files, id);
	return COPPICE_OK;
}

/* Most are empty by now, and then there is nothing to ask lvm for. */
static int discard(struct lvm_pool *lvm, struct draft *draft, struct coppice_error *err)
{
	int r;

	if (lvm_making_of(draft)->n_announced == 0 && !lvm_making_of(draft)->has_items) {
		state_lock_remove(&lvm->files, draft->id.text);
		return COPPICE_OK;
	}
	r = give_up(draft->fd, err);
	return r < 0 ? r : draft_end(lvm, draft->id.text, draft->fd, err);
}

int lvm_draft_discard(struct draft *draft, struct coppice_error *err)
{
	struct pool *pool = take_ptr(&draft->pool);
	int r = COPPICE_OK;

	if (!pool)
		return COPPICE_OK;
	if (draft->fd >= 0) {
		r = discard(lvm_pool_of(pool), draft, err);
		(void)close(take_fd(&draft->fd));
	}
	free(take_ptr(&draft->driver));
	return r;
}

/* ---- after the dead ---- */

static int end_dead(void *user, const char *id, int fd, struct coppice_error *err)
{
	struct lvm_pool *lvm = user;

	lvm->is_doubtful = true;
	return draft_end(lvm, id, fd, err);
}

/* Those whose files are not there: the state directory is not the one that they were made from. */
static int sweep_lost(struct lvm_pool *lvm, const struct lv_list *listing, size_t *n,
		      struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		const struct lv *lv = &listing->lv[i];
		_cleanup_(closep) int fd = -1;

		if (!is_named_draft(lv) || !lv->draft.text[0] ||
		    !state_lock_is_over(&lvm->files, lv->draft.text, &fd))
			continue;
		r = draft_end(lvm, lv->draft.text, fd, err);
		*n += r == COPPICE_OK;
	}
	return r;
}

static int confirm(struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(session_end) struct session session = { 0 };
	int r = session_begin(lvm, true, &session, err);

	return r < 0 ? r : lvm_confirm(&session, err);
}

static int mend_all(struct lvm_pool *lvm, size_t *n, struct coppice_error *err)
{
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	int r = confirm(lvm, err);

	if (r == COPPICE_OK)
		r = lvm_list_read(lvm, &listing, err);
	if (r == COPPICE_OK)
		r = sweep_lost(lvm, &listing, n, err);
	lv_list_done(&listing);
	if (r == COPPICE_OK)
		r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lv_list_read(&session, &listing, err);
	if (r == COPPICE_OK)
		r = lvm_reap_in(&session, &listing, err);
	return r < 0 ? r : lvm_names_mend(&session, &listing, err);
}

/*
 * Cheap when there is nothing: no command at all. Not explained: what others left is no
 * part of what was asked for.
 */
int lvm_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(state_debts_done) struct state_debts debts = { 0 };
	size_t n = 0;
	int r;

	if (pool->is_dry_run) {
		*ret_n = 0;
		return COPPICE_OK;
	}
	r = state_drafts_each(&lvm->files, end_dead, lvm, &n, err);
	if (r == COPPICE_OK && (n > 0 || !state_is_clean(&lvm->files) || lvm_remembers(lvm))) {
		state_debts_take(&lvm->files, &debts);
		r = mend_all(lvm, &n, err);
		if (r == COPPICE_OK)
			state_debts_paid(&lvm->files, &debts);
	}
	if (r == COPPICE_OK)
		*ret_n = n;
	return r;
}
