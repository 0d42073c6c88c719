/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After the dead: their drafts end, what they retired is reaped, what they locked is free. Those of
 * this host are known by files that nobody holds any more; of another host whoever meets one of
 * theirs asks the cluster, and each command asks about one. One sweeps at a time.
 */
#include "driver/ceph/ceph.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

/* ---- debts ---- */

static int debt_put(struct ceph_pool *ceph, const char *id, const char *text,
		    struct coppice_error *err)
{
	_cleanup_(freep) char *key = text_format(ROOT_OWED "%s", id);

	if (!key)
		return fail_memory(err);
	return text ? root_set(ceph, key, text, err) : root_unset(ceph, key, err);
}

/* What has a debt's mark counts as retired from the moment that the root has the debt. */
int ceph_owe(struct ceph_pool *ceph, struct coppice_error *err)
{
	_cleanup_(text_done) struct text text = TEXT_INIT;
	bool is_new = ceph->files.owed_fd < 0;
	int r = worker_line(ceph, &text, err);

	if (r < 0 || !is_new)
		return r;
	if (text.is_failed)
		return fail_memory(err);
	state_owe(&ceph->files);
	if (ceph->files.owed_fd < 0)
		return COPPICE_OK;
	r = debt_put(ceph, ceph->files.owed.text, text.data, err);
	if (r < 0)
		state_owe_nothing(&ceph->files);
	return r;
}

void ceph_owe_nothing(struct ceph_pool *ceph)
{
	struct coppice_error ignored;

	if (ceph->files.owed_fd < 0)
		return;
	if (debt_put(ceph, ceph->files.owed.text, NULL, &ignored) == COPPICE_OK)
		state_owe_nothing(&ceph->files);
	else
		state_leave_owed(&ceph->files);
}

/* To whoever comes next, on whichever host. */
void ceph_leave_owed(struct ceph_pool *ceph)
{
	struct coppice_error ignored;

	if (ceph->files.owed_fd < 0)
		return;
	(void)debt_put(ceph, ceph->files.owed.text, "left\n", &ignored);
	state_leave_owed(&ceph->files);
}

/* Is nobody at work on it any more? */
static bool is_over(struct ceph_pool *ceph, const struct root_list *workers, const char *lines)
{
	struct uuid worker;
	const char *text;

	if (!worker_of(lines, &worker))
		return true;
	text = root_list_get(workers, worker.text);
	return !text || worker_is_over(ceph, worker.text, text);
}

/*
 * Take the debts of the dead: those that have a file here, and those of other hosts. What the dead
 * had sent may still be on its way, and what they had open stays so for half a minute: so the
 * cluster takes nothing from them any more.
 */
int ceph_debts_take(struct ceph_pool *ceph, struct ceph_debts *ret, struct coppice_error *err)
{
	_cleanup_(root_list_done) struct root_list owed = { 0 }, workers = { 0 };
	int r = root_list_read(ceph, ROOT_OWED, &owed, err);

	state_debts_take(&ceph->files, &ret->here);
	if (r == COPPICE_OK && owed.n > 0)
		r = root_list_read(ceph, ROOT_WORKER, &workers, err);
	for (size_t i = 0; i < owed.n && r == COPPICE_OK; i++) {
		_cleanup_(freep) char *file = text_format("owed-%s", owed.entry[i].id.text);
		struct uuid worker;
		const char *text = NULL;
		bool is_here = false;

		for (size_t k = 0; k < ret->here.n; k++)
			is_here |= strcmp(ret->here.debt[k].id.text, owed.entry[i].id.text) == 0;
		if (!file)
			return fail_memory(err);
		if (!is_here && (state_lock_is_there(&ceph->files, file) ||
				 !is_over(ceph, &workers, owed.entry[i].text)))
			continue;
		if (worker_of(owed.entry[i].text, &worker))
			text = root_list_get(&workers, worker.text);
		if (text && worker_is_over(ceph, worker.text, text))
			r = worker_fence(ceph, text, err);
		if (r == COPPICE_OK)
			r = root_list_add(&ret->all, owed.entry[i].id.text, err);
	}
	return r;
}

void ceph_debts_done(struct ceph_debts *debts)
{
	state_debts_done(&debts->here);
	root_list_done(&debts->all);
}

