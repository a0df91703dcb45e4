//! The messages of an unlock, byte for byte, for people: what is sent to a locked modem, in its order.

use super::{Protocol, mbim_radio, quectel};
use crate::database::quirks::Procedure;
use crate::modem::session::mbim::{CLOSE, Command, OPEN, QMI};
use crate::modem::wire::mbim::{Body, Message};
use crate::modem::wire::qmi::{self, Call, Service, ctl, dms};
use std::fmt::Write as _;

/// A line a message: its name and its bytes in hex. What only the modem can give, or is counted on, is 0: CID, TID, and
/// how long a control transfer may be. A message that holds what the modem answered to those before stands without its
/// bytes.
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
    const DMS: u8 = Service::DMS.0;
    let own: &[(Call, &[u8])] = match (procedure, protocol) {
        (Procedure::Sierra, _) => &[(dms::SET_FCC_AUTHENTICATION, &[])],
        (Procedure::Foxconn { .. }, _) => &[
            (dms::FOXCONN_GET_FIRMWARE_VERSION, &[0]),
            (dms::FOXCONN_GET_FIRMWARE_VERSION, &[2]),
            (dms::GET_IDS, &[]),
            (dms::FOXCONN_SET_FCC_AUTHENTICATION, &[]),
        ],
        (Procedure::Quectel, Protocol::Mbim) => {
            return vec![
                mbim(mbim_radio::QUERY, &[]),
                mbim(quectel::QUERY, &[]),
                mbim(quectel::SET, &quectel::ON.to_le_bytes()),
            ];
        }
        (Procedure::Rolling { .. }, Protocol::At) => {
            let commands = ["ATE0", "AT+CFUN?", "AT+GTFCCEFFSTATUS?", "at+gtfcclockgen", "at+gtfcclockver=0x…"];
            return commands.map(str::to_owned).into();
        }
        (Procedure::Quectel | Procedure::Rolling { .. }, _) => return Vec::new(),
    };
    let around = [(ctl::GET_VERSION_INFO, &[][..]), (ctl::ALLOCATE_CID, &[DMS]), (dms::GET_OPERATING_MODE, &[])];
    let after = [(dms::GET_OPERATING_MODE, &[][..]), (ctl::RELEASE_CID, &[DMS, 0])];
    let all = around.iter().chain(own).chain(&after);
    all.map(|(call, value)| {
        if *call == dms::FOXCONN_SET_FCC_AUTHENTICATION {
            return format!("{}: with a hash over these answers", call.name);
        }
        let tlv = [(0x01, *value)];
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
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::Deadline;
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::scripted::{Face, Modem};
    use crate::modem::transport::Transport;
    use crate::steps::fcc_auth::run;
    use std::time::Duration;

    /// What is told is what is said, but for looks at the mode that are repeated.
    #[test]
    fn what_a_person_is_told_is_what_the_modem_gets() {
        for (face, protocol) in [(Face::Qmi, Protocol::Qmi), (Face::Mbim, Protocol::Mbim)] {
            let foxconn = Procedure::Foxconn { magic: "foxc".to_owned() };
            for (procedure, version) in [(Procedure::Sierra, None), (foxconn, Some(2))] {
                let mut modem = Modem::locked(face);
                modem.foxconn = version;
                let transport = Transport { port: &mut modem, protocol, proxied: None };
                let _clock = StoppedClock::stop();
                run(transport, &procedure, None, Deadline::after(Duration::from_secs(2)));
                modem.seen.dedup();
                let told = messages(&procedure, protocol);
                let names: Vec<&str> =
                    told.iter().filter_map(|line| line.split(':').next()?.split(" in ").next()).collect();
                let calls = [
                    ctl::GET_VERSION_INFO,
                    ctl::ALLOCATE_CID,
                    ctl::RELEASE_CID,
                    dms::GET_OPERATING_MODE,
                    dms::SET_FCC_AUTHENTICATION,
                    dms::GET_IDS,
                    dms::FOXCONN_GET_FIRMWARE_VERSION,
                    dms::FOXCONN_SET_FCC_AUTHENTICATION,
                ];
                let mut ids: Vec<u16> = names
                    .iter()
                    .map(|name| match *name {
                        OPEN => 1,
                        CLOSE => 2,
                        name => calls.iter().find(|call| call.name == name).map_or(0, |call| call.id),
                    })
                    .collect();
                ids.dedup();
                assert_eq!(ids, modem.seen, "{procedure} {told:#?}");
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_wire() {
        let told = messages(&Procedure::Sierra, Protocol::Qmi);
        assert_eq!(told[3], "DMS Set FCC Authentication: 010c000002000000005f550000");
        let told = messages(&Procedure::Quectel, Protocol::Mbim);
        assert_eq!(told[0], "MBIM open: 01000000100000000000000000000000");
        assert_eq!(told[4], "MBIM close: 020000000c00000000000000");
        assert!(told[3].ends_with("112233445566778899aabbccddeeff1101000000010000000400000001000000"), "{told:?}");
    }
}
