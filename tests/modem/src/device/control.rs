//! The control socket: what a test asks of a running modem.

use super::{Device, Function};
use crate::models::parse_id;
use crate::radio::{LOW_POWER, Lock, mode_name};
use crate::wdm::{Protocol, Wdm};

impl Device {
    pub(super) fn control_line(&mut self, line: &str) -> Result<String, String> {
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
            "composition" => modem.next_composition.as_ref().map_or("none".into(), ToString::to_string),
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
