/* SPDX-License-Identifier: Apache-2.0 */

/* Clones that get their names before their data: clone_begin, clone_finish, clone_undo. */

#include "conformance.h"

#include <sys/prctl.h>

#include "driver/memory.h"

/* A pool with an image, for engines that make clones in two halves. */
static struct pool *image_up(void)
{
	struct pool *pool;

	if (!subject->driver->clone_begin)
		skip("%s: clones have no second commit to save", subject->driver->name);
	pool = pool_up();
	make_image(pool, "data");
	return pool;
}

static void begin(struct draft *draft, const struct new_volume *volumes, size_t n)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref image = ref_of("image");

	ok_call(subject->driver->clone_begin(draft, &image, volumes, n, false, &err), &err);
}

static void finish(struct draft *draft, const struct new_volume *volumes, size_t n)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref image = ref_of("image");

	ok_call(subject->driver->clone_finish(draft, &image, volumes, n, false, &err), &err);
}

struct found {
	size_t n, n_whole;
};

static int count_one(void *user, const struct found_volume *volume, struct coppice_error *err)
{
	struct found *found = user;

	found->n++;
	if (volume->problem)
		ok_str(volume->what, "data-missing");
	else
		found->n_whole++;
	return COPPICE_OK;
}

static struct found look(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct found found = { 0 };

	ok_call(subject->driver->scan(pool, count_one, &found, &err), &err);
	return found;
}

static size_t sweep(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	size_t n = 0;

	ok_call(subject->driver->draft_sweep(pool, &n, &err), &err);
	return n;
}

static void test_clones_are_whole_when_finished(void)
{
	struct pool *pool = image_up();
	struct new_volume c[] = { new_of("c1"), new_of("c2") };
	struct draft draft = draft_up(pool);

	begin(&draft, c, 2);
	ok_int(look(pool).n, ==, 3);       /* the names are taken */
	ok_int(look(pool).n_whole, ==, 1); /* and name nothing yet */
	finish(&draft, c, 2);
	ok_int(look(pool).n_whole, ==, 3);
	draft_down(&draft);
	pool = pool_again(pool);
	ok_int(count(pool), ==, 3);
	ok_str(record_of(pool, "c1"), c[0].record);
	ok_str(get(pool, "c2"), "data");
	put(pool, "c2", "other");
	ok_str(get(pool, "c1"), "data");
	pool_down(pool);
}

static void test_a_snapshot_in_two_halves(void)
{
	struct pool *pool = image_up();
	struct new_volume c1 = make(pool, "c1", "one");
	struct new_volume s1 = new_in_group("c1/s1", &c1);
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref from = ref_of("c1");
	struct draft draft = draft_up(pool);

	ok_call(subject->driver->clone_begin(&draft, &from, &s1, 1, true, &err), &err);
	ok_call(subject->driver->clone_finish(&draft, &from, &s1, 1, true, &err), &err);
	draft_down(&draft);
	put(pool, "c1", "two");
	ok_str(get(pool, "c1/s1"), "one");
	pool_down(pool);
}

/* Begun, or finished already: all the same, the names are free again. */
static void test_what_is_undone_was_never_there(void)
{
	struct pool *pool = image_up();
	struct new_volume c[] = { new_of("c1"), new_of("c2") };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);

	begin(&draft, c, 2);
	finish(&draft, c, 1);
	ok_call(subject->driver->clone_undo(&draft, c, 2, &err), &err);
	ok_int(count(pool), ==, 1);
	draft_down(&draft);
	ok_int(sweep(pool), ==, 0);
	clone_of(pool, "image", "c1");
	ok_int(count(pool), ==, 2);
	pool_down(pool);
}

static void test_a_taken_name_is_refused_and_spared(void)
{
	struct pool *pool = image_up();
	struct new_volume c[] = { new_of("c1"), new_of("c2"), new_of("c3") };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref image = ref_of("image");
	struct draft draft;

	make(pool, "c2", "mine");
	draft = draft_up(pool);
	ok_int(subject->driver->clone_begin(&draft, &image, c, 3, false, &err), ==,
	       COPPICE_EXISTS);
	ok_has(err.message, "'c2'");
	ok_int(count(pool), ==, 2);
	draft_down(&draft);
	ok_str(get(pool, "c2"), "mine");
	pool_down(pool);
}

static void test_an_unknown_origin_leaves_no_name(void)
{
	struct pool *pool = image_up();
	struct new_volume c1 = new_of("c1");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref nothing = ref_of("nothing");
	struct draft draft = draft_up(pool);

	ok_int(subject->driver->clone_begin(&draft, &nothing, &c1, 1, false, &err), ==,
	       COPPICE_NOT_FOUND);
	ok_int(count(pool), ==, 1);
	draft_down(&draft);
	pool_down(pool);
}

/* 300 announce themselves in more attributes than one. */
#define MANY 300

/* Begins many, finishes the first and the last, says so and waits to be killed. */
static void begin_and_wait(struct pool *pool, struct new_volume *c)
{
	struct draft draft = draft_up(pool);

	for (size_t i = 0; i < MANY; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "c%zu", i);
		c[i] = new_of(name);
	}
	begin(&draft, c, MANY);
	finish(&draft, c, 1);
	finish(&draft, &c[MANY - 1], 1);
}

static void kill_maker(struct pool *pool, struct new_volume *c)
{
	int ready[2];
	pid_t pid;
	char x;

	ok_int(pipe(ready), ==, 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		begin_and_wait(pool_again(NULL), c);
		ok_int(write(ready[1], "x", 1), ==, 1);
		for (;;)
			(void)pause();
	}
	(void)close(ready[1]);
	ok_int(read(ready[0], &x, 1), ==, 1);
	ok_int(sweep(pool), ==, 0); /* it lives */
	ok_int(look(pool).n, ==, 1 + MANY);
	ok_int(look(pool).n_whole, ==, 3);
	ok_int(kill(pid, SIGKILL), ==, 0);
	ok_int(waitpid(pid, NULL, 0), ==, pid);
}

/* Each is whole or absent; and the stamp says that the catalog may not know which. */
static void test_clones_of_a_killed_maker(void)
{
	static struct new_volume c[MANY];
	struct pool *pool = image_up();
	uint64_t before;

	if (subject->no_processes) {
		begin_and_wait(pool, c);
		memory_draft_orphan_all();
	} else {
		kill_maker(pool, c);
	}
	before = stamp_of(pool);
	ok_int(sweep(pool), ==, 1);
	ok(stamp_of(pool) != before);
	ok_int(sweep(pool), ==, 0);
	ok_int(count(pool), ==, 3);
	ok_str(get(pool, "c0"), "data");
	ok_str(get(pool, "c299"), "data");
	clone_of(pool, "image", "c1");
	ok_str(get(pool, "c1"), "data");
	pool_down(pool);
}

const struct tap_test cases_clones[] = {
	TAP(test_clones_are_whole_when_finished),
	TAP(test_a_snapshot_in_two_halves),
	TAP(test_what_is_undone_was_never_there),
	TAP(test_a_taken_name_is_refused_and_spared),
	TAP(test_an_unknown_origin_leaves_no_name),
	TAP(test_clones_of_a_killed_maker),
	TAP_END,
};
