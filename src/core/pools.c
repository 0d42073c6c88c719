/* SPDX-License-Identifier: Apache-2.0 */
/* Which pools there are, opening them, and choosing one. */
#include "core/pools.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>

#include "base/file.h"
#include "base/text.h"

#define VERSION       1 /* of a pool's file and record */
#define POOL_FILE_MAX (1 << 20)

void pool_entry_close(struct pool_entry *entry)
{
	if (entry->pool)
		entry->driver->pool_close(entry->pool);
	entry->pool = NULL;
	entry->is_fresh = false;
	entry->is_held = false;
}

void pool_entry_free(struct pool_entry *entry)
{
	if (!entry)
		return;
	pool_entry_close(entry);
	free(entry->name);
	free(entry->source);
	settings_done(&entry->config);
	free(entry);
}

void pools_done(struct coppice *coppice)
{
	for (size_t i = 0; i < coppice->n_pools; i++)
		pool_entry_free(coppice->pools[i]);
	free(coppice->pools);
	coppice->pools = NULL;
	coppice->n_pools = 0;
}

static const char *spec_get(const struct pool_spec *spec, const char *key)
{
	const struct pool_entry *entry = spec->config;

	return settings_get(&entry->config, key);
}

int pool_entry_new(struct coppice *coppice, const char *name, const struct driver *driver,
		   const struct uuid *uuid, const struct coppice_setting *settings, size_t n,
		   struct pool_entry **ret, struct coppice_error *err)
{
	_cleanup_(pool_entry_freep) struct pool_entry *entry = calloc(1, sizeof(*entry));
	int r = COPPICE_OK;

	if (!entry)
		return fail_memory(err);
	entry->coppice = coppice;
	entry->name = strdup(name);
	entry->driver = driver;
	entry->uuid = *uuid;
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		if (strcmp(settings[i].key, "source") == 0) {
			free(entry->source);
			entry->source = strdup(settings[i].value);
			r = entry->source ? COPPICE_OK : fail_memory(err);
		} else {
			r = settings_put(&entry->config, settings[i].key, settings[i].value, err);
		}
	}
	if (!entry->name)
		r = fail_memory(err);
	if (r < 0)
		return r;
	entry->spec = (struct pool_spec){
		.name = entry->name,
		.state_path = coppice->root,
		.lock_timeout_ms = coppice->options.lock_timeout_ms,
		.is_dry_run = coppice->options.is_dry_run,
		.source = entry->source,
		.get = spec_get,
		.config = entry,
		.uuid = *uuid,
		.owner = coppice->owner,
	};
	*ret = take_ptr(&entry);
	return COPPICE_OK;
}

static int compare_entries(const void *a, const void *b)
{
	const struct pool_entry *const *x = a, *const *y = b;

	return natural_compare((*x)->name, (*y)->name);
}

int pool_entry_keep(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	struct pool_entry **more =
		reallocarray(coppice->pools, coppice->n_pools + 1, sizeof(struct pool_entry *));

	if (!more) {
		pool_entry_free(entry);
		return fail_memory(err);
	}
	coppice->pools = more;
	more[coppice->n_pools++] = entry;
	qsort(more, coppice->n_pools, sizeof(struct pool_entry *), compare_entries);
	return COPPICE_OK;
}

/* ---- files ---- */

int pool_entry_format(struct coppice *coppice, const struct pool_entry *entry, bool is_for_people,
		      char **ret, struct coppice_error *err)
{
	size_t flags = is_for_people ? JSON_INDENT(2) : JSON_COMPACT | JSON_ENSURE_ASCII;
	json_t *json = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s*, s:o}", "uuid", entry->uuid.text,
				 "version", VERSION, "driver", entry->driver->name, "owner",
				 coppice->owner.text, "owner_path", coppice->root, "source",
				 entry->source, "config", settings_to_json(&entry->config));
	char *text = json ? json_dumps(json, flags) : NULL;

	json_decref(json);
	if (!text)
		return fail_memory(err);
	*ret = text;
	return COPPICE_OK;
}

int pool_entry_save(struct coppice *coppice, const struct pool_entry *entry,
		    struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("pools/%s.json", entry->name);
	_cleanup_(freep) char *text = NULL;
	int r;

	if (!path)
		return fail_memory(err);
	r = pool_entry_format(coppice, entry, true, &text, err);
	return r < 0 ? r : file_write(coppice->root_fd, path, text, true, err);
}

static int parse_entry(struct coppice *coppice, const char *name, json_t *json,
		       struct pool_entry **ret, struct coppice_error *err)
{
	const char *driver_name = json_string_value(json_object_get(json, "driver"));
	const char *uuid_text = json_string_value(json_object_get(json, "uuid"));
	const char *source = json_string_value(json_object_get(json, "source"));
	const struct driver *driver = driver_name ? driver_find(driver_name) : NULL;
	_cleanup_(settings_done) struct coppice_settings config = { 0 };
	struct uuid uuid;
	int r;

