//! USB terms that have no equivalent on PCI: functions, configurations, setup packets and targets of transfers.

mod configuration;
mod function;
mod interface_class;
mod setup;
mod transfer_target;

pub(crate) use configuration::configuration_name;
pub use function::Function;
pub(crate) use interface_class::InterfaceClass;
pub use setup::Setup;
pub use transfer_target::TransferTarget;
