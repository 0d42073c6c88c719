/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * JSON and YAML, written as it comes: nothing is kept in memory, so that ten
 * thousand instances cost no more than their text.
 *
 * Begin, then keys and values in order, then end:
 *
 *	doc_object(&doc, "pool");	-- NULL for the outermost and in arrays
 *	doc_text(&doc, "name", "default");
 *	doc_end(&doc);
 */

#include "cli/cli.h"

#define DOC_DEPTH_MAX 64

struct doc {
	FILE *out;
	bool is_yaml;
	size_t depth;
	struct {
		bool is_array;
		bool is_item; /* stands in an array, not behind a key */
		size_t n;     /* what it holds so far */
		unsigned indent;
	} level[DOC_DEPTH_MAX];
};

struct doc doc_start(FILE *out, enum format format);

void doc_object(struct doc *doc, const char *key);
void doc_array(struct doc *doc, const char *key);
void doc_end(struct doc *doc);

void doc_text(struct doc *doc, const char *key, const char *value); /* NULL: null */
void doc_number(struct doc *doc, const char *key, uint64_t value);
void doc_bool(struct doc *doc, const char *key, bool value);
void doc_time(struct doc *doc, const char *key, int64_t ns); /* 0: null */
void doc_bytes(struct doc *doc, const char *key, struct coppice_bytes value);
void doc_settings(struct doc *doc, const char *key, const struct coppice_settings *settings);
