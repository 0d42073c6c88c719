/* SPDX-License-Identifier: Apache-2.0 */
/* Importing, unpacking, exporting and deleting images; their aliases. */
#include "core/instances.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "core/image_store.h"
#include "image/import.h"

/* ---- finding ---- */

struct finding {
	char fingerprint[65];
	size_t n;
	bool has_bytes;
	struct image_record *record; /* filled by the first; or NULL */
};

static int note_image(void *user, const struct catalog_image *row, struct coppice_error *err)
{
	struct finding *finding = user;
	int r = COPPICE_OK;

	if (finding->n++ > 0)
		return COPPICE_OK;
	(void)snprintf(finding->fingerprint, sizeof(finding->fingerprint), "%s", row->fingerprint);
	finding->has_bytes = row->has_bytes;
	if (finding->record)
		r = image_record_parse(row->record, finding->record, err);
	return r;
}

int image_resolve(struct coppice *coppice, const char *name, struct volume_name *ret,
		  struct coppice_error *err)
{
	struct finding finding = { .n = 0 };
	bool is_found;
	int r;

	r = images_refresh(coppice, err);
	if (r == COPPICE_OK)
		r = catalog_alias_get(coppice->catalog, name, finding.fingerprint, &is_found, err);
	if (r < 0)
		return r;
	if (is_found)
		return fingerprint_parse(finding.fingerprint, ret, err);
	if (*name && name[strspn(name, "0123456789abcdef")] == '\0')
		r = catalog_images(coppice->catalog, name, note_image, &finding, err);
	if (r < 0)
		return r;
	if (finding.n > 1)
		return fail(err, COPPICE_INVALID,
			    "'%s' begins the fingerprints of %zu images: give more of it", name,
			    finding.n);
	if (finding.n == 0)
		return fail(err, COPPICE_NOT_FOUND, "no image '%s'; see: coppice image list", name);
	return fingerprint_parse(finding.fingerprint, ret, err);
}

int image_record_of(struct coppice *coppice, const char *fingerprint, bool *ret_has_bytes,
		    struct image_record *ret, struct coppice_error *err)
{
	struct finding finding = { .record = ret };
	int r = catalog_images(coppice->catalog, fingerprint, note_image, &finding, err);

	if (r < 0)
		return r;
	if (finding.n == 0)
		return fail(err, COPPICE_NOT_FOUND, "no image '%.12s'", fingerprint);
	*ret_has_bytes = finding.has_bytes;
	return COPPICE_OK;
}

/* ---- unpacking into a pool ---- */

/* Where its bytes are, for messages and explanations. */
struct image_files {
	const char *path;
	const char *rootfs; /* the second file of a split image; or NULL */
};

/* An image on its way into a pool. */
struct unpacking {
	struct coppice *coppice;
	struct pool_entry *entry;
	struct draft draft;
	struct makings makings;
	struct image_info info;
	struct undo undo;
};

static void unpacking_done(struct unpacking *unpacking)
{
	undo_rollback(&unpacking->undo);
	makings_done(&unpacking->makings);
	image_info_done(&unpacking->info);
}

/* Steps on the pool, with nobody hearing: they are explained once the fingerprint is known. */
static explain_fn *mute(struct unpacking *unpacking)
{
	struct pool *pool = unpacking->entry->pool;
	explain_fn *hook = pool->explain;

	pool->explain = NULL;
	return hook;
}

static int describe(struct unpacking *unpacking, struct coppice_error *err)
{
	struct making *making;
	int r = makings_new(&unpacking->makings, 1, err);

	if (r < 0)
		return r;
	making = &unpacking->makings.making[0];
	making->volume.item = "image";
	making->volume.ref.kind = VOLUME_IMAGE;
	making->volume.uuid = making->volume.group = making->record.uuid;
	making->record.kind = VOLUME_IMAGE;
	making->record.created_ns = now_ns();
	return COPPICE_OK;
}

/*
 * Refuse to pack a directory that holds what is ours, as @inside is: what is unpacked of it
 * would be packed too, and so on.
 */
