/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What zfs(8) says, and what the driver understands; without ZFS. The samples are what
 * the programs wrote: zfs-fuse 0.7.0 where no other version is named.
 */

#include "driver/zfs/zfs.h"

#include <fcntl.h>

#include "base/file.h"
#include "base/run.h"
#include "base/text.h"
#include "tap.h"

/* ---- a program that says what it is told ---- */

static struct {
	int exit_status;
	const char *out, *err;
	unsigned busy; /* how often it is busy before it does that, and how it says so */
	const char *busy_text;
	unsigned n_runs; /* how often it ran */
} script;

static int play(const char *const argv[], struct run_result *result, struct coppice_error *err)
{
	bool is_busy = script.n_runs++ < script.busy;

	result->exit_status = is_busy ? 1 : script.exit_status;
	result->out = strdup(script.out ? script.out : "");
	result->err = strdup(is_busy ? script.busy_text : script.err ? script.err : "");
	return COPPICE_OK;
}

static int run_as(const char *const argv[], int exit_status, const char *text,
		  struct coppice_error *err)
{
	runner.run = play;
	script.exit_status = exit_status;
	script.err = text;
	script.n_runs = 0;
	return zfs_run(argv, NULL, err);
}

static int run(int exit_status, const char *text, struct coppice_error *err)
{
	return run_as(ZFS_ARGS("zfs", "clone", "tank/c9@b", "tank/c"), exit_status, text, err);
}

