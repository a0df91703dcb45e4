//! Kernel interfaces that need `unsafe`, and waiting.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, SigmaskHow, Signal, sigaction};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::ClockId;
use nix::unistd::{ForkResult, fork, geteuid, pipe2, setsid};
use rusb::{Context, DeviceHandle, UsbContext};

use crate::bus::Port;
use crate::host::deadline::Deadline;

mod ioctl {
    // IOCTL_WDM_MAX_COMMAND of linux/usb/cdc-wdm.h.
    nix::ioctl_read!(wdm_max_command, b'H', 0xA0, u16);
}

/// The longest message that a cdc-wdm port takes, in bytes: `wMaxCommand`.
///
/// # Errors
/// `ENOTTY` if the port is not a cdc-wdm port.
pub(crate) fn wdm_max_command(port: BorrowedFd) -> nix::Result<u16> {
    let mut bytes = 0_u16;
    // SAFETY: the request writes one u16 through the pointer, and `bytes` has room for it. The descriptor is borrowed
    // and therefore open.
    unsafe { ioctl::wdm_max_command(port.as_raw_fd(), &mut bytes) }?;
    Ok(bytes)
}

/// Passes an open usbfs node to libusb. The caller keeps `node` open as long as the handle exists: libusb neither
/// duplicates nor closes it (`libusb_wrap_sys_device`).
pub(crate) fn wrap_usb_node(context: &Context, node: BorrowedFd<'_>) -> rusb::Result<DeviceHandle<Context>> {
    // SAFETY: `node` is an open descriptor, and `link::usb::Node` drops the handle before it closes the descriptor.
    unsafe { context.open_device_with_fd(node.as_raw_fd()) }
}

/// Calls `each` with every name in a directory, including `.` and `..`, in no particular order. A name is followed by
/// one or more NULs, and by the padding of its record. This avoids an allocation, and a search for the end, for each
/// name.
pub(crate) fn for_each_name(directory: BorrowedFd, mut each: impl FnMut(&[u8])) -> nix::Result<()> {
    let mut buffer = [0_u8; 4096];
    loop {
        let (fd, start, length) = (directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the kernel writes at most `length` bytes to `start`, and `buffer` has this length. The descriptor is
        // borrowed and therefore open.
        let got = Errno::result(unsafe { libc::syscall(libc::SYS_getdents64, fd, start, length) })?;
        let mut records = usize::try_from(got).ok().and_then(|got| buffer.get(..got)).unwrap_or_default();
        if records.is_empty() {
            return Ok(());
        }
        // struct linux_dirent64: inode, offset, record length (u16) at 16, type, name at 19, NUL.
        while let Some(length) = records.get(16..).and_then(<[u8]>::first_chunk) {
            let length = usize::from(u16::from_ne_bytes(*length));
            let (Some(name), Some(rest)) = (records.get(19..length), records.get(length..)) else { break };
            each(name);
            records = rest;
        }
    }
}

/// The remedy for an operation that only root may do.
pub(crate) const AS_ROOT: &str = "run the command as root";

/// Whether the kernel refused an operation because this process does not run as root.
pub(crate) fn lacks_root(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root()
}

/// Prevents this process and its children from ever gaining privileges.
pub fn no_new_privileges() -> nix::Result<()> {
    // SAFETY: all arguments are numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

/// Drops all capabilities of this thread, which is the only thread.
pub(crate) fn drop_capabilities() -> nix::Result<()> {
    // `_LINUX_CAPABILITY_VERSION_3` and this process. Then the effective, permitted and inheritable sets, in two
    // halves.
    let header = [0x2008_0522_u32, 0];
    let none = [0_u32; 6];
    // SAFETY: the kernel reads both arrays, which have the size for this version, and keeps no pointer to them.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) }).map(drop)
}

/// Forbids opening any file, with Landlock.
///
/// # Errors
/// `ENOSYS` or `EOPNOTSUPP` if the kernel does not support Landlock, `EPERM` if a sandbox around the process forbids
/// it.
pub fn forbid_files() -> nix::Result<()> {
    // All access rights of the first version (linux/landlock.h), which every kernel with Landlock knows. No rule grants
    // any of them.
    let handled = (1_u64 << 13) - 1;
    // SAFETY: the kernel reads eight bytes from `handled`.
    let rules = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, 8_usize, 0) };
    let rules = Errno::result(rules)?;
    // SAFETY: the kernel has just created the descriptor, and it has no other owner. It is closed at the end of this
    // scope.
    let rules = unsafe { OwnedFd::from_raw_fd(rules as i32) };
    // SAFETY: all arguments are numbers, and the descriptor is open.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) }).map(drop)
}

