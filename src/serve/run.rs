//! One run on one modem: from what it is to what came of it. The hook and `apply` share it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::database::policy::{Policy, Resolved};
use crate::database::quirks::{self, Procedure, Quirk, Reset, Step, Switch, Text};
use crate::host::deadline::Deadline;
use crate::host::journal::{Journal, printable};
use crate::host::rfkill;
use crate::host::root::Root;
use crate::host::sandbox;
use crate::host::state::{ATTEMPTS, State, StateError, WINDOW, now};
use crate::host::sys;
use crate::modem::access::{self, Alone, Way};
use crate::modem::device::{ControlPort, Device, DeviceError};
use crate::modem::link::tty::Tty;
use crate::modem::link::usb::Node;
use crate::modem::link::wdm::Wdm;
use crate::modem::link::{self, OpenError};
use crate::modem::transport::{Protocol, Transport};
use crate::outcome::{Failure, Outcome, StepResult};
use crate::serve::error::{Error, Exit};
use crate::serve::event::Occasion;
use crate::serve::plan::{Action, Planned, Stand, plan};
use crate::serve::systemd;
use crate::serve::systemd::Start;
use crate::steps::switch::Target;
use crate::steps::{configure, fcc_auth, switch};

/// How long a modem is watched leaving: udev holds back all other events of it meanwhile, a person can wait.
const LEAVING: Duration = Duration::from_secs(1);
const LEAVING_BY_HAND: Duration = Duration::from_secs(5);
const OFF_BEFORE: &str = "it had been switched off before it locked again";
/// How soon the way to a port that others came to is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What is planned where something cannot be read: it may say to leave the modem alone.
pub const NOTHING_YET: &str = "nothing, until what is wrong with database or policy is mended";
const APPLY: &str = "`wwan-quirks apply` does it";

/// A modem that the database knows, with what holds for it.
pub struct Known {
    pub quirk: Quirk,
    pub policy: Resolved,
    /// All of database and policy that concerns it could be read.
    pub is_sure: bool,
}

impl Known {
    /// What a run would do to `device`, in words.
    pub fn planned(&self, device: &Device, occasion: &Occasion, verbose: bool) -> Result<Vec<String>, DeviceError> {
        if !self.is_sure {
            return Ok(vec![NOTHING_YET.to_owned()]);
        }
        let planned = plan(occasion, &stand(device, &self.quirk, occasion)?, &self.quirk, &self.policy);
        Ok(planned.iter().flat_map(|planned| planned.lines(verbose)).collect())
    }
}

/// The quirk and the policy for `device`; none where the database does not know it. What is wrong with database or
/// policy is told through `complain`, and the rest of them read all the same.
pub fn look_up(root: &Root, device: &Device, complain: &mut dyn FnMut(Error)) -> Option<Known> {
    let found = quirks::lookup(root, device.id, |wanted| text(device, wanted));
    let mut is_sure = found.errors.is_empty();
    found.errors.into_iter().for_each(|error| complain(error.into()));
    let quirk = found.quirk?;
    let (policy, errors) = Policy::load(root);
    is_sure &= errors.is_empty();
    errors.into_iter().for_each(|error| complain(error.into()));
    let policy = policy.resolve(device.id, Some(&device.port), || device.attribute("serial").ok());
    Some(Known { quirk, policy, is_sure })
}

fn text(device: &Device, text: Text) -> Option<String> {
    match text {
        Text::Manufacturer => device.attribute("manufacturer").ok(),
        Text::Product => device.attribute("product").ok(),
        Text::Serial => device.attribute("serial").ok(),
        Text::ScsiVendor => device.scsi_attribute("vendor"),
        Text::ScsiModel => device.scsi_attribute("model"),
        Text::ScsiRevision => device.scsi_attribute("rev"),
    }
}

