/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies by zfs send and zfs receive. A volume and its snapshots are snapshots in a forest:
 * before each comes the one that its dataset had before it, or, of a dataset's first, the
 * one that the dataset is a clone of. Some lie in datasets of their own (below a volume,
 * after a restore), and a copy's snapshots stand on those of its original. So what is sent
 * is all that is wanted, where the ways to that part, and what those are clones of:
 *
 *	c0@snapshot-a ─→ c0@snapshot-b ─→ c0@copy-1 ─→ c2@copy-DRAFT	c2 was a copy of c0,
 *	      └→ c2/1@snapshot-a  └→ c2/2@snapshot-b			with its snapshots
 *
 * Each is one stream, the difference to the one before it, or all of it where there is none
 * before it. Datasets in between (c0) become parts of the draft; when the new volume, which
 * is a clone of theirs, is promoted, it has their snapshots, as @deleted-…, if others stand
 * on them.
 *
 * zfs receive finds what a clone is to stand on by its guid, and in the pool of the source
 * that is there twice. With -d it looks below the dataset that is named first, which is the
 * draft's; but then it chooses the name, below that, so it is renamed. To be sure, where it
 * stands is looked at before anything is promoted.
 *
 * To refresh an earlier copy is the same with snapshots that this has as well, by their guids,
 * as what is there already: the new volume is a clone of the newest such, and then gets the
 * difference to that. OpenZFS is told of what (-o origin=); zfs-fuse takes it into a clone that
 * was made, if that has a snapshot, and no change before.
 *
 * Rebasing is the same with the image's snapshot as what is there already. It goes through
 * all datasets on the way to the image, as zfs-fuse sends the difference only to what the
 * dataset itself had or is a clone of.
 */
#include "driver/zfs/zfs.h"

#include <limits.h>
#include <string.h>

#include "base/text.h"

enum copy_way zfs_copy_way(const struct pool_spec *spec)
{
	const char *value = spec->get(spec, "zfs.clone_copy");

	if (value && strcmp(value, "false") == 0)
		return COPY_FULL;
	return value && strcmp(value, "rebase") == 0 ? COPY_REBASED : COPY_CLONED;
}

/* A snapshot of the source's pool. */
struct node {
	const char *name;
	uint64_t txg;
	const struct new_volume *volume; /* that it becomes; NULL: it is only on the way to one */
	bool is_reached;                 /* something wanted comes of it */
	bool is_junction;                /* a dataset on the way is a clone of it */
	bool is_there;                   /* the target has it: an image's, or an earlier copy's */
	const char *copy;                /* of an earlier copy: its name there */
	size_t n_branches;               /* of what comes of it */
	struct node *before;             /* what is sent before it; NULL: nothing */
	size_t part;
	char snapshot[128]; /* its name in the target, after the '@' */
	char told[128];     /* the same, for explain */
	bool is_stood_on;   /* by a clone that stays */
};

/* Where the snapshots of one dataset go. */
struct part {
	const struct node *first;
	bool is_copied;     /* it began as a clone of what the earlier copy has */
	bool is_on_the_way; /* to the volume itself: that is promoted, and has its snapshots then */
	struct node *left_at; /* the last of those */
};

struct sending {
	struct draft *draft;    /* where to */
	struct zfs_pool *zfs;   /* the same */
	struct zfs_pool *from;  /* where from */
	struct draft *freezing; /* whose name the source's snapshot has */
	const struct new_volume *volumes;
	size_t n_volumes;
	enum copy_way way;
	const struct volume_ref *base; /* the earlier copy, or NULL */
	struct listing there;          /* of the target's pool, with a base */
	struct listing listing;        /* of the source's pool */
	struct node *node; /* one for each of that, in its order, and the volume's own at the end */
	size_t n_nodes;
	struct node *own;
	char own_name[DATASET_MAX];
	struct node **step; /* what is sent, in that order */
	size_t n_steps;
	struct part *part; /* the volume's own is the first */
	size_t n_parts;
};

static void sending_done(struct sending *sending)
{
	listing_done(&sending->listing);
	listing_done(&sending->there);
	free(sending->node);
	free(sending->step);
	free(sending->part);
}

/* ---- what comes of what ---- */

static size_t dataset_length(const char *snapshot)
{
	return strcspn(snapshot, "@");
}

