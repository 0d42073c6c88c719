/* SPDX-License-Identifier: Apache-2.0 */
/* Deleting a pool with what is in it, and forgetting one that is gone. */
#include "core/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "base/file.h"
#include "base/text.h"
#include "core/instances.h"

struct counting {
	size_t n;
	struct text names;
};

static int count_volume(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct counting *counting = user;

	if (volume_is_snapshot(&found->ref))
		return COPPICE_OK;
	if (counting->n++ < 10)
		text_add(&counting->names, "%s%.20s", counting->n > 1 ? ", " : "",
			 found->ref.name.text);
	return COPPICE_OK;
}

struct emptying {
	struct volume_ref *refs;
	struct uuid *uuids;
	size_t n;
};

static int collect_volume(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct emptying *emptying = user;
	struct record record = { 0 };
	struct coppice_error ignored;
	struct volume_ref *refs;
	struct uuid *uuids;
	int r = COPPICE_OK;

	if (volume_is_snapshot(&found->ref))
		return COPPICE_OK;
	refs = reallocarray(emptying->refs, emptying->n + 1, sizeof(*refs));
	if (refs)
		emptying->refs = refs;
	uuids = reallocarray(emptying->uuids, emptying->n + 1, sizeof(*uuids));
	if (uuids)
		emptying->uuids = uuids;
	if (!refs || !uuids)
		return fail_memory(err);
	if (found->record && record_parse(found->record, &record, &ignored) == COPPICE_OK)
		uuids[emptying->n] = record.uuid;
	else
		r = uuid_new(&uuids[emptying->n], err);
	refs[emptying->n++] = found->ref;
	record_done(&record);
	return r;
}

/*
 * Before anything is lost: a pool that is in use cannot be unmounted after it. Our own
 * descriptors use it, too; meanwhile there are none.
 */
static int refuse_pool_in_use(struct coppice *coppice, struct pool_entry *entry,
			      const struct emptying *emptying, struct coppice_error *err)
{
	int r = COPPICE_OK;

	if (entry->driver->in_use)
		r = entry->driver->in_use(entry->pool, emptying->refs, emptying->n, NULL, NULL,
					  err);
	if (r < 0 || !entry->driver->pool_can_umount)
		return r;
	pool_entry_close(entry);
	r = entry->driver->pool_can_umount(&entry->spec, err);
	return r < 0 ? wrap(err, "cannot delete pool '%s'", entry->name)
		     : pools_open(coppice, entry, err);
}

static int empty_pool(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	struct emptying emptying = { 0 };
	int r = entry->driver->scan(entry->pool, collect_volume, &emptying, err);

	if (r == COPPICE_OK && emptying.n)
		r = refuse_pool_in_use(coppice, entry, &emptying, err);
	for (size_t i = 0; i < emptying.n && r == COPPICE_OK; i++)
		notice(coppice, "deleting %s '%s'", volume_kind_name(emptying.refs[i].kind),
		       emptying.refs[i].name.text);
	if (r == COPPICE_OK && emptying.n)
		r = retire(coppice, entry, emptying.refs, emptying.uuids, emptying.n, err);
	free(emptying.refs);
	free(emptying.uuids);
	return r;
}

static int refuse_volumes(struct pool_entry *entry, struct coppice_error *err)
{
	struct counting counting = { .names = TEXT_INIT };
	int r = entry->driver->scan(entry->pool, count_volume, &counting, err);

	if (r == COPPICE_OK && counting.n > 0)
		r = fail(err, COPPICE_BUSY,
			 "pool '%s' has %zu volume%s: %s%s; delete them first, or use --force",
			 entry->name, counting.n, counting.n == 1 ? "" : "s",
			 counting.names.data ? counting.names.data : "",
			 counting.n > 10 ? ", …" : "");
	text_done(&counting.names);
	return r;
}

/* The file says how far it is: NAME.deleting, until all is gone. */
static int mark_deleted(struct coppice *coppice, const char *path, const char *mark,
			struct coppice_error *err)
{
	int r;

	if (renameat(coppice->root_fd, path, coppice->root_fd, mark) < 0)
		return fail_errno(err, errno, "cannot delete '%s/%s'", coppice->root, path);
	r = sync_pools(coppice, err);
	if (r < 0)
		(void)renameat(coppice->root_fd, mark, coppice->root_fd, path);
	return r;
}

static int destroy_pool(struct coppice *coppice, struct pool_entry *entry,
			struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	struct coppice_error why;
	char path[128], mark[128];
	int r;

	(void)snprintf(path, sizeof(path), "pools/%s.json", entry->name);
	(void)snprintf(mark, sizeof(mark), "pools/%s.deleting", entry->name);
	fd = openat(coppice->root_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)flock(fd, LOCK_EX | LOCK_NB);
	pool_entry_close(entry);
	/* What is in use shows when it is unmounted; before that nothing is lost. */
	r = entry->driver->pool_umount(&entry->spec, err);
	if (r < 0)
		return wrap(err, "cannot delete pool '%s'", entry->name);
	r = mark_deleted(coppice, path, mark, err);
	if (r < 0) {
		(void)pools_open(coppice, entry, &why); /* mounted, as it was */
		return r;
	}
	/* From here it is deleted; what cannot be removed now is by the next command. */
	if (entry->driver->pool_destroy(&entry->spec, &why) < 0)
		notice(coppice, "of pool '%s' not all could be removed yet: %s", entry->name,
		       why.message);
	else if (unlinkat(coppice->root_fd, mark, 0) == 0)
		(void)sync_pools(coppice, &why); /* that it does not come back, with its disk */
	return COPPICE_OK;
}

