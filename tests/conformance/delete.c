/* SPDX-License-Identifier: Apache-2.0 */

/* Volumes cease to be: the name at once, the data when nobody stands on it. */

#include "conformance.h"

static int count_pinned(void *user, const char *record, struct coppice_bytes pinned,
			struct coppice_error *err)
{
	ok(record && record[0] == '{');
	++*(size_t *)user;
	return COPPICE_OK;
}

static size_t pinned(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	size_t n = 0;

	ok_call(subject->driver->pinned(pool, count_pinned, &n, &err), &err);
	return n;
}

static void test_retire_frees_the_name_at_once(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one"), again;

	retire(pool, "c1", &c1);
	ok(!is_there(pool, "c1"));
	ok_int(count(pool), ==, 0);
	again = make(pool, "c1", "two");
	reap(pool);
	ok_str(get(pool, "c1"), "two");
	ok_str(record_of(pool, "c1"), again.record);
	ok_int(count(pool), ==, 1);
	pool_down(pool);
}

static void test_retire_with_clones_alive(void)
{
	struct pool *pool = pool_up();
	struct new_volume image = make_image(pool, "data"), c1;

	c1 = clone_of(pool, "image", "c1");
	clone_of(pool, "c1", "c2");
	retire(pool, "image", &image);
	retire(pool, "c1", &c1);
	reap(pool);
	pool = pool_again(pool);
	ok(!is_there(pool, "image"));
	ok_str(get(pool, "c2"), "data");
	ok_int(count(pool), ==, 1);

	make_image(pool, "data of today");
	ok_str(get(pool, "image"), "data of today");
	ok_str(get(pool, "c2"), "data");
	pool_down(pool);
}

/* Where clones stand on their origins, those stay until the last is gone, then all go. */
static void test_pinned_tells_who_is_held(void)
{
	struct pool *pool = pool_up();
	struct new_volume image = make_image(pool, "data"), c1, c2;

	c1 = clone_of(pool, "image", "c1");
	c2 = clone_of(pool, "c1", "c2");
	ok_int(pinned(pool), ==, 0);
	retire(pool, "image", &image);
	retire(pool, "c1", &c1);
	reap(pool);
	if (subject->has_tombstones)
		ok_int(pinned(pool), ==, 2);
	else if (!subject->has_accounts) /* these may share something, or nothing */
		ok_int(pinned(pool), ==, 0);
	retire(pool, "c2", &c2);
	reap(pool);
	ok_int(pinned(pool), ==, 0);
	pool_down(pool);
}

static void test_retire_takes_snapshots(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");

	snapshot_of(pool, &c1, "s1");
	snapshot_of(pool, &c1, "s2");
	retire(pool, "c1", &c1);
	ok(!is_there(pool, "c1/s1"));
	reap(pool);
	ok_int(count(pool), ==, 0);
	make(pool, "c1", "two");
	ok_int(count(pool), ==, 1);
	pool_down(pool);
}

static void test_retire_of_a_snapshot(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one"), s1;

	s1 = snapshot_of(pool, &c1, "s1");
	snapshot_of(pool, &c1, "s2");
	clone_of(pool, "c1/s1", "c2");
	retire(pool, "c1/s1", &s1);
	ok(!is_there(pool, "c1/s1"));
	reap(pool);
	ok_int(count(pool), ==, 3);
	ok_str(get(pool, "c1"), "one");
	ok_str(get(pool, "c1/s2"), "one");
	ok_str(get(pool, "c2"), "one");
	snapshot_of(pool, &c1, "s1");
	ok_int(count(pool), ==, 4);
	pool_down(pool);
}

static void test_retire_of_many(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref refs[50];
	struct uuid uuids[50];
	struct pool *pool = pool_up();

	make(pool, "rest", "rest");
	for (size_t i = 0; i < ARRAY_SIZE(refs); i++) {
		struct new_volume volume;
		char name[16];

		(void)snprintf(name, sizeof(name), "c%zu", i);
		volume = make(pool, name, "one");
		refs[i] = volume.ref;
		uuids[i] = volume.uuid;
	}
	ok_call(subject->driver->retire(pool, refs, uuids, ARRAY_SIZE(refs), &err), &err);
	ok_call(subject->driver->commit(pool, &err), &err);
	reap(pool);
	ok_int(count(pool), ==, 1);
	ok(is_there(pool, "rest"));
	pool_down(pool);
}

static void test_retire_of_nothing(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one"), missing = new_of("nobody");
	struct new_volume c2 = make(pool, "c2", "two");
	struct volume_ref refs[] = { c1.ref, missing.ref, c2.ref };
	struct uuid uuids[] = { c1.uuid, missing.uuid, c2.uuid };

	ok_code(subject->driver->retire(pool, refs, uuids, 3, &err), COPPICE_NOT_FOUND, &err);
	ok_has(err.message, "nobody");
	ok(!is_there(pool, "c1"));
	ok(is_there(pool, "c2"));
	reap(pool);
	ok_int(count(pool), ==, 1);
	pool_down(pool);
}

static void test_reap_again_does_nothing(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");

	reap(pool);
	ok_str(get(pool, "c1"), "one");
	retire(pool, "c1", &c1);
	reap(pool);
	reap(pool);
	pool = pool_again(pool);
	reap(pool);
	ok_int(count(pool), ==, 0);
	ok_int(pinned(pool), ==, 0);
	pool_down(pool);
}

const struct tap_test cases_delete[] = {
	TAP(test_retire_frees_the_name_at_once),
	TAP(test_retire_with_clones_alive),
	TAP(test_pinned_tells_who_is_held),
	TAP(test_retire_takes_snapshots),
	TAP(test_retire_of_a_snapshot),
	TAP(test_retire_of_many),
	TAP(test_retire_of_nothing),
	TAP(test_reap_again_does_nothing),
	TAP_END,
};
