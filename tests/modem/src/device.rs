//! One software modem: its attaches to the bus, its endpoint 0, and the way from the endpoints to what is behind them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::at::{At, composition_text};
use crate::composition::Composition;
use crate::descriptors::{self, Configuration, INPUT, Role, Transfer};
use crate::host;
use crate::install::Seen;
use crate::link::Link;
use crate::mbim::Mbim;
use crate::models::{Dialect, Form, Model, direct_ip, parse_id};
use crate::radio::{LOW_POWER, Lock, Modem, ONLINE, Wish, mode_name};
use crate::storage::{self, Reply, Storage};
use crate::transcript::hex;
use crate::usbip::{self, Command, Submit};
use crate::wdm::{Protocol, Wdm};

/// What the modem's thread waits for.
pub enum Event {
    /// A command from the host controller, of the attach with this number.
    Usb(u64, Command),
    /// The host controller has let go of this attach.
    Detached(u64),
    /// A line of the control socket, and the client that gets the answer.
    Control(String, UnixStream),
}

/// What happens when its time has come.
enum Action {
    /// A GET_ENCAPSULATED_RESPONSE of this interface can be answered.
    Response(u8, Vec<u8>),
    /// This IN endpoint has something to say.
    Output(u8, Vec<u8>),
    Wish(Wish),
    Leave,
    Return,
}

/// How a control transfer ends.
enum Answer {
    Data(Vec<u8>),
    Done,
    Stall,
    Never,
}

/// What becomes of a counted transfer.
#[derive(PartialEq)]
enum Fate {
    Good,
    Stalled,
    /// It is good, and the last one.
    Last,
}

enum Function {
    Storage(Storage),
    Wdm(Wdm),
    At(At),
    /// Has an empty report for everybody who asks.
    Reports,
    Silent,
}

pub struct Device {
    modem: Modem,
    dialect: Dialect,
    /// The forms that the modem takes in turn, and the one that it has now.
    forms: Vec<Form>,
    form: usize,
    /// The form as it is on the bus, faults included.
    active: Form,
    /// Where in `active.switch` the host has got: stage, and place in it.
    progress: (usize, usize),
    unlocked: bool,
    port: Option<u32>,
    events: Sender<Event>,
    link: Option<Link>,
    attaches: u64,
    configuration: u8,
    /// The first configuration that the host chose after the attach.
    chosen: Option<u8>,
    alternates: BTreeMap<u8, u8>,
    functions: BTreeMap<u8, Function>,
    timers: BTreeMap<(Instant, u64), Action>,
    timer: u64,
    /// Transfers since the first plug, without standard requests.
    transfers: u64,
    max_control_message: Option<u16>,
}

impl Device {
    pub fn new(model: Model, modem: Modem, unlocked: bool, port: Option<u32>, events: Sender<Event>) -> Device {
        Device {
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
            alternates: BTreeMap::new(),
            functions: BTreeMap::new(),
            timers: BTreeMap::new(),
            timer: 0,
            transfers: 0,
            max_control_message: None,
        }
    }

    pub fn set_max_control_message(&mut self, size: u16) {
        self.max_control_message = Some(size);
    }

