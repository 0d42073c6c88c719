/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into coppice: it is killed when it is about to rename an image of RBD for the
 * COPPICE_KILL_AT_RENAME-th time. So the middle of a swap is met, and not only when a random
 * instant falls there.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>

typedef int rename_fn(void *io, const char *from, const char *to);

__attribute__((visibility("default"))) int rbd_rename(void *io, const char *from, const char *to);

int rbd_rename(void *io, const char *from, const char *to)
{
	/* It was loaded with the driver, which keeps it to itself. */
	void *library = dlopen("librbd.so.1", RTLD_LAZY | RTLD_NOLOAD);
	rename_fn *real = library ? (rename_fn *)dlsym(library, "rbd_rename") : NULL;
	const char *at = getenv("COPPICE_KILL_AT_RENAME");
	static int n;

	if (!real || (at && ++n == atoi(at)))
		(void)raise(SIGKILL);
	return real(io, from, to);
}
