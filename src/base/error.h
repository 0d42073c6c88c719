/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The only place that makes errors. See enum coppice_code for what the codes mean. */

#include "base/base.h"
#include "coppice.h"

/* Fill @err. Returns @code, so: return fail(err, COPPICE_NOT_FOUND, "no image '%s'", name); */
_nonnull_ _printf_(3, 4) int fail(struct coppice_error *err, enum coppice_code code,
				  const char *fmt, ...);

/* The same for a failed system call: derives the code, keeps errno, appends its text. */
_nonnull_ _printf_(3, 4) int fail_errno(struct coppice_error *err, int os_errno, const char *fmt,
					...);

/* The same of something that nobody named: COPPICE_FAILED where that is missing, or there. */
_nonnull_ _printf_(3, 4) int fail_aside(struct coppice_error *err, int os_errno, const char *fmt,
					...);

/* Put "what we were doing: " in front of the message; keeps and returns the code. */
_nonnull_ _printf_(2, 3) int wrap(struct coppice_error *err, const char *fmt, ...);

_nonnull_ int fail_memory(struct coppice_error *err);
