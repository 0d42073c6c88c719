/* SPDX-License-Identifier: Apache-2.0 */
/* Making, listing, changing and deleting pools. */
#include "core/pools.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "core/instances.h"

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

/* Is it one of "one|two|three"? */
static bool is_one_of(const char *value, const char *values)
{
	size_t n = strlen(value);

	for (const char *v = values; v; v = strchr(v, '|') ? strchr(v, '|') + 1 : NULL)
		if (strncmp(v, value, n) == 0 && (v[n] == '\0' || v[n] == '|'))
			return n > 0;
	return false;
}

static int check_value(const struct driver *driver, const char *name, const char *value,
		       struct coppice_error *err)
{
	bool is_size = strcmp(name, "size") == 0, is_mark = strcmp(name, "coppice.watermark") == 0;
	const struct driver_key *key = driver_key(driver, name);
	uint64_t bytes = 0;

	if (is_size || is_mark)
		return size_parse(value, &bytes) && (is_mark || bytes > 0)
			       ? COPPICE_OK
			       : fail(err, COPPICE_INVALID, "%s '%s' is no size, such as 20GiB",
				      name, value);
	if ((strcmp(name, "coppice.preallocate") == 0 || is_default(driver, name)) &&
	    !is_one_of(value, "true|false"))
		return fail(err, COPPICE_INVALID, "%s '%s' is neither true nor false", name, value);
	if (key && key->values && !is_one_of(value, key->values))
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

/* The mark that a pool of this name is being made or recovered, held by flock meanwhile. */
struct mark {
	int fd;
	char path[128];
};

static void mark_done(struct mark *mark)
{
	closep(&mark->fd);
	mark->fd = -1;
}

static int mark_create(struct coppice *coppice, const struct pool_entry *entry, const char *tail,
		       struct mark *mark, struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	int r;

	(void)snprintf(mark->path, sizeof(mark->path), "pools/%s.%s", entry->name, tail);
	r = pool_entry_format(coppice, entry, &text, err);
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

static int sync_pools(struct coppice *coppice, struct coppice_error *err)
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

	r = pool_entry_format(coppice, entry, &record, err);
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
		if (pool) {
			entry->driver->pool_close(pool);
			(void)entry->driver->pool_destroy(&entry->spec, &ignored);
		}
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

/* A name, a driver that can, keys that it knows, under the lock on the name. */
static int begin_pool(struct coppice *coppice, const char *name, const char *driver_name,
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

/* ---- recover ---- */

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

/* Both places say the same of it: the pool, and the file that makes it known here. */
static int write_both(struct coppice *coppice, const struct pool_entry *entry, const char *before,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;
	int r;

	r = pool_entry_format(coppice, entry, &record, err);
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
	notice(coppice, "pool '%s' is taken over from the state directory '%s'", entry->name,
	       owner.path);
	entry->spec.uuid = entry->uuid;
	entry->spec.owner = coppice->owner;
	return coppice->options.is_dry_run ? COPPICE_OK : write_both(coppice, entry, record, err);
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

/* ---- delete ---- */

struct counting {
	size_t n;
	struct text names;
};

static int count_volume(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct counting *counting = user;

	if (volume_is_snapshot(&found->ref))
		return COPPICE_OK;
	if (counting->n++ < 10)
		text_add(&counting->names, "%s%.20s", counting->n > 1 ? ", " : "",
			 found->ref.name.text);
	return COPPICE_OK;
}

struct emptying {
	struct volume_ref *refs;
	struct uuid *uuids;
	size_t n;
};

static int collect_volume(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct emptying *emptying = user;
	struct record record = { 0 };
	struct coppice_error ignored;
	struct volume_ref *refs;
	struct uuid *uuids;
	int r = COPPICE_OK;

	if (volume_is_snapshot(&found->ref))
		return COPPICE_OK;
	refs = reallocarray(emptying->refs, emptying->n + 1, sizeof(*refs));
	if (refs)
		emptying->refs = refs;
	uuids = reallocarray(emptying->uuids, emptying->n + 1, sizeof(*uuids));
	if (uuids)
		emptying->uuids = uuids;
	if (!refs || !uuids)
		return fail_memory(err);
	if (found->record && record_parse(found->record, &record, &ignored) == COPPICE_OK)
		uuids[emptying->n] = record.uuid;
	else
		r = uuid_new(&uuids[emptying->n], err);
	refs[emptying->n++] = found->ref;
	record_done(&record);
	return r;
}

/*
 * Before anything is lost: a pool that is in use cannot be unmounted after it. Our own
 * descriptors use it, too; meanwhile there are none.
 */
static int refuse_pool_in_use(struct coppice *coppice, struct pool_entry *entry,
			      const struct emptying *emptying, struct coppice_error *err)
{
	int r = COPPICE_OK;

	if (entry->driver->in_use)
		r = entry->driver->in_use(entry->pool, emptying->refs, emptying->n, NULL, NULL,
					  err);
	if (r < 0 || !entry->driver->pool_can_umount)
		return r;
	pool_entry_close(entry);
	r = entry->driver->pool_can_umount(&entry->spec, err);
	return r < 0 ? wrap(err, "cannot delete pool '%s'", entry->name)
		     : pools_open(coppice, entry, err);
}

static int empty_pool(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	struct emptying emptying = { 0 };
	int r = entry->driver->scan(entry->pool, collect_volume, &emptying, err);

	if (r == COPPICE_OK && emptying.n)
		r = refuse_pool_in_use(coppice, entry, &emptying, err);
	for (size_t i = 0; i < emptying.n && r == COPPICE_OK; i++)
		notice(coppice, "deleting %s '%s'", volume_kind_name(emptying.refs[i].kind),
		       emptying.refs[i].name.text);
	if (r == COPPICE_OK && emptying.n)
		r = retire(coppice, entry, emptying.refs, emptying.uuids, emptying.n, err);
	free(emptying.refs);
	free(emptying.uuids);
	return r;
}

static int refuse_volumes(struct pool_entry *entry, struct coppice_error *err)
{
	struct counting counting = { .names = TEXT_INIT };
	int r = entry->driver->scan(entry->pool, count_volume, &counting, err);

	if (r == COPPICE_OK && counting.n > 0)
		r = fail(err, COPPICE_BUSY,
			 "pool '%s' has %zu volume%s: %s%s; delete them first, or use --force",
			 entry->name, counting.n, counting.n == 1 ? "" : "s",
			 counting.names.data ? counting.names.data : "",
			 counting.n > 10 ? ", …" : "");
	text_done(&counting.names);
	return r;
}

/* The file says how far it is: NAME.deleting, until all is gone. */
static int mark_deleted(struct coppice *coppice, const char *path, const char *mark,
			struct coppice_error *err)
{
	int r;

	if (renameat(coppice->root_fd, path, coppice->root_fd, mark) < 0)
		return fail_errno(err, errno, "cannot delete '%s/%s'", coppice->root, path);
	r = sync_pools(coppice, err);
	if (r < 0)
		(void)renameat(coppice->root_fd, mark, coppice->root_fd, path);
	return r;
}

static int destroy_pool(struct coppice *coppice, struct pool_entry *entry,
			struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	struct coppice_error why;
	char path[128], mark[128];
	int r;

	(void)snprintf(path, sizeof(path), "pools/%s.json", entry->name);
	(void)snprintf(mark, sizeof(mark), "pools/%s.deleting", entry->name);
	fd = openat(coppice->root_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)flock(fd, LOCK_EX | LOCK_NB);
	pool_entry_close(entry);
	/* What is in use shows when it is unmounted; before that nothing is lost. */
	r = entry->driver->pool_umount(&entry->spec, err);
	if (r < 0)
		return wrap(err, "cannot delete pool '%s'", entry->name);
	r = mark_deleted(coppice, path, mark, err);
	if (r < 0) {
		(void)pools_open(coppice, entry, &why); /* mounted, as it was */
		return r;
	}
	/* From here it is deleted; what cannot be removed now is by the next command. */
	if (entry->driver->pool_destroy(&entry->spec, &why) < 0)
		notice(coppice, "of pool '%s' not all could be removed yet: %s", entry->name,
		       why.message);
	else
		(void)unlinkat(coppice->root_fd, mark, 0);
	return COPPICE_OK;
}

/* Comes first: what the catalog does not know it reads again, if the pool stays. */
static int forget_pool(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	int r = catalog_begin(coppice->catalog, err);

	if (r == COPPICE_OK)
		r = catalog_pool_clear(coppice->catalog, name, err);
	if (r == COPPICE_OK)
		r = catalog_stamp_put(coppice->catalog, name, 0, err);
	if (r == COPPICE_OK)
		r = images_rebuild(coppice, err);
	if (r == COPPICE_OK)
		return catalog_commit(coppice->catalog, err);
	catalog_rollback(coppice->catalog);
	return r;
}

/* Is what it lives on not there, and not just no answer to be had? */
static bool is_gone(struct pool_entry *entry)
{
	struct coppice_error why = { 0 };
	struct pool *pool;

	if (entry->driver->pool_open(&entry->spec, &pool, &why) == COPPICE_OK)
		entry->driver->pool_close(pool);
	return why.code == COPPICE_NOT_FOUND;
}

/* @why: it cannot be opened. */
static int delete_gone(struct coppice *coppice, struct pool_entry *entry, const char *why,
		       struct coppice_error *err)
{
	int r = COPPICE_OK;

	notice(coppice, "%s; so it is forgotten, with all that was in it", why);
	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	/* Before the catalog forgets what it could not read again. */
	r = entry->driver->pool_umount(&entry->spec, err);
	if (r < 0)
		return wrap(err, "cannot delete pool '%s'", entry->name);
	r = forget_pool(coppice, entry->name, err);
	if (r == COPPICE_OK)
		r = destroy_pool(coppice, entry, err);
	pools_done(coppice);
	return r < 0 ? r : pools_load(coppice, err);
}

int coppice_storage_delete(struct coppice *coppice, const char *name, bool is_forced,
			   struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	struct coppice_error why;
	struct pool_entry *entry;
	int r;

	r = pools_find(coppice, name, &entry, err);
	if (r < 0)
		return r;
	locks_add(&locks, LOCK_POOLS, name, true);
	r = locks_take(coppice, &locks, err);
	if (r < 0)
		return r;
	r = pools_open(coppice, entry, &why);
	if (r == COPPICE_UNAVAILABLE && is_forced && is_gone(entry))
		return delete_gone(coppice, entry, why.message, err);
	if (r < 0) {
		*err = why;
		return r;
	}
	if (entry->is_unswept && !is_forced)
		r = fail(err, COPPICE_BUSY,
			 "pool '%s' has leftovers that cannot be swept, and may hold volumes; see: "
			 "coppice check",
			 name);
	if (r == COPPICE_OK)
		r = is_forced ? empty_pool(coppice, entry, err) : refuse_volumes(entry, err);
	if (r < 0 || coppice->options.is_dry_run)
		return r;
	r = pool_hold(coppice, entry, err); /* closing it gives it back */
	if (r == COPPICE_OK)
		r = forget_pool(coppice, name, err);
	if (r == COPPICE_OK)
		r = destroy_pool(coppice, entry, err);
	pools_done(coppice);
	return r < 0 ? r : pools_load(coppice, err);
}

/* ---- set ---- */

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

/* ---- mount ---- */

typedef int pool_entry_fn(struct coppice *coppice, struct pool_entry *entry,
			  struct coppice_error *err);

/* Do it to the pool named, or to all, going on past those that cannot. */
static int each_pool(struct coppice *coppice, const char *name, pool_entry_fn *fn,
		     struct coppice_error *err)
{
	struct pool_entry *entry;
	struct coppice_error why;
	size_t n_failed = 0;
	int r = COPPICE_OK;

	if (name) {
		r = pools_find(coppice, name, &entry, err);
		return r < 0 ? r : fn(coppice, entry, err);
	}
	for (size_t i = 0; i < coppice->n_pools; i++) {
		int done = fn(coppice, coppice->pools[i], &why);

		if (done == COPPICE_OK)
			continue;
		notice(coppice, "%s", why.message);
		r = n_failed++ ? r : done;
	}
	return n_failed == 0 ? COPPICE_OK
			     : fail(err, (enum coppice_code)r,
				    "it could not be done to %zu of %zu pools, as the notes say",
				    n_failed, coppice->n_pools);
}

int coppice_storage_mount(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	return each_pool(coppice, name, pools_open, err);
}

static int umount_one(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	struct coppice_error ignored;
	int r;

	locks_add(&locks, LOCK_POOLS, entry->name, true);
	r = locks_take(coppice, &locks, err);
	if (r < 0 || coppice->options.is_dry_run)
		return r;
	/* Swept, that the catalog knows of all that is in it while nobody can look. */
	if (entry->driver->pool_is_mounted(&entry->spec))
		(void)pools_open(coppice, entry, &ignored);
	pool_entry_close(entry);
	r = entry->driver->pool_umount(&entry->spec, err);
	if (r == COPPICE_OK)
		return r;
	(void)fail_mounted(coppice, entry, NULL, err);
	return wrap(err, "cannot unmount pool '%s'", entry->name);
}

/* Is something mounted at this very place below the state directory? */
static bool is_mount_point(struct coppice *coppice, const char *place)
{
	struct stat here, above;

	return fstatat(coppice->root_fd, place, &here, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(coppice->root_fd, "mnt", &above, 0) == 0 && S_ISDIR(here.st_mode) &&
	       here.st_dev != above.st_dev;
}

/* What is mounted under a name that no pool has, as after its file in pools/ was removed. */
static int umount_stray(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("%s/mnt/%s", coppice->root, name);
	_cleanup_(freep) char *place = text_format("mnt/%s", name);
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	struct volume_name ignored;
	int r;

	if (!path || !place)
		return fail_memory(err);
	if (pool_name_parse(name, &ignored, err) < 0 || !is_mount_point(coppice, place))
		return COPPICE_OK;
	locks_add(&locks, LOCK_POOLS, name, true);
	r = locks_take(coppice, &locks, err);
	if (r < 0)
		return r;
	pools_done(coppice); /* another command may have made it while we waited */
	r = pools_load(coppice, err);
	if (r < 0 || pools_get(coppice, name) || coppice->options.is_dry_run)
		return r;
	if (umount2(path, UMOUNT_NOFOLLOW) < 0)
		return errno == EBUSY ? fail(err, COPPICE_BUSY, "'%s' is in use", path)
				      : fail_errno(err, errno, "cannot unmount '%s'", path);
	(void)unlinkat(coppice->root_fd, place, AT_REMOVEDIR);
	return COPPICE_OK;
}

static int umount_strays(struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int fd, r = COPPICE_OK;

	fd = openat(coppice->root_fd, "mnt", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return COPPICE_OK;
	if (fd < 0 || !(dir = fdopendir(fd))) {
		closep(&fd);
		return fail_errno(err, errno, "cannot read '%s/mnt'", coppice->root);
	}
	while (r == COPPICE_OK && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' && !pools_get(coppice, entry->d_name))
			r = umount_stray(coppice, entry->d_name, err);
	return r;
}

int coppice_storage_umount(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	int r = each_pool(coppice, name, umount_one, err);
	struct coppice_error why;

	if (name || umount_strays(coppice, &why) == COPPICE_OK)
		return r;
	if (r < 0) {
		notice(coppice, "%s", why.message);
		return r;
	}
	*err = why;
	return why.code;
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
	struct catalog_query query = { .pool = entry->name, .kind = -1, .no_snapshots = true };
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
