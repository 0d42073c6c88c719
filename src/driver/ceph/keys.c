/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/ceph/keys.h"

#include <string.h>

/* Less than DEPTH_MAX in depth.c: what is refused by that must be too deep by this. */
#define DEPTHS "1|2|3|4|5|6|7|8|9|10|11|12|13|14"

const struct driver_key ceph_pool_keys[] = {
	{ .name = "ceph.cluster_name" },
	{ .name = "ceph.user.name", .is_changeable = true },
	{ .name = "ceph.conf", .is_changeable = true },
	{ .name = "ceph.timeout", .is_changeable = true },
	{ .name = "ceph.osd.pool_name" },
	{ .name = "ceph.osd.pg_num" },
	{ .name = "ceph.osd.data_pool_name" },
	{ .name = "ceph.rbd.features", .is_changeable = true },
	{ .name = "ceph.rbd.clone_copy", .values = "true|false", .is_changeable = true },
	{ .name = "ceph.rbd.max_depth", .values = DEPTHS, .is_changeable = true },
	{ .name = "volume.size", .is_changeable = true, .is_size = true },
	{ .name = "volume.block.filesystem", .values = "ext4|xfs|btrfs", .is_changeable = true },
	{ .name = "volume.block.mount_options", .is_changeable = true },
	{ .name = NULL },
};

const struct driver_key ceph_volume_keys[] = {
	{ .name = "block.filesystem", .values = "ext4|xfs|btrfs" },
	{ .name = "block.mount_options", .is_changeable = true },
	{ .name = NULL },
};

int ceph_choose(struct coppice_error *err)
{
	return fail(err, COPPICE_UNSUPPORTED, "Ceph is used where it is named only");
}

enum copy_way ceph_copy_way(const struct pool_spec *spec)
{
	const char *value = spec->get(spec, "ceph.rbd.clone_copy");

	return value && strcmp(value, "false") == 0 ? COPY_FULL : COPY_CLONED;
}
