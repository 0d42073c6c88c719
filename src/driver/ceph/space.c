/* SPDX-License-Identifier: Apache-2.0 */
/* Figures: of the pool, as the cluster has them; of volumes, by RBD's maps of objects. */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/text.h"

static struct coppice_bytes exact(json_t *stats, const char *key)
{
	return (struct coppice_bytes){ COPPICE_EXACT,
				       (uint64_t)json_integer_value(json_object_get(stats, key)) };
}

/* Without a manager all of these are zero: then nothing is known. */
int ceph_pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(freep) char *out = NULL;
	json_t *json, *one;
	size_t i;
	int r = ceph_command(ceph, "{\"prefix\":\"df\",\"format\":\"json\"}", &out, err);

	*ret = (struct pool_space){ 0 };
	if (r < 0)
		return r;
	json = json_loads(out, 0, NULL);
	json_array_foreach (json_object_get(json, "pools"), i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		json_t *stats = json_object_get(one, "stats");

		if (!name || strcmp(name, ceph->osd_pool) != 0 ||
		    exact(stats, "max_avail").bytes == 0)
			continue;
		ret->used = exact(stats, "stored");
		ret->free = exact(stats, "max_avail");
		ret->total =
			(struct coppice_bytes){ COPPICE_EXACT, ret->used.bytes + ret->free.bytes };
	}
	json_decref(json);
	return COPPICE_OK;
}

/* ---- maps of objects ----
 *
 * RBD keeps a map of the objects of each image, and of each snapshot: whether one is there, and
 * whether it is another than that of the snapshot before. An object is counted with all of the
 * bytes that it may have, as `rbd du` does.
 */

enum object_state {
	OBJECT_NONE,
	OBJECT_EXISTS, /* and is another than the snapshot before has */
	OBJECT_PENDING,
	OBJECT_CLEAN,
};

struct map {
	const struct rbd *rbd;
	uint64_t snap_id; /* 0: of the image itself */
	uint64_t n;       /* objects */
	char *bits;       /* two of each; NULL: it is not known */
};

struct counting {
	struct ceph_pool *ceph;
	struct rbd_list
		*lists[3]; /* what is asked of, what is in the trash, what else they stand on */
	const struct rbd **by_id; /* all of them */
	size_t n_by_id;
	struct map *map; /* sorted once all are there */
	size_t n;
};

#define IN_FLIGHT          64
#define HEADER_BYTES       18 /* a length, a version, an older one, a length, the number of objects */
#define OBJECT_MAP_INVALID (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID)

static void counting_done(struct counting *counting)
{
	for (size_t i = 0; i < counting->n; i++)
		free(counting->map[i].bits);
	free(counting->map);
	free((void *)counting->by_id);
}

static int compare_maps(const void *a, const void *b)
{
	const struct map *x = a, *y = b;

	if (x->rbd != y->rbd)
		return x->rbd < y->rbd ? -1 : 1;
	return x->snap_id < y->snap_id ? -1 : x->snap_id > y->snap_id;
}

static struct map *map_find(const struct counting *counting, const struct rbd *rbd,
			    uint64_t snap_id)
{
	struct map key = { .rbd = rbd, .snap_id = snap_id };

	return counting->n ? bsearch(&key, counting->map, counting->n, sizeof(key), compare_maps)
			   : NULL;
}

/* Each once: they are of an image and its snapshots. Grows by doubling. */
static int map_add(struct counting *counting, const struct rbd *rbd, uint64_t snap_id,
		   uint64_t size_bytes)
{
	if ((counting->n & (counting->n - 1)) == 0) {
		size_t capacity = counting->n ? 2 * counting->n : 16;
		struct map *more = reallocarray(counting->map, capacity, sizeof(*more));

		if (!more)
			return -ENOMEM;
		counting->map = more;
	}
	counting->map[counting->n++] = (struct map){
		.rbd = rbd,
		.snap_id = snap_id,
		.n = (size_bytes + (UINT64_C(1) << rbd->order) - 1) >> rbd->order,
	};
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp((*(const struct rbd *const *)a)->id, (*(const struct rbd *const *)b)->id);
}

