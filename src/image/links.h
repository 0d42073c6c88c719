/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which files were packed already, under another name. */

#include <sys/stat.h>

#include "base/error.h"

/* A tree of search.h; begin with NULL. */
struct links {
	void *root;
};

/*
 * Note that file @st is at @path. *ret is its first path, borrowed, when it was noted
 * before; else NULL.
 */
_nonnull_ int links_note(struct links *links, const struct stat *st, const char *path,
			 const char **ret, struct coppice_error *err);
void links_done(struct links *links);