    /// Plugs in, and serves until somebody says `quit`.
    pub fn run(&mut self, events: &Receiver<Event>) -> io::Result<()> {
        self.power_on();
        self.attach()?;
        loop {
            let event = match self.timers.first_key_value() {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(((due, _), _)) => events.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Usb(attach, command)) if attach == self.attaches => self.command(command),
                Ok(Event::Detached(attach)) if attach == self.attaches && self.link.is_some() => self.leave(),
                Ok(Event::Usb(..) | Event::Detached(_)) => {}
                Ok(Event::Control(line, mut client)) => {
                    let quit = line == "quit";
                    let answer = self.control_line(&line).unwrap_or_else(|error| format!("error: {error}"));
                    // A client that has gone does not want it.
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

    fn after(&mut self, delay: Duration, action: Action) {
        self.timer += 1;
        self.timers.insert((Instant::now() + delay, self.timer), action);
    }

    fn timer_due(&mut self) -> io::Result<()> {
        let due = self.timers.first_key_value().is_some_and(|((due, _), _)| *due <= Instant::now());
        let Some((_, action)) = due.then(|| self.timers.pop_first()).flatten() else { return Ok(()) };
        match action {
            Action::Response(interface, data) => self.respond(interface, data),
            Action::Output(endpoint, data) => {
                self.on_link(|link| link.queue(endpoint, data));
                self.pump(endpoint);
            }
            Action::Wish(Wish::Online) => {
                if !self.modem.hardware_switch_off() && !self.modem.locked {
                    self.modem.set_mode(ONLINE);
                }
            }
            Action::Wish(Wish::Reset) => self.reset(),
            Action::Leave => self.leave_and_return(),
            Action::Return => self.attach()?,
        }
        Ok(())
    }

    /// Does what a transfer or a timer has brought about.
    fn settle(&mut self) {
        for (delay, wish) in std::mem::take(&mut self.modem.wishes) {
            self.after(delay, Action::Wish(wish));
        }
        if std::mem::take(&mut self.modem.mode_changed) {
            let told = self.functions.iter().flat_map(|(interface, function)| match function {
                Function::Wdm(wdm) => {
                    wdm.mode_changed(&self.modem).into_iter().map(|data| (*interface, data)).collect()
                }
                _ => Vec::new(),
            });
            for (interface, data) in told.collect::<Vec<_>>() {
                self.respond(interface, data);
            }
        }
    }

    // On and off the bus.

    fn power_on(&mut self) {
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
        self.functions.clear();
        let (vendor, product) = self.active.id();
        self.modem.transcript.event("plug", &format!("{vendor:04x}:{product:04x}"));
        let (port, stream) = host::attach(self.port)?;
        self.port = Some(port);
        let (mut wire, attach, events) = (stream.try_clone()?, self.attaches, self.events.clone());
        std::thread::spawn(move || {
            while let Ok(command) = usbip::read(&mut wire) {
                if events.send(Event::Usb(attach, command)).is_err() {
                    return;
                }
            }
            let _ = events.send(Event::Detached(attach));
        });
        self.link = Some(Link::new(stream));
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
            self.after(self.modem.faults.millis("return-delay", 100), Action::Return);
        }
    }

    /// A reset of the modem itself: new composition, new lock, off the bus and back.
    fn reset(&mut self) {
        self.modem.transcript.event("reset", "");
        let Some(form) = self.forms.last_mut() else { return };
        if let Some(product) = self.modem.next_product.take() {
            let (vendor, _) = form.id();
            form.set_id((vendor, product));
            self.modem.product = product;
            if product == DIRECT_IP {
                self.modem.next_composition = Composition::numbered(1);
            } else if self.modem.next_composition.number == 1 {
                self.modem.next_composition = Composition::numbered(6);
            }
        }
        match self.modem.next_composition.number {
            0 => {}
            1 => form.configurations = direct_ip(),
            _ => form.configurations = self.modem.next_composition.configurations(),
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

    /// Counts a transfer that is no standard request.
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

    /// Completes what can be completed on an IN endpoint.
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

    /// An OUT transfer on a bulk or interrupt endpoint.
    fn output(&mut self, urb: Submit) {
        let fate = self.fate();
        let kind = self.transfer_kind(urb.endpoint, false);
        let text = format!("{:02x} {}{}", urb.endpoint, hex(&urb.data), storage::name(&urb.data));
        self.modem.transcript.event(kind, &text);
        if fate == Fate::Stalled {
            self.on_link(|link| link.halt(urb.endpoint));
            return self.on_link(|link| link.stall(urb.seqnum));
        }
        self.on_link(|link| link.done(urb.seqnum, urb.data.len(), &[]));
        if fate == Fate::Last {
            return self.leave();
        }
        let seen = if kind == "bulk-out" { Seen::Bulk(&urb.data) } else { Seen::Interrupt(&urb.data) };
        // A command that makes it leave gets its CSW like any other, if the host is quick enough.
        let _ = self.watch(seen);
        let Some(interface) = self.current().and_then(|current| current.interface_of(urb.endpoint)) else { return };
        let back = self.current().and_then(|current| current.endpoint(interface, Transfer::BulkIn));
        let (Some(function), Some(back)) = (self.functions.get_mut(&interface), back) else { return };
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
                let output = at.receive(&mut self.modem, &urb.data);
                let hit = self.modem.reply_is_hit();
                let delay = if hit { self.modem.faults.millis("late", 0) } else { Duration::ZERO };
                let size = self.modem.faults.number_or("split", 7).filter(|_| hit).unwrap_or(512);
                for chunk in output.chunks(size.max(1) as usize) {
                    self.after(delay, Action::Output(back, chunk.to_vec()));
                }
            }
            Function::Wdm(_) | Function::Reports | Function::Silent => {}
        }
        self.pump(back);
    }

    /// Follows the traffic that makes this form leave; `Some` is how the last piece of it ends.
    fn watch(&mut self, seen: Seen) -> Option<Answer> {
        let (stage, place) = self.progress;
        let expected = self.active.switch.get(stage)?;
        let first_again = || expected.first().is_some_and(|first| first.matches(seen));
        if expected.get(place)?.matches(seen) {
            self.progress.1 += 1;
        } else if first_again() {
            // The host begins anew.
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

    /// The last piece of the switch has come.
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
        self.after(self.modem.faults.millis("leave-delay", 10), Action::Leave);
        answer
    }

    // Endpoint 0.

    fn control(&mut self, urb: Submit) {
        let standard = urb.setup[0] & 0x60 == 0 && !matches!(urb.setup[1], 3 | 9 | 11) && urb.setup[..2] != [2, 1];
        let fate = if standard { Fate::Good } else { self.fate() };
        self.record(&urb, standard);
        if fate == Fate::Stalled {
            return self.on_link(|link| link.stall(urb.seqnum));
        }
        match self.answer(&urb) {
            Answer::Data(mut data) => {
                let asked = usize::from(u16::from_le_bytes([urb.setup[6], urb.setup[7]]));
                data.truncate(asked.min(urb.length));
                self.on_link(|link| link.done(urb.seqnum, data.len(), &data));
            }
            Answer::Done => {
                let sent = urb.data.len();
                self.on_link(|link| link.done(urb.seqnum, sent, &[]));
            }
            Answer::Stall => self.on_link(|link| link.stall(urb.seqnum)),
            Answer::Never => self.on_link(|link| link.wait(urb.endpoint, urb.seqnum, urb.length)),
        }
        if fate == Fate::Last {
            self.leave();
        }
    }

    fn record(&mut self, urb: &Submit, standard: bool) {
        let [request_type, request, low, _, index, ..] = urb.setup;
        match (request_type, request) {
            (0, 9) => self.modem.transcript.event("configured", &low.to_string()),
            (1, 11) => self.modem.transcript.event("interface", &format!("{index} {low}")),
            (2, 1) => self.modem.transcript.event("clear-halt", &format!("{index:02x}")),
            _ => {
                let kind = if standard { "std" } else { "control" };
                let data = if urb.data.is_empty() { String::new() } else { format!(" {}", hex(&urb.data)) };
                self.modem.transcript.event(kind, &format!("{}{data}", hex(&urb.setup)));
            }
        }
    }

    fn answer(&mut self, urb: &Submit) -> Answer {
        let [request_type, request, low, high, index, ..] = urb.setup;
        let switched = self.watch(Seen::Control(&urb.setup, &urb.data));
        match (request_type, request, switched) {
            (0, 9, None) => self.set_configuration(low),
            (1, 11, None) => {
                self.alternates.insert(index, low);
                Answer::Done
            }
            (_, _, Some(Answer::Done)) if request_type & INPUT != 0 => Answer::Data(vec![0; urb.length]),
            (_, _, Some(answer)) => answer,
            (0x80, 6, None) => self.descriptor(high, low),
            (0x80..=0x82, 0, None) => {
                let halted = request_type == 0x82 && self.link.as_ref().is_some_and(|link| link.is_halted(index));
                Answer::Data(vec![u8::from(halted), 0])
            }
            (0x80, 8, None) => Answer::Data(vec![self.configuration]),
            (0x81, 10, None) => Answer::Data(vec![self.alternates.get(&index).copied().unwrap_or(0)]),
            (2, 1, None) => {
                self.on_link(|link| link.clear_halt(index));
                self.pump(index);
                Answer::Done
            }
            (0, 1 | 3, None) => Answer::Done,
            (0xc0, 0x0a, None) if self.active.installs() => self.swoc_info(),
            (0x21 | 0xa1, _, None) => self.class_request(urb, index),
            // The sierra driver's power state, the qmi_wwan driver's and others' harmless vendor writes.
            (0x40, 0, None) if !self.active.installs() => Answer::Done,
            _ => Answer::Stall,
        }
    }

    fn descriptor(&self, kind: u8, index: u8) -> Answer {
        let lie = self.modem.faults.text("bad-descriptors").unwrap_or("");
        match kind {
            1 => {
                let mut device = self.active.device;
                device[17] = if lie == "configurations" { 8 } else { self.active.configurations.len() as u8 };
                Answer::Data(device.to_vec())
            }
            2 => match self.active.configurations.get(usize::from(index)) {
                Some(configuration) => Answer::Data(configuration.lying(lie)),
                None => Answer::Stall,
            },
            3 => self.string(index),
            _ => Answer::Stall,
        }
    }

    fn string(&self, index: u8) -> Answer {
        let text = match index {
            0 => return Answer::Data(vec![4, 3, 0x09, 0x04]),
            1..=3 => self.active.strings[usize::from(index) - 1].as_str(),
            4 => "Mass Storage",
            _ => return Answer::Stall,
        };
        match self.modem.faults.text("bad-strings") {
            Some("control") => Answer::Data(descriptors::string("\u{1b}[31m\n\t\u{7}../../etc \u{202e}%s$(reboot)")),
            Some("surrogate") => Answer::Data(vec![8, 3, 0x00, 0xd8, b'A', 0, 0x00, 0xdc]),
            Some("odd") => Answer::Data(vec![7, 3, b'A', 0, b'B', 0, b'C']),
            Some("empty") => Answer::Data(vec![2, 3]),
            Some("long") => Answer::Data(descriptors::string(&"W".repeat(126))),
            Some("stall") => Answer::Stall,
            _ => Answer::Data(descriptors::string(text)),
        }
    }

    fn set_configuration(&mut self, value: u8) -> Answer {
        let known = value == 0 || self.active.configurations.iter().any(|c| c.value() == value);
        let other = value != 0 && self.chosen.is_some_and(|chosen| chosen != value);
        if !known || other && self.modem.faults.has("config-refuse") {
            return Answer::Stall;
        }
        self.configuration = value;
        if value != 0 {
            self.chosen.get_or_insert(value);
        }
        self.alternates.clear();
        self.on_link(Link::configured);
        self.functions = self.functions_of(value);
        if other && self.modem.faults.take("config-reenumerates") {
            self.after(Duration::from_millis(20), Action::Leave);
        }
        if other && self.modem.faults.has("config-sticky") {
            let form = &mut self.forms[self.form];
            form.configurations.retain(|c| c.value() == value);
            let _ = self.modem.faults.set("mute");
            self.after(Duration::from_millis(20), Action::Leave);
        }
        Answer::Done
    }

    fn functions_of(&self, value: u8) -> BTreeMap<u8, Function> {
        let Some(configuration) = self.active.configurations.iter().find(|c| c.value() == value) else {
            return BTreeMap::new();
        };
        let max = configuration.max_control_message().unwrap_or(descriptors::MAX_CONTROL_MESSAGE);
        let function = |role| match role {
            Role::Storage => Function::Storage(Storage::new(self.active.scsi.clone())),
            Role::Qmi => Function::Wdm(Wdm::new(Protocol::Qmi)),
            Role::Mbim => Function::Wdm(Wdm::new(Protocol::Mbim(Mbim::new(max)))),
            Role::At => Function::At(At::new(self.dialect)),
            Role::Reports => Function::Reports,
            Role::Silent => Function::Silent,
        };
        configuration.roles.iter().map(|(number, role)| (*number, function(*role))).collect()
    }

    fn swoc_info(&self) -> Answer {
        let faults = &self.modem.faults;
        if faults.has("stall-swoc") {
            return Answer::Stall;
        }
        let sku = faults.text("sku").and_then(|sku| u16::from_str_radix(sku, 16).ok()).unwrap_or(0x2100);
        let mut info = vec![0; if faults.has("short-swoc") { 16 } else { 60 }];
        info[0] = 1;
        info[9..11].copy_from_slice(&sku.to_le_bytes());
        info[11..13].copy_from_slice(&0x0001u16.to_le_bytes());
        Answer::Data(info)
    }

    fn class_request(&mut self, urb: &Submit, interface: u8) -> Answer {
        let [request_type, request, low, ..] = urb.setup;
        match (request_type, request, self.functions.get_mut(&interface)) {
            // SEND_ENCAPSULATED_COMMAND, GET_ENCAPSULATED_RESPONSE
            (0x21, 0x00, Some(Function::Wdm(wdm))) => {
                let (delay, reads) = wdm.receive(&mut self.modem, &urb.data);
                for data in reads {
                    self.after(delay, Action::Response(interface, data));
                }
                Answer::Done
            }
            (0xa1, 0x01, Some(Function::Wdm(wdm))) => Answer::Data(wdm.responses.pop_front().unwrap_or_default()),
            // SET_CONTROL_LINE_STATE
            (0x21, 0x22, Some(Function::Wdm(wdm))) => {
                wdm.dtr = low & 1 != 0;
                Answer::Done
            }
            // Line state and coding of a serial port, break.
            (0x21, 0x20 | 0x22 | 0x23, Some(Function::At(_) | Function::Silent)) => Answer::Done,
            (0xa1, 0x21, _) => Answer::Data(vec![0x00, 0xc2, 0x01, 0x00, 0, 0, 8]),
            // GET_MAX_LUN, BULK_ONLY_RESET
            (0xa1, 0xfe, Some(Function::Storage(_))) => Answer::Data(vec![0]),
            (0x21, 0xff, Some(Function::Storage(storage))) => {
                *storage = Storage::new(self.active.scsi.clone());
                Answer::Done
            }
            // GET_NTB_PARAMETERS, and what else the NCM part of cdc_mbim reads and sets.
            (0xa1, 0x80, Some(Function::Wdm(_))) => Answer::Data(NTB_PARAMETERS.to_vec()),
            (0xa1, 0x83 | 0x87, Some(Function::Wdm(_))) => Answer::Data(vec![0, 0]),
            (0xa1, 0x85, Some(Function::Wdm(_))) => Answer::Data(16384u32.to_le_bytes().to_vec()),
            (0x21, 0x84 | 0x86 | 0x88 | 0x8a, Some(Function::Wdm(_))) => Answer::Done,
            // RESET_FUNCTION
            (0x21, 0x05, Some(Function::Wdm(_))) => Answer::Done,
            _ => Answer::Stall,
        }
    }

    /// Makes a response readable and tells the host so.
    fn respond(&mut self, interface: u8, data: Vec<u8>) {
        let Some(Function::Wdm(wdm)) = self.functions.get_mut(&interface) else { return };
        wdm.responses.push_back(data);
        let notify = self.current().and_then(|current| current.endpoint(interface, Transfer::InterruptIn));
        let Some(endpoint) = notify else { return };
        // RESPONSE_AVAILABLE
        self.on_link(|link| link.queue(endpoint, vec![0xa1, 0x01, 0, 0, interface, 0, 0, 0]));
        self.pump(endpoint);
    }

    // The control socket.

    fn control_line(&mut self, line: &str) -> Result<String, String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match verb {
            "quit" => {}
            "unplug" => {
                self.leave();
                self.form = 0;
                self.progress = (0, 0);
            }
            "plug" => {
                self.power_on();
                self.attach().map_err(|error| error.to_string())?;
            }
            "reset" => self.reset(),
            "relock" => self.modem.relock(),
            "fault" => {
                self.modem.faults.set(rest)?;
                self.modem.transcript.event("fault", rest);
            }
            "clear" if rest.is_empty() => self.modem.faults.clear(),
            "clear" => self.modem.faults.clear_one(rest),
            "get" => return self.get(rest),
            "set" => {
                let (key, value) = rest.split_once(' ').ok_or("set KEY VALUE")?;
                self.set(key, value)?;
            }
            _ => return Err(format!("unknown command: {verb}")),
        }
        Ok("ok".into())
    }

    fn get(&self, key: &str) -> Result<String, String> {
        let modem = &self.modem;
        let (vendor, product) = self.active.id();
        let open = self.functions.values().any(
            |function| matches!(function, Function::Wdm(Wdm { protocol: Protocol::Mbim(mbim), .. }) if mbim.is_open()),
        );
        Ok(match key {
            "mode" => mode_name(modem.reported_mode()).into(),
            "locked" => modem.locked.to_string(),
            "radio" => if modem.radio_on() { "on" } else { "off" }.into(),
            "identity" => format!("{vendor:04x}:{product:04x}"),
            "plugged" => self.link.is_some().to_string(),
            "port" => self.port.map_or("none".into(), |port| port.to_string()),
            "configuration" => self.configuration.to_string(),
            "configurations" => self.active.configurations.len().to_string(),
            "cids" => modem.clients.count().to_string(),
            "mbim-open" => open.to_string(),
            "composition" => composition_text(&modem.next_composition),
            "transfers" => self.transfers.to_string(),
            "attaches" => self.attaches.to_string(),
            "unlocks" => modem.unlocks.0.to_string(),
            "refused" => modem.unlocks.1.to_string(),
            "faults" => modem.faults.names(),
            "imei" => modem.identity.imei.clone(),
            _ => return Err(format!("no key of this name: {key}")),
        })
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|_| format!("{value} is no number"));
        match key {
            "mode" => {
                let mode = (0..=7).find(|mode| mode_name(*mode) == value).ok_or("unknown mode")?;
                self.modem.set_mode(mode);
            }
            "locked" => {
                self.modem.locked = value == "true";
                if self.modem.locked {
                    self.modem.lock = if self.modem.lock == Lock::Free { Lock::Sierra } else { self.modem.lock };
                    self.modem.set_mode(LOW_POWER);
                }
            }
            "unlocked" => self.unlocked = value == "true",
            "transfers" => self.transfers = number()?,
            "max-control-message" => self.max_control_message = Some(number()? as u16),
            "imei" => self.modem.identity.imei = value.into(),
            "manufacturer" | "product" | "serial" => {
                let index = ["manufacturer", "product", "serial"].iter().position(|name| *name == key).unwrap_or(0);
                for form in &mut self.forms {
                    form.strings[index] = value.into();
                }
            }
            "id" => {
                let id = parse_id(value).ok_or("VID:PID")?;
                self.forms[self.form].set_id(id);
            }
            _ => return Err(format!("no key of this name: {key}")),
        }
        Ok(())
    }
}

const DIRECT_IP: u16 = 0x68a3;

/// NTBs of 16 KiB both ways, 16-bit format, no alignment wishes.
const NTB_PARAMETERS: [u8; 28] =
    [28, 0, 1, 0, 0, 0x40, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0, 0x40, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0];
