/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/dir/projects.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "driver/generic/walk.h"

#define FIRST_PROJECT 0x40000000U /* and as many from there on: all with bit 30 and not 31 */

static bool is_ours(uint32_t project)
{
	return (project & ~(FIRST_PROJECT - 1)) == FIRST_PROJECT;
}

/* Linux 5.14 has it, and no C library. The file system is the one that @fd is in. */
static int quota(int fd, unsigned command, uint32_t project, void *data)
{
	long r = syscall(SYS_quotactl_fd, fd, QCMD(command, PRJQUOTA), project, data);

	return r < 0 ? errno : 0;
}

static int attributes_read(int fd, struct fsxattr *ret)
{
	return ioctl(fd, FS_IOC_FSGETXATTR, ret) < 0 ? errno : 0;
}

/* ---- accounts ---- */

/* @ret_is_free: nobody has files with this number, nor a limit on it. */
static int read_account(int fd, uint32_t project, struct project_use *ret, bool *ret_is_free,
			struct coppice_error *err)
{
	struct if_dqblk account = { 0 };
	int e = quota(fd, Q_GETQUOTA, project, &account);

	/* XFS: no such account. */
	if (e != 0 && e != ENOENT)
		return fail_errno(err, e, "cannot read the quota of project %u", project);
	*ret = (struct project_use){
		.used_bytes = account.dqb_curspace,
		.limit_bytes = account.dqb_bhardlimit * QIF_DQBLKSIZE,
	};
	*ret_is_free = account.dqb_curspace == 0 && account.dqb_curinodes == 0 &&
		       account.dqb_bhardlimit == 0 && account.dqb_bsoftlimit == 0 &&
		       account.dqb_ihardlimit == 0 && account.dqb_isoftlimit == 0;
	return COPPICE_OK;
}

int project_read(int dir_fd, uint32_t project, struct project_use *ret, struct coppice_error *err)
{
	bool ignored;

	return read_account(dir_fd, project, ret, &ignored, err);
}

int project_limit(int dir_fd, uint32_t project, uint64_t limit_bytes, struct coppice_error *err)
{
	struct if_dqblk account = {
		.dqb_bhardlimit = (limit_bytes + QIF_DQBLKSIZE - 1) / QIF_DQBLKSIZE,
		.dqb_valid = QIF_BLIMITS,
	};
	int e;

	/* Of 0 it would be the limit of all that have none. */
	if (!is_ours(project))
		return fail(err, COPPICE_FAILED, "project %u is not ours to limit", project);
	e = quota(dir_fd, Q_SETQUOTA, project, &account);
	return e ? fail_errno(err, e, "cannot limit project %u", project) : COPPICE_OK;
}

/* ---- what there is ---- */

/*
 * May we do what will be needed? Who is root in a container's own user namespace may not:
 * the kernel asks for the same capability when a quota of a project is read.
 */
static bool is_allowed(int dir_fd)
{
	struct if_dqblk account = { 0 };
	int e = quota(dir_fd, Q_GETQUOTA, FIRST_PROJECT, &account);

	return e == 0 || e == ENOENT;
}

void projects_probe(int dir_fd, struct projects *ret)
{
	struct fs_quota_statv state = { .qs_version = FS_QSTATV_VERSION1 };
	struct fsxattr attributes;
	int e = quota(dir_fd, Q_XGETQSTATV, 0, &state);

	*ret = (struct projects){
		.problem = "the pool's file system has no project quotas (XFS and ext4 have, "
			   "mounted with prjquota)",
	};
	if (e != 0 || !(state.qs_flags & FS_QUOTA_PDQ_ACCT) ||
	    attributes_read(dir_fd, &attributes) != 0)
		return;
	if (attributes.fsx_projid != 0) {
		/* Its limit is somebody else's, and holds for all that is in here. */
		ret->problem = "the pool's directory belongs to a quota project already";
		return;
	}
	if (!is_allowed(dir_fd)) {
		ret->problem = "project quotas are for root of the host";
		return;
	}
	ret->can_count = true;
	if (!(state.qs_flags & FS_QUOTA_PDQ_ENFD)) {
		ret->problem = "the pool's file system counts projects and does not limit them; "
			       "mount it with prjquota";
		return;
	}
	ret->can_limit = true;
	ret->problem = NULL;
}

/* ---- numbers ---- */

static int find_free(int fd, const struct uuid *uuid, uint32_t *ret, struct coppice_error *err)
{
	/* Its end, as it begins with the time. */
	uint32_t first = (uint32_t)strtoul(uuid->text + strlen(uuid->text) - 8, NULL, 16);
	struct project_use use;
	bool is_free = false;

	for (uint32_t i = 0; i < FIRST_PROJECT; i++) {
		uint32_t project = FIRST_PROJECT | ((first + i) & (FIRST_PROJECT - 1));
		int r = read_account(fd, project, &use, &is_free, err);

		if (r < 0)
			return r;
		if (is_free) {
			*ret = project;
			return COPPICE_OK;
		}
	}
	return fail(err, COPPICE_FAILED, "no project number is free");
}

