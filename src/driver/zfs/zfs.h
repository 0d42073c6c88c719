/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * ZFS, by its own commands: volumes are datasets, clones are clones, records are user
 * properties, sizes are refquotas. What was tried, and on which version, is in
 * docs/drivers.md; what lies where, in docs/on-disk.md.
 *
 *	ROOT/images/FP                 + @readonly, which its clones stand on
 *	ROOT/containers/NAME           + @snapshot-SNAP
 *	ROOT/containers/NAME/UUID      not mounted; holds @snapshot-SNAPs that are not of the
 *	                               history of NAME itself, as after a restore
 *	ROOT/drafts/UUID               of a draft; what is below it nobody sees
 *	ROOT/deleted/containers/UUID   a tombstone
 *	ROOT/mounts/…                  clones of snapshots, while somebody reads those
 *	…@copy-DRAFT @deleted-UUID     what clones stand on and no user made, or still has
 *	…@guard                        held: guarding.c
 */

#include "driver/driver.h"
#include "driver/generic/pool_state.h"

extern const struct driver driver_zfs;

/* A dataset's or snapshot's whole name; ZFS allows 255. */
#define DATASET_MAX 512

/* As many of these as fit into the arguments of any command. */
#define ZFS_NAMES_MAX 1000

#define PROPERTY_RECORD "coppice:record" /* of a volume or a snapshot */
#define PROPERTY_POOL   "coppice:pool"   /* of the root: the pool's record */
#define PROPERTY_MADE   "coppice:made"   /* of the root: this dataset was made by pool_create */
#define PROPERTY_DRAFT  "coppice:draft"  /* unseen while the draft of this uuid is pending */
#define PROPERTY_SWAP   "coppice:swap"   /* whose place this one had when a swap began */

/*
 * Linux's limit for a value is 4096 with its NUL in every version; only others have
 * 1024. It must be one property: zfs-fuse sets one in a command, and a record that
 * is in two would not be replaced in one step.
 */
#define RECORD_MAX 4000

struct listing;

struct zfs_pool {
	struct pool pool;
	char *root;       /* the dataset that all lies in */
	char *zpool;      /* its first component */
	char *source;     /* file or device that we made the zpool on; NULL: it was there */
	bool is_our_file; /* and the file is ours, too */
	struct pool_state files; /* in STATE/zfs/NAME */
	char *mount;      /* STATE/mnt/NAME: where what is mounted is mounted */
	bool is_guarded;  /* coppice.guard */
	bool is_reaped;   /* by the last retire itself */
	struct listing *reading; /* between reading_begin and reading_end; or NULL */
	bool is_reading_all;     /* it is of the whole pool, for who only looks */
};

static inline struct zfs_pool *zfs_pool_of(struct pool *pool)
{
	return CONTAINER_OF(pool, struct zfs_pool, pool);
}

/* ---- command.c: running zfs and zpool ---- */

/* Is it the kernel that has ZFS? Else it is zfs-fuse, if anybody. */
bool zfs_is_in_kernel(void);

/* ZFS_ARGS("zfs", "list") as an argument list. */
#define ZFS_ARGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/*
 * Run it, by the library if that can, and again for some time while it says that a dataset is busy:
 * the unmount before it may not be over. The error has what it said, and the code is
 * COPPICE_NOT_FOUND or COPPICE_EXISTS only if it said so.
 * @ret_out  what it printed, also when it failed; free() it; NULL: not wanted
 */
int zfs_run(const char *const argv[], char **ret_out, struct coppice_error *err);

/* The same of two, what the one prints being what the other reads; stopped on demand. */
int zfs_pipe(struct pool *pool, const char *const from[], const char *const to[],
	     struct coppice_error *err);

/* What a failed command means, from its status and standard error; for zfs_run and its test. */
_nonnull_ int zfs_command_error(const char *const argv[], int exit_status, const char *text,
				struct coppice_error *err);

