/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafts. One has a lock, a file STATE/zfs/NAME/UUID that its maker holds by flock, and
 * as soon as something is made in it, a dataset ROOT/drafts/UUID.
 *
 * Clones that were announced are made under their names at once, with the draft's uuid
 * in a property: they are unseen as long as the draft's dataset is there. Destroying
 * that publishes all of them in one step, so publishing costs one command, not a rename
 * for each, and a sweep that finds the maker dead has only to do the same.
 */
#include "driver/zfs/zfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>

#include "base/text.h"

/* ---- the maker's lock ---- */

static char *lock_path(const struct zfs_pool *zfs, const char *id)
{
	return text_format("%s/%s", zfs->state, id);
}

static int lock_make(const struct zfs_pool *zfs, const char *id, int *ret,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *path = lock_path(zfs, id);
	_cleanup_(closep) int fd = -1;

	if (!path)
		return fail_memory(err);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return fail_errno(err, errno, "cannot lock '%s'", path);
	*ret = take_fd(&fd);
	return COPPICE_OK;
}

bool zfs_draft_is_over(const struct zfs_pool *zfs, const char *id, int *ret_fd)
{
	_cleanup_(freep) char *path = lock_path(zfs, id);
	_cleanup_(closep) int fd = -1;

	*ret_fd = -1;
	if (!path)
		return false;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return false;
	*ret_fd = take_fd(&fd);
	return true;
}

static void lock_remove(const struct zfs_pool *zfs, const char *id)
{
	_cleanup_(freep) char *path = lock_path(zfs, id);

	if (path)
		(void)unlink(path);
}

/* ---- beginning ---- */

int zfs_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err)
{
	struct draft draft = { .pool = pool, .fd = -1 };
	int r = COPPICE_OK;

	zfs_explain(pool, "draft=$(cat /proc/sys/kernel/random/uuid)");
	draft.driver = calloc(1, sizeof(struct making));
	if (!draft.driver)
		return fail_memory(err);
	if (!pool->is_dry_run) {
		r = uuid_new(&draft.id, err);
		if (r == COPPICE_OK)
			r = lock_make(zfs_pool_of(pool), draft.id.text, &draft.fd, err);
	}
	if (r < 0) {
		free(draft.driver);
		return r;
	}
	*ret = draft;
	return COPPICE_OK;
}

int zfs_draft_ensure(struct draft *draft, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	char name[DATASET_MAX];
	int r = COPPICE_OK;

	if (!making_of(draft)->is_explained)
		zfs_explain(draft->pool, "zfs create -o canmount=off %s/drafts/$draft", zfs->root);
	making_of(draft)->is_explained = true;
	if (making_of(draft)->has_dataset || draft->pool->is_dry_run)
		return COPPICE_OK;
	(void)snprintf(name, sizeof(name), "%s/drafts/%s", zfs->root, draft->id.text);
	r = zfs_run(ZFS_ARGS("zfs", "create", "-o", "canmount=off", name), NULL, err);
	making_of(draft)->has_dataset = r == COPPICE_OK;
	return r;
}

int zfs_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
		       struct coppice_error *err)
{
	draft->is_announced = true;
	return zfs_draft_ensure(draft, err);
}

int zfs_draft_path(struct draft *draft, const struct new_volume *volume, char **ret,
		   struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	_cleanup_(freep) char *path = NULL;
	char item[DATASET_MAX];
	int r = COPPICE_OK;

	path = text_format("%s/drafts/%s/%s", zfs->mount, draft->id.text,
			   volume->item ? volume->item : volume->ref.name.text);
	if (!path)
		return fail_memory(err);
	if (!draft->pool->is_dry_run)
		r = zfs_mount_at(zfs, zfs_item_name(zfs, draft, volume, item), path, err);
	if (r == COPPICE_OK)
		*ret = take_ptr(&path);
	return r;
}

/* ---- ending ---- */

/* A child of ROOT/drafts/ID itself? */
static bool is_item_of(const char *name, const char *draft)
{
	size_t n = strlen(draft);

	return strncmp(name, draft, n) == 0 && name[n] == '/' && !strpbrk(name + n + 1, "/@");
}

/* Of a maker who died while he swapped: the data that was live lies in the draft. */
static int recover_swaps(struct zfs_pool *zfs, const struct listing *listing, const char *draft,
			 bool *ret_did, struct coppice_error *err)
{
	int r = COPPICE_OK;

	*ret_did = false;
	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		if (!is_item_of(listing->dataset[i].name, draft) || !listing->dataset[i].swap)
			continue;
		*ret_did = true;
		r = zfs_swap_recover(zfs, &listing->dataset[i], err);
	}
	return r;
}

