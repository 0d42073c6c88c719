/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting, when somebody asks for a path. A snapshot is read through a clone of it, that nobody
 * sees and that goes when it is unmounted: only so can its journal be played.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "base/text.h"
#include "driver/generic/device_mount.h"
#include "driver/generic/filesystem.h"
#include "driver/generic/inuse.h"
#include "driver/generic/record_config.h"

/* Somewhere that Coppice mounts things at. */
static bool is_place(const void *user, const char *where)
{
	const struct ceph_pool *ceph = user;
	size_t n = strlen(ceph->mount);

	return (strncmp(where, ceph->mount, n) == 0 && where[n] == '/') ||
	       strstr(where, "/drafts/") || strstr(where, "/snapshots/");
}

static bool find_mount(const struct ceph_pool *ceph, const char *name, bool is_ours,
		       char ret[static PATH_MAX])
{
	char device[PATH_MAX];

	return ceph_mapped(ceph, name, device) &&
	       device_mount_find(device, is_place, ceph, is_ours, ret);
}

static bool mount_find(const struct ceph_pool *ceph, const char *name, char ret[static PATH_MAX])
{
	return find_mount(ceph, name, true, ret) || find_mount(ceph, name, false, ret);
}

struct flushing {
	const char *path;
	bool is_mounted;
};

static int flush(void *user, struct coppice_error *err)
{
	const struct flushing *flushing = user;
	_cleanup_(closep) int fd = open(flushing->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (flushing->is_mounted ? syncfs(fd) : fsync(fd)) < 0)
		return fail_errno(err, errno, "cannot write out '%s'", flushing->path);
	return COPPICE_OK;
}

int ceph_flush(const struct ceph_pool *ceph, const struct ceph_turn *turn, const char *device,
	       const char *where, struct coppice_error *err)
{
	struct flushing flushing = { where ? where : device, where != NULL };

	return ceph_patiently(ceph, turn, device, flush, &flushing, err, "cannot write out '%s'",
			      flushing.path);
}

int ceph_settle(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	_cleanup_(ceph_turn_give) struct ceph_turn turn = { 0 };
	char device[PATH_MAX], where[PATH_MAX];
	int r = COPPICE_OK;

	/* What lies in memory here is not of it, and would be waited for for ever. */
	if (ceph_was_taken_over(ceph, rbd))
		return COPPICE_OK;
	/* While it is unmounted it is mounted no more, and all of it not yet on its device. */
	if (ceph_linked(ceph, rbd->name, device))
		r = ceph_turn_take(ceph, rbd->name, &turn, err);
	if (r < 0 || !ceph_mapped(ceph, rbd->name, device))
		return r;
	/* Left behind, it changes nothing, and nobody need wait for it. */
	return ceph_flush(ceph, NULL, device, mount_find(ceph, rbd->name, where) ? where : NULL,
			  err);
}

/* ---- mounting and unmounting ---- */

/* Larger than it is: now, and its file system when that is mounted. */
static int extend(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	const char *text = rbd_meta(rbd, META_SIZE);
	uint64_t wanted = text ? strtoull(text, NULL, 10) : 0;

	return wanted > rbd->size_bytes ? ceph_resize_image(ceph, rbd->name, wanted, err)
					: COPPICE_OK;
}

static int mount_device(struct ceph_pool *ceph, const struct rbd *rbd, const char *device,
			bool is_read_only, const char *path, struct coppice_error *err)
{
	_cleanup_(freep) char *own =
		rbd->record ? record_config(rbd->record, "block.mount_options") : NULL;
	const char *options = own ? own : ceph->mount_options;
	int r = folders_ensure(ceph->mount, path, err);

	if (r == COPPICE_OK)
		r = file_system_mount(device, options, is_read_only, path, err);
	if (r == COPPICE_EXISTS) {
		r = file_system_renew_uuid(device, err);
		if (r == COPPICE_OK)
			r = file_system_mount(device, options, is_read_only, path, err);
	}
	return r;
}

