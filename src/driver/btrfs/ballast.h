/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Deleting when Btrfs has no room for its own books.
 *
 * Somebody may fill a pool not only with data but with files: then all metadata is taken,
 * too. Btrfs destroys files and subvolumes even so, from a reserve that it keeps for
 * that, and refuses everything else: also the rename(2) that takes a volume out of sight
 * before it is destroyed. (Linux, fs/btrfs/inode.c: btrfs_rename reserves some 3 MiB with
 * nodes of 16 KiB; __unlink_start_trans falls back on the global reserve.) So there are
 * some files that hold as many nodes of metadata: they go when a deletion finds no room,
 * and are made again with the next new volume, when there is.
 */

#include "driver/btrfs/btrfs.h"

/* Have it, where it is not there and the file system has room; else go without. */
_nonnull_ void btrfs_ballast_ensure(struct btrfs_pool *btrfs);

/* Throw it off. Was there any? What it held can be used when this returns. */
_nonnull_ bool btrfs_ballast_drop(struct btrfs_pool *btrfs);
