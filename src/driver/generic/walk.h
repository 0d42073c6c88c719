/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Visiting all directories of a tree on several threads.
 *
 * Copying, removing and counting differ in what they do in one directory; what
 * they share is here: a stack of directories still to visit (newest first, so
 * that it stays as small as the tree is deep and wide), opened when their turn comes
 * (so that no descriptor waits in it), and never through a symbolic link or a mount.
 *
 * A tree may be as deep as whoever made it liked. So a directory knows its name and its
 * parent, and not its path; and of those that are open while others beneath them are
 * visited, one in so many levels stays open, for the way to begin at.
 */

#include <dirent.h>
#include <pthread.h>
#include <sys/stat.h>

#include "driver/driver.h"

enum tree_which {
	TREE_WALKED,
	TREE_TWIN
};

/* A directory on its way through the walk; lives until it and all beneath were left. */
struct tree_dir {
	struct tree_dir *next;   /* in the stack */
	struct tree_dir *parent; /* NULL: the root */
	size_t holds;            /* itself until visited, and each child; under the walk's lock */
	size_t depth;            /* of the root: 0 */
	int kept[2];             /* by tree_which: open for the way to those beneath, or -1 */
	char name[];             /* of the root: "." */
};

struct tree_walk {
	int root_fd;      /* borrowed */
	int twin_fd;      /* of another tree that is to have the same directories, or 0; borrowed */
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
	size_t n_kept;    /* descriptors that directories keep */
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
 * Open a directory of the walk, or its twin. Returns a descriptor or a negative errno:
 * -EXDEV for a mount.
 */
_nonnull_ int tree_dir_open(struct tree_walk *walk, struct tree_dir *dir, enum tree_which which,
			    int flags);

/*
 * Open a directory of the walk for readdir(); closedir() it. It may be gone, in a tree that
 * is in use: then *ret is NULL. COPPICE_FAILED.
 */
_nonnull_ int tree_dir_list(struct tree_walk *walk, struct tree_dir *dir, DIR **ret,
			    struct coppice_error *err);

/*
 * Open @path below @root_fd, of whatever length, through no symbolic link and
 * into no mount. Returns a descriptor or a negative errno: -EXDEV for a mount.
 */
_nonnull_ int tree_open(int root_fd, const char *path, int flags);

/*
 * Open a regular file, found in @dir_fd, to read it. What is something else by now is not
 * opened, as that may do something to a device: -EINVAL. Else as tree_open.
 */
_nonnull_ int tree_open_file(int dir_fd, const char *name);

/*
 * "etc/passwd" for messages and for tree_open(): no "./" in front; @name NULL: of the
 * directory itself. NULL: no memory.
 */
_must_check_ char *tree_path(const struct tree_dir *dir, const char *name);

/* "cannot @what 'etc/passwd': …" */
int tree_fail(const struct tree_dir *dir, const char *name, int os_errno, const char *what,
	      struct coppice_error *err);

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
