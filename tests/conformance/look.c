/* SPDX-License-Identifier: Apache-2.0 */

/* Looking: what there is, how much space it takes, and dry runs, which only look. */

#include "conformance.h"

#include "base/text.h"

static void test_stamp_changes_when_the_set_does(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct volume_ref c1_ref = ref_of("c1"), c2_ref = ref_of("c2");
	uint64_t at_first = stamp_of(pool), now;
	struct new_volume c1 = make(pool, "c1", "one");

	now = stamp_of(pool);
	ok(now != at_first);
	at_first = now;

	ok_call(subject->driver->rename(pool, &c1_ref, &c2_ref, &err), &err);
	now = stamp_of(pool);
	ok(now != at_first);
	at_first = now;

	ok_call(subject->driver->touch(pool, &err), &err);
	now = stamp_of(pool);
	ok(now != at_first);
	at_first = now;

	retire(pool, "c2", &c1);
	ok(stamp_of(pool) != at_first);
	pool_down(pool);
}

/* The kernel may give one and the same time to all that happens within a tick. */
static void test_stamp_changes_as_often_as_the_set(void)
{
	struct volume_ref refs[2] = { ref_of("c1"), ref_of("c2") };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	uint64_t at_first, now;
	const char *mount_path;
	char paths[2][PATH_MAX];

	if (subject->no_files || subject->n_left)
		skip("%s: nobody moves its volumes by hand", subject->driver->name);
	mount_path = subject->driver->pool_mount_path(pool);
	for (size_t i = 0; i < 2; i++)
		(void)snprintf(paths[i], sizeof(paths[i]), "%s/containers/%s", mount_path,
			       refs[i].name.text);
	make(pool, "c1", "one");
	at_first = stamp_of(pool);
	for (size_t i = 0; i < 100; i++) {
		ok_int(rename(paths[i % 2], paths[(i + 1) % 2]), ==, 0);
		now = stamp_of(pool);
		ok(now != at_first);
		at_first = now;
		ok_call(subject->driver->rename(pool, &refs[(i + 1) % 2], &refs[i % 2], &err),
			&err);
		ok_call(subject->driver->rename(pool, &refs[i % 2], &refs[(i + 1) % 2], &err),
			&err);
		now = stamp_of(pool);
		ok(now != at_first);
		at_first = now;
	}
	pool_down(pool);
}

static void test_stamp_stays_when_the_set_does(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");
	uint64_t at_first = stamp_of(pool);
	struct draft draft;

	ok(stamp_of(pool) == at_first);
	put(pool, "c1", "two");
	(void)count(pool);
	ok_call(subject->driver->record_write(pool, &c1.ref, c1.record, &err), &err);
	draft = draft_up(pool);
	draft_down(&draft);
	ok_call(subject->driver->commit(pool, &err), &err);
	pool = pool_again(pool);
	ok(stamp_of(pool) == at_first);
	pool_down(pool);
}

/* What these volumes add to the stamp, and how much the stamp is without them. */
static uint64_t part_of(struct pool *pool, const struct volume_ref *refs, size_t n,
			uint64_t *ret_rest)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	uint64_t part = 0;

	ok_call(subject->driver->stamp_part(pool, refs, n, &part, &err), &err);
	*ret_rest = (stamp_of(pool) - part) % STAMP_MODULUS;
	return part;
}

