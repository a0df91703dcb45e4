//! The steps of a plan. Each step is idempotent. After a failure, it restores the modem if it can. It reports one of a
//! few results.

pub(crate) mod composition;
pub(crate) mod configure;
pub mod fcc_auth;
pub(crate) mod reset;
pub mod switch;