static void test_what_failures_mean(void)
{
	static const struct {
		int exit_status;
		enum coppice_code code;
		const char *text;
	} samples[] = {
		{ 1, COPPICE_NOT_FOUND, "cannot open 'tank/c9': dataset does not exist\n" },
		{ 1, COPPICE_NOT_FOUND, "cannot open 'tank': no such pool\n" },
		{ 1, COPPICE_NOT_FOUND,
		  "cannot open 'tank/c': dataset does not exist\n"
		  "cannot open 'tank/c9': dataset does not exist\n" },
		{ 1, COPPICE_FAILED,
		  "cannot open 'tank/c': dataset does not exist\n"
		  "cannot open 'tank/c9': permission denied\n" },
		{ 1, COPPICE_FAILED,
		  "cannot open 'tank/c9': out of memory\n"
		  "cannot open 'tank/c': dataset does not exist\n" },
		{ 1, COPPICE_NOT_FOUND, "cannot import 'tank': no such pool available\n" },
		{ 1, COPPICE_EXISTS, "cannot create 'tank/c1': dataset already exists\n" },
		{ 1, COPPICE_EXISTS, "cannot rename 'tank/c1@a': dataset already exists\n" },
		{ 1, COPPICE_EXISTS,
		  "Defaulting to 4K blocksize (ashift=12) for '/x'\ninvalid vdev specification\n"
		  "use '-f' to override the following errors:\n/x is part of active pool "
		  "'tank'\n" },
		{ 1, COPPICE_FAILED, "cannot create 'tank/no/c2': parent does not exist\n" },
		{ 1, COPPICE_BUSY,
		  "cannot destroy 'tank/i@readonly': snapshot has dependent clones\n"
		  "use '-R' to destroy the following datasets:\ntank/c1\n" },
		{ 1, COPPICE_BUSY,
		  "cannot destroy 'tank/i': filesystem has children\n"
		  "use '-r' to destroy the following datasets:\ntank/i@readonly\n" },
		{ 1, COPPICE_NO_SPACE, "cannot create snapshot 'tank/c@s': out of space\n" },
		{ 1, COPPICE_NO_SPACE,
		  "cannot set property for 'tank/c': size is greater than available space\n" },
		{ 1, COPPICE_INVALID,
		  "cannot set property for 'tank/c': size is less than current used or reserved "
		  "space\n" },
		{ 1, COPPICE_FAILED, "cannot do something that nobody thought of\n" },
		{ 1, COPPICE_FAILED, "" },
		/* The daemon is dead, or dies meanwhile: never "does not exist". */
		{ 1, COPPICE_UNAVAILABLE,
		  "connect: Connection refused\nPlease make sure that the zfs-fuse daemon is "
		  "running.\ninternal error: failed to initialize ZFS library\n" },
		{ 1, COPPICE_UNAVAILABLE,
		  "connect: No such file or directory\nPlease make sure that the zfs-fuse daemon "
		  "is running.\ninternal error: failed to initialize ZFS library\n" },
		{ 134, COPPICE_UNAVAILABLE, "internal error: Function not implemented\n" },
		{ 130, COPPICE_INTERRUPTED, "" },
		{ 143, COPPICE_INTERRUPTED, "" },
		{ 134, COPPICE_UNAVAILABLE, "cannot open 'tank/c9': dataset does not exist\n" },
		{ 137, COPPICE_UNAVAILABLE, "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		struct coppice_error err = COPPICE_ERROR_INIT;

		ok_code(run(samples[i].exit_status, samples[i].text, &err), samples[i].code, &err);
		ok_int(script.n_runs, ==, 1);
	}
}

/* It once was: when an image went together with its clones, "no image" was what one read. */
static void test_what_is_missing_is_not_what_was_named(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	const char *text = "cannot open 'tank/containers/c5': dataset does not exist\n";

	ok_code(run_as(ZFS_ARGS("zfs", "destroy", "tank/images/i"), 1, text, &err), COPPICE_FAILED,
		&err);
	ok_code(run_as(ZFS_ARGS("zfs", "destroy", "tank/containers/c"), 1, text, &err),
		COPPICE_FAILED, &err);
	ok_code(run_as(ZFS_ARGS("zfs", "destroy", "tank/containers/c50"), 1, text, &err),
		COPPICE_FAILED, &err);
	ok_code(run_as(ZFS_ARGS("zfs", "destroy", "tank/containers/c5"), 1, text, &err),
		COPPICE_NOT_FOUND, &err);
	ok_code(run_as(ZFS_ARGS("zfs", "destroy", "tank/containers/c5@s"), 1, text, &err),
		COPPICE_NOT_FOUND, &err);
}

static char *recorded_text(const char *name)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	const char *source = getenv("COPPICE_SOURCE");
	char *path, *text = NULL;

	if (!source)
		skip("COPPICE_SOURCE does not say where the recorded outputs are");
	path = text_format("%s/tests/unit/zfs/%s", source, name);
	ok(path);
	ok_call(file_read(AT_FDCWD, path, 1 << 20, &text, &err), &err);
	free(path);
	return text;
}

