/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * STATE/images: the imported bytes, FP (of a split image also FP.rootfs), and beside
 * them FP.json, what is known of the image. The .json is what makes an image exist:
 * it comes last and goes first.
 */

#include "core/core.h"

/* Bytes on their way in: a file that only its maker holds, by flock. */
struct store_file {
	int fd;
	char name[80];
};

_nonnull_ int store_begin(struct coppice *coppice, struct store_file *ret,
			  struct coppice_error *err);
_nonnull_ void store_abort(struct coppice *coppice, struct store_file *file); /* also when zeroed */

/*
 * Bytes first, then the record: after this the image exists. Durable. The record says
 * whether there are two files; @rootfs is not looked at otherwise.
 */
_nonnull_ int store_commit(struct coppice *coppice, struct store_file *file,
			   struct store_file *rootfs, const char *fingerprint,
			   const struct image_record *record, struct coppice_error *err);

/* Replace the record, if the image is in the store. */
_nonnull_ int store_update(struct coppice *coppice, const char *fingerprint,
			   const struct image_record *record, struct coppice_error *err);
_nonnull_ int store_delete(struct coppice *coppice, const char *fingerprint,
			   struct coppice_error *err);

/* COPPICE_NOT_FOUND when only pools have the image. */
_nonnull_ int store_open(struct coppice *coppice, const char *fingerprint, int *ret_fd,
			 struct coppice_error *err);

/* The same for the second file of a split image. */
_nonnull_ int store_open_rootfs(struct coppice *coppice, const char *fingerprint, int *ret_fd,
				struct coppice_error *err);

_nonnull_ bool store_has_rootfs(struct coppice *coppice, const char *fingerprint);

/* Of all that is kept of it. */
_nonnull_ int store_size(struct coppice *coppice, const char *fingerprint, uint64_t *ret,
			 struct coppice_error *err);
