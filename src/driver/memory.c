/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

#include "base/text.h"
#include "driver/generic/copy.h"

#define POOL_BYTES (1ULL << 40)

/* A directory that volumes share. */
struct tree {
	size_t n_users;
	char *path;
};

struct content {
	struct content *next;
	char *key, *value;
};

/*
 * What is in a volume. Apart from the volume, as swap exchanges it, and as
 * clones stand on data, whatever it is called.
 */
struct data {
	struct tree *tree;
	struct content *content;
	uint64_t written_bytes; /* since it was made */
	bool is_read_only;
	struct data *origin; /* cloned from it: it must not go before us */
	size_t n_clones;     /* whose origin this is */
};

enum state {
	STATE_DRAFT,
	STATE_LIVE,
	STATE_DELETED,
};

struct volume {
	struct volume *next;
	enum state state;
	struct uuid draft; /* which it is in */
	bool is_nested;    /* in a draft: published with its volume */
	struct volume_ref ref;
	struct uuid uuid, group;
	uint64_t limit_bytes;
	char *record;
	struct data *data;
};

struct memory_draft {
	struct memory_draft *next;
	struct uuid id;
	bool has_maker;
	bool is_announced; /* what is in it is to be published */
	bool is_over;      /* its maker is dead, and what it announced is published */
};

/* A pool's storage, which stays when the pool is closed. */
struct store {
	struct store *next;
	struct uuid uuid, owner;
	char *source; /* or NULL */
	char *record;
	uint64_t size_bytes;
	uint64_t stamp;
	size_t n_open;
	bool is_destroyed; /* freed when the last one closes it */
	struct volume *volumes;
	struct memory_draft *drafts;
};

struct memory_pool {
	struct pool base;
	struct store *store;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* Under the mutex: all pools of the process, and after how many steps one fails. */
static struct store *stores;
static unsigned fail_in;

static pthread_mutex_t *lock(void)
{
	(void)pthread_mutex_lock(&mutex);
	return &mutex;
}

static void unlockp(pthread_mutex_t **locked)
{
	(void)pthread_mutex_unlock(*locked);
}

#define LOCKED _cleanup_(unlockp) __attribute__((unused)) pthread_mutex_t *locked_ = lock()

static struct store *store_of(struct pool *pool)
{
	return CONTAINER_OF(pool, struct memory_pool, base)->store;
}

/* Called before each change of storage. */
static int step(struct coppice_error *err)
{
	if (fail_in > 0 && --fail_in == 0)
		return fail(err, COPPICE_FAILED, "injected failure");
	return COPPICE_OK;
}

/* Say what comes; returns whether it shall be done. */
static bool explain(struct pool *pool, const char *what, const char *name)
{
	char line[256];

	(void)snprintf(line, sizeof(line), "memory %s%s%s", what, name ? " " : "",
		       name ? name : "");
	if (pool->explain)
		pool->explain(pool->explain_user, line);
	return !pool->is_dry_run;
}

static bool explain_ref(struct pool *pool, const char *what, const struct volume_ref *ref)
{
	char name[VOLUME_REF_TEXT_MAX];

	return explain(pool, what, volume_ref_format(ref, name));
}

/* ---- trees and data ---- */

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)(flag == FTW_DP ? rmdir(path) : unlink(path));
	return 0;
}

