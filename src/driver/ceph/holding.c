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

/* "OWNER\tHOST", and what has it open for that host, as far as that was noted, "\tADDRESS" each. */
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

/* Who has this image open, "\tADDRESS" each, in @addresses; *ret: anybody. */
static int read_watchers(struct ceph_pool *ceph, const struct rbd *rbd, struct text *addresses,
			 bool *ret, struct coppice_error *err)
{
	rbd_image_watcher_t watchers[32];
	size_t n = ARRAY_SIZE(watchers);
	rbd_image_t image;
	int r = rbd_open_by_id_read_only(ceph->io, rbd->id, &image, NULL);

	if (r == 0) {
		r = rbd_watchers_list(image, watchers, &n);
		for (size_t i = 0; r == 0 && i < n; i++)
			text_add(addresses, "\t%s", watchers[i].addr);
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
	_cleanup_(text_done) struct text ignored = TEXT_INIT;
	bool is_so = false;
	int r;

	if (!text || is_own(ceph, text))
		return COPPICE_OK;
	r = read_watchers(ceph, rbd, &ignored, &is_so, err);
	text += strcspn(text, "\t");
	text += *text == '\t';
	return r < 0 || !is_so ? r
			       : fail(err, COPPICE_BUSY, "'%s' is mounted on host '%.*s'",
				      name ? name + 1 : rbd->name, (int)strcspn(text, "\t"), text);
}

/*
 * Who had it and is missed may only have been cut off, and come back with what he had not written:
 * the cluster is to take that no more. RBD does so by itself only for who has the exclusive lock.
 */
static int fence(struct ceph_pool *ceph, const struct rbd *rbd, const char *text,
		 struct coppice_error *err)
{
	const char *at = text;
	int r = 0;

	for (size_t field = 0; r == 0 && *at; field++) {
		size_t n = strcspn(at, "\t");
		_cleanup_(freep) char *address = strndup(at, n);

		if (!address)
			return fail_memory(err);
		if (field >= 2)
			r = rados_blocklist_add(ceph->cluster, address, 0);
		at += n + (at[n] == '\t');
	}
	if (r == 0)
		r = rados_wait_for_latest_osdmap(ceph->cluster);
	return r < 0 ? fail_ceph(ceph, r, err, "cannot shut out the host that had '%s/%s' mounted",
				 ceph->osd_pool, rbd->name)
		     : COPPICE_OK;
}

/*
 * Another host that died has it no more, but one that was only cut off has. This one has it, or is
 * about to, as long as there is a link; or by another name, which others gave it meanwhile.
 */
bool ceph_may_be_mapped(struct ceph_pool *ceph, const struct rbd *rbd)
{
	const char *text = rbd_meta(rbd, META_HOST);
	_cleanup_(text_done) struct text addresses = TEXT_INIT;
	struct coppice_error ignored;
	bool is_so = true;

	if (!text)
		return false;
	return !is_own(ceph, text) || ceph_is_mapped_or_begun(ceph, rbd->name) ||
	       read_watchers(ceph, rbd, &addresses, &is_so, &ignored) < 0 || is_so;
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
	/* First, so that nobody who is killed here has it without. */
	if (old)
		r = fence(ceph, rbd, old, err);
	if (r == COPPICE_OK)
		r = header_replace(ceph, rbd->id, META_HOST, old, own, &did, err);
	return r < 0 || did ? r
			    : fail(err, COPPICE_BUSY, "another host is just mounting '%s/%s'",
				   ceph->osd_pool, rbd->name);
}

/* What it has now. */
static int read_own(struct ceph_pool *ceph, const char *id, struct rbd_list *listing,
		    const char **ret, struct coppice_error *err)
{
	int r = rbd_listing_add(ceph, listing, id, err);

	*ret = r == COPPICE_OK ? rbd_meta(&listing->rbd[listing->n - 1], META_HOST) : NULL;
	if (*ret && !is_own(ceph, *ret))
		*ret = NULL;
	return r;
}

int ceph_hold_mapped(struct ceph_pool *ceph, const struct rbd *rbd, struct coppice_error *err)
{
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	_cleanup_(text_done) struct text addresses = TEXT_INIT;
	_cleanup_(freep) char *own = own_text(ceph), *new = NULL;
	bool ignored, did = false;
	const char *old;
	int r = read_watchers(ceph, rbd, &addresses, &ignored, err);

	new = own ? text_format("%s%s", own, addresses.data ? addresses.data : "") : NULL;
	if (r == COPPICE_OK && !new)
		r = fail_memory(err);
	if (r == COPPICE_OK)
		r = read_own(ceph, rbd->id, &listing, &old, err);
	if (r == COPPICE_OK && old)
		r = header_replace(ceph, rbd->id, META_HOST, old, new, &did, err);
	return r < 0 || did ? r
			    : fail(err, COPPICE_BUSY, "another host is just mounting '%s/%s'",
				   ceph->osd_pool, rbd->name);
}

void ceph_let_go(struct ceph_pool *ceph, const char *name)
{
	_cleanup_(rbd_listing_done) struct rbd_list listing = { 0 };
	struct coppice_error ignored;
	char id[RBD_ID_MAX];
	const char *old;
	bool did;

	/* Without a connection it stays, and counts as long as somebody has the image open. */
	if (ceph->io && header_id(ceph, name, id, &ignored) == COPPICE_OK &&
	    read_own(ceph, id, &listing, &old, &ignored) == COPPICE_OK && old)
		(void)header_replace(ceph, id, META_HOST, old, NULL, &did, &ignored);
}

bool ceph_was_taken_over(const struct ceph_pool *ceph, const struct rbd *rbd)
{
	const char *text = rbd_meta(rbd, META_HOST);
	struct volume_ref ref;

	return ceph_name_parse(rbd->name, &ref) && ref.kind != VOLUME_IMAGE &&
	       !(text && is_own(ceph, text)) && ceph_has_device(ceph, rbd->name);
}
