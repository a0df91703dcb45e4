//! Compositions of Sierra modems by AT commands: `AT!UDPID` for modems that are DirectIP or QMI, `AT!UDUSBCOMP` by number, `AT!USBCOMP`
//! by bitmask.
//!
//! Facts: Sierra's AT command references 2130616 and 4114486. Help texts and replies posted by users of an MC7455
//! (forum.sierrawireless.com 9372), and in the message of the Linux commit that adds 1199:90b1 and 1199:90c3.

use super::dialogue::{CompositionError, CompositionState, Dialogue, Restart};
use crate::bus::DeviceId;
use crate::database::compositions::sierra::Bits;
use crate::database::compositions::{Composition, Sierra, Value, Wanted};
use crate::modem::session::SessionError;
use crate::modem::session::at::Conversation;
use crate::modem::wire::{Malformed, at};
use crate::outcome::Failure;

const PRODUCT: &str = "AT!UDPID";
const NUMBER: &str = "AT!UDUSBCOMP";
const MASK: &str = "AT!USBCOMP";

/// A command that reads and sets the composition, named after the kind of value that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Product,
    Number,
    Mask,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Command::Product => PRODUCT,
            Command::Number => NUMBER,
            Command::Mask => MASK,
        }
    }
}

/// The commands of a kind of modem, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commands(&'static [Command]);

impl Commands {
    pub(super) fn of(table: &Sierra, id: DeviceId) -> Commands {
        if table.is_direct_ip(id) {
            Commands(&[Command::Product])
        } else if table.has_only_masks(id) {
            Commands(&[Command::Mask])
        } else {
            Commands(&[Command::Number, Command::Mask])
        }
    }

    fn names(self) -> String {
        self.0.iter().map(|command| command.name()).collect::<Vec<_>>().join(", ")
    }
}

/// The AT port of a Sierra modem.
pub(super) struct SierraAt<'c, 'p> {
    at: &'c mut Conversation<'p>,
    table: &'c Sierra,
    password: &'c str,
    commands: Commands,
    /// Whether the modem accepted the password.
    is_open: bool,
    /// The configuration type that [`MASK`] takes before the bits.
    config_type: u8,
}

impl<'c, 'p> SierraAt<'c, 'p> {
    pub(super) fn new(
        at: &'c mut Conversation<'p>,
        table: &'c Sierra,
        password: &'c str,
        commands: Commands,
    ) -> SierraAt<'c, 'p> {
        SierraAt { at, table, password, commands, is_open: false, config_type: 0 }
    }

    /// Finds the command that the modem knows, and its list. If the modem knows no command, sends the password and
    /// tries again.
    fn list(&mut self) -> Result<(Command, Vec<String>), CompositionError> {
        loop {
            for command in self.commands.0 {
                let name = command.name();
                // Lines that begin with + are unsolicited.
                let list = |lines: &[String]| lines.iter().any(|line| !line.starts_with('+')).then(|| lines.to_vec());
                match self.at.query(name, &format!("{name}=?"), list) {
                    Err(error @ SessionError::At { .. }) if !error.is_transient() => {}
                    listed => return Ok((*command, listed?.unwrap_or_default())),
                }
            }
            if self.is_open {
                return Err(CompositionError::NoCommand(self.commands.names()));
            }
            self.enter()?;
        }
    }

    /// Sends a command. If the modem refuses it, sends the password and the command once more.
    fn command(&mut self, name: &'static str, command: &str) -> Result<Vec<String>, CompositionError> {
        match self.at.command(name, command) {
            Err(error @ SessionError::At { .. }) if !self.is_open && !error.is_transient() => {
                self.enter()?;
                Ok(self.at.command(name, command)?)
            }
            answered => Ok(answered?),
        }
    }

