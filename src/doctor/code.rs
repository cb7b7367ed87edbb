//! The codes of findings and their severities. A plan file stores the texts, so they never change.
//!
//! Each code has a section in [the manual](crate::manual::findings), and exactly one check produces it.
use crate::error::UnknownValue;
use crate::operation::stored_enum;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

stored_enum! {
    /// How urgent a finding is.
    Severity, "severity" {
        /// A tenant is not isolated, or cannot be used, or may lose data.
        Critical = "critical",
        /// An operation will fail, or an administrator has to decide.
        Warning = "warning",
        /// Nothing fails because of it.
        Notice = "notice",
    }
}

stored_enum! {
    /// What a finding is about. The text is stable; [`manual::findings`](crate::manual::findings) explains each code.
    Code, "code of a finding" {
        /// A right is missing, so that a check could not look. Never means healthy.
        CannotSee = "cannot_see",
        /// The landlord's schema is not installed, or is older than this program.
        SchemaMissing = "schema_missing",
        /// A newer program has migrated the landlord.
        SchemaNewer = "schema_newer",
        /// The landlord has lost tables, columns, indexes or triggers.
        SchemaDamaged = "schema_damaged",
        /// The landlord's role lacks rights on the schema.
        SchemaRights = "schema_rights",
        /// Stored secrets need a key that the key provider does not have.
        KeyMissing = "key_missing",
        /// The key provider has other bytes under the name of a key.
        KeyWrong = "key_wrong",
        /// Secrets are sealed with a key that is not the primary one.
        SecretsOnOldKey = "secrets_on_old_key",
        /// A row of the landlord cannot be parsed.
        RowUnreadable = "row_unreadable",
        /// An operation waits for an administrator.
        OperationParked = "operation_parked",
        /// The lease of an operation has expired and no node continues it.
        OperationStalled = "operation_stalled",
        /// An operation has been open for longer than its deadline.
        OperationSlow = "operation_slow",
        /// A replaced login could not be dropped for a long time.
        RetirementOverdue = "retirement_overdue",
        /// An archived tenant's retention has ended.
        PurgeOverdue = "purge_overdue",
        /// A tenant is in provisioning or purging, and no operation is open for it.
        TenantUnfinished = "tenant_unfinished",
        /// Two registries name different databases for a tenant.
        SourcesDisagree = "sources_disagree",
        /// A tenant has no directory entry for a primary database.
        EntryMissing = "entry_missing",
        /// An entry names a registered server, and the tenant has no placement there.
        PlacementMissing = "placement_missing",
        /// A placement belongs to no tenant, or to a deleted one.
        PlacementLeft = "placement_left",
        /// Entry and placement name different databases or servers.
        EntryElsewhere = "entry_elsewhere",
        /// The address in an entry is not that of its server.
        AddressOutdated = "address_outdated",
        /// The entry's login is not the active one among the tenant's logins.
        UsersDisagree = "users_disagree",
        /// A login is recorded as dropped and exists on the server.
        LoginNotDropped = "login_not_dropped",
        /// A login of the tenant exists on the server and is not recorded.
        LoginUnrecorded = "login_unrecorded",
        /// A login is recorded as pending or retiring and does not exist.
        LoginGone = "login_gone",
        /// The vault has no password for the entry's login.
        SecretMissing = "secret_missing",
        /// The stored password of the entry's login does not open.
        SecretUnreadable = "secret_unreadable",
        /// A server does not answer.
        ServerUnreachable = "server_unreachable",
        /// The address in a server's row is not authenticated, or is not allowed.
        ServerUntrusted = "server_untrusted",
        /// The set-up of a server has not ended.
        ServerNotReady = "server_not_ready",
        /// The cluster at a server's address is not the one that was set up.
        ServerReplaced = "server_replaced",
        /// The provisioner's login in use is refused, or does not act as the admin role.
        ProvisionerRefused = "provisioner_refused",
        /// The provisioner's other login is refused, or does not act as the admin role.
        IdleProvisionerRefused = "idle_provisioner_refused",
        /// PUBLIC may connect to the maintenance database.
        MaintenancePublic = "maintenance_public",
        /// Another role than the provisioner's logins is a member of the admin role.
        AdminMember = "admin_member",
        /// A login of the provisioner is a member of further roles.
        ProvisionerMembership = "provisioner_membership",
        /// A role can enter the database of a suspended or archived tenant.
        ClosedTenantOpen = "closed_tenant_open",
        /// Another role than the tenant's logins can enter its database.
        ForeignEntrant = "foreign_entrant",
        /// The tenant's database does not exist.
        DatabaseMissing = "database_missing",
        /// The admin role does not own the tenant's database.
        DatabaseOwner = "database_owner",
        /// An interrupted DROP DATABASE has left the database invalid.
        DatabaseInvalid = "database_invalid",
        /// The database of an active tenant accepts no connections.
        DatabaseClosed = "database_closed",
        /// The rights on the tenant's database are not the ones that a provisioning grants.
        DatabaseRights = "database_rights",
        /// A dead worker has left a closed database open.
        DatabaseLeftOpen = "database_left_open",
        /// A group role of the tenant does not exist.
        RoleMissing = "role_missing",
        /// A role of the tenant was not created by this installation.
        RoleForeign = "role_foreign",
        /// A role of the tenant has more rights than a tenant may have.
        RolePrivileged = "role_privileged",
        /// The comment on a role of the tenant was changed.
        RoleMarker = "role_marker",
        /// The login of an active tenant does not exist.
        LoginMissing = "login_missing",
        /// The login of an active tenant is NOLOGIN.
        LoginRefused = "login_refused",
        /// The login of an active tenant has expired.
        LoginExpired = "login_expired",
        /// The server refuses the stored password of an active tenant's login.
        LoginPassword = "login_password",
        /// The server refuses an active tenant's login for another reason than its password.
        LoginRejected = "login_rejected",
        /// The login is not a member of its group role, or its sessions do not act as that role.
        LoginMembership = "login_membership",
        /// The login is a member of further roles.
        LoginExtraMembership = "login_extra_membership",
        /// The login has settings that a provisioning does not set.
        LoginSettings = "login_settings",
        /// The login has another connection limit than the configured one.
        LoginLimit = "login_limit",
        /// The migrator's login exists, and no operation uses it.
        MigratorLeft = "migrator_left",
        /// Rights were granted directly to a login of the tenant.
        LoginRights = "login_rights",
        /// The application's role may create objects in a schema.
        AppCanCreate = "app_can_create",
        /// The tenant's owner role does not own the schema `public`.
        SchemaOwner = "schema_owner",
        /// PUBLIC has rights on a schema of the tenant's database.
        SchemaPublic = "schema_public",
        /// Another role owns objects in the tenant's database.
        ObjectOwner = "object_owner",
        /// PUBLIC has rights on objects in the tenant's database.
        ObjectPublic = "object_public",
        /// A role outside the tenant has rights on objects in its database.
        ObjectGranted = "object_granted",
        /// An index is invalid, so that no query uses it.
        IndexInvalid = "index_invalid",
        /// A sequence has used most of its range.
        SequenceExhausted = "sequence_exhausted",
        /// A tenant's database has an event trigger.
        EventTrigger = "event_trigger",
        /// Migrations have not run, at the end or in the middle.
        MigrationsBehind = "migrations_behind",
        /// The database has migrations that this program does not have.
        MigrationsAhead = "migrations_ahead",
        /// A migration has run with another text.
        MigrationsChanged = "migrations_changed",
        /// A migration was begun and not finished.
        MigrationsUnfinished = "migrations_unfinished",
        /// A session that is idle in a transaction blocks others.
        SessionBlocks = "session_blocks",
        /// A prepared transaction is old.
        TransactionPrepared = "transaction_prepared",
        /// A replication slot keeps WAL, or keeps a database from being dropped.
        SlotHolds = "slot_holds",
        /// A server accepts no writes.
        ServerReadOnly = "server_read_only",
        /// The connections of all nodes may exceed what the server allows.
        BudgetExceedsServer = "budget_exceeds_server",
        /// Servers of the installation have different encodings or locales.
        LocaleDiffers = "locale_differs",
        /// The version of a database's collation differs from that of the operating system.
        CollationOutdated = "collation_outdated",
        /// Clocks differ.
        ClockSkew = "clock_skew",
        /// Connections to a server on another machine may be unencrypted.
        TlsOff = "tls_off",
        /// A database of the admin role has no placement.
        OrphanDatabase = "orphan_database",
        /// A role of this installation has no placement.
        OrphanRole = "orphan_role",
        /// An object looks like one of this installation and is not.
        LookAlike = "look_alike",
    }
}

