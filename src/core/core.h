/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the core's files share: the handle, open pools, locks, changes. */

#include "base/lock.h"
#include "base/undo.h"
#include "catalog/catalog.h"
#include "core/record.h"
#include "core/settings.h"
#include "driver/driver.h"

/* A pool as STATE/pools/NAME.json has it, open or not. */
struct pool_entry {
	struct coppice *coppice; /* whose it is */
	char *name;
	char *source; /* NULL: Coppice made what it lives on */
	struct uuid uuid;
	struct coppice_settings config; /* without source */
	const struct driver *driver;
	struct pool_spec spec; /* borrows from all these */
	struct pool *pool;     /* NULL until pools_open() */
	bool is_fresh;         /* the catalog was compared with it by this handle */
	bool is_swept;   /* with something found, since: what was published is in no catalog */
	bool is_unswept; /* the last sweep failed */
	int64_t tries_again_ms; /* the pool's, also when it is opened again */
	bool is_held;    /* against other state directories, until the change is over */
	uint64_t stamp_rest; /* in a change: what the catalog knows of all that does not change */
	bool has_failed; /* it could not be opened by this handle, and that was told */
};

struct coppice {
	char *root; /* absolute */
	int root_fd;
	struct uuid owner; /* of the state directory */
	struct coppice_options options;
	struct lock_file locks;
	struct locks *held; /* by this handle, the last first */
	struct catalog *catalog;
	struct pool_entry **pools; /* sorted by name */
	size_t n_pools;
};

/* ---- what callers hear and say (hooks.c) ---- */

_nonnull_ _printf_(2, 3) void notice(struct coppice *coppice, const char *fmt, ...);
_nonnull_ _printf_(2, 3) void explain(struct coppice *coppice, const char *fmt, ...);
_nonnull_ bool is_interrupted(struct coppice *coppice);

/* ---- locks: names of what is locked, in one file of the state directory (locks.c) ---- */

enum lock_range {
	LOCK_POOLS,     /* shared while a pool is used, exclusive to make or delete it */
	LOCK_IMAGES,    /* shared to clone one, exclusive to unpack or delete it */
	LOCK_ALIASES,   /* one byte: whoever changes names of images */
	LOCK_INSTANCES, /* exclusive to make, change or delete one, shared to copy it */
	LOCK_MOUNTS,    /* exclusive to mount or unmount one, as it may be copied meanwhile */
};

struct locks {
	struct coppice *coppice; /* NULL: nothing is held */
	struct lock_want *want;
	size_t n, capacity;
	bool is_failed; /* out of memory */

	struct locks *next; /* that are held */

	/* What of it other hosts must know, and the pools that have been told. */
	struct lock_want *shared;
	size_t n_shared;
	struct pool_entry **told;
	size_t n_told;
};

/* clang-format off */
#define LOCKS_INIT { NULL, NULL, 0, 0, false, NULL, NULL, 0, NULL, 0 }
/* clang-format on */

_nonnull_ void locks_add(struct locks *locks, enum lock_range range, const char *name,
			 bool is_exclusive);
_nonnull_ int locks_take(struct coppice *coppice, struct locks *locks, struct coppice_error *err);
_nonnull_ void locks_done(struct locks *locks); /* gives back what is held */

/* A pool was opened: other hosts that use it know now what is held. COPPICE_BUSY. */
_nonnull_ int locks_tell(struct coppice *coppice, struct pool_entry *entry,
			 struct coppice_error *err);

/* Call it as long as it says COPPICE_BUSY, until the time for locks is over; at least so often. */
typedef int busy_fn(void *user, struct coppice_error *err);
_nonnull_ int wait_while_busy(struct coppice *coppice, busy_fn *fn, void *user, unsigned most_ms,
			      struct coppice_error *err);

/* ---- pools (pools.c) ---- */

_nonnull_ int pools_load(struct coppice *coppice, struct coppice_error *err);
_nonnull_ void pools_done(struct coppice *coppice);
_nonnull_ struct pool_entry *pools_get(struct coppice *coppice, const char *name);

/* The same, or COPPICE_NOT_FOUND. */
_nonnull_ int pools_find(struct coppice *coppice, const char *name, struct pool_entry **ret,
			 struct coppice_error *err);

