//! `configuration`: sets another USB configuration through the kernel, and verifies it.

use std::time::Duration;

use crate::host::deadline::Deadline;
use crate::host::sys::{self, AS_ROOT};
use crate::modem::device::{Device, DeviceError};
use crate::outcome::{Failure, Outcome};
use crate::usb::configuration_name;

/// Sets configuration `to` instead of `from`. If `unconfigured` is given, the device stays without a configuration for
/// that long in between. If the modem does not accept the new configuration, the old one is restored.
///
/// The writes do not return while the modem or one of its drivers is slow, and no signal interrupts them. After
/// `deadline`, they continue without this process.
pub(crate) fn run(
    device: &Device,
    from: Option<u8>,
    to: u8,
    unconfigured: Option<Duration>,
    deadline: Deadline,
) -> Outcome {
    if unconfigured.is_some() {
        // The cleanup is a configuration that is active again.
        sys::defer_stop_signals(&device.port);
    }
    // One child process does all writes, so that the modem is not left unconfigured if this process ends first: the
    // kernel deactivates the old configuration even if the modem does not answer to the new one.
    let written = sys::abandonable(deadline, || {
        if let Some(pause) = unconfigured {
            device.set_configuration(0)?;
            // The modem needs the whole pause, even beyond the deadline.
            Deadline::after(pause).sleep(pause);
        }
        let written = device.set_configuration(to);
        if let (Err(_), Some(from)) = (written, from) {
            let _ = device.set_configuration(from);
        }
        written
    });
    let Some(written) = written else { return still_setting(to) };
    let refusal = match written {
        Err(errno) if sys::lacks_root(&errno.into()) => {
            let reason = format!("cannot set configuration {to}: {}", errno.desc());
            return Outcome::Failed(Failure::new(reason, AS_ROOT));
        }
        Err(_) if !device.is_present() => return Outcome::Left,
        Err(errno) => format!("cannot set configuration {to}: {}", errno.desc()),
        Ok(()) => match device.configuration() {
            Ok(Some(now)) if now == to => return Outcome::Done(done(from, to)),
            Ok(now) => format!("the modem did not accept configuration {to}: {} is active", configuration_name(now)),
            Err(DeviceError::Gone { .. }) => return Outcome::Left,
            Err(error) => format!("configuration {to} was written, but cannot be verified: {error}"),
        },
    };
    let is_active = |from| device.configuration().ok() == Some(Some(from));
    let after = match from {
        None => "no configuration was active before".to_owned(),
        Some(from) if is_active(from) => format!("configuration {from} is active again"),
        Some(from) => match sys::abandonable(deadline, || device.set_configuration(from)) {
            None => return still_setting(from),
            Some(Ok(())) if is_active(from) => format!("configuration {from} is active again"),
            Some(_) => format!("the previous configuration {from} could not be restored"),
        },
    };
    Outcome::Failed(Failure::new(
        format!("{refusal}; {after}"),
        "plug the modem in again, or set `prefer = \"keep\"` for it in /etc/wwan-quirks/config.toml",
    ))
}

fn done(from: Option<u8>, to: u8) -> String {
    format!("configuration {to} instead of {}", configuration_name(from))
}

fn still_setting(configuration: u8) -> Outcome {
    Outcome::Unfinished(Failure::new(
        format!("the kernel is still setting configuration {configuration}"),
        "see `wwan-quirks status` in a minute; if nothing changes, plug the modem in again",
    ))
}
