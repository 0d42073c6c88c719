/* SPDX-License-Identifier: Apache-2.0 */

/* test-conformance memory|dir|btrfs|btrfs-noquota|zfs: all cases on one driver, a new pool for
 * each. */

#include "conformance.h"

static const struct tap_test *const tables[] = {
	cases_pool,   cases_make, cases_announce, cases_change,
	cases_delete, cases_look, cases_use,      cases_crowd,
};

static const struct subject *subject_find(const char *name)
{
	const struct subject *const all[] = { &subject_memory, &subject_dir, &subject_btrfs,
					      &subject_btrfs_noquota, &subject_zfs };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (strcmp(all[i]->name, name) == 0)
			return all[i];
	return NULL;
}

/* However the test ended: nothing stays mounted, attached or on disk. */
static void pool_remove(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_spec spec = spec_of_test();
	struct pool *pool;

	if (subject->driver->pool_open(&spec, &pool, &err) == COPPICE_OK) {
		pool_clear(pool);
		pool_down(pool);
	}
	ok_call(subject->driver->pool_destroy(&spec, &err), &err);
}

int main(int argc, char **argv)
{
	struct tap_test tests[128] = { 0 };
	size_t n = 0;

	subject = argc == 2 ? subject_find(argv[1]) : NULL;
	if (!subject) {
		fprintf(stderr, "usage: test-conformance memory|dir|btrfs|btrfs-noquota|zfs\n");
		return 2;
	}
	if (subject->why_not())
		return tap_skip_all(subject->why_not());
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (size_t i = 0; tables[t][i].fn && n + 1 < ARRAY_SIZE(tests); i++)
			tests[n++] = tables[t][i];
	return tap_run_with(tests, pool_remove);
}
