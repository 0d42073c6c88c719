/* SPDX-License-Identifier: Apache-2.0 */

/* Names and tags of logical volumes, and what lvm(8) says; without LVM. */

#include "driver/lvm/lvm.h"

#include <string.h>

#include "base/text.h"
#include "tap.h"

static char vg[] = "vg";
static struct lvm_pool lvm = { .vg = vg };

static const char *name_of(enum volume_kind kind, const char *name, const char *snapshot)
{
	static char found[LV_NAME_MAX];
	struct volume_ref ref = { .kind = kind };
	struct coppice_error err = COPPICE_ERROR_INIT;

	(void)snprintf(ref.name.text, sizeof(ref.name.text), "%s", name);
	(void)snprintf(ref.snapshot.text, sizeof(ref.snapshot.text), "%s", snapshot);
	ok_call(lvm_name(&lvm, &ref, found, &err), &err);
	return found;
}

static void test_names(void)
{
	ok_str(name_of(VOLUME_CONTAINER, "c1", ""), "containers_c1");
	ok_str(name_of(VOLUME_CONTAINER, "web-1", "before"), "containers_web--1-before");
	ok_str(name_of(VOLUME_CONTAINER, "c1", "a:b_c.d-e"), "containers_c1-a+3ab_c.d--e");
	ok_str(name_of(VOLUME_CUSTOM, "x_tdata", ""), "custom_x+5ftdata");
	ok_str(name_of(VOLUME_CUSTOM, "x_mimagey", ""), "custom_x+5fmimagey");
	ok_str(name_of(VOLUME_VIRTUAL_MACHINE, "v", ""), "virtual-machines_v");
}

static void test_names_that_are_too_long(void)
{
	char name[64], first[LV_NAME_MAX];
	struct volume_ref ref = { .kind = VOLUME_CONTAINER };
	struct coppice_error err = COPPICE_ERROR_INIT;
	char found[LV_NAME_MAX];

	memset(name, 'x', 63);
	name[63] = '\0';
	(void)snprintf(first, sizeof(first), "%s", name_of(VOLUME_CONTAINER, name, name));
	ok_int(strncmp(first, "snap_", 5), ==, 0);
	ok_int(strlen(first), ==, 5 + 16);
	ok_str(name_of(VOLUME_CONTAINER, name, name), first);
	name[62] = 'y';
	ok(strcmp(name_of(VOLUME_CONTAINER, name, name), first) != 0);
	for (size_t i = 1; i < 62; i += 2)
		name[i] = '-';
	(void)snprintf(ref.name.text, sizeof(ref.name.text), "%s", name);
	ok_code(lvm_name(&lvm, &ref, found, &err), COPPICE_INVALID, &err);
	ok_has(err.message, "too long");
}

static void test_names_and_back(void)
{
	static const char *const names[] = { "c1", "web-1", "a--b", "x_tdata", "a:b" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		for (int kind = 0; kind < VOLUME_KINDS; kind++) {
			struct volume_ref ref;

			ok(lvm_name_parse(name_of((enum volume_kind)kind, names[i], ""), &ref));
			ok_int(ref.kind, ==, (enum volume_kind)kind);
			ok_str(ref.name.text, names[i]);
		}
}

static void test_what_is_no_name_of_ours(void)
{
	static const char *const names[] = {
		"root",           "containers",      "containers_",     "containers_a-b", "draft_x",
		"containers_a+5", "containers_a+00", "containers_a+zz", "images-x"
	};
	struct volume_ref ref;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (lvm_name_parse(names[i], &ref))
			tap_fail("'%s' is taken for one of ours", names[i]);
}

static void test_devices(void)
{
	char device[PATH_MAX];

	lvm_device(&lvm, "containers_web--1-s", device);
	ok_str(device, "/dev/mapper/vg-containers_web----1--s");
}

/* ---- records ---- */

/* "coppice.00.a=b coppice.01…" in another order, as lvs has them. */
static char *shuffled(const char *tags)
{
	_cleanup_(text_done) struct text text = TEXT_INIT;
	const char *end = tags + strlen(tags);

	while (end > tags) {
		const char *begin = end;

		while (begin > tags && begin[-1] != ' ')
			begin--;
		text_add(&text, "%s%.*s", text.length ? "," : "", (int)(end - begin), begin);
		end = begin > tags ? begin - 1 : tags;
	}
	return text_take(&text);
}

static void is_kept(const char *record)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *tags = tags_of_record(record, " ", &err), *mixed, *again;
	const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			      "_+.-/=!:&# ";

	ok(tags);
	ok_int(strspn(tags, allowed), ==, strlen(tags));
	for (const char *c = tags + 1; *c; c += strcspn(c, " "), c += *c == ' ')
		ok_int(strcspn(c, " "), <, 1024);
	mixed = shuffled(tags + 1);
	again = record_of_tags(mixed);
	ok_str(again, record);
	free(tags);
	free(mixed);
	free(again);
}

