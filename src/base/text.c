/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

void text_done(struct text *text)
{
	free(text->data);
	*text = (struct text)TEXT_INIT;
}

static bool text_reserve(struct text *text, size_t more)
{
	size_t wanted = text->length + more + 1;
	char *data;

	if (text->is_failed)
		return false;
	if (wanted <= text->capacity)
		return true;
	if (wanted < 2 * text->capacity)
		wanted = 2 * text->capacity;
	data = realloc(text->data, wanted);
	if (!data) {
		text->is_failed = true;
		return false;
	}
	text->data = data;
	text->capacity = wanted;
	return true;
}

void text_add_bytes(struct text *text, const char *data, size_t length)
{
	if (!text_reserve(text, length))
		return;
	memcpy(text->data + text->length, data, length);
	text->length += length;
	text->data[text->length] = '\0';
}

void text_add(struct text *text, const char *fmt, ...)
{
	_cleanup_(freep) char *more = NULL;
	va_list args;
	int n;

	va_start(args, fmt);
	n = vasprintf(&more, fmt, args);
	va_end(args);
	if (n < 0) {
		more = NULL;
		text->is_failed = true;
		return;
	}
	text_add_bytes(text, more, (size_t)n);
}

char *text_take(struct text *text)
{
	char *data;

	text_add_bytes(text, "", 0);
	data = text->is_failed ? NULL : take_ptr(&text->data);
	text_done(text);
	return data;
}

char *text_format(const char *fmt, ...)
{
	va_list args;
	char *s;
	int n;

	va_start(args, fmt);
	n = vasprintf(&s, fmt, args);
	va_end(args);
	return n < 0 ? NULL : s;
}

/*
 * How many bytes at @at are a control: of ASCII 1; of UTF-8 2 (U+0080 to U+009F), or 2 or 3 of
 * what ends lines or turns their direction (U+061C; U+200E, U+200F, U+2028 to U+202E, U+2066 to
 * U+2069); else 0.
 */
static size_t control_length(const unsigned char *at)
{
	if (at[0] < 0x20 || at[0] == 0x7f)
		return at[0] != '\0';
	if (at[0] == 0xc2)
		return at[1] >= 0x80 && at[1] < 0xa0 ? 2 : 0;
	if (at[0] == 0xd8)
		return at[1] == 0x9c ? 2 : 0;
	if (at[0] != 0xe2 || (at[1] != 0x80 && at[1] != 0x81))
		return 0;
	if (at[1] == 0x81)
		return at[2] >= 0xa6 && at[2] <= 0xa9 ? 3 : 0;
	return at[2] == 0x8e || at[2] == 0x8f || (at[2] >= 0xa8 && at[2] <= 0xae) ? 3 : 0;
}

static bool has_control(const char *s)
{
	for (; *s; s++)
		if (control_length((const unsigned char *)s) > 0)
			return true;
	return false;
}

/* $'a\012b': bash alone knows it. */
static char *quote_controls(const char *s)
{
	struct text text = TEXT_INIT;

	text_add(&text, "$'");
	while (*s) {
		size_t n = control_length((const unsigned char *)s);

		if (n == 0) {
			text_add(&text, *s == '\'' || *s == '\\' ? "\\%c" : "%c", *s);
			s++;
		}
		for (; n > 0; n--, s++)
			text_add(&text, "\\%03o", (unsigned char)*s);
	}
	text_add(&text, "'");
	return text_take(&text);
}

char *text_shell_quote(const char *s)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-+=.,:/@%";
	struct text text = TEXT_INIT;

	if (*s && s[strspn(s, plain)] == '\0')
		return strdup(s);
	if (has_control(s))
		return quote_controls(s);
	text_add(&text, "'");
	for (; *s; s++) {
		if (*s == '\'')
			text_add(&text, "'\\''");
		else
			text_add_bytes(&text, s, 1);
	}
	text_add(&text, "'");
	return text_take(&text);
}