static int refuse_our_own(const char *directory, const char *inside, struct coppice_error *err)
{
	_cleanup_(freep) char *real = realpath(directory, NULL);
	_cleanup_(freep) char *ours = realpath(inside, NULL);
	size_t length = real ? strlen(real) : 0;

	if (!real || !ours)
		return COPPICE_OK;
	if (strcmp(real, "/") == 0)
		length = 0;
	if (strncmp(ours, real, length) != 0 || (ours[length] != '/' && ours[length] != '\0'))
		return COPPICE_OK;
	return fail(err, COPPICE_INVALID, "'%s' holds '%s', where Coppice keeps its own", directory,
		    inside);
}

static bool is_open_directory(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Read all of @in_fd, into a draft of the pool unless this is a dry run. */
static int read_into(struct unpacking *unpacking, struct image_read *how, struct coppice_error *err)
{
	struct coppice *coppice = unpacking->coppice;
	const struct driver *driver = unpacking->entry->driver;
	struct making *making = &unpacking->makings.making[0];
	_cleanup_(freep) char *path = NULL;
	explain_fn *hook;
	int r = room_check(unpacking->entry, err);

	if (r < 0)
		return r;
	how->keep_fd = -1;
	how->memory_limit_bytes = coppice->options.memory_limit_bytes;
	how->hooks = &coppice->options.hooks;
	if (!coppice->options.is_dry_run) {
		hook = mute(unpacking);
		r = draft_begin(unpacking->entry, &unpacking->draft, &unpacking->undo, err);
		if (r == COPPICE_OK)
			r = record_format(&making->record, &making->text, err);
		making->volume.record = making->text;
		if (r == COPPICE_OK)
			r = driver->volume_create(&unpacking->draft, &making->volume, &path, err);
		unpacking->entry->pool->explain = hook;
		if (r == COPPICE_OK && is_open_directory(how->in_fd))
			r = refuse_our_own(how->name, path, err);
		how->target_path = path;
		how->keep_fd = unpacking->draft.fd;
	}
	return r < 0 ? r : image_read(how, &unpacking->info, err);
}

/* Sealing commits by itself, on engines that have this. */
static int announce(struct draft *draft, const struct new_volume *volume, struct coppice_error *err)
{
	const struct driver *driver = draft->pool->driver;

	return driver->draft_announce ? driver->draft_announce(draft, volume, 1, err) : COPPICE_OK;
}

static bool is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_squashfs(const char *path)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char magic[4];

	return fd >= 0 && read(fd, magic, sizeof(magic)) == sizeof(magic) &&
	       memcmp(magic, "hsqs", sizeof(magic)) == 0;
}

/* The command that unpacks @file into @directory of the draft is told. */
static void explain_unpack(struct coppice *coppice, const char *file, const char *directory)
{
	_cleanup_(freep) char *quoted = text_shell_quote(file);

	if (quoted && is_directory(file))
		explain(coppice, "cp -a %s/. \"$draft\"/%s", quoted, directory);
	else if (quoted && is_squashfs(file))
		explain(coppice, "unsquashfs -f -d \"$draft\"/%s %s", directory, quoted);
	else if (quoted)
		explain(coppice,
			"tar --xattrs --xattrs-include='*' --acls --numeric-owner "
			"--delay-directory-restore -xpf %s -C \"$draft\"/%s",
			quoted, directory);
}

/* @directory is where the image goes, below the draft; root file systems into rootfs there. */
static void explain_files(struct unpacking *unpacking, const struct image_files *files,
			  const char *directory)
{
	struct coppice *coppice = unpacking->coppice;
	_cleanup_(freep) char *rootfs = text_format("%s/rootfs", directory);
	bool is_split = files->rootfs != NULL;

	if (!rootfs)
		return;
	if (is_split || !unpacking->info.is_unified)
		explain(coppice, "mkdir \"$draft\"/%s", rootfs);
	explain_unpack(coppice, files->path,
		       is_split || unpacking->info.is_unified ? directory : rootfs);
	if (is_split)
		explain_unpack(coppice, files->rootfs, rootfs);
}

/* Now that all is known: the record as it will be, and the steps in words. */
static int explain_steps(struct unpacking *unpacking, const struct image_files *files,
			 struct coppice_error *err)
{
	struct coppice *coppice = unpacking->coppice;
	const struct driver *driver = unpacking->entry->driver;
	struct pool *pool = unpacking->entry->pool;
	_cleanup_(freep) char *path = NULL;
	_cleanup_(freep) char *directory = NULL;
	struct draft draft = { .fd = -1 };
	struct new_volume volume = unpacking->makings.making[0].volume;
	int r;

