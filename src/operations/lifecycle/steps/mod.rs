//! The steps of the lifecycle operations: those that write to the landlord, and those that act on the tenant's server.
mod landlord;
mod server;
pub(super) use landlord::{
    AbandonChange, CheckStatus, ForgetSecrets, ParkChange, ReleasePlacement, ResumeChange, SetStatus,
};
pub(super) use server::{
    AdmitLogin, CloseAgain, CloseDatabase, EndSessions, OpenDatabase, RefuseLogins, RefuseOnStandbys, RemoveFromServer,
    VerifyEmpty,
};
