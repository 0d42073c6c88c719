/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading datasets: one zfs get for all that is needed of a pool or of a volume. It is
 * the form that zfs-fuse has as well (its zfs list gives no exact numbers):
 *
 *	tank/containers/c1	type	filesystem	-
 *	tank/containers/c1	origin	tank/images/FP@readonly	-
 *	tank/containers/c1	used	196608	-
 *	tank/containers/c1	coppice:record	{"uuid":"…"}	local
 *	tank/containers/c1@snapshot-s1	coppice:record	{"uuid":"…"}	local
 *
 * User properties are inherited, also by snapshots, so only local ones count.
 */
#include "driver/zfs/zfs.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "base/parallel.h"
#include "base/text.h"

#define PROPERTIES                                                                                 \
	"type,origin,used,usedbydataset,available,referenced,userrefs,refquota,quota,"             \
	"refreservation,reservation,canmount,createtxg," PROPERTY_RECORD "," PROPERTY_DRAFT        \
	"," PROPERTY_SWAP

#define HISTORY "type,origin,createtxg,guid"
#define RECORDS "type," PROPERTY_RECORD "," PROPERTY_DRAFT

void listing_done(struct listing *listing)
{
	free(listing->dataset);
	free(listing->text);
	*listing = (struct listing){ 0 };
}

/* Cut @line at tabs into exactly @n fields. */
static bool split(char *line, char *field[], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		field[i] = line;
		line = strchr(line, '\t');
		if (!line)
			return i == n - 1;
		if (i == n - 1)
			return false;
		*line++ = '\0';
	}
	return true;
}

static char *word_or_null(char *value)
{
	return strcmp(value, "-") == 0 || strcmp(value, "none") == 0 ? NULL : value;
}

/* By this name its file is looked for, so nothing else will do. */
static char *uuid_or_null(char *value)
{
	struct uuid ignored;

	return uuid_parse(value, &ignored) ? value : NULL;
}

static void set_property(struct dataset *dataset, const char *property, char *value)
{
	if (strcmp(property, "type") == 0)
		dataset->is_snapshot = strcmp(value, "snapshot") == 0;
	else if (strcmp(property, "canmount") == 0)
		dataset->is_never_mounted = strcmp(value, "off") == 0;
	else if (strcmp(property, "origin") == 0)
		dataset->origin = word_or_null(value);
	else if (strcmp(property, "used") == 0)
		dataset->used = strtoull(value, NULL, 10);
	else if (strcmp(property, "available") == 0)
		dataset->available = strtoull(value, NULL, 10);
	else if (strcmp(property, "referenced") == 0)
		dataset->referenced = strtoull(value, NULL, 10);
	else if (strcmp(property, "usedbydataset") == 0 && isdigit((unsigned char)value[0]))
		dataset->by_dataset =
			(struct coppice_bytes){ COPPICE_EXACT, strtoull(value, NULL, 10) };
	else if (strcmp(property, "createtxg") == 0)
		dataset->created_txg = strtoull(value, NULL, 10);
	else if (strcmp(property, "guid") == 0)
		dataset->guid = strtoull(value, NULL, 10);
	else if (strcmp(property, "userrefs") == 0)
		dataset->n_holds = strtoull(value, NULL, 10);
	else if (strcmp(property, PROPERTY_RECORD) == 0)
		dataset->record = word_or_null(value);
	else if (strcmp(property, PROPERTY_DRAFT) == 0)
		dataset->draft = uuid_or_null(value);
	else if (strcmp(property, PROPERTY_SWAP) == 0)
		dataset->swap = word_or_null(value);
	for (size_t i = 0; i < ZFS_LIMITS; i++)
		if (strcmp(property, zfs_limit_property[i]) == 0 && strcmp(value, "0") != 0)
			dataset->limits[i] = word_or_null(value);
}

static size_t count_lines(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct dataset *)a)->name, ((const struct dataset *)b)->name);
}

struct dataset *listing_find(const struct listing *listing, const char *name)
{
	struct dataset wanted = { .name = (char *)(uintptr_t)name };