static void tree_drop(struct tree *tree)
{
	if (!tree || --tree->n_users > 0)
		return;
	(void)nftw(tree->path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	free(tree->path);
	free(tree);
}

static int tree_create(struct tree **ret, struct coppice_error *err)
{
	const char *base = getenv("TMPDIR");
	struct tree *tree = calloc(1, sizeof(*tree));
	char *path = text_format("%s/coppice-memory.XXXXXX", base ? base : "/tmp");
	int r;

	if (tree && path && mkdtemp(path)) {
		*tree = (struct tree){ .n_users = 1, .path = path };
		*ret = tree;
		return COPPICE_OK;
	}
	r = tree && path ? fail_errno(err, errno, "cannot make a directory '%s'", path)
			 : fail_memory(err);
	free(path);
	free(tree);
	return r;
}

static void content_free(struct content *content)
{
	while (content) {
		struct content *next = content->next;

		free(content->key);
		free(content->value);
		free(content);
		content = next;
	}
}

static struct content *content_find(struct content *content, const char *key)
{
	while (content && strcmp(content->key, key) != 0)
		content = content->next;
	return content;
}

/* Takes the place of the value that the key had. */
static int content_put(struct content **list, const char *key, const char *value,
		       struct coppice_error *err)
{
	_cleanup_(freep) char *key_copy = strdup(key);
	_cleanup_(freep) char *value_copy = strdup(value);
	struct content *content = content_find(*list, key);

	if (!key_copy || !value_copy)
		return fail_memory(err);
	if (!content) {
		content = calloc(1, sizeof(*content));
		if (!content)
			return fail_memory(err);
		*content = (struct content){ .next = *list, .key = take_ptr(&key_copy) };
		*list = content;
	}
	free(content->value);
	content->value = take_ptr(&value_copy);
	return COPPICE_OK;
}

static void data_free(struct data *data)
{
	if (!data)
		return;
	if (data->origin)
		data->origin->n_clones--;
	tree_drop(data->tree);
	content_free(data->content);
	free(data);
}
DEFINE_CLEANUP(struct data *, data_free)

static int data_clone(struct data *origin, bool is_read_only, struct data **ret,
		      struct coppice_error *err)
{
	_cleanup_(data_freep) struct data *data = calloc(1, sizeof(*data));

	if (!data)
		return fail_memory(err);
	*data = (struct data){ .tree = origin->tree,
			       .is_read_only = is_read_only,
			       .origin = origin };
	data->tree->n_users++;
	origin->n_clones++;
	for (struct content *c = origin->content; c; c = c->next) {
		int r = content_put(&data->content, c->key, c->value, err);

		if (r < 0)
			return r;
	}
	*ret = take_ptr(&data);
	return COPPICE_OK;
}

static uint64_t data_size(const struct data *data)
{
	uint64_t bytes = 0;

	for (struct content *c = data->content; c; c = c->next)
		bytes += strlen(c->value);
	return bytes;
}

/* ---- volumes ---- */

static bool is_same(const struct volume_ref *a, const struct volume_ref *b)
{
	return a->kind == b->kind && strcmp(a->name.text, b->name.text) == 0 &&
	       strcmp(a->snapshot.text, b->snapshot.text) == 0;
}

static bool is_same_uuid(const struct uuid *a, const struct uuid *b)
{
	return strcmp(a->text, b->text) == 0;
}

/* Is @ref the volume @of, or a snapshot of it? */
static bool is_within(const struct volume_ref *ref, const struct volume_ref *of)
{
	struct volume_ref volume = *ref;

	if (!volume_is_snapshot(of))
		volume.snapshot.text[0] = '\0';
	return is_same(&volume, of);
}

static struct volume *find(struct store *store, const struct volume_ref *ref)
{
	for (struct volume *v = store->volumes; v; v = v->next)
		if (v->state == STATE_LIVE && is_same(&v->ref, ref))
			return v;
	return NULL;
}

static int find_or_fail(struct store *store, const struct volume_ref *ref, struct volume **ret,
			struct coppice_error *err)
{
	char name[VOLUME_REF_TEXT_MAX];

	*ret = find(store, ref);
	if (!*ret)
		return fail(err, COPPICE_NOT_FOUND, "no %s '%s'",
			    volume_is_snapshot(ref) ? "snapshot" : volume_kind_name(ref->kind),
			    volume_ref_format(ref, name));
	return COPPICE_OK;
}

static int fail_exists(const struct volume_ref *ref, struct coppice_error *err)
{
	char name[VOLUME_REF_TEXT_MAX];

	return fail(err, COPPICE_EXISTS, "'%s' exists already", volume_ref_format(ref, name));
}

static struct volume *find_in_draft(const struct draft *draft, const struct uuid *uuid)
{
	for (struct volume *v = store_of(draft->pool)->volumes; v; v = v->next)
		if (v->state == STATE_DRAFT && is_same_uuid(&v->draft, &draft->id) &&
		    is_same_uuid(&v->uuid, uuid))
			return v;
	return NULL;
}

static int find_in_draft_or_fail(const struct draft *draft, const struct new_volume *volume,
				 struct volume **ret, struct coppice_error *err)
{
	*ret = find_in_draft(draft, &volume->uuid);
	if (!*ret)
		return fail(err, COPPICE_FAILED, "'%s' is not in the draft", volume->ref.name.text);
	return COPPICE_OK;
}

static void volume_free(struct volume *volume)
{
	data_free(volume->data);
	free(volume->record);
	free(volume);
}

static void volume_destroy(struct store *store, struct volume *volume)
{
	struct volume **at = &store->volumes;

	while (*at != volume)
		at = &(*at)->next;
	*at = volume->next;
	volume_free(volume);
}

/* Put a new one with @data, which it owns from then on, into the draft. */
static int volume_add(struct draft *draft, const struct new_volume *new, struct data **data,
		      struct coppice_error *err)
{
	struct store *store = store_of(draft->pool);
	struct volume *volume = calloc(1, sizeof(*volume));
	char *record = strdup(new->record);

	if (!volume || !record) {
		free(volume);
		free(record);
		return fail_memory(err);
	}
	*volume = (struct volume){
		.next = store->volumes,
		.state = STATE_DRAFT,
		.draft = draft->id,
		.is_nested = new->is_nested,
		.ref = new->ref,
		.uuid = new->uuid,
		.group = new->group,
		.limit_bytes = new->limit_bytes,
		.record = record,
		.data = take_ptr(data),
	};
	store->volumes = volume;
	return COPPICE_OK;
}

/* ---- pools ---- */

static void store_empty(struct store *store)
{
	while (store->volumes) {
		struct volume *volume = store->volumes;

		store->volumes = volume->next;
		volume->data->origin = NULL; /* which may be gone */
		volume_free(volume);
	}
	while (store->drafts) {
		struct memory_draft *draft = store->drafts;

		store->drafts = draft->next;
		free(draft);
	}
}

static void store_free(struct store *store)
{
	store_empty(store);
	free(store->source);
	free(store->record);
	free(store);
}

/* The place in the list of the store that @spec means, or of the list's end. */
static struct store **store_at(const struct pool_spec *spec)
{
	struct store **at = &stores;

	while (*at && !(spec->source ? (*at)->source && strcmp((*at)->source, spec->source) == 0
				     : is_same_uuid(&(*at)->uuid, &spec->uuid)))
		at = &(*at)->next;
	return at;
}

static int pool_new(struct store *store, struct pool **ret, struct coppice_error *err)
{
	struct memory_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return fail_memory(err);
	pool->base.driver = &driver_memory;
	pool->store = store;
	store->n_open++;
	*ret = &pool->base;
	return COPPICE_OK;
}

static int memory_probe(const struct pool_spec *spec, struct coppice_error *err)
{
	return COPPICE_OK;
}

static int memory_pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
			      struct coppice_error *err)
{
	LOCKED;
	struct store *store;
	int r = step(err);

