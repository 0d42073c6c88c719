/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/record_config.h"

#include <jansson.h>
#include <string.h>

char *record_config(const char *record, const char *key)
{
	json_t *json = record ? json_loads(record, JSON_REJECT_DUPLICATES, NULL) : NULL;
	const char *text = json_string_value(json_object_get(json_object_get(json, "config"), key));
	char *value = text ? strdup(text) : NULL;

	json_decref(json);
	return value;
}
