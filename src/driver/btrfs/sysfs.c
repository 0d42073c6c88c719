/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/btrfs/sysfs.h"

#include <fcntl.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/base.h"

bool sysfs_read(int fd, const char *name, char *ret, size_t size)
{
	struct btrfs_ioctl_fs_info_args info = { 0 };
	_cleanup_(closep) int file_fd = -1;
	char path[160], id[33];
	ssize_t n;

	if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0)
		return false;
	for (size_t i = 0; i < 16; i++)
		(void)snprintf(id + 2 * i, 3, "%02x", info.fsid[i]);
	(void)snprintf(path, sizeof(path), "/sys/fs/btrfs/%.8s-%.4s-%.4s-%.4s-%.12s/%s", id, id + 8,
		       id + 12, id + 16, id + 20, name);
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
