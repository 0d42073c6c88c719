/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The contract between the core and a storage engine.
 *
 * The core checks names, takes locks, decides, orders the steps and undoes
 * them; a driver knows how its engine does one step. Drivers do not call each
 * other, do not log, decide no policy, and keep no state outside struct pool.
 *
 * A volume comes into being in a draft, a place that users cannot see, and is
 * published from there under its name, with its record, in one atomic step:
 *
 *	draft_open → clone / volume_create … volume_seal → publish → commit
 *	          ↘ any failure: draft_discard
 *
 * Where the engine's snapshots commit by themselves, the draft is told first what it
 * is to publish. Then there is no second commit: what is whole in the draft cannot be
 * lost any more, and whoever finds the draft without its maker publishes it.
 *
 *	draft_open → draft_announce → clone or volume_seal → publish → draft_discard
 *	          ↘ any failure: draft_discard → commit
 *
 * It ceases to be the other way round: retire takes it out of sight and frees
 * its name in one atomic step; reap destroys what nobody stands on any more.
 * A draft is locked by its maker; draft_sweep ends those whose maker died.
 *
 * Explaining. Before it does anything, a step that changes storage tells
 * pool->explain the native commands that it is equal to, as lines of bash. The
 * lines hold nothing that differs from run to run: identifiers that will only
 * then be made are written as shell variables. When pool->is_dry_run is set the
 * step then returns COPPICE_OK without having changed anything; steps that only
 * read do as always.
 *
 * Errors. COPPICE_NOT_FOUND and COPPICE_EXISTS are only ever said of the thing
 * that was named, and only when the engine is sure; every other trouble is
 * another code. All steps may return COPPICE_FAILED, COPPICE_NO_SPACE and
 * COPPICE_UNAVAILABLE.
 */

#include <string.h>

#include "driver/volume.h"

struct driver;
struct lock_want; /* base/lock.h */

/* What a limit is of, and whether it is a promise as well; none: of the volume's own data. */
enum {
	LIMIT_WITH_SNAPSHOTS = 1, /* those count, too */
	LIMIT_RESERVED = 2,       /* so much space is set aside for it */
};

/* What a pool is made of, as the core keeps it; strings are borrowed. */
struct pool_spec {
	const char *name;
	const char *state_path; /* the state directory, absolute */
	const char *source;     /* device, file or directory; NULL: make one of ours */
	const char *(*get)(const struct pool_spec *spec, const char *key); /* config; or NULL */
	void *config;
	struct uuid uuid;  /* of the pool; when creating: what to call it */
	struct uuid owner; /* of this state directory */
	unsigned lock_timeout_ms; /* how long to wait for who has a lock that the driver takes */
	bool is_dry_run;          /* what is damaged is not mended */
};

/* Is this key of its configuration there, and "true"? */
static inline bool pool_spec_is_true(const struct pool_spec *spec, const char *key)
{
	const char *text = spec->get(spec, key);

	return text && strcmp(text, "true") == 0;
}

typedef void explain_fn(void *user, const char *line);
typedef bool interrupted_fn(void *user);
typedef int published_fn(void *user, struct coppice_error *err);

/* What the core knows of an open pool. A driver embeds it as its first member. */
struct pool {
	const struct driver *driver;
	explain_fn *explain; /* NULL: nobody listens */
	void *explain_user;
	interrupted_fn *is_interrupted; /* NULL: never; asked between long steps */
	void *interrupted_user;
	published_fn *note_published; /* NULL: nobody cares; see draft_sweep */
	void *published_user;
	int64_t tries_again_ms; /* clock_ms() when a sweep tries again what one put off */
	bool is_dry_run;
};

/* Is who uses it to stop? Asked between long steps, and while others are waited for. */
static inline bool pool_is_interrupted(const struct pool *pool)
{
	return pool->is_interrupted && pool->is_interrupted(pool->interrupted_user);
}

