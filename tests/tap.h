/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The whole test framework: a table of functions, TAP on stdout.
 *
 *	static void test_sum(void)
 *	{
 *		ok_int(1 + 1, ==, 2);
 *	}
 *	int main(void) { return tap_run((struct tap_test[]){ TAP(test_sum), { NULL, NULL } }); }
 *
 * Each test runs in a child of its own: a crash, a sanitizer report or a failed
 * check ends that test only, and globals start fresh. A check may stand in a
 * helper function. skip() says why a test cannot run here.
 *
 * Each test has a directory, tap_dir(), which is also its TMPDIR and is removed
 * after it, however it ended. What else must go (pools, mounts) is taken back by
 * the `after` of tap_run_with(), in a child too, also after a crash.
 *
 * TAP_ONLY=text in the environment runs only the tests whose names hold it.
 */

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A test that hangs is killed; a file of long tests defines its own before including this. */
#ifndef TAP_TIMEOUT_S
#define TAP_TIMEOUT_S 300
#endif

struct tap_test {
	const char *name;
	void (*fn)(void);
};

/* clang-format off */
#define TAP(fn) { #fn, fn }
#define TAP_END { NULL, NULL }
/* clang-format on */

enum {
	TAP_SKIP = 77
};

#define TAP_WHY_MAX 256

/*
 * Of the running test: its directory, and where it tells the parent why it is
 * skipped. Weak: one of each, however many files of a program include this.
 */
__attribute__((weak)) char tap_dir_path[4096];
__attribute__((weak)) int tap_why_fd = -1;

/* The directory of this test; the same path in its `after`. */
__attribute__((unused)) static const char *tap_dir(void)
{
	return tap_dir_path;
}

