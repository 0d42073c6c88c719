/* SPDX-License-Identifier: Apache-2.0 */

/* Waiting for others: locks between processes, and calls that may not come back. */

#include <fcntl.h>

#include "base/bounded.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/text.h"
#include "tap.h"

/* ---- lock ---- */

static struct lock_file lock_open(unsigned timeout_ms)
{
	_cleanup_(freep) char *path = text_format("%s/lock", tap_dir());
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct lock_file file = { .fd = -1 };

	ok_call(lock_file_open(AT_FDCWD, path, timeout_ms, &file, &err), &err);
	return file;
}

static int lock_names(struct lock_file *file, const char *a, const char *b, bool is_exclusive,
		      struct coppice_error *err)
{
	struct lock_want wants[] = { { lock_byte(1, a), is_exclusive },
				     { lock_byte(1, b), is_exclusive } };

	return lock_take(file, wants, 2, err);
}

/* ---- calls that may not come back ---- */

static const struct patience patient = { .most_ms = 60000 };

static int say_busy(void *user, struct coppice_error *err)
{
	return fail(err, COPPICE_BUSY, "'%s' is in use", (const char *)user);
}

static int do_nothing(void *user, struct coppice_error *err)
{
	return COPPICE_OK;
}

static int die(void *user, struct coppice_error *err)
{
	_exit(3);
}

static void test_bounded_brings_what_was_said(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char name[] = "c1";

	ok_call(run_bounded(do_nothing, NULL, &patient, &err), &err);
	ok_code(run_bounded(say_busy, name, &patient, &err), COPPICE_BUSY, &err);
	ok_str(err.message, "'c1' is in use");
	ok_code(run_bounded(die, NULL, &patient, &err), COPPICE_FAILED, &err);
}

/* Until the other end is closed. */
static int wait_for_end(void *user, struct coppice_error *err)
{
	const char *path = user;
	char byte;
	int fd = open(path, O_RDONLY);

	(void)!read(fd, &byte, 1);
	return COPPICE_OK;
}

