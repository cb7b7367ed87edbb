//! One pass over the installation, or over a part of it.
use super::looks::{Confirmed, Examined, Looks};
use super::pages::{PAGE, Placements, Tenants};
use super::tenant::Context;
use super::unplaced::{self, Unplaced};
use crate::doctor::checks::{check_fleet, check_landlord, check_server, of_row};
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Finding, Findings};
use crate::doctor::observe::server::{self, ObservedServer};
use crate::doctor::view::{FleetServer, FleetView, LandlordView, ServerView};
use crate::error::{DoctorError, StoreError, UnreadableRow};
use crate::names::{DatabaseName, RoleName, ServerName};
use crate::operation::Subject;
use crate::server::DatabaseServer;
use crate::tenant::{Tenant, TenantId, TenantRef};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;

/// Tenants that are examined at once: half of the permits that the workers of this process have for a server.
const CONCURRENCY: usize = 4;

/// Tenants of one server up to which each is looked at again alone, so that not all catalogs of the server are read.
const ALONE: usize = 2;

/// The findings and the numbers of an examination.
pub(super) struct Tally<'a> {
    pub(super) findings: Findings,
    pub(super) servers: u32,
    pub(super) tenants: u64,
    pub(super) busy: u64,
    found: &'a mut (dyn FnMut(&Finding) + Send + Sync),
    /// Unreadable rows that are findings already. A page repeats those after its last readable row.
    reported: HashSet<String>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(found: &'a mut (dyn FnMut(&Finding) + Send + Sync)) -> Self {
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
    fn add_tenant(&mut self, looks: Looks) {
        match looks.into_confirmed() {
            Confirmed { findings, has_changed: false } => {
                self.tenants += 1;
                self.add_confirmed(findings);
            }
            changed => self.add_changed(changed),
        }
    }
    /// Adds what was confirmed about a subject that has changed while it was examined.
    fn add_changed(&mut self, Confirmed { findings, has_changed }: Confirmed) {
        self.busy += u64::from(has_changed);
        self.add_confirmed(findings);
    }
    fn add_confirmed(&mut self, findings: Findings) {
        self.findings.omitted += findings.omitted;
        self.add(findings.list);
    }
}

