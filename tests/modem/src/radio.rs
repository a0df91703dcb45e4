//! The modem behind all ports: operating mode, FCC lock, client IDs, composition.

use std::time::{Duration, Instant};

use crate::challenge::{LENOVO, Number, Order};
use crate::composition::Composition;
use crate::family::Family;
use crate::faults::Faults;
use crate::models::Model;
use crate::qmi::Clients;
use crate::timers::Clock;
use crate::transcript::Transcript;

pub const ONLINE: u8 = 0;
pub const LOW_POWER: u8 = 1;

/// DMS operating modes.
pub fn mode_name(mode: u8) -> &'static str {
    match mode {
        ONLINE => "online",
        LOW_POWER => "low-power",
        2 => "factory-test",
        3 => "offline",
        4 => "reset",
        5 => "shutting-down",
        6 => "persistent-low-power",
        7 => "mode-only-low-power",
        _ => "unknown",
    }
}

/// The procedure that unlocks the radio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lock {
    /// Never locked.
    Free,
    /// QMI DMS 0x555F.
    Sierra,
    /// MBIM Quectel radio state.
    Quectel,
    /// QMI DMS 0x5571 with a byte.
    FoxconnV1,
    /// QMI DMS 0x5571 with the salted MD5.
    FoxconnV2,
    /// 0x5571 with the salted MD5, on this Foxconn service and with this magic string.
    Fox { service: u8, magic: &'static str },
    /// AT+GTFCCLOCKGEN and AT+GTFCCLOCKVER. An XMM7560 replies without names, and has AT+GTFCCLOCKSTATE instead of
    /// AT+GTFCCEFFSTATUS.
    Gtfcclock { order: Order, number: Number, is_xmm: bool },
    /// A challenge in the MBIM service Intel Mutual Authentication.
    Intel,
    /// A challenge over the RPC of an XMM7360.
    Xmm,
}

/// A request from a port to the whole device, to be carried out later.
#[derive(Debug, PartialEq)]
pub enum Transition {
    Online,
    Reset,
}

/// The identity that the modem reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub manufacturer: String,
    pub model: String,
    pub revision: String,
    pub imei: String,
}

pub struct Modem {
    pub identity: Identity,
    pub lock: Lock,
    pub locked: bool,
    /// The OEM string whose hash is the key to a challenge.
    pub oem_string: String,
    /// The last challenge, until there is a response, and the number of challenges so far.
    pub challenge: Option<u32>,
    pub challenges: usize,
    pub mode: u8,
    /// Sierra's USB composition after the next reset.
    pub next_composition: Option<Composition>,
    /// The family of its AT commands, and the value from the next reset on.
    pub family: Option<(&'static Family, &'static str)>,
    /// The QMI error of a request to go online while locked.
    pub online_error: u16,
    pub product: u16,
    /// The product ID after the next reset, from AT!UDPID.
    pub next_product: Option<u16>,
    pub clients: Clients,
    pub faults: Faults,
    pub transcript: Transcript,
    pub transitions: Vec<(Duration, Transition)>,
    /// The number of accepted unlocks, and of refused ones.
    pub unlocks: (u32, u32),
    /// Whether the unlock lets the modem go online. A later request for low power prevents that.
    pub goes_online: bool,
    /// Whether the mode has changed since the ports were notified.
    pub mode_changed: bool,
    /// The clock for the times of faults.
    pub clock: Clock,
    pub plugged: Instant,
    /// The number of requests on all ports since the plug.
    pub replies: u64,
    /// The names of all requests. A QMI message in MBIM has the name of the QMI message.
    pub seen: Vec<String>,
    /// Replies to AT commands that go before those of the model: lines, or an error.
    pub answers: Vec<(String, String)>,
    /// Whether the faults of replies apply to the current reply.
    is_hit: bool,
}

impl Modem {
    pub fn of(model: &Model) -> Modem {
        let locked = model.lock != Lock::Free;
        Modem {
            identity: model.identity.clone(),
            lock: model.lock,
            locked,
            oem_string: LENOVO.to_owned(),
            challenge: None,
            challenges: 0,
            mode: if locked { LOW_POWER } else { ONLINE },
            next_composition: model.composition.clone(),
            family: model.family,
            online_error: model.online_error,
            product: model.forms.last().map_or(0, |form| form.id().1),
            next_product: None,
            clients: Clients::default(),
            faults: Faults::default(),
            transcript: Transcript::none(),
            transitions: Vec::new(),
            unlocks: (0, 0),
            goes_online: false,
            mode_changed: false,
            clock: Instant::now,
            plugged: Instant::now(),
            replies: 0,
            seen: Vec::new(),
            answers: Vec::new(),
            is_hit: true,
        }
    }

    pub fn unlocked_from_the_start(&mut self) {
        self.locked = false;
        self.mode = ONLINE;
    }

    /// Resets the modem. With the fault `reset-needed`, an accepted unlock takes effect.
    pub fn reset(&mut self) {
        let unlocked = self.faults.has("reset-needed") && !self.locked;
        self.power_cycle();
        if unlocked {
            self.unlocked_from_the_start();
        }
    }

    /// The modem is now unconfigured. With the fault `reset-needed`, an accepted unlock takes effect.
    pub fn unconfigured(&mut self) {
        if self.faults.has("reset-needed") && !self.locked {
            self.set_mode(ONLINE);
        }
    }

