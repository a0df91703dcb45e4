//! What is remembered of a port from one event to the next: `/run/wwan-quirks/state/PORT`, gone at reboot.
//!
//! A [`State`] holds the lock of its file for as long as it lives, so that two runs never act on one port at once.
//! What cannot be remembered (`/run` full or read-only) does not keep a modem from being served.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{self, Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::host::deadline::Deadline;
use crate::host::root::{Root, read_limited};
use crate::usb::Port;

const DIRECTORY: &str = "/run/wwan-quirks/state";
const LIMIT: usize = 64 * 1024;
/// How many times a step may act on a modem that keeps coming back as it was, and in how many seconds.
pub const ATTEMPTS: usize = 3;
pub const WINDOW: f64 = 60.0;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("another run of wwan-quirks is at work on this port")]
    Busy,
    #[error("cannot keep state in {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// Seconds since the epoch.
    pub at: u64,
    /// `done`, `nothing`, `unfinished` or `failed`.
    pub outcome: String,
    pub text: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// `idVendor:idProduct` of the device that was last acted on.
    pub id: String,
    /// By step: when it was tried on a device that then came back as it was, in seconds since boot.
    pub attempts: BTreeMap<String, Vec<f64>>,
    /// The number on the bus (`devnum`) of the device that was last seen unlocked and in low power, which is how somebody
    /// wants it. A device that leaves and comes back has another number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switched_off: Option<String>,
    /// By step: how it last ended.
    pub last: BTreeMap<String, Last>,
    /// When a device was last told to switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

/// What a device was told on one of its stays on the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub id: String,
    /// [`crate::modem::device::Device::stay`].
    pub stay: u64,
    /// Whether it had been told before, and had left and come back as it was.
    pub returned: bool,
}

impl Record {
    /// Notes one more try of `step` on the device `id`; whether it is still within bounds. A different device on the
    /// port begins anew.
    pub fn attempt(&mut self, step: &str, id: &str, now: f64) -> bool {
        if self.id != id {
            self.attempts.clear();
            self.id = id.to_owned();
        }
        let tries = self.attempts.entry(step.to_owned()).or_default();
        tries.retain(|then| (now - WINDOW..=now).contains(then));
        if tries.len() >= ATTEMPTS {
            return false;
        }
        tries.push(now);
        true
    }

    /// The modem came up as `step` wants it: what was tried before led somewhere.
    pub fn arrived(&mut self, step: &str) {
        self.attempts.remove(step);
        self.told = None;
    }

    /// Notes that the device `id` is told to switch on this `stay`: whether it has been told on it before, and whether
    /// it is back after it was told on the one before.
    pub fn tells(&mut self, id: &str, stay: u64) -> (bool, bool) {
        let earlier = self.told.as_ref().filter(|told| told.id == id);
        let again = earlier.is_some_and(|told| told.stay == stay);
        let returned = earlier.is_some_and(|told| told.returned == again);
        self.told = Some(Told { id: id.to_owned(), stay, returned });
        (again, returned)
    }

    /// Whether the device of this number (`devnum`) was last seen switched off.
    pub fn was_switched_off(&self, number: Option<&str>) -> bool {
        number.is_some() && self.switched_off.as_deref() == number
    }

    pub fn ended(&mut self, step: &str, outcome: &str, text: &str) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.last.insert(step.to_owned(), Last { at, outcome: outcome.to_owned(), text: text.to_owned() });
    }
}

/// The state of one port, locked.
pub struct State {
    pub record: Record,
    before: Record,
    file: Option<Flock<File>>,
}

impl State {
    /// Locks the state of `port`, waiting until `deadline` for another run to end.
    pub fn lock(root: &Root, port: &Port, deadline: Deadline) -> Result<State, StateError> {
        let path = file(root, port);
        let io = |source| StateError::Io { path: path.clone(), source };
        let mut opened = open(root, port).map_err(io)?;
        loop {
            match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let record = parse(&file);
                    return Ok(State { before: record.clone(), record, file: Some(file) });
                }
                Err((_, nix::Error::EWOULDBLOCK)) if deadline.has_passed() => return Err(StateError::Busy),
                Err((file, nix::Error::EWOULDBLOCK)) => opened = file,
                Err((_, error)) => return Err(io(error.into())),
            }
            thread::sleep(Duration::from_millis(10).min(deadline.remaining()));
        }
    }

    /// A state that forgets, for where none can be kept.
    pub fn forgetful() -> State {
        State { record: Record::default(), before: Record::default(), file: None }
    }

    /// Writes what changed since the last time.
    pub fn save(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|_| self.record != self.before) else { return Ok(()) };
        let text = serde_json::to_vec(&self.record).map_err(io::Error::other)?;
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(&text)?;
        self.before = self.record.clone();
        Ok(())
    }
}

/// What is remembered of `port`, without waiting for anybody.
pub fn peek(root: &Root, port: &Port) -> Record {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(file(root, port));
    opened.map_or_else(|_| Record::default(), |file| parse(&file))
}

/// Seconds since boot, time asleep included.
pub fn now() -> f64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

fn file(root: &Root, port: &Port) -> PathBuf {
    root.at(DIRECTORY).join(port.as_str())
}

