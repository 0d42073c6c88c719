/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Calls that the kernel may not come back from, as what they wait for does not answer: no signal
 * ends them. A process of its own makes them, and is left behind.
 */

#include <stdint.h>

#include "base/error.h"

/* Done in a fork of this process, which has none of its files open, nor its other threads. */
typedef int bounded_fn(void *user, struct coppice_error *err);

#define BOUNDED_KEEP_MAX 3

struct patience {
	unsigned most_ms;                 /* to wait while nothing goes on */
	uint64_t (*progress)(void *user); /* what goes on changes it; NULL: nothing can be seen */
	void *user;
	unsigned interrupted_ms;            /* the same, once interrupted */
	bool (*is_interrupted)(void *user); /* NULL: never */
	void *interrupted_user;

	/* What it keeps open until its end, with the locks of that. */
	int keep_fd[BOUNDED_KEEP_MAX];
	size_t n_keep;
};

/* Waiting as @patience says: */
struct waiting {
	uint64_t seen;
	int64_t since_ms; /* nothing has gone on */
};

void waiting_begin(struct waiting *waiting, const struct patience *patience);

/* To be asked often. COPPICE_OK: wait on. COPPICE_UNAVAILABLE, os_errno ETIMEDOUT; INTERRUPTED. */
int waiting_check(struct waiting *waiting, const struct patience *patience,
		  struct coppice_error *err);

/*
 * Call @fn and wait for its end: what it returned, and its error. What it changes in memory is
 * lost. COPPICE_UNAVAILABLE with os_errno ETIMEDOUT: nothing went on for so long; it is still at
 * it, and may end later as if it had been called then. COPPICE_INTERRUPTED: the same.
 */
int run_bounded(bounded_fn *fn, void *user, const struct patience *patience,
		struct coppice_error *err);

/* In @fn: does whoever called it wait for it still? */
bool bounded_is_awaited(void);
