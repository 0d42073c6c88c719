/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The object "coppice" of a pool: what all who use the pool must agree on, in its keys.
 *
 *	pool       the pool's record
 *	made       "true": pool_create made the pool of the cluster
 *	sum        the stamp, and
 *	change.N   what made it so: stamp.c
 *	draft.ID   a draft that is neither published nor given up
 *	owed.ID    somebody took something out of sight, and is to reap it
 *	by.ID      somebody who is at work, or was killed at it: worker.c
 *	host.ID    a state directory that uses the pool
 *	lock.BYTE  by whom it is held: locking.c
 *	name.NAME  the draft that gives this name
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"

static int operate(struct ceph_pool *ceph, rados_write_op_t op)
{
	int r = rados_write_op_operate2(op, ceph->io, ROOT_OBJECT, NULL, 0);

	rados_release_write_op(op);
	return r;
}

static int fail_root(struct ceph_pool *ceph, int r, struct coppice_error *err)
{
	if (r == -ENOENT)
		return fail(err, COPPICE_INVALID, "the pool '%s' is no pool of Coppice",
			    ceph->osd_pool);
	return fail_ceph(ceph, r, err, "cannot change '%s/" ROOT_OBJECT "'", ceph->osd_pool);
}

/* ---- values of keys ---- */

static int fail_reading(struct ceph_pool *ceph, int r, struct coppice_error *err)
{
	return r == -ENOENT ? fail_root(ceph, r, err)
			    : fail_ceph(ceph, r, err, "cannot read '%s/" ROOT_OBJECT "'",
					ceph->osd_pool);
}

struct values {
	const char *const *keys;
	size_t n;
	char **ret;
};

static int take_value(void *user, const char *key, const char *value, size_t length)
{
	const struct values *values = user;

	for (size_t i = 0; i < values->n; i++)
		if (strcmp(values->keys[i], key) == 0 && !values->ret[i] &&
		    !(values->ret[i] = strndup(value, length)))
			return -ENOMEM;
	return 0;
}

int root_values(struct ceph_pool *ceph, const char *const keys[], size_t n, char *ret[],
		struct coppice_error *err)
{
	struct values values = { keys, n, ret };
	int r = omap_each_of(ceph, ROOT_OBJECT, keys, n, take_value, &values);

	return r < 0 ? fail_reading(ceph, r, err) : COPPICE_OK;
}

int root_get(struct ceph_pool *ceph, const char *key, char **ret, struct coppice_error *err)
{
	*ret = NULL;
	return root_values(ceph, &key, 1, ret, err);
}

static void put(rados_write_op_t op, const char *key, const char *value)
{
	size_t key_length = strlen(key), length = strlen(value);

	rados_write_op_omap_set2(op, &key, &value, &key_length, &length, 1);
}

/* One of these keys is another, or gone. */
static int change(struct ceph_pool *ceph, const char *key, const char *value,
		  struct coppice_error *err)
{
	rados_write_op_t op = rados_create_write_op();
	size_t length = strlen(key);
	int r;

	rados_write_op_assert_exists(op);
	if (value)
		put(op, key, value);
	else
		rados_write_op_omap_rm_keys2(op, &key, &length, 1);
	r = operate(ceph, op);
	return r < 0 ? fail_root(ceph, r, err) : COPPICE_OK;
}

int root_set(struct ceph_pool *ceph, const char *key, const char *value, struct coppice_error *err)
{
	return change(ceph, key, value, err);
}

int root_unset(struct ceph_pool *ceph, const char *key, struct coppice_error *err)
{
	return change(ceph, key, NULL, err);
}

int root_make(struct ceph_pool *ceph, const char *const pairs[][2], size_t n,
	      struct coppice_error *err)
{
	rados_write_op_t op = rados_create_write_op();
	int r;

	rados_write_op_create(op, LIBRADOS_CREATE_EXCLUSIVE, NULL);
	for (size_t i = 0; i < n; i++)
		put(op, pairs[i][0], pairs[i][1]);
	r = operate(ceph, op);
	if (r == -EEXIST)
		return fail(err, COPPICE_EXISTS, "there is a pool in '%s' already", ceph->osd_pool);
	return r < 0 ? fail_root(ceph, r, err) : COPPICE_OK;
}

/* ---- drafts ---- */

int root_draft_add(struct ceph_pool *ceph, const char *id, const char *text,
		   struct coppice_error *err)
{
	_cleanup_(freep) char *key = text_format(ROOT_DRAFT "%s", id);

	return key ? change(ceph, key, text, err) : fail_memory(err);
}

int root_draft_remove(struct ceph_pool *ceph, const char *id, struct coppice_error *err)
{
	_cleanup_(freep) char *key = text_format(ROOT_DRAFT "%s", id);

	return key ? change(ceph, key, NULL, err) : fail_memory(err);
}

