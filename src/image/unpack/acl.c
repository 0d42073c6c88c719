/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel takes an ACL as an attribute: a version and then entries of tag,
 * permissions and id, sorted by tag and id (linux/posix_acl_xattr.h).
 */
#include "image/unpack/acl.h"

#include <endian.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#include "image/unpack/warnings.h"

enum {
	ACL_VERSION = 2,
	ACL_NO_ID = -1
};

struct acl_row {
	uint16_t tag; /* ascending in the order that the kernel wants */
	uint16_t permissions;
	uint32_t id;
};

static FILE *passwd_file, *group_file;

void acl_names_open(void)
{
	passwd_file = fopen("/etc/passwd", "re");
	group_file = fopen("/etc/group", "re");
}

static bool user_find(const char *name, uint32_t *ret)
{
	struct passwd *row;

	if (!passwd_file)
		return false;
	rewind(passwd_file);
	while ((row = fgetpwent(passwd_file))) {
		if (strcmp(row->pw_name, name) == 0) {
			*ret = row->pw_uid;
			return true;
		}
	}
	return false;
}

static bool group_find(const char *name, uint32_t *ret)
{
	struct group *row;

	if (!group_file)
		return false;
	rewind(group_file);
	while ((row = fgetgrent(group_file))) {
		if (strcmp(row->gr_name, name) == 0) {
			*ret = row->gr_gid;
			return true;
		}
	}
	return false;
}

static uint16_t tag_of(int tag)
{
	switch (tag) {
	case ARCHIVE_ENTRY_ACL_USER_OBJ:
		return 0x01;
	case ARCHIVE_ENTRY_ACL_USER:
		return 0x02;
	case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
		return 0x04;
	case ARCHIVE_ENTRY_ACL_GROUP:
		return 0x08;
	case ARCHIVE_ENTRY_ACL_MASK:
		return 0x10;
	case ARCHIVE_ENTRY_ACL_OTHER:
		return 0x20;
	default:
		return 0;
	}
}

/* libarchive gives -1 where the archive has only a name. */
static bool id_find(int tag, int id, const char *name, uint32_t *ret)
{
	*ret = (uint32_t)id;
	if (id >= 0 || (tag != ARCHIVE_ENTRY_ACL_USER && tag != ARCHIVE_ENTRY_ACL_GROUP))
		return true;
	if (!name || name[0] == '\0')
		return false;
	return tag == ARCHIVE_ENTRY_ACL_USER ? user_find(name, ret) : group_find(name, ret);
}

static int row_compare(const void *a, const void *b)
{
	const struct acl_row *x = a, *y = b;

	if (x->tag != y->tag)
		return x->tag < y->tag ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

static size_t rows_collect(struct archive_entry *entry, int type, const char *path,
			   struct acl_row rows[static ACL_ENTRIES_MAX])
{
	int found_type, permissions, tag, id;
	const char *name;
	size_t n = 0;

	(void)archive_entry_acl_reset(entry, type);
	while (n < ACL_ENTRIES_MAX && archive_entry_acl_next(entry, type, &found_type, &permissions,
							     &tag, &id, &name) == ARCHIVE_OK) {
		struct acl_row *row = &rows[n];

		row->tag = tag_of(tag);
		row->permissions = (uint16_t)(permissions & 7);
		if (row->tag == 0)
			continue;
		if (id_find(tag, id, name, &row->id))
			n++;
		else
			warn_once(WARNING_ACL_NAME,
				  "the ACL of '%s' names '%s', whom this machine does not know: "
				  "left out",
				  path, name ? name : "");
	}
	return n;
}

static size_t rows_format(const struct acl_row *rows, size_t n, uint8_t *ret)
{
	uint32_t version = htole32(ACL_VERSION);
	uint8_t *at = ret;

	memcpy(at, &version, sizeof(version));
	at += sizeof(version);
	for (size_t i = 0; i < n; i++, at += 8) {
		uint16_t tag = htole16(rows[i].tag), permissions = htole16(rows[i].permissions);
		uint32_t id = htole32(rows[i].id);

		memcpy(at, &tag, 2);
		memcpy(at + 2, &permissions, 2);
		memcpy(at + 4, &id, 4);
	}
	return (size_t)(at - ret);
}

size_t acl_format(struct archive_entry *entry, int type, const char *path,
		  uint8_t ret[static ACL_BLOB_MAX])
{
	enum {
		NO_MORE_THAN_THE_MODE = 3
	};
	static struct acl_row rows[ACL_ENTRIES_MAX];
	size_t n;

	if (!(archive_entry_acl_types(entry) & type))
		return 0;
	n = rows_collect(entry, type, path, rows);
	if (n == 0 || (n <= NO_MORE_THAN_THE_MODE && type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS))
		return 0;
	qsort(rows, n, sizeof(rows[0]), row_compare);
	return rows_format(rows, n, ret);
}
