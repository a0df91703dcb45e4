//! By the AT commands of a [`Family`].

use std::collections::BTreeMap;

use super::{Dialogue, Fault, Reading, Restart};
use crate::database::compositions::{Composition, Family, Wanted};
use crate::modem::link::LinkError;
use crate::modem::session::SessionError;
use crate::modem::session::at::Conversation;
use crate::modem::wire::Malformed;
use crate::outcome::Failure;

/// The AT port of a modem that belongs to one of these families.
pub struct FamilyConsole<'c, 'p> {
    at: &'c mut Conversation<'p>,
    families: Vec<&'c Family>,
    /// The one whose read command the modem knows.
    found: Option<&'c Family>,
}

impl<'c, 'p> FamilyConsole<'c, 'p> {
    pub fn new(at: &'c mut Conversation<'p>, families: Vec<&'c Family>) -> FamilyConsole<'c, 'p> {
        FamilyConsole { at, families, found: None }
    }

    /// The family whose read command the modem knows, and the answer.
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

    /// A refused command is an empty answer.
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
        let mut read_only = family.read_only();
        let mut offered: Vec<String> = Vec::new();
        match &family.test {
            Some(test) => {
                let listed = self.ask(&test.command)?.map(|lines| test.read(&lines)).unwrap_or_default();
                let is_listed = |value: &str| family.is_listed(value, &listed);
                if listed.is_empty() {
                    read_only = read_only.or(Some(format!("the modem does not answer {} with a list", test.command)));
                } else if !is_listed(current) {
                    let reason = format!("the modem does not list its current value {current}: there is no way back");
                    read_only = read_only.or(Some(reason));
                }
                offered.extend(family.values().filter(|value| is_listed(value)).map(str::to_owned));
                // What the table does not know is shown, and is set only without regard to the AT port.
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
