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
