/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Removing a tree. */

#include "base/error.h"

/*
 * Remove @name, a directory with all in it or whatever else it is.
 *
 * Follows no symbolic link, and removes nothing in another file system: mounts
 * and nested subvolumes end it with COPPICE_BUSY naming them; what was removed
 * before that stays removed. Already gone is COPPICE_OK, so it can be repeated.
 *
 * Immutable and append-only files go too (chattr +i, +a): the flags are taken off within
 * the tree, and of @name itself, never of the directory that it is in.
 *
 * @threads  0: as suits this machine
 */
_nonnull_ int tree_remove(int parent_fd, const char *name, unsigned threads,
			  struct coppice_error *err);
