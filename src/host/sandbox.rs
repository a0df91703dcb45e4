//! Limits, a watchdog, and the sandbox that a run enters before it exchanges messages with a modem.
//!
//! At that point, everything that the run needs is open. In the sandbox, the process can use open descriptors, wait,
//! and exit. It can open no file, socket or device, start no process, and make no memory executable. Other system calls
//! fail with `EPERM`.
//!
//! `prctl(2)` installs the filter, because the sandbox of Debian 12's udevd allows neither `seccomp(2)` nor Landlock.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, c_long, sock_filter};
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::unistd::alarm;

use crate::host::sys;

/// A run needs 10 MB of address space. The longest descriptors take half a megabyte.
const MEMORY: rlim_t = 256 << 20;
/// Standard streams, journal, lock and state of the port, its sysfs directory, its node, and the files that libusb
/// opens.
const FILES: rlim_t = 64;
/// The program writes only the lock and the state of a port.
const FILE_SIZE: rlim_t = 64 << 10;

/// The resource limits of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    All,
    /// All but the limit on file size, because a person may redirect the output to a file.
    ExceptFileSize,
    /// None: the process writes long files, or starts programs, which would inherit the limits.
    None,
}

impl Limits {
    pub fn set(self) {
        let others = [(Resource::RLIMIT_AS, MEMORY), (Resource::RLIMIT_NOFILE, FILES), (Resource::RLIMIT_CORE, 0)];
        let file_size = (self == Limits::All).then_some((Resource::RLIMIT_FSIZE, FILE_SIZE));
        let others = others.into_iter().filter(|_| self != Limits::None);
        for (resource, limit) in others.chain(file_size) {
            if let Err(error) = setrlimit(resource, limit, limit) {
                log::debug!("{resource:?} is not limited: {error}");
            }
        }
    }
}

/// How long a run may exceed its budget before the kernel ends it. Most calls that wait for the modem end at the deadline,
/// or continue in a child process. Some do neither: the kernel gives a modem 5 s for a transfer, and a driver that probes
/// the modem may hold it for 20 s. If such a call takes even longer, the run ends when the call returns.
pub(crate) const GRACE: Duration = Duration::from_secs(20);

/// Arms the watchdog: the kernel ends this process with SIGALRM after `limit`, unless the value is dropped before. A call
/// that does not return checks no deadline. The process has one watchdog, and the last call counts.
#[must_use]
pub fn watchdog(limit: Duration) -> Watchdog {
    alarm::set(u32::try_from(limit.as_secs().max(1)).unwrap_or(u32::MAX));
    Watchdog
}

pub struct Watchdog;

impl Drop for Watchdog {
    /// Has no effect in the sandbox, where the process only has to exit.
    fn drop(&mut self) {
        alarm::cancel();
    }
}

const CAPABILITIES: u8 = 1;
const LANDLOCK: u8 = 2;
const SECCOMP: u8 = 4;
const ENTERED: u8 = 8;

static LEVEL: AtomicU8 = AtomicU8::new(0);

/// The active parts of the sandbox, as the journal field `WWAN_QUIRKS_SANDBOX` names them. `None` before [`enter`]. A
/// part is missing if the kernel refuses it, or if this program has no system call table for the processor.
pub fn level() -> Option<&'static str> {
    let names = [
        "none",
        "capabilities",
        "landlock",
        "capabilities landlock",
        "seccomp",
        "capabilities seccomp",
        "landlock seccomp",
        "capabilities landlock seccomp",
    ];
    LEVEL.load(Ordering::Relaxed).checked_sub(ENTERED).and_then(|level| names.get(usize::from(level)).copied())
}

/// Irrevocably drops every privilege that the open descriptors do not need. If the kernel, or a sandbox around this
/// process, refuses one of the three parts, the others still apply.
pub fn enter() {
    if level().is_some() {
        return;
    }
    let mut level = ENTERED;
    let mut take = |bit, name, done: nix::Result<()>| match done {
        Ok(()) => level |= bit,
        Err(error) => log::debug!("{name}: {error}"),
    };
    // Both Landlock and a seccomp filter require this.
    if let Err(error) = sys::no_new_privileges() {
        log::debug!("no_new_privs: {error}");
    }
    take(LANDLOCK, "Landlock", sys::forbid_files());
    take(CAPABILITIES, "capabilities", sys::drop_capabilities());
    take(SECCOMP, "seccomp", filter().map_or(Err(Errno::ENOSYS), |filter| sys::filter_calls(&filter)));
    LEVEL.store(level, Ordering::Relaxed);
}

