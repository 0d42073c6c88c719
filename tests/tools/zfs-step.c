/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for zfs(8) while tests/crash/steps runs, which mounts it over the real one:
 * it runs that, counts the commands that change something, and kills whoever started
 * the one that it was told of. So each state between two commands is met, not only
 * those in which a random instant falls.
 *
 *	/run/zfs/step         "4 before" or "4 after": at the fourth, instead of running
 *	                      it or once it has run; without this file nobody is killed
 *	/run/zfs/step.count   how many there were
 *	/run/zfs/real-zfs     the real one
 */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAL "/run/zfs/real-zfs"

static bool does_change(const char *command)
{
	return strcmp(command, "get") != 0 && strcmp(command, "list") != 0;
}

/* The commands of a batch run side by side: each gets a number of its own. */
static int count(void)
{
	int fd = open("/run/zfs/step.count", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char text[16] = "";
	int n = 0;

	if (fd < 0 || flock(fd, LOCK_EX) < 0 || pread(fd, text, sizeof(text) - 1, 0) < 0)
		return -1;
	(void)sscanf(text, "%d", &n);
	(void)snprintf(text, sizeof(text), "%d\n", ++n);
	if (pwrite(fd, text, strlen(text), 0) < 0)
		return -1;
	(void)close(fd);
	return n;
}

static int run(char *argv[])
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		(void)execv(REAL, argv);
		_exit(127);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}

int main(int argc, char *argv[])
{
	FILE *control = fopen("/run/zfs/step", "re");
	pid_t parent = getppid();
	int wanted = 0, status = 0;
	char when[16] = "";

	if (control && argc > 1 && does_change(argv[1]) &&
	    fscanf(control, "%d %15s", &wanted, when) == 2 && count() == wanted) {
		if (strcmp(when, "after") == 0)
			status = run(argv);
		(void)kill(parent, SIGKILL);
		return status;
	}
	(void)execv(REAL, argv);
	return 127;
}