#define tap_fail(fmt, ...)                                                                         \
	do {                                                                                       \
		printf("# %s:%d: " fmt "\n", __FILE__, __LINE__, ##__VA_ARGS__);                   \
		fflush(stdout);                                                                    \
		_exit(1);                                                                          \
	} while (0)

/* End this test as skipped; says why, as printf. */
__attribute__((unused, noreturn, format(printf, 1, 2))) static void skip(const char *fmt, ...)
{
	char why[TAP_WHY_MAX];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	for (char *c = why; *c; c++)
		*c = *c == '\n' || *c == '#' ? ' ' : *c;
	fflush(stdout);
	_exit(write(tap_why_fd, why, strlen(why)) < 0 ? 1 : TAP_SKIP);
}

#define ok(expr)                                                                                   \
	do {                                                                                       \
		if (!(expr))                                                                       \
			tap_fail("not: %s", #expr);                                                \
	} while (0)

#define ok_int(a, op, b)                                                                           \
	do {                                                                                       \
		long long _a = (a), _b = (b);                                                      \
		if (!(_a op _b))                                                                   \
			tap_fail("not: %s %s %s (%lld, %lld)", #a, #op, #b, _a, _b);               \
	} while (0)

#define ok_str(a, b)                                                                               \
	do {                                                                                       \
		const char *_a = (a), *_b = (b);                                                   \
		if (!_a || !_b || strcmp(_a, _b) != 0)                                             \
			tap_fail("%s is '%s', not '%s'", #a, _a ? _a : "(null)",                   \
				 _b ? _b : "(null)");                                              \
	} while (0)

/* @hay holds @needle. */
#define ok_has(hay, needle)                                                                        \
	do {                                                                                       \
		const char *_h = (hay), *_n = (needle);                                            \
		if (!_h || !strstr(_h, _n))                                                        \
			tap_fail("%s is '%s', without '%s'", #hay, _h ? _h : "(null)", _n);        \
	} while (0)

/* A call with a struct coppice_error succeeds: ok_call(driver->commit(pool, &err), &err); */
#define ok_call(call, error)                                                                       \
	do {                                                                                       \
		int _r = (call);                                                                   \
		if (_r != 0)                                                                       \
			tap_fail("%s: %d: %s", #call, _r, (error)->message);                       \
	} while (0)

/* It fails with this code, says so in the error too, and has a message of one line. */
#define ok_code(call, want, error)                                                                 \
	do {                                                                                       \
		int _r = (call), _w = (want);                                                      \
		if (_r != _w)                                                                      \
			tap_fail("%s is %d, not %s: %s", #call, _r, #want,                         \
				 _r ? (error)->message : "it succeeded");                          \
		if ((int)(error)->code != _w)                                                      \
			tap_fail("%s: the error says %d, not %s", #call, (int)(error)->code,       \
				 #want);                                                           \
		if (!(error)->message[0] || strchr((error)->message, '\n'))                        \
			tap_fail("%s: message '%s'", #call, (error)->message);                     \
	} while (0)

/* Wait for a process that the test forked; it must have ended well. */
#define ok_child(pid)                                                                              \
	do {                                                                                       \
		int _status = -1;                                                                  \
		while (waitpid((pid), &_status, 0) < 0 && errno == EINTR)                          \
			;                                                                          \
		if (_status != 0)                                                                  \
			tap_fail("child process: status %#x", (unsigned)_status);                  \
	} while (0)

static int tap_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	/* Directories first come here after their content; ENOENT and the like are seen later. */
	(void)(flag == FTW_DP ? rmdir(path) : unlink(path));
	return 0;
}

/* Make the test's directory; it is under what TMPDIR was when we were called. */
static bool tap_dir_make(const char *base)
{
	(void)snprintf(tap_dir_path, sizeof(tap_dir_path), "%s/coppice-test.XXXXXX", base);
	return mkdtemp(tap_dir_path) && setenv("TMPDIR", tap_dir_path, 1) == 0;
}

/* Remove it; not across mounts, nor anything that is mounted. */
static bool tap_dir_remove(void)
{
	(void)nftw(tap_dir_path, tap_remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	return access(tap_dir_path, F_OK) != 0;
}

/* TAP_SLOWER=10: it runs where all is so much slower, as in an emulated machine. */
static unsigned tap_timeout_s(void)
{
	const char *slower = getenv("TAP_SLOWER");

	return TAP_TIMEOUT_S * (slower ? (unsigned)atoi(slower) : 1);
}

/* Call @fn in a child, wait for it. Returns its wait status; fills @why. */
static int tap_child(void (*fn)(void), char why[static TAP_WHY_MAX])
{
	int pipe_fd[2], status = -1;
	ssize_t n = 0;
	pid_t pid;

	why[0] = '\0';
	fflush(stdout);
	if (pipe(pipe_fd) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(pipe_fd[0]);
		tap_why_fd = pipe_fd[1];
		(void)alarm(tap_timeout_s());
		fn();
		exit(0); /* not _exit(): let the leak check run */
	}
	(void)close(pipe_fd[1]);
	if (pid > 0) {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		/* Only now, and only if it says that there is one: others may hold the pipe. */
		if (WIFEXITED(status) && WEXITSTATUS(status) == TAP_SKIP)
			n = read(pipe_fd[0], why, TAP_WHY_MAX - 1);
	}
	(void)close(pipe_fd[0]);
	why[n > 0 ? n : 0] = '\0';
	return status;
}

/* Run one test and its `after`; prints its line. Returns whether it did not fail. */
static bool tap_one(int number, const struct tap_test *test, void (*after)(void), const char *base)
{
	char why[TAP_WHY_MAX] = "no directory", after_why[TAP_WHY_MAX];
	int status = -1, after_status = 0;
	bool is_skipped, is_clean = false;

	if (tap_dir_make(base)) {
		status = tap_child(test->fn, why);
		if (after)
			after_status = tap_child(after, after_why);
		is_clean = tap_dir_remove();
	}
	is_skipped = WIFEXITED(status) && WEXITSTATUS(status) == TAP_SKIP;
	if (WIFSIGNALED(status))
		printf("# %s: ended by signal %d (%s)\n", test->name, WTERMSIG(status),
		       strsignal(WTERMSIG(status)));
	if (after_status != 0)
		printf("# %s: cleaning up failed\n", test->name);
	if (!is_clean)
		printf("# %s: cannot make or remove %s\n", test->name, tap_dir_path);
	if (!is_clean || after_status != 0 || (status != 0 && !is_skipped)) {
		printf("not ok %d - %s\n", number, test->name);
		return false;
	}
	printf("ok %d - %s%s%s\n", number, test->name, is_skipped ? " # SKIP " : "",
	       is_skipped ? why : "");
	return true;
}

/* Does TAP_ONLY want it? */
static bool tap_is_wanted(const struct tap_test *test)
{
	const char *only = getenv("TAP_ONLY");

	return !only || strstr(test->name, only);
}

/* Run all @tests, ended by TAP_END; @after, or NULL, after each. Returns main()'s status. */
__attribute__((unused)) static int tap_run_with(const struct tap_test *tests, void (*after)(void))
{
	const char *tmp = getenv("TMPDIR");
	int n = 0, number = 0, failed = 0;
	char base[3072];

	(void)snprintf(base, sizeof(base), "%s", tmp && tmp[0] == '/' ? tmp : "/tmp");
	for (int i = 0; tests[i].fn; i++)
		n += tap_is_wanted(&tests[i]);
	printf("1..%d\n", n);
	for (int i = 0; tests[i].fn; i++) {
		if (tap_is_wanted(&tests[i]) && !tap_one(++number, &tests[i], after, base))
			failed++;
		fflush(stdout);
	}
	return failed > 0;
}

/* The same without anything to take back. */
__attribute__((unused)) static int tap_run(const struct tap_test *tests)
{
	return tap_run_with(tests, NULL);
}

/* For main(), when none of its tests can run here: return tap_skip_all("not root"); */
__attribute__((unused)) static int tap_skip_all(const char *why)
{
	printf("1..0 # SKIP %s\n", why);
	return 0;
}
