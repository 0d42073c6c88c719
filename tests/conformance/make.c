/* SPDX-License-Identifier: Apache-2.0 */

/* Volumes come into being: invisible in a draft, then whole under their names. */

#include "conformance.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/file.h"
#include "base/text.h"

#define BATCH 100

static void test_publish_makes_visible(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");

	ok_int(count(pool), ==, 1);
	ok_str(record_of(pool, "c1"), c1.record);
	ok_str(get(pool, "c1"), "one");
	pool_down(pool);
}

static void test_kinds_have_names_of_their_own(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");
	struct new_volume custom = make(pool, "@c1", "two");

	make_image(pool, "three");
	ok_int(count(pool), ==, 3);
	ok_str(record_of(pool, "c1"), c1.record);
	ok_str(record_of(pool, "@c1"), custom.record);
	ok_str(get(pool, "@c1"), "two");
	ok_str(get(pool, "image"), "three");
	pool_down(pool);
}

static void test_nothing_is_visible_before_publish(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = new_of("c1"), c2 = new_of("c2");
	struct volume_ref image = ref_of("image");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft;

	make_image(pool, "data");
	draft = draft_up(pool);
	fill(&draft, &c1, "one", false);
	ok_call(subject->driver->clone(&draft, &image, &c2, 1, false, &err), &err);
	ok(!is_there(pool, "c1"));
	ok(!is_there(pool, "c2"));
	ok_int(count(pool), ==, 1);
	draft_down(&draft);
	pool_down(pool);
}

static void test_discard_leaves_nothing(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = new_of("c1"), c2 = new_of("c2");
	struct volume_ref image = ref_of("image");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft;
	size_t n = 77;

	make_image(pool, "data");
	draft = draft_up(pool);
	fill(&draft, &c1, "one", false);
	ok_call(subject->driver->clone(&draft, &image, &c2, 1, true, &err), &err);
	draft_down(&draft);
	draft_down(&draft);
	ok_call(subject->driver->draft_sweep(pool, &n, &err), &err);
	ok_int(n, ==, 0);
	ok_int(count(pool), ==, 1);
	pool = pool_again(pool);
	ok_int(count(pool), ==, 1);
	pool_down(pool);
}

static void test_discard_of_a_volume_half_made(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = new_of("c1");
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *path = NULL;
	struct draft draft = draft_up(pool);

	ok_call(subject->driver->volume_create(&draft, &c1, &path, &err), &err);
	ok_int(path[0], ==, '/');
	draft_down(&draft);
	ok_int(access(path, F_OK), ==, -1);
	ok_int(count(pool), ==, 0);
	pool_down(pool);
}