/* Tell a line of bash. */
_printf_(2, 3) void zfs_explain(struct pool *pool, const char *fmt, ...);

/* ---- library.c: libzfs_core instead of a process ---- */

struct zfs_request {
	enum zfs_what {
		ZFS_CREATE,
		ZFS_CLONE,
		ZFS_SNAPSHOT,
		ZFS_RENAME,
		ZFS_PROMOTE,
		ZFS_DESTROY,
		ZFS_DESTROY_SNAPSHOT,
		ZFS_HOLD,
		ZFS_RELEASE,
	} what;
	const char *name;         /* what is made, changed or destroyed; the first of @names */
	const char *from;         /* the origin of a clone; the old name; the tag; else NULL */
	const char *const *names; /* n_names of them, one of what is no snapshot */
	size_t n_names;
	const char *option[8]; /* "property=value" */
	size_t n_options;
};

/*
 * Is this command one of those that the library has? Borrows from @argv. Of one it takes more
 * than the command does: many snapshots after "destroy".
 */
bool zfs_request_parse(const char *const argv[], struct zfs_request *ret);

/*
 * Do what the command would. False: it was not done, as there is no library, or not for
 * this, or as it cannot be; then the command is to be run, and says why.
 *
 * Atomic: as the command. Blocks: until it is durable. Threads: any, at once.
 */
bool zfs_library_run(const char *const argv[]);

/* On how many threads to do a batch: those that do it at once share transaction groups. */
size_t zfs_threads(void);

/*
 * Into how many to divide a command that takes many names, as each name takes its time. One: the
 * library does it, in one call, and then there is nothing of which it does not take many.
 */
size_t zfs_commands(void);

/* ---- dataset.c: names of datasets ---- */

/* "containers" */
const char *zfs_kind_folder(enum volume_kind kind);

/* ROOT/containers/c1, also for a snapshot of it. */
const char *zfs_volume_name(const struct zfs_pool *zfs, const struct volume_ref *ref,
			    char ret[static DATASET_MAX]);

/* ROOT/drafts/UUID/NAME; for a snapshot nested in it that of its volume. */
const char *zfs_item_name(const struct zfs_pool *zfs, const struct draft *draft,
			  const struct new_volume *volume, char ret[static DATASET_MAX]);

/* Which volume or user's snapshot has this name? False: it is something else. */
bool zfs_name_parse(const struct zfs_pool *zfs, const char *name, struct volume_ref *ret);

/* Is @name the dataset @of, a snapshot of it, or below it? */
bool zfs_is_within(const char *name, const char *of);

/* Is it one of the snapshots that are no user's: @copy-UUID, @deleted-UUID[:N], @draft-UUID? */
bool zfs_is_hidden_snapshot(const char *name);

/* ROOT/deleted/KIND/UUID, or of it, or below it. What is not called so others put there. */
bool zfs_is_tombstone(const struct zfs_pool *zfs, const char *name);

/* Is it in a folder of volumes of one kind? */
bool zfs_is_in_volumes(const struct zfs_pool *zfs, const char *name);

/* Is it in a folder of ours? In the dataset of a pool there may be others'. */
bool zfs_is_in_folders(const struct zfs_pool *zfs, const char *name);

struct dataset;

/* ROOT/containers/NAME/UUID, made by us: it is there for its snapshots only. */
bool zfs_is_history(const struct zfs_pool *zfs, const struct dataset *dataset);

/* ---- limits.c ---- */

#define ZFS_LIMITS 4

/* refquota, quota, refreservation, reservation */
extern const char *const zfs_limit_property[ZFS_LIMITS];

/* What a new volume is limited by, as options "-o", "refquota=1048576"; free() each text. */
struct limit_options {
	const char *option[2 * ZFS_LIMITS]; /* n of them */
	size_t n;
};

int limit_options_format(const struct new_volume *volume, struct limit_options *ret,
			 struct coppice_error *err);
void limit_options_done(struct limit_options *options);

