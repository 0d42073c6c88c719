/* SPDX-License-Identifier: Apache-2.0 */
/* Finding volumes by name, and describing those to be made. */
#include "core/core.h"

#include <string.h>

#include "base/text.h"

void volume_done(struct volume *volume)
{
	record_done(&volume->record);
	record_done(&volume->instance_record);
}

const char *volume_title(const struct volume_ref *ref, char buffer[static VOLUME_TITLE_MAX])
{
	char text[VOLUME_REF_TEXT_MAX];

	if (ref->kind == VOLUME_IMAGE)
		(void)snprintf(buffer, VOLUME_TITLE_MAX, "image %.12s", ref->name.text);
	else
		(void)snprintf(buffer, VOLUME_TITLE_MAX, "%s '%s'",
			       volume_is_snapshot(ref) ? "snapshot" : "instance",
			       volume_ref_format(ref, text));
	return buffer;
}

int volume_record_format(const struct volume_ref *ref, const struct record *record, char **ret,
			 struct coppice_error *err)
{
	char title[VOLUME_TITLE_MAX];
	int r = record_format(record, ret, err);

	return r < 0 ? wrap(err, "%s", volume_title(ref, title)) : COPPICE_OK;
}

int volume_record_parse(const struct pool_entry *entry, const struct volume_ref *ref,
			const char *text, struct record *ret, struct coppice_error *err)
{
	char title[VOLUME_TITLE_MAX];
	struct coppice_error why;
	int r = record_parse(text, ret, &why);

	if (r == COPPICE_OK)
		return COPPICE_OK;
	(void)volume_title(ref, title);
	if (r == COPPICE_INVALID)
		return fail(err, COPPICE_FAILED,
			    "%s in pool '%s': %s; 'coppice check %s --repair' gives it a new one",
			    title, entry->name, why.message, entry->name);
	*err = why;
	return wrap(err, "%s in pool '%s'", title, entry->name);
}

int volume_record_read(const struct pool_entry *entry, const struct volume_ref *ref,
		       struct record *ret, struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	int r = entry->driver->record_read(entry->pool, ref, &text, err);

	return r < 0 ? r : volume_record_parse(entry, ref, text, ret, err);
}

/* ---- finding ---- */

/* Which of the two of it counts is not known before the move is finished. */
static int refuse_moving(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	struct volume_name one;

	(void)snprintf(one.text, sizeof(one.text), "%s", name);
	return moves_refuse(coppice, &one, 1, err);
}

static int look_up(struct coppice *coppice, const char *name, char **ret,
		   enum volume_kind *ret_kind, struct coppice_error *err)
{
	int kind = VOLUME_CONTAINER;
	int r = catalog_find(coppice->catalog, VOLUME_INSTANCES, name, ret, &kind, err);

	*ret_kind = (enum volume_kind)kind;
	return r;
}

static bool is_in_pool(const struct pool_entry *entry, enum volume_kind kind, const char *name)
{
	struct volume_ref ref = { .kind = kind };
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;

	(void)snprintf(ref.name.text, sizeof(ref.name.text), "%s", name);
	return entry->driver->record_read(entry->pool, &ref, &record, &ignored) !=
	       COPPICE_NOT_FOUND;
}

/* What is damaged is in no catalog, and is there. */
static int look_in_pools(struct coppice *coppice, const char *name, char **ret,
			 enum volume_kind *ret_kind, struct coppice_error *err)
{
	for (size_t i = 0; i < coppice->n_pools; i++) {
		const struct pool_entry *entry = coppice->pools[i];

		*ret_kind = VOLUME_CONTAINER;
		if (!is_in_pool(entry, *ret_kind, name)) {
			*ret_kind = VOLUME_VIRTUAL_MACHINE;
			if (!entry->driver->traits.has_blocks ||
			    !is_in_pool(entry, *ret_kind, name))
				continue;
		}
		*ret = strdup(entry->name);
		return *ret ? COPPICE_OK : fail_memory(err);
	}
	return COPPICE_OK;
}

/*
 * The catalog first; what it does not know may have come into a pool behind it, so
 * then all pools are looked at before we say no.
 */
static int find_pool(struct coppice *coppice, const char *name, char **ret,
		     enum volume_kind *ret_kind, struct coppice_error *err)
{
	int r = refuse_moving(coppice, name, err);

	if (r == COPPICE_OK)
		r = look_up(coppice, name, ret, ret_kind, err);
	if (r < 0 || *ret)
		return r;
	for (size_t i = 0; i < coppice->n_pools; i++) {
		/* A pool that cannot be read may have it: never "not found" then. */
		r = pools_open(coppice, coppice->pools[i], err);
		if (r < 0)
			return wrap(err, "cannot look for '%s'", name);
	}
	r = look_up(coppice, name, ret, ret_kind, err);
	return r < 0 || *ret ? r : look_in_pools(coppice, name, ret, ret_kind, err);
}

