/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/btrfs/sysfs.h"

#include <fcntl.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/base.h"

#define PATH_SIZE 160

static bool path_of(int fd, const char *name, char ret[static PATH_SIZE])
{
	struct btrfs_ioctl_fs_info_args info = { 0 };
	char id[33];

	if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0)
		return false;
	for (size_t i = 0; i < 16; i++)
		(void)snprintf(id + 2 * i, 3, "%02x", info.fsid[i]);
	(void)snprintf(ret, PATH_SIZE, "/sys/fs/btrfs/%.8s-%.4s-%.4s-%.4s-%.12s/%s", id, id + 8,
		       id + 12, id + 16, id + 20, name);
	return true;
}

bool sysfs_knows(int fd)
{
	char path[PATH_SIZE];

	return path_of(fd, "", path) && access(path, F_OK) == 0;
}

bool sysfs_read(int fd, const char *name, char *ret, size_t size)
{
	_cleanup_(closep) int file_fd = -1;
	char path[PATH_SIZE];
	ssize_t n;

	if (!path_of(fd, name, path))
		return false;
	file_fd = open(path, O_RDONLY | O_CLOEXEC);
	n = file_fd < 0 ? -1 : read(file_fd, ret, size - 1);
	if (n < 0)
		return false;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return true;
}

bool sysfs_read_number(int fd, const char *name, uint64_t *ret)
{
	char text[32], *end;
	uint64_t number;

	if (!sysfs_read(fd, name, text, sizeof(text)))
		return false;
	number = strtoull(text, &end, 10);
	if (end == text || *end)
		return false;
	*ret = number;
	return true;
}