/* Mounted; or, of ext4, where we are not let do that, before it is mounted again. */
static int grow(struct ceph_pool *ceph, const struct rbd *rbd, const char *device, const char *path,
		struct coppice_error *err)
{
	int r = file_system_grow(path, device, err);
	struct statfs fs;

	if (r == COPPICE_OK || statfs(path, &fs) < 0 || fs.f_type != EXT4_SUPER_MAGIC ||
	    umount2(path, UMOUNT_NOFOLLOW) < 0)
		return r;
	r = file_system_grow_unmounted(device, err);
	return r < 0 ? r : mount_device(ceph, rbd, device, false, path, err);
}

struct mounting {
	struct ceph_pool *ceph;
	const struct ceph_turn *turn;
	const struct rbd *rbd;
	const char *device, *path;
	bool is_read_only;
};

static int mount_it(void *user, struct coppice_error *err)
{
	const struct mounting *mounting = user;
	int r = mount_device(mounting->ceph, mounting->rbd, mounting->device,
			     mounting->is_read_only, mounting->path, err);

	if (r == COPPICE_OK && !mounting->is_read_only && rbd_meta(mounting->rbd, META_SIZE))
		r = grow(mounting->ceph, mounting->rbd, mounting->device, mounting->path, err);
	return r;
}

static int mount_patiently(struct mounting *mounting, struct coppice_error *err)
{
	return ceph_patiently(mounting->ceph, mounting->turn, mounting->device, mount_it, mounting,
			      err, "cannot mount '%s'", mounting->path);
}

static int map_to_write(struct ceph_pool *ceph, const struct ceph_turn *turn, const struct rbd *rbd,
			char ret_device[static PATH_MAX], struct coppice_error *err)
{
	int r = ceph_hold(ceph, rbd, err);

	if (r < 0)
		return r;
	if (!ceph_mapped(ceph, rbd->name, ret_device))
		r = extend(ceph, rbd, err);
	if (r == COPPICE_OK)
		r = ceph_map(ceph, turn, rbd->name, ret_device, err);
	return r < 0 ? r : ceph_hold_mapped(ceph, rbd, err);
}

int ceph_mount_at(struct ceph_pool *ceph, const struct ceph_turn *turn, const struct rbd *rbd,
		  const char *path, struct coppice_error *err)
{
	char device[PATH_MAX], where[PATH_MAX];
	struct mounting mounting = { .ceph = ceph,
				     .turn = turn,
				     .rbd = rbd,
				     .device = device,
				     .path = path,
				     .is_read_only = strncmp(rbd->name, "image_", 6) == 0 };
	int r;

	if (mount_find(ceph, rbd->name, where))
		return COPPICE_OK;
	r = mounting.is_read_only ? ceph_map(ceph, turn, rbd->name, device, err)
				  : map_to_write(ceph, turn, rbd, device, err);
	return r < 0 ? r : mount_patiently(&mounting, err);
}

/* What another host has by now waits here for what it can never write. */
static void forsake_lost(struct ceph_pool *ceph, const char *name)
{
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	struct coppice_error ignored;
	char device[PATH_MAX];
	struct rbd_snap *snap;
	struct volume_ref ref;
	struct rbd *rbd;

	if (ceph->io && ceph_linked(ceph, name, device) && ceph_name_parse(name, &ref) &&
	    ceph_find(ceph, &ref, &listing, &rbd, &snap, &ignored) == COPPICE_OK &&
	    ceph_was_taken_over(ceph, rbd))
		ceph_forsake(ceph, name);
}

static int umount_it(void *user, struct coppice_error *err)
{
	const char *where = user;

	return umount2(where, UMOUNT_NOFOLLOW) < 0
		       ? fail_errno(err, errno, "cannot unmount '%s'", where)
		       : COPPICE_OK;
}

bool ceph_is_view(const char *name)
{
	return strncmp(name, "view_", 5) == 0;
}

static int remove_view(struct ceph_pool *ceph, const char *name, struct coppice_error *err)
{
	char id[RBD_ID_MAX];
	struct coppice_error ignored;
	int r;

	if (header_id(ceph, name, id, &ignored) < 0)
		return COPPICE_OK; /* there is none */
	r = rbd_remove(ceph->io, name);
	return r < 0 && r != -ENOENT
		       ? fail_ceph(ceph, r, err, "cannot remove '%s/%s'", ceph->osd_pool, name)
		       : COPPICE_OK;
}

