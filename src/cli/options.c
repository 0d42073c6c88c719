/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The command line: argp, twice. The first pass takes the options that all
 * commands have and the words of the command's name; the second takes the rest,
 * with the options of that command. argp's own messages are silenced: they take
 * several lines and do not name what was meant.
 */

#include <argp.h>
#include <errno.h>
#include <string.h>

#include "cli/cli.h"

enum key {
	KEY_ROOT = 1000,
	KEY_EXPLAIN,
	KEY_DRY_RUN,
	KEY_LOCK_TIMEOUT,
	KEY_VERSION,
	KEY_MEMORY_LIMIT,
	KEY_COUNT,
	KEY_FORCE,
	KEY_EXACT,
	KEY_REPAIR,
	KEY_FULL,
	KEY_INSTANCE_ONLY,
	KEY_REFRESH,
	KEY_ALIAS,
	KEY_FINGERPRINT,
	KEY_SKIP_NESTED,
	KEY_ALL,
	KEY_EMPTY,
	KEY_CONTENT,
};

/* Option 0 stands for: everywhere. */
static const struct {
	unsigned option;
	struct argp_option argp;
} option_table[] = {
	{ TAKES_FORMAT, { "format", 'f', "FORMAT", 0, "table, json, csv or yaml", 1 } },
	{ TAKES_POOL, { "storage", 's', "POOL", 0, "In this pool", 1 } },
	{ TAKES_CONFIG, { "config", 'c', "KEY=VALUE", 0, "Configuration of each; repeatable", 1 } },
	{ TAKES_COUNT, { "count", KEY_COUNT, "N", 0, "Make NAME1 to NAMEN", 1 } },
	{ TAKES_EMPTY, { "empty", KEY_EMPTY, NULL, 0, "From no image, with nothing in them", 1 } },
	{ TAKES_EMPTY,
	  { "content", KEY_CONTENT, "CONTENT", 0,
	    "With --empty: filesystem, or block: a virtual machine's disk", 1 } },
	{ TAKES_FORCE, { "force", KEY_FORCE, NULL, 0, "Do it even though something is lost", 1 } },
	{ TAKES_SKIP_NESTED,
	  { "skip-nested", KEY_SKIP_NESTED, NULL, 0, "Go on without subvolumes made in it", 1 } },
	{ TAKES_ALL, { "all", KEY_ALL, NULL, 0, "All pools", 1 } },
	{ TAKES_EXACT, { "exact", KEY_EXACT, NULL, 0, "Measure what is not counted (slow)", 1 } },
	{ TAKES_REPAIR, { "repair", KEY_REPAIR, NULL, 0, "Mend what can be mended", 1 } },
	{ TAKES_FULL, { "full", KEY_FULL, NULL, 0, "Share nothing with the source", 1 } },
	{ TAKES_FULL,
	  { "instance-only", KEY_INSTANCE_ONLY, NULL, 0, "Leave the snapshots out", 1 } },
	{ TAKES_FULL,
	  { "refresh", KEY_REFRESH, NULL, 0, "Bring TARGET, an earlier copy, up to date", 1 } },
	{ TAKES_ALIAS, { "alias", KEY_ALIAS, "NAME", 0, "Name for the image; repeatable", 1 } },
	{ TAKES_FINGERPRINT,
	  { "fingerprint", KEY_FINGERPRINT, "SHA256", 0, "Refuse any other image", 1 } },
	{ TAKES_MEMORY_LIMIT,
	  { "memory-limit", KEY_MEMORY_LIMIT, "SIZE", 0, "Of the decompressor (256MiB)", 1 } },

	{ 0, { NULL, 0, NULL, 0, "Everywhere:", 2 } },
	{ 0, { "quiet", 'q', NULL, 0, "No notes, no progress", 2 } },
	{ 0, { "explain", KEY_EXPLAIN, NULL, 0, "Print the native commands it is equal to", 2 } },
	{ 0, { "dry-run", KEY_DRY_RUN, NULL, 0, "Print the same, change nothing", 2 } },
	{ 0, { "root", KEY_ROOT, "DIR", 0, "State directory (/var/lib/coppice)", 2 } },
	{ 0, { "lock-timeout", KEY_LOCK_TIMEOUT, "SECONDS", 0, "Wait for others (60)", 2 } },
	{ 0, { "help", 'h', NULL, 0, "Show this help", 2 } },
	{ 0, { "version", KEY_VERSION, NULL, 0, "Show the version", 2 } },
};

#define OPTIONS_MAX (ARRAY_SIZE(option_table) + 1)

/* What a parser needs to know besides its argument. */
struct parse {
	struct request *request;
	const struct argp_option *options;
	char name[64]; /* words of the command so far */
	int rest;      /* index of what follows the command's name */
	int r;
	struct coppice_error *err;
};

