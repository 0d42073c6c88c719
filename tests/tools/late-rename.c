/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into two commands of coppice, one after the other: the first is killed when a monitor
 * has its request to rename a pool; the monitor does that when the second one asks for a pool to be
 * made. Until then the file COPPICE_LATE_RENAME has the request. Without that, the monitor renames
 * it, and its answer is lost.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int command_fn(void *cluster, const char **command, size_t n, const char *in, size_t n_in,
		       char **out, size_t *n_out, char **status, size_t *n_status);

__attribute__((visibility("default"))) command_fn rados_mon_command;

static void keep_and_die(const char *path, const char *request)
{
	FILE *file = fopen(path, "w");

	if (file) {
		(void)fputs(request, file);
		(void)fclose(file);
	}
	(void)raise(SIGKILL);
}

static void do_late(command_fn *real, void *cluster, const char *path)
{
	FILE *file = fopen(path, "r");
	char request[512] = "";
	const char *command = request;
	bool is_kept;

	if (!file)
		return;
	is_kept = fgets(request, sizeof(request), file) != NULL;
	(void)fclose(file);
	if (is_kept && real(cluster, &command, 1, "", 0, NULL, NULL, NULL, NULL) == 0)
		(void)unlink(path);
}

int rados_mon_command(void *cluster, const char **command, size_t n, const char *in, size_t n_in,
		      char **out, size_t *n_out, char **status, size_t *n_status)
{
	/* It was loaded with the driver, which keeps it to itself. */
	void *library = dlopen("librados.so.2", RTLD_LAZY | RTLD_NOLOAD);
	command_fn *real = library ? (command_fn *)dlsym(library, "rados_mon_command") : NULL;
	const char *path = getenv("COPPICE_LATE_RENAME");
	bool is_rename = strstr(command[0], "osd pool rename") != NULL;
	int r;

	if (!real)
		abort();
	if (path && is_rename)
		keep_and_die(path, command[0]);
	if (path && strstr(command[0], "osd pool create"))
		do_late(real, cluster, path);
	r = real(cluster, command, n, in, n_in, out, n_out, status, n_status);
	return is_rename ? -ETIMEDOUT : r;
}
