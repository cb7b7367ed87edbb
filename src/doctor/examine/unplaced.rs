//! The databases and roles on a server that no placement names.
use super::pages::Tenants;
use crate::cluster::OperationContext;
use crate::cluster::pg::ownership::MARK;
use crate::doctor::observe::server::{ObservedServer, find_existing};
use crate::doctor::view::ServerView;
use crate::error::{Rows, StoreError};
use crate::names::{DatabaseName, ServerName};
use crate::store::registry::{Placement, TenantRegistry};
use std::collections::{BTreeMap, BTreeSet};

/// What is left of a server's catalogs when the objects of all placements are taken away. Its size is bounded by the
/// catalogs and not by the number of placements.
pub(super) struct Unplaced {
    databases: BTreeSet<String>,
    /// Roles by the name of the database from which their names derive.
    roles: BTreeMap<String, Vec<String>>,
}

impl Unplaced {
    /// Everything that may belong to this installation.
    pub(super) fn of(view: &ServerView) -> Self {
        let is_neighbour = |role: &str| view.neighbours.iter().any(|neighbour| neighbour.as_str() == role);
        let of_neighbour = |database: &str| {
            let owner = view.databases.get(database).and_then(|found| found.owner.as_deref());
            owner.is_some_and(is_neighbour)
        };
        let databases = view.databases.keys().filter(|name| !of_neighbour(name)).cloned().collect();
        let names = &view.server.names;
        let own = [names.admin.as_str(), names.blue.as_str(), names.green.as_str()];
        let mut roles = BTreeMap::<_, Vec<_>>::new();
        for role in view.roles.keys().filter(|role| !own.contains(&role.as_str()) && !is_neighbour(role)) {
            let database = database_of(role);
            if !of_neighbour(database) {
                roles.entry(database.to_owned()).or_default().push(role.clone());
            }
        }
        Self { databases, roles }
    }
    /// Takes away what derives from the databases of these placements; everything if one of them cannot be parsed, because
    /// it may name any of it.
    pub(super) fn remove_page(&mut self, page: &Rows<Placement>) {
        for placement in &page.readable {
            self.databases.remove(placement.database.as_str());
            self.roles.remove(placement.database.as_str());
        }
        if !page.unreadable.is_empty() {
            self.databases.clear();
            self.roles.clear();
        }
    }
    /// Stores the rest in the server's view, except what has disappeared since the catalogs were read: a purge drops a
    /// tenant's objects before it removes the placement.
    pub(super) async fn store(self, observed: &mut ObservedServer) {
        let roles = self.roles.into_values().flatten().collect();
        let (databases, roles) = find_existing(observed, self.databases.into_iter().collect(), roles).await;
        (observed.view.unplaced_databases, observed.view.unplaced_roles) = (databases, roles);
    }
}

/// Whether something of this installation may be among what no placement names.
pub(super) fn has_own(view: &ServerView) -> bool {
    let databases = view.unplaced_databases.iter().filter_map(|name| view.databases.get(name));
    let roles = view.unplaced_roles.iter().filter_map(|name| view.roles.get(name));
    let marker = format!("{MARK}{}", view.installation);
    let is_marked = |comment: &Option<String>| comment.as_deref().is_some_and(|text| text.starts_with(&marker));
    databases.into_iter().any(|database| view.owns(database)) || roles.into_iter().any(|role| is_marked(&role.comment))
}

/// Takes away what derives from the databases that these entries name: a tenant that has lost its placement is a finding
/// of its own, and its database is in use.
pub(super) fn remove_entries(view: &mut ServerView, entries: &[(ServerName, DatabaseName)]) {
    let own = entries.iter().filter(|(server, _)| *server == view.server.name);
    let own: BTreeSet<&str> = own.map(|(_, database)| database.as_str()).collect();
    view.unplaced_databases.retain(|name| !own.contains(name.as_str()));
    view.unplaced_roles.retain(|name| !own.contains(database_of(name)));
}

/// Reads the databases that entries of tenants without a placement name.
pub(super) async fn read_entries(stores: &OperationContext) -> Result<Vec<(ServerName, DatabaseName)>, StoreError> {
    let (mut entries, mut pages) = (vec![], Tenants::default());
    while let Some(page) = pages.next(stores).await? {
        for tenant in page.readable {
            // A placement that cannot be parsed is a finding, and keeps everything from being an orphan.
            if let Ok(None) = stores.servers.placement(tenant.id()).await {
                let found = stores.registry.databases(tenant.id()).await?;
                entries.extend(found.into_iter().filter_map(|entry| Some((entry.server?, entry.database))));
            }
        }
    }
    Ok(entries)
}

/// The name of the database from which a role's name derives; the whole name if it has none of the suffixes.
fn database_of(role: &str) -> &str {
    let is_suffix = |suffix: &str| {
        let generation = suffix.strip_prefix(['v', 't']).filter(|digits| !digits.is_empty());
        matches!(suffix, "owner" | "app" | "mig")
            || generation.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match role.rsplit_once('_') {
        Some((database, suffix)) if is_suffix(suffix) => database,
        _ => role,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_of_a_role_is_its_name_without_the_suffix_of_a_tenants_role() {
        for (role, database) in [
            ("t_1_owner", "t_1"),
            ("t_1_app", "t_1"),
            ("t_1_mig", "t_1"),
            ("t_1_v12", "t_1"),
            ("t_1_t12", "t_1"),
            ("t_1_v", "t_1_v"),
            ("t_1_v1x", "t_1_v1x"),
            ("stranger", "stranger"),
        ] {
            assert_eq!(database_of(role), database);
        }
    }
}
