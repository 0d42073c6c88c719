/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Where entries come from: a tar archive or a squashfs. What becomes of them does not
 * depend on it (extract.h).
 */

#include <archive_entry.h>

#include "base/error.h"
#include "image/unpack/stream.h"

/* Part of what its kind allocates. Messages go on after the archive's name. */
struct source {
	/*
	 * The next entry, borrowed until the next call; NULL at the end, which is told only
	 * when all was whole. The same name may come again, and in any order.
	 */
	int (*next)(struct source *source, struct archive_entry **ret, struct coppice_error *err);

	/*
	 * The next piece of the entry's content, borrowed until the next call; *ret_length
	 * is 0 at the end. What is between pieces is a hole.
	 */
	int (*read)(struct source *source, const void **ret, size_t *ret_length,
		    uint64_t *ret_offset, struct coppice_error *err);

	void (*free)(struct source *source);
};

static inline void source_freep(struct source **source)
{
	if (*source)
		(*source)->free(*source);
}

/* Tar, of whatever flavour. @stream is borrowed. */
_nonnull_ int tar_source_new(struct stream *stream, struct source **ret, struct coppice_error *err);

/* Squashfs, in a file that can be read at any place. @fd is borrowed. */
_nonnull_ int squash_source_new(int fd, uint64_t memory_limit_bytes, struct source **ret,
				struct coppice_error *err);
