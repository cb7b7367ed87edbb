//! The examination: reads the landlord, the servers and the tenants, and runs the checks on what was read.
//!
//! [`Doctor`](super::Doctor) examines everything, and a repair examines its subject again before and after it acts.
//!
//! Invariants: the examination changes nothing. A finding is reported only if two looks at its subject have made it, see
//! `looks`. The memory of an examination does not depend on the number of rows in the registry: it reads placements and
//! tenants in pages, and keeps the catalogs of one server at a time, twice while it looks again.
use super::checks::{check_landlord, check_server, of_schema_error};
use super::finding::{Finding, Findings};
use super::observe::{landlord, server};
use super::plan::{FORMAT, Plan};
use super::scope::Scope;
use super::view::{Expected, LandlordView};
use crate::cluster::OperationContext;
use crate::error::{DoctorError, SchemaError, StepError, StoreError};
use crate::names::ServerName;
use crate::operation::{OperationId, Subject};
use crate::store::nodes::{Node, Nodes};
use crate::store::schema::{self, LandlordPool};
use crate::tenant::TenantId;
use looks::Examined;
use pass::{Pass, Tally};
use std::collections::HashSet;
use std::sync::Arc;
use tenant::Context;
use uuid::Uuid;

mod looks;
mod pages;
mod pass;
mod tenant;
mod unplaced;

/// Runs examinations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Examiner {
    stores: OperationContext,
    landlord: LandlordPool,
    nodes: Arc<dyn Nodes>,
    expected: Expected,
    /// Servers for which the caller gave an admin's connection, so that provisioner logins can be repaired there.
    admins: HashSet<ServerName>,
}

impl Examiner {
    pub(crate) fn new(
        stores: OperationContext, landlord: LandlordPool, nodes: Arc<dyn Nodes>, expected: Expected,
    ) -> Self {
        Self { stores, landlord, nodes, expected, admins: HashSet::new() }
    }
    /// Declares that the caller has an admin's connection to this server.
    pub(super) fn add_admin(&mut self, server: ServerName) {
        self.admins.insert(server);
    }

    /// Examines everything in `scope`, and calls `found` with each finding.
    pub(crate) async fn examine_all(
        &self, scope: &Scope, found: &mut (dyn FnMut(&Finding) + Send + Sync),
    ) -> Result<Plan, DoctorError> {
        let mut tally = Tally::new(found);
        match schema::check_on(&self.landlord).await {
            Ok(()) => {}
            Err(SchemaError::Landlord(error)) => return Err(error.into()),
            Err(error) => return self.plan_without_schema(&error, tally).await,
        }
        let landlord = self.observe_landlord().await?;
        let mut pass = Pass::new(self.context(&landlord, scope), &mut tally).await?;
        match (&scope.tenant, &scope.server) {
            (Some(tenant), _) => pass.examine_one_tenant(tenant.clone()).await?,
            (None, Some(name)) => pass.examine_one_server(name).await?,
            (None, None) if scope.landlord_only => pass.examine_landlord().await?,
            (None, None) => pass.examine_everything().await?,
        }
        Ok(tally.into_plan(landlord.installation, landlord.now))
    }

    /// Examines one subject, also while the operation `except` is open for it. For repairs: the caller has a worker
    /// permit for the subject's server.
    pub(crate) async fn examine_subject(
        &self, subject: &Subject, except: Option<OperationId>,
    ) -> Result<Vec<Finding>, StepError> {
        let mut landlord = self.observe_landlord().await?;
        landlord.operations.retain(|operation| Some(operation.id) != except);
        let scope = Scope::default();
        let mut context = self.context(&landlord, &scope);
        context.is_repair = true;
        let mut findings = Findings::default();
        match subject {
            Subject::Tenant(id) => findings.list = self.examine_tenant(&context, *id).await?,
            Subject::Server(name) => self.examine_server(&context, name, &mut findings).await?,
            Subject::Vault | Subject::Landlord | Subject::Link(_) => {}
        }
        check_landlord(&landlord, &self.expected, &mut findings);
        findings.list.retain(|finding| finding.subject == *subject);
        Ok(findings.list)
    }

    /// Examines the operations of one subject only, whether or not one of them is running.
    pub(super) async fn examine_operations(&self, subject: &Subject) -> Result<Vec<Finding>, StepError> {
        let landlord = self.observe_landlord().await?;
        let mut findings = Findings::default();
        check_landlord(&landlord, &self.expected, &mut findings);
        findings.list.retain(|finding| finding.subject == *subject);
        Ok(findings.list)
    }

    /// Reads the landlord as it is now.
    async fn observe_landlord(&self) -> Result<LandlordView, StoreError> {
        landlord::observe(&self.stores, &self.landlord, &*self.nodes).await
    }

    fn context<'a>(&'a self, landlord: &'a LandlordView, scope: &'a Scope) -> Context<'a> {
        Context { examiner: self, landlord, scope, is_repair: false }
    }

    async fn examine_tenant(&self, context: &Context<'_>, id: TenantId) -> Result<Vec<Finding>, StepError> {
        match context.examine_alone(id).await? {
            Examined::Found(findings) if findings.list.iter().any(|finding| finding.subject != Subject::Tenant(id)) => {
                Err(StepError::fail("a row of the tenant in the landlord cannot be read"))
            }
            Examined::Found(findings) => Ok(findings.list),
            Examined::Busy => Err(StepError::retry("another operation of the tenant is running")),
        }
    }

    async fn examine_server(
        &self, context: &Context<'_>, name: &ServerName, findings: &mut Findings,
    ) -> Result<(), StepError> {
        let rows = self.stores.verified.list_unchecked().await?;
        let row = rows.readable.into_iter().find(|(server, _)| server.name == *name);
        let (row, is_trusted) = row.ok_or_else(|| StepError::fail(format!("no server {name} is registered")))?;
        let mut observed = server::observe(&self.stores, context.landlord, row, is_trusted, None).await;
        context.complete(&mut observed);
        check_server(&observed.view, &self.expected, findings);
        Ok(())
    }

    /// The plan if the landlord's schema cannot be used: nothing else can be read.
    async fn plan_without_schema(&self, error: &SchemaError, mut tally: Tally<'_>) -> Result<Plan, DoctorError> {
        let now = self.stores.journal.now().await?;
        let installation = match self.stores.servers.installation().await {
            Ok(installation) => installation,
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(_) => Uuid::nil(),
        };
        tally.add(of_schema_error(error));
        Ok(tally.into_plan(installation, now))
    }
}

impl Tally<'_> {
    fn into_plan(self, installation: Uuid, made_at: time::OffsetDateTime) -> Plan {
        let Self { findings: Findings { mut list, omitted }, servers, tenants, busy, .. } = self;
        list.sort_by_cached_key(|finding| {
            (finding.severity as u8, finding.code as u8, finding.subject.to_string(), finding.object.clone())
        });
        let made_by = Node::process_name().to_owned();
        Plan { format: FORMAT, installation, made_at, made_by, servers, tenants, busy, findings: list, omitted }
    }
}
