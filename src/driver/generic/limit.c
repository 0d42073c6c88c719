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
