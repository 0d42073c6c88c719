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
	do {
		free(ret->path);
		if (asprintf(&ret->path, "%s.XXXXXX", target) < 0) {
			ret->path = NULL;
			return cli_fail_memory(err);
		}
		ret->fd = mkostemp(ret->path, O_CLOEXEC);
	} while (ret->fd < 0 && errno == EINTR);
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
	int r, synced;

	do
		synced = fsync(draft->fd);
	while (synced < 0 && errno == EINTR);
	if (synced < 0)
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
		{ "hsqs", 4, ".squashfs" },
	};
	char head[8] = "";

	if (pread(fd, head, sizeof(head), 0) < 0)
		return ".tar";
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (memcmp(head, kinds[i].magic, kinds[i].length) == 0)
			return kinds[i].ending;
	return ".tar";
}

/* One of the image's files, from its bytes to its name. */
struct output {
	struct draft draft;
	char *target; /* owned */
};

static void output_done(struct output *output)
{
	draft_done(&output->draft);
	free(output->target);
}

/* Replacing is refused before anything is written, and once more by the rename. */
static int check_free(const char *target, bool is_forced, struct coppice_error *err)
{
	struct stat status;

	if (is_forced || lstat(target, &status) < 0)
		return COPPICE_OK;
	return cli_fail(err, COPPICE_EXISTS, "'%s' exists; --force replaces it", target);
}

/* The same of the second of two files, where a name was given for both. */
static int check_second(const char *given, bool is_forced, struct coppice_error *err)
{
	char *target;
	int r;

	if (asprintf(&target, "%s.root", given) < 0)
		return cli_fail_memory(err);
	r = check_free(target, is_forced, err);
	free(target);
	return r;
}

/* @given is the name that was asked for; else it is @prefix, the fingerprint, and an ending. */
static int output_name(struct output *output, const char *given, const char *tail,
		       const char *prefix, const char *fingerprint, struct coppice_error *err)
{
	int r = given ? asprintf(&output->target, "%s%s", given, tail)
		      : asprintf(&output->target, "%s%s%s", prefix, fingerprint,
				 archive_ending(output->draft.fd));

	if (r >= 0)
		return COPPICE_OK;
	output->target = NULL;
	return cli_fail_memory(err);
}

static int tell_name(const struct request *request, const struct output *output)
{
	if (request->words.n == 1 && !request->is_quiet)
		(void)printf("%s\n", output->target);
	return COPPICE_OK;
}

/* To FINGERPRINT.tar.zst, or what else it is, when no name was given. */
static int export_named(const struct request *request, struct coppice *coppice,
			const char *fingerprint, struct coppice_error *err)
{
	const char *given = request->words.n > 1 ? request->words.word[1] : NULL;
	_cleanup_(output_done) struct output file = { .draft.fd = -1 };
	int r = draft_create(given ? given : fingerprint, &file.draft, err);

	if (r == COPPICE_OK)
		r = coppice_image_export(coppice, fingerprint, file.draft.fd, err);
	if (r == COPPICE_OK)
		r = output_name(&file, given, "", "", fingerprint, err);
	if (r == COPPICE_OK)
		r = draft_publish(&file.draft, file.target, request->is_forced, err);
	return r < 0 ? r : tell_name(request, &file);
}

/* Both appear, or none: the second name is the one that may still be taken meanwhile. */
static int publish_both(const struct request *request, struct output *metadata,
			struct output *rootfs, struct coppice_error *err)
{
	int r = check_free(metadata->target, request->is_forced, err);

	if (r == COPPICE_OK)
		r = check_free(rootfs->target, request->is_forced, err);
	if (r == COPPICE_OK)
		r = draft_publish(&metadata->draft, metadata->target, request->is_forced, err);
	if (r < 0)
		return r;
	r = draft_publish(&rootfs->draft, rootfs->target, request->is_forced, err);
	if (r < 0 && !request->is_forced)
		(void)unlink(metadata->target);
	return r;
}

