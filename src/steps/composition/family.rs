//! Compositions by the AT commands of a [`Family`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::dialogue::{CompositionError, CompositionState, Dialogue, Restart};
use crate::bus::Bus;
use crate::database::compositions::family::Query;
use crate::database::compositions::{Composition, Family, Wanted, spelling};
use crate::host::deadline::Deadline;
use crate::modem::session::SessionError;
use crate::modem::session::at::Conversation;
use crate::modem::wire::Malformed;
use crate::outcome::Failure;

/// How long a modem may take to answer a query for another setting.
const SETTING_TIMEOUT: Duration = Duration::from_secs(2);

/// The AT port of a modem that belongs to one of these families.
pub(super) struct FamilyAt<'c, 'p> {
    at: &'c mut Conversation<'p>,
    families: Vec<&'c Family>,
    bus: Bus,
    /// The family whose read command the modem knows.
    found: Option<&'c Family>,
}

impl<'c, 'p> FamilyAt<'c, 'p> {
    pub(super) fn new(at: &'c mut Conversation<'p>, families: Vec<&'c Family>, bus: Bus) -> FamilyAt<'c, 'p> {
        FamilyAt { at, families, bus, found: None }
    }

    /// Finds the family whose read command the modem knows. Also returns the current value.
    fn find(&mut self) -> Result<(&'c Family, String), CompositionError> {
        for family in &self.families {
            let values = |lines: &[String]| Some(family.read.read(lines)).filter(|values| !values.is_empty());
            match self.at.query("composition", &family.read.command, values) {
                Err(error) if error.is_unsupported() => {}
                answer => {
                    let malformed = Malformed::Missing { field: "composition" };
                    return match answer?.as_deref() {
                        Some([current]) => Ok((family, current.clone())),
                        _ => Err(SessionError::Malformed { request: "composition", malformed }.into()),
                    };
                }
            }
        }
        Err(self.no_command())
    }

