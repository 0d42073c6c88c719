/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel is asked and told of a thin pool itself, by the ioctls of dm(4): what
 * dmsetup status and dmsetup message do, without a process for each.
 */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

/* Room for what one target says of itself. */
union request {
	struct dm_ioctl header;
	char bytes[4096];
};

static void request_name(union request *request, const char *device)
{
	*request = (union request){ .header = {
					    .version = { DM_VERSION_MAJOR, 0, 0 },
					    .data_size = sizeof(*request),
					    .data_start = sizeof(request->header),
				    } };
	(void)snprintf(request->header.name, sizeof(request->header.name), "%s",
		       strrchr(device, '/') + 1);
}

static int request_init(const struct lvm_pool *lvm, union request *request,
			struct coppice_error *err)
{
	char device[PATH_MAX];

	if (!lvm_pool_device(lvm, device))
		return fail(err, COPPICE_UNAVAILABLE, "the thin pool '%s/%s' is not active",
			    lvm->vg, lvm->thin);
	request_name(request, device);
	return COPPICE_OK;
}

static int request_do(const struct lvm_pool *lvm, unsigned long what, union request *request,
		      const char *doing, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, what, request) < 0)
		return fail_aside(err, errno, "cannot %s the thin pool '%s/%s'", doing, lvm->vg,
				  lvm->thin);
	return COPPICE_OK;
}

int lvm_pool_tell(const struct lvm_pool *lvm, const char *message, struct coppice_error *err)
{
	union request request;
	struct dm_target_msg *target;
	int r = request_init(lvm, &request, err);

	if (r < 0)
		return r;
	target = (struct dm_target_msg *)(void *)(request.bytes + sizeof(request.header));
	target->sector = 0;
	(void)snprintf(target->message, 256, "%s", message);
	return request_do(lvm, DM_TARGET_MSG, &request, message, err);
}

/* "TRANSACTION USED/TOTAL of metadata USED/TOTAL of data HELD …", as in the kernel's
 * thin-provisioning.rst; HELD is a dash where no snapshot of the metadata is. */
int lvm_pool_status(const struct lvm_pool *lvm, struct pool_status *ret, struct coppice_error *err)
{
	unsigned long long transaction, meta_used, meta_total, used, total;
	const struct dm_target_spec *target;
	union request request;
	char held[24] = "-";
	const char *said;
	int r = request_init(lvm, &request, err);

	if (r == COPPICE_OK)
		r = request_do(lvm, DM_TABLE_STATUS, &request, "look at", err);
	if (r < 0)
		return r;
	target = (const struct dm_target_spec *)(const void *)(request.bytes +
							       request.header.data_start);
	said = (const char *)(target + 1);
	request.bytes[sizeof(request) - 1] = '\0';
	if (request.header.target_count != 1 || strcmp(target->target_type, "thin-pool") != 0 ||
	    sscanf(said, "%llu %llu/%llu %llu/%llu %23s", &transaction, &meta_used, &meta_total,
		   &used, &total, held) < 5 ||
	    total == 0)
		return fail(err, COPPICE_UNAVAILABLE,
			    "the thin pool '%s/%s' has failed: the kernel says '%s'", lvm->vg,
			    lvm->thin, said);
	*ret = (struct pool_status){
		.total_bytes = target->length * 512,
		.block_bytes = target->length * 512 / total,
		.transaction_id = transaction,
		.used_blocks = used,
		.total_blocks = total,
		.used_metadata_blocks = meta_used,
		.total_metadata_blocks = meta_total,
		.is_read_only = strstr(said, " ro ") || strstr(said, " out_of_data_space "),
		.is_held = strcmp(held, "-") != 0,
		.needs_check = strstr(said, " needs_check") != NULL,
	};
	return COPPICE_OK;
}

/* ---- flushing ---- */

/* The name of a block device in /dev, by its number, from sysfs: there need not be udev. */
static bool name_of_device(dev_t device, char ret[static PATH_MAX])
{
	char path[64], line[256], name[200] = "";
	FILE *file;

	(void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/dm/name", major(device),
		       minor(device));
	file = fopen(path, "re");
	if (file) {
		if (fgets(line, sizeof(line), file) && sscanf(line, "%199s", name) == 1)
			(void)snprintf(ret, PATH_MAX, "/dev/mapper/%s", name);
	} else {
		(void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/uevent", major(device),
			       minor(device));
		file = fopen(path, "re");
		while (file && fgets(line, sizeof(line), file))
			if (sscanf(line, "DEVNAME=%199s", name) == 1)
				(void)snprintf(ret, PATH_MAX, "/dev/%s", name);
	}
	if (file)
		(void)fclose(file);
	return name[0];
}

static int flush_device(dev_t device)
{
	char path[PATH_MAX];
	_cleanup_(closep) int fd = -1;

	if (!name_of_device(device, path))
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && fsync(fd) < 0 ? errno : 0;
}

struct below {
	dev_t device[64];
	size_t n;
};

/* What a part of the thin pool lies on: physical volumes, where the group's own text is, too. */
static void find_below(const char *device, struct below *below)
{
	const struct dm_target_deps *deps;
	union request request;
	_cleanup_(closep) int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);

	request_name(&request, device);
	if (fd < 0 || ioctl(fd, DM_TABLE_DEPS, &request) < 0)
		return; /* not active: then nothing of it is changed */
	deps = (const struct dm_target_deps *)(const void *)(request.bytes +
							     request.header.data_start);
	for (uint32_t i = 0; i < deps->count && below->n < ARRAY_SIZE(below->device); i++) {
		bool is_known = false;

		for (size_t k = 0; k < below->n; k++)
			is_known |= below->device[k] == (dev_t)deps->dev[i];
		if (!is_known)
			below->device[below->n++] = (dev_t)deps->dev[i];
	}
}

int lvm_flush(const struct lvm_pool *lvm)
{
	char device[PATH_MAX], part[PATH_MAX + 8];
	struct below below = { .n = 0 };
	int why = 0;

	lvm_device(lvm, lvm->thin, device);
	(void)snprintf(part, sizeof(part), "%s_tmeta", device);
	find_below(part, &below);
	(void)snprintf(part, sizeof(part), "%s_tdata", device);
	find_below(part, &below);
	for (size_t i = 0; i < below.n; i++) {
		int failed = flush_device(below.device[i]);

		why = why ? why : failed;
	}
	return why;
}
