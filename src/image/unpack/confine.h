/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Giving up, before the first byte of the archive is read, all that unpacking
 * does not need: a reader that a hostile archive has taken over finds itself
 * alone in the directory it unpacks into.
 */

#include <sys/types.h>

#include "base/error.h"

/*
 * The beginning: die with @parent, keep only the descriptors of report.h, gain no
 * rights, see no network. Files can still be opened after it.
 */
_nonnull_ int confine_begin(pid_t parent, struct coppice_error *err);

/*
 * The rest, for good, in a process that has no threads yet.
 *
 * @param target_path         becomes the root directory; NULL: no file is ever opened
 * @param memory_limit_bytes  of the decoder; the process gets this and what it needs itself
 * @param ret_root_fd         the target directory; -1 without one
 * @return COPPICE_OK; COPPICE_UNSUPPORTED when not root; COPPICE_FAILED
 */
int confine(const char *target_path, uint64_t memory_limit_bytes, int *ret_root_fd,
	    struct coppice_error *err);
