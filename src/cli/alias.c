/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice image alias`: names of images. */

#include <stdlib.h>
#include <string.h>

#include "cli/run.h"
#include "cli/show.h"

int run_alias_create(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	return coppice_image_alias_create(coppice, request->words.word[0], request->words.word[1],
					  err);
}

int run_alias_delete(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	return coppice_image_alias_delete(coppice, request->words.word[0], err);
}

int run_alias_rename(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	return coppice_image_alias_rename(coppice, request->words.word[0], request->words.word[1],
					  err);
}

static void alias_doc(struct doc *doc, const char *alias, const char *fingerprint)
{
	doc_object(doc, NULL);
	doc_text(doc, "name", alias);
	doc_text(doc, "fingerprint", fingerprint);
	doc_end(doc);
}

/* An alias, and the image that it names; borrowed from the list of images. */
struct pair {
	const char *alias, *fingerprint;
};

static int compare_pairs(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;

	return strcmp(x->alias, y->alias);
}

/* All aliases of all images, sorted. free() the result. */
static int collect_pairs(const struct coppice_image_list *list, struct pair **ret, size_t *ret_n,
			 struct coppice_error *err)
{
	struct pair *pairs;
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		n += list->image[i].n_aliases;
	pairs = calloc(n ? n : 1, sizeof(*pairs));
	if (!pairs)
		return cli_fail(err, COPPICE_FAILED, "out of memory");
	*ret_n = n;
	n = 0;
	for (size_t i = 0; i < list->n; i++)
		for (size_t a = 0; a < list->image[i].n_aliases; a++)
			pairs[n++] = (struct pair){ list->image[i].alias[a],
						    list->image[i].fingerprint };
	qsort(pairs, n, sizeof(*pairs), compare_pairs);
	*ret = pairs;
	return COPPICE_OK;
}

int run_alias_list(const struct request *request, struct coppice *coppice,
		   struct coppice_error *err)
{
	static const struct column columns[] = { { "ALIAS", false }, { "FINGERPRINT", false } };
	_cleanup_(coppice_image_list_free) struct coppice_image_list list = { 0 };
	enum format format = request_format(request, FORMAT_TABLE);
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, format, columns, ARRAY_SIZE(columns));
	struct doc doc = doc_start(stdout, format);
	_cleanup_(freep) struct pair *pairs = NULL;
	size_t n = 0;
	int r = coppice_image_list(coppice, &list, err);

	if (r == COPPICE_OK)
		r = collect_pairs(&list, &pairs, &n, err);
	if (r < 0)
		return r;
	if (!format_is_sheet(format))
		doc_array(&doc, NULL);
	for (size_t i = 0; i < n; i++) {
		if (!format_is_sheet(format)) {
			alias_doc(&doc, pairs[i].alias, pairs[i].fingerprint);
			continue;
		}
		sheet_text(&sheet, pairs[i].alias);
		sheet_text(&sheet, pairs[i].fingerprint);
	}
	if (format_is_sheet(format))
		return sheet_end(&sheet, err);
	doc_end(&doc);
	return COPPICE_OK;
}
