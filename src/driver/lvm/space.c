/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What volumes take, counted in a snapshot of the thin pool's metadata, which the kernel keeps
 * aside meanwhile: nobody is locked out. There is only one such snapshot at a time. A file that
 * is locked while it is ours says so, with the boot, and what it says outlives a kill.
 */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "driver/lvm/thin_metadata.h"

#define LOCK_PAUSE_MS 5

/* ---- the snapshot of the metadata ---- */

struct held {
	struct lvm_pool *lvm;
	int lock_fd; /* the file; or -1 */
	int fd;      /* the metadata; or -1 */
};

static void held_release(struct held *held)
{
	struct coppice_error ignored;

	if (held->fd >= 0) {
		(void)close(take_fd(&held->fd));
		if (lvm_pool_tell(held->lvm, "release_metadata_snap", &ignored) == COPPICE_OK)
			(void)!ftruncate(held->lock_fd, 0);
	}
	if (held->lock_fd >= 0)
		(void)close(take_fd(&held->lock_fd));
}

/* -errno */
static int open_lock(const struct lvm_pool *lvm)
{
	_cleanup_(freep) char *path = text_format("%s/reserved", lvm->files.path);
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;

	if (fd >= 0)
		return fd;
	return path ? -errno : -ENOMEM;
}

static int lock(const struct lvm_pool *lvm, unsigned most_ms, int *ret_fd,
		struct coppice_error *err)
{
	const struct pool *pool = &lvm->pool;
	int64_t deadline_ms = clock_ms() + most_ms;
	int fd = open_lock(lvm), r = COPPICE_OK;

	if (fd < 0)
		return fail_errno(err, -fd, "cannot open '%s/reserved'", lvm->files.path);
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			r = fail_errno(err, errno, "cannot lock '%s/reserved'", lvm->files.path);
		else if (pool_is_interrupted(pool))
			r = fail(err, COPPICE_INTERRUPTED, "interrupted");
		else if (clock_ms() >= deadline_ms)
			r = fail(err, COPPICE_BUSY,
				 "another command is counting the space of '%s/%s'", lvm->vg,
				 lvm->thin);
		if (r < 0) {
			(void)close(fd);
			return r;
		}
		clock_pause(LOCK_PAUSE_MS);
	}
	*ret_fd = fd;
	return COPPICE_OK;
}

/* The value of "NAME=…" among what lvmconfig printed: to the end of its line. */
static const char *config_of(const char *printed, const char *name)
{
	const char *at = strstr(printed, name);
	size_t n = strlen(name);

	return at && (at == printed || at[-1] == '\n') && at[n] == '=' ? at + n + 1 : "";
}

/* Is each of these one with which thin_check compares all counts? ["-q","--clear-needs-check-flag"]
 */
static bool are_options_whole(const char *list)
{
	static const char *const good[] = { "-q", "--quiet", "--clear-needs-check-flag", "" };
	const char *end = list + strcspn(list, "\n");

	if (list == end)
		return false;
	for (const char *at = memchr(list, '"', (size_t)(end - list)); at;) {
		size_t n = strcspn(at + 1, "\"\n");
		bool is_good = false;

		for (size_t i = 0; i < ARRAY_SIZE(good); i++)
			is_good |= strlen(good[i]) == n && strncmp(at + 1, good[i], n) == 0;
		if (!is_good || at[n + 1] != '"')
			return false;
		at = memchr(at + n + 2, '"', (size_t)(end - at - n - 2));
	}
	return true;
}

/*
 * Has LVM had the counts of blocks checked? Somebody may have told it not to, or removed
 * thin_check. A snapshot that is not counted yet must not be released: that would free what is
 * live.
 */
static bool does_lvm_check(void)
{
	static const char *const argv[] = {
		"lvmconfig",
		"--type",
		"full",
		"global/thin_check_executable",
		"global/thin_check_options",
		NULL,
	};
	_cleanup_(run_result_done) struct run_result result = { 0 };
	struct coppice_error ignored;
	char path[PATH_MAX];

	return runner.run(argv, &result, &ignored) == COPPICE_OK && result.exit_status == 0 &&
	       sscanf(config_of(result.out, "thin_check_executable"), "\"%4095[^\"\n]\"", path) ==
		       1 &&
	       access(path, X_OK) == 0 &&
	       are_options_whole(config_of(result.out, "thin_check_options"));
}

