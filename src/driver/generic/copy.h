/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Copying a tree with everything it has, for engines that cannot clone one. */

#include "driver/driver.h"

struct tree_copy {
	int from_fd;      /* directory to copy the inside of; borrowed */
	int to_fd;        /* an existing empty directory, which gets the attributes too; borrowed */
	unsigned threads; /* 0: as suits this machine */
	bool no_reflink;  /* really copy the data, share no extents */

	/* Asked by the calling thread some ten times a second; NULL: never. */
	interrupted_fn *is_interrupted;
	void *interrupted_user;

	/* Extended attributes to leave out, NULL-terminated, or NULL; trusted.coppice always is. */
	const char *const *skip_xattrs;
};

struct tree_copied {
	uint64_t entries;         /* without the top */
	uint64_t bytes_allocated; /* by the files copied, as their file system counts */
	uint64_t bytes_apparent;  /* the lengths of the regular files */
	bool is_shared;           /* all data is shared with the source */
};

/*
 * Copy what is in a directory, and its own attributes.
 *
 * Owners, modes, hard links within the tree, symbolic links, devices, fifos,
 * sockets, holes, times, extended attributes with capabilities and ACLs
 * survive; access times of the source are left alone, but of symbolic links. The
 * source must not change meanwhile. On failure the caller removes what is there.
 *
 * Blocks: until all is written; data is on its way to the disk but not yet
 *         there: whoever needs it durable syncs the file system.
 *
 * COPPICE_UNSUPPORTED naming what cannot be copied: a mount, a nested subvolume,
 * an attribute that the target refuses; COPPICE_NO_SPACE; COPPICE_INTERRUPTED;
 * COPPICE_FAILED. @ret is untouched on failure.
 */
_nonnull_ int tree_copy(const struct tree_copy *how, struct tree_copied *ret,
			struct coppice_error *err);
