/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying trees on several threads.
 *
 * A thread takes a directory, makes all that is in it and then gives it its own
 * attributes: by then its subdirectories exist and nothing will change its times
 * any more, whoever fills them. Few system calls for each file: what creation
 * gave it already (owner, mode) is not set again.
 */
#include "driver/generic/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <search.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/attribute.h"
#include "base/file.h"
#include "driver/generic/walk.h"

#define DATA_BYTES      (256 * 1024)
#define ENTRIES_BYTES   (32 * 1024)
#define WRITEBACK_BYTES (8 * 1024 * 1024) /* of one file, before the disk is set to work */
#define ACL_DEFAULT     "system.posix_acl_default"

/* Buffers of one thread; taken for a directory, and given back. */
struct scratch {
	struct scratch *next;
	char entries[ENTRIES_BYTES];
	char names[XATTR_LIST_MAX];
	char value[XATTR_SIZE_MAX];
	char data[DATA_BYTES];
};

/* A file with several names: where its first copy is. A node of tsearch(3). */
struct linked {
	uint64_t inode;
	char *path;
};

struct copier {
	struct tree_walk walk;
	const struct tree_copy *how;
	unsigned dev_major, dev_minor;
	bool is_btrfs;
	mode_t umask;
	uid_t uid;
	gid_t gid;
	atomic_bool cannot_clone;
	atomic_bool cannot_copy_range;
	pthread_mutex_t links_lock; /* held until a claimed name exists */
	void *links;                /* tree of struct linked */
	pthread_mutex_t lock;       /* of the rest */
	struct scratch *scratch;
	struct tree_copied total;
};

/* One directory being copied by one thread. */
struct place {
	struct copier *copier;
	struct tree_dir *dir;
	struct scratch *scratch;
	int from_fd, to_fd;
	struct tree_copied count;
};

/* The two ends of one entry: open files, or else paths. */
struct ends {
	int from_fd, to_fd;
	const char *from_path, *to_path;
};

static int fail_entry(const struct place *place, const char *name, int os_errno, const char *what,
		      struct coppice_error *err)
{
	return tree_fail(place->dir, name, os_errno, what, err);
}

static int refuse_entry(const struct place *place, const char *name, const char *what,
			struct coppice_error *err)
{
	_cleanup_(freep) char *path = tree_path(place->dir, name);

	return fail(err, COPPICE_UNSUPPORTED, "cannot copy '%s': %s", path ? path : name, what);
}

/* ---- extended attributes ---- */

static ssize_t xattr_list(const struct ends *ends, char *names)
{
	return ends->from_fd >= 0 ? flistxattr(ends->from_fd, names, XATTR_LIST_MAX)
				  : llistxattr(ends->from_path, names, XATTR_LIST_MAX);
}

static ssize_t xattr_get(const struct ends *ends, const char *name, char *value)
{
	return ends->from_fd >= 0 ? fgetxattr(ends->from_fd, name, value, XATTR_SIZE_MAX)
				  : lgetxattr(ends->from_path, name, value, XATTR_SIZE_MAX);
}

static int xattr_set(const struct ends *ends, const char *name, const char *value, size_t size)
{
	return ends->to_fd >= 0 ? fsetxattr(ends->to_fd, name, value, size, 0)
				: lsetxattr(ends->to_path, name, value, size, 0);
}

static bool is_skipped(const struct tree_copy *how, const char *name)
{
	if (!strcmp(name, "trusted.coppice"))
		return true;
	for (const char *const *skip = how->skip_xattrs; skip && *skip; skip++)
		if (!strcmp(*skip, name))
			return true;
	return false;
}

