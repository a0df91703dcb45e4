//! `rules`: prints the udev rules for the database as it is.

use std::io::Write;

use crate::database::{quirks, udev_rules};
use crate::host::root::Root;
use crate::serve::error::{Error, Exit};

/// Prints the rules.
pub fn run(root: &Root, out: &mut impl Write) -> Result<Exit, Error> {
    let (quirks, errors) = quirks::all(root);
    out.write_all(udev_rules::text(&quirks).as_bytes())?;
    match errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Fine),
    }
}
