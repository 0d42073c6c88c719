/* SPDX-License-Identifier: Apache-2.0 */
/* A squashfs, unpacked. Its last byte says as what. */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "image/unpack/source.h"
#include "place.h"

enum {
	MEMORY_LIMIT = 256 << 20
};

static void unpack(int fd, uint8_t kind)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct source *source = NULL;
	int r = squash_source_new(fd, MEMORY_LIMIT, &source, &err);

	must_explain(r, &err);
	if (r < 0)
		return;
	place_unpack(source, kind);
	source->free(source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	unpack(fd, size > 0 ? data[size - 1] : 0);
	(void)close(fd);
	return 0;
}
