//! `status`: the installation on one screen, read from the landlord alone.
use super::arguments::count;
use super::exit::Exit;
use super::failure::CommandError;
use super::operations::table_of_operations;
use super::output::{Output, Table, show_time, to_text};
use super::servers::table_of_servers;
use super::session::Session;
use crate::doctor::{Finding, Severity};
use crate::error::StoreError;
use crate::store::nodes::LiveNode;
use crate::tenant::TenantStatus;
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// Heartbeats that are older count as those of a dead node.
const NODE_LIFETIME: Duration = Duration::from_secs(15);

pub(super) async fn run(session: &Session) -> Result<Output, CommandError> {
    let tenantry = &session.tenantry;
    let servers = tenantry.servers().list().await?;
    let nodes = tenantry.nodes().read_live(NODE_LIFETIME).await?;
    let operations = tenantry.operations().open().await?;
    let (tenants, unreadable) = count_tenants(session).await?;
    let plan = tenantry.doctor().landlord_only().examine().await?;
    let has_findings = !plan.findings.is_empty() || unreadable > 0;
    let output = Output::new()
        .table(Table::facts().fact("Landlord", &session.target).fact("Tenants", describe_tenants(&tenants, unreadable)))
        .heading("Servers")
        .table(table_of_servers(&servers))
        .heading("Nodes")
        .table(table_of_nodes(&nodes))
        .heading("Open operations")
        .table(table_of_operations(session, &operations).await?)
        .heading("Findings in the landlord")
        .table(table_of_findings(&plan.findings))
        .field("landlord", &session.target)
        .field("tenants", tenants.iter().map(|(status, n)| (status.to_string(), json!(n))).collect::<Map<_, Value>>())
        .field("unreadable_tenants", unreadable)
        .field("unreadable", [&servers.unreadable[..], &operations.unreadable[..]].concat())
        .notes(servers.unreadable.iter().chain(&operations.unreadable).map(ToString::to_string))
        .field("servers", &*servers)
        .field(
            "nodes",
            nodes.iter().map(|n| json!({ "name": n.node.name, "seen_at": to_text(n.seen_at) })).collect::<Vec<_>>(),
        )
        .field("operations", &*operations)
        .field("findings", &plan.findings)
        .exit(if has_findings { Exit::Findings } else { Exit::Done });
    Ok(match servers.is_empty() {
        true => output.next("servers set-up main"),
        false => output.next("doctor"),
    })
}

/// Tenants by status, in the order of a tenant's life, and the number of rows that cannot be read.
async fn count_tenants(session: &Session) -> Result<(Vec<(TenantStatus, u64)>, u64), CommandError> {
    let registry = session.tenantry.registry();
    let (mut counts, mut unreadable, mut all) = (HashMap::<_, u64>::new(), 0, registry.all());
    while let Some(tenant) = all.next().await {
        match tenant {
            Ok(tenant) => *counts.entry(tenant.status()).or_default() += 1,
            Err(StoreError::Corrupt(_)) => unreadable += 1,
            Err(error) => return Err(error.into()),
        }
    }
    let in_order = TenantStatus::ALL.into_iter().filter_map(|status| Some((status, *counts.get(&status)?)));
    Ok((in_order.collect(), unreadable))
}

fn describe_tenants(counts: &[(TenantStatus, u64)], unreadable: u64) -> String {
    let mut parts: Vec<_> = counts.iter().map(|(status, n)| format!("{n} {status}")).collect();
    if unreadable > 0 {
        parts.push(format!("{unreadable} with a row that cannot be read"));
    }
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

fn table_of_nodes(nodes: &[LiveNode]) -> Table {
    let rows = nodes.iter().map(|live| [live.node.name.clone(), show_time(live.seen_at)]);
    Table::new(["NODE", "LAST HEARTBEAT"])
        .rows(rows)
        .or_empty("None. No process runs the background work: recovery, retirement of logins.")
}

/// The findings, also for `doctor`.
pub(super) fn table_of_findings(findings: &[Finding]) -> Table {
    let rows = findings.iter().map(|finding| {
        let subject = finding.tenant.as_ref().map_or_else(|| finding.subject.to_string(), ToString::to_string);
        let object = finding.object.clone().unwrap_or_default();
        let advice = finding.repair.as_ref().map(|repair| format!("repair: {repair}"));
        let advice = advice.or_else(|| finding.no_repair.clone()).unwrap_or_default();
        [finding.severity.to_string(), finding.code.to_string(), subject, object, advice]
    });
    Table::new(["SEVERITY", "CODE", "SUBJECT", "OBJECT", "WHAT TO DO"]).rows(rows).or_empty("None.")
}

/// `2 critical, 1 warning`.
pub(super) fn describe_findings(findings: &[Finding]) -> String {
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let counts = Severity::ALL.iter().map(|severity| (of(*severity), severity)).filter(|(n, _)| *n > 0);
    let counts: Vec<_> = counts.map(|(n, severity)| format!("{n} {severity}")).collect();
    format!("{}: {}", count(findings.len(), "finding", "findings"), counts.join(", "))
}
