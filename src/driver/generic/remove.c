/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing trees on several threads: one empties a directory of what is no
 * directory, and it is removed itself when the last one in it was.
 */
#include "driver/generic/remove.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "driver/generic/walk.h"

#define ENTRIES_BYTES (16 * 1024) /* on the stack of a thread */

struct remover {
	struct tree_walk walk;
	dev_t dev;
};

static int refuse(const struct tree_dir *dir, const char *why, struct coppice_error *err)
{
	_cleanup_(freep) char *path = tree_path(dir, NULL);

	return fail(err, COPPICE_BUSY, "'%s': %s", path ? path : dir->name, why);
}

/* Open @dir, being sure that it belongs to the tree. *ret_fd is -1 when it is gone. */
static int open_ours(struct remover *remover, struct tree_dir *dir, int *ret_fd,
		     struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	struct stat st;

	fd = tree_dir_open(&remover->walk, dir, TREE_WALKED, O_RDONLY | O_DIRECTORY | O_NOATIME);
	*ret_fd = -1;
	if (fd == -ENOENT)
		return COPPICE_OK;
	if (fd == -EXDEV)
		return refuse(dir, "something is mounted there", err);
	if (fd < 0)
		return tree_fail(dir, NULL, -fd, "open", err);
	if (fstat(fd, &st) < 0)
		return tree_fail(dir, NULL, errno, "look at", err);
	if (st.st_dev != remover->dev)
		return refuse(dir, "it is a subvolume or file system of its own", err);
	*ret_fd = take_fd(&fd);
	return COPPICE_OK;
}

/* Somebody made it immutable, or append-only (chattr +i, +a): no more. */
static void make_removable(int fd)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || !(flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return;
	flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

/* Opened only if it is what opening does nothing to: no device, no fifo. */
static void make_entry_removable(int dir_fd, const char *name)
{
	_cleanup_(closep) int path_fd = tree_open(dir_fd, name, O_PATH);
	_cleanup_(closep) int fd = -1;
	char path[32];
	struct stat st;

	if (path_fd < 0 || fstat(path_fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		make_removable(fd);
}

/*
 * As unlinkat(2), whatever flags it has, and, where @is_ours, the directory that it is in.
 * Others may have taken them off meanwhile: so it is tried again in any case.
 */
static int unlink_at(int dir_fd, const char *name, int flags, bool is_ours)
{
	if (unlinkat(dir_fd, name, flags) == 0)
		return 0;
	if (errno != EPERM)
		return -1;
	if (is_ours)
		make_removable(dir_fd);
	if (unlinkat(dir_fd, name, flags) == 0)
		return 0;
	if (errno != EPERM)
		return -1;
	make_entry_removable(dir_fd, name);
	return unlinkat(dir_fd, name, flags);
}

static int remove_entry(struct remover *remover, struct tree_dir *dir, int fd,
			const struct dirent64 *entry, struct coppice_error *err)
{
	const char *name = entry->d_name;
	bool is_dir = entry->d_type == DT_DIR;
	struct stat st;

	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return COPPICE_OK;
	if (entry->d_type == DT_UNKNOWN) { /* some file systems do not say */
		if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
			return errno == ENOENT ? COPPICE_OK
					       : tree_fail(dir, name, errno, "remove", err);
		is_dir = S_ISDIR(st.st_mode);
	}
	if (is_dir)
		return tree_walk_add(&remover->walk, dir, name, err);
	if (unlink_at(fd, name, 0, true) < 0 && errno != ENOENT)
		return tree_fail(dir, name, errno, "remove", err);
	return COPPICE_OK;
}

static int visit(struct tree_walk *walk, struct tree_dir *dir, struct coppice_error *err)
{
	struct remover *remover = CONTAINER_OF(walk, struct remover, walk);
	_Alignas(struct dirent64) char buffer[ENTRIES_BYTES];
	_cleanup_(closep) int fd = -1;
	ssize_t n = 0;
	int r;

	r = open_ours(remover, dir, &fd, err);
	while (r >= 0 && fd >= 0 && (n = getdents64(fd, buffer, sizeof(buffer))) > 0) {
		for (ssize_t at = 0; at < n && r >= 0;) {
			const struct dirent64 *entry = (const void *)(buffer + at);

			at += entry->d_reclen;
			r = remove_entry(remover, dir, fd, entry, err);
		}
		if (r >= 0)
			r = tree_walk_check(walk, err);
	}
	if (r >= 0 && n < 0 && errno != ENOENT) /* that: somebody else removes it, too */
		return tree_fail(dir, NULL, errno, "read", err);
	return r;
}

/* Through its parent, opened afresh: nobody may have put a symbolic link on the way. */
static int leave(struct tree_walk *walk, struct tree_dir *dir, struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;

	if (!dir->parent)
		return COPPICE_OK; /* the root's name is the caller's matter */
	fd = tree_dir_open(walk, dir->parent, TREE_WALKED, O_RDONLY | O_DIRECTORY | O_NOATIME);
	if (fd == -ENOENT)
		return COPPICE_OK;
	if (fd < 0)
		return tree_fail(dir->parent, NULL, -fd, "open", err);
	if (unlink_at(fd, dir->name, AT_REMOVEDIR, true) == 0 || errno == ENOENT)
		return COPPICE_OK;
	if (errno == ENOTEMPTY || errno == EEXIST)
		return refuse(dir, "somebody writes into it", err);
	return tree_fail(dir, NULL, errno, "remove", err);
}

static int empty(int fd, const char *name, unsigned threads, struct coppice_error *err)
{
	struct remover remover = {
		.walk = { .root_fd = fd, .threads = threads, .visit = visit, .leave = leave },
	};
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", name);
	remover.dev = st.st_dev;
	return tree_walk_run(&remover.walk, err);
}

int tree_remove(int parent_fd, const char *name, unsigned threads, struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	struct stat parent, st;
	int r;

	if (fstat(parent_fd, &parent) < 0)
		return fail_errno(err, errno, "cannot look at the directory of '%s'", name);
	if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return errno == ENOENT ? COPPICE_OK
				       : fail_errno(err, errno, "cannot look at '%s'", name);
	if (!S_ISDIR(st.st_mode)) {
		if (unlink_at(parent_fd, name, 0, false) < 0 && errno != ENOENT)
			return fail_errno(err, errno, "cannot remove '%s'", name);
		return COPPICE_OK;
	}
	fd = tree_open(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOATIME);
	if (fd == -EXDEV || st.st_dev != parent.st_dev)
		return fail(err, COPPICE_BUSY, "'%s' is a mount, subvolume or file system", name);
	if (fd == -ENOENT)
		return COPPICE_OK;
	if (fd < 0)
		return fail_errno(err, -fd, "cannot open '%s'", name);
	r = empty(fd, name, threads, err);
	if (r < 0)
		return wrap(err, "cannot remove '%s'", name);
	if (unlink_at(parent_fd, name, AT_REMOVEDIR, false) < 0 && errno != ENOENT)
		return fail_errno(err, errno, "cannot remove '%s'", name);
	return COPPICE_OK;
}
