/* SPDX-License-Identifier: Apache-2.0 */

/* `coppice --help`, and the name that was probably meant. */

#include <string.h>

#include "cli/cli.h"

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;

	return ab < c ? ab : c;
}

size_t text_distance(const char *a, const char *b)
{
	size_t row[64];
	size_t nb = strlen(b);

	if (nb >= ARRAY_SIZE(row) || strlen(a) >= ARRAY_SIZE(row))
		return SIZE_MAX;
	for (size_t j = 0; j <= nb; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			size_t above = row[j];

			row[j] = min3(above + 1, row[j - 1] + 1,
				      diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
			diagonal = above;
		}
	}
	return row[nb];
}

const char *help_nearest_command(const char *word)
{
	const char *nearest = NULL;
	size_t best = 3;

	for (const struct command *c = commands; c->name; c++) {
		size_t distance = c->run ? text_distance(word, c->name) : best;

		if (distance < best && distance < strlen(word)) {
			best = distance;
			nearest = c->name;
		}
	}
	return nearest;
}

const struct command *command_find(const char *name)
{
	for (const struct command *c = commands; c->name; c++)
		if (c->run && strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

bool command_is_group(const char *words)
{
	size_t length = strlen(words);

	for (const struct command *c = commands; c->name; c++)
		if (c->run && strncmp(c->name, words, length) == 0 && c->name[length] == ' ')
			return true;
	return false;
}

void help_commands(const char *group, FILE *out)
{
	size_t length = group ? strlen(group) : 0;

	(void)fprintf(out, "Usage: coppice [OPTION...] %s%sCOMMAND [ARGUMENT...]\n",
		      group ? group : "", group ? " " : "");
	if (!group)
		(void)fprintf(out, "Hundreds of writable container root filesystems from one "
				   "image, in the time and\nthe space of one.\n");
	for (const struct command *c = commands; c->name; c++) {
		if (group && (!c->run || strncmp(c->name, group, length) != 0))
			continue;
		if (c->run)
			(void)fprintf(out, "  %-20s  %s\n", c->name, c->summary);
		else
			(void)fprintf(out, "\n%s:\n", c->name);
	}
	(void)fputc('\n', out);
	options_help(NULL, out);
	(void)fprintf(out, "\n'coppice COMMAND --help' shows how to use one, with an example.\n");
}
