/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Each operation of the library on the memory driver, with its first step
 * failing, then its second, its third … until it succeeds. After each failure
 * nothing exists that did not before, check finds nothing, and the same call
 * succeeds. Each attempt is a process of its own, with pools made afresh.
 */

#include "base/run.h"
#include "base/text.h"
#include "coppice.h"
#include "driver/memory.h"
#include "tap.h"

#define STEPS_MAX 200

enum {
	ATTEMPT_REACHED_THE_END = 40, /* no step was left to fail */
};

typedef int operation_fn(struct coppice *coppice, struct coppice_error *err);

static void make_archive(const char *path)
{
	_cleanup_(freep) char *tree = text_format("%s/tree", tap_dir());
	_cleanup_(freep) char *script = text_format(
		"mkdir -p %s/etc %s/usr/bin && echo x >%s/etc/hostname && tar -C %s -cf %s .", tree,
		tree, tree, tree, path);
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(run_checked((const char *const[]){ "sh", "-c", script, NULL }, &err), &err);
}

/* Pools "default" and "other"; an image; c1 with a snapshot, and c2. */
static struct coppice *set_up(void)
{
	_cleanup_(freep) char *archive = text_format("%s/image.tar", tap_dir());
	_cleanup_(freep) char *root = text_format("%s/root", tap_dir());
	_cleanup_(freep) char *fingerprint = NULL;
	const char *const aliases[] = { "img" }, *const names[] = { "c1", "c2" };
	struct coppice_import import = {
		.path = archive, .pool = "default", .aliases = aliases, .n_aliases = 1
	};
	struct coppice_options options = { .root = root, .lock_timeout_ms = 2000 };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct coppice *coppice = NULL;

	driver_add(&driver_memory);
	make_archive(archive);
	ok_call(coppice_open(&options, &coppice, &err), &err);
	ok_call(coppice_storage_create(coppice, "default", "memory", NULL, 0, &err), &err);
	ok_call(coppice_storage_create(coppice, "other", "memory", NULL, 0, &err), &err);
	ok_call(coppice_image_import(coppice, &import, &fingerprint, &err), &err);
	ok_call(coppice_instance_init(coppice, "img", names, 2, NULL, 0, "default", &err), &err);
	ok_call(coppice_snapshot_create(coppice, "c1", "s1", 0, NULL, &err), &err);
	return coppice;
}

static void ok_clean(struct coppice *coppice)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct coppice_finding_list list = { 0 };

	ok_call(coppice_check(coppice, NULL, false, &list, &err), &err);
	if (list.n > 0)
		tap_fail("check: %s: %s: %s", list.finding[0].what, list.finding[0].subject,
			 list.finding[0].message);
	coppice_finding_list_free(&list);
}

/*
 * One attempt, in a child: returns its exit status. What removes may have done
 * all that was asked for when it fails: then the same call finds nothing to do.
 */
static int attempt(operation_fn *operation, bool is_removal, size_t may_keep, unsigned nth)
{
	struct coppice *coppice = set_up();
	struct coppice_error err = COPPICE_ERROR_INIT;
	size_t before = memory_count();
	bool is_reached;
	int r;

	memory_pool_fail_at(nth);
	r = operation(coppice, &err);
	is_reached = memory_pool_fails_in() > 0;
	memory_pool_fail_at(0);
	if (r < 0) {
		if (is_reached)
			tap_fail("step %u: fails by itself: %s", nth, err.message);
		ok_has(err.message, "injected failure");
	}
	ok_clean(coppice);
	if (r < 0) {
		if (memory_count() > before + may_keep || (memory_count() < before && !is_removal))
			tap_fail("step %u: %zu things, %zu before", nth, memory_count(), before);
		r = operation(coppice, &err);
		if (!is_removal || r != COPPICE_NOT_FOUND)
			ok_call(r, &err);
		ok_clean(coppice);
	}
	coppice_close(coppice);
	return is_reached ? ATTEMPT_REACHED_THE_END : 0;
}

static void fail_at_each(operation_fn *operation, bool is_removal, size_t may_keep)
{
	for (unsigned nth = 1; nth < STEPS_MAX; nth++) {
		int status = -1;
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (pid == 0)
			exit(attempt(operation, is_removal, may_keep, nth));
		ok_int(waitpid(pid, &status, 0), ==, pid);
		if (WIFEXITED(status) && WEXITSTATUS(status) == ATTEMPT_REACHED_THE_END) {
			ok_int(nth, >, 1);
			return;
		}
		if (status != 0)
			tap_fail("with step %u failing: status %#x", nth, (unsigned)status);
		(void)run_checked((const char *const[]){ "rm", "-rf", "--", tap_dir(), NULL },
				  &(struct coppice_error){ 0 });
		ok_int(mkdir(tap_dir(), 0700), ==, 0);
	}
	tap_fail("it never succeeds");
}

