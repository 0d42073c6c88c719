/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * LVM thin pools, by lvm(8): volumes are thin logical volumes with a file system each, clones
 * are thin snapshots, which stand on nothing, and records are tags. What was tried, and on
 * which version, is in docs/drivers.md; what lies where, in docs/on-disk.md.
 *
 *	VG/images_FP               of an image, read-only
 *	VG/containers_NAME         a container
 *	VG/containers_NAME-SNAP    its snapshot; a dash in a name is written twice
 *	VG/draft_UUID              of a draft
 *	VG/deleted_UUID            retired, with snapshots that are still to be removed
 *	VG/mending_POOL            beside the thin pool: a copy of its metadata; mending.c
 *
 * Which volume a snapshot is of, and what it is called, its tags say: what is renamed in one
 * step is a volume, and its snapshots follow in name only.
 */

#include <jansson.h>
#include <limits.h>

#include "base/run.h"
#include "driver/driver.h"
#include "driver/generic/filesystem.h"
#include "driver/generic/pool_state.h"

extern const struct driver driver_lvm;

/* Of a logical volume, without its group; the kernel's limit is for both together. */
#define LV_NAME_MAX 128

/* ---- tags ---- */

#define TAG_POOL      "coppice.pool"      /* on a thin pool: its volumes are ours */
#define TAG_MADE      "coppice.made"      /* on a thin pool, or a group: pool_create made it */
#define TAG_UUID      "coppice.uuid"      /* of the volume or snapshot */
#define TAG_GROUP     "coppice.group"     /* the uuid of the volume that it is, or is of */
#define TAG_SNAPSHOT  "coppice.snapshot"  /* what it is called as a snapshot */
#define TAG_DRAFT     "coppice.draft"     /* the uuid of the draft that it is in */
#define TAG_ANNOUNCED "coppice.announced" /* unseen while the draft of this uuid is pending */
#define TAG_SIZE      "coppice.size"      /* bytes that it is to have when it is next mounted */
#define TAG_BORN      "coppice.born"      /* the pool's time when what it restores was made */
#define TAG_SWAP      "coppice.swap"      /* whose name it had when a swap began */
#define TAG_MENDING   "coppice.mending"   /* mending.c: on a thin pool, and a copy of its metadata */

struct lvm_pool {
	struct pool pool;
	char *vg;                /* name of the volume group */
	char *thin;              /* and of its thin pool */
	char *source;            /* file or device that we made the group on; NULL: it was there */
	bool is_our_file;        /* and the file is ours, too */
	char *mount;             /* STATE/mnt/NAME: where what is mounted is mounted */
	char *file_system;       /* of new volumes: ext4, xfs or btrfs */
	char *mount_options;
	uint64_t size_bytes;     /* of new volumes */
	struct pool_state files; /* in STATE/lvm/NAME */
	struct lv_list *reading; /* between reading_begin and reading_end; or NULL */
	struct lv_list *opened;  /* as it was when the pool was opened, until something changes */
	struct talk talk;        /* command.c: with lvm, once it was needed */
	int lock_fd;             /* of the group's lock, which lvm has as well; or -1 */
	unsigned lock_timeout_ms; /* how long to wait for it, before anything was changed */
	bool has_changed;        /* something was: then no less than a minute */
	pid_t talker;            /* the process that talks: not what is forked from it */
	bool is_doubtful;        /* lvm ended in the middle of something: lvm_confirm() */
	int flush_failed;        /* errno of a flush that failed: for commit to tell */
};

static inline struct lvm_pool *lvm_pool_of(struct pool *pool)
{
	return CONTAINER_OF(pool, struct lvm_pool, pool);
}

/* How long to wait no less, for what was begun, to be ended or undone. */
#define BEGUN_MS 60000

/* ---- command.c: talking with lvm ---- */

/* A turn in the talk with the pool's lvm. One at a time, and not for threads. */
struct session {
	struct lvm_pool *lvm;
	bool is_changing;
	bool did_change;
};

/*
 * Begin one. At the end of it what was changed is on the disk. Who changes something has the lock
 * of the group, and so has lvm, by the same open file: when we are killed, whoever comes next waits
 * until it has ended what it was at.
 * COPPICE_BUSY: waited in vain.
 */