/// Installs this classic BPF program as a filter for all later system calls (seccomp(2), `SECCOMP_MODE_FILTER`).
pub(crate) fn filter_calls(filter: &[libc::sock_filter]) -> nix::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::E2BIG)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies and checks the program, which has the length `len`. It writes nothing.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }).map(drop)
}

/// Runs `work` in a child process that this process does not wait for. The child has `/dev/null` as its standard
/// streams and a session of its own, so it does not end with the caller. The child exits when `work` returns.
///
/// Returns `parents` to this process. The child drops it first: it is what only this process may have open.
///
/// The process must have one thread. Locks that the child inherits stay held until both processes have closed them.
pub(crate) fn detached<T>(parents: T, work: impl FnOnce()) -> nix::Result<T> {
    // SAFETY: the process has one thread, so no lock of another thread stays held in the child.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(parents),
        ForkResult::Child => {
            drop(parents);
            let _ = setsid();
            if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
                for standard in 0..=2 {
                    // SAFETY: all arguments are numbers. No object in this process owns the standard descriptors.
                    unsafe { libc::dup2(null.as_raw_fd(), standard) };
                }
            }
            work();
            // SAFETY: exits at once, without running destructors for resources that the parent still uses.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Runs `work` on each item in a child process of its own, all at the same time. Returns whether all have succeeded.
///
/// Waits for all children, so `work` must have a deadline. The process must have one thread.
pub(crate) fn in_parallel<T>(items: impl Iterator<Item = T>, work: impl Fn(T) -> bool) -> bool {
    let (mut children, mut all_succeeded) = (Vec::new(), true);
    for item in items {
        // SAFETY: the process has one thread, so no lock of another thread stays held in the child.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => children.push(child),
            // SAFETY: exits at once, without running destructors for resources that the parent still uses.
            Ok(ForkResult::Child) => unsafe { libc::_exit(i32::from(!work(item))) },
            Err(_) => all_succeeded &= work(item),
        }
    }
    for child in children {
        let ended = loop {
            match waitpid(child, None) {
                Err(Errno::EINTR) => {}
                ended => break ended,
            }
        };
        all_succeeded &= matches!(ended, Ok(WaitStatus::Exited(_, 0)));
    }
    all_succeeded
}

/// Runs `work` in a child process and waits for its result, but not beyond the deadline. For calls that no signal
/// interrupts, such as a write to sysfs that waits for a modem.
///
/// Returns `Some` with the result of `work`, or with the error that kept the child from starting or from reporting a
/// result (`ECHILD`). Returns `None` if `work` has not ended by the deadline. It then continues in the child.
pub(crate) fn abandonable(deadline: Deadline, work: impl FnOnce() -> nix::Result<()>) -> Option<nix::Result<()>> {
    let (result, sender) = match pipe2(OFlag::O_CLOEXEC) {
        Ok((result, sender)) => (File::from(result), File::from(sender)),
        Err(errno) => return Some(Err(errno)),
    };
    let forked = detached((), || {
        let errno = work().err().map_or(0, |errno| errno as i32);
        let _ = (&sender).write_all(&errno.to_ne_bytes());
    });
    drop(sender);
    // A stop request does not shorten the wait, because the kernel continues the operation anyway.
    let ready = forked.and_then(|()| wait(result.as_fd(), PollFlags::POLLIN, deadline, usize::MAX));
    match ready {
        Err(errno) => return Some(Err(errno)),
        Ok(events) if events.is_empty() => return None,
        Ok(_) => {}
    }
    let mut errno = [0; 4];
    Some(match ((&result).read_exact(&mut errno), i32::from_ne_bytes(errno)) {
        (Err(_), _) => Err(Errno::ECHILD),
        (Ok(()), 0) => Ok(()),
        (Ok(()), errno) => Err(Errno::from_raw(errno)),
    })
}

/// A file that a child process opened and keeps open until this process drops [`Opened::keeper`] or ends. The child
/// then drops what it opened. Its close is the last one, which may take as long as the open.
#[derive(Debug)]
pub struct Opened {
    pub file: File,
    pub(crate) keeper: OwnedFd,
}

