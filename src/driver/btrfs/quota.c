/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/btrfs/quota.h"

#include <endian.h>
#include <errno.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <string.h>
#include <sys/ioctl.h>

#include "driver/btrfs/sysfs.h"

/* Debian 12's headers are older than simple quotas. */
#define QUOTA_CTL_ENABLE_SIMPLE 4
#define STATUS_FLAG_SIMPLE      (1 << 3)

#define LEVEL_1     (1ULL << BTRFS_QGROUP_LEVEL_SHIFT)
#define SEARCH_SIZE (64 * 1024)

uint64_t quota_group(const struct uuid *uuid)
{
	return LEVEL_1 | uuid_first_48_bits(uuid);
}

const char *quota_group_format(uint64_t group, char ret[static QUOTA_GROUP_TEXT_MAX])
{
	(void)snprintf(ret, QUOTA_GROUP_TEXT_MAX, "%u/%llu",
		       (unsigned)(group >> BTRFS_QGROUP_LEVEL_SHIFT),
		       (unsigned long long)(group & (LEVEL_1 - 1)));
	return ret;
}

int quota_enable(int fd, struct coppice_error *err)
{
	struct btrfs_ioctl_quota_ctl_args args = { .cmd = QUOTA_CTL_ENABLE_SIMPLE };

	if (ioctl(fd, BTRFS_IOC_QUOTA_CTL, &args) == 0)
		return COPPICE_OK;
	if (errno == EINVAL || errno == ENOTTY || errno == EOPNOTSUPP)
		return fail(err, COPPICE_UNSUPPORTED,
			    "this kernel has no simple quotas; they came with Linux 6.7");
	return fail_errno(err, errno, "cannot switch on simple quotas");
}

int quota_group_create(int fd, uint64_t group, struct coppice_error *err)
{
	struct btrfs_ioctl_qgroup_create_args args = { .create = 1, .qgroupid = group };
	char text[QUOTA_GROUP_TEXT_MAX];

	if (ioctl(fd, BTRFS_IOC_QGROUP_CREATE, &args) < 0)
		return fail_errno(err, errno, "cannot create quota group %s",
				  quota_group_format(group, text));
	return COPPICE_OK;
}

int quota_group_limit(int fd, uint64_t group, uint64_t bytes, struct coppice_error *err)
{
	struct btrfs_ioctl_qgroup_limit_args args = {
		.qgroupid = group,
		.lim = { .flags = BTRFS_QGROUP_LIMIT_MAX_RFER,
			 .max_rfer = bytes ? bytes : UINT64_MAX },
	};
	char text[QUOTA_GROUP_TEXT_MAX];

	if (ioctl(fd, BTRFS_IOC_QGROUP_LIMIT, &args) < 0)
		return fail_errno(err, errno, "cannot limit quota group %s",
				  quota_group_format(group, text));
	return COPPICE_OK;
}

/* ---- searching trees ---- */

typedef int item_fn(void *user, const struct btrfs_ioctl_search_header *header, const void *item,
		    struct coppice_error *err);

struct key_range {
	uint64_t tree; /* 0: the quota tree */
	uint64_t objectid_min, objectid_max;
	uint32_t type;
	uint64_t offset_min, offset_max;
};

/*
 * Call @fn for all items of one type in a tree. The search is over keys
 * in their order (objectid, type, offset), so others may come in between.
 */
static int search(int fd, const struct key_range *range, item_fn *fn, void *user,
		  struct coppice_error *err)
{
	_cleanup_(freep) struct btrfs_ioctl_search_args_v2 *args =
		malloc(sizeof(*args) + SEARCH_SIZE);
	struct btrfs_ioctl_search_key *key;

