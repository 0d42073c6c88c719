/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Mounting what nobody can unmount before it is used. */

#include <stdint.h>

#include "base/error.h"

/*
 * Mount @device at the directory @where.
 * @options     as for mount(8): "discard,noatime,compress=zstd"; but
 *              for its words for fstab (auto, user, nofail), propagation and loop devices
 * @attributes  MOUNT_ATTR_…, where the options do not say otherwise
 * @ret_fd      its top, opened before it can be seen at @where: until that is closed,
 *              unmounting it fails with EBUSY
 *
 * Atomic: it is mounted with all options, or not at all. Returns 0 or -errno, as mount(2)
 * gives it. Linux >= 5.2, whose calls these are.
 */
_nonnull_ int mount_held(const char *type, const char *device, const char *options,
			 uint64_t attributes, const char *where, int *ret_fd);
