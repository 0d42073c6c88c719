/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafts. One is a key of the root object, with a line for each image that it may be making under
 * its own name; and a file STATE/ceph/NAME/UUID that its maker holds by flock. What says that it
 * is of a draft that has its key is unseen: to remove the key shows all of it in one step. A sweep
 * that finds the maker dead does so, unless the draft was given up.
 */
#include "driver/ceph/ceph.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"

/* Before its lines: what is announced is not to be; or not yet, while it is made. */
#define GIVEN_UP "given up\n"

/* A line of its own: an image may be out of sight whose name it is to get back. */
#define SWAPS "swaps"

static int store(struct draft *draft, struct coppice_error *err)
{
	struct ceph_making *making = ceph_making_of(draft);
	_cleanup_(freep) char *text =
		text_format("%s%s", making->is_half ? GIVEN_UP : "", making->lines);
	int r = text ? root_draft_add(ceph_pool_of(draft->pool), draft->id.text, text, err)
		     : fail_memory(err);

	making->is_listed |= r == COPPICE_OK;
	return r;
}

/* ---- beginning ---- */

int ceph_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err)
{
	struct draft draft = { .pool = pool, .fd = -1 };
	int r = COPPICE_OK;

	ceph_explain(pool, "draft=$(cat /proc/sys/kernel/random/uuid)");
	draft.driver = calloc(1, sizeof(struct ceph_making));
	if (!draft.driver)
		return fail_memory(err);
	if (!pool->is_dry_run)
		r = ceph_refuse_full(ceph_pool_of(pool), err);
	if (r == COPPICE_OK && !pool->is_dry_run)
		r = state_lock_new(&ceph_pool_of(pool)->files, "", &draft.id, &draft.fd, err);
	if (r < 0) {
		free(draft.driver);
		return r;
	}
	*ret = draft;
	return COPPICE_OK;
}

int ceph_draft_list(struct draft *draft, const char *name, const char *id,
		    struct coppice_error *err)
{
	struct ceph_making *making = ceph_making_of(draft);
	_cleanup_(text_done) struct text text = TEXT_INIT;
	char *lines;
	int r = COPPICE_OK;

	if (making->is_listed && (!name || ceph_has_line(making->lines, name, NULL)))
		return COPPICE_OK;
	if (making->lines)
		text_add(&text, "%s", making->lines);
	else
		r = worker_line(ceph_pool_of(draft->pool), &text, err);
	if (r < 0)
		return r;
	if (name)
		text_add(&text, "%s%s%s\n", name, id ? "\t" : "", id ? id : "");
	lines = text_take(&text);
	if (!lines)
		return fail_memory(err);
	free(making->lines);
	making->lines = lines;
	return store(draft, err);
}

int ceph_draft_is_made(struct draft *draft, struct coppice_error *err)
{
	struct ceph_making *making = ceph_making_of(draft);

	if (!making->is_half)
		return COPPICE_OK;
	making->is_half = false;
	return store(draft, err);
}

bool ceph_has_line(const char *lines, const char *name, char *ret_id)
{
	size_t n = strlen(name);

	for (const char *at = lines; at && (at = strstr(at, name)) != NULL; at += n) {
		if ((at != lines && at[-1] != '\n') || !strchr("\t\n", at[n]))
			continue;
		if (ret_id)
			(void)snprintf(ret_id, RBD_ID_MAX, "%.*s",
				       at[n] == '\t' ? (int)strcspn(at + n + 1, "\n") : 0,
				       at + n + 1);
		return true;
	}
	return false;
}

int ceph_claim(struct ceph_pool *ceph, const char *name, const char *id, struct claim *ret,
	       struct coppice_error *err)
{
	_cleanup_(text_done) struct text text = TEXT_INIT;
	_cleanup_(freep) char *lines = NULL;
	struct claim claim = { .fd = -1 };
	int r = worker_line(ceph, &text, err);

