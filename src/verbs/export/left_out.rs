//! What an export leaves out.

use crate::database::quirks::Quirk;

/// An entry that a format cannot express. `reason` may say that only a part of it is left out.
pub(super) struct LeftOut<'a> {
    pub quirk: &'a Quirk,
    pub reason: &'static str,
}
