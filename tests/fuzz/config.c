/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration as JSON keeps it, and as it is set and removed: a line each. */
#include "base/base.h"
#include "base/text.h"
#include "core/settings.h"
#include "fuzz.h"

static void must_be_sorted(const struct coppice_settings *settings)
{
	for (size_t i = 1; i < settings->n; i++)
		must(strcmp(settings->setting[i - 1].key, settings->setting[i].key) < 0);
}

static void from_json(const char *text)
{
	struct coppice_settings settings = { 0 }, copy = { 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *again;
	int r = settings_from_json(&settings, json, &err);

	must_explain(r, &err);
	if (r == COPPICE_OK) {
		must_be_sorted(&settings);
		must(settings_copy(&copy, &settings, &err) == COPPICE_OK);
		again = settings_to_json(&copy);
		must(again && json_object_size(again) == settings.n);
		json_decref(again);
	}
	json_decref(json);
	settings_done(&settings);
	settings_done(&copy);
}

/* key=value sets, key alone removes. */
static void by_line(char *text)
{
	struct coppice_settings settings = { 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *line;

	while ((line = strsep(&text, "\n")) != NULL) {
		char *key = strsep(&line, "=");
		const char *got;
		int r = settings_put(&settings, key, line, &err);

		must_explain(r, &err);
		must((r == COPPICE_OK) == (!line || (text_is_utf8(key) && text_is_utf8(line))));
		if (r < 0)
			continue;
		got = settings_get(&settings, key);
		must(line ? got && strcmp(got, line) == 0 : !got);
		(void)settings_is_user_key(key);
		must_be_sorted(&settings);
	}
	settings_done(&settings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);

	from_json(text);
	by_line(text);
	free(text);
	return 0;
}
