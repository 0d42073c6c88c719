/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All images of a pool, with their metadata and snapshots: RBD's list of names, then the header
 * of each, many at a time.
 */
#include "driver/ceph/ceph.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"

/* So many requests are on their way at once, and so many keys come with each. */
#define IN_FLIGHT 64
#define KEYS_MAX  1000

static void rbd_done(struct rbd *rbd)
{
	free(rbd->name);
	free(rbd->id);
	for (size_t i = 0; rbd->meta && rbd->meta[i]; i++)
		free(rbd->meta[i]);
	free(rbd->meta);
	for (size_t i = 0; i < rbd->n_snaps; i++)
		free(rbd->snap[i].name);
	free(rbd->snap);
	free(rbd->children);
}

void rbd_listing_done(struct rbd_list *listing)
{
	for (size_t i = 0; i < listing->n; i++)
		rbd_done(&listing->rbd[i]);
	free(listing->rbd);
	free(listing->asked);
	root_list_done(&listing->drafts);
	root_list_done(&listing->owed);
	*listing = (struct rbd_list){ 0 };
}

void rbd_listing_free(struct rbd_list *listing)
{
	if (listing)
		rbd_listing_done(listing);
	free(listing);
}

/* ---- a header ---- */

static uint64_t number_of(const char *bytes, size_t n)
{
	uint64_t number = 0;

	for (size_t i = n; i-- > 0;)
		number = number << 8 | (unsigned char)bytes[i];
	return number;
}

static const char *meta_find(const struct rbd *rbd, const char *key)
{
	for (size_t i = 0; rbd->meta && rbd->meta[i]; i += 2)
		if (strcmp(rbd->meta[i], key) == 0)
			return rbd->meta[i + 1];
	return NULL;
}

const char *rbd_meta(const struct rbd *rbd, const char *key)
{
	const char *id = meta_find(rbd, META_ID);

	return id && strcmp(id, rbd->id) == 0 ? meta_find(rbd, key) : NULL;
}

static int add_meta(struct rbd *rbd, const char *key, size_t key_length, const char *value,
		    size_t length)
{
	size_t n = 0;
	char **more;

	while (rbd->meta && rbd->meta[n])
		n++;
	more = reallocarray(rbd->meta, n + 3, sizeof(*more));
	if (!more)
		return -ENOMEM;
	rbd->meta = more;
	more[n] = strndup(key, key_length);
	more[n + 1] = strndup(value, length);
	more[n + 2] = NULL;
	if (more[n] && more[n + 1])
		return 0;
	free(more[n]);
	free(more[n + 1]);
	more[n] = NULL;
	return -ENOMEM;
}

/*
 * A snapshot: after a version, an older one and a length come its id, its name, the size of
 * the image then, whether it is protected, and flags that say what is wrong with its map of
 * objects.
 */
static int add_snap(struct rbd *rbd, const char *value, size_t length)
{
	struct rbd_snap *more, snap = { 0 };
	uint64_t n;

	if (length < 6 + 8 + 4)
		return -EINVAL;
	snap.id = number_of(value + 6, 8);
	n = number_of(value + 14, 4);
	if (length < 18 + n + 8)
		return -EINVAL;
	snap.size_bytes = number_of(value + 18 + n, 8);
	/* Of older versions the flags lie elsewhere. */
	if (value[0] >= 8 && length >= 18 + n + 8 + 1 + 8)
		snap.is_counted = number_of(value + 18 + n + 8 + 1, 8) == 0;
	snap.name = strndup(value + 18, n);
	more = reallocarray(rbd->snap, rbd->n_snaps + 1, sizeof(*more));
	if (!snap.name || !more) {
		free(snap.name);
		return -ENOMEM;
	}
	rbd->snap = more;
	more[rbd->n_snaps++] = snap;
	return 0;
}

