/* SPDX-License-Identifier: Apache-2.0 */

/* Drafts that say what they are to publish, so that it cannot be lost once it is whole. */

#include "conformance.h"

#include <sys/prctl.h>
#include <sys/stat.h>

#include "driver/memory.h"

/* A pool with an image, for engines that save the second commit so. */
static struct pool *image_up(void)
{
	struct pool *pool;

	if (!subject->driver->draft_announce)
		skip("%s: clones have no second commit to save", subject->driver->name);
	pool = pool_up();
	make_image(pool, "data");
	return pool;
}

static void announce(struct draft *draft, const struct new_volume *volumes, size_t n)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(subject->driver->draft_announce(draft, volumes, n, &err), &err);
}

static void clone(struct draft *draft, const struct new_volume *volumes, size_t n)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref image = ref_of("image");

	ok_call(subject->driver->clone(draft, &image, volumes, n, false, &err), &err);
}

static void publish(struct draft *draft, const struct new_volume *volumes, size_t n)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(subject->driver->publish(draft, volumes, n, &err), &err);
}

static void test_announced_clones_are_published(void)
{
	struct pool *pool = image_up();
	struct new_volume c[] = { new_of("c1"), new_of("c2") };
	struct draft draft = draft_up(pool);

	announce(&draft, c, 2);
	ok(draft.is_announced);
	clone(&draft, c, 2);
	ok_int(count(pool), ==, 1); /* nobody sees them yet */
	publish(&draft, c, 2);
	draft_down(&draft);
	pool = pool_again(pool);
	ok_int(sweep(pool), ==, 0);
	ok_int(count(pool), ==, 3);
	ok_str(record_of(pool, "c1"), c[0].record);
	ok_str(get(pool, "c2"), "data");
	put(pool, "c2", "other");
	ok_str(get(pool, "c1"), "data");
	pool_down(pool);
}

/* As many as go into no single wave of an engine, nor into one attribute. */
#define MANY 300

static void test_many_announced_clones(void)
{
	static struct new_volume c[MANY];
	struct pool *pool = image_up();
	struct draft draft;

	for (size_t i = 0; i < MANY; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "c%zu", i);
		c[i] = new_of(name);
	}
	draft = draft_up(pool);
	announce(&draft, c, MANY);
	clone(&draft, c, MANY);
	publish(&draft, c, MANY);
	draft_down(&draft);
	ok_int(count(pool), ==, 1 + MANY);
	for (size_t i = 0; i < MANY; i += 13)
		ok_str(get(pool, c[i].ref.name.text), "data");
	pool_down(pool);
}

/* A draft that is discarded announces nothing any more, whatever was whole. */
static void test_what_is_discarded_is_not_published(void)
{
	struct pool *pool = image_up();
	struct new_volume c[] = { new_of("c1"), new_of("c2") };
	struct draft draft = draft_up(pool);

	announce(&draft, c, 2);
	clone(&draft, c, 2);
	draft_down(&draft);
	ok_int(sweep(pool), ==, 0);
	ok_int(count(pool), ==, 1);
	clone_of(pool, "image", "c1");
	ok_int(count(pool), ==, 2);
	pool_down(pool);
}

static void test_a_taken_name_is_refused_and_spared(void)
{
	struct pool *pool = image_up();
	struct new_volume c[] = { new_of("c1"), new_of("c2"), new_of("c3") };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft;

	make(pool, "c2", "mine");
	draft = draft_up(pool);
	announce(&draft, c, 3);
	clone(&draft, c, 3);
	ok_int(subject->driver->publish(&draft, c, 3, &err), ==, COPPICE_EXISTS);
	ok_has(err.message, "'c2'");
	ok_int(count(pool), ==, 2);
	draft_down(&draft);
	ok_int(sweep(pool), ==, 0);
	ok_int(count(pool), ==, 2);
	ok_str(get(pool, "c2"), "mine");
	pool_down(pool);
}

/* ---- makers that die ---- */

struct story {
	struct new_volume c[MANY], s1, gone;
	void (*tell)(struct pool *pool, struct story *story);
	size_t n_published; /* by its maker itself */
};

static void run_and_wait(struct story *story, int ready_fd)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	story->tell(pool_again(NULL), story);
	ok_int(write(ready_fd, "x", 1), ==, 1);
	for (;;)
		(void)pause();
}

