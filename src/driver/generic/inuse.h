/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who uses a tree: processes standing in it, files open, mounts, in all namespaces. */

#include <limits.h>

#include "driver/driver.h"

/* A tree to look for; all borrowed. */
struct in_use_query {
	const char *what; /* how messages call it: "c1" */
	const char *path; /* its top directory; one that is not there is not in use */
	const char *top;  /* what messages call "/": a directory above it; NULL: path itself */
	bool is_resolved; /* no part of the path is a symbolic link: need not be looked at again */

	/*
	 * A Btrfs subvolume: what has its st_dev is in it, whatever name it has in
	 * its namespace. Otherwise names decide, as we see them, beside the top itself.
	 */
	bool is_subvolume;
};

/*
 * Does another process use any of @n trees?
 *
 * Looks at the working directory, root, program and open files of all processes
 * that we can see, at the mounts of all their namespaces and of our own, at the directories of
 * overlays among them (not those that were given by relative paths), and at the files of loop
 * devices and swap files. What a process closes within 200 ms does not count: it lists a
 * directory, or looks at a volume as our own commands do. The
 * answer is as old as the look: who needs more keeps others out.
 *
 * @who  the user found: "process 1234 (bash)", or "a mount at /mnt"; or NULL
 * @return COPPICE_OK: not in use. COPPICE_BUSY: the first found, as in
 *         "'c1' is in use by process 1234 (bash): /etc is its working directory".
 *         COPPICE_FAILED when we cannot know, as without /proc.
 */
int in_use_find(const struct in_use_query *queries, size_t n, char *who, size_t who_size,
		struct coppice_error *err);

/*
 * The same, for who goes on all the same: tell each process once, and each mount, in
 * the words of that message. COPPICE_OK, whatever was told.
 */
int in_use_each(const struct in_use_query *queries, size_t n, in_use_fn *tell, void *user,
		struct coppice_error *err);

/* Where others would have a volume open: its tree, or its device; false: nowhere. */
typedef bool in_use_where_fn(struct pool *pool, const struct volume_ref *ref,
			     char ret[static PATH_MAX]);

/*
 * The op in_use of engines whose volumes are mounted when they are used: what is not mounted, and
 * has no device, is not in use.
 */
int in_use_where(struct pool *pool, const struct volume_ref *refs, size_t n,
		 in_use_where_fn *where, in_use_fn *tell, void *user, struct coppice_error *err);
