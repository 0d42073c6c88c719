/* SPDX-License-Identifier: Apache-2.0 */
/*
 * librados gives up when nothing answers; the kernel does not: who mounts, unmounts or flushes an
 * image's device waits until the cluster is back, and no signal ends that. So a process of its own
 * does it, and we wait for that as long as the device ends requests.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/bounded.h"
#include "base/clock.h"
#include "base/text.h"

/* For what is not of the cluster: processes that start, and end. */
#define OWN_MS 10000

/* What is well is done by then, also for who is interrupted and only tidies up. */
#define INTERRUPTED_MS OWN_MS

#define LOOK_MS 100

struct requests {
	uint64_t ended, under_way;
};

/* Of a device, as in the kernel's Documentation/block/stat.rst. */
static struct requests count_requests(const char *path)
{
	unsigned long long n[17] = { 0 };
	_cleanup_(fclosep) FILE *file = fopen(path, "re");

	for (size_t i = 0; file && i < ARRAY_SIZE(n) && fscanf(file, "%llu", &n[i]) == 1; i++)
		;
	return (struct requests){ n[0] + n[4] + n[11] + n[15], n[8] }; /* reads, writes, discards,
									  flushes */
}

static uint64_t count_ended(void *user)
{
	return count_requests(user).ended;
}

/* Who only now and then has something to write waits for no cluster meanwhile. */
static uint64_t count_ended_or_idle(void *user)
{
	struct requests requests = count_requests(user);

	return requests.under_way > 0 ? requests.ended : (uint64_t)clock_ms() | 1ULL << 63;
}

static void keep(struct patience *patience, int fd)
{
	if (fd > 0)
		patience->keep_fd[patience->n_keep++] = fd;
}

/* To take the draft back would be to wait for the same once more. */
static void note_left(const struct ceph_turn *turn)
{
	if (turn && turn->draft)
		ceph_making_of(turn->draft)->is_left = true;
}

static struct patience patience_of(const struct ceph_pool *ceph, const struct ceph_turn *turn)
{
	struct patience patience = { .most_ms = ceph->timeout_seconds * 1000 + OWN_MS,
				     .interrupted_ms = INTERRUPTED_MS,
				     .is_interrupted = ceph->pool.is_interrupted,
				     .interrupted_user = ceph->pool.interrupted_user };

	if (turn)
		keep(&patience, turn->file.fd);
	return patience;
}

/* @path: for as long as @patience is used. */
static void look_at_device(struct patience *patience, const char *device, char path[static 64])
{
	struct stat st;

	if (!device || stat(device, &st) < 0 || !S_ISBLK(st.st_mode))
		return;
	(void)snprintf(path, 64, "/sys/dev/block/%u:%u/stat", major(st.st_rdev), minor(st.st_rdev));
	patience->progress = count_ended;
	patience->user = path;
}

static int say_unanswered(const struct ceph_pool *ceph, struct coppice_error *err, const char *fmt,
			  va_list args)
{
	_cleanup_(freep) char *doing = NULL;

	if (vasprintf(&doing, fmt, args) < 0)
		doing = NULL;
	return doing ? fail_ceph(ceph, -ETIMEDOUT, err, "%s", doing) : fail_memory(err);
}

int ceph_patiently(const struct ceph_pool *ceph, const struct ceph_turn *turn, const char *device,
		   bounded_fn *fn, void *user, struct coppice_error *err, const char *fmt, ...)
{
	struct patience patience = patience_of(ceph, turn);
	char path[64];
	va_list args;
	int r;

	look_at_device(&patience, device, path);
	r = run_bounded(fn, user, &patience, err);
	if (r == COPPICE_INTERRUPTED)
		note_left(turn);
	if (r != COPPICE_UNAVAILABLE || err->os_errno != ETIMEDOUT)
		return r;
	note_left(turn);
	va_start(args, fmt);
	r = say_unanswered(ceph, err, fmt, args);
	va_end(args);
	return r;
}

/* ---- writing ---- */

int ceph_write_patiently(const struct ceph_pool *ceph, const struct ceph_turn *turn,
			 const char *device, bounded_fn *fn, void *user, struct coppice_error *err)
{
	struct patience patience = patience_of(ceph, turn);
	char path[64] = "";
	int r;

	look_at_device(&patience, device, path);
	patience.progress = count_ended_or_idle; /* what tells nothing counts as idle */
	patience.user = path;
	patience.interrupted_ms = 0;
	/* Killed, the maker is over when it has heard that, a moment later: sweeps pass till then.
	 */
	if (turn && turn->draft) {
		keep(&patience, turn->draft->fd);
		keep(&patience, turn->draft->source_fd);
	}
	r = run_bounded(fn, user, &patience, err);
	if (r != COPPICE_UNAVAILABLE || err->os_errno != ETIMEDOUT)
		return r;
	note_left(turn);
	return fail_ceph(ceph, -ETIMEDOUT, err, "cannot write to '%s'", device);
}

int ceph_writing_check(const struct ceph_pool *ceph, const char *device, struct waiting *writing,
		       struct coppice_error *err)
{
	struct patience patience = patience_of(ceph, NULL);
	char path[64];
	int r;

	look_at_device(&patience, device, path);
	if (!patience.progress)
		return COPPICE_OK;
	patience.progress = count_ended_or_idle;
	patience.is_interrupted = NULL;
	if (writing->since_ms == 0)
		waiting_begin(writing, &patience);
	r = waiting_check(writing, &patience, err);
	return r < 0 ? fail_ceph(ceph, -ETIMEDOUT, err, "cannot write to '%s'", device)
		     : COPPICE_OK;
}

/* ---- turns ---- */

/*
 * The lock is of the open file, which a process that is left behind has as well: so nobody begins
 * anything with an image before all that was begun with it is over.
 */
int ceph_turn_take(const struct ceph_pool *ceph, const char *name, struct ceph_turn *ret,
		   struct coppice_error *err)
{
	struct lock_want want = { lock_byte_alone(name), true };
	_cleanup_(freep) char *path = text_format("%s/" CEPH_TURNS, ceph->files.path);
	struct patience patience = patience_of(ceph, NULL);
	char device[PATH_MAX], stat_path[64];
	struct coppice_error ignored;
	struct waiting waiting;
	int r;

	if (!path)
		return fail_memory(err);
	r = lock_file_open(AT_FDCWD, path, LOOK_MS, &ret->file, err);
	if (r < 0)
		return r;
	waiting_begin(&waiting, &patience);
	while (r == COPPICE_OK && (r = lock_take(&ret->file, &want, 1, &ignored)) == COPPICE_BUSY) {
		/* It may just have been mapped; who is to stop waits for no progress. */
		if (pool_is_interrupted(&ceph->pool))
			patience.progress = NULL;
		else
			look_at_device(&patience, ceph_linked(ceph, name, device) ? device : NULL,
				       stat_path);
		r = waiting_check(&waiting, &patience, err);
	}
	if (r == COPPICE_OK)
		return COPPICE_OK;
	ceph_turn_give(ret);
	if (r == COPPICE_UNAVAILABLE)
		return fail_ceph(ceph, -ETIMEDOUT, err,
				 "what was begun with the device of '%s/%s' is not over",
				 ceph->osd_pool, name);
	if (r != COPPICE_INTERRUPTED)
		*err = ignored;
	return r;
}

void ceph_turn_give(struct ceph_turn *turn)
{
	lock_file_close(&turn->file);
}