/* A string at @at, after its length; the place behind it, or 0: there is none. */
static size_t skip_string(const char *value, size_t length, size_t at)
{
	size_t n = at + 4 <= length ? number_of(value + at, 4) : length;

	return at + 4 + n <= length ? at + 4 + n : 0;
}

/*
 * What it was cloned from: the pool, a namespace of it (since version 2), the image, its snapshot,
 * and how much of it is behind this one.
 */
static void take_parent(struct rbd *rbd, const char *value, size_t length)
{
	size_t at = 6 + 8, end;

	if (length < at)
		return;
	if (value[0] >= 2)
		at = skip_string(value, length, at);
	end = at ? skip_string(value, length, at) : 0;
	if (!end || end + 8 > length)
		return;
	(void)snprintf(rbd->parent.id, sizeof(rbd->parent.id), "%.*s", (int)(end - at - 4),
		       value + at + 4);
	rbd->parent.snap_id = number_of(value + end, 8);
	end += 8;
	end += value[0] >= 2; /* whether there is a number */
	if (end + 8 <= length)
		rbd->parent.overlap_bytes = number_of(value + end, 8);
}

/* "snap_children_" and a snapshot's id in hexadecimal digits: a set, after how many there are. */
static int add_children(struct rbd *rbd, const char *id, size_t id_length, const char *value,
			size_t length)
{
	struct rbd_children *more;
	char text[20];

	if (length < 4)
		return -EINVAL;
	more = reallocarray(rbd->children, rbd->n_children + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	(void)snprintf(text, sizeof(text), "%.*s", (int)id_length, id);
	rbd->children = more;
	more[rbd->n_children++] =
		(struct rbd_children){ strtoull(text, NULL, 16), number_of(value, 4) };
	return 0;
}

static bool is_key(const char *key, size_t length, const char *wanted)
{
	return length == strlen(wanted) && memcmp(key, wanted, length) == 0;
}

/* What remains of a key after @prefix; NULL: it has another. */
static const char *after(const char *key, size_t *length, const char *prefix)
{
	size_t n = strlen(prefix);

	if (*length < n || memcmp(key, prefix, n) != 0)
		return NULL;
	*length -= n;
	return key + n;
}

static int take_key(struct rbd *rbd, const char *key, size_t key_length, const char *value,
		    size_t length)
{
	const char *rest;

	if (is_key(key, key_length, "size") && length >= 8) {
		rbd->size_bytes = number_of(value, 8);
		rbd->has_header = true;
	} else if (is_key(key, key_length, "features") && length >= 8) {
		rbd->features = number_of(value, 8);
	} else if (is_key(key, key_length, "order") && length >= 1) {
		rbd->order = (unsigned char)value[0];
	} else if (is_key(key, key_length, "flags") && length >= 8) {
		rbd->flags = number_of(value, 8);
	} else if (is_key(key, key_length, "parent")) {
		take_parent(rbd, value, length);
	} else if ((rest = after(key, &key_length, "metadata_")) != NULL) {
		return add_meta(rbd, rest, key_length, value, length);
	} else if (after(key, &key_length, "snapshot_") && key_length == 16) {
		return add_snap(rbd, value, length);
	} else if ((rest = after(key, &key_length, "snap_children_")) != NULL) {
		return add_children(rbd, rest, key_length, value, length);
	}
	return 0;
}

/* ---- many headers ---- */

struct request {
	rados_read_op_t op;
	rados_completion_t completion;
	rados_omap_iter_t iter;
	unsigned char more;
	int why;
	char after[160]; /* the last key that came */
};

static int request_begin(struct ceph_pool *ceph, const struct rbd *rbd, struct request *request)
{
	char object[RBD_ID_MAX + 16];
	int r;

	(void)snprintf(object, sizeof(object), "rbd_header.%s", rbd->id);
	request->iter = NULL;
	request->op = rados_create_read_op();
	rados_read_op_omap_get_vals2(request->op, request->after, "", KEYS_MAX, &request->iter,
				     &request->more, &request->why);
	r = rados_aio_create_completion2(NULL, NULL, &request->completion);
	if (r == 0)
		r = rados_aio_read_op_operate(request->op, ceph->io, request->completion, object,
					      0);
	return r;
}

/* Wait for it, and take what came. A header that is not there is of an image half made. */
static int request_end(struct request *request, struct rbd *rbd)
{
	int r = rados_aio_wait_for_complete(request->completion);

	if (r == 0)
		r = rados_aio_get_return_value(request->completion);
	if (r == 0)
		r = request->why;
	while (r == 0) {
		char *key = NULL, *value = NULL;
		size_t key_length = 0, length = 0;

		r = rados_omap_get_next2(request->iter, &key, &value, &key_length, &length);
		if (r < 0 || !key)
			break;
		(void)snprintf(request->after, sizeof(request->after), "%.*s", (int)key_length,
			       key);
		r = take_key(rbd, key, key_length, value, length);
	}
	if (request->iter)
		rados_omap_get_end(request->iter);
	rados_aio_release(request->completion);
	rados_release_read_op(request->op);
	return r == -ENOENT ? 0 : r;
}

/* One that has more keys than came at once; the next ones follow one after another. */
static int read_rest(struct ceph_pool *ceph, struct request *request, struct rbd *rbd)
{
	int r = 0;

	while (r == 0 && request->more) {
		r = request_begin(ceph, rbd, request);
		r = r < 0 ? r : request_end(request, rbd);
	}
	return r;
}

/* Of those from @first on. */
static int read_headers(struct ceph_pool *ceph, struct rbd_list *listing, size_t first,
			struct coppice_error *err)
{
	_cleanup_(freep) struct request *request = calloc(IN_FLIGHT, sizeof(*request));
	size_t begun = first;
	int r = 0, ended;

	if (!request)
		return fail_memory(err);
	for (size_t done = first; done < listing->n; done++) {
		struct request *of_done = &request[done % IN_FLIGHT];

		for (; r == 0 && begun < listing->n && begun < done + IN_FLIGHT; begun++) {
			request[begun % IN_FLIGHT] = (struct request){ 0 };
			r = request_begin(ceph, &listing->rbd[begun], &request[begun % IN_FLIGHT]);
		}
		if (done >= begun)
			break;
		ended = request_end(of_done, &listing->rbd[done]);
		r = r < 0 ? r : ended;
		if (r == 0)
			r = read_rest(ceph, of_done, &listing->rbd[done]);
	}
	return r < 0 ? fail_ceph(ceph, r, err, "cannot read the images in '%s'", ceph->osd_pool)
		     : COPPICE_OK;
}

/* ---- names ---- */

static int add_image(struct rbd_list *listing, const char *name, size_t name_length, const char *id,
		     size_t id_length)
{
	struct rbd rbd = { 0 };

	/* Grows by doubling: n is a power of two, or zero, when the array is full. */
	if ((listing->n & (listing->n - 1)) == 0) {
		size_t capacity = listing->n ? 2 * listing->n : 16;
		struct rbd *more = reallocarray(listing->rbd, capacity, sizeof(*more));

		if (!more)
			return -ENOMEM;
		listing->rbd = more;
	}
	rbd.name = strndup(name, name_length);
	rbd.id = strndup(id, id_length);
	if (!rbd.name || !rbd.id) {
		rbd_done(&rbd);
		return -ENOMEM;
	}
	listing->rbd[listing->n++] = rbd;
	return 0;
}

static bool is_ours(const char *name)
{
	struct volume_ref ref;

	return strncmp(name, "draft_", 6) == 0 || strncmp(name, "kept_", 5) == 0 ||
	       strncmp(name, "view_", 5) == 0 || ceph_name_parse(name, &ref);
}

#define NAME "name_"

/* A key of RBD's list: name_NAME, with the id after its length. */
static int take_name(void *user, const char *key, const char *value, size_t length)
{
	const char *name = key + strlen(NAME);

	return length < 4 || !is_ours(name)
		       ? 0
		       : add_image(user, name, strlen(name), value + 4, length - 4);
}

static int read_all_names(struct ceph_pool *ceph, struct rbd_list *listing, const char *prefix,
			  struct coppice_error *err)
{
	int r = omap_each(ceph, "rbd_directory", prefix, take_name, listing);

	return r < 0 && r != -ENOENT
		       ? fail_ceph(ceph, r, err, "cannot list the images in '%s'", ceph->osd_pool)
		       : COPPICE_OK;
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Those of @names, each once. */
static int read_names(struct ceph_pool *ceph, struct rbd_list *listing, char (*names)[RBD_NAME_MAX],
		      size_t n, struct coppice_error *err)
{
	char(*text)[RBD_NAME_MAX + 8] = calloc(n + 1, sizeof(*text));
	_cleanup_(freep) const char **keys = calloc(n + 1, sizeof(*keys));
	size_t kept = 0;
	int r;

	if (!text || !keys) {
		free(text);
		return fail_memory(err);
	}
	for (size_t i = 0; i < n; i++) {
		(void)snprintf(text[i], sizeof(text[i]), NAME "%s", names[i]);
		keys[i] = text[i];
	}
	qsort(keys, n, sizeof(*keys), compare_keys);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || strcmp(keys[i], keys[kept - 1]) != 0)
			keys[kept++] = keys[i];
	r = omap_each_of(ceph, "rbd_directory", keys, kept, take_name, listing);
	free(text);
	return r < 0 && r != -ENOENT
		       ? fail_ceph(ceph, r, err, "cannot look for images in '%s'", ceph->osd_pool)
		       : COPPICE_OK;
}

/* ---- the trash's names ---- */

/* As RBD numbers who put something there: who removes it, and nobody sees it. */
#define REMOVING 3

struct trash {
	struct rbd_list *listing;
	bool only_half_removed;
};

/* id_ID: after two versions and a length come who put it there, the name after its length, … */
static int take_trashed(void *user, const char *key, const char *value, size_t length)
{
	const struct trash *trash = user;
	const char *id = key + strlen("id_");
	char name[RBD_NAME_MAX];
	bool is_half_removed;
	size_t n;
	int r;

	if (length < 11)
		return 0;
	n = number_of(value + 7, 4);
	is_half_removed = value[6] == REMOVING;
	if (n >= sizeof(name) || 11 + n > length || (trash->only_half_removed && !is_half_removed))
		return 0;
	(void)snprintf(name, sizeof(name), "%.*s", (int)n, value + 11);
	if (!is_ours(name))
		return 0;
	r = add_image(trash->listing, name, n, id, strlen(id));
	if (r == 0)
		trash->listing->rbd[trash->listing->n - 1].is_half_removed = is_half_removed;
	return r;
}

/* librbd does not give out what it was just removing, when somebody was killed. */
static int read_trash(struct ceph_pool *ceph, struct rbd_list *listing, bool only_half_removed,
		      struct coppice_error *err)
{
	int r = omap_each(ceph, RBD_TRASH, "id_", take_trashed,
			  &(struct trash){ listing, only_half_removed });

	return r < 0 && r != -ENOENT
		       ? fail_ceph(ceph, r, err, "cannot read the trash of '%s'", ceph->osd_pool)
		       : COPPICE_OK;
}

/* ---- what it all means ---- */

static void uuid_get(const struct rbd *rbd, const char *key, struct uuid *ret)
{
	const char *text = rbd_meta(rbd, key);

	if (!text || !uuid_parse(text, ret))
		ret->text[0] = '\0';
}

static const char *snap_meta(const struct rbd *rbd, const char *prefix, const char *snapshot)
{
	char key[RBD_NAME_MAX + 32];

	(void)snprintf(key, sizeof(key), "%s%s", prefix, snapshot);
	return rbd_meta(rbd, key);
}

static void understand_snap(const struct root_list *drafts, const struct rbd *rbd,
			    struct rbd_snap *snap)
{
	const char *draft;

	for (size_t i = 0; i < rbd->n_children; i++)
		if (rbd->children[i].snap_id == snap->id)
			snap->n_children = rbd->children[i].n;
	if (strncmp(snap->name, "snapshot_", 9) != 0)
		return;
	snap->snapshot = snap->name + 9;
	snap->record = snap_meta(rbd, META_SNAPSHOT, snap->snapshot);
	snap->is_removed = snap_meta(rbd, META_REMOVED, snap->snapshot) != NULL;
	draft = snap_meta(rbd, META_PENDING, snap->snapshot);
	snap->is_pending = draft && root_list_has(drafts, draft);
}

/*
 * The mark stays with what somebody takes out of the trash again, by hand: then it is a volume as
 * it was. It counts as long as there is the debt of who made it.
 */
static bool is_retired(const struct root_list *owed, const struct rbd *rbd)
{
	const char *by = rbd_meta(rbd, META_DELETED);

	return by && root_list_has(owed, by);
}

static void understand(const struct root_list *drafts, const struct root_list *owed,
		       struct rbd *rbd)
{
	rbd->record = rbd_meta(rbd, META_RECORD);
	uuid_get(rbd, META_UUID, &rbd->uuid);
	uuid_get(rbd, META_GROUP, &rbd->group);
	uuid_get(rbd, META_DRAFT, &rbd->draft);
	rbd->is_retired = is_retired(owed, rbd);
	rbd->is_in_trash |= rbd->is_half_removed;
	rbd->is_pending = rbd->draft.text[0] && root_list_has(drafts, rbd->draft.text);
	for (size_t i = 0; i < rbd->n_snaps; i++)
		understand_snap(drafts, rbd, &rbd->snap[i]);
}

/* Is it what a draft may be making under this name just now? */
static bool is_being_made(const struct root_list *drafts, const char *name)
{
	for (size_t i = 0; i < drafts->n; i++)
		if (ceph_has_line(drafts->entry[i].text, name, NULL))
			return true;
	return false;
}

static bool is_kept(const struct rbd *rbd)
{
	return strncmp(rbd->name, "kept_", 5) == 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct rbd *)a)->name, ((const struct rbd *)b)->name);
}