/// System calls with 64-bit time that 32-bit C libraries use. They have the same numbers on every 32-bit architecture
/// (asm-generic/unistd.h).
#[cfg(target_pointer_width = "32")]
mod time64 {
    use nix::libc::c_long;

    pub(crate) const SYS_CLOCK_GETTIME64: c_long = 403;
    pub(crate) const SYS_CLOCK_NANOSLEEP_TIME64: c_long = 407;
    pub(crate) const SYS_TIMER_SETTIME64: c_long = 409;
    pub(crate) const SYS_TIMERFD_SETTIME64: c_long = 411;
    pub(crate) const SYS_PPOLL_TIME64: c_long = 414;
    pub(crate) const SYS_FUTEX_TIME64: c_long = 422;
}
#[cfg(target_pointer_width = "32")]
use time64::*;

/// The variant of `mmap` that C libraries call. 32-bit C libraries pass the offset in pages.
#[cfg(target_pointer_width = "32")]
const SYS_MMAP: c_long = libc::SYS_mmap2;
#[cfg(not(target_pointer_width = "32"))]
const SYS_MMAP: c_long = libc::SYS_mmap;

/// System calls that give no access to anything that is not open.
const HARMLESS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_lseek,
    // The libc crate lacks them for 32-bit MIPS with musl.
    #[cfg(not(all(target_arch = "mips", target_env = "musl")))]
    libc::SYS_pread64,
    #[cfg(not(all(target_arch = "mips", target_env = "musl")))]
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_flock,
    libc::SYS_close,
    libc::SYS_ppoll,
    #[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm"))]
    libc::SYS_poll,
    libc::SYS_timerfd_settime,
    libc::SYS_timer_settime,
    libc::SYS_timer_delete,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    #[cfg(target_pointer_width = "32")]
    SYS_CLOCK_GETTIME64,
    #[cfg(target_pointer_width = "32")]
    SYS_TIMER_SETTIME64,
    #[cfg(target_pointer_width = "32")]
    SYS_TIMERFD_SETTIME64,
    #[cfg(target_pointer_width = "32")]
    SYS_CLOCK_NANOSLEEP_TIME64,
    #[cfg(target_pointer_width = "32")]
    SYS_PPOLL_TIME64,
    #[cfg(target_pointer_width = "32")]
    SYS_FUTEX_TIME64,
    #[cfg(target_pointer_width = "32")]
    libc::SYS__llseek,
    #[cfg(target_pointer_width = "32")]
    libc::SYS_ftruncate64,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    libc::SYS_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// `AUDIT_ARCH_*` of linux/audit.h: identifies the table of system call numbers.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xc000_00f3)
} else if cfg!(target_arch = "arm") {
    Some(0x4000_0028)
} else if cfg!(target_arch = "x86") {
    Some(0x4000_0003)
} else {
    None
};

/// Inserts text into the input of a terminal. A person may run `apply --unit` on one.
const TIOCSTI: u32 = 0x5412;

/// `struct seccomp_data` of linux/seccomp.h: number, architecture, instruction pointer, six arguments.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(position: u32) -> u32 {
    16 + 8 * position
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The filter for the allowed system calls. `None` if this program does not know the system call numbers of the
/// processor.
fn filter() -> Option<Vec<sock_filter>> {
    let mut filter = vec![
        instruction(LOAD, ARCH, 0, 0),
        instruction(IF_EQUAL, ARCHITECTURE?, 1, 0),
        instruction(RETURN, REFUSE, 0, 0),
        instruction(LOAD, NUMBER, 0, 0),
    ];
    for call in HARMLESS {
        filter.push(instruction(IF_EQUAL, *call as u32, 0, 1));
        filter.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    }
    rule(&mut filter, libc::SYS_ioctl, &[(IF_EQUAL, 1, TIOCSTI)]);
    let protection = (IF_ANY_BIT, 2, libc::PROT_EXEC as u32);
    rule(&mut filter, SYS_MMAP, &[protection, (IF_ANY_BIT, 3, libc::MAP_FIXED as u32)]);
    filter.push(instruction(RETURN, REFUSE, 0, 0));
    Some(filter)
}

