/* SPDX-License-Identifier: Apache-2.0 */
/* Words of the command line: ranges of names, and key=value. */
#include "cli/cli.h"
#include "fuzz.h"

enum {
	WORDS_MAX = 16
};

/* Each line is a word. */
static void split(char *text, struct words *words, const char *word[static WORDS_MAX])
{
	char *line;

	while (words->n < WORDS_MAX && (line = strsep(&text, "\n")) != NULL)
		word[words->n++] = line;
	words->word = word;
}

static void settings(const struct words *words)
{
	struct request request = { 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;
	int r = settings_parse(&request, words, 0, true, &err);

	must_explain(r, &err);
	for (size_t i = 0; r == COPPICE_OK && i < request.n_settings; i++)
		must(request.settings[i].key[0] != '\0' || words->n == 2);
	request_done(&request);
}

static void names(const struct words *words, size_t count)
{
	struct request request = { .words = *words, .count = count };
	struct coppice_error err = COPPICE_ERROR_INIT;
	int r = count ? names_count(&request, 0, &err) : names_expand(&request, 0, &err);

	must_explain(r, &err);
	must(request.n_names <= NAMES_MAX + 1);
	request.words = (struct words){ 0 }; /* borrowed */
	request_done(&request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *word[WORDS_MAX];
	struct words words = { 0 };
	char *text = fuzz_text(data, size);
	uint64_t bytes;

	split(text, &words, word);
	settings(&words);
	names(&words, 0);
	names(&words, 3);
	for (size_t i = 0; i < words.n; i++) {
		(void)size_parse(words.word[i], &bytes);
		(void)help_nearest_command(words.word[i]);
	}
	free(text);
	return 0;
}
