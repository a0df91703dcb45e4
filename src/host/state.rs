//! The state of a port from one run to the next, in `/run/wwan-quirks`. It disappears at reboot.
//!
//! `lock/PORT` (mode 0600, in a directory of mode 0700) is the lock of the port, and holds the data that only the
//! program needs. A [`PortState`] holds the lock as long as it exists, so that two runs never act on one port at the
//! same time. `state/PORT` (mode 0644) holds the results that `status` shows to users.
//!
//! A modem is served even if no state can be kept because `/run` is full or read-only.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::iter::successors;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{self, Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::close;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bus::{DeviceId, Port};
use crate::host::deadline::Deadline;
use crate::host::root::{Root, read_limited};
use crate::host::sys;
use crate::outcome::{Message, StepKind, StepResult};

const DIRECTORY: &str = "/run/wwan-quirks";
const LOCKS: Folder = Folder { name: "lock", directory: 0o700, file: 0o600 };
const RESULTS: Folder = Folder { name: "state", directory: 0o755, file: 0o644 };
const LIMIT: usize = 64 * 1024;
/// How often a step may act on a device that repeatedly comes back in the same state.
pub(crate) const ATTEMPTS: u32 = 3;
/// A device that comes back later than this after an action was plugged in again.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// A device that comes back later than this after an action that was verified was plugged in again: a modem that crashes
/// returns within a few seconds, and a person needs more time to look at the modem and to plug it again.
const CRASH_WINDOW: Duration = Duration::from_secs(10);
/// The interval at which a waiting run tries to take the lock.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

struct Folder {
    name: &'static str,
    directory: u32,
    file: u32,
}

/// The remedy for a person whose command found another run on the port.
pub(crate) const AFTER_OTHER_RUN: &str = "run the command again when the other run has ended";

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// `same_task`: the other run has the same task on the same enumeration.
    #[error("another run of wwan-quirks is using this port")]
    Busy { same_task: bool },
    #[error("stopped by a signal while another run of wwan-quirks was using this port")]
    Interrupted,
    #[error("cannot save state in {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// The last result of a step, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastResult {
    /// Seconds since the epoch.
    pub at: u64,
    pub outcome: StepResult,
    #[serde(flatten)]
    pub message: Message,
    /// The device that the step acted on. A switch changes this ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DeviceId>,
    /// When a later run found the modem still in the state of this result, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) confirmed: Option<u64>,
}

/// What a run found out about the radio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Radio {
    #[serde(flatten)]
    pub last: LastResult,
    /// Whether the radio was online.
    #[serde(default)]
    pub online: bool,
}

/// The results that `status` shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// The enumeration that the results concern.
    enumeration: Option<u64>,
    pub last: BTreeMap<StepKind, LastResult>,
    /// The state of the radio that the last run which reached the modem found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub radio: Option<Radio>,
}

impl Results {
    /// Drops what concerns earlier devices on the port. `enumeration` and `id` are those of the present one, which was
    /// connected at `connected`, in seconds since the epoch. Keeps the results of the last minute before that: the step
    /// may have made this device come back, a switch or a composition even with another ID.
    pub fn drop_earlier(&mut self, enumeration: u64, id: DeviceId, connected: u64) {
        if self.enumeration.replace(enumeration) == Some(enumeration) {
            return;
        }
        self.radio = None;
        self.last.retain(|step, last| {
            let changes_id = matches!(step, StepKind::Switch | StepKind::Composition);
            let is_recent = connected.saturating_sub(last.at) <= WINDOW.as_secs();
            is_recent && (changes_id || last.id == Some(id))
        });
    }

    /// Records the result of `step` on the device `id`. A result "nothing to do" confirms an earlier result, and does
    /// not replace it. `is_online`: the step found the radio online.
    pub fn record(
        &mut self,
        step: StepKind,
        id: DeviceId,
        outcome: StepResult,
        message: impl Into<Message>,
        is_online: bool,
    ) {
        let at = since_the_epoch();
        let result = LastResult { at, outcome, message: message.into(), id: Some(id), confirmed: None };
        // A suppressed step did not reach the modem. After a failure, the radio may have another state than before.
        if step == StepKind::FccAuth && outcome != StepResult::Suppressed {
            self.radio = outcome.is_success().then(|| Radio { last: result.clone(), online: is_online });
        }
        match self.last.get_mut(&step) {
            Some(earlier) if outcome == StepResult::Unchanged && earlier.outcome == StepResult::Done => {
                earlier.confirmed = Some(at);
            }
            _ => {
                self.last.insert(step, result);
            }
        }
    }

    pub(crate) fn has_failed(&self, step: StepKind) -> bool {
        self.last.get(&step).is_some_and(|last| last.outcome == StepResult::Failed)
    }

    /// Whether a step waits for the authorization of the device.
    pub(crate) fn is_blocked(&self) -> bool {
        self.last.values().any(|last| last.outcome == StepResult::NotAuthorized)
    }

