//! The result of reading many rows, of which some cannot be parsed.
//!
//! Every list of the stores returns [`Rows`], so that one damaged row never hides the others. A read of a single row
//! returns the [`UnreadableRow`] as the source of [`StoreError::Corrupt`].
use super::{SharedError, StoreError};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use std::{error::Error as StdError, fmt, ops::Deref};

/// A row of the landlord that this version of the crate cannot parse: a newer version wrote it, a person changed it, or
/// it is damaged. Correct the row by SQL, or use the version that wrote it.
#[derive(Clone, Debug)]
pub struct UnreadableRow {
    table: &'static str,
    id: String,
    cause: SharedError,
}
impl UnreadableRow {
    pub(crate) fn new(table: &'static str, id: impl Into<String>, cause: StoreError) -> Self {
        let cause = match cause {
            StoreError::Corrupt(cause) => cause,
            other => SharedError::new(other),
        };
        Self { table, id: id.into(), cause }
    }
    /// Name of the table in the schema `tenantry`, for example `operations`.
    pub fn table(&self) -> &'static str {
        self.table
    }
    /// Id of the row: the columns of its primary key, separated by `/`. For an operation it is the operation's id.
    pub fn id(&self) -> &str {
        &self.id
    }
}
impl fmt::Display for UnreadableRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the row {} of tenantry.{} cannot be parsed; correct it by SQL, or use the version that wrote it",
            self.id, self.table
        )
    }
}
impl StdError for UnreadableRow {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.cause.as_dyn())
    }
}
impl From<UnreadableRow> for StoreError {
    fn from(row: UnreadableRow) -> Self {
        Self::corrupt(row)
    }
}
impl Serialize for UnreadableRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("UnreadableRow", 3)?;
        fields.serialize_field("table", self.table)?;
        fields.serialize_field("id", &self.id)?;
        fields.serialize_field("error", &super::chain(self.cause.as_dyn()))?;
        fields.end()
    }
}

/// The rows that a list has read. It dereferences to the readable ones, in the order of the list.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Rows<T> {
    /// The rows that could be parsed.
    pub readable: Vec<T>,
    /// The rows that could not be parsed, each as an error that names it.
    pub unreadable: Vec<UnreadableRow>,
}
impl<T> Rows<T> {
    /// Parses each row of a result.
    pub(crate) fn parse<R>(rows: &[R], parse: impl Fn(&R) -> Result<T, UnreadableRow>) -> Self {
        let mut parsed = Self::from(Vec::with_capacity(rows.len()));
        for row in rows {
            match parse(row) {
                Ok(row) => parsed.readable.push(row),
                Err(row) => parsed.unreadable.push(row),
            }
        }
        parsed
    }
    /// Converts each readable row.
    pub(crate) fn map<U>(self, convert: impl FnMut(T) -> U) -> Rows<U> {
        Rows { readable: self.readable.into_iter().map(convert).collect(), unreadable: self.unreadable }
    }
    /// The readable rows, after each unreadable one was logged. For work that continues with them.
    pub(crate) fn log_unreadable(self) -> Vec<T> {
        for row in &self.unreadable {
            tracing::warn!(error = %super::chain(row), "a row of the landlord is left out");
        }
        self.readable
    }
}
impl<T> From<Vec<T>> for Rows<T> {
    fn from(readable: Vec<T>) -> Self {
        Self { readable, unreadable: vec![] }
    }
}
impl<T> FromIterator<T> for Rows<T> {
    fn from_iter<I: IntoIterator<Item = T>>(rows: I) -> Self {
        Self::from(Vec::from_iter(rows))
    }
}
impl<T> Deref for Rows<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.readable
    }
}
/// Iterates over the readable rows.
impl<T> IntoIterator for Rows<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.readable.into_iter()
    }
}