static const struct rbd *find_id(const struct counting *counting, const char *id)
{
	struct rbd key = { .id = (char *)(uintptr_t)id };
	const struct rbd *key_at = &key, **found;

	found = counting->n_by_id ? bsearch(&key_at, counting->by_id, counting->n_by_id,
					    sizeof(*counting->by_id), compare_ids)
				  : NULL;
	return found ? *found : NULL;
}

static int sort_ids(struct counting *counting)
{
	size_t n = 0;

	for (size_t k = 0; k < ARRAY_SIZE(counting->lists); k++)
		n += counting->lists[k]->n;
	free((void *)counting->by_id);
	counting->n_by_id = 0;
	counting->by_id = calloc(n + 1, sizeof(*counting->by_id));
	if (!counting->by_id)
		return -ENOMEM;
	for (size_t k = 0; k < ARRAY_SIZE(counting->lists); k++)
		for (size_t i = 0; i < counting->lists[k]->n; i++)
			counting->by_id[counting->n_by_id++] = &counting->lists[k]->rbd[i];
	qsort((void *)counting->by_id, n, sizeof(*counting->by_id), compare_ids);
	return 0;
}

static const struct rbd_snap *find_snap(const struct rbd *rbd, uint64_t snap_id)
{
	for (size_t i = 0; i < rbd->n_snaps; i++)
		if (rbd->snap[i].id == snap_id)
			return &rbd->snap[i];
	return NULL;
}

/* The maps of an image, and of its snapshots. */
static int want_maps(struct counting *counting, const struct rbd *rbd)
{
	int r = map_add(counting, rbd, 0, rbd->size_bytes);

	for (size_t i = 0; i < rbd->n_snaps && r == 0; i++)
		r = map_add(counting, rbd, rbd->snap[i].id, rbd->snap[i].size_bytes);
	return r;
}

struct reading {
	rados_completion_t completion;
	char *data;
	size_t size;
};

static bool is_map_kept(const struct map *map)
{
	const struct rbd_snap *snap = map->snap_id ? find_snap(map->rbd, map->snap_id) : NULL;

	if (!(map->rbd->features & RBD_FEATURE_OBJECT_MAP) ||
	    !(map->rbd->features & RBD_FEATURE_FAST_DIFF))
		return false;
	return map->snap_id ? snap && snap->is_counted : !(map->rbd->flags & OBJECT_MAP_INVALID);
}

static int reading_begin(struct counting *counting, const struct map *map, struct reading *reading)
{
	char object[RBD_ID_MAX + 40];
	int r;

	*reading = (struct reading){ .size = HEADER_BYTES + (map->n + 3) / 4 };
	if (!is_map_kept(map))
		return 0;
	(void)snprintf(object, sizeof(object), "rbd_object_map.%s", map->rbd->id);
	if (map->snap_id)
		(void)snprintf(object, sizeof(object), "rbd_object_map.%s.%016llx", map->rbd->id,
			       (unsigned long long)map->snap_id);
	reading->data = malloc(reading->size);
	if (!reading->data)
		return -ENOMEM;
	r = rados_aio_create_completion2(NULL, NULL, &reading->completion);
	return r < 0 ? r
		     : rados_aio_read(counting->ceph->io, object, reading->completion,
				      reading->data, reading->size, 0);
}

static uint64_t number_of(const char *bytes)
{
	uint64_t number = 0;

	for (size_t i = 8; i-- > 0;)
		number = number << 8 | (unsigned char)bytes[i];
	return number;
}

/* One that is not there, or not as it should be, is not known. */
static int reading_end(struct reading *reading, struct map *map)
{
	int r = 0;

	if (reading->completion) {
		(void)rados_aio_wait_for_complete(reading->completion);
		r = rados_aio_get_return_value(reading->completion);
		rados_aio_release(reading->completion);
	}
	if (r == (int)reading->size && number_of(reading->data + HEADER_BYTES - 8) == map->n) {
		map->bits = reading->data;
		reading->data = NULL;
	}
	free(reading->data);
	return r < 0 && r != -ENOENT ? r : 0;
}