static void test_records(void)
{
	is_kept("{}");
	is_kept("{\"uuid\":\"0191\",\"kind\":\"container\",\"version\":1}");
	is_kept("{\"config\":{\"user.word\":\"a b, \\\"c\\\"\"},\"lineage\":[{\"a\":\"b\"}]}");
	is_kept("{\"name\": \"with blanks\", \"n\": 1}");
	is_kept("{\"a=b\":\"c\",\":\":\"d\",\"\":\"e\"}");
	is_kept("{\"user.\\u00e4\":\"\\u00e4!#&\"}");
	is_kept("not JSON at all \xc3\xa4");
}

static void test_long_records(void)
{
	_cleanup_(freep) char *long_text = calloc(1, 4001);
	_cleanup_(freep) char *record = NULL, *blanks = NULL;

	ok(long_text);
	memset(long_text, 'x', 3000);
	record = text_format("{\"user.a\":\"%s\",\"b\":\"c\"}", long_text);
	is_kept(record);
	memset(long_text, ' ', 3500);
	blanks = text_format("{\"user.a\":\"%s\",\"b\":\"c\"}", long_text);
	is_kept(blanks);
}

static void test_records_are_legible(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *tags = tags_of_record(
		"{\"kind\":\"container\",\"config\":{\"user.word\":\"a b\"},\"n\":1}", ",", &err);

	ok_str(tags, ",coppice.00.kind=container"
		     ",coppice.01.config:=&7B!user.word!:!a&20b!&7D"
		     ",coppice.02.n:=1");
}

static void test_what_stays_is_neither_taken_nor_added(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	_cleanup_(freep) char *some = tags_change("coppice.00.a=b,coppice.01.c=d,coppice.uuid=1",
						  "{\"a\":\"b\",\"c\":\"e\"}", &err);
	_cleanup_(freep) char *nothing = tags_change("coppice.00.a=b,x", "{\"a\":\"b\"}", &err);
	_cleanup_(freep) char *all = tags_change("coppice.00.a=b,x", NULL, &err);

	ok_str(some, " --deltag=coppice.01.c=d --addtag=coppice.01.c=e");
	ok_str(nothing, "");
	ok_str(all, " --deltag=coppice.00.a=b");
}

static void test_damaged_tags_are_no_record(void)
{
	static const char *const tags[] = {
		"",
		"other,coppice.pool",
		"coppice.01.a=b",
		"coppice.00.a=b,coppice.02.c=d",
		"coppice.00.a=&zz",
		"coppice.00.a:={",
		"coppice.00.a",
		"coppice.00.+=a",
	};

	for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
		_cleanup_(freep) char *record = record_of_tags(tags[i]);

		if (record)
			tap_fail("'%s' is taken for %s", tags[i], record);
	}
}

static void test_single_tags(void)
{
	char text[8];

	ok(tag_get("a=b,coppice.uuid=12", "coppice.uuid", text, sizeof(text)));
	ok_str(text, "12");
	ok(!tag_get("coppice.uuid=12345678", "coppice.uuid", text, sizeof(text)));
	ok(!tag_get("coppice.uuid", "coppice.uuid", text, sizeof(text)));
}

static void test_what_failures_mean(void)
{
	static const struct {
		const char *said;
		enum coppice_code code;
	} samples[] = {
		{ "Logical Volume \"c1\" already exists in volume group \"vg\"", COPPICE_EXISTS },
		{ "Logical volume vg/c6 contains a filesystem in use.", COPPICE_BUSY },
		{ "Check of pool vg/CoppiceThinPool failed (status:1). Manual repair required!",
		  COPPICE_UNAVAILABLE },
		{ "Failed to find logical volume \"vg/c1\"", COPPICE_NOT_FOUND },
		{ "Snapshot origin LV c1 not found in Volume group vg.", COPPICE_NOT_FOUND },
		{ "Existing logical volume \"c1\" not found in volume group \"vg\"",
		  COPPICE_NOT_FOUND },
		{ "Volume group \"vg\" not found; Cannot process volume group vg",
		  COPPICE_UNAVAILABLE },
		{ "something new", COPPICE_FAILED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		struct coppice_error err = COPPICE_ERROR_INIT;

		ok_code(lvm_command_error("lvs", samples[i].said, &err), samples[i].code, &err);
		ok(strstr(err.message, samples[i].said));
	}
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_names),
		TAP(test_names_that_are_too_long),
		TAP(test_names_and_back),
		TAP(test_what_is_no_name_of_ours),
		TAP(test_devices),
		TAP(test_records),
		TAP(test_long_records),
		TAP(test_records_are_legible),
		TAP(test_what_stays_is_neither_taken_nor_added),
		TAP(test_damaged_tags_are_no_record),
		TAP(test_single_tags),
		TAP(test_what_failures_mean),
		TAP_END,
	});
}
