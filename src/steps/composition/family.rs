//! Compositions by the AT commands of a [`Family`].

use std::collections::BTreeMap;

use super::{Dialogue, Fault, Reading, Restart};
use crate::bus::Bus;
use crate::database::compositions::{Composition, Family, Wanted};
use crate::modem::link::LinkError;
use crate::modem::session::SessionError;
use crate::modem::session::at::Conversation;
use crate::modem::wire::Malformed;
use crate::outcome::Failure;

/// The AT port of a modem that belongs to one of these families.
pub(super) struct FamilyConsole<'c, 'p> {
    at: &'c mut Conversation<'p>,
    families: Vec<&'c Family>,
    bus: Bus,
    /// The family whose read command the modem knows.
    found: Option<&'c Family>,
}

impl<'c, 'p> FamilyConsole<'c, 'p> {
    pub(super) fn new(at: &'c mut Conversation<'p>, families: Vec<&'c Family>, bus: Bus) -> FamilyConsole<'c, 'p> {
        FamilyConsole { at, families, bus, found: None }
    }

    /// Finds the family whose read command the modem knows. Also returns the reply.
    fn find(&mut self) -> Result<(&'c Family, Vec<String>), Fault> {
        for family in &self.families {
            match self.at.command("composition", &family.read.command) {
                Err(SessionError::At { .. }) => {}
                answer => return Ok((family, answer?)),
            }
        }
        let commands: Vec<&str> = self.families.iter().map(|family| family.read.command.as_str()).collect();
        Err(Fault::NoCommand(commands.join(", ")))
    }

    fn family(&self) -> Result<&'c Family, Fault> {
        self.found.ok_or_else(|| Fault::NoCommand("read first".to_owned()))
    }

    /// Sends a command. Returns `None` if the modem refuses it.
    fn ask(&mut self, command: &str) -> Result<Option<Vec<String>>, Fault> {
        match self.at.command("composition", command) {
            Err(SessionError::At { .. }) => Ok(None),
            answer => Ok(Some(answer?)),
        }
    }
}

impl Dialogue for FamilyConsole<'_, '_> {
    fn read(&mut self, wanted: Option<&Wanted>) -> Result<Reading, Fault> {
        let (family, answer) = self.find()?;
        self.found = Some(family);
        let malformed = Malformed::Missing { field: "composition" };
        let values = family.read.read(&answer);
        let [current] = values.as_slice() else {
            return Err(SessionError::Malformed { request: "composition", malformed }.into());
        };
        let mut read_only = family.read_only(self.bus);
        let mut offered: Vec<String> = Vec::new();
        match &family.test {
            Some(test) => {
                let listed = self.ask(&test.command)?.map(|lines| test.read(&lines)).unwrap_or_default();
                let is_listed = |value: &str| family.is_listed(value, &listed);
                if listed.is_empty() {
                    read_only = read_only.or(Some(format!("the modem does not answer {} with a list", test.command)));
                } else if !is_listed(current) {
                    let reason = format!(
                        "the modem does not list its current value {current}, so the change could not be reverted"
                    );
                    read_only = read_only.or(Some(reason));
                }
                offered.extend(family.values().filter(|value| is_listed(value)).map(str::to_owned));
                // Values that the table does not know are shown. They are set only if a composition without an AT port
                // is allowed.
                let is_new = |value: &&String| !offered.iter().any(|known| known.eq_ignore_ascii_case(value));
                let unknown: Vec<String> = match family.has_parts() {
                    true => [wanted_value(wanted), Some(current.clone())].into_iter().flatten().collect(),
                    false => listed.clone(),
                };
                let may_be = |value: &&String| is_listed(value) && (!family.has_parts() || family.accepts(value));
                offered.extend(unknown.iter().filter(is_new).filter(may_be).cloned().collect::<Vec<_>>());
            }
            None => offered.extend(family.values().map(str::to_owned)),
        }
        let mut seen = Vec::new();
        offered.retain(|value| {
            let refused = family.refused.keys().any(|refused| refused.eq_ignore_ascii_case(value));
            let is_new = !seen.contains(&value.to_ascii_uppercase());
            seen.push(value.to_ascii_uppercase());
            is_new && !refused
        });
        let refused = wanted_value(wanted).and_then(|wanted| {
            let (_, reason) = family.refused.iter().find(|(value, _)| value.eq_ignore_ascii_case(&wanted))?;
            Some(Err(Failure::new(format!("{wanted} is never set: {reason}"), "choose another composition")))
        });
        let mut facts = BTreeMap::new();
        for fact in &family.also {
            let lines = self.ask(&fact.command)?.unwrap_or_default();
            let value = lines.iter().find_map(|line| fact.answer.iter().find_map(|pattern| pattern.read(line)));
            facts.extend(value.map(|value| (fact.name.clone(), value.join(","))));
        }
        Ok(Reading {
            by: family.read.command.clone(),
            family: family.provenance(),
            current: family.composition(current),
            supported: offered.iter().map(|value| family.composition(value)).collect(),
            other: refused,
            read_only,
            restart: match (family.set_restarts, &family.restart) {
                (true, _) => Restart::BySetting,
                (false, Some(_)) => Restart::OnRequest,
                (false, None) => Restart::Unknown,
            },
            facts,
        })
    }

