/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Reading an image: one pass over its bytes, in which they are hashed, kept,
 * and unpacked by a confined child process.
 */

#include "base/error.h"
#include "image/metadata.h"

/* The second file of a split image: its root file system. */
struct image_rootfs {
	int in_fd;        /* as in struct image_read */
	int store_fd;     /* likewise */
	const char *name; /* likewise */
};

/* How to read. */
struct image_read {
	int in_fd;                   /* borrowed; read once, from where it stands to its end; of a
					directory its archive is, which a child makes meanwhile */
	int store_fd;                /* the same bytes are written here on the way; -1: nowhere */
	const char *target_path;     /* an empty directory to unpack into; NULL: only check */
	int keep_fd;                 /* the child holds this one, and no other of ours; -1: none */
	uint64_t memory_limit_bytes; /* of the decoder; 0: 256 MiB */
	uint64_t total_bytes;        /* how many will come, for progress; 0: unknown */
	const struct image_rootfs *rootfs; /* in_fd has metadata.yaml and templates only; or NULL */
	const struct coppice_hooks *hooks; /* progress, is_interrupted; or NULL */
	const char *name;                  /* of the file, for messages and progress */

	/*
	 * Asked as often as is_interrupted; NULL: never. A failure of it, COPPICE_UNAVAILABLE, says
	 * that target_path waits for what does not answer: then the child is killed, and if that
	 * has to wait as well, left to end when it can.
	 */
	int (*check)(void *user, struct coppice_error *err);
	void *check_user;
};

/* What was read. */
struct image_info {
	char fingerprint[65]; /* SHA-256 of the bytes, hexadecimal; of a split image both files' */
	uint64_t size_bytes;  /* of both files, if there are two */
	uint64_t rootfs_size_bytes; /* of the second; 0 when the image is one file */
	bool is_unified;    /* LXD's unified tarball; else a plain root file system, or split */
	char *architecture; /* of a plain one: this machine's */
	char *description;  /* or NULL */
	int64_t created_ns; /* or 0 */
	struct coppice_settings properties; /* of metadata.yaml, sorted */
	uint64_t n_entries;
	uint64_t unpacked_bytes; /* content of its files, holes not counted */
	size_t n_warnings;
	char **warning; /* one line each */
};

/*
 * Read an image.
 *
 * Then @how->target_path holds rootfs/, and what a unified or split image has beside it.
 * Nothing is synced, neither there nor at store_fd. After a failure both hold
 * anything: the caller discards them.
 *
 * Atomic: no.
 * Blocks: until all is read and unpacked; asks is_interrupted ten times a second.
 * Threads: the child dies with the calling thread.
 *
 * @param how  borrowed for the call
 * @param ret  give it to image_info_done()
 * @param err  filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_INVALID, naming what is wrong with the file, for
 *         one that is empty, damaged, truncated, no image, or needs more memory
 *         than the limit; COPPICE_NO_SPACE; COPPICE_INTERRUPTED, the child is
 *         gone; what check said; COPPICE_UNSUPPORTED without root; COPPICE_FAILED
 */
_nonnull_ int image_read(const struct image_read *how, struct image_info *ret,
			 struct coppice_error *err);

/* Takes a zeroed or half-built one. */
_nonnull_ void image_info_done(struct image_info *info);
