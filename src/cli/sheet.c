/* SPDX-License-Identifier: Apache-2.0 */

/* Rows and columns. See sheet.h. */

#include <inttypes.h>
#include <libsmartcols.h>
#include <string.h>

#include "cli/sheet.h"

/* From here on libsmartcols is too slow: it takes some 4 µs for each cell. */
#define SMARTCOLS_ROWS_MAX 500

struct sheet sheet_start(FILE *out, enum format format, const struct column *column,
			 size_t n_columns)
{
	return (struct sheet){
		.out = out,
		.is_csv = format == FORMAT_CSV,
		.has_heading = true,
		.column = column,
		.n_columns = n_columns,
	};
}

void sheet_done(struct sheet *sheet)
{
	free(sheet->cell);
	free(sheet->data);
}

static void cell_keep(struct sheet *sheet, const char *text)
{
	size_t size = strlen(text) + 1;

	if (sheet->n_cells == sheet->cells_capacity) {
		size_t capacity = sheet->cells_capacity ? sheet->cells_capacity * 2 : 256;
		size_t *grown = reallocarray(sheet->cell, capacity, sizeof(*grown));

		if (!grown) {
			sheet->is_failed = true;
			return;
		}
		sheet->cell = grown;
		sheet->cells_capacity = capacity;
	}
	if (sheet->length + size > sheet->data_capacity) {
		size_t capacity = (sheet->length + size) * 2;
		char *grown = realloc(sheet->data, capacity);

		if (!grown) {
			sheet->is_failed = true;
			return;
		}
		sheet->data = grown;
		sheet->data_capacity = capacity;
	}
	memcpy(sheet->data + sheet->length, text, size);
	sheet->cell[sheet->n_cells++] = sheet->length;
	coppice_text_make_printable(sheet->data + sheet->length);
	sheet->length += size;
}

static void cell_write_csv(struct sheet *sheet, const char *text)
{
	bool is_last = ++sheet->n_cells % sheet->n_columns == 0;

	if (text[strcspn(text, ",\"\r\n")] == '\0') {
		(void)fputs_unlocked(text, sheet->out);
	} else {
		(void)putc_unlocked('"', sheet->out);
		for (; *text; text++) {
			if (*text == '"')
				(void)putc_unlocked('"', sheet->out);
			(void)putc_unlocked(*text, sheet->out);
		}
		(void)putc_unlocked('"', sheet->out);
	}
	/* RFC 4180 has CR LF; what reads lines on Unix, and LXD, have LF. */
	(void)putc_unlocked(is_last ? '\n' : ',', sheet->out);
}

void sheet_text(struct sheet *sheet, const char *text)
{
	if (!text)
		text = "";
	if (sheet->is_csv)
		cell_write_csv(sheet, text);
	else if (!sheet->is_failed)
		cell_keep(sheet, text);
}

void sheet_number(struct sheet *sheet, uint64_t number)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRIu64, number);
	sheet_text(sheet, text);
}

void sheet_bytes(struct sheet *sheet, struct coppice_bytes bytes)
{
	char text[BYTES_TEXT_MAX];

	bytes_text(bytes, sheet->is_csv, text);
	sheet_text(sheet, text);
}

void sheet_size(struct sheet *sheet, uint64_t bytes)
{
	sheet_bytes(sheet, (struct coppice_bytes){ COPPICE_EXACT, bytes });
}

void sheet_time(struct sheet *sheet, int64_t ns)
{
	char text[TIME_TEXT_MAX];

	time_text(ns, text);
	sheet_text(sheet, text);
}

/* ---- the table ---- */

static const char *cell_get(const struct sheet *sheet, size_t row, size_t column)
{
	return sheet->data + sheet->cell[row * sheet->n_columns + column];
}

static void table_unrefp(struct libscols_table **table)
{
	scols_unref_table(*table);
}

