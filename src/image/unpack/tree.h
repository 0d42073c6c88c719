/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Writing the entries of an archive into a directory.
 *
 * Each entry is made in the directory that its path names, looked up with that
 * tree as the root (openat2, RESOLVE_IN_ROOT): links inside the tree are followed
 * as they would be in the container, and lead nowhere else. The last component is
 * never followed; what stood there is replaced, as tar does.
 *
 * Directories get owner, mode, attributes and times at the end: until then they
 * are root's and private, so nothing that is made in them inherits a group or a
 * default ACL, and filling them does not disturb their times.
 */

#include "image/unpack/attributes.h"

struct tree;

/* How far below the top an entry may be: what walks a tree later, here or in a container,
 * must not break its neck. Links count as what they lead to. */
enum {
	TREE_DEPTH_MAX = 256
};

/* Make directory @name in @dir_fd and begin a tree there. */
_nonnull_ int tree_new(int dir_fd, const char *name, struct tree **ret, struct coppice_error *err);
void tree_free(struct tree *tree);
DEFINE_CLEANUP(struct tree *, tree_free)

/* Paths are relative, clean, and "" for the top. They are written to, and restored. */

/* Make an empty file. It gets its attributes by attributes_set() when it is filled. */
_nonnull_ int tree_file_create(struct tree *tree, char *path, const struct attributes *attributes,
			       int *ret_fd, struct coppice_error *err);
_nonnull_ int tree_link(struct tree *tree, char *path, char *existing, struct coppice_error *err);
_nonnull_ int tree_symlink(struct tree *tree, char *path, const char *target,
			   const struct attributes *attributes, struct coppice_error *err);
/* A device or fifo. */
_nonnull_ int tree_node(struct tree *tree, char *path, dev_t device,
			const struct attributes *attributes, struct coppice_error *err);
/* Its attributes are copied, and set by tree_finish(). */
_nonnull_ int tree_directory(struct tree *tree, char *path, const struct attributes *attributes,
			     struct coppice_error *err);

/* Give directories what they shall have. Nothing may be made in the tree after it. */
_nonnull_ int tree_finish(struct tree *tree, struct coppice_error *err);
