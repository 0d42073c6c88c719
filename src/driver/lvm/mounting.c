/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting, when somebody asks for a path. A volume's device is there for as long: none is
 * active at boot, as --setactivationskip says.
 */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/text.h"
#include "driver/generic/device_mount.h"
#include "driver/generic/inuse.h"
#include "driver/generic/record_config.h"

/* ---- devices ---- */

int lvm_activate(struct session *session, const char *name, struct coppice_error *err)
{
	return session_do(session, NULL, err, "lvchange -ay -K %s/%s", session->lvm->vg, name);
}

int lvm_deactivate(struct session *session, const char *name, struct coppice_error *err)
{
	char device[PATH_MAX];

	lvm_device(session->lvm, name, device);
	if (access(device, F_OK) < 0)
		return COPPICE_OK;
	return session_do(session, NULL, err, "lvchange -an %s/%s", session->lvm->vg, name);
}

/* ---- what is mounted ---- */

static bool ends_with(const char *text, const char *tail)
{
	size_t n = strlen(text), m = strlen(tail);

	return n >= m && strcmp(text + n - m, tail) == 0;
}

struct looking {
	const struct lvm_pool *lvm;
	const char *name;
};

/*
 * Is it a place where Coppice mounts this, or mounted it from another state directory, before the
 * pool was taken over?
 */
static bool is_place(const struct lvm_pool *lvm, const char *name, const char *where)
{
	size_t n = strlen(lvm->mount);
	char tail[2 * LV_NAME_MAX];
	struct volume_ref ref;

	if ((strncmp(where, lvm->mount, n) == 0 && where[n] == '/') || strstr(where, "/drafts/") ||
	    strstr(where, "/snapshots/"))
		return true;
	if (!lvm_name_parse(name, &ref))
		return false;
	(void)snprintf(tail, sizeof(tail), "/%s/%s", lvm_kind_word(ref.kind), ref.name.text);
	return ends_with(where, tail);
}

static bool is_our_place(const void *user, const char *where)
{
	const struct looking *looking = user;

	return is_place(looking->lvm, looking->name, where);
}

static bool find_mount(const struct lvm_pool *lvm, const char *name, bool is_ours,
		       char ret[static PATH_MAX])
{
	struct looking looking = { lvm, name };
	char device[PATH_MAX];

	lvm_device(lvm, name, device);
	return device_mount_find(device, is_our_place, &looking, is_ours, ret);
}

bool lvm_mount_find(const struct lvm_pool *lvm, const char *name, char ret[static PATH_MAX])
{
	return find_mount(lvm, name, true, ret) || find_mount(lvm, name, false, ret);
}

/* ---- mounting and unmounting ---- */

/* Larger than it is: by lvm now, and its file system when that is mounted. */
static int extend(struct session *session, const struct lv *lv, bool *ret_did,
		  struct coppice_error *err)
{
	char text[32];
	uint64_t wanted;

	*ret_did = false;
	if (!tag_get(lv->tags, TAG_SIZE, text, sizeof(text)))
		return COPPICE_OK;
	wanted = strtoull(text, NULL, 10);
	if (wanted <= lv->size_bytes)
		return COPPICE_OK;
	*ret_did = true;
	return session_do(session, NULL, err, "lvextend -L %llub %s/%s", whole_sectors(wanted),
			  session->lvm->vg, lv->name);
}

/* Its file system has the size that it was made with until it has grown to this. */
static bool may_be_larger(const struct lv *lv)
{
	char text[32];

	return tag_get(lv->tags, TAG_SIZE, text, sizeof(text));
}

/* To be mounted a file system is written to, which a full pool does not let it be. */
static int refuse_full(const struct lvm_pool *lvm, const struct lv *lv, struct coppice_error *err)
{
	struct coppice_error why = *err, ignored;
	struct pool_status status;

	if (lvm_pool_status(lvm, &status, &ignored) == COPPICE_OK && status.is_read_only)
		return fail(err, COPPICE_NO_SPACE,
			    "'%s/%s' cannot be mounted, as the thin pool is full, or read-only: "
			    "delete something, or make it larger",
			    lvm->vg, lv->name);
	*err = why;
	return err->code;
}

