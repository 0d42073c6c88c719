/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes on Btrfs: snapshots, sealing, accounts. What is plain directories is
 * generic/layout.c; what holds it all is pool.c; many at once is batch.c.
 */
#include "driver/btrfs/btrfs.h"

#include <btrfsutil.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/text.h"
#include "driver/btrfs/ballast.h"
#include "driver/btrfs/batch.h"
#include "driver/btrfs/quota.h"
#include "driver/btrfs/shape.h"
#include "driver/generic/fill.h"
#include "driver/generic/limit.h"
#include "driver/generic/remove.h"

static int commit(struct pool *pool, struct coppice_error *err)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(pool);
	uint64_t transid;
	int r;

	layout_explain(&btrfs->layout, "btrfs filesystem sync %s", btrfs->layout.quoted);
	if (pool->is_dry_run)
		return COPPICE_OK;
	if (!btrfs->layout.has_retired)
		return batch_commit(btrfs->layout.fd, err);
	/* Accounts of earlier deletions are closed while the disk works. */
	r = batch_commit_begin(btrfs->layout.fd, &transid, err);
	if (r < 0)
		return r;
	btrfs->layout.has_retired = false;
	layout_close_accounts(&btrfs->layout);
	return batch_commit_wait(btrfs->layout.fd, transid, err);
}

/* ---- what the layout asks of us ---- */

static int data_destroy(struct layout *layout, int dir_fd, const char *name,
			struct coppice_error *err)
{
	struct btrfs_ioctl_vol_args args = { 0 };
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? COPPICE_OK
				       : fail_errno(err, errno, "cannot look at '%s'", name);
	if (!S_ISDIR(st.st_mode) || st.st_ino != SUBVOLUME_INODE)
		return tree_remove(dir_fd, name, 0, err);
	(void)snprintf(args.name, sizeof(args.name), "%s", name);
	btrfs_pool_of(&layout->pool)->has_destroyed = true;
	if (ioctl(dir_fd, BTRFS_IOC_SNAP_DESTROY, &args) == 0 || errno == ENOENT)
		return COPPICE_OK;
	/* Subvolumes that a container made in it go too; to look for them always costs time. */
	if (errno == ENOTEMPTY &&
	    btrfs_util_delete_subvolume_fd(dir_fd, name, BTRFS_UTIL_DELETE_SUBVOLUME_RECURSIVE) ==
		    BTRFS_UTIL_OK)
		return COPPICE_OK;
	return fail_errno(err, errno, "cannot destroy subvolume '%s'", name);
}

static bool make_room(struct layout *layout)
{
	return btrfs_ballast_drop(btrfs_pool_of(&layout->pool));
}

static void data_destroy_explain(struct layout *layout, const char *path)
{
	layout_explain(layout, "btrfs subvolume delete %s", path);
}

static int account_close(struct layout *layout, const struct uuid *uuid, bool *ret_held,
			 struct coppice_error *err)
{
	*ret_held = false;
	if (!CONTAINER_OF(layout, struct btrfs_pool, layout)->has_quota)
		return COPPICE_OK;
	return quota_group_close(layout->fd, quota_group(uuid), ret_held, err);
}

const struct layout_engine btrfs_engine = {
	.data_destroy = data_destroy,
	.data_destroy_explain = data_destroy_explain,
	.make_room = make_room,
	.account_close = account_close,
};

/* ---- making volumes ---- */

/* A group as a word for a shell: a number, or derived from the variable with the uuid. */
static char *group_word(const struct new_volume *volume)
{
	char text[QUOTA_GROUP_TEXT_MAX];
	const char *variable = volume->explain_group;

	if (variable)
		return text_format("1/$((0x${%s:0:8}${%s:9:4}))", variable, variable);
	return strdup(quota_group_format(quota_group(&volume->group), text));
}

/* How a new subvolume is made a member of its account, in the ioctl that makes it. */
struct membership {
	struct btrfs_qgroup_inherit inherit;
	uint64_t group; /* what inherit.qgroups[0] names */
};

