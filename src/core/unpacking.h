/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An image on its way into a pool: for image_import.c, and for whoever needs it there. */

#include "core/instances.h"
#include "image/import.h"

/* Where its bytes are, for messages and explanations. */
struct image_files {
	const char *path;
	const char *rootfs; /* the second file of a split image; or NULL */
};

/* An image on its way into a pool. */
struct unpacking {
	struct coppice *coppice;
	struct pool_entry *entry;
	struct draft draft;
	struct makings makings;
	struct image_info info;
	struct undo undo;
};

void unpacking_done(struct unpacking *unpacking);

/* The volume to be, as far as it is known before anything was read. */
_nonnull_ int unpacking_describe(struct unpacking *unpacking, struct coppice_error *err);

/* Read the image into a draft of the pool, or, in a dry run, through. */
_nonnull_ int unpacking_read(struct unpacking *unpacking, struct image_read *how,
			     struct coppice_error *err);

/* Name and record of the volume, from what was read; the steps are explained. */
_nonnull_ int unpacking_finish_description(struct unpacking *unpacking,
					   const struct image_record *record,
					   const struct image_files *files,
					   struct coppice_error *err);

/* Durable, read-only and under its name. Discards the draft on failure. */
_nonnull_ int unpacking_publish(struct unpacking *unpacking, struct coppice_error *err);

/* Has the pool a tree of that image? */
_nonnull_ int image_is_unpacked(struct pool_entry *entry, const struct volume_name *fingerprint,
				bool *ret, struct coppice_error *err);

/* Refuse to pack a directory that has @inside in it, which is ours. */
_nonnull_ int refuse_our_own(const char *directory, const char *inside, struct coppice_error *err);
