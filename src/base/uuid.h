/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Identifiers, kept as their text: that is how all engines store them.
 *
 * 48 bits in the order of creation, the rest random (RFC 9562, version 8). An
 * engine that numbers things by them has those of one batch side by side: with
 * random numbers for the quota groups, each commit rewrote leaves all over the quota
 * tree, and init of 10,000 on Btrfs took 14 s, where it takes 7 so.
 */

#include "base/error.h"

#define UUID_TEXT_SIZE 37

struct uuid {
	char text[UUID_TEXT_SIZE]; /* lower case; empty: none */
};

/* Make a new one. Fails only if the kernel gives no random numbers. */
_nonnull_ int uuid_new(struct uuid *ret, struct coppice_error *err);

/* Is @text an identifier in the only form that we write? Fills @ret if so. */
_nonnull_ bool uuid_parse(const char *text, struct uuid *ret);

/* The first 48 bits, for engines that number things. */
_nonnull_ uint64_t uuid_first_48_bits(const struct uuid *uuid);
