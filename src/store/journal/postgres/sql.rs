//! The statements of the journal. `fence` locks the epoch's row: a plain EXISTS would let a stale write that waits for
//! the takeover land after it.

pub(super) const NOW: &str = "SELECT clock_timestamp()";

pub(super) const READ: &str = "SELECT o.*, e.epoch FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.id = $1";

pub(super) const BY_KEY: &str = "SELECT o.*, e.epoch FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.idempotency_key = $1 AND o.status <> 'undone'";

/// No row: the lane is taken. Both lanes of a subject are decided under the lock of its one row.
pub(super) const BEGIN_CHANGE: &str = "WITH lane AS (
    INSERT INTO tenantry.lanes (subject, change) VALUES ($3, $1)
    ON CONFLICT (subject) DO UPDATE SET change = EXCLUDED.change
    WHERE lanes.change IS NULL AND lanes.fence IS NULL
    RETURNING 1
), op AS (
    INSERT INTO tenantry.operations (id, kind, lane, subject, idempotency_key, reason, request, status, intended, total,
        worker, leased_until, recoverable)
    SELECT $1, $2, 'change', $3, $4, $5, $6, 'running', $7, $8, $9, now() + make_interval(secs => $10), $11 FROM lane
    RETURNING *
), ep AS (
    INSERT INTO tenantry.epochs (operation, epoch) SELECT id, 1 FROM op RETURNING epoch
)
SELECT op.*, ep.epoch FROM op, ep";

/// A fence waits for no change.
pub(super) const BEGIN_FENCE: &str = "WITH lane AS (
    INSERT INTO tenantry.lanes (subject, fence) VALUES ($3, $1)
    ON CONFLICT (subject) DO UPDATE SET fence = EXCLUDED.fence
    WHERE lanes.fence IS NULL
    RETURNING 1
), op AS (
    INSERT INTO tenantry.operations (id, kind, lane, subject, idempotency_key, reason, request, status, intended, total,
        worker, leased_until, recoverable)
    SELECT $1, $2, 'fence', $3, $4, $5, $6, 'running', $7, $8, $9, now() + make_interval(secs => $10), $11 FROM lane
    RETURNING *
), ep AS (
    INSERT INTO tenantry.epochs (operation, epoch) SELECT id, 1 FROM op RETURNING epoch
)
SELECT op.*, ep.epoch FROM op, ep";

pub(super) const BUSY: &str = "SELECT coalesce(fence, change) FROM tenantry.lanes \
    WHERE subject = $1 AND (fence IS NOT NULL OR change IS NOT NULL)";

pub(super) const EPOCH: &str = "SELECT epoch FROM tenantry.epochs WHERE operation = $1";

/// The conditions stand on the operation's own row, so that a waiting claim sees what the faster one wrote.
pub(super) const CLAIM: &str = "WITH lock AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $1 FOR UPDATE
), op AS (
    UPDATE tenantry.operations o
    SET worker = $2, leased_until = now() + make_interval(secs => $3), retry_at = NULL, attempts = o.attempts + 1,
        incarnation = tenantry.current_incarnation(), updated_at = now()
    FROM lock
    WHERE o.id = lock.operation AND o.status IN ('running', 'undoing')
      AND (o.worker = $2 OR (o.leased_until <= now() AND (o.retry_at IS NULL OR o.retry_at <= now())))
    RETURNING o.*
), ep AS (
    UPDATE tenantry.epochs e SET epoch = e.epoch + 1 FROM op WHERE e.operation = op.id RETURNING e.epoch
)
SELECT op.*, ep.epoch FROM op, ep";

pub(super) const RENEW: &str = "WITH fence AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $1 AND epoch = $2 FOR SHARE
)
UPDATE tenantry.operations o SET leased_until = now() + make_interval(secs => $3)
FROM fence WHERE o.id = fence.operation AND o.status IN ('running', 'undoing')";

