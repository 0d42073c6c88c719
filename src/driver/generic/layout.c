/* SPDX-License-Identifier: Apache-2.0 */
/* The pool as a tree of directories: its parts, records, and looking at what is there. */
#include "driver/generic/layout_private.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/file.h"
#include "base/text.h"
#include "driver/generic/explain.h"
#include "driver/generic/inuse.h"
#include "driver/generic/pool_owner.h"

#define RECORD_MAX 16384

static const char *const kind_folder[VOLUME_KINDS] = {
	[VOLUME_IMAGE] = "images",
	[VOLUME_CONTAINER] = "containers",
	[VOLUME_VIRTUAL_MACHINE] = "virtual-machines",
	[VOLUME_CUSTOM] = "custom",
};

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
	va_list args;

	va_start(args, fmt);
	explain_vline(layout->pool.explain, layout->pool.explain_user, fmt, args);
	va_end(args);
}

/* ---- records ---- */

int layout_record_get(struct layout *layout, const char *path, char **ret,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *record = NULL;
	char full[PATH_MAX], buffer[RECORD_MAX];
	ssize_t n;

	if (layout->has_no_attributes) {
		(void)snprintf(full, sizeof(full), "%s/" LAYOUT_RECORD_FILE, path);
		return file_read(layout->fd, full, RECORD_MAX, ret, err);
	}
	(void)snprintf(full, sizeof(full), "%s/%s", layout->path, path);
	n = lgetxattr(full, LAYOUT_ATTRIBUTE, buffer, sizeof(buffer));
	if (n < 0)
		return fail_errno(err, errno, "cannot read the record of '%s'", full);
	record = strndup(buffer, (size_t)n);
	if (!record)
		return fail_memory(err);
	*ret = take_ptr(&record);
	return COPPICE_OK;
}