/* Did somebody die who held one? *ret_boot: is it of this boot? Since another LVM has activated it.
 */
static bool was_left(int lock_fd, bool *ret_boot)
{
	_cleanup_(freep) char *boot = boot_id();
	char text[64] = "";

	if (pread(lock_fd, text, sizeof(text) - 1, 0) <= 0)
		return false;
	*ret_boot = boot && strcmp(text, boot) == 0;
	return true;
}

static int note_held(int lock_fd, struct coppice_error *err)
{
	_cleanup_(freep) char *boot = boot_id();
	const char *text = boot ? boot : "unknown";

	return ftruncate(lock_fd, 0) < 0 || pwrite(lock_fd, text, strlen(text), 0) < 0
		       ? fail_errno(err, errno, "cannot write that metadata is held")
		       : COPPICE_OK;
}

/*
 * COPPICE_BUSY: somebody else's, such as thin_ls or a backup, holds one, or ours for longer than
 * @most_ms. What is read is not in the page cache, where it would be what it was when it was read
 * before.
 */
static int reserve(struct lvm_pool *lvm, unsigned most_ms, struct held *ret,
		   struct coppice_error *err)
{
	struct held held = { .lvm = lvm, .lock_fd = -1, .fd = -1 };
	char device[PATH_MAX], metadata[PATH_MAX + 8];
	struct coppice_error ignored;
	bool is_of_this_boot;
	int r = lock(lvm, most_ms, &held.lock_fd, err);

	if (r < 0)
		return r;
	if (was_left(held.lock_fd, &is_of_this_boot)) {
		if (is_of_this_boot || does_lvm_check())
			(void)lvm_pool_tell(lvm, "release_metadata_snap", &ignored);
		else
			r = fail(err, COPPICE_BUSY, "what was held of '%s/%s' may not be counted",
				 lvm->vg, lvm->thin);
	}
	if (r == COPPICE_OK)
		r = note_held(held.lock_fd, err);
	if (r == COPPICE_OK && lvm_pool_tell(lvm, "reserve_metadata_snap", &ignored) < 0) {
		(void)!ftruncate(held.lock_fd, 0);
		r = fail(err, COPPICE_BUSY,
			 "the metadata of the thin pool '%s/%s' is held by somebody else", lvm->vg,
			 lvm->thin);
	}
	if (r == COPPICE_OK) {
		lvm_device(lvm, lvm->thin, device);
		(void)snprintf(metadata, sizeof(metadata), "%s_tmeta", device);
		held.fd = open(metadata, O_RDONLY | O_DIRECT | O_CLOEXEC);
		if (held.fd < 0) {
			r = fail_errno(err, errno, "cannot open '%s'", metadata);
			(void)lvm_pool_tell(lvm, "release_metadata_snap", &ignored);
			(void)!ftruncate(held.lock_fd, 0);
		}
	}
	if (r < 0)
		held_release(&held);
	else
		*ret = held;
	return r;
}

void lvm_release_left(struct lvm_pool *lvm)
{
	struct coppice_error ignored;
	struct pool_status status;
	int fd = open_lock(lvm); /* -ENOENT: this state directory has none yet, so nobody has it */

	if ((fd < 0 && fd != -ENOENT) || (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)) {
		closep(&fd); /* somebody has a snapshot by now, and what was left is gone */
		return;
	}
	if (lvm_pool_status(lvm, &status, &ignored) == COPPICE_OK && status.is_held &&
	    does_lvm_check())
		(void)lvm_pool_tell(lvm, "release_metadata_snap", &ignored);
	if (fd >= 0)
		(void)!ftruncate(fd, 0); /* it is not ours, if there is one still */
	closep(&fd);
}

/* ---- devices and groups ---- */

struct accounting {
	const struct lvm_pool *lvm;
	const struct lv_list *listing;
	struct thin_device *device; /* by id; one for each that is listed */
	struct thin_group *group;   /* one for each, though few may be used */
	const struct lv **by_group; /* sorted */
	uint32_t *group_of_device;  /* in the order of the listing */
};