/// A tenant about which something was found, or that was being changed.
struct Suspect {
    id: TenantId,
    /// Whether its server was read when it was first looked at.
    was_open: bool,
    looks: Looks,
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
        self.examine_landlord().await?;
        let findings = self.check_fleet();
        self.tally.add(findings);
        Ok(())
    }

    pub(super) async fn examine_landlord(&mut self) -> Result<(), StoreError> {
        let confirmed = self.confirm_landlord().await?;
        self.tally.add_changed(confirmed);
        Ok(())
    }

    pub(super) async fn examine_one_server(&mut self, name: &ServerName) -> Result<(), DoctorError> {
        let row = self.servers.iter().find(|(server, _)| server.name == *name).cloned();
        let (server, is_trusted) = row.ok_or_else(|| DoctorError::UnknownServer { server: name.clone() })?;
        self.examine_server(server, is_trusted).await?;
        for finding in self.confirm_landlord().await?.findings.list {
            if self.is_on(name, &finding.subject).await? {
                self.tally.add([finding]);
            }
        }
        Ok(())
    }

    pub(super) async fn examine_one_tenant(&mut self, tenant: TenantRef<'static>) -> Result<(), DoctorError> {
        let found = self.context.examiner.stores.registry.find(tenant).await?;
        let id = found.ok_or(DoctorError::UnknownTenant)?.id();
        let looks = Looks::begin(self.context.examine_alone(id).await?);
        self.look_again(vec![Suspect { id, was_open: true, looks }], None).await?;
        let about = |finding: &Finding| finding.subject == Subject::Tenant(id);
        let findings = self.confirm_landlord().await?.findings.list;
        self.tally.add(findings.into_iter().filter(about).collect::<Vec<_>>());
        Ok(())
    }

    /// The findings of the landlord's own checks. The landlord was read when the examination began, so it is read again.
    async fn confirm_landlord(&self) -> Result<Confirmed, StoreError> {
        let check = |landlord: &LandlordView| {
            let mut findings = Findings::default();
            check_landlord(landlord, &self.context.examiner.expected, &mut findings);
            Examined::Found(findings)
        };
        let mut looks = Looks::begin(check(self.context.landlord));
        while looks.needs_another() {
            looks.add(check(&self.context.examiner.observe_landlord().await?));
        }
        Ok(looks.into_confirmed())
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
        let name = server.name.clone();
        let observed = self.observe(self.context, server, is_trusted, None).await;
        self.tally.servers += 1;
        let unplaced = self.examine_placed(&observed).await?;
        let (first, view) = self.check_server(self.context, observed, unplaced).await?;
        let mut looks = Looks::begin(first);
        while looks.needs_another() {
            looks.add(self.look_at_server(&name).await?);
        }
        self.tally.add_changed(looks.into_confirmed());
        let ServerView { server, facts, system_identifier, skew, .. } = view;
        self.fleet.extend(facts.map(|facts| FleetServer { server, facts, system_identifier, skew }));
        Ok(())
    }

    /// Looks once more at a server and at the placements on it, without its tenants.
    async fn look_at_server(&mut self, name: &ServerName) -> Result<Examined, StoreError> {
        let landlord = self.context.examiner.observe_landlord().await?;
        let context = Context { landlord: &landlord, ..self.context };
        let Some((server, is_trusted)) = context.find_server(name).await? else { return Ok(Examined::Busy) };
        let observed = self.observe(context, server, is_trusted, None).await;
        let mut unplaced = Unplaced::of(&observed.view);
        let mut pages = Placements::on(name.clone());
        while let Some(page) = pages.next(&self.context.examiner.stores).await? {
            unplaced.remove_page(&page);
        }
        Ok(self.check_server(context, observed, unplaced).await?.0)
    }

    /// Observes a server, all of it or what concerns one database.
    async fn observe(
        &self, context: Context<'_>, server: DatabaseServer, is_trusted: bool, only: Option<&DatabaseName>,
    ) -> ObservedServer {
        let mut observed = server::observe(&context.examiner.stores, context.landlord, server, is_trusted, only).await;
        context.complete(&mut observed);
        observed.view.neighbours = self.neighbours(&observed.view.server);
        observed
    }

    /// Runs the checks of a server. `unplaced` is what is left of its catalogs without the objects of all placements.
    async fn check_server(
        &mut self, context: Context<'_>, mut observed: ObservedServer, unplaced: Unplaced,
    ) -> Result<(Examined, ServerView), StoreError> {
        unplaced.store(&mut observed).await;
        if unplaced::has_own(&observed.view) {
            unplaced::remove_entries(&mut observed.view, self.entries_without_placement().await?);
        }
        let mut findings = Findings::default();
        check_server(&observed.view, &context.examiner.expected, &mut findings);
        let subject = Subject::Server(observed.view.name().clone());
        let is_changing = context.is_busy(&subject);
        let examined = match !findings.list.is_empty() && (is_changing || context.has_changed(&subject).await?) {
            true => Examined::Busy,
            false => Examined::Found(findings),
        };
        Ok((examined, observed.view))
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

    /// Examines the tenants that are placed on a server. Returns what of its catalogs belongs to none of them.
    async fn examine_placed(&mut self, observed: &ObservedServer) -> Result<Unplaced, StoreError> {
        let context = self.context;
        let (mut unplaced, mut suspects) = (Unplaced::of(&observed.view), vec![]);
        let mut pages = Placements::on(observed.view.name().clone());
        while let Some(page) = pages.next(&context.examiner.stores).await? {
            self.tally.add_unreadable(&page.unreadable);
            unplaced.remove_page(&page);
            let tenants = stream::iter(page.readable).map(|placement| async move {
                let id = placement.tenant;
                (id, context.examine(id, Some(placement), Some(observed)).await)
            });
            let mut tenants = tenants.buffer_unordered(CONCURRENCY);
            while let Some((id, examined)) = tenants.next().await {
                let looks = Looks::begin(examined?);
                match looks.needs_another() {
                    true => suspects.push(Suspect { id, was_open: observed.view.is_open(), looks }),
                    false => self.tally.add_tenant(looks),
                }
            }
            drop(tenants);
            if suspects.len() >= PAGE as usize {
                self.look_again(std::mem::take(&mut suspects), Some(observed.view.name())).await?;
            }
        }
        if pages.is_incomplete() {
            self.tally.add([rows_left_out(Subject::Server(observed.view.name().clone()), "placements")]);
        }
        self.look_again(suspects, Some(observed.view.name())).await?;
        Ok(unplaced)
    }

    /// Examines the tenants that have no placement.
    async fn examine_unplaced(&mut self) -> Result<(), StoreError> {
        let context = self.context;
        let mut pages = Tenants::default();
        while let Some(page) = pages.next(&context.examiner.stores).await? {
            self.tally.add_unreadable(&page.unreadable);
            let ids: Vec<TenantId> = page.readable.iter().map(Tenant::id).collect();
            let tenants = stream::iter(ids).map(|id| async move { (id, examine_if_unplaced(context, id).await) });
            let mut tenants = tenants.buffer_unordered(CONCURRENCY);
            let mut suspects = vec![];
            while let Some((id, examined)) = tenants.next().await {
                let Some(looks) = examined?.map(Looks::begin) else { continue };
                match looks.needs_another() {
                    true => suspects.push(Suspect { id, was_open: true, looks }),
                    false => self.tally.add_tenant(looks),
                }
            }
            drop(tenants);
            self.look_again(suspects, None).await?;
        }
        if pages.is_incomplete() {
            self.tally.add([rows_left_out(Subject::Landlord, "tenants")]);
        }
        Ok(())
    }

    /// Looks again at tenants about which something was found, and adds what is confirmed. The catalogs of their server,
    /// if it is given, are read once for many of them.
    async fn look_again(&mut self, mut suspects: Vec<Suspect>, on: Option<&ServerName>) -> Result<(), StoreError> {
        while !suspects.is_empty() {
            let (open, settled): (Vec<_>, Vec<_>) = suspects.into_iter().partition(|s| s.looks.needs_another());
            settled.into_iter().for_each(|suspect| self.tally.add_tenant(suspect.looks));
            if open.is_empty() {
                return Ok(());
            }
            let landlord = self.context.examiner.observe_landlord().await?;
            let context = Context { landlord: &landlord, ..self.context };
            let is_free = |suspect: &&Suspect| !context.is_busy(&Subject::Tenant(suspect.id));
            let row = match on {
                Some(name) if open.iter().filter(is_free).count() > ALONE => context.find_server(name).await?,
                _ => None,
            };
            let observed = match row {
                Some((server, is_trusted)) => Some(self.observe(context, server, is_trusted, None).await),
                None => None,
            };
            let observed = observed.as_ref();
            let looks = stream::iter(open).map(|mut suspect| async move {
                let examined = context.examine_again(suspect.id, observed, suspect.was_open).await?;
                suspect.looks.add(examined);
                Ok::<_, StoreError>(suspect)
            });
            suspects = looks.buffer_unordered(CONCURRENCY).try_collect().await?;
        }
        Ok(())
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

/// The finding that rows of a list were not read, because too many rows before them cannot be parsed.
fn rows_left_out(subject: Subject, rows: &'static str) -> Finding {
    Draft::new(Code::CannotSee, subject).object(rows).no_repair(
        "so many rows in a row cannot be parsed that the examination has stopped there; correct those that it names, then \
         examine again",
    )
}
