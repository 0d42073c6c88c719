/* SPDX-License-Identifier: Apache-2.0 */
#include "catalog/catalog.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"

#define APPLICATION_ID 0x436f7070 /* "Copp" */
#define VERSION        1
#define BOOT           "/boot" /* among the stamps; no pool can be called so */

/* clang-format off */
static const char schema[] =
	"CREATE TABLE volumes ("
	"  pool TEXT NOT NULL, kind INTEGER NOT NULL, name TEXT NOT NULL, snapshot TEXT NOT NULL,"
	"  uuid TEXT NOT NULL, created INTEGER NOT NULL, image TEXT NOT NULL,"
	"  image_name TEXT NOT NULL, origin TEXT NOT NULL, moving INTEGER NOT NULL,"
	"  record TEXT NOT NULL, PRIMARY KEY (pool, kind, name, snapshot)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX volumes_by_name ON volumes (name, kind);"
	"CREATE INDEX volumes_moving ON volumes (moving) WHERE moving;"
	"CREATE TABLE stamps (of TEXT PRIMARY KEY, stamp INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE images (fingerprint TEXT PRIMARY KEY, has_bytes INTEGER NOT NULL,"
	"  record TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE aliases (alias TEXT PRIMARY KEY, fingerprint TEXT NOT NULL)"
	"  STRICT, WITHOUT ROWID;"
	"CREATE TABLE history (pool TEXT NOT NULL, time INTEGER NOT NULL, used INTEGER NOT NULL,"
	"  free INTEGER NOT NULL, PRIMARY KEY (pool, time)) STRICT, WITHOUT ROWID;";
/* clang-format on */

enum statement {
	STAMP_GET,
	STAMP_PUT,
	VOLUME_PUT,
	VOLUME_DELETE,
	SNAPSHOT_DELETE,
	VOLUME_RENAME,
	SNAPSHOT_RENAME,
	POOL_CLEAR,
	VOLUMES,
	VOLUMES_OF_NAME,
	VOLUMES_MOVING,
	FIND,
	IMAGES_CLEAR,
	ALIASES_CLEAR,
	IMAGE_PUT,
	IMAGE_DELETE,
	ALIASES_OF_DELETE,
	ALIAS_PUT,
	ALIAS_GET,
	IMAGES,
	HISTORY_ADD,
	STATEMENTS,
};

#define VOLUME_COLUMNS                                                                             \
	"pool, kind, name, snapshot, uuid, created, image, image_name, origin, moving, record"

static const char *const sql[STATEMENTS] = {
	[STAMP_GET] = "SELECT stamp FROM stamps WHERE of = ?1",
	[STAMP_PUT] = "INSERT OR REPLACE INTO stamps VALUES (?1, ?2)",
	[VOLUME_PUT] = "INSERT OR REPLACE INTO volumes (" VOLUME_COLUMNS
		       ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
	[VOLUME_DELETE] = "DELETE FROM volumes WHERE pool = ?1 AND kind = ?2 AND name = ?3",
	[SNAPSHOT_DELETE] = "DELETE FROM volumes WHERE pool = ?1 AND kind = ?2 AND name = ?3 "
			    "AND snapshot = ?4",
	[VOLUME_RENAME] = "UPDATE volumes SET name = ?5 WHERE pool = ?1 AND kind = ?2 AND "
			  "name = ?3",
	[SNAPSHOT_RENAME] = "UPDATE volumes SET snapshot = ?5 WHERE pool = ?1 AND kind = ?2 AND "
			    "name = ?3 AND snapshot = ?4",
	[POOL_CLEAR] = "DELETE FROM volumes WHERE pool = ?1",
	[VOLUMES] = "SELECT " VOLUME_COLUMNS " FROM volumes WHERE (?1 IS NULL OR pool = ?1) AND "
		    "(?2 = 0 OR ?2 >> kind & 1) ORDER BY pool, kind, name, snapshot",
	[VOLUMES_OF_NAME] = "SELECT " VOLUME_COLUMNS " FROM volumes WHERE name = ?3 AND "
			    "(?1 IS NULL OR pool = ?1) AND (?2 = 0 OR ?2 >> kind & 1) "
			    "ORDER BY pool, kind, name, snapshot",
	[VOLUMES_MOVING] = "SELECT " VOLUME_COLUMNS " FROM volumes WHERE moving",
	[FIND] = "SELECT pool, kind FROM volumes WHERE name = ?1 AND ?2 >> kind & 1 AND "
		 "snapshot = '' "
		 "ORDER BY moving DESC, kind LIMIT 1",
	[IMAGES_CLEAR] = "DELETE FROM images",
	[ALIASES_CLEAR] = "DELETE FROM aliases",
	[IMAGE_PUT] = "INSERT OR REPLACE INTO images VALUES (?1, ?2, ?3)",
	[IMAGE_DELETE] = "DELETE FROM images WHERE fingerprint = ?1",
	[ALIASES_OF_DELETE] = "DELETE FROM aliases WHERE fingerprint = ?1",
	[ALIAS_PUT] = "INSERT OR REPLACE INTO aliases VALUES (?1, ?2)",
	[ALIAS_GET] = "SELECT fingerprint FROM aliases WHERE alias = ?1",
	[IMAGES] = "SELECT fingerprint, has_bytes, record FROM images WHERE "
		   "substr(fingerprint, 1, length(?1)) = ?1 ORDER BY fingerprint",
	[HISTORY_ADD] = "INSERT OR REPLACE INTO history VALUES (?1, ?2, ?3, ?4)",
};

