/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bounded.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/clock.h"

#define LOOK_MS 100

/* With 3 for what it has to say. Locks are no business of its, and nobody waits for its output. */
static bool let_go_of_files(int to)
{
	int null = open("/dev/null", O_RDWR);

	return null >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1 && dup2(null, 2) == 2 &&
	       (to == 3 || dup3(to, 3, O_CLOEXEC) == 3) && close_range(4, UINT_MAX, 0) == 0;
}

static _Noreturn void be_child(bounded_fn *fn, void *user, int to)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	const char *at = (const char *)&err;

	(void)setsid();
	(void)!chdir("/"); /* it keeps nothing in use */
	if (!let_go_of_files(to))
		_exit(1);
	err.code = fn(user, &err);
	for (size_t n = 0; n < sizeof(err);) {
		ssize_t wrote = retry(write(3, at + n, sizeof(err) - n));

		if (wrote < 0)
			break; /* nobody waits any more */
		n += (size_t)wrote;
	}
	_exit(0);
}

static int start(bounded_fn *fn, void *user, int to, struct coppice_error *err)
{
	sigset_t all, before;
	int status = 0;
	pid_t child;

	/* No handler of the caller's runs in it; and it is nobody's child, who would be waited for.
	 */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	child = fork();
	if (child == 0) {
		pid_t grandchild = fork();

		if (grandchild == 0)
			be_child(fn, user, to);
		_exit(grandchild < 0);
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (child < 0)
		return fail_errno(err, errno, "cannot start a process");
	if (retry(waitpid(child, &status, 0)) == child && status != 0)
		return fail(err, COPPICE_FAILED, "cannot start a process");
	return COPPICE_OK;
}

/* Until it has something to say, or nothing has gone on for too long. */
static bool wait_for(int from, const struct patience *patience)
{
	uint64_t seen = patience->progress ? patience->progress(patience->user) : 0;
	int64_t deadline_ms = clock_ms() + patience->most_ms;
	struct pollfd poll_fd = { .fd = from, .events = POLLIN };

	while (poll(&poll_fd, 1, LOOK_MS) <= 0) {
		uint64_t now = patience->progress ? patience->progress(patience->user) : seen;

		if (now != seen)
			deadline_ms = clock_ms() + patience->most_ms;
		else if (clock_ms() >= deadline_ms)
			return false;
		seen = now;
	}
	return true;
}

int run_bounded(bounded_fn *fn, void *user, const struct patience *patience,
		struct coppice_error *err)
{
	_cleanup_(closep) int from = -1;
	struct coppice_error its;
	char *at = (char *)&its;
	size_t n = 0;
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return fail_errno(err, errno, "cannot make a pipe");
	from = fds[0];
	r = start(fn, user, fds[1], err);
	(void)close(fds[1]);
	if (r < 0)
		return r;
	if (!wait_for(from, patience)) {
		r = fail(err, COPPICE_UNAVAILABLE, "nothing went on for %u ms", patience->most_ms);
		err->os_errno = ETIMEDOUT;
		return r;
	}
	while (n < sizeof(its)) {
		ssize_t got = retry(read(from, at + n, sizeof(its) - n));

		if (got <= 0)
			return fail(err, COPPICE_FAILED, "a process of ours has died");
		n += (size_t)got;
	}
	if (its.code < 0)
		*err = its;
	return its.code;
}