/* It is no sweeper that makes open(2) fail then: no draft after the other is made. */
static void test_draft_without_descriptors_fails_at_once(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct draft draft = { .fd = -1 };
	struct rlimit limit, none;
	char drafts[PATH_MAX];
	int next = dup(0), r;

	if (subject->no_files || subject->n_left)
		skip("%s: drafts are no directories", subject->driver->name);
	(void)close(next);
	ok_int(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
	none = limit;
	none.rlim_cur = (rlim_t)next;
	ok_int(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
	r = subject->driver->draft_open(pool, &draft, &err);
	ok_int(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
	ok_int(r, ==, COPPICE_FAILED);
	(void)snprintf(drafts, sizeof(drafts), "%s/drafts", subject->driver->pool_mount_path(pool));
	ok_int(rmdir(drafts), ==, 0); /* nothing is in it */
	ok_int(mkdir(drafts, 0700), ==, 0);
	pool_down(pool);
}

static void test_sealed_image_is_read_only(void)
{
	struct pool *pool = pool_up();
	struct volume_ref image = ref_of("image");
	struct coppice_error err = COPPICE_ERROR_INIT;

	make_image(pool, "data");
	if (subject->no_read_only)
		skip("%s: %s", subject->driver->name, subject->no_read_only);
	ok_int(subject->put(pool, &image, "content", "other", &err), <, 0);
	if (!subject->no_files)
		ok_int(err.os_errno, ==, EROFS);
	ok_str(get(pool, "image"), "data");
	pool_down(pool);
}

static void test_clone_is_equal_and_isolated(void)
{
	struct pool *pool = pool_up();
	struct new_volume c2;

	make(pool, "c1", "one");
	c2 = clone_of(pool, "c1", "c2");
	ok_str(get(pool, "c2"), "one");
	ok_str(record_of(pool, "c2"), c2.record);
	put(pool, "c2", "two");
	ok_str(get(pool, "c1"), "one");
	put(pool, "c1", "three");
	ok_str(get(pool, "c2"), "two");
	pool_down(pool);
}

static void test_clone_of_an_image_is_writable(void)
{
	struct pool *pool = pool_up();

	make_image(pool, "data");
	clone_of(pool, "image", "c1");
	ok_str(get(pool, "c1"), "data");
	put(pool, "c1", "mine");
	ok_str(get(pool, "c1"), "mine");
	ok_str(get(pool, "image"), "data");
	pool_down(pool);
}

/* c1 … cN, cloned from the image in one draft. */
static void batch_new(struct new_volume volumes[static BATCH])
{
	for (size_t i = 0; i < BATCH; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "c%zu", i + 1);
		volumes[i] = new_of(name);
	}
}

static void test_batch_of_a_hundred(void)
{
	struct volume_ref image = ref_of("image");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct new_volume volumes[BATCH];
	/* Where each has to be mounted for it, some of them are looked at. */
	size_t step = subject->driver->volume_mount ? 7 : 1;
	struct pool *pool = pool_up();
	struct draft draft;

	make_image(pool, "data");
	batch_new(volumes);
	draft = draft_up(pool);
	ok_call(subject->driver->clone(&draft, &image, volumes, BATCH, false, &err), &err);
	ok_call(subject->driver->publish(&draft, volumes, BATCH, &err), &err);
	draft_down(&draft);
	ok_call(subject->driver->commit(pool, &err), &err);

	pool = pool_again(pool);
	ok_int(count(pool), ==, BATCH + 1);
	for (size_t i = 0; i < BATCH; i += step) {
		ok_str(record_of(pool, volumes[i].ref.name.text), volumes[i].record);
		ok_str(get(pool, volumes[i].ref.name.text), "data");
	}
	pool_down(pool);
}

static void test_batch_with_a_taken_name_makes_none(void)
{
	struct volume_ref image = ref_of("image");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct new_volume volumes[BATCH], taken;
	struct pool *pool = pool_up();
	struct draft draft;

	make_image(pool, "data");
	taken = make(pool, "c42", "mine");
	batch_new(volumes);
	draft = draft_up(pool);
	ok_call(subject->driver->clone(&draft, &image, volumes, BATCH, false, &err), &err);
	ok_code(subject->driver->publish(&draft, volumes, BATCH, &err), COPPICE_EXISTS, &err);
	ok_has(err.message, "c42");
	draft_down(&draft);
	ok_int(count(pool), ==, 2);
	ok_str(record_of(pool, "c42"), taken.record);
	ok_str(get(pool, "c42"), "mine");
	pool_down(pool);
}

static void test_clone_of_nothing(void)
{
	struct pool *pool = pool_up();
	struct new_volume c2 = new_of("c2");
	struct volume_ref c1 = ref_of("c1");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);

	ok_code(subject->driver->clone(&draft, &c1, &c2, 1, false, &err), COPPICE_NOT_FOUND, &err);
	draft_down(&draft);
	ok_int(count(pool), ==, 0);
	pool_down(pool);
}

static void test_snapshot_is_frozen(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");
	struct new_volume s1 = snapshot_of(pool, &c1, "s1");

	ok_int(count(pool), ==, 2);
	ok_str(record_of(pool, "c1/s1"), s1.record);
	put(pool, "c1", "two");
	ok_str(get(pool, "c1/s1"), "one");
	ok_str(get(pool, "c1"), "two");
	pool_down(pool);
}

static void test_snapshot_is_read_only(void)
{
	struct volume_ref ref = ref_of("c1/s1");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");

	snapshot_of(pool, &c1, "s1");
	if (subject->no_read_only)
		skip("%s: %s", subject->driver->name, subject->no_read_only);
	ok_int(subject->put(pool, &ref, "content", "other", &err), <, 0);
	if (!subject->no_files)
		ok_int(err.os_errno, ==, EROFS);
	ok_str(get(pool, "c1/s1"), "one");
	pool_down(pool);
}

static void test_snapshot_name_is_taken(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");
	struct new_volume first = snapshot_of(pool, &c1, "s1");
	struct new_volume second = new_in_group("c1/s1", &c1);
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);

	ok_call(subject->driver->clone(&draft, &c1.ref, &second, 1, true, &err), &err);
	ok_code(subject->driver->publish(&draft, &second, 1, &err), COPPICE_EXISTS, &err);
	draft_down(&draft);
	ok_str(record_of(pool, "c1/s1"), first.record);
	ok_int(count(pool), ==, 2);
	pool_down(pool);
}