static bool is_same_dataset(const char *a, const char *b)
{
	size_t n = dataset_length(a);

	return n == dataset_length(b) && strncmp(a, b, n) == 0;
}

static struct node *node_find(const struct sending *sending, const char *name)
{
	const struct dataset *dataset = listing_find(&sending->listing, name);

	return dataset ? &sending->node[dataset - sending->listing.dataset] : NULL;
}

/* What its dataset is a clone of, or NULL. */
static struct node *origin_of(const struct sending *sending, const struct node *node)
{
	const struct dataset *dataset;
	char name[DATASET_MAX];

	(void)snprintf(name, sizeof(name), "%.*s", (int)dataset_length(node->name), node->name);
	dataset = listing_find(&sending->listing, name);
	return dataset && dataset->origin ? node_find(sending, dataset->origin) : NULL;
}

static struct node *previous(const struct sending *sending, const struct node *node)
{
	struct node *best = NULL;

	for (size_t i = 0; i < sending->n_nodes; i++) {
		struct node *other = &sending->node[i];

		if (other->name && other->txg < node->txg && (!best || other->txg > best->txg) &&
		    is_same_dataset(other->name, node->name))
			best = other;
	}
	return best ? best : origin_of(sending, node);
}

/* An image's snapshot, also when the image was deleted and this stands on it. */
static bool is_image(const struct zfs_pool *zfs, const char *name)
{
	const char *rest = name + strlen(zfs->root), *at = strchr(name, '@');

	return at && strcmp(at, ZFS_IMAGE_SNAPSHOT) == 0 &&
	       (strncmp(rest, "/images/", 8) == 0 || strncmp(rest, "/deleted/images/", 16) == 0);
}

static void reach(struct sending *sending, struct node *node)
{
	while (node && !node->is_reached) {
		struct node *before = previous(sending, node);

		node->is_reached = true;
		if (!before)
			return;
		if (sending->way == COPY_REBASED && is_image(sending->from, before->name)) {
			before->is_there = true;
			return;
		}
		/* Difference is sent to what a dataset had; not to what it is a clone of. */
		if (before->copy && is_same_dataset(before->name, node->name)) {
			before->is_there = true;
			return;
		}
		before->n_branches++;
		before->is_junction |= !is_same_dataset(before->name, node->name);
		node = before;
	}
}

static int compare_ages(const void *a, const void *b)
{
	const struct node *const *x = a, *const *y = b;

	return (*x)->txg < (*y)->txg ? -1 : (*x)->txg > (*y)->txg;
}

/* The nearest before it that is sent, or is there. All that are older have been looked at. */
static struct node *before_of(const struct sending *sending, const struct node *node)
{
	struct node *before = previous(sending, node);

	while (before && !before->is_there && before->part == 0)
		before = previous(sending, before);
	return before;
}

/* Which of all that was reached is sent: part is 1 for those, until parts are given out. */
static int choose_steps(struct sending *sending, struct coppice_error *err)
{
	size_t n_reached = 0, n = 0;

	sending->step = calloc(sending->n_nodes, sizeof(struct node *));
	if (!sending->step)
		return fail_memory(err);
	for (size_t i = 0; i < sending->n_nodes; i++)
		if (sending->node[i].is_reached)
			sending->step[n_reached++] = &sending->node[i];
	qsort(sending->step, n_reached, sizeof(struct node *), compare_ages);
	for (size_t i = 0; i < n_reached; i++) {
		struct node *node = sending->step[i];

		node->before = before_of(sending, node);
		if (!node->volume && node->n_branches < 2 && !(node->is_junction && node->before))
			continue;
		node->part = 1;
		sending->step[n++] = node;
	}
	sending->n_steps = n;
	return COPPICE_OK;
}

/* One for each dataset, the volume's own first. */
static int choose_parts(struct sending *sending, struct coppice_error *err)
{
	sending->part = calloc(sending->n_steps + 1, sizeof(*sending->part));
	if (!sending->part)
		return fail_memory(err);
	sending->part[0].first = sending->own;
	sending->n_parts = 1;
	for (size_t i = 0; i < sending->n_steps; i++) {
		struct node *node = sending->step[i];
		size_t k = 0;

		while (k < sending->n_parts &&
		       !is_same_dataset(sending->part[k].first->name, node->name))
			k++;
		if (k == sending->n_parts)
			sending->part[sending->n_parts++].first = node;
		node->part = k;
	}
	return COPPICE_OK;
}

