/* SPDX-License-Identifier: Apache-2.0 */
/* A file has one loop device, whoever asks, and none when nobody needs it any more. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "driver/generic/loop.h"
#include "scratch.h"

#define FILE_BYTES (64 << 20)

static char file[128];

static void begin(void)
{
	int fd;

	if (geteuid() != 0)
		skip("needs root");
	if (access("/dev/loop-control", R_OK | W_OK) < 0)
		skip("no loop devices on this machine");
	scratch_make("loop");
	(void)snprintf(file, sizeof(file), "%s/a file", scratch);
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ok(fd >= 0 && ftruncate(fd, FILE_BYTES) == 0);
	(void)close(fd);
}

static struct loop attach(const char *path)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct loop loop = LOOP_INIT;

	if (loop_attach(path, &loop, &err) < 0)
		tap_fail("%s", err.message);
	ok(loop.fd >= 0);
	return loop;
}

static bool is_attached(char path[static LOOP_PATH_MAX])
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	bool found;

	if (loop_find(file, path, &found, &err) < 0)
		tap_fail("%s", err.message);
	return found;
}

static uint64_t size_of(const struct loop *loop)
{
	uint64_t bytes = 0;

	ok(ioctl(loop->fd, BLKGETSIZE64, &bytes) == 0);
	return bytes;
}

/* The kernel takes it away a moment after the last one left. */
static void wait_detached(void)
{
	char path[LOOP_PATH_MAX];

	for (int i = 0; i < 200 && is_attached(path); i++)
		(void)nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	ok(!is_attached(path));
}

static void test_once(void)
{
	char path[LOOP_PATH_MAX];
	struct loop first, second;

	begin();
	ok(!is_attached(path));
	first = attach(file);
	ok(!first.was_attached);
	ok_int(size_of(&first), ==, FILE_BYTES);
	ok(is_attached(path));
	ok_str(path, first.path);
	second = attach(file);
	ok(second.was_attached);
	ok_str(second.path, first.path);
	loop_close(&first);
	ok(is_attached(path));
	loop_close(&second);
	loop_close(&second);
	wait_detached();
}

/* Another name, another mount namespace: the same file. */
static void test_other_name(void)
{
	_cleanup_(freep) char *other = NULL;
	struct loop first, second;

	begin();
	other = text_format("%s/other", scratch);
	ok(link(file, other) == 0);
	first = attach(file);
	own_mounts();
	second = attach(other);
	ok(second.was_attached);
	ok_str(second.path, first.path);
	loop_close(&first);
	loop_close(&second);
	wait_detached();
}

/* The attached device keeps the file open; it must not keep the lock. */
static void test_lock_given_back(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct loop loop = LOOP_INIT;
	int fd = -1, other;

	begin();
	ok_int(loop_lock(file, &fd, &err), ==, COPPICE_OK);
	ok_int(loop_attach_locked(file, fd, &loop, &err), ==, COPPICE_OK);
	other = open(file, O_RDWR | O_CLOEXEC);
	ok(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	(void)close(fd);
	ok(flock(other, LOCK_EX | LOCK_NB) == 0);
	(void)close(other);
	loop_close(&loop);
	wait_detached();
}

static void hold_for_a_while(int ready)
{
	struct loop loop = attach(file);
	char name[LOOP_PATH_MAX] = "";

	(void)snprintf(name, sizeof(name), "%s", loop.path);
	ok(write(ready, name, sizeof(name)) == sizeof(name));
	(void)sleep(1);
	_exit(0);
}

/* Eight processes at the same instant, and other files attached beside. */
static void test_race(void)
{
	char name[LOOP_PATH_MAX], first[LOOP_PATH_MAX] = "";
	int ends[2];

	begin();
	ok(pipe(ends) == 0);
	for (int i = 0; i < 8; i++)
		if (fork() == 0)
			hold_for_a_while(ends[1]);
	(void)close(ends[1]);
	for (int i = 0; i < 8; i++) {
		ok(read(ends[0], name, sizeof(name)) == sizeof(name));
		if (!*first)
			memcpy(first, name, sizeof(first));
		ok_str(name, first);
	}
	while (wait(NULL) > 0)
		continue;
	wait_detached();
}

static void test_many_files(void)
{
	begin();
	for (int i = 0; i < 8; i++) {
		if (fork() != 0)
			continue;
		(void)snprintf(file, sizeof(file), "%s/%d", scratch, i);
		(void)close(open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
		ok(truncate(file, 1 << 20) == 0);
		for (int k = 0; k < 5; k++) {
			struct loop loop = attach(file);

			ok_int(size_of(&loop), ==, 1 << 20);
			loop_close(&loop);
		}
		wait_detached();
		_exit(0);
	}
	for (int status, i = 0; i < 8; i++)
		ok(wait(&status) > 0 && status == 0);
}

static void test_resize(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct loop loop;

	begin();
	loop = attach(file);
	ok(truncate(file, 2LL * FILE_BYTES) == 0);
	ok_int(loop_resize(loop.path, &err), ==, COPPICE_OK);
	ok_int(size_of(&loop), ==, 2LL * FILE_BYTES);
	loop_close(&loop);
	wait_detached();
}

static void test_refusals(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct loop loop = LOOP_INIT;
	_cleanup_(freep) char *command = NULL;
	char path[LOOP_PATH_MAX];
	bool found;

	begin();
	ok_int(loop_attach("/nonexistent/file", &loop, &err), ==, COPPICE_NOT_FOUND);
	ok_int(loop_find("/nonexistent/file", path, &found, &err), ==, COPPICE_NOT_FOUND);
	command = text_format("losetup -r -f '%s' && losetup -j '%s' | cut -d: -f1 >'%s/device'",
			      file, file, scratch);
	if (system(command) != 0)
		skip("no losetup here");
	ok_int(loop_attach(file, &loop, &err), ==, COPPICE_BUSY);
	ok(strstr(err.message, "read-only") != NULL);
	free(command);
	command = text_format("losetup -d \"$(cat '%s/device')\"", scratch);
	ok(system(command) == 0);
	wait_detached();
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_once),
		TAP(test_other_name),
		TAP(test_lock_given_back),
		TAP(test_race),
		TAP(test_many_files),
		TAP(test_resize),
		TAP(test_refusals),
		{ NULL, NULL },
	});
}