    fn enter(&mut self) -> Result<(), CompositionError> {
        match self.at.command("AT!ENTERCND", &format!("AT!ENTERCND=\"{}\"", self.password)) {
            Err(SessionError::At { .. }) => Err(CompositionError::Password),
            Err(error) => Err(error.into()),
            Ok(_) => {
                self.is_open = true;
                Ok(())
            }
        }
    }
}

impl Dialogue for SierraAt<'_, '_> {
    fn read(&mut self, wanted: Option<&Wanted>) -> Result<CompositionState, CompositionError> {
        let (command, listed) = self.list()?;
        let by = command.name();
        let current = self.command(by, &format!("{by}?"))?;
        let table = self.table;
        let missing = |field| SessionError::Malformed { request: by, malformed: Malformed::Missing { field } };
        let (mut other, mut read_only) = (None, None);
        let (current, supported) = match command {
            Command::Product => {
                let current = products(&current).next().ok_or(missing("product ID"))?;
                let supported: Vec<_> = products(&listed).map(|product| table.of_product(product)).collect();
                // In its QMI form, the modem lists the functions that it can have in addition to QMI.
                if let Some(Wanted::Functions(wanted)) = wanted {
                    let leads = |known: &&Composition| {
                        let functions = known.functions();
                        !functions.is_empty() && functions.is_subset(wanted)
                    };
                    other = supported.iter().find(leads).cloned().map(Ok);
                }
                (table.of_product(current), supported)
            }
            Command::Number => {
                let current = current.iter().find_map(|line| number(line)).ok_or(missing("composition"))?;
                let supported: Vec<Composition> =
                    listed.iter().filter_map(|line| supported(line)).map(|number| table.of_number(number)).collect();
                (table.of_number(current), supported)
            }
            Command::Mask => {
                let bits = bits(&listed);
                let (config_type, name) =
                    config_type(table, &current, &listed).ok_or(missing("usable configuration type"))?;
                self.config_type = config_type;
                if !table.keeps_ports(name) {
                    read_only = Some(format!("in configuration type {name}, the modem has other IDs and ports"));
                }
                let current = current.iter().find_map(|line| mask(line)).ok_or(missing("interface bitmask"))?;
                if let Some(wanted) = wanted.and_then(wanted_mask) {
                    other = Some(table.checked(wanted, &bits, current));
                }
                (table.of_mask(current, &bits), table.of_bits(&bits, current))
            }
        };
        Ok(CompositionState {
            by: by.to_owned(),
            family: table.provenance(),
            current,
            supported,
            other,
            read_only,
            restart: Restart::OnRequest,
            settings: Default::default(),
        })
    }

    fn set(&mut self, composition: &Composition) -> Result<(), CompositionError> {
        match &composition.value {
            Value::Product(product) => self.command(PRODUCT, &format!("{PRODUCT}={product:04X}")),
            Value::Number(number) => self.command(NUMBER, &format!("{NUMBER}={number}")),
            Value::Mask(mask) => self.command(MASK, &format!("{MASK}=1,{},{mask:X}", self.config_type)),
            Value::Text(text) => {
                return Err(CompositionError::Refused(Failure::new(
                    format!("{text} is not a composition of a Sierra modem"),
                    "choose a value that `wwan-quirks composition` lists",
                )));
            }
        }
        .map(drop)
    }

    fn reset(&mut self) -> Result<(), CompositionError> {
        match self.command("AT!RESET", "AT!RESET") {
            Err(CompositionError::Session(error)) if error.is_departure() => Ok(()),
            answered => answered.map(drop),
        }
    }
}

/// The product IDs in lines such as `68A2`, `!UDPID: 68A2` or `APP : 68A2`.
pub(super) fn products(lines: &[String]) -> impl Iterator<Item = u16> {
    let words = lines.iter().flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()));
    words.filter(|word| word.len() == 4).filter_map(|word| u16::from_str_radix(word, 16).ok())
}