/* Destroy what lies in the draft, and what it hides if that is @is_given_up. */
static int destroy_content(struct zfs_pool *zfs, struct listing *listing, const char *draft,
			   bool is_given_up, struct coppice_error *err)
{
	const char *id = strrchr(draft, '/') + 1;
	int r = COPPICE_OK;

	for (size_t i = listing->n; i-- > 0 && r == COPPICE_OK;) {
		struct dataset *dataset = &listing->dataset[i];
		bool is_hidden = dataset->draft && strcmp(dataset->draft, id) == 0;

		/* Also what waits for its name; that is seen by its name, not by the draft. */
		if (is_item_of(dataset->name, draft) || (is_hidden && is_given_up) ||
		    (is_hidden && strstr(dataset->name, "@draft-")))
			r = zfs_destroy_or_retire(zfs, listing, dataset->name, err);
	}
	return r;
}

/* End draft @id: what it announced is published, unless @is_given_up; the rest destroyed. */
static int draft_end(struct zfs_pool *zfs, const char *id, bool is_given_up,
		     struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	char name[DATASET_MAX];
	struct dataset *draft;
	bool did_recover;
	int r;

	(void)snprintf(name, sizeof(name), "%s/drafts/%s", zfs->root, id);
	r = listing_read_all(zfs, &listing, err);
	if (r == COPPICE_OK)
		r = recover_swaps(zfs, &listing, name, &did_recover, err);
	if (r == COPPICE_OK && did_recover) {
		listing_done(&listing);
		r = listing_read_all(zfs, &listing, err);
	}
	if (r < 0)
		return r;
	draft = listing_find(&listing, name);
	if (!draft)
		return COPPICE_OK;
	is_given_up = is_given_up || draft->given_up;
	if (is_given_up && !draft->given_up)
		r = zfs_run(ZFS_ARGS("zfs", "set", PROPERTY_GIVEN "=true", name), NULL, err);
	if (r == COPPICE_OK)
		r = destroy_content(zfs, &listing, name, is_given_up, err);
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zfs", "destroy", name), NULL, err);
	return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
}

static void forget(struct draft *draft)
{
	if (making_of(draft))
		free(making_of(draft)->aside);
	free(draft->driver);
	draft->driver = NULL;
}

int zfs_draft_discard(struct draft *draft, struct coppice_error *err)
{
	struct pool *pool = take_ptr(&draft->pool);
	struct coppice_error ignored;
	char name[DATASET_MAX];
	struct zfs_pool *zfs;
	bool has_dataset;
	int r = COPPICE_OK;

	if (!pool)
		return COPPICE_OK;
	zfs = zfs_pool_of(pool);
	has_dataset = making_of(draft)->has_dataset;
	if (making_of(draft)->is_explained)
		zfs_explain(pool, "zfs destroy %s/drafts/$draft", zfs->root);
	(void)snprintf(name, sizeof(name), "%s/drafts/%s", zfs->root, draft->id.text);
	/* Most are empty by now, and one command is enough; never so for what it hides. */
	if (!pool->is_dry_run && has_dataset &&
	    (making_of(draft)->n_announced > 0 ||
	     zfs_run(ZFS_ARGS("zfs", "destroy", name), NULL, &ignored) < 0))
		r = draft_end(zfs, draft->id.text, true, err);
	if (draft->fd >= 0) {
		lock_remove(zfs, draft->id.text);
		(void)close(take_fd(&draft->fd));
	}
	forget(draft);
	return r;
}

/* ---- after the dead ---- */

/* Names of datasets, one a line. */
static int list_left(struct zfs_pool *zfs, char **ret, struct coppice_error *err)
{
	char drafts[DATASET_MAX], deleted[DATASET_MAX];

	(void)snprintf(drafts, sizeof(drafts), "%s/drafts", zfs->root);
	(void)snprintf(deleted, sizeof(deleted), "%s/deleted", zfs->root);
	return zfs_run(ZFS_ARGS("zfs", "list", "-H", "-r", "-t", "filesystem", "-o", "name", drafts,
				deleted),
		       ret, err);
}

static int sweep_one(struct zfs_pool *zfs, const char *id, size_t *n, struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	int r;

	if (!zfs_draft_is_over(zfs, id, &fd))
		return COPPICE_OK;
	r = draft_end(zfs, id, false, err);
	if (r < 0)
		return r;
	lock_remove(zfs, id);
	++*n;
	return COPPICE_OK;
}

/* Cheap when there is nothing. Not explained: what others left is no part of what was asked for. */
int zfs_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(freep) char *out = NULL;
	size_t n = 0, root = strlen(zfs->root);
	bool has_tombstones = false;
	int r = COPPICE_OK;

	if (!pool->is_dry_run)
		r = list_left(zfs, &out, err);
	for (char *line = out, *end; line && *line && r == COPPICE_OK; line = end + 1) {
		struct uuid id;

		end = line + strcspn(line, "\n");
		*end = '\0';
		if (strncmp(line + root, "/drafts/", 8) == 0 && uuid_parse(line + root + 8, &id))
			r = sweep_one(zfs, id.text, &n, err);
		else if (strncmp(line + root, "/deleted/", 9) == 0 && strchr(line + root + 9, '/'))
			has_tombstones = true;
	}
	if (r == COPPICE_OK && (has_tombstones || n > 0))
		r = zfs_reap_all(zfs, err);
	if (r == COPPICE_OK)
		*ret_n = n;
	return r;
}
