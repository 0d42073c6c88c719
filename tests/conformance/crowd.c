/* SPDX-License-Identifier: Apache-2.0 */

/* Many at once, and makers that die. */

#include "conformance.h"

#include <pthread.h>

#include "driver/memory.h"

#define MAKERS    8
#define PER_MAKER 50

static void make_announced(struct pool *pool, const char *name)
{
	struct volume_ref image = ref_of("image");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct new_volume volume = new_of(name);
	struct draft draft = draft_up(pool);

	ok_call(subject->driver->draft_announce(&draft, &volume, 1, &err), &err);
	ok_call(subject->driver->clone(&draft, &image, &volume, 1, false, &err), &err);
	ok_call(subject->driver->publish(&draft, &volume, 1, &err), &err);
	draft_down(&draft);
}

/* One of the makers: publishes its volumes one by one. Most announce them, as init does. */
static void make_fifty(size_t maker)
{
	bool is_announcing = subject->driver->draft_announce && maker % 4 > 0;
	struct pool *pool = pool_again(NULL);

	for (size_t i = 0; i < PER_MAKER; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "c%zu-%zu", maker, i);
		if (is_announcing)
			make_announced(pool, name);
		else
			clone_of(pool, "image", name);
	}
	pool_down(pool);
}

static void run_makers(void)
{
	pid_t pid[MAKERS];

	fflush(stdout);
	for (size_t i = 0; i < MAKERS; i++) {
		pid[i] = fork();
		ok_int(pid[i], >=, 0);
		if (pid[i] == 0) {
			make_fifty(i);
			_exit(0);
		}
	}
	for (size_t i = 0; i < MAKERS; i++)
		ok_child(pid[i]);
}

static pthread_mutex_t keep_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *maker_thread(void *argument)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	struct volume_ref image = ref_of("image");
	struct pool *pool = NULL;

	ok_call(subject->driver->pool_open(&spec, &pool, &err), &err);
	for (size_t i = 0; i < PER_MAKER; i++) {
		struct new_volume volume;
		struct draft draft;
		char name[32];

		(void)snprintf(name, sizeof(name), "c%zu-%zu", *(size_t *)argument, i);
		(void)pthread_mutex_lock(&keep_mutex);
		volume = new_of(name);
		(void)pthread_mutex_unlock(&keep_mutex);
		draft = draft_up(pool);
		ok_call(subject->driver->clone(&draft, &image, &volume, 1, false, &err), &err);
		ok_call(subject->driver->publish(&draft, &volume, 1, &err), &err);
		draft_down(&draft);
	}
	pool_down(pool);
	return NULL;
}

/* For pools that only this process sees. */
static void run_maker_threads(void)
{
	pthread_t thread[MAKERS];
	size_t number[MAKERS];

	for (size_t i = 0; i < MAKERS; i++) {
		number[i] = i;
		ok_int(pthread_create(&thread[i], NULL, maker_thread, &number[i]), ==, 0);
	}
	for (size_t i = 0; i < MAKERS; i++)
		ok_int(pthread_join(thread[i], NULL), ==, 0);
}

static void test_eight_makers_lose_nothing(void)
{
	struct pool *pool = pool_up();

	make_image(pool, "data");
	pool_down(pool);
	if (subject->no_processes)
		run_maker_threads();
	else
		run_makers();
	pool = pool_again(NULL);
	ok_int(count(pool), ==, MAKERS * PER_MAKER + 1);
	ok_str(get(pool, "c0-0"), "data");
	ok_str(get(pool, "c7-49"), "data");
	pool_down(pool);
}

