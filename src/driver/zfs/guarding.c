/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: one careless `zfs destroy -R` on an image, or -r on the folder of all
 * containers, shall take nothing. A hold on the image's snapshot is not enough, as -R
 * destroys the clones first and fails then. So in each dataset there is a snapshot that
 * is held, with the tag "coppice", and met before anything that matters:
 *
 *	images/FP@readonly         itself
 *	containers/NAME@guard      taken when NAME was empty or just what it is a clone of,
 *	                           so it pins nothing; destroyed with it, first of all
 *	containers/NAME/guard@guard
 *	                           where that was missed: a dataset of nothing, as @guard
 *	                           would pin what is in NAME by now; users' snapshots are
 *	                           older than it, and held themselves
 *	containers/NAME/UUID@snapshot-…
 *	                           all of them: the dataset is there for nothing else
 *
 * Where a hold may be is told by the name, so none is lost track of: what destroys a
 * snapshot of ours releases it, and what is visible and has none gets one, by whoever
 * cleans up after a kill or by check --repair.
 */
#include "driver/zfs/zfs.h"

#include <limits.h>
#include <string.h>

#include "base/parallel.h"
#include "base/text.h"

#define USERS "@snapshot-"

/* ---- names ---- */

/* @guard of a volume, or what lies below it for that: containers/c1/guard, and its @guard. */
bool zfs_is_guard(const struct zfs_pool *zfs, const char *name)
{
	struct volume_ref ref;
	char volume[DATASET_MAX];
	size_t n = strlen(name);
	char *end;

	(void)snprintf(volume, sizeof(volume), "%s", name);
	end = strchr(volume, '@');
	if (end && strcmp(end, ZFS_GUARD_SNAPSHOT) == 0) {
		*end = '\0';
		if (zfs_name_parse(zfs, volume, &ref))
			return true;
		n = strlen(volume);
	} else if (end) {
		return false;
	}
	if (n < strlen(ZFS_GUARD_BELOW) ||
	    strcmp(volume + n - strlen(ZFS_GUARD_BELOW), ZFS_GUARD_BELOW) != 0)
		return false;
	volume[n - strlen(ZFS_GUARD_BELOW)] = '\0';
	return zfs_name_parse(zfs, volume, &ref) && !volume_is_snapshot(&ref);
}

/* ---- one step ---- */

static int hold(const char *snapshot, struct coppice_error *err)
{
	int r = zfs_run(ZFS_ARGS("zfs", "hold", ZFS_GUARD_TAG, snapshot), NULL, err);

	return r == COPPICE_EXISTS ? COPPICE_OK : r;
}

static int release(const char *snapshot, struct coppice_error *err)
{
	int r = zfs_run(ZFS_ARGS("zfs", "release", ZFS_GUARD_TAG, snapshot), NULL, err);

	return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
}

int zfs_fail_held(const char *snapshot, struct coppice_error *err)
{
	return fail(err, COPPICE_BUSY,
		    "'%s' is held by others; see: zfs holds %s; then: zfs release TAG %s", snapshot,
		    snapshot, snapshot);
}

/* There is no hold of ours: are there others, and is it there still? */
static int count_holds(struct dataset *snapshot, struct coppice_error *err)
{
	_cleanup_(freep) char *out = NULL;
	int r = zfs_run(ZFS_ARGS("zfs", "get", "-Hp", "-o", "value", "userrefs", snapshot->name),
			&out, err);

	if (r < 0 && r != COPPICE_NOT_FOUND)
		return r;
	snapshot->n_holds = r == COPPICE_OK ? strtoull(out, NULL, 10) : 0;
	return COPPICE_OK;
}

int zfs_guard_let_go(struct dataset *snapshot, struct coppice_error *err)
{
	int r;

	if (snapshot->n_holds == 0)
		return COPPICE_OK;
	r = zfs_run(ZFS_ARGS("zfs", "release", ZFS_GUARD_TAG, snapshot->name), NULL, err);
	if (r == COPPICE_OK)
		snapshot->n_holds--;
	else if (r != COPPICE_NOT_FOUND)
		return r;
	else
		r = count_holds(snapshot, err);
	if (r < 0)
		return r;
	return snapshot->n_holds == 0 ? COPPICE_OK : zfs_fail_held(snapshot->name, err);
}

