/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes come into being: created and filled, or cloned, many by one lvm. */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/text.h"
#include "driver/generic/device_mount.h"
#include "driver/generic/fill.h"
#include "driver/generic/limit.h"
#include "driver/generic/record_config.h"

void lvm_item_name(const struct new_volume *volume, char ret[static LV_NAME_MAX])
{
	(void)snprintf(ret, LV_NAME_MAX, "draft_%s", volume->uuid.text);
}

char *lvm_item_path(const struct draft *draft, const struct new_volume *volume)
{
	char name[LV_NAME_MAX], device[PATH_MAX];

	if (volume_is_block(&volume->ref)) {
		lvm_item_name(volume, name);
		lvm_device(lvm_pool_of(draft->pool), name, device);
		return strdup(device);
	}
	return text_format("%s/drafts/%s/%s%s%s", lvm_pool_of(draft->pool)->mount, draft->id.text,
			   volume->item ? volume->item : volume->ref.name.text,
			   volume_is_snapshot(&volume->ref) ? "@" : "", volume->ref.snapshot.text);
}

/*
 * All tags of a new one, as options. One that is nested in a volume of its draft is seen with
 * that, and needs no mark of its own; any other is until it is published.
 */
static char *tags_of(const struct draft *draft, const struct new_volume *volume, bool is_announced,
		     bool is_marked, struct coppice_error *err)
{
	_cleanup_(freep) char *record = tags_of_record(volume->record, " --addtag=", err);
	_cleanup_(text_done) struct text text = TEXT_INIT;
	char *tags;

	if (!record)
		return NULL;
	text_add(&text, " --addtag=" TAG_UUID "=%s --addtag=" TAG_GROUP "=%s", volume->uuid.text,
		 volume->group.text);
	if (volume_is_snapshot(&volume->ref))
		text_add(&text, " --addtag=" TAG_SNAPSHOT "=%s", volume->ref.snapshot.text);
	if (is_announced)
		text_add(&text, " --addtag=" TAG_ANNOUNCED "=%s", draft->id.text);
	else if (is_marked)
		text_add(&text, " --addtag=" TAG_DRAFT "=%s", draft->id.text);
	if (volume->limit_bytes)
		text_add(&text, " --addtag=" TAG_SIZE "=%llu",
			 (unsigned long long)volume->limit_bytes);
	text_add(&text, "%s", record);
	tags = text_take(&text);
	if (!tags)
		(void)fail_memory(err);
	return tags;
}

/* Is there a volume that users see, and that a snapshot of this group is of? */
static bool is_group_seen(const struct lvm_pool *lvm, const struct lv_list *listing,
			  const struct uuid *group)
{
	for (size_t i = 0; i < listing->n; i++)
		if (!listing->lv[i].snapshot[0] && !lv_is_hidden(lvm, &listing->lv[i]) &&
		    strcmp(listing->lv[i].uuid.text, group->text) == 0)
			return true;
	return false;
}

static void note_item(struct draft *draft, const struct new_volume *volume)
{
	lvm_making_of(draft)->has_items = true;
	lvm_making_of(draft)->has_nested |= volume->is_nested;
}

/* ---- creating ---- */

static const char *option_text(const struct new_volume *volume)
{
	return volume->item ? volume->item : volume->ref.name.text;
}

static void create_explain(struct draft *draft, const struct new_volume *volume,
			   const char *file_system, uint64_t bytes)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);

	lvm_explain(draft->pool,
		    "lvcreate --type thin -V %llub --thinpool %s/%s -n draft_%s -ky -K "
		    "--addtag \"" TAG_DRAFT "=$draft\"",
		    whole_sectors(bytes), lvm->vg, lvm->thin, option_text(volume));
	if (volume_is_block(&volume->ref))
		return;
	lvm_explain(draft->pool,
		    "%s /dev/%s/draft_%s && mount /dev/%s/draft_%s %s/drafts/$draft/%s",
		    file_system_maker(file_system), lvm->vg, option_text(volume), lvm->vg,
		    option_text(volume), lvm->mount, option_text(volume));
}

