//! A finding: what a check has seen, and the repair for it or the reason why there is none.
//!
//! Invariants: the fingerprint covers only facts that a check compares and that stay equal while nothing changes. Ages,
//! counts and times are evidence without being part of it. A finding has a repair or a reason, never both.
use super::action::Repair;
use super::code::{Code, Severity};
use crate::names::Slug;
use crate::operation::Subject;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// One deviation that the doctor has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about.
    pub code: Code,
    /// How urgent it is.
    pub severity: Severity,
    /// The tenant, the server, the vault or the landlord.
    pub subject: Subject,
    /// Slug of the tenant, if the subject is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Slug>,
    /// Name of the role, database, row or object within the subject; `None` if it is the subject itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What was seen and what was expected. It contains no secret. The error of a failed operation is included as the
    /// journal has it, and may quote values of a row.
    pub evidence: Map<String, Value>,
    /// The repair that is offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
    /// Why no repair is offered, and what a person can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_repair: Option<String>,
    /// Digest of what was seen. A repair is refused if it has changed.
    pub fingerprint: String,
}

impl Finding {
    /// Whether this is the same finding, whatever was seen.
    pub(crate) fn is_about(&self, other: &Self) -> bool {
        (self.code, &self.subject, &self.object) == (other.code, &other.subject, &other.object)
    }
    /// Whether this finding says that the part was not seen in which a finding of this code would be.
    pub(crate) fn may_hide(&self, code: Code) -> bool {
        use Code::{CannotSee, ProvisionerRefused, ServerNotReady, ServerReplaced, ServerUnreachable, ServerUntrusted};
        let codes = self.evidence.get("codes").and_then(Value::as_array);
        match self.code {
            CannotSee => codes.is_none_or(|codes| codes.iter().any(|hidden| hidden == code.as_str())),
            // Nothing was read from such a server.
            ServerUnreachable | ServerUntrusted | ServerNotReady | ServerReplaced | ProvisionerRefused => {
                self.code != code
            }
            _ => false,
        }
    }
    /// Whether the same was seen and the same repair is offered.
    pub(crate) fn is_unchanged(&self, other: &Self) -> bool {
        self.is_about(other) && self.fingerprint == other.fingerprint && self.repair == other.repair
    }
}

/// A finding that a check is writing.
pub(crate) struct Draft {
    code: Code,
    severity: Severity,
    subject: Subject,
    tenant: Option<Slug>,
    object: Option<String>,
    seen: BTreeMap<&'static str, Value>,
    evidence: Map<String, Value>,
}

impl Draft {
    pub(crate) fn new(code: Code, subject: Subject) -> Self {
        let (seen, evidence) = (BTreeMap::new(), Map::new());
        Self { severity: code.severity(), code, subject, tenant: None, object: None, seen, evidence }
    }
    pub(crate) fn of_tenant(self, slug: &Slug) -> Self {
        Self { tenant: Some(slug.clone()), ..self }
    }
    pub(crate) fn object(self, name: impl Into<String>) -> Self {
        Self { object: Some(name.into()), ..self }
    }
    pub(crate) fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
    /// A fact that is part of the fingerprint.
    pub(crate) fn seen(mut self, key: &'static str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.evidence.insert(key.into(), shorten(value.clone()));
        self.seen.insert(key, value);
        self
    }
    /// A fact that is shown and changes by itself, such as an age.
    pub(crate) fn noted(mut self, key: &'static str, value: impl Serialize) -> Self {
        self.evidence.insert(key.into(), shorten(serde_json::to_value(value).unwrap_or_default()));
        self
    }
    pub(crate) fn repair(self, repair: Repair) -> Finding {
        self.build(Some(repair), None)
    }
    pub(crate) fn no_repair(self, reason: impl Into<String>) -> Finding {
        self.build(None, Some(reason.into()))
    }
    fn build(self, repair: Option<Repair>, no_repair: Option<String>) -> Finding {
        let Self { code, severity, subject, tenant, object, seen, evidence } = self;
        let fingerprint = fingerprint(code, &subject, object.as_deref(), &seen);
        Finding { code, severity, subject, tenant, object, evidence, repair, no_repair, fingerprint }
    }
}

/// Characters of a text that evidence shows at most.
const LONGEST_TEXT: usize = 1000;
/// Elements of a list that evidence shows at most.
const LONGEST_LIST: usize = 50;

/// The part of a value that is shown. A tenant chooses names and numbers of its objects, and the error of an operation may
/// be long. The fingerprint covers the whole value.
fn shorten(value: Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > LONGEST_TEXT => {
            Value::from(text.chars().take(LONGEST_TEXT).chain("…".chars()).collect::<String>())
        }
        Value::Array(items) => {
            let more = items.len().saturating_sub(LONGEST_LIST);
            let shown = items.into_iter().take(LONGEST_LIST).map(shorten);
            let rest = (more > 0).then(|| Value::from(format!("… and {more} more")));
            Value::Array(shown.chain(rest).collect())
        }
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(key, value)| (key, shorten(value))).collect()),
        short => short,
    }
}

