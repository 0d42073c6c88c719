/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Undo: take back what an operation has done so far when a later step fails.
 *
 * Memory and descriptors are released by _cleanup_(); this is for what stays
 * behind when the process is gone: volumes, files, mounts, loop devices.
 *
 *	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT;
 *
 *	r = loop_attach(file, &loop, err);
 *	if (r < 0)
 *		return r;
 *	undo_push(&undo, undo_loop_detach, NULL, loop.path);
 *	...
 *	undo_commit(&undo);
 *	return COPPICE_OK;
 *
 * Rules
 *  - Push after the step succeeded, and only for what this call itself created
 *    exclusively: never destroy what somebody else made.
 *  - Names are copied, so an entry never outlives its argument. @owner is
 *    borrowed and must outlive the struct undo.
 *  - Pushing cannot fail: the entries are inline. A batch of a thousand volumes
 *    is one entry, its draft. More than UNDO_MAX is a bug and aborts.
 *  - Rollback goes on after a failing entry, newest first, and reports each.
 *  - A killed process rolls nothing back: hence drafts, swept by the next one.
 */

#include "base/error.h"

#define UNDO_MAX      8
#define UNDO_NAME_MAX 1024

typedef int undo_fn(void *owner, const char *name, struct coppice_error *err);

struct undo {
	size_t n;
	struct undo_entry {
		undo_fn *fn;
		void *owner;
		char name[UNDO_NAME_MAX];
	} entry[UNDO_MAX];
};

/* Entries above n are never read, so only n needs a value. */
/* clang-format off */
#define UNDO_INIT { .n = 0 }
/* clang-format on */

void undo_push(struct undo *undo, undo_fn *fn, void *owner, const char *name);

/* The operation is complete: forget all entries. */
static inline void undo_commit(struct undo *undo)
{
	undo->n = 0;
}

/* Run and forget all entries, newest first. Does nothing after a commit. */
void undo_rollback(struct undo *undo);

/*
 * Called for each entry that could not be undone; NULL: nobody is told. What is
 * left then is a draft, which the next command sweeps.
 */
extern void (*undo_report)(const char *name, const struct coppice_error *err);
