/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The index of all volumes and images, in SQLite.
 *
 * It is rebuilt from the pools and the image store whenever it is missing or they
 * changed behind it, so it is never synced, and nothing but usage history is lost
 * with it. One writer at a time: a change holds catalog_begin() … catalog_commit()
 * around the step that publishes in the pool, so what the catalog holds and what
 * it says of the pool's stamp belong together.
 */

#include "base/error.h"

struct catalog;

/*
 * Open STATE/catalog.db, making it. A damaged one is replaced by an empty one.
 * COPPICE_UNSUPPORTED: a newer version of Coppice made it.
 */
_nonnull_ int catalog_open(const char *path, unsigned timeout_ms, struct catalog **ret,
			   struct coppice_error *err);
void catalog_close(struct catalog *catalog);

/* Wait for other writers, and be the only one until commit or rollback. COPPICE_BUSY. */
_nonnull_ int catalog_begin(struct catalog *catalog, struct coppice_error *err);
_nonnull_ int catalog_commit(struct catalog *catalog, struct coppice_error *err);
_nonnull_ void catalog_rollback(struct catalog *catalog); /* nothing begun: does nothing */

/*
 * Look at one state of it until catalog_reading_end(): many questions cost what one
 * costs. Within a change, or when it fails, nothing happens.
 */
_nonnull_ void catalog_reading_begin(struct catalog *catalog);
_nonnull_ void catalog_reading_end(struct catalog *catalog);

/* ---- stamps: what state of a pool, or of the image store, was last indexed ---- */

_nonnull_ int catalog_stamp_get(struct catalog *catalog, const char *of, uint64_t *ret,
				struct coppice_error *err); /* 0: never */
_nonnull_ int catalog_stamp_put(struct catalog *catalog, const char *of, uint64_t stamp,
				struct coppice_error *err);

/* ---- volumes ---- */

/* A row; strings are borrowed for the call. */
struct catalog_volume {
	const char *pool;
	int kind;
	const char *name;
	const char *snapshot; /* "": the volume itself */
	const char *uuid;
	int64_t created_ns;
	const char *image;      /* fingerprint, or "" */
	const char *image_name; /* what it was called, or "" */
	const char *origin;     /* "c1" or "c1/before", or "" */
	bool is_moving;         /* a move to here was published, its source perhaps not retired */
	const char *record;
};

/* Called for each row; what it returns < 0 ends the listing. */
typedef int catalog_volume_fn(void *user, const struct catalog_volume *row,
			      struct coppice_error *err);

_nonnull_ int catalog_volume_put(struct catalog *catalog, const struct catalog_volume *row,
				 struct coppice_error *err);

/* With @snapshot "": the volume and its snapshots. */
_nonnull_ int catalog_volume_delete(struct catalog *catalog, const char *pool, int kind,
				    const char *name, const char *snapshot,
				    struct coppice_error *err);
_nonnull_ int catalog_volume_rename(struct catalog *catalog, const char *pool, int kind,
				    const char *name, const char *snapshot, const char *to,
				    struct coppice_error *err);
_nonnull_ int catalog_pool_clear(struct catalog *catalog, const char *pool,
				 struct coppice_error *err);

/* Which rows: NULL or 0 means any. Rows come by pool, kind, name, snapshot. */
struct catalog_query {
	const char *pool;
	unsigned kinds; /* 1 << KIND of each that is wanted */
	const char *name;
	bool no_snapshots;
	bool is_moving; /* only those */
};
int catalog_volumes(struct catalog *catalog, const struct catalog_query *query,
		    catalog_volume_fn *fn, void *user, struct coppice_error *err);

/*
 * In which pool a volume of one of these kinds is, and of which; NULL: in none. While a move is
 * unfinished there are two of a name, and the one moved to counts. free() the result.
 */
_nonnull_ int catalog_find(struct catalog *catalog, unsigned kinds, const char *name,
			   char **ret_pool, int *ret_kind, struct coppice_error *err);

/* ---- images ---- */

struct catalog_image {
	const char *fingerprint;
	bool has_bytes;
	const char *record;
};

typedef int catalog_image_fn(void *user, const struct catalog_image *row,
			     struct coppice_error *err);

_nonnull_ int catalog_images_clear(struct catalog *catalog, struct coppice_error *err);
_nonnull_ int catalog_image_put(struct catalog *catalog, const struct catalog_image *row,
				struct coppice_error *err);
_nonnull_ int catalog_image_delete(struct catalog *catalog, const char *fingerprint,
				   struct coppice_error *err);
_nonnull_ int catalog_alias_put(struct catalog *catalog, const char *alias, const char *fingerprint,
				struct coppice_error *err);

/* Fingerprint of an alias into ret; *ret_found false: there is none. */
_nonnull_ int catalog_alias_get(struct catalog *catalog, const char *alias, char ret[static 65],
				bool *ret_found, struct coppice_error *err);

/* Images whose fingerprint begins with @prefix; "" means all. By fingerprint. */
int catalog_images(struct catalog *catalog, const char *prefix, catalog_image_fn *fn, void *user,
		   struct coppice_error *err);

/* ---- usage history ---- */

_nonnull_ int catalog_history_add(struct catalog *catalog, const char *pool, int64_t time_ns,
				  uint64_t used_bytes, uint64_t free_bytes,
				  struct coppice_error *err);
