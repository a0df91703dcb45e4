//! Huawei's vendor-specific SCSI command 0x11, which takes most of its sticks out of install mode.
//!
//! The names of the fields are those of Huawei's own kernel (`mbb_usb_unitary/hw_pnp.c`, "SC_REWIND").

use std::fmt;

use super::switch::{Bytes, Op, Switch};

/// The offset of the command block in a CBW.
const COMMAND: usize = 15;

/// The fields of a command 0x11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewind {
    /// 00 Windows, 10 Mac, 20 Linux, 30 gateway.
    #[doc(alias = "bPcType")]
    pub host: u8,
    #[doc(alias = "bNewPID")]
    pub new_id: bool,
    #[doc(alias = "bSupportCD")]
    pub keep_cd: bool,
    /// For a gateway: a network interface instead of a dial-up modem.
    #[doc(alias = "bProFile")]
    pub ndis: bool,
    /// A network card with RNDIS for Windows, with CDC Ethernet for others.
    #[doc(alias = "bGreenMode")]
    pub green: bool,
}

impl Rewind {
    /// The fields of `message`, if it is this command.
    fn decode(message: &Bytes) -> Option<Rewind> {
        let command = message.0.get(COMMAND..).filter(|_| message.is_cbw())?;
        let &[0x11, 0x06, host, _, _, new_id, keep_cd, profile, green, ..] = command else { return None };
        let is_set = |field| field == 1;
        Some(Rewind {
            host,
            new_id: is_set(new_id),
            keep_cd: is_set(keep_cd),
            ndis: is_set(profile),
            green: is_set(green),
        })
    }

    /// The command of `switch`, if it is the only operation.
    pub(crate) fn of(switch: &Switch) -> Option<Rewind> {
        let [Op::Bulk(message)] = switch.ops() else { return None };
        Rewind::decode(message)
    }
}

impl fmt::Display for Rewind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.host {
            0x00 => "Windows",
            0x10 => "Mac",
            0x20 => "Linux",
            0x30 => "gateway",
            _ => "unknown host",
        })?;
        for (is_set, name) in [
            (self.new_id, "new ID"),
            (self.keep_cd, "keep CD"),
            (self.ndis, "network interface"),
            (self.green, "network card"),
        ] {
            if is_set {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_does_what_its_name_says() {
        for (method, says) in [
            ("huawei-new", Some("Linux, new ID, keep CD, network card")),
            ("huawei-alternative", Some("gateway, network interface")),
            ("huawei-serial", Some("gateway, new ID")),
            ("huawei-rndis", Some("Windows, new ID, network card")),
            ("huawei", None),
            ("option", None),
            ("eject", None),
        ] {
            let decoded = Rewind::of(&Switch::method(method).unwrap()).map(|command| command.to_string());
            assert_eq!(decoded.as_deref(), says, "{method}");
        }
    }

    #[test]
    fn a_truncated_message_is_not_a_command() {
        let Some(Op::Bulk(message)) = Switch::method("huawei-new").unwrap().ops().first().cloned() else { panic!() };
        for length in 0..24 {
            assert_eq!(Rewind::decode(&Bytes(message.0[..length].to_vec())), None, "{length}");
        }
    }
}
