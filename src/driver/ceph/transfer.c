/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies that share nothing with what they are of, in another pool or the same, by librbd. What is
 * sent is a row of nodes: snapshots by age, and what is live, frozen, at the end. Each comes on
 * top of one before it, its base, which it shares with all that is not sent:
 *
 *	of the same image: what RBD says that was written since, to the byte
 *	of another, after a restore or of a copy's snapshots: both are read, where either has
 *	something, and what differs is sent
 *	no base: all that is there
 *
 * Zeros are not sent. In the target a node goes on in its base's image, as long as that is as the
 * base left it; else it begins a clone of the base. So of an instance that was never restored
 * there is one image with all snapshots.
 *
 * To refresh an earlier copy is the same with snapshots that it has already as the first nodes.
 * These are known by what was written down when they were sent: names and times do not say that
 * two images are the same to the byte, as files may have been copied.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "base/text.h"
#include "driver/generic/limit.h"
#include "driver/generic/record_config.h"

#define LIVE UINT64_MAX /* newer than any snapshot */

/* An image of the target. */
struct part {
	char name[RBD_NAME_MAX], told[2 * RBD_NAME_MAX];
	const struct node *first, *last; /* NULL: it was there before */
};

struct node {
	const struct rbd *rbd; /* of the source */
	char snapshot[RBD_NAME_MAX];
	uint64_t snap_id; /* LIVE: it has none before it is frozen */
	uint64_t size_bytes, asked_bytes;
	const struct new_volume *volume; /* that it becomes; NULL: the target has it */
	const struct node *base;
	struct part *part;
	char copy[RBD_NAME_MAX]; /* its snapshot in the target; "": none, as it is live there */
};

struct sending {
	struct draft *draft;
	struct ceph_pool *from, *to;
	const struct volume_ref *sources;
	const struct new_volume *volumes;
	size_t n_volumes;
	struct rbd_list listing, there; /* of the source, and of the earlier copy */
	const struct rbd *earlier;      /* NULL: there is none */
	struct node *node;
	size_t n_nodes;
	struct part *part;
	size_t n_parts;
};

static void sending_done(struct sending *sending)
{
	rbd_listing_done(&sending->listing);
	rbd_listing_done(&sending->there);
	free(sending->node);
	free(sending->part);
}

static void image_closep(rbd_image_t *image)
{
	if (*image)
		(void)rbd_close(*image);
}

/* ---- whose bytes a snapshot has ---- */

#define SAME_MAX 160

static void same_key(uint64_t snap_id, char ret[static 64])
{
	(void)snprintf(ret, 64, META_SAME "%llx", (unsigned long long)snap_id);
}

/* Those of one that it was sent from, or its own: "CLUSTER/IMAGE@SNAPSHOT", by their ids. */
static void same_of(const struct ceph_pool *ceph, const struct rbd *rbd, uint64_t snap_id,
		    char ret[static SAME_MAX])
{
	char key[64], cluster[UUID_TEXT_SIZE] = "";
	const char *text;

	same_key(snap_id, key);
	text = rbd_meta(rbd, key);
	if (text) {
		(void)snprintf(ret, SAME_MAX, "%s", text);
		return;
	}
	(void)rados_cluster_fsid(ceph->cluster, cluster, sizeof(cluster));
	(void)snprintf(ret, SAME_MAX, "%s/%s@%llx", cluster, rbd->id, (unsigned long long)snap_id);
}

/* ---- what is sent, and on top of what ---- */

static struct node *add_node(struct sending *sending, const struct rbd *rbd,
			     const struct rbd_snap *snap)
{
	struct node *node = &sending->node[sending->n_nodes++];

	node->rbd = rbd;
	node->snap_id = snap ? snap->id : LIVE;
	node->size_bytes = snap ? snap->size_bytes : rbd->size_bytes;
	node->asked_bytes = rbd_bytes_asked(rbd, snap);
	if (snap)
		(void)snprintf(node->snapshot, sizeof(node->snapshot), "%s", snap->name);
	return node;
}

