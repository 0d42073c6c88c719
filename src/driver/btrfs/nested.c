/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subvolumes that somebody made within a volume, as Docker does in a container. In a
 * snapshot of the volume they are empty directories.
 */
#include "driver/btrfs/btrfs.h"

#include <btrfsutil.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

DEFINE_CLEANUP(struct btrfs_util_subvolume_iterator *, btrfs_util_destroy_subvolume_iterator)

/* The root of its data; -1 with *r COPPICE_OK: it is no subvolume, which check tells. */
static int open_live(struct btrfs_pool *btrfs, const struct volume_ref *ref, int *r,
		     struct coppice_error *err)
{
	char path[PATH_MAX], live[PATH_MAX + 8];
	_cleanup_(closep) int fd = -1;
	struct stat st;

	*r = COPPICE_OK;
	(void)snprintf(live, sizeof(live), "%s/live", layout_ref_path(ref, path));
	fd = openat(btrfs->layout.fd, live, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		*r = fail(err, COPPICE_NOT_FOUND, "no %s '%s'", volume_kind_name(ref->kind),
			  ref->name.text);
	else if (fd < 0 || fstat(fd, &st) < 0)
		*r = fail_errno(err, errno, "cannot open '%s'", live);
	if (*r < 0 || st.st_ino != SUBVOLUME_INODE)
		return -1;
	return take_fd(&fd);
}

/*
 * One search in the tree of roots, whose ROOT_REF items lie by the parent's number, and
 * one more in each subvolume that is found: some 20 us where there is none.
 */
int btrfs_nested(struct pool *pool, const struct volume_ref *ref, nested_fn *fn, void *user,
		 struct coppice_error *err)
{
	_cleanup_(btrfs_util_destroy_subvolume_iteratorp) struct btrfs_util_subvolume_iterator
		*iterator = NULL;
	_cleanup_(closep) int fd = -1;
	enum btrfs_util_error error;
	int r;

	fd = open_live(btrfs_pool_of(pool), ref, &r, err);
	if (fd < 0)
		return r;
	error = btrfs_util_create_subvolume_iterator_fd(fd, 0, 0, &iterator);
	while (error == BTRFS_UTIL_OK && r == COPPICE_OK) {
		_cleanup_(freep) char *path = NULL;

		error = btrfs_util_subvolume_iterator_next(iterator, &path, NULL);
		if (error == BTRFS_UTIL_OK)
			r = fn(user, path, err);
	}
	if (error == BTRFS_UTIL_OK || error == BTRFS_UTIL_ERROR_STOP_ITERATION)
		return r;
	return fail_errno(err, errno, "cannot look for subvolumes in '%s'", ref->name.text);
}
