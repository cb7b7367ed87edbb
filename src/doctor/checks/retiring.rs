//! Replaced logins that could not be dropped for a long time, or that are not in the queue to be dropped.
use super::{Check, CheckFn};
use crate::directory::UserStatus;
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Findings};
use crate::doctor::view::{Expected, LandlordView};
use crate::operation::Subject;
use crate::store::registry::Retirement;

pub(super) const CHECK: Check =
    Check { codes: &[Code::RetirementOverdue, Code::CannotSee], run: CheckFn::Landlord(run) };

/// Failed drops from which on a login is reported. The pauses between them double, so the first failure was more than
/// half an hour ago.
const OVERDUE: u32 = 10;

/// Whether the login can be a finding. The examination keeps only these: a fleet that rotates has thousands of logins
/// that wait for their time.
pub(in crate::doctor) fn may_be_overdue(retirement: &Retirement) -> bool {
    retirement.attempts >= OVERDUE || retirement.retry_at.is_none()
}

/// Whether the login has no time at which it is dropped, and no operation works on it: an entry was written by hand, or
/// a rotation was abandoned.
fn is_forgotten(view: &LandlordView, retirement: &Retirement) -> bool {
    let subject = Subject::Tenant(retirement.user.tenant);
    retirement.retry_at.is_none() && !view.operations.iter().any(|operation| operation.subject == subject)
}

fn run(view: &LandlordView, _: &Expected, findings: &mut Findings) {
    for retirement in view.retiring.iter().filter(|found| found.attempts >= OVERDUE || is_forgotten(view, found)) {
        let user = &retirement.user;
        let finding = Draft::new(Code::RetirementOverdue, Subject::Tenant(user.tenant)).object(user.role.as_str());
        let finding = finding.seen("server", &user.server).seen("recorded", user.status);
        let finding = finding.noted("reason", &user.reason).noted("attempts", retirement.attempts);
        let (login, before) = (user.role.clone(), Some(UserStatus::Retiring));
        findings.push(finding.repair(Repair::RetireLogin { login, before }));
    }
    if view.more_retiring > 0 {
        let finding = Draft::new(Code::CannotSee, Subject::Landlord).object("more retiring logins");
        let finding = finding.noted("more", view.more_retiring).noted("codes", [Code::RetirementOverdue]);
        findings.push(finding.no_repair(
            "more replaced logins could not be dropped than one examination reports; correct those that it names, then \
             examine again",
        ));
    }
}