static void test_stamp_is_the_sum_of_its_parts(void)
{
	struct volume_ref refs[2] = { ref_of("c1"), ref_of("c2") };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	uint64_t at_first, rest, one, two, both;
	struct new_volume c1, c2;

	if (!subject->driver->stamp_part)
		skip("%s: its stamp is cheap, and no sum", subject->driver->name);
	make_image(pool, "data");
	make(pool, "c10", "another, whose name begins so");
	at_first = stamp_of(pool);
	ok(part_of(pool, refs, 2, &rest) == 0);
	ok(rest == at_first);

	c1 = make(pool, "c1", "one");
	one = part_of(pool, refs, 1, &rest);
	ok(one != 0);
	ok(rest == at_first);
	ok(part_of(pool, refs, 2, &rest) == one);

	ok(subject->driver->stamp_new(pool, &c1, 1) == one);

	c2 = clone_of(pool, "image", "c2");
	two = part_of(pool, &refs[1], 1, &rest);
	ok(subject->driver->stamp_new(pool, &c2, 1) == two);
	ok(rest == (at_first + one) % STAMP_MODULUS);
	both = part_of(pool, refs, 2, &rest);
	ok(both == (one + two) % STAMP_MODULUS);
	ok(rest == at_first);

	snapshot_of(pool, &c1, "s1");
	ok(part_of(pool, refs, 1, &rest) != one);
	ok(rest == (at_first + two) % STAMP_MODULUS);

	both = part_of(pool, refs, 2, &rest);
	ok_call(subject->driver->record_write(pool, &refs[0], "{\"a\": 2}", &err), &err);
	ok(part_of(pool, refs, 2, &rest) != both);
	ok(rest == at_first);

	retire(pool, "c1", &c1);
	ok(part_of(pool, refs, 2, &rest) == two);
	ok(rest == at_first);
	pool_down(pool);
}

/* Two volumes that change names are the same names and the same records. */
static void test_stamp_tells_who_has_which_name(void)
{
	struct volume_ref c1 = ref_of("c1"), c2 = ref_of("c2"), aside = ref_of("aside");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	uint64_t before;

	make(pool, "c1", "one");
	make(pool, "c2", "two");
	before = stamp_of(pool);
	ok_call(subject->driver->rename(pool, &c1, &aside, &err), &err);
	ok_call(subject->driver->rename(pool, &c2, &c1, &err), &err);
	ok_call(subject->driver->rename(pool, &aside, &c2, &err), &err);
	ok(stamp_of(pool) != before);
	pool_down(pool);
}

static void test_scan_finds_all(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1, c2;

	ok_int(count(pool), ==, 0);
	make_image(pool, "data");
	c1 = clone_of(pool, "image", "c1");
	c2 = clone_of(pool, "image", "c2");
	snapshot_of(pool, &c1, "s1");
	snapshot_of(pool, &c2, "s1");
	snapshot_of(pool, &c2, "s2");
	make(pool, "@disk", "data");
	ok_int(count(pool), ==, 7);
	pool_down(pool);
}

static int stop_at_first(void *user, const struct found_volume *found, struct coppice_error *err)
{
	++*(size_t *)user;
	err->code = COPPICE_INTERRUPTED;
	(void)snprintf(err->message, sizeof(err->message), "enough");
	return COPPICE_INTERRUPTED;
}

static void test_scan_ends_when_told(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	size_t n = 0;

	make(pool, "c1", "one");
	make(pool, "c2", "two");
	ok_code(subject->driver->scan(pool, stop_at_first, &n, &err), COPPICE_INTERRUPTED, &err);
	ok_int(n, ==, 1);
	pool_down(pool);
}

static struct volume_usage usage_of(struct pool *pool, const struct new_volume *volume)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_usage usage = { 0 };

	ok_call(pool->driver->commit(pool, &err), &err);
	ok_call(pool->driver->usage(pool, &volume->ref, &volume->group, &usage, 1, false, &err),
		&err);
	return usage;
}

static void test_written_grows_by_what_is_written(void)
{
	const size_t bytes = 1U << 20;
	_cleanup_(freep) char *value = malloc(bytes + 1);
	struct pool *pool = pool_up();
	struct volume_usage before, after;
	struct new_volume c1, c2;

	ok(value);
	noise(value, bytes + 1, 1);
	make_image(pool, "data");
	c1 = clone_of(pool, "image", "c1");
	c2 = clone_of(pool, "image", "c2");
	before = usage_of(pool, &c1);
	if (before.written.known != COPPICE_EXACT)
		skip("%s: the engine does not count what a clone writes", subject->driver->name);
	put(pool, "c1", value);
	after = usage_of(pool, &c1);
	ok_int(after.written.bytes, >=, before.written.bytes + bytes);
	ok_int(after.written.bytes, <=,
	       before.written.bytes + bytes +
		       (subject->metadata_bytes ? subject->metadata_bytes : 256U << 10));
	ok_int(usage_of(pool, &c2).written.bytes, ==, before.written.bytes);
	pool_down(pool);
}

