/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and unmaking what a pool on LVM lives in: a group of ours on a sparse file or a
 * device, or a thin pool in a group that was there before, which may have been there, too.
 */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "base/undo.h"
#include "driver/generic/explain.h"
#include "driver/generic/loop.h"
#include "driver/generic/pool_file.h"

/*
 * LVM writes all it knows of a group anew with each change, as text, beside what it wrote
 * before: half a KiB for each volume, and the record. What is set aside for it cannot be
 * enlarged later. 64 MiB are room for 30,000 volumes.
 */
#define METADATA_MIN (UINT64_C(4) << 20)
#define METADATA_MAX (UINT64_C(64) << 20)

#define SMALLEST_MIB 64

static struct pool_file our_file(const struct pool_spec *spec, const struct place *place)
{
	return (struct pool_file){ .path = place->device,
				   .driver = "lvm",
				   .engine = "LVM",
				   .smallest_mib = SMALLEST_MIB };
}

static uint64_t metadata_bytes(uint64_t device_bytes)
{
	uint64_t bytes = device_bytes / 64 & ~((UINT64_C(1) << 20) - 1);

	return bytes < METADATA_MIN ? METADATA_MIN : bytes > METADATA_MAX ? METADATA_MAX : bytes;
}

/* ---- what is there ---- */

static bool is_group_there(struct lvm_pool *lvm, char **ret_tags, int *r, struct coppice_error *err)
{
	struct coppice_error why;
	json_t *report, *rows;
	const char *tags;

	*r = lvm_do(lvm, &report, &why, "vgs -o vg_tags %s", lvm->vg);
	if (*r < 0 && strstr(why.message, "not found")) {
		*r = COPPICE_OK;
		return false;
	}
	if (*r < 0) {
		*err = why;
		return false;
	}
	rows = json_object_get(json_array_get(json_object_get(report, "report"), 0), "vg");
	tags = json_string_value(json_object_get(json_array_get(rows, 0), "vg_tags"));
	if (ret_tags)
		*ret_tags = strdup(tags ? tags : "");
	json_decref(report);
	return true;
}

static bool has_tag(const char *tags, const char *tag)
{
	size_t n = strlen(tag);

	for (const char *at = tags; *at;) {
		size_t length = strcspn(at, ",");

		if (length == n && strncmp(at, tag, n) == 0)
			return true;
		at += length + (at[length] == ',');
	}
	return false;
}

static int check_device(const struct pool_spec *spec, const struct place *place,
			struct coppice_error *err)
{
	struct stat st;
	int r;

	if (stat(place->device, &st) < 0)
		return fail_errno(err, errno, "cannot use source '%s'", place->device);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return fail(err, COPPICE_INVALID,
			    "source '%s' is neither a file nor a block device; a volume group is "
			    "named without a slash before it",
			    place->device);
	r = pool_file_refuse_data(spec, place->device, err);
	return r < 0 ? r : pool_file_refuse_small(place->device, "LVM", SMALLEST_MIB, err);
}

/*
 * A volume is to read as zeros where nobody wrote: file systems are made, and disks copied, by not
 * writing them.
 */
static int refuse_unzeroed(struct lvm_pool *lvm, struct coppice_error *err)
{
	json_t *report, *rows;
	const char *zero;
	bool is_zeroed;
	int r = lvm_do(lvm, &report, err, "lvs -o zero %s/%s", lvm->vg, lvm->thin);

	if (r < 0)
		return r;
	rows = json_object_get(json_array_get(json_object_get(report, "report"), 0), "lv");
	zero = json_string_value(json_object_get(json_array_get(rows, 0), "zero"));
	is_zeroed = !zero || (strcmp(zero, "0") != 0 && zero[0] != '\0');
	json_decref(report);
	return is_zeroed ? COPPICE_OK
			 : fail(err, COPPICE_INVALID,
				"the thin pool '%s/%s' does not zero what it gives out, so a new "
				"volume may show what another had: lvchange -Zy %s/%s",
				lvm->vg, lvm->thin, lvm->vg, lvm->thin);
}

