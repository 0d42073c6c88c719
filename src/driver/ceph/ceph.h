/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Ceph, by librbd and librados: volumes are RBD images with a file system each, snapshots and
 * clones are RBD's, of version 2, and records are image metadata. What was tried, and on which
 * version, is in docs/drivers.md; what lies where, in docs/on-disk.md.
 *
 *	image_FP                     + @readonly, which its clones stand on
 *	container_NAME               + @snapshot_SNAP
 *	draft_DRAFT.UUID             of a draft
 *	kept_INSTANCE.UUID           holds @snapshot_SNAPs that are not of the history of the
 *	                             instance's own image, as those from before it was restored
 *	@copy_DRAFT                  what clones of an instance itself stand on; in the trash soon
 *	coppice                      no image: an object, with the pool's record, the drafts that
 *	                             are pending, and the pool's stamp
 *
 * What is retired lies in RBD's trash until nobody stands on it any more.
 *
 * What an image is, its header says, an object whose keys are read many at a time: to open an
 * image takes far longer.
 */

#include <limits.h>
#include <rados/librados.h>
#include <rbd/librbd.h>

#include "base/bounded.h"
#include "base/lock.h"
#include "driver/ceph/keys.h"
#include "driver/driver.h"
#include "driver/generic/pool_state.h"

extern const struct driver driver_ceph;

/* Of an image or a snapshot, with its NUL; RBD_MAX_IMAGE_NAME_SIZE is 96. */
#define RBD_NAME_MAX 104
#define RBD_ID_MAX   64

/* ---- keys of an image's metadata ----
 *
 * A clone begins with a copy of its origin's metadata: what it has is its own only if META_ID is
 * its own id.
 */

#define META_ID       "coppice.id"
#define META_RECORD   "coppice.record"
#define META_UUID     "coppice.uuid"      /* of the volume */
#define META_GROUP    "coppice.group"     /* the uuid of the volume that it is, or keeps snapshots of */
#define META_DRAFT    "coppice.draft"     /* unseen while the draft of this uuid is pending */
#define META_SIZE     "coppice.size"      /* bytes that it is to have when it is next mounted */
#define META_SWAP     "coppice.swap"      /* whose name it had when a swap began */
#define META_DELETED  "coppice.deleted"   /* retired, by whose debt: it is in the trash, or to be */
#define META_HOST     "coppice.host"      /* which one has it mapped, or had when it died */
#define META_SNAPSHOT "coppice.snapshot." /* SNAP: the record of a snapshot */
#define META_REMOVED  "coppice.removed."  /* SNAP: retired, and to be removed */
#define META_PENDING  "coppice.pending."  /* SNAP: the draft that makes it, while that is pending */
#define META_SAME     "coppice.same."     /* a snapshot's id, in hexadecimal digits: whose bytes it has */

struct rbd_list;
struct ceph_debts;
struct text;

/* Of a process that changes something: worker.c. */
struct worker {
	struct uuid id;
	int fd;          /* of its file; -1: there is no worker yet */
	uint64_t watch;
	size_t n_locked; /* locks that it was given and has not given back */
};

struct ceph_pool {
	struct pool pool;
	char *cluster_name;
	char *user;
	char *conf;      /* its file; NULL: where Ceph looks for it */
	char *osd_pool;  /* name of the pool of the cluster */
	char *data_pool; /* or NULL */
	char *features;  /* of new images, as "layering,exclusive-lock"; or NULL */
	unsigned timeout_seconds;
	rados_t cluster;
	/*
	 * Of a full pool the first takes at once what frees some, and refuses the rest; but a
	 * snapshot made so is broken (16.2.15: it has no object map). So with the second all
	 * is made, which waits for room until its time is over.
	 */
	rados_ioctx_t io, making_io;
	int full; /* how the pool refuses what is new, as a worker has found; 0: it does not */
	char *mount;         /* STATE/mnt/NAME: where what is mounted is mounted */
	char *file_system;   /* of new volumes: ext4, xfs or btrfs */
	char *mount_options;
	uint64_t size_bytes; /* of new volumes */
	struct pool_state files;  /* in STATE/ceph/NAME */
	struct uuid owner; /* of the state directory */
	char *state_path;
	struct worker worker;
	const struct ceph_debts *debts; /* of the dead, that we have taken; or NULL */
	unsigned max_depth;		/* of clones, on clones */
	bool has_noted_depth;		/* one is deeper, by us alone */
	bool has_changed;		/* by us: so we may be the one who makes them less deep */
	struct rbd_list *reading; /* between reading_begin and reading_end; or NULL */
};

static inline struct ceph_pool *ceph_pool_of(struct pool *pool)
{
	return CONTAINER_OF(pool, struct ceph_pool, pool);
}

/* ---- cluster.c: the connection ---- */

/* What a failed call of librados or librbd means; -errno is what it returned. */
_printf_(4, 5) int fail_ceph(const struct ceph_pool *ceph, int r, struct coppice_error *err,
			     const char *fmt, ...);