	return listing->n ? bsearch(&wanted, listing->dataset, listing->n, sizeof(wanted),
				    compare_names)
			  : NULL;
}

static void count_clones(struct listing *listing)
{
	for (size_t i = 0; i < listing->n; i++) {
		struct dataset *origin = listing->dataset[i].origin
						 ? listing_find(listing, listing->dataset[i].origin)
						 : NULL;

		if (origin)
			origin->n_clones++;
	}
}

int listing_parse(char *text, struct listing *ret, struct coppice_error *err)
{
	struct listing listing = { .text = text };
	char *line = text, *field[4];

	listing.dataset = calloc(count_lines(text) + 1, sizeof(*listing.dataset));
	if (!listing.dataset) {
		free(text);
		return fail_memory(err);
	}
	while (*line) {
		char *end = strchr(line, '\n');
		struct dataset *last = listing.n ? &listing.dataset[listing.n - 1] : NULL;

		if (end)
			*end = '\0';
		if (!split(line, field, 4)) {
			listing_done(&listing);
			return fail(err, COPPICE_FAILED, "cannot understand what zfs get says");
		}
		if (!last || strcmp(last->name, field[0]) != 0) {
			last = &listing.dataset[listing.n++];
			last->name = field[0];
		}
		if (strcmp(field[3], "-") == 0 || strcmp(field[3], "local") == 0 ||
		    strcmp(field[3], "received") == 0)
			set_property(last, field[1], field[2]);
		line = end ? end + 1 : field[3] + strlen(field[3]);
	}
	/* '/' and '@' sort apart, but a parent is always a part of its children's names. */
	qsort(listing.dataset, listing.n, sizeof(*listing.dataset), compare_names);
	count_clones(&listing);
	*ret = listing;
	return COPPICE_OK;
}

/*
 * @depth: "-Hpr" with all below the targets, "-Hp" the targets alone. COPPICE_NOT_FOUND: one of
 * them is not there; *ret_text has the others.
 */
static int get_properties(const char *depth, const char *properties, const char *const targets[],
			  size_t n, char **ret_text, struct coppice_error *err)
{
	const char *const options[] = { "zfs",
					"get",
					depth,
					"-s",
					"local,received,none",
					"-o",
					"name,property,value,source",
					properties };
	_cleanup_(freep) const char **argv = calloc(ARRAY_SIZE(options) + n + 1, sizeof(*argv));

	*ret_text = NULL;
	if (!argv)
		return fail_memory(err);
	memcpy(argv, options, sizeof(options));
	memcpy(&argv[ARRAY_SIZE(options)], targets, n * sizeof(*targets));
	return zfs_run(argv, ret_text, err);
}

static int read_properties(const char *depth, const char *properties, const char *const targets[],
			   struct listing *ret, struct coppice_error *err)
{
	char *text;
	size_t n = 0;
	int r;

	while (targets[n])
		n++;
	r = get_properties(depth, properties, targets, n, &text, err);
	if (r < 0) {
		free(text);
		return r;
	}
	return listing_parse(text, ret, err);
}

/* Volumes by their names, divided among processes. */
struct reading {
	const char *const *targets;
	size_t n, n_each;
	char **text;
};

static int read_some(void *user, size_t i, struct coppice_error *err)
{
	struct reading *reading = user;
	size_t first = i * reading->n_each;
	size_t n = reading->n - first < reading->n_each ? reading->n - first : reading->n_each;
	int r = get_properties("-Hpr", PROPERTIES, reading->targets + first, n, &reading->text[i],
			       err);

	return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
}

/* Of fewer, another process takes longer than it saves. */
#define NAMES_EACH 16

static int read_targets(const char *const targets[], size_t n, struct listing *ret,
			struct coppice_error *err)
{
	struct reading reading = { .targets = targets, .n = n };
	_cleanup_(text_done) struct text all = TEXT_INIT;
	size_t n_chunks;
	char *text;
	int r;