fn open(root: &Root, port: &Port) -> io::Result<File> {
    let folder = folder(root)?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(fcntl::openat(folder, port.as_str(), flags, Mode::from_bits_truncate(0o644))?);
    let metadata = file.metadata()?;
    let foreign = root.is_live() && (metadata.uid() != 0 || metadata.mode() & 0o022 != 0);
    if !metadata.is_file() || metadata.nlink() != 1 || foreign {
        return Err(io::Error::other("not a plain file of our own"));
    }
    Ok(file)
}

/// The folder of all states, made where it is missing. One that lies elsewhere, behind a link, is not ours.
fn folder(root: &Root) -> io::Result<OwnedFd> {
    let path = root.at(DIRECTORY);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = match fcntl::open(&path, flags, Mode::empty()) {
        Err(nix::Error::ENOENT) => {
            let parent = path.parent().unwrap_or(&path);
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
            if parent.symlink_metadata()?.is_symlink() {
                return Err(io::Error::other("a link leads elsewhere"));
            }
            DirBuilder::new().mode(0o755).create(&path).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })?;
            fcntl::open(&path, flags, Mode::empty())
        }
        opened => opened,
    }?;
    // Where the folder really is, which is one call instead of a look at each name on the way.
    let real = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
    let expected =
        if root.is_live() { path } else { root.at("/").canonicalize()?.join(DIRECTORY.trim_start_matches('/')) };
    if real != expected {
        return Err(io::Error::other(format!("a link leads elsewhere, to {}", real.display())));
    }
    Ok(folder)
}

/// A record that was cut short, or that something else wrote, counts as none.
fn parse(file: &File) -> Record {
    read_limited(file, LIMIT).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tries_in_a_minute_are_enough() {
        let mut record = Record::default();
        let tries: Vec<bool> = [0.0, 1.0, 2.0, 3.0, 59.0].iter().map(|at| record.attempt("switch", "a", *at)).collect();
        assert_eq!(tries, [true, true, true, false, false]);
        assert!(record.attempt("switch", "a", 60.5), "the first try is more than a minute ago");
        assert!(!record.attempt("switch", "a", 60.6));
    }

    #[test]
    fn a_modem_that_came_up_begins_anew_and_so_does_another_one() {
        let mut record = Record::default();
        for at in 0..9 {
            assert!(record.attempt("switch", "a", f64::from(at)));
            record.arrived("switch");
        }
        for id in ["b", "c", "d", "e", "f"] {
            assert!(record.attempt("switch", id, 10.0));
        }
    }

    #[test]
    fn a_clock_that_went_back_does_not_lock_a_modem_out() {
        let mut record = Record::default();
        for _ in 0..3 {
            assert!(record.attempt("switch", "a", 1000.0));
        }
        assert!(record.attempt("switch", "a", 5.0));
    }

    #[test]
    fn a_device_returned_where_it_left_in_between() {
        let mut record = Record::default();
        assert_eq!(record.tells("a", 5), (false, false));
        assert_eq!(record.tells("a", 5), (true, false));
        assert_eq!(record.tells("a", 6), (false, true));
        assert_eq!(record.tells("a", 6), (true, true));
        assert_eq!(record.tells("a", 7), (false, false), "the next round begins");
        assert_eq!(record.tells("b", 8), (false, false), "another device");
        record.arrived("switch");
        assert_eq!(record.tells("b", 9), (false, false), "it was a modem in between");
    }

    #[test]
    fn state_is_kept_locked_and_survives_garbage() {
        let directory = std::env::temp_dir().join(format!("wwan-quirks-state-{}", std::process::id()));
        let root = Root::new(&directory);
        let port = Port::new("1-1.2").unwrap();
        let soon = || Deadline::after(Duration::from_millis(30));
        let mut state = State::lock(&root, &port, soon()).unwrap();
        assert!(matches!(State::lock(&root, &port, soon()), Err(StateError::Busy)));
        state.record.ended("switch", "done", "left");
        state.save().unwrap();
        drop(state);
        assert_eq!(peek(&root, &port).last["switch"].outcome, "done");
        std::fs::write(file(&root, &port), "{ half").unwrap();
        assert_eq!(State::lock(&root, &port, soon()).unwrap().record, Record::default());
        std::fs::remove_file(file(&root, &port)).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", file(&root, &port)).unwrap();
        assert!(matches!(State::lock(&root, &port, soon()), Err(StateError::Io { .. })));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn nothing_is_kept_where_a_link_leads_elsewhere() {
        let directory = std::env::temp_dir().join(format!("wwan-quirks-planted-{}", std::process::id()));
        let root = Root::new(directory.join("root"));
        let elsewhere = directory.join("elsewhere");
        let port = Port::new("1-1").unwrap();
        std::fs::create_dir_all(&elsewhere).unwrap();
        for link in ["run/wwan-quirks", "run/wwan-quirks/state"] {
            let link = directory.join("root").join(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
            let refused = State::lock(&root, &port, Deadline::after(Duration::ZERO));
            assert!(matches!(refused, Err(StateError::Io { .. })), "{link:?}");
            assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0, "{link:?}");
            std::fs::remove_file(link).unwrap();
        }
        assert!(State::lock(&root, &port, Deadline::after(Duration::ZERO)).is_ok());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
