/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How deep volumes stand: a copy of a copy is a clone of what is itself one, and the kernel opens
 * no chain of more than 16. A clone that makes a chain longer than ceph.rbd.max_depth leaves a
 * note, the file "deep" in STATE/ceph/NAME. A later command that changes something and finds it has
 * one link flattened when all else is done, with nothing locked: the image next to the chain's root
 * gets all data of its own, so that all above it stand one less deep. Whoever is killed at that
 * leaves the note, and who comes next goes on where he was.
 *
 * An image is only cut from its parent while nobody has it open, nor what stands on it: librbd
 * would go on to read what is below as it was, and find zeros when the parent is removed
 * (locking.c). Else the link above is, or none, until a clone is made that stands too deep again.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
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

/* *ret_was: there was one already. */
static bool make_note(const struct ceph_pool *ceph, bool *ret_was)
{
	_cleanup_(freep) char *path = text_format("%s/" DEPTH_NOTE, ceph->files.path);
	_cleanup_(closep) int fd = -1;

	*ret_was = path && access(path, F_OK) == 0;
	fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
	return fd >= 0;
}

/* Where that fails, or is lost to one who just removes it, who clones next notes it again. */
static void note(struct ceph_pool *ceph)
{
	bool was_noted; /* then we pay for who did that */

	ceph->has_noted_depth |= make_note(ceph, &was_noted) && !was_noted;
}

void ceph_depth_look(struct ceph_pool *ceph)
{
	bool ignored;

	ceph->has_changed |= make_note(ceph, &ignored);
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
			    "longer; each coppice check --repair makes it shorter by one, where it "
			    "is not in use",
			    ceph->osd_pool, name, DEPTH_MAX);
	return r;
}

struct look {
	struct rbd_list listing, trashed;
};

static void look_done(struct look *look)
{
	rbd_listing_done(&look->listing);
	rbd_listing_done(&look->trashed);
}

static int look_around(struct ceph_pool *ceph, struct look *look, struct coppice_error *err)
{
	int r = rbd_listing_read(ceph, &look->listing, err);

	return r < 0 ? r : rbd_trash_read(ceph, &look->trashed, err);
}

static struct rbd *find_in(struct rbd_list *list, const char *id)
{
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->rbd[i].id, id) == 0)
			return &list->rbd[i];
	return NULL;
}

static struct rbd *find_id(struct look *look, const char *id)
{
	struct rbd *rbd = find_in(&look->listing, id);

	return rbd ? rbd : find_in(&look->trashed, id);
}

struct chain {
	struct rbd *link[2 * DEPTH_MAX]; /* the volume first, the root last */
	size_t n;
};

static struct chain chain_of(struct look *look, struct rbd *rbd)
{
	struct chain chain = { .n = 0 };

	while (rbd && chain.n < ARRAY_SIZE(chain.link)) {
		chain.link[chain.n++] = rbd;
		rbd = has_parent(rbd) ? find_id(look, rbd->parent.id) : NULL;
	}
	return chain;
}

typedef void chain_fn(struct ceph_pool *ceph, const struct chain *chain, void *user);

static void each_chain(struct ceph_pool *ceph, struct look *look, chain_fn *fn, void *user)
{
	struct rbd_list *const lists[] = { &look->listing, &look->trashed };

	for (size_t k = 0; k < ARRAY_SIZE(lists); k++)
		for (size_t i = 0; i < lists[k]->n; i++) {
			struct chain chain = chain_of(look, &lists[k]->rbd[i]);

			fn(ceph, &chain, user);
		}
}

static bool is_too_long(const struct ceph_pool *ceph, const struct chain *chain)
{
	return chain->n > ceph->max_depth + 1 && !ceph_is_view(chain->link[0]->name);
}

static void note_deep(struct ceph_pool *ceph, const struct chain *chain, void *user)
{
	bool *is_any = user;

	for (size_t i = 0; is_too_long(ceph, chain) && i + 1 < chain->n; i++)
		*is_any = chain->link[i]->is_deep = true;
}

/* Does, or may, somebody have it open? Who mounts an image of Coppice notes that nowhere. */
static bool is_open(struct ceph_pool *ceph, const struct rbd *rbd)
{
	if (rbd->is_in_trash)
		return false;
	return rbd->is_pending || ceph_is_view(rbd->name) || strncmp(rbd->name, "draft_", 6) == 0 ||
	       strncmp(rbd->name, "image_", 6) == 0 ||
	       (strncmp(rbd->name, "kept_", 5) == 0 && !rbd->volume) ||
	       ceph_may_be_mapped(ceph, rbd);
}

/* Who reads it reads all that it stands on. */
static void note_used(struct ceph_pool *ceph, const struct chain *chain, void *user)
{
	bool is_asked = false;

	for (size_t i = 0; i < chain->n; i++)
		is_asked |= chain->link[i]->is_deep && !chain->link[i]->is_used;
	if (!is_asked || !is_open(ceph, chain->link[0]))
		return;
	for (size_t i = 0; i < chain->n; i++)
		chain->link[i]->is_used = true;
}

/*
 * The oldest that stands on another, and is not used. One without the feature deep-flatten keeps
 * the parent of its snapshots, which others stand on; if all are so, only the volume itself can be
 * helped. NULL: none.
 */
static struct rbd *link_to_flatten(const struct chain *chain)
{
	bool is_any = false;

	for (size_t i = chain->n - 1; i-- > 0;) {
		bool is_so = chain->link[i]->features & RBD_FEATURE_DEEP_FLATTEN;

		if (is_so && !chain->link[i]->is_used)
			return chain->link[i];
		is_any |= is_so;
	}
	return is_any || chain->link[0]->is_used ? NULL : chain->link[0];
}

