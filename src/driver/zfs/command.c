/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running zfs(8) and zpool(8), and what they mean when they fail. All have one exit
 * status for every failure, so it is their English that tells them apart; what is not
 * recognised is COPPICE_FAILED, never "does not exist".
 */
#include "driver/zfs/zfs.h"

#include <limits.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/run.h"
#include "base/text.h"
#include "driver/generic/explain.h"

/* How often, and how long after the first time: 10 + 20 + … ms, some 18 s in all, as
 * zfs-fuse takes on a disk that others are busy with. */
#define BUSY_TRIES    60
#define BUSY_PAUSE_MS 10

bool zfs_is_in_kernel(void)
{
	return access("/sys/module/zfs", F_OK) == 0;
}

struct meaning {
	const char *text;
	enum coppice_code code;
};

/* First match wins. Samples are in tests/unit/test_zfs.c and in tests/unit/zfs. */
static const struct meaning meanings[] = {
	/* the daemon of zfs-fuse is not there; the kernel's module is not loaded */
	{ "Connection refused", COPPICE_UNAVAILABLE },
	{ "daemon is running", COPPICE_UNAVAILABLE },
	{ "failed to initialize ZFS library", COPPICE_UNAVAILABLE },
	{ "ZFS modules", COPPICE_UNAVAILABLE },
	{ "internal error", COPPICE_UNAVAILABLE },
	{ "I/O error", COPPICE_UNAVAILABLE },
	{ "suspended", COPPICE_UNAVAILABLE },
	{ "other system", COPPICE_UNAVAILABLE }, /* "from other system", "from another system" */
	{ "one or more devices is currently unavailable", COPPICE_UNAVAILABLE },
	{ "parent does not exist", COPPICE_FAILED },
	{ "dataset does not exist", COPPICE_NOT_FOUND },
	{ "no such pool", COPPICE_NOT_FOUND },
	{ "no such tag", COPPICE_NOT_FOUND },
	{ "could not find any snapshots", COPPICE_NOT_FOUND },
	{ "already exists", COPPICE_EXISTS },
	{ "is part of", COPPICE_EXISTS },
	{ "is busy", COPPICE_BUSY },
	{ "resource busy", COPPICE_BUSY },
	{ "has dependent clones", COPPICE_BUSY },
	{ "has children", COPPICE_BUSY },
	{ "out of space", COPPICE_NO_SPACE },
	{ "No space left", COPPICE_NO_SPACE },
	{ "greater than available space", COPPICE_NO_SPACE },
	{ "quota exceeded", COPPICE_NO_SPACE },
	{ "greater than available space", COPPICE_NO_SPACE },
	{ "less than current used", COPPICE_INVALID },
	{ "less than the minimum size", COPPICE_INVALID },
	{ "invalid", COPPICE_INVALID },
};

/* What it said, on one line, without what is not about the failure, and its dangerous advice. */
static void condense(const char *text, char *ret, size_t size)
{
	size_t length = 0;

	ret[0] = '\0';
	while (*text) {
		size_t n = strcspn(text, "\n");
		bool is_noise = strncmp(text, "Defaulting to", 13) == 0 ||
				strncmp(text, "Please make sure", 16) == 0 ||
				strncmp(text, "use '-", 6) == 0 ||
				strncmp(text, "use the form", 12) == 0 || n == 0;

		if (!is_noise && length < size) {
			(void)snprintf(ret + length, size - length, "%s%.*s", length ? "; " : "",
				       (int)(n < 300 ? n : 300), text);
			length += strlen(ret + length);
		}
		text += n + (text[n] == '\n');
	}
}

/* Is @name what the command was about, or what that is in or of? */
static bool is_named(const char *const argv[], const char *name, size_t n)
{
	for (size_t i = 1; argv[i]; i++)
		if (strncmp(argv[i], name, n) == 0 && strchr("@/", argv[i][n]))
			return true; /* strchr finds the end as well */
	return false;
}

/*
 * A dataset does not exist: one of those that the command names? Before it refuses,
 * zfs destroy looks at all clones, of which another thread or process may just have
 * destroyed one: "cannot open 'tank/containers/c5': dataset does not exist".
 */
