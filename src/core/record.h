/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The record: what a volume carries in the pool about itself, as a JSON object.
 *
 * Its name is not in it: the directory, dataset or LV has that, and said twice it
 * could be said differently after a kill between two steps. docs/on-disk.md has
 * the format.
 */

#include "core/settings.h"
#include "driver/volume.h"

/* Engines keep it as an attribute; the smallest of their limits (ext4: one block). */
#define RECORD_TEXT_MAX 3800

/* Somebody whose data a volume may still share. */
struct ancestor {
	struct uuid uuid;     /* of an image or instance, and so of its space account */
	struct uuid snapshot; /* of the snapshot it was cloned from, or empty */
	char *name;           /* what it was called then: "debian", "c1", "c1/before" */
	bool is_image;
};

/* What an image tells of itself; the same in each pool and beside its bytes. */
struct image_record {
	char *description;
	char *architecture;
	char *file_name; /* of the import, for export */
	uint64_t size_bytes;
	uint64_t rootfs_size_bytes; /* how many of them are the second file's; 0: there is none */
	int64_t created_ns;
	int64_t imported_ns;
	char **alias; /* NULL-terminated once there is one */
	size_t n_aliases;
	struct coppice_settings properties;
};

struct record {
	struct uuid uuid;
	enum volume_kind kind;
	int64_t created_ns;
	char image[65];           /* fingerprint of the image it began as, or empty */
	char *image_name;         /* what that was called, or NULL */
	struct uuid moved_from;   /* the pool with the same volume, still to be retired; or empty */
	struct ancestor *lineage; /* oldest first, the origin last; empty: shares nothing */
	size_t n_lineage;
	struct coppice_settings config;
	struct image_record of_image; /* of VOLUME_IMAGE only */
};

void record_done(struct record *record);
void image_record_done(struct image_record *record);

/*
 * COPPICE_INVALID when it is none, or too long; COPPICE_UNSUPPORTED when a newer Coppice wrote it.
 * Out: free().
 */
_nonnull_ int record_parse(const char *text, struct record *ret, struct coppice_error *err);
_nonnull_ int record_format(const struct record *record, char **ret, struct coppice_error *err);

/*
 * The same as a word of bash in which the uuid comes from the variable @variable
 * and the time of creation is that of the moment. free() the result.
 */
_nonnull_ int record_format_word(const struct record *record, const char *variable, char **ret,
				 struct coppice_error *err);

/* The image part alone, as it lies beside the bytes. */
_nonnull_ int image_record_parse(const char *text, struct image_record *ret,
				 struct coppice_error *err);
_nonnull_ int image_record_format(const struct image_record *record, char **ret,
				  struct coppice_error *err);
_nonnull_ int image_record_copy(struct image_record *to, const struct image_record *from,
				struct coppice_error *err);
_nonnull_ int image_record_add_alias(struct image_record *record, const char *alias,
				     struct coppice_error *err);
_nonnull_ void image_record_remove_alias(struct image_record *record, const char *alias);

/* Add one to the end of a lineage; its name is copied. */
_nonnull_ int record_add_ancestor(struct record *record, const struct ancestor *ancestor,
				  struct coppice_error *err);
_nonnull_ int record_copy_lineage(struct record *to, const struct record *from,
				  struct coppice_error *err);

/* May ancestors be missing, as they were too many? Then no figure can be made of those named. */
_nonnull_ bool record_lineage_is_cut(const struct record *record);

/* The origin, or NULL. */
static inline const struct ancestor *record_origin(const struct record *record)
{
	return record->n_lineage ? &record->lineage[record->n_lineage - 1] : NULL;
}