/* One that is read-only is written to for that, by nobody else. */
static int renew_uuid(struct session *session, const struct lv *lv, const char *device,
		      bool is_read_only, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	struct coppice_error ignored;
	int r = COPPICE_OK;

	if (is_read_only)
		r = session_do(session, NULL, err, "lvchange -q -prw %s/%s", lvm->vg, lv->name);
	if (r == COPPICE_OK)
		r = file_system_renew_uuid(device, err);
	if (is_read_only)
		(void)session_do(session, NULL, r == COPPICE_OK ? err : &ignored,
				 "lvchange -q -pr %s/%s", lvm->vg, lv->name);
	return r;
}

int lvm_open_block(struct session *session, const struct lv *lv, bool *ret_did,
		   struct coppice_error *err)
{
	char device[PATH_MAX];
	bool did_extend = false;
	int r = lv->snapshot[0] ? COPPICE_OK : extend(session, lv, &did_extend, err);

	lvm_device(session->lvm, lv->name, device);
	*ret_did = access(device, F_OK) < 0;
	return r < 0 || !*ret_did ? r : lvm_activate(session, lv->name, err);
}

int lvm_mount_at(struct session *session, const struct lv *lv, const char *path,
		 struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	_cleanup_(freep) char *own = record_config(lv->record, "block.mount_options");
	const char *options = own ? own : lvm->mount_options;
	bool is_read_only = lv->snapshot[0] || strncmp(lv->name, "images_", 7) == 0;
	char device[PATH_MAX], where[PATH_MAX];
	bool did_extend = false;
	int r = COPPICE_OK;

	if (lvm_mount_find(lvm, lv->name, where))
		return COPPICE_OK;
	if (!is_read_only)
		r = extend(session, lv, &did_extend, err);
	if (r == COPPICE_OK)
		r = lvm_activate(session, lv->name, err);
	if (r == COPPICE_OK)
		r = folders_ensure(lvm->mount, path, err);
	if (r < 0)
		return r;
	lvm_device(lvm, lv->name, device);
	r = file_system_mount(device, options, is_read_only, path, err);
	if (r == COPPICE_EXISTS) {
		r = renew_uuid(session, lv, device, is_read_only, err);
		if (r == COPPICE_OK)
			r = file_system_mount(device, options, is_read_only, path, err);
	}
	if (r < 0)
		r = refuse_full(lvm, lv, err);
	if (r == COPPICE_OK && !is_read_only && may_be_larger(lv))
		r = file_system_grow(path, device, err);
	return r;
}

/*
 * Ours first: where one place is seen at two, by a bind mount of what is above, the other goes
 * with it.
 */
static int umount_device(struct lvm_pool *lvm, const char *name, struct coppice_error *err)
{
	char where[PATH_MAX];

	while (find_mount(lvm, name, true, where)) {
		if (umount2(where, UMOUNT_NOFOLLOW) == 0) {
			(void)rmdir(where);
			continue;
		}
		if (errno == EBUSY)
			return fail(err, COPPICE_BUSY, "'%s' is in use", where);
		if (errno != EINVAL)
			return fail_errno(err, errno, "cannot unmount '%s'", where);
	}
	if (find_mount(lvm, name, false, where))
		return fail(err, COPPICE_BUSY,
			    "'%s/%s' is in use: it is mounted at '%s', and not by Coppice", lvm->vg,
			    name, where);
	return COPPICE_OK;
}

int lvm_umount(struct session *session, const char *name, struct coppice_error *err)
{
	int r = umount_device(session->lvm, name, err);

	return r < 0 ? r : lvm_deactivate(session, name, err);
}