    /// Records that the device of the last switch came back as another device. `left` describes that. Returns the
    /// result to report: `Done` if the run that sent the message had ended before the device left.
    pub(crate) fn came_back(&mut self, left: &str) -> StepResult {
        let Some(switch) = self.last.get_mut(&StepKind::Switch) else { return StepResult::Done };
        switch.confirmed = Some(since_the_epoch());
        if switch.outcome == StepResult::Done {
            return StepResult::Unchanged;
        }
        switch.outcome = StepResult::Done;
        switch.message = left.into();
        StepResult::Done
    }
}

/// The time in seconds since the epoch, for display.
pub(crate) fn since_the_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One device on one port, for the guard against loops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub id: DeviceId,
    pub serial: Option<String>,
    /// Identifies this enumeration of the device.
    pub enumeration: u64,
    /// `devnum`. The kernel numbers the devices of a bus in sequence.
    pub number: Option<u16>,
}

impl Identity {
    /// Whether `self` is the device `earlier` after it left the bus and came back, with no other device on its port in
    /// between. `elsewhere` returns the numbers of devices on other ports.
    fn came_back(&self, earlier: &Identity, elsewhere: impl FnOnce() -> Vec<u16>) -> bool {
        let is_same = (&self.id, &self.serial) == (&earlier.id, &earlier.serial);
        if !is_same || self.enumeration == earlier.enumeration {
            return false;
        }
        let (Some(now), Some(then)) = (self.number, earlier.number) else { return true };
        // Device numbers wrap from 127 to 1, which the root hub has (Linux drivers/usb/core/hub.c, choose_devnum).
        let next = |number: &u16| Some(number % 127 + 1);
        let mut between: Vec<u16> =
            successors(next(&then), next).take(126).take_while(|number| *number != now).collect();
        between.retain(|number| *number != 1);
        if between.is_empty() {
            return true;
        }
        let elsewhere = elsewhere();
        between.iter().all(|number| elsewhere.contains(number))
    }
}

/// An action of a step on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ActionRecord {
    identity: Identity,
    /// Since boot. A device that comes back later than this was plugged in again.
    #[serde(with = "seconds")]
    until: Duration,
    /// The number of consecutive actions, including this one, after each of which the device came back in the same
    /// state.
    count: u32,
    /// Whether the device had come back since the previous action. Alternates: some sticks need two different actions.
    returned: bool,
    gave_up: bool,
}

/// What the guard knows of earlier actions of a step on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    First,
    /// The step has acted on this enumeration before.
    Repeat {
        returned: bool,
    },
    /// The device came back in the same state. `returned` alternates with each return.
    CameBack {
        returned: bool,
    },
    /// The device came back too often.
    GiveUp {
        is_reported: bool,
    },
}

impl Attempt {
    /// Whether the device has come back since the action before this one.
    pub fn returned(self) -> bool {
        matches!(self, Attempt::Repeat { returned: true } | Attempt::CameBack { returned: true })
    }
}

/// What the program remembers of a port, for itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// What the run that holds the lock does.
    holder: Option<Holder>,
    acted: BTreeMap<StepKind, ActionRecord>,
    /// The device that last received a switch message. The unit does not send a second one.
    pub switched: Option<SentSwitch>,
    /// The configuration before one that a run was still setting when it last saved this.
    pub(crate) configured: Option<EarlierConfiguration>,
    /// The enumeration that was last seen unlocked and in low power: the user switched its radio off.
    pub(crate) switched_off: Option<u64>,
    /// The enumeration that was last seen unlocked.
    pub unlocked: Option<u64>,
    /// The enumeration that was not online after a reset.
    pub reset: Option<u64>,
    tried_keys: Option<TriedKeys>,
}

/// The keys that a lock has received since the modem's power-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TriedKeys {
    enumeration: u64,
    /// The [`crate::steps::fcc_auth::Key::id`] of each key. A key that opened the lock is not among them.
    keys: Vec<u32>,
    verdict: Verdict,
}

/// The verdict on the last key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// The run that sent the key did not see a verdict.
    Pending,
    Refused,
    Accepted,
}

/// A device that received, or may have received, the message that makes it leave install mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentSwitch {
    pub enumeration: u64,
    /// The reply of the device, or the first error.
    pub answer: String,
}

/// The configuration of a device before a run set another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EarlierConfiguration {
    pub(crate) enumeration: u64,
    /// `bConfigurationValue`.
    pub(crate) value: u8,
}

/// The device and the task of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub enumeration: u64,
    #[serde(rename = "scope")]
    pub task: Task,
}

/// What a run does while it holds the lock of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The steps of the USB device itself.
    Device,
    /// All steps.
    All,
    /// Only the unlock, over any port.
    Unlock,
    Status,
    BeforeSleep,
    Composition,
    /// The unlock over this port (`cdc-wdm0`, `ttyUSB1`, `wwan0mbim0`).
    #[serde(untagged)]
    Port(String),
}