int layout_record_put(int dir_fd, bool has_no_attributes, const char *record,
		      struct coppice_error *err)
{
	if (has_no_attributes)
		return file_write(dir_fd, LAYOUT_RECORD_FILE, record, true, err);
	if (fsetxattr(dir_fd, LAYOUT_ATTRIBUTE, record, strlen(record), 0) < 0)
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

void layout_record_explain(struct layout *layout, const char *word, const char *path)
{
	_cleanup_(freep) char *attribute = NULL;

	if (!layout->pool.explain)
		return;
	attribute = attribute_word(word);
	if (layout->has_no_attributes)
		layout_explain(layout, "printf %%s %s > %s/" LAYOUT_RECORD_FILE, word, path);
	else
		layout_explain(layout, "setfattr -n " LAYOUT_ATTRIBUTE " -v %s %s",
			       attribute ? attribute : word, path);
}

/* The identity that a record tells, if it tells one. */
bool layout_record_uuid(const char *record, struct uuid *ret)
{
	json_t *json = json_loads(record, JSON_REJECT_DUPLICATES, NULL);
	const char *text = json_string_value(json_object_get(json, "uuid"));
	bool is_one = text && uuid_parse(text, ret);

	json_decref(json);
	return is_one;
}

/* ---- directories ---- */

bool layout_is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Open a directory for readdir(); NULL with *r COPPICE_OK when it is not there. */
DIR *layout_list(int parent_fd, const char *name, int *r, struct coppice_error *err)
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

int layout_remove_folder(int parent_fd, const char *name, struct coppice_error *err)
{
	if (unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return fail_errno(err, errno, "cannot remove '%s'", name);
	return COPPICE_OK;
}

int layout_sync(struct layout *layout, int fd, const char *what, struct coppice_error *err)
{
	if (!layout->engine->needs_directory_sync)
		return COPPICE_OK;
	return directory_sync(fd, what, err);
}

int layout_changed(struct layout *layout, const struct volume_ref *ref, struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	char path[PATH_MAX];
	int r;

	if (!volume_is_snapshot(ref)) {
		r = directory_mark(layout->fd, kind_folder[ref->kind], err);
		return r < 0 ? r
			     : layout_sync(layout, layout->kind_fd[ref->kind], ref->name.text, err);
	}
	if (!layout->engine->needs_directory_sync)
		return COPPICE_OK;
	(void)snprintf(path, sizeof(path), "%s/%s/snapshots", kind_folder[ref->kind],
		       ref->name.text);
	fd = openat(layout->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	return directory_sync(fd, path, err);
}

int layout_fail(struct coppice_error *err, int os_errno, const char *what,
		const struct volume_ref *ref)
{
	char text[VOLUME_REF_TEXT_MAX];

	if (os_errno == ENOENT)
		return fail(err, COPPICE_NOT_FOUND, "no %s '%s'",
			    volume_is_snapshot(ref) ? "snapshot" : volume_kind_name(ref->kind),
			    volume_ref_format(ref, text));
	return fail_errno(err, os_errno, "cannot %s '%s'", what, volume_ref_format(ref, text));
}

/* ---- the pool ---- */

static int make_folder(int fd, const char *name, struct coppice_error *err)
{
	/* What is in them may hold setuid programs of old: root only. */
	int r = directory_ensure(fd, name, 0700, err);

	return r < 0 ? r : directory_mark(fd, name, err);
}

/* Can attributes be kept here? Tried on the directory itself. */
static int probe_attributes(int fd, bool *ret_has_none, struct coppice_error *err)
{
	if (fsetxattr(fd, LAYOUT_ATTRIBUTE ".probe", "", 0, 0) == 0) {
		(void)fremovexattr(fd, LAYOUT_ATTRIBUTE ".probe");
		*ret_has_none = false;
		return COPPICE_OK;
	}
	if (errno != EOPNOTSUPP)
		return fail_errno(err, errno, "cannot write attributes");
	*ret_has_none = true;
	return COPPICE_OK;
}

/* Of what is empty, the record last: without it nobody knows that there is a pool. */
int layout_remove(int fd, bool has_no_attributes, struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t kind = 0; kind < VOLUME_KINDS && r == COPPICE_OK; kind++)
		r = layout_remove_folder(fd, kind_folder[kind], err);
	if (r == COPPICE_OK)
		r = layout_remove_folder(fd, "drafts", err);
	if (r == COPPICE_OK)
		r = layout_remove_folder(fd, "deleted", err);
	if (r < 0)
		return r;
	if (has_no_attributes)
		(void)unlinkat(fd, LAYOUT_RECORD_FILE, 0);
	else
		(void)fremovexattr(fd, LAYOUT_ATTRIBUTE);
	return COPPICE_OK;
}

int layout_make(const char *path, const char *record, struct coppice_error *err)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct coppice_error ignored;
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
		r = layout_record_put(fd, has_no_attributes, record, err);
	if (r == COPPICE_OK)
		r = directory_sync(fd, path, err);
	if (r == COPPICE_OK)
		return COPPICE_OK;
	(void)layout_remove(fd, has_no_attributes, &ignored);
	return wrap(err, "cannot make a pool at '%s'", path);
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
		return fail(err, COPPICE_FAILED, "the pool at '%s' has no folder '%s'",
			    layout->path, name);
	return fail_errno(err, errno, "cannot open '%s/%s'", layout->path, name);
}

static int find_record(struct layout *layout, struct coppice_error *err)
{
	char buffer[1];

	if (lgetxattr(layout->path, LAYOUT_ATTRIBUTE, buffer, 0) >= 0)
		return COPPICE_OK;
	/* A disk that fails is no answer. */
	if (errno != ENODATA && errno != EOPNOTSUPP)
		return fail_errno(err, errno, "cannot read the record of the pool at '%s'",
				  layout->path);
	layout->has_no_attributes = true;
	if (faccessat(layout->fd, LAYOUT_RECORD_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return COPPICE_OK;
	if (errno != ENOENT)
		return fail_errno(err, errno, "cannot look for a record in '%s'", layout->path);
	return fail(err, COPPICE_INVALID, "there is no Coppice pool at '%s'", layout->path);
}

int layout_pool_hold(struct pool *pool, enum pool_hold how, struct coppice_error *err)
{
	static const int operation[] = {
		[POOL_RELEASE] = LOCK_UN,
		[POOL_SHARED] = LOCK_SH | LOCK_NB,
		[POOL_ALONE] = LOCK_EX | LOCK_NB,
	};

	if (flock(layout_of(pool)->fd, operation[how]) == 0)
		return COPPICE_OK;
	if (errno == EWOULDBLOCK)
		return fail(err, COPPICE_BUSY, "the pool at '%s' is in use by another Coppice",
			    layout_of(pool)->path);
	return fail_errno(err, errno, "cannot lock '%s'", layout_of(pool)->path);
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

int layout_check_owner(struct layout *layout, const struct pool_spec *spec,
		       struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	int r = layout_pool_record_read(&layout->pool, &text, err);

	return r < 0 ? r : pool_owner_check(spec, text, "at", layout->path, err);
}

int layout_pool_record_read(struct pool *pool, char **ret, struct coppice_error *err)
{
	return layout_record_get(layout_of(pool), ".", ret, err);
}

int layout_pool_record_write(struct pool *pool, const char *record, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	int r;

	if (pool->is_dry_run)
		return COPPICE_OK;
	r = layout_record_put(layout->fd, layout->has_no_attributes, record, err);
	return r < 0 ? r : directory_sync(layout->fd, layout->path, err);
}

const char *layout_pool_mount_path(struct pool *pool)
{
	return layout_of(pool)->path;
}

int layout_record_read(struct pool *pool, const struct volume_ref *ref, char **ret,
		       struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	char path[PATH_MAX], text[VOLUME_REF_TEXT_MAX];
	int r;

	r = layout_record_get(layout, layout_ref_path(ref, path), ret, err);
	if (r < 0 && err->os_errno == ENOENT)
		return layout_fail(err, ENOENT, "read", ref);
	if (r < 0 && err->os_errno == ENODATA)
		return fail(err, COPPICE_FAILED, "'%s' has no record; see: coppice check",
			    volume_ref_format(ref, text));
	return r;
}

/* ---- looking ---- */

int layout_stamp(struct pool *pool, uint64_t *ret, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	uint64_t hash = 14695981039346656037ULL; /* FNV-1a */

	for (size_t kind = 0; kind < VOLUME_KINDS; kind++) {
		struct stat st;

		if (fstat(layout->kind_fd[kind], &st) < 0)
			return fail_errno(err, errno, "cannot look at '%s/%s'", layout->path,
					  kind_folder[kind]);
		hash = (hash ^ directory_stamp(&st)) * 1099511628211ULL;
	}
	*ret = hash >> 1; /* SQLite's integers have a sign */
	return COPPICE_OK;
}

int layout_touch(struct pool *pool, struct coppice_error *err)
{
	if (pool->is_dry_run)
		return COPPICE_OK;
	return directory_mark(layout_of(pool)->fd, kind_folder[VOLUME_CONTAINER], err);
}

static int scan_one(struct layout *layout, const struct volume_ref *ref, bool is_valid, scan_fn *fn,
		    void *user, struct coppice_error *err)
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
	} else if (layout_record_get(layout, path, &record, &why) < 0) {
		record = NULL;
		if (why.os_errno == ENOENT && !layout->has_no_attributes)
			return COPPICE_OK; /* went away meanwhile */
		if (why.os_errno != ENODATA && why.os_errno != ENOENT)
			return fail_errno(err, why.os_errno, "cannot read the record of '%s'",
					  path);
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
	dir = layout_list(layout->fd, path, &r, err);
	while (dir && r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
		bool is_valid;

		if (layout_is_dot(entry->d_name))
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
		_cleanup_(closedirp) DIR *dir = layout_list(layout->fd, kind_folder[kind], &r, err);
		struct dirent *entry;

		while (dir && r == COPPICE_OK && (entry = readdir(dir)) != NULL) {
			struct volume_ref ref = { .kind = (enum volume_kind)kind };
			bool is_valid;

			if (layout_is_dot(entry->d_name))
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

/* The trees to look for, each with what is nested in it. */
struct trees {
	struct layout *layout;
	struct in_use_query *query; /* owned, and its strings */
	size_t n, capacity;
	const char *what, *top; /* of the one that is being added; borrowed */
};

static void trees_done(struct trees *trees)
{
	for (size_t i = 0; i < trees->n; i++) {
		free((char *)(uintptr_t)trees->query[i].what);
		free((char *)(uintptr_t)trees->query[i].path);
		free((char *)(uintptr_t)trees->query[i].top);
	}
	free(trees->query);
}

/* @path is below the top; "": the volume itself. */
static int add_tree(void *user, const char *path, struct coppice_error *err)
{
	struct trees *trees = user;
	struct in_use_query *query;

	if (trees->n == trees->capacity) {
		size_t capacity = 2 * trees->capacity + 1;
		struct in_use_query *more = reallocarray(trees->query, capacity, sizeof(*more));

		if (!more)
			return fail_memory(err);
		trees->query = more;
		trees->capacity = capacity;
	}
	query = &trees->query[trees->n++];
	*query = (struct in_use_query){
		.what = strdup(trees->what),
		.path = text_format("%s%s%s", trees->top, *path ? "/" : "", path),
		.top = strdup(trees->top),
		.is_resolved = true, /* the root is, and what is below is ours */
		.is_subvolume = trees->layout->pool.driver->nested != NULL,
	};
	return query->what && query->path && query->top ? COPPICE_OK : fail_memory(err);
}

static int add_trees(struct trees *trees, const struct volume_ref *ref, struct coppice_error *err)
{
	struct pool *pool = &trees->layout->pool;
	_cleanup_(freep) char *top = NULL;
	char text[VOLUME_REF_TEXT_MAX];
	int r = layout_path(pool, ref, &top, err);

	if (r < 0)
		return r;
	trees->what = volume_ref_format(ref, text);
	trees->top = top;
	r = add_tree(trees, "", err);
	if (r < 0 || !pool->driver->nested)
		return r;
	r = pool->driver->nested(pool, ref, add_tree, trees, err);
	return r == COPPICE_NOT_FOUND ? COPPICE_OK : r; /* what is not there is not in use */
}

int layout_in_use(struct layout *layout, const struct volume_ref *refs, size_t n, in_use_fn *tell,
		  void *user, struct coppice_error *err)
{
	_cleanup_(trees_done) struct trees trees = { .layout = layout };
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		r = add_trees(&trees, &refs[i], err);
	if (r < 0)
		return r;
	return tell ? in_use_each(trees.query, trees.n, tell, user, err)
		    : in_use_find(trees.query, trees.n, NULL, 0, err);
}