static void test_usage_of_many_at_once(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct volume_usage one[2], many[2] = { 0 };
	struct volume_ref refs[2];
	struct uuid groups[2];

	make_image(pool, "data");
	for (size_t i = 0; i < 2; i++) {
		char name[] = { 'c', (char)('1' + i), '\0' };
		struct new_volume volume = clone_of(pool, "image", name);

		put(pool, name, i ? "a longer value" : "short");
		one[i] = usage_of(pool, &volume);
		refs[i] = volume.ref;
		groups[i] = volume.group;
	}
	ok_call(subject->driver->usage(pool, refs, groups, many, 2, false, &err), &err);
	for (size_t i = 0; i < 2; i++) {
		ok_int(many[i].written.known, ==, one[i].written.known);
		ok_int(many[i].written.bytes, ==, one[i].written.bytes);
	}
	ok_call(subject->driver->usage(pool, refs, groups, many, 2, true, &err), &err);
	pool_down(pool);
}

static void reading(struct pool *pool, const struct volume_ref *refs, size_t n)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(subject->driver->reading_begin(pool, refs, n, &err), &err);
}

static void test_one_reading_of_all_answers_the_same(void)
{
	struct pool *pool = pool_up();
	struct volume_usage before;
	struct new_volume c1;
	uint64_t stamp;

	if (!subject->driver->reading_begin)
		skip("%s: every question by itself is as good", subject->driver->name);
	make_image(pool, "data");
	c1 = clone_of(pool, "image", "c1");
	snapshot_of(pool, &c1, "s1");
	put(pool, "c1", "two");
	before = usage_of(pool, &c1);
	stamp = stamp_of(pool);
	reading(pool, NULL, 0);
	ok(stamp_of(pool) == stamp);
	ok_int(count(pool), ==, 3);
	ok_int(usage_of(pool, &c1).written.bytes, ==, before.written.bytes);
	ok_int(usage_of(pool, &c1).refers.bytes, ==, before.refers.bytes);
	subject->driver->reading_end(pool);
	make(pool, "c2", "one");
	ok(stamp_of(pool) != stamp);
	ok_int(count(pool), ==, 4);
	/* And a second one sees what is new. */
	reading(pool, NULL, 0);
	ok_int(count(pool), ==, 4);
	pool_down(pool);
}

static void test_one_reading_of_some_answers_until_they_are_retired(void)
{
	struct volume_ref refs[2] = { ref_of("c1"), ref_of("gone") };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1;
	char *record = NULL;
	uint64_t rest, now;

	if (!subject->driver->reading_begin)
		skip("%s: every question by itself is as good", subject->driver->name);
	make_image(pool, "data");
	c1 = clone_of(pool, "image", "c1");
	snapshot_of(pool, &c1, "s1");
	clone_of(pool, "image", "c10");
	now = part_of(pool, refs, 2, &rest);
	reading(pool, refs, 2);
	ok(part_of(pool, refs, 2, &rest) == now);
	ok_call(subject->driver->record_read(pool, &refs[0], &record, &err), &err);
	ok_str(record, c1.record);
	free(record);
	ok_code(subject->driver->record_read(pool, &refs[1], &record, &err), COPPICE_NOT_FOUND,
		&err);
	retire(pool, "c1", &c1);
	ok(part_of(pool, refs, 2, &rest) == 0);
	ok_code(subject->driver->record_read(pool, &refs[0], &record, &err), COPPICE_NOT_FOUND,
		&err);
	ok_int(count(pool), ==, 2);
	pool_down(pool);
}

static void test_check_finds_nothing(void)
{
	struct pool *pool = pool_up();
	struct new_volume image = make_image(pool, "data"), c1;

	if (!subject->driver->check)
		skip("%s: has no check of its own", subject->driver->name);
	c1 = clone_of(pool, "image", "c1");
	snapshot_of(pool, &c1, "s1");
	clone_of(pool, "c1/s1", "c2");
	check_pool(pool);
	retire(pool, "c1", &c1);
	retire(pool, "image", &image);
	reap(pool);
	check_pool(pool);
	pool_down(pool);
}