void ceph_debts_paid(struct ceph_pool *ceph, struct ceph_debts *debts)
{
	struct coppice_error ignored;

	for (size_t i = 0; i < debts->all.n; i++)
		(void)debt_put(ceph, debts->all.entry[i].id.text, NULL, &ignored);
	if (ceph->files.owed_fd >= 0)
		(void)debt_put(ceph, ceph->files.owed.text, NULL, &ignored);
	state_debts_paid(&ceph->files, &debts->here);
}

/* ---- drafts ---- */

bool ceph_draft_is_over(struct ceph_pool *ceph, const char *id, int *ret_fd)
{
	_cleanup_(freep) char *key = text_format(ROOT_DRAFT "%s", id), *lines = NULL;
	_cleanup_(freep) char *text = NULL;
	struct coppice_error ignored;
	struct uuid worker;

	*ret_fd = -1;
	if (state_lock_is_there(&ceph->files, id))
		return state_lock_is_over(&ceph->files, id, ret_fd);
	if (!key || root_get(ceph, key, &lines, &ignored) < 0)
		return false;
	if (!worker_of(lines, &worker))
		return true;
	if (worker_read(ceph, worker.text, &text, &ignored) < 0)
		return false;
	if (!text)
		return true;
	return worker_is_over(ceph, worker.text, text) &&
	       worker_fence(ceph, text, &ignored) == COPPICE_OK;
}

/* ---- one who is dead ---- */

/* What he locked is free, and then he is known no more. */
static int free_worker(struct ceph_pool *ceph, const char *id, struct coppice_error *err)
{
	int r = ceph_locks_break(ceph, id, err);

	return r < 0 ? r : worker_forget(ceph, id, err);
}

/* What is out of sight, or was changed, when somebody was killed. */
static int mend(struct ceph_pool *ceph, struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	_cleanup_(ceph_debts_done) struct ceph_debts debts = { 0 };
	bool is_all = true;
	int r = ceph_debts_take(ceph, &debts, err);

	ceph->debts = &debts;
	if (r == COPPICE_OK)
		r = rbd_listing_read_rest(ceph, &listing, err);
	if (r == COPPICE_OK)
		r = ceph_finish_retired(ceph, &listing, err);
	/* Whoever was killed may have changed what the stamp is to tell of. */
	if (r == COPPICE_OK)
		r = ceph_stamp_touch(ceph, err);
	if (r == COPPICE_OK)
		r = ceph_reap_trash(ceph, &is_all, err);
	ceph->debts = NULL;
	if (r == COPPICE_OK && is_all)
		ceph_debts_paid(ceph, &debts);
	return r;
}

/* ---- sweeping ---- */

struct sweeping {
	struct ceph_pool *ceph;
	struct root_list workers, drafts; /* all; read when the sweep has begun */
	const struct uuid *asked;         /* a worker that is over; or NULL */
	bool is_late;                     /* the cluster was waited for, just now */
	struct root_list put_off;         /* drafts, until the cluster answers */
	struct root_list kept;            /* workers: who made those */
	size_t n;
};

static int put_off(struct sweeping *sweeping, const char *id, const char *lines,
		   struct coppice_error *err)
{
	struct uuid worker;
	int r = root_list_add(&sweeping->put_off, id, err);

	if (!sweeping->is_late)
		sweeping->ceph->pool.tries_again_ms =
			clock_ms() + 1000 * sweeping->ceph->timeout_seconds;
	sweeping->is_late = true;
	/* Without its maker's key a draft of another host would be nobody's to end. */
	return r == COPPICE_OK && worker_of(lines, &worker)
		       ? root_list_add(&sweeping->kept, worker.text, err)
		       : r;
}

/*
 * What has no name that others may want keeps none from anybody: that an OSD is away need not,
 * either. Once the cluster was waited for, such drafts are not tried.
 */
static int end_draft(struct sweeping *sweeping, const char *id, const char *lines,
		     struct coppice_error *err)
{
	bool can_wait = ceph_draft_shows_nothing(lines);
	int r = COPPICE_UNAVAILABLE;

	if (root_list_has(&sweeping->put_off, id))
		return COPPICE_OK;
	if (!can_wait || !sweeping->is_late)
		r = ceph_draft_end(sweeping->ceph, id, err);
	if (r == COPPICE_UNAVAILABLE && can_wait)
		return put_off(sweeping, id, lines, err);
	sweeping->n += r == COPPICE_OK;
	return r;
}

