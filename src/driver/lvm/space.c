/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What volumes take: thin_ls counts the blocks of each, and those that nobody else has, in a
 * copy of the thin pool's metadata that the kernel keeps aside meanwhile; nobody is locked out.
 */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

struct counted {
	uint64_t thin_id, mapped, exclusive;
};

/* There while the metadata is reserved for us: who finds it, holding the lock, is after a kill. */
#define RESERVED "reserved"

static int reserve(struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("%s/" RESERVED, lvm->files.path);
	struct coppice_error ignored;
	int r;

	if (!path)
		return fail_memory(err);
	if (access(path, F_OK) == 0)
		(void)lvm_pool_tell(lvm, "release_metadata_snap", &ignored);
	r = file_write(AT_FDCWD, path, "", false, err);
	if (r == COPPICE_OK)
		r = lvm_pool_tell(lvm, "reserve_metadata_snap", err);
	if (r < 0)
		(void)unlink(path);
	return r;
}

static int release(struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format("%s/" RESERVED, lvm->files.path);
	int r = lvm_pool_tell(lvm, "release_metadata_snap", err);

	if (r == COPPICE_OK && path)
		(void)unlink(path);
	return r;
}

static int compare_counted(const void *a, const void *b)
{
	const struct counted *x = a, *y = b;

	return (x->thin_id > y->thin_id) - (x->thin_id < y->thin_id);
}

static int parse(const char *text, struct counted **ret, size_t *ret_n, struct coppice_error *err)
{
	size_t n_lines = 0, n = 0;
	struct counted *counted;

	for (const char *c = text; *c; c++)
		n_lines += *c == '\n';
	counted = calloc(n_lines + 1, sizeof(*counted));
	if (!counted)
		return fail_memory(err);
	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		unsigned long long id, mapped, exclusive;

		if (n < n_lines && sscanf(line, "%llu %llu %llu", &id, &mapped, &exclusive) == 3)
			counted[n++] = (struct counted){ id, mapped, exclusive };
	}
	qsort(counted, n, sizeof(*counted), compare_counted);
	*ret = counted;
	*ret_n = n;
	return COPPICE_OK;
}

static int count_all(struct lvm_pool *lvm, struct counted **ret, size_t *ret_n,
		     struct coppice_error *err)
{
	_cleanup_(run_result_done) struct run_result result = { 0 };
	char device[PATH_MAX], whole[PATH_MAX + 8];
	struct coppice_error ignored;
	int r = reserve(lvm, err);

	if (r < 0)
		return r;
	lvm_device(lvm, lvm->thin, device);
	(void)snprintf(whole, sizeof(whole), "%s_tmeta", device);
	r = runner.run((const char *const[]){ "thin_ls", "--no-headers", "-m", "-o",
					      "DEV,MAPPED_BYTES,EXCLUSIVE_BYTES", whole, NULL },
		       &result, err);
	(void)release(lvm, &ignored);
	if (r == COPPICE_OK && result.exit_status != 0)
		r = fail(err, COPPICE_FAILED, "thin_ls: %s", result.err);
	return r < 0 ? r : parse(result.out, ret, ret_n, err);
}

static bool has_snapshots(const struct lv_list *listing, const struct lv *lv)
{
	for (size_t i = 0; i < listing->n; i++)
		if (listing->lv[i].volume == lv)
			return true;
	return false;
}

static const struct lv *find_uuid(const struct lv_list *listing, const struct lvm_pool *lvm,
				  const struct uuid *uuid)
{
	for (size_t i = 0; i < listing->n; i++)
		if (strcmp(listing->lv[i].uuid.text, uuid->text) == 0 &&
		    !lv_is_hidden(lvm, &listing->lv[i]))
			return &listing->lv[i];
	return NULL;
}

int lvm_usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
	      struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list own = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	_cleanup_(freep) struct counted *counted = NULL;
	const struct lv_list *listing;
	size_t n_counted = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		ret[i] = (struct volume_usage){ 0 };
	r = lvm_look(lvm, &own, &listing, err);
	if (r == COPPICE_OK)
		r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = count_all(lvm, &counted, &n_counted, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		const struct lv *lv = find_uuid(listing, lvm, &groups[i]);
		struct counted key = { .thin_id = lv ? lv->thin_id : 0 }, *found;

		found = lv ? bsearch(&key, counted, n_counted, sizeof(key), compare_counted) : NULL;
		if (!found)
			continue;
		ret[i].refers = (struct coppice_bytes){ COPPICE_EXACT, found->mapped };
		/* What it shares with nobody but its own snapshots is not counted. */
		if (!lv->snapshot[0] && !has_snapshots(listing, lv))
			ret[i].unique = (struct coppice_bytes){ COPPICE_EXACT, found->exclusive };
	}
	return COPPICE_OK;
}