static enum coppice_code code_of(const char *name)
{
	static const struct {
		const char *name;
		enum coppice_code code;
	} codes[] = {
		{ "NOT_FOUND", COPPICE_NOT_FOUND },
		{ "EXISTS", COPPICE_EXISTS },
		{ "BUSY", COPPICE_BUSY },
		{ "NO_SPACE", COPPICE_NO_SPACE },
		{ "INVALID", COPPICE_INVALID },
		{ "FAILED", COPPICE_FAILED },
		{ "UNAVAILABLE", COPPICE_UNAVAILABLE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (strcmp(codes[i].name, name) == 0)
			return codes[i].code;
	tap_fail("'%s' is no code", name);
	return COPPICE_OK;
}

/* Cut "zfs destroy tank/c" into words. */
static void split_words(char *line, const char *ret[16])
{
	size_t n = 0;

	for (char *word = strtok(line, " "); word && n < 15; word = strtok(NULL, " "))
		ret[n++] = word;
	ret[n] = NULL;
}

/* As recorded: "$ command", what it said on standard error, "= status", what that is to mean. */
static void test_what_recorded_failures_mean(void)
{
	char *all = recorded_text("openzfs-2.1.11-errors");
	size_t n = 0;

	for (char *sample = all, *said, *end; *sample; n++) {
		struct coppice_error err = COPPICE_ERROR_INIT;
		int exit_status, length;
		const char *argv[16];
		char code[32];

		ok_int(strncmp(sample, "$ ", 2), ==, 0);
		said = strchr(sample, '\n') + 1;
		end = strstr(said, "\n= ");
		ok(end && sscanf(end, "\n= %d %31[A-Z_]\n%n", &exit_status, code, &length) == 2);
		end[1] = said[-1] = '\0';
		split_words(sample + 2, argv);
		if (run_as(argv, exit_status, said, &err) != code_of(code))
			tap_fail("number %zu is not %s: %s", n, code, err.message);
		sample = end + length;
	}
	ok_int(n, >, 20);
	free(all);
}

static void test_messages_say_what_it_said(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	(void)run(1, "Defaulting to 4K blocksize (ashift=12) for '/x'\ninvalid vdev\n\nmore\n",
		  &err);
	ok_str(err.message, "zfs clone: invalid vdev; more");
}

static void test_busy_is_tried_again(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	script.busy = 3;
	script.busy_text = "cannot destroy 'tank/c': dataset is busy\n";
	ok_call(run(0, "", &err), &err);
	ok_int(script.n_runs, ==, 4);
	script.busy_text = "cannot destroy 'tank': pool is busy\n";
	ok_call(run(0, "", &err), &err);
	ok_int(script.n_runs, ==, 4);
	script.busy = 1000000;
	ok_code(run(0, "", &err), COPPICE_BUSY, &err);
	ok_int(script.n_runs, <, 100);
}

/* ---- what the library can do as well ---- */

static void test_requests_of_commands(void)
{
	const char *const hold[] = { "zfs", "hold", "tag", "t/c@s", "t/d@s", NULL };
	const char *const many[] = { "zfs", "snapshot", "-o", "a:b=c", "t/c@s", "t/d@s", NULL };
	const char *const gone[] = { "zfs", "destroy", "t/c@s", "t/d@s", NULL };
	struct zfs_request request;

	ok(zfs_request_parse(
		ZFS_ARGS("zfs", "clone", "-o", "a:b=c", "-o", "refquota=1", "t/i@s", "t/c"),
		&request));
	ok_int(request.what, ==, ZFS_CLONE);
	ok_str(request.from, "t/i@s");
	ok_str(request.name, "t/c");
	ok_int(request.n_options, ==, 2);
	ok_str(request.option[1], "refquota=1");
	ok(zfs_request_parse(ZFS_ARGS("zfs", "snapshot", "-o", "a:b=c", "t/c@s"), &request));
	ok_int(request.what, ==, ZFS_SNAPSHOT);
	ok(!request.from);
	ok(zfs_request_parse(ZFS_ARGS("zfs", "rename", "t/a@s", "t/a@r"), &request));
	ok_int(request.what, ==, ZFS_RENAME);
	ok_str(request.from, "t/a@s");
	ok_str(request.name, "t/a@r");
	ok(zfs_request_parse(ZFS_ARGS("zfs", "destroy", "t/c"), &request));
	ok_int(request.what, ==, ZFS_DESTROY);
	ok(zfs_request_parse(ZFS_ARGS("zfs", "destroy", "t/c@s"), &request));
	ok_int(request.what, ==, ZFS_DESTROY_SNAPSHOT);
	ok(zfs_request_parse(many, &request)); /* borrows from it */
	ok_int(request.what, ==, ZFS_SNAPSHOT);
	ok(!request.from);
	ok_int(request.n_options, ==, 1);
	ok_int(request.n_names, ==, 2);
	ok_str(request.names[1], "t/d@s");
	ok(zfs_request_parse(gone, &request));
	ok_int(request.what, ==, ZFS_DESTROY_SNAPSHOT);
	ok_int(request.n_names, ==, 2);
	ok(zfs_request_parse(hold, &request));
	ok_int(request.what, ==, ZFS_HOLD);
	ok_str(request.from, "tag");
	ok_int(request.n_names, ==, 2);
	ok_str(request.names[1], "t/d@s");
}

/* What it does not know exactly it leaves to the command. */
static void test_requests_that_are_none(void)
{
	const char *const *const others[] = {
		ZFS_ARGS("zpool", "destroy", "t"),
		ZFS_ARGS("zfs"),
		ZFS_ARGS("zfs", "set", "a:b=c", "t"),
		ZFS_ARGS("zfs", "destroy", "-r", "t/c"),
		ZFS_ARGS("zfs", "destroy", "t/c", "-r"),
		ZFS_ARGS("zfs", "destroy", "t/c@a,b"),
		ZFS_ARGS("zfs", "destroy", "t/c@a%b"),
		ZFS_ARGS("zfs", "destroy", "-o", "a:b=c", "t/c"),
		ZFS_ARGS("zfs", "destroy"),
		ZFS_ARGS("zfs", "clone", "t/i@s"),
		ZFS_ARGS("zfs", "clone", "-p", "t/i@s", "t/c"),
		ZFS_ARGS("zfs", "clone", "t/i@s", "t/c", "t/d"),
		ZFS_ARGS("zfs", "rename", "-r", "t/a@s", "t/a@r"),
		ZFS_ARGS("zfs", "destroy", "t/a@s", "t/b"),
		ZFS_ARGS("zfs", "destroy", "t/a", "t/b"),
		ZFS_ARGS("zfs", "promote", "t/a", "t/b"),
		ZFS_ARGS("zfs", "hold", "tag"),
		ZFS_ARGS("zfs", "hold", "-r", "tag", "t/a@s"),
		ZFS_ARGS("zfs", "holds", "t/a@s"),
	};
	struct zfs_request request;

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (zfs_request_parse(others[i], &request))
			tap_fail("number %zu is taken for the library's", i);
}

/* ---- the library itself, on a kernel with ZFS ---- */

static int (*run_program)(const char *const argv[], struct run_result *result,
			  struct coppice_error *err);

static int run_and_count(const char *const argv[], struct run_result *result,
			 struct coppice_error *err)
{
	script.n_runs++;
	return run_program(argv, result, err);
}

/* Without a program, if the library has it. */
static void do_by_library(const char *const argv[])
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	script.n_runs = 0;
	ok_call(zfs_run(argv, NULL, &err), &err);
	if (script.n_runs != 0)
		tap_fail("zfs %s ran a program", argv[1]);
}

static char *said_by(const char *const argv[])
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *out = NULL;