/* On which parts the volume itself stands, and where it left them. */
static void mark_way(struct sending *sending)
{
	for (const struct node *node = sending->own; node; node = node->before) {
		struct node *before = node->before;

		if (!before || before->is_there || before->part == node->part)
			continue;
		sending->part[before->part].is_on_the_way = true;
		sending->part[before->part].left_at = before;
	}
	for (size_t i = 0; i < sending->n_steps; i++) {
		const struct node *node = sending->step[i];
		struct node *before = node->before;

		/* Promoting turns it round where the volume itself is the clone. */
		if (before && !before->is_there && before->part != node->part &&
		    !(node->part == 0 || sending->part[node->part].is_on_the_way))
			before->is_stood_on = true;
	}
	/* And those that were left, and stay, are clones of the volume's then. */
	for (size_t k = 1; k < sending->n_parts; k++)
		for (size_t i = 0; i < sending->n_steps; i++)
			if (sending->part[k].is_on_the_way && sending->step[i]->part == k &&
			    sending->step[i]->txg > sending->part[k].left_at->txg)
				sending->part[k].left_at->is_stood_on = true;
}

/* ---- what there is ---- */

/* Which of the source's snapshots the earlier copy has as well. */
static int note_base(struct sending *sending, struct coppice_error *err)
{
	char volume[DATASET_MAX];
	int r = listing_read_history(sending->zfs, &sending->there, err);

	(void)zfs_volume_name(sending->zfs, sending->base, volume);
	for (size_t i = 0; i < sending->there.n && r == COPPICE_OK; i++) {
		const struct dataset *dataset = &sending->there.dataset[i];

		if (!dataset->is_snapshot || !zfs_is_within(dataset->name, volume))
			continue;
		for (size_t k = 0; k < sending->listing.n; k++)
			if (sending->node[k].name &&
			    sending->listing.dataset[k].guid == dataset->guid &&
			    strcmp(sending->node[k].name, dataset->name) != 0)
				sending->node[k].copy = dataset->name;
	}
	return r;
}

static int note_wanted(struct sending *sending, const struct volume_ref *sources,
		       struct coppice_error *err)
{
	for (size_t i = 0; i < sending->n_volumes; i++) {
		struct node *node = sending->own;

		if (volume_is_snapshot(&sources[i])) {
			const struct dataset *found =
				listing_find_ref(sending->from, &sending->listing, &sources[i]);

			if (!found)
				return zfs_fail_missing(&sources[i], err);
			node = &sending->node[found - sending->listing.dataset];
		}
		node->volume = &sending->volumes[i];
		if (i == 0)
			sending->own = node;
	}
	return COPPICE_OK;
}

/* What its snapshots are called in the target: only those that users see have their names. */
static void name_snapshots(struct sending *sending)
{
	const char *id = sending->draft->id.text;

	for (size_t i = 0; i < sending->n_steps; i++) {
		struct node *node = sending->step[i];

		if (node->volume && node != sending->own) {
			(void)snprintf(node->snapshot, sizeof(node->snapshot), "snapshot-%s",
				       node->volume->ref.snapshot.text);
			(void)snprintf(node->told, sizeof(node->told), "%s", node->snapshot);
		} else {
			(void)snprintf(node->snapshot, sizeof(node->snapshot), "deleted-%s:%zu", id,
				       i);
			(void)snprintf(node->told, sizeof(node->told), "deleted-$draft:%zu", i);
		}
	}
}

/* Read the source's pool, and work out what is to be sent. What is live is not frozen yet. */
static int plan(struct sending *sending, const struct volume_ref *sources,
		struct coppice_error *err)
{
	char volume[DATASET_MAX];
	int r;

