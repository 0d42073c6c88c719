/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading images: archives are made by GNU tar and the compressors, and what
 * image_read() made of them is compared with the tree they were made of.
 * COPPICE_LIBEXECDIR says where coppice-unpack is.
 */
#include "image/import.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/text.h"
#include "tap.h"

static char work[] = "/tmp/coppice-test-image-XXXXXX";

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *where)
{
	return remove(path);
}

static void leave(void)
{
	if (chdir("/") == 0)
		(void)nftw(work, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void sh(const char *command)
{
	if (system(command) != 0)
		tap_fail("failed: %s", command);
}

/* Be in an empty directory of our own, which goes when the test ends. */
static void enter(void)
{
	if (geteuid() != 0)
		skip("unpacking needs root");
	ok(mkdtemp(work) != NULL);
	ok(atexit(leave) == 0);
	ok(chdir(work) == 0);
	(void)umask(022);
}

static void image_plain(void)
{
	sh("mkdir -p r/etc r/usr/bin && echo hello >r/etc/motd && : >r/etc/machine-id");
}

static void image_unified(void)
{
	sh("mkdir -p u/rootfs/etc u/templates && echo hello >u/rootfs/etc/motd");
	sh("printf 'architecture: x86_64\\ncreation_date: 1700000000\\nproperties:\\n"
	   "  os: Debian\\n  description: A test\\n' >u/metadata.yaml");
	sh("echo tpl >u/templates/hostname.tpl");
}

/* Read @file into ./out, or only look at it. */
static int read_with(struct image_read how, const char *file, struct image_info *info,
		     struct coppice_error *err)
{
	int r;

	*err = (struct coppice_error)COPPICE_ERROR_INIT;
	how.in_fd = open(file, O_RDONLY | O_CLOEXEC);
	ok(how.in_fd >= 0);
	how.name = file;
	if (how.target_path)
		sh("rm -rf out && mkdir out");
	r = image_read(&how, info, err);
	(void)close(how.in_fd);
	ok_int(r, ==, err->code);
	return r;
}

static int read_image(const char *file, struct image_info *info, struct coppice_error *err)
{
	struct image_read how = { .store_fd = -1, .keep_fd = -1, .target_path = "out" };

	return read_with(how, file, info, err);
}

static void refused(const char *file, enum coppice_code code, const char *text)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };
	int r = read_image(file, &info, &err);

	if (r != (int)code || !strstr(err.message, text))
		tap_fail("%s: %d '%s', not %d '%s'", file, r, err.message, (int)code, text);
	ok(strchr(err.message, '\n') == NULL);
}

static void is_accepted(const char *file, bool is_unified)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	if (read_image(file, &info, &err) < 0)
		tap_fail("%s: %s", file, err.message);
	ok_int(info.is_unified, ==, is_unified);
	sh("grep -q hello out/rootfs/etc/motd && [ ! -e out/.unpack ]");
	image_info_done(&info);
}

static const char *const compressors[][2] = {
	{ "", "cat" },          { ".gz", "gzip -c" },   { ".xz", "xz -c" },
	{ ".zst", "zstd -qc" }, { ".bz2", "bzip2 -c" },
};

static void compress_all(const char *tar)
{
	for (size_t i = 0; i < ARRAY_SIZE(compressors); i++) {
		_cleanup_(freep) char *command = text_format("%s <%s >%s.c%s", compressors[i][1],
							     tar, tar, compressors[i][0]);

		sh(command);
	}
}

static void test_plain_in_every_compression(void)
{
	enter();
	image_plain();
	sh("tar -C r -cf p.tar .");
	compress_all("p.tar");
	for (size_t i = 0; i < ARRAY_SIZE(compressors); i++) {
		_cleanup_(freep) char *file = text_format("p.tar.c%s", compressors[i][0]);

		is_accepted(file, false);
	}
}

static void test_unified_in_every_compression(void)
{
	enter();
	image_unified();
	sh("tar -C u -cf u.tar metadata.yaml templates rootfs");
	compress_all("u.tar");
	for (size_t i = 0; i < ARRAY_SIZE(compressors); i++) {
		_cleanup_(freep) char *file = text_format("u.tar.c%s", compressors[i][0]);

		is_accepted(file, true);
	}
}

static void test_several_members_are_one_stream(void)
{
	enter();
	image_plain();
	sh("tar -C r -cf p.tar . && head -c 3000 p.tar >a && tail -c +3001 p.tar >b");
	sh("for c in gzip xz bzip2 zstd; do (cat a | $c; cat b | $c) >p.$c; done 2>/dev/null");
	is_accepted("p.gzip", false);
	is_accepted("p.xz", false);
	is_accepted("p.bzip2", false);
	is_accepted("p.zstd", false);
}

