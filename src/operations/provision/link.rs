//! The setup link: its bytes are sealed with the intent, so that whoever joins or takes over has the same one.
use super::context::ProvisionContext;
use crate::cluster::OperationContext;
use crate::error::{StepError, VaultError};
use crate::operation::OperationId;
use crate::saga::{Execution, SagaStep};
use crate::secret::CredentialId;
use crate::store::tokens::{IssuedToken, LinkId, NewToken, SetupLink, Token, TokenPurpose};
use crate::tenant::TenantId;
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// Seals the bytes of the link that will be issued.
pub(super) async fn seal(stores: &OperationContext, run: &Execution, tenant: TenantId) -> Result<(), StepError> {
    let token = Token::random(TokenPurpose::credentials());
    let id = CredentialId::setup_link(tenant, run.operation());
    stores.vault.put(&id, token.expose(), run.fencing_token()).await?;
    Ok(())
}

/// The stored name of the step whose answer names the link, if there is one.
pub(super) const ISSUE: &str = "link.issue";

/// The operation's own id is the link's: issuing it twice issues one.
fn link_id(operation: OperationId) -> LinkId {
    LinkId::from_uuid(operation.as_uuid())
}

fn opened(secret: &SecretString) -> Result<Token, StepError> {
    Token::parse(secret.expose_secret()).map_err(StepError::fail)
}

/// The link of this operation that nobody has confirmed yet.
pub(crate) async fn undelivered(
    stores: &OperationContext, tenant: TenantId, operation: OperationId,
) -> Result<Option<SetupLink>, crate::error::StoreError> {
    let good = stores.tokens.of_tenant(tenant).await?;
    let Some(issued) = good.into_iter().find(|t| t.id == link_id(operation) && !t.delivered) else { return Ok(None) };
    link(stores, issued).await
}

/// An issued token with its bytes, as long as they are sealed.
pub(crate) async fn link(
    stores: &OperationContext, issued: IssuedToken,
) -> Result<Option<SetupLink>, crate::error::StoreError> {
    let operation = OperationId::from_uuid(issued.id.as_uuid());
    let secret = match stores.vault.open(&CredentialId::setup_link(issued.tenant, operation)).await {
        Ok(secret) => secret,
        Err(VaultError::Missing(_)) => return Ok(None),
        Err(VaultError::Store(error)) => return Err(error),
        Err(error) => return Err(crate::error::StoreError::unavailable(error)),
    };
    let token = Token::parse(secret.expose_secret()).map_err(crate::error::StoreError::corrupt)?;
    Ok(Some(SetupLink::new(issued.id, issued.email, issued.expires_at, token)))
}

/// Seals a further token under the operation that issues it, and issues it: whoever comes later issues the same one.
pub(crate) async fn issue(
    stores: &OperationContext, run: &Execution, to: (TenantId, &str), purpose: TokenPurpose,
    lifetime: std::time::Duration,
) -> Result<IssuedToken, StepError> {
    let id = CredentialId::setup_link(to.0, run.operation());
    let kept = stores.vault.put(&id, Token::random(purpose).expose(), run.fencing_token()).await?;
    let new = NewToken::new(link_id(run.operation()), to.0, to.1, &opened(&kept)?, lifetime);
    Ok(stores.tokens.issue(&new, Some(run.fencing_token())).await?)
}

/// From here on the token is good. Its lifetime begins now.
pub(super) struct Issue;
#[async_trait]
impl SagaStep<ProvisionContext> for Issue {
    fn name(&self) -> &'static str {
        ISSUE
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    fn landlord_only(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let Some(email) = &context.request.admin else { return Ok(Value::Null) };
        let id = CredentialId::setup_link(context.tenant, run.operation());
        let token = opened(&context.stores.vault.open(&id).await?)?;
        let (link, lifetime) = (link_id(run.operation()), context.config.link_lifetime);
        let new = NewToken::new(link, context.tenant, email.as_str(), &token, lifetime);
        let issued = context.stores.tokens.issue(&new, Some(run.fencing_token())).await?;
        Ok(json!({ "link": issued.id }))
    }
}

/// Hands the link to its only receiver, if the host named one. `Ok` confirms it, and the bytes are forgotten; a crash in
/// between delivers the same link again.
pub(super) struct Deliver {
    /// Whether there is somebody to hand it to: what happens elsewhere has an intent of its own.
    pub(super) outside: bool,
}
#[async_trait]
impl SagaStep<ProvisionContext> for Deliver {
    fn name(&self) -> &'static str {
        "link.deliver"
    }
    fn shares_intent_with_previous(&self) -> bool {
        !self.outside
    }
    fn landlord_only(&self) -> bool {
        !self.outside
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let Some(delivery) = context.config.delivery.clone() else { return Ok(Value::Null) };
        let Some(link) = undelivered(&context.stores, context.tenant, run.operation()).await? else {
            return Ok(Value::Null);
        };
        let gone = || StepError::fail("the tenant is gone");
        let tenant = context.stores.registry.find(context.tenant.into()).await?.ok_or_else(gone)?;
        delivery.deliver(&tenant, &link).await?;
        context.stores.tokens.delivered(link.id).await?;
        context
            .stores
            .vault
            .forget(&CredentialId::setup_link(context.tenant, run.operation()), run.fencing_token())
            .await?;
        Ok(json!({ "delivered": true }))
    }
}