/* @all_bytes counts what it has so far. */
static int copy_xattr(const struct place *place, const struct ends *ends, const char *entry,
		      const char *name, size_t *all_bytes, struct coppice_error *err)
{
	struct attribute_refused refused = { .name = name,
					     .fd = ends->to_fd >= 0 ? ends->to_fd : place->to_fd,
					     .at = ends->to_fd >= 0 ? NULL : ends->to_path };
	_cleanup_(freep) char *path = NULL;
	char *value = place->scratch->value;
	ssize_t size = xattr_get(ends, name, value);
	int os_errno;

	if (size < 0) {
		(void)fail_entry(place, entry, errno, "read an attribute of", err);
		return wrap(err, "attribute '%s'", name);
	}
	*all_bytes += strlen(name) + (size_t)size;
	if (xattr_set(ends, name, value, (size_t)size) == 0)
		return COPPICE_OK;
	os_errno = errno;
	/* Btrfs's own are hints to Btrfs, no content. */
	if (os_errno == EOPNOTSUPP && !strncmp(name, "btrfs.", strlen("btrfs.")))
		return COPPICE_OK;
	path = tree_path(place->dir, entry);
	refused.path = path ? path : entry;
	refused.size_bytes = (size_t)size;
	refused.all_bytes = *all_bytes;
	return fail_attribute(&refused, os_errno, err);
}

static int copy_xattrs(const struct place *place, const struct ends *ends, const char *entry,
		       struct coppice_error *err)
{
	const char *names = place->scratch->names;
	ssize_t length = xattr_list(ends, place->scratch->names);
	size_t all_bytes = 0;
	int r;