static void test_metadata_may_come_last(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	enter();
	image_unified();
	sh("tar -C u -cf u.tar ./rootfs ./templates ./metadata.yaml");
	ok_int(read_image("u.tar", &info, &err), ==, COPPICE_OK);
	ok(info.is_unified);
	ok_str(info.architecture, "x86_64");
	ok_str(info.description, "A test");
	ok_int(info.created_ns, ==, 1700000000LL * 1000000000);
	ok_int(info.properties.n, ==, 2);
	ok_str(info.properties.setting[0].key, "description");
	ok_str(info.properties.setting[1].value, "Debian");
	sh("[ -f out/metadata.yaml ] && [ -f out/templates/hostname.tpl ]");
	image_info_done(&info);
}

/* ---- directories ---- */

static void fingerprint_is(const struct image_info *info, const char *command)
{
	char wanted[65] = { 0 };
	FILE *sum = popen(command, "r");

	ok(sum && fread(wanted, 1, 64, sum) == 64);
	(void)pclose(sum);
	ok_str(info->fingerprint, wanted);
}

static void test_directory_is_packed(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };
	struct image_read how = { .keep_fd = -1, .target_path = "out" };

	enter();
	image_plain();
	sh("truncate -s 3M r/usr/hole && mkfifo r/usr/fifo && ln r/etc/motd r/usr/motd");
	how.store_fd = open("stored", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ok_int(read_with(how, "r", &info, &err), ==, COPPICE_OK);
	(void)close(how.store_fd);
	fingerprint_is(&info, "sha256sum <stored");
	ok(!info.is_unified);
	sh("grep -q hello out/rootfs/etc/motd && [ -p out/rootfs/usr/fifo ] &&"
	   "[ out/rootfs/etc/motd -ef out/rootfs/usr/motd ] &&"
	   "[ $(stat -c %b out/rootfs/usr/hole) -lt 64 ] && [ $(stat -c %s stored) -lt 100000 ]");
	image_info_done(&info);
	image_unified();
	is_accepted("u", true);
}

static void test_directory_without_a_socket(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	enter();
	image_plain();
	ok_int(mknod("r/etc/socket", S_IFSOCK | 0600, 0), ==, 0);
	ok_int(read_image("r", &info, &err), ==, COPPICE_OK);
	ok_int(info.n_warnings, ==, 1);
	ok(strstr(info.warning[0], "is a socket") != NULL);
	sh("[ ! -e out/rootfs/etc/socket ]");
	image_info_done(&info);
	sh("mkdir -p r/$(printf 'd%.0s' $(seq 200)) && rm -rf r/etc r/usr");
	refused("r", COPPICE_INVALID, "is no root file system");
	ok_int(waitpid(-1, NULL, WNOHANG), ==, -1); /* no child is left */
	ok_int(errno, ==, ECHILD);
}

/* ---- split images ---- */

/* Read @metadata and @rootfs as one image into ./out. */
static int read_split(const char *metadata, const char *rootfs, struct image_info *info,
		      struct coppice_error *err)
{
	struct image_rootfs second = { .store_fd = -1, .name = rootfs };
	struct image_read how = {
		.store_fd = -1, .keep_fd = -1, .target_path = "out", .rootfs = &second
	};
	int r;

	second.in_fd = open(rootfs, O_RDONLY | O_CLOEXEC);
	ok(second.in_fd >= 0);
	r = read_with(how, metadata, info, err);
	(void)close(second.in_fd);
	return r;
}

static void split_refused(const char *metadata, const char *rootfs, const char *text)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };
	int r = read_split(metadata, rootfs, &info, &err);

	if (r != COPPICE_INVALID || !strstr(err.message, text))
		tap_fail("%s, %s: %d '%s', not '%s'", metadata, rootfs, r, err.message, text);
}

static void test_split_is_two_archives(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	enter();
	image_unified();
	sh("tar -C u -cJf meta.tar.xz metadata.yaml templates && mkdir u/rootfs/rootfs &&"
	   "echo root >u/rootfs/metadata.yaml && tar -C u/rootfs -c . | gzip >root.tar.gz");
	ok_int(read_split("meta.tar.xz", "root.tar.gz", &info, &err), ==, COPPICE_OK);
	fingerprint_is(&info, "cat meta.tar.xz root.tar.gz | sha256sum");
	ok(!info.is_unified);
	ok(info.rootfs_size_bytes > 0 && info.rootfs_size_bytes < info.size_bytes);
	ok_str(info.architecture, "x86_64");
	ok_str(info.description, "A test");
	sh("[ $(stat -c %s root.tar.gz) -gt 0 ] && grep -q hello out/rootfs/etc/motd &&"
	   "cmp u/metadata.yaml out/metadata.yaml && [ -f out/templates/hostname.tpl ] &&"
	   "[ -d out/rootfs/rootfs ] && cmp u/rootfs/metadata.yaml out/rootfs/metadata.yaml &&"
	   "[ $(ls -A out | wc -l) = 3 ]");
	image_info_done(&info);
}

