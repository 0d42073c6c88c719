/* SPDX-License-Identifier: Apache-2.0 */
/* The decoders: each a step function over its library's stream. */
#include "image/unpack/decode.h"

#include <bzlib.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/text.h"

#define THREADS 2

enum {
	MAGIC_MAX = 6,
	TAR_MAGIC_OFFSET = 257,
	TAR_BLOCK = 512,
	START_MAX = 512
};

typedef int step_fn(struct decoder *decoder, struct decode_input *in, struct decode_output *out,
		    struct coppice_error *err);

struct decoder {
	step_fn *step;
	void (*done)(struct decoder *decoder);
	uint64_t memory_limit_bytes;
	bool is_complete;
	bool is_open;             /* between members: must be begun anew before more is decoded */
	uint8_t start[START_MAX]; /* first bytes of the input, for messages */
	size_t start_length;
	ZSTD_DStream *zstd;
	lzma_stream lzma;
	z_stream zlib;
	bz_stream bzip2;
};

static int fail_corrupt(struct coppice_error *err, const char *why)
{
	return fail(err, COPPICE_INVALID, "is corrupt (%s)", why);
}

static int fail_limit(const struct decoder *decoder, uint64_t needed_bytes,
		      struct coppice_error *err)
{
	char needed[SIZE_TEXT_MAX], limit[SIZE_TEXT_MAX];

	if (needed_bytes <= decoder->memory_limit_bytes) /* a later frame's; not known */
		return fail(err, COPPICE_INVALID,
			    "needs more memory to be decoded than the limit: see --memory-limit");
	size_format(needed_bytes, needed);
	size_format(decoder->memory_limit_bytes, limit);
	return fail(err, COPPICE_INVALID,
		    "needs %s of memory to be decoded, but the limit is %s: see --memory-limit",
		    needed, limit);
}

static void took(struct decode_input *in, size_t left)
{
	in->data += in->length - left;
	in->length = left;
}

/* ---- none ---- */

static int plain_step(struct decoder *decoder, struct decode_input *in, struct decode_output *out,
		      struct coppice_error *err)
{
	size_t room = out->capacity - out->length;
	size_t n = in->length < room ? in->length : room;

	memcpy(out->data + out->length, in->data, n);
	out->length += n;
	took(in, in->length - n);
	decoder->is_complete = true; /* the tar reader finds out whether it is */
	return COPPICE_OK;
}

/* ---- zstd ---- */

/*
 * The window that the first frame asks for, RFC 8878, 3.1.1.1; 0: not to be had.
 * The library has this in its unstable interface only.
 */
static uint64_t zstd_window_bytes(const uint8_t *frame, size_t length)
{
	enum {
		HEADER_MAX = 18
	};
	uint8_t descriptor = length > 5 ? frame[4] : 0;
	uint64_t base, size = 0;

	if (length < HEADER_MAX)
		return 0;
	if (!(descriptor & 0x20)) {
		base = 1ULL << (10 + (frame[5] >> 3));
		return base + base / 8 * (frame[5] & 7);
	}
	if (descriptor >> 6 < 2) /* a single segment is as large as its content */
		return 0;
	for (unsigned i = 0, skip = (1u << (descriptor & 3)) >> 1; i < 1u << (descriptor >> 6); i++)
		size |= (uint64_t)frame[5 + skip + i] << (8 * i);
	return size;
}

static int zstd_fail(const struct decoder *decoder, size_t result, struct coppice_error *err)
{
	uint64_t window = zstd_window_bytes(decoder->start, decoder->start_length);

	switch ((int)ZSTD_getErrorCode(result)) {
	case ZSTD_error_frameParameter_windowTooLarge:
		return fail_limit(decoder, window, err);
	case ZSTD_error_memory_allocation:
		return fail_memory(err);
	default:
		return fail_corrupt(err, ZSTD_getErrorName(result));
	}
}

static int zstd_step(struct decoder *decoder, struct decode_input *in, struct decode_output *out,
		     struct coppice_error *err)
{
	ZSTD_inBuffer from = { in->data, in->length, 0 };
	ZSTD_outBuffer to = { out->data, out->capacity, out->length };
	size_t result = ZSTD_decompressStream(decoder->zstd, &to, &from);
	bool is_progress = from.pos > 0 || to.pos > out->length;

	if (ZSTD_isError(result))
		return zstd_fail(decoder, result, err);
	took(in, in->length - from.pos);
	out->length = to.pos;
	if (is_progress) /* asked without input it tells what the next frame needs */
		decoder->is_complete = result == 0;
	return COPPICE_OK;
}

static void zstd_done(struct decoder *decoder)
{
	ZSTD_freeDStream(decoder->zstd);
}

