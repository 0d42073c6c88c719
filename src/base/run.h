/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Running other programs: mkfs, the engines' own tools. The only place from
 * which the library starts them, so that tests can stand in for any of them.
 */

#include <stdio.h>
#include <sys/types.h>

#include "base/error.h"

struct run_result {
	int exit_status; /* 128 + signal when it was killed by one */
	char *out;       /* owned; NUL-terminated; what it wrote, cut at 64 MiB */
	char *err;       /* the same of its standard error */
};

void run_result_done(struct run_result *result);

/* Whether a program that runs long is to be stopped; asked some times in a second. */
struct run_hook {
	bool (*is_stopped)(void *user); /* NULL: never */
	void *user;
};

/*
 * A program that runs on, does what it is told line by line, and answers each. It ends when
 * talk_end() closes its input, or when this process is gone.
 */
struct talk {
	pid_t pid;
	int to;     /* its standard input */
	FILE *from; /* its standard output */
	char *buffer; /* of that; owned */
};

struct runner {
	/*
	 * Run argv[0], looked up in a fixed path, with LC_ALL=C and an empty
	 * standard input. An exit status other than 0 is a result, not an
	 * error. COPPICE_UNSUPPORTED when the program is not installed.
	 */
	int (*run)(const char *const argv[], struct run_result *result, struct coppice_error *err);

	/*
	 * Run @from and @to, what the one prints being what the other reads, through
	 * us: when this process dies, both end soon. results[0] is of @from, [1] of @to;
	 * without what they printed. COPPICE_INTERRUPTED: @hook said so; both have ended.
	 */
	int (*pipe)(const char *const from[], const char *const to[], const struct run_hook *hook,
		    struct run_result results[2], struct coppice_error *err);

	/*
	 * Start a program to talk with, with @variable, "NAME=VALUE", in its environment as well,
	 * and @error as its standard error: so it holds the lock that is on that, if there is one.
	 */
	int (*talk)(const char *const argv[], const char *variable, int error, struct talk *ret,
		    struct coppice_error *err);
};

/* Who runs programs: fork and exec, unless a test put itself here. Never NULL. */
extern struct runner runner;

/* Tell it a line. What it answers is read from talk->from. COPPICE_FAILED: it is gone. */
_nonnull_ int talk_say(const struct talk *talk, const char *line, struct coppice_error *err);

/* Let it end, and wait for that. Takes a zeroed one, too. */
void talk_end(struct talk *talk);

/* The same, at once, of one that waits for a line and has nothing else to do. */
void talk_kill(struct talk *talk);

/* Run, and make an exit status other than 0 an error that quotes the program's last line. */
_nonnull_ int run_checked(const char *const argv[], struct coppice_error *err);
