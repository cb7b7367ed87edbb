//! Prepared transactions and replication slots that keep WAL, or keep a tenant's database from being dropped.
use super::{Check, CheckFn};
use crate::cluster::pg::observe::Holder;
use crate::doctor::code::Code;
use crate::doctor::finding::Findings;
use crate::doctor::view::{Expected, ServerView};
use crate::sql::quote_literal;

pub(super) const CHECK: Check =
    Check { codes: &[Code::TransactionPrepared, Code::SlotHolds], run: CheckFn::Server(run) };

/// Age of a prepared transaction that a transaction manager would have ended.
const OLD_SECONDS: f64 = 600.0;
/// WAL that a slot may hold while its reader is only slow.
const MUCH_WAL: i64 = 1 << 30;

fn run(view: &ServerView, _: &Expected, findings: &mut Findings) {
    for holder in &view.holders {
        match holder.kind.as_str() {
            "prepared" => check_transaction(view, holder, findings),
            _ => check_slot(view, holder, findings),
        }
    }
}

fn check_transaction(view: &ServerView, holder: &Holder, findings: &mut Findings) {
    if holder.age_seconds.is_none_or(|age| age < OLD_SECONDS) {
        return;
    }
    let gid = &holder.name;
    let finding = view.draft(Code::TransactionPrepared).object(gid.as_str()).seen("owner", &holder.owner);
    let finding = finding.seen("database", &holder.database).noted("age_seconds", holder.age_seconds);
    findings.push(finding.no_repair(format!(
        "only its transaction manager knows whether it must be committed; run in its database, as its owner: COMMIT \
         PREPARED {0} or ROLLBACK PREPARED {0}",
        quote_literal(gid)
    )));
}

fn check_slot(view: &ServerView, holder: &Holder, findings: &mut Findings) {
    let database = holder.database.as_ref().and_then(|name| view.databases.get(name));
    let blocks_drop = database.is_some_and(|database| view.owns(database));
    let holds_much = holder.held_bytes.is_some_and(|bytes| bytes > MUCH_WAL);
    let is_losing = matches!(holder.wal_status.as_deref(), Some("unreserved" | "lost"));
    if !blocks_drop && !holds_much && !is_losing {
        return;
    }
    let slot = &holder.name;
    let finding = view.draft(Code::SlotHolds).object(slot.as_str()).seen("database", &holder.database);
    let finding = finding.seen("blocks_drop", blocks_drop).noted("is_active", holder.is_active);
    let finding = finding.noted("held_bytes", holder.held_bytes).noted("wal_status", &holder.wal_status);
    findings.push(finding.no_repair(format!(
        "a reader may still need it; if none does, run as a superuser: SELECT pg_drop_replication_slot({})",
        quote_literal(slot)
    )));
}
