/* SPDX-License-Identifier: Apache-2.0 */

/* What the cases have in common: a pool for each test, and volumes in one line. */

#include "conformance.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"

const struct subject *subject;

static struct kept {
	struct kept *next;
	char *text;
} * kept;

const char *keep(char *text)
{
	struct kept *entry = calloc(1, sizeof(*entry));

	ok(text && entry);
	*entry = (struct kept){ .next = kept, .text = text };
	kept = entry;
	return text;
}

/* ---- pools ---- */

static const char *config_get(const struct pool_spec *spec, const char *key)
{
	if (strcmp(key, "btrfs.quota") == 0)
		return subject->quota;
	if (strcmp(key, "volume.block.filesystem") == 0)
		return subject->file_system;
	if (strcmp(key, "volume.size") == 0)
		return subject->volume_size;
	return strcmp(key, "size") == 0 ? subject->size : NULL;
}

/* Different in each test, the same in a test and after it: from the name of its directory. */
static struct uuid uuid_of_test(unsigned which)
{
	const char *end = tap_dir() + strlen(tap_dir());
	struct uuid uuid;

	(void)snprintf(uuid.text, sizeof(uuid.text), "%02x%02x%02x%02x-%02x%02x-4000-8000-%012x",
		       end[-6], end[-5], end[-4], end[-3], end[-2], end[-1], which);
	return uuid;
}

struct pool_spec spec_of_test(void)
{
	static char state[sizeof(tap_dir_path) + 8];

	(void)snprintf(state, sizeof(state), "%s/state", tap_dir());
	(void)mkdir(state, 0700);
	return (struct pool_spec){
		.name = "conform",
		.state_path = state,
		.lock_timeout_ms = 60000,
		.get = config_get,
		.uuid = uuid_of_test(1),
		.owner = uuid_of_test(2),
	};
}

const char *pool_record(void)
{
	static char record[512];
	struct pool_spec spec = spec_of_test();

	(void)snprintf(record, sizeof(record),
		       "{\"name\": \"%s\", \"uuid\": \"%s\", \"owner\": \"%s\"}", spec.name,
		       spec.uuid.text, spec.owner.text);
	return record;
}

struct pool *pool_up(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	struct pool *pool = NULL;

	ok_call(subject->driver->pool_create(&spec, pool_record(), &pool, &err), &err);
	ok(pool && pool->driver == subject->driver);
	return pool;
}

struct pool *pool_again(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();

	if (pool)
		subject->driver->pool_close(pool);
	pool = NULL;
	ok_call(subject->driver->pool_open(&spec, &pool, &err), &err);
	ok(pool);
	return pool;
}

void pool_down(struct pool *pool)
{
	subject->driver->pool_close(pool);
}

static int fail_at_problem(void *user, const struct found_volume *found, struct coppice_error *err)
{
	tap_fail("check: %s: %s", found->ref.name.text, found->problem ? found->problem : "?");
	return COPPICE_FAILED;
}

void check_pool(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	if (subject->driver->check)
		ok_call(subject->driver->check(pool, false, fail_at_problem, NULL, &err), &err);
}

/* ---- volumes ---- */

struct volume_ref ref_of(const char *name)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = { .kind = VOLUME_CUSTOM };

	if (strcmp(name, "image") == 0) {
		ref.kind = VOLUME_IMAGE;
		ok_call(fingerprint_parse("0123456789abcdef0123456789abcdef"
					  "0123456789abcdef0123456789abcdef",
					  &ref.name, &err),
			&err);
	} else if (name[0] == '@') {
		(void)snprintf(ref.name.text, sizeof(ref.name.text), "%s", name + 1);
	} else {
		ok_call(instance_ref_parse(name, &ref, &err), &err);
	}
	return ref;
}

struct new_volume new_of(const char *name)
{
	struct new_volume volume = { .ref = ref_of(name) };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(uuid_new(&volume.uuid, &err), &err);
	volume.group = volume.uuid;
	volume.record =
		keep(text_format("{\"name\": \"%s\", \"uuid\": \"%s\"}", name, volume.uuid.text));
	volume.explain_record = keep(text_format("'{\"name\": \"%s\"}'", name));
	volume.explain_group = "group";
	return volume;
}

struct new_volume new_in_group(const char *name, const struct new_volume *of)
{
	struct new_volume volume = new_of(name);

	volume.group = of->group;
	volume.explain_group = NULL;
	return volume;
}

struct new_volume new_nested(const char *name, const struct new_volume *of)
{
	struct new_volume volume = new_in_group(name, of);

	volume.is_nested = true;
	volume.explain_group = of->explain_group;
	return volume;
}

struct draft draft_up(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = { .fd = -1 };

	ok_call(pool->driver->draft_open(pool, &draft, &err), &err);
	return draft;
}

void draft_down(struct draft *draft)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(subject->driver->draft_discard(draft, &err), &err);
}

void fill(struct draft *draft, const struct new_volume *volume, const char *value,
	  bool is_read_only)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *path = NULL, *file = NULL;

	ok_call(subject->driver->volume_create(draft, volume, &path, &err), &err);
	file = text_format("%s/content", path);
	ok(file);
	ok_call(file_write(AT_FDCWD, file, value, false, &err), &err);
	ok_call(subject->driver->volume_seal(draft, volume, is_read_only, &err), &err);
}

static void publish_one(struct draft *draft, const struct new_volume *volume)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = draft->pool;

	ok_call(pool->driver->publish(draft, volume, 1, &err), &err);
	draft_down(draft);
	ok_call(pool->driver->commit(pool, &err), &err);
}

