/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a volume may take. refquota limits its own data, which is what df in the container
 * shows; quota its snapshots as well. What is reserved is as much, of the same.
 */
#include "driver/zfs/zfs.h"

#include <limits.h>
#include <string.h>

#include "base/text.h"
#include "driver/generic/limit.h"

enum {
	REFQUOTA,
	QUOTA,
	REFRESERVATION,
	RESERVATION
};

const char *const zfs_limit_property[ZFS_LIMITS] = {
	[REFQUOTA] = "refquota",
	[QUOTA] = "quota",
	[REFRESERVATION] = "refreservation",
	[RESERVATION] = "reservation",
};

/* How much each of them is to be; 0: none. */
static void reckon(uint64_t limit_bytes, unsigned how, uint64_t ret[static ZFS_LIMITS])
{
	bool is_whole = how & LIMIT_WITH_SNAPSHOTS;

	memset(ret, 0, ZFS_LIMITS * sizeof(*ret));
	ret[is_whole ? QUOTA : REFQUOTA] = limit_bytes;
	if (how & LIMIT_RESERVED)
		ret[is_whole ? RESERVATION : REFRESERVATION] = limit_bytes;
}

static char *property_text(size_t which, uint64_t bytes)
{
	if (bytes == 0)
		return text_format("%s=none", zfs_limit_property[which]);
	return text_format("%s=%llu", zfs_limit_property[which], (unsigned long long)bytes);
}

/* ---- of new volumes ---- */

int limit_options_format(const struct new_volume *volume, struct limit_options *ret,
			 struct coppice_error *err)
{
	uint64_t bytes[ZFS_LIMITS];

	*ret = (struct limit_options){ .n = 0 };
	reckon(volume->limit_bytes, volume->limit_how, bytes);
	for (size_t i = 0; i < ZFS_LIMITS; i++) {
		char *text = bytes[i] ? property_text(i, bytes[i]) : NULL;

		if (!bytes[i])
			continue;
		if (!text)
			return fail_memory(err);
		ret->option[ret->n++] = "-o";
		ret->option[ret->n++] = text;
	}
	return COPPICE_OK;
}

void limit_options_done(struct limit_options *options)
{
	for (size_t i = 1; i < options->n; i += 2)
		free((char *)(uintptr_t)options->option[i]);
	options->n = 0;
}

char *limit_options_told(const struct new_volume *volume)
{
	_cleanup_(limit_options_done) struct limit_options options = { .n = 0 };
	struct text told = TEXT_INIT;
	struct coppice_error ignored;

	if (limit_options_format(volume, &options, &ignored) < 0)
		return NULL;
	text_add(&told, "%s", "");
	for (size_t i = 0; i < options.n; i++)
		text_add(&told, " %s", options.option[i]);
	return text_take(&told);
}

/* ---- of volumes that there are ---- */

static int read_bytes(const char *name, const char *properties, uint64_t *ret, size_t n,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *out = NULL;
	char *rest;
	int r = zfs_run(ZFS_ARGS("zfs", "get", "-Hp", "-o", "value", properties, name), &out, err);

	if (r < 0)
		return r;
	rest = out;
	for (size_t i = 0; i < n; i++) {
		char *end;

		ret[i] = strtoull(rest, &end, 10);
		if (end == rest)
			return fail(err, COPPICE_FAILED, "cannot understand what zfs get says");
		rest = end;
	}
	return COPPICE_OK;
}

/*
 * A command failed with @r: ZFS says that a limit is too little, and not for what, or takes
 * it for a lack of space. Say it in figures, if @name, whose limit it is to be, has more.
 */
static int fail_in_figures(const char *name, const struct volume_ref *ref, uint64_t bytes,
			   bool is_whole, int r, struct coppice_error *err)
{
	struct coppice_error ignored;
	uint64_t used;

	if (read_bytes(name, is_whole ? "used" : "referenced", &used, 1, &ignored) < 0 ||
	    used <= bytes)
		return r;
	return limit_check(ref->name.text, bytes,
			   is_whole ? "with its snapshots it takes" : "it refers to", used, err);
}