/// Allows `call`, unless one of the tests is true: instruction, position of the argument, and operand. They test the
/// lower 32 bits of the argument: the processors in [`ARCHITECTURE`] are little-endian.
fn rule(filter: &mut Vec<sock_filter>, call: c_long, refused: &[(u16, u32, u32)]) {
    // The distance to the end of the rule: two instructions for each test, and the return.
    let mut over = 2 * refused.len() as u8 + 1;
    filter.push(instruction(LOAD, NUMBER, 0, 0));
    filter.push(instruction(IF_EQUAL, call as u32, 0, over));
    for &(test, position, operand) in refused {
        over -= 2;
        filter.push(instruction(LOAD, argument(position), 0, 0));
        filter.push(instruction(test, operand, over, 0));
    }
    filter.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter returns for a system call, as the kernel evaluates it.
    fn verdict(architecture: u32, call: c_long, arguments: [u64; 6]) -> u32 {
        let load = |offset: u32| match offset {
            NUMBER => call as u32,
            ARCH => architecture,
            // The lower half comes first.
            offset => arguments[(offset as usize - 16) / 8] as u32,
        };
        let filter = filter().unwrap();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = filter[at];
            let is_true = match code {
                LOAD => {
                    loaded = load(k);
                    true
                }
                IF_EQUAL => loaded == k,
                IF_ANY_BIT => loaded & k != 0,
                _ => return k,
            };
            at += 1 + usize::from(if is_true { jt } else { jf });
        }
    }

    #[test]
    fn the_filter_allows_neither_input_into_a_terminal_nor_new_code() {
        let Some(architecture) = ARCHITECTURE else { return };
        let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let (data, code) = (libc::PROT_READ as u64, libc::PROT_EXEC as u64);
        // An ioctl request of libusb, TIOCSTI, and TIOCSTI with other upper bits, which the kernel ignores.
        for (call, arguments, allowed) in [
            (libc::SYS_write, [0; 6], true),
            (libc::SYS_exit_group, [0; 6], true),
            (libc::SYS_ioctl, [3, 0x5505, 0, 0, 0, 0], true),
            (libc::SYS_ioctl, [3, 0x5412, 0, 0, 0, 0], false),
            (libc::SYS_ioctl, [3, 0x1_0000_5412, 0, 0, 0, 0], false),
            (SYS_MMAP, [0, 4096, data, anonymous, 0, 0], true),
            (SYS_MMAP, [0, 4096, data | code, anonymous, 0, 0], false),
            (SYS_MMAP, [0, 4096, data, anonymous | libc::MAP_FIXED as u64, 0, 0], false),
            (libc::SYS_mprotect, [0, 4096, code, 0, 0, 0], false),
        ] {
            let expected = if allowed { libc::SECCOMP_RET_ALLOW } else { REFUSE };
            assert_eq!(verdict(architecture, call, arguments), expected, "{call} {arguments:x?}");
        }
    }

    #[test]
    fn the_filter_refuses_files_sockets_and_processes() {
        let Some(architecture) = ARCHITECTURE else { return };
        let mut calls = vec![
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_open_by_handle_at,
            libc::SYS_io_uring_setup,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_bpf,
            libc::SYS_mount,
        ];
        // Newer processors lack them.
        #[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm", target_arch = "s390x"))]
        calls.extend([libc::SYS_open, libc::SYS_fork, libc::SYS_vfork]);
        for call in calls {
            assert_eq!(verdict(architecture, call, [0; 6]), REFUSE, "{call}");
        }
        // A call of another architecture has other numbers.
        assert_eq!(verdict(architecture, libc::SYS_write, [0; 6]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(architecture ^ 1, libc::SYS_write, [0; 6]), REFUSE);
    }
}