static void accounting_done(struct accounting *accounting)
{
	free(accounting->device);
	free(accounting->group);
	free((void *)accounting->by_group);
	free(accounting->group_of_device);
}

static const char *group_text(const struct lv *lv)
{
	return lv->group.text[0] ? lv->group.text : lv->name;
}

static int compare_by_group(const void *a, const void *b)
{
	const struct lv *x = *(const struct lv *const *)a, *y = *(const struct lv *const *)b;

	return strcmp(group_text(x), group_text(y));
}

static const struct thin_device *find_device(const struct accounting *accounting,
					     const struct lv *lv)
{
	return thin_device_find(accounting->device, accounting->listing->n, (uint32_t)lv->thin_id);
}

static int accounting_begin(struct accounting *accounting, struct coppice_error *err)
{
	const struct lv_list *listing = accounting->listing;
	uint32_t group = 0;

	accounting->device = calloc(listing->n + 1, sizeof(*accounting->device));
	accounting->group = calloc(listing->n + 1, sizeof(*accounting->group));
	accounting->by_group = calloc(listing->n + 1, sizeof(*accounting->by_group));
	accounting->group_of_device = calloc(listing->n + 1, sizeof(*accounting->group_of_device));
	if (!accounting->device || !accounting->group || !accounting->by_group ||
	    !accounting->group_of_device)
		return fail_memory(err);
	for (size_t i = 0; i < listing->n; i++)
		accounting->by_group[i] = &listing->lv[i];
	qsort((void *)accounting->by_group, listing->n, sizeof(*accounting->by_group),
	      compare_by_group);
	for (size_t i = 0; i < listing->n; i++) {
		if (i > 0 &&
		    compare_by_group(&accounting->by_group[i - 1], &accounting->by_group[i]) != 0)
			group++;
		accounting->group_of_device[accounting->by_group[i] - listing->lv] = group;
	}
	for (size_t i = 0; i < listing->n; i++) {
		accounting->device[i] =
			(struct thin_device){ .id = (uint32_t)listing->lv[i].thin_id,
					      .group = accounting->group_of_device[i] };
		accounting->group[i].born = UINT32_MAX;
	}
	qsort(accounting->device, listing->n, sizeof(*accounting->device), thin_device_compare);
	return COPPICE_OK;
}

/* A group is as old as its volume; or older, where that is what was restored. */
static void find_born(void *user)
{
	struct accounting *accounting = user;
	const struct lv_list *listing = accounting->listing;

	for (size_t i = 0; i < listing->n; i++) {
		const struct lv *lv = &listing->lv[i];
		const struct thin_device *device = find_device(accounting, lv);
		uint32_t *born = &accounting->group[accounting->group_of_device[i]].born;
		char text[16];

		if (lv_is_hidden(accounting->lvm, lv) || lv->snapshot[0] || !device ||
		    !device->is_there)
			continue;
		*born = device->created;
		if (tag_get(lv->tags, TAG_BORN, text, sizeof(text)))
			*born = strcmp(text, BORN_UNKNOWN) == 0 ? UINT32_MAX
								: (uint32_t)strtoul(text, NULL, 10);
	}
}

/* ---- figures ---- */

struct wanted {
	const struct lv **by_uuid;
	size_t n;
};

static int compare_uuids(const void *a, const void *b)
{
	return strcmp((*(const struct lv *const *)a)->uuid.text,
		      (*(const struct lv *const *)b)->uuid.text);
}

static int sort_seen(const struct lvm_pool *lvm, const struct lv_list *listing, struct wanted *ret,
		     struct coppice_error *err)
{
	ret->by_uuid = calloc(listing->n + 1, sizeof(*ret->by_uuid));
	if (!ret->by_uuid)
		return fail_memory(err);
	for (size_t i = 0; i < listing->n; i++)
		if (!lv_is_hidden(lvm, &listing->lv[i]))
			ret->by_uuid[ret->n++] = &listing->lv[i];
	qsort((void *)ret->by_uuid, ret->n, sizeof(*ret->by_uuid), compare_uuids);
	return COPPICE_OK;
}

