/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which kind of image it is shows only at the end, because metadata.yaml may come
 * last. So everything goes into a directory of its own first, which then becomes
 * rootfs, or whose entries move up beside each other.
 */
#include "image/unpack/extract.h"

#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/text.h"
#include "image/unpack/report.h"
#include "image/unpack/tree.h"
#include "image/unpack/warnings.h"

#define UNPACK_NAME   ".unpack"
#define METADATA_NAME "metadata.yaml"
#define ROOTFS_NAME   "rootfs"

enum {
	MACHINE_ID_MAX = 64,
	ENTRIES_MAX = 2000000,
	ENTRIES_BETWEEN_LOOKS = 4096
};

/* Of all files together, holes too. */
#define UNPACKED_MAX        (16ULL << 40)
#define BYTES_BETWEEN_LOOKS (4ULL << 20)

/* What is left to the pool: its fiftieth part, and no more than this. */
#define RESERVE_MAX (512ULL << 20)

/* What a plain root file system has, or has in the directory rootfs of a unified image. */
struct root_signs {
	bool has_root_directory; /* etc, usr, … */
	bool has_ssh_keys;
	bool has_machine_id;
};

struct walk {
	struct source *source;
	bool is_metadata_only, is_rootfs_only; /* half of a split image */
	struct tree *tree;                     /* NULL: only look */
	int root_fd;                           /* -1: likewise */
	uint64_t promised_bytes;               /* sizes of all files */
	uint64_t unlooked_bytes;               /* written since we looked how full the pool is */
	uint64_t unsynced_bytes;               /* written since all was written out */
	struct extraction *result;
	char path[PATH_MAX];
	struct root_signs plain, unified;
	bool has_rootfs;
	char *metadata; /* content of the last entry of that name; NULL: none, or it is no good */
	size_t metadata_length;
	bool is_metadata_no_file, is_metadata_too_large; /* what that entry is instead */
};

/* ---- paths ---- */

/* Make a path relative and clean: no "." and nothing empty in it. ".." is refused. */
static int path_clean(const char *path, char ret[static PATH_MAX], struct coppice_error *err)
{
	size_t length = 0, depth = 0;

	for (const char *at = path; *at != '\0';) {
		size_t n = strcspn(at, "/");

		if (n == 2 && memcmp(at, "..", 2) == 0)
			return fail(err, COPPICE_INVALID, "has '%s', which leads out of it", path);
		if (n > 0 && !(n == 1 && at[0] == '.')) {
			if (length + n + 2 > PATH_MAX)
				return fail(err, COPPICE_INVALID,
					    "has a path that is too long: '%.100s…'", path);
			if (++depth > TREE_DEPTH_MAX)
				return fail(err, COPPICE_INVALID,
					    "is nested deeper than %d directories: '%.100s…'",
					    TREE_DEPTH_MAX, path);
			if (length > 0)
				ret[length++] = '/';
			memcpy(ret + length, at, n);
			length += n;
		}
		at += n + (at[n] == '/');
	}
	ret[length] = '\0';
	return COPPICE_OK;
}

/* ---- signs ---- */

