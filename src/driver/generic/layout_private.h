/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What layout.c, layout_making.c and layout_deleting.c share, and nobody else. */

#include "driver/generic/layout.h"

#define LAYOUT_ATTRIBUTE    "trusted.coppice"
#define LAYOUT_ANNOUNCEMENT "trusted.coppice.%u" /* on a draft: what it is to publish */
#define LAYOUT_RECORD_FILE  "record"             /* where the file system has no attributes */

static inline struct layout *layout_of(struct pool *pool)
{
	return CONTAINER_OF(pool, struct layout, pool);
}

/* ---- records ---- */

/* @path is below the root. os_errno ENODATA: there is none; ENOENT: no such volume. */
int layout_record_get(struct layout *layout, const char *path, char **ret,
		      struct coppice_error *err);
int layout_record_put(int dir_fd, bool has_no_attributes, const char *record,
		      struct coppice_error *err);
void layout_record_explain(struct layout *layout, const char *word, const char *path);

/* The identity that a record tells, if it tells one. */
bool layout_record_uuid(const char *record, struct uuid *ret);

/* ---- directories ---- */

bool layout_is_dot(const char *name);

/* Open a directory for readdir(); NULL with *r COPPICE_OK when it is not there. */
DIR *layout_list(int parent_fd, const char *name, int *r, struct coppice_error *err);

/* The folders that layout_make() makes, all empty, and the pool's record. */
int layout_remove(int fd, bool has_no_attributes, struct coppice_error *err);

/* rmdir; not there: OK. */
int layout_remove_folder(int parent_fd, const char *name, struct coppice_error *err);

/* Where the engine has no commit for all: make this directory's entries durable. */
int layout_sync(struct layout *layout, int fd, const char *what, struct coppice_error *err);

/* Something came into, or left, the folder that holds this volume or snapshot: its stamp and, for
 * want of one commit for all, its entries. */
int layout_changed(struct layout *layout, const struct volume_ref *ref, struct coppice_error *err);

/* "no snapshot 'c1/before'" for ENOENT, else "cannot WHAT 'c1/before': …". */
int layout_fail(struct coppice_error *err, int os_errno, const char *what,
		const struct volume_ref *ref);

/* ---- what drafts announced (layout_making.c) ---- */

/* Publish what is whole of what the maker of this draft announced; it is dead. */
int layout_publish_orphans(struct draft *draft, struct coppice_error *err);

/* The draft is to publish nothing any more. */
int layout_announcement_remove(struct draft *draft, struct coppice_error *err);