int volume_pool_of(struct coppice *coppice, const char *name, char **ret, struct coppice_error *err)
{
	enum volume_kind kind;

	return find_pool(coppice, name, ret, &kind, err);
}

static int find(struct coppice *coppice, const struct volume_ref *ref, bool is_trusted,
		struct volume *ret, struct coppice_error *err)
{
	struct volume volume = { .ref = *ref };
	struct volume_ref instance;
	_cleanup_(freep) char *pool = NULL;
	char text[VOLUME_REF_TEXT_MAX];
	int r;

	r = find_pool(coppice, ref->name.text, &pool, &volume.ref.kind, err);
	if (r < 0)
		return r;
	instance = volume.ref;
	volume.entry = pool ? pools_get(coppice, pool) : NULL;
	if (!volume.entry)
		return fail(err, COPPICE_NOT_FOUND, "no instance '%s'", ref->name.text);
	r = is_trusted ? pools_open_trusted(coppice, volume.entry, err)
		       : pools_open(coppice, volume.entry, err);
	if (r < 0)
		return r;
	if (volume_is_snapshot(ref)) {
		instance.snapshot.text[0] = '\0';
		r = volume_record_read(volume.entry, &instance, &volume.instance_record, err);
	}
	if (r == COPPICE_OK)
		r = volume_record_read(volume.entry, &volume.ref, &volume.record, err);
	if (r == COPPICE_NOT_FOUND)
		(void)fail(err, COPPICE_NOT_FOUND,
			   volume_is_snapshot(ref) ? "no snapshot '%s'" : "no instance '%s'",
			   volume_ref_format(ref, text));
	if (r < 0) {
		volume_done(&volume);
		return r;
	}
	*ret = volume;
	return COPPICE_OK;
}

int volume_find(struct coppice *coppice, const struct volume_ref *ref, struct volume *ret,
		struct coppice_error *err)
{
	return find(coppice, ref, false, ret, err);
}

int volume_find_trusted(struct coppice *coppice, const struct volume_ref *ref, struct volume *ret,
			struct coppice_error *err)
{
	int r = find(coppice, ref, true, ret, err);

	return r == COPPICE_NOT_FOUND ? find(coppice, ref, false, ret, err) : r;
}

int volume_lock(struct coppice *coppice, const struct volume_ref *ref, bool is_exclusive,
		struct locks *locks, struct volume *ret, struct coppice_error *err)
{
	_cleanup_(freep) char *pool = NULL;
	int r = volume_pool_of(coppice, ref->name.text, &pool, err);

	if (r < 0)
		return r;
	if (pool)
		locks_add(locks, LOCK_POOLS, pool, false);
	locks_add(locks, LOCK_INSTANCES, ref->name.text, is_exclusive);
	r = locks_take(coppice, locks, err);
	return r < 0 ? r : volume_find(coppice, ref, ret, err);
}

int volume_look(struct coppice *coppice, const struct volume_ref *ref, struct volume *ret,
		struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	int r = volume_find(coppice, ref, ret, err);

	return r == COPPICE_NOT_FOUND ? volume_lock(coppice, ref, false, &locks, ret, err) : r;
}

/* A pool whose drafts could not be swept may still be to publish what nobody sees. */
static int refuse_unswept(const struct pool_entry *entry, struct coppice_error *err)
{
	if (!entry->is_unswept)
		return COPPICE_OK;
	return fail(err, COPPICE_UNAVAILABLE,
		    "pool '%s' has leftovers that cannot be swept, so which names are free is not "
		    "known; see: coppice check",
		    entry->name);
}

/* Opened only to be compared: others may want to unmount or delete it. */
static int compare(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	int r;

	if (entry->pool || entry->has_failed)
		return refuse_unswept(entry, err);
	r = pools_open(coppice, entry, err);
	if (r == COPPICE_OK)
		r = refuse_unswept(entry, err);
	else if (r != COPPICE_BUSY) {
		notice(coppice, "%s", err->message);
		entry->has_failed = true;
		r = COPPICE_OK;
	}
	pool_entry_close(entry);
	return r;
}

/*
 * A name is free when no pool has it, and a command that was killed may have left one
 * that the catalog has not heard of. So those are compared with it that are mounted, as
 * what was used is, or that nobody looked at since the machine began. (What is open was,
 * when our locks were taken.) What cannot be opened is told, and keeps nobody from
 * working in another.
 */
