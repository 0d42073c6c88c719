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

struct patience {
	unsigned most_ms;                 /* to wait while nothing goes on */
	uint64_t (*progress)(void *user); /* what goes on changes it; NULL: nothing can be seen */
	void *user;
};

/*
 * Call @fn and wait for its end: what it returned, and its error. What it changes in memory is
 * lost. COPPICE_UNAVAILABLE with os_errno ETIMEDOUT: nothing went on for so long; it is still at
 * it, and may end later as if it had been called then.
 */
int run_bounded(bounded_fn *fn, void *user, const struct patience *patience,
		struct coppice_error *err);