/* How many bytes the character at @at has; 0: it is none, or is cut short. */
static size_t utf8_length(const unsigned char *at)
{
	static const struct {
		unsigned char mask, bits;
		uint32_t least; /* smaller ones are to be written shorter */
	} lengths[] = { { 0x80, 0x00, 0 },
			{ 0xe0, 0xc0, 0x80 },
			{ 0xf0, 0xe0, 0x800 },
			{ 0xf8, 0xf0, 0x10000 } };

	for (size_t n = 0; n < ARRAY_SIZE(lengths); n++) {
		uint32_t value = at[0] & (unsigned char)~lengths[n].mask;

		if ((at[0] & lengths[n].mask) != lengths[n].bits)
			continue;
		for (size_t i = 1; i <= n; i++) {
			if ((at[i] & 0xc0) != 0x80)
				return 0;
			value = value << 6 | (at[i] & 0x3f);
		}
		if (value < lengths[n].least || value > 0x10ffff ||
		    (value >= 0xd800 && value < 0xe000))
			return 0;
		return n + 1;
	}
	return 0;
}

bool text_is_utf8(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;

	while (*at) {
		size_t n = utf8_length(at);

		if (n == 0)
			return false;
		at += n;
	}
	return true;
}

void coppice_text_make_printable(char *text)
{
	for (char *at = text; *at; at++)
		for (size_t n = control_length((unsigned char *)at); n > 0; n--)
			at[n - 1] = '?';
}

static const struct {
	const char *suffix;
	uint64_t factor;
} size_units[] = {
	{ "", 1 },
	{ "B", 1 },
	{ "kB", 1000ULL },
	{ "KB", 1000ULL },
	{ "MB", 1000000ULL },
	{ "GB", 1000000000ULL },
	{ "TB", 1000000000000ULL },
	{ "PB", 1000000000000000ULL },
	{ "KiB", 1ULL << 10 },
	{ "MiB", 1ULL << 20 },
	{ "GiB", 1ULL << 30 },
	{ "TiB", 1ULL << 40 },
	{ "PiB", 1ULL << 50 },
};

bool size_parse(const char *s, uint64_t *ret_bytes)
{
	uint64_t number = 0;
	size_t i = 0;

	if (!isdigit((unsigned char)s[0]))
		return false;
	for (; isdigit((unsigned char)s[i]); i++)
		if (__builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, (uint64_t)(s[i] - '0'), &number))
			return false;
	for (size_t u = 0; u < ARRAY_SIZE(size_units); u++) {
		if (strcmp(s + i, size_units[u].suffix) != 0)
			continue;
		if (__builtin_mul_overflow(number, size_units[u].factor, &number) ||
		    number > INT64_MAX)
			return false;
		*ret_bytes = number;
		return true;
	}
	return false;
}

void size_format(uint64_t bytes, char ret[static SIZE_TEXT_MAX])
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes / 1024;
	size_t u = 0;

	if (bytes < 1024) {
		(void)snprintf(ret, SIZE_TEXT_MAX, "%uB", (unsigned)bytes);
		return;
	}
	for (; value >= 1024 && u + 1 < ARRAY_SIZE(units); u++)
		value /= 1024;
	(void)snprintf(ret, SIZE_TEXT_MAX, "%.2f%s", value, units[u]);
}

int natural_compare(const char *a, const char *b)
{
	const char *start_a = a, *start_b = b;

	while (*a && *b) {
		if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
			size_t na, nb;
			int order;

			a += strspn(a, "0");
			b += strspn(b, "0");
			na = strspn(a, "0123456789");
			nb = strspn(b, "0123456789");
			if (na != nb)
				return na < nb ? -1 : 1;
			order = strncmp(a, b, na);
			if (order != 0)
				return order;
			a += na;
			b += nb;
			continue;
		}
		if (*a != *b)
			return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
		a++;
		b++;
	}
	if (*a || *b)
		return *a ? 1 : -1;
	return strcmp(start_a, start_b); /* c01 and c1 differ, and keep an order */
}

bool text_is_one_of(const char *value, const char *values)
{
	size_t n = strlen(value);

	if (strchr(value, '|'))
		return false;
	for (const char *v = values; v; v = strchr(v, '|') ? strchr(v, '|') + 1 : NULL)
		if (strncmp(v, value, n) == 0 && (v[n] == '\0' || v[n] == '|'))
			return n > 0;
	return false;
}
