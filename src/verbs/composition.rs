//! `composition`: shows a Sierra modem's USB composition, or sets it for good.
//!
//! Over QMI or MBIM where the modem has it, else by AT commands; beside others who hold the port, through their proxy.
//! Nothing is set that the modem does not list, and it starts again only when told to.

mod way;

use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::database::quirks::composition::{Composition, Layout, Table, Value};
use crate::host::deadline::Deadline;
use crate::host::journal::{Journal, printable};
use crate::host::root::Root;
use crate::host::state::{Holder, PortState};
use crate::host::sys;
use crate::modem::device::Device;
use crate::modem::device::descriptors::{Configuration, Descriptors};
use crate::modem::device::qmi_wwan::QmiInterfaces;
use crate::outcome::{Failure, StepKind, StepResult};
use crate::serve::error::{Error, Exit};
use crate::serve::lookup::lookup;
use crate::steps::composition::{Request, Standing, Told, go_through};
use crate::usb::Function;
use crate::verbs::cli::Setting;
use crate::verbs::output::{print_json, report_errors};
use way::Way;

const STEP: &str = "composition";
/// How long a conversation may take, and one question on the way.
const TALK: Duration = Duration::from_secs(20);
const QUESTION: Duration = Duration::from_secs(5);
/// How long a modem may take to leave the bus after it was told to start again, and to come back whole.
const LEAVING: Duration = Duration::from_secs(20);
const RETURNING: Duration = Duration::from_secs(90);
/// How long one that stands on the bus as it should may take to say so itself.
const SPEAKING: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);
const UDEV_IS_AT_WORK: &str = "/run/udev/queue";

/// Shows the composition of the modem named, and sets another one where `setting` has a value.
pub fn run(root: &Root, name: &str, setting: &Setting, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let device = Device::one_named(root, name)?;
    let verb = Verb::of(root, &device, setting);
    let (told, ended) = verb.serve(&device);
    let standing = told.as_ref().map(|told| &told.standing);
    if let Some((kind, text)) = &ended {
        verb.record(&device, *kind, text);
    }
    if json {
        print_json(out, STEP, &verb.json(&device, standing, ended.as_ref()))?;
    } else if let Some((kind, text)) = &ended {
        writeln!(out, "{}", printable(&verb.line(&device, *kind, text)))?;
    } else if let Some(standing) = standing {
        verb.print(&device, standing, out)?;
    }
    Ok(if matches!(ended, Some((StepResult::Failed, _))) { Exit::Failed } else { Exit::Fine })
}

/// How setting a composition ended, or that nothing could be read.
type Ended = Option<(StepResult, String)>;

struct Verb<'a> {
    root: &'a Root,
    setting: &'a Setting,
    table: Table,
    /// Of the modem, for lines about it.
    name: String,
}