/* Connect, without a pool. Waits no longer than timeout_seconds for any answer from then on. */
int ceph_connect(struct ceph_pool *ceph, struct coppice_error *err);

/* Have requests go to this pool of the cluster: 0, or an errno of librados. */
int ceph_use_osd_pool(struct ceph_pool *ceph, const char *name);

/* And open the pool. COPPICE_NOT_FOUND: there is no such pool. */
int ceph_open_pool(struct ceph_pool *ceph, struct coppice_error *err);

/* COPPICE_NOT_FOUND: that for data, if there is to be one, is not there. */
int ceph_check_data_pool(struct ceph_pool *ceph, struct coppice_error *err);
void ceph_close_pool(struct ceph_pool *ceph);
void ceph_disconnect(struct ceph_pool *ceph);

/* Have the monitors do a command, in JSON; *ret_out: what they answer, free() it; or NULL. */
int ceph_command(struct ceph_pool *ceph, const char *json, char **ret_out,
		 struct coppice_error *err);

/* Tell a line of bash. */
_printf_(2, 3) void ceph_explain(struct pool *pool, const char *fmt, ...);

/* "rbd --pool x", with what it takes to reach the cluster. */
void ceph_explain_command(const struct ceph_pool *ceph, char ret[static PATH_MAX]);

/* Tell that of a snapshot a clone is made in the same pool. */
void ceph_explain_clone(struct pool *pool, const char *image, const char *snapshot,
			const char *clone);

/* On how many threads images are made or changed at once. */
#define CEPH_THREADS 8

/* ---- omap.c: keys of an object, and their values ---- */

/* @key ends with a zero byte, @value does not; < 0: stop, with that. */
typedef int omap_fn(void *user, const char *key, const char *value, size_t length);

/* All keys of @object that begin with @prefix, in their order. An errno; -ENOENT: no such object. */
int omap_each(struct ceph_pool *ceph, const char *object, const char *prefix, omap_fn *fn,
	      void *user);

/* Those of @n keys, each once, that there are. */
int omap_each_of(struct ceph_pool *ceph, const char *object, const char *const keys[], size_t n,
		 omap_fn *fn, void *user);

/* ---- root.c: the object that says what is pending, and counts changes ---- */

#define ROOT_OBJECT "coppice"

/* A value of it; free() it; NULL: it has none. */
int root_get(struct ceph_pool *ceph, const char *key, char **ret, struct coppice_error *err);
int root_set(struct ceph_pool *ceph, const char *key, const char *value,
	     struct coppice_error *err);

int root_unset(struct ceph_pool *ceph, const char *key, struct coppice_error *err);

/* Make it, with these keys, unless it is there: COPPICE_EXISTS. */
int root_make(struct ceph_pool *ceph, const char *const pairs[][2], size_t n,
	      struct coppice_error *err);

/* A draft is pending as long as it has its key. */
int root_draft_add(struct ceph_pool *ceph, const char *id, const char *text,
		   struct coppice_error *err);
int root_draft_remove(struct ceph_pool *ceph, const char *id, struct coppice_error *err);

/*
 * Be the only one who gives an image this name: RBD lets two rename to it at once. For a draft, which
 * the root has. COPPICE_EXISTS: somebody else is.
 */
int root_name_take(struct ceph_pool *ceph, const char *name, const char *id,
		   struct coppice_error *err);
void root_name_give_back(struct ceph_pool *ceph, const char *name);

/* Keys that begin so, and end with a uuid, or a number. */
#define ROOT_DRAFT   "draft."
#define ROOT_OWED    "owed."
#define ROOT_WORKER "by."
#define ROOT_HOST    "host." /* a state directory that uses the pool */
#define ROOT_LOCK    "lock."

struct root_entry {
	struct uuid id; /* the rest of the key */
	char *text;     /* owned */
};

struct root_list {
	struct root_entry *entry;
	size_t n;
};

int root_list_read(struct ceph_pool *ceph, const char *prefix, struct root_list *ret,
		   struct coppice_error *err);
void root_list_done(struct root_list *list);
int root_list_add(struct root_list *list, const char *id, struct coppice_error *err);
bool root_list_has(const struct root_list *list, const char *id);
const char *root_list_get(const struct root_list *list, const char *id); /* or NULL */

/* The values of @n keys, each once; free() each that is not NULL, also after a failure. */
int root_values(struct ceph_pool *ceph, const char *const keys[], size_t n, char *ret[],
		struct coppice_error *err);

struct root_change {
	const char *key, *old, *value; /* NULL: none */
	bool is_whatever; /* it was */
};

/* Change all of these in one step, if each is as it was; *ret_did: they were. */
int root_replace(struct ceph_pool *ceph, const struct root_change *changes, size_t n,
		 bool *ret_did, struct coppice_error *err);

/* ---- stamp.c: what the pool has, as a number, and what made it so ---- */

int ceph_stamp(struct ceph_pool *ceph, uint64_t *ret, struct coppice_error *err);

/*
 * Add what a change of these volumes, or snapshots of them, makes a difference, modulo
 * STAMP_MODULUS, so that whoever looks from now on knows of it. @n 0: whatever they were.
 */
