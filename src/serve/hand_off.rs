//! Hands a modem over to another process if an event has too little time for it.
//!
//! With systemd, the hook prints the result, and the udev rules add `wwan-quirks@PORT.service` to the device's
//! `SYSTEMD_WANTS`. Without systemd, a background process continues. udev, mdev and procd do not wait for it. The hook
//! forks it before entering the sandbox, and it waits on a pipe until the hook lets it continue.

use std::fs::File;
use std::io::{Read, Write};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::host::paths::has_systemd;
use crate::host::root::Root;
use crate::host::sys;
use crate::modem::device::Device;
use crate::serve::trigger::Trigger;

pub(crate) enum Successor {
    /// No other process continues.
    None,
    Unit(String),
    /// The write end of the pipe that the background process waits on.
    Process(File),
}

impl Successor {
    /// Prepares the successor for an event on `device`. A background process does `work`.
    pub(crate) fn prepare(root: &Root, device: &Device, trigger: Trigger, work: impl FnOnce()) -> Successor {
        if !trigger.is_event() {
            return Successor::None;
        }
        if has_systemd(root) {
            return Successor::Unit(format!("wwan-quirks@{}.service", device.port));
        }
        start_process(work).unwrap_or_else(|errno| {
            log::warn!("{}: cannot start a background process to continue after this event: {errno}", device.port);
            Successor::None
        })
    }

    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Successor::None => None,
            Successor::Unit(name) => Some(name),
            Successor::Process(_) => Some("a background process"),
        }
    }

    /// Lets the background process continue. The udev rules start the unit.
    pub(crate) fn continue_run(self) {
        if let Successor::Process(mut writer) = self {
            if let Err(error) = writer.write_all(b"!") {
                log::warn!("cannot resume the background process: {error}");
            }
        }
    }
}

fn start_process(work: impl FnOnce()) -> nix::Result<Successor> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let mut reader = File::from(reader);
    let writer = sys::detached(File::from(writer), || {
        // The pipe closes without data if nothing is left to do.
        if reader.read_exact(&mut [0]).is_ok() {
            work();
        }
    })?;
    Ok(Successor::Process(writer))
}
