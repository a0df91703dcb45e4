//! The USB composition that a modem stores: read it, check the requested one against the modem's list, set it. The
//! modem uses a new composition after its next start.
//!
//! [`Dialogue`] is one way to query a modem. [`read_and_set`] is the same for all of them. [`run`] finds the port, and
//! waits for the modem if it restarts.

mod connect;
mod dialogue;
mod family;
mod restart;
mod sierra_at;
mod sierra_qmi;

use std::time::Duration;

use crate::database::compositions::{Composition, Compositions, Value, Wanted, names};
use crate::host::root::Root;
use crate::host::sys;
use crate::modem::device::Device;
use crate::outcome::{Failure, Outcome};
use connect::Connector;
use dialogue::{CompositionError, Dialogue};
pub(crate) use dialogue::{CompositionState, Restart};
use restart::{is_on_bus, wait_for_return};

/// How long a conversation may take.
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(20);

/// The result of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub reading: CompositionState,
    /// The composition that was chosen for the request, if there was one.
    pub chosen: Option<Composition>,
    /// Whether the modem restarts now.
    pub resets: bool,
    /// Whether `chosen` is only a step towards the requested composition, which the modem lists later.
    pub is_intermediate: bool,
    /// What failed after `chosen` was sent to the modem.
    pub failure: Option<Failure>,
}

impl Exchange {
    /// The command that restores the previous composition of the modem at `device`'s port, or why there is none. `None`
    /// if nothing was changed.
    pub(crate) fn revert_command(&self, device: &Device) -> Option<Result<String, &'static str>> {
        let had = &self.reading.current;
        self.chosen.as_ref().filter(|chosen| chosen.value != had.value)?;
        // A modem that was DirectIP lists other values afterwards.
        if matches!(had.value, Value::Product(_)) {
            return Some(Err("wwan-quirks cannot set a DirectIP composition"));
        }
        let value = had.value.to_string();
        let quote = if value.contains(';') { "'" } else { "" };
        let no_at_port = if had.has_at_port() { "" } else { " --no-at-port" };
        let reset = if self.reading.restart == Restart::Unknown { "" } else { " --reset" };
        Some(Ok(format!("wwan-quirks composition {} {quote}{value}{quote}{no_at_port}{reset}", device.port)))
    }
}

/// A request to read or to set the composition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub wanted: Option<Wanted>,
    /// Whether a composition without an AT port is allowed.
    pub no_at_port: bool,
    pub reset: bool,
    /// The password for AT!ENTERCND, instead of the well-known one.
    pub password: Option<String>,
}

/// Reads the composition of `device`. If the request is for another composition, and the modem may have it, sets it. If
/// the modem restarts, waits for its return. The outcome is `None` if the composition was only read.
pub(crate) fn run(
    root: &Root,
    device: &Device,
    compositions: &Compositions,
    request: &Request,
) -> (Option<Exchange>, Option<Outcome>) {
    // The modem may need cleanup later, which a signal must not prevent.
    sys::defer_stop_signals(&device.port);
    let connector = Connector { root, compositions, password: request.password.as_deref() };
    let waits = |composition: &Composition| !is_on_bus(compositions, device, composition);
    let converse = |dialogue: &mut dyn Dialogue| read_and_set(dialogue, request, &waits);
    let exchange = match connector.talk(device, CONVERSATION_TIMEOUT, converse) {
        Ok(exchange) => exchange,
        Err(fault @ CompositionError::Busy(_)) => return (None, Some(Outcome::Busy(fault.failure().into()))),
        Err(fault) => return (None, Some(Outcome::Failed(fault.failure()))),
    };
    if let Some(failure) = exchange.failure.clone() {
        return (Some(exchange), Some(Outcome::Failed(failure)));
    }
    let outcome = exchange.chosen.as_ref().map(|chosen| {
        let had = &exchange.reading.current.value;
        let what = match *had == chosen.value {
            true => describe(chosen),
            false => format!("{} instead of {had}", describe(chosen)),
        };
        let later = match exchange.reading.restart {
            Restart::Unknown => "effective after the modem's next restart: unplug it and plug it in again",
            _ => "effective after the modem's next restart: power it off and on, or add --reset",
        };
        match exchange.resets {
            true => match wait_for_return(&connector, device, chosen) {
                Ok(how) => Outcome::Done(format!("{what}; {how}")),
                Err(failure) => Outcome::Failed(failure),
            },
            false if *had != chosen.value => Outcome::Done(format!("{what}, {later}")),
            false if waits(chosen) => Outcome::Unchanged(format!("{what} is set, {later}")),
            false => Outcome::Unchanged(format!("{what} is already set")),
        }
    });
    (Some(exchange), outcome)
}