/// Runs `open` in a child process and takes over the file, but does not wait beyond the deadline. For devices that no
/// signal interrupts while they are opened or closed.
///
/// The child inherits this process's locks, and keeps them until it has closed the file.
///
/// # Errors
/// The error of the open or of the child (`ECHILD`: it ended without a result). `ETIMEDOUT` if the open has not ended by
/// the deadline, and `EINTR` after a stop request. In both cases, the child closes the file as soon as it is open.
pub fn open_abandonable<T: AsRawFd>(deadline: Deadline, open: impl FnOnce() -> io::Result<T>) -> nix::Result<Opened> {
    // The children of two tests that fork at the same time would each keep the other's socket open, and never end.
    #[cfg(test)]
    let guard = tests::ONE_FORK_AT_A_TIME.lock();
    let (ours, childs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let mut childs = File::from(childs);
    let ours = detached(ours, || {
        let opened = open();
        let errno = opened.as_ref().map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |_| 0);
        let descriptors: Vec<_> = opened.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() { &[][..] } else { &rights };
        let bytes = errno.to_ne_bytes();
        let sent =
            sendmsg::<UnixAddr>(childs.as_raw_fd(), &[IoSlice::new(&bytes)], rights, MsgFlags::MSG_NOSIGNAL, None);
        // The socket hangs up when the parent no longer needs the file.
        while sent.is_ok() && childs.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
    })?;
    #[cfg(test)]
    drop(guard);
    drop(childs);
    if wait(ours.as_fd(), PollFlags::POLLIN, deadline, 0)?.is_empty() {
        return Err(Errno::ETIMEDOUT);
    }
    Ok(Opened { file: receive_file(ours.as_fd())?, keeper: ours })
}

/// The file that the child of [`open_abandonable`] sends, or the error of the open.
fn receive_file(socket: BorrowedFd) -> nix::Result<File> {
    let mut errno = [0; 4];
    let mut parts = [IoSliceMut::new(&mut errno)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let is_whole = received.bytes == size_of::<i32>();
    let descriptor = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    match (is_whole, descriptor) {
        // SAFETY: the kernel has just created the descriptor for this process, and it has no other owner.
        (_, Some(descriptor)) => Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) })),
        (true, None) => Err(Errno::from_raw(i32::from_ne_bytes(errno))),
        (false, None) => Err(Errno::ECHILD),
    }
}

static STOPS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_stop(_signal: i32) {
    STOPS.fetch_add(1, Ordering::Relaxed);
}

/// SIGTERM, SIGINT and SIGHUP.
fn stop_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
}

