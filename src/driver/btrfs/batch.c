/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot ioctl holds the lock of the directory it creates in while it
 * commits. Each in a directory of its own and at the same time, they share
 * commits: 100 take 32 ms, where one after another takes 255 ms.
 */
#include "driver/btrfs/batch.h"

#include <errno.h>
#include <linux/btrfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "driver/btrfs/sysfs.h"

/* Threads at once. Each mostly waits for the one commit that all share. */
#define WIDTH 128

/*
 * Each snapshot that waits for its commit reserves 3 MiB for metadata (12 items at 16
 * nodes of 16 KiB), and above 128 MiB of reservations Linux may begin to write out
 * everybody's dirty data, to have less of them ("preemptive reclaim", since 5.12; once
 * there was pressure, it does). 100 snapshots beside 1 GiB of dirty data took 800 ms
 * then, as the commit waited behind it; in waves of 34 they take three short commits.
 */
#define WIDTH_BESIDE_DIRTY    34
#define DIRTY_THAT_TAKES_LONG (64ULL << 20)

int batch_commit_begin(int fd, uint64_t *ret_transid, struct coppice_error *err)
{
	*ret_transid = 0;
	if (retry(ioctl(fd, BTRFS_IOC_START_SYNC, ret_transid)) < 0)
		return fail_errno(err, errno, "cannot commit");
	return COPPICE_OK;
}

int batch_commit_wait(int fd, uint64_t transid, struct coppice_error *err)
{
	if (retry(ioctl(fd, BTRFS_IOC_WAIT_SYNC, &transid)) < 0)
		return fail_errno(err, errno, "cannot commit");
	return COPPICE_OK;
}

int batch_commit(int fd, struct coppice_error *err)
{
	uint64_t transid;
	int r = batch_commit_begin(fd, &transid, err);

	return r < 0 ? r : batch_commit_wait(fd, transid, err);
}

/*
 * Begin to commit, and do not wait. A snapshot begins a commit at once, which only
 * those share that are asking in that instant; but while the commit before it runs,
 * it waits, and all the others join it. Where nothing changed there is no commit:
 * so something changes.
 */
static void commit_ahead(int fd)
{
	struct coppice_error ignored;
	uint64_t transid;

	(void)futimens(fd, NULL);
	(void)batch_commit_begin(fd, &transid, &ignored);
}

/* What is written and not allocated yet, by whomever. */
static size_t width(int fd)
{
	uint64_t dirty_bytes = 0;

	if (sysfs_read_number(fd, "allocation/data/bytes_may_use", &dirty_bytes) &&
	    dirty_bytes > DIRTY_THAT_TAKES_LONG)
		return WIDTH_BESIDE_DIRTY;
	return WIDTH;
}

struct wave {
	parallel_fn *snapshot;
	void *user;
	size_t first;
};

static int snapshot_of_wave(void *user, size_t i, struct coppice_error *err)
{
	struct wave *wave = user;

	return wave->snapshot(wave->user, wave->first + i, err);
}

int batch_run(int fd, size_t n, parallel_fn *snapshot, void *user, struct coppice_error *err)
{
	struct wave wave = { .snapshot = snapshot, .user = user };
	size_t at_once = width(fd);
	int r = COPPICE_OK;

	descriptors_reserve(n < WIDTH ? n : WIDTH); /* each opens its directory */
	for (; wave.first < n && r == COPPICE_OK; wave.first += at_once) {
		size_t left = n - wave.first;

		if (left > 1)
			commit_ahead(fd);
		r = parallel_run(left < at_once ? left : at_once, at_once, snapshot_of_wave, &wave,
				 err);
	}
	return r;
}
