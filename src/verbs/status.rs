//! `status`: what each modem is, its mode, configuration and radio, what needs attention, and the last results.
//!
//! Reads only sysfs and the state of the port, so that it disturbs no program that uses the modem. With `--query` it
//! asks the modem itself, through the proxy if one holds the port. `docs/schema/status.schema.json` describes the JSON.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::bus::{Bus, DeviceId, Port};
use crate::database::policy::Resolved;
use crate::database::quirks::{Quirk, Seen};
use crate::host::clock::since_the_epoch;
use crate::host::deadline::Deadline;
use crate::host::journal::printable;
use crate::host::root::Root;
use crate::host::sandbox::{self, GRACE};
use crate::host::state::{Holder, LastResult, PortState, Radio, Results, StateError, Task};
use crate::host::sys;
use crate::modem::access::Sharing;
use crate::modem::device::vendor_interfaces::VendorInterfaces;
use crate::modem::device::{BoundInterface, ControlPort, Device, DeviceError};
use crate::modem::wire::qmi::OperatingMode;
use crate::outcome::{Message, StepKind, StepResult};
use crate::serve::UNNAMED;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Scope;
use crate::serve::lookup::name_after_switch;
use crate::serve::plan::{AUTHORIZE, Action, PlanStep};
use crate::serve::preview::no_action;
use crate::serve::query::query;
use crate::serve::record::{came_from, results};
use crate::serve::run::Run;
use crate::serve::trigger::Trigger;
use crate::steps::fcc_auth::RadioState;
use crate::usb::Function;
use crate::verbs::output::{errors_json, print_json, report_errors};
use crate::verbs::select::{Found, NO_MODEM, devices, look_up, no_quirk, without_database};

/// One modem, as `--json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    port: Port,
    id: DeviceId,
    name: String,
    /// The ID that the device had before it returned from a switch.
    came_from: Option<DeviceId>,
    /// The device's own strings.
    manufacturer: Option<String>,
    product: Option<String>,
    /// How well the quirk is confirmed, and its source.
    seen: Option<Seen>,
    source: Option<String>,
    mode: Mode,
    #[serde(skip)]
    has_quirk: bool,
    /// Whether the kernel is allowed to use the device.
    authorized: bool,
    configurations: Vec<Configuration>,
    interfaces: Vec<BoundInterface>,
    /// The ports of a PCI modem.
    wwan_ports: Vec<WwanPort>,
    /// What the last run that reached the modem found out about its radio.
    radio: Option<Radio>,
    /// What the modem answered; `None` without `--query`.
    query: Option<Query>,
    last: BTreeMap<StepKind, LastResult>,
    /// What keeps the modem from working, with the remedy.
    problems: Vec<Note>,
    /// Steps that are prevented by the policy, or by a program that uses the modem.
    suppressed: Vec<Note>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Install,
    Modem,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Install => "install",
            Mode::Modem => "modem",
        })
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Note {
    /// `None` if it concerns the whole modem.
    step: Option<StepKind>,
    text: String,
    /// The end of the text, if it is a message that the last result of the step may have, too.
    #[serde(skip)]
    message: Option<Message>,
}

impl Note {
    fn new(step: Option<StepKind>, text: String) -> Note {
        Note { step, text, message: None }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.step.map_or(Ok(()), |step| write!(f, "{step}: "))?;
        f.write_str(&self.text)
    }
}

#[derive(Debug, Serialize)]
struct Configuration {
    value: u8,
    functions: Vec<Function>,
    active: bool,
}

