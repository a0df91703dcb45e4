//! AT commands: the common ones, Sierra's protected ones for the USB composition, and the challenge of an FCC lock.

use std::time::Duration;

use crate::challenge::Number;
use crate::composition::{Composition, KNOWN_BITS, SUPPORTED, mask_names};
use crate::family;
use crate::models::Dialect;
use crate::radio::{LOW_POWER, Lock, Modem, ONLINE, Transition};

/// The password for Sierra's protected commands.
const PASSWORD: &str = "A710";
/// Longer lines are discarded.
const MAX_LINE: usize = 512;

/// The product IDs that AT!UDPID=? lists: QMI and DirectIP.
const PRODUCTS: [u16; 2] = [0x68a2, 0x68a3];

/// One AT port.
pub(crate) struct At {
    dialect: Dialect,
    echo: bool,
    /// Whether AT!ENTERCND was accepted.
    protected_open: bool,
    line: Vec<u8>,
}

type Lines = Result<Vec<String>, String>;

fn error() -> Lines {
    Err("ERROR".into())
}

fn one(line: impl Into<String>) -> Lines {
    Ok(vec![line.into()])
}

impl At {
    pub(crate) fn new(dialect: Dialect) -> At {
        At { dialect, echo: true, protected_open: false, line: Vec::new() }
    }

    /// Takes bytes from the host. Returns the reads that answer them, and their delay.
    pub(crate) fn replies(&mut self, modem: &mut Modem, bytes: &[u8]) -> (Duration, Vec<Vec<u8>>) {
        let output = self.receive(modem, bytes);
        let hit = modem.reply_is_hit();
        let delay = if hit { modem.faults.millis("late", 0) } else { Duration::ZERO };
        let size = modem.faults.number_or("split", 7).filter(|_| hit).unwrap_or(512);
        (delay, output.chunks(size.max(1) as usize).map(<[u8]>::to_vec).collect())
    }

    /// Takes bytes from the host. Returns the bytes of the reply.
    pub(crate) fn receive(&mut self, modem: &mut Modem, bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        for byte in bytes {
            match byte {
                b'\r' => {
                    let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim().to_owned();
                    output.extend(self.line(modem, &line));
                }
                b'\n' | 0 => {}
                byte if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => self.line.clear(),
            }
        }
        output
    }

    fn line(&mut self, modem: &mut Modem, line: &str) -> Vec<u8> {
        if line.is_empty() {
            return Vec::new();
        }
        modem.transcript.event("at>", line);
        modem.hears(line);
        if modem.is_mute() {
            return Vec::new();
        }
        let echo = if self.echo { format!("{line}\r") } else { String::new() };
        let given = modem.answers.iter().find(|(command, _)| command == line).map(|(_, answer)| answer.clone());
        let is_open = self.protected_open || modem.faults.has("no-password") || !line.starts_with("AT!");
        let answer = match line.get(..2) {
            _ if modem.is_busy() => Err("+CME ERROR: 14".into()),
            _ if given.is_some() && is_open => match given.unwrap_or_default() {
                answer if answer.is_empty() => Ok(Vec::new()),
                answer if answer.contains("ERROR") => Err(answer),
                answer => Ok(answer.split("\r\n").map(str::to_owned).collect()),
            },
            Some(at) if at.eq_ignore_ascii_case("AT") => self.command(modem, &line[2..]),
            _ => error(),
        };
        let (mut lines, last) = match answer {
            Ok(lines) => (lines, "OK".to_owned()),
            Err(error) => (Vec::new(), error),
        };
        let flood = modem.faults.number_or("flood", 1000).filter(|_| modem.reply_is_hit());
        let own = usize::from(modem.is_hit_by("indications")) + flood.map_or(0, |count| count as usize);
        lines.splice(..0, std::iter::repeat_n("+CREG: 2".to_owned(), own));
        lines.push(last);
        for line in &lines {
            modem.transcript.event("at<", line);
        }
        let body: String = lines.iter().map(|line| format!("\r\n{line}\r\n")).collect();
        let mut output = (echo + &body).into_bytes();
        if modem.is_hit_by("garbage") {
            output.splice(..0, [0xff, 0x00, 0x7e, 0x80]);
        }
        if modem.is_hit_by("short") {
            output.truncate(output.len() / 2);
        }
        if modem.loses_reply() { Vec::new() } else { output }
    }

