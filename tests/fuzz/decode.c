/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed bytes of a stranger, in pieces of any size. */
#include "image/unpack/decode.h"

#include "fuzz.h"

enum {
	OUTPUT_MAX = 1 << 22, /* in all; bombs are stopped elsewhere */
	MEMORY_MAX = 16 << 20
};

/* Consumes all of @data, pieces of which are as long as @piece says. */
static void decode(struct decoder *decoder, const uint8_t *data, size_t size, size_t piece)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	uint8_t buffer[4096];
	size_t at = 0, total = 0;
	unsigned n_idle = 0;

	while (n_idle < 2 && total < OUTPUT_MAX) {
		size_t n = size - at < piece ? size - at : piece;
		struct decode_input in = { data + at, n, at + n == size };
		struct decode_output out = { buffer, 0, sizeof(buffer) };
		int r = decoder_step(decoder, &in, &out, &err);

		must_explain(r, &err);
		must(out.length <= out.capacity && in.length <= n);
		if (r < 0)
			return;
		n_idle = in.length == n && out.length == 0 ? n_idle + 1 : 0;
		at += n - in.length;
		total += out.length;
	}
	(void)decoder_is_complete(decoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct decode_input start = { data, size, true };
	size_t piece = size > 0 && data[size - 1] & 1 ? data[size - 1] : size + 1;
	struct decoder *decoder = NULL;
	int r = decoder_new(&start, MEMORY_MAX, &decoder, &err);

	must_explain(r, &err);
	if (r < 0)
		return 0;
	decode(decoder, data, size, piece);
	decoder_free(decoder);
	return 0;
}
