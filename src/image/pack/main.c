/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coppice-pack: makes one archive of a directory, so that it can be imported.
 *
 * A program of its own because the library stays free of libarchive. Started by
 * image_read() only:
 *
 *	coppice-pack PARENT-PID
 *
 * with the directory on standard input; the archive goes to REPORT_ARCHIVE_FD, and
 * report.h has its answers. It dies with its parent.
 */
#include <signal.h>
#include <sys/prctl.h>

#include "image/pack/pack.h"
#include "image/unpack/report.h"

int main(int argc, char **argv)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	if (argc != 2) {
		fprintf(stderr, "coppice-pack is run by coppice, not by hand\n");
		return 2;
	}
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != strtol(argv[1], NULL, 10))
		return 1;
	if (pack(STDIN_FILENO, REPORT_ARCHIVE_FD, &err) < 0) {
		report_write_error(&err);
		return 1;
	}
	report_write('D', "", 0);
	return 0;
}
