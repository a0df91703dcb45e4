//! By AT commands: `AT!UDPID` of modems that are DirectIP or QMI, `AT!UDUSBCOMP` by number, `AT!USBCOMP` by bitmask.
//!
//! Facts: Sierra's AT command references 2130616 and 4114486; help texts and answers as posted by users of an MC7455
//! (forum.sierrawireless.com 9372) and in the text of the Linux commit that adds 1199:90b1 and 1199:90c3.

use super::{Dialogue, Fault, Standing};
use crate::database::quirks::composition::{Bits, Composition, Table, Value, Wanted};
use crate::modem::link::LinkError;
use crate::modem::session::SessionError;
use crate::modem::session::at::Conversation;
use crate::modem::wire::{Malformed, at};

const PRODUCT: &str = "AT!UDPID";
const NUMBER: &str = "AT!UDUSBCOMP";
const MASK: &str = "AT!USBCOMP";
/// The modem's own name of the only type of configuration that keeps the product ID.
const GENERIC: &str = "generic";

/// A modem's AT port.
pub struct Console<'c, 'p> {
    at: &'c mut Conversation<'p>,
    password: &'c str,
    is_direct_ip: bool,
    /// The password was given.
    is_open: bool,
    /// The type that [`MASK`] wants before the bits.
    kind: u8,
}

impl<'c, 'p> Console<'c, 'p> {
    pub fn new(at: &'c mut Conversation<'p>, password: &'c str, is_direct_ip: bool) -> Console<'c, 'p> {
        Console { at, password, is_direct_ip, is_open: false, kind: 0 }
    }

    /// The command that the modem knows, and what it lists. The password is given when it knows none without.
    fn list(&mut self) -> Result<(&'static str, Vec<String>), Fault> {
        let commands: &[&'static str] = if self.is_direct_ip { &[PRODUCT] } else { &[NUMBER, MASK] };
        loop {
            for command in commands {
                match self.at.command(command, &format!("{command}=?")) {
                    Err(SessionError::At { .. }) => {}
                    listed => return Ok((command, listed?)),
                }
            }
            if self.is_open {
                return Err(Fault::NoCommand(if self.is_direct_ip { PRODUCT } else { "AT!UDUSBCOMP, AT!USBCOMP" }));
            }
            self.enter()?;
        }
    }

    /// Sends a command, and where the modem refuses it, the password and the command once more.
    fn command(&mut self, name: &'static str, command: &str) -> Result<Vec<String>, Fault> {
        match self.at.command(name, command) {
            Err(SessionError::At { .. }) if !self.is_open => {
                self.enter()?;
                Ok(self.at.command(name, command)?)
            }
            answered => Ok(answered?),
        }
    }

    fn enter(&mut self) -> Result<(), Fault> {
        match self.at.command("AT!ENTERCND", &format!("AT!ENTERCND=\"{}\"", self.password)) {
            Err(SessionError::At { .. }) => Err(Fault::Password),
            Err(error) => Err(error.into()),
            Ok(_) => {
                self.is_open = true;
                Ok(())
            }
        }
    }
}

impl Dialogue for Console<'_, '_> {
    fn standing(&mut self, table: &Table, wanted: Option<&Wanted>) -> Result<Standing, Fault> {
        let (by, listed) = self.list()?;
        let current = self.command(by, &format!("{by}?"))?;
        let missing = |field| SessionError::Malformed { request: by, malformed: Malformed::Missing { field } };
        let mut other = None;
        let (current, supported) = match by {
            PRODUCT => {
                let current = products(&current).next().ok_or(missing("product ID"))?;
                (table.of_product(current), products(&listed).map(|product| table.of_product(product)).collect())
            }
            NUMBER => {
                let current = current.iter().find_map(|line| number(line)).ok_or(missing("composition"))?;
                let supported: Vec<Composition> =
                    listed.iter().filter_map(|line| supported(line)).map(|number| table.of_number(number)).collect();
                (table.of_number(current), supported)
            }
            _ => {
                let bits = bits(&listed);
                self.kind = listed.iter().find_map(|line| generic(line)).ok_or(missing("generic type"))?;
                let current = current.iter().find_map(|line| mask(line)).ok_or(missing("interface bitmask"))?;
                if let Some(Wanted::Value(Value::Mask(mask))) = wanted {
                    other = table.allows(*mask, &bits).then(|| table.of_mask(*mask, &bits));
                }
                (table.of_mask(current, &bits), table.of_bits(&bits))
            }
        };
        Ok(Standing { by, current, supported, other })
    }

