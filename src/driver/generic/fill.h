/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* volume_fill for engines whose volumes are directories while they are made. */

#include "driver/driver.h"

int fill_by_copying(struct draft *draft, const struct new_volume *volume, const char *path,
		    const char *from, struct coppice_error *err);
