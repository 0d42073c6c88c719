/* SPDX-License-Identifier: Apache-2.0 */
/* A tar archive, unpacked. Its last byte says as what. */
#include "fuzz.h"
#include "image/unpack/source.h"
#include "image/unpack/stream.h"
#include "place.h"

/* The archive's plain bytes, here without a thread: pieces of the input. */
struct stream {
	const uint8_t *data;
	size_t size, at;
};

int stream_next(struct stream *stream, const void **ret, size_t *ret_length,
		struct coppice_error *err)
{
	enum {
		PIECE = 1000
	};
	size_t left = stream->size - stream->at;

	*ret = stream->data + stream->at;
	*ret_length = left < PIECE ? left : PIECE;
	stream->at += *ret_length;
	return COPPICE_OK;
}

uint64_t stream_given_bytes(const struct stream *stream)
{
	return stream->at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stream stream = { data, size, 0 };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct source *source = NULL;
	int r = tar_source_new(&stream, &source, &err);

	must_explain(r, &err);
	if (r < 0)
		return 0;
	place_unpack(source, size > 0 ? data[size - 1] : 0);
	source->free(source);
	return 0;
}
