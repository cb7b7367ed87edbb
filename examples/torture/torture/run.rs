//! One run: a child process, a fault, recovery, the audit, and the purge of the tenant.
//!
//! [`run`] leaves the lane without the tenant of the run, so that the next run begins in the same state.
use super::AnyError;
use super::auditor::{self, TenantState, WriteMark};
use super::child::{Task, format_chain};
use super::director::{Hit, Target, Via};
use super::fault::{Fault, StatementPoint};
use super::lane::{Lane, set_up};
use super::links;
use super::neighbour::{self, HostileNeighbour};
use super::saga::{Saga, provision, settle};
use secrecy::SecretString;
use std::process::Stdio;
use std::time::Duration;
use tenantry::error::{ChangeError, FailureState};
use tenantry::sqlx;
use tenantry::testing::proxy::Verdict;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// The task that reads a child's output. Returns the last line that is not the report of a step.
type OutputReader = JoinHandle<Result<Option<String>, AnyError>>;

/// Maximum time of a child and of recovery. Longer than any of them needs after any fault.
const CHILD_TIMEOUT: Duration = Duration::from_secs(60);

/// The parameters of a run.
#[derive(Clone, Debug)]
pub(crate) struct RunSpec {
    pub(crate) saga: Saga,
    /// Whether the tenant is on the far server.
    pub(crate) far: bool,
    /// Whether a hostile neighbour works on the same server during the run.
    pub(crate) hostile: bool,
    pub(crate) target: Option<Target>,
    /// If set, a second child recovers what the first one left, and this fault is injected into it.
    pub(crate) second_target: Option<Target>,
}

/// The result of a run.
pub(crate) struct RunResult {
    /// The child's statements up to the fault, or up to its end. `true` marks the opening of a session.
    pub(crate) seen: Vec<(StatementPoint, bool)>,
    /// Whether the child reached its target.
    pub(crate) hit: bool,
    pub(crate) second_hit: bool,
    pub(crate) findings: Vec<String>,
}

/// Makes the command for a child, which reads its task from its environment.
pub(crate) type Spawn<'a> = &'a (dyn Fn() -> Result<Command, AnyError> + Sync);

/// Performs one run. An error means that the driver itself failed; violations are in the result.
pub(crate) async fn run(lane: &Lane, spawn: Spawn<'_>, spec: &RunSpec, slug: &str) -> Result<RunResult, AnyError> {
    let (saga, server) = (spec.saga, if spec.far { "far" } else { "near" });
    let before = if saga.base() == Saga::Migrate { &lane.old } else { &lane.rescuer };
    saga.base().prepare(before, slug, server).await.map_err(|e| format!("preparing {slug}: {e}"))?;
    let token = match saga.is_link() {
        true => Some(links::token(&lane.rescuer, slug).await?),
        false => None,
    };
    let runner = Runner { lane, spawn, slug, server, token };
    let hostile = match spec.hostile {
        true => Some(HostileNeighbour::start(lane, server).await?),
        false => None,
    };
    if let Some((first, step)) = saga.prelude() {
        runner.run_child(first, Some(Target::In(step, Fault::KillAfter))).await?;
        // After the lease the next child can recover at once, so it sends the same statements in every run.
        tokio::time::sleep(super::lane::LEASE).await;
    }
    let (seen, hit, mut findings) = runner.run_child(saga, spec.target.clone()).await?;
    let mut second_hit = false;
    if hit && let Some(target) = spec.second_target.clone() {
        let recovery = if saga.is_broken() { Saga::UndoRecovery } else { Saga::ProvisionRecovery };
        let (_, was_hit, more) = runner.run_child(recovery, Some(target)).await?;
        second_hit = was_hit;
        findings.extend(more);
    }
    if let Err(error) = runner.finish(saga).await {
        findings.push(error.to_string());
    }
    if saga == Saga::ServerSetup {
        runner.check_server(&mut findings).await?;
    } else {
        findings.extend(runner.audit(saga).await?);
        runner.purge(saga, &mut findings).await?;
    }
    if let Some(hostile) = hostile {
        drop(hostile);
        neighbour::clean_up(lane, server).await?;
    }
    Ok(RunResult { seen, hit, second_hit, findings })
}

struct Runner<'a> {
    lane: &'a Lane,
    spawn: Spawn<'a>,
    slug: &'a str,
    server: &'a str,
    /// Token of the setup link, if the saga follows one.
    token: Option<SecretString>,
}

type ChildResult = (Vec<(StatementPoint, bool)>, bool, Vec<String>);