    /// Records a request, and selects the faults of replies for it.
    pub(crate) fn hears(&mut self, name: &str) {
        self.replies += 1;
        let (faults, number) = (&self.faults, self.replies);
        let is_counted = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().unwrap_or(0)..=last.parse().unwrap_or(u64::MAX)).contains(&number)
        };
        let is_named = |names: &str| names.split('|').any(|part| name.contains(part));
        self.is_hit = faults.text("at-reply").is_none_or(is_counted) && faults.text("at-message").is_none_or(is_named);
        self.seen.push(name.to_owned());
    }

    /// Whether the faults of replies apply to the current reply.
    pub fn reply_is_hit(&self) -> bool {
        self.is_hit
    }

    /// Whether this fault of replies applies to the current reply.
    pub(crate) fn is_hit_by(&self, fault: &str) -> bool {
        self.is_hit && self.faults.has(fault)
    }

    /// Whether the modem is busy for the current request.
    pub(crate) fn is_busy(&mut self) -> bool {
        self.is_hit && self.faults.take("busy")
    }

    /// Whether the reply to the current request is lost.
    pub(crate) fn loses_reply(&mut self) -> bool {
        self.is_hit && self.faults.take("lost")
    }

    /// The power was off, which resets the lock and the client IDs.
    pub fn power_cycle(&mut self) {
        self.locked = self.lock != Lock::Free;
        self.mode = if self.locked { LOW_POWER } else { ONLINE };
        self.challenge = None;
        self.clients = Clients::default();
        self.transitions.clear();
        self.plugged = (self.clock)();
        self.replies = 0;
    }

    /// Whether the modem does not reply now.
    pub fn is_mute(&self) -> bool {
        let starting =
            self.faults.number("mute-for").is_some_and(|ms| (self.clock)() - self.plugged < Duration::from_millis(ms));
        self.faults.has("mute") && self.reply_is_hit() || starting
    }

    pub fn hardware_switch_off(&self) -> bool {
        self.faults.has("hw-switch-off")
    }

    pub fn radio_on(&self) -> bool {
        self.mode == ONLINE && !self.hardware_switch_off()
    }

    /// The mode that the modem reports. It is never online while the hardware switch is off.
    pub fn reported_mode(&self) -> u8 {
        if self.hardware_switch_off() && self.mode == ONLINE { LOW_POWER } else { self.mode }
    }

    pub fn set_mode(&mut self, mode: u8) {
        self.goes_online &= mode != LOW_POWER;
        if self.mode != mode {
            self.mode = mode;
            self.mode_changed = true;
            self.transcript.event("mode", mode_name(mode));
        }
    }

    /// The unlock is correct: the lock opens, and the radio goes online after a delay.
    pub fn unlock(&mut self) {
        self.locked = self.faults.has("stays-locked");
        self.unlocks.0 += 1;
        self.transcript.event("unlocked", "");
        if !self.faults.has("stays-low") && !self.faults.has("reset-needed") {
            self.goes_online = true;
            self.transitions.push((self.faults.millis("auth-delay", 50), Transition::Online));
        }
    }

    /// Goes online some time after the unlock.
    pub fn come_online(&mut self) {
        if self.goes_online && !self.hardware_switch_off() && !self.locked {
            self.set_mode(ONLINE);
        }
    }

    /// The state that the lock reports, instead of `state` with a fault.
    pub(crate) fn lock_state(&self, state: u32) -> u32 {
        self.faults.number("lock-state").map_or(state, |state| state as u32)
    }

    /// The mode that a lock with a challenge reports: 0 if it is unlocked for good.
    pub(crate) fn lock_mode(&self) -> u32 {
        let mode = u32::from(!self.faults.has("unlocked-for-good"));
        self.faults.number("lock-mode").map_or(mode, |mode| mode as u32)
    }

    pub fn refuse_unlock(&mut self, why: &str) {
        self.unlocks.1 += 1;
        self.transcript.event("refused", why);
    }

    pub fn relock(&mut self) {
        self.locked = true;
        self.set_mode(LOW_POWER);
    }

    // Commands of the control socket for modems on any bus.

    pub fn control_line(&mut self, verb: &str, rest: &str) -> Result<String, String> {
        match verb {
            "relock" => self.relock(),
            "fault" => {
                self.faults.set(rest)?;
                self.transcript.event("fault", rest);
            }
            "clear" if rest.is_empty() => self.faults.clear(),
            "clear" => self.faults.clear_one(rest),
            _ => return Err(format!("unknown command: {verb}")),
        }
        Ok("ok".into())
    }

    pub fn get(&self, key: &str) -> Result<String, String> {
        Ok(match key {
            "mode" => mode_name(self.reported_mode()).into(),
            "locked" => self.locked.to_string(),
            "radio" => if self.radio_on() { "on" } else { "off" }.into(),
            "cids" => self.clients.count().to_string(),
            "unlocks" => self.unlocks.0.to_string(),
            "refused" => self.unlocks.1.to_string(),
            "faults" => self.faults.names(),
            "imei" => self.identity.imei.clone(),
            "composition" => match (&self.next_composition, self.family) {
                (Some(composition), _) => composition.to_string(),
                (None, Some((_, value))) => value.into(),
                (None, None) => "none".into(),
            },
            _ => return Err(format!("unknown key: {key}")),
        })
    }

    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "mode" => {
                let mode = (0..=7).find(|mode| mode_name(*mode) == value).ok_or("unknown mode")?;
                self.set_mode(mode);
            }
            "locked" => {
                self.locked = value == "true";
                if self.locked {
                    self.lock = if self.lock == Lock::Free { Lock::Sierra } else { self.lock };
                    self.set_mode(LOW_POWER);
                }
            }
            "imei" => self.identity.imei = value.into(),
            "oem-string" => self.oem_string = value.into(),
            _ => return Err(format!("unknown key: {key}")),
        }
        Ok(())
    }
}
