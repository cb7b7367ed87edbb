//! Reads one server in a session of the provisioner: one query for each group of checks.
use crate::cluster::pg::mark;
use crate::cluster::pg::observe::{
    read_blockers, read_databases, read_entrants, read_holders, read_roles, read_server,
};
use crate::cluster::pg::{catalog, session};
use crate::cluster::{Observer, OperationContext};
use crate::doctor::view::{Clock, LandlordView, Seen, ServerAccess, ServerView};
use crate::error::{ClusterError, VaultError, chain};
use crate::names::{DatabaseName, RoleName};
use crate::server::{DatabaseServer, ServerStatus};
use crate::sqlstate;
use sqlx::PgConnection;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Time limit for everything that one server is asked at once.
const LIMIT: Duration = Duration::from_secs(90);

/// A server, and the session with the provisioner's password for the tenants on it. `None` if it cannot be entered.
pub(in crate::doctor) struct ObservedServer {
    pub(in crate::doctor) view: ServerView,
    pub(in crate::doctor) observer: Option<Observer>,
}

/// Reads a server. What could not be read is in the view. `only` restricts it to one database, and leaves out the login
/// that is not in use and the sessions.
pub(in crate::doctor) async fn observe(
    stores: &OperationContext, landlord: &LandlordView, server: DatabaseServer, is_trusted: bool,
    only: Option<&DatabaseName>,
) -> ObservedServer {
    let installation = landlord.installation;
    let closed =
        |access| ObservedServer { view: ServerView::new(installation, server.clone(), access), observer: None };
    if !is_trusted {
        return closed(ServerAccess::Untrusted);
    }
    if server.status == ServerStatus::SettingUp {
        return closed(ServerAccess::NotReady);
    }
    let observer = match stores.observer(&server, &server.login).await {
        Ok(observer) => observer,
        Err(error) => return closed(no_secret(&error)),
    };
    let mut view = ServerView::new(installation, server.clone(), ServerAccess::Open);
    let read = async {
        read_catalogs(&mut view, &landlord.clock, &observer, only).await?;
        if only.is_none() {
            view.idle_login = observe_idle_login(stores, &server).await;
        }
        Ok::<_, Obstacle>(())
    };
    let late = ClusterError::Deadline { phase: "observing the server", limit: LIMIT };
    match tokio::time::timeout(LIMIT, read).await.unwrap_or(Err(Obstacle::Error(late))) {
        Ok(()) => ObservedServer { view, observer: Some(observer) },
        Err(obstacle) => closed(obstacle.into_access()),
    }
}

/// Why a server's catalogs were not read.
enum Obstacle {
    Error(ClusterError),
    /// The session does not act as the admin role, but as this one.
    ActsAs(String),
    /// What shows that another cluster answers.
    Replaced(String),
}
impl From<ClusterError> for Obstacle {
    fn from(error: ClusterError) -> Self {
        Self::Error(error)
    }
}
impl Obstacle {
    fn into_access(self) -> ServerAccess {
        match self {
            Self::Error(error @ ClusterError::Connect { .. }) if is_refused(&error) => {
                ServerAccess::Refused(chain(&error))
            }
            Self::Error(error) => ServerAccess::Unreachable(chain(&error)),
            Self::ActsAs(role) => ServerAccess::Refused(format!("its sessions act as {role}")),
            Self::Replaced(reason) => ServerAccess::Replaced(reason),
        }
    }
}

