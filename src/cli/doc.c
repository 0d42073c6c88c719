/* SPDX-License-Identifier: Apache-2.0 */

/* JSON and YAML, written as it comes. See doc.h. */

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "cli/doc.h"

struct doc doc_start(FILE *out, enum format format)
{
	return (struct doc){ .out = out, .is_yaml = format == FORMAT_YAML };
}

static void put(struct doc *doc, const char *text)
{
	(void)fputs_unlocked(text, doc->out);
}

static void put_indent(struct doc *doc, unsigned n)
{
	while (n-- > 0)
		(void)putc_unlocked(' ', doc->out);
}

/* ---- strings ---- */

/* How long is the UTF-8 character at @s? 0: it is none. */
static size_t utf8_length(const unsigned char *s)
{
	size_t n = s[0] < 0x80                   ? 1
		   : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
		   : (s[0] & 0xf0) == 0xe0       ? 3
		   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
						 : 0;

	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* Too long, a surrogate, or above U+10FFFF */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))
		return 0;
	return n;
}

/* How much of @s stands for itself? Most strings are nothing else, so they go out in one. */
static size_t ascii_length(const unsigned char *s)
{
	size_t n = 0;

	while (s[n] >= ' ' && s[n] < 0x7f && s[n] != '"' && s[n] != '\\')
		n++;
	return n;
}

/* The UTF-8 character of @n bytes at @s. */
static unsigned code_point(const unsigned char *s, size_t n)
{
	static const unsigned char mask[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	unsigned code = s[0] & mask[n];

	for (size_t i = 1; i < n; i++)
		code = code << 6 | (s[i] & 0x3f);
	return code;
}

/*
 * Terminals obey controls, and YAML has neither those nor what is no character, and takes some
 * for the end of a line (YAML 1.2.2, 5.1; 1.1, 5.4).
 */
static bool needs_escape(unsigned code)
{
	return code < 0x20 || (code >= 0x7f && code <= 0x9f) || code == 0x2028 || code == 0x2029 ||
	       code == 0xfeff || code == 0xfffe || code == 0xffff;
}

/* A JSON string, which is a YAML string too. What is not UTF-8 becomes U+FFFD. */
static void put_quoted(struct doc *doc, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	(void)putc_unlocked('"', doc->out);
	while (*s) {
		size_t plain = ascii_length(s), n = plain ? plain : utf8_length(s);

		if (n == 0) {
			put(doc, "\\ufffd");
			n = 1;
		} else if (plain) {
			(void)fwrite_unlocked(s, 1, n, doc->out);
		} else if (*s == '"' || *s == '\\') {
			(void)fprintf(doc->out, "\\%c", *s);
		} else if (needs_escape(code_point(s, n))) {
			(void)fprintf(doc->out, "\\u%04x", code_point(s, n));
		} else {
			(void)fwrite_unlocked(s, 1, n, doc->out);
		}
		s += n;
	}
	(void)putc_unlocked('"', doc->out);
}

/*
 * May it stand in YAML without quotes? Only what no reader, however old, takes
 * for anything but a string: letters first, and no word with a meaning.
 */
static bool is_plain(const char *text)
{
	static const char *const meanings[] = { "true", "false", "null", "yes", "no",
						"on",   "off",   "y",    "n" };

	if (!isalpha((unsigned char)text[0]) || !isascii(text[0]))
		return false;
	for (const char *at = text; *at; at++)
		if (!isascii(*at) || (!isalnum((unsigned char)*at) && !strchr("_./-", *at)))
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(meanings); i++)
		if (strcasecmp(text, meanings[i]) == 0)
			return false;
	return true;
}

static void put_string(struct doc *doc, const char *text)
{
	if (doc->is_yaml && is_plain(text))
		put(doc, text);
	else
		put_quoted(doc, text);
}

/* ---- layout ---- */

static void begin_json(struct doc *doc, const char *key)
{
	if (doc->depth == 0)
		return;
	put(doc, doc->level[doc->depth - 1].n > 0 ? ",\n" : "\n");
	put_indent(doc, (unsigned)doc->depth * 2);
	if (!key)
		return;
	put_quoted(doc, key);
	put(doc, ": ");
}