static void find_volumes(struct rbd_list *listing)
{
	for (size_t i = 0; i < listing->n; i++) {
		if (!is_kept(&listing->rbd[i]) || listing->rbd[i].is_half_removed)
			continue;
		for (size_t k = 0; k < listing->n; k++)
			if (!is_kept(&listing->rbd[k]) && listing->rbd[k].uuid.text[0] &&
			    strcmp(listing->rbd[k].uuid.text, listing->rbd[i].group.text) == 0 &&
			    !rbd_is_hidden(&listing->rbd[k]) && !listing->rbd[i].is_pending)
				listing->rbd[i].volume = &listing->rbd[k];
	}
}

static void understand_all(struct rbd_list *listing)
{
	if (listing->n > 0)
		qsort(listing->rbd, listing->n, sizeof(*listing->rbd), compare_names);
	for (size_t i = 0; i < listing->n; i++) {
		struct rbd *rbd = &listing->rbd[i];

		understand(&listing->drafts, &listing->owed, rbd);
		rbd->is_pending |= !rbd->uuid.text[0] && is_being_made(&listing->drafts, rbd->name);
	}
	find_volumes(listing);
}

static int finish(struct rbd_list *listing, int r, struct rbd_list *ret)
{
	if (r < 0) {
		rbd_listing_done(listing);
		return r;
	}
	understand_all(listing);
	*ret = *listing;
	return COPPICE_OK;
}

