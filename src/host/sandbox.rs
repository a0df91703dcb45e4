//! What a run gives away before it hears the first byte from a modem.
//!
//! By then all that it needs is open. What remains are the calls on what is open, waiting, and ending: no file, socket
//! or device can be opened, no process started, no memory made executable. Calls that are given away answer `EPERM`.
//!
//! The filter is set by `prctl(2)`: the sandbox of Debian 12's udevd knows no `seccomp(2)`, nor Landlock.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, c_long, sock_filter};
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::unistd::alarm;

use crate::host::sys;
use crate::serve::systemd::Start;

/// A run needs 10 MB of address space, and the longest descriptors are half of one.
const MEMORY: rlim_t = 256 << 20;
/// Standard streams, the journal, the port's state, its folder in sysfs, its node, and what libusb opens.
const FILES: rlim_t = 64;
/// Nothing but a port's state is written.
const FILE_SIZE: rlim_t = 64 << 10;

/// Bounds what a run may use, whatever it meets.
pub fn limit() {
    for (resource, limit) in [
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_NOFILE, FILES),
        (Resource::RLIMIT_FSIZE, FILE_SIZE),
        (Resource::RLIMIT_CORE, 0),
    ] {
        if let Err(error) = setrlimit(resource, limit, limit) {
            log::debug!("{resource:?} stays as it was: {error}");
        }
    }
}

/// How long after its time a run is ended. The kernel gives a modem 5 s to take a configuration, and a run may set two:
/// the one that is wanted, and, where that fails, the one that was.
const GRACE: Duration = Duration::from_secs(20);

/// Has the kernel end this process, should it still be there well after its `budget`: the clock is not looked at where
/// a call does not return.
pub fn end_after(budget: Duration) {
    alarm::set(u32::try_from((budget + GRACE).as_secs()).unwrap_or(u32::MAX));
}

const CAPABILITIES: u8 = 1;
const LANDLOCK: u8 = 2;
const SECCOMP: u8 = 4;
const GIVEN_AWAY: u8 = 8;

static LEVEL: AtomicU8 = AtomicU8::new(0);

/// What was given away so far, as the journal says it; none where this process has all that it began with.
pub fn level() -> Option<&'static str> {
    let names = [
        "nothing",
        "capabilities",
        "landlock",
        "capabilities landlock",
        "seccomp",
        "capabilities seccomp",
        "landlock seccomp",
        "capabilities landlock seccomp",
    ];
    LEVEL.load(Ordering::Relaxed).checked_sub(GIVEN_AWAY).and_then(|level| names.get(usize::from(level)).copied())
}

/// Gives away, for good, all that what is open does not need; `start` is what may still be asked of systemd. Where the
/// kernel, or the sandbox around this process, does not know one of the three ways, the others stand.
pub fn give_away(start: Option<&Start>) {
    let mut level = GIVEN_AWAY;
    let mut take = |bit, name, done: nix::Result<()>| match done {
        Ok(()) => level |= bit,
        Err(error) => log::debug!("{name}: {error}"),
    };
    // Neither Landlock nor a filter can be set without it.
    if let Err(error) = sys::no_new_privileges() {
        log::debug!("no_new_privs: {error}");
    }
    take(LANDLOCK, "Landlock", sys::forbid_files());
    take(CAPABILITIES, "capabilities", sys::drop_capabilities());
    take(SECCOMP, "seccomp", filter(start).map_or(Err(Errno::ENOSYS), |filter| sys::filter_calls(&filter)));
    LEVEL.store(level, Ordering::Relaxed);
}

/// The calls with 64-bit time that 32-bit C libraries use; every 32-bit architecture gives them the same numbers
/// (asm-generic/unistd.h).
#[cfg(target_pointer_width = "32")]
mod time64 {
    use nix::libc::c_long;

    pub const SYS_CLOCK_GETTIME64: c_long = 403;
    pub const SYS_CLOCK_NANOSLEEP_TIME64: c_long = 407;
    pub const SYS_TIMER_SETTIME64: c_long = 409;
    pub const SYS_TIMERFD_SETTIME64: c_long = 411;
    pub const SYS_PPOLL_TIME64: c_long = 414;
    pub const SYS_FUTEX_TIME64: c_long = 422;
}
#[cfg(target_pointer_width = "32")]
use time64::*;

