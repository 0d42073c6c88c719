/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks between hosts: what a command locks in its state directory, it locks in the pool as well.
 * A lock is a key lock.BYTE of the root object, with the byte that lock_byte() makes of a name on
 * every host:
 *
 *	x WORKER            it is held alone
 *	s WORKER WORKER…   several hold it
 *
 * All that a command wants it is given in one step of the object, or nothing: so nobody waits in
 * a circle. What a dead worker holds, its sweep takes away.
 *
 * So are claims: lock.image-ID is of who takes the image ID out of the trash, or flattens it. Of
 * two who remove one at once, the slower one's librbd may wait for ever for an image that is gone,
 * or abort (16.2.15).
 *
 * lock.parents is of who cuts an image from what it stands on, alone, or has one open to copy from.
 * librbd reads what is below an open image by the maps of objects that were when it was opened:
 * what was flattened since would be looked for where it was, and read as zeros once that is removed
 * (seen, 16.2.15; Ceph's pull request 70143). Who has an image mapped has noted that in it before
 * he opened it; so whoever cuts finds him, or he finds that somebody cuts, and waits.
 */
#include "driver/ceph/ceph.h"

#include <string.h>

#include "base/clock.h"
#include "base/text.h"

#define SWEEPING "sweep"   /* the lock of who ends what the dead left */
#define IMAGE    "image-"  /* with an image's id: of who removes or flattens it */
#define PARENTS  "parents" /* of who cuts an image from its parent, or reads through one */
#define KEY_MAX  64

/* ---- what a value says ---- */

static bool is_held_by(const char *value, const char *worker)
{
	return value && strstr(value, worker) != NULL;
}

/* Somebody else who has it; NULL: nobody. */
static const char *other_holder(const char *value, const char *own, char ret[static UUID_TEXT_SIZE])
{
	for (const char *at = value ? value + 1 : ""; *at;) {
		at += strspn(at, " ");
		(void)snprintf(ret, UUID_TEXT_SIZE, "%.*s", (int)strcspn(at, " "), at);
		at += strcspn(at, " ");
		if (ret[0] && strcmp(ret, own) != 0)
			return ret;
	}
	return NULL;
}

/* Without @worker; free() it; NULL and *is_good: nobody is left. */
static char *without(const char *value, const char *worker, bool *is_good)
{
	const char *at = strstr(value, worker);
	char *rest;

	*is_good = true;
	if (!at || at == value)
		return strdup(value);
	rest = text_format("%.*s%s", (int)(at - value - 1), value, at + strlen(worker));
	*is_good = rest != NULL;
	if (rest && strlen(rest) <= 1)
		free(take_ptr(&rest));
	return rest;
}

/* With @worker; NULL: no memory. */
static char *with(const char *value, const char *worker, bool is_exclusive)
{
	if (is_exclusive || !value)
		return text_format("%c %s", is_exclusive ? 'x' : 's', worker);
	return is_held_by(value, worker) ? strdup(value) : text_format("%s %s", value, worker);
}

/* ---- taking ---- */

struct keys {
	size_t n;
	char (*key)[KEY_MAX];
	const char **at;
	char **old, **new;
	struct root_change *change;
};

static void keys_done(struct keys *keys)
{
	for (size_t i = 0; i < keys->n; i++) {
		if (keys->old)
			free(keys->old[i]);
		if (keys->new)
			free(keys->new[i]);
	}
	free(keys->key);
	free(keys->at);
	free(keys->old);
	free(keys->new);
	free(keys->change);
	*keys = (struct keys){ 0 };
}

static int keys_init(struct keys *keys, size_t n, struct coppice_error *err)
{
	*keys = (struct keys){
		.n = n,
		.key = calloc(n + 1, sizeof(*keys->key)),
		.at = calloc(n + 1, sizeof(*keys->at)),
		.old = calloc(n + 1, sizeof(*keys->old)),
		.new = calloc(n + 1, sizeof(*keys->new)),
		.change = calloc(n + 1, sizeof(*keys->change)),
	};
	return keys->key && keys->at && keys->old && keys->new && keys->change ? COPPICE_OK
									       : fail_memory(err);
}

/* Each byte once, as it is wanted most. */
static size_t name_keys(struct keys *keys, const struct lock_want *wants, size_t n, bool *is_alone)
{
	size_t n_keys = 0;

	for (size_t i = 0; i < n; i++) {
		size_t k;

		(void)snprintf(keys->key[n_keys], sizeof(*keys->key), ROOT_LOCK "%u",
			       wants[i].byte);
		for (k = 0; k < n_keys && strcmp(keys->key[k], keys->key[n_keys]) != 0; k++)
			;
		if (k == n_keys)
			is_alone[n_keys++] = false;
		is_alone[k] |= wants[i].is_exclusive;
	}
	for (size_t k = 0; k < n_keys; k++)
		keys->at[k] = keys->key[k];
	return n_keys;
}

/* COPPICE_BUSY naming who lives and has it; or who does not, *ret_dead. COPPICE_OK: nobody has. */
static int refuse(struct ceph_pool *ceph, const char *holder, struct uuid *ret_dead,
		  struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	char name[WORKER_NAME_MAX];
	int r = worker_read(ceph, holder, &text, err);

	if (r < 0)
		return r;
	if (!text) /* it ended while we looked: once more */
		return ceph_locks_break(ceph, holder, err);
	if (worker_is_over(ceph, holder, text)) {
		(void)snprintf(ret_dead->text, sizeof(ret_dead->text), "%s", holder);
		return fail(err, COPPICE_BUSY, "who was at work on it is dead");
	}
	worker_name(text, name);
	return fail(err, COPPICE_BUSY, "%s is at work on it", name);
}

/* One try: *ret_did; what others did in between is no failure. */
static int try_keys(struct ceph_pool *ceph, struct keys *keys, const bool *is_alone, bool *ret_did,
		    struct uuid *ret_dead, struct coppice_error *err)
{
	const char *own = ceph->worker.id.text;
	char holder[UUID_TEXT_SIZE];
	int r = root_values(ceph, keys->at, keys->n, keys->old, err);

	for (size_t i = 0; i < keys->n && r == COPPICE_OK; i++) {
		const char *old = keys->old[i];

		if (old && (is_alone[i] || old[0] == 'x') && other_holder(old, own, holder))
			return refuse(ceph, holder, ret_dead, err);
		keys->new[i] = with(old, own, is_alone[i]);
		keys->change[i] = (struct root_change){ keys->at[i], old, keys->new[i] };
		r = keys->new[i] ? COPPICE_OK : fail_memory(err);
	}
	return r < 0 ? r : root_replace(ceph, keys->change, keys->n, ret_did, err);
}

static int take_once(struct ceph_pool *ceph, const struct lock_want *wants, size_t n, bool *ret_did,
		     struct uuid *ret_dead, struct coppice_error *err)
{
	_cleanup_(freep) bool *is_alone = calloc(n + 1, sizeof(*is_alone));
	_cleanup_(keys_done) struct keys keys = { 0 };
	int r = is_alone ? keys_init(&keys, n, err) : fail_memory(err);

	if (r < 0)
		return r;
	keys.n = name_keys(&keys, wants, n, is_alone);
	return try_keys(ceph, &keys, is_alone, ret_did, ret_dead, err);
}

int ceph_names_lock(struct pool *pool, const struct lock_want *wants, size_t n,
		    struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	struct uuid dead = { "" };
	bool did = false;
	int r;

	if (pool->is_dry_run || n == 0)
		return COPPICE_OK;
	r = worker_begin(ceph, err);
	while (r == COPPICE_OK && !did) {
		dead.text[0] = '\0';
		r = take_once(ceph, wants, n, &did, &dead, err);
		if (r == COPPICE_BUSY && dead.text[0])
			r = ceph_sweep_worker(ceph, &dead, err);
	}
	ceph->worker.n_locked += did ? n : 0;
	return r;
}

/* ---- giving back ---- */

/* Take @worker out of these keys, whatever others do with them meanwhile. */
static int give_keys(struct ceph_pool *ceph, const char *worker, const char *const names[],
		     size_t n, struct coppice_error *err)
{
	bool did = false;
	int r = COPPICE_OK;

	while (r == COPPICE_OK && !did) {
		_cleanup_(keys_done) struct keys keys = { 0 };
		size_t n_changes = 0;

		r = keys_init(&keys, n, err);
		if (r == COPPICE_OK)
			r = root_values(ceph, names, n, keys.old, err);
		for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
			bool is_good = true;

			if (!is_held_by(keys.old[i], worker))
				continue;
			keys.new[i] = without(keys.old[i], worker, &is_good);
			keys.change[n_changes++] =
				(struct root_change){ names[i], keys.old[i], keys.new[i] };
			r = is_good ? COPPICE_OK : fail_memory(err);
		}
		if (n_changes == 0)
			return r;
		if (r == COPPICE_OK)
			r = root_replace(ceph, keys.change, n_changes, &did, err);
	}
	return r;
}

