/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stamp of a pool, and what made it so, in keys of its object "coppice":
 *
 *	sum        "STAMP N": what each volume and snapshot adds to it, and how many changes there
 *	           were. Each change adds what it makes a difference, in one step with what it does
 *	           in the object.
 *	change.N   of the last of them: names of images, a line each, of the volumes that may be
 *	           others than before; empty: any may be
 */
#include "driver/ceph/ceph.h"

#include <string.h>

#include "base/text.h"

#define SUM         "sum"
#define CHANGE      "change."
#define KEY_SIZE    32
#define CHANGES_MAX 1000 /* are kept, for those who have not seen them */
#define NAMES_MAX   1000 /* of one change: who has to read more reads all as soon */

struct sum {
	char *text; /* as it is there; owned; NULL: there is none yet */
	uint64_t stamp, n_changes;
};

static int read_sum(struct ceph_pool *ceph, struct sum *ret, struct coppice_error *err)
{
	struct sum sum = { 0 };
	char *end;
	int r = root_get(ceph, SUM, &sum.text, err);

	if (sum.text) {
		sum.stamp = strtoull(sum.text, &end, 10);
		sum.n_changes = strtoull(end, NULL, 10);
	}
	*ret = sum;
	return r;
}

int ceph_stamp(struct ceph_pool *ceph, uint64_t *ret, struct coppice_error *err)
{
	struct sum sum;
	int r = read_sum(ceph, &sum, err);

	free(sum.text);
	*ret = sum.stamp;
	return r;
}

static const char *change_key(uint64_t number, char ret[static KEY_SIZE])
{
	(void)snprintf(ret, KEY_SIZE, CHANGE "%llu", (unsigned long long)number);
	return ret;
}

/* ---- adding ---- */

/* One more change; *ret_did: nobody else has made another one meanwhile. */
static int try_add(struct ceph_pool *ceph, uint64_t difference, const char *names, const char *gone,
		   bool *ret_did, struct coppice_error *err)
{
	char new[64], key[KEY_SIZE], outdated[KEY_SIZE];
	struct root_change changes[4];
	struct sum old;
	size_t n = 0;
	int r = read_sum(ceph, &old, err);

	*ret_did = false;
	if (r < 0)
		return r;
	(void)snprintf(new, sizeof(new), "%llu %llu",
		       (unsigned long long)((old.stamp + difference) % STAMP_MODULUS),
		       (unsigned long long)old.n_changes + 1);
	changes[n++] = (struct root_change){ SUM, old.text, new, false };
	changes[n++] =
		(struct root_change){ change_key(old.n_changes + 1, key), NULL, names, true };
	if (old.n_changes >= CHANGES_MAX)
		changes[n++] =
			(struct root_change){ change_key(old.n_changes + 1 - CHANGES_MAX, outdated),
					      NULL, NULL, true };
	if (gone)
		changes[n++] = (struct root_change){ gone, NULL, NULL, true };
	r = root_replace(ceph, changes, n, ret_did, err);
	free(old.text);
	return r;
}

static int add(struct ceph_pool *ceph, uint64_t difference, const struct volume_ref *refs, size_t n,
	       const char *gone, struct coppice_error *err)
{
	_cleanup_(freep) char *names = NULL;
	struct text text = TEXT_INIT;
	bool did = false;
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && n <= NAMES_MAX; i++) {
		char name[RBD_NAME_MAX];

		ceph_name(&refs[i], name);
		text_add(&text, "%s\n", name);
	}
	names = text_take(&text);
	if (!names)
		return fail_memory(err);
	while (r == COPPICE_OK && !did)
		r = try_add(ceph, difference, names, gone, &did, err);
	return r;
}

int ceph_stamp_add(struct ceph_pool *ceph, uint64_t difference, const struct volume_ref *refs,
		   size_t n, struct coppice_error *err)
{
	return difference ? add(ceph, difference, refs, n, NULL, err) : COPPICE_OK;
}

int ceph_stamp_touch(struct ceph_pool *ceph, struct coppice_error *err)
{
	struct volume_ref nothing = { .kind = VOLUME_CUSTOM };
	struct uuid id;
	int r = uuid_new(&id, err);

	return r < 0 ? r
		     : ceph_stamp_add(ceph, ceph_hash(&nothing, id.text) % STAMP_MODULUS, NULL, 0,
				      err);
}

int ceph_stamp_publish(struct ceph_pool *ceph, const char *draft, uint64_t difference,
		       const struct volume_ref *refs, size_t n, struct coppice_error *err)
{
	_cleanup_(freep) char *key = text_format(ROOT_DRAFT "%s", draft);

	return key ? add(ceph, difference, refs, n, key, err) : fail_memory(err);
}

/* ---- what changed ---- */

/* Those numbered from @first on; *ret_any: of one of them nobody knows, or not any more. */
static int read_changes(struct ceph_pool *ceph, uint64_t first, size_t n, struct text *names,
			bool *ret_any, struct coppice_error *err)
{
	char(*text)[KEY_SIZE] = calloc(n + 1, sizeof(*text));
	_cleanup_(freep) const char **keys = calloc(n + 1, sizeof(*keys));
	_cleanup_(freep) char **values = calloc(n + 1, sizeof(*values));
	int r = text && keys && values ? COPPICE_OK : fail_memory(err);

	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		keys[i] = change_key(first + i, text[i]);
	if (r == COPPICE_OK)
		r = root_values(ceph, keys, n, values, err);
	for (size_t i = 0; values && i < n; i++) {
		text_add(names, "%s", values[i] ? values[i] : "");
		*ret_any |= !values[i] || !values[i][0];
		free(values[i]);
	}
	free(text);
	return r;
}

/* Each once. */
static int parse_names(char *names, struct volume_ref **ret, size_t *ret_n,
		       struct coppice_error *err)
{
	struct volume_ref *refs;
	size_t n_lines = 0, n = 0, kept = 0;
	char *rest = NULL;

	for (const char *at = names; *at; at++)
		n_lines += *at == '\n';
	refs = calloc(n_lines + 1, sizeof(*refs));
	if (!refs)
		return fail_memory(err);
	for (char *line = strtok_r(names, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		n += ceph_name_parse(line, &refs[n]);
	qsort(refs, n, sizeof(*refs), volume_compare);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || volume_compare(&refs[i], &refs[kept - 1]) != 0)
			refs[kept++] = refs[i];
	*ret = refs;
	*ret_n = kept;
	return COPPICE_OK;
}

int ceph_changes(struct pool *pool, uint64_t since, struct volume_ref **ret, size_t *ret_n,
		 uint64_t *ret_last, struct coppice_error *err)
{
	struct ceph_pool *ceph = ceph_pool_of(pool);
	_cleanup_(freep) char *names = NULL;
	struct text text = TEXT_INIT;
	struct sum sum;
	bool is_any;
	int r = read_sum(ceph, &sum, err);

	free(sum.text);
	*ret = NULL;
	*ret_n = 0;
	*ret_last = sum.n_changes;
	is_any = since == 0 || sum.n_changes < since || sum.n_changes - since > CHANGES_MAX;
	if (r == COPPICE_OK && !is_any && sum.n_changes > since)
		r = read_changes(ceph, since + 1, sum.n_changes - since, &text, &is_any, err);
	names = text_take(&text);
	if (r < 0 || is_any)
		return r;
	return names ? parse_names(names, ret, ret_n, err) : fail_memory(err);
}
