/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file systems on thin volumes. A clone has the UUID of what it was cloned from. ext4 does
 * not mind; XFS is told not to; none of what is in a clone is written anew for that.
 */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#include "base/run.h"
#include "base/text.h"
#include "driver/generic/mount.h"

struct maker {
	const char *type;
	const char *const *argv; /* the device comes last */
};

/*
 * A thin volume is empty, and reads as zeros: so nothing is discarded, and the inode tables,
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

static const struct maker makers[] = { { "ext4", make_ext4 }, { "xfs", make_xfs } };

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
		return fail(err, COPPICE_INVALID, "block.filesystem '%s' is none of ext4 and xfs",
			    type);
	while (maker->argv[n]) {
		argv[n] = maker->argv[n];
		n++;
	}
	argv[n] = device;
	return run_checked(argv, err);
}

/* Each is tried, as it need not be known which one it is: what it is not, it does not mount. */
static int mount_as(const char *type, const char *device, const char *options, bool is_read_only,
		    const char *where, int *ret_fd)
{
	bool is_xfs = strcmp(type, "xfs") == 0;
	_cleanup_(freep) char *all =
		text_format("%s%s%s%s", options, *options && is_xfs ? "," : "",
			    is_xfs ? "nouuid" : "", is_xfs && is_read_only ? ",norecovery" : "");
	_cleanup_(freep) char *fixed = NULL;

	if (!all)
		return -ENOMEM;
	/* A read-only device is no place to play a journal: a snapshot's is clean, as it was
	 * frozen. */
	fixed = text_format("%s%s", is_read_only ? (*all ? "ro," : "ro") : "", all);
	return fixed ? mount_held(type, device, fixed, is_read_only ? MOUNT_ATTR_RDONLY : 0, where,
				  ret_fd)
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

	for (size_t i = 0; i < ARRAY_SIZE(makers) && r == -EINVAL; i++) {
		_cleanup_(closep) int fd = -1;

		r = mount_as(makers[i].type, device, options, is_read_only, where, &fd);
	}
	return r < 0 ? fail_aside(err, -r, "cannot mount '%s' at '%s'", device, where) : COPPICE_OK;
}

int file_system_grow(const char *where, const char *device, struct coppice_error *err)
{
	const char *const grow_xfs[] = { "xfs_growfs", where, NULL };
	const char *const grow_ext4[] = { "resize2fs", device, NULL };
	_cleanup_(run_result_done) struct run_result result = { 0 };
	int r = runner.run(grow_xfs, &result, err);

	/* It says so when it is none of its own. */
	if (r == COPPICE_OK && result.exit_status == 0)
		return COPPICE_OK;
	return run_checked(grow_ext4, err);
}
