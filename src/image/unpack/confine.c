/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walls around the unpacker: it dies with its parent, sees no network and no
 * directory but the target, can gain no rights, and may make no system call
 * beyond those that writing files takes.
 */
#include "image/unpack/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "image/unpack/report.h"

/*
 * The descriptor that is only held may be a directory, and through one a process
 * could leave its chroot: so it is moved up here, and the filter lets no call
 * have a descriptor above FD_MAX.
 */
enum {
	FD_MAX = 63,
	HELD_FD = FD_MAX + 1,
	ADDRESS_SPACE_OWN_BYTES = 256 << 20
};

/* ---- descriptors, resources ---- */

static int keep_only_our_descriptors(struct coppice_error *err)
{
	unsigned next = REPORT_KEEP_FD;

	if (fcntl(REPORT_KEEP_FD, F_GETFD) >= 0) {
		if (dup2(REPORT_KEEP_FD, HELD_FD) < 0 && errno == EBADF)
			return fail(err, COPPICE_FAILED,
				    "%d open files are needed, and fewer are allowed (ulimit -n)",
				    HELD_FD + 1);
		if (fcntl(HELD_FD, F_GETFD) < 0)
			return fail_errno(err, errno, "cannot keep the lock");
		if (close_range(REPORT_KEEP_FD, HELD_FD - 1, 0) < 0)
			return fail_errno(err, errno, "cannot close descriptors");
		next = HELD_FD + 1;
	}
	if (close_range(next, ~0U, 0) < 0)
		return fail_errno(err, errno, "cannot close descriptors");
	return COPPICE_OK;
}

/* To @value, or to what is allowed, if that is less. */
static int limit(__rlimit_resource_t what, rlim_t value, const char *name,
		 struct coppice_error *err)
{
	struct rlimit limits;

	if (getrlimit(what, &limits) < 0)
		return fail_errno(err, errno, "cannot read the limit of %s", name);
	if (value > limits.rlim_max)
		value = limits.rlim_max;
	limits = (struct rlimit){ value, value };
	if (setrlimit(what, &limits) < 0)
		return fail_errno(err, errno, "cannot limit %s", name);
	return COPPICE_OK;
}

/* One arena: each further one would reserve 128 MiB of address space, and that is limited. */
static int limit_resources(uint64_t memory_limit_bytes, struct coppice_error *err)
{
	(void)mallopt(M_ARENA_MAX, 1);
	if (limit(RLIMIT_CORE, 0, "core dumps", err) < 0)
		return err->code;
	return limit(RLIMIT_AS, memory_limit_bytes + ADDRESS_SPACE_OWN_BYTES, "memory", err);
}

static int die_with_parent(pid_t parent, struct coppice_error *err)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return fail_errno(err, errno, "cannot bind to the parent");
	if (getppid() != parent) /* it died before we said so */
		_exit(1);
	return COPPICE_OK;
}

/* ---- root and capabilities ---- */

static int enter(const char *path, int *ret_fd, struct coppice_error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return fail_errno(err, errno, "cannot open '%s'", path);
	if (fchdir(fd) < 0 || chroot(".") < 0) {
		int os_errno = errno;

		(void)close(fd);
		if (os_errno == EPERM)
			return fail(err, COPPICE_UNSUPPORTED, "unpacking needs root");
		return fail_errno(err, os_errno, "cannot confine to '%s'", path);
	}
	*ret_fd = fd;
	return COPPICE_OK;
}

/* What setting owners, modes, devices and file capabilities takes. */
static const cap_value_t kept[] = {
	CAP_CHOWN,
	CAP_DAC_OVERRIDE,
	CAP_FOWNER,
	CAP_FSETID,
	CAP_MKNOD,
	CAP_SETFCAP,
	/*
	 * The kernel wants this for attributes security.* (but capability) and
	 * trusted.*, and has nothing smaller. What else it permits needs system
	 * calls that the filter does not let through.
	 */
	CAP_SYS_ADMIN,
};

static int drop_capabilities(size_t n_kept, struct coppice_error *err)
{
	cap_t caps = cap_init();
	int r = 0;

	if (!caps)
		return fail_memory(err);
	for (cap_value_t cap = 0; CAP_IS_SUPPORTED(cap); cap++) {
		bool is_kept = false;

		for (size_t i = 0; i < n_kept; i++)
			is_kept |= kept[i] == cap;
		if (!is_kept)
			(void)cap_drop_bound(cap);
	}
	if (n_kept > 0) { /* libcap calls none an error */
		r = cap_set_flag(caps, CAP_PERMITTED, (int)n_kept, kept, CAP_SET);
		r |= cap_set_flag(caps, CAP_EFFECTIVE, (int)n_kept, kept, CAP_SET);
	}
	r |= cap_set_proc(caps);
	(void)cap_free(caps);
	if (r < 0)
		return fail(err, COPPICE_UNSUPPORTED, "unpacking needs root: %s", strerror(errno));
	return COPPICE_OK;
}

/* ---- system calls ---- */

