/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The walk over the archive's entries, and what kind of image they make. */

#include "image/unpack/source.h"

struct extraction {
	uint64_t n_entries;
	uint64_t unpacked_bytes;
	bool is_unified;
	char *metadata; /* bytes of metadata.yaml; NULL: a plain root file system; owned */
	size_t metadata_length;
};

/*
 * Unpack all of @source into @root_fd, or only look at it when that is -1, and
 * put things where image_read() says. Tells warnings on the way.
 *
 * @param what  UNPACK_IMAGE, UNPACK_METADATA or UNPACK_ROOTFS
 */
_nonnull_ int extract(struct source *source, const char *what, int root_fd, struct extraction *ret,
		      struct coppice_error *err);
