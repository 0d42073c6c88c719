/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Words this code base adds to C. Nothing here knows about storage.
 */

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define _cleanup_(fn)       __attribute__((cleanup(fn)))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _nonnull_           __attribute__((nonnull))
#define _must_check_        __attribute__((warn_unused_result))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define CONTAINER_OF(pointer, type, member)                                                        \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Give away what a cleanup variable owns: return take_ptr(&vol); */
#define take_ptr(pp)                                                                               \
	({                                                                                         \
		__typeof__(*(pp)) _taken_ = *(pp);                                                 \
		*(pp) = NULL;                                                                      \
		_taken_;                                                                           \
	})

/* Call it again while it ends with EINTR: fd = retry(open(…)); */
#define retry(call)                                                                                \
	({                                                                                         \
		__typeof__(call) _result_;                                                         \
		do {                                                                               \
			_result_ = (call);                                                         \
		} while (_result_ == -1 && errno == EINTR);                                        \
		_result_;                                                                          \
	})

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

static inline bool bytes_are_zero(const void *bytes, size_t n)
{
	const char *first = bytes;

	return n == 0 || (first[0] == 0 && memcmp(first, first + 1, n - 1) == 0);
}

/* Make `func`p(), for _cleanup_(), out of a destructor that accepts NULL. */
#define DEFINE_CLEANUP(type, func)                                                                 \
	static inline void func##p(type *p)                                                        \
	{                                                                                          \
		func(*p);                                                                          \
	}

static inline void freep(void *p)
{
	free(*(void **)p);
}

static inline void closep(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void closedirp(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

static inline void fclosep(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}
