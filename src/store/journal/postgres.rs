use super::{Begun, Claim, Intent, Journal, Progress, Record};
use crate::error::StoreError;
use crate::operation::{FencingToken, Lane, OperationEvent, OperationId, OperationStatus, Subject};
use crate::sqlstate;
use async_trait::async_trait;
use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{PgPool, Row, postgres::PgRow};
use std::time::Duration;
use time::OffsetDateTime;

mod sql;

/// The journal in the landlord's own tables. Each call is one autocommitted statement (`begin` with a key: two).
///
/// Lock order everywhere: the operation's epoch, then the operation, then its lane.
#[derive(Clone, Debug)]
pub struct PgJournal {
    landlord: PgPool,
    renewals: PgPool,
}

/// Who has the lane may leave it between our try and our look at who it is: then there is another try.
const TRIES: u32 = 10;

impl PgJournal {
    /// Over the host's own pool.
    pub fn new(landlord: PgPool) -> Self {
        Self { renewals: landlord.clone(), landlord }
    }
    /// The same, renewing leases over another pool to the same database: one that nothing else can use up.
    pub fn renewing_on(self, renewals: PgPool) -> Self {
        Self { renewals, ..self }
    }

    async fn by_key(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let row = sqlx::query(sql::BY_KEY).bind(key).fetch_optional(&self.landlord).await?;
        row.as_ref().map(record).transpose()
    }

    async fn refusal(&self, token: FencingToken) -> Result<StoreError, StoreError> {
        let asked = sqlx::query_scalar(sql::FORGOTTEN).bind(token.operation.as_uuid()).bind(token.epoch);
        Ok(if asked.fetch_one(&self.landlord).await? { StoreError::LostWrites } else { StoreError::Fenced })
    }

    async fn insert(&self, intent: &Intent) -> Result<Option<Record>, sqlx::Error> {
        let statement = match intent.lane {
            Lane::Change => sql::BEGIN_CHANGE,
            Lane::Preempt => sql::BEGIN_FENCE,
        };
        let row = sqlx::query(statement)
            .bind(intent.id.as_uuid())
            .bind(&*intent.kind)
            .bind(intent.subject.to_string())
            .bind(&intent.key)
            .bind(&intent.reason)
            .bind(&intent.request)
            .bind(count(intent.intended))
            .bind(count(intent.total))
            .bind(&intent.worker)
            .bind(intent.lease.as_secs_f64())
            .bind(intent.recoverable)
            .fetch_optional(&self.landlord)
            .await?;
        row.as_ref().map(record).transpose().map_err(|e| sqlx::Error::Decode(e.into()))
    }
}

#[async_trait]
impl Journal for PgJournal {
    async fn begin(&self, intent: &Intent) -> Result<Begun, StoreError> {
        if let Some(begun) = self.joined(intent).await? {
            return Ok(begun);
        }
        for _ in 0..TRIES {
            match self.insert(intent).await {
                Ok(Some(record)) => return Ok(Begun::New(Box::new(record))),
                Ok(None) => {}
                // Somebody with the same key was faster.
                Err(e) if sqlstate::unique_violation(&e) == Some("operations_key") => {}
                Err(e) => return Err(e.into()),
            }
            if let Some(begun) = self.joined(intent).await? {
                return Ok(begun);
            }
            let busy = sqlx::query_scalar(sql::BUSY).bind(intent.subject.to_string());
            if let Some(id) = busy.fetch_optional(&self.landlord).await? {
                return Ok(Begun::Busy(OperationId::from_uuid(id)));
            }
        }
        Err(StoreError::unavailable("the lane is taken and freed again and again"))
    }

    async fn joined(&self, intent: &Intent) -> Result<Option<Begun>, StoreError> {
        let Some(key) = &intent.key else { return Ok(None) };
        let Some(found) = self.by_key(key).await? else { return Ok(None) };
        let same = found.kind == intent.kind && found.request == intent.request;
        Ok(Some(if same { Begun::Joined(Box::new(found)) } else { Begun::KeyReused(found.id) }))
    }

