/* SPDX-License-Identifier: Apache-2.0 */
/* Making instances from an image, renaming and deleting them. */
#include "core/instances.h"

#include <string.h>

#include "base/file.h"
#include "core/copying.h"

/* ---- the common end of everything that makes volumes ---- */

int draft_begin(struct pool_entry *entry, struct draft *draft, struct undo *undo,
		struct coppice_error *err)
{
	int r = entry->driver->draft_open(entry->pool, draft, err);

	if (r == COPPICE_OK)
		undo_push(undo, undo_draft, draft, "draft");
	return r;
}

static int tell_catalog(struct coppice *coppice, struct pool_entry *entry,
			const struct makings *makings, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < makings->n && r == COPPICE_OK; i++) {
		const struct making *making = &makings->making[i];

		r = catalog_put_record(coppice, entry->name, &making->volume.ref, &making->record,
				       making->text, err);
	}
	return r;
}

/* What cannot be made durable was not made: all or nothing, as promised. */
static void unpublish(struct coppice *coppice, struct pool_entry *entry,
		      const struct makings *makings)
{
	struct coppice_error ignored;

	for (size_t i = 0; i < makings->n; i++) {
		const struct making *making = &makings->making[i];

		if (!making->volume.is_nested)
			(void)retire(coppice, entry, &making->volume.ref, &making->record.uuid, 1,
				     &ignored);
	}
}

/* What is to be published of @makings: what is nested goes with its instance. */
static int outer_volumes(const struct makings *makings, struct new_volume **ret, size_t *ret_n,
			 struct coppice_error *err)
{
	struct new_volume *volumes = calloc(makings->n, sizeof(*volumes));

	if (!volumes)
		return fail_memory(err);
	*ret_n = 0;
	for (size_t i = 0; i < makings->n; i++)
		if (!makings->making[i].volume.is_nested)
			volumes[(*ret_n)++] = makings->making[i].volume;
	*ret = volumes;
	return COPPICE_OK;
}

/* Without snapshots, also nested ones. */
static bool are_bare_instances(const struct makings *makings)
{
	for (size_t i = 0; i < makings->n; i++)
		if (makings->making[i].volume.ref.kind == VOLUME_IMAGE ||
		    volume_is_snapshot(&makings->making[i].volume.ref))
			return false;
	return true;
}

