/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/pool_owner.h"

#include <jansson.h>
#include <string.h>

static bool differs(json_t *record, const char *key, const struct uuid *wanted)
{
	const char *text = json_string_value(json_object_get(record, key));

	return wanted->text[0] && (!text || strcmp(text, wanted->text) != 0);
}

int pool_owner_check(const struct pool_spec *spec, const char *text, const char *at,
		     const char *place, struct coppice_error *err)
{
	json_t *record = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int r = COPPICE_OK;

	if (!record)
		return fail(err, COPPICE_INVALID, "the record of the pool %s '%s' is damaged", at,
			    place);
	if (differs(record, "uuid", &spec->uuid)) {
		r = fail(err, COPPICE_BUSY, "%s '%s' there is another pool than '%s'", at, place,
			 spec->name);
	} else if (differs(record, "owner", &spec->owner)) {
		const char *owner = json_string_value(json_object_get(record, "owner_path"));

		r = fail(err, COPPICE_BUSY,
			 "the pool %s '%s' is held by another Coppice, with the state directory "
			 "'%s'; to take it over: coppice storage recover",
			 at, place, owner ? owner : "unknown");
	}
	json_decref(record);
	return r;
}
