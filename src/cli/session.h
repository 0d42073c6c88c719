/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The library's handle with all that it tells us while it works: notes, progress, signals. */

#include "cli/cli.h"

struct session {
	const struct request *request;
	struct coppice *coppice;
	bool has_progress; /* may there be a bar: is standard error a terminal? */
	bool is_drawn;     /* is one on the screen now? */
	int64_t drawn_ms;
	FILE *explain; /* where native commands go */
};

/* Catch SIGINT and SIGTERM from now on: they undo, they do not kill. */
void session_catch_signals(void);

int session_open(struct session *session, const struct request *request, struct coppice_error *err);

/* Why the first line of --explain that was lost was; 0: none was. */
int session_explain_errno(void);

/* Takes the bar away, too. */
void session_close(struct session *session);
