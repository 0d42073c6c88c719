/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Copies of instances with their snapshots; for copy.c and move.c. */

#include "core/instances.h"

/* What is copied, whereto, and how. */
struct copying {
	struct volume source;
	struct pool_entry *target;
	struct volume_name name;
	bool is_full; /* share nothing */
	bool is_move; /* keep identity and times */
	enum copy_way way;
	unsigned may_lose; /* enum coppice_loss */
	struct source_snapshot {
		struct volume_ref ref;
		struct record record;
	} * snapshots; /* by age */
	size_t n_snapshots;
	const struct volume_ref *base; /* an earlier copy to be refreshed; or NULL */
	char *nested_note;             /* of a move, for when it is over */
};

_nonnull_ void copying_done(struct copying *copying);

/* Lock both names and the pools; a move takes the source exclusively. @pool may be NULL. */
int copying_lock(struct coppice *coppice, const struct volume_ref *source, bool is_move,
		 const struct volume_name *target, const char *pool, struct locks *locks,
		 struct coppice_error *err);

/* Where to: the pool named, else that of the source. */
int copying_find_target(struct coppice *coppice, const char *pool, struct copying *copying,
			struct coppice_error *err);

/* The snapshots that go along. */
_nonnull_ int copying_find_snapshots(struct coppice *coppice, struct copying *copying,
				     struct coppice_error *err);

/* What @copying is to share, by what was asked for and by its pools. */
_nonnull_ enum copy_way copying_way(const struct copying *copying);

/*
 * Make in the draft what was described: the volume first, then its snapshots, nested.
 * copying->way is set.
 */
_nonnull_ int copying_make(const struct copying *copying, struct draft *draft,
			   const struct makings *makings, struct coppice_error *err);

/* Add to a lineage what a copy made that way shares with its source. */
_nonnull_ int copying_add_lineage(const struct copying *copying, struct record *record,
				  struct coppice_error *err);

/* The configuration of what is copied, without what only the driver of the source knows. */
_nonnull_ int copying_take_config(const struct copying *copying, const struct record *from,
				  struct record *to, struct coppice_error *err);

/* Bring what was copied before, @target, up to date; under the same locks. */
_nonnull_ int copying_refresh(struct coppice *coppice, struct copying *copying,
			      const struct volume *target, struct coppice_error *err);

/* Under the locks, with all found: make the copy, publish it, durable. */
_nonnull_ int copying_run(struct coppice *coppice, struct copying *copying,
			  struct coppice_error *err);
