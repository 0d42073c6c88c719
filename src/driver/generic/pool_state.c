/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/pool_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"

void state_done(struct pool_state *state)
{
	if (state->owed_fd >= 0)
		(void)close(take_fd(&state->owed_fd));
	free(take_ptr(&state->path));
}

/* ---- locks ---- */

static char *path_of(const struct pool_state *state, const char *name)
{
	return text_format("%s/%s", state->path, name);
}

/* COPPICE_BUSY: a sweeper had it, between our making and our locking it. */
static int lock_make(const struct pool_state *state, const char *name, int *ret,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *path = path_of(state, name);
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

int state_lock_new(const struct pool_state *state, const char *prefix, struct uuid *ret_id,
		   int *ret_fd, struct coppice_error *err)
{
	int r = COPPICE_BUSY;

	for (size_t i = 0; i < LOCK_TRIES && r == COPPICE_BUSY; i++) {
		char name[64];

		r = uuid_new(ret_id, err);
		(void)snprintf(name, sizeof(name), "%s%s", prefix, ret_id->text);
		if (r == COPPICE_OK)
			r = lock_make(state, name, ret_fd, err);
	}
	return r;
}

bool state_lock_is_over(const struct pool_state *state, const char *name, int *ret_fd)
{
	_cleanup_(freep) char *path = path_of(state, name);
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

bool state_lock_is_there(const struct pool_state *state, const char *name)
{
	_cleanup_(freep) char *path = path_of(state, name);

	return path && access(path, F_OK) == 0;
}

void state_lock_remove(const struct pool_state *state, const char *name)
{
	_cleanup_(freep) char *path = path_of(state, name);

	if (path)
		(void)unlink(path);
}

/* ---- drafts of the dead ---- */

#define SHOWN_TAIL ".shown"

int state_draft_show(const struct pool_state *state, struct pool *pool, const char *id,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *path = path_of(state, id);
	_cleanup_(freep) char *shown = text_format("%s/%s" SHOWN_TAIL, state->path, id);
	int r = COPPICE_OK;

	if (!path || !shown)
		return fail_memory(err);
	if (rename(path, shown) < 0 && errno != ENOENT)
		return fail_errno(err, errno, "cannot rename '%s'", path);
	if (pool->note_published)
		r = pool->note_published(pool->published_user, err);
	if (r == COPPICE_OK)
		(void)unlink(shown);
	return r;
}

/* "UUID.shown": the last sweep was killed before it was noted what it had shown. */
static bool is_shown(const char *name, struct uuid *ret)
{
	char text[UUID_TEXT_SIZE];

	(void)snprintf(text, sizeof(text), "%.*s", UUID_TEXT_SIZE - 1, name);
	return strlen(name) == UUID_TEXT_SIZE - 1 + strlen(SHOWN_TAIL) &&
	       strcmp(name + UUID_TEXT_SIZE - 1, SHOWN_TAIL) == 0 && uuid_parse(text, ret);
}

int state_drafts_each(const struct pool_state *state, state_draft_fn *fn, void *user, size_t *n,
		      struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = opendir(state->path);
	struct dirent *entry;
	int r = COPPICE_OK;

	if (!dir)
		return fail_errno(err, errno, "cannot read '%s'", state->path);
	while (r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
		_cleanup_(closep) int fd = -1;
		struct uuid id;

		if ((!uuid_parse(entry->d_name, &id) && !is_shown(entry->d_name, &id)) ||
		    !state_lock_is_over(state, id.text, &fd))
			continue;
		r = fn(user, id.text, fd, err);
		*n += r == COPPICE_OK;
	}
	return r;
}

int state_dead_each(const struct pool_state *state, const char *prefix, state_draft_fn *fn,
		    void *user, size_t *n, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = opendir(state->path);
	size_t length = strlen(prefix);
	struct dirent *entry;
	int r = COPPICE_OK;

	while (r == COPPICE_OK && dir && (entry = readdir(dir)) != NULL) {
		_cleanup_(closep) int fd = -1;
		struct uuid id;

		if (strncmp(entry->d_name, prefix, length) != 0 ||
		    !uuid_parse(entry->d_name + length, &id) ||
		    !state_lock_is_over(state, entry->d_name, &fd) || fd < 0)
			continue;
		r = fn(user, id.text, fd, err);
		*n += r == COPPICE_OK;
	}
	return r;
}

/* ---- is there anything to reap? ---- */

#define OWED  "owed-"
#define CLEAN "clean"

/* What was not made durable may be undone by a power cut; the file would not be. */
static bool is_marked_clean(const struct pool_state *state)
{
	_cleanup_(freep) char *path = path_of(state, CLEAN), *since = NULL, *now = boot_id();
	struct coppice_error ignored;

	return path && now && file_read(AT_FDCWD, path, 64, &since, &ignored) == COPPICE_OK &&
	       strcmp(since, now) == 0;
}

static void mark_clean(const struct pool_state *state)
{
	_cleanup_(freep) char *path = path_of(state, CLEAN), *now = boot_id();
	struct coppice_error ignored;

	if (path && now && !is_marked_clean(state))
		(void)file_write(AT_FDCWD, path, now, false, &ignored);
}

void state_owe(struct pool_state *state)
{
	struct coppice_error ignored;

	/* Where the host's disk is full there is no file for it; to remove one is possible. */
	if (state->owed_fd < 0 &&
	    state_lock_new(state, OWED, &state->owed, &state->owed_fd, &ignored) < 0)
		state_lock_remove(state, CLEAN);
}

void state_owe_nothing(struct pool_state *state)
{
	char name[64];

	if (state->owed_fd < 0)
		return;
	(void)snprintf(name, sizeof(name), OWED "%s", state->owed.text);
	state_lock_remove(state, name);
	(void)close(take_fd(&state->owed_fd));
}

void state_leave_owed(struct pool_state *state)
{
	if (state->owed_fd >= 0)
		(void)close(take_fd(&state->owed_fd));
}

void state_debts_take(const struct pool_state *state, struct state_debts *ret)
{
	_cleanup_(closedirp) DIR *dir = opendir(state->path);
	struct dirent *entry;

	*ret = (struct state_debts){ 0 };
	while (dir && (entry = readdir(dir)) != NULL) {
		struct state_debt *more, debt;

		if (strncmp(entry->d_name, OWED, strlen(OWED)) != 0 ||
		    !uuid_parse(entry->d_name + strlen(OWED), &debt.id) ||
		    !state_lock_is_over(state, entry->d_name, &debt.fd) || debt.fd < 0)
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

void state_debts_done(struct state_debts *debts)
{
	for (size_t i = 0; i < debts->n; i++)
		(void)close(debts->debt[i].fd);
	free(debts->debt);
	*debts = (struct state_debts){ 0 };
}

void state_debts_paid(struct pool_state *state, struct state_debts *debts)
{
	for (size_t i = 0; i < debts->n; i++) {
		char name[64];

		(void)snprintf(name, sizeof(name), OWED "%s", debts->debt[i].id.text);
		state_lock_remove(state, name);
	}
	state_debts_done(debts);
	state_owe_nothing(state);
	mark_clean(state);
}

bool state_is_clean(const struct pool_state *state)
{
	struct state_debts debts;
	bool is_clean;

	state_debts_take(state, &debts);
	is_clean = debts.n == 0 && state->owed_fd < 0 && is_marked_clean(state);
	state_debts_done(&debts);
	return is_clean;
}

void state_remove(struct pool_state *state)
{
	struct state_debts debts;

	state_debts_take(state, &debts);
	state_debts_paid(state, &debts);
	state_lock_remove(state, CLEAN);
	state_lock_remove(state, "stamp");
	(void)rmdir(state->path);
}
