//! The parts of a tenant that could not be read. They never count as healthy.
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, LoginView, TenantView};

pub(super) const CHECK: Check = Check { codes: &[Code::CannotSee], run: CheckFn::Tenant(run) };

/// What a part would have shown.
const OBJECTS: &[Code] = &[
    Code::AppCanCreate,
    Code::SchemaOwner,
    Code::SchemaPublic,
    Code::ObjectOwner,
    Code::ObjectPublic,
    Code::ObjectGranted,
    Code::LoginRights,
    Code::IndexInvalid,
    Code::EventTrigger,
];
const LOGIN: &[Code] = &[
    Code::LoginPassword,
    Code::LoginRejected,
    Code::LoginMembership,
    Code::MigrationsBehind,
    Code::MigrationsAhead,
    Code::MigrationsChanged,
    Code::MigrationsUnfinished,
    Code::SequenceExhausted,
];
const SEQUENCES: &[Code] = &[Code::SequenceExhausted];
const SECOND: &[Code] = &[Code::SourcesDisagree];
const SECRET: &[Code] = &[Code::SecretMissing, Code::SecretUnreadable, Code::LoginPassword];

fn run(view: &TenantView<'_>, _: &Expected, findings: &mut Findings) {
    let sequences = match view.login.read() {
        Some(LoginView::Entered { sequences, .. }) => sequences.hidden(),
        _ => None,
    };
    let parts = [
        ("objects", view.objects.hidden(), OBJECTS),
        ("login", view.login.hidden(), LOGIN),
        ("secret", view.secret.hidden(), SECRET),
        ("sequences", sequences, SEQUENCES),
        ("second_registry", view.second.hidden(), SECOND),
    ];
    for (part, reason, codes) in parts {
        if let Some(reason) = reason {
            let finding = view.draft(Code::CannotSee).object(part).noted("codes", codes);
            findings.push(finding.noted("reason", reason).no_repair(
                "the examination has not seen this part of the tenant; remove the cause, then examine the tenant again",
            ));
        }
    }
}
