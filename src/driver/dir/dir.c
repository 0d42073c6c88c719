/* SPDX-License-Identifier: Apache-2.0 */
/* The driver for plain directories; most of it is generic/layout.c. */
#include "driver/dir/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/dir/dir_pool.h"
#include "driver/dir/limits.h"
#include "driver/dir/sharing.h"
#include "driver/generic/copy.h"
#include "driver/generic/fill.h"
#include "driver/generic/remove.h"

static struct layout *layout_of(struct pool *pool)
{
	return CONTAINER_OF(pool, struct layout, pool);
}

/* ---- what the layout asks of us ---- */

/* A limit goes before the files do: then nobody finds it without them. */
static int data_destroy(struct layout *layout, int dir_fd, const char *name,
			struct coppice_error *err)
{
	int r = limits_end(dir_pool_of(&layout->pool), dir_fd, name, err);

	return r < 0 ? r : tree_remove(dir_fd, name, 0, err);
}

static void data_destroy_explain(struct layout *layout, const char *path)
{
	limits_explain_end(dir_pool_of(&layout->pool), path);
	layout_explain(layout, "rm -rf --one-file-system %s", path);
}

static const struct layout_engine engine = {
	.data_destroy = data_destroy,
	.data_destroy_explain = data_destroy_explain,
	.needs_directory_sync = true,
};

/* ---- pools ---- */

/* Where the pool is: at its source, or in a directory of ours. */
static void place(const struct pool_spec *spec, char ret[static PATH_MAX])
{
	if (spec->source)
		(void)snprintf(ret, PATH_MAX, "%s", spec->source);
	else
		(void)snprintf(ret, PATH_MAX, "%s/storage-pools/%s", spec->state_path, spec->name);
}

static int probe(const struct pool_spec *spec, struct coppice_error *err)
{
	if (geteuid() != 0)
		return fail(err, COPPICE_UNSUPPORTED,
			    "the dir driver needs root, to keep the owners of an image's files");
	return COPPICE_OK;
}

static void pool_close(struct pool *pool)
{
	struct dir_pool *dir;

	if (!pool)
		return;
	dir = dir_pool_of(pool);
	layout_done(&dir->layout);
	free(dir);
}

DEFINE_CLEANUP(struct pool *, pool_close)

static int open_at(const char *path, const struct pool_spec *spec, struct pool **ret,
		   struct coppice_error *err)
{
	struct dir_pool *dir = calloc(1, sizeof(*dir));
	_cleanup_(pool_closep) struct pool *pool = NULL;
	int r;

	if (!dir)
		return fail_memory(err);
	pool = &dir->layout.pool;
	pool->driver = &driver_dir;
	r = layout_open(&dir->layout, path, &engine, err);
	if (r == COPPICE_OK)
		r = layout_check_owner(&dir->layout, spec, err);
	if (r < 0)
		return r;
	projects_probe(dir->layout.fd, &dir->projects);
	*ret = take_ptr(&pool);
	return COPPICE_OK;
}

static int pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err)
{
	char path[PATH_MAX];

	place(spec, path);
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return fail(err, COPPICE_NOT_FOUND, "the pool's directory '%s' is not there", path);
	return open_at(path, spec, ret, err);
}

/* A source must be there; and whichever it is, empty. */
static int check_place(const struct pool_spec *spec, const char *path, struct coppice_error *err)
{
	struct coppice_error why;
	struct pool *other;
	bool is_empty;
	int r;

	if (!spec->source && access(path, F_OK) < 0 && errno == ENOENT)
		return COPPICE_OK; /* it is made */
	if (spec->source && spec->source[0] != '/')
		return fail(err, COPPICE_INVALID, "source '%s' must be an absolute path",
			    spec->source);
	r = directory_is_empty(path, &is_empty, err);
	if (r < 0 || is_empty)
		return r;
	r = open_at(path, &(struct pool_spec){ .name = spec->name, .owner = spec->owner }, &other,
		    &why);
	if (r == COPPICE_OK) {
		pool_close(other);
		return fail(err, COPPICE_EXISTS, "there is a pool at '%s' already", path);
	}
	if (r == COPPICE_BUSY) {
		*err = why;
		return r;
	}
	return fail(err, COPPICE_INVALID,
		    "'%s' is not empty; if it holds a pool: coppice storage recover", path);
}

static int pool_check(const struct pool_spec *spec, struct coppice_error *err)
{
	char path[PATH_MAX];

	place(spec, path);
	return check_place(spec, path, err);
}

static int make_own(const struct pool_spec *spec, const char *path, struct coppice_error *err)
{
	_cleanup_(freep) char *parent = text_format("%s/storage-pools", spec->state_path);
	int r;

	if (!parent)
		return fail_memory(err);
	r = directory_ensure(AT_FDCWD, parent, 0711, err);
	return r < 0 ? r : directory_ensure(AT_FDCWD, path, 0711, err);
}