/* The thin pool of `source`: not there yet, or not a pool of Coppice. */
static int check_thin(const struct pool_spec *spec, struct lvm_pool *lvm, bool *ret_is_there,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *tags = NULL, *record = NULL;
	struct coppice_error why;
	int r;

	*ret_is_there = false;
	if (!is_group_there(lvm, NULL, &r, err))
		return r < 0 ? r
			     : fail(err, COPPICE_NOT_FOUND, "there is no volume group '%s'",
				    lvm->vg);
	r = lvm_pool_tags(lvm, &tags, &why);
	if (r == COPPICE_NOT_FOUND)
		return COPPICE_OK;
	if (r < 0) {
		*err = why;
		return r;
	}
	*ret_is_there = true;
	record = record_of_tags(tags);
	if (!record)
		return refuse_unzeroed(lvm, err);
	r = lvm_check_owner(lvm, &(struct pool_spec){ .name = spec->name, .owner = spec->owner },
			    record, err);
	return r < 0 ? r
		     : fail(err, COPPICE_EXISTS, "there is a pool in '%s/%s' already", lvm->vg,
			    lvm->thin);
}

static int check_place(const struct pool_spec *spec, const struct place *place,
		       struct lvm_pool *lvm, struct coppice_error *err)
{
	struct pool_file file = our_file(spec, place);
	bool ignored;
	int r;

	if (place->kind == PLACE_GROUP)
		return check_thin(spec, lvm, &ignored, err);
	r = place->kind == PLACE_OUR_FILE ? pool_file_check(spec, &file, err)
					  : check_device(spec, place, err);
	if (r < 0)
		return r;
	if (is_group_there(lvm, NULL, &r, err))
		return fail(err, COPPICE_EXISTS,
			    "there is a volume group '%s' already; give another name with "
			    "lvm.vg_name=",
			    lvm->vg);
	return r;
}

int lvm_pool_check(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(lvm_pool_closep) struct pool *pool = NULL;
	struct place place;
	int r = lvm_place_find(spec, &place, err);

	if (r == COPPICE_OK)
		r = lvm_pool_new(spec, &place, &pool, err);
	return r < 0 ? r : check_place(spec, &place, lvm_pool_of(pool), err);
}

/* ---- making ---- */

static int undo_file(void *owner, const char *name, struct coppice_error *err)
{
	return unlink(name) < 0 && errno != ENOENT ? fail_errno(err, errno, "cannot remove")
						   : COPPICE_OK;
}

static int undo_group(void *owner, const char *name, struct coppice_error *err)
{
	return lvm_run(owner, (const char *const[]){ "vgremove", "-q", "-y", "-f", name, NULL },
		       err);
}

static int undo_device(void *owner, const char *name, struct coppice_error *err)
{
	return lvm_run(owner, (const char *const[]){ "pvremove", "-q", "-y", name, NULL }, err);
}

static int undo_thin(void *owner, const char *name, struct coppice_error *err)
{
	return lvm_run(owner, (const char *const[]){ "lvremove", "-q", "-y", name, NULL }, err);
}

static int device_bytes(const char *path, uint64_t *ret, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

	if (size < 0)
		return fail_errno(err, errno, "cannot look at '%s'", path);
	*ret = (uint64_t)size;
	return COPPICE_OK;
}

static int make_group(const struct pool_spec *spec, struct lvm_pool *lvm, const char *device,
		      struct undo *undo, struct coppice_error *err)
{
	const char *const wipe = pool_spec_is_true(spec, "source.wipe") ? "-ff" : "-q";
	_cleanup_(freep) char *size = NULL;
	uint64_t bytes = 0;
	int r = device_bytes(device, &bytes, err);

	if (r < 0)
		return r;
	size = text_format("%llub", (unsigned long long)metadata_bytes(bytes));
	if (!size)
		return fail_memory(err);
	r = lvm_run(lvm,
		    (const char *const[]){ "pvcreate", "-q", "-y", wipe, "--metadatasize", size,
					   device, NULL },
		    err);
	if (r < 0)
		return r;
	undo_push(undo, undo_device, lvm, device);
	r = lvm_run(lvm,
		    (const char *const[]){ "vgcreate", "-q", "--addtag", TAG_MADE, lvm->vg, device,
					   NULL },
		    err);
	if (r == COPPICE_OK)
		undo_push(undo, undo_group, lvm, lvm->vg);
	return r;
}

/* With --type thin-pool, LVM 2.03.16 does not take --errorwhenfull. */
#define THIN_OPTIONS "--chunksize 64k --errorwhenfull y --discards passdown"