	if (!pool->explain)
		return COPPICE_OK;
	volume.item = NULL;
	pool->is_dry_run = true;
	r = driver->draft_open(pool, &draft, err);
	draft.pool = pool;
	if (r == COPPICE_OK)
		r = driver->volume_create(&draft, &volume, &path, err);
	if (r == COPPICE_OK && path)
		directory = text_format("%s/%s", volume.ref.name.text,
					strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
	if (directory)
		explain_files(unpacking, files, directory);
	if (r == COPPICE_OK)
		r = announce(&draft, &volume, err);
	if (r == COPPICE_OK)
		r = driver->volume_seal(&draft, &volume, true, err);
	if (r == COPPICE_OK)
		r = driver->publish(&draft, &volume, 1, err);
	if (r == COPPICE_OK && !draft.is_announced)
		r = driver->commit(pool, err);
	pool->is_dry_run = coppice->options.is_dry_run;
	return r;
}

/* Name and record of the volume, from what was read. */
static int finish_description(struct unpacking *unpacking, const struct image_record *record,
			      const struct image_files *files, struct coppice_error *err)
{
	struct making *making = &unpacking->makings.making[0];
	int r;

	free(making->text);
	making->text = NULL;
	r = fingerprint_parse(unpacking->info.fingerprint, &making->volume.ref.name, err);
	if (r == COPPICE_OK)
		r = image_record_copy(&making->record.of_image, record, err);
	if (r == COPPICE_OK)
		r = making_finish(unpacking->coppice, &unpacking->makings, 0, NULL, NULL, err);
	return r < 0 ? r : explain_steps(unpacking, files, err);
}

static int seal_and_publish(struct unpacking *unpacking, struct coppice_error *err)
{
	const struct driver *driver = unpacking->entry->driver;
	struct making *making = &unpacking->makings.making[0];
	explain_fn *hook;
	int r;

	if (unpacking->coppice->options.is_dry_run)
		return COPPICE_OK;
	hook = mute(unpacking);
	r = announce(&unpacking->draft, &making->volume, err);
	if (r == COPPICE_OK)
		r = driver->volume_seal(&unpacking->draft, &making->volume, true, err);
	if (r == COPPICE_OK)
		r = publish(unpacking->coppice, unpacking->entry, &unpacking->draft,
			    &unpacking->makings, err);
	if (r == COPPICE_OK)
		undo_commit(&unpacking->undo);
	else /* before the bytes go: what was announced must not outlive them */
		undo_rollback(&unpacking->undo);
	unpacking->entry->pool->explain = hook;
	return r;
}

static bool is_unpacked(struct pool_entry *entry, const struct volume_name *fingerprint, int *r,
			struct coppice_error *err)
{
	struct volume_ref ref = { .kind = VOLUME_IMAGE, .name = *fingerprint };
	_cleanup_(freep) char *record = NULL;

	*r = entry->driver->record_read(entry->pool, &ref, &record, err);
	if (*r == COPPICE_NOT_FOUND) {
		*r = COPPICE_OK;
		return false;
	}
	return *r == COPPICE_OK;
}

static int unpack_stored(struct coppice *coppice, struct pool_entry *entry, const char *fingerprint,
			 struct coppice_error *err)
{
	_cleanup_(unpacking_done) struct unpacking unpacking = { .coppice = coppice,
								 .entry = entry,
								 .draft.fd = -1 };
	_cleanup_(image_record_done) struct image_record record = { 0 };
	_cleanup_(freep) char *path = text_format("%s/images/%s", coppice->root, fingerprint);
	_cleanup_(freep) char *rootfs_path = text_format("%s.rootfs", path ? path : "");
	_cleanup_(closep) int fd = -1;
	_cleanup_(closep) int rootfs_fd = -1;
	struct image_rootfs rootfs = { .in_fd = -1, .store_fd = -1 };
	struct image_read how = { .store_fd = -1 };
	struct image_files files = { .path = path };
	bool has_bytes;
	int r;

