/* SPDX-License-Identifier: Apache-2.0 */
/* The handle: a state directory, its locks, catalog and pools. */
#include "core/core.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"

#define ROOT_DEFAULT       "/var/lib/coppice"
#define LOCK_TIMEOUT_MS    60000
#define MEMORY_LIMIT_BYTES (256ULL << 20)

const char *coppice_version(void)
{
	return COPPICE_VERSION;
}

static int fail_root(struct coppice_error *err, int os_errno, const char *root)
{
	if (os_errno == EROFS)
		return fail(err, COPPICE_FAILED, "state directory '%s' is read-only", root);
	if (os_errno == EACCES || os_errno == EPERM)
		return fail(err, COPPICE_FAILED, "cannot use state directory '%s': %s", root,
			    geteuid() != 0 ? "permission denied; Coppice needs root"
					   : "permission denied");
	(void)fail_errno(err, os_errno, "cannot use state directory '%s'", root);
	err->code = COPPICE_FAILED; /* never "not found": it is made when it is missing */
	return err->code;
}

/* Make the directory and those above it. */
static int make_root(const char *root, struct coppice_error *err)
{
	_cleanup_(freep) char *path = strdup(root);

	if (!path)
		return fail_memory(err);
	for (char *at = path + 1; *at; at++) {
		if (*at != '/')
			continue;
		*at = '\0';
		(void)mkdir(path, 0755); /* what fails here fails below, and says why */
		*at = '/';
	}
	if (mkdir(path, 0711) < 0 && errno != EEXIST)
		return fail_root(err, errno, root);
	return COPPICE_OK;
}

/* Pools say in their records where it is. Before it is made. */
static int check_root(const char *root, struct coppice_error *err)
{
	_cleanup_(freep) char *here = root[0] == '/' ? NULL : getcwd(NULL, 0);

	if (text_is_utf8(root) && (!here || text_is_utf8(here)))
		return COPPICE_OK;
	return fail(err, COPPICE_INVALID, "cannot use state directory '%s': its path is not UTF-8",
		    root);
}

static int open_root(struct coppice *coppice, struct coppice_error *err)
{
	const char *root = coppice->options.root;
	int r;

	if (!root)
		root = getenv("COPPICE_DIR");
	if (!root || !*root)
		root = ROOT_DEFAULT;
	if (check_root(root, err) < 0)
		return err->code;
	coppice->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (coppice->root_fd < 0 && errno == ENOENT) {
		r = make_root(root, err);
		if (r < 0)
			return r;
		coppice->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (coppice->root_fd < 0)
		return fail_root(err, errno, root);
	coppice->root = realpath(root, NULL);
	return coppice->root ? check_root(coppice->root, err) : fail_root(err, errno, root);
}

/* Who owns the pools of this directory; made once, by whoever comes first. */
static int read_owner(struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	struct coppice_error why;
	struct uuid fresh;
	int fd, r;

	r = file_read(coppice->root_fd, "uuid", 64, &text, &why);
	if (r == COPPICE_NOT_FOUND) {
		r = uuid_new(&fresh, err);
		if (r < 0)
			return r;
		/* A file of its own per maker, linked: nobody ever reads half of it. */
		(void)snprintf(why.message, sizeof(why.message), "uuid.%s", fresh.text);
		fd = retry(openat(coppice->root_fd, why.message,
				  O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
		if (fd < 0)
			return fail_root(err, errno, coppice->root);
		r = write_all(fd, fresh.text, UUID_TEXT_SIZE - 1, "the state directory's uuid",
			      err);
		if (r == COPPICE_OK)
			(void)retry(fsync(fd));
		(void)close(fd);
		if (r == COPPICE_OK &&
		    linkat(coppice->root_fd, why.message, coppice->root_fd, "uuid", 0) < 0 &&
		    errno != EEXIST)
			r = fail_root(err, errno, coppice->root);
		(void)unlinkat(coppice->root_fd, why.message, 0);
		if (r < 0)
			return r;
		r = file_read(coppice->root_fd, "uuid", 64, &text, &why);
	}
	if (r < 0)
		return fail_root(err, why.os_errno ? why.os_errno : EIO, coppice->root);
	text[strcspn(text, "\n")] = '\0';
	if (!uuid_parse(text, &coppice->owner))
		return fail(err, COPPICE_FAILED, "'%s/uuid' does not hold a uuid", coppice->root);
	return COPPICE_OK;
}

static int make_folders(struct coppice *coppice, struct coppice_error *err)
{
	static const char *const folders[] = { "pools", "images" };
	struct coppice_error why;

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		if (faccessat(coppice->root_fd, folders[i], F_OK, 0) < 0 &&
		    directory_ensure(coppice->root_fd, folders[i], 0700, &why) < 0)
			return fail_root(err, why.os_errno, coppice->root);
	return COPPICE_OK;
}

static int open_all(struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(freep) char *path = NULL;
	struct coppice_error why;
	int r;

	r = open_root(coppice, err);
	if (r < 0)
		return r;
	r = lock_file_open(coppice->root_fd, "lock", coppice->options.lock_timeout_ms,
			   &coppice->locks, &why);
	if (r < 0)
		return fail_root(err, why.os_errno, coppice->root);
	coppice->locks.is_interrupted = coppice->options.hooks.is_interrupted;
	coppice->locks.user = coppice->options.hooks.user;
	r = read_owner(coppice, err);
	if (r == COPPICE_OK)
		r = make_folders(coppice, err);
	if (r < 0)
		return r;
	path = text_format("%s/catalog.db", coppice->root);
	if (!path)
		return fail_memory(err);
	r = catalog_open(path, coppice->options.lock_timeout_ms, &coppice->catalog, err);
	return r < 0 ? r : pools_load(coppice, err);
}

int coppice_open(const struct coppice_options *options, struct coppice **ret,
		 struct coppice_error *err)
{
	struct coppice *coppice = calloc(1, sizeof(*coppice));
	int r;

	if (!coppice)
		return fail_memory(err);
	coppice->root_fd = coppice->locks.fd = -1;
	if (options)
		coppice->options = *options;
	if (coppice->options.lock_timeout_ms == 0)
		coppice->options.lock_timeout_ms = LOCK_TIMEOUT_MS;
	if (coppice->options.memory_limit_bytes == 0)
		coppice->options.memory_limit_bytes = MEMORY_LIMIT_BYTES;
	r = open_all(coppice, err);
	if (r < 0) {
		coppice_close(coppice);
		return r;
	}
	moves_finish(coppice);
	*ret = coppice;
	return COPPICE_OK;
}

void coppice_close(struct coppice *coppice)
{
	if (!coppice)
		return;
	pools_done(coppice);
	catalog_close(coppice->catalog);
	lock_file_close(&coppice->locks);
	closep(&coppice->root_fd);
	free(coppice->root);
	free(coppice);
}
