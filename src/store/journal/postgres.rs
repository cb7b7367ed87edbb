//! The journal in the landlord's PostgreSQL database.
//!
//! Production code uses it through the trait [`Journal`]. It locks rows always in the same order: the operation's
//! epoch, then the operation, then its lane. All times are computed by the landlord's clock.
use super::{Begun, Claim, Intent, Journal, Progress, Record};
use crate::error::{BeginError, Rows, StoreError, UnreadableRow};
use crate::json;
use crate::operation::{FencingToken, Lane, LeaseHolder, OperationEvent, OperationId, OperationStatus, Subject};
use crate::sqlstate;
use crate::store::schema::LandlordPool;
use async_trait::async_trait;
use rand::RngExt;
use serde_json::{Map, Value, value::RawValue};
use sqlx::types::Json;
use sqlx::{PgPool, Row, postgres::PgRow};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::sleep;

mod sql;
mod worker_lock;
pub(crate) use worker_lock::WorkerLock;

/// The journal in the landlord's tables. Each write is one autocommitted statement. [`Journal::begin`] reads the
/// idempotency key before its write, and the conflicting operation after a write that found the lane occupied.
#[derive(Clone, Debug)]
pub struct PgJournal {
    landlord: LandlordPool,
    renewals: LandlordPool,
    worker_lock: Option<WorkerLock>,
}

/// How often `begin` tries to take the lane. A further attempt is needed if the lane becomes free between the failed
/// write and the read of the operation that occupied it.
const BEGIN_ATTEMPTS: u64 = 30;

impl PgJournal {
    /// Uses the application's pool to the landlord for all calls.
    pub fn new(landlord: PgPool) -> Self {
        Self::over(LandlordPool::new(landlord))
    }
    pub(crate) fn over(landlord: LandlordPool) -> Self {
        Self { renewals: landlord.clone(), landlord, worker_lock: None }
    }
    /// Renews leases over another pool to the same database, so that an exhausted landlord pool cannot make a worker
    /// lose its lease.
    pub fn renewing_on(self, renewals: PgPool) -> Self {
        self.renewing_over(LandlordPool::new(renewals))
    }
    pub(crate) fn renewing_over(self, renewals: LandlordPool) -> Self {
        Self { renewals, ..self }
    }
    /// Stores this node's lock with each operation that a worker of this process begins or claims. If the process dies,
    /// another node can claim the operation at once. Without a lock it waits for the lease.
    pub(crate) fn with_worker_lock(self, lock: WorkerLock) -> Self {
        Self { worker_lock: Some(lock), ..self }
    }
    /// The key of this node's lock, if the node holds it.
    async fn lock_key(&self) -> Option<i32> {
        match &self.worker_lock {
            Some(lock) => lock.key().await,
            None => None,
        }
    }

    /// Determines why a progress record was refused.
    async fn explain_refusal(&self, token: FencingToken) -> Result<StoreError, StoreError> {
        let query = sqlx::query_scalar(sql::IS_OTHER_INCARNATION).bind(token.operation.as_uuid()).bind(token.epoch);
        Ok(if query.fetch_one(&self.landlord).await? { StoreError::LostWrites } else { StoreError::Fenced })
    }

    /// Inserts the operation and takes its lane. `None` if the lane is occupied.
    async fn insert(&self, intent: &Intent, lock: Option<i32>) -> Result<Option<Record>, sqlx::Error> {
        let statement = match intent.lane {
            Lane::Preempt => sql::BEGIN_PREEMPT,
            Lane::Change | Lane::FollowUp => sql::BEGIN_CHANGE,
        };
        let row = sqlx::query(statement)
            .bind(intent.id.as_uuid())
            .bind(&*intent.kind)
            .bind(intent.subject.to_string())
            .bind(&intent.key)
            .bind(&intent.reason)
            .bind(stored_json(&intent.request)?)
            .bind(to_integer(intent.intended))
            .bind(to_integer(intent.total))
            .bind(&intent.worker)
            .bind(intent.lease.as_secs_f64())
            .bind(intent.recoverable)
            .bind(lock)
            .fetch_optional(&self.landlord)
            .await?;
        row.as_ref().map(to_record).transpose().map_err(|row| sqlx::Error::Decode(row.into()))
    }
}

