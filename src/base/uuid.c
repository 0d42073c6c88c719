/* SPDX-License-Identifier: Apache-2.0 */
#include "base/uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

int uuid_new(struct uuid *ret, struct coppice_error *err)
{
	unsigned char b[16];

	if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
		return fail_errno(err, errno, "cannot get random numbers");
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
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