    fn family(&self) -> Result<&'c Family, CompositionError> {
        self.found.ok_or_else(|| self.no_command())
    }

    fn no_command(&self) -> CompositionError {
        let commands: Vec<&str> = self.families.iter().map(|family| family.read.command.as_str()).collect();
        CompositionError::NoCommand(commands.join(", "))
    }

    /// The values that the modem lists. Empty if it does not answer with a list.
    fn list(&mut self, test: &Query) -> Result<Vec<String>, CompositionError> {
        let values = |lines: &[String]| Some(test.read(lines)).filter(|values| !values.is_empty());
        match self.at.query("composition", &test.command, values) {
            Err(SessionError::At { .. }) => Ok(Vec::new()),
            answer => Ok(answer?.unwrap_or_default()),
        }
    }

    /// The other settings. The error names a command whose answer did not come in time: it may come later, and be taken
    /// for the answer to another command.
    fn settings(&mut self, family: &Family) -> Result<(BTreeMap<String, String>, Option<String>), CompositionError> {
        let mut settings = BTreeMap::new();
        for setting in &family.also {
            let value = |lines: &[String]| {
                lines.iter().find_map(|line| setting.answer.iter().find_map(|pattern| pattern.read(line)))
            };
            match self.at.within(Deadline::after(SETTING_TIMEOUT), |at| at.query("setting", &setting.command, value)) {
                Ok(value) => settings.extend(value.map(|value| (setting.name.clone(), value.join(",")))),
                Err(SessionError::At { .. }) => {}
                Err(SessionError::NoAnswer { .. } | SessionError::Garbage { .. }) => {
                    return Ok((settings, Some(format!("the modem does not answer {}", setting.command))));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((settings, None))
    }
}

/// The compositions that a modem with this value can get, and why none may be set. `listed` are the values of its test
/// command.
fn offer(
    family: &Family,
    current: &str,
    listed: &[String],
    wanted: Option<&Wanted>,
) -> (Vec<Composition>, Option<String>) {
    let mut values: Vec<String> = family.values().map(str::to_owned).collect();
    if family.test.is_some() {
        // Values that the table does not know are shown. They are set only if a composition without an AT port is
        // allowed.
        match family.has_parts() {
            true => values.extend([wanted_value(wanted), Some(current.to_owned())].into_iter().flatten()),
            false => values.extend_from_slice(listed),
        }
        values.retain(|value| {
            family.is_listed(value, listed) && (!family.has_parts() || family.composition(value).is_known())
        });
    }
    let mut supported: Vec<Composition> = Vec::new();
    values.retain(|value| family.refusal(value).is_none() && family.set(value).is_some());
    for composition in values.iter().map(|value| family.composition(value)) {
        if !supported.iter().any(|known| known.value == composition.value) {
            supported.push(composition);
        }
    }
    let current = family.composition(current);
    let reason = match &family.test {
        _ if supported.iter().any(|known| known.value == current.value) => return (supported, None),
        Some(test) if listed.is_empty() => format!("the modem does not answer {} with a list", test.command),
        Some(_) if !family.is_listed(&current.value.to_string(), listed) => {
            format!("the modem does not list its current value {}, so the change could not be reverted", current.value)
        }
        _ => format!("wwan-quirks cannot set the current value {}, so the change could not be reverted", current.value),
    };
    (supported, Some(reason))
}

impl Dialogue for FamilyAt<'_, '_> {
    fn read(&mut self, wanted: Option<&Wanted>) -> Result<CompositionState, CompositionError> {
        let (family, current) = self.find()?;
        self.found = Some(family);
        let listed = match &family.test {
            Some(test) => self.list(test)?,
            None => Vec::new(),
        };
        let current = spelling(&current, listed.iter().map(String::as_str)).unwrap_or(&current);
        let (supported, reason) = offer(family, current, &listed, wanted);
        let (settings, late) = self.settings(family)?;
        let refused = wanted_value(wanted).and_then(|wanted| {
            let reason = family.refusal(&wanted)?;
            Some(Err(Failure::new(format!("{wanted} is never set: {reason}"), "choose another composition")))
        });
        Ok(CompositionState {
            by: family.read.command.clone(),
            family: family.provenance(),
            current: family.composition(current),
            supported,
            other: refused,
            read_only: family.read_only(self.bus).or(reason).or(late),
            restart: match (family.set_restarts, &family.restart) {
                (true, _) => Restart::BySetting,
                (false, Some(_)) => Restart::OnRequest,
                (false, None) => Restart::Unknown,
            },
            settings,
        })
    }

    fn set(&mut self, composition: &Composition) -> Result<(), CompositionError> {
        let family = self.family()?;
        let value = composition.value.to_string();
        let command = family.set(&value).ok_or_else(|| CompositionError::NoCommand(family.name.clone()))?;
        match self.at.command("composition", &command) {
            Err(error) if family.set_restarts && error.is_departure() => Ok(()),
            Err(SessionError::At { error, .. }) => Err(CompositionError::NotAccepted { value, answer: error }),
            Err(error) => Err(error.into()),
            Ok(lines) => match &family.accepted {
                Some(accepted) if !lines.iter().any(|line| accepted.read(line).is_some()) => {
                    Err(CompositionError::NotAccepted { value, answer: lines.join(" ") })
                }
                _ => Ok(()),
            },
        }
    }

    fn reset(&mut self) -> Result<(), CompositionError> {
        let family = self.family()?;
        let command = family.restart.as_ref().ok_or_else(|| CompositionError::NoCommand(family.name.clone()))?;
        match self.at.command("restart", command) {
            Err(error) if error.is_departure() => Ok(()),
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
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::fake::Modem;
    use std::collections::BTreeSet;
    use std::time::Duration;

    /// Instead of a reply: no reply.
    const MUTE: &str = "no reply";

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
        answers: &[(&str, &str)],
        wanted: &str,
        reset: bool,
    ) -> (Vec<String>, Result<String, String>) {
        let _clock = StoppedClock::stop();
        let mute = answers.iter().find(|(_, answer)| *answer == MUTE).map_or("no command", |(command, _)| command);
        let mut port = Modem::at("", answers).with("mute");
        port.fault(&format!("at-message={mute}"));
        let mut at = Conversation::open(&mut port, Deadline::after(Duration::from_secs(2))).unwrap();
        let mut dialogue = FamilyAt::new(&mut at, families, bus);
        let request = Request { wanted: wanted.parse().ok(), no_at_port: true, reset, password: None };
        let result = read_and_set(&mut dialogue, &request, &|_| false)
            .map(|exchange| exchange.chosen.unwrap_or(exchange.reading.current).value.to_string())
            .map_err(|fault| fault.failure().to_string());
        (port.seen.split_off(1), result)
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
    fn a_value_that_cannot_be_set_again_is_not_replaced() {
        const LISTED: &str = "^SETPORT:10: MODEM\r\n^SETPORT:12: PCUI\r\n^SETPORT:16: NCM\r\n^SETPORT:44: OTHER";
        for (id, answers, wanted, value) in [
            ("1546:1146", &[("AT+UUSBCONF?", "+UUSBCONF: 3,\"RNDIS\",,\"0x1146\"")][..], "ecm", "3"),
            ("1546:1141", &[("AT+UUSBCONF?", "+UUSBCONF: 5,\"\",,\"0x1141\"")], "ecm", "5"),
            ("1e0e:9001", &[("AT+CUSBCFG?", "USBID: 0X1E0E,0X9024")], "qmi", "9024"),
            ("05c6:90d5", &[("AT^USBSWITCH?", "^USBSWITCH: 0x90d6")], "qmi", "90d6"),
            ("12d1:1506", &[("AT^SETPORT?", "^SETPORT:FF;12,44"), ("AT^SETPORT=?", LISTED)], "ncm", "FF;12,44"),
        ] {
            let (seen, result) = ask(id, answers, wanted, false);
            let reason = format!("cannot set the current value {value}, so the change could not be reverted");
            assert!(result.as_ref().unwrap_err().contains(&reason), "{result:?}");
            assert!(seen.iter().all(|command| command.ends_with('?')), "{seen:?}");
            assert_eq!(ask(id, answers, "", false).1.as_deref(), Ok(value));
        }
    }

    #[test]
    fn an_error_other_than_an_unknown_command_is_reported() {
        let sim82xx = [("AT+CUSBPIDSWITCH?", "+CME ERROR: 50"), ("AT+CUSBCFG?", "USBID: 0X1E0E,0X9001")];
        let (seen, result) = ask("1e0e:9001", &sim82xx, "", false);
        assert!(result.unwrap_err().contains("+CME ERROR: 50"));
        assert_eq!(seen, ["AT+CUSBPIDSWITCH?"]);
        let sim82xx = [("AT+CUSBPIDSWITCH?", "+CME ERROR: 100"), sim82xx[1]];
        assert_eq!(ask("1e0e:9001", &sim82xx, "", false).1.as_deref(), Ok("9001"));
    }

    #[test]
    fn values_that_differ_in_letter_case_are_distinguished() {
        let gosuncn = [
            ("AT+ZSWITCH?", "+ZSWITCH: e"),
            ("AT+ZSWITCH=?", "+ZSWITCH: (e,E,l,r,x)"),
            ("AT+ZSWITCH=E", ""),
            ("AT+ZSWITCH=x", ""),
        ];
        for (wanted, set) in [("e", "e"), ("E", "E"), ("X", "x")] {
            let (seen, result) = ask("305a:1406", &gosuncn, wanted, false);
            assert_eq!(result.as_deref(), Ok(set), "{wanted}");
            assert_eq!(seen.len(), 2 + usize::from(set != "e"), "{seen:?}");
        }
        let e3372 = [
            ("AT^SETPORT?", "^SETPORT:a1,a2;10,12,16,a1,a2"),
            ("AT^SETPORT=?", "^SETPORT:10:\r\n^SETPORT:12:\r\n^SETPORT:16:\r\n^SETPORT:a1:\r\n^SETPORT:a2:"),
            ("AT^SETPORT=\"FF;10,12,16\"", ""),
        ];
        assert_eq!(ask("12d1:1506", &e3372, "ff;10,12,16", false).1.as_deref(), Ok("FF;10,12,16"));
    }

    #[test]
    fn a_word_is_not_the_value_of_a_line_without_name() {
        let setmode = [("AT^SETMODE?", "RING\r\n4"), ("AT^SETMODE=?", "CONNECT\r\n(0-8)")];
        assert_eq!(ask("3466:3301", &setmode, "", false).1.as_deref(), Ok("4"));
    }

    #[test]
    fn a_setting_that_is_not_answered_prevents_only_changes() {
        let mut answers = QUECTEL.to_vec();
        answers.push(("AT+QCFG=\"data_interface\"", MUTE));
        assert_eq!(ask("2c7c:0125", &answers, "", true).1.as_deref(), Ok("0"));
        let (seen, result) = ask("2c7c:0125", &answers, "ecm", true);
        assert!(result.unwrap_err().contains("does not answer AT+QCFG=\"data_interface\""));
        assert_eq!(seen.len(), 3, "{seen:?}");
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
            let values: Vec<&str> = family.values().filter(|value| family.set(value).is_some()).collect();
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