/* It may be to grow when it is mounted next; and without a size of its own, it may be any. */
static uint64_t bytes_to_be(const struct lvm_pool *lvm, const struct lv *lv)
{
	char text[32];
	uint64_t least = lvm->size_bytes;

	if (tag_get(lv->tags, TAG_SIZE, text, sizeof(text)))
		least = strtoull(text, NULL, 10);
	return least > lv->size_bytes ? least : lv->size_bytes;
}

/*
 * What is nested, or is to take another's place, has the size of that, which is not less than
 * what it ever held.
 */
static uint64_t bytes_of(const struct lvm_pool *lvm, const struct lv_list *listing,
			 const struct new_volume *volume)
{
	bool has_own = strcmp(volume->uuid.text, volume->group.text) == 0;

	for (size_t i = 0; i < listing->n && !has_own; i++)
		if (!listing->lv[i].snapshot[0] &&
		    strcmp(listing->lv[i].uuid.text, volume->group.text) == 0)
			return bytes_to_be(lvm, &listing->lv[i]);
	return volume->limit_bytes ? volume->limit_bytes : lvm->size_bytes;
}

/* Make the file system of a new one, and mount it at @path. */
static int make_file_system(struct lvm_pool *lvm, const struct new_volume *volume,
			    const char *file_system, const char *path, struct coppice_error *err)
{
	_cleanup_(freep) char *own = record_config(volume->record, "block.mount_options");
	char name[LV_NAME_MAX], device[PATH_MAX];
	int r;

	lvm_item_name(volume, name);
	lvm_device(lvm, name, device);
	r = file_system_make(file_system, device, err);
	if (r == COPPICE_OK)
		r = folders_ensure(lvm->mount, path, err);
	if (r == COPPICE_OK)
		r = file_system_mount(device, own ? own : lvm->mount_options, false, path, err);
	if (r == COPPICE_OK)
		file_system_clear(path);
	return r;
}

int lvm_volume_create(struct draft *draft, const struct new_volume *volume, char **ret_path,
		      struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	_cleanup_(freep) char *path = lvm_item_path(draft, volume), *tags = NULL;
	_cleanup_(freep) char *own = record_config(volume->record, "block.filesystem");
	const char *file_system = own ? own : lvm->file_system;
	char name[LV_NAME_MAX];
	int r;

	if (!path)
		return fail_memory(err);
	create_explain(draft, volume, file_system, bytes_of(lvm, &listing, volume));
	if (draft->pool->is_dry_run) {
		*ret_path = take_ptr(&path);
		return COPPICE_OK;
	}
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lv_list_read(&session, &listing, err);
	if (r < 0)
		return r;
	tags = tags_of(draft, volume, false,
		       !volume->is_nested || is_group_seen(lvm, &listing, &volume->group), err);
	if (!tags)
		return err->code;
	note_item(draft, volume);
	lvm_item_name(volume, name);
	r = session_do(&session, NULL, err,
		       "lvcreate -q -y --type thin -V %llub --thinpool %s/%s -n %s -ky -K%s",
		       whole_sectors(bytes_of(lvm, &listing, volume)), lvm->vg, lvm->thin, name,
		       tags);
	if (r == COPPICE_OK && !volume_is_block(&volume->ref))
		r = make_file_system(lvm, volume, file_system, path, err);
	if (r == COPPICE_OK)
		*ret_path = take_ptr(&path);
	return r;
}

static int device_size(const char *path, off_t *ret, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

	*ret = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	return *ret < 0 ? fail_errno(err, errno, "cannot look at '%s'", path) : COPPICE_OK;
}

/* A group rounds sizes up, each to its own; and somebody may have extended the source himself. */
static int grow_to(struct draft *draft, const struct new_volume *volume, const char *path,
		   const char *from, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	char name[LV_NAME_MAX];
	off_t has, wanted;
	int r = device_size(path, &has, err);

	if (r == COPPICE_OK)
		r = device_size(from, &wanted, err);
	if (r < 0 || has >= wanted)
		return r;
	lvm_item_name(volume, name);
	return lvm_do(lvm, NULL, err, "lvextend -L %llub %s/%s", whole_sectors((uint64_t)wanted),
		      lvm->vg, name);
}