/*
 * A split image is two files, called as lxc calls them: meta-FINGERPRINT.tar.xz and
 * FINGERPRINT.squashfs, or FILE and FILE.root when a name was given.
 */
static int export_split(const struct request *request, struct coppice *coppice,
			const char *fingerprint, struct coppice_error *err)
{
	const char *given = request->words.n > 1 ? request->words.word[1] : NULL;
	_cleanup_(output_done) struct output metadata = { .draft.fd = -1 };
	_cleanup_(output_done) struct output rootfs = { .draft.fd = -1 };
	int r;

	r = draft_create(given ? given : fingerprint, &metadata.draft, err);
	if (r == COPPICE_OK)
		r = draft_create(given ? given : fingerprint, &rootfs.draft, err);
	if (r == COPPICE_OK)
		r = coppice_image_export(coppice, fingerprint, metadata.draft.fd, err);
	if (r == COPPICE_OK)
		r = coppice_image_export_rootfs(coppice, fingerprint, rootfs.draft.fd, err);
	if (r == COPPICE_OK)
		r = output_name(&metadata, given, "", "meta-", fingerprint, err);
	if (r == COPPICE_OK)
		r = output_name(&rootfs, given, ".root", "", fingerprint, err);
	if (r == COPPICE_OK)
		r = publish_both(request, &metadata, &rootfs, err);
	if (r < 0)
		return r;
	(void)tell_name(request, &metadata);
	return tell_name(request, &rootfs);
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

/* Said before anything is read, and in a dry run. */
static int check_folder(const char *target, struct coppice_error *err)
{
	const char *slash = strrchr(target, '/');
	char *folder = slash ? strndup(target, slash == target ? 1 : (size_t)(slash - target))
			     : strdup(".");
	int r, e;

	if (!folder)
		return cli_fail_memory(err);
	r = faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS);
	e = errno;
	free(folder);
	return r < 0 ? cli_fail_errno(err, e, "cannot write '%s'", target) : COPPICE_OK;
}

static int check_target(const struct request *request, const char *target, bool is_split,
			bool *ret_is_special, struct coppice_error *err)
{
	bool is_standard = strcmp(target, "-") == 0;
	struct stat status;

	*ret_is_special = false;
	if (is_standard && isatty(STDOUT_FILENO))
		return cli_fail(err, COPPICE_INVALID, "standard output is a terminal");
	if (*target && !is_standard && stat(target, &status) == 0) {
		if (S_ISREG(status.st_mode) && !request->is_forced)
			return cli_fail(err, COPPICE_EXISTS, "'%s' exists; --force replaces it",
					target);
		if (S_ISDIR(status.st_mode))
			return cli_fail(err, COPPICE_INVALID, "'%s' is a directory", target);
		*ret_is_special = !S_ISREG(status.st_mode);
	}
	if (is_split && (is_standard || *ret_is_special))
		return cli_fail(err, COPPICE_INVALID,
				"image '%s' is split: it is two files, and '%s' can take one only",
				request->words.word[0], target);
	return is_split && *target ? check_second(target, request->is_forced, err) : COPPICE_OK;
}

int run_image_export(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	_cleanup_(coppice_image_list_free) struct coppice_image_list list = { 0 };
	const char *image = request->words.word[0];
	const char *target = request->words.n > 1 ? request->words.word[1] : "";
	bool is_split, is_special;
	int r = coppice_image_get(coppice, image, &list, err);

	if (r < 0)
		return r;
	is_split = list.image[0].rootfs_size_bytes > 0;
	r = check_target(request, target, is_split, &is_special, err);
	if (r == COPPICE_OK && !is_special && strcmp(target, "-") != 0)
		r = check_folder(*target ? target : list.image[0].fingerprint, err);
	if (r < 0 || request->is_dry_run)
		return r;
	if (is_special)
		return export_special(request, coppice, err);
	if (strcmp(target, "-") == 0)
		return coppice_image_export(coppice, image, STDOUT_FILENO, err);
	if (is_split)
		return export_split(request, coppice, list.image[0].fingerprint, err);
	return export_named(request, coppice, list.image[0].fingerprint, err);
}
