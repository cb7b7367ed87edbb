//! Times in UTC, as one word, so that the columns of a table stay columns: `2026-12-04T00:31:35Z`.
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// The time for people, without fractions of a second.
pub(in crate::cli) fn show_time(at: OffsetDateTime) -> String {
    to_text(at.replace_nanosecond(0).unwrap_or(at))
}

/// The time for JSON.
pub(in crate::cli) fn to_text(at: OffsetDateTime) -> String {
    let utc = at.to_offset(UtcOffset::UTC);
    utc.format(&Rfc3339).unwrap_or_else(|_| utc.to_string())
}
