/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a pool over, from whoever has it. */
#include "core/storage.h"

#include <string.h>

#include "base/text.h"

/* The configuration that the pool itself remembers, unless it was given anew. */
static int remember_config(struct pool_entry *entry, json_t *record, struct coppice_error *err)
{
	_cleanup_(settings_done) struct coppice_settings config = { 0 };
	int r = settings_from_json(&config, json_object_get(record, "config"), err);

	for (size_t i = 0; i < config.n && r == COPPICE_OK; i++)
		if (!settings_get(&entry->config, config.setting[i].key))
			r = settings_put(&entry->config, config.setting[i].key,
					 config.setting[i].value, err);
	return r;
}

/* Who has a pool, as it says itself. */
struct pool_owner {
	char uuid[UUID_TEXT_SIZE];
	char path[PATH_MAX];
};

/* What the pool says of itself becomes the entry's. @ret: its record, free() it. */
static int adopt_record(struct pool_entry *entry, char **ret, struct pool_owner *ret_owner,
			struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	const char *uuid, *owner, *path;
	json_t *json;
	int r;

	r = entry->driver->pool_record_read(entry->pool, &record, err);
	if (r < 0)
		return r;
	json = json_loads(record, JSON_REJECT_DUPLICATES, NULL);
	uuid = json_string_value(json_object_get(json, "uuid"));
	owner = json_string_value(json_object_get(json, "owner"));
	path = json_string_value(json_object_get(json, "owner_path"));
	if (!uuid || !uuid_parse(uuid, &entry->uuid))
		r = fail(err, COPPICE_INVALID, "the record of the pool at '%s' is damaged",
			 entry->source);
	if (r == COPPICE_OK)
		r = remember_config(entry, json, err);
	(void)snprintf(ret_owner->uuid, sizeof(ret_owner->uuid), "%s", owner ? owner : "");
	(void)snprintf(ret_owner->path, sizeof(ret_owner->path), "%s", path ? path : "unknown");
	json_decref(json);
	*ret = take_ptr(&record);
	return r;
}

/*
 * A pool that another took over may be taken back, under the name that it has here; where
 * Coppice made what it lives on, it stays ours.
 */
static int check_known(struct coppice *coppice, struct pool_entry *entry, const char *owner,
		       struct coppice_error *err)
{
	const struct pool_entry *known = pools_get(coppice, entry->name);

	for (size_t i = 0; i < coppice->n_pools; i++) {
		const struct pool_entry *other = coppice->pools[i];

		if (strcmp(other->uuid.text, entry->uuid.text) != 0)
			continue;
		if (other != known || strcmp(owner, coppice->owner.text) == 0)
			return fail(err, COPPICE_EXISTS, "that pool is here already, as '%s'",
				    other->name);
	}
	if (!known)
		return COPPICE_OK;
	if (strcmp(known->uuid.text, entry->uuid.text) != 0)
		return fail(err, COPPICE_EXISTS, "pool '%s' exists already, and is another",
			    entry->name);
	if (!known->source) {
		free(entry->source);
		entry->source = NULL;
		entry->spec.source = NULL;
	}
	return COPPICE_OK;
}

/* Its record stays as it is: it is others' as well. Opened as ours, it knows who joins. */
static int join(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	_cleanup_(freep) char *others = NULL;
	struct coppice_error ignored;
	struct pool *pool;
	int r;

	pool_entry_close(entry);
	r = entry->driver->pool_open(&entry->spec, &pool, err);
	if (r < 0)
		return r;
	pool_adopt(coppice, entry, pool);
	r = entry->driver->pool_join(entry->pool, err);
	if (r < 0)
		return r;
	r = pool_entry_save(coppice, entry, err);
	if (r < 0)
		(void)entry->driver->pool_leave(entry->pool, &others, &ignored);
	return r;
}

