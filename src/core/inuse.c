/* SPDX-License-Identifier: Apache-2.0 */
/* Refusing to pull the ground from under a running process. */
#include "core/instances.h"

#include "driver/driver.h"

int refuse_in_use(struct coppice *coppice, const struct volume *volumes, size_t n,
		  struct coppice_error *err)
{
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
		r = entry->driver->in_use(entry->pool, refs, n_refs, err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}
