/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes cease to be: renamed away at once, destroyed when nobody stands on them.
 * Always one by one, and never by zfs destroy -r or -R, which take what they meet and
 * are not atomic: what has clones is left, by our own reckoning and by ZFS's refusal.
 */
#include "driver/zfs/zfs.h"

#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "base/text.h"

/* ---- out of sight ---- */

struct retiring {
	struct zfs_pool *zfs;
	const struct volume_ref *refs;
	const struct uuid *uuids;
	struct listing listing; /* of what is there of them */
	atomic_bool is_to_reap; /* not all of it was destroyed at once */
};

/* ZFS may fail after it has renamed, at what it does then with mounts: what counts is where it is.
 */
static int rename_away(const char *name, const char *to, struct coppice_error *err)
{
	struct coppice_error why, ignored;
	bool is_old, is_new;
	int r = zfs_run(ZFS_ARGS("zfs", "rename", name, to), NULL, &why);

	if ((r == COPPICE_FAILED || r == COPPICE_NOT_FOUND || r == COPPICE_BUSY) &&
	    zfs_is_there(name, &is_old, &ignored) == COPPICE_OK && !is_old &&
	    zfs_is_there(to, &is_new, &ignored) == COPPICE_OK && is_new)
		return COPPICE_OK;
	if (r < 0)
		*err = why;
	return r;
}

/* Under another uuid when one of this uuid lies there already: it was moved away and came back. */
static int bury(struct zfs_pool *zfs, const char *name, const char *folder, const char *id,
		struct coppice_error *err)
{
	struct coppice_error ignored;
	char to[DATASET_MAX];
	struct uuid other;
	int r;

	(void)snprintf(to, sizeof(to), "%s/deleted/%s/%s", zfs->root, folder, id);
	r = rename_away(name, to, err);
	if (r == COPPICE_FAILED && zfs_folders_ensure(zfs, &ignored) == COPPICE_OK)
		r = rename_away(name, to, err);
	if (r != COPPICE_EXISTS)
		return r;
	r = uuid_new(&other, err);
	if (r < 0)
		return r;
	(void)snprintf(to, sizeof(to), "%s/deleted/%s/%s", zfs->root, folder, other.text);
	return rename_away(name, to, err);
}

static int bury_snapshot(struct retiring *retiring, const struct volume_ref *ref,
			 const struct uuid *uuid, struct coppice_error *err)
{
	struct zfs_pool *zfs = retiring->zfs;
	_cleanup_(listing_done) struct listing listing = { 0 };
	_cleanup_(freep) char *to = NULL;
	struct dataset *dataset;
	int r;

	atomic_store(&retiring->is_to_reap, true);
	r = zfs_find(zfs, ref, &listing, &dataset, err);
	if (r < 0)
		return r;
	to = text_format("%.*s@deleted-%s", (int)strcspn(dataset->name, "@"), dataset->name,
			 uuid->text);
	return to ? zfs_run(ZFS_ARGS("zfs", "rename", dataset->name, to), NULL, err)
		  : fail_memory(err);
}

/* Nothing in it but its guard: so nobody stands on it. */
static bool is_bare(const struct zfs_pool *zfs, const struct listing *listing, const char *name)
{
	for (size_t i = 0; i < listing->n; i++) {
		const char *found = listing->dataset[i].name;

		if (zfs_is_within(found, name) && strcmp(found, name) != 0 &&
		    !zfs_is_guard(zfs, found))
			return false;
	}
	return true;
}

/*
 * What is bare can as well be destroyed at once: ZFS refuses if others stand on it by now.
 * Killed between guard and volume, it is there without; whoever reaps next mends that.
 */
static int destroy_or_bury(struct retiring *retiring, size_t i, struct coppice_error *err)
{
	const struct volume_ref *ref = &retiring->refs[i];
	struct zfs_pool *zfs = retiring->zfs;
	char name[DATASET_MAX];
	int r;

	(void)zfs_volume_name(zfs, ref, name);
	if (is_bare(zfs, &retiring->listing, name)) {
		r = zfs_guard_drop(&retiring->listing, name, err);
		if (r == COPPICE_OK)
			r = zfs_run(ZFS_ARGS("zfs", "destroy", name), NULL, err);
		if (r == COPPICE_OK || r == COPPICE_NOT_FOUND)
			return r;
	}
	atomic_store(&retiring->is_to_reap, true);
	return bury(zfs, name, zfs_kind_folder(ref->kind), retiring->uuids[i].text, err);
}