/* No image is mounted by us more often, nor by those who unmount beside us. */
#define MOUNTS_MAX 64

int ceph_umount(struct ceph_pool *ceph, const char *name, struct coppice_error *err)
{
	_cleanup_(ceph_turn_give) struct ceph_turn turn = { 0 };
	char where[PATH_MAX], device[PATH_MAX];
	bool was_mapped;
	int r;

	forsake_lost(ceph, name);
	r = ceph_turn_take(ceph, name, &turn, err);
	if (r < 0)
		return r;
	was_mapped = ceph_mapped(ceph, name, device);
	for (int n = 0; find_mount(ceph, name, true, where); n++) {
		r = ceph_patiently(ceph, &turn, device, umount_it, where, err,
				   "cannot unmount '%s'", where);
		if (r == COPPICE_OK)
			(void)rmdir(where);
		else if (err->os_errno == EBUSY)
			return fail(err, COPPICE_BUSY, "'%s' is in use", where);
		else if (err->os_errno != EINVAL || n == MOUNTS_MAX) /* EINVAL: just unmounted */
			return r;
	}
	if (find_mount(ceph, name, false, where))
		return fail(err, COPPICE_BUSY,
			    "'%s/%s' is in use: it is mounted at '%s', and not by Coppice",
			    ceph->osd_pool, name, where);
	r = ceph_unmap(ceph, &turn, name, err);
	if (r == COPPICE_OK && was_mapped)
		ceph_let_go(ceph, name);
	return r < 0 || !ceph_is_view(name) || !ceph->io ? r : remove_view(ceph, name, err);
}

/* ---- snapshots ---- */

/* Of an image's snapshot: what this host reads it through. */
static void view_name(const struct ceph_pool *ceph, const struct rbd *rbd,
		      const struct rbd_snap *snap, char ret[static RBD_NAME_MAX])
{
	(void)snprintf(ret, RBD_NAME_MAX, "view_%s.%llu.%s", rbd->id, (unsigned long long)snap->id,
		       ceph->owner.text);
}

bool ceph_is_view_left(const struct ceph_pool *ceph, const char *name)
{
	const char *owner = ceph_is_view(name) ? strrchr(name, '.') : NULL;
	char device[PATH_MAX];

	return owner && strcmp(owner + 1, ceph->owner.text) == 0 &&
	       !ceph_mapped(ceph, name, device);
}

static int umount_view(struct ceph_pool *ceph, const struct rbd *rbd, const struct rbd_snap *snap,
		       struct coppice_error *err)
{
	char name[RBD_NAME_MAX];

	view_name(ceph, rbd, snap, name);
	return ceph_umount(ceph, name, err);
}

static int open_view(struct ceph_pool *ceph, const struct ceph_turn *turn, const struct rbd *rbd,
		     const struct rbd_snap *snap, char ret_device[static PATH_MAX],
		     struct coppice_error *err)
{
	char name[RBD_NAME_MAX];
	rbd_image_options_t options;
	struct coppice_error ignored;
	char link[PATH_MAX];
	int r;

	view_name(ceph, rbd, snap, name);
	rbd_image_options_create(&options);
	r = rbd_clone3(ceph->making_io, rbd->name, snap->name, ceph->making_io, name, options);
	rbd_image_options_destroy(options);
	if (r < 0 && r != -EEXIST)
		return fail_ceph(ceph, r, err, "cannot clone '%s/%s@%s' to look at it",
				 ceph->osd_pool, rbd->name, snap->name);
	r = ceph_map(ceph, turn, name, ret_device, err);
	if (r < 0 && !ceph_linked(ceph, name, link)) /* or it may be mapped still */
		(void)remove_view(ceph, name, &ignored);
	return r;
}

static int mount_view(struct ceph_pool *ceph, const struct ceph_turn *turn, const struct rbd *rbd,
		      const struct rbd_snap *snap, const char *path, bool *ret_did,
		      struct coppice_error *err)
{
	char name[RBD_NAME_MAX], where[PATH_MAX], device[PATH_MAX];
	int r;

