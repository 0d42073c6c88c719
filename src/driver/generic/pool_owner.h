/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Whose a pool is, as its record says. */

#include "driver/driver.h"

/*
 * Is the pool that is recorded at @place the one of @spec, and of its owner? What @spec leaves empty
 * is not asked. @at: "in" or "at", for messages.
 * COPPICE_BUSY: it is another, or another's, who is named. COPPICE_INVALID: the record is damaged.
 */
_nonnull_ int pool_owner_check(const struct pool_spec *spec, const char *record, const char *at,
			       const char *place, struct coppice_error *err);
