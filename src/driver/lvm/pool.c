/* SPDX-License-Identifier: Apache-2.0 */
/* A pool on LVM: where it lives, opening it, its record, its size. */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/generic/explain.h"
#include "driver/generic/loop.h"
#include "driver/generic/pool_file.h"
#include "driver/generic/pool_owner.h"

#define THIN_DEFAULT "CoppiceThinPool"
#define SIZE_DEFAULT (UINT64_C(10) << 30)
#define EXTENT_BYTES (UINT64_C(4) << 20)

static bool is_lvm_name(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				"0123456789+_.-");

	return name[n] == '\0' && n > 0 && n < 64 && name[0] != '-' && name[0] != '.';
}

int lvm_place_find(const struct pool_spec *spec, struct place *ret, struct coppice_error *err)
{
	const char *vg = spec->get(spec, "lvm.vg_name");
	const char *thin = spec->get(spec, "lvm.thinpool_name");
	struct place place = { .kind = PLACE_OUR_FILE };

	if (spec->source && spec->source[0] == '/') {
		place.kind = PLACE_DEVICE;
		(void)snprintf(place.device, sizeof(place.device), "%s", spec->source);
	} else if (spec->source) {
		place.kind = PLACE_GROUP;
		vg = spec->source;
	} else {
		(void)snprintf(place.device, sizeof(place.device), "%s/disks/%s.img",
			       spec->state_path, spec->name);
	}
	vg = vg ? vg : spec->name;
	thin = thin ? thin : THIN_DEFAULT;
	if (!is_lvm_name(vg))
		return fail(err, COPPICE_INVALID, "'%s' cannot be the name of a volume group%s", vg,
			    place.kind == PLACE_GROUP ? "; a device is named with its whole path"
						      : "; give another with lvm.vg_name=");
	if (!is_lvm_name(thin))
		return fail(err, COPPICE_INVALID,
			    "lvm.thinpool_name '%s' cannot be the name of a thin pool", thin);
	(void)snprintf(place.vg, sizeof(place.vg), "%s", vg);
	(void)snprintf(place.thin, sizeof(place.thin), "%s", thin);
	*ret = place;
	return COPPICE_OK;
}

int lvm_choose(struct coppice_error *err)
{
	return fail(err, COPPICE_UNSUPPORTED, "LVM is used where it is named only");
}

int lvm_probe(const struct pool_spec *spec, struct coppice_error *err)
{
	if (geteuid() != 0)
		return fail(err, COPPICE_UNSUPPORTED, "LVM needs root");
	if (access("/dev/mapper/control", F_OK) < 0)
		return fail(err, COPPICE_UNSUPPORTED,
			    "this kernel has no device mapper (/dev/mapper/control)");
	if (access("/etc/lvm/profile/lvmdbusd.profile", R_OK) < 0)
		return fail(err, COPPICE_UNSUPPORTED,
			    "LVM's profile '/etc/lvm/profile/lvmdbusd.profile' is missing: the "
			    "package lvm2 has it");
	return COPPICE_OK;
}

/* ---- opening ---- */

void lvm_reading_end(struct pool *pool)
{
	lv_list_free(take_ptr(&lvm_pool_of(pool)->reading));
}

void lvm_pool_close(struct pool *pool)
{
	struct lvm_pool *lvm;

	if (!pool)
		return;
	lvm = lvm_pool_of(pool);
	lvm_reading_end(pool);
	lv_list_free(lvm->opened);
	lvm_talk_end(lvm);
	state_done(&lvm->files);
	free(lvm->vg);
	free(lvm->thin);
	free(lvm->source);
	free(lvm->mount);
	free(lvm->file_system);
	free(lvm->mount_options);
	free(lvm);
}

static int read_settings(const struct pool_spec *spec, struct lvm_pool *lvm,
			 struct coppice_error *err)
{
	const char *type = spec->get(spec, "volume.block.filesystem");
	const char *options = spec->get(spec, "volume.block.mount_options");
	const char *size = spec->get(spec, "volume.size");

