//! The SQL statements of [`PgJournal`](super::PgJournal), one for each call of the journal.
//!
//! In most of them the CTE `fence` locks the row of the operation's epoch. Without the lock, a replaced worker's write
//! could wait for the takeover to commit and then succeed, because a plain `EXISTS` would still see the old epoch. The
//! column `lanes.fence` is different: it holds the open operation of the preempt lane.
//!
//! An operation whose worker's node holds an advisory lock can be claimed before its lease expires, if no session holds
//! that lock: see `worker_lock`. Only the combination of `worker_lock` and `worker_lock_of` counts: a node of an
//! earlier version changes `worker` without them.
use super::worker_lock::lock_class;

pub(super) const NOW: &str = "SELECT clock_timestamp()";

pub(super) const READ: &str = "SELECT o.*, e.epoch FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.id = $1";

/// $2 is compared as `jsonb`, so that the notation of a number and the order of fields do not matter.
pub(super) const BY_KEY: &str = "SELECT o.*, e.epoch, o.request = $2 AS is_same_request FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.idempotency_key = $1 AND o.status <> 'undone'";

/// Returns no row if one of the subject's lanes is occupied. One row stores both lanes of a subject, and its lock
/// serializes concurrent calls.
pub(super) const BEGIN_CHANGE: &str = "WITH lane AS (
    INSERT INTO tenantry.lanes (subject, change) VALUES ($3, $1)
    ON CONFLICT (subject) DO UPDATE SET change = EXCLUDED.change
    WHERE lanes.change IS NULL AND lanes.fence IS NULL
    RETURNING 1
), op AS (
    INSERT INTO tenantry.operations (id, kind, lane, subject, idempotency_key, reason, request, status, intended, total,
        worker, leased_until, recoverable, worker_lock, worker_lock_of)
    SELECT $1, $2, 'change', $3, $4, $5, $6, 'running', $7, $8, $9, now() + make_interval(secs => $10), $11, $12, $9
    FROM lane
    RETURNING *
), ep AS (
    INSERT INTO tenantry.epochs (operation, epoch) SELECT id, 1 FROM op RETURNING epoch
)
SELECT op.*, ep.epoch FROM op, ep";

/// Returns no row if the subject's preempt lane is occupied. An open change does not matter.
pub(super) const BEGIN_PREEMPT: &str = "WITH lane AS (
    INSERT INTO tenantry.lanes (subject, fence) VALUES ($3, $1)
    ON CONFLICT (subject) DO UPDATE SET fence = EXCLUDED.fence
    WHERE lanes.fence IS NULL
    RETURNING 1
), op AS (
    INSERT INTO tenantry.operations (id, kind, lane, subject, idempotency_key, reason, request, status, intended, total,
        worker, leased_until, recoverable, worker_lock, worker_lock_of)
    SELECT $1, $2, 'fence', $3, $4, $5, $6, 'running', $7, $8, $9, now() + make_interval(secs => $10), $11, $12, $9
    FROM lane
    RETURNING *
), ep AS (
    INSERT INTO tenantry.epochs (operation, epoch) SELECT id, 1 FROM op RETURNING epoch
)
SELECT op.*, ep.epoch FROM op, ep";

/// Returns no row unless the operation $10 is in progress and $11 is its newest epoch. If an operation with the id $1
/// exists, nothing is inserted and `id` is NULL. The epoch's row of the operation $10 is locked, so a purge that raises
/// the epoch either sees the new row or prevents it.
pub(super) const BEGIN_FOLLOW_UP: &str = "WITH fence AS (
    SELECT e.operation FROM tenantry.epochs e JOIN tenantry.operations o ON o.id = e.operation
    WHERE e.operation = $10 AND e.epoch = $11 AND o.status IN ('running', 'undoing') FOR SHARE OF e
), op AS (
    INSERT INTO tenantry.operations (id, kind, lane, occupies_lane, subject, reason, request, status, intended, total,
        worker, leased_until, recoverable)
    SELECT $1, $2, 'change', false, $3, $4, $5, 'running', $6, $7, $8, now(), $9 FROM fence
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), ep AS (
    INSERT INTO tenantry.epochs (operation, epoch) SELECT id, 1 FROM op
)
SELECT op.id FROM fence LEFT JOIN op ON true";

pub(super) const BUSY: &str = "SELECT o.id, o.status FROM tenantry.lanes l \
    JOIN tenantry.operations o ON o.id = coalesce(l.fence, l.change) WHERE l.subject = $1";