/// What the plan needs to know of `device` for the steps of `quirk` on this occasion.
pub fn stand(device: &Device, quirk: &Quirk, occasion: &Occasion) -> Result<Stand, DeviceError> {
    let mut stand = Stand::default();
    let has = |step: fn(&Step) -> bool| quirk.steps.iter().any(step);
    let of_device = |step: &Step| match step {
        Step::Switch(switch) => switch.needs_interfaces(),
        step => matches!(step, Step::Configuration { .. }),
    };
    if matches!(occasion, Occasion::Device | Occasion::ByHand) && has(of_device) {
        stand.descriptors = match device.descriptors() {
            Err(error @ DeviceError::Gone { .. }) => return Err(error),
            read => Some(read.map_err(|error| error.to_string())),
        };
        stand.configuration = device.configuration()?;
    }
    let procedure =
        quirk.steps.iter().find_map(|step| if let Step::FccAuth(procedure) = step { Some(procedure) } else { None });
    stand.ports = match procedure {
        None => Vec::new(),
        Some(_) if matches!(occasion, Occasion::Device) => Vec::new(),
        Some(Procedure::Rolling { interface, .. }) => device.tty(*interface)?.into_iter().collect(),
        Some(_) => device.control_ports()?,
    };
    Ok(stand)
}

/// One run, and where it tells what it decides.
pub struct Run<'a> {
    pub root: &'a Root,
    pub journal: Journal,
    /// Where a person reads along.
    pub echo: Option<&'a mut dyn Write>,
    /// A person, or the unit, runs this: there is time.
    pub by_hand: bool,
    /// Somebody asked for this run, so that the modem may be in use already.
    pub asked: bool,
    /// Nothing is served after this modem, so that what it does not need can be given away.
    pub last: bool,
    /// What carries on, should the modem need longer than an event lasts.
    pub start: Option<io::Result<Start>>,
    /// ModemManager wants the radio on and waits so long: its administrator chose that, whatever the policy says.
    pub opted_in: Option<Duration>,
}