void ceph_names_unlock(struct pool *pool, const struct lock_want *wants, size_t n)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(freep) bool *is_alone = calloc(n + 1, sizeof(*is_alone));
	_cleanup_(keys_done) struct keys keys = { 0 };
	struct coppice_error ignored;

	if (ceph->worker.fd < 0 || !is_alone || keys_init(&keys, n, &ignored) < 0)
		return;
	if (give_keys(ceph, ceph->worker.id.text, keys.at, name_keys(&keys, wants, n, is_alone),
		      &ignored) == COPPICE_OK)
		ceph->worker.n_locked -= n < ceph->worker.n_locked ? n : ceph->worker.n_locked;
}

int ceph_locks_break(struct ceph_pool *ceph, const char *worker, struct coppice_error *err)
{
	_cleanup_(root_list_done) struct root_list locks = { 0 };
	int r = root_list_read(ceph, ROOT_LOCK, &locks, err);

	for (size_t i = 0; i < locks.n && r == COPPICE_OK; i++) {
		_cleanup_(freep) char *key = text_format(ROOT_LOCK "%s", locks.entry[i].id.text);

		if (is_held_by(locks.entry[i].text, worker))
			r = key ? give_keys(ceph, worker, (const char *const[]){ key }, 1, err)
				: fail_memory(err);
	}
	return r;
}

