/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * libcoppice: hundreds of writable container root filesystems from one image,
 * in the time and the space of one.
 *
 * How to use it, on one screen
 *  - coppice_open() gives a handle on a state directory; everything else takes
 *    that handle. One handle belongs to one thread at a time; open as many as
 *    you like, in as many processes as you like.
 *  - Every call that can fail returns a code: COPPICE_OK, or a negative value of
 *    enum coppice_code, and then it has filled the struct coppice_error that it
 *    was given (never NULL). What a call would have returned through a `ret_`
 *    parameter is untouched on failure.
 *  - Strings and arrays passed in are borrowed for the call. What comes out
 *    through `ret_` belongs to the caller, who gives it to the matching _free.
 *  - Names of instances may say INSTANCE/SNAPSHOT where a snapshot is meant.
 *  - Sizes are bytes, times are nanoseconds since 1970 UTC.
 *  - The library prints nothing. What people should hear goes through the hooks.
 *  - A call that changes storage is all or nothing, also for a batch of names,
 *    and durable when it returns. After a kill at any instant the next call
 *    finds each volume whole or absent, and sweeps what was left.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define COPPICE_API __attribute__((visibility("default")))
#else
#define COPPICE_API
#endif

/* ---- errors ---- */

/**
 * What a caller can do about a failure.
 *
 * A caller decides by the code and shows the message; it never parses the
 * message. Each has one exit status and one HTTP status, see
 * coppice_exit_status() and coppice_http_status(). Never renumber.
 */
enum coppice_code {
	COPPICE_OK = 0,
	COPPICE_FAILED = -1,      /* anything else: read the message */
	COPPICE_INVALID = -2,     /* the request itself is wrong: correct it */
	COPPICE_NOT_FOUND = -3,   /* the named thing does not exist */
	COPPICE_EXISTS = -4,      /* the name is taken */
	COPPICE_BUSY = -5,        /* locked or in use: wait, or stop who uses it */
	COPPICE_NO_SPACE = -6,    /* the pool, the disk or a limit is full */
	COPPICE_UNSUPPORTED = -7, /* this engine or this machine cannot do it */
	COPPICE_UNAVAILABLE = -8, /* the engine does not answer: a retry may help */
	COPPICE_INTERRUPTED = -9, /* the caller asked to stop; everything is undone */
};

#define COPPICE_ERROR_MESSAGE_MAX 512

/**
 * Why a call failed.
 *
 * A plain value on the caller's stack: needs no release, and can be filled when
 * memory is exhausted.
 */
struct coppice_error {
	enum coppice_code code;                  /**< the value that the call returned */
	int os_errno;                            /**< of the system call that failed, or 0 */
	char message[COPPICE_ERROR_MESSAGE_MAX]; /**< one line for people, no newline */
};

/* clang-format off */
#define COPPICE_ERROR_INIT { COPPICE_OK, 0, { 0 } }
/* clang-format on */

/**
 * Give the exit status of a program that ends with a code.
 *
 * @param code  COPPICE_OK or what a call returned
 * @return 0 to 8, or 130 for COPPICE_INTERRUPTED
 */
COPPICE_API int coppice_exit_status(enum coppice_code code);

/**
 * Give the HTTP status of a reply that ends with a code.
 *
 * @param code  COPPICE_OK or what a call returned
 * @return 200, 4xx or 5xx
 */
COPPICE_API int coppice_http_status(enum coppice_code code);

/**
 * Make one line of a text, which a terminal shows and never obeys.
 *
 * Each byte of a control character becomes '?', in place. Messages and notes of the library
 * are so already; what a caller adds to them may come from anybody, too.
 *
 * @param text  UTF-8, or any bytes up to a NUL
 */
COPPICE_API void coppice_text_make_printable(char *text);

/**
 * Give the version of the library, as "1.2.3".
 *
 * @return a constant; never freed
 */
COPPICE_API const char *coppice_version(void);

/* ---- figures ---- */

/** How far a figure may be believed. */
enum coppice_known {
	COPPICE_UNKNOWN = 0, /* nobody knows: show "unknown", never 0 */
	COPPICE_EXACT,
	COPPICE_AT_MOST, /* an upper bound: show it marked as one */
};