/// Parses `!UDUSBCOMP: 6`, or the number alone.
pub(super) fn number(line: &str) -> Option<u8> {
    let named = at::values(line, "!UDUSBCOMP").and_then(|values| values.first().copied());
    named.unwrap_or(line).parse().ok()
}

/// Parses `6  - DM   NMEA  AT    QMI      SUPPORTED`. `None` if the line ends with `NOT SUPPORTED`.
fn supported(line: &str) -> Option<u8> {
    let (number, rest) = line.split_once('-')?;
    let supported = rest.ends_with("SUPPORTED") && !rest.ends_with("NOT SUPPORTED");
    number.trim().parse().ok().filter(|_| supported)
}

/// The configuration type to set: the current one. If the modem does not report it, the first listed type that keeps the
/// ports.
pub(super) fn config_type<'a>(table: &Sierra, current: &'a [String], listed: &'a [String]) -> Option<(u8, &'a str)> {
    let present = current.iter().find_map(|line| current_type(line));
    let listed = || listed.iter().flat_map(|line| listed_types(line)).find(|(_, name)| table.keeps_ports(name));
    present.or_else(listed)
}

/// Parses `Config Type:  4 (MBIM V2)`.
fn current_type(line: &str) -> Option<(u8, &str)> {
    let (name, value) = line.split_once(':')?;
    let (number, name_of_type) = value.trim().split_once(' ')?;
    let name_of_type = name_of_type.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some((number.parse().ok()?, name_of_type)).filter(|_| name.trim().eq_ignore_ascii_case("config type"))
}

/// Parses `<Config Type> - 1:Generic, 2:USBIF-MBIM, 3:RNDIS`. A 75xx lists
/// `1:MBIM USBIF, 2:PCIE USBIF, 3:Legacy-Generic, 4:RNDIS`. With another type, it changes its product ID and loses its
/// ports.
fn listed_types(line: &str) -> Vec<(u8, &str)> {
    let types =
        line.split_once("<Config Type>").and_then(|(_, rest)| rest.split_once('-')).map_or("", |(_, types)| types);
    let one = |kind| {
        let (number, name) = str::split_once(kind, ':')?;
        Some((number.trim().parse().ok()?, name.trim()))
    };
    types.split(',').filter_map(one).collect()
}

/// The requested bitmask.
fn wanted_mask(wanted: &Wanted) -> Option<u32> {
    let Wanted::Value(text) = wanted else { return None };
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    u32::from_str_radix(digits, 16).ok()
}

/// The bits in lines such as `NMEA     - 0x00000004,`.
pub(super) fn bits(lines: &[String]) -> Bits {
    let bit = |line: &String| {
        let (name, bit) = line.rsplit_once("0x")?;
        let name = name.trim_end_matches([' ', '-']).rsplit(' ').next()?;
        let bit = u32::from_str_radix(bit.trim_end_matches([',', ' ']), 16).ok()?;
        bit.is_power_of_two().then(|| (name.to_ascii_lowercase(), bit))
    };
    lines.iter().filter_map(bit).collect()
}

/// Parses `Interface bitmask: 0000050D (diag,nmea,modem,rmnet0,rmnet1)`.
pub(super) fn mask(line: &str) -> Option<u32> {
    let (name, mask) = line.split_once(':')?;
    let mask = u32::from_str_radix(mask.split_whitespace().next()?, 16).ok()?;
    name.eq_ignore_ascii_case("interface bitmask").then_some(mask)
}

#[cfg(test)]
mod tests {
    use super::super::{Request, read_and_set};
    use super::*;
    use crate::database::compositions::shipped;
    use crate::host::deadline::Deadline;
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::fake::Modem;
    use std::time::Duration;

