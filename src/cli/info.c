/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice info`: all about one instance. */

#include "cli/run.h"
#include "cli/show.h"

static const char *text_or(const char *text, const char *otherwise)
{
	return text && *text ? text : otherwise;
}

static void card_image(struct sheet *card, const struct coppice_instance *instance)
{
	char text[192];

	if (!instance->image_name && !instance->image)
		return;
	(void)snprintf(text, sizeof(text), "%s%s", text_or(instance->image_name, instance->image),
		       instance->is_image_deleted ? " (deleted)" : "");
	card_text(card, "Image", text);
	card_text(card, "Fingerprint", instance->image);
}

static void card_snapshots(struct sheet *card, const struct coppice_instance *instance)
{
	card_number(card, "Snapshots", instance->n_snapshots);
	for (size_t i = 0; instance->snapshot && i < instance->n_snapshots; i++) {
		_cleanup_(freep) char *text = NULL;
		char time[TIME_TEXT_MAX];

		time_text(instance->snapshot[i].created_ns, time);
		if (asprintf(&text, "%s  %s", time, instance->snapshot[i].name) < 0) {
			text = NULL;
			card->is_failed = true;
			return;
		}
		card_text(card, "", text);
	}
}

static void card_nested(struct sheet *card, const struct coppice_instance *instance)
{
	for (size_t i = 0; i < instance->n_nested; i++)
		card_text(card, i ? "" : "Nested", instance->nested[i]);
}

static int info_card(const struct coppice_instance *instance, struct coppice_error *err)
{
	_cleanup_(sheet_done) struct sheet card = card_start();

	card_text(&card, "Name", instance->name);
	card_text(&card, "Kind", instance->kind);
	card_text(&card, "State", instance->state);
	card_text(&card, "Pool", instance->pool);
	card_image(&card, instance);
	card_text(&card, "Copied from", instance->origin);
	card_time(&card, "Created", instance->created_ns);
	card_text(&card, "UUID", instance->uuid);
	card_bytes(&card, "Written", instance->written);
	card_bytes(&card, "Refers", instance->refers);
	card_bytes(&card, "Unique", instance->unique);
	if (instance->limit.known != COPPICE_UNKNOWN)
		card_bytes(&card, "Limit", instance->limit);
	card_settings(&card, "Config", &instance->config);
	card_nested(&card, instance);
	card_snapshots(&card, instance);
	return sheet_end(&card, err);
}

static int info_csv(const struct coppice_instance *instance, struct coppice_error *err)
{
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, FORMAT_CSV, instance_columns, n_instance_columns);

	instance_row(&sheet, instance);
	return sheet_end(&sheet, err);
}

int run_info(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(coppice_instance_list_free) struct coppice_instance_list list = { 0 };
	enum format format = request_format(request, FORMAT_TABLE);
	unsigned detail = COPPICE_DETAIL_SNAPSHOTS | COPPICE_DETAIL_CONFIG |
			  (request->is_exact ? COPPICE_DETAIL_EXACT : 0U);
	struct doc doc = doc_start(stdout, format);
	int r = coppice_instance_get(coppice, request->words.word[0], detail, &list, err);

	if (r < 0)
		return r;
	if (format == FORMAT_TABLE)
		return info_card(&list.instance[0], err);
	if (format == FORMAT_CSV)
		return info_csv(&list.instance[0], err);
	instance_doc(&doc, &list.instance[0], true);
	return COPPICE_OK;
}