#[derive(Debug, Serialize)]
struct WwanPort {
    name: String,
    /// The type of the port, as the kernel names it.
    r#type: String,
    driver: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Query {
    Answer(Answer),
    /// Why there is no answer.
    Error(String),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    #[serde(serialize_with = "name_or_number")]
    operating_mode: OperatingMode,
    locked: Option<bool>,
}

/// The name of the mode, or the number of a mode without a name.
fn name_or_number<S: Serializer>(mode: &OperatingMode, serializer: S) -> Result<S::Ok, S::Error> {
    match *mode {
        OperatingMode::Other(number) if *mode != OperatingMode::UNKNOWN => serializer.serialize_u8(number),
        _ => serializer.collect_str(mode),
    }
}

/// The time limit for one modem's answer.
const QUERY: Duration = Duration::from_secs(5);

/// Prints the status of the named devices, or of all that the database knows.
pub(crate) fn run(root: &Root, names: &[String], ask: bool, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let mut exit = Exit::Success;
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for device in devices(root, names)? {
        let Some(found) = look_up(root, device, &mut errors) else { continue };
        let results = results(root, &found.device);
        let came_from = came_from(&found.device, &results);
        if found.matched.is_none() && came_from.is_none() {
            if !names.is_empty() && found.complete {
                errors.push(no_quirk(&found.device));
            }
            continue;
        }
        match status(root, &found, results.dated(), came_from, ask) {
            Ok(status) => {
                if !names.is_empty() && matches!(status.query, Some(Query::Error(_))) {
                    exit = exit.max(Exit::Failed);
                }
                all.push(status);
            }
            Err(DeviceError::Gone { .. }) if names.is_empty() => {}
            Err(error) => errors.push(error.into()),
        }
    }
    if all.is_empty() {
        errors.extend(without_database(root));
    }
    exit = exit.max(report_errors(&errors));
    if json {
        print_json(out, "status", &json!({ "devices": all }), &errors_json(&errors))?;
    } else {
        let paint = Paint::for_terminal();
        for (index, status) in all.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            status.print(&paint, out)?;
        }
        if all.is_empty() && names.is_empty() {
            writeln!(out, "{NO_MODEM}")?;
        }
    }
    Ok(exit)
}

/// The status of a device that has a quirk, or that returned from a switch.
fn status(
    root: &Root,
    found: &Found,
    results: Results,
    came_from: Option<DeviceId>,
    ask: bool,
) -> Result<Status, DeviceError> {
    let Found { device, matched, .. } = found;
    let quirk = matched.as_ref().map(|matched| &matched.quirk);
    let configurations = configurations(device, quirk)?;
    let interfaces = device.interfaces()?;
    let wwan_ports = wwan_ports(device)?;
    let Results { last, radio, .. } = results;
    let default = Resolved::default();
    let policy = matched.as_ref().map_or(&default, |matched| &matched.policy);
    let longest = Trigger::Unit.budget(policy) + GRACE;
    let last = last.into_iter().map(|(step, last)| (step, without_successor(last, longest, &device.port))).collect();
    let (mut problems, suppressed) = attention(root, found, &last)?;
    let query = quirk.filter(|_| ask).map(|quirk| ask_modem(root, device, quirk));
    if let Some(Query::Answer(Answer { locked: Some(true), .. })) = &query {
        let text = format!("the radio is locked; `wwan-quirks apply --unlock {}` unlocks it", device.port);
        problems.push(Note::new(None, text));
    }
    let product = device.attribute("product").ok();
    let name = match (quirk, came_from) {
        (Some(quirk), _) => Some(quirk.name_of(device.id).to_owned()),
        (None, Some(before)) => name_after_switch(root, before, device.id).or_else(|| product.clone()),
        (None, None) => None,
    };
    Ok(Status {
        port: device.port.clone(),
        id: device.id,
        name: name.unwrap_or_else(|| UNNAMED.to_owned()),
        came_from,
        manufacturer: device.attribute("manufacturer").ok(),
        product,
        seen: quirk.and_then(|quirk| quirk.seen),
        source: quirk.and_then(|quirk| quirk.source.clone()),
        mode: if quirk.is_some_and(Quirk::is_install_mode) { Mode::Install } else { Mode::Modem },
        has_quirk: quirk.is_some(),
        authorized: device.is_authorized(),
        configurations,
        interfaces,
        wwan_ports,
        radio,
        query,
        last,
        problems,
        suppressed,
    })
}

fn configurations(device: &Device, quirk: Option<&Quirk>) -> Result<Vec<Configuration>, DeviceError> {
    let active = device.configuration()?;
    let descriptors = device.descriptors().map(|descriptors| descriptors.configurations).unwrap_or_default();
    let qmi = VendorInterfaces::of(device.id, quirk.map_or(&[], |quirk| &quirk.qmi_interfaces));
    let configurations = descriptors.iter().map(|configuration| Configuration {
        value: configuration.value,
        functions: configuration.functions(&qmi),
        active: active == Some(configuration.value),
    });
    Ok(configurations.collect())
}