struct common {
	struct sending *sending;
	const struct rbd *rbd; /* of the source */
	const struct rbd_snap *snap;
};

/* Does the earlier copy's snapshot have the bytes of this one? */
static int note_same(void *user, struct rbd *rbd, struct rbd_snap *snap, struct coppice_error *err)
{
	const struct common *common = user;
	struct sending *sending = common->sending;
	char wanted[SAME_MAX], has[SAME_MAX];
	struct node *node;
	struct part *part;

	same_of(sending->from, common->rbd, common->snap->id, wanted);
	same_of(sending->to, rbd, snap->id, has);
	if (strcmp(wanted, has) != 0 || common->snap->size_bytes != snap->size_bytes)
		return COPPICE_OK;
	node = add_node(sending, common->rbd, common->snap);
	part = &sending->part[sending->n_parts++];
	(void)snprintf(node->copy, sizeof(node->copy), "%s", snap->name);
	(void)snprintf(part->name, sizeof(part->name), "%s", rbd->name);
	(void)snprintf(part->told, sizeof(part->told), "%s", rbd->name);
	node->part = part;
	return COPPICE_OK;
}

static int note_common(void *user, struct rbd *rbd, struct rbd_snap *snap,
		       struct coppice_error *err)
{
	struct sending *sending = user;
	size_t n = sending->n_nodes;
	struct common common = { .sending = sending, .rbd = rbd, .snap = snap };
	int r = rbd_snaps_each(&sending->there, sending->earlier, note_same, &common, err);

	/* One is enough. */
	if (sending->n_nodes > n + 1) {
		sending->n_parts -= sending->n_nodes - n - 1;
		sending->n_nodes = n + 1;
	}
	return r;
}

static int add_source(struct sending *sending, size_t i, struct coppice_error *err)
{
	const struct volume_ref *ref = &sending->sources[i];
	struct rbd_snap *snap = NULL;
	struct rbd *rbd = rbd_find_ref(&sending->listing, ref, &snap);
	struct node *node;

	if (!rbd || (volume_is_snapshot(ref) && !snap))
		return ceph_fail_missing(ref, err);
	for (size_t k = 0; k < rbd->n_snaps && ref->kind == VOLUME_IMAGE; k++)
		if (strcmp(rbd->snap[k].name, IMAGE_SNAPSHOT) == 0)
			snap = &rbd->snap[k];
	node = add_node(sending, rbd, snap);
	node->volume = &sending->volumes[i];
	if (volume_is_snapshot(&node->volume->ref))
		ceph_snapshot_name(&node->volume->ref, node->copy);
	return COPPICE_OK;
}

static bool is_parent(const struct node *parent, const struct node *node)
{
	return strcmp(node->rbd->parent.id, parent->rbd->id) == 0 &&
	       node->rbd->parent.snap_id == parent->snap_id;
}

/* Of those before it the last one of its own image, else what that is a clone of, else any. */
static const struct node *choose_base(const struct sending *sending, size_t k)
{
	const struct node *node = &sending->node[k], *best = NULL;

	for (size_t i = 0; i < k; i++) {
		const struct node *other = &sending->node[i];

		if (other->rbd == node->rbd && other->snap_id < node->snap_id &&
		    (!best || best->snap_id < other->snap_id))
			best = other;
	}
	for (size_t i = 0; i < k && !best; i++)
		if (is_parent(&sending->node[i], node))
			best = &sending->node[i];
	return best || k == 0 ? best : &sending->node[k - 1];
}

static void choose_parts(struct sending *sending)
{
	for (size_t k = 0; k < sending->n_nodes; k++) {
		struct node *node = &sending->node[k];

		if (!node->volume)
			continue;
		node->base = choose_base(sending, k);
		if (node->base && node->base->part->last == node->base) {
			node->part = node->base->part;
		} else {
			node->part = &sending->part[sending->n_parts++];
			node->part->first = node;
		}
		node->part->last = node;
	}
}

