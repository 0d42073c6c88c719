/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bounded.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/clock.h"

#define LOOK_MS 100

#define TO_FD   3 /* for what it has to say */
#define KEEP_FD 4 /* and on */

/* Out of the way of those. */
static int move_up(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, KEEP_FD + BOUNDED_KEEP_MAX);
}

/* Other locks are no business of its, and nobody waits for its output. */
static bool let_go_of_files(int to, const struct patience *patience)
{
	int null = move_up(open("/dev/null", O_RDWR)), keep[BOUNDED_KEEP_MAX];
	bool is_ok;

	to = move_up(to);
	is_ok = null >= 0 && to >= 0;
	for (size_t i = 0; i < patience->n_keep; i++)
		is_ok &= (keep[i] = move_up(patience->keep_fd[i])) >= 0;
	is_ok = is_ok && dup2(null, 0) == 0 && dup2(null, 1) == 1 && dup2(null, 2) == 2 &&
		dup3(to, TO_FD, O_CLOEXEC) == TO_FD;
	for (int i = 0; i < (int)patience->n_keep; i++)
		is_ok = is_ok && dup3(keep[i], KEEP_FD + i, O_CLOEXEC) == KEEP_FD + i;
	return is_ok && close_range(KEEP_FD + (unsigned)patience->n_keep, UINT_MAX, 0) == 0;
}

static _Noreturn void be_child(bounded_fn *fn, void *user, int to, const struct patience *patience)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	const char *at = (const char *)&err;

	(void)setsid();
	(void)!chdir("/"); /* it keeps nothing in use */
	if (!let_go_of_files(to, patience))
		_exit(1);
	err.code = fn(user, &err);
	for (size_t n = 0; n < sizeof(err);) {
		ssize_t wrote = retry(write(TO_FD, at + n, sizeof(err) - n));

		if (wrote < 0)
			break; /* nobody waits any more */
		n += (size_t)wrote;
	}
	_exit(0);
}

static int start(bounded_fn *fn, void *user, int to, const struct patience *patience,
		 struct coppice_error *err)
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
			be_child(fn, user, to, patience);
		_exit(grandchild < 0);
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (child < 0)
		return fail_errno(err, errno, "cannot start a process");
	if (retry(waitpid(child, &status, 0)) == child && status != 0)
		return fail(err, COPPICE_FAILED, "cannot start a process");
	return COPPICE_OK;
}

static uint64_t what_went_on(const struct patience *patience)
{
	return patience->progress ? patience->progress(patience->user) : 0;
}

void waiting_begin(struct waiting *waiting, const struct patience *patience)
{
	*waiting = (struct waiting){ what_went_on(patience), clock_ms() };
}

int waiting_check(struct waiting *waiting, const struct patience *patience,
		  struct coppice_error *err)
{
	uint64_t now = what_went_on(patience);
	int64_t now_ms = clock_ms(), waited_ms;

	if (now != waiting->seen)
		*waiting = (struct waiting){ now, now_ms };
	waited_ms = now_ms - waiting->since_ms;
	if (waited_ms >= patience->interrupted_ms && patience->is_interrupted &&
	    patience->is_interrupted(patience->interrupted_user))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	if (waited_ms == 0 || waited_ms < patience->most_ms)
		return COPPICE_OK;
	(void)fail(err, COPPICE_UNAVAILABLE, "nothing went on for %u ms", patience->most_ms);
	err->os_errno = ETIMEDOUT;
	return err->code;
}

/* Until it has something to say. */
static int wait_for(int from, const struct patience *patience, struct coppice_error *err)
{
	struct pollfd poll_fd = { .fd = from, .events = POLLIN };
	struct waiting waiting;
	int r = COPPICE_OK;

	waiting_begin(&waiting, patience);
	while (r == COPPICE_OK && poll(&poll_fd, 1, LOOK_MS) <= 0)
		r = waiting_check(&waiting, patience, err);
	return r;
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
	r = start(fn, user, fds[1], patience, err);
	(void)close(fds[1]);
	if (r < 0)
		return r;
	r = wait_for(from, patience, err);
	if (r < 0)
		return r;
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

bool bounded_is_awaited(void)
{
	struct pollfd poll_fd = { .fd = TO_FD };

	return poll(&poll_fd, 1, 0) == 0;
}