/* Everything but to write it, in a dry run. */
static int take_over(struct coppice *coppice, struct pool_entry *entry, bool was_mounted,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	struct pool_owner owner;
	int r;

	r = adopt_record(entry, &record, &owner, err);
	if (r == COPPICE_OK)
		r = check_known(coppice, entry, owner.uuid, err);
	if (r < 0)
		return r;
	if (!was_mounted && entry->driver->pool_open_explain && coppice->options.hooks.explain)
		entry->driver->pool_open_explain(&entry->spec, coppice->options.hooks.explain,
						 coppice->options.hooks.user);
	if (!entry->driver->pool_join)
		notice(coppice, "pool '%s' is taken over from the state directory '%s'",
		       entry->name, owner.path);
	entry->spec.uuid = entry->uuid;
	entry->spec.owner = coppice->owner;
	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	return entry->driver->pool_join ? join(coppice, entry, err)
					: write_both(coppice, entry, record, err);
}

/* Open it, whoever has it, and take it over. */
static int recover(struct coppice *coppice, struct pool_entry *entry, bool was_mounted,
		   struct coppice_error *err)
{
	struct pool *pool;
	int r = entry->driver->pool_open(&entry->spec, &pool, err);

	if (r < 0)
		return wrap(err, "cannot recover pool '%s'", entry->name);
	pool_adopt(coppice, entry, pool);
	/* Nobody, in whatever state directory, changes the pool while it gets another owner. */
	r = pool_hold_as(coppice, entry, POOL_ALONE, err);
	if (r == COPPICE_OK)
		r = take_over(coppice, entry, was_mounted, err);
	pool_entry_close(entry);
	return r;
}

/* The same where it must be mounted for that; it stays so if it is ours then, and only then. */
static int mount_and_recover(struct coppice *coppice, struct pool_entry *entry,
			     struct coppice_error *err)
{
	_cleanup_(mark_done) struct mark mark = { .fd = -1 };
	struct coppice_error why;
	char place[128];
	bool was_there;
	int r;

	(void)snprintf(place, sizeof(place), "mnt/%s", entry->name);
	was_there = faccessat(coppice->root_fd, place, F_OK, 0) == 0;
	r = uuid_new(&entry->uuid, err); /* of the mark; the pool has its own */
	if (r == COPPICE_OK)
		r = mark_create(coppice, entry, "recovering", &mark, err);
	if (r < 0)
		return r;
	r = recover(coppice, entry, false, err);
	if ((r < 0 || coppice->options.is_dry_run) &&
	    pool_entry_unmount(coppice, entry, !was_there, &why) < 0)
		notice(coppice, "pool '%s' stays mounted for now: %s", entry->name, why.message);
	else
		(void)unlinkat(coppice->root_fd, mark.path, 0);
	return r;
}

int coppice_storage_recover(struct coppice *coppice, const char *name, const char *driver_name,
			    const struct coppice_setting *settings, size_t n,
			    struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(pool_entry_freep) struct pool_entry *entry = NULL;
	struct uuid none = { "" };
	const struct driver *driver;
	int r;

	if (!driver_name)
		return fail(err, COPPICE_INVALID, "recovering a pool needs its driver");
	r = begin_pool(coppice, name, driver_name, settings, n, &locks, &driver, err);
	if (r == COPPICE_OK)
		r = pool_entry_new(coppice, name, driver, &none, settings, n, &entry, err);
	if (r == COPPICE_OK && !entry->source)
		r = fail(err, COPPICE_INVALID, "recovering a pool needs source=…");
	if (r < 0)
		return r;
	entry->spec.owner = none;
	r = driver->pool_is_mounted(&entry->spec) ? recover(coppice, entry, true, err)
						  : mount_and_recover(coppice, entry, err);
	if (r < 0 || coppice->options.is_dry_run)
		return r;
	pools_done(coppice);
	r = pools_load(coppice, err);
	return r < 0 ? r : pools_open(coppice, pools_get(coppice, name), err);
}
