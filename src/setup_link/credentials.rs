//! The credentials link: a rotation of the tenant's login, and then a password link for whoever has come.
use super::{Request, link};
use crate::cluster::Workshop;
use crate::error::StepError;
use crate::operations::rotate::{AppLogin, Rotate, World};
use crate::saga::{Action, Run, Saga};
use crate::store::tokens::TokenPurpose;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::time::Duration;

/// The stored name of the saga.
const KIND: &str = "setup_credentials";

/// The plain list of its steps.
pub(super) struct CredentialsSaga {
    shop: Workshop,
    login: AppLogin,
    steps: Vec<Box<dyn Action<World>>>,
}

impl CredentialsSaga {
    pub(super) fn new(shop: Workshop, login: AppLogin, lifetime: Duration) -> Self {
        let steps: Vec<Box<dyn Action<World>>> = vec![
            Box::new(Link::Claim),
            Box::new(Rotate::Seal),
            Box::new(Rotate::Create),
            Box::new(Rotate::Probe),
            Box::new(Rotate::Flip),
            Box::new(Link::Follow(lifetime)),
            Box::new(Link::Use),
            Box::new(Rotate::Retire),
        ];
        Self { shop, login, steps }
    }
}

impl Saga for CredentialsSaga {
    type World = World;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn Action<World>>] {
        &self.steps
    }
    /// The flip, as in a rotation.
    fn no_return(&self) -> usize {
        4
    }
    fn world(&self, run: &Run) -> Result<World, StepError> {
        World::new(self.shop.clone(), self.login, run)
    }
}

enum Link {
    Claim,
    /// The link to the password form, sealed: whoever joins gets the same one. Good for so long.
    Follow(Duration),
    Use,
}

#[async_trait]
impl Action<World> for Link {
    fn name(&self) -> &'static str {
        match self {
            Self::Claim => link::CLAIM,
            Self::Follow(_) => "link.follow",
            Self::Use => link::USE,
        }
    }
    /// Using it up must be known before anybody waits for the old login to go.
    fn joins_previous(&self) -> bool {
        !matches!(self, Self::Claim)
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        match self {
            Self::Claim => link::claim(run, &world.shop).await,
            Self::Follow(lifetime) => {
                let Request { tenant, email, .. } = run.request()?;
                let to = (tenant, email.as_str());
                let issued =
                    crate::operations::provision::issue(&world.shop, run, to, TokenPurpose::password(), *lifetime)
                        .await?;
                Ok(json!({ "link": issued.id }))
            }
            Self::Use => link::use_up(run, &world.shop).await,
        }
    }
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        match self {
            Self::Claim => link::unclaim(run, &world.shop).await,
            _ => Ok(()),
        }
    }
}