	r = listing_read_history(sending->from, &sending->listing, err);
	if (r < 0)
		return r;
	sending->n_nodes = sending->listing.n + 1;
	sending->node = calloc(sending->n_nodes, sizeof(*sending->node));
	if (!sending->node)
		return fail_memory(err);
	for (size_t i = 0; i < sending->listing.n; i++)
		if (sending->listing.dataset[i].is_snapshot) {
			sending->node[i].name = sending->listing.dataset[i].name;
			sending->node[i].txg = sending->listing.dataset[i].created_txg;
		}
	(void)snprintf(sending->own_name, sizeof(sending->own_name), "%.400s@copy-%s",
		       zfs_volume_name(sending->from, &sources[0], volume),
		       sending->freezing->id.text);
	sending->own = &sending->node[sending->n_nodes - 1];
	sending->own->name = sending->own_name;
	sending->own->txg = UINT64_MAX;
	r = note_wanted(sending, sources, err);
	if (r == COPPICE_OK && sending->base)
		r = note_base(sending, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sending->n_nodes; i++)
		if (sending->node[i].volume)
			reach(sending, &sending->node[i]);
	r = choose_steps(sending, err);
	if (r == COPPICE_OK)
		r = choose_parts(sending, err);
	if (r < 0)
		return r;
	mark_way(sending);
	name_snapshots(sending);
	return COPPICE_OK;
}

/* ---- doing it ---- */

/* The volume's own item, or beside it. @id: the draft's uuid, or what explain says for it. */
static void part_name(const struct sending *sending, size_t part, const char *id,
		      char ret[static DATASET_MAX])
{
	const struct new_volume *volume = &sending->volumes[0];
	const char *item = volume->item ? volume->item : volume->ref.name.text;

	if (part == 0)
		(void)snprintf(ret, DATASET_MAX, "%s/drafts/%s/%s", sending->zfs->root, id, item);
	else
		(void)snprintf(ret, DATASET_MAX, "%s/drafts/%s/%s.part%zu", sending->zfs->root, id,
			       item, part);
}

/* Tell the command, and do it unless this is a dry run. */
static int run_told(struct sending *sending, const char *const argv[], const char *told,
		    struct coppice_error *err)
{
	zfs_explain(sending->draft->pool, "%s", told);
	return sending->draft->pool->is_dry_run ? COPPICE_OK : zfs_run(argv, NULL, err);
}

static const char *told_source(const struct sending *sending, const struct node *node,
			       char ret[static DATASET_MAX])
{
	(void)snprintf(ret, DATASET_MAX, "%.*s@%s", (int)dataset_length(node->name), node->name,
		       node->name == sending->own_name
			       ? "copy-$draft"
			       : node->name + dataset_length(node->name) + 1);
	return ret;
}

/* Is it, and that alone, what it was sent as a difference to? Else promoting would rob others. */
static int check_origin(const char *target, const char *wanted, struct coppice_error *err)
{
	_cleanup_(freep) char *origin = NULL;
	int r = zfs_run(ZFS_ARGS("zfs", "get", "-Hp", "-o", "value", "origin", target), &origin,
			err);

	if (r < 0)
		return r;
	origin[strcspn(origin, "\n")] = '\0';
	return strcmp(origin, wanted) == 0
		       ? COPPICE_OK
		       : fail(err, COPPICE_FAILED, "'%s' became a clone of '%s', not of '%s'",
			      target, origin, wanted);
}

/* The names of a snapshot that was received, as they are before anything is promoted. */
static void received_name(const struct sending *sending, const struct node *node, size_t part,
			  char name[static DATASET_MAX], char told[static DATASET_MAX])
{
	char dataset[DATASET_MAX];

	part_name(sending, part, sending->draft->id.text, dataset);
	(void)snprintf(name, DATASET_MAX, "%.350s@%s", dataset, node->snapshot);
	part_name(sending, part, "$draft", dataset);
	(void)snprintf(told, DATASET_MAX, "%.350s@%s", dataset, node->told);
}

/* Send it to where @receive and @told, without the command zfs send, say. */
static int stream(struct sending *sending, const struct node *node, const char *const receive[],
		  const char *told, struct coppice_error *err)
{
	const char *before = node->before ? node->before->name : NULL;
	char from[DATASET_MAX], to[DATASET_MAX];

	zfs_explain(sending->draft->pool, "zfs send%s%s %s | %s", before ? " -i " : "",
		    before ? told_source(sending, node->before, from) : "",
		    told_source(sending, node, to), told);
	if (sending->draft->pool->is_dry_run)
		return COPPICE_OK;
	return zfs_pipe(sending->draft->pool,
			before ? ZFS_ARGS("zfs", "send", "-i", before, node->name)
			       : ZFS_ARGS("zfs", "send", node->name),
			receive, err);
}