	if (json_integer_value(json_object_get(json, "version")) > VERSION)
		return fail(err, COPPICE_UNSUPPORTED, "a newer version of Coppice wrote it");
	if (!uuid_text || !uuid_parse(uuid_text, &uuid))
		return fail(err, COPPICE_INVALID, "it has no uuid");
	if (!driver)
		return fail(err, COPPICE_UNSUPPORTED, "this build has no driver '%s'",
			    driver_name ? driver_name : "");
	r = settings_from_json(&config, json_object_get(json, "config"), err);
	if (r == COPPICE_OK && source)
		r = settings_put(&config, "source", source, err);
	if (r < 0)
		return r;
	return pool_entry_new(coppice, name, driver, &uuid, config.setting, config.n, ret, err);
}

int pool_entry_parse(struct coppice *coppice, const char *name, const char *text,
		     struct pool_entry **ret, struct coppice_error *err)
{
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int r = parse_entry(coppice, name, json, ret, err);

	json_decref(json);
	return r;
}

static int load_file(struct coppice *coppice, const char *file, const char *name,
		     struct pool_entry **ret, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("pools/%s", file);
	_cleanup_(freep) char *text = NULL;
	struct coppice_error why;
	int r;

	if (!path)
		return fail_memory(err);
	r = file_read(coppice->root_fd, path, POOL_FILE_MAX, &text, err);
	if (r < 0)
		return r;
	r = pool_entry_parse(coppice, name, text, ret, &why);
	if (r == COPPICE_INVALID)
		return fail(
			err, COPPICE_FAILED,
			"'%s/%s' is damaged (%s); remove it, and then: coppice storage recover %s "
			"DRIVER source=SOURCE",
			coppice->root, path, why.message, name);
	if (r < 0) {
		*err = why;
		return wrap(err, "'%s/%s' cannot be used", coppice->root, path);
	}
	return COPPICE_OK;
}

/* "default.json" with tail ".json" → "default". */
static bool strip_tail(const char *file, const char *tail, char name[static 256])
{
	size_t length = strlen(file), tail_length = strlen(tail);

	if (length <= tail_length || length > 255 || strcmp(file + length - tail_length, tail) != 0)
		return false;
	(void)snprintf(name, 256, "%.*s", (int)(length - tail_length), file);
	return true;
}

typedef int pool_file_fn(struct coppice *coppice, const char *file, const char *name,
			 struct coppice_error *err);

/* Call @fn for each file in pools/ that ends so. */
static int each_file(struct coppice *coppice, const char *tail, pool_file_fn *fn,
		     struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	char name[256];
	int fd, r = COPPICE_OK;

	fd = openat(coppice->root_fd, "pools", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || !(dir = fdopendir(fd))) {
		closep(&fd);
		return fail_errno(err, errno, "cannot read '%s/pools'", coppice->root);
	}
	while (r == COPPICE_OK && (entry = readdir(dir)) != NULL)
		if (strip_tail(entry->d_name, tail, name))
			r = fn(coppice, entry->d_name, name, err);
	return r;
}

static int load_one(struct coppice *coppice, const char *file, const char *name,
		    struct coppice_error *err)
{
	struct pool_entry *entry;
	int r = load_file(coppice, file, name, &entry, err);

	return r < 0 ? r : pool_entry_keep(coppice, entry, err);
}

int pool_entry_unmount(struct coppice *coppice, struct pool_entry *entry, bool is_place_ours,
		       struct coppice_error *err)
{
	_cleanup_(freep) char *place = text_format("mnt/%s", entry->name);
	int r = entry->driver->pool_umount(&entry->spec, err);

	if (r == COPPICE_OK && is_place_ours && place)
		(void)unlinkat(coppice->root_fd, place, AT_REMOVEDIR);
	return r;
}

/* What it mounted goes; unless the pool is known here: then the next one would mount it again. */
static int end_recover(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	_cleanup_(freep) char *known = text_format("pools/%s.json", entry->name);

	if (!known)
		return fail_memory(err);
	if (faccessat(coppice->root_fd, known, F_OK, 0) == 0)
		return COPPICE_OK;
	return pool_entry_unmount(coppice, entry, true, err);
}

static int end_making(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	return entry->driver->pool_destroy(&entry->spec, err);
}

/* Only if nobody holds the file: then its maker is gone. */
static int sweep_file(struct coppice *coppice, const char *file, const char *name,
		      int (*end)(struct coppice *, struct pool_entry *, struct coppice_error *),
		      struct coppice_error *err)
{
	_cleanup_(pool_entry_freep) struct pool_entry *entry = NULL;
	_cleanup_(freep) char *path = text_format("pools/%s", file);
	_cleanup_(closep) int fd = -1;
	struct coppice_error why;

