/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Visiting all directories of a tree on several threads.
 *
 * Copying, removing and counting differ in what they do in one directory; what
 * they share is here: a stack of directories still to visit (newest first, so
 * that it stays as small as the tree is deep and wide), opened by path when
 * their turn comes (so that no descriptor waits in it), and never through a
 * symbolic link or a mount.
 */

#include <pthread.h>
#include <sys/stat.h>

#include "driver/driver.h"

/* A directory on its way through the walk; lives until it and all beneath were left. */
struct tree_dir {
	struct tree_dir *next;   /* in the stack */
	struct tree_dir *parent; /* NULL: the root */
	size_t holds;            /* itself until visited, and each child; under the walk's lock */
	size_t name_at;          /* where its own name begins in path */
	char path[];             /* below the root; "." is the root itself */
};

struct tree_walk {
	int root_fd;      /* borrowed */
	unsigned threads; /* 0: as suits this machine */

	/* Asked by the thread that runs the walk, some ten times a second; NULL: never. */
	interrupted_fn *is_interrupted;
	void *interrupted_user;

	/* Do what is to be done in @dir, and tree_walk_add() the directories in it. */
	int (*visit)(struct tree_walk *walk, struct tree_dir *dir, struct coppice_error *err);

	/* All beneath @dir was visited and left. May be NULL. */
	int (*leave)(struct tree_walk *walk, struct tree_dir *dir, struct coppice_error *err);

	/* The walk's own. */
	pthread_t caller;
	pthread_mutex_t lock; /* of the rest */
	pthread_cond_t changed;
	struct tree_dir *top;
	size_t n_left;    /* known directories that were not left yet */
	int64_t asked_ns; /* when the caller's hook was */
	int result;       /* of the first that failed; ends the walk */
	struct coppice_error *err;
};

/*
 * Visit every directory of a tree, the root first.
 * Stops at the first failure of a visit or leave, and returns it.
 * COPPICE_INTERRUPTED; COPPICE_FAILED.
 */
_nonnull_ int tree_walk_run(struct tree_walk *walk, struct coppice_error *err);

/* Add directory @name, found in @parent, to those to visit. From visit only; any thread. */
_nonnull_ int tree_walk_add(struct tree_walk *walk, struct tree_dir *parent, const char *name,
			    struct coppice_error *err);

/* Should a long step go on? COPPICE_INTERRUPTED, also when another thread failed. */
_nonnull_ int tree_walk_check(struct tree_walk *walk, struct coppice_error *err);

/*
 * Open @path below @root_fd, of whatever length, through no symbolic link and
 * into no mount. Returns a descriptor or a negative errno: -EXDEV for a mount.
 */
_nonnull_ int tree_open(int root_fd, const char *path, int flags);

/* "etc/passwd" for messages and for tree_open(): no "./" in front. NULL: no memory. */
_nonnull_ _must_check_ char *tree_path(const struct tree_dir *dir, const char *name);

/* Called for each file, at the first of its names; what it returns < 0 ends the counting. */
typedef int counted_fn(void *user, int dir_fd, const char *name, const struct statx *st,
		       struct coppice_error *err);

struct tree_count {
	interrupted_fn *is_interrupted; /* NULL: never */
	void *interrupted_user;
	counted_fn *found; /* NULL: nobody looks closer */
	void *user;

	/* What came of it. */
	uint64_t allocated_bytes;
	uint64_t entries; /* without the top */
};

/*
 * Count what the files of a tree allocate, and its entries. Files with several names
 * count once. Nothing in other file systems counts. COPPICE_INTERRUPTED; COPPICE_FAILED;
 * what @found returns.
 */
_nonnull_ int tree_usage(int dir_fd, struct tree_count *count, struct coppice_error *err);
