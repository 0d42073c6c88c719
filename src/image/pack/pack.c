/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each entry is opened once, below the top and through no link (openat2), and all that
 * is told of it is read from that descriptor: whoever renames things meanwhile can make
 * the packing fail, not make it read something outside of the tree.
 *
 * libarchive runs in the C locale, so names that are not ASCII go as they are, and are marked
 * so. ACLs go as the attributes that
 * the kernel keeps them in: as text they would name this machine's users.
 */
#include "image/pack/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "base/file.h"
#include "base/text.h"
#include "image/links.h"
#include "image/unpack/warnings.h"

enum {
	PIECE_SIZE = 512 * 1024
};

DEFINE_CLEANUP(struct archive *, archive_write_free)
DEFINE_CLEANUP(struct archive_entry *, archive_entry_free)

struct packer {
	int top_fd;
	struct archive *archive;
	struct links links;
	char path[PATH_MAX]; /* "./etc/motd"; "." for the top */
	char *piece;
};

/* ---- opening ---- */

static int open_path(const struct packer *packer, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	int fd;

	do {
		fd = (int)syscall(SYS_openat2, packer->top_fd, path, &how, sizeof(how));
	} while (fd < 0 && (errno == EAGAIN || errno == EINTR));
	return fd;
}

/* The same object by a name that every call takes, links too: they are not followed. */
static void proc_path(int fd, char ret[static 40])
{
	(void)snprintf(ret, 40, "/proc/self/fd/%d", fd);
}

static int reopen(int path_fd, int flags)
{
	char path[40];
	int fd;

	proc_path(path_fd, path);
	fd = open(path, flags | O_NOATIME | O_CLOEXEC);
	return fd < 0 && errno == EPERM ? open(path, flags | O_CLOEXEC) : fd;
}

/* ---- attributes ---- */

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Let the kernel say how much, twice if somebody adds meanwhile. free() the result. */
static ssize_t read_list(const char *proc, char **ret)
{
	ssize_t n = listxattr(proc, NULL, 0);

	if (n <= 0)
		return n;
	*ret = malloc((size_t)n);
	return *ret ? listxattr(proc, *ret, (size_t)n) : -1;
}

static int add_xattr(struct archive_entry *entry, const char *proc, const char *name,
		     const char *path, struct coppice_error *err)
{
	ssize_t n = getxattr(proc, name, NULL, 0);
	_cleanup_(freep) char *value = malloc(n > 0 ? (size_t)n : 1);

	if (!value)
		return fail_memory(err);
	if (n > 0)
		n = getxattr(proc, name, value, (size_t)n);
	if (n < 0)
		return fail_errno(err, errno, "cannot read %s of '%s'", name, path);
	archive_entry_xattr_add_entry(entry, name, value, (size_t)n);
	return COPPICE_OK;
}

static int add_xattrs(struct archive_entry *entry, int fd, const char *path,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *list = NULL;
	_cleanup_(freep) char **names = NULL;
	char proc[40];
	ssize_t length;
	size_t n = 0;
	int r = COPPICE_OK;

	proc_path(fd, proc);
	length = read_list(proc, &list);
	if (length < 0 && errno != EOPNOTSUPP)
		return fail_errno(err, errno, "cannot read the attributes of '%s'", path);
	if (length <= 0)
		return COPPICE_OK;
	names = calloc((size_t)length, sizeof(*names));
	if (!names)
		return fail_memory(err);
	for (char *at = list; at < list + length; at += strlen(at) + 1)
		names[n++] = at;
	qsort(names, n, sizeof(*names), compare_names);
	/* libarchive puts each before those it has. */
	for (size_t i = n; i > 0 && r == COPPICE_OK; i--)
		r = add_xattr(entry, proc, names[i - 1], path, err);
	return r;
}

/* ---- content ---- */

static int fail_write(struct packer *packer, struct coppice_error *err)
{
	if (archive_errno(packer->archive) == EPIPE)
		_exit(1); /* who reads it has said why by then */
	return fail(err, COPPICE_FAILED, "'%s': %s", packer->path,
		    archive_error_string(packer->archive));
}

static int write_piece(struct packer *packer, const char *piece, size_t length,
		       struct coppice_error *err)
{
	la_ssize_t n = archive_write_data(packer->archive, piece, length);

	return n == (la_ssize_t)length ? COPPICE_OK : fail_write(packer, err);
}

/* Where there is data; a file that is only a hole has one empty piece. */
static int add_holes(struct archive_entry *entry, int fd, off_t size, const char *path,
		     struct coppice_error *err)
{
	off_t at = 0, data, end;