static void options_of(unsigned options, struct argp_option ret[static OPTIONS_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(option_table); i++)
		if (option_table[i].option == 0 || (option_table[i].option & options))
			ret[n++] = option_table[i].argp;
	ret[n] = (struct argp_option){ 0 };
}

/* ---- values ---- */

static int parse_format(const char *text, enum format *ret, struct coppice_error *err)
{
	static const char *const names[] = {
		[FORMAT_TABLE] = "table",
		[FORMAT_JSON] = "json",
		[FORMAT_CSV] = "csv",
		[FORMAT_YAML] = "yaml",
	};

	for (size_t i = FORMAT_TABLE; i < ARRAY_SIZE(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret = (enum format)i;
			return COPPICE_OK;
		}
	}
	return cli_fail(err, COPPICE_INVALID,
			"unknown format '%s'; there are table, json, csv and yaml", text);
}

static int parse_number(const char *option, const char *text, uint64_t max, uint64_t *ret,
			struct coppice_error *err)
{
	char *end = NULL;
	unsigned long long number;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end != '\0' || number > max)
		return cli_fail(err, COPPICE_INVALID, "--%s takes a number up to %llu, not '%s'",
				option, (unsigned long long)max, text);
	*ret = number;
	return COPPICE_OK;
}

static int parse_count(const char *text, size_t *ret, struct coppice_error *err)
{
	uint64_t count = 0;
	int r = parse_number("count", text, NAMES_MAX, &count, err);

	if (r < 0)
		return r;
	if (count == 0)
		return cli_fail(err, COPPICE_INVALID, "--count must be at least 1");
	*ret = count;
	return COPPICE_OK;
}

/* 0 is "do not wait"; the library's 0 is its default, so it gets one millisecond. */
static int parse_lock_timeout(const char *text, unsigned *ret, struct coppice_error *err)
{
	uint64_t seconds = 0;
	int r = parse_number("lock-timeout", text, 1000000, &seconds, err);

	if (r < 0)
		return r;
	*ret = seconds ? (unsigned)(seconds * 1000) : 1;
	return COPPICE_OK;
}

static int parse_memory_limit(const char *text, uint64_t *ret, struct coppice_error *err)
{
	if (size_parse(text, ret) && *ret > 0)
		return COPPICE_OK;
	return cli_fail(err, COPPICE_INVALID, "'%s' is not a size such as 256MiB", text);
}

/* ---- both parsers ---- */

static int parse_content(const char *text, enum coppice_content *ret, struct coppice_error *err)
{
	if (strcmp(text, "block") == 0)
		*ret = COPPICE_BLOCK;
	else if (strcmp(text, "filesystem") == 0)
		*ret = COPPICE_FILESYSTEM;
	else
		return cli_fail(err, COPPICE_INVALID,
				"--content '%s' is neither filesystem nor block", text);
	return COPPICE_OK;
}

static bool *request_flag(struct request *request, int key)
{
	switch (key) {
	case 'q':
		return &request->is_quiet;
	case 'h':
		return &request->is_help;
	case KEY_VERSION:
		return &request->is_version;
	case KEY_EXPLAIN:
		return &request->is_explain;
	case KEY_DRY_RUN:
		return &request->is_dry_run;
	case KEY_FORCE:
		return &request->is_forced;
	case KEY_EXACT:
		return &request->is_exact;
	case KEY_REPAIR:
		return &request->is_repair;
	case KEY_FULL:
		return &request->is_full;
	case KEY_INSTANCE_ONLY:
		return &request->is_instance_only;
	case KEY_REFRESH:
		return &request->is_refresh;
	case KEY_ALL:
		return &request->is_all;
	case KEY_EMPTY:
		return &request->is_empty;
	case KEY_SKIP_NESTED:
		return &request->is_skipping_nested;
	default:
		return NULL;
	}
}

static int take_value(struct request *request, int key, const char *arg, struct coppice_error *err)
{
	switch (key) {
	case KEY_ROOT:
		request->root = arg;
		return COPPICE_OK;
	case 's':
		request->pool = arg;
		return COPPICE_OK;
	case KEY_FINGERPRINT:
		request->fingerprint = arg;
		return COPPICE_OK;
	case 'c':
		return words_add(&request->assignments, arg, err);
	case KEY_ALIAS:
		return words_add(&request->aliases, arg, err);
	case 'f':
		return parse_format(arg, &request->format, err);
	case KEY_COUNT:
		return parse_count(arg, &request->count, err);
	case KEY_CONTENT:
		request->has_content = true;
		return parse_content(arg, &request->content, err);
	case KEY_LOCK_TIMEOUT:
		return parse_lock_timeout(arg, &request->lock_timeout_ms, err);
	case KEY_MEMORY_LIMIT:
		return parse_memory_limit(arg, &request->memory_limit_bytes, err);
	default:
		return cli_fail(err, COPPICE_FAILED, "option %d is not handled", key);
	}
}