impl PgJournal {
    async fn unpark(&self, id: OperationId, status: OperationStatus) -> Result<Record, StoreError> {
        let unparked = sqlx::query(sql::UNPARK).bind(id.as_uuid()).bind(status.as_str());
        let row = unparked.fetch_optional(&self.landlord).await?;
        row.as_ref().map(to_record).transpose()?.ok_or_else(|| StoreError::conflict("the operation is not parked"))
    }
}

#[async_trait]
impl Journal for PgJournal {
    async fn begin(&self, intent: &Intent) -> Result<Begun, BeginError> {
        if let Some(joined) = self.find_joined(intent).await? {
            return Ok(Begun::Joined(Box::new(joined)));
        }
        let lock = self.lock_key().await;
        for attempt in 0..BEGIN_ATTEMPTS {
            match self.insert(intent, lock).await {
                Ok(Some(record)) => return Ok(Begun::New(Box::new(record))),
                Ok(None) => {}
                // A concurrent caller has begun an operation with the same key; the next lookup finds it.
                Err(e) if sqlstate::unique_violation(&e) == Some("operations_key") => {}
                Err(e) => return Err(StoreError::from(e).into()),
            }
            if let Some(joined) = self.find_joined(intent).await? {
                return Ok(Begun::Joined(Box::new(joined)));
            }
            let busy = sqlx::query(sql::BUSY).bind(intent.subject.to_string());
            if let Some(row) = busy.fetch_optional(&self.landlord).await.map_err(StoreError::from)? {
                return Err(to_busy(&row)?);
            }
            // With jitter, because callers that take turns at one lane would otherwise meet at it again and again.
            let pause = Duration::from_millis(rand::rng().random_range(0..=attempt));
            sleep(pause).await;
        }
        Err(StoreError::contended("the lane was occupied and freed by other operations at every attempt").into())
    }

    async fn find_joined(&self, intent: &Intent) -> Result<Option<Record>, BeginError> {
        let Some(key) = &intent.key else { return Ok(None) };
        let find = sqlx::query(sql::BY_KEY).bind(key).bind(stored_json(&intent.request).map_err(StoreError::from)?);
        let row = find.fetch_optional(&self.landlord).await.map_err(StoreError::from)?;
        let Some(row) = row else { return Ok(None) };
        let is_same_request: bool = row.try_get("is_same_request").map_err(StoreError::from)?;
        let found = to_record(&row).map_err(StoreError::from)?;
        let is_same = is_same_request && found.kind == intent.kind;
        if is_same { Ok(Some(found)) } else { Err(BeginError::KeyReused { operation: found.id }) }
    }

