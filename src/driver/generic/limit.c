/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/limit.h"

#include "base/text.h"

int limit_check(const char *name, uint64_t limit_bytes, const char *what, uint64_t has_bytes,
		struct coppice_error *err)
{
	char wanted[SIZE_TEXT_MAX], has[SIZE_TEXT_MAX];

	if (has_bytes <= limit_bytes)
		return COPPICE_OK;
	size_format(limit_bytes, wanted);
	size_format(has_bytes, has);
	return fail(err, COPPICE_INVALID, "'%s' cannot be limited to %s (%llu bytes): %s %s (%llu)",
		    name, wanted, (unsigned long long)limit_bytes, what, has,
		    (unsigned long long)has_bytes);
}

int limits_check_clones(uint64_t origin_bytes, const struct new_volume *volumes, size_t n,
			struct coppice_error *err)
{
	for (size_t i = 0; i < n; i++) {
		const struct new_volume *volume = &volumes[i];

		if (volume->limit_bytes &&
		    limit_check(volume->ref.name.text, volume->limit_bytes,
				volume_is_block(&volume->ref)
					? "the disk that it is cloned from has"
					: "the file system that it is cloned from has",
				origin_bytes, err) < 0)
			return wrap(err, "cannot clone as '%s'",
				    volume->item ? volume->item : volume->ref.name.text);
	}
	return COPPICE_OK;
}
