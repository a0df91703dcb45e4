//! Asks a modem for the state of its radio. Changes nothing.

use crate::bus::Bus;
use crate::database::quirks::{Procedure, Quirk};
use crate::host::deadline::Deadline;
use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::sandbox;
use crate::host::state::{Holder, PortState, Task};
use crate::modem::access::{self, Sharing};
use crate::modem::device::Device;
use crate::modem::transport::Protocol;
use crate::outcome::{StepKind, StepResult};
use crate::serve::conclusion::Conclusion;
use crate::serve::lookup::{MatchedDevice, lookup};
use crate::serve::record::Recorder;
use crate::serve::snapshot;
use crate::serve::trigger::{BEFORE_SLEEP, Trigger};
use crate::steps::fcc_auth::{self, RadioState};

const NO_PORT: &str = "the modem has no port that can be queried; see `wwan-quirks doctor`";

/// Records whether the unlocked radio is off, so that it stays off after sleep. Sends no unlock.
///
/// Asks a modem on PCI only through a proxy. The kernel may not return from another open for many seconds, which would
/// delay sleep and block the freezer.
pub(crate) fn before_sleep(root: &Root, journal: &Journal, device: &Device) {
    let deadline = Deadline::after(BEFORE_SLEEP);
    let _watchdog = sandbox::watchdog(2 * BEFORE_SLEEP);
    // While a file that concerns the modem is invalid, nothing is done to it.
    let (Some(matched @ MatchedDevice { complete: true, .. }), _) = lookup(root, device) else { return };
    if matched.quirk.procedure().is_none() {
        return;
    }
    let is_pci = device.id.bus == Bus::Pci;
    let sharing = if is_pci { Sharing::Proxied } else { Sharing::Possible };
    let mut recorder = Recorder::new(journal, device, matched.quirk.name_of(device.id), Trigger::Unit);
    let holder = Holder { enumeration: device.enumeration_id(), task: Task::BeforeSleep };
    let Ok(mut state) = PortState::lock(root, &device.port, &holder, deadline) else { return };
    if state.memory().unlocked != Some(device.enumeration_id()) {
        return;
    }
    match query(root, device, &matched.quirk, sharing, deadline) {
        Ok(said) if said.operating_mode.is_low_power() => {
            state.memory().switched_off = Some(device.enumeration_id());
        }
        Ok(_) => state.memory().switched_off = None,
        Err(reason) if is_pci => log::debug!("{}: {reason}", device.port),
        Err(reason) => {
            let text = format!("the radio state could not be read before sleep: {reason}");
            recorder.report(None, StepKind::FccAuth, Conclusion::new(StepResult::Unfinished, text));
        }
    }
}

/// Asks the modem for the state of its radio, and changes nothing. The caller holds the lock of the port.
///
/// A modem with several procedures has one of these locks. The procedures are tried in turn until an answer says
/// whether the modem is locked. If no answer does, the first success counts, or else the first error.
///
/// # Errors
/// Why the modem was not asked, or did not answer.
pub(crate) fn query(
    root: &Root,
    device: &Device,
    quirk: &Quirk,
    sharing: Sharing,
    deadline: Deadline,
) -> Result<RadioState, String> {
    let mut procedures: Vec<Option<&Procedure>> = quirk.procedures().map(Some).collect();
    if procedures.is_empty() {
        procedures.push(None);
    }
    let left = (1..=procedures.len()).rev();
    let in_turn = procedures.into_iter().zip(left);
    best_answer(in_turn.map(|(procedure, left)| ask(root, device, procedure, sharing, deadline.share(left))))
}

fn best_answer(asked: impl Iterator<Item = Result<RadioState, String>>) -> Result<RadioState, String> {
    let mut best: Option<Result<RadioState, String>> = None;
    for answer in asked {
        match (&answer, &best) {
            (Ok(RadioState { locked: Some(_), .. }), _) => return answer,
            (_, None) | (Ok(_), Some(Err(_))) => best = Some(answer),
            _ => {}
        }
    }
    best.unwrap_or_else(|| Err(NO_PORT.to_owned()))
}

fn ask(
    root: &Root,
    device: &Device,
    procedure: Option<&Procedure>,
    sharing: Sharing,
    deadline: Deadline,
) -> Result<RadioState, String> {
    let ports = snapshot::ports(device, procedure).map_err(|error| error.to_string())?;
    let port = ports.iter().find_map(|port| Some((port, Protocol::of_port(port)?)));
    let (port, protocol) = port.ok_or(NO_PORT)?;
    let opened = access::open(root, device, port, protocol, sharing, deadline);
    let mut opened = opened.map_err(|error| format!("{error}; {}", error.remedy()))?;
    fcc_auth::ask(opened.transport(), procedure, deadline).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modem::wire::qmi::OperatingMode;

    #[test]
    fn a_modem_is_asked_until_an_answer_states_its_lock() {
        let said = |locked| Ok(RadioState { operating_mode: OperatingMode::LowPower, locked });
        let mute = |port: &str| Err(format!("no answer on {port}"));
        // The answers to the procedures, how many are asked, and the answer that is returned.
        for (answers, asked, counts) in [
            (vec![said(Some(true)), said(Some(false))], 1, said(Some(true))),
            (vec![said(Some(false)), mute("mbim")], 1, said(Some(false))),
            (vec![said(None), said(Some(true))], 2, said(Some(true))),
            (vec![mute("at"), said(Some(true))], 2, said(Some(true))),
            (vec![said(None), mute("mbim")], 2, said(None)),
            (vec![mute("at"), said(None)], 2, said(None)),
            (vec![mute("at"), mute("mbim")], 2, mute("at")),
        ] {
            let mut count = 0;
            assert_eq!(best_answer(answers.clone().into_iter().inspect(|_| count += 1)), counts, "{answers:?}");
            assert_eq!(count, asked, "{answers:?}");
        }
    }
}
