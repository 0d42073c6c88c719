/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/generic/inuse.h"

#define ATTRIBUTE    "trusted.coppice"
#define RECORD_FILE  "record" /* where the file system has no attributes */
#define RECORD_MAX   16384
#define ACCOUNT_TAIL ".account" /* deleted/UUID.account: data gone, account still held */

static const char *const kind_folder[VOLUME_KINDS] = {
	[VOLUME_IMAGE] = "images",
	[VOLUME_CONTAINER] = "containers",
	[VOLUME_VIRTUAL_MACHINE] = "virtual-machines",
	[VOLUME_CUSTOM] = "custom",
};

static struct layout *layout_of(struct pool *pool)
{
	return CONTAINER_OF(pool, struct layout, pool);
}

const char *layout_kind_folder(enum volume_kind kind)
{
	return kind_folder[kind];
}

const char *layout_ref_path(const struct volume_ref *ref, char ret[static PATH_MAX])
{
	bool is_snapshot = volume_is_snapshot(ref);

	(void)snprintf(ret, PATH_MAX, "%s/%s%s%s", kind_folder[ref->kind], ref->name.text,
		       is_snapshot ? "/snapshots/" : "", ref->snapshot.text);
	return ret;
}

const char *layout_item_path(const struct new_volume *volume, char ret[static PATH_MAX])
{
	const char *between = volume->is_nested ? "/snapshots/" : "@";

	(void)snprintf(ret, PATH_MAX, "%s%s%s", volume->item ? volume->item : volume->ref.name.text,
		       volume_is_snapshot(&volume->ref) ? between : "", volume->ref.snapshot.text);
	return ret;
}

bool layout_has_own_account(const struct new_volume *volume)
{
	return strcmp(volume->group.text, volume->uuid.text) == 0;
}

void layout_explain(struct layout *layout, const char *fmt, ...)
{
	_cleanup_(freep) char *line = NULL;
	va_list args;

	if (!layout->pool.explain)
		return;
	va_start(args, fmt);
	if (vasprintf(&line, fmt, args) < 0)
		line = NULL;
	va_end(args);
	if (line)
		layout->pool.explain(layout->pool.explain_user, line);
}

/* ---- records ---- */

static int record_get(struct layout *layout, const char *path, char **ret,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	char full[PATH_MAX], buffer[RECORD_MAX];
	ssize_t n;

	if (layout->has_no_attributes) {
		(void)snprintf(full, sizeof(full), "%s/" RECORD_FILE, path);
		return file_read(layout->fd, full, RECORD_MAX, ret, err);
	}
	(void)snprintf(full, sizeof(full), "%s/%s", layout->path, path);
	n = lgetxattr(full, ATTRIBUTE, buffer, sizeof(buffer));
	if (n < 0)
		return fail_errno(err, errno, "cannot read the record of '%s'", full);
	record = strndup(buffer, (size_t)n);
	if (!record)
		return fail_memory(err);
	*ret = take_ptr(&record);
	return COPPICE_OK;
}

static int record_put(int dir_fd, bool has_no_attributes, const char *record,
		      struct coppice_error *err)
{
	if (has_no_attributes)
		return file_write(dir_fd, RECORD_FILE, record, true, err);
	if (fsetxattr(dir_fd, ATTRIBUTE, record, strlen(record), 0) < 0)
		return fail_errno(err, errno, "cannot write a record of %zu bytes", strlen(record));
	return COPPICE_OK;
}

/* setfattr takes backslashes in a value for its own: this word of bash, with each doubled. */
static char *attribute_word(const char *word)
{
	struct text text = TEXT_INIT;
	bool is_double = word[0] == '"';

	for (const char *at = word; *at; at++) {
		bool is_escape = is_double && at[0] == '\\';
		bool is_apostrophe = !is_double && strncmp(at, "'\\''", 4) == 0;
		size_t n = is_escape ? 2 : is_apostrophe ? 4 : 1;

		text_add_bytes(&text, at, n);
		if (is_escape && at[1] == '\\')
			text_add(&text, "\\\\");
		else if (n == 1 && *at == '\\')
			text_add(&text, "\\");
		at += n - 1;
	}
	return text_take(&text);
}

static void record_explain(struct layout *layout, const char *word, const char *path)
{
	_cleanup_(freep) char *attribute = NULL;

	if (!layout->pool.explain)
		return;
	attribute = attribute_word(word);
	if (layout->has_no_attributes)
		layout_explain(layout, "printf %%s %s > %s/" RECORD_FILE, word, path);
	else
		layout_explain(layout, "setfattr -n " ATTRIBUTE " -v %s %s",
			       attribute ? attribute : word, path);
}

/* The identity that a record tells, if it tells one. */
static bool record_uuid(const char *record, struct uuid *ret)
{
	json_t *json = json_loads(record, JSON_REJECT_DUPLICATES, NULL);
	const char *text = json_string_value(json_object_get(json, "uuid"));
	bool is_one = text && uuid_parse(text, ret);

	json_decref(json);
	return is_one;
}

/* ---- the pool ---- */

