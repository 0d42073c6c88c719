/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving instances between pools, and finishing what a killed move began.
 *
 * While it is moved there are two of an instance, in two pools, and what is written into
 * the old one then would be lost with it. Between commands the catalog knows which of them
 * counts; it does not when the mover was killed. So a move is written down before its copy
 * is published, in STATE/moves/UUID, with the instance's uuid, held by flock. Whoever finds
 * that without its maker finishes the move; and as long as nobody can, because a pool cannot
 * be opened, the names in it are refused.
 */
#include "core/copying.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"

#define MOVES    "moves"
#define MARK_MAX 4096

/* ---- the mark that a move is under way ---- */

struct move_mark {
	int fd;
	char path[sizeof(MOVES) + UUID_TEXT_SIZE];
};

static char *mark_format(const struct copying *copying)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:s}", "source", copying->source.ref.name.text,
				 "source_pool", copying->source.entry->name, "target",
				 copying->name.text, "target_pool", copying->target->name);
	char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;

	json_decref(json);
	return text;
}

/* A file that is locked and has its name: who finishes moves may take it for a dead one's. */
static int mark_open(struct coppice *coppice, struct move_mark *mark, struct coppice_error *err)
{
	struct stat st;

	for (;;) {
		mark->fd = retry(openat(coppice->root_fd, mark->path,
					O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
		if (mark->fd < 0 && errno == EEXIST)
			return fail(err, COPPICE_BUSY, "it is being moved by another command");
		if (mark->fd < 0 || retry(flock(mark->fd, LOCK_EX)) < 0 || fstat(mark->fd, &st) < 0)
			return fail_errno(err, errno, "cannot create '%s/%s'", coppice->root,
					  mark->path);
		if (st.st_nlink > 0)
			return COPPICE_OK;
		closep(&mark->fd);
	}
}

static int mark_write(struct coppice *coppice, const struct copying *copying,
		      const struct move_mark *mark, struct coppice_error *err)
{
	_cleanup_(freep) char *text = mark_format(copying);
	_cleanup_(closep) int folder =
		openat(coppice->root_fd, MOVES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (!text)
		return fail_memory(err);
	r = write_all(mark->fd, text, strlen(text), mark->path, err);
	if (r == COPPICE_OK && (retry(fsync(mark->fd)) < 0 || folder < 0))
		r = fail_errno(err, errno, "cannot write out '%s/%s'", coppice->root, mark->path);
	return r < 0 ? r : directory_sync(folder, MOVES, err);
}

static void mark_done(struct move_mark *mark)
{
	closep(&mark->fd);
	mark->fd = -1;
}

static void mark_remove(struct coppice *coppice, struct move_mark *mark)
{
	if (mark->fd >= 0)
		(void)unlinkat(coppice->root_fd, mark->path, 0);
	mark_done(mark);
}

static int mark_create(struct coppice *coppice, const struct copying *copying,
		       struct move_mark *mark, struct coppice_error *err)
{
	int r;

	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	r = directory_ensure(coppice->root_fd, MOVES, 0700, err);
	(void)snprintf(mark->path, sizeof(mark->path), MOVES "/%s",
		       copying->source.record.uuid.text);
	if (r == COPPICE_OK)
		r = mark_open(coppice, mark, err);
	if (r < 0)
		return r;
	r = mark_write(coppice, copying, mark, err);
	if (r < 0)
		mark_remove(coppice, mark);
	return r;
}

/* ---- move ---- */

/* The record of what was moved no longer says from where. */
static int forget_source(struct coppice *coppice, struct pool_entry *entry,
			 const struct volume_ref *ref, struct coppice_error *err)
{
	_cleanup_(record_done) struct record record = { 0 };
	_cleanup_(freep) char *text = NULL;
	int r;

	if (coppice->options.is_dry_run)
		return COPPICE_OK;
	r = volume_record_read(entry, ref, &record, err);
	if (r < 0)
		return r;
	record.moved_from = (struct uuid){ "" };
	r = volume_record_format(ref, &record, &text, err);
	if (r == COPPICE_OK)
		r = change_begin(coppice, entry, ref, 1, true, err);
	if (r < 0)
		return r;
	r = entry->driver->record_write(entry->pool, ref, text, err);
	if (r == COPPICE_OK)
		r = catalog_put_record(coppice, entry->name, ref, &record, text, err);
	if (r < 0) {
		change_abort(coppice);
		return r;
	}
	r = change_end(coppice, entry, ref, 1, true, err);
	return r < 0 ? r : entry->driver->commit(entry->pool, err);
}

/*
 * The copy is made and durable: the source goes. While the source is still there
 * the copy can be taken back; once it is out of sight, the copy is the instance.
 */
static int retire_moved(struct coppice *coppice, struct copying *copying,
			const struct volume_ref *moved, bool *ret_is_finished,
			struct coppice_error *err)
{
	const struct volume *source = &copying->source;
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;
	int r;

	*ret_is_finished = false;
	r = retire(coppice, source->entry, &source->ref, &source->record.uuid, 1, err);
	if (r < 0 && source->entry->driver->record_read(source->entry->pool, &source->ref, &record,
							&ignored) != COPPICE_NOT_FOUND) {
		*ret_is_finished = retire(coppice, copying->target, moved, &source->record.uuid, 1,
					  &ignored) == COPPICE_OK;
		return r;
	}
	/* What cannot be written now, the next command finishes. */
	*ret_is_finished = forget_source(coppice, copying->target, moved, &ignored) == COPPICE_OK;
	if (!*ret_is_finished && !coppice->options.is_dry_run)
		notice(coppice, "the move of '%s' is finished by the next command: %s",
		       moved->name.text, ignored.message);
	return COPPICE_OK;
}

static int move_to_pool(struct coppice *coppice, struct copying *copying, struct coppice_error *err)
{
	struct volume_ref moved = { .kind = copying->source.ref.kind, .name = copying->name };
	_cleanup_(mark_done) struct move_mark mark = { .fd = -1 };
	bool is_finished = true;
	int r;

	r = refuse_in_use(coppice, &copying->source, 1, copying->may_lose, err);
	if (r == COPPICE_OK)
		r = copying_find_snapshots(coppice, copying, err);
	if (r == COPPICE_OK)
		r = mark_create(coppice, copying, &mark, err);
	if (r == COPPICE_OK)
		r = copying_run(coppice, copying, err);
	if (r == COPPICE_OK)
		r = retire_moved(coppice, copying, &moved, &is_finished, err);
	if (r == COPPICE_OK)
		nested_tell(coppice, copying->nested_note);
	if (is_finished)
		mark_remove(coppice, &mark);
	return r;
}

int coppice_instance_move(struct coppice *coppice, const char *source, const char *target,
			  const char *pool, unsigned may_lose, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	_cleanup_(copying_done) struct copying copying = { .is_move = true,
							   .is_full = true,
							   .may_lose = may_lose };
	struct volume_ref ref;
	int r;

	r = instance_ref_parse(source, &ref, err);
	if (r == COPPICE_OK && volume_is_snapshot(&ref))
		r = fail(err, COPPICE_INVALID, "'%s' is a snapshot, and cannot move alone", source);
	if (r == COPPICE_OK)
		r = instance_name_parse(target, &copying.name, err);
	if (r == COPPICE_OK)
		r = copying_lock(coppice, &ref, true, &copying.name, pool, &locks, err);
	if (r == COPPICE_OK)
		r = volume_find(coppice, &ref, &copying.source, err);
	if (r == COPPICE_OK)
		r = copying_find_target(coppice, pool, &copying, err);
	if (r < 0)
		return r;
	if (copying.target == copying.source.entry) {
		locks_done(&locks); /* renaming takes its own */
		return coppice_rename(coppice, source, target, err);
	}
	if (strcmp(source, target) != 0)
		r = volume_must_not_exist(coppice, target, err);
	return r < 0 ? r : move_to_pool(coppice, &copying, err);
}

/* ---- finishing what a killed move began ---- */

struct unfinished {
	struct {
		char pool[256];
		struct volume_ref ref;
		struct uuid uuid, moved_from;
	} move[16];
	size_t n;
};

static int note_unfinished(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct unfinished *unfinished = user;
	struct record record;
	int r;

	if (unfinished->n == ARRAY_SIZE(unfinished->move))
		return COPPICE_OK;
	r = record_parse(row->record, &record, err);
	if (r < 0)
		return r;
	if (instance_name_parse(row->name, &unfinished->move[unfinished->n].ref.name, err) ==
	    COPPICE_OK) {
		unfinished->move[unfinished->n].ref.kind = (enum volume_kind)row->kind;
		unfinished->move[unfinished->n].uuid = record.uuid;
		unfinished->move[unfinished->n].moved_from = record.moved_from;
		(void)snprintf(unfinished->move[unfinished->n].pool, 256, "%s", row->pool);
		unfinished->n++;
	}
	record_done(&record);
	return COPPICE_OK;
}

struct same_uuid {
	const char *uuid;
	struct volume_ref ref;
	bool is_found;
};

static int match_uuid(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct same_uuid *same = user;

	if (strcmp(row->uuid, same->uuid) != 0)
		return COPPICE_OK;
	same->is_found = true;
	same->ref.kind = (enum volume_kind)row->kind;
	return instance_name_parse(row->name, &same->ref.name, err);
}

/* @target's name is locked already. */
static int retire_source(struct coppice *coppice, struct pool_entry *entry, const struct uuid *uuid,
			 const struct volume_ref *target, struct coppice_error *err)
{
	_cleanup_(locks_done) struct locks locks = LOCKS_INIT;
	struct same_uuid same = { .uuid = uuid->text };
	struct catalog_query query = { .pool = entry->name,
				       .kinds = VOLUME_INSTANCES,
				       .no_snapshots = true };
	int r;

	r = pools_open(coppice, entry, err);
	if (r == COPPICE_OK)
		r = catalog_volumes(coppice->catalog, &query, match_uuid, &same, err);
	if (r < 0 || !same.is_found)
		return r;
	if (lock_byte(LOCK_INSTANCES, same.ref.name.text) !=
	    lock_byte(LOCK_INSTANCES, target->name.text)) {
		locks_add(&locks, LOCK_INSTANCES, same.ref.name.text, true);
		r = locks_take(coppice, &locks, err);
	}
	return r < 0 ? r : retire(coppice, entry, &same.ref, uuid, 1, err);
}

static int finish_one(struct coppice *coppice, const struct unfinished *unfinished, size_t i,
		      struct coppice_error *err)
{
	struct pool_entry *target = pools_get(coppice, unfinished->move[i].pool);
	int r;

	pools_look_end(coppice); /* what was read, if anything, is not so after this */
	r = target ? pools_open(coppice, target, err) : COPPICE_NOT_FOUND;
	for (size_t k = 0; k < coppice->n_pools && r == COPPICE_OK; k++)
		if (strcmp(coppice->pools[k]->uuid.text, unfinished->move[i].moved_from.text) == 0)
			r = retire_source(coppice, coppice->pools[k], &unfinished->move[i].uuid,
					  &unfinished->move[i].ref, err);
	if (!target)
		return COPPICE_OK;
	return r < 0 ? r : forget_source(coppice, target, &unfinished->move[i].ref, err);
}

/* Those that the catalog knows of. */
static void finish_known(struct coppice *coppice)
{
	struct unfinished unfinished = { .n = 0 };
	unsigned timeout_ms = coppice->locks.timeout_ms;
	struct coppice_error why;

	if (catalog_volumes(coppice->catalog, &(struct catalog_query){ .is_moving = true },
			    note_unfinished, &unfinished, &why) < 0)
		notice(coppice, "cannot look for unfinished moves: %s", why.message);
	for (size_t i = 0; i < unfinished.n; i++) {
		_cleanup_(locks_done) struct locks locks = LOCKS_INIT;

		/* Who holds the name is moving it right now. */
		coppice->locks.timeout_ms = 0;
		locks_add(&locks, LOCK_INSTANCES, unfinished.move[i].ref.name.text, true);
		if (locks_take(coppice, &locks, &why) == COPPICE_OK &&
		    finish_one(coppice, &unfinished, i, &why) < 0)
			notice(coppice, "a move of '%s' is not finished yet: %s",
			       unfinished.move[i].ref.name.text, why.message);
		coppice->locks.timeout_ms = timeout_ms;
	}
}

/* ---- marks without their makers ---- */

typedef int mark_fn(struct coppice *coppice, struct move_mark *mark, json_t *json, void *user,
		    struct coppice_error *err);

/* Call @fn for each mark whose maker is gone, until it fails. */
static int each_dead_mark(struct coppice *coppice, mark_fn *fn, void *user,
			  struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	struct uuid uuid;
	int r = COPPICE_OK;
	int fd = openat(coppice->root_fd, MOVES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return COPPICE_OK;
	if (fd < 0 || !(dir = fdopendir(fd))) {
		closep(&fd);
		return fail_errno(err, errno, "cannot read '%s/" MOVES "'", coppice->root);
	}
	while (r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
		_cleanup_(mark_done) struct move_mark mark = { .fd = -1 };
		_cleanup_(freep) char *text = NULL;
		struct coppice_error ignored;
		json_t *json;

		if (!uuid_parse(entry->d_name, &uuid))
			continue;
		(void)snprintf(mark.path, sizeof(mark.path), MOVES "/%s", uuid.text);
		mark.fd = openat(coppice->root_fd, mark.path, O_RDWR | O_CLOEXEC);
		if (mark.fd < 0 || flock(mark.fd, LOCK_EX | LOCK_NB) < 0 ||
		    file_read(coppice->root_fd, mark.path, MARK_MAX, &text, &ignored) < 0)
			continue;
		json = json_loads(text, 0, NULL);
		r = fn(coppice, &mark, json, user, err);
		json_decref(json);
	}
	return r;
}

static const char *mark_text(json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "";
}

static int open_marked(struct coppice *coppice, json_t *json, const char *key,
		       struct coppice_error *err)
{
	struct pool_entry *entry = pools_get(coppice, mark_text(json, key));

	return entry ? pools_open(coppice, entry, err) : COPPICE_OK; /* gone, with what it had */
}

struct same_move {
	const char *uuid;
	bool is_found;
};

static int match_move(void *user, const struct catalog_volume *row, struct coppice_error *err)
{
	struct same_move *same = user;

	same->is_found = same->is_found || strcmp(row->uuid, same->uuid) == 0;
	return COPPICE_OK;
}

/* Where that cannot be done now, the mark stays. */
static int finish_marked(struct coppice *coppice, struct move_mark *mark, json_t *json, void *user,
			 struct coppice_error *err)
{
	struct same_move same = { .uuid = mark->path + strlen(MOVES "/") };
	struct coppice_error why;
	int r = COPPICE_OK;

	/* Without content it was killed before anything was made. */
	if (json) {
		r = open_marked(coppice, json, "source_pool", &why);
		if (r == COPPICE_OK)
			r = open_marked(coppice, json, "target_pool", &why);
		if (r == COPPICE_OK)
			finish_known(coppice);
		if (r == COPPICE_OK)
			r = catalog_volumes(coppice->catalog,
					    &(struct catalog_query){ .is_moving = true },
					    match_move, &same, &why);
	}
	if (r < 0)
		notice(coppice, "a move of '%s' is not finished yet: %s", mark_text(json, "source"),
		       why.message);
	else if (!same.is_found)
		mark_remove(coppice, mark);
	return COPPICE_OK;
}

void moves_finish(struct coppice *coppice)
{
	struct coppice_error why;

	if (coppice->options.is_dry_run)
		return;
	if (each_dead_mark(coppice, finish_marked, NULL, &why) < 0)
		notice(coppice, "%s", why.message);
	finish_known(coppice);
}

/* ---- refusing names in moves that nobody could finish yet ---- */

struct refusing {
	const struct volume_name *names;
	size_t n;
};

static int refuse_marked(struct coppice *coppice, struct move_mark *mark, json_t *json, void *user,
			 struct coppice_error *err)
{
	const struct refusing *refusing = user;
	const char *source = mark_text(json, "source"), *target = mark_text(json, "target");

	for (size_t i = 0; i < refusing->n; i++)
		if (strcmp(refusing->names[i].text, source) == 0 ||
		    strcmp(refusing->names[i].text, target) == 0)
			return fail(err, COPPICE_UNAVAILABLE,
				    "a command that was killed was moving '%s' to pool '%s', as "
				    "'%s', and that cannot be finished yet; see: coppice storage "
				    "info %s",
				    source, mark_text(json, "target_pool"), target,
				    mark_text(json, "target_pool"));
	return COPPICE_OK;
}

int moves_refuse(struct coppice *coppice, const struct volume_name *names, size_t n,
		 struct coppice_error *err)
{
	struct refusing refusing = { .names = names, .n = n };

	return coppice->options.is_dry_run ? COPPICE_OK
					   : each_dead_mark(coppice, refuse_marked, &refusing, err);
}
