/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM and the kernel agree. LVM writes what it is to make into the group's text, has the kernel
 * make it, and then has both count one more. Cut short before the last, it has the kernel make it
 * again with each change ("already contain thin device with device_id 16"), in vain for ever. Cut
 * short before the kernel has made it, there is a volume without a device, until LVM makes
 * something else; nobody was told of it.
 */
#include "driver/lvm/lvm.h"

#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

/* STATE/lvm/POOL/remembers: the kernel has been told, and LVM still has what it was to make. */
#define REMEMBERS "remembers"

/* What LVM made last, when it had one less. */
struct last {
	char name[LV_NAME_MAX];   /* empty: nothing */
	char origin[LV_NAME_MAX]; /* what it is a snapshot of; empty: of nothing */
	uint64_t transaction_id;  /* that of LVM */
};

static uint64_t number_of(json_t *row)
{
	return strtoull(lvm_field(row, "transaction_id"), NULL, 10);
}

static void find_last(const struct lvm_pool *lvm, json_t *rows, struct last *ret)
{
	json_t *row;
	size_t i;

	*ret = (struct last){ 0 };
	json_array_foreach (rows, i, row)
		if (strcmp(lvm_field(row, "lv_name"), lvm->thin) == 0)
			ret->transaction_id = number_of(row);
	json_array_foreach (rows, i, row)
		if (strcmp(lvm_field(row, "pool_lv"), lvm->thin) == 0 &&
		    number_of(row) + 1 == ret->transaction_id) {
			(void)snprintf(ret->name, sizeof(ret->name), "%s",
				       lvm_field(row, "lv_name"));
			(void)snprintf(ret->origin, sizeof(ret->origin), "%s",
				       lvm_field(row, "origin"));
		}
}

static int read_last(struct session *session, struct last *ret, struct coppice_error *err)
{
	json_t *report;
	int r = session_do(session, &report, err, "lvs -o lv_name,pool_lv,origin,transaction_id %s",
			   session->lvm->vg);

	if (r < 0)
		return r;
	find_last(session->lvm,
		  json_object_get(json_array_get(json_object_get(report, "report"), 0), "lv"), ret);
	json_decref(report);
	return COPPICE_OK;
}

static bool is_active(struct session *session, const char *name)
{
	char device[PATH_MAX];

	lvm_device(session->lvm, name, device);
	return access(device, F_OK) == 0;
}

/* Has the kernel made it? Only then is there a device for it. */
static bool is_made(struct session *session, const char *name)
{
	struct coppice_error ignored;

	if (is_active(session, name))
		return true;
	if (lvm_activate(session, name, &ignored) < 0)
		return false;
	(void)lvm_deactivate(session, name, &ignored);
	return true;
}

bool lvm_remembers(const struct lvm_pool *lvm)
{
	return state_lock_is_there(&lvm->files, REMEMBERS);
}

void lvm_forget_remembering(const struct lvm_pool *lvm)
{
	state_lock_remove(&lvm->files, REMEMBERS);
}

/*
 * LVM has the kernel make what it was to make, and forgets that, when it makes something else, and
 * not before; what is removed until then it would have the kernel remove together with that, and so
 * not at all. So something is made, and removed. Killed in between, it is a draft whose maker is
 * dead.
 */
static int make_it_go_on(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	char name[LV_NAME_MAX];
	struct uuid id;
	int r = uuid_new(&id, err);

	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "draft_%s", id.text);
	r = session_do(session, NULL, err,
		       "lvcreate -q -y --type thin -ky -V 4m -n %s --addtag=" TAG_DRAFT
		       "=%s --thinpool %s/%s",
		       name, id.text, lvm->vg, lvm->thin);
	return r < 0 ? r : lvm_remove(session, (const char *const[]){ name }, 1, err);
}

/* Where that fails, as the pool is full, it is tried again by each sweep. */
static void make_it_forget(struct session *session)
{
	struct coppice_error ignored;

	if (make_it_go_on(session, &ignored) == COPPICE_OK)
		lvm_forget_remembering(session->lvm);
}

/* What LVM would have told it next: after that, LVM takes it for made. */
static int tell_kernel(struct session *session, const struct last *last, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	_cleanup_(freep) char *path = text_format("%s/" REMEMBERS, lvm->files.path);
	struct coppice_error ignored;
	char message[80];
	int r;

	if (!path)
		return fail_memory(err);
	(void)snprintf(message, sizeof(message), "set_transaction_id %llu %llu",
		       (unsigned long long)last->transaction_id - 1,
		       (unsigned long long)last->transaction_id);
	/* Where the host's disk is full there is none; then it is forgotten now, or not at all. */
	(void)file_write(AT_FDCWD, path, "", true, &ignored);
	r = lvm_pool_tell(lvm, message, err);
	if (r == COPPICE_OK)
		make_it_forget(session);
	return r;
}

/*
 * Where that fails, whoever needs it is told. A snapshot of what is in use would be of what it is
 * now, and not in one instant, as LVM does not suspend that for it: so it goes, being made just
 * now.
 */
static void have_it_made(struct session *session, const struct last *last)
{
	bool is_in_use = last->origin[0] && is_active(session, last->origin);
	struct coppice_error ignored;

	if (make_it_go_on(session, &ignored) == COPPICE_OK && is_in_use)
		(void)lvm_remove(session, (const char *const[]){ last->name }, 1, &ignored);
}

/* LVM is asked first: who is making something has its lock for so long. */
int lvm_confirm(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	struct coppice_error ignored;
	struct pool_status status;
	struct last last;
	int r = read_last(session, &last, err);

	if (r < 0)
		return r;
	lvm->is_doubtful = false;
	if (lvm_pool_status(lvm, &status, &ignored) < 0)
		return COPPICE_OK; /* it is not active: who needs that is told */
	if (last.name[0] && status.transaction_id + 1 == last.transaction_id) {
		if (is_made(session, last.name))
			return tell_kernel(session, &last, err);
		have_it_made(session, &last);
	} else if (lvm_remembers(lvm)) {
		make_it_forget(session);
	}
	return COPPICE_OK;
}