static int make_folder(int fd, const char *name, struct coppice_error *err)
{
	/* What is in them may hold setuid programs of old: root only. */
	return directory_ensure(fd, name, 0700, err);
}

/* Can attributes be kept here? Tried on the directory itself. */
static int probe_attributes(int fd, bool *ret_has_none, struct coppice_error *err)
{
	if (fsetxattr(fd, ATTRIBUTE ".probe", "", 0, 0) == 0) {
		(void)fremovexattr(fd, ATTRIBUTE ".probe");
		*ret_has_none = false;
		return COPPICE_OK;
	}
	if (errno != EOPNOTSUPP)
		return fail_errno(err, errno, "cannot write attributes");
	*ret_has_none = true;
	return COPPICE_OK;
}

int layout_make(const char *path, const char *record, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool has_no_attributes = false;
	int r = COPPICE_OK;

	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	for (size_t kind = 0; kind < VOLUME_KINDS && r == COPPICE_OK; kind++)
		r = make_folder(fd, kind_folder[kind], err);
	if (r == COPPICE_OK)
		r = make_folder(fd, "drafts", err);
	if (r == COPPICE_OK)
		r = make_folder(fd, "deleted", err);
	if (r == COPPICE_OK)
		r = probe_attributes(fd, &has_no_attributes, err);
	if (r == COPPICE_OK)
		r = record_put(fd, has_no_attributes, record, err);
	if (r == COPPICE_OK)
		r = directory_sync(fd, path, err);
	return r < 0 ? wrap(err, "cannot make a pool at '%s'", path) : COPPICE_OK;
}

/* The record is left out: it is of interest to Coppice alone. */
void layout_make_explain(const char *path, explain_fn *explain, void *user)
{
	_cleanup_(freep) char *quoted = text_shell_quote(path);
	_cleanup_(freep) char *line = NULL;

	if (quoted)
		line = text_format("mkdir -p -m 700 %s/{images,containers,virtual-machines,custom,"
				   "drafts,deleted}",
				   quoted);
	if (line)
		explain(user, line);
}

static int open_folder(struct layout *layout, const char *name, int *ret, struct coppice_error *err)
{
	*ret = openat(layout->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*ret >= 0)
		return COPPICE_OK;
	if (errno == ENOENT)
		return fail(err, COPPICE_FAILED, "the pool at '%s' has no folder '%s'", layout->path,
			    name);
	return fail_errno(err, errno, "cannot open '%s/%s'", layout->path, name);
}