/// A time in `/run`, as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Memory {
    /// Records that `step` is about to act on this device at `now`, since boot. If `by_request` is set, the
    /// guard does not apply. `elsewhere` returns the device numbers that belong to other ports of the bus.
    pub fn attempt(
        &mut self,
        step: StepKind,
        identity: &Identity,
        now: Duration,
        by_request: bool,
        elsewhere: impl FnOnce() -> Vec<u16>,
    ) -> Attempt {
        let earlier = self.acted.get(&step).filter(|acted| (now..=now + WINDOW).contains(&acted.until));
        let (attempt, count, returned) = match earlier {
            Some(acted) if acted.identity == *identity => {
                let count = if acted.gave_up { ATTEMPTS + 1 } else { acted.count };
                (Attempt::Repeat { returned: acted.returned }, count, acted.returned)
            }
            Some(acted) if identity.came_back(&acted.identity, elsewhere) => {
                let returned = !acted.returned;
                (Attempt::CameBack { returned }, acted.count + 1, returned)
            }
            _ => (Attempt::First, 1, false),
        };
        let is_reported = earlier.is_some_and(|acted| acted.gave_up);
        if count > ATTEMPTS && !by_request {
            if let Some(acted) = self.acted.get_mut(&step) {
                // Remembers this enumeration, so that the next one counts as a return, too.
                acted.identity = identity.clone();
                acted.gave_up = true;
            }
            return Attempt::GiveUp { is_reported };
        }
        let count = if by_request { 1 } else { count };
        let (identity, until) = (identity.clone(), now + WINDOW);
        self.acted.insert(step, ActionRecord { identity, until, count, returned, gave_up: false });
        attempt
    }

    /// The keys that this enumeration must not receive again, and whether a later key opened its lock.
    pub(crate) fn tried_keys(&self, enumeration: u64) -> (&[u32], bool) {
        let tried = self.tried_keys.as_ref().filter(|tried| tried.enumeration == enumeration);
        tried.map_or((&[], false), |tried| (&tried.keys, tried.verdict == Verdict::Accepted))
    }

    /// Records that `enumeration` is about to receive `key`. Returns the earlier keys, for [`Self::take_back_key`].
    pub(crate) fn try_key(&mut self, enumeration: u64, key: u32) -> Option<TriedKeys> {
        let before = self.tried_keys.take();
        let known = before.as_ref().filter(|tried| tried.enumeration == enumeration);
        let mut keys = known.map_or(Vec::new(), |tried| tried.keys.clone());
        keys.push(key);
        self.tried_keys = Some(TriedKeys { enumeration, keys, verdict: Verdict::Pending });
        before
    }

    /// Records that the modem has not received the last key after all.
    pub(crate) fn take_back_key(&mut self, before: Option<TriedKeys>) {
        self.tried_keys = before;
    }

    /// Records whether the lock of `enumeration` is open. If the last key opened it, that key may open it again. The
    /// refused keys are not sent again until the next power-up.
    pub(crate) fn judge_key(&mut self, enumeration: u64, is_unlocked: bool) {
        let Some(tried) = self.tried_keys.as_mut().filter(|tried| tried.enumeration == enumeration) else { return };
        match (is_unlocked, tried.verdict) {
            (true, Verdict::Pending) => {
                tried.keys.pop();
                tried.verdict = Verdict::Accepted;
            }
            (true, _) => tried.verdict = Verdict::Accepted,
            (false, Verdict::Pending) => tried.verdict = Verdict::Refused,
            (false, _) => {}
        }
    }

    /// The last action of `step` was verified at `now`, since boot. Only a modem that then crashes is a loop.
    pub fn verified(&mut self, step: StepKind, now: Duration) {
        if let Some(acted) = self.acted.get_mut(&step) {
            acted.until = now + CRASH_WINDOW;
        }
    }

    /// The modem came up in the state that `step` wants. The earlier actions of the step were not a loop.
    pub(crate) fn clear_attempts(&mut self, step: StepKind) {
        self.acted.remove(&step);
    }
}

/// A file that is read once and then written in place, because no file can be opened in the sandbox.
struct StateFile<T> {
    value: T,
    saved: T,
}

impl<T: Clone + Default + PartialEq + Serialize + DeserializeOwned> StateFile<T> {
    fn read(file: &File) -> StateFile<T> {
        let value: T =
            read_limited(file, LIMIT).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        StateFile { saved: value.clone(), value }
    }

    fn save(&mut self, file: &mut File) -> io::Result<()> {
        if self.value == self.saved {
            return Ok(());
        }
        let text = serde_json::to_vec(&self.value).map_err(io::Error::other)?;
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(&text)?;
        self.saved = self.value.clone();
        Ok(())
    }
}

/// The state of one port, locked.
pub struct PortState {
    memory: StateFile<Memory>,
    results: StateFile<Results>,
    files: Option<(Flock<File>, File)>,
    port: Port,
    /// The state could not be saved, which was reported.
    is_failing: bool,
}

impl PortState {
    /// Locks the state of `port`. Waits until `deadline` for a holder with another task or enumeration.
    ///
    /// # Errors
    /// `Busy` at once if the holder has the same task on the same enumeration, and after `deadline` for any other holder.
    /// `Interrupted` after a stop request. `Io` if the files cannot be created or are not private.
    pub fn lock(root: &Root, port: &Port, holder: &Holder, deadline: Deadline) -> Result<PortState, StateError> {
        PortState::lock_unless(root, port, holder, deadline, |other| other == Some(holder))
    }

