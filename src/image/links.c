/* SPDX-License-Identifier: Apache-2.0 */
#include "image/links.h"

#include <search.h>
#include <string.h>

struct link {
	dev_t device;
	ino_t inode;
	char path[];
};

static int compare(const void *a, const void *b)
{
	const struct link *x = a, *y = b;

	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return 0;
}

int links_note(struct links *links, const struct stat *st, const char *path, const char **ret,
	       struct coppice_error *err)
{
	size_t size = strlen(path) + 1;
	struct link *link = malloc(sizeof(*link) + size);
	struct link **found;

	if (!link)
		return fail_memory(err);
	link->device = st->st_dev;
	link->inode = st->st_ino;
	memcpy(link->path, path, size);
	found = tsearch(link, &links->root, compare);
	if (!found) {
		free(link);
		return fail_memory(err);
	}
	*ret = NULL;
	if (*found != link) {
		free(link);
		*ret = (*found)->path;
	}
	return COPPICE_OK;
}

void links_done(struct links *links)
{
	tdestroy(links->root, free);
	links->root = NULL;
}