static void test_split_halves_are_checked(void)
{
	enter();
	image_unified();
	sh("tar -C u -cf meta.tar metadata.yaml templates && tar -C u/rootfs -cf root.tar . &&"
	   "tar -C u -cf whole.tar . && tar -C u -cf none.tar templates && : >empty &&"
	   "head -c 2000 root.tar >cut.tar && mkdir -p l && ln -s . l/x && mkdir m &&"
	   "cp -r u/rootfs m/ && tar -C u -cf link.tar metadata.yaml && tar -C l -rf link.tar x &&"
	   "tar -C m -rf link.tar --transform='s,^,x/,' rootfs");
	split_refused("root.tar", "meta.tar", "no metadata.yaml");
	split_refused("meta.tar", "meta.tar", "'meta.tar' is no root file system");
	split_refused("whole.tar", "root.tar", "'whole.tar' has a rootfs of its own");
	split_refused("none.tar", "root.tar", "no metadata.yaml");
	split_refused("empty", "root.tar", "'empty' is empty");
	split_refused("meta.tar", "empty", "'empty' is empty");
	split_refused("meta.tar", "cut.tar", "'cut.tar' is truncated");
	split_refused("link.tar", "root.tar", "has 'rootfs' at its top");
}

/* ---- squashfs ---- */

static void test_squashfs_in_every_compression(void)
{
	static const char *const methods[] = { "gzip", "xz", "zstd", "lz4" };

	enter();
	if (system("command -v mksquashfs >/dev/null") != 0)
		skip("no mksquashfs");
	image_plain();
	image_unified();
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		_cleanup_(freep) char *command =
			text_format("rm -f p u.s && mksquashfs r p -comp %s -quiet -no-progress && "
				    "mksquashfs u u.s -comp %s -quiet -no-progress",
				    methods[i], methods[i]);

		sh(command);
		is_accepted("p", false);
		is_accepted("u.s", true);
	}
	sh("rm p && mksquashfs r p -comp lzo -quiet -no-progress");
	refused("p", COPPICE_UNSUPPORTED, "compressed by lzo");
}

static void test_squashfs_keeps_all(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };
	struct image_read how = { .keep_fd = -1, .target_path = "out" };

	enter();
	if (system("command -v mksquashfs >/dev/null") != 0)
		skip("no mksquashfs");
	image_plain();
	sh("head -c 3000001 /dev/urandom >r/usr/big && truncate -s 9M r/usr/hole &&"
	   "printf x | dd of=r/usr/hole bs=1 seek=5000000 conv=notrunc 2>/dev/null &&"
	   "ln r/etc/motd r/usr/motd && ln -s ../etc r/usr/link && mkfifo r/usr/fifo &&"
	   "mknod r/usr/null c 1 3 && mknod r/usr/disk b 259 70000 && chmod 4751 r/usr/big &&"
	   "chown 3000000:7 r/usr/big && mkdir r/usr/many && (cd r/usr/many && touch $(seq 3000)) "
	   "&& setfattr -n user.note -v 'some words' r/usr/big &&"
	   "setfattr -n trusted.coppice -v x r/usr/big && find r -exec touch -hd @1600000000 {} + "
	   "&&"
	   "mksquashfs r p.squashfs -quiet -no-progress");
	how.store_fd = open("stored", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ok_int(read_with(how, "p.squashfs", &info, &err), ==, COPPICE_OK);
	(void)close(how.store_fd);
	fingerprint_is(&info, "sha256sum <p.squashfs");
	ok_int(info.n_warnings, ==, 1);
	sh("cmp p.squashfs stored && rsync -aHnci --delete r/ out/rootfs/ | sed 's/^/# /' >diff &&"
	   "cat diff && [ ! -s diff ] && [ $(stat -c %b out/rootfs/usr/hole) -lt 2000 ] &&"
	   "[ \"$(getfattr --only-values -n user.note out/rootfs/usr/big)\" = 'some words' ] &&"
	   "! getfattr -n trusted.coppice out/rootfs/usr/big 2>/dev/null &&"
	   "[ $(stat -c %t:%T out/rootfs/usr/disk) = 103:11170 ] && [ -p out/rootfs/usr/fifo ]");
	image_info_done(&info);
}