/* What is published while this is read is seen with the next reading. */
static int read_all(struct ceph_pool *ceph, bool with_rest, struct rbd_list *ret,
		    struct coppice_error *err)
{
	struct rbd_list listing = { 0 };
	int r = root_list_read(ceph, ROOT_DRAFT, &listing.drafts, err);

	if (r == COPPICE_OK)
		r = root_list_read(ceph, ROOT_OWED, &listing.owed, err);
	if (r == COPPICE_OK)
		r = read_all_names(ceph, &listing, NAME, err);
	if (r == COPPICE_OK && with_rest)
		r = read_trash(ceph, &listing, true, err);
	if (r == COPPICE_OK)
		r = read_headers(ceph, &listing, 0, err);
	return finish(&listing, r, ret);
}

int rbd_listing_read(struct ceph_pool *ceph, struct rbd_list *ret, struct coppice_error *err)
{
	return read_all(ceph, false, ret, err);
}

int rbd_listing_read_rest(struct ceph_pool *ceph, struct rbd_list *ret, struct coppice_error *err)
{
	return read_all(ceph, true, ret, err);
}

/* What keeps snapshots of a volume has its uuid in the name. */
static int read_kept(struct ceph_pool *ceph, struct rbd_list *listing, size_t n_volumes,
		     struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < n_volumes && r == COPPICE_OK; i++) {
		const char *uuid = rbd_meta(&listing->rbd[i], META_UUID);
		_cleanup_(freep) char *prefix = uuid ? text_format(NAME "kept_%s.", uuid) : NULL;

		if (prefix && strncmp(listing->rbd[i].name, "image_", 6) != 0)
			r = read_all_names(ceph, listing, prefix, err);
	}
	return r < 0 ? r : read_headers(ceph, listing, n_volumes, err);
}

