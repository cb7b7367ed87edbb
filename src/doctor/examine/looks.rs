//! The looks at one subject: a finding is reported only if two of them have made it.
//!
//! A check compares rows of the landlord with catalogs of a server, which are read at different moments. An operation, the
//! queue of replaced logins or a person may change both in between, so one look can find what was never true.
//! [`Pass`](super::pass::Pass) looks again at each subject with findings, with fresh rows and fresh catalogs.
//!
//! Invariants: what the last look did not find is not reported. What only the last look has found, or what it has found
//! with other evidence, is not reported either: the subject then counts as changed.
use crate::doctor::finding::{Finding, Findings};

/// Looks at one subject at most.
const LOOKS: usize = 3;

/// What one look at a tenant or a server has found.
pub(super) enum Examined {
    Found(Findings),
    /// An operation changes it now, or has changed it during the look. Each intermediate state of an operation looks
    /// like a deviation.
    Busy,
}

impl Examined {
    /// Adds a finding that says what was not seen.
    pub(super) fn with(mut self, unseen: Option<Finding>) -> Self {
        if let Self::Found(findings) = &mut self {
            unseen.into_iter().for_each(|finding| findings.push(finding));
        }
        self
    }
}

/// The looks at one subject so far.
pub(super) struct Looks {
    /// What the looks before the last one have found.
    earlier: Vec<Finding>,
    /// `None` if an operation has changed the subject.
    last: Option<Findings>,
    count: usize,
}

/// What is known after the last look.
pub(super) struct Confirmed {
    /// What two looks have found.
    pub(super) findings: Findings,
    /// Whether the subject has changed while it was examined, so that more may be found.
    pub(super) has_changed: bool,
}

impl Looks {
    pub(super) fn begin(first: Examined) -> Self {
        let mut looks = Self { earlier: vec![], last: None, count: 0 };
        looks.add(first);
        looks
    }
    pub(super) fn add(&mut self, examined: Examined) {
        let last = match examined {
            Examined::Found(findings) => Some(findings),
            Examined::Busy => None,
        };
        if let Some(before) = std::mem::replace(&mut self.last, last) {
            self.earlier.extend(before.list);
        }
        self.count += 1;
    }
    /// Whether another look can still tell whether something is wrong.
    pub(super) fn needs_another(&self) -> bool {
        self.count < LOOKS && !self.is_settled()
    }
    /// Whether the last look has found nothing, or only what an earlier one has found too.
    fn is_settled(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.list.iter().all(|finding| self.was_found(finding)))
    }
    fn was_found(&self, finding: &Finding) -> bool {
        self.earlier.iter().any(|other| other.is_unchanged(finding))
    }
    pub(super) fn into_confirmed(self) -> Confirmed {
        let has_changed = !self.is_settled();
        let Findings { list, omitted } = self.last.unwrap_or_default();
        let is_confirmed = |finding: &Finding| self.earlier.iter().any(|other| other.is_unchanged(finding));
        Confirmed { findings: Findings { list: list.into_iter().filter(is_confirmed).collect(), omitted }, has_changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::code::Code;
    use crate::doctor::finding::Draft;
    use crate::operation::Subject;

    fn found(limits: &[i32]) -> Examined {
        let finding = |limit| Draft::new(Code::LoginLimit, Subject::Vault).seen("limit", limit).no_repair("none");
        Examined::Found(Findings { list: limits.iter().map(finding).collect(), omitted: 0 })
    }
    /// Whether the looks end before the last one is used, the number of findings, and whether the subject has changed.
    fn after(looks: Vec<Examined>) -> (bool, usize, bool) {
        let mut looks = looks.into_iter();
        let mut all = Looks::begin(looks.next().unwrap());
        let needs_all = looks.all(|look| {
            let needs_another = all.needs_another();
            all.add(look);
            needs_another
        });
        let Confirmed { findings, has_changed } = all.into_confirmed();
        (needs_all, findings.list.len(), has_changed)
    }

    #[test]
    fn finding_is_confirmed_only_by_two_looks_that_see_the_same() {
        assert_eq!(after(vec![found(&[])]), (true, 0, false), "nothing was found");
        assert_eq!(after(vec![found(&[7]), found(&[7])]), (true, 1, false), "the same was found twice");
        assert_eq!(after(vec![found(&[7]), found(&[])]), (true, 0, false), "it is gone");
        assert_eq!(after(vec![found(&[7]), found(&[8]), found(&[8])]), (true, 1, false), "it has changed once");
        assert_eq!(after(vec![found(&[7]), found(&[8]), found(&[9])]), (true, 0, true), "it changes all the time");
        assert_eq!(after(vec![found(&[7]), found(&[7, 8]), found(&[7, 9])]), (true, 1, true), "a part changes");
        assert_eq!(after(vec![Examined::Busy, found(&[7]), found(&[7])]), (true, 1, false));
        assert_eq!(after(vec![found(&[7]), Examined::Busy, Examined::Busy]), (true, 0, true));
        assert_eq!(after(vec![found(&[7]), Examined::Busy, found(&[])]), (true, 0, false));
    }

    #[test]
    fn looks_end_as_soon_as_nothing_is_open() {
        for settled in [vec![found(&[])], vec![found(&[7]), found(&[7])], vec![Examined::Busy, found(&[])]] {
            let mut settled = settled.into_iter();
            let mut looks = Looks::begin(settled.next().unwrap());
            settled.for_each(|look| looks.add(look));
            assert!(!looks.needs_another());
        }
        let mut looks = Looks::begin(Examined::Busy);
        looks.add(Examined::Busy);
        assert!(looks.needs_another());
        looks.add(Examined::Busy);
        assert!(!looks.needs_another(), "the number of looks must be limited");
    }
}