static void begin_yaml(struct doc *doc, const char *key)
{
	size_t top = doc->depth - 1;

	if (doc->depth == 0)
		return;
	/* The first of what stands behind a key goes on a line of its own … */
	if (doc->level[top].n == 0 && top > 0 && !doc->level[top].is_item)
		put(doc, "\n");
	/* … and the first key of an item behind its dash. */
	if (doc->level[top].n > 0 || !doc->level[top].is_item)
		put_indent(doc, doc->level[top].indent);
	if (!key) {
		put(doc, "- ");
		return;
	}
	put_string(doc, key);
	put(doc, ":");
}

/* What comes before every value. */
static void begin(struct doc *doc, const char *key)
{
	if (doc->is_yaml)
		begin_yaml(doc, key);
	else
		begin_json(doc, key);
	if (doc->depth > 0)
		doc->level[doc->depth - 1].n++;
}

static void begin_scalar(struct doc *doc, const char *key)
{
	begin(doc, key);
	if (doc->is_yaml && key)
		put(doc, " ");
}

static void end_scalar(struct doc *doc)
{
	if (doc->is_yaml || doc->depth == 0)
		put(doc, "\n");
}

static void open_level(struct doc *doc, const char *key, bool is_array)
{
	unsigned indent = doc->depth > 0 ? doc->level[doc->depth - 1].indent + 2 : 0;

	if (doc->depth == DOC_DEPTH_MAX)
		abort(); /* no document of ours is that deep */
	begin(doc, key);
	doc->level[doc->depth].is_array = is_array;
	doc->level[doc->depth].is_item = doc->depth > 0 && !key;
	doc->level[doc->depth].n = 0;
	doc->level[doc->depth].indent = indent;
	doc->depth++;
	if (!doc->is_yaml)
		put(doc, is_array ? "[" : "{");
}

void doc_object(struct doc *doc, const char *key)
{
	open_level(doc, key, false);
}

void doc_array(struct doc *doc, const char *key)
{
	open_level(doc, key, true);
}

static void end_json(struct doc *doc, bool is_array, size_t n)
{
	if (n > 0) {
		put(doc, "\n");
		put_indent(doc, (unsigned)doc->depth * 2);
	}
	put(doc, is_array ? "]" : "}");
	if (doc->depth == 0)
		put(doc, "\n");
}

void doc_end(struct doc *doc)
{
	size_t top = --doc->depth;

	if (!doc->is_yaml) {
		end_json(doc, doc->level[top].is_array, doc->level[top].n);
		return;
	}
	if (doc->level[top].n > 0)
		return;
	if (top > 0 && !doc->level[top].is_item)
		put(doc, " ");
	put(doc, doc->level[top].is_array ? "[]\n" : "{}\n");
}

/* ---- values ---- */

void doc_text(struct doc *doc, const char *key, const char *value)
{
	begin_scalar(doc, key);
	if (value)
		put_string(doc, value);
	else
		put(doc, "null");
	end_scalar(doc);
}

void doc_number(struct doc *doc, const char *key, uint64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRIu64, value);
	begin_scalar(doc, key);
	put(doc, text);
	end_scalar(doc);
}

void doc_bool(struct doc *doc, const char *key, bool value)
{
	begin_scalar(doc, key);
	put(doc, value ? "true" : "false");
	end_scalar(doc);
}

void doc_time(struct doc *doc, const char *key, int64_t ns)
{
	char text[TIME_TEXT_MAX];

	time_text(ns, text);
	doc_text(doc, key, ns > 0 ? text : NULL);
}

void doc_bytes(struct doc *doc, const char *key, struct coppice_bytes value)
{
	switch (value.known) {
	case COPPICE_EXACT:
		doc_number(doc, key, value.bytes);
		return;
	case COPPICE_AT_MOST:
		doc_object(doc, key);
		doc_number(doc, "at_most", value.bytes);
		doc_end(doc);
		return;
	case COPPICE_UNKNOWN:
		doc_text(doc, key, NULL);
		return;
	}
}

void doc_settings(struct doc *doc, const char *key, const struct coppice_settings *settings)
{
	doc_object(doc, key);
	for (size_t i = 0; i < settings->n; i++)
		doc_text(doc, settings->setting[i].key, settings->setting[i].value);
	doc_end(doc);
}
