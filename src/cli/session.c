/* SPDX-License-Identifier: Apache-2.0 */

/* What happens while the library works. See session.h. */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/session.h"

#define DRAW_EVERY_MS 100

static volatile sig_atomic_t is_interrupted;
static volatile sig_atomic_t is_resized = 1;
static int explain_errno; /* why a line of --explain was not to be written */

/*
 * Whoever asks again means it: an engine may hang, and undoing with it. What is left then is what
 * a kill leaves. Not within a second or two: timeout(1) sends a signal to us and to our group.
 */
static void on_interrupt(int number)
{
	static const char line[] = "coppice: ended at once, with nothing undone: the next command "
				   "sweeps what is left\n";
	static struct timespec first;
	int old_errno = errno;
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	if (!is_interrupted) {
		first = now;
		is_interrupted = 1;
	} else if (now.tv_sec - first.tv_sec > 1) {
		(void)!write(STDERR_FILENO, line, sizeof(line) - 1);
		_exit(128 + SIGINT);
	}
	errno = old_errno;
}

static void on_resize(int number)
{
	is_resized = 1;
}

void session_catch_signals(void)
{
	/* SA_RESTART: the library asks between its steps; undoing is not to be disturbed. */
	struct sigaction interrupt = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART };
	struct sigaction resize = { .sa_handler = on_resize, .sa_flags = SA_RESTART };
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct sigaction old;

	/* A background job of a script is born with SIGINT ignored: leave it so. */
	if (sigaction(SIGINT, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
		(void)sigaction(SIGINT, &interrupt, NULL);
	(void)sigaction(SIGTERM, &interrupt, NULL);
	(void)sigaction(SIGWINCH, &resize, NULL);
	/* `coppice init … --explain | head` must not end in the middle of the batch. */
	(void)sigaction(SIGPIPE, &ignore, NULL);
	/* A limit on files' sizes is an error as others are, and what was begun is undone. */
	(void)sigaction(SIGXFSZ, &ignore, NULL);
}

static bool hook_is_interrupted(void *user)
{
	return is_interrupted;
}

/* ---- progress ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int terminal_width(void)
{
	static int width = 80;
	struct winsize size;

	if (is_resized && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		width = size.ws_col;
	is_resized = 0;
	return width;
}

static void bar_erase(struct session *session)
{
	if (session->is_drawn)
		(void)fputs("\r\033[K", stderr);
	session->is_drawn = false;
}

static void bar_draw(const struct coppice_progress *progress)
{
	int room = terminal_width() - 1;
	char done[SIZE_TEXT_MAX];
	char line[512];
	double part = 0;
	int cells;

	size_text(progress->done_bytes, done);
	if (progress->total_bytes == 0) {
		(void)snprintf(line, sizeof(line), "%s  %s", progress->what, done);
		coppice_text_make_printable(line);
		(void)fprintf(stderr, "\r%.*s\033[K", room, line);
		return;
	}
	part = (double)progress->done_bytes / (double)progress->total_bytes;
	if (part > 1)
		part = 1;
	(void)snprintf(line, sizeof(line), "%s  %3d%%  %s  ", progress->what, (int)(part * 100),
		       done);
	coppice_text_make_printable(line);
	cells = room - (int)strlen(line) - 2;
	if (cells < 5) {
		(void)fprintf(stderr, "\r%.*s\033[K", room, line);
		return;
	}
	if (cells > 40)
		cells = 40;
	(void)fprintf(stderr, "\r%s[", line);
	for (int i = 0; i < cells; i++)
		(void)fputc(i < (int)(part * cells) ? '#' : '.', stderr);
	(void)fputs("]\033[K", stderr);
}

static void hook_progress(void *user, const struct coppice_progress *progress)
{
	struct session *session = user;
	int64_t now = now_ms();

	if (!session->has_progress || now - session->drawn_ms < DRAW_EVERY_MS)
		return;
	session->drawn_ms = now;
	session->is_drawn = true;
	bar_draw(progress);
	(void)fflush(stderr);
}

/* ---- lines ---- */

static void hook_explain(void *user, const char *line)
{
	struct session *session = user;

	bar_erase(session);
	(void)fprintf(session->explain, "%s\n", line);
	/* At once: whoever watches wants to see it before it is done. */
	if (fflush(session->explain) != 0 && !explain_errno && session->explain == stdout)
		explain_errno = errno;
}

int session_explain_errno(void)
{
	return explain_errno;
}

static void hook_notice(void *user, const char *line)
{
	struct session *session = user;

	bar_erase(session);
	if (!session->request->is_quiet)
		line_say("note: ", line);
}

int session_open(struct session *session, const struct request *request, struct coppice_error *err)
{
	bool is_explained = request->is_explain || request->is_dry_run;
	struct coppice_options options = {
		.root = request->root,
		.lock_timeout_ms = request->lock_timeout_ms,
		.memory_limit_bytes = request->memory_limit_bytes,
		.is_dry_run = request->is_dry_run,
		.hooks = {
			.user = session,
			.progress = hook_progress,
			.explain = is_explained ? hook_explain : NULL,
			.notice = hook_notice,
			.is_interrupted = hook_is_interrupted,
		},
	};

	*session = (struct session){
		.request = request,
		.has_progress = !request->is_quiet && isatty(STDERR_FILENO),
		.explain = request->command->is_changing ? stdout : stderr,
	};
	return coppice_open(&options, &session->coppice, err);
}

void session_close(struct session *session)
{
	bar_erase(session);
	coppice_close(session->coppice);
	session->coppice = NULL;
}
