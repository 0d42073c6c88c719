/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries without an archive around them, so that a fuzzer spends its time on names and
 * links, in any order and combination, and not on checksums.
 *
 *	input: KIND { TYPE MODE OWNER SIZE path NUL [target NUL] }…
 */
#include <sys/stat.h>

#include "fuzz.h"
#include "image/unpack/source.h"
#include "place.h"

enum {
	ENTRIES_MAX = 64
};

struct script {
	struct source source;
	const uint8_t *at, *end;
	size_t n;
	struct archive_entry *entry;
	size_t left; /* bytes of content to be given */
};

static struct script *script_of(struct source *source)
{
	return (struct script *)source; /* its first member */
}

static uint8_t take_byte(struct script *script)
{
	return script->at < script->end ? *script->at++ : 0;
}

/* Up to the next NUL, or the end. free() it. */
static char *take_word(struct script *script)
{
	size_t left = (size_t)(script->end - script->at);
	char *word = strndup((const char *)script->at, left);

	must(word);
	script->at += strlen(word) < left ? strlen(word) + 1 : left;
	return word;
}

static mode_t type_of(uint8_t byte)
{
	static const mode_t types[] = { S_IFREG, S_IFDIR, S_IFLNK,  S_IFCHR,
					S_IFBLK, S_IFIFO, S_IFSOCK, 0 };

	return types[byte % (sizeof(types) / sizeof(types[0]))];
}

/* Attributes that are the image's business, and that are not. */
static void put_attributes(struct archive_entry *entry, uint8_t byte)
{
	static const char *const name[] = { "user.mark",
					    "security.capability",
					    "trusted.coppice",
					    "trusted.overlay.opaque",
					    "system.posix_acl_access",
					    "bare",
					    "" };

	if (byte & 0x80)
		archive_entry_xattr_add_entry(entry, name[byte % 7], "value", byte % 6);
	if (byte & 0x40)
		archive_entry_acl_add_entry(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, byte % 8,
					    ARCHIVE_ENTRY_ACL_USER, byte, "somebody");
}

static int script_next(struct source *source, struct archive_entry **ret, struct coppice_error *err)
{
	struct script *script = script_of(source);
	struct archive_entry *entry = archive_entry_clear(script->entry);
	char *path, *target;
	uint8_t type, mode;

	*ret = NULL;
	if (script->at == script->end || script->n++ == ENTRIES_MAX)
		return COPPICE_OK;
	type = take_byte(script);
	mode = take_byte(script);
	archive_entry_set_uid(entry, take_byte(script));
	put_attributes(entry, mode ^ type);
	script->left = type_of(type) == S_IFREG ? take_byte(script) : 0;
	path = take_word(script);
	archive_entry_set_pathname(entry, path);
	archive_entry_set_mode(entry, type_of(type) | (mode_t)(mode << 4));
	archive_entry_set_size(entry, (la_int64_t)script->left << (mode & 8 ? 30 : 0));
	archive_entry_set_mtime(entry, mode, 0);
	if (type_of(type) == S_IFLNK || type & 0x80) {
		target = take_word(script);
		if (type & 0x80)
			archive_entry_set_hardlink(entry, target);
		else
			archive_entry_set_symlink(entry, target);
		free(target);
	}
	free(path);
	*ret = entry;
	return COPPICE_OK;
}

/* Two pieces with a hole between them. */
static int script_read(struct source *source, const void **ret, size_t *ret_length,
		       uint64_t *ret_offset, struct coppice_error *err)
{
	static const char text[256] = "architecture: x86_64\ncreation_date: 1\n";
	struct script *script = script_of(source);

	*ret = text;
	*ret_length = script->left > 100 ? 100 : script->left;
	*ret_offset = script->left > 100 ? 0 : 4096;
	script->left -= *ret_length;
	return COPPICE_OK;
}

static void script_free(struct source *source)
{
	archive_entry_free(script_of(source)->entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script script = {
		.source = { .next = script_next, .read = script_read, .free = script_free },
		.at = data,
		.end = data + size,
		.entry = archive_entry_new(),
	};
	uint8_t kind = take_byte(&script);

	must(script.entry);
	place_unpack(&script.source, kind);
	script_free(&script.source);
	return 0;
}