int ceph_stamp_add(struct ceph_pool *ceph, uint64_t difference, const struct volume_ref *refs,
		   size_t n, struct coppice_error *err);

/* Make it another one: somebody changed something, and was killed before he could add that. */
int ceph_stamp_touch(struct ceph_pool *ceph, struct coppice_error *err);

/* Show all that a draft announced, and add that to the stamp, in one step. */
int ceph_stamp_publish(struct ceph_pool *ceph, const char *draft, uint64_t difference,
		       const struct volume_ref *refs, size_t n, struct coppice_error *err);

/* driver.changes */
int ceph_changes(struct pool *pool, uint64_t since, struct volume_ref **ret, size_t *ret_n,
		 uint64_t *ret_last, struct coppice_error *err);

/* ---- header.c: what RBD keeps of an image ---- */

struct meta {
	const char *key; /* NULL: the last */
	const char *value; /* NULL: it goes */
};

/* Change several keys of an image's metadata, in one step. */
int header_change(struct ceph_pool *ceph, const char *id, const struct meta *metas,
		  struct coppice_error *err);

/* Change one of them, if it is as it was; *ret_did: it was. NULL: none. */
int header_replace(struct ceph_pool *ceph, const char *id, const char *key, const char *old,
		   const char *value, bool *ret_did, struct coppice_error *err);

/* The id of an image by its name. COPPICE_NOT_FOUND. */
int header_id(struct ceph_pool *ceph, const char *name, char ret[static RBD_ID_MAX],
	      struct coppice_error *err);

/*
 * A rename or a creation that was cut short leaves a name that belongs to no image, and cannot be
 * given to one. Take such a name away, as whoever was at it is dead.
 * @id  of the image that was to have it; NULL: it was being made
 */
int header_unclaim(struct ceph_pool *ceph, const char *name, const char *id,
		   struct coppice_error *err);

/* Or may it be? */
bool header_is_there(struct ceph_pool *ceph, const char *id);

/* Of an image that has no header, as whoever made or removed it was killed: its name goes. */
int header_forget(struct ceph_pool *ceph, const char *name, const char *id,
		  struct coppice_error *err);

/*
 * An image that was on its way into the trash, or out of it, when whoever moved it was killed, and
 * cannot be removed from there: let it arrive there. *ret_did: it was so.
 */
int header_finish_move(struct ceph_pool *ceph, const char *name, const char *id, bool *ret_did,
		       struct coppice_error *err);

/* ---- names.c ---- */

/* "container" */
const char *ceph_kind_word(enum volume_kind kind);

/* container_c1, of the volume that a reference is or is of. */
void ceph_name(const struct volume_ref *ref, char ret[static RBD_NAME_MAX]);

/* snapshot_before */
void ceph_snapshot_name(const struct volume_ref *ref, char ret[static RBD_NAME_MAX]);

/* Which volume has this name? False: none of ours. */
bool ceph_name_parse(const char *name, struct volume_ref *ret);

#define IMAGE_SNAPSHOT "readonly"

/* ---- listing.c: all that there is ---- */

struct rbd_snap {
	char *name;
	uint64_t id, size_bytes;
	const char *snapshot;  /* what users call it; NULL: it is not of users */
	const char *record;    /* NULL: none */
	bool is_pending;       /* of a draft that is not published */
	bool is_removed;       /* retired */
	bool is_counted;       /* its map of objects is right */
	uint64_t n_children;   /* clones that stand on it */
};

/* What an image was cloned from. */
struct rbd_parent {
	char id[RBD_ID_MAX]; /* of the image, in this pool; empty: it was not cloned */
	uint64_t snap_id;
	uint64_t overlap_bytes; /* what is behind that is its own */
};

struct rbd {
	char *name;
	char *id;
	bool is_in_trash;
	bool is_half_removed; /* it is neither listed nor, for users of RBD, in the trash */
	bool has_header;
	uint64_t size_bytes;
	unsigned order; /* its objects have 2^this bytes */
	uint64_t features, flags;
	struct rbd_parent parent;
	struct rbd_children {
		uint64_t snap_id, n;
	} *children; /* until they are known of the snapshots */
	size_t n_children;
	char **meta; /* key, value, key, value … NULL */
	struct rbd_snap *snap;
	size_t n_snaps;
	const char *record; /* its own; NULL: none */
	struct uuid uuid, group, draft; /* empty: none */
	bool is_pending;
	bool is_retired; /* and whoever did that has yet to move it into the trash */
	struct rbd *volume; /* of one that keeps snapshots: whose; else NULL */
	bool is_deep, is_used; /* depth.c */
};

struct rbd_list {
	struct rbd *rbd;
	size_t n;
	struct root_list drafts, owed;
	struct volume_ref *asked; /* of which it was read; owned; NULL: all */
	size_t n_asked;
};

void rbd_listing_done(struct rbd_list *listing);
void rbd_listing_free(struct rbd_list *listing);

/* Read all of it; or of volumes, and what keeps snapshots of them. */
int rbd_listing_read_of(struct ceph_pool *ceph, const struct volume_ref *refs, size_t n,
			struct rbd_list *ret, struct coppice_error *err);
