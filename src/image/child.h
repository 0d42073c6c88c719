/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Starting our own programs that read and write archives. */

#include <sys/types.h>

#include "base/error.h"

/* Descriptors for a child must be above this, or they are in the way of its 0 to 3. */
enum {
	CHILD_FD_ABOVE = 10
};

/* Where such a program is; free() it. NULL when memory ran out. */
_nonnull_ char *child_program(const char *name);

/* Replace a descriptor by one that is out of the way. Returns it, or -1 with errno. */
_nonnull_ int child_fd_move_up(int *fd);

/*
 * Start a program of report.h: in a process group of its own (Ctrl-C reaches us
 * alone, and we end it in order), no signal blocked or ignored.
 *
 * @param in      its standard input
 * @param report  its standard output
 * @param third   its descriptor REPORT_KEEP_FD; -1: it has none
 * @param is_mute it has no standard error: it may live longer than who reads that
 */
_nonnull_ int child_spawn(int in, int report, int third, bool is_mute, char *const argv[],
			  pid_t *ret, struct coppice_error *err);