/* ---- dry runs ---- */

static void remember(void *user, const char *line)
{
	ok(!strchr(line, '\n'));
	text_add(user, "%s\n", line);
}

/* A bit of everything that the core does; returns what was explained. */
static const char *story(struct pool *pool, const struct new_volume *clones,
			 const struct new_volume *snapshot, const struct new_volume *victim,
			 bool is_dry_run)
{
	struct volume_ref image = ref_of("image"), old = ref_of("old"), new = ref_of("new");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct text text = TEXT_INIT;
	struct draft draft;

	pool->explain = remember;
	pool->explain_user = &text;
	pool->is_dry_run = is_dry_run;
	draft = draft_up(pool);
	ok_call(subject->driver->clone(&draft, &image, clones, 2, false, &err), &err);
	ok_call(subject->driver->publish(&draft, clones, 2, &err), &err);
	draft_down(&draft);
	draft = draft_up(pool);
	ok_call(subject->driver->clone(&draft, &old, snapshot, 1, true, &err), &err);
	ok_call(subject->driver->publish(&draft, snapshot, 1, &err), &err);
	draft_down(&draft);
	ok_call(subject->driver->rename(pool, &old, &new, &err), &err);
	ok_call(subject->driver->record_write(pool, &image, "{\"a\": 2}", &err), &err);
	if (subject_can_limit())
		ok_call(subject->driver->limit_set(pool, &victim->ref, &victim->group, 1U << 30, 0,
						   &err),
			&err);
	ok_call(subject->driver->retire(pool, &victim->ref, &victim->uuid, 1, &err), &err);
	ok_call(subject->driver->commit(pool, &err), &err);
	ok_call(subject->driver->reap(pool, &err), &err);
	ok_call(subject->driver->touch(pool, &err), &err);
	pool->explain = NULL;
	pool->is_dry_run = false;
	return keep(text_take(&text));
}

static void test_dry_run_changes_nothing_and_explains_the_same(void)
{
	struct pool *pool = pool_up();
	struct new_volume image = make_image(pool, "data");
	struct new_volume clones[2], old, victim, snapshot;
	const char *dry, *real;
	uint64_t stamp;

	old = make(pool, "old", "old");
	victim = make(pool, "victim", "victim");
	snapshot = new_in_group("old/s1", &old);
	clones[0] = new_of("c1");
	clones[1] = new_of("c2");
	stamp = stamp_of(pool);

	dry = story(pool, clones, &snapshot, &victim, true);
	ok_int(count(pool), ==, 3);
	ok(stamp_of(pool) == stamp);
	ok(is_there(pool, "old"));
	ok_str(record_of(pool, "image"), image.record);
	ok_str(get(pool, "victim"), "victim");

	real = story(pool, clones, &snapshot, &victim, false);
	ok_str(dry, real);
	ok_has(real, "c1");
	ok_has(real, "c2");
	ok_int(count(pool), ==, 5);
	ok(is_there(pool, "new/s1"));
	pool_down(pool);
}

const struct tap_test cases_look[] = {
	TAP(test_stamp_changes_when_the_set_does),
	TAP(test_stamp_changes_as_often_as_the_set),
	TAP(test_stamp_stays_when_the_set_does),
	TAP(test_stamp_is_the_sum_of_its_parts),
	TAP(test_stamp_tells_who_has_which_name),
	TAP(test_scan_finds_all),
	TAP(test_scan_ends_when_told),
	TAP(test_written_grows_by_what_is_written),
	TAP(test_usage_of_many_at_once),
	TAP(test_one_reading_of_all_answers_the_same),
	TAP(test_one_reading_of_some_answers_until_they_are_retired),
	TAP(test_check_finds_nothing),
	TAP(test_dry_run_changes_nothing_and_explains_the_same),
	TAP_END,
};
