/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thin pool that LVM does not activate, as the power went while space was counted. Linux writes
 * a superblock that has a snapshot of the metadata, or has it no more, before the counts that go
 * with it: cut in between, the counts of some blocks are one too low, or one too high, and
 * thin_check refuses them. Everything is as it was committed, but for what the superblock says of
 * that snapshot: it had none, or had it still.
 *
 * That is put right in a copy, mending_POOL. If it is sound then, it takes the metadata's place in
 * one step, and what was there has that name until the pool is active: lvconvert(8),
 * --swapmetadata. If it is not activated even so, they are swapped back. lvconvert --repair would
 * write a map for each clone, where they share them.
 *
 * What has that name is what was there if the thin pool and its metadata have the same tag
 * coppice.mending=ID, and it has not; else a copy that is being made, if it has such a tag; else it
 * is of somebody else.
 */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/lvm/thin_metadata.h"

#define MENDING    "mending_"
#define SPARE_TAIL "_pmspare"
#define COPY_BYTES (1U << 20)
#define ALIGNMENT  4096U

static int fail_damaged(const struct lvm_pool *lvm, const char *why, struct coppice_error *err)
{
	return fail(err, COPPICE_UNAVAILABLE,
		    "the metadata of the thin pool '%s/%s' is damaged, and %s: lvconvert --repair "
		    "%s/%s may mend it",
		    lvm->vg, lvm->thin, why, lvm->vg, lvm->thin);
}

/* ---- what there is ---- */

struct parts {
	uint64_t metadata_bytes;
	bool is_linear;          /* the metadata, and of no kind that has copies */
	bool has_copy;           /* ours, being made */
	bool has_old;            /* what was there before a copy took its place */
	bool has_stranger;       /* somebody else's, of the name that a copy would have */
	struct uuid mended;      /* as the thin pool's tag has it; empty: none */
	char spare[LV_NAME_MAX]; /* which LVM keeps free for a repair; empty: none */
};

static void mending_get(const char *tags, struct uuid *ret)
{
	char text[UUID_TEXT_SIZE];

	if (!tag_get(tags, TAG_MENDING, text, sizeof(text)) || !uuid_parse(text, ret))
		ret->text[0] = '\0';
}

struct part_tags {
	struct uuid copy, metadata;
	bool has_copy;
};

static void take_part(const struct lvm_pool *lvm, json_t *row, struct parts *ret,
		      struct part_tags *tags)
{
	const char *name = lvm_field(row, "lv_name"); /* "[lvol0_pmspare]" */
	size_t length = strlen(lvm->thin), n;

	name += *name == '[';
	n = strcspn(name, "]");
	if (strcmp(name, lvm->thin) == 0) {
		ret->metadata_bytes = strtoull(lvm_field(row, "lv_metadata_size"), NULL, 10);
		mending_get(lvm_field(row, "lv_tags"), &ret->mended);
	} else if (strncmp(name, MENDING, strlen(MENDING)) == 0 &&
		   strcmp(name + strlen(MENDING), lvm->thin) == 0) {
		tags->has_copy = true;
		mending_get(lvm_field(row, "lv_tags"), &tags->copy);
	} else if (strncmp(name, lvm->thin, length) == 0 && n == length + strlen("_tmeta") &&
		   strncmp(name + length, "_tmeta", strlen("_tmeta")) == 0) {
		ret->is_linear = strcmp(lvm_field(row, "segtype"), "linear") == 0;
		mending_get(lvm_field(row, "lv_tags"), &tags->metadata);
	} else if (n > strlen(SPARE_TAIL) && n < sizeof(ret->spare) &&
		   strncmp(name + n - strlen(SPARE_TAIL), SPARE_TAIL, strlen(SPARE_TAIL)) == 0) {
		(void)snprintf(ret->spare, sizeof(ret->spare), "%.*s", (int)n, name);
	}
}

static int find_parts(struct session *session, struct parts *ret, struct coppice_error *err)
{
	struct part_tags tags = { .has_copy = false };
	json_t *report, *rows, *row;
	size_t i;
	int r = session_do(session, &report, err,
			   "lvs -a -o lv_name,lv_tags,segtype,lv_metadata_size %s",
			   session->lvm->vg);

	if (r < 0)
		return r;
	*ret = (struct parts){ 0 };
	rows = json_object_get(json_array_get(json_object_get(report, "report"), 0), "lv");
	json_array_foreach (rows, i, row)
		take_part(session->lvm, row, ret, &tags);
	json_decref(report);
	/* What is mended again has the tag of the time before. */
	ret->has_old = tags.has_copy && ret->mended.text[0] &&
		       strcmp(ret->mended.text, tags.metadata.text) == 0 &&
		       strcmp(ret->mended.text, tags.copy.text) != 0;
	ret->has_copy = tags.has_copy && tags.copy.text[0] && !ret->has_old;
	ret->has_stranger = tags.has_copy && !ret->has_copy && !ret->has_old;
	return ret->metadata_bytes ? COPPICE_OK
				   : fail(err, COPPICE_FAILED,
					  "lvs does not say how large the metadata of '%s/%s' is",
					  session->lvm->vg, session->lvm->thin);
}

