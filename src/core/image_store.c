/* SPDX-License-Identifier: Apache-2.0 */
#include "core/image_store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"

#define STAMP      "/images" /* no pool can be called so */
#define IMPORT     "import-"
#define ROOTFS     ".rootfs" /* behind the fingerprint: the second file of a split image */
#define RECORD_MAX (1 << 20)

/* ---- bytes ---- */

int store_begin(struct coppice *coppice, struct store_file *ret, struct coppice_error *err)
{
	struct store_file file = { .fd = -1 };
	char path[128];
	struct uuid uuid;
	int r;

	r = uuid_new(&uuid, err);
	if (r < 0)
		return r;
	(void)snprintf(file.name, sizeof(file.name), IMPORT "%s", uuid.text);
	(void)snprintf(path, sizeof(path), "images/%s", file.name);
	file.fd =
		retry(openat(coppice->root_fd, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	if (file.fd < 0)
		return fail_errno(err, errno, "cannot create a file in '%s/images'", coppice->root);
	(void)flock(file.fd, LOCK_EX | LOCK_NB);
	*ret = file;
	return COPPICE_OK;
}

void store_abort(struct coppice *coppice, struct store_file *file)
{
	char path[128];

	if (!file->name[0])
		return;
	(void)snprintf(path, sizeof(path), "images/%s", file->name);
	(void)unlinkat(coppice->root_fd, path, 0);
	closep(&file->fd);
	*file = (struct store_file){ .fd = -1 };
}

static int write_record(struct coppice *coppice, const char *fingerprint,
			const struct image_record *record, struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	char path[128];
	int r;

	(void)snprintf(path, sizeof(path), "images/%s.json", fingerprint);
	r = image_record_format(record, &text, err);
	return r < 0 ? r : file_write(coppice->root_fd, path, text, true, err);
}

/* The file gets the name under which it is kept. */
static int keep_file(struct coppice *coppice, struct store_file *file, const char *fingerprint,
		     const char *tail, struct coppice_error *err)
{
	char from[128], to[128];

	(void)snprintf(from, sizeof(from), "images/%s", file->name);
	(void)snprintf(to, sizeof(to), "images/%s%s", fingerprint, tail);
	if (retry(fsync(file->fd)) < 0)
		return fail_errno(err, errno, "cannot write out '%s/%s'", coppice->root, from);
	if (renameat(coppice->root_fd, from, coppice->root_fd, to) < 0)
		return fail_errno(err, errno, "cannot keep '%s/%s'", coppice->root, to);
	(void)snprintf(file->name, sizeof(file->name), "%s%s", fingerprint, tail);
	return COPPICE_OK;
}

static void let_go(struct store_file *file)
{
	closep(&file->fd);
	*file = (struct store_file){ .fd = -1 };
}

/* What fails here is removed by store_abort(), under the name that it has by then. */
int store_commit(struct coppice *coppice, struct store_file *file, struct store_file *rootfs,
		 const char *fingerprint, const struct image_record *record,
		 struct coppice_error *err)
{
	int r = COPPICE_OK;

	if (record->rootfs_size_bytes > 0)
		r = keep_file(coppice, rootfs, fingerprint, ROOTFS, err);
	if (r == COPPICE_OK)
		r = keep_file(coppice, file, fingerprint, "", err);
	if (r == COPPICE_OK)
		r = write_record(coppice, fingerprint, record, err);
	if (r < 0)
		return r;
	let_go(file);
	let_go(rootfs);
	return COPPICE_OK;
}

static bool has_file(struct coppice *coppice, const char *fingerprint, const char *tail)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "images/%s%s", fingerprint, tail);
	return faccessat(coppice->root_fd, path, F_OK, 0) == 0;
}

int store_update(struct coppice *coppice, const char *fingerprint,
		 const struct image_record *record, struct coppice_error *err)
{
	if (!has_file(coppice, fingerprint, ".json"))
		return COPPICE_OK;
	return write_record(coppice, fingerprint, record, err);
}

static void remove_file(struct coppice *coppice, const char *fingerprint, const char *tail)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "images/%s%s", fingerprint, tail);
	(void)unlinkat(coppice->root_fd, path, 0);
}

/*
 * Without its record it is no image any more. That comes first, and is taken back if it
 * cannot be made durable; what cannot be removed after it is swept.
 */