/* All that is free, or as much as was asked for, of the group. */
static const char *thin_size(const struct pool_spec *spec, const struct place *place,
			     char ret[static 40])
{
	const char *size = spec->get(spec, "size");
	uint64_t bytes;

	if (place->kind == PLACE_GROUP && size && size_parse(size, &bytes))
		(void)snprintf(ret, 40, "-L %llub", (unsigned long long)bytes);
	else
		(void)snprintf(ret, 40, "-l 100%%FREE");
	return ret;
}

static int make_thin(const struct pool_spec *spec, const struct place *place, struct lvm_pool *lvm,
		     const char *record, struct undo *undo, struct coppice_error *err)
{
	const char *metadata = spec->get(spec, "lvm.thinpool_metadata_size");
	_cleanup_(freep) char *tags = tags_of_record(record, " --addtag=", err);
	char size[40], metadata_size[60] = "";
	uint64_t bytes;
	int r;

	if (!tags)
		return err->code;
	if (metadata && !size_parse(metadata, &bytes))
		return fail(err, COPPICE_INVALID,
			    "lvm.thinpool_metadata_size '%s' is no size, such as 1GiB", metadata);
	if (metadata)
		(void)snprintf(metadata_size, sizeof(metadata_size), " --poolmetadatasize %llub",
			       (unsigned long long)bytes);
	r = lvm_do(lvm, NULL, err,
		   "lvcreate -q -y " THIN_OPTIONS " %s%s --addtag=" TAG_POOL " --addtag=" TAG_MADE
		   "%s -T %s/%s",
		   thin_size(spec, place, size), metadata_size, tags, lvm->vg, lvm->thin);
	if (r == COPPICE_OK) {
		_cleanup_(freep) char *name = text_format("%s/%s", lvm->vg, lvm->thin);

		if (name)
			undo_push(undo, undo_thin, lvm, name);
	}
	return r;
}

static int use_thin(struct lvm_pool *lvm, const char *record, struct coppice_error *err)
{
	_cleanup_(freep) char *tags = tags_of_record(record, " --addtag=", err);

	return tags ? lvm_do(lvm, NULL, err, "lvchange -q --addtag=" TAG_POOL "%s %s/%s", tags,
			     lvm->vg, lvm->thin)
		    : err->code;
}

static int make_place(const struct pool_spec *spec, const struct place *place, struct lvm_pool *lvm,
		      struct loop *loop, struct undo *undo, struct coppice_error *err)
{
	struct pool_file file = our_file(spec, place);
	const char *device = place->device;
	struct stat st;
	int r = COPPICE_OK;

	if (place->kind == PLACE_OUR_FILE) {
		r = pool_file_make(spec, &file, err);
		if (r == COPPICE_OK)
			undo_push(undo, undo_file, NULL, place->device);
	}
	if (r == COPPICE_OK && stat(device, &st) == 0 && S_ISREG(st.st_mode)) {
		r = loop_attach(device, loop, err);
		device = loop->path;
	}
	return r < 0 ? r : make_group(spec, lvm, device, undo, err);
}

int lvm_pool_create(const struct pool_spec *spec, const char *record, struct pool **ret,
		    struct coppice_error *err)
{
	_cleanup_(loop_close) struct loop loop = LOOP_INIT;
	_cleanup_(lvm_pool_closep) struct pool *pool = NULL;
	_cleanup_(undo_rollback) struct undo undo = UNDO_INIT; /* which needs the pool */
	bool is_there = false;
	struct lvm_pool *lvm;
	struct place place;
	int r;

	r = lvm_place_find(spec, &place, err);
	if (r == COPPICE_OK)
		r = lvm_pool_new(spec, &place, &pool, err);
	if (r < 0)
		return r;
	lvm = lvm_pool_of(pool);
	r = place.kind == PLACE_GROUP ? check_thin(spec, lvm, &is_there, err)
				      : check_place(spec, &place, lvm, err);
	if (r == COPPICE_OK && place.kind != PLACE_GROUP)
		r = make_place(spec, &place, lvm, &loop, &undo, err);
	if (r == COPPICE_OK)
		r = lvm_state_ensure(spec, lvm, err);
	if (r == COPPICE_OK)
		r = is_there ? use_thin(lvm, record, err)
			     : make_thin(spec, &place, lvm, record, &undo, err);
	if (r == COPPICE_OK && is_there)
		r = lvm_activate_thin(lvm, spec->is_dry_run, err);
	if (r < 0)
		return r;
	undo_commit(&undo);
	*ret = take_ptr(&pool);
	return COPPICE_OK;
}

