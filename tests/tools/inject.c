/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run a command and let one of its system calls that change storage fail, or kill it there.
 *
 *	inject N ERRNO REPORT COMMAND [ARGUMENT…]
 *
 * N is which one, counted from 1 over the command, its threads and its children; 0 lets
 * all pass. ERRNO is a number, with a + behind it for all calls from there on, or KILL: then the
 *command is killed when it is about to make that call. We end when its children are gone as well.
 *REPORT gets a line for the call that failed, or for each when N is 0: its number, its name, the
 *program and what it was done to, with tabs between. The exit status is the command's, 128 and the
 *signal if one ended it.
 *
 * A seccomp filter hands these calls to us, and we let them pass or not: so no window
 * is left out, whichever thread or child it is in, and it takes some 10 µs a call.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define TMPFILE_BIT   (O_TMPFILE & ~O_DIRECTORY)

enum {
	NONE = -1,
	WORD_MAX = 256,
	FAILED = 125
};

/* Which argument is a descriptor, and which a path; of two the one that is changed. */
struct call {
	int number;
	const char *name;
	int fd, path;
	int flags;       /* argument with open(2)'s flags: only those that make or empty a file */
	bool is_content; /* only where the descriptor is a file or block device */
};

#define CALL(name) SCMP_SYS(name), #name

static const struct call calls[] = {
	{ CALL(open), NONE, 0, 1, false },
	{ CALL(openat), 0, 1, 2, false },
	{ CALL(openat2), 0, 1, NONE, false },
	{ CALL(creat), NONE, 0, NONE, false },
	{ CALL(write), 0, NONE, NONE, true },
	{ CALL(writev), 0, NONE, NONE, true },
	{ CALL(pwrite64), 0, NONE, NONE, true },
	{ CALL(pwritev), 0, NONE, NONE, true },
	{ CALL(pwritev2), 0, NONE, NONE, true },
	{ CALL(sendfile), 0, NONE, NONE, true },
	{ CALL(splice), 2, NONE, NONE, true },
	{ CALL(copy_file_range), 2, NONE, NONE, true },
	{ CALL(truncate), NONE, 0, NONE, false },
	{ CALL(ftruncate), 0, NONE, NONE, false },
	{ CALL(fallocate), 0, NONE, NONE, false },
	{ CALL(fsync), 0, NONE, NONE, false },
	{ CALL(fdatasync), 0, NONE, NONE, false },
	{ CALL(syncfs), 0, NONE, NONE, false },
	{ CALL(sync_file_range), 0, NONE, NONE, false },
	{ CALL(msync), NONE, NONE, NONE, false },
	{ CALL(mkdir), NONE, 0, NONE, false },
	{ CALL(mkdirat), 0, 1, NONE, false },
	{ CALL(mknod), NONE, 0, NONE, false },
	{ CALL(mknodat), 0, 1, NONE, false },
	{ CALL(link), NONE, 1, NONE, false },
	{ CALL(linkat), 2, 3, NONE, false },
	{ CALL(symlink), NONE, 1, NONE, false },
	{ CALL(symlinkat), 1, 2, NONE, false },
	{ CALL(rename), NONE, 0, NONE, false },
	{ CALL(renameat), 0, 1, NONE, false },
	{ CALL(renameat2), 0, 1, NONE, false },
	{ CALL(unlink), NONE, 0, NONE, false },
	{ CALL(unlinkat), 0, 1, NONE, false },
	{ CALL(rmdir), NONE, 0, NONE, false },
	{ CALL(chmod), NONE, 0, NONE, false },
	{ CALL(fchmod), 0, NONE, NONE, false },
	{ CALL(fchmodat), 0, 1, NONE, false },
	{ CALL(chown), NONE, 0, NONE, false },
	{ CALL(lchown), NONE, 0, NONE, false },
	{ CALL(fchown), 0, NONE, NONE, false },
	{ CALL(fchownat), 0, 1, NONE, false },
	{ CALL(utimensat), 0, 1, NONE, false },
	{ CALL(futimesat), 0, 1, NONE, false },
	{ CALL(setxattr), NONE, 0, NONE, false },
	{ CALL(lsetxattr), NONE, 0, NONE, false },
	{ CALL(fsetxattr), 0, 1, NONE, false },
	{ CALL(removexattr), NONE, 0, NONE, false },
	{ CALL(lremovexattr), NONE, 0, NONE, false },
	{ CALL(fremovexattr), 0, 1, NONE, false },
	{ CALL(mount), NONE, 1, NONE, false },
	{ CALL(umount2), NONE, 0, NONE, false },
	{ CALL(fsconfig), 0, NONE, NONE, false },
	{ CALL(fsmount), 0, NONE, NONE, false },
	{ CALL(move_mount), 0, 1, NONE, false },
	{ CALL(mount_setattr), 0, 1, NONE, false },
	{ CALL(quotactl), NONE, 1, NONE, false },
	{ CALL(quotactl_fd), 0, NONE, NONE, false },
	{ CALL(ioctl), 0, NONE, NONE, false },
};