	if (!path || !rootfs_path)
		return fail_memory(err);
	r = image_record_of(coppice, fingerprint, &has_bytes, &record, err);
	if (r == COPPICE_OK)
		r = store_open(coppice, fingerprint, &fd, err);
	if (r == COPPICE_OK && record.rootfs_size_bytes > 0)
		r = store_open_rootfs(coppice, fingerprint, &rootfs_fd, err);
	if (r == COPPICE_OK)
		r = describe(&unpacking, err);
	if (r < 0)
		return r;
	how.in_fd = fd;
	how.name = record.n_aliases ? record.alias[0] : fingerprint;
	if (rootfs_fd >= 0) {
		rootfs.in_fd = rootfs_fd;
		rootfs.name = how.name;
		how.rootfs = &rootfs;
		files.rootfs = rootfs_path;
	}
	how.total_bytes = record.size_bytes;
	r = read_into(&unpacking, &how, err);
	if (r == COPPICE_OK && strcmp(unpacking.info.fingerprint, fingerprint) != 0)
		r = fail(err, COPPICE_FAILED,
			 "the bytes kept in '%s' are damaged: their fingerprint is %.12s now; "
			 "import "
			 "the image again",
			 path, unpacking.info.fingerprint);
	if (r == COPPICE_OK)
		r = finish_description(&unpacking, &record, &files, err);
	return r < 0 ? r : seal_and_publish(&unpacking, err);
}

int image_ensure(struct coppice *coppice, struct pool_entry *entry,
		 const struct volume_name *fingerprint, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	int r;

	if (is_unpacked(entry, fingerprint, &r, err) || r < 0)
		return r;
	locks_add(&locks, LOCK_POOLS, entry->name, false);
	locks_add(&locks, LOCK_IMAGES, fingerprint->text, true);
	r = locks_take(coppice, &locks, err);
	if (r < 0)
		return r;
	if (is_unpacked(entry, fingerprint, &r, err) || r < 0)
		return r; /* somebody else did it while we waited */
	r = unpack_stored(coppice, entry, fingerprint->text, err);
	return r < 0 ? wrap(err, "cannot unpack image '%.12s' into pool '%s'", fingerprint->text,
			    entry->name)
		     : COPPICE_OK;
}

/* ---- import ---- */

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

static int check_alias(struct coppice *coppice, const char *alias, struct coppice_error *err)
{
	char checked[256], fingerprint[65];
	bool is_found;
	int r = alias_parse(alias, checked, err);

	if (r == COPPICE_OK)
		r = catalog_alias_get(coppice->catalog, alias, fingerprint, &is_found, err);
	if (r == COPPICE_OK && is_found)
		r = fail(err, COPPICE_EXISTS, "alias '%s' exists already, for image '%.12s'", alias,
			 fingerprint);
	return r;
}

static int check_request(struct coppice *coppice, const struct coppice_import *import,
			 struct coppice_error *err)
{
	struct volume_name ignored;
	int r = images_refresh(coppice, err);

	if (r == COPPICE_OK && import->fingerprint)
		r = fingerprint_parse(import->fingerprint, &ignored, err);
	for (size_t i = 0; i < import->n_aliases && r == COPPICE_OK; i++)
		r = check_alias(coppice, import->aliases[i], err);
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
	struct finding finding = { .n = 0 };
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
	if (r == COPPICE_OK)
		r = catalog_images(coppice->catalog, fingerprint, note_image, &finding, err);
	if (r == COPPICE_OK && finding.n > 0 && finding.has_bytes)
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

