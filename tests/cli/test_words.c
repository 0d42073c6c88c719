/* SPDX-License-Identifier: Apache-2.0 */

/* What the command does by itself: names, settings, sizes, tables, JSON and YAML. */

#include <locale.h>
#include <string.h>

#include "cli/doc.h"
#include "cli/run.h"
#include "cli/sheet.h"
#include "tap.h"

/* ---- names ---- */

/* Expand words, and join what came of it: "a b c". */
static void expand(const char *word, const char *other, char *ret, size_t size)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct request request = { 0 };
	size_t length = 0;

	ok_int(words_add(&request.words, word, &err), ==, COPPICE_OK);
	if (other)
		ok_int(words_add(&request.words, other, &err), ==, COPPICE_OK);
	ret[0] = '\0';
	if (names_expand(&request, 0, &err) < 0)
		(void)snprintf(ret, size, "%d: %s", err.code, err.message);
	else
		for (size_t i = 0; i < request.n_names; i++)
			length += (size_t)snprintf(ret + length, size - length, "%s%s",
						   i ? " " : "", request.names[i]);
	request_done(&request);
}

#define ok_expands(word, other, want)                                                              \
	do {                                                                                       \
		char got[1024];                                                                    \
		expand(word, other, got, sizeof(got));                                             \
		ok_str(got, want);                                                                 \
	} while (0)

static void test_ranges(void)
{
	ok_expands("c{1..3}", NULL, "c1 c2 c3");
	ok_expands("c{08..11}", NULL, "c08 c09 c10 c11");
	ok_expands("c{1..03}", NULL, "c01 c02 c03");
	ok_expands("c{3..1}", NULL, "c3 c2 c1");
	ok_expands("c{0..0}", NULL, "c0");
	ok_expands("web{a,b}-{1..2}", NULL, "weba-1 weba-2 webb-1 webb-2");
	ok_expands("c{1..2}/snap{0,1}", NULL, "c1/snap0 c1/snap1 c2/snap0 c2/snap1");
	ok_expands("x{,y}", NULL, "x xy");
}

/* What is no range stays as it is: the library will say what is wrong with it. */
static void test_no_ranges(void)
{
	ok_expands("c{1..}", NULL, "c{1..}");
	ok_expands("c{a..c}", NULL, "c{a..c}");
	ok_expands("c{1..2", NULL, "c{1..2");
	ok_expands("c{}", NULL, "c{}");
	ok_expands("c{-1..2}", NULL, "c{-1..2}");
	ok_expands("c{1...2}", NULL, "c{1...2}");
	ok_expands("c{1..9999999999999999999}", NULL, "c{1..9999999999999999999}");
	ok_expands("", NULL, "");
}

static void test_twice(void)
{
	ok_expands("a", "a", "-2: 'a' is named twice");
	ok_expands("c{1..3}", "c2", "-2: 'c2' is named twice");
	ok_expands("c{1,1}", NULL, "-2: 'c1' is named twice");
}

static void test_too_many(void)
{
	ok_expands("c{1..100001}", NULL, "-2: more than 100000 names");
	ok_expands("c{1..999999999}", NULL, "-2: more than 100000 names");
	ok_expands("c{1..100000000000000000}", NULL, "-2: more than 100000 names");
	ok_expands("{1..1000}{1..1000}", NULL, "-2: more than 100000 names");
}

/* ---- sizes and times ---- */

static void test_sizes(void)
{
	uint64_t bytes = 0;
	char text[SIZE_TEXT_MAX];

	ok(size_parse("256MiB", &bytes) && bytes == 256 << 20);
	ok(size_parse("10kB", &bytes) && bytes == 10000);
	ok(size_parse("0", &bytes) && bytes == 0);
	ok(!size_parse("", &bytes));
	ok(!size_parse("1.5GiB", &bytes));
	ok(!size_parse("-1", &bytes));
	ok(!size_parse("10 MiB", &bytes));
	ok(!size_parse("99999999999999999999", &bytes));
	ok(!size_parse("9223372036854775808", &bytes));
	ok(!size_parse("16777216TiB", &bytes));
	size_text(455195000, text);
	ok_str(text, "434.11MiB");
	size_text(1023, text);
	ok_str(text, "1023B");
}

static void test_times(void)
{
	char text[TIME_TEXT_MAX];

	time_text(1700000000123456789, text);
	ok_str(text, "2023-11-14T22:13:20Z");
	time_text(0, text);
	ok_str(text, "unknown");
	time_text(INT64_MAX, text);
	ok_str(text, "2262-04-11T23:47:16Z");
}

