/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Commits of Btrfs, and how many snapshots share one. */

#include "base/parallel.h"

/*
 * Commit the transaction: all that was created, renamed and recorded is on disk then.
 * Not syncfs(2), which waits for everybody's dirty data: 1,875 ms beside 1.5 GB of
 * it, where this took 1.6 ms. Once begun it goes on by itself.
 */
_nonnull_ int batch_commit(int fd, struct coppice_error *err);
_nonnull_ int batch_commit_begin(int fd, uint64_t *ret_transid, struct coppice_error *err);
_nonnull_ int batch_commit_wait(int fd, uint64_t transid, struct coppice_error *err);

/*
 * Call @snapshot for i = 0 … n-1, on threads, which makes one snapshot each in a
 * directory of its own; all are durable when it returns, and what was done in the file
 * system before. Waits for few commits instead of one for each. @fd: a directory of the
 * caller's alone in that file system, whose times may change. Fails as parallel_run does.
 */
_nonnull_ int batch_run(int fd, size_t n, parallel_fn *snapshot, void *user,
			struct coppice_error *err);
