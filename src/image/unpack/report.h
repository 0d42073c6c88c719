/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What coppice-unpack and coppice-pack tell the library, on standard output: a few frames,
 * each a struct report_frame and that many bytes. Both ends are built together,
 * so this needs no version; but the reader trusts nothing in it, because the
 * writer has been reading a stranger's archive.
 *
 *	'W' a warning, one line                              any number
 *	'M' the bytes of metadata.yaml                       at most one
 *	'I' struct report_info                               one, all is unpacked
 *	'D' nothing                                          one, all is packed: coppice-pack
 *	'E' struct report_error and the message              or this one
 *
 * An archive's own faults have the code COPPICE_INVALID and a message that goes
 * on after the archive's name: "is truncated".
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

#define REPORT_FRAME_MAX    (1u << 20) /* bytes in a frame: metadata.yaml is the largest */
#define REPORT_WARNINGS_MAX 16

/* What standard input is: an argument of coppice-unpack. */
#define UNPACK_TAR      "tar" /* a channel that the bytes of a tar come through, compressed or not */
#define UNPACK_SQUASHFS "squashfs" /* a file that is one */

/* What the archive shall be: an argument of coppice-unpack. */
#define UNPACK_IMAGE    "image"    /* a root file system, or LXD's unified image: it will show */
#define UNPACK_METADATA "metadata" /* the first file of a split image: all but a rootfs */
#define UNPACK_ROOTFS   "rootfs"   /* the second: whatever it looks like */

/* The descriptors of coppice-unpack beside standard input, output and error. */
#define REPORT_KEEP_FD    3 /* held until the end, never used; absent when there is none */
#define REPORT_ARCHIVE_FD 3 /* of coppice-pack: where the archive goes */

struct report_frame {
	uint32_t type;
	uint32_t length;
};

struct report_info {
	uint64_t n_entries;
	uint64_t unpacked_bytes;
	uint32_t is_unified; /* a frame 'M' came before */
	uint32_t reserved;
};

struct report_error {
	int32_t code;
	int32_t os_errno;
};

/* Write one frame to standard output. A reader that is gone ends the program. */
_nonnull_ void report_write(char type, const void *data, size_t length);

struct coppice_error;
_nonnull_ void report_write_error(const struct coppice_error *err);
