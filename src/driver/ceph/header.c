/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What RBD keeps of an image beside its data, by the methods of its own object class: librbd
 * changes the metadata of one open image at a time, one key in a step, and here several change
 * together, of images that need not be opened.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/text.h"

/* ---- as Ceph encodes values: little-endian, a string after its length ---- */

static void encode_number(struct text *to, uint32_t number)
{
	const char bytes[] = { (char)number, (char)(number >> 8), (char)(number >> 16),
			       (char)(number >> 24) };

	text_add_bytes(to, bytes, sizeof(bytes));
}

static void encode_string(struct text *to, const char *value)
{
	encode_number(to, (uint32_t)strlen(value));
	text_add_bytes(to, value, strlen(value));
}

/* ---- metadata ---- */

/* One map of all that is set; one key of each that goes. */
static int add_steps(rados_write_op_t op, const struct meta *metas)
{
	struct text set = TEXT_INIT;
	uint32_t n = 0;
	bool is_good;

	for (const struct meta *meta = metas; meta->key; meta++)
		n += meta->value != NULL;
	encode_number(&set, n);
	for (const struct meta *meta = metas; meta->key; meta++) {
		if (!meta->value)
			continue;
		encode_string(&set, meta->key);
		encode_string(&set, meta->value);
	}
	is_good = !set.is_failed;
	if (is_good && n > 0)
		rados_write_op_exec(op, "rbd", "metadata_set", set.data, set.length, NULL);
	text_done(&set);
	for (const struct meta *meta = metas; meta->key && is_good; meta++) {
		struct text key = TEXT_INIT;

		if (meta->value)
			continue;
		encode_string(&key, meta->key);
		is_good = !key.is_failed;
		if (is_good)
			rados_write_op_exec(op, "rbd", "metadata_remove", key.data, key.length,
					    NULL);
		text_done(&key);
	}
	return is_good ? 0 : -ENOMEM;
}

int header_change(struct ceph_pool *ceph, const char *id, const struct meta *metas,
		  struct coppice_error *err)
{
	rados_write_op_t op = rados_create_write_op();
	char object[RBD_ID_MAX + 16];
	int r;

	(void)snprintf(object, sizeof(object), "rbd_header.%s", id);
	rados_write_op_assert_exists(op);
	r = add_steps(op, metas);
	if (r == 0)
		r = rados_write_op_operate2(op, ceph->io, object, NULL, 0);
	rados_release_write_op(op);
	return r < 0 ? fail_ceph(ceph, r, err,
				 "cannot change the metadata of the image with the "
				 "id '%s' in '%s'",
				 id, ceph->osd_pool)
		     : COPPICE_OK;
}

int header_replace(struct ceph_pool *ceph, const char *id, const char *key, const char *old,
		   const char *value, bool *ret_did, struct coppice_error *err)
{
	const struct meta metas[] = { { key, value }, { NULL, NULL } };
	_cleanup_(freep) char *stored = text_format("metadata_%s", key);
	rados_write_op_t op;
	char object[RBD_ID_MAX + 16];
	int r, why = 0;

	*ret_did = false;
	if (!stored)
		return fail_memory(err);
	op = rados_create_write_op();
	(void)snprintf(object, sizeof(object), "rbd_header.%s", id);
	rados_write_op_assert_exists(op);
	rados_write_op_omap_cmp2(op, stored, LIBRADOS_CMPXATTR_OP_EQ, old ? old : "",
				 strlen(stored), old ? strlen(old) : 0, &why);
	r = add_steps(op, metas);
	if (r == 0)
		r = rados_write_op_operate2(op, ceph->io, object, NULL, 0);
	rados_release_write_op(op);
	*ret_did = r == 0;
	return r < 0 && r != -ECANCELED
		       ? fail_ceph(
				 ceph, r, err,
				 "cannot change the metadata of the image with the id '%s' in '%s'",
				 id, ceph->osd_pool)
		       : COPPICE_OK;
}

/* ---- names ---- */

/* The content of rbd_id.NAME: -ENOENT, or 0. */
static int read_id(struct ceph_pool *ceph, const char *name, char ret[static RBD_ID_MAX])
{
	char object[RBD_NAME_MAX + 16], content[RBD_ID_MAX + 4] = "";
	uint32_t length;
	int r;

	(void)snprintf(object, sizeof(object), "rbd_id.%s", name);
	r = rados_read(ceph->io, object, content, sizeof(content) - 1, 0);
	if (r < 0)
		return r;
	memcpy(&length, content, sizeof(length));
	if (r < 4 || length >= RBD_ID_MAX || length + 4 > (uint32_t)r)
		return -EINVAL;
	(void)snprintf(ret, RBD_ID_MAX, "%.*s", (int)length, content + 4);
	return 0;
}

int header_id(struct ceph_pool *ceph, const char *name, char ret[static RBD_ID_MAX],
	      struct coppice_error *err)
{
	int r = read_id(ceph, name, ret);

	if (r == -ENOENT)
		return fail(err, COPPICE_NOT_FOUND, "there is no image '%s/%s'", ceph->osd_pool,
			    name);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot look for the image '%s/%s'", ceph->osd_pool,
				 name)
		     : COPPICE_OK;
}

static int note_there(void *user, const char *key, const char *value, size_t length)
{
	*(bool *)user = true;
	return 0;
}

/* A key of RBD's list of images: 0, -ENOENT, or worse. */
static int is_listed(struct ceph_pool *ceph, const char *prefix, const char *name)
{
	_cleanup_(freep) char *key = text_format("%s%s", prefix, name);
	bool is_there = false;
	int r = key ? omap_each_of(ceph, "rbd_directory", (const char *const[]){ key }, 1,
				   note_there, &is_there)
		    : -ENOMEM;

	return r == 0 && !is_there ? -ENOENT : r;
}

