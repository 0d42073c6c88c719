/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries of a squashfs, by libsquashfs: directories before what is in them, in the
 * order that they are stored in. The kernel never mounts it.
 *
 * A squashfs is a graph of whatever its maker likes. So a directory is entered once
 * (else a few would make a loop, or a tree without end), and a name is one name.
 */
#include <limits.h>
#include <string.h>
#include <sqfs/compressor.h>
#include <sqfs/data_reader.h>
#include <sqfs/dir.h>
#include <sqfs/dir_reader.h>
#include <sqfs/error.h>
#include <sqfs/id_table.h>
#include <sqfs/inode.h>
#include <sqfs/io.h>
#include <sqfs/block.h>
#include <sqfs/super.h>
#include <sqfs/xattr.h>
#include <sqfs/xattr_reader.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/text.h"
#include "image/links.h"
#include "image/unpack/source.h"

enum {
	PERMISSIONS = 07777,
	XATTRS_MAX = 1024, /* of one entry; the kernel has room for fewer */
	NO_XATTRS = -1
};

/* The file, as libsquashfs wants it. */
struct input {
	sqfs_file_t file;
	int fd;
};

struct node {
	char *name;
	sqfs_inode_generic_t *inode;
};

/* A directory whose entries are being given. */
struct level {
	struct node *node;
	size_t n, at;
	size_t path_length; /* of the directory itself */
};

struct squash {
	struct source source;
	struct input input;
	uint64_t memory_limit_bytes;
	sqfs_super_t super;
	sqfs_compressor_t *compressor;
	sqfs_id_table_t *ids;
	sqfs_dir_reader_t *directories;
	sqfs_data_reader_t *data;
	sqfs_xattr_reader_t *xattrs;
	struct archive_entry *entry;
	sqfs_inode_generic_t *inode; /* of the entry; owned */
	bool is_begun;
	size_t block, n_blocks; /* of its content: the next, and how many */
	uint64_t size;
	sqfs_u8 *piece; /* the last that was given; owned */
	struct links files, entered;
	size_t n_levels, capacity;
	struct level *level;
	char path[PATH_MAX];
};

static struct squash *squash_of(struct source *source)
{
	return (struct squash *)source; /* its first member */
}

/* ---- the file ---- */

static int input_read_at(sqfs_file_t *file, sqfs_u64 offset, void *buffer, size_t size)
{
	const struct input *input = (const struct input *)file;
	char *at = buffer;

	while (size > 0) {
		ssize_t n = offset > INT64_MAX ? 0 : pread(input->fd, at, size, (off_t)offset);

		if (n < 0)
			return SQFS_ERROR_IO;
		if (n == 0)
			return SQFS_ERROR_OUT_OF_BOUNDS;
		at += n;
		size -= (size_t)n;
		offset += (sqfs_u64)n;
	}
	return 0;
}

static int input_write_at(sqfs_file_t *file, sqfs_u64 offset, const void *buffer, size_t size)
{
	return SQFS_ERROR_IO;
}

static int input_truncate(sqfs_file_t *file, sqfs_u64 size)
{
	return SQFS_ERROR_IO;
}

static sqfs_u64 input_size(const sqfs_file_t *file)
{
	struct stat st;

	return fstat(((const struct input *)file)->fd, &st) < 0 ? 0 : (sqfs_u64)st.st_size;
}

static void input_destroy(sqfs_object_t *object)
{
}

/* ---- errors ---- */

static int fail_squash(const struct squash *squash, int code, struct coppice_error *err)
{
	char limit[SIZE_TEXT_MAX];

	if (code == SQFS_ERROR_IO)
		return fail(err, COPPICE_FAILED, "cannot read it");
	if (code == SQFS_ERROR_ALLOC) {
		size_format(squash->memory_limit_bytes, limit);
		return fail(err, COPPICE_INVALID,
			    "needs more memory to be read than the limit of %s (--memory-limit)",
			    limit);
	}
	return fail(err, COPPICE_INVALID, "is corrupt (damaged squashfs)");
}

/* ---- opening ---- */

