/* SPDX-License-Identifier: Apache-2.0 */

/* Who stands on whom: pools, images, their clones, snapshots, and clones of those. */

#include <inttypes.h>
#include <stdio.h>

#include "coppice.h"

static void print_bytes(struct coppice_bytes bytes)
{
	switch (bytes.known) {
	case COPPICE_UNKNOWN:
		(void)printf("  unknown");
		break;
	case COPPICE_AT_MOST:
		(void)printf("  at most %" PRIu64 " bytes", bytes.bytes);
		break;
	case COPPICE_EXACT:
		(void)printf("  %" PRIu64 " bytes", bytes.bytes);
		break;
	}
}

/* Parents come before their children, so one pass is enough. */
static void print_tree(const struct coppice_tree *tree)
{
	for (size_t i = 0; i < tree->n; i++) {
		const struct coppice_node *node = &tree->node[i];

		for (size_t p = node->parent; p != SIZE_MAX; p = tree->node[p].parent)
			(void)printf("  ");
		(void)printf("%s%s", node->name, node->is_deleted ? " (deleted)" : "");
		if (node->type != COPPICE_NODE_POOL)
			print_bytes(node->is_deleted ? node->pinned : node->refers);
		(void)printf("\n");
	}
}

int main(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct coppice_tree tree = { 0, NULL };
	struct coppice *coppice = NULL;
	int r = coppice_open(NULL, &coppice, &err);

	if (r == COPPICE_OK)
		r = coppice_tree_get(coppice, NULL, false, &tree, &err);
	if (r == COPPICE_OK)
		print_tree(&tree);
	else
		(void)fprintf(stderr, "print-tree: %s\n", err.message);
	coppice_tree_free(&tree);
	coppice_close(coppice);
	return coppice_exit_status((enum coppice_code)r);
}