int lvm_volume_fill(struct draft *draft, const struct new_volume *volume, const char *path,
		    const char *from, struct coppice_error *err)
{
	int r;

	if (!volume_is_block(&volume->ref))
		return fill_by_copying(draft, volume, path, from, err);
	lvm_explain(draft->pool, "dd if=%s of=/dev/%s/draft_%s bs=1M conv=sparse,fsync", from,
		    lvm_pool_of(draft->pool)->vg, option_text(volume));
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	r = grow_to(draft, volume, path, from, err);
	return r < 0 ? r : fill_block(draft->pool, path, from, true, err);
}

/* Unmounting writes out all of its data, and waits for the disk. */
int lvm_volume_seal(struct draft *draft, const struct new_volume *volume, bool is_read_only,
		    struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	char name[LV_NAME_MAX];
	struct lv *lv;
	int r;

	if (!volume_is_block(&volume->ref))
		lvm_explain(draft->pool, "umount %s/drafts/$draft/%s", lvm->mount,
			    option_text(volume));
	lvm_explain(draft->pool, "lvchange -an %s/draft_%s", lvm->vg, option_text(volume));
	if (is_read_only)
		lvm_explain(draft->pool, "lvchange -pr %s/draft_%s", lvm->vg, option_text(volume));
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	lvm_item_name(volume, name);
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lv_list_read(&session, &listing, err);
	lv = r == COPPICE_OK ? lv_list_find(&listing, name) : NULL;
	if (r == COPPICE_OK && !lv)
		r = fail(err, COPPICE_FAILED, "'%s' is not in the draft", volume->ref.name.text);
	if (r == COPPICE_OK)
		r = lvm_umount(&session, name, err);
	if (r == COPPICE_OK && (!lv->record || strcmp(lv->record, volume->record) != 0))
		r = lvm_tags_record(&session, lv, volume->record, err);
	if (r == COPPICE_OK && (is_read_only || volume_is_snapshot(&volume->ref)))
		r = session_do(&session, NULL, err, "lvchange -q -pr %s/%s", lvm->vg, name);
	return r;
}

/* ---- cloning ---- */

struct batch {
	struct draft *draft;
	struct session *session;
	const struct lv_list *listing; /* if that was needed */
	uint64_t origin_bytes;
	char from[LV_NAME_MAX]; /* what is cloned */
	bool is_read_only;
};

/* LVM takes a pool whose transaction id is another for a full one. */
static int explain_refusal(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	struct coppice_error ignored;
	struct pool_status status;
	json_t *report, *rows;
	const char *text;
	int r = err->code;

	if (lvm_pool_status(lvm, &status, &ignored) < 0 ||
	    session_do(session, &report, &ignored, "lvs -o transaction_id %s/%s", lvm->vg,
		       lvm->thin) < 0)
		return r;
	rows = json_object_get(json_array_get(json_object_get(report, "report"), 0), "lv");
	text = json_string_value(json_object_get(json_array_get(rows, 0), "transaction_id"));
	if (text && strtoull(text, NULL, 10) != status.transaction_id)
		r = fail(err, COPPICE_UNAVAILABLE,
			 "the thin pool '%s/%s' has the transaction id %llu, where LVM expects %s: "
			 "somebody restored one of the two from a backup; see lvmthin(7)",
			 lvm->vg, lvm->thin, (unsigned long long)status.transaction_id, text);
	json_decref(report);
	return r;
}

static int clone_as(const struct batch *batch, const struct new_volume *volume, const char *name,
		    bool is_announced, struct coppice_error *err)
{
	struct lvm_pool *lvm = batch->session->lvm;
	bool is_marked = !volume->is_nested || is_group_seen(lvm, batch->listing, &volume->group);
	_cleanup_(freep) char *tags = tags_of(batch->draft, volume, is_announced, is_marked, err);

	return tags ? session_do(batch->session, NULL, err,
				 "lvcreate -q -y --type thin -ky%s -n %s%s %s/%s",
				 volume_is_snapshot(&volume->ref) ? " -pr" : "", name, tags,
				 lvm->vg, batch->from)
		    : err->code;
}

static int clone_one(const struct batch *batch, const struct new_volume *volume,
		     struct coppice_error *err)
{
	struct draft *draft = batch->draft;
	struct lvm_pool *lvm = batch->session->lvm;
	bool is_announced = draft->is_announced && !volume->is_nested;
	char name[LV_NAME_MAX];
	int r;

