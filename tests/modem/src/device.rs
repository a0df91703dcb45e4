//! One software USB modem: its attachment to the bus, its endpoint 0, and the path from endpoints to functions.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use crate::at::At;
use crate::composition::Composition;
use crate::descriptors::{Configuration, INPUT, Transfer};
use crate::install::Seen;
use crate::models::{Dialect, Form, Model, direct_ip};
use crate::radio::{Modem, Transition};
use crate::storage::{self, Reply, Storage};
use crate::timers::Timers;
use crate::transcript::hex;
use crate::wdm::Wdm;
use vhci::{Command, Link, Submit};

/// The events that the modem's thread waits for.
pub enum Event {
    /// A command from the host controller, for the attachment with this number.
    Usb(u64, Command),
    /// The host controller has detached the attachment with this number.
    Detached(u64),
    /// A record from the kernel module for PCI modems.
    Pci(Vec<u8>),
    /// A line from the control socket, and the client that gets the reply.
    Control(String, UnixStream),
}

/// An action that takes place when its timer expires.
enum Action {
    /// This response is available for a GET_ENCAPSULATED_RESPONSE to this interface.
    Response(u8, Vec<u8>),
    /// This IN endpoint has data for the host.
    Output(u8, Vec<u8>),
    Transition(Transition),
    /// Endpoint 0 accepts the requests that have got only NAK so far.
    Accept,
    Leave,
    Return,
}

mod control;
mod endpoint0;

/// How a control transfer ends.
enum Answer {
    Data(Vec<u8>),
    Done,
    Stall,
    /// The transfer fails on the bus.
    Fail,
    Never,
}

/// How a counted transfer ends.
#[derive(PartialEq)]
enum Fate {
    Good,
    Stalled,
    /// The transfer succeeds, and the modem leaves afterwards.
    Last,
}

enum Function {
    Storage(Storage),
    Wdm(Wdm),
    At(At),
    /// A network function without QMI or MBIM, and its pending RNDIS responses.
    Network(VecDeque<Vec<u8>>),
    /// Returns an empty report for each read.
    Reports,
    Silent,
}

pub struct Device {
    modem: Modem,
    dialect: Dialect,
    /// The forms that the modem takes in turn, and the index of the current one.
    forms: Vec<Form>,
    form: usize,
    /// The current form on the bus, with the effects of faults.
    active: Form,
    /// How far the host has got in `active.switch`: the stage, and the position in it.
    progress: (usize, usize),
    unlocked: bool,
    port: Option<u32>,
    events: Sender<Event>,
    link: Option<Link>,
    attaches: u64,
    configuration: u8,
    /// The first configuration that the host set after the attach.
    chosen: Option<u8>,
    /// When the host unconfigured the modem.
    unconfigured: Option<Instant>,
    alternates: BTreeMap<u8, u8>,
    /// Requests on endpoint 0 that get NAK, and when they will be accepted, if ever.
    naked: Vec<Submit>,
    accepts: Option<Instant>,
    functions: BTreeMap<u8, Function>,
    timers: Timers<Action>,
    /// The number of transfers since the first plug, without standard requests.
    transfers: u64,
    max_control_message: Option<u16>,
}

impl Device {
    pub fn new(model: Model, modem: Modem, unlocked: bool, port: Option<u32>, events: Sender<Event>) -> Device {
        Device {
            timers: Timers::new(modem.clock),
            modem,
            dialect: model.dialect,
            active: model.forms[0].clone(),
            forms: model.forms,
            form: 0,
            progress: (0, 0),
            unlocked,
            port,
            events,
            link: None,
            attaches: 0,
            configuration: 0,
            chosen: None,
            unconfigured: None,
            alternates: BTreeMap::new(),
            naked: Vec::new(),
            accepts: None,
            functions: BTreeMap::new(),
            transfers: 0,
            max_control_message: None,
        }
    }

    pub fn set_max_control_message(&mut self, size: u16) {
        self.max_control_message = Some(size);
    }