    async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        Ok(sqlx::query_scalar(sql::NOW).fetch_one(&self.landlord).await?)
    }

    async fn read(&self, id: OperationId) -> Result<Option<Record>, StoreError> {
        let row = sqlx::query(sql::READ).bind(id.as_uuid()).fetch_optional(&self.landlord).await?;
        Ok(row.as_ref().map(to_record).transpose()?)
    }

    async fn claim(&self, id: OperationId, worker: &str, lease: Duration) -> Result<Claim, StoreError> {
        let claim = sqlx::query(sql::CLAIM).bind(id.as_uuid()).bind(worker).bind(lease.as_secs_f64());
        if let Some(row) = claim.bind(self.lock_key().await).fetch_optional(&self.landlord).await? {
            return Ok(Claim::Taken(Box::new(to_record(&row)?)));
        }
        let found =
            self.read(id).await?.ok_or_else(|| StoreError::conflict("the journal has no operation with this id"))?;
        Ok(if found.status.is_over() { Claim::Over(Box::new(found)) } else { Claim::Held(Box::new(found)) })
    }

    async fn lease_holder(&self, id: OperationId) -> Result<Option<LeaseHolder>, StoreError> {
        let row = sqlx::query_as(sql::LEASE_HOLDER).bind(id.as_uuid()).fetch_optional(&self.landlord).await?;
        Ok(row.map(|(worker, until): (String, OffsetDateTime)| LeaseHolder::new(&worker, until)))
    }

    async fn renew(&self, token: FencingToken, lease: Duration) -> Result<(), StoreError> {
        let renew = sqlx::query(sql::RENEW).bind(token.operation.as_uuid()).bind(token.epoch);
        fenced_unless(renew.bind(lease.as_secs_f64()).execute(&self.renewals).await?.rows_affected() == 1)
    }

    async fn check(&self, token: FencingToken) -> Result<(), StoreError> {
        let newest: Option<i64> =
            sqlx::query_scalar(sql::EPOCH).bind(token.operation.as_uuid()).fetch_optional(&self.landlord).await?;
        fenced_unless(newest == Some(token.epoch))
    }

    async fn record(&self, token: FencingToken, progress: &Progress) -> Result<OperationEvent, StoreError> {
        let failed = progress.error.is_some();
        let name = if failed { super::FAILURE } else { &progress.step };
        let output = progress.output.as_ref().map(|o| Value::from(Map::from_iter([(name.to_owned(), o.clone())])));
        let row = sqlx::query(sql::RECORD)
            .bind(token.operation.as_uuid())
            .bind(token.epoch)
            .bind(progress.status.as_str())
            .bind(&*progress.step)
            .bind(to_integer(progress.intended))
            .bind(to_integer(progress.done))
            .bind(output.as_ref().map(stored_json).transpose()?)
            .bind(&progress.error)
            .bind(progress.retry_after.map(|d| d.as_secs_f64()))
            .bind(progress.lease.map(|d| d.as_secs_f64()))
            .bind(progress.durable)
            .bind(progress.status.is_over())
            .fetch_optional(&self.landlord)
            .await?;
        match row {
            Some(row) => Ok(to_event(&row)?),
            None => Err(self.explain_refusal(token).await?),
        }
    }

    async fn begin_follow_up(&self, intent: &Intent, by: FencingToken) -> Result<Record, StoreError> {
        let row = sqlx::query(sql::BEGIN_FOLLOW_UP)
            .bind(intent.id.as_uuid())
            .bind(&*intent.kind)
            .bind(intent.subject.to_string())
            .bind(&intent.reason)
            .bind(&intent.request)
            .bind(to_integer(intent.intended))
            .bind(to_integer(intent.total))
            .bind(&intent.worker)
            .bind(intent.recoverable)
            .bind(by.operation.as_uuid())
            .bind(by.epoch)
            .fetch_optional(&self.landlord)
            .await?;
        row.ok_or(StoreError::Fenced)?;
        self.read(intent.id).await?.ok_or_else(|| missing(intent.id))
    }

    async fn park_change(&self, subject: &Subject, by: FencingToken) -> Result<Option<Record>, StoreError> {
        let park = sqlx::query(sql::PARK).bind(subject.to_string()).bind(by.operation.as_uuid()).bind(by.epoch);
        let row = park.fetch_optional(&self.landlord).await?.ok_or(StoreError::Fenced)?;
        match row.try_get::<Option<uuid::Uuid>, _>("change")? {
            Some(id) => self.read(OperationId::from_uuid(id)).await,
            None => Ok(None),
        }
    }

    async fn abandon_change(&self, subject: &Subject, by: FencingToken) -> Result<(), StoreError> {
        let end =
            sqlx::query(sql::ABANDON_CHANGE).bind(subject.to_string()).bind(by.operation.as_uuid()).bind(by.epoch);
        fenced_unless(end.fetch_optional(&self.landlord).await?.is_some())
    }

    async fn resume_parked(&self, id: OperationId) -> Result<Record, StoreError> {
        self.unpark(id, OperationStatus::Running).await
    }

    async fn undo_parked(&self, id: OperationId) -> Result<Record, StoreError> {
        self.unpark(id, OperationStatus::Undoing).await
    }

    async fn abandon(&self, id: OperationId, reason: &str) -> Result<Record, StoreError> {
        let ended = sqlx::query(sql::ABANDON).bind(id.as_uuid()).bind(reason).fetch_optional(&self.landlord).await?;
        if let Some(row) = ended {
            return Ok(to_record(&row)?);
        }
        match self.read(id).await? {
            Some(record) if record.status == OperationStatus::Abandoned => Ok(record),
            Some(_) => Err(StoreError::conflict("the operation has ended")),
            None => Err(missing(id)),
        }
    }

    async fn skip_step(&self, id: OperationId, step: &str, reason: &str) -> Result<Record, StoreError> {
        let skip = sqlx::query(sql::SKIP_STEP).bind(id.as_uuid()).bind(step);
        let skip = skip.bind(super::skip_key(step, false)).bind(super::skip_key(step, true)).bind(reason);
        let row = skip.fetch_optional(&self.landlord).await?;
        row.as_ref().map(to_record).transpose()?.ok_or_else(|| StoreError::conflict("the operation has ended"))
    }

    async fn open(&self) -> Result<Rows<Record>, StoreError> {
        Ok(Rows::parse(&sqlx::query(sql::OPEN).fetch_all(&self.landlord).await?, to_record))
    }

    async fn due(&self, limit: u32) -> Result<Vec<OperationId>, StoreError> {
        let ids: Vec<uuid::Uuid> =
            sqlx::query_scalar(sql::DUE).bind(i64::from(limit)).fetch_all(&self.landlord).await?;
        Ok(ids.into_iter().map(OperationId::from_uuid).collect())
    }

    async fn events(&self, id: OperationId, after: i64, limit: u32) -> Result<Rows<OperationEvent>, StoreError> {
        let rows = sqlx::query(sql::EVENTS).bind(id.as_uuid()).bind(after).bind(i64::from(limit));
        Ok(Rows::parse(&rows.fetch_all(&self.landlord).await?, to_event))
    }

    async fn active_since(
        &self, subject: &Subject, since: OffsetDateTime, limit: u32,
    ) -> Result<Rows<Record>, StoreError> {
        let rows = sqlx::query(sql::ACTIVE_SINCE).bind(subject.to_string()).bind(since).bind(i64::from(limit));
        Ok(Rows::parse(&rows.fetch_all(&self.landlord).await?, to_record))
    }

    async fn annotate(&self, id: OperationId, reason: &str) -> Result<(), StoreError> {
        let noted = sqlx::query(sql::ANNOTATE).bind(id.as_uuid()).bind(reason).fetch_optional(&self.landlord).await?;
        noted.map(drop).ok_or_else(|| StoreError::conflict("the operation has ended"))
    }

    async fn history(&self, subject: &Subject) -> Result<Rows<Record>, StoreError> {
        let rows = sqlx::query(sql::HISTORY).bind(subject.to_string()).fetch_all(&self.landlord).await?;
        Ok(Rows::parse(&rows, to_record))
    }
}