int session_begin(struct lvm_pool *lvm, bool is_changing, struct session *ret,
		  struct coppice_error *err);
void session_end(struct session *session);

/* Let lvm end, at the end of a pool. */
void lvm_talk_end(struct lvm_pool *lvm);

/*
 * Have one command done; what is put into @fmt has no blanks, quotes or backslashes.
 * @ret_report  what it reports; json_decref() it; NULL: not wanted
 * The error has what it said, and the code is COPPICE_NOT_FOUND or COPPICE_EXISTS only if it
 * said so.
 */
_printf_(4, 5) int session_do(struct session *session, json_t **ret_report,
			      struct coppice_error *err, const char *fmt, ...);

/* One command in a session of its own. */
_printf_(4, 5) int lvm_do(struct lvm_pool *lvm, json_t **ret_report, struct coppice_error *err,
			  const char *fmt, ...);

/*
 * The same of a command that is told a path, which may hold anything: then by a process of its
 * own.
 */
int lvm_run(struct lvm_pool *lvm, const char *const argv[], struct coppice_error *err);

/* Of a row of a report; "" where it has none. Borrowed. */
static inline const char *lvm_field(json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));

	return text ? text : "";
}

/* What a failed command means, from what it said; for its test. */
_nonnull_ int lvm_command_error(const char *command, const char *said, struct coppice_error *err);

/* Tell a line of bash. */
_printf_(2, 3) void lvm_explain(struct pool *pool, const char *fmt, ...);

/* ---- kernel.c ---- */

struct pool_status {
	uint64_t transaction_id; /* as the kernel has it; LVM believes it only if it has the same */
	uint64_t total_bytes, block_bytes;
	uint64_t used_blocks, total_blocks;
	uint64_t used_metadata_blocks, total_metadata_blocks; /* of 4 KiB */
	bool is_read_only; /* or there is no space left */
	bool needs_check;
	bool is_held; /* there is a snapshot of the metadata */
};

int lvm_pool_status(const struct lvm_pool *lvm, struct pool_status *ret, struct coppice_error *err);

/* Send the thin pool a message, as "reserve_metadata_snap". */
int lvm_pool_tell(const struct lvm_pool *lvm, const char *message, struct coppice_error *err);

/*
 * What lvm wrote of a group into its physical volumes reaches the disks: it does not ask for that
 * itself. 0, or an errno.
 */
int lvm_flush(const struct lvm_pool *lvm);

/* ---- names.c ---- */

/* "containers" */
const char *lvm_kind_word(enum volume_kind kind);

/*
 * The name of a volume's or snapshot's logical volume: containers_c1-before. What LVM has no
 * letter for, or has reserved, is written as +5f. With its group it may be longer than the kernel
 * takes: a snapshot is snap_ and a hash of that then; of a volume it is COPPICE_INVALID.
 */
int lvm_name(const struct lvm_pool *lvm, const struct volume_ref *ref,
	     char ret[static LV_NAME_MAX], struct coppice_error *err);

/* Of a volume or snapshot and its record; sums of these are the pool's stamp. */
uint64_t lvm_hash(const struct volume_ref *ref, const char *record);

/* Which volume has this name? False: none, or it is a snapshot. */
bool lvm_name_parse(const char *name, struct volume_ref *ret);

/* LVM takes no other number of bytes than of whole sectors. */
static inline unsigned long long whole_sectors(uint64_t bytes)
{
	return (bytes + 511) / 512 * 512;
}

/* Where the kernel has it: /dev/mapper/VG-containers_c1, dashes twice. */
void lvm_device(const struct lvm_pool *lvm, const char *name, char ret[static PATH_MAX]);

/* ---- tags.c: records as tags ---- */

/*
 * The tags that hold a record, each preceded by @prefix; free() the result. So they stay
 * legible: {"kind":"container"} is coppice.00.kind=container.
 */
char *tags_of_record(const char *record, const char *prefix, struct coppice_error *err);

/*
 * The options that make the tags of something, @tags, those of @record, or of none where that
 * is NULL: only what differs, as LVM takes away what it is told to add as well. free() it.
 */
char *tags_change(const char *tags, const char *record, struct coppice_error *err);

/* And back; free() it. NULL: there is none, or no memory. @tags: separated by commas. */
char *record_of_tags(const char *tags);

/* Is this one of those? */
bool tag_is_of_record(const char *tag, size_t length);

