/* SPDX-License-Identifier: Apache-2.0 */
#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

#define BYTES_PER_RANGE 65536U

unsigned lock_byte_alone(const char *name)
{
	uint32_t hash = 2166136261U; /* FNV-1a */

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 16777619U;
	return hash;
}

unsigned lock_byte(unsigned range, const char *name)
{
	unsigned hash = lock_byte_alone(name);

	return range * BYTES_PER_RANGE + (hash ^ hash >> 16) % BYTES_PER_RANGE;
}

unsigned lock_range_of(unsigned byte)
{
	return byte / BYTES_PER_RANGE;
}

int lock_file_open(int dir_fd, const char *path, unsigned timeout_ms, struct lock_file *ret,
		   struct coppice_error *err)
{
	int fd = retry(openat(dir_fd, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));

	if (fd >= 0 && fd <= STDERR_FILENO) { /* 0 is "none", and the others are written to */
		int low = fd;

		fd = fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		(void)close(low);
	}
	if (fd < 0)
		return fail_errno(err, errno, "cannot open lock file '%s'", path);
	*ret = (struct lock_file){ .fd = fd, .timeout_ms = timeout_ms };
	return COPPICE_OK;
}

void lock_file_close(struct lock_file *file)
{
	if (file->fd > 0)
		(void)close(file->fd);
	file->fd = -1;
}

static int set_lock(int fd, unsigned byte, short type)
{
	struct flock lock = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1
	};

	return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? errno : 0;
}

/* Polls: F_OFD_SETLKW knows no timeout, and a signal to end it could come too early. */
static int take_one(struct lock_file *file, const struct lock_want *want, int64_t deadline_ms,
		    struct coppice_error *err)
{
	long wait_us = 200;

	for (;;) {
		int e = set_lock(file->fd, want->byte, want->is_exclusive ? F_WRLCK : F_RDLCK);

		if (e == 0)
			return COPPICE_OK;
		if (e != EAGAIN && e != EACCES && e != EINTR)
			return fail_errno(err, e, "cannot lock");
		if (file->is_interrupted && file->is_interrupted(file->user))
			return fail(err, COPPICE_INTERRUPTED,
				    "interrupted while waiting for another command");
		if (clock_ms() >= deadline_ms)
			return fail(
				err, COPPICE_BUSY,
				"another command holds the lock; waited %u ms, see --lock-timeout",
				file->timeout_ms);
		(void)nanosleep(&(struct timespec){ .tv_nsec = wait_us * 1000 }, NULL);
		if (wait_us < 20000)
			wait_us *= 2;
	}
}

static int compare_wants(const void *a, const void *b)
{
	const struct lock_want *x = a, *y = b;

	if (x->byte != y->byte)
		return x->byte < y->byte ? -1 : 1;
	return (int)y->is_exclusive - (int)x->is_exclusive;
}

int lock_take(struct lock_file *file, struct lock_want *wants, size_t n, struct coppice_error *err)
{
	int64_t deadline_ms = clock_ms() + file->timeout_ms;

	qsort(wants, n, sizeof(*wants), compare_wants);
	for (size_t i = 0; i < n; i++) {
		int r;

		/* The exclusive one of a byte comes first; a second would downgrade it. */
		if (i > 0 && wants[i].byte == wants[i - 1].byte)
			continue;
		r = take_one(file, &wants[i], deadline_ms, err);
		if (r < 0) {
			lock_give(file, wants, i);
			return r;
		}
	}
	return COPPICE_OK;
}

void lock_give(struct lock_file *file, const struct lock_want *wants, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)set_lock(file->fd, wants[i].byte, F_UNLCK);
}