void lvm_pool_explain(const struct pool_spec *spec, explain_fn *explain, void *user)
{
	_cleanup_(freep) char *quoted = NULL;
	const char *device = "$device";
	struct coppice_error ignored;
	char size[40];
	struct pool_file our;
	struct place place;
	uint64_t bytes = 0;

	if (lvm_place_find(spec, &place, &ignored) < 0)
		return;
	quoted = text_shell_quote(place.device);
	if (!quoted)
		return;
	our = our_file(spec, &place);
	if (place.kind == PLACE_OUR_FILE) {
		if (pool_file_size(spec, &our, &bytes, &ignored) < 0)
			return;
		explain_line(explain, user, "truncate -s %llu %s", (unsigned long long)bytes,
			     quoted);
		explain_line(explain, user, "device=$(losetup --find --show --direct-io=on %s)",
			     quoted);
	} else if (place.kind == PLACE_DEVICE) {
		device = quoted;
		(void)device_bytes(place.device, &bytes, &ignored);
	}
	if (place.kind != PLACE_GROUP) {
		explain_line(explain, user, "pvcreate --metadatasize %llub %s",
			     (unsigned long long)metadata_bytes(bytes), device);
		explain_line(explain, user, "vgcreate --addtag " TAG_MADE " %s %s", place.vg,
			     device);
	}
	explain_line(explain, user, "lvs %s/%s || lvcreate " THIN_OPTIONS " %s -T %s/%s", place.vg,
		     place.thin, thin_size(spec, &place, size), place.vg, place.thin);
}

/* ---- unmaking ---- */

/* Is this group on our file or device, and not another of the same name? */
static int is_our_group(struct lvm_pool *lvm, const char *device, bool *ret,
			struct coppice_error *err)
{
	_cleanup_(freep) char *tags = NULL;
	json_t *report, *rows;
	const char *found;
	int r;

	*ret = false;
	if (!is_group_there(lvm, &tags, &r, err) || !tags || !has_tag(tags, TAG_MADE))
		return r;
	r = lvm_do(lvm, &report, err, "vgs -o pv_name %s", lvm->vg);
	if (r < 0)
		return r;
	rows = json_object_get(json_array_get(json_object_get(report, "report"), 0), "vg");
	found = json_string_value(json_object_get(json_array_get(rows, 0), "pv_name"));
	*ret = found && json_array_size(rows) == 1 && strcmp(found, device) == 0;
	json_decref(report);
	return COPPICE_OK;
}

static int fail_stranger(const struct lvm_pool *lvm, const char *name, const char *where,
			 struct coppice_error *err)
{
	return fail(err, COPPICE_BUSY,
		    "the logical volume '%s/%s' is none of Coppice, and would go with the %s; to "
		    "remove it: lvremove %s/%s",
		    lvm->vg, name, where, lvm->vg, name);
}

/* What others made in the thin pool, or the group, is not ours to destroy: the first is named. */
static int refuse_strangers(const struct lvm_pool *lvm, const struct lv_list *listing,
			    bool is_group, struct coppice_error *err)
{
	for (size_t i = 0; i < listing->n; i++)
		if (lv_is_stranger(&listing->lv[i]))
			return fail_stranger(lvm, listing->lv[i].name, "thin pool", err);
	return is_group && listing->beside
		       ? fail_stranger(lvm, listing->beside, "volume group", err)
		       : COPPICE_OK;
}

/* The same of what is there now. */
static int refuse_strangers_now(struct lvm_pool *lvm, bool is_group, struct coppice_error *err)
{
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	int r = lvm_list_read(lvm, &listing, err);

	return r < 0 ? r : refuse_strangers(lvm, &listing, is_group, err);
}

static int unmake_group(const struct pool_spec *spec, const struct place *place,
			struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(loop_close) struct loop loop = LOOP_INIT;
	const char *device = place->device;
	bool is_ours = false;
	struct stat st;
	int r = COPPICE_OK;

	if (stat(place->device, &st) < 0)
		return COPPICE_OK;
	if (S_ISREG(st.st_mode) && st.st_size > 0) {
		r = loop_attach(place->device, &loop, err);
		device = loop.path;
	}
	if (r == COPPICE_OK)
		r = is_our_group(lvm, device, &is_ours, err);
	if (r == COPPICE_OK && is_ours)
		r = refuse_strangers_now(lvm, true, err);
	if (r == COPPICE_OK && is_ours)
		r = lvm_umount_all(lvm, true, err);
	if (r == COPPICE_OK && is_ours)
		r = undo_group(lvm, lvm->vg, err);
	if (r == COPPICE_OK && is_ours)
		r = undo_device(lvm, device, err);
	loop_close(&loop);
	if (r == COPPICE_OK && place->kind == PLACE_OUR_FILE && unlink(place->device) < 0 &&
	    errno != ENOENT)
		r = fail_errno(err, errno, "cannot remove '%s'", place->device);
	return r;
}