/** A number of bytes that is true, a bound, or unknown. */
struct coppice_bytes {
	enum coppice_known known;
	uint64_t bytes; /* 0 when unknown */
};

/* ---- the handle ---- */

struct coppice;

/** How far a long step has come. */
struct coppice_progress {
	const char *what;     /* "importing debian.tar.zst" */
	uint64_t done_bytes;  /* so far */
	uint64_t total_bytes; /* 0 when it is not known */
};

/** What the library tells its caller while it works. Any of them may be NULL. */
struct coppice_hooks {
	void *user; /* handed to each hook */

	/** A long step goes on; called some ten times a second at the most. */
	void (*progress)(void *user, const struct coppice_progress *progress);

	/** A native command that the next step is equal to; one line of bash. */
	void (*explain)(void *user, const char *line);

	/** Something that a person should hear; one line, not an error. */
	void (*notice)(void *user, const char *line);

	/** Should we stop? Asked between steps; true undoes everything. */
	bool (*is_interrupted)(void *user);
};

/** How a handle behaves. Zero everywhere means the defaults. */
struct coppice_options {
	const char *root;            /* state directory; NULL: COPPICE_DIR, else /var/lib/coppice */
	unsigned lock_timeout_ms;    /* how long to wait for others; 0: 60,000 */
	uint64_t memory_limit_bytes; /* of an archive's decoder; 0: 256 MiB */
	bool is_dry_run;             /* check and explain everything, change nothing */
	struct coppice_hooks hooks;
};

/**
 * Open a state directory, making it when it does not exist.
 *
 * Blocks: never on a pool; pools are opened when a call needs them.
 *
 * @param options  borrowed for the call; NULL means the defaults
 * @param ret      the handle; give it to coppice_close()
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_INVALID when its path is not UTF-8; COPPICE_FAILED when
 *         the directory cannot be made, read or written; COPPICE_UNSUPPORTED when
 *         its catalog is of a newer version
 */
COPPICE_API int coppice_open(const struct coppice_options *options, struct coppice **ret,
			     struct coppice_error *err);

/**
 * Close a handle; pools stay mounted.
 *
 * @param coppice  from coppice_open(), or NULL
 */
COPPICE_API void coppice_close(struct coppice *coppice);

/** A key and its value; value NULL means: remove the key. */
struct coppice_setting {
	const char *key;
	const char *value;
};

/** Settings as they come out; owned by what holds them. */
struct coppice_settings {
	size_t n;
	struct coppice_setting *setting; /* sorted by key */
};

/* ---- storage pools ---- */

/** A pool: a named place on one engine where volumes live. */
struct coppice_pool {
	char *name;
	char *driver;  /* "btrfs", "dir" */
	char *source;  /* device, file or directory it lives on */
	char *mount;   /* directory where its volumes are found, or NULL */
	char *problem; /* why it cannot be used now, or NULL */
	char *uuid;
	size_t n_volumes; /* images, instances; snapshots not counted */
	struct coppice_settings config;
};

struct coppice_pool_list {
	size_t n;
	struct coppice_pool *pool;
};

/** The space of a pool; each figure exact, a bound, or unknown. */
struct coppice_pool_space {
	char *pool;
	char *driver;
	size_t n_instances;
	struct coppice_bytes total;    /* what the engine can hold */
	struct coppice_bytes used;     /* allocated, as the engine counts */
	struct coppice_bytes free;     /* still to be had, as the engine counts */
	struct coppice_bytes logical;  /* sum of what each volume and snapshot refers to */
	struct coppice_bytes saved;    /* logical less used: what sharing saved */
	struct coppice_bytes pinned;   /* held by deleted volumes that others share */
	struct coppice_bytes exposure; /* needed if all clones rewrote what they share */
	struct coppice_bytes metadata_total; /* set aside for the engine's own books; or unknown */
	struct coppice_bytes metadata_used;  /* a thin pool whose metadata is full cannot be written */
	char *mapper; /* what makes block devices of volumes here, as "krbd"; NULL: none are needed */
};

struct coppice_space_list {
	size_t n;
	struct coppice_pool_space *pool;
};

