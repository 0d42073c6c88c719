/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Talking with lvm(8). One process does all that a pool is asked for, as it takes longer to
 * start than to do a command; it answers each with a text of JSON, in which its status is, as the
 * profile asks for that LVM's own daemon uses. Its reasons are English, so what is not recognised
 * is COPPICE_FAILED, never "does not exist".
 */
#include "driver/lvm/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "driver/generic/explain.h"

#define LOCKS         "/run/lock/coppice"
#define LOCK_PAUSE_MS 5

struct meaning {
	const char *text;
	enum coppice_code code;
};

/* First match wins. Samples are in tests/unit/test_lvm.c. */
static const struct meaning meanings[] = {
	{ "already exists", COPPICE_EXISTS },
	{ "contains a filesystem in use", COPPICE_BUSY },
	{ "in use", COPPICE_BUSY },
	{ "is used by another device", COPPICE_BUSY },
	{ "insufficient free space", COPPICE_NO_SPACE },
	{ "insufficient suitable", COPPICE_NO_SPACE },
	{ "no free space", COPPICE_NO_SPACE },
	{ "reached threshold", COPPICE_NO_SPACE },
	{ "out of data space", COPPICE_NO_SPACE },
	{ "metadata too large", COPPICE_NO_SPACE },
	{ "no space", COPPICE_NO_SPACE },
	{ "Manual repair required", COPPICE_UNAVAILABLE },
	{ "needs check", COPPICE_UNAVAILABLE },
	{ "needs_check", COPPICE_UNAVAILABLE },
	{ "transaction_id", COPPICE_UNAVAILABLE },
	{ "Cannot process volume group", COPPICE_UNAVAILABLE },
	{ "missing PV", COPPICE_UNAVAILABLE },
	{ "is missing", COPPICE_UNAVAILABLE },
	{ "/dev/mapper/control", COPPICE_UNAVAILABLE },
	{ "Failed to find logical volume", COPPICE_NOT_FOUND },
	{ "Snapshot origin LV", COPPICE_NOT_FOUND },
	{ "Existing logical volume", COPPICE_NOT_FOUND },
};

int lvm_command_error(const char *command, const char *said, struct coppice_error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(meanings); i++)
		if (strcasestr(said, meanings[i].text))
			return fail(err, meanings[i].code, "%s: %s", command, said);
	return fail(err, COPPICE_FAILED, "%s: %s", command,
		    said[0] ? said : "failed, and did not say why");
}

/* ---- the lock of a group ---- */

static int lock_open(const struct lvm_pool *lvm, int *ret_fd, struct coppice_error *err)
{
	_cleanup_(freep) char *path = text_format(LOCKS "/vg-%s", lvm->vg);
	int fd, r;

	if (!path)
		return fail_memory(err);
	r = directory_ensure(AT_FDCWD, "/run/lock", 01777, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, LOCKS, 0700, err);
	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	*ret_fd = fd;
	return COPPICE_OK;
}

