/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where block devices are mounted, and the directories for that. */

#include <limits.h>

#include "base/error.h"

/* Of a word in mountinfo: spaces and the like are written as \040. */
_nonnull_ void mountinfo_unescape(char *text);

/* Is this mount point one that Coppice would use? */
typedef bool mount_place_fn(const void *user, const char *where);

/*
 * Where a device is mounted last, which hides what was mounted at the same place before: at a
 * place that is one of ours, or, without @is_ours, at one that is not. False: nowhere, or there is
 * no such device. In this process's mount namespace.
 */
bool device_mount_find(const char *device, mount_place_fn *is_place, const void *user, bool is_ours,
		       char ret[static PATH_MAX]);

/* Make @path, and the folders above it that are below @top; those are nobody else's to read. */
_nonnull_ int folders_ensure(const char *top, const char *path, struct coppice_error *err);
