/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice tree`: which image has which clones, with their snapshots and clones of them. */

#include <libsmartcols.h>
#include <stdint.h>

#include "cli/run.h"
#include "cli/show.h"

static const char *const type_names[] = {
	[COPPICE_NODE_POOL] = "pool",
	[COPPICE_NODE_IMAGE] = "image",
	[COPPICE_NODE_INSTANCE] = "instance",
	[COPPICE_NODE_SNAPSHOT] = "snapshot",
};

/* ---- the figures that a node of this type has: others are empty, not unknown ---- */

static const struct coppice_bytes *node_written(const struct coppice_node *node)
{
	return node->type == COPPICE_NODE_INSTANCE ? &node->written : NULL;
}

static const struct coppice_bytes *node_refers(const struct coppice_node *node)
{
	return node->type == COPPICE_NODE_POOL || node->is_deleted ? NULL : &node->refers;
}

static const struct coppice_bytes *node_pinned(const struct coppice_node *node)
{
	return node->is_deleted ? &node->pinned : NULL;
}

/* ---- for people ---- */

static void table_unrefp(struct libscols_table **table)
{
	scols_unref_table(*table);
}

static int line_set_bytes(struct libscols_line *line, size_t column,
			  const struct coppice_bytes *bytes)
{
	char text[BYTES_TEXT_MAX];

	if (!bytes)
		return 0;
	bytes_text(*bytes, false, text);
	return scols_line_set_data(line, column, text);
}

static int line_fill(struct libscols_line *line, const struct coppice_node *node)
{
	_cleanup_(freep) char *name = NULL;

	if (asprintf(&name, "%s%s", node->name, node->is_deleted ? " (deleted)" : "") < 0) {
		name = NULL;
		return -1;
	}
	if (scols_line_set_data(line, 0, name) < 0 ||
	    line_set_bytes(line, 1, node_written(node)) < 0 ||
	    line_set_bytes(line, 2, node_refers(node)) < 0 ||
	    line_set_bytes(line, 3, node_pinned(node)) < 0)
		return -1;
	return 0;
}

static struct libscols_table *table_new(void)
{
	struct libscols_table *table = scols_new_table();

	if (!table)
		return NULL;
	(void)scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
	if (scols_table_new_column(table, "NAME", 0, SCOLS_FL_TREE) &&
	    scols_table_new_column(table, "WRITTEN", 0, SCOLS_FL_RIGHT) &&
	    scols_table_new_column(table, "REFERS", 0, SCOLS_FL_RIGHT) &&
	    scols_table_new_column(table, "PINNED", 0, SCOLS_FL_RIGHT))
		return table;
	scols_unref_table(table);
	return NULL;
}

static int tree_print(const struct coppice_tree *tree, struct coppice_error *err)
{
	_cleanup_(table_unrefp) struct libscols_table *table = table_new();
	_cleanup_(freep) struct libscols_line **line = calloc(tree->n + 1, sizeof(*line));

	if (!table || !line)
		return cli_fail_memory(err);
	for (size_t i = 0; i < tree->n; i++) {
		size_t parent = tree->node[i].parent;

		line[i] = scols_table_new_line(table, parent == SIZE_MAX ? NULL : line[parent]);
		if (!line[i] || line_fill(line[i], &tree->node[i]) < 0)
			return cli_fail_memory(err);
	}
	if (tree->n > 0 && scols_print_table(table) < 0)
		return cli_fail(err, COPPICE_FAILED, "cannot print the tree");
	return COPPICE_OK;
}

/* ---- for programs ---- */

static void sheet_bytes_of(struct sheet *sheet, const struct coppice_bytes *bytes)
{
	if (bytes)
		sheet_bytes(sheet, *bytes);
	else
		sheet_text(sheet, NULL);
}

static int tree_csv(const struct coppice_tree *tree, struct coppice_error *err)
{
	static const struct column columns[] = {
		{ "NAME", false },  { "TYPE", false },  { "PARENT", false },  { "WRITTEN", true },
		{ "REFERS", true }, { "PINNED", true }, { "DELETED", false },
	};
	_cleanup_(sheet_done) struct sheet sheet =
		sheet_start(stdout, FORMAT_CSV, columns, ARRAY_SIZE(columns));

	for (size_t i = 0; i < tree->n; i++) {
		const struct coppice_node *node = &tree->node[i];

		sheet_text(&sheet, node->name);
		sheet_text(&sheet, type_names[node->type]);
		sheet_text(&sheet, node->parent == SIZE_MAX ? NULL : tree->node[node->parent].name);
		sheet_bytes_of(&sheet, node_written(node));
		sheet_bytes_of(&sheet, node_refers(node));
		sheet_bytes_of(&sheet, node_pinned(node));
		sheet_text(&sheet, node->is_deleted ? "true" : "false");
	}
	return sheet_end(&sheet, err);
}

static void node_doc_keys(struct doc *doc, const struct coppice_node *node)
{
	doc_text(doc, "name", node->name);
	doc_text(doc, "type", type_names[node->type]);
	doc_bool(doc, "deleted", node->is_deleted);
	if (node_written(node))
		doc_bytes(doc, "written", node->written);
	if (node_refers(node))
		doc_bytes(doc, "refers", node->refers);
	if (node_pinned(node))
		doc_bytes(doc, "pinned", node->pinned);
}

/* Whose children they are: first[i] and next[i] are indices, SIZE_MAX: none. */
struct family {
	size_t *first; /* n + 1: the last is that of the pools */
	size_t *next;
};

static void family_done(struct family *family)
{
	free(family->first);
	free(family->next);
}

static int family_find(const struct coppice_tree *tree, struct family *ret,
		       struct coppice_error *err)
{
	ret->first = reallocarray(NULL, tree->n + 1, sizeof(*ret->first));
	ret->next = reallocarray(NULL, tree->n + 1, sizeof(*ret->next));
	if (!ret->first || !ret->next)
		return cli_fail_memory(err);
	for (size_t i = 0; i <= tree->n; i++)
		ret->first[i] = SIZE_MAX;
	/* From the end, so that each comes before its younger brother. */
	for (size_t i = tree->n; i-- > 0;) {
		size_t parent = tree->node[i].parent;
		size_t of = parent == SIZE_MAX ? tree->n : parent;

		ret->next[i] = ret->first[of];
		ret->first[of] = i;
	}
	return COPPICE_OK;
}

/* Clones of clones of clones: deeper than that, the rest is left to the table. */
#define TREE_DEPTH_MAX (DOC_DEPTH_MAX / 2 - 1)

static void nodes_doc(struct doc *doc, const struct coppice_tree *tree, const struct family *family,
		      size_t first, unsigned depth)
{
	for (size_t i = first; i != SIZE_MAX; i = family->next[i]) {
		doc_object(doc, NULL);
		node_doc_keys(doc, &tree->node[i]);
		if (depth < TREE_DEPTH_MAX) {
			doc_array(doc, "children");
			nodes_doc(doc, tree, family, family->first[i], depth + 1);
			doc_end(doc);
		}
		doc_end(doc);
	}
}

static int tree_doc(const struct coppice_tree *tree, enum format format, struct coppice_error *err)
{
	_cleanup_(family_done) struct family family = { 0 };
	struct doc doc = doc_start(stdout, format);
	int r = family_find(tree, &family, err);

	if (r < 0)
		return r;
	doc_array(&doc, NULL);
	nodes_doc(&doc, tree, &family, family.first[tree->n], 1);
	doc_end(&doc);
	return COPPICE_OK;
}

int run_tree(const struct request *request, struct coppice *coppice, struct coppice_error *err)
{
	_cleanup_(coppice_tree_free) struct coppice_tree tree = { 0 };
	const char *pool = request->words.n > 0 ? request->words.word[0] : request->pool;
	enum format format = request_format(request, FORMAT_TABLE);
	int r = coppice_tree_get(coppice, pool, request->is_exact, &tree, err);

	if (r < 0)
		return r;
	if (format == FORMAT_TABLE)
		return tree_print(&tree, err);
	if (format == FORMAT_CSV)
		return tree_csv(&tree, err);
	return tree_doc(&tree, format, err);
}