static bool is_about_another(const char *const argv[], const char *text, const char *match)
{
	const char *end = match, *begin;

	while (end > text && *end != '\'' && *end != '\n')
		end--;
	if (*end != '\'')
		return false;
	begin = memrchr(text, '\'', (size_t)(end - text));
	return begin && !is_named(argv, begin + 1, (size_t)(end - begin - 1));
}

/* Of several that it names, could one not be had for another reason? Then that is what failed. */
static bool has_other_failure(const char *text)
{
	static const char cannot[] = "cannot ";

	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		bool is_missing = strncmp(line, cannot, strlen(cannot)) != 0;

		for (size_t i = 0; i < ARRAY_SIZE(meanings) && !is_missing; i++) {
			const char *match = strstr(line, meanings[i].text);

			is_missing = match && match < line + strcspn(line, "\n") &&
				     meanings[i].code == COPPICE_NOT_FOUND;
		}
		if (!is_missing)
			return true;
	}
	return false;
}

int zfs_command_error(const char *const argv[], int exit_status, const char *text,
		      struct coppice_error *err)
{
	enum coppice_code code = COPPICE_FAILED;
	char said[400];

	condense(text, said, sizeof(said));
	/* Whoever presses Ctrl-C stops all of us: also what has no group of its own yet. */
	if (exit_status == 128 + SIGINT || exit_status == 128 + SIGTERM)
		return fail(err, COPPICE_INTERRUPTED, "%s %s was interrupted", argv[0], argv[1]);
	/* zfs of zfs-fuse aborts when its daemon dies meanwhile. */
	if (exit_status >= 128)
		return fail(err, COPPICE_UNAVAILABLE, "%s %s was ended by signal %d: %s", argv[0],
			    argv[1], exit_status - 128, said);
	for (size_t i = 0; i < ARRAY_SIZE(meanings) && code == COPPICE_FAILED; i++) {
		const char *match = strstr(text, meanings[i].text);

		if (!match)
			continue;
		if (meanings[i].code == COPPICE_FAILED ||
		    (meanings[i].code == COPPICE_NOT_FOUND &&
		     (is_about_another(argv, text, match) || has_other_failure(text))))
			break;
		code = meanings[i].code;
	}
	return fail(err, code, "%s %s: %s", argv[0], argv[1],
		    said[0] ? said : "failed, and did not say why");
}

static void pause_ms(long ms)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000 };

	(void)nanosleep(&time, NULL);
}

static bool is_busy_for_now(const struct run_result *result)
{
	return result->exit_status != 0 &&
	       (strstr(result->err, "dataset is busy") || strstr(result->err, "pool is busy"));
}

int zfs_run(const char *const argv[], char **ret_out, struct coppice_error *err)
{
	_cleanup_(run_result_done) struct run_result result = { 0 };
	int r;

	if (!ret_out && zfs_library_run(argv))
		return COPPICE_OK;
	for (long i = 1;; i++) {
		r = runner.run(argv, &result, err);
		if (r < 0)
			return r;
		if (!is_busy_for_now(&result) || i > BUSY_TRIES)
			break;
		run_result_done(&result);
		pause_ms(i * BUSY_PAUSE_MS);
	}
	if (result.exit_status != 0)
		r = zfs_command_error(argv, result.exit_status, result.err, err);
	if (ret_out)
		*ret_out = take_ptr(&result.out);
	return r;
}

static bool is_stopped(void *user)
{
	const struct pool *pool = user;

	return pool_is_interrupted(pool);
}

/* Who reads complains of a stream that ends too soon; why it does, the other one knows. */
int zfs_pipe(struct pool *pool, const char *const from[], const char *const to[],
	     struct coppice_error *err)
{
	struct run_hook hook = { .is_stopped = is_stopped, .user = pool };
	struct run_result results[2];
	int r = runner.pipe(from, to, &hook, results, err);

	if (r < 0)
		return r;
	if (results[0].exit_status != 0 && results[0].exit_status != 128 + SIGPIPE &&
	    !strstr(results[0].err, "Broken pipe"))
		r = zfs_command_error(from, results[0].exit_status, results[0].err, err);
	else if (results[1].exit_status != 0)
		r = zfs_command_error(to, results[1].exit_status, results[1].err, err);
	run_result_done(&results[0]);
	run_result_done(&results[1]);
	return r;
}

void zfs_explain(struct pool *pool, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	explain_vline(pool->explain, pool->explain_user, fmt, args);
	va_end(args);
}
