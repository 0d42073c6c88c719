/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A target is one function that is given bytes from anywhere, and a corpus in
 * corpus/NAME. Linked with libFuzzer it looks for more (make fuzz); linked with
 * corpus.c it is a test that runs what was found before.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer's name for it. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must be true of any input. */
#define must(expr)                                                                                 \
	do {                                                                                       \
		if (!(expr)) {                                                                     \
			fprintf(stderr, "%s:%d: not: %s\n", __FILE__, __LINE__, #expr);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* The input as a string of its own, ended by its first NUL. free() it. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	must(text);
	memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/* An error that was returned: one line that says something. */
#define must_explain(r, err)                                                                       \
	do {                                                                                       \
		must((r) == COPPICE_OK || (err)->message[0] != '\0');                              \
		must((r) == COPPICE_OK || (int)(err)->code == (r));                                \
	} while (0)
