/* SPDX-License-Identifier: Apache-2.0 */
/* What a copied tree must still have, seen by tests/tools/manifest; and what ends a copy. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/attribute.h"
#include "base/file.h"
#include "base/text.h"
#include "driver/generic/copy.h"
#include "driver/generic/remove.h"
#include "driver/generic/walk.h"
#include "scratch.h"

#define CAP_NET_RAW_TEXT                                                                           \
	"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
/* user::rwx user:1000:r-x group::r-x mask::r-x other::--- */
#define ACL_TEXT                                                                                   \
	"\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x05\x00\xe8"                     \
	"\x03\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x05\x00\xff\xff"                     \
	"\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"

/* In a directory of our own, in a mount namespace of our own. */
static void begin(void)
{
	own_mounts();
	scratch_make("copy");
	ok(chdir(scratch) == 0);
	ok(mkdir("from", 0755) == 0);
	ok(mkdir("to", 0755) == 0);
}

/*
 * Linux says "no space" of both. A tmpfs of 64 KiB has less free than one can tell from full; here
 * stands for a file system on which there is much.
 */
static void test_an_attribute_too_large_is_no_full_disk(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct attribute_refused refused = { "user.a", "etc/file", 20000, 20006, -1, NULL };

	begin();
	ok(mkdir("mnt", 0755) == 0);
	ok(mount("none", "mnt", "tmpfs", 0, "size=64k") == 0);
	refused.fd = open("from", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok_int(fail_attribute(&refused, ENOSPC, &err), ==, COPPICE_UNSUPPORTED);
	ok(strstr(err.message, "user.a") && strstr(err.message, "etc/file") &&
	   strstr(err.message, "20000 bytes"));
	ok_int(fail_attribute(&refused, E2BIG, &err), ==, COPPICE_UNSUPPORTED);
	ok_int(fail_attribute(&refused, ERANGE, &err), ==, COPPICE_UNSUPPORTED);
	ok_int(fail_attribute(&refused, EDQUOT, &err), ==, COPPICE_NO_SPACE);
	refused.all_bytes = 100;
	ok_int(fail_attribute(&refused, ENOSPC, &err), ==, COPPICE_NO_SPACE);
	refused.all_bytes = 20006;
	closep(&refused.fd);
	refused.fd = open("mnt", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok_int(fail_attribute(&refused, ENOSPC, &err), ==, COPPICE_NO_SPACE);
	closep(&refused.fd);
}

static void fail_here(const char *message)
{
	tap_fail("%s", message);
}

/* The manifests of from and to are equal. */
static void same(const char *from, const char *to)
{
	const char *source = getenv("COPPICE_SOURCE");
	_cleanup_(freep) char *command = NULL;

	if (!source)
		skip("COPPICE_SOURCE does not tell where tests/tools/manifest is");
	command = text_format("for t in '%s' '%s'; do '%s/tests/tools/manifest' --top --holes "
			      "--atime --no-record $t >$t.manifest || exit 1; done; "
			      "diff '%s.manifest' '%s.manifest'",
			      from, to, source, from, to);
	if (shell(command) != 0)
		fail_here("the trees differ");
}

static int copy(const char *from, const char *to, struct tree_copy how, struct tree_copied *ret,
		struct coppice_error *err)
{
	_cleanup_(closep) int from_fd = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(closep) int to_fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ok(from_fd >= 0 && to_fd >= 0);
	how.from_fd = from_fd;
	how.to_fd = to_fd;
	return tree_copy(&how, ret, err);
}

static void copy_well(const char *from, const char *to, struct tree_copy how,
		      struct tree_copied *ret)
{
	struct coppice_error err = COPPICE_ERROR_INIT;

	if (copy(from, to, how, ret, &err) < 0)
		fail_here(err.message);
}

static void write_at(const char *path, off_t at, const char *text)
{
	_cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	ok(fd >= 0);
	ok_int(pwrite(fd, text, strlen(text), at), ==, (long long)strlen(text));
}

static void set(const char *path, const char *name, const char *value, size_t size)
{
	if (lsetxattr(path, name, value, size, 0) < 0)
		tap_fail("cannot set %s on %s: %s", name, path, strerror(errno));
}

static void make_special(void)
{
	ok(symlink("/no/where", "from/link") == 0);
	ok(lchown("from/link", 12, 34) == 0);
	set("from/link", "trusted.link", "t", 1);
	ok(mknod("from/null", S_IFCHR | 0666, makedev(1, 3)) == 0);
	ok(mknod("from/whiteout", S_IFCHR | 0600, makedev(0, 0)) == 0);
	ok(mknod("from/disk", S_IFBLK | 0660, makedev(8, 300)) == 0);
	ok(chown("from/disk", 0, 6) == 0);
	ok(mkfifo("from/fifo", 0622) == 0);
	ok(mknod("from/socket", S_IFSOCK | 0755, 0) == 0);
	set("from/fifo", "trusted.fifo", "f", 1);
}

static void make_files(void)
{
	write_at("from/plain", 0, "hello\n");
	write_at("from/empty", 0, "");
	write_at("from/bad\xff\xfe name\n", 0, "x");
	write_at("from/setuid", 0, "#!");
	ok(chown("from/setuid", 33, 33) == 0);
	ok(chmod("from/setuid", 06751) == 0);
	write_at("from/capable", 0, "#!");
	ok(chown("from/capable", 1, 1) == 0);
	set("from/capable", "security.capability", CAP_NET_RAW_TEXT, 20);
	write_at("from/mode0", 0, "x");
	ok(chmod("from/mode0", 0) == 0);
	set("from/plain", "user.long", scratch, sizeof(scratch));
	set("from/plain", "trusted.empty", "", 0);
	write_at("from/sparse", 10 << 20, "in the middle");
	ok(truncate("from/sparse", 1LL << 30) == 0);
	write_at("from/sparse-head", 0, "head");
	ok(truncate("from/sparse-head", 5 << 20) == 0);
	write_at("from/hole", 0, "");
	ok(truncate("from/hole", 123456789) == 0);
	ok(shell("head -c 20000001 /dev/urandom >from/large") == 0);
}

static void make_directories(void)
{
	ok(mkdir("from/dir", 0755) == 0);
	ok(mkdir("from/dir/sub", 0755) == 0);
	write_at("from/dir/sub/one", 0, "1");
	ok(link("from/dir/sub/one", "from/dir/two") == 0);
	ok(link("from/dir/sub/one", "from/three") == 0);
	ok(link("from/fifo", "from/dir/fifo") == 0);
	ok(mkdir("from/group", 0755) == 0);
	ok(chown("from/group", 5, 50) == 0);
	ok(chmod("from/group", 03775) == 0);
	set("from/group", "system.posix_acl_default", ACL_TEXT, sizeof(ACL_TEXT) - 1);
	write_at("from/group/inherits-not", 0, "x");
	ok(removexattr("from/group/inherits-not", "system.posix_acl_access") == 0 ||
	   errno == ENODATA);
	ok(chmod("from/group/inherits-not", 0644) == 0);
	set("from/dir/two", "system.posix_acl_access", ACL_TEXT, sizeof(ACL_TEXT) - 1);
	ok(mkdir("from/locked", 0) == 0);
}

static void make_times(void)
{
	static const struct timespec old[2] = { { 1000000000, 1 }, { -5, 999999999 } };
	static const char *const paths[] = { "from/plain",   "from/link", "from/fifo",
					     "from/dir/sub", "from/dir",  "from/large",
					     "from" };

	ok(chown("from", 7, 8) == 0);
	ok(chmod("from", 01751) == 0);
	set("from", "user.top", "x", 1);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		ok(utimensat(AT_FDCWD, paths[i], old, AT_SYMLINK_NOFOLLOW) == 0);
}

/*
 * ext4 counts the blocks of what is not written out yet as it guesses them, others meanwhile, and
 * the right ones only after that: what is counted twice must not change between.
 */
static void write_out_files(void)
{
	ok(shell("find from -type f -exec sync {} +") == 0);
}

static void test_everything(void)
{
	struct tree_count count = { .found = NULL };
	struct tree_copied copied;

	struct coppice_error err = COPPICE_ERROR_INIT;
	int fd;

	begin();
	make_files();
	make_special();
	make_directories();
	write_out_files();
	make_times();
	set("to", "system.posix_acl_default", ACL_TEXT, sizeof(ACL_TEXT) - 1);
	(void)umask(0077);
	copy_well("from", "to", (struct tree_copy){ .threads = 4 }, &copied);
	same("from", "to");
	fd = open("from", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok_int(tree_usage(fd, &count, &err), ==, COPPICE_OK);
	ok_int(copied.entries, ==, count.entries);
	ok_int(copied.bytes_allocated, ==, count.allocated_bytes);
}

static void test_records_stay_apart(void)
{
	static const char *const skipped[] = { "user.left", NULL };
	struct tree_copied copied;
	char value[8];

	begin();
	set("from", "trusted.coppice", "theirs", 6);
	set("to", "trusted.coppice", "ours", 4);
	write_at("from/a", 0, "a");
	set("from/a", "user.left", "x", 1);
	set("from/a", "user.kept", "y", 1);
	copy_well("from", "to", (struct tree_copy){ .skip_xattrs = skipped }, &copied);
	ok_int(getxattr("to", "trusted.coppice", value, sizeof(value)), ==, 4);
	ok(memcmp(value, "ours", 4) == 0);
	ok_int(getxattr("to/a", "user.left", value, sizeof(value)), ==, -1);
	ok_int(getxattr("to/a", "user.kept", value, sizeof(value)), ==, 1);
}

/* Each of 2,000 files has a name in each of 4 directories, that threads come upon at once. */
static void test_links_race(void)
{
	struct tree_copied copied;

	begin();
	ok(shell("for d in a b c d; do mkdir from/$d; done; cd from/a; "
		 "seq 2000 | xargs touch; for d in b c d; do cp -al . ../$d/; done") == 0);
	copy_well("from", "to", (struct tree_copy){ .threads = 8 }, &copied);
	ok_int(copied.entries, ==, 8004);
	same("from", "to");
}

/* Names longer together than any path may be. */
static void test_deep(void)
{
	char name[201] = "";
	struct tree_copied copied;
	int up, fd;

	begin();
	memset(name, 'n', sizeof(name) - 1);
	fd = open("from", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 50; i++) {
		ok(mkdirat(fd, name, 0755) == 0);
		up = fd;
		fd = openat(up, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ok(fd >= 0);
		(void)close(up);
	}
	ok(mknodat(fd, "one", S_IFREG | 0644, 0) == 0);
	ok(linkat(fd, "one", fd, "two", 0) == 0);
	copy_well("from", "to", (struct tree_copy){ .threads = 2 }, &copied);
	ok_int(copied.entries, ==, 52);
	ok(shell("test $(find to | wc -l) = 53") == 0);
}

static size_t n_descriptors(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Whoever made it liked depth. */
static void test_thousands_of_levels(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct tree_count count = { .found = NULL };
	struct tree_copied copied;
	size_t before = n_descriptors();
	int up, fd, root;

	begin();
	fd = open("from", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 5000; i++) {
		ok(mkdirat(fd, "d", 0755) == 0);
		ok(mknodat(fd, "file", S_IFREG | 0644, 0) == 0);
		up = fd;
		fd = openat(up, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ok(fd >= 0);
		(void)close(up);
	}
	(void)close(fd);
	copy_well("from", "to", (struct tree_copy){ .threads = 2 }, &copied);
	ok_int(copied.entries, ==, 10000);
	root = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = openat(root, "to", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok_int(tree_usage(fd, &count, &err), ==, COPPICE_OK);
	ok_int(count.entries, ==, 10000);
	(void)close(fd);
	ok_int(tree_remove(root, "to", 2, &err), ==, COPPICE_OK);
	ok_int(tree_remove(root, "from", 1, &err), ==, COPPICE_OK);
	(void)close(root);
	ok_int(n_descriptors(), ==, before);
}

static void test_mount_refused(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct tree_copied copied;

	begin();
	ok(shell("mkdir -p from/a/proc && mount -t tmpfs none from/a/proc") == 0);
	ok_int(copy("from", "to", (struct tree_copy){ 0 }, &copied, &err), ==, COPPICE_UNSUPPORTED);
	ok(strstr(err.message, "a/proc") != NULL);
	ok(shell("umount from/a/proc; rm -rf to/*; touch f from/a/f; mount --bind f from/a/f") ==
	   0);
	ok_int(copy("from", "to", (struct tree_copy){ 0 }, &copied, &err), ==, COPPICE_UNSUPPORTED);
	ok(strstr(err.message, "a/f") != NULL);
	ok(shell("umount from/a/f") == 0);
}

static void test_no_space(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct tree_copied copied;

	begin();
	ok(shell("mkdir mnt && mount -t tmpfs -o size=1m none mnt && "
		 "head -c 3000000 /dev/zero >from/large") == 0);
	ok_int(copy("from", "mnt", (struct tree_copy){ 0 }, &copied, &err), ==, COPPICE_NO_SPACE);
	ok(strstr(err.message, "large") != NULL);
}

static bool says_stop(void *user)
{
	return ++*(int *)user > 0;
}

static void test_interrupted(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct tree_copied copied;
	int asked = 0;

	begin();
	ok(shell("mkdir from/a from/b; touch from/a/x from/b/y") == 0);
	ok_int(copy("from", "to",
		    (struct tree_copy){ .is_interrupted = says_stop, .interrupted_user = &asked },
		    &copied, &err),
	       ==, COPPICE_INTERRUPTED);
	ok_int(asked, >, 0);
}

static void test_reflink(void)
{
	struct coppice_error err = COPPICE_ERROR_INIT;
	struct tree_copied copied;

	begin();
	if (shell("truncate -s 300M img && mkfs.btrfs -q img && mkdir mnt && mount -o loop img "
		  "mnt"))
		skip("no Btrfs on a loop device here");
	make_files();
	make_special();
	make_directories();
	make_times();
	ok(mkdir("mnt/from", 0755) == 0 && mkdir("mnt/shared", 0755) == 0 &&
	   mkdir("mnt/full", 0755) == 0);
	copy_well("from", "mnt/from", (struct tree_copy){ 0 }, &copied);
	ok(!copied.is_shared);
	copy_well("mnt/from", "mnt/shared", (struct tree_copy){ 0 }, &copied);
	ok(copied.is_shared);
	copy_well("mnt/from", "mnt/full", (struct tree_copy){ .no_reflink = true }, &copied);
	ok(!copied.is_shared);
	same("from", "mnt/from");
	same("mnt/from", "mnt/shared");
	same("mnt/from", "mnt/full");
	ok(shell("sync -f mnt; btrfs filesystem du -s --raw mnt/shared mnt/full >du; "
		 "awk '$4==\"mnt/shared\" && $2<1000000 {a=1} $4==\"mnt/full\" && $2>20000000 "
		 "{b=1} "
		 "END {exit !(a && b)}' du || { cat du; false; }") == 0);
	ok(shell("btrfs subvolume create mnt/from/dir/nested") == 0);
	ok(mkdir("mnt/refused", 0755) == 0);
	ok_int(copy("mnt/from", "mnt/refused", (struct tree_copy){ 0 }, &copied, &err), ==,
	       COPPICE_UNSUPPORTED);
	ok(strstr(err.message, "dir/nested") != NULL);
}

int main(void)
{
	return tap_run((struct tap_test[]){
		TAP(test_everything),
		TAP(test_records_stay_apart),
		TAP(test_an_attribute_too_large_is_no_full_disk),
		TAP(test_links_race),
		TAP(test_deep),
		TAP(test_thousands_of_levels),
		TAP(test_mount_refused),
		TAP(test_no_space),
		TAP(test_interrupted),
		TAP(test_reflink),
		{ NULL, NULL },
	});
}
