//! The USB composition of a Sierra modem: what a modem says of it, what may be set, and setting it. The modem keeps it
//! for good, and takes it up when it starts again.
//!
//! How it is said is one thing ([`Dialogue`]), what is said another ([`go_through`]).

mod at;
mod dms;

pub use at::Console;
pub use dms::Dms;

use crate::database::quirks::composition::{Composition, Table, Value, Wanted};
use crate::modem::access::PortUnavailable;
use crate::modem::link::LinkError;
use crate::modem::session::SessionError;
use crate::modem::wire::qmi::ErrorCode;
use crate::outcome::Failure;

/// What the modem says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How it was asked: `QMI`, `QMI in MBIM`, or the AT command.
    pub by: &'static str,
    pub current: Composition,
    /// Those that it lists as supported.
    pub supported: Vec<Composition>,
    /// Whether it can be given this composition, though it is not among those.
    pub other: Option<Composition>,
}

/// A conversation about the composition.
pub trait Dialogue {
    /// What the modem has and what it lists. `wanted` is looked at for a bitmask, of which there are too many to list.
    fn standing(&mut self, table: &Table, wanted: Option<&Wanted>) -> Result<Standing, Fault>;

    fn set(&mut self, value: Value) -> Result<(), Fault>;

    /// Has the modem start again. It may be gone before it answers.
    fn reset(&mut self) -> Result<(), Fault>;
}

/// Why a composition was not read or set.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the modem wants a password, and refused the one that it was given")]
    Password,
    #[error("the modem knows none of the AT commands for it ({0})")]
    NoCommand(&'static str),
    #[error("the modem has no port that can be asked: no QMI, no MBIM, and no AT port")]
    NoPort,
    #[error("{0}")]
    NotOpened(String),
    #[error(transparent)]
    Unavailable(#[from] PortUnavailable),
    #[error("refused: {}", .0.reason)]
    Refused(Failure),
    #[error("composition {value} is set, but the modem does not start again: {fault}")]
    NotReset { value: Value, fault: Box<Fault> },
}

impl Fault {
    /// Whether the modem says that this way to it knows nothing of compositions.
    pub fn is_unsupported(&self) -> bool {
        match self {
            Fault::Session(SessionError::At { .. }) => false,
            Fault::Session(error) => error.is_unsupported(),
            _ => false,
        }
    }

    /// With what a person can do about it.
    pub fn trouble(self) -> Failure {
        let cure = match &self {
            Fault::Refused(trouble) => trouble.remedy.clone(),
            Fault::NotReset { .. } => "power it off and on".to_owned(),
            Fault::Password => "give yours with --password".to_owned(),
            Fault::NoPort => "see whether the drivers qmi_wwan, cdc_mbim and qcserial or option are loaded".to_owned(),
            Fault::Unavailable(error) => error.remedy().to_owned(),
            Fault::NotOpened(_) => "run it as root; else see what the kernel log says of the port".to_owned(),
            Fault::Session(SessionError::Link(LinkError::Interrupted)) => "run it again".to_owned(),
            Fault::Session(SessionError::Qmi { error: ErrorCode::CLIENT_IDS_EXHAUSTED, .. }) => {
                "the modem has no client ID left: power it off and on".to_owned()
            }
            Fault::Session(SessionError::NoAnswer { .. } | SessionError::Garbage { .. } | SessionError::Link(_)) => {
                "it may still be starting: try again; if it stays so, power the modem off and on".to_owned()
            }
            Fault::NoCommand(_) | Fault::Session(_) => {
                "its firmware may not know compositions; nothing was changed".to_owned()
            }
        };
        Failure::new(self.to_string(), cure)
    }
}

/// What came of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub standing: Standing,
    /// The composition that was asked for, where one was.
    pub chosen: Option<Composition>,
    /// Whether the modem was told to start again.
    pub resets: bool,
}

/// What is asked of the modem.
pub struct Request<'a> {
    pub wanted: Option<&'a Wanted>,
    /// Whether a composition without AT port will do.
    pub no_at_port: bool,
    pub reset: bool,
    /// Whether the bus shows the modem made of other interfaces than it says, so that it waits for a reset.
    pub waits: &'a dyn Fn(&Composition) -> bool,
}

/// Reads the composition, and sets another one where one is wanted that the modem has not, and may have.
pub fn go_through(dialogue: &mut dyn Dialogue, request: &Request, table: &Table) -> Result<Told, Fault> {
    let standing = dialogue.standing(table, request.wanted)?;
    let Some(wanted) = request.wanted else { return Ok(Told { standing, chosen: None, resets: false }) };
    let chosen = choose(&standing, wanted, request.no_at_port, table).map_err(Fault::Refused)?;
    let is_set = chosen.value == standing.current.value;
    if !is_set {
        dialogue.set(chosen.value)?;
    }
    let resets = request.reset && (!is_set || (request.waits)(&chosen));
    if resets {
        let value = chosen.value;
        dialogue.reset().map_err(|fault| Fault::NotReset { value, fault: Box::new(fault) })?;
    }
    Ok(Told { standing, chosen: Some(chosen), resets })
}

