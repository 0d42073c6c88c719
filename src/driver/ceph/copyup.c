/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A clone gets all data of its own that it has from its parent, before the tie between them is cut.
 *
 * librbd's flatten would do that as well, but passes over what the clone's map of objects says is
 * there (seen, 16.2.15; Ceph's issue 68998). A client sets that in the map first, and copies the
 * object then: whoever is killed in between, while he flattens or writes to the clone, leaves an
 * object that is not there and counts as there. Until the tie is cut it reads as the parent's, and
 * as zeros then. To make the map anew does not help: it keeps what may just be written.
 *
 * So the objects are asked for, and of one that is not there a sector is compared with what it
 * reads as, and written, in one step: for that RBD copies the object up. Whoever writes to it
 * meanwhile makes that fail, and has copied it up. All of it may be done again, and nobody sees it.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "base/text.h"

#define SECTOR_BYTES 512

/* A unit lies in one object, all of it: of the size of that, but where an image is striped. */
struct copying {
	const struct pool *pool;
	rbd_image_t image;
	uint64_t overlap_bytes, unit_bytes;
	size_t n_units;
	bool *has;
};

static void copying_done(struct copying *copying)
{
	free(copying->has);
}

static int note_own(uint64_t offset, size_t n_bytes, int exists, void *user)
{
	struct copying *copying = user;
	uint64_t end = offset + n_bytes;

	for (uint64_t i = offset / copying->unit_bytes;
	     i * copying->unit_bytes < end && i < copying->n_units; i++)
		copying->has[i] |= exists != 0;
	return 0;
}

/* Asks for each object that the map has. */
static int find_own(struct copying *copying)
{
	int r = rbd_get_overlap(copying->image, &copying->overlap_bytes);

	if (r == 0)
		r = rbd_get_stripe_unit(copying->image, &copying->unit_bytes);
	if (r < 0)
		return r;
	copying->n_units =
		(size_t)((copying->overlap_bytes + copying->unit_bytes - 1) / copying->unit_bytes);
	copying->has = calloc(copying->n_units + 1, sizeof(*copying->has));
	return copying->has ? rbd_diff_iterate2(copying->image, NULL, 0, copying->overlap_bytes, 0,
						0, note_own, copying)
			    : -ENOMEM;
}

static int copy_unit(const struct copying *copying, uint64_t at, size_t n, char *data)
{
	uint64_t differs;
	ssize_t r = rbd_read(copying->image, at, n, data);

	if (r >= 0 && (size_t)r != n)
		return -EIO;
	if (r < 0 || bytes_are_zero(data, n))
		return (int)r;
	if (n < SECTOR_BYTES)
		return -EINVAL;
	r = rbd_compare_and_write(copying->image, at, SECTOR_BYTES, data, data, &differs, 0);
	return r == -EILSEQ ? 0 : (int)r;
}

/* On several threads. */
static int copy_up(void *user, size_t i, struct coppice_error *err)
{
	const struct copying *copying = user;
	uint64_t at = i * copying->unit_bytes, left = copying->overlap_bytes - at;
	size_t n = (size_t)(left < copying->unit_bytes ? left : copying->unit_bytes);
	_cleanup_(freep) char *data = NULL;
	int r;

	if (copying->has[i])
		return COPPICE_OK;
	if (pool_is_interrupted(copying->pool))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	data = malloc(n);
	if (!data)
		return fail_memory(err);
	r = copy_unit(copying, at, n, data);
	return r < 0 ? fail_errno(err, -r, "cannot copy from what it stands on") : COPPICE_OK;
}

int ceph_copy_up(const struct pool *pool, rbd_image_t image, struct coppice_error *err)
{
	_cleanup_(copying_done) struct copying copying = { .pool = pool, .image = image };
	int r = find_own(&copying);

	if (r < 0)
		return fail_errno(err, -r, "cannot tell what it has of its own");
	return parallel_run(copying.n_units, CEPH_THREADS, copy_up, &copying, err);
}
