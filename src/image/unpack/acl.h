/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* POSIX ACLs as archives name them, to the kernel's binary form. */

#include <archive.h>
#include <archive_entry.h>

#include "base/error.h"

/*
 * Remember this machine's user and group names, because GNU tar writes ACLs by
 * name. To be called while /etc can still be seen.
 */
void acl_names_open(void);

enum {
	ACL_ENTRIES_MAX = 1024,
	ACL_BLOB_MAX = 4 + 8 * ACL_ENTRIES_MAX
};

/*
 * Put the ACL of one type (ARCHIVE_ENTRY_ACL_TYPE_ACCESS, …_DEFAULT) into @ret,
 * as system.posix_acl_* takes it. Returns its length; 0 when there is none or it
 * says no more than the mode.
 */
_nonnull_ size_t acl_format(struct archive_entry *entry, int type, const char *path,
			    uint8_t ret[static ACL_BLOB_MAX]);