	reading.n_each = (n + zfs_commands() - 1) / zfs_commands();
	reading.n_each = reading.n_each < NAMES_EACH ? NAMES_EACH : reading.n_each;
	reading.n_each = reading.n_each > ZFS_NAMES_MAX ? ZFS_NAMES_MAX : reading.n_each;
	n_chunks = (n + reading.n_each - 1) / reading.n_each;
	reading.text = calloc(n_chunks + 1, sizeof(*reading.text));
	if (!reading.text)
		return fail_memory(err);
	r = parallel_run(n_chunks, zfs_commands(), read_some, &reading, err);
	for (size_t i = 0; i < n_chunks; i++) {
		text_add(&all, "%s", reading.text[i] ? reading.text[i] : "");
		free(reading.text[i]);
	}
	free(reading.text);
	if (r < 0)
		return r;
	text = text_take(&all);
	return text ? listing_parse(text, ret, err) : fail_memory(err);
}

int listing_read_those(struct zfs_pool *zfs, const struct volume_ref *refs, size_t n,
		       struct listing *ret, struct coppice_error *err)
{
	_cleanup_(freep) char(*names)[DATASET_MAX] = calloc(n + 1, sizeof(*names));
	_cleanup_(freep) const char **targets = calloc(n + 1, sizeof(*targets));
	size_t n_targets = 0;

	if (!names || !targets)
		return fail_memory(err);
	/* What has the name of the one before it is another snapshot of that. */
	for (size_t i = 0; i < n; i++)
		if (i == 0 || refs[i].kind != refs[i - 1].kind ||
		    strcmp(refs[i].name.text, refs[i - 1].name.text) != 0)
			targets[n_targets++] = zfs_volume_name(zfs, &refs[i], names[i]);
	return read_targets(targets, n_targets, ret, err);
}

int listing_read(struct zfs_pool *zfs, const char *const targets[], struct listing *ret,
		 struct coppice_error *err)
{
	return read_properties("-Hpr", PROPERTIES, targets, ret, err);
}

static int read_all(struct zfs_pool *zfs, const char *properties, struct listing *ret,
		    struct coppice_error *err)
{
	int r = read_properties("-Hpr", properties, ZFS_ARGS(zfs->root), ret, err);

	return r == COPPICE_NOT_FOUND ? fail(err, COPPICE_UNAVAILABLE,
					     "the dataset '%s' is not there any more", zfs->root)
				      : r;
}

int listing_read_all(struct zfs_pool *zfs, struct listing *ret, struct coppice_error *err)
{
	return read_all(zfs, PROPERTIES, ret, err);
}

int listing_read_volumes(struct zfs_pool *zfs, struct listing *ret, struct coppice_error *err)
{
	char folder[VOLUME_KINDS][DATASET_MAX];
	const char *targets[VOLUME_KINDS + 1] = { NULL };

	for (size_t kind = 0; kind < VOLUME_KINDS; kind++) {
		(void)snprintf(folder[kind], DATASET_MAX, "%s/%s", zfs->root,
			       zfs_kind_folder((enum volume_kind)kind));
		targets[kind] = folder[kind];
	}
	return read_properties("-Hpr", RECORDS, targets, ret, err);
}

int listing_read_history(struct zfs_pool *zfs, struct listing *ret, struct coppice_error *err)
{
	return read_all(zfs, HISTORY, ret, err);
}

bool dataset_has_readonly(const struct listing *listing, const struct dataset *dataset)
{
	char snapshot[DATASET_MAX];

	(void)snprintf(snapshot, sizeof(snapshot), "%.400s" ZFS_IMAGE_SNAPSHOT, dataset->name);
	return listing_find(listing, snapshot) != NULL;
}

bool dataset_is_hidden(const struct zfs_pool *zfs, const struct dataset *dataset)
{
	return dataset->draft && state_lock_is_there(&zfs->files, dataset->draft);
}

static bool is_same(const struct volume_ref *a, const struct volume_ref *b)
{
	return a->kind == b->kind && strcmp(a->name.text, b->name.text) == 0 &&
	       strcmp(a->snapshot.text, b->snapshot.text) == 0;
}

