/* SPDX-License-Identifier: Apache-2.0 */

/* One thing, for people: a table of two columns without a heading. */

#include "cli/show.h"

static const struct column card_columns[] = { { "KEY", false }, { "VALUE", false } };

struct sheet card_start(void)
{
	struct sheet card =
		sheet_start(stdout, FORMAT_TABLE, card_columns, ARRAY_SIZE(card_columns));

	card.has_heading = false;
	return card;
}

void card_text(struct sheet *card, const char *title, const char *text)
{
	char key[80];

	if (!text)
		return;
	(void)snprintf(key, sizeof(key), "%s%s", title, *title ? ":" : "");
	sheet_text(card, key);
	sheet_text(card, text);
}

void card_number(struct sheet *card, const char *title, uint64_t number)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
	card_text(card, title, text);
}

void card_bytes(struct sheet *card, const char *title, struct coppice_bytes bytes)
{
	char text[BYTES_TEXT_MAX];

	bytes_text(bytes, false, text);
	card_text(card, title, text);
}

void card_time(struct sheet *card, const char *title, int64_t ns)
{
	char text[TIME_TEXT_MAX];

	time_text(ns, text);
	card_text(card, title, text);
}

void card_settings(struct sheet *card, const char *title, const struct coppice_settings *settings)
{
	for (size_t i = 0; i < settings->n; i++) {
		_cleanup_(freep) char *text = NULL;

		if (asprintf(&text, "%s=%s", settings->setting[i].key, settings->setting[i].value) <
		    0) {
			card->is_failed = true;
			text = NULL;
			return;
		}
		card_text(card, i == 0 ? title : "", text);
	}
}
