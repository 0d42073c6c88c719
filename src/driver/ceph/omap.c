/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys and values that an object has beside its bytes: RADOS gives out some of them at a time.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <string.h>

#define KEYS_MAX 1000 /* that come with one request */

/* Each that came; *ret_last: the last key of them, as it was if there is none. */
static int give_each(rados_omap_iter_t iter, char **ret_last, omap_fn *fn, void *user)
{
	char *key = NULL, *value = NULL, *last = NULL;
	size_t key_length = 0, length = 0;
	int r;

	while ((r = rados_omap_get_next2(iter, &key, &value, &key_length, &length)) == 0 && key) {
		last = key;
		r = fn(user, key, value ? value : "", length); /* of none, NULL */
		if (r < 0)
			return r;
	}
	if (r < 0 || !last)
		return r;
	free(*ret_last);
	*ret_last = strdup(last);
	return *ret_last ? 0 : -ENOMEM;
}

static int end_request(struct ceph_pool *ceph, const char *object, rados_read_op_t op,
		       const int *why)
{
	int r = rados_read_op_operate(op, ceph->io, object, 0);

	rados_release_read_op(op);
	return r < 0 ? r : *why;
}

int omap_each(struct ceph_pool *ceph, const char *object, const char *prefix, omap_fn *fn,
	      void *user)
{
	_cleanup_(freep) char *last = strdup("");
	unsigned char is_more = 1;
	int r = last ? 0 : -ENOMEM;

	while (r == 0 && is_more) {
		rados_read_op_t op = rados_create_read_op();
		rados_omap_iter_t iter = NULL;
		int why = 0;

		is_more = 0;
		rados_read_op_omap_get_vals2(op, last, prefix, KEYS_MAX, &iter, &is_more, &why);
		r = end_request(ceph, object, op, &why);
		if (r == 0)
			r = give_each(iter, &last, fn, user);
		if (iter)
			rados_omap_get_end(iter);
	}
	return r;
}

static int each_of_some(struct ceph_pool *ceph, const char *object, const char *const keys[],
			const size_t lengths[], size_t n, omap_fn *fn, void *user)
{
	rados_read_op_t op = rados_create_read_op();
	_cleanup_(freep) char *ignored = NULL;
	rados_omap_iter_t iter = NULL;
	int r, why = 0;

	rados_read_op_omap_get_vals_by_keys2(op, keys, n, lengths, &iter, &why);
	r = end_request(ceph, object, op, &why);
	if (r == 0)
		r = give_each(iter, &ignored, fn, user);
	if (iter)
		rados_omap_get_end(iter);
	return r;
}

int omap_each_of(struct ceph_pool *ceph, const char *object, const char *const keys[], size_t n,
		 omap_fn *fn, void *user)
{
	_cleanup_(freep) size_t *lengths = calloc(n + 1, sizeof(*lengths));
	int r = lengths ? 0 : -ENOMEM;

	for (size_t i = 0; i < n && lengths; i++)
		lengths[i] = strlen(keys[i]);
	for (size_t i = 0; i < n && r == 0; i += KEYS_MAX)
		r = each_of_some(ceph, object, &keys[i], &lengths[i],
				 n - i < KEYS_MAX ? n - i : KEYS_MAX, fn, user);
	return r;
}