int store_delete(struct coppice *coppice, const char *fingerprint, struct coppice_error *err)
{
	_cleanup_(closep) int fd = openat(coppice->root_fd, "images", O_RDONLY | O_CLOEXEC);
	char record[128], gone[128];
	int r;

	(void)snprintf(record, sizeof(record), "images/%s.json", fingerprint);
	(void)snprintf(gone, sizeof(gone), "images/%s.json.new", fingerprint);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s/images'", coppice->root);
	if (renameat(coppice->root_fd, record, coppice->root_fd, gone) < 0 && errno != ENOENT)
		return fail_errno(err, errno, "cannot remove '%s/%s'", coppice->root, record);
	r = directory_sync(fd, "images", err);
	if (r < 0) {
		(void)renameat(coppice->root_fd, gone, coppice->root_fd, record);
		return r;
	}
	remove_file(coppice, fingerprint, ".json.new");
	remove_file(coppice, fingerprint, "");
	remove_file(coppice, fingerprint, ROOTFS);
	return COPPICE_OK;
}

static int open_kept(struct coppice *coppice, const char *fingerprint, const char *tail,
		     int *ret_fd, struct coppice_error *err)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "images/%s%s", fingerprint, tail);
	fd = openat(coppice->root_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return fail(err, COPPICE_NOT_FOUND,
			    "the bytes of image '%.12s' are not kept here, only its tree in pools",
			    fingerprint);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s/%s'", coppice->root, path);
	*ret_fd = fd;
	return COPPICE_OK;
}

int store_open(struct coppice *coppice, const char *fingerprint, int *ret_fd,
	       struct coppice_error *err)
{
	return open_kept(coppice, fingerprint, "", ret_fd, err);
}

int store_open_rootfs(struct coppice *coppice, const char *fingerprint, int *ret_fd,
		      struct coppice_error *err)
{
	return open_kept(coppice, fingerprint, ROOTFS, ret_fd, err);
}

bool store_has_rootfs(struct coppice *coppice, const char *fingerprint)
{
	return has_file(coppice, fingerprint, ROOTFS);
}

int store_size(struct coppice *coppice, const char *fingerprint, uint64_t *ret,
	       struct coppice_error *err)
{
	char path[128];
	struct stat st;

	(void)snprintf(path, sizeof(path), "images/%s", fingerprint);
	if (fstatat(coppice->root_fd, path, &st, 0) < 0)
		return fail_errno(err, errno, "cannot look at '%s/%s'", coppice->root, path);
	*ret = (uint64_t)st.st_size;
	(void)snprintf(path, sizeof(path), "images/%s" ROOTFS, fingerprint);
	if (fstatat(coppice->root_fd, path, &st, 0) == 0)
		*ret += (uint64_t)st.st_size;
	else if (errno != ENOENT)
		return fail_errno(err, errno, "cannot look at '%s/%s'", coppice->root, path);
	return COPPICE_OK;
}

/* ---- into the catalog ---- */

static int put_image(struct coppice *coppice, const char *fingerprint, bool has_bytes,
		     const struct image_record *record, const char *text, struct coppice_error *err)
{
	int r = catalog_image_put(coppice->catalog,
				  &(struct catalog_image){ .fingerprint = fingerprint,
							   .has_bytes = has_bytes,
							   .record = text },
				  err);

	for (size_t i = 0; i < record->n_aliases && r == COPPICE_OK; i++)
		r = catalog_alias_put(coppice->catalog, record->alias[i], fingerprint, err);
	return r;
}

static int index_file(struct coppice *coppice, const char *fingerprint, struct coppice_error *err)
{
	_cleanup_(image_record_done) struct image_record record = { 0 };
	_cleanup_(freep) char *text = NULL;
	struct coppice_error why;
	char path[128];
	int r;

	(void)snprintf(path, sizeof(path), "images/%s.json", fingerprint);
	r = file_read(coppice->root_fd, path, RECORD_MAX, &text, &why);
	if (r == COPPICE_OK)
		r = image_record_parse(text, &record, &why);
	if (r < 0) {
		if (r != COPPICE_NOT_FOUND)
			notice(coppice, "image '%.12s' is passed over, its record is damaged: %s",
			       fingerprint, why.message);
		return COPPICE_OK;
	}
	return put_image(coppice, fingerprint, has_file(coppice, fingerprint, ""), &record, text,
			 err);
}

/*
 * Bytes without a record, or half of them: their maker was killed, unless it holds them.
 * False: it does. With @of.json they are an image's, and stay.
 */
