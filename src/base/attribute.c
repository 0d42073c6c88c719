/* SPDX-License-Identifier: Apache-2.0 */
#include "base/attribute.h"

#include <errno.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

/*
 * What a file's attributes may take, everywhere: ext4 has them in one block of at least 1 KiB,
 * Btrfs each in a node of at least 4.
 */
#define ATTRIBUTES_FIT   900
#define FULL_BELOW_BYTES (4ULL << 20)

/*
 * Btrfs may have no room for metadata while it says that some is free for data. Then it refuses
 * an attribute of whatever size.
 */
static bool is_full(const struct attribute_refused *refused)
{
	struct statfs st;
	int r;

	if (fstatfs(refused->fd, &st) < 0 || st.f_bavail * (uint64_t)st.f_bsize < FULL_BELOW_BYTES)
		return true;
	r = refused->at ? lsetxattr(refused->at, refused->name, "", 0, 0)
			: fsetxattr(refused->fd, refused->name, "", 0, 0);
	return r < 0 && errno == ENOSPC;
}

static bool is_too_large(const struct attribute_refused *refused, int os_errno)
{
	if (os_errno == ENOSPC)
		return refused->all_bytes > ATTRIBUTES_FIT && !is_full(refused);
	return os_errno == E2BIG || os_errno == ERANGE;
}

int fail_attribute(const struct attribute_refused *refused, int os_errno, struct coppice_error *err)
{
	if (is_too_large(refused, os_errno)) {
		(void)fail(err, COPPICE_UNSUPPORTED,
			   "attribute %s of '%s' has %zu bytes (%zu with its name and those before "
			   "it), more than that file system keeps with a file",
			   refused->name, refused->path, refused->size_bytes, refused->all_bytes);
		err->os_errno = os_errno;
		return err->code;
	}
	return fail_errno(err, os_errno, "cannot set attribute %s of '%s'", refused->name,
			  refused->path);
}
