/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What coppice-unpack answers, which the library does not trust: a stranger's archive may
 * have taken it over. The reading side is all static, so it is compiled into this file.
 */
#include "image/import.c"

#include "fuzz.h"

enum {
	PIPE_SIZE = 65536 /* what a pipe takes without a reader */
};

/* A child that has said these bytes and ended. */
static int pipe_of(const uint8_t *data, size_t size)
{
	int ends[2];

	must(pipe2(ends, O_CLOEXEC) == 0);
	must(write(ends[1], data, size) == (ssize_t)size);
	(void)close(ends[1]);
	return ends[0];
}

static void must_be_one_line(const char *text)
{
	must(!strchr(text, '\n') && !strchr(text, '\033'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(image_info_done) struct image_info info = { 0 };
	struct image_read how = { .name = "image.tar" };
	struct sha256_ctx sha256;
	_cleanup_(reading_done) struct reading reading = reading_of(&how, &info, &sha256);
	struct coppice_error err = COPPICE_ERROR_INIT;
	int r;

	if (size > PIPE_SIZE)
		return 0;
	reading.report = pipe_of(data, size);
	r = report_take(&reading, &err);
	must_explain(r, &err);
	must_be_one_line(err.message);
	must(info.n_warnings <= REPORT_WARNINGS_MAX);
	for (size_t i = 0; i < info.n_warnings; i++)
		must_be_one_line(info.warning[i]);
	if (r == COPPICE_OK && info.is_unified) {
		r = describe_metadata(&reading, &info, &err);
		must_explain(r, &err);
	}
	return 0;
}
