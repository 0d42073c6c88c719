/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Pools as files of the state directory; for pools.c and storage.c. */

#include "core/core.h"

void pool_entry_free(struct pool_entry *entry);
DEFINE_CLEANUP(struct pool_entry *, pool_entry_free)

/* A new entry, with its specification filled in; @settings hold source too. */
int pool_entry_new(struct coppice *coppice, const char *name, const struct driver *driver,
		   const struct uuid *uuid, const struct coppice_setting *settings, size_t n,
		   struct pool_entry **ret, struct coppice_error *err);

/* Keep it in the handle's list. Takes it over also on failure. */
_nonnull_ int pool_entry_keep(struct coppice *coppice, struct pool_entry *entry,
			      struct coppice_error *err);

/* STATE/pools/NAME.json, .creating, .deleting, .recovering: which of these says how far it is. */
_nonnull_ int pool_entry_format(struct coppice *coppice, const struct pool_entry *entry,
				bool is_for_people, char **ret, struct coppice_error *err);
/* The other way round; what is damaged is said without naming the file. */
_nonnull_ int pool_entry_parse(struct coppice *coppice, const char *name, const char *text,
			       struct pool_entry **ret, struct coppice_error *err);
_nonnull_ int pool_entry_save(struct coppice *coppice, const struct pool_entry *entry,
			      struct coppice_error *err);

/* Give the driver's pool the hooks of the handle. */
_nonnull_ void pool_adopt(struct coppice *coppice, struct pool_entry *entry, struct pool *pool);

/* Unmount and detach; @is_place_ours: the directory that it was mounted at goes as well. */
_nonnull_ int pool_entry_unmount(struct coppice *coppice, struct pool_entry *entry,
				 bool is_place_ours, struct coppice_error *err);

/* Finish what a killed `storage create`, `delete` or `recover` began. */
_nonnull_ void pools_sweep(struct coppice *coppice);
