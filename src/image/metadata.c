/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader of libyaml's events for the one shape that metadata.yaml has:
 *
 *	architecture: x86_64
 *	creation_date: 1700000000
 *	properties:
 *	  description: Debian bookworm
 *	  os: Debian
 *	templates:
 *	  /etc/hostname: { when: [create], template: hostname.tpl }
 */
#include "image/metadata.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

enum {
	LENGTH_MAX = 1 << 20,
	DEPTH_MAX = 16,
	PROPERTIES_MAX = 4096
};

#define NS_PER_S 1000000000LL

struct reader {
	yaml_parser_t parser;
	yaml_event_t event; /* the current one; zeroed when there is none */
	int depth;
};

static int fail_line(const struct reader *reader, struct coppice_error *err, const char *why)
{
	return fail(err, COPPICE_INVALID, "metadata.yaml, line %zu: %s",
		    reader->event.start_mark.line + 1, why);
}

static int next(struct reader *reader, struct coppice_error *err)
{
	yaml_event_delete(&reader->event);
	memset(&reader->event, 0, sizeof(reader->event));
	if (!yaml_parser_parse(&reader->parser, &reader->event))
		return fail(err, COPPICE_INVALID, "metadata.yaml, line %zu: %s",
			    reader->parser.problem_mark.line + 1,
			    reader->parser.problem ? reader->parser.problem : "no YAML");
	switch ((int)reader->event.type) {
	case YAML_ALIAS_EVENT:
		return fail_line(reader, err, "aliases are not supported");
	case YAML_SCALAR_EVENT:
		if (reader->event.data.scalar.anchor)
			return fail_line(reader, err, "anchors are not supported");
		break;
	case YAML_MAPPING_START_EVENT:
	case YAML_SEQUENCE_START_EVENT:
		if (reader->event.type == YAML_MAPPING_START_EVENT
			    ? reader->event.data.mapping_start.anchor != NULL
			    : reader->event.data.sequence_start.anchor != NULL)
			return fail_line(reader, err, "anchors are not supported");
		if (++reader->depth > DEPTH_MAX)
			return fail_line(reader, err, "nested too deeply");
		break;
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		reader->depth--;
		break;
	default:
		break;
	}
	return COPPICE_OK;
}

static int expect(struct reader *reader, yaml_event_type_t type, const char *why,
		  struct coppice_error *err)
{
	if (next(reader, err) < 0)
		return err->code;
	return reader->event.type == type ? COPPICE_OK : fail_line(reader, err, why);
}

/* Copy the scalar that the current event is. One with a NUL in it is none of ours. */
static int scalar_dup(struct reader *reader, char **ret, struct coppice_error *err)
{
	const char *value;
	char *copy;

	if (reader->event.type != YAML_SCALAR_EVENT)
		return fail_line(reader, err, "a text is expected here");
	value = (const char *)reader->event.data.scalar.value;
	if (strlen(value) != reader->event.data.scalar.length)
		return fail_line(reader, err, "a text holds a zero byte");
	copy = strdup(value);
	if (!copy)
		return fail_memory(err);
	*ret = copy;
	return COPPICE_OK;
}

/* Pass over the value that comes next, with all that is in it. */
static int value_skip(struct reader *reader, struct coppice_error *err)
{
	int depth = reader->depth;

	do {
		if (next(reader, err) < 0)
			return err->code;
	} while (reader->depth > depth);
	return COPPICE_OK;
}

/* ---- properties ---- */

static void settings_free(struct coppice_settings *settings)
{
	for (size_t i = 0; i < settings->n; i++) {
		free((char *)(uintptr_t)settings->setting[i].key);
		free((char *)(uintptr_t)settings->setting[i].value);
	}
	free(settings->setting);
	*settings = (struct coppice_settings){ 0 };
}

static int property_add(struct reader *reader, struct coppice_settings *properties, char **key,
			char **value, struct coppice_error *err)
{
	struct coppice_setting *more;

	if (properties->n == PROPERTIES_MAX)
		return fail_line(reader, err, "too many properties");
	for (size_t i = 0; i < properties->n; i++) {
		if (strcmp(properties->setting[i].key, *key) == 0)
			return fail_line(reader, err, "a property is given twice");
	}
	more = reallocarray(properties->setting, properties->n + 1, sizeof(*more));
	if (!more)
		return fail_memory(err);
	properties->setting = more;
	more[properties->n].key = take_ptr(key);
	more[properties->n].value = take_ptr(value);
	properties->n++;
	return COPPICE_OK;
}

static int setting_compare(const void *a, const void *b)
{
	const struct coppice_setting *x = a, *y = b;

	return strcmp(x->key, y->key);
}

