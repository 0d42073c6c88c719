/* SPDX-License-Identifier: Apache-2.0 */

/* Names: what is one, and that nothing else ever becomes a value of the type. */

#include "driver/volume.h"
#include "tap.h"

#define X62 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define F63 "012345678901234567890123456789012345678901234567890123456789abc"

typedef int parse_fn(const char *text, struct volume_name *ret, struct coppice_error *err);

static void accept(parse_fn *parse, const char *text)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_name name = { "" };

	if (parse(text, &name, &err) != COPPICE_OK)
		tap_fail("'%s' is refused: %s", text, err.message);
	ok_str(name.text, text);
}

static void refuse(parse_fn *parse, const char *text)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_name name = { "untouched" };

	if (parse(text, &name, &err) == COPPICE_OK)
		tap_fail("'%s' is accepted", text);
	ok_int(err.code, ==, COPPICE_INVALID);
	ok_str(name.text, "untouched");
}

static void test_instance_names(void)
{
	static const char *const good[] = { "c1", "a", "Web-Server", "x--y", "c" X62 };
	static const char *const bad[] = {
		"",   "1c", "-c",  "c-",       "c_1",    "c.1", "c 1", "c/1",
		"..", ".",  "c\n", "\xc3\xa4", "xx" X62, "c1;", "$c",
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		accept(instance_name_parse, good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refuse(instance_name_parse, bad[i]);
}

static void test_snapshot_and_pool_names(void)
{
	static const char *const good[] = { "snap0", "0", "a.b", "a_b", "12:30", "a-", "x" X62 };
	static const char *const bad[] = {
		"", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "\xc3\xa4", "xx" X62, "a@b",
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		accept(snapshot_name_parse, good[i]);
		accept(pool_name_parse, good[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		refuse(snapshot_name_parse, bad[i]);
		refuse(pool_name_parse, bad[i]);
	}
}

static void test_fingerprints(void)
{
	accept(fingerprint_parse, F63 "d");
	refuse(fingerprint_parse, "");
	refuse(fingerprint_parse, F63);
	refuse(fingerprint_parse, F63 "dd");
	refuse(fingerprint_parse, F63 "D");
	refuse(fingerprint_parse, F63 "g");
}

static void test_aliases(void)
{
	static const char *const good[] = { "debian", "debian/12", "ubuntu:24.04", "a+b", "x@y" };
	static const char *const bad[] = { "", "-x", "a b", "a\n", "a'b" };
	struct coppice_error err = COPPICE_ERROR_INIT;
	char alias[256] = "untouched", too_long[300];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ok_code(alias_parse(bad[i], alias, &err), COPPICE_INVALID, &err);
	memset(too_long, 'a', sizeof(too_long));
	too_long[256] = '\0';
	ok_code(alias_parse(too_long, alias, &err), COPPICE_INVALID, &err);
	ok_str(alias, "untouched");
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		ok_call(alias_parse(good[i], alias, &err), &err);
		ok_str(alias, good[i]);
	}
}

static void test_instance_refs(void)
{
	static const char *const bad[] = { "",       "/",   "c1/",   "/s1",   "c1/s1/s2",
					   "c1//s1", "1/s", "c1/.s", "../c1", "c1/.." };
	struct coppice_error err = COPPICE_ERROR_INIT;
	char text[VOLUME_REF_TEXT_MAX];
	struct volume_ref ref = { 0 };

	ok_call(instance_ref_parse("c1", &ref, &err), &err);
	ok_int(ref.kind, ==, VOLUME_CONTAINER);
	ok_str(ref.name.text, "c1");
	ok(!volume_is_snapshot(&ref));
	ok_str(volume_ref_format(&ref, text), "c1");

	ok_call(instance_ref_parse("c1/before.1", &ref, &err), &err);
	ok_str(ref.name.text, "c1");
	ok_str(ref.snapshot.text, "before.1");
	ok(volume_is_snapshot(&ref));
	ok_str(volume_ref_format(&ref, text), "c1/before.1");

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (instance_ref_parse(bad[i], &ref, &err) != COPPICE_INVALID)
			tap_fail("'%s' is accepted", bad[i]);
		ok_str(ref.snapshot.text, "before.1");
	}
}

/* A name longer than any buffer, with and without a slash. */
static void test_refs_that_are_too_long(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct volume_ref ref = { 0 };
	char text[5000];

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	ok_code(instance_ref_parse(text, &ref, &err), COPPICE_INVALID, &err);
	text[4000] = '/';
	ok_code(instance_ref_parse(text, &ref, &err), COPPICE_INVALID, &err);
	text[1] = '/';
	ok_code(instance_ref_parse(text, &ref, &err), COPPICE_INVALID, &err);
	ok_str(ref.name.text, "");
}

static void test_names_found_in_a_pool(void)
{
	ok(volume_name_is_valid(VOLUME_CONTAINER, "c1"));
	ok(!volume_name_is_valid(VOLUME_CONTAINER, "1"));
	ok(!volume_name_is_valid(VOLUME_VIRTUAL_MACHINE, "lost+found"));
	ok(volume_name_is_valid(VOLUME_IMAGE, F63 "d"));
	ok(!volume_name_is_valid(VOLUME_IMAGE, "c1"));
	ok(volume_name_is_valid(VOLUME_CUSTOM, "data_1"));
	ok(!volume_name_is_valid(VOLUME_CUSTOM, "."));
	ok(!volume_name_is_valid(VOLUME_KINDS, "c1"));
}

static void test_kinds(void)
{
	enum volume_kind kind = VOLUME_KINDS;

	for (int i = 0; i < VOLUME_KINDS; i++) {
		ok(volume_kind_parse(volume_kind_name((enum volume_kind)i), &kind));
		ok_int(kind, ==, i);
	}
	ok_str(volume_kind_name(VOLUME_CONTAINER), "container");
	ok(!volume_kind_name(VOLUME_KINDS));
	ok(!volume_kind_parse("containers", &kind));
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_instance_names),
		TAP(test_snapshot_and_pool_names),
		TAP(test_fingerprints),
		TAP(test_aliases),
		TAP(test_instance_refs),
		TAP(test_refs_that_are_too_long),
		TAP(test_names_found_in_a_pool),
		TAP(test_kinds),
		TAP_END,
	});
}
