/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafts. One is a file STATE/zfs/NAME/UUID that its maker holds by flock, and, if
 * something is made in it that has no name yet, a dataset ROOT/drafts/UUID.
 *
 * Clones that were announced are made under their names at once, with the draft's uuid
 * in a property: they are unseen as long as the file is there. Removing it shows all of
 * them in one step: publishing costs no command of ZFS at all, let alone a rename for
 * each. A sweep that finds the maker dead does the same. If the state directory is lost,
 * what was announced and is whole is there, which is what announcing means.
 */
#include "driver/zfs/zfs.h"

#include <errno.h>
#include <dirent.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/text.h"

/* The first line of its file, if it has any; then what is to be cloned, of what, since when. */
#define ANNOUNCED "announced\n"
#define GIVEN_UP  "given up \n"

/* What is announced is not to be: said before the first of it is destroyed. */
static int give_up(int fd, struct coppice_error *err)
{
	if (fd < 0)
		return COPPICE_OK;
	if (pwrite(fd, GIVEN_UP, strlen(GIVEN_UP), 0) < 0 || fsync(fd) < 0)
		return fail_errno(err, errno, "cannot write that a draft is given up");
	return COPPICE_OK;
}

static bool was_given_up(int fd)
{
	char first;

	return fd >= 0 && pread(fd, &first, 1, 0) == 1 && first == GIVEN_UP[0];
}

int zfs_draft_note(struct draft *draft, const char *from, const struct new_volume *volumes,
		   size_t n, struct coppice_error *err)
{
	_cleanup_(text_done) struct text lines = TEXT_INIT;
	_cleanup_(freep) char *text = NULL;
	off_t end = lseek(draft->fd, 0, SEEK_END);
	int r;

	text_add(&lines, "%s", end == 0 ? ANNOUNCED : "");
	for (size_t i = 0; i < n; i++) {
		char name[DATASET_MAX];

		if (!volume_is_snapshot(&volumes[i].ref))
			text_add(&lines, "%s\t%s\t%lld\n",
				 zfs_volume_name(zfs_pool_of(draft->pool), &volumes[i].ref, name),
				 from, (long long)time(NULL));
	}
	text = text_take(&lines);
	if (!text)
		return fail_memory(err);
	r = write_all(draft->fd, text, strlen(text), "a draft's file", err);
	if (r == COPPICE_OK && fdatasync(draft->fd) < 0)
		r = fail_errno(err, errno, "cannot write what a draft announces");
	return r;
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
	if (!pool->is_dry_run)
		r = state_lock_new(&zfs_pool_of(pool)->files, "", &draft.id, &draft.fd, err);
	if (r < 0) {
		free(draft.driver);
		return r;
	}
	*ret = draft;
	return COPPICE_OK;
}

int zfs_draft_ensure_of(struct zfs_pool *zfs, const char *id, struct coppice_error *err)
{
	char name[DATASET_MAX];
	int r;

	(void)snprintf(name, sizeof(name), "%s/drafts/%s", zfs->root, id);
	r = zfs_run(ZFS_ARGS("zfs", "create", "-o", "canmount=off", name), NULL, err);
	return r == COPPICE_EXISTS ? COPPICE_OK : r;
}

int zfs_draft_ensure(struct draft *draft, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(draft->pool);
	int r;

	if (!making_of(draft)->is_explained)
		zfs_explain(draft->pool, "zfs create -o canmount=off %s/drafts/$draft", zfs->root);
	making_of(draft)->is_explained = true;
	making_of(draft)->is_told |= draft->pool->explain != NULL;
	if (making_of(draft)->has_dataset || draft->pool->is_dry_run)
		return COPPICE_OK;
	r = zfs_draft_ensure_of(zfs, draft->id.text, err);
	making_of(draft)->has_dataset = r == COPPICE_OK;
	return r;
}

