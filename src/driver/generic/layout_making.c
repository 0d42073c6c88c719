/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes in a tree of directories: drafts, publishing, and what changes them. */
#include "driver/generic/layout_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/file.h"
#include "base/text.h"

/* ---- drafts ---- */

/*
 * A sweeper that came between mkdir and flock took the draft for a dead one: then its
 * directory has no name any more, or the sweeper has it locked, and another is made.
 */
static int draft_try_open(struct layout *layout, struct draft *draft, bool *ret_was_swept,
			  struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	struct stat st;
	int r;

	*ret_was_swept = false;
	r = uuid_new(&draft->id, err);
	if (r < 0)
		return r;
	if (mkdirat(layout->drafts_fd, draft->id.text, 0700) < 0)
		return fail_errno(err, errno, "cannot create a draft in '%s'", layout->path);
	fd = openat(layout->drafts_fd, draft->id.text,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0) {
		*ret_was_swept = st.st_nlink == 0;
		draft->fd = *ret_was_swept ? -1 : take_fd(&fd);
		return COPPICE_OK;
	}
	*ret_was_swept = errno == ENOENT || errno == EWOULDBLOCK;
	if (*ret_was_swept)
		return COPPICE_OK;
	r = fail_errno(err, errno, "cannot open a draft in '%s'", layout->path);
	(void)unlinkat(layout->drafts_fd, draft->id.text, AT_REMOVEDIR);
	return r;
}

