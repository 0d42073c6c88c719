/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapping by the kernel's own driver. `rbd map` finds the monitors and the key; all else are files
 * in /sys/bus/rbd. Nothing waits for udev: the kernel makes the device itself.
 */
#include "driver/ceph/mapper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

#define KRBD   "/sys/bus/rbd"
#define DEVICE "/dev/rbd"

/* In a container it may be seen, and not be ours to write to. */
static bool krbd_is_usable(void)
{
	if (access(KRBD, F_OK) < 0)
		module_load((const char *const[]){ "modprobe", "-q", "rbd", NULL });
	return access(KRBD "/add", W_OK) == 0 && access(KRBD "/remove", W_OK) == 0;
}

struct command {
	char *image, *options, *patience;
	const char *argv[14];
};

static void command_done(struct command *command)
{
	free(command->image);
	free(command->options);
	free(command->patience);
}

/* Two wait for a monitor: the program, for five minutes by itself, and the kernel, for one. */
static bool command_make(const struct ceph_pool *ceph, const char *name, struct command *ret)
{
	*ret = (struct command){
		.image = text_format("%s/%s", ceph->osd_pool, name),
		.options = text_format("noudev,mount_timeout=%u", ceph->timeout_seconds),
		.patience = text_format("%u", ceph->timeout_seconds),
	};
	const char *const words[] = {
		"rbd",
		"--cluster",
		ceph->cluster_name,
		"--id",
		ceph->user,
		ceph->conf ? "-c" : NULL,
		ceph->conf,
		"--client-mount-timeout",
		ret->patience,
		"map",
		"-o",
		ret->options,
		ret->image,
	};

	for (size_t i = 0, n = 0; i < ARRAY_SIZE(words); i++)
		if (words[i])
			ret->argv[n++] = words[i];
	return ret->image && ret->options && ret->patience;
}

static int krbd_map(struct ceph_pool *ceph, const char *name, char ret_device[static PATH_MAX],
		    struct coppice_error *err)
{
	_cleanup_(command_done) struct command command = { 0 };

	return command_make(ceph, name, &command) ? run_map(command.argv, ret_device, err)
						  : fail_memory(err);
}

static bool krbd_is_mapping(const struct ceph_pool *ceph, const char *name)
{
	_cleanup_(command_done) struct command command = { 0 };

	return command_make(ceph, name, &command) && processes_each(command.argv, NULL, NULL);
}

/* Does a file of device number @id say this? Each is one line. */
static bool says(const char *id, const char *file, const char *text)
{
	_cleanup_(freep) char *path = text_format(KRBD "/devices/%s/%s", id, file), *found = NULL;
	struct coppice_error ignored;

	if (!path || file_read(AT_FDCWD, path, 2 * RBD_NAME_MAX, &found, &ignored) < 0)
		return false;
	found[strcspn(found, "\n")] = '\0';
	return strcmp(found, text) == 0;
}

/* Of two clusters both may have such a pool with such an image. */
static bool is_image(const struct ceph_pool *ceph, const char *id, const char *name)
{
	char cluster[64];

	return says(id, "name", name) && says(id, "pool", ceph->osd_pool) &&
	       says(id, "pool_ns", "") && says(id, "current_snap", "-") &&
	       (!ceph->cluster ||
		(rados_cluster_fsid(ceph->cluster, cluster, sizeof(cluster)) > 0 &&
		 says(id, "cluster_fsid", cluster)));
}

static bool krbd_find(const struct ceph_pool *ceph, const char *name, const char *device,
		      char ret_device[static PATH_MAX])
{
	_cleanup_(closedirp) DIR *dir = NULL;
	bool is_found = false;
	struct dirent *entry;

	if (device && strncmp(device, DEVICE, strlen(DEVICE)) != 0)
		return false;
	if (device)
		(void)snprintf(ret_device, PATH_MAX, "%s", device);
	if (device)
		return is_image(ceph, device + strlen(DEVICE), name);
	dir = opendir(KRBD "/devices");
	while (!is_found && dir && (entry = readdir(dir)) != NULL) {
		is_found = entry->d_name[0] != '.' && is_image(ceph, entry->d_name, name);
		if (is_found)
			(void)snprintf(ret_device, PATH_MAX, DEVICE "%s", entry->d_name);
	}
	return is_found;
}

/* It refuses what is mounted, wherever; and what udev just looks at. */
static int krbd_unmap(const struct ceph_pool *ceph, const char *name, const char *device,
		      struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	const char *id = device + strlen(DEVICE);

	/* Only this of the two takes devices of one major number, which is the default. */
	fd = open(KRBD "/remove_single_major", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fd = open(KRBD "/remove", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(err, errno, "cannot unmap '%s'", device);
	for (int i = 0; i < PATIENCE_STEPS; i++) {
		if (write(fd, id, strlen(id)) >= 0 || errno == ENOENT)
			return COPPICE_OK;
		if (errno != EBUSY && errno != EINTR)
			return fail_errno(err, errno, "cannot unmap '%s'", device);
		wait_a_step();
	}
	return fail(err, COPPICE_BUSY, "'%s/%s' is in use, by '%s'", ceph->osd_pool, name, device);
}

const struct mapper mapper_krbd = {
	.name = "krbd",
	.is_usable = krbd_is_usable,
	.map = krbd_map,
	.find = krbd_find,
	.is_mapping = krbd_is_mapping,
	.unmap = krbd_unmap,
};