/**
 * Make a pool.
 *
 * Atomic: after a failure or a kill nothing of it is left.
 *
 * @param coppice   handle
 * @param name      of the pool; must be free
 * @param driver    "btrfs", "zfs", "lvm", "ceph" or "dir"; NULL takes the best that this machine has
 * @param settings  pool configuration: source, size, btrfs.mount_options, …
 * @param n         how many settings
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_INVALID for a name, key or value; COPPICE_EXISTS;
 *         COPPICE_BUSY when another state directory owns what is at the source;
 *         COPPICE_UNSUPPORTED when the machine cannot; COPPICE_NO_SPACE
 */
COPPICE_API int coppice_storage_create(struct coppice *coppice, const char *name,
				       const char *driver, const struct coppice_setting *settings,
				       size_t n, struct coppice_error *err);

/**
 * Take over a pool that exists, from nothing but the pool.
 *
 * The pool's own record gives its configuration; every volume in it is listed
 * again. Whatever state directory owned it before is refused from now on; commands
 * of it that use the pool are waited for. A pool on Ceph is joined instead: those who use it
 * go on to.
 *
 * @param coppice   handle
 * @param name      to know it by; must be free, or that of this pool, which another has
 * @param driver    as it was made with
 * @param settings  must hold source
 * @param n         how many settings
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND when there is no pool; COPPICE_EXISTS;
 *         COPPICE_BUSY while others use it; …
 */
COPPICE_API int coppice_storage_recover(struct coppice *coppice, const char *name,
					const char *driver, const struct coppice_setting *settings,
					size_t n, struct coppice_error *err);

/**
 * Delete a pool.
 *
 * What Coppice made for it goes too (its file, what it put on a device); a
 * source that it did not make stays, emptied of the pool. One on Ceph that other state
 * directories use is only forgotten here.
 *
 * @param coppice   handle
 * @param name      of the pool
 * @param is_forced delete also the volumes in it; they are listed by notices; forget a
 *                  pool of which what it lives on is gone, destroying nothing
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_BUSY when volumes exist and
 *         @p is_forced is false, or something in it is in use; COPPICE_UNAVAILABLE when it
 *         cannot be opened, or is gone and @p is_forced is false
 */
COPPICE_API int coppice_storage_delete(struct coppice *coppice, const char *name, bool is_forced,
				       struct coppice_error *err);

/**
 * List the pools, sorted by name. Does not mount anything.
 *
 * @param coppice  handle
 * @param ret      give it to coppice_pool_list_free()
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_FAILED
 */
COPPICE_API int coppice_storage_list(struct coppice *coppice, struct coppice_pool_list *ret,
				     struct coppice_error *err);

/**
 * Describe one pool, as the list does. Does not mount anything.
 *
 * @param coppice  handle
 * @param name     of the pool
 * @param ret      a list of that one; give it to coppice_pool_list_free()
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_INVALID for what can be no name; COPPICE_NOT_FOUND
 */
COPPICE_API int coppice_storage_get(struct coppice *coppice, const char *name,
				    struct coppice_pool_list *ret, struct coppice_error *err);

/**
 * Set or remove configuration keys of a pool: `size` (grows only), `user.*`.
 *
 * @param coppice   handle
 * @param name      of the pool
 * @param settings  what to set; a NULL value removes the key
 * @param n         how many
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_INVALID; COPPICE_NO_SPACE; …
 */
COPPICE_API int coppice_storage_set(struct coppice *coppice, const char *name,
				    const struct coppice_setting *settings, size_t n,
				    struct coppice_error *err);

/**
 * Mount a pool, as the first call that needs it would.
 *
 * @param coppice  handle
 * @param name     of the pool; NULL: all, and a notice for each that cannot be
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_UNAVAILABLE; of all, the code of the
 *         first that failed
 */
COPPICE_API int coppice_storage_mount(struct coppice *coppice, const char *name,
				      struct coppice_error *err);

/**
 * Unmount a pool until it is needed again.
 *
 * @param coppice  handle
 * @param name     of the pool; NULL: all, and a notice for each that cannot be, and what is
 *                 mounted where Coppice mounts pools and belongs to none
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK, also when it was not mounted; COPPICE_NOT_FOUND;
 *         COPPICE_BUSY while something in it is in use; of all, the code of the first
 *         that failed
 */
