/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Many names from few words. Shells expand c{1..100} themselves; a quoted one,
 * or one from a script that runs no shell, is expanded here by the same rules.
 */

#include <ctype.h>
#include <string.h>

#include "cli/cli.h"

int words_add(struct words *words, const char *word, struct coppice_error *err)
{
	if (words->n == words->capacity) {
		size_t capacity = words->capacity ? words->capacity * 2 : 16;
		const char **grown = reallocarray(words->word, capacity, sizeof(*grown));

		if (!grown)
			return cli_fail_memory(err);
		words->word = grown;
		words->capacity = capacity;
	}
	words->word[words->n++] = word;
	return COPPICE_OK;
}

static int names_add(struct request *request, char *name, struct coppice_error *err)
{
	/* Grows at powers of two: the count says when. */
	if ((request->n_names & (request->n_names - 1)) == 0) {
		size_t capacity = request->n_names ? request->n_names * 2 : 1;
		char **grown = reallocarray(request->names, capacity, sizeof(*grown));

		if (!grown) {
			free(name);
			return cli_fail_memory(err);
		}
		request->names = grown;
	}
	request->names[request->n_names++] = name;
	if (request->n_names > NAMES_MAX)
		return cli_fail(err, COPPICE_INVALID, "more than %d names", NAMES_MAX);
	return COPPICE_OK;
}

/* A brace expression: { inner } at [open, close]. */
struct brace {
	const char *open;
	const char *close;
};

/* Is the text between the braces "1..100"? */
static bool range_parse(const struct brace *brace, long *ret_from, long *ret_to, int *ret_width)
{
	const char *from = brace->open + 1;
	const char *dots = strstr(from, "..");
	const char *to = dots ? dots + 2 : NULL;

	if (!dots || dots >= brace->close || dots == from || to == brace->close)
		return false;
	if (dots - from > 18 || brace->close - to > 18)
		return false;
	for (const char *at = from; at < brace->close; at++)
		if (!isdigit((unsigned char)*at) && at != dots && at != dots + 1)
			return false;
	*ret_from = strtol(from, NULL, 10);
	*ret_to = strtol(to, NULL, 10);
	/* As bash: a leading zero on either side pads all to the longer one. */
	*ret_width = 0;
	if ((*from == '0' && dots - from > 1) || (*to == '0' && brace->close - to > 1))
		*ret_width =
			(int)(dots - from > brace->close - to ? dots - from : brace->close - to);
	return true;
}

/* Find the first brace that can be expanded: a range or a list. */
static bool brace_find(const char *word, struct brace *ret)
{
	for (const char *open = strchr(word, '{'); open; open = strchr(open + 1, '{')) {
		struct brace brace = { open, open + strcspn(open, "}") };
		long from, to;
		int width;

		if (*brace.close == '\0' || memchr(open + 1, '{', brace.close - open - 1))
			continue;
		if (range_parse(&brace, &from, &to, &width) ||
		    memchr(open, ',', brace.close - open)) {
			*ret = brace;
			return true;
		}
	}
	return false;
}

static int word_expand(struct request *request, const char *word, struct coppice_error *err);

/* Put @middle in place of the brace, and go on with what follows it. */
static int brace_put(struct request *request, const char *word, const struct brace *brace,
		     const char *middle, size_t length, struct coppice_error *err)
{
	_cleanup_(freep) char *name = NULL;

	if (asprintf(&name, "%.*s%.*s%s", (int)(brace->open - word), word, (int)length, middle,
		     brace->close + 1) < 0) {
		name = NULL;
		return cli_fail_memory(err);
	}
	return word_expand(request, name, err);
}

static int range_expand(struct request *request, const char *word, const struct brace *brace,
			long from, long to, int width, struct coppice_error *err)
{
	long step = from <= to ? 1 : -1;

	for (long i = from;; i += step) {
		char number[24];
		int length = snprintf(number, sizeof(number), "%0*ld", width, i);
		int r = brace_put(request, word, brace, number, (size_t)length, err);

		if (r < 0 || i == to)
			return r;
	}
}

static int list_expand(struct request *request, const char *word, const struct brace *brace,
		       struct coppice_error *err)
{
	for (const char *item = brace->open + 1;;) {
		size_t length = strcspn(item, ",}");
		int r = brace_put(request, word, brace, item, length, err);

		if (r < 0 || item + length >= brace->close)
			return r;
		item += length + 1;
	}
}

static int word_expand(struct request *request, const char *word, struct coppice_error *err)
{
	struct brace brace;
	long from, to;
	int width;
	char *name;

	if (!brace_find(word, &brace)) {
		name = strdup(word);
		return name ? names_add(request, name, err) : cli_fail_memory(err);
	}
	if (range_parse(&brace, &from, &to, &width))
		return range_expand(request, word, &brace, from, to, width, err);
	return list_expand(request, word, &brace, err);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_refuse_twice(const struct request *request, struct coppice_error *err)
{
	_cleanup_(freep) char **sorted = NULL;

	if (request->n_names < 2)
		return COPPICE_OK;
	sorted = reallocarray(NULL, request->n_names, sizeof(*sorted));
	if (!sorted)
		return cli_fail_memory(err);
	memcpy(sorted, request->names, request->n_names * sizeof(*sorted));
	qsort(sorted, request->n_names, sizeof(*sorted), compare_names);
	for (size_t i = 1; i < request->n_names; i++)
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			return cli_fail(err, COPPICE_INVALID, "'%s' is named twice", sorted[i]);
	return COPPICE_OK;
}

int names_expand(struct request *request, size_t first, struct coppice_error *err)
{
	for (size_t i = first; i < request->words.n; i++) {
		int r = word_expand(request, request->words.word[i], err);

		if (r < 0)
			return r;
	}
	return names_refuse_twice(request, err);
}

int names_count(struct request *request, size_t first, struct coppice_error *err)
{
	if (request->words.n != first + 1)
		return cli_fail(err, COPPICE_INVALID, "--count takes one name, not %zu",
				request->words.n - first);
	for (size_t i = 1; i <= request->count; i++) {
		char *name = NULL;
		int r;

		if (asprintf(&name, "%s%zu", request->words.word[first], i) < 0)
			return cli_fail_memory(err);
		r = names_add(request, name, err);
		if (r < 0)
			return r;
	}
	return COPPICE_OK;
}
