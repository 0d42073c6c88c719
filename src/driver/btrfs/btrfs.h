/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Btrfs: volumes are subvolumes, clones are snapshots, sizes are simple quotas.
 * Measurements behind each choice are in docs/drivers.md.
 */

#include "driver/generic/layout.h"

extern const struct driver driver_btrfs;

struct btrfs_pool {
	struct layout layout;
	bool has_quota;     /* simple quotas are on: accounts, limits and `written` work */
	bool has_destroyed; /* subvolumes, which the kernel is still to drop */
};

static inline struct btrfs_pool *btrfs_pool_of(struct pool *pool)
{
	return CONTAINER_OF(pool, struct btrfs_pool, layout.pool);
}

#define SUBVOLUME_INODE 256 /* what the root of every subvolume has */

/* ---- nested.c ---- */

int btrfs_nested(struct pool *pool, const struct volume_ref *ref, nested_fn *fn, void *user,
		 struct coppice_error *err);

/* ---- pool.c ---- */

int btrfs_probe(const struct pool_spec *spec, struct coppice_error *err);
int btrfs_pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		      struct coppice_error *err);
int btrfs_pool_check(const struct pool_spec *spec, struct coppice_error *err);
void btrfs_pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user);
void btrfs_pool_open_explain(const struct pool_spec *spec, explain_fn *explain, void *user);
int btrfs_pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err);
void btrfs_pool_close(struct pool *pool);
bool btrfs_pool_is_mounted(const struct pool_spec *spec);
int btrfs_pool_can_umount(const struct pool_spec *spec, struct coppice_error *err);
int btrfs_pool_umount(const struct pool_spec *spec, struct coppice_error *err);
int btrfs_pool_destroy(const struct pool_spec *spec, struct coppice_error *err);
int btrfs_pool_resize(struct pool *pool, uint64_t size_bytes, struct coppice_error *err);
int btrfs_pool_host(const struct pool_spec *spec, bool *ret_is_file, struct pool_host *ret,
		    struct coppice_error *err);
const char *btrfs_pool_remark(struct pool *pool);
int btrfs_pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err);

/* How btrfs.c treats the data of volumes; the pool needs it to open and to unmake. */
extern const struct layout_engine btrfs_engine;