	if (!args)
		return fail_memory(err);
	key = &args->key;
	*key = (struct btrfs_ioctl_search_key){
		.tree_id = range->tree ? range->tree : BTRFS_QUOTA_TREE_OBJECTID,
		.min_objectid = range->objectid_min,
		.max_objectid = range->objectid_max,
		.min_type = range->type,
		.max_type = range->type,
		.min_offset = range->offset_min,
		.max_offset = range->offset_max,
		.max_transid = UINT64_MAX,
	};
	for (;;) {
		struct btrfs_ioctl_search_header header = { 0 };
		const char *at = (const char *)args->buf;

		key->nr_items = UINT32_MAX;
		args->buf_size = SEARCH_SIZE;
		if (ioctl(fd, BTRFS_IOC_TREE_SEARCH_V2, args) < 0) {
			if (errno == ENOENT)
				return COPPICE_OK; /* there is no quota tree */
			return fail_errno(err, errno, "cannot search a tree of Btrfs");
		}
		if (key->nr_items == 0)
			return COPPICE_OK;
		for (uint32_t i = 0; i < key->nr_items; i++) {
			int r = COPPICE_OK;

			memcpy(&header, at, sizeof(header));
			at += sizeof(header);
			if (header.type == range->type)
				r = fn(user, &header, at, err);
			if (r < 0)
				return r;
			at += header.len;
		}
		key->min_objectid = header.objectid;
		key->min_type = header.type;
		key->min_offset = header.offset + 1;
		if (key->min_offset == 0) {
			if (header.objectid == UINT64_MAX)
				return COPPICE_OK;
			key->min_objectid++;
			key->min_type = range->type;
		}
	}
}

/* ---- are they on? ---- */

static int note_status(void *user, const struct btrfs_ioctl_search_header *header, const void *item,
		       struct coppice_error *err)
{
	const uint64_t wanted = BTRFS_QGROUP_STATUS_FLAG_ON | STATUS_FLAG_SIMPLE;
	struct btrfs_qgroup_status_item status;

	if (header->len < sizeof(status))
		return COPPICE_OK;
	memcpy(&status, item, sizeof(status));
	*(bool *)user = (le64toh(status.flags) & wanted) == wanted;
	return COPPICE_OK;
}

/* qgroups/mode is "squota" or "qgroup", and not there when none are on. */
int quota_is_on(int fd, bool *ret, struct coppice_error *err)
{
	const struct key_range status = { .type = BTRFS_QGROUP_STATUS_KEY };
	char mode[16] = "";
	int r;

	if (sysfs_read(fd, "qgroups/mode", mode, sizeof(mode)) || sysfs_knows(fd)) {
		*ret = strcmp(mode, "squota") == 0;
		return COPPICE_OK;
	}
	*ret = false;
	r = search(fd, &status, note_status, ret, err);
	if (r == COPPICE_OK || err->os_errno == 0)
		return r;
	return fail(err, COPPICE_UNAVAILABLE,
		    "whether the pool has simple quotas cannot be told without /sys: %s",
		    strerror(err->os_errno));
}

/* ---- reading charges ---- */

struct charges {
	struct quota_charge *charge;
	size_t n, capacity;
};

static int add_charge(void *user, const struct btrfs_ioctl_search_header *header, const void *item,
		      struct coppice_error *err)
{
	struct charges *charges = user;
	struct btrfs_qgroup_info_item info;

	if (header->len < sizeof(info))
		return COPPICE_OK;
	if (charges->n == charges->capacity) {
		size_t capacity = charges->capacity ? 2 * charges->capacity : 256;
		struct quota_charge *more = reallocarray(charges->charge, capacity, sizeof(*more));

		if (!more)
			return fail_memory(err);
		charges->charge = more;
		charges->capacity = capacity;
	}
	memcpy(&info, item, sizeof(info));
	charges->charge[charges->n++] = (struct quota_charge){
		.group = header->offset,
		.bytes = le64toh(info.rfer),
	};
	return COPPICE_OK;
}

/* Groups are items (0, QGROUP_INFO, level/id). */
static int read_charges(int fd, uint64_t first, uint64_t last, struct charges *charges,
			struct coppice_error *err)
{
	const struct key_range range = { .type = BTRFS_QGROUP_INFO_KEY,
					 .offset_min = first,
					 .offset_max = last };