static int snapshot_and_hold(const char *dataset, struct coppice_error *err)
{
	_cleanup_(freep) char *guard = text_format("%s%s", dataset, ZFS_GUARD_SNAPSHOT);
	int r;

	if (!guard)
		return fail_memory(err);
	r = zfs_run(ZFS_ARGS("zfs", "snapshot", guard), NULL, err);
	return r < 0 && r != COPPICE_EXISTS ? r : hold(guard, err);
}

void zfs_guard_explain(struct zfs_pool *zfs, const char *name, enum volume_kind kind)
{
	if (!zfs->is_guarded)
		return;
	if (kind != VOLUME_IMAGE)
		zfs_explain(&zfs->pool, "zfs snapshot %s" ZFS_GUARD_SNAPSHOT, name);
	zfs_explain(&zfs->pool, "zfs hold " ZFS_GUARD_TAG " %s%s", name,
		    kind == VOLUME_IMAGE ? "@readonly" : ZFS_GUARD_SNAPSHOT);
}

int zfs_guard_begin(struct zfs_pool *zfs, const char *dataset, struct coppice_error *err)
{
	return zfs->is_guarded ? snapshot_and_hold(dataset, err) : COPPICE_OK;
}

/* ---- many at once ---- */

/* Snapshots that are made, held or released: each command of the last two takes many. */
struct batch {
	char **snapshot;
	size_t n, n_chunks;
	const char *verb;
};

static int snapshot_one(void *user, size_t i, struct coppice_error *err)
{
	struct batch *batch = user;
	int r = zfs_run(ZFS_ARGS("zfs", "snapshot", batch->snapshot[i]), NULL, err);

	return r == COPPICE_EXISTS ? COPPICE_OK : r;
}

/* Every n_chunks-th of them, from the @i-th on. */
static int run_chunk(void *user, size_t i, struct coppice_error *err)
{
	struct batch *batch = user;
	_cleanup_(freep) const char **argv = calloc(batch->n + 4, sizeof(*argv));
	size_t n = 0;

	if (!argv)
		return fail_memory(err);
	argv[n++] = "zfs";
	argv[n++] = batch->verb;
	argv[n++] = ZFS_GUARD_TAG;
	for (size_t k = i; k < batch->n; k += batch->n_chunks)
		argv[n++] = batch->snapshot[k];
	return zfs_run(argv, NULL, err);
}

static int run_batch(struct batch *batch, const char *verb, struct coppice_error *err)
{
	size_t n_commands = zfs_commands();

	batch->verb = verb;
	batch->n_chunks = batch->n < n_commands ? batch->n : n_commands;
	return parallel_run(batch->n_chunks, n_commands, run_chunk, batch, err);
}

/* False: nothing was done. Programs take one snapshot at a time, in some versions. */
static bool in_one_call(const char *verb, char *const snapshot[], size_t n)
{
	_cleanup_(freep) const char **argv = calloc(n + 3, sizeof(*argv));

	if (zfs_commands() > 1 || !argv)
		return false;
	argv[0] = "zfs";
	argv[1] = verb;
	memcpy(&argv[2], snapshot, n * sizeof(*argv));
	return zfs_library_run(argv);
}

int zfs_guard_begin_all(struct zfs_pool *zfs, char *snapshot[], size_t n, struct coppice_error *err)
{
	struct batch batch = { .snapshot = snapshot, .n = n };
	int r;

	if (!zfs->is_guarded || n == 0)
		return COPPICE_OK;
	/* One that is there already keeps all others from being made in that call. */
	r = in_one_call("snapshot", snapshot, n)
		    ? COPPICE_OK
		    : parallel_run(n, zfs_threads(), snapshot_one, &batch, err);
	return r < 0 ? r : run_batch(&batch, "hold", err);
}

