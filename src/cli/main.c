/* SPDX-License-Identifier: Apache-2.0 */

/*
 * coppice: the library, from a shell. Reads the command line, runs one command,
 * and is the only place that prints errors and chooses exit statuses.
 */

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "cli/run.h"
#include "cli/session.h"

/*
 * Programs may be started with closed standard streams; the next file opened
 * would take their place, and messages would be written into it.
 */
static void keep_standard_streams(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static int run_command(const struct request *request, struct coppice_error *err)
{
	struct session session;
	int r;

	session_catch_signals();
	r = session_open(&session, request, err);
	if (r < 0)
		return r;
	r = request->command->run(request, session.coppice, err);
	session_close(&session);
	return r;
}

static void print_help(int argc, char **argv, const struct request *request)
{
	if (request->command) {
		options_help(request->command, stdout);
		return;
	}
	for (int i = 1; i < argc; i++) {
		if (!command_is_group(argv[i]))
			continue;
		help_commands(argv[i], stdout);
		return;
	}
	help_commands(NULL, stdout);
}

static int run(int argc, char **argv, struct request *request, struct coppice_error *err)
{
	int r = options_parse(argc, argv, request, err);

	if (r < 0)
		return r;
	if (request->is_version) {
		(void)printf("coppice %s\n", coppice_version());
		return COPPICE_OK;
	}
	if (request->is_help) {
		print_help(argc, argv, request);
		return COPPICE_OK;
	}
	return run_command(request, err);
}

/* Does something of it stay, whether or not anybody hears of it? */
static bool is_lasting(const struct request *request)
{
	if (!request->command || request->is_help || request->is_version || request->is_dry_run)
		return false;
	return request->command->is_changing || request->is_repair ||
	       request->command->run == run_image_export;
}

/*
 * What was printed counts only when it arrived. @is_done: the command has done what it should,
 * and must not be taken for one that could simply be tried again.
 */
static int close_output(bool is_done, struct coppice_error *err)
{
	bool is_failed = ferror(stdout);
	int os_errno = session_explain_errno();

	errno = 0;
	if (fclose(stdout) == 0 && !is_failed)
		return COPPICE_OK;
	if (!os_errno)
		os_errno = errno ? errno : EIO;
	(void)cli_fail_errno(err, os_errno, "%scannot write to standard output",
			     is_done ? "done, but " : "");
	err->code = COPPICE_FAILED;
	return err->code;
}

static void print_error(const struct coppice_error *err)
{
	line_say("", err->message);
}

/* The reader has gone, as in `coppice list | head -1`: nobody wants to hear of it. */
static bool is_reader_gone(const struct coppice_error *err)
{
	return err->code == COPPICE_FAILED && err->os_errno == EPIPE;
}

int main(int argc, char **argv)
{
	struct request request = { 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct coppice_error output = COPPICE_ERROR_INIT;
	static char buffer[1 << 16];
	bool is_done;
	int r;

	/*
	 * A list of thousands asks the kernel for memory by the MiB, not 132 KiB at a time. What is
	 * freed is soon needed again, and a command soon over: librbd copies all that it writes, by
	 * objects of 4 MiB, and took twice the time of a processor with new pages for each.
	 */
	(void)mallopt(M_TOP_PAD, 1 << 20);
	(void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
	keep_standard_streams();
	/* Trees and ≤ are UTF-8 wherever they are read; the rest is the same in all locales. */
	(void)setlocale(LC_CTYPE, "C.UTF-8");
	if (!isatty(STDOUT_FILENO))
		(void)setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	r = run(argc, argv, &request, &err);
	is_done = r == COPPICE_OK && is_lasting(&request);
	request_done(&request);
	if (r < 0 && !is_reader_gone(&err))
		print_error(&err);
	if (close_output(is_done, &output) < 0 && r == COPPICE_OK) {
		if (is_done || !is_reader_gone(&output))
			print_error(&output);
		r = output.code;
	}
	return coppice_exit_status((enum coppice_code)r);
}