/* Images by their names, and what keeps snapshots of those that are volumes. */
static int read_some(struct ceph_pool *ceph, struct rbd_list *listing, char (*names)[RBD_NAME_MAX],
		     size_t n, struct coppice_error *err)
{
	int r = root_list_read(ceph, ROOT_DRAFT, &listing->drafts, err);

	if (r == COPPICE_OK)
		r = root_list_read(ceph, ROOT_OWED, &listing->owed, err);
	if (r == COPPICE_OK && n > 0)
		r = read_names(ceph, listing, names, n, err);
	if (r == COPPICE_OK)
		r = read_headers(ceph, listing, 0, err);
	return r < 0 ? r : read_kept(ceph, listing, listing->n, err);
}

int rbd_listing_read_of(struct ceph_pool *ceph, const struct volume_ref *refs, size_t n,
			struct rbd_list *ret, struct coppice_error *err)
{
	char(*names)[RBD_NAME_MAX] = calloc(n + 1, sizeof(*names));
	struct rbd_list listing = { .asked = calloc(n + 1, sizeof(*refs)), .n_asked = n };
	int r = names && listing.asked ? COPPICE_OK : fail_memory(err);

	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		listing.asked[i] = refs[i];
		ceph_name(&refs[i], names[i]);
	}
	if (r == COPPICE_OK)
		r = read_some(ceph, &listing, names, n, err);
	free(names);
	return finish(&listing, r, ret);
}

