/* SPDX-License-Identifier: Apache-2.0 */
#include "core/accounts.h"

#include <string.h>

struct coppice_bytes bytes_add(struct coppice_bytes a, struct coppice_bytes b)
{
	if (!a.known || !b.known)
		return (struct coppice_bytes){ 0 };
	return (struct coppice_bytes){
		.known = a.known == COPPICE_AT_MOST || b.known == COPPICE_AT_MOST ? COPPICE_AT_MOST
										  : COPPICE_EXACT,
		.bytes = a.bytes + b.bytes,
	};
}

/* Of @b only an exact figure may be taken away: a bound would make the rest too small. */
struct coppice_bytes bytes_subtract(struct coppice_bytes a, struct coppice_bytes b)
{
	if (!a.known || b.known != COPPICE_EXACT)
		return (struct coppice_bytes){ 0 };
	return (struct coppice_bytes){
		.known = a.known,
		.bytes = a.bytes > b.bytes ? a.bytes - b.bytes : 0,
	};
}

void accounts_done(struct accounts *accounts)
{
	for (size_t i = 0; i < accounts->n; i++)
		record_done(&accounts->volume[i].record);
	free(accounts->volume);
	free(accounts->account);
	*accounts = (struct accounts){ 0 };
}

/* ---- reading the volumes ---- */

static int add_volume(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct accounts *accounts = user;
	struct accounted *volume;
	int r;

	/* Grows by doubling: n is a power of two, or zero, when the array is full. */
	if ((accounts->n & (accounts->n - 1)) == 0) {
		size_t capacity = accounts->n ? 2 * accounts->n : 1;
		struct accounted *more = reallocarray(accounts->volume, capacity, sizeof(*more));

		if (!more)
			return fail_memory(err);
		accounts->volume = more;
	}
	volume = &accounts->volume[accounts->n];
	*volume = (struct accounted){ .ref.kind = (enum volume_kind)row->kind };
	(void)snprintf(volume->ref.name.text, sizeof(volume->ref.name.text), "%s", row->name);
	(void)snprintf(volume->ref.snapshot.text, sizeof(volume->ref.snapshot.text), "%s",
		       row->snapshot);
	r = record_parse(row->record, &volume->record, err);
	if (r == COPPICE_OK)
		accounts->n++;
	return r;
}

/* ---- reading the accounts ---- */

static int compare_accounts(const void *a, const void *b)
{
	const struct account *x = a, *y = b;

	return strcmp(x->uuid.text, y->uuid.text);
}

static struct account *find_account(const struct accounts *accounts, const struct uuid *uuid)
{
	struct account wanted = { .uuid = *uuid };

	if (!accounts->n_accounts)
		return NULL;
	return bsearch(&wanted, accounts->account, accounts->n_accounts, sizeof(wanted),
		       compare_accounts);
}

/* One for each volume and each ancestor, sorted, each once. */
static int collect(struct accounts *accounts, struct coppice_error *err)
{
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < accounts->n; i++)
		if (!volume_is_snapshot(&accounts->volume[i].ref))
			n += 1 + accounts->volume[i].record.n_lineage;
	accounts->account = calloc(n ? n : 1, sizeof(*accounts->account));
	if (!accounts->account)
		return fail_memory(err);
	n = 0;
	for (size_t i = 0; i < accounts->n; i++) {
		const struct record *record = &accounts->volume[i].record;

		if (volume_is_snapshot(&accounts->volume[i].ref))
			continue;
		accounts->account[n].volume = &accounts->volume[i];
		accounts->account[n++].uuid = record->uuid;
		for (size_t k = 0; k < record->n_lineage; k++)
			accounts->account[n++].uuid = record->lineage[k].uuid;
	}
	qsort(accounts->account, n, sizeof(*accounts->account), compare_accounts);
	for (size_t i = 0; i < n; i++) {
		const struct account *account = &accounts->account[i];

		if (kept == 0 || compare_accounts(account, &accounts->account[kept - 1]) != 0)
			accounts->account[kept++] = *account;
		else if (account->volume)
			accounts->account[kept - 1].volume = account->volume;
	}
	accounts->n_accounts = kept;
	return COPPICE_OK;
}