bool lvm_is_mending(const struct lvm_pool *lvm, const char *name, const char *tags)
{
	struct uuid id;

	mending_get(tags, &id);
	return id.text[0] &&
	       (strcmp(name, lvm->thin) == 0 || (strncmp(name, MENDING, strlen(MENDING)) == 0 &&
						 strcmp(name + strlen(MENDING), lvm->thin) == 0));
}

/* ---- the end of it ---- */

/*
 * First what is there, then the tag that says what it is. What was done before is on the disk then:
 * LVM may have been told to discard what it removes.
 */
static int end(struct session *session, const struct parts *parts, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	int why = parts->has_old ? lvm_flush(lvm) : 0;
	int r = why ? fail_errno(err, why, "cannot flush the disks of '%s'", lvm->vg) : COPPICE_OK;

	if (r == COPPICE_OK && (parts->has_copy || parts->has_old))
		r = session_do(session, NULL, err, "lvremove -q -y -f %s/" MENDING "%s", lvm->vg,
			       lvm->thin);
	if (r == COPPICE_OK && parts->mended.text[0])
		r = session_do(session, NULL, err, "lvchange -q --deltag=" TAG_MENDING "=%s %s/%s",
			       parts->mended.text, lvm->vg, lvm->thin);
	return r;
}

int lvm_mending_sweep(struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(session_end) struct session session = { 0 };
	struct parts parts;
	char device[PATH_MAX];
	int r = session_begin(lvm, true, &session, err);

	if (r < 0 || !lvm_pool_device(lvm, device)) /* another has unmounted it */
		return r;
	r = find_parts(&session, &parts, err);
	return r < 0 ? r : end(&session, &parts, err);
}

static int swap(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;

	return session_do(session, NULL, err,
			  "lvconvert -q -y --swapmetadata --poolmetadata %s/" MENDING "%s %s/%s",
			  lvm->vg, lvm->thin, lvm->vg, lvm->thin);
}

/* Of a thin pool that is not active: it has what it had before. */
static int undo_left(struct session *session, struct parts *parts, struct coppice_error *err)
{
	int r = COPPICE_OK;

	if (parts->has_old)
		r = swap(session, err);
	if (r == COPPICE_OK)
		r = end(session, parts, err);
	if (r == COPPICE_OK)
		parts->has_copy = parts->has_old = false;
	return r;
}

/* ---- a logical volume for the copy ---- */

/*
 * Where there is no other room, in the place of the spare, which is kept for this: of a group that
 * we made. LVM makes it anew when it needs it; its room is free then.
 */
static int make_copy_volume(struct session *session, const struct parts *parts,
			    const struct uuid *id, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	int r = COPPICE_NO_SPACE;

	for (int i = 0; i < 2 && r == COPPICE_NO_SPACE; i++) {
		if (i == 1 && (!parts->spare[0] || !lvm->source))
			break;
		if (i == 1)
			r = session_do(session, NULL, err, "lvremove -q -y -f %s/%s", lvm->vg,
				       parts->spare);
		if (i == 0 || r == COPPICE_OK)
			r = session_do(session, NULL, err,
				       "lvcreate -q -y -Zn -Wn -an -kn -L %llub -n " MENDING
				       "%s --addtag=" TAG_MENDING "=%s %s",
				       (unsigned long long)parts->metadata_bytes, lvm->thin,
				       id->text, lvm->vg);
	}
	return r;
}

/* ---- programs ---- */

/*
 * With the lock of the group, as lvm itself has it: when we are killed, who comes next waits until
 * it has ended.
 */
static int run(const struct lvm_pool *lvm, const char *const argv[], int *ret_status,
	       struct coppice_error *err)
{
	_cleanup_(run_result_done) struct run_result result = { 0 };
	_cleanup_(closep) int held = fcntl(lvm->lock_fd, F_DUPFD, 3); /* is inherited */
	int r;