pub(super) const EPOCH: &str = "SELECT epoch FROM tenantry.epochs WHERE operation = $1";

/// All conditions are on the operation's own row. PostgreSQL checks them again after it has waited for the row's lock,
/// so the slower one of two concurrent claims sees the lease and the lock of the faster one.
///
/// The lock of the previous worker's node is tried only while that worker's lease is valid. Its own process holds it if
/// it lives. Two concurrent claims may find it held by each other; the next attempt decides.
pub(super) const CLAIM: &str = concat!(
    "WITH lock AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $1 FOR UPDATE
), op AS (
    UPDATE tenantry.operations o
    SET worker = $2, leased_until = now() + make_interval(secs => $3), retry_at = NULL, attempts = o.attempts + 1,
        incarnation = tenantry.current_incarnation(), updated_at = now(), worker_lock = $4, worker_lock_of = $2
    FROM lock
    WHERE o.id = lock.operation AND o.status IN ('running', 'undoing')
      AND (o.worker = $2 OR ((o.retry_at IS NULL OR o.retry_at <= now()) AND CASE
            WHEN o.leased_until <= now() THEN true
            WHEN o.worker_lock_of = o.worker THEN pg_try_advisory_xact_lock(",
    lock_class!(),
    ", o.worker_lock) END))
    RETURNING o.*
), ep AS (
    UPDATE tenantry.epochs e SET epoch = e.epoch + 1 FROM op WHERE e.operation = op.id RETURNING e.epoch
)
SELECT op.*, ep.epoch FROM op, ep"
);

/// Keys of the workers' locks that sessions of this database hold. A key of another use of the same class may be
/// greater than an `integer`.
macro_rules! held_locks {
    () => {
        concat!(
            "SELECT l.objid::bigint FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 ",
            "AND l.classid = ",
            lock_class!(),
            " AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())"
        )
    };
}

/// The worker whose lease prevents a claim. No row if no worker has a valid lease, or if its node has died.
pub(super) const LEASE_HOLDER: &str = concat!(
    "SELECT worker, leased_until FROM tenantry.operations WHERE id = $1 AND status IN ('running', 'undoing') \
    AND leased_until > now() AND NOT (worker_lock IS NOT NULL AND worker_lock_of = worker \
    AND worker_lock::bigint NOT IN (",
    held_locks!(),
    "))"
);

pub(super) const RENEW: &str = "WITH fence AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $1 AND epoch = $2 FOR SHARE
)
UPDATE tenantry.operations o SET leased_until = now() + make_interval(secs => $3)
FROM fence WHERE o.id = fence.operation AND o.status IN ('running', 'undoing')";

/// Returns no row if the epoch is not the newest one, if the operation was parked or has ended, or if the landlord has
/// crashed since the worker claimed the operation. After a crash, asynchronously committed records may be lost. This
/// statement must then not write a record that assumes them.
///
/// If $11 is false, the record is committed asynchronously. `set_config` is local to the transaction of this statement.
pub(super) const RECORD: &str = "WITH fence AS (
    SELECT operation, CASE WHEN $11 THEN '' ELSE set_config('synchronous_commit', 'off', true) END AS commit
    FROM tenantry.epochs WHERE operation = $1 AND epoch = $2 FOR SHARE
), op AS (
    UPDATE tenantry.operations o
    SET status = $3, step = $4, intended = $5, outputs = o.outputs || coalesce($7, '{}')
            || CASE WHEN $3 = 'parked' AND o.status = 'undoing' THEN '{\"$backward\": true}'::jsonb ELSE '{}' END,
        error = CASE WHEN $8 IS NOT NULL OR $3 <> 'running' THEN coalesce($8, o.error) END,
        attempts = CASE WHEN o.done = $6 AND o.intended = $5 AND o.status = $3 THEN o.attempts ELSE 0 END, done = $6,
        retry_at = now() + make_interval(secs => $9),
        leased_until = coalesce(now() + make_interval(secs => $10), now()),
        seq = o.seq + 1, updated_at = now(), finished_at = CASE WHEN $12 THEN now() END
    FROM fence
    WHERE o.id = fence.operation AND o.status IN ('running', 'undoing') AND fence.commit IS NOT NULL
      AND o.incarnation = (SELECT id FROM tenantry.incarnation)
    RETURNING o.id, o.subject, o.seq, o.total
), lane AS (
    UPDATE tenantry.lanes l
    SET change = nullif(l.change, op.id), fence = nullif(l.fence, op.id)
    FROM op WHERE $12 AND l.subject = op.subject
)
INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total, error)
SELECT id, seq, $4, $3, $6, total, $8 FROM op
RETURNING operation, seq, at, step, status, done, total, error, reason";