struct choice {
	struct rbd *link; /* NULL: none */
	size_t n;         /* links of the longest chain that it is in */
};

static void choose(struct ceph_pool *ceph, const struct chain *chain, void *user)
{
	struct choice *choice = user;
	struct rbd *link =
		is_too_long(ceph, chain) && chain->n > choice->n ? link_to_flatten(chain) : NULL;

	if (link)
		*choice = (struct choice){ link, chain->n };
}

static bool note_all(struct ceph_pool *ceph, struct look *look)
{
	bool is_any = false;

	each_chain(ceph, look, note_deep, &is_any);
	if (is_any)
		each_chain(ceph, look, note_used, NULL);
	return is_any;
}

/* Of the longest chain that is too long and can be made shorter now. NULL: there is none. */
static struct rbd *find_link(struct ceph_pool *ceph, struct look *look)
{
	struct choice choice = { .link = NULL };

	each_chain(ceph, look, choose, &choice);
	return choice.link;
}

/* ---- flattening ---- */

static void explain(struct pool *pool, const struct rbd *rbd)
{
	char command[PATH_MAX];

	ceph_explain_command(ceph_pool_of(pool), command);
	ceph_explain(pool, "# first, by librbd alone: objects that are not there are copied up");
	if (rbd->is_in_trash)
		ceph_explain(pool, "# in the trash, by librbd alone: flatten %s", rbd->id);
	else
		ceph_explain(pool, "%s flatten %s", command, rbd->name);
}

/* Who has it mapped by other means than Coppice says so nowhere else. */
static int find_others(rbd_image_t image, bool *ret)
{
	rbd_image_watcher_t watchers[2];
	size_t n = ARRAY_SIZE(watchers);
	int r = rbd_watchers_list(image, watchers, &n);

	if (r == 0)
		rbd_watchers_list_cleanup(watchers, n);
	*ret = r == -ERANGE || n > 1;
	return r == -ERANGE ? 0 : r;
}

/* What it stands on it needs no more. Who has come to use it since we looked keeps it as it is. */
static void cut(struct ceph_pool *ceph, const char *id, rbd_image_t image)
{
	_cleanup_(look_done) struct look look = { 0 };
	struct coppice_error ignored;
	struct rbd *link;
	bool is_used;

	if (ceph_parents_cut(ceph, &ignored) < 0 || look_around(ceph, &look, &ignored) < 0 ||
	    !note_all(ceph, &look))
		return;
	link = find_id(&look, id);
	if (link && link->is_deep && !link->is_used && find_others(image, &is_used) == 0 &&
	    !is_used)
		(void)rbd_flatten(image);
}

/* By its id, as it may be in the trash. *ret_used: somebody who says so nowhere has it open. */
static int flatten_kept(struct ceph_pool *ceph, const struct rbd *rbd, bool *ret_used,
			struct coppice_error *err)
{
	rbd_image_t image;
	int r = rbd_open_by_id(ceph->making_io, rbd->id, &image, NULL);

	if (r < 0)
		return fail_ceph(ceph, r, err, "cannot open '%s/%s'", ceph->osd_pool, rbd->name);
	r = find_others(image, ret_used);
	if (r < 0)
		(void)fail_ceph(ceph, r, err, "cannot tell who has '%s/%s' open", ceph->osd_pool,
				rbd->name);
	else if (!*ret_used)
		r = ceph_copy_up(&ceph->pool, image, err);
	if (r == 0 && !*ret_used)
		cut(ceph, rbd->id, image);
	(void)rbd_close(image);
	return r < 0 ? err->code : COPPICE_OK;
}

/*
 * Whatever fails is tried again, as the note is still there. *ret_used: it is not worth that. What
 * it reads through is kept from the beginning: else it could have been cut, and removed, meanwhile.
 */
static void flatten(struct ceph_pool *ceph, const struct rbd *rbd, bool *ret_used)
{
	/* And what it stands on, from which RBD takes it away. */
	const char *ids[] = { rbd->id, rbd->parent.id };
	bool are_ours[ARRAY_SIZE(ids)] = { false };
	size_t n = rbd->parent.id[0] ? 2 : 1;
	struct coppice_error ignored;

	if (ceph_images_claim(ceph, ids, n, are_ours, &ignored) < 0)
		return;
	if (are_ours[0] && are_ours[n - 1] &&
	    ceph_parents_keep(ceph, false, &ignored) == COPPICE_OK) {
		(void)flatten_kept(ceph, rbd, ret_used, &ignored);
		ceph_parents_give(ceph);
	}
	for (size_t i = 0; i < n; i++)
		if (are_ours[i])
			ceph_images_release(ceph, &ids[i], 1);
}

/* What fails now keeps its note; what is in use is noted again when somebody makes it deeper. */
void ceph_shorten(struct pool *pool)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(look_done) struct look look = { 0 };
	_cleanup_(closep) int fd = -1;
	struct coppice_error ignored;
	struct rbd *rbd = NULL;

	/* Who made it so deep is not the one who pays for it. */
	if (ceph->has_noted_depth || !take_note(ceph, &fd) ||
	    look_around(ceph, &look, &ignored) < 0)
		return;
	if (note_all(ceph, &look))
		rbd = find_link(ceph, &look);
	while (rbd) {
		bool is_used = false;

		explain(pool, rbd);
		if (!pool->is_dry_run)
			flatten(ceph, rbd, &is_used);
		if (!is_used)
			return;
		rbd->is_used = true;
		rbd = find_link(ceph, &look);
	}
	if (!pool->is_dry_run)
		state_lock_remove(&ceph->files, DEPTH_NOTE);
}