    /// Plugs in, and serves until a client sends `quit`.
    pub fn run(&mut self, events: &Receiver<Event>) -> io::Result<()> {
        self.power_on();
        self.attach()?;
        loop {
            match self.timers.receive(events) {
                Ok(Event::Usb(attach, command)) if attach == self.attaches => self.command(command),
                Ok(Event::Detached(attach)) if attach == self.attaches && self.link.is_some() => self.leave(),
                Ok(Event::Usb(..) | Event::Detached(_) | Event::Pci(_)) => {}
                Ok(Event::Control(line, mut client)) => {
                    let quit = line == "quit";
                    let answer = self.control_line(&line).unwrap_or_else(|error| format!("error: {error}"));
                    // The client may have disconnected.
                    let _ = writeln!(client, "{answer}");
                    if quit {
                        self.leave();
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.timer_due()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.settle();
        }
    }

    fn timer_due(&mut self) -> io::Result<()> {
        let Some(action) = self.timers.pop_due() else { return Ok(()) };
        match action {
            Action::Response(interface, data) => self.respond(interface, data),
            Action::Output(endpoint, data) => {
                self.on_link(|link| link.queue(endpoint, data));
                self.pump(endpoint);
            }
            Action::Transition(Transition::Online) => self.modem.come_online(),
            Action::Transition(Transition::Reset) => self.reset(),
            Action::Accept => {
                for urb in std::mem::take(&mut self.naked) {
                    if self.link.as_mut().is_some_and(|link| link.resume(urb.endpoint, urb.seqnum)) {
                        self.control(urb);
                    }
                }
            }
            Action::Leave => self.leave_and_return(),
            Action::Return => self.attach()?,
        }
        Ok(())
    }

    /// Handles the consequences of a transfer or a timer.
    fn settle(&mut self) {
        for (delay, transition) in std::mem::take(&mut self.modem.transitions) {
            self.timers.after(delay, Action::Transition(transition));
        }
        if std::mem::take(&mut self.modem.mode_changed) {
            let indications = self.functions.iter().flat_map(|(interface, function)| match function {
                Function::Wdm(wdm) => {
                    wdm.mode_changed(&self.modem).into_iter().map(|data| (*interface, data)).collect()
                }
                _ => Vec::new(),
            });
            for (interface, data) in indications.collect::<Vec<_>>() {
                self.respond(interface, data);
            }
        }
    }

    // On and off the bus.

    fn power_on(&mut self) {
        self.take_up_value();
        self.modem.power_cycle();
        if self.unlocked {
            self.modem.unlocked_from_the_start();
        }
    }

    fn attach(&mut self) -> io::Result<()> {
        if self.link.is_some() {
            return Ok(());
        }
        self.active = self.form_on_the_bus();
        self.attaches += 1;
        self.configuration = 0;
        self.chosen = None;
        self.unconfigured = None;
        self.functions.clear();
        self.naked.clear();
        self.accepts = None;
        let (vendor, product) = self.active.id();
        self.modem.transcript.event("plug", &format!("{vendor:04x}:{product:04x}"));
        let (attach, events) = (self.attaches, self.events.clone());
        let (port, link) = vhci::plug(self.port, move |command| {
            let event = command.map_or(Event::Detached(attach), |command| Event::Usb(attach, command));
            events.send(event).is_ok()
        })?;
        self.port = Some(port);
        self.link = Some(link);
        Ok(())
    }

    fn form_on_the_bus(&self) -> Form {
        let mut form = self.forms[self.form].clone();
        let faults = &self.modem.faults;
        if form.installs() && faults.has("iface9") {
            form.configurations = vec![Configuration::new(1).storage(9)];
        }
        for configuration in &mut form.configurations {
            if faults.number("remote-wakeup") == Some(0) {
                configuration.bytes[7] &= !0x20;
            }
            if let Some(size) = self.max_control_message {
                configuration.set_max_control_message(size);
            }
        }
        form
    }

    fn leave(&mut self) {
        if let Some(link) = self.link.take() {
            link.unplug();
            self.modem.transcript.event("unplug", "");
        }
        self.timers.clear();
        self.functions.clear();
        self.configuration = 0;
    }

    fn leave_and_return(&mut self) {
        self.leave();
        if !self.modem.faults.has("never-back") {
            self.timers.after(self.modem.faults.millis("return-delay", 100), Action::Return);
        }
    }

    /// Takes the form of its family's value, from the next attach on.
    fn take_up_value(&mut self) {
        let Some((family, value)) = self.modem.family else { return };
        let (Some(form), Some(next)) = (self.forms.last_mut(), family.form(value)) else { return };
        form.set_id(next.id);
        form.configurations = vec![(next.build)(Configuration::new(1))];
    }

    /// A reset of the modem itself: the modem takes a new composition, locks its radio, leaves the bus and returns.
    fn reset(&mut self) {
        self.modem.transcript.event("reset", "");
        self.take_up_value();
        let Some(form) = self.forms.last_mut() else { return };
        let next = &mut self.modem.next_composition;
        if let Some(product) = self.modem.next_product.take() {
            let (vendor, _) = form.id();
            form.set_id((vendor, product));
            self.modem.product = product;
            // The product ID selects one of the two families of compositions.
            if product == DIRECT_IP {
                *next = Some(Composition::numbered(1));
            } else if next.as_ref().is_some_and(Composition::is_serial) {
                *next = Some(Composition::numbered(6));
            }
        }
        match next {
            None => {}
            Some(next) if next.is_serial() => form.configurations = direct_ip(),
            Some(next) => form.configurations = next.configurations(self.dialect),
        }
        if self.modem.faults.has("loses-at-port") {
            form.configurations = vec![Configuration::new(1).mbim(0)];
        }
        form.device[17] = form.configurations.len() as u8;
        self.modem.reset();
        if self.unlocked {
            self.modem.unlocked_from_the_start();
        }
        self.leave_and_return();
    }

    // Transfers.

    fn command(&mut self, command: Command) {
        match command {
            Command::Unlink { seqnum, victim } => self.on_link(|link| link.unlink(seqnum, victim)),
            Command::Submit(urb) if urb.endpoint & 0x0f == 0 => self.control(urb),
            Command::Submit(urb) if self.link.as_ref().is_some_and(|link| link.is_halted(urb.endpoint)) => {
                self.on_link(|link| link.stall(urb.seqnum));
            }
            Command::Submit(urb) if urb.endpoint & INPUT != 0 => {
                if let Some(Function::Reports) = self.function_at(urb.endpoint) {
                    self.on_link(|link| link.queue(urb.endpoint, vec![0; 8]));
                }
                self.on_link(|link| link.wait(urb.endpoint, urb.seqnum, urb.length));
                self.pump(urb.endpoint);
            }
            Command::Submit(urb) => self.output(urb),
        }
    }

    fn on_link(&mut self, act: impl FnOnce(&mut Link)) {
        if let Some(link) = &mut self.link {
            act(link);
        }
    }

    /// Counts a transfer that is not a standard request.
    fn fate(&mut self) -> Fate {
        self.transfers += 1;
        if self.modem.faults.number("gone-after") == Some(self.transfers) {
            self.modem.transcript.event("fault", &format!("gone-after={}", self.transfers));
            return Fate::Last;
        }
        if self.modem.faults.number("stall") == Some(self.transfers) {
            self.modem.transcript.event("fault", &format!("stall={}", self.transfers));
            return Fate::Stalled;
        }
        Fate::Good
    }

    /// Completes the URBs of an IN endpoint for which there is data.
    fn pump(&mut self, endpoint: u8) {
        while let Some((seqnum, data)) = self.link.as_mut().and_then(|link| link.ready(endpoint)) {
            let fate = self.fate();
            if fate == Fate::Stalled {
                self.on_link(|link| link.stall(seqnum));
                self.on_link(|link| link.halt(endpoint));
                return;
            }
            self.modem.transcript.event(self.transfer_kind(endpoint, true), &format!("{endpoint:02x} {}", hex(&data)));
            self.on_link(|link| link.done(seqnum, data.len(), &data));
            if fate == Fate::Last {
                return self.leave();
            }
        }
    }

    fn transfer_kind(&self, endpoint: u8, input: bool) -> &'static str {
        let interrupt = self.current().is_some_and(|current| current.is_interrupt(endpoint));
        match (interrupt, input) {
            (true, true) => "intr-in",
            (true, false) => "intr-out",
            (false, true) => "bulk-in",
            (false, false) => "bulk-out",
        }
    }

    fn current(&self) -> Option<&Configuration> {
        self.active.configurations.iter().find(|c| c.value() == self.configuration)
    }

    fn function_at(&self, endpoint: u8) -> Option<&Function> {
        self.functions.get(&self.current()?.interface_of(endpoint)?)
    }

    /// Handles an OUT transfer on a bulk or interrupt endpoint.
    fn output(&mut self, urb: Submit) {
        let fate = self.fate();
        let kind = self.transfer_kind(urb.endpoint, false);
        let text = format!("{:02x} {}{}", urb.endpoint, hex(&urb.data), storage::name(&urb.data));
        self.modem.transcript.event(kind, &text);
        if fate == Fate::Stalled {
            self.on_link(|link| link.halt(urb.endpoint));
            return self.on_link(|link| link.stall(urb.seqnum));
        }
        let is_refused = match self.function_at(urb.endpoint) {
            Some(Function::At(_)) => self.modem.faults.has("takes-nothing"),
            Some(Function::Storage(_)) => storage::is_eject(&urb.data) && self.modem.faults.take("eject-naks"),
            _ => false,
        };
        if is_refused {
            return self.on_link(|link| link.wait(urb.endpoint, urb.seqnum, 0));
        }
        self.on_link(|link| link.done(urb.seqnum, urb.data.len(), &[]));
        if fate == Fate::Last {
            return self.leave();
        }
        let seen = if kind == "bulk-out" { Seen::Bulk(&urb.data) } else { Seen::Interrupt(&urb.data) };
        // A command that makes the modem leave also gets a CSW, if the host reads it in time.
        let switched = self.watch(seen);
        let Some(interface) = self.current().and_then(|current| current.interface_of(urb.endpoint)) else { return };
        let back = self.current().and_then(|current| current.endpoint(interface, Transfer::BulkIn));
        let (Some(function), Some(back)) = (self.functions.get_mut(&interface), back) else { return };
        match switched {
            Some(Answer::Stall) => return self.on_link(|link| link.halt(back)),
            Some(Answer::Never) => return,
            _ => {}
        }
        match function {
            Function::Storage(storage) => match storage.receive(&urb.data, &self.modem.faults) {
                Reply::Nothing => {}
                Reply::Packets(packets) => {
                    for packet in packets {
                        self.on_link(|link| link.queue(back, packet));
                    }
                }
                Reply::Stall => self.on_link(|link| link.halt(back)),
            },
            Function::At(at) => {
                let (delay, replies) = at.replies(&mut self.modem, &urb.data);
                for reply in replies {
                    self.timers.after(delay, Action::Output(back, reply));
                }
            }
            Function::Wdm(_) | Function::Network(_) | Function::Reports | Function::Silent => {}
        }
        self.pump(back);
    }

    /// Follows the traffic that makes this form leave. Returns how the transfer ends if it is part of that traffic.
    fn watch(&mut self, seen: Seen) -> Option<Answer> {
        let (stage, place) = self.progress;
        let expected = self.active.switch.get(stage)?;
        let first_again = || expected.first().is_some_and(|first| first.matches(seen));
        if expected.get(place)?.matches(seen) {
            self.progress.1 += 1;
        } else if first_again() {
            // The host starts again.
            self.progress.1 = 1;
        } else {
            return None;
        }
        if self.progress.1 < expected.len() {
            return Some(Answer::Done);
        }
        self.progress.1 = 0;
        Some(self.switch())
    }

    /// Handles the last transfer of the switch.
    fn switch(&mut self) -> Answer {
        let faults = &mut self.modem.faults;
        let (answer, leaves) = if faults.has("timeout-switch") {
            (Answer::Never, false)
        } else if faults.has("ignore-switch") {
            (Answer::Done, false)
        } else if faults.has("stall-switch-stays") {
            (Answer::Stall, false)
        } else if faults.has("stall-switch-leaves") {
            (Answer::Stall, true)
        } else {
            (Answer::Done, true)
        };
        if !leaves {
            self.modem.transcript.event("switch", "stays");
            return answer;
        }
        let last_stage = self.progress.0 + 1 == self.active.switch.len();
        if !last_stage {
            self.progress.0 += 1;
            self.modem.transcript.event("switch", "comes back for more");
        } else if self.modem.faults.number("back-in-install").is_some() && self.modem.faults.take("back-in-install") {
            self.progress.0 = 0;
            self.modem.transcript.event("switch", "comes back in install mode");
        } else {
            self.progress.0 = 0;
            self.form = (self.form + 1).min(self.forms.len() - 1);
            self.modem.transcript.event("switch", "leaves");
            self.power_on();
        }
        self.timers.after(self.modem.faults.millis("leave-delay", 10), Action::Leave);
        answer
    }
}

const DIRECT_IP: u16 = 0x68a3;
