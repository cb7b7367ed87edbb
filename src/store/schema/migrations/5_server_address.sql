-- A server's row is the only source of its address: an entry that names a server is reached where the row says. So a
-- change of the row is a change of every tenant of that server.

-- Identifies the cluster (pg_control_system()); null: it was never read. A promoted standby has its primary's.
ALTER TABLE tenantry.database_servers ADD COLUMN system_identifier bigint;

-- Until now provisioning copied the server's TLS mode and root certificate into each entry. A copy would outlive a
-- change of the row; what differs from the row was set by the host and stays.
UPDATE tenantry.tenant_databases d
    SET settings = d.settings
            - CASE WHEN d.settings ->> 'tls' = s.tls THEN 'tls' ELSE '' END
            - CASE WHEN d.settings ->> 'root_certificate' = s.root_certificate THEN 'root_certificate' ELSE '' END,
        updated_at = now()
    FROM tenantry.database_servers s
    WHERE s.name = d.server AND d.kind = 'primary'
      AND (d.settings ->> 'tls' = s.tls OR d.settings ->> 'root_certificate' = s.root_certificate);

-- Nodes learn of a new address as they learn of any other change, by the trigger on the entries: each entry of the server
-- is written again as it is. The entries of a host's own registry are not in this database; there the placement is written.
CREATE TRIGGER placements_changed AFTER UPDATE ON tenantry.placements
    FOR EACH ROW EXECUTE FUNCTION tenantry.tenant_changed('tenant_id');

-- A worker that has a session on the old server must not report there what holds on the new one. So every open operation
-- about a tenant of the server loses its worker in the same transaction: the epoch is raised, which waits for writes that
-- have begun, and the lease ends, so that the next worker reads the row.
--
-- The locks are taken in the order server, epoch. A write that has locked an epoch and waits for this server's row (it ends
-- the place of a tenant) is then in a deadlock (40P01), and whichever is aborted is tried again.
CREATE FUNCTION tenantry.server_moved() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stopped uuid[];
BEGIN
    UPDATE tenantry.tenant_databases SET updated_at = now() WHERE server = NEW.name AND status <> 'dropped';
    UPDATE tenantry.placements p SET server = p.server
        WHERE p.server = NEW.name AND NOT EXISTS (SELECT FROM tenantry.tenant_databases d
            WHERE d.tenant_id = p.tenant_id AND d.server = p.server AND d.status <> 'dropped');
    IF (OLD.host, OLD.port) IS NOT DISTINCT FROM (NEW.host, NEW.port) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(o.id) INTO stopped
        FROM tenantry.operations o
        JOIN tenantry.placements p
          ON o.subject = 'tenant:' || p.tenant_id OR o.request ->> 'tenant' = p.tenant_id::text
        WHERE p.server = NEW.name AND o.status IN ('running', 'undoing', 'parked');
    UPDATE tenantry.epochs SET epoch = epoch + 1 WHERE operation = ANY (stopped);
    UPDATE tenantry.operations SET leased_until = now()
        WHERE id = ANY (stopped) AND status IN ('running', 'undoing') AND leased_until > now();
    RETURN NULL;
END
$$;
CREATE TRIGGER server_moved AFTER UPDATE OF host, port, tls, root_certificate ON tenantry.database_servers
    FOR EACH ROW
    WHEN ((OLD.host, OLD.port, OLD.tls, OLD.root_certificate)
        IS DISTINCT FROM (NEW.host, NEW.port, NEW.tls, NEW.root_certificate))
    EXECUTE FUNCTION tenantry.server_moved();
