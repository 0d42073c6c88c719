/* SPDX-License-Identifier: Apache-2.0 */

/* Volumes change: their names, data, records and limits. */

#include "conformance.h"

#include "base/text.h"

static int rename_(struct pool *pool, const char *from, const char *to, struct coppice_error *err)
{
	struct volume_ref from_ref = ref_of(from), to_ref = ref_of(to);

	return subject->driver->rename(pool, &from_ref, &to_ref, err);
}

static void test_rename_takes_snapshots_along(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");
	struct new_volume s1 = snapshot_of(pool, &c1, "s1");

	put(pool, "c1", "two");
	ok_call(rename_(pool, "c1", "web", &err), &err);
	ok_call(subject->driver->commit(pool, &err), &err);
	pool = pool_again(pool);
	ok(!is_there(pool, "c1"));
	ok(!is_there(pool, "c1/s1"));
	ok_str(get(pool, "web"), "two");
	ok_str(get(pool, "web/s1"), "one");
	ok_str(record_of(pool, "web"), c1.record);
	ok_str(record_of(pool, "web/s1"), s1.record);
	ok_int(count(pool), ==, 2);
	pool_down(pool);
}

static void test_rename_to_a_taken_name(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");
	struct new_volume c2 = make(pool, "c2", "two");

	ok_code(rename_(pool, "c1", "c2", &err), COPPICE_EXISTS, &err);
	ok_str(record_of(pool, "c1"), c1.record);
	ok_str(record_of(pool, "c2"), c2.record);
	ok_str(get(pool, "c1"), "one");
	ok_str(get(pool, "c2"), "two");
	pool_down(pool);
}

static void test_rename_of_nothing(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();

	make(pool, "c2", "two");
	ok_code(rename_(pool, "c1", "c3", &err), COPPICE_NOT_FOUND, &err);
	ok_int(count(pool), ==, 1);
	pool_down(pool);
}

static void test_rename_of_a_snapshot(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");

	snapshot_of(pool, &c1, "s1");
	snapshot_of(pool, &c1, "s2");
	ok_code(rename_(pool, "c1/s1", "c1/s2", &err), COPPICE_EXISTS, &err);
	ok_code(rename_(pool, "c1/s3", "c1/s4", &err), COPPICE_NOT_FOUND, &err);
	ok_call(rename_(pool, "c1/s1", "c1/before", &err), &err);
	ok_call(subject->driver->commit(pool, &err), &err);
	ok(!is_there(pool, "c1/s1"));
	ok_str(get(pool, "c1/before"), "one");
	ok_int(count(pool), ==, 3);
	pool_down(pool);
}

/* As restore does it: a clone of the snapshot takes the place of the live data. */
static void restore(struct pool *pool, const struct new_volume *instance, const char *snapshot)
{
	struct new_volume replacement = new_in_group("replacement", instance);
	struct volume_ref from = ref_of(snapshot);
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);

	ok_call(subject->driver->clone(&draft, &from, &replacement, 1, false, &err), &err);
	ok_call(subject->driver->swap(&draft, &replacement, &instance->ref, &err), &err);
	draft_down(&draft);
	ok_call(subject->driver->commit(pool, &err), &err);
	reap(pool);
}

static void test_swap_exchanges_only_data(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one"), s1, s2;

	s1 = snapshot_of(pool, &c1, "s1");
	put(pool, "c1", "two");
	s2 = snapshot_of(pool, &c1, "s2");
	put(pool, "c1", "three");
	restore(pool, &c1, "c1/s1");
	pool = pool_again(pool);
	ok_str(get(pool, "c1"), "one");
	ok_str(get(pool, "c1/s1"), "one");
	ok_str(get(pool, "c1/s2"), "two");
	ok_str(record_of(pool, "c1"), c1.record);
	ok_str(record_of(pool, "c1/s1"), s1.record);
	ok_str(record_of(pool, "c1/s2"), s2.record);
	ok_int(count(pool), ==, 3);

	/* And it is writable, and can go forward again. */
	put(pool, "c1", "four");
	ok_str(get(pool, "c1/s1"), "one");
	restore(pool, &c1, "c1/s2");
	ok_str(get(pool, "c1"), "two");
	pool_down(pool);
}