/*
 * A command that was to make @volume of @origin, a snapshot, failed with @r: if its limit is
 * less than what it begins with, say so in figures, which ZFS does not.
 */
int limit_options_failed(const struct new_volume *volume, const char *origin, int r,
			 struct coppice_error *err);

/* The same in a line of bash, " -o refquota=1048576"; free() it; NULL: no memory. */
char *limit_options_told(const struct new_volume *volume);

int zfs_limit_set(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
		  uint64_t limit_bytes, unsigned how, struct coppice_error *err);

/* Give @name the limits that @from has; take away what is set aside for it. */
int zfs_limits_copy(const struct dataset *from, const char *name, struct coppice_error *err);
int zfs_limits_release(const struct dataset *dataset, struct coppice_error *err);

/* ---- listing.c: reading many properties at once ---- */

struct dataset {
	char *name;
	bool is_snapshot;
	bool is_never_mounted; /* by a canmount=off of its own */
	bool is_gone, is_stuck; /* for who destroys what is listed: it is, or will not be */
	bool is_held;           /* by others, which is why */
	char *origin, *record, *draft, *swap; /* NULL: none of its own */
	char *limits[ZFS_LIMITS];             /* in the order of zfs_limit_property */
	uint64_t used, referenced, available;
	struct coppice_bytes by_dataset; /* usedbydataset */
	uint64_t created_txg;
	uint64_t guid; /* by listing_read_history only */
	uint64_t n_holds;           /* on a snapshot, by whomever */
	size_t n_clones;            /* in this listing */
};

/* Of an image: what its clones are made of. */
#define ZFS_IMAGE_SNAPSHOT "@readonly"

struct listing {
	struct dataset *dataset;
	size_t n;
	char *text; /* what all strings point into */
};

void listing_done(struct listing *listing);

/* Is there a dataset or snapshot of this name? Asks ZFS. */
int zfs_is_there(const char *name, bool *ret, struct coppice_error *err);

/* Is there the snapshot of that dataset that clones of an image are made of? */
bool dataset_has_readonly(const struct listing *listing, const struct dataset *dataset);

/*
 * Read @targets, NULL-terminated, and all below them. Parents come before children.
 * COPPICE_NOT_FOUND: one of them is not there, though the pool is.
 */
int listing_read(struct zfs_pool *zfs, const char *const targets[], struct listing *ret,
		 struct coppice_error *err);

/* Read all of the pool. */
int listing_read_all(struct zfs_pool *zfs, struct listing *ret, struct coppice_error *err);

/* Read of all volumes and their snapshots the records, and what hides them, nothing else. */
int listing_read_volumes(struct zfs_pool *zfs, struct listing *ret, struct coppice_error *err);

/* Read those volumes, of which @refs may name snapshots, that are there, and all below them. */
int listing_read_those(struct zfs_pool *zfs, const struct volume_ref *refs, size_t n,
		       struct listing *ret, struct coppice_error *err);

/* Read of all the pool what is whose history: origins, ages and identities, nothing else. */
int listing_read_history(struct zfs_pool *zfs, struct listing *ret, struct coppice_error *err);

/* From the output of "zfs get -Hp -o name,property,value,source"; it takes over @text. */
int listing_parse(char *text, struct listing *ret, struct coppice_error *err);

struct dataset *listing_find(const struct listing *listing, const char *name);

/* Is it hidden by a draft that is not published? */
bool dataset_is_hidden(const struct zfs_pool *zfs, const struct dataset *dataset);

/* The dataset or snapshot that is this volume or user's snapshot; NULL. */
struct dataset *listing_find_ref(const struct zfs_pool *zfs, const struct listing *listing,
				 const struct volume_ref *ref);

/* Read the volume, or of a snapshot all of its volume, and find it there. COPPICE_NOT_FOUND. */
int zfs_find(struct zfs_pool *zfs, const struct volume_ref *ref, struct listing *ret_listing,
	     struct dataset **ret, struct coppice_error *err);