	return search(fd, &range, add_charge, charges, err);
}

int quota_read_all(int fd, struct quota_charge **ret, size_t *ret_n, struct coppice_error *err)
{
	struct charges charges = { 0 };
	int r = read_charges(fd, LEVEL_1, 2 * LEVEL_1 - 1, &charges, err);

	if (r < 0) {
		free(charges.charge);
		return r;
	}
	*ret = charges.charge;
	*ret_n = charges.n;
	return COPPICE_OK;
}

int quota_group_read(int fd, uint64_t group, uint64_t *ret_bytes, bool *ret_found,
		     struct coppice_error *err)
{
	struct charges charges = { 0 };
	int r = read_charges(fd, group, group, &charges, err);

	if (r == COPPICE_OK) {
		*ret_found = charges.n > 0;
		*ret_bytes = charges.n > 0 ? charges.charge[0].bytes : 0;
	}
	free(charges.charge);
	return r;
}

static int note_orphan(void *user, const struct btrfs_ioctl_search_header *header, const void *item,
		       struct coppice_error *err)
{
	*(bool *)user = true;
	return COPPICE_OK;
}

/* What is deleted has an orphan item in the tree of roots until all of it is dropped. */
int quota_is_settling(int fd, bool *ret, struct coppice_error *err)
{
	const struct key_range range = {
		.tree = BTRFS_ROOT_TREE_OBJECTID,
		.objectid_min = BTRFS_ORPHAN_OBJECTID,
		.objectid_max = BTRFS_ORPHAN_OBJECTID,
		.type = BTRFS_ORPHAN_ITEM_KEY,
		.offset_max = UINT64_MAX,
	};

	*ret = false;
	return search(fd, &range, note_orphan, ret, err);
}

/* ---- closing ---- */

static int remove_group(int fd, uint64_t group)
{
	struct btrfs_ioctl_qgroup_create_args args = { .create = 0, .qgroupid = group };

	return ioctl(fd, BTRFS_IOC_QGROUP_CREATE, &args) < 0 ? errno : 0;
}

struct members {
	uint64_t id[64];
	size_t n;
};

static int add_member(void *user, const struct btrfs_ioctl_search_header *header, const void *item,
		      struct coppice_error *err)
{
	struct members *members = user;

	if (members->n < ARRAY_SIZE(members->id))
		members->id[members->n++] = header->offset;
	return COPPICE_OK;
}

/*
 * The kernel forgets the group of a dropped subvolume only when nothing is charged
 * to it at that moment; what becomes free later leaves an empty group behind.
 * Relations are items both ways round; (1/x, RELATION, 0/y) lists the members of 1/x.
 */
static int remove_members(int fd, uint64_t group, struct coppice_error *err)
{
	const struct key_range range = {
		.objectid_min = group,
		.objectid_max = group,
		.type = BTRFS_QGROUP_RELATION_KEY,
		.offset_max = LEVEL_1 - 1,
	};
	struct members members = { .n = 0 };
	int r = search(fd, &range, add_member, &members, err);

	for (size_t i = 0; i < members.n && r == COPPICE_OK; i++)
		(void)remove_group(fd, members.id[i]);
	return r;
}

int quota_group_close(int fd, uint64_t group, bool *ret_held, struct coppice_error *err)
{
	int e = remove_group(fd, group);
	char text[QUOTA_GROUP_TEXT_MAX];

	if (e == EBUSY) {
		int r = remove_members(fd, group, err);

		if (r < 0)
			return r;
		e = remove_group(fd, group);
	}
	if (e != 0 && e != ENOENT && e != EBUSY && e != ENOTCONN)
		return fail_errno(err, e, "cannot remove quota group %s",
				  quota_group_format(group, text));
	*ret_held = e == EBUSY;
	return COPPICE_OK;
}
