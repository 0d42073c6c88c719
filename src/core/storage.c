/* SPDX-License-Identifier: Apache-2.0 */
/* Making, changing and listing pools. */
#include "core/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "base/file.h"
#include "base/text.h"

/* ---- keys ---- */

static const struct driver_key *driver_key(const struct driver *driver, const char *name)
{
	const struct driver_key *key = driver->pool_keys;

	while (key->name && strcmp(key->name, name) != 0)
		key++;
	return key->name ? key : NULL;
}

/* Of what volumes are limited by when they say nothing themselves. */
static bool is_default(const struct driver *driver, const char *key)
{
	return strncmp(key, "volume.", 7) == 0 && config_is_limit_key(driver, key + 7);
}

static bool driver_knows(const struct driver *driver, const char *key)
{
	if (strcmp(key, "source") == 0 || settings_is_user_key(key))
		return true;
	if (driver->traits.is_loop_able &&
	    (strcmp(key, "size") == 0 || strcmp(key, "source.wipe") == 0))
		return true;
	if (driver->pool_host &&
	    (strcmp(key, "coppice.watermark") == 0 || strcmp(key, "coppice.preallocate") == 0))
		return true;
	return driver_key(driver, key) != NULL || is_default(driver, key);
}

static int check_value(const struct driver *driver, const char *name, const char *value,
		       struct coppice_error *err)
{
	const struct driver_key *key = driver_key(driver, name);
	bool is_mark = strcmp(name, "coppice.watermark") == 0;
	bool is_size = strcmp(name, "size") == 0 || (key && key->is_size);
	uint64_t bytes = 0;

	if (is_size || is_mark)
		return size_parse(value, &bytes) && (is_mark || bytes > 0)
			       ? COPPICE_OK
			       : fail(err, COPPICE_INVALID, "%s '%s' is no size, such as 20GiB",
				      name, value);
	if ((strcmp(name, "coppice.preallocate") == 0 || is_default(driver, name)) &&
	    !text_is_one_of(value, "true|false"))
		return fail(err, COPPICE_INVALID, "%s '%s' is neither true nor false", name, value);
	if (key && key->values && !text_is_one_of(value, key->values))
		return fail(err, COPPICE_INVALID, "%s '%s' is none of %s", name, value,
			    key->values);
	return COPPICE_OK;
}

static int check_keys(const struct driver *driver, const struct coppice_setting *settings, size_t n,
		      struct coppice_error *err)
{
	for (size_t i = 0; i < n; i++) {
		const char *value = settings[i].value;

		if (!driver_knows(driver, settings[i].key))
			return fail(err, COPPICE_INVALID,
				    "unknown key '%s' for a pool of the %s driver", settings[i].key,
				    driver->name);
		if (value && strcmp(settings[i].key, "source") == 0 && !text_is_utf8(value))
			return fail(err, COPPICE_INVALID,
				    "source '%s' is not UTF-8, and records can hold nothing else",
				    value);
		if (value && check_value(driver, settings[i].key, value, err) < 0)
			return err->code;
	}
	return COPPICE_OK;
}

/* ---- create ---- */

static int find_driver(struct coppice *coppice, const char *name, const struct driver **ret,
		       struct coppice_error *err)
{
	_cleanup_(text_done) struct text known = TEXT_INIT;

	if (name) {
		*ret = driver_find(name);
		if (*ret)
			return COPPICE_OK;
		for (size_t i = 0; driver_at(i); i++)
			text_add(&known, "%s%s", i ? ", " : "", driver_at(i)->name);
		return fail(err, COPPICE_INVALID, "unknown driver '%s': there are %s", name,
			    known.data ? known.data : "none");
	}
	/* The best that this machine has; why the better ones are not, people should know. */
	for (size_t i = 0; driver_at(i); i++) {
		struct coppice_error why;
		struct pool_spec spec = { .name = "", .state_path = coppice->root };

		if ((!driver_at(i)->choose || driver_at(i)->choose(&why) == COPPICE_OK) &&
		    driver_at(i)->probe(&spec, &why) == COPPICE_OK) {
			*ret = driver_at(i);
			return COPPICE_OK;
		}
		notice(coppice, "not %s: %s", driver_at(i)->name, why.message);
		*err = why;
	}
	return err->code ? err->code : fail(err, COPPICE_UNSUPPORTED, "there is no driver");
}

