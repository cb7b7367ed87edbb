//! The steps that both sagas of this module share: claim the token, release the claim, use the token up.
//!
//! Invariant: each function is idempotent for one operation, so a worker that takes over may repeat it.
use super::{Request, SetupLinkError};
use crate::cluster::OperationContext;
use crate::error::StepError;
use crate::operation::OperationId;
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::store::tokens::TokenClaim;
use serde_json::{Value, json};

/// The stored names of the steps. Records in the journal contain them, so they must not change.
pub(super) const CLAIM: &str = "link.claim";
pub(super) const USE: &str = "link.use";

/// Claims the token for this operation. No other operation can claim it after that, and it cannot expire for this one.
pub(super) async fn claim(run: &Execution, stores: &OperationContext) -> Result<Value, StepError> {
    let request: Request = run.request()?;
    match stores.tokens.claim(&request.hash, run.operation()).await? {
        TokenClaim::Claimed(_) => Ok(Value::Null),
        TokenClaim::Joined(_) | TokenClaim::NotValid => Err(StepError::fail(SetupLinkError::NotValid)),
    }
}

/// Releases the claim, so that another operation can claim the token. For an operation that is undone.
pub(super) async fn unclaim(run: &Execution, stores: &OperationContext) -> Result<(), StepError> {
    let request: Request = run.request()?;
    Ok(stores.tokens.unclaim(request.link, run.operation()).await?)
}

/// Uses the token up after its effect is durable: the link is not valid any more. Also deletes the token's sealed text
/// from the vault, which exists if an operation has issued the link.
pub(super) async fn use_up(run: &Execution, stores: &OperationContext) -> Result<Value, StepError> {
    let request: Request = run.request()?;
    stores.tokens.use_up(request.link, run.operation()).await?;
    let issuer = OperationId::from_uuid(request.link.as_uuid());
    stores.vault.forget(&CredentialId::setup_link(request.tenant, issuer), run.fencing_token()).await?;
    Ok(json!({ "link": request.link }))
}
