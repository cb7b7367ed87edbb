//! The setup link of a provisioning: generating and issuing it.
//!
//! The bytes of the link are stored in the vault under the operation's id before the link is issued, so that every
//! worker and every caller that joins the operation gets the same link. They are deleted when the delivery is
//! confirmed, which is follow-up work. The credentials link issues its password link through [`issue`] as well.
use crate::cluster::OperationContext;
use crate::error::{StepError, VaultError};
use crate::operation::OperationId;
use crate::operations::provision::context::ProvisionContext;
use crate::saga::{Execution, SagaStep};
use crate::secret::CredentialId;
use crate::store::tokens::{IssuedToken, LinkId, NewToken, SetupLink, Token, TokenPurpose};
use crate::tenant::TenantId;
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// Generates the token of the link and stores it in the vault. A repetition keeps the stored token.
pub(in crate::operations::provision) async fn seal(
    stores: &OperationContext, run: &Execution, tenant: TenantId,
) -> Result<(), StepError> {
    let token = Token::random(TokenPurpose::credentials());
    let id = CredentialId::setup_link(tenant, run.operation());
    stores.vault.put(&id, token.expose(), run.fencing_token()).await?;
    Ok(())
}

/// The stored name of the step whose output holds the link's id, if a link was issued.
pub(in crate::operations::provision) const ISSUE: &str = "link.issue";

/// The link has the id of its operation, so that issuing it twice issues one link.
fn link_id(operation: OperationId) -> LinkId {
    LinkId::from_uuid(operation.as_uuid())
}

fn parse_token(secret: &SecretString) -> Result<Token, StepError> {
    Token::parse(secret.expose_secret()).map_err(StepError::fail)
}

/// The link of this operation, if its delivery is not confirmed yet.
pub(crate) async fn find_undelivered(
    stores: &OperationContext, tenant: TenantId, operation: OperationId,
) -> Result<Option<SetupLink>, crate::error::StoreError> {
    let valid = stores.tokens.of_tenant(tenant).await?;
    let Some(issued) = valid.into_iter().find(|t| t.id == link_id(operation) && !t.delivered) else { return Ok(None) };
    link(stores, issued).await
}

/// The link for an issued token. `None` if its bytes are no longer in the vault.
pub(crate) async fn link(
    stores: &OperationContext, issued: IssuedToken,
) -> Result<Option<SetupLink>, crate::error::StoreError> {
    let operation = OperationId::from_uuid(issued.id.as_uuid());
    let secret = match stores.vault.open(&CredentialId::setup_link(issued.tenant, operation)).await {
        Ok(secret) => secret,
        Err(VaultError::Missing(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let token = Token::parse(secret.expose_secret()).map_err(crate::error::StoreError::corrupt)?;
    Ok(Some(SetupLink::new(issued.id, issued.email, issued.expires_at, token)))
}

/// Generates, stores and issues a token under the operation `run`. A worker that takes over issues the same token.
pub(crate) async fn issue_token(
    stores: &OperationContext, run: &Execution, to: (TenantId, &str), purpose: TokenPurpose,
    lifetime: std::time::Duration,
) -> Result<IssuedToken, StepError> {
    let id = CredentialId::setup_link(to.0, run.operation());
    let stored = stores.vault.put(&id, Token::random(purpose).expose(), run.fencing_token()).await?;
    let new = NewToken::new(link_id(run.operation()), to.0, to.1, &parse_token(&stored)?, lifetime);
    Ok(stores.tokens.issue(&new, Some(run.fencing_token())).await?)
}

/// Issues the link's token: from then on it is valid, and its lifetime begins.
pub(in crate::operations::provision) struct IssueLink;
#[async_trait]
impl SagaStep<ProvisionContext> for IssueLink {
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
        let token = parse_token(&context.stores.vault.open(&id).await?)?;
        let (link, lifetime) = (link_id(run.operation()), context.config.link_lifetime);
        let new = NewToken::new(link, context.tenant, email.as_str(), &token, lifetime);
        let issued = context.stores.tokens.issue(&new, Some(run.fencing_token())).await?;
        Ok(json!({ "link": issued.id }))
    }
}
