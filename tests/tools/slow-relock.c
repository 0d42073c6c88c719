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

/* Of what is called on this thread just now: which locks it has given up, before it woke somebody;
 * and since. */
static __thread const pthread_mutex_t *before[MOST], *since[MOST];
static __thread size_t n_before, n_since;

/* What the C library has by that name; it may be asked for before anything of ours has begun. */
static void *real(_Atomic(void *) *known, const char *name)
{
	if (!*known)
		*known = dlsym(RTLD_NEXT, name);
	return *known;
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
	int fd;

	if (atomic_flag_test_and_set(&is_somebody))
		return; /* the others are to be faster */
	fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
	(void)nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	if (fd >= 0)
		(void)close(fd);
	atomic_flag_clear(&is_somebody);
}

INSTEAD int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	static _Atomic(void *) known;
	const void *caller = __builtin_return_address(0);

	if (is_one_of_them()) {
		if (is_in(caller, "/librados.so")) { /* which is where each is called from */
			forget();
		} else if (was_given_up_before(mutex) && is_in(caller, "/librbd.so")) {
			be_slow();
			forget();
		}
	}
	return ((mutex_fn *)real(&known, "pthread_mutex_lock"))(mutex);
}

INSTEAD int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	static _Atomic(void *) known;

	if (is_one_of_them() && n_since < MOST && is_in(__builtin_return_address(0), "/librbd.so"))
		since[n_since++] = mutex;
	return ((mutex_fn *)real(&known, "pthread_mutex_unlock"))(mutex);
}

static void woke(void)
{
	for (size_t i = 0; i < n_since && n_before < MOST; i++)
		before[n_before++] = since[i];
	n_since = 0;
}

INSTEAD int pthread_cond_signal(pthread_cond_t *cond)
{
	static _Atomic(void *) known;

	woke();
	return ((cond_fn *)real(&known, "pthread_cond_signal"))(cond);
}

INSTEAD int pthread_cond_broadcast(pthread_cond_t *cond)
{
	static _Atomic(void *) known;

	woke();
	return ((cond_fn *)real(&known, "pthread_cond_broadcast"))(cond);
}

/* So Asio wakes one that waits for files. */
INSTEAD int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	static _Atomic(void *) known;

	woke();
	return ((epoll_fn *)real(&known, "epoll_ctl"))(epoll, op, fd, event);
}