	ok_call(zfs_run(argv, &out, &err), &err);
	return out;
}

/* All properties that are not only of this dataset itself, or of this moment. */
static char *properties_of(const char *name)
{
	return said_by(ZFS_ARGS("zfs", "get", "-Hp", "-s", "local,received", "-o",
				"property,value,source", "all", name));
}

static void prepare(const char *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *file = text_format("%s/vdev", tap_dir());

	if (!zfs_is_in_kernel())
		skip("no ZFS in this kernel");
	run_program = runner.run;
	runner.run = run_and_count;
	ok(file);
	ok_call(run_checked(ZFS_ARGS("truncate", "-s", "128M", file), &err), &err);
	ok_call(run_checked(ZFS_ARGS("zpool", "create", "-m", "legacy", pool, file), &err), &err);
	free(file);
}

static void clean_up(const char *pool)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_call(run_checked(ZFS_ARGS("zpool", "destroy", pool), &err), &err);
}

static void test_library_makes_what_commands_make(void)
{
	char *by_library, *by_command;

	prepare("unit");
	do_by_library(ZFS_ARGS("zfs", "create", "-o", "canmount=off", "-o", "atime=off", "-o",
			       "xattr=sa", "-o", "acltype=posixacl", "-o", "mountpoint=legacy",
			       "unit/a"));
	free(said_by(ZFS_ARGS("zfs", "create", "-o", "canmount=off", "-o", "atime=off", "-o",
			      "xattr=sa", "-o", "acltype=posixacl", "-o", "mountpoint=legacy",
			      "unit/b")));
	by_library = properties_of("unit/a");
	by_command = properties_of("unit/b");
	ok_has(by_library, "acltype\tposix");
	ok_str(by_library, by_command);
	free(by_library);
	free(by_command);

	do_by_library(ZFS_ARGS("zfs", "snapshot", "-o", "x:y=of s", "unit/a@s"));
	do_by_library(ZFS_ARGS("zfs", "clone", "-o", "x:y={\"z\":1}", "-o", "refquota=10485760",
			       "-o", "canmount=off", "unit/a@s", "unit/c"));
	free(said_by(ZFS_ARGS("zfs", "clone", "-o", "x:y={\"z\":1}", "-o", "refquota=10485760",
			      "-o", "canmount=off", "unit/a@s", "unit/d")));
	by_library = properties_of("unit/c");
	by_command = properties_of("unit/d");
	ok_has(by_library, "x:y\t{\"z\":1}\tlocal");
	ok_has(by_library, "refquota\t10485760\tlocal");
	ok_str(by_library, by_command);
	free(by_library);
	free(by_command);
	clean_up("unit");
}