static bool begins(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool ends(const char *text, const char *suffix)
{
	size_t n = strlen(text), m = strlen(suffix);

	return n >= m && strcmp(text + n - m, suffix) == 0;
}

static bool is_below(const char *path, const char *directory)
{
	size_t n = strlen(directory);

	return strncmp(path, directory, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static void signs_note(struct root_signs *signs, const char *path)
{
	static const char *const usual[] = { "etc", "usr", "bin", "sbin", "lib", "var" };
	static const char key[] = "etc/ssh/ssh_host_";

	for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
		signs->has_root_directory |= is_below(path, usual[i]);
	if (begins(path, key) && ends(path, "_key"))
		signs->has_ssh_keys = true;
}

static struct root_signs *signs_of(struct walk *walk, const char **path)
{
	if (!begins(*path, ROOTFS_NAME "/"))
		return &walk->plain;
	*path += strlen(ROOTFS_NAME "/");
	return &walk->unified;
}

static void entry_note(struct walk *walk, struct archive_entry *entry)
{
	const char *path = walk->path;
	struct root_signs *signs;

	if (strcmp(path, METADATA_NAME) == 0) {
		free(take_ptr(&walk->metadata)); /* a later entry replaces it */
		walk->metadata_length = 0;
		walk->is_metadata_no_file =
			archive_entry_hardlink(entry) || archive_entry_filetype(entry) != AE_IFREG;
		walk->is_metadata_too_large =
			!walk->is_metadata_no_file && archive_entry_size(entry) > REPORT_FRAME_MAX;
	}
	if (strcmp(path, ROOTFS_NAME) == 0)
		walk->has_rootfs = archive_entry_filetype(entry) == AE_IFDIR;
	if (begins(path, ROOTFS_NAME "/"))
		walk->has_rootfs = true;
	signs = signs_of(walk, &path);
	signs_note(signs, path);
}

/* ---- limits ---- */

/* What is free beyond what must stay so; less than nothing if there is less. */
static bool read_space(const struct walk *walk, int64_t *ret_slack, uint64_t *ret_free)
{
	struct statfs pool;
	uint64_t reserve;

	if (walk->root_fd < 0 || fstatfs(walk->root_fd, &pool) < 0 || pool.f_blocks == 0)
		return false;
	reserve = pool.f_blocks / 50 * (uint64_t)pool.f_bsize;
	if (reserve > RESERVE_MAX)
		reserve = RESERVE_MAX;
	*ret_free = pool.f_bavail * (uint64_t)pool.f_bsize;
	*ret_slack = (int64_t)(*ret_free - reserve);
	return true;
}

/*
 * A pool that is full to the last block is hard to use and to repair: what grows without
 * end is stopped before. Btrfs does not count here what it has not yet written out: where
 * that may be all that is left, it is written out first.
 */
static int look_at_space(struct walk *walk, struct coppice_error *err)
{
	char left[SIZE_TEXT_MAX];
	uint64_t free_bytes;
	int64_t slack;

	walk->unlooked_bytes = 0;
	if (!read_space(walk, &slack, &free_bytes) || slack >= (int64_t)walk->unsynced_bytes)
		return COPPICE_OK;
	if (slack >= 0) {
		if (syncfs(walk->root_fd) < 0)
			return fail_errno(err, errno, "cannot write out what was unpacked");
		walk->unsynced_bytes = 0;
		if (!read_space(walk, &slack, &free_bytes))
			return COPPICE_OK;
	}
	if (slack >= 0)
		return COPPICE_OK;
	size_format(free_bytes, left);
	return fail(err, COPPICE_NO_SPACE, "the pool is nearly full, %s are left", left);
}

static int count_entry(struct walk *walk, struct coppice_error *err)
{
	if (++walk->result->n_entries > ENTRIES_MAX)
		return fail(err, COPPICE_INVALID, "has more than %d entries", ENTRIES_MAX);
	if (walk->result->n_entries % ENTRIES_BETWEEN_LOOKS == 0)
		return look_at_space(walk, err);
	return COPPICE_OK;
}

/* Before any of a file is written. */
static int count_size(struct walk *walk, uint64_t size, struct coppice_error *err)
{
	if (size > INT64_MAX)
		return fail(err, COPPICE_INVALID, "has an impossible size for '%s'", walk->path);
	walk->promised_bytes += size; /* two of 63 bits fit */
	if (walk->promised_bytes <= UNPACKED_MAX)
		return COPPICE_OK;
	return fail(err, COPPICE_INVALID, "unpacks to more than %llu TiB ('%s')",
		    UNPACKED_MAX >> 40, walk->path);
}

static int count_piece(struct walk *walk, size_t length, struct coppice_error *err)
{
	walk->result->unpacked_bytes += length;
	walk->unlooked_bytes += length;
	walk->unsynced_bytes += length;
	return walk->unlooked_bytes < BYTES_BETWEEN_LOOKS ? COPPICE_OK : look_at_space(walk, err);
}

/* ---- content ---- */

/* Where a file's content goes. */
struct sink {
	int fd;     /* -1: nowhere */
	char *kept; /* first bytes of it, for files that we look into; or NULL */
	size_t kept_max;
	uint64_t end_bytes; /* behind the last byte written */
};

static int sink_write(struct sink *sink, const char *data, size_t length, uint64_t offset,
		      const char *path, struct coppice_error *err)
{
	if (sink->kept && offset < sink->kept_max) {
		size_t room = sink->kept_max - offset;

		memcpy(sink->kept + offset, data, length < room ? length : room);
	}
	sink->end_bytes = offset + length;
	while (sink->fd >= 0 && length > 0) {
		ssize_t n = pwrite(sink->fd, data, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(err, errno, "cannot write '%s'", path);
		data += n;
		length -= (size_t)n;
		offset += (uint64_t)n;
	}
	return COPPICE_OK;
}

/* Sparse files come as pieces with their offsets; what is between stays a hole. */
static int content_copy(struct walk *walk, struct archive_entry *entry, struct sink *sink,
			struct coppice_error *err)
{
	uint64_t size = (uint64_t)archive_entry_size(entry);
	const void *data = NULL;
	uint64_t offset = 0;
	size_t length = 1;

	while (length > 0) {
		if (walk->source->read(walk->source, &data, &length, &offset, err) < 0)
			return err->code;
		if (length == 0)
			break;
		if (offset > size || length > size - offset)
			return fail(err, COPPICE_INVALID,
				    "is corrupt ('%s' has more than its size)", walk->path);
		if (count_piece(walk, length, err) < 0 ||
		    sink_write(sink, data, length, offset, walk->path, err) < 0)
			return err->code;
	}
	if (sink->fd >= 0 && sink->end_bytes < size && retry(ftruncate(sink->fd, (off_t)size)) < 0)
		return fail_errno(err, errno, "cannot write '%s'", walk->path);
	return COPPICE_OK;
}

/* A machine-id that says "uninitialized" or nothing is made anew at the first start. */
static void machine_id_note(struct walk *walk, const char *kept, uint64_t size)
{
	const char *path = walk->path;
	struct root_signs *signs = signs_of(walk, &path);

	if (strcmp(path, "etc/machine-id") == 0)
		signs->has_machine_id = size > 0 && !begins(kept, "uninitialized");
}

static int file_extract(struct walk *walk, struct archive_entry *entry,
			const struct attributes *attributes, struct coppice_error *err)
{
	bool is_metadata = strcmp(walk->path, METADATA_NAME) == 0;
	_cleanup_(closep) int fd = -1;
	char machine_id[MACHINE_ID_MAX + 1] = { 0 };
	struct sink sink = { .kept = machine_id, .kept_max = MACHINE_ID_MAX };
	uint64_t size = (uint64_t)archive_entry_size(entry);

	if (count_size(walk, size, err) < 0)
		return err->code;
	if (walk->tree && tree_file_create(walk->tree, walk->path, attributes, &fd, err) < 0)
		return err->code;
	sink.fd = fd;
	if (is_metadata && size <= REPORT_FRAME_MAX) {
		walk->metadata = calloc(1, size + 1);
		if (!walk->metadata)
			return fail_memory(err);
		walk->metadata_length = sink.kept_max = size;
		sink.kept = walk->metadata;
	}
	if (content_copy(walk, entry, &sink, err) < 0)
		return err->code;
	machine_id_note(walk, sink.kept, size);
	return walk->tree ? attributes_set(fd, attributes, walk->path, err) : COPPICE_OK;
}

/* ---- entries ---- */

static int link_extract(struct walk *walk, const char *existing, struct coppice_error *err)
{
	char clean[PATH_MAX];

	if (path_clean(existing, clean, err) < 0)
		return err->code;
	if (clean[0] == '\0')
		return fail(err, COPPICE_INVALID, "has the hard link '%s' to nothing", walk->path);
	return walk->tree ? tree_link(walk->tree, walk->path, clean, err) : COPPICE_OK;
}

static int node_extract(struct walk *walk, struct archive_entry *entry,
			const struct attributes *attributes, struct coppice_error *err)
{
	switch (archive_entry_filetype(entry)) {
	case AE_IFDIR:
		return tree_directory(walk->tree, walk->path, attributes, err);
	case AE_IFLNK:
		return tree_symlink(walk->tree, walk->path, archive_entry_symlink(entry),
				    attributes, err);
	case AE_IFCHR:
	case AE_IFBLK:
		return tree_node(walk->tree, walk->path, archive_entry_rdev(entry), attributes,
				 err);
	case AE_IFIFO:
		return tree_node(walk->tree, walk->path, 0, attributes, err);
	default:
		warn_once(WARNING_ENTRY_KIND, "'%s' is of a kind that cannot be made: left out",
			  walk->path);
		return COPPICE_OK;
	}
}

static int entry_extract(struct walk *walk, struct archive_entry *entry, struct coppice_error *err)
{
	const char *path = archive_entry_pathname(entry);
	const char *existing = archive_entry_hardlink(entry);
	unsigned type = archive_entry_filetype(entry);
	struct attributes attributes;

	if (!path)
		return fail(err, COPPICE_INVALID, "has an entry without a name");
	if (path_clean(path, walk->path, err) < 0 || attributes_read(entry, &attributes, err) < 0)
		return err->code;
	if (count_entry(walk, err) < 0)
		return err->code;
	if (walk->is_metadata_only && is_below(walk->path, ROOTFS_NAME))
		return fail(err, COPPICE_INVALID,
			    "has a rootfs of its own: import it alone, it is no half of an image");
	if (walk->path[0] == '\0' && (existing || type != AE_IFDIR))
		return fail(err, COPPICE_INVALID, "has a top that is no directory");
	entry_note(walk, entry);
	if (existing)
		return link_extract(walk, existing, err);
	if (type == AE_IFREG)
		return file_extract(walk, entry, &attributes, err);
	if (type == AE_IFLNK && !archive_entry_symlink(entry))
		return fail(err, COPPICE_INVALID, "has the symbolic link '%s' to nothing", path);
	return walk->tree ? node_extract(walk, entry, &attributes, err) : COPPICE_OK;
}

static int entries_extract(struct walk *walk, struct coppice_error *err)
{
	struct archive_entry *entry;

	for (;;) {
		if (walk->source->next(walk->source, &entry, err) < 0)
			return err->code;
		if (!entry)
			return COPPICE_OK;
		if (entry_extract(walk, entry, err) < 0)
			return err->code;
	}
}

/* ---- what it is ---- */

static void tell_signs(const struct root_signs *signs)
{
	if (signs->has_ssh_keys)
		warn_once(
			WARNING_SSH_KEYS,
			"the image carries SSH host keys (etc/ssh/ssh_host_*_key): all containers "
			"made of it will have the same");
	if (signs->has_machine_id)
		warn_once(WARNING_MACHINE_ID,
			  "the image carries a filled etc/machine-id: all containers made of it "
			  "will have the same");
}

static int refuse_without_metadata(const struct walk *walk, const char *missing,
				   struct coppice_error *err)
{
	if (walk->is_metadata_no_file)
		return fail(err, COPPICE_INVALID,
			    "has a metadata.yaml that is a link, or no regular file");
	if (walk->is_metadata_too_large)
		return fail(err, COPPICE_INVALID, "has a metadata.yaml that is larger than %u MiB",
			    REPORT_FRAME_MAX >> 20);
	return fail(err, COPPICE_INVALID, "%s", missing);
}

static int classify(struct walk *walk, struct coppice_error *err)
{
	struct extraction *result = walk->result;

	if (walk->is_metadata_only && !walk->metadata)
		return refuse_without_metadata(walk, "has no metadata.yaml at its top", err);
	result->is_unified = walk->is_metadata_only ||
			     (walk->metadata && walk->has_rootfs && !walk->is_rootfs_only);
	if (!walk->is_metadata_only)
		tell_signs(result->is_unified ? &walk->unified : &walk->plain);
	if (!result->is_unified && !walk->plain.has_root_directory && walk->has_rootfs)
		return refuse_without_metadata(
			walk, "is no image: it has a rootfs but no metadata.yaml beside it", err);
	if (!result->is_unified && !walk->plain.has_root_directory)
		return fail(err, COPPICE_INVALID,
			    "is no root file system: it has no etc, usr, bin, sbin, lib or var");
	if (!result->is_unified)
		return COPPICE_OK;
	result->metadata = take_ptr(&walk->metadata);
	result->metadata_length = walk->metadata_length;
	return COPPICE_OK;
}

static bool is_directory(int dir_fd, const char *name)
{
	struct stat st;

	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* Move what is at the top of an image beside each other into the target. */
static int move_up(int root_fd, bool has_rootfs, struct coppice_error *err)
{
	int fd = openat(root_fd, UNPACK_NAME, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_(closedirp) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (!dir)
		return fail_errno(err, errno, "cannot look at what was unpacked");
	if (has_rootfs && !is_directory(fd, ROOTFS_NAME))
		return fail(err, COPPICE_INVALID, "has a rootfs that is no directory");
	while ((entry = readdir(dir))) {
		const char *name = entry->d_name;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
			continue;
		/* The names of entries do not tell: they may have come by a link to the top. */
		if (strcmp(name, UNPACK_NAME) == 0 ||
		    (!has_rootfs && strcmp(name, ROOTFS_NAME) == 0))
			return fail(err, COPPICE_INVALID, "has '%s' at its top", name);
		if (renameat(fd, name, root_fd, name) < 0)
			return fail_errno(err, errno, "cannot put '%s' in place", name);
	}
	if (unlinkat(root_fd, UNPACK_NAME, AT_REMOVEDIR) < 0)
		return fail_errno(err, errno, "cannot put the image in place");
	return COPPICE_OK;
}

static int put_in_place(const struct walk *walk, int root_fd, struct coppice_error *err)
{
	if (walk->result->is_unified)
		return move_up(root_fd, !walk->is_metadata_only, err);
	if (renameat(root_fd, UNPACK_NAME, root_fd, ROOTFS_NAME) < 0)
		return fail_errno(err, errno, "cannot put the root file system in place");
	return COPPICE_OK;
}

static int walk_all(struct walk *walk, int root_fd, struct coppice_error *err)
{
	walk->root_fd = root_fd;
	if (root_fd >= 0 && tree_new(root_fd, UNPACK_NAME, &walk->tree, err) < 0)
		return err->code;
	if (entries_extract(walk, err) < 0 || classify(walk, err) < 0)
		return err->code;
	if (root_fd < 0)
		return COPPICE_OK;
	if (tree_finish(walk->tree, err) < 0)
		return err->code;
	return put_in_place(walk, root_fd, err);
}

int extract(struct source *source, const char *what, int root_fd, struct extraction *ret,
	    struct coppice_error *err)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	int r;

	if (!walk)
		return fail_memory(err);
	walk->source = source;
	walk->is_metadata_only = strcmp(what, UNPACK_METADATA) == 0;
	walk->is_rootfs_only = strcmp(what, UNPACK_ROOTFS) == 0;
	walk->result = ret;
	r = walk_all(walk, root_fd, err);
	tree_free(walk->tree);
	free(walk->metadata);
	free(walk);
	return r;
}
