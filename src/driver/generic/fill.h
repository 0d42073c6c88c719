/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* volume_fill, for volumes that are directories while they are made, or block devices. */

#include "driver/driver.h"

int fill_by_copying(struct draft *draft, const struct new_volume *volume, const char *path,
		    const char *from, struct coppice_error *err);

/* Both parts of it: what it tells, and what it does, which is for no dry run. */
_nonnull_ void fill_explain(struct pool *pool, const struct new_volume *volume, const char *path,
			    const char *from);
_nonnull_ int fill_tree(struct pool *pool, const char *path, const char *from,
			struct coppice_error *err);

/*
 * The content of one device on another, which is at least as large and reads as zeros: what is
 * zero is not written, so it takes no space. It reaches the disk if @is_flushed. Explains nothing,
 * and is for no dry run. COPPICE_NO_SPACE: it is smaller.
 */
_nonnull_ int fill_block(struct pool *pool, const char *path, const char *from, bool is_flushed,
			 struct coppice_error *err);