	if (held < 0)
		return fail_errno(err, errno, "cannot keep the lock of '%s'", lvm->vg);
	r = runner.run(argv, &result, err);
	*ret_status = result.exit_status;
	return r;
}

/* Is it sound? Or a failure to find out. */
static int check(const struct lvm_pool *lvm, const char *device, bool *ret,
		 struct coppice_error *err)
{
	const char *const argv[] = { "thin_check", "-q", device, NULL };
	int status = 1, r;

	if (pool_is_interrupted(&lvm->pool))
		return fail(err, COPPICE_INTERRUPTED, "interrupted");
	r = run(lvm, argv, &status, err);
	*ret = r == COPPICE_OK && status == 0;
	return r;
}

/*
 * By a process of its own: lvm that has activated a part once takes each lvchange after it for
 * one of a part, and refuses it ("Cannot change LV properties when activating component LVs").
 */
static int activate_part(const struct lvm_pool *lvm, const char *name, struct coppice_error *err)
{
	_cleanup_(freep) char *part = text_format("%s/%s", lvm->vg, name);
	const char *const argv[] = { "lvchange", "-q", "-y", "-ay", "-K", part, NULL };
	int status = 1, r;

	if (!part)
		return fail_memory(err);
	r = run(lvm, argv, &status, err);
	return r == COPPICE_OK && status != 0
		       ? fail(err, COPPICE_FAILED, "cannot activate '%s'", part)
		       : r;
}

/* ---- what is on it ---- */

static int copy_blocks(const struct lvm_pool *lvm, int from, int to, struct coppice_error *err)
{
	_cleanup_(freep) void *buffer = NULL;
	ssize_t n;

	if (posix_memalign(&buffer, ALIGNMENT, COPY_BYTES) != 0) {
		buffer = NULL;
		return fail_memory(err);
	}
	while ((n = read(from, buffer, COPY_BYTES)) != 0) {
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(err, errno, "cannot read the thin pool's metadata");
		r = pool_is_interrupted(&lvm->pool)
			    ? fail(err, COPPICE_INTERRUPTED, "interrupted")
			    : write_all(to, buffer, (size_t)n, "a copy of the thin pool's metadata",
					err);
		if (r < 0)
			return r;
	}
	return fsync(to) < 0 ? fail_errno(err, errno, "cannot write the thin pool's metadata")
			     : COPPICE_OK;
}

static int check_with(const struct lvm_pool *lvm, int fd, const char *device, uint64_t held,
		      bool *ret, struct coppice_error *err)
{
	int r = thin_metadata_hold(fd, held, err);

	return r < 0 ? r : check(lvm, device, ret, err);
}

/* Of those that it may have held still: one, unless its counts are wrong otherwise. */
static int find_held(const struct lvm_pool *lvm, int fd, const char *device, bool *ret,
		     struct coppice_error *err)
{
	uint64_t at = 0;
	int r;

	*ret = false;
	do {
		r = thin_metadata_find_snapshot(fd, at, &at, err);
		if (r == COPPICE_OK && at)
			r = check_with(lvm, fd, device, at, ret, err);
	} while (r == COPPICE_OK && at && !*ret);
	return r;
}

/*
 * COPPICE_UNAVAILABLE: it is not sound even so. COPPICE_FAILED: it is sound as it is, so LVM has
 * other reasons.
 */
static int mend_copy(const struct lvm_pool *lvm, const char *from, const char *to,
		     struct coppice_error *err)
{
	_cleanup_(closep) int from_fd = open(from, O_RDONLY | O_DIRECT | O_CLOEXEC);
	_cleanup_(closep) int to_fd = open(to, O_RDWR | O_DIRECT | O_CLOEXEC);
	bool is_sound = false;
	uint64_t held;
	int r;

	if (from_fd < 0 || to_fd < 0)
		return fail_errno(err, errno, "cannot open '%s' and '%s'", from, to);
	r = copy_blocks(lvm, from_fd, to_fd, err);
	if (r == COPPICE_OK)
		r = check(lvm, to, &is_sound, err);
	if (r == COPPICE_OK && is_sound)
		return fail(err, COPPICE_FAILED, "thin_check finds the metadata sound");
	if (r == COPPICE_OK)
		r = thin_metadata_held(to_fd, &held, err);
	if (r == COPPICE_OK)
		r = held ? check_with(lvm, to_fd, to, 0, &is_sound, err)
			 : find_held(lvm, to_fd, to, &is_sound, err);
	return (r == COPPICE_OK && !is_sound) || r == COPPICE_UNAVAILABLE
		       ? fail_damaged(lvm, "not by a cut while space was counted", err)
		       : r;
}