/// SHA-256 over length-prefixed texts, the first 16 bytes in hexadecimal. A plan file has such values, so the
/// computation must not change.
fn fingerprint(code: Code, subject: &Subject, object: Option<&str>, seen: &BTreeMap<&'static str, Value>) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    for text in ["tenantry finding v1", code.as_str(), &subject.to_string(), object.unwrap_or_default()] {
        add(text);
    }
    for (key, value) in seen {
        add(key);
        add(&canonical(value));
    }
    HEXLOWER.encode(&hash.finalize()[..16])
}

/// JSON text with sorted keys, whatever the features of serde_json are.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let field = |(key, value): (&String, &Value)| format!("{}:{}", Value::from(key.as_str()), canonical(value));
            let fields: Vec<_> = sorted.into_iter().map(field).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

/// The findings of one pass. It keeps at most [`MAX_FINDINGS`], so that its memory does not grow with the registry.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) list: Vec<Finding>,
    /// Findings beyond the limit.
    pub(crate) omitted: u64,
}

/// Findings that a plan holds at most.
pub(crate) const MAX_FINDINGS: usize = 10_000;

impl From<Finding> for Findings {
    fn from(finding: Finding) -> Self {
        Self { list: vec![finding], omitted: 0 }
    }
}

impl Findings {
    /// Adds a finding. If the list is full, the least severe one is left out.
    pub(crate) fn push(&mut self, finding: Finding) {
        if self.list.len() < MAX_FINDINGS {
            return self.list.push(finding);
        }
        self.omitted += 1;
        // Severities are in order, the most severe first.
        let least = self.list.iter_mut().max_by_key(|other| other.severity as u8);
        if let Some(least) = least.filter(|least| least.severity as u8 > finding.severity as u8) {
            *least = finding;
        }
    }
    /// Keeps this many findings, the most severe ones.
    pub(crate) fn keep(&mut self, limit: usize) {
        self.list.sort_by_key(|finding| finding.severity as u8);
        self.omitted += self.list.len().saturating_sub(limit) as u64;
        self.list.truncate(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn draft() -> Draft {
        Draft::new(Code::LoginLimit, Subject::Vault).object("t_1_v1").seen("status", "active").seen("limit", 7)
    }

    /// Plan files hold fingerprints, so a plan of an earlier version must stay applicable.
    #[test]
    fn fingerprint_is_a_known_value_and_covers_only_what_a_check_compares() {
        let finding = draft().no_repair("none");
        assert_eq!(finding.fingerprint, "12e9aa53955c8705926dbcebde233f72");
        let noted = draft().noted("age_seconds", 17).no_repair("another reason");
        assert_eq!(noted.fingerprint, finding.fingerprint, "an age is not part of the fingerprint");
        let other = draft().seen("limit", 8).no_repair("none");
        assert_ne!(other.fingerprint, finding.fingerprint);
        assert!(finding.is_about(&other) && !finding.is_unchanged(&other));
        let parts =
            [("a", "bc"), ("ab", "c")].map(|(key, value)| draft().seen(key, value).no_repair("none").fingerprint);
        assert_ne!(parts[0], parts[1], "the texts must be separated");
    }

    #[test]
    fn evidence_is_shortened_and_the_fingerprint_covers_all_of_it() {
        let with = |last: usize| {
            let objects: Vec<_> = (0..200).chain([last]).map(|n| format!("table {n}")).collect();
            draft().seen("objects", objects).noted("error", "x".repeat(100_000)).no_repair("none")
        };
        let finding = with(7);
        assert_eq!(finding.evidence["objects"].as_array().map(Vec::len), Some(51));
        assert_eq!(finding.evidence["objects"][50], "… and 151 more");
        assert_eq!(finding.evidence["error"].as_str().map(|text| text.chars().count()), Some(1001));
        assert_ne!(finding.fingerprint, with(8).fingerprint, "what is not shown must still count");
    }

    #[test]
    fn canonical_json_does_not_depend_on_the_order_of_fields() {
        assert_eq!(canonical(&json!({ "b": [1, null], "a": "\"" })), r#"{"a":"\"","b":[1,null]}"#);
    }

    #[test]
    fn findings_beyond_the_limit_are_counted() {
        let mut findings = Findings::default();
        for _ in 0..MAX_FINDINGS + 2 {
            findings.push(draft().no_repair("none"));
        }
        assert_eq!((findings.list.len(), findings.omitted), (MAX_FINDINGS, 2));
    }
}