void mark_done(struct mark *mark)
{
	closep(&mark->fd);
	mark->fd = -1;
}

int mark_create(struct coppice *coppice, const struct pool_entry *entry, const char *tail,
		struct mark *mark, struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	int r;

	(void)snprintf(mark->path, sizeof(mark->path), "pools/%s.%s", entry->name, tail);
	r = pool_entry_format(coppice, entry, true, &text, err);
	if (r < 0)
		return r;
	mark->fd = retry(
		openat(coppice->root_fd, mark->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	if (mark->fd < 0 && errno == EEXIST)
		return fail(err, COPPICE_BUSY, "pool '%s' is being made by another command",
			    entry->name);
	if (mark->fd < 0)
		return fail_errno(err, errno, "cannot create '%s/%s'", coppice->root, mark->path);
	(void)flock(mark->fd, LOCK_EX | LOCK_NB);
	r = write_all(mark->fd, text, strlen(text), mark->path, err);
	if (r == COPPICE_OK && retry(fsync(mark->fd)) < 0)
		r = fail_errno(err, errno, "cannot write out '%s/%s'", coppice->root, mark->path);
	if (r < 0)
		(void)unlinkat(coppice->root_fd, mark->path, 0);
	return r;
}

int sync_pools(struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(closep) int fd =
		openat(coppice->root_fd, "pools", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? fail_errno(err, errno, "cannot open '%s/pools'", coppice->root)
		      : directory_sync(fd, "pools", err);
}

/* From here the pool exists: the mark becomes its file. */
static int mark_publish(struct coppice *coppice, const struct mark *mark, const char *name,
			struct coppice_error *err)
{
	char path[128];
	int r;

	(void)snprintf(path, sizeof(path), "pools/%s.json", name);
	if (renameat(coppice->root_fd, mark->path, coppice->root_fd, path) < 0)
		return fail_errno(err, errno, "cannot keep '%s/%s'", coppice->root, path);
	r = sync_pools(coppice, err);
	if (r < 0)
		(void)renameat(coppice->root_fd, path, coppice->root_fd, mark->path);
	return r;
}

static int make_pool(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	_cleanup_(mark_done) struct mark mark = { .fd = -1 };
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;
	struct pool *pool = NULL;
	const char *remark;
	int r;

	r = pool_entry_format(coppice, entry, false, &record, err);
	if (r == COPPICE_OK)
		r = mark_create(coppice, entry, "creating", &mark, err);
	if (r < 0)
		return r;
	r = entry->driver->pool_create(&entry->spec, record, &pool, err);
	if (r == COPPICE_OK && is_interrupted(coppice))
		r = fail(err, COPPICE_INTERRUPTED, "interrupted; nothing was made");
	if (r == COPPICE_OK)
		r = mark_publish(coppice, &mark, entry->name, err);
	if (r < 0) {
		/* What does not answer may have made it all the same: a sweep looks, later. */
		bool is_gone = r != COPPICE_UNAVAILABLE;

		if (pool) {
			entry->driver->pool_close(pool);
			is_gone = entry->driver->pool_destroy(&entry->spec, &ignored) == COPPICE_OK;
		}
		if (is_gone)
			(void)unlinkat(coppice->root_fd, mark.path, 0);
		return r;
	}
	pool_adopt(coppice, entry, pool);
	remark = entry->driver->pool_remark ? entry->driver->pool_remark(pool) : NULL;
	if (remark)
		notice(coppice, "pool '%s' %s", entry->name, remark);
	return COPPICE_OK;
}

static void explain_create(struct coppice *coppice, const struct pool_entry *entry)
{
	if (entry->driver->pool_explain && coppice->options.hooks.explain)
		entry->driver->pool_explain(&entry->spec, coppice->options.hooks.explain,
					    coppice->options.hooks.user);
}

int begin_pool(struct coppice *coppice, const char *name, const char *driver_name,
	       const struct coppice_setting *settings, size_t n, struct locks *locks,
	       const struct driver **ret, struct coppice_error *err)
{
	struct volume_name checked;
	int r;

	r = pool_name_parse(name, &checked, err);
	if (r == COPPICE_OK)
		r = find_driver(coppice, driver_name, ret, err);
	if (r == COPPICE_OK)
		r = check_keys(*ret, settings, n, err);
	if (r < 0)
		return r;
	locks_add(locks, LOCK_POOLS, name, true);
	r = locks_take(coppice, locks, err);
	if (r < 0)
		return r;
	pools_done(coppice); /* another command may have made it while we waited */
	return pools_load(coppice, err);
}

int coppice_storage_create(struct coppice *coppice, const char *name, const char *driver_name,
			   const struct coppice_setting *settings, size_t n,
			   struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(pool_entry_freep) struct pool_entry *entry = NULL;
	const struct driver *driver;
	struct uuid uuid;
	int r;

	if (pools_get(coppice, name))
		return fail(err, COPPICE_EXISTS, "pool '%s' exists already", name);
	r = begin_pool(coppice, name, driver_name, settings, n, &locks, &driver, err);
	if (r == COPPICE_OK && pools_get(coppice, name))
		r = fail(err, COPPICE_EXISTS, "pool '%s' exists already", name);
	if (r == COPPICE_OK)
		r = uuid_new(&uuid, err);
	if (r == COPPICE_OK)
		r = pool_entry_new(coppice, name, driver, &uuid, settings, n, &entry, err);
	if (r == COPPICE_OK)
		r = driver->probe(&entry->spec, err);
	if (r == COPPICE_OK && driver->pool_check)
		r = driver->pool_check(&entry->spec, err);
	if (r < 0)
		return r;
	explain_create(coppice, entry);
	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	r = make_pool(coppice, entry, err);
	return r < 0 ? r : pool_entry_keep(coppice, take_ptr(&entry), err);
}

/* ---- set ---- */

int write_both(struct coppice *coppice, const struct pool_entry *entry, const char *before,
	       struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;
	int r;

	r = pool_entry_format(coppice, entry, false, &record, err);
	if (r < 0)
		return r;
	r = entry->driver->pool_record_write(entry->pool, record, err);
	if (r == COPPICE_OK)
		r = entry->driver->commit(entry->pool, err);
	if (r == COPPICE_OK)
		r = pool_entry_save(coppice, entry, err);
	if (r < 0)
		(void)entry->driver->pool_record_write(entry->pool, before, &ignored);
	return r;
}

static bool is_changeable(const struct driver *driver, const char *name)
{
	const struct driver_key *key = driver_key(driver, name);

	return settings_is_user_key(name) || strcmp(name, "coppice.watermark") == 0 ||
	       is_default(driver, name) || (key && key->is_changeable);
}

static int set_one(struct coppice *coppice, struct pool_entry *entry,
		   const struct coppice_setting *setting, struct coppice_error *err)
{
	uint64_t size;
	int r = check_keys(entry->driver, setting, 1, err);

	if (r < 0)
		return r;
	if (strcmp(setting->key, "size") == 0 && setting->value) {
		if (!entry->driver->pool_resize)
			return fail(err, COPPICE_UNSUPPORTED, "a pool of the %s driver has no size",
				    entry->driver->name);
		(void)size_parse(setting->value, &size);
		r = entry->driver->pool_resize(entry->pool, size, err);
	} else if (!is_changeable(entry->driver, setting->key)) {
		r = fail(err, COPPICE_INVALID, "'%s' cannot be changed after the pool was made",
			 setting->key);
	}
	return r < 0 ? r : settings_put(&entry->config, setting->key, setting->value, err);
}

int coppice_storage_set(struct coppice *coppice, const char *name,
			const struct coppice_setting *settings, size_t n, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(freep) char *before = NULL;
	struct coppice_error ignored;
	struct pool_entry *entry;
	int r;

	r = pools_find(coppice, name, &entry, err);
	if (r < 0)
		return r;
	locks_add(&locks, LOCK_POOLS, name, true);
	r = locks_take(coppice, &locks, err);
	if (r == COPPICE_OK)
		r = pools_open(coppice, entry, err);
	if (r == COPPICE_OK)
		r = entry->driver->pool_record_read(entry->pool, &before, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = set_one(coppice, entry, &settings[i], err);
	if (r == COPPICE_OK && !coppice->options.is_dry_run) {
		r = pool_hold(coppice, entry, err);
		if (r == COPPICE_OK)
			r = write_both(coppice, entry, before, err);
		pool_release(entry);
	}
	if (r < 0 && before) { /* as it was, for this handle too */
		pools_done(coppice);
		(void)pools_load(coppice, &ignored);
	}
	return r;
}

/* ---- list ---- */

void coppice_pool_list_free(struct coppice_pool_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		struct coppice_pool *pool = &list->pool[i];

		free(pool->name);
		free(pool->driver);
		free(pool->source);
		free(pool->mount);
		free(pool->problem);
		free(pool->uuid);
		settings_done(&pool->config);
	}
	free(list->pool);
	*list = (struct coppice_pool_list){ 0 };
}

static int count_row(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	*(size_t *)user += 1;
	return COPPICE_OK;
}

/* Only what is mounted is opened, to say where; the rest is said from the catalog. */
static int fill_pool(struct coppice *coppice, struct pool_entry *entry, struct coppice_pool *ret,
		     struct coppice_error *err)
{
	struct catalog_query query = { .pool = entry->name, .no_snapshots = true };
	struct coppice_error why;
	const char *mount = NULL;
	int r;

	ret->name = strdup(entry->name);
	ret->driver = strdup(entry->driver->name);
	ret->uuid = strdup(entry->uuid.text);
	ret->source = entry->source ? strdup(entry->source) : NULL;
	if (entry->driver->pool_is_mounted(&entry->spec)) {
		if (pools_open(coppice, entry, &why) < 0)
			ret->problem = strdup(why.message);
		else
			mount = entry->driver->pool_mount_path(entry->pool);
		ret->mount = mount ? strdup(mount) : NULL;
	}
	if (!ret->source)
		ret->source =
			text_format(entry->driver->traits.is_loop_able ? "%s/disks/%s.img"
								       : "%s/storage-pools/%s",
				    coppice->root, entry->name);
	if (!ret->name || !ret->driver || !ret->uuid || !ret->source)
		return fail_memory(err);
	r = settings_copy(&ret->config, &entry->config, err);
	return r < 0 ? r
		     : catalog_volumes(coppice->catalog, &query, count_row, &ret->n_volumes, err);
}

static int list_entries(struct coppice *coppice, struct pool_entry **entries, size_t n,
			struct coppice_pool_list *ret, struct coppice_error *err)
{
	struct coppice_pool_list list = { 0 };
	int r = COPPICE_OK;

	list.pool = calloc(n ? n : 1, sizeof(*list.pool));
	if (!list.pool)
		return fail_memory(err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		list.n = i + 1;
		r = fill_pool(coppice, entries[i], &list.pool[i], err);
	}
	if (r < 0) {
		coppice_pool_list_free(&list);
		return r;
	}
	*ret = list;
	return COPPICE_OK;
}

int coppice_storage_list(struct coppice *coppice, struct coppice_pool_list *ret,
			 struct coppice_error *err)
{
	return list_entries(coppice, coppice->pools, coppice->n_pools, ret, err);
}

int coppice_storage_get(struct coppice *coppice, const char *name, struct coppice_pool_list *ret,
			struct coppice_error *err)
{
	struct pool_entry *entry;
	int r = pools_find(coppice, name, &entry, err);

	return r < 0 ? r : list_entries(coppice, &entry, 1, ret, err);
}
