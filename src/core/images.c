/* SPDX-License-Identifier: Apache-2.0 */
/* Finding, exporting and deleting images; their aliases. */
#include "core/unpacking.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "core/image_store.h"

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
	struct coppice_error ignored;
	bool is_found = false;
	int r;

	r = images_refresh(coppice, err);
	/* A whole fingerprint means its image, whatever aliases there are. */
	if (r == COPPICE_OK && fingerprint_parse(name, ret, &ignored) < 0)
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
				       .kinds = VOLUME_INSTANCES,
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
	int r;

	r = volume_record_read(entry, &ref, &record, err);
	if (r == COPPICE_NOT_FOUND)
		return COPPICE_OK;
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
	if (r == COPPICE_OK)
		images_catch_up(coppice);
	return r;
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

int alias_must_not_exist(struct coppice *coppice, const char *alias, struct coppice_error *err)
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

/* In one pool, and with it in the catalog; nothing where it is not unpacked. */
static int write_in_pool(struct coppice *coppice, struct pool_entry *entry,
			 const struct volume_ref *ref, const struct image_record *image,
			 struct coppice_error *err)
{
	_cleanup_(record_done) struct record record = { 0 };
	_cleanup_(freep) char *old = NULL;
	_cleanup_(freep) char *text = NULL;
	struct coppice_error ignored;
	bool is_unpacked;
	int r;

	r = image_is_unpacked(entry, &ref->name, &is_unpacked, err);
	if (r < 0 || !is_unpacked)
		return r;
	r = entry->driver->record_read(entry->pool, ref, &old, err);
	if (r == COPPICE_OK)
		r = volume_record_parse(entry, ref, old, &record, err);
	if (r < 0)
		return r;
	image_record_done(&record.of_image);
	r = image_record_copy(&record.of_image, image, err);
	if (r == COPPICE_OK)
		r = volume_record_format(ref, &record, &text, err);
	if (r == COPPICE_OK)
		r = change_begin(coppice, entry, ref, 1, true, err);
	if (r < 0)
		return r;
	r = entry->driver->record_write(entry->pool, ref, text, err);
	if (r == COPPICE_OK)
		r = catalog_put_record(coppice, entry->name, ref, &record, text, err);
	if (r == COPPICE_OK && !coppice->options.is_dry_run)
		r = images_rebuild(coppice, err);
	if (r < 0)
		change_abort(coppice);
	else
		r = change_end(coppice, entry, ref, 1, true, err);
	if (r == COPPICE_OK)
		r = entry->driver->commit(entry->pool, err);
	/* Here and not by another change: the catalog may be what failed. */
	if (r < 0)
		(void)entry->driver->record_write(entry->pool, ref, old, &ignored);
	return r;
}

static int write_everywhere(struct coppice *coppice, const struct volume_name *fingerprint,
			    const struct image_record *image, struct coppice_error *err)
{
	struct volume_ref ref = { .kind = VOLUME_IMAGE, .name = *fingerprint };
	int r = COPPICE_OK;

	if (!coppice->options.is_dry_run)
		r = store_update(coppice, fingerprint->text, image, err);
	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++)
		r = write_in_pool(coppice, coppice->pools[i], &ref, image, err);
	return r;
}

/* Keep a changed record wherever the image is, or where that fails the old one. */
static int update_record(struct coppice *coppice, const struct volume_name *fingerprint,
			 const struct image_record *image, const struct image_record *old,
			 struct coppice_error *err)
{
	struct coppice_error ignored;
	int r = write_everywhere(coppice, fingerprint, image, err);

	if (r < 0)
		(void)write_everywhere(coppice, fingerprint, old, &ignored);
	else if (!coppice->options.is_dry_run)
		images_catch_up(coppice);
	return r;
}

/* Lock names of images, look one up, take @old away (NULL: nothing), add @new (the same). */
static int change_aliases(struct coppice *coppice, const char *image, const char *old,
			  const char *new, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(image_record_done) struct image_record record = { 0 }, before = { 0 };
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
		r = alias_must_not_exist(coppice, new, err);
	if (r == COPPICE_OK) /* the alias may look like the fingerprint of another */
		r = old ? fingerprint_parse(of, &fingerprint, err)
			: image_resolve(coppice, image, &fingerprint, err);
	if (r == COPPICE_OK)
		r = image_record_of(coppice, fingerprint.text, &has_bytes, &record, err);
	if (r == COPPICE_OK)
		r = image_record_copy(&before, &record, err);
	if (r == COPPICE_OK && old)
		image_record_remove_alias(&record, old);
	if (r == COPPICE_OK && new)
		r = image_record_add_alias(&record, new, err);
	return r < 0 ? r : update_record(coppice, &fingerprint, &record, &before, err);
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