static int compressor_open(struct squash *squash, struct coppice_error *err)
{
	const char *name = sqfs_compressor_name_from_id(squash->super.compression_id);
	sqfs_compressor_config_t config;
	int r;

	r = sqfs_compressor_config_init(&config, squash->super.compression_id,
					squash->super.block_size, SQFS_COMP_FLAG_UNCOMPRESS);
	if (r == 0)
		r = sqfs_compressor_create(&config, &squash->compressor);
	if (r == SQFS_ERROR_UNSUPPORTED)
		return fail(err, COPPICE_UNSUPPORTED,
			    "it is compressed by %s, which is not supported",
			    name ? name : "an unknown method");
	if (r == 0 && squash->super.flags & SQFS_FLAG_COMPRESSOR_OPTIONS)
		r = squash->compressor->read_options(squash->compressor, &squash->input.file);
	return r == 0 ? COPPICE_OK : fail_squash(squash, r, err);
}

static int super_read(struct squash *squash, struct coppice_error *err)
{
	int r = sqfs_super_read(&squash->super, &squash->input.file);

	if (r == SQFS_ERROR_OUT_OF_BOUNDS)
		return fail(err, COPPICE_INVALID, "is truncated");
	if (r != 0)
		return fail_squash(squash, r, err);
	if (squash->super.bytes_used > input_size(&squash->input.file))
		return fail(err, COPPICE_INVALID, "is truncated");
	return COPPICE_OK;
}

static int readers_open(struct squash *squash, struct coppice_error *err)
{
	sqfs_file_t *file = &squash->input.file;
	const sqfs_super_t *super = &squash->super;
	int r;

	squash->ids = sqfs_id_table_create(0);
	squash->directories = sqfs_dir_reader_create(super, squash->compressor, file, 0);
	squash->data = sqfs_data_reader_create(file, super->block_size, squash->compressor, 0);
	if (!squash->ids || !squash->directories || !squash->data)
		return fail_memory(err);
	r = sqfs_id_table_read(squash->ids, file, super, squash->compressor);
	if (r == 0)
		r = sqfs_data_reader_load_fragment_table(squash->data, super);
	if (r == 0 && !(super->flags & SQFS_FLAG_NO_XATTRS)) {
		squash->xattrs = sqfs_xattr_reader_create(0);
		r = squash->xattrs ? sqfs_xattr_reader_load(squash->xattrs, super, file,
							    squash->compressor)
				   : SQFS_ERROR_ALLOC;
	}
	return r == 0 ? COPPICE_OK : fail_squash(squash, r, err);
}

/* ---- what an inode says ---- */

struct inode_facts {
	mode_t type;
	uint32_t n_links;
	uint32_t device;
};

static struct inode_facts facts_of(const sqfs_inode_generic_t *inode)
{
	switch ((SQFS_INODE_TYPE)inode->base.type) {
	case SQFS_INODE_DIR:
	case SQFS_INODE_EXT_DIR:
		return (struct inode_facts){ S_IFDIR, 1, 0 };
	case SQFS_INODE_FILE:
		return (struct inode_facts){ S_IFREG, 1, 0 };
	case SQFS_INODE_EXT_FILE:
		return (struct inode_facts){ S_IFREG, inode->data.file_ext.nlink, 0 };
	case SQFS_INODE_SLINK:
	case SQFS_INODE_EXT_SLINK:
		return (struct inode_facts){ S_IFLNK, inode->data.slink.nlink, 0 };
	case SQFS_INODE_BDEV:
	case SQFS_INODE_EXT_BDEV:
		return (struct inode_facts){ S_IFBLK, inode->data.dev.nlink,
					     inode->data.dev.devno };
	case SQFS_INODE_CDEV:
	case SQFS_INODE_EXT_CDEV:
		return (struct inode_facts){ S_IFCHR, inode->data.dev.nlink,
					     inode->data.dev.devno };
	case SQFS_INODE_FIFO:
	case SQFS_INODE_EXT_FIFO:
		return (struct inode_facts){ S_IFIFO, inode->data.ipc.nlink, 0 };
	case SQFS_INODE_SOCKET:
	case SQFS_INODE_EXT_SOCKET:
		break;
	}
	return (struct inode_facts){ S_IFSOCK, 1, 0 };
}

