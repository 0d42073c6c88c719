/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Pools that are a tree of directories: what the drivers on file systems share.
 *
 *	images/FP/            a volume: a plain directory with the record as an
 *	  live/               attribute, and the data, a subvolume or a directory
 *	containers/NAME/
 *	  live/rootfs/        what the container sees as /
 *	  snapshots/SNAP/     the same again
 *	    live/
 *	virtual-machines/ custom/
 *	drafts/UUID/NAME/     volumes in the making; a flock on drafts/UUID says that
 *	                      their maker lives; what it announced says, when it does
 *	                      not, what is to be published all the same
 *	deleted/UUID/         retired volumes, by their own uuid
 *
 * One rename(2) of such a directory publishes, renames or retires a volume with
 * all its snapshots. A driver embeds struct layout, fills in how its engine
 * treats `live`, and puts the layout_… functions into its table.
 */

#include <limits.h>

#include "driver/driver.h"

struct layout;

/* What differs between the engines on directories. */
struct layout_engine {
	/* Destroy the data called "live" (or what else @name is) in @dir_fd. Not there: OK. */
	int (*data_destroy)(struct layout *layout, int dir_fd, const char *name,
			    struct coppice_error *err);

	/* The commands equal to that, for explain. */
	void (*data_destroy_explain)(struct layout *layout, const char *path);

	/*
	 * Give up the space account of a volume whose data is gone; *ret_held: others
	 * still hold some of it. NULL where there are no accounts.
	 */
	int (*account_close)(struct layout *layout, const struct uuid *uuid, bool *ret_held,
			     struct coppice_error *err);

	/*
	 * Nothing can be renamed any more: free what is kept for that. Was there any? Then it
	 * is worth another try. NULL: nothing is kept.
	 */
	bool (*make_room)(struct layout *layout);

	/* Does publishing need each directory synced, for want of one commit for all? */
	bool needs_directory_sync;
};

/* In the directory of a volume that is being filled: what `live` will be made of. */
#define LAYOUT_UNPACK "unpack"

struct layout {
	struct pool pool;
	const struct layout_engine *engine;
	char *path;   /* of the pool's root; absolute; owned */
	char *quoted; /* the same as a word for a shell; owned */
	int fd;       /* the same, open */
	int kind_fd[VOLUME_KINDS];
	int drafts_fd;
	int deleted_fd;
	bool has_retired;         /* since the last commit */
	bool has_closed_accounts; /* since the last reap, as far as they can be */
	bool has_no_attributes;   /* records are files: the file system knows no trusted.* */
};

/* "images", "containers", …: the folder of a kind. */
const char *layout_kind_folder(enum volume_kind kind);

/* Path of a volume or snapshot below the root: "containers/c1/snapshots/s0". */
_nonnull_ const char *layout_ref_path(const struct volume_ref *ref, char ret[static PATH_MAX]);

/* Name of a new volume within its draft: "c1", "c1/snapshots/s0", "c1@s0". */
_nonnull_ const char *layout_item_path(const struct new_volume *volume, char ret[static PATH_MAX]);

/* Make the folders below an empty directory, and write the pool's record. */
_nonnull_ int layout_make(const char *path, const char *record, struct coppice_error *err);

_nonnull_ void layout_make_explain(const char *path, explain_fn *explain, void *user);

/*
 * Remove the folders and the record again, and what drafts and deleted volumes
 * are left. COPPICE_BUSY when there are volumes, or something of somebody else.
 */
_nonnull_ int layout_unmake(struct layout *layout, struct coppice_error *err);

/* Open what layout_make made. COPPICE_INVALID: there is no pool at @path. */
_nonnull_ int layout_open(struct layout *layout, const char *path,
			  const struct layout_engine *engine, struct coppice_error *err);
void layout_done(struct layout *layout);

/* Is this record, found in a pool, one of a pool that @spec describes? */
_nonnull_ int layout_check_owner(struct layout *layout, const struct pool_spec *spec,
				 struct coppice_error *err);

/* Tell the explain hook a line; every %s must be quoted for a shell where it needs to be. */
_nonnull_ _printf_(2, 3) void layout_explain(struct layout *layout, const char *fmt, ...);

/* Make the directory of a new volume in its draft, with its record. */
_nonnull_ int layout_item_create(struct draft *draft, const struct new_volume *volume,
				 struct coppice_error *err);
_nonnull_ void layout_item_explain(struct draft *draft, const struct new_volume *volume);

/* A limit that the pool cannot enforce is refused, not forgotten: what can_limit says. */
_nonnull_ int layout_refuse_limits(struct pool *pool, const struct new_volume *volumes, size_t n,
				   struct coppice_error *err);

/* Replace the record of one that is in the draft. */
_nonnull_ int layout_item_record(struct draft *draft, const struct new_volume *volume,
				 struct coppice_error *err);

/* Do two volumes' space accounts coincide: has the volume one of its own? */
_nonnull_ bool layout_has_own_account(const struct new_volume *volume);

/* Close the accounts of what was destroyed before; the next reap need not. */
_nonnull_ void layout_close_accounts(struct layout *layout);

/* Is the account of a retired volume with this uuid still to be closed? */
_nonnull_ bool layout_has_account_left(struct layout *layout, const struct uuid *uuid);

/* Called for each retired volume whose directory is still there, with its record. */
typedef int deleted_fn(void *user, const char *record, const struct uuid *uuid,
		       struct coppice_error *err);
_nonnull_ int layout_deleted(struct layout *layout, deleted_fn *fn, void *user,
			     struct coppice_error *err);

/* ---- ops of struct driver ---- */

int layout_pool_hold(struct pool *pool, enum pool_hold how, struct coppice_error *err);
int layout_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err);
int layout_pool_record_write(struct pool *pool, const char *record, struct coppice_error *err);
const char *layout_pool_mount_path(struct pool *pool);
int layout_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err);
int layout_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
			  struct coppice_error *err);
int layout_draft_discard(struct draft *draft, struct coppice_error *err);
int layout_draft_path(struct draft *draft, const struct new_volume *volume, char **ret,
		      struct coppice_error *err);
int layout_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err);
int layout_publish(struct draft *draft, const struct new_volume *volumes, size_t n,
		   struct coppice_error *err);
int layout_swap(struct draft *draft, const struct new_volume *replacement,
		const struct volume_ref *ref, struct coppice_error *err);
int layout_rename(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
		  struct coppice_error *err);
int layout_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
			struct coppice_error *err);
int layout_record_read(struct pool *pool, const struct volume_ref *ref, char **ret,
		       struct coppice_error *err);
int layout_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
		  size_t n, struct coppice_error *err);
void layout_unretire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
		     size_t n);
int layout_reap(struct pool *pool, struct coppice_error *err);
int layout_stamp(struct pool *pool, uint64_t *ret, struct coppice_error *err);
int layout_touch(struct pool *pool, struct coppice_error *err);
int layout_scan(struct pool *pool, scan_fn *fn, void *user, struct coppice_error *err);
int layout_path(struct pool *pool, const struct volume_ref *ref, char **ret,
		struct coppice_error *err);

/* The op in_use; where there is an op nested, each tree is a subvolume, and so is what that tells.
 */
int layout_in_use(struct layout *layout, const struct volume_ref *refs, size_t n, in_use_fn *tell,
		  void *user, struct coppice_error *err);
