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

void projects_probe(int dir_fd, struct projects *ret)
{
	struct fs_quota_statv state = { .qs_version = FS_QSTATV_VERSION1 };
	struct fsxattr attributes;

	*ret = (struct projects){
		.problem =
			"the pool's file system has no project quotas (XFS and ext4 have, mounted "
			"with prjquota)",
	};
	if (quota(dir_fd, Q_XGETQSTATV, 0, &state) != 0 || !(state.qs_flags & FS_QUOTA_PDQ_ACCT) ||
	    attributes_read(dir_fd, &attributes) != 0)
		return;
	if (attributes.fsx_projid != 0) {
		/* Its limit is somebody else's, and holds for all that is in here. */
		ret->problem = "the pool's directory belongs to a quota project already";
		return;
	}
	ret->can_count = true;
	if (!(state.qs_flags & FS_QUOTA_PDQ_ENFD)) {
		ret->problem =
			"the pool's file system counts projects and does not limit them; mount it "
			"with prjquota";
		return;
	}
	ret->can_limit = true;
	ret->problem = NULL;
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
	int e = quota(dir_fd, Q_SETQUOTA, project, &account);

	return e ? fail_errno(err, e, "cannot limit project %u", project) : COPPICE_OK;
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
	if (S_ISDIR(st.st_mode))
		attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
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
	*ret = attributes.fsx_projid;
	return COPPICE_OK;
}

/* ---- trees that were there before ---- */

struct assigning {
	struct tree_walk walk;
	uint32_t project;
	bool skips_top; /* until all others have the number */
};

static int put_at(const struct assigning *assigning, int fd, const char *name,
		  struct coppice_error *err)
{
	_cleanup_(closep) int file = tree_open(fd, name, O_RDONLY | O_NONBLOCK | O_NOATIME);
	int e;

	if (file < 0)
		return file == -ENOENT ? COPPICE_OK
				       : fail_errno(err, -file, "cannot open '%s'", name);
	e = put(file, assigning->project);
	return e ? fail_errno(err, e, "cannot put a quota project on '%s'", name) : COPPICE_OK;
}

/* On what has a place for it. d_type: XFS and ext4 tell it. */
static int assign_visit(struct tree_walk *walk, struct tree_dir *dir, struct coppice_error *err)
{
	const struct assigning *assigning = CONTAINER_OF(walk, struct assigning, walk);
	_cleanup_(closedirp) DIR *stream = NULL;
	struct dirent *entry;
	int fd, e, r = COPPICE_OK;

	fd = tree_open(walk->root_fd, dir->path, O_RDONLY | O_DIRECTORY | O_NOATIME);
	if (fd == -ENOENT)
		return COPPICE_OK;
	if (fd < 0)
		return fail_errno(err, -fd, "cannot open '%s'", dir->path);
	stream = fdopendir(fd);
	if (!stream) {
		(void)close(fd);
		return fail_memory(err);
	}
	/* Itself first: what is made in it from now on has the number. */
	e = dir->parent || !assigning->skips_top ? put(fd, assigning->project) : 0;
	if (e != 0)
		return fail_errno(err, e, "cannot put a quota project on '%s'", dir->path);
	while (r == COPPICE_OK && (entry = readdir(stream))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (entry->d_type == DT_DIR)
			r = tree_walk_add(walk, dir, entry->d_name, err);
		else if (entry->d_type == DT_REG)
			r = put_at(assigning, fd, entry->d_name, err);
	}
	return r < 0 ? wrap(err, "in '%s'", dir->path) : r;
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

	if (r == COPPICE_OK)
		r = tree_walk_run(&assigning.walk, err);
	assigning.skips_top = false;
	return r < 0 ? r : tree_walk_run(&assigning.walk, err);
}
