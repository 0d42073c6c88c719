/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A driver that keeps its pools in this process's memory: the contract made
 * executable. Core tests run on it, as any of its steps can be made to fail; so
 * does the conformance suite, to test itself. No command offers it: tests call
 * driver_add(&driver_memory).
 *
 * Pools are found again by their uuid, or source, until they are destroyed or
 * the process ends. A volume's tree is a real temporary directory made by
 * volume_create and shared by its clones, so it must not be written after it was
 * sealed; what tests want to write into a clone, they put as key and value.
 *
 * A deleted volume stays, as a tombstone, until those cloned from it are gone.
 */

#include "driver/driver.h"

extern const struct driver driver_memory;

/*
 * Let the @nth step from now, counting from 1, fail with COPPICE_FAILED; 0: none.
 * What changes storage is a step; clone, publish and retire are one for each volume,
 * draft_sweep and reap one for each thing that they destroy.
 */
void memory_pool_fail_at(unsigned nth);

/* How many steps from now that is; 0: it has failed, or none was to. */
unsigned memory_pool_fails_in(void);

/* How many volumes, snapshots, drafts and tombstones there are in all pools. */
size_t memory_count(void);

/* All drafts now open are as if their makers had been killed. */
void memory_draft_orphan_all(void);

/*
 * Write "content" into a volume that has a name. COPPICE_NOT_FOUND;
 * COPPICE_UNSUPPORTED when it is read-only; COPPICE_NO_SPACE above its limit.
 */
_nonnull_ int memory_volume_put(struct pool *pool, const struct volume_ref *ref, const char *key,
				const char *value, struct coppice_error *err);

/* Read it; free() the result. COPPICE_NOT_FOUND for the volume or the key. */
_nonnull_ int memory_volume_get(struct pool *pool, const struct volume_ref *ref, const char *key,
				char **ret, struct coppice_error *err);
