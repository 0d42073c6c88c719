/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>

/* "compress=zstd" or "discard" */
static int set_option(int fd, char *option)
{
	char *value = strchr(option, '=');

	if (value)
		*value++ = '\0';
	return fsconfig(fd, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, option, value, 0);
}

/* Words of mount(8) that are of the mount, and of no file system; "ro" and "rw" are of both. */
static const struct attribute {
	const char *word;
	uint64_t clear, set;
} attributes_by_word[] = {
	{ "defaults", 0, 0 },
	{ "nosuid", 0, MOUNT_ATTR_NOSUID },
	{ "suid", MOUNT_ATTR_NOSUID, 0 },
	{ "nodev", 0, MOUNT_ATTR_NODEV },
	{ "dev", MOUNT_ATTR_NODEV, 0 },
	{ "noexec", 0, MOUNT_ATTR_NOEXEC },
	{ "exec", MOUNT_ATTR_NOEXEC, 0 },
	{ "noatime", MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME },
	{ "atime", MOUNT_ATTR__ATIME, MOUNT_ATTR_RELATIME },
	{ "relatime", MOUNT_ATTR__ATIME, MOUNT_ATTR_RELATIME },
	{ "strictatime", MOUNT_ATTR__ATIME, MOUNT_ATTR_STRICTATIME },
	{ "norelatime", 0, 0 },
	{ "nostrictatime", MOUNT_ATTR__ATIME, MOUNT_ATTR_RELATIME },
	{ "nosymfollow", 0, MOUNT_ATTR_NOSYMFOLLOW },
	{ "nodiratime", 0, MOUNT_ATTR_NODIRATIME },
	{ "diratime", MOUNT_ATTR_NODIRATIME, 0 },
};

static bool take_attribute(const char *word, uint64_t *attributes)
{
	for (size_t i = 0; i < ARRAY_SIZE(attributes_by_word); i++) {
		const struct attribute *known = &attributes_by_word[i];

		if (strcmp(known->word, word) != 0)
			continue;
		*attributes = (*attributes & ~known->clear) | known->set;
		return true;
	}
	return false;
}

static int set_options(int fd, const char *options, uint64_t *attributes)
{
	_cleanup_(freep) char *copy = strdup(options);
	char *rest = copy, *option;

	if (!copy)
		return -ENOMEM;
	while ((option = strsep(&rest, ",")) != NULL)
		if (*option && !take_attribute(option, attributes) && set_option(fd, option) < 0)
			return -errno;
	return 0;
}

int mount_held(const char *type, const char *device, const char *options, uint64_t attributes,
	       const char *where, int *ret_fd)
{
	_cleanup_(closep) int fd = fsopen(type, FSOPEN_CLOEXEC);
	_cleanup_(closep) int mount_fd = -1, top = -1;
	int r;

	if (fd < 0 || fsconfig(fd, FSCONFIG_SET_STRING, "source", device, 0) < 0)
		return -errno;
	r = set_options(fd, options, &attributes);
	if (r < 0)
		return r;
	if (fsconfig(fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	mount_fd = fsmount(fd, FSMOUNT_CLOEXEC, (unsigned)attributes);
	if (mount_fd < 0)
		return -errno;
	top = openat(mount_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0 || move_mount(mount_fd, "", AT_FDCWD, where, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	*ret_fd = take_fd(&top);
	return 0;
}
