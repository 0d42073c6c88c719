/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records as tags. LVM's tags are of letters, digits and _+.-/=!:&#, 1024 at most of them in
 * one, and a set: it keeps no order. So a record {"kind":"container","config":{"a":"b c"}} is
 *
 *	coppice.00.kind=container
 *	coppice.01.config:=&7B!a!:!b&20c!&7D
 *
 * each member in its place: a string after "=", anything else after ":=" as JSON. A quote is
 * "!", a comma "#", and what else there is no letter for "&" and two hexadecimal digits. What
 * is too long goes on in the next: coppice.02.+=… What is not the very text that this gives
 * back is kept as it is, with no key: coppice.00.:=…
 */
#include "driver/lvm/lvm.h"

#include <ctype.h>
#include <string.h>

#include "base/text.h"

#define TAG_VALUE_MAX 900 /* with what is before it less than 1024 */
#define CANONICAL     (JSON_COMPACT | JSON_ENSURE_ASCII)
#define RECORD_TAG    "coppice."

static bool is_plain(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("_+.-/=:", c));
}

static void escape(struct text *to, const char *value)
{
	for (const char *c = value; *c; c++) {
		if (is_plain(*c))
			text_add_bytes(to, c, 1);
		else if (*c == '"')
			text_add(to, "!");
		else if (*c == ',')
			text_add(to, "#");
		else
			text_add(to, "&%02X", (unsigned char)*c);
	}
}

static int hex_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* False: this is none of ours. */
static bool unescape(struct text *to, const char *value, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		size_t run = i;
		int high, low;
		char c;

		while (run < length && is_plain(value[run]))
			run++;
		text_add_bytes(to, value + i, run - i);
		i = run;
		if (i == length)
			break;
		c = value[i];
		if (c == '!')
			c = '"';
		else if (c == '#')
			c = ',';
		if (c == '&') {
			high = i + 2 < length ? hex_of(value[i + 1]) : -1;
			low = high < 0 ? -1 : hex_of(value[i + 2]);
			if (low < 0 || high + low == 0)
				return false;
			c = (char)(high << 4 | low);
			i += 2;
		} else if (value[i] != '!' && value[i] != '#') {
			return false;
		}
		text_add_bytes(to, &c, 1);
	}
	return true;
}

/* ---- to tags ---- */

struct writing {
	struct text text;
	const char *prefix;
	unsigned n;
};

/* One value, in as many tags as it takes; none ends within an escape. */
static void put(struct writing *writing, const char *key, const char *mark, const char *value)
{
	_cleanup_(text_done) struct text escaped = TEXT_INIT;
	_cleanup_(text_done) struct text name = TEXT_INIT;
	_cleanup_(freep) char *whole = NULL, *word = NULL;
	bool is_first = true;

	escape(&escaped, value);
	escape(&name, key);
	whole = text_take(&escaped);
	word = text_take(&name);
	if (!whole || !word) {
		writing->text.is_failed = true;
		return;
	}
	for (const char *at = whole; is_first || *at; is_first = false) {
		size_t length = strnlen(at, TAG_VALUE_MAX);

		for (size_t back = 1; at[length] && back <= 2; back++)
			if (at[length - back] == '&') {
				length -= back;
				break;
			}
		text_add(&writing->text, "%s" RECORD_TAG "%02u.%s%s%.*s", writing->prefix,
			 writing->n++, is_first ? word : "+", is_first ? mark : "=", (int)length,
			 at);
		at += length;
	}
}

static bool is_canonical(json_t *json, const char *record)
{
	char *again = json ? json_dumps(json, CANONICAL) : NULL;
	bool is_same = again && json_object_size(json) > 0 && strcmp(again, record) == 0;
	const char *key;
	json_t *value;

	free(again);
	/* These would be taken for something else. */
	json_object_foreach (json, key, value)
		is_same = is_same && key[0] && !strpbrk(key, "=:+");
	return is_same;
}

