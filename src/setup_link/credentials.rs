//! The credentials link: a rotation of the tenant's login, and then a password link for whoever has come.
use super::{Request, link};
use crate::cluster::OperationContext;
use crate::error::StepError;
use crate::operations::rotate::{AppLogin, Rotate, RotateContext};
use crate::saga::{Execution, Saga, SagaStep};
use crate::store::tokens::TokenPurpose;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::time::Duration;

/// The stored name of the saga.
const KIND: &str = "setup_credentials";

/// The plain list of its steps.
pub(super) struct CredentialsSaga {
    stores: OperationContext,
    login: AppLogin,
    steps: Vec<Box<dyn SagaStep<RotateContext>>>,
}

impl CredentialsSaga {
    pub(super) fn new(stores: OperationContext, login: AppLogin, lifetime: Duration) -> Self {
        let steps: Vec<Box<dyn SagaStep<RotateContext>>> = vec![
            Box::new(Link::Claim),
            Box::new(Rotate::Seal),
            Box::new(Rotate::Create),
            Box::new(Rotate::Probe),
            Box::new(Rotate::Flip),
            Box::new(Link::Follow(lifetime)),
            Box::new(Link::Use),
            Box::new(Rotate::Retire),
        ];
        Self { stores, login, steps }
    }
}

impl Saga for CredentialsSaga {
    type Context = RotateContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<RotateContext>>] {
        &self.steps
    }
    /// The flip, as in a rotation.
    fn pivot_index(&self) -> usize {
        4
    }
    fn context(&self, run: &Execution) -> Result<RotateContext, StepError> {
        RotateContext::new(self.stores.clone(), self.login, run)
    }
}

enum Link {
    Claim,
    /// The link to the password form, sealed: whoever joins gets the same one. Good for so long.
    Follow(Duration),
    Use,
}

#[async_trait]
impl SagaStep<RotateContext> for Link {
    fn name(&self) -> &'static str {
        match self {
            Self::Claim => link::CLAIM,
            Self::Follow(_) => "link.follow",
            Self::Use => link::USE,
        }
    }
    /// Using it up must be known before anybody waits for the old login to go.
    fn shares_intent_with_previous(&self) -> bool {
        !matches!(self, Self::Claim)
    }
    async fn run(&self, run: &Execution, context: &mut RotateContext) -> Result<Value, StepError> {
        match self {
            Self::Claim => link::claim(run, &context.stores).await,
            Self::Follow(lifetime) => {
                let Request { tenant, email, .. } = run.request()?;
                let to = (tenant, email.as_str());
                let issued =
                    crate::operations::provision::issue(&context.stores, run, to, TokenPurpose::password(), *lifetime)
                        .await?;
                Ok(json!({ "link": issued.id }))
            }
            Self::Use => link::use_up(run, &context.stores).await,
        }
    }
    async fn undo(&self, run: &Execution, context: &mut RotateContext) -> Result<(), StepError> {
        match self {
            Self::Claim => link::unclaim(run, &context.stores).await,
            _ => Ok(()),
        }
    }
}