static void test_bounded_gives_up(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	const struct patience patience = { .most_ms = 10 };
	int fds[2];
	char path[64];

	ok_int(pipe2(fds, O_CLOEXEC), ==, 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fds[0]);
	ok_code(run_bounded(wait_for_end, path, &patience, &err), COPPICE_UNAVAILABLE, &err);
	ok_int(err.os_errno, ==, ETIMEDOUT);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

/* Ten steps, and then the end of it. */
static uint64_t count_steps(void *user)
{
	int *fds = user;
	static uint64_t n;

	if (++n == 10)
		(void)close(take_fd(&fds[1]));
	return n;
}

static void test_bounded_waits_while_something_goes_on(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fds[2];
	const struct patience patience = { .most_ms = 1, .progress = count_steps, .user = fds };
	char path[64];

	ok_int(pipe2(fds, O_CLOEXEC), ==, 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fds[0]);
	ok_call(run_bounded(wait_for_end, path, &patience, &err), &err);
	ok_int(fds[1], ==, -1);
	(void)close(fds[0]);
}

static int count_files(void *user, struct coppice_error *err)
{
	return fail(err, COPPICE_FAILED, "%d", open("/dev/null", O_RDONLY));
}

/* Who reads what we print waits for nobody that we left behind; nor do locks last. */
static void test_bounded_keeps_nothing_open(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd = open("/dev/null", O_RDONLY);

	ok_code(run_bounded(count_files, NULL, &patient, &err), COPPICE_FAILED, &err);
	ok_str(err.message, "4");
	(void)close(fd);
}

static bool yes(void *user)
{
	return true;
}

/* Who was to be stopped waited for as long as who was not. */
static void test_bounded_is_interrupted(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct patience patience = patient;
	int fds[2];
	char path[64];

	patience.is_interrupted = yes;
	patience.interrupted_ms = 1;
	ok_int(pipe2(fds, O_CLOEXEC), ==, 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fds[0]);
	ok_code(run_bounded(wait_for_end, path, &patience, &err), COPPICE_INTERRUPTED, &err);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

/* What is left behind keeps others off until it is over. */
static void test_bounded_keeps_a_lock(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct patience patience = { .most_ms = 10 };
	struct lock_file own = lock_open(0), other;
	char path[64];
	int fds[2];

	ok_call(lock_names(&own, "c1", "c1", true, &err), &err);
	ok_int(pipe2(fds, O_CLOEXEC), ==, 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fds[0]);
	patience.keep_fd[patience.n_keep++] = own.fd;
	ok_code(run_bounded(wait_for_end, path, &patience, &err), COPPICE_UNAVAILABLE, &err);
	lock_file_close(&own);
	other = lock_open(0);
	ok_code(lock_names(&other, "c1", "c1", true, &err), COPPICE_BUSY, &err);
	(void)close(fds[0]);
	(void)close(fds[1]);
	other.timeout_ms = 60000;
	ok_call(lock_names(&other, "c1", "c1", true, &err), &err);
	lock_file_close(&other);
}

/* Where 0, 1 and 2 are closed, what we open ourselves has these numbers. */
static void test_bounded_without_standard_files(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct lock_file lock;
	int saved[3];
	int r;

	for (int i = 0; i < 3; i++) {
		saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
		(void)close(i);
	}
	r = run_bounded(do_nothing, NULL, &patient, &err);
	lock = lock_open(0);
	for (int i = 0; i < 3; i++) {
		(void)dup2(saved[i], i);
		(void)close(saved[i]);
	}
	ok_call(r, &err);
	ok_int(lock.fd, >, STDERR_FILENO); /* 0 would count as none, and never be closed */
	lock_file_close(&lock);
}

static void test_lock_excludes(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct lock_file mine = lock_open(50), other = lock_open(50);

	ok_call(lock_names(&mine, "c1", "c2", true, &err), &err);
	ok_code(lock_names(&other, "c0", "c2", true, &err), COPPICE_BUSY, &err);
	ok_code(lock_names(&other, "c2", "c3", false, &err), COPPICE_BUSY, &err);
	ok_call(lock_names(&other, "c3", "c4", true, &err), &err);

	/* What failed holds nothing: c0 is free. */
	ok_call(lock_names(&mine, "c0", "c0", true, &err), &err);
	lock_file_close(&mine);
	ok_call(lock_names(&other, "c1", "c2", true, &err), &err);
	lock_file_close(&other);
	lock_file_close(&other);
}

static void test_lock_is_shared(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct lock_file mine = lock_open(50), other = lock_open(50);
	struct lock_want want = { lock_byte(1, "c1"), true };

	ok_call(lock_names(&mine, "c1", "c2", false, &err), &err);
	ok_call(lock_names(&other, "c1", "c2", false, &err), &err);
	ok_code(lock_take(&other, &want, 1, &err), COPPICE_BUSY, &err);
	lock_file_close(&mine);
	ok_call(lock_take(&other, &want, 1, &err), &err);
	lock_file_close(&other);
}

/* Wanted shared and exclusive at once, it is exclusive. */
static void test_lock_wanted_twice(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct lock_file mine = lock_open(50), other = lock_open(50);
	struct lock_want twice[] = { { 7, false }, { 7, true } };
	struct lock_want again[] = { { 7, false } };

	ok_call(lock_take(&mine, twice, 2, &err), &err);
	ok_code(lock_take(&other, again, 1, &err), COPPICE_BUSY, &err);
	lock_give(&mine, twice, 2);
	ok_call(lock_take(&other, again, 1, &err), &err);
	lock_file_close(&mine);
	lock_file_close(&other);
}

static void test_lock_goes_with_its_process(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct lock_file mine = lock_open(5000);
	int ready[2];
	char c;
	pid_t pid;

	ok_int(pipe(ready), ==, 0);
	pid = fork();
	if (pid == 0) {
		struct lock_file file = lock_open(0);

		ok_call(lock_names(&file, "c1", "c2", true, &err), &err);
		ok_int(write(ready[1], "x", 1), ==, 1);
		for (;;)
			(void)pause();
	}
	ok_int(read(ready[0], &c, 1), ==, 1);
	mine.timeout_ms = 20;
	ok_code(lock_names(&mine, "c1", "c2", true, &err), COPPICE_BUSY, &err);
	ok_int(kill(pid, SIGKILL), ==, 0);
	mine.timeout_ms = 5000;
	ok_call(lock_names(&mine, "c1", "c2", true, &err), &err);
	ok_int(waitpid(pid, NULL, 0), ==, pid);
	lock_file_close(&mine);
}

static void test_lock_bytes_of_ranges_differ(void)
{
	ok_int(lock_byte(1, "c1"), !=, lock_byte(2, "c1"));
	ok_int(lock_byte(1, "c1"), ==, lock_byte(1, "c1"));
	ok_int(lock_byte(1, "c1"), !=, lock_byte(1, "c2"));
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_bounded_brings_what_was_said),
		TAP(test_bounded_gives_up),
		TAP(test_bounded_waits_while_something_goes_on),
		TAP(test_bounded_keeps_nothing_open),
		TAP(test_bounded_is_interrupted),
		TAP(test_bounded_keeps_a_lock),
		TAP(test_bounded_without_standard_files),
		TAP(test_lock_excludes),
		TAP(test_lock_is_shared),
		TAP(test_lock_wanted_twice),
		TAP(test_lock_goes_with_its_process),
		TAP(test_lock_bytes_of_ranges_differ),
		TAP_END,
	});
}
