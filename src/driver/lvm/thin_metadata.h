/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who holds which blocks of a thin pool, read from its metadata on disk, as the kernel's
 * drivers/md/dm-thin-metadata.c and persistent-data/ lay it out (Documentation/admin-guide/
 * device-mapper/thin-provisioning.rst). What thin_ls counts of each device is counted here of
 * groups of devices as well, and what each wrote.
 *
 * Clones share the nodes of their maps, and what was walked is not walked again: it takes as
 * long as there are nodes, not as long as there are devices.
 */

#include "base/error.h"

/* A volume or snapshot; the caller says which, and to which group it belongs. */
struct thin_device {
	uint32_t id;    /* the kernel's */
	uint32_t group; /* an index; those of one are counted together */

	/* Found: */
	bool is_there;
	uint64_t mapped_blocks;
	uint64_t exclusive_blocks; /* that no other device has */
	uint32_t created;          /* by the pool's own time, which each snapshot advances */
};

/* By id, for qsort(); and the one of this id among sorted ones, or NULL. */
int thin_device_compare(const void *a, const void *b);
struct thin_device *thin_device_find(struct thin_device *devices, size_t n, uint32_t id);

struct thin_group {
	uint32_t born; /* the pool's time when it began; UINT32_MAX: not known */

	/* Found: */
	uint64_t unique_blocks;  /* that no device of another group has */
	uint64_t written_blocks; /* that were allocated since, whoever else has them by now */
};

/*
 * Count. @fd: the metadata device, or a file of the same, of which a snapshot is held that
 * reserve_metadata_snap made; or, with @is_whole, that nobody has open to write.
 *
 * @devices  sorted by id; devices that are not named are others
 * @born     called before anything is written into @groups, when created of all is known; may
 *           say when groups began; NULL: nobody
 * COPPICE_UNAVAILABLE: there is no snapshot held, or it is damaged.
 */
int thin_metadata_count(int fd, bool is_whole, struct thin_device *devices, size_t n,
			struct thin_group *groups, size_t n_groups, void (*born)(void *user),
			void *user, struct coppice_error *err);

/* When was a device created, by the pool's own time? COPPICE_NOT_FOUND. As above. */
int thin_metadata_created(int fd, bool is_whole, uint32_t id, uint32_t *ret,
			  struct coppice_error *err);

/*
 * Of metadata that nobody else has open: where the snapshot lies that it holds, by its superblock;
 * 0: it holds none. COPPICE_UNAVAILABLE: there is no good superblock.
 */
int thin_metadata_held(int fd, uint64_t *ret, struct coppice_error *err);

/* Say so in the superblock, and nothing else; durably. Atomic: a sector is written. */
int thin_metadata_hold(int fd, uint64_t at, struct coppice_error *err);

/*
 * The first block behind @after that is such a snapshot, and in use; 0: there is none. What was
 * released lies there still, in blocks that are free.
 */
int thin_metadata_find_snapshot(int fd, uint64_t after, uint64_t *ret, struct coppice_error *err);