/* The ioctls that change something. */
static const struct request {
	unsigned long number;
	const char *name;
} requests[] = {
	{ FICLONE, "FICLONE" },
	{ FICLONERANGE, "FICLONERANGE" },
	{ FS_IOC_SETFLAGS, "FS_IOC_SETFLAGS" },
	{ FS_IOC_FSSETXATTR, "FS_IOC_FSSETXATTR" },
	{ FITRIM, "FITRIM" },
	{ BLKDISCARD, "BLKDISCARD" },
	{ BLKZEROOUT, "BLKZEROOUT" },
	{ BTRFS_IOC_SNAP_CREATE, "BTRFS_IOC_SNAP_CREATE" },
	{ BTRFS_IOC_SNAP_CREATE_V2, "BTRFS_IOC_SNAP_CREATE_V2" },
	{ BTRFS_IOC_SUBVOL_CREATE, "BTRFS_IOC_SUBVOL_CREATE" },
	{ BTRFS_IOC_SUBVOL_CREATE_V2, "BTRFS_IOC_SUBVOL_CREATE_V2" },
	{ BTRFS_IOC_SUBVOL_SETFLAGS, "BTRFS_IOC_SUBVOL_SETFLAGS" },
	{ BTRFS_IOC_SNAP_DESTROY, "BTRFS_IOC_SNAP_DESTROY" },
	{ BTRFS_IOC_SNAP_DESTROY_V2, "BTRFS_IOC_SNAP_DESTROY_V2" },
	{ BTRFS_IOC_SYNC, "BTRFS_IOC_SYNC" },
	{ BTRFS_IOC_START_SYNC, "BTRFS_IOC_START_SYNC" },
	{ BTRFS_IOC_WAIT_SYNC, "BTRFS_IOC_WAIT_SYNC" },
	{ BTRFS_IOC_RESIZE, "BTRFS_IOC_RESIZE" },
	{ BTRFS_IOC_QUOTA_CTL, "BTRFS_IOC_QUOTA_CTL" },
	{ BTRFS_IOC_QGROUP_CREATE, "BTRFS_IOC_QGROUP_CREATE" },
	{ BTRFS_IOC_QGROUP_ASSIGN, "BTRFS_IOC_QGROUP_ASSIGN" },
	{ BTRFS_IOC_QGROUP_LIMIT, "BTRFS_IOC_QGROUP_LIMIT" },
	{ LOOP_CONFIGURE, "LOOP_CONFIGURE" },
	{ LOOP_SET_FD, "LOOP_SET_FD" },
	{ LOOP_CLR_FD, "LOOP_CLR_FD" },
	{ LOOP_SET_STATUS64, "LOOP_SET_STATUS64" },
	{ LOOP_SET_CAPACITY, "LOOP_SET_CAPACITY" },
	{ LOOP_SET_DIRECT_IO, "LOOP_SET_DIRECT_IO" },
	{ LOOP_SET_BLOCK_SIZE, "LOOP_SET_BLOCK_SIZE" },
	{ LOOP_CTL_ADD, "LOOP_CTL_ADD" },
	{ LOOP_CTL_REMOVE, "LOOP_CTL_REMOVE" },
	{ LOOP_CTL_GET_FREE, "LOOP_CTL_GET_FREE" },
};

struct injection {
	unsigned long wanted; /* 0: none */
	int os_errno;         /* 0: kill */
	bool goes_on;         /* all that come after it fail, too */
	pid_t command;        /* 0: it has ended, and this is its: */
	int status;
	unsigned long n;
	FILE *report;
};

static void die(const char *what)
{
	fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
	_exit(FAILED);
}

/* ---- the filter ---- */

