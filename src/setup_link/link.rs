//! The steps that both links have in common.
use super::{Request, SetupLinkError};
use crate::cluster::OperationContext;
use crate::error::StepError;
use crate::operation::OperationId;
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::store::tokens::TokenClaim;
use serde_json::{Value, json};

/// The stored names of the steps.
pub(super) const CLAIM: &str = "link.claim";
pub(super) const USE: &str = "link.use";

/// From here on the token is this operation's: it stays good for it alone.
pub(super) async fn claim(run: &Execution, stores: &OperationContext) -> Result<Value, StepError> {
    let request: Request = run.request()?;
    match stores.tokens.claim(&request.hash, run.operation()).await? {
        TokenClaim::Claimed(_) => Ok(Value::Null),
        TokenClaim::Joined(_) | TokenClaim::NotValid => Err(StepError::fail(SetupLinkError::NotValid)),
    }
}

/// Good again: nothing was done with it.
pub(super) async fn unclaim(run: &Execution, stores: &OperationContext) -> Result<(), StepError> {
    let request: Request = run.request()?;
    Ok(stores.tokens.unclaim(request.link, run.operation()).await?)
}

/// Its effect is committed: it is good no more, and its bytes are forgotten, if a provisioning has sealed them.
pub(super) async fn use_up(run: &Execution, stores: &OperationContext) -> Result<Value, StepError> {
    let request: Request = run.request()?;
    stores.tokens.use_up(request.link, run.operation()).await?;
    let issuer = OperationId::from_uuid(request.link.as_uuid());
    stores.vault.forget(&CredentialId::setup_link(request.tenant, issuer), run.fencing_token()).await?;
    Ok(json!({ "link": request.link }))
}
