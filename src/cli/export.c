/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice image export`: the file appears whole or not at all, and replaces none unasked. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/run.h"

/* A file that is being written, under a name that only we use. */
struct draft {
	char *path; /* owned; NULL when there is nothing to remove */
	int fd;
};

static void draft_done(struct draft *draft)
{
	if (draft->fd >= 0)
		(void)close(draft->fd);
	if (draft->path)
		(void)unlink(draft->path);
	free(draft->path);
}

static int draft_create(const char *target, struct draft *ret, struct coppice_error *err)
{
	mode_t mask = umask(0);

	(void)umask(mask);
	if (asprintf(&ret->path, "%s.XXXXXX", target) < 0) {
		ret->path = NULL;
		return cli_fail_memory(err);
	}
	ret->fd = mkostemp(ret->path, O_CLOEXEC);
	if (ret->fd < 0) {
		int e = errno;

		free(ret->path);
		ret->path = NULL;
		return cli_fail_errno(err, e, "cannot write '%s'", target);
	}
	(void)fchmod(ret->fd, 0666 & ~mask);
	return COPPICE_OK;
}

static int draft_publish(struct draft *draft, const char *target, bool is_forced,
			 struct coppice_error *err)
{
	int r;

	if (fsync(draft->fd) < 0)
		return cli_fail_errno(err, errno, "cannot write '%s'", target);
	r = renameat2(AT_FDCWD, draft->path, AT_FDCWD, target, is_forced ? 0 : RENAME_NOREPLACE);
	/* Some file systems do not know the flag; link() refuses a taken name as well. */
	if (r < 0 && errno == EINVAL && !is_forced) {
		r = link(draft->path, target);
		if (r == 0)
			(void)unlink(draft->path);
	}
	if (r < 0)
		return cli_fail_errno(err, errno, "cannot write '%s'", target);
	free(draft->path);
	draft->path = NULL;
	return COPPICE_OK;
}

/* What archives begin with, and how their files are called. */
static const char *archive_ending(int fd)
{
	static const struct {
		const char *magic;
		size_t length;
		const char *ending;
	} kinds[] = {
		{ "\x1f\x8b", 2, ".tar.gz" },
		{ "\xfd"
		  "7zXZ",
		  5, ".tar.xz" },
		{ "\x28\xb5\x2f\xfd", 4, ".tar.zst" },
		{ "BZh", 3, ".tar.bz2" },
	};
	char head[8] = "";

	if (pread(fd, head, sizeof(head), 0) < 0)
		return ".tar";
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (memcmp(head, kinds[i].magic, kinds[i].length) == 0)
			return kinds[i].ending;
	return ".tar";
}

/* To FINGERPRINT.tar.zst, or what else it is, when no name was given. */
static int export_named(const struct request *request, struct coppice *coppice,
			const char *fingerprint, struct coppice_error *err)
{
	const char *given = request->words.n > 1 ? request->words.word[1] : NULL;
	_cleanup_(draft_done) struct draft draft = { NULL, -1 };
	_cleanup_(freep) char *chosen = NULL;
	int r = draft_create(given ? given : fingerprint, &draft, err);

	if (r < 0)
		return r;
	r = coppice_image_export(coppice, fingerprint, draft.fd, err);
	if (r < 0)
		return r;
	if (given)
		return draft_publish(&draft, given, request->is_forced, err);
	if (asprintf(&chosen, "%s%s", fingerprint, archive_ending(draft.fd)) < 0) {
		chosen = NULL;
		return cli_fail_memory(err);
	}
	r = draft_publish(&draft, chosen, request->is_forced, err);
	if (r == COPPICE_OK && !request->is_quiet)
		(void)printf("%s\n", chosen);
	return r;
}

/* Pipes and devices are written as they are. */
static int export_special(const struct request *request, struct coppice *coppice,
			  struct coppice_error *err)
{
	const char *target = request->words.word[1];
	_cleanup_(draft_done) struct draft draft = { NULL, open(target, O_WRONLY | O_CLOEXEC) };

	if (draft.fd < 0)
		return cli_fail_errno(err, errno, "cannot write '%s'", target);
	return coppice_image_export(coppice, request->words.word[0], draft.fd, err);
}

int run_image_export(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	_cleanup_(coppice_image_list_free) struct coppice_image_list list = { 0 };
	const char *image = request->words.word[0];
	const char *target = request->words.n > 1 ? request->words.word[1] : "";
	struct stat status;
	int r = coppice_image_get(coppice, image, &list, err);

	if (r < 0)
		return r;
	if (strcmp(target, "-") == 0 && isatty(STDOUT_FILENO))
		return cli_fail(err, COPPICE_INVALID, "standard output is a terminal");
	if (*target && stat(target, &status) == 0) {
		if (S_ISREG(status.st_mode) && !request->is_forced)
			return cli_fail(err, COPPICE_EXISTS, "'%s' exists; --force replaces it",
					target);
		if (S_ISDIR(status.st_mode))
			return cli_fail(err, COPPICE_INVALID, "'%s' is a directory", target);
		if (!S_ISREG(status.st_mode) && !request->is_dry_run)
			return export_special(request, coppice, err);
	}
	if (request->is_dry_run)
		return COPPICE_OK;
	if (strcmp(target, "-") == 0)
		return coppice_image_export(coppice, image, STDOUT_FILENO, err);
	return export_named(request, coppice, list.image[0].fingerprint, err);
}