enum pools_choice {
	POOLS_MAY_MAKE = 1 << 0, /* a new default, if there is none at all */
	POOLS_TRUSTED = 1 << 1,  /* what the catalog knows of it will do: pools_open_trusted() */
};

/*
 * The pool to use: the one named, else "default", else the only one; else an error that
 * lists them. Open when it returns. @how: POOLS_….
 */
int pools_choose(struct coppice *coppice, const char *name, unsigned how, struct pool_entry **ret,
		 struct coppice_error *err);

/* Open it if it is not, sweep what the dead left, and bring the catalog up to date. */
_nonnull_ int pools_open(struct coppice *coppice, struct pool_entry *entry,
			 struct coppice_error *err);

/*
 * The same, but where comparing takes its time, with what the catalog knew last. For those
 * who are told by the pool itself when that is not so, and who open it properly then.
 */
_nonnull_ int pools_open_trusted(struct coppice *coppice, struct pool_entry *entry,
				 struct coppice_error *err);

/*
 * The same as pools_open(), for who looks at all of it afterwards and changes nothing: the
 * engine may answer what is asked from one reading, until pools_look_end().
 */
_nonnull_ int pools_look_begin(struct coppice *coppice, struct pool_entry *entry,
			       struct coppice_error *err);

/* A notice for each that cannot be opened. */
_nonnull_ void pools_look_begin_all(struct coppice *coppice);
_nonnull_ void pools_look_end(struct coppice *coppice);

/* Close it until it is opened again. */
_nonnull_ void pool_entry_close(struct pool_entry *entry);

/*
 * Sweep the pools that are open, and read anew what that published. Under locks on names
 * it makes sure of them: who held them before has finished, or is dead and swept.
 */
_nonnull_ int pools_settle(struct coppice *coppice, struct coppice_error *err);

/* Open all that can be; a notice for each that cannot. */
_nonnull_ void pools_open_all(struct coppice *coppice);

/* What is asked from here on its engine looks up anew. */
static inline void pool_reading_end(const struct pool_entry *entry)
{
	if (entry->pool && entry->driver->reading_end)
		entry->driver->reading_end(entry->pool);
}

/* How copies within it are to be made. */
static inline enum copy_way pool_copy_way(const struct pool_entry *entry)
{
	return entry->driver->copy_way ? entry->driver->copy_way(&entry->spec) : COPY_CLONED;
}

/* ---- catalog and pool together (change.c) ---- */

/*
 * The step that publishes, and what the catalog must know of it, as one:
 *
 *	change_begin(); driver->publish(); catalog_volume_put(); …; change_end()
 *
 * @refs is what changes, under the names that it has at the beginning and at the end;
 * all of them are there then, or, unless @are_there, none but what a snapshot is of.
 *
 * Killed in between, the pool's stamp differs from the catalog's, and the next
 * command reads the pool anew. So it does if others changed the pool before or
 * meanwhile: what is stored at the end does not hide it.
 */
_nonnull_ int change_begin(struct coppice *coppice, struct pool_entry *entry,
			   const struct volume_ref *refs, size_t n, bool are_there,
			   struct coppice_error *err);
_nonnull_ int change_end(struct coppice *coppice, struct pool_entry *entry,
			 const struct volume_ref *refs, size_t n, bool are_there,
			 struct coppice_error *err);

/* The same where all are new instances without snapshots, of a driver that has stamp_new. */
_nonnull_ int change_end_new(struct coppice *coppice, struct pool_entry *entry,
			     const struct new_volume *volumes, size_t n, struct coppice_error *err);
_nonnull_ void change_abort(struct coppice *coppice);

/*
 * What change_begin does for other state directories, for steps without it: from here on
 * the pool stays ours until it is given back. COPPICE_BUSY: another has taken it over.
 */
_nonnull_ int pool_hold(struct coppice *coppice, struct pool_entry *entry,
			struct coppice_error *err);
_nonnull_ void pool_release(struct pool_entry *entry);

/* Wait for it to be had so, as long as for any lock. */
_nonnull_ int pool_hold_as(struct coppice *coppice, struct pool_entry *entry, enum pool_hold how,
			   struct coppice_error *err);

/* Compare the stamp, and if it differs read into the catalog what changed, or the whole pool. */
_nonnull_ int catalog_refresh(struct coppice *coppice, struct pool_entry *entry,
			      struct coppice_error *err);
