/* SPDX-License-Identifier: Apache-2.0 */
/* Writing the frames by which the unpacker tells how it went. */
#include "image/unpack/report.h"

#include <string.h>

#include "base/error.h"
#include "base/file.h"

static void write_or_exit(const void *data, size_t length)
{
	struct coppice_error ignored;

	if (write_all(STDOUT_FILENO, data, length, "report", &ignored) < 0)
		_exit(1); /* nobody listens any more */
}

void report_write(char type, const void *data, size_t length)
{
	struct report_frame frame = { .type = (uint32_t)type, .length = (uint32_t)length };

	write_or_exit(&frame, sizeof(frame));
	write_or_exit(data, length);
}

void report_write_error(const struct coppice_error *err)
{
	struct report_error head = { .code = err->code, .os_errno = err->os_errno };
	char frame[sizeof(head) + sizeof(err->message)];
	size_t length = strnlen(err->message, sizeof(err->message));

	memcpy(frame, &head, sizeof(head));
	memcpy(frame + sizeof(head), err->message, length);
	report_write('E', frame, sizeof(head) + length);
}
