/* SPDX-License-Identifier: Apache-2.0 */
#include "image/unpack/warnings.h"

#include <stdarg.h>
#include <string.h>

#include "image/unpack/report.h"

void warn_once(enum warning kind, const char *fmt, ...)
{
	static bool is_told[WARNINGS];
	char line[512];
	va_list args;

	if (is_told[kind])
		return;
	is_told[kind] = true;
	va_start(args, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	report_write('W', line, strlen(line));
}
