/* SPDX-License-Identifier: Apache-2.0 */
/* Listing instances and images: from the catalog, with the engines' figures. */
#include "core/accounts.h"

#include <fnmatch.h>
#include <string.h>

#include "base/text.h"
#include "core/instances.h"

/* ---- instances ---- */

static void instance_done(struct coppice_instance *instance)
{
	free(instance->name);
	free(instance->kind);
	free(instance->state);
	free(instance->pool);
	free(instance->uuid);
	free(instance->image);
	free(instance->image_name);
	free(instance->origin);
	for (size_t i = 0; i < instance->n_snapshots && instance->snapshot; i++)
		free(instance->snapshot[i].name);
	free(instance->snapshot);
	for (size_t i = 0; i < instance->n_nested; i++)
		free(instance->nested[i]);
	free(instance->nested);
	settings_done(&instance->config);
}

void coppice_instance_list_free(struct coppice_instance_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		instance_done(&list->instance[i]);
	free(list->instance);
	*list = (struct coppice_instance_list){ 0 };
}

struct listing {
	struct coppice *coppice;
	const char *pattern;
	const char *exact_name; /* to the letter; or NULL */
	unsigned kinds;
	unsigned detail;
	struct coppice_instance_list list;
	size_t capacity;
	struct uuid *uuids;  /* of each, for the engines */
	bool is_in;          /* the rows of snapshots that come belong to one that is listed */
	char last_image[65]; /* one answer kept: most rows have the same image */
	bool last_is_deleted;
	char last_name[256];
};

static char *dup_or_null(const char *text)
{
	return text && *text ? strdup(text) : NULL;
}

static int note_any(void *user, const struct catalog_image *row, struct coppice_error *err)
{
	*(bool *)user = false;
	return COPPICE_OK;
}

/* What an image is called now: its first alias, or what it was called when it was cloned. */
static int look_up_image(struct listing *listing, const char *fingerprint, const char *name,
			 struct coppice_error *err)
{
	bool is_deleted = true;
	int r;

	if (strcmp(listing->last_image, fingerprint) == 0 && listing->last_image[0])
		return COPPICE_OK;
	r = catalog_images(listing->coppice->catalog, fingerprint, note_any, &is_deleted, err);
	if (r < 0)
		return r;
	(void)snprintf(listing->last_image, sizeof(listing->last_image), "%s", fingerprint);
	listing->last_is_deleted = is_deleted;
	(void)snprintf(listing->last_name, sizeof(listing->last_name),
		       strcmp(name, fingerprint) == 0 ? "%.12s" : "%s", name);
	return COPPICE_OK;
}

static int add_snapshot(struct coppice_instance *instance, const struct catalog_volume *row,
			unsigned detail, struct coppice_error *err)
{
	struct coppice_snapshot *more;

	if (!(detail & COPPICE_DETAIL_SNAPSHOTS)) {
		instance->n_snapshots++;
		return COPPICE_OK;
	}
	more = reallocarray(instance->snapshot, instance->n_snapshots + 1, sizeof(*more));
	if (!more)
		return fail_memory(err);
	instance->snapshot = more;
	more[instance->n_snapshots].created_ns = row->created_ns;
	more[instance->n_snapshots].name = strdup(row->snapshot);
	if (!more[instance->n_snapshots].name)
		return fail_memory(err);
	instance->n_snapshots++;
	return COPPICE_OK;
}

static int add_config(struct coppice_instance *instance, const char *text,
		      struct coppice_error *err)
{
	struct record record = { 0 };
	int r = record_parse(text, &record, err);

	if (r == COPPICE_OK)
		r = settings_copy(&instance->config, &record.config, err);
	if (r == COPPICE_OK && config_limit(&record.config))
		instance->limit =
			(struct coppice_bytes){ COPPICE_EXACT, config_limit(&record.config) };
	record_done(&record);
	return r;
}

static int grow(struct listing *listing, struct coppice_error *err)
{
	size_t capacity = listing->capacity ? 2 * listing->capacity : 16;
	struct coppice_instance *instances;
	struct uuid *uuids;

	if (listing->list.n < listing->capacity)
		return COPPICE_OK;
	instances = reallocarray(listing->list.instance, capacity, sizeof(*instances));
	if (instances)
		listing->list.instance = instances;
	uuids = reallocarray(listing->uuids, capacity, sizeof(*uuids));
	if (uuids)
		listing->uuids = uuids;
	if (!instances || !uuids)
		return fail_memory(err);
	listing->capacity = capacity;
	return COPPICE_OK;
}

static int add_instance(struct listing *listing, const struct catalog_volume *row,
			struct coppice_error *err)
{
	struct coppice_instance *instance;
	int r = grow(listing, err);