static struct new_volume make_volume(struct pool *pool, const char *name, const char *value,
				     bool is_read_only)
{
	struct new_volume volume = new_of(name);
	struct draft draft = draft_up(pool);

	fill(&draft, &volume, value, is_read_only);
	publish_one(&draft, &volume);
	return volume;
}

struct new_volume make(struct pool *pool, const char *name, const char *value)
{
	return make_volume(pool, name, value, false);
}

struct new_volume make_image(struct pool *pool, const char *value)
{
	return make_volume(pool, "image", value, true);
}

static void clone_one(struct pool *pool, const char *origin, const struct new_volume *volume,
		      bool is_read_only)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref from = ref_of(origin);
	struct draft draft = draft_up(pool);

	ok_call(pool->driver->clone(&draft, &from, volume, 1, is_read_only, &err), &err);
	publish_one(&draft, volume);
}

struct new_volume clone_of(struct pool *pool, const char *origin, const char *name)
{
	struct new_volume volume = new_of(name);

	clone_one(pool, origin, &volume, false);
	return volume;
}

struct new_volume snapshot_of(struct pool *pool, const struct new_volume *instance,
			      const char *name)
{
	char full[VOLUME_REF_TEXT_MAX];
	struct new_volume snapshot;

	(void)snprintf(full, sizeof(full), "%s/%s", instance->ref.name.text, name);
	snapshot = new_in_group(full, instance);
	clone_one(pool, instance->ref.name.text, &snapshot, true);
	return snapshot;
}

void retire(struct pool *pool, const char *name, const struct new_volume *volume)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = ref_of(name);

	ok_call(pool->driver->retire(pool, &ref, &volume->uuid, 1, &err), &err);
	ok_call(pool->driver->commit(pool, &err), &err);
}

void reap(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(pool->driver->reap(pool, &err), &err);
	if (subject->settle)
		subject->settle(pool);
}

size_t sweep(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	size_t n = 0;

	ok_call(subject->driver->draft_sweep(pool, &n, &err), &err);
	return n;
}

void put(struct pool *pool, const char *name, const char *value)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = ref_of(name);

	ok_call(subject->put(pool, &ref, "content", value, &err), &err);
}

void noise(char *text, size_t size, unsigned seed)
{
	uint32_t state = seed * 2654435761U + 1;

	for (size_t i = 0; i + 1 < size; i++) {
		state ^= state << 13;
		state ^= state >> 17;
		state ^= state << 5;
		text[i] = (char)('!' + state % 64);
	}
	text[size - 1] = '\0';
}

const char *get(struct pool *pool, const char *name)
{
	struct volume_ref ref = ref_of(name);
	char *value = subject->get(pool, &ref, "content");

	return value ? keep(value) : "(nothing)";
}

bool is_there(struct pool *pool, const char *name)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = ref_of(name);
	_cleanup_(freep) char *record = NULL;
	int r = pool->driver->record_read(pool, &ref, &record, &err);

	if (r == COPPICE_OK)
		return true;
	if (r != COPPICE_NOT_FOUND)
		tap_fail("reading the record of %s: %d: %s", name, r, err.message);
	return false;
}

const char *record_of(struct pool *pool, const char *name)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = ref_of(name);
	char *record = NULL;

	ok_call(pool->driver->record_read(pool, &ref, &record, &err), &err);
	return keep(record);
}

uint64_t stamp_of(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	uint64_t stamp = 0;

	ok_call(pool->driver->stamp(pool, &stamp, &err), &err);
	return stamp;
}

struct seen {
	size_t n;
	struct volume_ref ref[1024];
};

static bool has_seen(const struct seen *seen, const struct volume_ref *ref)
{
	for (size_t i = 0; i < seen->n; i++)
		if (memcmp(&seen->ref[i], ref, sizeof(*ref)) == 0)
			return true;
	return false;
}

static int see(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct volume_ref ref, parent;
	struct seen *seen = user;

	/* Compared as bytes, so what stands behind the names must be zero. */
	memset(&ref, 0, sizeof(ref));
	ref.kind = found->ref.kind;
	strcpy(ref.name.text, found->ref.name.text);
	parent = ref;
	strcpy(ref.snapshot.text, found->ref.snapshot.text);

	if (found->problem)
		tap_fail("scan: %s has a problem: %s", ref.name.text, found->problem);
	ok(found->record && found->record[0] == '{');
	ok(!has_seen(seen, &ref));
	if (volume_is_snapshot(&ref) && !has_seen(seen, &parent))
		tap_fail("scan: %s/%s comes before its volume", ref.name.text, ref.snapshot.text);
	ok_int(seen->n, <, ARRAY_SIZE(seen->ref));
	seen->ref[seen->n++] = ref;
	return COPPICE_OK;
}

size_t count(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	static struct seen seen;

	seen.n = 0;
	ok_call(pool->driver->scan(pool, see, &seen, &err), &err);
	return seen.n;
}

struct all {
	size_t n;
	struct volume_ref ref[1024];
	struct uuid uuid[1024];
};

static int add_volume(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct all *all = user;

	if (volume_is_snapshot(&found->ref) || all->n == ARRAY_SIZE(all->ref))
		return COPPICE_OK;
	all->ref[all->n] = found->ref;
	return uuid_new(&all->uuid[all->n++], err);
}

void pool_clear(struct pool *pool)
{
	const struct driver *driver = pool->driver;
	struct coppice_error err = COPPICE_ERROR_INIT;
	static struct all all;
	size_t n = 0;

	all.n = 0;
	ok_call(driver->scan(pool, add_volume, &all, &err), &err);
	ok_call(driver->retire(pool, all.ref, all.uuid, all.n, &err), &err);
	ok_call(driver->commit(pool, &err), &err);
	ok_call(driver->reap(pool, &err), &err);
	ok_call(driver->draft_sweep(pool, &n, &err), &err);
}