	if (r < 0)
		return r;
	if (*store_at(spec))
		return fail(err, COPPICE_EXISTS, "there is a pool already");
	store = calloc(1, sizeof(*store));
	if (!store)
		return fail_memory(err);
	*store = (struct store){
		.uuid = spec->uuid,
		.owner = spec->owner,
		.size_bytes = POOL_BYTES,
		.record = strdup(record),
		.source = spec->source ? strdup(spec->source) : NULL,
	};
	r = !store->record || (spec->source && !store->source) ? fail_memory(err)
							       : pool_new(store, ret, err);
	if (r < 0) {
		store_free(store);
		return r;
	}
	store->next = stores;
	stores = store;
	return COPPICE_OK;
}

static int memory_pool_open(const struct pool_spec *spec, struct pool **ret,
			    struct coppice_error *err)
{
	LOCKED;
	struct store *store = *store_at(spec);

	if (!store)
		return fail(err, COPPICE_NOT_FOUND, "no pool '%s' in memory", spec->name);
	if (spec->uuid.text[0] && !is_same_uuid(&spec->uuid, &store->uuid))
		return fail(err, COPPICE_BUSY, "there is another pool, %s", store->uuid.text);
	if (spec->owner.text[0] && !is_same_uuid(&spec->owner, &store->owner))
		return fail(err, COPPICE_BUSY, "the pool is owned by %s", store->owner.text);
	return pool_new(store, ret, err);
}

static void memory_pool_close(struct pool *pool)
{
	LOCKED;
	struct store *store = store_of(pool);

	if (--store->n_open == 0 && store->is_destroyed)
		store_free(store);
	free(CONTAINER_OF(pool, struct memory_pool, base));
}

static bool memory_pool_is_mounted(const struct pool_spec *spec)
{
	return true;
}

static int memory_pool_umount(const struct pool_spec *spec, struct coppice_error *err)
{
	return COPPICE_OK;
}

static int memory_pool_destroy(const struct pool_spec *spec, struct coppice_error *err)
{
	LOCKED;
	struct store **at = store_at(spec);
	struct store *store = *at;
	int r;

	if (!store || (spec->uuid.text[0] && !is_same_uuid(&spec->uuid, &store->uuid)))
		return COPPICE_OK;
	r = step(err);
	if (r < 0)
		return r;
	*at = store->next;
	store_empty(store);
	store->is_destroyed = true;
	if (store->n_open == 0)
		store_free(store);
	return COPPICE_OK;
}

static int memory_pool_resize(struct pool *pool, uint64_t size_bytes, struct coppice_error *err)
{
	LOCKED;
	struct store *store = store_of(pool);
	int r;

	if (!explain(pool, "pool-resize", NULL))
		return COPPICE_OK;
	if (size_bytes < store->size_bytes)
		return fail(err, COPPICE_INVALID, "a pool only grows");
	r = step(err);
	if (r < 0)
		return r;
	store->size_bytes = size_bytes;
	return COPPICE_OK;
}

static int memory_pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err)
{
	LOCKED;
	struct store *store = store_of(pool);
	uint64_t used = 0;

	for (struct volume *v = store->volumes; v; v = v->next)
		used += v->data->written_bytes;
	*ret = (struct pool_space){
		.total = { COPPICE_EXACT, store->size_bytes },
		.used = { COPPICE_EXACT, used },
		.free = { COPPICE_EXACT, store->size_bytes - used },
	};
	return COPPICE_OK;
}

static int dup_text(const char *text, char **ret, struct coppice_error *err)
{
	char *copy = strdup(text);

	if (!copy)
		return fail_memory(err);
	*ret = copy;
	return COPPICE_OK;
}

static int replace_text(char **text, const char *by, struct coppice_error *err)
{
	char *old = *text;
	int r = step(err);

	if (r == COPPICE_OK)
		r = dup_text(by, text, err);
	if (r == COPPICE_OK)
		free(old);
	return r;
}