/* A volume to be: its place among those of its draft, name, identity and record. */
struct new_volume {
	struct volume_ref ref; /* the name that it will be published under */
	const char *item; /* what it is called in the draft meanwhile; NULL: the same; borrowed */
	struct uuid uuid;
	struct uuid group;    /* whose space account it joins: its own uuid, or its instance's */
	uint64_t limit_bytes; /* how much the account may hold; 0: no limit; only with one's own */
	unsigned limit_how;   /* LIMIT_…, of that */
	bool has_nested;      /* some of the same draft are nested in it; for swap */
	bool is_nested;       /* a snapshot of a volume that was made before in the same draft */
	const char *record;   /* borrowed; text that the driver keeps with it */

	/* For explain: the record as a word of bash, and the name of the shell
	 * variable that holds the group's uuid, NULL when the group exists already. */
	const char *explain_record;
	const char *explain_group;
};

/* One operation's place to make volumes in; filled by draft_open. */
struct draft {
	struct pool *pool;
	struct uuid id;
	int fd;            /* drivers on file systems: its directory, and the lock on it */
	int source_fd;     /* the same of the draft that it is filled from, which is to live as long as
			      who fills it; 0: none */
	bool is_announced; /* by draft_announce: publish is durable without a commit */
	void *driver;      /* what else the driver needs */
};

struct pool_space {
	struct coppice_bytes total, used, free;
	/* Of what the engine keeps its own books in, where that is set aside; or unknown. */
	struct coppice_bytes metadata_total, metadata_used;
};

/* Of a pool on a sparse file: what is left where that lies. */
struct pool_host {
	uint64_t free_bytes;   /* of the file system that the file is in */
	uint64_t growth_bytes; /* by how much the file may still grow */
};

/* What an engine counts of one volume. */
struct volume_usage {
	struct coppice_bytes written; /* allocated by it since its creation, snapshots included */
	struct coppice_bytes refers;
	struct coppice_bytes unique;
	struct coppice_bytes alone; /* of refers, what nothing else has, its own snapshots included */
};

/* A volume as the engine has it, handed to a scan_fn; all borrowed for the call. */
struct found_volume {
	struct volume_ref ref;
	const char *record;  /* NULL: it has none, which is damage */
	const char *what;    /* class of damage, one word; NULL: none */
	const char *problem; /* the same in one line for people */
	bool is_repaired;    /* and it was mended, as was asked for */
	bool is_remark;      /* no damage: something that people should know */
};

/* Called for each volume and snapshot; what it returns < 0 ends the scan. */
typedef int scan_fn(void *user, const struct found_volume *found, struct coppice_error *err);

/* Called for each deleted volume that is still held by others. */
typedef int pinned_fn(void *user, const char *record, struct coppice_bytes pinned,
		      struct coppice_error *err);

/* A key that a pool of a driver may have. */
struct driver_key {
	const char *name;
	const char *values; /* those that it may have, as "true|false"; NULL: any */
	bool is_changeable; /* also when the pool is there */
	bool is_size;       /* in bytes, as 10GiB */
};

/*
 * A key that a volume's configuration may have, and with "volume." before it that of a pool,
 * for volumes that say nothing: true or false.
 */
struct limit_key {
	const char *name;
	unsigned how; /* this of its limit, when it has @value */
	bool value;
};

/* How copies within a pool are made. */
enum copy_way {
	COPY_CLONED,  /* clones of what is copied */
	COPY_FULL,    /* sharing nothing with anybody */
	COPY_REBASED, /* sharing with the image that it began as, and with nobody else */
};

/* Called for each process and mount that uses a volume, in words: "'c1' is in use by …". */
typedef void in_use_fn(void *user, const char *line);

/* Called for each place below a volume's top that its clones would not have. */
typedef int nested_fn(void *user, const char *path, struct coppice_error *err);

/* A stamp that is a sum is one modulo this: SQLite's integers have a sign. */
#define STAMP_MODULUS (UINT64_C(1) << 63)

