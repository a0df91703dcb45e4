//! The steps of a plan. Each step is idempotent, leaves the modem unchanged if it fails, and reports one of a few
//! results.

pub(crate) mod composition;
pub(crate) mod configure;
pub mod fcc_auth;
pub(crate) mod reset;
pub mod switch;
