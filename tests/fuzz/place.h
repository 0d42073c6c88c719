/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Somewhere to unpack into, and eyes on what is beside it. */

#include "image/unpack/source.h"

/*
 * Unpack @source into an empty directory, as an image of each kind that its
 * first byte chooses; abort() if anything outside of that directory was touched.
 */
void place_unpack(struct source *source, uint8_t kind);