static void test_swap_puts_the_old_data_in_the_draft(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");
	struct new_volume replacement = new_in_group("replacement", &c1);
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);

	fill(&draft, &replacement, "other", false);
	ok_call(subject->driver->swap(&draft, &replacement, &c1.ref, &err), &err);
	ok_str(get(pool, "c1"), "other");
	ok_call(subject->driver->swap(&draft, &replacement, &c1.ref, &err), &err);
	ok_str(get(pool, "c1"), "one");
	draft_down(&draft);
	ok_str(get(pool, "c1"), "one");
	pool_down(pool);
}

static void test_swap_takes_nested_snapshots_along(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one"), s1 = snapshot_of(pool, &c1, "s1");
	struct new_volume replacement = new_in_group("c1", &c1);
	struct new_volume nested = new_nested("c1/new", &c1);
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);

	replacement.has_nested = true;
	fill(&draft, &replacement, "other", false);
	ok_call(subject->driver->clone(&draft, &s1.ref, &nested, 1, true, &err), &err);
	ok_int(count(pool), ==, 2);
	ok_call(subject->driver->swap(&draft, &replacement, &c1.ref, &err), &err);
	draft_down(&draft);
	ok_call(subject->driver->commit(pool, &err), &err);
	pool = pool_again(pool);
	ok_int(count(pool), ==, 3);
	ok_str(get(pool, "c1"), "other");
	ok_str(get(pool, "c1/s1"), "one");
	ok_str(get(pool, "c1/new"), "one");
	ok_str(record_of(pool, "c1"), c1.record);
	ok_str(record_of(pool, "c1/new"), nested.record);
	pool_down(pool);
}

static void test_swap_with_nothing(void)
{
	struct pool *pool = pool_up();
	struct new_volume replacement = new_of("replacement");
	struct volume_ref c1 = ref_of("c1");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);

	fill(&draft, &replacement, "other", false);
	ok_code(subject->driver->swap(&draft, &replacement, &c1, &err), COPPICE_NOT_FOUND, &err);
	draft_down(&draft);
	ok_int(count(pool), ==, 0);
	pool_down(pool);
}

static void test_record_write(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");
	struct new_volume s1 = snapshot_of(pool, &c1, "s1");
	char record[1500];

	/* Longer than what was there, and all but as long as a record may be on ext4. */
	(void)snprintf(record, sizeof(record), "{\"uuid\": \"%s\", \"user.note\": \"%01400d\"}",
		       c1.uuid.text, 1);
	ok_call(subject->driver->record_write(pool, &c1.ref, record, &err), &err);
	ok_call(subject->driver->commit(pool, &err), &err);
	pool = pool_again(pool);
	ok_str(record_of(pool, "c1"), record);
	ok_str(record_of(pool, "c1/s1"), s1.record);
	ok_call(subject->driver->record_write(pool, &s1.ref, "{\"a\": 1}", &err), &err);
	ok_str(record_of(pool, "c1/s1"), "{\"a\": 1}");
	ok_str(record_of(pool, "c1"), record);
	ok_str(get(pool, "c1"), "one");
	pool_down(pool);
}

static void test_record_of_nothing(void)
{
	struct volume_ref c2 = ref_of("c2"), s1 = ref_of("c1/s1"), s2 = ref_of("c2/s1");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();

	make(pool, "c1", "one");
	ok_code(subject->driver->record_write(pool, &c2, "{}", &err), COPPICE_NOT_FOUND, &err);
	ok_code(subject->driver->record_write(pool, &s1, "{}", &err), COPPICE_NOT_FOUND, &err);
	ok(!is_there(pool, "c2"));
	ok(!is_there(pool, "c1/s1"));
	ok_code(subject->driver->record_write(pool, &s2, "{}", &err), COPPICE_NOT_FOUND, &err);
	ok_int(count(pool), ==, 1);
	pool_down(pool);
}