_nonnull_ int catalog_rebuild(struct coppice *coppice, struct pool_entry *entry,
			      struct coppice_error *err);

/* How many volumes of it the catalog does not have because they are damaged. */
_nonnull_ int catalog_left_out(struct coppice *coppice, const struct pool_entry *entry,
			       uint64_t *ret, struct coppice_error *err);

/* Is this one of them? */
_nonnull_ bool volume_is_left_out(const struct found_volume *found);

/* Put what a record says of a volume into the catalog. */
_nonnull_ int catalog_put_record(struct coppice *coppice, const char *pool,
				 const struct volume_ref *ref, const struct record *record,
				 const char *text, struct coppice_error *err);

/* ---- room (room.c) ---- */

/*
 * COPPICE_NO_SPACE when the disk that the pool's file lies on is about to be full, or a pool that
 * must not be. One that may grow by itself does so before. What will soon be so is told.
 */
_nonnull_ int room_check(struct coppice *coppice, struct pool_entry *entry,
			 struct coppice_error *err);

/* What people should know of how full it is: "is 83 % full"; free() it; NULL: nothing. */
_nonnull_ int room_filling(struct pool_entry *entry, char **ret, struct coppice_error *err);

/* ---- volumes (volumes.c) ---- */

/* An existing volume or snapshot, found by name; its record read from the pool. */
struct volume {
	struct pool_entry *entry;
	struct volume_ref ref;
	struct record record;          /* its own */
	struct record instance_record; /* of a snapshot: its instance's */
};

void volume_done(struct volume *volume);

/*
 * Find an instance or snapshot by what users call it. Opens its pool. The catalog
 * says where; the pool whether it is so. COPPICE_NOT_FOUND saying what does not exist.
 */
_nonnull_ int volume_find(struct coppice *coppice, const struct volume_ref *ref, struct volume *ret,
			  struct coppice_error *err);

/* The same where it is enough that the pool has it: the rest of the pool is not compared. */
_nonnull_ int volume_find_trusted(struct coppice *coppice, const struct volume_ref *ref,
				  struct volume *ret, struct coppice_error *err);

/* Lock its instance, with the pool that it is in, alone or with others who only use it; find it. */
_nonnull_ int volume_lock(struct coppice *coppice, const struct volume_ref *ref, bool is_exclusive,
			  struct locks *locks, struct volume *ret, struct coppice_error *err);

/*
 * volume_find() for who locks nothing: what is not there may just be replaced, as some engines need
 * two steps for that; so then it is looked for once more when nobody is at work on it.
 */
_nonnull_ int volume_look(struct coppice *coppice, const struct volume_ref *ref, struct volume *ret,
			  struct coppice_error *err);

/* "instance 'c1'", "snapshot 'c1/s0'", "image 0123456789ab": how messages name it. */
#define VOLUME_TITLE_MAX (VOLUME_REF_TEXT_MAX + 16)
_nonnull_ const char *volume_title(const struct volume_ref *ref,
				   char buffer[static VOLUME_TITLE_MAX]);

/* record_format() with an error that says whose record it is. */
_nonnull_ int volume_record_format(const struct volume_ref *ref, const struct record *record,
				   char **ret, struct coppice_error *err);

/* record_parse() of what was read there: damage is COPPICE_FAILED, saying where and what to do. */
_nonnull_ int volume_record_parse(const struct pool_entry *entry, const struct volume_ref *ref,
				  const char *text, struct record *ret, struct coppice_error *err);

/* The record of what is in that pool; record_done() it. COPPICE_NOT_FOUND; damage as above. */
_nonnull_ int volume_record_read(const struct pool_entry *entry, const struct volume_ref *ref,
				 struct record *ret, struct coppice_error *err);

/* In which pool is there an instance of that name? NULL: in none. */
_nonnull_ int volume_pool_of(struct coppice *coppice, const char *name, char **ret,
			     struct coppice_error *err);

/* COPPICE_EXISTS if some pool has an instance of that name; of several, the first taken. */
_nonnull_ int volume_must_not_exist(struct coppice *coppice, const char *name,
				    struct coppice_error *err);
_nonnull_ int volumes_must_not_exist(struct coppice *coppice, const struct volume_name *names,
				     size_t n, struct coppice_error *err);