/* What zfs receive -d made on the way to a name that it chose. */
static int destroy_parents(struct sending *sending, const char *draft, const char *told_draft,
			   const char *below, struct coppice_error *err)
{
	_cleanup_(freep) char *rest = strdup(below);
	int r = rest ? COPPICE_OK : fail_memory(err);

	for (char *slash; r == COPPICE_OK && (slash = strrchr(rest, '/')) && slash != rest;) {
		_cleanup_(freep) char *name = NULL, *told = NULL;

		*slash = '\0';
		name = text_format("%s%s", draft, rest);
		told = text_format("zfs destroy %s%s", told_draft, rest);
		r = name && told ? run_told(sending, ZFS_ARGS("zfs", "destroy", name), told, err)
				 : fail_memory(err);
	}
	return r;
}

/* From where zfs receive -d put it, DRAFT/containers/c1@snapshot-a, to its part. */
static int fetch(struct sending *sending, const struct node *node, const char *draft,
		 const char *told_draft, struct coppice_error *err)
{
	const char *below = strchr(node->name, '/'), *at = strchr(below, '@');
	int n = (int)(at - below);
	_cleanup_(freep) char *dataset = text_format("%.*s", n, below);
	_cleanup_(freep) char *from = NULL, *told = NULL;
	_cleanup_(freep) char *snapshot = NULL, *told_snapshot = NULL;
	char to[DATASET_MAX], told_to[DATASET_MAX], name[DATASET_MAX], told_name[DATASET_MAX];
	int r;

	part_name(sending, node->part, sending->draft->id.text, to);
	part_name(sending, node->part, "$draft", told_to);
	received_name(sending, node, node->part, name, told_name);
	from = text_format("%s%.*s", draft, n, below);
	told = text_format("zfs rename %s%.*s %s", told_draft, n, below, told_to);
	snapshot = text_format("%s%s", to, at);
	told_snapshot =
		text_format("zfs rename %s@%s %s", told_to,
			    node->name == sending->own_name ? "copy-$draft" : at + 1, told_name);
	if (!dataset || !from || !told || !snapshot || !told_snapshot)
		return fail_memory(err);
	r = run_told(sending, ZFS_ARGS("zfs", "rename", from, to), told, err);
	if (r == COPPICE_OK)
		r = destroy_parents(sending, draft, told_draft, dataset, err);
	if (r == COPPICE_OK && strcmp(snapshot, name) != 0)
		r = run_told(sending, ZFS_ARGS("zfs", "rename", snapshot, name), told_snapshot,
			     err);
	return r;
}

/* A clone of what lies in another part of the draft. */
static int send_clone(struct sending *sending, const struct node *node, struct coppice_error *err)
{
	char draft[DATASET_MAX], told_draft[DATASET_MAX], part[DATASET_MAX];
	char origin[DATASET_MAX], told_origin[DATASET_MAX];
	_cleanup_(freep) char *told = NULL;
	int r;

	(void)snprintf(draft, sizeof(draft), "%s/drafts/%s", sending->zfs->root,
		       sending->draft->id.text);
	(void)snprintf(told_draft, sizeof(told_draft), "%s/drafts/$draft", sending->zfs->root);
	told = text_format("zfs receive -u -d %s", told_draft);
	if (!told)
		return fail_memory(err);
	r = stream(sending, node, ZFS_ARGS("zfs", "receive", "-u", "-d", draft), told, err);
	if (r == COPPICE_OK)
		r = fetch(sending, node, draft, told_draft, err);
	if (r < 0 || sending->draft->pool->is_dry_run)
		return r;
	part_name(sending, node->part, sending->draft->id.text, part);
	received_name(sending, node->before, node->before->part, origin, told_origin);
	return check_origin(part, origin, err);
}

/* The name of the snapshot that a part has of an earlier copy, until it is settled. */
static void copied_name(const struct sending *sending, size_t part, char name[static DATASET_MAX],
			char told[static DATASET_MAX])
{
	char dataset[DATASET_MAX];

	part_name(sending, part, sending->draft->id.text, dataset);
	(void)snprintf(name, DATASET_MAX, "%.400s@deleted-%s", dataset, sending->draft->id.text);
	part_name(sending, part, "$draft", dataset);
	(void)snprintf(told, DATASET_MAX, "%.400s@deleted-$draft", dataset);
}