static void test_clone_of_a_snapshot(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");

	snapshot_of(pool, &c1, "s1");
	put(pool, "c1", "two");
	clone_of(pool, "c1/s1", "c2");
	ok_str(get(pool, "c2"), "one");
	put(pool, "c2", "three");
	ok_str(get(pool, "c1/s1"), "one");
	ok_str(get(pool, "c1"), "two");
	pool_down(pool);
}

/* As a copy of an instance with its snapshots does it. */
static void test_nested_snapshots_are_published_with_their_volume(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one"), c2, s1, s2;
	struct volume_ref from = ref_of("c1/s1");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft;

	snapshot_of(pool, &c1, "s1");
	put(pool, "c1", "two");
	c2 = new_of("c2");
	s1 = new_nested("c2/s1", &c2);
	s2 = new_nested("c2/s2", &c2);
	draft = draft_up(pool);
	ok_call(subject->driver->clone(&draft, &c1.ref, &c2, 1, false, &err), &err);
	ok_call(subject->driver->clone(&draft, &from, &s1, 1, true, &err), &err);
	ok_call(subject->driver->clone(&draft, &c1.ref, &s2, 1, true, &err), &err);
	ok_int(count(pool), ==, 2);
	ok_call(subject->driver->publish(&draft, &c2, 1, &err), &err);
	draft_down(&draft);
	ok_call(subject->driver->commit(pool, &err), &err);
	ok_int(count(pool), ==, 5);
	ok_str(get(pool, "c2"), "two");
	ok_str(get(pool, "c2/s1"), "one");
	ok_str(get(pool, "c2/s2"), "two");
	ok_str(record_of(pool, "c2/s1"), s1.record);
	check_pool(pool);
	pool_down(pool);
}

/* As a copy to another pool does it: filled, not cloned. */
static void test_nested_snapshots_can_be_filled(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = new_of("c1"), s1 = new_nested("c1/s1", &c1);
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);

	fill(&draft, &c1, "now", false);
	fill(&draft, &s1, "then", true);
	ok_call(subject->driver->publish(&draft, &c1, 1, &err), &err);
	draft_down(&draft);
	ok_call(subject->driver->commit(pool, &err), &err);
	ok_int(count(pool), ==, 2);
	ok_str(get(pool, "c1"), "now");
	ok_str(get(pool, "c1/s1"), "then");
	check_pool(pool);
	pool_down(pool);
}

/* As a copy in full does it, here within one pool. */
static void test_transferred_volumes_share_nothing_with_their_sources(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one"), volumes[3];
	struct volume_ref sources[] = { c1.ref, ref_of("c1/s1"), ref_of("c1/s2") };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft;

	if (!subject->driver->transfer) {
		pool_down(pool);
		skip("%s: the core copies files", subject->driver->name);
	}
	snapshot_of(pool, &c1, "s1");
	put(pool, "c1", "two");
	snapshot_of(pool, &c1, "s2");
	put(pool, "c1", "three");
	volumes[0] = new_of("c2");
	volumes[1] = new_nested("c2/s1", &volumes[0]);
	volumes[2] = new_nested("c2/s2", &volumes[0]);
	for (int round = 0; round < 2; round++) {
		draft = draft_up(pool);
		ok_call(subject->driver->transfer(&draft, pool, sources, volumes, 3, COPY_FULL,
						  NULL, &err),
			&err);
		ok_int(count(pool), ==, 3);
		if (round > 0) /* the first is given up */
			ok_call(subject->driver->publish(&draft, &volumes[0], 1, &err), &err);
		draft_down(&draft);
		ok_call(subject->driver->commit(pool, &err), &err);
		ok_int(count(pool), ==, round > 0 ? 6 : 3);
		check_pool(pool);
	}
	put(pool, "c1", "four");
	ok_str(get(pool, "c2"), "three");
	ok_str(get(pool, "c2/s1"), "one");
	ok_str(get(pool, "c2/s2"), "two");
	ok_str(get(pool, "c1/s1"), "one");
	ok_str(record_of(pool, "c2"), volumes[0].record);
	ok_str(record_of(pool, "c2/s1"), volumes[1].record);
	put(pool, "c2", "five");
	ok_str(get(pool, "c2"), "five");
	check_pool(pool);
	pool_down(pool);
}