	if (size == 0 || lseek(fd, 0, SEEK_HOLE) >= size)
		return COPPICE_OK;
	while (at < size) {
		data = lseek(fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		end = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (end < 0)
			return fail_errno(err, errno, "cannot read '%s'", path);
		if (end > size)
			end = size;
		if (data < size)
			archive_entry_sparse_add_entry(entry, data, end - data);
		at = end > at ? end : size;
	}
	if (archive_entry_sparse_count(entry) == 0)
		archive_entry_sparse_add_entry(entry, 0, 0);
	return COPPICE_OK;
}

/* As long as the file has nothing there: what is read of a hole is not asked for. */
static int write_hole(struct packer *packer, off_t *at, off_t end, struct coppice_error *err)
{
	static char nothing[64 << 20]; /* never touched: it takes no memory */

	while (*at < end) {
		size_t length = sizeof(nothing);

		if (end - *at < (off_t)length)
			length = (size_t)(end - *at);
		if (write_piece(packer, nothing, length, err) < 0)
			return err->code;
		*at += (off_t)length;
	}
	return COPPICE_OK;
}

/* Past a hole that begins at *at; *ret_end: of the data behind it. */
static int skip_hole(struct packer *packer, int fd, off_t size, off_t *at, off_t *ret_end,
		     struct coppice_error *err)
{
	off_t data = lseek(fd, *at, SEEK_DATA);

	if (data > size || (data < 0 && errno == ENXIO))
		data = size;
	if (write_hole(packer, at, data, err) < 0)
		return err->code;
	*ret_end = *at < size ? lseek(fd, *at, SEEK_HOLE) : size;
	if (*ret_end <= *at) /* it cannot tell */
		*ret_end = size;
	return COPPICE_OK;
}

/* libarchive wants all the bytes, and leaves out itself what lies in holes. */
static int write_content(struct packer *packer, int fd, off_t size, struct coppice_error *err)
{
	off_t at = 0, end = 0;

	while (at < size) {
		size_t length = size - at > PIECE_SIZE ? PIECE_SIZE : (size_t)(size - at);
		ssize_t n;

		if (at >= end) {
			if (skip_hole(packer, fd, size, &at, &end, err) < 0)
				return err->code;
			continue;
		}
		n = pread(fd, packer->piece, length, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(err, errno, "cannot read '%s'", packer->path);
		if (n == 0)
			return fail(err, COPPICE_FAILED, "'%s' became shorter meanwhile",
				    packer->path);
		if (write_piece(packer, packer->piece, (size_t)n, err) < 0)
			return err->code;
		at += n;
	}
	return COPPICE_OK;
}

/* ---- entries ---- */

static int write_header(struct packer *packer, struct archive_entry *entry,
			struct coppice_error *err)
{
	int r = archive_write_header(packer->archive, entry);

	return r == ARCHIVE_OK || r == ARCHIVE_WARN ? COPPICE_OK : fail_write(packer, err);
}

static int write_file(struct packer *packer, struct archive_entry *entry, int path_fd,
		      struct coppice_error *err)
{
	_cleanup_(closep) int fd = reopen(path_fd, O_RDONLY);
	off_t size = archive_entry_size(entry);

	if (fd < 0)
		return fail_errno(err, errno, "cannot read '%s'", packer->path);
	if (add_holes(entry, fd, size, packer->path, err) < 0 ||
	    write_header(packer, entry, err) < 0)
		return err->code;
	return write_content(packer, fd, size, err);
}

static int write_symlink(struct packer *packer, struct archive_entry *entry, int path_fd,
			 struct coppice_error *err)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(path_fd, "", target, sizeof(target) - 1);

	if (n < 0)
		return fail_errno(err, errno, "cannot read '%s'", packer->path);
	target[n] = '\0';
	archive_entry_set_symlink(entry, target);
	return write_header(packer, entry, err);
}

static void describe(struct archive_entry *entry, const struct stat *st, const char *path)
{
	archive_entry_set_pathname(entry, path);
	archive_entry_set_mode(entry, st->st_mode);
	archive_entry_set_uid(entry, st->st_uid);
	archive_entry_set_gid(entry, st->st_gid);
	archive_entry_set_mtime(entry, st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
	archive_entry_set_size(entry, S_ISREG(st->st_mode) ? st->st_size : 0);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		archive_entry_set_rdev(entry, st->st_rdev);
}

/* All but directories: those have no second name. */
static int write_link(struct packer *packer, struct archive_entry *entry, const struct stat *st,
		      bool *ret_is_link, struct coppice_error *err)
{
	const char *first = NULL;

	*ret_is_link = false;
	if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
		return COPPICE_OK;
	if (links_note(&packer->links, st, packer->path, &first, err) < 0)
		return err->code;
	if (!first)
		return COPPICE_OK;
	*ret_is_link = true;
	archive_entry_set_hardlink(entry, first);
	archive_entry_set_size(entry, 0);
	return write_header(packer, entry, err);
}

static int write_entry(struct packer *packer, int fd, const struct stat *st,
		       struct coppice_error *err)
{
	_cleanup_(archive_entry_freep) struct archive_entry *entry = archive_entry_new();
	bool is_link;

	if (!entry)
		return fail_memory(err);
	describe(entry, st, packer->path);
	if (write_link(packer, entry, st, &is_link, err) < 0)
		return err->code;
	if (is_link)
		return COPPICE_OK;
	if (add_xattrs(entry, fd, packer->path, err) < 0)
		return err->code;
	if (S_ISREG(st->st_mode))
		return write_file(packer, entry, fd, err);
	if (S_ISLNK(st->st_mode))
		return write_symlink(packer, entry, fd, err);
	return write_header(packer, entry, err);
}

/* ---- directories ---- */

struct names {
	char **name;
	size_t n, capacity;
};

static void names_done(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->name[i]);
	free(names->name);
}

static int names_add(struct names *names, const char *name, struct coppice_error *err)
{
	if (names->n == names->capacity) {
		size_t capacity = names->capacity ? 2 * names->capacity : 32;
		char **more = reallocarray(names->name, capacity, sizeof(*more));

		if (!more)
			return fail_memory(err);
		names->name = more;
		names->capacity = capacity;
	}
	names->name[names->n] = strdup(name);
	if (!names->name[names->n])
		return fail_memory(err);
	names->n++;
	return COPPICE_OK;
}

static int names_read(struct names *names, int path_fd, const char *path, struct coppice_error *err)
{
	int fd = reopen(path_fd, O_RDONLY | O_DIRECTORY);
	_cleanup_(closedirp) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (!dir)
		return fail_errno(err, errno, "cannot read '%s'", path);
	for (errno = 0; (entry = readdir(dir)); errno = 0) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (names_add(names, entry->d_name, err) < 0)
			return err->code;
	}
	if (errno != 0)
		return fail_errno(err, errno, "cannot read '%s'", path);
	if (names->n > 0) /* of no array there is none to sort */
		qsort(names->name, names->n, sizeof(*names->name), compare_names);
	return COPPICE_OK;
}

