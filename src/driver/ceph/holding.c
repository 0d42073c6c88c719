/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which host has a volume mounted. RBD's own exclusive lock goes from client to client as each asks
 * for it, so two hosts would write into one file system. So the host that maps an image says so in
 * its metadata, in one step and only if nobody else does; and as long as somebody has the image
 * open, that counts. Who died has it open no more once the cluster has missed him for half a
 * minute, and RBD shuts him out when the next one takes the exclusive lock.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"

/* "OWNER\tHOST" */
static char *own_text(const struct ceph_pool *ceph)
{
	char host[HOST_NAME_MAX + 1];

	worker_host(host);
	return text_format("%s\t%s", ceph->owner.text, host);
}

static bool is_own(const struct ceph_pool *ceph, const char *text)
{
	size_t n = strlen(ceph->owner.text);

	return strncmp(text, ceph->owner.text, n) == 0 && text[n] == '\t';
}

/* Has anybody this image open? */
static int is_open(struct ceph_pool *ceph, const struct rbd *rbd, bool *ret,
		   struct coppice_error *err)
{
	rbd_image_watcher_t watchers[32];
	size_t n = ARRAY_SIZE(watchers);
	rbd_image_t image;
	int r = rbd_open_by_id_read_only(ceph->io, rbd->id, &image, NULL);

	if (r == 0) {
		r = rbd_watchers_list(image, watchers, &n);
		if (r == 0)
			rbd_watchers_list_cleanup(watchers, n);
		(void)rbd_close(image);
	}
	*ret = r == -ERANGE || n > 0;
	return r < 0 && r != -ERANGE ? fail_ceph(ceph, r, err, "cannot tell who has '%s/%s' open",
						 ceph->osd_pool, rbd->name)
				     : COPPICE_OK;
}

int ceph_check_elsewhere(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	const char *text = rbd_meta(rbd, META_HOST), *name = strchr(rbd->name, '_');
	bool is_so = false;
	int r;

	if (!text || is_own(ceph, text))
		return COPPICE_OK;
	r = is_open(ceph, rbd, &is_so, err);
	return r < 0 || !is_so ? r
			       : fail(err, COPPICE_BUSY, "'%s' is mounted on host '%s'",
				      name ? name + 1 : rbd->name, text + strcspn(text, "\t") + 1);
}

int ceph_hold(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	const char *old = rbd_meta(rbd, META_HOST);
	_cleanup_(freep) char *own = own_text(ceph);
	bool did = false;
	int r = ceph_check_elsewhere(ceph, rbd, err);

	if (r < 0 || (old && is_own(ceph, old)))
		return r;
	if (!own)
		return fail_memory(err);
	r = header_replace(ceph, rbd->id, META_HOST, old, own, &did, err);
	return r < 0 || did ? r
			    : fail(err, COPPICE_BUSY, "another host is just mounting '%s/%s'",
				   ceph->osd_pool, rbd->name);
}

void ceph_let_go(struct ceph_pool *ceph, const char *name)
{
	_cleanup_(freep) char *own = own_text(ceph);
	struct coppice_error ignored;
	char id[RBD_ID_MAX];
	bool did;

	/* Without a connection it stays, and counts as long as somebody has the image open. */
	if (own && ceph->io && header_id(ceph, name, id, &ignored) == COPPICE_OK)
		(void)header_replace(ceph, id, META_HOST, own, NULL, &did, &ignored);
}

bool ceph_was_taken_over(const struct ceph_pool *ceph, const struct rbd *rbd)
{
	const char *text = rbd_meta(rbd, META_HOST);
	struct volume_ref ref;

	return ceph_name_parse(rbd->name, &ref) && ref.kind != VOLUME_IMAGE &&
	       !(text && is_own(ceph, text)) && ceph_is_linked(ceph, rbd->name);
}