static int pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		       struct coppice_error *err)
{
	char path[PATH_MAX];
	int r;

	place(spec, path);
	r = check_place(spec, path, err);
	if (r == COPPICE_OK && !spec->source)
		r = make_own(spec, path, err);
	if (r == COPPICE_OK)
		r = layout_make(path, record, err);
	if (r == COPPICE_OK)
		r = open_at(path, spec, ret, err);
	if (r < 0 && !spec->source)
		(void)rmdir(path); /* only if nothing is in it */
	return r;
}

static void pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user)
{
	char path[PATH_MAX];

	place(spec, path);
	layout_make_explain(path, explain, user);
}

static bool pool_is_mounted(const struct pool_spec *spec)
{
	return true;
}

static int pool_umount(const struct pool_spec *spec, struct coppice_error *err)
{
	return COPPICE_OK;
}

/* What is in our own directory for pools, whatever it is; not there: nothing. */
static int remove_own(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(freep) char *parent = text_format("%s/storage-pools", spec->state_path);
	_cleanup_(closep) int fd = -1;

	if (!parent)
		return fail_memory(err);
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? COPPICE_OK
				       : fail_errno(err, errno, "cannot open '%s'", parent);
	return tree_remove(fd, spec->name, 1, err);
}

static int pool_destroy(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(pool_closep) struct pool *pool = NULL;
	struct coppice_error why;
	char path[PATH_MAX];
	int r;

	place(spec, path);
	r = open_at(path, spec, &pool, &why);
	if (r == COPPICE_OK) {
		r = layout_unmake(layout_of(pool), err);
		if (r < 0)
			return r;
	} else if (r == COPPICE_BUSY) {
		*err = why;
		return r;
	} else if (!spec->source) {
		/* Never made, or killed while it was made: folders without a record. */
		return remove_own(spec, err);
	}
	/* Where somebody put something of his, it stays. */
	if (!spec->source && rmdir(path) < 0 && errno != ENOENT && errno != ENOTEMPTY)
		return fail_errno(err, errno, "cannot remove '%s'", path);
	return COPPICE_OK;
}

static int pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err)
{
	struct statvfs fs;

	if (fstatvfs(layout_of(pool)->fd, &fs) < 0)
		return fail_errno(err, errno, "cannot ask for the pool's space");
	/* Used is unknown: others live on this file system too. */
	*ret = (struct pool_space){
		.total = { COPPICE_EXACT, (uint64_t)fs.f_blocks * fs.f_frsize },
		.free = { COPPICE_EXACT, (uint64_t)fs.f_bavail * fs.f_frsize },
	};
	return COPPICE_OK;
}

/* ---- making volumes ---- */

int dir_open_live(struct layout *layout, const struct volume_ref *ref, int *ret,
		  struct coppice_error *err)
{
	char path[PATH_MAX], live[PATH_MAX + 8], text[VOLUME_REF_TEXT_MAX];

	(void)snprintf(live, sizeof(live), "%s/live", layout_ref_path(ref, path));
	*ret = openat(layout->fd, live, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*ret < 0 && errno == ENOENT)
		return fail(err, COPPICE_NOT_FOUND, "no %s '%s'",
			    volume_is_snapshot(ref) ? "snapshot" : volume_kind_name(ref->kind),
			    volume_ref_format(ref, text));
	return *ret < 0 ? fail_errno(err, errno, "cannot open '%s'", live) : COPPICE_OK;
}

/* syncfs, as nothing less makes thousands of files durable on every file system. */
int dir_sync(int fd, struct coppice_error *err)
{
	if (retry(syncfs(fd)) < 0)
		return fail_errno(err, errno, "cannot write out the data");
	return COPPICE_OK;
}

static int make_live(struct draft *draft, const struct new_volume *volume, int *ret_fd,
		     struct coppice_error *err)
{
	char item[PATH_MAX], path[PATH_MAX + 8];
	int r;

	r = layout_item_create(draft, volume, err);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/live", layout_item_path(volume, item));
	if (mkdirat(draft->fd, path, 0700) < 0)
		return fail_errno(err, errno, "cannot create '%s'", path);
	*ret_fd = openat(draft->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*ret_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	if (dir_pool_of(draft->pool)->projects.can_count)
		return project_assign(*ret_fd, &volume->uuid, err);
	return COPPICE_OK;
}

/* Its directory in the draft, as a word for a shell. */
static void item_explain(struct draft *draft, const struct new_volume *volume)
{
	char item[PATH_MAX], path[PATH_MAX + 16];

	layout_item_explain(draft, volume);
	(void)snprintf(path, sizeof(path), "\"$draft\"/%s/live", layout_item_path(volume, item));
	layout_explain(layout_of(draft->pool), "mkdir %s", path);
	limits_explain_project(dir_pool_of(draft->pool), path);
}

static int volume_create(struct draft *draft, const struct new_volume *volume, char **ret_path,
			 struct coppice_error *err)
{
	struct layout *layout = layout_of(draft->pool);
	_cleanup_(closep) int fd = -1;
	char item[PATH_MAX];
	char *path;
	int r;

