/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Random (version 4) identifiers, kept as their text: that is how all engines store them. */

#include "base/error.h"

#define UUID_TEXT_SIZE 37

struct uuid {
	char text[UUID_TEXT_SIZE]; /* lower case; empty: none */
};

/* Make a new one from the kernel's random numbers. Fails only if there are none. */
_nonnull_ int uuid_new(struct uuid *ret, struct coppice_error *err);

/* Is @text an identifier in the only form that we write? Fills @ret if so. */
_nonnull_ bool uuid_parse(const char *text, struct uuid *ret);

/* The first 48 bits, for engines that number things. */
_nonnull_ uint64_t uuid_first_48_bits(const struct uuid *uuid);