static int read_charges(struct pool_entry *entry, struct accounts *accounts,
			struct coppice_error *err)
{
	size_t n = accounts->n_accounts;
	_cleanup_(freep) struct uuid *uuids = calloc(n ? n : 1, sizeof(*uuids));
	_cleanup_(freep) struct volume_ref *refs = calloc(n ? n : 1, sizeof(*refs));
	_cleanup_(freep) struct volume_usage *usage = calloc(n ? n : 1, sizeof(*usage));
	int r;

	if (!uuids || !refs || !usage)
		return fail_memory(err);
	for (size_t i = 0; i < n; i++)
		uuids[i] = accounts->account[i].uuid;
	for (size_t i = 0; i < n; i++)
		if (accounts->account[i].volume)
			refs[i] = accounts->account[i].volume->ref;
	r = entry->driver->usage(entry->pool, refs, uuids, usage, n, false, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		accounts->account[i].charged = usage[i].written;
		accounts->account[i].refers = usage[i].refers;
		accounts->account[i].unique = usage[i].unique;
		accounts->account[i].alone = usage[i].alone;
		accounts->counts_refers = accounts->counts_refers || usage[i].refers.known;
	}
	return r;
}

/* Of snapshots, in an engine that counts what each refers to. */
static int read_snapshots(struct pool_entry *entry, struct accounts *accounts,
			  struct coppice_error *err)
{
	_cleanup_(freep) struct uuid *uuids = calloc(accounts->n + 1, sizeof(*uuids));
	_cleanup_(freep) struct volume_ref *refs = calloc(accounts->n + 1, sizeof(*refs));
	_cleanup_(freep) struct volume_usage *usage = calloc(accounts->n + 1, sizeof(*usage));
	size_t n = 0;
	int r;

	if (!uuids || !refs || !usage)
		return fail_memory(err);
	for (size_t i = 0; i < accounts->n; i++)
		if (volume_is_snapshot(&accounts->volume[i].ref)) {
			uuids[n] = accounts->volume[i].record.uuid;
			refs[n++] = accounts->volume[i].ref;
		}
	if (n == 0)
		return COPPICE_OK;
	r = entry->driver->usage(entry->pool, refs, uuids, usage, n, false, err);
	n = 0;
	for (size_t i = 0; i < accounts->n && r == COPPICE_OK; i++)
		if (volume_is_snapshot(&accounts->volume[i].ref))
			accounts->volume[i].refers = usage[n++].refers;
	return r;
}

/* ---- the figures of one volume ---- */

/* An ancestor without an account has nothing charged to it any more. */
static struct coppice_bytes refers_at_most(const struct accounts *accounts,
					   const struct record *record,
					   struct coppice_bytes written)
{
	struct coppice_bytes sum = written;

	if (record_lineage_is_cut(record))
		return (struct coppice_bytes){ 0 };
	for (size_t i = 0; i < record->n_lineage && sum.known; i++) {
		const struct account *account = find_account(accounts, &record->lineage[i].uuid);

		sum.known = COPPICE_AT_MOST;
		if (account && account->charged.known)
			sum.bytes += account->charged.bytes;
	}
	return sum;
}

/*
 * What only this one holds any more of what others wrote: those that it was copied from may be
 * gone, or have dropped it since. Images that are there hold all of theirs.
 */
static struct coppice_bytes unique_at_most(const struct accounts *accounts,
					   const struct record *record, const struct account *own)
{
	struct coppice_bytes sum = own->charged;

	if (record_lineage_is_cut(record))
		return (struct coppice_bytes){ 0 };
	if (sum.known && own->has_heirs)
		sum.known = COPPICE_AT_MOST;
	for (size_t i = 0; i < record->n_lineage && sum.known; i++) {
		const struct account *account = find_account(accounts, &record->lineage[i].uuid);

		if (!account || !account->charged.known || account->charged.bytes == 0 ||
		    (account->volume && account->volume->ref.kind == VOLUME_IMAGE))
			continue;
		sum.known = COPPICE_AT_MOST;
		sum.bytes += account->charged.bytes;
	}
	return sum;
}

/*
 * What others keep when it is rewritten. Whatever was charged to it may be in a snapshot, or with
 * those that were copied from it, as well.
 */
static struct coppice_bytes shared_at_most(const struct accounted *volume,
					   const struct account *own)
{
	struct coppice_bytes all = volume->refers;

	if (own->alone.known)
		return bytes_subtract(all, own->alone);
	if (!own->charged.known)
		return (struct coppice_bytes){ 0 };
	if (!own->has_heirs && !own->has_snapshots)
		return bytes_subtract(all, own->charged);
	if (all.known)
		all.known = COPPICE_AT_MOST;
	return all;
}

