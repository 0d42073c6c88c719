/* SPDX-License-Identifier: Apache-2.0 */

/* Pools: made, found again, refused to others, removed without a trace. */

#include "conformance.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/lock.h"
#include "base/text.h"

static void test_table_is_complete(void)
{
	const char *problem = driver_problem(subject->driver);

	if (problem)
		tap_fail("the table of ops lacks %s", problem);
}

static void test_pool_create(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *record = NULL;
	struct pool *pool = pool_up();

	ok_call(subject->driver->pool_record_read(pool, &record, &err), &err);
	ok_str(record, pool_record());
	ok_int(count(pool), ==, 0);
	pool_down(pool);
}

static void test_pool_opened_again_has_its_volumes(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *record = NULL;
	struct pool *pool = pool_up();

	make(pool, "c1", "one");
	pool = pool_again(pool);
	ok_str(get(pool, "c1"), "one");
	ok_int(count(pool), ==, 1);
	ok_call(subject->driver->pool_record_read(pool, &record, &err), &err);
	ok_str(record, pool_record());
	pool_down(pool);
}

static void test_pool_open_twice_at_once(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	struct pool *pool = pool_up(), *other = NULL;

	make(pool, "c1", "one");
	ok_call(subject->driver->pool_open(&spec, &other, &err), &err);
	ok_str(get(other, "c1"), "one");
	make(other, "c2", "two");
	pool_down(other);
	ok_str(get(pool, "c2"), "two");
	pool_down(pool);
}

static void test_pool_create_where_one_is(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	struct pool *pool = pool_up(), *other = NULL;

	make(pool, "c1", "one");
	pool_down(pool);
	ok_code(subject->driver->pool_create(&spec, pool_record(), &other, &err), COPPICE_EXISTS,
		&err);
	ok(!other);
	pool = pool_again(NULL);
	ok_str(get(pool, "c1"), "one");
	pool_down(pool);
}

static void test_pool_open_where_none_is(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	struct pool *pool = NULL;

	ok_code(subject->driver->pool_open(&spec, &pool, &err), COPPICE_NOT_FOUND, &err);
	ok(!pool);
}

static void test_pool_of_another_owner_is_refused(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	struct pool *pool;

	if (subject->driver->pool_join)
		skip("%s: several state directories may use a pool", subject->name);
	pool = pool_up();
	pool_down(pool);
	ok_call(uuid_new(&spec.owner, &err), &err);
	pool = NULL;
	ok_code(subject->driver->pool_open(&spec, &pool, &err), COPPICE_BUSY, &err);
	ok(!pool);
	spec.owner = (struct uuid){ "" };
	ok_call(subject->driver->pool_open(&spec, &pool, &err), &err);
	pool_down(pool);
}

static void test_pool_destroy_leaves_nothing(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	struct pool *pool = pool_up();
	struct new_volume c1;

	make_image(pool, "data");
	c1 = clone_of(pool, "image", "c1");
	snapshot_of(pool, &c1, "s1");
	pool_clear(pool);
	ok_int(count(pool), ==, 0);
	pool_down(pool);
	ok_call(subject->driver->pool_destroy(&spec, &err), &err);
	pool = NULL;
	ok_code(subject->driver->pool_open(&spec, &pool, &err), COPPICE_NOT_FOUND, &err);
	ok_call(subject->driver->pool_destroy(&spec, &err), &err);

	/* And its place can be used again. */
	pool = pool_up();
	ok_int(count(pool), ==, 0);
	pool_down(pool);
}

static void test_pool_destroy_of_what_was_never_made(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();

	ok_call(subject->driver->pool_destroy(&spec, &err), &err);
}

static void test_pool_umount(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	struct pool *pool = pool_up();

	make(pool, "c1", "one");
	ok(subject->driver->pool_is_mounted(&spec));
	pool_down(pool);
	ok_call(subject->driver->pool_umount(&spec, &err), &err);
	ok_call(subject->driver->pool_umount(&spec, &err), &err);
	pool = pool_again(NULL);
	ok(subject->driver->pool_is_mounted(&spec));
	ok_str(get(pool, "c1"), "one");
	pool_down(pool);
}

