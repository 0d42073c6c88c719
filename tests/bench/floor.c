/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor of the benchmark: what the kernel itself needs for what Coppice does
 * on Btrfs. No locks, no records, no checks; only the C library, to begin quickly.
 *
 *	floor clone POOLDIR ORIGIN N   N snapshots in parallel, and one commit
 *	floor delete POOLDIR N         destroy those, and one commit
 *	floor settle MOUNT             wait until what was deleted is gone and discarded
 *	floor time OUT N COMMAND…      run COMMAND N times, "{}" in it is 0 … N-1
 *
 * clone and delete print how long that took, in milliseconds. Starting the
 * process is not counted; making directories is, removing them is not.
 *
 * time measures whole processes, ours and the peers' alike, from before they are
 * started until they are reaped. It is here and not in Python because starting
 * costs a large process more, and because the kernel counts the starter's own
 * memory as its child's peak. It prints milliseconds and kilobytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	THREADS_MAX = 128
};

static int pool_fd, origin_fd, n, next;

static void die(const char *what)
{
	(void)fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void commit(int fd)
{
	uint64_t transaction = 0;

	if (ioctl(fd, BTRFS_IOC_START_SYNC, &transaction) < 0 ||
	    ioctl(fd, BTRFS_IOC_WAIT_SYNC, &transaction) < 0)
		die("commit");
}

/* Each in a directory of its own: the ioctl holds its parent's lock while it commits. */
static void *clone_some(void *unused)
{
	struct btrfs_ioctl_vol_args_v2 args = { .fd = origin_fd, .name = "live" };
	char name[32];
	int i, fd;

	while ((i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < n) {
		(void)snprintf(name, sizeof(name), "floor%d", i);
		if (mkdirat(pool_fd, name, 0755) < 0)
			die(name);
		fd = openat(pool_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || ioctl(fd, BTRFS_IOC_SNAP_CREATE_V2, &args) < 0)
			die(name);
		(void)close(fd);
	}
	return NULL;
}

static void clone_all(void)
{
	int n_threads = n < THREADS_MAX ? n : THREADS_MAX;
	pthread_t threads[THREADS_MAX];
	pthread_attr_t attributes;

	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setstacksize(&attributes, 64 * 1024);
	for (int i = 1; i < n_threads; i++)
		if (pthread_create(&threads[i], &attributes, clone_some, NULL) != 0)
			die("thread");
	(void)clone_some(NULL);
	for (int i = 1; i < n_threads; i++)
		(void)pthread_join(threads[i], NULL);
}

static int run_clone(const char *pool, const char *origin)
{
	double begun;

	pool_fd = open(pool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	origin_fd = open(origin, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (pool_fd < 0 || origin_fd < 0)
		die(pool_fd < 0 ? pool : origin);
	begun = now_ms();
	clone_all();
	commit(pool_fd);
	(void)printf("%.3f\n", now_ms() - begun);
	return 0;
}

/* One after another: the ioctls do not wait for anything. */
static int run_delete(const char *pool)
{
	struct btrfs_ioctl_vol_args args = { .name = "live" };
	char name[32];
	double begun;
	int fd;

	pool_fd = open(pool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (pool_fd < 0)
		die(pool);
	begun = now_ms();
	for (int i = 0; i < n; i++) {
		(void)snprintf(name, sizeof(name), "floor%d", i);
		fd = openat(pool_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || ioctl(fd, BTRFS_IOC_SNAP_DESTROY, &args) < 0)
			die(name);
		(void)close(fd);
	}
	commit(pool_fd);
	(void)printf("%.3f\n", now_ms() - begun);
	for (int i = 0; i < n; i++) {
		(void)snprintf(name, sizeof(name), "floor%d", i);
		if (unlinkat(pool_fd, name, AT_REMOVEDIR) < 0)
			die(name);
	}
	return 0;
}

/* Deleted subvolumes that are not cleaned yet have an orphan item in the tree of roots. */
static int has_deleted(int fd)
{
	struct btrfs_ioctl_search_args search = {
		.key = {
			.tree_id = BTRFS_ROOT_TREE_OBJECTID,
			.min_objectid = BTRFS_ORPHAN_OBJECTID,
			.max_objectid = BTRFS_ORPHAN_OBJECTID,
			.min_type = BTRFS_ORPHAN_ITEM_KEY,
			.max_type = BTRFS_ORPHAN_ITEM_KEY,
			.max_offset = UINT64_MAX,
			.max_transid = UINT64_MAX,
			.nr_items = 1,
		},
	};

	if (ioctl(fd, BTRFS_IOC_TREE_SEARCH, &search) < 0)
		die("search");
	return search.key.nr_items > 0;
}

/* How many extents still wait to be discarded; 0 also where nothing is. */
static long discards_left(int fd)
{
	struct btrfs_ioctl_fs_info_args info = { 0 };
	const uint8_t *id = info.fsid;
	char path[128];
	long left = 0;
	FILE *file;

	if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0)
		die("fsid");
	(void)snprintf(path, sizeof(path),
		       "/sys/fs/btrfs/%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x"
		       "%02x%02x/discard/discardable_extents",
		       id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10],
		       id[11], id[12], id[13], id[14], id[15]);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%ld", &left) != 1)
		left = 0;
	(void)fclose(file);
	return left;
}

static int run_settle(const char *mount)
{
	int fd = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		die(mount);
	commit(fd); /* wakes the cleaner, too */
	while (has_deleted(fd)) {
		(void)usleep(20000);
		commit(fd);
	}
	/* Discards come at ten a second or so: a bounded patience. */
	for (int i = 0; i < 200 && discards_left(fd) > 0; i++)
		(void)usleep(50000);
	commit(fd);
	return 0;
}

/* Returns the exit status; *peak_kb grows to what the command or a child of it needed. */
static int run_once(char **argv, const char *out, long *peak_kb)
{
	posix_spawn_file_actions_t actions;
	struct rusage usage;
	int status;
	pid_t pid;

	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out,
					       O_WRONLY | O_CREAT | O_TRUNC, 0644);
	errno = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	if (errno)
		die(argv[0]);
	(void)posix_spawn_file_actions_destroy(&actions);
	while (wait4(pid, &status, 0, &usage) < 0)
		if (errno != EINTR)
			die("wait");
	if (usage.ru_maxrss > *peak_kb)
		*peak_kb = usage.ru_maxrss;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The argument with "{}" replaced; as it is where there is none. */
static char *with_number(char *argument, int number)
{
	char *at = strstr(argument, "{}");
	char *text;

	if (!at)
		return argument;
	if (asprintf(&text, "%.*s%d%s", (int)(at - argument), argument, number, at + 2) < 0)
		die("asprintf");
	return text;
}

static int run_time(const char *out, int n_words, char **words)
{
	char **argv = calloc((size_t)n_words + 1, sizeof(*argv));
	long peak_kb = 0;
	double begun;
	int status = 0;

	if (!argv)
		die("calloc");
	begun = now_ms();
	for (int i = 0; i < n && !status; i++) {
		for (int j = 0; j < n_words; j++)
			argv[j] = with_number(words[j], i);
		status = run_once(argv, out, &peak_kb);
	}
	(void)printf("%.3f %ld\n", now_ms() - begun, peak_kb);
	return status;
}

int main(int argc, char **argv)
{
	if (argc >= 5 && !strcmp(argv[1], "time") && (n = atoi(argv[3])) > 0)
		return run_time(argv[2], argc - 4, argv + 4);
	if (argc == 5 && !strcmp(argv[1], "clone") && (n = atoi(argv[4])) > 0)
		return run_clone(argv[2], argv[3]);
	if (argc == 4 && !strcmp(argv[1], "delete") && (n = atoi(argv[3])) > 0)
		return run_delete(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "settle"))
		return run_settle(argv[2]);
	(void)fprintf(stderr, "usage: floor clone POOLDIR ORIGIN N | delete POOLDIR N | "
			      "settle MOUNT | time OUT N COMMAND…\n");
	return 2;
}
