//! The steps of a provisioning: in the landlord, on the server, in the tenant's database, and for the setup link; and the
//! steps of its follow-up work.
mod cluster;
mod content;
mod follow_up;
mod landlord;
pub(super) mod link;
pub(super) use cluster::ClusterStep;
pub(super) use content::{CloseLedger, DropMigrator, FirstAdmin, HostStep, Migrations};
pub(super) use follow_up::{BeginFollowUp, DeliverLink, FollowUpStep};
pub(super) use landlord::{CreateTenant, PlaceTenant, Publish, SealSecrets};
pub(super) use link::IssueLink;