int zfs_fail_missing(const struct volume_ref *ref, struct coppice_error *err);

/*
 * A command said that something does not exist: is it @ref, or is the pool gone? Returns
 * the error that it is, filling @err anew.
 */
int zfs_missing(struct zfs_pool *zfs, const struct volume_ref *ref, struct coppice_error *err);

/* ---- zfs.c ---- */

/* All of the pool: the reading, if there is one of it; else read now, into *@own. */
int zfs_look(struct zfs_pool *zfs, struct listing *own, const struct listing **ret,
	     struct coppice_error *err);

/* Is there a reading, and all of these volumes in it? What it lacks may not have been asked for. */
bool zfs_reading_has(const struct zfs_pool *zfs, const struct volume_ref *refs, size_t n);
void zfs_reading_end(struct pool *pool);

/* ---- pool.c, pool_making.c ---- */

int zfs_probe(const struct pool_spec *spec, struct coppice_error *err);
int zfs_choose(struct coppice_error *err);
int zfs_pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		    struct coppice_error *err);
int zfs_pool_check(const struct pool_spec *spec, struct coppice_error *err);
void zfs_pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user);
void zfs_pool_open_explain(const struct pool_spec *spec, explain_fn *explain, void *user);
int zfs_pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err);
void zfs_pool_close(struct pool *pool);
bool zfs_pool_is_mounted(const struct pool_spec *spec);
int zfs_pool_umount(const struct pool_spec *spec, struct coppice_error *err);
int zfs_pool_destroy(const struct pool_spec *spec, struct coppice_error *err);
int zfs_pool_resize(struct pool *pool, uint64_t size_bytes, struct coppice_error *err);
int zfs_pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err);
int zfs_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err);
int zfs_pool_record_write(struct pool *pool, const char *record, struct coppice_error *err);
const char *zfs_pool_mount_path(struct pool *pool);

/*
 * Make those of the pool's folders that are not there, as zfs destroy takes empty ones
 * without asking. Only if the pool itself is there.
 */
int zfs_folders_ensure(struct zfs_pool *zfs, struct coppice_error *err);

/* Are all folders of the pool in a listing of all of it? */
bool zfs_folders_are_there(const struct zfs_pool *zfs, const struct listing *listing);

/* ---- mounting.c ---- */

/* Where a dataset is mounted, as we see it; false: nowhere. */
bool zfs_mount_find(const char *dataset, char ret[static PATH_MAX]);

/* Mount a dataset at a path, which is made; unmount it, and leave it without one. */
int zfs_mount_at(struct zfs_pool *zfs, const char *dataset, const char *path,
		 struct coppice_error *err);
int zfs_umount(const char *dataset, struct coppice_error *err);

/* Unmount all that is mounted of @dataset and below. */
int zfs_umount_within(const char *dataset, struct coppice_error *err);

/* Unmount a volume with its snapshots, or a snapshot. */
int zfs_umount_ref(struct zfs_pool *zfs, const struct volume_ref *ref, struct coppice_error *err);

int zfs_path(struct pool *pool, const struct volume_ref *ref, char **ret,
	     struct coppice_error *err);
int zfs_volume_mount(struct pool *pool, const struct volume_ref *ref, bool *ret_did,
		     struct coppice_error *err);
int zfs_volume_umount(struct pool *pool, const struct volume_ref *ref, struct coppice_error *err);
int zfs_in_use(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
	       void *user, struct coppice_error *err);

/* ---- draft.c: drafts and what is made in them ---- */

int zfs_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err);
int zfs_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
		       struct coppice_error *err);
int zfs_draft_discard(struct draft *draft, struct coppice_error *err);
int zfs_draft_path(struct draft *draft, const struct new_volume *volume, char **ret,
		   struct coppice_error *err);
int zfs_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err);