/* What a driver can do that others cannot; told, not derived, where no op shows it. */
struct driver_traits {
	bool can_clone;    /* clones share data with their origin */
	bool can_limit;    /* `size` on an instance is enforced */
	bool is_loop_able; /* a pool without source is a file with `size` */
	bool must_not_fill; /* when a pool is full, what is in its volumes is lost */
	bool has_blocks;    /* volumes may have block content */
};

enum pool_hold {
	POOL_RELEASE,
	POOL_SHARED,
	POOL_ALONE,
};

struct driver {
	/* As written in configuration and on the command line. */
	const char *name;

	/* Keys that a pool of this driver may have beside source, size, user.*; the last has no
	 * name. */
	const struct driver_key *pool_keys;

	/*
	 * Those that a volume's configuration may have beside size, user.*, as the record has them;
	 * the last has no name. NULL: there are none. Which is not changeable is for a volume
	 * that begins empty.
	 */
	const struct driver_key *volume_keys;

	/* Those that say what limits are; the last has no name. NULL: there are none. */
	const struct limit_key *limit_keys;

	/*
	 * Can this machine do it? COPPICE_OK, or COPPICE_UNSUPPORTED with the reason.
	 * @source as in pool_spec, may be NULL.
	 */
	int (*probe)(const struct pool_spec *spec, struct coppice_error *err);

	/*
	 * Is it one to choose where nobody named a driver, if probe says yes? COPPICE_OK, or
	 * COPPICE_UNSUPPORTED with the reason. NULL: always.
	 */
	int (*choose)(struct coppice_error *err);

	/* ---- pools ---- */

	/*
	 * Make a pool and open it. @record is kept in the pool.
	 * Atomic towards this process: on failure nothing is left. After a kill,
	 * pool_destroy with the same spec removes what was made.
	 * COPPICE_EXISTS: a pool is there already, its record in *ret_record if not NULL.
	 */
	int (*pool_create)(const struct pool_spec *spec, const char *record, struct pool **ret,
			   struct coppice_error *err);

	/*
	 * Refuse what pool_create would refuse for this spec, in the same words, as far as can
	 * be told without changing anything. NULL: nothing.
	 */
	int (*pool_check)(const struct pool_spec *spec, struct coppice_error *err);

	/* Tell the commands that pool_create is equal to. NULL: it has nothing to tell. */
	void (*pool_explain)(const struct pool_spec *spec, explain_fn *explain, void *user);

	/*
	 * Open a pool, attaching and mounting what must be, once for all processes.
	 * COPPICE_NOT_FOUND: what it lives on is not there, though it may still be mounted.
	 * COPPICE_INVALID: it is there, and is no pool. COPPICE_BUSY: it has another owner or
	 * uuid than @spec says, unless those are empty. COPPICE_UNAVAILABLE.
	 */
	int (*pool_open)(const struct pool_spec *spec, struct pool **ret,
			 struct coppice_error *err);
	void (*pool_close)(struct pool *pool);

	/* Tell the commands that pool_open is equal to when it is not mounted. NULL: none. */
	void (*pool_open_explain)(const struct pool_spec *spec, explain_fn *explain, void *user);

	/*
	 * Hold the pool against whoever opened it from another state directory: shared
	 * while something in it is changed, alone to give it another owner. Does not wait:
	 * COPPICE_BUSY when others hold it; then it is not held. NULL: pools have one
	 * state directory for ever.
	 */
	int (*pool_hold)(struct pool *pool, enum pool_hold how, struct coppice_error *err);

	/*
	 * Of pools that several hosts use at once: lock what is locked in the state directory, for
	 * all of them. Each byte that lock_byte() gives a name is locked once, @wants or nothing.
	 * Does not wait: COPPICE_BUSY naming who has one of them. What a dead process had is
	 * free, and what it left is ended. Unlocking goes as far as it can. NULL, both: pools
	 * have one state directory at a time.
	 */
	int (*names_lock)(struct pool *pool, const struct lock_want *wants, size_t n,
			  struct coppice_error *err);
	void (*names_unlock)(struct pool *pool, const struct lock_want *wants, size_t n);

