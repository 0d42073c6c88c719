/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/fill.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "driver/generic/copy.h"

void fill_explain(struct pool *pool, const struct new_volume *volume, const char *path,
		  const char *from)
{
	_cleanup_(freep) char *line = NULL;
	const char *name = path;

	if (!pool->explain)
		return;
	/* The draft's own directory is called $draft in what was explained before. */
	for (const char *at = path; *at; at++)
		if (*at == '/')
			name = at + 1;
	line = text_format("cp -a --reflink=never %s/. \"$draft\"/%s%s%s/%s", from,
			   volume->ref.name.text, volume->is_nested ? "/snapshots/" : "",
			   volume->ref.snapshot.text, name);
	if (line)
		pool->explain(pool->explain_user, line);
}

int fill_tree(struct pool *pool, const char *path, const char *from, struct coppice_error *err)
{
	_cleanup_(closep) int from_fd = -1, to_fd = -1;
	struct tree_copied copied;

	from_fd = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (from_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", from);
	to_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (to_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	return tree_copy(&(struct tree_copy){ .from_fd = from_fd,
					      .to_fd = to_fd,
					      .no_reflink = true,
					      .is_interrupted = pool->is_interrupted,
					      .interrupted_user = pool->interrupted_user },
			 &copied, err);
}

int fill_by_copying(struct draft *draft, const struct new_volume *volume, const char *path,
		    const char *from, struct coppice_error *err)
{
	fill_explain(draft->pool, volume, path, from);
	return draft->pool->is_dry_run ? COPPICE_OK : fill_tree(draft->pool, path, from, err);
}

/* ---- block content ---- */

#define CHUNK_BYTES (1U << 20)
#define HOLE_BYTES  (1U << 16) /* no engine has smaller blocks, but for which it is worth it */

static int write_at(int fd, const char *data, size_t n, off_t at)
{
	while (n > 0) {
		ssize_t written = pwrite(fd, data, n, at);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? errno : ENOSPC;
		data += written;
		n -= (size_t)written;
		at += written;
	}
	return 0;
}

static int write_holes(int fd, const char *data, size_t n, off_t at)
{
	for (size_t i = 0; i < n; i += HOLE_BYTES) {
		size_t part = n - i < HOLE_BYTES ? n - i : HOLE_BYTES;
		int why = bytes_are_zero(data + i, part)
				  ? 0
				  : write_at(fd, data + i, part, at + (off_t)i);

		if (why)
			return why;
	}
	return 0;
}

static int copy_block(const struct pool *pool, int from_fd, int to_fd, const char *from,
		      const char *to, bool is_flushed, struct coppice_error *err)
{
	_cleanup_(freep) char *data = malloc(CHUNK_BYTES);
	off_t at = 0;
	ssize_t n;

	if (!data)
		return fail_memory(err);
	for (;;) {
		int why;

		if (pool_is_interrupted(pool))
			return fail(err, COPPICE_INTERRUPTED, "interrupted");
		n = pread(from_fd, data, CHUNK_BYTES, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(err, errno, "cannot read '%s'", from);
		if (n == 0)
			break;
		why = write_holes(to_fd, data, (size_t)n, at);
		if (why)
			return fail_errno(err, why, "cannot write '%s'", to);
		at += n;
	}
	return is_flushed && fsync(to_fd) < 0 ? fail_errno(err, errno, "cannot write '%s'", to)
					      : COPPICE_OK;
}

int fill_block(struct pool *pool, const char *path, const char *from, bool is_flushed,
	       struct coppice_error *err)
{
	_cleanup_(closep) int from_fd = -1, to_fd = -1;

	from_fd = open(from, O_RDONLY | O_CLOEXEC);
	if (from_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", from);
	to_fd = open(path, O_WRONLY | O_CLOEXEC);
	if (to_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	if (lseek(to_fd, 0, SEEK_END) < lseek(from_fd, 0, SEEK_END))
		return fail(err, COPPICE_NO_SPACE, "'%s' is larger than '%s'", from, path);
	return copy_block(pool, from_fd, to_fd, from, path, is_flushed, err);
}