void root_list_done(struct root_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->entry[i].text);
	free(list->entry);
	*list = (struct root_list){ 0 };
}

static int add_entry(struct root_list *list, const char *id, const char *value, size_t length)
{
	struct root_entry *more = reallocarray(list->entry, list->n + 1, sizeof(*more));
	struct root_entry entry = { 0 };

	if (!more)
		return -ENOMEM;
	list->entry = more;
	(void)snprintf(entry.id.text, sizeof(entry.id.text), "%s", id);
	entry.text = strndup(value, length);
	if (!entry.text)
		return -ENOMEM;
	list->entry[list->n++] = entry;
	return 0;
}

struct entries {
	struct root_list *list;
	const char *prefix;
};

static int take_entry(void *user, const char *key, const char *value, size_t length)
{
	const struct entries *entries = user;

	return add_entry(entries->list, key + strlen(entries->prefix), value, length);
}

int root_list_read(struct ceph_pool *ceph, const char *prefix, struct root_list *ret,
		   struct coppice_error *err)
{
	struct root_list list = { 0 };
	int r = omap_each(ceph, ROOT_OBJECT, prefix, take_entry,
			  &(struct entries){ &list, prefix });

	if (r < 0) {
		root_list_done(&list);
		return fail_ceph(ceph, r, err, "cannot read '%s/" ROOT_OBJECT "'", ceph->osd_pool);
	}
	*ret = list;
	return COPPICE_OK;
}

int root_list_add(struct root_list *list, const char *id, struct coppice_error *err)
{
	return add_entry(list, id, "", 0) < 0 ? fail_memory(err) : COPPICE_OK;
}

const char *root_list_get(const struct root_list *list, const char *id)
{
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->entry[i].id.text, id) == 0)
			return list->entry[i].text;
	return NULL;
}

bool root_list_has(const struct root_list *list, const char *id)
{
	return root_list_get(list, id) != NULL;
}

/* ---- keys that others may change meanwhile ---- */

int root_replace(struct ceph_pool *ceph, const struct root_change *changes, size_t n, bool *ret_did,
		 struct coppice_error *err)
{
	rados_write_op_t op = rados_create_write_op();
	_cleanup_(freep) int *why = calloc(n + 1, sizeof(*why));
	int r;

	*ret_did = false;
	rados_write_op_assert_exists(op);
	for (size_t i = 0; why && i < n; i++)
		if (!changes[i].is_whatever)
			rados_write_op_omap_cmp2(
				op, changes[i].key, LIBRADOS_CMPXATTR_OP_EQ,
				changes[i].old ? changes[i].old : "", strlen(changes[i].key),
				changes[i].old ? strlen(changes[i].old) : 0, &why[i]);
	for (size_t i = 0; i < n; i++) {
		size_t length = strlen(changes[i].key);

		if (changes[i].value)
			put(op, changes[i].key, changes[i].value);
		else
			rados_write_op_omap_rm_keys2(op, &changes[i].key, &length, 1);
	}
	if (!why) {
		rados_release_write_op(op);
		return fail_memory(err);
	}
	r = operate(ceph, op);
	*ret_did = r == 0;
	return r < 0 && r != -ECANCELED ? fail_root(ceph, r, err) : COPPICE_OK;
}

/* ---- names that are being given ---- */

#define NAME "name."

/* One whose draft is no more was killed while it gave it, and has been swept. */
static int is_free(struct ceph_pool *ceph, const char *owner, bool *ret, struct coppice_error *err)
{
	_cleanup_(freep) char *key = text_format(ROOT_DRAFT "%s", owner), *text = NULL;
	int r = key ? root_get(ceph, key, &text, err) : fail_memory(err);

	*ret = r == COPPICE_OK && !text;
	return r;
}

int root_name_take(struct ceph_pool *ceph, const char *name, const char *id,
		   struct coppice_error *err)
{
	_cleanup_(freep) char *key = text_format(NAME "%s", name);
	int r = key ? COPPICE_OK : fail_memory(err);
	bool did = false;

	while (r == COPPICE_OK && !did) {
		_cleanup_(freep) char *owner = NULL;
		bool is_so = false;

		r = root_get(ceph, key, &owner, err);
		if (r == COPPICE_OK && owner)
			r = is_free(ceph, owner, &is_so, err);
		if (r < 0)
			return r;
		if (owner && !is_so && strcmp(owner, id) != 0)
			return fail(err, COPPICE_EXISTS, "the name '%s' is just being given", name);
		r = root_replace(ceph, &(struct root_change){ key, owner, id }, 1, &did, err);
	}
	return r;
}

void root_name_give_back(struct ceph_pool *ceph, const char *name)
{
	_cleanup_(freep) char *key = text_format(NAME "%s", name);
	struct coppice_error ignored;

	if (key)
		(void)change(ceph, key, NULL, &ignored);
}
