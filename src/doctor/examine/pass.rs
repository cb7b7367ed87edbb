//! One pass over the installation, or over a part of it.
use super::tenant::{Context, Examined};
use super::unplaced::{self, Unplaced};
use crate::doctor::checks::{check_fleet, check_landlord, check_server, of_row};
use crate::doctor::finding::{Finding, Findings};
use crate::doctor::observe::server::{self, ObservedServer};
use crate::doctor::view::{FleetServer, FleetView, LandlordView, ServerView};
use crate::error::{DoctorError, StoreError, UnreadableRow};
use crate::names::{DatabaseName, RoleName, ServerName};
use crate::operation::Subject;
use crate::server::DatabaseServer;
use crate::tenant::{Tenant, TenantId, TenantRef};
use futures_util::{StreamExt, stream};
use std::collections::HashSet;

/// Rows that one read of the registry returns.
const PAGE: u32 = 200;
/// Tenants that are examined at once: half of the permits that the workers of this process have for a server.
const CONCURRENCY: usize = 4;

/// The findings and the numbers of an examination.
pub(super) struct Tally<'a> {
    pub(super) findings: Findings,
    pub(super) servers: u32,
    pub(super) tenants: u64,
    pub(super) busy: u64,
    found: &'a mut (dyn FnMut(&Finding) + Send),
    /// Unreadable rows that are findings already. A page repeats those after its last readable row.
    reported: HashSet<String>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(found: &'a mut (dyn FnMut(&Finding) + Send)) -> Self {
        Self { findings: Findings::default(), servers: 0, tenants: 0, busy: 0, found, reported: HashSet::new() }
    }
    pub(super) fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            (self.found)(&finding);
            self.findings.push(finding);
        }
    }
    fn add_unreadable(&mut self, rows: &[UnreadableRow]) {
        for row in rows {
            if self.reported.insert(format!("{}/{}", row.table(), row.id())) {
                self.add([of_row(row)]);
            }
        }
    }
    fn add_tenant(&mut self, examined: Examined) {
        match examined {
            Examined::Found(findings) => {
                self.tenants += 1;
                self.findings.omitted += findings.omitted;
                self.add(findings.list);
            }
            Examined::Busy => self.busy += 1,
        }
    }
}

pub(super) struct Pass<'a, 'b> {
    context: Context<'a>,
    tally: &'a mut Tally<'b>,
    /// The servers' rows, each with whether it may be used.
    servers: Vec<(DatabaseServer, bool)>,
    /// The servers that have answered.
    fleet: Vec<FleetServer>,
    /// See [`entries_without_placement`](Self::entries_without_placement).
    entries: Option<Vec<(ServerName, DatabaseName)>>,
}

impl<'a, 'b> Pass<'a, 'b> {
    pub(super) async fn new(context: Context<'a>, tally: &'a mut Tally<'b>) -> Result<Self, StoreError> {
        let rows = context.examiner.stores.verified.list_unchecked().await?;
        tally.add_unreadable(&rows.unreadable);
        Ok(Self { context, tally, servers: rows.readable, fleet: vec![], entries: None })
    }

    pub(super) async fn examine_everything(&mut self) -> Result<(), StoreError> {
        for (server, is_trusted) in self.servers.clone() {
            self.examine_server(server, is_trusted).await?;
        }
        self.examine_unplaced().await?;
        self.examine_landlord();
        let findings = self.check_fleet();
        self.tally.add(findings);
        Ok(())
    }

    pub(super) fn examine_landlord(&mut self) {
        let findings = self.check_landlord();
        self.tally.add(findings);
    }

    pub(super) async fn examine_one_server(&mut self, name: &ServerName) -> Result<(), DoctorError> {
        let row = self.servers.iter().find(|(server, _)| server.name == *name).cloned();
        let (server, is_trusted) = row.ok_or_else(|| DoctorError::UnknownServer { server: name.clone() })?;
        self.examine_server(server, is_trusted).await?;
        for finding in self.check_landlord() {
            if self.is_on(name, &finding.subject).await? {
                self.tally.add([finding]);
            }
        }
        Ok(())
    }

    pub(super) async fn examine_one_tenant(&mut self, tenant: TenantRef<'static>) -> Result<(), DoctorError> {
        let found = self.context.examiner.stores.registry.find(tenant).await?;
        let id = found.ok_or(DoctorError::UnknownTenant)?.id();
        let examined = self.context.examine_alone(id).await?;
        self.tally.add_tenant(examined);
        let findings = self.check_landlord().into_iter().filter(|finding| finding.subject == Subject::Tenant(id));
        self.tally.add(findings.collect::<Vec<_>>());
        Ok(())
    }

    fn check_landlord(&self) -> Vec<Finding> {
        let mut findings = Findings::default();
        check_landlord(self.context.landlord, &self.context.examiner.expected, &mut findings);
        findings.list
    }

    /// Whether the subject is this server, or a tenant that is placed on it.
    async fn is_on(&self, name: &ServerName, subject: &Subject) -> Result<bool, StoreError> {
        match subject {
            Subject::Server(server) => Ok(server == name),
            Subject::Tenant(id) => {
                let placement = self.context.examiner.stores.servers.placement(*id).await?;
                Ok(placement.is_some_and(|placement| placement.server == *name))
            }
            _ => Ok(false),
        }
    }