	/*
	 * This state directory uses it from now on, beside those that do. And not any more:
	 * *ret_others says who else does, free() it; if nobody does nothing is changed, and it
	 * is NULL. A dry run tells, and changes nothing. NULL, both: it is taken over from who has it.
	 */
	int (*pool_join)(struct pool *pool, struct coppice_error *err);
	int (*pool_leave)(struct pool *pool, char **ret_others, struct coppice_error *err);

	/* Is it mounted, or in no need of it? Mounts nothing. */
	bool (*pool_is_mounted)(const struct pool_spec *spec);

	/*
	 * Could it be unmounted, while this process has it not open? Changes nothing.
	 * COPPICE_BUSY. NULL: it is in use when one of its volumes is.
	 */
	int (*pool_can_umount)(const struct pool_spec *spec, struct coppice_error *err);

	/* Unmount and detach. COPPICE_OK when it was not; COPPICE_BUSY. */
	int (*pool_umount)(const struct pool_spec *spec, struct coppice_error *err);

	/*
	 * Would pool_destroy take along what others have made in what pool_create had?
	 * COPPICE_BUSY naming it. Changes nothing. NULL: it would not, or nobody can tell.
	 */
	int (*pool_can_destroy)(struct pool *pool, struct coppice_error *err);

	/*
	 * Remove all that pool_create made for this spec, and nothing else; what
	 * was never made, or is gone already, is passed over.
	 */
	int (*pool_destroy)(const struct pool_spec *spec, struct coppice_error *err);

	/* Make it larger. COPPICE_INVALID when smaller; COPPICE_UNSUPPORTED for a source not ours.
	 */
	int (*pool_resize)(struct pool *pool, uint64_t size_bytes, struct coppice_error *err);

	/*
	 * Let a file of ours grow by a quarter, up to @limit_bytes; *ret_did: it grew. NULL: it
	 * does not do so by itself.
	 */
	int (*pool_extend)(struct pool *pool, uint64_t limit_bytes, bool *ret_did,
			   struct coppice_error *err);

	int (*pool_space)(struct pool *pool, struct pool_space *ret, struct coppice_error *err);

	/*
	 * May its file fill up the file system that it lies in? *ret_is_file: it has one.
	 * NULL: never.
	 */
	int (*pool_host)(const struct pool_spec *spec, bool *ret_is_file, struct pool_host *ret,
			 struct coppice_error *err);

	/* The record of the pool itself; free() what is read. Writing is atomic and durable. */
	int (*pool_record_read)(struct pool *pool, char **ret, struct coppice_error *err);
	int (*pool_record_write)(struct pool *pool, const char *record, struct coppice_error *err);

	/*
	 * What people should know of a pool that was just made, to follow "pool 'x' "; or
	 * NULL. NULL, the op: nothing.
	 */
	const char *(*pool_remark)(struct pool *pool);

	/*
	 * What makes block devices of its volumes on this machine, in a word; "nothing" if that
	 * is missing. NULL, the op: they need none.
	 */
	const char *(*pool_mapper)(struct pool *pool);

	/* Where its volumes are found, or NULL; borrowed from the pool. */
	const char *(*pool_mount_path)(struct pool *pool);

	/* ---- making volumes ---- */

	/* Make a place for new volumes, locked until it is closed. */
	int (*draft_open)(struct pool *pool, struct draft *ret, struct coppice_error *err);

	/*
	 * Write on the draft what it is to publish, before any of it is whole: @volumes,
	 * none nested, each under its name. From then on a sweep that finds its maker
	 * dead publishes those that are whole, where the name is still free, and
	 * destroys the others. Durable with the next clone or volume_seal, which commit
	 * by themselves; so publish needs no commit. To take it back, draft_discard
	 * does. An engine may make announced clones under their names at once, as long as
	 * nobody sees them before publish. It may decline, leaving is_announced false.
	 * NULL, or declined: publish and commit.
	 */
	int (*draft_announce)(struct draft *draft, const struct new_volume *volumes, size_t n,
			      struct coppice_error *err);

