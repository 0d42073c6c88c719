/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test-conformance memory|dir|btrfs|btrfs-noquota|zfs|lvm-ext4|lvm-xfs|lvm-btrfs|ceph|ceph-xfs|ceph-btrfs
 * [GROUP…]: all cases on one driver, or those of some groups; a new pool for each.
 */

#include "conformance.h"

static const struct group {
	const char *name;
	const struct tap_test *cases;
} groups[] = {
	{ "pool", cases_pool },     { "make", cases_make },     { "announce", cases_announce },
	{ "change", cases_change }, { "delete", cases_delete }, { "look", cases_look },
	{ "use", cases_use },       { "crowd", cases_crowd },
};

static bool is_group(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (strcmp(groups[i].name, name) == 0)
			return true;
	return false;
}

/* No names: all are wanted. */
static bool is_wanted(const struct group *group, char **names)
{
	bool is_named = false;

	for (size_t i = 0; names[i]; i++)
		is_named |= strcmp(names[i], group->name) == 0;
	return is_named || !names[0];
}

static const struct subject *subject_find(const char *name)
{
	const struct subject *const all[] = { &subject_memory, &subject_dir,
					      &subject_btrfs,  &subject_btrfs_noquota,
					      &subject_zfs,    &subject_lvm_ext4,
					      &subject_lvm_xfs, &subject_lvm_btrfs,
#ifdef HAS_CEPH
					      &subject_ceph,   &subject_ceph_xfs,
					      &subject_ceph_btrfs,
#endif
	};

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
	bool is_usage = argc < 2;
	size_t n = 0;

	for (int i = 2; i < argc; i++)
		is_usage |= !is_group(argv[i]);
	subject = is_usage ? NULL : subject_find(argv[1]);
	if (!subject) {
		fprintf(stderr, "usage: test-conformance memory|dir|btrfs|btrfs-noquota|zfs|"
				"lvm-ext4|lvm-xfs|lvm-btrfs|ceph|ceph-xfs|ceph-btrfs "
				"[GROUP…]\n");
		return 2;
	}
	if (subject->why_not())
		return tap_skip_all(subject->why_not());
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++)
		for (size_t i = 0; is_wanted(&groups[g], argv + 2) && groups[g].cases[i].fn; i++)
			if (n + 1 < ARRAY_SIZE(tests))
				tests[n++] = groups[g].cases[i];
	return tap_run_with(tests, pool_remove);
}