static int memory_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err)
{
	LOCKED;

	return dup_text(store_of(pool)->record, ret, err);
}

static int memory_pool_record_write(struct pool *pool, const char *record,
				    struct coppice_error *err)
{
	LOCKED;

	if (!explain(pool, "pool-record", NULL))
		return COPPICE_OK;
	return replace_text(&store_of(pool)->record, record, err);
}

static const char *memory_pool_mount_path(struct pool *pool)
{
	return NULL;
}

/* ---- making volumes ---- */

static int memory_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err)
{
	LOCKED;
	struct draft draft = { .pool = pool, .fd = -1 };
	struct memory_draft *made;
	int r;

	if (!explain(pool, "draft-open", NULL)) {
		*ret = draft;
		return COPPICE_OK;
	}
	r = step(err);
	if (r == COPPICE_OK)
		r = uuid_new(&draft.id, err);
	if (r < 0)
		return r;
	made = calloc(1, sizeof(*made));
	if (!made)
		return fail_memory(err);
	*made = (struct memory_draft){ .next = store_of(pool)->drafts,
				       .id = draft.id,
				       .has_maker = true };
	store_of(pool)->drafts = made;
	*ret = draft;
	return COPPICE_OK;
}

/* What was cloned from @data stands on what that stood on, as a promotion would do it. */
static void data_promote_clones(struct store *store, struct data *data)
{
	for (struct volume *v = store->volumes; v && data->n_clones > 0; v = v->next) {
		if (v->data->origin != data)
			continue;
		data->n_clones--;
		v->data->origin = data->origin;
		if (data->origin)
			data->origin->n_clones++;
	}
}

/* After a swap what lies in a draft may be what snapshots were made of. */
static void draft_destroy(struct store *store, struct memory_draft **at)
{
	struct memory_draft *draft = *at;
	struct volume *next;

	for (struct volume *v = store->volumes; v; v = next) {
		next = v->next;
		if (v->state != STATE_DRAFT || !is_same_uuid(&v->draft, &draft->id))
			continue;
		data_promote_clones(store, v->data);
		volume_destroy(store, v);
	}
	*at = draft->next;
	free(draft);
}

static struct memory_draft **draft_at(struct store *store, const struct uuid *id)
{
	struct memory_draft **at = &store->drafts;

	while (*at && !is_same_uuid(&(*at)->id, id))
		at = &(*at)->next;
	return at;
}

static int memory_draft_discard(struct draft *draft, struct coppice_error *err)
{
	LOCKED;
	struct pool *pool = take_ptr(&draft->pool);
	struct memory_draft **at;
	int r;

	if (!pool || !explain(pool, "draft-discard", NULL))
		return COPPICE_OK;
	at = draft_at(store_of(pool), &draft->id);
	if (!*at)
		return COPPICE_OK;
	(*at)->has_maker = false; /* the lock is given back in any case */
	r = step(err);
	if (r < 0)
		return r;
	(*at)->is_announced = false;
	draft_destroy(store_of(pool), at);
	return COPPICE_OK;
}

static int memory_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
				 struct coppice_error *err)
{
	LOCKED;
	struct memory_draft **at;
	int r;

	draft->is_announced = true;
	for (size_t i = 0; i < n; i++)
		(void)explain_ref(draft->pool, "announce", &volumes[i].ref);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	r = step(err);
	at = draft_at(store_of(draft->pool), &draft->id);
	if (r == COPPICE_OK)
		(*at)->is_announced = true;
	return r;
}

static int memory_volume_create(struct draft *draft, const struct new_volume *volume,
				char **ret_path, struct coppice_error *err)
{
	LOCKED;
	_cleanup_(data_freep) struct data *data = NULL;
	_cleanup_(freep) char *path = NULL;
	int r;

	if (!explain_ref(draft->pool, "create", &volume->ref))
		return dup_text("/nonexistent", ret_path, err);
	r = step(err);
	if (r < 0)
		return r;
	data = calloc(1, sizeof(*data));
	if (!data)
		return fail_memory(err);
	r = tree_create(&data->tree, err);
	if (r == COPPICE_OK)
		r = dup_text(data->tree->path, &path, err);
	if (r < 0)
		return r;
	r = volume_add(draft, volume, &data, err);
	if (r < 0)
		return r;
	*ret_path = take_ptr(&path);
	return COPPICE_OK;
}

