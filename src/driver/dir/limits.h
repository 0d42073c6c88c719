/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Limits of directories, where the file system has the quotas of projects (projects.h). */

#include "driver/dir/dir_pool.h"

/* Driver ops (driver.h). */
int limits_can(struct pool *pool, struct coppice_error *err);
int limits_set(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
	       uint64_t limit_bytes, unsigned how, struct coppice_error *err);

/*
 * What a limit on the tree would hold for, in bytes: the engine's figure, or else a count of
 * what its files allocate. COPPICE_INTERRUPTED; COPPICE_FAILED.
 */
_nonnull_ int limits_used(struct dir_pool *dir, int fd, uint64_t *ret, struct coppice_error *err);

/* COPPICE_INVALID: what one of @volumes may have is less than this origin has. */
_nonnull_ int limits_check(struct dir_pool *dir, int origin_fd, const struct new_volume *volumes,
			   size_t n, struct coppice_error *err);

/* Limit what is in a draft, by now whole. COPPICE_INVALID: it has more. */
_nonnull_ int limits_begin(struct dir_pool *dir, int fd, const struct new_volume *volume,
			   struct coppice_error *err);

/* The limit of a tree, in bytes; 0: none. COPPICE_FAILED. */
_nonnull_ int limits_get(int fd, uint64_t *ret, struct coppice_error *err);

/* Give a tree that has a project this one, durable at return. COPPICE_FAILED. */
_nonnull_ int limits_put(int fd, uint64_t limit_bytes, struct coppice_error *err);

/* Take the limit off a tree that is to be removed; one that is not there has none. */
_nonnull_ int limits_end(struct dir_pool *dir, int dir_fd, const char *name,
			 struct coppice_error *err);

/* The commands: a project for the new directory @path, */
_nonnull_ void limits_explain_project(struct dir_pool *dir, const char *path);
/* a limit for the project in the shell's variable, */
_nonnull_ void limits_explain(struct dir_pool *dir, uint64_t limit_bytes);
/* and none any more for @path. */
_nonnull_ void limits_explain_end(struct dir_pool *dir, const char *path);