	if (pool_is_interrupted(&lvm->pool))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	r = lvm_name(lvm, &volume->ref, name, err);
	if (r == COPPICE_OK && is_announced) {
		lvm_making_of(draft)->n_announced++;
		r = clone_as(batch, volume, name, true, err);
		if (r != COPPICE_EXISTS)
			return r;
		lvm_making_of(draft)->n_announced--;
	}
	if (r < 0 && r != COPPICE_EXISTS)
		return r;
	note_item(draft, volume);
	lvm_item_name(volume, name);
	return clone_as(batch, volume, name, false, err);
}

/* Clones of what is being written to are of one instant: of a snapshot that is made first. */
static int freeze(struct batch *batch, struct coppice_error *err)
{
	struct lvm_pool *lvm = batch->session->lvm;
	char frozen[LV_NAME_MAX];
	struct uuid id;
	int r = uuid_new(&id, err);

	if (r < 0)
		return r;
	lvm_making_of(batch->draft)->has_items = true;
	(void)snprintf(frozen, sizeof(frozen), "draft_%s", id.text);
	r = session_do(batch->session, NULL, err,
		       "lvcreate -q -y --type thin -ky -pr -n %s --addtag=" TAG_DRAFT "=%s %s/%s",
		       frozen, batch->draft->id.text, lvm->vg, batch->from);
	(void)snprintf(batch->from, sizeof(batch->from), "%s", frozen);
	return r;
}

/* What is told of a volume by its name alone, it need not be looked for. */
static int find_origin(struct batch *batch, const struct volume_ref *origin, bool is_to_look,
		       struct lv_list *listing, struct coppice_error *err)
{
	struct lv *lv;
	int r;

	if (!is_to_look)
		return lvm_name(batch->session->lvm, origin, batch->from, err);
	r = lvm_find(batch->session, origin, listing, &lv, err);
	if (r < 0)
		return r;
	batch->origin_bytes = lv_bytes_asked(lv);
	(void)snprintf(batch->from, sizeof(batch->from), "%s", lv->name);
	return COPPICE_OK;
}

/* What would be refused, of an origin that is there already. */
static int clone_dry(struct lvm_pool *lvm, const struct volume_ref *origin,
		     const struct new_volume *volumes, size_t n, struct coppice_error *err)
{
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	const struct lv *lv;
	bool is_limited = false;
	int r;

	for (size_t i = 0; i < n; i++)
		is_limited |= volumes[i].limit_bytes != 0;
	if (!is_limited)
		return COPPICE_OK;
	r = lvm_list_read(lvm, &listing, err);
	lv = r == COPPICE_OK ? lv_list_find_ref(lvm, &listing, origin) : NULL;
	return lv ? limits_check_clones(lv_bytes_asked(lv), volumes, n, err) : r;
}

static void clone_explain(struct draft *draft, const struct volume_ref *origin,
			  const struct new_volume *volumes, size_t n)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	struct coppice_error ignored;
	char from[LV_NAME_MAX];

	if (lvm_name(lvm, origin, from, &ignored) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		char name[LV_NAME_MAX];

		if (lvm_name(lvm, &volumes[i].ref, name, &ignored) < 0)
			continue;
		lvm_explain(draft->pool,
			    "lvcreate --type thin -ky%s -n %s --addtag \"%s=$draft\" %s/%s",
			    volume_is_snapshot(&volumes[i].ref) ? " -pr" : "",
			    draft->is_announced ? name : "draft_$(uuidgen)",
			    draft->is_announced ? TAG_ANNOUNCED : TAG_DRAFT, lvm->vg, from);
	}
}

