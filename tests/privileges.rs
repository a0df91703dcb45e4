//! Limits, watchdog and sandbox apply to the whole process, so each test runs in a process of its own.

mod fake;

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio, exit};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fake::{Root, mc7710};
use nix::errno::Errno;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, raise};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::unistd::{self, alarm, mkfifo};
use wwan_quirks::host::sandbox::{self, Limits};
use wwan_quirks::host::{root, sys};
use wwan_quirks::verbs::{fcc_unlock, run_cli, run_fcc_unlock, run_hook};

/// The exit status of a process that ran its test to the end. A process that ran no test has a different one.
const PASSED: i32 = 77;

/// A udev event of a port on a bus that no machine has.
const EVENT: [(&str, &str); 4] = [
    ("ACTION", "add"),
    ("DEVPATH", "/devices/pci0000:00/usb1/254-1/254-1:1.12/usbmisc/cdc-wdm0"),
    ("SUBSYSTEM", "usbmisc"),
    ("SYNTH_UUID", "0"),
];

/// Runs `what` for each of `cases` in a process of its own. The process runs the same test, and a variable tells it the
/// case.
fn alone<T>(test: &str, cases: &[T], what: impl FnOnce(&T)) -> Vec<Output> {
    const CASE: &str = "WWAN_QUIRKS_TEST_CASE";
    if let Ok(case) = std::env::var(CASE) {
        what(&cases[case.parse::<usize>().unwrap()]);
        exit(PASSED);
    }
    let spawn = |case: usize| {
        let mut command = fake::command(std::env::args_os().next().unwrap());
        command.args([test, "--exact", "--test-threads=1", "--nocapture"]).envs(EVENT).env(CASE, case.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs: Vec<_> = (0..cases.len()).map(spawn).collect();
    runs.into_iter().map(|run| run.wait_with_output().unwrap()).collect()
}

/// Like [`alone`]. Each case must end without a panic.
fn pass_alone<T: Debug>(test: &str, cases: &[T], what: impl FnOnce(&T)) {
    let ended = alone(test, cases, what);
    let failed = cases.iter().zip(&ended).filter(|(_, ended)| ended.status.code() != Some(PASSED));
    let said =
        failed.map(|(case, ended)| format!("{case:?}: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr)));
    assert_eq!(said.collect::<String>(), "");
}

/// Runs the command line `words` on `root`.
fn run(root: &Path, words: &str) {
    let program = [OsStr::new("wwan-quirks"), OsStr::new("--root"), root.as_os_str()];
    run_cli(program.into_iter().chain(words.split(' ').map(OsStr::new)).map(OsStr::to_owned));
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
    pass_alone("nothing_more_can_be_opened", &[()], |()| {
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
}

/// On a kernel or a processor that lacks a protection, the journal must not name it.
#[test]
fn the_journal_names_the_protections_that_hold() {
    pass_alone("the_journal_names_the_protections_that_hold", &[()], |()| {
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
}

#[test]
fn a_run_that_hangs_is_ended() {
    let began = Instant::now();
    let ended = alone("a_run_that_hangs_is_ended", &[()], |()| {
        let _watchdog = sandbox::watchdog(Duration::from_secs(1));
        let (mut silent, _other) = UnixStream::pair().unwrap();
        silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _ = silent.read(&mut [0]);
    });
    assert_eq!(ended[0].status.signal(), Some(nix::libc::SIGALRM));
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn each_entry_point_has_its_limits() {
    // Whether the limits apply, and whether they include the size of files.
    let cases = [
        ("udev", true, true),
        ("ModemManager", true, true),
        ("hook", true, true),
        ("apply", true, false),
        ("status", true, false),
        ("composition 254-1", true, false),
        ("report 254-1", false, false),
        ("list", false, false),
    ];
    pass_alone("each_entry_point_has_its_limits", &cases, |(start, are_limited, are_files_limited)| {
        let root = Root::new();
        let resources = [Resource::RLIMIT_AS, Resource::RLIMIT_NOFILE, Resource::RLIMIT_CORE, Resource::RLIMIT_FSIZE];
        let limits = || resources.map(|resource| getrlimit(resource).unwrap());
        let before = limits();
        match *start {
            "udev" => drop(run_hook()),
            "ModemManager" => drop(run_fcc_unlock(&["wwan254mbim0".to_owned()])),
            words => run(&root.0, words),
        }
        let mut expected = before;
        if *are_limited {
            expected[..3].copy_from_slice(&[(256 << 20, 256 << 20), (64, 64), (0, 0)]);
        }
        if *are_files_limited {
            expected[3] = (64 << 10, 64 << 10);
        }
        assert_eq!(limits(), expected);
    });
}

/// Users see the same modems, but may neither open the nodes nor read each file.
#[test]
fn a_command_without_root_says_to_run_it_as_root() {
    let cases = [
        (
            "apply 1-1",
            "dev/bus/usb/001/005",
            "dev/bus/usb/001/005: Permission denied (os error 13); run the command as root",
        ),
        ("apply 1-2", "sys/bus/usb/devices/1-2/bConfigurationValue", "2: Permission denied; run the command as root"),
        ("apply 1-3", "dev/cdc-wdm0", "dev/cdc-wdm0: Permission denied (os error 13); run the command as root"),
        ("composition 1-3", "proc/1/fd", "failed: cannot determine which programs use "),
        ("apply --dry-run", "proc/1/fd", "configuration: write 2 to bConfigurationValue"),
        ("composition 1-3", "dev/cdc-wdm0", "; run the command as root"),
        ("status 1-3", "etc/wwan-quirks/config.toml", "if a file cannot be read, run the command as root"),
    ];
    let ended = alone("a_command_without_root_says_to_run_it_as_root", &cases, |(words, denied, _)| {
        let root = Root::new();
        root.plug("1-1", "1199:0fff", &fake::install_mode());
        root.plug("1-2", "1199:68a2", &mc7710());
        root.plug("1-3", "1199:9071", &mc7710());
        root.control_port("1-3", "1.12", "cdc_mbim", "cdc-wdm0");
        fs::create_dir_all(root.0.join("proc/1/fd")).unwrap();
        root.write("dev/bus/usb/001/005", "");
        root.write("dev/cdc-wdm0", "");
        root.policy("");
        let mode = if denied.starts_with("dev") || denied.starts_with("sys") { 0o444 } else { 0 };
        fs::set_permissions(root.0.join(denied), fs::Permissions::from_mode(mode)).unwrap();
        let before = unistd::geteuid();
        if before.is_root() {
            unistd::seteuid(unistd::Uid::from_raw(65534)).unwrap();
        }
        run(&root.0, words);
        unistd::seteuid(before).unwrap();
    });
    for ((words, _, said), ended) in cases.iter().zip(ended) {
        let printed = String::from_utf8(ended.stdout).unwrap();
        assert!(printed.contains(said), "{words}: {printed}{}", String::from_utf8_lossy(&ended.stderr));
    }
}

/// A call that does not return cannot check the deadline. Each run blocks at a pipe, once for each watchdog.
#[test]
fn a_watchdog_is_armed_when_a_call_blocks() {
    // What runs, where it blocks, and the seconds until the kernel ends it.
    let (strings, users) = ("sys/devices/pci0000:00/usb1/254-1/product", "proc/1/fdinfo/3");
    let cases = [
        // The policy is not known yet.
        ("hook", strings, 21),
        ("hook", users, 50),
        ("apply", strings, 80),
        ("apply --unit 254-1", users, 120),
        ("status --query", users, 25),
        ("composition 254-1", users, 40),
        ("ModemManager", users, 24),
    ];
    pass_alone("a_watchdog_is_armed_when_a_call_blocks", &cases, |(start, blocks, seconds)| {
        let root = Root::new();
        root.policy("[timeouts]\nhook = 30\nmodem-ready = 100\n");
        root.write(
            "etc/wwan-quirks/quirks.d/own.toml",
            "schema = 1\n[[device]]\nid = \"1199:9071\"\nproduct = \"MC\"\nname = \"X\"\nsteps = [{ fcc-auth = \"sierra\" }]\n",
        );
        root.plug("254-1", "1199:9071", &mc7710());
        root.control_port("254-1", "1.12", "cdc_mbim", "cdc-wdm0");
        let port = "sys/devices/pci0000:00/usb1/254-1/254-1:1.12/usbmisc/cdc-wdm0/dev";
        root.write(port, "1:3\n");
        // Another process has the port open.
        root.write("proc/1/fdinfo/2", "");
        fs::create_dir(root.0.join("proc/1/fd")).unwrap();
        symlink("/dev/null", root.0.join("proc/1/fd/3")).unwrap();
        fs::create_dir_all(root.0.join("run/systemd/system")).unwrap();
        let pipe = root.0.join(blocks);
        let _ = fs::remove_file(&pipe);
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let (left, blocked) = mpsc::channel();
        let start_of_run = Instant::now();
        std::thread::spawn(move || {
            let mut unblocks = File::options().write(true).open(&pipe).unwrap();
            left.send((alarm::cancel(), start_of_run.elapsed())).unwrap();
            // The other process has the port open only with `O_PATH`, and the run goes on.
            let text = "flags:\t010000000\n";
            fs::remove_file(&pipe).unwrap();
            fs::write(&pipe, text).unwrap();
            unblocks.write_all(text.as_bytes()).unwrap();
        });
        match *start {
            "ModemManager" => drop(fcc_unlock::run(&root::Root::new(&root.0), &["cdc-wdm0".to_owned()])),
            words => run(&root.0, words),
        }
        let (left, elapsed) = blocked.try_recv().expect("the run did not block");
        // The run may have armed it at any time since it began.
        let armed = left.expect("no watchdog")..=left.expect("no watchdog") + elapsed.as_secs() as u32 + 1;
        assert!(armed.contains(seconds), "{armed:?} s");
    });
}