    fn set(&mut self, composition: &Composition) -> Result<(), Fault> {
        let family = self.family()?;
        let value = composition.value.to_string();
        let command = family.set(&value).ok_or_else(|| Fault::NoCommand(family.name.clone()))?;
        match self.at.command("composition", &command) {
            Err(SessionError::NoAnswer { .. } | SessionError::Link(LinkError::Gone)) if family.set_restarts => Ok(()),
            Err(SessionError::At { error, .. }) => Err(Fault::NotAccepted { value, answer: error }),
            Err(error) => Err(error.into()),
            Ok(lines) => match &family.accepted {
                Some(accepted) if !lines.iter().any(|line| accepted.read(line).is_some()) => {
                    Err(Fault::NotAccepted { value, answer: lines.join(" ") })
                }
                _ => Ok(()),
            },
        }
    }

    fn reset(&mut self) -> Result<(), Fault> {
        let family = self.family()?;
        let command = family.restart.as_ref().ok_or_else(|| Fault::NoCommand(family.name.clone()))?;
        match self.at.command("restart", command) {
            Err(SessionError::NoAnswer { .. } | SessionError::Link(LinkError::Gone)) => Ok(()),
            answer => Ok(answer.map(drop)?),
        }
    }
}

fn wanted_value(wanted: Option<&Wanted>) -> Option<String> {
    match wanted? {
        Wanted::Value(value) => Some(value.clone()),
        Wanted::Functions(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Request, read_and_set};
    use super::*;
    use crate::bus::DeviceId;
    use crate::database::compositions::shipped;
    use crate::host::deadline::Deadline;
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::fake::AtModem;
    use std::collections::BTreeSet;
    use std::time::Duration;

    /// Runs a request on a modem with this ID and these replies. Returns the commands that the modem received, and the
    /// value or the failure.
    fn ask(
        id: &str,
        answers: &[(&'static str, &'static str)],
        wanted: &str,
        reset: bool,
    ) -> (Vec<String>, Result<String, String>) {
        let (all, id): (_, DeviceId) = (shipped(), id.parse().unwrap());
        ask_families(all.families_of(id).collect(), id.bus, answers, wanted, reset)
    }

    fn ask_families(
        families: Vec<&Family>,
        bus: Bus,
        answers: &[(&'static str, &'static str)],
        wanted: &str,
        reset: bool,
    ) -> (Vec<String>, Result<String, String>) {
        let _clock = StoppedClock::stop();
        let mut port = AtModem::new("", answers);
        let mut at = Conversation::open(&mut port, Deadline::after(Duration::from_secs(2))).unwrap();
        let mut console = FamilyConsole::new(&mut at, families, bus);
        let request = Request { wanted: wanted.parse().ok(), no_at_port: true, reset, password: None };
        let result = read_and_set(&mut console, &request, &|_| false)
            .map(|exchange| exchange.chosen.unwrap_or(exchange.reading.current).value.to_string())
            .map_err(|fault| fault.failure().to_string());
        port.seen.remove(0);
        (port.seen, result)
    }

    const USBNET: &str = "AT+QCFG=\"usbnet\"";
    const QUECTEL: [(&str, &str); 4] = [
        (USBNET, "+QCFG: \"usbnet\",0"),
        ("AT+QCFG=?", "+QCFG: \"gprsattach\",(0,1)\r\n+QCFG: \"usbnet\",(0-3)"),
        ("AT+QCFG=\"usbnet\",1", ""),
        ("AT+CFUN=1,1", ""),
    ];

    #[test]
    fn a_value_is_set_and_the_modem_restarted_by_its_familys_commands() {
        let (seen, result) = ask("2c7c:0125", &QUECTEL, "ecm", true);
        assert_eq!(result.unwrap(), "1");
        let asked = [USBNET, "AT+QCFG=?", "AT+QCFG=\"data_interface\"", "AT+QCFG=\"usbnet\",1", "AT+CFUN=1,1"];
        assert_eq!(seen, asked);
        // A modem that restarts by itself receives no other command.
        let telit = [("AT#USBCFG?", "#USBCFG: 1"), ("AT#USBCFG=?", "#USBCFG: (0-3)"), ("AT#USBCFG=2", "")];
        let (seen, result) = ask("1bc7:1070", &telit, "mbim", true);
        assert_eq!((result.unwrap().as_str(), seen.last().unwrap().as_str()), ("2", "AT#USBCFG=2"));
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn the_family_is_the_one_whose_read_command_the_modem_knows() {
        let sim82xx = [("AT+CUSBCFG?", "USBID: 0X1E0E,0X9001"), ("AT+CUSBCFG=usbid,1e0e,9011", "")];
        let (seen, result) = ask("1e0e:9001", &sim82xx, "rndis", false);
        assert_eq!(result.unwrap(), "9011");
        assert_eq!(seen, ["AT+CUSBPIDSWITCH?", "AT+CUSBCFG?", "AT+CPCIEMODE?", "AT+CUSBCFG=usbid,1e0e,9011"]);
        let (_, result) = ask("1e0e:9001", &[], "", false);
        assert!(result.unwrap_err().contains("AT+CUSBPIDSWITCH?, AT+CUSBCFG?"));
    }

    #[test]
    fn without_a_way_back_nothing_is_set() {
        let without = |command: &str, answer: Option<&'static str>| -> Vec<(&'static str, &'static str)> {
            let others = QUECTEL.into_iter().filter(|(known, _)| *known != command);
            others.chain(answer.map(|answer| (if command == USBNET { USBNET } else { "AT+QCFG=?" }, answer))).collect()
        };
        for (answers, wanted, expected) in [
            (without("AT+QCFG=?", None), "ecm", "does not answer AT+QCFG=? with a list"),
            (without("AT+QCFG=?", Some("+QCFG: \"usbnet\",(1-3)")), "ecm", "does not list its current value 0"),
            (without("AT+QCFG=?", Some("+QCFG: \"usbnet\",(0,2)")), "ecm", "does not list ecm as supported"),
            (without(USBNET, Some("+QCFG: \"usbspeed\",0")), "ecm", "malformed"),
            (without(USBNET, Some("+QCFG: \"usbnet\",0\r\n+QCFG: \"usbnet\",1")), "ecm", "malformed"),
            (QUECTEL.to_vec(), "pcie", "pcie is never set"),
            (QUECTEL.to_vec(), "PCIE/mode", "is never set"),
        ] {
            let (seen, result) = ask("2c7c:0125", &answers, wanted, true);
            let failure = result.unwrap_err();
            assert!(failure.contains(expected), "{failure}");
            assert!(!seen.iter().any(|seen| seen.contains("\",") || seen.contains("CFUN")), "{expected}: {seen:?}");
        }
    }

    #[test]
    fn a_refusal_followed_by_ok_is_a_failure() {
        let read = ("AT+ZCDRUN=4", "Inquiry autorun open state result(0:NO 1:YES):1");
        for (answer, is_success) in [(":1", true), (":0", false)] {
            let close = if is_success {
                "Close autorun state result(0:FAIL 1:SUCCESS):1"
            } else {
                "Close autorun state result(0:FAIL 1:SUCCESS):0"
            };
            let (_, result) = ask("19d2:0031", &[read, ("AT+ZCDRUN=8", close)], "0", false);
            assert_eq!(result.is_ok(), is_success, "{answer}: {result:?}");
        }
    }

    #[test]
    fn a_list_of_ports_is_set_if_all_its_parts_are_listed() {
        let e3372 = [
            ("AT^SETPORT?", "^SETPORT:A1,A2;12,10,16,A1,A2"),
            (
                "AT^SETPORT=?",
                "^SETPORT:10: 4G MODEM\r\n^SETPORT:12: 4G PCUI\r\n^SETPORT:16: NCM\r\n^SETPORT:A1: CDROM\r\n^SETPORT:A2: SD",
            ),
            ("AT^SETPORT=\"FF;10,12,16\"", ""),
            ("AT^SETPORT=\"FF;12,16\"", ""),
        ];
        for (wanted, set) in [("ncm", Some("FF;10,12,16")), ("FF;12,16", Some("FF;12,16")), ("FF;12,3", None)] {
            let (seen, result) = ask("12d1:1506", &e3372, wanted, false);
            assert_eq!(result.ok().as_deref(), set, "{wanted}");
            assert_eq!(seen.len(), 2 + usize::from(set.is_some()), "{seen:?}");
        }
    }

    /// The replies of a modem of this family that has the value `current` and can have every value of the table.
    fn answers_of(family: &Family, current: &str) -> Vec<(&'static str, &'static str)> {
        let read = family.read.answer[0].line(current, "");
        let mut answers = vec![(family.read.command.clone(), read)];
        if let Some(test) = &family.test {
            let all: Vec<&str> = family.values().collect();
            let parts: Vec<&str> = all.iter().flat_map(|value| value.split([',', ';'])).collect();
            let listed = match family.has_parts() {
                true => parts.iter().map(|part| test.answer[0].line(part, "")).collect::<Vec<_>>().join("\r\n"),
                false => test.answer[0].line("", &all.join(",")),
            };
            answers.push((test.command.clone(), listed));
        }
        let accepted = family.accepted.as_ref().map_or(String::new(), |accepted| accepted.line("", ""));
        let set = family.values().filter_map(|value| family.set(value)).map(|command| (command, accepted.clone()));
        answers.extend(set);
        answers.extend(family.restart.clone().map(|restart| (restart, String::new())));
        answers.into_iter().map(|(command, answer)| (&*command.leak(), &*answer.leak())).collect()
    }

    #[test]
    fn every_family_takes_each_of_its_values_and_its_previous_one() {
        for family in shipped().families.iter().filter(|family| family.read_only(Bus::Usb).is_none()) {
            let values: Vec<&str> = family.values().collect();
            let commands: BTreeSet<_> = values.iter().map(|value| family.set(value)).collect();
            assert_eq!(commands.len(), values.len(), "{}: {commands:?}", family.name);
            for (had, wanted) in values.iter().flat_map(|had| values.iter().map(move |wanted| (*had, *wanted))) {
                let can_restart = family.restart.is_some() || family.set_restarts;
                let answers = answers_of(family, had);
                let (seen, result) = ask_families(vec![family], Bus::Usb, &answers, wanted, can_restart);
                let name = format!("{}: {wanted} instead of {had}", family.name);
                assert_eq!(result.as_deref(), Ok(wanted), "{name}");
                let mut sent: Vec<String> = family.set(wanted).into_iter().chain(family.restart.clone()).collect();
                if had == wanted {
                    sent.clear();
                }
                let changes = |command: &&String| {
                    values.iter().any(|value| family.set(value).as_ref() == Some(command))
                        || family.restart.as_ref() == Some(command)
                };
                assert_eq!(seen.iter().filter(changes).collect::<Vec<_>>(), sent.iter().collect::<Vec<_>>(), "{name}");
            }
        }
    }

    #[test]
    fn on_pci_a_composition_is_read_and_never_set() {
        let fm350 = [
            ("AT+GTUSBMODE?", "+GTUSBMODE: 41"),
            ("AT+GTUSBMODE=?", "+GTUSBMODE: (40,41)"),
            ("AT+GTUSBMODE=40", ""),
            ("AT+CFUN=15", ""),
        ];
        let asked = ["AT+GTUSBMODE?", "AT+GTUSBMODE=?", "AT+GTDIPCMODE?"];
        for (wanted, value) in [("", Some("41")), ("41", Some("41")), ("40", None)] {
            let (seen, result) = ask("pci:14c3:4d75", &fm350, wanted, true);
            assert_eq!(seen, asked, "{wanted}");
            assert_eq!(result.as_deref().ok(), value, "{wanted}: {result:?}");
        }
        let (seen, result) = ask("0e8d:7127", &fm350, "40", true);
        assert_eq!((result.unwrap().as_str(), seen.len()), ("40", 5));
    }
}