int rbd_listing_read(struct ceph_pool *ceph, struct rbd_list *ret, struct coppice_error *err);

/* Of volumes, and of what is to become them in a draft. */
int rbd_listing_read_making(const struct draft *draft, const struct new_volume *volumes, size_t n,
			    struct rbd_list *ret, struct coppice_error *err);

/*
 * With them what somebody was killed at, or is just at, while he removes it: is_half_removed. Its
 * name may be another image's by now.
 */
int rbd_listing_read_rest(struct ceph_pool *ceph, struct rbd_list *ret, struct coppice_error *err);

/* What is in the trash and was retired by us. */
int rbd_trash_read(struct ceph_pool *ceph, struct rbd_list *ret, struct coppice_error *err);

/* The reading, if there is one of that; else read now, into *@own: of some, or of all. */
int ceph_look_at(struct ceph_pool *ceph, const struct volume_ref *refs, size_t n,
		 struct rbd_list *own, const struct rbd_list **ret, struct coppice_error *err);
int ceph_look(struct ceph_pool *ceph, struct rbd_list *own, const struct rbd_list **ret,
	      struct coppice_error *err);

/* A value of its metadata, if that is its own; or NULL. */
const char *rbd_meta(const struct rbd *rbd, const char *key);

struct rbd *rbd_find(const struct rbd_list *listing, const char *name);

/* How many clones stand on its snapshots. */
uint64_t rbd_children_of(const struct rbd *rbd);

/* Add what the header of this id says; no more is known of it. */
int rbd_listing_add(struct ceph_pool *ceph, struct rbd_list *listing, const char *id,
		    struct coppice_error *err);

/* Is it made, or deleted: nothing that users see? */
bool rbd_is_hidden(const struct rbd *rbd);

/* Which volume is it, as users see it? False: hidden, or none of ours. */
bool rbd_ref(const struct rbd *rbd, struct volume_ref *ret);

/* One that users see; and of a snapshot in which image it lies. NULL: there is none. */
struct rbd *rbd_find_ref(const struct rbd_list *listing, const struct volume_ref *ref,
			 struct rbd_snap **ret_snap);

/* The image of volume @ref, or in which its snapshot lies. COPPICE_NOT_FOUND naming it. */
int ceph_find(struct ceph_pool *ceph, const struct volume_ref *ref, struct rbd_list *listing,
	      struct rbd **ret, struct rbd_snap **ret_snap, struct coppice_error *err);
int ceph_fail_missing(const struct volume_ref *ref, struct coppice_error *err);
int ceph_fail_exists(const struct volume_ref *ref, struct coppice_error *err);

/* What a volume with all of its snapshots adds to the stamp; 0: it is not there. */
uint64_t rbd_part(const struct rbd_list *listing, const struct volume_ref *ref);

/* Of a volume or snapshot with its record: sums of these are the stamp. */
uint64_t ceph_hash(const struct volume_ref *ref, const char *record);

/* Called for each snapshot of a volume that users see. */
typedef int rbd_snap_fn(void *user, struct rbd *rbd, struct rbd_snap *snap,
			struct coppice_error *err);
int rbd_snaps_each(const struct rbd_list *listing, const struct rbd *volume, rbd_snap_fn *fn,
		   void *user, struct coppice_error *err);

/* ---- worker.c: who is at work on the pool ---- */

#define WORKER_FILE "by-" /* and its id: the file that it holds */

/* Be known to others, from here to worker_end(). */
int worker_begin(struct ceph_pool *ceph, struct coppice_error *err);
void worker_end(struct ceph_pool *ceph);

/* The name of this host, without what would end a word of ours. */
void worker_host(char ret[static HOST_NAME_MAX + 1]);

/* "by WORKER", a line of what we make. Whose lines are these? False: nobody's. */
int worker_line(struct ceph_pool *ceph, struct text *to, struct coppice_error *err);
bool worker_of(const char *lines, struct uuid *ret);

/* What ROOT_WORKER has of others, for messages: "process 12 on host 'a'". */
#define WORKER_NAME_MAX (HOST_NAME_MAX + 64)
void worker_name(const char *text, char ret[static WORKER_NAME_MAX]);

/* What ROOT_WORKER has of one; *ret, which to free(), NULL: it is known no more. */
int worker_read(struct ceph_pool *ceph, const char *id, char **ret, struct coppice_error *err);

/* Is it of another host, or another state directory? */
bool worker_is_foreign(const struct ceph_pool *ceph, const char *text);

/* Is it dead, as far as the kernel, or the cluster, knows for sure? Ours is not. */
bool worker_is_over(struct ceph_pool *ceph, const char *id, const char *text);

/* Have the cluster take nothing from it any more, which is dead. */
int worker_fence(struct ceph_pool *ceph, const char *text, struct coppice_error *err);

/* COPPICE_NO_SPACE: the pool takes nothing new. */
int ceph_refuse_full(struct ceph_pool *ceph, struct coppice_error *err);