/* Let a maker do its part, see that it is left alone while it lives, and kill it. */
static void tell_and_die(struct pool *pool, struct story *story)
{
	size_t before = count(pool);
	int ready[2];
	pid_t pid;
	char x;

	if (subject->no_processes) {
		story->tell(pool, story);
		memory_draft_orphan_all();
		return;
	}
	ok_int(pipe(ready), ==, 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		run_and_wait(story, ready[1]);
	(void)close(ready[1]);
	ok_int(read(ready[0], &x, 1), ==, 1);
	ok_int(sweep(pool), ==, 0); /* it lives */
	ok_int(count(pool), ==, before + story->n_published);
	ok_int(kill(pid, SIGKILL), ==, 0);
	ok_int(waitpid(pid, NULL, 0), ==, pid);
}

/* Announces many, of which the first and the last are whole. */
static void tell_of_many(struct pool *pool, struct story *story)
{
	struct draft draft = draft_up(pool);

	announce(&draft, story->c, MANY);
	clone(&draft, story->c, 1);
	clone(&draft, &story->c[MANY - 1], 1);
}

/* Each is whole or absent; and the stamp says that the catalog does not know which. */
static void test_a_dead_makers_clones_are_whole_or_absent(void)
{
	static struct story story = { .tell = tell_of_many };
	struct pool *pool = image_up();
	uint64_t before;

	for (size_t i = 0; i < MANY; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "c%zu", i);
		story.c[i] = new_of(name);
	}
	tell_and_die(pool, &story);
	before = stamp_of(pool);
	ok_int(sweep(pool), ==, 1);
	ok(stamp_of(pool) != before);
	ok_int(sweep(pool), ==, 0);
	ok_int(count(pool), ==, 3);
	ok_str(record_of(pool, "c0"), story.c[0].record);
	ok_str(get(pool, "c0"), "data");
	ok_str(get(pool, "c299"), "data");
	clone_of(pool, "image", "c1");
	ok_str(get(pool, "c1"), "data");
	pool_down(pool);
}

static void tell_of_two(struct pool *pool, struct story *story)
{
	struct draft draft = draft_up(pool);

	announce(&draft, story->c, 2);
	clone(&draft, story->c, 2);
}

static void test_a_dead_makers_clone_gives_way_to_a_taken_name(void)
{
	static struct story story = { .tell = tell_of_two };
	struct pool *pool = image_up();

	story.c[0] = new_of("c0");
	story.c[1] = new_of("c1");
	tell_and_die(pool, &story);
	make(pool, "c0", "mine");
	ok_int(sweep(pool), ==, 1);
	ok_int(count(pool), ==, 3);
	ok_str(get(pool, "c0"), "mine");
	ok_str(get(pool, "c1"), "data");
	pool_down(pool);
}

struct noting {
	struct pool *pool;
	size_t n, n_there; /* calls, and volumes that were seen then */
	bool fails;
};

static int note(void *user, struct coppice_error *err)
{
	struct noting *noting = user;

	noting->n++;
	noting->n_there = count(noting->pool);
	return noting->fails ? fail(err, COPPICE_FAILED, "cannot note it") : COPPICE_OK;
}

/* A sweep may be killed as well: the draft goes when it is known what came of it. */
static void test_a_sweep_is_repeated_until_it_is_noted(void)
{
	static struct story story = { .tell = tell_of_two };
	struct pool *pool = image_up();
	struct noting noting = { .pool = pool, .fails = true };
	struct coppice_error err;
	size_t n;

	story.c[0] = new_of("c0");
	story.c[1] = new_of("c1");
	tell_and_die(pool, &story);
	pool->note_published = note;
	pool->published_user = &noting;
	ok_int(subject->driver->draft_sweep(pool, &n, &err), ==, COPPICE_FAILED);
	ok_int(noting.n, ==, 1);
	ok_int(noting.n_there, ==, 3);
	noting.fails = false;
	ok_int(sweep(pool), ==, 1);
	ok_int(noting.n, ==, 2);
	ok_int(sweep(pool), ==, 0);
	ok_int(noting.n, ==, 2);
	ok_int(count(pool), ==, 3);
	pool->note_published = NULL;
	pool_down(pool);
}

static void tell_of_snapshots(struct pool *pool, struct story *story)
{
	struct new_volume both[] = { story->s1, story->gone };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref from = ref_of("c1");
	struct draft draft = draft_up(pool);

	announce(&draft, both, 2);
	ok_call(subject->driver->clone(&draft, &from, both, 2, true, &err), &err);
}

static void tell_of_its_first(struct pool *pool, struct story *story)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref from = ref_of("snapshots");
	struct draft draft = draft_up(pool);

	announce(&draft, &story->s1, 1);
	ok_call(subject->driver->clone(&draft, &from, &story->s1, 1, true, &err), &err);
}

/*
 * One of c1, and one of an instance that was deleted before the sweep came, and whose
 * name another has by now.
 */
