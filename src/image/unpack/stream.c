/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that reads standard input and decodes it, and the ring it fills. */
#include "image/unpack/stream.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "image/unpack/decode.h"

enum {
	SLOTS = 8,
	SLOT_SIZE = 512 * 1024,
	INPUT_SIZE = 256 * 1024
};

struct stream {
	int fd;
	uint64_t memory_limit_bytes;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	size_t n_filled;  /* slots the decoder has published, ever */
	size_t n_emptied; /* slots the caller has given back, ever */
	bool is_lent;     /* the caller still looks at slot n_emptied */
	bool is_ended;
	uint64_t given_bytes;
	struct coppice_error err; /* of the decoder; valid once ended */
	size_t length[SLOTS];
	uint8_t slot[SLOTS][SLOT_SIZE];
	uint8_t input[INPUT_SIZE];
};

/* ---- the decoder's side ---- */

/* Wait for an empty slot. */
static uint8_t *slot_take(struct stream *stream)
{
	pthread_mutex_lock(&stream->mutex);
	while (stream->n_filled - stream->n_emptied == SLOTS)
		pthread_cond_wait(&stream->changed, &stream->mutex);
	pthread_mutex_unlock(&stream->mutex);
	return stream->slot[stream->n_filled % SLOTS];
}

static void slot_publish(struct stream *stream, struct decode_output *out)
{
	if (out->length > 0) {
		pthread_mutex_lock(&stream->mutex);
		stream->length[stream->n_filled % SLOTS] = out->length;
		stream->n_filled++;
		pthread_cond_broadcast(&stream->changed);
		pthread_mutex_unlock(&stream->mutex);
	}
	out->length = 0;
	out->data = slot_take(stream);
}

/* Fill the input up to @wanted bytes, or to its end. */
static int input_fill(struct stream *stream, struct decode_input *in, size_t wanted,
		      struct coppice_error *err)
{
	in->data = stream->input;
	while (in->length < wanted && !in->is_last) {
		ssize_t n = read(stream->fd, stream->input + in->length, INPUT_SIZE - in->length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(err, errno, "cannot read the archive");
		in->length += (size_t)n;
		in->is_last = n == 0;
	}
	return COPPICE_OK;
}

static int decode_all(struct stream *stream, struct decoder *decoder, struct decode_input *in,
		      struct coppice_error *err)
{
	struct decode_output out = { slot_take(stream), 0, SLOT_SIZE };
	unsigned n_idle = 0;

	/* liblzma says only the second time that there is no more to be had. */
	while (n_idle < 2) {
		size_t had_in, had_out;
		int r = in->length > 0 ? COPPICE_OK : input_fill(stream, in, 1, err);

		if (r < 0)
			return r;
		had_in = in->length;
		had_out = out.length;
		r = decoder_step(decoder, in, &out, err);
		if (r < 0)
			return r;
		if (in->is_last && in->length == had_in && out.length == had_out)
			n_idle++;
		else
			n_idle = 0;
		if (out.length == out.capacity)
			slot_publish(stream, &out);
	}
	slot_publish(stream, &out);
	if (!decoder_is_complete(decoder))
		return fail(err, COPPICE_INVALID, "is truncated");
	return COPPICE_OK;
}

static int decode(struct stream *stream, struct coppice_error *err)
{
	enum {
		ENOUGH_TO_TELL = 512
	};
	_cleanup_(decoder_freep) struct decoder *decoder = NULL;
	struct decode_input in = { 0 };
	int r = input_fill(stream, &in, ENOUGH_TO_TELL, err);

	if (r < 0)
		return r;
	if (in.length == 0)
		return fail(err, COPPICE_INVALID, "is empty");
	r = decoder_new(&in, stream->memory_limit_bytes, &decoder, err);
	if (r < 0)
		return r;
	return decode_all(stream, decoder, &in, err);
}

static void *decode_thread(void *user)
{
	struct stream *stream = user;
	struct coppice_error err = COPPICE_ERROR_INIT;

	(void)decode(stream, &err);
	pthread_mutex_lock(&stream->mutex);
	stream->err = err;
	stream->is_ended = true;
	pthread_cond_broadcast(&stream->changed);
	pthread_mutex_unlock(&stream->mutex);
	return NULL;
}

/* ---- the caller's side ---- */

int stream_new(int fd, uint64_t memory_limit_bytes, struct stream **ret, struct coppice_error *err)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	pthread_t thread;
	int r;

	if (!stream)
		return fail_memory(err);
	stream->fd = fd;
	stream->memory_limit_bytes = memory_limit_bytes;
	pthread_mutex_init(&stream->mutex, NULL);
	pthread_cond_init(&stream->changed, NULL);
	r = pthread_create(&thread, NULL, decode_thread, stream);
	if (r != 0) {
		free(stream);
		return fail_errno(err, r, "cannot start the decoder");
	}
	pthread_detach(thread);
	*ret = stream;
	return COPPICE_OK;
}

int stream_next(struct stream *stream, const void **ret, size_t *ret_length,
		struct coppice_error *err)
{
	size_t i, length = 0;

	pthread_mutex_lock(&stream->mutex);
	if (stream->is_lent) {
		stream->n_emptied++;
		stream->is_lent = false;
		pthread_cond_broadcast(&stream->changed);
	}
	while (stream->n_filled == stream->n_emptied && !stream->is_ended)
		pthread_cond_wait(&stream->changed, &stream->mutex);
	i = stream->n_emptied % SLOTS;
	if (stream->n_filled > stream->n_emptied) {
		length = stream->length[i];
		stream->is_lent = true;
	}
	pthread_mutex_unlock(&stream->mutex);
	if (length == 0 && stream->err.code < 0) {
		*err = stream->err;
		return err->code;
	}
	stream->given_bytes += length;
	*ret = stream->slot[i];
	*ret_length = length;
	return COPPICE_OK;
}

uint64_t stream_given_bytes(const struct stream *stream)
{
	return stream->given_bytes;
}