static void test_squashfs_that_is_none(void)
{
	enter();
	if (system("command -v mksquashfs >/dev/null") != 0)
		skip("no mksquashfs");
	image_plain();
	image_unified();
	sh("head -c 3000000 /dev/urandom >r/usr/big && mksquashfs r p -quiet -no-progress &&"
	   "head -c 50 p >short && head -c 2000000 p >half && printf hsqs >magic &&"
	   "(printf hsqs; head -c 5000 /dev/urandom) >noise && mkdir -p e &&"
	   "mksquashfs e empty -quiet -no-progress && tar -C u -cf meta.tar metadata.yaml");
	refused("short", COPPICE_INVALID, "is truncated");
	refused("half", COPPICE_INVALID, "is truncated");
	refused("magic", COPPICE_INVALID, "is truncated");
	refused("noise", COPPICE_INVALID, "is corrupt");
	refused("empty", COPPICE_INVALID, "is no root file system");
	split_refused("p", "p", "not a tar archive of metadata");
	split_refused("meta.tar", "half", "'half' is truncated");
}

/* No byte of it may end the child otherwise than by its own word. */
static void test_squashfs_damaged_anywhere(void)
{
	enter();
	if (system("command -v mksquashfs >/dev/null") != 0)
		skip("no mksquashfs");
	image_plain();
	sh("(cd r/etc && touch $(seq 100)) && mksquashfs r p -noI -noX -noF -noD -quiet "
	   "-no-progress");
	for (int i = 0; i < 50; i++) {
		struct coppice_error err = COPPICE_ERROR_INIT;
		struct image_info info = { 0 };
		_cleanup_(freep) char *damage = text_format(
			"cp p bad && printf '\\377\\377' | dd of=bad bs=1 seek=%d conv=notrunc "
			"2>/dev/null",
			4 + i * 101);

		sh(damage);
		if (read_image("bad", &info, &err) < 0 && strstr(err.message, "its child"))
			tap_fail("offset %d: %s", 4 + i * 101, err.message);
		image_info_done(&info);
	}
}

static void test_fingerprint_and_stored_bytes(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };
	struct image_read how = { .keep_fd = -1, .target_path = "out" };
	char wanted[65] = { 0 };
	FILE *sum;

	enter();
	image_plain();
	sh("head -c 3000000 /dev/urandom >r/usr/bin/big && tar -C r -c . | zstd -q >p.tar.zst");
	how.store_fd = open("stored", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ok_int(read_with(how, "p.tar.zst", &info, &err), ==, COPPICE_OK);
	sum = popen("sha256sum <p.tar.zst", "r");
	ok(sum && fread(wanted, 1, 64, sum) == 64);
	(void)pclose(sum);
	ok_str(info.fingerprint, wanted);
	sh("cmp p.tar.zst stored");
	(void)close(how.store_fd);
	image_info_done(&info);
}

static void test_dry_run_writes_nothing(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };
	struct image_read how = { .store_fd = -1, .keep_fd = -1 };

	enter();
	image_unified();
	sh("tar -C u -czf u.tar . && mkdir empty");
	ok_int(read_with(how, "u.tar", &info, &err), ==, COPPICE_OK);
	ok(info.is_unified);
	ok_str(info.description, "A test");
	sh("[ -z \"$(ls empty)\" ] && [ ! -e out ]");
	image_info_done(&info);
}

/* ---- fidelity ---- */

static void tree_of_oddities(void)
{
	uint8_t capability[20] = { 1, 0, 0, 2, 0, 0x20 };

	image_plain();
	sh("cd r && echo x >etc/own && chown 1000:1000000001 etc/own && chmod 4751 etc/own &&"
	   "ln etc/own etc/hard && ln -s ../nowhere etc/sym && chown -h 7:8 etc/sym &&"
	   "ln etc/sym etc/symhard && mknod etc/null c 1 3 && mknod etc/b b 7 9 && mkfifo etc/f &&"
	   "chown 5:6 etc/null && chmod 1777 usr && chmod 2775 usr/bin && chown 0:20 usr/bin &&"
	   "truncate -s 5M etc/sparse && echo mid | dd of=etc/sparse bs=1M seek=2 conv=notrunc "
	   "2>/dev/null && truncate -s 1M etc/hole && echo a >etc/read && chmod 0 etc/read");
	sh("cd r && printf a >\"$(printf 'etc/bad\\377\\376')\" &&"
	   "printf b >\"$(printf 'etc/e\\314\\201')\" && printf c >\"$(printf 'etc/\\303\\251')\" "
	   "&&"
	   "mkdir -p etc/$(printf 'long%.0s' $(seq 40))/$(printf 'name%.0s' $(seq 60)) &&"
	   "echo deep >etc/$(printf 'long%.0s' $(seq 40))/$(printf 'name%.0s' $(seq 60))/x");
	sh("cd r && setfacl -m u:1234:rw,g:daemon:r etc/motd &&"
	   "setfacl -d -m u:1234:rwx,g:22:rx usr/bin && echo in >usr/bin/inherited &&"
	   "setfacl -b usr/bin/inherited && chmod 640 usr/bin/inherited");
	ok_int(setxattr("r/etc/motd", "user.note", "a\0b", 3, 0), ==, 0);
	ok_int(setxattr("r/etc/own", "security.capability", capability, 20, 0), ==, 0);
	ok_int(setxattr("r/etc", "user.dir", "d", 1, 0), ==, 0);
	ok_int(setxattr("r", "user.top", "t", 1, 0), ==, 0);
	ok_int(lsetxattr("r/etc/sym", "trusted.link", "l", 1, 0), ==, 0);
	sh("cd r && find . -depth -print0 | xargs -0 touch -h -d '2001-02-03 04:05:06.123456789' &&"
	   "touch -h -d '2019-01-01 00:00:00.5' etc/sym && touch -d '2020-01-01 1:2:3.4' . &&"
	   "chown 3:4 . && chmod 1711 .");
}

