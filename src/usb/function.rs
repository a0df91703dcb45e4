//! What a USB configuration offers to a host.

use serde::Serialize;

/// What a configuration offers to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    Mbim,
    Qmi,
    Ecm,
    Ncm,
    Storage,
    Serial,
}

impl Function {
    pub fn name(self) -> &'static str {
        match self {
            Function::Mbim => "mbim",
            Function::Qmi => "qmi",
            Function::Ecm => "ecm",
            Function::Ncm => "ncm",
            Function::Storage => "storage",
            Function::Serial => "serial",
        }
    }
}
