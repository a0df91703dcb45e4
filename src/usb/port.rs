//! Where a device is plugged in.

use std::fmt;

/// The place of a device in the tree of hubs, as the kernel names it: bus, then the port on every hub (`1-1.2`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(String);

impl Port {
    /// `text` if it has the form of a port.
    pub fn new(text: &str) -> Option<Port> {
        let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let (bus, path) = text.split_once('-')?;
        (number(bus) && path.split('.').count() <= 7 && path.split('.').all(number)).then(|| Port(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