async fn read_catalogs(
    view: &mut ServerView, landlord: &Clock, observer: &Observer, only: Option<&DatabaseName>,
) -> Result<(), Obstacle> {
    let names = view.server.names.clone();
    let mut opened = observer.open_server().await?;
    let session = &mut opened;
    let asked = Instant::now();
    let facts = read_server(session).await?;
    view.skew = Some(landlord.skew_of(facts.clock, asked, asked.elapsed()));
    view.facts = Some(facts);
    require_identity(session, &names.admin).await?;
    verify_cluster(session, view).await?;
    let databases = read_databases(session, &names.admin, only).await?;
    view.databases = databases.into_iter().map(|database| (database.name.clone(), database)).collect();
    let roles = read_roles(session, &names, only).await?;
    view.roles = roles.into_iter().map(|role| (role.name.clone(), role)).collect();
    for entrant in read_entrants(session, &names.admin, only).await? {
        view.entrants.entry(entrant.database).or_default().push(entrant.role);
    }
    view.entrants.values_mut().for_each(|roles| roles.sort());
    if only.is_none() {
        view.blockers = read_blockers(session, &names.admin).await?;
        view.holders = read_holders(session, &names.admin).await?;
    }
    session::close(opened).await;
    Ok(())
}

/// Fails unless the sessions of the provisioner act as the admin role, without which none of its statements works.
async fn require_identity(session: &mut PgConnection, admin: &RoleName) -> Result<(), Obstacle> {
    let (_, acts_as, _) = catalog::read_identity(session).await?;
    if acts_as == admin.as_str() { Ok(()) } else { Err(Obstacle::ActsAs(acts_as)) }
}

/// Fails if the cluster is not the one that was set up.
async fn verify_cluster(session: &mut PgConnection, view: &mut ServerView) -> Result<(), Obstacle> {
    if !mark::is_marked(session, view.installation, &view.server.name).await? {
        return Err(Obstacle::Replaced(String::from("the maintenance database has not the mark of this server")));
    }
    view.system_identifier = mark::system_identifier(session).await?;
    match (view.system_identifier, view.server.system_identifier) {
        (Some(found), Some(stored)) if found != stored => {
            Err(Obstacle::Replaced(format!("its system identifier is {found}, and the stored one is {stored}")))
        }
        _ => Ok(()),
    }
}

async fn observe_idle_login(stores: &OperationContext, server: &DatabaseServer) -> Seen<()> {
    let observer = match stores.observer(server, server.idle_login()).await {
        Ok(observer) => observer,
        Err(error) => return Seen::Hidden(chain(&error)),
    };
    let entered = async {
        let mut session = observer.open_server().await?;
        let identity = require_identity(&mut session, &server.names.admin).await;
        session::close(session).await;
        identity
    };
    match entered.await {
        Ok(()) => Seen::Read(()),
        Err(Obstacle::Error(error)) => Seen::Hidden(chain(&error)),
        Err(Obstacle::ActsAs(role)) => Seen::Hidden(format!("its sessions act as {role}")),
        Err(Obstacle::Replaced(reason)) => Seen::Hidden(reason),
    }
}

fn no_secret(error: &VaultError) -> ServerAccess {
    match error.is_transient() {
        true => ServerAccess::Unreachable(chain(error)),
        false => ServerAccess::NoSecret(chain(error)),
    }
}

fn is_refused(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Connect { source, .. } if sqlstate::is_refused_login(source))
}

/// Those of these databases and roles that still exist. If the server does not answer, all of them are returned.
pub(in crate::doctor) async fn find_existing(
    observed: &ObservedServer, databases: Vec<String>, roles: Vec<String>,
) -> (Vec<String>, Vec<String>) {
    let (Some(observer), false) = (&observed.observer, databases.is_empty() && roles.is_empty()) else {
        return (databases, roles);
    };
    let names = &observed.view.server.names;
    let read = async {
        let mut session = observer.open_server().await?;
        let found = read_databases(&mut session, &names.admin, None).await?;
        let roles = read_roles(&mut session, names, None).await?;
        session::close(session).await;
        let databases: HashSet<_> = found.into_iter().map(|database| database.name).collect();
        let roles: HashSet<_> = roles.into_iter().map(|role| role.name).collect();
        Ok::<_, ClusterError>((databases, roles))
    };
    match tokio::time::timeout(LIMIT, read).await {
        Ok(Ok((found, found_roles))) => (
            databases.into_iter().filter(|name| found.contains(name)).collect(),
            roles.into_iter().filter(|name| found_roles.contains(name)).collect(),
        ),
        _ => (databases, roles),
    }
}