    /// Like [`lock`](PortState::lock), but waits for each holder.
    pub(crate) fn wait_for_lock(
        root: &Root,
        port: &Port,
        holder: &Holder,
        deadline: Deadline,
    ) -> Result<PortState, StateError> {
        PortState::lock_unless(root, port, holder, deadline, |_| false)
    }

    fn lock_unless(
        root: &Root,
        port: &Port,
        holder: &Holder,
        deadline: Deadline,
        gives_way: impl Fn(Option<&Holder>) -> bool,
    ) -> Result<PortState, StateError> {
        let io = |folder: &Folder| {
            let path = root.at(DIRECTORY).join(folder.name).join(port.as_str());
            move |source| StateError::Io { path, source }
        };
        let mut opened = open(root, &LOCKS, port).map_err(io(&LOCKS))?;
        let stops = sys::stops();
        let lock = loop {
            match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break lock,
                Err((file, nix::Error::EWOULDBLOCK)) => {
                    let StateFile { value: Memory { holder: other, .. }, .. } = StateFile::read(&file);
                    if gives_way(other.as_ref()) || deadline.has_passed() {
                        return Err(StateError::Busy { same_task: other.as_ref() == Some(holder) });
                    }
                    opened = file;
                    (&opened).rewind().map_err(io(&LOCKS))?;
                }
                Err((_, error)) => return Err(io(&LOCKS)(error.into())),
            }
            if sys::stops() > stops {
                return Err(StateError::Interrupted);
            }
            deadline.sleep(LOCK_RETRY_INTERVAL);
        };
        let results = open(root, &RESULTS, port).map_err(io(&RESULTS))?;
        Ok(PortState::locked(port, holder, lock, results))
    }

    /// The lock counts even if nothing can be saved.
    fn locked(port: &Port, holder: &Holder, lock: Flock<File>, results: File) -> PortState {
        let mut memory: StateFile<Memory> = StateFile::read(&lock);
        memory.value.holder = Some(holder.clone());
        let (results, files) = (StateFile::read(&results), Some((lock, results)));
        let mut state = PortState { memory, results, files, port: port.clone(), is_failing: false };
        state.keep();
        state
    }

    /// A state in memory, for use if no state can be kept.
    pub(crate) fn in_memory(port: &Port) -> PortState {
        let memory = StateFile { value: Memory::default(), saved: Memory::default() };
        let results = StateFile { value: Results::default(), saved: Results::default() };
        PortState { memory, results, files: None, port: port.clone(), is_failing: false }
    }

    /// Whether later runs know this state.
    pub(crate) fn is_kept(&self) -> bool {
        self.files.is_some() && !self.is_failing
    }

    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory.value
    }

    pub fn results(&mut self) -> &mut Results {
        &mut self.results.value
    }

    /// Writes the changes since the last call.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        let Some((lock, results)) = &mut self.files else { return Ok(()) };
        let saved = self.memory.save(lock);
        saved.and(self.results.save(results))
    }

    /// Like [`save`](Self::save), but only warns about a failure, and only once. The run continues without the state.
    pub fn keep(&mut self) {
        let Err(error) = self.save() else { return };
        if !std::mem::replace(&mut self.is_failing, true) {
            log::warn!("{}: cannot save state: {error}", self.port);
        }
    }

    /// Leaves the port locked for as long as a child process has the lock file open.
    pub(crate) fn leave_to_child(mut self) {
        if let Some((lock, _)) = self.files.take() {
            let descriptor = lock.as_raw_fd();
            // Its drop would unlock the port for the child, too.
            std::mem::forget(lock);
            let _ = close(descriptor);
        }
    }
}

impl Drop for PortState {
    fn drop(&mut self) {
        self.memory.value.holder = None;
        self.keep();
    }
}

/// The results of `port`, read without its lock.
pub(crate) fn peek(root: &Root, port: &Port) -> Results {
    reads(root, &RESULTS, port.as_str()).map_or_else(|_| Results::default(), |file| StateFile::read(&file).value)
}

fn reads(root: &Root, folder: &Folder, name: &str) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let path = root.at(DIRECTORY).join(folder.name).join(name);
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// The device numbers that the last actions on the other ports of the bus met. Such a device may be away at present. Reads
/// the files without their locks: a file that is being written counts as empty.
pub(crate) fn numbers_elsewhere(root: &Root, port: &Port) -> Vec<u16> {
    let is_elsewhere = |name: &str| Port::new(name).is_some_and(|other| other.shares_bus(port) && other != *port);
    let Ok(entries) = fs::read_dir(root.at(DIRECTORY).join(LOCKS.name)) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let memories = names.filter(|name| is_elsewhere(name)).filter_map(|name| {
        let file = reads(root, &LOCKS, &name).ok()?;
        Some(StateFile::<Memory>::read(&file).value)
    });
    memories.flat_map(|memory| memory.acted.into_values()).filter_map(|acted| acted.identity.number).collect()
}

/// The time since boot, including suspend.
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

