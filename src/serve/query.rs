//! Asks a modem for the state of its radio. Changes nothing.

use crate::database::quirks::{Procedure, Quirk};
use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::modem::access::{self, Sharing};
use crate::modem::device::Device;
use crate::modem::transport::Protocol;
use crate::serve::snapshot;
use crate::steps::fcc_auth::{self, RadioState};

const NO_PORT: &str = "the modem has no port that can be queried; see `wwan-quirks doctor`";

/// Asks the modem for the state of its radio, and changes nothing. The caller holds the lock of the port.
///
/// A modem with several procedures has one of these locks. The procedures are tried in turn until an answer says
/// whether the modem is locked. If no answer does, the first success counts, or else the first error.
///
/// # Errors
/// Why the modem was not queried, or did not answer.
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
    let remaining = (1..=procedures.len()).rev();
    let in_turn = procedures.into_iter().zip(remaining);
    best_answer(
        in_turn.map(|(procedure, remaining)| query_with(root, device, procedure, sharing, deadline.share(remaining))),
    )
}

fn best_answer(answers: impl Iterator<Item = Result<RadioState, String>>) -> Result<RadioState, String> {
    let mut best: Option<Result<RadioState, String>> = None;
    for answer in answers {
        match (&answer, &best) {
            (Ok(RadioState { locked: Some(_), .. }), _) => return answer,
            (_, None) | (Ok(_), Some(Err(_))) => best = Some(answer),
            _ => {}
        }
    }
    best.unwrap_or_else(|| Err(NO_PORT.to_owned()))
}

fn query_with(
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
    fcc_auth::query(opened.transport(), procedure, deadline).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modem::wire::qmi::OperatingMode;

    #[test]
    fn a_modem_is_asked_until_an_answer_states_its_lock() {
        let state = |locked| Ok(RadioState { operating_mode: OperatingMode::LowPower, locked });
        let mute = |port: &str| Err(format!("no answer on {port}"));
        // The answers to the procedures, how many are asked, and the answer that is returned.
        for (answers, asked, counts) in [
            (vec![state(Some(true)), state(Some(false))], 1, state(Some(true))),
            (vec![state(Some(false)), mute("mbim")], 1, state(Some(false))),
            (vec![state(None), state(Some(true))], 2, state(Some(true))),
            (vec![mute("at"), state(Some(true))], 2, state(Some(true))),
            (vec![state(None), mute("mbim")], 2, state(None)),
            (vec![mute("at"), state(None)], 2, state(None)),
            (vec![mute("at"), mute("mbim")], 2, mute("at")),
        ] {
            let mut count = 0;
            assert_eq!(best_answer(answers.clone().into_iter().inspect(|_| count += 1)), counts, "{answers:?}");
            assert_eq!(count, asked, "{answers:?}");
        }
    }
}
