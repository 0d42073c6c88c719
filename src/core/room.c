/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether there is room for more. A pool's sparse file promises more than the file
 * system has that it lies in; when that is full, writes into the pool fail that nobody
 * can answer for, and the whole pool turns read-only. So nothing new is made from some
 * way before that on.
 */
#include "core/core.h"

#include "base/text.h"

#define WATERMARK_MAX   (1ULL << 30)
#define WATERMARK_PARTS 20 /* or one of so many parts of what there may be, if that is less */

/* What must stay free: as configured, else what suits what the file and its host may hold. */
static uint64_t watermark(const struct pool_entry *entry, const struct pool_host *host)
{
	const char *text = settings_get(&entry->config, "coppice.watermark");
	uint64_t bytes = (host->free_bytes + host->growth_bytes) / WATERMARK_PARTS;

	if (text && size_parse(text, &bytes))
		return bytes;
	return bytes < WATERMARK_MAX ? bytes : WATERMARK_MAX;
}

int room_check(const struct pool_entry *entry, struct coppice_error *err)
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
	needed = watermark(entry, &host);
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
