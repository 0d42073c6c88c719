/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice list`, and how an instance looks in each format. */

#include "cli/run.h"
#include "cli/show.h"

const struct column instance_columns[] = {
	{ "NAME", false },    { "KIND", false },   { "STATE", false },    { "IMAGE", false },
	{ "CREATED", false }, { "WRITTEN", true }, { "SNAPSHOTS", true }, { "POOL", false },
};
const size_t n_instance_columns = ARRAY_SIZE(instance_columns);

void instance_row(struct sheet *sheet, const struct coppice_instance *instance)
{
	sheet_text(sheet, instance->name);
	sheet_text(sheet, instance->kind);
	sheet_text(sheet, instance->state);
	if (instance->is_image_deleted && instance->image_name) {
		char name[128];

		(void)snprintf(name, sizeof(name), "%s (deleted)", instance->image_name);
		sheet_text(sheet, name);
	} else {
		sheet_text(sheet, instance->image_name);
	}
	sheet_time(sheet, instance->created_ns);
	sheet_bytes(sheet, instance->written);
	sheet_number(sheet, instance->n_snapshots);
	sheet_text(sheet, instance->pool);
}

static void snapshots_doc(struct doc *doc, const struct coppice_instance *instance)
{
	doc_array(doc, "snapshots");
	for (size_t i = 0; instance->snapshot && i < instance->n_snapshots; i++) {
		doc_object(doc, NULL);
		doc_text(doc, "name", instance->snapshot[i].name);
		doc_time(doc, "created", instance->snapshot[i].created_ns);
		doc_end(doc);
	}
	doc_end(doc);
}

void instance_doc(struct doc *doc, const struct coppice_instance *instance, bool is_whole)
{
	doc_object(doc, NULL);
	doc_text(doc, "name", instance->name);
	doc_text(doc, "kind", instance->kind);
	doc_text(doc, "state", instance->state);
	doc_text(doc, "image", instance->image_name);
	doc_text(doc, "fingerprint", instance->image);
	doc_bool(doc, "image_deleted", instance->is_image_deleted);
	doc_text(doc, "origin", instance->origin);
	doc_time(doc, "created", instance->created_ns);
	doc_bytes(doc, "written", instance->written);
	doc_bytes(doc, "refers", instance->refers);
	doc_bytes(doc, "unique", instance->unique);
	doc_bytes(doc, "limit", instance->limit);
	doc_number(doc, "snapshot_count", instance->n_snapshots);
	doc_text(doc, "pool", instance->pool);
	doc_text(doc, "uuid", instance->uuid);
	if (is_whole) {
		snapshots_doc(doc, instance);
		doc_settings(doc, "config", &instance->config);
		doc_array(doc, "nested");
		for (size_t i = 0; i < instance->n_nested; i++)
			doc_text(doc, NULL, instance->nested[i]);
		doc_end(doc);
	}
	doc_end(doc);
}

static int list_print(const struct coppice_instance_list *list, enum format format,
		      struct coppice_error *err)
{
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, format, instance_columns, n_instance_columns);
	struct doc doc = doc_start(stdout, format);

	if (format_is_sheet(format)) {
		for (size_t i = 0; i < list->n; i++)
			instance_row(&sheet, &list->instance[i]);
		return sheet_end(&sheet, err);
	}
	doc_array(&doc, NULL);
	for (size_t i = 0; i < list->n; i++)
		instance_doc(&doc, &list->instance[i], false);
	doc_end(&doc);
	return COPPICE_OK;
}

int run_list(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(coppice_instance_list_free) struct coppice_instance_list list = { 0 };
	const char *pattern = request->words.n > 0 ? request->words.word[0] : NULL;
	int r = coppice_instance_list(coppice, pattern, request->pool,
				      request->is_exact ? COPPICE_DETAIL_EXACT : 0, &list, err);

	if (r < 0)
		return r;
	return list_print(&list, request_format(request, FORMAT_TABLE), err);
}