	text_add(&text, "%s\t%s\n", name, id);
	lines = text_take(&text);
	if (r == COPPICE_OK)
		r = lines ? state_lock_new(&ceph->files, "", &claim.id, &claim.fd, err)
			  : fail_memory(err);
	if (r == COPPICE_OK)
		r = root_draft_add(ceph, claim.id.text, lines, err);
	*ret = claim;
	return r;
}

void ceph_claim_end(struct ceph_pool *ceph, struct claim *claim)
{
	struct coppice_error ignored;

	if (claim->fd < 0)
		return;
	if (root_draft_remove(ceph, claim->id.text, &ignored) == COPPICE_OK)
		state_lock_remove(&ceph->files, claim->id.text);
	(void)close(take_fd(&claim->fd));
}

/* How a line says that it is a snapshot of a volume. */
static void snapshot_line(const char *volume, const char *snapshot,
			  char ret[static 2 * RBD_NAME_MAX])
{
	(void)snprintf(ret, 2 * RBD_NAME_MAX, "%s@%s", volume, snapshot);
}

/* Not of what is whole only when others of the draft are. */
int ceph_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
			struct coppice_error *err)
{
	struct ceph_making *making = ceph_making_of(draft);
	_cleanup_(text_done) struct text text = TEXT_INIT;
	bool is_declined = making->has_items;
	int r = draft->pool->is_dry_run ? COPPICE_OK
					: worker_line(ceph_pool_of(draft->pool), &text, err);

	for (size_t i = 0; i < n; i++) {
		char name[RBD_NAME_MAX];

		is_declined |= volumes[i].has_nested;
		ceph_name(&volumes[i].ref, name);
		text_add(&text, "%s%s%s\n", name, volume_is_snapshot(&volumes[i].ref) ? "@" : "",
			 volumes[i].ref.snapshot.text);
	}
	if (is_declined || r < 0)
		return r;
	free(making->lines);
	making->lines = text_take(&text);
	if (!making->lines)
		return fail_memory(err);
	making->is_half = !draft->pool->is_dry_run;
	if (!draft->pool->is_dry_run)
		r = ceph_draft_list(draft, NULL, NULL, err);
	draft->is_announced = r == COPPICE_OK;
	return r;
}

int ceph_draft_path(struct draft *draft, const struct new_volume *volume, char **ret,
		    struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	_cleanup_(ceph_turn_give) struct ceph_turn turn = { .draft = draft };
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	_cleanup_(freep) char *path = ceph_item_path(draft, volume);
	char name[RBD_NAME_MAX], device[PATH_MAX];
	const struct rbd *rbd;
	int r = COPPICE_OK;

	if (!path)
		return fail_memory(err);
	if (!draft->pool->is_dry_run) {
		ceph_item_name(draft, volume, name);
		r = rbd_listing_read_making(draft, volume, 1, &listing, err);
		rbd = r == COPPICE_OK ? rbd_find(&listing, name) : NULL;
		if (r == COPPICE_OK && !rbd)
			r = fail(err, COPPICE_FAILED, "'%s' is not in the draft",
				 volume->ref.name.text);
		if (r == COPPICE_OK)
			r = ceph_turn_take(ceph, name, &turn, err);
		if (r == COPPICE_OK)
			r = volume_is_block(&volume->ref)
				    ? ceph_map(ceph, &turn, name, device, err)
				    : ceph_mount_at(ceph, &turn, rbd, path, err);
	}
	if (r == COPPICE_OK)
		*ret = take_ptr(&path);
	return r;
}

/* ---- ending ---- */

/* draft_ID.… */
static bool is_named_for(const char *name, const char *id)
{
	size_t n = strlen(id);

	return strncmp(name, "draft_", 6) == 0 && strncmp(name + 6, id, n) == 0 &&
	       name[6 + n] == '.';
}

static bool is_kept(const struct rbd *rbd)
{
	return strncmp(rbd->name, "kept_", 5) == 0;
}