static int find_record(struct layout *layout, struct coppice_error *err)
{
	char buffer[1];

	if (lgetxattr(layout->path, ATTRIBUTE, buffer, 0) >= 0)
		return COPPICE_OK;
	layout->has_no_attributes = true;
	if (faccessat(layout->fd, RECORD_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return COPPICE_OK;
	return fail(err, COPPICE_INVALID, "there is no Coppice pool at '%s'", layout->path);
}

int layout_open(struct layout *layout, const char *path, const struct layout_engine *engine,
		struct coppice_error *err)
{
	int r;

	layout->engine = engine;
	layout->fd = -1;
	layout->path = realpath(path, NULL);
	if (!layout->path)
		return fail_errno(err, errno, "cannot open '%s'", path);
	layout->quoted = text_shell_quote(layout->path);
	if (!layout->quoted)
		return fail_memory(err);
	layout->drafts_fd = layout->deleted_fd = -1;
	for (size_t kind = 0; kind < VOLUME_KINDS; kind++)
		layout->kind_fd[kind] = -1;
	layout->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (layout->fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	r = find_record(layout, err);
	for (size_t kind = 0; kind < VOLUME_KINDS && r == COPPICE_OK; kind++)
		r = open_folder(layout, kind_folder[kind], &layout->kind_fd[kind], err);
	if (r == COPPICE_OK)
		r = open_folder(layout, "drafts", &layout->drafts_fd, err);
	if (r == COPPICE_OK)
		r = open_folder(layout, "deleted", &layout->deleted_fd, err);
	return r;
}

void layout_done(struct layout *layout)
{
	if (!layout->path)
		return;
	for (size_t kind = 0; kind < VOLUME_KINDS; kind++)
		closep(&layout->kind_fd[kind]);
	closep(&layout->drafts_fd);
	closep(&layout->deleted_fd);
	closep(&layout->fd);
	free(layout->path);
	free(layout->quoted);
}

static bool differs(json_t *record, const char *key, const struct uuid *wanted)
{
	const char *text = json_string_value(json_object_get(record, key));

	return wanted->text[0] && (!text || strcmp(text, wanted->text) != 0);
}

int layout_check_owner(struct layout *layout, const struct pool_spec *spec,
		       struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	json_t *record;
	int r;

	r = layout_pool_record_read(&layout->pool, &text, err);
	if (r < 0)
		return r;
	record = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (!record)
		return fail(err, COPPICE_INVALID, "the record of the pool at '%s' is damaged",
			    layout->path);
	if (differs(record, "uuid", &spec->uuid)) {
		r = fail(err, COPPICE_BUSY, "at '%s' there is another pool than '%s'", layout->path,
			 spec->name);
	} else if (differs(record, "owner", &spec->owner)) {
		const char *owner = json_string_value(json_object_get(record, "owner_path"));

		r = fail(err, COPPICE_BUSY,
			 "the pool at '%s' is held by another Coppice, with the state directory "
			 "'%s'; to take it over: coppice storage recover",
			 layout->path, owner ? owner : "unknown");
	}
	json_decref(record);
	return r;
}

int layout_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err)
{
	return record_get(layout_of(pool), ".", ret, err);
}

int layout_pool_record_write(struct pool *pool, const char *record, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	int r;

	if (pool->is_dry_run)
		return COPPICE_OK;
	r = record_put(layout->fd, layout->has_no_attributes, record, err);
	return r < 0 ? r : directory_sync(layout->fd, layout->path, err);
}

const char *layout_pool_mount_path(struct pool *pool)
{
	return layout_of(pool)->path;
}

/* ---- drafts ---- */

static int sync_directory(struct layout *layout, int fd, const char *what, struct coppice_error *err)
{
	if (!layout->engine->needs_directory_sync)
		return COPPICE_OK;
	return directory_sync(fd, what, err);
}

/*
 * A sweeper that came between mkdir and flock took the draft for a dead one: then
 * its directory has no name any more, and another is made.
 */
static int draft_try_open(struct layout *layout, struct draft *draft, struct coppice_error *err)
{
	struct stat st;
	int r;

	r = uuid_new(&draft->id, err);
	if (r < 0)
		return r;
	if (mkdirat(layout->drafts_fd, draft->id.text, 0700) < 0)
		return fail_errno(err, errno, "cannot create a draft in '%s'", layout->path);
	draft->fd = openat(layout->drafts_fd, draft->id.text,
			   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (draft->fd >= 0 && flock(draft->fd, LOCK_EX | LOCK_NB) == 0 &&
	    fstat(draft->fd, &st) == 0 && st.st_nlink > 0)
		return COPPICE_OK;
	closep(&draft->fd);
	draft->fd = -1;
	return fail(err, COPPICE_BUSY, "a sweeper took the draft");
}

int layout_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	struct draft draft = { .pool = pool, .fd = -1 };
	int r = COPPICE_OK;

	layout_explain(layout, "draft=%s/drafts/$(cat /proc/sys/kernel/random/uuid)",
		       layout->quoted);
	layout_explain(layout, "mkdir \"$draft\"");
	if (!pool->is_dry_run) {
		do
			r = draft_try_open(layout, &draft, err);
		while (r == COPPICE_BUSY);
	}
	if (r < 0)
		return r;
	*ret = draft;
	return COPPICE_OK;
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Open a directory for readdir(); NULL with *r COPPICE_OK when it is not there. */
static DIR *open_listing(int parent_fd, const char *name, int *r, struct coppice_error *err)
{
	int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = NULL;

	*r = COPPICE_OK;
	if (fd >= 0)
		dir = fdopendir(fd);
	if (!dir && errno != ENOENT)
		*r = fail_errno(err, errno, "cannot read directory '%s'", name);
	if (!dir)
		closep(&fd);
	return dir;
}

/* Destroy what is in a volume's directory: its snapshots, then its data. *ret_n counts data. */
static int volume_empty(struct layout *layout, int parent_fd, const char *name, size_t *ret_n,
			struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int r;

	dir = open_listing(parent_fd, name, &r, err);
	while (dir && r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
		if (is_dot(entry->d_name))
			continue;
		if (strcmp(entry->d_name, RECORD_FILE) == 0) {
			(void)unlinkat(dirfd(dir), RECORD_FILE, 0);
			continue;
		}
		if (strcmp(entry->d_name, "snapshots") == 0) {
			_cleanup_(closedirp) DIR *list =
				open_listing(dirfd(dir), "snapshots", &r, err);
			struct dirent *snapshot;

			while (list && r == COPPICE_OK && (snapshot = readdir(list)) != NULL) {
				if (is_dot(snapshot->d_name))
					continue;
				r = volume_empty(layout, dirfd(list), snapshot->d_name, ret_n, err);
				if (r == COPPICE_OK)
					(void)unlinkat(dirfd(list), snapshot->d_name, AT_REMOVEDIR);
			}
			if (r == COPPICE_OK)
				(void)unlinkat(dirfd(dir), "snapshots", AT_REMOVEDIR);
			continue;
		}
		r = layout->engine->data_destroy(layout, dirfd(dir), entry->d_name, err);
		*ret_n += 1;
	}
	return r;
}

static int remove_folder(int parent_fd, const char *name, struct coppice_error *err)
{
	if (unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return fail_errno(err, errno, "cannot remove '%s'", name);
	return COPPICE_OK;
}

/* Whose account it is: in deleted/ the name says it, in a draft the record does. */
static bool find_identity(struct layout *layout, const char *folder, const char *name,
			  struct uuid *ret)
{
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;
	char text[UUID_TEXT_SIZE], path[PATH_MAX];

	(void)snprintf(text, sizeof(text), "%s", name);
	if (strcmp(folder, "deleted") == 0 && uuid_parse(text, ret))
		return true;
	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return record_get(layout, path, &record, &ignored) == COPPICE_OK &&
	       record_uuid(record, ret);
}

/*
 * Destroy a volume that users do not see any more. Its directory goes too, unless
 * its account is held by others: then the directory stays as deleted/UUID.account,
 * to say whose it was. An account cannot be closed right after its data went, as
 * the engine forgets data later: the next command tries again.
 */
static int volume_destroy(struct layout *layout, int parent_fd, const char *folder,
			  const char *name, struct coppice_error *err)
{
	char account[UUID_TEXT_SIZE + sizeof(ACCOUNT_TAIL)];
	bool has_account = false, is_held = false;
	struct uuid uuid;
	size_t n = 0;
	int r;

	if (layout->engine->account_close)
		has_account = find_identity(layout, folder, name, &uuid);
	if (!strstr(name, ACCOUNT_TAIL)) {
		r = volume_empty(layout, parent_fd, name, &n, err);
		if (r < 0)
			return r;
	}
	if (has_account && n == 0) {
		r = layout->engine->account_close(layout, &uuid, &is_held, err);
		if (r < 0)
			return r;
	}
	if (!has_account || (n == 0 && !is_held))
		return remove_folder(parent_fd, name, err);

	(void)snprintf(account, sizeof(account), "%s" ACCOUNT_TAIL, uuid.text);
	if (strcmp(name, account) != 0 &&
	    renameat(parent_fd, name, layout->deleted_fd, account) < 0 && errno != ENOENT)
		return fail_errno(err, errno, "cannot retire '%s/%s'", folder, name);
	return COPPICE_OK;
}

/* Empty one draft, given its descriptor; it is ours or nobody's. */
static int draft_empty(struct layout *layout, int fd, const char *id, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	char folder[PATH_MAX];
	struct dirent *entry;
	int result = COPPICE_OK, r;

	dir = open_listing(fd, ".", &r, err);
	(void)snprintf(folder, sizeof(folder), "drafts/%s", id);
	while (dir && (entry = readdir(dir)) != NULL) {
		if (is_dot(entry->d_name))
			continue;
		r = volume_destroy(layout, fd, folder, entry->d_name, err);
		if (r < 0)
			result = r;
	}
	return result < 0 ? result : r;
}

/* Destroy what is in deleted/; accounts of data long gone only when asked: there may be many. */
static int reap(struct layout *layout, bool has_time, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int result = COPPICE_OK, r;

	dir = open_listing(layout->deleted_fd, ".", &r, err);
	while (dir && (entry = readdir(dir)) != NULL) {
		if (is_dot(entry->d_name) || (!has_time && strstr(entry->d_name, ACCOUNT_TAIL)))
			continue;
		r = volume_destroy(layout, layout->deleted_fd, "deleted", entry->d_name, err);
		if (r < 0)
			result = r;
	}
	return result < 0 ? result : r;
}

int layout_draft_discard(struct draft *draft, struct coppice_error *err)
{
	struct layout *layout;
	int r;

	if (!draft->pool || draft->fd < 0)
		return COPPICE_OK;
	layout = layout_of(draft->pool);
	r = draft_empty(layout, draft->fd, draft->id.text, err);
	if (r == COPPICE_OK)
		r = remove_folder(layout->drafts_fd, draft->id.text, err);
	(void)close(draft->fd);
	draft->fd = -1;
	return r < 0 ? wrap(err, "cannot remove draft '%s'", draft->id.text) : COPPICE_OK;
}

int layout_draft_path(struct draft *draft, const struct new_volume *volume, char **ret,
		      struct coppice_error *err)
{
	char item[PATH_MAX];
	char *path = text_format("%s/drafts/%s/%s/live", layout_of(draft->pool)->path,
				 draft->id.text, layout_item_path(volume, item));

	if (!path)
		return fail_memory(err);
	*ret = path;
	return COPPICE_OK;
}

int layout_draft_sweep(struct pool *pool, size_t *ret_n, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	size_t n = 0;
	int r;

	dir = open_listing(layout->drafts_fd, ".", &r, err);
	while (dir && r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
		struct draft draft = { .pool = pool, .fd = -1 };

		if (is_dot(entry->d_name) || !uuid_parse(entry->d_name, &draft.id))
			continue;
		draft.fd = openat(layout->drafts_fd, entry->d_name,
				  O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (draft.fd < 0)
			continue; /* gone meanwhile */
		if (flock(draft.fd, LOCK_EX | LOCK_NB) < 0) {
			(void)close(draft.fd);
			continue; /* its maker lives */
		}
		if (!pool->is_dry_run) {
			r = layout_draft_discard(&draft, err);
			n++;
		}
		closep(&draft.fd);
	}
	*ret_n = n;
	return r < 0 || pool->is_dry_run ? r : reap(layout, false, err);
}

/* ---- making volumes ---- */

void layout_item_explain(struct draft *draft, const struct new_volume *volume)
{
	struct layout *layout = layout_of(draft->pool);
	char item[PATH_MAX], path[PATH_MAX + 16];

	(void)snprintf(path, sizeof(path), "\"$draft\"/%s", layout_item_path(volume, item));
	layout_explain(layout, volume->is_nested ? "mkdir -p %s" : "mkdir %s", path);
	record_explain(layout, volume->explain_record, path);
}

int layout_item_record(struct draft *draft, const struct new_volume *volume,
		       struct coppice_error *err)
{
	struct layout *layout = layout_of(draft->pool);
	_cleanup_(closep) int fd = -1;
	char path[PATH_MAX];
	int r;

	fd = openat(draft->fd, layout_item_path(volume, path),
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open the directory of '%s'", path);
	r = record_put(fd, layout->has_no_attributes, volume->record, err);
	if (r == COPPICE_OK)
		r = sync_directory(layout, fd, path, err);
	return r < 0 ? wrap(err, "cannot make '%s'", path) : COPPICE_OK;
}

int layout_item_create(struct draft *draft, const struct new_volume *volume,
		       struct coppice_error *err)
{
	char path[PATH_MAX];
	int r;

	if (volume->is_nested) {
		(void)snprintf(path, sizeof(path), "%s/snapshots", volume->ref.name.text);
		r = directory_ensure(draft->fd, path, 0700, err);
		if (r < 0)
			return r;
	}
	(void)layout_item_path(volume, path);
	if (mkdirat(draft->fd, path, 0700) < 0)
		return fail_errno(err, errno, "cannot create a directory for '%s'", path);
	return layout_item_record(draft, volume, err);
}

/* A snapshot's parent folder comes with its first snapshot, and is not an error if it is there. */
static int ensure_snapshots_folder(struct layout *layout, const struct volume_ref *ref,
				   struct coppice_error *err)
{
	char path[PATH_MAX];

	if (!volume_is_snapshot(ref))
		return COPPICE_OK;
	(void)snprintf(path, sizeof(path), "%s/%s/snapshots", kind_folder[ref->kind],
		       ref->name.text);
	return directory_ensure(layout->fd, path, 0700, err);
}

/* What was renamed into a snapshots folder is durable when that folder is synced. */
static int sync_parent(struct layout *layout, const struct volume_ref *ref,
		       struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	char path[PATH_MAX];

	if (!layout->engine->needs_directory_sync)
		return COPPICE_OK;
	if (!volume_is_snapshot(ref))
		return directory_sync(layout->kind_fd[ref->kind], ref->name.text, err);
	(void)snprintf(path, sizeof(path), "%s/%s/snapshots", kind_folder[ref->kind],
		       ref->name.text);
	fd = openat(layout->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	return directory_sync(fd, path, err);
}

static int publish_one(struct layout *layout, struct draft *draft, const struct new_volume *volume,
		       struct coppice_error *err)
{
	char item[PATH_MAX], target[PATH_MAX], text[VOLUME_REF_TEXT_MAX];
	int r;

	r = ensure_snapshots_folder(layout, &volume->ref, err);
	if (r < 0)
		return r;
	if (renameat2(draft->fd, layout_item_path(volume, item), layout->fd,
		      layout_ref_path(&volume->ref, target), RENAME_NOREPLACE) == 0)
		return COPPICE_OK;
	if (errno == EEXIST)
		return fail(err, COPPICE_EXISTS, "%s '%s' exists already",
			    volume_is_snapshot(&volume->ref) ? "snapshot" :
							       volume_kind_name(volume->ref.kind),
			    volume_ref_format(&volume->ref, text));
	return fail_errno(err, errno, "cannot publish '%s'", target);
}

static void unpublish(struct layout *layout, struct draft *draft, const struct new_volume *volumes,
		      size_t n)
{
	char item[PATH_MAX], target[PATH_MAX];

	while (n-- > 0)
		(void)renameat2(layout->fd, layout_ref_path(&volumes[n].ref, target), draft->fd,
				layout_item_path(&volumes[n], item), RENAME_NOREPLACE);
}

static void publish_explain(struct layout *layout, const struct new_volume *volumes, size_t n)
{
	char item[PATH_MAX], target[PATH_MAX];

	for (size_t i = 0; i < n; i++) {
		const struct volume_ref *ref = &volumes[i].ref;

		if (volume_is_snapshot(ref))
			layout_explain(layout, "mkdir -p %s/%s/%s/snapshots", layout->quoted,
				       kind_folder[ref->kind], ref->name.text);
		layout_explain(layout, "mv -T \"$draft\"/%s %s/%s",
			       layout_item_path(&volumes[i], item), layout->quoted,
			       layout_ref_path(ref, target));
	}
	layout_explain(layout, "rmdir \"$draft\"");
}

int layout_publish(struct draft *draft, const struct new_volume *volumes, size_t n,
		   struct coppice_error *err)
{
	struct layout *layout = layout_of(draft->pool);
	int r;

	publish_explain(layout, volumes, n);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	for (size_t i = 0; i < n; i++) {
		r = publish_one(layout, draft, &volumes[i], err);
		if (r < 0) {
			unpublish(layout, draft, volumes, i);
			return r;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && !volume_is_snapshot(&volumes[i].ref) &&
		    volumes[i].ref.kind == volumes[i - 1].ref.kind)
			continue; /* the same folder as the one before */
		r = sync_parent(layout, &volumes[i].ref, err);
		if (r < 0) {
			unpublish(layout, draft, volumes, n);
			return r;
		}
	}
	return COPPICE_OK;
}

/* ---- changing volumes ---- */

static int fail_ref(struct coppice_error *err, int os_errno, const char *what,
		    const struct volume_ref *ref)
{
	char text[VOLUME_REF_TEXT_MAX];

	if (os_errno == ENOENT)
		return fail(err, COPPICE_NOT_FOUND, "no %s '%s'",
			    volume_is_snapshot(ref) ? "snapshot" : volume_kind_name(ref->kind),
			    volume_ref_format(ref, text));
	return fail_errno(err, os_errno, "cannot %s '%s'", what, volume_ref_format(ref, text));
}

int layout_swap(struct draft *draft, const struct new_volume *replacement,
		const struct volume_ref *ref, struct coppice_error *err)
{
	struct layout *layout = layout_of(draft->pool);
	char item[PATH_MAX], path[PATH_MAX], from[PATH_MAX + 8], to[PATH_MAX + 8];
	_cleanup_(freep) char *old = NULL;

	(void)layout_item_path(replacement, item);
	(void)layout_ref_path(ref, path);
	/* mv cannot exchange; three of it have the same effect, not at once. */
	layout_explain(layout, "mv -T %s/%s/live \"$draft\"/%s/old", layout->quoted, path, item);
	layout_explain(layout, "mv -T \"$draft\"/%s/live %s/%s/live", item, layout->quoted, path);
	old = text_format("\"$draft\"/%s/old", item);
	if (!old)
		return fail_memory(err);
	layout->engine->data_destroy_explain(layout, old);
	layout_explain(layout, "rmdir \"$draft\"/%s \"$draft\"", item);
	if (draft->pool->is_dry_run)
		return COPPICE_OK;

	(void)snprintf(from, sizeof(from), "%s/live", item);
	(void)snprintf(to, sizeof(to), "%s/live", path);
	if (renameat2(draft->fd, from, layout->fd, to, RENAME_EXCHANGE) < 0)
		return fail_ref(err, errno, "replace the data of", ref);
	if (layout->engine->needs_directory_sync) {
		_cleanup_(closep) int fd =
			openat(layout->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			return fail_ref(err, errno, "open", ref);
		return directory_sync(fd, path, err);
	}
	return COPPICE_OK;
}

int layout_rename(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
		  struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	char from_path[PATH_MAX], to_path[PATH_MAX], text[VOLUME_REF_TEXT_MAX];

	layout_explain(layout, "mv -nT %s/%s %s/%s", layout->quoted,
		       layout_ref_path(from, from_path), layout->quoted,
		       layout_ref_path(to, to_path));
	if (pool->is_dry_run)
		return COPPICE_OK;
	if (renameat2(layout->fd, layout_ref_path(from, from_path), layout->fd,
		      layout_ref_path(to, to_path), RENAME_NOREPLACE) < 0) {
		if (errno == EEXIST)
			return fail(err, COPPICE_EXISTS, "'%s' exists already",
				    volume_ref_format(to, text));
		return fail_ref(err, errno, "rename", from);
	}
	return sync_parent(layout, to, err);
}

int layout_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
			struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	_cleanup_(freep) char *word = text_shell_quote(record);
	_cleanup_(closep) int fd = -1;
	char path[PATH_MAX], full[2 * PATH_MAX];
	int r;

	if (!word)
		return fail_memory(err);
	(void)snprintf(full, sizeof(full), "%s/%s", layout->quoted, layout_ref_path(ref, path));
	record_explain(layout, word, full);
	if (pool->is_dry_run)
		return COPPICE_OK;
	fd = openat(layout->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail_ref(err, errno, "open", ref);
	r = record_put(fd, layout->has_no_attributes, record, err);
	return r < 0 ? r : sync_directory(layout, fd, path, err);
}

int layout_record_read(struct pool *pool, const struct volume_ref *ref, char **ret,
		       struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	char path[PATH_MAX], text[VOLUME_REF_TEXT_MAX];
	int r;

	r = record_get(layout, layout_ref_path(ref, path), ret, err);
	if (r < 0 && err->os_errno == ENOENT)
		return fail_ref(err, ENOENT, "read", ref);
	if (r < 0 && err->os_errno == ENODATA)
		return fail(err, COPPICE_FAILED, "'%s' has no record; see: coppice check",
			    volume_ref_format(ref, text));
	return r;
}

/* ---- deleting volumes ---- */

static void explain_data_gone(struct layout *layout, const char *path)
{
	_cleanup_(freep) char *data = text_format("%s/live", path);

	if (data)
		layout->engine->data_destroy_explain(layout, data);
}

/* Retiring and, what follows from it, reaping; read off the pool, as it is now. */
static void retire_explain(struct layout *layout, const struct volume_ref *ref,
			   const struct uuid *uuid)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	_cleanup_(freep) char *target = text_format("%s/deleted/%s", layout->quoted, uuid->text);
	char path[PATH_MAX], snapshots[PATH_MAX + 16];
	struct coppice_error ignored;
	struct dirent *entry;
	int r;

	if (!layout->pool.explain || !target)
		return;
	layout_explain(layout, "mv -T %s/%s %s", layout->quoted, layout_ref_path(ref, path), target);
	(void)snprintf(snapshots, sizeof(snapshots), "%s/snapshots", path);
	dir = open_listing(layout->fd, snapshots, &r, &ignored);
	while (dir && (entry = readdir(dir)) != NULL) {
		_cleanup_(freep) char *snapshot = NULL;

		if (is_dot(entry->d_name))
			continue;
		snapshot = text_format("%s/snapshots/%s", target, entry->d_name);
		if (!snapshot)
			return;
		explain_data_gone(layout, snapshot);
		layout_explain(layout, "rmdir %s", snapshot);
	}
	explain_data_gone(layout, target);
	if (dir)
		layout_explain(layout, "rmdir %s/snapshots", target);
	layout_explain(layout, "rmdir %s", target);
}

int layout_retire(struct pool *pool, const struct volume_ref *refs, const struct uuid *uuids,
		  size_t n, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	char path[PATH_MAX];
	int r;

	for (size_t i = 0; i < n; i++)
		retire_explain(layout, &refs[i], &uuids[i]);
	if (pool->is_dry_run)
		return COPPICE_OK;
	for (size_t i = 0; i < n; i++)
		if (renameat2(layout->fd, layout_ref_path(&refs[i], path), layout->deleted_fd,
			      uuids[i].text, RENAME_NOREPLACE) < 0)
			return fail_ref(err, errno, "retire", &refs[i]);
	if (!layout->engine->needs_directory_sync)
		return COPPICE_OK;
	for (size_t i = 0; i < n; i++) {
		r = sync_parent(layout, &refs[i], err);
		if (r < 0)
			return r;
	}
	return directory_sync(layout->deleted_fd, "deleted", err);
}

int layout_reap(struct pool *pool, struct coppice_error *err)
{
	if (pool->is_dry_run)
		return COPPICE_OK;
	return reap(layout_of(pool), true, err);
}

int layout_deleted(struct layout *layout, deleted_fn *fn, void *user, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int r;

	dir = open_listing(layout->deleted_fd, ".", &r, err);
	while (dir && r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
		_cleanup_(freep) char *record = NULL;
		struct coppice_error ignored;
		char path[PATH_MAX];
		struct uuid uuid;

		if (is_dot(entry->d_name))
			continue;
		(void)snprintf(path, sizeof(path), "deleted/%s", entry->d_name);
		if (record_get(layout, path, &record, &ignored) < 0)
			continue; /* reaped meanwhile */
		if (record_uuid(record, &uuid))
			r = fn(user, record, &uuid, err);
	}
	return r;
}

int layout_unmake(struct layout *layout, struct coppice_error *err)
{
	struct pool *pool = &layout->pool;
	size_t n;
	int r;

	r = layout_draft_sweep(pool, &n, err);
	if (r == COPPICE_OK)
		r = layout_reap(pool, err);
	if (r < 0)
		return r;
	/* What only says whose an account was says nothing any more. */
	if (layout->engine->account_close) {
		_cleanup_(closedirp) DIR *dir = open_listing(layout->deleted_fd, ".", &r, err);
		struct dirent *entry;

		while (dir && (entry = readdir(dir)) != NULL)
			if (!is_dot(entry->d_name))
				(void)unlinkat(layout->deleted_fd, entry->d_name, AT_REMOVEDIR);
	}
	for (size_t kind = 0; kind < VOLUME_KINDS && r == COPPICE_OK; kind++)
		r = remove_folder(layout->fd, kind_folder[kind], err);
	if (r == COPPICE_OK)
		r = remove_folder(layout->fd, "drafts", err);
	if (r == COPPICE_OK)
		r = remove_folder(layout->fd, "deleted", err);
	if (r < 0)
		return r;
	if (layout->has_no_attributes)
		(void)unlinkat(layout->fd, RECORD_FILE, 0);
	else
		(void)fremovexattr(layout->fd, ATTRIBUTE);
	return COPPICE_OK;
}

/* ---- looking ---- */

int layout_stamp(struct pool *pool, uint64_t *ret, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	uint64_t hash = 14695981039346656037ULL; /* FNV-1a over the times of change */

	for (size_t kind = 0; kind < VOLUME_KINDS; kind++) {
		struct stat st;

		if (fstat(layout->kind_fd[kind], &st) < 0)
			return fail_errno(err, errno, "cannot look at '%s/%s'", layout->path,
					  kind_folder[kind]);
		hash = (hash ^ (uint64_t)st.st_ctim.tv_sec) * 1099511628211ULL;
		hash = (hash ^ (uint64_t)st.st_ctim.tv_nsec) * 1099511628211ULL;
	}
	*ret = hash >> 1; /* SQLite's integers have a sign */
	return COPPICE_OK;
}

int layout_touch(struct pool *pool, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);

	if (pool->is_dry_run)
		return COPPICE_OK;
	if (futimens(layout->kind_fd[VOLUME_CONTAINER], NULL) < 0)
		return fail_errno(err, errno, "cannot touch '%s'", layout->path);
	return COPPICE_OK;
}

static int scan_one(struct layout *layout, const struct volume_ref *ref, bool is_valid,
		    scan_fn *fn, void *user, struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	struct found_volume found = { .ref = *ref };
	struct coppice_error why;
	char path[PATH_MAX], live[PATH_MAX + 8];
	struct stat st;

	(void)layout_ref_path(ref, path);
	if (!is_valid) {
		found.what = "name-invalid";
		found.problem = "its name is none that Coppice gives";
	} else if (record_get(layout, path, &record, &why) < 0) {
		record = NULL;
		if (why.os_errno == ENOENT && !layout->has_no_attributes)
			return COPPICE_OK; /* went away meanwhile */
		if (why.os_errno != ENODATA && why.os_errno != ENOENT)
			return fail_errno(err, why.os_errno, "cannot read the record of '%s'", path);
	} else {
		(void)snprintf(live, sizeof(live), "%s/live", path);
		if (fstatat(layout->fd, live, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISDIR(st.st_mode)) {
			found.what = "data-missing";
			found.problem = "its data is missing";
		}
	}
	found.record = record;
	return fn(user, &found, err);
}

static int scan_snapshots(struct layout *layout, const struct volume_ref *volume, scan_fn *fn,
			  void *user, struct coppice_error *err)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	struct volume_ref ref = *volume;
	char path[PATH_MAX];
	struct dirent *entry;
	int r;

	(void)snprintf(path, sizeof(path), "%s/%s/snapshots", kind_folder[ref.kind], ref.name.text);
	dir = open_listing(layout->fd, path, &r, err);
	while (dir && r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
		bool is_valid;

		if (is_dot(entry->d_name))
			continue;
		is_valid = volume_name_is_valid(VOLUME_CUSTOM, entry->d_name);
		(void)snprintf(ref.snapshot.text, sizeof(ref.snapshot.text), "%.*s",
			       VOLUME_NAME_MAX, entry->d_name);
		r = scan_one(layout, &ref, is_valid, fn, user, err);
	}
	return r;
}

int layout_scan(struct pool *pool, scan_fn *fn, void *user, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	int r = COPPICE_OK;

	for (size_t kind = 0; kind < VOLUME_KINDS && r == COPPICE_OK; kind++) {
		_cleanup_(closedirp) DIR *dir = open_listing(layout->fd, kind_folder[kind], &r, err);
		struct dirent *entry;

		while (dir && r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
			struct volume_ref ref = { .kind = (enum volume_kind)kind };
			bool is_valid;

			if (is_dot(entry->d_name))
				continue;
			is_valid = volume_name_is_valid(ref.kind, entry->d_name);
			(void)snprintf(ref.name.text, sizeof(ref.name.text), "%.*s",
				       VOLUME_NAME_MAX, entry->d_name);
			r = scan_one(layout, &ref, is_valid, fn, user, err);
			if (r == COPPICE_OK && is_valid)
				r = scan_snapshots(layout, &ref, fn, user, err);
		}
	}
	return r;
}

int layout_path(struct pool *pool, const struct volume_ref *ref, char **ret,
		struct coppice_error *err)
{
	char path[PATH_MAX];
	char *full;

	full = text_format("%s/%s/live", layout_of(pool)->path, layout_ref_path(ref, path));
	if (!full)
		return fail_memory(err);
	*ret = full;
	return COPPICE_OK;
}

static void queries_free(struct in_use_query *queries, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((char *)(uintptr_t)queries[i].what);
		free((char *)(uintptr_t)queries[i].path);
	}
	free(queries);
}

int layout_in_use(struct layout *layout, const struct volume_ref *refs, size_t n,
		  bool are_subvolumes, struct coppice_error *err)
{
	struct in_use_query *queries = calloc(n, sizeof(*queries));
	char text[VOLUME_REF_TEXT_MAX];
	int r = COPPICE_OK;

	if (!queries)
		return fail_memory(err);
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		char *path = NULL;

		r = layout_path(&layout->pool, &refs[i], &path, err);
		queries[i] = (struct in_use_query){
			.what = strdup(volume_ref_format(&refs[i], text)),
			.path = path,
			.is_resolved = true, /* the root is, and what is below is ours */
			.is_subvolume = are_subvolumes,
		};
		if (r == COPPICE_OK && !queries[i].what)
			r = fail_memory(err);
	}
	if (r == COPPICE_OK)
		r = in_use_find(queries, n, NULL, 0, err);
	queries_free(queries, n);
	return r;
}
