/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/volume.h"

#include <ctype.h>
#include <string.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS  "0123456789"

static const char *const kind_names[VOLUME_KINDS] = {
	[VOLUME_IMAGE] = "image",
	[VOLUME_CONTAINER] = "container",
	[VOLUME_VIRTUAL_MACHINE] = "virtual-machine",
	[VOLUME_CUSTOM] = "custom",
};

/* Why @text is no instance name, or NULL when it is one. */
static const char *instance_name_problem(const char *text)
{
	size_t length = strlen(text);

	if (length == 0)
		return "it is empty";
	if (length > 63)
		return "it is longer than 63 characters";
	if (text[strspn(text, LETTERS DIGITS "-")] != '\0')
		return "only ASCII letters, digits and dashes are allowed";
	if (isdigit((unsigned char)text[0]) || text[0] == '-')
		return "it must not begin with a digit or a dash";
	if (text[length - 1] == '-')
		return "it must not end with a dash";
	return NULL;
}

static const char *label_problem(const char *text)
{
	size_t length = strlen(text);

	if (length == 0)
		return "it is empty";
	if (length > 63)
		return "it is longer than 63 characters";
	if (text[strspn(text, LETTERS DIGITS "-_.:")] != '\0')
		return "only ASCII letters, digits and '-', '_', '.', ':' are allowed";
	if (text[0] == '-' || text[0] == '.')
		return "it must not begin with a dash or a dot";
	return NULL;
}

static const char *fingerprint_problem(const char *text)
{
	if (strlen(text) != 64 || text[strspn(text, DIGITS "abcdef")] != '\0')
		return "it must be 64 lower-case hexadecimal digits";
	return NULL;
}

static int parse(const char *what, const char *problem, const char *text, struct volume_name *ret,
		 struct coppice_error *err)
{
	if (problem)
		return fail(err, COPPICE_INVALID, "invalid %s '%s': %s", what, text, problem);
	(void)snprintf(ret->text, sizeof(ret->text), "%.*s", VOLUME_NAME_MAX, text);
	return COPPICE_OK;
}

int instance_name_parse(const char *text, struct volume_name *ret, struct coppice_error *err)
{
	return parse("instance name", instance_name_problem(text), text, ret, err);
}

int snapshot_name_parse(const char *text, struct volume_name *ret, struct coppice_error *err)
{
	return parse("snapshot name", label_problem(text), text, ret, err);
}

int fingerprint_parse(const char *text, struct volume_name *ret, struct coppice_error *err)
{
	return parse("fingerprint", fingerprint_problem(text), text, ret, err);
}

int pool_name_parse(const char *text, struct volume_name *ret, struct coppice_error *err)
{
	return parse("pool name", label_problem(text), text, ret, err);
}

/* Looser than names, as aliases are never paths: debian/12, ubuntu:24.04. */
int alias_parse(const char *text, char ret[static 256], struct coppice_error *err)
{
	size_t length = strlen(text);

	if (length == 0 || length > 255 || text[0] == '-' ||
	    text[strspn(text, LETTERS DIGITS "-_.:/+@")] != '\0')
		return fail(err, COPPICE_INVALID,
			    "invalid alias '%s': 1 to 255 ASCII letters, digits and '-_.:/+@', "
			    "not beginning with a dash",
			    text);
	if (!fingerprint_problem(text))
		return fail(err, COPPICE_INVALID, "invalid alias '%s': it is a fingerprint", text);
	memcpy(ret, text, length + 1);
	return COPPICE_OK;
}

int instance_ref_parse(const char *text, struct volume_ref *ret, struct coppice_error *err)
{
	struct volume_ref ref = { .kind = VOLUME_CONTAINER };
	const char *slash = strchr(text, '/');
	char name[256];
	int r;

	if (!slash) {
		r = instance_name_parse(text, &ref.name, err);
	} else {
		(void)snprintf(name, sizeof(name), "%.*s", (int)(slash - text), text);
		r = instance_name_parse(name, &ref.name, err);
		if (r == COPPICE_OK)
			r = snapshot_name_parse(slash + 1, &ref.snapshot, err);
	}
	if (r < 0)
		return r;
	*ret = ref;
	return COPPICE_OK;
}

bool volume_name_is_valid(enum volume_kind kind, const char *name)
{
	switch (kind) {
	case VOLUME_IMAGE:
		return !fingerprint_problem(name);
	case VOLUME_CONTAINER:
	case VOLUME_VIRTUAL_MACHINE:
		return !instance_name_problem(name);
	case VOLUME_CUSTOM:
		return !label_problem(name);
	case VOLUME_KINDS:
		break;
	}
	return false;
}

const char *volume_kind_name(enum volume_kind kind)
{
	return kind < VOLUME_KINDS ? kind_names[kind] : NULL;
}

bool volume_kind_parse(const char *name, enum volume_kind *ret)
{
	for (size_t kind = 0; kind < VOLUME_KINDS; kind++) {
		if (strcmp(kind_names[kind], name) == 0) {
			*ret = (enum volume_kind)kind;
			return true;
		}
	}
	return false;
}

const char *volume_ref_format(const struct volume_ref *ref, char buffer[static VOLUME_REF_TEXT_MAX])
{
	(void)snprintf(buffer, VOLUME_REF_TEXT_MAX, "%s%s%s", ref->name.text,
		       volume_is_snapshot(ref) ? "/" : "", ref->snapshot.text);
	return buffer;
}

int volume_compare(const void *a, const void *b)
{
	const struct volume_ref *x = a, *y = b;

	return x->kind != y->kind ? (int)x->kind - (int)y->kind
				  : strcmp(x->name.text, y->name.text);
}