/* Of a snapshot; its instance comes before it. */
static void derive_snapshot(const struct accounts *accounts, struct accounted *snapshot,
			    const struct accounted *instance)
{
	const struct account *own =
		instance ? find_account(accounts, &instance->record.uuid) : NULL;

	if (snapshot->refers.known || !own || !own->charged.known)
		return;
	snapshot->refers = refers_at_most(accounts, &instance->record, own->charged);
	if (snapshot->refers.known)
		snapshot->refers.known = COPPICE_AT_MOST;
}

/* Who has those that were copied from it, and snapshots? */
static void note_others(struct accounts *accounts)
{
	struct account *own = NULL;
	bool is_cut = false;

	for (size_t i = 0; i < accounts->n; i++) {
		const struct record *record = &accounts->volume[i].record;

		if (volume_is_snapshot(&accounts->volume[i].ref)) {
			if (own)
				own->has_snapshots = true;
			continue;
		}
		own = find_account(accounts, &record->uuid);
		for (size_t k = 0; k < record->n_lineage; k++)
			find_account(accounts, &record->lineage[k].uuid)->has_heirs = true;
		is_cut = is_cut || record_lineage_is_cut(record);
	}
	/* Whom a lineage that was cut does not name any more nobody knows. */
	for (size_t i = 0; i < accounts->n_accounts && is_cut; i++)
		accounts->account[i].has_heirs = true;
}

static void derive(struct accounts *accounts)
{
	const struct accounted *instance = NULL;

	note_others(accounts);
	for (size_t i = 0; i < accounts->n; i++) {
		struct accounted *volume = &accounts->volume[i];
		const struct account *own = find_account(accounts, &volume->record.uuid);

		if (volume_is_snapshot(&volume->ref)) {
			derive_snapshot(accounts, volume, instance);
			continue;
		}
		instance = volume;
		if (!own)
			continue;
		volume->written = own->charged;
		volume->refers = own->refers;
		if (!volume->refers.known)
			volume->refers = refers_at_most(accounts, &volume->record, own->charged);
		/*
		 * What was charged to it snapshots may have, and others, and it itself no more;
		 * but nobody can take anything from an image.
		 */
		if (!own->refers.known && volume->refers.known &&
		    volume->ref.kind != VOLUME_IMAGE && (own->has_heirs || own->has_snapshots))
			volume->refers.known = COPPICE_AT_MOST;
		/* An engine that counts is asked no further where it does not know. */
		volume->unique = own->unique.known || own->refers.known
					 ? own->unique
					 : unique_at_most(accounts, &volume->record, own);
		volume->shared = shared_at_most(volume, own);
	}
}

/* What the engine does not count is walked. */
static int measure(struct pool_entry *entry, struct accounts *accounts, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < accounts->n && r == COPPICE_OK; i++) {
		struct accounted *volume = &accounts->volume[i];
		struct volume_usage usage = { 0 };

		if (volume->refers.known == COPPICE_EXACT)
			continue;
		r = entry->driver->usage(entry->pool, &volume->ref, &volume->record.uuid, &usage, 1,
					 true, err);
		if (usage.refers.known)
			volume->refers = usage.refers;
		if (usage.unique.known)
			volume->unique = usage.unique;
	}
	return r;
}

int accounts_read(struct coppice *coppice, struct pool_entry *entry, bool is_exact,
		  struct accounts *ret, struct coppice_error *err)
{
	struct accounts accounts = { 0 };
	struct catalog_query query = { .pool = entry->name };
	int r;

	r = catalog_volumes(coppice->catalog, &query, add_volume, &accounts, err);
	if (r == COPPICE_OK)
		r = collect(&accounts, err);
	if (r == COPPICE_OK)
		r = read_charges(entry, &accounts, err);
	if (r == COPPICE_OK && accounts.counts_refers)
		r = read_snapshots(entry, &accounts, err);
	if (r == COPPICE_OK)
		derive(&accounts);
	if (r == COPPICE_OK && is_exact)
		r = measure(entry, &accounts, err);
	if (r < 0) {
		accounts_done(&accounts);
		return r;
	}
	*ret = accounts;
	return COPPICE_OK;
}