/// `mmap`, as C libraries call it: 32-bit ones pass the offset in pages.
#[cfg(target_pointer_width = "32")]
const SYS_MMAP: c_long = libc::SYS_mmap2;
#[cfg(not(target_pointer_width = "32"))]
const SYS_MMAP: c_long = libc::SYS_mmap;

/// Calls that are of no use for reaching anything that is not open.
const HARMLESS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_lseek,
    libc::SYS_pread64,
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
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// `AUDIT_ARCH_*` of linux/audit.h: whose numbers the calls go by.
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

/// Types text into a terminal as if a person did, which is who runs `apply`.
const TIOCSTI: u32 = 0x5412;

/// A condition on an argument of a call, by its position.
enum Argument {
    Is(u32, u64),
    /// Its lower half is not this.
    IsNot(u32, u32),
    /// None of these bits is set in its lower half.
    Lacks(u32, u32),
}

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

/// A jump over the rest of its rule, to be set when that is known.
const OVER: u8 = u8::MAX;

fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The filter for the calls that remain; none where the numbers of this processor's calls are not known here.
fn filter(start: Option<&Start>) -> Option<Vec<sock_filter>> {
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
    // What was prepared for systemd is said to it as it was prepared, or not at all. It stands in memory that cannot be
    // written, and that none of these calls can put other memory in place of.
    let socket = start.map_or(u32::MAX, Start::descriptor);
    rule(&mut filter, libc::SYS_write, &[Argument::IsNot(0, socket)]);
    rule(&mut filter, libc::SYS_sendto, &[Argument::IsNot(0, socket), Argument::Is(4, 0)]);
    rule(&mut filter, libc::SYS_ioctl, &[Argument::IsNot(1, TIOCSTI)]);
    let protection = libc::PROT_EXEC as u32;
    rule(&mut filter, SYS_MMAP, &[Argument::Lacks(2, protection), Argument::Lacks(3, libc::MAP_FIXED as u32)]);
    if let Some(start) = start {
        let prepared = |bytes: &[u8]| {
            [
                Argument::Is(0, socket.into()),
                Argument::Is(1, bytes.as_ptr() as u64),
                Argument::Is(2, bytes.len() as u64),
            ]
        };
        rule(&mut filter, libc::SYS_connect, &prepared(start.address()));
        rule(&mut filter, libc::SYS_sendto, &prepared(start.greeting()));
        rule(&mut filter, libc::SYS_sendto, &prepared(start.call()));
    }
    filter.push(instruction(RETURN, REFUSE, 0, 0));
    Some(filter)
}

/// Allows `call` where all of the conditions hold.
fn rule(filter: &mut Vec<sock_filter>, call: c_long, conditions: &[Argument]) {
    let begin = filter.len();
    filter.push(instruction(LOAD, NUMBER, 0, 0));
    filter.push(instruction(IF_EQUAL, call as u32, 0, OVER));
    for condition in conditions {
        match *condition {
            Argument::Is(position, value) => {
                filter.push(instruction(LOAD, argument(position), 0, 0));
                filter.push(instruction(IF_EQUAL, value as u32, 0, OVER));
                filter.push(instruction(LOAD, argument(position) + 4, 0, 0));
                filter.push(instruction(IF_EQUAL, (value >> 32) as u32, 0, OVER));
            }
            Argument::IsNot(position, value) => {
                filter.push(instruction(LOAD, argument(position), 0, 0));
                filter.push(instruction(IF_EQUAL, value, OVER, 0));
            }
            Argument::Lacks(position, bits) => {
                filter.push(instruction(LOAD, argument(position), 0, 0));
                filter.push(instruction(IF_ANY_BIT, bits, OVER, 0));
            }
        }
    }
    filter.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    let end = filter.len();
    for (index, instruction) in filter.iter_mut().enumerate().skip(begin) {
        let over = u8::try_from(end - index - 1).unwrap_or(OVER);
        for jump in [&mut instruction.jt, &mut instruction.jf] {
            if *jump == OVER {
                *jump = over;
            }
        }
    }
}