    async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        Ok(sqlx::query_scalar(sql::NOW).fetch_one(&self.landlord).await?)
    }

    async fn read(&self, id: OperationId) -> Result<Option<Record>, StoreError> {
        let row = sqlx::query(sql::READ).bind(id.as_uuid()).fetch_optional(&self.landlord).await?;
        row.as_ref().map(record).transpose()
    }

    async fn claim(&self, id: OperationId, worker: &str, lease: Duration) -> Result<Claim, StoreError> {
        let claim = sqlx::query(sql::CLAIM).bind(id.as_uuid()).bind(worker).bind(lease.as_secs_f64());
        if let Some(row) = claim.fetch_optional(&self.landlord).await? {
            return Ok(Claim::Taken(Box::new(record(&row)?)));
        }
        let found = self.read(id).await?.ok_or_else(|| StoreError::conflict("no such operation"))?;
        Ok(if found.status.is_over() { Claim::Over(Box::new(found)) } else { Claim::Held(Box::new(found)) })
    }

    async fn renew(&self, token: FencingToken, lease: Duration) -> Result<(), StoreError> {
        let renew = sqlx::query(sql::RENEW).bind(token.operation.as_uuid()).bind(token.epoch);
        held(renew.bind(lease.as_secs_f64()).execute(&self.renewals).await?.rows_affected() == 1)
    }

    async fn check(&self, token: FencingToken) -> Result<(), StoreError> {
        let newest: Option<i64> =
            sqlx::query_scalar(sql::EPOCH).bind(token.operation.as_uuid()).fetch_optional(&self.landlord).await?;
        held(newest == Some(token.epoch))
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
            .bind(count(progress.intended))
            .bind(count(progress.done))
            .bind(output)
            .bind(&progress.error)
            .bind(progress.retry_after.map(|d| d.as_secs_f64()))
            .bind(progress.lease.map(|d| d.as_secs_f64()))
            .bind(progress.durable)
            .bind(progress.status.is_over())
            .fetch_optional(&self.landlord)
            .await?;
        match row {
            Some(row) => event(&row),
            None => Err(self.refusal(token).await?),
        }
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
        let end = sqlx::query(sql::ABANDON).bind(subject.to_string()).bind(by.operation.as_uuid()).bind(by.epoch);
        held(end.fetch_optional(&self.landlord).await?.is_some())
    }

    async fn unpark(&self, id: OperationId, undo: bool) -> Result<Record, StoreError> {
        let status = if undo { OperationStatus::Undoing } else { OperationStatus::Running };
        let row =
            sqlx::query(sql::UNPARK).bind(id.as_uuid()).bind(status.as_str()).fetch_optional(&self.landlord).await?;
        row.as_ref().map(record).transpose()?.ok_or_else(|| StoreError::conflict("the operation is not parked"))
    }

    async fn open(&self) -> Result<Vec<Record>, StoreError> {
        sqlx::query(sql::OPEN).fetch_all(&self.landlord).await?.iter().map(record).collect()
    }

    async fn due(&self, limit: u32) -> Result<Vec<OperationId>, StoreError> {
        let ids: Vec<uuid::Uuid> =
            sqlx::query_scalar(sql::DUE).bind(i64::from(limit)).fetch_all(&self.landlord).await?;
        Ok(ids.into_iter().map(OperationId::from_uuid).collect())
    }

    async fn events(&self, id: OperationId, after: i64, limit: u32) -> Result<Vec<OperationEvent>, StoreError> {
        let rows = sqlx::query(sql::EVENTS).bind(id.as_uuid()).bind(after).bind(i64::from(limit));
        rows.fetch_all(&self.landlord).await?.iter().map(event).collect()
    }

    async fn history(&self, subject: &Subject) -> Result<Vec<Record>, StoreError> {
        sqlx::query(sql::HISTORY)
            .bind(subject.to_string())
            .fetch_all(&self.landlord)
            .await?
            .iter()
            .map(record)
            .collect()
    }
}

fn held(yes: bool) -> Result<(), StoreError> {
    if yes { Ok(()) } else { Err(StoreError::Fenced) }
}

/// Steps are counted in `integer`; there are never more than a few dozen.
fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn record(row: &PgRow) -> Result<Record, StoreError> {
    let word = |name: &str| row.try_get::<String, _>(name);
    let number = |name: &str| row.try_get::<i32, _>(name).map(|n| u32::try_from(n).unwrap_or(0));
    Ok(Record {
        id: OperationId::from_uuid(row.try_get("id")?),
        kind: word("kind")?,
        lane: word("lane")?.parse().map_err(StoreError::corrupt)?,
        subject: word("subject")?.parse().map_err(StoreError::corrupt)?,
        reason: row.try_get("reason")?,
        request: row.try_get("request")?,
        status: word("status")?.parse().map_err(StoreError::corrupt)?,
        step: word("step")?,
        intended: number("intended")?,
        done: number("done")?,
        total: number("total")?,
        outputs: row.try_get::<Json<Map<String, Value>>, _>("outputs")?.0,
        error: row.try_get("error")?,
        attempts: number("attempts")?,
        epoch: row.try_get("epoch")?,
        worker: word("worker")?,
        begun_at: row.try_get("created_at")?,
        leased_until: row.try_get::<OffsetDateTime, _>("leased_until")?,
        retry_at: row.try_get("retry_at")?,
        recoverable: row.try_get("recoverable")?,
    })
}

fn event(row: &PgRow) -> Result<OperationEvent, StoreError> {
    let number = |name: &str| row.try_get::<i32, _>(name).map(|n| u32::try_from(n).unwrap_or(0));
    let status = row.try_get::<String, _>("status")?.parse().map_err(StoreError::corrupt)?;
    let operation = OperationId::from_uuid(row.try_get("operation")?);
    let (done, total) = (number("done")?, number("total")?);
    let (seq, at, step) = (row.try_get("seq")?, row.try_get("at")?, row.try_get("step")?);
    Ok(OperationEvent::new(seq, operation, at, step, status, done, total, row.try_get("error")?))
}