struct dataset *listing_find_ref(const struct zfs_pool *zfs, const struct listing *listing,
				 const struct volume_ref *ref)
{
	struct volume_ref found;
	char name[DATASET_MAX];

	if (!volume_is_snapshot(ref)) {
		struct dataset *volume = listing_find(listing, zfs_volume_name(zfs, ref, name));

		return volume && !dataset_is_hidden(zfs, volume) ? volume : NULL;
	}
	for (size_t i = 0; i < listing->n; i++)
		if (zfs_name_parse(zfs, listing->dataset[i].name, &found) && is_same(&found, ref) &&
		    !dataset_is_hidden(zfs, &listing->dataset[i]))
			return &listing->dataset[i];
	return NULL;
}

int zfs_fail_missing(const struct volume_ref *ref, struct coppice_error *err)
{
	char name[VOLUME_REF_TEXT_MAX];

	return fail(err, COPPICE_NOT_FOUND, "no %s '%s'",
		    volume_is_snapshot(ref) ? "snapshot" : volume_kind_name(ref->kind),
		    volume_ref_format(ref, name));
}

int zfs_is_there(const char *name, bool *ret, struct coppice_error *err)
{
	struct coppice_error why;
	int r = zfs_run(ZFS_ARGS("zfs", "list", "-H", "-o", "name", name), NULL, &why);

	*ret = r == COPPICE_OK;
	if (r == COPPICE_OK || r == COPPICE_NOT_FOUND)
		return COPPICE_OK;
	*err = why;
	return r;
}

/* It, or only what its clones are made of? */
static int fail_image_missing(struct zfs_pool *zfs, const struct volume_ref *image,
			      struct coppice_error *err)
{
	char name[DATASET_MAX];
	int r = zfs_run(
		ZFS_ARGS("zfs", "list", "-H", "-o", "name", zfs_volume_name(zfs, image, name)),
		NULL, err);

	if (r < 0)
		return r == COPPICE_NOT_FOUND ? zfs_fail_missing(image, err) : r;
	return fail(err, COPPICE_FAILED,
		    "image '%.12s' cannot be cloned, as its snapshot '%s" ZFS_IMAGE_SNAPSHOT
		    "' is not there any more; see: coppice check",
		    image->name.text, name);
}

int zfs_missing(struct zfs_pool *zfs, const struct volume_ref *ref, struct coppice_error *err)
{
	char drafts[DATASET_MAX];
	int r;

	(void)snprintf(drafts, sizeof(drafts), "%s/drafts", zfs->root);
	r = zfs_run(ZFS_ARGS("zfs", "list", "-H", "-o", "name", drafts), NULL, err);
	if (r == COPPICE_OK && ref->kind == VOLUME_IMAGE)
		return fail_image_missing(zfs, ref, err);
	if (r == COPPICE_OK)
		return zfs_fail_missing(ref, err);
	return r != COPPICE_NOT_FOUND ? r
				      : fail(err, COPPICE_UNAVAILABLE,
					     "the dataset '%s' is not there any more", zfs->root);
}

/*
 * Without snapshots where none is meant: to look at one, ZFS goes through all its clones,
 * and of an image's there may be thousands.
 */
int zfs_find(struct zfs_pool *zfs, const struct volume_ref *ref, struct listing *ret_listing,
	     struct dataset **ret, struct coppice_error *err)
{
	char volume[DATASET_MAX];
	int r;

	r = read_properties(volume_is_snapshot(ref) ? "-Hpr" : "-Hp", PROPERTIES,
			    ZFS_ARGS(zfs_volume_name(zfs, ref, volume)), ret_listing, err);
	if (r == COPPICE_NOT_FOUND)
		return zfs_missing(zfs, ref, err);
	if (r < 0)
		return r;
	*ret = listing_find_ref(zfs, ret_listing, ref);
	return *ret ? COPPICE_OK : zfs_fail_missing(ref, err);
}
