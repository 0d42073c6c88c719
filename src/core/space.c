/* SPDX-License-Identifier: Apache-2.0 */
/* The space of pools, and the tree of who stands on whom. */
#include "core/accounts.h"

#include <string.h>

#include "base/file.h"
#include "base/text.h"

/* ---- df ---- */

void coppice_space_list_free(struct coppice_space_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		free(list->pool[i].pool);
		free(list->pool[i].driver);
		free(list->pool[i].mapper);
	}
	free(list->pool);
	*list = (struct coppice_space_list){ 0 };
}

static int add_pinned(void *user, const char *record, struct coppice_bytes pinned,
		      struct coppice_error *err)
{
	struct coppice_bytes *sum = user;

	*sum = bytes_add(*sum, pinned);
	return COPPICE_OK;
}

/* Is it known at all who pinned what? Not in a pool whose engine keeps no accounts. */
static bool knows_pinned(const struct pool_entry *entry, const struct accounts *accounts)
{
	if (!entry->driver->traits.can_clone)
		return true;
	for (size_t i = 0; i < accounts->n_accounts; i++)
		if (accounts->account[i].charged.known)
			return true;
	return accounts->n == 0;
}

static void sum_up(const struct accounts *accounts, struct coppice_pool_space *space)
{
	struct coppice_bytes shared = { COPPICE_EXACT, 0 };

	space->logical = (struct coppice_bytes){ COPPICE_EXACT, 0 };
	for (size_t i = 0; i < accounts->n; i++) {
		const struct accounted *volume = &accounts->volume[i];

		space->logical = bytes_add(space->logical, volume->refers);
		if (volume->ref.kind == VOLUME_IMAGE || volume_is_snapshot(&volume->ref))
			continue;
		space->n_instances++;
		shared = bytes_add(shared, volume->shared);
	}
	space->saved = bytes_subtract(space->logical, space->used);
	space->exposure = bytes_add(space->used, shared);
}

/* What is in the pool, where only a walk tells. */
static int measure_used(struct pool_entry *entry, const struct accounts *accounts,
			struct coppice_bytes *ret, struct coppice_error *err)
{
	_cleanup_(freep) struct volume_ref *refs = NULL;

	if (!entry->driver->used)
		return COPPICE_OK;
	refs = calloc(accounts->n ? accounts->n : 1, sizeof(*refs));
	if (!refs)
		return fail_memory(err);
	for (size_t i = 0; i < accounts->n; i++)
		refs[i] = accounts->volume[i].ref;
	return entry->driver->used(entry->pool, refs, accounts->n, ret, err);
}

static int fill_space(struct coppice *coppice, struct pool_entry *entry, bool is_exact,
		      struct coppice_pool_space *space, struct coppice_error *err)
{
	_cleanup_(accounts_done) struct accounts accounts = { 0 };
	struct pool_space engine = { 0 };
	struct coppice_error ignored;
	int r;

	space->pool = strdup(entry->name);
	space->driver = strdup(entry->driver->name);
	if (entry->driver->pool_mapper)
		space->mapper = strdup(entry->driver->pool_mapper(entry->pool));
	if (!space->pool || !space->driver || (entry->driver->pool_mapper && !space->mapper))
		return fail_memory(err);
	r = entry->driver->pool_space(entry->pool, &engine, err);
	if (r == COPPICE_OK)
		r = accounts_read(coppice, entry, is_exact, &accounts, err);
	if (r == COPPICE_OK && is_exact)
		r = measure_used(entry, &accounts, &engine.used, err);
	if (r < 0)
		return r;
	space->total = engine.total;
	space->used = engine.used;
	space->free = engine.free;
	space->metadata_total = engine.metadata_total;
	space->metadata_used = engine.metadata_used;
	sum_up(&accounts, space);
	if (knows_pinned(entry, &accounts)) {
		space->pinned = (struct coppice_bytes){ COPPICE_EXACT, 0 };
		r = entry->driver->pinned(entry->pool, add_pinned, &space->pinned, err);
	}
	/* History is for forecasts, and no reason to fail. */
	if (r == COPPICE_OK && space->used.known && !coppice->options.is_dry_run)
		(void)catalog_history_add(coppice->catalog, entry->name, now_ns(),
					  space->used.bytes, space->free.bytes, &ignored);
	return r;
}

int coppice_space(struct coppice *coppice, const char *pool, bool is_exact,
		  struct coppice_space_list *ret, struct coppice_error *err)
{
	struct coppice_space_list list = { 0 };
	struct pool_entry *only = NULL;
	int r = COPPICE_OK;