static void join(struct btrfs_pool *btrfs, struct btrfs_ioctl_vol_args_v2 *args,
		 struct membership *membership, const struct uuid *group)
{
	if (!btrfs->has_quota)
		return;
	*membership = (struct membership){
		.inherit = { .num_qgroups = 1 },
		.group = quota_group(group),
	};
	args->flags |= BTRFS_SUBVOL_QGROUP_INHERIT;
	args->size = sizeof(*membership);
	args->qgroup_inherit = &membership->inherit;
}

static int can_limit(struct pool *pool, struct coppice_error *err)
{
	if (btrfs_pool_of(pool)->has_quota)
		return COPPICE_OK;
	return fail(err, COPPICE_UNSUPPORTED,
		    "size cannot be limited: the pool has no simple quotas (they need Linux 6.7 "
		    "and a pool made with them)");
}

static int open_account(struct btrfs_pool *btrfs, const struct new_volume *volume,
			struct coppice_error *err)
{
	uint64_t group = quota_group(&volume->group);
	int fd = btrfs->layout.fd, r;
	bool is_left;

	r = quota_group_create(fd, group, err);
	/* One that was moved away, and comes back, finds what was not yet freed of its account; or
	 * it was closed between the question and the second look. */
	is_left = r < 0 && err->os_errno == EEXIST;
	if (is_left)
		r = layout_has_account_left(&btrfs->layout, &volume->group)
			    ? COPPICE_OK
			    : quota_group_create(fd, group, err);
	if (r == COPPICE_OK && volume->limit_bytes > 0)
		r = quota_group_limit(fd, group, volume->limit_bytes, err);
	/* Closed since: whoever makes the subvolume is told, and opens it again. */
	return r < 0 && is_left && err->os_errno == ENOENT ? COPPICE_OK : r;
}

/* How often somebody may close an account just when it is opened again. */
#define ACCOUNT_TRIES 100

/*
 * An account that was left, and is opened again, somebody may just be closing: he can until a
 * subvolume is a member of it. Linux says ENOENT then (btrfs_qgroup_check_inherit(), since 6.9),
 * or, where it looked a moment earlier, makes a subvolume without an account
 * (btrfs_qgroup_inherit()).
 */
static int has_account(struct btrfs_pool *btrfs, const struct new_volume *volume, bool *ret,
		       struct coppice_error *err)
{
	uint64_t ignored;

	*ret = true;
	return btrfs->has_quota && layout_has_own_account(volume)
		       ? quota_group_read(btrfs->layout.fd, quota_group(&volume->group), &ignored,
					  ret, err)
		       : COPPICE_OK;
}

/* Directory, record and account of a new volume, without data yet. */
static int begin_volume(struct draft *draft, const struct new_volume *volume,
			struct coppice_error *err)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(draft->pool);
	int r = layout_item_create(draft, volume, err);

	if (r < 0 || !btrfs->has_quota || !layout_has_own_account(volume))
		return r;
	return open_account(btrfs, volume, err);
}

static void begin_volume_explain(struct draft *draft, const struct new_volume *volume)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(draft->pool);
	_cleanup_(freep) char *word = NULL;

	if (!draft->pool->explain)
		return;
	layout_item_explain(draft, volume);
	word = group_word(volume);
	if (!word || !btrfs->has_quota || !layout_has_own_account(volume))
		return;
	layout_explain(&btrfs->layout, "btrfs qgroup create %s %s", word, btrfs->layout.quoted);
	if (volume->limit_bytes > 0)
		layout_explain(&btrfs->layout, "btrfs qgroup limit %llu %s %s",
			       (unsigned long long)volume->limit_bytes, word, btrfs->layout.quoted);
}

/* "btrfs subvolume VERB [-i GROUP] [SOURCE] TARGET", both words for a shell. */
static void subvolume_explain(struct draft *draft, const struct new_volume *volume,
			      const char *verb, const char *source, const char *target)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(draft->pool);
	_cleanup_(freep) char *word = NULL;

	if (!draft->pool->explain)
		return;
	word = group_word(volume);
	if (!word)
		return;
	layout_explain(&btrfs->layout, "btrfs subvolume %s%s%s %s%s%s", verb,
		       btrfs->has_quota ? " -i " : "", btrfs->has_quota ? word : "", source,
		       *source ? " " : "", target);
}

