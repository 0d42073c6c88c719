/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM and the kernel agree. LVM writes what it is to make into the group's text, has the kernel
 * make it, and then has both count one more. Cut short before the last, it has the kernel make it
 * again with each change ("already contain thin device with device_id 16"), in vain for ever.
 */
#include "driver/lvm/lvm.h"

#include <string.h>

/* What LVM made last, with the number that the kernel still has. */
struct last {
	char name[LV_NAME_MAX];  /* empty: nothing */
	uint64_t transaction_id; /* that of LVM, one more than the kernel's */
};

static const char *field(json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));

	return text ? text : "";
}

static void find_last(const struct lvm_pool *lvm, json_t *rows, uint64_t in_kernel,
		      struct last *ret)
{
	json_t *row;
	size_t i;

	*ret = (struct last){ 0 };
	json_array_foreach (rows, i, row) {
		uint64_t number = strtoull(field(row, "transaction_id"), NULL, 10);

		if (strcmp(field(row, "lv_name"), lvm->thin) == 0)
			ret->transaction_id = number;
		else if (strcmp(field(row, "pool_lv"), lvm->thin) == 0 && number == in_kernel)
			(void)snprintf(ret->name, sizeof(ret->name), "%s", field(row, "lv_name"));
	}
	if (ret->transaction_id != in_kernel + 1)
		ret->name[0] = '\0';
}

static int read_last(struct session *session, uint64_t in_kernel, struct last *ret,
		     struct coppice_error *err)
{
	json_t *report;
	int r = session_do(session, &report, err, "lvs -o lv_name,pool_lv,transaction_id %s",
			   session->lvm->vg);

	if (r < 0)
		return r;
	find_last(session->lvm,
		  json_object_get(json_array_get(json_object_get(report, "report"), 0), "lv"),
		  in_kernel, ret);
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
	return lvm_activate(session, name, &ignored) == COPPICE_OK &&
	       lvm_deactivate(session, name, &ignored) == COPPICE_OK;
}

/*
 * LVM forgets what it was to make when it makes something else, and not before; what is removed
 * until then it would have the kernel remove together with that, and so not at all. So something
 * is made, and removed. Killed in between, it is a draft whose maker is dead.
 */
static void make_it_forget(struct session *session)
{
	struct lvm_pool *lvm = session->lvm;
	struct coppice_error ignored;
	struct uuid id;

	if (uuid_new(&id, &ignored) == COPPICE_OK &&
	    session_do(session, NULL, &ignored,
		       "lvcreate -q -y --type thin -ky -V 4m -n draft_%s --addtag=" TAG_DRAFT
		       "=%s --thinpool %s/%s",
		       id.text, id.text, lvm->vg, lvm->thin) == COPPICE_OK)
		(void)session_do(session, NULL, &ignored, "lvremove -q -y -f %s/draft_%s", lvm->vg,
				 id.text);
}

/* What LVM would have told it next: after that, LVM takes it for made. */
int lvm_confirm(struct session *session, struct coppice_error *err)
{
	struct coppice_error ignored;
	struct pool_status status;
	struct last last;
	char message[80];
	int r;

	if (lvm_pool_status(session->lvm, &status, &ignored) < 0)
		return COPPICE_OK; /* it is not active: who needs that is told */
	r = read_last(session, status.transaction_id, &last, err);
	if (r < 0 || !last.name[0] || !is_made(session, last.name))
		return r;
	(void)snprintf(message, sizeof(message), "set_transaction_id %llu %llu",
		       (unsigned long long)status.transaction_id,
		       (unsigned long long)last.transaction_id);
	r = lvm_pool_tell(session->lvm, message, err);
	if (r == COPPICE_OK)
		make_it_forget(session);
	return r;
}