static void test_library_renames_promotes_and_destroys(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *list;

	prepare("unit");
	do_by_library(ZFS_ARGS("zfs", "create", "unit/a"));
	do_by_library(ZFS_ARGS("zfs", "snapshot", "unit/a@s"));
	do_by_library(ZFS_ARGS("zfs", "clone", "unit/a@s", "unit/c"));
	/* What cannot be, the command is asked about, and nothing is lost. */
	ok_code(zfs_run(ZFS_ARGS("zfs", "destroy", "unit/a@s"), NULL, &err), COPPICE_BUSY, &err);
	ok_code(zfs_run(ZFS_ARGS("zfs", "destroy", "unit/a"), NULL, &err), COPPICE_BUSY, &err);
	ok_code(zfs_run(ZFS_ARGS("zfs", "clone", "unit/a@s", "unit/c"), NULL, &err), COPPICE_EXISTS,
		&err);
	ok_code(zfs_run(ZFS_ARGS("zfs", "rename", "unit/none", "unit/d"), NULL, &err),
		COPPICE_NOT_FOUND, &err);
	do_by_library(ZFS_ARGS("zfs", "promote", "unit/c"));
	do_by_library(ZFS_ARGS("zfs", "rename", "unit/c@s", "unit/c@t"));
	do_by_library(ZFS_ARGS("zfs", "rename", "unit/c", "unit/d"));
	list = said_by(
		ZFS_ARGS("zfs", "list", "-H", "-t", "all", "-o", "name,origin", "-r", "unit"));
	ok_str(list, "unit\t-\nunit/a\tunit/d@t\nunit/d\t-\nunit/d@t\t-\n");
	free(list);
	do_by_library(ZFS_ARGS("zfs", "destroy", "unit/a"));
	do_by_library(ZFS_ARGS("zfs", "snapshot", "unit/d@u"));
	do_by_library(ZFS_ARGS("zfs", "hold", "tag", "unit/d@t", "unit/d@u"));
	list = said_by(
		ZFS_ARGS("zfs", "get", "-Hp", "-o", "value", "userrefs", "unit/d@t", "unit/d@u"));
	ok_str(list, "1\n1\n");
	free(list);
	ok_code(zfs_run(ZFS_ARGS("zfs", "destroy", "unit/d@t"), NULL, &err), COPPICE_BUSY, &err);
	/* One that is there, or held, keeps all from being made, or destroyed. */
	ok(!zfs_library_run(ZFS_ARGS("zfs", "snapshot", "unit/d@v", "unit/d@t")));
	ok(!zfs_library_run(ZFS_ARGS("zfs", "destroy", "unit@v", "unit/d@t")));
	do_by_library(ZFS_ARGS("zfs", "snapshot", "unit@v", "unit/d@v"));
	do_by_library(ZFS_ARGS("zfs", "destroy", "unit@v", "unit/d@v"));
	ok_code(zfs_run(ZFS_ARGS("zfs", "hold", "tag", "unit/d@none"), NULL, &err),
		COPPICE_NOT_FOUND, &err);
	do_by_library(ZFS_ARGS("zfs", "release", "tag", "unit/d@t", "unit/d@u"));
	do_by_library(ZFS_ARGS("zfs", "destroy", "unit/d@u"));
	do_by_library(ZFS_ARGS("zfs", "destroy", "unit/d@t"));
	do_by_library(ZFS_ARGS("zfs", "destroy", "unit/d"));
	list = said_by(ZFS_ARGS("zfs", "list", "-H", "-t", "all", "-o", "name", "-r", "unit"));
	ok_str(list, "unit\n");
	free(list);
	clean_up("unit");
}

