/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/generic/pool_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
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

static int fail_exists(const struct pool_spec *spec, const struct pool_file *file,
		       struct coppice_error *err)
{
	return fail(err, COPPICE_EXISTS,
		    "'%s' exists already; to use the pool in it: coppice storage recover %s %s "
		    "source=%s",
		    file->path, spec->name, file->driver, file->path);
}

static int fail_size(const struct pool_file *file, uint64_t size, int os_errno,
		     struct coppice_error *err)
{
	return fail_errno(err, os_errno, "cannot make '%s' %llu bytes large", file->path,
			  (unsigned long long)size);
}

/* Where files cannot be without a name, it will show when it is made. */
static int check_size(const struct pool_spec *spec, const struct pool_file *file, uint64_t size,
		      struct coppice_error *err)
{
	_cleanup_(freep) char *folder = text_format("%s/disks", spec->state_path);
	_cleanup_(closep) int fd = -1;
	struct statvfs fs;

	if (!folder)
		return fail_memory(err);
	fd = retry(open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
	if (fd < 0 && errno == ENOENT)
		fd = retry(open(spec->state_path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
	if (fd < 0)
		return COPPICE_OK;
	if (retry(ftruncate(fd, (off_t)size)) < 0)
		return fail_size(file, size, errno, err);
	if (file->is_preallocated && fstatvfs(fd, &fs) == 0 &&
	    size / fs.f_frsize > (uint64_t)fs.f_bfree)
		return fail_size(file, size, ENOSPC, err);
	return COPPICE_OK;
}

int pool_file_check(const struct pool_spec *spec, const struct pool_file *file,
		    struct coppice_error *err)
{
	uint64_t size = 0;
	int r = pool_file_size(spec, file, &size, err);

	if (r == COPPICE_OK && faccessat(AT_FDCWD, file->path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		r = fail_exists(spec, file, err);
	return r < 0 ? r : check_size(spec, file, size, err);
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
		return fail_exists(spec, file, err);
	if (fd < 0)
		return fail_errno(err, errno, "cannot create '%s'", file->path);
	if (retry(ftruncate(fd, (off_t)size)) < 0 ||
	    (file->is_preallocated && retry(fallocate(fd, 0, 0, (off_t)size)) < 0)) {
		r = fail_size(file, size, errno, err);
		(void)unlink(file->path);
	}
	return r;
}

/* *ret: is there a byte in the file that is not 0? Holes are skipped. */
static int has_data(int fd, const char *path, bool *ret, struct coppice_error *err)
{
	static const char zeros[65536];
	char buffer[65536];
	off_t at = 0;
	ssize_t n = 0;

	*ret = false;
	while (!*ret && (at = lseek(fd, at, SEEK_DATA)) >= 0 &&
	       (n = pread(fd, buffer, sizeof(buffer), at)) > 0) {
		*ret = memcmp(buffer, zeros, (size_t)n) != 0;
		at += n;
	}
	if (n < 0 || (at < 0 && errno != ENXIO))
		return fail_errno(err, errno, "cannot read '%s'", path);
	return COPPICE_OK;
}

int pool_file_refuse_data(const struct pool_spec *spec, const char *path, struct coppice_error *err)
{
	_cleanup_(closep) int fd = -1;
	struct stat st;
	bool has;
	int r;

	if (pool_spec_is_true(spec, "source.wipe") || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return COPPICE_OK;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	r = has_data(fd, path, &has, err);
	if (r == COPPICE_OK && has)
		r = fail(err, COPPICE_EXISTS,
			 "'%s' holds data, and all of it would be lost; to lose it: "
			 "source.wipe=true",
			 path);
	return r;
}

int pool_file_refuse_small(const char *path, const char *engine, unsigned smallest_mib,
			   struct coppice_error *err)
{
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size >= (uint64_t)smallest_mib << 20)
		return COPPICE_OK;
	return fail(err, COPPICE_INVALID, "'%s' is too small for %s: at least %uMiB", path, engine,
		    smallest_mib);
}

int pool_file_host(const char *path, struct pool_host *ret, struct coppice_error *err)
{
	struct statvfs fs;
	uint64_t allocated;
	struct stat st;

	if (stat(path, &st) < 0 || statvfs(path, &fs) < 0)
		return fail_errno(err, errno, "cannot look at '%s'", path);
	allocated = (uint64_t)st.st_blocks * 512;
	*ret = (struct pool_host){
		.free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize,
		.growth_bytes =
			(uint64_t)st.st_size > allocated ? (uint64_t)st.st_size - allocated : 0,
	};
	return COPPICE_OK;
}