/// The composition that `wanted` means on this modem, if it may be set.
fn choose(standing: &Standing, wanted: &Wanted, no_at_port: bool, table: &Table) -> Result<Composition, Failure> {
    let fits = |composition: &&Composition| match wanted {
        Wanted::Value(Value::Number(number)) => {
            composition.value == Value::Number(*number) || composition.number == Some(*number)
        }
        Wanted::Value(value) => composition.value == *value,
        Wanted::Functions(functions) => table.functions(&composition.layout) == *functions,
    };
    // What it has cannot do harm, and is not set.
    if let Some(current) = Some(&standing.current).filter(fits) {
        return Ok(current.clone());
    }
    let fitting = || standing.supported.iter().chain(&standing.other).filter(fits);
    let may_be = |composition: &&Composition| no_at_port || table.has_at_port(&composition.layout);
    if let Some(chosen) = fitting().find(may_be) {
        return Ok(chosen.clone());
    }
    Err(match fitting().next() {
        Some(without) => Failure::new(
            format!(
                "composition {} ({}) has no AT port, by which a modem can be put right again",
                without.value, without.layout
            ),
            "--no-at-port sets it all the same",
        ),
        None => {
            let list: Vec<String> = standing.supported.iter().map(|known| known.value.to_string()).collect();
            Failure::new(
                format!("the modem does not list {wanted} as supported"),
                format!("choose from {}", list.join(", ")),
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(current: u8, supported: &[u8]) -> Standing {
        let table = Table::shipped();
        let supported = supported.iter().map(|number| table.of_number(*number)).collect();
        Standing { by: "QMI", current: table.of_number(current), supported, other: None }
    }

    /// A modem that says what it was told to say.
    struct Modem {
        standing: Standing,
        seen: Vec<String>,
    }

    impl Dialogue for Modem {
        fn standing(&mut self, _: &Table, _: Option<&Wanted>) -> Result<Standing, Fault> {
            Ok(self.standing.clone())
        }

        fn set(&mut self, value: Value) -> Result<(), Fault> {
            self.seen.push(format!("set {value}"));
            Ok(())
        }

        fn reset(&mut self) -> Result<(), Fault> {
            self.seen.push("reset".to_owned());
            Ok(())
        }
    }

    #[track_caller]
    fn told(wanted: &str, no_at_port: bool, reset: bool, waits: bool, seen: &[&str]) -> Result<Told, Fault> {
        let mut modem = Modem { standing: standing(8, &[1, 6, 7, 8, 9, 10, 14, 19]), seen: Vec::new() };
        let wanted = wanted.parse().ok();
        let request = Request { wanted: wanted.as_ref(), no_at_port, reset, waits: &|_| waits };
        let told = go_through(&mut modem, &request, &Table::shipped());
        assert_eq!(modem.seen, seen);
        told
    }

    #[test]
    fn what_is_wanted_is_set_once_and_reset_if_told_so() {
        let chosen = |told: Result<Told, Fault>| told.unwrap().chosen.unwrap().value.to_string();
        assert_eq!(chosen(told("qmi", false, false, false, &["set 6"])), "6");
        assert_eq!(chosen(told("qmi+mbim", false, true, false, &["set 14", "reset"])), "14");
        assert_eq!(chosen(told("7", false, true, false, &["set 7", "reset"])), "7");
        assert_eq!(chosen(told("9", true, false, false, &["set 9"])), "9");
        // It has it: nothing is set, and it starts again only where the bus does not show it.
        assert_eq!(chosen(told("mbim", false, true, false, &[])), "8");
        assert_eq!(chosen(told("8", false, true, true, &["reset"])), "8");
        assert_eq!(chosen(told("8", false, false, true, &[])), "8");
        assert_eq!(told("", false, true, true, &[]).unwrap().chosen, None);
    }

    #[test]
    fn what_may_do_harm_is_refused_and_nothing_is_said_to_the_modem() {
        let refused = |told: Result<Told, Fault>| told.unwrap_err().trouble().to_string();
        let text = refused(told("13", true, true, true, &[]));
        assert_eq!(text, "refused: the modem does not list 13 as supported; choose from 1, 6, 7, 8, 9, 10, 14, 19");
        let text = refused(told("9", false, true, true, &[]));
        assert!(text.starts_with("refused: composition 9 (mbim) has no AT port"), "{text}");
        assert!(refused(told("ecm", true, true, true, &[])).contains("does not list ecm"));
        assert!(refused(told("0x100d", true, true, true, &[])).contains("does not list 0x100d"));
        assert!(refused(told("68a2", true, true, true, &[])).contains("does not list 68a2"));
    }

    #[test]
    fn a_function_is_had_with_an_at_port_where_there_is_one() {
        let table = Table::shipped();
        let wanted = "mbim".parse().unwrap();
        let chosen = |supported: &[u8], no_at_port| {
            choose(&standing(6, supported), &wanted, no_at_port, &table).map(|chosen| chosen.value.to_string()).ok()
        };
        assert_eq!(chosen(&[9, 8], false).as_deref(), Some("8"));
        assert_eq!(chosen(&[9, 8], true).as_deref(), Some("9"));
        assert_eq!(chosen(&[9, 10], false), None);
    }
}
