/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Loop devices: a file as a block device, attached once whoever asks.
 *
 * Two loop devices on one file are two caches of one file system, and Btrfs
 * mounts both: every attachment therefore happens under a lock on the file, and
 * reuses the device that has it already, also one attached in another mount
 * namespace under another name.
 *
 * A device goes away by itself when the last who holds or mounts it is gone
 * (LO_FLAGS_AUTOCLEAR): keep struct loop until it is mounted, then close it, and
 * neither a kill nor umount leaves a device behind.
 */

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define LOOP_PATH_MAX 64

struct loop {
	char path[LOOP_PATH_MAX]; /* /dev/loop0 */
	bool was_attached;        /* before we came */
	int fd;                   /* of the device; keeps it attached */
};

/* clang-format off */
#define LOOP_INIT { { 0 }, false, -1 }
/* clang-format on */

/*
 * Attach a file, or find what it is attached to.
 *
 * Blocks: up to a minute for others who attach the same file.
 *
 * COPPICE_NOT_FOUND: no such file. COPPICE_UNSUPPORTED: this machine has no loop
 * devices for us. COPPICE_BUSY: the lock; or attached in a way that we cannot
 * use, read-only or in part.
 */
_nonnull_ int loop_attach(const char *file, struct loop *ret, struct coppice_error *err);

/*
 * Attach a file that nobody else knows, and that need not reach the disk: through the cache. @fd
 * stays the caller's. COPPICE_UNSUPPORTED: as loop_attach().
 */
_nonnull_ int loop_attach_buffered(int fd, struct loop *ret, struct coppice_error *err);

/*
 * Take the lock on a file or block device, for who must attach and mount in one step; close
 * *ret_fd to give it back. loop_attach() under it would wait for itself: use
 * loop_attach_locked() with this descriptor.
 */
_nonnull_ int loop_lock(const char *file, int *ret_fd, struct coppice_error *err);
_nonnull_ int loop_attach_locked(const char *file, int lock_fd, struct loop *ret,
				 struct coppice_error *err);

/* Which device has the file? Takes no lock; @ret is "" when *found is false. */
_nonnull_ int loop_find(const char *file, char ret[static LOOP_PATH_MAX], bool *found,
			struct coppice_error *err);

/*
 * Was the file at that absolute path, without links, when it was attached to this device? By the name
 * that the kernel keeps: the file's file system is asked nothing, and may have died.
 */
_nonnull_ bool loop_has_name(const char *device, const char *path);

/*
 * Call @fn with the name of each attached device, such as "loop0", until it returns other than
 * 0, which is returned then. @sys_fd is of /sys/block; -1 where that is not mounted: then also
 * with those in /dev that are not attached.
 */
typedef int loop_fn(void *user, int sys_fd, const char *name, struct coppice_error *err);
int loop_each(loop_fn *fn, void *user, struct coppice_error *err);

/* The file behind a device that loop_each() gave. */
struct loop_file {
	dev_t dev; /* as stat tells; of a subvolume its own */
	uint64_t inode;
	char path[PATH_MAX]; /* as we see it, if we do */
};

/* Its path, as the kernel last knew it, or "": asks not even the file's file system. */
_nonnull_ void loop_name_of(int sys_fd, const char *name, char ret[static PATH_MAX]);

/* False: nothing is attached to it, or who has it cannot be told. */
_nonnull_ bool loop_file_of(int sys_fd, const char *name, struct loop_file *ret);

/* The file behind a device grew: let the device grow. */
_nonnull_ int loop_resize(const char *path, struct coppice_error *err);

/*
 * Keep the file attached also when nobody holds or mounts the device, until loop_detach(). It is
 * attached by loop_attach().
 */
_nonnull_ int loop_keep(const struct loop *loop, struct coppice_error *err);

/* Detach a file from such a device: now, or when the last who has it open is gone. */
_nonnull_ int loop_detach(const char *path, struct coppice_error *err);

/* Hold the device no longer. Accepts LOOP_INIT and a closed one. */
_nonnull_ void loop_close(struct loop *loop);