/* Put a number on one file or directory, and on what will be made in it. */
static int put(int fd, uint32_t project)
{
	struct fsxattr attributes;
	int e = attributes_read(fd, &attributes);
	struct stat st;

	if (e != 0 || fstat(fd, &st) < 0)
		return e ? e : errno;
	if (attributes.fsx_projid == project)
		return 0;
	attributes.fsx_projid = project;
	if (S_ISDIR(st.st_mode) && project)
		attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
	else
		attributes.fsx_xflags &= ~(__u32)FS_XFLAG_PROJINHERIT;
	return ioctl(fd, FS_IOC_FSSETXATTR, &attributes) < 0 ? errno : 0;
}

int project_assign(int dir_fd, const struct uuid *uuid, struct coppice_error *err)
{
	uint32_t project;
	int r = find_free(dir_fd, uuid, &project, err);
	int e = r < 0 ? 0 : put(dir_fd, project);

	return e ? fail_errno(err, e, "cannot put a quota project on a directory") : r;
}

int project_of(int dir_fd, uint32_t *ret, struct coppice_error *err)
{
	struct fsxattr attributes;
	int e = attributes_read(dir_fd, &attributes);

	if (e != 0)
		return fail_errno(err, e, "cannot read the quota project of a directory");
	*ret = is_ours(attributes.fsx_projid) ? attributes.fsx_projid : 0;
	return COPPICE_OK;
}

/* ---- trees that were there before ---- */

struct assigning {
	struct tree_walk walk;
	uint32_t project;
	bool skips_top; /* until all others have the number */
};

static int put_at(const struct assigning *assigning, const struct tree_dir *dir, int fd,
		  const char *name, struct coppice_error *err)
{
	_cleanup_(closep) int file = tree_open_file(fd, name);
	int e;

	/* Gone, or no file any more. */
	if (file < 0)
		return file == -ENOENT || file == -EINVAL
			       ? COPPICE_OK
			       : tree_fail(dir, name, -file, "open", err);
	e = put(file, assigning->project);
	return e ? tree_fail(dir, name, e, "put a quota project on", err) : COPPICE_OK;
}

/* d_type, or what it is where the file system does not tell; DT_UNKNOWN: it is gone. */
static unsigned char type_of(int fd, const struct dirent *entry)
{
	struct stat st;

	if (entry->d_type != DT_UNKNOWN)
		return entry->d_type;
	if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return DT_UNKNOWN;
	return IFTODT(st.st_mode);
}

/* On what has a place for it. */
static int assign_visit(struct tree_walk *walk, struct tree_dir *dir, struct coppice_error *err)
{
	const struct assigning *assigning = CONTAINER_OF(walk, struct assigning, walk);
	_cleanup_(closedirp) DIR *stream = NULL;
	struct dirent *entry;
	int fd, e, r;

	r = tree_dir_list(walk, dir, &stream, err);
	if (r < 0 || !stream)
		return r;
	fd = dirfd(stream);
	/* Itself first: what is made in it from now on has the number. */
	e = dir->parent || !assigning->skips_top ? put(fd, assigning->project) : 0;
	if (e != 0)
		return tree_fail(dir, NULL, e, "put a quota project on", err);
	errno = 0;
	while (r == COPPICE_OK && (entry = readdir(stream))) {
		unsigned char type = type_of(fd, entry);

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (type == DT_DIR)
			r = tree_walk_add(walk, dir, entry->d_name, err);
		else if (type == DT_REG)
			r = put_at(assigning, dir, fd, entry->d_name, err);
		if (r == COPPICE_OK)
			r = tree_walk_check(walk, err);
		errno = 0;
	}
	if (r == COPPICE_OK && errno != 0)
		return tree_fail(dir, NULL, errno, "read", err);
	return r;
}

/* Without its number again, as far as that goes: nobody asks for that to end. */
static void unassign(struct assigning *assigning)
{
	struct coppice_error ignored;

	assigning->project = 0;
	assigning->skips_top = false;
	assigning->walk.is_interrupted = NULL;
	(void)tree_walk_run(&assigning->walk, &ignored);
}

/*
 * Somebody may be at work in the tree: what he makes at its top, before that has the
 * number, has none. Hence the second walk, when the top has it.
 */
int project_assign_tree(struct pool *pool, int dir_fd, const struct uuid *uuid,
			struct coppice_error *err)
{
	struct assigning assigning = {
		.walk = { .root_fd = dir_fd,
			  .is_interrupted = pool->is_interrupted,
			  .interrupted_user = pool->interrupted_user,
			  .visit = assign_visit },
		.skips_top = true,
	};
	int r = find_free(dir_fd, uuid, &assigning.project, err);

	if (r < 0)
		return r;
	r = tree_walk_run(&assigning.walk, err);
	assigning.skips_top = false;
	if (r == COPPICE_OK)
		r = tree_walk_run(&assigning.walk, err);
	if (r < 0)
		unassign(&assigning);
	return r;
}