static int fill_copy(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	_cleanup_(freep) char *metadata = text_format("%s_tmeta", lvm->thin);
	_cleanup_(freep) char *copy = text_format(MENDING "%s", lvm->thin);
	char from[PATH_MAX], to[PATH_MAX];
	struct coppice_error why;
	int r;

	if (!metadata || !copy)
		return fail_memory(err);
	lvm_device(lvm, metadata, from);
	lvm_device(lvm, copy, to);
	r = activate_part(lvm, metadata, err);
	if (r == COPPICE_OK)
		r = lvm_activate(session, copy, err);
	if (r == COPPICE_OK)
		r = mend_copy(lvm, from, to, err);
	if (lvm_deactivate(session, copy, &why) < 0 && r == COPPICE_OK) {
		*err = why;
		r = why.code;
	}
	if (lvm_deactivate(session, metadata, &why) < 0 && r == COPPICE_OK) {
		*err = why;
		r = why.code;
	}
	return r;
}

/* ---- all of it ---- */

/* The copy is sound: it takes the place, if LVM takes it, too. */
static int put_in_place(struct session *session, const struct uuid *id, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	struct coppice_error ignored;
	int r = session_do(session, NULL, err, "lvchange -q --addtag=" TAG_MENDING "=%s %s/%s",
			   id->text, lvm->vg, lvm->thin);

	if (r == COPPICE_OK)
		r = swap(session, err);
	if (r < 0)
		return r;
	r = lvm_activate(session, lvm->thin, err);
	if (r < 0)
		(void)swap(session, &ignored);
	return r;
}

static int mend(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	struct coppice_error ignored;
	struct parts parts, left;
	struct uuid id;
	int r = find_parts(session, &parts, err);

	if (r == COPPICE_OK)
		r = undo_left(session, &parts, err);
	if (r == COPPICE_OK)
		r = uuid_new(&id, err);
	if (r < 0)
		return r;
	if (!parts.is_linear)
		return fail_damaged(lvm, "it is not of the type linear", err);
	if (parts.has_stranger)
		return fail(err, COPPICE_UNAVAILABLE,
			    "the metadata of the thin pool '%s/%s' is damaged, and '%s/" MENDING
			    "%s', as a copy of it would be called, is somebody else's: lvrename it",
			    lvm->vg, lvm->thin, lvm->vg, lvm->thin);
	r = make_copy_volume(session, &parts, &id, err);
	if (r == COPPICE_NO_SPACE)
		return fail_damaged(lvm, "there is no room in the group for a copy of it", err);
	if (r == COPPICE_OK)
		r = fill_copy(session, err);
	if (r == COPPICE_OK)
		r = put_in_place(session, &id, err);
	/* What was there stays where it could neither be taken back nor be replaced. */
	if (find_parts(session, &left, &ignored) == COPPICE_OK &&
	    (r == COPPICE_OK || !left.has_old))
		(void)end(session, &left, &ignored);
	return r;
}

/* Killed while it had the metadata active, of which LVM activates no pool. */
static int end_left(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	_cleanup_(freep) char *metadata = text_format("%s_tmeta", lvm->thin);
	struct parts parts;
	char device[PATH_MAX];
	int r;

	if (!metadata)
		return fail_memory(err);
	lvm_device(lvm, metadata, device);
	if (access(device, F_OK) < 0)
		return COPPICE_OK;
	r = find_parts(session, &parts, err);
	return r < 0 || !parts.has_copy ? r : lvm_deactivate(session, metadata, err);
}

int lvm_activate_thin(struct lvm_pool *lvm, bool is_dry_run, struct coppice_error *err)
{
	_cleanup_(session_end) struct session session = { 0 };
	struct coppice_error why;
	char device[PATH_MAX];
	int r = session_begin(lvm, true, &session, err);

	if (r < 0 || lvm_pool_device(lvm, device)) /* another was faster */
		return r;
	r = end_left(&session, err);
	if (r == COPPICE_OK)
		r = lvm_activate(&session, lvm->thin, err);
	if (r == COPPICE_UNAVAILABLE && strstr(err->message, "Manual repair required") &&
	    !is_dry_run) {
		r = mend(&session, &why);
		if (r == COPPICE_UNAVAILABLE || r == COPPICE_INTERRUPTED)
			*err = why; /* else what it is about is told */
		r = r == COPPICE_OK ? r : (int)err->code;
	}
	if (r == COPPICE_OK)
		lvm_release_left(lvm);
	return r;
}
