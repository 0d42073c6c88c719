/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Figures of space out of the engines' accounts.
 *
 * An engine that charges each extent to who wrote it first tells what a volume has
 * written. Whatever else a clone refers to was written by those it was cloned from,
 * and is charged to them: so what it refers to is at most its own account and those
 * of its lineage together. That is a bound, and is shown as one; with no lineage, snapshots
 * and copies it is exact. An engine that counts what a volume refers to is believed. What a snapshot refers
 * to its instance had written then, or those had: the same bound.
 *
 * What it alone holds is its own account; but of those of its lineage it may hold what
 * nobody else has any more, as they are gone, or have overwritten it. A bound again.
 */

#include "core/core.h"

/* A volume of a pool, with what is known of it. */
struct accounted {
	struct volume_ref ref;
	struct record record;
	struct coppice_bytes written, refers, unique;
	struct coppice_bytes shared; /* of refers, what others have as well, snapshots, too */
};

/* All volumes of a pool; of snapshots only refers: else they are in their instance's account. */
struct accounts {
	struct accounted *volume; /* in the order of the catalog */
	size_t n;
	struct account {
		struct uuid uuid;
		const struct accounted *volume; /* NULL: it is gone */
		struct coppice_bytes charged;
		struct coppice_bytes refers, unique, alone; /* where the engine counts these, too */
		bool has_heirs;     /* others have it in their lineage */
		bool has_snapshots; /* which are no others, but keep what it rewrites */
	} * account; /* by uuid; of volumes, and of ancestors that are gone */
	size_t n_accounts;
	bool counts_refers; /* the engine does, of some at least */
};

_nonnull_ int accounts_read(struct coppice *coppice, struct pool_entry *entry, bool is_exact,
			    struct accounts *ret, struct coppice_error *err);
void accounts_done(struct accounts *accounts);

/* Sums that do not pretend to know more than their parts. */
struct coppice_bytes bytes_add(struct coppice_bytes a, struct coppice_bytes b);
struct coppice_bytes bytes_subtract(struct coppice_bytes a, struct coppice_bytes b);
