/* SPDX-License-Identifier: Apache-2.0 */
/* Records of volumes and images, which lie in a pool that may have been anybody's. */
#include "core/record.h"

#include "base/base.h"
#include "fuzz.h"

/* What was read is written so that it reads the same; too long for a place it may be. */
static void again(const struct record *record)
{
	_cleanup_(freep) char *text = NULL, *second = NULL, *word = NULL;
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct record same = { 0 };

	if (record_format(record, &text, &err) < 0)
		return;
	must(strlen(text) <= RECORD_TEXT_MAX);
	must(record_parse(text, &same, &err) == COPPICE_OK);
	must(record_format(&same, &second, &err) == COPPICE_OK);
	must(strcmp(text, second) == 0);
	(void)record_format_word(record, "uuid_1", &word, &err);
	record_done(&same);
}

static void volume(const char *text)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct record record = { 0 };
	int r = record_parse(text, &record, &err);

	must_explain(r, &err);
	if (r < 0)
		return;
	again(&record);
	record_done(&record);
}

static void image(const char *text)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_record record = { 0 }, copy = { 0 };
	_cleanup_(freep) char *out = NULL;
	int r = image_record_parse(text, &record, &err);

	must_explain(r, &err);
	if (r < 0)
		return;
	must(image_record_copy(&copy, &record, &err) == COPPICE_OK);
	(void)image_record_add_alias(&copy, "another", &err);
	image_record_remove_alias(&copy, "another");
	(void)image_record_format(&copy, &out, &err);
	image_record_done(&copy);
	image_record_done(&record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);

	volume(text);
	image(text);
	free(text);
	return 0;
}
