/* SPDX-License-Identifier: Apache-2.0 */

/* Instances: made, copied, moved, renamed, frozen, restored, deleted, found. */

#include <string.h>

#include "cli/run.h"

int prepare_init(struct request *request, struct coppice_error *err)
{
	size_t first = request->is_empty ? 0 : 1;
	int r;

	if (request->has_content && !request->is_empty)
		return cli_fail(
			err, COPPICE_INVALID,
			"--content is for --empty: what is made from an image has its content");
	if (request->words.n <= first)
		return cli_fail(err, COPPICE_INVALID, "something is missing; usage: coppice %s %s",
				request->command->name, request->command->usage);
	r = request->count ? names_count(request, first, err) : names_expand(request, first, err);
	if (r < 0)
		return r;
	return settings_parse(request, &request->assignments, 0, false, err);
}

int run_init(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	if (request->is_empty)
		return coppice_instance_init_empty(coppice, (const char *const *)request->names,
						   request->n_names, request->content,
						   request->settings, request->n_settings,
						   request->pool, err);
	return coppice_instance_init(coppice, request->words.word[0],
				     (const char *const *)request->names, request->n_names,
				     request->settings, request->n_settings, request->pool, err);
}

int prepare_delete(struct request *request, struct coppice_error *err)
{
	return names_expand(request, 0, err);
}

int run_delete(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	return coppice_delete(coppice, (const char *const *)request->names, request->n_names,
			      request_may_lose(request), err);
}

int run_copy(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	struct coppice_copy copy = {
		.pool = request->pool,
		.is_full = request->is_full,
		.is_instance_only = request->is_instance_only,
		.is_refresh = request->is_refresh,
		.may_lose = request_may_lose(request),
	};

	return coppice_instance_copy(coppice, request->words.word[0], request->words.word[1], &copy,
				     err);
}

int run_move(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	return coppice_instance_move(coppice, request->words.word[0], request->words.word[1],
				     request->pool, request_may_lose(request), err);
}

/* A/S T, and A/S A/T for those who write the name in full. */
int run_rename(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	const char *source = request->words.word[0];
	const char *target = request->words.word[1];
	const char *slash = strchr(source, '/');

	if (slash && strncmp(source, target, (size_t)(slash - source) + 1) == 0)
		target += slash - source + 1;
	return coppice_rename(coppice, source, target, err);
}

int run_snapshot(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	const char *name = request->words.n > 1 ? request->words.word[1] : NULL;
	_cleanup_(freep) char *chosen = NULL;
	int r = coppice_snapshot_create(coppice, request->words.word[0], name,
					request_may_lose(request), &chosen, err);

	if (r < 0)
		return r;
	if (!name && chosen && request_may_answer(request))
		(void)printf("%s\n", chosen);
	return COPPICE_OK;
}

int run_restore(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	return coppice_snapshot_restore(coppice, request->words.word[0], request->words.word[1],
					request_may_lose(request), err);
}

int run_path(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(freep) char *path = NULL;
	int r = coppice_path(coppice, request->words.word[0], &path, err);

	if (r < 0)
		return r;
	(void)printf("%s\n", path);
	return COPPICE_OK;
}

int run_mount(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(freep) char *path = NULL;

	return coppice_path(coppice, request->words.word[0], &path, err);
}

int run_umount(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	return coppice_umount(coppice, request->words.word[0], err);
}
