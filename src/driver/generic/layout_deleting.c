/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes in a tree of directories ceasing to be: retiring, reaping, sweeping. */
#include "driver/generic/layout_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/file.h"
#include "base/text.h"

#define ACCOUNT_TAIL ".account" /* deleted/UUID.account: data gone, account still held */

/* ---- destroying what nobody sees ---- */

/* Destroy what is in a volume's directory: its snapshots, then its data. *ret_n counts data. */
static int volume_empty(struct layout *layout, int parent_fd, const char *name, size_t *ret_n,
			struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int r;

	dir = layout_list(parent_fd, name, &r, err);
	while (dir && r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
		if (layout_is_dot(entry->d_name))
			continue;
		if (strcmp(entry->d_name, LAYOUT_RECORD_FILE) == 0) {
			(void)unlinkat(dirfd(dir), LAYOUT_RECORD_FILE, 0);
			continue;
		}
		if (strcmp(entry->d_name, "snapshots") == 0) {
			_cleanup_(closedirp) DIR *list =
				layout_list(dirfd(dir), "snapshots", &r, err);
			struct dirent *snapshot;

			while (list && r == COPPICE_OK && (snapshot = readdir(list)) != NULL) {
				if (layout_is_dot(snapshot->d_name))
					continue;
				r = volume_empty(layout, dirfd(list), snapshot->d_name, ret_n, err);
				if (r == COPPICE_OK)
					(void)unlinkat(dirfd(list), snapshot->d_name, AT_REMOVEDIR);
			}
			if (r == COPPICE_OK)
				(void)unlinkat(dirfd(dir), "snapshots", AT_REMOVEDIR);
			continue;
		}
		r = layout->engine->data_destroy(layout, dirfd(dir), entry->d_name, err);
		*ret_n += 1;
	}
	return r;
}

/* Whose account it is: in deleted/ the name says it, in a draft the record does. */
static bool find_identity(struct layout *layout, const char *folder, const char *name,
			  struct uuid *ret)
{
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;
	char text[UUID_TEXT_SIZE], path[PATH_MAX];

	(void)snprintf(text, sizeof(text), "%s", name);
	if (strcmp(folder, "deleted") == 0 && uuid_parse(text, ret))
		return true;
	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return layout_record_get(layout, path, &record, &ignored) == COPPICE_OK &&
	       layout_record_uuid(record, ret);
}

/* Rename into deleted/, also where the engine has no room left for it. */
static int move_away(struct layout *layout, int from_fd, const char *from, const char *to)
{
	if (renameat(from_fd, from, layout->deleted_fd, to) == 0)
		return 0;
	if (errno != ENOSPC || !layout->engine->make_room)
		return -1;
	if (layout->engine->make_room(layout))
		return renameat(from_fd, from, layout->deleted_fd, to);
	errno = ENOSPC;
	return -1;
}

/*
 * Destroy a volume that users do not see any more. An account cannot be closed right
 * after its data went, as the engine forgets data later: so the emptied directory
 * stays, in deleted/, to say whose it was. Another time it goes with the account, or,
 * while others hold that, gets the name deleted/UUID.account.
 */
static int volume_destroy(struct layout *layout, int parent_fd, const char *folder,
			  const char *name, struct coppice_error *err)
{
	char account[UUID_TEXT_SIZE + sizeof(ACCOUNT_TAIL)];
	bool has_account = false, is_held = false;
	struct uuid uuid;
	size_t n = 0;
	int r;

	if (layout->engine->account_close)
		has_account = find_identity(layout, folder, name, &uuid);
	if (!strstr(name, ACCOUNT_TAIL)) {
		r = volume_empty(layout, parent_fd, name, &n, err);
		if (r < 0)
			return r;
	}
	if (has_account && n == 0) {
		r = layout->engine->account_close(layout, &uuid, &is_held, err);
		if (r < 0)
			return r;
	}
	if (!has_account || (n == 0 && !is_held))
		return layout_remove_folder(parent_fd, name, err);

	if (n > 0 && parent_fd == layout->deleted_fd)
		return COPPICE_OK;
	(void)snprintf(account, sizeof(account), "%s" ACCOUNT_TAIL, uuid.text);
	if (strcmp(name, account) != 0 && move_away(layout, parent_fd, name, account) < 0 &&
	    errno != ENOENT)
		return fail_errno(err, errno, "cannot retire '%s/%s'", folder, name);
	return COPPICE_OK;
}

