/* SPDX-License-Identifier: Apache-2.0 */
/* Importing: an image is read once, and kept, hashed and unpacked meanwhile. */
#include "core/unpacking.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "core/image_store.h"

struct importing {
	struct unpacking unpacking;
	struct store_file store, rootfs_store;
	struct image_record record;
	struct locks pool_locks, image_locks;
	int in_fd, rootfs_fd;
};

static void importing_done(struct importing *importing)
{
	unpacking_done(&importing->unpacking);
	store_abort(importing->unpacking.coppice, &importing->store);
	store_abort(importing->unpacking.coppice, &importing->rootfs_store);
	image_record_done(&importing->record);
	locks_done(&importing->image_locks);
	locks_done(&importing->pool_locks);
	closep(&importing->rootfs_fd);
	if (importing->in_fd > 0)
		closep(&importing->in_fd);
}

static int check_request(struct coppice *coppice, const struct coppice_import *import,
			 struct coppice_error *err)
{
	struct volume_name ignored;
	int r = images_refresh(coppice, err);

	if (r == COPPICE_OK && import->fingerprint)
		r = fingerprint_parse(import->fingerprint, &ignored, err);
	for (size_t i = 0; i < import->n_aliases && r == COPPICE_OK; i++)
		r = alias_must_not_exist(coppice, import->aliases[i], err);
	for (size_t i = 0; i < import->n_properties && r == COPPICE_OK; i++)
		if (!import->properties[i].key[0])
			r = fail(err, COPPICE_INVALID, "a property has no name");
	return r;
}

