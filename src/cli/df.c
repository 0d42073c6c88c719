/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice df`: what pools hold, what they would hold without sharing, what that saves. */

#include "cli/run.h"
#include "cli/show.h"

const struct column space_columns[] = {
	{ "POOL", false },  { "DRIVER", false },  { "INSTANCES", true }, { "TOTAL", true },
	{ "USED", true },   { "FREE", true },     { "LOGICAL", true },   { "SAVED", true },
	{ "PINNED", true }, { "EXPOSURE", true },
};
const size_t n_space_columns = ARRAY_SIZE(space_columns);

void space_row(struct sheet *sheet, const struct coppice_pool_space *space)
{
	sheet_text(sheet, space->pool);
	sheet_text(sheet, space->driver);
	sheet_number(sheet, space->n_instances);
	sheet_bytes(sheet, space->total);
	sheet_bytes(sheet, space->used);
	sheet_bytes(sheet, space->free);
	sheet_bytes(sheet, space->logical);
	sheet_bytes(sheet, space->saved);
	sheet_bytes(sheet, space->pinned);
	sheet_bytes(sheet, space->exposure);
}

void space_doc_keys(struct doc *doc, const struct coppice_pool_space *space)
{
	doc_number(doc, "instances", space->n_instances);
	doc_bytes(doc, "total", space->total);
	doc_bytes(doc, "used", space->used);
	doc_bytes(doc, "free", space->free);
	doc_bytes(doc, "logical", space->logical);
	doc_bytes(doc, "saved", space->saved);
	doc_bytes(doc, "pinned", space->pinned);
	doc_bytes(doc, "exposure", space->exposure);
	if (space->metadata_total.known) {
		doc_bytes(doc, "metadata_total", space->metadata_total);
		doc_bytes(doc, "metadata_used", space->metadata_used);
	}
}

static void space_doc(struct doc *doc, const struct coppice_pool_space *space)
{
	doc_object(doc, NULL);
	doc_text(doc, "name", space->pool);
	doc_text(doc, "driver", space->driver);
	space_doc_keys(doc, space);
	doc_end(doc);
}

static const char *at_most(struct coppice_bytes bytes)
{
	return bytes.known == COPPICE_AT_MOST ? "at most " : "";
}

/* The same in a sentence, but only of figures that somebody knows. */
static void space_say(const struct coppice_pool_space *space, bool is_one_of_many)
{
	char logical[SIZE_TEXT_MAX];
	char used[SIZE_TEXT_MAX];
	char saved[SIZE_TEXT_MAX];

	if (space->n_instances == 0 || space->logical.known == COPPICE_UNKNOWN ||
	    space->used.known != COPPICE_EXACT || space->saved.known == COPPICE_UNKNOWN)
		return;
	size_text(space->logical.bytes, logical);
	size_text(space->used.bytes, used);
	size_text(space->saved.bytes, saved);
	if (is_one_of_many)
		(void)printf("%s: ", space->pool);
	(void)printf("%zu %s, with images and snapshots, would take %s%s as full copies; the pool "
		     "holds %s; sharing saves %s%s\n",
		     space->n_instances, space->n_instances == 1 ? "instance" : "instances",
		     at_most(space->logical), logical, used, at_most(space->saved), saved);
}

/* Of a pool whose own books may be full before it is. */
static void metadata_say(const struct coppice_pool_space *space, bool is_one_of_many)
{
	char total[SIZE_TEXT_MAX];
	char used[SIZE_TEXT_MAX];

	if (!space->metadata_total.known || !space->metadata_used.known)
		return;
	size_text(space->metadata_total.bytes, total);
	size_text(space->metadata_used.bytes, used);
	if (is_one_of_many)
		(void)printf("%s: ", space->pool);
	(void)printf("of the pool's metadata, %s, %s are used\n", total, used);
}

static int space_table(const struct coppice_space_list *list, enum format format,
		       struct coppice_error *err)
{
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, format, space_columns, n_space_columns);
	int r;

	for (size_t i = 0; i < list->n; i++)
		space_row(&sheet, &list->pool[i]);
	r = sheet_end(&sheet, err);
	for (size_t i = 0; r == COPPICE_OK && format == FORMAT_TABLE && i < list->n; i++)
		metadata_say(&list->pool[i], list->n > 1);
	for (size_t i = 0; r == COPPICE_OK && format == FORMAT_TABLE && i < list->n; i++)
		space_say(&list->pool[i], list->n > 1);
	return r;
}

int run_df(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(coppice_space_list_free) struct coppice_space_list list = { 0 };
	enum format format = request_format(request, FORMAT_TABLE);
	const char *pool = request->words.n > 0 ? request->words.word[0] : request->pool;
	struct doc doc = doc_start(stdout, format);
	int r = coppice_space(coppice, pool, request->is_exact, &list, err);

	if (r < 0)
		return r;
	if (format_is_sheet(format))
		return space_table(&list, format, err);
	doc_array(&doc, NULL);
	for (size_t i = 0; i < list.n; i++)
		space_doc(&doc, &list.pool[i]);
	doc_end(&doc);
	return COPPICE_OK;
}
