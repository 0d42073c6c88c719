/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Waiting: until when, and for a while. */

#include <stdint.h>
#include <time.h>

/* Milliseconds since some moment; never set back, and standing while the host is suspended. */
static inline int64_t clock_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A signal ends it early. */
static inline void clock_pause(unsigned ms)
{
	(void)nanosleep(&(struct timespec){ ms / 1000, (long)(ms % 1000) * 1000000 }, NULL);
}