static size_t compared;

static void same_xattrs(const char *a, const char *b)
{
	char names[4096], other[4096], x[4096], y[4096];
	ssize_t n = llistxattr(a, names, sizeof(names));

	ok_int(n, >=, 0);
	ok_int(llistxattr(b, other, sizeof(other)), ==, n);
	for (char *name = names; name < names + n; name += strlen(name) + 1) {
		ssize_t length = lgetxattr(a, name, x, sizeof(x));

		if (lgetxattr(b, name, y, sizeof(y)) != length || length < 0 ||
		    memcmp(x, y, (size_t)length) != 0)
			tap_fail("%s differs in %s", b, name);
	}
}

static void same_content(const char *a, const char *b)
{
	_cleanup_(fclosep) FILE *x = fopen(a, "re");
	_cleanup_(fclosep) FILE *y = fopen(b, "re");
	int c;

	ok(x && y);
	while ((c = getc(x)) != EOF)
		ok_int(c, ==, getc(y));
	ok_int(getc(y), ==, EOF);
}

static int compare_one(const char *path, const struct stat *a, int flag, struct FTW *where)
{
	_cleanup_(freep) char *other = text_format("out/rootfs%s", path + 1);
	struct stat b;

	if (lstat(other, &b) < 0)
		tap_fail("no '%s'", other);
	if (a->st_mode != b.st_mode || a->st_uid != b.st_uid || a->st_gid != b.st_gid)
		tap_fail("%s: mode or owner", other);
	ok_int(a->st_rdev, ==, b.st_rdev);
	if (!S_ISDIR(a->st_mode)) {
		ok_int(a->st_size, ==, b.st_size);
		ok_int(a->st_nlink, ==, b.st_nlink);
	}
	if (a->st_mtim.tv_sec != b.st_mtim.tv_sec || a->st_mtim.tv_nsec != b.st_mtim.tv_nsec)
		tap_fail("%s: time", other);
	same_xattrs(path, other);
	if (S_ISREG(a->st_mode)) {
		same_content(path, other);
		if (a->st_blocks * 512 < a->st_size)
			ok_int(b.st_blocks * 512, <, b.st_size);
	}
	compared++;
	return 0;
}

static void same_as_made_by(const char *tar)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	sh(tar);
	if (read_image("p.tar", &info, &err) < 0)
		tap_fail("%s: %s", tar, err.message);
	for (size_t i = 0; i < info.n_warnings; i++)
		tap_fail("warning: %s", info.warning[i]);
	compared = 0;
	ok_int(nftw("r", compare_one, 16, FTW_PHYS), ==, 0);
	ok_int(compared, ==, info.n_entries);
	image_info_done(&info);
}

static void test_everything_survives_pax(void)
{
	enter();
	tree_of_oddities();
	same_as_made_by("tar -C r --format=pax --xattrs --xattrs-include='*' --acls --sparse "
			"-cf p.tar .");
	same_as_made_by("tar -C r --format=pax --numeric-owner --xattrs --xattrs-include='*' "
			"--acls --sparse --sparse-version=0.1 -cf p.tar .");
	same_as_made_by("tar -C r --format=pax --xattrs --xattrs-include='*' --acls --sparse "
			"--sparse-version=0.0 -cf p.tar .");
}

static void test_names_and_holes_survive_gnu(void)
{
	enter();
	image_plain();
	sh("cd r && truncate -s 9M etc/sparse && for i in 1 3 5 7; do echo $i | dd of=etc/sparse "
	   "bs=1M seek=$i conv=notrunc 2>/dev/null; done; printf a >\"$(printf "
	   "'etc/e\\314\\201')\";"
	   "printf a >\"etc/$(printf 'n%.0s' $(seq 120))$(printf '\\377')\";"
	   "ln -s $(printf 'target/%.0s' $(seq 30)) etc/l; chown 3000000:3000000 etc/l -h;"
	   "find . | xargs -d '\\n' touch -h -d '2001-02-03 04:05:06'");
	same_as_made_by("tar -C r --format=gnu --sparse -cf p.tar .");
}