	type = type ? type : "ext4";
	if (!file_system_maker(type))
		return fail(err, COPPICE_INVALID,
			    "volume.block.filesystem '%s' is none of " FILE_SYSTEMS, type);
	lvm->file_system = strdup(type);
	lvm->mount_options = strdup(options ? options : "discard");
	lvm->size_bytes = SIZE_DEFAULT;
	if (size && (!size_parse(size, &lvm->size_bytes) || lvm->size_bytes == 0))
		return fail(err, COPPICE_INVALID, "volume.size '%s' is no size, such as 20GiB",
			    size);
	lvm->size_bytes = (lvm->size_bytes + EXTENT_BYTES - 1) / EXTENT_BYTES * EXTENT_BYTES;
	return lvm->file_system && lvm->mount_options ? COPPICE_OK : fail_memory(err);
}

int lvm_pool_new(const struct pool_spec *spec, const struct place *place, struct pool **ret,
		 struct coppice_error *err)
{
	struct lvm_pool *lvm = calloc(1, sizeof(*lvm));
	_cleanup_(lvm_pool_closep) struct pool *pool = NULL;
	int r;

	if (!lvm)
		return fail_memory(err);
	pool = &lvm->pool;
	pool->driver = &driver_lvm;
	lvm->files.owed_fd = -1;
	lvm->lock_fd = -1;
	lvm->lock_timeout_ms = spec->lock_timeout_ms;
	lvm->talk.to = -1;
	lvm->vg = strdup(place->vg);
	lvm->thin = strdup(place->thin);
	lvm->source = place->kind == PLACE_GROUP ? NULL : strdup(place->device);
	lvm->is_our_file = place->kind == PLACE_OUR_FILE;
	lvm->files.path = text_format("%s/lvm/%s", spec->state_path, spec->name);
	lvm->mount = text_format("%s/mnt/%s", spec->state_path, spec->name);
	if (!lvm->vg || !lvm->thin || (place->kind != PLACE_GROUP && !lvm->source) ||
	    !lvm->files.path || !lvm->mount)
		return fail_memory(err);
	r = read_settings(spec, lvm, err);
	if (r == COPPICE_OK)
		*ret = take_ptr(&pool);
	return r;
}

int lvm_state_ensure(const struct pool_spec *spec, struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(freep) char *folder = text_format("%s/lvm", spec->state_path);
	_cleanup_(freep) char *mnt = text_format("%s/mnt", spec->state_path);
	int r;

	if (!folder || !mnt)
		return fail_memory(err);
	r = directory_ensure(AT_FDCWD, folder, 0700, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, lvm->files.path, 0700, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, mnt, 0711, err);
	return r < 0 ? r : directory_ensure(AT_FDCWD, lvm->mount, 0711, err);
}

/* All of it, at the same price. COPPICE_NOT_FOUND: no such group, or no thin pool in it. */
static int read_all(struct lvm_pool *lvm, struct lv_list *ret, struct coppice_error *err)
{
	struct coppice_error why;
	int r = lvm_list_read(lvm, ret, &why);

	if (r == COPPICE_OK && ret->pool_tags)
		return COPPICE_OK;
	if (r == COPPICE_OK || strstr(why.message, "not found"))
		return fail(err, COPPICE_NOT_FOUND, "there is no thin pool '%s/%s'", lvm->vg,
			    lvm->thin);
	*err = why;
	return r;
}

int lvm_pool_tags(struct lvm_pool *lvm, char **ret, struct coppice_error *err)
{
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	int r = read_all(lvm, &listing, err);

	if (r < 0)
		return r;
	*ret = strdup(listing.pool_tags);
	return *ret ? COPPICE_OK : fail_memory(err);
}

int lvm_check_owner(const struct lvm_pool *lvm, const struct pool_spec *spec, const char *text,
		    struct coppice_error *err)
{
	char place[2 * LV_NAME_MAX + 2];

	(void)snprintf(place, sizeof(place), "%s/%s", lvm->vg, lvm->thin);
	return pool_owner_check(spec, text, "in", place, err);
}

bool lvm_pool_device(const struct lvm_pool *lvm, char ret[static PATH_MAX])
{
	size_t n;

	lvm_device(lvm, lvm->thin, ret);
	n = strlen(ret);
	(void)snprintf(ret + n, PATH_MAX - n, "-tpool");
	if (access(ret, F_OK) == 0)
		return true;
	ret[n] = '\0';
	return access(ret, F_OK) == 0;
}

static bool is_active(const struct lvm_pool *lvm)
{
	char device[PATH_MAX];

	return lvm_pool_device(lvm, device);
}