    fn command(&mut self, modem: &mut Modem, command: &str) -> Lines {
        let (name, argument) = match command.find(['=', '?']) {
            Some(at) => command.split_at(at),
            None => (command, ""),
        };
        let name = name.to_ascii_uppercase();
        if let Some(answer) = family::answer(modem, command) {
            return answer;
        }
        let identity = modem.identity.clone();
        match (name.as_str(), argument) {
            ("", _) | ("Z" | "&F" | "V1" | "&F0" | "+CMEE" | "X4" | "&C1" | "&D2" | "S0", _) => Ok(Vec::new()),
            ("E0" | "E0Q0V1", _) => {
                self.echo = false;
                Ok(Vec::new())
            }
            ("E" | "E1", _) => {
                self.echo = true;
                Ok(Vec::new())
            }
            ("I", _) => Ok(vec![
                format!("Manufacturer: {}", identity.manufacturer),
                format!("Model: {}", identity.model),
                format!("Revision: {}", identity.revision),
                format!("IMEI: {}", identity.imei),
                "+GCAP: +CGSM".into(),
            ]),
            ("+CGMI" | "+GMI", _) => one(identity.manufacturer),
            ("+CGMM" | "+GMM", _) => one(identity.model),
            ("+CGMR" | "+GMR", _) => one(identity.revision),
            ("+CGSN" | "+GSN", _) => one(identity.imei),
            ("+GCAP", _) => one("+GCAP: +CGSM"),
            ("+CPIN", "?") => one("+CPIN: READY"),
            ("+CFUN", "?") => one(format!("+CFUN: {}", u8::from(modem.radio_on()))),
            ("+CFUN", "=1") if modem.locked && matches!(modem.lock, Lock::Gtfcclock { .. }) => {
                Err("+CME ERROR: 0".into())
            }
            ("+CFUN", "=1") if modem.locked => Err("+CME ERROR: operation not supported".into()),
            ("+CFUN", "=1") => {
                modem.set_mode(ONLINE);
                Ok(Vec::new())
            }
            ("+CFUN", "=0" | "=4") => {
                modem.set_mode(LOW_POWER);
                Ok(Vec::new())
            }
            ("+CFUN", "=1,1") => reset(modem),
            (name, argument) if name.starts_with('!') && self.is_sierra() => self.sierra(modem, name, argument),
            (name, argument) if name.starts_with("+GTFCC") && !modem.faults.has("generic") => {
                gtfcclock(modem, name, argument)
            }
            _ => error(),
        }
    }

    fn is_sierra(&self) -> bool {
        self.dialect != Dialect::Plain
    }

