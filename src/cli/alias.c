/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice image alias`: names of images. */

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

int run_alias_list(const struct request *request, struct coppice *coppice,
		   struct coppice_error *err)
{
	static const struct column columns[] = { { "ALIAS", false }, { "FINGERPRINT", false } };
	_cleanup_(coppice_image_list_free) struct coppice_image_list list = { 0 };
	enum format format = request_format(request, FORMAT_TABLE);
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, format, columns, ARRAY_SIZE(columns));
	struct doc doc = doc_start(stdout, format);
	int r = coppice_image_list(coppice, &list, err);

	if (r < 0)
		return r;
	if (!format_is_sheet(format))
		doc_array(&doc, NULL);
	for (size_t i = 0; i < list.n; i++) {
		const struct coppice_image *image = &list.image[i];

		for (size_t a = 0; a < image->n_aliases; a++) {
			if (!format_is_sheet(format)) {
				alias_doc(&doc, image->alias[a], image->fingerprint);
				continue;
			}
			sheet_text(&sheet, image->alias[a]);
			sheet_text(&sheet, image->fingerprint);
		}
	}
	if (format_is_sheet(format))
		return sheet_end(&sheet, err);
	doc_end(&doc);
	return COPPICE_OK;
}