/* The group's file is attached for as long as something of it is active. */
static int attach(struct lvm_pool *lvm, struct loop *loop, struct coppice_error *err)
{
	struct stat st;

	if (!lvm->source)
		return COPPICE_OK;
	if (stat(lvm->source, &st) < 0)
		return errno == ENOENT ? fail(err, COPPICE_NOT_FOUND,
					      "the pool's file '%s' is not there", lvm->source)
				       : fail_errno(err, errno, "cannot look at '%s'", lvm->source);
	return S_ISREG(st.st_mode) ? loop_attach(lvm->source, loop, err) : COPPICE_OK;
}

/* The group that lies on a device has another name than it is looked for by. */
static int name_group(struct lvm_pool *lvm, const char *device, struct coppice_error *err)
{
	struct coppice_error why = *err, ignored;
	json_t *report, *rows, *row;
	size_t i;

	if (lvm_do(lvm, &report, &ignored, "pvs -o pv_name,vg_name") < 0)
		return why.code;
	rows = json_object_get(json_array_get(json_object_get(report, "report"), 0), "pv");
	json_array_foreach (rows, i, row) {
		const char *pv = json_string_value(json_object_get(row, "pv_name"));
		const char *vg = json_string_value(json_object_get(row, "vg_name"));

		if (pv && vg && vg[0] && strcmp(pv, device) == 0 && strcmp(vg, lvm->vg) != 0)
			(void)fail(&why, COPPICE_NOT_FOUND,
				   "there is no thin pool '%s/%s'; on '%s' lies the volume group "
				   "'%s': give lvm.vg_name=%s",
				   lvm->vg, lvm->thin, lvm->source, vg, vg);
	}
	json_decref(report);
	*err = why;
	return err->code;
}

static int open_thin(const struct pool_spec *spec, struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;
	bool has_mending;
	int r;

	lvm->opened = calloc(1, sizeof(*lvm->opened));
	if (!lvm->opened)
		return fail_memory(err);
	r = read_all(lvm, lvm->opened, err);
	if (r < 0)
		return r;
	record = record_of_tags(lvm->opened->pool_tags);
	if (!record)
		return fail(err, COPPICE_INVALID, "the thin pool '%s/%s' is no pool of Coppice",
			    lvm->vg, lvm->thin);
	has_mending = lvm->opened->has_mending;
	r = lvm_check_owner(lvm, spec, record, err);
	if (r == COPPICE_OK && !is_active(lvm))
		r = lvm_activate_thin(lvm, spec->is_dry_run, err);
	if (r == COPPICE_OK && has_mending && !spec->is_dry_run)
		(void)lvm_mending_sweep(lvm, &ignored);
	/* Whose pool it is to be is not known yet: then it is looked at, and nothing made. */
	return r < 0 || !spec->owner.text[0] ? r : lvm_state_ensure(spec, lvm, err);
}

int lvm_pool_open(const struct pool_spec *spec, struct pool **ret, struct coppice_error *err)
{
	_cleanup_(lvm_pool_closep) struct pool *pool = NULL;
	_cleanup_(loop_close) struct loop loop = LOOP_INIT;
	struct place place;
	int r;

	r = lvm_place_find(spec, &place, err);
	if (r == COPPICE_OK)
		r = lvm_pool_new(spec, &place, &pool, err);
	if (r < 0)
		return r;
	if (!is_active(lvm_pool_of(pool)))
		r = attach(lvm_pool_of(pool), &loop, err);
	if (r == COPPICE_OK)
		r = open_thin(spec, lvm_pool_of(pool), err);
	if (r == COPPICE_NOT_FOUND && place.kind != PLACE_GROUP)
		r = name_group(lvm_pool_of(pool), loop.path[0] ? loop.path : place.device, err);
	if (r == COPPICE_OK)
		*ret = take_ptr(&pool);
	return r;
}

void lvm_pool_open_explain(const struct pool_spec *spec, explain_fn *explain, void *user)
{
	_cleanup_(freep) char *quoted = NULL;
	struct coppice_error ignored;
	struct place place;

	if (lvm_place_find(spec, &place, &ignored) < 0)
		return;
	quoted = text_shell_quote(place.device);
	if (!quoted)
		return;
	if (place.kind == PLACE_OUR_FILE)
		explain_line(explain, user, "losetup --find --direct-io=on %s", quoted);
	explain_line(explain, user, "lvchange -ay -K %s/%s", place.vg, place.thin);
}

