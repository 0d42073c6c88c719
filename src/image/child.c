/* SPDX-License-Identifier: Apache-2.0 */
#include "image/child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>

#include "base/text.h"
#include "image/unpack/report.h"

#ifndef COPPICE_LIBEXECDIR
#define COPPICE_LIBEXECDIR "/usr/local/libexec/coppice"
#endif

char *child_program(const char *name)
{
	const char *directory = secure_getenv("COPPICE_LIBEXECDIR");

	return text_format("%s/%s", directory && directory[0] ? directory : COPPICE_LIBEXECDIR,
			   name);
}

int child_fd_move_up(int *fd)
{
	int moved = fcntl(*fd, F_DUPFD_CLOEXEC, CHILD_FD_ABOVE);

	closep(fd);
	*fd = moved;
	return moved;
}

/* A group of its own: Ctrl-C reaches us alone, and we end it in order. */
static int attributes_init(posix_spawnattr_t *attributes)
{
	sigset_t none, all;

	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	if (posix_spawnattr_init(attributes) != 0)
		return -1;
	(void)posix_spawnattr_setsigmask(attributes, &none);
	(void)posix_spawnattr_setsigdefault(attributes, &all);
	(void)posix_spawnattr_setpgroup(attributes, 0);
	(void)posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
							   POSIX_SPAWN_SETPGROUP);
	return 0;
}

/* Without a third descriptor, number 3 must not be one of ours by accident. */
static int actions_init(posix_spawn_file_actions_t *actions, int in, int report, int third,
			bool is_mute)
{
	int r;

	if (posix_spawn_file_actions_init(actions) != 0)
		return -1;
	r = posix_spawn_file_actions_adddup2(actions, in, STDIN_FILENO);
	r |= posix_spawn_file_actions_adddup2(actions, report, STDOUT_FILENO);
	if (is_mute)
		r |= posix_spawn_file_actions_addopen(actions, STDERR_FILENO, "/dev/null", O_WRONLY,
						      0);
	if (third >= 0)
		r |= posix_spawn_file_actions_adddup2(actions, third, REPORT_KEEP_FD);
	r |= posix_spawn_file_actions_addclosefrom_np(actions, REPORT_KEEP_FD + (third >= 0));
	return r;
}

int child_spawn(int in, int report, int third, bool is_mute, char *const argv[], pid_t *ret,
		struct coppice_error *err)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	pid_t pid;
	int r;

	if (attributes_init(&attributes) < 0)
		return fail_memory(err);
	r = actions_init(&actions, in, report, third, is_mute);
	if (r == 0)
		r = posix_spawn(&pid, argv[0], &actions, &attributes, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attributes);
	if (r == 0) {
		*ret = pid;
		return COPPICE_OK;
	}
	return fail(err, COPPICE_FAILED, "cannot run '%s': %s", argv[0], strerror(r));
}
