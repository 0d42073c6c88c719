/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Locks between processes: byte ranges of one file that is never unlinked.
 *
 * Open file description locks (fcntl(2), F_OFD_SETLK): they go with the
 * descriptor, so also when the process is killed, and they hold between threads.
 * One file serves thousands of names: name → byte by a hash, so two names may
 * share a byte and then wait for each other without need, never wrongly pass.
 * Several are always taken in ascending order, so nobody waits in a circle.
 */

#include "base/error.h"

struct lock_file {
	int fd;
	unsigned timeout_ms;                /* how long to wait before COPPICE_BUSY */
	bool (*is_interrupted)(void *user); /* asked while waiting; NULL: never */
	void *user;
};

/* What to lock: a range of names ("image", "instance") and a name in it. */
struct lock_want {
	unsigned byte;
	bool is_exclusive;
};

/* The byte of a name. Ranges (0 … 15) keep names of different things apart. */
_nonnull_ unsigned lock_byte(unsigned range, const char *name);

/* The same of a file with one range, that has all bytes: two names seldom share one. */
_nonnull_ unsigned lock_byte_alone(const char *name);

/* Of which range is a byte? */
unsigned lock_range_of(unsigned byte);

_nonnull_ int lock_file_open(int dir_fd, const char *path, unsigned timeout_ms,
			     struct lock_file *ret, struct coppice_error *err);

/* Closing gives all its locks back. Takes a zeroed one, with fd -1 or 0, too. */
void lock_file_close(struct lock_file *file);

/*
 * Take all of @wants, sorted here in place; the same byte may occur twice.
 * Waits for others up to the timeout. On failure none is held.
 * COPPICE_BUSY; COPPICE_INTERRUPTED.
 */
_nonnull_ int lock_take(struct lock_file *file, struct lock_want *wants, size_t n,
			struct coppice_error *err);

/* Give back what lock_take() took. */
_nonnull_ void lock_give(struct lock_file *file, const struct lock_want *wants, size_t n);