/* Of ours, users' volumes are gone by now: what is left nobody sees. */
static int remove_rest(struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	int r = session_begin(lvm, true, &session, err);

	if (r == COPPICE_OK)
		r = lv_list_read(&session, &listing, err);
	for (size_t i = 0; i < listing.n && r == COPPICE_OK; i++) {
		const struct lv *lv = &listing.lv[i];

		if (!lv->uuid.text[0] || !lv_is_hidden(lvm, lv))
			continue;
		r = lvm_umount(&session, lv->name, err);
		if (r == COPPICE_OK)
			r = lvm_remove(&session, &lv->name, 1, err);
	}
	return r;
}

static int unmake_in_group(const struct pool_spec *spec, struct lvm_pool *lvm,
			   struct coppice_error *err)
{
	_cleanup_(freep) char *tags = NULL, *record = NULL;
	_cleanup_(session_end) struct session session = { 0 };
	struct coppice_error why;
	int r;

	r = lvm_pool_tags(lvm, &tags, err);
	if (r < 0)
		return r == COPPICE_NOT_FOUND ? COPPICE_OK : r;
	record = record_of_tags(tags);
	if (!record || lvm_check_owner(lvm, spec, record, &why) < 0)
		return COPPICE_OK; /* somebody else's; never made by this specification */
	r = remove_rest(lvm, err);
	if (r == COPPICE_OK && has_tag(tags, TAG_MADE))
		r = refuse_strangers_now(lvm, false, err);
	if (r == COPPICE_OK)
		r = session_begin(lvm, true, &session, err);
	if (r < 0)
		return r;
	if (has_tag(tags, TAG_MADE))
		return session_do(&session, NULL, err, "lvremove -q -y %s/%s", lvm->vg, lvm->thin);
	r = lvm_tags_record(&session, &(struct lv){ .name = lvm->thin, .tags = tags }, NULL, err);
	return r < 0 ? r
		     : session_do(&session, NULL, err, "lvchange -q --deltag=" TAG_POOL " %s/%s",
				  lvm->vg, lvm->thin);
}

static void remove_folder(const struct lvm_pool *lvm, const char *above, const char *folder)
{
	_cleanup_(freep) char *path = text_format("%s/%s%s", lvm->mount, above, folder);

	if (path)
		(void)rmdir(path);
}

static void remove_state(struct lvm_pool *lvm)
{
	lvm_forget_remembering(lvm);
	state_remove(&lvm->files);
	for (int kind = 0; kind < VOLUME_KINDS; kind++) {
		remove_folder(lvm, "", lvm_kind_word((enum volume_kind)kind));
		remove_folder(lvm, "snapshots/", lvm_kind_word((enum volume_kind)kind));
	}
	remove_folder(lvm, "", "snapshots");
	remove_folder(lvm, "", "drafts");
	(void)rmdir(lvm->mount);
}

int lvm_pool_destroy(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(lvm_pool_closep) struct pool *pool = NULL;
	struct place place;
	int r;

	r = lvm_place_find(spec, &place, err);
	if (r == COPPICE_OK)
		r = lvm_pool_new(spec, &place, &pool, err);
	if (r == COPPICE_OK)
		r = place.kind == PLACE_GROUP ? unmake_in_group(spec, lvm_pool_of(pool), err)
					      : unmake_group(spec, &place, lvm_pool_of(pool), err);
	if (r == COPPICE_OK)
		remove_state(lvm_pool_of(pool));
	return r;
}

int lvm_pool_can_destroy(struct pool *pool, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	int r = lvm_list_read(lvm, &listing, err);

	if (r < 0 || (!lvm->source && !has_tag(listing.pool_tags, TAG_MADE)))
		return r;
	return refuse_strangers(lvm, &listing, lvm->source != NULL, err);
}
