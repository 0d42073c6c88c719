/* SPDX-License-Identifier: Apache-2.0 */
/* The stack of directories that copy, remove and count are built upon; see walk.h. */
#include "driver/generic/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sched.h>
#include <search.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/file.h"
#include "base/parallel.h"

#define THREADS_USUAL 4 /* more were slower, measured: the journal is one */
#define ASK_EVERY_NS  100000000

/* One in so many levels stays open, and so many in all: 65,536 levels deep. */
#define KEEP_EVERY 256
#define KEPT_MAX   256

/* ---- opening ---- */

static int open_step(int dir_fd, const char *path, int flags)
{
	struct open_how how = {
		.flags = (unsigned)flags | O_CLOEXEC | O_NOFOLLOW,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV |
			   RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

	/* Only the owner may leave access times alone; others read as usual. */
	if (fd < 0 && errno == EPERM && (flags & O_NOATIME)) {
		how.flags &= ~(uint64_t)O_NOATIME;
		fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
	}
	return fd < 0 ? -errno : fd;
}

/* As many whole names of @path as one system call takes; its length. */
static size_t piece_length(const char *path)
{
	size_t length = strnlen(path, PATH_MAX);

	if (length < PATH_MAX)
		return length;
	for (length = PATH_MAX - 1; length > 0 && path[length] != '/';)
		length--;
	return length;
}

int tree_open(int root_fd, const char *path, int flags)
{
	_cleanup_(closep) int dir_fd = -1;

	while (strnlen(path, PATH_MAX) >= PATH_MAX) {
		char piece[PATH_MAX];
		size_t length = piece_length(path);
		int fd;

		memcpy(piece, path, length);
		piece[length] = '\0';
		fd = open_step(dir_fd >= 0 ? dir_fd : root_fd, piece, O_PATH | O_DIRECTORY);
		if (fd < 0)
			return fd;
		closep(&dir_fd);
		dir_fd = fd;
		path += length + 1;
	}
	return open_step(dir_fd >= 0 ? dir_fd : root_fd, path, flags);
}

int tree_open_file(int dir_fd, const char *name)
{
	_cleanup_(closep) int path_fd = tree_open(dir_fd, name, O_PATH);
	char path[32];
	struct stat st;
	int fd;

	if (path_fd < 0)
		return path_fd;
	if (fstat(path_fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
	fd = open(path, O_RDONLY | O_NOATIME | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/*
 * The names from below @top to @dir, and @name, if it has one, each after a slash but the
 * first. "." where there are none.
 */
static char *path_below(const struct tree_dir *top, const struct tree_dir *dir, const char *name)
{
	size_t size = name ? strlen(name) + 1 : 0;
	char *path, *at;

	for (const struct tree_dir *above = dir; above != top && above->parent;
	     above = above->parent)
		size += strlen(above->name) + 1;
	if (size == 0)
		return strdup(".");
	path = malloc(size);
	if (!path)
		return NULL;
	at = path + size;
	*--at = '\0';
	while (name || (dir != top && dir->parent)) {
		const char *part = name ? name : dir->name;
		size_t length = strlen(part);

		at -= length;
		memcpy(at, part, length);
		if (!name)
			dir = dir->parent;
		name = NULL;
		if (at > path)
			*--at = '/';
	}
	return path;
}

char *tree_path(const struct tree_dir *dir, const char *name)
{
	return path_below(NULL, dir, name);
}

int tree_fail(const struct tree_dir *dir, const char *name, int os_errno, const char *what,
	      struct coppice_error *err)
{
	_cleanup_(freep) char *path = tree_path(dir, name);

	return fail_errno(err, os_errno, "cannot %s '%s'", what,
			  path   ? path
			  : name ? name
				 : dir->name);
}

/* Keep it open, if it is one of those that are, and nobody does. */
static void keep(struct tree_walk *walk, struct tree_dir *dir, enum tree_which which, int fd)
{
	int kept;

	if (dir->depth == 0 || dir->depth % KEEP_EVERY != 0)
		return;
	kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	(void)pthread_mutex_lock(&walk->lock);
	if (kept >= 0 && dir->kept[which] < 0 && walk->n_kept < KEPT_MAX) {
		dir->kept[which] = kept;
		walk->n_kept++;
		kept = -1;
	}
	(void)pthread_mutex_unlock(&walk->lock);
	closep(&kept);
}

/* The nearest above, or itself, that is open: *ret_fd. It stays so as long as @dir lives. */
static const struct tree_dir *find_kept(struct tree_walk *walk, const struct tree_dir *dir,
					enum tree_which which, int *ret_fd)
{
	(void)pthread_mutex_lock(&walk->lock);
	while (dir->parent && dir->kept[which] < 0)
		dir = dir->parent;
	*ret_fd = dir->kept[which];
	(void)pthread_mutex_unlock(&walk->lock);
	return dir;
}

static void unkeep(struct tree_dir *dir)
{
	for (size_t which = 0; which < ARRAY_SIZE(dir->kept); which++)
		closep(&dir->kept[which]);
}

int tree_dir_open(struct tree_walk *walk, struct tree_dir *dir, enum tree_which which, int flags)
{
	int root_fd = which == TREE_TWIN ? walk->twin_fd : walk->root_fd;
	_cleanup_(freep) char *path = NULL;
	const struct tree_dir *top;
	int fd, kept;

	top = find_kept(walk, dir, which, &kept);
	path = path_below(top, dir, NULL);
	if (!path)
		return -ENOMEM;
	fd = tree_open(top->parent ? kept : root_fd, path, flags);
	if (fd >= 0 && !(flags & O_PATH))
		keep(walk, dir, which, fd);
	return fd;
}

int tree_dir_list(struct tree_walk *walk, struct tree_dir *dir, DIR **ret,
		  struct coppice_error *err)
{
	int fd = tree_dir_open(walk, dir, TREE_WALKED, O_RDONLY | O_DIRECTORY | O_NOATIME);

	*ret = NULL;
	if (fd == -ENOENT)
		return COPPICE_OK;
	if (fd < 0)
		return tree_fail(dir, NULL, -fd, "open", err);
	*ret = fdopendir(fd);
	if (*ret)
		return COPPICE_OK;
	(void)close(fd);
	return fail_memory(err);
}

/* ---- the stack; what is called _locked needs the walk's lock ---- */

static void stop_locked(struct tree_walk *walk, int result, const struct coppice_error *err)
{
	if (walk->result == COPPICE_OK) {
		walk->result = result;
		*walk->err = *err;
	}
	(void)pthread_cond_broadcast(&walk->changed);
}

/* Only the caller's own thread asks: hooks are not written for others. */
static void ask_locked(struct tree_walk *walk)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	int64_t now;

	if (!walk->is_interrupted || !pthread_equal(pthread_self(), walk->caller))
		return;
	now = now_ns();
	if (now >= walk->asked_ns && now - walk->asked_ns < ASK_EVERY_NS)
		return;
	walk->asked_ns = now;
	if (walk->is_interrupted(walk->interrupted_user))
		stop_locked(walk, fail(&err, COPPICE_INTERRUPTED, "interrupted"), &err);
}

int tree_walk_check(struct tree_walk *walk, struct coppice_error *err)
{
	bool is_stopped;

	(void)pthread_mutex_lock(&walk->lock);
	ask_locked(walk);
	is_stopped = walk->result < 0;
	(void)pthread_mutex_unlock(&walk->lock);
	return is_stopped ? fail(err, COPPICE_INTERRUPTED, "stopped") : COPPICE_OK;
}

static struct tree_dir *dir_new(struct tree_dir *parent, const char *name)
{
	size_t size = strlen(name) + 1;
	struct tree_dir *dir = malloc(sizeof(*dir) + size);

	if (!dir)
		return NULL;
	*dir = (struct tree_dir){ .parent = parent,
				  .holds = 1,
				  .depth = parent ? parent->depth + 1 : 0,
				  .kept = { -1, -1 } };
	memcpy(dir->name, name, size);
	return dir;
}

static int push(struct tree_walk *walk, struct tree_dir *parent, const char *name,
		struct coppice_error *err)
{
	struct tree_dir *dir = dir_new(parent, name);

	if (!dir)
		return fail_memory(err);
	(void)pthread_mutex_lock(&walk->lock);
	if (parent)
		parent->holds++;
	walk->n_left++;
	dir->next = walk->top;
	walk->top = dir;
	(void)pthread_cond_signal(&walk->changed);
	(void)pthread_mutex_unlock(&walk->lock);
	return COPPICE_OK;
}

int tree_walk_add(struct tree_walk *walk, struct tree_dir *parent, const char *name,
		  struct coppice_error *err)
{
	return push(walk, parent, name, err);
}

/* Until something changes, or it is time to ask again. */
static void wait_locked(struct tree_walk *walk)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += ASK_EVERY_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	(void)pthread_cond_timedwait(&walk->changed, &walk->lock, &until);
}

/* The next directory, or NULL when all is done or somebody failed. */
static struct tree_dir *pop(struct tree_walk *walk)
{
	struct tree_dir *dir = NULL;

	(void)pthread_mutex_lock(&walk->lock);
	ask_locked(walk);
	while (!walk->top && walk->n_left > 0 && walk->result == COPPICE_OK) {
		wait_locked(walk);
		ask_locked(walk);
	}
	if (walk->top && walk->result == COPPICE_OK) {
		dir = walk->top;
		walk->top = dir->next;
	}
	(void)pthread_mutex_unlock(&walk->lock);
	return dir;
}

static bool let_go(struct tree_walk *walk, struct tree_dir *dir)
{
	bool is_last;

	(void)pthread_mutex_lock(&walk->lock);
	is_last = --dir->holds == 0;
	(void)pthread_mutex_unlock(&walk->lock);
	return is_last;
}

static void forget(struct tree_walk *walk, struct tree_dir *dir)
{
	size_t n_kept = (size_t)(dir->kept[TREE_WALKED] >= 0) + (size_t)(dir->kept[TREE_TWIN] >= 0);

	unkeep(dir);
	(void)pthread_mutex_lock(&walk->lock);
	walk->n_kept -= n_kept;
	if (--walk->n_left == 0)
		(void)pthread_cond_broadcast(&walk->changed);
	(void)pthread_mutex_unlock(&walk->lock);
	free(dir);
}

/* @dir was visited: leave it, and each above it of which it was the last. */
static int leave_upwards(struct tree_walk *walk, struct tree_dir *dir, int result,
			 struct coppice_error *err)
{
	while (dir && let_go(walk, dir)) {
		struct tree_dir *parent = dir->parent;

		if (result >= 0 && walk->leave)
			result = walk->leave(walk, dir, err);
		forget(walk, dir);
		dir = parent;
	}
	return result;
}

/* One thread's share; failures go to the walk, where the first one counts. */
static int work(void *user, size_t i, struct coppice_error *unused)
{
	struct tree_walk *walk = user;
	struct tree_dir *dir;

	while ((dir = pop(walk))) {
		struct coppice_error err = COPPICE_ERROR_INIT;
		int r = walk->visit(walk, dir, &err);

		r = leave_upwards(walk, dir, r, &err);
		if (r >= 0)
			continue;
		(void)pthread_mutex_lock(&walk->lock);
		stop_locked(walk, r, &err);
		(void)pthread_mutex_unlock(&walk->lock);
	}
	return COPPICE_OK;
}

static size_t threads_usual(void)
{
	cpu_set_t cpus;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;

	return n < THREADS_USUAL ? (size_t)n : THREADS_USUAL;
}

int tree_walk_run(struct tree_walk *walk, struct coppice_error *err)
{
	struct coppice_error ignored = COPPICE_ERROR_INIT;
	int r;

	walk->caller = pthread_self();
	walk->top = NULL;
	walk->n_left = 0;
	walk->n_kept = 0;
	walk->asked_ns = 0;
	walk->result = COPPICE_OK;
	walk->err = err;
	(void)pthread_mutex_init(&walk->lock, NULL);
	(void)pthread_cond_init(&walk->changed, NULL);
	r = push(walk, NULL, ".", err);
	if (r >= 0) {
		size_t n = walk->threads > 0 ? walk->threads : threads_usual();

		/* The others may have done all before the caller's own thread begins. */
		(void)tree_walk_check(walk, &ignored);
		(void)parallel_run(n, n, work, walk, &ignored);
		r = walk->result;
	}
	/* What a failure left unvisited. */
	while (walk->top) {
		struct tree_dir *dir = walk->top;

		walk->top = dir->next;
		(void)leave_upwards(walk, dir, COPPICE_FAILED, &ignored);
	}
	(void)pthread_cond_destroy(&walk->changed);
	(void)pthread_mutex_destroy(&walk->lock);
	return r;
}

/* ---- counting ---- */

/* A file with several names that was counted; a node of tsearch(3). */
struct counted {
	uint64_t inode;
};

struct usage {
	struct tree_walk walk;
	unsigned dev_major, dev_minor;
	void *counted; /* tree of struct counted */
	struct tree_count *count;
};

static int compare_counted(const void *a, const void *b)
{
	uint64_t x = ((const struct counted *)a)->inode, y = ((const struct counted *)b)->inode;

	return x < y ? -1 : x > y;
}

/* *ret: is this name the first of its file? */
static int count_first(struct usage *usage, uint64_t inode, bool *ret, struct coppice_error *err)
{
	struct counted *mine = malloc(sizeof(*mine));
	struct counted **found;

	if (!mine)
		return fail_memory(err);
	mine->inode = inode;
	found = tsearch(mine, &usage->counted, compare_counted);
	if (!found) {
		free(mine);
		return fail_memory(err);
	}
	*ret = *found == mine;
	if (!*ret)
		free(mine);
	return COPPICE_OK;
}

static int count_entry(struct usage *usage, struct tree_dir *dir, int fd, const char *name,
		       struct coppice_error *err)
{
	struct tree_count *count = usage->count;
	bool is_first = true;
	struct statx st;
	int r;

	if (statx(fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
		  STATX_TYPE | STATX_NLINK | STATX_INO | STATX_BLOCKS, &st) < 0)
		return errno == ENOENT ? COPPICE_OK : tree_fail(dir, name, errno, "look at", err);
	count->entries++;
	if (st.stx_dev_major != usage->dev_major || st.stx_dev_minor != usage->dev_minor ||
	    (st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		return COPPICE_OK;
	if (S_ISDIR(st.stx_mode)) {
		r = tree_walk_add(&usage->walk, dir, name, err);
		if (r < 0)
			return r;
	} else if (st.stx_nlink > 1) {
		r = count_first(usage, st.stx_ino, &is_first, err);
		if (r < 0)
			return r;
	}
	if (!is_first)
		return COPPICE_OK;
	count->allocated_bytes += st.stx_blocks * 512;
	return count->found ? count->found(count->user, fd, name, &st, err) : COPPICE_OK;
}

/* The tree may be in use: what vanishes while we look is not there. */
static int usage_visit(struct tree_walk *walk, struct tree_dir *dir, struct coppice_error *err)
{
	struct usage *usage = CONTAINER_OF(walk, struct usage, walk);
	_cleanup_(closedirp) DIR *stream = NULL;
	struct dirent *entry;
	int r;

	r = tree_dir_list(walk, dir, &stream, err);
	if (r < 0 || !stream)
		return r;
	while ((entry = readdir(stream))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		r = count_entry(usage, dir, dirfd(stream), entry->d_name, err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

int tree_usage(int dir_fd, struct tree_count *count, struct coppice_error *err)
{
	struct usage usage = {
		.walk = { .root_fd = dir_fd,
			  .threads = 1,
			  .is_interrupted = count->is_interrupted,
			  .interrupted_user = count->interrupted_user,
			  .visit = usage_visit },
		.count = count,
	};
	struct statx st;
	int r;

	if (statx(dir_fd, "", AT_EMPTY_PATH, STATX_BLOCKS, &st) < 0)
		return fail_errno(err, errno, "cannot look at the tree");
	usage.dev_major = st.stx_dev_major;
	usage.dev_minor = st.stx_dev_minor;
	count->allocated_bytes = st.stx_blocks * 512;
	count->entries = 0;
	r = tree_walk_run(&usage.walk, err);
	tdestroy(usage.counted, free);
	return r;
}