/// Reads the composition. If the request is for another composition, and the modem may have it, sets it. `waits`
/// returns whether the bus shows something other than this composition, so that the modem still needs a reset.
fn read_and_set(
    dialogue: &mut dyn Dialogue,
    request: &Request,
    waits: &dyn Fn(&Composition) -> bool,
) -> Result<Exchange, CompositionError> {
    let wanted = request.wanted.as_ref();
    let reading = dialogue.read(wanted)?;
    let Some(wanted) = wanted else {
        return Ok(Exchange { reading, chosen: None, resets: false, is_intermediate: false, failure: None });
    };
    let known = [&reading.current].into_iter().chain(&reading.supported);
    let wanted = &wanted.spelled(known.chain(reading.other.iter().flatten()));
    let chosen = choose(&reading, wanted, request.no_at_port).map_err(CompositionError::Refused)?;
    let is_intermediate = !wanted.fits(&chosen);
    let is_set = chosen.is_same_as(&reading.current) == Some(true);
    if !is_set || is_intermediate {
        check_restart(reading.restart, is_intermediate, request.reset).map_err(CompositionError::Refused)?;
    }
    if !is_set {
        check_table(&reading, waits).map_err(CompositionError::Refused)?;
    }
    let by_request = request.reset && reading.restart == Restart::OnRequest && (!is_set || waits(&chosen));
    let failure = send(dialogue, &chosen, !is_set, by_request)?.map(CompositionError::failure);
    let resets = failure.is_none() && (by_request || (!is_set && reading.restart == Restart::BySetting));
    Ok(Exchange { reading, chosen: Some(chosen), resets, is_intermediate, failure })
}

/// Sets `chosen`, and restarts the modem. An error means that nothing was changed. The fault is one after which the modem
/// has, or may have, the new value.
fn send(
    dialogue: &mut dyn Dialogue,
    chosen: &Composition,
    sets: bool,
    resets: bool,
) -> Result<Option<CompositionError>, CompositionError> {
    let value = chosen.value.to_string();
    if sets {
        match dialogue.set(chosen) {
            Err(fault) if fault.is_lost_answer() => {
                return Ok(Some(CompositionError::Unconfirmed { value, fault: Box::new(fault) }));
            }
            result => result?,
        }
    }
    match if resets { dialogue.reset() } else { Ok(()) } {
        Ok(()) => Ok(None),
        Err(fault) => Ok(Some(CompositionError::NotReset { value, fault: Box::new(fault) })),
    }
}

/// Checks, before anything is written, that the modem restarts if and only if the request allows it.
fn check_restart(restart: Restart, is_intermediate: bool, reset: bool) -> Result<(), Failure> {
    match (restart, reset) {
        (_, false) if is_intermediate => Err(Failure::new(
            "the modem offers this composition only after another change and a restart",
            "add --reset to allow both",
        )),
        (Restart::BySetting, false) => {
            Err(Failure::new("the modem restarts when its composition is set", "add --reset to allow the restart"))
        }
        (Restart::Unknown, true) => Err(Failure::new(
            "no command is known that restarts this modem",
            "run the command without --reset, then unplug the modem and plug it in again",
        )),
        _ => Ok(()),
    }
}

/// Checks the table of the family on this modem: what it says about the current composition must be on the bus. A modem
/// that restarts only on request may wait for a restart with another composition.
fn check_table(reading: &CompositionState, waits: &dyn Fn(&Composition) -> bool) -> Result<(), Failure> {
    if reading.restart != Restart::BySetting || !waits(&reading.current) {
        return Ok(());
    }
    Err(Failure::new(
        format!(
            "the modem reports {}, but the bus shows another composition: the table for {} does not fit this firmware",
            describe(&reading.current),
            reading.family.name
        ),
        "nothing was changed; please send the output of `wwan-quirks report` and of `wwan-quirks composition DEVICE`",
    ))
}

