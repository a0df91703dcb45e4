//! `composition`: shows the USB composition that a modem stores, or sets it.
//!
//! Over QMI or MBIM if the vendor offers that, else by AT commands. A port that another program holds is left alone,
//! unless it is a proxy. Nothing is set that the modem does not list, and the modem restarts only on request.

mod way;

use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::database::compositions::{Composition, Compositions, Functions, Value, names};
use crate::host::deadline::Deadline;
use crate::host::journal::{Journal, printable};
use crate::host::root::Root;
use crate::host::state::{Holder, PortState};
use crate::host::sys;
use crate::modem::device::Device;
use crate::modem::device::descriptors::Configuration;
use crate::modem::device::qmi_wwan::QmiInterfaces;
use crate::outcome::{Failure, StepKind, StepResult};
use crate::serve::error::{Error, Exit};
use crate::serve::lookup::lookup;
use crate::steps::composition::{Exchange, Fault, Reading, Request, Restart, describe, read_and_set};
use crate::usb::Function;
use crate::verbs::cli::Setting;
use crate::verbs::output::{print_json, report_errors};
use way::Way;

const STEP: &str = "composition";
/// How long a conversation may take, and one question after a restart.
const TALK: Duration = Duration::from_secs(20);
const QUESTION: Duration = Duration::from_secs(10);
/// How long a modem may take to leave the bus after a reset, and to return.
const LEAVING: Duration = Duration::from_secs(20);
const RETURNING: Duration = Duration::from_secs(90);
/// How long a modem that is back on the bus may take to answer.
const SPEAKING: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);
const UDEV_IS_AT_WORK: &str = "/run/udev/queue";

/// Shows the composition of the named modem, and sets another one if `setting` has a value.
pub fn run(root: &Root, name: &str, setting: &Setting, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let device = Device::one_named(root, name)?;
    let verb = Verb::of(root, &device, setting);
    let (exchange, result) = verb.serve(&device);
    let reading = exchange.as_ref().map(|exchange| &exchange.reading);
    if let Some((result, text)) = &result {
        verb.record(&device, *result, text);
    }
    if json {
        print_json(out, STEP, &verb.json(&device, exchange.as_ref(), result.as_ref()))?;
    } else if let Some((result, text)) = &result {
        writeln!(out, "{}", printable(&verb.line(&device, *result, text)))?;
    } else if let Some(reading) = reading {
        verb.print(&device, reading, out)?;
    }
    if let Some(way_back) = exchange.as_ref().and_then(|exchange| verb.way_back(&device, exchange)).filter(|_| !json) {
        writeln!(out, "to revert: {way_back}")?;
    }
    Ok(if matches!(result, Some((StepResult::Failed, _))) { Exit::Failed } else { Exit::Fine })
}

/// The result of setting a composition, or that nothing could be read.
type Ended = Option<(StepResult, String)>;

struct Verb<'a> {
    root: &'a Root,
    setting: &'a Setting,
    compositions: Compositions,
    /// Of the modem, for lines about it.
    name: String,
}

