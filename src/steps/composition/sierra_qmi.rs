//! Compositions of Sierra modems by QMI: messages 0x555B and 0x555C of the device management service.

use super::dialogue::{CompositionError, CompositionState, Dialogue, Restart};
use crate::database::compositions::{Composition, Sierra, Value, Wanted};
use crate::modem::session::SessionError;
use crate::modem::session::qmi::Client;
use crate::modem::wire::Malformed;
use crate::modem::wire::qmi::{OperatingMode, dms};
use log::debug;

pub(super) struct SierraQmi<'d, 'c> {
    pub client: &'d mut Client<'c>,
    pub table: &'d Sierra,
    pub by: &'static str,
}

impl Dialogue for SierraQmi<'_, '_> {
    fn read(&mut self, _: Option<&Wanted>) -> Result<CompositionState, CompositionError> {
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
        Ok(CompositionState {
            by: self.by.to_owned(),
            family: self.table.provenance(),
            current: self.table.of_number(current),
            supported: supported.into_iter().map(|number| self.table.of_number(number)).collect(),
            other: None,
            read_only: None,
            restart: Restart::OnRequest,
            settings: Default::default(),
        })
    }

    fn set(&mut self, composition: &Composition) -> Result<(), CompositionError> {
        let Value::Number(number) = composition.value else {
            return Err(CompositionError::NoCommand(self.by.to_owned()));
        };
        self.client.request(dms::SWI_SET_USB_COMPOSITION, &[(0x01, &[number])])?;
        Ok(())
    }