static int add_flagged(scmp_filter_ctx filter, const struct call *call)
{
	static const uint64_t bits[] = { O_CREAT, O_TRUNC, TMPFILE_BIT };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bits) && r == 0; i++) {
		const struct scmp_arg_cmp has_bit = { (unsigned)call->flags, SCMP_CMP_MASKED_EQ,
						      bits[i], bits[i] };

		r = seccomp_rule_add_array(filter, SCMP_ACT_NOTIFY, call->number, 1, &has_bit);
	}
	return r;
}

static int filter_load(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int r = filter ? 0 : -ENOMEM;

	if (r == 0 && geteuid() == 0) /* else programs of other users could not be run */
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
	for (size_t i = 0; i < ARRAY_SIZE(calls) && r == 0; i++)
		r = calls[i].flags != NONE
			    ? add_flagged(filter, &calls[i])
			    : seccomp_rule_add(filter, SCMP_ACT_NOTIFY, calls[i].number, 0);
	if (r == 0)
		r = seccomp_load(filter);
	if (r != 0) {
		errno = -r;
		die("cannot load the filter");
	}
	return seccomp_notify_fd(filter);
}

/* ---- the command's side ---- */

static void fd_send(int socket, int fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &fd, sizeof(fd));
	if (sendmsg(socket, &message, 0) < 0)
		die("cannot hand over the filter");
}

static int fd_receive(int socket)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	int fd = -1;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) > 0 && CMSG_FIRSTHDR(&message))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

static pid_t start(char **argv, int *ret_notify)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		die("socketpair");
	pid = fork();
	if (pid == 0) {
		int notify = filter_load();

		fd_send(ends[1], notify);
		(void)close(notify);
		(void)execvp(argv[0], argv);
		die(argv[0]);
	}
	(void)close(ends[1]);
	*ret_notify = fd_receive(ends[0]);
	(void)close(ends[0]);
	return pid;
}

/* ---- looking at a call ---- */