bool lvm_pool_is_mounted(const struct pool_spec *spec)
{
	_cleanup_(lvm_pool_closep) struct pool *pool = NULL;
	struct coppice_error ignored;
	struct place place;

	return lvm_place_find(spec, &place, &ignored) == COPPICE_OK &&
	       lvm_pool_new(spec, &place, &pool, &ignored) == COPPICE_OK &&
	       is_active(lvm_pool_of(pool));
}

int lvm_umount_all(struct lvm_pool *lvm, bool is_our_group, struct coppice_error *err)
{
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	_cleanup_(session_end) struct session session = { 0 };
	int r;

	if (!is_active(lvm))
		return COPPICE_OK;
	r = session_begin(lvm, true, &session, err);
	if (r == COPPICE_OK)
		r = lv_list_read(&session, &listing, err);
	for (size_t i = 0; i < listing.n && r == COPPICE_OK; i++)
		if (!lv_is_stranger(&listing.lv[i]))
			r = lvm_umount(&session, listing.lv[i].name, err);
	if (r < 0)
		return r;
	return is_our_group
		       ? session_do(&session, NULL, err, "vgchange -an %s", lvm->vg)
		       : session_do(&session, NULL, err, "lvchange -an %s/%s", lvm->vg, lvm->thin);
}

int lvm_pool_umount(const struct pool_spec *spec, struct coppice_error *err)
{
	_cleanup_(lvm_pool_closep) struct pool *pool = NULL;
	struct place place;
	int r;

	r = lvm_place_find(spec, &place, err);
	if (r == COPPICE_OK)
		r = lvm_pool_new(spec, &place, &pool, err);
	return r < 0 ? r : lvm_umount_all(lvm_pool_of(pool), place.kind != PLACE_GROUP, err);
}

/* ---- record and size ---- */

int lvm_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(freep) char *tags = NULL;
	char *record;
	int r;

	r = lvm_pool_tags(lvm, &tags, err);
	if (r < 0)
		return r;
	record = record_of_tags(tags);
	if (!record)
		return fail(err, COPPICE_INVALID, "the thin pool '%s/%s' is no pool of Coppice",
			    lvm->vg, lvm->thin);
	*ret = record;
	return COPPICE_OK;
}

int lvm_pool_record_write(struct pool *pool, const char *record, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(session_end) struct session session = { 0 };
	_cleanup_(freep) char *tags = NULL;
	int r;

	if (pool->is_dry_run)
		return COPPICE_OK;
	r = lvm_pool_tags(lvm, &tags, err);
	if (r == COPPICE_OK)
		r = session_begin(lvm, true, &session, err);
	return r < 0 ? r
		     : lvm_tags_record(&session, &(struct lv){ .name = lvm->thin, .tags = tags },
				       record, err);
}

const char *lvm_pool_mount_path(struct pool *pool)
{
	return lvm_pool_of(pool)->mount;
}

/* By the kernel, in blocks: lvs has it as a percentage. */
int lvm_pool_space(struct pool *pool, struct pool_space *ret, struct coppice_error *err)
{
	struct pool_status status;
	int r = lvm_pool_status(lvm_pool_of(pool), &status, err);

	if (r < 0)
		return r;
	*ret = (struct pool_space){
		.total = { COPPICE_EXACT, status.total_bytes },
		.used = { COPPICE_EXACT, status.used_blocks * status.block_bytes },
		.free = { COPPICE_EXACT,
			  (status.total_blocks - status.used_blocks) * status.block_bytes },
		.metadata_total = { COPPICE_EXACT, status.total_metadata_blocks * 4096 },
		.metadata_used = { COPPICE_EXACT, status.used_metadata_blocks * 4096 },
	};
	return COPPICE_OK;
}

int lvm_pool_host(const struct pool_spec *spec, bool *ret_is_file, struct pool_host *ret,
		  struct coppice_error *err)
{
	struct place place;
	struct stat st;
	int r = lvm_place_find(spec, &place, err);

	*ret_is_file = r == COPPICE_OK && place.kind != PLACE_GROUP &&
		       stat(place.device, &st) == 0 && S_ISREG(st.st_mode);
	return *ret_is_file ? pool_file_host(place.device, ret, err) : r;
}

/* ---- growing ---- */

