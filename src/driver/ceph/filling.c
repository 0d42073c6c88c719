/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in others is written to a volume that is made. The kernel takes it, and waits for the
 * cluster when it has taken enough.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <fcntl.h>

#include "driver/generic/fill.h"

static int device_size(const char *path, off_t *ret, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

	*ret = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	return *ret < 0 ? fail_errno(err, errno, "cannot look at '%s'", path) : COPPICE_OK;
}

/* Somebody may have made the source larger by himself, or its engine rounds sizes up. */
static int grow_to(struct ceph_pool *ceph, const struct ceph_turn *turn, const char *name,
		   const char *path, const char *from, struct coppice_error *err)
{
	char device[PATH_MAX];
	off_t has = 0, wanted = 0;
	int r = device_size(path, &has, err);

	if (r == COPPICE_OK)
		r = device_size(from, &wanted, err);
	if (r < 0 || has >= wanted)
		return r;
	r = ceph_unmap(ceph, turn, name, err);
	if (r == COPPICE_OK)
		r = ceph_resize_image(ceph, name, (uint64_t)wanted, err);
	return r < 0 ? r : ceph_map(ceph, turn, name, device, err);
}

struct filling {
	struct pool *pool;
	const char *path, *from;
	bool is_block;
};

static bool is_forsaken(void *user)
{
	return !bounded_is_awaited();
}

static int fill(const struct filling *filling, struct coppice_error *err)
{
	return filling->is_block
		       ? fill_block(filling->pool, filling->path, filling->from, false, err)
		       : fill_tree(filling->pool, filling->path, filling->from, err);
}

static int fill_apart(void *user, struct coppice_error *err)
{
	const struct filling *filling = user;

	filling->pool->is_interrupted = is_forsaken;
	return fill(filling, err);
}

int ceph_volume_fill(struct draft *draft, const struct new_volume *volume, const char *path,
		     const char *from, struct coppice_error *err)
{
	struct filling filling = { draft->pool, path, from, volume_is_block(&volume->ref) };
	_cleanup_(ceph_turn_give) struct ceph_turn turn = { .draft = draft };
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	char name[RBD_NAME_MAX], device[PATH_MAX];
	struct coppice_error ignored;
	int r;

	if (filling.is_block)
		ceph_explain(draft->pool, "dd if=%s of=$device bs=1M conv=sparse,fsync", from);
	else
		fill_explain(draft->pool, volume, path, from);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	ceph_item_name(draft, volume, name);
	/* What is made on this host first waits for no cluster. */
	if (ceph_is_staged(draft, name))
		return fill(&filling, err);
	r = ceph_turn_take(ceph, name, &turn, err);
	if (r == COPPICE_OK && filling.is_block)
		r = grow_to(ceph, &turn, name, path, from, err);
	if (r == COPPICE_OK && !ceph_mapped(ceph, name, device))
		r = fail(err, COPPICE_FAILED, "the device of '%s/%s' is gone", ceph->osd_pool,
			 name);
	if (r == COPPICE_OK)
		r = ceph_write_patiently(ceph, &turn, device, fill_apart, &filling, err);
	/* Some kernels count no flush among what a device has to do. */
	if (r == COPPICE_OK && filling.is_block)
		r = ceph_flush(ceph, &turn, device, NULL, err);
	if (r == COPPICE_INTERRUPTED) {
		/* It reads what the caller is about to take away, and hears in a moment. */
		ceph_turn_give(&turn);
		if (ceph_turn_take(ceph, name, &turn, &ignored) < 0)
			ceph_making_of(draft)->is_left = true;
	}
	return r;
}

int ceph_draft_writing_check(struct draft *draft, const struct new_volume *volume,
			     struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(draft->pool);
	char name[RBD_NAME_MAX], device[PATH_MAX];

	ceph_item_name(draft, volume, name);
	return ceph_linked(ceph, name, device)
		       ? ceph_writing_check(ceph, device, &ceph_making_of(draft)->writing, err)
		       : COPPICE_OK;
}
