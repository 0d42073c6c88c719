/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How one thing looks in each format, wherever it is shown. */

#include "cli/doc.h"
#include "cli/sheet.h"

/* list.c */
extern const struct column instance_columns[];
extern const size_t n_instance_columns;
void instance_row(struct sheet *sheet, const struct coppice_instance *instance);
/* @is_whole: with snapshots and configuration, which were asked for. */
void instance_doc(struct doc *doc, const struct coppice_instance *instance, bool is_whole);

/* df.c */
extern const struct column space_columns[];
extern const size_t n_space_columns;
void space_row(struct sheet *sheet, const struct coppice_pool_space *space);
/* The keys alone: into an object that is open. */
void space_doc_keys(struct doc *doc, const struct coppice_pool_space *space);

/* card.c: a thing by itself, for people: a title and a value on each line */
struct sheet card_start(void);
void card_text(struct sheet *card, const char *title, const char *text); /* not if NULL */
void card_number(struct sheet *card, const char *title, uint64_t number);
void card_bytes(struct sheet *card, const char *title, struct coppice_bytes bytes);
void card_time(struct sheet *card, const char *title, int64_t ns);
void card_settings(struct sheet *card, const char *title, const struct coppice_settings *settings);

/* config.c: settings by themselves */
int settings_show(const struct coppice_settings *settings, enum format format,
		  struct coppice_error *err);