    fn sierra(&mut self, modem: &mut Modem, name: &str, argument: &str) -> Lines {
        let value = argument.strip_prefix('=');
        match (name, argument, self.dialect) {
            ("!ENTERCND", _, _)
                if value.map(|v| v.trim_matches('"')) == Some(modem.faults.text("password").unwrap_or(PASSWORD)) =>
            {
                self.protected_open = true;
                Ok(Vec::new())
            }
            ("!ENTERCND", ..) => error(),
            ("!PCINFO", "?", _) => {
                let state = if modem.radio_on() { "Online" } else { "Low Power Mode" };
                let bios = u8::from(modem.locked);
                let switch = u8::from(modem.hardware_switch_off());
                Ok(vec![
                    format!("State: {state}"),
                    format!(
                        "LPM voters - Temp:0, Volt:0, User:0, W_DISABLE:{switch}, IMSWITCH:0, BIOS:{bios}, LWM2M:0, OMADM:0, FOTA:0"
                    ),
                ])
            }
            ("!RESET", "", _) => reset(modem),
            _ if !self.protected_open && !modem.faults.has("no-password") => error(),
            ("!UDUSBCOMP" | "!USBCOMP", ..) => self.composition(modem, name, argument),
            ("!UDPID", "?", Dialect::SierraOld) => {
                let product = modem.next_product.unwrap_or(modem.product);
                one(format!("{product:04X}"))
            }
            ("!UDPID", "=?", Dialect::SierraOld) => Ok(PRODUCTS.iter().map(|id| format!("{id:04X}")).collect()),
            ("!UDPID", _, Dialect::SierraOld) => {
                let product = value.and_then(|value| u16::from_str_radix(value, 16).ok());
                // A real MC7710 accepts any product ID, even a wrong one that makes it unusable.
                let Some(product) = product else { return error() };
                if !modem.faults.has("composition-ignored") {
                    modem.next_product = Some(product);
                }
                Ok(Vec::new())
            }
            _ => error(),
        }
    }

    /// AT!UDUSBCOMP by number on older modems, AT!USBCOMP by mask on newer ones.
    fn composition(&self, modem: &mut Modem, name: &str, argument: &str) -> Lines {
        let by_number = self.dialect == Dialect::SierraOld;
        let Some(next) = modem.next_composition.clone().filter(|_| by_number == (name == "!UDUSBCOMP")) else {
            return error();
        };
        let wanted = match argument {
            "?" if by_number => return one(format!("!UDUSBCOMP: {}", next.number)),
            "=?" if by_number => return Ok(composition_table()),
            "?" => return Ok(self.mask_lines(&next)),
            "=?" => return Ok(self.mask_table()),
            argument if by_number => {
                let number = argument.strip_prefix('=').and_then(|number| number.parse().ok());
                number.filter(|number| SUPPORTED.contains(number)).map(Composition::numbered)
            }
            argument => {
                let kind = self.generic().0.to_string();
                let fields: Vec<&str> = argument.trim_start_matches('=').split(',').map(str::trim).collect();
                let mask = match fields.as_slice() {
                    ["1", given, mask] if **given == kind => u32::from_str_radix(mask, 16).ok(),
                    _ => None,
                };
                mask.filter(|mask| *mask != 0 && mask & !KNOWN_BITS == 0).map(Composition::masked)
            }
        };
        let Some(wanted) = wanted else { return error() };
        if !modem.faults.has("composition-ignored") {
            modem.next_composition = Some(wanted);
        }
        Ok(Vec::new())
    }

    /// The configuration type that keeps the product ID, its name, and the names of all types.
    fn generic(&self) -> (u8, &'static str, &'static str) {
        match self.dialect {
            Dialect::Sierra75 => (3, "Generic", "1:MBIM USBIF, 2:PCIE USBIF, 3:Legacy-Generic, 4:RNDIS"),
            // The type is that of a real EM9291. Its list of types is not known.
            Dialect::Sierra91 => (4, "MBIM V2", "4:MBIM V2"),
            _ => (1, "Generic", "1:Generic, 2:USBIF-MBIM, 3:RNDIS"),
        }
    }

    fn mask_lines(&self, composition: &Composition) -> Vec<String> {
        let mask = composition.masks.first().copied().unwrap_or(0);
        let (number, name, _) = self.generic();
        vec![
            "Config Index: 1".into(),
            format!("Config Type:  {number} ({name})"),
            format!("Interface bitmask: {mask:08X} ({})", mask_names(mask)),
        ]
    }

