/* SPDX-License-Identifier: Apache-2.0 */

/* The list of drivers: the only place that names them all. */

#include <stdlib.h>
#include <string.h>

#include "driver/btrfs/btrfs.h"
#include "driver/ceph/keys.h"
#include "driver/dir/dir.h"
#include "driver/driver.h"
#include "driver/lvm/lvm.h"
#include "driver/zfs/zfs.h"

#define ADDED_MAX 4

static const struct driver *const built_in[] = { &driver_zfs, &driver_btrfs, &driver_lvm,
						 &driver_ceph_unloaded, &driver_dir };

static const struct driver *added[ADDED_MAX];

const struct driver *driver_at(size_t i)
{
	if (i < ARRAY_SIZE(built_in))
		return built_in[i];
	i -= ARRAY_SIZE(built_in);
	return i < ADDED_MAX ? added[i] : NULL;
}

const struct driver *driver_find(const char *name)
{
	const struct driver *driver;

	for (size_t i = 0; (driver = driver_at(i)) != NULL; i++)
		if (strcmp(driver->name, name) == 0)
			return driver;
	return NULL;
}

void driver_add(const struct driver *driver)
{
	for (size_t i = 0; i < ADDED_MAX; i++) {
		if (added[i] && added[i] != driver)
			continue;
		added[i] = driver;
		return;
	}
	abort(); /* too many: a mistake in a test */
}

/*
 * Not required: pool_can_destroy, pool_resize, pool_extend, pool_host, draft_announce,
 * volume_fill, writing_check, volume_mount, limit_set, check: not every engine has them.
 */
const char *driver_problem(const struct driver *driver)
{
	const struct {
		const char *name;
		bool is_set;
	} required[] = {
#define OP(op) { #op, driver->op != NULL }
		OP(name),
		OP(pool_keys),
		OP(probe),
		OP(pool_create),
		OP(pool_open),
		OP(pool_close),
		OP(pool_is_mounted),
		OP(pool_umount),
		OP(pool_destroy),
		OP(pool_space),
		OP(pool_record_read),
		OP(pool_record_write),
		OP(pool_mount_path),
		OP(draft_open),
		OP(draft_discard),
		OP(volume_create),
		OP(volume_seal),
		OP(clone),
		OP(publish),
		OP(commit),
		OP(draft_sweep),
		OP(swap),
		OP(rename),
		OP(record_write),
		OP(retire),
		OP(reap),
		OP(pinned),
		OP(stamp),
		OP(touch),
		OP(scan),
		OP(record_read),
		OP(path),
		OP(usage),
#undef OP
	};

	for (size_t i = 0; i < ARRAY_SIZE(required); i++)
		if (!required[i].is_set)
			return required[i].name;
	if (driver->traits.can_limit && !driver->limit_set)
		return "limit_set, as can_limit says";
	if (!driver->stamp_part != !driver->stamp_new)
		return "stamp_part or stamp_new, which go together";
	if (!driver->reading_begin != !driver->reading_end)
		return "reading_begin or reading_end, which go together";
	if (!driver->volume_mount != !driver->volume_umount)
		return "volume_mount or volume_umount, which go together";
	if (!driver->volume_fill != !driver->draft_path)
		return "volume_fill or draft_path, which go together";
	if (!driver->names_lock != !driver->names_unlock)
		return "names_lock or names_unlock, which go together";
	if (!driver->pool_join != !driver->pool_leave)
		return "pool_join or pool_leave, which go together";
	return NULL;
}
