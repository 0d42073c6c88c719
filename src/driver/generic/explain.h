/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The lines of --explain. */

#include <stdarg.h>

#include "driver/driver.h"

/* Tell one; nobody listens where @explain is NULL. One that there is no memory for is not told. */
_printf_(3, 4) void explain_line(explain_fn *explain, void *user, const char *fmt, ...);
_printf_(3, 0) void explain_vline(explain_fn *explain, void *user, const char *fmt, va_list args);
