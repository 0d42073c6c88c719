/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapping by rbd-nbd: a process for each image, that serves it to a device of the kernel's nbd. The
 * kernel says which process serves a device, but with the number that it has on the host, which in
 * a container is another one. So the process is known by its arguments, and the device by what it
 * has open.
 */
#include "driver/ceph/mapper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/run.h"
#include "base/text.h"
#include "driver/generic/device_mount.h"

#define DEVICE "/dev/nbd"

/* By itself the module has 16 devices. */
static bool nbd_is_usable(void)
{
	if (access("/usr/bin/rbd-nbd", X_OK) < 0)
		return false;
	if (access(DEVICE "0", F_OK) < 0)
		module_load((const char *const[]){ "modprobe", "-q", "nbd", "nbds_max=256", NULL });
	return access(DEVICE "0", F_OK) == 0;
}

struct command {
	char *image, *patience;
	const char *argv[12];
};

static void command_done(struct command *command)
{
	free(command->image);
	free(command->patience);
}

static bool command_make(const struct ceph_pool *ceph, const char *name, struct command *ret)
{
	*ret = (struct command){
		.image = text_format("%s/%s", ceph->osd_pool, name),
		.patience = text_format("%u", ceph->timeout_seconds),
	};
	const char *const words[] = {
		"rbd-nbd",
		"map",
		"--cluster",
		ceph->cluster_name,
		"--id",
		ceph->user,
		ceph->conf ? "-c" : NULL,
		ceph->conf,
		"--client-mount-timeout",
		ret->patience,
		ret->image,
	};

	for (size_t i = 0, n = 0; i < ARRAY_SIZE(words); i++)
		if (words[i])
			ret->argv[n++] = words[i];
	return ret->image && ret->patience;
}

static int nbd_map(struct ceph_pool *ceph, const char *name, char ret_device[static PATH_MAX],
		   struct coppice_error *err)
{
	_cleanup_(command_done) struct command command = { 0 };

	return command_make(ceph, name, &command) ? run_map(command.argv, ret_device, err)
						  : fail_memory(err);
}

struct finding {
	const char *device; /* NULL: any */
	char *ret, pid[16];
};

/* What of nbd has it open? */
static bool find_open(void *user, const char *pid)
{
	struct finding *finding = user;
	_cleanup_(freep) char *folder = text_format("/proc/%s/fd", pid);
	_cleanup_(closedirp) DIR *dir = folder ? opendir(folder) : NULL;
	bool is_found = false;
	struct dirent *entry;

	while (!is_found && dir && (entry = readdir(dir)) != NULL) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, finding->ret, PATH_MAX - 1);

		if (n < 0)
			continue;
		finding->ret[n] = '\0';
		is_found = strncmp(finding->ret, DEVICE, strlen(DEVICE)) == 0 &&
			   (!finding->device || strcmp(finding->ret, finding->device) == 0);
	}
	if (is_found)
		(void)snprintf(finding->pid, sizeof(finding->pid), "%s", pid);
	return is_found;
}

static bool is_below(const void *user, const char *where)
{
	const char *top = user;

	return strncmp(where, top, strlen(top)) == 0 && where[strlen(top)] == '/';
}

/*
 * Is a device mounted by us, and nobody serves it any more? What is read or written there fails
 * until it is unmounted.
 */
static bool is_dead(const struct ceph_pool *ceph, const char *device)
{
	char ignored[PATH_MAX];
	struct finding finding = { .device = device, .ret = ignored };

	return device_mount_find(device, is_below, ceph->mount, true, ignored) &&
	       !processes_each((const char *const[]){ "rbd-nbd", "map", NULL }, find_open,
			       &finding);
}

static bool nbd_find(const struct ceph_pool *ceph, const char *name, const char *device,
		     char ret_device[static PATH_MAX])
{
	struct finding finding = { .device = device, .ret = ret_device };
	_cleanup_(command_done) struct command command = { 0 };

	if ((device && strncmp(device, DEVICE, strlen(DEVICE)) != 0) ||
	    !command_make(ceph, name, &command))
		return false;
	if (processes_each(command.argv, find_open, &finding))
		return true;
	if (device)
		(void)snprintf(ret_device, PATH_MAX, "%s", device);
	return device && is_dead(ceph, device);
}

static bool nbd_is_mapping(const struct ceph_pool *ceph, const char *name)
{
	_cleanup_(command_done) struct command command = { 0 };
	char device[PATH_MAX];

	return command_make(ceph, name, &command) && processes_each(command.argv, NULL, NULL) &&
	       !nbd_find(ceph, name, NULL, device);
}

/*
 * rbd-nbd takes it away from who has it mounted, and what was written to it and is in memory yet is
 * lost then: closing it does not write that out, as the process has it open itself.
 */
static int settle(const char *device, struct coppice_error *err)
{
	for (int i = 0; i < PATIENCE_STEPS; i++) {
		_cleanup_(closep) int fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);

		if (fd >= 0)
			return fsync(fd) == 0
				       ? COPPICE_OK
				       : fail_errno(err, errno, "cannot write out '%s'", device);
		if (errno != EBUSY)
			return fail_errno(err, errno, "cannot open '%s'", device);
		wait_a_step();
	}
	return fail(err, COPPICE_BUSY, "'%s' is in use", device);
}

/* The process closes the image when it has let go of the device, and that takes a moment. */
static int nbd_unmap(const struct ceph_pool *ceph, const char *name, const char *device,
		     struct coppice_error *err)
{
	_cleanup_(command_done) struct command command = { 0 };
	char ignored[PATH_MAX];
	struct finding finding = { .device = device, .ret = ignored };
	int r;

	if (!command_make(ceph, name, &command))
		return fail_memory(err);
	if (!processes_each(command.argv, find_open, &finding))
		return COPPICE_OK;
	r = settle(device, err);
	if (r < 0)
		return r;
	r = run_checked((const char *const[]){ "rbd-nbd", "unmap", device, NULL }, err);
	for (int i = 0; i < PATIENCE_STEPS && r == COPPICE_OK; i++) {
		if (!process_has_arguments(finding.pid, command.argv))
			return COPPICE_OK;
		wait_a_step();
	}
	return r < 0 ? r : fail(err, COPPICE_BUSY, "'%s' is served by rbd-nbd still", device);
}

const struct mapper mapper_nbd = {
	.name = "rbd-nbd",
	.is_usable = nbd_is_usable,
	.map = nbd_map,
	.find = nbd_find,
	.is_mapping = nbd_is_mapping,
	.unmap = nbd_unmap,
};