    fn set(&mut self, value: Value) -> Result<(), Fault> {
        match value {
            Value::Product(product) => self.command(PRODUCT, &format!("{PRODUCT}={product:04X}")),
            Value::Number(number) => self.command(NUMBER, &format!("{NUMBER}={number}")),
            Value::Mask(mask) => self.command(MASK, &format!("{MASK}=1,{},{mask:X}", self.kind)),
        }
        .map(drop)
    }

    fn reset(&mut self) -> Result<(), Fault> {
        match self.command("AT!RESET", "AT!RESET") {
            Err(Fault::Session(SessionError::NoAnswer { .. } | SessionError::Link(LinkError::Gone))) => Ok(()),
            answered => answered.map(drop),
        }
    }
}

/// The product IDs in lines like `68A2`, `!UDPID: 68A2` or `APP : 68A2`.
fn products(lines: &[String]) -> impl Iterator<Item = u16> {
    let words = lines.iter().flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()));
    words.filter(|word| word.len() == 4).filter_map(|word| u16::from_str_radix(word, 16).ok())
}

/// `!UDUSBCOMP: 6`, or the number alone.
fn number(line: &str) -> Option<u8> {
    let named = at::values(line, "!UDUSBCOMP").and_then(|values| values.first().copied());
    named.unwrap_or(line).parse().ok()
}

/// `6  - DM   NMEA  AT    QMI      SUPPORTED`, and not where it says `NOT SUPPORTED`.
fn supported(line: &str) -> Option<u8> {
    let (number, rest) = line.split_once('-')?;
    let supported = rest.ends_with("SUPPORTED") && !rest.ends_with("NOT SUPPORTED");
    number.trim().parse().ok().filter(|_| supported)
}

/// `<Config Type> - 1:Generic, 2:USBIF-MBIM, 3:RNDIS` of 74xx; `1:MBIM USBIF, 2:PCIE USBIF, 3:Legacy-Generic, 4:RNDIS` of
/// 75xx, which changes its product ID and loses its ports with another one.
fn generic(line: &str) -> Option<u8> {
    let (_, types) = line.split_once("<Config Type>")?.1.split_once('-')?;
    types.split(',').find_map(|kind| {
        let (number, name) = kind.split_once(':')?;
        number.trim().parse().ok().filter(|_| name.trim().to_ascii_lowercase().ends_with(GENERIC))
    })
}

/// The bits that are listed as `NMEA     - 0x00000004,`.
fn bits(lines: &[String]) -> Bits {
    let bit = |line: &String| {
        let (name, bit) = line.rsplit_once("0x")?;
        let name = name.trim_end_matches([' ', '-']).rsplit(' ').next()?;
        let bit = u32::from_str_radix(bit.trim_end_matches([',', ' ']), 16).ok()?;
        bit.is_power_of_two().then(|| (name.to_ascii_lowercase(), bit))
    };
    lines.iter().filter_map(bit).collect()
}