static int memory_volume_fill(struct draft *draft, const struct new_volume *volume,
			      const char *path, const char *from, struct coppice_error *err)
{
	LOCKED;
	_cleanup_(closep) int from_fd = -1, to_fd = -1;
	struct tree_copied copied;
	int r;

	if (!explain_ref(draft->pool, "fill", &volume->ref))
		return COPPICE_OK;
	r = step(err);
	if (r < 0)
		return r;
	from_fd = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (from_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", from);
	to_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (to_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	return tree_copy(&(struct tree_copy){ .from_fd = from_fd, .to_fd = to_fd }, &copied, err);
}

static int memory_draft_path(struct draft *draft, const struct new_volume *volume, char **ret,
			     struct coppice_error *err)
{
	LOCKED;
	struct volume *found;
	int r;

	if (draft->pool->is_dry_run)
		return dup_text("/nonexistent", ret, err);
	r = find_in_draft_or_fail(draft, volume, &found, err);
	if (r < 0)
		return r;
	return dup_text(found->data->tree->path, ret, err);
}

static int memory_volume_seal(struct draft *draft, const struct new_volume *volume,
			      bool is_read_only, struct coppice_error *err)
{
	LOCKED;
	_cleanup_(freep) char *record = NULL;
	struct volume *found = NULL;
	int r;

	if (!explain_ref(draft->pool, "seal", &volume->ref))
		return COPPICE_OK;
	r = step(err);
	if (r == COPPICE_OK)
		r = find_in_draft_or_fail(draft, volume, &found, err);
	if (r == COPPICE_OK)
		r = dup_text(volume->record, &record, err);
	if (r < 0)
		return r;
	/* An image learns its name, and so its record, while it is read. */
	free(found->record);
	found->record = take_ptr(&record);
	found->ref = volume->ref;
	found->data->is_read_only = is_read_only;
	return COPPICE_OK;
}

static int clone_one(struct draft *draft, struct volume *origin, const struct new_volume *volume,
		     bool is_read_only, struct coppice_error *err)
{
	_cleanup_(data_freep) struct data *data = NULL;
	int r = step(err);

	if (r == COPPICE_OK)
		r = data_clone(origin->data, is_read_only, &data, err);
	if (r < 0)
		return r;
	return volume_add(draft, volume, &data, err);
}

static int memory_clone(struct draft *draft, const struct volume_ref *origin,
			const struct new_volume *volumes, size_t n, bool is_read_only,
			struct coppice_error *err)
{
	LOCKED;
	struct store *store = store_of(draft->pool);
	struct volume *from;
	int r;

	for (size_t i = 0; i < n; i++)
		(void)explain_ref(draft->pool, "clone", &volumes[i].ref);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	r = find_or_fail(store, origin, &from, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		r = clone_one(draft, from, &volumes[i], is_read_only, err);
		if (r == COPPICE_OK)
			continue;
		while (i-- > 0)
			volume_destroy(store, find_in_draft(draft, &volumes[i].uuid));
		return r;
	}
	return COPPICE_OK;
}

static bool is_among(const struct volume_ref *ref, const struct new_volume *volumes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (is_same(ref, &volumes[i].ref))
			return true;
	return false;
}

/* May all of them be published? */
static int publish_check(struct draft *draft, const struct new_volume *volumes, size_t n,
			 struct coppice_error *err)
{
	struct store *store = store_of(draft->pool);
	struct volume *found;
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		struct volume_ref parent = volumes[i].ref;

		parent.snapshot.text[0] = '\0';
		if (find(store, &volumes[i].ref) || is_among(&volumes[i].ref, volumes, i))
			return fail_exists(&volumes[i].ref, err);
		if (volume_is_snapshot(&volumes[i].ref) && !is_among(&parent, volumes, i))
			r = find_or_fail(store, &parent, &found, err);
		if (r == COPPICE_OK)
			r = find_in_draft_or_fail(draft, &volumes[i], &found, err);
	}
	return r;
}

/* Move a volume, and what is nested in it, from the draft to its name or back. */
static void publish_one(struct draft *draft, const struct new_volume *volume, enum state from,
			enum state to)
{
	for (struct volume *v = store_of(draft->pool)->volumes; v; v = v->next)
		if (v->state == from && is_same_uuid(&v->draft, &draft->id) &&
		    (is_same_uuid(&v->uuid, &volume->uuid) ||
		     (v->is_nested && is_within(&v->ref, &volume->ref))))
			v->state = to;
}

static int memory_publish(struct draft *draft, const struct new_volume *volumes, size_t n,
			  struct coppice_error *err)
{
	LOCKED;
	int r;

	for (size_t i = 0; i < n; i++)
		(void)explain_ref(draft->pool, "publish", &volumes[i].ref);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	r = publish_check(draft, volumes, n, err);
	if (r < 0)
		return r;
	store_of(draft->pool)->stamp++;
	for (size_t i = 0; i < n; i++) {
		r = step(err);
		if (r == COPPICE_OK) {
			publish_one(draft, &volumes[i], STATE_DRAFT, STATE_LIVE);
			continue;
		}
		while (i-- > 0)
			publish_one(draft, &volumes[i], STATE_LIVE, STATE_DRAFT);
		return r;
	}
	return COPPICE_OK;
}

static int memory_commit(struct pool *pool, struct coppice_error *err)
{
	LOCKED;

	return explain(pool, "commit", NULL) ? step(err) : COPPICE_OK;
}

/* ---- changing volumes ---- */

static int memory_swap(struct draft *draft, const struct new_volume *replacement,
		       const struct volume_ref *ref, struct coppice_error *err)
{
	LOCKED;
	struct volume *volume, *other = NULL;
	struct data *data;
	int r;

	if (!explain_ref(draft->pool, "swap", ref))
		return COPPICE_OK;
	r = find_or_fail(store_of(draft->pool), ref, &volume, err);
	if (r == COPPICE_OK)
		r = find_in_draft_or_fail(draft, replacement, &other, err);
	if (r == COPPICE_OK)
		r = step(err);
	if (r < 0)
		return r;
	for (struct volume *v = store_of(draft->pool)->volumes; v; v = v->next)
		if (v->state == STATE_DRAFT && is_same_uuid(&v->draft, &draft->id) &&
		    v->is_nested && is_within(&v->ref, &other->ref)) {
			v->state = STATE_LIVE;
			v->is_nested = false;
			v->ref.name = ref->name;
		}
	data = volume->data;
	volume->data = other->data;
	other->data = data;
	return COPPICE_OK;
}

static int memory_rename(struct pool *pool, const struct volume_ref *from,
			 const struct volume_ref *to, struct coppice_error *err)
{
	LOCKED;
	struct store *store = store_of(pool);
	struct volume *volume;
	int r;

	if (!explain_ref(pool, "rename", from))
		return COPPICE_OK;
	r = find_or_fail(store, from, &volume, err);
	if (r < 0)
		return r;
	if (find(store, to))
		return fail_exists(to, err);
	r = step(err);
	if (r < 0)
		return r;
	for (struct volume *v = store->volumes; v; v = v->next) {
		if (v->state != STATE_LIVE || !is_within(&v->ref, from))
			continue;
		v->ref.kind = to->kind;
		v->ref.name = to->name;
		if (volume_is_snapshot(from))
			v->ref.snapshot = to->snapshot;
	}
	store->stamp++;
	return COPPICE_OK;
}

static int memory_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
			       struct coppice_error *err)
{
	LOCKED;
	struct volume *volume;
	int r;