int lvm_clone(struct draft *draft, const struct volume_ref *origin,
	      const struct new_volume *volumes, size_t n, bool is_read_only,
	      struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	struct batch batch = { .draft = draft,
			       .session = &session,
			       .listing = &listing,
			       .is_read_only = is_read_only };
	bool is_live = origin->kind != VOLUME_IMAGE && !volume_is_snapshot(origin);
	bool is_to_look = volume_is_snapshot(origin);
	char where[PATH_MAX];
	int r;

	clone_explain(draft, origin, volumes, n);
	if (draft->pool->is_dry_run)
		return clone_dry(lvm, origin, volumes, n, err);
	if (n == 0)
		return COPPICE_OK;
	for (size_t i = 0; i < n; i++)
		is_to_look |= volumes[i].is_nested || volumes[i].limit_bytes;
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = find_origin(&batch, origin, is_to_look, &listing, err);
	if (r == COPPICE_OK)
		r = limits_check_clones(batch.origin_bytes, volumes, n, err);
	if (r == COPPICE_OK && is_live && lvm_mount_find(lvm, batch.from, where))
		r = file_system_settle(where, err);
	if (r == COPPICE_OK && is_live && n > 1)
		r = freeze(&batch, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		r = clone_one(&batch, &volumes[i], err);
		if (r == COPPICE_NO_SPACE)
			r = explain_refusal(&session, err);
		if (r < 0)
			r = wrap(err, "cannot clone as '%s'", option_text(&volumes[i]));
	}
	if (r == COPPICE_NOT_FOUND)
		return lvm_fail_missing(origin, err);
	if (r == COPPICE_OK && is_live && n > 1) {
		const char *frozen = batch.from;

		r = lvm_remove(&session, &frozen, 1, err);
	}
	return r;
}

/* ---- publishing ---- */

static int fail_exists(const struct volume_ref *ref, struct coppice_error *err)
{
	char name[VOLUME_REF_TEXT_MAX];

	return fail(err, COPPICE_EXISTS, "'%s' exists already", volume_ref_format(ref, name));
}

/* Who takes a name that only what a dead maker announced has? That one goes into its draft. */
static int displace(struct session *session, const char *name, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(closep) int fd = -1;
	struct lv *lv;
	int r = lv_list_read(session, &listing, err);

	if (r < 0)
		return r;
	lv = lv_list_find(&listing, name);
	if (!lv || !lv->announced.text[0] ||
	    !state_lock_is_there(&lvm->files, lv->announced.text) ||
	    !state_lock_is_over(&lvm->files, lv->announced.text, &fd))
		return COPPICE_EXISTS;
	return session_do(session, NULL, err, "lvremove -q -y -f %s/%s", lvm->vg, name);
}

static int check_snapshot(const struct lvm_pool *lvm, const struct lv_list *listing,
			  const struct volume_ref *ref, struct coppice_error *err)
{
	struct volume_ref parent = *ref;

	if (!volume_is_snapshot(ref))
		return COPPICE_OK;
	parent.snapshot.text[0] = '\0';
	if (!lv_list_find_ref(lvm, listing, &parent))
		return lvm_fail_missing(&parent, err);
	return lv_list_find_ref(lvm, listing, ref) ? fail_exists(ref, err) : COPPICE_OK;
}

static int publish_one(struct session *session, const struct draft *draft,
		       const struct lv_list *listing, const struct new_volume *volume,
		       struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	char item[LV_NAME_MAX], name[LV_NAME_MAX];
	int r = lvm_name(lvm, &volume->ref, name, err);

	if (r == COPPICE_OK)
		r = check_snapshot(lvm, listing, &volume->ref, err);
	if (r < 0)
		return r;
	lvm_item_name(volume, item);
	r = session_do(session, NULL, err, "lvrename -q %s/%s %s/%s", lvm->vg, item, lvm->vg, name);
	if (r == COPPICE_EXISTS) {
		r = displace(session, name, err);
		if (r == COPPICE_OK)
			r = session_do(session, NULL, err, "lvrename -q %s/%s %s/%s", lvm->vg, item,
				       lvm->vg, name);
	}
	if (r == COPPICE_EXISTS)
		return fail_exists(&volume->ref, err);
	if (r == COPPICE_NOT_FOUND)
		return fail(err, COPPICE_FAILED, "'%s' is not in the draft", volume->ref.name.text);
	/* A snapshot is seen from here on; of a volume, it is of no use any more. */
	return r < 0 ? r
		     : session_do(session, NULL, err, "lvchange -q --deltag=" TAG_DRAFT "=%s %s/%s",
				  draft->id.text, lvm->vg, name);
}

