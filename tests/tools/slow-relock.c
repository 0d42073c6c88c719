/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a program that uses librbd: where librbd, on a thread of librados, gives up a
 * lock, wakes somebody, and takes the same lock again, it waits for 100 ms before. Whoever was
 * woken then is faster than what it has still to do. With COPPICE_RELOCKED, a file is made by that
 * name where that is so.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* What is called instead of the C library's. */
#define INSTEAD __attribute__((visibility("default")))

#define THREADS  "io_context_pool" /* what librados calls them */
#define PAUSE_NS 100000000
#define MOST     16

typedef int mutex_fn(pthread_mutex_t *mutex);
typedef int cond_fn(pthread_cond_t *cond);
typedef int epoll_fn(int epoll, int op, int fd, struct epoll_event *event);

static mutex_fn *real_lock, *real_unlock;
static cond_fn *real_signal, *real_broadcast;
static epoll_fn *real_epoll_ctl;

/* Of what is called on this thread just now: which locks it has given up, before it woke somebody;
 * and since. */
static __thread const pthread_mutex_t *before[MOST], *since[MOST];
static __thread size_t n_before, n_since;

static void *find(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void begin(void)
{
	*(void **)&real_lock = find("pthread_mutex_lock");
	*(void **)&real_unlock = find("pthread_mutex_unlock");
	*(void **)&real_signal = find("pthread_cond_signal");
	*(void **)&real_broadcast = find("pthread_cond_broadcast");
	*(void **)&real_epoll_ctl = find("epoll_ctl");
}

static bool is_one_of_them(void)
{
	static __thread bool is_known;
	char name[17] = "";

	if (!is_known) /* it gets its name once it runs */
		is_known = prctl(PR_GET_NAME, name) == 0 && strcmp(name, THREADS) == 0;
	return is_known;
}

static bool is_in(const void *caller, const char *library)
{
	Dl_info info;

	return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, library);
}

static void forget(void)
{
	n_before = n_since = 0;
}

static bool was_given_up_before(const pthread_mutex_t *mutex)
{
	for (size_t i = 0; i < n_before; i++)
		if (before[i] == mutex)
			return true;
	return false;
}

static void be_slow(void)
{
	static atomic_flag is_somebody = ATOMIC_FLAG_INIT;
	const char *path = getenv("COPPICE_RELOCKED");
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;

	if (fd >= 0)
		(void)close(fd);
	if (atomic_flag_test_and_set(&is_somebody))
		return; /* the others are to be faster */
	(void)nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	atomic_flag_clear(&is_somebody);
}

INSTEAD int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	const void *caller = __builtin_return_address(0);

	if (!real_lock) /* before we begin there is one thread */
		return 0;
	if (is_one_of_them()) {
		if (is_in(caller, "/librados.so")) { /* which is where each is called from */
			forget();
		} else if (was_given_up_before(mutex) && is_in(caller, "/librbd.so")) {
			be_slow();
			forget();
		}
	}
	return real_lock(mutex);
}

INSTEAD int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	if (is_one_of_them() && n_since < MOST && is_in(__builtin_return_address(0), "/librbd.so"))
		since[n_since++] = mutex;
	return real_unlock ? real_unlock(mutex) : 0;
}

static void woke(void)
{
	for (size_t i = 0; i < n_since && n_before < MOST; i++)
		before[n_before++] = since[i];
	n_since = 0;
}

INSTEAD int pthread_cond_signal(pthread_cond_t *cond)
{
	woke();
	return real_signal(cond);
}

INSTEAD int pthread_cond_broadcast(pthread_cond_t *cond)
{
	woke();
	return real_broadcast(cond);
}

/* So Asio wakes one that waits for files. */
INSTEAD int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	woke();
	return real_epoll_ctl(epoll, op, fd, event);
}