static int end_dead(void *user, const char *id, int fd, struct coppice_error *err)
{
	struct sweeping *sweeping = user;
	const char *lines = root_list_get(&sweeping->drafts, id), *text = NULL;
	struct uuid worker;
	int r = COPPICE_OK;

	if (worker_of(lines, &worker))
		text = root_list_get(&sweeping->workers, worker.text);
	if (text && worker_is_over(sweeping->ceph, worker.text, text))
		r = worker_fence(sweeping->ceph, text, err);
	return r < 0 ? r : end_draft(sweeping, id, lines, err);
}

/* Who was at work when he died: his drafts that have no file here. */
static int end_worker(struct sweeping *sweeping, const struct root_entry *dead,
		      struct coppice_error *err)
{
	int r = worker_fence(sweeping->ceph, dead->text, err);

	for (size_t i = 0; i < sweeping->drafts.n && r == COPPICE_OK; i++) {
		const struct root_entry *draft = &sweeping->drafts.entry[i];
		struct uuid worker;

		if (!worker_of(draft->text, &worker) || strcmp(worker.text, dead->id.text) != 0 ||
		    state_lock_is_there(&sweeping->ceph->files, draft->id.text))
			continue;
		r = end_draft(sweeping, draft->id.text, draft->text, err);
	}
	return r;
}

/* Those whose makers are known no more, and no file here: a state directory that is lost. */
static int end_lost(struct sweeping *sweeping, struct coppice_error *err)
{
	struct ceph_pool *ceph = sweeping->ceph;
	int r = COPPICE_OK;

	for (size_t i = 0; i < sweeping->drafts.n && r == COPPICE_OK; i++) {
		const char *id = sweeping->drafts.entry[i].id.text;

		if (state_lock_is_there(&ceph->files, id) ||
		    !is_over(ceph, &sweeping->workers, sweeping->drafts.entry[i].text))
			continue;
		r = end_draft(sweeping, id, sweeping->drafts.entry[i].text, err);
	}
	return r;
}

/* Is this one to be ended now? Of this host, all that are dead; of others, the one that was asked.
 */
static bool is_to_end(const struct sweeping *sweeping, size_t i)
{
	const struct root_entry *worker = &sweeping->workers.entry[i];

	if (worker_is_foreign(sweeping->ceph, worker->text))
		return sweeping->asked && strcmp(worker->id.text, sweeping->asked->text) == 0;
	return worker_is_over(sweeping->ceph, worker->id.text, worker->text);
}

/* One who was killed before the root had him, or while he was taken out of it. */
static int end_half(void *user, const char *id, int fd, struct coppice_error *err)
{
	struct sweeping *sweeping = user;

	return root_list_has(&sweeping->kept, id) ? COPPICE_OK
						  : worker_forget(sweeping->ceph, id, err);
}

static int sweep_all(struct sweeping *sweeping, struct coppice_error *err)
{
	struct ceph_pool *ceph = sweeping->ceph;
	size_t ignored = 0;
	int r = root_list_read(ceph, ROOT_WORKER, &sweeping->workers, err);

	if (r == COPPICE_OK)
		r = root_list_read(ceph, ROOT_DRAFT, &sweeping->drafts, err);
	if (r == COPPICE_OK)
		r = state_drafts_each(&ceph->files, end_dead, sweeping, &ignored, err);
	root_list_done(&sweeping->drafts);
	if (r == COPPICE_OK)
		r = root_list_read(ceph, ROOT_DRAFT, &sweeping->drafts, err);
	for (size_t i = 0; i < sweeping->workers.n && r == COPPICE_OK; i++)
		if (is_to_end(sweeping, i))
			r = end_worker(sweeping, &sweeping->workers.entry[i], err);
	root_list_done(&sweeping->drafts);
	if (r == COPPICE_OK)
		r = root_list_read(ceph, ROOT_DRAFT, &sweeping->drafts, err);
	if (r == COPPICE_OK)
		r = end_lost(sweeping, err);
	if (r == COPPICE_OK)
		r = mend(ceph, err);
	for (size_t i = 0; i < sweeping->workers.n && r == COPPICE_OK; i++)
		if (is_to_end(sweeping, i) &&
		    !root_list_has(&sweeping->kept, sweeping->workers.entry[i].id.text))
			r = free_worker(ceph, sweeping->workers.entry[i].id.text, err);
	return r < 0 ? r
		     : state_dead_each(&ceph->files, WORKER_FILE, end_half, sweeping, &ignored,
				       err);
}

