//! Whether the key provider has the keys of the stored secrets, and whether secrets are sealed with a retired one.
use super::{Check, CheckFn};
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Finding, Findings};
use crate::doctor::view::{Expected, KeyView, LandlordView};
use crate::operation::Subject;
use crate::secret::KeyId;

pub(super) const CHECK: Check = Check {
    codes: &[Code::KeyMissing, Code::KeyWrong, Code::SecretsOnOldKey, Code::CannotSee],
    run: CheckFn::Landlord(run),
};

fn run(view: &LandlordView, _: &Expected, findings: &mut Findings) {
    match &view.keys {
        KeyView::Missing(key) => findings.push(of_key(Code::KeyMissing, key)),
        KeyView::Wrong(key) => findings.push(of_key(Code::KeyWrong, key)),
        KeyView::Hidden(reason) => {
            let finding = Draft::new(Code::CannotSee, Subject::Vault).object("keys").noted("reason", reason);
            let finding = finding.noted("codes", [Code::KeyMissing, Code::KeyWrong, Code::SecretsOnOldKey]);
            findings.push(finding.no_repair("the vault or the key provider did not show its keys; examine again"));
        }
        KeyView::Usable { in_use, primary } => {
            let is_old = |key: &&KeyId| primary.as_ref().is_none_or(|primary| *key != primary);
            let old: Vec<_> = in_use.iter().filter(is_old).collect();
            // Without knowing the primary key, one key in use may be it.
            if !old.is_empty() && (primary.is_some() || in_use.len() > 1) {
                let finding = Draft::new(Code::SecretsOnOldKey, Subject::Vault).seen("in_use", in_use);
                findings.push(finding.seen("primary", primary).repair(Repair::Rekey));
            }
        }
    }
}

/// The finding for a key that the key provider lacks, or has with other bytes.
pub(in crate::doctor) fn of_key(code: Code, key: &KeyId) -> Finding {
    let finding = Draft::new(code, Subject::Vault).object(key.as_str()).seen("key", key);
    finding.no_repair(match code {
        Code::KeyWrong => "the key provider has another key of this name; give it the one that sealed the secrets",
        _ => "the key provider lacks it; add it, at least for decryption",
    })
}
