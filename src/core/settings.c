/* SPDX-License-Identifier: Apache-2.0 */
#include "core/settings.h"

#include <string.h>

#include "base/text.h"

void settings_done(struct coppice_settings *settings)
{
	for (size_t i = 0; i < settings->n; i++) {
		free((char *)(uintptr_t)settings->setting[i].key);
		free((char *)(uintptr_t)settings->setting[i].value);
	}
	free(settings->setting);
	*settings = (struct coppice_settings){ 0 };
}

/* Where a key is, or would be. */
static size_t position(const struct coppice_settings *settings, const char *key, bool *ret_found)
{
	size_t i = 0;

	while (i < settings->n && strcmp(settings->setting[i].key, key) < 0)
		i++;
	*ret_found = i < settings->n && strcmp(settings->setting[i].key, key) == 0;
	return i;
}

const char *settings_get(const struct coppice_settings *settings, const char *key)
{
	bool is_found;
	size_t i = position(settings, key, &is_found);

	return is_found ? settings->setting[i].value : NULL;
}

static void remove_at(struct coppice_settings *settings, size_t i)
{
	free((char *)(uintptr_t)settings->setting[i].key);
	free((char *)(uintptr_t)settings->setting[i].value);
	memmove(&settings->setting[i], &settings->setting[i + 1],
		(settings->n - i - 1) * sizeof(*settings->setting));
	settings->n--;
}

int settings_put(struct coppice_settings *settings, const char *key, const char *value,
		 struct coppice_error *err)
{
	_cleanup_(freep) char *new_key = NULL;
	_cleanup_(freep) char *new_value = NULL;
	struct coppice_setting *more;
	bool is_found;
	size_t i = position(settings, key, &is_found);

	if (!value) {
		if (is_found)
			remove_at(settings, i);
		return COPPICE_OK;
	}
	/* Records are JSON, which keeps nothing else. */
	if (!text_is_utf8(key))
		return fail(err, COPPICE_INVALID, "the key '%s' is not UTF-8", key);
	if (!text_is_utf8(value))
		return fail(err, COPPICE_INVALID, "the value of '%s' is not UTF-8", key);
	new_key = strdup(key);
	new_value = strdup(value);
	if (!new_key || !new_value)
		return fail_memory(err);
	if (is_found)
		remove_at(settings, i);
	more = reallocarray(settings->setting, settings->n + 1, sizeof(*more));
	if (!more)
		return fail_memory(err);
	settings->setting = more;
	memmove(&more[i + 1], &more[i], (settings->n - i) * sizeof(*more));
	more[i] = (struct coppice_setting){ .key = take_ptr(&new_key),
					    .value = take_ptr(&new_value) };
	settings->n++;
	return COPPICE_OK;
}

int settings_copy(struct coppice_settings *to, const struct coppice_settings *from,
		  struct coppice_error *err)
{
	for (size_t i = 0; i < from->n; i++) {
		int r = settings_put(to, from->setting[i].key, from->setting[i].value, err);

		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

json_t *settings_to_json(const struct coppice_settings *settings)
{
	json_t *json = json_object();

	for (size_t i = 0; i < settings->n; i++)
		(void)json_object_set_new(json, settings->setting[i].key,
					  json_string(settings->setting[i].value));
	return json;
}

int settings_from_json(struct coppice_settings *to, json_t *json, struct coppice_error *err)
{
	const char *key;
	json_t *value;

	json_object_foreach(json, key, value)
	{
		int r = COPPICE_OK;

		if (json_is_string(value))
			r = settings_put(to, key, json_string_value(value), err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

bool settings_is_user_key(const char *key)
{
	return strncmp(key, "user.", 5) == 0 && key[5] && strlen(key) < 128 &&
	       key[strspn(key,
			  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")] ==
		       '\0';
}
