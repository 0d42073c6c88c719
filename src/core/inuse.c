/* SPDX-License-Identifier: Apache-2.0 */
/* Refusing to pull the ground from under a running process. */
#include "core/instances.h"

#include "driver/driver.h"

/* How many users are named, each in a line. */
#define TOLD_MAX 20

struct telling {
	struct coppice *coppice;
	size_t n;
};

static void tell(void *user, const char *line)
{
	struct telling *telling = user;

	if (telling->n++ < TOLD_MAX)
		notice(telling->coppice, "%s; what it has there, and writes there yet, is lost",
		       line);
}

int refuse_in_use(struct coppice *coppice, const struct volume *volumes, size_t n,
		  unsigned may_lose, struct coppice_error *err)
{
	struct telling telling = { .coppice = coppice };

	for (size_t i = 0; i < coppice->n_pools; i++) {
		struct pool_entry *entry = coppice->pools[i];
		_cleanup_(freep) struct volume_ref *refs = calloc(n, sizeof(*refs));
		size_t n_refs = 0;
		int r;

		if (!refs)
			return fail_memory(err);
		for (size_t k = 0; k < n; k++)
			if (volumes[k].entry == entry)
				refs[n_refs++] = volumes[k].ref;
		if (n_refs == 0 || !entry->driver->in_use)
			continue;
		r = entry->driver->in_use(entry->pool, refs, n_refs,
					  may_lose & COPPICE_LOSE_IN_USE ? tell : NULL, &telling,
					  err);
		if (r < 0)
			return r;
	}
	if (telling.n > TOLD_MAX)
		notice(coppice, "and so have %zu others", telling.n - TOLD_MAX);
	return COPPICE_OK;
}

/* ---- who keeps it mounted ---- */

struct collecting {
	struct volume_ref *refs;
	size_t n;
};

static int collect_ref(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct collecting *collecting = user;
	struct volume_ref *more = reallocarray(collecting->refs, collecting->n + 1, sizeof(*more));

	if (!more)
		return fail_memory(err);
	collecting->refs = more;
	collecting->refs[collecting->n++] = found->ref;
	return COPPICE_OK;
}

int fail_mounted(struct coppice *coppice, struct pool_entry *entry, const struct volume_ref *only,
		 struct coppice_error *err)
{
	struct collecting collecting = { 0 };
	bool was_open = entry->pool;
	struct coppice_error why;
	int r = COPPICE_OK;

	if (err->code != COPPICE_BUSY || !entry->driver->in_use)
		return err->code;
	if (!was_open)
		r = pools_open(coppice, entry, &why);
	if (r == COPPICE_OK && !only)
		r = entry->driver->scan(entry->pool, collect_ref, &collecting, &why);
	if (r == COPPICE_OK && (only || collecting.n > 0) &&
	    entry->driver->in_use(entry->pool, only ? only : collecting.refs,
				  only ? 1 : collecting.n, NULL, NULL, &why) == COPPICE_BUSY)
		*err = why;
	free(collecting.refs);
	if (!was_open)
		pool_entry_close(entry);
	return err->code;
}