fn fenced_unless(is_newest: bool) -> Result<(), StoreError> {
    if is_newest { Ok(()) } else { Err(StoreError::Fenced) }
}

fn missing(id: OperationId) -> StoreError {
    StoreError::conflict(format!("operation {id} is not in the journal"))
}

fn to_busy(row: &PgRow) -> Result<BeginError, StoreError> {
    let status: String = row.try_get("status")?;
    let operation = OperationId::from_uuid(row.try_get("id")?);
    Ok(BeginError::Busy { operation, status: status.parse().map_err(StoreError::corrupt)? })
}

/// The lane of a stored operation. See [`Lane::FollowUp`].
fn to_lane(row: &PgRow) -> Result<Lane, StoreError> {
    match row.try_get("occupies_lane")? {
        true => row.try_get::<String, _>("lane")?.parse().map_err(StoreError::corrupt),
        false => Ok(Lane::FollowUp),
    }
}

/// The status of a stored operation or event, which was abandoned if it has the mark. See
/// [`OperationStatus::Abandoned`].
fn to_status(row: &PgRow, is_abandoned: bool) -> Result<OperationStatus, StoreError> {
    let status = row.try_get::<String, _>("status")?.parse().map_err(StoreError::corrupt)?;
    Ok(if status == OperationStatus::Undone && is_abandoned { OperationStatus::Abandoned } else { status })
}