	/*
	 * Destroy whatever is still in the draft, and the draft; give back its lock.
	 * Also how a draft ends whose volumes were published: then it is empty.
	 * Goes as far as it can; a second call does nothing.
	 */
	int (*draft_discard)(struct draft *draft, struct coppice_error *err);

	/*
	 * Make an empty volume in the draft, to be filled at *ret_path (free() it)
	 * by whoever, and then sealed. Of block content that is a device of limit_bytes, or of
	 * as many as the volume has that a nested one is of.
	 */
	int (*volume_create)(struct draft *draft, const struct new_volume *volume, char **ret_path,
			     struct coppice_error *err);

	/*
	 * Fill it, at the @path that volume_create gave, with all that is in directory
	 * @from, or on that device, sharing no data. NULL: this engine's volumes cannot be
	 * filled so.
	 */
	int (*volume_fill)(struct draft *draft, const struct new_volume *volume, const char *path,
			   const char *from, struct coppice_error *err);

	/*
	 * Asked some times a second while others write to what volume_create gave.
	 * COPPICE_UNAVAILABLE: that waits for what does not answer, and may for ever. NULL: it
	 * does not.
	 */
	int (*writing_check)(struct draft *draft, const struct new_volume *volume,
			     struct coppice_error *err);

	/* Where the data of a finished volume of the draft is; free() it. NULL with volume_fill. */
	int (*draft_path)(struct draft *draft, const struct new_volume *volume, char **ret,
			  struct coppice_error *err);

	/*
	 * All of its data reaches the disk; read-only from now on, if so asked. It has
	 * the record given now, which may be another than volume_create was given.
	 */
	int (*volume_seal)(struct draft *draft, const struct new_volume *volume, bool is_read_only,
			   struct coppice_error *err);

	/*
	 * Make @n copies of @origin in the draft, in as few commits as the engine can,
	 * writing nothing into them. Where the engine cannot share, they are full. In an
	 * announced draft they are durable when it returns, and so is the announcement.
	 * All or nothing, as far as users can see: on failure the draft is discarded.
	 */
	int (*clone)(struct draft *draft, const struct volume_ref *origin,
		     const struct new_volume *volumes, size_t n, bool is_read_only,
		     struct coppice_error *err);

	/* How the pool of @spec is to make copies. NULL: COPY_CLONED. */
	enum copy_way (*copy_way)(const struct pool_spec *spec);

	/*
	 * Copy by the engine's own stream: each of @volumes, in the draft, out of the one of
	 * @sources with the same index, in @from, a pool of this driver, or the draft's own.
	 * The first is an instance; the others are snapshots that are nested in it. They
	 * share with each other what their sources share, and with others what @way says
	 * (COPY_FULL when the pools are two); COPY_REBASED is full for what did not begin as
	 * an image. With @base, a volume of the draft's pool that was such a copy before, not
	 * NULL, only what is newer than what that has is sent, and the rest shared with it, as
	 * far as the engine can tell. They are whole then, and need no seal. On failure the draft
	 * is to be discarded; @from is as it was. COPPICE_UNSUPPORTED: these cannot be copied so;
	 * nothing was made or told, and the core copies files. So it does for NULL.
	 */
	int (*transfer)(struct draft *draft, struct pool *from, const struct volume_ref *sources,
			const struct new_volume *volumes, size_t n, enum copy_way way,
			const struct volume_ref *base, struct coppice_error *err);

	/*
	 * Give volumes of the draft their names; each takes the snapshots nested in it
	 * along, which are not named here. All or nothing but for a kill; each one atomic.
	 * COPPICE_EXISTS naming the first taken name: then none is published.
	 */
	int (*publish)(struct draft *draft, const struct new_volume *volumes, size_t n,
		       struct coppice_error *err);

	/* All that was published, renamed, retired and recorded is durable. */
	int (*commit)(struct pool *pool, struct coppice_error *err);