static int retire_one(void *user, size_t i, struct coppice_error *err)
{
	struct retiring *retiring = user;
	const struct volume_ref *ref = &retiring->refs[i];
	struct zfs_pool *zfs = retiring->zfs;
	int r;

	r = zfs_umount_ref(zfs, ref, err);
	if (r < 0)
		return r;
	r = volume_is_snapshot(ref) ? bury_snapshot(retiring, ref, &retiring->uuids[i], err)
				    : destroy_or_bury(retiring, i, err);
	return r == COPPICE_NOT_FOUND ? zfs_missing(zfs, ref, err) : r;
}

static void retire_explain(struct pool *pool, const struct volume_ref *ref, const struct uuid *uuid)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	const char *folder = zfs_kind_folder(ref->kind);

	if (volume_is_snapshot(ref))
		zfs_explain(pool, "zfs rename %s/%s/%s@snapshot-%s @deleted-%s", zfs->root, folder,
			    ref->name.text, ref->snapshot.text, uuid->text);
	else {
		if (zfs->is_guarded && ref->kind != VOLUME_IMAGE)
			zfs_explain(pool,
				    "zfs release " ZFS_GUARD_TAG " %s/%s/%s" ZFS_GUARD_SNAPSHOT
				    " && zfs destroy %s/%s/%s" ZFS_GUARD_SNAPSHOT,
				    zfs->root, folder, ref->name.text, zfs->root, folder,
				    ref->name.text);
		zfs_explain(pool, "zfs destroy %s/%s/%s || zfs rename %s/%s/%s %s/deleted/%s/%s",
			    zfs->root, folder, ref->name.text, zfs->root, folder, ref->name.text,
			    zfs->root, folder, uuid->text);
	}
}

/* Those before the first that is not there are retired: how many are these? */
static int count_there(struct zfs_pool *zfs, const struct listing *listing,
		       const struct volume_ref *refs, size_t n, size_t *ret_n,
		       struct coppice_error *err)
{
	*ret_n = 0;
	for (size_t i = 0; i < n; i++) {
		char name[DATASET_MAX];
		bool is_there = volume_is_snapshot(&refs[i])
					? listing_find_ref(zfs, listing, &refs[i]) != NULL
					: listing_find(listing, zfs_volume_name(zfs, &refs[i],
										name)) != NULL;

		if (!is_there)
			return zfs_missing(zfs, &refs[i], err);
		*ret_n = i + 1;
	}
	return COPPICE_OK;
}

/*
 * Under the locks that they are deleted under nobody has changed them since, but for who reaps: he
 * may have made a guard, or taken away what nobody stood on. What is not as it was read, zfs
 * destroy refuses, and then it is buried.
 */
static int read_listing(struct retiring *retiring, size_t n, struct coppice_error *err)
{
	struct zfs_pool *zfs = retiring->zfs;

	if (zfs->is_reading_all || !zfs_reading_has(zfs, retiring->refs, n))
		return listing_read_those(zfs, retiring->refs, n, &retiring->listing, err);
	retiring->listing = *zfs->reading;
	free(take_ptr(&zfs->reading));
	return COPPICE_OK;
}

/* Of what is to be destroyed at once. */
static int release_guards(struct retiring *retiring, size_t n, struct coppice_error *err)
{
	_cleanup_(freep) struct dataset **guard = calloc(n + 1, sizeof(*guard));
	size_t n_guards = 0;

	if (!guard)
		return fail_memory(err);
	for (size_t i = 0; i < n; i++) {
		char name[DATASET_MAX], snapshot[2 * DATASET_MAX];
		struct dataset *found;

		if (volume_is_snapshot(&retiring->refs[i]))
			continue;
		(void)zfs_volume_name(retiring->zfs, &retiring->refs[i], name);
		(void)snprintf(snapshot, sizeof(snapshot), "%s" ZFS_GUARD_SNAPSHOT, name);
		found = listing_find(&retiring->listing, snapshot);
		if (found && is_bare(retiring->zfs, &retiring->listing, name))
			guard[n_guards++] = found;
	}
	return zfs_guard_release_all(guard, n_guards, err);
}