static int create_subvolume(struct btrfs_pool *btrfs, const struct new_volume *volume, int fd,
			    struct coppice_error *err)
{
	struct btrfs_ioctl_vol_args_v2 args = { .name = LAYOUT_UNPACK };
	const char *name = volume->ref.name.text;
	struct membership membership;
	bool is_there = false;
	int r = COPPICE_OK;

	join(btrfs, &args, &membership, &volume->group);
	for (int i = 0; r == COPPICE_OK; i++) {
		int e = ioctl(fd, BTRFS_IOC_SUBVOL_CREATE_V2, &args) < 0 ? errno : 0;

		if (e == 0 || e == ENOENT)
			r = has_account(btrfs, volume, &is_there, err);
		if (r == COPPICE_OK && e != 0 && (e != ENOENT || is_there))
			return fail_errno(err, e, "cannot create a subvolume for '%s'", name);
		if (r < 0 || is_there)
			return r;
		if (i == ACCOUNT_TRIES)
			return fail(err, COPPICE_BUSY, "others close the account of '%s'", name);
		if (e == 0)
			r = data_destroy(&btrfs->layout, fd, LAYOUT_UNPACK, err);
		if (r == COPPICE_OK)
			r = open_account(btrfs, volume, err);
	}
	return r;
}

static int volume_create(struct draft *draft, const struct new_volume *volume, char **ret_path,
			 struct coppice_error *err)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(draft->pool);
	_cleanup_(closep) int fd = -1;
	char item[PATH_MAX], target[PATH_MAX + 32];
	int r;

	r = layout_refuse_limits(draft->pool, volume, 1, err);
	if (r < 0)
		return r;
	(void)snprintf(target, sizeof(target), "\"$draft\"/%s/unpack",
		       layout_item_path(volume, item));
	begin_volume_explain(draft, volume);
	subvolume_explain(draft, volume, "create", "", target);
	*ret_path = text_format("%s/drafts/%s/%s/unpack", btrfs->layout.path, draft->id.text, item);
	if (!*ret_path)
		return fail_memory(err);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;

	r = begin_volume(draft, volume, err);
	if (r == COPPICE_OK)
		fd = openat(draft->fd, item, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (r == COPPICE_OK && fd < 0)
		r = fail_errno(err, errno, "cannot open '%s'", item);
	if (r == COPPICE_OK)
		r = create_subvolume(btrfs, volume, fd, err);
	if (r < 0) {
		free(*ret_path);
		*ret_path = NULL;
	}
	return r;
}

static int snapshot(struct btrfs_pool *btrfs, int origin_fd, int dir_fd, bool is_read_only,
		    const struct uuid *group, struct coppice_error *err)
{
	struct btrfs_ioctl_vol_args_v2 args = {
		.fd = origin_fd,
		.flags = is_read_only ? BTRFS_SUBVOL_RDONLY : 0,
		.name = "live",
	};
	struct membership membership;

	join(btrfs, &args, &membership, group);
	if (ioctl(dir_fd, BTRFS_IOC_SNAP_CREATE_V2, &args) < 0)
		return fail_errno(err, errno, "cannot make a snapshot");
	return COPPICE_OK;
}

/* With a commit, Linux's own. */
static int set_read_only(int fd, struct coppice_error *err)
{
	uint64_t flags;

	if (ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, &flags) < 0)
		return fail_errno(err, errno, "cannot read the flags of a subvolume");
	flags |= BTRFS_SUBVOL_RDONLY;
	if (ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, &flags) < 0)
		return fail_errno(err, errno, "cannot make a subvolume read-only");
	return COPPICE_OK;
}