/* ---- nearest words ---- */

static void test_nearest(void)
{
	ok_int(text_distance("list", "lst"), ==, 1);
	ok_int(text_distance("", "abc"), ==, 3);
	ok_str(help_nearest_command("inti"), "init");
	ok_str(help_nearest_command("storage lits"), "storage list");
	ok(!help_nearest_command("xyzzy"));
	ok(!help_nearest_command("x"));
}

static void test_table_of_commands(void)
{
	for (const struct command *c = commands; c->name; c++) {
		if (!c->run)
			continue;
		ok(c->summary && c->usage && c->example);
		ok(c->min_words <= c->max_words);
		ok_str(command_find(c->name)->name, c->name);
	}
}

/* ---- documents ---- */

typedef void write_fn(struct doc *doc);

static char *document(enum format format, write_fn *write)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	struct doc doc = doc_start(out, format);

	write(&doc);
	(void)fclose(out);
	return text;
}

static void write_strings(struct doc *doc)
{
	static const char *const strings[] = {
		"plain",
		"true",
		"No",
		"12",
		"",
		"a b",
		"a: b",
		"#",
		"\"\\",
		"\n\x01",
		"\xff\xfe",
		"\xc0\xaf",
		"\xed\xa0\x80",
		"ü€\U0001F333",
		"\xe2\x82",
	};

	doc_array(doc, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
		doc_text(doc, NULL, strings[i]);
	doc_text(doc, NULL, NULL);
	doc_end(doc);
}

static void write_controls(struct doc *doc)
{
	doc_object(doc, NULL);
	/* CSI for a terminal, the end of a line for YAML, and what is no character */
	doc_text(doc, "a",
		 "\xc2\x9b"
		 "2J\x7f\xc2\x85\xc2\xa0");
	doc_text(doc, "b", "\xe2\x80\xa8\xe2\x80\xa9\xef\xbb\xbf\xef\xbf\xbe\xef\xbf\xbf");
	doc_end(doc);
}

static void test_controls_beyond_ascii_are_escaped(void)
{
	char *json = document(FORMAT_JSON, write_controls);
	char *yaml = document(FORMAT_YAML, write_controls);

	ok_str(json, "{\n  \"a\": \"\\u009b2J\\u007f\\u0085\xc2\xa0\",\n"
		     "  \"b\": \"\\u2028\\u2029\\ufeff\\ufffe\\uffff\"\n}\n");
	ok_str(yaml, "a: \"\\u009b2J\\u007f\\u0085\xc2\xa0\"\n"
		     "b: \"\\u2028\\u2029\\ufeff\\ufffe\\uffff\"\n");
	free(json);
	free(yaml);
}

static void test_strings(void)
{
	char *json = document(FORMAT_JSON, write_strings);
	char *yaml = document(FORMAT_YAML, write_strings);

	ok_str(json, "[\n  \"plain\",\n  \"true\",\n  \"No\",\n  \"12\",\n  \"\",\n  \"a b\",\n"
		     "  \"a: b\",\n  \"#\",\n  \"\\\"\\\\\",\n  \"\\u000a\\u0001\",\n"
		     "  \"\\ufffd\\ufffd\",\n  \"\\ufffd\\ufffd\",\n"
		     "  \"\\ufffd\\ufffd\\ufffd\",\n  \"ü€\U0001F333\",\n"
		     "  \"\\ufffd\\ufffd\",\n  null\n]\n");
	ok_str(yaml, "- plain\n- \"true\"\n- \"No\"\n- \"12\"\n- \"\"\n- \"a b\"\n- \"a: b\"\n"
		     "- \"#\"\n- \"\\\"\\\\\"\n- \"\\u000a\\u0001\"\n- \"\\ufffd\\ufffd\"\n"
		     "- \"\\ufffd\\ufffd\"\n- \"\\ufffd\\ufffd\\ufffd\"\n- \"ü€\U0001F333\"\n"
		     "- \"\\ufffd\\ufffd\"\n- null\n");
	free(json);
	free(yaml);
}

static void write_nested(struct doc *doc)
{
	doc_array(doc, NULL);
	doc_object(doc, NULL);
	doc_bytes(doc, "a", (struct coppice_bytes){ COPPICE_AT_MOST, 5 });
	doc_array(doc, "b");
	doc_end(doc);
	doc_object(doc, "c");
	doc_end(doc);
	doc_end(doc);
	doc_object(doc, NULL);
	doc_array(doc, "d");
	doc_object(doc, NULL);
	doc_bool(doc, "e", true);
	doc_number(doc, "f", UINT64_MAX);
	doc_end(doc);
	doc_end(doc);
	doc_end(doc);
	doc_end(doc);
}

static void test_nested(void)
{
	char *json = document(FORMAT_JSON, write_nested);
	char *yaml = document(FORMAT_YAML, write_nested);

	ok_str(json, "[\n  {\n    \"a\": {\n      \"at_most\": 5\n    },\n    \"b\": [],\n"
		     "    \"c\": {}\n  },\n  {\n    \"d\": [\n      {\n        \"e\": true,\n"
		     "        \"f\": 18446744073709551615\n      }\n    ]\n  }\n]\n");
	ok_str(yaml, "- a:\n    at_most: 5\n  b: []\n  c: {}\n- d:\n    - e: true\n"
		     "      f: 18446744073709551615\n");
	free(json);
	free(yaml);
}

/* ---- tables ---- */

static const struct column columns[] = {
	{ "NAME", false },
	{ "WRITTEN", true },
	{ "KIND", false },
	{ "LAST", false },
};
static const struct column columns_right[] = { { "NAME", false }, { "WRITTEN", true } };

static char *table(const struct column *column, size_t n_columns, size_t n_rows, bool has_heading,
		   int (*print)(const struct sheet *sheet, struct coppice_error *err))
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	struct sheet sheet = sheet_start(out, FORMAT_TABLE, column, n_columns);
	unsigned random = 1;

	sheet.has_heading = has_heading;
	for (size_t i = 0; i < n_rows * n_columns; i++) {
		char cell[32] = "";

		random = random * 1103515245 + 12345;
		if ((random >> 16) % 5)
			(void)snprintf(cell, sizeof(cell), "%s%.*s", (random >> 16) % 3 ? "" : "≤",
				       (int)((random >> 18) % 12), "x-y z/(1234)");
		sheet_text(&sheet, cell);
	}
	ok_int(print(&sheet, &err), ==, COPPICE_OK);
	(void)fclose(out);
	sheet_done(&sheet);
	return text;
}