static void fail_at_each_step(operation_fn *operation)
{
	fail_at_each(operation, false, 0);
}

static int init(struct coppice *coppice, struct coppice_error *err)
{
	const char *const names[] = { "n1", "n2", "n3", "n4" };

	return coppice_instance_init(coppice, "img", names, 4, NULL, 0, "default", err);
}

static int init_elsewhere(struct coppice *coppice, struct coppice_error *err)
{
	const char *const names[] = { "n1", "n2" };

	return coppice_instance_init(coppice, "img", names, 2, NULL, 0, "other", err);
}

static int init_empty(struct coppice *coppice, struct coppice_error *err)
{
	const char *const names[] = { "n1", "n2" };

	return coppice_instance_init_empty(coppice, names, 2, COPPICE_FILESYSTEM, NULL, 0,
					   "default", err);
}

static int copy(struct coppice *coppice, struct coppice_error *err)
{
	return coppice_instance_copy(coppice, "c1", "n1", NULL, err);
}

static int refresh(struct coppice *coppice, struct coppice_error *err)
{
	const struct coppice_copy options = { .is_refresh = true };

	return coppice_instance_copy(coppice, "c1", "c2", &options, err);
}

static int copy_elsewhere(struct coppice *coppice, struct coppice_error *err)
{
	const struct coppice_copy options = { .pool = "other" };

	return coppice_instance_copy(coppice, "c1", "n1", &options, err);
}

static int snapshot(struct coppice *coppice, struct coppice_error *err)
{
	return coppice_snapshot_create(coppice, "c1", "s2", 0, NULL, err);
}

static int restore(struct coppice *coppice, struct coppice_error *err)
{
	return coppice_snapshot_restore(coppice, "c1", "s1", 0, err);
}

static int rename_instance(struct coppice *coppice, struct coppice_error *err)
{
	return coppice_rename(coppice, "c1", "n1", err);
}

static int rename_snapshot(struct coppice *coppice, struct coppice_error *err)
{
	return coppice_rename(coppice, "c1/s1", "s2", err);
}

static int config_set(struct coppice *coppice, struct coppice_error *err)
{
	const struct coppice_setting settings[] = { { "size", "1GiB" }, { "user.note", "x" } };

	return coppice_config_set(coppice, "c1", settings, 2, err);
}

static int delete_instances(struct coppice *coppice, struct coppice_error *err)
{
	const char *const names[] = { "c1", "c2" };

	return coppice_delete(coppice, names, 2, 0, err);
}

static int delete_image(struct coppice *coppice, struct coppice_error *err)
{
	const char *const images[] = { "img" };

	return coppice_image_delete(coppice, images, 1, NULL, err);
}

static int move(struct coppice *coppice, struct coppice_error *err)
{
	return coppice_instance_move(coppice, "c1", "c1", "other", 0, err);
}

static int storage_create(struct coppice *coppice, struct coppice_error *err)
{
	return coppice_storage_create(coppice, "third", "memory", NULL, 0, err);
}

static void test_init(void)
{
	fail_at_each_step(init);
}

static void test_init_in_a_pool_without_the_image(void)
{
	/* The image, once it is unpacked there, stays for the next who asks. */
	fail_at_each(init_elsewhere, false, 1);
}

static void test_init_of_empty_ones(void)
{
	fail_at_each_step(init_empty);
}

static void test_copy_with_snapshots(void)
{
	fail_at_each_step(copy);
}

static void test_copy_to_another_pool(void)
{
	fail_at_each_step(copy_elsewhere);
}

static void test_refresh(void)
{
	fail_at_each_step(refresh);
}

static void test_snapshot(void)
{
	fail_at_each_step(snapshot);
}

static void test_restore(void)
{
	fail_at_each_step(restore);
}

static void test_rename(void)
{
	fail_at_each_step(rename_instance);
}

static void test_rename_of_a_snapshot(void)
{
	fail_at_each_step(rename_snapshot);
}

static void test_config_set(void)
{
	fail_at_each_step(config_set);
}

static void test_delete(void)
{
	fail_at_each(delete_instances, true, 0);
}

static void test_delete_of_the_image(void)
{
	fail_at_each(delete_image, true, 0);
}

static void test_move_to_another_pool(void)
{
	fail_at_each(move, true, 0);
}

static void test_storage_create(void)
{
	fail_at_each_step(storage_create);
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_init),
		TAP(test_init_in_a_pool_without_the_image),
		TAP(test_init_of_empty_ones),
		TAP(test_copy_with_snapshots),
		TAP(test_copy_to_another_pool),
		TAP(test_refresh),
		TAP(test_snapshot),
		TAP(test_restore),
		TAP(test_rename),
		TAP(test_rename_of_a_snapshot),
		TAP(test_config_set),
		TAP(test_delete),
		TAP(test_delete_of_the_image),
		TAP(test_move_to_another_pool),
		TAP(test_storage_create),
		TAP_END,
	});
}