static int retire_all(struct retiring *retiring, size_t n, struct coppice_error *err)
{
	struct coppice_error missing = COPPICE_ERROR_INIT;
	size_t n_there = 0;
	int r, is_missing;

	r = read_listing(retiring, n, err);
	if (r < 0)
		return r;
	if (zfs_ballast_drop(retiring->zfs, &retiring->listing))
		atomic_store(&retiring->is_to_reap, true);
	is_missing = count_there(retiring->zfs, &retiring->listing, retiring->refs, n, &n_there,
				 &missing);
	r = release_guards(retiring, n_there, err);
	if (r < 0)
		return r;
	r = parallel_run(n_there, zfs_threads(), retire_one, retiring, err);
	if (r == COPPICE_OK && is_missing < 0) {
		*err = missing;
		return is_missing;
	}
	return r;
}

/* Of more, to look at all takes less. */
#define ORIGINS_MAX 4

/* What the destroyed stood on: each once; false: too many. */
static bool collect_origins(const struct listing *listing, const char *origin[], size_t *ret_n)
{
	*ret_n = 0;
	for (size_t i = 0; i < listing->n; i++) {
		const char *found = listing->dataset[i].origin;
		bool is_known = !found;

		for (size_t k = 0; k < *ret_n && !is_known; k++)
			is_known = strcmp(origin[k], found) == 0;
		if (is_known)
			continue;
		if (*ret_n == ORIGINS_MAX)
			return false;
		origin[(*ret_n)++] = found;
	}
	return true;
}

/*
 * Is it there, and older than all in the listing that say that they stand on it? What took its name
 * since they were read is younger.
 */
static bool is_the_same(const struct listing *listing, const char *origin)
{
	_cleanup_(freep) char *out = NULL;
	struct coppice_error ignored;
	uint64_t txg;

	if (zfs_run(ZFS_ARGS("zfs", "get", "-Hp", "-o", "value", "createtxg", origin), &out,
		    &ignored) < 0)
		return false;
	txg = strtoull(out, NULL, 10);
	for (size_t i = 0; i < listing->n; i++)
		if (listing->dataset[i].origin && strcmp(listing->dataset[i].origin, origin) == 0 &&
		    listing->dataset[i].created_txg <= txg)
			return false;
	return true;
}

/*
 * What they stood on is there for others than them: so it is not for us to destroy it. Whoever
 * takes it out of sight after this finds that they are gone, and whoever did before has given
 * it another name.
 */
static bool are_origins_in_sight(struct zfs_pool *zfs, const struct listing *listing)
{
	const char *origin[ORIGINS_MAX];
	size_t n;

	if (!collect_origins(listing, origin, &n))
		return false;
	for (size_t i = 0; i < n; i++) {
		bool is_image = strstr(origin[i], ZFS_IMAGE_SNAPSHOT) != NULL;
		struct volume_ref ref;
		char name[DATASET_MAX];

		(void)snprintf(name, sizeof(name), "%s", origin[i]);
		name[is_image ? strcspn(name, "@") : strlen(name)] = '\0';
		if (!zfs_name_parse(zfs, name, &ref) || (ref.kind == VOLUME_IMAGE) != is_image ||
		    !is_the_same(listing, origin[i]))
			return false;
	}
	return true;
}

int zfs_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids, size_t n,
	       struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	struct retiring retiring = { .zfs = zfs, .refs = refs, .uuids = uuids };
	bool owes_more = zfs->files.owed_fd >= 0;
	int r;

	for (size_t i = 0; i < n; i++)
		retire_explain(pool, &refs[i], &uuids[i]);
	if (pool->is_dry_run || n == 0)
		return COPPICE_OK;
	state_owe(&zfs->files);
	r = retire_all(&retiring, n, err);
	zfs->is_reaped = r == COPPICE_OK && !owes_more && !atomic_load(&retiring.is_to_reap) &&
			 are_origins_in_sight(zfs, &retiring.listing);
	if (zfs->is_reaped)
		state_owe_nothing(&zfs->files);
	else if (r < 0)
		state_leave_owed(&zfs->files);
	listing_done(&retiring.listing);
	return r;
}