static int properties_parse(struct reader *reader, struct coppice_settings *ret,
			    struct coppice_error *err)
{
	if (ret->n > 0)
		return fail_line(reader, err, "properties are given twice");
	if (next(reader, err) < 0)
		return err->code;
	if (reader->event.type == YAML_SCALAR_EVENT && reader->event.data.scalar.length == 0)
		return COPPICE_OK; /* "properties:" and nothing */
	if (reader->event.type != YAML_MAPPING_START_EVENT)
		return fail_line(reader, err, "properties must be a map");
	for (;;) {
		_cleanup_(freep) char *key = NULL;
		_cleanup_(freep) char *value = NULL;

		if (next(reader, err) < 0)
			return err->code;
		if (reader->event.type == YAML_MAPPING_END_EVENT)
			break;
		if (scalar_dup(reader, &key, err) < 0 || next(reader, err) < 0 ||
		    scalar_dup(reader, &value, err) < 0 ||
		    property_add(reader, ret, &key, &value, err) < 0)
			return err->code;
	}
	if (ret->n > 0)
		qsort(ret->setting, ret->n, sizeof(ret->setting[0]), setting_compare);
	return COPPICE_OK;
}

/* ---- the document ---- */

static int architecture_parse(struct reader *reader, char **ret, struct coppice_error *err)
{
	if (*ret)
		return fail_line(reader, err, "architecture is given twice");
	if (next(reader, err) < 0)
		return err->code;
	return scalar_dup(reader, ret, err);
}

static int created_parse(struct reader *reader, int64_t *ret_ns, struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	char *end;
	long long seconds;

	if (next(reader, err) < 0 || scalar_dup(reader, &text, err) < 0)
		return err->code;
	errno = 0;
	seconds = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || seconds < 0 ||
	    seconds > INT64_MAX / NS_PER_S)
		return fail_line(reader, err, "creation_date is no number of seconds");
	*ret_ns = seconds * NS_PER_S;
	return COPPICE_OK;
}

static int key_parse(struct reader *reader, struct metadata *ret, struct coppice_error *err)
{
	const char *key = (const char *)reader->event.data.scalar.value;

	if (reader->event.type != YAML_SCALAR_EVENT)
		return fail_line(reader, err, "a key is expected here");
	if (strcmp(key, "architecture") == 0)
		return architecture_parse(reader, &ret->architecture, err);
	if (strcmp(key, "creation_date") == 0)
		return created_parse(reader, &ret->created_ns, err);
	if (strcmp(key, "properties") == 0)
		return properties_parse(reader, &ret->properties, err);
	return value_skip(reader, err);
}

static int document_parse(struct reader *reader, struct metadata *ret, struct coppice_error *err)
{
	if (expect(reader, YAML_STREAM_START_EVENT, "no YAML", err) < 0 ||
	    expect(reader, YAML_DOCUMENT_START_EVENT, "it is empty", err) < 0 ||
	    expect(reader, YAML_MAPPING_START_EVENT, "it must be a map", err) < 0)
		return err->code;
	for (;;) {
		if (next(reader, err) < 0)
			return err->code;
		if (reader->event.type == YAML_MAPPING_END_EVENT)
			break;
		if (key_parse(reader, ret, err) < 0)
			return err->code;
	}
	if (expect(reader, YAML_DOCUMENT_END_EVENT, "something follows the map", err) < 0 ||
	    expect(reader, YAML_STREAM_END_EVENT, "there is a second document", err) < 0)
		return err->code;
	if (!ret->architecture || ret->architecture[0] == '\0')
		return fail(err, COPPICE_INVALID, "metadata.yaml: it names no architecture");
	return COPPICE_OK;
}

int metadata_parse(const char *data, size_t length, struct metadata *ret, struct coppice_error *err)
{
	struct reader reader = { 0 };
	struct metadata metadata = { 0 };
	int r;

	if (length > LENGTH_MAX)
		return fail(err, COPPICE_INVALID, "metadata.yaml: larger than 1 MiB");
	if (!yaml_parser_initialize(&reader.parser))
		return fail_memory(err);
	yaml_parser_set_input_string(&reader.parser, (const unsigned char *)data, length);
	r = document_parse(&reader, &metadata, err);
	yaml_event_delete(&reader.event);
	yaml_parser_delete(&reader.parser);
	if (r < 0)
		metadata_done(&metadata);
	else
		*ret = metadata;
	return r;
}

void metadata_done(struct metadata *metadata)
{
	free(metadata->architecture);
	settings_free(&metadata->properties);
	*metadata = (struct metadata){ 0 };
}

const char *metadata_property(const struct coppice_settings *properties, const char *key)
{
	for (size_t i = 0; i < properties->n; i++) {
		if (strcmp(properties->setting[i].key, key) == 0)
			return properties->setting[i].value;
	}
	return NULL;
}