static bool sweep_file(struct coppice *coppice, const char *name, const char *of)
{
	_cleanup_(closep) int fd = -1;
	char path[512];

	(void)snprintf(path, sizeof(path), "images/%s", name);
	fd = openat(coppice->root_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return false;
	if (!has_file(coppice, of, ".json"))
		(void)unlinkat(coppice->root_fd, path, 0);
	return true;
}

/* Take one name of the directory for what it is. */
static int index_name(struct coppice *coppice, const char *name, bool *ret_is_swept,
		      struct coppice_error *err)
{
	char fingerprint[65];
	const char *tail;

	(void)snprintf(fingerprint, sizeof(fingerprint), "%.64s", name);
	if (!volume_name_is_valid(VOLUME_IMAGE, fingerprint)) {
		if (strncmp(name, IMPORT, strlen(IMPORT)) == 0 && !sweep_file(coppice, name, name))
			*ret_is_swept = false;
		return COPPICE_OK;
	}
	tail = name + strlen(fingerprint);
	if (strcmp(tail, ".json") == 0)
		return index_file(coppice, fingerprint, err);
	if (strcmp(tail, ".json.new") == 0 && !sweep_file(coppice, name, name))
		*ret_is_swept = false;
	if ((!*tail || strcmp(tail, ROOTFS) == 0) && !has_file(coppice, fingerprint, ".json") &&
	    !sweep_file(coppice, name, fingerprint))
		*ret_is_swept = false;
	return COPPICE_OK;
}

static int index_store(struct coppice *coppice, bool *ret_is_swept, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int fd, r = COPPICE_OK;

	fd = openat(coppice->root_fd, "images", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || !(dir = fdopendir(fd))) {
		closep(&fd);
		return fail_errno(err, errno, "cannot read '%s/images'", coppice->root);
	}
	while (r == COPPICE_OK && (entry = readdir(dir)) != NULL)
		r = index_name(coppice, entry->d_name, ret_is_swept, err);
	return r;
}

static int note_exists(void *user, const struct catalog_image *row, struct coppice_error *err)
{
	*(bool *)user = true;
	return COPPICE_OK;
}

/* What only a pool has: taken over from elsewhere, or its bytes were lost. */
static int index_volume(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct coppice *coppice = user;
	_cleanup_(record_done) struct record record = { 0 };
	_cleanup_(freep) char *text = NULL;
	bool is_known = false;
	int r;

	r = catalog_images(coppice->catalog, row->name, note_exists, &is_known, err);
	if (r < 0 || is_known)
		return r;
	r = record_parse(row->record, &record, err);
	if (r == COPPICE_OK)
		r = image_record_format(&record.of_image, &text, err);
	return r < 0 ? r : put_image(coppice, row->name, false, &record.of_image, text, err);
}

static int rebuild(struct coppice *coppice, bool *ret_is_swept, struct coppice_error *err)
{
	int r = catalog_images_clear(coppice->catalog, err);

	*ret_is_swept = true;
	if (r == COPPICE_OK)
		r = index_store(coppice, ret_is_swept, err);
	if (r < 0)
		return r;
	return catalog_volumes(coppice->catalog,
			       &(struct catalog_query){ .kinds = VOLUME_KIND_BIT(VOLUME_IMAGE),
							.no_snapshots = true },
			       index_volume, coppice, err);
}

int images_rebuild(struct coppice *coppice, struct coppice_error *err)
{
	bool ignored;

	return rebuild(coppice, &ignored, err);
}

static int store_stamp(struct coppice *coppice, uint64_t *ret, struct coppice_error *err)
{
	struct stat st;

	if (fstatat(coppice->root_fd, "images", &st, 0) < 0)
		return fail_errno(err, errno, "cannot look at '%s/images'", coppice->root);
	*ret = directory_stamp(&st) >> 1; /* SQLite's integers have a sign */
	return COPPICE_OK;
}

int images_refresh(struct coppice *coppice, struct coppice_error *err)
{
	uint64_t now, known, after;
	bool is_swept = true;
	int r;

	r = store_stamp(coppice, &now, err);
	if (r == COPPICE_OK)
		r = catalog_stamp_get(coppice->catalog, STAMP, &known, err);
	if (r < 0 || now == known)
		return r;
	r = catalog_begin(coppice->catalog, err);
	if (r < 0)
		return r;
	r = store_stamp(coppice, &now, err);
	if (r == COPPICE_OK)
		r = rebuild(coppice, &is_swept, err);
	if (r == COPPICE_OK)
		r = store_stamp(coppice, &after, err);
	/*
	 * Sweeping changes it as well, and the maker of what could not be swept may be killed:
	 * then the next command looks once more.
	 */
	if (r == COPPICE_OK)
		r = catalog_stamp_put(coppice->catalog, STAMP, is_swept && now == after ? now : 0,
				      err);
	if (r == COPPICE_OK)
		return catalog_commit(coppice->catalog, err);
	catalog_rollback(coppice->catalog);
	return r;
}

void images_catch_up(struct coppice *coppice)
{
	struct coppice_error why;

	if (images_refresh(coppice, &why) < 0)
		notice(coppice, "the catalog is behind, the next command makes up for it: %s",
		       why.message);
}
