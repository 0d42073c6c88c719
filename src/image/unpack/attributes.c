/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the order that the kernel's side effects leave: owner first (it clears
 * setuid and capabilities), then mode, then attributes and ACLs, times last.
 */
#include "image/unpack/attributes.h"

#include <archive.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/attribute.h"
#include "base/file.h"
#include "image/unpack/acl.h"
#include "image/unpack/warnings.h"

#define PERMISSIONS 07777

/* Where to set an attribute: an open file, or a name in the working directory. */
struct place {
	int fd;           /* of the file, or of that directory */
	const char *base; /* NULL: fd */
	const char *path; /* for messages */
	size_t all_bytes; /* of the attributes so far, with their names */
};

static struct timespec time_or_omit(bool is_set, time_t seconds, long nanoseconds)
{
	if (!is_set)
		return (struct timespec){ .tv_nsec = UTIME_OMIT };
	return (struct timespec){ .tv_sec = seconds, .tv_nsec = nanoseconds };
}

int attributes_read(struct archive_entry *entry, struct attributes *ret, struct coppice_error *err)
{
	int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);

	if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
		return fail(err, COPPICE_INVALID, "has the impossible owner %lld:%lld for '%s'",
			    (long long)uid, (long long)gid, archive_entry_pathname(entry));
	ret->mode = archive_entry_mode(entry);
	ret->uid = (uid_t)uid;
	ret->gid = (gid_t)gid;
	ret->times[0] = time_or_omit(archive_entry_atime_is_set(entry), archive_entry_atime(entry),
				     archive_entry_atime_nsec(entry));
	ret->times[1] = time_or_omit(archive_entry_mtime_is_set(entry), archive_entry_mtime(entry),
				     archive_entry_mtime_nsec(entry));
	ret->extra = NULL;
	if (archive_entry_xattr_count(entry) > 0 || archive_entry_acl_types(entry) != 0)
		ret->extra = entry;
	return COPPICE_OK;
}

/* ---- attributes and ACLs ---- */

static bool begins(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Not what belongs to us, nor what would make a layer of somebody's overlay of it. */
static bool is_for_us_to_set(const char *name, const char *path)
{
	if (begins(name, "trusted.overlay.") || begins(name, "trusted.coppice")) {
		warn_once(WARNING_XATTR_OURS, "'%s' has the attribute %s, which is left out", path,
			  name);
		return false;
	}
	if (begins(name, "user.") || begins(name, "security.") || begins(name, "trusted.") ||
	    begins(name, "system.posix_acl_"))
		return true;
	warn_once(WARNING_XATTR_REFUSED, "'%s' has the attribute %s, which nobody knows: left out",
		  path, name);
	return false;
}

/* No file system of Linux keeps more. */
static int check_sizes(const struct place *place, const char *name, size_t length,
		       struct coppice_error *err)
{
	if (length > XATTR_SIZE_MAX)
		return fail(err, COPPICE_INVALID,
			    "has '%s' with the attribute %.64s of %zu bytes, and at most %d can be",
			    place->path, name, length, XATTR_SIZE_MAX);
	if (strlen(name) > XATTR_NAME_MAX)
		return fail(err, COPPICE_INVALID,
			    "has '%s' with an attribute whose name has %zu bytes, and at most %d "
			    "can be: %.64s…",
			    place->path, strlen(name), XATTR_NAME_MAX, name);
	return COPPICE_OK;
}

static int xattr_set(struct place *place, const char *name, const void *value, size_t length,
		     struct coppice_error *err)
{
	struct attribute_refused refused = {
		.name = name,
		.path = place->path,
		.size_bytes = length,
		.all_bytes = place->all_bytes += strlen(name) + length,
		.fd = place->fd,
		.at = place->base,
	};
	int r = check_sizes(place, name, length, err);

	if (r < 0)
		return r;
	r = place->base ? lsetxattr(place->base, name, value, length, 0)
			: fsetxattr(place->fd, name, value, length, 0);

	if (r == 0)
		return COPPICE_OK;
	if (errno == EPERM || errno == EACCES) {
		warn_once(WARNING_XATTR_REFUSED, "'%s' cannot have the attribute %s: left out",
			  place->path, name);
		return COPPICE_OK;
	}
	if (errno == EOPNOTSUPP) {
		warn_once(WARNING_XATTR_UNSUPPORTED,
			  "the pool's file system has no attributes %s ('%s'): left out", name,
			  place->path);
		return COPPICE_OK;
	}
	if (errno == EINVAL)
		return fail(err, COPPICE_INVALID,
			    "has '%s' with the attribute %s, and a value that Linux does not take",
			    place->path, name);
	return fail_attribute(&refused, errno, err);
}

static int acl_set(struct place *place, struct archive_entry *entry, int type, const char *name,
		   struct coppice_error *err)
{
	uint8_t blob[ACL_BLOB_MAX];
	size_t length = acl_format(entry, type, place->path, blob);

	return length > 0 ? xattr_set(place, name, blob, length, err) : COPPICE_OK;
}

static int extra_set(struct place *place, struct archive_entry *entry, struct coppice_error *err)
{
	const char *name;
	const void *value;
	size_t length;

	(void)archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &length) == ARCHIVE_OK) {
		if (is_for_us_to_set(name, place->path) &&
		    xattr_set(place, name, value, length, err) < 0)
			return err->code;
	}
	if (acl_set(place, entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access", err) <
	    0)
		return err->code;
	return acl_set(place, entry, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default",
		       err);
}