/* What fails is released one by one, when it is destroyed. */
int zfs_guard_release_all(struct dataset *guard[], size_t n, struct coppice_error *err)
{
	_cleanup_(freep) char **snapshot = calloc(n + 1, sizeof(*snapshot));
	struct batch batch = { .snapshot = snapshot };
	struct coppice_error ignored;

	if (!snapshot)
		return fail_memory(err);
	for (size_t i = 0; i < n; i++)
		if (guard[i]->n_holds > 0)
			snapshot[batch.n++] = guard[i]->name;
	if (batch.n == 0 || run_batch(&batch, "release", &ignored) < 0)
		return COPPICE_OK;
	for (size_t i = 0; i < n; i++)
		if (guard[i]->n_holds > 0)
			guard[i]->n_holds--;
	batch.n = 0;
	for (size_t i = 0; i < n; i++)
		if (guard[i]->n_holds == 0)
			snapshot[batch.n++] = guard[i]->name;
	if (in_one_call("destroy", snapshot, batch.n))
		for (size_t i = 0; i < n; i++)
			guard[i]->is_gone |= guard[i]->n_holds == 0;
	return COPPICE_OK;
}

/* ---- what is missing ---- */

/* What a volume has of it, read off a listing. */
struct guarded {
	const struct dataset *image; /* @readonly */
	const struct dataset *own;   /* @guard */
	const struct dataset *below; /* guard@guard */
	size_t n_users, n_unheld;    /* users' snapshots of the volume itself */
};

static bool is_held(const struct dataset *snapshot)
{
	return snapshot && snapshot->n_holds > 0;
}

static bool is_users(const char *rest)
{
	return strncmp(rest, USERS, strlen(USERS)) == 0;
}

/* Is @rest, after a volume's name, a user's snapshot of what lies below it? */
static bool is_users_below(const char *rest)
{
	const char *at = strchr(rest, '@');

	return rest[0] == '/' && at && is_users(at);
}

/* All that belongs to a volume comes after it in a listing, with others between. */
static const struct dataset *next_of(const struct listing *listing, const struct dataset *volume,
				     const struct dataset *last, const char **ret_rest)
{
	const struct dataset *end = listing->dataset + listing->n;
	size_t n = strlen(volume->name);

	for (const struct dataset *d = last + 1; d < end && strncmp(d->name, volume->name, n) == 0;
	     d++) {
		if (d->is_gone || !zfs_is_within(d->name, volume->name))
			continue;
		*ret_rest = d->name + n;
		return d;
	}
	return NULL;
}

static struct guarded look(const struct listing *listing, const struct dataset *volume)
{
	struct guarded guarded = { 0 };
	const char *rest;

	for (const struct dataset *d = volume; (d = next_of(listing, volume, d, &rest));) {
		if (strcmp(rest, ZFS_IMAGE_SNAPSHOT) == 0)
			guarded.image = d;
		else if (strcmp(rest, ZFS_GUARD_SNAPSHOT) == 0)
			guarded.own = d;
		else if (strcmp(rest, ZFS_GUARD_BELOW ZFS_GUARD_SNAPSHOT) == 0)
			guarded.below = d;
		else if (is_users(rest)) {
			guarded.n_users++;
			guarded.n_unheld += !is_held(d);
		}
	}
	return guarded;
}

static bool are_held_below(const struct listing *listing, const struct dataset *volume)
{
	const char *rest;

	for (const struct dataset *d = volume; (d = next_of(listing, volume, d, &rest));)
		if (is_users_below(rest) && !is_held(d))
			return false;
	return true;
}

static bool is_guarded(const struct listing *listing, const struct dataset *volume,
		       enum volume_kind kind)
{
	struct guarded guarded = look(listing, volume);

	if (kind == VOLUME_IMAGE)
		return is_held(guarded.image);
	return (is_held(guarded.own) || (is_held(guarded.below) && guarded.n_unheld == 0)) &&
	       are_held_below(listing, volume);
}