static void test_attributes_of_ours_are_never_set(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };
	char value[8];

	enter();
	image_plain();
	ok_int(setxattr("r/etc", "trusted.overlay.opaque", "y", 1, 0), ==, 0);
	ok_int(setxattr("r/etc", "trusted.coppice", "y", 1, 0), ==, 0);
	sh("tar -C r --xattrs --xattrs-include='*' -cf p.tar .");
	ok_int(read_image("p.tar", &info, &err), ==, COPPICE_OK);
	ok_int(getxattr("out/rootfs/etc", "trusted.overlay.opaque", value, 8), <, 0);
	ok_int(getxattr("out/rootfs/etc", "trusted.coppice", value, 8), <, 0);
	ok_int(info.n_warnings, ==, 1);
	image_info_done(&info);
}

static void test_warns_of_what_clones_would_share(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	enter();
	image_plain();
	sh("mkdir r/etc/ssh && echo k >r/etc/ssh/ssh_host_rsa_key && echo 0123 >r/etc/machine-id");
	sh("tar -C r -cf p.tar .");
	ok_int(read_image("p.tar", &info, &err), ==, COPPICE_OK);
	ok_int(info.n_warnings, ==, 2);
	ok(strstr(info.warning[0], "SSH host keys") != NULL);
	ok(strstr(info.warning[1], "machine-id") != NULL);
	image_info_done(&info);
}

/* ---- damage ---- */

static void test_no_archive(void)
{
	enter();
	image_plain();
	sh(": >empty; echo garbage >short; head -c 100000 /dev/urandom >long;"
	   "head -c 10240 /dev/zero >zeros; : | gzip >empty.gz; : | zstd -q >empty.zst;"
	   "head -c 9999 /dev/urandom | xz >random.xz; mkdir n; echo 1 >n/file; tar -C n -cf n.tar "
	   ".");
	refused("empty", COPPICE_INVALID, "'empty' is empty");
	refused("short", COPPICE_INVALID, "is no image");
	refused("long", COPPICE_INVALID, "is no image");
	refused("zeros", COPPICE_INVALID, "'zeros' is");
	refused("empty.gz", COPPICE_INVALID, "is empty");
	refused("empty.zst", COPPICE_INVALID, "is empty");
	refused("random.xz", COPPICE_INVALID, "holds no tar archive");
	refused("n.tar", COPPICE_INVALID, "is no root file system");
}

static void test_truncated_anywhere(void)
{
	enter();
	image_plain();
	sh("head -c 300000 /dev/urandom >r/usr/bin/big && tar -C r -cf p.tar ./etc ./usr");
	compress_all("p.tar");
	for (size_t i = 0; i < ARRAY_SIZE(compressors); i++) {
		for (int percent = 1; percent < 99; percent += 14) {
			_cleanup_(freep) char *command =
				text_format("s=$(stat -c %%s p.tar.c%s); head -c $((s * %d / 100)) "
					    "p.tar.c%s >cut",
					    compressors[i][0], percent, compressors[i][0]);

			sh(command);
			refused("cut", COPPICE_INVALID, "'cut' is");
		}
	}
	for (size_t i = 1; i < ARRAY_SIZE(compressors); i++) {
		_cleanup_(freep) char *command =
			text_format("head -c -1 p.tar.c%s >cut", compressors[i][0]);

		sh(command);
		refused("cut", COPPICE_INVALID, "'cut' is truncated");
	}
}

/* Whole as far as compression goes; ends between two entries, which tar readers overlook. */
static void test_truncated_tar_in_whole_stream(void)
{
	enter();
	image_plain();
	sh("tar --format=ustar -C r -cf p.tar ./etc/machine-id ./etc/motd &&"
	   "head -c 512 p.tar | zstd -q >one.zst; head -c 1000 p.tar | gzip >two.gz;"
	   "head -c 1536 p.tar | gzip >three.gz; head -c 1536 p.tar >four.tar");
	refused("one.zst", COPPICE_INVALID, "is truncated");
	refused("two.gz", COPPICE_INVALID, "is truncated");
	refused("three.gz", COPPICE_INVALID, "is truncated");
	refused("four.tar", COPPICE_INVALID, "is truncated");
}