	was_unpacked = is_unpacked(unpacking->entry, &unpacking->makings.making[0].volume.ref.name,
				   &r, err);
	if (r < 0 || coppice->options.is_dry_run)
		return r;
	r = store_commit(coppice, &importing->store, &importing->rootfs_store,
			 unpacking->info.fingerprint, &importing->record, err);
	/* A pool that was taken over may have its tree already. */
	if (r == COPPICE_OK && !was_unpacked) {
		r = seal_and_publish(unpacking, err);
		if (r < 0) {
			struct coppice_error ignored;

			(void)store_delete(coppice, unpacking->info.fingerprint, &ignored);
		}
	}
	return r < 0 ? r : images_refresh(coppice, err);
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
		r = describe(unpacking, err);
	if (r == COPPICE_OK)
		r = read_into(unpacking, &how, err);
	if (r == COPPICE_OK)
		r = lock_and_check(coppice, import, importing, err);
	if (r == COPPICE_OK)
		r = describe_image(import, importing, err);
	if (r == COPPICE_OK)
		r = finish_description(unpacking, &importing->record, &files, err);
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
	if (rootfs && (is_directory(path) || is_directory(rootfs)))
		return fail(err, COPPICE_INVALID, "'%s' is a directory: a split image is two files",
			    is_directory(path) ? path : rootfs);
	return is_directory(path) ? refuse_our_own(path, coppice->root, err) : COPPICE_OK;
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
		r = pools_choose(coppice, import->pool, true, &importing.unpacking.entry, err);
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

/* ---- export ---- */

/* Half of an image looks like one. */
static int refuse_cut(struct coppice *coppice, const char *fingerprint, struct coppice_error *err)
{
	struct image_record record = { 0 };
	bool has_bytes;
	uint64_t size;
	int r;

	r = image_record_of(coppice, fingerprint, &has_bytes, &record, err);
	if (r < 0)
		return r;
	r = store_size(coppice, fingerprint, &size, err);
	if (r == COPPICE_OK && record.size_bytes && size != record.size_bytes)
		r = fail(err, COPPICE_FAILED,
			 "the bytes of image '%.12s' are damaged: it had %llu, and %llu are kept; "
			 "import it again",
			 fingerprint, (unsigned long long)record.size_bytes,
			 (unsigned long long)size);
	image_record_done(&record);
	return r;
}

static int copy_out(struct coppice *coppice, int in, int fd, const char *image,
		    struct coppice_error *err)
{
	char buffer[65536];
	ssize_t n;
	int r = COPPICE_OK;

	while (r == COPPICE_OK && (n = read(in, buffer, sizeof(buffer))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(err, errno, "cannot read image '%s'", image);
		if (is_interrupted(coppice))
			return fail(err, COPPICE_INTERRUPTED, "interrupted");
		r = write_all(fd, buffer, (size_t)n, "the exported image", err);
	}
	return r;
}

int coppice_image_export(struct coppice *coppice, const char *image, int fd,
			 struct coppice_error *err)
{
	_cleanup_(closep) int in = -1;
	struct volume_name fingerprint;
	int r;

	r = image_resolve(coppice, image, &fingerprint, err);
	if (r == COPPICE_OK)
		r = store_open(coppice, fingerprint.text, &in, err);
	if (r == COPPICE_OK)
		r = refuse_cut(coppice, fingerprint.text, err);
	return r < 0 ? r : copy_out(coppice, in, fd, image, err);
}

int coppice_image_export_rootfs(struct coppice *coppice, const char *image, int fd,
				struct coppice_error *err)
{
	_cleanup_(image_record_done) struct image_record record = { 0 };
	_cleanup_(closep) int in = -1;
	struct volume_name fingerprint;
	bool has_bytes;
	int r;

	r = image_resolve(coppice, image, &fingerprint, err);
	if (r == COPPICE_OK)
		r = image_record_of(coppice, fingerprint.text, &has_bytes, &record, err);
	if (r == COPPICE_OK && record.rootfs_size_bytes == 0)
		r = fail(err, COPPICE_INVALID, "image '%s' is one file", image);
	if (r == COPPICE_OK)
		r = store_open_rootfs(coppice, fingerprint.text, &in, err);
	if (r == COPPICE_OK)
		r = refuse_cut(coppice, fingerprint.text, err);
	return r < 0 ? r : copy_out(coppice, in, fd, image, err);
}

/* ---- delete ---- */

struct sharers {
	const struct uuid *image;
	size_t n;
	struct text names;
};

static int note_sharer(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct sharers *sharers = user;
	_cleanup_(record_done) struct record record = { 0 };
	int r = record_parse(row->record, &record, err);

	if (r < 0 || !record.n_lineage ||
	    strcmp(record.lineage[0].uuid.text, sharers->image->text) != 0)
		return r;
	if (sharers->n++ < 5)
		text_add(&sharers->names, "%s%s", sharers->n > 1 ? ", " : "", row->name);
	return COPPICE_OK;
}

/* Say what stays, and with whom. */
static int tell_sharers(struct coppice *coppice, struct pool_entry *entry,
			const struct volume_ref *image, const struct uuid *uuid, const char *name,
			struct coppice_error *err)
{
	struct sharers sharers = { .image = uuid, .names = TEXT_INIT };
	struct catalog_query query = { .pool = entry->name,
				       .kind = VOLUME_CONTAINER,
				       .no_snapshots = true };
	struct volume_usage usage = { 0 };
	char size[SIZE_TEXT_MAX] = "unknown";
	int r;

