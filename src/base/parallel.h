/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The same step on many things at once, each on a thread of its own while they last. */

#include <pthread.h>

#include "base/error.h"

/*
 * Begin a thread that takes no signals: those belong to the caller's own. Join it. @attributes:
 * NULL: as always. Returns 0 or an errno, as pthread_create(3).
 */
int thread_begin(pthread_t *ret, const pthread_attr_t *attributes, void *(*fn)(void *), void *user);

/*
 * Do step number @i. A failing step keeps those not yet begun from beginning.
 * Called on any thread; @user is shared.
 */
typedef int parallel_fn(void *user, size_t i, struct coppice_error *err);

/*
 * Call @fn for i = 0 … n-1 on up to @threads threads, and wait for all.
 * Returns the failure with the smallest i, or COPPICE_OK. Works on fewer
 * threads when the system gives no more, on the caller's alone if it must.
 */
_nonnull_ int parallel_run(size_t n, size_t threads, parallel_fn *fn, void *user,
			   struct coppice_error *err);