/* The draft that ends. */
struct ending {
	struct ceph_pool *ceph;
	const struct rbd_list *listing;
	const char *id;
	const char *lines; /* NULL: the root does not have it: what says that it is of it is not */
	bool is_given_up;
};

static bool is_to_go(const struct ending *ending, const struct rbd *rbd);

/* The volume whose snapshots it keeps, if that stays: else it goes with it. */
static const struct rbd *group_of(const struct ending *ending, const struct rbd *kept)
{
	for (size_t i = 0; i < ending->listing->n; i++) {
		const struct rbd *rbd = &ending->listing->rbd[i];

		if (!is_kept(rbd) && kept->group.text[0] && !rbd->is_retired &&
		    strcmp(rbd->uuid.text, kept->group.text) == 0)
			return is_to_go(ending, rbd) ? NULL : rbd;
	}
	return NULL;
}

/* Was this snapshot announced, and is it to be? */
static bool is_snapshot_to_be(const struct ending *ending, const struct rbd *volume,
			      const char *snapshot)
{
	char line[2 * RBD_NAME_MAX];

	snapshot_line(volume->name, snapshot, line);
	return !ending->is_given_up && ceph_has_line(ending->lines, line, NULL);
}

static bool is_kept_to_go(const struct ending *ending, const struct rbd *rbd)
{
	const struct rbd *volume = group_of(ending, rbd);

	if (!volume)
		return ceph_has_line(ending->lines, rbd->name, NULL);
	if (strcmp(rbd->draft.text, ending->id) != 0)
		return false;
	for (size_t i = 0; i < rbd->n_snaps; i++)
		if (rbd->snap[i].record && is_snapshot_to_be(ending, volume, rbd->snap[i].snapshot))
			return false;
	return true;
}

static bool is_to_go(const struct ending *ending, const struct rbd *rbd)
{
	bool is_marked = strcmp(rbd->draft.text, ending->id) == 0;

	if (is_named_for(rbd->name, ending->id))
		return true;
	if (!ending->lines)
		return false;
	if (is_kept(rbd))
		return is_kept_to_go(ending, rbd);
	if (ceph_has_line(ending->lines, rbd->name, NULL))
		return ending->is_given_up ? is_marked || !rbd->uuid.text[0] : !rbd->uuid.text[0];
	return is_marked;
}

/* Of a snapshot that was made of a volume itself, and not published. */
static int remove_pending(const struct ending *ending, const struct rbd *rbd,
			  struct coppice_error *err)
{
	size_t n = strlen(META_PENDING);
	int r = COPPICE_OK;

	for (size_t i = 0; rbd->meta && rbd->meta[i] && r == COPPICE_OK; i += 2) {
		char snapshot[RBD_NAME_MAX], record[RBD_NAME_MAX + 32];
		const char *name = rbd->meta[i] + n;

		if (strncmp(rbd->meta[i], META_PENDING, n) != 0 || !rbd_meta(rbd, rbd->meta[i]) ||
		    strcmp(rbd->meta[i + 1], ending->id) != 0 ||
		    is_snapshot_to_be(ending, rbd, name))
			continue;
		(void)snprintf(snapshot, sizeof(snapshot), "snapshot_%s", name);
		(void)snprintf(record, sizeof(record), META_SNAPSHOT "%s", name);
		r = ceph_snap_remove(ending->ceph, rbd->name, snapshot, err);
		if (r == COPPICE_OK)
			r = header_change(ending->ceph, rbd->id,
					  (const struct meta[]){ { record, NULL },
								 { rbd->meta[i], NULL },
								 { NULL, NULL } },
					  err);
	}
	return r;
}

/* What its clones of an instance stood on while they were made. */
static int remove_copied(struct ceph_pool *ceph, const struct rbd *rbd, const char *id,
			 struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < rbd->n_snaps && r == COPPICE_OK; i++)
		if (strncmp(rbd->snap[i].name, "copy_", 5) == 0 &&
		    strcmp(rbd->snap[i].name + 5, id) == 0)
			r = ceph_snap_remove(ceph, rbd->name, rbd->snap[i].name, err);
	return r;
}

