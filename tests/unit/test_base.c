/* SPDX-License-Identifier: Apache-2.0 */

/* The words of src/base: errors, undo, identifiers, text, threads, files, programs. */

#include <fcntl.h>
#include <stdatomic.h>

#include "base/error.h"
#include "base/file.h"
#include "base/parallel.h"
#include "base/run.h"
#include "base/text.h"
#include "base/undo.h"
#include "base/uuid.h"
#include "tap.h"

/* ---- error ---- */

static void test_fail_returns_the_code_that_it_stores(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_code(fail(&err, COPPICE_EXISTS, "'%s' exists", "c1"), COPPICE_EXISTS, &err);
	ok_str(err.message, "'c1' exists");
	ok_int(err.os_errno, ==, 0);
}

static void test_fail_errno_derives_the_code(void)
{
	static const struct {
		int os_errno;
		enum coppice_code code;
	} rows[] = {
		{ ENOENT, COPPICE_NOT_FOUND }, { EEXIST, COPPICE_EXISTS },
		{ EBUSY, COPPICE_BUSY },       { ENOSPC, COPPICE_NO_SPACE },
		{ EDQUOT, COPPICE_NO_SPACE },  { EOPNOTSUPP, COPPICE_UNSUPPORTED },
		{ EIO, COPPICE_FAILED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct coppice_error err = COPPICE_ERROR_INIT;

		ok_code(fail_errno(&err, rows[i].os_errno, "cannot"), (int)rows[i].code, &err);
		ok_int(err.os_errno, ==, rows[i].os_errno);
		ok_has(err.message, "cannot: ");
		ok_has(err.message, strerror(rows[i].os_errno));
	}
}

static void test_wrap_puts_context_in_front(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	(void)fail_errno(&err, ENOSPC, "cannot write");
	ok_code(wrap(&err, "cannot make '%s'", "c1"), COPPICE_NO_SPACE, &err);
	ok_int(err.os_errno, ==, ENOSPC);
	ok_int(strncmp(err.message, "cannot make 'c1': cannot write: ", 32), ==, 0);
}

static void test_long_messages_are_cut(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char name[2 * COPPICE_ERROR_MESSAGE_MAX];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	(void)fail_errno(&err, EIO, "%s", name);
	(void)wrap(&err, "%s", name);
	ok_int(strlen(err.message), <, COPPICE_ERROR_MESSAGE_MAX);
}

/* Names come from outside: what they hold must not reach a terminal, nor end the line. */
static void test_messages_are_one_printable_line(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	(void)fail(&err, COPPICE_INVALID, "no image '%s'", "a\nb\x1b[2J\x7f");
	(void)wrap(&err, "cannot '%s'", "x\ry");
	for (const char *c = err.message; *c; c++)
		ok_int((unsigned char)*c, >=, ' ');
	ok(!strchr(err.message, 0x7f));
}

/* Some terminals obey the controls above ASCII too: U+009B begins what ESC [ does. */
static void test_messages_have_no_controls_of_unicode(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	(void)fail(&err, COPPICE_INVALID, "%s",
		   "a\xc2\x9b"
		   "31mb\xc2\xa0ä");
	ok_str(err.message, "a??31mb\xc2\xa0ä");
	(void)fail(&err, COPPICE_INVALID, "%s", "\u202etxt.exe\u2069 \u2264\u00e4\u2028\u061c");
	ok_str(err.message, "???txt.exe??? \u2264\u00e4?????");
	(void)fail(&err, COPPICE_INVALID, "%s", "cut\xc2");
	ok_str(err.message, "cut\xc2");
}

static void test_each_code_has_a_status(void)
{
	bool seen[131] = { false };

	for (int code = COPPICE_INTERRUPTED; code <= COPPICE_OK; code++) {
		int status = coppice_exit_status((enum coppice_code)code);

		ok(status == 130 || (status >= 0 && status <= 8));
		ok(!seen[status]);
		seen[status] = true;
		ok_int(coppice_http_status((enum coppice_code)code), >=, 200);
	}
	ok_int(coppice_exit_status(COPPICE_OK), ==, 0);
	ok_int(coppice_exit_status(COPPICE_BUSY), ==, 5);
}

/* ---- undo ---- */

static struct text undone;
static size_t n_reported;

static int undo_note(void *owner, const char *name, struct coppice_error *err)
{
	text_add(&undone, "%s ", name ? name : "(null)");
	return strcmp(name, "bad") == 0 ? fail(err, COPPICE_FAILED, "no") : COPPICE_OK;
}

static void report(const char *name, const struct coppice_error *err)
{
	ok_str(name, "bad");
	ok_str(err->message, "no");
	n_reported++;
}

static void undo_some(bool is_committed)
{
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
	char name[] = "first";

	undo_push(&undo, undo_note, NULL, name);
	memset(name, 'x', sizeof(name) - 1); /* it has a copy */
	undo_push(&undo, undo_note, NULL, "bad");
	undo_push(&undo, undo_note, NULL, "last");
	if (is_committed)
		undo_commit(&undo);
}

static void test_undo_goes_backwards_past_failures(void)
{
	undo_report = report;
	undo_some(false);
	ok_str(undone.data, "last bad first ");
	ok_int(n_reported, ==, 1);
	text_done(&undone);
}

static void test_undo_after_commit_does_nothing(void)
{
	undo_some(true);
	ok(!undone.data);
}

/* ---- uuid ---- */

static void test_uuid(void)
{
	struct uuid a, b, parsed = { "untouched" };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(uuid_new(&a, &err), &err);
	ok_call(uuid_new(&b, &err), &err);
	ok(strcmp(a.text, b.text) != 0);
	ok_int(a.text[14], ==, '8');
	ok(!uuid_parse("", &parsed));
	ok(!uuid_parse("12345678-1234-4234-8234-12345678901", &parsed));
	ok(!uuid_parse("12345678-1234-4234-8234-1234567890123", &parsed));
	ok(!uuid_parse("12345678-1234-4234-8234-12345678901A", &parsed));
	ok(!uuid_parse("12345678-1234-4234-8234-12345678901/", &parsed));
	ok(!uuid_parse("123456781-234-4234-8234-123456789012", &parsed));
	ok_str(parsed.text, "untouched");
	ok(uuid_parse(a.text, &parsed));
	ok_str(parsed.text, a.text);
	ok(uuid_parse("0123abcd-ef01-4234-8234-123456789012", &parsed));
	ok(uuid_first_48_bits(&parsed) == 0x0123abcdef01ULL);
}

/* ---- text ---- */

/* What is quoted is what it was, to the shell that the lines are for. */
static void test_shell_quote_is_undone_by_bash(void)
{
	static const char *const texts[] = { "a\nb\t\x1b[31m", "it's \\ \x7f '\x01'1",
					     "\xc2\x9b"
					     "9ä\xff" };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_(freep) char *quoted = text_shell_quote(texts[i]);
		_cleanup_(freep) char *script = text_format("printf %%s %s", quoted);
		const char *const argv[] = { "bash", "-c", script, NULL };
		struct coppice_error err = COPPICE_ERROR_INIT;
		struct run_result result = { 0 };

		ok_call(runner.run(argv, &result, &err), &err);
		ok_str(result.out, texts[i]);
		run_result_done(&result);
	}
}