	if (r == COPPICE_OK && row->image[0])
		r = look_up_image(listing, row->image, row->image_name, err);
	if (r < 0)
		return r;
	(void)snprintf(listing->uuids[listing->list.n].text, UUID_TEXT_SIZE, "%s", row->uuid);
	instance = &listing->list.instance[listing->list.n++];
	*instance = (struct coppice_instance){
		.name = strdup(row->name),
		.kind = strdup(volume_kind_name((enum volume_kind)row->kind)),
		.state = strdup("STOPPED"),
		.pool = strdup(row->pool),
		.uuid = strdup(row->uuid),
		.image = dup_or_null(row->image),
		.image_name = row->image[0] ? strdup(listing->last_name) : NULL,
		.is_image_deleted = row->image[0] && listing->last_is_deleted,
		.origin = dup_or_null(row->origin),
		.created_ns = row->created_ns,
	};
	if (!instance->name || !instance->kind || !instance->state || !instance->pool ||
	    !instance->uuid)
		return fail_memory(err);
	return listing->detail & COPPICE_DETAIL_CONFIG ? add_config(instance, row->record, err)
						       : COPPICE_OK;
}

/* A volume's row comes before those of its snapshots. */
static int note_row(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct listing *listing = user;

	if (row->snapshot[0])
		return listing->is_in ? add_snapshot(&listing->list.instance[listing->list.n - 1],
						     row, listing->detail, err)
				      : COPPICE_OK;
	listing->is_in = !listing->pattern || fnmatch(listing->pattern, row->name, 0) == 0;
	return listing->is_in ? add_instance(listing, row, err) : COPPICE_OK;
}

/* The figures of all instances of one pool, in one question to its engine. */
static int fill_usage(struct listing *listing, struct pool_entry *entry, size_t first, size_t n,
		      struct coppice_error *err)
{
	_cleanup_(freep) struct volume_usage *usage = calloc(n ? n : 1, sizeof(*usage));
	_cleanup_(freep) struct volume_ref *refs = calloc(n ? n : 1, sizeof(*refs));
	bool is_exact = listing->detail & COPPICE_DETAIL_EXACT;
	int r;

	if (!usage || !refs)
		return fail_memory(err);
	for (size_t i = 0; i < n; i++) {
		(void)volume_kind_parse(listing->list.instance[first + i].kind, &refs[i].kind);
		(void)snprintf(refs[i].name.text, sizeof(refs[i].name.text), "%s",
			       listing->list.instance[first + i].name);
	}
	r = entry->driver->usage(entry->pool, refs, &listing->uuids[first], usage, n, is_exact,
				 err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		listing->list.instance[first + i].written = usage[i].written;
		listing->list.instance[first + i].refers = usage[i].refers;
		listing->list.instance[first + i].unique = usage[i].unique;
	}
	return r;
}

static int compare_instances(const void *a, const void *b)
{
	const struct coppice_instance *x = a, *y = b;

	return natural_compare(x->name, y->name);
}

static int compare_snapshots(const void *a, const void *b)
{
	const struct coppice_snapshot *x = a, *y = b;

	if (x->created_ns != y->created_ns)
		return x->created_ns < y->created_ns ? -1 : 1;
	return natural_compare(x->name, y->name);
}

static void sort_list(struct coppice_instance_list *list)
{
	if (list->n)
		qsort(list->instance, list->n, sizeof(*list->instance), compare_instances);
	for (size_t i = 0; i < list->n; i++)
		if (list->instance[i].snapshot)
			qsort(list->instance[i].snapshot, list->instance[i].n_snapshots,
			      sizeof(*list->instance[i].snapshot), compare_snapshots);
}

static int list_pool(struct listing *listing, struct pool_entry *entry, struct coppice_error *err)
{
	struct catalog_query query = { .pool = entry->name,
				       .kinds = listing->kinds,
				       .name = listing->exact_name };
	size_t first = listing->list.n;
	int r;

	listing->is_in = false;
	r = catalog_volumes(listing->coppice->catalog, &query, note_row, listing, err);
	/* A pool that could not be opened is listed as it was last known, without figures. */
	if (r == COPPICE_OK && entry->pool && listing->list.n > first)
		r = fill_usage(listing, entry, first, listing->list.n - first, err);
	return r;
}

/* ---- what is left out ---- */

#define NAMED_MAX 5 /* in one line for people */

struct leaving_out {
	const char *pattern;
	struct text names;
	size_t n;
};