/* ---- all of them ---- */

/* What root makes with umask 0 in a directory of root's is root's, in the mode it asked for. */
static bool has_owner(const struct attributes *attributes)
{
	return attributes->uid != 0 || attributes->gid != 0;
}

static bool has_times(const struct attributes *attributes)
{
	return attributes->times[0].tv_nsec != UTIME_OMIT ||
	       attributes->times[1].tv_nsec != UTIME_OMIT;
}

int attributes_set(int fd, const struct attributes *attributes, const char *path,
		   struct coppice_error *err)
{
	struct place place = { .fd = fd, .path = path };
	bool is_dir = S_ISDIR(attributes->mode); /* made with another mode, until it is full */

	if ((has_owner(attributes) || is_dir) && fchown(fd, attributes->uid, attributes->gid) < 0)
		return fail_errno(err, errno, "cannot set the owner of '%s'", path);
	/* Writing and a new owner both take setuid and setgid away. */
	if ((is_dir || (attributes->mode & (S_ISUID | S_ISGID))) &&
	    fchmod(fd, attributes->mode & PERMISSIONS) < 0)
		return fail_errno(err, errno, "cannot set the mode of '%s'", path);
	if (attributes->extra && extra_set(&place, attributes->extra, err) < 0)
		return err->code;
	if (has_times(attributes) && futimens(fd, attributes->times) < 0)
		return fail_errno(err, errno, "cannot set the times of '%s'", path);
	return COPPICE_OK;
}

int attributes_set_at(int dir_fd, const char *base, const struct attributes *attributes,
		      const char *path, struct coppice_error *err)
{
	struct place place = { .fd = dir_fd, .base = base, .path = path };

	if (has_owner(attributes) &&
	    fchownat(dir_fd, base, attributes->uid, attributes->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return fail_errno(err, errno, "cannot set the owner of '%s'", path);
	if (!S_ISLNK(attributes->mode) && (attributes->mode & (S_ISUID | S_ISGID)) &&
	    fchmodat(dir_fd, base, attributes->mode & PERMISSIONS, 0) < 0)
		return fail_errno(err, errno, "cannot set the mode of '%s'", path);
	if (attributes->extra) {
		/* There is no lsetxattr relative to a directory before Linux 6.13. */
		if (fchdir(dir_fd) < 0)
			return fail_errno(err, errno, "cannot enter the directory of '%s'", path);
		if (extra_set(&place, attributes->extra, err) < 0)
			return err->code;
	}
	if (has_times(attributes) &&
	    utimensat(dir_fd, base, attributes->times, AT_SYMLINK_NOFOLLOW) < 0)
		return fail_errno(err, errno, "cannot set the times of '%s'", path);
	return COPPICE_OK;
}
