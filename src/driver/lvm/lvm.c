/* SPDX-License-Identifier: Apache-2.0 */
/* The table of ops, and what only looks. */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/generic/fill.h"

/* What is changed is on the disk when its session ends. */
static int commit(struct pool *pool, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	int why = lvm->flush_failed;

	lvm->flush_failed = 0;
	return why ? fail_errno(err, why, "cannot write out the volume group '%s'", lvm->vg)
		   : COPPICE_OK;
}

/* ---- the stamp ---- */

static uint64_t part_of(const struct lvm_pool *lvm, const struct lv *lv)
{
	struct volume_ref ref;

	return lv_ref(lvm, lv, &ref) ? lvm_hash(&ref, lv->record ? lv->record : "-") : 0;
}

/* Of what touch rewrites. */
static uint64_t hash_touched(const struct lvm_pool *lvm)
{
	_cleanup_(freep) char *path = text_format("%s/stamp", lvm->files.path);
	_cleanup_(freep) char *text = NULL;
	struct volume_ref none = { .kind = VOLUME_CUSTOM };
	struct coppice_error ignored;

	if (!path || file_read(AT_FDCWD, path, 64, &text, &ignored) < 0)
		return 0;
	return lvm_hash(&none, text);
}

static int stamp(struct pool *pool, uint64_t *ret, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list own = { 0 };
	const struct lv_list *listing;
	uint64_t sum = hash_touched(lvm);
	int r = lvm_look(lvm, &own, &listing, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < listing->n; i++)
		sum += part_of(lvm, &listing->lv[i]);
	*ret = sum % STAMP_MODULUS;
	return COPPICE_OK;
}

static int stamp_part(struct pool *pool, const struct volume_ref *refs, size_t n, uint64_t *ret,
		      struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list own = { 0 };
	const struct lv_list *listing;
	uint64_t sum = 0;
	int r = lvm_look(lvm, &own, &listing, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		const struct lv *lv = lv_list_find_ref(lvm, listing, &refs[i]);

		for (size_t k = 0; lv && k < listing->n; k++)
			if (&listing->lv[k] == lv || listing->lv[k].volume == lv)
				sum += part_of(lvm, &listing->lv[k]);
	}
	*ret = sum % STAMP_MODULUS;
	return COPPICE_OK;
}

static uint64_t stamp_new(struct pool *pool, const struct new_volume *volumes, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += lvm_hash(&volumes[i].ref, volumes[i].record);
	return sum % STAMP_MODULUS;
}

static int touch(struct pool *pool, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("%s/stamp", lvm_pool_of(pool)->files.path);
	struct uuid id;
	int r;

	if (!path)
		return fail_memory(err);
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = uuid_new(&id, err);
	return r < 0 ? r : file_write(AT_FDCWD, path, id.text, false, err);
}

/* ---- looking ---- */

static int scan_one(const struct lv *lv, const struct volume_ref *ref, scan_fn *fn, void *user,
		    struct coppice_error *err)
{
	struct found_volume found = { .ref = *ref, .record = lv->record };

	if (!volume_name_is_valid(ref->kind, ref->name.text) ||
	    (volume_is_snapshot(ref) && !volume_name_is_valid(VOLUME_CUSTOM, ref->snapshot.text))) {
		found.what = "name-invalid";
		found.problem = "its name is none that Coppice gives";
		found.record = NULL;
	}
	return fn(user, &found, err);
}

static int scan(struct pool *pool, scan_fn *fn, void *user, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list own = { 0 };
	const struct lv_list *listing;
	struct volume_ref ref;
	int r;

	r = lvm_look(lvm, &own, &listing, err);
	for (int snapshots = 0; snapshots < 2 && r >= 0; snapshots++)
		for (size_t i = 0; i < listing->n && r >= 0; i++)
			if (lv_ref(lvm, &listing->lv[i], &ref) &&
			    volume_is_snapshot(&ref) == (snapshots == 1))
				r = scan_one(&listing->lv[i], &ref, fn, user, err);
	return r < 0 ? r : COPPICE_OK;
}