static int note_left_out(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct leaving_out *leaving_out = user;
	char name[VOLUME_REF_TEXT_MAX];

	if (found->ref.kind == VOLUME_IMAGE || !volume_is_left_out(found) ||
	    (leaving_out->pattern && fnmatch(leaving_out->pattern, found->ref.name.text, 0) != 0))
		return COPPICE_OK;
	if (leaving_out->n++ < NAMED_MAX)
		text_add(&leaving_out->names, "%s'%s'", leaving_out->n > 1 ? ", " : "",
			 volume_ref_format(&found->ref, name));
	return COPPICE_OK;
}

/*
 * What is damaged is in no catalog; that there was something is. What it was is asked of the
 * pool, so what was mended or deleted since is not told.
 */
static void tell_left_out(struct coppice *coppice, struct pool_entry *entry, const char *pattern)
{
	struct leaving_out leaving_out = { .pattern = pattern, .names = TEXT_INIT };
	struct coppice_error ignored;
	uint64_t n = 0;

	if (!entry->pool || catalog_left_out(coppice, entry, &n, &ignored) < 0 || n == 0)
		return;
	if (entry->driver->scan(entry->pool, note_left_out, &leaving_out, &ignored) == COPPICE_OK &&
	    leaving_out.names.data)
		notice(coppice, "pool '%s': left out, as damaged: %s%s; see: coppice check %s",
		       entry->name, leaving_out.names.data,
		       leaving_out.n > NAMED_MAX ? " and others" : "", entry->name);
	text_done(&leaving_out.names);
}

int coppice_instance_list(struct coppice *coppice, const char *pattern, const char *pool,
			  unsigned detail, struct coppice_instance_list *ret,
			  struct coppice_error *err)
{
	struct listing listing = {
		.coppice = coppice, .pattern = pattern, .kinds = VOLUME_INSTANCES, .detail = detail
	};
	struct pool_entry *only = NULL;
	int r = images_refresh(coppice, err);

	if (r == COPPICE_OK && pool)
		r = pools_find(coppice, pool, &only, err);
	if (r == COPPICE_OK && only)
		r = pools_look_begin(coppice, only, err);
	if (r == COPPICE_OK && !only)
		pools_look_begin_all(coppice);
	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++)
		if (!only || coppice->pools[i] == only) {
			r = list_pool(&listing, coppice->pools[i], err);
			if (r == COPPICE_OK)
				tell_left_out(coppice, coppice->pools[i], pattern);
		}
	pools_look_end(coppice);
	free(listing.uuids);
	if (r < 0) {
		coppice_instance_list_free(&listing.list);
		return r;
	}
	sort_list(&listing.list);
	*ret = listing.list;
	return COPPICE_OK;
}

/* What it refers to, bounded by the accounts of those it was cloned from. */
static int fill_bounds(struct coppice *coppice, const struct volume *volume,
		       struct coppice_instance *instance, struct coppice_error *err)
{
	_cleanup_(accounts_done) struct accounts accounts = { 0 };
	int r;

	if (instance->refers.known && instance->unique.known) /* for all accounts all is read */
		return COPPICE_OK;
	r = accounts_read(coppice, volume->entry, false, &accounts, err);
	for (size_t i = 0; i < accounts.n && r == COPPICE_OK; i++) {
		const struct accounted *found = &accounts.volume[i];

		if (strcmp(found->record.uuid.text, instance->uuid) != 0)
			continue;
		if (!instance->refers.known)
			instance->refers = found->refers;
		if (!instance->unique.known)
			instance->unique = found->unique;
	}
	return r;
}

int coppice_instance_get(struct coppice *coppice, const char *name, unsigned detail,
			 struct coppice_instance_list *ret, struct coppice_error *err)
{
	struct listing listing = { .coppice = coppice,
				   .exact_name = name,
				   .detail = detail | COPPICE_DETAIL_SNAPSHOTS |
					     COPPICE_DETAIL_CONFIG };
	_cleanup_(volume_done) struct volume volume = { 0 };
	struct volume_ref ref = { .kind = VOLUME_CONTAINER };
	int r;

	r = instance_name_parse(name, &ref.name, err);
	if (r == COPPICE_OK)
		r = images_refresh(coppice, err);
	if (r == COPPICE_OK)
		r = volume_look(coppice, &ref, &volume, err);
	listing.kinds = VOLUME_KIND_BIT(volume.ref.kind);
	if (r == COPPICE_OK)
		r = list_pool(&listing, volume.entry, err);
	free(listing.uuids);
	if (r == COPPICE_OK && listing.list.n != 1)
		r = fail(err, COPPICE_NOT_FOUND, "no instance '%s'", name);
	if (r == COPPICE_OK)
		r = fill_bounds(coppice, &volume, &listing.list.instance[0], err);
	if (r == COPPICE_OK)
		r = nested_list(volume.entry, &volume.ref, &listing.list.instance[0].nested,
				&listing.list.instance[0].n_nested, err);
	if (r < 0) {
		coppice_instance_list_free(&listing.list);
		return r;
	}
	sort_list(&listing.list);
	*ret = listing.list;
	return COPPICE_OK;
}

