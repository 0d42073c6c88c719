/* SPDX-License-Identifier: Apache-2.0 */
#include "core/record.h"

#include <string.h>

#include "base/text.h"

#define VERSION     1
#define LINEAGE_MAX 24 /* older ones are forgotten, see record_lineage_is_cut() */

/* Stand in for what only bash will know. */
#define UUID_STAND_IN "00000000-0000-0000-0000-000000000000"
#define TIME_STAND_IN -1

void image_record_done(struct image_record *record)
{
	free(record->description);
	free(record->architecture);
	free(record->file_name);
	for (size_t i = 0; i < record->n_aliases; i++)
		free(record->alias[i]);
	free(record->alias);
	settings_done(&record->properties);
	*record = (struct image_record){ 0 };
}

void record_done(struct record *record)
{
	free(record->image_name);
	for (size_t i = 0; i < record->n_lineage; i++)
		free(record->lineage[i].name);
	free(record->lineage);
	settings_done(&record->config);
	image_record_done(&record->of_image);
	*record = (struct record){ 0 };
}

/* ---- lineage and aliases ---- */

int record_add_ancestor(struct record *record, const struct ancestor *ancestor,
			struct coppice_error *err)
{
	struct ancestor *more;
	char *name = strdup(ancestor->name);

	if (!name)
		return fail_memory(err);
	more = reallocarray(record->lineage, record->n_lineage + 1, sizeof(*more));
	if (!more) {
		free(name);
		return fail_memory(err);
	}
	record->lineage = more;
	more[record->n_lineage] = *ancestor;
	more[record->n_lineage++].name = name;
	return COPPICE_OK;
}

bool record_lineage_is_cut(const struct record *record)
{
	return record->n_lineage >= LINEAGE_MAX;
}

