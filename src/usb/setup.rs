//! The setup packet of a control transfer (USB 2.0, section 9.3).

/// The setup packet without `wLength`, which is the length of the data stage.
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
