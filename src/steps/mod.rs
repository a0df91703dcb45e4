//! The steps of a plan. Each step is idempotent, restores the modem after a failure if it can, and reports one of a few
//! results.

pub(crate) mod composition;
pub(crate) mod configure;
pub mod fcc_auth;
pub(crate) mod reset;
pub mod switch;