impl Code {
    /// The severity of a finding of this code, unless its check sets another one.
    pub(crate) fn severity(self) -> Severity {
        use Code::*;
        match self {
            RowUnreadable
            | OperationParked
            | OperationStalled
            | OperationSlow
            | RetirementOverdue
            | CannotSee
            | SecretsOnOldKey
            | TenantUnfinished
            | SourcesDisagree
            | PlacementLeft
            | UsersDisagree
            | LoginNotDropped
            | LoginUnrecorded
            | LoginGone
            | ServerNotReady
            | IdleProvisionerRefused
            | DatabaseRights
            | DatabaseLeftOpen
            | ProvisionerMembership
            | LoginExtraMembership
            | MigratorLeft
            | SchemaOwner
            | SchemaPublic
            | ObjectOwner
            | IndexInvalid
            | SequenceExhausted
            | EventTrigger
            | MigrationsBehind
            | MigrationsChanged
            | MigrationsUnfinished
            | SessionBlocks
            | TransactionPrepared
            | SlotHolds
            | BudgetExceedsServer
            | LocaleDiffers
            | CollationOutdated
            | ClockSkew
            | TlsOff
            | OrphanDatabase
            | OrphanRole => Severity::Warning,
            PurgeOverdue | AddressOutdated | RoleMarker | LoginSettings | LoginLimit | ObjectPublic | ObjectGranted
            | MigrationsAhead | LookAlike => Severity::Notice,
            _ => Severity::Critical,
        }
    }
}