	if (!path)
		return fail_memory(err);
	fd = openat(coppice->root_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return COPPICE_OK;
	if (load_file(coppice, file, name, &entry, &why) < 0) {
		/* Killed before its first line was written: nothing was made yet. */
		(void)unlinkat(coppice->root_fd, path, 0);
		return COPPICE_OK;
	}
	if (end(coppice, entry, &why) < 0)
		notice(coppice, "cannot remove what is left of pool '%s': %s", name, why.message);
	else
		(void)unlinkat(coppice->root_fd, path, 0);
	return COPPICE_OK;
}

static int sweep_one(struct coppice *coppice, const char *file, const char *name,
		     struct coppice_error *err)
{
	return sweep_file(coppice, file, name, end_making, err);
}

static int sweep_recover(struct coppice *coppice, const char *file, const char *name,
			 struct coppice_error *err)
{
	return sweep_file(coppice, file, name, end_recover, err);
}

void pools_sweep(struct coppice *coppice)
{
	struct coppice_error ignored;

	if (coppice->options.is_dry_run)
		return;
	(void)each_file(coppice, ".creating", sweep_one, &ignored);
	(void)each_file(coppice, ".deleting", sweep_one, &ignored);
	(void)each_file(coppice, ".recovering", sweep_recover, &ignored);
}

int pools_load(struct coppice *coppice, struct coppice_error *err)
{
	pools_sweep(coppice);
	return each_file(coppice, ".json", load_one, err);
}

/* ---- finding ---- */

struct pool_entry *pools_get(struct coppice *coppice, const char *name)
{
	for (size_t i = 0; i < coppice->n_pools; i++)
		if (strcmp(coppice->pools[i]->name, name) == 0)
			return coppice->pools[i];
	return NULL;
}

int pools_find(struct coppice *coppice, const char *name, struct pool_entry **ret,
	       struct coppice_error *err)
{
	struct volume_name ignored;
	int r = pool_name_parse(name, &ignored, err);

	if (r < 0)
		return r;
	*ret = pools_get(coppice, name);
	return *ret ? COPPICE_OK
		    : fail(err, COPPICE_NOT_FOUND, "no pool '%s'; see: coppice storage list", name);
}

static int refuse_choice(struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(text_done) struct text names = TEXT_INIT;

	if (coppice->n_pools == 0)
		return fail(err, COPPICE_NOT_FOUND,
			    "there is no pool yet; make one: coppice storage create default");
	for (size_t i = 0; i < coppice->n_pools; i++)
		text_add(&names, "%s'%s'", i ? ", " : "", coppice->pools[i]->name);
	return fail(err, COPPICE_INVALID,
		    "no pool is called 'default' and there are several: choose one of %s with "
		    "--storage",
		    names.data ? names.data : "");
}

int pools_choose(struct coppice *coppice, const char *name, unsigned how, struct pool_entry **ret,
		 struct coppice_error *err)
{
	struct pool_entry *entry = NULL;
	int r = COPPICE_OK;

	if (name) {
		r = pools_find(coppice, name, &entry, err);
	} else {
		entry = pools_get(coppice, "default");
		if (!entry && coppice->n_pools == 1)
			entry = coppice->pools[0];
		if (!entry && coppice->n_pools == 0 && (how & POOLS_MAY_MAKE)) {
			notice(coppice, "there is no pool yet: making 'default'");
			r = coppice_storage_create(coppice, "default", NULL, NULL, 0, err);
			entry = pools_get(coppice, "default");
		}
		if (!entry && r == COPPICE_OK)
			r = refuse_choice(coppice, err);
	}
	if (r == COPPICE_OK)
		r = how & POOLS_TRUSTED ? pools_open_trusted(coppice, entry, err)
					: pools_open(coppice, entry, err);
	if (r == COPPICE_OK)
		*ret = entry;
	return r;
}

/* ---- opening ---- */

/*
 * A sweep published what the catalog has no rows of: so what it knows of this pool is not
 * believed, also when somebody who is changing the pool just now stores its stamp.
 */
static int distrust_catalog(void *user, struct coppice_error *err)
{
	struct pool_entry *entry = user;
	struct catalog *catalog = entry->coppice->catalog;
	int r = catalog_begin(catalog, err);

	if (r == COPPICE_OK)
		r = catalog_stamp_put(catalog, entry->name, 0, err);
	if (r == COPPICE_OK)
		return catalog_commit(catalog, err);
	catalog_rollback(catalog);
	return r;
}

void pool_adopt(struct coppice *coppice, struct pool_entry *entry, struct pool *pool)
{
	pool->explain = coppice->options.hooks.explain;
	pool->explain_user = coppice->options.hooks.user;
	pool->is_interrupted = coppice->options.hooks.is_interrupted;
	pool->interrupted_user = coppice->options.hooks.user;
	pool->note_published = distrust_catalog;
	pool->published_user = entry;
	pool->tries_again_ms = entry->tries_again_ms;
	pool->is_dry_run = coppice->options.is_dry_run;
	entry->driver = pool->driver; /* what it was before may only have stood for it */
	entry->pool = pool;
}

static void sweep(struct coppice *coppice, struct pool_entry *entry)
{
	bool was_unswept = entry->is_unswept;
	struct coppice_error why;
	size_t n = 0;

	/* A sweep may change the catalog: nobody waits for one while he keeps it from that. */
	catalog_reading_end(coppice->catalog);
	entry->is_unswept = entry->driver->draft_sweep(entry->pool, &n, &why) < 0;
	entry->tries_again_ms = entry->pool->tries_again_ms;
	if (entry->is_unswept && !was_unswept)
		notice(coppice, "cannot sweep pool '%s': %s", entry->name, why.message);
	entry->is_swept = entry->is_swept || n > 0;
}

int pools_settle(struct coppice *coppice, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++) {
		struct pool_entry *entry = coppice->pools[i];

		if (!entry->pool)
			continue;
		sweep(coppice, entry);
		if (entry->is_swept)
			r = catalog_refresh(coppice, entry, err);
	}
	return r;
}