/* On zfs-fuse a part begins as a clone of what the earlier copy has. */
static int begin_part(struct sending *sending, const struct node *node, struct coppice_error *err)
{
	char part[DATASET_MAX], told_part[DATASET_MAX], name[DATASET_MAX], told[DATASET_MAX];
	_cleanup_(freep) char *clone = NULL, *snapshot = NULL;
	const char *from = node->before->copy;
	int r;

	part_name(sending, node->part, sending->draft->id.text, part);
	part_name(sending, node->part, "$draft", told_part);
	copied_name(sending, node->part, name, told);
	clone = text_format("zfs clone %s %s", from, told_part);
	snapshot = text_format("zfs snapshot %s", told);
	if (!clone || !snapshot)
		return fail_memory(err);
	sending->part[node->part].is_copied = true;
	r = run_told(sending, ZFS_ARGS("zfs", "clone", from, part), clone, err);
	return r < 0 ? r : run_told(sending, ZFS_ARGS("zfs", "snapshot", name), snapshot, err);
}

static int end_part(struct sending *sending, size_t part, struct coppice_error *err)
{
	char name[DATASET_MAX], told[DATASET_MAX];
	_cleanup_(freep) char *line = NULL;

	if (!sending->part[part].is_copied)
		return COPPICE_OK;
	copied_name(sending, part, name, told);
	line = text_format("zfs destroy %s", told);
	return line ? run_told(sending, ZFS_ARGS("zfs", "destroy", name), line, err)
		    : fail_memory(err);
}

/* A part that OpenZFS makes a clone of what the earlier copy has. */
static int send_of_copy(struct sending *sending, const struct node *node, struct coppice_error *err)
{
	_cleanup_(freep) char *told = NULL, *origin = NULL;
	char name[DATASET_MAX], told_name[DATASET_MAX];

	received_name(sending, node, node->part, name, told_name);
	origin = text_format("origin=%s", node->before->copy);
	told = text_format("zfs receive -u -o origin=%s %s", node->before->copy, told_name);
	if (!told || !origin)
		return fail_memory(err);
	return stream(sending, node, ZFS_ARGS("zfs", "receive", "-u", "-o", origin, name), told,
		      err);
}

/* All of it, or the difference to what its part has. */
static int send_plain(struct sending *sending, const struct node *node, struct coppice_error *err)
{
	char name[DATASET_MAX], told_name[DATASET_MAX];
	_cleanup_(freep) char *told = NULL;

	received_name(sending, node, node->part, name, told_name);
	told = text_format("zfs receive -u %s", told_name);
	if (!told)
		return fail_memory(err);
	return stream(sending, node, ZFS_ARGS("zfs", "receive", "-u", name), told, err);
}

/* The difference to what the target has already: an image's, or an earlier copy's. */
static int send_on_top(struct sending *sending, const struct node *node, struct coppice_error *err)
{
	const char *copy = node->before->copy;
	char part[DATASET_MAX];
	int r;

	if (copy && zfs_is_in_kernel()) {
		r = send_of_copy(sending, node, err);
	} else {
		r = copy ? begin_part(sending, node, err) : COPPICE_OK;
		if (r == COPPICE_OK)
			r = send_plain(sending, node, err);
	}
	if (r < 0 || sending->draft->pool->is_dry_run)
		return r;
	part_name(sending, node->part, sending->draft->id.text, part);
	return check_origin(part, copy ? copy : node->before->name, err);
}

static int send_one(struct sending *sending, const struct node *node, struct coppice_error *err)
{
	if (node->before && node->before->is_there)
		return send_on_top(sending, node, err);
	return node->before && node->before->part != node->part ? send_clone(sending, node, err)
								: send_plain(sending, node, err);
}

static int send_all(struct sending *sending, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < sending->n_steps && r == COPPICE_OK; i++)
		r = send_one(sending, sending->step[i], err);
	return r;
}

/* ---- what was received becomes a volume with its snapshots ---- */

static int set_property(struct sending *sending, const char *name, const char *told_name,
			const char *property, const char *value, const char *told_value,
			struct coppice_error *err)
{
	_cleanup_(freep) char *text = text_format("%s=%s", property, value);
	_cleanup_(freep) char *told =
		text_format("zfs set %s=%s %s", property, told_value ? told_value : "", told_name);

	if (!text || !told)
		return fail_memory(err);
	return run_told(sending, ZFS_ARGS("zfs", "set", text, name), told, err);
}