int sheet_print_smartcols(const struct sheet *sheet, struct coppice_error *err)
{
	_cleanup_(table_unrefp) struct libscols_table *table = scols_new_table();
	size_t n_rows = sheet->n_cells / sheet->n_columns;

	if (!table)
		return cli_fail_memory(err);
	(void)scols_table_set_stream(table, sheet->out);
	(void)scols_table_enable_noheadings(table, !sheet->has_heading);
	/* Never shorten what somebody wants to read or paste. */
	(void)scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER);
	for (size_t c = 0; c < sheet->n_columns; c++)
		if (!scols_table_new_column(table, sheet->column[c].title, 0,
					    sheet->column[c].is_right ? SCOLS_FL_RIGHT : 0))
			return cli_fail_memory(err);
	for (size_t row = 0; row < n_rows; row++) {
		struct libscols_line *line = scols_table_new_line(table, NULL);

		for (size_t c = 0; line && c < sheet->n_columns; c++)
			if (scols_line_set_data(line, c, cell_get(sheet, row, c)) < 0)
				line = NULL;
		if (!line)
			return cli_fail_memory(err);
	}
	if (scols_print_table(table) < 0)
		return cli_fail(err, COPPICE_FAILED, "cannot print the table");
	return COPPICE_OK;
}

static void pad(FILE *out, size_t n)
{
	while (n-- > 0)
		(void)putc_unlocked(' ', out);
}

/* Columns that a text takes; of what is not ASCII there is only ≤, which takes one. */
static size_t text_width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		if (((unsigned char)*text & 0xc0) != 0x80)
			n++;
	return n;
}

/* One line: right-aligned cells, and the last one if it is left-aligned, end it exactly. */
static void line_write(const struct sheet *sheet, const size_t *width, size_t row, bool is_heading)
{
	for (size_t c = 0; c < sheet->n_columns; c++) {
		const char *text = is_heading ? sheet->column[c].title : cell_get(sheet, row, c);
		bool is_last = c + 1 == sheet->n_columns;
		size_t blank = width[c] - text_width(text);

		/* libsmartcols leaves an empty last cell away. */
		if (sheet->column[c].is_right && !(is_last && *text == '\0'))
			pad(sheet->out, blank);
		(void)fputs_unlocked(text, sheet->out);
		if (!sheet->column[c].is_right && !is_last)
			pad(sheet->out, blank);
		(void)putc_unlocked(is_last ? '\n' : ' ', sheet->out);
	}
}

int sheet_print_plain(const struct sheet *sheet, struct coppice_error *err)
{
	_cleanup_(freep) size_t *width = calloc(sheet->n_columns, sizeof(*width));
	size_t n_rows = sheet->n_cells / sheet->n_columns;

	if (!width)
		return cli_fail_memory(err);
	for (size_t c = 0; c < sheet->n_columns; c++)
		width[c] = sheet->has_heading ? strlen(sheet->column[c].title) : 0;
	for (size_t i = 0; i < sheet->n_cells; i++) {
		size_t length = text_width(sheet->data + sheet->cell[i]);

		if (length > width[i % sheet->n_columns])
			width[i % sheet->n_columns] = length;
	}
	if (sheet->has_heading)
		line_write(sheet, width, 0, true);
	for (size_t row = 0; row < n_rows; row++)
		line_write(sheet, width, row, false);
	return COPPICE_OK;
}

/* Nothing but printable ASCII and ≤? Then the simple way gives the same. */
static bool is_simple(const struct sheet *sheet)
{
	for (size_t i = 0; i < sheet->length; i++) {
		char c = sheet->data[i];

		if (c == '\0' || (c >= ' ' && c <= '~'))
			continue;
		if (strncmp(sheet->data + i, "≤", strlen("≤")) != 0)
			return false;
		i += strlen("≤") - 1;
	}
	return true;
}

int sheet_end(struct sheet *sheet, struct coppice_error *err)
{
	if (sheet->is_failed)
		return cli_fail_memory(err);
	if (sheet->is_csv || sheet->n_cells == 0)
		return COPPICE_OK;
	if (sheet->n_cells / sheet->n_columns > SMARTCOLS_ROWS_MAX && is_simple(sheet))
		return sheet_print_plain(sheet, err);
	return sheet_print_smartcols(sheet, err);
}
