//! By QMI: the device management service, DMS 0x555B and 0x555C.

use super::{Dialogue, Fault, Standing};
use crate::link::LinkError;
use crate::quirks::composition::{Table, Value, Wanted};
use crate::session::SessionError;
use crate::session::qmi::Client;
use crate::wire::Malformed;
use crate::wire::qmi::{OperatingMode, dms};
use log::debug;

pub struct Dms<'d, 'c> {
    pub client: &'d mut Client<'c>,
    pub by: &'static str,
}

impl Dialogue for Dms<'_, '_> {
    fn standing(&mut self, table: &Table, _: Option<&Wanted>) -> Result<Standing, Fault> {
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
            Ok((current, supported.iter().map(|number| table.of_number(*number)).collect()))
        })?;
        Ok(Standing { by: self.by, current: table.of_number(current), supported, other: None })
    }

    fn set(&mut self, value: Value) -> Result<(), Fault> {
        let Value::Number(number) = value else { return Err(Fault::NoCommand(self.by)) };
        self.client.request(dms::SWI_SET_USB_COMPOSITION, &[(0x01, &[number])])?;
        Ok(())
    }

    /// A modem is reset from offline mode alone.
    fn reset(&mut self) -> Result<(), Fault> {
        let mut mode = |mode: OperatingMode| self.client.request(dms::SET_OPERATING_MODE, &[(0x01, &[mode.into()])]);
        if let Err(error) = mode(OperatingMode::Offline) {
            debug!("{error}");
        }
        match mode(OperatingMode::Reset) {
            Ok(_) | Err(SessionError::NoAnswer { .. } | SessionError::Link(LinkError::Gone)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
