/* SPDX-License-Identifier: Apache-2.0 */
/* Where an instance is, on engines that must mount it first; and unmounting it. */
#include "core/instances.h"

#include "base/text.h"

/*
 * Whoever replaces or removes an instance has it alone: so what is mounted under its name is
 * what has that name, on whichever host. Of several who mount or unmount it here one is at it.
 * Engines that mount nothing need no lock for that.
 */
static int lock_to_mount(struct coppice *coppice, const struct volume_ref *ref, struct locks *locks,
			 struct volume *ret, struct coppice_error *err)
{
	_cleanup_(freep) char *pool = NULL;
	struct pool_entry *entry;
	int r = volume_pool_of(coppice, ref->name.text, &pool, err);

	if (r < 0)
		return r;
	entry = pool ? pools_get(coppice, pool) : NULL;
	r = entry ? pools_open(coppice, entry, err) : COPPICE_OK; /* so its driver is known */
	if (r < 0)
		return r;
	if (entry && !entry->driver->volume_mount)
		return volume_look(coppice, ref, ret, err);
	locks_add(locks, LOCK_MOUNTS, ref->name.text, true);
	return volume_lock(coppice, ref, false, locks, ret, err);
}

int coppice_path(struct coppice *coppice, const char *name, char **ret, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(volume_done) struct volume volume = { 0 };
	_cleanup_(freep) char *path = NULL;
	struct volume_ref ref;
	char *full;
	bool did;
	int r;

	r = instance_ref_parse(name, &ref, err);
	if (r == COPPICE_OK)
		r = lock_to_mount(coppice, &ref, &locks, &volume, err);
	if (r == COPPICE_OK && volume.entry->driver->volume_mount)
		r = volume.entry->driver->volume_mount(volume.entry->pool, &volume.ref, &did, err);
	if (r == COPPICE_OK)
		r = volume.entry->driver->path(volume.entry->pool, &volume.ref, &path, err);
	if (r < 0)
		return r;
	full = volume_is_block(&volume.ref) ? take_ptr(&path) : text_format("%s/rootfs", path);
	if (!full)
		return fail_memory(err);
	*ret = full;
	return COPPICE_OK;
}

int coppice_umount(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(volume_done) struct volume volume = { 0 };
	struct volume_ref ref;
	int r;

	r = instance_ref_parse(name, &ref, err);
	if (r == COPPICE_OK)
		r = lock_to_mount(coppice, &ref, &locks, &volume, err);
	if (r < 0 || !volume.entry->driver->volume_umount)
		return r;
	r = volume.entry->driver->volume_umount(volume.entry->pool, &volume.ref, err);
	return r < 0 ? fail_mounted(coppice, volume.entry, &volume.ref, err) : COPPICE_OK;
}
