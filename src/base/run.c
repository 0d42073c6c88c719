/* SPDX-License-Identifier: Apache-2.0 */
#include "base/run_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "base/text.h"

#define OUTPUT_MAX (64 << 20) /* the properties of ten thousand volumes are some 10 MiB */

static const char *const fixed_path[] = {
	"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin",
};

static char *find_program(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(fixed_path); i++) {
		char *path = text_format("%s/%s", fixed_path[i], name);

		if (!path || access(path, X_OK) == 0)
			return path;
		free(path);
	}
	return NULL;
}

void run_result_done(struct run_result *result)
{
	free(result->out);
	free(result->err);
	*result = (struct run_result){ 0 };
}

/* Read both pipes to their ends. What is more than OUTPUT_MAX is read and forgotten. */
static void collect(const int fds[2], struct text into[2])
{
	struct pollfd poll_fd[2] = {
		{ .fd = fds[0], .events = POLLIN },
		{ .fd = fds[1], .events = POLLIN },
	};
	char buffer[4096];

	while (poll_fd[0].fd >= 0 || poll_fd[1].fd >= 0) {
		if (poll(poll_fd, 2, -1) < 0 && errno != EINTR)
			return;
		for (size_t i = 0; i < 2; i++) {
			ssize_t n;

			if (poll_fd[i].fd < 0 || !poll_fd[i].revents)
				continue;
			n = read(poll_fd[i].fd, buffer, sizeof(buffer));
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				poll_fd[i].fd = -1;
			else if (into[i].length < OUTPUT_MAX)
				text_add_bytes(&into[i], buffer, (size_t)n);
		}
	}
}

/* In a group of its own, and with no signal blocked that the caller has blocked. */
static int spawn(const char *path, const char *const argv[], const char *variable, int in, int out,
		 int error, pid_t *ret)
{
	/* posix_spawn promises not to change these, nor argv, and declares it otherwise. */
	const char *const environment[] = { "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
					    variable, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, defaults;
	int r;

	(void)sigemptyset(&none);
	(void)sigemptyset(&defaults);
	(void)sigaddset(&defaults, SIGPIPE);
	(void)sigaddset(&defaults, SIGXFSZ);
	(void)posix_spawn_file_actions_init(&actions);
	if (in >= 0)
		(void)posix_spawn_file_actions_adddup2(&actions, in, 0);
	else
		(void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	(void)posix_spawn_file_actions_adddup2(&actions, out, 1);
	(void)posix_spawn_file_actions_adddup2(&actions, error, 2);
	(void)posix_spawnattr_init(&attributes);
	(void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
							    POSIX_SPAWN_SETPGROUP);
	(void)posix_spawnattr_setsigmask(&attributes, &none);
	(void)posix_spawnattr_setsigdefault(&attributes, &defaults);
	r = posix_spawn(ret, path, &actions, &attributes, (char *const *)(uintptr_t)argv,
			(char *const *)(uintptr_t)environment);
	(void)posix_spawnattr_destroy(&attributes);
	(void)posix_spawn_file_actions_destroy(&actions);
	return r;
}

int run_spawn_with(const char *const argv[], const char *variable, int in, int out, int error,
		   pid_t *ret, struct coppice_error *err)
{
	_cleanup_(freep) char *path = find_program(argv[0]);
	int r;

	if (!path)
		return fail(err, COPPICE_UNSUPPORTED, "'%s' is not installed", argv[0]);
	r = spawn(path, argv, variable, in, out, error, ret);
	return r != 0 ? fail_errno(err, r, "cannot run '%s'", path) : COPPICE_OK;
}

int run_spawn(const char *const argv[], int in, int out, int error, pid_t *ret,
	      struct coppice_error *err)
{
	return run_spawn_with(argv, NULL, in, out, error, ret, err);
}

int run_wait(pid_t pid, int *ret_exit_status, struct coppice_error *err)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return fail_errno(err, errno, "cannot wait for process %d", (int)pid);
	*ret_exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return COPPICE_OK;
}

static int run_program(const char *const argv[], struct run_result *result,
		       struct coppice_error *err)
{
	struct text text[2] = { TEXT_INIT, TEXT_INIT };
	int out[2], error[2];
	int r, status = 0;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0)
		return fail_errno(err, errno, "cannot make a pipe");
	if (pipe2(error, O_CLOEXEC) < 0) {
		(void)close(out[0]);
		(void)close(out[1]);
		return fail_errno(err, errno, "cannot make a pipe");
	}
	r = run_spawn(argv, -1, out[1], error[1], &pid, err);
	(void)close(out[1]);
	(void)close(error[1]);
	if (r == COPPICE_OK)
		collect((const int[]){ out[0], error[0] }, text);
	(void)close(out[0]);
	(void)close(error[0]);
	if (r == COPPICE_OK)
		r = run_wait(pid, &status, err);
	if (r < 0)
		return r;

	result->exit_status = status;
	result->out = text_take(&text[0]);
	result->err = text_take(&text[1]);
	if (!result->out || !result->err) {
		run_result_done(result);
		return fail_memory(err);
	}
	return COPPICE_OK;
}

struct runner runner = { .run = run_program, .pipe = run_pipe, .talk = run_talk };

int run_checked(const char *const argv[], struct coppice_error *err)
{
	_cleanup_(run_result_done) struct run_result result = { 0 };
	char *line, *end;
	int r;

	r = runner.run(argv, &result, err);
	if (r < 0)
		return r;
	if (result.exit_status == 0)
		return COPPICE_OK;

	line = result.err;
	for (end = line + strlen(line); end > line && end[-1] == '\n'; end--)
		end[-1] = '\0';
	end = strrchr(line, '\n');
	return fail(err, COPPICE_FAILED, "%s failed with status %d: %s", argv[0],
		    result.exit_status, end ? end + 1 : line);
}