/* ---- who removes, or flattens, what ---- */

/*
 * The living one, but us, who has @value: his name; "": nobody. Who had it and is dead may do
 * nothing any more from here on.
 */
static int find_holder(struct ceph_pool *ceph, const char *value, char ret[static WORKER_NAME_MAX],
		       struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	char holder[UUID_TEXT_SIZE];
	int r;

	ret[0] = '\0';
	if (!other_holder(value, ceph->worker.id.text, holder))
		return COPPICE_OK;
	r = worker_read(ceph, holder, &text, err);
	if (r < 0 || !text)
		return r;
	if (worker_is_over(ceph, holder, text))
		return worker_fence(ceph, text, err);
	worker_name(text, ret);
	return COPPICE_OK;
}

static int try_claim(struct ceph_pool *ceph, struct keys *keys, bool *claimed, bool *ret_did,
		     struct coppice_error *err)
{
	char holder[WORKER_NAME_MAX] = "";
	size_t n_changes = 0;
	int r = root_values(ceph, keys->at, keys->n, keys->old, err);

	for (size_t i = 0; i < keys->n && r == COPPICE_OK; i++) {
		const char *old = keys->old[i];

		/* One who has many of them is asked once. */
		if (i == 0 || !old || !keys->old[i - 1] || strcmp(old, keys->old[i - 1]) != 0)
			r = find_holder(ceph, old, holder, err);
		claimed[i] = r == COPPICE_OK && !holder[0];
		if (!claimed[i])
			continue;
		keys->new[i] = with(NULL, ceph->worker.id.text, true);
		keys->change[n_changes++] = (struct root_change){ keys->at[i], old, keys->new[i] };
		r = keys->new[i] ? COPPICE_OK : fail_memory(err);
	}
	*ret_did = true;
	if (r == COPPICE_OK && n_changes > 0)
		r = root_replace(ceph, keys->change, n_changes, ret_did, err);
	if (r == COPPICE_OK && *ret_did)
		ceph->worker.n_locked += n_changes;
	return r;
}