/* The one that what is live is in is the volume's; the others keep snapshots. */
static void name_parts(struct sending *sending)
{
	const struct node *live = &sending->node[sending->n_nodes - 1];

	for (size_t i = 0; i < sending->n_parts; i++) {
		struct part *part = &sending->part[i];
		const struct new_volume *volume;

		if (!part->first)
			continue;
		volume = part == live->part ? live->volume : part->first->volume;
		ceph_item_name(sending->draft, volume, part->name);
		(void)snprintf(part->told, sizeof(part->told), "draft_$draft.%s%s%s",
			       volume->item ? volume->item : volume->ref.name.text,
			       volume_is_snapshot(&volume->ref) ? "." : "",
			       volume->ref.snapshot.text);
	}
}

static int plan(struct sending *sending, struct coppice_error *err)
{
	size_t n_most = sending->n_volumes;
	int r = COPPICE_OK;

	for (size_t i = 0; i < sending->listing.n; i++)
		n_most += sending->listing.rbd[i].n_snaps;
	for (size_t i = 0; i < sending->there.n; i++)
		n_most += sending->there.rbd[i].n_snaps;
	sending->node = calloc(n_most, sizeof(*sending->node));
	sending->part = calloc(n_most, sizeof(*sending->part));
	if (!sending->node || !sending->part)
		return fail_memory(err);
	if (sending->earlier)
		r = rbd_snaps_each(&sending->listing,
				   rbd_find_ref(&sending->listing, &sending->sources[0], NULL),
				   note_common, sending, err);
	for (size_t i = 1; i < sending->n_volumes && r == COPPICE_OK; i++)
		r = add_source(sending, i, err);
	if (r == COPPICE_OK)
		r = add_source(sending, 0, err);
	if (r < 0)
		return r;
	choose_parts(sending);
	name_parts(sending);
	return COPPICE_OK;
}

/* ---- what files are copied for instead ---- */

static int check_size(const struct sending *sending, struct coppice_error *err)
{
	const struct node *live = &sending->node[sending->n_nodes - 1];
	_cleanup_(freep) char *own =
		sending->earlier ? record_config(sending->earlier->record, "size") : NULL;
	uint64_t limit_bytes = sending->volumes[0].limit_bytes;
	struct coppice_error ignored;

	if (own)
		(void)size_parse(own, &limit_bytes);
	return limit_bytes && limit_check(live->volume->ref.name.text, limit_bytes, "it has",
					  live->asked_bytes, &ignored) < 0
		       ? fail(err, COPPICE_UNSUPPORTED, "it is to be smaller")
		       : COPPICE_OK;
}

/* A volume has that of its record, or else of its pool. */
static int check_file_system(const struct sending *sending, struct coppice_error *err)
{
	const struct node *live = &sending->node[sending->n_nodes - 1];
	const char *record = sending->earlier ? sending->earlier->record : live->volume->record;
	_cleanup_(freep) char *was = record_config(live->rbd->record, "block.filesystem");
	_cleanup_(freep) char *own = record_config(record, "block.filesystem");

	if (volume_is_block(&live->volume->ref) ||
	    strcmp(was ? was : sending->from->file_system, own ? own : sending->to->file_system) ==
		    0)
		return COPPICE_OK;
	return fail(err, COPPICE_UNSUPPORTED, "it is to have another file system");
}

/* ---- telling ---- */

/* What both have at the same place stays as it is, so it is shared. */
static void explain_rsync(const struct sending *sending, const struct node *node, const char *from,
			  const char *to)
{
	struct pool *pool = sending->draft->pool;
	const char *told = node->part->told;

	if (node->size_bytes != node->base->size_bytes)
		ceph_explain(pool, "%s resize --allow-shrink --size %lluB %s", to,
			     (unsigned long long)node->size_bytes, told);
	ceph_explain(pool, "from=$(%s map --read-only %s@%s)", from, node->rbd->name,
		     node->snapshot);
	ceph_explain(pool, "to=$(%s map %s)", to, told);
	ceph_explain(pool, "rsync --ignore-times --inplace --no-whole-file --copy-devices "
			   "--write-devices $from $to");
	ceph_explain(pool, "%s unmap $from", from);
	ceph_explain(pool, "%s unmap $to", to);
}

