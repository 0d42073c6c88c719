/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice storage`: pools. */

#include <string.h>

#include "cli/run.h"
#include "cli/show.h"

/* ---- what the words mean ---- */

int prepare_storage_create(struct request *request, struct coppice_error *err)
{
	size_t first = 1;

	if (request->words.n > 1 && !strchr(request->words.word[1], '=')) {
		request->driver = request->words.word[1];
		first = 2;
	}
	return settings_parse(request, &request->words, first, false, err);
}

int prepare_storage_recover(struct request *request, struct coppice_error *err)
{
	request->driver = request->words.word[1];
	if (strchr(request->driver, '='))
		return cli_fail(err, COPPICE_INVALID,
				"a driver must be named before '%s': btrfs or dir",
				request->driver);
	return settings_parse(request, &request->words, 2, false, err);
}

int prepare_storage_set(struct request *request, struct coppice_error *err)
{
	return settings_parse(request, &request->words, 1, true, err);
}

int prepare_storage_unset(struct request *request, struct coppice_error *err)
{
	return settings_unset(request, 1, err);
}

int prepare_storage_mount(struct request *request, struct coppice_error *err)
{
	if ((request->words.n > 0) != request->is_all)
		return COPPICE_OK;
	return cli_fail(err, COPPICE_INVALID, "name one pool, or say --all");
}

/* The pool named; NULL stands for all. */
static const char *pool_or_all(const struct request *request)
{
	return request->is_all ? NULL : request->words.word[0];
}

/* ---- changes ---- */

int run_storage_create(const struct request *request, struct coppice *coppice,
		       struct coppice_error *err)
{
	return coppice_storage_create(coppice, request->words.word[0], request->driver,
				      request->settings, request->n_settings, err);
}

int run_storage_recover(const struct request *request, struct coppice *coppice,
			struct coppice_error *err)
{
	return coppice_storage_recover(coppice, request->words.word[0], request->driver,
				       request->settings, request->n_settings, err);
}

int run_storage_delete(const struct request *request, struct coppice *coppice,
		       struct coppice_error *err)
{
	return coppice_storage_delete(coppice, request->words.word[0], request->is_forced, err);
}

int run_storage_set(const struct request *request, struct coppice *coppice,
		    struct coppice_error *err)
{
	return coppice_storage_set(coppice, request->words.word[0], request->settings,
				   request->n_settings, err);
}

int run_storage_mount(const struct request *request, struct coppice *coppice,
		      struct coppice_error *err)
{
	return coppice_storage_mount(coppice, pool_or_all(request), err);
}

int run_storage_umount(const struct request *request, struct coppice *coppice,
		       struct coppice_error *err)
{
	return coppice_storage_umount(coppice, pool_or_all(request), err);
}

/* ---- how a pool looks ---- */

static const struct column pool_columns[] = {
	{ "NAME", false },   { "DRIVER", false }, { "SOURCE", false },
	{ "VOLUMES", true }, { "STATE", false },
};

/* In a word or, where something is wrong, in words. */
static const char *pool_state(const struct coppice_pool *pool)
{
	if (pool->problem)
		return pool->problem;
	return pool->mount ? "MOUNTED" : "UNMOUNTED";
}

static void pool_row(struct sheet *sheet, const struct coppice_pool *pool)
{
	sheet_text(sheet, pool->name);
	sheet_text(sheet, pool->driver);
	sheet_text(sheet, pool->source);
	sheet_number(sheet, pool->n_volumes);
	sheet_text(sheet, pool_state(pool));
}

/* @space may be NULL: then it was not asked for. */
static void pool_doc(struct doc *doc, const struct coppice_pool *pool,
		     const struct coppice_pool_space *space)
{
	doc_object(doc, NULL);
	doc_text(doc, "name", pool->name);
	doc_text(doc, "driver", pool->driver);
	doc_text(doc, "source", pool->source);
	doc_text(doc, "mount", pool->mount);
	doc_text(doc, "problem", pool->problem);
	doc_text(doc, "uuid", pool->uuid);
	doc_number(doc, "volumes", pool->n_volumes);
	if (space)
		space_doc_keys(doc, space);
	if (space && space->mapper)
		doc_text(doc, "mapped_by", space->mapper);
	doc_settings(doc, "config", &pool->config);
	doc_end(doc);
}

int run_storage_list(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	_cleanup_(coppice_pool_list_free) struct coppice_pool_list list = { 0 };
	enum format format = request_format(request, FORMAT_TABLE);
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, format, pool_columns, ARRAY_SIZE(pool_columns));
	struct doc doc = doc_start(stdout, format);
	int r = coppice_storage_list(coppice, &list, err);

	if (r < 0)
		return r;
	if (format_is_sheet(format)) {
		for (size_t i = 0; i < list.n; i++)
			pool_row(&sheet, &list.pool[i]);
		return sheet_end(&sheet, err);
	}
	doc_array(&doc, NULL);
	for (size_t i = 0; i < list.n; i++)
		pool_doc(&doc, &list.pool[i], NULL);
	doc_end(&doc);
	return COPPICE_OK;
}

/* ---- one pool ---- */

static void card_space(struct sheet *card, const struct coppice_pool_space *space)
{
	card_number(card, "Instances", space->n_instances);
	card_bytes(card, "Total", space->total);
	card_bytes(card, "Used", space->used);
	card_bytes(card, "Free", space->free);
	card_bytes(card, "Logical", space->logical);
	card_bytes(card, "Saved", space->saved);
	card_bytes(card, "Pinned", space->pinned);
	card_bytes(card, "Exposure", space->exposure);
	if (space->metadata_total.known) {
		card_bytes(card, "Metadata", space->metadata_total);
		card_bytes(card, "  used", space->metadata_used);
	}
}

static int pool_card(const struct coppice_pool *pool, const struct coppice_pool_space *space,
		     struct coppice_error *err)
{
	_cleanup_(sheet_done) struct sheet card = card_start();

	card_text(&card, "Name", pool->name);
	card_text(&card, "Driver", pool->driver);
	card_text(&card, "Source", pool->source);
	card_text(&card, "Mounted on", pool->mount);
	card_text(&card, "Problem", pool->problem);
	card_text(&card, "UUID", pool->uuid);
	if (space && space->mapper)
		card_text(&card, "Mapped by", space->mapper);
	card_number(&card, "Volumes", pool->n_volumes);
	if (space)
		card_space(&card, space);
	card_settings(&card, "Config", &pool->config);
	return sheet_end(&card, err);
}

static int pool_print(const struct coppice_pool *pool, const struct coppice_pool_space *space,
		      enum format format, struct coppice_error *err)
{
	_cleanup_(sheet_done) struct sheet sheet =
		space ? sheet_start(stdout, format, space_columns, n_space_columns)
		      : sheet_start(stdout, format, pool_columns, ARRAY_SIZE(pool_columns));
	struct doc doc = doc_start(stdout, format);

	if (format == FORMAT_TABLE)
		return pool_card(pool, space, err);
	if (format != FORMAT_CSV) {
		pool_doc(&doc, pool, space);
		return COPPICE_OK;
	}
	if (space)
		space_row(&sheet, space);
	else
		pool_row(&sheet, pool);
	return sheet_end(&sheet, err);
}

int run_storage_show(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	_cleanup_(coppice_pool_list_free) struct coppice_pool_list list = { 0 };
	int r = coppice_storage_get(coppice, request->words.word[0], &list, err);

	if (r < 0)
		return r;
	return pool_print(&list.pool[0], NULL, request_format(request, FORMAT_YAML), err);
}

int run_storage_info(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	_cleanup_(coppice_pool_list_free) struct coppice_pool_list list = { 0 };
	_cleanup_(coppice_space_list_free) struct coppice_space_list space = { 0 };
	int r = coppice_space(coppice, request->words.word[0], request->is_exact, &space, err);

	if (r < 0)
		return r;
	/* Counting mounted it, so look only now where it is. */
	r = coppice_storage_get(coppice, request->words.word[0], &list, err);
	if (r < 0)
		return r;
	return pool_print(&list.pool[0], &space.pool[0], request_format(request, FORMAT_TABLE),
			  err);
}

int run_storage_get(const struct request *request, struct coppice *coppice,
		    struct coppice_error *err)
{
	_cleanup_(coppice_pool_list_free) struct coppice_pool_list list = { 0 };
	const char *value;
	int r = coppice_storage_get(coppice, request->words.word[0], &list, err);

	if (r < 0)
		return r;
	value = settings_get(&list.pool[0].config, request->words.word[1]);
	(void)printf("%s\n", value ? value : "");
	return COPPICE_OK;
}
