/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/btrfs/shape.h"

#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/error.h"

/* Sizes on disk (linux/btrfs_tree.h has none of them). */
#define NODE_HEADER_BYTES 101
#define KEY_POINTER_BYTES 33
#define ITEM_HEADER_BYTES 25

#define SEARCH_SIZE   (256 * 1024)
#define PADDING_MAX   1000 /* files open at once; below the usual limit of a process */
#define ROOM_FOR_REST 600  /* of a leaf: the inode of a padding file, headers, its name */

/* How many bytes of items the tree has; more than @enough: some number above it. */
static uint64_t item_bytes(int fd, uint64_t enough)
{
	_cleanup_(freep) struct btrfs_ioctl_search_args_v2 *args =
		malloc(sizeof(*args) + SEARCH_SIZE);
	struct btrfs_ioctl_search_key key = {
		.max_objectid = UINT64_MAX,
		.max_offset = UINT64_MAX,
		.max_transid = UINT64_MAX,
		.max_type = UINT32_MAX,
	};
	uint64_t bytes = 0;

	while (args && bytes <= enough) {
		struct btrfs_ioctl_search_header header = { 0 };
		const char *at = (const char *)args->buf;

		key.nr_items = UINT32_MAX;
		args->key = key;
		args->buf_size = SEARCH_SIZE;
		if (ioctl(fd, BTRFS_IOC_TREE_SEARCH_V2, args) < 0)
			return UINT64_MAX;
		if (args->key.nr_items == 0)
			return bytes;
		for (uint32_t i = 0; i < args->key.nr_items; i++) {
			memcpy(&header, at, sizeof(header));
			at += sizeof(header) + header.len;
			bytes += ITEM_HEADER_BYTES + header.len;
		}
		key.min_objectid = header.objectid;
		key.min_type = header.type;
		key.min_offset = header.offset + 1;
		if (header.offset == UINT64_MAX) {
			key.min_offset = 0;
			key.min_type++;
		}
	}
	return args ? bytes : UINT64_MAX;
}

/* A file without a name, with an attribute that fills a leaf; -1 when there is no room. */
static int padding_open(int fd, const char *value, size_t size)
{
	int file = openat(fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (file < 0 || fsetxattr(file, "trusted.coppice.padding", value, size, 0) == 0)
		return file;
	(void)close(file);
	return -1;
}

void shape_for_clones(int fd)
{
	struct btrfs_ioctl_fs_info_args info = { 0 };
	_cleanup_(freep) char *value = NULL;
	uint64_t leaf_bytes, children_max, leaves;
	int file[PADDING_MAX];
	size_t n = 0;

	if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0 || info.nodesize < 4096)
		return;
	leaf_bytes = info.nodesize - NODE_HEADER_BYTES;
	children_max = leaf_bytes / KEY_POINTER_BYTES;
	leaves = item_bytes(fd, children_max * leaf_bytes) / leaf_bytes; /* at least */
	/*
	 * A full root has a node below it already. With fewer than three quarters of that,
	 * Btrfs would take the node out again; leaves are at least half full, mostly more.
	 */
	if (leaves >= children_max || leaves < children_max / 2)
		return;
	value = calloc(1, info.nodesize);
	while (value && n < PADDING_MAX && n + leaves < children_max + children_max / 16) {
		file[n] = padding_open(fd, value, info.nodesize - ROOM_FOR_REST);
		if (file[n] < 0)
			break;
		n++;
	}
	while (n > 0)
		closep(&file[--n]);
}
