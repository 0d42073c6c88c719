/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor of tests/bench/ceph: what librbd itself needs for what Coppice does on RBD, on one
 * connection. No records, no drafts, no checks. librbd has no asynchronous call for these, so more
 * than one at a time takes threads; the bench has as many as are fastest: one after another takes
 * nearly twice as long as sixteen at once, and more than sixteen gain nothing.
 *
 *	ceph-floor clone POOL IMAGE@SNAPSHOT PREFIX N THREADS    PREFIX1 … PREFIXN
 *	ceph-floor remove POOL PREFIX N THREADS                  those
 *
 * Each prints how long that took, in milliseconds. Starting the process is not counted;
 * connecting to the cluster is, as nothing can be made without.
 */
#include <errno.h>
#include <pthread.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	THREADS_MAX = 128
};

static const char *origin, *snapshot, *prefix;
static rados_ioctx_t io;
static int n, next;

static void die(const char *what, int r)
{
	(void)fprintf(stderr, "ceph-floor: %s: %s\n", what, strerror(-r));
	exit(1);
}

static double now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void connect_to(const char *pool)
{
	rados_t cluster;
	int r = rados_create(&cluster, "admin");

	if (r == 0)
		r = rados_conf_read_file(cluster, NULL);
	if (r == 0)
		r = rados_connect(cluster);
	if (r == 0)
		r = rados_ioctx_create(cluster, pool, &io);
	if (r < 0)
		die(pool, r);
}

static int clone_one(const char *name)
{
	rbd_image_options_t options;
	int r;

	rbd_image_options_create(&options);
	r = rbd_clone3(io, origin, snapshot, io, name, options);
	rbd_image_options_destroy(options);
	return r;
}

static int remove_one(const char *name)
{
	return rbd_remove(io, name);
}

static void *do_some(void *user)
{
	int (*do_one)(const char *name) = *(int (**)(const char *))user;
	char name[96];
	int i, r;

	while ((i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < n) {
		(void)snprintf(name, sizeof(name), "%s%d", prefix, i + 1);
		r = do_one(name);
		if (r < 0)
			die(name, r);
	}
	return NULL;
}

static int run(const char *pool, int (*do_one)(const char *name), int n_threads)
{
	pthread_t threads[THREADS_MAX];
	double begun = now_ms();

	connect_to(pool);
	for (int i = 1; i < n_threads; i++)
		if (pthread_create(&threads[i], NULL, do_some, (void *)&do_one) != 0)
			die("thread", -EAGAIN);
	(void)do_some((void *)&do_one);
	for (int i = 1; i < n_threads; i++)
		(void)pthread_join(threads[i], NULL);
	(void)printf("%.0f\n", now_ms() - begun);
	return 0;
}

static int to_threads(const char *text)
{
	int n_threads = atoi(text);

	return n_threads < 1 ? 1 : n_threads > THREADS_MAX ? THREADS_MAX : n_threads;
}

int main(int argc, char **argv)
{
	char *at = argc == 7 ? strchr(argv[3], '@') : NULL;

	if (at && !strcmp(argv[1], "clone") && (n = atoi(argv[5])) > 0) {
		*at = '\0';
		origin = argv[3];
		snapshot = at + 1;
		prefix = argv[4];
		return run(argv[2], clone_one, to_threads(argv[6]));
	}
	if (argc == 6 && !strcmp(argv[1], "remove") && (n = atoi(argv[4])) > 0) {
		prefix = argv[3];
		return run(argv[2], remove_one, to_threads(argv[5]));
	}
	(void)fprintf(stderr, "usage: ceph-floor clone POOL IMAGE@SNAPSHOT PREFIX N THREADS | "
			      "remove POOL PREFIX N THREADS\n");
	return 2;
}