static void name_claims(struct keys *keys, const char *const ids[])
{
	for (size_t i = 0; i < keys->n; i++) {
		(void)snprintf(keys->key[i], KEY_MAX, ROOT_LOCK IMAGE "%s", ids[i]);
		keys->at[i] = keys->key[i];
	}
}

int ceph_images_claim(struct ceph_pool *ceph, const char *const ids[], size_t n, bool *claimed,
		      struct coppice_error *err)
{
	bool did = n == 0;
	int r = did ? COPPICE_OK : worker_begin(ceph, err);

	while (r == COPPICE_OK && !did) {
		_cleanup_(keys_done) struct keys keys = { 0 };

		r = keys_init(&keys, n, err);
		if (r < 0)
			break;
		name_claims(&keys, ids);
		r = try_claim(ceph, &keys, claimed, &did, err);
	}
	return r;
}

void ceph_images_release(struct ceph_pool *ceph, const char *const ids[], size_t n)
{
	_cleanup_(keys_done) struct keys keys = { 0 };
	struct coppice_error ignored;

	if (n == 0 || keys_init(&keys, n, &ignored) < 0)
		return;
	name_claims(&keys, ids);
	if (give_keys(ceph, ceph->worker.id.text, keys.at, n, &ignored) == COPPICE_OK)
		ceph->worker.n_locked -= n < ceph->worker.n_locked ? n : ceph->worker.n_locked;
}

/* ---- what images stand on ---- */

/* Of all others who have @value: one who lives; "": none does. */
static int find_living(struct ceph_pool *ceph, const char *value, char ret[static WORKER_NAME_MAX],
		       struct coppice_error *err)
{
	_cleanup_(freep) char *rest = value ? strdup(value) : NULL;
	char holder[UUID_TEXT_SIZE];
	bool is_good = !value || rest;
	int r = COPPICE_OK;

	ret[0] = '\0';
	while (r == COPPICE_OK && is_good && !ret[0] &&
	       other_holder(rest, ceph->worker.id.text, holder)) {
		char *less;

		r = find_holder(ceph, rest, ret, err);
		less = without(rest, holder, &is_good);
		free(rest);
		rest = less;
	}
	return is_good ? r : fail_memory(err);
}

/* One try: *ret_did; COPPICE_BUSY naming who has it. */
static int try_parents(struct ceph_pool *ceph, bool is_alone, bool *ret_did,
		       struct coppice_error *err)
{
	const char *key = ROOT_LOCK PARENTS, *own = ceph->worker.id.text;
	_cleanup_(freep) char *old = NULL, *new = NULL;
	char holder[WORKER_NAME_MAX] = "";
	int r = root_get(ceph, key, &old, err);

	if (r == COPPICE_OK && old && (is_alone || old[0] == 'x'))
		r = find_living(ceph, old, holder, err);
	if (r == COPPICE_OK && holder[0])
		r = fail(err, COPPICE_BUSY, "%s %s", holder,
			 old[0] == 'x' ? "is just flattening an image" : "copies from an image");
	if (r < 0)
		return r;
	new = with(old && old[0] == 's' ? old : NULL, own, is_alone);
	if (!new)
		return fail_memory(err);
	r = root_replace(ceph, &(struct root_change){ key, old, new }, 1, ret_did, err);
	ceph->worker.n_locked += r == COPPICE_OK && *ret_did && !is_held_by(old, own);
	return r;
}

/* The cluster's time to answer, from now on. */
static int64_t patience_of(const struct ceph_pool *ceph)
{
	return clock_ms() + 1000LL * ceph->timeout_seconds;
}