static int take_option(struct parse *parse, int key, const char *arg)
{
	bool *flag = request_flag(parse->request, key);

	if (flag) {
		*flag = true;
		return COPPICE_OK;
	}
	return take_value(parse->request, key, arg, parse->err);
}

/* ---- what is wrong with an option ---- */

static const struct argp_option *option_find_long(const struct argp_option *options,
						  const char *name, size_t length, size_t *ret_n)
{
	const struct argp_option *found = NULL;

	*ret_n = 0;
	for (const struct argp_option *o = options; o->name || o->doc; o++) {
		if (!o->name || strncmp(o->name, name, length) != 0)
			continue;
		found = o;
		(*ret_n)++;
		if (strlen(o->name) == length) {
			*ret_n = 1;
			return o;
		}
	}
	return found;
}

/* Ends a message: the option that was probably meant, or where to look. */
static void option_advice(const struct parse *parse, const char *name, size_t length, char *ret,
			  size_t size)
{
	_cleanup_(freep) char *typed = strndup(name, length);
	const char *nearest = NULL;
	size_t best = 3;

	for (const struct argp_option *o = parse->options; typed && (o->name || o->doc); o++) {
		size_t distance = o->name ? text_distance(typed, o->name) : best;

		if (distance < best) {
			best = distance;
			nearest = o->name;
		}
	}
	if (nearest)
		(void)snprintf(ret, size, "did you mean --%s?", nearest);
	else
		(void)snprintf(ret, size, "see 'coppice%s%s --help'", *parse->name ? " " : "",
			       parse->name);
}

static int refuse_long(const struct parse *parse, const char *word)
{
	const char *name = word + 2;
	size_t length = strcspn(name, "=");
	size_t n;
	const struct argp_option *o = option_find_long(parse->options, name, length, &n);
	char advice[128];

	option_advice(parse, name, length, advice, sizeof(advice));
	if (n == 0)
		return cli_fail(parse->err, COPPICE_INVALID, "unknown option '--%.*s'; %s",
				(int)length, name, advice);
	if (n > 1)
		return cli_fail(parse->err, COPPICE_INVALID, "'%s' may mean several options; %s",
				word, advice);
	if (o->arg)
		return cli_fail(parse->err, COPPICE_INVALID, "--%s needs a value: --%s %s", o->name,
				o->name, o->arg);
	return cli_fail(parse->err, COPPICE_INVALID, "--%s takes no value", o->name);
}

static int refuse_short(const struct parse *parse, const char *word)
{
	char advice[128];

	option_advice(parse, "", 0, advice, sizeof(advice));
	for (const char *letter = word + 1; *letter; letter++) {
		const struct argp_option *o = parse->options;

		while ((o->name || o->doc) && o->key != *letter)
			o++;
		if (!o->name)
			return cli_fail(parse->err, COPPICE_INVALID, "unknown option '-%c'; %s",
					*letter, advice);
		if (o->arg)
			return cli_fail(parse->err, COPPICE_INVALID, "-%c needs a value: --%s %s",
					*letter, o->name, o->arg);
	}
	return cli_fail(parse->err, COPPICE_INVALID, "'%s' is not an option; %s", word, advice);
}

/* getopt stands behind the word that it refuses, or still in a group of letters. */
static int refuse_option(const struct parse *parse, const struct argp_state *state)
{
	const char *word = state->argv[state->next - 1];

	if (state->next < state->argc && state->argv[state->next][0] == '-' && word[0] != '-')
		word = state->argv[state->next];
	if (strncmp(word, "--", 2) == 0)
		return refuse_long(parse, word);
	return refuse_short(parse, word);
}

/* ---- the first pass: which command? ---- */

static int refuse_command(const struct parse *parse)
{
	const char *nearest = help_nearest_command(parse->name);

	if (nearest)
		return cli_fail(parse->err, COPPICE_INVALID,
				"unknown command '%s'; did you mean '%s'?", parse->name, nearest);
	return cli_fail(parse->err, COPPICE_INVALID, "unknown command '%s'; see 'coppice --help'",
			parse->name);
}

/* One more word of the name. Sets the command when it is whole. */
static int take_command_word(struct parse *parse, char *word, struct argp_state *state)
{
	size_t length = strlen(parse->name);

	(void)snprintf(parse->name + length, sizeof(parse->name) - length, "%s%s",
		       length ? " " : "", word);
	parse->request->command = command_find(parse->name);
	/* The rest belongs to the command: end this pass here. */
	if (parse->request->command) {
		parse->rest = state->next;
		state->next = state->argc;
		return COPPICE_OK;
	}
	return command_is_group(parse->name) ? COPPICE_OK : refuse_command(parse);
}

