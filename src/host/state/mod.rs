//! The state of a port from one run to the next, in `/run/wwan-quirks`. It disappears at reboot.
//!
//! `lock/PORT` (mode 0600, in a directory of mode 0700) is the lock of the port, and holds the data that only the
//! program needs. A [`PortState`] holds the lock as long as it exists, so that two runs never act on one port at the
//! same time. `state/PORT` (mode 0644) holds the results that `status` shows to users.
//!
//! A modem is served even if no state can be kept because `/run` is full or read-only.

mod attempts;
mod keys;
mod results;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{self, Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::close;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bus::Port;
use crate::host::deadline::Deadline;
use crate::host::root::{Root, read_limited};
use crate::host::sys;
pub(crate) use attempts::ATTEMPTS;
use attempts::Attempts;
#[cfg(test)]
pub(crate) use attempts::WINDOW;
pub use attempts::{Attempt, Identity};
pub(crate) use keys::{MAX_SENDS, TriedKeys};
pub use results::{LastResult, Radio, Results};

const DIRECTORY: &str = "/run/wwan-quirks";
const LOCKS: Folder = Folder { name: "lock", directory: 0o700, file: 0o600 };
const RESULTS: Folder = Folder { name: "state", directory: 0o755, file: 0o644 };
const LIMIT: usize = 64 * 1024;
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

/// What the program remembers about a port for its own use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// What the run that holds the lock does.
    holder: Option<Holder>,
    /// What the guard against loops counts.
    #[serde(rename = "acted")]
    pub(crate) attempts: Attempts,
    /// The device that last received a switch message. The unit does not send a second one.
    pub switched: Option<SentSwitch>,
    /// The earlier configuration, if a run was still setting a new one when it last saved its state.
    pub(crate) configured: Option<EarlierConfiguration>,
    /// The enumeration that was last seen unlocked and in low power: the user switched its radio off.
    pub(crate) switched_off: Option<u64>,
    /// The enumeration that was last seen unlocked.
    pub unlocked: Option<u64>,
    /// The enumeration that was not online after a reset.
    pub reset: Option<u64>,
    pub(crate) tried_keys: TriedKeys,
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

/// A file that is read once and then written in place, because no file can be opened in the sandbox.
struct StateFile<T> {
    value: T,
    /// What the file has. `None` after a failed write.
    saved: Option<T>,
}

impl<T: Clone + Default + PartialEq + Serialize + DeserializeOwned> StateFile<T> {
    fn read(file: &File) -> StateFile<T> {
        let value: T =
            read_limited(file, LIMIT).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        StateFile { saved: Some(value.clone()), value }
    }

    /// Overwrites the file, and shortens it only afterwards. A state of up to one page (4096 bytes) is still valid if
    /// `/run` is full, or if a signal ends the process. Spaces cover the rest of a longer one.
    fn save(&mut self, file: &mut File) -> io::Result<()> {
        if self.saved.as_ref() == Some(&self.value) {
            return Ok(());
        }
        let mut text = serde_json::to_vec(&self.value).map_err(io::Error::other)?;
        let length = text.len();
        let earlier = usize::try_from(file.seek(SeekFrom::End(0))?).unwrap_or(LIMIT);
        text.resize(length.max(earlier.min(LIMIT)), b' ');
        file.rewind()?;
        self.saved = None;
        file.write_all(&text)?;
        file.set_len(length as u64)?;
        self.saved = Some(self.value.clone());
        Ok(())
    }
}

/// The state of one port, locked.
pub struct PortState {
    memory: StateFile<Memory>,
    results: StateFile<Results>,
    files: Option<(Flock<File>, File)>,
    port: Port,
    /// The state could not be saved, and this has been reported.
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

    /// Like [`lock`](PortState::lock), but returns a state in memory if the files cannot be used, and warns. If `waits` is
    /// set, waits for each holder.
    ///
    /// # Errors
    /// `Busy` and `Interrupted`: another run has the lock.
    pub(crate) fn lock_or_in_memory(
        root: &Root,
        port: &Port,
        holder: &Holder,
        deadline: Deadline,
        waits: bool,
    ) -> Result<PortState, StateError> {
        match PortState::lock_unless(root, port, holder, deadline, |other| !waits && other == Some(holder)) {
            Err(error @ StateError::Io { .. }) => {
                log::warn!("{port}: {error}; continuing without state");
                Ok(PortState::in_memory(port))
            }
            locked => locked,
        }
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
        let stops = sys::stop_requests();
        let lock = loop {
            match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break lock,
                Err((file, nix::Error::EWOULDBLOCK)) => {
                    let other = StateFile::<Memory>::read(&file).value.holder;
                    if gives_way(other.as_ref()) || deadline.has_passed() {
                        return Err(StateError::Busy { same_task: other.as_ref() == Some(holder) });
                    }
                    opened = file;
                    (&opened).rewind().map_err(io(&LOCKS))?;
                }
                Err((_, error)) => return Err(io(&LOCKS)(error.into())),
            }
            if sys::stop_requests() > stops {
                return Err(StateError::Interrupted);
            }
            deadline.sleep(LOCK_RETRY_INTERVAL);
        };
        let results = open(root, &RESULTS, port).map_err(io(&RESULTS))?;
        Ok(PortState::locked(port, holder, lock, results))
    }