/* Linux makes it so when the disk below fails or is full; what was acknowledged is whole. */
static void tell_of_read_only(struct coppice *coppice, const struct pool_entry *entry)
{
	const char *path = entry->driver->pool_mount_path(entry->pool);
	struct statvfs fs;

	if (path && statvfs(path, &fs) == 0 && (fs.f_flag & ST_RDONLY))
		notice(coppice,
		       "pool '%s' is read-only: was it mounted so, or is its disk full, or broken "
		       "(dmesg)? With some space free there: coppice storage umount %s; the next "
		       "command mounts it again",
		       entry->name, entry->name);
}

static int open_and_sweep(struct coppice *coppice, struct pool_entry *entry,
			  struct coppice_error *err)
{
	struct pool *pool;
	int r;

	if (entry->pool)
		return COPPICE_OK;
	r = entry->driver->pool_open(&entry->spec, &pool, err);
	if (r < 0) {
		/* The pool is known; what it lives on is not there now. */
		if (err->code == COPPICE_NOT_FOUND)
			err->code = COPPICE_UNAVAILABLE;
		return wrap(err, "cannot open pool '%s'", entry->name);
	}
	pool_adopt(coppice, entry, pool);
	tell_of_read_only(coppice, entry);
	sweep(coppice, entry);
	r = locks_tell(coppice, entry, err);
	if (r < 0)
		pool_entry_close(entry);
	return r;
}

int pools_open(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	int r = open_and_sweep(coppice, entry, err);

	return r < 0 || entry->is_fresh ? r : catalog_refresh(coppice, entry, err);
}

int pools_open_trusted(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	uint64_t known = 0;
	int r = open_and_sweep(coppice, entry, err);

	if (r == COPPICE_OK && entry->driver->stamp_part && !entry->is_swept)
		r = catalog_stamp_get(coppice->catalog, entry->name, &known, err);
	return r < 0 || known != 0 ? r : pools_open(coppice, entry, err);
}

int pools_look_begin(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	struct coppice_error ignored;
	int r = open_and_sweep(coppice, entry, err);

	/* Who keeps what changed needs no reading of all for the catalog. */
	if (r == COPPICE_OK && entry->driver->changes)
		r = pools_open(coppice, entry, err);
	/* What fails here fails again where it is asked. */
	if (r == COPPICE_OK && entry->driver->reading_begin)
		(void)entry->driver->reading_begin(entry->pool, NULL, 0, &ignored);
	return r < 0 ? r : pools_open(coppice, entry, err);
}

void pools_look_end(struct coppice *coppice)
{
	for (size_t i = 0; i < coppice->n_pools; i++)
		pool_reading_end(coppice->pools[i]);
}

typedef int pools_open_fn(struct coppice *coppice, struct pool_entry *entry,
			  struct coppice_error *err);

static void open_all(struct coppice *coppice, pools_open_fn *open)
{
	for (size_t i = 0; i < coppice->n_pools; i++) {
		struct coppice_error why;

		if (open(coppice, coppice->pools[i], &why) < 0)
			notice(coppice, "%s", why.message);
	}
	moves_finish(coppice);
}

void pools_open_all(struct coppice *coppice)
{
	open_all(coppice, pools_open);
}

void pools_look_begin_all(struct coppice *coppice)
{
	open_all(coppice, pools_look_begin);
}