/* Eight want the same name; one gets it. */
static void test_a_name_is_given_once(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref image = ref_of("image");
	struct pool *pool = pool_up();
	pid_t pid[MAKERS];
	int winners = 0;

	make_image(pool, "data");
	pool_down(pool);
	if (subject->no_processes)
		skip("%s: %s", subject->driver->name, subject->no_processes);
	fflush(stdout);
	for (size_t i = 0; i < MAKERS; i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			struct new_volume c1 = new_of("c1");
			struct draft draft;
			int r;

			pool = pool_again(NULL);
			draft = draft_up(pool);
			ok_call(subject->driver->clone(&draft, &image, &c1, 1, false, &err), &err);
			r = subject->driver->publish(&draft, &c1, 1, &err);
			draft_down(&draft);
			_exit(r == COPPICE_OK ? 0 : r == COPPICE_EXISTS ? 40 : 1);
		}
	}
	for (size_t i = 0; i < MAKERS; i++) {
		int status = -1;

		(void)waitpid(pid[i], &status, 0);
		ok(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 40));
		winners += WEXITSTATUS(status) == 0;
	}
	ok_int(winners, ==, 1);
	pool = pool_again(NULL);
	ok_int(count(pool), ==, 2);
	pool_down(pool);
}

/* Makes volumes in a draft, says so through @fd, and waits to be killed. */
static void make_and_wait(int fd)
{
	struct volume_ref image = ref_of("image");
	struct new_volume c1 = new_of("c1"), c2 = new_of("c2");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool *pool = pool_again(NULL);
	struct draft draft = draft_up(pool);

	fill(&draft, &c1, "one", true);
	ok_call(subject->driver->clone(&draft, &image, &c2, 1, false, &err), &err);
	ok_int(write(fd, "x", 1), ==, 1);
	for (;;)
		(void)pause();
}

static void test_draft_of_a_killed_maker_is_swept(void)
{
	struct pool *pool = pool_up();
	int ready[2];
	char c;
	pid_t pid;

	make_image(pool, "data");
	if (subject->no_processes)
		skip("%s: %s", subject->driver->name, subject->no_processes);
	ok_int(pipe(ready), ==, 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		make_and_wait(ready[1]);
	}
	(void)close(ready[1]);
	ok_int(read(ready[0], &c, 1), ==, 1);

	ok_int(sweep(pool), ==, 0); /* it lives */
	ok_int(count(pool), ==, 1);
	ok_int(kill(pid, SIGKILL), ==, 0);
	ok_int(waitpid(pid, NULL, 0), ==, pid);
	ok_int(sweep(pool), ==, 1);
	ok_int(sweep(pool), ==, 0);
	ok_int(count(pool), ==, 1);
	ok_str(get(pool, "image"), "data");
	pool_down(pool);
}

static void test_draft_of_this_process_is_not_swept(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = new_of("c1");
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct draft draft = draft_up(pool);

	fill(&draft, &c1, "one", false);
	ok_int(sweep(pool), ==, 0);
	ok_call(subject->driver->publish(&draft, &c1, 1, &err), &err);
	draft_down(&draft);
	ok_str(get(pool, "c1"), "one");
	pool_down(pool);
}

/* What processes cannot show on the memory driver, its own hook does. */
static void test_orphans_in_memory_are_swept(void)
{
	struct new_volume c1 = new_of("c1");
	struct draft draft;
	struct pool *pool;

	if (subject->driver != &driver_memory)
		skip("%s: killed processes show it", subject->driver->name);
	pool = pool_up();
	draft = draft_up(pool);
	fill(&draft, &c1, "one", false);
	memory_draft_orphan_all();
	ok_int(memory_count(), ==, 2);
	ok_int(sweep(pool), ==, 1);
	ok_int(memory_count(), ==, 0);
	pool_down(pool);
}

static void test_sweep_reaps_what_others_retired(void)
{
	struct pool *pool = pool_up();
	struct new_volume c1 = make(pool, "c1", "one");
	struct coppice_error err = COPPICE_ERROR_INIT;
	size_t n = 0;

	retire(pool, "c1", &c1);
	ok_call(subject->driver->draft_sweep(pool, &n, &err), &err);
	ok_int(count(pool), ==, 0);
	if (subject->driver == &driver_memory)
		ok_int(memory_count(), ==, 0);
	pool_down(pool);
}

const struct tap_test cases_crowd[] = {
	TAP(test_eight_makers_lose_nothing),
	TAP(test_a_name_is_given_once),
	TAP(test_draft_of_a_killed_maker_is_swept),
	TAP(test_draft_of_this_process_is_not_swept),
	TAP(test_orphans_in_memory_are_swept),
	TAP(test_sweep_reaps_what_others_retired),
	TAP_END,
};