/* COPPICE_BUSY, which @err says: no longer. */
static int wait_for_parents(const struct ceph_pool *ceph, int64_t until_ms,
			    struct coppice_error *err)
{
	if (pool_is_interrupted(&ceph->pool))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	if (clock_ms() >= until_ms)
		return COPPICE_BUSY;
	clock_pause(100);
	return COPPICE_OK;
}

int ceph_parents_keep(struct ceph_pool *ceph, bool is_patient, struct coppice_error *err)
{
	int r = worker_begin(ceph, err);
	int64_t until_ms = patience_of(ceph);
	bool did = false;

	while (r == COPPICE_OK && !did) {
		r = try_parents(ceph, false, &did, err);
		if (r == COPPICE_BUSY && is_patient)
			r = wait_for_parents(ceph, until_ms, err);
	}
	return r;
}

int ceph_parents_cut(struct ceph_pool *ceph, struct coppice_error *err)
{
	int r = COPPICE_OK;
	bool did = false;

	while (r == COPPICE_OK && !did)
		r = try_parents(ceph, true, &did, err);
	return r;
}

void ceph_parents_give(struct ceph_pool *ceph)
{
	struct coppice_error ignored;

	if (give_keys(ceph, ceph->worker.id.text, (const char *const[]){ ROOT_LOCK PARENTS }, 1,
		      &ignored) == COPPICE_OK &&
	    ceph->worker.n_locked > 0)
		ceph->worker.n_locked--;
}

/* COPPICE_BUSY naming who lives and cuts. Who is dead is asked about once. */
static int look_for_cutter(struct ceph_pool *ceph, struct coppice_error *err)
{
	const char *key = ROOT_LOCK PARENTS;
	_cleanup_(freep) char *value = NULL;
	char holder[WORKER_NAME_MAX] = "";
	bool ignored;
	int r = root_get(ceph, key, &value, err);

	if (r < 0 || !value || value[0] != 'x')
		return r;
	r = find_living(ceph, value, holder, err);
	if (r == COPPICE_OK && holder[0])
		return fail(err, COPPICE_BUSY, "%s is just flattening an image", holder);
	return r < 0 ? r
		     : root_replace(ceph, &(struct root_change){ key, value, NULL }, 1, &ignored,
				    err);
}

int ceph_parents_wait(struct ceph_pool *ceph, struct coppice_error *err)
{
	int64_t until_ms = patience_of(ceph);
	int waited = COPPICE_OK, r = look_for_cutter(ceph, err);

	while (r == COPPICE_BUSY && waited == COPPICE_OK) {
		waited = wait_for_parents(ceph, until_ms, err);
		if (waited == COPPICE_OK)
			r = look_for_cutter(ceph, err);
	}
	return waited < 0 ? waited : r;
}

/* ---- who sweeps ---- */

int ceph_sweeping_begin(struct ceph_pool *ceph, struct coppice_error *err)
{
	const char *key = ROOT_LOCK SWEEPING;
	_cleanup_(freep) char *old = NULL, *new = NULL;
	char holder[WORKER_NAME_MAX];
	bool did = false;
	int r = worker_begin(ceph, err);

	if (r == COPPICE_OK)
		r = root_get(ceph, key, &old, err);
	if (r == COPPICE_OK)
		r = find_holder(ceph, old, holder, err);
	if (r == COPPICE_OK && holder[0])
		r = fail(err, COPPICE_BUSY, "%s is sweeping it", holder);
	if (r < 0)
		return r;
	new = with(NULL, ceph->worker.id.text, true);
	if (!new)
		return fail_memory(err);
	r = root_replace(ceph, &(struct root_change){ key, old, new }, 1, &did, err);
	return r < 0 || did ? r : fail(err, COPPICE_BUSY, "somebody else is sweeping it");
}

void ceph_sweeping_end(struct ceph_pool *ceph)
{
	struct coppice_error ignored;

	(void)give_keys(ceph, ceph->worker.id.text, (const char *const[]){ ROOT_LOCK SWEEPING }, 1,
			&ignored);
}
