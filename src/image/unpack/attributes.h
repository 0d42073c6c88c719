/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What an entry has beside name and content: owner, mode, times, attributes, ACLs. */

#include <archive_entry.h>
#include <sys/stat.h>

#include "base/error.h"

struct attributes {
	mode_t mode; /* type and permissions */
	uid_t uid;
	gid_t gid;
	struct timespec times[2];    /* access and modification; UTIME_OMIT: not known */
	struct archive_entry *extra; /* has attributes or ACLs; NULL: none. Borrowed */
};

/* COPPICE_INVALID for an owner that no system can have. */
_nonnull_ int attributes_read(struct archive_entry *entry, struct attributes *ret,
			      struct coppice_error *err);

/*
 * Give them to an open file or directory that root has just made. Its content is
 * there already: writing would take capabilities and times away again.
 */
_nonnull_ int attributes_set(int fd, const struct attributes *attributes, const char *path,
			     struct coppice_error *err);

/* The same for what cannot be opened: symbolic links, devices, fifos. */
_nonnull_ int attributes_set_at(int dir_fd, const char *base, const struct attributes *attributes,
				const char *path, struct coppice_error *err);
