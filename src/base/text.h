/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Strings that grow, and values to text and back. */

#include "base/error.h"

/* A string that grows. Out of memory is remembered, and seen by text_take(). */
struct text {
	char *data; /* NUL-terminated once anything was added; owned */
	size_t length;
	size_t capacity;
	bool is_failed;
};

/* clang-format off */
#define TEXT_INIT { NULL, 0, 0, false }
/* clang-format on */

_nonnull_ void text_done(struct text *text);
_nonnull_ _printf_(2, 3) void text_add(struct text *text, const char *fmt, ...);
_nonnull_ void text_add_bytes(struct text *text, const char *data, size_t length);

/* Hand over what was built, "" for nothing; NULL if memory ran out. Resets @text. */
_nonnull_ char *text_take(struct text *text);

/* The same as asprintf, with a result that cannot be used by mistake. NULL: no memory. */
_printf_(1, 2) _must_check_ char *text_format(const char *fmt, ...);

/*
 * Quote for bash: 'it'\''s', and what a terminal would obey as in $'\033'. Left as it is when it
 * needs no quotes.
 * Returns NULL when out of memory; free() the result.
 */
_nonnull_ _must_check_ char *text_shell_quote(const char *s);

/* JSON, and so whatever Coppice writes down, can hold nothing else. */
_nonnull_ bool text_is_utf8(const char *text);

/* Is @value one of @values, as "one|two|three"? */
_nonnull_ bool text_is_one_of(const char *value, const char *values);

/*
 * Parse a size as LXD writes it: 10GiB, 512MiB, 1TB, 4096, 10kB, 1.5GiB is refused.
 * Returns false unless the whole of @s is one; at most INT64_MAX.
 */
_nonnull_ bool size_parse(const char *s, uint64_t *ret_bytes);

/* "434.1MiB", as LXD shows sizes; "512B" below one KiB. */
#define SIZE_TEXT_MAX 32
_nonnull_ void size_format(uint64_t bytes, char ret[static SIZE_TEXT_MAX]);

/* Compare names as people sort them: digits by their value, c2 before c10. */
_nonnull_ int natural_compare(const char *a, const char *b);