/* As the kernel packs it into 32 bits: twelve of the major number amid the minor's. */
static dev_t device_of(uint32_t packed)
{
	return makedev((packed >> 8) & 0xfff, (packed & 0xff) | ((packed >> 12) & 0xfff00));
}

static int owner_of(struct squash *squash, struct coppice_error *err)
{
	sqfs_u32 uid, gid;
	int r = sqfs_id_table_index_to_id(squash->ids, squash->inode->base.uid_idx, &uid);

	if (r == 0)
		r = sqfs_id_table_index_to_id(squash->ids, squash->inode->base.gid_idx, &gid);
	if (r != 0)
		return fail_squash(squash, r, err);
	archive_entry_set_uid(squash->entry, uid);
	archive_entry_set_gid(squash->entry, gid);
	return COPPICE_OK;
}

static int add_xattr(struct squash *squash)
{
	sqfs_xattr_entry_t *key = NULL;
	sqfs_xattr_value_t *value = NULL;
	int r = sqfs_xattr_reader_read_key(squash->xattrs, &key);

	if (r == 0)
		r = sqfs_xattr_reader_read_value(squash->xattrs, key, &value);
	if (r == 0)
		archive_entry_xattr_add_entry(squash->entry, (const char *)key->key, value->value,
					      value->size);
	sqfs_free(key);
	sqfs_free(value);
	return r;
}

static int add_xattrs(struct squash *squash, struct coppice_error *err)
{
	sqfs_xattr_id_t description;
	sqfs_u32 index;
	int r = sqfs_inode_get_xattr_index(squash->inode, &index);

	if (r == 0 && (index == (sqfs_u32)NO_XATTRS || !squash->xattrs))
		return COPPICE_OK;
	if (r == 0)
		r = sqfs_xattr_reader_get_desc(squash->xattrs, index, &description);
	if (r == 0 && description.count > XATTRS_MAX)
		return fail(err, COPPICE_INVALID, "has too many attributes for '%s'", squash->path);
	if (r == 0 && description.count > 0)
		r = sqfs_xattr_reader_seek_kv(squash->xattrs, &description);
	for (sqfs_u32 i = 0; i < description.count && r == 0; i++)
		r = add_xattr(squash);
	return r == 0 ? COPPICE_OK : fail_squash(squash, r, err);
}

/* A later name of a file is told as a link to the first. */
static int note_link(struct squash *squash, const struct inode_facts *facts,
		     struct coppice_error *err)
{
	struct stat st = { .st_ino = squash->inode->base.inode_number };
	const char *first = NULL;

	if (facts->n_links < 2 || facts->type == S_IFDIR)
		return COPPICE_OK;
	if (links_note(&squash->files, &st, squash->path, &first, err) < 0)
		return err->code;
	if (first)
		archive_entry_set_hardlink(squash->entry, first);
	return COPPICE_OK;
}

static int note_content(struct squash *squash, struct coppice_error *err)
{
	sqfs_u64 size;
	int r = sqfs_inode_get_file_size(squash->inode, &size);

	if (r != 0)
		return fail_squash(squash, r, err);
	squash->block = 0;
	squash->n_blocks = sqfs_inode_get_file_block_count(squash->inode);
	squash->size = size;
	archive_entry_set_size(squash->entry, (la_int64_t)(size & INT64_MAX));
	return size > INT64_MAX ? fail_squash(squash, SQFS_ERROR_CORRUPTED, err) : COPPICE_OK;
}

static int describe(struct squash *squash, struct coppice_error *err)
{
	struct inode_facts facts = facts_of(squash->inode);
	struct archive_entry *entry = archive_entry_clear(squash->entry);

	archive_entry_set_pathname(entry, squash->path);
	archive_entry_set_mode(entry, facts.type | (squash->inode->base.mode & PERMISSIONS));
	archive_entry_set_mtime(entry, squash->inode->base.mod_time, 0);
	if (facts.type == S_IFLNK)
		archive_entry_set_symlink(entry, (const char *)squash->inode->extra);
	if (facts.type == S_IFCHR || facts.type == S_IFBLK)
		archive_entry_set_rdev(entry, device_of(facts.device));
	if (facts.type == S_IFREG && note_content(squash, err) < 0)
		return err->code;
	if (owner_of(squash, err) < 0 || note_link(squash, &facts, err) < 0)
		return err->code;
	return archive_entry_hardlink(entry) ? COPPICE_OK : add_xattrs(squash, err);
}

