/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/fill.h"

#include <errno.h>
#include <fcntl.h>

#include "base/text.h"
#include "driver/generic/copy.h"

static void explain(struct pool *pool, const struct new_volume *volume, const char *path,
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

int fill_by_copying(struct draft *draft, const struct new_volume *volume, const char *path,
		    const char *from, struct coppice_error *err)
{
	_cleanup_(closep) int from_fd = -1, to_fd = -1;
	struct pool *pool = draft->pool;
	struct tree_copied copied;

	explain(pool, volume, path, from);
	if (pool->is_dry_run)
		return COPPICE_OK;
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