/// Converts a number of steps to PostgreSQL's `integer`. No saga has more than a few dozen steps.
fn to_integer(steps: u32) -> i32 {
    i32::try_from(steps).unwrap_or(i32::MAX)
}

fn stored_json(value: &Value) -> Result<Json<Box<RawValue>>, sqlx::Error> {
    json::to_stored(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn to_record(row: &PgRow) -> Result<Record, UnreadableRow> {
    let id = || row.try_get("id").map_or_else(|_| String::from("?"), |id: uuid::Uuid| id.to_string());
    read_record(row).map_err(|cause| UnreadableRow::new("operations", id(), cause))
}

fn to_event(row: &PgRow) -> Result<OperationEvent, UnreadableRow> {
    let operation = row.try_get("operation").map_or_else(|_| String::from("?"), |id: uuid::Uuid| id.to_string());
    let seq = row.try_get("seq").unwrap_or(0i64);
    read_event(row).map_err(|cause| UnreadableRow::new("operation_events", format!("{operation}/{seq}"), cause))
}

fn read_record(row: &PgRow) -> Result<Record, StoreError> {
    let text = |name: &str| row.try_get::<String, _>(name);
    let number = |name: &str| row.try_get::<i32, _>(name).map(|n| u32::try_from(n).unwrap_or(0));
    let outputs = row.try_get::<Json<Map<String, Value>>, _>("outputs")?.0;
    Ok(Record {
        id: OperationId::from_uuid(row.try_get("id")?),
        kind: text("kind")?,
        lane: to_lane(row)?,
        subject: text("subject")?.parse().map_err(StoreError::corrupt)?,
        reason: row.try_get("reason")?,
        request: row.try_get("request")?,
        status: to_status(row, outputs.contains_key(super::ABANDONED))?,
        step: text("step")?,
        intended: number("intended")?,
        done: number("done")?,
        total: number("total")?,
        outputs,
        error: row.try_get("error")?,
        attempts: number("attempts")?,
        epoch: row.try_get("epoch")?,
        worker: text("worker")?,
        begun_at: row.try_get("created_at")?,
        leased_until: row.try_get::<OffsetDateTime, _>("leased_until")?,
        retry_at: row.try_get("retry_at")?,
        recoverable: row.try_get("recoverable")?,
    })
}

fn read_event(row: &PgRow) -> Result<OperationEvent, StoreError> {
    let number = |name: &str| row.try_get::<i32, _>(name).map(|n| u32::try_from(n).unwrap_or(0));
    // Of the events with a reason, only that of an abandoned operation has a final status.
    let reason: Option<String> = row.try_get("reason")?;
    let status = to_status(row, reason.is_some())?;
    let operation = OperationId::from_uuid(row.try_get("operation")?);
    let (done, total) = (number("done")?, number("total")?);
    let (seq, at, step) = (row.try_get("seq")?, row.try_get("at")?, row.try_get("step")?);
    let error = row.try_get("error")?;
    Ok(OperationEvent { reason, ..OperationEvent::new(seq, operation, at, step, status, done, total, error) })
}
