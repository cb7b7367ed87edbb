use crate::error::StoreError;
use crate::provision::link;
use crate::tenant::TenantId;
use crate::tokens::{LinkId, SetupLink};
use crate::worker::Workshop;
use std::fmt;

/// Setup links: which wait to be delivered, and that they were.
#[derive(Clone)]
pub struct Tokens {
    shop: Workshop,
}

impl Tokens {
    pub(super) fn new(shop: Workshop) -> Self {
        Self { shop }
    }
    /// The newest link that nobody has confirmed yet: what a progress page shows after a reload, on any node.
    pub async fn undelivered(&self, tenant: TenantId) -> Result<Option<SetupLink>, StoreError> {
        let good = self.shop.tokens.of_tenant(tenant).await?;
        match good.into_iter().find(|t| !t.delivered) {
            Some(issued) => link(&self.shop, issued).await,
            None => Ok(None),
        }
    }
    /// Its reader has it: it is not shown again. Repeating it is `Ok`.
    pub async fn delivered(&self, link: LinkId) -> Result<(), StoreError> {
        self.shop.tokens.delivered(link).await
    }
    /// No longer good, unless somebody is at it.
    pub async fn revoke(&self, link: LinkId) -> Result<(), StoreError> {
        self.shop.tokens.revoke(link).await
    }
}
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}