/* Make ROOT/drafts/UUID unless it was; of another's draft, or on any thread: by its uuid. */
int zfs_draft_ensure(struct draft *draft, struct coppice_error *err);
int zfs_draft_ensure_of(struct zfs_pool *zfs, const char *id, struct coppice_error *err);

/*
 * Write down, durably, what is about to be cloned of @from under its own name: so a clone that
 * never got its record is known for ours.
 */
int zfs_draft_note(struct draft *draft, const char *from, const struct new_volume *volumes,
		   size_t n, struct coppice_error *err);

/* What a draft remembers of what was made in it. */
struct making {
	bool has_dataset;   /* ROOT/drafts/UUID was made, and is there still */
	bool is_explained;  /* that it is */
	bool is_told;       /* to somebody: then its end is, too */
	size_t n_waiting;   /* snapshots of volumes, called @draft-…, without their names */
	size_t n_announced; /* under their names already, hidden */
	size_t n_aside;     /* uuids of those whose names were taken: they are below it */
	struct uuid *aside;
};

static inline struct making *making_of(const struct draft *draft)
{
	return draft->driver;
}

/* ---- making.c ---- */

int zfs_volume_create(struct draft *draft, const struct new_volume *volume, char **ret_path,
		      struct coppice_error *err);
int zfs_volume_seal(struct draft *draft, const struct new_volume *volume, bool is_read_only,
		    struct coppice_error *err);
int zfs_clone(struct draft *draft, const struct volume_ref *origin,
	      const struct new_volume *volumes, size_t n, bool is_read_only,
	      struct coppice_error *err);
int zfs_publish(struct draft *draft, const struct new_volume *volumes, size_t n,
		struct coppice_error *err);

/*
 * Freeze a volume that is being written to, as its @copy-DRAFT, whose name @ret is; once
 * for a draft.
 */
int zfs_freeze(struct draft *draft, const struct volume_ref *origin, char ret[static DATASET_MAX],
	       struct coppice_error *err);

/* ---- sending.c ---- */

enum copy_way zfs_copy_way(const struct pool_spec *spec);
int zfs_transfer(struct draft *draft, struct pool *from, const struct volume_ref *sources,
		 const struct new_volume *volumes, size_t n, enum copy_way way,
		 const struct volume_ref *base, struct coppice_error *err);

/* ---- changing.c ---- */

int zfs_swap(struct draft *draft, const struct new_volume *replacement,
	     const struct volume_ref *ref, struct coppice_error *err);
int zfs_rename(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
	       struct coppice_error *err);
int zfs_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
		     struct coppice_error *err);

/* Finish or take back a swap that was cut short: @old is where the data that was live lies. */
int zfs_swap_recover(struct zfs_pool *zfs, const struct dataset *old, struct coppice_error *err);

/*
 * Give a dataset a name that another has, if that is only the clone which a dead maker
 * never published: that one is put into its draft. Else COPPICE_EXISTS, as the engine says.
 */
int zfs_rename_displacing(struct zfs_pool *zfs, const char *from, const char *to,
			  struct coppice_error *err);

/* ---- guarding.c: what keeps zfs destroy -R off; all does nothing in a pool without ---- */

#define ZFS_GUARD_SNAPSHOT "@guard"
#define ZFS_GUARD_BELOW    "/guard"
#define ZFS_GUARD_TAG      "coppice"

/* As much as this may be in what is as good as empty: a copy that was received is not. */
#define ZFS_PINS_NOTHING (UINT64_C(128) << 10)

/* Is it there for the guard alone? */
bool zfs_is_guard(const struct zfs_pool *zfs, const char *name);

/* Tell what guards a new volume of this name. */
void zfs_guard_explain(struct zfs_pool *zfs, const char *name, enum volume_kind kind);

/* Guard a dataset that was made just now, and has no snapshot. */
int zfs_guard_begin(struct zfs_pool *zfs, const char *dataset, struct coppice_error *err);

/* The same of many: @snapshot is the @guard of each. */
int zfs_guard_begin_all(struct zfs_pool *zfs, char *snapshot[], size_t n,
			struct coppice_error *err);

