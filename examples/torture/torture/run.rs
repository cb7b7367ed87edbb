//! One run: a child, a fault, recovery, judgement, and everything purged.
use super::Anything;
use super::auditor::{self, Mark, Stands};
use super::child::{Task, chain};
use super::director::{Hit, Target, Via};
use super::fault::{Fault, Place};
use super::lane::{Lane, set_up};
use super::links;
use super::neighbour::{self, Hostile};
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

/// What a child says last.
type Talk = JoinHandle<Result<Option<String>, Anything>>;

/// Longer than any child needs, whatever is done to it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) saga: Saga,
    pub(crate) far: bool,
    /// Whether a hostile neighbour disturbs it.
    pub(crate) hostile: bool,
    pub(crate) target: Option<Target>,
    /// A second child recovers what the first has left, and meets this.
    pub(crate) then: Option<Target>,
}

/// What came of it.
pub(crate) struct Ran {
    /// What the child had sent until its fault, or to its end.
    pub(crate) seen: Vec<(Place, bool)>,
    pub(crate) hit: bool,
    pub(crate) second_hit: bool,
    pub(crate) findings: Vec<String>,
}

/// How to start a process that runs a task from its environment.
pub(crate) type Spawn<'a> = &'a (dyn Fn() -> Result<Command, Anything> + Sync);

pub(crate) async fn run(lane: &Lane, spawn: Spawn<'_>, order: &Order, slug: &str) -> Result<Ran, Anything> {
    let (saga, server) = (order.saga, if order.far { "far" } else { "near" });
    let before = if saga.base() == Saga::Migrate { &lane.old } else { &lane.rescuer };
    saga.base().prepare(before, slug, server).await.map_err(|e| format!("preparing {slug}: {e}"))?;
    let token = match saga.is_link() {
        true => Some(links::token(&lane.rescuer, slug).await?),
        false => None,
    };
    let runner = Runner { lane, spawn, slug, server, token };
    let hostile = match order.hostile {
        true => Some(Hostile::start(lane, server).await?),
        false => None,
    };
    if let Some((first, step)) = saga.prelude() {
        runner.child(first, Some(Target::In(step, Fault::KillAfter))).await?;
        // So that the next child need not wait for the lease, and sends the same statements each time.
        tokio::time::sleep(super::lane::LEASE).await;
    }
    let (seen, hit, mut findings) = runner.child(saga, order.target.clone()).await?;
    let mut second_hit = false;
    if hit && let Some(target) = order.then.clone() {
        let recovery = if saga.is_broken() { Saga::UndoRecovery } else { Saga::ProvisionRecovery };
        let (_, again, more) = runner.child(recovery, Some(target)).await?;
        second_hit = again;
        findings.extend(more);
    }
    if let Err(error) = runner.bring_to_end(saga).await {
        findings.push(error.to_string());
    }
    if saga == Saga::ServerSetup {
        runner.try_server(&mut findings).await?;
    } else {
        findings.extend(runner.judge(saga).await?);
        runner.purge(saga, &mut findings).await?;
    }
    if let Some(hostile) = hostile {
        drop(hostile);
        neighbour::clear(lane, server).await?;
    }
    Ok(Ran { seen, hit, second_hit, findings })
}

struct Runner<'a> {
    lane: &'a Lane,
    spawn: Spawn<'a>,
    slug: &'a str,
    server: &'a str,
    /// Of the link that is followed.
    token: Option<SecretString>,
}

type Seen = (Vec<(Place, bool)>, bool, Vec<String>);

