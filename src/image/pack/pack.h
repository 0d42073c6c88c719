/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A directory as a tar archive: the same for the same tree. Names are sorted by their
 * bytes, attributes by their names; owners are numbers; times of access and of change
 * are left out.
 */

#include "base/error.h"

/* Write all of @top_fd to @archive_fd. Tells warnings on the way. */
_nonnull_ int pack(int top_fd, int archive_fd, struct coppice_error *err);