/// `Interface bitmask: 0000050D (diag,nmea,modem,rmnet0,rmnet1)`.
fn mask(line: &str) -> Option<u32> {
    let (name, mask) = line.split_once(':')?;
    let mask = u32::from_str_radix(mask.split_whitespace().next()?, 16).ok()?;
    name.eq_ignore_ascii_case("interface bitmask").then_some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::Deadline;
    use crate::host::deadline::clock::{self, StoppedClock};
    use crate::modem::link::Link;
    use std::collections::VecDeque;
    use std::time::Duration;

    /// As an EM7565 has it.
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

    /// An AT port that answers some commands, the protected ones after the password.
    struct Modem {
        answers: Vec<(&'static str, &'static str)>,
        password: &'static str,
        is_open: bool,
        seen: Vec<String>,
        waiting: VecDeque<u8>,
        read: Vec<u8>,
    }

    fn modem(password: &'static str, answers: &[(&'static str, &'static str)]) -> Modem {
        let answers = answers.to_vec();
        Modem {
            answers,
            password,
            is_open: password.is_empty(),
            seen: Vec::new(),
            waiting: VecDeque::new(),
            read: Vec::new(),
        }
    }

    impl Link for Modem {
        fn send(&mut self, message: &[u8], _: Deadline) -> Result<(), LinkError> {
            let command = std::str::from_utf8(message).unwrap().trim_end().to_owned();
            let open = format!("AT!ENTERCND=\"{}\"", self.password);
            let answer = self.answers.iter().find(|(asked, _)| *asked == command).map(|(_, answer)| *answer);
            let text = match answer {
                _ if command == "ate0" => "OK".to_owned(),
                _ if command == open => {
                    self.is_open = true;
                    "OK".to_owned()
                }
                Some(answer) if self.is_open => format!("{answer}\r\n\r\nOK"),
                _ => "ERROR".to_owned(),
            };
            self.seen.push(command);
            self.waiting.extend(format!("\r\n{text}\r\n").bytes());
            Ok(())
        }

        fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
            if self.waiting.is_empty() {
                clock::wait(by.remaining());
                return Ok(None);
            }
            self.read = self.waiting.drain(..).collect();
            Ok(Some(&self.read))
        }

        fn longest(&self) -> usize {
            4096
        }
    }

    fn talk<T>(modem: &mut Modem, password: &str, is_direct_ip: bool, with: impl FnOnce(&mut Console) -> T) -> T {
        let _clock = StoppedClock::stop();
        let mut at = Conversation::open(modem, Deadline::after(Duration::from_secs(2))).unwrap();
        with(&mut Console::new(&mut at, password, is_direct_ip))
    }

    fn values(standing: &Standing) -> (String, Vec<String>) {
        let supported = standing.supported.iter().map(|known| known.value.to_string()).collect();
        (standing.current.value.to_string(), supported)
    }

    #[test]
    fn numbers_are_read_and_set_with_a_password_where_one_is_wanted() {
        let answers = [("AT!UDUSBCOMP=?", NUMBERS), ("AT!UDUSBCOMP?", "!UDUSBCOMP: 14"), ("AT!UDUSBCOMP=8", "")];
        for (password, asked) in [("", 0), ("A710", 1)] {
            let mut modem = modem(password, &answers);
            let standing = talk(&mut modem, "A710", false, |console| {
                let standing = console.standing(&Table::shipped(), None).unwrap();
                console.set(Value::Number(8)).unwrap();
                standing
            });
            assert_eq!(standing.by, "AT!UDUSBCOMP");
            assert_eq!(values(&standing), ("14".to_owned(), ["6", "8", "9", "14"].map(str::to_owned).to_vec()));
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
        let mut modem = modem("A710", &answers);
        let (standing, odd) = talk(&mut modem, "A710", false, |console| {
            let table = Table::shipped();
            let standing = console.standing(&table, None).unwrap();
            console.set(Value::Mask(0x100d)).unwrap();
            let other = |text: &str| {
                text.parse().ok().and_then(|wanted| console.standing(&table, Some(&wanted)).unwrap().other)
            };
            (standing, ["0x1009", "0x1011", "8"].map(other))
        });
        assert_eq!(standing.by, "AT!USBCOMP");
        let supported = ["0x10d", "0x100d", "0x1000", "0x1004", "0x1001", "0x1005"].map(str::to_owned);
        assert_eq!(values(&standing), ("0x10d".to_owned(), supported.to_vec()));
        assert_eq!(odd.map(|odd| odd.map(|odd| odd.layout.to_string())), [Some("dm at mbim".to_owned()), None, None]);
    }

    #[test]
    fn a_direct_ip_modem_is_asked_for_its_product_id_alone() {
        let answers = [("AT!UDPID=?", "68A2\r\n\r\n68A3"), ("AT!UDPID?", "68A3"), ("AT!UDPID=68A2", "")];
        let mut modem = modem("", &answers);
        let standing = talk(&mut modem, "A710", true, |console| {
            let standing = console.standing(&Table::shipped(), None).unwrap();
            console.set(Value::Product(0x68a2)).unwrap();
            standing
        });
        assert_eq!(values(&standing), ("68a3".to_owned(), ["68a2", "68a3"].map(str::to_owned).to_vec()));
        assert_eq!(modem.seen, ["ate0", "AT!UDPID=?", "AT!UDPID?", "AT!UDPID=68A2"]);
    }

    #[test]
    fn a_wrong_password_and_a_modem_without_the_commands_are_told_apart() {
        let mut locked = modem("OTHER", &[("AT!USBCOMP=?", MASKS)]);
        let fault = talk(&mut locked, "A710", false, |console| console.standing(&Table::shipped(), None).unwrap_err());
        assert!(matches!(fault, Fault::Password), "{fault}");
        assert_eq!(locked.seen.len(), 4, "{:?}", locked.seen);
        let mut other = modem("A710", &[]);
        let fault = talk(&mut other, "A710", false, |console| console.standing(&Table::shipped(), None).unwrap_err());
        assert!(matches!(fault, Fault::NoCommand(_)), "{fault}");
    }

    #[test]
    fn odd_lines_say_nothing() {
        for line in ["", "-", "6 -", "x - SUPPORTED", "300 - SUPPORTED", "6 - NOT SUPPORTED", "UNSUPPORTED"] {
            assert_eq!(supported(line), None, "{line}");
        }
        for line in ["", "<Config Type>", "<Config Type> - 1", "<Config Type> - x:Generic", "Config Type:  1 (Generic)"]
        {
            assert_eq!(generic(line), None, "{line}");
        }
        assert_eq!(generic("  <Config Type>       - 1:Generic, 2:USBIF-MBIM, 3:RNDIS"), Some(1));
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
