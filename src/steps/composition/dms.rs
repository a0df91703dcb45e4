//! Compositions by QMI: messages 0x555B and 0x555C of the device management service.

use super::{Dialogue, Fault, Reading, Restart};
use crate::database::compositions::{Composition, Sierra, Value, Wanted};
use crate::modem::link::LinkError;
use crate::modem::session::SessionError;
use crate::modem::session::qmi::Client;
use crate::modem::wire::Malformed;
use crate::modem::wire::qmi::{OperatingMode, dms};
use log::debug;

pub(super) struct Dms<'d, 'c> {
    pub(crate) client: &'d mut Client<'c>,
    pub table: &'d Sierra,
    pub by: &'static str,
}

impl Dialogue for Dms<'_, '_> {
    fn read(&mut self, _: Option<&Wanted>) -> Result<Reading, Fault> {
        let (current, supported) = self.client.request(dms::SWI_GET_USB_COMPOSITION, &[])?.read(|tlvs| {
            let field = "supported compositions";
            let current = tlvs.u8(0x10, "composition")?;
            let supported = match tlvs.get(0x11, field)? {
                [count, numbers @ ..] => numbers.get(..usize::from(*count)).ok_or(Malformed::Short {
                    field,
                    needed: usize::from(*count),
                    had: numbers.len(),
                })?,
                [] => return Err(Malformed::Short { field, needed: 1, had: 0 }),
            };
            Ok((current, supported.to_vec()))
        })?;
        Ok(Reading {
            by: self.by.to_owned(),
            family: self.table.provenance(),
            current: self.table.of_number(current),
            supported: supported.into_iter().map(|number| self.table.of_number(number)).collect(),
            other: None,
            read_only: None,
            restart: Restart::OnRequest,
            facts: Default::default(),
        })
    }

    fn set(&mut self, composition: &Composition) -> Result<(), Fault> {
        let Value::Number(number) = composition.value else { return Err(Fault::NoCommand(self.by.to_owned())) };
        self.client.request(dms::SWI_SET_USB_COMPOSITION, &[(0x01, &[number])])?;
        Ok(())
    }

