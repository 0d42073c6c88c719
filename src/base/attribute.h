/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Why a file system does not take an extended attribute. */

#include <stddef.h>

#include "base/error.h"

/* An extended attribute that a file system did not take. */
struct attribute_refused {
	const char *name, *path; /* of the attribute, and of what should have it */
	size_t size_bytes;
	size_t all_bytes; /* names and values of all that it should have, up to this one */
	int fd;           /* of what should have it, or of anything on that file system */
	const char *at;   /* not NULL: for lsetxattr(), as fd is something else */
};

/*
 * Say why. Linux calls it "no space" too when a file system does not keep so much with a file,
 * however empty it is: that is COPPICE_UNSUPPORTED here, naming the attribute and its size.
 * To see which it is, the attribute is tried empty: this is for what will be thrown away.
 */
_nonnull_ int fail_attribute(const struct attribute_refused *refused, int os_errno,
			     struct coppice_error *err);