	/*
	 * End drafts whose makers died, *ret_n of them: publish what is whole of what
	 * they announced, destroy the rest. And destroy what others had retired and no
	 * time to reap, as far as that goes. Cheap when there is nothing.
	 * A draft that was announced is kept until pool->note_published returned, after
	 * its volumes were published: so a sweep that is killed before that is repeated,
	 * and nobody is left with an old idea of what there is.
	 */
	int (*draft_sweep)(struct pool *pool, size_t *ret_n, struct coppice_error *err);

	/* ---- changing volumes ---- */

	/*
	 * Put the data of @replacement, a volume of the draft, in the place of the data
	 * of @ref, whose record and snapshots stay. What it had is then in the draft.
	 * Atomic. Snapshots that are nested in @replacement become @ref's first, each of them
	 * atomic; none may have a name that is taken.
	 */
	int (*swap)(struct draft *draft, const struct new_volume *replacement,
		    const struct volume_ref *ref, struct coppice_error *err);

	/* Atomic. COPPICE_EXISTS for the new name. Snapshots go with their volume. */
	int (*rename)(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
		      struct coppice_error *err);

	/* Replace the record. Atomic; durable after commit. */
	int (*record_write)(struct pool *pool, const struct volume_ref *ref, const char *record,
			    struct coppice_error *err);

	/*
	 * Are limits enforced in this pool? COPPICE_OK, or COPPICE_UNSUPPORTED with the reason,
	 * as the steps say that are given a limit. Cheap. NULL: as traits.can_limit says.
	 */
	int (*can_limit)(struct pool *pool, struct coppice_error *err);

	/*
	 * Change how much a volume may allocate, at most @limit_bytes, 0: no limit; @how:
	 * LIMIT_… that the driver's keys name. Where there are none, it is as it is: snapshots
	 * count on Btrfs, and not on plain directories. Atomic
	 * but for a kill, which leaves one of the two limits. COPPICE_INVALID: it has more, in
	 * figures.
	 */
	int (*limit_set)(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
			 uint64_t limit_bytes, unsigned how, struct coppice_error *err);

	/* ---- deleting volumes ---- */

	/*
	 * Take volumes with their snapshots, or snapshots, out of sight; each atomic.
	 * @uuids: the one of each. COPPICE_NOT_FOUND naming the first that is not there;
	 * those before it are retired.
	 */
	int (*retire)(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
		      size_t n, struct coppice_error *err);

	/*
	 * Take that back, as it could not be committed; goes on past failures. NULL: it
	 * cannot be; then what was retired stays so.
	 */
	void (*unretire)(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
			 size_t n);

	/* Destroy what was retired and nobody stands on. Idempotent; goes on past failures. */
	int (*reap)(struct pool *pool, struct coppice_error *err);

	/* Tell what is retired and still held. */
	int (*pinned)(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err);

	/* ---- looking ---- */

	/*
	 * A number that changes whenever the set of volumes may have changed, by
	 * whomever; cheap. touch changes it.
	 */
	int (*stamp)(struct pool *pool, uint64_t *ret, struct coppice_error *err);

	/*
	 * Where to look at all takes its time, the stamp is a sum modulo STAMP_MODULUS of what
	 * each volume adds to it: this is the sum of what @refs add, each with all of its
	 * snapshots, nothing where one is not there. Each is named once, and none is a
	 * snapshot. So a command accounts for what it changes without looking at the rest.
	 * NULL: stamp is cheap.
	 */
	int (*stamp_part)(struct pool *pool, const struct volume_ref *refs, size_t n, uint64_t *ret,
			  struct coppice_error *err);

	/*
	 * The same of instances that have just been published, and have no snapshots: reckoned,
	 * without looking. Goes with stamp_part.
	 */
	uint64_t (*stamp_new)(struct pool *pool, const struct new_volume *volumes, size_t n);
	int (*touch)(struct pool *pool, struct coppice_error *err);

	/*
	 * Which volumes may be others than they were when this was last asked, by us or anybody,
	 * and *ret_last was @since; with their snapshots, and each once. *ret NULL: any; else
	 * free() it. What changes later than *ret_last is told the next time. NULL: nobody keeps
	 * that.
	 */
	int (*changes)(struct pool *pool, uint64_t since, struct volume_ref **ret, size_t *ret_n,
		       uint64_t *ret_last, struct coppice_error *err);