	if (!explain_ref(pool, "record", ref))
		return COPPICE_OK;
	r = find_or_fail(store_of(pool), ref, &volume, err);
	if (r < 0)
		return r;
	return replace_text(&volume->record, record, err);
}

static int memory_limit_set(struct pool *pool, const struct volume_ref *ref,
			    const struct uuid *group, uint64_t limit_bytes, unsigned how,
			    struct coppice_error *err)
{
	LOCKED;
	struct volume *volume;
	int r;

	if (!explain_ref(pool, "limit", ref))
		return COPPICE_OK;
	r = find_or_fail(store_of(pool), ref, &volume, err);
	if (r == COPPICE_OK)
		r = step(err);
	if (r < 0)
		return r;
	for (struct volume *v = store_of(pool)->volumes; v; v = v->next)
		if (v->state == STATE_LIVE && is_same_uuid(&v->group, group))
			v->limit_bytes = limit_bytes;
	return COPPICE_OK;
}

/* ---- deleting volumes ---- */

static int retire_one(struct store *store, const struct volume_ref *ref, struct coppice_error *err)
{
	struct volume *volume;
	int r;

	r = find_or_fail(store, ref, &volume, err);
	if (r == COPPICE_OK)
		r = step(err);
	if (r < 0)
		return r;
	for (struct volume *v = store->volumes; v; v = v->next)
		if (v->state == STATE_LIVE && is_within(&v->ref, ref))
			v->state = STATE_DELETED;
	store->stamp++;
	return COPPICE_OK;
}