/* Of a maker who died while he swapped: the image that was live has the mark. */
static int recover_swaps(struct ceph_pool *ceph, const struct rbd_list *listing, const char *id,
			 bool *ret_did, struct coppice_error *err)
{
	int r = COPPICE_OK;

	*ret_did = false;
	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		if ((!is_named_for(listing->rbd[i].name, id) && !is_kept(&listing->rbd[i])) ||
		    !rbd_meta(&listing->rbd[i], META_SWAP))
			continue;
		*ret_did = true;
		r = ceph_swap_recover(ceph, listing, &listing->rbd[i], err);
	}
	return r;
}

/* Does another that is to go, and is there yet, stand on it? */
static bool is_stood_on(const struct rbd_list *listing, const bool *is_going, const struct rbd *rbd)
{
	for (size_t i = 0; i < listing->n; i++)
		if (is_going[i] && strcmp(listing->rbd[i].parent.id, rbd->id) == 0)
			return true;
	return false;
}

/* Clones before what they stand on, which only then goes at once. */
static int remove_images(const struct ending *ending, bool *is_going, struct coppice_error *err)
{
	const struct rbd_list *listing = ending->listing;
	bool did = true;
	int r = COPPICE_OK;

	while (did && r == COPPICE_OK) {
		did = false;
		for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
			if (!is_going[i] || is_stood_on(listing, is_going, &listing->rbd[i]))
				continue;
			r = ceph_remove_image(ending->ceph, &listing->rbd[i], err);
			is_going[i] = false;
			did = true;
		}
	}
	return r;
}

/* Images first, and then the snapshots that they may stand on. */
static int remove_content(const struct ending *ending, struct coppice_error *err)
{
	const struct rbd_list *listing = ending->listing;
	_cleanup_(freep) bool *is_going = calloc(listing->n + 1, sizeof(*is_going));
	int r;

	if (!is_going)
		return fail_memory(err);
	for (size_t i = 0; i < listing->n; i++)
		is_going[i] = is_to_go(ending, &listing->rbd[i]);
	r = remove_images(ending, is_going, err);
	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		const struct rbd *rbd = &listing->rbd[i];

		if (is_to_go(ending, rbd))
			continue;
		if (ending->lines)
			r = remove_pending(ending, rbd, err);
		if (r == COPPICE_OK)
			r = remove_copied(ending->ceph, rbd, ending->id, err);
	}
	return r;
}

/* Names that it was about to give, and no image has. */
static int unclaim_names(const struct ending *ending, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (const char *at = ending->lines ? ending->lines : ""; *at && r == COPPICE_OK;) {
		size_t n = strcspn(at, "\n");
		char name[RBD_NAME_MAX], id[RBD_ID_MAX];

		(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(at, "\t\n"), at);
		if (strcmp(name, "by") != 0 && strcmp(name, SWAPS) != 0 &&
		    ceph_has_line(ending->lines, name, id) && !strchr(name, '@') &&
		    !rbd_find(ending->listing, name))
			r = header_unclaim(ending->ceph, name, id[0] ? id : NULL, err);
		at += n + (at[n] == '\n');
	}
	return r;
}