static char *path_in(struct pool *pool, const char *name, const char *file)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = ref_of(name);
	_cleanup_(freep) char *path = NULL;
	char *joined;
	bool did;

	if (subject->driver->volume_mount)
		ok_call(subject->driver->volume_mount(pool, &ref, &did, &err), &err);
	ok_call(subject->driver->path(pool, &ref, &path, &err), &err);
	joined = text_format("%s/%s", path, file);
	ok(joined);
	return joined;
}

static void make_oddities(struct pool *pool, const char *name)
{
	_cleanup_(freep) char *file = path_in(pool, name, "file"),
			      *link_ = path_in(pool, name, "hard");
	_cleanup_(freep) char *symbolic = path_in(pool, name, "symbolic");
	_cleanup_(freep) char *top = path_in(pool, name, ".");
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(file_write(AT_FDCWD, file, "x", false, &err), &err);
	ok_int(truncate(file, 1 << 20), ==, 0);
	ok_int(chown(file, 1234, 2345), ==, 0);
	ok_int(chmod(file, 04751), ==, 0);
	ok_int(link(file, link_), ==, 0);
	ok_int(symlink("nowhere", symbolic), ==, 0);
	ok_int(chown(top, 11, 22), ==, 0);
	ok_int(chmod(top, 0751), ==, 0);
	if (setxattr(file, "user.test", "v", 1, 0) < 0 && errno != EOPNOTSUPP)
		tap_fail("setxattr: %s", strerror(errno));
	ok_int(utimensat(AT_FDCWD, file, (struct timespec[]){ { 1000, 111 }, { 2000, 222 } }, 0),
	       ==, 0);
	ok_int(utimensat(AT_FDCWD, top, (struct timespec[]){ { 3000, 3 }, { 4000, 4 } }, 0), ==, 0);
}

static void test_clone_keeps_all_that_files_have(void)
{
	_cleanup_(freep) char *file = NULL, *link_ = NULL, *symbolic = NULL, *top = NULL;
	struct pool *pool = pool_up();
	struct stat st, other;

	if (subject->no_files)
		skip("%s: %s", subject->driver->name, subject->no_files);
	make(pool, "c1", "one");
	make_oddities(pool, "c1");
	clone_of(pool, "c1", "c2");
	file = path_in(pool, "c2", "file");
	link_ = path_in(pool, "c2", "hard");
	symbolic = path_in(pool, "c2", "symbolic");
	top = path_in(pool, "c2", ".");

	ok_int(stat(file, &st), ==, 0);
	ok_int(stat(link_, &other), ==, 0);
	ok_int(st.st_ino, ==, other.st_ino);
	ok_int(st.st_nlink, ==, 2);
	ok_int(st.st_uid, ==, 1234);
	ok_int(st.st_gid, ==, 2345);
	ok_int(st.st_mode & 07777, ==, 04751);
	ok_int(st.st_mtim.tv_sec, ==, 2000);
	if (!subject->no_nanoseconds || !subject->no_nanoseconds())
		ok_int(st.st_mtim.tv_nsec, ==, 222);
	ok_int(st.st_size, ==, 1 << 20);
	ok_int(st.st_blocks, <, 1024);
	ok_int(lstat(symbolic, &st), ==, 0);
	ok(S_ISLNK(st.st_mode));
	ok_int(stat(top, &st), ==, 0);
	ok_int(st.st_uid, ==, 11);
	ok_int(st.st_mode & 07777, ==, 0751);
	ok_int(st.st_mtim.tv_sec, ==, 4000);
	pool_down(pool);
}

const struct tap_test cases_make[] = {
	TAP(test_publish_makes_visible),
	TAP(test_kinds_have_names_of_their_own),
	TAP(test_nothing_is_visible_before_publish),
	TAP(test_discard_leaves_nothing),
	TAP(test_discard_of_a_volume_half_made),
	TAP(test_draft_without_descriptors_fails_at_once),
	TAP(test_sealed_image_is_read_only),
	TAP(test_clone_is_equal_and_isolated),
	TAP(test_clone_of_an_image_is_writable),
	TAP(test_batch_of_a_hundred),
	TAP(test_batch_with_a_taken_name_makes_none),
	TAP(test_clone_of_nothing),
	TAP(test_snapshot_is_frozen),
	TAP(test_snapshot_is_read_only),
	TAP(test_snapshot_name_is_taken),
	TAP(test_clone_of_a_snapshot),
	TAP(test_nested_snapshots_are_published_with_their_volume),
	TAP(test_nested_snapshots_can_be_filled),
	TAP(test_transferred_volumes_share_nothing_with_their_sources),
	TAP(test_clone_keeps_all_that_files_have),
	TAP_END,
};
