//! The messages of an unlock, byte for byte, for display: the requests to a locked modem, in order.

use std::fmt::Write as _;

use super::{gtfcclock, intel, mbim_radio, quectel};
use crate::database::quirks::{Procedure, StateCommand};
use crate::modem::session::mbim::{CLOSE, Command, OPEN, QMI};
use crate::modem::transport::Protocol;
use crate::modem::wire::mbim::{Body, Message};
use crate::modem::wire::qmi::{self, Call, Service, ctl, dms, fox};
use crate::modem::wire::xmm;

/// One line for each message: its name, and its bytes in hex. Values that only the modem knows are 0: CID, TID, and the
/// length of a control transfer. A message that depends on earlier replies is shown without its bytes.
pub fn messages(procedure: &Procedure, protocol: Protocol) -> Vec<String> {
    let mut lines = requests(procedure, protocol);
    if protocol == Protocol::Mbim {
        let line = |name, body| format!("{name}: {}", hex(&Message { tid: 0, body }.emit()));
        lines.insert(0, line(OPEN, Body::Open { max_control_transfer: 0 }));
        lines.push(line(CLOSE, Body::Close));
    }
    lines
}

fn requests(procedure: &Procedure, protocol: Protocol) -> Vec<String> {
    let hashed = |name| format!("{name}: with the answer to the challenge");
    match (procedure, protocol) {
        (Procedure::Sierra, _) => over_qmi(vec![(dms::SET_FCC_AUTHENTICATION, Vec::new())], protocol),
        (Procedure::Foxconn { service, .. }, _) => over_qmi(foxconn(*service), protocol),
        (Procedure::Quectel, Protocol::Mbim) => {
            vec![
                mbim(mbim_radio::QUERY, &[]),
                mbim(quectel::QUERY, &[]),
                mbim(quectel::SET, &quectel::ON.to_le_bytes()),
            ]
        }
        (Procedure::Gtfcclock(gtfcclock), Protocol::At) => {
            let state = match gtfcclock.state {
                StateCommand::Gtfcceffstatus => "AT+GTFCCEFFSTATUS?",
                StateCommand::Gtfcclockstate => gtfcclock::GET_LOCK_STATE,
            };
            let commands = ["ATE0", "AT+CFUN?", state, "at+gtfcclockgen", "at+gtfcclockver=…"];
            commands.map(str::to_owned).into()
        }
        (Procedure::Intel { .. }, Protocol::Mbim) => vec![
            mbim(mbim_radio::QUERY, &[]),
            mbim(intel::QUERY, &[]),
            mbim(intel::CHALLENGE, &intel::NO_RESPONSE),
            hashed(intel::RESPONSE.name),
            mbim(intel::QUERY, &[]),
        ],
        (Procedure::Xmm { .. }, Protocol::XmmRpc) => {
            let line = |call: xmm::Call| format!("{}: {}", call.name, hex(&xmm::request(call, 0)));
            vec![line(xmm::FCC_LOCK_QUERY), line(xmm::FCC_LOCK_CHALLENGE), hashed(xmm::FCC_LOCK_RESPONSE.name)]
        }
        _ => Vec::new(),
    }
}

/// A QMI request, and the value of its only TLV.
type Request = (Call, Vec<u8>);

fn foxconn(service: Service) -> Vec<Request> {
    if service == Service::DMS {
        return vec![
            (dms::FOXCONN_GET_FIRMWARE_VERSION, vec![0]),
            (dms::FOXCONN_GET_FIRMWARE_VERSION, vec![2]),
            (dms::GET_IDS, Vec::new()),
            (dms::FOXCONN_SET_FCC_AUTHENTICATION, Vec::new()),
        ];
    }
    let lock = fox::get_fcc_lock(service);
    let allocate = |service: Service| (ctl::ALLOCATE_CID, vec![service.0]);
    let mut own = vec![allocate(service), (lock, Vec::new())];
    own.extend((service != Service::FOX).then(|| allocate(Service::FOX)));
    own.extend([(fox::GET_FIRMWARE_VERSION, vec![0]), (fox::GET_FIRMWARE_VERSION, vec![2])]);
    own.push((dms::GET_IDS, Vec::new()));
    own.push((fox::set_fcc_authentication(service), Vec::new()));
    own.push((lock, Vec::new()));
    own
}