impl<'a> Verb<'a> {
    fn of(root: &'a Root, device: &Device, setting: &'a Setting) -> Verb<'a> {
        let (known, errors) = lookup(root, device);
        report_errors(&errors);
        let product = || device.attribute("product").unwrap_or_default();
        Verb {
            root,
            setting,
            table: Table::shipped(),
            name: known.map_or_else(product, |known| known.quirk.name_of(device.id).to_owned()),
        }
    }

    fn way(&self) -> Way<'_> {
        let password = self.setting.password.as_ref().unwrap_or(&self.table.password);
        Way { root: self.root, table: &self.table, password }
    }

    fn serve(&self, device: &Device) -> (Option<Told>, Ended) {
        let failed = |trouble: Failure| Some((StepResult::Failed, trouble.to_string()));
        if !self.table.knows(device.id) {
            let cause = format!("{} is none of the modems whose compositions are known", device.id);
            return (None, failed(Failure::new(cause, "they are Sierra's, and those that Dell and HP sell as theirs")));
        }
        // From here on the modem may have to be put in order, which a signal must not prevent.
        if let Err(error) = sys::catch_stop_signals() {
            log::warn!("{}: a signal would leave the modem as it is then: {error}", device.port);
        }
        let waits = |composition: &Composition| !self.is_on_bus(device, composition);
        let request = Request {
            wanted: self.setting.value.as_ref(),
            no_at_port: self.setting.no_at_port,
            reset: self.setting.reset,
            waits: &waits,
        };
        let told = match self.way().talk(device, TALK, |dialogue| go_through(dialogue, &request, &self.table)) {
            Ok(told) => told,
            Err(fault) => return (None, failed(fault.trouble())),
        };
        let Some(chosen) = &told.chosen else { return (Some(told), None) };
        let had = told.standing.current.value;
        let is_new = had != chosen.value;
        let what = match is_new {
            true => format!("{} instead of {had}", self.describe(chosen)),
            false => self.describe(chosen),
        };
        let later = "from the modem's next start on: power it off and on, or say --reset";
        let ended = match told.resets {
            true => match self.see_it_back(device, chosen) {
                Ok(how) => Some((StepResult::Done, format!("{what}; {how}"))),
                Err(trouble) => failed(trouble),
            },
            false if is_new => Some((StepResult::Done, format!("{what}, {later}"))),
            false if waits(chosen) => Some((StepResult::Unchanged, format!("{what} is set, {later}"))),
            false => Some((StepResult::Unchanged, format!("{what} is what the modem has"))),
        };
        (Some(told), ended)
    }

    /// Waits until the modem has left the bus and stands on the same port with this composition, and says so itself.
    fn see_it_back(&self, device: &Device, chosen: &Composition) -> Result<String, Failure> {
        let by = Deadline::after(LEAVING);
        while device.is_present() {
            self.rest()?;
            if by.has_passed() {
                let cause = format!("composition {} is set, but the modem does not start again", chosen.value);
                return Err(Failure::new(cause, "power it off and on"));
            }
        }
        let by = Deadline::after(RETURNING);
        let mut seen = "it has not come back".to_owned();
        let mut speaks_by: Option<Deadline> = None;
        while !by.has_passed() {
            self.rest()?;
            let Ok(back) = Device::at_port(self.root, device.port.clone()) else { continue };
            seen = format!("it came back as {}", back.id);
            if !self.table.knows(back.id) || !matches!(back.configuration(), Ok(Some(_))) {
                continue;
            }
            let is_on_bus = self.is_on_bus(&back, chosen);
            // While udev is at work, the port belongs to the events that unlock the modem.
            let Some(speaks_by) = speaks_by.filter(|_| !self.root.at(UDEV_IS_AT_WORK).exists()) else {
                speaks_by = speaks_by.or_else(|| Some(Deadline::after(SPEAKING)));
                continue;
            };
            let current =
                self.way().talk(&back, QUESTION, |dialogue| Ok(dialogue.standing(&self.table, None)?.current));
            match current.map(|current| chosen.is(&current)) {
                Ok(Some(false)) => {
                    let cause = format!("{seen} with the composition that it had, though it took {}", chosen.value);
                    return Err(Failure::new(cause, "its firmware may not know it after all; try another one"));
                }
                Ok(_) if is_on_bus => return Ok(format!("the modem came back with it as {}", back.id)),
                Err(fault) if is_on_bus && speaks_by.has_passed() => {
                    log::info!("{}: {fault}", back.port);
                    return Ok(format!("the modem came back as {}, and the bus shows it", back.id));
                }
                Ok(_) => seen = format!("it came back as {}, and the bus does not show it", back.id),
                Err(fault) => log::debug!("{}: {fault}", back.port),
            }
        }
        let cause = format!("composition {} is set, but the modem was not seen with it: {seen}", chosen.value);
        Err(Failure::new(cause, "see `wwan-quirks status`; power it off and on"))
    }

    fn rest(&self) -> Result<(), Failure> {
        thread::sleep(LOOK);
        if sys::stops() == 0 {
            return Ok(());
        }
        Err(Failure::new("stopped by a signal while the modem starts again", "see `wwan-quirks status`"))
    }

    /// Whether `device` stands on the bus with what this composition is made of, as far as that is known.
    fn is_on_bus(&self, device: &Device, composition: &Composition) -> bool {
        let layout = &composition.layout;
        let Table { at_interface, qmi_interfaces, .. } = &self.table;
        let qmi = QmiInterfaces::of(device.id, qmi_interfaces);
        let same = |(wanted, found): (&String, &Configuration)| {
            let wanted = Layout(vec![wanted.clone()]);
            let has = |function: Function| found.functions(&qmi).contains(&function);
            [Function::Mbim, Function::Qmi]
                .into_iter()
                .all(|function| self.table.functions(&wanted).contains(&function.name()) == has(function))
                && self.table.has_at_port(&wanted) == found.interfaces.iter().any(|on| on.number == *at_interface)
        };
        match composition.value {
            Value::Product(product) => device.id.product == product,
            _ if layout.0.is_empty() => true,
            _ => device.descriptors().is_ok_and(|Descriptors { configurations: found, .. }| {
                layout.0.len() == found.len() && layout.0.iter().zip(&found).all(same)
            }),
        }
    }

    /// `8 (mbim: dm nmea at mbim)`.
    fn describe(&self, composition: &Composition) -> String {
        format!("{} ({}: {})", composition.value, self.functions(composition), composition.layout)
    }

    fn functions(&self, composition: &Composition) -> String {
        match self.table.functions(&composition.layout).as_slice() {
            [] => "-".to_owned(),
            functions => functions.join("+"),
        }
    }

    fn line(&self, device: &Device, kind: StepResult, text: &str) -> String {
        format!("{} {} {}: {STEP}: {}: {text}", device.port, device.id, self.name, kind.words())
    }

    /// Tells the journal, and remembers it for `status`.
    fn record(&self, device: &Device, kind: StepResult, text: &str) {
        let (port, id) = (device.port.as_str(), device.id.to_string());
        let fields = [("WWAN_QUIRKS_PORT", port), ("WWAN_QUIRKS_ID", &id), ("WWAN_QUIRKS_STEP", STEP)];
        Journal::open(self.root).send(kind, &self.line(device, kind, text), &fields);
        let holder = Holder { enumeration: device.enumeration_id(), scope: "composition".to_owned() };
        let saved = PortState::lock(self.root, &device.port, &holder, Deadline::after(QUESTION)).map(|mut state| {
            state.results().record(StepKind::Composition, kind, text);
            state.save()
        });
        log::debug!("{port}: {saved:?}");
    }

    fn print(&self, device: &Device, standing: &Standing, out: &mut impl Write) -> Result<(), Error> {
        let Standing { by, current, supported, .. } = standing;
        let current_line = self.describe(current);
        let line = format!("{} {} {}: composition {current_line}, by {by}", device.port, device.id, self.name);
        writeln!(out, "{}", printable(&line))?;
        for known in supported {
            let mark = if known.value == current.value { '*' } else { ' ' };
            let without = if self.table.has_at_port(&known.layout) { "" } else { "  (no AT port)" };
            let (value, functions) = (known.value.to_string(), self.functions(known));
            writeln!(out, "{}", printable(&format!("{mark} {value:<8}{functions:<10}{}{without}", known.layout)))?;
        }
        Ok(())
    }

    fn json(&self, device: &Device, standing: Option<&Standing>, ended: Option<&(StepResult, String)>) -> Json {
        let composition = |composition: &Composition| {
            json!({
                "value": composition.value.to_string(),
                "functions": self.table.functions(&composition.layout),
                "at-port": self.table.has_at_port(&composition.layout),
                "configurations": composition.layout,
            })
        };
        json!({
            "port": device.port.as_str(),
            "id": device.id.to_string(),
            "name": self.name,
            "by": standing.map(|standing| standing.by),
            "current": standing.map(|standing| composition(&standing.current)),
            "supported": standing.map(|standing| standing.supported.iter().map(composition).collect::<Vec<_>>()),
            "result": ended.map(|(result, text)| json!({ "outcome": result.name(), "text": text })),
        })
    }
}
