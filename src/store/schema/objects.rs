//! The objects that the migrations create, as a list in code.
//!
//! [`check`](super::check) compares the list with the catalog and reports what is missing. A migration that adds or
//! drops an object must change this list. A test in `tests/suite/schema.rs` compares the list with what the migrations
//! create.

/// A table that the migrations create. Names are separated by white space.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static str,
    /// Indexes and triggers of the table.
    pub(super) indexes_and_triggers: &'static str,
}

const fn table(name: &'static str, columns: &'static str, indexes_and_triggers: &'static str) -> Table {
    Table { name, columns, indexes_and_triggers }
}

pub(super) const TABLES: &[Table] = &[
    table("installation", "only_one id created_at", "installation_pkey"),
    table("epochs", "operation epoch", "epochs_pkey"),
    table(
        "tenants",
        "id slug name status metadata kept_until created_at updated_at deleted_at",
        "tenants_pkey tenants_slug tenant_deleted tenants_changed",
    ),
    table(
        "tenant_domains",
        "domain tenant_id created_at",
        "tenant_domains_pkey tenant_domains_tenant tenant_domains_changed",
    ),
    table(
        "database_servers",
        "name host port tls root_certificate admin_role blue green maintenance login secret_version status \
         capacity tenants weight draining max_connections labels created_at updated_at allowed_roles \
         system_identifier address_mac",
        "database_servers_pkey server_moved",
    ),
    table(
        "placements",
        "tenant_id server database created_at",
        "placements_pkey placements_server_database_key placements_changed",
    ),
    table(
        "tenant_databases",
        "tenant_id kind driver server host port database login roles credential generation status settings \
         created_at updated_at dropped_at schema_state",
        "tenant_databases_pkey tenant_databases_primary tenant_databases_changed",
    ),
    table(
        "tenant_database_users",
        "tenant_id server database role generation status reason metadata attempts retry_at created_at updated_at \
         dropped_at",
        "tenant_database_users_active tenant_database_users_pkey tenant_database_users_retiring \
         tenant_database_users_tenant",
    ),
    table(
        "credentials",
        "owner database role purpose version key_id record created_at",
        "credentials_key credentials_pkey",
    ),
    table("incarnation", "only_one id", "incarnation_pkey"),
    table(
        "operations",
        "id kind lane subject idempotency_key reason request status step intended done total outputs error \
         attempts seq worker incarnation leased_until retry_at recoverable created_at updated_at finished_at \
          worker_lock worker_lock_of occupies_lane",
        "operations_key operations_open operations_pkey operations_subject",
    ),
    table("lanes", "subject change fence", "lanes_pkey"),
    table("operation_events", "operation seq at step status done total error reason", "operation_events_pkey"),
    table(
        "setup_tokens",
        "id tenant_id purpose email hash issued_by created_at expires_at operation_id claimed_at used_at \
         revoked_at delivered_at",
        "setup_tokens_hash_key setup_tokens_pkey setup_tokens_tenant",
    ),
    table("token_events", "at what link tenant_id client", "token_events_tenant"),
    table("tenant_changes", "txid tenant_id", "tenant_changes_pkey"),
    table("nodes", "id name started_at seen_at facts share", "nodes_pkey"),
];