static void test_a_dead_makers_snapshots(void)
{
	static struct story story = { .tell = tell_of_snapshots };
	struct pool *pool = image_up();
	struct new_volume c1 = make(pool, "c1", "one"), c2 = make(pool, "c2", "two");
	uint64_t before;

	story.s1 = new_in_group("c1/s1", &c1);
	story.gone = new_in_group("c2/s1", &c2);
	tell_and_die(pool, &story);
	retire(pool, "c2", &c2);
	make(pool, "c2", "another");
	before = stamp_of(pool);
	ok_int(sweep(pool), ==, 1);
	ok(stamp_of(pool) != before);
	ok_int(count(pool), ==, 4);
	ok(!is_there(pool, "c2/s1"));
	put(pool, "c1", "changed");
	ok_str(get(pool, "c1/s1"), "one");
	pool_down(pool);
}

/* An instance may be called as the folder is that its snapshots are in. */
static void test_a_dead_makers_snapshot_of_snapshots(void)
{
	static struct story story = { .tell = tell_of_its_first };
	struct pool *pool = image_up();
	struct new_volume instance = make(pool, "snapshots", "one");

	story.s1 = new_in_group("snapshots/s1", &instance);
	tell_and_die(pool, &story);
	ok_int(sweep(pool), ==, 1);
	ok_int(count(pool), ==, 3);
	ok_str(get(pool, "snapshots/s1"), "one");
	pool_down(pool);
}

/* Whole, and what it was sealed from is not gone yet. */
static void tell_of_an_image(struct pool *pool, struct story *story)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);
	struct new_volume volume = story->c[0];
	_cleanup_(freep) char *path = NULL;

	volume.item = "image";
	ok_call(subject->driver->volume_create(&draft, &volume, &path, &err), &err);
	announce(&draft, &volume, 1);
	ok_call(subject->driver->volume_seal(&draft, &volume, true, &err), &err);
	if (!subject->no_files) {
		_cleanup_(freep) char *beside = NULL;

		*strrchr(path, '/') = '\0';
		ok(asprintf(&beside, "%s/unpack", path) > 0);
		ok_int(mkdir(beside, 0700), ==, 0);
	}
}

/* An engine may decline to announce what is made already. */
static bool announces_images(struct pool *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct new_volume volume = new_of("c9");
	struct draft draft = draft_up(pool);
	_cleanup_(freep) char *path = NULL;
	bool does;

	volume.item = "image";
	ok_call(subject->driver->volume_create(&draft, &volume, &path, &err), &err);
	announce(&draft, &volume, 1);
	does = draft.is_announced;
	draft_down(&draft);
	return does;
}

static void test_a_dead_makers_image(void)
{
	static struct story story = { .tell = tell_of_an_image };
	struct pool *pool = image_up();

	if (!announces_images(pool))
		skip("%s: names of what is sealed need no second commit", subject->driver->name);
	story.c[0] = new_of("c1");
	tell_and_die(pool, &story);
	ok_int(sweep(pool), ==, 1);
	ok_int(count(pool), ==, 2);
	ok_str(record_of(pool, "c1"), story.c[0].record);
	if (!subject->no_files) {
		struct coppice_error err = COPPICE_ERROR_INIT;
		struct volume_ref ref = ref_of("c1");
		_cleanup_(freep) char *path = NULL, *beside = NULL;

		ok_call(subject->driver->path(pool, &ref, &path, &err), &err);
		ok(asprintf(&beside, "%s/../unpack", path) > 0);
		ok_int(access(beside, F_OK), ==, -1);
	}
	pool_down(pool);
}

static void tell_and_publish_one(struct pool *pool, struct story *story)
{
	struct draft draft = draft_up(pool);

	announce(&draft, story->c, 2);
	clone(&draft, story->c, 2);
	publish(&draft, story->c, 1);
}

/* Killed while it published: the rest is published by the sweep. */
static void test_publishing_is_finished_for_the_dead(void)
{
	static struct story story = { .tell = tell_and_publish_one, .n_published = 1 };
	struct pool *pool = image_up();

	story.c[0] = new_of("c0");
	story.c[1] = new_of("c1");
	tell_and_die(pool, &story);
	ok_int(count(pool), ==, 2);
	ok_int(sweep(pool), ==, 1);
	ok_int(count(pool), ==, 3);
	pool_down(pool);
}

const struct tap_test cases_announce[] = {
	TAP(test_announced_clones_are_published),
	TAP(test_many_announced_clones),
	TAP(test_what_is_discarded_is_not_published),
	TAP(test_a_taken_name_is_refused_and_spared),
	TAP(test_a_dead_makers_clones_are_whole_or_absent),
	TAP(test_a_dead_makers_clone_gives_way_to_a_taken_name),
	TAP(test_a_sweep_is_repeated_until_it_is_noted),
	TAP(test_a_dead_makers_snapshots),
	TAP(test_a_dead_makers_snapshot_of_snapshots),
	TAP(test_a_dead_makers_image),
	TAP(test_publishing_is_finished_for_the_dead),
	TAP_END,
};
