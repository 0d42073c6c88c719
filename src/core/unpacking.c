/* SPDX-License-Identifier: Apache-2.0 */
/* An image's bytes becoming a read-only volume of a pool. */
#include "core/unpacking.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "core/image_store.h"

void unpacking_done(struct unpacking *unpacking)
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

int unpacking_describe(struct unpacking *unpacking, struct coppice_error *err)
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
int refuse_our_own(const char *directory, const char *inside, struct coppice_error *err)
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

/* Does what is unpacked still reach the pool? */
static int check_writing(void *user, struct coppice_error *err)
{
	struct unpacking *unpacking = user;

	return unpacking->entry->driver->writing_check(&unpacking->draft,
						       &unpacking->makings.making[0].volume, err);
}

/* Read all of @in_fd, into a draft of the pool unless this is a dry run. */
int unpacking_read(struct unpacking *unpacking, struct image_read *how, struct coppice_error *err)
{
	struct coppice *coppice = unpacking->coppice;
	const struct driver *driver = unpacking->entry->driver;
	struct making *making = &unpacking->makings.making[0];
	_cleanup_(freep) char *path = NULL;
	explain_fn *hook;
	int r = room_check(unpacking->coppice, unpacking->entry, err);

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
		how->check = driver->writing_check ? check_writing : NULL;
		how->check_user = unpacking;
	}
	return r < 0 ? r : image_read(how, &unpacking->info, err);
}

/* Sealing commits by itself, on engines that have this. */
static int announce(struct draft *draft, const struct new_volume *volume, struct coppice_error *err)
{
	const struct driver *driver = draft->pool->driver;

	return driver->draft_announce ? driver->draft_announce(draft, volume, 1, err) : COPPICE_OK;
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

	if (quoted && path_is_directory(file))
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
	struct coppice_error ignored;
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
	(void)driver->draft_discard(&draft, &ignored);
	pool->is_dry_run = coppice->options.is_dry_run;
	return r;
}

/* Name and record of the volume, from what was read. */
int unpacking_finish_description(struct unpacking *unpacking, const struct image_record *record,
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

int unpacking_publish(struct unpacking *unpacking, struct coppice_error *err)
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

int image_is_unpacked(struct pool_entry *entry, const struct volume_name *fingerprint, bool *ret,
		      struct coppice_error *err)
{
	struct volume_ref ref = { .kind = VOLUME_IMAGE, .name = *fingerprint };
	_cleanup_(freep) char *record = NULL;
	int r = entry->driver->record_read(entry->pool, &ref, &record, err);

	*ret = r == COPPICE_OK;
	return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
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
		r = unpacking_describe(&unpacking, err);
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
	r = unpacking_read(&unpacking, &how, err);
	if (r == COPPICE_OK && strcmp(unpacking.info.fingerprint, fingerprint) != 0)
		r = fail(err, COPPICE_FAILED,
			 "the bytes kept in '%s' are damaged: their fingerprint is %.12s now; "
			 "import "
			 "the image again",
			 path, unpacking.info.fingerprint);
	if (r == COPPICE_OK)
		r = unpacking_finish_description(&unpacking, &record, &files, err);
	return r < 0 ? r : unpacking_publish(&unpacking, err);
}

int image_ensure(struct coppice *coppice, struct pool_entry *entry,
		 const struct volume_name *fingerprint, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	bool is_unpacked = false;
	int r;

	r = image_is_unpacked(entry, fingerprint, &is_unpacked, err);
	if (r < 0 || is_unpacked)
		return r;
	locks_add(&locks, LOCK_POOLS, entry->name, false);
	locks_add(&locks, LOCK_IMAGES, fingerprint->text, true);
	r = locks_take(coppice, &locks, err);
	if (r < 0)
		return r;
	r = image_is_unpacked(entry, fingerprint, &is_unpacked, err);
	if (r < 0 || is_unpacked)
		return r; /* somebody else did it while we waited */
	r = unpack_stored(coppice, entry, fingerprint->text, err);
	return r < 0 ? wrap(err, "cannot unpack image '%.12s' into pool '%s'", fingerprint->text,
			    entry->name)
		     : COPPICE_OK;
}