/* ---- names ---- */

static struct zfs_pool pool_of_test(void)
{
	static char root[] = "tank", state[] = "/nonexistent";

	return (struct zfs_pool){ .root = root, .files.path = state };
}

static void test_names(void)
{
	static const char *const others[] = {
		"tank",
		"tanker/containers/c1",
		"tank/containers",
		"tank/containers/c1@copy-1",
		"tank/containers/c1@deleted-1",
		"tank/containers/c1/b05b3575-80b6-8bac-a3c9-c30d7458d463",
		"tank/deleted/containers/c1",
		"tank/images/f@readonly",
		"tank/drafts/1/c1",
	};
	struct zfs_pool zfs = pool_of_test();
	struct volume_ref ref;

	ok(zfs_name_parse(&zfs, "tank/containers/c1", &ref));
	ok_int(ref.kind, ==, VOLUME_CONTAINER);
	ok_str(ref.name.text, "c1");
	ok_str(ref.snapshot.text, "");
	ok(zfs_name_parse(&zfs, "tank/custom/d@snapshot-s1", &ref));
	ok_int(ref.kind, ==, VOLUME_CUSTOM);
	ok_str(ref.snapshot.text, "s1");
	ok(zfs_name_parse(&zfs, "tank/containers/c1/b05b3575@snapshot-s2", &ref));
	ok_str(ref.name.text, "c1");
	ok_str(ref.snapshot.text, "s2");
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (zfs_name_parse(&zfs, others[i], &ref))
			tap_fail("'%s' is taken for a volume", others[i]);
	ok(zfs_is_within("tank/c1@s", "tank/c1"));
	ok(zfs_is_within("tank/c1/x", "tank/c1"));
	ok(zfs_is_within("tank/c1", "tank/c1"));
	ok(!zfs_is_within("tank/c10", "tank/c1"));
	/* Others may call theirs as they like. */
	ok(zfs_is_hidden_snapshot("tank/containers/c1@copy-b05b36c7-372d-81ff-97cc-7e7838a4aedd"));
	ok(zfs_is_hidden_snapshot("tank/c1@deleted-b05b36c7-372d-81ff-97cc-7e7838a4aedd:12"));
	ok(!zfs_is_hidden_snapshot("tank/containers/c1@copy-mine"));
	ok(!zfs_is_hidden_snapshot("tank/c1@draft-b05b36c7-372d-81ff-97cc-7e7838a4aedd-old"));
	ok(zfs_is_tombstone(&zfs, "tank/deleted/custom/b05b36c7-372d-81ff-97cc-7e7838a4aedd@s"));
	ok(!zfs_is_tombstone(&zfs, "tank/deleted/custom/mine"));
	ok(!zfs_is_tombstone(&zfs, "tank/deleted/b05b36c7-372d-81ff-97cc-7e7838a4aedd"));
	ok(zfs_is_in_folders(&zfs, "tank/images/x"));
	ok(!zfs_is_in_folders(&zfs, "tank/home/x"));
	ok(!zfs_is_in_folders(&zfs, "tanker/images/x"));
}

/* ---- listings ---- */