static void explain_node(const struct sending *sending, const struct node *node)
{
	struct pool *pool = sending->draft->pool;
	const struct part *part = node->part;
	const struct node *base = node->base;
	bool is_difference = base && base->rbd == node->rbd;
	char from[PATH_MAX], to[PATH_MAX];

	ceph_explain_command(sending->from, from);
	ceph_explain_command(sending->to, to);
	if (part->first == node && !base)
		ceph_explain(pool, "%s create --size %lluB %s", to,
			     (unsigned long long)node->size_bytes, part->told);
	else if (part->first == node)
		ceph_explain_clone(pool, base->part->told, base->copy, part->told);
	if (base && !is_difference) {
		explain_rsync(sending, node, from, to);
		if (node->copy[0])
			ceph_explain(pool, "%s snap create %s@%s", to, part->told, node->copy);
		return;
	}
	/* What begins as a clone has not the snapshot that it begins at. */
	if (is_difference && part->first == node)
		ceph_explain(pool, "%s snap create %s@%s", to, part->told, base->snapshot);
	ceph_explain(pool, "%s export-diff %s%s%s%s@%s - | %s import-diff - %s", from,
		     is_difference ? "--from-snap " : "", is_difference ? base->snapshot : "",
		     is_difference ? " " : "", node->rbd->name, node->snapshot, to, part->told);
	if (is_difference && part->first == node)
		ceph_explain(pool, "%s snap rm %s@%s", to, part->told, base->snapshot);
	if (!node->copy[0])
		ceph_explain(pool, "%s snap rm %s@%s", to, part->told, node->snapshot);
}

static void explain_all(const struct sending *sending)
{
	const struct node *live = &sending->node[sending->n_nodes - 1];
	bool is_frozen = live->snap_id == LIVE;
	char from[PATH_MAX];

	ceph_explain_command(sending->from, from);
	if (is_frozen)
		ceph_explain(sending->draft->pool, "%s snap create %s@%s", from, live->rbd->name,
			     live->snapshot);
	for (size_t k = 0; k < sending->n_nodes; k++)
		if (sending->node[k].volume)
			explain_node(sending, &sending->node[k]);
	if (is_frozen)
		ceph_explain(sending->draft->pool, "%s snap rm %s@%s", from, live->rbd->name,
			     live->snapshot);
}

/* ---- where there is something to send ---- */

/* So much is read at once, and what differs is sent by these. */
#define CHUNK_BYTES (UINT64_C(4) << 20)
#define BLOCK_BYTES 4096

struct extent {
	uint64_t offset, n_bytes;
	bool is_gone; /* it is zero now */
};

struct step {
	const struct sending *sending;
	const struct node *node;
	rbd_image_t source, before, target; /* @before: NULL: it is sent as it is */
	uint64_t size_bytes, before_bytes;
	bool is_on_zeros; /* what is zero need not be sent */
	bool *chunk;      /* there may be something */
	size_t n_chunks;
	struct extent *extent;
	size_t n_extents;
};

static void step_done(struct step *step)
{
	image_closep(&step->source);
	image_closep(&step->before);
	image_closep(&step->target);
	free(step->chunk);
	free(step->extent);
}

static int note_chunks(uint64_t offset, size_t n_bytes, int exists, void *user)
{
	struct step *step = user;

	for (uint64_t i = offset / CHUNK_BYTES;
	     i * CHUNK_BYTES < offset + n_bytes && i < step->n_chunks; i++)
		step->chunk[i] = true;
	return 0;
}

/* In pieces of no more than a chunk. Grows by doubling. */
static int note_extent(uint64_t offset, size_t n_bytes, int exists, void *user)
{
	struct step *step = user;

	for (uint64_t at = offset, end = offset + n_bytes; at < end;) {
		uint64_t next = (at / CHUNK_BYTES + 1) * CHUNK_BYTES;
		size_t n = step->n_extents;

		if ((n & (n - 1)) == 0) {
			size_t capacity = n ? 2 * n : 16;
			struct extent *more = reallocarray(step->extent, capacity, sizeof(*more));

			if (!more)
				return -ENOMEM;
			step->extent = more;
		}
		next = next < end ? next : end;
		step->extent[step->n_extents++] = (struct extent){ at, next - at, !exists };
		at = next;
	}
	return 0;
}