COPPICE_API int coppice_storage_umount(struct coppice *coppice, const char *name,
				       struct coppice_error *err);

/**
 * Count the space of pools.
 *
 * @param coppice   handle
 * @param pool      name; NULL means all
 * @param is_exact  measure what the engine does not count (walks every file or
 *                  extent: slow); otherwise such figures are bounds or unknown
 * @param ret       give it to coppice_space_list_free()
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_UNAVAILABLE
 */
COPPICE_API int coppice_space(struct coppice *coppice, const char *pool, bool is_exact,
			      struct coppice_space_list *ret, struct coppice_error *err);

COPPICE_API void coppice_pool_list_free(struct coppice_pool_list *list);
COPPICE_API void coppice_space_list_free(struct coppice_space_list *list);

/* ---- images ---- */

/** An image: imported bytes, and a read-only tree in each pool that has used it. */
struct coppice_image {
	char *fingerprint; /* SHA-256 of the imported file or files, 64 hexadecimal digits */
	char *description;
	char *architecture;
	uint64_t size_bytes;        /* of what was imported; 0 when its bytes are not here */
	uint64_t rootfs_size_bytes; /* of the second file of a split image; 0: it is one file */
	bool has_bytes;             /* is the imported file kept here? */
	int64_t created_ns;         /* when its maker made it; 0 when it does not say */
	int64_t imported_ns;
	size_t n_aliases;
	char **alias;
	size_t n_pools; /* where it is unpacked */
	char **pool;
	struct coppice_settings properties;
};

struct coppice_image_list {
	size_t n;
	struct coppice_image *image;
};

/** What to import, and how. Zero is the default for all but path. */
struct coppice_import {
	const char *path;        /* a tar, squashfs or directory; "-" is standard input */
	const char *rootfs_path; /* the second file of a split image; NULL: path is all */
	const char *pool;        /* unpack into it; NULL: the default, see commands */
	const char *const *aliases;
	size_t n_aliases;
	const char *fingerprint;                  /* refuse any other; NULL: take what comes */
	const struct coppice_setting *properties; /* added to those of the image */
	size_t n_properties;
};

/**
 * Import an image: hash, keep and unpack its bytes, reading them once.
 *
 * A split image of LXD is two files: path, a tar of metadata.yaml and templates,
 * and rootfs_path. Its fingerprint is that of the one followed by the other. A
 * directory is packed, and its fingerprint is that of the packed file.
 *
 * Atomic: the image is there, whole and with its aliases, or not at all.
 *
 * @param coppice          handle
 * @param import           what and how; borrowed for the call
 * @param ret_fingerprint  of the image; free() it
 * @param err              filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND for the file; COPPICE_INVALID when it is
 *         no image, damaged, or has another fingerprint; COPPICE_EXISTS for the
 *         image or an alias; COPPICE_UNSUPPORTED for a squashfs compressed by LZO;
 *         COPPICE_NO_SPACE; COPPICE_INTERRUPTED
 */
COPPICE_API int coppice_image_import(struct coppice *coppice, const struct coppice_import *import,
				     char **ret_fingerprint, struct coppice_error *err);

/**
 * List the images, sorted by first alias, then fingerprint.
 *
 * @param coppice  handle
 * @param ret      give it to coppice_image_list_free()
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_FAILED
 */
COPPICE_API int coppice_image_list(struct coppice *coppice, struct coppice_image_list *ret,
				   struct coppice_error *err);

/**
 * Find one image by alias, fingerprint, or a unique beginning of one.
 *
 * @param coppice  handle
 * @param image    alias or fingerprint
 * @param ret      a list of one; give it to coppice_image_list_free()
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_INVALID when several begin so
 */
COPPICE_API int coppice_image_get(struct coppice *coppice, const char *image,
				  struct coppice_image_list *ret, struct coppice_error *err);

/**
 * Write the imported bytes out again, the same to the last bit.
 *
 * Of a split image this is the first file, with the metadata.
 *
 * @param coppice  handle
 * @param image    alias or fingerprint
 * @param fd       where to write; borrowed
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND for the image or its bytes; COPPICE_NO_SPACE
 */
