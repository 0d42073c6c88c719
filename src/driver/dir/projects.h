/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Project quotas, as XFS and ext4 have them: a number on each file, which files made in a
 * directory take over from it (chattr +P), and what all files with one number may allocate
 * together. Each tree of a pool gets a number of its own when it is made, while it is
 * empty: so the engine counts it from then on, and a limit is one system call.
 *
 * The number is nowhere but on the tree. Which it is says nothing: free is what nobody
 * has files or limits with, from 2^30 on, where neither administrators nor other programs
 * begin to count.
 *
 * XFS stops everybody at the limit; ext4 lets pass who has CAP_SYS_RESOURCE in the
 * initial user namespace. (Linux, Documentation/filesystems/quota.rst; ignore_hardlimit in
 * fs/quota/dquot.c.) They round a limit up to a block.
 */

#include "driver/driver.h"

/* What the file system of a directory can do with projects. */
struct projects {
	bool can_count;      /* it keeps accounts of them, and the directory is in none */
	bool can_limit;      /* and enforces limits */
	const char *problem; /* why it cannot limit, to follow a colon, static; NULL: it can */
};

struct project_use {
	uint64_t used_bytes, limit_bytes; /* 0: no limit */
};

/* Tries what will be needed, changing nothing. Never fails: what it cannot tell is not there. */
_nonnull_ void projects_probe(int dir_fd, struct projects *ret);

/*
 * Give an empty directory a number that nobody has, beginning to look where @uuid says, so that
 * two that look at once find two. COPPICE_FAILED.
 */
_nonnull_ int project_assign(int dir_fd, const struct uuid *uuid, struct coppice_error *err);

/* The number of a directory; 0: none, or one that is not ours. */
_nonnull_ int project_of(int dir_fd, uint32_t *ret, struct coppice_error *err);

/*
 * Give a number to a directory with all that is in it, those that there are no numbers on
 * (symbolic links, devices) excepted. The top has it when all others have it. On failure it
 * is taken away again; after a kill some have a number that another call replaces.
 * COPPICE_INTERRUPTED; COPPICE_FAILED.
 */
_nonnull_ int project_assign_tree(struct pool *pool, int dir_fd, const struct uuid *uuid,
				  struct coppice_error *err);

/* What a project of the file system of @dir_fd allocates, and may. COPPICE_FAILED. */
_nonnull_ int project_read(int dir_fd, uint32_t project, struct project_use *ret,
			   struct coppice_error *err);

/* Atomic, and durable with the next commit of the file system. 0: no limit. */
_nonnull_ int project_limit(int dir_fd, uint32_t project, uint64_t limit_bytes,
			    struct coppice_error *err);
