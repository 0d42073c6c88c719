/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What must be known of pools on Ceph before one is used: the driver's module is loaded then. */

#include "driver/driver.h"

/* The driver as long as no pool of it is open: what it does, it has the module do. */
extern const struct driver driver_ceph_unloaded;

/* What the module calls its driver, and what it is to have been built with. */
#define CEPH_MODULE_DRIVER  "driver_ceph"
#define CEPH_MODULE_VERSION "driver_ceph_version"

extern const struct driver_key ceph_pool_keys[], ceph_volume_keys[];

/* clang-format off */
#define CEPH_TRAITS { .can_clone = true, .can_limit = true, .has_blocks = true }
/* clang-format on */

int ceph_choose(struct coppice_error *err);

/* ceph.rbd.clone_copy */
enum copy_way ceph_copy_way(const struct pool_spec *spec);
