/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What opening a pool on ZFS and making one have in common. */

#include <limits.h>

#include "driver/zfs/zfs.h"

/* Where a pool lives, worked out from its specification. */
struct place {
	enum place_kind {
		PLACE_OUR_FILE, /* STATE/disks/NAME.img, made and removed by us */
		PLACE_VDEV,     /* somebody's file or device, with a zpool that we make */
		PLACE_DATASET,  /* in a zpool that is there */
	} kind;
	char vdev[PATH_MAX]; /* the file or device; "" for a dataset */
	char root[DATASET_MAX];
	char zpool[DATASET_MAX];
};

int zfs_place_find(const struct pool_spec *spec, struct place *ret, struct coppice_error *err);

DEFINE_CLEANUP(struct pool *, zfs_pool_close)

/* A pool that is not looked at yet. */
int zfs_pool_new(const struct pool_spec *spec, const struct place *place, struct pool **ret,
		 struct coppice_error *err);

/* STATE/zfs/NAME and STATE/mnt/NAME */
int zfs_state_ensure(const struct pool_spec *spec, const struct zfs_pool *zfs,
		     struct coppice_error *err);

/* A property that the root has by itself; NULL: it has none. free() it. */
int zfs_root_property(const struct zfs_pool *zfs, const char *property, char **ret,
		      struct coppice_error *err);

/* COPPICE_BUSY: the record of the pool, @text, says that it is another one, or another's. */
int zfs_check_owner(const struct zfs_pool *zfs, const struct pool_spec *spec, const char *text,
		    struct coppice_error *err);
