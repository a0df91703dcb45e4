//! The modem behind all its ports: operating mode, FCC lock, client ids, composition.

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

/// What it takes to unlock the radio.
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
    /// 0x5571 with the salted MD5, on this service of Foxconn and with this magic string.
    Fox { service: u8, magic: &'static str },
    /// AT+GTFCCLOCKGEN and AT+GTFCCLOCKVER.
    Gtfcclock { order: Order, number: Number },
    /// A challenge in the MBIM service Intel Mutual Authentication.
    Intel,
    /// A challenge by the RPC of an XMM7360.
    Xmm,
}

/// What a port asks of the whole device, to be done later.
#[derive(Debug, PartialEq)]
pub enum Wish {
    Online,
    Reset,
}

/// What the modem says of itself.
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
    /// The challenge that was asked last, until it is answered, and how many were asked.
    pub challenge: Option<u32>,
    pub challenges: usize,
    pub mode: u8,
    /// Sierra's USB composition after the next reset.
    pub next_composition: Option<Composition>,
    /// The family of its AT commands, and its value after the next reset.
    pub family: Option<(&'static Family, &'static str)>,
    /// QMI error for going online while locked.
    pub online_error: u16,
    pub product: u16,
    /// Product id after the next reset, AT!UDPID.
    pub next_product: Option<u16>,
    pub clients: Clients,
    pub faults: Faults,
    pub transcript: Transcript,
    pub wishes: Vec<(Duration, Wish)>,
    /// Unlocks that were accepted, and those that were refused.
    pub unlocks: (u32, u32),
    /// The mode has changed since the ports were told.
    pub mode_changed: bool,
    /// What measures the times of its faults.
    pub clock: Clock,
    pub plugged: Instant,
    /// Requests of all ports since the plug.
    pub replies: u64,
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
            wishes: Vec::new(),
            unlocks: (0, 0),
            mode_changed: false,
            clock: Instant::now,
            plugged: Instant::now(),
            replies: 0,
        }
    }

    pub fn unlocked_from_the_start(&mut self) {
        self.locked = false;
        self.mode = ONLINE;
    }

    /// A reset: an unlock that waits for one outlasts it.
    pub fn reset(&mut self) {
        let unlocked = self.faults.has("reset-needed") && !self.locked;
        self.power_cycle();
        if unlocked {
            self.unlocked_from_the_start();
        }
    }

    /// No configuration any more: a reset for an unlock that waits for one.
    pub fn unconfigured(&mut self) {
        if self.faults.has("reset-needed") && !self.locked {
            self.set_mode(ONLINE);
        }
    }

    /// Whether the reply that is due now is one that faults of replies are for.
    pub fn reply_is_hit(&self) -> bool {
        self.faults.number("at-reply").is_none_or(|which| which == self.replies)
    }

    /// Power was off: the lock and the clients' ids do not outlast that.
    pub fn power_cycle(&mut self) {
        self.locked = self.lock != Lock::Free;
        self.mode = if self.locked { LOW_POWER } else { ONLINE };
        self.challenge = None;
        self.clients = Clients::default();
        self.wishes.clear();
        self.plugged = (self.clock)();
        self.replies = 0;
    }

    /// Whether it does not answer now.
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

    /// Mode as the modem reports it: with the hardware switch off it is never online.
    pub fn reported_mode(&self) -> u8 {
        if self.hardware_switch_off() && self.mode == ONLINE { LOW_POWER } else { self.mode }
    }

    pub fn set_mode(&mut self, mode: u8) {
        if self.mode != mode {
            self.mode = mode;
            self.mode_changed = true;
            self.transcript.event("mode", mode_name(mode));
        }
    }

    /// The procedure was right: the lock goes, and the radio comes on by itself after a while.
    pub fn unlock(&mut self) {
        self.locked = false;
        self.unlocks.0 += 1;
        self.transcript.event("unlocked", "");
        if !self.faults.has("stays-low") && !self.faults.has("reset-needed") {
            self.wishes.push((self.faults.millis("auth-delay", 50), Wish::Online));
        }
    }

    pub fn refuse_unlock(&mut self, why: &str) {
        self.unlocks.1 += 1;
        self.transcript.event("refused", why);
    }

    pub fn relock(&mut self) {
        self.locked = true;
        self.set_mode(LOW_POWER);
    }

    // What the control socket asks of every modem, whatever its bus.

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
            _ => return Err(format!("no key of this name: {key}")),
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
            _ => return Err(format!("no key of this name: {key}")),
        }
        Ok(())
    }
}