    /// Resets the modem, which is possible only in offline mode. If the modem refuses, restores its previous mode.
    fn reset(&mut self) -> Result<(), CompositionError> {
        let before = self.client.request(dms::GET_OPERATING_MODE, &[])?.read(|tlvs| tlvs.u8(0x01, "operating mode"))?;
        let set = |client: &mut Client, mode: u8| client.request(dms::SET_OPERATING_MODE, &[(0x01, &[mode])]);
        let half = self.client.work_deadline().share(2);
        let is_offline = match self.client.within(half, |client| set(client, OperatingMode::Offline.into())) {
            // If only the answer is lost, the modem can be reset.
            Ok(_) | Err(SessionError::NoAnswer { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        let mut set = |mode: u8| set(self.client, mode);
        match is_offline.and_then(|()| set(OperatingMode::Reset.into())) {
            Ok(_) => Ok(()),
            Err(error) if error.is_departure() => Ok(()),
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
    use crate::modem::link::fake::Modem;
    use crate::modem::transport::{Protocol, Transport, over_qmi};
    use crate::modem::wire::qmi::Service;
    use crate::steps::composition::{Exchange, Request, read_and_set};
    use ::modem::composition::Composition as Simulated;
    use ::modem::radio::{LOW_POWER, Lock, Transition};
    use std::time::Duration;

    const PROTOCOLS: [Protocol; 2] = [Protocol::Qmi, Protocol::Mbim];
    const LISTED: [u8; 10] = [1, 6, 7, 8, 9, 10, 11, 12, 14, 19];

    fn modem(protocol: Protocol) -> Modem {
        let mut modem = Modem::with_lock(protocol, Lock::Sierra);
        modem.next_composition = Some(Simulated::numbered(14));
        modem
    }

    fn number(modem: &Modem) -> Option<u8> {
        modem.next_composition.as_ref().map(|composition| composition.number)
    }

    /// Sets composition 8 and restarts the modem.
    fn set(modem: &mut Modem) -> Result<Exchange, CompositionError> {
        let _clock = StoppedClock::stop();
        let deadline = Deadline::after(Duration::from_millis(1500));
        let wanted = Wanted::Value("8".to_owned());
        let waits = |_: &Composition| true;
        let request = Request { wanted: Some(wanted), reset: true, ..Request::default() };
        let table = shipped().sierra.unwrap();
        let exchange = over_qmi(Transport { protocol: modem.protocol, port: modem, proxied: None }, deadline, |qmux| {
            let mut client = Client::allocate(qmux, Service::DMS, deadline)?;
            Ok(read_and_set(&mut SierraQmi { client: &mut client, table: &table, by: "QMI" }, &request, &waits))
        });
        exchange?
    }

    #[test]
    fn a_composition_is_read_and_set_and_nothing_is_left_behind() {
        for protocol in PROTOCOLS {
            let mut modem = modem(protocol);
            let exchange = set(&mut modem).unwrap();
            assert_eq!(exchange.reading.current.value, Value::Number(14));
            let listed: Vec<_> = exchange.reading.supported.iter().map(|known| known.value.clone()).collect();
            assert_eq!(listed, LISTED.map(Value::Number));
            assert_eq!((number(&modem), exchange.resets), (Some(8), true));
            assert!(matches!(modem.transitions[..], [(_, Transition::Reset)]));
            assert!(modem.clients.count() == 0 && !modem.is_open());
        }
    }

    #[test]
    fn a_modem_that_refuses_to_restart_keeps_its_mode() {
        let mut modem = modem(Protocol::Qmi).with("refuse-reset");
        let failure = set(&mut modem).unwrap().failure.unwrap().to_string();
        assert!(failure.starts_with("composition 8 is set, but the modem does not restart"), "{failure}");
        assert_eq!((number(&modem), modem.mode), (Some(8), LOW_POWER));
    }

    #[test]
    fn a_modem_whose_answer_is_lost_restarts() {
        let mut modem = modem(Protocol::Qmi);
        modem.fault("lost=1");
        modem.fault("at-message=DMS Set Operating Mode");
        assert_eq!(set(&mut modem).unwrap().failure, None);
        assert!(matches!(modem.transitions[..], [(_, Transition::Reset)]));
    }

    /// Another program opens the port at any time, also while the answer to the change is missing.
    #[test]
    fn an_error_means_that_nothing_was_changed() {
        for protocol in PROTOCOLS {
            let mut unconfirmed = 0;
            for at in 0..20 {
                let mut modem = modem(protocol).with("lost=1");
                modem.fault("at-message=DMS SWI Set USB Composition");
                modem.contended_at = Some(at);
                match set(&mut modem) {
                    Ok(exchange) => unconfirmed += usize::from(exchange.failure.is_some()),
                    Err(error) => assert_eq!(number(&modem), Some(14), "{protocol:?} {at}: {error}"),
                }
            }
            assert!(unconfirmed > 0, "{protocol:?}");
        }
    }

    #[test]
    fn other_modems_and_malformed_lists_are_distinguished() {
        for protocol in PROTOCOLS {
            let mut other = modem(protocol);
            other.next_composition = None;
            assert!(set(&mut other).unwrap_err().is_unsupported());
            let mut bare = modem(protocol).with("no-qmi-service");
            assert_eq!(set(&mut bare).is_err_and(|fault| fault.is_unsupported()), protocol == Protocol::Mbim);
            for listed in ["", "01", "0b0106"] {
                let mut odd = modem(protocol).with(&format!("composition-list={listed}"));
                let fault = set(&mut odd).unwrap_err();
                assert!(fault.to_string().contains("malformed"), "{fault}");
                assert_eq!((number(&odd), odd.clients.count()), (Some(14), 0));
            }
        }
    }

    #[test]
    fn the_modem_may_leave_and_the_run_may_be_stopped_at_any_transfer() {
        for protocol in PROTOCOLS {
            let mut whole = modem(protocol);
            set(&mut whole).unwrap();
            for at in 0..whole.transfers {
                let mut stopped = modem(protocol);
                stopped.interrupted_at = Some(at);
                let _ = set(&mut stopped);
                assert!(stopped.clients.count() == 0 && !stopped.is_open(), "stopped at {at}");
                let mut gone = modem(protocol);
                gone.gone_at = Some(at);
                let exchange = set(&mut gone);
                assert!(exchange.is_ok() || gone.mode == LOW_POWER, "gone at {at}: {exchange:?}");
            }
        }
    }
}
