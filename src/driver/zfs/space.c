/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What volumes take. ZFS charges a block to the dataset that it was born in, until it is
 * free: "used" of a clone begins at nothing and is exactly what it wrote and still holds,
 * with its snapshots; so it is the account that the core asks for. What nobody stands on,
 * its deletion frees. Of a deleted volume that others stand on, it is what is pinned.
 */
#include "driver/zfs/zfs.h"

#include <jansson.h>
#include <limits.h>
#include <string.h>

/* A volume or tombstone by the uuid in its record. */
struct known {
	struct uuid uuid;
	const struct dataset *dataset;
	bool is_deleted;
};

static int compare_known(const void *a, const void *b)
{
	return strcmp(((const struct known *)a)->uuid.text, ((const struct known *)b)->uuid.text);
}

/* The volume itself before what was live of it once, and others stand on. */
static int compare_known_and_state(const void *a, const void *b)
{
	const struct known *x = a, *y = b;
	int by_uuid = compare_known(a, b);

	return by_uuid ? by_uuid : (int)x->is_deleted - (int)y->is_deleted;
}

static bool uuid_of_record(const char *text, struct uuid *ret)
{
	json_t *record = json_loads(text, 0, NULL);
	const char *uuid = json_string_value(json_object_get(record, "uuid"));
	bool is_one = uuid && uuid_parse(uuid, ret);

	json_decref(record);
	return is_one;
}

/* ROOT/containers/NAME or ROOT/deleted/containers/UUID; what lies below has the record of that. */
static bool is_account(const struct zfs_pool *zfs, const struct dataset *dataset)
{
	const char *rest = dataset->name + strlen(zfs->root);
	size_t depth = 0;

	for (const char *c = rest; *c; c++)
		depth += *c == '/';
	return !dataset->is_snapshot && dataset->record &&
	       depth == (strncmp(rest, "/deleted/", 9) == 0 ? 3 : 2);
}

static bool is_users_snapshot(const struct zfs_pool *zfs, const struct dataset *dataset)
{
	return dataset->is_snapshot && dataset->record && strstr(dataset->name, "@snapshot-") &&
	       strncmp(dataset->name + strlen(zfs->root), "/deleted/", 9) != 0;
}

static size_t collect(const struct zfs_pool *zfs, const struct listing *listing,
		      struct known *known)
{
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < listing->n; i++) {
		const struct dataset *dataset = &listing->dataset[i];

		if (!is_account(zfs, dataset) && !is_users_snapshot(zfs, dataset))
			continue;
		if (!uuid_of_record(dataset->record, &known[n].uuid))
			continue;
		known[n].is_deleted =
			strncmp(dataset->name + strlen(zfs->root), "/deleted/", 9) == 0;
		known[n++].dataset = dataset;
	}
	qsort(known, n, sizeof(*known), compare_known_and_state);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || compare_known(&known[i], &known[kept - 1]) != 0)
			known[kept++] = known[i];
	return kept;
}

/* Does a clone stand on one of its snapshots, or of those below it? */
static bool is_stood_on(const struct listing *listing, const struct dataset *dataset)
{
	const struct dataset *end = listing->dataset + listing->n;

	if (dataset->n_clones > 0)
		return true;
	for (const struct dataset *d = dataset + 1;
	     d < end && strncmp(d->name, dataset->name, strlen(dataset->name)) == 0; d++)
		if (d->n_clones > 0 && zfs_is_within(d->name, dataset->name))
			return true;
	return false;
}

/*
 * Of those that it was cloned from, as far up as it goes, it may hold what nobody else has any
 * more: they are gone, or have overwritten it. Images that are there hold all of theirs.
 * A listing that was made between two renames may have one that is cloned from itself.
 */
static struct coppice_bytes unique_at_most(const struct listing *listing,
					   const struct zfs_pool *zfs,
					   const struct dataset *dataset)
{
	struct coppice_bytes bytes = { COPPICE_EXACT, dataset->used };
	size_t n_left = listing->n;

	if (is_stood_on(listing, dataset))
		bytes.known = COPPICE_AT_MOST;
	for (const struct dataset *at = dataset; at && at->origin;) {
		char name[DATASET_MAX];
		struct volume_ref ref;

		if (n_left-- == 0)
			return (struct coppice_bytes){ 0 };
		(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(at->origin, "@"),
			       at->origin);
		at = listing_find(listing, name);
		if (at && zfs_name_parse(zfs, name, &ref) && ref.kind == VOLUME_IMAGE)
			continue;
		if (at && zfs_is_within(name, dataset->name))
			continue; /* in its own figure already */
		bytes.known = at ? COPPICE_AT_MOST : COPPICE_UNKNOWN;
		bytes.bytes += at ? at->used : 0;
	}
	return bytes;
}

int zfs_usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
	      struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(listing_done) struct listing own = { 0 };
	_cleanup_(freep) struct known *known = NULL;
	const struct listing *listing;
	size_t n_known;
	int r;

	for (size_t i = 0; i < n; i++)
		ret[i] = (struct volume_usage){ 0 };
	r = zfs_look(zfs, &own, &listing, err);
	if (r < 0)
		return r;
	known = calloc(listing->n + 1, sizeof(*known));
	if (!known)
		return fail_memory(err);
	n_known = collect(zfs, listing, known);
	for (size_t i = 0; i < n; i++) {
		struct known wanted = { .uuid = groups[i] };
		const struct known *found =
			bsearch(&wanted, known, n_known, sizeof(wanted), compare_known);

		if (!found)
			continue;
		ret[i].refers = (struct coppice_bytes){ COPPICE_EXACT, found->dataset->referenced };
		if (found->dataset->is_snapshot)
			continue;
		ret[i].written = (struct coppice_bytes){ COPPICE_EXACT, found->dataset->used };
		ret[i].alone = found->dataset->by_dataset;
		ret[i].unique = ret[i].written;
		/* What somebody promoted has been charged with what others made, and they not. */
		if (!found->is_deleted &&
		    dataset_has_readonly(listing, found->dataset) != (refs[i].kind == VOLUME_IMAGE))
			ret[i].written = ret[i].unique = (struct coppice_bytes){ 0 };
		else
			ret[i].unique = unique_at_most(listing, zfs, found->dataset);
	}
	return COPPICE_OK;
}
