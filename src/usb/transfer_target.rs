//! Where the transfers to a device go.

/// The interface for the transfers, in the active configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransferTarget {
    #[doc(alias = "bInterfaceNumber")]
    pub interface: u8,
    /// The addresses of its bulk endpoints.
    pub bulk_out: Option<u8>,
    pub bulk_in: Option<u8>,
    /// The numbers of all interfaces of the configuration.
    pub interfaces: Vec<u8>,
}
