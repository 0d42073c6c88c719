/* SPDX-License-Identifier: Apache-2.0 */
/* Names of logical volumes. */
#include "driver/lvm/lvm.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "base/text.h"
#include "driver/generic/volume_hash.h"

static const char *const kind_words[VOLUME_KINDS] = {
	[VOLUME_IMAGE] = "images",
	[VOLUME_CONTAINER] = "containers",
	[VOLUME_VIRTUAL_MACHINE] = "virtual-machines",
	[VOLUME_CUSTOM] = "custom",
};

const char *lvm_kind_word(enum volume_kind kind)
{
	return kind_words[kind];
}

/* What LVM calls its own parts, wherever it is in a name: lvm(8), "VALID NAMES". */
static const char *const reserved[] = {
	"_cdata", "_cmeta",  "_corig", "_cpool",   "_cvol",   "_imeta",
	"_iorig", "_mimage", "_mlog",  "_pmspare", "_rimage", "_rmeta",
	"_tdata", "_tmeta",  "_vdata", "_vorigin", "_wcorig",
};

static bool is_reserved(const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++)
		if (strncmp(text, reserved[i], strlen(reserved[i])) == 0)
			return true;
	return false;
}

static void encode(struct text *to, const char *name)
{
	for (const char *c = name; *c; c++) {
		if (*c == '-')
			text_add(to, "--");
		else if (isalnum((unsigned char)*c) || *c == '.' || (*c == '_' && !is_reserved(c)))
			text_add(to, "%c", *c);
		else
			text_add(to, "+%02x", (unsigned char)*c);
	}
}

static int hex_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Up to a single dash, or the end; NULL: it is none of ours. */
static const char *decode(const char *text, char ret[static VOLUME_NAME_MAX + 1])
{
	size_t n = 0;

	while (*text && !(text[0] == '-' && text[1] != '-')) {
		char c = *text;

		if (n == VOLUME_NAME_MAX)
			return NULL;
		if (c == '-') {
			text += 2;
		} else if (c == '+') {
			int high = hex_of(text[1]), low = high < 0 ? -1 : hex_of(text[2]);

			if (low < 0 || high + low == 0)
				return NULL;
			c = (char)(high << 4 | low);
			text += 3;
		} else {
			text++;
		}
		ret[n++] = c;
	}
	ret[n] = '\0';
	return n > 0 ? text : NULL;
}

/* As the kernel has it, where the dash between group and volume is single. */
static size_t length_in_kernel(const char *name)
{
	size_t n = 0;

	for (const char *c = name; *c; c++)
		n += *c == '-' ? 2 : 1;
	return n;
}

/* Of dm-ioctl.h, without its NUL. */
#define DM_NAME_MAX 127

uint64_t lvm_hash(const struct volume_ref *ref, const char *record)
{
	return volume_hash(kind_words[ref->kind], ref, record);
}

int lvm_name(const struct lvm_pool *lvm, const struct volume_ref *ref, char ret[static LV_NAME_MAX],
	     struct coppice_error *err)
{
	_cleanup_(text_done) struct text text = TEXT_INIT;
	_cleanup_(freep) char *name = NULL;
	char shown[VOLUME_REF_TEXT_MAX];

	text_add(&text, "%s_", kind_words[ref->kind]);
	encode(&text, ref->name.text);
	if (volume_is_snapshot(ref)) {
		text_add(&text, "-");
		encode(&text, ref->snapshot.text);
	}
	name = text_take(&text);
	if (!name)
		return fail_memory(err);
	if (length_in_kernel(lvm->vg) + 1 + length_in_kernel(name) <= DM_NAME_MAX)
		(void)snprintf(ret, LV_NAME_MAX, "%s", name);
	else if (volume_is_snapshot(ref)) /* what it is called its tags say */
		(void)snprintf(ret, LV_NAME_MAX, "snap_%016llx",
			       (unsigned long long)lvm_hash(ref, ""));
	else
		return fail(err, COPPICE_INVALID,
			    "the name '%s' is too long for LVM: '%s/%s' would have more than %d "
			    "letters, dashes counted twice",
			    volume_ref_format(ref, shown), lvm->vg, name, DM_NAME_MAX);
	return COPPICE_OK;
}

bool lvm_name_parse(const char *name, struct volume_ref *ret)
{
	for (int kind = 0; kind < VOLUME_KINDS; kind++) {
		struct volume_ref ref = { .kind = (enum volume_kind)kind };
		size_t n = strlen(kind_words[kind]);
		const char *end;

		if (strncmp(name, kind_words[kind], n) != 0 || name[n] != '_')
			continue;
		end = decode(name + n + 1, ref.name.text);
		if (!end || *end)
			return false;
		*ret = ref;
		return true;
	}
	return false;
}

void lvm_device(const struct lvm_pool *lvm, const char *name, char ret[static PATH_MAX])
{
	const char *const parts[] = { lvm->vg, name };
	size_t n = (size_t)snprintf(ret, PATH_MAX, "/dev/mapper/");

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (i > 0)
			ret[n++] = '-';
		for (const char *c = parts[i]; *c && n < PATH_MAX - 3; c++) {
			ret[n++] = *c;
			if (*c == '-')
				ret[n++] = '-';
		}
	}
	ret[n] = '\0';
}