static int record_read(struct pool *pool, const struct volume_ref *ref, char **ret,
		       struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list own = { 0 };
	const struct lv_list *listing;
	char name[VOLUME_REF_TEXT_MAX];
	const struct lv *lv;
	char *record;
	int r;

	r = lvm_look(lvm, &own, &listing, err);
	if (r < 0)
		return r;
	lv = lv_list_find_ref(lvm, listing, ref);
	if (!lv)
		return lvm_fail_missing(ref, err);
	if (!lv->record)
		return fail(err, COPPICE_FAILED, "'%s' has no record",
			    volume_ref_format(ref, name));
	record = strdup(lv->record);
	if (!record)
		return fail_memory(err);
	*ret = record;
	return COPPICE_OK;
}

/* All of the pool whatever was asked for, as that is one command, too. */
static int reading_begin(struct pool *pool, const struct volume_ref *refs, size_t n,
			 struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	struct lv_list *reading;
	int r;

	lvm_reading_end(pool);
	/* Who only looks, and has changed nothing, looks at what was read a moment ago. */
	lvm->reading = n == 0 ? take_ptr(&lvm->opened) : NULL;
	if (lvm->reading)
		return COPPICE_OK;
	reading = calloc(1, sizeof(*reading));
	if (!reading)
		return fail_memory(err);
	r = lvm_list_read(lvm, reading, err);
	if (r < 0) {
		free(reading);
		return r;
	}
	lvm->reading = reading;
	return COPPICE_OK;
}

static const struct driver_key pool_keys[] = {
	{ .name = "lvm.vg_name" },
	{ .name = "lvm.thinpool_name" },
	{ .name = "lvm.thinpool_metadata_size", .is_size = true },
	{ .name = "coppice.autoextend_limit", .is_changeable = true, .is_size = true },
	{ .name = "volume.size", .is_changeable = true, .is_size = true },
	{ .name = "volume.block.filesystem", .values = "ext4|xfs|btrfs", .is_changeable = true },
	{ .name = "volume.block.mount_options", .is_changeable = true },
	{ .name = NULL },
};

static const struct driver_key volume_keys[] = {
	{ .name = "block.filesystem", .values = "ext4|xfs|btrfs" },
	{ .name = "block.mount_options", .is_changeable = true },
	{ .name = NULL },
};

const struct driver driver_lvm = {
	.name = "lvm",
	.pool_keys = pool_keys,
	.volume_keys = volume_keys,
	.traits = { .can_clone = true,
		    .can_limit = true,
		    .is_loop_able = true,
		    .must_not_fill = true,
		    .has_blocks = true },

	.probe = lvm_probe,
	.choose = lvm_choose,
	.pool_create = lvm_pool_create,
	.pool_check = lvm_pool_check,
	.pool_explain = lvm_pool_explain,
	.pool_open = lvm_pool_open,
	.pool_open_explain = lvm_pool_open_explain,
	.pool_close = lvm_pool_close,
	.pool_is_mounted = lvm_pool_is_mounted,
	.pool_umount = lvm_pool_umount,
	.pool_can_destroy = lvm_pool_can_destroy,
	.pool_destroy = lvm_pool_destroy,
	.pool_resize = lvm_pool_resize,
	.pool_extend = lvm_pool_extend,
	.pool_space = lvm_pool_space,
	.pool_host = lvm_pool_host,
	.pool_record_read = lvm_pool_record_read,
	.pool_record_write = lvm_pool_record_write,
	.pool_mount_path = lvm_pool_mount_path,

	.draft_open = lvm_draft_open,
	.draft_announce = lvm_draft_announce,
	.draft_discard = lvm_draft_discard,
	.volume_create = lvm_volume_create,
	.volume_fill = lvm_volume_fill,
	.draft_path = lvm_draft_path,
	.volume_seal = lvm_volume_seal,
	.clone = lvm_clone,
	.publish = lvm_publish,
	.commit = commit,
	.draft_sweep = lvm_draft_sweep,

	.swap = lvm_swap,
	.rename = lvm_rename,
	.record_write = lvm_record_write,
	.limit_set = lvm_limit_set,

	.retire = lvm_retire,
	.reap = lvm_reap,
	.pinned = lvm_pinned,

	.stamp = stamp,
	.stamp_part = stamp_part,
	.stamp_new = stamp_new,
	.touch = touch,
	.scan = scan,
	.record_read = record_read,
	.reading_begin = reading_begin,
	.reading_end = lvm_reading_end,
	.path = lvm_path,
	.volume_mount = lvm_volume_mount,
	.volume_umount = lvm_volume_umount,
	.usage = lvm_usage,
	.in_use = lvm_in_use,
	.check = lvm_check,
};