/* Nothing of it is left: remove what says that there is one. */
int worker_forget(struct ceph_pool *ceph, const char *id, struct coppice_error *err);

/* ---- locking.c ---- */

int ceph_names_lock(struct pool *pool, const struct lock_want *wants, size_t n,
		    struct coppice_error *err);
void ceph_names_unlock(struct pool *pool, const struct lock_want *wants, size_t n);

/* Take away what a dead worker holds. */
int ceph_locks_break(struct ceph_pool *ceph, const char *worker, struct coppice_error *err);

/*
 * Be the only one who takes these images, by their ids, out of the trash, or flattens them:
 * @claimed says of each whether one is, or somebody else, who lives. ceph_images_release() those.
 */
int ceph_images_claim(struct ceph_pool *ceph, const char *const ids[], size_t n, bool *claimed,
	       struct coppice_error *err);
void ceph_images_release(struct ceph_pool *ceph, const char *const ids[], size_t n);

/*
 * As long as an image is open here, what it stands on is to stay what that is. COPPICE_BUSY naming
 * who just cuts one from that; @is_patient: after the cluster's time to answer.
 */
int ceph_parents_keep(struct ceph_pool *ceph, bool is_patient, struct coppice_error *err);

/* Who keeps them cuts one himself. COPPICE_BUSY naming somebody else who does either. */
int ceph_parents_cut(struct ceph_pool *ceph, struct coppice_error *err);

/* The end of both. */
void ceph_parents_give(struct ceph_pool *ceph);

/* Before an image is opened that says so already: as ceph_parents_keep(), and keep nothing. */
int ceph_parents_wait(struct ceph_pool *ceph, struct coppice_error *err);

/* Be the only one who ends what the dead left. COPPICE_BUSY. */
int ceph_sweeping_begin(struct ceph_pool *ceph, struct coppice_error *err);
void ceph_sweeping_end(struct ceph_pool *ceph);

/* ---- sweeping.c ---- */

/* What the dead owe, here and on other hosts. */
struct ceph_debts {
	struct state_debts here;
	struct root_list all;
};

int ceph_debts_take(struct ceph_pool *ceph, struct ceph_debts *ret, struct coppice_error *err);
void ceph_debts_done(struct ceph_debts *debts);
void ceph_debts_paid(struct ceph_pool *ceph, struct ceph_debts *debts);

/* state_owe(), for all hosts. To be paid; or there was nothing; or left to whoever comes next. */
int ceph_owe(struct ceph_pool *ceph, struct coppice_error *err);
void ceph_owe_nothing(struct ceph_pool *ceph);
void ceph_leave_owed(struct ceph_pool *ceph);

/* Is its maker dead? *ret_fd, if not -1, keeps others of this host off it. */
bool ceph_draft_is_over(struct ceph_pool *ceph, const char *id, int *ret_fd);

int ceph_sweep_worker(struct ceph_pool *ceph, const struct uuid *id, struct coppice_error *err);
int ceph_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err);

/* ---- draft.c ---- */

/* What a draft remembers of what was made in it. */
struct ceph_making {
	bool has_items;     /* something in it that has no name yet */
	size_t n_announced; /* under their names already, hidden */
	bool is_listed;     /* the root has it */
	bool is_half;       /* what is announced is not all made: a dead maker's is to go */
	bool is_shown;      /* some of it may be, as publishing it began, and did not end well */
	char *lines;        /* with these: names that are not its own, and that it may be making */
	struct waiting writing; /* for what others write to: see ceph_writing_check() */
	struct ceph_staged *staged; /* what is made on this host first, see staging.c */
	bool is_left; /* some of it to a process that may not end: whoever sweeps ends the rest */
};

static inline struct ceph_making *ceph_making_of(const struct draft *draft)
{
	return draft->driver;
}

/*
 * Before the first is made: have the root list the draft, with what it may be making under
 * @name; or NULL. So whoever finds it knows whose it is. @id: of the image that is given the name.
 */
int ceph_draft_list(struct draft *draft, const char *name, const char *id,
		    struct coppice_error *err);

/* All that was announced is made: from now on a dead maker's is published. */
int ceph_draft_is_made(struct draft *draft, struct coppice_error *err);

/* Is this name among the lines of a draft? *ret_id, if not NULL: its id; "": none. */
bool ceph_has_line(const char *lines, const char *name, char *ret_id);

/* The same for a single change of a name, that is of no draft. */
struct claim {
	struct uuid id; /* empty: there is none */
	int fd;
};

int ceph_claim(struct ceph_pool *ceph, const char *name, const char *id, struct claim *ret,
	       struct coppice_error *err);
void ceph_claim_end(struct ceph_pool *ceph, struct claim *claim);

int ceph_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err);
int ceph_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
			struct coppice_error *err);
int ceph_draft_discard(struct draft *draft, struct coppice_error *err);
int ceph_draft_path(struct draft *draft, const struct new_volume *volume, char **ret,
		    struct coppice_error *err);

/* Before an image of it is given the name of one that is live. */
int ceph_draft_swaps(struct draft *draft, struct coppice_error *err);

