//! Signals concern the whole process, so this test runs in a process of its own.

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{Signal, raise};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use wwan_quirks::bus::Port;
use wwan_quirks::host::deadline::Deadline;
use wwan_quirks::host::root::Root;
use wwan_quirks::host::state::{Holder, PortState, StateError, Task};
use wwan_quirks::host::sys;

#[test]
fn a_signal_ends_one_wait_and_not_the_process() {
    let (quiet, _other) = UnixStream::pair().unwrap();
    let wait = |milliseconds, seen| {
        sys::wait(quiet.as_fd(), PollFlags::POLLIN, Deadline::after(Duration::from_millis(milliseconds)), seen)
    };
    sys::catch_stop_signals().unwrap();

    // A signal before the wait.
    for (number, signal) in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().enumerate() {
        raise(signal).unwrap();
        assert_eq!(wait(60_000, number), Err(Errno::EINTR));
    }
    assert_eq!(sys::stop_requests(), 3);
    // Signals that were reported do not end another wait.
    assert_eq!(wait(20, 3), Ok(PollFlags::empty()));

    // A signal during the wait. `waiting` is a number: in musl it is a pointer, which cannot be sent to another thread.
    let waiting = pthread_self() as usize;
    let signalled = |wait: &dyn Fn()| {
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                pthread_kill(waiting as Pthread, Signal::SIGTERM).unwrap();
            });
            wait();
        });
        assert!(began.elapsed() < Duration::from_secs(30));
    };
    signalled(&|| assert_eq!(wait(60_000, 3), Err(Errno::EINTR)));

    // A signal while another run holds the lock of the port.
    let path = std::env::temp_dir().join(format!("wwan-quirks-signals-{}", std::process::id()));
    let (root, port) = (Root::new(&path), Port::new("1-1").unwrap());
    let lock = |task: Task| {
        let holder = Holder { enumeration: 1, task };
        PortState::lock(&root, &port, &holder, Deadline::after(Duration::from_secs(60)))
    };
    let held = lock(Task::All).unwrap();
    signalled(&|| assert!(matches!(lock(Task::Device), Err(StateError::Interrupted))));
    drop(held);

    // The open of a port takes long, and continues in a child.
    let opened = sys::open_abandonable(Deadline::after(Duration::from_secs(60)), || {
        std::thread::sleep(Duration::from_secs(2));
        std::fs::File::open("/dev/null")
    });
    assert!(matches!(opened, Err(Errno::EINTR)), "{opened:?}");
    std::fs::remove_dir_all(path).unwrap();
}