    /// The reply of an EM7565.
    const MASKS: &str = "!USBCOMP:\r\nAT!USBCOMP=<Config Index>,<Config Type>,<Interface bitmask>\r\n  \
        <Config Index>      - configuration index to which the composition applies, should be 1\r\n  \
        <Config Type>       - 1:MBIM USBIF, 2:PCIE USBIF, 3:Legacy-Generic, 4:RNDIS\r\n  \
        <Interface bitmask> - DIAG     - 0x00000001,\r\n                        NMEA     - 0x00000004,\r\n                        \
        MODEM    - 0x00000008,\r\n                        RMNET0   - 0x00000100,\r\n                        \
        MBIM     - 0x00001000,\r\n  e.g.\r\n  10D  - diag, nmea, modem, rmnet interfaces enabled\r\n\
        \r\nThe default configuration is:\r\n  at!usbcomp=1,3,10F\r\n";
    const NUMBERS: &str = "0  - HIP  DM    NMEA  AT    MDM1  MDM2  MDM3  MS           NOT SUPPORTED\r\n\
        6  - DM   NMEA  AT    QMI                                  SUPPORTED\r\n\
        8  - DM   NMEA  AT    MBIM                                 SUPPORTED\r\n\
        9  - MBIM                                                  SUPPORTED\r\n\
        13 - Config1: comp6    Config2: comp8                      NOT SUPPORTED\r\n\
        14 - Config1: comp6    Config2: comp9                      SUPPORTED\r\n";

    fn talk<T>(modem: &mut Modem, password: &str, id: &str, with: impl FnOnce(&mut SierraAt) -> T) -> T {
        let table = shipped().sierra.unwrap();
        let _clock = StoppedClock::stop();
        let mut at = Conversation::open(modem, Deadline::after(Duration::from_secs(2))).unwrap();
        let commands = Commands::of(&table, id.parse().unwrap());
        with(&mut SierraAt::new(&mut at, &table, password, commands))
    }

    fn values(reading: &CompositionState) -> (String, Vec<String>) {
        let supported = reading.supported.iter().map(|known| known.value.to_string()).collect();
        (reading.current.value.to_string(), supported)
    }

    #[test]
    fn numbers_are_read_and_set_with_the_password_if_required() {
        let answers = [("AT!UDUSBCOMP=?", NUMBERS), ("AT!UDUSBCOMP?", "!UDUSBCOMP: 14"), ("AT!UDUSBCOMP=8", "")];
        for (password, asked) in [("", 0), ("A710", 1)] {
            let mut modem = Modem::at(password, &answers);
            let reading = talk(&mut modem, "A710", "1199:9071", |dialogue| {
                let reading = dialogue.read(None).unwrap();
                dialogue.set(&dialogue.table.of_number(8)).unwrap();
                reading
            });
            assert_eq!(reading.by, "AT!UDUSBCOMP");
            assert_eq!(values(&reading), ("14".to_owned(), ["6", "8", "9", "14"].map(str::to_owned).to_vec()));
            assert_eq!(modem.seen.iter().filter(|seen| seen.starts_with("AT!ENTERCND")).count(), asked);
            assert_eq!(modem.seen.last().unwrap(), "AT!UDUSBCOMP=8");
        }
    }

    #[test]
    fn masks_are_set_with_the_type_that_the_modem_calls_generic() {
        let answers = [
            ("AT!USBCOMP=?", MASKS),
            (
                "AT!USBCOMP?",
                "Config Index: 1\r\nConfig Type:  3 (Generic)\r\nInterface bitmask: 0000010D (diag,nmea,modem,rmnet0)",
            ),
            ("AT!USBCOMP=1,3,100D", ""),
        ];
        let mut modem = Modem::at("A710", &answers);
        let (reading, odd) = talk(&mut modem, "A710", "1199:9071", |dialogue| {
            let reading = dialogue.read(None).unwrap();
            let mbim = reading.supported.iter().find(|known| known.number == Some(8)).unwrap();
            dialogue.set(mbim).unwrap();
            let other = |text: &str| dialogue.read(Some(&text.parse().unwrap())).unwrap().other.and_then(Result::ok);
            (reading, ["0x1009", "0x1011", "8"].map(other))
        });
        assert_eq!(reading.by, "AT!USBCOMP");
        let supported = ["0x10d", "0x100d", "0x1000", "0x1004", "0x1001", "0x1005"].map(str::to_owned);
        assert_eq!(values(&reading), ("0x10d".to_owned(), supported.to_vec()));
        assert_eq!(odd.map(|odd| odd.map(|odd| odd.layout)), [Some("dm at mbim".to_owned()), None, None]);
    }