/*
 * Empty a draft, which is ours or nobody's. Killed meanwhile, what is left of it must
 * not be taken for what is still to be published: so that is taken back first, or, where
 * it cannot be, as the pool is full, when there is nothing left that could be.
 */
static int draft_empty(struct layout *layout, struct draft *draft, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	char folder[PATH_MAX];
	struct dirent *entry;
	struct coppice_error ignored;
	bool is_first = true, is_announced = false;
	int result = COPPICE_OK, r;

	dir = layout_list(draft->fd, ".", &r, err);
	(void)snprintf(folder, sizeof(folder), "drafts/%s", draft->id.text);
	while (dir && (entry = readdir(dir)) != NULL) {
		if (layout_is_dot(entry->d_name))
			continue;
		if (is_first)
			is_announced = layout_announcement_remove(draft, &ignored) < 0;
		is_first = false;
		r = volume_destroy(layout, draft->fd, folder, entry->d_name, err);
		if (r < 0)
			result = r;
	}
	if (is_announced && layout_announcement_remove(draft, err) < 0)
		result = err->code;
	return result < 0 ? result : r;
}

/*
 * Is nothing left of it but its account? Where there are accounts, on Btrfs, an empty
 * directory has the size 0. To say no is never wrong.
 */
static bool is_account(struct layout *layout, const char *name)
{
	struct stat st;

	if (!layout->engine->account_close)
		return false;
	return strstr(name, ACCOUNT_TAIL) ||
	       (fstatat(layout->deleted_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		S_ISDIR(st.st_mode) && st.st_size == 0);
}

enum reaping {
	DATA = 1,
	ACCOUNTS = 2
};

/* Destroy what is in deleted/; of what there may be many, accounts, only when asked. */
static int reap(struct layout *layout, unsigned what, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int result = COPPICE_OK, r;

	dir = layout_list(layout->deleted_fd, ".", &r, err);
	while (dir && (entry = readdir(dir)) != NULL) {
		if (layout_is_dot(entry->d_name) ||
		    !(what & (is_account(layout, entry->d_name) ? ACCOUNTS : DATA)))
			continue;
		r = volume_destroy(layout, layout->deleted_fd, "deleted", entry->d_name, err);
		if (r < 0)
			result = r;
	}
	return result < 0 ? result : r;
}

int layout_draft_discard(struct draft *draft, struct coppice_error *err)
{
	struct layout *layout;
	int r;

	if (!draft->pool || draft->fd < 0)
		return COPPICE_OK;
	layout = layout_of(draft->pool);
	r = draft_empty(layout, draft, err);
	if (r == COPPICE_OK)
		r = layout_remove_folder(layout->drafts_fd, draft->id.text, err);
	(void)close(draft->fd);
	draft->fd = -1;
	return r < 0 ? wrap(err, "cannot remove draft '%s'", draft->id.text) : COPPICE_OK;
}

enum sweeping {
	PUBLISHING, /* what is whole of what dead makers announced */
	DISCARDING, /* all of it: the pool goes */
};

static int sweep_one(struct layout *layout, struct draft *draft, enum sweeping how,
		     struct coppice_error *err)
{
	struct coppice_error why;
	int r = COPPICE_OK, discarded;

	if (how == PUBLISHING)
		r = layout_publish_orphans(draft, err);
	if (r == COPPICE_OK && how == PUBLISHING && layout->pool.note_published)
		r = layout->pool.note_published(layout->pool.published_user, err);
	if (r < 0)
		return r; /* it may hold what was acknowledged */
	discarded = layout_draft_discard(draft, &why);
	if (discarded < 0)
		*err = why;
	return discarded;
}

/* Goes on past a draft that cannot be swept: what others hold may be asked for next. */
static int sweep_all(struct layout *layout, enum sweeping how, size_t *ret_n,
		     struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int result = COPPICE_OK, r;

	dir = layout_list(layout->drafts_fd, ".", &r, err);
	while (dir && (entry = readdir(dir)) != NULL) {
		struct draft draft = { .pool = &layout->pool, .fd = -1 };

		if (layout_is_dot(entry->d_name) || !uuid_parse(entry->d_name, &draft.id))
			continue;
		draft.fd = openat(layout->drafts_fd, entry->d_name,
				  O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (draft.fd < 0)
			continue;                              /* gone meanwhile */
		if (flock(draft.fd, LOCK_EX | LOCK_NB) == 0) { /* else its maker lives */
			r = sweep_one(layout, &draft, how, err);
			if (r < 0)
				result = r;
			*ret_n += 1;
		}
		closep(&draft.fd);
	}
	return result < 0 ? result : r;
}

static bool has_drafts(struct layout *layout)
{
	struct coppice_error ignored;
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int r;

	dir = layout_list(layout->drafts_fd, ".", &r, &ignored);
	while (dir && (entry = readdir(dir)) != NULL)
		if (!layout_is_dot(entry->d_name))
			return true;
	return r < 0;
}

/*
 * One sweep at a time: who found a draft that is being swept would take it for one whose
 * maker lives, and its names for free.
 */
static int sweep(struct layout *layout, enum sweeping how, size_t *ret_n, struct coppice_error *err)
{
	int r;

	if (!has_drafts(layout))
		return COPPICE_OK;
	if (flock(layout->drafts_fd, LOCK_EX) < 0)
		return fail_errno(err, errno, "cannot lock the folder of drafts");
	r = sweep_all(layout, how, ret_n, err);
	(void)flock(layout->drafts_fd, LOCK_UN);
	return r;
}

/* What was retired is nobody's any more: what cannot be destroyed now is another time. */
int layout_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	struct coppice_error ignored;
	int r;

	*ret_n = 0;
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = sweep(layout, PUBLISHING, ret_n, err);
	(void)reap(layout, DATA, &ignored);
	return r;
}

/* ---- deleting volumes ---- */

static void explain_data_gone(struct layout *layout, const char *path)
{
	_cleanup_(freep) char *data = text_format("%s/live", path);

	if (data)
		layout->engine->data_destroy_explain(layout, data);
}

/* Retiring and, what follows from it, reaping; read off the pool, as it is now. */
static void retire_explain(struct layout *layout, const struct volume_ref *ref,
			   const struct uuid *uuid)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	_cleanup_(freep) char *target = text_format("%s/deleted/%s", layout->quoted, uuid->text);
	char path[PATH_MAX], snapshots[PATH_MAX + 16];
	struct coppice_error ignored;
	struct dirent *entry;
	int r;

	if (!layout->pool.explain || !target)
		return;
	layout_explain(layout, "mv -T %s/%s %s", layout->quoted, layout_ref_path(ref, path),
		       target);
	(void)snprintf(snapshots, sizeof(snapshots), "%s/snapshots", path);
	dir = layout_list(layout->fd, snapshots, &r, &ignored);
	while (dir && (entry = readdir(dir)) != NULL) {
		_cleanup_(freep) char *snapshot = NULL;

		if (layout_is_dot(entry->d_name))
			continue;
		snapshot = text_format("%s/snapshots/%s", target, entry->d_name);
		if (!snapshot)
			return;
		explain_data_gone(layout, snapshot);
		layout_explain(layout, "rmdir %s", snapshot);
	}
	explain_data_gone(layout, target);
	if (dir)
		layout_explain(layout, "rmdir %s/snapshots", target);
	layout_explain(layout, "rmdir %s", target);
}

