/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into User-Mode Linux 6.1: what it needs to run on hosts of today.
 *
 * Registers: it keeps 2,696 bytes of its processes' floating-point registers (HOST_FP_SIZE), and
 * Linux on the host wants all that the processor has, or says EFAULT (xstateregs_set()): 11,008
 * bytes where there is AMX. So what is set is filled up to that; what is behind then has its
 * initial state, which the bits at the beginning say as well.
 *
 * Time: when its timer expires while it handles the timer, with interrupts off, it forgets so
 * (unblock_signals() clears what is pending, and calls no handler that is active). Nothing sets the
 * timer again then: whoever sleeps there sleeps for ever, and the idle loop turns, as it asks with
 * timer_gettime() how long to sleep and hears 0. Who asks that is idle, so it is the place to
 * remind it.
 */
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BEFORE_BITS 512 /* the part of FXSAVE, before the bits that say which state is there */
#define AMX         (UINT64_C(3) << 17)

/* One thread of it does this, on stacks that are small. */
static char whole[64 << 10];
static bool is_short; /* what it gives is not enough here */

static long call(long request, long pid, void *address, void *data)
{
	return syscall(SYS_ptrace, request, pid, address, data);
}

/* How much the host wants; 0: it does not say. */
static size_t size_wanted(long pid, void *address)
{
	static size_t size;
	struct iovec all = { whole, sizeof(whole) };

	if (size == 0 && call(PTRACE_GETREGSET, pid, address, &all) == 0) {
		size = all.iov_len;
		memset(whole, 0, sizeof(whole));
	}
	return size;
}

static long set_whole(long pid, void *address, const struct iovec *given)
{
	struct iovec all = { whole, size_wanted(pid, address) };
	uint64_t bits;

	if (all.iov_len <= given->iov_len || given->iov_len < BEFORE_BITS + sizeof(bits)) {
		errno = EFAULT;
		return -1;
	}
	memcpy(whole, given->iov_base, given->iov_len);
	memcpy(&bits, whole + BEFORE_BITS, sizeof(bits));
	bits &= ~AMX;
	memcpy(whole + BEFORE_BITS, &bits, sizeof(bits));
	return call(PTRACE_SETREGSET, pid, address, &all);
}

__attribute__((visibility("default"))) long ptrace(enum __ptrace_request request, ...)
{
	void *address, *data;
	va_list arguments;
	pid_t pid;
	long r, word = 0;

	va_start(arguments, request);
	pid = va_arg(arguments, pid_t);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	/* The system call stores what it peeks; the function returns it. */
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA ||
	    request == PTRACE_PEEKUSER) {
		r = call(request, pid, address, &word);
		return r < 0 ? r : word;
	}
	if (request != PTRACE_SETREGSET || (unsigned long)address != NT_X86_XSTATE)
		return call(request, pid, address, data);
	r = is_short ? -1 : call(request, pid, address, data);
	is_short |= r < 0 && errno == EFAULT;
	return is_short ? set_whole(pid, address, data) : r;
}

/* It blocks SIGALRM while it asks: one that is pending already is not doubled. */
__attribute__((visibility("default"))) int timer_gettime(timer_t timer, struct itimerspec *ret)
{
	int r = (int)syscall(SYS_timer_gettime, (int)(intptr_t)timer, ret);

	if (r == 0 && ret->it_value.tv_sec == 0 && ret->it_value.tv_nsec == 0)
		(void)kill(getpid(), SIGALRM);
	return r;
}
