//! The control socket: commands from a test to a running modem.

use super::{Device, Function};
use crate::models::parse_id;
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
            "get" => return self.get(rest),
            "set" => {
                let (key, value) = rest.split_once(' ').ok_or("set KEY VALUE")?;
                self.set(key, value)?;
            }
            _ => return self.modem.control_line(verb, rest),
        }
        Ok("ok".into())
    }

    fn get(&self, key: &str) -> Result<String, String> {
        let (vendor, product) = self.active.id();
        let open = self.functions.values().any(
            |function| matches!(function, Function::Wdm(Wdm { protocol: Protocol::Mbim(mbim), .. }) if mbim.is_open()),
        );
        Ok(match key {
            "identity" => format!("{vendor:04x}:{product:04x}"),
            "plugged" => self.link.is_some().to_string(),
            "port" => self.port.map_or("none".into(), |port| port.to_string()),
            "configuration" => self.configuration.to_string(),
            "configurations" => self.active.configurations.len().to_string(),
            "mbim-open" => open.to_string(),
            "transfers" => self.transfers.to_string(),
            "attaches" => self.attaches.to_string(),
            _ => return self.modem.get(key),
        })
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|_| format!("{value} is not a number"));
        match key {
            "unlocked" => self.unlocked = value == "true",
            "transfers" => self.transfers = number()?,
            "max-control-message" => self.max_control_message = Some(number()? as u16),
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
            _ => self.modem.set(key, value)?,
        }
        Ok(())
    }
}
