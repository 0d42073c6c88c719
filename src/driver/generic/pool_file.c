/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/pool_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>

#include "base/file.h"
#include "base/text.h"

#define SIZE_DEFAULT_MIN (5ULL << 30)
#define SIZE_DEFAULT_MAX (30ULL << 30)

int pool_file_size(const struct pool_spec *spec, const struct pool_file *file, uint64_t *ret,
		   struct coppice_error *err)
{
	const char *text = spec->get(spec, "size");
	struct statvfs fs;
	uint64_t size;

	if (text) {
		if (!size_parse(text, &size))
			return fail(err, COPPICE_INVALID, "size '%s' is no size, such as 20GiB",
				    text);
		if (size < (uint64_t)file->smallest_mib << 20)
			return fail(err, COPPICE_INVALID,
				    "size '%s' is too small for %s: at least %uMiB", text,
				    file->engine, file->smallest_mib);
	} else {
		if (statvfs(spec->state_path, &fs) < 0)
			return fail_errno(err, errno, "cannot look at '%s'", spec->state_path);
		size = (uint64_t)fs.f_bavail * fs.f_frsize / 5;
		size = size < SIZE_DEFAULT_MIN ? SIZE_DEFAULT_MIN : size;
		size = size > SIZE_DEFAULT_MAX ? SIZE_DEFAULT_MAX : size;
	}
	*ret = size & ~0xfffULL;
	return COPPICE_OK;
}

int pool_file_make(const struct pool_spec *spec, const struct pool_file *file,
		   struct coppice_error *err)
{
	_cleanup_(freep) char *folder = text_format("%s/disks", spec->state_path);
	_cleanup_(closep) int fd = -1;
	uint64_t size = 0;
	int r;

	if (!folder)
		return fail_memory(err);
	r = pool_file_size(spec, file, &size, err);
	if (r == COPPICE_OK)
		r = directory_ensure(AT_FDCWD, folder, 0711, err);
	if (r < 0)
		return r;
	fd = retry(open(file->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	if (fd < 0 && errno == EEXIST)
		return fail(err, COPPICE_EXISTS,
			    "'%s' exists already; to use the pool in it: coppice storage recover "
			    "%s %s source=%s",
			    file->path, spec->name, file->driver, file->path);
	if (fd < 0)
		return fail_errno(err, errno, "cannot create '%s'", file->path);
	if (retry(ftruncate(fd, (off_t)size)) < 0 ||
	    (file->is_preallocated && retry(fallocate(fd, 0, 0, (off_t)size)) < 0)) {
		r = fail_errno(err, errno, "cannot make '%s' %llu bytes large", file->path,
			       (unsigned long long)size);
		(void)unlink(file->path);
	}
	return r;
}