/*
 * Is the name a claim that was left? Whoever is making a claim writes it first and then RBD's
 * list; of who is known, his image's @id tells, and else a moment is waited for him.
 */
static int is_left(struct ceph_pool *ceph, const char *name, const char *id, bool *ret)
{
	char claimed[RBD_ID_MAX];
	int r = read_id(ceph, name, claimed);

	*ret = false;
	if (r == 0 && id && strcmp(claimed, id) != 0)
		return 0;
	for (int tries = 0; r == 0 && tries < (id ? 1 : 10); tries++) {
		if (tries > 0)
			(void)nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
		r = is_listed(ceph, "name_", name);
		if (r == -ENOENT && !id)
			r = is_listed(ceph, "id_", claimed);
		if (r == 0) /* it is an image's, or one of that is just being renamed */
			return 0;
		*ret = r == -ENOENT;
		r = *ret ? 0 : r;
	}
	return r == -ENOENT ? 0 : r;
}

int header_unclaim(struct ceph_pool *ceph, const char *name, const char *id,
		   struct coppice_error *err)
{
	char object[RBD_NAME_MAX + 16];
	bool is_so = false;
	int r = is_left(ceph, name, id, &is_so);

	(void)snprintf(object, sizeof(object), "rbd_id.%s", name);
	if (r == 0 && is_so)
		r = rados_remove(ceph->io, object);
	return r < 0 && r != -ENOENT
		       ? fail_ceph(ceph, r, err, "cannot give back the name '%s'", name)
		       : COPPICE_OK;
}

/* ---- the trash ---- */

#define MAX_ERRNO 4095 /* a comparison that finds a difference fails with this and where it is */

/* As RBD numbers the states of what is in it. */
enum {
	TRASH_NORMAL,
	TRASH_MOVING,
	TRASH_REMOVING,
	TRASH_RESTORING,
};

/* The name goes only if it is this image's; nobody else is named in between. */
static int remove_claim(struct ceph_pool *ceph, const char *name, const char *id)
{
	rados_write_op_t op = rados_create_write_op();
	struct text content = TEXT_INIT;
	char object[RBD_NAME_MAX + 16];
	int r = -ENOMEM;

	(void)snprintf(object, sizeof(object), "rbd_id.%s", name);
	encode_string(&content, id);
	if (!content.is_failed) {
		rados_write_op_cmpext(op, content.data, content.length, 0, NULL);
		rados_write_op_remove(op);
		r = rados_write_op_operate2(op, ceph->io, object, NULL, 0);
	}
	text_done(&content);
	rados_release_write_op(op);
	return r == -ENOENT || r <= -MAX_ERRNO || r == -ECANCELED ? 0 : r;
}

static int remove_from_list(struct ceph_pool *ceph, const char *name, const char *id)
{
	struct text in = TEXT_INIT;
	char out[8];
	int r;

	encode_string(&in, name);
	encode_string(&in, id);
	r = in.is_failed ? -ENOMEM
			 : rados_exec(ceph->io, "rbd_directory", "rbd", "dir_remove_image", in.data,
				      in.length, out, sizeof(out));
	text_done(&in);
	return r == -ENOENT || r == -ESTALE ? 0 : r;
}

bool header_is_there(struct ceph_pool *ceph, const char *id)
{
	char object[RBD_ID_MAX + 16];
	uint64_t size;
	time_t changed;

	(void)snprintf(object, sizeof(object), "rbd_header.%s", id);
	return rados_stat(ceph->io, object, &size, &changed) != -ENOENT;
}

int header_forget(struct ceph_pool *ceph, const char *name, const char *id,
		  struct coppice_error *err)
{
	int r = remove_claim(ceph, name, id);

	if (r == 0)
		r = remove_from_list(ceph, name, id);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot remove '%s/%s', which is half made",
				 ceph->osd_pool, name)
		     : COPPICE_OK;
}

/* The last byte of an entry. */
static int take_state(void *user, const char *key, const char *value, size_t length)
{
	if (length > 0)
		*(int *)user = value[length - 1];
	return 0;
}

static int set_state(struct ceph_pool *ceph, const char *id, char state, char expected)
{
	struct text in = TEXT_INIT;
	char out[8];
	int r;

	encode_string(&in, id);
	text_add_bytes(&in, (const char[]){ state, expected }, 2);
	r = in.is_failed ? -ENOMEM
			 : rados_exec(ceph->io, RBD_TRASH, "rbd", "trash_state_set", in.data,
				      in.length, out, sizeof(out));
	text_done(&in);
	return r;
}

int header_finish_move(struct ceph_pool *ceph, const char *name, const char *id, bool *ret_did,
		       struct coppice_error *err)
{
	_cleanup_(freep) char *key = text_format("id_%s", id);
	int state = TRASH_NORMAL;
	int r = key ? omap_each_of(ceph, RBD_TRASH, (const char *const[]){ key }, 1, take_state,
				   &state)
		    : -ENOMEM;

	*ret_did = false;
	if (r == 0 && state != TRASH_MOVING && state != TRASH_RESTORING)
		return COPPICE_OK;
	if (r == 0)
		r = remove_claim(ceph, name, id);
	if (r == 0)
		r = remove_from_list(ceph, name, id);
	if (r == 0)
		r = set_state(ceph, id, TRASH_NORMAL, (char)state);
	*ret_did = r == 0;
	/* It was in no such state. */
	return r < 0 && r != -ESTALE && r != -ENOENT
		       ? fail_ceph(ceph, r, err, "cannot move '%s' into the trash of '%s'", name,
				   ceph->osd_pool)
		       : COPPICE_OK;
}