    fn mask_table(&self) -> Vec<String> {
        let mut bits =
            vec![("DIAG", 0x1), ("NMEA", 0x4), ("MODEM", 0x8), ("RMNET0", 0x100), ("RMNET1", 0x400), ("MBIM", 0x1000)];
        if self.dialect == Dialect::Sierra91 {
            bits.retain(|(name, _)| !name.starts_with("RMNET"));
        }
        let mut lines = vec![
            "AT!USBCOMP=<Config Index>,<Config Type>,<Interface bitmask>".to_owned(),
            "  <Config Index>      - configuration index to which the composition applies, should be 1".to_owned(),
            format!("  <Config Type>       - {}", self.generic().2),
        ];
        for (index, (name, bit)) in bits.iter().enumerate() {
            let head = if index == 0 { "  <Interface bitmask> - " } else { "                        " };
            lines.push(format!("{head}{name:<8} - 0x{bit:08X},"));
        }
        lines
    }
}

/// The FCC lock of Fibocom, Intel, MediaTek and Rolling modems.
fn gtfcclock(modem: &mut Modem, name: &str, argument: &str) -> Lines {
    let Lock::Gtfcclock { order, number, is_xmm } = modem.lock else { return error() };
    let is_bare = modem.is_hit_by("no-values");
    let value = |value: String| match (is_bare, is_xmm) {
        (true, _) => Ok(Vec::new()),
        (false, true) => one(value),
        (false, false) => one(format!("{name}: {value}")),
    };
    match (name, argument) {
        ("+GTFCCLOCKGEN", "") => value(format!("{:#x}", modem.ask_challenge())),
        ("+GTFCCLOCKVER", given) => {
            let given = given.strip_prefix('=').and_then(|given| match number {
                Number::Decimal => given.parse().ok(),
                Number::Hex => u32::from_str_radix(given.strip_prefix("0x")?, 16).ok(),
            });
            let Some(right) = modem.judge(given, order) else { return error() };
            match modem.faults.text("cme") {
                Some(code) if !right => Err(format!("+CME ERROR: {code}")),
                _ => value(u8::from(right).to_string()),
            }
        }
        ("+GTFCCLOCKSTATE", "") if is_xmm => value(u8::from(!modem.locked).to_string()),
        ("+GTFCCEFFSTATUS", _) if is_xmm => error(),
        // Mode 2: locked at every power-up. Mode 0 and status 1: there is no lock any more.
        ("+GTFCCEFFSTATUS", "?") if modem.faults.has("unlocked-for-good") => one("+GTFCCEFFSTATUS: 0,1"),
        ("+GTFCCEFFSTATUS", "?") => one(format!("+GTFCCEFFSTATUS: 2,{}", u8::from(!modem.locked))),
        // Reveals a host that changes the lock permanently.
        ("+GTFCCLOCKMODE" | "+GTFCCLOCKMODEUNLOCK", _) => {
            modem.transcript.event("permanent", &format!("{name}{argument}"));
            Ok(Vec::new())
        }
        _ => error(),
    }
}

fn reset(modem: &mut Modem) -> Lines {
    modem.transitions.push((Duration::from_millis(50), Transition::Reset));
    Ok(Vec::new())
}