static int compare_all(struct coppice *coppice, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++) {
		struct pool_entry *entry = coppice->pools[i];
		uint64_t stamp = 0;

		r = catalog_stamp_get(coppice->catalog, entry->name, &stamp, err);
		if (r == COPPICE_OK &&
		    (entry->pool || stamp == 0 || entry->driver->pool_is_mounted(&entry->spec)))
			r = compare(coppice, entry, err);
	}
	return r;
}

static int must_not_exist(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	_cleanup_(freep) char *pool = NULL;
	enum volume_kind kind;
	int r = look_up(coppice, name, &pool, &kind, err);

	if (r < 0 || !pool)
		return r;
	return fail(err, COPPICE_EXISTS, "instance '%s' exists already, in pool '%s'", name, pool);
}

int volume_must_not_exist(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	int r = compare_all(coppice, err);

	if (r == COPPICE_OK)
		r = refuse_moving(coppice, name, err);
	return r < 0 ? r : must_not_exist(coppice, name, err);
}

int volumes_must_not_exist(struct coppice *coppice, const struct volume_name *names, size_t n,
			   struct coppice_error *err)
{
	int r = compare_all(coppice, err);

	if (r == COPPICE_OK)
		r = moves_refuse(coppice, names, n, err);
	if (r < 0)
		return r;
	catalog_reading_begin(coppice->catalog);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = must_not_exist(coppice, names[i].text, err);
	catalog_reading_end(coppice->catalog);
	return r;
}

/* ---- making ---- */

void makings_done(struct makings *makings)
{
	for (size_t i = 0; i < makings->n; i++) {
		record_done(&makings->making[i].record);
		free(makings->making[i].text);
		free(makings->making[i].word);
	}
	free(makings->making);
	*makings = (struct makings){ 0 };
}