impl Runner<'_> {
    /// Runs a child until it ends or is killed, and injects the fault at the target. Without a target the child must
    /// succeed, and each of its steps must send a statement.
    async fn run_child(&self, saga: Saga, target: Option<Target>) -> Result<ChildResult, AnyError> {
        let fault = match &target {
            Some(Target::At(_, fault) | Target::In(_, fault) | Target::Nth(_, fault)) => Some(*fault),
            None => None,
        };
        let has_target = target.is_some();
        let mut hits = self.lane.tracker.begin(target);
        let (mut child, output) = self.spawn_child(saga)?;
        let mut findings = vec![];
        let mut hit = false;
        tokio::select! {
            Some(point) = hits.recv() => {
                hit = true;
                if let Some(fault) = fault {
                    findings.extend(self.inject_fault(&saga, fault, point, &mut child).await?);
                }
            }
            ended = wait_for_end(&mut child) => ended?,
        }
        if tokio::time::timeout(CHILD_TIMEOUT, child.wait()).await.is_err() {
            findings.push(format!("the child did not end within {CHILD_TIMEOUT:?}"));
            child.kill().await?;
        }
        let last_line = output.await??;
        if !has_target {
            let empty_steps = self.lane.tracker.steps_without_statement();
            findings.extend(
                empty_steps
                    .into_iter()
                    .map(|step| format!("step {step} sent no statement, so no fault can be injected into it")),
            );
        }
        if !has_target && !matches!(last_line.as_deref(), Some("done")) && !saga.is_broken() {
            findings.push(format!("without a fault, the child failed: {last_line:?}"));
        }
        Ok((self.lane.tracker.seen(), hit, findings))
    }

    fn spawn_child(&self, saga: Saga) -> Result<(Child, OutputReader), AnyError> {
        let task = Task {
            saga,
            slug: self.slug.into(),
            server: self.server.into(),
            port: self.lane.landlord_port,
            user: "torture_landlord".into(),
            password: self.lane.password.clone(),
            database: "torture_landlord".into(),
            keys: if saga.base() == Saga::Rekey { self.lane.other_keys() } else { self.lane.keys.clone() },
            near: self.lane.near_port(),
        };
        let mut command = (self.spawn)()?;
        task.pass_to(&mut command)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (out, mut answer) = (
            child.stdout.take().ok_or("the child has no stdout")?,
            child.stdin.take().ok_or("the child has no stdin")?,
        );
        let tracker = self.lane.tracker.clone();
        let output = tokio::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            let mut last = None;
            while let Some(line) = lines.next_line().await? {
                // The test runner also prints to stdout, sometimes on the same line.
                let Some((_, line)) = line.split_once("<torture> ") else { continue };
                match line.strip_prefix("step ") {
                    Some(step) => {
                        tracker.begin_step(step);
                        // This fails if the child was killed, which is no error.
                        let _ = answer.write_all(b"\n").await;
                    }
                    None => last = Some(line.to_owned()),
                }
            }
            Ok(last)
        });
        Ok((child, output))
    }

    /// Injects the fault while the proxy holds the statement back, and then releases the statement.
    async fn inject_fault(
        &self, saga: &Saga, fault: Fault, hit: Hit, child: &mut Child,
    ) -> Result<Vec<String>, AnyError> {
        let mut findings = vec![];
        let verdict = match fault {
            Fault::KillBefore | Fault::KillAfter | Fault::KillAnswered => {
                child.kill().await?;
                Verdict::Cut
            }
            Fault::CutBefore | Fault::CutAfter => Verdict::Cut,
            Fault::Refuse(code) | Fault::Deny(code) => Verdict::Answer(code),
            Fault::Crash => {
                let server = if hit.via == Via::Far { &self.lane.far } else { &self.lane.near };
                server.crash().await?;
                Verdict::Cut
            }
            Fault::Stop => {
                signal(child, "STOP")?;
                tokio::time::sleep(super::lane::LEASE).await;
                let taken_over = !self.lane.rescuer.operations().open().await?.is_empty();
                self.finish(*saga).await?;
                let mark = WriteMark::now(self.lane).await?;
                // Send the late statement. The server must refuse it or its session must be gone.
                let _ = hit.verdict.send(Verdict::Forward);
                signal(child, "CONT")?;
                if tokio::time::timeout(CHILD_TIMEOUT, child.wait()).await.is_err() {
                    findings.push(format!("the child did not end within {CHILD_TIMEOUT:?} after SIGCONT"));
                }
                if taken_over {
                    findings.extend(mark.find_stale_writes(self.lane).await?);
                }
                return Ok(findings);
            }
        };
        let _ = hit.verdict.send(verdict);
        Ok(findings)
    }

    /// Does what an application does after its process died: runs recovery, or for a set-up repeats the call.
    async fn finish(&self, saga: Saga) -> Result<(), AnyError> {
        if saga != Saga::ServerSetup {
            return settle(&self.lane.rescuer, CHILD_TIMEOUT).await;
        }
        let until = tokio::time::Instant::now() + CHILD_TIMEOUT;
        loop {
            match set_up(&self.lane.rescuer, self.slug, self.lane.dba_options()).await {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > until => return Err(error),
                // The lease of the dead child has not expired yet.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Checks that a tenant can be provisioned and used on the server that was set up. Then removes both.
    async fn check_server(&self, findings: &mut Vec<String>) -> Result<(), AnyError> {
        let outcome = async {
            let rescuer = &self.lane.rescuer;
            rescuer.provision(self.slug).server(self.slug).await?;
            sqlx::query("INSERT INTO notes (text) VALUES ('mine')").execute(&rescuer.resolve(self.slug).await?).await?;
            self.purge_tenant().await?;
            rescuer.servers().remove(self.slug).await?;
            Ok::<_, AnyError>(())
        };
        findings.extend(
            outcome.await.err().map(|e| format!("a tenant cannot be used on the new server: {}", format_chain(&*e))),
        );
        auditor::drop_server_objects(self.lane, self.slug).await?;
        findings.extend(auditor::audit(self.lane).await?);
        Ok(())
    }

    /// Audits the result. Also repeats a provisioning with the same key, which must end with a tenant.
    async fn audit(&self, saga: Saga) -> Result<Vec<String>, AnyError> {
        let mut findings = auditor::audit(self.lane).await?;
        let has_begun = auditor::has_begun(self.lane, saga, self.slug).await?;
        let state = auditor::tenant_state(self.lane, self.slug).await?;
        findings.extend(auditor::check_end_state(saga, &state, has_begun));
        if saga.is_provision() {
            // Whether the provisioning was finished or undone, a call with the same key must return a tenant.
            if let Err(error) = provision(&self.lane.rescuer, self.slug, self.server).await {
                findings.push(format!("a provisioning with the same key failed: {}", format_chain(&error)));
            }
            findings.extend(auditor::audit(self.lane).await?);
        }
        let status = match auditor::tenant_state(self.lane, self.slug).await? {
            TenantState::Tenant { status } => status,
            TenantState::Nothing => String::new(),
        };
        if saga.base() == Saga::Migrate {
            let migrated = self.lane.rescuer.migrate(self.slug).await;
            findings.extend(migrated.err().map(|e| format!("a further migration failed: {e}")));
        }
        if saga.base() == Saga::RotateServer {
            match auditor::check_provisioner_logins(self.lane, self.server).await {
                Ok(wrong) => findings.extend(wrong),
                Err(error) => findings.push(format!("the provisioner's logins could not be checked: {error}")),
            }
        }
        if saga.base() == Saga::Rekey {
            findings.extend(auditor::check_single_key(self.lane).await?);
        }
        if let Some(token) = &self.token {
            match links::check_links(self.lane, saga, self.slug, token).await {
                Ok(wrong) => findings.extend(wrong),
                Err(error) => findings.push(format!("the setup link could not be checked: {error}")),
            }
        }
        if status == "active" {
            match auditor::check_tenant(self.lane, self.slug, self.server).await {
                Ok(wrong) => findings.extend(wrong),
                Err(error) => findings.push(format!("the tenant's database could not be used: {error}")),
            }
        }
        Ok(findings)
    }

    /// Purges the tenant. If the purge returns before its end because of an obstacle, recovery completes it, as in an
    /// application.
    async fn purge_tenant(&self) -> Result<(), AnyError> {
        match self.lane.rescuer.purge(self.slug).force().await {
            Err(ChangeError::Failed(failure)) if failure.state == FailureState::Continuing => {
                println!("a purge failed and is completed by recovery: {}", format_chain(&failure));
                settle(&self.lane.rescuer, CHILD_TIMEOUT).await
            }
            purged => Ok(purged.map(drop)?),
        }
    }

    /// Purges the tenant, and checks that nothing of this run is left except the history.
    async fn purge(&self, saga: Saga, findings: &mut Vec<String>) -> Result<(), AnyError> {
        if let TenantState::Tenant { .. } = auditor::tenant_state(self.lane, self.slug).await?
            && let Err(error) = self.purge_tenant().await
        {
            findings.push(format!("the purge failed: {}", format_chain(&*error)));
        }
        let left = auditor::audit(self.lane).await?;
        findings.extend(left.into_iter().map(|l| format!("after the purge: {l}")));
        if saga.is_provision() && !auditor::has_begun(self.lane, saga, self.slug).await? {
            findings.push("the purge deleted the history of the provisioning".into());
        }
        Ok(())
    }
}

/// Waits until the child ends. `Ok` also after [`CHILD_TIMEOUT`], which the caller checks itself.
async fn wait_for_end(child: &mut Child) -> Result<(), AnyError> {
    match tokio::time::timeout(CHILD_TIMEOUT, child.wait()).await {
        Ok(ended) => ended.map(drop).map_err(Into::into),
        Err(_) => Ok(()),
    }
}

fn signal(child: &Child, name: &str) -> Result<(), AnyError> {
    let pid = child.id().ok_or("the child has ended and cannot be signalled")?;
    let status = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    if status.success() { Ok(()) } else { Err(format!("kill -{name} {pid} failed").into()) }
}
