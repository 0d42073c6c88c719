/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The contract of driver.h as a list of cases, run on every driver. A case talks
 * to the driver only through the contract, and to what is in a volume through a
 * struct subject. What a driver cannot do is skipped, saying why.
 *
 * Helpers end the test when what they do fails; what is to fail is called directly.
 */

#include "driver/driver.h"
#include "tap.h"

/* The driver under test, and how to read and write what is in its volumes. */
struct subject {
	const char *name; /* what it is called as an argument */
	const struct driver *driver;
	const char *quota;        /* the pool's btrfs.quota, or NULL */
	const char *file_system;  /* its volume.block.filesystem, or NULL */
	const char *volume_size;  /* its volume.size, or NULL */
	const char *(*no_limits)(void); /* why these pools enforce none; or returns, or is, NULL */
	const char *size;             /* of the pool; NULL: it has none */
	const char *no_read_only;     /* why it does not enforce read-only; NULL: it does */
	const char *no_processes;     /* why other processes do not see its pools; NULL: they do */
	const char *no_files;         /* why its volumes are not files; NULL: they are */
	const char *(*no_nanoseconds)(void); /* why it forgets parts of seconds; NULL: it does not */
	unsigned metadata_bytes;      /* that a write may take beside its data; 0: 256 KiB */
	bool keeps_some;              /* of a device's space for itself, as it grows ever more */
	bool has_tombstones;          /* what others were cloned from stays, pinned */
	bool has_accounts;            /* what was written stays charged to who wrote it, also when deleted */
	size_t (*n_left)(
		struct pool *pool);        /* how many things there are that no user has; or NULL */
	void (*settle)(struct pool *pool); /* wait for what the engine does later; or NULL */
	const char *(*why_not)(void); /* NULL, or why it cannot run on this machine */

	int (*put)(struct pool *pool, const struct volume_ref *ref, const char *key,
		   const char *value, struct coppice_error *err);
	/* free() it; NULL: there is none */
	char *(*get)(struct pool *pool, const struct volume_ref *ref, const char *key);
};

extern const struct subject subject_memory, subject_dir, subject_btrfs, subject_btrfs_noquota,
	subject_zfs, subject_lvm_ext4, subject_lvm_xfs, subject_lvm_btrfs, subject_ceph,
	subject_ceph_xfs, subject_ceph_btrfs;

/* Which one this run is about. */
extern const struct subject *subject;

extern const struct tap_test cases_pool[], cases_make[], cases_announce[], cases_change[],
	cases_delete[], cases_look[], cases_use[], cases_crowd[];

/* Does a pool of this run enforce limits? */
static inline bool subject_can_limit(void)
{
	return subject->driver->traits.can_limit && !(subject->no_limits && subject->no_limits());
}

/* ---- pools ---- */

/* What all cases use; the same for a test and for what cleans up after it. */
struct pool_spec spec_of_test(void);

/* The record that pool_up() gives the pool; in a static buffer. */
const char *pool_record(void);

struct pool *pool_up(void);
struct pool *pool_again(struct pool *pool); /* close and open */
void pool_down(struct pool *pool);          /* close; what cleans up destroys it */

/* Delete all volumes and drafts: pool_destroy removes only what pool_create made. */
void pool_clear(struct pool *pool);

/* Where the engine can be checked, nothing is found. */
void check_pool(struct pool *pool);

/* ---- volumes ---- */

/* "c1" and "c1/s1" are instances and snapshots, "@name" is a custom volume, "image" the image. */
struct volume_ref ref_of(const char *name);

/* A new one with a uuid and a record that are its own; kept until the process ends. */
struct new_volume new_of(const char *name);

/* The same, a snapshot or a replacement in the account of @group. */
struct new_volume new_in_group(const char *name, const struct new_volume *of);

/* The same, a snapshot that is published with its volume, made before it in the draft. */
struct new_volume new_nested(const char *name, const struct new_volume *of);

struct draft draft_up(struct pool *pool);
void draft_down(struct draft *draft);

/* Make in a draft a volume with a file called "content", which holds @value. */
void fill(struct draft *draft, const struct new_volume *volume, const char *value,
	  bool is_read_only);

/* From draft to commit: a volume that holds @value. */
struct new_volume make(struct pool *pool, const char *name, const char *value);
struct new_volume make_image(struct pool *pool, const char *value);
struct new_volume clone_of(struct pool *pool, const char *origin, const char *name);
struct new_volume snapshot_of(struct pool *pool, const struct new_volume *instance,
			      const char *name);
void retire(struct pool *pool, const char *name, const struct new_volume *volume);
void reap(struct pool *pool);
size_t sweep(struct pool *pool); /* how many drafts of the dead there were */

void put(struct pool *pool, const char *name, const char *value);

/* Text that no engine can compress, different for each @seed; @size with the NUL. */
void noise(char *text, size_t size, unsigned seed);

/* What the volume's "content" is; "(nothing)" when there is none. Kept. */
const char *get(struct pool *pool, const char *name);

bool is_there(struct pool *pool, const char *name);
const char *record_of(struct pool *pool, const char *name); /* kept */
uint64_t stamp_of(struct pool *pool);

/* How many the scan finds; checks that none comes before its volume, or twice. */
size_t count(struct pool *pool);

/* Keep a string, which was allocated, until the process ends. */
const char *keep(char *text);