/* Calls that take descriptors: how many, and which arguments they are (-1: none). */
static const struct fd_call {
	int number;
	int argument[2];
} fd_calls[] = {
	{ SCMP_SYS(read), { 0, -1 } },
	{ SCMP_SYS(write), { 0, -1 } },
	{ SCMP_SYS(pwrite64), { 0, -1 } },
	{ SCMP_SYS(close), { 0, -1 } },
	{ SCMP_SYS(pread64), { 0, -1 } },
	{ SCMP_SYS(fstatfs), { 0, -1 } },
	{ SCMP_SYS(syncfs), { 0, -1 } },
	{ SCMP_SYS(openat2), { 0, -1 } },
	{ SCMP_SYS(openat), { 0, -1 } },
	{ SCMP_SYS(newfstatat), { 0, -1 } },
	{ SCMP_SYS(fstat), { 0, -1 } },
	{ SCMP_SYS(statx), { 0, -1 } },
	{ SCMP_SYS(ftruncate), { 0, -1 } },
	{ SCMP_SYS(fchown), { 0, -1 } },
	{ SCMP_SYS(fchownat), { 0, -1 } },
	{ SCMP_SYS(fchmod), { 0, -1 } },
	{ SCMP_SYS(fchmodat), { 0, -1 } },
	{ SCMP_SYS(utimensat), { 0, -1 } },
	{ SCMP_SYS(mkdirat), { 0, -1 } },
	{ SCMP_SYS(mknodat), { 0, -1 } },
	{ SCMP_SYS(symlinkat), { 1, -1 } },
	{ SCMP_SYS(unlinkat), { 0, -1 } },
	{ SCMP_SYS(linkat), { 0, 2 } },
	{ SCMP_SYS(renameat), { 0, 2 } },
	{ SCMP_SYS(fsetxattr), { 0, -1 } },
	{ SCMP_SYS(fremovexattr), { 0, -1 } },
	{ SCMP_SYS(fchdir), { 0, -1 } },
	{ SCMP_SYS(getdents64), { 0, -1 } },
	{ SCMP_SYS(sync_file_range), { 0, -1 } },
	{ SCMP_SYS(lseek), { 0, -1 } },
};

/* Memory, threads, time, ending. */
static const int plain_calls[] = {
	SCMP_SYS(lsetxattr),      SCMP_SYS(munmap),          SCMP_SYS(mremap),
	SCMP_SYS(madvise),        SCMP_SYS(mprotect),        SCMP_SYS(brk),
	SCMP_SYS(futex),          SCMP_SYS(clone),           SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),           SCMP_SYS(sched_yield),     SCMP_SYS(sched_getaffinity),
	SCMP_SYS(exit),           SCMP_SYS(exit_group),      SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),    SCMP_SYS(sigaltstack),
	SCMP_SYS(gettid),         SCMP_SYS(getpid),          SCMP_SYS(tgkill),
	SCMP_SYS(clock_gettime),  SCMP_SYS(clock_nanosleep), SCMP_SYS(gettimeofday),
	SCMP_SYS(getrandom),      SCMP_SYS(restart_syscall),
};

static int allow_fd_call(scmp_filter_ctx filter, const struct fd_call *call)
{
	struct scmp_arg_cmp below[2];
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(call->argument); i++) {
		if (call->argument[i] >= 0)
			below[n++] = SCMP_CMP64((unsigned)call->argument[i], SCMP_CMP_LE, FD_MAX);
	}
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call->number, n, below);
}

static int add_rules(scmp_filter_ctx filter)
{
	/* Anonymous memory only: whatever the descriptor, nothing is mapped from a file. */
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				 SCMP_A3(SCMP_CMP_MASKED_EQ, 0x20, 0x20));

	if (r == 0) /* fdopendir() does both */
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 2,
				     SCMP_A0(SCMP_CMP_LE, FD_MAX), SCMP_A1(SCMP_CMP_EQ, F_GETFL));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 2,
				     SCMP_A0(SCMP_CMP_LE, FD_MAX), SCMP_A1(SCMP_CMP_EQ, F_SETFD));
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(fd_calls); i++)
		r = allow_fd_call(filter, &fd_calls[i]);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(plain_calls); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, plain_calls[i], 0);
	return r;
}

/* Other calls do not exist, as far as we can see: glibc then takes older ones. */
static int filter_calls(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	int r;

	if (!filter)
		return -1;
	r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* by number, not in a row */
	if (r == 0)
		r = add_rules(filter);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r;
}

int confine_begin(pid_t parent, struct coppice_error *err)
{
	(void)umask(0);
	if (die_with_parent(parent, err) < 0 || keep_only_our_descriptors(err) < 0)
		return err->code;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail_errno(err, errno, "cannot give up privileges");
	(void)unshare(CLONE_NEWNET); /* where it is permitted; the filter knows no sockets anyway */
	return COPPICE_OK;
}

int confine(const char *target_path, uint64_t memory_limit_bytes, int *ret_root_fd,
	    struct coppice_error *err)
{
	size_t n_kept = target_path ? ARRAY_SIZE(kept) : 0;
	int root_fd = -1;

	if (target_path && enter(target_path, &root_fd, err) < 0)
		return err->code;
	if (limit_resources(memory_limit_bytes, err) < 0 || drop_capabilities(n_kept, err) < 0)
		return err->code;
	if (filter_calls() != 0 && n_kept > 0 && drop_capabilities(n_kept - 1, err) < 0)
		return err->code; /* no filter, then not the last of them either */
	*ret_root_fd = root_fd;
	return COPPICE_OK;
}
