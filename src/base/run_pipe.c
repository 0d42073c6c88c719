/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two programs, the output of one being the input of the other, with us in between: if
 * we die, the one gets SIGPIPE and the other an input that ends too soon, so neither
 * goes on for nobody. It also lets us stop on demand.
 */
#include "base/run_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/text.h"

#define BUFFER_SIZE      (256 << 10)
#define LOOK_INTERVAL_MS 200 /* how often it is asked whether to stop */

/* What flows: read from one program, written to the other. */
struct flow {
	int in, out; /* -1: at its end */
	char *buffer;
	size_t n, written; /* in the buffer, and how much of it is through */
};

static void close_end(int *fd)
{
	closep(fd);
	*fd = -1;
}

static void flow_end(struct flow *flow)
{
	close_end(&flow->in);
	close_end(&flow->out);
}

static void flow_read(struct flow *flow)
{
	ssize_t n = read(flow->in, flow->buffer, BUFFER_SIZE);

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0) {
		flow_end(flow);
		return;
	}
	flow->n = (size_t)n;
	flow->written = 0;
}

/* Who does not want more makes the other stop as well. */
static void flow_write(struct flow *flow)
{
	ssize_t n = write(flow->out, flow->buffer + flow->written, flow->n - flow->written);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n < 0) {
		flow_end(flow);
		return;
	}
	flow->written += (size_t)n;
	if (flow->written == flow->n)
		flow->n = flow->written = 0;
}

static void drain(struct pollfd *fd, struct text *into)
{
	char buffer[4096];
	ssize_t n = read(fd->fd, buffer, sizeof(buffer));

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0)
		fd->fd = -1;
	else
		text_add_bytes(into, buffer, (size_t)n);
}

/* Until both streams of errors are at their ends, which they are when both have ended. */
static bool pump(struct flow *flow, const int errors[2], struct text texts[2],
		 const struct run_hook *hook)
{
	struct pollfd fds[4] = { [2] = { .fd = errors[0], .events = POLLIN },
				 [3] = { .fd = errors[1], .events = POLLIN } };
	bool is_stopped = false;

	while (fds[2].fd >= 0 || fds[3].fd >= 0) {
		fds[0] = (struct pollfd){ flow->n == 0 ? flow->in : -1, POLLIN, 0 };
		fds[1] = (struct pollfd){ flow->n > 0 ? flow->out : -1, POLLOUT, 0 };
		if (!is_stopped && hook->is_stopped && hook->is_stopped(hook->user)) {
			is_stopped = true;
			flow_end(flow);
			continue;
		}
		if (poll(fds, ARRAY_SIZE(fds), LOOK_INTERVAL_MS) < 0 && errno != EINTR)
			break;
		if (fds[0].fd >= 0 && fds[0].revents)
			flow_read(flow);
		if (fds[1].fd >= 0 && fds[1].revents)
			flow_write(flow);
		for (size_t i = 0; i < 2; i++)
			if (fds[2 + i].fd >= 0 && fds[2 + i].revents)
				drain(&fds[2 + i], &texts[i]);
	}
	flow_end(flow);
	return is_stopped;
}

/* All ends of four pipes: [0] to read, [1] to write. */
struct ends {
	int from_out[2], to_in[2], from_err[2], to_err[2];
};

static void ends_done(struct ends *ends)
{
	int *all = (int *)ends;

	for (size_t i = 0; i < sizeof(*ends) / sizeof(int); i++)
		close_end(&all[i]);
}

static int ends_open(struct ends *ends, struct coppice_error *err)
{
	memset(ends, 0xff, sizeof(*ends));
	if (pipe2(ends->from_out, O_CLOEXEC) < 0 || pipe2(ends->to_in, O_CLOEXEC) < 0 ||
	    pipe2(ends->from_err, O_CLOEXEC) < 0 || pipe2(ends->to_err, O_CLOEXEC) < 0 ||
	    fcntl(ends->to_in[1], F_SETFL, O_NONBLOCK) < 0)
		return fail_errno(err, errno, "cannot make a pipe");
	return COPPICE_OK;
}

/* Without SIGPIPE for whoever calls us, and without taking away one that was for him. */
struct quiet {
	sigset_t before;
	bool was_pending;
};

static void quiet_begin(struct quiet *quiet)
{
	sigset_t pipe, pending;

	(void)sigemptyset(&pipe);
	(void)sigaddset(&pipe, SIGPIPE);
	(void)sigpending(&pending);
	quiet->was_pending = sigismember(&pending, SIGPIPE) == 1;
	(void)pthread_sigmask(SIG_BLOCK, &pipe, &quiet->before);
}

static void quiet_end(const struct quiet *quiet)
{
	const struct timespec now = { 0, 0 };
	sigset_t pipe;

	(void)sigemptyset(&pipe);
	(void)sigaddset(&pipe, SIGPIPE);
	if (!quiet->was_pending)
		while (sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR)
			;
	(void)pthread_sigmask(SIG_SETMASK, &quiet->before, NULL);
}

/* Start both; what only they need is closed. */
static int start(const char *const from[], const char *const to[], struct ends *ends, pid_t pids[2],
		 struct coppice_error *err)
{
	int r = run_spawn(from, -1, ends->from_out[1], ends->from_err[1], &pids[0], err);

	close_end(&ends->from_out[1]);
	close_end(&ends->from_err[1]);
	if (r == COPPICE_OK)
		r = run_spawn(to, ends->to_in[0], ends->to_err[1], ends->to_err[1], &pids[1], err);
	close_end(&ends->to_in[0]);
	close_end(&ends->to_err[1]);
	return r;
}

static int finish(const pid_t pids[2], struct text texts[2], struct run_result results[2],
		  struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < 2; i++) {
		results[i] = (struct run_result){ .out = strdup(""), .err = text_take(&texts[i]) };
		if (pids[i] > 0 && run_wait(pids[i], &results[i].exit_status, err) < 0)
			r = err->code;
		if (!results[i].out || !results[i].err)
			r = fail_memory(err);
	}
	return r;
}

int run_pipe(const char *const from[], const char *const to[], const struct run_hook *hook,
	     struct run_result results[2], struct coppice_error *err)
{
	struct text texts[2] = { TEXT_INIT, TEXT_INIT };
	_cleanup_(freep) char *buffer = malloc(BUFFER_SIZE);
	_cleanup_(ends_done) struct ends ends;
	pid_t pids[2] = { -1, -1 };
	struct coppice_error ignored;
	bool is_stopped = false;
	struct quiet quiet;
	int r;

	memset(results, 0, 2 * sizeof(*results));
	r = ends_open(&ends, err);
	if (r == COPPICE_OK && !buffer)
		r = fail_memory(err);
	if (r < 0)
		return r;
	r = start(from, to, &ends, pids, err);
	quiet_begin(&quiet);
	if (r == COPPICE_OK) {
		struct flow flow = { .in = take_fd(&ends.from_out[0]),
				     .out = take_fd(&ends.to_in[1]),
				     .buffer = buffer };

		is_stopped =
			pump(&flow, (const int[]){ ends.from_err[0], ends.to_err[0] }, texts, hook);
	}
	quiet_end(&quiet);
	ends_done(&ends); /* who was started alone ends for want of a reader */
	if (finish(pids, texts, results, r < 0 ? &ignored : err) < 0 && r == COPPICE_OK)
		r = err->code;
	if (r == COPPICE_OK && is_stopped)
		r = fail(err, COPPICE_INTERRUPTED, "interrupted");
	for (size_t i = 0; i < 2 && r < 0; i++)
		run_result_done(&results[i]);
	return r;
}
