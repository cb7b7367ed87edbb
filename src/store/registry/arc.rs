//! [`ServerRegistry`] for `Arc`: lets several layers share one registry, also as `Arc<dyn ServerRegistry>`.
//!
//! Every method forwards to the inner registry, including those with a default implementation. Otherwise a shared
//! registry would not use the inner one's own, faster implementation. The lint `missing_trait_methods` makes a missing
//! method an error.
use super::{Placement, ServerLoad, ServerRegistry};
use crate::error::{Rows, StoreError};
use crate::names::{DatabaseName, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::server::DatabaseServer;
use crate::tenant::TenantId;
use async_trait::async_trait;
use std::sync::Arc;
use uuid::Uuid;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: ServerRegistry + ?Sized> ServerRegistry for Arc<T> {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        (**self).fence(operation, epoch).await
    }
    async fn installation(&self) -> Result<Uuid, StoreError> {
        (**self).installation().await
    }
    async fn server(&self, name: &ServerName) -> Result<Option<ServerLoad>, StoreError> {
        (**self).server(name).await
    }
    async fn servers(&self) -> Result<Rows<ServerLoad>, StoreError> {
        (**self).servers().await
    }
    async fn put_server(
        &self, expected: Option<&DatabaseServer>, server: &DatabaseServer, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        (**self).put_server(expected, server, writer).await
    }
    async fn remove_server(&self, name: &ServerName, writer: Option<FencingToken>) -> Result<(), StoreError> {
        (**self).remove_server(name, writer).await
    }
    async fn placement(&self, tenant: TenantId) -> Result<Option<Placement>, StoreError> {
        (**self).placement(tenant).await
    }
    async fn placement_and_server(&self, tenant: TenantId) -> Result<Option<(Placement, DatabaseServer)>, StoreError> {
        (**self).placement_and_server(tenant).await
    }
    async fn placements_on(
        &self, server: &ServerName, after: Option<&DatabaseName>, limit: u32,
    ) -> Result<Rows<Placement>, StoreError> {
        (**self).placements_on(server, after, limit).await
    }
    async fn reserve(&self, placement: &Placement, writer: FencingToken) -> Result<(), StoreError> {
        (**self).reserve(placement, writer).await
    }
    async fn release(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
        (**self).release(tenant, writer).await
    }
}
