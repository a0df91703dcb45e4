//! The vocabulary of USB that PCI does not have: what a configuration offers, and how a device is asked.

mod function;
mod setup;

pub use function::Function;
pub use setup::Setup;
