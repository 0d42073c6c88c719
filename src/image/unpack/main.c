/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coppice-unpack: the only part of Coppice that looks into archives.
 *
 * A program of its own, because a stranger's archive is read here, by large
 * libraries, as root: it can be confined, and the library stays free of those
 * libraries and starts fast. Started by image_read() only:
 *
 *	coppice-unpack PARENT-PID MEMORY-LIMIT-BYTES FORMAT WHAT [TARGET-DIRECTORY]
 *
 * with the archive on standard input. report.h has its answers, and what FORMAT
 * and WHAT can be.
 */
#include <string.h>

#include "image/unpack/acl.h"
#include "image/unpack/confine.h"
#include "image/unpack/extract.h"
#include "image/unpack/report.h"

static int source_new(bool is_squashfs, uint64_t memory_limit_bytes, struct source **ret,
		      struct coppice_error *err)
{
	struct stream *stream = NULL;

	if (is_squashfs)
		return squash_source_new(STDIN_FILENO, memory_limit_bytes, ret, err);
	if (stream_new(STDIN_FILENO, memory_limit_bytes, &stream, err) < 0)
		return err->code;
	return tar_source_new(stream, ret, err);
}

/* As on the command line. */
struct order {
	pid_t parent;
	uint64_t memory_limit_bytes;
	bool is_squashfs;
	const char *what;
	const char *target_path; /* or NULL */
};

static int unpack(const struct order *order, struct extraction *result, struct coppice_error *err)
{
	_cleanup_(source_freep) struct source *source = NULL;
	int root_fd = -1;

	if (confine_begin(order->parent, err) < 0)
		return err->code;
	acl_names_open();
	if (confine(order->target_path, order->memory_limit_bytes, &root_fd, err) < 0 ||
	    source_new(order->is_squashfs, order->memory_limit_bytes, &source, err) < 0)
		return err->code;
	return extract(source, order->what, root_fd, result, err);
}

static void tell(const struct extraction *result)
{
	struct report_info info = {
		.n_entries = result->n_entries,
		.unpacked_bytes = result->unpacked_bytes,
		.is_unified = result->is_unified,
	};

	if (result->metadata)
		report_write('M', result->metadata, result->metadata_length);
	report_write('I', &info, sizeof(info));
}

/* _exit(): the decoder's thread may still be at work on an archive that was given up. */
int main(int argc, char **argv)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct extraction result = { 0 };
	struct order order;

	if (argc < 5 || argc > 6) {
		fprintf(stderr, "coppice-unpack is run by coppice, not by hand\n");
		_exit(2);
	}
	order = (struct order){
		.parent = (pid_t)strtol(argv[1], NULL, 10),
		.memory_limit_bytes = strtoull(argv[2], NULL, 10),
		.is_squashfs = strcmp(argv[3], UNPACK_SQUASHFS) == 0,
		.what = argv[4],
		.target_path = argc == 6 ? argv[5] : NULL,
	};
	if (unpack(&order, &result, &err) < 0) {
		report_write_error(&err);
		_exit(1);
	}
	tell(&result);
	_exit(0);
}
