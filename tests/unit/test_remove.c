/* SPDX-License-Identifier: Apache-2.0 */
/* Removing a tree takes all of it, and nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "driver/generic/remove.h"
#include "scratch.h"

static int scratch_fd = -1;

static void begin(void)
{
	scratch_make("remove");
	scratch_fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok(scratch_fd >= 0);
}

static void begin_mounts(void)
{
	own_mounts();
	begin();
}

static void test_whole(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	begin();
	ok(shell("mkdir -p outside t/a/b/c t/e; echo kept >outside/file; "
		 "for i in $(seq 40); do mkdir -p t/w/$i/x; touch t/w/$i/1 t/w/$i/x/2; done; "
		 "ln -s ../outside t/link; ln -s ../../outside t/a/link; mkfifo t/fifo; "
		 "ln outside/file t/a/hard; chmod 555 t/w/7") == 0);
	if (tree_remove(scratch_fd, "t", 4, &err) < 0)
		tap_fail("%s", err.message);
	ok(shell("test ! -e t && test \"$(cat outside/file)\" = kept") == 0);
	ok_int(tree_remove(scratch_fd, "t", 0, &err), ==, COPPICE_OK);
}

static void test_no_directory(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	begin();
	ok(shell("mkdir d; touch d/f g; ln -s d link") == 0);
	ok_int(tree_remove(scratch_fd, "link", 0, &err), ==, COPPICE_OK);
	ok_int(tree_remove(scratch_fd, "g", 0, &err), ==, COPPICE_OK);
	ok(shell("test -e d/f && test ! -L link && test ! -e g") == 0);
}

/* Longer than any path may be, and more than there are descriptors. */
static void test_deep(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char name[201] = "";
	int fd, up;

	begin();
	memset(name, 'n', sizeof(name) - 1);
	ok(mkdirat(scratch_fd, "t", 0755) == 0);
	fd = openat(scratch_fd, "t", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 1500; i++) {
		ok(mkdirat(fd, name, 0755) == 0);
		up = fd;
		fd = openat(up, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ok(fd >= 0);
		(void)close(up);
	}
	(void)close(fd);
	if (tree_remove(scratch_fd, "t", 2, &err) < 0)
		tap_fail("%s", err.message);
	ok(faccessat(scratch_fd, "t", F_OK, 0) < 0);
}

/* Who is root in a container may make files so; they must not stay for ever. */
static void test_immutable_files_go(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd;

	begin();
	if (geteuid() != 0)
		skip("needs root");
	ok(shell("mkdir -p t/a/b t/c t/e; touch t/a/f t/a/b/f t/c/f t/e/f") == 0);
	if (shell("chattr +i t/a/f"))
		skip("no immutable files here");
	/* Several threads at once find the same directory so; a device in one is not opened. */
	ok(shell("for i in $(seq 60); do mkdir t/d$i; done; mknod t/c/watchdog c 10 130; "
		 "chattr +i t/a/b t/c/f t/c && chattr +a t/e t/e/f && chattr +i t") == 0);
	if (tree_remove(scratch_fd, "t", 4, &err) < 0)
		tap_fail("%s", err.message);
	ok(faccessat(scratch_fd, "t", F_OK, 0) < 0);
	/* The directory that it is in is somebody's who may have meant it. */
	ok(shell("mkdir -p p/t; chattr +i p") == 0);
	fd = openat(scratch_fd, "p", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok_int(tree_remove(fd, "t", 1, &err), ==, COPPICE_FAILED);
	ok(shell("lsattr -d p | grep -q '^....i' && chattr -i p") == 0);
	ok_int(tree_remove(fd, "t", 1, &err), ==, COPPICE_OK);
	(void)close(fd);
}

static void test_mounts_stop(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	begin_mounts();
	ok(shell("mkdir -p t/a/m mnt; mount -t tmpfs none t/a/m; touch t/a/m/kept; "
		 "mount -t tmpfs none mnt; touch mnt/kept") == 0);
	ok_int(tree_remove(scratch_fd, "t", 2, &err), ==, COPPICE_BUSY);
	ok(strstr(err.message, "a/m") != NULL);
	ok_int(tree_remove(scratch_fd, "mnt", 2, &err), ==, COPPICE_BUSY);
	ok(shell("test -e t/a/m/kept && test -e mnt/kept && umount t/a/m && "
		 "mkdir -p t/b && touch o t/b/f && mount --bind o t/b/f") == 0);
	/* A file that is a mount is only known as such to rmdir and unlink. */
	ok_int(tree_remove(scratch_fd, "t", 2, &err), ==, COPPICE_BUSY);
	ok(shell("umount t/b/f") == 0);
	ok_int(tree_remove(scratch_fd, "t", 2, &err), ==, COPPICE_OK);
}

static void test_subvolumes_stop(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	begin_mounts();
	if (shell("truncate -s 200M img && mkfs.btrfs -q img && mkdir mnt && mount -o loop img "
		  "mnt"))
		skip("no Btrfs on a loop device here");
	ok(shell("mkdir -p mnt/t/a && btrfs subvolume create mnt/t/a/s && touch mnt/t/a/s/kept") ==
	   0);
	scratch_fd = openat(scratch_fd, "mnt", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok_int(tree_remove(scratch_fd, "t", 2, &err), ==, COPPICE_BUSY);
	ok(strstr(err.message, "a/s") != NULL);
	ok(shell("test -e mnt/t/a/s/kept && btrfs subvolume delete mnt/t/a/s") == 0);
	ok_int(tree_remove(scratch_fd, "t", 2, &err), ==, COPPICE_OK);
	(void)close(scratch_fd);
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_whole),
		TAP(test_no_directory),
		TAP(test_deep),
		TAP(test_immutable_files_go),
		TAP(test_mounts_stop),
		TAP(test_subvolumes_stop),
		{ NULL, NULL },
	});
}