	r = layout_refuse_limits(draft->pool, volume, 1, err);
	if (r < 0)
		return r;
	item_explain(draft, volume);
	if (!draft->pool->is_dry_run)
		r = make_live(draft, volume, &fd, err);
	if (r < 0)
		return r;
	path = text_format("%s/drafts/%s/%s/live", layout->path, draft->id.text,
			   layout_item_path(volume, item));
	if (!path)
		return fail_memory(err);
	*ret_path = path;
	return COPPICE_OK;
}

static int volume_seal(struct draft *draft, const struct new_volume *volume, bool is_read_only,
		       struct coppice_error *err)
{
	struct dir_pool *dir = dir_pool_of(draft->pool);
	_cleanup_(closep) int fd = -1;
	char item[PATH_MAX], path[PATH_MAX + 8];
	int r;

	if (volume->limit_bytes)
		limits_explain(dir, volume->limit_bytes);
	layout_explain(&dir->layout, "sync -f \"$draft\"");
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	r = layout_item_record(draft, volume, err);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/live", layout_item_path(volume, item));
	fd = openat(draft->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	r = limits_begin(dir, fd, volume, err);
	return r < 0 ? r : dir_sync(draft->fd, err);
}

static int copy_one(struct draft *draft, int origin_fd, const char *origin_name,
		    const struct new_volume *volume, struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	struct tree_copied copied;
	int r;

	r = make_live(draft, volume, &fd, err);
	if (r < 0)
		return r;
	r = tree_copy(&(struct tree_copy){ .from_fd = origin_fd,
					   .to_fd = fd,
					   .is_interrupted = draft->pool->is_interrupted,
					   .interrupted_user = draft->pool->interrupted_user },
		      &copied, err);
	return r < 0 ? wrap(err, "cannot copy '%s'", origin_name)
		     : limits_begin(dir_pool_of(draft->pool), fd, volume, err);
}

static void clone_explain(struct draft *draft, const struct volume_ref *origin,
			  const struct new_volume *volumes, size_t n)
{
	struct layout *layout = layout_of(draft->pool);
	char path[PATH_MAX], item[PATH_MAX];

	for (size_t i = 0; i < n; i++) {
		item_explain(draft, &volumes[i]);
		layout_explain(layout, "cp -a --reflink=auto %s/%s/live/. \"$draft\"/%s/live",
			       layout->quoted, layout_ref_path(origin, path),
			       layout_item_path(&volumes[i], item));
		if (volumes[i].limit_bytes)
			limits_explain(dir_pool_of(draft->pool), volumes[i].limit_bytes);
	}
	layout_explain(layout, "sync -f \"$draft\"");
}

static int clone_batch(struct draft *draft, const struct volume_ref *origin,
		       const struct new_volume *volumes, size_t n, bool is_read_only,
		       struct coppice_error *err)
{
	struct dir_pool *dir = dir_pool_of(draft->pool);
	_cleanup_(closep) int origin_fd = -1;
	int r;