/* What a volume has anyway, where each is a file system of its own; else 0. */
static uint64_t own_size(void)
{
	uint64_t size = 0;

	ok(!subject->volume_size || size_parse(subject->volume_size, &size));
	return size;
}

/* It is not less than what a volume has anyway. */
#define LIMIT_BYTES (own_size() + (own_size() ? 32U << 20 : 8U << 20))
#define CHUNK_BYTES (own_size() ? 8U << 20 : 1U << 20)

/* Write one file after another until there is no space; returns how many bytes it took. */
static size_t write_until_full(struct pool *pool, const char *name, size_t at_most)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *chunk = malloc(CHUNK_BYTES + 1);
	struct volume_ref ref = ref_of(name);
	size_t written = 0;

	ok(chunk);
	while (written < at_most) {
		char key[32];
		int r;

		noise(chunk, CHUNK_BYTES + 1, (unsigned)(written >> 20) + 1);
		(void)snprintf(key, sizeof(key), "file%zu", written);
		r = subject->put(pool, &ref, key, chunk, &err);
		if (r == COPPICE_NO_SPACE)
			return written;
		ok_call(r, &err);
		written += CHUNK_BYTES;
		ok_call(subject->driver->commit(pool, &err), &err);
	}
	return written;
}

static void skip_without_limits(void)
{
	if (subject->no_limits && subject->no_limits())
		skip("%s: %s", subject->name, subject->no_limits());
	if (!subject->driver->traits.can_limit)
		skip("%s: the engine enforces no limits", subject->driver->name);
}

/* Never forgotten in silence. */
static void test_limit_is_refused_where_it_is_not_enforced(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref image = ref_of("image");
	struct new_volume c1, c2 = new_of("c2");
	struct draft draft;
	struct pool *pool;

	if (!subject->no_limits || !subject->no_limits())
		skip("%s: limits are enforced, or nobody offers them", subject->name);
	pool = pool_up();
	make_image(pool, "data");
	c1 = clone_of(pool, "image", "c1");
	ok_int(subject->driver->limit_set(pool, &c1.ref, &c1.group, LIMIT_BYTES, 0, &err), ==,
	       COPPICE_UNSUPPORTED);
	ok_int(subject->driver->can_limit(pool, &err), ==, COPPICE_UNSUPPORTED);
	ok_call(subject->driver->limit_set(pool, &c1.ref, &c1.group, 0, 0, &err), &err);
	c2.limit_bytes = LIMIT_BYTES;
	draft = draft_up(pool);
	ok_int(subject->driver->clone(&draft, &image, &c2, 1, false, &err), ==,
	       COPPICE_UNSUPPORTED);
	draft_down(&draft);
	pool_down(pool);
}

static void test_limit_set_is_enforced(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct new_volume c1;
	struct pool *pool;

	skip_without_limits();
	pool = pool_up();
	make_image(pool, "data");
	c1 = clone_of(pool, "image", "c1");
	clone_of(pool, "image", "c2");
	ok_call(subject->driver->limit_set(pool, &c1.ref, &c1.group, LIMIT_BYTES, 0, &err), &err);
	ok_int(write_until_full(pool, "c1", 4 * LIMIT_BYTES), <=, LIMIT_BYTES);
	if (own_size()) {
		ok_int(write_until_full(pool, "c2", 2 * LIMIT_BYTES), <=, own_size());
		pool_down(pool);
		return;
	}
	ok_int(write_until_full(pool, "c2", 2 * LIMIT_BYTES), ==, 2 * LIMIT_BYTES);

	ok_call(subject->driver->limit_set(pool, &c1.ref, &c1.group, 0, 0, &err), &err);
	ok_int(write_until_full(pool, "c1", LIMIT_BYTES), ==, LIMIT_BYTES);
	pool_down(pool);
}

