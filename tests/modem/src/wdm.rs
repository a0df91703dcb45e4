//! A channel for encapsulated commands, and the faults of its replies.

use std::collections::VecDeque;
use std::time::Duration;

use crate::mbim::{self, Mbim};
use crate::qmi::{self, Clients};
use crate::radio::Modem;
use crate::transcript::hex;
use crate::xmm;

pub(crate) enum Protocol {
    Qmi,
    Mbim(Mbim),
    /// The RPC of an XMM7360.
    Xmm,
}

pub(crate) struct Wdm {
    pub protocol: Protocol,
    /// One GET_ENCAPSULATED_RESPONSE returns one entry.
    pub responses: VecDeque<Vec<u8>>,
    pub dtr: bool,
    /// Never replies, as some modems do after a wrong change of the configuration.
    pub deaf: bool,
}

impl Wdm {
    pub(crate) fn new(protocol: Protocol) -> Wdm {
        Wdm { protocol, responses: VecDeque::new(), dtr: false, deaf: false }
    }

    /// Takes one message from the host. Returns the reads that answer it, and their delay.
    pub(crate) fn receive(&mut self, modem: &mut Modem, message: &[u8]) -> (Duration, Vec<Vec<u8>>) {
        let (kind, name) = match &self.protocol {
            Protocol::Qmi => ("qmi>", qmi::name(message)),
            Protocol::Mbim(_) => ("mbim>", mbim::qmi_frame(message).map_or_else(|| mbim::name(message), qmi::name)),
            Protocol::Xmm => ("xmm>", xmm::name(message)),
        };
        modem.hears(&name);
        if self.deaf || modem.is_mute() || modem.faults.has("dtr") && !self.dtr {
            modem.transcript.event(kind, &format!("{} not heard", hex(message)));
            return (Duration::ZERO, Vec::new());
        }
        if modem.faults.number("forget-cids") == Some(modem.replies) {
            modem.clients = Clients::default();
        }
        let replies = match &mut self.protocol {
            Protocol::Xmm => xmm::answer(modem, message),
            Protocol::Qmi => qmi::answer(modem, message).into_iter().collect(),
            Protocol::Mbim(mbim) => mbim.receive(modem, message),
        };
        if modem.loses_reply() {
            return (Duration::ZERO, Vec::new());
        }
        if !modem.reply_is_hit() {
            return (Duration::ZERO, replies);
        }
        (modem.faults.millis("late", 0), self.with_faults(modem, replies))
    }

    /// The unsolicited messages for a new operating mode.
    pub(crate) fn mode_changed(&self, modem: &Modem) -> Vec<Vec<u8>> {
        let reports = qmi::mode_reports(modem);
        match &self.protocol {
            Protocol::Qmi => reports,
            Protocol::Mbim(mbim) if mbim.is_open() => {
                let tunnelled = reports.iter().map(|frame| mbim::qmi_indication(frame));
                std::iter::once(mbim.radio_indication(modem)).chain(tunnelled).collect()
            }
            Protocol::Mbim(_) | Protocol::Xmm => Vec::new(),
        }
    }

    fn with_faults(&self, modem: &Modem, replies: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let faults = &modem.faults;
        if replies.is_empty() {
            return replies;
        }
        let mut reads: Vec<Vec<u8>> = Vec::new();
        if let Some(count) = faults.number_or("flood", 1000) {
            reads.extend((0..count).map(|_| self.indications(modem).swap_remove(0)));
        }
        if faults.has("indications") || faults.has("merged") {
            reads.extend(self.indications(modem));
        }
        if faults.has("stale") {
            reads.extend(match self.protocol {
                Protocol::Qmi => qmi::stale(&replies[0]),
                Protocol::Mbim(_) => mbim::stale(&replies[0]),
                Protocol::Xmm => Vec::new(),
            });
        }
        if let (Protocol::Mbim(_), Some(count)) = (&self.protocol, faults.number_or("stale-fragments", 3)) {
            let fragments = replies.first().and_then(|reply| mbim::stale_fragments(reply, count as usize));
            reads.extend(fragments.unwrap_or_default());
        }
        for mut reply in replies {
            if faults.has("garbage") {
                // Looks like the beginning of a frame at first.
                let garbage = [0x00, 0xff, 0x01, 0xfe, 0xca, 0x55, 0xaa];
                match self.protocol {
                    Protocol::Qmi => reply.splice(..0, garbage).for_each(drop),
                    Protocol::Mbim(_) | Protocol::Xmm => reads.push(garbage.to_vec()),
                }
            }
            if faults.has("short") {
                reply.truncate(reply.len() / 2);
            }
            if faults.has("overlong") {
                reply.extend([0xee; 9]);
            }
            if faults.has("duplicate") {
                reads.push(reply.clone());
            }
            reads.push(reply);
        }
        if faults.has("merged") {
            reads = vec![reads.concat()];
        }
        match faults.number_or("split", 7) {
            Some(size) => reads.iter().flat_map(|read| read.chunks(size.max(1) as usize)).map(<[u8]>::to_vec).collect(),
            None => reads,
        }
    }