/* Users' snapshots that are not held: of the volume itself, or of what lies below it. */
static int hold_users(const struct listing *listing, const struct dataset *volume, bool is_below,
		      struct coppice_error *err)
{
	const char *rest;
	int r = COPPICE_OK;

	for (const struct dataset *d = volume;
	     r == COPPICE_OK && (d = next_of(listing, volume, d, &rest));)
		if ((is_below ? is_users_below(rest) : is_users(rest)) && !is_held(d))
			r = hold(d->name, err);
	return r;
}

int zfs_guard_hold(struct zfs_pool *zfs, const struct listing *listing, const char *dataset,
		   struct coppice_error *err)
{
	const struct dataset *found = listing_find(listing, dataset);

	return zfs->is_guarded && found ? hold_users(listing, found, false, err) : COPPICE_OK;
}

/* For what may have been written into: a dataset of nothing, which pins nothing. */
static int begin_below(const struct listing *listing, const struct dataset *volume,
		       struct coppice_error *err)
{
	_cleanup_(freep) char *below = text_format("%s%s", volume->name, ZFS_GUARD_BELOW);
	struct coppice_error ignored;
	bool is_there;
	int r;

	if (!below)
		return fail_memory(err);
	r = zfs_run(ZFS_ARGS("zfs", "create", "-o", "mountpoint=none", "-o", "canmount=off", below),
		    NULL, err);
	if (r == COPPICE_OK || r == COPPICE_EXISTS)
		r = snapshot_and_hold(below, err);
	/* Deleted by another command meanwhile: ZFS says that there is no parent. */
	else if (zfs_is_there(volume->name, &is_there, &ignored) == COPPICE_OK && !is_there)
		return fail(err, COPPICE_NOT_FOUND, "'%s' is not there any more", volume->name);
	return r < 0 ? r : hold_users(listing, volume, false, err);
}

int zfs_guard_ensure_in(struct zfs_pool *zfs, const struct listing *listing,
			const struct dataset *volume, enum volume_kind kind, bool is_fresh,
			struct coppice_error *err)
{
	struct guarded guarded = look(listing, volume);
	int r = COPPICE_OK;

	if (!zfs->is_guarded || is_guarded(listing, volume, kind))
		return COPPICE_OK;
	if (kind == VOLUME_IMAGE)
		return guarded.image ? hold(guarded.image->name, err) : COPPICE_OK;
	if (guarded.own || (is_fresh && guarded.n_users == 0 && volume->used <= ZFS_PINS_NOTHING))
		r = snapshot_and_hold(volume->name, err);
	else
		r = begin_below(listing, volume, err);
	return r < 0 ? r : hold_users(listing, volume, true, err);
}

int zfs_guard_ensure(struct zfs_pool *zfs, const char *volume, enum volume_kind kind, bool is_fresh,
		     struct coppice_error *err)
{
	_cleanup_(listing_done) struct listing listing = { 0 };
	int r;

	if (!zfs->is_guarded)
		return COPPICE_OK;
	r = listing_read(zfs, ZFS_ARGS(volume), &listing, err);
	return r < 0 ? r
		     : zfs_guard_ensure_in(zfs, &listing, listing_find(&listing, volume), kind,
					   is_fresh, err);
}

int zfs_guard_snapshot(struct zfs_pool *zfs, const char *volume, const char *snapshot,
		       struct coppice_error *err)
{
	_cleanup_(freep) char *guard = text_format("%s%s", volume, ZFS_GUARD_SNAPSHOT);
	int r;

	if (!guard)
		return fail_memory(err);
	if (!zfs->is_guarded)
		return COPPICE_OK;
	r = zfs_run(ZFS_ARGS("zfs", "list", "-H", "-o", "name", guard), NULL, err);
	return r == COPPICE_NOT_FOUND ? hold(snapshot, err) : r;
}

/* ---- all of a pool ---- */

