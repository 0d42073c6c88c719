/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a person should hear about an image that was unpacked all the same. */

#include "base/error.h"

/* One line is told of each kind, about the first entry that it happened to. */
enum warning {
	WARNING_XATTR_REFUSED,
	WARNING_XATTR_UNSUPPORTED,
	WARNING_XATTR_OURS,
	WARNING_ACL_NAME,
	WARNING_ACL_UNSUPPORTED,
	WARNING_ENTRY_KIND,
	WARNING_HEADER,
	WARNING_SSH_KEYS,
	WARNING_MACHINE_ID,
	WARNINGS,
};

/* Report it, unless one of its kind was. */
_nonnull_ _printf_(2, 3) void warn_once(enum warning kind, const char *fmt, ...);
