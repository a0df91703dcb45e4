//! The steps of a plan. Each is idempotent, leaves the modem as it found it when it fails, and reports one of a few
//! results.

pub(crate) mod composition;
pub(crate) mod configure;
pub mod fcc_auth;
pub mod switch;