COPPICE_API int coppice_image_export(struct coppice *coppice, const char *image, int fd,
				     struct coppice_error *err);

/**
 * Write out the second file of a split image, its root file system.
 *
 * @param coppice  handle
 * @param image    alias or fingerprint
 * @param fd       where to write; borrowed
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_INVALID when the image is one file; COPPICE_NOT_FOUND for
 *         the image or its bytes; COPPICE_NO_SPACE
 */
COPPICE_API int coppice_image_export_rootfs(struct coppice *coppice, const char *image, int fd,
					    struct coppice_error *err);

/**
 * Delete images, with clones alive or not.
 *
 * Names are free at once. What stays shared, and with whom, is told by notices.
 *
 * @param coppice  handle
 * @param images   aliases or fingerprints; all are looked up before any is deleted
 * @param n        how many
 * @param pool     delete only the tree in this pool; NULL: everything, everywhere
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_BUSY
 */
COPPICE_API int coppice_image_delete(struct coppice *coppice, const char *const *images, size_t n,
				     const char *pool, struct coppice_error *err);

/**
 * Give an image another name.
 *
 * @param coppice  handle
 * @param alias    to make; must be free
 * @param image    alias or fingerprint
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_INVALID; COPPICE_EXISTS; COPPICE_NOT_FOUND
 */
COPPICE_API int coppice_image_alias_create(struct coppice *coppice, const char *alias,
					   const char *image, struct coppice_error *err);

/**
 * Take a name from an image; the image stays.
 *
 * @param coppice  handle
 * @param alias    to remove
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND
 */
COPPICE_API int coppice_image_alias_delete(struct coppice *coppice, const char *alias,
					   struct coppice_error *err);

/**
 * Rename an alias.
 *
 * @param coppice  handle
 * @param alias    that exists
 * @param to       new name; must be free
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_EXISTS; COPPICE_INVALID
 */
COPPICE_API int coppice_image_alias_rename(struct coppice *coppice, const char *alias,
					   const char *to, struct coppice_error *err);

COPPICE_API void coppice_image_list_free(struct coppice_image_list *list);

/* ---- instances ---- */

/** A frozen state of an instance. */
struct coppice_snapshot {
	char *name; /* without the instance's name */
	int64_t created_ns;
};

/** An instance: the writable root filesystem of one container. */
struct coppice_instance {
	char *name;
	char *kind;  /* "container" */
	char *state; /* "STOPPED" until Coppice runs instances */
	char *pool;
	char *uuid;
	char *image;           /* fingerprint of the image it began as, or NULL */
	char *image_name;      /* alias, else short fingerprint, or NULL */
	bool is_image_deleted; /* image is gone; the name is remembered */
	char *origin;          /* instance or instance/snapshot it was copied from, or NULL */
	int64_t created_ns;
	struct coppice_bytes written; /* allocated since it was cloned, snapshots included */
	struct coppice_bytes refers;  /* all data that is reachable through it */
	struct coppice_bytes unique;  /* freed if it alone, with its snapshots, went */
	struct coppice_bytes limit;   /* config size; unknown when there is none */
	size_t n_snapshots;
	struct coppice_snapshot *snapshot; /* by age; NULL unless asked for */
	struct coppice_settings config;    /* empty unless asked for */
	size_t n_nested;
	char **nested; /* subvolumes made in it, which its snapshots lack; of coppice_instance_get()
			*/
};

struct coppice_instance_list {
	size_t n;
	struct coppice_instance *instance;
};

/** What coppice_instance_list() shall find out. */
enum coppice_detail {
	COPPICE_DETAIL_SNAPSHOTS = 1 << 0, /* fill snapshot */
	COPPICE_DETAIL_CONFIG = 1 << 1,    /* fill config */
	COPPICE_DETAIL_EXACT = 1 << 2,     /* walk extents or files for refers, unique */
};

