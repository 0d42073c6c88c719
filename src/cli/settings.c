/* SPDX-License-Identifier: Apache-2.0 */

/* key=value words. Which keys there are, and what they may be, the library knows. */

#include <string.h>

#include "cli/cli.h"

static int settings_add(struct request *request, const char *key, size_t length, const char *value,
			struct coppice_error *err)
{
	struct coppice_setting *grown =
		reallocarray(request->settings, request->n_settings + 1, sizeof(*grown));
	char *copy;

	if (!grown)
		return cli_fail_memory(err);
	request->settings = grown;
	copy = strndup(key, length);
	if (!copy)
		return cli_fail_memory(err);
	for (size_t i = 0; i < request->n_settings; i++) {
		if (strcmp(request->settings[i].key, copy) != 0)
			continue;
		free(copy);
		return cli_fail(err, COPPICE_INVALID, "'%.*s' is set twice", (int)length, key);
	}
	request->settings[request->n_settings++] = (struct coppice_setting){ copy, value };
	return COPPICE_OK;
}

int settings_parse(struct request *request, const struct words *words, size_t first, bool can_pair,
		   struct coppice_error *err)
{
	if (can_pair && words->n == first + 2 && !strchr(words->word[first], '='))
		return settings_add(request, words->word[first], strlen(words->word[first]),
				    words->word[first + 1], err);
	for (size_t i = first; i < words->n; i++) {
		const char *word = words->word[i];
		const char *equals = strchr(word, '=');
		int r;

		if (!equals || equals == word)
			return cli_fail(err, COPPICE_INVALID, "'%s' is not key=value", word);
		r = settings_add(request, word, (size_t)(equals - word), equals + 1, err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

int settings_unset(struct request *request, size_t first, struct coppice_error *err)
{
	for (size_t i = first; i < request->words.n; i++) {
		const char *word = request->words.word[i];
		int r;

		if (strchr(word, '='))
			return cli_fail(err, COPPICE_INVALID, "'%s' is not a key", word);
		r = settings_add(request, word, strlen(word), NULL, err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}

const char *settings_get(const struct coppice_settings *settings, const char *key)
{
	for (size_t i = 0; i < settings->n; i++)
		if (strcmp(settings->setting[i].key, key) == 0)
			return settings->setting[i].value;
	return NULL;
}