/*
 * Release many that are to be destroyed, and destroy them where that is one call, as far as
 * that goes; the listing knows then.
 */
int zfs_guard_release_all(struct dataset *guard[], size_t n, struct coppice_error *err);

/*
 * Have @volume guarded, and what lies below it, if it is not; also of a draft's. Safe to
 * repeat. @is_fresh: it is just what it is a clone of, as nobody can have written into it.
 */
int zfs_guard_ensure(struct zfs_pool *zfs, const char *volume, enum volume_kind kind, bool is_fresh,
		     struct coppice_error *err);
int zfs_guard_ensure_in(struct zfs_pool *zfs, const struct listing *listing,
			const struct dataset *volume, enum volume_kind kind, bool is_fresh,
			struct coppice_error *err);

/* Guard a snapshot of @volume that was made just now, if @volume's guard is younger. */
int zfs_guard_snapshot(struct zfs_pool *zfs, const char *volume, const char *snapshot,
		       struct coppice_error *err);

/* Hold all users' snapshots of @dataset itself, which goes below a volume. */
int zfs_guard_hold(struct zfs_pool *zfs, const struct listing *listing, const char *dataset,
		   struct coppice_error *err);

/* Give a guard to each volume that users see and that has none. Goes on past failures. */
int zfs_guard_mend(struct zfs_pool *zfs, const struct listing *listing, struct coppice_error *err);

/*
 * Let a snapshot of a listing be destroyed. COPPICE_BUSY: others hold it, too, and zfs destroy
 * would be tried in vain for long.
 */
int zfs_guard_let_go(struct dataset *snapshot, struct coppice_error *err);

/* COPPICE_BUSY: others hold it, and how to find out and end that. */
int zfs_fail_held(const char *snapshot, struct coppice_error *err);

/* Destroy what guards the volume @name itself, if the listing has that. */
int zfs_guard_drop(const struct listing *listing, const char *name, struct coppice_error *err);

/* Tell, for check, what is not guarded, or is in a pool without; mend it if so asked. */
int zfs_guard_check(struct zfs_pool *zfs, const struct listing *listing, bool is_repair,
		    scan_fn *fn, void *user, struct coppice_error *err);

/* ---- ballast.c: room for deleting in a full pool ---- */

/* Make it, if it is not there and there is room; as the listing says, or look. */
void zfs_ballast_ensure(const struct zfs_pool *zfs);
void zfs_ballast_mend(const struct zfs_pool *zfs, const struct listing *listing);

/* Give it up if something in the listing has hardly any space left; did we? */
bool zfs_ballast_drop(const struct zfs_pool *zfs, const struct listing *listing);

/* ---- space.c ---- */

int zfs_usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
	      struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err);

/* ---- deleting.c ---- */

int zfs_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids, size_t n,
	       struct coppice_error *err);
int zfs_reap(struct pool *pool, struct coppice_error *err);
int zfs_pinned(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err);

/* Of what is kept for its snapshots: what was written into it after the last of them goes. */
int zfs_roll_back(const char *dataset, struct coppice_error *err);

/* Destroy what can be of @dataset and below; what others stand on becomes a tombstone. */
int zfs_destroy_or_retire(struct zfs_pool *zfs, struct listing *listing, const char *dataset,
			  struct coppice_error *err);

/* The same as zfs_reap, saying nothing. What others hold stays, and is no failure. */
int zfs_reap_all(struct zfs_pool *zfs, struct coppice_error *err);

/* Destroy all that is deleted, for a pool that ends. COPPICE_BUSY: what others hold as well. */
int zfs_reap_dead(struct zfs_pool *zfs, struct coppice_error *err);

/* Tell, for check, of what is deleted and held by others. */
int zfs_held_check(struct zfs_pool *zfs, const struct listing *listing, scan_fn *fn, void *user,
		   struct coppice_error *err);