/* What both passes do with a key, but for a word, which is @take's. */
static error_t parse_key(int key, char *arg, struct argp_state *state,
			 int (*take)(struct parse *parse, char *word, struct argp_state *state))
{
	struct parse *parse = state->input;

	switch (key) {
	case ARGP_KEY_ARG:
		parse->r = take(parse, arg, state);
		break;
	case ARGP_KEY_ERROR:
		if (parse->r == COPPICE_OK)
			parse->r = refuse_option(parse, state);
		return 0;
	case ARGP_KEY_INIT:
	case ARGP_KEY_NO_ARGS:
	case ARGP_KEY_END:
	case ARGP_KEY_SUCCESS:
	case ARGP_KEY_FINI:
		return 0;
	case ARGP_KEY_ARGS:
		return ARGP_ERR_UNKNOWN;
	default:
		parse->r = take_option(parse, key, arg);
		break;
	}
	return parse->r < 0 ? EINVAL : 0;
}

static error_t parse_first(int key, char *arg, struct argp_state *state)
{
	return parse_key(key, arg, state, take_command_word);
}

static int take_word(struct parse *parse, char *word, struct argp_state *state)
{
	return words_add(&parse->request->words, word, parse->err);
}

static error_t parse_second(int key, char *arg, struct argp_state *state)
{
	return parse_key(key, arg, state, take_word);
}

static int refuse_word_count(const struct command *command, const struct words *words,
			     struct coppice_error *err)
{
	if (words->n > command->max_words)
		return cli_fail(err, COPPICE_INVALID, "'%s' is too much; usage: coppice %s %s",
				words->word[command->max_words], command->name, command->usage);
	return cli_fail(err, COPPICE_INVALID, "something is missing; usage: coppice %s %s",
			command->name, command->usage);
}

static int parse_pass(struct parse *parse, argp_parser_t parser, unsigned options, int argc,
		      char **argv, unsigned flags)
{
	struct argp_option list[OPTIONS_MAX];
	struct argp argp = { .options = list, .parser = parser };
	error_t e;

	options_of(options, list);
	parse->options = list;
	e = argp_parse(&argp, argc, argv, flags | ARGP_SILENT, NULL, parse);
	parse->options = NULL;
	if (parse->r < 0)
		return parse->r;
	if (e)
		return cli_fail_errno(parse->err, e, "cannot read the command line");
	return COPPICE_OK;
}

int options_parse(int argc, char **argv, struct request *request, struct coppice_error *err)
{
	struct parse parse = { .request = request, .err = err };
	const struct command *command;
	int begin, r;

	r = parse_pass(&parse, parse_first, 0, argc, argv, ARGP_IN_ORDER);
	if (r < 0)
		return r;
	command = request->command;
	if (request->is_version || (request->is_help && !command))
		return COPPICE_OK;
	if (!command && *parse.name)
		return cli_fail(err, COPPICE_INVALID, "'%s' what? see 'coppice %s --help'",
				parse.name, parse.name);
	if (!command)
		return cli_fail(err, COPPICE_INVALID, "no command; see 'coppice --help'");
	begin = parse.rest;
	argv[begin - 1] = argv[0];
	r = parse_pass(&parse, parse_second, command->options, argc - begin + 1, argv + begin - 1,
		       0);
	if (r < 0 || request->is_help || request->is_version)
		return r;
	if (request->words.n < command->min_words || request->words.n > command->max_words)
		return refuse_word_count(command, &request->words, err);
	return command->prepare ? command->prepare(request, err) : COPPICE_OK;
}

void options_help(const struct command *command, FILE *out)
{
	struct argp_option list[OPTIONS_MAX];
	struct argp argp = { .options = list };
	_cleanup_(freep) char *doc = NULL;
	char name[80] = "coppice";

	/* Spares the reader a paragraph on short options. */
	(void)setenv("ARGP_HELP_FMT", "no-dup-args-note", 0);
	options_of(command ? command->options : 0, list);
	if (command) {
		(void)snprintf(name, sizeof(name), "coppice %s", command->name);
		if (asprintf(&doc, "%s.\vExample:\n  %s", command->summary, command->example) < 0)
			doc = NULL;
		argp.args_doc = command->usage;
		argp.doc = doc;
		argp_help(&argp, out, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, name);
		return;
	}
	argp_help(&argp, out, ARGP_HELP_LONG, name);
}

void request_done(struct request *request)
{
	for (size_t i = 0; i < request->n_names; i++)
		free(request->names[i]);
	for (size_t i = 0; i < request->n_settings; i++)
		free((void *)(uintptr_t)request->settings[i].key);
	free(request->names);
	free(request->settings);
	free(request->words.word);
	free(request->aliases.word);
	free(request->assignments.word);
}