static void test_corrupt_and_followed_by_garbage(void)
{
	enter();
	image_plain();
	sh("head -c 300000 /dev/urandom >r/usr/bin/big && tar -C r -cf p.tar .");
	compress_all("p.tar");
	for (size_t i = 1; i < ARRAY_SIZE(compressors); i++) {
		const char *suffix = compressors[i][0];
		_cleanup_(freep) char *garbage =
			text_format("cp p.tar.c%s bad; echo garbage behind it >>bad", suffix);
		_cleanup_(freep) char *flip =
			text_format("cp p.tar.c%s bad; printf '\\000\\377\\125\\252' | dd of=bad "
				    "bs=1 seek=150000 "
				    "conv=notrunc 2>/dev/null",
				    suffix);

		sh(garbage);
		refused("bad", COPPICE_INVALID, "'bad' is corrupt");
		if (strcmp(suffix, ".zst") == 0) /* its checksum must be there to be wrong */
			sh("zstd -qf --check p.tar -o p.tar.c.zst");
		sh(flip);
		refused("bad", COPPICE_INVALID, "'bad' is corrupt");
	}
	sh("cp p.tar bad; printf XXXX | dd of=bad bs=1 seek=664 conv=notrunc 2>/dev/null");
	refused("bad", COPPICE_INVALID, "'bad' is corrupt");
}

static void test_memory_limit(void)
{
	struct image_read how = {
		.store_fd = -1, .keep_fd = -1, .target_path = "out", .memory_limit_bytes = 16 << 20
	};
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	enter();
	image_plain();
	sh("tar -C r -cf - . | zstd -q --long=27 >p.zst && tar -C r -cf - . | "
	   "xz --lzma2=dict=64MiB >p.xz");
	ok_int(read_with(how, "p.zst", &info, &err), ==, COPPICE_INVALID);
	ok(strstr(err.message, "needs 128.00MiB") != NULL);
	ok(strstr(err.message, "--memory-limit") != NULL);
	ok_int(read_with(how, "p.xz", &info, &err), ==, COPPICE_INVALID);
	ok(strstr(err.message, "needs 64.") != NULL || strstr(err.message, "needs 65.") != NULL);
	is_accepted("p.zst", false);
	is_accepted("p.xz", false);
}

static void test_metadata_that_is_wrong(void)
{
	enter();
	image_unified();
	sh("echo 'a: &x 1' >u/metadata.yaml && tar -C u -cf anchor.tar .");
	sh("printf 'properties:\\n  os: x\\n' >u/metadata.yaml && tar -C u -cf none.tar .");
	sh("printf 'architecture: x\\ncreation_date: soon\\n' >u/metadata.yaml && tar -C u -cf "
	   "d.tar .");
	refused("anchor.tar", COPPICE_INVALID, "line 1: anchors");
	refused("none.tar", COPPICE_INVALID, "names no architecture");
	refused("d.tar", COPPICE_INVALID, "line 2: creation_date");
}

static void test_full_disk(void)
{
	enter();
	image_plain();
	sh("head -c 4000000 /dev/urandom >r/usr/bin/big && tar -C r -cf p.tar . && mkdir full &&"
	   "mount -t tmpfs -o size=1M none full");
	{
		struct image_read how = { .store_fd = -1, .keep_fd = -1, .target_path = "full" };
		struct coppice_error err = COPPICE_ERROR_INIT;
		struct image_info info = { 0 };
		int r;

		how.in_fd = open("p.tar", O_RDONLY | O_CLOEXEC);
		how.name = "p.tar";
		r = image_read(&how, &info, &err);
		ok_int(umount2("full", MNT_DETACH), ==, 0);
		ok_int(r, ==, COPPICE_NO_SPACE);
		(void)close(how.in_fd);
	}
}

/* ---- interruption ---- */

static bool after_three_looks(void *user)
{
	return ++*(int *)user > 3;
}

static void test_interrupted_while_input_hangs(void)
{
	int looks = 0, channel[2];
	struct coppice_hooks hooks = { .user = &looks, .is_interrupted = after_three_looks };
	struct image_read how = {
		.store_fd = -1, .keep_fd = -1, .target_path = "out", .hooks = &hooks, .name = "-"
	};
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	enter();
	sh("mkdir out");
	ok_int(pipe(channel), ==, 0);
	how.in_fd = channel[0];
	ok_int(image_read(&how, &info, &err), ==, COPPICE_INTERRUPTED);
	ok_int(waitpid(-1, NULL, WNOHANG), ==, -1); /* no child is left */
	ok_int(errno, ==, ECHILD);
	(void)close(channel[0]);
	(void)close(channel[1]);
}

static bool asks_the_system(void *user)
{
	errno = ENOENT;
	return false;
}