/**
 * Make instances from an image, all in one batch.
 *
 * Atomic: all of @p names, or none. After a kill each is whole or absent.
 * Blocks: until the engine has committed them; no data is copied where the
 * engine can clone.
 *
 * @param coppice   handle
 * @param image     alias or fingerprint; unpacked first where the pool lacks it
 * @param names     of the instances; all must be free, and different
 * @param n         how many; at least 1
 * @param settings  configuration of each: size, user.*, and what the driver has
 * @param n_settings how many
 * @param pool      NULL: the default, see commands
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_INVALID; COPPICE_NOT_FOUND; COPPICE_EXISTS naming a
 *         taken name; COPPICE_NO_SPACE; COPPICE_UNSUPPORTED; COPPICE_BUSY;
 *         COPPICE_INTERRUPTED
 */
COPPICE_API int coppice_instance_init(struct coppice *coppice, const char *image,
				      const char *const *names, size_t n,
				      const struct coppice_setting *settings, size_t n_settings,
				      const char *pool, struct coppice_error *err);

/** What an instance holds. */
enum coppice_content {
	COPPICE_FILESYSTEM, /* the root directory of a container */
	COPPICE_BLOCK,      /* the disk of a virtual machine; not every driver can */
};

/**
 * Make instances that begin empty, one after another, and publish them together.
 *
 * Atomic: all of @p names, or none. After a kill each is whole or absent.
 * Blocks: until the engine has committed them.
 *
 * @param coppice   handle
 * @param names     of the instances; all must be free, and different
 * @param n         how many; at least 1
 * @param content   with COPPICE_BLOCK the kind of each is virtual-machine, and its path a
 *                  block device of "size" bytes, rounded up to what the engine has, that
 *                  reads as zeros (without a size, the pool's "volume.size", else 10GiB,
 *                  as LXD has it)
 * @param settings  configuration of each: size, user.*, and what the driver has
 * @param n_settings how many
 * @param pool      NULL: the default, see commands
 * @param err       filled on failure, untouched on success
 * @return as coppice_instance_init(); COPPICE_UNSUPPORTED: no block content in that pool
 */
COPPICE_API int coppice_instance_init_empty(struct coppice *coppice, const char *const *names,
					    size_t n, enum coppice_content content,
					    const struct coppice_setting *settings,
					    size_t n_settings, const char *pool,
					    struct coppice_error *err);

/** What a call may lose; without, it refuses. Each loss is told by a notice. */
enum coppice_loss {
	COPPICE_LOSE_IN_USE = 1 << 0, /* what processes still have to do with the files */
	COPPICE_LOSE_NESTED = 1 << 1, /* subvolumes that were made within the instance */
};

/** How to copy. Zero is the default. */
struct coppice_copy {
	const char *pool;      /* NULL: the pool of the source */
	bool is_full;          /* share nothing with the source */
	bool is_instance_only; /* leave the snapshots out */
	bool is_refresh;       /* bring @p target, if it is there, up to date */
	unsigned may_lose;     /* COPPICE_LOSE_NESTED, or 0 */
};

/**
 * Copy an instance with its snapshots, or one snapshot as an instance.
 *
 * Atomic: @p target appears whole or not at all. Shares all data where the
 * engine can clone and the pool is the same; snapshots share what they shared.
 *
 * With is_refresh, and a @p target that was copied from @p source before: its data becomes
 * that of @p source, it gets the snapshots that it lacks, and loses those that @p source
 * has no more; name, identity and configuration stay. Between two pools of an engine with
 * streams, only what is newer than the newest snapshot that both have is sent. Killed at
 * any step, the data is the old or the new, and refreshing again brings the rest.
 * COPPICE_BUSY when files of @p target are in use.
 *
 * @param coppice  handle
 * @param source   INSTANCE or INSTANCE/SNAPSHOT
 * @param target   name of the new instance
 * @param options  borrowed; NULL means the defaults
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_EXISTS; COPPICE_NO_SPACE;
 *         COPPICE_UNSUPPORTED when a copy cannot have all of it: nested subvolumes; or for
 *         block content, where the other driver has none, and to be refreshed; COPPICE_INVALID
 *         when one has files and the other block content; …
 */
COPPICE_API int coppice_instance_copy(struct coppice *coppice, const char *source,
				      const char *target, const struct coppice_copy *options,
				      struct coppice_error *err);

