/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/device_mount.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/file.h"

void mountinfo_unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && isdigit((unsigned char)from[1]) &&
		    isdigit((unsigned char)from[2]) && isdigit((unsigned char)from[3])) {
			*to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/*
 * A line of mountinfo: "254:3" is its third field, the place the fifth; after " - " come the type
 * and the source, which tells of Btrfs, where the number is none of a device.
 */
static bool is_of_device(const char *line, dev_t device, const char *path,
			 char where[static PATH_MAX])
{
	const char *rest = strstr(line, " - ");
	char type[32], source[PATH_MAX];
	unsigned major, minor;

	if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &major, &minor, where) != 3)
		return false;
	mountinfo_unescape(where);
	return makedev(major, minor) == device ||
	       (rest && sscanf(rest, " - %31s %4095s", type, source) == 2 &&
		strcmp(type, "btrfs") == 0 && strcmp(source, path) == 0);
}

bool device_mount_find(const char *device, mount_place_fn *is_place, const void *user, bool is_ours,
		       char ret[static PATH_MAX])
{
	_cleanup_(fclosep) FILE *file = NULL;
	_cleanup_(freep) char *line = NULL;
	char where[PATH_MAX];
	bool is_found = false;
	size_t size = 0;
	struct stat st;

	if (stat(device, &st) < 0 || !S_ISBLK(st.st_mode))
		return false;
	file = fopen("/proc/self/mountinfo", "re");
	while (file && getline(&line, &size, file) > 0)
		if (is_of_device(line, st.st_rdev, device, where) &&
		    is_place(user, where) == is_ours) {
			(void)snprintf(ret, PATH_MAX, "%s", where);
			is_found = true;
		}
	return is_found;
}

int folders_ensure(const char *top, const char *path, struct coppice_error *err)
{
	_cleanup_(freep) char *copy = strdup(path);
	int r = COPPICE_OK;

	if (!copy)
		return fail_memory(err);
	for (char *slash = copy + strlen(top) + 1; r == COPPICE_OK;) {
		slash = strchr(slash, '/');
		if (!slash)
			break;
		*slash = '\0';
		r = directory_ensure(AT_FDCWD, copy, 0700, err);
		*slash++ = '/';
	}
	return r < 0 ? r : directory_ensure(AT_FDCWD, path, 0755, err);
}
