/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries of a tar archive.
 *
 * libarchive runs in the C locale on purpose: under UTF-8 it normalises names (e
 * and an accent become one letter) and mends what is no UTF-8. In C it keeps the
 * bytes, and warns of each name that is not ASCII; that warning is passed over.
 */
#include <archive.h>
#include <errno.h>
#include <string.h>

#include "image/unpack/source.h"
#include "image/unpack/warnings.h"

enum {
	END_BLOCK = 512
};

struct tar {
	struct source source;
	struct stream *stream;
	struct archive *archive;
	uint64_t n_entries;
	struct coppice_error stream_err; /* why the decoder stopped, if it did */
};

static struct tar *tar_of(struct source *source)
{
	return (struct tar *)source; /* its first member */
}

static la_ssize_t feed(struct archive *archive, void *user, const void **ret)
{
	struct tar *tar = user;
	size_t length = 0;

	if (stream_next(tar->stream, ret, &length, &tar->stream_err) < 0) {
		archive_set_error(archive, EIO, "%s", tar->stream_err.message);
		return ARCHIVE_FATAL;
	}
	return (la_ssize_t)length;
}

/* The decoder's error explains the tar reader's, never the other way round. */
static int fail_archive(struct tar *tar, struct coppice_error *err)
{
	const char *why = archive_error_string(tar->archive);

	if (tar->stream_err.code < 0) {
		*err = tar->stream_err;
		return err->code;
	}
	if (archive_errno(tar->archive) == ENOMEM)
		return fail_memory(err);
	if (why && strcasestr(why, "truncated"))
		return fail(err, COPPICE_INVALID, "is truncated");
	if (tar->n_entries == 0)
		return fail(err, COPPICE_INVALID,
			    stream_given_bytes(tar->stream) > 0 ? "holds no tar archive"
								: "is empty");
	return fail(err, COPPICE_INVALID, "is corrupt (%s)", why ? why : "damaged tar archive");
}

/*
 * libarchive takes a file that just stops between two entries for a whole one.
 * A whole one has at least one block of zeros there. What follows is read to the
 * end, so that its checksum is checked.
 */
static int archive_end(struct tar *tar, struct coppice_error *err)
{
	uint64_t end = (uint64_t)archive_read_header_position(tar->archive);
	const void *data;
	size_t length = 1;

	while (length > 0) {
		if (stream_next(tar->stream, &data, &length, err) < 0)
			return err->code;
	}
	if (stream_given_bytes(tar->stream) == 0)
		return fail(err, COPPICE_INVALID, "is empty");
	if (stream_given_bytes(tar->stream) < end + END_BLOCK)
		return fail(err, COPPICE_INVALID, "is truncated");
	if (tar->n_entries == 0)
		return fail(err, COPPICE_INVALID, "is an archive with nothing in it");
	return COPPICE_OK;
}

static int tar_next(struct source *source, struct archive_entry **ret, struct coppice_error *err)
{
	struct tar *tar = tar_of(source);
	struct archive_entry *entry;
	int r = archive_read_next_header(tar->archive, &entry);
	const char *why = archive_error_string(tar->archive);

	*ret = NULL;
	if (r == ARCHIVE_EOF)
		return archive_end(tar, err);
	if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
		return fail_archive(tar, err);
	if (r == ARCHIVE_WARN && !(why && strstr(why, "can't be converted")))
		warn_once(WARNING_HEADER, "'%s': %s", archive_entry_pathname(entry), why);
	tar->n_entries++;
	*ret = entry;
	return COPPICE_OK;
}

static int tar_read(struct source *source, const void **ret, size_t *ret_length,
		    uint64_t *ret_offset, struct coppice_error *err)
{
	struct tar *tar = tar_of(source);
	la_int64_t offset = 0;
	int r;

	do { /* a piece of nothing is not the end yet */
		r = archive_read_data_block(tar->archive, ret, ret_length, &offset);
	} while (r == ARCHIVE_OK && *ret_length == 0);
	if (r == ARCHIVE_EOF) {
		*ret_length = 0;
		return COPPICE_OK;
	}
	if (r != ARCHIVE_OK)
		return fail_archive(tar, err);
	*ret_offset = (uint64_t)offset; /* a negative one is beyond any file's size */
	return COPPICE_OK;
}

static void tar_free(struct source *source)
{
	struct tar *tar = tar_of(source);

	(void)archive_read_free(tar->archive);
	free(tar);
}

int tar_source_new(struct stream *stream, struct source **ret, struct coppice_error *err)
{
	_cleanup_(source_freep) struct source *source = NULL;
	struct tar *tar = calloc(1, sizeof(*tar));

	if (!tar)
		return fail_memory(err);
	tar->source = (struct source){ .next = tar_next, .read = tar_read, .free = tar_free };
	tar->stream = stream;
	source = &tar->source;
	tar->archive = archive_read_new();
	if (!tar->archive || archive_read_support_format_tar(tar->archive) != ARCHIVE_OK)
		return fail_memory(err);
	if (archive_read_open(tar->archive, tar, NULL, feed, NULL) != ARCHIVE_OK)
		return fail_archive(tar, err);
	*ret = take_ptr(&source);
	return COPPICE_OK;
}