int rbd_listing_read_making(const struct draft *draft, const struct new_volume *volumes, size_t n,
			    struct rbd_list *ret, struct coppice_error *err)
{
	char(*names)[RBD_NAME_MAX] = calloc(2 * n + 1, sizeof(*names));
	struct rbd_list listing = { 0 };
	int r = names ? COPPICE_OK : fail_memory(err);

	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		ceph_name(&volumes[i].ref, names[2 * i]);
		ceph_item_name(draft, &volumes[i], names[2 * i + 1]);
	}
	if (r == COPPICE_OK)
		r = read_some(ceph_pool_of(draft->pool), &listing, names, 2 * n, err);
	free(names);
	return finish(&listing, r, ret);
}

/* Does a reading answer what is asked of this volume? */
static bool does_answer(const struct rbd_list *reading, const struct volume_ref *ref)
{
	for (size_t i = 0; i < reading->n_asked; i++)
		if (reading->asked[i].kind == ref->kind &&
		    strcmp(reading->asked[i].name.text, ref->name.text) == 0)
			return true;
	return !reading->asked;
}

int ceph_look_at(struct ceph_pool *ceph, const struct volume_ref *refs, size_t n,
		 struct rbd_list *own, const struct rbd_list **ret, struct coppice_error *err)
{
	bool is_answered = ceph->reading != NULL;

