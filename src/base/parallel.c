/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parallel.h"

#include <signal.h>
#include <stdatomic.h>

#define THREADS_MAX 256
#define STACK_BYTES (512 * 1024) /* of which what is used is taken; librbd uses more than 64 KiB */

struct work {
	size_t n;
	parallel_fn *fn;
	void *user;
	atomic_size_t next;
	atomic_bool is_stopped;
	pthread_mutex_t lock; /* of the three below */
	size_t failed_at;
	int result;
	struct coppice_error *err;
};

static void *worker(void *argument)
{
	struct work *work = argument;

	while (!atomic_load(&work->is_stopped)) {
		struct coppice_error err = COPPICE_ERROR_INIT;
		size_t i = atomic_fetch_add(&work->next, 1);
		int r;

		if (i >= work->n)
			break;
		r = work->fn(work->user, i, &err);
		if (r >= 0)
			continue;
		atomic_store(&work->is_stopped, true);
		(void)pthread_mutex_lock(&work->lock);
		if (work->result == COPPICE_OK || i < work->failed_at) {
			work->result = r;
			work->failed_at = i;
			*work->err = err;
		}
		(void)pthread_mutex_unlock(&work->lock);
	}
	return NULL;
}

int thread_begin(pthread_t *ret, const pthread_attr_t *attributes, void *(*fn)(void *), void *user)
{
	sigset_t all, before;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(ret, attributes, fn, user);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int parallel_run(size_t n, size_t threads, parallel_fn *fn, void *user, struct coppice_error *err)
{
	struct work work = { .n = n, .fn = fn, .user = user, .err = err };
	pthread_t thread[THREADS_MAX];
	pthread_attr_t attributes;
	size_t started = 0;

	if (threads > n)
		threads = n;
	if (threads > THREADS_MAX)
		threads = THREADS_MAX;
	(void)pthread_mutex_init(&work.lock, NULL);
	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
	while (started + 1 < threads &&
	       thread_begin(&thread[started], &attributes, worker, &work) == 0)
		started++;
	(void)pthread_attr_destroy(&attributes);
	(void)worker(&work);
	for (size_t i = 0; i < started; i++)
		(void)pthread_join(thread[i], NULL);
	(void)pthread_mutex_destroy(&work.lock);
	return work.result;
}
