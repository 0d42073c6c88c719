/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a Btrfs has simple quotas, where /sys does not say: from the quota tree. */
#include <endian.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <sys/ioctl.h>

#include "driver/btrfs/quota.h"
#include "tap.h"

/* What the kernel answers. */
static int search_errno;
static bool has_item;
static uint64_t item_flags;

static int answer(struct btrfs_ioctl_search_args_v2 *args)
{
	const struct btrfs_ioctl_search_header header = {
		.type = BTRFS_QGROUP_STATUS_KEY,
		.len = sizeof(struct btrfs_qgroup_status_item),
	};
	const struct btrfs_qgroup_status_item item = { .flags = htole64(item_flags) };
	bool is_first = args->key.min_offset == 0;

	if (search_errno != 0) {
		errno = search_errno;
		return -1;
	}
	ok(args->key.tree_id == BTRFS_QUOTA_TREE_OBJECTID);
	args->key.nr_items = has_item && is_first;
	memcpy(args->buf, &header, sizeof(header));
	memcpy((char *)args->buf + sizeof(header), &item, sizeof(item));
	return 0;
}

/* In place of the C library's: a Btrfs that nobody has in /sys. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *argument;

	va_start(args, request);
	argument = va_arg(args, void *);
	va_end(args);
	if (request == BTRFS_IOC_FS_INFO)
		memset(((struct btrfs_ioctl_fs_info_args *)argument)->fsid, 0xc0, BTRFS_FSID_SIZE);
	return request == BTRFS_IOC_TREE_SEARCH_V2 ? answer(argument) : 0;
}

static bool is_on(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	bool is_on = false;

	ok_call(quota_is_on(-1, &is_on, &err), &err);
	return is_on;
}

static void test_without_sys_the_quota_tree_tells(void)
{
	has_item = true;
	item_flags = 1 | 8;
	ok(is_on());
	item_flags = 1; /* full qgroups */
	ok(!is_on());
	item_flags = 8; /* being switched off */
	ok(!is_on());
	has_item = false;
	ok(!is_on());
	search_errno = ENOENT;
	ok(!is_on());
}

static void test_quotas_that_cannot_be_told_are_no_lack_of_them(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	bool is_on;

	search_errno = EPERM;
	ok_int(quota_is_on(-1, &is_on, &err), ==, COPPICE_UNAVAILABLE);
	ok_has(err.message, "/sys");
}

int main(void)
{
	const struct tap_test tests[] = {
		TAP(test_without_sys_the_quota_tree_tells),
		TAP(test_quotas_that_cannot_be_told_are_no_lack_of_them),
		TAP_END,
	};

	return tap_run(tests);
}