/* ---- directories ---- */

static void level_done(struct level *level)
{
	for (size_t i = 0; i < level->n; i++) {
		free(level->node[i].name);
		sqfs_free(level->node[i].inode);
	}
	free(level->node);
	*level = (struct level){ 0 };
}

static bool is_name(const char *name, size_t length)
{
	if (length == 0 || memchr(name, '/', length) || memchr(name, '\0', length))
		return false;
	return !(name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')));
}

static int level_add(struct squash *squash, struct level *level, const sqfs_dir_entry_t *entry,
		     struct coppice_error *err)
{
	size_t length = (size_t)entry->size + 1; /* it is stored so */
	struct node *more;
	int r;

	if (!is_name((const char *)entry->name, length))
		return fail(err, COPPICE_INVALID, "has the impossible name '%.*s' in '%s'",
			    (int)length, (const char *)entry->name, squash->path);
	if ((level->n & (level->n - 1)) == 0) { /* full at each power of two */
		more = reallocarray(level->node, level->n ? 2 * level->n : 1, sizeof(*more));
		if (!more)
			return fail_squash(squash, SQFS_ERROR_ALLOC, err);
		level->node = more;
	}
	level->node[level->n] = (struct node){ strndup((const char *)entry->name, length), NULL };
	if (!level->node[level->n++].name)
		return fail_squash(squash, SQFS_ERROR_ALLOC, err);
	r = sqfs_dir_reader_get_inode(squash->directories, &level->node[level->n - 1].inode);
	return r == 0 ? COPPICE_OK : fail_squash(squash, r, err);
}

static int level_fill(struct squash *squash, struct level *level, struct coppice_error *err)
{
	int r = sqfs_dir_reader_open_dir(squash->directories, squash->inode, 0);

	while (r == 0) {
		sqfs_dir_entry_t *entry = NULL;

		r = sqfs_dir_reader_read(squash->directories, &entry);
		if (r == 0 && level_add(squash, level, entry, err) < 0) {
			sqfs_free(entry);
			return err->code;
		}
		sqfs_free(entry);
	}
	return r > 0 ? COPPICE_OK : fail_squash(squash, r, err); /* 1 is the end */
}

/* Go into the directory that was the last entry. */
static int enter(struct squash *squash, struct coppice_error *err)
{
	struct stat st = { .st_ino = squash->inode->base.inode_number };
	const char *before = NULL;

	if (links_note(&squash->entered, &st, squash->path, &before, err) < 0)
		return err->code;
	if (before)
		return fail(err, COPPICE_INVALID, "has '%s' once more as '%s'", before,
			    squash->path);
	if (squash->n_levels == squash->capacity) {
		size_t capacity = squash->capacity ? 2 * squash->capacity : 32;
		struct level *more = reallocarray(squash->level, capacity, sizeof(*more));

		if (!more)
			return fail_memory(err);
		squash->level = more;
		squash->capacity = capacity;
	}
	squash->level[squash->n_levels] = (struct level){ .path_length = strlen(squash->path) };
	return level_fill(squash, &squash->level[squash->n_levels++], err);
}

/* The path and inode of the next entry; none are left when squash->inode is NULL. */
static int advance(struct squash *squash, struct coppice_error *err)
{
	struct level *level;
	struct node *node;

	while (squash->n_levels > 0 &&
	       squash->level[squash->n_levels - 1].at == squash->level[squash->n_levels - 1].n)
		level_done(&squash->level[--squash->n_levels]);
	sqfs_free(squash->inode);
	squash->inode = NULL;
	if (squash->n_levels == 0)
		return COPPICE_OK;
	level = &squash->level[squash->n_levels - 1];
	node = &level->node[level->at++];
	squash->path[level->path_length] = '\0';
	if (level->path_length + strlen(node->name) + 2 > sizeof(squash->path))
		return fail(err, COPPICE_INVALID, "has a path that is too long: '%.100s…'",
			    squash->path);
	(void)snprintf(squash->path + level->path_length, sizeof(squash->path) - level->path_length,
		       "/%s", node->name);
	squash->inode = take_ptr(&node->inode);
	return COPPICE_OK;
}

static int begin(struct squash *squash, struct coppice_error *err)
{
	int r = sqfs_dir_reader_get_root_inode(squash->directories, &squash->inode);

	if (r != 0)
		return fail_squash(squash, r, err);
	squash->is_begun = true;
	squash->path[0] = '.';
	return COPPICE_OK;
}

static int squash_next(struct source *source, struct archive_entry **ret, struct coppice_error *err)
{
	struct squash *squash = squash_of(source);
	int r = COPPICE_OK;

	*ret = NULL;
	if (!squash->is_begun) {
		r = begin(squash, err);
	} else {
		if (facts_of(squash->inode).type == S_IFDIR)
			r = enter(squash, err);
		if (r == COPPICE_OK)
			r = advance(squash, err);
	}
	if (r < 0 || !squash->inode)
		return r;
	*ret = squash->entry;
	return describe(squash, err);
}

/* ---- content ---- */

static bool is_hole(const struct squash *squash, size_t block)
{
	return SQFS_IS_SPARSE_BLOCK(squash->inode->extra[block]);
}

/* Whole blocks, and then what is left of the file, which shares a block with others'. */
static int squash_read(struct source *source, const void **ret, size_t *ret_length,
		       uint64_t *ret_offset, struct coppice_error *err)
{
	struct squash *squash = squash_of(source);
	int r;

	sqfs_free(squash->piece);
	squash->piece = NULL;
	*ret_length = 0;
	while (squash->block < squash->n_blocks && is_hole(squash, squash->block))
		squash->block++;
	*ret_offset = (uint64_t)squash->block * squash->super.block_size;
	if (squash->block > squash->n_blocks || *ret_offset >= squash->size)
		return COPPICE_OK;
	if (squash->block < squash->n_blocks)
		r = sqfs_data_reader_get_block(squash->data, squash->inode, squash->block,
					       ret_length, &squash->piece);
	else
		r = sqfs_data_reader_get_fragment(squash->data, squash->inode, ret_length,
						  &squash->piece);
	if (r != 0)
		return fail_squash(squash, r, err);
	squash->block++;
	*ret = squash->piece;
	return COPPICE_OK;
}

static void squash_free(struct source *source)
{
	struct squash *squash = squash_of(source);

	while (squash->n_levels > 0)
		level_done(&squash->level[--squash->n_levels]);
	free(squash->level);
	links_done(&squash->files);
	links_done(&squash->entered);
	sqfs_free(squash->inode);
	sqfs_free(squash->piece);
	archive_entry_free(squash->entry);
	sqfs_destroy(squash->xattrs);
	sqfs_destroy(squash->data);
	sqfs_destroy(squash->directories);
	sqfs_destroy(squash->ids);
	sqfs_destroy(squash->compressor);
	free(squash);
}

int squash_source_new(int fd, uint64_t memory_limit_bytes, struct source **ret,
		      struct coppice_error *err)
{
	_cleanup_(source_freep) struct source *source = NULL;
	struct squash *squash = calloc(1, sizeof(*squash));

	if (!squash)
		return fail_memory(err);
	squash->source = (struct source){ squash_next, squash_read, squash_free };
	squash->input = (struct input){
		.file = { .base = { .destroy = input_destroy },
			  .read_at = input_read_at,
			  .write_at = input_write_at,
			  .get_size = input_size,
			  .truncate = input_truncate },
		.fd = fd,
	};
	squash->memory_limit_bytes = memory_limit_bytes;
	source = &squash->source;
	squash->entry = archive_entry_new();
	if (!squash->entry)
		return fail_memory(err);
	if (super_read(squash, err) < 0 || compressor_open(squash, err) < 0 ||
	    readers_open(squash, err) < 0)
		return err->code;
	*ret = take_ptr(&source);
	return COPPICE_OK;
}