/* The value of "KEY=VALUE" among @tags; false: there is none, or it is too long. */
bool tag_get(const char *tags, const char *key, char *ret, size_t size);

/* ---- listing.c ---- */

struct lv {
	const char *name;
	const char *tags;   /* separated by commas */
	uint64_t size_bytes;
	uint64_t thin_id;
	struct uuid uuid, group, draft, announced; /* empty: none */
	char snapshot[VOLUME_NAME_MAX + 1];        /* empty: it is none */
	bool is_pending;                           /* announced, by who has not published it */
	char *record;                              /* owned; NULL: none */
	struct lv *volume; /* of a snapshot: the one that is seen and that it is of; else NULL */
};

struct lv_list {
	struct lv *lv;
	size_t n;
	const char *pool_tags; /* of the thin pool itself; NULL: there is none */
	const char *beside;    /* one in the group that is not in the thin pool; NULL: none */
	bool has_mending;      /* somebody is mending its metadata, or was when he was killed */
	json_t *report;        /* what strings point into */
};

void lv_list_done(struct lv_list *listing);
void lv_list_free(struct lv_list *listing);

/* All logical volumes in the thin pool. */
int lv_list_read(struct session *session, struct lv_list *ret, struct coppice_error *err);
int lvm_list_read(struct lvm_pool *lvm, struct lv_list *ret, struct coppice_error *err);

struct lv *lv_list_find(const struct lv_list *listing, const char *name);

/* Its size as somebody asked for it, which a group rounds up; or as it is. */
uint64_t lv_bytes_asked(const struct lv *lv);

/* Is it made, announced, deleted, or of what is so: nothing that users see? */
bool lv_is_hidden(const struct lvm_pool *lvm, const struct lv *lv);

/* Has it neither our tags nor a name of ours? */
bool lv_is_stranger(const struct lv *lv);

/* Is it a volume that was retired, and is still to be removed? */
bool lv_is_deleted(const struct lv *lv);

/* Is it a snapshot of one that is deleted, and of none that is there? */
bool lv_is_of_deleted(const struct lv_list *listing, const struct lv *lv);

/* Which volume or snapshot is it, as users see it? False: it is something else, or hidden. */
bool lv_ref(const struct lvm_pool *lvm, const struct lv *lv, struct volume_ref *ret);

/* The one that is this, or NULL. */
struct lv *lv_list_find_ref(const struct lvm_pool *lvm, const struct lv_list *listing,
			    const struct volume_ref *ref);

/* The same, read anew; COPPICE_NOT_FOUND naming it. */
int lvm_find(struct session *session, const struct volume_ref *ref, struct lv_list *listing,
	     struct lv **ret, struct coppice_error *err);
int lvm_fail_missing(const struct volume_ref *ref, struct coppice_error *err);

/* The reading, if there is one; else read now, into *@own. */
int lvm_look(struct lvm_pool *lvm, struct lv_list *own, const struct lv_list **ret,
	     struct coppice_error *err);

/* ---- confirming.c ---- */

/*
 * Did a cut of the power leave LVM to make what the kernel has made already? Then it is told that
 * it has. Or what the kernel has not made? Then it is made, or, where what it is of is in use, goes.
 * Before anything is changed, where somebody may have been cut short.
 */
int lvm_confirm(struct session *session, struct coppice_error *err);

/* Has LVM still to be made to forget what it was to make? lvm_confirm() does that, too. */
bool lvm_remembers(const struct lvm_pool *lvm);

/* Of a pool that is no more. */
void lvm_forget_remembering(const struct lvm_pool *lvm);

/* ---- mending.c ---- */

/*
 * Make the device of the thin pool be there. Did a cut of the power leave metadata that LVM wants
 * repaired, as a snapshot of it was being taken or released, then it is mended first, unless that
 * is a dry run. A snapshot that it holds is nobody's then, and is released.
 * COPPICE_UNAVAILABLE: it is damaged otherwise, or cannot be mended here, and is as it was.
 */
int lvm_activate_thin(struct lvm_pool *lvm, bool is_dry_run, struct coppice_error *err);

/* Does this one of a group say that metadata is being mended, or that something is left of that? */
bool lvm_is_mending(const struct lvm_pool *lvm, const char *name, const char *tags);

