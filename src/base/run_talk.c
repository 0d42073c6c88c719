/* SPDX-License-Identifier: Apache-2.0 */
/* A program to talk with: it reads lines of ours, and we read what it answers. */
#include "base/run_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/text.h"

#define BUFFER_BYTES (1U << 16)

int run_talk(const char *const argv[], const char *variable, int error, struct talk *ret,
	     struct coppice_error *err)
{
	_cleanup_(closep) int ours = -1;
	_cleanup_(closep) int theirs = -1;
	struct talk talk = { .to = -1 };
	int r, pair[2];

	/* A socket, as a write to it can be told not to raise SIGPIPE when the program is gone. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return fail_errno(err, errno, "cannot make a pair of sockets");
	ours = pair[0];
	theirs = pair[1];
	talk.to = fcntl(ours, F_DUPFD_CLOEXEC, 0);
	if (talk.to < 0)
		return fail_errno(err, errno, "cannot make a pair of sockets");
	talk.from = fdopen(ours, "r");
	/* A report is long, and comes line by line. */
	talk.buffer = malloc(BUFFER_BYTES);
	if (talk.from && talk.buffer)
		(void)setvbuf(talk.from, talk.buffer, _IOFBF, BUFFER_BYTES);
	if (!talk.from) {
		free(talk.buffer);
		(void)close(talk.to);
		return fail_errno(err, errno, "cannot read what '%s' says", argv[0]);
	}
	(void)take_fd(&ours);
	r = run_spawn_with(argv, variable, theirs, theirs, error, &talk.pid, err);
	if (r < 0) {
		(void)fclose(talk.from);
		free(talk.buffer);
		(void)close(talk.to);
		return r;
	}
	*ret = talk;
	return COPPICE_OK;
}

int talk_say(const struct talk *talk, const char *line, struct coppice_error *err)
{
	_cleanup_(freep) char *text = text_format("%s\n", line);
	size_t done = 0, length;

	if (!text)
		return fail_memory(err);
	for (length = strlen(text); done < length;) {
		ssize_t n = retry(send(talk->to, text + done, length - done, MSG_NOSIGNAL));

		if (n < 0)
			return fail_errno(err, errno, "cannot tell a program what to do");
		done += (size_t)n;
	}
	return COPPICE_OK;
}

void talk_end(struct talk *talk)
{
	struct coppice_error ignored;
	int status;

	if (talk->pid <= 0)
		return;
	(void)shutdown(talk->to, SHUT_WR);
	(void)close(talk->to);
	while (fgetc(talk->from) != EOF)
		; /* what it says on leaving */
	(void)fclose(talk->from);
	free(talk->buffer);
	(void)run_wait(talk->pid, &status, &ignored);
	*talk = (struct talk){ .to = -1 };
}

void talk_kill(struct talk *talk)
{
	if (talk->pid > 0)
		(void)kill(talk->pid, SIGKILL);
	talk_end(talk);
}
