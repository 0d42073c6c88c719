/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Compressed bytes to plain ones, piece by piece: zstd, xz, gzip, bzip2, or none.
 *
 * libarchive has such filters too, but they pass over what follows the last
 * compressed member, cannot be told how much memory a window may take, and
 * decode in the thread that should be writing files.
 */

#include "base/error.h"

/* Input that is not yet consumed. */
struct decode_input {
	const uint8_t *data;
	size_t length;
	bool is_last; /* nothing comes after these */
};

/* Where the next plain bytes go. */
struct decode_output {
	uint8_t *data;
	size_t length;
	size_t capacity;
};

struct decoder;

/*
 * Choose by the first bytes of the input. COPPICE_INVALID when they are the
 * beginning of no format that we know; plain tar is told by its header.
 */
_nonnull_ int decoder_new(const struct decode_input *start, uint64_t memory_limit_bytes,
			  struct decoder **ret, struct coppice_error *err);
void decoder_free(struct decoder *decoder);
DEFINE_CLEANUP(struct decoder *, decoder_free)

/*
 * Consume some input, produce some output; either may be nothing. Messages go
 * on after the archive's name.
 */
_nonnull_ int decoder_step(struct decoder *decoder, struct decode_input *in,
			   struct decode_output *out, struct coppice_error *err);

/* Would it be right if the input ended here? */
_nonnull_ bool decoder_is_complete(const struct decoder *decoder);