/* The next volume that users see, from @i on. */
static bool next_volume(const struct zfs_pool *zfs, const struct listing *listing, size_t *i,
			struct volume_ref *ret)
{
	for (; *i < listing->n; ++*i) {
		const struct dataset *dataset = &listing->dataset[*i];

		if (!dataset->is_snapshot && !dataset->is_gone &&
		    zfs_name_parse(zfs, dataset->name, ret) && !dataset_is_hidden(zfs, dataset))
			return true;
	}
	return false;
}

int zfs_guard_mend(struct zfs_pool *zfs, const struct listing *listing, struct coppice_error *err)
{
	struct volume_ref ref;
	int r = COPPICE_OK;

	for (size_t i = 0; zfs->is_guarded && next_volume(zfs, listing, &i, &ref); i++) {
		struct coppice_error why;

		if (zfs_guard_ensure_in(zfs, listing, &listing->dataset[i], ref.kind, false,
					&why) == COPPICE_OK ||
		    why.code == COPPICE_NOT_FOUND || r < 0)
			continue;
		r = why.code;
		*err = why;
	}
	return r;
}

/* ---- taken away ---- */

static int drop_one(struct dataset *dataset, struct coppice_error *err)
{
	int r = zfs_guard_let_go(dataset, err);

	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zfs", "destroy", dataset->name), NULL, err);
	return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
}

int zfs_guard_drop(const struct listing *listing, const char *volume, struct coppice_error *err)
{
	static const char *const suffixes[] = {
		ZFS_GUARD_BELOW ZFS_GUARD_SNAPSHOT,
		ZFS_GUARD_BELOW,
		ZFS_GUARD_SNAPSHOT,
	};
	char name[2 * DATASET_MAX];
	int r = COPPICE_OK;

	for (size_t i = 0; i < ARRAY_SIZE(suffixes) && r == COPPICE_OK; i++) {
		struct dataset *dataset;

		(void)snprintf(name, sizeof(name), "%s%s", volume, suffixes[i]);
		dataset = listing_find(listing, name);
		if (dataset && !dataset->is_gone)
			r = drop_one(dataset, err);
	}
	return r;
}

/* ---- checking ---- */

static int mend_one(struct zfs_pool *zfs, const struct listing *listing,
		    const struct dataset *volume, enum volume_kind kind, struct coppice_error *err)
{
	struct guarded guarded = look(listing, volume);
	int r;

	if (zfs->is_guarded)
		return zfs_guard_ensure_in(zfs, listing, volume, kind, false, err);
	r = zfs_guard_drop(listing, volume->name, err);
	return r < 0 || !is_held(guarded.image) ? r : release(guarded.image->name, err);
}

static bool is_wrong(const struct zfs_pool *zfs, const struct listing *listing,
		     const struct dataset *volume, enum volume_kind kind)
{
	struct guarded guarded = look(listing, volume);

	if (kind == VOLUME_IMAGE && !guarded.image)
		return false; /* it lacks more than a guard, and that is told */
	return zfs->is_guarded ? !is_guarded(listing, volume, kind)
			       : guarded.own || guarded.below || is_held(guarded.image);
}

int zfs_guard_check(struct zfs_pool *zfs, const struct listing *listing, bool is_repair,
		    scan_fn *fn, void *user, struct coppice_error *err)
{
	struct found_volume found = {
		.what = zfs->is_guarded ? "guard-missing" : "guard-left",
		.problem = zfs->is_guarded
				   ? "nothing keeps zfs destroy -R off it; --repair guards it"
				   : "it is guarded, in a pool with coppice.guard=false; --repair "
				     "takes the guard away",
	};
	int r = COPPICE_OK;

	for (size_t i = 0; r >= 0 && next_volume(zfs, listing, &i, &found.ref); i++) {
		const struct dataset *volume = &listing->dataset[i];

		if (!is_wrong(zfs, listing, volume, found.ref.kind))
			continue;
		found.is_repaired = false;
		if (is_repair) {
			r = mend_one(zfs, listing, volume, found.ref.kind, err);
			found.is_repaired = r == COPPICE_OK;
		}
		if (r >= 0)
			r = fn(user, &found, err);
	}
	return r;
}
