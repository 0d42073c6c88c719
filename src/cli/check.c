/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice check`: are pools, records and catalog what they should be? */

#include "cli/run.h"
#include "cli/show.h"

static const struct column finding_columns[] = {
	{ "SUBJECT", false },  { "POOL", false },    { "PROBLEM", false },
	{ "REPAIRED", false }, { "MESSAGE", false },
};

static void finding_row(struct sheet *sheet, const struct coppice_finding *finding)
{
	sheet_text(sheet, finding->subject);
	sheet_text(sheet, finding->pool);
	sheet_text(sheet, finding->what);
	sheet_text(sheet, finding->is_remark ? "-" : finding->is_repaired ? "yes" : "no");
	sheet_text(sheet, finding->message);
}

static void finding_doc(struct doc *doc, const struct coppice_finding *finding)
{
	doc_object(doc, NULL);
	doc_text(doc, "subject", finding->subject);
	doc_text(doc, "pool", finding->pool);
	doc_text(doc, "problem", finding->what);
	doc_bool(doc, "repaired", finding->is_repaired);
	doc_bool(doc, "damage", !finding->is_remark);
	doc_text(doc, "message", finding->message);
	doc_end(doc);
}

static int findings_print(const struct coppice_finding_list *list, enum format format,
			  struct coppice_error *err)
{
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, format, finding_columns, ARRAY_SIZE(finding_columns));
	struct doc doc = doc_start(stdout, format);

	if (format_is_sheet(format)) {
		for (size_t i = 0; i < list->n; i++)
			finding_row(&sheet, &list->finding[i]);
		return sheet_end(&sheet, err);
	}
	doc_object(&doc, NULL);
	doc_number(&doc, "volumes", list->n_volumes);
	doc_array(&doc, "findings");
	for (size_t i = 0; i < list->n; i++)
		finding_doc(&doc, &list->finding[i]);
	doc_end(&doc);
	doc_end(&doc);
	return COPPICE_OK;
}

static int say_clean(const struct request *request, struct coppice *coppice, const char *pool,
		     size_t n_volumes, struct coppice_error *err)
{
	_cleanup_(coppice_pool_list_free) struct coppice_pool_list pools = { 0 };
	size_t n_pools = 1;

	if (request_format(request, FORMAT_TABLE) != FORMAT_TABLE || request->is_quiet)
		return COPPICE_OK;
	if (!pool) {
		int r = coppice_storage_list(coppice, &pools, err);

		if (r < 0)
			return r;
		n_pools = pools.n;
	}
	(void)printf("%zu volume%s in %zu pool%s: no damage found\n", n_volumes,
		     n_volumes == 1 ? "" : "s", n_pools, n_pools == 1 ? "" : "s");
	return COPPICE_OK;
}

int run_check(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(coppice_finding_list_free) struct coppice_finding_list list = { 0 };
	const char *pool = request->words.n > 0 ? request->words.word[0] : request->pool;
	size_t n_left = 0, n_damages = 0;
	int r = coppice_check(coppice, pool, request->is_repair, &list, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < list.n; i++) {
		n_damages += !list.finding[i].is_remark;
		n_left += !list.finding[i].is_remark && !list.finding[i].is_repaired;
	}
	if (list.n == 0) {
		r = say_clean(request, coppice, pool, list.n_volumes, err);
		if (r < 0 || format_is_sheet(request_format(request, FORMAT_TABLE)))
			return r;
	}
	r = findings_print(&list, request_format(request, FORMAT_TABLE), err);
	if (r == COPPICE_OK && list.n > 0 && n_damages == 0)
		r = say_clean(request, coppice, pool, list.n_volumes, err);
	if (r < 0 || n_left == 0)
		return r;
	return cli_fail(err, COPPICE_FAILED, "%zu of %zu findings remain%s", n_left, n_damages,
			request->is_repair ? "" : "; 'coppice check --repair' mends what it can");
}