static int write_records(struct sending *sending, struct coppice_error *err)
{
	const struct new_volume *volume = &sending->volumes[0];
	char name[DATASET_MAX], told[DATASET_MAX];
	int r;

	part_name(sending, 0, sending->draft->id.text, name);
	part_name(sending, 0, "$draft", told);
	r = set_property(sending, name, told, PROPERTY_RECORD, volume->record,
			 volume->explain_record, err);
	for (size_t i = 0; i < sending->n_steps && r == COPPICE_OK; i++) {
		const struct node *node = sending->step[i];

		if (!node->volume || node == sending->own)
			continue;
		received_name(sending, node, node->part, name, told);
		r = set_property(sending, name, told, PROPERTY_RECORD, node->volume->record,
				 node->volume->explain_record, err);
	}
	return r;
}

/* Once for each part that the volume stands on: then it has its snapshots. */
static int promote(struct sending *sending, struct coppice_error *err)
{
	char name[DATASET_MAX], told[DATASET_MAX];
	_cleanup_(freep) char *line = NULL;
	int r = COPPICE_OK;

	part_name(sending, 0, sending->draft->id.text, name);
	part_name(sending, 0, "$draft", told);
	line = text_format("zfs promote %s", told);
	if (!line)
		return fail_memory(err);
	for (size_t k = 1; k < sending->n_parts && r == COPPICE_OK; k++)
		if (sending->part[k].is_on_the_way)
			r = run_told(sending, ZFS_ARGS("zfs", "promote", name), line, err);
	return r;
}

/* Does it have snapshots still? */
static bool is_in_use(const struct sending *sending, size_t part)
{
	const struct node *left_at = sending->part[part].left_at;

	for (size_t i = 0; i < sending->n_steps; i++)
		if (sending->step[i]->part == part &&
		    (!left_at || sending->step[i]->txg > left_at->txg))
			return true;
	return false;
}

/* It goes below the volume, for the snapshots that it has; or away. */
static int settle_part(struct sending *sending, size_t part, struct coppice_error *err)
{
	char name[DATASET_MAX], told[DATASET_MAX], volume[DATASET_MAX], told_volume[DATASET_MAX];
	_cleanup_(freep) char *line = NULL, *to = NULL;
	struct uuid id;
	int r;

	part_name(sending, part, sending->draft->id.text, name);
	part_name(sending, part, "$draft", told);
	if (!is_in_use(sending, part)) {
		line = text_format("zfs destroy %s", told);
		return line ? run_told(sending, ZFS_ARGS("zfs", "destroy", name), line, err)
			    : fail_memory(err);
	}
	part_name(sending, 0, sending->draft->id.text, volume);
	part_name(sending, 0, "$draft", told_volume);
	r = uuid_new(&id, err);
	line = text_format("zfs rename %s %s/$(cat /proc/sys/kernel/random/uuid)", told,
			   told_volume);
	to = text_format("%s/%s", volume, id.text);
	if (r == COPPICE_OK && (!line || !to))
		r = fail_memory(err);
	if (r == COPPICE_OK)
		r = set_property(sending, name, told, "canmount", "off", "off", err);
	return r < 0 ? r : run_told(sending, ZFS_ARGS("zfs", "rename", name, to), line, err);
}

/* What nobody sees and nobody stands on; after promoting, all of these are the volume's. */
static int destroy_unseen(struct sending *sending, struct coppice_error *err)
{
	char name[DATASET_MAX], told[DATASET_MAX];
	int r = COPPICE_OK;

	for (size_t i = 0; i < sending->n_steps && r == COPPICE_OK; i++) {
		const struct node *node = sending->step[i];
		const struct part *part = &sending->part[node->part];
		_cleanup_(freep) char *line = NULL;

		if ((node->volume && node != sending->own) || node->is_stood_on ||
		    (node->part > 0 && !part->is_on_the_way) ||
		    (part->left_at && node->txg > part->left_at->txg))
			continue;
		received_name(sending, node, 0, name, told);
		line = text_format("zfs destroy %s", told);
		r = line ? run_told(sending, ZFS_ARGS("zfs", "destroy", name), line, err)
			 : fail_memory(err);
	}
	return r;
}