/* ---- destroying what nobody stands on ---- */

/* Is it an announced or waiting thing of a draft that is alive? */
static bool is_in_the_making(const struct zfs_pool *zfs, const struct dataset *dataset)
{
	const char *copy = strstr(dataset->name, "@copy-");
	const char *id = copy ? copy + strlen("@copy-") : dataset->draft;
	_cleanup_(closep) int fd = -1;

	return id && !state_lock_is_over(&zfs->files, id, &fd);
}

static bool is_useless(const struct zfs_pool *zfs, const struct dataset *dataset)
{
	if (zfs_is_tombstone(zfs, dataset->name))
		return true;
	return ((zfs_is_hidden_snapshot(dataset->name) && zfs_is_in_folders(zfs, dataset->name)) ||
		zfs_is_history(zfs, dataset)) &&
	       !is_in_the_making(zfs, dataset);
}

/* Nothing is in it or below it any more, and nobody stands on it. */
static bool is_free(const struct listing *listing, const struct dataset *dataset)
{
	size_t n = strlen(dataset->name);

	if (dataset->is_snapshot)
		return dataset->n_clones == 0;
	/* What is below comes after it, first of all in the list. */
	for (const struct dataset *d = dataset + 1; d < listing->dataset + listing->n; d++) {
		if (strncmp(d->name, dataset->name, n) != 0)
			break;
		if (!d->is_gone && zfs_is_within(d->name, dataset->name))
			return false;
	}
	return true;
}

/* What can be destroyed at the same time, and how that went. */
struct reaping {
	struct dataset **wave;
	size_t n;
	struct coppice_error *errors;
};

static int destroy_one(void *user, size_t i, struct coppice_error *err)
{
	struct reaping *reaping = user;
	struct dataset *dataset = reaping->wave[i];
	struct coppice_error *why = &reaping->errors[i];
	int r;

	r = zfs_umount(dataset->name, why);
	if (r == COPPICE_OK)
		r = zfs_guard_let_go(dataset, why);
	dataset->is_held = r == COPPICE_BUSY && dataset->n_holds > 0;
	if (r == COPPICE_OK)
		r = zfs_run(ZFS_ARGS("zfs", "destroy", dataset->name), NULL, why);
	*why = r == COPPICE_OK || r == COPPICE_NOT_FOUND ? (struct coppice_error)COPPICE_ERROR_INIT
							 : *why;
	return COPPICE_OK; /* the others go on */
}

/* Destroy all of a wave side by side; @first gets the first failure that is no hold. */
static size_t destroy_wave(struct listing *listing, struct reaping *reaping,
			   struct coppice_error *first)
{
	struct coppice_error ignored;
	size_t n_destroyed = 0;

	(void)parallel_run(reaping->n, zfs_threads(), destroy_one, reaping, &ignored);
	for (size_t i = 0; i < reaping->n; i++) {
		struct dataset *dataset = reaping->wave[i];
		struct dataset *origin =
			dataset->origin ? listing_find(listing, dataset->origin) : NULL;

		if (reaping->errors[i].code != COPPICE_OK) {
			dataset->is_stuck = true; /* so it is not tried again */
			if (first->code == COPPICE_OK && !dataset->is_held)
				*first = reaping->errors[i];
			continue;
		}
		dataset->is_gone = true;
		n_destroyed++;
		if (origin)
			origin->n_clones--;
	}
	return n_destroyed;
}

typedef bool choose_fn(struct zfs_pool *zfs, const struct dataset *dataset, const char *within);

static bool choose_useless(struct zfs_pool *zfs, const struct dataset *dataset, const char *within)
{
	return is_useless(zfs, dataset);
}

static bool choose_within(struct zfs_pool *zfs, const struct dataset *dataset, const char *within)
{
	return zfs_is_within(dataset->name, within);
}

/*
 * In waves: first what nobody stands on, then what only those stood on, and so up the
 * origins. Goes on past failures, and returns the first.
 */