/* ---- images ---- */

static void image_done(struct coppice_image *image)
{
	free(image->fingerprint);
	free(image->description);
	free(image->architecture);
	for (size_t i = 0; i < image->n_aliases; i++)
		free(image->alias[i]);
	free(image->alias);
	for (size_t i = 0; i < image->n_pools; i++)
		free(image->pool[i]);
	free(image->pool);
	settings_done(&image->properties);
}

void coppice_image_list_free(struct coppice_image_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		image_done(&list->image[i]);
	free(list->image);
	*list = (struct coppice_image_list){ 0 };
}

static int add_pool(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct coppice_image *image = user;
	char **more = reallocarray(image->pool, image->n_pools + 1, sizeof(*more));

	if (!more)
		return fail_memory(err);
	image->pool = more;
	more[image->n_pools] = strdup(row->pool);
	if (!more[image->n_pools])
		return fail_memory(err);
	image->n_pools++;
	return COPPICE_OK;
}

struct image_listing {
	struct coppice *coppice;
	struct coppice_image_list list;
};

/* What the record owns becomes the caller's. */
static int add_image(void *user, const struct catalog_image *row, struct coppice_error *err)
{
	struct image_listing *listing = user;
	_cleanup_(image_record_done) struct image_record record = { 0 };
	struct coppice_image *more, *image;
	int r = image_record_parse(row->record, &record, err);

	if (r < 0)
		return r;
	more = reallocarray(listing->list.image, listing->list.n + 1, sizeof(*more));
	if (!more)
		return fail_memory(err);
	listing->list.image = more;
	image = &more[listing->list.n++];
	*image = (struct coppice_image){
		.fingerprint = strdup(row->fingerprint),
		.description = take_ptr(&record.description),
		.architecture = take_ptr(&record.architecture),
		.size_bytes = row->has_bytes ? record.size_bytes : 0,
		.rootfs_size_bytes = row->has_bytes ? record.rootfs_size_bytes : 0,
		.has_bytes = row->has_bytes,
		.created_ns = record.created_ns,
		.imported_ns = record.imported_ns,
		.n_aliases = record.n_aliases,
		.alias = take_ptr(&record.alias),
		.properties = record.properties,
	};
	record.n_aliases = 0;
	record.properties = (struct coppice_settings){ 0 };
	return image->fingerprint ? catalog_volumes(listing->coppice->catalog,
						    &(struct catalog_query){
							    .kinds = VOLUME_KIND_BIT(VOLUME_IMAGE),
							    .name = row->fingerprint,
							    .no_snapshots = true },
						    add_pool, image, err)
				  : fail_memory(err);
}

static int compare_images(const void *a, const void *b)
{
	const struct coppice_image *x = a, *y = b;

	if (x->n_aliases && y->n_aliases)
		return natural_compare(x->alias[0], y->alias[0]);
	if (x->n_aliases || y->n_aliases)
		return x->n_aliases ? -1 : 1;
	return strcmp(x->fingerprint, y->fingerprint);
}

static int list_images(struct coppice *coppice, const char *prefix, struct coppice_image_list *ret,
		       struct coppice_error *err)
{
	struct image_listing listing = { .coppice = coppice };
	int r = catalog_images(coppice->catalog, prefix, add_image, &listing, err);

	if (r < 0) {
		coppice_image_list_free(&listing.list);
		return r;
	}
	if (listing.list.n)
		qsort(listing.list.image, listing.list.n, sizeof(*listing.list.image),
		      compare_images);
	*ret = listing.list;
	return COPPICE_OK;
}

int coppice_image_list(struct coppice *coppice, struct coppice_image_list *ret,
		       struct coppice_error *err)
{
	int r = images_refresh(coppice, err);

	if (r < 0)
		return r;
	pools_open_all(coppice);
	return list_images(coppice, "", ret, err);
}

int coppice_image_get(struct coppice *coppice, const char *image, struct coppice_image_list *ret,
		      struct coppice_error *err)
{
	struct volume_name fingerprint;
	int r;

	pools_open_all(coppice);
	r = image_resolve(coppice, image, &fingerprint, err);
	return r < 0 ? r : list_images(coppice, fingerprint.text, ret, err);
}