/*
 * A snapshot of what was filled: it writes out the data of this one subvolume, which
 * nothing else in Btrfs does, and its commit says that the volume is whole. Then the two
 * are alike, and change places, so that the one goes whose files nobody ever opened: to
 * forget 6,000 inodes takes the kernel 40 ms.
 */
static int volume_seal(struct draft *draft, const struct new_volume *volume, bool is_read_only,
		       struct coppice_error *err)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(draft->pool);
	_cleanup_(closep) int dir_fd = -1, origin_fd = -1;
	char item[PATH_MAX], source[PATH_MAX + 32], target[PATH_MAX + 32];
	int r;

	(void)layout_item_path(volume, item);
	(void)snprintf(source, sizeof(source), "\"$draft\"/%s/unpack", item);
	(void)snprintf(target, sizeof(target), "\"$draft\"/%s/live", item);
	subvolume_explain(draft, volume, is_read_only ? "snapshot -r" : "snapshot", source, target);
	data_destroy_explain(&btrfs->layout, source);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;

	dir_fd = openat(draft->fd, item, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir_fd >= 0)
		origin_fd = openat(dir_fd, LAYOUT_UNPACK,
				   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (origin_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", item);
	r = layout_item_record(draft, volume, err);
	if (r == COPPICE_OK && is_read_only)
		shape_for_clones(origin_fd);
	if (r == COPPICE_OK && is_read_only)
		r = set_read_only(origin_fd, err);
	if (r == COPPICE_OK)
		r = snapshot(btrfs, origin_fd, dir_fd, is_read_only, &volume->group, err);
	if (r == COPPICE_OK &&
	    renameat2(dir_fd, LAYOUT_UNPACK, dir_fd, "live", RENAME_EXCHANGE) < 0)
		r = fail_errno(err, errno, "cannot seal '%s'", item);
	return r < 0 ? r : data_destroy(&btrfs->layout, dir_fd, LAYOUT_UNPACK, err);
}

/* ---- clones ---- */

struct clones {
	struct draft *draft;
	const struct new_volume *volumes;
	int origin_fd;
	bool is_read_only;
};

static int clone_one(void *user, size_t i, struct coppice_error *err)
{
	struct clones *clones = user;
	const struct new_volume *volume = &clones->volumes[i];
	struct pool *pool = clones->draft->pool;
	_cleanup_(closep) int fd = -1;
	char item[PATH_MAX];
	int r;

	if (pool_is_interrupted(pool))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	fd = openat(clones->draft->fd, layout_item_path(volume, item),
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", item);
	r = snapshot(btrfs_pool_of(pool), clones->origin_fd, fd, clones->is_read_only,
		     &volume->group, err);
	return r < 0 ? wrap(err, "cannot clone as '%s'", item) : COPPICE_OK;
}

/* The origin's data; -1 with *r COPPICE_OK in a dry run, which may not have it yet. */
static int origin_open(struct pool *pool, const struct volume_ref *origin, int *r,
		       struct coppice_error *err)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(pool);
	char path[PATH_MAX], live[PATH_MAX + 8];
	int fd;

	*r = COPPICE_OK;
	if (pool->is_dry_run)
		return -1;
	(void)snprintf(live, sizeof(live), "%s/live", layout_ref_path(origin, path));
	fd = openat(btrfs->layout.fd, live, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		*r = fail(err, COPPICE_NOT_FOUND, "no %s '%s'", volume_kind_name(origin->kind),
			  origin->name.text);
	else if (fd < 0)
		*r = fail_errno(err, errno, "cannot open '%s'", live);
	return fd;
}

static void clone_explain(struct draft *draft, const struct volume_ref *origin,
			  const struct new_volume *volume, bool is_read_only)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(draft->pool);
	char path[PATH_MAX], source[2 * PATH_MAX], target[PATH_MAX + 32];

	(void)snprintf(source, sizeof(source), "%s/%s/live", btrfs->layout.quoted,
		       layout_ref_path(origin, path));
	(void)snprintf(target, sizeof(target), "\"$draft\"/%s/live",
		       layout_item_path(volume, path));
	subvolume_explain(draft, volume, is_read_only ? "snapshot -r" : "snapshot", source, target);
}

/* What was done before the snapshots is durable with them, the announcement too. */
static int clone_all(struct draft *draft, const struct volume_ref *origin,
		     const struct new_volume *volumes, size_t n, bool is_read_only,
		     struct coppice_error *err)
{
	struct clones clones = { .draft = draft, .volumes = volumes, .is_read_only = is_read_only };
	_cleanup_(closep) int origin_fd = -1;
	int r = layout_refuse_limits(draft->pool, volumes, n, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		begin_volume_explain(draft, &volumes[i]);
	for (size_t i = 0; i < n; i++)
		clone_explain(draft, origin, &volumes[i], is_read_only);
	origin_fd = origin_open(draft->pool, origin, &r, err);
	if (origin_fd < 0)
		return r;
	clones.origin_fd = origin_fd;
	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = begin_volume(draft, &volumes[i], err);
	if (r < 0)
		return r;
	return batch_run(draft->fd, n, clone_one, &clones, err);
}

/* ---- accounts ---- */

/* Is it enough for what was written? */
static int check_limit(struct btrfs_pool *btrfs, const struct volume_ref *ref,
		       const struct uuid *group, uint64_t limit_bytes, struct coppice_error *err)
{
	uint64_t written = 0;
	bool is_found;
	int r = limit_bytes ? quota_group_read(btrfs->layout.fd, quota_group(group), &written,
					       &is_found, err)
			    : COPPICE_OK;

	if (r < 0 || !limit_bytes)
		return r;
	return limit_check(ref->name.text, limit_bytes, "with its snapshots it has written",
			   written, err);
}

static int limit_set(struct pool *pool, const struct volume_ref *ref, const struct uuid *group,
		     uint64_t limit_bytes, unsigned how, struct coppice_error *err)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(pool);
	char text[QUOTA_GROUP_TEXT_MAX];
	int r;

	if (!btrfs->has_quota)
		return limit_bytes ? can_limit(pool, err) : COPPICE_OK;
	r = check_limit(btrfs, ref, group, limit_bytes, err);
	if (r < 0)
		return r;
	(void)quota_group_format(quota_group(group), text);
	if (limit_bytes > 0)
		layout_explain(&btrfs->layout, "btrfs qgroup limit %llu %s %s",
			       (unsigned long long)limit_bytes, text, btrfs->layout.quoted);
	else
		layout_explain(&btrfs->layout, "btrfs qgroup limit none %s %s", text,
			       btrfs->layout.quoted);
	if (pool->is_dry_run)
		return COPPICE_OK;
	return quota_group_limit(btrfs->layout.fd, quota_group(group), limit_bytes, err);
}

static int compare_charges(const void *a, const void *b)
{
	const struct quota_charge *x = a, *y = b;

	return x->group < y->group ? -1 : x->group > y->group;
}

/* Few are looked up one by one; many are found in one reading of all. */
#define LOOK_UP_MAX 32

static int usage_of_all(int fd, const struct uuid *groups, struct volume_usage *ret, size_t n,
			struct coppice_error *err)
{
	_cleanup_(freep) struct quota_charge *charges = NULL;
	size_t n_charges;
	int r;

	r = quota_read_all(fd, &charges, &n_charges, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		struct quota_charge wanted = { .group = quota_group(&groups[i]) };
		const struct quota_charge *charge =
			n_charges ? bsearch(&wanted, charges, n_charges, sizeof(wanted),
					    compare_charges)
				  : NULL;

		if (charge)
			ret[i].written = (struct coppice_bytes){ COPPICE_EXACT, charge->bytes };
	}
	return COPPICE_OK;
}

static int usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
		 struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(pool);
	int fd = btrfs->layout.fd;

	for (size_t i = 0; i < n; i++)
		ret[i] = (struct volume_usage){ 0 };
	if (!btrfs->has_quota)
		return COPPICE_OK;
	if (n > LOOK_UP_MAX)
		return usage_of_all(fd, groups, ret, n, err);
	for (size_t i = 0; i < n; i++) {
		uint64_t bytes = 0;
		bool is_found = false;
		int r = quota_group_read(fd, quota_group(&groups[i]), &bytes, &is_found, err);

		if (r < 0)
			return r;
		if (is_found)
			ret[i].written = (struct coppice_bytes){ COPPICE_EXACT, bytes };
	}
	return COPPICE_OK;
}