/* Comes first: what the catalog does not know it reads again, if the pool stays. */
static int forget_pool(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	int r = catalog_begin(coppice->catalog, err);

	if (r == COPPICE_OK)
		r = catalog_pool_clear(coppice->catalog, name, err);
	if (r == COPPICE_OK)
		r = catalog_stamp_put(coppice->catalog, name, 0, err);
	if (r == COPPICE_OK)
		r = images_rebuild(coppice, err);
	if (r == COPPICE_OK)
		return catalog_commit(coppice->catalog, err);
	catalog_rollback(coppice->catalog);
	return r;
}

/* Is what it lives on not there, and not just no answer to be had? */
static bool is_gone(struct pool_entry *entry)
{
	struct coppice_error why = { 0 };
	struct pool *pool;

	if (entry->driver->pool_open(&entry->spec, &pool, &why) == COPPICE_OK)
		entry->driver->pool_close(pool);
	return why.code == COPPICE_NOT_FOUND;
}

/* It is known here no more; nothing of it is destroyed. */
static int forget_here(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("pools/%s.json", entry->name);
	int r;

	if (!path)
		return fail_memory(err);
	/* Before the catalog forgets what it could not read again. */
	r = pool_entry_unmount(coppice, entry, true, err);
	if (r < 0)
		return wrap(err, "cannot delete pool '%s'", entry->name);
	r = forget_pool(coppice, entry->name, err);
	if (r == COPPICE_OK && unlinkat(coppice->root_fd, path, 0) < 0)
		r = fail_errno(err, errno, "cannot delete '%s/%s'", coppice->root, path);
	if (r == COPPICE_OK)
		r = sync_pools(coppice, err);
	pools_done(coppice);
	return r < 0 ? r : pools_load(coppice, err);
}

/* @why: it cannot be opened. What it lives on may come back: then storage recover finds it. */
static int forget_gone(struct coppice *coppice, struct pool_entry *entry, const char *why,
		       struct coppice_error *err)
{
	int r = COPPICE_OK;

	if (entry->driver->pool_can_umount)
		r = entry->driver->pool_can_umount(&entry->spec, err);
	if (r < 0)
		return wrap(err, "cannot delete pool '%s'", entry->name);
	notice(coppice, "%s; so it is only forgotten, and nothing of it destroyed", why);
	return coppice->options.is_dry_run ? COPPICE_OK : forget_here(coppice, entry, err);
}

/* Others use it as well: *ret_did, it is theirs alone now. What is mounted of it here is not. */
static int leave(struct coppice *coppice, struct pool_entry *entry, bool *ret_did,
		 struct coppice_error *err)
{
	_cleanup_(freep) char *others = NULL, *others_still = NULL;
	int r;

	*ret_did = false;
	if (!entry->driver->pool_leave)
		return COPPICE_OK;
	entry->pool->is_dry_run = true; /* it is only asked who they are */
	r = entry->driver->pool_leave(entry->pool, &others, err);
	entry->pool->is_dry_run = coppice->options.is_dry_run;
	if (r == COPPICE_OK && others && !coppice->options.is_dry_run) {
		r = entry->driver->pool_umount(&entry->spec, err);
		if (r == COPPICE_OK)
			r = entry->driver->pool_leave(entry->pool, &others_still, err);
		if (r == COPPICE_OK && !others_still)
			r = fail(err, COPPICE_BUSY, "the others have just left it");
	}
	if (r < 0)
		return wrap(err, "cannot delete pool '%s'", entry->name);
	if (!others)
		return COPPICE_OK;
	*ret_did = true;
	notice(coppice,
	       "pool '%s' is used by %s, too; so it is only forgotten here, and nothing of it "
	       "destroyed",
	       entry->name, others);
	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	pool_entry_close(entry);
	return forget_here(coppice, entry, err);
}

int coppice_storage_delete(struct coppice *coppice, const char *name, bool is_forced,
			   struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	struct coppice_error why;
	struct pool_entry *entry;
	bool did_leave = false;
	int r;

	r = pools_find(coppice, name, &entry, err);
	if (r < 0)
		return r;
	locks_add(&locks, LOCK_POOLS, name, true);
	r = locks_take(coppice, &locks, err);
	if (r < 0)
		return r;
	r = pools_open(coppice, entry, &why);
	if (r == COPPICE_UNAVAILABLE && is_forced && is_gone(entry))
		return forget_gone(coppice, entry, why.message, err);
	if (r < 0) {
		*err = why;
		return r;
	}
	r = leave(coppice, entry, &did_leave, err);
	if (r < 0 || did_leave)
		return r;
	if (entry->is_unswept && !is_forced)
		r = fail(err, COPPICE_BUSY,
			 "pool '%s' has leftovers that cannot be swept, and may hold volumes; see: "
			 "coppice check",
			 name);
	if (r == COPPICE_OK && entry->driver->pool_can_destroy)
		r = entry->driver->pool_can_destroy(entry->pool, err);
	if (r == COPPICE_OK)
		r = is_forced ? empty_pool(coppice, entry, err) : refuse_volumes(entry, err);
	if (r < 0 || coppice->options.is_dry_run)
		return r;
	r = pool_hold(coppice, entry, err); /* closing it gives it back */
	if (r == COPPICE_OK)
		r = forget_pool(coppice, name, err);
	if (r == COPPICE_OK)
		r = destroy_pool(coppice, entry, err);
	pools_done(coppice);
	return r < 0 ? r : pools_load(coppice, err);
}