/* Remove what is left of it, of a pool that is active. */
int lvm_mending_sweep(struct lvm_pool *lvm, struct coppice_error *err);

/* ---- check.c ---- */

int lvm_check(struct pool *pool, bool is_repair, scan_fn *fn, void *user,
	      struct coppice_error *err);

/* ---- mounting.c ---- */

/* Make a logical volume's device be there, or be gone. */
int lvm_activate(struct session *session, const char *name, struct coppice_error *err);
int lvm_deactivate(struct session *session, const char *name, struct coppice_error *err);

/* Where it is mounted, by whoever. */
bool lvm_mount_find(const struct lvm_pool *lvm, const char *name, char ret[static PATH_MAX]);

/* Have the device of one that has block content; larger first, if it is to be. */
int lvm_open_block(struct session *session, const struct lv *lv, bool *ret_did,
		   struct coppice_error *err);

/* Mount one at a path, which is made; unmount all that is mounted of it. */
int lvm_mount_at(struct session *session, const struct lv *lv, const char *path,
		 struct coppice_error *err);
int lvm_umount(struct session *session, const char *name, struct coppice_error *err);

/* Unmount a volume with its snapshots, or a snapshot. */
int lvm_umount_ref(struct session *session, const struct lv_list *listing,
		   const struct volume_ref *ref, struct coppice_error *err);

int lvm_path(struct pool *pool, const struct volume_ref *ref, char **ret,
	     struct coppice_error *err);
int lvm_volume_mount(struct pool *pool, const struct volume_ref *ref, bool *ret_did,
		     struct coppice_error *err);
int lvm_volume_umount(struct pool *pool, const struct volume_ref *ref, struct coppice_error *err);
int lvm_in_use(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
	       void *user, struct coppice_error *err);

/* ---- pool.c, pool_making.c ---- */

enum place_kind {
	PLACE_OUR_FILE, /* a group of ours on a sparse file of ours */
	PLACE_DEVICE,   /* a group of ours on somebody's file or device */
	PLACE_GROUP,    /* somebody's group */
};

struct place {
	enum place_kind kind;
	char vg[LV_NAME_MAX], thin[LV_NAME_MAX];
	char device[PATH_MAX]; /* the file or device; not of PLACE_GROUP */
};

int lvm_place_find(const struct pool_spec *spec, struct place *ret, struct coppice_error *err);
int lvm_pool_new(const struct pool_spec *spec, const struct place *place, struct pool **ret,
		 struct coppice_error *err);
int lvm_state_ensure(const struct pool_spec *spec, struct lvm_pool *lvm,
		     struct coppice_error *err);

/*
 * The device of the thin pool itself: NAME-tpool as soon as a volume was active, NAME before
 * that. False: it is not active.
 */
bool lvm_pool_device(const struct lvm_pool *lvm, char ret[static PATH_MAX]);

/*
 * The tags of the thin pool; free() them. COPPICE_NOT_FOUND: there is none, or no such group.
 */
int lvm_pool_tags(struct lvm_pool *lvm, char **ret, struct coppice_error *err);
int lvm_check_owner(const struct lvm_pool *lvm, const struct pool_spec *spec, const char *record,
		    struct coppice_error *err);

int lvm_probe(const struct pool_spec *spec, struct coppice_error *err);
int lvm_choose(struct coppice_error *err);
int lvm_pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		    struct coppice_error *err);
int lvm_pool_check(const struct pool_spec *spec, struct coppice_error *err);
void lvm_pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user);
void lvm_pool_open_explain(const struct pool_spec *spec, explain_fn *explain, void *user);
int lvm_pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err);
void lvm_pool_close(struct pool *pool);
DEFINE_CLEANUP(struct pool *, lvm_pool_close)
bool lvm_pool_is_mounted(const struct pool_spec *spec);
int lvm_pool_umount(const struct pool_spec *spec, struct coppice_error *err);
int lvm_umount_all(struct lvm_pool *lvm, bool is_our_group, struct coppice_error *err);
int lvm_pool_can_destroy(struct pool *pool, struct coppice_error *err);
int lvm_pool_destroy(const struct pool_spec *spec, struct coppice_error *err);
int lvm_pool_resize(struct pool *pool, uint64_t size_bytes, struct coppice_error *err);
int lvm_pool_extend(struct pool *pool, uint64_t limit_bytes, bool *ret_did,
		    struct coppice_error *err);
