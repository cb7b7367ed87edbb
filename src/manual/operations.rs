//! The life of an operation: its states, the lanes, fencing, takeover and recovery.
//!
//! # States
//!
//! ```text
//!            begin                                 last step
//!   (none) ────────► running ──────────────────────────────────► done
//!                     │  ▲  │ a step fails before the pivot step
//!      preempted, or  │  │  └────────────► undoing ─────────────► undone
//!     cannot continue │  │ resume()         │  ▲      all undone
//!                     ▼  │                  │  │ resume(), undo()
//!                    parked ◄───────────────┘  │
//!                       └──────────────────────┘
//!
//!   running, undoing, parked ── abandon() ──► abandoned
//! ```
//!
//! - *running*: a worker drives it, or it waits for its next attempt.
//! - *undoing*: a worker removes what the operation has made, last step first. Undo means "ensure absent", so it covers
//!   a step that failed and one whose outcome is unknown.
//! - *parked*: it waits until an administrator or a later operation continues it. A step or the undo of a step has failed
//!   in a way that a repetition does not mend, or a preempting operation has stopped it.
//! - *done*, *undone*: ended.
//! - *abandoned*: ended without being undone, by an administrator or, for follow-up work, by a purge.
//!
//! # An operation is open and does not end: what to do
//!
//! [`operations().open()`](crate::calls::Operations::open) lists the open operations with their status, step and last
//! error. [`Tenantry::run`](crate::Tenantry::run) must run on at least one node.
//!
//! | what `open()` shows | what it means | what to do |
//! |---|---|---|
//! | running, without `retry_at` | a worker is in the step, or has died and its lease has not expired | wait for the lease. If the step hangs: [`skip_step`](crate::calls::Operations::skip_step) for a step of the application or a delivery, else [`abandon`](crate::calls::Operations::abandon) |
//! | running, with `retry_at` | the step failed with a transient error; recovery repeats it, at least once a minute | correct the cause that `error` names; or as above |
//! | undoing | as running, backward. An undo that fails for good is parked after [`attempts`](crate::Builder::attempts) attempts | correct the cause; or as above, where `skip_step` skips the compensation of a step of the application |
//! | parked, "stopped by operation …" | a suspension, an archive, a purge or a relocation has stopped it | activate or restore the tenant, or wait for the relocation; that continues it. If the stopping operation was abandoned: `resume` |
//! | parked, before its pivot step | a step asked for an administrator | [`resume`](crate::calls::Operations::resume) after correcting the cause, or [`undo`](crate::calls::Operations::undo) |
//! | parked, after its pivot step | the step failed for good, and cannot be undone | `resume` after correcting the cause, or `skip_step` |
//! | parked, while it was being undone | the undo of the step failed for good | `resume` continues the undo after correcting the cause; `skip_step` skips a compensation of the application |
//! | a kind that this program does not know | another version of the program began it | let a program of that version continue it, or `abandon` |
//! | `set_up_server` | the caller of `set_up()` died; recovery does not have the admin's password | call `set_up()` again |
//!
//! `abandon` ends an operation in every status, at once, and returns the steps that had begun and the names of what may
//! remain. It is the last resort. The tenant keeps its status. Afterwards:
//!
//! | abandoned | how to continue |
//! |---|---|
//! | provision | `purge(tenant).force()` removes what it has made; the application's own steps are not compensated |
//! | purge | purge the tenant again |
//! | suspend, archive, activate, restore, migrate, rotate | call it again |
//! | `temporary_login` | nothing: any node drops the login at its expiry. To end it before that, call [`end_temporary_login`](crate::Tenantry::end_temporary_login) |
//! | `rotate_server` | call `set_up()` for the server, then `rotate_server` |
//! | relocate, rekey, `set_up` | call it again |
//! | repair, `restore_entry`, `close_again` | examine again: [the doctor](crate::doctor) shows what is left |
//!
//! `skip_step` and `abandon` require a reason, which names the person and the cause. The operation's history keeps it
//! with the time.
//!
//! # Follow-up work
//!
//! The delivery of a setup link and the application's steps after activation can fail for reasons that have nothing to
//! do with the tenant. They are an operation of their own, of the kind `follow_up`, which the last step of the
//! provisioning begins. Its id is a function of the provisioning's, so a crash neither loses nor doubles it.
//!
//! - It has no lane: it blocks no other operation of the tenant, and none blocks it.
//! - `provision(..).await` waits for its first attempts, at most ten seconds, and returns the tenant in any case.
//!   [`Provisioned::follow_up`](crate::provision::Provisioned::follow_up) is its state if it is still open.
//! - A transient error is repeated with a growing delay. After any other error it is parked; the steps after the failed
//!   one wait.
//! - Its steps run only while the tenant is active. For a suspended or archived tenant it waits, and continues within a
//!   minute after the tenant is active again. A purge ends it as *abandoned*.
//! - A step after activation connects with the login that the tenant has at that time.
//! - Neither a delivery nor a later step is part of the state of the provisioning, which is *done* once the tenant is
//!   active.
//!
//! # The pivot step
//!
//! A saga has at most one *pivot step*. Until the intent of that step is stored, a failure undoes the operation. After
//! that the engine no longer undoes it: it retries a step that fails, with a growing delay, or parks the operation. A
//! set-up of a server has none: a failure always undoes what it wrote to the landlord. Nor has a temporary login: its
//! password is in the memory of one process only, so a failure or the death of that process drops the login.
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
//! A subject (a tenant, a server, the vault, a setup link) has at most one open operation in each lane. Follow-up work
//! has no lane.
//!
//! | lane | operations | can begin while an operation of the other lane is open? |
//! |---|---|---|
//! | change | provision, migrate, rotate, temporary login, set-up and rotation of a server, rekey | no: [`Busy`](crate::error::ChangeError::Busy) names the operation that is open |
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
//! # Rows that cannot be parsed
//!
//! A newer version of this crate, or a person, may write a row of the landlord that this version cannot parse. Every
//! list returns the other rows, and the bad one as an [`UnreadableRow`](crate::error::UnreadableRow) with its table and
//! id. Recovery and batches leave it out, count it and log it. To end the state, correct the row by SQL, or use the
//! version that wrote it. A call that needs just this row fails with [`Corrupt`](crate::error::StoreError::Corrupt). The
//! logins and directory entries of one tenant are always read as a whole: a suspension that did not see one of them
//! could leave it open.
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