/* A file system that is there does not shrink. */
static void test_limit_below_what_a_volume_has_is_refused(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct new_volume c1, c2 = new_of("c2");
	struct volume_ref image = ref_of("image");
	struct draft draft;
	struct pool *pool;

	skip_without_limits();
	if (!own_size())
		skip("%s: volumes have no size of their own", subject->name);
	pool = pool_up();
	make_image(pool, "data");
	c1 = clone_of(pool, "image", "c1");
	ok_code(subject->driver->limit_set(pool, &c1.ref, &c1.group, own_size() - 1, 0, &err),
		COPPICE_INVALID, &err);
	clone_of(pool, "image", "plain");
	ok_call(subject->driver->limit_set(pool, &c1.ref, &c1.group, LIMIT_BYTES, 0, &err), &err);
	ok_int(write_until_full(pool, "c1", LIMIT_BYTES), >,
	       write_until_full(pool, "plain", LIMIT_BYTES));
	ok_code(subject->driver->limit_set(pool, &c1.ref, &c1.group, own_size(), 0, &err),
		COPPICE_INVALID, &err);
	ok_call(subject->driver->limit_set(pool, &c1.ref, &c1.group, 0, 0, &err), &err);
	c2.limit_bytes = own_size() - 1;
	draft = draft_up(pool);
	ok_code(subject->driver->clone(&draft, &image, &c2, 1, false, &err), COPPICE_INVALID, &err);
	draft_down(&draft);
	pool_down(pool);
}

static void test_clone_is_born_with_its_limit(void)
{
	struct volume_ref image = ref_of("image");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct new_volume volumes[2];
	struct pool *pool;
	struct draft draft;

	skip_without_limits();
	pool = pool_up();
	make_image(pool, "data");
	volumes[0] = new_of("c1");
	volumes[0].limit_bytes = LIMIT_BYTES;
	volumes[1] = new_of("c2");
	volumes[1].limit_bytes = 2 * LIMIT_BYTES;
	draft = draft_up(pool);
	ok_call(subject->driver->clone(&draft, &image, volumes, 2, false, &err), &err);
	ok_call(subject->driver->publish(&draft, volumes, 2, &err), &err);
	draft_down(&draft);
	ok_call(subject->driver->commit(pool, &err), &err);
	ok_int(write_until_full(pool, "c1", 4 * LIMIT_BYTES), <=, LIMIT_BYTES);
	ok_int(write_until_full(pool, "c2", 4 * LIMIT_BYTES), >, LIMIT_BYTES);
	pool_down(pool);
}

static void test_limit_stays_after_a_restore(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct new_volume c1;
	struct pool *pool;
	size_t written;

	skip_without_limits();
	pool = pool_up();
	make_image(pool, "data");
	c1 = clone_of(pool, "image", "c1");
	ok_call(subject->driver->limit_set(pool, &c1.ref, &c1.group, LIMIT_BYTES, 0, &err), &err);
	snapshot_of(pool, &c1, "s1");
	restore(pool, &c1, "c1/s1");
	written = write_until_full(pool, "c1", 4 * LIMIT_BYTES);
	ok_int(written, <=, LIMIT_BYTES);
	if (own_size()) {
		clone_of(pool, "image", "plain");
		ok_int(written, >, write_until_full(pool, "plain", LIMIT_BYTES));
	}
	pool_down(pool);
}

const struct tap_test cases_change[] = {
	TAP(test_rename_takes_snapshots_along),
	TAP(test_rename_to_a_taken_name),
	TAP(test_rename_of_nothing),
	TAP(test_rename_of_a_snapshot),
	TAP(test_swap_exchanges_only_data),
	TAP(test_swap_puts_the_old_data_in_the_draft),
	TAP(test_swap_takes_nested_snapshots_along),
	TAP(test_swap_with_nothing),
	TAP(test_record_write),
	TAP(test_record_of_nothing),
	TAP(test_limit_is_refused_where_it_is_not_enforced),
	TAP(test_limit_set_is_enforced),
	TAP(test_limit_below_what_a_volume_has_is_refused),
	TAP(test_clone_is_born_with_its_limit),
	TAP(test_limit_stays_after_a_restore),
	TAP_END,
};
