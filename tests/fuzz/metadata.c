/* SPDX-License-Identifier: Apache-2.0 */
/* metadata.yaml, as a stranger's image has it. */
#include "fuzz.h"
#include "image/metadata.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct metadata metadata;
	int r = metadata_parse((const char *)data, size, &metadata, &err);

	must_explain(r, &err);
	if (r < 0)
		return 0;
	must(metadata.architecture);
	for (size_t i = 0; i < metadata.properties.n; i++) {
		const struct coppice_setting *it = &metadata.properties.setting[i];

		must(it->value);
		must(i == 0 || strcmp(it[-1].key, it->key) < 0);
		must(metadata_property(&metadata.properties, it->key) == it->value);
	}
	metadata_done(&metadata);
	return 0;
}
