/* SPDX-License-Identifier: Apache-2.0 */
/* The file of a pool, pools/NAME.json, and its like in the pool, which recover reads. */
#include "core/pools.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char root[] = "/nowhere";
	struct coppice coppice = { .root = root, .root_fd = -1 };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct pool_entry *entry = NULL, *same = NULL;
	char *text = fuzz_text(data, size), *out = NULL;
	int r = pool_entry_parse(&coppice, "default", text, &entry, &err);

	must_explain(r, &err);
	if (r == COPPICE_OK) {
		must(entry->driver && entry->name);
		must(pool_entry_format(&coppice, entry, true, &out, &err) == COPPICE_OK);
		must(pool_entry_parse(&coppice, "default", out, &same, &err) == COPPICE_OK);
		must(strcmp(same->uuid.text, entry->uuid.text) == 0);
		must(same->config.n == entry->config.n);
	}
	pool_entry_free(entry);
	pool_entry_free(same);
	free(out);
	free(text);
	return 0;
}