static int memory_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
			 size_t n, struct coppice_error *err)
{
	LOCKED;

	for (size_t i = 0; i < n; i++)
		(void)explain_ref(pool, "retire", &refs[i]);
	for (size_t i = 0; i < n && !pool->is_dry_run; i++) {
		int r = retire_one(store_of(pool), &refs[i], err);

		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

static struct volume *find_reapable(struct store *store)
{
	for (struct volume *v = store->volumes; v; v = v->next)
		if (v->state == STATE_DELETED && v->data->n_clones == 0)
			return v;
	return NULL;
}

/* From the start after each one: it may have been the last that its origin waited for. */
static int reap_all(struct store *store, struct coppice_error *err)
{
	struct volume *volume;

	while ((volume = find_reapable(store)) != NULL) {
		int r = step(err);

		if (r < 0)
			return r;
		volume_destroy(store, volume);
	}
	return COPPICE_OK;
}

static int memory_reap(struct pool *pool, struct coppice_error *err)
{
	LOCKED;

	return explain(pool, "reap", NULL) ? reap_all(store_of(pool), err) : COPPICE_OK;
}

/* What a dead maker announced, where the name is free and what it is a snapshot of is there. */
static void publish_orphans(struct store *store, const struct memory_draft *draft)
{
	for (struct volume *v = store->volumes; v && draft->is_announced; v = v->next) {
		struct volume_ref ref = v->ref;
		const struct volume *instance;

		ref.snapshot.text[0] = '\0';
		instance = find(store, &ref);
		if (v->state != STATE_DRAFT || !is_same_uuid(&v->draft, &draft->id) ||
		    find(store, &v->ref) ||
		    (volume_is_snapshot(&v->ref) &&
		     (!instance || !is_same_uuid(&instance->uuid, &v->group))))
			continue;
		v->state = STATE_LIVE;
		store->stamp++;
	}
}

/* Is there anything that a dead maker announced? It is published. */
static int publish_all_orphans(struct pool *pool, bool *ret, struct coppice_error *err)
{
	LOCKED;
	struct store *store = store_of(pool);
	int r = COPPICE_OK;

	*ret = false;
	for (struct memory_draft *draft = store->drafts; draft && r == COPPICE_OK;
	     draft = draft->next) {
		if (draft->has_maker)
			continue;
		r = step(err);
		if (r == COPPICE_OK)
			publish_orphans(store, draft);
		draft->is_over = r == COPPICE_OK;
		*ret = *ret || draft->is_announced;
	}
	return r;
}

static int sweep_all(struct pool *pool, size_t *ret_n, struct coppice_error *err)
{
	LOCKED;
	struct store *store = store_of(pool);
	struct memory_draft **at = &store->drafts;

	while (*at) {
		if (!(*at)->is_over) {
			at = &(*at)->next;
			continue;
		}
		draft_destroy(store, at);
		*ret_n += 1;
	}
	return reap_all(store, err);
}

/* Not explained: what others left is no part of what was asked for. */
static int memory_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err)
{
	bool is_published = false;
	int r;

	*ret_n = 0;
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = publish_all_orphans(pool, &is_published, err);
	if (r == COPPICE_OK && is_published && pool->note_published)
		r = pool->note_published(pool->published_user, err);
	return r < 0 ? r : sweep_all(pool, ret_n, err);
}

/* ---- looking ---- */

/* What is told is copied first: whom we tell may call us. */
struct told {
	size_t n;
	struct told_volume {
		struct volume_ref ref;
		char *record;
		uint64_t bytes;
	} * volume;
};

static void told_done(struct told *told)
{
	for (size_t i = 0; i < told->n; i++)
		free(told->volume[i].record);
	free(told->volume);
}

/* Volumes before snapshots. */
static int compare_told(const void *a, const void *b)
{
	const struct told_volume *x = a, *y = b;

	return (int)volume_is_snapshot(&x->ref) - (int)volume_is_snapshot(&y->ref);
}

static int tell(struct store *store, enum state state, struct told *told, struct coppice_error *err)
{
	LOCKED;
	size_t n = 0;

	for (struct volume *v = store->volumes; v; v = v->next)
		n++;
	told->volume = calloc(n + 1, sizeof(*told->volume));
	if (!told->volume)
		return fail_memory(err);
	for (struct volume *v = store->volumes; v; v = v->next) {
		struct told_volume *to = &told->volume[told->n];

		if (v->state != state)
			continue;
		*to = (struct told_volume){ v->ref, strdup(v->record), data_size(v->data) };
		if (!to->record)
			return fail_memory(err);
		told->n++;
	}
	qsort(told->volume, told->n, sizeof(*told->volume), compare_told);
	return COPPICE_OK;
}

static int memory_pinned(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err)
{
	_cleanup_(told_done) struct told told = { 0 };
	int r = tell(store_of(pool), STATE_DELETED, &told, err);

	for (size_t i = 0; i < told.n && r >= 0; i++) {
		struct coppice_bytes bytes = { COPPICE_EXACT, told.volume[i].bytes };

		r = fn(user, told.volume[i].record, bytes, err);
	}
	return r < 0 ? r : COPPICE_OK;
}

static int memory_stamp(struct pool *pool, uint64_t *ret, struct coppice_error *err)
{
	LOCKED;

	*ret = store_of(pool)->stamp;
	return COPPICE_OK;
}

static int memory_touch(struct pool *pool, struct coppice_error *err)
{
	LOCKED;
	int r;

	if (!explain(pool, "touch", NULL))
		return COPPICE_OK;
	r = step(err);
	if (r == COPPICE_OK)
		store_of(pool)->stamp++;
	return r;
}

static int memory_scan(struct pool *pool, scan_fn *fn, void *user, struct coppice_error *err)
{
	_cleanup_(told_done) struct told told = { 0 };
	int r = tell(store_of(pool), STATE_LIVE, &told, err);

	for (size_t i = 0; i < told.n && r >= 0; i++) {
		struct found_volume found = { .ref = told.volume[i].ref,
					      .record = told.volume[i].record };
		r = fn(user, &found, err);
	}
	return r < 0 ? r : COPPICE_OK;
}

static int memory_record_read(struct pool *pool, const struct volume_ref *ref, char **ret,
			      struct coppice_error *err)
{
	LOCKED;
	struct volume *volume;
	int r;

	r = find_or_fail(store_of(pool), ref, &volume, err);
	if (r < 0)
		return r;
	return dup_text(volume->record, ret, err);
}

static int memory_path(struct pool *pool, const struct volume_ref *ref, char **ret,
		       struct coppice_error *err)
{
	LOCKED;
	struct volume *volume;
	int r;

	r = find_or_fail(store_of(pool), ref, &volume, err);
	if (r < 0)
		return r;
	return dup_text(volume->data->tree->path, ret, err);
}

static uint64_t group_written(struct store *store, const struct uuid *group)
{
	uint64_t bytes = 0;

	for (struct volume *v = store->volumes; v; v = v->next)
		if (v->state == STATE_LIVE && is_same_uuid(&v->group, group))
			bytes += v->data->written_bytes;
	return bytes;
}

static int memory_usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
			struct volume_usage *ret, size_t n, bool is_exact,
			struct coppice_error *err)
{
	LOCKED;
	struct store *store = store_of(pool);