/// The requests `own` of a procedure, and those that surround them: clients are allocated and released, and the state
/// of the radio is read before and after.
fn over_qmi(own: Vec<Request>, protocol: Protocol) -> Vec<String> {
    let dms = Service::DMS.0;
    let look = (dms::GET_OPERATING_MODE, Vec::new());
    let mut all = vec![(ctl::GET_VERSION_INFO, Vec::new()), (ctl::ALLOCATE_CID, vec![dms]), look.clone()];
    let mut services: Vec<u8> = vec![dms];
    services.extend(own.iter().filter(|(call, _)| *call == ctl::ALLOCATE_CID).flat_map(|(_, service)| service));
    all.extend(own);
    all.push(look);
    // The last CID is released first.
    all.extend(services.into_iter().rev().map(|service| (ctl::RELEASE_CID, vec![service, 0])));
    all.iter()
        .map(|(call, value)| {
            if call.id == dms::FOXCONN_SET_FCC_AUTHENTICATION.id {
                return format!("{}: with a hash over these answers", call.name);
            }
            let tlv = [(0x01, value.as_slice())];
            let frame = qmi::request(*call, 0, 0, if value.is_empty() { &[] } else { &tlv });
            if protocol == Protocol::Mbim {
                format!("{} in {}", call.name, mbim(QMI, &frame))
            } else {
                format!("{}: {}", call.name, hex(&frame))
            }
        })
        .collect()
}

fn mbim(command: Command, buffer: &[u8]) -> String {
    let Command { service, cid, kind, name } = command;
    format!("{name}: {}", hex(&Message { tid: 0, body: Body::Command { service, cid, kind, buffer } }.emit()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a `String` never fails.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::Deadline;
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::fake::Modem;
    use crate::modem::transport::Transport;
    use crate::steps::fcc_auth::{Keys, run};
    use ::modem::radio::Lock;
    use std::time::Duration;

    /// The displayed messages are those that are sent, except that queries of the mode are repeated.
    #[test]
    fn displayed_messages_are_those_that_are_sent() {
        for protocol in [Protocol::Qmi, Protocol::Mbim] {
            let foxconn = |service, magic: &str| Procedure::Foxconn { service, magic: magic.to_owned() };
            let fox = |service: Service, magic| Lock::Fox { service: service.0, magic };
            for (procedure, lock) in [
                (Procedure::Sierra, Lock::Sierra),
                (foxconn(Service::DMS, "foxc"), Lock::FoxconnV2),
                (foxconn(Service::FOX, "FDE1"), fox(Service::FOX, "FDE1")),
                (foxconn(Service::FOXAP, "FDE2"), fox(Service::FOXAP, "FDE2")),
            ] {
                let mut modem = Modem::with_lock(protocol, lock);
                let transport = Transport { port: &mut modem, protocol, proxied: None };
                let _clock = StoppedClock::stop();
                run(transport, &procedure, Keys::none(), None, Deadline::after(Duration::from_secs(2)));
                modem.seen.dedup();
                let described = messages(&procedure, protocol);
                let names = described.iter().filter_map(|line| line.split(':').next()?.split(" in ").next());
                let mut names: Vec<String> =
                    names.map(|name| name.replace(OPEN, "OPEN").replace(CLOSE, "CLOSE")).collect();
                names.dedup();
                assert_eq!(names, modem.seen, "{procedure} {described:#?}");
            }
        }
    }

    #[test]
    fn displayed_bytes_are_those_on_the_wire() {
        let described = messages(&Procedure::Sierra, Protocol::Qmi);
        assert_eq!(described[3], "DMS Set FCC Authentication: 010c000002000000005f550000");
        let described = messages(&Procedure::Quectel, Protocol::Mbim);
        assert_eq!(described[0], "MBIM open: 01000000100000000000000000000000");
        assert_eq!(described[4], "MBIM close: 020000000c00000000000000");
        assert!(
            described[3].ends_with("112233445566778899aabbccddeeff1101000000010000000400000001000000"),
            "{described:?}"
        );
    }
}