static int zstd_init(struct decoder *decoder, struct coppice_error *err)
{
	int window_log = 63 - __builtin_clzll(decoder->memory_limit_bytes);
	ZSTD_bounds bounds = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);

	decoder->zstd = ZSTD_createDStream();
	if (!decoder->zstd)
		return fail_memory(err);
	if (window_log > bounds.upperBound)
		window_log = bounds.upperBound;
	if (window_log < bounds.lowerBound)
		window_log = bounds.lowerBound;
	ZSTD_DCtx_setParameter(decoder->zstd, ZSTD_d_windowLogMax, window_log);
	decoder->step = zstd_step;
	decoder->done = zstd_done;
	return COPPICE_OK;
}

/* ---- xz ---- */

/*
 * What the first block needs. The decoder with threads does not say (5.4.1), the
 * simple one does, when it is stopped by a limit.
 */
static uint64_t xz_needed_bytes(const struct decoder *decoder)
{
	lzma_stream probe = LZMA_STREAM_INIT;
	uint64_t needed = 0;
	uint8_t out[1];

	if (lzma_stream_decoder(&probe, 1, 0) != LZMA_OK)
		return 0;
	probe.next_in = decoder->start;
	probe.avail_in = decoder->start_length;
	probe.next_out = out;
	probe.avail_out = sizeof(out);
	if (lzma_code(&probe, LZMA_RUN) == LZMA_MEMLIMIT_ERROR)
		needed = lzma_memusage(&probe);
	lzma_end(&probe);
	return needed;
}

static int xz_fail(struct decoder *decoder, lzma_ret result, struct coppice_error *err)
{
	switch ((int)result) {
	case LZMA_MEMLIMIT_ERROR:
		return fail_limit(decoder, xz_needed_bytes(decoder), err);
	case LZMA_MEM_ERROR:
		return fail_memory(err);
	case LZMA_OPTIONS_ERROR:
		return fail(err, COPPICE_INVALID, "uses an xz filter that is not supported");
	case LZMA_FORMAT_ERROR:
		return fail_corrupt(err, "something else follows the xz stream");
	default:
		return fail_corrupt(err, "damaged xz stream");
	}
}

static int xz_step(struct decoder *decoder, struct decode_input *in, struct decode_output *out,
		   struct coppice_error *err)
{
	lzma_stream *lzma = &decoder->lzma;
	lzma_ret result;

	if (decoder->is_complete)
		return COPPICE_OK;
	lzma->next_in = in->data;
	lzma->avail_in = in->length;
	lzma->next_out = out->data + out->length;
	lzma->avail_out = out->capacity - out->length;
	result = lzma_code(lzma, in->is_last ? LZMA_FINISH : LZMA_RUN);
	took(in, lzma->avail_in);
	out->length = out->capacity - lzma->avail_out;
	if (result == LZMA_STREAM_END)
		decoder->is_complete = true;
	else if (result != LZMA_OK && result != LZMA_BUF_ERROR)
		return xz_fail(decoder, result, err);
	return COPPICE_OK; /* no progress at the end of the input: truncated, the caller sees */
}

static void xz_done(struct decoder *decoder)
{
	lzma_end(&decoder->lzma);
}

static int xz_init(struct decoder *decoder, struct coppice_error *err)
{
	lzma_mt options = {
		.flags = LZMA_CONCATENATED,
		.threads = THREADS,
		.memlimit_threading = decoder->memory_limit_bytes,
		.memlimit_stop = decoder->memory_limit_bytes,
	};

	if (lzma_stream_decoder_mt(&decoder->lzma, &options) != LZMA_OK)
		return fail_memory(err);
	decoder->step = xz_step;
	decoder->done = xz_done;
	return COPPICE_OK;
}

/* ---- gzip ---- */

/* A file may hold several members one after another; anything else is damage. */
static int gzip_begin(struct decoder *decoder, struct coppice_error *err)
{
	if (inflateReset(&decoder->zlib) != Z_OK)
		return fail_memory(err);
	decoder->is_open = true;
	return COPPICE_OK;
}

static int gzip_step(struct decoder *decoder, struct decode_input *in, struct decode_output *out,
		     struct coppice_error *err)
{
	z_stream *z = &decoder->zlib;
	int result;

	if (!decoder->is_open && in->length == 0)
		return COPPICE_OK;
	if (!decoder->is_open && gzip_begin(decoder, err) < 0)
		return err->code;
	z->next_in = (uint8_t *)(uintptr_t)in->data; /* zlib does not write to it */
	z->avail_in = (unsigned)in->length;
	z->next_out = out->data + out->length;
	z->avail_out = (unsigned)(out->capacity - out->length);
	result = inflate(z, Z_NO_FLUSH);
	took(in, z->avail_in);
	out->length = out->capacity - z->avail_out;
	decoder->is_complete = result == Z_STREAM_END;
	decoder->is_open = result != Z_STREAM_END;
	if (result == Z_MEM_ERROR)
		return fail_memory(err);
	if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
		return fail_corrupt(err, z->msg ? z->msg : "damaged gzip stream");
	return COPPICE_OK;
}

static void gzip_done(struct decoder *decoder)
{
	(void)inflateEnd(&decoder->zlib);
}

