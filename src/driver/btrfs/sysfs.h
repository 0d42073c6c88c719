/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the kernel says of one Btrfs in /sys/fs/btrfs/UUID. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is it there? Not where /sys is not mounted, as in many a chroot. @fd is in it. */
bool sysfs_knows(int fd);

/* The first line of a file there, such as "qgroups/mode"; false: there is none. */
bool sysfs_read(int fd, const char *name, char *ret, size_t size);

/* The same as a number. */
bool sysfs_read_number(int fd, const char *name, uint64_t *ret);