int layout_draft_open(struct pool *pool, struct draft *ret, struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	struct draft draft = { .pool = pool, .fd = -1 };
	bool was_swept = true;
	int r = COPPICE_OK;

	layout_explain(layout, "draft=%s/drafts/$(cat /proc/sys/kernel/random/uuid)",
		       layout->quoted);
	layout_explain(layout, "mkdir \"$draft\"");
	while (!pool->is_dry_run && r == COPPICE_OK && was_swept)
		r = draft_try_open(layout, &draft, &was_swept, err);
	if (r < 0)
		return r;
	*ret = draft;
	return COPPICE_OK;
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

/* ---- making volumes ---- */

/* A snapshot's parent folder comes with its first snapshot, and is not an error if it is there. */
static int ensure_snapshots_folder(struct layout *layout, const struct volume_ref *ref,
				   struct coppice_error *err)
{
	char path[PATH_MAX];

	if (!volume_is_snapshot(ref))
		return COPPICE_OK;
	(void)snprintf(path, sizeof(path), "%s/%s/snapshots", layout_kind_folder(ref->kind),
		       ref->name.text);
	return directory_ensure(layout->fd, path, 0700, err);
}

static void snapshots_folder_explain(struct layout *layout, const struct volume_ref *ref)
{
	if (volume_is_snapshot(ref))
		layout_explain(layout, "mkdir -p %s/%s/%s/snapshots", layout->quoted,
			       layout_kind_folder(ref->kind), ref->name.text);
}

void layout_item_explain(struct draft *draft, const struct new_volume *volume)
{
	struct layout *layout = layout_of(draft->pool);
	char item[PATH_MAX], path[PATH_MAX + 16];

	(void)snprintf(path, sizeof(path), "\"$draft\"/%s", layout_item_path(volume, item));
	layout_explain(layout, volume->is_nested ? "mkdir -p %s" : "mkdir %s", path);
	layout_record_explain(layout, volume->explain_record, path);
}

int layout_item_record(struct draft *draft, const struct new_volume *volume,
		       struct coppice_error *err)
{
	struct layout *layout = layout_of(draft->pool);
	_cleanup_(closep) int fd = -1;
	char item[PATH_MAX];
	int r;

	fd = openat(draft->fd, layout_item_path(volume, item),
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open the directory of '%s'", item);
	r = layout_record_put(fd, layout->has_no_attributes, volume->record, err);
	if (r == COPPICE_OK)
		r = layout_sync(layout, fd, item, err);
	return r < 0 ? wrap(err, "cannot make '%s'", item) : COPPICE_OK;
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
	if (mkdirat(draft->fd, layout_item_path(volume, path), 0700) < 0)
		return fail_errno(err, errno, "cannot create a directory for '%s'", path);
	r = layout_item_record(draft, volume, err);
	if (r < 0)
		(void)unlinkat(draft->fd, path, AT_REMOVEDIR);
	return r;
}

int layout_refuse_limits(struct pool *pool, const struct new_volume *volumes, size_t n,
			 struct coppice_error *err)
{
	int r = COPPICE_OK;

	for (size_t i = 0; i < n && r == COPPICE_OK; i++)
		if (volumes[i].limit_bytes > 0)
			r = pool->driver->can_limit(pool, err);
	return r;
}

/* ---- announcing ---- */

#define ANNOUNCEMENT_MAX 3072

static int announce_part(struct draft *draft, unsigned part, struct text *text,
			 struct coppice_error *err)
{
	size_t length = text->length;
	_cleanup_(freep) char *lines = text_take(text);
	char name[64];

	if (!lines)
		return fail_memory(err);
	(void)snprintf(name, sizeof(name), LAYOUT_ANNOUNCEMENT, part);
	if (fsetxattr(draft->fd, name, lines, length, 0) < 0)
		return fail_errno(err, errno, "cannot write on draft '%s'", draft->id.text);
	return COPPICE_OK;
}

/*
 * "c1@s0 containers/c1/snapshots/s0 GROUP", a line each, in as many attributes as it
 * takes. The group is the volume's account: of a snapshot, its instance's uuid.
 */
static void add_line(struct text *text, const struct new_volume *volume, const char *group,
		     const char *end)
{
	char item[PATH_MAX], path[PATH_MAX];

	text_add(text, "%s %s %s%s", layout_item_path(volume, item),
		 layout_ref_path(&volume->ref, path), group, end);
}

/* Some more must fit into a Btrfs node of 4 KiB, the smallest there is. */
static bool ends_part(const struct text *text, size_t i, size_t n)
{
	return i + 1 == n || text->length > ANNOUNCEMENT_MAX;
}

static void announce_explain(struct layout *layout, const struct new_volume *volumes, size_t n)
{
	_cleanup_(text_done) struct text text = TEXT_INIT;
	unsigned part = 0;

	for (size_t i = 0; i < n && layout->pool.explain; i++) {
		_cleanup_(freep) char *group = NULL;

		group = text_format(volumes[i].explain_group ? "$%s" : "%s",
				    volumes[i].explain_group ? volumes[i].explain_group
							     : volumes[i].group.text);
		/* setfattr takes \\012 in a value for a newline. */
		add_line(&text, &volumes[i], group ? group : "", "\\012");
		if (!ends_part(&text, i, n))
			continue;
		layout_explain(layout, "setfattr -n " LAYOUT_ANNOUNCEMENT " -v \"%s\" \"$draft\"",
			       part++, text.data ? text.data : "");
		text_done(&text);
	}
}

int layout_draft_announce(struct draft *draft, const struct new_volume *volumes, size_t n,
			  struct coppice_error *err)
{
	_cleanup_(text_done) struct text text = TEXT_INIT;
	unsigned part = 0;
	int r = COPPICE_OK;

	announce_explain(layout_of(draft->pool), volumes, n);
	draft->is_announced = true;
	if (draft->pool->is_dry_run)
		return COPPICE_OK;
	for (size_t i = 0; i < n && r == COPPICE_OK; i++) {
		add_line(&text, &volumes[i], volumes[i].group.text, "\n");
		if (ends_part(&text, i, n))
			r = announce_part(draft, part++, &text, err);
	}
	return r;
}

/* A part of what was announced: 1, 0 where there are no more, or what failed. */
static int announcement_read(struct draft *draft, unsigned part, char ret[static PATH_MAX],
			     struct coppice_error *err)
{
	char name[64];
	ssize_t n;

	(void)snprintf(name, sizeof(name), LAYOUT_ANNOUNCEMENT, part);
	n = fgetxattr(draft->fd, name, ret, PATH_MAX - 1);
	if (n < 0 && (errno == ENODATA || errno == EOPNOTSUPP))
		return 0;
	if (n < 0)
		return fail_errno(err, errno, "cannot read what draft '%s' announced",
				  draft->id.text);
	ret[n] = '\0';
	return 1;
}

int layout_announcement_remove(struct draft *draft, struct coppice_error *err)
{
	char name[64];

	for (unsigned part = 0;; part++) {
		(void)snprintf(name, sizeof(name), LAYOUT_ANNOUNCEMENT, part);
		if (fremovexattr(draft->fd, name) == 0)
			continue;
		if (errno == ENODATA || errno == EOPNOTSUPP)
			return COPPICE_OK;
		return fail_errno(err, errno, "cannot take back what draft '%s' announced",
				  draft->id.text);
	}
}

/* A line of it. The pool may have been anybody's: what is not ours is passed over. */
static bool line_parse(char *line, const char **ret_item, struct volume_ref *ret_ref,
		       struct uuid *ret_group)
{
	char *path, *folder, *name, *between, *snapshot;
	struct volume_ref ref = { 0 };
	bool is_known = false;

	*ret_item = strsep(&line, " ");
	path = strsep(&line, " ");
	folder = strsep(&path, "/");
	name = strsep(&path, "/");
	between = strsep(&path, "/");
	snapshot = path;
	if (!line || !name || strchr(*ret_item, '/') || layout_is_dot(*ret_item) ||
	    (between && (!snapshot || strcmp(between, "snapshots") != 0)))
		return false;
	for (size_t kind = 0; kind < VOLUME_KINDS && !is_known; kind++) {
		ref.kind = (enum volume_kind)kind;
		is_known = strcmp(folder, layout_kind_folder(ref.kind)) == 0;
	}
	if (!is_known || !volume_name_is_valid(ref.kind, name) ||
	    (snapshot && !volume_name_is_valid(VOLUME_CUSTOM, snapshot)))
		return false;
	(void)snprintf(ref.name.text, sizeof(ref.name.text), "%s", name);
	(void)snprintf(ref.snapshot.text, sizeof(ref.snapshot.text), "%s",
		       snapshot ? snapshot : "");
	*ret_ref = ref;
	return uuid_parse(line, ret_group);
}

/* Is the instance still there, and the same, that this is a snapshot of? */
static bool has_instance(struct layout *layout, const struct volume_ref *ref,
			 const struct uuid *group)
{
	struct volume_ref instance = { .kind = ref->kind, .name = ref->name };
	_cleanup_(freep) char *record = NULL;
	struct coppice_error ignored;
	char path[PATH_MAX];
	struct uuid uuid;

	return layout_record_get(layout, layout_ref_path(&instance, path), &record, &ignored) ==
		       COPPICE_OK &&
	       layout_record_uuid(record, &uuid) && strcmp(uuid.text, group->text) == 0;
}

/*
 * One that a dead maker announced, if it is whole. Gone already, or the name taken, or
 * the instance of a snapshot gone: what is still in the draft goes with it. Folders do
 * not show that a snapshot came: so the stamp is changed first.
 */
static int publish_orphan(struct draft *draft, char *line, struct coppice_error *err)
{
	struct layout *layout = layout_of(draft->pool);
	_cleanup_(closep) int fd = -1;
	struct volume_ref ref;
	struct uuid group;
	char path[PATH_MAX];
	const char *item;
	int r;

	if (!line_parse(line, &item, &ref, &group))
		return COPPICE_OK;
	fd = openat(draft->fd, item, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || faccessat(fd, "live", F_OK, AT_SYMLINK_NOFOLLOW) < 0 ||
	    (volume_is_snapshot(&ref) && !has_instance(layout, &ref, &group)))
		return COPPICE_OK;
	/* Sealed, and what it was sealed from is still beside it. */
	r = layout->engine->data_destroy(layout, fd, LAYOUT_UNPACK, err);
	if (r == COPPICE_OK)
		r = ensure_snapshots_folder(layout, &ref, err);
	if (r == COPPICE_OK)
		r = layout_touch(&layout->pool, err);
	if (r < 0)
		return r;
	if (renameat2(draft->fd, item, layout->fd, layout_ref_path(&ref, path), RENAME_NOREPLACE) <
		    0 &&
	    errno != EEXIST)
		return fail_errno(err, errno, "cannot publish '%s'", path);
	return COPPICE_OK;
}

int layout_publish_orphans(struct draft *draft, struct coppice_error *err)
{
	char text[PATH_MAX];
	int result = COPPICE_OK;

	for (unsigned part = 0;; part++) {
		char *lines = text, *line;
		int found = announcement_read(draft, part, text, err);

		if (found <= 0)
			return found < 0 ? found : result;
		while ((line = strsep(&lines, "\n")) != NULL) {
			int r = *line ? publish_orphan(draft, line, err) : COPPICE_OK;

			if (r < 0)
				result = r;
		}
	}
}

/* ---- publishing what is finished ---- */

static int fail_exists(const struct volume_ref *ref, struct coppice_error *err)
{
	char text[VOLUME_REF_TEXT_MAX];

	return fail(err, COPPICE_EXISTS, "%s '%s' exists already",
		    volume_is_snapshot(ref) ? "snapshot" : volume_kind_name(ref->kind),
		    volume_ref_format(ref, text));
}

/* As far as it can. */
static void take_back(struct layout *layout, struct draft *draft, const struct new_volume *volumes,
		      size_t n)
{
	char item[PATH_MAX], target[PATH_MAX];

	while (n-- > 0)
		(void)renameat2(layout->fd, layout_ref_path(&volumes[n].ref, target), draft->fd,
				layout_item_path(&volumes[n], item), RENAME_NOREPLACE);
}

static int publish_one(struct layout *layout, struct draft *draft, const struct new_volume *volume,
		       struct coppice_error *err)
{
	char item[PATH_MAX], target[PATH_MAX];
	int r;

	r = ensure_snapshots_folder(layout, &volume->ref, err);
	if (r < 0)
		return r;
	if (renameat2(draft->fd, layout_item_path(volume, item), layout->fd,
		      layout_ref_path(&volume->ref, target), RENAME_NOREPLACE) == 0)
		return COPPICE_OK;
	if (errno == EEXIST)
		return fail_exists(&volume->ref, err);
	return fail_errno(err, errno, "cannot publish '%s'", target);
}

static void publish_explain(struct layout *layout, const struct new_volume *volumes, size_t n)
{
	char item[PATH_MAX], target[PATH_MAX];

	for (size_t i = 0; i < n; i++) {
		const struct volume_ref *ref = &volumes[i].ref;

		snapshots_folder_explain(layout, ref);
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
			take_back(layout, draft, volumes, i);
			return r;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && !volume_is_snapshot(&volumes[i].ref) &&
		    volumes[i].ref.kind == volumes[i - 1].ref.kind)
			continue; /* the same folder as the one before */
		r = layout_changed(layout, &volumes[i].ref, err);
		if (r < 0) {
			take_back(layout, draft, volumes, n);
			return r;
		}
	}
	return COPPICE_OK;
}

/* ---- changing volumes ---- */

/* Snapshots that are nested in an item become those of the volume at @path. */
static int move_nested(struct draft *draft, const char *item, const char *path,
		       const struct volume_ref *ref, struct coppice_error *err)
{
	struct layout *layout = layout_of(draft->pool);
	char from[PATH_MAX + 16], to[PATH_MAX + 300];
	_cleanup_(closedirp) DIR *dir = NULL;
	struct dirent *entry;
	int fd;

	(void)snprintf(from, sizeof(from), "%s/snapshots", item);
	(void)snprintf(to, sizeof(to), "%s/snapshots", path);
	fd = openat(draft->fd, from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return layout_fail(err, errno, "find new snapshots of", ref);
	dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return fail_memory(err);
	}
	if (mkdirat(layout->fd, to, 0700) < 0 && errno != EEXIST)
		return layout_fail(err, errno, "make the folder for snapshots of", ref);
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(to, sizeof(to), "%s/snapshots/%s", path, entry->d_name);
		if (renameat2(fd, entry->d_name, layout->fd, to, RENAME_NOREPLACE) < 0)
			return layout_fail(err, errno, "publish new snapshots of", ref);
	}
	return COPPICE_OK;
}