typedef int extent_fn(uint64_t offset, size_t n_bytes, int exists, void *user);

static bool has_map(const struct rbd *rbd)
{
	return rbd->features & RBD_FEATURE_FAST_DIFF &&
	       !(rbd->flags & (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID));
}

/* Each run of chunks that were noted, as extents, or what is written there since. */
static int each_run(struct step *step, const char *since)
{
	int r = 0;

	for (size_t i = 0, n; i < step->n_chunks && r == 0; i += n) {
		uint64_t offset = i * CHUNK_BYTES, n_bytes;

		for (n = 1; i + n < step->n_chunks && step->chunk[i + n] == step->chunk[i];)
			n++;
		n_bytes = n * CHUNK_BYTES;
		if (n_bytes > step->size_bytes - offset)
			n_bytes = step->size_bytes - offset;
		if (!step->chunk[i])
			continue;
		r = since ? rbd_diff_iterate2(step->source, since, offset, n_bytes, 1, 0,
					      note_extent, step)
			  : note_extent(offset, n_bytes, 1, step);
	}
	return r;
}

/* By the map of objects, which is one read; then what was written, one request for each object. */
static int find_since(struct step *step, const char *since)
{
	int r;

	if (!has_map(step->node->rbd))
		return rbd_diff_iterate2(step->source, since, 0, step->size_bytes, 1, 0,
					 note_extent, step);
	r = rbd_diff_iterate2(step->source, since, 0, step->size_bytes, 1, 1, note_chunks, step);
	return r < 0 ? r : each_run(step, since);
}

/*
 * A clone has of its own all that is not as in its parent, also what hides that; the map of objects
 * says where. All of its parent must be behind it still: nobody made it smaller meanwhile.
 */
static bool is_plain_clone(const struct node *node)
{
	return node->base && is_parent(node->base, node) && has_map(node->rbd) &&
	       node->rbd->parent.overlap_bytes == node->base->size_bytes;
}

static int find_extents(struct step *step)
{
	const struct node *node = step->node, *base = node->base;
	int own = !is_plain_clone(node), r;

	if (base && base->rbd == node->rbd)
		return find_since(step, base->snapshot);
	r = rbd_diff_iterate2(step->source, NULL, 0, step->size_bytes, (uint8_t)own, 1, note_chunks,
			      step);
	if (r == 0 && step->before && own)
		r = rbd_diff_iterate2(step->before, NULL, 0, step->before_bytes, 1, 1, note_chunks,
				      step);
	return r < 0 ? r : each_run(step, NULL);
}

/* ---- sending ---- */

static int fail_step(const struct step *step, const struct ceph_pool *ceph, int r, const char *what,
		     struct coppice_error *err)
{
	return fail_ceph(ceph, r, err, "cannot %s '%s/%s'", what, ceph->osd_pool,
			 ceph == step->sending->from ? step->node->rbd->name
						     : step->node->part->name);
}

/* What is behind its end is zero. */
static int read_all(rbd_image_t image, uint64_t size_bytes, const struct extent *extent, char *to)
{
	uint64_t n = extent->offset < size_bytes ? size_bytes - extent->offset : 0;
	ssize_t r;

	n = n < extent->n_bytes ? n : extent->n_bytes;
	r = n ? rbd_read2(image, extent->offset, n, to, 0) : 0;
	if (r < 0)
		return (int)r;
	memset(to + r, 0, extent->n_bytes - (size_t)r);
	return 0;
}

enum block {
	BLOCK_SAME,
	BLOCK_ZERO,
	BLOCK_DATA,
};

