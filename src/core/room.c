/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether there is room for more. A pool's sparse file promises more than the file
 * system has that it lies in; when that is full, writes into the pool fail that nobody
 * can answer for, and the whole pool turns read-only. A thin pool promises more than it has
 * itself, and its own metadata can be full before its data is. So nothing new is made from some
 * way before that on.
 */
#include "core/core.h"

#include "base/text.h"

#define WATERMARK_MAX   (1ULL << 30)
#define WATERMARK_PARTS 20 /* or one of so many parts of what there may be, if that is less */
/* Of metadata a quarter stays free, or 4 MiB if that is less, but never less than a tenth. */
#define METADATA_PARTS     4
#define METADATA_MAX       (4ULL << 20)
#define METADATA_MAX_PARTS 10
#define TOLD_PERCENT       80 /* from here on people are told, and what may grow does */

/* What must stay free: as configured, else what suits what there may be. */
static uint64_t watermark(const struct pool_entry *entry, uint64_t may_be)
{
	const char *text = settings_get(&entry->config, "coppice.watermark");
	uint64_t bytes = may_be / WATERMARK_PARTS;

	if (text && size_parse(text, &bytes))
		return bytes;
	return bytes < WATERMARK_MAX ? bytes : WATERMARK_MAX;
}

/* ---- where its file lies ---- */

static int check_host(const struct pool_entry *entry, struct coppice_error *err)
{
	char left[SIZE_TEXT_MAX], growth[SIZE_TEXT_MAX], mark[SIZE_TEXT_MAX];
	struct pool_host host = { 0 };
	bool is_file = false;
	uint64_t needed;
	int r;

	if (!entry->driver->pool_host)
		return COPPICE_OK;
	r = entry->driver->pool_host(&entry->spec, &is_file, &host, err);
	if (r < 0 || !is_file)
		return r;
	needed = watermark(entry, host.free_bytes + host.growth_bytes);
	if (host.free_bytes >= needed || host.growth_bytes <= host.free_bytes)
		return COPPICE_OK;
	size_format(host.free_bytes, left);
	size_format(host.growth_bytes, growth);
	size_format(needed, mark);
	return fail(err, COPPICE_NO_SPACE,
		    "pool '%s': its file may grow by %s and its disk has %s left, less than the "
		    "watermark of %s; a full disk would make all of the pool read-only: free some "
		    "space, or: coppice storage set %s coppice.watermark=SIZE",
		    entry->name, growth, left, mark, entry->name);
}

/* ---- in the pool itself ---- */

static unsigned percent(struct coppice_bytes part, struct coppice_bytes whole)
{
	return whole.known && part.known && whole.bytes
		       ? (unsigned)((double)part.bytes * 100 / (double)whole.bytes)
		       : 0;
}

/* So much of the metadata stays free. */
static uint64_t metadata_needed(const struct pool_space *space)
{
	uint64_t total = space->metadata_total.bytes, bytes = total / METADATA_PARTS;

	bytes = bytes < METADATA_MAX ? bytes : METADATA_MAX;
	return bytes > total / METADATA_MAX_PARTS ? bytes : total / METADATA_MAX_PARTS;
}

/* Of that which may be used. */
static unsigned metadata_percent(const struct pool_space *space)
{
	struct coppice_bytes usable = space->metadata_total;

	usable.bytes -= metadata_needed(space);
	return percent(space->metadata_used, usable);
}

/* Let it grow until it is not as full any more. */
static int extend(const struct pool_entry *entry, struct pool_space *space,
		  struct coppice_error *err)
{
	const char *text = settings_get(&entry->config, "coppice.autoextend_limit");
	bool did = true;
	uint64_t limit;
	int r = COPPICE_OK;

	if (!text || !entry->driver->pool_extend || !size_parse(text, &limit))
		return COPPICE_OK;
	while (r == COPPICE_OK && did &&
	       (percent(space->used, space->total) >= TOLD_PERCENT ||
		metadata_percent(space) >= TOLD_PERCENT)) {
		r = entry->driver->pool_extend(entry->pool, limit, &did, err);
		if (r == COPPICE_OK)
			r = entry->driver->pool_space(entry->pool, space, err);
	}
	return r;
}

static int refuse_full(const struct pool_entry *entry, const struct pool_space *space,
		       struct coppice_error *err)
{
	char left[SIZE_TEXT_MAX], mark[SIZE_TEXT_MAX];
	uint64_t needed = watermark(entry, space->total.bytes);

	size_format(space->free.bytes, left);
	size_format(needed, mark);
	if (space->free.bytes < needed)
		return fail(err, COPPICE_NO_SPACE,
			    "pool '%s' has %s left, less than the watermark of %s; when it is "
			    "full, what its instances write is lost: delete something, make it "
			    "larger, or: coppice storage set %s coppice.watermark=SIZE",
			    entry->name, left, mark, entry->name);
	if (metadata_percent(space) >= 100)
		return fail(
			err, COPPICE_NO_SPACE,
			"pool '%s': %u %% of its metadata are used, and %u %% may be; when that is "
			"full, nothing in the pool can be written any more: delete something, or "
			"make the pool larger",
			entry->name, percent(space->metadata_used, space->metadata_total),
			percent((struct coppice_bytes){ COPPICE_EXACT,
							space->metadata_total.bytes -
								metadata_needed(space) },
				space->metadata_total));
	return COPPICE_OK;
}

/* "is 83 % full"; free() it; NULL: it is not filling, or no memory. */
static char *filling(const struct pool_space *space)
{
	unsigned data = percent(space->used, space->total);
	bool is_metadata = metadata_percent(space) >= TOLD_PERCENT;
	_cleanup_(text_done) struct text text = TEXT_INIT;

	if (data < TOLD_PERCENT && !is_metadata)
		return NULL;
	if (data >= TOLD_PERCENT)
		text_add(&text, "is %u %% full", data);
	if (is_metadata)
		text_add(&text, "%shas used %u %% of its metadata", text.length ? ", and " : "",
			 percent(space->metadata_used, space->metadata_total));
	return text_take(&text);
}

int room_filling(struct pool_entry *entry, char **ret, struct coppice_error *err)
{
	struct pool_space space = { 0 };
	int r = COPPICE_OK;

	*ret = NULL;
	if (entry->driver->traits.must_not_fill)
		r = entry->driver->pool_space(entry->pool, &space, err);
	if (r == COPPICE_OK && space.total.known)
		*ret = filling(&space);
	return r;
}

static int check_pool(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	_cleanup_(freep) char *warning = NULL;
	struct pool_space space = { 0 };
	int r = entry->driver->pool_space(entry->pool, &space, err);

	if (r == COPPICE_OK && !coppice->options.is_dry_run)
		r = extend(entry, &space, err);
	if (r == COPPICE_OK)
		r = refuse_full(entry, &space, err);
	if (r < 0)
		return r;
	warning = filling(&space);
	if (warning)
		notice(coppice, "pool '%s' %s", entry->name, warning);
	return COPPICE_OK;
}

int room_check(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	int r = COPPICE_OK;

	if (entry->driver->traits.must_not_fill && entry->pool)
		r = check_pool(coppice, entry, err);
	return r < 0 ? r : check_host(entry, err);
}
