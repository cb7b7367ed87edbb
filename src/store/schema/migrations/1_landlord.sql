-- The landlord: who the tenants are, where their databases are, with which sealed credentials they are reached,
-- and what is being done about it. One fixed schema, so that all SQL of the crate is static text.
-- Times are by this database's clock.

CREATE TABLE tenantry.installation (
    only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id         uuid NOT NULL DEFAULT gen_random_uuid(),  -- marks what this installation makes on servers
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO tenantry.installation DEFAULT VALUES;

-- Every worker of an operation has an epoch; a write below it is refused. A write locks this row FOR SHARE, a takeover
-- updates it, so no write of an old worker can land after the takeover that it waited for.
CREATE TABLE tenantry.epochs (
    operation uuid PRIMARY KEY,
    epoch     bigint NOT NULL CHECK (epoch >= 1)
);

CREATE TABLE tenantry.tenants (
    id         uuid PRIMARY KEY,
    slug       text NOT NULL CHECK (slug ~ '^[a-z0-9-]{3,40}$'),
    name       text NOT NULL,
    status     text NOT NULL
               CHECK (status IN ('provisioning', 'active', 'suspended', 'archived', 'purging', 'deleted')),
    metadata   jsonb NOT NULL DEFAULT 'null',
    -- Until when an archived tenant's data is kept.
    kept_until timestamptz CHECK (kept_until IS NULL OR status IN ('archived', 'purging', 'deleted')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz CHECK ((deleted_at IS NULL) = (status <> 'deleted'))
);
-- The history of a purged tenant stays; its slug is free again.
CREATE UNIQUE INDEX tenants_slug ON tenantry.tenants (slug) WHERE status <> 'deleted';

CREATE TABLE tenantry.tenant_domains (
    domain     text PRIMARY KEY CHECK (domain = lower(domain) AND length(domain) <= 253),
    tenant_id  uuid NOT NULL REFERENCES tenantry.tenants ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tenant_domains_tenant ON tenantry.tenant_domains (tenant_id);

CREATE TABLE tenantry.database_servers (
    name             text PRIMARY KEY,
    host             text NOT NULL,
    port             integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    tls              text NOT NULL CHECK (tls IN ('disable', 'prefer', 'require', 'verify_ca', 'verify_full')),
    root_certificate text,
    admin_role       text NOT NULL,
    blue             text NOT NULL,
    green            text NOT NULL,
    maintenance      text NOT NULL,
    login            text NOT NULL CHECK (login IN (blue, green)),
    secret_version   bigint NOT NULL CHECK (secret_version >= 1),
    status           text NOT NULL CHECK (status IN ('setting_up', 'ready')),
    capacity         bigint NOT NULL CHECK (capacity >= 0),
    tenants          bigint NOT NULL DEFAULT 0 CHECK (tenants >= 0),
    weight           bigint NOT NULL CHECK (weight >= 1),
    draining         boolean NOT NULL DEFAULT false,
    max_connections  bigint NOT NULL CHECK (max_connections >= 1),
    labels           jsonb NOT NULL DEFAULT 'null',
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);

-- A tenant's place: the committed intent that names its database (and, through it, every role of the tenant) on a
-- server. Nothing of another name is ever touched there. The row goes when nothing of the tenant is left.
-- Tenants and servers may be kept in different stores, so neither table refers to the other one's.
CREATE TABLE tenantry.placements (
    tenant_id  uuid PRIMARY KEY,
    server     text NOT NULL REFERENCES tenantry.database_servers ON DELETE RESTRICT,
    database   text NOT NULL CHECK (octet_length(database) <= 63),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server, database)
);

CREATE TABLE tenantry.tenant_databases (
    tenant_id  uuid NOT NULL REFERENCES tenantry.tenants ON DELETE RESTRICT,
    kind       text NOT NULL CHECK (kind IN ('primary', 'replica', 'backup')),
    driver     text NOT NULL CHECK (driver IN ('postgres', 'mysql')),
    server     text,  -- a name, no reference: it is history when the server is gone
    host       text NOT NULL,
    port       integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    database   text NOT NULL CHECK (octet_length(database) <= 63),
    login      text NOT NULL CHECK (octet_length(login) <= 63),
    roles      jsonb,
    credential jsonb NOT NULL,
    generation bigint NOT NULL CHECK (generation >= 1),
    status     text NOT NULL CHECK (status IN ('active', 'fallback', 'dropped')),
    settings   jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    dropped_at timestamptz CHECK ((dropped_at IS NULL) = (status <> 'dropped')),
    PRIMARY KEY (tenant_id, kind, host, port, database)
);
CREATE UNIQUE INDEX tenant_databases_primary ON tenantry.tenant_databases (tenant_id)
    WHERE kind = 'primary' AND status <> 'dropped';

CREATE TABLE tenantry.tenant_database_users (
    tenant_id  uuid NOT NULL REFERENCES tenantry.tenants ON DELETE RESTRICT,
    server     text NOT NULL,
    database   text NOT NULL,
    role       text NOT NULL CHECK (octet_length(role) <= 63),
    generation bigint NOT NULL CHECK (generation >= 1),
    status     text NOT NULL CHECK (status IN ('pending', 'active', 'retiring', 'dropped')),
    reason     text,
    metadata   jsonb NOT NULL DEFAULT '{}',
    -- Of one that is retiring: how often it was tried to drop it, and when it is tried again; null while an operation is
    -- at it.
    attempts   integer NOT NULL DEFAULT 0,
    retry_at   timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    dropped_at timestamptz CHECK ((dropped_at IS NULL) = (status <> 'dropped')),
    PRIMARY KEY (server, role),
    -- One active login per database. Deferrable, so that it holds after the statement and not after each of its rows:
    -- a rotation activates one login and retires another in one UPDATE.
    CONSTRAINT tenant_database_users_active EXCLUDE USING btree (tenant_id WITH =, server WITH =, database WITH =)
        WHERE (status = 'active') DEFERRABLE INITIALLY IMMEDIATE
);
CREATE INDEX tenant_database_users_tenant ON tenantry.tenant_database_users (tenant_id);
CREATE INDEX tenant_database_users_retiring ON tenantry.tenant_database_users (retry_at) WHERE status = 'retiring';

-- What a deleted tenant leaves behind. A trigger, because its statements look anew once the tenant's row is locked: a
-- domain that is added at this moment is refused or freed. The CTEs of one statement all look at its beginning.
CREATE FUNCTION tenantry.tenant_deleted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tenantry.tenant_domains WHERE tenant_id = NEW.id;
    UPDATE tenantry.tenant_databases SET status = 'dropped', updated_at = now(), dropped_at = now()
        WHERE tenant_id = NEW.id AND status <> 'dropped';
    UPDATE tenantry.tenant_database_users SET status = 'dropped', updated_at = now(), dropped_at = now()
        WHERE tenant_id = NEW.id AND status <> 'dropped';
    RETURN NULL;
END
$$;
CREATE TRIGGER tenant_deleted AFTER UPDATE OF status ON tenantry.tenants
    FOR EACH ROW WHEN (NEW.status = 'deleted' AND OLD.status <> 'deleted') EXECUTE FUNCTION tenantry.tenant_deleted();

-- Nodes cache who a tenant is and where: a change is told with its commit, whoever makes it. A new tenant is told when
-- it becomes active; nobody has cached it before.
CREATE FUNCTION tenantry.tenant_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('tenantry_changes', (CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END
        ->> TG_ARGV[0]));
    RETURN NULL;
END
$$;
CREATE TRIGGER tenants_changed AFTER UPDATE OR DELETE ON tenantry.tenants
    FOR EACH ROW EXECUTE FUNCTION tenantry.tenant_changed('id');
CREATE TRIGGER tenant_domains_changed AFTER INSERT OR UPDATE OR DELETE ON tenantry.tenant_domains
    FOR EACH ROW EXECUTE FUNCTION tenantry.tenant_changed('tenant_id');
CREATE TRIGGER tenant_databases_changed AFTER INSERT OR UPDATE OR DELETE ON tenantry.tenant_databases
    FOR EACH ROW EXECUTE FUNCTION tenantry.tenant_changed('tenant_id');

CREATE TABLE tenantry.credentials (
    owner      text NOT NULL,
    database   text NOT NULL,
    role       text NOT NULL,
    purpose    text NOT NULL,
    version    bigint NOT NULL CHECK (version >= 1),
    key_id     text NOT NULL,
    record     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, database, role, purpose, version)
);
CREATE INDEX credentials_key ON tenantry.credentials (key_id);

-- A new id after each crash of this server and each failover: recovery empties what is unlogged. Commits that were not
-- waited for may be gone then, and a worker that goes by them must read anew what it has done.
CREATE UNLOGGED TABLE tenantry.incarnation (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id       uuid NOT NULL DEFAULT gen_random_uuid()
);
CREATE FUNCTION tenantry.current_incarnation() RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found uuid := (SELECT id FROM tenantry.incarnation);
BEGIN
    IF found IS NULL THEN
        INSERT INTO tenantry.incarnation DEFAULT VALUES ON CONFLICT DO NOTHING;
        found := (SELECT id FROM tenantry.incarnation);
    END IF;
    RETURN found;
END
$$;

CREATE TABLE tenantry.operations (
    id              uuid PRIMARY KEY,
    kind            text NOT NULL,
    lane            text NOT NULL CHECK (lane IN ('change', 'fence')),
    subject         text NOT NULL,
    idempotency_key text,
    reason          text,
    request         jsonb NOT NULL,
    status          text NOT NULL CHECK (status IN ('running', 'undoing', 'parked', 'done', 'undone')),
    step            text NOT NULL DEFAULT '',
    intended        integer NOT NULL CHECK (intended >= 0),
    done            integer NOT NULL DEFAULT 0 CHECK (done >= 0),
    total           integer NOT NULL,
    outputs         jsonb NOT NULL DEFAULT '{}',
    error           text,
    attempts        integer NOT NULL DEFAULT 0,
    seq             bigint NOT NULL DEFAULT 0,
    worker          text NOT NULL,
    incarnation     uuid NOT NULL DEFAULT tenantry.current_incarnation(),  -- in which its worker took hold of it
    leased_until    timestamptz NOT NULL,
    retry_at        timestamptz,
    recoverable     boolean NOT NULL DEFAULT true,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz CHECK ((finished_at IS NULL) = (status NOT IN ('done', 'undone')))
);
-- After an undo the same key starts again.
CREATE UNIQUE INDEX operations_key ON tenantry.operations (idempotency_key) WHERE status <> 'undone';
CREATE INDEX operations_subject ON tenantry.operations (subject, created_at);
CREATE INDEX operations_open ON tenantry.operations (leased_until) WHERE status IN ('running', 'undoing');

-- At most one open operation per subject and lane. One row per subject, so that both lanes of it are decided under one
-- row lock: two INSERTs into two rows would not see each other.
CREATE TABLE tenantry.lanes (
    subject text PRIMARY KEY,
    change  uuid REFERENCES tenantry.operations,
    fence   uuid REFERENCES tenantry.operations
);

CREATE TABLE tenantry.operation_events (
    operation uuid NOT NULL REFERENCES tenantry.operations ON DELETE CASCADE,
    seq       bigint NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    step      text NOT NULL,
    status    text NOT NULL,
    done      integer NOT NULL,
    total     integer NOT NULL,
    error     text,
    PRIMARY KEY (operation, seq)
);

CREATE TABLE tenantry.setup_tokens (
    id           uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenantry.tenants ON DELETE CASCADE,
    purpose      text NOT NULL,
    email        text NOT NULL,
    hash         bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    issued_by    uuid,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    operation_id uuid,
    claimed_at   timestamptz CHECK ((claimed_at IS NULL) = (operation_id IS NULL)),
    used_at      timestamptz CHECK (used_at IS NULL OR claimed_at IS NOT NULL),
    revoked_at   timestamptz,
    delivered_at timestamptz
);
CREATE INDEX setup_tokens_tenant ON tenantry.setup_tokens (tenant_id, purpose);

-- What became of links, and who came with them: written after the answer, so that no answer takes longer for it.
CREATE TABLE tenantry.token_events (
    at        timestamptz NOT NULL,
    what      text NOT NULL CHECK (what IN ('shown', 'followed', 'unknown', 'expired', 'revoked', 'reused', 'claimed',
                                            'other_purpose')),
    link      uuid,  -- null: nobody's
    tenant_id uuid,
    client    text
);
CREATE INDEX token_events_tenant ON tenantry.token_events (tenant_id, at);

CREATE TABLE tenantry.nodes (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    facts      jsonb NOT NULL DEFAULT '{}',
    -- Of each server's connections, in ten-thousandths; those of live nodes add up to 10000 at most.
    share      integer NOT NULL DEFAULT 0 CHECK (share BETWEEN 0 AND 10000)
);
