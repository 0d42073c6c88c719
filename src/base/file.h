/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Reading and writing whole files and directories. */

#include <sys/stat.h>
#include <sys/types.h>

#include "base/error.h"

/* Read at most @max bytes of a file, as a string. free() the result. */
_nonnull_ int file_read(int dir_fd, const char *path, size_t max, char **ret,
			struct coppice_error *err);

/*
 * Replace a file. One at a time for each path: the caller has a lock.
 * Atomic: readers see the old content or the new; durable when it returns, if
 * @is_durable, and the old where that fails. A temporary name PATH.new may stay
 * behind after a kill, and is overwritten by the next write.
 */
_nonnull_ int file_write(int dir_fd, const char *path, const char *content, bool is_durable,
			 struct coppice_error *err);

/* Write all of it, however often write(2) must be called. */
_nonnull_ int write_all(int fd, const void *data, size_t length, const char *what,
			struct coppice_error *err);

/* Make a directory unless it is there. */
_nonnull_ int directory_ensure(int dir_fd, const char *path, mode_t mode,
			       struct coppice_error *err);

/* Is there nothing in this directory? "lost+found" does not count. */
_nonnull_ int directory_is_empty(const char *path, bool *ret, struct coppice_error *err);

/*
 * A number that is another one after every change of the list of names in a directory, by
 * whomever: what its times of change say. They are no finer than the kernel's tick, 10 ms at
 * worst, before Linux 6.13: while the tick of the last change is not over the number is one
 * that nobody sees again. directory_mark() gives the directory a time of its own, so that it
 * holds at once.
 */
_nonnull_ uint64_t directory_stamp(const struct stat *st);
_nonnull_ int directory_mark(int dir_fd, const char *path, struct coppice_error *err);

/* Make what was created in, removed from or renamed within a directory durable. */
_nonnull_ int directory_sync(int fd, const char *what, struct coppice_error *err);

/* Another text after each start of the machine; NULL where the kernel does not say. free() it. */
char *boot_id(void);

/* Now, in nanoseconds since 1970 UTC. */
int64_t now_ns(void);

/* 2026-11-23T20:37:00Z */
#define TIME_TEXT_SIZE 32
_nonnull_ void time_format(int64_t ns, char ret[static TIME_TEXT_SIZE]);

/*
 * Have room for @n more descriptors before threads are made. Linux lets whoever opens
 * the 65th, 129th … wait for a grace period of RCU, 10 to 20 ms, if the process has
 * threads by then. Does nothing where the limit of descriptors is lower.
 */
void descriptors_reserve(size_t n);

/* Is there a directory, or a link to one? */
_nonnull_ bool path_is_directory(const char *path);