int lvm_pool_host(const struct pool_spec *spec, bool *ret_is_file, struct pool_host *ret,
		  struct coppice_error *err);
int lvm_pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err);
int lvm_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err);
int lvm_pool_record_write(struct pool *pool, const char *record, struct coppice_error *err);
const char *lvm_pool_mount_path(struct pool *pool);
void lvm_reading_end(struct pool *pool);

/* ---- draft.c ---- */

int lvm_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err);
int lvm_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
		       struct coppice_error *err);
int lvm_draft_discard(struct draft *draft, struct coppice_error *err);
int lvm_draft_path(struct draft *draft, const struct new_volume *volume, char **ret,
		   struct coppice_error *err);
int lvm_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err);

/* What a draft remembers of what was made in it. */
struct lvm_making {
	bool has_items;     /* something in it that has no name yet */
	bool has_nested;    /* snapshots among that, which get their names behind their volumes */
	size_t n_announced; /* under their names already, hidden */
};

static inline struct lvm_making *lvm_making_of(const struct draft *draft)
{
	return draft->driver;
}

/* ---- making.c ---- */

int lvm_volume_create(struct draft *draft, const struct new_volume *volume, char **ret_path,
		      struct coppice_error *err);
int lvm_volume_fill(struct draft *draft, const struct new_volume *volume, const char *path,
		    const char *from, struct coppice_error *err);
int lvm_volume_seal(struct draft *draft, const struct new_volume *volume, bool is_read_only,
		    struct coppice_error *err);
int lvm_clone(struct draft *draft, const struct volume_ref *origin,
	      const struct new_volume *volumes, size_t n, bool is_read_only,
	      struct coppice_error *err);
int lvm_publish(struct draft *draft, const struct new_volume *volumes, size_t n,
		struct coppice_error *err);

/* The logical volume of one that has no name yet. */
void lvm_item_name(const struct new_volume *volume, char ret[static LV_NAME_MAX]);

/* Where it is filled; free() it. */
char *lvm_item_path(const struct draft *draft, const struct new_volume *volume);

/* ---- changing.c ---- */

int lvm_swap(struct draft *draft, const struct new_volume *replacement,
	     const struct volume_ref *ref, struct coppice_error *err);
int lvm_rename(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
	       struct coppice_error *err);
int lvm_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
		     struct coppice_error *err);
int lvm_limit_set(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
		  uint64_t limit_bytes, unsigned how, struct coppice_error *err);

/* Put the record of one into its tags, in the place of the one that it has. */
int lvm_tags_record(struct session *session, const struct lv *lv, const char *record,
		    struct coppice_error *err);

/* Give snapshots the names that they should have, by their volumes. Goes on past failures. */
int lvm_names_mend(struct session *session, const struct lv_list *listing,
		   struct coppice_error *err);

/* Take back a swap that was cut short, or finish it: @old is what was live. */
int lvm_swap_recover(struct session *session, const struct lv_list *listing, const struct lv *old,
		     const char *name, struct coppice_error *err);

/* ---- deleting.c ---- */

int lvm_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids, size_t n,
	       struct coppice_error *err);
int lvm_reap(struct pool *pool, struct coppice_error *err);
int lvm_pinned(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err);

/* Remove many, unmounted before; all of them unless it fails. */
int lvm_remove(struct session *session, const char *const names[], size_t n,
	       struct coppice_error *err);

/* Remove what was retired, and is still there. */
int lvm_reap_in(struct session *session, const struct lv_list *listing,
		struct coppice_error *err);

/* ---- space.c ---- */

int lvm_usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
	      struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err);

/*
 * Of a thin pool that has just been activated, under the lock of its group: a snapshot of its
 * metadata is nobody's, and goes, as there is one at most, and who wants figures is to have it.
 * Unless LVM does not check what it activates: then it stays, and figures are unknown.
 */
void lvm_release_left(struct lvm_pool *lvm);

/* When the volume began, by the thin pool's own time, for TAG_BORN of what takes its place. */
#define BORN_UNKNOWN  "unknown"
#define BORN_TEXT_MAX 16
void lvm_born(struct lvm_pool *lvm, const struct lv *lv, char ret[static BORN_TEXT_MAX]);
