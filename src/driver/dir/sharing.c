/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/dir/sharing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "driver/generic/walk.h"

#define BLOCK_BYTES 4096
#define PART_BLOCKS 32768U /* 128 MiB of disk in 4 KiB of memory */
#define EXTENTS     64

struct sharing_part {
	uint64_t seen[PART_BLOCKS / 64];
};

/* The part that a block is in, made when it is first asked for; NULL: no memory. */
static struct sharing_part *part_of(struct sharing *sharing, uint64_t block)
{
	size_t at = block / PART_BLOCKS;

	if (at >= sharing->n_parts) {
		size_t n = at + 1 + at / 2;
		struct sharing_part **more = reallocarray(sharing->parts, n, sizeof(*more));

		if (!more)
			return NULL;
		memset(more + sharing->n_parts, 0, (n - sharing->n_parts) * sizeof(*more));
		sharing->parts = more;
		sharing->n_parts = n;
	}
	if (!sharing->parts[at])
		sharing->parts[at] = calloc(1, sizeof(*sharing->parts[at]));
	return sharing->parts[at];
}

/* See the blocks of an extent; those that were seen before are repeated. */
static int see(struct sharing *sharing, uint64_t physical, uint64_t length,
	       struct coppice_error *err)
{
	uint64_t end = (physical + length) / BLOCK_BYTES;

	for (uint64_t block = physical / BLOCK_BYTES; block < end; block++) {
		struct sharing_part *part = part_of(sharing, block);
		uint64_t bit = 1ULL << (block % 64);
		uint64_t *word;

		if (!part)
			return fail_memory(err);
		word = &part->seen[block % PART_BLOCKS / 64];
		if (*word & bit)
			sharing->repeated_bytes += BLOCK_BYTES;
		*word |= bit;
	}
	return COPPICE_OK;
}

static int see_extent(struct sharing *sharing, const struct fiemap_extent *extent,
		      struct coppice_error *err)
{
	bool is_odd = extent->fe_physical % BLOCK_BYTES || extent->fe_length % BLOCK_BYTES;

	if (!(extent->fe_flags & FIEMAP_EXTENT_SHARED))
		return COPPICE_OK;
	if (is_odd || extent->fe_flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_ENCODED)) {
		sharing->is_unsure = true;
		return COPPICE_OK;
	}
	return see(sharing, extent->fe_physical, extent->fe_length, err);
}

/* Where the file's data lies. A file system without FIEMAP may share what it does not tell. */
static int see_file(struct sharing *sharing, int fd, struct coppice_error *err)
{
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent)];
	} buffer;
	struct fiemap *map = &buffer.map;
	uint64_t from = 0;
	bool is_last = false;

	while (!is_last) {
		memset(&buffer, 0, sizeof(buffer));
		map->fm_start = from;
		map->fm_length = FIEMAP_MAX_OFFSET - from;
		map->fm_flags = from == 0 ? FIEMAP_FLAG_SYNC : 0;
		map->fm_extent_count = EXTENTS;
		if (ioctl(fd, FS_IOC_FIEMAP, map) < 0) {
			sharing->is_unsure = true;
			if (errno == EOPNOTSUPP || errno == ENOTTY)
				return COPPICE_OK;
			return fail_errno(err, errno, "cannot ask where its data is");
		}
		is_last = map->fm_mapped_extents == 0;
		for (unsigned i = 0; i < map->fm_mapped_extents; i++) {
			const struct fiemap_extent *extent = &map->fm_extents[i];
			int r = see_extent(sharing, extent, err);

			if (r < 0)
				return r;
			from = extent->fe_logical + extent->fe_length;
			is_last |= (extent->fe_flags & FIEMAP_EXTENT_LAST) != 0;
		}
	}
	return COPPICE_OK;
}

static int file_found(void *user, int dir_fd, const char *name, const struct statx *st,
		      struct coppice_error *err)
{
	struct sharing *sharing = user;
	_cleanup_(closep) int fd = -1;

	if (!S_ISREG(st->stx_mode) || st->stx_blocks == 0)
		return COPPICE_OK;
	fd = tree_open_file(dir_fd, name);
	if (fd < 0) /* gone, or no file any more */
		return fd == -ENOENT || fd == -EINVAL
			       ? COPPICE_OK
			       : fail_errno(err, -fd, "cannot open '%s'", name);
	return see_file(sharing, fd, err);
}

int sharing_add(struct sharing *sharing, int dir_fd, struct coppice_error *err)
{
	struct tree_count count = {
		.is_interrupted = sharing->pool->is_interrupted,
		.interrupted_user = sharing->pool->interrupted_user,
		.found = file_found,
		.user = sharing,
	};
	int r = tree_usage(dir_fd, &count, err);

	if (r == COPPICE_OK)
		sharing->allocated_bytes += count.allocated_bytes;
	return r;
}

void sharing_done(struct sharing *sharing)
{
	for (size_t i = 0; i < sharing->n_parts; i++)
		free(sharing->parts[i]);
	free(sharing->parts);
	*sharing = (struct sharing){ .pool = sharing->pool };
}
