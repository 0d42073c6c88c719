/* SPDX-License-Identifier: Apache-2.0 */
/* Never leaving out in silence what was made within an instance: nested subvolumes. */
#include "core/instances.h"

#include <string.h>

#include "base/text.h"

#define NAMED_MAX 5 /* in one line for people */

struct paths {
	char **path;
	size_t n;
};

static void paths_done(struct paths *paths)
{
	for (size_t i = 0; i < paths->n; i++)
		free(paths->path[i]);
	free(paths->path);
}

/* As the container sees it: what is in rootfs/ is below "/". */
static int add_path(void *user, const char *path, struct coppice_error *err)
{
	struct paths *paths = user;
	char **more = reallocarray(paths->path, paths->n + 1, sizeof(*more));

	if (!more)
		return fail_memory(err);
	paths->path = more;
	more[paths->n] = strncmp(path, "rootfs/", 7) == 0 ? strdup(path + 6) : strdup(path);
	if (!more[paths->n])
		return fail_memory(err);
	paths->n++;
	return COPPICE_OK;
}

static int find_paths(struct pool_entry *entry, const struct volume_ref *ref, struct paths *paths,
		      struct coppice_error *err)
{
	if (!entry->driver->nested)
		return COPPICE_OK;
	return entry->driver->nested(entry->pool, ref, add_path, paths, err);
}

int nested_list(struct pool_entry *entry, const struct volume_ref *ref, char ***ret, size_t *ret_n,
		struct coppice_error *err)
{
	_cleanup_(paths_done) struct paths paths = { 0 };
	int r = find_paths(entry, ref, &paths, err);

	if (r < 0)
		return r;
	*ret = take_ptr(&paths.path);
	*ret_n = paths.n;
	paths.n = 0;
	return COPPICE_OK;
}

int refuse_nested(struct pool_entry *entry, const struct volume_ref *ref, enum nested_fate fate,
		  unsigned may_lose, char **ret_note, struct coppice_error *err)
{
	const char *becomes = fate == NESTED_DESTROYED ? "destroyed" : "left out";
	_cleanup_(paths_done) struct paths paths = { 0 };
	_cleanup_(text_done) struct text names = TEXT_INIT;
	int r = find_paths(entry, ref, &paths, err);

	if (r < 0 || paths.n == 0)
		return r;
	for (size_t i = 0; i < paths.n && i < NAMED_MAX; i++)
		text_add(&names, "%s'%s'", i ? ", " : "", paths.path[i]);
	if (paths.n > NAMED_MAX)
		text_add(&names, " and %zu more", paths.n - NAMED_MAX);
	if (!names.data)
		return fail_memory(err);
	if (!(may_lose & COPPICE_LOSE_NESTED))
		return fail(
			err, COPPICE_UNSUPPORTED,
			"'%s' has subvolumes within it that would be %s: %s; --skip-nested goes on "
			"without them",
			ref->name.text, becomes, names.data);
	*ret_note = text_format("subvolumes within '%s' are %s: %s", ref->name.text, becomes,
				names.data);
	return *ret_note ? COPPICE_OK : fail_memory(err);
}

void nested_tell(struct coppice *coppice, const char *note)
{
	if (note)
		notice(coppice, "%s", note);
}