/* *ret_is_busy: somebody else sweeps, and we did nothing. */
static int sweep(struct ceph_pool *ceph, const struct uuid *asked, size_t *ret_n, bool *ret_is_busy,
		 struct coppice_error *err)
{
	struct sweeping sweeping = { .ceph = ceph,
				     .asked = asked,
				     .is_late = clock_ms() < ceph->pool.tries_again_ms };
	int r = ceph_sweeping_begin(ceph, err);

	*ret_is_busy = r == COPPICE_BUSY;
	if (r < 0)
		return r;
	r = sweep_all(&sweeping, err);
	ceph_sweeping_end(ceph);
	root_list_done(&sweeping.workers);
	root_list_done(&sweeping.drafts);
	root_list_done(&sweeping.put_off);
	root_list_done(&sweeping.kept);
	*ret_n = sweeping.n;
	return r;
}

int ceph_sweep_worker(struct ceph_pool *ceph, const struct uuid *id, struct coppice_error *err)
{
	bool is_busy;
	size_t ignored;
	int r = sweep(ceph, id, &ignored, &is_busy, err);

	/* One without a key has nothing but locks. */
	return r < 0 ? r : ceph_locks_break(ceph, id->text, err);
}

/* One of another host, another one each time; false: there is none, or it may live. */
static bool ask_one(struct ceph_pool *ceph, const struct root_list *workers, struct uuid *ret)
{
	size_t n = 0, k;

	for (size_t i = 0; i < workers->n; i++)
		n += worker_is_foreign(ceph, workers->entry[i].text);
	if (n == 0)
		return false;
	k = (size_t)getpid() % n;
	for (size_t i = 0; i < workers->n; i++) {
		if (!worker_is_foreign(ceph, workers->entry[i].text) || k-- > 0)
			continue;
		*ret = workers->entry[i].id;
		return worker_is_over(ceph, ret->text, workers->entry[i].text);
	}
	return false;
}

static int note_dead(void *user, const char *id, int fd, struct coppice_error *err)
{
	return COPPICE_OK;
}

/* Is anybody of this host dead, who had a worker, or left a draft or a debt? */
static bool is_anybody_dead(struct ceph_pool *ceph, const struct root_list *workers)
{
	struct coppice_error ignored;
	size_t n = 0;

	for (size_t i = 0; i < workers->n; i++)
		if (!worker_is_foreign(ceph, workers->entry[i].text) &&
		    worker_is_over(ceph, workers->entry[i].id.text, workers->entry[i].text))
			return true;
	(void)state_drafts_each(&ceph->files, note_dead, &n, &n, &ignored);
	(void)state_dead_each(&ceph->files, WORKER_FILE, note_dead, &n, &n, &ignored);
	return n > 0 || !state_is_clean(&ceph->files);
}

static int sweep_if_needed(struct ceph_pool *ceph, size_t *ret_n, bool *ret_is_busy,
			   struct coppice_error *err)
{
	_cleanup_(root_list_done) struct root_list workers = { 0 };
	struct uuid asked;
	bool is_asked;
	int r = root_list_read(ceph, ROOT_WORKER, &workers, err);

	*ret_is_busy = false;
	if (r < 0)
		return r;
	is_asked = ask_one(ceph, &workers, &asked);
	return is_asked || is_anybody_dead(ceph, &workers)
		       ? sweep(ceph, is_asked ? &asked : NULL, ret_n, ret_is_busy, err)
		       : COPPICE_OK;
}

#define WAIT_MS   20
#define OTHERS_MS 2000 /* for all that a sweep does besides */

/* Not explained: what others left is no part of what was asked for. */
int ceph_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	int64_t timeout_ms = 1000 * ceph->timeout_seconds;
	int64_t until_ms = clock_ms() + 2 * timeout_ms + OTHERS_MS;
	bool is_busy;
	size_t n = 0;
	int r;

	*ret_n = 0;
	if (pool->is_dry_run)
		return COPPICE_OK;
	r = sweep_if_needed(ceph, &n, &is_busy, err);
	while (is_busy && clock_ms() < until_ms) {
		/* Who has it waits for the cluster for us as well. */
		pool->tries_again_ms = clock_ms() + timeout_ms;
		clock_pause(WAIT_MS);
		r = sweep_if_needed(ceph, &n, &is_busy, err);
	}
	if (r == COPPICE_OK)
		*ret_n = n;
	return r;
}
