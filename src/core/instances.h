/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What instances.c, copy.c and snapshots.c share. */

#include "core/core.h"

/*
 * Publish the volumes of a draft, tell the catalog, end the draft, and commit.
 * @makings with is_nested go with their instance. What the catalog cannot take
 * is no failure: the pool is right, and read anew by the next command.
 */
_nonnull_ int publish(struct coppice *coppice, struct pool_entry *entry, struct draft *draft,
		      const struct makings *makings, struct coppice_error *err);

/*
 * Clone @origin as all of @makings, none nested, and do what publish does, in as few
 * commits as the engine can.
 */
_nonnull_ int publish_clones(struct coppice *coppice, struct pool_entry *entry, struct draft *draft,
			     const struct volume_ref *origin, const struct makings *makings,
			     bool is_read_only, struct coppice_error *err);

/* Make a draft, and leave it to @undo. */
_nonnull_ int draft_begin(struct pool_entry *entry, struct draft *draft, struct undo *undo,
			  struct coppice_error *err);

/* Parse all, and refuse a name that occurs twice. */
int instance_names_parse(const char *const *names, size_t n, struct volume_name *ret,
			 struct coppice_error *err);

/* COPPICE_UNSUPPORTED: instances of this kind cannot be in that pool. */
_nonnull_ int refuse_content(const struct pool_entry *entry, enum volume_kind kind,
			     struct coppice_error *err);

/* Retire volumes of one pool, tell the catalog, commit, and reap. */
_nonnull_ int retire(struct coppice *coppice, struct pool_entry *entry,
		     const struct volume_ref *refs, const struct uuid *uuids, size_t n,
		     struct coppice_error *err);

/*
 * Are the files of one of these used by any process? COPPICE_BUSY naming it, or a notice
 * for each if @may_lose (enum coppice_loss) says so.
 */
_nonnull_ int refuse_in_use(struct coppice *coppice, const struct volume *volumes, size_t n,
			    unsigned may_lose, struct coppice_error *err);

/*
 * @err, with which an unmount of the pool, or of @only if that is not NULL, failed, says who
 * uses what is in it, if that can be found. Returns its code.
 */
int fail_mounted(struct coppice *coppice, struct pool_entry *entry, const struct volume_ref *only,
		 struct coppice_error *err);

/* What would become of nested subvolumes, to say so. */
enum nested_fate {
	NESTED_LEFT_OUT,
	NESTED_DESTROYED,
};

/*
 * Are there subvolumes within it? COPPICE_UNSUPPORTED naming them, or if @may_lose says so
 * a note in *ret_note, for nested_tell() once it has happened; free() it.
 */
_nonnull_ int refuse_nested(struct pool_entry *entry, const struct volume_ref *ref,
			    enum nested_fate fate, unsigned may_lose, char **ret_note,
			    struct coppice_error *err);

/* @note: NULL where there were none. */
void nested_tell(struct coppice *coppice, const char *note);

/* The same as a list of paths, as the container sees them; free() it and each. */
_nonnull_ int nested_list(struct pool_entry *entry, const struct volume_ref *ref, char ***ret,
			  size_t *ret_n, struct coppice_error *err);