static void test_what_is_utf8(void)
{
	static const char *const good[] = { "",
					    "plain",
					    "\xc3\xa4",
					    "\xe2\x89\xa4",
					    "\xf0\x9f\x8c\xb3",
					    "\xed\x9f\xbf",
					    "\xf4\x8f\xbf\xbf" };
	/* cut, stray, overlong, a surrogate, above U+10FFFF */
	static const char *const bad[] = { "\xff",
					   "a\xc3",
					   "\xe2\x89",
					   "\x80",
					   "\xc0\xaf",
					   "\xe0\x80\xaf",
					   "\xf0\x80\x80\xaf",
					   "\xed\xa0\x80",
					   "\xf4\x90\x80\x80",
					   "\xf8\x88\x80\x80\x80",
					   "\xc3(" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ok(text_is_utf8(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ok(!text_is_utf8(bad[i]));
}

static void test_text_grows(void)
{
	struct text text = TEXT_INIT;
	char *whole;

	for (int i = 0; i < 1000; i++)
		text_add(&text, "%d,", i);
	text_add_bytes(&text, "end", 3);
	whole = text_take(&text);
	ok(whole);
	ok_int(strncmp(whole, "0,1,2,", 6), ==, 0);
	ok_str(whole + strlen(whole) - 7, "999,end");
	ok(!text.data);
	free(whole);
	whole = text_take(&text);
	ok_str(whole, "");
	free(whole);
}

static void test_shell_quote(void)
{
	static const char *const rows[][2] = {
		{ "plain-1.2/x", "plain-1.2/x" },
		{ "", "''" },
		{ "two words", "'two words'" },
		{ "it's", "'it'\\''s'" },
		{ "$HOME;`x`", "'$HOME;`x`'" },
		{ "a\nb", "$'a\\012b'" }, /* explained on one line, which no terminal obeys */
		{ "\x1b[31m\x7f'\\\xc2\x9b"
		  "1ä",
		  "$'\\033[31m\\177\\'\\\\\\302\\2331ä'" },
		{ "~", "'~'" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_cleanup_(freep) char *quoted = text_shell_quote(rows[i][0]);

		ok_str(quoted, rows[i][1]);
	}
}

static void test_size_parse(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "4096", 4096 },
		{ "10B", 10 },
		{ "10kB", 10000 },
		{ "1MB", 1000000 },
		{ "512MiB", 512ULL << 20 },
		{ "10GiB", 10ULL << 30 },
		{ "1TB", 1000000000000ULL },
		{ "2TiB", 2ULL << 40 },
		{ "9223372036854775807", INT64_MAX },
	};
	static const char *const bad[] = {
		"",
		" 1",
		"1 ",
		"-1",
		"+1",
		"1.5GiB",
		"GiB",
		"1gib",
		"1G",
		"0x10",
		"1GiBs",
		"9223372036854775808",
		"18446744073709551616",
		"99999999999PiB",
		"10 GiB",
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		uint64_t bytes = 77;

		if (!size_parse(good[i].text, &bytes) || bytes != good[i].bytes)
			tap_fail("'%s' is %llu", good[i].text, (unsigned long long)bytes);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t bytes = 77;

		if (size_parse(bad[i], &bytes) || bytes != 77)
			tap_fail("'%s' was taken for a size", bad[i]);
	}
}

static void test_size_format(void)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} rows[] = {
		{ 0, "0B" },
		{ 1023, "1023B" },
		{ 1024, "1.00KiB" },
		{ 1536, "1.50KiB" },
		{ 1ULL << 20, "1.00MiB" },
		{ 455186842, "434.10MiB" },
		{ 10ULL << 30, "10.00GiB" },
		{ UINT64_MAX, "16.00EiB" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char text[SIZE_TEXT_MAX];

		size_format(rows[i].bytes, text);
		ok_str(text, rows[i].text);
	}
}

static int sign(int n)
{
	return (n > 0) - (n < 0);
}

static void test_natural_compare(void)
{
	static const char *const sorted[] = {
		"",
		"a",
		"a1",
		"a2",
		"a10",
		"a10b",
		"b",
		"c01",
		"c1",
		"c2",
		"c10",
		"c10-1",
		"c10-2",
		"c10-10",
		"c99999999999999999999998",
		"c99999999999999999999999",
	};

	for (size_t i = 0; i < ARRAY_SIZE(sorted); i++)
		for (size_t j = 0; j < ARRAY_SIZE(sorted); j++)
			if (sign(natural_compare(sorted[i], sorted[j])) != sign((int)i - (int)j))
				tap_fail("'%s' against '%s' is %d", sorted[i], sorted[j],
					 natural_compare(sorted[i], sorted[j]));
}

/* ---- parallel ---- */

struct counts {
	atomic_size_t calls[1000];
	size_t fail_from;
};

static int count_call(void *user, size_t i, struct coppice_error *err)
{
	struct counts *counts = user;

	atomic_fetch_add(&counts->calls[i], 1);
	if (i >= counts->fail_from)
		return fail(err, COPPICE_BUSY, "step %zu", i);
	return COPPICE_OK;
}

static void test_parallel_does_each_once(void)
{
	static const size_t threads[] = { 0, 1, 2, 7, 1000 };

	for (size_t t = 0; t < ARRAY_SIZE(threads); t++) {
		struct counts counts = { .fail_from = SIZE_MAX };
		struct coppice_error err = COPPICE_ERROR_INIT;

		ok_call(parallel_run(1000, threads[t], count_call, &counts, &err), &err);
		for (size_t i = 0; i < 1000; i++)
			ok_int(atomic_load(&counts.calls[i]), ==, 1);
		ok_call(parallel_run(0, threads[t], count_call, &counts, &err), &err);
	}
}

static void test_parallel_tells_the_first_failure(void)
{
	for (int i = 0; i < 20; i++) {
		struct counts counts = { .fail_from = 100 };
		struct coppice_error err = COPPICE_ERROR_INIT;

		ok_code(parallel_run(1000, 8, count_call, &counts, &err), COPPICE_BUSY, &err);
		ok_str(err.message, "step 100");
		ok_int(atomic_load(&counts.calls[999]), ==, 0);
	}
}

/* ---- file ---- */

static void test_file_write_and_read(void)
{
	_cleanup_(freep) char *path = text_format("%s/file", tap_dir()), *read_back = NULL;
	_cleanup_(freep) char *draft = text_format("%s.new", path);
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *untouched = path;

	ok_call(file_write(AT_FDCWD, path, "one", true, &err), &err);
	ok_call(file_write(AT_FDCWD, path, "two", false, &err), &err);
	ok_call(file_read(AT_FDCWD, path, 3, &read_back, &err), &err);
	ok_str(read_back, "two");
	ok_int(access(draft, F_OK), ==, -1);
	ok_code(file_read(AT_FDCWD, path, 2, &untouched, &err), COPPICE_INVALID, &err);
	ok_code(file_read(AT_FDCWD, draft, 2, &untouched, &err), COPPICE_NOT_FOUND, &err);
	ok(untouched == path);
}

static void test_file_below_a_directory(void)
{
	_cleanup_(closep) int dir = open(tap_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *read_back = NULL;

	ok_call(directory_ensure(dir, "sub", 0700, &err), &err);
	ok_call(directory_ensure(dir, "sub", 0700, &err), &err);
	ok_call(file_write(dir, "sub/file", "x", true, &err), &err);
	ok_call(file_read(dir, "sub/file", 10, &read_back, &err), &err);
	ok_str(read_back, "x");
	ok_code(file_write(dir, "none/file", "x", true, &err), COPPICE_NOT_FOUND, &err);
	ok_code(directory_ensure(dir, "none/sub", 0700, &err), COPPICE_NOT_FOUND, &err);
}

static void test_directory_is_empty(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(closep) int dir = open(tap_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(freep) char *missing = text_format("%s/none", tap_dir());
	bool is_empty = false;

	ok_call(directory_is_empty(tap_dir(), &is_empty, &err), &err);
	ok(is_empty);
	ok_call(directory_ensure(dir, "lost+found", 0700, &err), &err);
	ok_call(directory_is_empty(tap_dir(), &is_empty, &err), &err);
	ok(is_empty);
	ok_call(directory_ensure(dir, ".hidden", 0700, &err), &err);
	ok_call(directory_is_empty(tap_dir(), &is_empty, &err), &err);
	ok(!is_empty);
	ok_code(directory_is_empty(missing, &is_empty, &err), COPPICE_NOT_FOUND, &err);
}

static void test_time_format(void)
{
	char text[TIME_TEXT_SIZE];

	time_format(0, text);
	ok_str(text, "1970-01-01T00:00:00Z");
	time_format(1795466220LL * 1000000000 + 999999999, text);
	ok_str(text, "2026-11-23T20:37:00Z");
}

/* ---- run ---- */

static void test_run_gives_output_and_status(void)
{
	const char *const argv[] = { "sh", "-c", "echo out; echo $LC_ALL >&2; cat; exit 3", NULL };
	struct run_result result = { 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(runner.run(argv, &result, &err), &err);
	ok_int(result.exit_status, ==, 3);
	ok_str(result.out, "out\n");
	ok_str(result.err, "C\n");
	run_result_done(&result);
	run_result_done(&result);
}

static void test_run_passes_arguments_as_they_are(void)
{
	const char *const argv[] = { "printf", "%s|", "a b", "$HOME", "*", "", NULL };
	struct run_result result = { 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(runner.run(argv, &result, &err), &err);
	ok_str(result.out, "a b|$HOME|*||");
	run_result_done(&result);
}

static void test_run_of_much_output(void)
{
	const char *const argv[] = { "sh", "-c",
				     "head -c 80000000 /dev/zero | tr '\\0' x; "
				     "head -c 3000000 /dev/zero | tr '\\0' y >&2",
				     NULL };
	struct run_result result = { 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(runner.run(argv, &result, &err), &err);
	ok_int(result.exit_status, ==, 0);
	ok_int(strlen(result.out), >=, 64 << 20);
	ok_int(strlen(result.out), <, 65 << 20);
	ok_int(result.err[100], ==, 'y');
	run_result_done(&result);
}

static void test_run_of_what_is_killed(void)
{
	const char *const argv[] = { "sh", "-c", "kill -9 $$", NULL };
	struct run_result result = { 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(runner.run(argv, &result, &err), &err);
	ok_int(result.exit_status, ==, 128 + SIGKILL);
	run_result_done(&result);
}

static void test_run_of_what_is_not_installed(void)
{
	const char *const argv[] = { "no-such-program", NULL };
	struct run_result result = { 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_code(runner.run(argv, &result, &err), COPPICE_UNSUPPORTED, &err);
	ok_has(err.message, "no-such-program");
}

static void test_run_checked_quotes_the_last_line(void)
{
	const char *const argv[] = { "sh", "-c", "echo first >&2; echo last >&2; exit 2", NULL };
	const char *const good[] = { "true", NULL };
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(run_checked(good, &err), &err);
	ok_code(run_checked(argv, &err), COPPICE_FAILED, &err);
	ok_str(err.message, "sh failed with status 2: last");
}

static int run_nothing(const char *const argv[], struct run_result *result,
		       struct coppice_error *err)
{
	ok_str(argv[0], "mkfs.btrfs");
	*result = (struct run_result){ 1, strdup(""), strdup("no device\n") };
	return COPPICE_OK;
}

static void test_runner_can_be_replaced(void)
{
	const char *const argv[] = { "mkfs.btrfs", "/dev/null", NULL };
	struct coppice_error err = COPPICE_ERROR_INIT;

	runner.run = run_nothing;
	ok_code(run_checked(argv, &err), COPPICE_FAILED, &err);
	ok_str(err.message, "mkfs.btrfs failed with status 1: no device");
}

/* ---- run: two programs ---- */

static bool never(void *user)
{
	return false;
}

static bool at_the_third_time(void *user)
{
	return ++*(unsigned *)user > 2;
}

static int pipe_of(const char *from, const char *to, struct run_result results[2],
		   struct coppice_error *err)
{
	const char *const from_argv[] = { "sh", "-c", from, NULL };
	const char *const to_argv[] = { "sh", "-c", to, NULL };

	return runner.pipe(from_argv, to_argv, &(struct run_hook){ .is_stopped = never }, results,
			   err);
}

static void results_done(struct run_result results[2])
{
	run_result_done(&results[0]);
	run_result_done(&results[1]);
}

static void test_pipe_brings_all_of_it(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct run_result results[2];

	ok_call(pipe_of("head -c 20000000 /dev/zero; echo one >&2; exit 3", "wc -c >&2; exit 4",
			results, &err),
		&err);
	ok_int(results[0].exit_status, ==, 3);
	ok_int(results[1].exit_status, ==, 4);
	ok_str(results[0].err, "one\n");
	ok_str(results[1].err, "20000000\n");
	results_done(results);
}

static void test_pipe_to_what_ends_before_the_other(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct run_result results[2];

	/* Without SIGPIPE for us; and the one that still writes does not hang. */
	ok_call(pipe_of("yes", "head -c 10 >/dev/null; echo no more >&2; exit 1", results, &err),
		&err);
	ok_int(results[0].exit_status, ==, 128 + SIGPIPE);
	ok_int(results[1].exit_status, ==, 1);
	ok_str(results[1].err, "no more\n");
	results_done(results);
}

static void test_pipe_is_stopped_on_demand(void)
{
	const char *const from[] = { "yes", NULL }, *const to[] = { "sh", "-c", "cat >/dev/null",
								    NULL };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct run_result results[2];
	unsigned n = 0;

	ok_code(runner.pipe(from, to,
			    &(struct run_hook){ .is_stopped = at_the_third_time, .user = &n },
			    results, &err),
		COPPICE_INTERRUPTED, &err);
	ok_int(n, ==, 3);
}

static void test_pipe_of_what_is_not_installed(void)
{
	const char *const good[] = { "cat", NULL }, *const bad[] = { "no-such-program", NULL };
	struct run_hook hook = { .is_stopped = never };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct run_result results[2];

	ok_code(runner.pipe(bad, good, &hook, results, &err), COPPICE_UNSUPPORTED, &err);
	ok_code(runner.pipe(good, bad, &hook, results, &err), COPPICE_UNSUPPORTED, &err);
	ok_has(err.message, "no-such-program");
}

/* A dead owner's programs do not go on for nobody. */
static void test_pipe_ends_when_its_owner_is_killed(void)
{
	_cleanup_(freep) char *done = text_format("%s/done", tap_dir());
	_cleanup_(freep) char *command = text_format("cat >/dev/null; echo >%s", done);
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct run_result results[2];
	pid_t pid = fork();

	if (pid == 0)
		_exit(pipe_of("yes", command, results, &err) < 0);
	(void)usleep(200000);
	ok_int(access(done, F_OK), ==, -1);
	ok_int(kill(pid, SIGKILL), ==, 0);
	ok_int(waitpid(pid, NULL, 0), ==, pid);
	for (size_t i = 0; i < 500 && access(done, F_OK) < 0; i++)
		(void)usleep(20000);
	ok_int(access(done, F_OK), ==, 0);
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_fail_returns_the_code_that_it_stores),
		TAP(test_fail_errno_derives_the_code),
		TAP(test_wrap_puts_context_in_front),
		TAP(test_long_messages_are_cut),
		TAP(test_messages_are_one_printable_line),
		TAP(test_messages_have_no_controls_of_unicode),
		TAP(test_each_code_has_a_status),
		TAP(test_undo_goes_backwards_past_failures),
		TAP(test_undo_after_commit_does_nothing),
		TAP(test_uuid),
		TAP(test_what_is_utf8),
		TAP(test_text_grows),
		TAP(test_shell_quote),
		TAP(test_shell_quote_is_undone_by_bash),
		TAP(test_size_parse),
		TAP(test_size_format),
		TAP(test_natural_compare),
		TAP(test_parallel_does_each_once),
		TAP(test_parallel_tells_the_first_failure),
		TAP(test_file_write_and_read),
		TAP(test_file_below_a_directory),
		TAP(test_directory_is_empty),
		TAP(test_time_format),
		TAP(test_run_gives_output_and_status),
		TAP(test_run_passes_arguments_as_they_are),
		TAP(test_run_of_much_output),
		TAP(test_run_of_what_is_killed),
		TAP(test_run_of_what_is_not_installed),
		TAP(test_run_checked_quotes_the_last_line),
		TAP(test_runner_can_be_replaced),
		TAP(test_pipe_brings_all_of_it),
		TAP(test_pipe_to_what_ends_before_the_other),
		TAP(test_pipe_is_stopped_on_demand),
		TAP(test_pipe_of_what_is_not_installed),
		TAP(test_pipe_ends_when_its_owner_is_killed),
		TAP_END,
	});
}