impl Runner<'_> {
    /// Runs a child to its end, whatever that is.
    async fn child(&self, saga: Saga, target: Option<Target>) -> Result<Seen, Anything> {
        let fault = match &target {
            Some(Target::At(_, fault) | Target::In(_, fault) | Target::Nth(_, fault)) => Some(*fault),
            None => None,
        };
        let aimed = target.is_some();
        let mut hits = self.lane.stand.begin(target);
        let (mut child, talk) = self.start(saga)?;
        let mut findings = vec![];
        let mut hit = false;
        tokio::select! {
            Some(point) = hits.recv() => {
                hit = true;
                if let Some(fault) = fault {
                    findings.extend(self.strike(&saga, fault, point, &mut child).await?);
                }
            }
            ended = talk_to_end(&mut child) => ended?,
        }
        if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
            findings.push("the child hangs".into());
            child.kill().await?;
        }
        let said = talk.await??;
        if !aimed {
            let silent = self.lane.stand.without_point();
            findings.extend(silent.into_iter().map(|step| format!("the step {step} has no point")));
        }
        if !aimed && !matches!(said.as_deref(), Some("done")) && !saga.is_broken() {
            findings.push(format!("undisturbed, it said {said:?}"));
        }
        Ok((self.lane.stand.seen(), hit, findings))
    }

    fn start(&self, saga: Saga) -> Result<(Child, Talk), Anything> {
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
        task.hand_to(&mut command)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (out, mut answer) = (child.stdout.take().ok_or("no output")?, child.stdin.take().ok_or("no input")?);
        let stand = self.lane.stand.clone();
        let talk = tokio::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            let mut last = None;
            while let Some(line) = lines.next_line().await? {
                // A test runner says things of its own, on the same line too.
                let Some((_, line)) = line.split_once("<torture> ") else { continue };
                match line.strip_prefix("step ") {
                    Some(step) => {
                        stand.step(step);
                        // One that was killed reads no more.
                        let _ = answer.write_all(b"\n").await;
                    }
                    None => last = Some(line.to_owned()),
                }
            }
            Ok(last)
        });
        Ok((child, talk))
    }

    /// Does it, while the statement is held.
    async fn strike(&self, saga: &Saga, fault: Fault, hit: Hit, child: &mut Child) -> Result<Vec<String>, Anything> {
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
                self.bring_to_end(*saga).await?;
                let mark = Mark::now(self.lane).await?;
                // The late message goes its way, wherever that still leads.
                let _ = hit.then.send(Verdict::Forward);
                signal(child, "CONT")?;
                if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                    findings.push("the child hangs after it woke".into());
                }
                if taken_over {
                    findings.extend(mark.stale_writes(self.lane).await?);
                }
                return Ok(findings);
            }
        };
        let _ = hit.then.send(verdict);
        Ok(findings)
    }

    /// What a host does when its process has died: recovery, or the same call again.
    async fn bring_to_end(&self, saga: Saga) -> Result<(), Anything> {
        if saga != Saga::ServerSetup {
            return settle(&self.lane.rescuer, PATIENCE).await;
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match set_up(&self.lane.rescuer, self.slug, self.lane.dba()).await {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > until => return Err(error),
                // The lease of the one that died.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// A tenant lives on the server that was set up; then both go.
    async fn try_server(&self, findings: &mut Vec<String>) -> Result<(), Anything> {
        let lived = async {
            let rescuer = &self.lane.rescuer;
            rescuer.provision(self.slug).server(self.slug).await?;
            sqlx::query("INSERT INTO notes (text) VALUES ('mine')").execute(&rescuer.resolve(self.slug).await?).await?;
            self.purge_tenant().await?;
            rescuer.servers().remove(self.slug).await?;
            Ok::<_, Anything>(())
        };
        findings.extend(lived.await.err().map(|e| format!("the server does not work: {}", chain(&*e))));
        auditor::clear_server(self.lane, self.slug).await?;
        findings.extend(auditor::audit(self.lane).await?);
        Ok(())
    }

    async fn judge(&self, saga: Saga) -> Result<Vec<String>, Anything> {
        let mut findings = auditor::audit(self.lane).await?;
        let begun = auditor::begun(self.lane, saga, self.slug).await?;
        let stands = auditor::stands(self.lane, self.slug).await?;
        findings.extend(auditor::ends(saga, &stands, begun));
        if saga.is_provision() {
            // Whatever became of it, the same key ends in a tenant.
            if let Err(error) = provision(&self.lane.rescuer, self.slug, self.server).await {
                findings.push(format!("a retry with the same key failed: {}", chain(&error)));
            }
            findings.extend(auditor::audit(self.lane).await?);
        }
        let status = match auditor::stands(self.lane, self.slug).await? {
            Stands::Tenant { status } => status,
            Stands::Nothing => String::new(),
        };
        if saga.base() == Saga::Migrate {
            let migrated = self.lane.rescuer.migrate(self.slug).await;
            findings.extend(migrated.err().map(|e| format!("a further migration failed: {e}")));
        }
        if saga.base() == Saga::RotateServer {
            match auditor::provisioners(self.lane, self.server).await {
                Ok(wrong) => findings.extend(wrong),
                Err(error) => findings.push(format!("the provisioner's logins: {error}")),
            }
        }
        if saga.base() == Saga::Rekey {
            findings.extend(auditor::one_key(self.lane).await?);
        }
        if let Some(token) = &self.token {
            match links::judge(self.lane, saga, self.slug, token).await {
                Ok(wrong) => findings.extend(wrong),
                Err(error) => findings.push(format!("the link: {error}")),
            }
        }
        if status == "active" {
            match auditor::works(self.lane, self.slug, self.server).await {
                Ok(wrong) => findings.extend(wrong),
                Err(error) => findings.push(format!("the tenant does not work: {error}")),
            }
        }
        Ok(findings)
    }

    /// A purge that has begun goes on by itself: what kept it for a moment is recovery's, as in a host.
    async fn purge_tenant(&self) -> Result<(), Anything> {
        match self.lane.rescuer.purge(self.slug).force().await {
            Err(ChangeError::Failed(failure)) if failure.state == FailureState::Continuing => {
                println!("a purge was left to recovery: {}", chain(&failure));
                settle(&self.lane.rescuer, PATIENCE).await
            }
            purged => Ok(purged.map(drop)?),
        }
    }

    /// Nothing of this run is left, and its history stays.
    async fn purge(&self, saga: Saga, findings: &mut Vec<String>) -> Result<(), Anything> {
        if let Stands::Tenant { .. } = auditor::stands(self.lane, self.slug).await?
            && let Err(error) = self.purge_tenant().await
        {
            findings.push(format!("the purge failed: {}", chain(&*error)));
        }
        let left = auditor::audit(self.lane).await?;
        findings.extend(left.into_iter().map(|l| format!("after the purge: {l}")));
        if saga.is_provision() && !auditor::begun(self.lane, saga, self.slug).await? {
            findings.push("the history is gone".into());
        }
        Ok(())
    }
}

/// Only an end makes it come back: the fault may come first.
async fn talk_to_end(child: &mut Child) -> Result<(), Anything> {
    match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(ended) => ended.map(drop).map_err(Into::into),
        Err(_) => Ok(()),
    }
}

fn signal(child: &Child, name: &str) -> Result<(), Anything> {
    let pid = child.id().ok_or("the child has ended")?;
    let status = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    if status.success() { Ok(()) } else { Err(format!("no SIG{name} for {pid}").into()) }
}