static void put_members(struct writing *writing, json_t *json)
{
	const char *key;
	json_t *value;

	json_object_foreach (json, key, value) {
		char *text = json_is_string(value) ? strdup(json_string_value(value))
						   : json_dumps(value, CANONICAL | JSON_ENCODE_ANY);

		if (text)
			put(writing, key, json_is_string(value) ? "=" : ":=", text);
		else
			writing->text.is_failed = true;
		free(text);
	}
}

char *tags_of_record(const char *record, const char *prefix, struct coppice_error *err)
{
	struct writing writing = { .text = TEXT_INIT, .prefix = prefix };
	json_t *json = json_loads(record, JSON_REJECT_DUPLICATES, NULL);
	char *tags;

	if (is_canonical(json, record))
		put_members(&writing, json);
	else
		put(&writing, "", ":=", record);
	json_decref(json);
	tags = text_take(&writing.text);
	if (!tags)
		(void)fail_memory(err);
	return tags;
}

/* Is this one of a list with @separator between them? */
static bool is_among(const char *list, char separator, const char *tag, size_t length)
{
	const char separators[] = { separator, '\0' };

	for (const char *at = list; *at;) {
		size_t n = strcspn(at, separators);

		if (n == length && strncmp(at, tag, n) == 0)
			return true;
		at += n + (at[n] == separator);
	}
	return false;
}

char *tags_change(const char *tags, const char *record, struct coppice_error *err)
{
	_cleanup_(freep) char *wanted = record ? tags_of_record(record, " ", err) : strdup("");
	_cleanup_(text_done) struct text options = TEXT_INIT;
	char *change;

	if (!wanted) {
		(void)fail_memory(err);
		return NULL;
	}
	for (const char *at = tags; *at;) {
		size_t length = strcspn(at, ",");

		if (tag_is_of_record(at, length) && !is_among(wanted, ' ', at, length))
			text_add(&options, " --deltag=%.*s", (int)length, at);
		at += length + (at[length] == ',');
	}
	for (const char *at = wanted; *at;) {
		size_t length = strcspn(at, " ");

		if (length > 0 && !is_among(tags, ',', at, length))
			text_add(&options, " --addtag=%.*s", (int)length, at);
		at += length + (at[length] == ' ');
	}
	change = text_take(&options);
	if (!change)
		(void)fail_memory(err);
	return change;
}

/* ---- and back ---- */

/* "coppice.07.": its number; -1: it is another. */
static int number_of(const char *tag, size_t length)
{
	size_t n = strlen(RECORD_TAG);

	if (length < n + 4 || strncmp(tag, RECORD_TAG, n) != 0 || !isdigit((unsigned char)tag[n]) ||
	    !isdigit((unsigned char)tag[n + 1]) || tag[n + 2] != '.')
		return -1;
	return (tag[n] - '0') * 10 + tag[n + 1] - '0';
}

bool tag_is_of_record(const char *tag, size_t length)
{
	return number_of(tag, length) >= 0;
}

struct reading {
	const char *tag[100];
	size_t length[100];
	int n;
	_Bool is_raw;
	struct text record; /* as far as it is put together */
};

static void collect(struct reading *reading, const char *tags)
{
	for (const char *at = tags; *at;) {
		size_t length = strcspn(at, ",");
		int number = number_of(at, length);

		if (number >= 0) {
			reading->tag[number] = at;
			reading->length[number] = length;
			reading->n = number >= reading->n ? number + 1 : reading->n;
		}
		at += length + (at[length] == ',');
	}
}

/* What follows "coppice.07." */
static const char *rest_of(const struct reading *reading, int i, size_t *ret_length)
{
	size_t skip = strlen(RECORD_TAG) + 3;

	*ret_length = reading->length[i] - skip;
	return reading->tag[i] + skip;
}