static enum block look_at(const struct step *step, const char *new, const char *old, size_t n)
{
	if (old && memcmp(new, old, n) == 0)
		return BLOCK_SAME;
	if (!bytes_are_zero(new, n))
		return BLOCK_DATA;
	return step->is_on_zeros ? BLOCK_SAME : BLOCK_ZERO;
}

static int write_run(rbd_image_t target, enum block block, uint64_t offset, size_t n,
		     const char *data)
{
	ssize_t r = 0;

	if (block == BLOCK_DATA)
		r = rbd_write2(target, offset, n, data, 0);
	else if (block == BLOCK_ZERO)
		r = rbd_write_zeroes(target, offset, n, 0, 0);
	return r < 0 ? (int)r : 0;
}

static int write_blocks(const struct step *step, const struct extent *extent, const char *new,
			const char *old)
{
	enum block before = BLOCK_SAME;
	size_t begun = 0;
	int r = 0;

	for (size_t at = 0; at < extent->n_bytes && r == 0; at += BLOCK_BYTES) {
		size_t n = extent->n_bytes - at < BLOCK_BYTES ? extent->n_bytes - at : BLOCK_BYTES;
		enum block block = look_at(step, new + at, old ? old + at : NULL, n);

		if (block == before)
			continue;
		r = write_run(step->target, before, extent->offset + begun, at - begun,
			      new + begun);
		before = block;
		begun = at;
	}
	return r < 0 ? r
		     : write_run(step->target, before, extent->offset + begun,
				 extent->n_bytes - begun, new + begun);
}

/* On several threads. */
static int send_extent(void *user, size_t i, struct coppice_error *err)
{
	const struct step *step = user;
	const struct extent *extent = &step->extent[i];
	const struct pool *pool = step->sending->draft->pool;
	_cleanup_(freep) char *new = malloc(extent->n_bytes);
	_cleanup_(freep) char *old = step->before ? malloc(extent->n_bytes) : NULL;
	int r = 0;

	if (pool_is_interrupted(pool))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	if (!new || (step->before && !old))
		return fail_memory(err);
	if (extent->is_gone)
		memset(new, 0, extent->n_bytes);
	else
		r = read_all(step->source, step->size_bytes, extent, new);
	if (r == 0 && old)
		r = read_all(step->before, step->before_bytes, extent, old);
	if (r < 0)
		return fail_step(step, step->sending->from, r, "read from", err);
	r = write_blocks(step, extent, new, old);
	return r < 0 ? fail_step(step, step->sending->to, r, "write to", err) : COPPICE_OK;
}