static void test_pool_record_write(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *record = NULL;
	_cleanup_(freep) char *wanted = NULL;
	struct pool_spec spec = spec_of_test();
	struct pool *pool = pool_up();

	wanted = text_format("{\"name\": \"other\", \"uuid\": \"%s\", \"owner\": \"%s\"}",
			     spec.uuid.text, spec.owner.text);
	ok_call(subject->driver->pool_record_write(pool, wanted, &err), &err);
	pool = pool_again(pool);
	ok_call(subject->driver->pool_record_read(pool, &record, &err), &err);
	ok_str(record, wanted);
	pool_down(pool);
}

static void test_pool_space(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_space space = { 0 };
	struct pool *pool = pool_up();

	if (subject->settle)
		subject->settle(pool);
	ok_call(subject->driver->pool_space(pool, &space, &err), &err);
	ok_int(space.total.known, !=, COPPICE_UNKNOWN);
	ok_int(space.total.bytes, >, 0);
	ok_int(space.free.bytes, <=, space.total.bytes);
	ok_int(space.used.bytes, <=, space.total.bytes);
	pool_down(pool);
}

static void test_pool_resize(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_space before = { 0 }, after = { 0 };
	struct pool *pool = pool_up();
	uint64_t size = 0;
	int r;

	if (!subject->driver->pool_resize)
		skip("%s: pools have no size", subject->driver->name);
	ok_call(subject->driver->pool_space(pool, &before, &err), &err);
	/* What an engine keeps for itself is no part of the total, but of the size. */
	if (!subject->size || !size_parse(subject->size, &size))
		size = before.total.bytes;
	r = subject->driver->pool_resize(pool, size + (1ULL << 30), &err);
	if (r == COPPICE_UNSUPPORTED)
		skip("%s: %s", subject->driver->name, err.message);
	ok_call(r, &err);
	ok_call(subject->driver->pool_space(pool, &after, &err), &err);
	if (subject->keeps_some)
		ok_int(after.total.bytes, >=, before.total.bytes + (15ULL << 26));
	else
		ok_int(after.total.bytes, ==, before.total.bytes + (1ULL << 30));
	ok_code(subject->driver->pool_resize(pool, 1ULL << 20, &err), COPPICE_INVALID, &err);
	pool_down(pool);
}

/* Whoever changes the owner is alone with the pool, also in other state directories. */
static void test_hold_keeps_others_off(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool, *other;

	if (!subject->driver->pool_hold)
		skip("%s: pools have one state directory for ever", subject->name);
	pool = pool_up();
	other = pool_again(NULL);
	ok_call(subject->driver->pool_hold(pool, POOL_SHARED, &err), &err);
	ok_call(subject->driver->pool_hold(other, POOL_SHARED, &err), &err);
	ok_int(subject->driver->pool_hold(pool, POOL_ALONE, &err), ==, COPPICE_BUSY);
	ok_has(err.message, "in use by another Coppice");
	ok_call(subject->driver->pool_hold(other, POOL_RELEASE, &err), &err);
	ok_call(subject->driver->pool_hold(pool, POOL_ALONE, &err), &err);
	ok_int(subject->driver->pool_hold(other, POOL_SHARED, &err), ==, COPPICE_BUSY);
	ok_call(subject->driver->pool_hold(pool, POOL_RELEASE, &err), &err);
	ok_call(subject->driver->pool_hold(other, POOL_SHARED, &err), &err);
	pool_down(other);
	ok_call(subject->driver->pool_hold(pool, POOL_ALONE, &err), &err);
	pool_down(pool);
}

/* Another state directory joins, is known, and leaves; whoever is left is the last. */
static void test_pool_is_joined_and_left(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	_cleanup_(freep) char *folder = text_format("%s/other", spec.state_path);
	char *others;
	struct pool *pool, *other;

	if (!subject->driver->pool_join)
		skip("%s: a pool has one state directory at a time", subject->name);
	pool = pool_up();
	ok_call(subject->driver->pool_leave(pool, &others, &err), &err);
	ok(!others);
	ok_call(uuid_new(&spec.owner, &err), &err);
	ok(folder && mkdir(folder, 0700) == 0);
	spec.state_path = folder;
	ok_call(subject->driver->pool_open(&spec, &other, &err), &err);
	ok_call(subject->driver->pool_join(other, &err), &err);
	ok_call(subject->driver->pool_leave(other, &others, &err), &err);
	ok(others && strstr(others, spec_of_test().state_path));
	free(others);
	ok_call(subject->driver->pool_leave(pool, &others, &err), &err);
	ok(!others);
	ok_call(subject->driver->pool_join(other, &err), &err);
	ok_call(subject->driver->pool_leave(pool, &others, &err), &err);
	ok(others && strstr(others, folder));
	free(others);
	ok_call(subject->driver->pool_leave(other, &others, &err), &err);
	ok(!others);
	subject->driver->pool_close(other);
	ok_call(subject->driver->pool_join(pool, &err), &err);
	pool_down(pool);
}