	for (size_t i = 0; i < n && is_answered; i++)
		is_answered = does_answer(ceph->reading, &refs[i]);
	*ret = is_answered ? ceph->reading : own;
	return is_answered ? COPPICE_OK : rbd_listing_read_of(ceph, refs, n, own, err);
}

int ceph_look(struct ceph_pool *ceph, struct rbd_list *own, const struct rbd_list **ret,
	      struct coppice_error *err)
{
	bool is_answered = ceph->reading && !ceph->reading->asked;

	*ret = is_answered ? ceph->reading : own;
	return is_answered ? COPPICE_OK : rbd_listing_read(ceph, own, err);
}

/* ---- the trash ---- */

int rbd_trash_read(struct ceph_pool *ceph, struct rbd_list *ret, struct coppice_error *err)
{
	struct rbd_list all = { 0 };
	size_t n = 0;
	int r = read_trash(ceph, &all, false, err);

	if (r == COPPICE_OK)
		r = read_headers(ceph, &all, 0, err);
	if (r == COPPICE_OK)
		r = root_list_read(ceph, ROOT_OWED, &all.owed, err);
	if (r < 0) {
		rbd_listing_done(&all);
		return r;
	}
	/* What somebody else put there is his; of what has no header a removal was cut short. */
	for (size_t i = 0; i < all.n; i++) {
		struct rbd *rbd = &all.rbd[i];

		rbd->is_in_trash = true;
		understand(&all.drafts, &all.owed, rbd);
		if (rbd_meta(rbd, META_DELETED) || (!rbd->has_header && !rbd->is_half_removed))
			all.rbd[n++] = *rbd;
		else
			rbd_done(rbd);
	}
	all.n = n;
	*ret = all;
	return COPPICE_OK;
}

int rbd_listing_add(struct ceph_pool *ceph, struct rbd_list *listing, const char *id,
		    struct coppice_error *err)
{
	if (add_image(listing, "", 0, id, strlen(id)) < 0)
		return fail_memory(err);
	return read_headers(ceph, listing, listing->n - 1, err);
}

/* ---- finding ---- */

struct rbd *rbd_find(const struct rbd_list *listing, const char *name)
{
	struct rbd key = { .name = (char *)(uintptr_t)name };

	return listing->n ? bsearch(&key, listing->rbd, listing->n, sizeof(key), compare_names)
			  : NULL;
}

uint64_t rbd_children_of(const struct rbd *rbd)
{
	uint64_t n = 0;

	for (size_t i = 0; i < rbd->n_snaps; i++)
		n += rbd->snap[i].n_children;
	return n;
}

bool rbd_is_hidden(const struct rbd *rbd)
{
	struct volume_ref ref;

	return rbd->is_pending || rbd->is_in_trash || rbd->is_retired ||
	       !ceph_name_parse(rbd->name, &ref);
}

bool rbd_ref(const struct rbd *rbd, struct volume_ref *ret)
{
	return !rbd_is_hidden(rbd) && ceph_name_parse(rbd->name, ret);
}

static bool is_seen(const struct rbd_snap *snap)
{
	return snap->snapshot && snap->record && !snap->is_pending && !snap->is_removed;
}