/*
 * Of the lines that the root has of a draft: is there no name that it was to give to anything, and
 * somebody else may want meanwhile, and none that it is to give back? Not if there are no lines.
 */
bool ceph_draft_shows_nothing(const char *lines);

/* End a draft whose maker is dead, or us: what it announced is shown, or removed; the rest removed. */
int ceph_draft_end(struct ceph_pool *ceph, const char *id, struct coppice_error *err);

/* ---- making.c ---- */

int ceph_volume_create(struct draft *draft, const struct new_volume *volume, char **ret_path,
		       struct coppice_error *err);

/* The file system of an image that is just made, and is to be mounted. */
struct new_file_system {
	const char *name; /* of the image */
	uint64_t bytes;   /* its size */
	const char *type;
	const char *options; /* to mount it with */
	const char *path;    /* where */
};

/* On @device, with these options. */
int ceph_make_and_mount(const struct ceph_pool *ceph, const struct new_file_system *wanted,
			const char *device, const char *options, struct coppice_error *err);

int ceph_draft_writing_check(struct draft *draft, const struct new_volume *volume,
			     struct coppice_error *err);
int ceph_volume_fill(struct draft *draft, const struct new_volume *volume, const char *path,
		     const char *from, struct coppice_error *err);
int ceph_volume_seal(struct draft *draft, const struct new_volume *volume, bool is_read_only,
		     struct coppice_error *err);
int ceph_clone(struct draft *draft, const struct volume_ref *origin,
	       const struct new_volume *volumes, size_t n, bool is_read_only,
	       struct coppice_error *err);
int ceph_publish(struct draft *draft, const struct new_volume *volumes, size_t n,
		 struct coppice_error *err);

/* Have the root list the draft, before this one of it is made. */
int ceph_draft_list_item(struct draft *draft, const struct new_volume *volume,
			 struct coppice_error *err);

/* An empty image, or a clone, of which nothing says yet what it is; and that it is so. */
int ceph_image_create(struct ceph_pool *ceph, const char *name, uint64_t bytes,
		      struct coppice_error *err);
int ceph_image_clone(struct ceph_pool *ceph, const char *from, const char *snapshot,
		     const char *name, struct coppice_error *err);

/*
 * What a new image says of itself, in one step, without what it has inherited of @origin and is
 * not so. NULL: that is nothing of snapshots. @is_marked: it is unseen as long as its draft is pending.
 */
int ceph_image_describe(const struct draft *draft, const struct new_volume *volume,
			const char *name, const struct rbd *origin, bool is_marked,
			struct coppice_error *err);

int ceph_snap_create(struct ceph_pool *ceph, const char *name, const char *snapshot,
		     struct coppice_error *err);

/* The image of one that has no name yet; of a snapshot, that which keeps it. */
void ceph_item_name(const struct draft *draft, const struct new_volume *volume,
		    char ret[static RBD_NAME_MAX]);

/* Where it is filled; free() it. */
char *ceph_item_path(const struct draft *draft, const struct new_volume *volume);

/* Make it larger; its file system grows when it is mounted. */
int ceph_resize_image(struct ceph_pool *ceph, const char *name, uint64_t bytes,
		      struct coppice_error *err);

/* Give an image another name; one that others may want as well, for draft @id. */
int ceph_rename_image(struct ceph_pool *ceph, const char *from, const char *to,
		      struct coppice_error *err);
int ceph_rename_image_for(struct ceph_pool *ceph, const char *id, const char *from, const char *to,
			  struct coppice_error *err);

/* ---- transfer.c ---- */

int ceph_transfer(struct draft *draft, struct pool *from, const struct volume_ref *sources,
		  const struct new_volume *volumes, size_t n, enum copy_way way,
		  const struct volume_ref *base, struct coppice_error *err);

/* ---- changing.c ---- */

int ceph_swap(struct draft *draft, const struct new_volume *replacement,
	      const struct volume_ref *ref, struct coppice_error *err);
int ceph_swap_recover(struct ceph_pool *ceph, const struct rbd_list *listing,
		      const struct rbd *old, struct coppice_error *err);
int ceph_rename(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
		struct coppice_error *err);
int ceph_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
		      struct coppice_error *err);
int ceph_limit_set(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
		   uint64_t limit_bytes, unsigned how, struct coppice_error *err);

/* Its size as somebody asked for it, which has more where it is of whole sectors. @snap: of that;
 * NULL: of what is live. */
uint64_t rbd_bytes_asked(const struct rbd *rbd, const struct rbd_snap *snap);

/* ---- deleting.c ---- */

int ceph_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
		size_t n, struct coppice_error *err);
int ceph_reap(struct pool *pool, struct coppice_error *err);
int ceph_pinned(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err);

/* Remove a snapshot of an image; RBD keeps it for clones that stand on it. */
int ceph_snap_remove(struct ceph_pool *ceph, const char *name, const char *snapshot,
		     struct coppice_error *err);

