/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A hundred clones of an image, in one call: all of them, or none.
 *
 *	clone-hundred IMAGE [PREFIX]
 */

#include <stdio.h>

#include "coppice.h"

#define HOW_MANY 100

static int make(struct coppice *coppice, const char *image, const char *prefix,
		struct coppice_error *err)
{
	static char text[HOW_MANY][64];
	const char *names[HOW_MANY];
	int r;

	for (int i = 0; i < HOW_MANY; i++) {
		(void)snprintf(text[i], sizeof(text[i]), "%s%d", prefix, i + 1);
		names[i] = text[i];
	}
	r = coppice_instance_init(coppice, image, names, HOW_MANY, NULL, 0, NULL, err);
	if (r == COPPICE_OK)
		(void)printf("%s to %s\n", names[0], names[HOW_MANY - 1]);
	return r;
}

int main(int argc, char **argv)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct coppice *coppice = NULL;
	int r;

	if (argc < 2) {
		(void)fprintf(stderr, "usage: clone-hundred IMAGE [PREFIX]\n");
		return coppice_exit_status(COPPICE_INVALID);
	}
	r = coppice_open(NULL, &coppice, &err);
	if (r == COPPICE_OK)
		r = make(coppice, argv[1], argc > 2 ? argv[2] : "c", &err);
	if (r != COPPICE_OK)
		(void)fprintf(stderr, "clone-hundred: %s\n", err.message);
	coppice_close(coppice);
	return coppice_exit_status((enum coppice_code)r);
}
