//! Applying a plan: begins the operation of each repair, and collects what became of them.
use super::finding::Finding;
use super::plan::{FORMAT, Plan};
use super::repair::act_by_other_operation;
use super::report::{RepairOutcome, Report};
use super::{Doctor, Repair};
use crate::error::DoctorError;
use crate::names::{MAX_REASON, check_text};
use crate::operation::Subject;
use futures_util::{StreamExt, stream};
use std::collections::HashMap;

/// Subjects that are repaired at the same time.
const CONCURRENCY: usize = 4;
/// Longest reason of a caller. The code of the finding is put before it.
const LONGEST_REASON: usize = MAX_REASON - 100;

impl Doctor {
    /// Does the repairs of the plan whose subjects have not changed since it was made, each as an operation in the
    /// journal. The repairs of one subject run one after the other: first those that end another operation, last those
    /// that make a new login or run migrations, because these need what the others restore.
    ///
    /// Each subject is examined again, and the fresh finding decides: the plan only selects. So remove the findings
    /// from the plan whose repair is not wanted. `reason` names the person and the cause. The operations store it
    /// with the finding, and an operation that was open before stores it as an event; so it must not contain a secret.
    ///
    /// # Errors
    /// [`DoctorError::OtherInstallation`] or [`DoctorError::Format`] if the plan was not made here by this version,
    /// [`DoctorError::Reason`] if the reason is empty or longer than 3996 bytes, and [`DoctorError::Closed`] after
    /// [`Tenantry::close`](crate::Tenantry::close). Then nothing was changed. A repair that fails is an outcome.
    ///
    /// # Cancel safety
    /// Dropping the future stops before the next repair. Recovery continues one that has begun.
    pub async fn apply(&self, plan: &Plan, reason: &str) -> Result<Report, DoctorError> {
        check_reason(reason)?;
        self.check_plan(plan).await?;
        let repairs: Vec<&Finding> = plan.repairs().collect();
        let groups = group_by_subject(&repairs);
        let applied = stream::iter(groups).map(|group| self.apply_to_subject(plan, &repairs, group, reason));
        let applied: Vec<Vec<(usize, RepairOutcome)>> = applied.buffer_unordered(CONCURRENCY).collect().await;
        let mut applied: Vec<(usize, RepairOutcome)> = applied.into_iter().flatten().collect();
        applied.sort_by_key(|(at, _)| *at);
        let outcomes = applied.into_iter().map(|(at, outcome)| (repairs[at].clone(), outcome)).collect();
        Ok(Report { outcomes })
    }

    async fn check_plan(&self, plan: &Plan) -> Result<(), DoctorError> {
        if plan.format != FORMAT {
            return Err(DoctorError::Format { found: plan.format });
        }
        if self.drivers.engine.is_closed() {
            return Err(DoctorError::Closed);
        }
        match self.drivers.stores.servers.installation().await? == plan.installation {
            true => Ok(()),
            false => Err(DoctorError::OtherInstallation),
        }
    }

    /// Does the repairs with these positions, which have the same subject.
    async fn apply_to_subject(
        &self, plan: &Plan, repairs: &[&Finding], group: Vec<usize>, reason: &str,
    ) -> Vec<(usize, RepairOutcome)> {
        let mut outcomes = vec![];
        for at in group {
            outcomes.push((at, self.apply_one(plan, repairs[at], reason).await));
        }
        outcomes
    }

    async fn apply_one(&self, plan: &Plan, finding: &Finding, reason: &str) -> RepairOutcome {
        let reason = format!("doctor {}: {reason}", finding.code);
        match finding.repair.as_ref().is_some_and(Repair::is_delegated) {
            true => act_by_other_operation(&self.examiner, &self.drivers, &self.admins, finding, plan, &reason).await,
            false => {
                let outcome = self.drivers.repairs.act(finding, plan, &reason).await;
                if let Some(tenant) = finding.subject.tenant() {
                    (self.drivers.changed)(tenant);
                }
                outcome
            }
        }
    }
}

fn check_reason(reason: &str) -> Result<(), DoctorError> {
    let is_stated = || check_text(reason.trim(), 1, LONGEST_REASON);
    check_text(reason, 0, LONGEST_REASON).and_then(|()| is_stated()).map_err(DoctorError::Reason)
}

/// Positions of the findings of each subject, in the order in which their repairs run.
fn group_by_subject(repairs: &[&Finding]) -> Vec<Vec<usize>> {
    let (mut groups, mut of): (Vec<Vec<usize>>, HashMap<&Subject, usize>) = Default::default();
    for (at, finding) in repairs.iter().enumerate() {
        let group = *of.entry(&finding.subject).or_insert_with(|| {
            groups.push(vec![]);
            groups.len() - 1
        });
        groups[group].push(at);
    }
    groups.iter_mut().for_each(|group| group.sort_by_key(|at| repairs[*at].repair.as_ref().map(Repair::order)));
    groups
}
