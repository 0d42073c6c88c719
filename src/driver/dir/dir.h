/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Plain directories on any file system: full copies, made in parallel; extents
 * are shared where the file system can (FICLONE: XFS, Btrfs).
 */

#include "driver/driver.h"

extern const struct driver driver_dir;