static int destroy_waves(struct zfs_pool *zfs, struct listing *listing, choose_fn *choose,
			 const char *within, struct coppice_error *err)
{
	struct coppice_error first = COPPICE_ERROR_INIT;
	_cleanup_(freep) struct dataset **wave = calloc(listing->n + 1, sizeof(*wave));
	_cleanup_(freep) struct dataset **chosen = calloc(listing->n + 1, sizeof(*chosen));
	_cleanup_(freep) struct coppice_error *errors = calloc(listing->n + 1, sizeof(*errors));
	size_t n_chosen = 0;

	if (!wave || !chosen || !errors)
		return fail_memory(err);
	for (size_t i = 0; i < listing->n; i++)
		if (!listing->dataset[i].is_gone && choose(zfs, &listing->dataset[i], within))
			chosen[n_chosen++] = &listing->dataset[i];
	for (;;) {
		struct reaping reaping = { .wave = wave, .errors = errors };

		for (size_t i = 0; i < n_chosen; i++)
			if (!chosen[i]->is_gone && !chosen[i]->is_stuck &&
			    is_free(listing, chosen[i]))
				wave[reaping.n++] = chosen[i];
		if (reaping.n == 0 || destroy_wave(listing, &reaping, &first) == 0)
			break;
	}
	if (first.code != COPPICE_OK)
		*err = first;
	return first.code;
}

/*
 * What lies below a tombstone, for its snapshots, becomes one beside it: the tombstone may be
 * a clone of just these, as after a restore, and then neither could go before the other.
 */
static int flatten(struct zfs_pool *zfs, const struct listing *listing, bool *ret_did,
		   struct coppice_error *err)
{
	size_t deleted = strlen(zfs->root) + strlen("/deleted/");
	int r = COPPICE_OK;

	*ret_did = false;
	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		const struct dataset *dataset = &listing->dataset[i];
		const char *kind = dataset->name + deleted, *id, *below;
		char folder[32];
		struct uuid uuid;

		if (dataset->is_gone || dataset->is_snapshot ||
		    !zfs_is_tombstone(zfs, dataset->name))
			continue;
		id = strchr(kind, '/');
		below = strchr(id + 1, '/');
		if (!below || strchr(below + 1, '/'))
			continue;
		(void)snprintf(folder, sizeof(folder), "%.*s", (int)(id - kind), kind);
		*ret_did = true;
		r = uuid_new(&uuid, err);
		if (r == COPPICE_OK)
			r = bury(zfs, dataset->name, folder, uuid.text, err);
	}
	return r;
}

/* Its last snapshot; false: it has none, or is gone. */
static bool find_last(const char *dataset, char ret[static DATASET_MAX])
{
	_cleanup_(freep) char *out = NULL;
	struct coppice_error ignored;
	unsigned long long last = 0;

	if (zfs_run(ZFS_ARGS("zfs", "get", "-Hp", "-r", "-o", "value,name", "createtxg", dataset),
		    &out, &ignored) < 0)
		return false;
	for (const char *line = out, *end; *line; line = end + (*end == '\n')) {
		const char *name = strchr(line, '\t');
		unsigned long long txg = strtoull(line, NULL, 10);
		size_t n = strlen(dataset);

		end = line + strcspn(line, "\n");
		if (!name || strncmp(name + 1, dataset, n) != 0 || name[1 + n] != '@' || txg < last)
			continue;
		last = txg;
		(void)snprintf(ret, DATASET_MAX, "%.*s", (int)strcspn(name + 1, "\n"), name + 1);
	}
	return last > 0;
}

int zfs_roll_back(const char *dataset, struct coppice_error *err)
{
	char last[DATASET_MAX];
	int r;

	if (!find_last(dataset, last))
		return COPPICE_OK;
	r = zfs_run(ZFS_ARGS("zfs", "rollback", last), NULL, err);
	return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
}

/*
 * What is kept as others stand on its snapshots is these, and nothing else: not what was
 * written into it since, nor what is set aside for it.
 */
static int trim(struct zfs_pool *zfs, const struct listing *listing, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r == COPPICE_OK; i++) {
		const struct dataset *dataset = &listing->dataset[i];

		if (dataset->is_gone || dataset->is_snapshot || !is_useless(zfs, dataset))
			continue;
		if (zfs_is_tombstone(zfs, dataset->name))
			r = zfs_limits_release(dataset, err);
		if (r == COPPICE_OK && dataset->by_dataset.bytes > ZFS_PINS_NOTHING)
			r = zfs_roll_back(dataset->name, err);
	}
	return r;
}