	if (pool)
		r = pools_find(coppice, pool, &only, err);
	if (r < 0)
		return r;
	if (!only)
		pools_open_all(coppice);
	else
		r = pools_open(coppice, only, err);
	list.pool = calloc(coppice->n_pools ? coppice->n_pools : 1, sizeof(*list.pool));
	if (!list.pool)
		return fail_memory(err);
	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++) {
		struct pool_entry *entry = coppice->pools[i];

		if (entry->pool && (!only || entry == only)) {
			list.n++;
			r = fill_space(coppice, entry, is_exact, &list.pool[list.n - 1], err);
		}
	}
	if (r < 0) {
		coppice_space_list_free(&list);
		return r;
	}
	*ret = list;
	return COPPICE_OK;
}

/* ---- tree ---- */

void coppice_tree_free(struct coppice_tree *tree)
{
	for (size_t i = 0; i < tree->n; i++)
		free(tree->node[i].name);
	free(tree->node);
	*tree = (struct coppice_tree){ 0 };
}

/* Nodes as they are found, before they are put in order. */
struct growing {
	struct growing_node {
		struct coppice_node node; /* its parent is an index in here */
		struct uuid uuid;
	} * nodes;
	size_t n, capacity;
	size_t first; /* of the pool at hand */
	const struct accounts *accounts;
	struct sorted_uuid {
		struct uuid uuid;
		size_t node;
	} * index; /* of living nodes of the pool at hand, by uuid */
	size_t n_index;
};

static int add_node(struct growing *growing, const struct coppice_node *node, const char *name,
		    const struct uuid *uuid, size_t *ret, struct coppice_error *err)
{
	char *copy = strdup(name);

	if (copy && growing->n == growing->capacity) {
		size_t capacity = growing->capacity ? 2 * growing->capacity : 64;
		struct growing_node *more = reallocarray(growing->nodes, capacity, sizeof(*more));

		if (more) {
			growing->nodes = more;
			growing->capacity = capacity;
		}
	}
	if (!copy || growing->n == growing->capacity) {
		free(copy);
		return fail_memory(err);
	}
	*ret = growing->n;
	growing->nodes[growing->n].node = *node;
	growing->nodes[growing->n].node.name = copy;
	growing->nodes[growing->n++].uuid = *uuid;
	return COPPICE_OK;
}

static int compare_uuids(const void *a, const void *b)
{
	const struct sorted_uuid *x = a, *y = b;

	return strcmp(x->uuid.text, y->uuid.text);
}

/* Index of a living or, already added, a deleted node; SIZE_MAX: there is none. */
static size_t find_node(const struct growing *growing, const struct uuid *uuid)
{
	struct sorted_uuid wanted = { .uuid = *uuid };
	const struct sorted_uuid *found =
		growing->n_index ? bsearch(&wanted, growing->index, growing->n_index,
					   sizeof(wanted), compare_uuids)
				 : NULL;

	if (found)
		return found->node;
	/* Deleted ones are few, and were added after the living. */
	for (size_t i = growing->n; i-- > growing->first + 1 + growing->n_index;)
		if (strcmp(growing->nodes[i].uuid.text, uuid->text) == 0)
			return i;
	return SIZE_MAX;
}

static const char *image_label(const struct record *record, const char *fingerprint,
			       char buffer[static 16])
{
	if (record->of_image.n_aliases)
		return record->of_image.alias[0];
	(void)snprintf(buffer, 16, "%.12s", fingerprint);
	return buffer;
}

/* Living volumes first, all below the pool; where they belong is found next. */
static int add_living(struct growing *growing, size_t pool, struct coppice_error *err)
{
	const struct accounts *accounts = growing->accounts;

	growing->index = calloc(accounts->n ? accounts->n : 1, sizeof(*growing->index));
	if (!growing->index)
		return fail_memory(err);
	for (size_t i = 0; i < accounts->n; i++) {
		const struct accounted *volume = &accounts->volume[i];
		bool is_snapshot = volume_is_snapshot(&volume->ref);
		struct coppice_node node = {
			.type = is_snapshot                        ? COPPICE_NODE_SNAPSHOT
				: volume->ref.kind == VOLUME_IMAGE ? COPPICE_NODE_IMAGE
								   : COPPICE_NODE_INSTANCE,
			.parent = pool,
			.refers = volume->refers,
		};
		char buffer[16];
		const char *name = is_snapshot ? volume->ref.snapshot.text : volume->ref.name.text;
		size_t at;
		int r;

		if (node.type == COPPICE_NODE_INSTANCE)
			node.written = volume->written;
		if (node.type == COPPICE_NODE_IMAGE)
			name = image_label(&volume->record, name, buffer);
		r = add_node(growing, &node, name, &volume->record.uuid, &at, err);
		if (r < 0)
			return r;
		growing->index[i] = (struct sorted_uuid){ .uuid = volume->record.uuid, .node = at };
	}
	growing->n_index = accounts->n;
	qsort(growing->index, growing->n_index, sizeof(*growing->index), compare_uuids);
	return COPPICE_OK;
}

