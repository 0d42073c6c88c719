/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Names of volumes and snapshots as values: made only by parsing, so that
 * nothing unparsed reaches a path or an argument list.
 */

#include "base/error.h"
#include "base/uuid.h"

enum volume_kind {
	VOLUME_IMAGE,
	VOLUME_CONTAINER,
	VOLUME_VIRTUAL_MACHINE,
	VOLUME_CUSTOM, /* no command makes these yet; their place is kept */
	VOLUME_KINDS,
};

/* Kinds as a set, and those that instances are of: these share one space of names. */
#define VOLUME_KIND_BIT(kind) (1U << (kind))
#define VOLUME_INSTANCES                                                                           \
	(VOLUME_KIND_BIT(VOLUME_CONTAINER) | VOLUME_KIND_BIT(VOLUME_VIRTUAL_MACHINE))

#define VOLUME_NAME_MAX 64

struct volume_name {
	char text[VOLUME_NAME_MAX + 1]; /* empty: none */
};

/* Which volume, or which snapshot of one. */
struct volume_ref {
	enum volume_kind kind;
	struct volume_name name;
	struct volume_name snapshot; /* empty: the volume itself */
};

/* Is its content a disk, which others see as a device? Else it is a file system. */
static inline bool volume_is_block(const struct volume_ref *ref)
{
	return ref->kind == VOLUME_VIRTUAL_MACHINE;
}

/*
 * LXD's rule for instances: 1 to 63 ASCII letters, digits and dashes; not
 * beginning with a digit or a dash, not ending with a dash.
 */
_nonnull_ int instance_name_parse(const char *text, struct volume_name *ret,
				  struct coppice_error *err);

/* 1 to 63 bytes: letters, digits and "-_.:"; not beginning with a dash or a dot. */
_nonnull_ int snapshot_name_parse(const char *text, struct volume_name *ret,
				  struct coppice_error *err);

/* 64 lower-case hexadecimal digits. */
_nonnull_ int fingerprint_parse(const char *text, struct volume_name *ret,
				struct coppice_error *err);

/* The same alphabet as snapshots; what a pool is called, and an alias of an image. */
_nonnull_ int pool_name_parse(const char *text, struct volume_name *ret, struct coppice_error *err);
_nonnull_ int alias_parse(const char *text, char ret[static 256], struct coppice_error *err);

/* INSTANCE or INSTANCE/SNAPSHOT. */
_nonnull_ int instance_ref_parse(const char *text, struct volume_ref *ret,
				 struct coppice_error *err);

/* Does @name, found in a pool, keep the rule for its kind? */
_nonnull_ bool volume_name_is_valid(enum volume_kind kind, const char *name);

/* "container", and the other way round; NULL or false for what is none. */
const char *volume_kind_name(enum volume_kind kind);
_nonnull_ bool volume_kind_parse(const char *name, enum volume_kind *ret);

static inline bool volume_is_snapshot(const struct volume_ref *ref)
{
	return ref->snapshot.text[0] != '\0';
}

/* For qsort(), by kind and name: a snapshot counts as the volume that it is of. */
_nonnull_ int volume_compare(const void *a, const void *b);

/* "c1" or "c1/before", for messages. */
#define VOLUME_REF_TEXT_MAX (2 * VOLUME_NAME_MAX + 2)
_nonnull_ const char *volume_ref_format(const struct volume_ref *ref,
					char buffer[static VOLUME_REF_TEXT_MAX]);
