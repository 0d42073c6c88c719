/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/volume_hash.h"

/* FNV-1a of all, their ends included; its bits mixed, as sums are made of these. */
uint64_t volume_hash(const char *kind, const struct volume_ref *ref, const char *record)
{
	const char *const texts[] = { kind, ref->name.text, ref->snapshot.text, record };
	uint64_t hash = 14695981039346656037ULL;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		for (const char *c = texts[i]; c == texts[i] || c[-1]; c++)
			hash = (hash ^ (unsigned char)*c) * 1099511628211ULL;
	hash ^= hash >> 32;
	hash *= 0xd6e8feb86659fd93ULL;
	return hash ^ hash >> 32;
}
