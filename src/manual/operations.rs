//! The life of an operation: its states, the lanes, fencing, takeover and recovery.
//!
//! # States
//!
//! ```text
//!            begin                                 last step
//!   (none) ────────► running ──────────────────────────────────► done
//!                     │  ▲  │ a step fails before the pivot step
//!      preempted, or  │  │  └────────────► undoing ─────────────► undone
//!     cannot continue │  │ resume()          ▲      all undone
//!                     ▼  │                   │
//!                    parked ─────────────────┘ undo()
//! ```
//!
//! - *running*: a worker drives it, or it waits for its next attempt.
//! - *undoing*: a worker removes what the operation has made, last step first. Undo means "ensure absent", so it covers
//!   a step that failed and one whose outcome is unknown.
//! - *parked*: it waits until an administrator calls [`resume`](crate::calls::Operations::resume) or
//!   [`undo`](crate::calls::Operations::undo), or until a later operation resumes it.
//! - *done*, *undone*: ended.
//!
//! A saga has at most one *pivot step*. Until the intent of that step is stored, a failure undoes the operation. After
//! that the engine no longer undoes it: it retries a step that fails, with a growing delay, or parks the operation. A
//! set-up of a server has none: a failure always undoes what it wrote to the landlord.
//!
//! # Intent before effect
//!
//! A process may die between any two lines. So the journal commits the intent of a step, with all names and sealed
//! secrets that it needs, before the step acts. A step that runs again checks how much of its work is done and
//! completes the rest. Consecutive steps may share one intent. After a crash a worker repeats those whose completion is
//! not recorded.
//!
//! PostgreSQL flushes an intent to disk before the step runs, except the intent of steps that write only to the
//! landlord: if a crash loses that intent, it also loses their writes. Of the completion records, only those that
//! contain the next intent or end the operation are flushed. If a crash loses another one, a worker repeats a step that
//! can be repeated. A rotation also ends without a flush, because its last step can be repeated.
//!
//! # Lanes
//!
//! A subject (a tenant, a server, the vault, a setup link) has at most one open operation in each lane.
//!
//! | lane | operations | can begin while an operation of the other lane is open? |
//! |---|---|---|
//! | change | provision, migrate, rotate, set-up and rotation of a server, rekey | no: [`Busy`](crate::error::ChangeError::Busy) names the operation that is open |
//! | preempt | suspend, activate, archive, restore, purge, relocate | yes, if no other preempting operation is open |
//!
//! A preempting operation does not wait for the change. Suspend, archive and purge park the open change of their
//! tenant; activate and restore resume it, and purge ends it. Relocate parks the open change of its server and resumes
//! it at the end. A migration may run on a suspended tenant if its call says so; then activate is refused as `Busy`
//! until the worker of the migration has ended.
//!
//! # Fencing
//!
//! Each worker of an operation has an *epoch*, beginning at 1; each takeover raises it. Operation and epoch together
//! are the [`FencingToken`](crate::operation::FencingToken). Three fences keep a worker that was believed dead from
//! acting:
//!
//! 1. *Landlord*: each write of a worker locks the operation's epoch row in the same statement, and fails if the row
//!    has a higher epoch ([`Fenced`](crate::error::StoreError::Fenced)).
//! 2. *Database server*: statements run in one session that holds an advisory lock of the tenant. The session is never
//!    replaced silently: if it breaks, the worker starts over under a new epoch.
//! 3. *Tenant's database*: migrations run under a login that lives for one operation. A new worker gives it a new
//!    password.
//!
//! A worker opens its session, then checks its epoch, then acts. A successor first raises the epoch, then terminates
//! the sessions of the old worker. So a session that the successor did not see belongs to a worker that has yet to
//! check its epoch, and that check fails.
//!
//! # Takeover and recovery
//!
//! A worker holds an operation by a lease. The lease is valid for 30 s by default, by the landlord's clock, and the
//! worker renews it after each third of that time. [`Tenantry::run`](crate::Tenantry::run) on any node takes over
//! operations whose lease has expired and whose next attempt is due. It does not touch operations of a kind that this
//! version of the program does not know.
//!
//! After the death of a process no other node waits for its leases. A process that runs operations holds one session in
//! the landlord, `tenantry worker lock` in `pg_stat_activity`, with an advisory lock. Each operation stores the key of
//! its worker's lock. If no session holds that lock, the operation can be claimed although its lease is valid. So
//! recovery continues it within 5 s. A call that is repeated with the same idempotency key continues it within half a
//! second. While such a call waits for a worker that lives, its observer gets an event that names the worker's node and
//! the end of its lease ([`OperationEvent::waits_for`](crate::operation::OperationEvent::waits_for)).
//!
//! - The session opens with the first operation or with `run`, and [`Tenantry::close`](crate::Tenantry::close) ends it.
//!   It is not a connection of the application's pool.
//! - The landlord ends the session of a node that its network has cut off after 15 s (TCP keepalives).
//! - A lock that is lost while its process lives is not dangerous: another node may take the operation over, and the
//!   epoch fences the old worker. The node takes its lock again.
//! - The lock has two keys, 1953395833 ("tnty") and a random number. It conflicts with no lock of sqlx's migrator.
//! - Behind a transaction pooler (PgBouncer in transaction mode) a client has no session of its own. The node detects
//!   this and takes no lock. There, and for operations of earlier versions of this crate, the lease alone counts.
//!
//! A dead worker may have left temporary changes on the server. The worker that takes over reverts them: it closes
//! databases that a clean-up had opened, and gives back memberships that the provisioner had taken.
//!
//! # A landlord that loses commits
//!
//! A landlord that crashes may lose the latest records that it had not flushed to disk; see *Intent before effect*. A
//! failover to an *asynchronous* standby may lose intents too; prefer a synchronous standby. The consequences are:
//!
//! - A worker that survives the crash receives [`LostWrites`](crate::error::StoreError::LostWrites) for its next
//!   record. It detects the crash because PostgreSQL's recovery empties an unlogged table that contains the landlord's
//!   incarnation. The worker claims the operation again and continues from the state that the landlord has.
//! - A worker whose epoch the standby does not know receives [`Fenced`](crate::error::StoreError::Fenced). It stops and
//!   undoes nothing. Recovery continues the operation from the state that the standby has, because every step may run
//!   again.
//! - If all records of an operation are lost, its roles and its database remain on the server, and no committed intent
//!   names them. The crate never changes them. A provisioning that would use the same names fails in its precheck with
//!   [`ClusterError::Foreign`](crate::error::ClusterError::Foreign): remove or rename them. The default names contain
//!   the id of the new tenant and never conflict. To find such databases, compare the owners in `pg_database` with
//!   `tenantry.placements`.
//! - If a status (suspended, archived) is lost, the server still enforces it; repeat the call. If a purge is lost, the
//!   registry shows an active tenant whose database does not exist; purge it again.
