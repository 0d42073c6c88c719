/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM and the kernel agree. LVM writes what it is to make into the group's text, has the kernel
 * make it, and then has both count one more. Cut short before the last, it has the kernel make it
 * again with each change ("already contain thin device with device_id 16"), in vain for ever.
 */
#include "driver/lvm/lvm.h"

/* What LVM made last, with the number that the kernel still has; NULL: nothing. */
static const struct lv *last_made(const struct lv_list *listing, uint64_t transaction_id)
{
	if (!listing->pool_tags || listing->transaction_id != transaction_id + 1)
		return NULL;
	for (size_t i = 0; i < listing->n; i++)
		if (listing->lv[i].transaction_id == transaction_id)
			return &listing->lv[i];
	return NULL;
}

bool lvm_is_unconfirmed(const struct lvm_pool *lvm, const struct lv_list *listing)
{
	struct coppice_error ignored;
	struct pool_status status;

	return lvm_pool_status(lvm, &status, &ignored) == COPPICE_OK &&
	       last_made(listing, status.transaction_id) != NULL;
}

/* Has the kernel made it? Only then is there a device for it. */
static bool is_made(struct session *session, const struct lv *lv)
{
	struct coppice_error ignored;
	char device[PATH_MAX];

	lvm_device(session->lvm, lv->name, device);
	if (access(device, F_OK) == 0)
		return true;
	return lvm_activate(session, lv->name, &ignored) == COPPICE_OK &&
	       lvm_deactivate(session, lv->name, &ignored) == COPPICE_OK;
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
int lvm_confirm(struct session *session, const struct lv_list *listing, struct coppice_error *err)
{
	struct coppice_error ignored;
	struct pool_status status;
	const struct lv *lv;
	char message[80];
	int r;

	if (lvm_pool_status(session->lvm, &status, &ignored) < 0)
		return COPPICE_OK; /* it is not active: who needs that is told */
	lv = last_made(listing, status.transaction_id);
	if (!lv || !is_made(session, lv))
		return COPPICE_OK;
	(void)snprintf(message, sizeof(message), "set_transaction_id %llu %llu",
		       (unsigned long long)status.transaction_id,
		       (unsigned long long)listing->transaction_id);
	r = lvm_pool_tell(session->lvm, message, err);
	if (r == COPPICE_OK)
		make_it_forget(session);
	return r;
}