/* RBD's list of what is in the trash; else RBD makes it when it moves the first image there. */
#define RBD_TRASH "rbd_trash"
int ceph_trash_make(struct ceph_pool *ceph, struct coppice_error *err);

/* Remove an image that is of nobody; into the trash, where others stand on it. */
int ceph_remove_image(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err);

/* Finish what was retired, and is not in the trash yet, or has snapshots to be removed. */
int ceph_finish_retired(struct ceph_pool *ceph, const struct rbd_list *listing,
			struct coppice_error *err);
/* *ret_all: nothing was left because somebody else is at it. */
int ceph_reap_trash(struct ceph_pool *ceph, bool *ret_all, struct coppice_error *err);

/* ---- depth.c: chains of clones ---- */

/* In the directory of the pool's state: some are too long. */
#define DEPTH_NOTE "deep"

/* ceph.rbd.max_depth */
int ceph_depth_read(const struct pool_spec *spec, struct ceph_pool *ceph,
		    struct coppice_error *err);

/*
 * Before clones of an image are made: note whether they will stand too deep. COPPICE_BUSY: so deep
 * that nothing could be read from them.
 */
int ceph_depth_check(struct ceph_pool *ceph, const char *name, struct coppice_error *err);

/* Have ceph_shorten() look for chains that are too long, noted or not. */
void ceph_depth_look(struct ceph_pool *ceph);

/*
 * When all else is done, and nothing is locked: if an earlier command has noted that, flatten one link
 * of the longest chain.
 */
void ceph_shorten(struct pool *pool);

/* ---- copyup.c ---- */

/*
 * Have an image, open to write, have all data of its own that it reads from its parent. Nobody who
 * reads it or writes to it notices. Zeros are left out: they may be cut off.
 */
int ceph_copy_up(const struct pool *pool, rbd_image_t image, struct coppice_error *err);

/* ---- patience.c: the kernel waits for ever ---- */

/* One on this host is at an image's device. Zeroed: it is nobody's. */
struct ceph_turn {
	struct lock_file file;
	const struct draft *draft; /* that the image is made in; NULL: in none */
};

/* In the directory of the pool's state: their locks. */
#define CEPH_TURNS "turns"

/*
 * Be who maps, mounts, unmounts or unmaps an image, when all that others began with it is over,
 * also what nobody waits for any more. Nobody takes two.
 * COPPICE_UNAVAILABLE: it was not, though ceph_patiently() waited for. COPPICE_INTERRUPTED.
 */
int ceph_turn_take(const struct ceph_pool *ceph, const char *name, struct ceph_turn *ret,
		   struct coppice_error *err);
void ceph_turn_give(struct ceph_turn *turn);

/*
 * run_bounded(), of what waits for the cluster in the kernel: until @device has ended no request
 * for timeout_seconds and a little. @device: may be NULL: there is none yet. @turn: what is done
 * belongs to it, and it ends no earlier; NULL: it changes nothing of who has what.
 * COPPICE_UNAVAILABLE saying that the cluster did not answer: it may be done later all the same.
 * COPPICE_INTERRUPTED, where nothing goes on: the same.
 */
_printf_(7, 8) int ceph_patiently(const struct ceph_pool *ceph, const struct ceph_turn *turn,
				  const char *device, bounded_fn *fn, void *user,
				  struct coppice_error *err, const char *fmt, ...);

/*
 * The same of what writes a lot, from elsewhere: it may wait for that as long as it likes, and only
 * not for the cluster, as it does while the device has requests and ends none. Interrupted, it is
 * told so at once, by bounded_is_awaited(), and keeps its turn until it has heard.
 */
int ceph_write_patiently(const struct ceph_pool *ceph, const struct ceph_turn *turn,
			 const char *device, bounded_fn *fn, void *user,
			 struct coppice_error *err);

/* The same where others write: to be asked often. @writing: zeroed at first. */
int ceph_writing_check(const struct ceph_pool *ceph, const char *device,
		       struct waiting *writing, struct coppice_error *err);

/* ---- staging.c: what is made on this host first ---- */

/* Make it on a file of this host. *ret_did false: that is not worth it here, or cannot be. */
int ceph_stage(struct draft *draft, const struct new_file_system *wanted, bool *ret_did,
	       struct coppice_error *err);
bool ceph_is_staged(const struct draft *draft, const char *name);

/*
 * Write what is staged to its image; no more is written to it. COPPICE_BUSY: somebody has a file of
 * it open for that.
 */
int ceph_unstage(struct draft *draft, const char *name, struct coppice_error *err);

/* Unmount all that is staged, and forget it. */
void ceph_staged_done(struct draft *draft);

/* Unmount all that is staged of a draft, also of one whose maker is dead. */
int ceph_staged_umount(const char *id, struct coppice_error *err);

/* The same of all drafts of this host whose makers are dead; asks the cluster nothing. */
int ceph_staged_umount_dead(const struct ceph_pool *ceph, struct coppice_error *err);

/* ---- mapping.c: images as block devices ---- */

/*
 * Have the image's device. Again no more.
 * COPPICE_UNSUPPORTED: this machine has nothing that can.
 */
