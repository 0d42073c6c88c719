/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A directory beside a pool whose engine has no place for locks: files that say who is at
 * work on it, each locked by its maker for as long as he lives.
 *
 *	UUID        a draft
 *	UUID.shown  one whose maker is dead, and which a sweep is publishing
 *	by-UUID     on Ceph: somebody at work, as other hosts know him
 *	owed-UUID   somebody took something out of sight, and is to reap it
 *	clean       since this start of the machine all was reaped; but for what is owed
 *	stamp       what touch changes
 *
 * So whoever comes next knows, without asking the engine, whether something was left behind.
 */

#include "driver/driver.h"

struct pool_state {
	char *path;       /* the directory; owned */
	struct uuid owed; /* ours, if owed_fd is not -1 */
	int owed_fd;
};

void state_done(struct pool_state *state);

/* ---- locks ---- */

/* Make a file "@prefix""UUID" that is ours as long as we live. */
_nonnull_ int state_lock_new(const struct pool_state *state, const char *prefix,
			     struct uuid *ret_id, int *ret_fd, struct coppice_error *err);

/* Its maker is dead or has done: *ret_fd keeps others off it, or is -1. */
_nonnull_ bool state_lock_is_over(const struct pool_state *state, const char *name, int *ret_fd);

/*
 * Of a draft's, which has its uuid as name: while it is there, what the draft made is neither
 * published nor taken back, and nobody sees it. To remove it shows all of that in one step.
 */
_nonnull_ bool state_lock_is_there(const struct pool_state *state, const char *name);
_nonnull_ void state_lock_remove(const struct pool_state *state, const char *name);

/* ---- drafts of the dead ---- */

/*
 * Call @fn for each draft whose maker is dead, holding its lock. COPPICE_OK when it was ended,
 * which *n counts.
 */
typedef int state_draft_fn(void *user, const char *id, int fd, struct coppice_error *err);
_nonnull_ int state_drafts_each(const struct pool_state *state, state_draft_fn *fn, void *user,
				size_t *n, struct coppice_error *err);

/* The same for each file "@prefix""UUID" that nobody holds. */
_nonnull_ int state_dead_each(const struct pool_state *state, const char *prefix,
			      state_draft_fn *fn, void *user, size_t *n,
			      struct coppice_error *err);

/*
 * Show what a dead maker announced. The file stays under another name until that is noted,
 * so that a sweep that is killed before is repeated.
 */
_nonnull_ int state_draft_show(const struct pool_state *state, struct pool *pool, const char *id,
			       struct coppice_error *err);

/* ---- is there anything to reap? ---- */

/*
 * Before something is taken out of sight: it is to be reaped, by us, or by who finds us dead, or
 * by whoever comes next if we leave it to them.
 */
_nonnull_ void state_owe(struct pool_state *state);
_nonnull_ void state_owe_nothing(struct pool_state *state);
_nonnull_ void state_leave_owed(struct pool_state *state);

/*
 * What the dead owe: to be taken before who pays looks what there is to reap, and given back
 * when he could not.
 */
struct state_debts {
	struct state_debt {
		struct uuid id;
		int fd;
	} *debt;
	size_t n;
};

_nonnull_ void state_debts_take(const struct pool_state *state, struct state_debts *ret);
_nonnull_ void state_debts_done(struct state_debts *debts);

/* These are paid, and what we owe ourselves: all is reaped but for what others owe. */
_nonnull_ void state_debts_paid(struct pool_state *state, struct state_debts *debts);

/* Is it known that nothing waits for being reaped but by the living? */
_nonnull_ bool state_is_clean(const struct pool_state *state);

/* Of a pool that is no more. */
_nonnull_ void state_remove(struct pool_state *state);