int publish(struct coppice *coppice, struct pool_entry *entry, struct draft *draft,
	    const struct makings *makings, struct coppice_error *err)
{
	_cleanup_(freep) struct new_volume *volumes = NULL;
	_cleanup_(freep) struct volume_ref *refs = calloc(makings->n + 1, sizeof(*refs));
	const struct driver *driver = entry->driver;
	bool is_durable = draft->is_announced;
	struct coppice_error ignored;
	size_t n = 0;
	int r;

	if (is_interrupted(coppice))
		return fail(err, COPPICE_INTERRUPTED, "interrupted; nothing was changed");
	r = refs ? outer_volumes(makings, &volumes, &n, err) : fail_memory(err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		refs[i] = volumes[i].ref;
	if (r == COPPICE_OK)
		r = change_begin(coppice, entry, refs, n, false, err);
	if (r < 0)
		return r;
	r = driver->publish(draft, volumes, n, err);
	if (r < 0) {
		change_abort(coppice);
		return r;
	}
	r = tell_catalog(coppice, entry, makings, &ignored);
	if (r == COPPICE_OK)
		r = driver->stamp_new && are_bare_instances(makings)
			    ? change_end_new(coppice, entry, volumes, n, &ignored)
			    : change_end(coppice, entry, refs, n, true, &ignored);
	if (r < 0)
		change_abort(coppice);
	(void)driver->draft_discard(draft, &ignored);
	r = is_durable ? COPPICE_OK : driver->commit(entry->pool, err);
	if (r < 0)
		unpublish(coppice, entry, makings);
	return r;
}

int publish_clones(struct coppice *coppice, struct pool_entry *entry, struct draft *draft,
		   const struct volume_ref *origin, const struct makings *makings,
		   bool is_read_only, struct coppice_error *err)
{
	_cleanup_(freep) struct new_volume *volumes = NULL;
	const struct driver *driver = entry->driver;
	size_t n = 0;
	int r;

	r = outer_volumes(makings, &volumes, &n, err);
	if (r == COPPICE_OK && driver->draft_announce)
		r = driver->draft_announce(draft, volumes, n, err);
	if (r == COPPICE_OK)
		r = driver->clone(draft, origin, volumes, n, is_read_only, err);
	return r < 0 ? r : publish(coppice, entry, draft, makings, err);
}

/* ---- init ---- */

static int compare_names(const void *a, const void *b)
{
	const struct volume_name *x = a, *y = b;

	return strcmp(x->text, y->text);
}

int instance_names_parse(const char *const *names, size_t n, struct volume_name *ret,
			 struct coppice_error *err)
{
	_cleanup_(freep) struct volume_name *sorted = NULL;

	for (size_t i = 0; i < n; i++) {
		int r = instance_name_parse(names[i], &ret[i], err);

		if (r < 0)
			return r;
	}
	sorted = calloc(n, sizeof(*sorted));
	if (!sorted)
		return fail_memory(err);
	memcpy(sorted, ret, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_names);
	for (size_t i = 1; i < n; i++)
		if (strcmp(sorted[i].text, sorted[i - 1].text) == 0)
			return fail(err, COPPICE_INVALID, "instance '%s' is named twice",
				    sorted[i].text);
	return COPPICE_OK;
}

/* What is asked for, looked up and checked. */
struct init {
	struct pool_entry *entry;
	struct volume_name *names;
	size_t n;
	struct volume_ref image;
	struct record image_record;
	const char *image_name;
	struct coppice_settings config;
};

static void init_done(struct init *init)
{
	free(init->names);
	record_done(&init->image_record);
	settings_done(&init->config);
}

static int describe(struct coppice *coppice, const struct init *init, struct makings *makings,
		    struct coppice_error *err)
{
	int64_t now = now_ns();
	int r = makings_new(makings, init->n, err);

	for (size_t i = 0; i < init->n && r == COPPICE_OK; i++) {
		struct making *making = &makings->making[i];
		struct ancestor image = { .uuid = init->image_record.uuid,
					  .name = (char *)(uintptr_t)init->image_name,
					  .is_image = true };

		making->volume.ref =
			(struct volume_ref){ .kind = VOLUME_CONTAINER, .name = init->names[i] };
		making->volume.limit_bytes = config_limit(&init->config);
		making->volume.limit_how = config_limit_how(init->entry->driver, &init->config);
		making->record.kind = VOLUME_CONTAINER;
		making->record.created_ns = now;
		(void)snprintf(making->record.image, sizeof(making->record.image), "%s",
			       init->image.name.text);
		making->record.image_name = strdup(init->image_name);
		if (!making->record.image_name)
			return fail_memory(err);
		if (pool_copy_way(init->entry) != COPY_FULL)
			r = record_add_ancestor(&making->record, &image, err);
		if (r == COPPICE_OK)
			r = settings_copy(&making->record.config, &init->config, err);
		if (r == COPPICE_OK)
			r = making_finish(coppice, makings, i, NULL, NULL, err);
	}
	return r;
}

/* Each by itself, in a pool whose copies share nothing. */
static int publish_full(struct coppice *coppice, const struct init *init, struct draft *draft,
			const struct makings *makings, struct coppice_error *err)
{
	const struct copying copying = {
		.source = { .entry = init->entry,
			    .ref = init->image,
			    .record = init->image_record },
		.target = init->entry,
		.way = COPY_FULL,
	};
	int r = COPPICE_OK;

	for (size_t i = 0; i < makings->n && r == COPPICE_OK; i++) {
		const struct makings one = { .making = &makings->making[i], .n = 1 };

		if (is_interrupted(coppice))
			return fail(err, COPPICE_INTERRUPTED, "interrupted; nothing was changed");
		r = copying_make(&copying, draft, &one, err);
	}
	return r < 0 ? r : publish(coppice, init->entry, draft, makings, err);
}

/* Under the locks: all is as it was looked up. */
static int make_instances(struct coppice *coppice, struct init *init, struct coppice_error *err)
{
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	_cleanup_(makings_done) struct makings makings = { 0 };
	struct draft draft = { .fd = -1 };
	struct pool_entry *entry = init->entry;
	int r;

	r = volumes_must_not_exist(coppice, init->names, init->n, err);
	if (r < 0)
		return r;
	r = volume_record_read(entry, &init->image, &init->image_record, err);
	/* A dry run would have unpacked it, and did not. */
	if (r == COPPICE_NOT_FOUND && coppice->options.is_dry_run)
		r = COPPICE_OK;
	if (r == COPPICE_OK)
		r = draft_begin(entry, &draft, &undo, err);
	if (r == COPPICE_OK)
		r = describe(coppice, init, &makings, err);
	if (r == COPPICE_OK && pool_copy_way(entry) == COPY_FULL)
		r = publish_full(coppice, init, &draft, &makings, err);
	else if (r == COPPICE_OK)
		r = publish_clones(coppice, entry, &draft, &init->image, &makings, false, err);
	if (r == COPPICE_OK)
		undo_commit(&undo);
	return r;
}

/* An alias stays a name that people know; a beginning of a fingerprint is made whole. */
static const char *image_display_name(const char *asked, const char *fingerprint)
{
	return strncmp(asked, fingerprint, strlen(asked)) == 0 ? fingerprint : asked;
}

/* What is asked for, and what the pool is believed to hold meanwhile: POOLS_…. */
struct init_request {
	const char *image, *pool;
	const char *const *names;
	size_t n;
	const struct coppice_setting *settings;
	size_t n_settings;
	unsigned how;
};

static int look_up(struct coppice *coppice, const struct init_request *request, struct init *init,
		   struct coppice_error *err)
{
	int r = instance_names_parse(request->names, request->n, init->names, err);

	if (r == COPPICE_OK)
		r = images_refresh(coppice, err);
	/* Without pools the store alone can have it: no pool is made for nothing. */
	if (r == COPPICE_OK && coppice->n_pools == 0)
		r = image_resolve(coppice, request->image, &init->image.name, err);
	if (r == COPPICE_OK)
		r = pools_choose(coppice, request->pool, request->how, &init->entry, err);
	if (r == COPPICE_OK)
		r = image_resolve(coppice, request->image, &init->image.name, err);
	if (r == COPPICE_OK)
		r = config_take(init->entry, VOLUME_CONTAINER, request->settings,
				request->n_settings, false, &init->config, err);
	if (r == COPPICE_OK)
		r = config_add_defaults(init->entry, &init->config, err);
	if (r == COPPICE_OK)
		r = volumes_must_not_exist(coppice, init->names, init->n, err);
	if (r == COPPICE_OK)
		r = room_check(coppice, init->entry, err);
	return r < 0 ? r : image_ensure(coppice, init->entry, &init->image.name, err);
}

/* *ret_is_unsure: what was believed may be why it failed. */
static int init_as_requested(struct coppice *coppice, const struct init_request *request,
			     bool *ret_is_unsure, struct coppice_error *err)
{
	_cleanup_(init_done) struct init init = { .n = request->n, .image.kind = VOLUME_IMAGE };
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	int r;

	init.names = calloc(request->n, sizeof(*init.names));
	if (!init.names)
		return fail_memory(err);
	r = look_up(coppice, request, &init, err);
	if (r == COPPICE_OK) {
		init.image_name = image_display_name(request->image, init.image.name.text);
		locks_add(&locks, LOCK_POOLS, init.entry->name, false);
		locks_add(&locks, LOCK_IMAGES, init.image.name.text, false);
		for (size_t i = 0; i < init.n; i++)
			locks_add(&locks, LOCK_INSTANCES, init.names[i].text, true);
		r = locks_take(coppice, &locks, err);
	}
	if (r == COPPICE_OK)
		r = make_instances(coppice, &init, err);
	*ret_is_unsure = init.entry && init.entry->driver->stamp_part && !init.entry->is_fresh;
	return r;
}

/*
 * That a name is free and the image is there the pool itself tells, so what the catalog
 * knew last will do; if it fails by that, once more with what there is.
 */
int coppice_instance_init(struct coppice *coppice, const char *image, const char *const *names,
			  size_t n, const struct coppice_setting *settings, size_t n_settings,
			  const char *pool, struct coppice_error *err)
{
	struct init_request request = {
		.image = image,
		.pool = pool,
		.names = names,
		.n = n,
		.settings = settings,
		.n_settings = n_settings,
		.how = POOLS_MAY_MAKE | POOLS_TRUSTED,
	};
	bool is_unsure = false;
	int r;

	if (n == 0)
		return fail(err, COPPICE_INVALID, "no instance is named");
	/* What is told is told once, and in a dry run nothing but the catalog is asked. */
	if (coppice->options.hooks.explain || coppice->options.is_dry_run)
		request.how = POOLS_MAY_MAKE;
	r = init_as_requested(coppice, &request, &is_unsure, err);
	if ((r != COPPICE_EXISTS && r != COPPICE_NOT_FOUND && r != COPPICE_FAILED) || !is_unsure)
		return r;
	request.how = POOLS_MAY_MAKE;
	return init_as_requested(coppice, &request, &is_unsure, err);
}

/* ---- rename ---- */

/* The step in the pool, and the catalog with it. */
static int rename_step(struct coppice *coppice, struct pool_entry *entry,
		       const struct volume_ref *from, const struct volume_ref *to,
		       struct coppice_error *err)
{
	const char *name = volume_is_snapshot(to) ? to->snapshot.text : to->name.text;
	struct coppice_error ignored;
	int r;

	r = change_begin(coppice, entry, from, 1, true, err);
	if (r < 0)
		return r;
	r = entry->driver->rename(entry->pool, from, to, err);
	if (r < 0) {
		change_abort(coppice);
		return r;
	}
	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	if (catalog_volume_rename(coppice->catalog, entry->name, (int)from->kind, from->name.text,
				  from->snapshot.text, name, &ignored) < 0 ||
	    change_end(coppice, entry, to, 1, true, &ignored) < 0)
		change_abort(coppice);
	return COPPICE_OK;
}

static int rename_locked(struct coppice *coppice, struct volume_ref *from, struct volume_ref *to,
			 struct coppice_error *err)
{
	_cleanup_(volume_done) struct volume volume = { 0 };
	struct coppice_error ignored;
	struct pool_entry *entry;
	int r;

	r = volume_find(coppice, from, &volume, err);
	if (r == COPPICE_OK && !volume_is_snapshot(from))
		r = volume_must_not_exist(coppice, to->name.text, err);
	if (r < 0)
		return r;
	entry = volume.entry;
	from->kind = to->kind = volume.ref.kind;
	r = rename_step(coppice, entry, from, to, err);
	if (r < 0)
		return r;
	r = entry->driver->commit(entry->pool, err);
	if (r < 0)
		(void)rename_step(coppice, entry, to, from, &ignored);
	return r;
}

int coppice_rename(struct coppice *coppice, const char *source, const char *target,
		   struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(freep) char *pool = NULL;
	struct volume_ref from, to;
	int r;

	r = instance_ref_parse(source, &from, err);
	if (r < 0)
		return r;
	to = from;
	if (volume_is_snapshot(&from)) {
		/* `rename c1/a c1/b` is as clear as `rename c1/a b`. */
		size_t length = strlen(from.name.text);

		if (strncmp(target, from.name.text, length) == 0 && target[length] == '/')
			target += length + 1;
		r = snapshot_name_parse(target, &to.snapshot, err);
	} else {
		r = instance_name_parse(target, &to.name, err);
	}
	if (r == COPPICE_OK)
		r = volume_pool_of(coppice, from.name.text, &pool, err);
	if (r < 0)
		return r;
	if (pool)
		locks_add(&locks, LOCK_POOLS, pool, false);
	locks_add(&locks, LOCK_INSTANCES, from.name.text, true);
	locks_add(&locks, LOCK_INSTANCES, to.name.text, true);
	r = locks_take(coppice, &locks, err);
	return r < 0 ? r : rename_locked(coppice, &from, &to, err);
}

/* ---- delete ---- */

int retire(struct coppice *coppice, struct pool_entry *entry, const struct volume_ref *refs,
	   const struct uuid *uuids, size_t n, struct coppice_error *err)
{
	struct coppice_error ignored;
	bool is_told = true;
	int r;

	r = change_begin(coppice, entry, refs, n, true, err);
	if (r < 0)
		return r;
	r = entry->driver->retire(entry->pool, refs, uuids, n, err);
	if (r < 0) {
		change_abort(coppice);
		return r;
	}
	for (size_t i = 0; i < n && !coppice->options.is_dry_run; i++)
		is_told = is_told &&
			  catalog_volume_delete(coppice->catalog, entry->name, (int)refs[i].kind,
						refs[i].name.text, refs[i].snapshot.text,
						&ignored) == COPPICE_OK;
	/* An image may have been in the pool alone. */
	if (n > 0 && refs[0].kind == VOLUME_IMAGE && !coppice->options.is_dry_run)
		is_told = is_told && images_rebuild(coppice, &ignored) == COPPICE_OK;
	if (!is_told || change_end(coppice, entry, refs, n, false, &ignored) < 0)
		change_abort(coppice);
	r = entry->driver->commit(entry->pool, err);
	if (r < 0 && entry->driver->unretire) {
		entry->driver->unretire(entry->pool, refs, uuids, n);
		/* The catalog has forgotten them: it is to be compared again, by others too. */
		(void)entry->driver->touch(entry->pool, &ignored);
		entry->is_fresh = false;
	}
	/* The names are free; space that cannot be freed now is freed by a later reap. */
	if (r == COPPICE_OK && entry->driver->reap(entry->pool, &ignored) < 0)
		notice(coppice, "pool '%s': %s", entry->name, ignored.message);
	return r;
}

/* Names to delete, sorted, without snapshots whose instance goes too. */
struct deleting {
	struct volume_ref *refs;
	struct volume *volumes;
	size_t n, n_found;
};

static void deleting_done(struct deleting *deleting)
{
	for (size_t i = 0; i < deleting->n_found; i++)
		volume_done(&deleting->volumes[i]);
	free(deleting->volumes);
	free(deleting->refs);
}

static int compare_refs(const void *a, const void *b)
{
	const struct volume_ref *x = a, *y = b;
	int order = strcmp(x->name.text, y->name.text);

	return order ? order : strcmp(x->snapshot.text, y->snapshot.text);
}

static int parse_refs(const char *const *names, size_t n, struct deleting *deleting,
		      struct coppice_error *err)
{
	size_t kept = 0;

	deleting->refs = calloc(n, sizeof(*deleting->refs));
	deleting->volumes = calloc(n, sizeof(*deleting->volumes));
	if (!deleting->refs || !deleting->volumes)
		return fail_memory(err);
	for (size_t i = 0; i < n; i++) {
		int r = instance_ref_parse(names[i], &deleting->refs[i], err);

		if (r < 0)
			return r;
	}
	qsort(deleting->refs, n, sizeof(*deleting->refs), compare_refs);
	for (size_t i = 0; i < n; i++) {
		const struct volume_ref *before = kept ? &deleting->refs[kept - 1] : NULL;

		/* An instance sorts before its snapshots. Named twice is deleted once. */
		if (before && strcmp(before->name.text, deleting->refs[i].name.text) == 0 &&
		    (!volume_is_snapshot(before) || compare_refs(before, &deleting->refs[i]) == 0))
			continue;
		deleting->refs[kept++] = deleting->refs[i];
	}
	deleting->n = kept;
	return COPPICE_OK;
}

/* Retire what is in one pool. */
static int delete_in(struct coppice *coppice, struct pool_entry *entry,
		     const struct deleting *deleting, struct coppice_error *err)
{
	_cleanup_(freep) struct volume_ref *refs = calloc(deleting->n, sizeof(*refs));
	_cleanup_(freep) struct uuid *uuids = calloc(deleting->n, sizeof(*uuids));
	size_t n = 0;

	if (!refs || !uuids)
		return fail_memory(err);
	for (size_t i = 0; i < deleting->n; i++) {
		if (deleting->volumes[i].entry != entry)
			continue;
		refs[n] = deleting->volumes[i].ref;
		uuids[n++] = deleting->volumes[i].record.uuid;
	}
	return n == 0 ? COPPICE_OK : retire(coppice, entry, refs, uuids, n, err);
}

/* Those of one pool, as far as the catalog knows; what it does not is looked for one by one. */
static size_t refs_in(struct coppice *coppice, const struct pool_entry *entry,
		      const struct deleting *deleting, struct volume_ref *ret)
{
	size_t n = 0;

	catalog_reading_begin(coppice->catalog);
	for (size_t i = 0; i < deleting->n; i++) {
		_cleanup_(freep) char *pool = NULL;
		struct coppice_error ignored;
		int kind;

		if (catalog_find(coppice->catalog, VOLUME_INSTANCES, deleting->refs[i].name.text,
				 &pool, &kind, &ignored) < 0 ||
		    !pool || strcmp(pool, entry->name) != 0)
			continue;
		ret[n] = deleting->refs[i];
		ret[n++].kind = (enum volume_kind)kind;
	}
	catalog_reading_end(coppice->catalog);
	return n;
}

/* One reading for all that goes from a pool. What fails here is told where it is found. */
static void read_ahead(struct coppice *coppice, const struct deleting *deleting)
{
	_cleanup_(freep) struct volume_ref *refs = calloc(deleting->n, sizeof(*refs));

	for (size_t i = 0; i < coppice->n_pools && refs; i++) {
		struct pool_entry *entry = coppice->pools[i];
		struct coppice_error ignored;
		size_t n;

		if (!entry->driver->reading_begin || refs_in(coppice, entry, deleting, refs) == 0 ||
		    pools_open_trusted(coppice, entry, &ignored) < 0)
			continue;
		/* Opened, it may turn out to have more of them. */
		n = refs_in(coppice, entry, deleting, refs);
		if (n > 0)
			(void)entry->driver->reading_begin(entry->pool, refs, n, &ignored);
	}
}

static int find_all(struct coppice *coppice, struct deleting *deleting, struct coppice_error *err)
{
	int r = COPPICE_OK;

	read_ahead(coppice, deleting);
	catalog_reading_begin(coppice->catalog);
	for (size_t i = 0; i < deleting->n && r == COPPICE_OK; i++) {
		r = volume_find_trusted(coppice, &deleting->refs[i], &deleting->volumes[i], err);
		deleting->n_found += r == COPPICE_OK;
	}
	catalog_reading_end(coppice->catalog);
	return r;
}

static int delete_locked(struct coppice *coppice, struct deleting *deleting, unsigned may_lose,
			 struct coppice_error *err)
{
	int r = find_all(coppice, deleting, err);

	if (r == COPPICE_OK)
		r = refuse_in_use(coppice, deleting->volumes, deleting->n, may_lose, err);
	if (r == COPPICE_OK && is_interrupted(coppice))
		r = fail(err, COPPICE_INTERRUPTED, "interrupted; nothing was deleted");
	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++)
		r = delete_in(coppice, coppice->pools[i], deleting, err);
	for (size_t i = 0; i < coppice->n_pools; i++)
		pool_reading_end(coppice->pools[i]);
	return r;
}

int coppice_delete(struct coppice *coppice, const char *const *names, size_t n, unsigned may_lose,
		   struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(deleting_done) struct deleting deleting = { 0 };
	int r;

	if (n == 0)
		return fail(err, COPPICE_INVALID, "nothing is named");
	r = parse_refs(names, n, &deleting, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < coppice->n_pools; i++)
		locks_add(&locks, LOCK_POOLS, coppice->pools[i]->name, false);
	for (size_t i = 0; i < deleting.n; i++)
		locks_add(&locks, LOCK_INSTANCES, deleting.refs[i].name.text, true);
	r = locks_take(coppice, &locks, err);
	return r < 0 ? r : delete_locked(coppice, &deleting, may_lose, err);
}