impl<'a> Verb<'a> {
    fn of(root: &'a Root, device: &Device, setting: &'a Setting) -> Verb<'a> {
        let (known, errors) = lookup(root, device);
        report_errors(&errors);
        let (compositions, errors) = Compositions::load(root);
        report_errors(errors.into_iter().map(Error::from));
        let product = || device.attribute("product").unwrap_or_default();
        let name = known.map_or_else(product, |known| known.quirk.name_of(device.id).to_owned());
        Verb { root, setting, compositions, name }
    }

    fn way(&self) -> Way<'_> {
        Way { root: self.root, compositions: &self.compositions, password: self.setting.password.as_deref() }
    }

    fn serve(&self, device: &Device) -> (Option<Exchange>, Ended) {
        let failed = |failure: Failure| Some((StepResult::Failed, failure.to_string()));
        if !self.compositions.knows(device.id) {
            let reason = format!("the composition of {} is not known", device.id);
            let remedy = "see `man wwan-quirks` for the families; /etc/wwan-quirks/compositions.toml can add one";
            return (None, failed(Failure::new(reason, remedy)));
        }
        // From here on the modem may need cleanup, which a signal must not prevent.
        if let Err(error) = sys::catch_stop_signals() {
            log::warn!("{}: a signal would skip the cleanup: {error}", device.port);
        }
        let waits = |composition: &Composition| !self.is_on_bus(device, composition);
        let request = Request {
            wanted: self.setting.value.as_ref(),
            no_at_port: self.setting.no_at_port,
            reset: self.setting.reset,
            waits: &waits,
        };
        let exchange = match self.way().talk(device, TALK, |dialogue| read_and_set(dialogue, &request)) {
            Ok(exchange) => exchange,
            Err(fault) => return (None, failed(fault.failure())),
        };
        let Some(chosen) = &exchange.chosen else { return (Some(exchange), None) };
        let had = &exchange.reading.current.value;
        let is_new = *had != chosen.value;
        let what = match is_new {
            true => format!("{} instead of {had}", describe(chosen)),
            false => describe(chosen),
        };
        let later = match exchange.reading.restart {
            Restart::Unknown => "from the modem's next start on: unplug it and plug it in again",
            _ => "from the modem's next start on: power it off and on, or add --reset",
        };
        let ended = match exchange.resets {
            true => match self.wait_for_return(device, chosen) {
                Ok(how) => Some((StepResult::Done, format!("{what}; {how}"))),
                Err(failure) => failed(failure),
            },
            false if is_new => Some((StepResult::Done, format!("{what}, {later}"))),
            false if waits(chosen) => Some((StepResult::Unchanged, format!("{what} is set, {later}"))),
            false => Some((StepResult::Unchanged, format!("{what} is what the modem has"))),
        };
        (Some(exchange), ended)
    }

    /// Waits until the modem has left the bus, is back on the same port with this composition, and reports it.
    fn wait_for_return(&self, device: &Device, chosen: &Composition) -> Result<String, Failure> {
        let by = Deadline::after(LEAVING);
        while device.is_present() {
            self.rest()?;
            if by.has_passed() {
                let reason = format!("composition {} is set, but the modem does not restart", chosen.value);
                return Err(Failure::new(reason, "power it off and on"));
            }
        }
        let by = Deadline::after(RETURNING);
        let mut seen = "it has not come back".to_owned();
        let mut speaks_by: Option<Deadline> = None;
        // A number of QMI and a product ID cannot be compared, and a modem without AT port may be unable to answer.
        let needs_answer = matches!(chosen.value, Value::Text(_)) && chosen.has_at_port();
        while !by.has_passed() {
            self.rest()?;
            let Ok(back) = Device::at_port(self.root, device.port.clone()) else { continue };
            seen = format!("it came back as {}", back.id);
            if !self.compositions.knows(back.id) || !matches!(back.configuration(), Ok(Some(_))) {
                continue;
            }
            let is_on_bus = self.is_on_bus(&back, chosen);
            // While udev is at work, the port belongs to the events that unlock the modem.
            let Some(speaks_by) = speaks_by.filter(|_| !self.root.at(UDEV_IS_AT_WORK).exists()) else {
                speaks_by = speaks_by.or_else(|| Some(Deadline::after(SPEAKING)));
                continue;
            };
            let current = self.way().talk(&back, QUESTION, |dialogue| Ok(dialogue.read(None)?.current));
            match current.map(|current| chosen.is(&current)) {
                Ok(Some(false)) => {
                    let reason = format!("{seen} with the composition that it had, though it took {}", chosen.value);
                    return Err(Failure::new(reason, "its firmware may not know it after all; try another one"));
                }
                Ok(_) if is_on_bus => return Ok(format!("the modem came back with it as {}", back.id)),
                Err(fault) if is_on_bus && speaks_by.has_passed() && !needs_answer => {
                    log::info!("{}: {fault}", back.port);
                    return Ok(format!("the modem came back as {}, and the bus shows it", back.id));
                }
                Ok(_) => seen = format!("it came back as {}, and the bus does not show it", back.id),
                Err(Fault::NoPort) => seen = format!("it came back as {} without an AT port", back.id),
                Err(fault @ Fault::Unavailable(_)) if speaks_by.has_passed() => {
                    let failure = fault.failure();
                    let reason = format!("composition {} is set, and {seen}: {}", chosen.value, failure.reason);
                    return Err(Failure::new(reason, failure.remedy));
                }
                Err(fault) => {
                    seen = format!("it came back as {} and does not answer", back.id);
                    log::debug!("{}: {fault}", back.port);
                }
            }
        }
        let reason = format!("composition {} is set, but the modem does not report it: {seen}", chosen.value);
        Err(Failure::new(reason, "see `wwan-quirks status`; power it off and on"))
    }

    fn rest(&self) -> Result<(), Failure> {
        thread::sleep(LOOK);
        if sys::stops() == 0 {
            return Ok(());
        }
        Err(Failure::new("stopped by a signal while the modem restarts", "see `wwan-quirks status`"))
    }

    /// Whether the bus shows `device` with what this composition consists of, as far as that is known.
    fn is_on_bus(&self, device: &Device, composition: &Composition) -> bool {
        match composition.value {
            Value::Product(product) => return device.id.product == product,
            _ if composition.id.is_some_and(|id| id != device.id) => return false,
            _ if composition.configurations.is_empty() => return true,
            _ => {}
        }
        let Ok(descriptors) = device.descriptors() else { return false };
        let found = &descriptors.configurations;
        match self.compositions.sierra.as_ref().filter(|sierra| sierra.knows(device.id)) {
            Some(sierra) => {
                let qmi = QmiInterfaces::of(device.id, &sierra.qmi_interfaces);
                let same = |(wanted, found): (&Functions, &Configuration)| {
                    let has = |function| found.functions(&qmi).contains(&function);
                    let at_port = found.interfaces.iter().any(|on| on.number == sierra.at_interface);
                    [Function::Mbim, Function::Qmi].into_iter().all(|it| wanted.contains(&it) == has(it))
                        && wanted.contains(&Function::Serial) == at_port
                };
                let all = &composition.configurations;
                all.len() == found.len() && all.iter().zip(found).all(same)
            }
            None => {
                let wanted: Functions =
                    composition.functions().into_iter().filter(|function| function.is_network()).collect();
                let qmi = QmiInterfaces::of(device.id, &[]);
                let has = |found: &Configuration| {
                    let network = found.functions(&qmi).into_iter().filter(|function| function.is_network());
                    network.collect::<Functions>() == wanted
                };
                wanted.is_empty() || found.iter().any(has)
            }
        }
    }

    /// The command that reverts what was set.
    fn way_back(&self, device: &Device, exchange: &Exchange) -> Option<String> {
        let Exchange { reading, chosen, .. } = exchange;
        let had = &reading.current;
        chosen.as_ref().filter(|chosen| chosen.value != had.value)?;
        // A DirectIP modem becomes a modem of other values.
        if matches!(had.value, Value::Product(_)) {
            return Some("none: this program does not make a modem DirectIP".to_owned());
        }
        let value = had.value.to_string();
        let quote = if value.contains(';') { "'" } else { "" };
        let no_at_port = if had.has_at_port() { "" } else { " --no-at-port" };
        let reset = if reading.restart == Restart::Unknown { "" } else { " --reset" };
        Some(format!("wwan-quirks composition {} {quote}{value}{quote}{no_at_port}{reset}", device.port))
    }

    fn line(&self, device: &Device, result: StepResult, text: &str) -> String {
        format!("{} {} {}: {STEP}: {}: {text}", device.port, device.id, self.name, result.words())
    }

    /// Writes the result to the journal, and to the state for `status`.
    fn record(&self, device: &Device, result: StepResult, text: &str) {
        let (port, id) = (device.port.as_str(), device.id.to_string());
        let fields = [("WWAN_QUIRKS_PORT", port), ("WWAN_QUIRKS_ID", &id), ("WWAN_QUIRKS_STEP", STEP)];
        Journal::open(self.root).send(result, &self.line(device, result, text), &fields);
        let holder = Holder { enumeration: device.enumeration_id(), scope: "composition".to_owned() };
        let saved = PortState::lock(self.root, &device.port, &holder, Deadline::after(QUESTION)).map(|mut state| {
            state.results().record(StepKind::Composition, result, text);
            state.save()
        });
        log::debug!("{port}: {saved:?}");
    }

    fn print(&self, device: &Device, reading: &Reading, out: &mut impl Write) -> Result<(), Error> {
        let Reading { by, family, current, supported, read_only, facts, .. } = reading;
        let line = format!("{} {} {}: composition {}, by {by}", device.port, device.id, self.name, describe(current));
        writeln!(out, "{}", printable(&line))?;
        for known in supported {
            let mark = if known.is(current) == Some(true) { '*' } else { ' ' };
            let without = match (known.configurations.is_empty(), known.has_at_port()) {
                (true, _) => "  (not known)",
                (false, true) => "",
                (false, false) => "  (no AT port)",
            };
            let (value, functions) = (known.value.to_string(), names(&known.functions()));
            let line = format!("{mark} {value:<8}{functions:<10}{}{without}", known.layout);
            writeln!(out, "{}", printable(line.trim_end()))?;
        }
        for (name, value) in facts {
            writeln!(out, "  {name}: {}", printable(value))?;
        }
        writeln!(out, "  family: {} ({}); seen: {}", family.name, family.confidence, family.seen)?;
        if let Some(reason) = read_only {
            writeln!(out, "  read only: {}", printable(reason))?;
        }
        Ok(())
    }

    fn json(&self, device: &Device, exchange: Option<&Exchange>, ended: Option<&(StepResult, String)>) -> Json {
        let composition = |composition: &Composition| {
            json!({
                "value": composition.value.to_string(),
                "functions": composition.functions(),
                "at-port": composition.has_at_port(),
                "configurations": composition.layout.split(" | ").filter(|text| !text.is_empty()).collect::<Vec<_>>(),
            })
        };
        let reading = exchange.map(|exchange| &exchange.reading);
        json!({
            "port": device.port.as_str(),
            "id": device.id.to_string(),
            "name": self.name,
            "by": reading.map(|reading| &reading.by),
            "family": reading.map(|reading| &reading.family),
            "current": reading.map(|reading| composition(&reading.current)),
            "supported": reading.map(|reading| reading.supported.iter().map(composition).collect::<Vec<_>>()),
            "read-only": reading.and_then(|reading| reading.read_only.as_ref()),
            "settings": reading.map(|reading| &reading.facts),
            "revert": exchange.and_then(|exchange| self.way_back(device, exchange)),
            "result": ended.map(|(result, text)| json!({ "outcome": result.name(), "text": text })),
        })
    }
}