static int read_maps(struct counting *counting, struct coppice_error *err)
{
	_cleanup_(freep) struct reading *reading = calloc(IN_FLIGHT, sizeof(*reading));
	size_t begun = 0;
	int r = 0, ended;

	if (!reading)
		return fail_memory(err);
	for (size_t done = 0; done < counting->n; done++) {
		for (; r == 0 && begun < counting->n && begun < done + IN_FLIGHT; begun++)
			r = reading_begin(counting, &counting->map[begun],
					  &reading[begun % IN_FLIGHT]);
		if (done >= begun)
			break;
		ended = reading_end(&reading[done % IN_FLIGHT], &counting->map[done]);
		r = r < 0 ? r : ended;
	}
	return r < 0 ? fail_ceph(counting->ceph, r, err, "cannot read maps of objects in '%s'",
				 counting->ceph->osd_pool)
		     : COPPICE_OK;
}

static enum object_state state_of(const struct map *map, uint64_t i)
{
	if (i >= map->n)
		return OBJECT_NONE;
	return (enum object_state)(map->bits[HEADER_BYTES + i / 4] >> (3 - i % 4) * 2 & 3);
}

/* ---- figures ---- */

/* Objects that are another than the snapshot before has; false: it is not known. */
static bool add_own(const struct counting *counting, const struct rbd *rbd, uint64_t snap_id,
		    uint64_t *bytes)
{
	const struct map *map = map_find(counting, rbd, snap_id);

	if (!map || !map->bits)
		return false;
	for (uint64_t i = 0; i < map->n; i++)
		if (state_of(map, i) == OBJECT_EXISTS)
			*bytes += UINT64_C(1) << rbd->order;
	return true;
}

/* An image, or a snapshot, and what it was cloned from, one behind the other. */
#define CHAIN_MAX 64

struct chain {
	const struct map *map[CHAIN_MAX];
	uint64_t n_objects[CHAIN_MAX]; /* from here on nothing of what is behind is seen */
	size_t n;
};

/* False: one of them is not known. */
static bool chain_find(const struct counting *counting, const struct rbd *rbd, uint64_t snap_id,
		       struct chain *ret)
{
	unsigned order = rbd->order;

	for (ret->n = 0; ret->n < CHAIN_MAX;
	     snap_id = rbd->parent.snap_id, rbd = find_id(counting, rbd->parent.id)) {
		const struct map *map = rbd ? map_find(counting, rbd, snap_id) : NULL;

		if (!map || !map->bits || rbd->order != order)
			return false;
		ret->map[ret->n] = map;
		ret->n_objects[ret->n++] =
			(rbd->parent.overlap_bytes + (UINT64_C(1) << order) - 1) >> order;
		if (!rbd->parent.id[0])
			return true;
	}
	return false;
}

static bool has_object(const struct chain *chain, uint64_t i)
{
	for (size_t k = 0; k < chain->n; k++) {
		if (state_of(chain->map[k], i) != OBJECT_NONE)
			return true;
		if (i >= chain->n_objects[k])
			return false;
	}
	return false;
}

static struct coppice_bytes refers_of(const struct counting *counting, const struct rbd *rbd,
				      uint64_t snap_id)
{
	struct chain chain;
	uint64_t n = 0;

	if (!chain_find(counting, rbd, snap_id, &chain))
		return (struct coppice_bytes){ 0 };
	for (uint64_t i = 0; i < chain.map[0]->n; i++)
		n += has_object(&chain, i);
	return (struct coppice_bytes){ COPPICE_EXACT, n << rbd->order };
}

/* All that an image has for itself, with its snapshots. */
static bool add_image(const struct counting *counting, const struct rbd *rbd, uint64_t *bytes)
{
	bool is_known = add_own(counting, rbd, 0, bytes);

	for (size_t i = 0; i < rbd->n_snaps; i++)
		is_known = is_known && add_own(counting, rbd, rbd->snap[i].id, bytes);
	return is_known;
}

/* What goes with the last that stands on it. */
static uint64_t freed_above(const struct counting *counting, const struct rbd *rbd)
{
	uint64_t bytes = 0;

	while (rbd->parent.id[0]) {
		rbd = find_id(counting, rbd->parent.id);
		if (!rbd || !rbd->is_in_trash || rbd_children_of(rbd) != 1 ||
		    !add_image(counting, rbd, &bytes))
			break;
	}
	return bytes;
}

/* A volume is its image, and those that keep snapshots of it. */
static void figures_of(const struct counting *counting, const struct rbd *volume,
		       struct volume_usage *ret)
{
	const struct rbd_list *listing = counting->lists[0];
	uint64_t written = 0, n_children = 0, alone = 0, above = 0;
	bool is_known = true;

