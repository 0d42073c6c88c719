/* SPDX-License-Identifier: Apache-2.0 */

/* Who uses a volume, and what others made within one. */

#include "conformance.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "base/run.h"
#include "base/text.h"

/* ---- who uses it ---- */

static const char *path_of(struct pool *pool, const char *name)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = ref_of(name);
	char *path = NULL;

	ok_call(subject->driver->path(pool, &ref, &path, &err), &err);
	return keep(path);
}

static int in_use(struct pool *pool, const char *name, in_use_fn *tell, void *user,
		  struct coppice_error *err)
{
	struct volume_ref ref = ref_of(name);

	return subject->driver->in_use(pool, &ref, 1, tell, user, err);
}

/* A process that does this with the directory, and stays. */
static pid_t start(void (*act)(const char *path), const char *path)
{
	int ready[2];
	pid_t pid;
	char c;

	ok_int(pipe(ready), ==, 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		act(path);
		ok_int(write(ready[1], "x", 1), ==, 1);
		for (;;)
			(void)pause();
	}
	(void)close(ready[1]);
	ok_int(read(ready[0], &c, 1), ==, 1);
	(void)close(ready[0]);
	return pid;
}

static void stop(pid_t pid)
{
	ok_int(kill(pid, SIGKILL), ==, 0);
	ok_int(waitpid(pid, NULL, 0), ==, pid);
}

static void stand_in(const char *path)
{
	ok_int(chdir(path), ==, 0);
}

static void mount_elsewhere(const char *path)
{
	ok_int(unshare(CLONE_NEWNS), ==, 0);
	ok_int(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), ==, 0);
	ok_int(mount(path, "/mnt", NULL, MS_BIND, NULL), ==, 0);
}

/* The driver's first volume, "c1", mounted where it must be. */
static struct pool *pool_with_one(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = ref_of("c1");
	struct pool *pool;
	bool did;

	if (!subject->driver->in_use)
		skip("%s: nobody can use its volumes", subject->name);
	pool = pool_up();
	make(pool, "c1", "one");
	make(pool, "c2", "two");
	if (subject->driver->volume_mount)
		ok_call(subject->driver->volume_mount(pool, &ref, &did, &err), &err);
	return pool;
}

static void test_in_use_names_the_process(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_with_one();
	pid_t pid;

	ok_call(in_use(pool, "c1", NULL, NULL, &err), &err);
	pid = start(stand_in, path_of(pool, "c1"));
	ok_int(in_use(pool, "c1", NULL, NULL, &err), ==, COPPICE_BUSY);
	ok_has(err.message, keep(text_format("'c1' is in use by process %d (", (int)pid)));
	ok_call(in_use(pool, "c2", NULL, NULL, &err), &err);
	stop(pid);
	ok_call(in_use(pool, "c1", NULL, NULL, &err), &err);
	pool_down(pool);
}

static void test_in_use_sees_other_namespaces(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_with_one();
	pid_t pid = start(mount_elsewhere, path_of(pool, "c1"));

	ok_int(in_use(pool, "c1", NULL, NULL, &err), ==, COPPICE_BUSY);
	/* At /mnt; but a volume that is a mount itself is mounted there in its old place, too. */
	ok_has(err.message, "a mount: /");
	ok_has(err.message, ", as process ");
	ok_call(in_use(pool, "c2", NULL, NULL, &err), &err);
	stop(pid);
	ok_call(in_use(pool, "c1", NULL, NULL, &err), &err);
	pool_down(pool);
}

static void add_line(void *user, const char *line)
{
	text_add(user, "%s\n", line);
}

static void test_in_use_tells_each_once(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_with_one();
	const char *path = path_of(pool, "c1");
	pid_t a = start(stand_in, path), b = start(stand_in, path);
	struct text text = TEXT_INIT;
	const char *all, *first;

	ok_call(in_use(pool, "c1", add_line, &text, &err), &err);
	all = keep(text_take(&text));
	first = keep(text_format("process %d (", (int)a));
	ok_has(all, first);
	ok_has(all, keep(text_format("process %d (", (int)b)));
	ok(!strstr(strstr(all, first) + 1, first));
	stop(a);
	stop(b);
	pool_down(pool);
}

/* ---- what is within it ---- */

static int add_path(void *user, const char *path, struct coppice_error *err)
{
	text_add(user, "%s ", path);
	return COPPICE_OK;
}

/* Paths of all that is nested in it, each followed by a space. */
static const char *nested(struct pool *pool, const char *name)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = ref_of(name);
	struct text text = TEXT_INIT;

	ok_call(subject->driver->nested(pool, &ref, add_path, &text, &err), &err);
	return text.data ? keep(text_take(&text)) : "";
}

static void nest(struct pool *pool, const char *name, const char *inner)
{
	const char *path = keep(text_format("%s/%s", path_of(pool, name), inner));
	const char *const argv[] = { "btrfs", "-q", "subvolume", "create", path, NULL };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(run_checked(argv, &err), &err);
}

static void skip_without_nesting(void)
{
	if (!subject->driver->nested)
		skip("%s: nothing can be nested in its volumes", subject->name);
}

static void test_nested_volumes_are_told(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref none = ref_of("none");
	struct new_volume c1;
	struct pool *pool;

	skip_without_nesting();
	pool = pool_up();
	c1 = make(pool, "c1", "one");
	make(pool, "c2", "two");
	ok_str(nested(pool, "c1"), "");
	nest(pool, "c1", "a");
	nest(pool, "c1", "a/b");
	nest(pool, "c2", "other");
	ok_has(nested(pool, "c1"), "a ");
	ok_has(nested(pool, "c1"), "a/b ");
	ok(!strstr(nested(pool, "c1"), "other"));
	snapshot_of(pool, &c1, "s1");
	ok_str(nested(pool, "c1/s1"), "");
	clone_of(pool, "c1", "c3");
	ok_str(nested(pool, "c3"), "");
	ok_int(subject->driver->nested(pool, &none, add_path, NULL, &err), ==, COPPICE_NOT_FOUND);
	pool_down(pool);
}

static void test_nested_volumes_go_with_theirs(void)
{
	struct new_volume c1;
	struct pool *pool;

	skip_without_nesting();
	pool = pool_up();
	c1 = make(pool, "c1", "one");
	nest(pool, "c1", "a");
	nest(pool, "c1", "a/b");
	retire(pool, "c1", &c1);
	reap(pool);
	reap(pool);
	ok_int(count(pool), ==, 0);
	ok(access(keep(text_format("%s/deleted/%s", pool->driver->pool_mount_path(pool),
				   c1.uuid.text)),
		  F_OK) < 0);
	pool_down(pool);
}

const struct tap_test cases_use[] = {
	TAP(test_in_use_names_the_process),      TAP(test_in_use_sees_other_namespaces),
	TAP(test_in_use_tells_each_once),        TAP(test_nested_volumes_are_told),
	TAP(test_nested_volumes_go_with_theirs), TAP_END,
};
