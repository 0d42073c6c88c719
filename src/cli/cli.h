/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the files of the command share: a request as it was typed, the table of
 * commands, and the few words of C that they all use. The command is an ordinary
 * user of the library: it includes nothing of it but coppice.h.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "coppice.h"

#define _cleanup_(fn)       __attribute__((cleanup(fn)))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline void freep(void *p)
{
	free(*(void **)p);
}

/* ---- errors: made here, printed by main.c alone ---- */

/* Fill @err and return @code, which is not COPPICE_OK. */
_printf_(3, 4) int cli_fail(struct coppice_error *err, enum coppice_code code, const char *fmt,
			    ...);
int cli_fail_memory(struct coppice_error *err);

/* The same for a failed system call of the command itself; appends its text. */
_printf_(3, 4) int cli_fail_errno(struct coppice_error *err, int os_errno, const char *fmt, ...);

/* ---- requests ---- */

enum format {
	FORMAT_DEFAULT, /* the command's own choice */
	FORMAT_TABLE,
	FORMAT_JSON,
	FORMAT_CSV,
	FORMAT_YAML,
};

/* Strings in order of appearance; a borrowed string unless said otherwise. */
struct words {
	size_t n;
	size_t capacity;
	const char **word;
};

int words_add(struct words *words, const char *word, struct coppice_error *err);

/* Everything that the command line said. */
struct request {
	const struct command *command;
	struct words words; /* what is neither the command's name nor an option */

	/* everywhere */
	const char *root;
	unsigned lock_timeout_ms;
	bool is_quiet;
	bool is_explain;
	bool is_dry_run;
	bool is_help;
	bool is_version;

	/* where the command takes them */
	enum format format;
	const char *pool;
	const char *fingerprint;
	uint64_t memory_limit_bytes;
	size_t count; /* 0: not given */
	struct words aliases;
	struct words assignments; /* key=value of -c */
	bool is_forced;
	bool is_exact;
	bool is_repair;
	bool is_full;
	bool is_instance_only, is_refresh;
	bool is_skipping_nested;
	bool is_all;
	bool is_empty;
	enum coppice_content content;
	bool has_content; /* it was given */

	/* what the command's own prepare() made of the words */
	char **names; /* owned, and each of them */
	size_t n_names;
	struct coppice_setting *settings; /* owned, keys too; values are borrowed */
	size_t n_settings;
	const char *driver;
};

void request_done(struct request *request);

/* ---- commands ---- */

/* Options that only some commands take. */
enum takes {
	TAKES_FORMAT = 1 << 0,
	TAKES_POOL = 1 << 1,
	TAKES_CONFIG = 1 << 2,
	TAKES_COUNT = 1 << 3,
	TAKES_FORCE = 1 << 4,
	TAKES_EXACT = 1 << 5,
	TAKES_REPAIR = 1 << 6,
	TAKES_FULL = 1 << 7, /* with --instance-only, --refresh */
	TAKES_ALIAS = 1 << 8,
	TAKES_FINGERPRINT = 1 << 9,
	TAKES_MEMORY_LIMIT = 1 << 10,
	TAKES_SKIP_NESTED = 1 << 11,
	TAKES_ALL = 1 << 12,
	TAKES_EMPTY = 1 << 13, /* with --content */
};

struct command {
	const char *name;    /* "init", "image alias create" */
	const char *summary; /* one line, for the list */
	const char *usage;   /* what follows the name */
	const char *example;
	size_t min_words;
	size_t max_words;
	unsigned options; /* enum takes, combined */
	bool is_changing; /* its --explain goes to standard output: it is all it prints */

	/* Make sense of the words without the library; NULL: they are fine as they are. */
	int (*prepare)(struct request *request, struct coppice_error *err);
	/* Do it. Prints what was asked for, not errors. */
	int (*run)(const struct request *request, struct coppice *coppice,
		   struct coppice_error *err);
};

/* In the order of the help; ends with a NULL name. A command without run is a heading. */
extern const struct command commands[];

const struct command *command_find(const char *name);

/* Do names of commands begin with this word or these words, as with "storage"? */
bool command_is_group(const char *words);

/* ---- options.c, help.c ---- */

/* Parse a whole command line. COPPICE_INVALID says what is wrong with it. */
int options_parse(int argc, char **argv, struct request *request, struct coppice_error *err);

/* How the options of a command are shown by --help; NULL: those of all commands. */
void options_help(const struct command *command, FILE *out);

/* The list of commands; of one group, where @group is not NULL. */
void help_commands(const char *group, FILE *out);

/* The nearest of the commands' names, or NULL when none is near. */
const char *help_nearest_command(const char *word);

/* How many letters must be put in, taken out or changed to make @b of @a? */
size_t text_distance(const char *a, const char *b);

/* ---- names.c, settings.c, text.c ---- */

#define NAMES_MAX 100000

/*
 * Expand c{1..100}, c{01..10} and web{a,b} in @words, from @first on, into
 * request->names. COPPICE_INVALID for a name that occurs twice, and for more
 * than NAMES_MAX.
 */
int names_expand(struct request *request, size_t first, struct coppice_error *err);

/* Make NAME1 … NAMEN of the one NAME at @first. */
int names_count(struct request *request, size_t first, struct coppice_error *err);

/*
 * Parse key=value words into request->settings, from @first on. Two words without
 * a `=` are a key and its value, if @can_pair.
 */
int settings_parse(struct request *request, const struct words *words, size_t first, bool can_pair,
		   struct coppice_error *err);

/* The words are keys to remove. */
int settings_unset(struct request *request, size_t first, struct coppice_error *err);

/* The value of a key, or NULL. */
const char *settings_get(const struct coppice_settings *settings, const char *key);

/* Every line on standard error is said here: "coppice: ", @begin, and @text without controls. */
void line_say(const char *begin, const char *text);

#define SIZE_TEXT_MAX 32
#define TIME_TEXT_MAX 80
void size_text(uint64_t bytes, char ret[static SIZE_TEXT_MAX]);
bool size_parse(const char *text, uint64_t *ret);
void time_text(int64_t ns, char ret[static TIME_TEXT_MAX]);

/* "434.10MiB", "≤434.10MiB", "unknown"; integers if @is_raw. */
#define BYTES_TEXT_MAX 40
void bytes_text(struct coppice_bytes bytes, bool is_raw, char ret[static BYTES_TEXT_MAX]);