	for (size_t i = 0; i < listing->n; i++) {
		const struct rbd *rbd = &listing->rbd[i], *parent;

		if (rbd != volume && rbd->volume != volume)
			continue;
		is_known = add_image(counting, rbd, &written) && is_known;
		n_children += rbd_children_of(rbd);
		parent = rbd->parent.id[0] ? find_id(counting, rbd->parent.id) : NULL;
		if (parent && (parent == volume || parent->volume == volume))
			n_children--; /* it goes, too */
		else
			above += freed_above(counting, rbd);
	}
	ret->refers = refers_of(counting, volume, 0);
	if (add_own(counting, volume, 0, &alone))
		ret->alone = (struct coppice_bytes){ COPPICE_EXACT, alone };
	if (!is_known)
		return;
	ret->written = (struct coppice_bytes){ COPPICE_EXACT, written };
	ret->unique = (struct coppice_bytes){ COPPICE_EXACT, n_children ? 0 : written + above };
}

static int count(struct counting *counting, struct coppice_error *err)
{
	int r = 0;

	for (size_t k = 0; k < ARRAY_SIZE(counting->lists); k++)
		for (size_t i = 0; i < counting->lists[k]->n && r == 0; i++)
			r = want_maps(counting, &counting->lists[k]->rbd[i]);
	if (r < 0)
		return fail_memory(err);
	if (counting->n > 0)
		qsort(counting->map, counting->n, sizeof(*counting->map), compare_maps);
	return read_maps(counting, err);
}

static const struct rbd *find_uuid(const struct rbd_list *listing, const struct uuid *uuid)
{
	for (size_t i = 0; i < listing->n; i++)
		if (!rbd_is_hidden(&listing->rbd[i]) &&
		    strcmp(listing->rbd[i].uuid.text, uuid->text) == 0)
			return &listing->rbd[i];
	return NULL;
}

/* What they were cloned from, and that from, as far as no list has it. */
static int read_ancestors(struct counting *counting, struct rbd_list *others,
			  struct coppice_error *err)
{
	bool is_all = false;
	int r = COPPICE_OK;

	while (r == COPPICE_OK && !is_all) {
		char id[RBD_ID_MAX] = "";

		if (sort_ids(counting) < 0)
			return fail_memory(err);
		for (size_t i = 0; i < counting->n_by_id && !id[0]; i++) {
			const char *parent = counting->by_id[i]->parent.id;

			if (parent[0] && !find_id(counting, parent))
				(void)snprintf(id, sizeof(id), "%s", parent);
		}
		is_all = !id[0];
		if (!is_all)
			r = rbd_listing_add(counting->ceph, others, id, err);
	}
	return r;
}

#define FEW 16 /* for so many not all of the pool is read */

/* Of more, all; so it is if that was read already. */
static int look(struct ceph_pool *ceph, const struct volume_ref *refs, size_t n,
		struct rbd_list *own, const struct rbd_list **ret, struct coppice_error *err)
{
	bool is_read = ceph->reading && !ceph->reading->asked, has_names = true;

	for (size_t i = 0; i < n && n <= FEW; i++)
		has_names = has_names && refs[i].name.text[0];
	if (is_read || n > FEW || !has_names)
		return ceph_look(ceph, own, ret, err);
	*ret = own;
	return rbd_listing_read_of(ceph, refs, n, own, err);
}

int ceph_usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
	       struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(rbd_listing_done) struct rbd_list own = { 0 }, trashed = { 0 }, others = { 0 };
	_cleanup_(counting_done) struct counting counting = { .ceph = ceph };
	const struct rbd_list *listing;
	int r = look(ceph, refs, n, &own, &listing, err);

	for (size_t i = 0; i < n; i++)
		ret[i] = (struct volume_usage){ 0 };
	if (r == COPPICE_OK)
		r = rbd_trash_read(ceph, &trashed, err);
	if (r < 0)
		return r;
	counting.lists[0] = (struct rbd_list *)(uintptr_t)listing;
	counting.lists[1] = &trashed;
	counting.lists[2] = &others;
	r = read_ancestors(&counting, &others, err);
	if (r == COPPICE_OK)
		r = count(&counting, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		const struct rbd *rbd = find_uuid(listing, &groups[i]);

		if (rbd)
			figures_of(&counting, rbd, &ret[i]);
	}
	return r;
}