int ceph_map(struct ceph_pool *ceph, const struct ceph_turn *turn, const char *name,
	     char ret_device[static PATH_MAX], struct coppice_error *err);
int ceph_unmap(struct ceph_pool *ceph, const struct ceph_turn *turn, const char *name,
	       struct coppice_error *err);

/* False: it is not mapped. */
bool ceph_mapped(const struct ceph_pool *ceph, const char *name, char ret_device[static PATH_MAX]);

/* Or may it be? @ret: what is noted as its device, which may be none. Looks for no device. */
bool ceph_linked(const struct ceph_pool *ceph, const char *name, char ret[static PATH_MAX]);

/* It is mapped, and the link says by what. A link alone may be of before a reboot. */
bool ceph_has_device(const struct ceph_pool *ceph, const char *name);

/* Or somebody is at mapping it; or was killed at that. */
bool ceph_is_mapped_or_begun(const struct ceph_pool *ceph, const char *name);

/* It is mapped, by a process that has died. */
bool ceph_is_mapped_dead(const struct ceph_pool *ceph, const char *name);

/* What is written there can never reach the image: have nobody wait for that. */
void ceph_forsake(const struct ceph_pool *ceph, const char *name);

/* Let go of all that is mapped. */
int ceph_unmap_all(struct ceph_pool *ceph, struct coppice_error *err);

/* "rbd-fuse", what images are mapped by; NULL: nothing on this machine can. */
const char *ceph_mapper(void);

/* ---- holding.c: which host has it ---- */

/* COPPICE_BUSY naming the other host that has it mounted. */
int ceph_check_elsewhere(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err);

/* Be the host that has it; and no more. COPPICE_BUSY. */
int ceph_hold(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err);
void ceph_let_go(struct ceph_pool *ceph, const char *name);

/* May a host have it mapped, or be about to? */
bool ceph_may_be_mapped(struct ceph_pool *ceph, const struct rbd *rbd);

/* It is mapped: note who has it open for us, whom others shut out if they take it over. */
int ceph_hold_mapped(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err);

/*
 * Has another host had it since this one, which has it mapped, was cut off? Then RBD takes nothing
 * from here any more.
 */
bool ceph_was_taken_over(const struct ceph_pool *ceph, const struct rbd *rbd);

/* ---- mounting.c ---- */

int ceph_mount_at(struct ceph_pool *ceph, const struct ceph_turn *turn, const struct rbd *rbd,
		  const char *path, struct coppice_error *err);

/* Unmount all that is mounted of an image, and unmap it; a view is removed. Takes its turn. */
int ceph_umount(struct ceph_pool *ceph, const char *name, struct coppice_error *err);

/* What a snapshot is read through; and is it one of this host's that nobody reads through? */
bool ceph_is_view(const char *name);
bool ceph_is_view_left(const struct ceph_pool *ceph, const char *name);

/* The same of a volume with its snapshots, or of a snapshot. */
int ceph_umount_ref(struct ceph_pool *ceph, const struct rbd_list *listing,
		    const struct volume_ref *ref, struct coppice_error *err);

/* What lies in memory of a device, and of the file system at @where on it, if not NULL. */
int ceph_flush(const struct ceph_pool *ceph, const struct ceph_turn *turn, const char *device,
	       const char *where, struct coppice_error *err);

/* What is written into it, and lies in memory, reaches the image. */
int ceph_settle(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err);

int ceph_path(struct pool *pool, const struct volume_ref *ref, char **ret,
	      struct coppice_error *err);
int ceph_volume_mount(struct pool *pool, const struct volume_ref *ref, bool *ret_did,
		      struct coppice_error *err);
int ceph_volume_umount(struct pool *pool, const struct volume_ref *ref, struct coppice_error *err);
int ceph_in_use(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
		void *user, struct coppice_error *err);

/* ---- space.c ---- */

int ceph_usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
	       struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err);
int ceph_pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err);

/* ---- check.c ---- */

int ceph_check(struct pool *pool, bool is_repair, scan_fn *fn, void *user,
	       struct coppice_error *err);

/* ---- pool.c ---- */

int ceph_probe(const struct pool_spec *spec, struct coppice_error *err);
int ceph_pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		     struct coppice_error *err);
int ceph_pool_check(const struct pool_spec *spec, struct coppice_error *err);
void ceph_pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user);
int ceph_pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err);
void ceph_pool_close(struct pool *pool);
DEFINE_CLEANUP(struct pool *, ceph_pool_close)
bool ceph_pool_is_mounted(const struct pool_spec *spec);
int ceph_pool_umount(const struct pool_spec *spec, struct coppice_error *err);
int ceph_pool_destroy(const struct pool_spec *spec, struct coppice_error *err);
int ceph_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err);
int ceph_pool_record_write(struct pool *pool, const char *record, struct coppice_error *err);
const char *ceph_pool_mount_path(struct pool *pool);
int ceph_pool_join(struct pool *pool, struct coppice_error *err);
int ceph_pool_leave(struct pool *pool, char **ret_others, struct coppice_error *err);
void ceph_reading_end(struct pool *pool);