int limit_options_failed(const struct new_volume *volume, const char *origin, int r,
			 struct coppice_error *err)
{
	if ((r != COPPICE_NO_SPACE && r != COPPICE_INVALID) || volume->limit_bytes == 0 ||
	    volume->limit_how & LIMIT_WITH_SNAPSHOTS)
		return r;
	return fail_in_figures(origin, &volume->ref, volume->limit_bytes, false, r, err);
}

/* A change of some of them, one after another. */
struct limiting {
	struct pool *pool;
	const char *name;
	uint64_t now[ZFS_LIMITS], wanted[ZFS_LIMITS];
};

static int set_one(struct limiting *limiting, size_t which, struct coppice_error *err)
{
	_cleanup_(freep) char *text = property_text(which, limiting->wanted[which]);
	int r = COPPICE_OK;

	if (limiting->now[which] == limiting->wanted[which])
		return COPPICE_OK;
	if (!text)
		return fail_memory(err);
	zfs_explain(limiting->pool, "zfs set %s %s", text, limiting->name);
	if (!limiting->pool->is_dry_run)
		r = zfs_run(ZFS_ARGS("zfs", "set", text, limiting->name), NULL, err);
	if (r == COPPICE_OK)
		limiting->now[which] = limiting->wanted[which];
	return r;
}

/* So that at no time there is no limit, or more set aside than the limit: ZFS refuses that. */
static int set_all(struct limiting *limiting, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = REFRESERVATION; i <= RESERVATION && r == COPPICE_OK; i++)
		if (limiting->wanted[i] < limiting->now[i])
			r = set_one(limiting, i, err);
	for (size_t i = REFQUOTA; i <= QUOTA && r == COPPICE_OK; i++)
		if (limiting->wanted[i] > 0)
			r = set_one(limiting, i, err);
	for (size_t i = 0; i < ZFS_LIMITS && r == COPPICE_OK; i++)
		r = set_one(limiting, i, err);
	return r;
}

int zfs_limit_set(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
		  uint64_t limit_bytes, unsigned how, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	struct limiting limiting = { .pool = pool };
	uint64_t before[ZFS_LIMITS];
	explain_fn *explain = pool->explain;
	struct coppice_error ignored;
	char name[DATASET_MAX];
	int r;

	limiting.name = zfs_volume_name(zfs, ref, name);
	reckon(limit_bytes, how, limiting.wanted);
	r = read_bytes(name, "refquota,quota,refreservation,reservation", limiting.now, ZFS_LIMITS,
		       err);
	if (r < 0)
		return r == COPPICE_NOT_FOUND ? zfs_missing(zfs, ref, err) : r;
	memcpy(before, limiting.now, sizeof(before));
	r = set_all(&limiting, err);
	if (r < 0) {
		memcpy(limiting.wanted, before, sizeof(before));
		pool->explain = NULL; /* what is taken back is not told */
		(void)set_all(&limiting, &ignored);
		pool->explain = explain;
	}
	return r == COPPICE_INVALID
		       ? fail_in_figures(name, ref, limit_bytes, how & LIMIT_WITH_SNAPSHOTS, r, err)
		       : r;
}

int zfs_limits_copy(const struct dataset *from, const char *name, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < ZFS_LIMITS && r == COPPICE_OK; i++) {
		_cleanup_(freep) char *text = NULL;

		if (!from->limits[i])
			continue;
		text = text_format("%s=%s", zfs_limit_property[i], from->limits[i]);
		r = text ? zfs_run(ZFS_ARGS("zfs", "set", text, name), NULL, err)
			 : fail_memory(err);
	}
	return r;
}

int zfs_limits_release(const struct dataset *dataset, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = REFRESERVATION; i <= RESERVATION && r == COPPICE_OK; i++) {
		_cleanup_(freep) char *text = property_text(i, 0);

		if (!dataset->limits[i])
			continue;
		r = text ? zfs_run(ZFS_ARGS("zfs", "set", text, dataset->name), NULL, err)
			 : fail_memory(err);
	}
	return r;
}