static int pack_path(struct packer *packer, struct coppice_error *err);

/* @fd is closed before going down: however deep, few are open. */
static int pack_children(struct packer *packer, int *fd, struct coppice_error *err)
{
	_cleanup_(names_done) struct names names = { 0 };
	size_t length = strlen(packer->path);

	if (names_read(&names, *fd, packer->path, err) < 0)
		return err->code;
	closep(fd);
	*fd = -1;
	for (size_t i = 0; i < names.n; i++) {
		if (length + strlen(names.name[i]) + 2 > sizeof(packer->path))
			return fail(err, COPPICE_INVALID, "has a path that is too long: '%.100s…'",
				    packer->path);
		(void)snprintf(packer->path + length, sizeof(packer->path) - length, "/%s",
			       names.name[i]);
		if (pack_path(packer, err) < 0)
			return err->code;
		packer->path[length] = '\0';
	}
	return COPPICE_OK;
}

/* What is at packer->path, and all below it. */
static int pack_path(struct packer *packer, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open_path(packer, packer->path);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail_errno(err, errno, "cannot open '%s'", packer->path);
	if (S_ISSOCK(st.st_mode)) {
		warn_once(WARNING_ENTRY_KIND, "'%s' is a socket: left out", packer->path);
		return COPPICE_OK;
	}
	if (write_entry(packer, fd, &st, err) < 0)
		return err->code;
	return S_ISDIR(st.st_mode) ? pack_children(packer, &fd, err) : COPPICE_OK;
}

static int archive_begin(struct packer *packer, int fd, struct coppice_error *err)
{
	packer->archive = archive_write_new();
	if (!packer->archive)
		return fail_memory(err);
	if (archive_write_set_format_pax(packer->archive) != ARCHIVE_OK ||
	    archive_write_set_options(packer->archive, "xattrheader=SCHILY") != ARCHIVE_OK ||
	    archive_write_open_fd(packer->archive, fd) != ARCHIVE_OK)
		return fail_write(packer, err);
	return COPPICE_OK;
}

int pack(int top_fd, int archive_fd, struct coppice_error *err)
{
	_cleanup_(freep) struct packer *packer = calloc(1, sizeof(*packer));
	_cleanup_(freep) char *piece = malloc(PIECE_SIZE);
	int r;

	if (!packer || !piece)
		return fail_memory(err);
	packer->top_fd = top_fd;
	packer->piece = piece;
	packer->path[0] = '.';
	r = archive_begin(packer, archive_fd, err);
	if (r == COPPICE_OK)
		r = pack_path(packer, err);
	if (r == COPPICE_OK && archive_write_close(packer->archive) != ARCHIVE_OK)
		r = fail_write(packer, err);
	archive_write_freep(&packer->archive);
	links_done(&packer->links);
	return r;
}