    /// The state under this lock. The lock is effective even if nothing can be saved.
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
        let memory = StateFile { value: Memory::default(), saved: None };
        let results = StateFile { value: Results::default(), saved: None };
        PortState { memory, results, files: None, port: port.clone(), is_failing: false }
    }

    /// Whether later runs can see this state.
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
            // Dropping it would also release the lock that the child shares.
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

/// The numbers that devices on other ports of the bus had at the last actions. Such a device may be away at present.
/// Reads the files without their locks.
pub(crate) fn numbers_elsewhere(root: &Root, port: &Port) -> Vec<u16> {
    let is_elsewhere = |name: &str| Port::new(name).is_some_and(|other| other.shares_bus(port) && other != *port);
    let Ok(entries) = fs::read_dir(root.at(DIRECTORY).join(LOCKS.name)) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let memories = names.filter(|name| is_elsewhere(name)).filter_map(|name| {
        let file = reads(root, &LOCKS, &name).ok()?;
        Some(StateFile::<Memory>::read(&file).value)
    });
    memories.flat_map(|memory| memory.attempts.0.into_values()).filter_map(|acted| acted.identity.number).collect()
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
    use super::attempts::tests::{STICK, identity};
    use super::*;
    use crate::host::deadline::clock::StoppedClock;
    use crate::host::root::tests::TempRoot;
    use crate::outcome::{StepKind, StepResult};

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
        let acted = &read.attempts.0[&StepKind::Switch];
        assert_eq!((&acted.identity, acted.until), (&identity(STICK, "1", 7), Duration::from_millis(61_500)));
        assert_eq!(serde_json::to_string(&read).unwrap(), memory);
        let results = concat!(
            r#"{"enumeration":7,"last":{"switch":{"at":5,"awake":4,"outcome":"done","text":"left","id":"pci:1eac:1001","#,
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
            let (now, elsewhere) = (Duration::from_secs(number as u64), || numbers_elsewhere(&root, port));
            let attempt = state.memory().attempts.record(StepKind::Switch, &device, now, false, elsewhere);
            given_up += usize::from(matches!(attempt, Attempt::GiveUp { is_reported: false }));
        }
        // Other buses have numbers of their own.
        assert!(numbers_elsewhere(&root, &Port::new("2-1").unwrap()).is_empty());
        assert_eq!(given_up, 2);
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
        let same = PortState::lock_or_in_memory(&root, &port, &ours, soon(), true);
        assert!(matches!(same, Err(StateError::Busy { same_task: true })));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| PortState::lock(&root, &port, &holder(8, Task::Device), far).is_ok());
            drop(state);
            assert!(waits.join().unwrap());
        });
        // Without a child process that has it open, the lock file is unlocked. A process that another test starts has it
        // open for a moment.
        PortState::lock(&root, &port, &ours, soon()).unwrap().leave_to_child();
        let state = PortState::lock(&root, &port, &holder(8, Task::Device), far).unwrap();
        let inherited = state.files.as_ref().unwrap().0.try_clone().unwrap();
        state.leave_to_child();
        assert!(PortState::lock(&root, &port, &ours, soon()).is_err());
        drop(inherited);
        assert!(PortState::lock(&root, &port, &ours, far).is_ok());
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
    fn a_save_that_fails_or_is_cut_short_leaves_a_valid_state() {
        use fcntl::{FcntlArg, SealFlag};
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let state = |unlocked| Memory { unlocked, ..Memory::default() };
        let (earlier, later) = (state(Some(1 << 60)), state(None));
        // A file that cannot be written stands in for a full /run, and one that cannot be shortened for a process that
        // was killed just before that.
        for (seal, expected) in
            [(SealFlag::F_SEAL_WRITE, &earlier), (SealFlag::F_SEAL_SHRINK, &later), (SealFlag::empty(), &later)]
        {
            let mut file = File::from(memfd_create(c"state", MFdFlags::MFD_ALLOW_SEALING).unwrap());
            let mut saved = StateFile { value: earlier.clone(), saved: None };
            saved.save(&mut file).unwrap();
            fcntl::fcntl(&file, FcntlArg::F_ADD_SEALS(seal)).unwrap();
            saved.value = later.clone();
            assert_eq!(saved.save(&mut file).is_ok(), seal.is_empty(), "{seal:?}");
            file.rewind().unwrap();
            let mut text = String::new();
            io::Read::read_to_string(&mut file, &mut text).unwrap();
            assert_eq!(serde_json::from_str::<Memory>(&text).unwrap(), *expected, "{seal:?}");
            assert_eq!(text.ends_with(' '), seal == SealFlag::F_SEAL_SHRINK, "{seal:?}");
            // After a failed write, the earlier state is written again.
            saved.value = earlier.clone();
            assert_eq!(saved.save(&mut file).is_ok(), seal != SealFlag::F_SEAL_WRITE, "{seal:?}");
        }
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
    fn no_state_is_kept_behind_a_symlink() {
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
        // A file in place of a directory.
        fs::remove_dir_all(root.at(DIRECTORY)).unwrap();
        fs::write(root.at(DIRECTORY), "").unwrap();
        assert!(PortState::lock(&root, &port, &holder(1, Task::All), soon()).is_err());
        let state = PortState::lock_or_in_memory(&root, &port, &holder(1, Task::All), soon(), false).unwrap();
        assert!(!state.is_kept());
    }
}
