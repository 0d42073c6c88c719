/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The file of its own that a pool lives on, where nothing else is given. */

#include "driver/driver.h"

struct pool_file {
	const char *path;
	const char *driver, *engine; /* "btrfs", and as people write it: "Btrfs" */
	unsigned smallest_mib;       /* below which the engine makes no file system */
	bool is_preallocated;        /* the host's space is taken at once */
};

/*
 * How large, in bytes: as the key `size` says; else by LXD's rule: a fifth of what is free,
 * between 5 and 30 GiB. COPPICE_INVALID: no size, or too small.
 */
_nonnull_ int pool_file_size(const struct pool_spec *spec, const struct pool_file *file,
			     uint64_t *ret, struct coppice_error *err);

/*
 * Refuse what pool_file_make would refuse, as far as can be told without making it; for a
 * moment there is a file without a name.
 */
_nonnull_ int pool_file_check(const struct pool_spec *spec, const struct pool_file *file,
			      struct coppice_error *err);

/*
 * Make it, that large, sparse unless told otherwise. Nothing is left when it fails.
 * COPPICE_EXISTS; COPPICE_INVALID: the size.
 */
_nonnull_ int pool_file_make(const struct pool_spec *spec, const struct pool_file *file,
			     struct coppice_error *err);

/*
 * Is @path, a regular file that is given as a source, free to be written over? Not if
 * there is a byte in it that is not 0, unless `source.wipe` is true: then COPPICE_EXISTS.
 */
_nonnull_ int pool_file_refuse_data(const struct pool_spec *spec, const char *path,
				    struct coppice_error *err);

/* What is left where it lies, and by how much it may grow there. */
_nonnull_ int pool_file_host(const char *path, struct pool_host *ret, struct coppice_error *err);

/* Is @path, if it is a regular file, large enough? COPPICE_INVALID: less than @smallest_mib. */
_nonnull_ int pool_file_refuse_small(const char *path, const char *engine, unsigned smallest_mib,
				     struct coppice_error *err);
