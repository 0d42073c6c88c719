/* SPDX-License-Identifier: Apache-2.0 */
#include "image/unpack/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#define PERMISSIONS 07777

enum {
	PRIVATE_MODE = 0700,
	IMPLICIT_MODE = 0755
};

/* A directory that waits for its attributes. */
struct pending {
	struct attributes attributes; /* owns extra */
	char *path;
};

struct tree {
	int fd;
	int parent_fd; /* of the last entry: the next is likely to have the same; or -1 */
	char parent[PATH_MAX];
	size_t n_pending, capacity;
	struct pending *pending;
};

int tree_new(int dir_fd, const char *name, struct tree **ret, struct coppice_error *err)
{
	_cleanup_(tree_freep) struct tree *tree = calloc(1, sizeof(*tree));

	if (!tree)
		return fail_memory(err);
	tree->fd = tree->parent_fd = -1;
	if (mkdirat(dir_fd, name, PRIVATE_MODE) < 0)
		return fail_errno(err, errno, "cannot make a directory to unpack into");
	tree->fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (tree->fd < 0)
		return fail_errno(err, errno, "cannot open the directory to unpack into");
	/* The directory it is in may hand on a group and ACLs; none of that is the image's. */
	(void)fremovexattr(tree->fd, "system.posix_acl_default");
	(void)fremovexattr(tree->fd, "system.posix_acl_access");
	if (fchown(tree->fd, 0, 0) < 0 || fchmod(tree->fd, PRIVATE_MODE) < 0)
		return fail_errno(err, errno, "cannot own the directory to unpack into");
	*ret = take_ptr(&tree);
	return COPPICE_OK;
}

void tree_free(struct tree *tree)
{
	if (!tree)
		return;
	for (size_t i = 0; i < tree->n_pending; i++) {
		archive_entry_free(tree->pending[i].attributes.extra);
		free(tree->pending[i].path);
	}
	free(tree->pending);
	closep(&tree->parent_fd);
	closep(&tree->fd);
	free(tree);
}

/* ---- finding directories ---- */

static int open_resolved(const struct tree *tree, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_DIRECTORY | O_CLOEXEC),
		.resolve = resolve | RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int fd;

	/* EAGAIN: somebody renamed something anywhere while ".." of a link was followed. */
	do {
		fd = (int)syscall(SYS_openat2, tree->fd, path[0] ? path : ".", &how, sizeof(how));
	} while (fd < 0 && (errno == EAGAIN || errno == EINTR));
	return fd;
}

static int open_below(const struct tree *tree, const char *path, int flags)
{
	return open_resolved(tree, path, flags, 0);
}