/* The value of number @i and of those that continue it; *ret_next: the one after. NULL: damaged. */
static char *value_of(const struct reading *reading, int i, size_t skip, int *ret_next)
{
	_cleanup_(text_done) struct text text = TEXT_INIT;
	size_t length;
	const char *rest = rest_of(reading, i, &length);
	bool is_good = unescape(&text, rest + skip, length - skip);

	for (i++; is_good && i < reading->n && reading->tag[i]; i++) {
		rest = rest_of(reading, i, &length);
		if (length < 2 || strncmp(rest, "+=", 2) != 0)
			break;
		is_good = unescape(&text, rest + 2, length - 2);
	}
	*ret_next = i;
	return is_good ? text_take(&text) : NULL;
}

/* As canonical JSON would have it; most need nothing done to them, and there are many. */
static bool add_json(struct text *to, const char *value, bool is_json)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "-_.:/+@ ";
	_cleanup_(freep) char *dumped = NULL;
	json_t *json;

	if (!is_json && value[strspn(value, plain)] == '\0') {
		text_add_bytes(to, "\"", 1);
		text_add_bytes(to, value, strlen(value));
		text_add_bytes(to, "\"", 1);
		return true;
	}
	if (is_json && value[0] && value[strspn(value, "0123456789")] == '\0' && value[0] != '0') {
		text_add_bytes(to, value, strlen(value));
		return true;
	}
	json = is_json ? json_loads(value, JSON_DECODE_ANY, NULL) : json_string(value);
	dumped = json ? json_dumps(json, CANONICAL | JSON_ENCODE_ANY) : NULL;
	json_decref(json);
	if (dumped)
		text_add_bytes(to, dumped, strlen(dumped));
	return dumped != NULL;
}

/* Take in the member that begins at number @i; the next, or -1: it is damaged. */
static int take_member(struct reading *reading, int i)
{
	_cleanup_(text_done) struct text name = TEXT_INIT;
	_cleanup_(freep) char *key = NULL, *value = NULL;
	size_t length, at;
	const char *rest;
	bool is_json;
	int next;

	if (!reading->tag[i])
		return -1;
	rest = rest_of(reading, i, &length);
	for (at = 0; at < length && rest[at] != '=' && rest[at] != ':'; at++)
		;
	/* It goes on with what is not there. */
	if (at == 1 && rest[0] == '+')
		return -1;
	is_json = at + 1 < length && rest[at] == ':' && rest[at + 1] == '=';
	if (at == length || (rest[at] == ':' && !is_json) || !unescape(&name, rest, at))
		return -1;
	key = text_take(&name);
	value = value_of(reading, i, at + 1 + is_json, &next);
	if (!key || !value)
		return -1;
	if (at == 0) {
		reading->is_raw = true;
		text_add(&reading->record, "%s", value);
		return i == 0 && next == reading->n ? next : -1;
	}
	text_add_bytes(&reading->record, i == 0 ? "{" : ",", 1);
	if (!add_json(&reading->record, key, false))
		return -1;
	text_add_bytes(&reading->record, ":", 1);
	return add_json(&reading->record, value, is_json) ? next : -1;
}

char *record_of_tags(const char *tags)
{
	struct reading reading = { .record = TEXT_INIT };
	char *record = NULL;
	int i = 0;

	collect(&reading, tags);
	while (i >= 0 && i < reading.n)
		i = take_member(&reading, i);
	if (i > 0 && !reading.is_raw)
		text_add(&reading.record, "}");
	if (i > 0)
		record = text_take(&reading.record);
	text_done(&reading.record);
	return record;
}

bool tag_get(const char *tags, const char *key, char *ret, size_t size)
{
	size_t n = strlen(key);

	for (const char *at = tags; *at;) {
		size_t length = strcspn(at, ",");

		if (length > n && length - n <= size && strncmp(at, key, n) == 0 && at[n] == '=') {
			(void)snprintf(ret, size, "%.*s", (int)(length - n - 1), at + n + 1);
			return true;
		}
		at += length + (at[length] == ',');
	}
	return false;
}
