//! Whether the vault has the password of an active tenant's login.
use super::login::can_rotate;
use super::{Check, CheckFn};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, SecretView, TenantView};

pub(super) const CHECK: Check =
    Check { codes: &[Code::SecretMissing, Code::SecretUnreadable], run: CheckFn::Tenant(run) };

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let (Some(secret), Some(entry)) = (view.secret.read(), view.managed_entry()) else { return };
    let (code, seen) = match secret {
        SecretView::Opens => return,
        SecretView::Missing => (Code::SecretMissing, "missing"),
        SecretView::DoesNotOpen => (Code::SecretUnreadable, "does not open"),
        SecretView::NeedsKey(_) => (Code::SecretUnreadable, "needs another key"),
    };
    let finding = view.draft(code).object(entry.login.as_str()).seen("secret", seen);
    findings.push(match secret {
        // A new login would be possible, but the secret is not lost: the key is.
        SecretView::NeedsKey(key) => {
            finding.no_repair(format!("the key provider lacks the key {key}; add it, at least for decryption"))
        }
        _ if can_rotate(view) => finding.repair(Repair::Rotate),
        _ => finding.no_repair("a new login needs the tenant's server and group roles, and one of them is missing"),
    });
}