static int send_extents(struct step *step, struct coppice_error *err)
{
	uint64_t has_bytes = 0;
	int r;

	step->n_chunks = (step->size_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
	step->chunk = calloc(step->n_chunks + 1, sizeof(*step->chunk));
	if (!step->chunk)
		return fail_memory(err);
	r = find_extents(step);
	if (r < 0)
		return fail_step(step, step->sending->from, r, "find what is in", err);
	r = rbd_get_size(step->target, &has_bytes);
	if (r == 0 && has_bytes != step->size_bytes)
		r = rbd_resize(step->target, step->size_bytes);
	if (r < 0)
		return fail_step(step, step->sending->to, r, "give its size to", err);
	r = parallel_run(step->n_extents, CEPH_THREADS, send_extent, step, err);
	if (r < 0)
		return r;
	r = rbd_flush(step->target);
	return r < 0 ? fail_step(step, step->sending->to, r, "write to", err) : COPPICE_OK;
}

/* ---- one after another ---- */

static int open_source(const struct sending *sending, const struct node *node, rbd_image_t *ret,
		       uint64_t *ret_bytes, struct coppice_error *err)
{
	struct ceph_pool *from = sending->from;
	int r = rbd_open_by_id_read_only(from->io, node->rbd->id, ret, node->snapshot);

	if (r < 0)
		*ret = NULL;
	else
		r = rbd_get_size(*ret, ret_bytes);
	return r < 0 ? fail_ceph(from, r, err, "cannot open '%s/%s@%s'", from->osd_pool,
				 node->rbd->name, node->snapshot)
		     : COPPICE_OK;
}

/* Of a clone: with the metadata of what it is one of, to be left behind. */
static int describe_part(const struct sending *sending, const struct node *node,
			 struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list origin = { 0 };
	const struct node *live = &sending->node[sending->n_nodes - 1];
	bool is_live = node->part == live->part;
	char id[RBD_ID_MAX];
	int r = COPPICE_OK;

	if (node->base) {
		r = header_id(sending->to, node->base->part->name, id, err);
		if (r == COPPICE_OK)
			r = rbd_listing_add(sending->to, &origin, id, err);
	}
	return r < 0 ? r
		     : ceph_image_describe(sending->draft, is_live ? live->volume : node->volume,
					   node->part->name, origin.rbd,
					   is_live || sending->earlier, err);
}

static int begin_part(const struct sending *sending, const struct node *node, uint64_t size_bytes,
		      struct coppice_error *err)
{
	struct ceph_pool *to = sending->to;
	const struct node *live = &sending->node[sending->n_nodes - 1];
	const char *base = node->base ? node->base->part->name : NULL;
	int r = base ? ceph_depth_check(to, base, err) : COPPICE_OK;

	if (r == COPPICE_OK)
		r = ceph_draft_list_item(sending->draft,
					 node->part == live->part ? live->volume : node->volume,
					 err);
	if (r < 0)
		return r;
	ceph_making_of(sending->draft)->has_items = true;
	r = base ? ceph_image_clone(to, base, node->base->copy, node->part->name, err)
		 : ceph_image_create(to, node->part->name, size_bytes, err);
	return r < 0 ? r : describe_part(sending, node, err);
}

/* A snapshot has a record, and says at last whose bytes it has. */
static int make_snapshot(const struct step *step, struct coppice_error *err)
{
	const struct sending *sending = step->sending;
	const struct node *node = step->node;
	char id[RBD_ID_MAX], record[RBD_NAME_MAX + 32], key[64], same[SAME_MAX];
	uint64_t snap_id = 0;
	int r = header_id(sending->to, node->part->name, id, err);

	(void)snprintf(record, sizeof(record), META_SNAPSHOT "%s", node->volume->ref.snapshot.text);
	if (r == COPPICE_OK)
		r = header_change(
			sending->to, id,
			(const struct meta[]){ { record, node->volume->record }, { NULL, NULL } },
			err);
	if (r < 0)
		return r;
	r = rbd_snap_create2(step->target, node->copy, RBD_SNAP_CREATE_SKIP_QUIESCE, NULL, NULL);
	if (r == 0)
		r = rbd_snap_get_id(step->target, node->copy, &snap_id);
	if (r < 0)
		return fail_step(step, sending->to, r, "make a snapshot of", err);
	same_key(snap_id, key);
	same_of(sending->from, node->rbd, node->snap_id, same);
	return header_change(sending->to, id,
			     (const struct meta[]){ { key, same }, { NULL, NULL } }, err);
}

static int send_node(const struct sending *sending, const struct node *node,
		     struct coppice_error *err)
{
	_cleanup_(step_done) struct step step = { .sending = sending, .node = node };
	int r = open_source(sending, node, &step.source, &step.size_bytes, err);

	step.is_on_zeros = !node->base;
	if (r == COPPICE_OK && node->base && node->base->rbd != node->rbd)
		r = open_source(sending, node->base, &step.before, &step.before_bytes, err);
	if (r == COPPICE_OK && node->part->first == node)
		r = begin_part(sending, node, step.size_bytes, err);
	/* What is written to is read through, too; and it is seen that it is made. */
	if (r == COPPICE_OK && node->base)
		r = ceph_parents_wait(sending->to, err);
	if (r < 0)
		return r;
	r = rbd_open(sending->to->making_io, node->part->name, &step.target, NULL);
	if (r < 0) {
		step.target = NULL;
		return fail_step(&step, sending->to, r, "open", err);
	}
	r = send_extents(&step, err);
	return r < 0 || !node->copy[0] ? r : make_snapshot(&step, err);
}

static int send_all(const struct sending *sending, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t k = 0; k < sending->n_nodes && r == COPPICE_OK; k++)
		if (sending->node[k].volume)
			r = send_node(sending, &sending->node[k], err);
	return r;
}