    /// Resets the modem, which is possible only in offline mode. If the modem refuses, restores its previous mode.
    fn reset(&mut self) -> Result<(), Fault> {
        let before = self.client.request(dms::GET_OPERATING_MODE, &[])?.read(|tlvs| tlvs.u8(0x01, "operating mode"))?;
        let is_offline =
            match self.client.request_in_half(dms::SET_OPERATING_MODE, &[(0x01, &[OperatingMode::Offline.into()])]) {
                // If only the answer is lost, the modem can be reset.
                Ok(_) | Err(SessionError::NoAnswer { .. }) => Ok(()),
                Err(error) => Err(error),
            };
        let mut set = |mode: u8| self.client.request(dms::SET_OPERATING_MODE, &[(0x01, &[mode])]);
        match is_offline.and_then(|()| set(OperatingMode::Reset.into())) {
            // The modem that restarts may not answer.
            Ok(_) | Err(SessionError::NoAnswer { .. } | SessionError::Link(LinkError::Gone)) => Ok(()),
            Err(refused) => {
                if let Err(error) = set(before) {
                    debug!("{error}");
                }
                Err(refused.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::compositions::shipped;
    use crate::host::deadline::Deadline;
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::scripted::{Face, Modem};
    use crate::modem::transport::{Protocol, Transport, over_qmi};
    use crate::modem::wire::qmi::Service;
    use crate::steps::composition::{Exchange, Request, read_and_set};
    use std::time::Duration;

    const LISTED: &[u8] = &[10, 1, 6, 7, 8, 9, 10, 11, 12, 14, 19];

    fn modem(face: Face) -> Modem {
        let mut modem = Modem::locked(face);
        modem.composition = Some((14, LISTED));
        modem
    }

    /// Sets composition 8 and restarts the modem.
    fn set(modem: &mut Modem) -> Result<Exchange, Fault> {
        let _clock = StoppedClock::stop();
        let deadline = Deadline::after(Duration::from_millis(1500));
        let protocol = if modem.face == Face::Mbim { Protocol::Mbim } else { Protocol::Qmi };
        let wanted = Wanted::Value("8".to_owned());
        let waits = |_: &Composition| true;
        let request = Request { wanted: Some(wanted), reset: true, ..Request::default() };
        let table = shipped().sierra.unwrap();
        let exchange = over_qmi(Transport { port: modem, protocol, proxied: None }, deadline, |qmux| {
            let mut client = Client::allocate(qmux, Service::DMS, deadline)?;
            Ok(read_and_set(&mut Dms { client: &mut client, table: &table, by: "QMI" }, &request, &waits))
        });
        exchange?
    }

    #[test]
    fn a_composition_is_read_and_set_and_nothing_is_left_behind() {
        for face in [Face::Qmi, Face::Mbim] {
            let mut modem = modem(face);
            let exchange = set(&mut modem).unwrap();
            assert_eq!(exchange.reading.current.value, Value::Number(14));
            let listed: Vec<_> = exchange.reading.supported.iter().map(|known| known.value.clone()).collect();
            assert_eq!(listed, LISTED[1..].iter().map(|number| Value::Number(*number)).collect::<Vec<_>>());
            assert_eq!((modem.composition, modem.mode, exchange.resets), (Some((8, LISTED)), 4, true));
            assert!(modem.cids.is_empty() && !modem.is_open);
        }
    }

    #[test]
    fn a_modem_that_refuses_to_restart_keeps_its_mode() {
        let mut modem = modem(Face::Qmi);
        modem.refuses_reset = true;
        let failure = set(&mut modem).unwrap().failure.unwrap().to_string();
        assert!(failure.starts_with("composition 8 is set, but the modem does not restart"), "{failure}");
        assert_eq!((modem.composition, modem.mode), (Some((8, LISTED)), 1));
    }

    #[test]
    fn a_modem_whose_answer_is_lost_restarts() {
        let mut modem = modem(Face::Qmi);
        modem.loses = Some(dms::SET_OPERATING_MODE.id);
        let exchange = set(&mut modem).unwrap();
        assert_eq!((exchange.failure, modem.mode), (None, 4));
    }

    #[test]
    fn other_modems_and_malformed_lists_are_distinguished() {
        for face in [Face::Qmi, Face::Mbim] {
            assert!(set(&mut Modem::locked(face)).unwrap_err().is_unsupported());
            let mut bare = modem(face);
            bare.has_no_qmi = true;
            assert_eq!(set(&mut bare).is_err_and(|fault| fault.is_unsupported()), face == Face::Mbim);
            for listed in [&[][..], &[1], &[11, 1, 6]] {
                let mut odd = modem(face);
                odd.composition = Some((14, listed));
                let fault = set(&mut odd).unwrap_err();
                assert!(fault.to_string().contains("malformed"), "{fault}");
                assert_eq!((odd.composition, odd.cids.len()), (Some((14, listed)), 0));
            }
        }
    }

    #[test]
    fn the_modem_may_leave_and_the_run_may_be_stopped_at_any_transfer() {
        for face in [Face::Qmi, Face::Mbim] {
            let mut whole = modem(face);
            set(&mut whole).unwrap();
            for at in 0..whole.transfers {
                let mut stopped = modem(face);
                stopped.interrupted_at = Some(at);
                let _ = set(&mut stopped);
                assert!(stopped.cids.is_empty() && !stopped.is_open, "stopped at {at}");
                let mut gone = modem(face);
                gone.gone_at = Some(at);
                let exchange = set(&mut gone);
                assert!(exchange.is_ok() || gone.mode == 1, "gone at {at}: {exchange:?}");
            }
        }
    }
}