int rbd_snaps_each(const struct rbd_list *listing, const struct rbd *volume, rbd_snap_fn *fn,
		   void *user, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < listing->n && r >= 0; i++) {
		struct rbd *rbd = &listing->rbd[i];

		if (rbd != volume && rbd->volume != volume)
			continue;
		for (size_t k = 0; k < rbd->n_snaps && r >= 0; k++)
			if (is_seen(&rbd->snap[k]))
				r = fn(user, rbd, &rbd->snap[k], err);
	}
	return r;
}

struct finding {
	const char *snapshot;
	struct rbd *rbd;
	struct rbd_snap *snap;
};

static int find_snap(void *user, struct rbd *rbd, struct rbd_snap *snap, struct coppice_error *err)
{
	struct finding *finding = user;

	if (strcmp(snap->snapshot, finding->snapshot) == 0) {
		finding->rbd = rbd;
		finding->snap = snap;
	}
	return COPPICE_OK;
}

struct rbd *rbd_find_ref(const struct rbd_list *listing, const struct volume_ref *ref,
			 struct rbd_snap **ret_snap)
{
	struct finding finding = { .snapshot = ref->snapshot.text };
	struct coppice_error ignored;
	char name[RBD_NAME_MAX];
	struct rbd *rbd;

	ceph_name(ref, name);
	rbd = rbd_find(listing, name);
	if (ret_snap)
		*ret_snap = NULL;
	if (!rbd || rbd_is_hidden(rbd) || !volume_is_snapshot(ref))
		return rbd && !rbd_is_hidden(rbd) ? rbd : NULL;
	(void)rbd_snaps_each(listing, rbd, find_snap, &finding, &ignored);
	if (ret_snap)
		*ret_snap = finding.snap;
	return finding.rbd;
}

struct adding {
	struct volume_ref ref;
	uint64_t sum;
};

static int add_snap_part(void *user, struct rbd *rbd, struct rbd_snap *snap,
			 struct coppice_error *err)
{
	struct adding *adding = user;

	(void)snprintf(adding->ref.snapshot.text, sizeof(adding->ref.snapshot.text), "%s",
		       snap->snapshot);
	adding->sum += ceph_hash(&adding->ref, snap->record);
	return COPPICE_OK;
}

uint64_t rbd_part(const struct rbd_list *listing, const struct volume_ref *ref)
{
	struct adding adding = { .ref = *ref };
	struct coppice_error ignored;
	const struct rbd *rbd;

	adding.ref.snapshot.text[0] = '\0';
	rbd = rbd_find_ref(listing, &adding.ref, NULL);
	if (!rbd)
		return 0;
	adding.sum = ceph_hash(&adding.ref, rbd->record ? rbd->record : "-");
	(void)rbd_snaps_each(listing, rbd, add_snap_part, &adding, &ignored);
	return adding.sum % STAMP_MODULUS;
}

int ceph_fail_missing(const struct volume_ref *ref, struct coppice_error *err)
{
	char name[VOLUME_REF_TEXT_MAX];

	return fail(err, COPPICE_NOT_FOUND, "no %s '%s'",
		    volume_is_snapshot(ref) ? "snapshot" : volume_kind_name(ref->kind),
		    volume_ref_format(ref, name));
}

int ceph_fail_exists(const struct volume_ref *ref, struct coppice_error *err)
{
	char name[VOLUME_REF_TEXT_MAX];

	return fail(err, COPPICE_EXISTS, "'%s' exists already", volume_ref_format(ref, name));
}

int ceph_find(struct ceph_pool *ceph, const struct volume_ref *ref, struct rbd_list *listing,
	      struct rbd **ret, struct rbd_snap **ret_snap, struct coppice_error *err)
{
	int r = rbd_listing_read_of(ceph, ref, 1, listing, err);

	if (r < 0)
		return r;
	*ret = rbd_find_ref(listing, ref, ret_snap);
	return *ret ? COPPICE_OK : ceph_fail_missing(ref, err);
}
