/* SPDX-License-Identifier: Apache-2.0 */
#include "place.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/generic/remove.h"
#include "fuzz.h"
#include "image/unpack/extract.h"
#include "image/unpack/report.h"
#include "image/unpack/warnings.h"

/*
 * In memory where there is such a place; made once for each process.
 *	PLACE/beside	what a hostile archive would like to change
 *	PLACE/target/	where it is unpacked
 */
static int place_fd = -1;
static char place_path[64];
static struct stat beside;
static pid_t owner;

static void place_remove(void)
{
	if (getpid() != owner)
		return;
	(void)unlinkat(place_fd, "beside", 0);
	(void)rmdir(place_path);
}

static void place_make(void)
{
	int fd;

	(void)snprintf(place_path, sizeof(place_path), "%s/coppice-fuzz.XXXXXX",
		       access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	must(mkdtemp(place_path));
	owner = getpid();
	(void)atexit(place_remove);
	place_fd = open(place_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(place_fd >= 0);
	fd = openat(place_fd, "beside", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, "beside", 6) == 6 && fstat(fd, &beside) == 0);
	(void)close(fd);
	(void)umask(0);
}

static void must_be_untouched(void)
{
	struct dirent **entry;
	struct stat st;
	int n = scandir(place_path, &entry, NULL, NULL);

	must(n == 4); /* . and .. too */
	while (n > 0)
		free(entry[--n]);
	free(entry);
	must(fstatat(place_fd, "beside", &st, AT_SYMLINK_NOFOLLOW) == 0);
	must(st.st_ino == beside.st_ino && st.st_mode == beside.st_mode && st.st_nlink == 1 &&
	     st.st_size == beside.st_size && st.st_uid == beside.st_uid &&
	     st.st_mtim.tv_sec == beside.st_mtim.tv_sec &&
	     st.st_ctim.tv_nsec == beside.st_ctim.tv_nsec);
}

void place_unpack(struct source *source, uint8_t kind)
{
	static const char *const what[] = { UNPACK_IMAGE, UNPACK_METADATA, UNPACK_ROOTFS,
					    UNPACK_IMAGE };
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct extraction result = { 0 };
	int fd, r;

	if (place_fd < 0)
		place_make();
	must(mkdirat(place_fd, "target", 0700) == 0);
	fd = openat(place_fd, "target", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(fd >= 0);
	r = extract(source, what[kind % 4], kind % 4 == 3 ? -1 : fd, &result, &err);
	must_explain(r, &err);
	free(result.metadata);
	(void)close(fd);
	must_be_untouched();
	r = tree_remove(place_fd, "target", 1, &err);
	if (r < 0)
		fprintf(stderr, "%s\n", err.message);
	must(r == COPPICE_OK);
}

/* What the unpacker tells goes nowhere here, but must be fit to be told. */
void report_write(char type, const void *data, size_t length)
{
	must(length <= REPORT_FRAME_MAX);
}

void warn_once(enum warning kind, const char *fmt, ...)
{
	char line[512];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	must(kind < WARNINGS && line[0] != '\0');
}
