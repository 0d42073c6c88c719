/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Rows and columns: a table for people, or CSV (RFC 4180) for programs. Cells are
 * added from left to right; the last of a row ends it. CSV is written as it
 * comes; a table when it is whole, as only then the widths are known.
 */

#include "cli/cli.h"

struct column {
	const char *title;
	bool is_right; /* numbers */
};

struct sheet {
	FILE *out;
	bool is_csv;
	bool has_heading;
	const struct column *column;
	size_t n_columns;
	size_t n_cells;
	size_t *cell; /* offsets in data; owned */
	char *data;   /* all cells, each ended by NUL; owned */
	size_t length;
	size_t cells_capacity;
	size_t data_capacity;
	bool is_failed; /* no memory: sheet_end() says so */
};

struct sheet sheet_start(FILE *out, enum format format, const struct column *column,
			 size_t n_columns);
void sheet_done(struct sheet *sheet);

void sheet_text(struct sheet *sheet, const char *text); /* NULL: empty */
void sheet_number(struct sheet *sheet, uint64_t number);
void sheet_size(struct sheet *sheet, uint64_t bytes);
void sheet_bytes(struct sheet *sheet, struct coppice_bytes bytes);
void sheet_time(struct sheet *sheet, int64_t ns);

/* Write the table. Nothing at all when there are no rows. */
int sheet_end(struct sheet *sheet, struct coppice_error *err);

/* The two ways in which it is written, the same to the last byte; for the test that says so. */
int sheet_print_smartcols(const struct sheet *sheet, struct coppice_error *err);
int sheet_print_plain(const struct sheet *sheet, struct coppice_error *err);