/**
 * Rename an instance and, if asked, bring it to another pool.
 *
 * Recoverable: killed at any step, the next call finds it whole, once.
 *
 * @param coppice  handle
 * @param source   INSTANCE
 * @param target   its new name; may be the old one when @p pool differs
 * @param pool     where to; NULL: where it is
 * @param may_lose enum coppice_loss, combined; matters only when the pool is another
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_EXISTS; COPPICE_NO_SPACE;
 *         COPPICE_BUSY naming who uses its files; COPPICE_UNSUPPORTED naming nested
 *         subvolumes, or for block content, where the other driver has none; …
 */
COPPICE_API int coppice_instance_move(struct coppice *coppice, const char *source,
				      const char *target, const char *pool, unsigned may_lose,
				      struct coppice_error *err);

/**
 * Rename an instance, or a snapshot of one.
 *
 * @param coppice  handle
 * @param source   INSTANCE or INSTANCE/SNAPSHOT
 * @param target   the new name, of a snapshot without its instance's name
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_EXISTS; COPPICE_INVALID
 */
COPPICE_API int coppice_rename(struct coppice *coppice, const char *source, const char *target,
			       struct coppice_error *err);

/**
 * Delete instances, with their snapshots, or single snapshots.
 *
 * Atomic: all names are looked up first; they are free when this returns. What was
 * made within an instance goes with it, nested subvolumes too.
 *
 * @param coppice  handle
 * @param names    INSTANCE or INSTANCE/SNAPSHOT
 * @param n        how many
 * @param may_lose COPPICE_LOSE_IN_USE, or 0
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND naming the first that does not exist;
 *         COPPICE_BUSY naming who uses its files
 */
COPPICE_API int coppice_delete(struct coppice *coppice, const char *const *names, size_t n,
			       unsigned may_lose, struct coppice_error *err);

/**
 * Freeze an instance's present state.
 *
 * @param coppice   handle
 * @param instance  to freeze; goes on unhindered
 * @param name      of the snapshot; NULL: snap0, snap1, …
 * @param may_lose  COPPICE_LOSE_NESTED, or 0
 * @param ret_name  the name it got; free() it; may be NULL
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_EXISTS; COPPICE_INVALID;
 *         COPPICE_UNSUPPORTED naming subvolumes that it could not hold
 */
COPPICE_API int coppice_snapshot_create(struct coppice *coppice, const char *instance,
					const char *name, unsigned may_lose, char **ret_name,
					struct coppice_error *err);

/**
 * Bring an instance back to a snapshot; newer snapshots survive.
 *
 * Atomic: the instance is as it was, or as the snapshot is.
 *
 * @param coppice   handle
 * @param instance  to restore
 * @param snapshot  of that instance
 * @param may_lose  enum coppice_loss, combined
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_BUSY naming who uses its files;
 *         COPPICE_UNSUPPORTED naming subvolumes that would be destroyed
 */
COPPICE_API int coppice_snapshot_restore(struct coppice *coppice, const char *instance,
					 const char *snapshot, unsigned may_lose,
					 struct coppice_error *err);

/**
 * List instances, sorted by name, digits by their value (c2 before c10).
 *
 * @param coppice  handle
 * @param pattern  shell pattern of names; NULL: all
 * @param pool     only of this pool; NULL: of all
 * @param detail   enum coppice_detail, combined
 * @param ret      give it to coppice_instance_list_free()
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND for the pool; COPPICE_UNAVAILABLE
 */
COPPICE_API int coppice_instance_list(struct coppice *coppice, const char *pattern,
				      const char *pool, unsigned detail,
				      struct coppice_instance_list *ret, struct coppice_error *err);

/**
 * Find one instance, with its snapshots and configuration.
 *
 * @param coppice  handle
 * @param name     of the instance
 * @param detail   enum coppice_detail, combined
 * @param ret      a list of one; give it to coppice_instance_list_free()
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND
 */
COPPICE_API int coppice_instance_get(struct coppice *coppice, const char *name, unsigned detail,
				     struct coppice_instance_list *ret, struct coppice_error *err);

