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

/* What it stood on was deleted since it was read, and another has that name. */
static void test_the_last_goes_after_its_origin_got_a_successor(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one"), s1, c2;
	size_t n;

	if (!subject->driver->reading_begin || !subject->n_left)
		skip("%s: nothing is read beforehand", subject->driver->name);
	s1 = snapshot_of(pool, &c1, "s1");
	n = subject->n_left(pool);
	c2 = clone_of(pool, "c1/s1", "c2");
	ok_call(subject->driver->reading_begin(pool, &c2.ref, 1, &err), &err);
	retire(pool, "c1/s1", &s1);
	reap(pool);
	snapshot_of(pool, &c1, "s1");
	retire(pool, "c2", &c2);
	reap(pool);
	ok_int(count(pool), ==, 2);
	ok_int(subject->n_left(pool), ==, n);
	pool_down(pool);
}

static void test_retire_of_many(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref refs[50];
	struct uuid uuids[50];
	struct pool *pool = pool_up();

	make_image(pool, "one");
	for (size_t i = 0; i < ARRAY_SIZE(refs); i++) {
		struct new_volume volume;
		char name[16];

		(void)snprintf(name, sizeof(name), "c%zu", i);
		volume = i % 10 ? clone_of(pool, "image", name) : make(pool, name, "one");
		refs[i] = volume.ref;
		uuids[i] = volume.uuid;
	}
	ok_call(subject->driver->retire(pool, refs, uuids, ARRAY_SIZE(refs), &err), &err);
	ok_call(subject->driver->commit(pool, &err), &err);
	reap(pool);
	ok_int(count(pool), ==, 1);
	ok(is_there(pool, "image"));
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

static void test_what_is_not_retired_after_all_is_there(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one"), c2 = make(pool, "c2", "two");
	struct volume_ref refs[] = { c1.ref, c2.ref };
	struct uuid uuids[] = { c1.uuid, c2.uuid };

	if (!subject->driver->unretire)
		skip("%s: what is retired stays so", subject->driver->name);
	ok_call(subject->driver->retire(pool, refs, uuids, 2, &err), &err);
	ok(!is_there(pool, "c1"));
	subject->driver->unretire(pool, refs, uuids, 2);
	reap(pool);
	ok_str(get(pool, "c1"), "one");
	ok_str(get(pool, "c2"), "two");
	ok_int(pinned(pool), ==, 0);
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

/* ---- any order ---- */

#define PEOPLE 12
#define STEPS  60

/* What users have: volumes that were made of each other, and snapshots. */
struct village {
	struct pool *pool;
	unsigned state;
	size_t n;
	struct person {
		char name[32];
		struct new_volume volume;
		bool is_snapshot;
	} person[PEOPLE + 1];
	unsigned n_born;
};

static unsigned chance(struct village *village, unsigned of)
{
	village->state = village->state * 1103515245U + 12345U;
	return (village->state >> 16) % of;
}

static void be_born(struct village *village, const char *of)
{
	struct person *person = &village->person[village->n++];

	*person = (struct person){ .is_snapshot = false };
	(void)snprintf(person->name, sizeof(person->name), "c%u", ++village->n_born);
	person->volume = clone_of(village->pool, of, person->name);
}

static void be_frozen(struct village *village, const struct person *of)
{
	struct person person = { .is_snapshot = true };
	char name[16];

	(void)snprintf(name, sizeof(name), "s%u", ++village->n_born);
	(void)snprintf(person.name, sizeof(person.name), "%.8s/%.16s", of->name, name);
	person.volume = snapshot_of(village->pool, &of->volume, name);
	village->person[village->n++] = person;
}

/* Bring an instance back to one of its snapshots. */
static void go_back(struct village *village, const struct person *snapshot)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref from = snapshot->volume.ref, of = from;
	struct new_volume replacement = new_in_group("replacement", &snapshot->volume);
	struct draft draft = draft_up(village->pool);

	of.snapshot.text[0] = '\0';
	ok_call(subject->driver->clone(&draft, &from, &replacement, 1, false, &err), &err);
	ok_call(subject->driver->swap(&draft, &replacement, &of, &err), &err);
	draft_down(&draft);
}

/* A volume takes its snapshots along. */
static void die(struct village *village, size_t i)
{
	char prefix[40];
	size_t kept = 0;

	retire(village->pool, village->person[i].name, &village->person[i].volume);
	(void)snprintf(prefix, sizeof(prefix), "%s/", village->person[i].name);
	village->person[i].name[0] = '\0';
	for (size_t k = 0; k < village->n; k++)
		if (village->person[k].name[0] &&
		    strncmp(village->person[k].name, prefix, strlen(prefix)) != 0)
			village->person[kept++] = village->person[k];
	village->n = kept;
}

/* The first of them, and after all have died. */
static void settle_down(struct village *village)
{
	struct person *person = &village->person[village->n++];

	*person = (struct person){ .is_snapshot = false };
	(void)snprintf(person->name, sizeof(person->name), "image");
	person->volume = make_image(village->pool, "data");
}

static void live_on(struct village *village)
{
	size_t i = village->n ? chance(village, (unsigned)village->n) : 0;
	unsigned what = chance(village, 10);

	if (village->n == 0)
		settle_down(village);
	else if (village->n < PEOPLE && what < 3)
		be_born(village, village->person[i].name);
	else if (village->n < PEOPLE && what < 6 && !village->person[i].is_snapshot &&
		 strcmp(village->person[i].name, "image") != 0)
		be_frozen(village, &village->person[i]);
	else if (what < 8 && village->person[i].is_snapshot)
		go_back(village, &village->person[i]);
	else if (village->n > 1)
		die(village, i);
	if (chance(village, 3) == 0)
		reap(village->pool);
}

/* Made of each other, restored and deleted in any order: what users see is there, always. */
static void tell_a_story(unsigned seed)
{
	static struct village village;

	village = (struct village){ .pool = pool_up(), .state = seed };
	settle_down(&village);
	for (size_t i = 0; i < STEPS; i++) {
		live_on(&village);
		if (i % 10 == 9)
			ok_int(count(village.pool), ==, village.n);
	}
	for (size_t i = 0; i < village.n; i++)
		ok_str(get(village.pool, village.person[i].name), "data");
	while (village.n > 0)
		die(&village, chance(&village, (unsigned)village.n));
	reap(village.pool);
	ok_int(count(village.pool), ==, 0);
	ok_int(pinned(village.pool), ==, 0);
	if (subject->n_left)
		ok_int(subject->n_left(village.pool), ==, 0);
	ok_int(sweep(village.pool), ==, 0);
	pool_down(village.pool);
}

static void test_no_order_of_deletion_leaves_anything(void)
{
	tell_a_story(1);
}

/* COPPICE_SEED chooses it. */
static void test_nor_does_another_order(void)
{
	const char *seed = getenv("COPPICE_SEED");

	tell_a_story(seed ? (unsigned)strtoul(seed, NULL, 10) : 20261124);
}

const struct tap_test cases_delete[] = {
	TAP(test_retire_frees_the_name_at_once),
	TAP(test_retire_with_clones_alive),
	TAP(test_pinned_tells_who_is_held),
	TAP(test_retire_takes_snapshots),
	TAP(test_retire_of_a_snapshot),
	TAP(test_the_last_goes_after_its_origin_got_a_successor),
	TAP(test_retire_of_many),
	TAP(test_retire_of_nothing),
	TAP(test_what_is_not_retired_after_all_is_there),
	TAP(test_reap_again_does_nothing),
	TAP(test_no_order_of_deletion_leaves_anything),
	TAP(test_nor_does_another_order),
	TAP_END,
};
