/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM and the kernel agree. LVM writes what it is to make into the group's text, has the kernel
 * make it, and then has both count one more. Cut short before the last, it has the kernel make it
 * again with each change ("already contain thin device with device_id 16"), in vain for ever. Cut
 * short before the kernel has made it, there is a volume without a device, until LVM makes
 * something else.
 */
#include "driver/lvm/lvm.h"

#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

/* STATE/lvm/POOL/remembers: LVM still has what it was to make. */
#define REMEMBERS "remembers"

/* What LVM made last, when it had one less. */
struct last {
	char name[LV_NAME_MAX];  /* empty: nothing */
	uint64_t transaction_id; /* that of LVM */
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
		    number_of(row) + 1 == ret->transaction_id)
			(void)snprintf(ret->name, sizeof(ret->name), "%s",
				       lvm_field(row, "lv_name"));
}

static int read_last(struct session *session, struct last *ret, struct coppice_error *err)
{
	json_t *report;
	int r = session_do(session, &report, err, "lvs -o lv_name,pool_lv,transaction_id %s",
			   session->lvm->vg);

	if (r < 0)
		return r;
	find_last(session->lvm,
		  json_object_get(json_array_get(json_object_get(report, "report"), 0), "lv"), ret);
	json_decref(report);
	return COPPICE_OK;
}

/* Has the kernel made it? Only then is there a device for it. */
static bool is_made(struct session *session, const char *name)
{
	struct coppice_error ignored;
	char device[PATH_MAX];

	lvm_device(session->lvm, name, device);
	if (access(device, F_OK) == 0)
		return true;
	if (lvm_activate(session, name, &ignored) < 0)
		return false;
	(void)lvm_deactivate(session, name, &ignored);
	return true;
}

void lvm_forget_remembering(const struct lvm_pool *lvm)
{
	state_lock_remove(&lvm->files, REMEMBERS);
}

/* Where the host's disk is full there is none; then it is gone on with now, or not at all. */
static void remember(const struct lvm_pool *lvm)
{
	_cleanup_(freep) char *path = text_format("%s/" REMEMBERS, lvm->files.path);
	struct coppice_error ignored;

	if (path)
		(void)file_write(AT_FDCWD, path, "", true, &ignored);
}

/*
 * LVM has the kernel make what it was to make, and forgets that, when it makes something else, and
 * not before; what is removed until then it would have the kernel remove together with that, and so
 * not at all. So something is made, and removed. Killed in between, it is a draft whose maker is
 * dead. Where that fails, as the pool is full, it is tried again by each sweep.
 */
static void make_it_go_on(struct session *session)
{
	struct lvm_pool *lvm = session->lvm;
	struct coppice_error ignored;
	struct uuid id;

	if (uuid_new(&id, &ignored) < 0 ||
	    session_do(session, NULL, &ignored,
		       "lvcreate -q -y --type thin -ky -V 4m -n draft_%s --addtag=" TAG_DRAFT
		       "=%s --thinpool %s/%s",
		       id.text, id.text, lvm->vg, lvm->thin) < 0)
		return;
	if (session_do(session, NULL, &ignored, "lvremove -q -y -f %s/draft_%s", lvm->vg,
		       id.text) == COPPICE_OK)
		lvm_forget_remembering(lvm);
}

/* What LVM would have told it next: after that, LVM takes it for made. */
static int tell_kernel(struct lvm_pool *lvm, const struct last *last, struct coppice_error *err)
{
	char message[80];

	(void)snprintf(message, sizeof(message), "set_transaction_id %llu %llu",
		       (unsigned long long)last->transaction_id - 1,
		       (unsigned long long)last->transaction_id);
	return lvm_pool_tell(lvm, message, err);
}

bool lvm_remembers(const struct lvm_pool *lvm)
{
	return state_lock_is_there(&lvm->files, REMEMBERS);
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
		remember(lvm);
		if (is_made(session, last.name))
			r = tell_kernel(lvm, &last, err);
		if (r == COPPICE_OK)
			make_it_go_on(session);
	} else if (lvm_remembers(lvm)) {
		make_it_go_on(session);
	}
	return r;
}
