/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/dir/limits.h"

#include <errno.h>
#include <fcntl.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/generic/limit.h"
#include "driver/generic/walk.h"

int limits_can(struct pool *pool, struct coppice_error *err)
{
	const struct dir_pool *dir = dir_pool_of(pool);

	if (dir->projects.can_limit)
		return COPPICE_OK;
	return fail(err, COPPICE_UNSUPPORTED, "size cannot be limited: %s", dir->projects.problem);
}

int limits_used(struct dir_pool *dir, int fd, uint64_t *ret, struct coppice_error *err)
{
	struct tree_count count = {
		.is_interrupted = dir->layout.pool.is_interrupted,
		.interrupted_user = dir->layout.pool.interrupted_user,
	};
	struct project_use use = { 0 };
	uint32_t project = 0;
	int r = COPPICE_OK;

	if (dir->projects.can_count)
		r = project_of(fd, &project, err);
	if (r == COPPICE_OK && project)
		r = project_read(fd, project, &use, err);
	else if (r == COPPICE_OK)
		r = tree_usage(fd, &count, err);
	if (r == COPPICE_OK)
		*ret = project ? use.used_bytes : count.allocated_bytes;
	return r;
}

int limits_begin(struct dir_pool *dir, int fd, const struct new_volume *volume,
		 struct coppice_error *err)
{
	uint32_t project;
	uint64_t used;
	int r;

	if (volume->limit_bytes == 0)
		return COPPICE_OK;
	r = limits_used(dir, fd, &used, err);
	if (r == COPPICE_OK)
		r = limit_check(volume->ref.name.text, volume->limit_bytes, "it has", used, err);
	if (r == COPPICE_OK)
		r = project_of(fd, &project, err);
	return r < 0 ? r : project_limit(fd, project, volume->limit_bytes, err);
}

void limits_explain_project(struct dir_pool *dir, const char *path)
{
	if (!dir->projects.can_count)
		return;
	layout_explain(&dir->layout, "project=$(shuf -n 1 -i 1073741824-2147483647)");
	layout_explain(&dir->layout, "chattr +P -p \"$project\" %s", path);
}

void limits_explain(struct dir_pool *dir, uint64_t limit_bytes)
{
	layout_explain(&dir->layout,
		       "xfs_quota -x -f -c \"limit -p bhard=%lluk $project\" \"$(stat -c %%m %s)\"",
		       (unsigned long long)(limit_bytes + 1023) / 1024, dir->layout.quoted);
}

int limits_check(struct dir_pool *dir, int origin_fd, const struct new_volume *volumes, size_t n,
		 struct coppice_error *err)
{
	uint64_t used = 0;
	bool is_known = false;
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		if (volumes[i].limit_bytes == 0)
			continue;
		if (!is_known)
			r = limits_used(dir, origin_fd, &used, err);
		is_known = true;
		if (r == COPPICE_OK)
			r = limit_check(volumes[i].ref.name.text, volumes[i].limit_bytes, "it has",
					used, err);
	}
	return r;
}

/* A tree of before the file system kept accounts: every file gets the number. */
static void assign_tree_explain(struct dir_pool *dir, const struct volume_ref *ref)
{
	char path[PATH_MAX];

	layout_explain(&dir->layout, "project=$(shuf -n 1 -i 1073741824-2147483647)");
	layout_explain(&dir->layout,
		       "find %s/%s/live -xdev \\( -type f -o -type d \\) -exec chattr -p "
		       "\"$project\" {} +",
		       dir->layout.quoted, layout_ref_path(ref, path));
	layout_explain(&dir->layout, "find %s/%s/live -xdev -type d -exec chattr +P {} +",
		       dir->layout.quoted, layout_ref_path(ref, path));
}

int limits_set(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
	       uint64_t limit_bytes, unsigned how, struct coppice_error *err)
{
	struct dir_pool *dir = dir_pool_of(pool);
	_cleanup_(closep) int fd = -1;
	uint32_t project = 0;
	char path[PATH_MAX];
	uint64_t bytes;
	int r;

	if (!dir->projects.can_limit)
		return limit_bytes ? limits_can(pool, err) : COPPICE_OK;
	r = dir_open_live(&dir->layout, ref, &fd, err);
	if (r == COPPICE_OK)
		r = project_of(fd, &project, err);
	if (r == COPPICE_OK && limit_bytes)
		r = limits_used(dir, fd, &bytes, err);
	if (r == COPPICE_OK && limit_bytes)
		r = limit_check(ref->name.text, limit_bytes, "it has", bytes, err);
	if (r < 0 || (!project && !limit_bytes))
		return r;
	if (project)
		layout_explain(&dir->layout, "read -r project _ < <(lsattr -pd %s/%s/live)",
			       dir->layout.quoted, layout_ref_path(ref, path));
	else
		assign_tree_explain(dir, ref);
	limits_explain(dir, limit_bytes);
	if (pool->is_dry_run)
		return COPPICE_OK;
	if (!project) {
		r = project_assign_tree(pool, fd, group, err);
		if (r == COPPICE_OK)
			r = project_of(fd, &project, err);
	}
	if (r == COPPICE_OK)
		r = project_limit(fd, project, limit_bytes, err);
	return r < 0 ? r : dir_sync(fd, err);
}

int limits_get(int fd, uint64_t *ret, struct coppice_error *err)
{
	struct project_use use = { 0 };
	uint32_t project;
	int r = project_of(fd, &project, err);

	if (r == COPPICE_OK && project)
		r = project_read(fd, project, &use, err);
	if (r == COPPICE_OK)
		*ret = use.limit_bytes;
	return r;
}

int limits_put(int fd, uint64_t limit_bytes, struct coppice_error *err)
{
	uint32_t project;
	int r = project_of(fd, &project, err);

	if (r == COPPICE_OK)
		r = project_limit(fd, project, limit_bytes, err);
	return r < 0 ? r : dir_sync(fd, err);
}

int limits_end(struct dir_pool *dir, int dir_fd, const char *name, struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	uint64_t limit_bytes = 0;
	uint32_t project = 0;
	int r;

	if (!dir->projects.can_count)
		return COPPICE_OK;
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
		return COPPICE_OK;
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", name);
	r = limits_get(fd, &limit_bytes, err);
	if (r < 0 || limit_bytes == 0)
		return r;
	r = project_of(fd, &project, err);
	return r < 0 ? r : project_limit(fd, project, 0, err);
}

void limits_explain_end(struct dir_pool *dir, const char *path)
{
	if (!dir->projects.can_limit)
		return;
	layout_explain(&dir->layout, "read -r project _ < <(lsattr -pd %s)", path);
	layout_explain(&dir->layout,
		       "[ \"$project\" -lt 1073741824 ] || xfs_quota -x -f -c \"limit -p "
		       "bhard=0 $project\" \"$(stat -c %%m %s)\"",
		       dir->layout.quoted);
}