static void lock_is(struct pool *pool, unsigned byte, bool is_alone, int wanted)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_int(subject->driver->names_lock(pool, &(struct lock_want){ byte, is_alone }, 1, &err),
	       ==, wanted);
	if (wanted < 0)
		ok_has(err.message, "on host");
}

static void unlock(struct pool *pool, unsigned byte)
{
	subject->driver->names_unlock(pool, &(struct lock_want){ byte, true }, 1);
}

/* What is locked in one state directory is so in all, alone or by several. */
static void test_names_are_locked_for_all_hosts(void)
{
	struct lock_want both[] = { { 12, true }, { 10, true } };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool, *other;

	if (!subject->driver->names_lock)
		skip("%s: a pool has one state directory at a time", subject->name);
	pool = pool_up();
	other = pool_again(NULL);
	lock_is(pool, 10, false, COPPICE_OK);
	lock_is(other, 10, false, COPPICE_OK);
	lock_is(other, 10, true, COPPICE_BUSY);
	lock_is(pool, 11, true, COPPICE_OK);
	lock_is(other, 11, false, COPPICE_BUSY);
	unlock(pool, 10);
	lock_is(other, 10, true, COPPICE_OK);
	lock_is(pool, 10, false, COPPICE_BUSY);
	/* All that is wanted, or nothing. */
	ok_int(subject->driver->names_lock(pool, both, 2, &err), ==, COPPICE_BUSY);
	lock_is(other, 12, true, COPPICE_OK);
	subject->driver->pool_close(other); /* gives back what it has */
	ok_call(subject->driver->names_lock(pool, both, 2, &err), &err);
	subject->driver->names_unlock(pool, both, 2);
	unlock(pool, 11);
	pool_down(pool);
}

/* A process that is killed with a lock keeps nobody out. */
static void test_a_lock_of_the_dead_is_free(void)
{
	const struct lock_want want = { 20, true };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool;
	pid_t pid;
	int status;

	if (!subject->driver->names_lock)
		skip("%s: a pool has one state directory at a time", subject->name);
	pool = pool_up();
	pid = fork();
	ok(pid >= 0);
	if (pid == 0) {
		struct pool *own = pool_again(NULL);

		if (subject->driver->names_lock(own, &want, 1, &err) < 0)
			_exit(1);
		(void)kill(getpid(), SIGKILL);
		_exit(2);
	}
	ok_int(waitpid(pid, &status, 0), ==, pid);
	ok(WIFSIGNALED(status));
	ok_call(subject->driver->names_lock(pool, &want, 1, &err), &err);
	subject->driver->names_unlock(pool, &want, 1);
	pool_down(pool);
}

const struct tap_test cases_pool[] = {
	TAP(test_hold_keeps_others_off),
	TAP(test_pool_is_joined_and_left),
	TAP(test_names_are_locked_for_all_hosts),
	TAP(test_a_lock_of_the_dead_is_free),
	TAP(test_table_is_complete),
	TAP(test_pool_create),
	TAP(test_pool_opened_again_has_its_volumes),
	TAP(test_pool_open_twice_at_once),
	TAP(test_pool_create_where_one_is),
	TAP(test_pool_open_where_none_is),
	TAP(test_pool_of_another_owner_is_refused),
	TAP(test_pool_destroy_leaves_nothing),
	TAP(test_pool_destroy_of_what_was_never_made),
	TAP(test_pool_umount),
	TAP(test_pool_record_write),
	TAP(test_pool_space),
	TAP(test_pool_resize),
	TAP_END,
};