/// Makes SIGTERM, SIGINT and SIGHUP end the waits of the process instead of the process itself, so that it can clean up
/// the modem.
pub fn catch_stop_signals() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(count_stop), SaFlags::empty(), SigSet::empty());
    for signal in &stop_signals() {
        // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Like [`catch_stop_signals`], before a run that may need to clean up the modem on `port`. The run continues after a
/// failure.
pub(crate) fn defer_stop_signals(port: &Port) {
    if let Err(error) = catch_stop_signals() {
        log::warn!("{port}: cannot defer signals, which may interrupt the cleanup: {error}");
    }
}

/// The interval of the signals after a deadline.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(10);

extern "C" fn do_nothing(_signal: i32) {}

/// A timer whose signal interrupts the process, from when it is set until it is dropped. The signal ends a close that
/// waits for its device, but does not end [`wait`].
pub fn interrupter() -> nix::Result<Timer> {
    let action = SigAction::new(SigHandler::Handler(do_nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    let notify = SigevNotify::SigevSignal { signal: Signal::SIGUSR1, si_value: 0 };
    Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))
}

/// Makes one call that blocks until a signal arrives, and interrupts it from the deadline on.
///
/// # Errors
/// `EINTR` after the deadline. The call must not repeat itself after `EINTR`, as most methods of `std` do.
pub(crate) fn interrupted_at<T>(deadline: Deadline, call: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let mut timer = interrupter()?;
    let first = deadline.remaining().max(SIGNAL_INTERVAL);
    // A single signal could come before the call.
    let times = Expiration::IntervalDelayed(TimeSpec::from_duration(first), TimeSpec::from_duration(SIGNAL_INTERVAL));
    timer.set(times, TimerSetTimeFlags::empty())?;
    call()
}

/// The number of stop requests so far.
pub fn stop_requests() -> usize {
    STOPS.load(Ordering::Relaxed)
}

/// Waits until the descriptor is ready for `events` or has hung up, or until the deadline passes (empty flags).
///
/// # Errors
/// `EINTR` if the process has received more than `seen` stop requests, before or during the wait. The signals are
/// blocked except while the kernel waits, so none is lost between the check and the wait.
pub fn wait(fd: BorrowedFd, events: PollFlags, deadline: Deadline, seen: usize) -> nix::Result<PollFlags> {
    let mut polled = [PollFd::new(fd, events)];
    poll(&mut polled, deadline, seen)?;
    Ok(polled.iter().filter_map(PollFd::revents).collect())
}

/// Waits until the deadline.
///
/// # Errors
/// Like [`wait`].
pub fn pause(deadline: Deadline, seen: usize) -> nix::Result<()> {
    poll(&mut [], deadline, seen)
}

fn poll(polled: &mut [PollFd], deadline: Deadline, seen: usize) -> nix::Result<()> {
    let before = stop_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let ended = loop {
        if stop_requests() > seen {
            break Err(Errno::EINTR);
        }
        match ppoll(polled, Some(TimeSpec::from_duration(deadline.remaining())), Some(before)) {
            Err(Errno::EINTR) => {}
            ended => break ended.map(drop),
        }
    };
    before.thread_set_mask()?;
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::tests::TempRoot;
    use std::ffi::CStr;
    use std::sync::Mutex;

    pub(super) static ONE_FORK_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn abandonable_work_returns_its_result_or_is_left_behind() {
        let soon = || Deadline::after(std::time::Duration::from_secs(60));
        assert_eq!(abandonable(soon(), || Ok(())), Some(Ok(())));
        assert_eq!(abandonable(soon(), || Err(Errno::EBUSY)), Some(Err(Errno::EBUSY)));
        let deadline = Deadline::after(std::time::Duration::from_millis(1));
        let slow = || {
            std::thread::sleep(std::time::Duration::from_secs(2));
            Ok(())
        };
        assert_eq!(abandonable(deadline, slow), None);
    }

    #[test]
    fn a_child_opens_a_file_and_passes_it_on() {
        let soon = || Deadline::after(std::time::Duration::from_secs(60));
        let null = || File::options().write(true).open("/dev/null");
        let Opened { mut file, keeper } = open_abandonable(soon(), null).unwrap();
        file.write_all(b"x").unwrap();
        // The child exists as long as the file is in use.
        assert_eq!(
            wait(keeper.as_fd(), PollFlags::POLLIN, Deadline::after(std::time::Duration::ZERO), 0),
            Ok(PollFlags::empty())
        );
        let absent = || File::open("/dev/wwan99mbim99");
        assert_eq!(open_abandonable(soon(), absent).unwrap_err(), Errno::ENOENT);
        let slow = || {
            std::thread::sleep(std::time::Duration::from_secs(2));
            null()
        };
        let deadline = Deadline::after(std::time::Duration::from_millis(1));
        assert_eq!(open_abandonable(deadline, slow).unwrap_err(), Errno::ETIMEDOUT);
    }

    #[test]
    fn every_name_is_listed_once() {
        let root = TempRoot::new("names");
        let directory = root.at("/");
        // More names than fit into the buffer at once, of all lengths.
        let mut expected: Vec<String> =
            (0..600).map(|number| format!("{number:0length$}", length = 4 + number % 200)).collect();
        expected.iter().for_each(|name| std::fs::write(directory.join(name), "").unwrap());
        expected.extend([".".to_owned(), "..".to_owned()]);
        expected.sort();
        let mut names = Vec::new();
        let opened = std::fs::File::open(&directory).unwrap();
        for_each_name(opened.as_fd(), |name| {
            names.push(CStr::from_bytes_until_nul(name).unwrap().to_string_lossy().into_owned())
        })
        .unwrap();
        names.sort();
        assert_eq!(names, expected);
        let file = std::fs::File::open("/proc/self/cmdline").unwrap();
        assert_eq!(for_each_name(file.as_fd(), |_| ()), Err(Errno::ENOTDIR));
    }
}