	r = layout_refuse_limits(draft->pool, volumes, n, err);
	if (r < 0)
		return r;
	r = dir_open_live(&dir->layout, origin, &origin_fd, err);
	if (r == COPPICE_OK)
		r = limits_check(dir, origin_fd, volumes, n, err);
	if (r == COPPICE_NOT_FOUND && draft->pool->is_dry_run)
		r = COPPICE_OK; /* it would have been made by now */
	if (r < 0)
		return r;
	clone_explain(draft, origin, volumes, n);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = copy_one(draft, origin_fd, origin->name.text, &volumes[i], err);
	return r < 0 ? r : dir_sync(draft->fd, err);
}

/* The limit is on the tree; it goes over to the one that takes its place. */
static int swap(struct draft *draft, const struct new_volume *replacement,
		const struct volume_ref *ref, struct coppice_error *err)
{
	struct dir_pool *dir = dir_pool_of(draft->pool);
	_cleanup_(closep) int old_fd = -1;
	_cleanup_(closep) int new_fd = -1;
	char item[PATH_MAX], path[PATH_MAX + 8];
	uint64_t limit_bytes = 0;
	int r;

	if (!dir->projects.can_limit)
		return layout_swap(draft, replacement, ref, err);
	r = dir_open_live(&dir->layout, ref, &old_fd, err);
	if (r == COPPICE_OK)
		r = limits_get(old_fd, &limit_bytes, err);
	if (r < 0)
		return r;
	if (limit_bytes)
		limits_explain(dir, limit_bytes);
	if (limit_bytes && !draft->pool->is_dry_run) {
		(void)snprintf(path, sizeof(path), "%s/live", layout_item_path(replacement, item));
		new_fd = openat(draft->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (new_fd < 0)
			return fail_errno(err, errno, "cannot open '%s'", path);
		r = limits_put(new_fd, limit_bytes, err);
	}
	return r < 0 ? r : layout_swap(draft, replacement, ref, err);
}

/* Everything synced its own directories already. */
static int commit(struct pool *pool, struct coppice_error *err)
{
	return COPPICE_OK;
}

/* ---- space ---- */

/* What the engine counts; else unknown, or, if it is to be exact, walked. */
static int usage_of_one(struct dir_pool *dir, const struct volume_ref *ref, bool is_exact,
			struct volume_usage *ret, struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	uint32_t project = 0;
	uint64_t used;
	int r = dir_open_live(&dir->layout, ref, &fd, err);

	/* Somebody took it away meanwhile: nothing is known of it. */
	if (r == COPPICE_NOT_FOUND && !is_exact)
		return COPPICE_OK;
	if (r == COPPICE_OK && dir->projects.can_count)
		r = project_of(fd, &project, err);
	if (r < 0 || (!project && !is_exact))
		return r;
	r = limits_used(dir, fd, &used, err);
	if (r == COPPICE_OK)
		ret->refers = (struct coppice_bytes){ COPPICE_EXACT, used };
	return r;
}

static int usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
		 struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err)
{
	struct dir_pool *dir = dir_pool_of(pool);
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		ret[i] = (struct volume_usage){ 0 };
		if (refs[i].name.text[0] && (is_exact || dir->projects.can_count))
			r = usage_of_one(dir, &refs[i], is_exact, &ret[i], err);
	}
	return r;
}

static int used(struct pool *pool, const struct volume_ref *refs, size_t n,
		struct coppice_bytes *ret, struct coppice_error *err)
{
	_cleanup_(sharing_done) struct sharing sharing = { .pool = pool };
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		_cleanup_(closep) int fd = -1;

		r = dir_open_live(layout_of(pool), &refs[i], &fd, err);
		if (r == COPPICE_OK)
			r = sharing_add(&sharing, fd, err);
		else if (r == COPPICE_NOT_FOUND)
			r = COPPICE_OK; /* gone since */
	}
	/* Of trees that change meanwhile it may be nonsense. */
	if (r == COPPICE_OK && !sharing.is_unsure &&
	    sharing.allocated_bytes >= sharing.repeated_bytes)
		*ret = (struct coppice_bytes){
			COPPICE_EXACT,
			sharing.allocated_bytes - sharing.repeated_bytes,
		};
	return r;
}

/* What is deleted is gone at once. */
static int pinned(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err)
{
	return COPPICE_OK;
}

static int in_use(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
		  void *user, struct coppice_error *err)
{
	return layout_in_use(layout_of(pool), refs, n, tell, user, err);
}

static const struct driver_key pool_keys[] = { { .name = NULL } };

const struct driver driver_dir = {
	.name = "dir",
	.pool_keys = pool_keys,
	.traits = { .can_clone = false, .can_limit = true, .is_loop_able = false },

	.probe = probe,
	.pool_create = pool_create,
	.pool_check = pool_check,
	.pool_explain = pool_explain,
	.pool_open = pool_open,
	.pool_close = pool_close,
	.pool_is_mounted = pool_is_mounted,
	.pool_umount = pool_umount,
	.pool_destroy = pool_destroy,
	.pool_space = pool_space,
	.pool_hold = layout_pool_hold,
	.pool_record_read = layout_pool_record_read,
	.pool_record_write = layout_pool_record_write,
	.pool_mount_path = layout_pool_mount_path,

	.draft_open = layout_draft_open,
	.draft_discard = layout_draft_discard,
	.volume_create = volume_create,
	.volume_fill = fill_by_copying,
	.draft_path = layout_draft_path,
	.volume_seal = volume_seal,
	.clone = clone_batch,
	.publish = layout_publish,
	.commit = commit,
	.draft_sweep = layout_draft_sweep,

	.swap = swap,
	.rename = layout_rename,
	.record_write = layout_record_write,
	.can_limit = limits_can,
	.limit_set = limits_set,

	.retire = layout_retire,
	.unretire = layout_unretire,
	.reap = layout_reap,
	.pinned = pinned,

	.stamp = layout_stamp,
	.touch = layout_touch,
	.scan = layout_scan,
	.record_read = layout_record_read,
	.path = layout_path,
	.usage = usage,
	.used = used,
	.in_use = in_use,
};
