/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A directory of a test's own, removed when it exits, with what it mounted on its mnt/. */

#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "tap.h"

static char scratch[64];

/* Run in it; the exit status, or -1. */
static int shell(const char *command)
{
	_cleanup_(freep) char *whole = text_format("cd '%s' && { %s\n} 1>&2", scratch, command);
	int status;

	ok(whole != NULL);
	status = system(whole);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void scratch_remove(void)
{
	(void)shell(
		"cd / && umount \"$OLDPWD\"/mnt 2>/dev/null; rm -rf --one-file-system \"$OLDPWD\"");
}

static void scratch_make(const char *name)
{
	const char *base = getenv("TMPDIR");

	(void)snprintf(scratch, sizeof(scratch), "%.30s/%s-XXXXXX", base ? base : "/tmp", name);
	ok(mkdtemp(scratch) != NULL);
	(void)atexit(scratch_remove);
}

/* From here on mounts are seen by this process and its children only. */
static inline void own_mounts(void)
{
	if (geteuid() != 0)
		skip("needs root");
	ok(unshare(CLONE_NEWNS) == 0);
	ok(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
}
