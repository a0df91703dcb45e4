//! The functions of a USB configuration.

use serde::{Deserialize, Serialize};

/// A function of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    Mbim,
    Qmi,
    Ecm,
    Ncm,
    Rndis,
    Storage,
    Serial,
}

impl Function {
    pub(crate) const ALL: [Function; 7] = [
        Function::Mbim,
        Function::Qmi,
        Function::Ecm,
        Function::Ncm,
        Function::Rndis,
        Function::Storage,
        Function::Serial,
    ];

    /// Whether it carries a data connection.
    pub(crate) fn is_network(self) -> bool {
        !matches!(self, Function::Storage | Function::Serial)
    }

    pub fn name(self) -> &'static str {
        match self {
            Function::Mbim => "mbim",
            Function::Qmi => "qmi",
            Function::Ecm => "ecm",
            Function::Ncm => "ncm",
            Function::Rndis => "rndis",
            Function::Storage => "storage",
            Function::Serial => "serial",
        }
    }
}
