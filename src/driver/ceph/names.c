/* SPDX-License-Identifier: Apache-2.0 */
/* Names of images and of their snapshots. */
#include "driver/ceph/ceph.h"

#include <string.h>

#include "driver/generic/volume_hash.h"

static const char *const kind_words[VOLUME_KINDS] = {
	[VOLUME_IMAGE] = "image",
	[VOLUME_CONTAINER] = "container",
	[VOLUME_VIRTUAL_MACHINE] = "virtual-machine",
	[VOLUME_CUSTOM] = "custom",
};

const char *ceph_kind_word(enum volume_kind kind)
{
	return kind_words[kind];
}

void ceph_name(const struct volume_ref *ref, char ret[static RBD_NAME_MAX])
{
	(void)snprintf(ret, RBD_NAME_MAX, "%s_%s", kind_words[ref->kind], ref->name.text);
}

void ceph_snapshot_name(const struct volume_ref *ref, char ret[static RBD_NAME_MAX])
{
	(void)snprintf(ret, RBD_NAME_MAX, "snapshot_%s", ref->snapshot.text);
}

bool ceph_name_parse(const char *name, struct volume_ref *ret)
{
	for (int kind = 0; kind < VOLUME_KINDS; kind++) {
		struct volume_ref ref = { .kind = (enum volume_kind)kind };
		size_t n = strlen(kind_words[kind]);

		if (strncmp(name, kind_words[kind], n) != 0 || name[n] != '_' ||
		    strlen(name + n + 1) > VOLUME_NAME_MAX || !name[n + 1])
			continue;
		(void)snprintf(ref.name.text, sizeof(ref.name.text), "%s", name + n + 1);
		*ret = ref;
		return true;
	}
	return false;
}

uint64_t ceph_hash(const struct volume_ref *ref, const char *record)
{
	return volume_hash(kind_words[ref->kind], ref, record);
}
