/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What every engine says of a limit that is too small. */

#include "driver/driver.h"

/*
 * COPPICE_INVALID, if a limit of @limit_bytes is less than the @has_bytes that volume @name
 * has already; @what says of which figure that is: "it has".
 */
_nonnull_ int limit_check(const char *name, uint64_t limit_bytes, const char *what,
			  uint64_t has_bytes, struct coppice_error *err);

/* The same of clones of what has @origin_bytes, before the first is made; the first that is refused. */
int limits_check_clones(uint64_t origin_bytes, const struct new_volume *volumes, size_t n,
			struct coppice_error *err);
