/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The file systems on block devices, for engines whose volumes are such. */

#include "base/error.h"

/* What makes a file system of this type; NULL: it is none of ours. */
const char *file_system_maker(const char *type);

/* Make one on a device. */
int file_system_make(const char *type, const char *device, struct coppice_error *err);

/* Take out of a new one, mounted at @where, what is there by itself. */
void file_system_clear(const char *where);

#define FILE_SYSTEMS "ext4, xfs and btrfs"

/*
 * Mount it; what else it needs for that beside @options it gets. COPPICE_EXISTS: Btrfs, of which
 * another with this UUID is mounted.
 */
int file_system_mount(const char *device, const char *options, bool is_read_only, const char *where,
		      struct coppice_error *err);

/*
 * Before a snapshot of what is mounted: the kernel freezes ext4 and XFS for it, and not Btrfs,
 * which is whole at any time, but as it was when it was written out last.
 */
int file_system_settle(const char *where, struct coppice_error *err);

/* Give the Btrfs on a device, which is not mounted, a UUID of its own. */
int file_system_renew_uuid(const char *device, struct coppice_error *err);

/* Let it grow to the size of its device; mounted at @where. */
int file_system_grow(const char *where, const char *device, struct coppice_error *err);

/*
 * The same of an ext4 that is not mounted: for who may not have the kernel do it, which asks for
 * CAP_SYS_RESOURCE.
 */
int file_system_grow_unmounted(const char *device, struct coppice_error *err);