fn wwan_ports(device: &Device) -> Result<Vec<WwanPort>, DeviceError> {
    let ports = if device.id.bus == Bus::Pci { device.control_ports()? } else { Vec::new() };
    let wwan_port = |ControlPort { name, wwan_type, driver, .. }| Some(WwanPort { name, r#type: wwan_type?, driver });
    Ok(ports.into_iter().filter_map(wwan_port).collect())
}

fn ask_modem(root: &Root, device: &Device, quirk: &Quirk) -> Query {
    sys::defer_stop_signals(&device.port);
    let deadline = Deadline::after(QUERY);
    let _watch = sandbox::watchdog(QUERY + GRACE);
    let holder = Holder { enumeration: device.enumeration_id(), task: Task::Status };
    // Hold the lock, so that the query does not overlap with another run. Only root can lock, and only root can ask.
    let lock = match PortState::lock(root, &device.port, &holder, deadline) {
        Err(error @ (StateError::Busy { .. } | StateError::Interrupted)) => return Query::Error(error.to_string()),
        locked => locked.ok(),
    };
    match query(root, device, quirk, Sharing::Possible, deadline) {
        Ok(RadioState { operating_mode, locked }) => Query::Answer(Answer { operating_mode, locked }),
        Err(reason) => {
            // A child process may still open the port.
            if let Some(state) = lock {
                state.leave_to_child();
            }
            Query::Error(reason)
        }
    }
}

/// What keeps the modem from working, and the steps that are suppressed.
fn attention(
    root: &Root,
    Found { device, matched, complete }: &Found,
    last: &BTreeMap<StepKind, LastResult>,
) -> Result<(Vec<Note>, Vec<Note>), DeviceError> {
    let (mut problems, mut suppressed) = (Vec::new(), Vec::new());
    match matched {
        Some(matched) if *complete => {
            for step in Run::to_preview(root, device, &Scope::All, Trigger::Named).plan(matched)? {
                match &step {
                    PlanStep::Suppressed { kind, reason } => suppressed.push(Note::new(Some(*kind), reason.clone())),
                    step => problems.extend(problem(device, step, last)),
                }
            }
        }
        Some(_) => problems.push(Note::new(None, no_action())),
        None => {}
    }
    // Print one line for all procedures of an unlock.
    problems.dedup();
    Ok((problems, suppressed))
}

/// `last`, but if another process should have continued, and has ended without a result, a person must continue. Such a
/// process ends after `longest`.
fn without_successor(mut last: LastResult, longest: Duration, port: &Port) -> LastResult {
    let is_over = since_the_epoch().saturating_sub(last.at) > longest.as_secs();
    if is_over && last.message.successor.take().is_some() {
        last.message.remedy = Some(format!("run `wwan-quirks apply {port}`"));
    }
    last
}

/// What keeps `step` from being done, if that is known without a query.
fn problem(device: &Device, step: &PlanStep, last: &BTreeMap<StepKind, LastResult>) -> Option<Note> {
    let kind = step.kind();
    let ended = last.get(&kind);
    let is_success = ended.is_some_and(|last| last.result.is_success());
    let (text, message) = match (step, ended) {
        (PlanStep::Infeasible { failure, .. } | PlanStep::NoPort(failure), _) => {
            (format!("not possible: {failure}"), Some(failure.clone().into()))
        }
        (PlanStep::NotAuthorized { .. }, _) => (format!("not authorized; {AUTHORIZE}"), None),
        (PlanStep::Satisfied { .. } | PlanStep::Suppressed { .. }, _) => return None,
        // Only the modem knows whether it is locked. The last result says more.
        (PlanStep::Run(Action::FccAuth { .. }), Some(_)) if is_success => return None,
        (PlanStep::Run(_), Some(last)) if !is_success && last.result != StepResult::Suppressed => {
            (format!("{}: {}", last.result.words(), last.message), Some(last.message.clone()))
        }
        (PlanStep::Run(_), last) => {
            let suppressed = last.filter(|last| last.result == StepResult::Suppressed);
            let why = suppressed.map(|last| format!(" (suppressed {}: {})", ago(last.at), last.message));
            let why = why.unwrap_or_default();
            (format!("not done yet{why}; run `wwan-quirks apply {}`", device.port), None)
        }
    };
    Some(Note { step: Some(kind), text, message })
}

/// Colours for a person at a terminal.
struct Paint {
    is_on: bool,
}

impl Paint {
    /// Colours are off if standard output is no terminal, if `TERM` names none that has colours, or if `NO_COLOR` is set
    /// (no-color.org).
    fn for_terminal() -> Paint {
        let is_wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let is_possible = env::var_os("TERM").is_some_and(|value| !value.is_empty() && value != "dumb");
        Paint { is_on: is_wanted && is_possible && io::stdout().is_terminal() }
    }

    /// `text` with an SGR code of ECMA-48: 1 bold, 31 red, 32 green, 33 yellow.
    fn text(&self, code: u8, text: &str) -> String {
        if self.is_on && code != PLAIN { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

const BOLD: u8 = 1;
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const PLAIN: u8 = 0;

impl Status {
    /// Label, text and colour of each row, the most important first. Rows with the same label follow each other.
    fn rows(&self) -> Vec<(&'static str, String, u8)> {
        let mode = if self.authorized { self.mode.to_string() } else { format!("{}, not authorized", self.mode) };
        let mut rows = vec![("mode", mode, PLAIN)];
        rows.extend(self.problems.iter().map(|problem| ("problem", problem.to_string(), RED)));
        rows.extend(self.suppressed.iter().map(|step| ("suppressed", step.to_string(), YELLOW)));
        if self.mode == Mode::Modem && self.has_quirk {
            rows.push(self.radio_row());
        }
        let names: Vec<&str> = [&self.manufacturer, &self.product].into_iter().flatten().map(String::as_str).collect();
        if !names.is_empty() {
            rows.push(("device", names.join(" "), PLAIN));
        }
        if let Some(instead) = self.seen.and_then(Seen::instead_of_hardware) {
            let source = self.source.as_ref().map_or(String::new(), |source| format!(" ({source})"));
            rows.push(("evidence", format!("not confirmed on hardware: {instead}{source}"), PLAIN));
        }
        rows.extend(self.configurations.iter().map(|configuration| {
            let mark = if configuration.active { " (active)" } else { "" };
            let functions: Vec<&str> = configuration.functions.iter().map(|function| function.name()).collect();
            ("configurations", format!("{}={}{mark}", configuration.value, functions.join("+")), PLAIN)
        }));
        rows.extend(self.interfaces.iter().filter(|interface| !interface.nodes.is_empty()).map(|interface| {
            let driver = interface.driver.as_deref().unwrap_or("no driver");
            ("ports", format!("{} ({driver})", interface.nodes.join(" ")), PLAIN)
        }));
        rows.extend(self.wwan_ports.iter().map(|port| {
            let driver = port.driver.as_deref().unwrap_or("no driver");
            ("ports", format!("{} ({}, {driver})", port.name, port.r#type), PLAIN)
        }));
        let shown = self.last.iter().filter(|(_, last)| last.result != StepResult::Suppressed);
        rows.extend(shown.map(|(step, last)| {
            let confirmed = last.confirmed.map_or(String::new(), |at| format!(", confirmed {}", ago(at)));
            let mut text = format!("{step}: {}, {}{confirmed}", last.result.words(), ago(last.at));
            // A problem has the same message if nothing has changed since.
            let is_covered =
                |problem: &Note| problem.step == Some(*step) && problem.message.as_ref() == Some(&last.message);
            if !self.problems.iter().any(is_covered) {
                text += &format!(": {}", last.message);
            }
            if let (StepKind::Switch, Some(before)) = (step, self.came_from) {
                text += &format!("; {before} came back as {}, {}", self.id, self.name);
            }
            ("last results", text, PLAIN)
        }));
        rows
    }

    fn radio_row(&self) -> (&'static str, String, u8) {
        let (text, colour) = match (&self.query, &self.radio) {
            (Some(Query::Error(reason)), _) => (format!("unknown: {reason}"), RED),
            (Some(Query::Answer(Answer { operating_mode, locked })), _) => {
                let (locked, colour) = match locked {
                    Some(true) => ("locked", RED),
                    Some(false) => ("not locked", GREEN),
                    None => ("locked or switched off", YELLOW),
                };
                (format!("{operating_mode}, {locked}"), colour)
            }
            (None, Some(Radio { last, online })) => {
                (format!("{}, {}", last.message, ago(last.at)), if *online { GREEN } else { PLAIN })
            }
            (None, None) => (format!("unknown; `wwan-quirks status --query {}` asks the modem", self.port), PLAIN),
        };
        ("radio", text, colour)
    }

    fn print(&self, paint: &Paint, out: &mut impl Write) -> io::Result<()> {
        let title = format!("{} {} {}", self.port, self.id, printable(&self.name));
        writeln!(out, "{}", paint.text(BOLD, &title))?;
        let mut above = "";
        for (label, text, colour) in self.rows() {
            let text = printable(&text);
            let label_once = if label == above { "" } else { label };
            writeln!(out, "  {label_once:<15} {}", paint.text(colour, &text))?;
            above = label;
        }
        Ok(())
    }
}

/// The time since `at`, in words.
fn ago(at: u64) -> String {
    match since_the_epoch().saturating_sub(at) {
        seconds @ ..120 => format!("{seconds} s ago"),
        seconds @ ..7200 => format!("{} min ago", seconds / 60),
        seconds @ ..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Message;

    /// `tests/schema.rs` validates the file.
    #[test]
    fn the_json_of_a_query_is_that_of_the_stored_file() {
        let radio = LastResult {
            at: 1_800_000_000,
            awake: None,
            result: StepResult::Done,
            message: "unlocked".into(),
            id: Some("1199:9071".parse().unwrap()),
            confirmed: Some(1_800_000_060),
        };
        let status = Status {
            port: Port::new("1-1").unwrap(),
            id: "1199:9071".parse().unwrap(),
            name: "Sierra Wireless MC7455".to_owned(),
            came_from: Some("1199:9070".parse().unwrap()),
            manufacturer: Some("Sierra Wireless, Incorporated".to_owned()),
            product: Some("MC7455".to_owned()),
            seen: Some(Seen::Hardware),
            source: Some("the modem".to_owned()),
            mode: Mode::Modem,
            has_quirk: true,
            authorized: true,
            configurations: vec![Configuration {
                value: 1,
                functions: vec![Function::Mbim, Function::Serial],
                active: true,
            }],
            interfaces: vec![BoundInterface { number: 12, driver: None, nodes: vec!["cdc-wdm0".to_owned()] }],
            wwan_ports: vec![WwanPort { name: "wwan0mbim0".to_owned(), r#type: "MBIM".to_owned(), driver: None }],
            radio: Some(Radio { last: radio.clone(), online: true }),
            query: Some(Query::Answer(Answer { operating_mode: OperatingMode::LowPower, locked: Some(true) })),
            last: [(StepKind::FccAuth, radio)].into(),
            problems: vec![Note::new(None, "the radio is locked".to_owned())],
            suppressed: vec![Note::new(Some(StepKind::FccAuth), "`fcc-auth = false`".to_owned())],
        };
        let mut out = Vec::new();
        print_json(&mut out, "status", &json!({ "devices": [status] }), &[]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), include_str!("../../tests/json/status-query.json"));
        for (mode, expected) in [(3, json!("offline")), (0xff, json!("unknown")), (9, json!(9))] {
            let answer = json!(Answer { operating_mode: OperatingMode::from(mode), locked: None });
            assert_eq!(answer["operating-mode"], expected);
        }
    }

    #[test]
    fn a_person_must_continue_if_no_process_does_any_more() {
        let (port, longest) = (Port::new("1-1").unwrap(), Duration::from_secs(80));
        let text = || "no answer".to_owned();
        let continued = Message { text: text(), remedy: None, successor: Some("the unit".to_owned()) };
        let alone = Message { text: text(), remedy: Some("power it off".to_owned()), successor: None };
        for (age, message, expected) in [
            (10, continued.clone(), "no answer; the unit continues"),
            (3600, continued, "no answer; run `wwan-quirks apply 1-1`"),
            (3600, alone, "no answer; power it off"),
        ] {
            let (at, result) = (since_the_epoch() - age, StepResult::Unfinished);
            let last = LastResult { at, awake: None, result, message, id: None, confirmed: None };
            assert_eq!(without_successor(last, longest, &port).message.to_string(), expected, "{age}");
        }
    }
}