	view_name(ceph, rbd, snap, name);
	if (mount_find(ceph, name, where))
		return COPPICE_OK;
	r = open_view(ceph, turn, rbd, snap, device, err);
	if (r == COPPICE_OK)
		r = mount_patiently(
			&(struct mounting){ .ceph = ceph,
					    .turn = turn,
					    .rbd = &(struct rbd){ .record = snap->record },
					    .device = device,
					    .path = path,
					    .is_read_only = true },
			err);
	*ret_did = r == COPPICE_OK;
	return r;
}

struct umounting {
	struct ceph_pool *ceph;
};

static int umount_snap(void *user, struct rbd *rbd, struct rbd_snap *snap,
		       struct coppice_error *err)
{
	const struct umounting *umounting = user;
	char name[RBD_NAME_MAX], device[PATH_MAX];

	view_name(umounting->ceph, rbd, snap, name);
	return ceph_linked(umounting->ceph, name, device)
		       ? umount_view(umounting->ceph, rbd, snap, err)
		       : COPPICE_OK;
}

int ceph_umount_ref(struct ceph_pool *ceph, const struct rbd_list *listing,
		    const struct volume_ref *ref, struct coppice_error *err)
{
	struct umounting umounting = { .ceph = ceph };
	struct rbd_snap *snap;
	struct rbd *rbd = rbd_find_ref(listing, ref, &snap);
	int r;

	if (!rbd)
		return COPPICE_OK;
	if (snap)
		return umount_snap(&umounting, rbd, snap, err);
	r = ceph_check_elsewhere(ceph, rbd, err);
	if (r == COPPICE_OK)
		r = ceph_umount(ceph, rbd->name, err);
	return r < 0 ? r : rbd_snaps_each(listing, rbd, umount_snap, &umounting, err);
}

/* ---- paths ---- */

int ceph_path(struct pool *pool, const struct volume_ref *ref, char **ret,
	      struct coppice_error *err)
{
	const char *word = ceph_kind_word(ref->kind), *mount = ceph_pool_of(pool)->mount;
	char name[RBD_NAME_MAX], *path;

	if (volume_is_block(ref)) {
		ceph_name(ref, name);
		path = volume_is_snapshot(ref)
			       ? text_format("%s/devices/%s@%s", mount, name, ref->snapshot.text)
			       : text_format("%s/devices/%s", mount, name);
	} else if (volume_is_snapshot(ref)) {
		path = text_format("%s/snapshots/%ss/%s/%s", mount, word, ref->name.text,
				   ref->snapshot.text);
	} else {
		path = text_format("%s/%ss/%s", mount, word, ref->name.text);
	}
	if (!path)
		return fail_memory(err);
	*ret = path;
	return COPPICE_OK;
}

/* What is mapped here may be so no longer to any use. */
static int check_alive(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	const char *name = strchr(rbd->name, '_');
	int r = COPPICE_OK;

	name = name ? name + 1 : rbd->name;
	if (ceph_was_taken_over(ceph, rbd)) {
		r = ceph_check_elsewhere(ceph, rbd, err);
		return r < 0 ? r
			     : fail(err, COPPICE_BUSY,
				    "'%s' was mounted on another host while this one was cut off, "
				    "and nothing is written from here any more; see: coppice "
				    "umount %s",
				    name, name);
	}
	if (ceph_is_mapped_dead(ceph, rbd->name))
		r = fail(err, COPPICE_UNAVAILABLE,
			 "rbd-fuse, which '%s' is mapped by, has died; see: coppice umount %s",
			 name, name);
	return r;
}

static int open_block(struct ceph_pool *ceph, const struct ceph_turn *turn, const struct rbd *rbd,
		      const struct rbd_snap *snap, const char *path, bool *ret_did,
		      struct coppice_error *err)
{
	char name[RBD_NAME_MAX], device[PATH_MAX];
	int r;

