/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thin pool that LVM does not activate, as the power went while space was counted. Linux writes
 * a superblock that has a snapshot of the metadata, or has it no more, before the counts that go
 * with it: cut in between, the counts of some blocks are one too low, or one too high, and
 * thin_check refuses them. Everything is as it was committed, but for what the superblock says of
 * that snapshot: it had none, or had it still.
 *
 * That is put right in a copy. If it is sound then, it takes the metadata's place in one step, and
 * what was there stays until the pool is active: lvconvert(8), --swapmetadata. lvconvert --repair
 * would write a map for each clone, where they share them.
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

bool lvm_is_mending(const struct lvm_pool *lvm, const char *name)
{
	return strncmp(name, MENDING, strlen(MENDING)) == 0 &&
	       strcmp(name + strlen(MENDING), lvm->thin) == 0;
}

static int remove_copy(struct session *session, struct coppice_error *err)
{
	return session_do(session, NULL, err, "lvremove -q -y -f %s/" MENDING "%s",
			  session->lvm->vg, session->lvm->thin);
}

static int remove_left(struct session *session, struct coppice_error *err)
{
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	int r = lv_list_read(session, &listing, err);

	return r < 0 || !listing.has_mending ? r : remove_copy(session, err);
}

int lvm_mending_sweep(struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(session_end) struct session session = { 0 };
	int r = session_begin(lvm, true, &session, err);

	return r < 0 ? r : remove_left(&session, err);
}

/* ---- a logical volume for the copy ---- */

struct parts {
	uint64_t metadata_bytes;
	char spare[LV_NAME_MAX]; /* which LVM keeps free for a repair; empty: none */
};

static int find_parts(struct session *session, struct parts *ret, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	json_t *report, *rows, *row;
	size_t i;
	int r = session_do(session, &report, err, "lvs -a -o lv_name,lv_metadata_size %s", lvm->vg);

	if (r < 0)
		return r;
	*ret = (struct parts){ 0 };
	rows = json_object_get(json_array_get(json_object_get(report, "report"), 0), "lv");
	json_array_foreach (rows, i, row) {
		const char *name = lvm_field(row, "lv_name"); /* "[lvol0_pmspare]" */
		size_t n;

		name += *name == '[';
		n = strcspn(name, "]");
		if (strcmp(name, lvm->thin) == 0)
			ret->metadata_bytes =
				strtoull(lvm_field(row, "lv_metadata_size"), NULL, 10);
		else if (n > strlen(SPARE_TAIL) && n < sizeof(ret->spare) &&
			 strncmp(name + n - strlen(SPARE_TAIL), SPARE_TAIL, strlen(SPARE_TAIL)) ==
				 0)
			(void)snprintf(ret->spare, sizeof(ret->spare), "%.*s", (int)n, name);
	}
	json_decref(report);
	return ret->metadata_bytes ? COPPICE_OK
				   : fail(err, COPPICE_FAILED,
					  "lvs does not say how large the metadata of '%s/%s' is",
					  lvm->vg, lvm->thin);
}

/* In the place of the spare, where there is no other: it is kept for this, and made anew. */
static int make_copy_volume(struct session *session, const struct parts *parts,
			    struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	int r = COPPICE_NO_SPACE;

	for (int i = 0; i < 2 && r == COPPICE_NO_SPACE; i++) {
		if (i == 1 && !parts->spare[0])
			break;
		if (i == 1)
			r = session_do(session, NULL, err, "lvremove -q -y -f %s/%s", lvm->vg,
				       parts->spare);
		if (i == 0 || r == COPPICE_OK)
			r = session_do(
				session, NULL, err,
				"lvcreate -q -y -Zn -Wn -an -kn -L %llub -n " MENDING "%s %s",
				(unsigned long long)parts->metadata_bytes, lvm->thin, lvm->vg);
	}
	return r;
}

/* ---- what is on it ---- */

static int copy_blocks(int from, int to, struct coppice_error *err)
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
		r = write_all(to, buffer, (size_t)n, "a copy of the thin pool's metadata", err);
		if (r < 0)
			return r;
	}
	return fsync(to) < 0 ? fail_errno(err, errno, "cannot write the thin pool's metadata")
			     : COPPICE_OK;
}

/* Is it sound? Or a failure to find out. */
static int check_with(int fd, const char *device, uint64_t held, bool *ret,
		      struct coppice_error *err)
{
	const char *const argv[] = { "thin_check", "-q", device, NULL };
	_cleanup_(run_result_done) struct run_result result = { 0 };
	int r = thin_metadata_hold(fd, held, err);

	if (r == COPPICE_OK)
		r = runner.run(argv, &result, err);
	*ret = r == COPPICE_OK && result.exit_status == 0;
	return r;
}