void layout_unretire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
		     size_t n)
{
	struct layout *layout = layout_of(pool);
	char path[PATH_MAX];

	while (n-- > 0)
		(void)renameat2(layout->deleted_fd, uuids[n].text, layout->fd,
				layout_ref_path(&refs[n], path), RENAME_NOREPLACE);
}

static int retire_sync(struct layout *layout, const struct volume_ref *refs, size_t n,
		       struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = layout_changed(layout, &refs[i], err);
	return r < 0 ? r : layout_sync(layout, layout->deleted_fd, "deleted", err);
}

int layout_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
		  size_t n, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	char path[PATH_MAX];
	size_t n_done = 0;
	int r = COPPICE_OK;

	for (size_t i = 0; i < n; i++)
		retire_explain(layout, &refs[i], &uuids[i]);
	if (pool->is_dry_run)
		return COPPICE_OK;
	/* What was moved away, and came back, may take the place of its emptied directory. */
	for (; n_done < n && r == COPPICE_OK; n_done += r == COPPICE_OK)
		if (move_away(layout, layout->fd, layout_ref_path(&refs[n_done], path),
			      uuids[n_done].text) < 0)
			r = layout_fail(err, errno, "retire", &refs[n_done]);
	layout->has_retired = true;
	if (r == COPPICE_OK)
		r = retire_sync(layout, refs, n, err);
	if (r < 0 && r != COPPICE_NOT_FOUND)
		layout_unretire(pool, refs, uuids, n_done);
	return r;
}

