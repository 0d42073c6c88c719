/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* One row a code: what a program exits with, what a server answers. */
struct code_row {
	int exit_status;
	int http_status;
};

static struct code_row code_row(enum coppice_code code)
{
	switch (code) {
	case COPPICE_OK:
		return (struct code_row){ 0, 200 };
	case COPPICE_FAILED:
		return (struct code_row){ 1, 500 };
	case COPPICE_INVALID:
		return (struct code_row){ 2, 400 };
	case COPPICE_NOT_FOUND:
		return (struct code_row){ 3, 404 };
	case COPPICE_EXISTS:
		return (struct code_row){ 4, 409 };
	case COPPICE_BUSY:
		return (struct code_row){ 5, 423 };
	case COPPICE_NO_SPACE:
		return (struct code_row){ 6, 507 };
	case COPPICE_UNSUPPORTED:
		return (struct code_row){ 7, 501 };
	case COPPICE_UNAVAILABLE:
		return (struct code_row){ 8, 503 };
	case COPPICE_INTERRUPTED:
		return (struct code_row){ 130, 499 };
	}
	return (struct code_row){ 1, 500 };
}

int coppice_exit_status(enum coppice_code code)
{
	return code_row(code).exit_status;
}

int coppice_http_status(enum coppice_code code)
{
	return code_row(code).http_status;
}

static enum coppice_code code_from_errno(int os_errno)
{
	switch (os_errno) {
	case ENOENT:
		return COPPICE_NOT_FOUND;
	case EEXIST:
		return COPPICE_EXISTS;
	case EBUSY:
	case ETXTBSY:
		return COPPICE_BUSY;
	case ENOSPC:
	case EDQUOT:
		return COPPICE_NO_SPACE;
	case EROFS: /* until somebody mounts it again */
		return COPPICE_UNAVAILABLE;
	case EOPNOTSUPP:
	case ENOSYS:
		return COPPICE_UNSUPPORTED;
	default:
		return COPPICE_FAILED;
	}
}

/* What the message leaves room for is cut, never overrun. */
static void append(struct coppice_error *err, const char *text)
{
	size_t len = strlen(err->message);

	(void)snprintf(err->message + len, sizeof(err->message) - len, ": %s", text);
}

int fail(struct coppice_error *err, enum coppice_code code, const char *fmt, ...)
{
	va_list args;

	err->code = code;
	err->os_errno = 0;
	va_start(args, fmt);
	(void)vsnprintf(err->message, sizeof(err->message), fmt, args);
	va_end(args);
	coppice_text_make_printable(err->message);
	return code;
}

static void set_errno(struct coppice_error *err, int os_errno, const char *fmt, va_list args)
{
	char why[128];

	err->code = code_from_errno(os_errno);
	err->os_errno = os_errno;
	(void)vsnprintf(err->message, sizeof(err->message), fmt, args);
	coppice_text_make_printable(err->message);
	append(err, strerror_r(os_errno, why, sizeof(why)));
}

int fail_errno(struct coppice_error *err, int os_errno, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	set_errno(err, os_errno, fmt, args);
	va_end(args);
	return err->code;
}

int fail_aside(struct coppice_error *err, int os_errno, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	set_errno(err, os_errno, fmt, args);
	va_end(args);
	if (err->code == COPPICE_NOT_FOUND || err->code == COPPICE_EXISTS)
		err->code = COPPICE_FAILED;
	return err->code;
}

int wrap(struct coppice_error *err, const char *fmt, ...)
{
	char inner[COPPICE_ERROR_MESSAGE_MAX];
	va_list args;

	memcpy(inner, err->message, sizeof(inner));
	va_start(args, fmt);
	(void)vsnprintf(err->message, sizeof(err->message), fmt, args);
	va_end(args);
	coppice_text_make_printable(err->message);
	append(err, inner);
	return err->code;
}

int fail_memory(struct coppice_error *err)
{
	return fail(err, COPPICE_FAILED, "out of memory");
}