static int open_file(const char *path, int *ret_fd, uint64_t *ret_size, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return fail_errno(err, errno, "cannot open image '%s'", path);
	if (fstat(fd, &st) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", path);
	*ret_size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	*ret_fd = fd;
	fd = -1;
	return COPPICE_OK;
}

/* *ret_size: 0 when it cannot be known. */
static int open_input(const struct coppice_import *import, struct importing *importing,
		      uint64_t *ret_size, struct coppice_error *err)
{
	uint64_t rootfs_size;
	int r;

	*ret_size = 0;
	if (strcmp(import->path, "-") == 0) {
		importing->in_fd = STDIN_FILENO;
		return COPPICE_OK;
	}
	r = open_file(import->path, &importing->in_fd, ret_size, err);
	if (r < 0 || !import->rootfs_path)
		return r;
	r = open_file(import->rootfs_path, &importing->rootfs_fd, &rootfs_size, err);
	*ret_size = *ret_size > 0 && rootfs_size > 0 ? *ret_size + rootfs_size : 0;
	return r;
}

/* The last part of a path; nothing of "-". A directory may end with slashes. free() it. */
static char *base_name(const char *path)
{
	size_t length = strcmp(path, "-") == 0 ? 0 : strlen(path), begin;

	while (length > 1 && path[length - 1] == '/')
		length--;
	for (begin = length; begin > 0 && path[begin - 1] != '/';)
		begin--;
	return strndup(path + begin, length - begin);
}

/* What the image says of itself, and what was said with it. */
static int describe_image(const struct coppice_import *import, struct importing *importing,
			  struct coppice_error *err)
{
	const struct image_info *info = &importing->unpacking.info;
	struct image_record *record = &importing->record;
	_cleanup_(freep) char *file = base_name(import->path);
	const char *description = info->description ? info->description : file;
	int r;

	if (!file)
		return fail_memory(err);

	record->size_bytes = info->size_bytes;
	record->rootfs_size_bytes = info->rootfs_size_bytes;
	record->created_ns = info->created_ns;
	record->imported_ns = now_ns();
	r = settings_copy(&record->properties, &info->properties, err);
	for (size_t i = 0; i < import->n_properties && r == COPPICE_OK; i++)
		r = settings_put(&record->properties, import->properties[i].key,
				 import->properties[i].value, err);
	for (size_t i = 0; i < import->n_aliases && r == COPPICE_OK; i++)
		r = image_record_add_alias(record, import->aliases[i], err);
	if (r < 0)
		return r;
	if (settings_get(&record->properties, "description"))
		description = settings_get(&record->properties, "description");
	record->description = strdup(description);
	record->architecture = strdup(info->architecture ? info->architecture : "");
	record->file_name = take_ptr(&file);
	if (!record->description || !record->architecture || !record->file_name)
		return fail_memory(err);
	return COPPICE_OK;
}

/* The fingerprint is known: may there be such an image, under these names? */
static int lock_and_check(struct coppice *coppice, const struct coppice_import *import,
			  struct importing *importing, struct coppice_error *err)
{
	const char *fingerprint = importing->unpacking.info.fingerprint;
	_cleanup_(image_record_done) struct image_record known = { 0 };
	struct coppice_error ignored;
	bool has_bytes = false;
	int r;

	if (import->fingerprint && strcmp(import->fingerprint, fingerprint) != 0)
		return fail(err, COPPICE_INVALID,
			    "'%s' has fingerprint %s, not %s as was asked for", import->path,
			    fingerprint, import->fingerprint);
	locks_add(&importing->image_locks, LOCK_IMAGES, fingerprint, true);
	locks_add(&importing->image_locks, LOCK_ALIASES, "", true);
	r = locks_take(coppice, &importing->image_locks, err);
	if (r == COPPICE_OK)
		r = check_request(coppice, import, err);
	if (r == COPPICE_OK &&
	    image_record_of(coppice, fingerprint, &has_bytes, &known, &ignored) == COPPICE_OK &&
	    has_bytes)
		r = fail(err, COPPICE_EXISTS, "'%s' is imported already, as image %s", import->path,
			 fingerprint);
	return r;
}

/* The image exists from the moment its record is beside its bytes. */
static int keep(struct coppice *coppice, struct importing *importing, struct coppice_error *err)
{
	struct unpacking *unpacking = &importing->unpacking;
	bool was_unpacked;
	int r;

	r = image_is_unpacked(unpacking->entry, &unpacking->makings.making[0].volume.ref.name,
			      &was_unpacked, err);
	if (r < 0 || coppice->options.is_dry_run)
		return r;
	r = store_commit(coppice, &importing->store, &importing->rootfs_store,
			 unpacking->info.fingerprint, &importing->record, err);
	/* A pool that was taken over may have its tree already. */
	if (r == COPPICE_OK && !was_unpacked) {
		r = unpacking_publish(unpacking, err);
		if (r < 0) {
			struct coppice_error ignored;

			(void)store_delete(coppice, unpacking->info.fingerprint, &ignored);
		}
	}
	if (r == COPPICE_OK)
		images_catch_up(coppice);
	return r;
}

static int import_into(struct coppice *coppice, const struct coppice_import *import,
		       struct importing *importing, struct coppice_error *err)
{
	struct unpacking *unpacking = &importing->unpacking;
	struct image_files files = { .path = import->path, .rootfs = import->rootfs_path };
	struct image_read how = { .name = import->path, .store_fd = -1 };
	bool is_standard_input = strcmp(import->path, "-") == 0;
	struct image_rootfs rootfs = { .name = import->rootfs_path };
	bool is_split = import->rootfs_path != NULL;
	int r;

	r = open_input(import, importing, &how.total_bytes, err);
	if (r == COPPICE_OK && !coppice->options.is_dry_run)
		r = store_begin(coppice, &importing->store, err);
	if (r == COPPICE_OK && !coppice->options.is_dry_run && is_split)
		r = store_begin(coppice, &importing->rootfs_store, err);
	if (is_standard_input)
		how.name = "standard input";
	how.in_fd = importing->in_fd;
	how.store_fd = importing->store.fd;
	rootfs.in_fd = importing->rootfs_fd;
	rootfs.store_fd = importing->rootfs_store.fd;
	how.rootfs = is_split ? &rootfs : NULL;
	if (r == COPPICE_OK)
		r = unpacking_describe(unpacking, err);
	if (r == COPPICE_OK)
		r = unpacking_read(unpacking, &how, err);
	if (r == COPPICE_OK)
		r = lock_and_check(coppice, import, importing, err);
	if (r == COPPICE_OK)
		r = describe_image(import, importing, err);
	if (r == COPPICE_OK) {
		r = unpacking_finish_description(unpacking, &importing->record, &files, err);
		if (r < 0)
			r = wrap(err, "cannot import '%s'", how.name);
	}
	if (r == COPPICE_OK && is_interrupted(coppice))
		r = fail(err, COPPICE_INTERRUPTED, "interrupted; nothing was imported");
	return r < 0 ? r : keep(coppice, importing, err);
}

/* Before anything is made, a pool above all. */
static int check_files(struct coppice *coppice, const struct coppice_import *import,
		       struct coppice_error *err)
{
	const char *path = import->path, *rootfs = import->rootfs_path;

	if (rootfs && (strcmp(path, "-") == 0 || strcmp(rootfs, "-") == 0))
		return fail(err, COPPICE_INVALID,
			    "standard input can be a whole image only, not half of a split one");
	if (strcmp(path, "-") != 0 && access(path, R_OK) < 0)
		return fail_errno(err, errno, "cannot open image '%s'", path);
	if (rootfs && access(rootfs, R_OK) < 0)
		return fail_errno(err, errno, "cannot open image '%s'", rootfs);
	if (rootfs && (path_is_directory(path) || path_is_directory(rootfs)))
		return fail(err, COPPICE_INVALID, "'%s' is a directory: a split image is two files",
			    path_is_directory(path) ? path : rootfs);
	return path_is_directory(path) ? refuse_our_own(path, coppice->root, err) : COPPICE_OK;
}

int coppice_image_import(struct coppice *coppice, const struct coppice_import *import,
			 char **ret_fingerprint, struct coppice_error *err)
{
	_cleanup_(importing_done) struct importing importing = {
		.unpacking = { .coppice = coppice, .draft.fd = -1 },
		.store.fd = -1,
		.rootfs_store.fd = -1,
		.in_fd = -1,
		.rootfs_fd = -1,
	};
	char *fingerprint;
	int r;

	r = check_files(coppice, import, err);
	if (r == COPPICE_OK)
		r = check_request(coppice, import, err);
	if (r == COPPICE_OK)
		r = pools_choose(coppice, import->pool, POOLS_MAY_MAKE, &importing.unpacking.entry, err);
	if (r < 0)
		return r;
	locks_add(&importing.pool_locks, LOCK_POOLS, importing.unpacking.entry->name, false);
	r = locks_take(coppice, &importing.pool_locks, err);
	if (r == COPPICE_OK)
		r = import_into(coppice, import, &importing, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < importing.unpacking.info.n_warnings; i++)
		notice(coppice, "%s", importing.unpacking.info.warning[i]);
	fingerprint = strdup(importing.unpacking.info.fingerprint);
	if (!fingerprint)
		return fail_memory(err);
	*ret_fingerprint = fingerprint;
	return COPPICE_OK;
}
