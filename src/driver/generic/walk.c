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

char *tree_path(const struct tree_dir *dir, const char *name)
{
	size_t dir_length = dir->parent ? strlen(dir->path) + 1 : 0;
	size_t name_size = strlen(name) + 1;
	char *path = malloc(dir_length + name_size);

	if (!path)
		return NULL;
	if (dir_length > 0) {
		memcpy(path, dir->path, dir_length - 1);
		path[dir_length - 1] = '/';
	}
	memcpy(path + dir_length, name, name_size);
	return path;
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
	size_t above = parent && parent->parent ? strlen(parent->path) + 1 : 0;
	size_t name_size = strlen(name) + 1;
	struct tree_dir *dir = malloc(sizeof(*dir) + above + name_size);

	if (!dir)
		return NULL;
	*dir = (struct tree_dir){ .parent = parent, .holds = 1, .name_at = above };
	if (above > 0) {
		memcpy(dir->path, parent->path, above - 1);
		dir->path[above - 1] = '/';
	}
	memcpy(dir->path + above, name, name_size);
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
	(void)pthread_mutex_lock(&walk->lock);
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
	walk->asked_ns = 0;
	walk->result = COPPICE_OK;
	walk->err = err;
	(void)pthread_mutex_init(&walk->lock, NULL);
	(void)pthread_cond_init(&walk->changed, NULL);
	r = push(walk, NULL, ".", err);
	if (r >= 0) {
		size_t n = walk->threads > 0 ? walk->threads : threads_usual();

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
		return errno == ENOENT ? COPPICE_OK
				       : fail_errno(err, errno, "cannot look at '%s'", name);
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
	int fd, r;

	fd = tree_open(walk->root_fd, dir->path, O_RDONLY | O_DIRECTORY | O_NOATIME);
	if (fd == -ENOENT)
		return COPPICE_OK;
	if (fd < 0)
		return fail_errno(err, -fd, "cannot open '%s'", dir->path);
	stream = fdopendir(fd);
	if (!stream) {
		(void)close(fd);
		return fail_memory(err);
	}
	while ((entry = readdir(stream))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		r = count_entry(usage, dir, fd, entry->d_name, err);
		if (r < 0)
			return wrap(err, "in '%s'", dir->path);
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