    fn indications(&self, modem: &Modem) -> Vec<Vec<u8>> {
        let mode = qmi::mode_indication(0xff, modem.reported_mode());
        match &self.protocol {
            Protocol::Qmi => vec![qmi::sync_indication(), mode],
            Protocol::Xmm => vec![xmm::own_message()],
            Protocol::Mbim(_) => {
                vec![
                    mbim::signal_indication(),
                    mbim::qmi_indication(&qmi::sync_indication()),
                    mbim::qmi_indication(&mode),
                ]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;
    use crate::transcript::from_hex;

    fn reads(fault: &str) -> Vec<Vec<u8>> {
        let mut modem = Modem::of(&models::row("mc7710").unwrap().model());
        modem.faults.set(fault).unwrap();
        let sync = from_hex("01 0B 00 00 00 00 00 05 27 00 00 00").unwrap();
        Wdm::new(Protocol::Qmi).receive(&mut modem, &sync).1
    }

    const REPLY: &str = "01 12 00 80 00 00 01 05 27 00 07 00 02 04 00 00 00 00 00";

    #[test]
    fn each_fault_is_visible_on_the_wire() {
        let reply = from_hex(REPLY).unwrap();
        assert_eq!(reads("late=0"), std::slice::from_ref(&reply));
        assert!(reads("mute").is_empty());
        assert!(reads("dtr").is_empty());
        assert!(reads("garbage")[0].ends_with(&reply) && reads("garbage")[0][0] != 1);
        assert_eq!(reads("split=7").concat(), reply);
        assert_eq!(reads("split=7").len(), 3);
        assert_eq!(reads("indications").len(), 3);
        assert_eq!(reads("merged").len(), 1);
        assert!(reads("merged")[0].ends_with(&reply));
        assert_eq!(reads("flood=20").len(), 21);
        assert_eq!(reads("stale")[0][7], 4);
        assert_eq!(reads("short"), [reply[..9].to_vec()]);
        assert_eq!(reads("overlong")[0].len(), reply.len() + 9);
        assert_eq!(reads("duplicate").len(), 2);
        assert!(reads("lost").is_empty());
    }

    #[test]
    fn a_fault_can_affect_a_single_reply() {
        let mut modem = Modem::of(&models::row("mc7710").unwrap().model());
        modem.faults.set("duplicate").unwrap();
        modem.faults.set("at-reply=2").unwrap();
        let sync = from_hex("01 0B 00 00 00 00 00 05 27 00 00 00").unwrap();
        let mut wdm = Wdm::new(Protocol::Qmi);
        let mut reads = |modem: &mut Modem| [(); 3].map(|()| wdm.receive(modem, &sync).1.len());
        assert_eq!(reads(&mut modem), [1, 2, 1]);
        modem.faults.set("at-reply=5-").unwrap();
        assert_eq!(reads(&mut modem), [1, 2, 2]);
        modem.faults.set("at-message=Allocate CID").unwrap();
        assert_eq!(reads(&mut modem), [1, 1, 1]);
        modem.faults.set("at-message=Allocate CID|Sync").unwrap();
        assert_eq!(reads(&mut modem), [2, 2, 2]);
    }
}