static void unpublish_one(struct session *session, const struct draft *draft,
			  const struct new_volume *volume)
{
	struct lvm_pool *lvm = session->lvm;
	char item[LV_NAME_MAX], name[LV_NAME_MAX];
	struct coppice_error ignored;

	lvm_item_name(volume, item);
	if (lvm_name(lvm, &volume->ref, name, &ignored) < 0)
		return;
	(void)session_do(session, NULL, &ignored, "lvchange -q --addtag=" TAG_DRAFT "=%s %s/%s",
			 draft->id.text, lvm->vg, name);
	(void)session_do(session, NULL, &ignored, "lvrename -q %s/%s %s/%s", lvm->vg, name, lvm->vg,
			 item);
}

/* Is more to be known of the pool than what the names say by themselves? */
static bool is_to_look(const struct draft *draft, const struct new_volume *volumes, size_t n)
{
	bool is_so = draft->is_announced || lvm_making_of(draft)->has_nested;

	for (size_t i = 0; i < n; i++)
		is_so |= volume_is_snapshot(&volumes[i].ref);
	return is_so;
}

/* Those that have no name yet. Of an announced draft few, whose names were taken. */
static int publish_items(struct draft *draft, const struct new_volume *volumes, size_t n,
			 struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	bool did_look = is_to_look(draft, volumes, n);
	char item[LV_NAME_MAX];
	int r;

	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK && did_look)
		r = lv_list_read(&session, &listing, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		lvm_item_name(&volumes[i], item);
		if (draft->is_announced && !lv_list_find(&listing, item))
			continue;
		r = publish_one(&session, draft, &listing, &volumes[i], err);
		if (r == COPPICE_OK)
			continue;
		while (i-- > 0) {
			lvm_item_name(&volumes[i], item);
			if (!draft->is_announced || lv_list_find(&listing, item))
				unpublish_one(&session, draft, &volumes[i]);
		}
		return r;
	}
	if (r < 0 || !did_look)
		return r;
	/* What was nested in them is seen by now, and gets its names. */
	lv_list_done(&listing);
	r = lv_list_read(&session, &listing, err);
	return r < 0 ? r : lvm_names_mend(&session, &listing, err);
}

/* Let some be seen, while others of the draft are not. */
static int show_some(struct draft *draft, const struct new_volume *volumes, size_t n,
		     struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	_cleanup_(session_end) struct session session = { 0 };
	int r = session_begin(lvm, true, &session, err);

	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		char name[LV_NAME_MAX];

		r = lvm_name(lvm, &volumes[i].ref, name, err);
		if (r == COPPICE_OK)
			r = session_do(&session, NULL, err,
				       "lvchange -q --deltag=" TAG_ANNOUNCED "=%s %s/%s",
				       draft->id.text, lvm->vg, name);
		if (r == COPPICE_OK)
			lvm_making_of(draft)->n_announced--;
	}
	return r;
}

static void publish_explain(struct draft *draft, const struct new_volume *volumes, size_t n)
{
	struct lvm_pool *lvm = lvm_pool_of(draft->pool);
	struct coppice_error ignored;

	for (size_t i = 0; i < n && !draft->is_announced; i++) {
		char name[LV_NAME_MAX];

		if (lvm_name(lvm, &volumes[i].ref, name, &ignored) == COPPICE_OK)
			lvm_explain(draft->pool, "lvrename %s/draft_%s %s/%s", lvm->vg,
				    option_text(&volumes[i]), lvm->vg, name);
	}
}

int lvm_publish(struct draft *draft, const struct new_volume *volumes, size_t n,
		struct coppice_error *err)
{
	struct lvm_making *making = lvm_making_of(draft);
	int r = COPPICE_OK;

	publish_explain(draft, volumes, n);
	if (draft->pool->is_dry_run || n == 0)
		return COPPICE_OK;
	if (!draft->is_announced || making->has_items)
		r = publish_items(draft, volumes, n, err);
	if (r < 0 || !draft->is_announced)
		return r;
	if (making->has_items || n != making->n_announced)
		return show_some(draft, volumes, n, err);
	state_lock_remove(&lvm_pool_of(draft->pool)->files, draft->id.text);
	making->n_announced = 0;
	return COPPICE_OK;
}