/* ---- the whole ---- */

/*
 * What is live is sent from a snapshot of it, that is of a draft in its own pool: so whoever is
 * killed, it goes with that.
 */
static int freeze_and_send(struct sending *sending, struct coppice_error *err)
{
	struct ceph_pool *from = sending->from;
	struct node *live = &sending->node[sending->n_nodes - 1];
	explain_fn *explain = from->pool.explain;
	struct draft freezing = { .fd = -1 };
	struct coppice_error ignored;
	int r;

	from->pool.explain = NULL;
	r = ceph_draft_open(&from->pool, &freezing, err);
	from->pool.explain = explain;
	if (r == COPPICE_OK)
		r = ceph_draft_list(&freezing, NULL, NULL, err);
	if (r == COPPICE_OK)
		r = ceph_settle(from, live->rbd, err);
	if (r == COPPICE_OK) {
		ceph_making_of(&freezing)->has_items = true;
		(void)snprintf(live->snapshot, sizeof(live->snapshot), "copy_%s", freezing.id.text);
		r = ceph_snap_create(from, live->rbd->name, live->snapshot, err);
	}
	if (r == COPPICE_OK)
		r = send_all(sending, err);
	if (freezing.pool && live->snapshot[0] &&
	    ceph_snap_remove(from, live->rbd->name, live->snapshot, &ignored) == COPPICE_OK)
		ceph_making_of(&freezing)->has_items = false;
	(void)ceph_draft_discard(&freezing, &ignored);
	return r;
}

static int transfer(struct sending *sending, struct coppice_error *err)
{
	struct node *live = &sending->node[sending->n_nodes - 1];
	int r = check_size(sending, err);

	if (r == COPPICE_OK)
		r = check_file_system(sending, err);
	if (r < 0)
		return r;
	if (live->snap_id == LIVE)
		(void)snprintf(live->snapshot, sizeof(live->snapshot), "copy_$draft");
	explain_all(sending);
	if (sending->draft->pool->is_dry_run)
		return COPPICE_OK;
	r = ceph_parents_keep(sending->from, true, err);
	if (r < 0)
		return r;
	r = live->snap_id == LIVE ? freeze_and_send(sending, err) : send_all(sending, err);
	ceph_parents_give(sending->from);
	/* By now something is made: nothing else is to be tried. */
	if (r == COPPICE_UNSUPPORTED)
		r = err->code = COPPICE_FAILED;
	return r;
}

/* There is nothing to rebase on: ceph.rbd.clone_copy knows of no such way. */
int ceph_transfer(struct draft *draft, struct pool *from, const struct volume_ref *sources,
		  const struct new_volume *volumes, size_t n, enum copy_way way,
		  const struct volume_ref *base, struct coppice_error *err)
{
	_cleanup_(sending_done) struct sending sending = { .draft = draft,
							   .from = ceph_pool_of(from),
							   .to = ceph_pool_of(draft->pool),
							   .sources = sources,
							   .volumes = volumes,
							   .n_volumes = n };
	int r = rbd_listing_read_of(sending.from, sources, 1, &sending.listing, err);

	/* A dry run has not unpacked it. */
	if (r == COPPICE_OK && draft->pool->is_dry_run &&
	    !rbd_find_ref(&sending.listing, &sources[0], NULL))
		return fail(err, COPPICE_UNSUPPORTED, "it is not there");
	if (r == COPPICE_OK && base)
		r = rbd_listing_read_of(sending.to, base, 1, &sending.there, err);
	if (r == COPPICE_OK && base) {
		sending.earlier = rbd_find_ref(&sending.there, base, NULL);
		r = sending.earlier ? COPPICE_OK : ceph_fail_missing(base, err);
	}
	if (r == COPPICE_OK)
		r = plan(&sending, err);
	if (r < 0)
		return r;
	return transfer(&sending, err);
}
