/* SPDX-License-Identifier: Apache-2.0 */

/* Lines, sizes and times as people read and write them. */

#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

static const struct {
	const char *suffix;
	uint64_t factor;
} size_units[] = {
	{ "", 1 },
	{ "B", 1 },
	{ "kB", 1000 },
	{ "MB", 1000ULL * 1000 },
	{ "GB", 1000ULL * 1000 * 1000 },
	{ "TB", 1000ULL * 1000 * 1000 * 1000 },
	{ "KiB", 1ULL << 10 },
	{ "MiB", 1ULL << 20 },
	{ "GiB", 1ULL << 30 },
	{ "TiB", 1ULL << 40 },
};

bool size_parse(const char *text, uint64_t *ret)
{
	uint64_t number = 0;
	const char *at = text;

	for (; isdigit((unsigned char)*at); at++)
		if (__builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, (uint64_t)(*at - '0'), &number))
			return false;
	if (at == text)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(size_units); i++) {
		if (strcmp(at, size_units[i].suffix) != 0)
			continue;
		return !__builtin_mul_overflow(number, size_units[i].factor, ret) &&
		       *ret <= INT64_MAX;
	}
	return false;
}

void size_text(uint64_t bytes, char ret[static SIZE_TEXT_MAX])
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		(void)snprintf(ret, SIZE_TEXT_MAX, "%uB", (unsigned)bytes);
		return;
	}
	for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++)
		value /= 1024;
	(void)snprintf(ret, SIZE_TEXT_MAX, "%.2f%s", value, units[unit]);
}

void line_say(const char *begin, const char *text)
{
	_cleanup_(freep) char *line = strdup(text);

	if (line)
		coppice_text_make_printable(line);
	(void)fprintf(stderr, "coppice: %s%s\n", begin, line ? line : "out of memory");
}

void time_text(int64_t ns, char ret[static TIME_TEXT_MAX])
{
	time_t seconds = (time_t)(ns / 1000000000);
	struct tm tm;

	/* No strftime(): ten thousand of them show in `list`. */
	if (ns <= 0 || !gmtime_r(&seconds, &tm)) {
		(void)snprintf(ret, TIME_TEXT_MAX, "unknown");
		return;
	}
	(void)snprintf(ret, TIME_TEXT_MAX, "%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900,
		       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

void bytes_text(struct coppice_bytes bytes, bool is_raw, char ret[static BYTES_TEXT_MAX])
{
	const char *mark = bytes.known == COPPICE_AT_MOST ? "≤" : "";
	char size[SIZE_TEXT_MAX];

	if (bytes.known == COPPICE_UNKNOWN) {
		(void)snprintf(ret, BYTES_TEXT_MAX, "unknown");
		return;
	}
	if (is_raw)
		(void)snprintf(size, sizeof(size), "%" PRIu64, bytes.bytes);
	else
		size_text(bytes.bytes, size);
	(void)snprintf(ret, BYTES_TEXT_MAX, "%s%s", mark, size);
}