static int gzip_init(struct decoder *decoder, struct coppice_error *err)
{
	enum {
		WINDOW_BITS = 15,
		GZIP_ONLY = 16
	};

	if (inflateInit2(&decoder->zlib, WINDOW_BITS + GZIP_ONLY) != Z_OK)
		return fail_memory(err);
	decoder->is_open = true;
	decoder->step = gzip_step;
	decoder->done = gzip_done;
	return COPPICE_OK;
}

/* ---- bzip2 ---- */

static int bzip2_begin(struct decoder *decoder, struct coppice_error *err)
{
	if (BZ2_bzDecompressInit(&decoder->bzip2, 0, 0) != BZ_OK)
		return fail_memory(err);
	decoder->is_open = true;
	return COPPICE_OK;
}

static int bzip2_step(struct decoder *decoder, struct decode_input *in, struct decode_output *out,
		      struct coppice_error *err)
{
	bz_stream *bz = &decoder->bzip2;
	int result;

	if (!decoder->is_open && in->length == 0)
		return COPPICE_OK;
	if (!decoder->is_open && bzip2_begin(decoder, err) < 0)
		return err->code;
	bz->next_in = (char *)(uintptr_t)in->data; /* libbz2 does not write to it */
	bz->avail_in = (unsigned)in->length;
	bz->next_out = (char *)out->data + out->length;
	bz->avail_out = (unsigned)(out->capacity - out->length);
	result = BZ2_bzDecompress(bz);
	took(in, bz->avail_in);
	out->length = out->capacity - bz->avail_out;
	decoder->is_complete = result == BZ_STREAM_END;
	if (result == BZ_MEM_ERROR)
		return fail_memory(err);
	if (result != BZ_OK && result != BZ_STREAM_END)
		return fail_corrupt(err, "damaged bzip2 stream");
	if (decoder->is_complete) {
		(void)BZ2_bzDecompressEnd(bz);
		decoder->is_open = false;
	}
	return COPPICE_OK;
}

static void bzip2_done(struct decoder *decoder)
{
	if (decoder->is_open)
		(void)BZ2_bzDecompressEnd(&decoder->bzip2);
}

static int bzip2_init(struct decoder *decoder, struct coppice_error *err)
{
	decoder->step = bzip2_step;
	decoder->done = bzip2_done;
	return bzip2_begin(decoder, err);
}

/* ---- which one ---- */

/* An old tar has no magic: then the checksum of its first header tells. */
static bool is_tar(const uint8_t *data, size_t length)
{
	enum {
		SUM_OFFSET = 148,
		SUM_SIZE = 8
	};
	unsigned long sum = 0;
	char text[SUM_SIZE + 1] = { 0 };

	if (length < TAR_BLOCK)
		return false;
	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += i >= SUM_OFFSET && i < SUM_OFFSET + SUM_SIZE ? ' ' : data[i];
	memcpy(text, data + SUM_OFFSET, SUM_SIZE);
	return memcmp(data + TAR_MAGIC_OFFSET, "ustar", 5) == 0 || strtoul(text, NULL, 8) == sum;
}

static bool begins_with(const struct decode_input *start, const char *magic, size_t length)
{
	return start->length >= length && memcmp(start->data, magic, length) == 0;
}

static int choose(struct decoder *decoder, const struct decode_input *start,
		  struct coppice_error *err)
{
	if (begins_with(start, "\x28\xb5\x2f\xfd", 4))
		return zstd_init(decoder, err);
	if (begins_with(start,
			"\xfd"
			"7zXZ\0",
			MAGIC_MAX))
		return xz_init(decoder, err);
	if (begins_with(start, "\x1f\x8b", 2))
		return gzip_init(decoder, err);
	if (begins_with(start, "BZh", 3))
		return bzip2_init(decoder, err);
	decoder->step = plain_step;
	if (is_tar(start->data, start->length))
		return COPPICE_OK;
	return fail(
		err, COPPICE_INVALID,
		"is no image: neither a tar archive nor one compressed by zstd, xz, gzip or bzip2");
}

int decoder_new(const struct decode_input *start, uint64_t memory_limit_bytes, struct decoder **ret,
		struct coppice_error *err)
{
	_cleanup_(decoder_freep) struct decoder *decoder = calloc(1, sizeof(*decoder));
	int r;

	if (!decoder)
		return fail_memory(err);
	decoder->memory_limit_bytes = memory_limit_bytes;
	decoder->start_length = start->length < START_MAX ? start->length : START_MAX;
	memcpy(decoder->start, start->data, decoder->start_length);
	r = choose(decoder, start, err);
	if (r < 0)
		return r;
	*ret = take_ptr(&decoder);
	return COPPICE_OK;
}

void decoder_free(struct decoder *decoder)
{
	if (decoder && decoder->done)
		decoder->done(decoder);
	free(decoder);
}

int decoder_step(struct decoder *decoder, struct decode_input *in, struct decode_output *out,
		 struct coppice_error *err)
{
	return decoder->step(decoder, in, out, err);
}

bool decoder_is_complete(const struct decoder *decoder)
{
	return decoder->is_complete;
}