/* The quick way for many rows prints what libsmartcols prints. */
static void test_tables_alike(void)
{
	(void)setlocale(LC_CTYPE, "C.UTF-8");
	for (size_t n = 1; n < 300; n += 7) {
		for (int i = 0; i < 4; i++) {
			const struct column *column = i & 1 ? columns : columns_right;
			size_t n_columns = i & 1 ? ARRAY_SIZE(columns) : ARRAY_SIZE(columns_right);
			char *a = table(column, n_columns, n, i & 2, sheet_print_smartcols);
			char *b = table(column, n_columns, n, i & 2, sheet_print_plain);

			ok_str(a, b);
			free(a);
			free(b);
		}
	}
}

static void test_csv(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	struct sheet sheet = sheet_start(out, FORMAT_CSV, columns, ARRAY_SIZE(columns));

	sheet_text(&sheet, "a,b");
	sheet_bytes(&sheet, (struct coppice_bytes){ COPPICE_AT_MOST, 4096 });
	sheet_text(&sheet, "say \"x\"");
	sheet_text(&sheet, "two\nlines");
	sheet_text(&sheet, NULL);
	sheet_bytes(&sheet, (struct coppice_bytes){ COPPICE_UNKNOWN, 0 });
	sheet_time(&sheet, 0);
	sheet_number(&sheet, 7);
	ok_int(sheet_end(&sheet, &err), ==, COPPICE_OK);
	(void)fclose(out);
	ok_str(text, "\"a,b\",≤4096,\"say \"\"x\"\"\",\"two\nlines\"\n,unknown,unknown,7\n");
	sheet_done(&sheet);
	free(text);
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_ranges),
		TAP(test_no_ranges),
		TAP(test_twice),
		TAP(test_too_many),
		TAP(test_sizes),
		TAP(test_times),
		TAP(test_nearest),
		TAP(test_table_of_commands),
		TAP(test_strings),
		TAP(test_controls_beyond_ascii_are_escaped),
		TAP(test_nested),
		TAP(test_tables_alike),
		TAP(test_csv),
		TAP_END,
	});
}