	/* Find all volumes, each before its snapshots, in no order else. */
	int (*scan)(struct pool *pool, scan_fn *fn, void *user, struct coppice_error *err);

	/* Of these only, as far as they are there. Goes with changes. */
	int (*scan_of)(struct pool *pool, const struct volume_ref *refs, size_t n, scan_fn *fn,
		       void *user, struct coppice_error *err);

	/* The record of one; free() it. COPPICE_NOT_FOUND. */
	int (*record_read)(struct pool *pool, const struct volume_ref *ref, char **ret,
			   struct coppice_error *err);

	/*
	 * One reading is to answer what is asked from here to the end, or to the next begin.
	 * Of the volumes of @refs, which locks keep as they are: record_read, stamp_part, and
	 * retire, after which it is over. Of everything if @n is 0, for who only looks: stamp,
	 * scan, usage. What is asked of others is looked up as ever. NULL, both: every question
	 * by itself is as good.
	 */
	int (*reading_begin)(struct pool *pool, const struct volume_ref *refs, size_t n,
			     struct coppice_error *err);
	void (*reading_end)(struct pool *pool);

	/*
	 * The directory that the volume's tree is in, or the device that its content is; free()
	 * it. Says where, touches nothing.
	 */
	int (*path)(struct pool *pool, const struct volume_ref *ref, char **ret,
		    struct coppice_error *err);

	/*
	 * Have the tree, or device, at that path, for whoever asks for it, and again no more.
	 * Both do nothing where it is so already; @ret_did says which. A volume that is
	 * renamed, retired or swapped is unmounted by that. COPPICE_NOT_FOUND;
	 * COPPICE_BUSY: its files are in use. NULL, both: every tree is always at its path.
	 */
	int (*volume_mount)(struct pool *pool, const struct volume_ref *ref, bool *ret_did,
			    struct coppice_error *err);
	int (*volume_umount)(struct pool *pool, const struct volume_ref *ref,
			     struct coppice_error *err);

	/*
	 * Count the space of @n volumes in one go: groups[i] → ret[i], in any order;
	 * what is not counted is unknown. refs[i] is the volume itself; without a name
	 * when it is gone and its group is not. With @is_exact, it is walked for what the
	 * engine does not count.
	 */
	int (*usage)(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
		     struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err);

	/*
	 * What all of these, volumes and snapshots, take together, what they share counted
	 * once. Walks them. NULL: `used` of pool_space tells.
	 */
	int (*used)(struct pool *pool, const struct volume_ref *refs, size_t n,
		    struct coppice_bytes *ret, struct coppice_error *err);

	/*
	 * Does any process use the files of one of these, in whatever namespace?
	 * COPPICE_BUSY naming process and path; or, where there is @tell, COPPICE_OK and
	 * each of them is told. NULL: nobody can.
	 */
	int (*in_use)(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
		      void *user, struct coppice_error *err);

	/*
	 * Tell what was made within a volume that is one of its own for the engine, so
	 * that clones of the volume are without, and goes with it: on Btrfs, subvolumes.
	 * Cheap where there is none: walks no tree. NULL: there never is any.
	 */
	int (*nested)(struct pool *pool, const struct volume_ref *ref, nested_fn *fn, void *user,
		      struct coppice_error *err);

	/* Damage that only the engine can see: leftover groups, wrong flags, … as problems. */
	int (*check)(struct pool *pool, bool is_repair, scan_fn *fn, void *user,
		     struct coppice_error *err);

	struct driver_traits traits;
};

/* NULL when no such driver is built in. */
_nonnull_ const struct driver *driver_find(const char *name);

/* The drivers that this build has, best first for a pool without one named. */
const struct driver *driver_at(size_t i);

/* Add one, for tests. At most once each. */
_nonnull_ void driver_add(const struct driver *driver);

/* NULL when the table of ops keeps the contract, or which op is missing. */
_nonnull_ const char *driver_problem(const struct driver *driver);
