/* SPDX-License-Identifier: Apache-2.0 */
/* Instances that begin empty: a root directory with nothing in it, or a disk of zeros. */
#include "core/instances.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"

/* As LXD has it, where neither the instance nor the pool says how large. */
#define DISK_SIZE_DEFAULT "10GiB"

/* What is asked for, looked up and checked. */
struct empty {
	struct pool_entry *entry;
	struct volume_name *names;
	size_t n;
	enum volume_kind kind;
	struct coppice_settings config;
};

static void empty_done(struct empty *empty)
{
	free(empty->names);
	settings_done(&empty->config);
}

int refuse_content(const struct pool_entry *entry, enum volume_kind kind, struct coppice_error *err)
{
	if (kind != VOLUME_VIRTUAL_MACHINE || entry->driver->traits.has_blocks)
		return COPPICE_OK;
	return fail(err, COPPICE_UNSUPPORTED,
		    "pool '%s' cannot hold block content: the %s driver has file systems only",
		    entry->name, entry->driver->name);
}

/* A disk has a size, so that it has the same wherever it is copied to. */
static int add_size(struct empty *empty, struct coppice_error *err)
{
	const char *size = settings_get(&empty->entry->config, "volume.size");

	if (empty->kind != VOLUME_VIRTUAL_MACHINE || settings_get(&empty->config, "size"))
		return COPPICE_OK;
	return settings_put(&empty->config, "size", size ? size : DISK_SIZE_DEFAULT, err);
}

static int describe(struct coppice *coppice, const struct empty *empty, struct makings *makings,
		    struct coppice_error *err)
{
	int64_t now = now_ns();
	int r = makings_new(makings, empty->n, err);

	for (size_t i = 0; i < empty->n && r == COPPICE_OK; i++) {
		struct making *making = &makings->making[i];

		making->volume.ref =
			(struct volume_ref){ .kind = empty->kind, .name = empty->names[i] };
		making->volume.limit_bytes = config_limit(&empty->config);
		making->volume.limit_how = config_limit_how(empty->entry->driver, &empty->config);
		making->record.kind = empty->kind;
		making->record.created_ns = now;
		r = settings_copy(&making->record.config, &empty->config, err);
		if (r == COPPICE_OK)
			r = making_finish(coppice, makings, i, NULL, NULL, err);
	}
	return r;
}

/* Where a container finds its /. */
static int make_root(struct coppice *coppice, const struct new_volume *volume, const char *path,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *root = text_format("%s/rootfs", path);
	const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;

	if (!root)
		return fail_memory(err);
	explain(coppice, "mkdir -m 755 \"$draft\"/%s/%s/rootfs", volume->ref.name.text, name);
	/* Whatever the umask is, which is not a container's. */
	if (!coppice->options.is_dry_run && (mkdir(root, 0755) < 0 || chmod(root, 0755) < 0))
		return fail_errno(err, errno, "cannot make '%s'", root);
	return COPPICE_OK;
}

static int make_one(struct coppice *coppice, struct draft *draft, const struct new_volume *volume,
		    struct coppice_error *err)
{
	const struct driver *driver = draft->pool->driver;
	_cleanup_(freep) char *path = NULL;
	int r;

	if (is_interrupted(coppice))
		return fail(err, COPPICE_INTERRUPTED, "interrupted; nothing was changed");
	r = driver->volume_create(draft, volume, &path, err);
	if (r == COPPICE_OK && !volume_is_block(&volume->ref))
		r = make_root(coppice, volume, path, err);
	return r < 0 ? r : driver->volume_seal(draft, volume, false, err);
}

/* Under the locks: all is as it was looked up. */
static int make_all(struct coppice *coppice, struct empty *empty, struct coppice_error *err)
{
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	_cleanup_(makings_done) struct makings makings = { 0 };
	struct draft draft = { .fd = -1 };
	int r;

	r = volumes_must_not_exist(coppice, empty->names, empty->n, err);
	if (r == COPPICE_OK)
		r = draft_begin(empty->entry, &draft, &undo, err);
	if (r == COPPICE_OK)
		r = describe(coppice, empty, &makings, err);
	for (size_t i = 0; i < empty->n && r == COPPICE_OK; i++)
		r = make_one(coppice, &draft, &makings.making[i].volume, err);
	if (r == COPPICE_OK)
		r = publish(coppice, empty->entry, &draft, &makings, err);
	if (r == COPPICE_OK)
		undo_commit(&undo);
	return r;
}

int coppice_instance_init_empty(struct coppice *coppice, const char *const *names, size_t n,
				enum coppice_content content,
				const struct coppice_setting *settings, size_t n_settings,
				const char *pool, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(empty_done) struct empty empty = { .n = n };
	int r;

	if (n == 0)
		return fail(err, COPPICE_INVALID, "no instance is named");
	empty.kind = content == COPPICE_BLOCK ? VOLUME_VIRTUAL_MACHINE : VOLUME_CONTAINER;
	empty.names = calloc(n, sizeof(*empty.names));
	if (!empty.names)
		return fail_memory(err);
	r = instance_names_parse(names, n, empty.names, err);
	if (r == COPPICE_OK)
		/* One that is made by itself holds no block content. */
		r = pools_choose(coppice, pool, content == COPPICE_BLOCK ? 0 : POOLS_MAY_MAKE,
				 &empty.entry, err);
	if (r == COPPICE_OK)
		r = refuse_content(empty.entry, empty.kind, err);
	if (r == COPPICE_OK)
		r = config_take(empty.entry, empty.kind, settings, n_settings, true, &empty.config,
				err);
	if (r == COPPICE_OK)
		r = config_add_defaults(empty.entry, &empty.config, err);
	if (r == COPPICE_OK)
		r = add_size(&empty, err);
	if (r == COPPICE_OK)
		r = room_check(coppice, empty.entry, err);
	if (r < 0)
		return r;
	locks_add(&locks, LOCK_POOLS, empty.entry->name, false);
	for (size_t i = 0; i < n; i++)
		locks_add(&locks, LOCK_INSTANCES, empty.names[i].text, true);
	r = locks_take(coppice, &locks, err);
	return r < 0 ? r : make_all(coppice, &empty, err);
}