    #[test]
    fn an_em9291_keeps_its_configuration_type_and_unknown_bits() {
        let current =
            "Config Index: 1\r\nConfig Type:  4 (MBIM V2)\r\nInterface bitmask: 00201009 (diag,modem,mbim,ubist)";
        let answers = [("AT!USBCOMP=?", MASKS), ("AT!USBCOMP?", current), ("AT!USBCOMP=1,4,20010D", "")];
        let mut modem = Modem::at("A710", &answers);
        talk(&mut modem, "A710", "1199:90e3", |dialogue| {
            let reading = dialogue.read(None).unwrap();
            assert_eq!(reading.current.value.to_string(), "0x201009");
            dialogue.set(&reading.supported[0]).unwrap();
        });
        assert_eq!(modem.seen.last().unwrap(), "AT!USBCOMP=1,4,20010D");
        assert!(!modem.seen.iter().any(|seen| seen.contains("UDUSBCOMP")), "{:?}", modem.seen);
    }

    /// In type 1, an EM7565 has the ID 1199:90b1.
    #[test]
    fn a_modem_in_another_configuration_type_is_only_read() {
        for (name, expected) in [("1 (MBIM USBIF)", false), ("3 (Legacy-Generic)", true)] {
            let current = format!(
                "Config Index: 1\r\nConfig Type:  {name}\r\nInterface bitmask: 0000100D (diag,nmea,modem,mbim)"
            );
            let answers = [("AT!USBCOMP=?", MASKS), ("AT!USBCOMP?", &current), ("AT!USBCOMP=1,3,10D", "")];
            let mut modem = Modem::at("", &answers);
            let request = Request { wanted: "qmi".parse().ok(), ..Request::default() };
            let result = talk(&mut modem, "A710", "1199:90b1", |dialogue| read_and_set(dialogue, &request, &|_| false));
            let is_set = modem.seen.iter().any(|seen| seen.starts_with("AT!USBCOMP=1"));
            assert!(result.is_ok() == expected && is_set == expected, "{result:?}");
        }
    }

    #[test]
    fn a_direct_ip_modem_is_queried_only_for_its_product_id() {
        let answers = [("AT!UDPID=?", "68A2\r\n\r\n68A3"), ("AT!UDPID?", "68A3"), ("AT!UDPID=68A2", "")];
        let mut modem = Modem::at("", &answers);
        let reading = talk(&mut modem, "A710", "1199:68a3", |dialogue| {
            let reading = dialogue.read(None).unwrap();
            dialogue.set(&dialogue.table.of_product(0x68a2)).unwrap();
            reading
        });
        assert_eq!(values(&reading), ("68a3".to_owned(), ["68a2", "68a3"].map(str::to_owned).to_vec()));
        assert_eq!(modem.seen, ["ate0", "AT!UDPID=?", "AT!UDPID?", "AT!UDPID=68A2"]);
    }

