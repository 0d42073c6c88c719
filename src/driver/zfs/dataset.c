/* SPDX-License-Identifier: Apache-2.0 */
/* Names of datasets: which is whose, and what an administrator reads in zfs list. */
#include "driver/zfs/zfs.h"

#include <limits.h>
#include <string.h>

#define SNAPSHOT_PREFIX "snapshot-"

static const char *const kind_folder[VOLUME_KINDS] = {
	[VOLUME_IMAGE] = "images",
	[VOLUME_CONTAINER] = "containers",
	[VOLUME_VIRTUAL_MACHINE] = "virtual-machines",
	[VOLUME_CUSTOM] = "custom",
};

const char *zfs_kind_folder(enum volume_kind kind)
{
	return kind_folder[kind];
}

const char *zfs_volume_name(const struct zfs_pool *zfs, const struct volume_ref *ref,
			    char ret[static DATASET_MAX])
{
	(void)snprintf(ret, DATASET_MAX, "%s/%s/%s", zfs->root, kind_folder[ref->kind],
		       ref->name.text);
	return ret;
}

const char *zfs_item_name(const struct zfs_pool *zfs, const struct draft *draft,
			  const struct new_volume *volume, char ret[static DATASET_MAX])
{
	(void)snprintf(ret, DATASET_MAX, "%s/drafts/%s/%s", zfs->root, draft->id.text,
		       volume->item ? volume->item : volume->ref.name.text);
	return ret;
}

/* "containers/" at the beginning of @name; sets what follows. */
static bool parse_kind(const char *name, enum volume_kind *ret, const char **ret_rest)
{
	for (size_t kind = 0; kind < VOLUME_KINDS; kind++) {
		size_t n = strlen(kind_folder[kind]);

		if (strncmp(name, kind_folder[kind], n) != 0 || name[n] != '/')
			continue;
		*ret = (enum volume_kind)kind;
		*ret_rest = name + n + 1;
		return true;
	}
	return false;
}

static void set_name(struct volume_name *name, const char *text, size_t n)
{
	(void)snprintf(name->text, sizeof(name->text), "%.*s", (int)n, text);
}

bool zfs_name_parse(const struct zfs_pool *zfs, const char *name, struct volume_ref *ret)
{
	size_t root = strlen(zfs->root);
	struct volume_ref ref;
	const char *rest, *at;

	memset(&ref, 0, sizeof(ref));
	if (strncmp(name, zfs->root, root) != 0 || name[root] != '/' ||
	    !parse_kind(name + root + 1, &ref.kind, &rest))
		return false;
	set_name(&ref.name, rest, strcspn(rest, "/@"));
	at = strchr(rest, '@');
	if (!at && strchr(rest, '/'))
		return false; /* what holds snapshots of another history */
	if (at && strncmp(at + 1, SNAPSHOT_PREFIX, strlen(SNAPSHOT_PREFIX)) != 0)
		return false;
	if (at)
		set_name(&ref.snapshot, at + 1 + strlen(SNAPSHOT_PREFIX), strlen(at));
	*ret = ref;
	return true;
}

bool zfs_is_within(const char *name, const char *of)
{
	size_t n = strlen(of);

	return strncmp(name, of, n) == 0 && (name[n] == '\0' || name[n] == '/' || name[n] == '@');
}

/* Does @name go on with a uuid, and then end, or go on with one of @ends? */
static bool is_uuid_next(const char *name, const char *ends)
{
	char text[UUID_TEXT_SIZE];
	struct uuid ignored;

	(void)snprintf(text, sizeof(text), "%s", name);
	return uuid_parse(text, &ignored) && strchr(ends, name[UUID_TEXT_SIZE - 1]);
}

bool zfs_is_hidden_snapshot(const char *name)
{
	static const char *const prefixes[] = { "@copy-", "@deleted-", "@draft-" };
	const char *at = strchr(name, '@');

	for (size_t i = 0; at && i < ARRAY_SIZE(prefixes); i++)
		if (strncmp(at, prefixes[i], strlen(prefixes[i])) == 0)
			return is_uuid_next(at + strlen(prefixes[i]), ":");
	return false;
}

/* What follows "deleted/" in its name; NULL. */
static const char *after_deleted(const struct zfs_pool *zfs, const char *name)
{
	static const char folder[] = "/deleted/";
	size_t root = strlen(zfs->root);

	return strncmp(name, zfs->root, root) == 0 &&
			       strncmp(name + root, folder, strlen(folder)) == 0
		       ? name + root + strlen(folder)
		       : NULL;
}

bool zfs_is_tombstone(const struct zfs_pool *zfs, const char *name)
{
	const char *rest = after_deleted(zfs, name);
	enum volume_kind ignored;

	return rest && parse_kind(rest, &ignored, &rest) && is_uuid_next(rest, "@/");
}

bool zfs_is_in_volumes(const struct zfs_pool *zfs, const char *name)
{
	size_t root = strlen(zfs->root);
	enum volume_kind ignored;
	const char *rest;

	return strncmp(name, zfs->root, root) == 0 && name[root] == '/' &&
	       parse_kind(name + root + 1, &ignored, &rest);
}

bool zfs_is_in_folders(const struct zfs_pool *zfs, const char *name)
{
	size_t root = strlen(zfs->root);

	return zfs_is_in_volumes(zfs, name) || zfs_is_tombstone(zfs, name) ||
	       (strncmp(name, zfs->root, root) == 0 &&
		strncmp(name + root, "/drafts/", strlen("/drafts/")) == 0);
}

bool zfs_is_history(const struct zfs_pool *zfs, const struct dataset *dataset)
{
	char volume[DATASET_MAX];
	struct volume_ref ignored;
	char *slash;

	(void)snprintf(volume, sizeof(volume), "%s", dataset->name);
	slash = strrchr(volume, '/');
	if (dataset->is_snapshot || !dataset->is_never_mounted || !slash ||
	    !is_uuid_next(slash + 1, ""))
		return false;
	*slash = '\0';
	return zfs_name_parse(zfs, volume, &ignored);
}
