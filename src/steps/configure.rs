//! `configuration`: makes the kernel set another USB configuration, and sees that it stands.

use std::thread;
use std::time::Duration;

use crate::host::sys;
use crate::modem::device::{Device, DeviceError};
use crate::outcome::{Failure, Outcome};

/// Sets configuration `to`, where `from` is active; where the modem needs it, after it was `unconfigured` for a while.
/// What the kernel set is put back when the modem does not take it.
pub fn run(device: &Device, from: Option<u8>, to: u8, unconfigured: Option<Duration>) -> Outcome {
    let detour = unconfigured.map_or(Ok(()), |pause| {
        // Whoever wants this process to end gets his wish when the modem is configured again.
        if let Err(error) = sys::catch_stop_signals() {
            log::warn!("{}: a signal would leave the modem unconfigured: {error}", device.port);
        }
        device.set_configuration(0).map(|()| thread::sleep(pause))
    });
    let refusal = match detour.and_then(|()| device.set_configuration(to)) {
        Err(error) if !device.is_present() => return left(&error.to_string()),
        Err(error) => format!("configuration {to} was refused: {error}"),
        Ok(()) => match device.configuration() {
            Ok(Some(now)) if now == to => return Outcome::Done(done(from, to)),
            Ok(now) => format!("the modem did not take configuration {to}: {} is active", name(now)),
            Err(DeviceError::Gone { .. }) => return left("it left while the configuration changed"),
            Err(error) => format!("configuration {to} was written, and cannot be verified: {error}"),
        },
    };
    let restored = match from {
        Some(from) => device.set_configuration(from).is_ok() && device.configuration().ok() == Some(Some(from)),
        None => false,
    };
    let after = match (from, restored) {
        (Some(from), true) => format!("{from} is active again"),
        (Some(from), false) => format!("{from}, which was active before, could not be put back"),
        (None, _) => "none was active before".to_owned(),
    };
    Outcome::Failed(Failure::new(
        format!("{refusal}; {after}"),
        "plug the modem in again, or set `prefer = \"keep\"` for it in /etc/wwan-quirks/config.toml",
    ))
}

fn done(from: Option<u8>, to: u8) -> String {
    format!("configuration {to} instead of {}", name(from))
}

fn left(why: &str) -> Outcome {
    Outcome::Unchanged(format!("the modem is gone: {why}; its return is handled by its own event"))
}

fn name(configuration: Option<u8>) -> String {
    configuration.map_or("none".to_owned(), |value| value.to_string())
}
