/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Keys and values that own their strings, sorted by key: struct coppice_settings. */

#include <jansson.h>

#include "base/error.h"

void settings_done(struct coppice_settings *settings);

/* Value of a key, borrowed; NULL: it is not set. */
_nonnull_ const char *settings_get(const struct coppice_settings *settings, const char *key);

/* Set one, or remove it when @value is NULL. */
int settings_put(struct coppice_settings *settings, const char *key, const char *value,
		 struct coppice_error *err);

_nonnull_ int settings_copy(struct coppice_settings *to, const struct coppice_settings *from,
			    struct coppice_error *err);

/* To and from a JSON object of strings; members of other types are passed over. */
_nonnull_ json_t *settings_to_json(const struct coppice_settings *settings);
int settings_from_json(struct coppice_settings *to, json_t *json, struct coppice_error *err);

/* user.KEY: letters, digits and "-_.", which nobody but the user gives a meaning to. */
_nonnull_ bool settings_is_user_key(const char *key);
