/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How deep volumes stand: a copy of a copy is a clone of what is itself one, and the kernel opens
 * no chain of more than 16. A clone that makes a chain longer than ceph.rbd.max_depth leaves a
 * note, the file "deep" in STATE/ceph/NAME. A later command that changes something and finds it has
 * one link flattened when all else is done, with nothing locked: the image next to the chain's root
 * gets all data of its own, so that all above it stand one less deep. Whoever is killed at that
 * leaves the note, and RBD goes on where he was.
 */
#include "driver/ceph/ceph.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "base/text.h"

#define DEPTH_DEFAULT 8

/* Parents that an image may have; krbd takes 16, and a snapshot is read through one more clone. */
#define DEPTH_MAX 15

int ceph_depth_read(const struct pool_spec *spec, struct ceph_pool *ceph, struct coppice_error *err)
{
	const char *text = spec->get(spec, "ceph.rbd.max_depth");
	char *end = NULL;
	unsigned long depth = text ? strtoul(text, &end, 10) : DEPTH_DEFAULT;

	if (text && (text[0] < '0' || text[0] > '9' || *end || depth == 0 || depth >= DEPTH_MAX))
		return fail(err, COPPICE_INVALID,
			    "ceph.rbd.max_depth '%s' is no number from 1 to %d", text,
			    DEPTH_MAX - 1);
	ceph->max_depth = (unsigned)depth;
	return COPPICE_OK;
}

/* ---- the note ---- */

/* Where that fails, or is lost to one who just removes it, who clones next notes it again. */
static void note(struct ceph_pool *ceph)
{
	_cleanup_(freep) char *path = text_format("%s/" DEPTH_NOTE, ceph->files.path);
	bool was_noted = path && access(path, F_OK) == 0; /* then we pay for who did that */
	_cleanup_(closep) int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;

	ceph->has_noted_depth = fd >= 0 && !was_noted;
}

/* Is there one? *ret_fd keeps others from doing the same. */
static bool take_note(const struct ceph_pool *ceph, int *ret_fd)
{
	_cleanup_(freep) char *path = text_format("%s/" DEPTH_NOTE, ceph->files.path);
	_cleanup_(closep) int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return false;
	*ret_fd = take_fd(&fd);
	return true;
}

/* ---- chains ---- */

/* Its parent stays written down after it was flattened, if snapshots of it still have that. */
static bool has_parent(const struct rbd *rbd)
{
	return rbd->parent.id[0] && rbd->parent.overlap_bytes > 0;
}

int ceph_depth_check(struct ceph_pool *ceph, const char *name, struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list chain = { 0 };
	char id[RBD_ID_MAX];
	int r = header_id(ceph, name, id, err);

	if (r < 0)
		return r;
	do {
		r = rbd_listing_add(ceph, &chain, id, err);
		if (r == COPPICE_OK)
			(void)snprintf(id, sizeof(id), "%s", chain.rbd[chain.n - 1].parent.id);
	} while (r == COPPICE_OK && chain.n <= DEPTH_MAX && has_parent(&chain.rbd[chain.n - 1]));
	/* What is made stands on each of these. */
	if (r == COPPICE_OK && chain.n > ceph->max_depth)
		note(ceph);
	if (r == COPPICE_OK && chain.n > DEPTH_MAX)
		return fail(err, COPPICE_BUSY,
			    "'%s/%s' stands on %d others, and the kernel opens no chain that is "
			    "longer; each coppice check --repair makes it shorter by one",
			    ceph->osd_pool, name, DEPTH_MAX);
	return r;
}

struct chain {
	const struct rbd *link[2 * DEPTH_MAX]; /* the volume first, the root last */
	size_t n;
};

static const struct rbd *find_id(const struct rbd_list *listing, const char *id)
{
	for (size_t i = 0; i < listing->n; i++)
		if (strcmp(listing->rbd[i].id, id) == 0)
			return &listing->rbd[i];
	return NULL;
}

static struct chain chain_of(const struct rbd *rbd, const struct rbd_list *listing,
			     const struct rbd_list *trashed)
{
	struct chain chain = { .n = 0 };

	while (rbd && chain.n < ARRAY_SIZE(chain.link)) {
		const char *id = rbd->parent.id;

		chain.link[chain.n++] = rbd;
		if (!has_parent(rbd))
			break;
		rbd = find_id(listing, id);
		if (!rbd)
			rbd = find_id(trashed, id);
	}
	return chain;
}

static struct chain deepest(const struct rbd_list *listing, const struct rbd_list *trashed)
{
	struct chain found = { .n = 0 };

	for (size_t i = 0; i < listing->n; i++) {
		struct chain chain = chain_of(&listing->rbd[i], listing, trashed);

		if (chain.n > found.n && strncmp(listing->rbd[i].name, "view_", 5) != 0)
			found = chain;
	}
	return found;
}

/*
 * The oldest that stands on another. One without the feature deep-flatten keeps the parent of its
 * snapshots, which others stand on; if all are so, only the volume itself can be helped.
 */
static const struct rbd *link_to_flatten(const struct chain *chain)
{
	for (size_t i = chain->n - 1; i-- > 0;)
		if (chain->link[i]->features & RBD_FEATURE_DEEP_FLATTEN)
			return chain->link[i];
	return chain->link[0];
}

static void explain(struct pool *pool, const struct rbd *rbd)
{
	char command[PATH_MAX];

	ceph_explain_command(ceph_pool_of(pool), command);
	if (rbd->is_in_trash)
		ceph_explain(pool, "# in the trash, by librbd alone: flatten %s", rbd->id);
	else
		ceph_explain(pool, "%s flatten %s", command, rbd->name);
}

/* By its id, as it may be in the trash. Whatever fails is tried again, as the note is still there.
 */
static void flatten(struct ceph_pool *ceph, const struct rbd *rbd)
{
	/* And what it stands on, from which RBD takes it away. */
	const char *ids[] = { rbd->id, rbd->parent.id };
	bool are_ours[ARRAY_SIZE(ids)] = { false };
	size_t n = rbd->parent.id[0] ? 2 : 1;
	struct coppice_error ignored;
	rbd_image_t image;

	if (ceph_images_claim(ceph, ids, n, are_ours, &ignored) < 0)
		return;
	if (are_ours[0] && are_ours[n - 1] &&
	    rbd_open_by_id(ceph->making_io, rbd->id, &image, NULL) == 0) {
		(void)rbd_flatten(image);
		(void)rbd_close(image);
	}
	for (size_t i = 0; i < n; i++)
		if (are_ours[i])
			ceph_images_release(ceph, &ids[i], 1);
}

/* What cannot be done now keeps its note. */
void ceph_shorten(struct pool *pool)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 }, trashed = { 0 };
	_cleanup_(closep) int fd = -1;
	struct coppice_error ignored;
	const struct rbd *rbd;
	struct chain chain;

	/* Who made it so deep is not the one who pays for it. */
	if (ceph->has_noted_depth || !take_note(ceph, &fd))
		return;
	if (rbd_listing_read(ceph, &listing, &ignored) < 0 ||
	    rbd_trash_read(ceph, &trashed, &ignored) < 0)
		return;
	chain = deepest(&listing, &trashed);
	if (chain.n <= ceph->max_depth + 1) {
		if (!pool->is_dry_run)
			state_lock_remove(&ceph->files, DEPTH_NOTE);
		return;
	}
	rbd = link_to_flatten(&chain);
	explain(pool, rbd);
	if (!pool->is_dry_run)
		flatten(ceph, rbd);
}
