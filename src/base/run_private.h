/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What run.c and run_pipe.c share. */

#include <sys/types.h>

#include "base/run.h"

/* Start it with these descriptors; @in -1: an empty input. COPPICE_UNSUPPORTED: not installed. */
_nonnull_ int run_spawn(const char *const argv[], int in, int out, int error, pid_t *ret,
			struct coppice_error *err);

/* The same, with a variable in its environment; NULL: none. */
int run_spawn_with(const char *const argv[], const char *variable, int in, int out, int error,
		   pid_t *ret, struct coppice_error *err);

/* Wait for its end: its exit status, or 128 + the signal that killed it. */
_nonnull_ int run_wait(pid_t pid, int *ret_exit_status, struct coppice_error *err);

/* runner.pipe */
_nonnull_ int run_pipe(const char *const from[], const char *const to[],
		       const struct run_hook *hook, struct run_result results[2],
		       struct coppice_error *err);

/* runner.talk */
int run_talk(const char *const argv[], const char *variable, int error, struct talk *ret,
	     struct coppice_error *err);
