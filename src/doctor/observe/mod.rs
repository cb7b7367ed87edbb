//! Reading what the checks compare. Nothing here changes anything or decides anything.
mod clock;
pub(super) mod landlord;
pub(super) mod login;
pub(super) mod server;
pub(super) mod tenant;