int zfs_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
		       struct coppice_error *err)
{
	/* The clones carry it. What is in the draft's own place is renamed, which is durable. */
	draft->is_announced = !making_of(draft)->is_explained;
	return COPPICE_OK;
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

/* "NAME<tab>FROM<tab>SECONDS": was that made of that, no earlier, and never got its properties? */
static bool is_unmarked(const struct listing *listing, char *line)
{
	char *from = strchr(line, '\t'), *since = from ? strchr(from + 1, '\t') : NULL;
	_cleanup_(freep) char *created = NULL;
	const struct dataset *dataset;
	struct coppice_error ignored;

	if (!since)
		return false;
	*from++ = *since++ = '\0';
	dataset = listing_find(listing, line);
	return dataset && !dataset->is_gone && !dataset->record && !dataset->draft &&
	       dataset->origin && strcmp(dataset->origin, from) == 0 &&
	       zfs_run(ZFS_ARGS("zfs", "get", "-Hp", "-o", "value", "creation", line), &created,
		       &ignored) == COPPICE_OK &&
	       strtoll(created, NULL, 10) >= strtoll(since, NULL, 10);
}

/*
 * ZFS clones first and sets properties then: an engine that died between the two has left
 * a clone that nothing tells from one made by hand but what it stands on and its age. It
 * goes, or it would keep its name for ever.
 */
static int destroy_unmarked(struct zfs_pool *zfs, struct listing *listing, int fd,
			    struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	struct stat st;
	int r = COPPICE_OK;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
		return COPPICE_OK;
	text = calloc(1, (size_t)st.st_size + 1);
	if (!text)
		return fail_memory(err);
	if (pread(fd, text, (size_t)st.st_size, 0) < 0)
		return fail_errno(err, errno, "cannot read what a draft announced");
	/* What has no end is of a maker who died before he made any. */
	for (char *line = text, *end; r == COPPICE_OK && (end = strchr(line, '\n')) != NULL;
	     line = end + 1) {
		*end = '\0';
		if (is_unmarked(listing, line))
			r = zfs_destroy_or_retire(zfs, listing, line, err);
	}
	return r;
}

/* What it announced and is whole is seen from now on: a maker who died may not have guarded it. */
static int guard_content(struct zfs_pool *zfs, const struct listing *listing, const char *id,
			 struct coppice_error *err)
{
	struct volume_ref ref;
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		const struct dataset *dataset = &listing->dataset[i];

		if (!dataset->is_gone && !dataset->is_snapshot && dataset->draft &&
		    strcmp(dataset->draft, id) == 0 && zfs_name_parse(zfs, dataset->name, &ref))
			r = zfs_guard_ensure_in(zfs, listing, dataset, ref.kind, true, err);
	}
	return r;
}

/* End draft @id, held by @fd: what it announced is shown, or destroyed; the rest destroyed. */
static int draft_end(struct zfs_pool *zfs, const char *id, int fd, struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	char name[DATASET_MAX];
	bool did_recover;
	int r;

	(void)snprintf(name, sizeof(name), "%s/drafts/%s", zfs->root, id);
	state_owe(&zfs->files); /* what its clones were made of may be of no use now */
	r = listing_read_all(zfs, &listing, err);
	if (r == COPPICE_OK)
		r = recover_swaps(zfs, &listing, name, &did_recover, err);
	if (r == COPPICE_OK && did_recover) {
		listing_done(&listing);
		r = listing_read_all(zfs, &listing, err);
	}
	if (r == COPPICE_OK)
		r = destroy_content(zfs, &listing, name, was_given_up(fd), err);
	if (r == COPPICE_OK)
		r = destroy_unmarked(zfs, &listing, fd, err);
	if (r == COPPICE_OK)
		r = guard_content(zfs, &listing, id, err);
	if (r == COPPICE_OK && listing_find(&listing, name))
		r = zfs_run(ZFS_ARGS("zfs", "destroy", name), NULL, err);
	if (r < 0 && r != COPPICE_NOT_FOUND)
		return r;
	if (!was_given_up(fd))
		return state_draft_show(&zfs->files, &zfs->pool, id, err);
	state_lock_remove(&zfs->files, id);
	return COPPICE_OK;
}

