/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Simple quotas (kernel ≥ 6.7): each extent is charged, for ever, to the
 * subvolume that first wrote it, and to the level-1 group that this subvolume
 * joined when it was made. One such group per volume is its account: what it and
 * its snapshots have written, whatever was restored or deleted meanwhile. Reading
 * and limiting it is O(1), unlike the full qgroups, which nobody should switch on.
 */

#include "base/error.h"
#include "base/uuid.h"

/* The group of a volume: 1/N, N from its uuid, so that nothing else must remember it. */
_nonnull_ uint64_t quota_group(const struct uuid *uuid);

/* "1/123", for messages and for btrfs(8). */
#define QUOTA_GROUP_TEXT_MAX 32
_nonnull_ const char *quota_group_format(uint64_t group, char ret[static QUOTA_GROUP_TEXT_MAX]);

/*
 * Are simple quotas on? Not when only full qgroups are. COPPICE_UNAVAILABLE: nothing tells;
 * who went on without would make volumes that never get an account.
 */
_nonnull_ int quota_is_on(int fd, bool *ret, struct coppice_error *err);

/* Switch them on; the file system must be empty. COPPICE_UNSUPPORTED on older kernels. */
_nonnull_ int quota_enable(int fd, struct coppice_error *err);

_nonnull_ int quota_group_create(int fd, uint64_t group, struct coppice_error *err);

/* Not more than @bytes may be charged; 0: no limit. Figures are those of the last commit. */
_nonnull_ int quota_group_limit(int fd, uint64_t group, uint64_t bytes, struct coppice_error *err);

/* Remove a group with its members, unless something is still charged: *ret_held. */
_nonnull_ int quota_group_close(int fd, uint64_t group, bool *ret_held, struct coppice_error *err);

/* What is charged to one group; *ret_found false when there is none. */
_nonnull_ int quota_group_read(int fd, uint64_t group, uint64_t *ret_bytes, bool *ret_found,
			       struct coppice_error *err);

struct quota_charge {
	uint64_t group;
	uint64_t bytes;
};

/* All level-1 groups, sorted; free() the result. */
_nonnull_ int quota_read_all(int fd, struct quota_charge **ret, size_t *ret_n,
			     struct coppice_error *err);

/* Are subvolumes deleted whose data the kernel has still to forget? Then charges are bounds. */
_nonnull_ int quota_is_settling(int fd, bool *ret, struct coppice_error *err);