/* Count the steps from @fd up to the top. Returns more than TREE_DEPTH_MAX for too many. */
static int depth_of(const struct tree *tree, int fd)
{
	struct stat top, st;
	int depth = 0, at = -1;

	if (fstat(tree->fd, &top) < 0 || fstat(fd, &st) < 0)
		return TREE_DEPTH_MAX + 1;
	while (depth <= TREE_DEPTH_MAX && (st.st_ino != top.st_ino || st.st_dev != top.st_dev)) {
		_cleanup_(closep) int below = at;

		at = openat(below >= 0 ? below : fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		depth = at < 0 || fstat(at, &st) < 0 ? TREE_DEPTH_MAX + 1 : depth + 1;
	}
	closep(&at);
	return depth;
}

/* The part of @path after the last slash; *ret_slash is where to cut, or NULL. */
static char *base_of(char *path, char **ret_slash)
{
	*ret_slash = strrchr(path, '/');
	return *ret_slash ? *ret_slash + 1 : path;
}

/*
 * Open a directory, making those that are missing: an archive need not have an
 * entry for each. Returns -1 with errno.
 */
static int directory_open_or_make(const struct tree *tree, char *path)
{
	int fd = open_below(tree, path, O_PATH);
	int r, parent;
	char *slash, *base;

	if (fd >= 0 || errno != ENOENT || path[0] == '\0')
		return fd;
	base = base_of(path, &slash);
	if (slash)
		*slash = '\0';
	parent = directory_open_or_make(tree, slash ? path : base + strlen(base));
	if (slash)
		*slash = '/';
	if (parent < 0)
		return -1;
	r = mkdirat(parent, base, IMPLICIT_MODE);
	(void)close(parent);
	if (r < 0) {
		if (errno == EEXIST) /* but cannot be opened: a link that leads nowhere */
			errno = ENOTDIR;
		return -1;
	}
	return open_below(tree, path, O_PATH);
}

static void forget_parent(struct tree *tree)
{
	closep(&tree->parent_fd);
	tree->parent_fd = -1;
}

/* The directory that an entry is made in, borrowed until the next call. */
static int parent_open(struct tree *tree, char *path, const char **ret_base,
		       struct coppice_error *err)
{
	char *slash;
	size_t length;

	*ret_base = base_of(path, &slash);
	length = slash ? (size_t)(slash - path) : 0;
	if (tree->parent_fd >= 0 && tree->parent[length] == '\0' &&
	    memcmp(tree->parent, path, length) == 0)
		return tree->parent_fd;
	forget_parent(tree);
	memcpy(tree->parent, path, length);
	tree->parent[length] = '\0';
	/* A path without links is as deep as it is long, and that was looked at. */
	tree->parent_fd = open_resolved(tree, tree->parent, O_PATH, RESOLVE_NO_SYMLINKS);
	if (tree->parent_fd >= 0)
		return tree->parent_fd;
	tree->parent_fd = directory_open_or_make(tree, tree->parent);
	if (tree->parent_fd >= 0 && depth_of(tree, tree->parent_fd) >= TREE_DEPTH_MAX)
		return fail(err, COPPICE_INVALID,
			    "is nested deeper than %d directories, by links: '%.100s…'",
			    TREE_DEPTH_MAX, path);
	if (tree->parent_fd >= 0)
		return tree->parent_fd;
	if (errno == ENOTDIR || errno == ELOOP)
		return fail(err, COPPICE_INVALID, "has '%s' in what is no directory", path);
	return fail_errno(err, errno, "cannot open the directory of '%s'", path);
}

/* ---- making entries ---- */

/* What is to be made; which fields count depends on the mode's type. */
struct making {
	mode_t mode;
	dev_t device;
	const char *link; /* target of a symbolic link */
	int from_fd;      /* S_IFMT is 0: a hard link to from_base there */
	const char *from_base;
};

static int make(int dir_fd, const char *base, const struct making *what)
{
	switch (what->mode & S_IFMT) {
	case S_IFREG:
		return retry(openat(dir_fd, base,
				    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
				    what->mode & PERMISSIONS));
	case S_IFLNK:
		return symlinkat(what->link, dir_fd, base);
	case 0:
		return linkat(what->from_fd, what->from_base, dir_fd, base, 0);
	default:
		return mknodat(dir_fd, base, what->mode & (S_IFMT | PERMISSIONS), what->device);
	}
}

/* Remove what an earlier entry of the same name made. */
static int make_way(int dir_fd, const char *base, const char *path, struct coppice_error *err)
{
	if (unlinkat(dir_fd, base, 0) == 0)
		return COPPICE_OK;
	if (errno == EISDIR && unlinkat(dir_fd, base, AT_REMOVEDIR) == 0)
		return COPPICE_OK;
	if (errno == ENOTEMPTY)
		return fail(err, COPPICE_INVALID,
			    "has '%s' twice, as a directory with content and as something else",
			    path);
	return fail_errno(err, errno, "cannot replace '%s'", path);
}

/* *ret_fd: of a file, what make() gave. */
static int make_or_replace(int dir_fd, const char *base, const struct making *what,
			   const char *path, int *ret_fd, struct coppice_error *err)
{
	int r = make(dir_fd, base, what);

	if (r < 0 && errno == EEXIST) {
		if (make_way(dir_fd, base, path, err) < 0)
			return err->code;
		r = make(dir_fd, base, what);
	}
	if (r < 0 && errno == ENAMETOOLONG)
		return fail(err, COPPICE_INVALID, "has a name that is too long: '%s'", path);
	if (r < 0 && errno == ENOENT)
		return fail(err, COPPICE_INVALID, "has '%s' in a directory that it replaced", path);
	if (r < 0)
		return fail_errno(err, errno, "cannot create '%s'", path);
	*ret_fd = r;
	return COPPICE_OK;
}

int tree_file_create(struct tree *tree, char *path, const struct attributes *attributes,
		     int *ret_fd, struct coppice_error *err)
{
	struct making what = { .mode = S_IFREG | (attributes->mode & PERMISSIONS) };
	const char *base;
	int dir_fd = parent_open(tree, path, &base, err);

	if (dir_fd < 0)
		return dir_fd;
	return make_or_replace(dir_fd, base, &what, path, ret_fd, err);
}

int tree_symlink(struct tree *tree, char *path, const char *target,
		 const struct attributes *attributes, struct coppice_error *err)
{
	struct making what = { .mode = S_IFLNK, .link = target };
	const char *base;
	int unused, dir_fd = parent_open(tree, path, &base, err);

	if (dir_fd < 0)
		return dir_fd;
	if (target[0] == '\0')
		return fail(err, COPPICE_INVALID, "has the symbolic link '%s' to nothing", path);
	if (make_or_replace(dir_fd, base, &what, path, &unused, err) < 0)
		return err->code;
	return attributes_set_at(dir_fd, base, attributes, path, err);
}

int tree_node(struct tree *tree, char *path, dev_t device, const struct attributes *attributes,
	      struct coppice_error *err)
{
	struct making what = { .mode = attributes->mode, .device = device };
	const char *base;
	int unused, dir_fd = parent_open(tree, path, &base, err);

	if (dir_fd < 0)
		return dir_fd;
	if (make_or_replace(dir_fd, base, &what, path, &unused, err) < 0)
		return err->code;
	return attributes_set_at(dir_fd, base, attributes, path, err);
}

static bool is_same(int dir_fd, const char *base, const struct stat *file)
{
	struct stat st;

	return fstatat(dir_fd, base, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == file->st_ino &&
	       st.st_dev == file->st_dev;
}

/* A file linked to itself would lose its only name when it makes way. */
int tree_link(struct tree *tree, char *path, char *existing, struct coppice_error *err)
{
	struct making what = { .mode = 0 };
	char *slash;
	const char *base;
	_cleanup_(closep) int from_fd = -1;
	struct stat st;
	int unused, dir_fd;

	what.from_base = base_of(existing, &slash);
	if (slash)
		*slash = '\0';
	from_fd = open_below(tree, slash ? existing : "", O_PATH);
	if (slash)
		*slash = '/';
	if (from_fd < 0 || fstatat(from_fd, what.from_base, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    S_ISDIR(st.st_mode))
		return fail(err, COPPICE_INVALID,
			    "has the hard link '%s' to '%s', which is no file "
			    "of it",
			    path, existing);
	what.from_fd = from_fd;
	dir_fd = parent_open(tree, path, &base, err);
	if (dir_fd < 0)
		return dir_fd;
	if (is_same(dir_fd, base, &st))
		return COPPICE_OK;
	return make_or_replace(dir_fd, base, &what, path, &unused, err);
}

/* ---- directories ---- */

static int remember(struct tree *tree, const char *path, const struct attributes *attributes,
		    struct coppice_error *err)
{
	struct pending *last;

	if (tree->n_pending == tree->capacity) {
		size_t capacity = tree->capacity ? 2 * tree->capacity : 1024;
		struct pending *more = reallocarray(tree->pending, capacity, sizeof(*more));

		if (!more)
			return fail_memory(err);
		tree->pending = more;
		tree->capacity = capacity;
	}
	last = &tree->pending[tree->n_pending];
	last->attributes = *attributes;
	last->path = strdup(path);
	if (attributes->extra)
		last->attributes.extra = archive_entry_clone(attributes->extra);
	tree->n_pending++; /* so that half of it is released too */
	if (!last->path || (attributes->extra && !last->attributes.extra))
		return fail_memory(err);
	return COPPICE_OK;
}

static int directory_make(struct tree *tree, char *path, struct coppice_error *err)
{
	struct stat st;
	const char *base;
	int dir_fd = parent_open(tree, path, &base, err);

	if (dir_fd < 0)
		return dir_fd;
	if (mkdirat(dir_fd, base, PRIVATE_MODE) == 0)
		return COPPICE_OK;
	if (errno == EEXIST && fstatat(dir_fd, base, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (S_ISDIR(st.st_mode))
			return COPPICE_OK;
		if (make_way(dir_fd, base, path, err) < 0)
			return err->code;
		if (mkdirat(dir_fd, base, PRIVATE_MODE) == 0)
			return COPPICE_OK;
	}
	if (errno == ENAMETOOLONG)
		return fail(err, COPPICE_INVALID, "has a name that is too long: '%s'", path);
	return fail_errno(err, errno, "cannot create directory '%s'", path);
}

int tree_directory(struct tree *tree, char *path, const struct attributes *attributes,
		   struct coppice_error *err)
{
	if (path[0] != '\0' && directory_make(tree, path, err) < 0)
		return err->code;
	return remember(tree, path, attributes, err);
}

int tree_finish(struct tree *tree, struct coppice_error *err)
{
	forget_parent(tree);
	if (fchmod(tree->fd, IMPLICIT_MODE) < 0) /* an archive may have no entry for its top */
		return fail_errno(err, errno, "cannot set the mode of the top directory");
	for (size_t i = 0; i < tree->n_pending; i++) {
		const struct pending *it = &tree->pending[i];
		_cleanup_(closep) int fd = open_below(tree, it->path, O_RDONLY | O_NOFOLLOW);

		if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
			continue; /* a later entry replaced it */
		if (fd < 0)
			return fail_errno(err, errno, "cannot open directory '%s'", it->path);
		if (attributes_set(fd, &it->attributes, it->path, err) < 0)
			return err->code;
	}
	return COPPICE_OK;
}