COPPICE_API void coppice_instance_list_free(struct coppice_instance_list *list);

/**
 * Set or remove configuration keys of an instance: `size`, `user.*`, and what the driver has.
 *
 * @param coppice   handle
 * @param instance  whose
 * @param settings  what to set; a NULL value removes the key
 * @param n         how many
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_INVALID; COPPICE_UNSUPPORTED
 */
COPPICE_API int coppice_config_set(struct coppice *coppice, const char *instance,
				   const struct coppice_setting *settings, size_t n,
				   struct coppice_error *err);

/**
 * Say where the container's `/` is, mounting what must be mounted; or the device that a
 * virtual machine's disk is.
 *
 * @param coppice  handle
 * @param name     INSTANCE or INSTANCE/SNAPSHOT
 * @param ret      absolute path; free() it
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_UNAVAILABLE;
 *         COPPICE_BUSY: another command replaces it, or has its pool alone, for too long
 */
COPPICE_API int coppice_path(struct coppice *coppice, const char *name, char **ret,
			     struct coppice_error *err);

/**
 * Unmount what coppice_path() mounted; nothing on engines that need no mount.
 *
 * @param coppice  handle
 * @param name     INSTANCE or INSTANCE/SNAPSHOT
 * @param err      filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_BUSY; COPPICE_UNAVAILABLE
 */
COPPICE_API int coppice_umount(struct coppice *coppice, const char *name,
			       struct coppice_error *err);

/* ---- who stands on whom ---- */

enum coppice_node_type {
	COPPICE_NODE_POOL,
	COPPICE_NODE_IMAGE,
	COPPICE_NODE_INSTANCE,
	COPPICE_NODE_SNAPSHOT,
};

/** A line of the tree. */
struct coppice_node {
	enum coppice_node_type type;
	size_t parent;                /* index of the parent, always smaller; SIZE_MAX for a pool */
	char *name;                   /* of an image: alias, else short fingerprint */
	bool is_deleted;              /* gone; others still share with it */
	struct coppice_bytes written; /* of an instance */
	struct coppice_bytes refers;  /* of an image, instance or snapshot */
	struct coppice_bytes pinned;  /* of a deleted one: still held by those who share */
};

struct coppice_tree {
	size_t n;
	struct coppice_node *node; /* parents before children, children in order */
};

/**
 * Show which image has which clones, with their snapshots and their own clones.
 *
 * @param coppice   handle
 * @param pool      name; NULL: all
 * @param is_exact  walk extents or files for what the engine does not count
 * @param ret       give it to coppice_tree_free()
 * @param err       filled on failure, untouched on success
 * @return COPPICE_OK; COPPICE_NOT_FOUND; COPPICE_UNAVAILABLE
 */
COPPICE_API int coppice_tree_get(struct coppice *coppice, const char *pool, bool is_exact,
				 struct coppice_tree *ret, struct coppice_error *err);

COPPICE_API void coppice_tree_free(struct coppice_tree *tree);

/* ---- check ---- */

/** Something that is not as it should be. */
struct coppice_finding {
	char *pool;
	char *what;    /* class of damage, one word: "record-missing", … */
	char *subject; /* which volume, draft or row */
	char *message; /* one line for people: what, and what to do */
	bool is_repaired;
	bool is_remark; /* no damage: something that people should know */
};

struct coppice_finding_list {
	size_t n;
	struct coppice_finding *finding;
	size_t n_volumes; /* how many were looked at, snapshots included */
};

/**
 * Compare pools, records and catalog.
 *
 * @param coppice    handle
 * @param pool       name; NULL: all
 * @param is_repair  mend what can be mended without losing anything
 * @param ret        what was found, also when that is nothing; give it to
 *                   coppice_finding_list_free()
 * @param err        filled on failure, untouched on success
 * @return COPPICE_OK, also with findings; COPPICE_NOT_FOUND; COPPICE_BUSY
 */
COPPICE_API int coppice_check(struct coppice *coppice, const char *pool, bool is_repair,
			      struct coppice_finding_list *ret, struct coppice_error *err);

COPPICE_API void coppice_finding_list_free(struct coppice_finding_list *list);

#ifdef __cplusplus
}
#endif