int record_copy_lineage(struct record *to, const struct record *from, struct coppice_error *err)
{
	/* Room for one more; the first is the image, and the tree hangs on it. */
	size_t skip = from->n_lineage >= LINEAGE_MAX ? from->n_lineage - LINEAGE_MAX + 1 : 0;

	for (size_t i = 0; i < from->n_lineage; i++) {
		int r;

		if (i > 0 && i <= skip)
			continue;
		r = record_add_ancestor(to, &from->lineage[i], err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

int image_record_add_alias(struct image_record *record, const char *alias,
			   struct coppice_error *err)
{
	char **more = reallocarray(record->alias, record->n_aliases + 1, sizeof(*more));
	char *copy = strdup(alias);

	if (more)
		record->alias = more;
	if (!more || !copy) {
		free(copy);
		return fail_memory(err);
	}
	more[record->n_aliases++] = copy;
	return COPPICE_OK;
}

void image_record_remove_alias(struct image_record *record, const char *alias)
{
	for (size_t i = 0; i < record->n_aliases; i++) {
		if (strcmp(record->alias[i], alias) != 0)
			continue;
		free(record->alias[i]);
		memmove(&record->alias[i], &record->alias[i + 1],
			(record->n_aliases - i - 1) * sizeof(*record->alias));
		record->n_aliases--;
		return;
	}
}

int image_record_copy(struct image_record *to, const struct image_record *from,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	int r = image_record_format(from, &text, err);

	return r < 0 ? r : image_record_parse(text, to, err);
}

/* ---- to JSON ---- */

static void put_text(json_t *object, const char *key, const char *text)
{
	if (text && *text)
		(void)json_object_set_new(object, key, json_string(text));
}

static void put_number(json_t *object, const char *key, int64_t number)
{
	if (number)
		(void)json_object_set_new(object, key, json_integer(number));
}

/* As it mostly is: then once is enough, where little fits. */
static bool is_description_a_property(const struct image_record *record)
{
	const char *property = settings_get(&record->properties, "description");

	return property && record->description && strcmp(property, record->description) == 0;
}

static json_t *image_to_json(const struct image_record *record)
{
	json_t *json = json_object();
	json_t *aliases = json_array();

	if (!is_description_a_property(record))
		put_text(json, "description", record->description);
	put_text(json, "architecture", record->architecture);
	put_text(json, "file_name", record->file_name);
	put_number(json, "size", (int64_t)record->size_bytes);
	put_number(json, "rootfs_size", (int64_t)record->rootfs_size_bytes);
	put_number(json, "created", record->created_ns);
	put_number(json, "imported", record->imported_ns);
	for (size_t i = 0; i < record->n_aliases; i++)
		(void)json_array_append_new(aliases, json_string(record->alias[i]));
	(void)json_object_set_new(json, "aliases", aliases);
	(void)json_object_set_new(json, "properties", settings_to_json(&record->properties));
	return json;
}

static json_t *lineage_to_json(const struct record *record)
{
	json_t *array = json_array();

	for (size_t i = 0; i < record->n_lineage; i++) {
		const struct ancestor *ancestor = &record->lineage[i];
		json_t *json = json_object();

		put_text(json, "uuid", ancestor->uuid.text);
		put_text(json, "snapshot", ancestor->snapshot.text);
		put_text(json, "name", ancestor->name);
		if (ancestor->is_image)
			(void)json_object_set_new(json, "is_image", json_true());
		(void)json_array_append_new(array, json);
	}
	return array;
}

static json_t *record_to_json(const struct record *record)
{
	json_t *json = json_object();

	put_text(json, "uuid", record->uuid.text);
	put_number(json, "version", VERSION);
	put_text(json, "kind", volume_kind_name(record->kind));
	put_number(json, "created", record->created_ns);
	put_text(json, "image", record->image);
	put_text(json, "image_name", record->image_name);
	put_text(json, "moved_from", record->moved_from.text);
	if (record->n_lineage)
		(void)json_object_set_new(json, "lineage", lineage_to_json(record));
	if (record->config.n)
		(void)json_object_set_new(json, "config", settings_to_json(&record->config));
	if (record->kind == VOLUME_IMAGE)
		(void)json_object_set_new(json, "image_info", image_to_json(&record->of_image));
	return json;
}

static int dump(json_t *json, char **ret, struct coppice_error *err)
{
	char *text = json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII);

	json_decref(json);
	if (!text)
		return fail(err, COPPICE_INVALID,
			    "a record cannot be written: a value is not UTF-8");
	*ret = text;
	return COPPICE_OK;
}

/* What of a record somebody could make shorter. */
struct part {
	const char *what, *name; /* name: or "" */
	size_t size_bytes;
};

static void note_part(struct part *largest, struct part part)
{
	if (part.size_bytes > largest->size_bytes)
		*largest = part;
}

static void note_settings(struct part *largest, const char *what,
			  const struct coppice_settings *settings)
{
	for (size_t i = 0; i < settings->n; i++)
		note_part(largest, (struct part){ what, settings->setting[i].key,
						  strlen(settings->setting[i].value) });
}

static struct part largest_part(const struct record *record)
{
	const struct image_record *image = &record->of_image;
	struct part largest = { "", "", 0 }, aliases = { "aliases", "", 0 };

	note_settings(&largest, "value of", &record->config);
	note_settings(&largest, "property", &image->properties);
	if (image->description && !is_description_a_property(image))
		note_part(&largest, (struct part){ "description", "", strlen(image->description) });
	for (size_t i = 0; i < image->n_aliases; i++)
		aliases.size_bytes += strlen(image->alias[i]);
	note_part(&largest, aliases);
	return largest;
}

static int fail_too_long(const struct record *record, size_t length, struct coppice_error *err)
{
	struct part largest = largest_part(record);
	bool is_named = largest.name[0] != '\0';

	if (largest.size_bytes == 0)
		return fail(err, COPPICE_INVALID,
			    "its record would have %zu bytes, and at most %d fit", length,
			    RECORD_TEXT_MAX);
	return fail(err, COPPICE_INVALID,
		    "its record would have %zu bytes, and at most %d fit; the largest that can be "
		    "shortened: %s%s%.40s%s, of %zu bytes",
		    length, RECORD_TEXT_MAX, largest.what, is_named ? " '" : "", largest.name,
		    is_named ? "'" : "", largest.size_bytes);
}

int record_format(const struct record *record, char **ret, struct coppice_error *err)
{
	_cleanup_(freep) char *text = NULL;
	int r = dump(record_to_json(record), &text, err);

	if (r < 0)
		return r;
	if (strlen(text) > RECORD_TEXT_MAX)
		return fail_too_long(record, strlen(text), err);
	*ret = take_ptr(&text);
	return COPPICE_OK;
}

int image_record_format(const struct image_record *record, char **ret, struct coppice_error *err)
{
	return dump(image_to_json(record), ret, err);
}

int record_format_word(const struct record *record, const char *variable, char **ret,
		       struct coppice_error *err)
{
	static const char time_pattern[] = "\"created\":-1";
	_cleanup_(freep) char *json = NULL;
	struct record shown = *record;
	struct text text = TEXT_INIT;
	int r;

	(void)snprintf(shown.uuid.text, sizeof(shown.uuid.text), UUID_STAND_IN);
	shown.created_ns = TIME_STAND_IN;
	r = dump(record_to_json(&shown), &json, err);
	if (r < 0)
		return r;
	text_add(&text, "\"");
	for (const char *at = json; *at; at++) {
		if (strncmp(at, UUID_STAND_IN, UUID_TEXT_SIZE - 1) == 0) {
			text_add(&text, "$%s", variable);
			at += UUID_TEXT_SIZE - 2;
		} else if (strncmp(at, time_pattern, sizeof(time_pattern) - 1) == 0) {
			text_add(&text, "\\\"created\\\":$(date +%%s%%N)");
			at += sizeof(time_pattern) - 2;
		} else {
			if (strchr("\"\\$`", *at))
				text_add(&text, "\\");
			text_add_bytes(&text, at, 1);
		}
	}
	text_add(&text, "\"");
	*ret = text_take(&text);
	return *ret ? COPPICE_OK : fail_memory(err);
}

/* ---- from JSON ---- */

static int get_text(json_t *object, const char *key, char **ret, struct coppice_error *err)
{
	const char *text = json_string_value(json_object_get(object, key));

	if (!text)
		return COPPICE_OK;
	*ret = strdup(text);
	return *ret ? COPPICE_OK : fail_memory(err);
}

static bool get_uuid(json_t *object, const char *key, struct uuid *ret)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && uuid_parse(text, ret);
}

static int image_from_json(json_t *json, struct image_record *ret, struct coppice_error *err)
{
	const char *property;
	json_t *alias;
	size_t i;
	int r;

	ret->size_bytes = (uint64_t)json_integer_value(json_object_get(json, "size"));
	ret->rootfs_size_bytes = (uint64_t)json_integer_value(json_object_get(json, "rootfs_size"));
	ret->created_ns = json_integer_value(json_object_get(json, "created"));
	ret->imported_ns = json_integer_value(json_object_get(json, "imported"));
	r = get_text(json, "description", &ret->description, err);
	if (r == COPPICE_OK)
		r = get_text(json, "architecture", &ret->architecture, err);
	if (r == COPPICE_OK)
		r = get_text(json, "file_name", &ret->file_name, err);
	if (r == COPPICE_OK)
		r = settings_from_json(&ret->properties, json_object_get(json, "properties"), err);
	property = settings_get(&ret->properties, "description");
	if (r == COPPICE_OK && !ret->description && property) {
		ret->description = strdup(property);
		r = ret->description ? COPPICE_OK : fail_memory(err);
	}
	json_array_foreach(json_object_get(json, "aliases"), i, alias)
	{
		if (r == COPPICE_OK && json_is_string(alias))
			r = image_record_add_alias(ret, json_string_value(alias), err);
	}
	return r;
}

int image_record_parse(const char *text, struct image_record *ret, struct coppice_error *err)
{
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	struct image_record record = { 0 };
	int r;

	if (!json_is_object(json)) {
		json_decref(json);
		return fail(err, COPPICE_INVALID, "it is no JSON object");
	}
	r = image_from_json(json, &record, err);
	json_decref(json);
	if (r < 0)
		image_record_done(&record);
	else
		*ret = record;
	return r;
}

static int lineage_from_json(json_t *array, struct record *ret, struct coppice_error *err)
{
	json_t *json;
	size_t i;

	json_array_foreach(array, i, json)
	{
		const char *name = json_string_value(json_object_get(json, "name"));
		char none[] = "";
		/* The name is only borrowed until it is copied. */
		struct ancestor ancestor = { .name = name ? (char *)(uintptr_t)name : none };
		int r;

		if (!get_uuid(json, "uuid", &ancestor.uuid))
			return fail(err, COPPICE_INVALID, "an ancestor in it has no uuid");
		(void)get_uuid(json, "snapshot", &ancestor.snapshot);
		ancestor.is_image = json_is_true(json_object_get(json, "is_image"));
		r = record_add_ancestor(ret, &ancestor, err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

static int from_json(json_t *json, struct record *ret, struct coppice_error *err)
{
	const char *kind = json_string_value(json_object_get(json, "kind"));
	const char *image = json_string_value(json_object_get(json, "image"));
	int r;

	if (!json_is_object(json))
		return fail(err, COPPICE_INVALID, "it is no JSON object");
	if (json_integer_value(json_object_get(json, "version")) > VERSION)
		return fail(err, COPPICE_UNSUPPORTED,
			    "a newer version of Coppice wrote the record");
	if (!get_uuid(json, "uuid", &ret->uuid))
		return fail(err, COPPICE_INVALID, "it has no uuid");
	if (!kind || !volume_kind_parse(kind, &ret->kind))
		return fail(err, COPPICE_INVALID, "it names no kind of volume");
	ret->created_ns = json_integer_value(json_object_get(json, "created"));
	if (image)
		(void)snprintf(ret->image, sizeof(ret->image), "%s", image);
	(void)get_uuid(json, "moved_from", &ret->moved_from);
	r = get_text(json, "image_name", &ret->image_name, err);
	if (r == COPPICE_OK)
		r = lineage_from_json(json_object_get(json, "lineage"), ret, err);
	if (r == COPPICE_OK)
		r = settings_from_json(&ret->config, json_object_get(json, "config"), err);
	if (r == COPPICE_OK && ret->kind == VOLUME_IMAGE)
		r = image_from_json(json_object_get(json, "image_info"), &ret->of_image, err);
	return r;
}

int record_parse(const char *text, struct record *ret, struct coppice_error *err)
{
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	struct record record = { 0 };
	int r;

	r = from_json(json, &record, err);
	json_decref(json);
	if (r < 0) {
		record_done(&record);
		return r == COPPICE_INVALID ? wrap(err, "the record is damaged") : r;
	}
	*ret = record;
	return COPPICE_OK;
}
