//! The life of an operation: its states, the lanes, fencing, takeover and recovery.
//!
//! # States
//!
//! ```text
//!            begin                                 last step
//!   (none) ────────► running ──────────────────────────────────► done
//!                     │  ▲  │ a step fails before the pivot step
//!        stopped, or  │  │  └────────────► undoing ─────────────► undone
//!        cannot go on │  │ resume()          ▲      all undone
//!                     ▼  │                   │
//!                    parked ─────────────────┘ undo()
//! ```
//!
//! - *running*: a worker drives it, or it waits for its next try.
//! - *undoing*: what it made is removed, last step first. Undo means "ensure absent", so it covers a step that failed and
//!   one whose outcome is unknown.
//! - *parked*: it waits for a person ([`resume`](crate::calls::Operations::resume) or
//!   [`undo`](crate::calls::Operations::undo)), or for the end of the operation that stopped it.
//! - *done*, *undone*: ended.
//!
//! A saga has at most one *pivot step*. Until the intent of that step is stored, a failure undoes the operation. After that
//! it only goes forward: a step that fails is tried again with a growing pause, or the operation is parked. A set-up of a
//! server has none: a failure always undoes what it wrote to the landlord.
//!
//! # Intent before effect
//!
//! A process may die between any two lines. So the journal commits the intent of a step, with all names and sealed
//! secrets that it needs, before the step acts. A step that is run again finds its work done or half done and completes it.
//! Several steps may share one intent where each of them can be repeated.
//!
//! The record that a step has ended is committed without waiting for the disk, unless it contains the intent of the next
//! step: if a crash loses it, the step is only repeated.
//!
//! # Lanes
//!
//! A subject (a tenant, a server, the vault, a setup link) has at most one open operation in each lane.
//!
//! | lane | operations | begins while the other lane is taken? |
//! |---|---|---|
//! | change | provision, migrate, rotate, set-up and rotation of a server, rekey | no: [`Busy`](crate::error::ChangeError::Busy) names the operation that is open |
//! | preempt | suspend, activate, archive, restore, purge, relocate | yes: it stops the change, parks it, and resumes it at the end |
//!
//! # Fencing
//!
//! Each worker of an operation has an *epoch*, beginning at 1; each takeover raises it. Operation and epoch together are
//! the [`FencingToken`](crate::operation::FencingToken). Three fences keep a worker that was believed dead from acting:
//!
//! 1. *Landlord*: each write of a worker locks the operation's epoch row in the same statement, and fails if the row has
//!    a higher epoch ([`Fenced`](crate::error::StoreError::Fenced)).
//! 2. *Database server*: statements run in one session that holds an advisory lock of the tenant. The session is never
//!    replaced silently: if it breaks, the worker starts over under a new epoch.
//! 3. *Tenant's database*: migrations run under a login that lives for one operation. A new worker gives it a new password.
//!
//! A worker opens its session, then checks its epoch, then acts. A successor first raises the epoch, then terminates the
//! sessions of the old worker. So a session that the successor did not see belongs to a worker that has yet to check
//! its epoch, and that check fails.
//!
//! # Takeover and recovery
//!
//! A worker holds an operation by a lease (30 s by default, renewed three times in that time, by the landlord's
//! clock). [`Tenantry::run`](crate::Tenantry::run) on any node takes over operations whose lease is over and whose next try is due. One that is
//! of a kind that this version of the program does not know is left alone.
//!
//! Recovery also restores what a dead worker may have left half-way on the server: databases that a clean-up had opened are
//! closed, and memberships that the provisioner had taken are given back.
//!
//! # A landlord that loses commits
//!
//! Intents wait for the landlord's disk. Records of ended steps do not, so a landlord that crashes may lose the last of
//! them. A landlord that fails over to an *asynchronous* standby may also lose intents: prefer a synchronous one.
//!
//! - A worker that lives on gets [`LostWrites`](crate::error::StoreError::LostWrites) from its next record (an unlogged table,
//!   which crash recovery empties, tells it). It takes the operation over again and continues from what the landlord knows.
//! - A worker whose epoch the standby does not know gets [`Fenced`](crate::error::StoreError::Fenced). It stops and undoes
//!   nothing; recovery continues from what the standby knows.
//! - An operation that is lost as a whole leaves roles and a database that no committed intent names. No operation touches
//!   them. A provisioning that meets them by name stops with
//!   [`ClusterError::Foreign`](crate::error::ClusterError::Foreign): remove or rename them. Default names hold the id of a new
//!   tenant, so with them it never happens. To find such databases, compare the databases that the admin role owns with
//!   `tenantry.placements`.
//! - A status that is lost (suspended, archived) still holds on the server: repeat the call. A purge that is lost shows an
//!   active tenant without a database: purge it again.