/// The composition that `wanted` selects on this modem, if it may be set.
fn choose(reading: &CompositionState, wanted: &Wanted, no_at_port: bool) -> Result<Composition, Failure> {
    // The current composition is always allowed, because it is not set again.
    if wanted.fits(&reading.current) {
        return Ok(reading.current.clone());
    }
    if let Some(reason) = &reading.read_only {
        return Err(Failure::new(reason.clone(), "nothing was changed"));
    }
    let other = reading.other.as_ref().and_then(|other| other.as_ref().ok());
    let fitting: Vec<&Composition> = reading.supported.iter().filter(|known| wanted.fits(known)).chain(other).collect();
    let may_be = |composition: &&&Composition| no_at_port || composition.has_at_port();
    if let Some(chosen) = fitting.iter().find(may_be) {
        return Ok((*chosen).clone());
    }
    if let Some(without) = fitting.first() {
        let has = if without.configurations.is_empty() { "may have no" } else { "has no" };
        return Err(Failure::new(
            format!("composition {} {has} AT port, so the change may be irreversible", describe(without)),
            "add --no-at-port to set it anyway",
        ));
    }
    if let Some(Err(failure)) = &reading.other {
        return Err(failure.clone());
    }
    let list: Vec<String> = reading.supported.iter().map(|known| known.value.to_string()).collect();
    Err(Failure::new(
        format!("the modem does not list {wanted} as supported"),
        match list.as_slice() {
            [] => "it lists no composition that wwan-quirks knows".to_owned(),
            list => format!("choose from {}", list.join(", ")),
        },
    ))
}

/// Formats a composition, such as `8 (mbim: dm nmea at mbim)`.
pub(crate) fn describe(composition: &Composition) -> String {
    let Composition { value, layout, configurations, .. } = composition;
    match (configurations.is_empty(), layout.as_str()) {
        (true, _) => format!("{value} (not known)"),
        (_, "") => format!("{value} ({})", names(&composition.functions())),
        _ => format!("{value} ({}: {layout})", names(&composition.functions())),
    }
}