static int set_limits(struct sending *sending, struct coppice_error *err)
{
	_cleanup_(limit_options_done) struct limit_options limit = { .n = 0 };
	char name[DATASET_MAX], told[DATASET_MAX];
	int r = limit_options_format(&sending->volumes[0], &limit, err);

	part_name(sending, 0, sending->draft->id.text, name);
	part_name(sending, 0, "$draft", told);
	for (size_t i = 1; i < limit.n && r == COPPICE_OK; i += 2) {
		_cleanup_(freep) char *line = text_format("zfs set %s %s", limit.option[i], told);

		r = line ? run_told(sending, ZFS_ARGS("zfs", "set", limit.option[i], name), line,
				    err)
			 : fail_memory(err);
	}
	return r < 0 ? limit_options_failed(&sending->volumes[0], name, r, err) : COPPICE_OK;
}

static int settle(struct sending *sending, struct coppice_error *err)
{
	int r = write_records(sending, err);

	for (size_t k = 0; k < sending->n_parts && r == COPPICE_OK; k++)
		r = end_part(sending, k, err);
	if (r == COPPICE_OK)
		r = promote(sending, err);
	for (size_t k = 1; k < sending->n_parts && r == COPPICE_OK; k++)
		r = settle_part(sending, k, err);
	if (r == COPPICE_OK)
		r = destroy_unseen(sending, err);
	return r < 0 ? r : set_limits(sending, err);
}

/* ---- the whole ---- */

/* What is live is frozen for as long as it is sent. */
static int freeze_and_send(struct sending *sending, const struct volume_ref *source,
			   struct coppice_error *err)
{
	bool is_live = !volume_is_snapshot(source);
	struct coppice_error why, *said = err;
	char name[DATASET_MAX], told[DATASET_MAX];
	_cleanup_(freep) char *line = NULL;
	int r = COPPICE_OK;

	if (!is_live)
		return send_all(sending, err);
	zfs_explain(sending->draft->pool, "zfs snapshot %s",
		    told_source(sending, sending->own, told));
	if (!sending->draft->pool->is_dry_run)
		r = zfs_freeze(sending->freezing, source, name, err);
	if (r < 0)
		return r == COPPICE_NOT_FOUND ? zfs_missing(sending->from, source, err) : r;
	r = send_all(sending, err);
	line = text_format("zfs destroy %s", told);
	if (r < 0)
		said = &why; /* of the first failure, the user shall hear */
	if (!line)
		return fail_memory(said);
	if (run_told(sending, ZFS_ARGS("zfs", "destroy", sending->own_name), line, &why) < 0) {
		state_owe(&sending->from->files);
		state_leave_owed(&sending->from->files);
	}
	return r;
}

static int transfer(struct sending *sending, const struct volume_ref *sources,
		    struct coppice_error *err)
{
	int r = plan(sending, sources, err);

	if (r == COPPICE_OK)
		r = zfs_draft_ensure(sending->draft, err);
	if (r == COPPICE_OK)
		r = freeze_and_send(sending, &sources[0], err);
	return r < 0 ? r : settle(sending, err);
}

int zfs_transfer(struct draft *draft, struct pool *from, const struct volume_ref *sources,
		 const struct new_volume *volumes, size_t n, enum copy_way way,
		 const struct volume_ref *base, struct coppice_error *err)
{
	_cleanup_(sending_done) struct sending sending = {
		.draft = draft,
		.zfs = zfs_pool_of(draft->pool),
		.from = zfs_pool_of(from),
		.freezing = draft,
		.volumes = volumes,
		.n_volumes = n,
		.way = way,
		.base = base,
	};
	struct draft freezing = { .fd = -1 };
	struct coppice_error ignored;
	explain_fn *explain = from->explain;
	int r;

	for (size_t i = 0; i < n; i++)
		if (strlen(volumes[i].record) > RECORD_MAX)
			return fail(err, COPPICE_INVALID, "the record of '%s' is too long for ZFS",
				    volumes[i].ref.name.text);
	if (from == draft->pool)
		return transfer(&sending, sources, err);
	/* In its own pool, what is frozen is of a draft of that: so nobody reaps it meanwhile. */
	from->explain = NULL;
	r = zfs_draft_open(from, &freezing, err);
	from->explain = explain;
	if (r < 0)
		return r;
	sending.freezing = &freezing;
	r = transfer(&sending, sources, err);
	(void)zfs_draft_discard(&freezing, &ignored);
	return r;
}
