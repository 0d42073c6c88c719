/* SPDX-License-Identifier: Apache-2.0 */
/* The locks that all commands share: in the state directory, and in pools that other hosts use. */
#include "core/core.h"

#include <string.h>

#include "base/clock.h"

void locks_add(struct locks *locks, enum lock_range range, const char *name, bool is_exclusive)
{
	if (locks->n == locks->capacity) {
		size_t capacity = locks->capacity ? 2 * locks->capacity : 8;
		struct lock_want *more = reallocarray(locks->want, capacity, sizeof(*more));

		if (!more) {
			locks->is_failed = true;
			return;
		}
		locks->want = more;
		locks->capacity = capacity;
	}
	locks->want[locks->n++] =
		(struct lock_want){ .byte = lock_byte(range, name), .is_exclusive = is_exclusive };
}

#define WAIT_MS_FIRST 2
#define WAIT_MS_MOST  50 /* of a cluster, which each of who waits asks */

int wait_while_busy(struct coppice *coppice, busy_fn *fn, void *user, unsigned most_ms,
		    struct coppice_error *err)
{
	int64_t deadline_ms = clock_ms() + coppice->locks.timeout_ms;
	unsigned ms = WAIT_MS_FIRST;
	int r;

	while ((r = fn(user, err)) == COPPICE_BUSY) {
		if (is_interrupted(coppice))
			return fail(err, COPPICE_INTERRUPTED, "interrupted; nothing was changed");
		if (clock_ms() >= deadline_ms)
			return r;
		clock_pause(ms);
		ms = 2 * ms < most_ms ? 2 * ms : most_ms;
	}
	return r;
}

/* Names that mean the same on every host; those of pools and aliases do not. */
static int choose_shared(struct locks *locks, struct coppice_error *err)
{
	free(locks->shared);
	locks->n_shared = 0;
	locks->shared = calloc(locks->n + 1, sizeof(*locks->shared));
	if (!locks->shared)
		return fail_memory(err);
	for (size_t i = 0; i < locks->n; i++) {
		unsigned range = lock_range_of(locks->want[i].byte);

		if (range == LOCK_IMAGES || range == LOCK_INSTANCES)
			locks->shared[locks->n_shared++] = locks->want[i];
	}
	return COPPICE_OK;
}

struct telling {
	const struct locks *locks;
	struct pool_entry *entry;
};

static int try_tell(void *user, struct coppice_error *err)
{
	const struct telling *telling = user;

	return telling->entry->driver->names_lock(telling->entry->pool, telling->locks->shared,
						  telling->locks->n_shared, err);
}

/* A pool that other hosts use knows what is locked, too. */
static int tell(struct coppice *coppice, struct locks *locks, struct pool_entry *entry,
		struct coppice_error *err)
{
	struct telling telling = { locks, entry };
	struct pool_entry **more;
	int r;

	if (!entry->pool || !entry->driver->names_lock || locks->n_shared == 0)
		return COPPICE_OK;
	more = reallocarray(locks->told, locks->n_told + 1, sizeof(struct pool_entry *));
	if (!more)
		return fail_memory(err);
	locks->told = more;
	r = wait_while_busy(coppice, try_tell, &telling, WAIT_MS_MOST, err);
	if (r == COPPICE_OK)
		more[locks->n_told++] = entry;
	return r;
}

int locks_tell(struct coppice *coppice, struct pool_entry *entry, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (struct locks *locks = coppice->held; locks && r == COPPICE_OK; locks = locks->next)
		r = tell(coppice, locks, entry, err);
	return r;
}

static void untell_pools(struct coppice *coppice, struct locks *locks)
{
	for (size_t i = 0; i < coppice->n_pools; i++) {
		struct pool_entry *entry = coppice->pools[i];

		for (size_t k = 0; k < locks->n_told; k++)
			if (locks->told[k] == entry && entry->pool)
				entry->driver->names_unlock(entry->pool, locks->shared,
							    locks->n_shared);
	}
}

/*
 * On this host whoever had the locks before us brought the catalog up to date. On another host he
 * did not, and may have changed the pool after we compared it.
 */
static int compare_told(struct coppice *coppice, const struct locks *locks,
			struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < locks->n_told && r == COPPICE_OK; i++)
		if (locks->told[i]->is_fresh)
			r = catalog_refresh(coppice, locks->told[i], err);
	return r;
}

/* After a failure it holds what locks_done() gives back. */
int locks_take(struct coppice *coppice, struct locks *locks, struct coppice_error *err)
{
	int r;

	if (locks->is_failed)
		return fail_memory(err);
	r = lock_take(&coppice->locks, locks->want, locks->n, err);
	if (r < 0)
		return r;
	locks->coppice = coppice;
	locks->next = coppice->held;
	coppice->held = locks;
	if (!coppice->options.is_dry_run)
		r = choose_shared(locks, err);
	for (size_t i = 0; i < coppice->n_pools && r == COPPICE_OK; i++)
		r = tell(coppice, locks, coppice->pools[i], err);
	if (r == COPPICE_OK)
		r = pools_settle(coppice, err);
	return r < 0 ? r : compare_told(coppice, locks, err);
}

static void unhold(struct coppice *coppice, const struct locks *locks)
{
	struct locks **at = &coppice->held;

	while (*at != locks)
		at = &(*at)->next;
	*at = locks->next;
}

void locks_done(struct locks *locks)
{
	if (locks->coppice) {
		unhold(locks->coppice, locks);
		untell_pools(locks->coppice, locks);
		lock_give(&locks->coppice->locks, locks->want, locks->n);
	}
	free(locks->want);
	free(locks->shared);
	free(locks->told);
	*locks = (struct locks)LOCKS_INIT;
}