int lvm_umount_ref(struct session *session, const struct lv_list *listing,
		   const struct volume_ref *ref, struct coppice_error *err)
{
	struct lv *lv = lv_list_find_ref(session->lvm, listing, ref);
	int r;

	if (!lv)
		return COPPICE_OK;
	r = lvm_umount(session, lv->name, err);
	for (size_t i = 0; i < listing->n && r == COPPICE_OK && !volume_is_snapshot(ref); i++)
		if (listing->lv[i].volume == lv)
			r = lvm_umount(session, listing->lv[i].name, err);
	return r;
}

/* ---- paths ---- */

int lvm_path(struct pool *pool, const struct volume_ref *ref, char **ret, struct coppice_error *err)
{
	const char *word = lvm_kind_word(ref->kind), *mount = lvm_pool_of(pool)->mount;
	char name[LV_NAME_MAX], device[PATH_MAX], *path;

	if (volume_is_block(ref)) {
		if (lvm_name(lvm_pool_of(pool), ref, name, err) < 0)
			return err->code;
		lvm_device(lvm_pool_of(pool), name, device);
		path = strdup(device);
	} else if (volume_is_snapshot(ref)) {
		path = text_format("%s/snapshots/%s/%s/%s", mount, word, ref->name.text,
				   ref->snapshot.text);
	} else {
		path = text_format("%s/%s/%s", mount, word, ref->name.text);
	}
	if (!path)
		return fail_memory(err);
	*ret = path;
	return COPPICE_OK;
}

/* Is it mounted where its path says? By whoever; its name need not be looked up for that. */
static bool is_at_path(struct pool *pool, const struct volume_ref *ref)
{
	_cleanup_(freep) char *path = NULL;
	struct coppice_error ignored;
	struct stat top, above;
	char name[LV_NAME_MAX], where[PATH_MAX];

	if (lvm_path(pool, ref, &path, &ignored) < 0 || stat(path, &top) < 0 ||
	    stat(lvm_pool_of(pool)->mount, &above) < 0 || top.st_dev == above.st_dev)
		return false;
	return lvm_name(lvm_pool_of(pool), ref, name, &ignored) == COPPICE_OK &&
	       lvm_mount_find(lvm_pool_of(pool), name, where) && strcmp(where, path) == 0;
}

int lvm_volume_mount(struct pool *pool, const struct volume_ref *ref, bool *ret_did,
		     struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	_cleanup_(freep) char *path = NULL;
	char where[PATH_MAX];
	struct lv *lv;
	int r;

	*ret_did = false;
	if (pool->is_dry_run || (!volume_is_block(ref) && is_at_path(pool, ref)))
		return COPPICE_OK;
	r = lvm_path(pool, ref, &path, err);
	if (r == COPPICE_OK)
		r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lvm_find(&session, ref, &listing, &lv, err);
	if (r < 0 || lvm_mount_find(lvm, lv->name, where))
		return r;
	if (volume_is_block(ref))
		return lvm_open_block(&session, lv, ret_did, err);
	r = lvm_mount_at(&session, lv, path, err);
	*ret_did = r == COPPICE_OK;
	return r;
}

int lvm_volume_umount(struct pool *pool, const struct volume_ref *ref, struct coppice_error *err)
{
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	struct lv *lv;
	int r;

	r = session_begin(lvm_pool_of(pool), true, &session, err);
	if (r == COPPICE_OK)
		r = lvm_find(&session, ref, &listing, &lv, err);
	return r < 0 ? r : lvm_umount(&session, lv->name, err);
}

/* ---- in use ---- */

/* Where others would have it open; false: nowhere. */
static bool find_used(struct pool *pool, const struct volume_ref *ref, char ret[static PATH_MAX])
{
	const struct lvm_pool *lvm = lvm_pool_of(pool);
	struct coppice_error ignored;
	char name[LV_NAME_MAX];

	if (lvm_name(lvm, ref, name, &ignored) < 0)
		return false;
	if (!volume_is_block(ref))
		return lvm_mount_find(lvm, name, ret);
	lvm_device(lvm, name, ret);
	return access(ret, F_OK) == 0;
}

int lvm_in_use(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
	       void *user, struct coppice_error *err)
{
	return in_use_where(pool, refs, n, find_used, tell, user, err);
}