/* The node of the k-th ancestor, made as a deleted one if it does not live. */
static int ancestor_node(struct growing *growing, size_t pool, const struct record *record,
			 size_t k, size_t *ret, struct coppice_error *err)
{
	const struct ancestor *ancestor = &record->lineage[k];
	struct coppice_node node = { .is_deleted = true, .parent = pool };
	int r;

	*ret = SIZE_MAX;
	if (ancestor->snapshot.text[0])
		*ret = find_node(growing, &ancestor->snapshot);
	if (*ret == SIZE_MAX)
		*ret = find_node(growing, &ancestor->uuid);
	if (*ret != SIZE_MAX)
		return COPPICE_OK;
	if (k > 0) {
		r = ancestor_node(growing, pool, record, k - 1, &node.parent, err);
		if (r < 0)
			return r;
	}
	node.type = ancestor->is_image ? COPPICE_NODE_IMAGE : COPPICE_NODE_INSTANCE;
	return add_node(growing, &node, ancestor->name, &ancestor->uuid, ret, err);
}

/* An instance hangs on its origin, a snapshot on its instance. */
static int hang(struct growing *growing, size_t pool, struct coppice_error *err)
{
	const struct accounts *accounts = growing->accounts;
	size_t instance = pool, parent;

	for (size_t i = 0; i < accounts->n; i++) {
		const struct accounted *volume = &accounts->volume[i];
		size_t at = growing->first + 1 + i;
		int r;

		if (volume_is_snapshot(&volume->ref)) {
			growing->nodes[at].node.parent = instance;
			continue;
		}
		instance = at;
		if (volume->record.n_lineage == 0)
			continue;
		r = ancestor_node(growing, pool, &volume->record, volume->record.n_lineage - 1,
				  &parent, err);
		if (r < 0)
			return r;
		growing->nodes[at].node.parent = parent;
	}
	return COPPICE_OK;
}

/* What was deleted and is in no lineage as a volume: what do those call it that know it? */
static const char *name_of_deleted(const struct accounts *accounts, const struct uuid *uuid,
				   enum coppice_node_type *type)
{
	for (size_t i = 0; i < accounts->n; i++) {
		const struct accounted *volume = &accounts->volume[i];

		/* What was live of it before a restore. */
		if (strcmp(volume->record.uuid.text, uuid->text) == 0)
			return volume->ref.name.text;
		for (size_t k = 0; k < volume->record.n_lineage; k++)
			if (strcmp(volume->record.lineage[k].snapshot.text, uuid->text) == 0) {
				*type = COPPICE_NODE_SNAPSHOT;
				return volume->record.lineage[k].name;
			}
	}
	return uuid->text;
}

/* Whom nobody has in his lineage holds something all the same: as files share by FICLONE. */
static int set_pinned(void *user, const char *text, struct coppice_bytes pinned,
		      struct coppice_error *err)
{
	struct growing *growing = user;
	_cleanup_(record_done) struct record record = { 0 };
	struct coppice_node node = { .type = COPPICE_NODE_INSTANCE,
				     .parent = growing->first,
				     .is_deleted = true,
				     .pinned = pinned };
	struct coppice_error ignored;
	const char *name;
	size_t at;

	if (record_parse(text, &record, &ignored) < 0)
		return COPPICE_OK;
	for (size_t i = growing->first; i < growing->n; i++)
		if (growing->nodes[i].node.is_deleted &&
		    strcmp(growing->nodes[i].uuid.text, record.uuid.text) == 0) {
			struct coppice_bytes *sum = &growing->nodes[i].node.pinned;

			*sum = sum->known ? bytes_add(*sum, pinned) : pinned;
			return COPPICE_OK;
		}
	if (!pinned.known || pinned.bytes == 0)
		return COPPICE_OK;
	if (record.kind == VOLUME_IMAGE)
		node.type = COPPICE_NODE_IMAGE;
	name = name_of_deleted(growing->accounts, &record.uuid, &node.type);
	return add_node(growing, &node, name, &record.uuid, &at, err);
}

