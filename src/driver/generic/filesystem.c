/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file systems on block devices. A clone has the UUID of what it was cloned from. ext4 does
 * not mind; XFS is told not to; none of what is in a clone is written anew for that. Linux before
 * 6.7 mounts only one Btrfs of a UUID at a time: so one that is mounted beside another of its
 * kind gets one of its own in its superblocks and the root tree, which is all that is written.
 */
#include "driver/generic/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statfs.h>

#include "base/run.h"
#include "base/text.h"
#include "driver/generic/mount.h"

struct maker {
	const char *type;
	const char *const *argv; /* the device comes last */
};

/*
 * A new volume is empty, and reads as zeros: so nothing is discarded, and the inode tables,
 * 160 MiB for each 10 GiB, are as they must be, and no kernel thread writes them later.
 */
static const char *const make_ext4[] = {
	"mkfs.ext4", "-q",
	"-F",        "-b",
	"4096", /* or attributes would have 1 KiB in a small one */
	"-E",        "nodiscard,lazy_itable_init=0,assume_storage_prezeroed=1",
	NULL,
};

static const char *const make_xfs[] = { "mkfs.xfs", "-q", "-K", NULL };

static const char *const make_btrfs[] = { "mkfs.btrfs", "-q", "-K", "-f", NULL };

static const struct maker makers[] = { { "ext4", make_ext4 },
				       { "xfs", make_xfs },
				       { "btrfs", make_btrfs } };

static const struct maker *maker_find(const char *type)
{
	for (size_t i = 0; i < ARRAY_SIZE(makers); i++)
		if (strcmp(makers[i].type, type) == 0)
			return &makers[i];
	return NULL;
}

const char *file_system_maker(const char *type)
{
	const struct maker *maker = maker_find(type);

	return maker ? maker->argv[0] : NULL;
}

int file_system_make(const char *type, const char *device, struct coppice_error *err)
{
	const struct maker *maker = maker_find(type);
	const char *argv[12] = { NULL };
	size_t n = 0;

	if (!maker)
		return fail(err, COPPICE_INVALID, "block.filesystem '%s' is none of " FILE_SYSTEMS,
			    type);
	while (maker->argv[n]) {
		argv[n] = maker->argv[n];
		n++;
	}
	argv[n] = device;
	return run_checked(argv, err);
}

/*
 * What each needs to be mounted as a clone is; and from a read-only device, which is no place to
 * play a journal: a snapshot's is clean, as it was frozen.
 */
struct needs {
	const char *type, *always, *when_read_only;
};

static const struct needs all_needs[] = {
	{ "ext4", "", "ro" },
	{ "xfs", "nouuid", "ro,norecovery" },
	{ "btrfs", "", "ro,rescue=nologreplay" },
};

/* Each is tried, as it need not be known which one it is: what it is not, it does not mount. */
static int mount_as(const struct needs *needs, const char *device, const char *options,
		    bool is_read_only, const char *where, int *ret_fd)
{
	const char *const parts[] = { options, needs->always,
				      is_read_only ? needs->when_read_only : "" };
	_cleanup_(text_done) struct text text = TEXT_INIT;
	_cleanup_(freep) char *all = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (parts[i][0])
			text_add(&text, "%s%s", text.length ? "," : "", parts[i]);
	all = text.length || text.is_failed ? text_take(&text) : strdup("");
	return all ? mount_held(needs->type, device, all, is_read_only ? MOUNT_ATTR_RDONLY : 0,
				where, ret_fd)
		   : -ENOMEM;
}

/* The place of e2fsck for what it finds is in nobody's tree; it makes one when it needs it. */
void file_system_clear(const char *where)
{
	_cleanup_(freep) char *found = text_format("%s/lost+found", where);

	if (found)
		(void)rmdir(found);
}

int file_system_mount(const char *device, const char *options, bool is_read_only, const char *where,
		      struct coppice_error *err)
{
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(all_needs) && r == -EINVAL; i++) {
		_cleanup_(closep) int fd = -1;

		r = mount_as(&all_needs[i], device, options, is_read_only, where, &fd);
	}
	if (r == -EEXIST)
		return fail(err, COPPICE_EXISTS, "another with the UUID of '%s' is mounted",
			    device);
	return r < 0 ? fail_aside(err, -r, "cannot mount '%s' at '%s' with '%s'", device, where,
				  options)
		     : COPPICE_OK;
}

int file_system_settle(const char *where, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs;

	if (fd < 0 || fstatfs(fd, &fs) < 0 || (fs.f_type == BTRFS_SUPER_MAGIC && syncfs(fd) < 0))
		return fail_errno(err, errno, "cannot write out '%s'", where);
	return COPPICE_OK;
}

int file_system_renew_uuid(const char *device, struct coppice_error *err)
{
	return run_checked((const char *const[]){ "btrfstune", "-f", "-m", device, NULL }, err);
}

int file_system_grow(const char *where, const char *device, struct coppice_error *err)
{
	const char *const grow_xfs[] = { "xfs_growfs", where, NULL };
	const char *const grow_ext4[] = { "resize2fs", device, NULL };
	const char *const grow_btrfs[] = { "btrfs", "filesystem", "resize", "max", where, NULL };
	struct statfs fs;

	if (statfs(where, &fs) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", where);
	return run_checked(fs.f_type == XFS_SUPER_MAGIC     ? grow_xfs
			   : fs.f_type == BTRFS_SUPER_MAGIC ? grow_btrfs
							    : grow_ext4,
			   err);
}

/* What it finds in a journal is played, and that is said with 1. */
static int check_ext4(const char *device, struct coppice_error *err)
{
	struct run_result result = { 0 };
	int r = runner.run((const char *const[]){ "e2fsck", "-f", "-p", device, NULL }, &result,
			   err);

	if (r == COPPICE_OK && result.exit_status > 1)
		r = fail(err, COPPICE_FAILED, "e2fsck found '%s' damaged, and ended with %d",
			 device, result.exit_status);
	run_result_done(&result);
	return r;
}

int file_system_grow_unmounted(const char *device, struct coppice_error *err)
{
	int r = check_ext4(device, err);

	return r < 0 ? r : run_checked((const char *const[]){ "resize2fs", device, NULL }, err);
}
