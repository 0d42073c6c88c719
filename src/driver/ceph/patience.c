/* SPDX-License-Identifier: Apache-2.0 */
/*
 * librados gives up when nothing answers; the kernel does not: who mounts, unmounts or flushes an
 * image's device waits until the cluster is back, and no signal ends that. So a process of its own
 * does it, and we wait for that as long as the device ends requests.
 */
#include "driver/ceph/ceph.h"

#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/bounded.h"

/* For what is not of the cluster: processes that start, and end. */
#define OWN_MS 10000

/* How many requests the device has ended, as in the kernel's Documentation/block/stat.rst. */
static uint64_t count_ended(void *user)
{
	const char *path = user;
	unsigned long long n[17] = { 0 };
	_cleanup_(fclosep) FILE *file = fopen(path, "re");

	for (size_t i = 0; file && i < ARRAY_SIZE(n) && fscanf(file, "%llu", &n[i]) == 1; i++)
		;
	return n[0] + n[4] + n[11] + n[15]; /* reads, writes, discards, flushes */
}

int ceph_patiently(const struct ceph_pool *ceph, const char *device, bounded_fn *fn, void *user,
		   struct coppice_error *err, const char *fmt, ...)
{
	struct patience patience = { .most_ms = ceph->timeout_seconds * 1000 + OWN_MS };
	_cleanup_(freep) char *doing = NULL;
	char path[64];
	struct stat st;
	va_list args;
	int r;

	if (device && stat(device, &st) == 0 && S_ISBLK(st.st_mode)) {
		(void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/stat", major(st.st_rdev),
			       minor(st.st_rdev));
		patience.progress = count_ended;
		patience.user = path;
	}
	r = run_bounded(fn, user, &patience, err);
	if (r != COPPICE_UNAVAILABLE || err->os_errno != ETIMEDOUT)
		return r;
	va_start(args, fmt);
	if (vasprintf(&doing, fmt, args) < 0)
		doing = NULL;
	va_end(args);
	return doing ? fail_ceph(ceph, -ETIMEDOUT, err, "%s", doing) : fail_memory(err);
}
