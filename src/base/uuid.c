/* SPDX-License-Identifier: Apache-2.0 */
#include "base/uuid.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "base/file.h"

/*
 * The first 48 bits rise with time and within a process: 22 bits count 64 seconds
 * each (they come round after 8 years), 26 begin anywhere and count up.
 */
static uint64_t next_48_bits(uint32_t fresh)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static pid_t owner; /* a forked child must not count on where its parent is */
	static uint32_t counter;
	uint64_t period = (uint64_t)(now_ns() / 1000000000) / 64;
	uint64_t bits;

	(void)pthread_mutex_lock(&lock);
	if (owner != getpid()) {
		owner = getpid();
		counter = fresh;
	}
	bits = (period & 0x3fffff) << 26 | (counter++ & 0x3ffffff);
	(void)pthread_mutex_unlock(&lock);
	return bits;
}

int uuid_new(struct uuid *ret, struct coppice_error *err)
{
	unsigned char b[16];
	uint64_t bits;
	uint32_t fresh;

	if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
		return fail_errno(err, errno, "cannot get random numbers");
	memcpy(&fresh, b, sizeof(fresh));
	bits = next_48_bits(fresh);
	for (size_t i = 0; i < 6; i++)
		b[i] = (unsigned char)(bits >> (40 - 8 * i));
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x80); /* RFC 9562, version 8: of our own making */
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	(void)snprintf(ret->text, sizeof(ret->text),
		       "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
		       b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
		       b[13], b[14], b[15]);
	return COPPICE_OK;
}

bool uuid_parse(const char *text, struct uuid *ret)
{
	if (strlen(text) != UUID_TEXT_SIZE - 1)
		return false;
	for (size_t i = 0; i < UUID_TEXT_SIZE - 1; i++) {
		bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (is_dash ? text[i] != '-' : !strchr("0123456789abcdef", text[i]))
			return false;
	}
	memcpy(ret->text, text, UUID_TEXT_SIZE);
	return true;
}

uint64_t uuid_first_48_bits(const struct uuid *uuid)
{
	char digits[13];

	memcpy(digits, uuid->text, 8);
	memcpy(digits + 8, uuid->text + 9, 4);
	digits[12] = '\0';
	return strtoull(digits, NULL, 16);
}