    /// Examines the tenants of a server, and then the server itself.
    async fn examine_server(&mut self, server: DatabaseServer, is_trusted: bool) -> Result<(), StoreError> {
        let subject = Subject::Server(server.name.clone());
        let (stores, landlord) = (&self.context.examiner.stores, self.context.landlord);
        let mut observed = server::observe(stores, landlord, server, is_trusted, None).await;
        self.context.complete(&mut observed);
        observed.view.neighbours = self.neighbours(&observed.view.server);
        self.tally.servers += 1;
        let mut unplaced = Unplaced::of(&observed.view);
        self.examine_placed(&observed, &mut unplaced).await?;
        unplaced.store(&mut observed).await;
        if unplaced::has_own(&observed.view) {
            unplaced::remove_entries(&mut observed.view, self.entries_without_placement().await?);
        }
        let mut findings = Findings::default();
        check_server(&observed.view, &self.context.examiner.expected, &mut findings);
        let is_changing = self.context.is_busy(&subject);
        match !findings.list.is_empty() && (is_changing || self.context.has_changed(&subject).await?) {
            true => self.tally.busy += 1,
            false => self.tally.add(findings.list),
        }
        let ServerView { server, facts, system_identifier, skew, .. } = observed.view;
        self.fleet.extend(facts.map(|facts| FleetServer { server, facts, system_identifier, skew }));
        Ok(())
    }

    /// The databases that entries of tenants without a placement name. They are read once, and only if a server has
    /// databases or roles that no placement names.
    async fn entries_without_placement(&mut self) -> Result<&[(ServerName, DatabaseName)], StoreError> {
        if self.entries.is_none() {
            self.entries = Some(unplaced::read_entries(&self.context.examiner.stores).await?);
        }
        Ok(self.entries.as_deref().unwrap_or_default())
    }

    /// The roles of the provisioner on the landlord's other servers.
    fn neighbours(&self, server: &DatabaseServer) -> Vec<RoleName> {
        let others =
            self.servers.iter().map(|(other, _)| other).filter(|other| other.names.admin != server.names.admin);
        others.flat_map(|other| [&other.names.admin, &other.names.blue, &other.names.green]).cloned().collect()
    }

    fn check_fleet(&mut self) -> Vec<Finding> {
        let LandlordView { live_nodes, clock, .. } = self.context.landlord;
        let servers = std::mem::take(&mut self.fleet);
        let view = FleetView { servers, live_nodes: *live_nodes, node_skew: clock.node_skew() };
        let mut findings = Findings::default();
        check_fleet(&view, &self.context.examiner.expected, &mut findings);
        findings.list
    }

    async fn examine_placed(&mut self, observed: &ObservedServer, unplaced: &mut Unplaced) -> Result<(), StoreError> {
        let context = self.context;
        let registry = &context.examiner.stores.servers;
        let mut after = None;
        loop {
            let page = registry.placements_on(observed.view.name(), after.as_ref(), PAGE).await?;
            self.tally.add_unreadable(&page.unreadable);
            let Some(last) = page.readable.last() else { return Ok(()) };
            after = Some(last.database.clone());
            page.readable.iter().for_each(|placement| unplaced.remove(&placement.database));
            if !page.unreadable.is_empty() {
                unplaced.clear();
            }
            let tenants = stream::iter(page.readable).map(|placement| async move {
                context.examine(placement.tenant, Some(placement), Some(observed)).await
            });
            let mut tenants = tenants.buffer_unordered(CONCURRENCY);
            while let Some(examined) = tenants.next().await {
                self.tally.add_tenant(examined?);
            }
        }
    }

    /// Examines the tenants that have no placement.
    async fn examine_unplaced(&mut self) -> Result<(), StoreError> {
        let context = self.context;
        let mut after = None;
        loop {
            let page = context.examiner.stores.registry.page(after, PAGE).await?;
            self.tally.add_unreadable(&page.unreadable);
            let Some(last) = page.readable.last() else { return Ok(()) };
            after = Some(last.id());
            let ids: Vec<TenantId> = page.readable.iter().map(Tenant::id).collect();
            let tenants = stream::iter(ids).map(|id| async move { examine_if_unplaced(context, id).await });
            let mut tenants = tenants.buffer_unordered(CONCURRENCY);
            while let Some(examined) = tenants.next().await {
                if let Some(examined) = examined? {
                    self.tally.add_tenant(examined);
                }
            }
        }
    }
}

async fn examine_if_unplaced(context: Context<'_>, id: TenantId) -> Result<Option<Examined>, StoreError> {
    match context.examiner.stores.servers.placement(id).await {
        // The pass over its server has examined it.
        Ok(Some(_)) => Ok(None),
        // The pass over the servers has reported the row.
        Err(StoreError::Corrupt(_)) => Ok(None),
        Ok(None) => context.examine_alone(id).await.map(Some),
        Err(error) => Err(error),
    }
}