static const struct dataset *find_held(const struct listing *listing)
{
	for (size_t i = 0; i < listing->n; i++)
		if (listing->dataset[i].is_held)
			return &listing->dataset[i];
	return NULL;
}

/* One round; what @ret_did_flatten there is to do for another. */
static int reap_round(struct zfs_pool *zfs, struct listing *listing, bool *ret_did_flatten,
		      struct coppice_error *err)
{
	int r = listing_read_all(zfs, listing, err);

	if (r == COPPICE_OK)
		r = destroy_waves(zfs, listing, choose_useless, NULL, err);
	if (r == COPPICE_OK)
		r = trim(zfs, listing, err);
	return r < 0 ? r : flatten(zfs, listing, ret_did_flatten, err);
}

/* As long as others hold something, the next one looks whether they still do. */
int zfs_reap_all(struct zfs_pool *zfs, struct coppice_error *err)
{
	_cleanup_(state_debts_done) struct state_debts debts = { 0 };
	bool is_over = false, is_held = false;
	int r = COPPICE_OK;

	state_owe(&zfs->files); /* flatten() buries */
	state_debts_take(&zfs->files, &debts);
	while (r == COPPICE_OK && !is_over) {
		_cleanup_(listing_done) struct listing listing = { 0 };
		bool did_flatten = false;

		r = reap_round(zfs, &listing, &did_flatten, err);
		if (r == COPPICE_OK)
			r = zfs_guard_mend(zfs, &listing, err);
		is_over = !did_flatten;
		is_held = find_held(&listing) != NULL;
		if (is_over)
			zfs_ballast_mend(zfs, &listing);
	}
	if (r == COPPICE_OK && !is_held)
		state_debts_paid(&zfs->files, &debts);
	else if (debts.n == 0)
		state_leave_owed(&zfs->files);
	else
		state_owe_nothing(&zfs->files); /* what the dead owe is enough for who comes next */
	return r;
}

int zfs_reap_dead(struct zfs_pool *zfs, struct coppice_error *err)
{
	bool did_flatten = true;
	int r = COPPICE_OK;

	while (r == COPPICE_OK && did_flatten) {
		_cleanup_(listing_done) struct listing listing = { 0 };
		const struct dataset *held;

		r = reap_round(zfs, &listing, &did_flatten, err);
		held = find_held(&listing);
		if (r == COPPICE_OK && held)
			r = zfs_fail_held(held->name, err);
	}
	return r;
}

/*
 * The reckoning is ours; what the commands below refuse is what others stand on. Told also where
 * retire left nothing to do: who runs these lines cannot know.
 */
static void reap_explain(struct pool *pool)
{
	zfs_explain(pool,
		    "for name in $(zfs list -H -r -t all -S name -o name %s/deleted | grep -E "
		    "'/[0-9a-f]{8}-[0-9a-f-]{27}'); do zfs release " ZFS_GUARD_TAG
		    " \"$name\" 2>/dev/null; zfs destroy \"$name\"; done",
		    zfs_pool_of(pool)->root);
	zfs_explain(pool,
		    "for name in $(zfs list -H -r -t filesystem -o name %s/deleted | grep -E "
		    "'/[0-9a-f]{8}-[0-9a-f-]{27}'); do zfs rollback \"$(zfs list -H -r -d 1 -t "
		    "snapshot -s creation -o name \"$name\" | tail -n 1)\"; done",
		    zfs_pool_of(pool)->root);
}

int zfs_reap(struct pool *pool, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	bool is_reaped = zfs->is_reaped;

	reap_explain(pool);
	zfs->is_reaped = false;
	return pool->is_dry_run || is_reaped ? COPPICE_OK : zfs_reap_all(zfs, err);
}

int zfs_destroy_or_retire(struct zfs_pool *zfs, struct listing *listing, const char *dataset,
			  struct coppice_error *err)
{
	struct dataset *found = listing_find(listing, dataset);
	struct coppice_error why = COPPICE_ERROR_INIT;
	struct uuid id;
	int r;