static void move_nested_explain(struct draft *draft, const char *item, const char *path)
{
	struct layout *layout = layout_of(draft->pool);

	layout_explain(layout, "mkdir -p %s/%s/snapshots", layout->quoted, path);
	layout_explain(layout, "mv -t %s/%s/snapshots \"$draft\"/%s/snapshots/*", layout->quoted,
		       path, item);
	layout_explain(layout, "rmdir \"$draft\"/%s/snapshots", item);
}

/* What cannot be made durable is taken back. */
static int exchange(struct draft *draft, const char *from, const char *to,
		    const struct volume_ref *ref, struct coppice_error *err)
{
	struct layout *layout = layout_of(draft->pool);
	_cleanup_(closep) int fd = -1;
	char path[PATH_MAX];
	int r;

	fd = openat(layout->fd, layout_ref_path(ref, path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return layout_fail(err, errno, "open", ref);
	if (renameat2(draft->fd, from, layout->fd, to, RENAME_EXCHANGE) < 0)
		return layout_fail(err, errno, "replace the data of", ref);
	r = layout_sync(layout, fd, path, err);
	if (r < 0)
		(void)renameat2(draft->fd, from, layout->fd, to, RENAME_EXCHANGE);
	return r;
}

int layout_swap(struct draft *draft, const struct new_volume *replacement,
		const struct volume_ref *ref, struct coppice_error *err)
{
	struct layout *layout = layout_of(draft->pool);
	char item[PATH_MAX], path[PATH_MAX], from[PATH_MAX + 8], to[PATH_MAX + 8];
	_cleanup_(freep) char *old = NULL;
	int r;

	(void)layout_item_path(replacement, item);
	(void)layout_ref_path(ref, path);
	if (replacement->has_nested)
		move_nested_explain(draft, item, path);
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

	r = replacement->has_nested ? move_nested(draft, item, path, ref, err) : COPPICE_OK;
	if (r < 0)
		return r;
	(void)snprintf(from, sizeof(from), "%s/live", item);
	(void)snprintf(to, sizeof(to), "%s/live", path);
	return exchange(draft, from, to, ref, err);
}

int layout_rename(struct pool *pool, const struct volume_ref *from, const struct volume_ref *to,
		  struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	char from_path[PATH_MAX], to_path[PATH_MAX], text[VOLUME_REF_TEXT_MAX];
	int r;

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
		return layout_fail(err, errno, "rename", from);
	}
	r = layout_changed(layout, to, err);
	if (r < 0)
		(void)renameat2(layout->fd, to_path, layout->fd, from_path, RENAME_NOREPLACE);
	return r;
}

int layout_record_write(struct pool *pool, const struct volume_ref *ref, const char *record,
			struct coppice_error *err)
{
	struct layout *layout = layout_of(pool);
	_cleanup_(freep) char *word = text_shell_quote(record);
	_cleanup_(freep) char *old = NULL;
	_cleanup_(closep) int fd = -1;
	struct coppice_error ignored;
	char path[PATH_MAX], full[2 * PATH_MAX];
	int r;

	if (!word)
		return fail_memory(err);
	(void)snprintf(full, sizeof(full), "%s/%s", layout->quoted, layout_ref_path(ref, path));
	layout_record_explain(layout, word, full);
	if (pool->is_dry_run)
		return COPPICE_OK;
	fd = openat(layout->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return layout_fail(err, errno, "open", ref);
	(void)layout_record_read(pool, ref, &old, &ignored); /* if it is damaged there is none */
	r = layout_record_put(fd, layout->has_no_attributes, record, err);
	if (r == COPPICE_OK)
		r = layout_sync(layout, fd, path, err);
	if (r < 0 && old)
		(void)layout_record_put(fd, layout->has_no_attributes, old, &ignored);
	return r;
}
