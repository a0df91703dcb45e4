//! The faults that a modem can have: `NAME` or `NAME=VALUE`, set at the start or while the modem runs.

use std::collections::BTreeMap;

/// All faults: the name and the effect. A word in capitals stands for a value.
pub const FAULTS: &[(&str, &str)] = &[
    // Replies on QMI, MBIM and AT ports.
    ("mute", "no reply to anything"),
    ("mute-for=MS", "no reply in the first MS milliseconds after the plug"),
    (
        "naks=SECONDS",
        "QMI and MBIM requests, and an open of an AT port, get NAK for this time after the first one, or forever without a number",
    ),
    ("write-error=N", "the next N QMI or MBIM requests fail: poll reports POLLERR without POLLIN until the next write"),
    ("read-error=N", "the next N reads of a QMI or MBIM response fail: POLLERR without POLLIN until the next read"),
    ("takes-nothing", "data for an AT port gets NAK"),
    ("lost=N", "the next N requests are obeyed, but get no reply"),
    ("late=MS", "every reply is MS milliseconds late"),
    ("busy=N", "the next N requests get the reply DeviceNotReady (QMI), Busy (MBIM) or CME ERROR 14 (AT)"),
    ("refuse=ERROR", "the unlock fails with this QMI error or MBIM status"),
    ("cme=CODE", "a wrong response to an AT challenge fails with +CME ERROR: CODE"),
    ("unlocked-for-good", "AT+GTFCCEFFSTATUS? reports that there is no lock"),
    ("auth-delay=MS", "time from the unlock to online (50)"),
    ("stays-low", "the unlock is accepted, but the radio stays off"),
    ("stays-locked", "the unlock is accepted, but the lock stays"),
    ("goes-online", "the radio goes online with the response to a challenge"),
    ("lock-mode=N", "the mode that a lock reports in Intel's MBIM service or RPC"),
    ("lock-state=N", "the state that a lock reports in QMI, MBIM or RPC"),
    ("no-values", "the reply of a lock to an AT command or an RPC has no value"),
    ("no-firmware-version", "InvalidQmiCommand to DMS Foxconn Get Firmware Version, as from old firmware"),
    ("online-error=ERROR", "QMI error for Set Operating Mode(online) while locked (3, or 60 on em7455-lenovo)"),
    ("garbage", "invalid bytes before every reply"),
    ("indications", "unsolicited indications and a CTL sync indication before every reply"),
    ("merged", "indications and the reply in one read"),
    ("split=N", "all reads are split into parts of N bytes (7)"),
    ("stale", "failing replies to the previous transaction and to another client, then the reply"),
    ("short", "only half of every reply"),
    ("overlong", "extra bytes after every reply"),
    ("flood=N", "N indications before every reply (1000)"),
    ("duplicate", "every reply twice"),
    ("cid-exhausted", "no client IDs left"),
    ("keep-cids", "client IDs survive a CTL sync"),
    ("forget-cids=N", "client IDs are lost before the Nth request after the plug"),
    ("offline-reason=N", "the reason, in QMI, why the modem cannot go online"),
    ("low-power-error=ERROR", "QMI error for Set Operating Mode(low-power)"),
    ("refuse-reset", "QMI error InvalidTransition for Set Operating Mode(reset)"),
    ("proxy=PATH", "the port is that of a proxy, which gives no reply before a message with this path"),
    ("no-qmi-service", "QMI inside MBIM: NoDeviceSupport"),
    ("generic", "firmware without the vendor's unlock: InvalidQmiCommand in QMI, NoDeviceSupport in MBIM, ERROR in AT"),
    ("no-radio-state", "MBIM's radio state cannot be read or set: OperationNotAllowed"),
    ("mbim-busy=N", "the next N MBIM commands get the status Busy, including those with QMI"),
    ("closes=N", "the next N MBIM commands end the session: NotOpened"),
    (
        "left-open=TID",
        "an earlier host never closed MBIM: the reply to OPEN is CLOSE_DONE, with this TID or that of OPEN, until a CLOSE arrives",
    ),
    ("stays-left-open", "with left-open: also after a CLOSE"),
    ("stale-fragments=N", "the last N fragments of a message whose first fragment is lost, then the MBIM reply (3)"),
    ("fragments=N", "MBIM replies in fragments of N bytes (64)"),
    ("dtr", "no reply until the host raises DTR"),
    ("hw-switch-off", "the radio's hardware switch is off"),
    ("password=TEXT", "AT!ENTERCND requires this password (A710)"),
    ("no-password", "protected AT commands need no password"),
    ("composition-list=HEX", "the list of compositions in QMI: a count and the numbers"),
    ("composition-ignored", "a new composition is accepted and ignored"),
    ("loses-at-port", "no AT port from the next reset on, whatever the composition is"),
    ("no-test-command", "AT commands that list the compositions are unknown"),
    ("reset-needed", "the unlock is accepted, but takes effect at the next reset, or when the modem is unconfigured"),
    (
        "at-reply=N-M",
        "the faults of replies, from mute to duplicate, affect only the Nth to the Mth reply after the plug",
    ),
    ("at-message=NAME|NAME", "and only replies to requests with one of these words in their names in the transcript"),
    // PCI modems.
    ("open-blocks=SECONDS", "opening a WWAN port takes this long, and no signal interrupts it (1)"),
    ("open-fails=ERRNO", "opening a WWAN port fails with this error (1)"),
    // USB transfers.
    ("stall=N", "the Nth transfer is stalled; counted from the first plug, without standard requests"),
    ("gone-after=N", "unplugged after the Nth transfer, counted in the same way"),
    // Install mode.
    ("stall-switch-leaves", "stalls the switch, and leaves"),
    ("stall-switch-stays", "stalls the switch, and stays"),
    ("timeout-switch", "never answers the switch, and stays"),
    ("ignore-switch", "accepts the switch, and stays"),
    ("leave-delay=MS", "time from the switch to leaving the bus (10)"),
    ("return-delay=MS", "time from leaving the bus to coming back (100)"),
    ("back-in-install=N", "comes back in install mode N times"),
    ("never-back", "leaves the bus and does not come back"),
    ("sku=HEX", "LinuxSKU of the SWoC info (2100)"),
    ("short-swoc", "answers the SWoC query with 16 bytes"),
    ("stall-swoc", "stalls the SWoC query"),
    ("iface9", "the only interface of install mode has number 9"),
    ("stall-csw", "stalls instead of sending a CSW, until the halt is cleared"),
    ("eject-naks=N", "the next N commands that eject the medium get NAK"),
    ("no-csw", "never sends a CSW"),
    ("short-csw", "CSWs of 4 bytes"),
    ("failed-csw", "every CSW reports that the command failed"),
    // Descriptors and configurations.
    ("bad-descriptors=KIND", "false descriptors: length, zero, count, endpoints, type, total or configurations"),
    ("bad-strings=KIND", "invalid strings: control, surrogate, odd, empty, long or stall"),
    ("remote-wakeup=ON", "1: the configurations offer remote wake-up; 0: they do not (1)"),
    ("config-reenumerates=N", "writing a configuration other than the active one unplugs and replugs, N times"),
    ("config-refuse", "stalls SET_CONFIGURATION of anything but the first one chosen"),
    ("config-mute", "never answers SET_CONFIGURATION of anything but the first one chosen"),
    ("config-needs-zero", "MBIM stays mute unless configuration 0 is set 50 ms before its own"),
    ("config-sticky", "after the first configuration write, comes back with only that configuration and mute QMI"),
];