	(void)snprintf(name, sizeof(name), "%s", rbd->name);
	if (snap)
		view_name(ceph, rbd, snap, name);
	*ret_did = !ceph_mapped(ceph, name, device);
	if (!*ret_did && (!snap || access(path, F_OK) == 0))
		return COPPICE_OK;
	r = snap ? open_view(ceph, turn, rbd, snap, device, err)
		 : map_to_write(ceph, turn, rbd, device, err);
	if (r == COPPICE_OK && snap) {
		(void)unlink(path);
		if (symlink(device, path) < 0)
			r = fail_errno(err, errno, "cannot make '%s'", path);
	}
	return r;
}

/* What is noted of an instance here may change until it is our turn; of a snapshot nothing is. */
static int find_in_turn(struct ceph_pool *ceph, const struct volume_ref *ref,
			struct ceph_turn *turn, struct rbd_list *listing, struct rbd **ret,
			struct rbd_snap **ret_snap, struct coppice_error *err)
{
	char name[RBD_NAME_MAX];
	int r = COPPICE_OK;

	ceph_name(ref, name);
	if (!volume_is_snapshot(ref))
		r = ceph_turn_take(ceph, name, turn, err);
	if (r == COPPICE_OK)
		r = ceph_find(ceph, ref, listing, ret, ret_snap, err);
	if (r == COPPICE_OK && *ret_snap) {
		view_name(ceph, *ret, *ret_snap, name);
		r = ceph_turn_take(ceph, name, turn, err);
	} else if (r == COPPICE_OK) {
		r = check_alive(ceph, *ret, err);
	}
	return r;
}

int ceph_volume_mount(struct pool *pool, const struct volume_ref *ref, bool *ret_did,
		      struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	_cleanup_(ceph_turn_give) struct ceph_turn turn = { 0 };
	_cleanup_(freep) char *path = NULL;
	struct rbd_snap *snap;
	char where[PATH_MAX];
	struct rbd *rbd;
	int r;

	*ret_did = false;
	r = ceph_path(pool, ref, &path, err);
	if (r < 0 || pool->is_dry_run)
		return r;
	r = find_in_turn(ceph, ref, &turn, &listing, &rbd, &snap, err);
	if (r < 0)
		return r;
	if (volume_is_block(ref))
		return open_block(ceph, &turn, rbd, snap, path, ret_did, err);
	if (snap)
		return mount_view(ceph, &turn, rbd, snap, path, ret_did, err);
	if (mount_find(ceph, rbd->name, where))
		return COPPICE_OK;
	r = ceph_mount_at(ceph, &turn, rbd, path, err);
	*ret_did = r == COPPICE_OK;
	return r;
}

int ceph_volume_umount(struct pool *pool, const struct volume_ref *ref, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	_cleanup_(freep) char *path = NULL;
	struct rbd_snap *snap;
	struct rbd *rbd;
	int r = ceph_find(ceph, ref, &listing, &rbd, &snap, err);

	if (r < 0)
		return r;
	if (!snap)
		return ceph_umount(ceph, rbd->name, err);
	r = umount_view(ceph, rbd, snap, err);
	if (r == COPPICE_OK && volume_is_block(ref) &&
	    ceph_path(pool, ref, &path, err) == COPPICE_OK)
		(void)unlink(path);
	return r;
}

/* ---- in use ---- */

/* Where others would have it open; false: nowhere. */
static bool find_used(struct pool *pool, const struct volume_ref *ref, char ret[static PATH_MAX])
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(freep) char *path = NULL;
	struct coppice_error ignored;
	char name[RBD_NAME_MAX];

	ceph_name(ref, name);
	if (volume_is_snapshot(ref)) {
		if (ceph_path(pool, ref, &path, &ignored) < 0 || access(path, F_OK) < 0)
			return false;
		if (!volume_is_block(ref)) {
			(void)snprintf(ret, PATH_MAX, "%s", path);
			return true;
		}
		return realpath(path, ret) != NULL;
	}
	return volume_is_block(ref) ? ceph_mapped(ceph, name, ret) : mount_find(ceph, name, ret);
}

int ceph_in_use(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
		void *user, struct coppice_error *err)
{
	return in_use_where(pool, refs, n, find_used, tell, user, err);
}
