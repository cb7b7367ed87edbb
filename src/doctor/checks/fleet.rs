//! Deviations between the servers, the nodes and the landlord: connections, locales and clocks.
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Findings};
use crate::doctor::view::{Expected, FleetServer, FleetView, Skew};
use crate::operation::Subject;
use std::collections::BTreeMap;

pub(super) const CHECK: Check =
    Check { codes: &[Code::BudgetExceedsServer, Code::LocaleDiffers, Code::ClockSkew], run: CheckFn::Fleet(run) };

/// Difference of two clocks in seconds that matters: leases and deadlines are compared in whole seconds.
const SKEW: f64 = 2.0;

fn run(view: &FleetView, expected: &Expected, findings: &mut Findings) {
    check_budgets(view, expected, findings);
    check_locales(view, findings);
    check_clock(Draft::new(Code::ClockSkew, Subject::Landlord), "this node", view.node_skew, findings);
    for FleetServer { server, skew, .. } in &view.servers {
        if let Some(skew) = skew {
            let subject = Subject::Server(server.name.clone());
            check_clock(Draft::new(Code::ClockSkew, subject), "the server", *skew, findings);
        }
    }
}

/// The rows of the landlord by cluster: two rows may be the same one.
fn clusters(view: &FleetView) -> BTreeMap<(Option<i64>, &str, u16), Vec<&FleetServer>> {
    let mut clusters = BTreeMap::<_, Vec<_>>::new();
    for row in &view.servers {
        let address = match row.system_identifier {
            Some(_) => ("", 0),
            None => (row.server.host.as_str(), row.server.port),
        };
        clusters.entry((row.system_identifier, address.0, address.1)).or_default().push(row);
    }
    clusters
}

fn check_budgets(view: &FleetView, expected: &Expected, findings: &mut Findings) {
    let nodes = if expected.shares_connections { 1 } else { view.live_nodes.max(1) };
    let of_nodes = expected.max_connections.saturating_mul(nodes);
    for rows in clusters(view).values() {
        let Some(first) = rows.first() else { continue };
        let allowed = first.facts.max_connections - first.facts.reserved_connections;
        let budget = rows.iter().fold(0_u32, |sum, row| sum.saturating_add(row.server.max_connections.min(of_nodes)));
        if i64::from(budget) <= i64::from(allowed) {
            continue;
        }
        let names: Vec<_> = rows.iter().map(|row| &row.server.name).collect();
        let finding = Draft::new(Code::BudgetExceedsServer, Subject::Server(first.server.name.clone()));
        let finding = finding.seen("servers", names).seen("allowed", allowed).noted("budget", budget);
        findings.push(finding.noted("nodes", view.live_nodes).no_repair(
            "a full server refuses queries and suspensions; raise its max_connections, or lower max_connections() of the \
             builder, or turn share_connections() on",
        ));
    }
}

fn check_locales(view: &FleetView, findings: &mut Findings) {
    let mut locales = BTreeMap::<_, Vec<_>>::new();
    for row in &view.servers {
        locales.entry(row.facts.locale.as_str()).or_default().push(&row.server.name);
    }
    if locales.len() > 1 {
        let finding = Draft::new(Code::LocaleDiffers, Subject::Landlord).seen("locales", locales);
        findings.push(finding.no_repair(
            "a tenant that moves between these servers gets another sort order or encoding; set up new servers with the \
             same encoding and locale",
        ));
    }
}

fn check_clock(finding: Draft, clock: &'static str, skew: Skew, findings: &mut Findings) {
    if skew.seconds.abs() - skew.tolerance > SKEW {
        let finding = finding.object(clock).seen("is_ahead", skew.seconds > 0.0).noted("seconds", skew.seconds);
        findings.push(finding.no_repair(
            "leases and deadlines use the landlord's clock, and logs are hard to compare; synchronise the clocks by NTP",
        ));
    }
}
