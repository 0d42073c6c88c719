/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice image`: imported, listed, shown, deleted. */

#include <string.h>
#include <unistd.h>

#include "cli/run.h"
#include "cli/show.h"

#define SHORT_FINGERPRINT 12

/* The second word is a second file, unless it is a property. */
static bool is_split(const struct request *request)
{
	return request->words.n > 1 && !strchr(request->words.word[1], '=');
}

int prepare_image_import(struct request *request, struct coppice_error *err)
{
	const struct words *words = &request->words;

	if (strcmp(words->word[0], "-") == 0 && isatty(STDIN_FILENO))
		return cli_fail(err, COPPICE_INVALID, "standard input is a terminal");
	return settings_parse(request, words, is_split(request) ? 2 : 1, false, err);
}

int run_image_import(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	_cleanup_(freep) char *fingerprint = NULL;
	struct coppice_import import = {
		.path = request->words.word[0],
		.rootfs_path = is_split(request) ? request->words.word[1] : NULL,
		.pool = request->pool,
		.aliases = request->aliases.word,
		.n_aliases = request->aliases.n,
		.fingerprint = request->fingerprint,
		.properties = request->settings,
		.n_properties = request->n_settings,
	};
	int r = coppice_image_import(coppice, &import, &fingerprint, err);

	if (r < 0)
		return r;
	if (fingerprint && request_may_answer(request))
		(void)printf("%s\n", fingerprint);
	return COPPICE_OK;
}

int run_image_delete(const struct request *request, struct coppice *coppice,
		     struct coppice_error *err)
{
	return coppice_image_delete(coppice, request->words.word, request->words.n, request->pool,
				    err);
}

/* ---- how an image looks ---- */

static const struct column image_columns[] = {
	{ "ALIAS", false },       { "FINGERPRINT", false }, { "ARCHITECTURE", false },
	{ "DESCRIPTION", false }, { "SIZE", true },         { "IMPORTED", false },
	{ "POOLS", false },
};

static struct coppice_bytes image_size(const struct coppice_image *image)
{
	if (!image->has_bytes)
		return (struct coppice_bytes){ COPPICE_UNKNOWN, 0 };
	return (struct coppice_bytes){ COPPICE_EXACT, image->size_bytes };
}

/* "a, b, c", or NULL when memory ran out; free() it. */
static char *join(char *const *text, size_t n)
{
	size_t size = 1;
	char *joined;

	for (size_t i = 0; i < n; i++)
		size += strlen(text[i]) + 2;
	joined = calloc(1, size);
	for (size_t i = 0; joined && i < n; i++) {
		if (i > 0)
			(void)strcat(joined, ", ");
		(void)strcat(joined, text[i]);
	}
	return joined;
}

static void image_row(struct sheet *sheet, const struct coppice_image *image)
{
	_cleanup_(freep) char *pools = join(image->pool, image->n_pools);
	char fingerprint[80];
	char alias[300] = "";

	if (!pools)
		sheet->is_failed = true;
	(void)snprintf(fingerprint, sizeof(fingerprint), "%.*s",
		       sheet->is_csv ? (int)sizeof(fingerprint) - 1 : SHORT_FINGERPRINT,
		       image->fingerprint);
	if (image->n_aliases > 1 && !sheet->is_csv)
		(void)snprintf(alias, sizeof(alias), "%s (%zu more)", image->alias[0],
			       image->n_aliases - 1);
	else if (image->n_aliases > 0)
		(void)snprintf(alias, sizeof(alias), "%s", image->alias[0]);
	sheet_text(sheet, alias);
	sheet_text(sheet, fingerprint);
	sheet_text(sheet, image->architecture);
	sheet_text(sheet, image->description);
	sheet_bytes(sheet, image_size(image));
	sheet_time(sheet, image->imported_ns);
	sheet_text(sheet, pools);
}

static void strings_doc(struct doc *doc, const char *key, char *const *text, size_t n)
{
	doc_array(doc, key);
	for (size_t i = 0; i < n; i++)
		doc_text(doc, NULL, text[i]);
	doc_end(doc);
}

static void image_doc(struct doc *doc, const struct coppice_image *image)
{
	doc_object(doc, NULL);
	doc_text(doc, "fingerprint", image->fingerprint);
	strings_doc(doc, "aliases", image->alias, image->n_aliases);
	doc_text(doc, "architecture", image->architecture);
	doc_text(doc, "description", image->description);
	doc_bytes(doc, "size", image_size(image));
	doc_time(doc, "created", image->created_ns);
	doc_time(doc, "imported", image->imported_ns);
	strings_doc(doc, "pools", image->pool, image->n_pools);
	doc_settings(doc, "properties", &image->properties);
	doc_end(doc);
}

static int image_card(const struct coppice_image *image, struct coppice_error *err)
{
	_cleanup_(freep) char *pools = join(image->pool, image->n_pools);
	_cleanup_(freep) char *aliases = join(image->alias, image->n_aliases);
	_cleanup_(sheet_done) struct sheet card = card_start();

	card_text(&card, "Fingerprint", image->fingerprint);
	card_text(&card, "Aliases", aliases && *aliases ? aliases : "none");
	card_text(&card, "Architecture", image->architecture);
	card_text(&card, "Description", image->description);
	card_bytes(&card, "Size", image_size(image));
	card_time(&card, "Created", image->created_ns);
	card_time(&card, "Imported", image->imported_ns);
	card_text(&card, "Unpacked in", pools && *pools ? pools : "no pool");
	card_settings(&card, "Properties", &image->properties);
	return sheet_end(&card, err);
}

int run_image_list(const struct request *request, struct coppice *coppice,
		   struct coppice_error *err)
{
	_cleanup_(coppice_image_list_free) struct coppice_image_list list = { 0 };
	enum format format = request_format(request, FORMAT_TABLE);
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, format, image_columns, ARRAY_SIZE(image_columns));
	struct doc doc = doc_start(stdout, format);
	int r = coppice_image_list(coppice, &list, err);

	if (r < 0)
		return r;
	if (format_is_sheet(format)) {
		for (size_t i = 0; i < list.n; i++)
			image_row(&sheet, &list.image[i]);
		return sheet_end(&sheet, err);
	}
	doc_array(&doc, NULL);
	for (size_t i = 0; i < list.n; i++)
		image_doc(&doc, &list.image[i]);
	doc_end(&doc);
	return COPPICE_OK;
}

static int image_show(const struct request *request, struct coppice *coppice, enum format otherwise,
		      struct coppice_error *err)
{
	_cleanup_(coppice_image_list_free) struct coppice_image_list list = { 0 };
	enum format format = request_format(request, otherwise);
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, format, image_columns, ARRAY_SIZE(image_columns));
	struct doc doc = doc_start(stdout, format);
	int r = coppice_image_get(coppice, request->words.word[0], &list, err);

	if (r < 0)
		return r;
	if (format == FORMAT_TABLE)
		return image_card(&list.image[0], err);
	if (format == FORMAT_CSV) {
		image_row(&sheet, &list.image[0]);
		return sheet_end(&sheet, err);
	}
	image_doc(&doc, &list.image[0]);
	return COPPICE_OK;
}

int run_image_info(const struct request *request, struct coppice *coppice,
		   struct coppice_error *err)
{
	return image_show(request, coppice, FORMAT_TABLE, err);
}

int run_image_show(const struct request *request, struct coppice *coppice,
		   struct coppice_error *err)
{
	return image_show(request, coppice, FORMAT_YAML, err);
}
