/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The public header, as others include it: alone and first, in C99 without GNU
 * words and in C++. Compiled by tests/unit/header, not run.
 */

#include "coppice.h"

int main(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	/* Each kind of declaration once, so that its type is complete where it must be. */
	return err.code == COPPICE_OK && coppice_exit_status(err.code) == 0 && coppice_version()
		       ? 0
		       : 1;
}
