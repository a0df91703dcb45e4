/* Makes system calls inside another process, and prints their results, to show what that process can still do.
 * Usage: poke PID. Prints a line `CALL: ok` or `CALL: ERRNO` for each call below. x86-64 only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

static pid_t pid;

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

/* Makes a system call in the stopped process. It stopped in a call of its own, so rip is behind a `syscall`. */
static long call(const struct user_regs_struct *saved, long number, long a, long b, long c, long d)
{
	struct user_regs_struct regs = *saved;
	int status;

	regs.rip -= 2;
	regs.rax = number;
	regs.orig_rax = -1;
	regs.rdi = a;
	regs.rsi = b;
	regs.rdx = c;
	regs.r10 = d;
	regs.r8 = regs.r9 = 0;
	check(!ptrace(PTRACE_SETREGS, pid, 0, &regs), "PTRACE_SETREGS");
	check(!ptrace(PTRACE_SINGLESTEP, pid, 0, 0), "PTRACE_SINGLESTEP");
	check(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "waitpid");
	check(!ptrace(PTRACE_GETREGS, pid, 0, &regs), "PTRACE_GETREGS");
	return regs.rax;
}

static void report(const char *what, long result)
{
	if (result >= -4095 && result < 0)
		printf("%s: %s\n", what, strerrorname_np(-result));
	else
		printf("%s: ok\n", what);
}

int main(int argc, char **argv)
{
	struct user_regs_struct saved;
	int status;

	check(argc == 2, "usage: poke PID");
	pid = atoi(argv[1]);
	check(!ptrace(PTRACE_SEIZE, pid, 0, 0), "PTRACE_SEIZE");
	check(!ptrace(PTRACE_INTERRUPT, pid, 0, 0), "PTRACE_INTERRUPT");
	check(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "waitpid");
	check(!ptrace(PTRACE_GETREGS, pid, 0, &saved), "PTRACE_GETREGS");

	/* The names are below the red zone of the stack. */
	static const char names[][32] = { "/etc/hostname", "/dev/vda", "/dev/null", "/run/poked", "/bin/true" };
	uintptr_t at = (saved.rsp - 128 - sizeof(names)) & ~15UL;
	struct iovec from = { (void *)names, sizeof(names) }, to = { (void *)at, sizeof(names) };
	check(process_vm_writev(pid, &from, 1, &to, 1, 0) == sizeof(names), "process_vm_writev");
#define NAME(n) (at + 32 * (n))

	report("getpid", call(&saved, SYS_getpid, 0, 0, 0, 0));
	report("openat file", call(&saved, SYS_openat, AT_FDCWD, NAME(0), O_RDONLY, 0));
	report("openat disk", call(&saved, SYS_openat, AT_FDCWD, NAME(1), O_RDWR, 0));
	report("openat device", call(&saved, SYS_openat, AT_FDCWD, NAME(2), O_RDWR, 0));
	report("openat new", call(&saved, SYS_openat, AT_FDCWD, NAME(3), O_RDWR | O_CREAT, 0600));
	report("mkdirat", call(&saved, SYS_mkdirat, AT_FDCWD, NAME(3), 0700, 0));
	report("socket unix", call(&saved, SYS_socket, AF_UNIX, SOCK_STREAM, 0, 0));
	report("socket inet", call(&saved, SYS_socket, AF_INET, SOCK_DGRAM, 0, 0));
	report("socket netlink", call(&saved, SYS_socket, AF_NETLINK, SOCK_RAW, 0, 0));
	report("fork", call(&saved, SYS_clone, 0, 0, 0, 0));
	report("kill", call(&saved, SYS_kill, 1, 0, 0, 0));
	report("ptrace", call(&saved, SYS_ptrace, PTRACE_SEIZE, 1, 0, 0));
	report("mmap exec", call(&saved, SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS));
	report("dup", call(&saved, SYS_dup, 0, 0, 0, 0));
	report("execve", call(&saved, SYS_execve, NAME(4), 0, 0, 0));

	check(!ptrace(PTRACE_SETREGS, pid, 0, &saved), "PTRACE_SETREGS");
	check(!ptrace(PTRACE_DETACH, pid, 0, 0), "PTRACE_DETACH");
	return 0;
}