fn composition_table() -> Vec<String> {
    let names = [
        "HIP  DM    NMEA  AT    MDM1  MDM2  MDM3  MS",
        "HIP  DM    NMEA  AT    MDM1  MS",
        "HIP  DM    NMEA  AT    NIC1  MS",
        "HIP  DM    NMEA  AT    MDM1  NIC1  MS",
        "HIP  DM    NMEA  AT    NIC1  NIC2  NIC3  MS",
        "HIP  DM    NMEA  AT    ECM1  MS",
        "DM   NMEA  AT    QMI",
        "DM   NMEA  AT    RMNET1 RMNET2 RMNET3",
        "DM   NMEA  AT    MBIM",
        "MBIM",
        "NMEA MBIM",
        "DM   MBIM",
        "DM   NMEA  MBIM",
        "Config1: comp6    Config2: comp8",
        "Config1: comp6    Config2: comp9",
        "Config1: comp6    Config2: comp10",
        "Config1: comp6    Config2: comp11",
        "Config1: comp6    Config2: comp12",
        "Config1: comp7    Config2: comp8",
        "Config1: comp7    Config2: comp9",
    ];
    let line = |(number, name): (usize, &&str)| {
        let supported = if SUPPORTED.contains(&(number as u8)) { "SUPPORTED" } else { "NOT SUPPORTED" };
        format!("{number:<2} - {name:<44} {supported}")
    };
    names.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;

    fn port(name: &str) -> (At, Modem) {
        let model = models::row(name).unwrap().model();
        let dialect = model.dialect;
        (At::new(dialect), Modem::of(&model))
    }

    fn ask(at: &mut At, modem: &mut Modem, command: &str) -> String {
        String::from_utf8(at.receive(modem, format!("{command}\r").as_bytes())).unwrap()
    }

    #[test]
    fn e0_turns_echo_off() {
        let (mut at, mut modem) = port("directip");
        assert_eq!(ask(&mut at, &mut modem, "AT"), "AT\r\r\nOK\r\n");
        ask(&mut at, &mut modem, "ATE0");
        assert_eq!(ask(&mut at, &mut modem, "at"), "\r\nOK\r\n");
        assert_eq!(ask(&mut at, &mut modem, "AT+NONSENSE"), "\r\nERROR\r\n");
    }

    #[test]
    fn commands_may_arrive_in_parts() {
        let (mut at, mut modem) = port("directip");
        assert!(at.receive(&mut modem, b"A").is_empty());
        assert!(at.receive(&mut modem, b"TE0").is_empty());
        assert!(!at.receive(&mut modem, b"\r\n").is_empty());
    }

    #[test]
    fn protected_commands_need_the_password() {
        let (mut at, mut modem) = port("directip");
        assert!(ask(&mut at, &mut modem, "AT!UDPID=68A2").contains("ERROR"));
        assert!(ask(&mut at, &mut modem, "AT!ENTERCND=\"B710\"").contains("ERROR"));
        assert!(ask(&mut at, &mut modem, "AT!ENTERCND=\"A710\"").contains("OK"));
        assert!(ask(&mut at, &mut modem, "AT!UDPID?").contains("68A3"));
        assert!(ask(&mut at, &mut modem, "AT!UDPID=68A2").contains("OK"));
        assert_eq!(modem.next_product, Some(0x68a2));
    }

    #[test]
    fn compositions_by_number() {
        let (mut at, mut modem) = port("mc7355");
        ask(&mut at, &mut modem, "AT!ENTERCND=\"A710\"");
        let table = ask(&mut at, &mut modem, "AT!UDUSBCOMP=?");
        assert!(table.contains("\n6  - DM   NMEA  AT    QMI "));
        assert!(ask(&mut at, &mut modem, "AT!UDUSBCOMP=13").contains("ERROR"));
        assert!(ask(&mut at, &mut modem, "AT!UDUSBCOMP=8").contains("OK"));
        assert!(ask(&mut at, &mut modem, "AT!UDUSBCOMP?").contains("!UDUSBCOMP: 8"));
        assert!(ask(&mut at, &mut modem, "AT!USBCOMP?").contains("ERROR"));
    }

    #[test]
    fn compositions_by_mask_and_type() {
        let (mut at, mut modem) = port("em7455-qmi");
        ask(&mut at, &mut modem, "AT!ENTERCND=\"A710\"");
        assert!(ask(&mut at, &mut modem, "AT!USBCOMP?").contains("0000010D (diag,nmea,modem,rmnet0)"));
        assert!(ask(&mut at, &mut modem, "AT!USBCOMP=1,3,100D").contains("ERROR"));
        assert!(ask(&mut at, &mut modem, "AT!USBCOMP=1,1,100D").contains("OK"));
        assert_eq!(modem.next_composition, Some(Composition::numbered(8)));
        let (mut at, mut modem) = port("em7565");
        ask(&mut at, &mut modem, "AT!ENTERCND=\"A710\"");
        assert!(ask(&mut at, &mut modem, "AT!USBCOMP=1,1,10D").contains("ERROR"));
        assert!(ask(&mut at, &mut modem, "AT!USBCOMP=1,3,10D").contains("OK"));
        let (mut at, mut modem) = port("em9291");
        assert!(ask(&mut at, &mut modem, "AT!USBCOMP?").contains("ERROR"));
        ask(&mut at, &mut modem, "AT!ENTERCND=\"A710\"");
        let answer = ask(&mut at, &mut modem, "AT!USBCOMP?");
        assert!(answer.contains("Config Type:  4 (MBIM V2)\r\n\r\nInterface bitmask: 00001009 (diag,modem,mbim)"));
        assert!(ask(&mut at, &mut modem, "AT!USBCOMP=1,4,100D").contains("OK"));
    }

    #[test]
    fn an_xmm7560_replies_without_names() {
        let mut modem = Modem::of(&crate::pci::row("l860").unwrap().model());
        let mut at = At::new(Dialect::Plain);
        ask(&mut at, &mut modem, "ate0");
        for (command, reply) in [
            ("AT+GTFCCEFFSTATUS?", "\r\nERROR\r\n"),
            ("at+gtfcclockstate", "\r\n0\r\n\r\nOK\r\n"),
            ("at+gtfcclockgen", "\r\n0x12345678\r\n\r\nOK\r\n"),
            ("at+gtfcclockver=1", "\r\n0\r\n\r\nOK\r\n"),
            ("at+gtfcclockgen", "\r\n0xc0ffee\r\n\r\nOK\r\n"),
            ("at+gtfcclockver=3584264405", "\r\n1\r\n\r\nOK\r\n"),
            ("at+gtfcclockstate", "\r\n1\r\n\r\nOK\r\n"),
        ] {
            assert_eq!(ask(&mut at, &mut modem, command), reply, "{command}");
        }
    }

    #[test]
    fn the_challenge_accepts_only_the_right_response() {
        // The challenges are 0x12345678, 0xc0ffee and 0xfedcba98.
        for (name, answers) in
            [("rw101", ["0x6a87f139", "0x00000000", "0xccb269db"]), ("fm350-41", ["1787294009", "0", "3434244571"])]
        {
            let (mut at, mut modem) = port(name);
            assert!(ask(&mut at, &mut modem, &format!("at+gtfcclockver={}", answers[0])).contains("ERROR"));
            assert!(ask(&mut at, &mut modem, "at+cfun=1").contains("CME ERROR: 0"));
            for (challenge, answer, verdict) in
                [("0x12345678", answers[1], 0), ("0xc0ffee", answers[0], 0), ("0xfedcba98", answers[2], 1)]
            {
                assert!(ask(&mut at, &mut modem, "AT+GTFCCEFFSTATUS?").contains("STATUS: 2,0"));
                assert!(ask(&mut at, &mut modem, "at+gtfcclockgen").contains(&format!(": {challenge}\r")));
                let reply = ask(&mut at, &mut modem, &format!("at+gtfcclockver={answer}"));
                assert!(reply.contains(&format!("VER: {verdict}")), "{reply}");
            }
            assert!(ask(&mut at, &mut modem, "AT+GTFCCEFFSTATUS?").contains("STATUS: 2,1"));
            assert!(ask(&mut at, &mut modem, "at+cfun=1").contains("OK"));
            assert_eq!((modem.mode, modem.unlocks), (ONLINE, (1, 2)));
        }
    }

    #[test]
    fn a_request_for_low_power_holds_after_the_unlock() {
        let (mut at, mut modem) = port("mc7355");
        modem.unlock();
        ask(&mut at, &mut modem, "AT+CFUN=4");
        modem.come_online();
        assert_eq!(modem.mode, LOW_POWER);
        modem.relock();
        modem.unlock();
        modem.come_online();
        assert_eq!(modem.mode, ONLINE);
    }
}
