/* SPDX-License-Identifier: Apache-2.0 */

/* The command's own errors, in the library's own type: main.c prints both alike. */

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "cli/cli.h"

int cli_fail(struct coppice_error *err, enum coppice_code code, const char *fmt, ...)
{
	va_list args;

	err->code = code;
	err->os_errno = 0;
	va_start(args, fmt);
	(void)vsnprintf(err->message, sizeof(err->message), fmt, args);
	va_end(args);
	return code;
}

int cli_fail_memory(struct coppice_error *err)
{
	return cli_fail(err, COPPICE_FAILED, "out of memory");
}

int cli_fail_errno(struct coppice_error *err, int os_errno, const char *fmt, ...)
{
	char what[COPPICE_ERROR_MESSAGE_MAX / 2];
	enum coppice_code code = COPPICE_FAILED;
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	if (os_errno == EEXIST)
		code = COPPICE_EXISTS;
	else if (os_errno == ENOSPC || os_errno == EDQUOT)
		code = COPPICE_NO_SPACE;
	(void)cli_fail(err, code, "%s: %s", what, strerror(os_errno));
	err->os_errno = os_errno;
	return code;
}
