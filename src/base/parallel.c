/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parallel.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#define THREADS_MAX 256
#define STACK_BYTES (64 * 1024)

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

/* All wait at the gate, which is held for writing until there is work. */
struct crew {
	struct work work;
	pthread_rwlock_t gate;
	bool is_open;
	pthread_t maker, thread[THREADS_MAX];
	bool has_maker;
	size_t wanted, started; /* started: the maker's, until it is joined */
};

static void work_do(struct work *work)
{
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
}

static void *worker(void *argument)
{
	struct crew *crew = argument;

	(void)pthread_rwlock_rdlock(&crew->gate);
	(void)pthread_rwlock_unlock(&crew->gate);
	work_do(&crew->work);
	return NULL;
}

static void *maker(void *argument)
{
	struct crew *crew = argument;
	pthread_attr_t attributes;

	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
	while (crew->started < crew->wanted &&
	       pthread_create(&crew->thread[crew->started], &attributes, worker, crew) == 0)
		crew->started++;
	(void)pthread_attr_destroy(&attributes);
	return NULL;
}

struct crew *crew_new(size_t threads)
{
	struct crew *crew = calloc(1, sizeof(*crew));
	sigset_t all, before;

	if (!crew)
		return NULL;
	crew->wanted = threads < THREADS_MAX ? threads : THREADS_MAX;
	(void)pthread_mutex_init(&crew->work.lock, NULL);
	(void)pthread_rwlock_init(&crew->gate, NULL);
	(void)pthread_rwlock_wrlock(&crew->gate);
	/* Signals belong to the caller's own thread. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	crew->has_maker = pthread_create(&crew->maker, NULL, maker, crew) == 0;
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return crew;
}

/* Let all go, and wait for them. */
static void crew_finish(struct crew *crew)
{
	if (!crew->is_open)
		(void)pthread_rwlock_unlock(&crew->gate);
	crew->is_open = true;
	work_do(&crew->work);
	if (crew->has_maker)
		(void)pthread_join(crew->maker, NULL);
	crew->has_maker = false;
	while (crew->started > 0)
		(void)pthread_join(crew->thread[--crew->started], NULL);
}

int crew_run(struct crew *crew, size_t n, parallel_fn *fn, void *user, struct coppice_error *err)
{
	struct coppice_error own;
	int r = COPPICE_OK;

	if (crew) {
		crew->work.n = n;
		crew->work.fn = fn;
		crew->work.user = user;
		crew->work.err = err;
		crew_finish(crew);
		return crew->work.result;
	}
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		r = fn(user, i, &own);
		if (r < 0)
			*err = own;
	}
	return r;
}

void crew_freep(struct crew **crew)
{
	if (!*crew)
		return;
	crew_finish(*crew);
	(void)pthread_rwlock_destroy(&(*crew)->gate);
	(void)pthread_mutex_destroy(&(*crew)->work.lock);
	free(*crew);
	*crew = NULL;
}

int parallel_run(size_t n, size_t threads, parallel_fn *fn, void *user, struct coppice_error *err)
{
	size_t wanted = threads < n ? threads : n;
	_cleanup_(crew_freep) struct crew *crew = wanted > 1 ? crew_new(wanted - 1) : NULL;

	return crew_run(crew, n, fn, user, err);
}