#[cfg(test)]
mod corpus;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::compositions::shipped;
    use crate::modem::link::LinkError;
    use crate::modem::session::SessionError;
    use std::collections::BTreeMap;

    fn reading(current: u8, supported: &[u8]) -> CompositionState {
        let table = shipped().sierra.unwrap();
        let supported = supported.iter().map(|number| table.of_number(*number)).collect();
        CompositionState {
            by: "QMI".to_owned(),
            family: table.provenance(),
            current: table.of_number(current),
            supported,
            other: None,
            read_only: None,
            restart: Restart::OnRequest,
            settings: BTreeMap::new(),
        }
    }

    /// A modem that reports this, even if another composition is set.
    struct Modem {
        reading: CompositionState,
        seen: Vec<String>,
        /// The command that fails, and how.
        fails: Option<(&'static str, SessionError)>,
    }

    impl Modem {
        fn take(&mut self, command: String) -> Result<(), CompositionError> {
            let fails = self.fails.clone().filter(|(failing, _)| command.starts_with(failing));
            self.seen.push(command);
            fails.map_or(Ok(()), |(_, error)| Err(error.into()))
        }
    }

    impl Dialogue for Modem {
        fn read(&mut self, _: Option<&Wanted>) -> Result<CompositionState, CompositionError> {
            Ok(self.reading.clone())
        }

        fn set(&mut self, composition: &Composition) -> Result<(), CompositionError> {
            self.take(format!("set {}", composition.value))
        }

        fn reset(&mut self) -> Result<(), CompositionError> {
            self.take("reset".to_owned())
        }
    }

    #[track_caller]
    fn ask(
        modem: &mut Modem,
        wanted: &str,
        [no_at_port, reset, waits]: [bool; 3],
        seen: &[&str],
    ) -> Result<String, String> {
        let request = Request { wanted: wanted.parse().ok(), no_at_port, reset, password: None };
        let exchange = read_and_set(modem, &request, &|_| waits);
        assert_eq!(modem.seen, seen);
        exchange
            .map(|exchange| exchange.chosen.map_or_else(String::new, |chosen| chosen.value.to_string()))
            .map_err(|fault| fault.failure().to_string())
    }

    fn modem() -> Modem {
        Modem { reading: reading(8, &[1, 6, 7, 8, 9, 10, 14, 19]), seen: Vec::new(), fails: None }
    }

    #[test]
    fn a_lost_answer_is_reported_as_a_possible_change() {
        let no_answer = || SessionError::NoAnswer { request: "x" };
        let refused = || SessionError::At { request: "x", error: "ERROR".to_owned() };
        let contended = || SessionError::Link(LinkError::Contended);
        for (command, error, expected) in [
            ("set", no_answer(), Some("composition 6 was sent, but not confirmed: no answer to x")),
            ("set", SessionError::Link(LinkError::Gone), Some("composition 6 was sent, but not confirmed: ")),
            ("set", refused(), None),
            ("set", contended(), None),
            ("set", SessionError::Link(LinkError::WriteTimeout), None),
            ("reset", no_answer(), Some("composition 6 is set, but the modem does not restart: no answer to x")),
            ("reset", refused(), Some("composition 6 is set, but the modem does not restart: ")),
        ] {
            let mut modem = Modem { fails: Some((command, error)), ..modem() };
            let request = Request { wanted: "qmi".parse().ok(), reset: true, ..Request::default() };
            match (read_and_set(&mut modem, &request, &|_| false), expected) {
                (Ok(exchange), Some(expected)) => {
                    assert!(exchange.failure.unwrap().reason.starts_with(expected), "{expected}");
                    assert_eq!((exchange.chosen.unwrap().value, exchange.resets), (Value::Number(6), false));
                }
                (result, expected) => assert!(result.is_err() && expected.is_none(), "{command}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_composition_is_set_once_and_the_modem_reset_only_on_request() {
        for (wanted, flags, seen, chosen) in [
            ("qmi", [false, false, false], &["set 6"][..], "6"),
            ("qmi+mbim", [false, true, false], &["set 14", "reset"], "14"),
            ("7", [false, true, false], &["set 7", "reset"], "7"),
            ("9", [true, false, false], &["set 9"], "9"),
            // The modem already has it: nothing is set, and the modem restarts only if the bus does not show it.
            ("mbim", [false, true, false], &[], "8"),
            ("8", [false, true, true], &["reset"], "8"),
            ("8", [false, false, true], &[], "8"),
            ("", [false, true, true], &[], ""),
        ] {
            assert_eq!(ask(&mut modem(), wanted, flags, seen).unwrap(), chosen, "{wanted}");
        }
    }

    #[test]
    fn harmful_requests_are_refused_and_nothing_is_sent() {
        let refused = |wanted, no_at_port| ask(&mut modem(), wanted, [no_at_port, true, true], &[]).unwrap_err();
        let text = refused("13", true);
        assert_eq!(text, "refused: the modem does not list 13 as supported; choose from 1, 6, 7, 8, 9, 10, 14, 19");
        let text = refused("9", false);
        assert!(text.starts_with("refused: composition 9 (mbim: mbim) has no AT port"), "{text}");
        for wanted in ["ecm", "0x100d", "68a2"] {
            assert!(refused(wanted, true).contains(&format!("does not list {wanted}")));
        }
        let mut read_only = modem();
        read_only.reading.read_only = Some("too little is known".to_owned());
        let text = ask(&mut read_only, "qmi", [true, true, true], &[]).unwrap_err();
        assert_eq!(text, "refused: too little is known; nothing was changed");
    }

    #[test]
    fn setting_that_restarts_the_modem_needs_reset_and_a_table_that_agrees_with_the_bus() {
        let restarts = |restart| {
            let mut modem = modem();
            modem.reading.restart = restart;
            modem
        };
        let mut itself = restarts(Restart::BySetting);
        let text = ask(&mut itself, "qmi", [false, false, false], &[]).unwrap_err();
        assert_eq!(text, "refused: the modem restarts when its composition is set; add --reset to allow the restart");
        let text = ask(&mut itself, "qmi", [false, true, true], &[]).unwrap_err();
        assert!(text.contains("the table for Sierra Wireless does not fit this firmware"), "{text}");
        assert!(ask(&mut itself, "qmi", [false, true, false], &["set 6"]).is_ok());
        let mut never = restarts(Restart::Unknown);
        assert!(ask(&mut never, "qmi", [false, true, false], &[]).unwrap_err().contains("no command is known"));
        assert!(ask(&mut never, "qmi", [false, false, false], &["set 6"]).is_ok());
    }

    #[test]
    fn the_composition_with_an_at_port_is_preferred() {
        let wanted = "mbim".parse().unwrap();
        let chosen = |supported: &[u8], no_at_port| {
            choose(&reading(6, supported), &wanted, no_at_port).map(|chosen| chosen.value.to_string()).ok()
        };
        assert_eq!(chosen(&[9, 8], false).as_deref(), Some("8"));
        assert_eq!(chosen(&[9, 8], true).as_deref(), Some("9"));
        assert_eq!(chosen(&[9, 10], false), None);
    }
}