	if (length < 0)
		return errno == EOPNOTSUPP
			       ? COPPICE_OK
			       : fail_entry(place, entry, errno, "list attributes of", err);
	for (const char *name = names; name < names + length; name += strlen(name) + 1) {
		if (is_skipped(place->copier->how, name))
			continue;
		r = copy_xattr(place, ends, entry, name, &all_bytes, err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

/* ---- owner, mode, times ---- */

static void times_of(const struct statx *st, struct timespec ret[2])
{
	ret[0] = (struct timespec){ st->stx_atime.tv_sec, st->stx_atime.tv_nsec };
	ret[1] = (struct timespec){ st->stx_mtime.tv_sec, st->stx_mtime.tv_nsec };
}

static bool is_ours(const struct copier *copier, const struct statx *st)
{
	return st->stx_uid == copier->uid && st->stx_gid == copier->gid;
}

/* Did creation with mode & 0777 give it the mode that it must have? */
static bool is_mode_given(const struct copier *copier, const struct statx *st)
{
	mode_t mode = st->stx_mode & 07777;

	return mode == (mode & 0777 & ~copier->umask);
}

/*
 * All but the data of what is open. A change of owner clears the set-id bits and
 * capabilities, hence the order; the times come last.
 */
static int finish_open(const struct place *place, const struct ends *ends, const struct statx *st,
		       bool is_new, const char *name, struct coppice_error *err)
{
	const struct copier *copier = place->copier;
	bool is_owned = is_new && is_ours(copier, st);
	struct timespec times[2];
	int r;

	if (!is_owned && fchown(ends->to_fd, st->stx_uid, st->stx_gid) < 0)
		return fail_entry(place, name, errno, "set the owner of", err);
	if (!(is_owned && is_mode_given(copier, st)) &&
	    fchmod(ends->to_fd, st->stx_mode & 07777) < 0)
		return fail_entry(place, name, errno, "set the mode of", err);
	r = copy_xattrs(place, ends, name, err);
	if (r < 0)
		return r;
	times_of(st, times);
	if (futimens(ends->to_fd, times) < 0)
		return fail_entry(place, name, errno, "set the times of", err);
	return COPPICE_OK;
}

/* The same for what cannot be opened without waking something: links, devices, … */
static int finish_special(const struct place *place, const struct statx *st, const char *name,
			  struct coppice_error *err)
{
	char from[NAME_MAX + 64], to[NAME_MAX + 64];
	struct ends ends = { -1, -1, from, to };
	struct timespec times[2];
	int r;

	if (!is_ours(place->copier, st) &&
	    fchownat(place->to_fd, name, st->stx_uid, st->stx_gid, AT_SYMLINK_NOFOLLOW) < 0)
		return fail_entry(place, name, errno, "set the owner of", err);
	if (!S_ISLNK(st->stx_mode) &&
	    !(is_ours(place->copier, st) && is_mode_given(place->copier, st)) &&
	    fchmodat(place->to_fd, name, st->stx_mode & 07777, 0) < 0)
		return fail_entry(place, name, errno, "set the mode of", err);
	/* There is no system call for attributes below a descriptor before Linux 6.13. */
	(void)snprintf(from, sizeof(from), "/proc/self/fd/%d/%s", place->from_fd, name);
	(void)snprintf(to, sizeof(to), "/proc/self/fd/%d/%s", place->to_fd, name);
	r = copy_xattrs(place, &ends, name, err);
	if (r < 0)
		return r;
	times_of(st, times);
	if (utimensat(place->to_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return fail_entry(place, name, errno, "set the times of", err);
	return COPPICE_OK;
}

/* ---- data ---- */

/* Share the extents. Returns false when they must be copied, or a failure in *ret. */
static bool clone_data(const struct place *place, const struct ends *ends, const char *name,
		       int *ret, struct coppice_error *err)
{
	struct copier *copier = place->copier;

	*ret = COPPICE_OK;
	if (copier->how->no_reflink || atomic_load(&copier->cannot_clone))
		return false;
	if (retry(ioctl(ends->to_fd, FICLONE, ends->from_fd)) == 0)
		return true;
	if (errno == ENOSPC || errno == EDQUOT || errno == EIO) {
		*ret = fail_entry(place, name, errno, "share the data of", err);
		return true;
	}
	/* EINVAL and others: this file only (on Btrfs, one without checksums). */
	if (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOTTY || errno == ENOSYS)
		atomic_store(&copier->cannot_clone, true);
	return false;
}

/* Read and write once; how much, 0 at the end of the file, -1 with errno. */
static ssize_t copy_piece(const struct place *place, const struct ends *ends, off_t at,
			  size_t length)
{
	char *data = place->scratch->data;
	size_t wanted = length < DATA_BYTES ? length : DATA_BYTES;
	ssize_t n = pread(ends->from_fd, data, wanted, at);

	for (ssize_t done = 0; done < n;) {
		ssize_t written = pwrite(ends->to_fd, data + done, (size_t)(n - done), at + done);

		if (written < 0 && errno != EINTR)
			return -1;
		done += written > 0 ? written : 0;
	}
	return n;
}

/*
 * The kernel's own copy, for file systems that do it far away (NFS, CIFS) and to
 * spare the processor; never where it could share extents against our orders.
 * Small files are quicker through a buffer.
 */
static ssize_t copy_far(const struct place *place, const struct ends *ends, off_t at, size_t length)
{
	struct copier *copier = place->copier;
	size_t wanted = length < WRITEBACK_BYTES ? length : WRITEBACK_BYTES;
	off_t from = at, to = at;
	ssize_t n;

	if (copier->how->no_reflink || length < 4 * DATA_BYTES ||
	    atomic_load(&copier->cannot_copy_range))
		return copy_piece(place, ends, at, length);
	n = copy_file_range(ends->from_fd, &from, ends->to_fd, &to, wanted, 0);
	if (n > 0)
		return n;
	if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EINTR))
		return -1;
	/* 0 too: some file systems say so instead of an error. */
	atomic_store(&copier->cannot_copy_range, true);
	return copy_piece(place, ends, at, length);
}

static int copy_range(const struct place *place, const struct ends *ends, off_t from, off_t to,
		      const char *name, struct coppice_error *err)
{
	off_t begun = from;
	int r;

	while (from < to) {
		ssize_t n = copy_far(place, ends, from, (size_t)(to - from));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_entry(place, name, errno, "copy", err);
		if (n == 0)
			return fail_entry(place, name, ESTALE, "go on copying", err);
		from += n;
		if (from - begun < WRITEBACK_BYTES)
			continue;
		(void)sync_file_range(ends->to_fd, begun, from - begun, SYNC_FILE_RANGE_WRITE);
		begun = from;
		r = tree_walk_check(&place->copier->walk, err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

static int copy_sparse(const struct place *place, const struct ends *ends, off_t size,
		       const char *name, struct coppice_error *err)
{
	off_t hole = 0;
	int r;

	while (hole < size) {
		off_t data = lseek(ends->from_fd, hole, SEEK_DATA);

		if (data < 0 && errno == ENXIO)
			break;
		hole = data < 0 ? -1 : lseek(ends->from_fd, data, SEEK_HOLE);
		if (hole < 0) /* it cannot tell: no holes */
			return copy_range(place, ends, 0, size, name, err);
		if (hole > size)
			hole = size;
		r = copy_range(place, ends, data, hole, name, err);
		if (r < 0)
			return r;
	}
	if (retry(ftruncate(ends->to_fd, size)) < 0)
		return fail_entry(place, name, errno, "set the size of", err);
	return COPPICE_OK;
}

static int copy_data(struct place *place, const struct ends *ends, const struct statx *st,
		     const char *name, struct coppice_error *err)
{
	off_t size = (off_t)st->stx_size;
	int r;

	if (size == 0)
		return COPPICE_OK;
	if (clone_data(place, ends, name, &r, err))
		return r;
	place->count.is_shared = false;
	if (st->stx_blocks * 512 < st->stx_size)
		return copy_sparse(place, ends, size, name, err);
	return copy_range(place, ends, 0, size, name, err);
}

/* ---- files with several names ---- */

static int compare_linked(const void *a, const void *b)
{
	uint64_t x = ((const struct linked *)a)->inode, y = ((const struct linked *)b)->inode;

	return x < y ? -1 : x > y;
}

static void linked_free(void *p)
{
	struct linked *linked = p;

	if (linked)
		free(linked->path);
	free(linked);
}

static void linked_freep(struct linked **linked)
{
	linked_free(*linked);
}

/* Remember where the first copy of a file is. */
static int remember(struct place *place, uint64_t inode, const char *name,
		    struct coppice_error *err)
{
	_cleanup_(linked_freep) struct linked *linked = calloc(1, sizeof(*linked));

	if (!linked)
		return fail_memory(err);
	linked->inode = inode;
	linked->path = tree_path(place->dir, name);
	if (!linked->path || !tsearch(linked, &place->copier->links, compare_linked))
		return fail_memory(err);
	linked = NULL; /* the tree has it */
	return COPPICE_OK;
}

/* Make @name another name of what was copied before. */
static int link_to(const struct place *place, const char *path, const char *name,
		   struct coppice_error *err)
{
	_cleanup_(freep) char *parent = strdup(path);
	_cleanup_(closep) int parent_fd = -1;
	char *slash = parent ? strrchr(parent, '/') : NULL;

	if (!parent)
		return fail_memory(err);
	if (slash)
		*slash = '\0';
	parent_fd =
		tree_open(place->copier->how->to_fd, slash ? parent : ".", O_PATH | O_DIRECTORY);
	if (parent_fd < 0)
		return fail_entry(place, name, -parent_fd, "find the other name of", err);
	if (linkat(parent_fd, slash ? slash + 1 : parent, place->to_fd, name, 0) < 0)
		return fail_entry(place, name, errno, "link", err);
	return COPPICE_OK;
}

/* ---- entries ---- */

/* Make an entry without content. *ret_fd: of a regular file, else -1. */
static int make(const struct place *place, const char *name, const struct statx *st, int *ret_fd,
		struct coppice_error *err)
{
	char target[PATH_MAX + 1];
	ssize_t length;
	int r = 0;

	*ret_fd = -1;
	if (S_ISREG(st->stx_mode)) {
		r = *ret_fd =
			retry(openat(place->to_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
				     st->stx_mode & 0777));
	} else if (S_ISLNK(st->stx_mode)) {
		length = readlinkat(place->from_fd, name, target, sizeof(target) - 1);
		if (length >= 0)
			target[length] = '\0';
		r = length < 0 ? -1 : symlinkat(target, place->to_fd, name);
	} else {
		r = mknodat(place->to_fd, name, st->stx_mode & (S_IFMT | 0777),
			    makedev(st->stx_rdev_major, st->stx_rdev_minor));
	}
	return r < 0 ? fail_entry(place, name, errno, "create", err) : COPPICE_OK;
}

/* Make an entry, or a link to the one that it shares its content with: then *ret_linked. */
static int make_or_link(struct place *place, const char *name, const struct statx *st, int *ret_fd,
			bool *ret_linked, struct coppice_error *err)
{
	struct linked key = { .inode = st->stx_ino };
	struct copier *copier = place->copier;
	struct linked **found;
	int r;

	*ret_linked = false;
	if (st->stx_nlink < 2)
		return make(place, name, st, ret_fd, err);
	(void)pthread_mutex_lock(&copier->links_lock);
	found = tfind(&key, &copier->links, compare_linked);
	*ret_linked = found != NULL;
	if (found) {
		r = link_to(place, (*found)->path, name, err);
	} else {
		r = make(place, name, st, ret_fd, err);
		if (r >= 0)
			r = remember(place, st->stx_ino, name, err);
	}
	(void)pthread_mutex_unlock(&copier->links_lock);
	return r;
}

static int copy_regular(struct place *place, const char *name, const struct statx *st, int to_fd,
			struct coppice_error *err)
{
	_cleanup_(closep) int from_fd = tree_open(place->from_fd, name, O_RDONLY | O_NOATIME);
	struct ends ends = { from_fd, to_fd, NULL, NULL };
	int r;

	if (from_fd < 0)
		return fail_entry(place, name, -from_fd, "open", err);
	r = copy_data(place, &ends, st, name, err);
	if (r < 0)
		return r;
	return finish_open(place, &ends, st, true, name, err);
}

static int copy_file(struct place *place, const char *name, const struct statx *st,
		     struct coppice_error *err)
{
	_cleanup_(closep) int to_fd = -1;
	bool is_linked;
	int r;

	r = make_or_link(place, name, st, &to_fd, &is_linked, err);
	if (r < 0 || is_linked)
		return r;
	place->count.bytes_allocated += st->stx_blocks * 512;
	if (!S_ISREG(st->stx_mode))
		return finish_special(place, st, name, err);
	place->count.bytes_apparent += st->stx_size;
	return copy_regular(place, name, st, to_fd, err);
}

/* In a snapshot, where there was a subvolume in what it was made of: always empty. */
static bool is_placeholder(const struct copier *copier, const struct statx *st)
{
	return copier->is_btrfs && S_ISDIR(st->stx_mode) && st->stx_ino == 2;
}

static bool is_of_the_tree(const struct copier *copier, const struct statx *st)
{
	return st->stx_dev_major == copier->dev_major && st->stx_dev_minor == copier->dev_minor;
}

static int copy_entry(struct place *place, const char *name, struct coppice_error *err)
{
	struct copier *copier = place->copier;
	struct statx st;

	if (statx(place->from_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS,
		  &st) < 0)
		return fail_entry(place, name, errno, "look at", err);
	place->count.entries++;
	if (st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
		return refuse_entry(place, name, "something is mounted there", err);
	if (!is_of_the_tree(copier, &st) && !is_placeholder(copier, &st))
		return refuse_entry(place, name, "it is a subvolume or file system of its own",
				    err);
	if (!S_ISDIR(st.stx_mode))
		return copy_file(place, name, &st, err);
	place->count.bytes_allocated += st.stx_blocks * 512;
	if (mkdirat(place->to_fd, name, st.stx_mode & 0777) < 0)
		return fail_entry(place, name, errno, "create", err);
	return tree_walk_add(&copier->walk, place->dir, name, err);
}

/* ---- directories ---- */

/* As getdents64(2) gives it. */
static int copy_entries(struct place *place, struct coppice_error *err)
{
	char *buffer = place->scratch->entries;
	ssize_t n;
	int r;

	while ((n = getdents64(place->from_fd, buffer, ENTRIES_BYTES)) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *entry = (const void *)(buffer + at);

			at += entry->d_reclen;
			if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
				continue;
			r = copy_entry(place, entry->d_name, err);
			if (r < 0)
				return r;
		}
		r = tree_walk_check(&place->copier->walk, err);
		if (r < 0)
			return r;
	}
	return n < 0 ? fail_entry(place, ".", errno, "read", err) : COPPICE_OK;
}

static int copy_directory(struct place *place, struct coppice_error *err)
{
	struct ends ends = { place->from_fd, place->to_fd, NULL, NULL };
	bool is_top = !place->dir->parent;
	struct statx st;
	int r;

	/* Nothing made in it shall inherit what the top happens to have. */
	if (is_top)
		(void)fremovexattr(place->to_fd, ACL_DEFAULT);
	if (is_top && fchmod(place->to_fd, 0700) < 0)
		return fail_entry(place, ".", errno, "set the mode of", err);
	r = copy_entries(place, err);
	if (r < 0)
		return r;
	if (statx(place->from_fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) < 0)
		return fail_entry(place, ".", errno, "look at", err);
	return finish_open(place, &ends, &st, !is_top, ".", err);
}

static struct scratch *scratch_take(struct copier *copier)
{
	struct scratch *scratch;

	(void)pthread_mutex_lock(&copier->lock);
	scratch = copier->scratch;
	if (scratch)
		copier->scratch = scratch->next;
	(void)pthread_mutex_unlock(&copier->lock);
	return scratch ? scratch : malloc(sizeof(*scratch));
}

static void scratch_give(struct copier *copier, struct scratch *scratch,
			 const struct tree_copied *count)
{
	(void)pthread_mutex_lock(&copier->lock);
	scratch->next = copier->scratch;
	copier->scratch = scratch;
	copier->total.entries += count->entries;
	copier->total.bytes_allocated += count->bytes_allocated;
	copier->total.bytes_apparent += count->bytes_apparent;
	copier->total.is_shared &= count->is_shared;
	(void)pthread_mutex_unlock(&copier->lock);
}

static int visit(struct tree_walk *walk, struct tree_dir *dir, struct coppice_error *err)
{
	struct copier *copier = CONTAINER_OF(walk, struct copier, walk);
	_cleanup_(closep) int from_fd = -1;
	_cleanup_(closep) int to_fd = -1;
	struct place place = { .copier = copier, .dir = dir, .count = { .is_shared = true } };
	int r;

	from_fd = tree_dir_open(walk, dir, TREE_WALKED, O_RDONLY | O_DIRECTORY | O_NOATIME);
	to_fd = tree_dir_open(walk, dir, TREE_TWIN, O_RDONLY | O_DIRECTORY);
	if (from_fd < 0 || to_fd < 0)
		return tree_fail(dir, NULL, from_fd < 0 ? -from_fd : -to_fd, "open", err);
	place.from_fd = from_fd;
	place.to_fd = to_fd;
	place.scratch = scratch_take(copier);
	if (!place.scratch)
		return fail_memory(err);
	r = copy_directory(&place, err);
	scratch_give(copier, place.scratch, &place.count);
	return r;
}

/* The process's own: asking umask(2) would change it for all threads. */
static int umask_read(mode_t *ret, struct coppice_error *err)
{
	_cleanup_(freep) char *status = NULL;
	const char *line;
	int r;

	r = file_read(AT_FDCWD, "/proc/self/status", 65536, &status, err);
	if (r == COPPICE_NOT_FOUND)
		err->code = COPPICE_FAILED; /* not of what is copied */
	if (r < 0)
		return err->code;
	line = strstr(status, "\nUmask:");
	if (!line)
		return fail(err, COPPICE_UNSUPPORTED, "/proc/self/status does not tell the umask");
	*ret = (mode_t)strtoul(line + strlen("\nUmask:"), NULL, 8);
	return COPPICE_OK;
}

static void copier_done(struct copier *copier)
{
	while (copier->scratch) {
		struct scratch *scratch = copier->scratch;

		copier->scratch = scratch->next;
		free(scratch);
	}
	tdestroy(copier->links, linked_free);
	(void)pthread_mutex_destroy(&copier->links_lock);
	(void)pthread_mutex_destroy(&copier->lock);
}

int tree_copy(const struct tree_copy *how, struct tree_copied *ret, struct coppice_error *err)
{
	struct copier copier = {
		.walk = { .root_fd = how->from_fd,
			  .twin_fd = how->to_fd,
			  .threads = how->threads,
			  .is_interrupted = how->is_interrupted,
			  .interrupted_user = how->interrupted_user,
			  .visit = visit },
		.how = how,
		.uid = geteuid(),
		.gid = getegid(),
		.total = { .is_shared = true },
	};
	struct statfs fs;
	struct statx st;
	int r;

	if (statx(how->from_fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) < 0)
		return fail_errno(err, errno, "cannot look at the tree to copy");
	r = umask_read(&copier.umask, err);
	if (r < 0)
		return r;
	copier.dev_major = st.stx_dev_major;
	copier.dev_minor = st.stx_dev_minor;
	copier.is_btrfs = fstatfs(how->from_fd, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC;
	copier.total.bytes_allocated = st.stx_blocks * 512;
	(void)pthread_mutex_init(&copier.links_lock, NULL);
	(void)pthread_mutex_init(&copier.lock, NULL);
	r = tree_walk_run(&copier.walk, err);
	if (r >= 0)
		*ret = copier.total;
	copier_done(&copier);
	return r;
}