static void forget(struct draft *draft)
{
	if (making_of(draft))
		free(making_of(draft)->aside);
	free(draft->driver);
	draft->driver = NULL;
}

/* Most are empty by now, and one command is enough; never so for what it hides. */
static int discard(struct zfs_pool *zfs, struct draft *draft, struct coppice_error *err)
{
	struct coppice_error ignored;
	char name[DATASET_MAX];
	int r;

	(void)snprintf(name, sizeof(name), "%s/drafts/%s", zfs->root, draft->id.text);
	if (making_of(draft)->n_announced == 0 && making_of(draft)->n_waiting == 0 &&
	    (!making_of(draft)->has_dataset ||
	     zfs_run(ZFS_ARGS("zfs", "destroy", name), NULL, &ignored) == COPPICE_OK)) {
		state_lock_remove(&zfs->files, draft->id.text);
		return COPPICE_OK;
	}
	r = give_up(draft->fd, err);
	if (r == COPPICE_OK)
		r = draft_end(zfs, draft->id.text, draft->fd, err);
	state_leave_owed(&zfs->files);
	return r;
}

int zfs_draft_discard(struct draft *draft, struct coppice_error *err)
{
	struct pool *pool = take_ptr(&draft->pool);
	int r = COPPICE_OK;

	if (!pool)
		return COPPICE_OK;
	if (making_of(draft)->is_told)
		zfs_explain(pool, "zfs destroy %s/drafts/$draft", zfs_pool_of(pool)->root);
	if (draft->fd >= 0) {
		r = discard(zfs_pool_of(pool), draft, err);
		(void)close(take_fd(&draft->fd));
	}
	forget(draft);
	return r;
}

/* ---- after the dead ---- */

static int end_dead(void *user, const char *id, int fd, struct coppice_error *err)
{
	return draft_end(user, id, fd, err);
}

static int sweep_one(struct zfs_pool *zfs, const char *id, size_t *n, struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	int r;

	if (!state_lock_is_over(&zfs->files, id, &fd))
		return COPPICE_OK;
	r = draft_end(zfs, id, fd, err);
	if (r == COPPICE_OK)
		++*n;
	return r;
}

/* Those whose files are not: the state directory is not the one that they were made from. */
static int sweep_datasets(struct zfs_pool *zfs, size_t *n, struct coppice_error *err)
{
	_cleanup_(freep) char *out = NULL;
	char drafts[DATASET_MAX];
	struct uuid id;
	int r;

	(void)snprintf(drafts, sizeof(drafts), "%s/drafts", zfs->root);
	r = zfs_run(ZFS_ARGS("zfs", "list", "-H", "-r", "-t", "filesystem", "-o", "name", drafts),
		    &out, err);
	for (char *line = out, *end; r == COPPICE_OK && *line; line = end) {
		size_t length = strcspn(line, "\n");

		end = line + length + (line[length] == '\n');
		line[length] = '\0';
		if (uuid_parse(strrchr(line, '/') + 1, &id) &&
		    strlen(drafts) + 1 + UUID_TEXT_SIZE - 1 == length)
			r = sweep_one(zfs, id.text, n, err);
	}
	return r;
}

/*
 * Cheap when there is nothing: no command at all. Not explained: what others left is no
 * part of what was asked for.
 */
int zfs_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	size_t n = 0;
	int r;

	if (pool->is_dry_run) {
		*ret_n = 0;
		return COPPICE_OK;
	}
	/* Those whose files are there. */
	r = state_drafts_each(&zfs->files, end_dead, zfs, &n, err);
	if (r == COPPICE_OK && (n > 0 || !state_is_clean(&zfs->files))) {
		r = sweep_datasets(zfs, &n, err);
		if (r == COPPICE_OK)
			r = zfs_reap_all(zfs, err);
	}
	state_leave_owed(&zfs->files); /* if it could not be paid */
	if (r == COPPICE_OK)
		*ret_n = n;
	return r;
}