impl Run<'_> {
    /// Does to `device` what the occasion calls for.
    pub fn serve(&mut self, device: &Device, occasion: &Occasion) -> Exit {
        let begun = Deadline::after(Duration::ZERO);
        let mut faults = Vec::new();
        let known = look_up(self.root, device, &mut |error| faults.push(error));
        // What could not be read may say to leave this modem alone.
        if let Some(worst) = faults.iter().map(Error::exit).max() {
            const CONSEQUENCE: &str = "nothing is done until that is mended";
            faults.iter().for_each(|fault| self.complain(device, fault, &format!("; {CONSEQUENCE}")));
            if self.echo.is_some() {
                eprintln!("wwan-quirks: {}: {CONSEQUENCE}", device.port);
            }
            return worst;
        }
        let Some(Known { quirk, mut policy, .. }) = known else { return Exit::Fine };
        if let Some(limit) = self.opted_in {
            policy.fcc_auth.value = true;
            policy.modem_ready.value = limit;
        }
        let budget = if self.by_hand { policy.modem_ready.value } else { policy.hook.value };
        sandbox::end_after(budget);
        let served = self.serve_known(device, occasion, &quirk, &policy, begun.plus(budget));
        served.unwrap_or_else(|error| match error {
            // A modem that left is served when it comes back.
            Error::Device(DeviceError::Gone { .. }) => Exit::Fine,
            error => {
                self.complain(device, &error, "");
                error.exit()
            }
        })
    }

    fn serve_known(
        &mut self,
        device: &Device,
        occasion: &Occasion,
        quirk: &Quirk,
        policy: &Resolved,
        deadline: Deadline,
    ) -> Result<Exit, Error> {
        let mut state = match State::lock(self.root, &device.port, deadline) {
            Ok(state) => state,
            Err(error @ StateError::Busy) => {
                log::info!("{}: {error}", device.port);
                return Ok(Exit::Fine);
            }
            Err(error) => {
                log::warn!("{}: {error}", device.port);
                State::forgetful()
            }
        };
        let planned = plan(occasion, &stand(device, quirk, occasion)?, quirk, policy);
        if !quirk.steps.iter().any(|step| matches!(step, Step::Switch(_))) {
            state.record.arrived("switch");
        }
        let mut exit = Exit::Fine;
        let last = self.last;
        let mut actions = planned.iter().filter(|planned| matches!(planned, Planned::Act(_))).count();
        for planned in planned {
            let step = planned.step();
            let is_withheld = matches!(planned, Planned::Withheld { .. });
            let (kind, text) = match planned {
                Planned::Stands { why, .. } | Planned::Withheld { why, .. } => (StepResult::Unchanged, why),
                Planned::Cannot { trouble, .. } => (StepResult::Failed, trouble.to_string()),
                Planned::Act(action) => {
                    actions -= 1;
                    self.last = last && actions == 0;
                    let Some(ended) = self.act(device, &action, policy, &mut state, deadline) else { continue };
                    ended
                }
            };
            // What is not done for the policy's sake tells nothing of the modem.
            if !is_withheld {
                state.record.ended(step, kind.name(), &text);
            }
            self.tell(device, &quirk.name, step, kind, &text);
            if kind == StepResult::Failed || (kind == StepResult::Unfinished && self.by_hand) {
                exit = Exit::Failed;
            }
        }
        if let Err(error) = state.save() {
            log::warn!("{}: {error}", device.port);
        }
        Ok(exit)
    }

    /// Carries out one action; nothing where it was told before that this modem is left alone.
    fn act(
        &mut self,
        device: &Device,
        action: &Action,
        policy: &Resolved,
        state: &mut State,
        deadline: Deadline,
    ) -> Option<(StepResult, String)> {
        let step = action.step();
        let mut returned = false;
        if let Action::Switch { .. } = action {
            let again;
            (again, returned) = state.record.tells(&device.id.to_string(), device.stay());
            // A drive that got its driver back has a SCSI event anew.
            if again && !self.asked {
                return None;
            }
        }
        if !self.by_hand
            && !matches!(action, Action::FccAuth { .. })
            && !state.record.attempt(step, &device.id.to_string(), now())
        {
            let told = state.record.last.get(step).is_some_and(|last| last.outcome == StepResult::LeftAlone.name());
            let text = format!(
                "it came back as it was {ATTEMPTS} times within {WINDOW} seconds and is left alone; \
                 `wwan-quirks apply {}` tries again",
                device.port
            );
            return (!told).then_some((StepResult::LeftAlone, text));
        }
        // What is tried is remembered first: should the modem take this process down with it, it is still counted.
        if let Err(error) = state.save() {
            log::warn!("{}: {error}", device.port);
        }
        let outcome = match action {
            Action::Switch { switch, .. } if !self.by_hand && switch.pauses() >= LEAVING => {
                let seconds = switch.pauses().as_secs_f32();
                Outcome::Unfinished(Failure::new(format!("it takes {seconds} s, more than an event lasts"), APPLY))
            }
            Action::Switch { switch, target } => self.switch(device, switch, target, returned, deadline),
            Action::Configure { from, to, unconfigured } => configure::run(device, *from, *to, *unconfigured),
            Action::FccAuth { port, protocol, procedure, reset } => {
                if !self.by_hand {
                    self.start = self.prepare(device);
                }
                let deadline = match (self.by_hand, &self.start) {
                    (true, _) => deadline,
                    (false, Some(_)) => deadline.minus(systemd::KEPT_BACK),
                    // Nobody else carries on.
                    (false, None) => {
                        sandbox::end_after(policy.modem_ready.value);
                        Deadline::after(policy.modem_ready.value)
                    }
                };
                let number = device.attribute("devnum").ok();
                let authorized = (*reset == Some(Reset::Do)).then(|| device.authorized());
                let stays_off = self.opted_in.is_none() && state.record.was_switched_off(number.as_deref());
                let outcome = self.unlock(device, port, *protocol, procedure, stays_off, deadline);
                match outcome {
                    Outcome::SwitchedOff(_) => state.record.switched_off = number,
                    Outcome::Unchanged(_) => state.record.switched_off = None,
                    _ => {}
                }
                match (outcome, reset) {
                    (Outcome::StillOff(text), Some(_)) => Outcome::Done(reset_modem(device, &text, authorized, state)),
                    (outcome, _) => outcome,
                }
            }
        };
        Some(match outcome {
            Outcome::Done(text) | Outcome::StillOff(text) => (StepResult::Done, text),
            Outcome::Unchanged(text) | Outcome::SwitchedOff(text) => (StepResult::Unchanged, text),
            Outcome::Failed(trouble) => (StepResult::Failed, trouble.to_string()),
            Outcome::Unfinished(trouble) if self.by_hand => (StepResult::Unfinished, trouble.to_string()),
            Outcome::Unfinished(trouble) => self.carry_on(device, action, returned, policy, &trouble),
        })
    }

    fn switch(&self, device: &Device, switch: &Switch, target: &Target, returned: bool, deadline: Deadline) -> Outcome {
        let mut node = match Node::open(self.root, device) {
            Ok(node) => node,
            Err(error) if error.is_gone() => return switch::left_mode(),
            Err(error) => return Outcome::Failed(Failure::new(error.to_string(), "see `wwan-quirks status`")),
        };
        let leaving = if self.by_hand { LEAVING_BY_HAND } else { LEAVING };
        // A message that is no more than one control transfer is over within the time that it is watched.
        let deadline = if switch.needs_interfaces() || self.by_hand { deadline } else { deadline.at_most(leaving) };
        let attribute = switch.sets_configuration().then(|| device.configuration_value());
        let mut configure = |value| match &attribute {
            Some(Ok(attribute)) => attribute.set(value).is_ok() && attribute.get().ok() == Some(Some(value)),
            _ => false,
        };
        self.give_away();
        switch::run(&mut node, switch, target, returned, &mut configure, leaving, deadline)
    }

    fn unlock(
        &self,
        device: &Device,
        port: &ControlPort,
        protocol: Protocol,
        procedure: &Procedure,
        was_switched_off: bool,
        deadline: Deadline,
    ) -> Outcome {
        // From here on the modem may have to be put in order, which a signal must not prevent.
        if let Err(error) = sys::catch_stop_signals() {
            log::warn!("{}: a signal would leave the modem as it is then: {error}", device.port);
        }
        let path = self.root.at("/dev").join(&port.name);
        let stays_off = rfkill::wwan_is_blocked(self.root).or_else(|| was_switched_off.then(|| OFF_BEFORE.to_owned()));
        let unlock = |transport: Transport| {
            // A run that was asked for may yet have to go another way, to a proxy.
            if !self.asked {
                self.give_away();
            }
            fcc_auth::run(transport, procedure, stays_off.as_deref(), deadline)
        };
        loop {
            let outcome = self.unlock_once(device, port, protocol, &path, &unlock);
            // A proxy that is opening the port, or somebody who came to it after us: there is time to go their way.
            let again = self.asked && matches!(outcome, Outcome::Unfinished(_)) && sys::stops() == 0;
            if !again || deadline.remaining() < LOOK_AGAIN {
                return outcome;
            }
            log::debug!("{}: {outcome:?}", device.port);
            std::thread::sleep(LOOK_AGAIN / 2);
        }
    }

    /// Goes to the modem the way that is open now.
    fn unlock_once(
        &self,
        device: &Device,
        port: &ControlPort,
        protocol: Protocol,
        path: &Path,
        unlock: &dyn Fn(Transport) -> Outcome,
    ) -> Outcome {
        // A new port is ours alone until its event is over; later on, answers would go to whoever reads first.
        match if self.asked { access::way(self.root, path) } else { Way::Free } {
            Way::Held(holders) => return fcc_auth::held(&holders),
            Way::Through(proxy) => {
                return match proxy.connect() {
                    Ok(mut stream) => {
                        unlock(Transport { port: &mut stream, protocol: proxy.protocol(), proxied: Some(path) })
                    }
                    Err(error) => Outcome::Failed(Failure::new(
                        format!("{} holds the port and takes no connection: {error}", proxy.name()),
                        "stop it, then `wwan-quirks apply`",
                    )),
                };
            }
            Way::Free => {}
        }
        let opened = match protocol {
            Protocol::At => Tty::open(path, port.number).map(|tty| Box::new(tty) as Box<dyn link::Link>),
            Protocol::Qmi | Protocol::Mbim => {
                Wdm::open(path, port.number).map(|wdm| Box::new(wdm) as Box<dyn link::Link>)
            }
        };
        // The node was opened while this very modem stood: its number cannot have meant another one.
        if matches!(opened, Err(OpenError::Gone { .. })) || !device.is_present() {
            return Outcome::Unchanged("the modem left; when it is back, its own event carries on".to_owned());
        }
        match opened {
            Ok(opened) if self.asked => {
                unlock(Transport { port: &mut Alone::over(opened, self.root, path), protocol, proxied: None })
            }
            Ok(mut opened) => unlock(Transport { port: &mut *opened, protocol, proxied: None }),
            Err(error @ OpenError::InUse { .. }) => {
                Outcome::Failed(Failure::new(error.to_string(), "stop what uses it, then `wwan-quirks apply`"))
            }
            Err(error) => {
                Outcome::Failed(Failure::new(error.to_string(), "see what the kernel's log says of the port"))
            }
        }
    }

    /// What is not open by now is not needed any more.
    fn give_away(&self) {
        if self.last {
            sandbox::give_away(self.start.as_ref().and_then(|start| start.as_ref().ok()));
        }
    }

    /// The start of the unit that carries on; none where no systemd runs.
    fn prepare(&self, device: &Device) -> Option<io::Result<Start>> {
        systemd::is_running(self.root).then(|| Start::prepare(self.root, &unit(device)))
    }

    /// Sees to it that somebody gives the modem the time that a udev event cannot.
    fn carry_on(
        &mut self,
        device: &Device,
        action: &Action,
        returned: bool,
        policy: &Resolved,
        trouble: &Failure,
    ) -> (StepResult, String) {
        if matches!(action, Action::Switch { switch, .. } if switch.pauses() < LEAVING) {
            // What was sent is sent; the device's next identity has its own event.
            return (StepResult::Unfinished, trouble.to_string());
        }
        if let Some(start) = self.start.take().or_else(|| self.prepare(device)) {
            let unit = unit(device);
            return match start.and_then(|start| start.ask()) {
                Ok(()) => (StepResult::Unfinished, format!("{}; {unit} carries on", trouble.reason)),
                Err(error) => (StepResult::Failed, format!("{trouble}; {unit} could not be started: {error}")),
            };
        }
        let deadline = Deadline::after(policy.modem_ready.value);
        sandbox::end_after(policy.modem_ready.value);
        let outcome = match action {
            // It had the whole time already.
            Action::FccAuth { .. } => return (StepResult::Failed, trouble.to_string()),
            Action::Switch { switch, target } => self.switch(device, switch, target, returned, deadline),
            Action::Configure { from, to, unconfigured } => configure::run(device, *from, *to, *unconfigured),
        };
        match outcome {
            Outcome::Done(text) | Outcome::StillOff(text) => (StepResult::Done, text),
            Outcome::Unchanged(text) | Outcome::SwitchedOff(text) => (StepResult::Unchanged, text),
            Outcome::Unfinished(trouble) | Outcome::Failed(trouble) => (StepResult::Failed, trouble.to_string()),
        }
    }

    fn tell(&mut self, device: &Device, name: &str, step: &str, kind: StepResult, text: &str) {
        let (port, id) = (device.port.as_str(), device.id.to_string());
        let message = format!("{port} {id} {name}: {step}: {}: {text}", kind.words());
        let fields = [
            ("WWAN_QUIRKS_PORT", port),
            ("WWAN_QUIRKS_ID", &id),
            ("WWAN_QUIRKS_STEP", step),
            ("WWAN_QUIRKS_GIVEN_AWAY", sandbox::level().unwrap_or_default()),
        ];
        let told = if sandbox::level().is_some() { fields.len() } else { fields.len() - 1 };
        self.journal.send(kind, &message, fields.get(..told).unwrap_or_default());
        if let Some(echo) = &mut self.echo {
            // A reader that went away does not keep the modem from being served.
            let _ = writeln!(echo, "{}", printable(&message));
        }
    }

    fn complain(&mut self, device: &Device, error: &Error, consequence: &str) {
        let (port, id) = (device.port.as_str(), device.id.to_string());
        let kind = if error.exit() == Exit::Invalid { StepResult::Invalid } else { StepResult::Failed };
        let message = format!("{port} {id}: {}{consequence}", first_line(&error.chain()));
        self.journal.send(kind, &message, &[("WWAN_QUIRKS_PORT", port), ("WWAN_QUIRKS_ID", &id)]);
        if self.echo.is_some() {
            eprintln!("wwan-quirks: {error}");
        }
    }
}

fn unit(device: &Device) -> String {
    format!("wwan-quirks@{}.service", device.port)
}

/// Resets an unlocked modem that does not come online by itself, where its `authorized` was opened for that and a reset
/// has not been in vain before; otherwise says how a person can. Returns what was done.
fn reset_modem(device: &Device, text: &str, authorized: Option<io::Result<File>>, state: &mut State) -> String {
    let tell = format!(
        "{text}; if that fails, reset the modem: write 0, then 1, to /sys/bus/usb/devices/{}/authorized",
        device.port
    );
    let Some(authorized) = authorized else { return tell };
    if !state.record.attempt("reset", &device.id.to_string(), now()) {
        return tell;
    }
    let reset = state.save().and(authorized).and_then(|mut file| {
        file.write_all(b"0\n")?;
        file.write_all(b"1\n")
    });
    match reset {
        Ok(()) => "unlocked, and reset to come online".to_owned(),
        Err(error) => format!("{tell} (it was tried: {error})"),
    }
}

/// A line of the journal is a line; the source and the caret are for people at a terminal.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