    #[test]
    fn a_direct_ip_modem_gets_qmi_before_other_functions() {
        let answers =
            [("AT!UDPID=?", "68A2\r\n\r\n68A3"), ("AT!UDPID?", "68A3"), ("AT!UDPID=68A2", ""), ("AT!RESET", "")];
        for (wanted, reset, expected) in [
            ("qmi+mbim", true, Ok(true)),
            ("qmi", true, Ok(false)),
            ("qmi", false, Ok(false)),
            ("qmi+mbim", false, Err("after another change and a restart")),
            ("mbim", true, Err("does not list mbim")),
            ("14", true, Err("does not list 14")),
        ] {
            let mut modem = Modem::at("", &answers);
            let request = Request { wanted: wanted.parse().ok(), reset, ..Request::default() };
            let result = talk(&mut modem, "A710", "1199:68a3", |dialogue| read_and_set(dialogue, &request, &|_| false));
            match (result, expected) {
                (Ok(exchange), Ok(is_intermediate)) => {
                    assert_eq!(exchange.is_intermediate, is_intermediate, "{wanted}")
                }
                (Err(fault), Err(why)) => {
                    assert!(fault.to_string().contains(why), "{fault}");
                    assert_eq!(modem.seen.len(), 3, "{:?}", modem.seen);
                }
                (result, _) => panic!("{wanted}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_step_that_waits_for_a_restart_is_not_the_requested_composition() {
        let answers = [("AT!UDPID=?", "68A2\r\n\r\n68A3"), ("AT!UDPID?", "68A2"), ("AT!RESET", "")];
        for reset in [false, true] {
            let mut modem = Modem::at("", &answers);
            let request = Request { wanted: "qmi+mbim".parse().ok(), reset, ..Request::default() };
            let result = talk(&mut modem, "A710", "1199:68a3", |dialogue| read_and_set(dialogue, &request, &|_| true));
            assert_eq!(result.is_ok(), reset, "{result:?}");
        }
    }

    #[test]
    fn a_wrong_password_and_a_modem_without_the_commands_are_distinguished() {
        let mut locked = Modem::at("OTHER", &[("AT!USBCOMP=?", MASKS)]);
        let fault = talk(&mut locked, "A710", "1199:9071", |dialogue| dialogue.read(None).unwrap_err());
        assert!(matches!(fault, CompositionError::Password), "{fault}");
        assert_eq!(locked.seen.len(), 4, "{:?}", locked.seen);
        let mut other = Modem::at("A710", &[]);
        let fault = talk(&mut other, "A710", "1199:9071", |dialogue| dialogue.read(None).unwrap_err());
        assert!(matches!(fault, CompositionError::NoCommand(_)), "{fault}");
    }

    #[test]
    fn malformed_lines_are_skipped() {
        for line in ["", "-", "6 -", "x - SUPPORTED", "300 - SUPPORTED", "6 - NOT SUPPORTED", "UNSUPPORTED"] {
            assert_eq!(supported(line), None, "{line}");
        }
        for line in ["", "<Config Type>", "<Config Type> - 1", "<Config Type> - x:Generic", "Config Type:  1 (Generic)"]
        {
            assert_eq!(listed_types(line), [], "{line}");
        }
        for line in ["", "Config Type:", "Config Type: 1", "Config Type: x (Generic)", "Config Index: 1 (Generic)"] {
            assert_eq!(current_type(line), None, "{line}");
        }
        let types = [(1, "Generic"), (2, "USBIF-MBIM"), (3, "RNDIS")];
        assert_eq!(listed_types("  <Config Type>       - 1:Generic, 2:USBIF-MBIM, 3:RNDIS"), types);
        assert_eq!(current_type("Config Type:  4 (MBIM V2)"), Some((4, "MBIM V2")));
        assert_eq!(mask("Config Index: 1"), None);
        assert_eq!(mask("Interface bitmask: "), None);
        assert_eq!(number("6"), Some(6));
        assert_eq!(number("!UDUSBCOMP: 300"), None);
        assert!(bits(&["DIAG - 0x".to_owned(), "0x3".to_owned(), "X - 0x00000003,".to_owned()]).is_empty());
        assert_eq!(
            products(&["!UDPID: 68A2 (x) APP : 9071 BOOT: 9070".to_owned()]).collect::<Vec<_>>(),
            [0x68a2, 0x9071, 0x9070]
        );
    }
}
