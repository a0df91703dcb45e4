//! USB terms that have no equivalent on PCI: functions and setup packets.

mod function;
mod setup;

pub use function::Function;
pub use setup::Setup;
