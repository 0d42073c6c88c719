/* SPDX-License-Identifier: Apache-2.0 */
#include "base/undo.h"

#include <string.h>

void (*undo_report)(const char *name, const struct coppice_error *err);

void undo_push(struct undo *undo, undo_fn *fn, void *owner, const char *name)
{
	struct undo_entry *entry;
	size_t len = strlen(name);

	if (undo->n == UNDO_MAX || len >= UNDO_NAME_MAX)
		abort();

	entry = &undo->entry[undo->n++];
	entry->fn = fn;
	entry->owner = owner;
	memcpy(entry->name, name, len + 1);
}

void undo_rollback(struct undo *undo)
{
	while (undo->n > 0) {
		struct undo_entry *entry = &undo->entry[--undo->n];
		struct coppice_error err = COPPICE_ERROR_INIT;

		if (entry->fn(entry->owner, entry->name, &err) < 0 && undo_report)
			undo_report(entry->name, &err);
	}
}