/* The account that a volume's data is charged to. */
static inline const struct uuid *volume_group(const struct volume *volume)
{
	return volume_is_snapshot(&volume->ref) ? &volume->instance_record.uuid
						: &volume->record.uuid;
}

/* A volume to be made: what the driver needs, and who owns it. */
struct making {
	struct new_volume volume; /* borrows from the rest */
	struct record record;
	char *text;
	char *word;
	char variable[24];
};

struct makings {
	struct making *making;
	size_t n, n_named; /* n_named: shell variables given out */
};

void makings_done(struct makings *makings);

/* Make room for @n; each is then filled and finished with making_finish(). */
_nonnull_ int makings_new(struct makings *makings, size_t n, struct coppice_error *err);

/*
 * Once ref and record are filled in: format it and tell explain the variable of its
 * uuid. @group: NULL for an account of its own, else that of an existing volume, or
 * of @owner, made before in the same draft.
 */
int making_finish(struct coppice *coppice, struct makings *makings, size_t i,
		  const struct uuid *group, const struct making *owner, struct coppice_error *err);

/* Size limit out of a configuration; 0: none. */
_nonnull_ uint64_t config_limit(const struct coppice_settings *config);

/* What that limit is of: LIMIT_… */
_nonnull_ unsigned config_limit_how(const struct driver *driver,
				    const struct coppice_settings *config);

/* A new volume's configuration: what it does not say itself, the pool's volume.* say. */
_nonnull_ int config_add_defaults(const struct pool_entry *entry, struct coppice_settings *config,
				  struct coppice_error *err);

/* Is this a key of @driver's limits? Volumes elsewhere do without. */
_nonnull_ bool config_is_limit_key(const struct driver *driver, const char *key);

/* Is it one that only some drivers have? */
_nonnull_ bool config_is_driver_key(const struct driver *driver, const char *key);

/*
 * Check @settings of an instance of this kind, and put them into its configuration; a NULL value
 * takes one out. @is_empty: it is one that begins empty, and is still to be made.
 */
int config_take(const struct pool_entry *entry, enum volume_kind kind,
		const struct coppice_setting *settings, size_t n, bool is_empty,
		struct coppice_settings *ret, struct coppice_error *err);

/* Is the key known and the value right? What a pool cannot do is refused too. */
_nonnull_ int config_check(const struct pool_entry *entry, const struct coppice_setting *setting,
			   struct coppice_error *err);

/* undo_fn for a draft: discards it. */
int undo_draft(void *owner, const char *name, struct coppice_error *err);

/* ---- moves (move.c) ---- */

/* Finish moves whose maker died before the source was retired; holding no lock of an instance. */
_nonnull_ void moves_finish(struct coppice *coppice);

/* COPPICE_UNAVAILABLE if one of these is the name of an instance in such a move, still. */
_nonnull_ int moves_refuse(struct coppice *coppice, const struct volume_name *names, size_t n,
			   struct coppice_error *err);

/* ---- images (images.c, image_store.c) ---- */

/* Alias, fingerprint or unique beginning of one → fingerprint. COPPICE_NOT_FOUND. */
_nonnull_ int image_resolve(struct coppice *coppice, const char *name, struct volume_name *ret,
			    struct coppice_error *err);
_nonnull_ int image_record_of(struct coppice *coppice, const char *fingerprint, bool *ret_has_bytes,
			      struct image_record *ret, struct coppice_error *err);

/* COPPICE_EXISTS naming the image that has it; COPPICE_INVALID: it cannot be one. */
_nonnull_ int alias_must_not_exist(struct coppice *coppice, const char *alias,
				   struct coppice_error *err);

/* Have the image unpacked in the pool; under its exclusive lock while it is made. */
_nonnull_ int image_ensure(struct coppice *coppice, struct pool_entry *entry,
			   const struct volume_name *fingerprint, struct coppice_error *err);

/* Read the image store into the catalog if it changed behind it; sweep what the dead left. */
_nonnull_ int images_refresh(struct coppice *coppice, struct coppice_error *err);

/*
 * The same when all is done and durable: what fails is told, and is no failure, as the
 * stamp makes the next command do it.
 */
_nonnull_ void images_catch_up(struct coppice *coppice);
_nonnull_ int images_rebuild(struct coppice *coppice, struct coppice_error *err);