/* Read-only is what snapshots and images are; anything else was changed behind us. */
static void check_flag(struct btrfs_pool *btrfs, struct found_volume *found)
{
	const struct volume_ref *ref = &found->ref;
	bool must_be_read_only = ref->kind == VOLUME_IMAGE || volume_is_snapshot(ref);
	_cleanup_(closep) int fd = -1;
	char path[PATH_MAX], live[PATH_MAX + 8];
	uint64_t flags = 0;
	struct stat st;

	(void)snprintf(live, sizeof(live), "%s/live", layout_ref_path(ref, path));
	fd = openat(btrfs->layout.fd, live, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return; /* layout_scan says that it is missing */
	found->what = "flag-wrong";
	if (st.st_ino != SUBVOLUME_INODE) {
		found->what = "subvolume-missing";
		found->problem = "its data is a plain directory, not a subvolume";
	} else if (ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, &flags) < 0) {
		found->problem = "its data cannot be asked for its flags";
	} else if (must_be_read_only && !(flags & BTRFS_SUBVOL_RDONLY)) {
		found->problem = "its data is writable, and must not be";
	} else if (!must_be_read_only && (flags & BTRFS_SUBVOL_RDONLY)) {
		found->problem = "its data is read-only, and must not be";
	}
}

struct checking {
	struct btrfs_pool *btrfs;
	scan_fn *fn;
	void *user;
};