/// Tells whether [`RECORD`] returned no row only because the landlord has a new incarnation, that is, has crashed.
pub(super) const IS_OTHER_INCARNATION: &str = "SELECT EXISTS (SELECT FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.id = $1 AND e.epoch = $2 AND o.status IN ('running', \
    'undoing') AND NOT EXISTS (SELECT FROM tenantry.incarnation i WHERE i.id = o.incarnation))";

/// Parks the subject's open operation of the change lane for a preempting operation: sets its status to parked and
/// raises its epoch, so that its worker can no longer write. No row: the preempting worker has been replaced. `change`
/// is the id of the parked operation, NULL if there was none.
///
/// The lane's row needs no lock: while the preempt lane is occupied, no new change can begin, and a change that ends
/// concurrently is not parked. A repetition returns the same `change`, writes no second event, and raises the epoch
/// again. That is harmless because no worker drives a parked operation.
pub(super) const PARK: &str = "WITH fence AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $2 AND epoch = $3 FOR SHARE
), lane AS (
    SELECT l.change FROM tenantry.lanes l, fence WHERE l.subject = $1
), ep AS (
    UPDATE tenantry.epochs e SET epoch = e.epoch + 1 FROM lane WHERE e.operation = lane.change RETURNING e.operation
), op AS (
    UPDATE tenantry.operations o
    SET status = 'parked', error = 'stopped by operation ' || $2, leased_until = now(), retry_at = NULL,
        outputs = o.outputs || CASE o.status WHEN 'undoing' THEN '{\"$backward\": true}'::jsonb ELSE '{}' END,
        seq = o.seq + 1, updated_at = now()
    FROM ep WHERE o.id = ep.operation AND o.status IN ('running', 'undoing')
    RETURNING o.id, o.seq, o.step, o.done, o.total, o.error
), told AS (
    INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total, error)
    SELECT id, seq, step, 'parked', done, total, error FROM op
)
SELECT (SELECT change FROM lane) AS change FROM fence";

/// Ends the parked change of a subject as undone, and its open follow-up work as abandoned. Any worker of that work is
/// replaced, because the epoch is raised.
pub(super) const ABANDON_CHANGE: &str = "WITH fence AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $2 AND epoch = $3 FOR SHARE
), lane AS (
    UPDATE tenantry.lanes l SET change = NULL FROM fence, tenantry.operations o
    WHERE l.subject = $1 AND o.id = l.change AND o.status = 'parked'
    RETURNING o.id
), op AS (
    UPDATE tenantry.operations o
    SET status = 'undone', seq = o.seq + 1, updated_at = now(), finished_at = now()
    FROM lane WHERE o.id = lane.id
    RETURNING o.id, o.seq, o.step, o.total, o.error
), told AS (
    INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total, error)
    SELECT id, seq, step, 'undone', 0, total, error FROM op
), work AS (
    SELECT o.id FROM fence, tenantry.operations o
    WHERE o.subject = $1 AND NOT o.occupies_lane AND o.status IN ('running', 'undoing', 'parked')
), work_epoch AS (
    UPDATE tenantry.epochs e SET epoch = e.epoch + 1 FROM work WHERE e.operation = work.id RETURNING e.operation
), ended AS (
    UPDATE tenantry.operations o
    SET status = 'undone', leased_until = now(), retry_at = NULL, seq = o.seq + 1, updated_at = now(),
        finished_at = now(), outputs = o.outputs || jsonb_build_object('$abandoned', 'operation ' || $2)
    FROM work_epoch w WHERE o.id = w.operation AND o.status IN ('running', 'undoing', 'parked')
    RETURNING o.id, o.seq, o.step, o.done, o.total
), ended_told AS (
    INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total, reason)
    SELECT id, seq, step, 'undone', done, total, 'operation ' || $2 FROM ended
)
SELECT 1 FROM fence";

