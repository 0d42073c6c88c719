/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool's state directory, STATE/zfs/NAME: files that say who is at work, each locked by its
 * maker for as long as he lives.
 *
 *	UUID        a draft: draft.c
 *	UUID.shown  one whose maker is dead, and which a sweep is publishing
 *	owed-UUID   somebody took something out of sight, and is to reap it
 *	clean       since this start of the machine all was reaped; but for what is owed
 *	stamp       what touch changes
 *
 * So whoever comes next knows, without asking ZFS, whether something was left behind.
 */
#include "driver/zfs/zfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"

/* ---- locks ---- */

static char *path_of(const struct zfs_pool *zfs, const char *name)
{
	return text_format("%s/%s", zfs->state, name);
}

/* COPPICE_BUSY: a sweeper had it, between our making and our locking it. */
static int lock_make(const struct zfs_pool *zfs, const char *name, int *ret,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *path = path_of(zfs, name);
	_cleanup_(closep) int fd = -1;
	struct stat st;

	if (!path)
		return fail_memory(err);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail_errno(err, errno, "cannot create '%s'", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0 || st.st_nlink == 0)
		return fail(err, COPPICE_BUSY, "cannot lock '%s'", path);
	*ret = take_fd(&fd);
	return COPPICE_OK;
}

#define LOCK_TRIES 10

int zfs_lock_new(const struct zfs_pool *zfs, const char *prefix, struct uuid *ret_id, int *ret_fd,
		 struct coppice_error *err)
{
	int r = COPPICE_BUSY;

	for (size_t i = 0; i < LOCK_TRIES && r == COPPICE_BUSY; i++) {
		char name[64];

		r = uuid_new(ret_id, err);
		(void)snprintf(name, sizeof(name), "%s%s", prefix, ret_id->text);
		if (r == COPPICE_OK)
			r = lock_make(zfs, name, ret_fd, err);
	}
	return r;
}

bool zfs_lock_is_over(const struct zfs_pool *zfs, const char *name, int *ret_fd)
{
	_cleanup_(freep) char *path = path_of(zfs, name);
	_cleanup_(closep) int fd = -1;

	*ret_fd = -1;
	if (!path)
		return false;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return false;
	*ret_fd = take_fd(&fd);
	return true;
}

bool zfs_lock_is_there(const struct zfs_pool *zfs, const char *name)
{
	_cleanup_(freep) char *path = path_of(zfs, name);

	return path && access(path, F_OK) == 0;
}

void zfs_lock_remove(const struct zfs_pool *zfs, const char *name)
{
	_cleanup_(freep) char *path = path_of(zfs, name);

	if (path)
		(void)unlink(path);
}

/* ---- is there anything to reap? ---- */

#define OWED  "owed-"
#define CLEAN "clean"

/* What was not made durable may be undone by a power cut; the file would not be. */
static bool is_marked_clean(const struct zfs_pool *zfs)
{
	_cleanup_(freep) char *path = path_of(zfs, CLEAN), *since = NULL, *now = boot_id();
	struct coppice_error ignored;

	return path && now && file_read(AT_FDCWD, path, 64, &since, &ignored) == COPPICE_OK &&
	       strcmp(since, now) == 0;
}

static void mark_clean(const struct zfs_pool *zfs)
{
	_cleanup_(freep) char *path = path_of(zfs, CLEAN), *now = boot_id();
	struct coppice_error ignored;

	if (path && now && !is_marked_clean(zfs))
		(void)file_write(AT_FDCWD, path, now, false, &ignored);
}

void zfs_owe(struct zfs_pool *zfs)
{
	struct coppice_error ignored;

	/* Where the host's disk is full there is no file for it; to remove one is possible. */
	if (zfs->owed_fd < 0 && zfs_lock_new(zfs, OWED, &zfs->owed, &zfs->owed_fd, &ignored) < 0)
		zfs_lock_remove(zfs, CLEAN);
}

void zfs_owe_nothing(struct zfs_pool *zfs)
{
	char name[64];

	if (zfs->owed_fd < 0)
		return;
	(void)snprintf(name, sizeof(name), OWED "%s", zfs->owed.text);
	zfs_lock_remove(zfs, name);
	(void)close(take_fd(&zfs->owed_fd));
}

void zfs_leave_owed(struct zfs_pool *zfs)
{
	if (zfs->owed_fd >= 0)
		(void)close(take_fd(&zfs->owed_fd));
}

void zfs_debts_take(const struct zfs_pool *zfs, struct zfs_debts *ret)
{
	_cleanup_(closedirp) DIR *dir = opendir(zfs->state);
	struct dirent *entry;

	*ret = (struct zfs_debts){ 0 };
	while (dir && (entry = readdir(dir)) != NULL) {
		struct zfs_debt *more, debt;

		if (strncmp(entry->d_name, OWED, strlen(OWED)) != 0 ||
		    !uuid_parse(entry->d_name + strlen(OWED), &debt.id) ||
		    !zfs_lock_is_over(zfs, entry->d_name, &debt.fd) || debt.fd < 0)
			continue;
		more = reallocarray(ret->debt, ret->n + 1, sizeof(*more));
		if (!more) {
			(void)close(debt.fd);
			return; /* those that are left out are not paid */
		}
		ret->debt = more;
		ret->debt[ret->n++] = debt;
	}
}

void zfs_debts_done(struct zfs_debts *debts)
{
	for (size_t i = 0; i < debts->n; i++)
		(void)close(debts->debt[i].fd);
	free(debts->debt);
	*debts = (struct zfs_debts){ 0 };
}

void zfs_debts_paid(struct zfs_pool *zfs, struct zfs_debts *debts)
{
	for (size_t i = 0; i < debts->n; i++) {
		char name[64];

		(void)snprintf(name, sizeof(name), OWED "%s", debts->debt[i].id.text);
		zfs_lock_remove(zfs, name);
	}
	zfs_debts_done(debts);
	zfs_owe_nothing(zfs);
	mark_clean(zfs);
}

bool zfs_is_clean(const struct zfs_pool *zfs)
{
	struct zfs_debts debts;
	bool is_clean;

	zfs_debts_take(zfs, &debts);
	is_clean = debts.n == 0 && zfs->owed_fd < 0 && is_marked_clean(zfs);
	zfs_debts_done(&debts);
	return is_clean;
}

void zfs_state_remove(struct zfs_pool *zfs)
{
	struct zfs_debts debts;

	zfs_debts_take(zfs, &debts);
	zfs_debts_paid(zfs, &debts);
	zfs_lock_remove(zfs, CLEAN);
	zfs_lock_remove(zfs, "stamp");
	(void)rmdir(zfs->state);
}
