/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of this driver know of an open pool. */

#include "driver/dir/projects.h"
#include "driver/generic/layout.h"

struct dir_pool {
	struct layout layout;
	struct projects projects;
};

static inline struct dir_pool *dir_pool_of(struct pool *pool)
{
	return CONTAINER_OF(pool, struct dir_pool, layout.pool);
}

/* Open the tree of a volume or snapshot. COPPICE_NOT_FOUND. */
_nonnull_ int dir_open_live(struct layout *layout, const struct volume_ref *ref, int *ret,
			    struct coppice_error *err);

/* Make all that was written to its file system durable. */
_nonnull_ int dir_sync(int fd, struct coppice_error *err);