/// No row: another epoch, or the landlord has crashed since the worker took hold of it. What the worker knows to be done
/// may be forgotten then, all commits included that were not waited for: this one is the first that would say otherwise.
///
/// What merely happened is committed without waiting for the disk ($11 is false): `set_config` is local to this
/// statement's own transaction.
pub(super) const RECORD: &str = "WITH fence AS (
    SELECT operation, CASE WHEN $11 THEN '' ELSE set_config('synchronous_commit', 'off', true) END AS commit
    FROM tenantry.epochs WHERE operation = $1 AND epoch = $2 FOR SHARE
), op AS (
    UPDATE tenantry.operations o
    SET status = $3, step = $4, intended = $5, outputs = o.outputs || coalesce($7, '{}'),
        error = CASE WHEN $8 IS NOT NULL OR $3 <> 'running' THEN coalesce($8, o.error) END,
        attempts = CASE WHEN o.done = $6 AND o.intended = $5 THEN o.attempts ELSE 0 END, done = $6,
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
RETURNING operation, seq, at, step, status, done, total, error";

/// Of a record that was refused: whether that is for the incarnation alone.
pub(super) const FORGOTTEN: &str = "SELECT EXISTS (SELECT FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.id = $1 AND e.epoch = $2 AND o.status IN ('running', 'undoing') \
    AND NOT EXISTS (SELECT FROM tenantry.incarnation i WHERE i.id = o.incarnation))";

/// One row if the fence holds; `change` is what is parked now. The lane needs no lock: while the fence has its own, no
/// new change begins, and one that ends at this moment is not parked. The epoch is raised again on a repetition, which harms
/// nobody: nobody holds a parked operation.
pub(super) const PARK: &str = "WITH fence AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $2 AND epoch = $3 FOR SHARE
), lane AS (
    SELECT l.change FROM tenantry.lanes l, fence WHERE l.subject = $1
), ep AS (
    UPDATE tenantry.epochs e SET epoch = e.epoch + 1 FROM lane WHERE e.operation = lane.change RETURNING e.operation
), op AS (
    UPDATE tenantry.operations o
    SET status = 'parked', error = 'stopped by operation ' || $2, leased_until = now(), retry_at = NULL,
        seq = o.seq + 1, updated_at = now()
    FROM ep WHERE o.id = ep.operation AND o.status IN ('running', 'undoing')
    RETURNING o.id, o.seq, o.step, o.done, o.total, o.error
), told AS (
    INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total, error)
    SELECT id, seq, step, 'parked', done, total, error FROM op
)
SELECT (SELECT change FROM lane) AS change FROM fence";

pub(super) const ABANDON: &str = "WITH fence AS (
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
)
SELECT 1 FROM fence";

pub(super) const UNPARK: &str = "WITH lock AS (
    SELECT operation FROM tenantry.epochs WHERE operation = $1 FOR UPDATE
), op AS (
    UPDATE tenantry.operations o
    SET status = $2, leased_until = now(), retry_at = NULL, attempts = 0, seq = o.seq + 1, updated_at = now()
    FROM lock WHERE o.id = lock.operation AND o.status = 'parked'
    RETURNING o.*
), told AS (
    INSERT INTO tenantry.operation_events (operation, seq, step, status, done, total)
    SELECT id, seq, step, status, done, total FROM op
)
SELECT op.*, e.epoch FROM op JOIN tenantry.epochs e ON e.operation = op.id";

pub(super) const OPEN: &str = "SELECT o.*, e.epoch FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.status IN ('running', 'undoing', 'parked') ORDER BY o.id";

pub(super) const DUE: &str = "SELECT id FROM tenantry.operations WHERE status IN ('running', 'undoing') \
    AND leased_until <= now() AND (retry_at IS NULL OR retry_at <= now()) AND recoverable ORDER BY id LIMIT $1";

pub(super) const EVENTS: &str = "SELECT operation, seq, at, step, status, done, total, error \
    FROM tenantry.operation_events WHERE operation = $1 AND seq > $2 ORDER BY seq LIMIT $3";

pub(super) const HISTORY: &str = "SELECT o.*, e.epoch FROM tenantry.operations o \
    JOIN tenantry.epochs e ON e.operation = o.id WHERE o.subject = $1 ORDER BY o.id";
