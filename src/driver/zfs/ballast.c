/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting in a full pool. zfs-fuse renames nothing and sets no property then, so nothing
 * could be deleted but by zfs destroy of what has no snapshots. It does destroy: so there
 * is an empty dataset that reserves some space. It goes when a deletion finds no more than
 * that left, and is made again when what was deleted is destroyed and there is room.
 * OpenZFS keeps space for such commands by itself.
 */
#include "driver/zfs/zfs.h"

#define BALLAST_BYTES (8ULL << 20) /* 4 MiB were enough for eight commands at once */

static const char *ballast_name(const struct zfs_pool *zfs, char ret[static DATASET_MAX])
{
	(void)snprintf(ret, DATASET_MAX, "%.400s/ballast", zfs->root);
	return ret;
}

void zfs_ballast_ensure(const struct zfs_pool *zfs)
{
	struct coppice_error ignored;
	char name[DATASET_MAX], reservation[64];

	if (zfs_is_in_kernel())
		return;
	(void)snprintf(reservation, sizeof(reservation), "reservation=%llu", BALLAST_BYTES);
	(void)zfs_run(ZFS_ARGS("zfs", "create", "-o", "mountpoint=none", "-o", "canmount=off", "-o",
			       reservation, ballast_name(zfs, name)),
		      NULL, &ignored);
}

void zfs_ballast_mend(const struct zfs_pool *zfs, const struct listing *listing)
{
	char name[DATASET_MAX];

	if (!listing_find(listing, ballast_name(zfs, name)))
		zfs_ballast_ensure(zfs);
}

bool zfs_ballast_drop(const struct zfs_pool *zfs, const struct listing *listing)
{
	struct coppice_error ignored;
	char name[DATASET_MAX];
	bool is_full = false;

	for (size_t i = 0; i < listing->n && !is_full; i++)
		is_full = !listing->dataset[i].is_snapshot &&
			  listing->dataset[i].available < BALLAST_BYTES;
	if (is_full)
		(void)zfs_run(ZFS_ARGS("zfs", "destroy", ballast_name(zfs, name)), NULL, &ignored);
	return is_full;
}