#[derive(Clone, Default)]
pub struct Faults {
    set: BTreeMap<&'static str, String>,
}

impl Faults {
    /// Sets a fault from `NAME` or `NAME=VALUE`.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let known = FAULTS.iter().map(|(form, _)| form.split('=').next().unwrap_or(form));
        let name = known.into_iter().find(|known| *known == name);
        let name = name.ok_or_else(|| format!("unknown fault: {text}"))?;
        self.set.insert(name, value.to_owned());
        Ok(())
    }

    pub fn clear(&mut self) {
        self.set.clear();
    }

    pub fn clear_one(&mut self, name: &str) {
        self.set.remove(name);
    }

    pub fn has(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }

    /// The number of the fault: `default` if it was set without one, `None` if it was not set.
    pub fn number_or(&self, name: &str, default: u64) -> Option<u64> {
        Some(self.set.get(name)?.parse().unwrap_or(default))
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.set.get(name)?.parse().ok()
    }

    /// A delay in milliseconds: `default` if it was not set.
    pub fn millis(&self, name: &str, default: u64) -> std::time::Duration {
        std::time::Duration::from_millis(self.number(name).unwrap_or(default))
    }

    /// Whether a fault that happens N times happens now. Without a number, it always happens.
    pub fn take(&mut self, name: &str) -> bool {
        let Some(value) = self.set.get_mut(name) else { return false };
        let Ok(left) = value.parse::<u64>() else { return true };
        *value = left.saturating_sub(1).to_string();
        left > 0
    }

    pub fn names(&self) -> String {
        let one = |(name, value): (&&str, &String)| match value.as_str() {
            "" => (*name).to_owned(),
            value => format!("{name}={value}"),
        };
        self.set.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_faults_are_accepted() {
        let mut faults = Faults::default();
        faults.set("mute").unwrap();
        faults.set("late=1500").unwrap();
        assert!(faults.set("nonsense").is_err());
        assert!(faults.has("mute") && !faults.has("busy"));
        assert_eq!(faults.number("late"), Some(1500));
        assert_eq!(faults.number_or("mute", 3), Some(3));
        assert_eq!(faults.names(), "late=1500 mute");
    }

    #[test]
    fn faults_with_a_number_count_down() {
        let mut faults = Faults::default();
        faults.set("busy=2").unwrap();
        assert_eq!([faults.take("busy"), faults.take("busy"), faults.take("busy")], [true, true, false]);
        faults.set("busy").unwrap();
        assert!((0..9).all(|_| faults.take("busy")));
        assert!(!faults.take("mute"));
    }
}