	r = catalog_volumes(coppice->catalog, &query, note_sharer, &sharers, err);
	if (r == COPPICE_OK && sharers.n)
		r = entry->driver->usage(entry->pool, image, uuid, &usage, 1, false, err);
	if (r == COPPICE_OK && sharers.n && entry->driver->traits.can_clone) {
		if (usage.written.known == COPPICE_EXACT)
			size_format(usage.written.bytes, size);
		notice(coppice,
		       "image '%s': %zu instance%s in pool '%s' keep%s what they share with it "
		       "(%s%s): %s%s",
		       name, sharers.n, sharers.n == 1 ? "" : "s", entry->name,
		       sharers.n == 1 ? "s" : "",
		       usage.written.known == COPPICE_EXACT ? "at most " : "", size,
		       sharers.names.data ? sharers.names.data : "", sharers.n > 5 ? ", …" : "");
	}
	text_done(&sharers.names);
	return r;
}

static int delete_in_pool(struct coppice *coppice, struct pool_entry *entry,
			  const struct volume_name *fingerprint, const char *name, bool *ret_found,
			  struct coppice_error *err)
{
	struct volume_ref ref = { .kind = VOLUME_IMAGE, .name = *fingerprint };
	_cleanup_(record_done) struct record record = { 0 };
	_cleanup_(freep) char *text = NULL;
	int r;

