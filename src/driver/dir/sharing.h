/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What trees take together, where their files share extents (FICLONE, on XFS and Btrfs):
 * what each file allocates, as the file system says, less what was counted already.
 *
 * FIEMAP tells where extents lie, and which of them have more than one owner; of those
 * a bitmap remembers the blocks that were seen, at one bit for 4 KiB. (Linux,
 * Documentation/filesystems/fiemap.rst.)
 */

#include "driver/driver.h"

struct sharing {
	struct pool *pool; /* whose hooks interrupt it; borrowed */
	uint64_t allocated_bytes;
	uint64_t repeated_bytes; /* of those: counted before */
	bool is_unsure;          /* some extents do not tell what they take, as compressed ones */
	struct sharing_part **parts;
	size_t n_parts;
};

/* Add all that is in a directory. COPPICE_INTERRUPTED; COPPICE_FAILED. */
_nonnull_ int sharing_add(struct sharing *sharing, int dir_fd, struct coppice_error *err);

void sharing_done(struct sharing *sharing);
