/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/btrfs/ballast.h"

#include <fcntl.h>
#include <linux/btrfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "base/error.h"
#include "driver/btrfs/batch.h"

#define FOLDER      "ballast"
#define FOLDER_HALF "ballast.new" /* until all are there */
#define FILES       320 /* a node each, of 16 KiB: 5 MiB, and as much again for the copy */
#define ROOM_BYTES  (32ULL << 20) /* that must be left for others when it is made */

/* Most of a node goes into one attribute; not all, as the node has a head. */
static size_t attribute_size(int fd)
{
	struct btrfs_ioctl_fs_info_args info = { 0 };

	if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0 || info.nodesize < 4096)
		return 0;
	return info.nodesize - 1024;
}

static bool make_one(int dir_fd, size_t i, const char *value, size_t size)
{
	_cleanup_(closep) int fd = -1;
	char name[24];

	(void)snprintf(name, sizeof(name), "%zu", i);
	fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd >= 0 && fsetxattr(fd, "trusted.ballast", value, size, 0) == 0;
}

static bool remove_folder(int fd, const char *folder)
{
	_cleanup_(closep) int dir_fd =
		openat(fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	bool was_there = dir_fd >= 0;

	for (size_t i = 0; i < FILES && was_there; i++) {
		char name[24];

		(void)snprintf(name, sizeof(name), "%zu", i);
		(void)unlinkat(dir_fd, name, 0);
	}
	(void)unlinkat(fd, folder, AT_REMOVEDIR);
	return was_there;
}

void btrfs_ballast_ensure(struct btrfs_pool *btrfs)
{
	static const char value[65536];
	int fd = btrfs->layout.fd;
	_cleanup_(closep) int dir_fd = -1;
	size_t size;
	struct statvfs fs;
	bool is_made;

	if (faccessat(fd, FOLDER, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || fstatvfs(fd, &fs) < 0 ||
	    fs.f_bavail * fs.f_frsize < ROOM_BYTES)
		return;
	size = attribute_size(fd);
	is_made = size > 0 && size < sizeof(value);
	if (!is_made)
		return;
	(void)mkdirat(fd, FOLDER_HALF, 0700);
	dir_fd = openat(fd, FOLDER_HALF, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	for (size_t i = 0; i < FILES && is_made; i++)
		is_made = make_one(dir_fd, i, value, size);
	if (!is_made || renameat(fd, FOLDER_HALF, fd, FOLDER) < 0)
		(void)remove_folder(fd, FOLDER_HALF);
}

bool btrfs_ballast_drop(struct btrfs_pool *btrfs)
{
	struct coppice_error ignored;
	bool was_half_made = remove_folder(btrfs->layout.fd, FOLDER_HALF);
	bool was_there = remove_folder(btrfs->layout.fd, FOLDER) || was_half_made;

	/* Nodes are free for others only when the transaction that gave them up is over. */
	return was_there && batch_commit(btrfs->layout.fd, &ignored) == COPPICE_OK;
}
