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

/* Room for what one target says of itself. */
union request {
	struct dm_ioctl header;
	char bytes[4096];
};

static int request_init(const struct lvm_pool *lvm, union request *request,
			struct coppice_error *err)
{
	char device[PATH_MAX];
	const char *name;

	if (!lvm_pool_device(lvm, device))
		return fail(err, COPPICE_UNAVAILABLE, "the thin pool '%s/%s' is not active",
			    lvm->vg, lvm->thin);
	name = strrchr(device, '/') + 1;
	*request = (union request){ .header = {
					    .version = { DM_VERSION_MAJOR, 0, 0 },
					    .data_size = sizeof(*request),
					    .data_start = sizeof(request->header),
				    } };
	(void)snprintf(request->header.name, sizeof(request->header.name), "%s", name);
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

/* "TRANSACTION USED/TOTAL of metadata USED/TOTAL of data …", as in the kernel's
 * thin-provisioning.rst */
int lvm_pool_status(const struct lvm_pool *lvm, struct pool_status *ret, struct coppice_error *err)
{
	unsigned long long transaction, meta_used, meta_total, used, total;
	const struct dm_target_spec *target;
	union request request;
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
	    sscanf(said, "%llu %llu/%llu %llu/%llu", &transaction, &meta_used, &meta_total, &used,
		   &total) != 5 ||
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
		.needs_check = strstr(said, " needs_check") != NULL,
	};
	return COPPICE_OK;
}