/// Returns no row if the operation does not exist or has ended.
pub(super) const ABANDON: &str = "WITH lock AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $1 FOR UPDATE
), op AS (
    UPDATE tenantry.operations o
    SET status = 'undone', leased_until = now(), retry_at = NULL, seq = o.seq + 1, updated_at = now(),
        finished_at = now(), outputs = o.outputs || jsonb_build_object('$abandoned', $2::text)
    FROM lock WHERE o.id = lock.operation AND o.status IN ('running', 'undoing', 'parked')
    RETURNING o.*
), ep AS (
    UPDATE tenantry.epochs e SET epoch = e.epoch + 1 FROM op WHERE e.operation = op.id RETURNING e.epoch
), lane AS (
    UPDATE tenantry.lanes l SET change = nullif(l.change, op.id), fence = nullif(l.fence, op.id)
    FROM op WHERE l.subject = op.subject
), told AS (
    INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total, reason)
    SELECT id, seq, step, 'undone', done, total, $2 FROM op
)
SELECT op.*, ep.epoch FROM op, ep";

/// Returns no row if the operation does not exist or has ended.
pub(super) const SKIP_STEP: &str = "WITH lock AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $1 FOR UPDATE
), op AS (
    UPDATE tenantry.operations o
    SET status = CASE WHEN o.status = 'undoing' OR o.outputs ?| ARRAY['$failure', '$backward'] THEN 'undoing'
            ELSE 'running' END,
        outputs = o.outputs || jsonb_build_object(CASE WHEN o.status = 'undoing'
            OR o.outputs ?| ARRAY['$failure', '$backward'] THEN $4::text ELSE $3::text END, $5::text),
        worker = '', leased_until = now(), retry_at = NULL, attempts = 0, seq = o.seq + 1, updated_at = now()
    FROM lock
    WHERE o.id = lock.operation AND o.status IN ('running', 'undoing', 'parked')
    RETURNING o.*
), ep AS (
    UPDATE tenantry.epochs e SET epoch = e.epoch + 1 FROM op WHERE e.operation = op.id RETURNING e.epoch
), told AS (
    INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total, reason)
    SELECT id, seq, $2, status, done, total, $5 FROM op
)
SELECT op.*, ep.epoch FROM op, ep";

pub(super) const UNPARK: &str = "WITH lock AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $1 FOR UPDATE
), op AS (
    UPDATE tenantry.operations o
    SET status = $2, leased_until = now(), retry_at = NULL, attempts = 0, seq = o.seq + 1, updated_at = now(),
        outputs = o.outputs || CASE $2 WHEN 'undoing' THEN '{\"$backward\": true}'::jsonb ELSE '{}' END
    FROM lock WHERE o.id = lock.operation AND o.status = 'parked'
    RETURNING o.*
), told AS (
    INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total)
    SELECT id, seq, step, status, done, total FROM op
)
SELECT op.*, e.epoch FROM op JOIN tenantry.epochs e ON e.operation = op.id";

pub(super) const OPEN: &str = "SELECT o.*, e.epoch FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.status IN ('running', 'undoing', 'parked') ORDER BY o.id";

/// PostgreSQL runs the subquery on `pg_locks` at most once, and only if an operation has a valid lease.
pub(super) const DUE: &str = concat!(
    "SELECT id FROM tenantry.operations WHERE status IN ('running', 'undoing') \
    AND (retry_at IS NULL OR retry_at <= now()) AND recoverable \
    AND (leased_until <= now() OR (worker_lock IS NOT NULL AND worker_lock_of = worker \
        AND worker_lock::bigint NOT IN (",
    held_locks!(),
    "))) ORDER BY id LIMIT $1"
);

pub(super) const EVENTS: &str = "SELECT operation, seq, at, step, status, done, total, error, reason \
    FROM tenantry.operation_events WHERE operation = $1 AND seq > $2 ORDER BY seq LIMIT $3";

/// Operations of the subject $1 that are open or ended at $2 or later.
pub(super) const ACTIVE_SINCE: &str = "SELECT o.*, e.epoch FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id \
    WHERE o.subject = $1 AND (o.finished_at IS NULL OR o.finished_at >= $2) ORDER BY o.id DESC LIMIT $3";

/// Returns no row if the operation does not exist or has ended. The operation's row is locked before the event is
/// written, so two calls get different numbers.
pub(super) const ANNOTATE: &str = "WITH op AS (
    UPDATE tenantry.operations o SET seq = o.seq + 1
    WHERE o.id = $1 AND o.status IN ('running', 'undoing', 'parked')
    RETURNING o.id, o.seq, o.step, o.status, o.done, o.total, o.error
)
INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total, error, reason)
SELECT id, seq, step, status, done, total, error, $2 FROM op
RETURNING seq";

pub(super) const HISTORY: &str = "SELECT o.*, e.epoch FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.subject = $1 ORDER BY o.id";