/*
 * After: init c1 (size=100MiB), snapshots s1 s2 of it, restore c1 s1. The older one has no
 * canmount, and goes on with: init c2, copy c2 c3, delete c2.
 */
static const struct recording {
	const char *file;
	uint64_t used_bytes; /* by all */
	bool is_guarded;
} recordings[] = {
	{ "zfs-fuse-0.7.0-get", 2793472, false },
	{ "openzfs-2.1.11-get", 2310144, true },
};

static struct listing recorded(const struct recording *recording)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct listing listing = { 0 };

	ok_call(listing_parse(recorded_text(recording->file), &listing, &err), &err);
	return listing;
}

static void check_listing(const struct recording *recording)
{
	struct listing listing = recorded(recording);
	struct dataset *c1 = listing_find(&listing, "tank/containers/c1");
	struct dataset *s1 = listing_find(&listing, "tank/containers/c1@snapshot-s1");
	struct dataset *root = listing_find(&listing, "tank");

	ok(root && !root->origin && !root->record && !root->is_snapshot);
	ok_int(root->used, ==, recording->used_bytes);
	ok(c1 && c1->origin && c1->record && !c1->is_snapshot);
	ok_str(c1->limits[0], "104857600");
	ok(!c1->draft);
	ok_has(c1->record, "\"kind\":\"container\"");
	ok(s1 && s1->is_snapshot && s1->draft && !s1->origin);
	ok_int(s1->n_clones, ==, 1); /* what holds s2 since the restore */
	ok(!listing_find(&listing, "tank/containers/c2"));
	for (size_t i = 1; i < listing.n; i++)
		ok_int(strcmp(listing.dataset[i - 1].name, listing.dataset[i].name), <, 0);
	listing_done(&listing);
}

static void test_listing(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(recordings); i++)
		check_listing(&recordings[i]);
}

static void check_other_histories(const struct recording *recording)
{
	struct zfs_pool zfs = pool_of_test();
	struct listing listing = recorded(recording);
	struct volume_ref s2 = { .kind = VOLUME_CONTAINER };
	char below[DATASET_MAX];
	struct dataset *dataset;

	strcpy(s2.name.text, "c1");
	strcpy(s2.snapshot.text, "s2");
	dataset = listing_find_ref(&zfs, &listing, &s2);
	ok(dataset);
	ok_has(dataset->name, "tank/containers/c1/");
	ok_int(dataset->n_holds, ==, recording->is_guarded);
	(void)snprintf(below, sizeof(below), "%.*s", (int)strcspn(dataset->name, "@"),
		       dataset->name);
	ok_int(zfs_is_history(&zfs, listing_find(&listing, below)), ==, recording->is_guarded);
	strcpy(s2.snapshot.text, "s3");
	ok(!listing_find_ref(&zfs, &listing, &s2));
	listing_done(&listing);
}

static void test_listing_finds_snapshots_of_other_histories(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(recordings); i++)
		check_other_histories(&recordings[i]);
}

static void test_listing_of_nonsense(void)
{
	static const char *const samples[] = { "x\n", "a\tb\tc\n", "a\tb\tc\td\te\n", "\n\n" };

	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		struct coppice_error err = COPPICE_ERROR_INIT;
		struct listing listing = { 0 };

		ok_code(listing_parse(strdup(samples[i]), &listing, &err), COPPICE_FAILED, &err);
		ok_int(listing.n, ==, 0);
	}
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_what_failures_mean),
		TAP(test_what_is_missing_is_not_what_was_named),
		TAP(test_what_recorded_failures_mean),
		TAP(test_messages_say_what_it_said),
		TAP(test_busy_is_tried_again),
		TAP(test_requests_of_commands),
		TAP(test_requests_that_are_none),
		TAP(test_library_makes_what_commands_make),
		TAP(test_library_renames_promotes_and_destroys),
		TAP(test_names),
		TAP(test_listing),
		TAP(test_listing_finds_snapshots_of_other_histories),
		TAP(test_listing_of_nonsense),
		TAP_END,
	});
}