	r = entry->driver->record_read(entry->pool, &ref, &text, err);
	if (r == COPPICE_NOT_FOUND)
		return COPPICE_OK;
	if (r == COPPICE_OK)
		r = record_parse(text, &record, err);
	if (r == COPPICE_OK)
		r = tell_sharers(coppice, entry, &ref, &record.uuid, name, err);
	if (r < 0)
		return r;
	*ret_found = true;
	return retire(coppice, entry, &ref, &record.uuid, 1, err);
}

static int delete_one(struct coppice *coppice, const struct volume_name *fingerprint,
		      const char *name, struct pool_entry *only, struct coppice_error *err)
{
	bool is_found = false;
	int r = COPPICE_OK;

	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++)
		if (!only || coppice->pools[i] == only)
			r = delete_in_pool(coppice, coppice->pools[i], fingerprint, name, &is_found,
					   err);
	if (r < 0)
		return r;
	if (only)
		return is_found ? COPPICE_OK
				: fail(err, COPPICE_NOT_FOUND,
				       "image '%s' is not unpacked in pool '%s'", name, only->name);
	explain(coppice, "rm -f %s/images/%s.json %s/images/%s", coppice->root, fingerprint->text,
		coppice->root, fingerprint->text);
	if (store_has_rootfs(coppice, fingerprint->text))
		explain(coppice, "rm -f %s/images/%s.rootfs", coppice->root, fingerprint->text);
	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	r = store_delete(coppice, fingerprint->text, err);
	return r < 0 ? r : images_refresh(coppice, err);
}

/* All pools, as an image may be in each; one that cannot be read may have it too. */
static int open_pools(struct coppice *coppice, struct pool_entry *only, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++)
		if (!only || coppice->pools[i] == only)
			r = pools_open(coppice, coppice->pools[i], err);
	return r;
}

int coppice_image_delete(struct coppice *coppice, const char *const *images, size_t n,
			 const char *pool, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(freep) struct volume_name *fingerprints =
		calloc(n ? n : 1, sizeof(*fingerprints));
	struct pool_entry *only = NULL;
	int r = COPPICE_OK;

	if (!fingerprints)
		return fail_memory(err);
	if (pool)
		r = pools_find(coppice, pool, &only, err);
	if (r == COPPICE_OK)
		r = open_pools(coppice, only, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = image_resolve(coppice, images[i], &fingerprints[i], err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < coppice->n_pools; i++)
		locks_add(&locks, LOCK_POOLS, coppice->pools[i]->name, false);
	for (size_t i = 0; i < n; i++)
		locks_add(&locks, LOCK_IMAGES, fingerprints[i].text, true);
	locks_add(&locks, LOCK_ALIASES, "", true);
	r = locks_take(coppice, &locks, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = delete_one(coppice, &fingerprints[i], images[i], only, err);
	return r;
}

/* ---- aliases ---- */

/* Keep a changed record wherever the image is. */
static int update_record(struct coppice *coppice, const struct volume_name *fingerprint,
			 const struct image_record *image, struct coppice_error *err)
{
	struct volume_ref ref = { .kind = VOLUME_IMAGE, .name = *fingerprint };
	int r = COPPICE_OK;

	if (!coppice->options.is_dry_run)
		r = store_update(coppice, fingerprint->text, image, err);
	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++) {
		struct pool_entry *entry = coppice->pools[i];
		_cleanup_(record_done) struct record record = { 0 };
		_cleanup_(freep) char *old = NULL;
		_cleanup_(freep) char *text = NULL;

		if (!is_unpacked(entry, fingerprint, &r, err) || r < 0)
			continue;
		r = entry->driver->record_read(entry->pool, &ref, &old, err);
		if (r == COPPICE_OK)
			r = record_parse(old, &record, err);
		if (r < 0)
			return r;
		image_record_done(&record.of_image);
		r = image_record_copy(&record.of_image, image, err);
		if (r == COPPICE_OK)
			r = record_format(&record, &text, err);
		if (r == COPPICE_OK)
			r = change_begin(coppice, entry, err);
		if (r < 0)
			return r;
		r = entry->driver->record_write(entry->pool, &ref, text, err);
		if (r == COPPICE_OK)
			r = catalog_put_record(coppice, entry->name, &ref, &record, text, err);
		if (r < 0) {
			change_abort(coppice);
			return r;
		}
		r = change_end(coppice, entry, err);
		if (r == COPPICE_OK)
			r = entry->driver->commit(entry->pool, err);
	}
	if (r == COPPICE_OK && !coppice->options.is_dry_run) {
		r = catalog_begin(coppice->catalog, err);
		if (r == COPPICE_OK)
			r = images_rebuild(coppice, err);
		if (r == COPPICE_OK)
			return catalog_commit(coppice->catalog, err);
		catalog_rollback(coppice->catalog);
	}
	return r;
}

/* Lock names of images, look one up, take @old away (NULL: nothing), add @new (the same). */
static int change_aliases(struct coppice *coppice, const char *image, const char *old,
			  const char *new, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(image_record_done) struct image_record record = { 0 };
	struct volume_name fingerprint;
	bool has_bytes, is_found;
	char of[65];
	int r;

	r = open_pools(coppice, NULL, err);
	for (size_t i = 0; i < coppice->n_pools; i++)
		locks_add(&locks, LOCK_POOLS, coppice->pools[i]->name, false);
	locks_add(&locks, LOCK_ALIASES, "", true);
	if (r == COPPICE_OK)
		r = locks_take(coppice, &locks, err);
	if (r == COPPICE_OK)
		r = images_refresh(coppice, err);
	if (r == COPPICE_OK && old) {
		r = catalog_alias_get(coppice->catalog, old, of, &is_found, err);
		if (r == COPPICE_OK && !is_found)
			r = fail(err, COPPICE_NOT_FOUND, "no alias '%s'", old);
	}
	if (r == COPPICE_OK && new)
		r = check_alias(coppice, new, err);
	if (r == COPPICE_OK)
		r = image_resolve(coppice, old ? old : image, &fingerprint, err);
	if (r == COPPICE_OK)
		r = image_record_of(coppice, fingerprint.text, &has_bytes, &record, err);
	if (r == COPPICE_OK && old)
		image_record_remove_alias(&record, old);
	if (r == COPPICE_OK && new)
		r = image_record_add_alias(&record, new, err);
	return r < 0 ? r : update_record(coppice, &fingerprint, &record, err);
}

int coppice_image_alias_create(struct coppice *coppice, const char *alias, const char *image,
			       struct coppice_error *err)
{
	return change_aliases(coppice, image, NULL, alias, err);
}

int coppice_image_alias_delete(struct coppice *coppice, const char *alias,
			       struct coppice_error *err)
{
	return change_aliases(coppice, NULL, alias, NULL, err);
}

int coppice_image_alias_rename(struct coppice *coppice, const char *alias, const char *to,
			       struct coppice_error *err)
{
	return change_aliases(coppice, NULL, alias, to, err);
}