static bool read_text(pid_t pid, uint64_t address, char ret[static WORD_MAX])
{
	struct iovec to = { ret, WORD_MAX - 1 }, from = { (void *)(uintptr_t)address, 1 };
	ssize_t n = 0;

	/* Up to the end of its page, behind which there may be nothing. */
	from.iov_len = 4096 - address % 4096 < WORD_MAX - 1 ? 4096 - address % 4096 : WORD_MAX - 1;
	n = process_vm_readv(pid, &to, 1, &from, 1, 0);
	ret[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static void program_of(pid_t pid, char ret[static WORD_MAX])
{
	char path[64];
	ssize_t n;
	char exe[WORD_MAX];

	(void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	exe[n > 0 ? n : 0] = '\0';
	(void)snprintf(ret, WORD_MAX, "%s", strrchr(exe, '/') ? strrchr(exe, '/') + 1 : exe);
}

static void object_of(const struct seccomp_notif *notice, const struct call *call,
		      char ret[static 2 * WORD_MAX])
{
	char link[64], directory[WORD_MAX] = "", path[WORD_MAX] = "";
	ssize_t n;

	if (call->fd != NONE && (int)notice->data.args[call->fd] != AT_FDCWD) {
		(void)snprintf(link, sizeof(link), "/proc/%u/fd/%d", notice->pid,
			       (int)notice->data.args[call->fd]);
		n = readlink(link, directory, sizeof(directory) - 1);
		directory[n > 0 ? n : 0] = '\0';
	}
	if (call->path != NONE)
		(void)read_text((pid_t)notice->pid, notice->data.args[call->path], path);
	(void)snprintf(ret, 2 * WORD_MAX, "%s%s%s", directory, directory[0] && path[0] ? " " : "",
		       path);
	for (char *at = ret; *at; at++)
		*at = *at < ' ' ? '?' : *at;
}

static bool is_storage(const struct seccomp_notif *notice, const struct call *call)
{
	char link[64];
	struct stat st;

	(void)snprintf(link, sizeof(link), "/proc/%u/fd/%d", notice->pid,
		       (int)notice->data.args[call->fd]);
	return stat(link, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

static bool is_making(const struct seccomp_notif *notice)
{
	uint64_t flags = 0;
	struct iovec to = { &flags, sizeof(flags) };
	struct iovec from = { (void *)(uintptr_t)notice->data.args[2], sizeof(flags) };

	return process_vm_readv((pid_t)notice->pid, &to, 1, &from, 1, 0) == sizeof(flags) &&
	       flags & (O_CREAT | O_TRUNC | TMPFILE_BIT);
}

static const char *request_name(uint64_t number)
{
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		if (requests[i].number == (number & 0xffffffff))
			return requests[i].name;
	return NULL;
}

/* What the call is named in the report; NULL: it changes nothing. */
static const char *name_of(const struct seccomp_notif *notice, const struct call **ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		const struct call *call = &calls[i];

		if (call->number != notice->data.nr)
			continue;
		*ret = call;
		if (call->number == SCMP_SYS(ioctl))
			return request_name(notice->data.args[1]);
		if (call->number == SCMP_SYS(openat2))
			return is_making(notice) ? call->name : NULL;
		return call->is_content && !is_storage(notice, call) ? NULL : call->name;
	}
	return NULL;
}

/* ---- letting it pass, or not ---- */

static void tell(const struct injection *injection, const struct seccomp_notif *notice,
		 const struct call *call, const char *name)
{
	char program[WORD_MAX], object[2 * WORD_MAX];

	program_of((pid_t)notice->pid, program);
	object_of(notice, call, object);
	fprintf(injection->report, "%lu\t%s\t%s\t%s\n", injection->n, name, program, object);
}

static int decide(struct injection *injection, const struct seccomp_notif *notice)
{
	const struct call *call;
	const char *name = name_of(notice, &call);

	if (!name)
		return 0;
	injection->n++;
	if (injection->wanted == 0 || injection->n == injection->wanted)
		tell(injection, notice, call, name);
	if (injection->wanted == 0 || injection->n < injection->wanted ||
	    (injection->n > injection->wanted && !injection->goes_on))
		return 0;
	if (injection->os_errno == 0 && injection->command > 0)
		(void)kill(injection->command, SIGKILL);
	return injection->os_errno;
}

/* Its status; then it is no more, and nobody else is killed by its number. */
static void reap(struct injection *injection)
{
	if (waitpid(injection->command, &injection->status, 0) < 0)
		die("cannot run the command");
	injection->command = 0;
}

/* Until nobody is left who has the filter; before Linux 6.11 who is dead and not reaped still has.
 */
static void serve(struct injection *injection, int notify)
{
	struct seccomp_notif *notice;
	struct seccomp_notif_resp *answer;
	struct pollfd wanted[2] = { { .fd = notify, .events = POLLIN }, { .events = POLLIN } };

	wanted[1].fd = pidfd_open(injection->command, 0);
	if (wanted[1].fd < 0 || seccomp_notify_alloc(&notice, &answer) != 0)
		die("seccomp");
	for (;;) {
		if (poll(wanted, ARRAY_SIZE(wanted), -1) < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		if (wanted[1].revents & POLLIN) {
			reap(injection);
			(void)close(wanted[1].fd);
			wanted[1].fd = -1; /* and is passed over from here on */
			wanted[1].revents = 0;
			continue;
		}
		if (!(wanted[0].revents & POLLIN)) {
			if (wanted[0].revents & (POLLHUP | POLLERR))
				break;
			continue;
		}
		memset(notice, 0, sizeof(*notice));
		if (seccomp_notify_receive(notify, notice) != 0)
			continue; /* killed meanwhile */
		memset(answer, 0, sizeof(*answer));
		answer->id = notice->id;
		answer->error = -decide(injection, notice);
		if (answer->error == 0)
			answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		(void)seccomp_notify_respond(notify, answer);
	}
	seccomp_notify_free(notice, answer);
}

int main(int argc, char **argv)
{
	struct injection injection = { 0 };
	int notify = -1;
	pid_t pid;

	if (argc < 5) {
		fprintf(stderr, "usage: inject N ERRNO REPORT COMMAND [ARGUMENT...]\n");
		return FAILED;
	}
	injection.wanted = strtoul(argv[1], NULL, 10);
	injection.os_errno = strcmp(argv[2], "KILL") == 0 ? 0 : atoi(argv[2]);
	injection.goes_on = strchr(argv[2], '+') != NULL;
	injection.report = fopen(argv[3], "we");
	if (!injection.report)
		die(argv[3]);
	pid = injection.command = start(argv + 4, &notify);
	if (pid < 0)
		die("cannot run the command");
	if (notify >= 0)
		serve(&injection, notify);
	if (injection.command > 0)
		reap(&injection);
	fclose(injection.report);
	return WIFSIGNALED(injection.status) ? 128 + WTERMSIG(injection.status)
					     : WEXITSTATUS(injection.status);
}
