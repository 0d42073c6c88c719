/* SPDX-License-Identifier: Apache-2.0 */
/* Who stands in a tree is found, whatever the namespace; who stands beside it is not. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "driver/generic/inuse.h"
#include "scratch.h"

static char tree[128];
static pid_t user = -1;

static void cleanup(void)
{
	if (user > 0) {
		(void)kill(user, SIGKILL);
		(void)waitpid(user, NULL, 0);
	}
	(void)shell("umount tree/m 2>/dev/null");
}

static void begin(void)
{
	own_mounts();
	scratch_make("inuse");
	(void)snprintf(tree, sizeof(tree), "%s/tree", scratch);
	(void)atexit(cleanup); /* before the directory is removed */
	ok(shell("mkdir -p tree/etc tree-beside tree/m; touch tree/etc/file") == 0);
}

/* Somebody who does @act and stays. */
static void start(void (*act)(void))
{
	int ends[2];
	char byte;

	ok(pipe(ends) == 0);
	user = fork();
	if (user == 0) {
		act();
		ok(write(ends[1], "x", 1) == 1);
		for (;;)
			(void)pause();
	}
	(void)close(ends[1]);
	ok(read(ends[0], &byte, 1) == 1);
	(void)close(ends[0]);
}

/* Ends when the library calls fdopendir() for the list of its files; then -1. */
static pid_t ends_in_fdopendir = -1;

/* In place of the C library's. */
DIR *fdopendir(int fd)
{
	DIR *(*next)(int) = (DIR * (*)(int)) dlsym(RTLD_NEXT, "fdopendir");
	char link[64], path[64] = "", wanted[64];

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	(void)snprintf(wanted, sizeof(wanted), "/proc/%d/fd", ends_in_fdopendir);
	if (readlink(link, path, sizeof(path) - 1) > 0 && strcmp(path, wanted) == 0) {
		(void)kill(ends_in_fdopendir, SIGKILL);
		(void)waitpid(ends_in_fdopendir, NULL, 0);
		ends_in_fdopendir = -1;
	}
	return next(fd);
}

/* Ends when the library has read that a file of its is in the tree; then -1. */
static pid_t ends_in_readlinkat = -1;

/* In place of the C library's. */
ssize_t readlinkat(int fd, const char *link, char *path, size_t size)
{
	ssize_t (*next)(int, const char *, char *, size_t) =
		(ssize_t(*)(int, const char *, char *, size_t))dlsym(RTLD_NEXT, "readlinkat");
	ssize_t length = next(fd, link, path, size), n = (ssize_t)strlen(tree);

	if (ends_in_readlinkat > 0 && length > n && strncmp(path, tree, (size_t)n) == 0) {
		(void)kill(ends_in_readlinkat, SIGKILL);
		(void)waitpid(ends_in_readlinkat, NULL, 0);
		ends_in_readlinkat = -1;
	}
	return length;
}

static void nothing(void)
{
}

static int look_sub(const char *path, bool is_subvolume, struct coppice_error *err)
{
	struct in_use_query queries[] = {
		{ .what = "absent", .path = "/nonexistent/tree" },
		{ .what = "c1", .path = path, .is_subvolume = is_subvolume },
	};
	char who[128];

	return in_use_find(queries, ARRAY_SIZE(queries), who, sizeof(who), err);
}

static int look(struct coppice_error *err)
{
	return look_sub(tree, false, err);
}

static void found(const char *how)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	ok_int(look(&err), ==, COPPICE_BUSY);
	printf("# %s\n", err.message);
	ok(strstr(err.message, how) != NULL);
	ok(strstr(err.message, "'c1' is in use by") != NULL);
}

static void stand_inside(void)
{
	ok(chdir(tree) == 0 && chdir("etc") == 0);
}

static void stand_beside(void)
{
	ok(chdir(scratch) == 0 && chdir("tree-beside") == 0);
}

static void open_file(void)
{
	ok(chdir(tree) == 0);
	ok(open("etc/file", O_RDONLY) >= 0);
	ok(unlink("etc/file") == 0);
	ok(chdir("/") == 0);
}

static void live_in_chroot(void)
{
	ok(chdir("/") == 0 && chroot(tree) == 0);
}

static void mount_elsewhere(void)
{
	ok(unshare(CLONE_NEWNS) == 0);
	ok(mount(tree, "/mnt", NULL, MS_BIND, NULL) == 0);
}