static int check_one(void *user, const struct found_volume *found, struct coppice_error *err)
{
	struct checking *checking = user;
	struct found_volume damaged = *found;

	if (found->problem || !found->record)
		return COPPICE_OK; /* every scan tells that */
	check_flag(checking->btrfs, &damaged);
	return damaged.problem ? checking->fn(checking->user, &damaged, err) : COPPICE_OK;
}

static int check(struct pool *pool, bool is_repair, scan_fn *fn, void *user,
		 struct coppice_error *err)
{
	struct checking checking = { .btrfs = btrfs_pool_of(pool), .fn = fn, .user = user };

	return layout_scan(pool, check_one, &checking, err);
}

struct telling {
	struct btrfs_pool *btrfs;
	pinned_fn *fn;
	void *user;
	bool is_settling;
};

static int tell_pinned(void *user, const char *record, const struct uuid *uuid,
		       struct coppice_error *err)
{
	struct telling *telling = user;
	struct coppice_bytes pinned_bytes = { COPPICE_EXACT, 0 };
	bool is_found = false;
	int r;

	r = quota_group_read(telling->btrfs->layout.fd, quota_group(uuid), &pinned_bytes.bytes,
			     &is_found, err);
	if (r < 0 || !is_found || pinned_bytes.bytes == 0)
		return r;
	if (telling->is_settling)
		pinned_bytes.known = COPPICE_AT_MOST;
	return telling->fn(telling->user, record, pinned_bytes, err);
}

/* What a deleted volume first wrote and others still share stays charged to its account. */
static int pinned(struct pool *pool, pinned_fn *fn, void *user, struct coppice_error *err)
{
	struct telling telling = { .btrfs = btrfs_pool_of(pool), .fn = fn, .user = user };
	int r;

	if (!telling.btrfs->has_quota)
		return COPPICE_OK;
	r = quota_is_settling(telling.btrfs->layout.fd, &telling.is_settling, err);
	if (r < 0)
		return r;
	return layout_deleted(&telling.btrfs->layout, tell_pinned, &telling, err);
}

static int in_use(struct pool *pool, const struct volume_ref *refs, size_t n, in_use_fn *tell,
		  void *user, struct coppice_error *err)
{
	return layout_in_use(&btrfs_pool_of(pool)->layout, refs, n, tell, user, err);
}

