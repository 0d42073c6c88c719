/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* metadata.yaml, by which an LXD image describes itself. */

#include "base/error.h"

struct metadata {
	char *architecture;                 /* never NULL */
	int64_t created_ns;                 /* creation_date; 0: it does not say */
	struct coppice_settings properties; /* sorted by key, each key once */
};

/*
 * Parse @length bytes of YAML. Pure.
 *
 * Keys that we do not use are passed over, whatever they hold; anchors, aliases
 * and nesting deeper than 16 are refused wherever they are.
 *
 * @param ret  give it to metadata_done()
 * @return COPPICE_OK; COPPICE_INVALID with the line
 */
_nonnull_ int metadata_parse(const char *data, size_t length, struct metadata *ret,
			     struct coppice_error *err);

/* Takes a zeroed or half-built one. */
_nonnull_ void metadata_done(struct metadata *metadata);

/* The value of a property, borrowed, or NULL. */
_nonnull_ const char *metadata_property(const struct coppice_settings *properties, const char *key);