/* Metadata grows with the data that it is of, as it can be full first. */
static uint64_t metadata_growth(const struct pool_status *before, uint64_t added_bytes)
{
	double metadata = (double)before->total_metadata_blocks * 4096;
	double more = metadata * (double)added_bytes / ((double)before->total_bytes + metadata);

	return ((uint64_t)more / EXTENT_BYTES + 1) * EXTENT_BYTES;
}

static int extend_thin(struct lvm_pool *lvm, const struct pool_status *before, uint64_t added_bytes,
		       struct coppice_error *err)
{
	uint64_t more = metadata_growth(before, added_bytes);
	int r = COPPICE_OK;

	if (more < added_bytes)
		r = lvm_do(lvm, NULL, err, "lvextend -q --poolmetadatasize +%llub %s/%s",
			   (unsigned long long)more, lvm->vg, lvm->thin);
	return r < 0 ? r
		     : lvm_do(lvm, NULL, err, "lvextend -q -l +100%%FREE %s/%s", lvm->vg,
			      lvm->thin);
}

/* Killed in between, what the group has more is taken the next time. */
static int grow_file(struct lvm_pool *lvm, uint64_t size_bytes, struct coppice_error *err)
{
	_cleanup_(loop_close) struct loop loop = LOOP_INIT;
	struct pool_status before;
	struct stat st;
	int r = lvm_pool_status(lvm, &before, err);

	if (r < 0)
		return r;
	if (stat(lvm->source, &st) < 0 || truncate(lvm->source, (off_t)size_bytes) < 0)
		return fail_errno(err, errno, "cannot grow '%s'", lvm->source);
	r = loop_attach(lvm->source, &loop, err);
	if (r == COPPICE_OK)
		r = loop_resize(loop.path, err);
	if (r == COPPICE_OK)
		r = lvm_do(lvm, NULL, err, "pvresize -q %s", loop.path);
	return r < 0 || size_bytes - (uint64_t)st.st_size < 2 * EXTENT_BYTES
		       ? r
		       : extend_thin(lvm, &before, size_bytes - (uint64_t)st.st_size, err);
}

int lvm_pool_extend(struct pool *pool, uint64_t limit_bytes, bool *ret_did,
		    struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	uint64_t bytes;
	struct stat st;

	*ret_did = false;
	if (!lvm->is_our_file)
		return COPPICE_OK;
	if (stat(lvm->source, &st) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", lvm->source);
	bytes = (uint64_t)st.st_size + (uint64_t)st.st_size / 4;
	bytes = (bytes < limit_bytes ? bytes : limit_bytes) / EXTENT_BYTES * EXTENT_BYTES;
	if (bytes < (uint64_t)st.st_size + 2 * EXTENT_BYTES)
		return COPPICE_OK;
	*ret_did = true;
	return grow_file(lvm, bytes, err);
}

int lvm_pool_resize(struct pool *pool, uint64_t size_bytes, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(freep) char *file = NULL;
	struct pool_status status;
	uint64_t added;
	struct stat st;
	int r;

	if (!lvm->is_our_file)
		return fail(err, COPPICE_UNSUPPORTED,
			    "the pool's size is that of '%s', which Coppice did not make",
			    lvm->source ? lvm->source : lvm->vg);
	if (stat(lvm->source, &st) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", lvm->source);
	if (size_bytes < (uint64_t)st.st_size)
		return fail(err, COPPICE_INVALID,
			    "size cannot shrink: '%s' has %lld bytes, %llu were asked for",
			    lvm->source, (long long)st.st_size, (unsigned long long)size_bytes);
	r = lvm_pool_status(lvm, &status, err);
	if (r < 0)
		return r;
	added = size_bytes - (uint64_t)st.st_size;
	file = text_shell_quote(lvm->source);
	if (!file)
		return fail_memory(err);
	lvm_explain(pool, "truncate -s %llu %s", (unsigned long long)size_bytes, file);
	lvm_explain(pool, "device=$(losetup -n -O NAME -j %s)", file);
	lvm_explain(pool, "losetup -c $device && pvresize $device");
	if (metadata_growth(&status, added) < added)
		lvm_explain(pool, "lvextend --poolmetadatasize +%llub %s/%s",
			    (unsigned long long)metadata_growth(&status, added), lvm->vg,
			    lvm->thin);
	lvm_explain(pool, "lvextend -l +100%%FREE %s/%s", lvm->vg, lvm->thin);
	if (pool->is_dry_run)
		return COPPICE_OK;
	return grow_file(lvm, size_bytes & ~0xfffULL, err);
}
