/* SPDX-License-Identifier: Apache-2.0 */
/* What the library says to its caller, and the locks that all commands share. */
#include "core/core.h"

#include <stdarg.h>
#include <string.h>

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

void locks_add(struct locks *locks, enum lock_range range, const char *name, bool is_exclusive)
{
	if (locks->n == locks->capacity) {
		size_t capacity = locks->capacity ? 2 * locks->capacity : 8;
		struct lock_want *more = reallocarray(locks->want, capacity, sizeof(*more));

		if (!more) {
			locks->is_failed = true;
			return;
		}
		locks->want = more;
		locks->capacity = capacity;
	}
	locks->want[locks->n++] =
		(struct lock_want){ .byte = lock_byte(range, name), .is_exclusive = is_exclusive };
}

int locks_take(struct coppice *coppice, struct locks *locks, struct coppice_error *err)
{
	int r;

	if (locks->is_failed)
		return fail_memory(err);
	r = lock_take(&coppice->locks, locks->want, locks->n, err);
	if (r < 0)
		return r;
	locks->coppice = coppice;
	return pools_settle(coppice, err);
}

void locks_done(struct locks *locks)
{
	if (locks->coppice)
		lock_give(&locks->coppice->locks, locks->want, locks->n);
	free(locks->want);
	*locks = (struct locks)LOCKS_INIT;
}