int makings_new(struct makings *makings, size_t n, struct coppice_error *err)
{
	makings->making = calloc(n, sizeof(*makings->making));
	if (!makings->making)
		return fail_memory(err);
	makings->n = n;
	for (size_t i = 0; i < n; i++) {
		int r = uuid_new(&makings->making[i].record.uuid, err);

		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

int making_finish(struct coppice *coppice, struct makings *makings, size_t i,
		  const struct uuid *group, const struct making *owner, struct coppice_error *err)
{
	struct making *making = &makings->making[i];
	int r;

	making->volume.uuid = making->record.uuid;
	making->volume.group = owner ? owner->record.uuid : group ? *group : making->record.uuid;
	r = volume_record_format(&making->volume.ref, &making->record, &making->text, err);
	if (r < 0)
		return r;
	making->volume.record = making->text;
	if (!coppice->options.hooks.explain)
		return COPPICE_OK;

	makings->n_named++;
	(void)snprintf(making->variable, sizeof(making->variable), "uuid_%zu", makings->n_named);
	explain(coppice, "%s=$(cat /proc/sys/kernel/random/uuid)", making->variable);
	r = record_format_word(&making->record, making->variable, &making->word, err);
	if (r < 0)
		return r;
	making->volume.explain_record = making->word;
	making->volume.explain_group = owner ? owner->variable : group ? NULL : making->variable;
	return COPPICE_OK;
}

/* ---- configuration of instances ---- */

uint64_t config_limit(const struct coppice_settings *config)
{
	const char *text = settings_get(config, "size");
	uint64_t bytes;

	return text && size_parse(text, &bytes) ? bytes : 0;
}

static bool is_true(const char *value)
{
	return strcmp(value, "true") == 0;
}

int config_add_defaults(const struct pool_entry *entry, struct coppice_settings *config,
			struct coppice_error *err)
{
	const struct limit_key *key = entry->driver->limit_keys;
	int r = COPPICE_OK;

	for (; key && key->name && r == COPPICE_OK; key++) {
		char pool_key[64];
		const char *value;

		(void)snprintf(pool_key, sizeof(pool_key), "volume.%s", key->name);
		value = settings_get(&entry->config, pool_key);
		if (value && !settings_get(config, key->name))
			r = settings_put(config, key->name, value, err);
	}
	return r;
}

unsigned config_limit_how(const struct driver *driver, const struct coppice_settings *config)
{
	unsigned how = 0;

	for (const struct limit_key *key = driver->limit_keys; key && key->name; key++) {
		const char *value = settings_get(config, key->name);

		if (value && is_true(value) == key->value)
			how |= key->how;
	}
	return how;
}

bool config_is_limit_key(const struct driver *driver, const char *key)
{
	for (const struct limit_key *known = driver->limit_keys; known && known->name; known++)
		if (strcmp(known->name, key) == 0)
			return true;
	return false;
}

static const struct driver_key *volume_key(const struct driver *driver, const char *name)
{
	for (const struct driver_key *key = driver->volume_keys; key && key->name; key++)
		if (strcmp(key->name, name) == 0)
			return key;
	return NULL;
}

bool config_is_driver_key(const struct driver *driver, const char *key)
{
	return config_is_limit_key(driver, key) || volume_key(driver, key);
}

int config_take(const struct pool_entry *entry, enum volume_kind kind,
		const struct coppice_setting *settings, size_t n, bool is_empty,
		struct coppice_settings *ret, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		const struct driver_key *key = volume_key(entry->driver, settings[i].key);
		bool is_leaving = !settings[i].value && settings_get(ret, settings[i].key);

		/* What is there can be taken away, whoever put it there. */
		r = is_leaving ? COPPICE_OK : config_check(entry, &settings[i], err);
		if (r < 0)
			return r;
		if (key && kind == VOLUME_VIRTUAL_MACHINE)
			return fail(err, COPPICE_INVALID,
				    "'%s' is for file systems, and block content is none",
				    key->name);
		if (key && !key->is_changeable && !is_empty)
			return fail(err, COPPICE_INVALID,
				    "'%s' cannot be changed: an instance has what its image has; "
				    "with 'init --empty' it is free, and 'volume.%s' of a pool is "
				    "for the images that it unpacks",
				    key->name, key->name);
		if (kind == VOLUME_VIRTUAL_MACHINE && strcmp(settings[i].key, "size") == 0 &&
		    !settings[i].value)
			return fail(err, COPPICE_INVALID, "block content always has a size");
		r = settings_put(ret, settings[i].key, settings[i].value, err);
	}
	return r;
}

static int fail_unknown(const struct driver *driver, const char *name, struct coppice_error *err)
{
	_cleanup_(text_done) struct text known = TEXT_INIT;

	for (const struct driver_key *key = driver->volume_keys; key && key->name; key++)
		text_add(&known, ", '%s'", key->name);
	for (const struct limit_key *key = driver->limit_keys; key && key->name; key++)
		text_add(&known, ", '%s'", key->name);
	return fail(err, COPPICE_INVALID,
		    "unknown key '%s': an instance has 'size'%s and 'user.*' on %s", name,
		    known.data ? known.data : "", driver->name);
}

int config_check(const struct pool_entry *entry, const struct coppice_setting *setting,
		 struct coppice_error *err)
{
	const struct driver_key *key = volume_key(entry->driver, setting->key);
	uint64_t bytes;

	if (settings_is_user_key(setting->key)) {
		if (setting->value && strlen(setting->value) > 1024)
			return fail(err, COPPICE_INVALID,
				    "the value of '%s' is longer than 1024 bytes", setting->key);
		return COPPICE_OK;
	}
	if (config_is_limit_key(entry->driver, setting->key)) {
		if (setting->value && !is_true(setting->value) &&
		    strcmp(setting->value, "false") != 0)
			return fail(err, COPPICE_INVALID, "%s '%s' is neither true nor false",
				    setting->key, setting->value);
		return COPPICE_OK;
	}
	if (key) {
		if (setting->value && key->values && !text_is_one_of(setting->value, key->values))
			return fail(err, COPPICE_INVALID, "%s '%s' is none of %s", key->name,
				    setting->value, key->values);
		return COPPICE_OK;
	}
	if (strcmp(setting->key, "size") != 0)
		return fail_unknown(entry->driver, setting->key, err);
	if (!setting->value)
		return COPPICE_OK;
	if (!size_parse(setting->value, &bytes) || bytes == 0)
		return fail(err, COPPICE_INVALID, "size '%s' is no size, such as 10GiB",
			    setting->value);
	if (!entry->driver->traits.can_limit)
		return fail(err, COPPICE_UNSUPPORTED,
			    "size cannot be limited in pool '%s': the %s driver has no quotas",
			    entry->name, entry->driver->name);
	/* Later the driver would say the same, but others may have been made by then. */
	return entry->pool && entry->driver->can_limit ? entry->driver->can_limit(entry->pool, err)
						       : COPPICE_OK;
}

int undo_draft(void *owner, const char *name, struct coppice_error *err)
{
	struct draft *draft = owner;
	struct pool *pool = draft->pool;
	int r;

	if (!pool)
		return COPPICE_OK;
	r = pool->driver->draft_discard(draft, err);
	/* Else what was announced, and made durable, could come back with a power cut. */
	if (draft->is_announced && !pool->is_dry_run) {
		struct coppice_error why;
		int committed = pool->driver->commit(pool, &why);

		if (r == COPPICE_OK && committed < 0)
			*err = why;
		r = r < 0 ? r : committed;
	}
	return r;
}
