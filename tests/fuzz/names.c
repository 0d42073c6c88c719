/* SPDX-License-Identifier: Apache-2.0 */
/* Names, sizes and uuids: what is taken is a name that can stand in a path, and no other. */
#include "base/text.h"
#include "base/uuid.h"
#include "driver/volume.h"
#include "fuzz.h"

static void must_be_harmless(const char *name)
{
	must(name[0] != '\0' && name[0] != '.' && name[0] != '-');
	must(!strchr(name, '/'));
	must(strlen(name) < 256);
	for (const char *at = name; *at; at++)
		must(*at > ' ' && *at < 0x7f);
}

typedef int parse_fn(const char *text, struct volume_name *ret, struct coppice_error *err);

static void name(const char *text, parse_fn *parse)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_name found = { 0 };
	int r = parse(text, &found, &err);

	must_explain(r, &err);
	if (r < 0)
		return;
	must(strcmp(found.text, text) == 0);
	must_be_harmless(found.text);
}

static void alias(const char *text)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char found[256] = "";
	int r = alias_parse(text, found, &err);

	must_explain(r, &err);
	must(r < 0 || strcmp(found, text) == 0);
}

static void reference(const char *text)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = { 0 };
	char buffer[VOLUME_REF_TEXT_MAX];
	int r = instance_ref_parse(text, &ref, &err);

	must_explain(r, &err);
	if (r < 0)
		return;
	must_be_harmless(ref.name.text);
	if (volume_is_snapshot(&ref))
		must_be_harmless(ref.snapshot.text);
	must(strcmp(volume_ref_format(&ref, buffer), text) == 0);
}

static void values(const char *text)
{
	enum volume_kind kind;
	struct uuid uuid;
	uint64_t bytes;
	char again[SIZE_TEXT_MAX];

	if (uuid_parse(text, &uuid))
		must(strcmp(uuid.text, text) == 0);
	if (size_parse(text, &bytes)) {
		must(bytes <= INT64_MAX);
		size_format(bytes, again);
		must(strlen(again) > 1 && again[strlen(again) - 1] == 'B');
	}
	if (volume_kind_parse(text, &kind))
		must(strcmp(volume_kind_name(kind), text) == 0);
	for (kind = 0; kind < VOLUME_KINDS; kind++)
		if (volume_name_is_valid(kind, text))
			must(!strchr(text, '/') && text[0] != '\0');
}

/* An order is one only if it is the same both ways. */
static void order(const char *a, const char *b)
{
	int one = natural_compare(a, b), other = natural_compare(b, a);

	must((one > 0) == (other < 0) && (one == 0) == (other == 0));
	must(natural_compare(a, a) == 0);
	must(one != 0 || strcmp(a, b) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	parse_fn *const parsers[] = { instance_name_parse, snapshot_name_parse, fingerprint_parse,
				      pool_name_parse };
	char *text = fuzz_text(data, size), *second = text + strlen(text);

	if (second < text + size)
		second++;
	for (size_t i = 0; i < ARRAY_SIZE(parsers); i++)
		name(text, parsers[i]);
	alias(text);
	reference(text);
	values(text);
	order(text, second);
	free(text);
	return 0;
}