static int lock_take(const struct lvm_pool *lvm, struct coppice_error *err)
{
	const struct pool *pool = &lvm->pool;
	unsigned most_ms = lvm->has_changed && lvm->lock_timeout_ms < BEGUN_MS
				   ? BEGUN_MS
				   : lvm->lock_timeout_ms;
	int64_t deadline_ms = clock_ms() + most_ms;

	while (flock(lvm->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return fail_errno(err, errno, "cannot lock the volume group '%s'", lvm->vg);
		if (pool_is_interrupted(pool))
			return fail(err, COPPICE_INTERRUPTED, "interrupted");
		if (clock_ms() >= deadline_ms)
			return fail(err, COPPICE_BUSY,
				    "another command is changing the volume group '%s'; waited "
				    "%u ms, see --lock-timeout",
				    lvm->vg, most_ms);
		clock_pause(LOCK_PAUSE_MS);
	}
	/* What lvm said on its standard error is kept for who wants to know, until the next. */
	(void)!ftruncate(lvm->lock_fd, 0);
	return COPPICE_OK;
}

/* ---- sessions ---- */

void lvm_talk_end(struct lvm_pool *lvm)
{
	/* It has answered all that it was told, and takes its time to tidy up. */
	if (lvm->talk.pid > 0 && lvm->talker == getpid())
		talk_kill(&lvm->talk);
	if (lvm->lock_fd >= 0)
		(void)close(take_fd(&lvm->lock_fd));
	lvm->talk = (struct talk){ .to = -1 };
}

/* What is forked has a talk of its own: of two, each would read what the other is answered. */
static int talk_ensure(struct lvm_pool *lvm, struct coppice_error *err)
{
	static const char *const argv[] = { "lvm", NULL };
	int r;

	if (lvm->talk.pid > 0 && lvm->talker == getpid())
		return COPPICE_OK;
	lvm_talk_end(lvm);
	r = lock_open(lvm, &lvm->lock_fd, err);
	if (r == COPPICE_OK)
		r = runner.talk(argv, "LVM_COMMAND_PROFILE=lvmdbusd", lvm->lock_fd, &lvm->talk,
				err);
	lvm->talker = getpid();
	return r;
}

int session_begin(struct lvm_pool *lvm, bool is_changing, struct session *ret,
		  struct coppice_error *err)
{
	int r = talk_ensure(lvm, err);

	if (r == COPPICE_OK && is_changing) {
		lv_list_free(take_ptr(&lvm->opened));
		r = lock_take(lvm, err);
	}
	if (r == COPPICE_OK)
		*ret = (struct session){ .lvm = lvm, .is_changing = is_changing };
	return r;
}

void session_end(struct session *session)
{
	int why = session->did_change ? lvm_flush(session->lvm) : 0;

	if (why)
		session->lvm->flush_failed = why;
	if (session->did_change)
		session->lvm->has_changed = true;
	if (session->is_changing && session->lvm->lock_fd >= 0)
		(void)flock(session->lvm->lock_fd, LOCK_UN);
	*session = (struct session){ 0 };
}

static json_t *answer(struct session *session, struct coppice_error *err)
{
	json_t *json = json_loadf(session->lvm->talk.from, JSON_DISABLE_EOF_CHECK, NULL);

	if (json)
		return json;
	lvm_talk_end(session->lvm);
	session->lvm->is_doubtful = true;
	(void)fail(err, COPPICE_UNAVAILABLE, "lvm ended, or said what is no JSON");
	return NULL;
}

static bool has_succeeded(json_t *json)
{
	bool is_good = false;
	json_t *entry;
	size_t i;

	json_array_foreach (json_object_get(json, "log"), i, entry)
		if (strcmp(lvm_field(entry, "log_type"), "status") == 0)
			is_good = strcmp(lvm_field(entry, "log_ret_code"), "1") == 0;
	return is_good;
}

/* Why did the last command fail? */
static int ask_why(struct session *session, const char *command, struct coppice_error *err)
{
	_cleanup_(text_done) struct text said = TEXT_INIT;
	_cleanup_(freep) char *text = NULL;
	json_t *json, *entry;
	size_t i;
	int r;

	r = talk_say(&session->lvm->talk, "lastlog", err);
	if (r < 0)
		return r;
	json = answer(session, err);
	if (!json)
		return err->code;
	json_array_foreach (json_object_get(json, "log"), i, entry)
		if (strcmp(lvm_field(entry, "log_type"), "error") == 0)
			text_add(&said, "%s%s", said.length ? "; " : "",
				 lvm_field(entry, "log_message"));
	json_decref(json);
	text = text_take(&said);
	return text ? lvm_command_error(command, text, err) : fail_memory(err);
}

static int session_vdo(struct session *session, json_t **ret_report, struct coppice_error *err,
		       const char *fmt, va_list args)
{
	_cleanup_(freep) char *line = NULL;
	json_t *json;
	int r;

	if (session->lvm->talk.pid <= 0)
		return fail(err, COPPICE_UNAVAILABLE, "lvm has ended");
	session->did_change |= !ret_report;
	if (vasprintf(&line, fmt, args) < 0) {
		line = NULL;
		return fail_memory(err);
	}
	r = talk_say(&session->lvm->talk, line, err);
	if (r < 0)
		return r;
	json = answer(session, err);
	if (!json)
		return err->code;
	if (!has_succeeded(json)) {
		json_decref(json);
		line[strcspn(line, " ")] = '\0';
		return ask_why(session, line, err);
	}
	if (ret_report)
		*ret_report = json;
	else
		json_decref(json);
	return COPPICE_OK;
}

int session_do(struct session *session, json_t **ret_report, struct coppice_error *err,
	       const char *fmt, ...)
{
	va_list args;
	int r;

	va_start(args, fmt);
	r = session_vdo(session, ret_report, err, fmt, args);
	va_end(args);
	return r;
}

int lvm_do(struct lvm_pool *lvm, json_t **ret_report, struct coppice_error *err, const char *fmt,
	   ...)
{
	_cleanup_(session_end) struct session session = { 0 };
	va_list args;
	int r;

	r = session_begin(lvm, !ret_report, &session, err);
	if (r < 0)
		return r;
	va_start(args, fmt);
	r = session_vdo(&session, ret_report, err, fmt, args);
	va_end(args);
	return r;
}

/* Has it no blanks, and nothing else that lvm would not take for a letter? */
static bool is_plain(const char *word)
{
	return word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				 "+_.-/=")] == '\0';
}

static int run_alone(const char *const argv[], struct coppice_error *err)
{
	_cleanup_(run_result_done) struct run_result result = { 0 };
	_cleanup_(text_done) struct text said = TEXT_INIT;
	_cleanup_(freep) char *text = NULL;
	int r = runner.run(argv, &result, err);

	if (r < 0 || result.exit_status == 0)
		return r;
	for (char *line = result.err, *end; *line; line = end) {
		line += strspn(line, " ");
		end = line + strcspn(line, "\n");
		if (end > line && strncmp(line, "WARNING", 7) != 0)
			text_add(&said, "%s%.*s", said.length ? "; " : "", (int)(end - line), line);
		end += *end == '\n';
	}
	text = text_take(&said);
	return text ? lvm_command_error(argv[0], text, err) : fail_memory(err);
}

int lvm_run(struct lvm_pool *lvm, const char *const argv[], struct coppice_error *err)
{
	_cleanup_(text_done) struct text words = TEXT_INIT;
	_cleanup_(freep) char *line = NULL;
	bool are_plain = true;

	for (size_t i = 0; argv[i]; i++) {
		are_plain = are_plain && is_plain(argv[i]);
		text_add(&words, "%s%s", i ? " " : "", argv[i]);
	}
	line = text_take(&words);
	if (!line)
		return fail_memory(err);
	return are_plain ? lvm_do(lvm, NULL, err, "%s", line) : run_alone(argv, err);
}

void lvm_explain(struct pool *pool, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	explain_vline(pool->explain, pool->explain_user, fmt, args);
	va_end(args);
}
