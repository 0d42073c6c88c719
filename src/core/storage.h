/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the commands about pools share with each other. */

#include "core/pools.h"

/* The mark that a pool of this name is being made or recovered, held by flock meanwhile. */
struct mark {
	int fd;
	char path[128];
};

/* Make STATE/pools/NAME.TAIL, durably, with what is known of the pool. COPPICE_FAILED. */
_nonnull_ int mark_create(struct coppice *coppice, const struct pool_entry *entry, const char *tail,
			  struct mark *mark, struct coppice_error *err);

/* Let go of it; the file stays for whoever sweeps. */
_nonnull_ void mark_done(struct mark *mark);

/* A name, a driver that can, keys that it knows, under the lock on the name. */
int begin_pool(struct coppice *coppice, const char *name, const char *driver_name,
	       const struct coppice_setting *settings, size_t n, struct locks *locks,
	       const struct driver **ret, struct coppice_error *err);

/* What changed in STATE/pools is durable. */
_nonnull_ int sync_pools(struct coppice *coppice, struct coppice_error *err);

/*
 * Both places say the same of a pool that is open: itself, and the file that makes it known
 * here. On failure the pool says @before again.
 */
_nonnull_ int write_both(struct coppice *coppice, const struct pool_entry *entry,
			 const char *before, struct coppice_error *err);