struct catalog {
	sqlite3 *db;
	unsigned timeout_ms;
	bool is_begun, is_reading;
	sqlite3_stmt *statement[STATEMENTS]; /* prepared when first used */
};

static int fail_db(struct catalog *catalog, const char *what, struct coppice_error *err)
{
	int code = sqlite3_errcode(catalog->db) & 0xff;

	if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
		return fail(err, COPPICE_BUSY, "cannot %s: another command holds the catalog",
			    what);
	if (code == SQLITE_FULL)
		return fail(err, COPPICE_NO_SPACE, "cannot %s: no space for the catalog", what);
	return fail(err, COPPICE_FAILED, "cannot %s: %s", what, sqlite3_errmsg(catalog->db));
}

/* ---- opening ---- */

/* Wait a millisecond at a time: others hold it for little longer. */
static int busy_handler(void *user, int n)
{
	const struct catalog *catalog = user;

	if ((unsigned)n >= catalog->timeout_ms)
		return 0;
	(void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return 1;
}

static int run(struct catalog *catalog, const char *text, const char *what,
	       struct coppice_error *err)
{
	return sqlite3_exec(catalog->db, text, NULL, NULL, NULL) == SQLITE_OK
		       ? COPPICE_OK
		       : fail_db(catalog, what, err);
}

static int read_version(struct catalog *catalog, int *ret, struct coppice_error *err)
{
	sqlite3_stmt *statement = NULL;
	int r = COPPICE_OK;

	if (sqlite3_prepare_v2(catalog->db, "PRAGMA user_version", -1, &statement, NULL) !=
		    SQLITE_OK ||
	    sqlite3_step(statement) != SQLITE_ROW)
		r = fail_db(catalog, "read the catalog", err);
	else
		*ret = sqlite3_column_int(statement, 0);
	(void)sqlite3_finalize(statement);
	return r;
}

/* Two may open a new catalog at once: who comes second finds the tables made. */
static int make_tables(struct catalog *catalog, struct coppice_error *err)
{
	_cleanup_(freep) char *done = text_format(
		"PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION_ID, VERSION);
	int version = 0;
	int r;

	if (!done)
		return fail_memory(err);
	r = catalog_begin(catalog, err);
	if (r == COPPICE_OK)
		r = read_version(catalog, &version, err);
	if (r == COPPICE_OK && version == 0)
		r = run(catalog, schema, "make the catalog", err);
	if (r == COPPICE_OK && version == 0)
		r = run(catalog, done, "make the catalog", err);
	if (r == COPPICE_OK)
		return catalog_commit(catalog, err);
	catalog_rollback(catalog);
	return r;
}

/* A number for the time since the machine was started. */
static uint64_t boot_stamp(void)
{
	_cleanup_(freep) char *id = boot_id();
	uint64_t hash = 14695981039346656037ULL; /* FNV-1a */

	if (!id)
		return 1;
	for (const char *at = id; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 1099511628211ULL;
	return hash >> 1;
}

/*
 * It is not synced, so after a power cut it may hold anything: what was indexed
 * before this boot is indexed again. Two may do it at once; that does no harm.
 */
static int distrust_after_boot(struct catalog *catalog, struct coppice_error *err)
{
	uint64_t now = boot_stamp(), known;
	int r = catalog_stamp_get(catalog, BOOT, &known, err);

	if (r < 0 || known == now)
		return r;
	r = catalog_begin(catalog, err);
	if (r == COPPICE_OK)
		r = run(catalog, "DELETE FROM stamps; REINDEX", "renew the catalog", err);
	if (r == COPPICE_OK)
		r = catalog_stamp_put(catalog, BOOT, now, err);
	if (r == COPPICE_OK)
		return catalog_commit(catalog, err);
	catalog_rollback(catalog);
	return r;
}

/*
 * Records are root's alone, and SQLite would take 0644. Its journal gets what the database has.
 * (No descriptor of one that is there: closing it would end the locks of this process.)
 */
static void keep_private(const char *path)
{
	static const char *const tails[] = { "", "-journal" };
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;

	if (fd >= 0)
		(void)close(fd);
	for (size_t i = 0; fd < 0 && i < ARRAY_SIZE(tails); i++) {
		_cleanup_(freep) char *name = text_format("%s%s", path, tails[i]);

		if (name && lstat(name, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077))
			(void)chmod(name, 0600);
	}
}

static int open_db(const char *path, unsigned timeout_ms, struct catalog **ret,
		   struct coppice_error *err)
{
	struct catalog *catalog = calloc(1, sizeof(*catalog));
	int version = 0;
	int r = COPPICE_OK;

	if (!catalog)
		return fail_memory(err);
	catalog->timeout_ms = timeout_ms;
	keep_private(path);
	if (sqlite3_open_v2(path, &catalog->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		r = fail_db(catalog, "open the catalog", err);
	if (r == COPPICE_OK)
		(void)sqlite3_busy_handler(catalog->db, busy_handler, catalog);
	if (r == COPPICE_OK)
		r = read_version(catalog, &version, err);
	if (r == COPPICE_OK && version > VERSION)
		r = fail(err, COPPICE_UNSUPPORTED,
			 "the catalog '%s' has version %d, made by a newer Coppice; this one knows "
			 "version %d",
			 path, version, VERSION);
	/*
	 * Not synced: after a power cut it is made anew. A journal that stays, and not
	 * a write-ahead log: that is for programs that stay, as its last user writes it
	 * back and removes it, or else its next one reads all of it again.
	 */
	if (r == COPPICE_OK)
		r = run(catalog, "PRAGMA journal_mode = PERSIST; PRAGMA synchronous = OFF",
			"open the catalog", err);
	if (r == COPPICE_OK && version < VERSION)
		r = make_tables(catalog, err);
	if (r == COPPICE_OK)
		r = distrust_after_boot(catalog, err);
	if (r < 0) {
		catalog_close(catalog);
		return r;
	}
	*ret = catalog;
	return COPPICE_OK;
}

static void remove_db(const char *path)
{
	static const char *const tails[] = { "", "-journal", "-wal", "-shm" };

	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		_cleanup_(freep) char *name = text_format("%s%s", path, tails[i]);

		if (name)
			(void)unlink(name);
	}
}

/* Only what SQLite itself calls damaged, or what is no database, is thrown away. */
static bool is_damaged(const char *path)
{
	sqlite3 *db = NULL;
	int code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema; PRAGMA quick_check",
				    NULL, NULL, NULL);
	(void)sqlite3_close(db);
	return code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
}

int catalog_open(const char *path, unsigned timeout_ms, struct catalog **ret,
		 struct coppice_error *err)
{
	int r = open_db(path, timeout_ms, ret, err);

	if (r != COPPICE_FAILED || !is_damaged(path))
		return r;
	remove_db(path);
	return open_db(path, timeout_ms, ret, err);
}

void catalog_close(struct catalog *catalog)
{
	if (!catalog)
		return;
	for (size_t i = 0; i < STATEMENTS; i++)
		(void)sqlite3_finalize(catalog->statement[i]);
	(void)sqlite3_close(catalog->db);
	free(catalog);
}

void catalog_reading_begin(struct catalog *catalog)
{
	if (catalog->is_begun || catalog->is_reading)
		return;
	catalog->is_reading = sqlite3_exec(catalog->db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK;
}

void catalog_reading_end(struct catalog *catalog)
{
	if (catalog->is_reading)
		(void)sqlite3_exec(catalog->db, "COMMIT", NULL, NULL, NULL);
	catalog->is_reading = false;
}

int catalog_begin(struct catalog *catalog, struct coppice_error *err)
{
	int r;

	catalog_reading_end(catalog); /* what was read may be old by now */
	r = run(catalog, "BEGIN IMMEDIATE", "change the catalog", err);

	catalog->is_begun = r == COPPICE_OK;
	return r;
}

int catalog_commit(struct catalog *catalog, struct coppice_error *err)
{
	int r = run(catalog, "COMMIT", "change the catalog", err);

	if (r < 0)
		catalog_rollback(catalog);
	catalog->is_begun = false;
	return r;
}

void catalog_rollback(struct catalog *catalog)
{
	if (catalog->is_begun)
		(void)sqlite3_exec(catalog->db, "ROLLBACK", NULL, NULL, NULL);
	catalog->is_begun = false;
}

/* ---- statements ---- */

static sqlite3_stmt *prepare(struct catalog *catalog, enum statement which)
{
	sqlite3_stmt **statement = &catalog->statement[which];

	if (!*statement)
		(void)sqlite3_prepare_v3(catalog->db, sql[which], -1, SQLITE_PREPARE_PERSISTENT,
					 statement, NULL);
	return *statement;
}

static void bind_text(sqlite3_stmt *statement, int i, const char *text)
{
	if (text)
		(void)sqlite3_bind_text(statement, i, text, -1, SQLITE_STATIC);
	else
		(void)sqlite3_bind_null(statement, i);
}

static const char *column_text(sqlite3_stmt *statement, int i)
{
	const unsigned char *text = sqlite3_column_text(statement, i);

	return text ? (const char *)text : "";
}

/* Run a statement that gives no rows, and make it ready for the next time. */
static int finish(struct catalog *catalog, sqlite3_stmt *statement, const char *what,
		  struct coppice_error *err)
{
	int r = COPPICE_OK;

	if (!statement || sqlite3_step(statement) != SQLITE_DONE)
		r = fail_db(catalog, what, err);
	(void)sqlite3_reset(statement);
	return r;
}

/* A statement whose parameters are all text. */
static int run_texts(struct catalog *catalog, enum statement which, const char *a, const char *b,
		     struct coppice_error *err)
{
	sqlite3_stmt *statement = prepare(catalog, which);

	if (statement && a)
		bind_text(statement, 1, a);
	if (statement && b)
		bind_text(statement, 2, b);
	return finish(catalog, statement, "change the catalog", err);
}

int catalog_stamp_get(struct catalog *catalog, const char *of, uint64_t *ret,
		      struct coppice_error *err)
{
	sqlite3_stmt *statement = prepare(catalog, STAMP_GET);
	int code, r = COPPICE_OK;

	if (!statement)
		return fail_db(catalog, "read the catalog", err);
	bind_text(statement, 1, of);
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		*ret = (uint64_t)sqlite3_column_int64(statement, 0);
	else if (code == SQLITE_DONE)
		*ret = 0;
	else
		r = fail_db(catalog, "read the catalog", err);
	(void)sqlite3_reset(statement);
	return r;
}

int catalog_stamp_put(struct catalog *catalog, const char *of, uint64_t stamp,
		      struct coppice_error *err)
{
	sqlite3_stmt *statement = prepare(catalog, STAMP_PUT);

	if (statement) {
		bind_text(statement, 1, of);
		(void)sqlite3_bind_int64(statement, 2, (sqlite3_int64)stamp);
	}
	return finish(catalog, statement, "change the catalog", err);
}

/* ---- volumes ---- */

int catalog_volume_put(struct catalog *catalog, const struct catalog_volume *row,
		       struct coppice_error *err)
{
	sqlite3_stmt *statement = prepare(catalog, VOLUME_PUT);

	if (statement) {
		bind_text(statement, 1, row->pool);
		(void)sqlite3_bind_int(statement, 2, row->kind);
		bind_text(statement, 3, row->name);
		bind_text(statement, 4, row->snapshot);
		bind_text(statement, 5, row->uuid);
		(void)sqlite3_bind_int64(statement, 6, row->created_ns);
		bind_text(statement, 7, row->image);
		bind_text(statement, 8, row->image_name);
		bind_text(statement, 9, row->origin);
		(void)sqlite3_bind_int(statement, 10, row->is_moving);
		bind_text(statement, 11, row->record);
	}
	return finish(catalog, statement, "change the catalog", err);
}

/* Statements about one volume or snapshot: pool, kind, name, and what there is more. */
static int run_on_volume(struct catalog *catalog, enum statement which, const char *const text[5],
			 int kind, struct coppice_error *err)
{
	sqlite3_stmt *statement = prepare(catalog, which);

	for (int i = 0; statement && i < 5; i++)
		if (text[i])
			bind_text(statement, i + 1, text[i]);
	if (statement)
		(void)sqlite3_bind_int(statement, 2, kind);
	return finish(catalog, statement, "change the catalog", err);
}

int catalog_volume_delete(struct catalog *catalog, const char *pool, int kind, const char *name,
			  const char *snapshot, struct coppice_error *err)
{
	const char *const text[5] = { pool, NULL, name, *snapshot ? snapshot : NULL, NULL };

	return run_on_volume(catalog, *snapshot ? SNAPSHOT_DELETE : VOLUME_DELETE, text, kind, err);
}

int catalog_volume_rename(struct catalog *catalog, const char *pool, int kind, const char *name,
			  const char *snapshot, const char *to, struct coppice_error *err)
{
	const char *const text[5] = { pool, NULL, name, *snapshot ? snapshot : NULL, to };

	return run_on_volume(catalog, *snapshot ? SNAPSHOT_RENAME : VOLUME_RENAME, text, kind, err);
}

int catalog_pool_clear(struct catalog *catalog, const char *pool, struct coppice_error *err)
{
	return run_texts(catalog, POOL_CLEAR, pool, NULL, err);
}

static struct catalog_volume volume_row(sqlite3_stmt *statement)
{
	return (struct catalog_volume){
		.pool = column_text(statement, 0),
		.kind = sqlite3_column_int(statement, 1),
		.name = column_text(statement, 2),
		.snapshot = column_text(statement, 3),
		.uuid = column_text(statement, 4),
		.created_ns = sqlite3_column_int64(statement, 5),
		.image = column_text(statement, 6),
		.image_name = column_text(statement, 7),
		.origin = column_text(statement, 8),
		.is_moving = sqlite3_column_int(statement, 9) != 0,
		.record = column_text(statement, 10),
	};
}

int catalog_volumes(struct catalog *catalog, const struct catalog_query *query,
		    catalog_volume_fn *fn, void *user, struct coppice_error *err)
{
	enum statement which = query->is_moving ? VOLUMES_MOVING
			       : query->name    ? VOLUMES_OF_NAME
						: VOLUMES;
	/* Not the shared one: the caller may list again from within. */
	sqlite3_stmt *statement = NULL;
	int code, r = COPPICE_OK;

	if (sqlite3_prepare_v2(catalog->db, sql[which], -1, &statement, NULL) != SQLITE_OK)
		return fail_db(catalog, "read the catalog", err);
	if (!query->is_moving) {
		bind_text(statement, 1, query->pool);
		(void)sqlite3_bind_int64(statement, 2, query->kinds);
	}
	if (query->name)
		bind_text(statement, 3, query->name);
	while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
		struct catalog_volume row = volume_row(statement);

		if (query->no_snapshots && row.snapshot[0])
			continue;
		r = fn(user, &row, err);
		if (r < 0)
			break;
	}
	if (r == COPPICE_OK && code != SQLITE_DONE)
		r = fail_db(catalog, "read the catalog", err);
	(void)sqlite3_finalize(statement);
	return r;
}

int catalog_find(struct catalog *catalog, unsigned kinds, const char *name, char **ret_pool,
		 int *ret_kind, struct coppice_error *err)
{
	sqlite3_stmt *statement = prepare(catalog, FIND);
	char *pool = NULL;
	int code, r = COPPICE_OK;

	if (!statement)
		return fail_db(catalog, "read the catalog", err);
	bind_text(statement, 1, name);
	(void)sqlite3_bind_int64(statement, 2, kinds);
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW) {
		pool = strdup(column_text(statement, 0));
		*ret_kind = sqlite3_column_int(statement, 1);
		r = pool ? COPPICE_OK : fail_memory(err);
	} else if (code != SQLITE_DONE) {
		r = fail_db(catalog, "read the catalog", err);
	}
	(void)sqlite3_reset(statement);
	if (r == COPPICE_OK)
		*ret_pool = pool;
	return r;
}

/* ---- images ---- */

int catalog_images_clear(struct catalog *catalog, struct coppice_error *err)
{
	int r = run_texts(catalog, IMAGES_CLEAR, NULL, NULL, err);

	return r < 0 ? r : run_texts(catalog, ALIASES_CLEAR, NULL, NULL, err);
}

int catalog_image_put(struct catalog *catalog, const struct catalog_image *row,
		      struct coppice_error *err)
{
	sqlite3_stmt *statement = prepare(catalog, IMAGE_PUT);

	if (statement) {
		bind_text(statement, 1, row->fingerprint);
		(void)sqlite3_bind_int(statement, 2, row->has_bytes);
		bind_text(statement, 3, row->record);
	}
	return finish(catalog, statement, "change the catalog", err);
}

int catalog_image_delete(struct catalog *catalog, const char *fingerprint,
			 struct coppice_error *err)
{
	int r = run_texts(catalog, IMAGE_DELETE, fingerprint, NULL, err);

	return r < 0 ? r : run_texts(catalog, ALIASES_OF_DELETE, fingerprint, NULL, err);
}

int catalog_alias_put(struct catalog *catalog, const char *alias, const char *fingerprint,
		      struct coppice_error *err)
{
	return run_texts(catalog, ALIAS_PUT, alias, fingerprint, err);
}

int catalog_alias_get(struct catalog *catalog, const char *alias, char ret[static 65],
		      bool *ret_found, struct coppice_error *err)
{
	sqlite3_stmt *statement = prepare(catalog, ALIAS_GET);
	int code, r = COPPICE_OK;

	if (!statement)
		return fail_db(catalog, "read the catalog", err);
	bind_text(statement, 1, alias);
	code = sqlite3_step(statement);
	*ret_found = code == SQLITE_ROW;
	if (code == SQLITE_ROW)
		(void)snprintf(ret, 65, "%s", column_text(statement, 0));
	else if (code != SQLITE_DONE)
		r = fail_db(catalog, "read the catalog", err);
	(void)sqlite3_reset(statement);
	return r;
}

int catalog_images(struct catalog *catalog, const char *prefix, catalog_image_fn *fn, void *user,
		   struct coppice_error *err)
{
	sqlite3_stmt *statement = NULL;
	int code, r = COPPICE_OK;

	if (sqlite3_prepare_v2(catalog->db, sql[IMAGES], -1, &statement, NULL) != SQLITE_OK)
		return fail_db(catalog, "read the catalog", err);
	bind_text(statement, 1, prefix);
	while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
		struct catalog_image row = {
			.fingerprint = column_text(statement, 0),
			.has_bytes = sqlite3_column_int(statement, 1) != 0,
			.record = column_text(statement, 2),
		};

		r = fn(user, &row, err);
		if (r < 0)
			break;
	}
	if (r == COPPICE_OK && code != SQLITE_DONE)
		r = fail_db(catalog, "read the catalog", err);
	(void)sqlite3_finalize(statement);
	return r;
}

int catalog_history_add(struct catalog *catalog, const char *pool, int64_t time_ns,
			uint64_t used_bytes, uint64_t free_bytes, struct coppice_error *err)
{
	sqlite3_stmt *statement = prepare(catalog, HISTORY_ADD);

	if (statement) {
		bind_text(statement, 1, pool);
		(void)sqlite3_bind_int64(statement, 2, time_ns);
		(void)sqlite3_bind_int64(statement, 3, (sqlite3_int64)used_bytes);
		(void)sqlite3_bind_int64(statement, 4, (sqlite3_int64)free_bytes);
	}
	return finish(catalog, statement, "change the catalog", err);
}