/* Of those that it may have held still, all but one are of long ago. */
static int find_held(int fd, const char *device, bool *ret, struct coppice_error *err)
{
	uint64_t at = 0;
	int r;

	*ret = false;
	do {
		r = thin_metadata_find_snapshot(fd, at, &at, err);
		if (r == COPPICE_OK && at)
			r = check_with(fd, device, at, ret, err);
	} while (r == COPPICE_OK && at && !*ret);
	return r;
}

/* COPPICE_UNAVAILABLE: it is not sound even so. */
static int mend_copy(const struct lvm_pool *lvm, const char *from, const char *to,
		     struct coppice_error *err)
{
	_cleanup_(closep) int from_fd = open(from, O_RDONLY | O_DIRECT | O_CLOEXEC);
	_cleanup_(closep) int to_fd = open(to, O_RDWR | O_DIRECT | O_CLOEXEC);
	bool is_sound = false;
	uint64_t held;
	int r;

	if (from_fd < 0 || to_fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", from_fd < 0 ? from : to);
	r = copy_blocks(from_fd, to_fd, err);
	if (r == COPPICE_OK)
		r = thin_metadata_held(to_fd, &held, err);
	if (r == COPPICE_OK)
		r = held ? check_with(to_fd, to, 0, &is_sound, err)
			 : find_held(to_fd, to, &is_sound, err);
	if ((r == COPPICE_OK && !is_sound) || r == COPPICE_UNAVAILABLE)
		r = fail(err, COPPICE_UNAVAILABLE,
			 "the metadata of the thin pool '%s/%s' is damaged: "
			 "lvconvert --repair %s/%s may mend it",
			 lvm->vg, lvm->thin, lvm->vg, lvm->thin);
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

	return part ? run_checked(argv, err) : fail_memory(err);
}

static int fill_copy(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	_cleanup_(freep) char *metadata = text_format("%s_tmeta", lvm->thin);
	_cleanup_(freep) char *copy = text_format(MENDING "%s", lvm->thin);
	char from[PATH_MAX], to[PATH_MAX];
	struct coppice_error ignored;
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
	(void)lvm_deactivate(session, copy, &ignored);
	(void)lvm_deactivate(session, metadata, &ignored);
	return r;
}

/* ---- all of it ---- */

static int mend(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	struct coppice_error ignored;
	struct parts parts;
	int r = remove_left(session, err);

	if (r == COPPICE_OK)
		r = find_parts(session, &parts, err);
	if (r == COPPICE_OK)
		r = make_copy_volume(session, &parts, err);
	if (r < 0)
		return r;
	r = fill_copy(session, err);
	if (r == COPPICE_OK)
		r = session_do(session, NULL, err,
			       "lvconvert -q -y --swapmetadata --poolmetadata %s/" MENDING
			       "%s %s/%s",
			       lvm->vg, lvm->thin, lvm->vg, lvm->thin);
	if (r < 0) {
		(void)remove_copy(session, &ignored);
		return r;
	}
	r = lvm_activate(session, lvm->thin, err);
	if (r == COPPICE_OK)
		(void)remove_copy(session, &ignored); /* which has what was there */
	return r;
}

/* Killed while it had the metadata active, of which LVM activates no pool. */
static int end_left(struct session *session, struct coppice_error *err)
{
	struct lvm_pool *lvm = session->lvm;
	_cleanup_(freep) char *metadata = text_format("%s_tmeta", lvm->thin);
	_cleanup_(lv_list_done) struct lv_list listing = { 0 };
	char device[PATH_MAX];
	int r;

	if (!metadata)
		return fail_memory(err);
	lvm_device(lvm, metadata, device);
	if (access(device, F_OK) < 0 || lvm_pool_device(lvm, device))
		return COPPICE_OK;
	r = lv_list_read(session, &listing, err);
	return r < 0 || !listing.has_mending ? r : lvm_deactivate(session, metadata, err);
}

/* Another may have activated it while the lock was waited for; it stays so. */
int lvm_activate_thin(struct lvm_pool *lvm, struct coppice_error *err)
{
	_cleanup_(session_end) struct session session = { 0 };
	struct coppice_error why;
	int r = session_begin(lvm, true, &session, err);

	if (r == COPPICE_OK)
		r = end_left(&session, err);
	if (r == COPPICE_OK)
		r = lvm_activate(&session, lvm->thin, err);
	if (r != COPPICE_UNAVAILABLE || !strstr(err->message, "Manual repair required"))
		return r;
	r = mend(&session, &why);
	if (r == COPPICE_UNAVAILABLE)
		*err = why; /* else what it is about is told, and not what there is no room for */
	return r == COPPICE_OK ? r : err->code;
}
