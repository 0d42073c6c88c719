/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The archive's plain bytes, decoded on a thread of their own while the caller
 * writes files: a ring of a few buffers between the two.
 */

#include "base/error.h"

struct stream;

/* Begin to read and decode @fd. The stream lasts until the process ends. */
_nonnull_ int stream_new(int fd, uint64_t memory_limit_bytes, struct stream **ret,
			 struct coppice_error *err);

/*
 * Give the next bytes, borrowed until the next call; *ret_length is 0 at the end.
 * What is wrong with the compressed bytes comes out here, with a message that
 * goes on after the archive's name.
 */
_nonnull_ int stream_next(struct stream *stream, const void **ret, size_t *ret_length,
			  struct coppice_error *err);

/* How many bytes stream_next() has given so far. */
_nonnull_ uint64_t stream_given_bytes(const struct stream *stream);
