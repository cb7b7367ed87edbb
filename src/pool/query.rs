//! What the text of a caller's query decides. That is two things: whether the query may leave a transaction open,
//! and whether it may be repeated after its session proved to be older than the tenant's schema.
pub(super) use crate::query::Query;

/// The statements that may be repeated, by their first word. Each is one transaction outside a transaction block, so a
/// failed one has changed nothing. That is not so for `CALL` and `DO`, whose body may commit, nor for `COPY`, which has
/// consumed its input.
const REPEATABLE: [&str; 8] = ["select", "insert", "update", "delete", "merge", "values", "with", "table"];

impl Query {
    /// Whether the query cannot leave a transaction open or the session listening. sqlx does not expose the session's
    /// transaction status, but only a text that contains BEGIN or START can begin a transaction. A notification that
    /// reaches a session without a listener is a protocol error of its next statement. A text that contains one of the
    /// words for another reason only costs extra round trips: the clearing and a ping.
    pub(super) fn is_self_contained(&self) -> bool {
        let text = self.sql.as_str().as_bytes();
        // The first byte alone is compared first: this text is searched at each query.
        let is_word = |w: &[u8], word: &[u8]| w[0].eq_ignore_ascii_case(&word[0]) && w.eq_ignore_ascii_case(word);
        let has_word = |word: &[u8]| text.windows(word.len()).any(|w| is_word(w, word));
        !has_word(b"begin") && !has_word(b"start") && !self.may_listen(has_word)
    }

    /// Only a text of several statements is searched for LISTEN; a single one begins with it.
    fn may_listen(&self, has_word: impl Fn(&[u8]) -> bool) -> bool {
        self.first_word().eq_ignore_ascii_case("listen") || self.arguments.is_none() && has_word(b"listen")
    }

    /// The first word after white space and parentheses; empty if the text begins with anything else.
    fn first_word(&self) -> &str {
        let text = self.sql.as_str().trim_start_matches(|c: char| c.is_whitespace() || c == '(');
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
    }

    /// A copy to run in another session; `None` if the query must not run twice. The query must be prepared by this call
    /// and begin with one of the [`REPEATABLE`] words: a comment or anything else before it rules the copy out. A
    /// statement that the caller has prepared brings column types of its session, so it is not repeated either.
    pub(super) fn repeatable(&self) -> Option<Self> {
        let word = self.first_word();
        let is_repeatable = REPEATABLE.iter().any(|verb| word.eq_ignore_ascii_case(verb));
        (is_repeatable && self.arguments.is_some() && self.statement.is_none()).then(|| self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_that_may_begin_a_transaction_or_listen_is_not_self_contained() {
        let is_self_contained = |sql: &'static str| Query::from(sqlx::raw_sql(sql)).unwrap().is_self_contained();
        assert!(is_self_contained("SELECT 1") && is_self_contained("INSERT INTO notes VALUES ($1)"));
        for open in ["BEGIN", "select 1; begin", "START TRANSACTION", "/* x */ Start transaction read only", "Listen x"]
        {
            assert!(
                !is_self_contained(open),
                "this query may leave a transaction open, or the session listening: {open}"
            );
        }
    }

    #[test]
    fn only_a_prepared_statement_of_one_transaction_is_repeatable() {
        let is_repeatable = |sql: &'static str| Query::from(sqlx::query(sql)).unwrap().repeatable().is_some();
        for sql in
            ["SELECT 1", " (select 1) UNION (SELECT 2)", "insert into t values ($1)", "With x AS (SELECT 1) TABLE x"]
        {
            assert!(is_repeatable(sql), "this statement may be repeated: {sql}");
        }
        for sql in ["COPY t FROM STDIN", "CALL p()", "DO $$ $$", "/* x */ SELECT 1", "selective", "VACUUM", ""] {
            assert!(!is_repeatable(sql), "this statement must not be repeated: {sql}");
        }
        assert!(Query::from(sqlx::raw_sql("SELECT 1; SELECT 2")).unwrap().repeatable().is_none());
    }
}