	if (!found || found->is_gone)
		return COPPICE_OK;
	(void)destroy_waves(zfs, listing, choose_within, dataset, &why);
	if (found->is_gone)
		return COPPICE_OK;
	/* Others stand on it: after a restore, what was live before is what snapshots were of. */
	r = uuid_new(&id, err);
	if (r < 0)
		return r;
	if (strchr(dataset, '@')) {
		_cleanup_(freep) char *to = text_format(
			"%.*s@deleted-%s", (int)strcspn(dataset, "@"), dataset, id.text);

		return to ? zfs_run(ZFS_ARGS("zfs", "rename", dataset, to), NULL, err)
			  : fail_memory(err);
	}
	r = bury(zfs, dataset, zfs_kind_folder(VOLUME_CONTAINER), id.text, err);
	if (r == COPPICE_OK)
		found->is_gone = true;
	return r;
}

/* ---- what is held ---- */

static bool is_held(const struct listing *listing, const struct dataset *dataset)
{
	for (const struct dataset *d = dataset; d < listing->dataset + listing->n; d++)
		if (zfs_is_within(d->name, dataset->name) && (d->n_clones > 0 || d->n_holds > 0))
			return true;
	return false;
}

/* ROOT/deleted/KIND/UUID itself, or a snapshot that was deleted of a volume that was not. */
static bool is_told(const struct zfs_pool *zfs, const struct dataset *dataset)
{
	if (!zfs_is_tombstone(zfs, dataset->name))
		return strstr(dataset->name, "@deleted-") != NULL;
	return !dataset->is_snapshot &&
	       !strchr(strchr(dataset->name + strlen(zfs->root) + 9, '/') + 1, '/');
}

int zfs_pinned(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err)
{
	struct zfs_pool *zfs = zfs_pool_of(pool);
	_cleanup_(listing_done) struct listing listing = { 0 };
	int r;

	r = listing_read_all(zfs, &listing, err);
	for (size_t i = 0; i < listing.n && r >= 0; i++) {
		struct dataset *dataset = &listing.dataset[i];
		struct coppice_bytes bytes = { COPPICE_EXACT, dataset->used };

		if (!is_told(zfs, dataset) || !dataset->record || !is_held(&listing, dataset))
			continue;
		/* A snapshot's own figure leaves out what its neighbours hold as well. */
		if (dataset->is_snapshot)
			bytes = (struct coppice_bytes){ COPPICE_AT_MOST, dataset->referenced };
		r = fn(user, dataset->record, bytes, err);
	}
	return r < 0 ? r : COPPICE_OK;
}

/* The uuid of a tombstone, as it has no other name; else the volume that it is a snapshot of. */
static void name_dead(const struct zfs_pool *zfs, const char *name, struct volume_ref *ret)
{
	char volume[DATASET_MAX];
	const char *id = zfs_is_tombstone(zfs, name)
				 ? strchr(name + strlen(zfs->root) + strlen("/deleted/"), '/') + 1
				 : NULL;

	if (id) {
		(void)snprintf(ret->name.text, sizeof(ret->name.text), "%.*s", UUID_TEXT_SIZE - 1,
			       id);
		return;
	}
	(void)snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(name, "@"), name);
	/* Or of what lies below it */
	for (char *slash; !zfs_name_parse(zfs, volume, ret) && (slash = strrchr(volume, '/'));)
		*slash = '\0';
}

/* After a sweep no hold on what is deleted is ours, but for what clones still stand on. */
int zfs_held_check(struct zfs_pool *zfs, const struct listing *listing, scan_fn *fn, void *user,
		   struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r >= 0; i++) {
		const struct dataset *snapshot = &listing->dataset[i];
		_cleanup_(freep) char *problem = NULL;
		struct found_volume found = { .what = "deleted-held", .is_remark = true };

		if (snapshot->n_holds == 0 || snapshot->n_clones > 0 || !is_useless(zfs, snapshot))
			continue;
		problem = text_format("'%s' is deleted and held by others, so its space stays "
				      "taken; see: zfs holds %s",
				      snapshot->name, snapshot->name);
		if (!problem)
			return fail_memory(err);
		found.problem = problem;
		name_dead(zfs, snapshot->name, &found.ref);
		r = fn(user, &found, err);
	}
	return r;
}