/* ---- what goes, goes at once ---- */

/*
 * The thread of the kernel that drops subvolumes sleeps until the one that commits wakes
 * it, which by itself sleeps 30 s: so long the space would not come back. Begun here, a
 * commit wakes both; nobody waits for it.
 */
static void drop_soon(struct pool *pool)
{
	struct btrfs_pool *btrfs = btrfs_pool_of(pool);
	struct coppice_error ignored;
	uint64_t transid;

	if (btrfs->has_destroyed)
		(void)batch_commit_begin(btrfs->layout.fd, &transid, &ignored);
	btrfs->has_destroyed = false;
}

static int reap(struct pool *pool, struct coppice_error *err)
{
	int r = layout_reap(pool, err);

	drop_soon(pool);
	return r;
}

static int draft_discard(struct draft *draft, struct coppice_error *err)
{
	struct pool *pool = draft->pool;
	int r = layout_draft_discard(draft, err);

	if (pool)
		drop_soon(pool);
	return r;
}

static int draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err)
{
	int r = layout_draft_sweep(pool, ret_n, err);

	drop_soon(pool);
	return r;
}

/* ---- deleting where all metadata is taken ---- */

static int draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err)
{
	if (!pool->is_dry_run)
		btrfs_ballast_ensure(btrfs_pool_of(pool));
	return layout_draft_open(pool, ret, err);
}

static int retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
		  size_t n, struct coppice_error *err)
{
	int r = layout_retire(pool, refs, uuids, n, err);

	return r == COPPICE_NO_SPACE
		       ? wrap(err, "no room is left for Btrfs's own metadata; make the pool larger")
		       : r;
}

static const struct driver_key pool_keys[] = {
	{ .name = "btrfs.mount_options" },
	{ .name = "btrfs.quota" },
	{ .name = NULL },
};

const struct driver driver_btrfs = {
	.name = "btrfs",
	.pool_keys = pool_keys,
	.traits = { .can_clone = true, .can_limit = true, .is_loop_able = true },

	.probe = btrfs_probe,
	.pool_create = btrfs_pool_create,
	.pool_check = btrfs_pool_check,
	.pool_explain = btrfs_pool_explain,
	.pool_open = btrfs_pool_open,
	.pool_open_explain = btrfs_pool_open_explain,
	.pool_close = btrfs_pool_close,
	.pool_is_mounted = btrfs_pool_is_mounted,
	.pool_can_umount = btrfs_pool_can_umount,
	.pool_umount = btrfs_pool_umount,
	.pool_destroy = btrfs_pool_destroy,
	.pool_resize = btrfs_pool_resize,
	.pool_space = btrfs_pool_space,
	.pool_remark = btrfs_pool_remark,
	.pool_host = btrfs_pool_host,
	.pool_hold = layout_pool_hold,
	.pool_record_read = layout_pool_record_read,
	.pool_record_write = layout_pool_record_write,
	.pool_mount_path = layout_pool_mount_path,

	.draft_open = draft_open,
	.draft_announce = layout_draft_announce,
	.draft_discard = draft_discard,
	.volume_create = volume_create,
	.volume_fill = fill_by_copying,
	.draft_path = layout_draft_path,
	.volume_seal = volume_seal,
	.clone = clone_all,
	.publish = layout_publish,
	.commit = commit,
	.draft_sweep = draft_sweep,

	.swap = layout_swap,
	.rename = layout_rename,
	.record_write = layout_record_write,
	.can_limit = can_limit,
	.limit_set = limit_set,

	.retire = retire,
	.unretire = layout_unretire,
	.reap = reap,
	.pinned = pinned,

	.stamp = layout_stamp,
	.touch = layout_touch,
	.scan = layout_scan,
	.record_read = layout_record_read,
	.path = layout_path,
	.usage = usage,
	.in_use = in_use,
	.nested = btrfs_nested,
	.check = check,
};
