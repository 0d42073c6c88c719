/* SPDX-License-Identifier: Apache-2.0 */
/* Mounting pools before they are needed, and unmounting them. */
#include "core/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "core/instances.h"

typedef int pool_entry_fn(struct coppice *coppice, struct pool_entry *entry,
			  struct coppice_error *err);

/* Do it to the pool named, or to all, going on past those that cannot. */
static int each_pool(struct coppice *coppice, const char *name, pool_entry_fn *fn,
		     struct coppice_error *err)
{
	struct pool_entry *entry;
	struct coppice_error why;
	size_t n_failed = 0;
	int r = COPPICE_OK;

	if (name) {
		r = pools_find(coppice, name, &entry, err);
		return r < 0 ? r : fn(coppice, entry, err);
	}
	for (size_t i = 0; i < coppice->n_pools; i++) {
		int done = fn(coppice, coppice->pools[i], &why);

		if (done == COPPICE_OK)
			continue;
		notice(coppice, "%s", why.message);
		r = n_failed++ ? r : done;
	}
	return n_failed == 0 ? COPPICE_OK
			     : fail(err, (enum coppice_code)r,
				    "it could not be done to %zu of %zu pools, as the notes say",
				    n_failed, coppice->n_pools);
}

int coppice_storage_mount(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	return each_pool(coppice, name, pools_open, err);
}

static int umount_one(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	struct coppice_error ignored;
	int r;

	locks_add(&locks, LOCK_POOLS, entry->name, true);
	r = locks_take(coppice, &locks, err);
	if (r < 0 || coppice->options.is_dry_run)
		return r;
	/* Swept, that the catalog knows of all that is in it while nobody can look. */
	if (entry->driver->pool_is_mounted(&entry->spec))
		(void)pools_open(coppice, entry, &ignored);
	pool_entry_close(entry);
	r = entry->driver->pool_umount(&entry->spec, err);
	if (r == COPPICE_OK)
		return r;
	(void)fail_mounted(coppice, entry, NULL, err);
	return wrap(err, "cannot unmount pool '%s'", entry->name);
}

/* Is something mounted at this very place below the state directory? */
static bool is_mount_point(struct coppice *coppice, const char *place)
{
	struct stat here, above;

	return fstatat(coppice->root_fd, place, &here, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(coppice->root_fd, "mnt", &above, 0) == 0 && S_ISDIR(here.st_mode) &&
	       here.st_dev != above.st_dev;
}

/* What is mounted under a name that no pool has, as after its file in pools/ was removed. */
static int umount_stray(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("%s/mnt/%s", coppice->root, name);
	_cleanup_(freep) char *place = text_format("mnt/%s", name);
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	struct volume_name ignored;
	int r;

	if (!path || !place)
		return fail_memory(err);
	if (pool_name_parse(name, &ignored, err) < 0 || !is_mount_point(coppice, place))
		return COPPICE_OK;
	locks_add(&locks, LOCK_POOLS, name, true);
	r = locks_take(coppice, &locks, err);
	if (r < 0)
		return r;
	pools_done(coppice); /* another command may have made it while we waited */
	r = pools_load(coppice, err);
	if (r < 0 || pools_get(coppice, name) || coppice->options.is_dry_run)
		return r;
	if (umount2(path, UMOUNT_NOFOLLOW) < 0)
		return errno == EBUSY ? fail(err, COPPICE_BUSY, "'%s' is in use", path)
				      : fail_errno(err, errno, "cannot unmount '%s'", path);
	(void)unlinkat(coppice->root_fd, place, AT_REMOVEDIR);
	return COPPICE_OK;
}

static int umount_strays(struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int fd, r = COPPICE_OK;

	fd = openat(coppice->root_fd, "mnt", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return COPPICE_OK;
	if (fd < 0 || !(dir = fdopendir(fd))) {
		closep(&fd);
		return fail_errno(err, errno, "cannot read '%s/mnt'", coppice->root);
	}
	while (r == COPPICE_OK && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' && !pools_get(coppice, entry->d_name))
			r = umount_stray(coppice, entry->d_name, err);
	return r;
}

int coppice_storage_umount(struct coppice *coppice, const char *name, struct coppice_error *err)
{
	int r = each_pool(coppice, name, umount_one, err);
	struct coppice_error why;

	if (name || umount_strays(coppice, &why) == COPPICE_OK)
		return r;
	if (r < 0) {
		notice(coppice, "%s", why.message);
		return r;
	}
	*err = why;
	return why.code;
}