static int grow_pool(struct coppice *coppice, struct growing *growing, struct pool_entry *entry,
		     bool is_exact, struct coppice_error *err)
{
	_cleanup_(accounts_done) struct accounts accounts = { 0 };
	struct coppice_node node = { .type = COPPICE_NODE_POOL, .parent = SIZE_MAX };
	size_t pool;
	int r = accounts_read(coppice, entry, is_exact, &accounts, err);

	if (r < 0)
		return r;
	growing->accounts = &accounts;
	growing->first = growing->n;
	growing->n_index = 0;
	r = add_node(growing, &node, entry->name, &entry->uuid, &pool, err);
	if (r == COPPICE_OK)
		r = add_living(growing, pool, err);
	if (r == COPPICE_OK)
		r = hang(growing, pool, err);
	if (r == COPPICE_OK)
		r = entry->driver->pinned(entry->pool, set_pinned, growing, err);
	free(growing->index);
	growing->index = NULL;
	growing->n_index = 0;
	return r;
}

/* ---- in order: parents before children, siblings by type and name ---- */

/* For qsort(), which hands nothing through to its comparison. */
static __thread const struct growing_node *sort_base;

static int compare_siblings(const void *a, const void *b)
{
	const struct coppice_node *x = &sort_base[*(const size_t *)a].node;
	const struct coppice_node *y = &sort_base[*(const size_t *)b].node;

	if (x->parent != y->parent)
		return x->parent + 1 < y->parent + 1 ? -1 : 1; /* SIZE_MAX first */
	if (x->type != y->type)
		return x->type == COPPICE_NODE_SNAPSHOT || x->type < y->type ? -1 : 1;
	return natural_compare(x->name, y->name);
}

struct ordering {
	const struct growing *growing;
	const size_t *sorted; /* nodes by parent */
	struct coppice_tree *tree;
};

/* First of the nodes that have this parent. */
static size_t first_child(const struct ordering *ordering, size_t parent)
{
	size_t low = 0, high = ordering->growing->n;

	while (low < high) {
		size_t middle = (low + high) / 2;
		size_t of = ordering->growing->nodes[ordering->sorted[middle]].node.parent;

		if (of + 1 < parent + 1)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* As deep as clones of clones of clones are; the lineage bounds it. */
static void put_children(struct ordering *ordering, size_t parent, size_t new_parent)
{
	for (size_t i = first_child(ordering, parent); i < ordering->growing->n; i++) {
		size_t at = ordering->sorted[i];
		struct growing_node *node = &ordering->growing->nodes[at];
		size_t placed;

		if (node->node.parent != parent)
			return;
		placed = ordering->tree->n++;
		ordering->tree->node[placed] = node->node;
		ordering->tree->node[placed].parent = new_parent;
		put_children(ordering, at, placed);
	}
}

static int put_in_order(struct growing *growing, struct coppice_tree *ret,
			struct coppice_error *err)
{
	_cleanup_(freep) size_t *sorted = calloc(growing->n ? growing->n : 1, sizeof(*sorted));
	struct coppice_tree tree = { 0 };
	struct ordering ordering = { .growing = growing, .sorted = sorted, .tree = &tree };

	tree.node = calloc(growing->n ? growing->n : 1, sizeof(*tree.node));
	if (!sorted || !tree.node) {
		free(tree.node);
		return fail_memory(err);
	}
	for (size_t i = 0; i < growing->n; i++)
		sorted[i] = i;
	sort_base = growing->nodes;
	if (growing->n)
		qsort(sorted, growing->n, sizeof(*sorted), compare_siblings);
	put_children(&ordering, SIZE_MAX, SIZE_MAX);
	*ret = tree;
	return COPPICE_OK;
}

int coppice_tree_get(struct coppice *coppice, const char *pool, bool is_exact,
		     struct coppice_tree *ret, struct coppice_error *err)
{
	struct growing growing = { 0 };
	struct pool_entry *only = NULL;
	int r = COPPICE_OK;

	if (pool)
		r = pools_find(coppice, pool, &only, err);
	if (r == COPPICE_OK && only)
		r = pools_open(coppice, only, err);
	if (r == COPPICE_OK && !only)
		pools_open_all(coppice);
	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++)
		if (coppice->pools[i]->pool && (!only || coppice->pools[i] == only))
			r = grow_pool(coppice, &growing, coppice->pools[i], is_exact, err);
	if (r == COPPICE_OK)
		r = put_in_order(&growing, ret, err);
	for (size_t i = 0; i < growing.n && r < 0; i++)
		free(growing.nodes[i].node.name);
	free(growing.nodes);
	return r;
}