/* What of it is mounted in another namespace is detached there with its folder. */
static void remove_folder(struct ceph_pool *ceph, const char *id)
{
	_cleanup_(freep) char *folder = text_format("%s/drafts/%s", ceph->mount, id);
	_cleanup_(closedirp) DIR *dir = folder ? opendir(folder) : NULL;
	struct dirent *entry;

	while (dir && (entry = readdir(dir)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			(void)unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
	if (folder)
		(void)rmdir(folder);
}

static bool begins(const char *line, const char *with)
{
	return strncmp(line, with, strlen(with)) == 0;
}

/* The first line says so, of what is announced: none of it is to be. */
static bool was_given_up(const char *lines)
{
	return lines && begins(lines, GIVEN_UP);
}

int ceph_draft_swaps(struct draft *draft, struct coppice_error *err)
{
	return ceph_draft_list(draft, SWAPS, NULL, err);
}

/* What is kept is seen with its volume only, and has a name that nobody else takes. */
bool ceph_draft_shows_nothing(const char *lines)
{
	bool is_so = lines != NULL;

	for (const char *at = lines; is_so && *at;) {
		is_so = begins(at, GIVEN_UP) || begins(at, "by\t") || begins(at, "kept_");
		at += strcspn(at, "\n");
		at += *at == '\n';
	}
	return is_so;
}

/*
 * End draft @id, whose lock we have: what it announced is shown, or removed; the rest removed.
 * Without its key all was shown, or removed; but for what a swap left.
 */
int ceph_draft_end(struct ceph_pool *ceph, const char *id, struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	struct ending ending = { .ceph = ceph, .listing = &listing, .id = id };
	bool did_recover = false;
	int r = ceph_staged_umount(id, err);

	if (r == COPPICE_OK)
		r = rbd_listing_read_rest(ceph, &listing, err);
	if (r == COPPICE_OK)
		r = recover_swaps(ceph, &listing, id, &did_recover, err);
	if (r == COPPICE_OK && did_recover) {
		rbd_listing_done(&listing);
		r = rbd_listing_read_rest(ceph, &listing, err);
	}
	if (r < 0)
		return r;
	ending.lines = root_list_get(&listing.drafts, id);
	ending.is_given_up = was_given_up(ending.lines);
	r = remove_content(&ending, err);
	if (r == COPPICE_OK)
		r = unclaim_names(&ending, err);
	if (r == COPPICE_OK && ending.lines)
		r = root_draft_remove(ceph, id, err);
	if (r == COPPICE_OK && !ending.is_given_up)
		r = ceph_stamp_touch(ceph, err);
	if (r < 0)
		return r;
	remove_folder(ceph, id);
	if (!ending.is_given_up)
		return state_draft_show(&ceph->files, &ceph->pool, id, err);
	state_lock_remove(&ceph->files, id);
	return COPPICE_OK;
}

/* Most are empty by now. */
static int discard(struct ceph_pool *ceph, struct draft *draft, struct coppice_error *err)
{
	struct ceph_making *making = ceph_making_of(draft);
	_cleanup_(freep) char *lines = NULL;
	int r = COPPICE_OK;

	if (making->n_announced == 0 && !making->has_items) {
		if (making->is_listed)
			r = root_draft_remove(ceph, draft->id.text, err);
		if (r == COPPICE_OK)
			state_lock_remove(&ceph->files, draft->id.text);
		return r;
	}
	if (making->is_left)
		return fail(err, COPPICE_BUSY, "what was begun in the draft is not over");
	lines = text_format(GIVEN_UP "%s", making->lines ? making->lines : "");
	if (!lines)
		return fail_memory(err);
	r = root_draft_add(ceph, draft->id.text, lines, err);
	if (r == COPPICE_OK)
		r = ceph_draft_end(ceph, draft->id.text, err);
	return r == COPPICE_OK && making->is_shown ? ceph_stamp_touch(ceph, err) : r;
}

int ceph_draft_discard(struct draft *draft, struct coppice_error *err)
{
	struct pool *pool = take_ptr(&draft->pool);
	int r = COPPICE_OK;

	if (!pool)
		return COPPICE_OK;
	if (draft->driver)
		ceph_staged_done(draft);
	if (draft->fd >= 0) {
		r = discard(ceph_pool_of(pool), draft, err);
		(void)close(take_fd(&draft->fd));
	}
	if (draft->driver)
		free(ceph_making_of(draft)->lines);
	free(take_ptr(&draft->driver));
	return r;
}
