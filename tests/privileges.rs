//! The sandbox applies to the whole process, so each test runs in a process of its own.

mod fake;

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, exit};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{Signal, raise};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::unistd;
use wwan_quirks::host::sandbox::{self, Limits};
use wwan_quirks::host::sys;

/// The exit status of a process that ran its test to the end. A process that ran no test has another one.
const PASSED: i32 = 77;

/// Runs `what` in a process of its own. The process runs the same test, and a variable tells it to run `what`.
fn alone(test: &str, what: impl FnOnce()) -> std::process::ExitStatus {
    const CHILD: &str = "WWAN_QUIRKS_TEST_CHILD";
    if std::env::var(CHILD).as_deref() == Ok(test) {
        what();
        exit(PASSED);
    }
    let program = std::env::args_os().next().unwrap();
    fake::command(program).args([test, "--exact", "--test-threads=1"]).env(CHILD, test).status().unwrap()
}

fn refused<T>(what: &str, done: std::io::Result<T>) {
    let code = done.err().and_then(|error| error.raw_os_error());
    if code != Some(nix::libc::EPERM) {
        eprintln!("{what}: {code:?}");
        exit(1);
    }
}

fn status_line(status: &mut File, name: &str) -> String {
    let mut text = String::new();
    status.rewind().unwrap();
    status.read_to_string(&mut text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
}

#[test]
fn nothing_more_can_be_opened() {
    let status = alone("nothing_more_can_be_opened", || {
        let (one, other) = UnixStream::pair().unwrap();
        let mut timer = sys::interrupter().unwrap();
        let (start, mut started) = UnixStream::pair().unwrap();
        // Convert it to a number: in musl it is a pointer, which cannot be sent to another thread.
        let sandboxed = pthread_self() as usize;
        std::thread::spawn(move || {
            started.read_exact(&mut [0]).unwrap();
            loop {
                std::thread::sleep(Duration::from_millis(1));
                pthread_kill(sandboxed as Pthread, Signal::SIGUSR1).unwrap();
            }
        });
        let mut status = File::open("/proc/thread-self/status").unwrap();
        let mut large = vec![1_u8; 1 << 20];
        Limits::All.set();
        assert_eq!(sandbox::level(), None);
        sandbox::enter();
        assert!(sandbox::level().unwrap().contains("seccomp"), "{:?}", sandbox::level());

        refused("a file", File::open("/etc/hostname"));
        refused("a new file", File::create("/tmp/wwan-quirks-never"));
        refused("a device", File::options().read(true).write(true).open("/dev/null"));
        refused("a folder", fs::read_dir("/"));
        refused("a link", fs::read_link("/proc/self/exe"));
        refused("a removal", fs::remove_file("/tmp/wwan-quirks-never"));
        refused("a socket", UnixDatagram::unbound());
        refused("a network", UdpSocket::bind("127.0.0.1:0"));
        refused("a process", Command::new("/bin/true").status());
        refused("a signal", raise(Signal::SIGCONT).map_err(Into::into));
        assert_eq!(status_line(&mut status, "CapEff:"), "0000000000000000");
        assert_eq!(status_line(&mut status, "CapPrm:"), "0000000000000000");
        assert_eq!(status_line(&mut status, "NoNewPrivs:"), "1");
        assert_eq!(status_line(&mut status, "Seccomp:"), "2");

        // Open descriptors still work, and so do waiting and memory allocation.
        let mut bytes = [0; 2];
        assert_eq!(unistd::write(&one, b"on"), Ok(2));
        assert_eq!(unistd::read(&other, &mut bytes), Ok(2));
        large.extend_from_slice(&large.clone());
        assert_eq!(large.iter().map(|byte| usize::from(*byte)).sum::<usize>(), 2 << 20);
        drop(large);
        std::thread::sleep(Duration::from_millis(1));
        let later = TimeSpec::from_duration(Duration::from_secs(60));
        timer.set(Expiration::OneShot(later), TimerSetTimeFlags::empty()).unwrap();
        // A signal interrupts a call, and its handler returns.
        assert_eq!(unistd::write(&start, b"1"), Ok(1));
        assert_eq!(unistd::read(&other, &mut bytes), Err(Errno::EINTR));
    });
    assert_eq!(status.code(), Some(PASSED));
}

/// On a kernel or a processor that lacks a protection, the journal must not name it.
#[test]
fn the_journal_names_the_protections_that_hold() {
    let status = alone("the_journal_names_the_protections_that_hold", || {
        let mut status = File::open("/proc/thread-self/status").unwrap();
        // The filter hides what Landlock does, so Landlock comes first.
        sys::no_new_privileges().unwrap();
        let landlock = sys::forbid_files().is_ok();
        assert_eq!(landlock, File::open("/etc/passwd").is_err());
        sandbox::enter();
        let level = sandbox::level().unwrap();
        assert_eq!(level.contains("landlock"), landlock, "{level}");
        assert_eq!(level.contains("seccomp"), UnixDatagram::unbound().is_err(), "{level}");
        assert_eq!(
            level.contains("capabilities"),
            status_line(&mut status, "CapEff:") == "0000000000000000",
            "{level}"
        );
    });
    assert_eq!(status.code(), Some(PASSED));
}

#[test]
fn a_run_that_hangs_is_ended() {
    let began = Instant::now();
    let status = alone("a_run_that_hangs_is_ended", || {
        let _watchdog = sandbox::watchdog(Duration::from_secs(1));
        let (mut silent, _other) = UnixStream::pair().unwrap();
        silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _ = silent.read(&mut [0]);
    });
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(nix::libc::SIGALRM));
    assert!(began.elapsed() >= Duration::from_secs(1));
}