int layout_reap(struct pool *pool, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	bool has_closed = layout->has_closed_accounts;

	if (pool->is_dry_run)
		return COPPICE_OK;
	layout->has_closed_accounts = false;
	return reap(layout, has_closed ? DATA : DATA | ACCOUNTS, err);
}

void layout_close_accounts(struct layout *layout)
{
	struct coppice_error ignored;

	layout->has_closed_accounts = reap(layout, ACCOUNTS, &ignored) == COPPICE_OK;
}

bool layout_has_account_left(struct layout *layout, const struct uuid *uuid)
{
	char name[UUID_TEXT_SIZE + sizeof(ACCOUNT_TAIL)];

	/* In this order: it may be renamed between the two. */
	(void)snprintf(name, sizeof(name), "%s" ACCOUNT_TAIL, uuid->text);
	return faccessat(layout->deleted_fd, uuid->text, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
	       faccessat(layout->deleted_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int layout_deleted(struct layout *layout, deleted_fn *fn, void *user, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int r;

	dir = layout_list(layout->deleted_fd, ".", &r, err);
	while (dir && r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
		_cleanup_(freep) char *record = NULL;
		struct coppice_error ignored;
		char path[PATH_MAX];
		struct uuid uuid;

		if (layout_is_dot(entry->d_name))
			continue;
		(void)snprintf(path, sizeof(path), "deleted/%s", entry->d_name);
		if (layout_record_get(layout, path, &record, &ignored) < 0)
			continue; /* reaped meanwhile */
		if (layout_record_uuid(record, &uuid))
			r = fn(user, record, &uuid, err);
	}
	return r;
}

int layout_unmake(struct layout *layout, struct coppice_error *err)
{
	struct pool *pool = &layout->pool;
	size_t n = 0;
	int r;

	r = sweep(layout, DISCARDING, &n, err);
	if (r == COPPICE_OK)
		r = layout_reap(pool, err);
	if (r < 0)
		return r;
	/* What only says whose an account was says nothing any more. */
	if (layout->engine->account_close) {
		_cleanup_(closedirp) DIR *dir = layout_list(layout->deleted_fd, ".", &r, err);
		struct dirent *entry;

		while (dir && (entry = readdir(dir)) != NULL)
			if (!layout_is_dot(entry->d_name))
				(void)unlinkat(layout->deleted_fd, entry->d_name, AT_REMOVEDIR);
	}
	return r < 0 ? r : layout_remove(layout->fd, layout->has_no_attributes, err);
}