static const struct lv *find_uuid(const struct wanted *wanted, const struct uuid *uuid)
{
	struct lv key = { .uuid = *uuid };
	const struct lv *key_at = &key, **found;

	found = bsearch(&key_at, wanted->by_uuid, wanted->n, sizeof(*wanted->by_uuid),
			compare_uuids);
	return found ? *found : NULL;
}

static struct coppice_bytes exact(uint64_t blocks, uint64_t block_bytes)
{
	return (struct coppice_bytes){ COPPICE_EXACT, blocks * block_bytes };
}

static void figures_of(const struct accounting *accounting, const struct lv *lv,
		       uint64_t block_bytes, struct volume_usage *ret)
{
	const struct thin_device *device = find_device(accounting, lv);
	const struct thin_group *group;

	if (!device || !device->is_there)
		return;
	group = &accounting->group[device->group];
	ret->refers = exact(device->mapped_blocks, block_bytes);
	ret->alone = exact(device->exclusive_blocks, block_bytes);
	ret->unique = ret->alone;
	if (lv->snapshot[0])
		return;
	ret->unique = exact(group->unique_blocks, block_bytes);
	if (group->born != UINT32_MAX)
		ret->written = exact(group->written_blocks, block_bytes);
}

/* COPPICE_BUSY as reserve says. */
static int count(struct lvm_pool *lvm, struct accounting *accounting, struct pool_status *status,
		 struct coppice_error *err)
{
	_cleanup_(held_release) struct held held = { .lock_fd = -1, .fd = -1 };
	int r = lvm_pool_status(lvm, status, err);

	if (r == COPPICE_OK)
		r = reserve(lvm, lvm->lock_timeout_ms, &held, err);
	return r < 0 ? r
		     : thin_metadata_count(held.fd, false, accounting->device,
					   accounting->listing->n, accounting->group,
					   accounting->listing->n, find_born, accounting, err);
}

int lvm_usage(struct pool *pool, const struct volume_ref *refs, const struct uuid *groups,
	      struct volume_usage *ret, size_t n, bool is_exact, struct coppice_error *err)
{
	struct lvm_pool *lvm = lvm_pool_of(pool);
	_cleanup_(lv_list_done) struct lv_list own_list = { 0 };
	_cleanup_(accounting_done) struct accounting accounting = { .lvm = lvm };
	struct wanted wanted = { 0 };
	struct pool_status status;
	int r;

	for (size_t i = 0; i < n; i++)
		ret[i] = (struct volume_usage){ 0 };
	r = lvm_look(lvm, &own_list, &accounting.listing, err);
	if (r == COPPICE_OK)
		r = accounting_begin(&accounting, err);
	if (r == COPPICE_OK)
		r = count(lvm, &accounting, &status, err);
	if (r == COPPICE_BUSY) /* then nothing is known */
		return COPPICE_OK;
	if (r == COPPICE_OK)
		r = sort_seen(lvm, accounting.listing, &wanted, err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		const struct lv *lv = find_uuid(&wanted, &groups[i]);

		if (lv)
			figures_of(&accounting, lv, status.block_bytes, &ret[i]);
	}
	free((void *)wanted.by_uuid);
	return r;
}

void lvm_born(struct lvm_pool *lvm, const struct lv *lv, char ret[static BORN_TEXT_MAX])
{
	_cleanup_(held_release) struct held held = { .lock_fd = -1, .fd = -1 };
	struct coppice_error ignored;
	uint32_t created;

	if (tag_get(lv->tags, TAG_BORN, ret, BORN_TEXT_MAX))
		return;
	(void)snprintf(ret, BORN_TEXT_MAX, BORN_UNKNOWN);
	if (reserve(lvm, lvm->lock_timeout_ms > BEGUN_MS ? lvm->lock_timeout_ms : BEGUN_MS, &held,
		    &ignored) == COPPICE_OK &&
	    thin_metadata_created(held.fd, false, (uint32_t)lv->thin_id, &created, &ignored) ==
		    COPPICE_OK)
		(void)snprintf(ret, BORN_TEXT_MAX, "%u", created);
}