/* As a container: another root, and nothing left of the old one. */
static void live_in_container(void)
{
	ok(unshare(CLONE_NEWNS) == 0);
	ok(mount(tree, tree, NULL, MS_BIND, NULL) == 0);
	ok(chdir(tree) == 0);
	ok(mount(".", "/", NULL, MS_MOVE, NULL) == 0);
	ok(chroot(".") == 0 && chdir("/") == 0);
}

static void test_nobody(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	begin();
	start(stand_beside);
	ok_int(look(&err), ==, COPPICE_OK);
	ok(chdir(tree) == 0); /* we do not count */
	ok_int(look(&err), ==, COPPICE_OK);
	ok(chdir("/") == 0);
}

static void test_working_directory(void)
{
	begin();
	start(stand_inside);
	found("/etc is its working directory");
}

static void test_open_file(void)
{
	begin();
	start(open_file);
	found("open in it");
}

/* As when one command of ours looks at what another restores, which said that it is in use. */
static void test_open_for_a_moment(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	begin();
	start(open_file);
	ends_in_readlinkat = user;
	ok_call(look(&err), &err);
	ok_int(ends_in_readlinkat, ==, -1); /* it was seen to be open */
	user = -1;
}

static void test_chroot(void)
{
	begin();
	start(live_in_chroot);
	found("is its root directory");
}

static void test_mount_inside(void)
{
	begin();
	ok(shell("mount -t tmpfs none tree/m") == 0);
	found("a mount");
}

static void test_mount_in_other_namespace(void)
{
	begin();
	start(mount_elsewhere);
	found("/mnt");
}

static void test_container(void)
{
	begin();
	start(live_in_container);
	found("process");
}

static void in_subvolume(void)
{
	ok(chdir(scratch) == 0 && chdir("mnt/sub") == 0);
}

static void beside_subvolume(void)
{
	ok(chdir(scratch) == 0 && chdir("mnt") == 0);
}

/* Its device says so, even when its name is gone. */
static void test_subvolume(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char path[160];

	begin();
	if (shell("truncate -s 200M img && mkfs.btrfs -q img && mkdir mnt && mount -o loop img "
		  "mnt"))
		skip("no Btrfs on a loop device here");
	ok(shell("btrfs subvolume create mnt/sub") == 0);
	(void)snprintf(path, sizeof(path), "%s/mnt/sub", scratch);
	start(beside_subvolume);
	ok_int(look_sub(path, true, &err), ==, COPPICE_OK);
	(void)kill(user, SIGKILL);
	(void)waitpid(user, NULL, 0);
	start(in_subvolume);
	ok(shell("mv mnt/sub mnt/moved") == 0);
	(void)snprintf(path, sizeof(path), "%s/mnt/moved", scratch);
	ok_int(look_sub(path, true, &err), ==, COPPICE_BUSY);
	(void)kill(user, SIGKILL);
	(void)waitpid(user, NULL, 0);
	user = -1;
	ok(shell("mkdir a; mount --bind mnt/moved a") == 0);
	ok_int(look_sub(path, true, &err), ==, COPPICE_BUSY);
	printf("# %s\n", err.message);
	ok(shell("umount a; rmdir a") == 0);
	ok_int(look_sub(path, true, &err), ==, COPPICE_OK);
}

/*
 * Between opening and reading the list of its files a process may be gone: then fdopendir()
 * fails with ENOENT, which was taken for "out of memory".
 */
static void test_process_that_ends_while_looked_at(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	begin();
	start(nothing);
	ends_in_fdopendir = user;
	ok_call(look_sub(tree, false, &err), &err);
	ok_int(ends_in_fdopendir, ==, -1); /* it did */
	user = -1;
}

static void test_quick(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct timespec begun, ended;

	begin();
	(void)clock_gettime(CLOCK_MONOTONIC, &begun);
	ok_int(look(&err), ==, COPPICE_OK);
	(void)clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("# %ld us\n",
	       (ended.tv_sec - begun.tv_sec) * 1000000 + (ended.tv_nsec - begun.tv_nsec) / 1000);
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_nobody),
		TAP(test_working_directory),
		TAP(test_open_file),
		TAP(test_open_for_a_moment),
		TAP(test_chroot),
		TAP(test_mount_inside),
		TAP(test_mount_in_other_namespace),
		TAP(test_container),
		TAP(test_subvolume),
		TAP(test_process_that_ends_while_looked_at),
		TAP(test_quick),
		{ NULL, NULL },
	});
}