	for (size_t i = 0; i < n; i++) {
		struct volume *volume = find(store, &refs[i]);

		ret[i] = (struct volume_usage){ 0 };
		if (!volume)
			continue;
		ret[i].written =
			(struct coppice_bytes){ COPPICE_EXACT, group_written(store, &groups[i]) };
		ret[i].refers = (struct coppice_bytes){ COPPICE_EXACT, data_size(volume->data) };
	}
	return COPPICE_OK;
}

/* There is no damage that memory could have and the core not see. */
static int memory_check(struct pool *pool, bool is_repair, scan_fn *fn, void *user,
			struct coppice_error *err)
{
	return COPPICE_OK;
}

/* ---- for tests ---- */

void memory_pool_fail_at(unsigned nth)
{
	LOCKED;

	fail_in = nth;
}

unsigned memory_pool_fails_in(void)
{
	LOCKED;

	return fail_in;
}

size_t memory_count(void)
{
	LOCKED;
	size_t n = 0;

	for (struct store *s = stores; s; s = s->next) {
		for (struct volume *v = s->volumes; v; v = v->next)
			n++;
		for (struct memory_draft *d = s->drafts; d; d = d->next)
			n++;
	}
	return n;
}

void memory_draft_orphan_all(void)
{
	LOCKED;

	for (struct store *s = stores; s; s = s->next)
		for (struct memory_draft *d = s->drafts; d; d = d->next)
			d->has_maker = false;
}

int memory_volume_put(struct pool *pool, const struct volume_ref *ref, const char *key,
		      const char *value, struct coppice_error *err)
{
	LOCKED;
	struct store *store = store_of(pool);
	struct volume *volume;
	int r;

	r = find_or_fail(store, ref, &volume, err);
	if (r < 0)
		return r;
	if (volume->data->is_read_only)
		return fail(err, COPPICE_UNSUPPORTED, "'%s' is read-only", ref->name.text);
	if (volume->limit_bytes > 0 &&
	    group_written(store, &volume->group) + strlen(value) > volume->limit_bytes)
		return fail(err, COPPICE_NO_SPACE, "'%s' is at its limit", ref->name.text);
	r = content_put(&volume->data->content, key, value, err);
	if (r == COPPICE_OK)
		volume->data->written_bytes += strlen(value);
	return r;
}

int memory_volume_get(struct pool *pool, const struct volume_ref *ref, const char *key, char **ret,
		      struct coppice_error *err)
{
	LOCKED;
	struct content *content;
	struct volume *volume;
	int r;

	r = find_or_fail(store_of(pool), ref, &volume, err);
	if (r < 0)
		return r;
	content = content_find(volume->data->content, key);
	if (!content)
		return fail(err, COPPICE_NOT_FOUND, "no '%s' in '%s'", key, ref->name.text);
	return dup_text(content->value, ret, err);
}

static const struct driver_key pool_keys[] = { { .name = NULL } };

const struct driver driver_memory = {
	.name = "memory",
	.pool_keys = pool_keys,
	.probe = memory_probe,
	.pool_create = memory_pool_create,
	.pool_open = memory_pool_open,
	.pool_close = memory_pool_close,
	.pool_is_mounted = memory_pool_is_mounted,
	.pool_umount = memory_pool_umount,
	.pool_destroy = memory_pool_destroy,
	.pool_resize = memory_pool_resize,
	.pool_space = memory_pool_space,
	.pool_record_read = memory_pool_record_read,
	.pool_record_write = memory_pool_record_write,
	.pool_mount_path = memory_pool_mount_path,
	.draft_open = memory_draft_open,
	.draft_announce = memory_draft_announce,
	.draft_discard = memory_draft_discard,
	.volume_create = memory_volume_create,
	.volume_fill = memory_volume_fill,
	.draft_path = memory_draft_path,
	.volume_seal = memory_volume_seal,
	.clone = memory_clone,
	.publish = memory_publish,
	.commit = memory_commit,
	.draft_sweep = memory_draft_sweep,
	.swap = memory_swap,
	.rename = memory_rename,
	.record_write = memory_record_write,
	.limit_set = memory_limit_set,
	.retire = memory_retire,
	.reap = memory_reap,
	.pinned = memory_pinned,
	.stamp = memory_stamp,
	.touch = memory_touch,
	.scan = memory_scan,
	.record_read = memory_record_read,
	.path = memory_path,
	.usage = memory_usage,
	.check = memory_check,
	.traits = { .can_clone = true, .can_limit = true },
};
