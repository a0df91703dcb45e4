//! The setup packet of a control transfer (USB 2.0, section 9.3).

/// The eight bytes that begin a control transfer, less `wLength`, which the data stage says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    #[doc(alias = "bmRequestType")]
    pub request_type: u8,
    #[doc(alias = "bRequest")]
    pub request: u8,
    #[doc(alias = "wValue")]
    pub value: u16,
    #[doc(alias = "wIndex")]
    pub index: u16,
}
