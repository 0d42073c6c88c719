/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/explain.h"

#include <stdio.h>

void explain_vline(explain_fn *explain, void *user, const char *fmt, va_list args)
{
	_cleanup_(freep) char *line = NULL;

	if (!explain)
		return;
	if (vasprintf(&line, fmt, args) < 0)
		line = NULL;
	if (line)
		explain(user, line);
}

void explain_line(explain_fn *explain, void *user, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	explain_vline(explain, user, fmt, args);
	va_end(args);
}