fn open(root: &Root, folder: &Folder, port: &Port) -> io::Result<File> {
    let directory = directory(root, folder)?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(fcntl::openat(directory, port.as_str(), flags, Mode::from_bits_truncate(folder.file))?);
    let metadata = file.metadata()?;
    let foreign = root.is_live() && (metadata.uid() != 0 || metadata.mode() & 0o022 != 0);
    if !metadata.is_file() || metadata.nlink() != 1 || foreign {
        return Err(io::Error::other("not a private regular file owned by root"));
    }
    Ok(file)
}

/// Opens the directory, and creates it if it is missing. Follows no symbolic link below `/run`.
fn directory(root: &Root, folder: &Folder) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let path = root.at(DIRECTORY);
    let (run, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    let run = File::open(run).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => fs::create_dir_all(run).and_then(|()| File::open(run)),
        _ => Err(error),
    })?;
    let child = |parent: &dyn AsFd, name: &OsStr, path: &Path, mode| -> io::Result<OwnedFd> {
        match fcntl::openat(parent.as_fd(), name, flags, Mode::empty()) {
            Err(nix::Error::ENOENT) => {
                match DirBuilder::new().mode(mode).create(path) {
                    // Another run has created the directory meanwhile.
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                    _ => Ok(fcntl::openat(parent.as_fd(), name, flags, Mode::empty())?),
                }
            }
            opened => Ok(opened?),
        }
    };
    let ours = child(&run, name, &path, 0o755)?;
    child(&ours, folder.name.as_ref(), &path.join(folder.name), folder.directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::host::deadline::clock::StoppedClock;
    use crate::host::root::tests::TempRoot;

    const STICK: &str = "1199:0fff";

    fn identity(id: &str, serial: &str, enumeration: u64) -> Identity {
        Identity {
            id: id.parse().unwrap(),
            serial: Some(serial.to_owned()),
            enumeration,
            number: Some((enumeration % 127) as u16 + 1),
        }
    }

    /// An attempt without other devices on the bus.
    fn attempt(memory: &mut Memory, step: StepKind, identity: &Identity, at: f64, by_request: bool) -> Attempt {
        memory.attempt(step, identity, Duration::from_secs_f64(at), by_request, Vec::new)
    }

    fn attempts(memory: &mut Memory, enumerations: impl IntoIterator<Item = (u64, f64)>) -> Vec<Attempt> {
        let attempt =
            |(enumeration, at)| attempt(memory, StepKind::Switch, &identity(STICK, "1", enumeration), at, false);
        enumerations.into_iter().map(attempt).collect()
    }

    const FIRST: Attempt = Attempt::First;

    #[test]
    fn a_device_that_leaves_late_was_switched() {
        let id = DeviceId { bus: Bus::Usb, vendor: 0x1199, product: 0x0fff };
        let mut results = Results::default();
        results.record(StepKind::Switch, id, StepResult::Unfinished, "the device accepted the message", false);
        assert_eq!(
            [results.came_back("it left"), results.came_back("it left")],
            [StepResult::Done, StepResult::Unchanged]
        );
        let last = &results.last[&StepKind::Switch];
        assert_eq!((last.outcome, last.message.text.as_str()), (StepResult::Done, "it left"));
        assert_eq!(last.id, Some(id));
        assert!(last.confirmed.is_some());
    }

    fn came_back(returned: bool) -> Attempt {
        Attempt::CameBack { returned }
    }

    #[test]
    fn a_device_that_keeps_coming_back_is_left_alone_after_three_attempts() {
        let mut memory = Memory::default();
        let found = attempts(&mut memory, (1..=5).map(|number| (number, number as f64 * 5.0)));
        let give_up = |is_reported| Attempt::GiveUp { is_reported };
        assert_eq!(found, [FIRST, came_back(true), came_back(false), give_up(false), give_up(true)]);
        assert_eq!(attempts(&mut memory, [(5, 25.5)]), [give_up(true)]);
        // On request, the step acts, and the count starts again.
        assert_eq!(
            attempt(&mut memory, StepKind::Switch, &identity(STICK, "1", 6), 26.0, true),
            Attempt::CameBack { returned: true }
        );
        assert_eq!(attempts(&mut memory, [(7, 27.0), (8, 28.0)]).len(), 2);
        assert_eq!(attempts(&mut memory, [(9, 29.0)]), [give_up(false)]);
        // A minute later it was plugged in again.
        assert_eq!(attempts(&mut memory, [(10, 28.5 + WINDOW.as_secs_f64())]), [FIRST]);
    }

    #[test]
    fn forty_successes_on_one_port_are_no_loop() {
        let mut memory = Memory::default();
        // The stick in install mode, then the modem that it becomes. Each enumeration has the next device number.
        let plugs = (0..40).map(|plug| (1 + 2 * plug, plug as f64));
        assert!(attempts(&mut memory, plugs).iter().all(|attempt| *attempt == FIRST));
        // The modem comes up in the state that the step wants.
        for plug in 0..40 {
            assert_eq!(attempts(&mut memory, [(200 + plug, 100.0 + plug as f64)]), [FIRST]);
            memory.clear_attempts(StepKind::Switch);
        }
    }

    /// A modem that only needs a configuration has no later step that finds it in the wanted state.
    #[test]
    fn a_modem_that_keeps_its_configuration_is_no_loop_and_one_that_crashes_is() {
        let attempts = |seconds: f64| {
            let mut memory = Memory::default();
            let mut plugged = |plug| {
                let at = seconds * plug as f64;
                let attempt = attempt(&mut memory, StepKind::Configuration, &identity(STICK, "1", plug), at, false);
                memory.verified(StepKind::Configuration, Duration::from_secs_f64(at + 0.2));
                attempt
            };
            (1..=40).map(&mut plugged).collect::<Vec<Attempt>>()
        };
        assert_eq!(attempts(CRASH_WINDOW.as_secs_f64() + 1.0), [FIRST; 40]);
        let crashes = attempts(CRASH_WINDOW.as_secs_f64() - 1.0);
        assert!(crashes[..3].iter().all(|attempt| !matches!(attempt, Attempt::GiveUp { .. })), "{crashes:?}");
        assert_eq!(crashes[3], Attempt::GiveUp { is_reported: false });
    }

    #[test]
    fn other_devices_do_not_count() {
        let mut memory = Memory::default();
        for enumeration in 1..=20 {
            let device = identity(STICK, &enumeration.to_string(), enumeration);
            assert_eq!(attempt(&mut memory, StepKind::Switch, &device, 1.0, false), FIRST);
        }
        assert_eq!(attempt(&mut memory, StepKind::Switch, &identity("1199:68a2", "20", 21), 1.0, false), FIRST);
    }

    /// After an upgrade, the program reads the files of the version before it.
    #[test]
    fn the_files_keep_their_format() {
        let memory = concat!(
            r#"{"holder":{"enumeration":7,"scope":"cdc-wdm0"},"acted":{"switch":{"identity":"#,
            r#"{"id":"1199:0fff","serial":"1","enumeration":7,"number":8},"until":61.5,"count":1,"#,
            r#""returned":false,"gave_up":false}},"switched":null,"configured":null,"switched_off":null,"unlocked":7,"reset":null,"#,
            r#""tried_keys":null}"#
        );
        let read: Memory = serde_json::from_str(memory).unwrap();
        assert_eq!(read.holder, Some(holder(7, Task::Port("cdc-wdm0".to_owned()))));
        let acted = &read.acted[&StepKind::Switch];
        assert_eq!((&acted.identity, acted.until), (&identity(STICK, "1", 7), Duration::from_millis(61_500)));
        assert_eq!(serde_json::to_string(&read).unwrap(), memory);
        let results = concat!(
            r#"{"enumeration":7,"last":{"switch":{"at":5,"outcome":"done","text":"left","id":"pci:1eac:1001","#,
            r#""confirmed":6}}}"#
        );
        let read: Results = serde_json::from_str(results).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), results);
    }

    /// Two devices with the same ID and without a serial number return in turn, so that neither has the next number.
    #[test]
    fn two_loops_on_one_bus_are_both_stopped() {
        let root = TempRoot::new("loops");
        let ports = ["1-1", "1-2"].map(|name| Port::new(name).unwrap());
        let far = Deadline::after(Duration::from_secs(600));
        let mut given_up = 0;
        for number in 5..15 {
            let port = &ports[number % 2];
            let mut state = PortState::lock(&root, port, &holder(number as u64, Task::Device), far).unwrap();
            let device = Identity { number: Some(number as u16), ..identity(STICK, "1", number as u64) };
            let elsewhere = || numbers_elsewhere(&root, port);
            let attempt =
                state.memory().attempt(StepKind::Switch, &device, Duration::from_secs(number as u64), false, elsewhere);
            given_up += usize::from(matches!(attempt, Attempt::GiveUp { is_reported: false }));
        }
        // Other buses have numbers of their own.
        assert!(numbers_elsewhere(&root, &Port::new("2-1").unwrap()).is_empty());
        assert_eq!(given_up, 2);
    }

    #[test]
    fn a_rerun_on_the_same_enumeration_does_not_count() {
        let mut memory = Memory::default();
        assert_eq!(attempts(&mut memory, [(1, 1.0)]), [FIRST]);
        let repeat = |returned| Attempt::Repeat { returned };
        assert_eq!(attempts(&mut memory, (0..9).map(|rerun| (1, 2.0 + rerun as f64))), [repeat(false); 9]);
        assert_eq!(attempts(&mut memory, [(2, 12.0), (2, 13.0)]), [came_back(true), repeat(true)]);
    }

    #[test]
    fn a_clock_that_went_back_does_not_lock_a_modem_out() {
        let mut memory = Memory::default();
        attempts(&mut memory, (1..=4).map(|number| (number, 1000.0)));
        assert_eq!(attempts(&mut memory, [(5, 5.0)]), [FIRST]);
    }

    #[test]
    fn device_numbers_wrap_around() {
        let numbered = |number, enumeration| Identity { number: Some(number), enumeration, ..identity(STICK, "1", 0) };
        for (then, now, elsewhere, is_back) in [
            (5, 6, vec![], true),
            (5, 7, vec![], false),
            (5, 8, vec![6, 7], true),
            (5, 8, vec![6], false),
            // The root hub has the number 1.
            (127, 2, vec![], true),
            (127, 3, vec![], false),
            (126, 4, vec![3, 2, 127], true),
        ] {
            let came_back = numbered(now, 2).came_back(&numbered(then, 1), || elsewhere.clone());
            assert_eq!(came_back, is_back, "{then} {now} {elsewhere:?}");
        }
    }

    #[test]
    fn only_the_key_that_opened_a_lock_is_sent_to_it_again() {
        let mut memory = Memory::default();
        for key in [1, 2] {
            memory.try_key(7, key);
        }
        assert_eq!(memory.tried_keys(7), (&[1, 2][..], false));
        memory.judge_key(7, true);
        assert_eq!(memory.tried_keys(7), (&[1][..], true));
        // A later look at the unlocked modem changes nothing.
        memory.judge_key(7, true);
        assert_eq!(memory.tried_keys(7), (&[1][..], true));
        // The modem locked again without a power loss.
        memory.try_key(7, 2);
        assert_eq!(memory.tried_keys(7), (&[1, 2][..], false));
        // A refused key stays refused if another program unlocks the modem.
        memory.judge_key(7, false);
        memory.judge_key(7, true);
        assert_eq!(memory.tried_keys(7), (&[1, 2][..], true));
        // A key that was not sent after all.
        let before = memory.try_key(7, 3);
        memory.take_back_key(before);
        assert_eq!(memory.tried_keys(7), (&[1, 2][..], true));
        // A power-up is another enumeration.
        assert_eq!(memory.tried_keys(8), (&[][..], false));
    }

    #[test]
    fn a_result_without_work_does_not_hide_what_was_done() {
        let (mut results, id) = (Results::default(), "1199:68a2".parse().unwrap());
        results.record(StepKind::FccAuth, id, StepResult::Done, "unlocked", false);
        results.record(StepKind::FccAuth, id, StepResult::Unchanged, "the radio is already online", true);
        let last = &results.last[&StepKind::FccAuth];
        assert_eq!((last.outcome, last.message.text.as_str()), (StepResult::Done, "unlocked"));
        assert!(last.confirmed.is_some());
        let online =
            |results: &Results| results.radio.as_ref().map(|radio| (radio.last.message.text.clone(), radio.online));
        let found = Some(("the radio is already online".to_owned(), true));
        assert_eq!(online(&results), found);
        results.record(StepKind::FccAuth, id, StepResult::Suppressed, "held", false);
        assert_eq!(online(&results), found);
        results.record(StepKind::FccAuth, id, StepResult::Failed, "no", false);
        assert_eq!(results.last[&StepKind::FccAuth].outcome, StepResult::Failed);
        assert_eq!(online(&results), None);
    }

    #[test]
    fn another_device_on_the_port_starts_without_results() {
        let [stick, modem, other]: [DeviceId; 3] =
            ["1199:0fff", "1199:68a2", "2c7c:0125"].map(|id| id.parse().unwrap());
        let steps = |results: &Results| results.last.keys().copied().collect::<Vec<StepKind>>();
        let (mut results, now) = (Results::default(), since_the_epoch());
        results.drop_earlier(1, stick, now);
        results.record(StepKind::Switch, stick, StepResult::Done, "left", false);
        // The stick comes back as a modem. A later run on this modem drops nothing.
        results.drop_earlier(2, modem, now + 5);
        for step in [StepKind::Configuration, StepKind::FccAuth] {
            results.record(step, modem, StepResult::Done, "done", true);
        }
        let all = [StepKind::Switch, StepKind::Configuration, StepKind::FccAuth];
        results.drop_earlier(2, modem, now + 5);
        assert!(steps(&results) == all && results.radio.is_some(), "{results:?}");
        // The modem restarts, is plugged in much later, or is replaced.
        for (id, connected, kept) in [
            (modem, now + 10, &all[..]),
            (modem, now + 3600, &[]),
            (other, now + 10, &[StepKind::Switch]),
            (other, now + 3600, &[]),
        ] {
            let mut results = results.clone();
            results.drop_earlier(3, id, connected);
            assert!(steps(&results) == kept && results.radio.is_none(), "{id} {connected}: {results:?}");
        }
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(30))
    }

    fn holder(enumeration: u64, task: Task) -> Holder {
        Holder { enumeration, task }
    }

    #[test]
    fn a_second_run_on_the_same_device_is_busy_at_once_and_others_wait() {
        let root = TempRoot::new("lock");
        let port = Port::new("1-1.2").unwrap();
        let (ours, _clock) = (holder(7, Task::Device), StoppedClock::stop());
        let state = PortState::lock(&root, &port, &ours, soon()).unwrap();
        let far = Deadline::after(Duration::from_secs(600));
        for _ in 0..19 {
            assert!(matches!(PortState::lock(&root, &port, &ours, far), Err(StateError::Busy { same_task: true })));
        }
        let other = PortState::lock(&root, &port, &holder(7, Task::Unlock), soon());
        assert!(matches!(other, Err(StateError::Busy { same_task: false })));
        // A process that continues after an event waits in any case.
        let same = PortState::wait_for_lock(&root, &port, &ours, soon());
        assert!(matches!(same, Err(StateError::Busy { same_task: true })));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| PortState::lock(&root, &port, &holder(8, Task::Device), far).is_ok());
            drop(state);
            assert!(waits.join().unwrap());
        });
        // Without a child process that has it open, the lock file is unlocked.
        PortState::lock(&root, &port, &ours, soon()).unwrap().leave_to_child();
        let state = PortState::lock(&root, &port, &ours, soon()).unwrap();
        let inherited = state.files.as_ref().unwrap().0.try_clone().unwrap();
        state.leave_to_child();
        assert!(PortState::lock(&root, &port, &ours, soon()).is_err());
        drop(inherited);
        assert!(PortState::lock(&root, &port, &ours, soon()).is_ok());
    }

    #[test]
    fn a_run_that_cannot_save_its_state_keeps_the_lock() {
        let root = TempRoot::new("full");
        let (port, ours) = (Port::new("1-1.2").unwrap(), holder(7, Task::Device));
        let _clock = StoppedClock::stop();
        drop(PortState::lock(&root, &port, &ours, soon()).unwrap());
        // A file that is only open for reading stands in for a full /run.
        let [lock, results] = [&LOCKS, &RESULTS].map(|folder| reads(&root, folder, port.as_str()).unwrap());
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
        let state = PortState::locked(&port, &ours, lock, results);
        assert!(!state.is_kept());
        assert!(matches!(
            PortState::lock(&root, &port, &holder(8, Task::Device), soon()),
            Err(StateError::Busy { .. })
        ));
        drop(state);
        assert!(PortState::lock(&root, &port, &ours, soon()).unwrap().is_kept());
    }

    #[test]
    fn only_the_owner_can_reach_a_lock_and_everyone_can_read_results() {
        let root = TempRoot::new("state");
        let port = Port::new("1-1.2").unwrap();
        let mut state = PortState::lock(&root, &port, &holder(1, Task::All), soon()).unwrap();
        state.results().record(StepKind::Switch, "1199:0fff".parse().unwrap(), StepResult::Done, "left", false);
        state.save().unwrap();
        let mode = |name: &str| fs::metadata(root.at(DIRECTORY).join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("lock"), mode("lock/1-1.2"), mode("state/1-1.2")), (0o700, 0o600, 0o644));
        assert_eq!(peek(&root, &port).last[&StepKind::Switch].message.text, "left");
        drop(state);
        // Invalid contents are discarded.
        for name in ["lock/1-1.2", "state/1-1.2"] {
            fs::write(root.at(DIRECTORY).join(name), "{ half").unwrap();
        }
        assert_eq!(
            PortState::lock(&root, &port, &holder(1, Task::All), soon()).unwrap().results(),
            &Results::default()
        );
        // A symbolic link in place of a file or of the directory is refused.
        fs::remove_file(root.at(DIRECTORY).join("state/1-1.2")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.at(DIRECTORY).join("state/1-1.2")).unwrap();
        assert!(matches!(PortState::lock(&root, &port, &holder(1, Task::All), soon()), Err(StateError::Io { .. })));
    }

    #[test]
    fn nothing_is_kept_where_a_link_leads_elsewhere() {
        let root = TempRoot::new("planted");
        let elsewhere = root.at("/elsewhere");
        let port = Port::new("1-1").unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        for link in ["run/wwan-quirks", "run/wwan-quirks/lock"] {
            let link = root.at(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
            let refused = PortState::lock(&root, &port, &holder(1, Task::All), soon());
            assert!(matches!(refused, Err(StateError::Io { .. })), "{link:?}");
            assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{link:?}");
            fs::remove_file(link).unwrap();
        }
        assert!(PortState::lock(&root, &port, &holder(1, Task::All), soon()).is_ok());
    }

    #[test]
    fn only_a_regular_file_without_another_name_holds_state() {
        let root = TempRoot::new("private");
        let port = Port::new("1-1").unwrap();
        drop(PortState::lock(&root, &port, &holder(1, Task::All), soon()).unwrap());
        for folder in ["lock", "state"] {
            let file = root.at(DIRECTORY).join(folder).join("1-1");
            let other = root.at("/other");
            fs::hard_link(&file, &other).unwrap();
            let refused = PortState::lock(&root, &port, &holder(1, Task::All), soon());
            assert!(matches!(refused, Err(StateError::Io { .. })), "{folder}: a file with two names");
            fs::remove_file(&other).unwrap();
            fs::remove_file(&file).unwrap();
            nix::unistd::mkfifo(&file, Mode::from_bits_truncate(0o600)).unwrap();
            let refused = PortState::lock(&root, &port, &holder(1, Task::All), soon());
            assert!(matches!(refused, Err(StateError::Io { .. })), "{folder}: a pipe");
            fs::remove_file(&file).unwrap();
            assert!(PortState::lock(&root, &port, &holder(1, Task::All), soon()).is_ok());
        }
        // A file in place of a folder.
        fs::remove_dir_all(root.at(DIRECTORY)).unwrap();
        fs::write(root.at(DIRECTORY), "").unwrap();
        assert!(PortState::lock(&root, &port, &holder(1, Task::All), soon()).is_err());
    }
}
