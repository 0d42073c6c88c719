/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a volume or snapshot with its record adds to a stamp that is a sum. */

#include "driver/volume.h"

/* @kind: the driver's own word for its kind. */
_nonnull_ uint64_t volume_hash(const char *kind, const struct volume_ref *ref, const char *record);
