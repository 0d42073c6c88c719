/* SPDX-License-Identifier: Apache-2.0 */
/* What the library says to its caller. */
#include "core/core.h"

#include <stdarg.h>

#include "base/text.h"

static void tell(void (*hook)(void *, const char *), void *user, bool is_for_people,
		 const char *fmt, va_list args)
{
	_cleanup_(freep) char *line = NULL;

	if (!hook)
		return;
	if (vasprintf(&line, fmt, args) < 0) {
		line = NULL;
		return;
	}
	if (is_for_people)
		coppice_text_make_printable(line);
	hook(user, line);
}

void notice(struct coppice *coppice, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	tell(coppice->options.hooks.notice, coppice->options.hooks.user, true, fmt, args);
	va_end(args);
}

void explain(struct coppice *coppice, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	tell(coppice->options.hooks.explain, coppice->options.hooks.user, false, fmt, args);
	va_end(args);
}

bool is_interrupted(struct coppice *coppice)
{
	const struct coppice_hooks *hooks = &coppice->options.hooks;

	return hooks->is_interrupted && hooks->is_interrupted(hooks->user);
}