/* Where the child took no more for now, what the hook had asked for was taken for why. */
static void test_hook_that_changes_errno(void)
{
	struct coppice_hooks hooks = { .is_interrupted = asks_the_system };
	struct image_read how = {
		.store_fd = -1, .keep_fd = -1, .target_path = "out", .hooks = &hooks
	};
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	enter();
	image_plain();
	sh("head -c 64000000 /dev/zero >r/usr/bin/big && tar -C r -cf p.tar .");
	ok_call(read_with(how, "p.tar", &info, &err), &err);
	image_info_done(&info);
}

/* ---- hostile ---- */

static void nothing_outside(void)
{
	sh("[ ! -e escaped ] && [ ! -e out/escaped ] && [ ! -e /tmp/coppice-test-escaped ]");
}

static void test_nothing_leads_outside(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct image_info info = { 0 };

	enter();
	image_plain();
	sh("echo x >escaped.src");
	sh("tar -C r -cf up.tar . && tar -rPf up.tar --transform='s,.*,../escaped,' escaped.src");
	refused("up.tar", COPPICE_INVALID, "leads out");
	nothing_outside();
	sh("tar -C r -cf abs.tar . && "
	   "tar -rPf abs.tar --transform='s,.*,/tmp/coppice-test-escaped,' escaped.src");
	ok_int(read_image("abs.tar", &info, &err), ==, COPPICE_OK);
	image_info_done(&info);
	nothing_outside();
	sh("[ -e out/rootfs/tmp/coppice-test-escaped ]");
	sh("mkdir a && ln -s ../../.. a/link && ln -s /tmp a/abs && tar -C r -cf ln.tar . &&"
	   "tar -C a -rf ln.tar link abs &&"
	   "tar -rf ln.tar --transform='s,.*,link/escaped,' escaped.src &&"
	   "tar -rf ln.tar --transform='s,.*,abs/coppice-test-escaped,' escaped.src");
	(void)read_image("ln.tar", &info, &err);
	image_info_done(&info);
	nothing_outside();
	sh("mkdir b && ln -s /etc/passwd b/x && tar -C r -cf over.tar . && tar -C b -rf over.tar x "
	   "&&"
	   "tar -rf over.tar --transform='s,.*,x,' escaped.src && cp /etc/passwd before");
	ok_int(read_image("over.tar", &info, &err), ==, COPPICE_OK);
	sh("cmp -s before /etc/passwd && [ -f out/rootfs/x ] && [ ! -L out/rootfs/x ]");
	image_info_done(&info);
}

static void test_metadata_parser_alone(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct metadata metadata = { 0 };
	static const char good[] =
		"architecture: arm64\ntemplates:\n  /etc/x:\n    when: [create]\n"
		"expiry_date: 3\nproperties:\n  b: 2\n  a: '1'\n";
	static const char deep[] = "architecture: a\nx: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n";

	ok_int(metadata_parse(good, sizeof(good) - 1, &metadata, &err), ==, COPPICE_OK);
	ok_str(metadata.architecture, "arm64");
	ok_str(metadata_property(&metadata.properties, "a"), "1");
	ok_str(metadata.properties.setting[0].key, "a");
	metadata_done(&metadata);
	ok_int(metadata_parse(deep, sizeof(deep) - 1, &metadata, &err), ==, COPPICE_INVALID);
	ok_int(metadata_parse("", 0, &metadata, &err), ==, COPPICE_INVALID);
	ok_int(metadata_parse("a: *b\n", 6, &metadata, &err), ==, COPPICE_INVALID);
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_metadata_parser_alone),
		TAP(test_plain_in_every_compression),
		TAP(test_unified_in_every_compression),
		TAP(test_several_members_are_one_stream),
		TAP(test_metadata_may_come_last),
		TAP(test_directory_is_packed),
		TAP(test_directory_without_a_socket),
		TAP(test_split_is_two_archives),
		TAP(test_split_halves_are_checked),
		TAP(test_squashfs_in_every_compression),
		TAP(test_squashfs_keeps_all),
		TAP(test_squashfs_that_is_none),
		TAP(test_squashfs_damaged_anywhere),
		TAP(test_fingerprint_and_stored_bytes),
		TAP(test_dry_run_writes_nothing),
		TAP(test_everything_survives_pax),
		TAP(test_names_and_holes_survive_gnu),
		TAP(test_attributes_of_ours_are_never_set),
		TAP(test_warns_of_what_clones_would_share),
		TAP(test_no_archive),
		TAP(test_truncated_anywhere),
		TAP(test_truncated_tar_in_whole_stream),
		TAP(test_corrupt_and_followed_by_garbage),
		TAP(test_memory_limit),
		TAP(test_metadata_that_is_wrong),
		TAP(test_full_disk),
		TAP(test_interrupted_while_input_hangs),
		TAP(test_hook_that_changes_errno),
		TAP(test_nothing_leads_outside),
		{ NULL, NULL },
	});
}
