-- Every change of a tenant, a domain or a directory entry leaves a row here, in the transaction of the change. Each node
-- reads the rows that its last read could not see yet, so a change reaches it also when no notification does: the queue
-- of notifications belongs to the whole cluster, and one database in it can fill that queue.
--
-- Rows are only inserted, and the key holds the writer's own transaction id: two writers never wait for each other. The
-- id is that of the transaction, not a number from a sequence, because a sequence counts before the commit: a node would
-- read the new number, look at the old row, and never look again. Nodes compare snapshots instead (see
-- pg_visible_in_snapshot in the manual), which shows exactly what was committed between two reads.
CREATE TABLE tenantry.tenant_changes (
    txid      xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    tenant_id uuid NOT NULL,
    PRIMARY KEY (txid, tenant_id)
);

-- The notification is left out while the queue holds more than a twentieth of what it can: a full queue fails the
-- transaction at its commit (54000). Asking for the usage also frees what every listener has read. SECURITY DEFINER:
-- a role that may change a tenant needs no rights on tenant_changes.
CREATE OR REPLACE FUNCTION tenantry.tenant_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- A domain or an entry that moves from one tenant to another changes both.
    changed uuid[] := ARRAY[]::uuid[];
    tenant  uuid;
BEGIN
    IF TG_OP <> 'DELETE' THEN
        changed := changed || (to_jsonb(NEW) ->> TG_ARGV[0])::uuid;
    END IF;
    IF TG_OP <> 'INSERT' AND (to_jsonb(OLD) ->> TG_ARGV[0])::uuid <> ALL (changed) THEN
        changed := changed || (to_jsonb(OLD) ->> TG_ARGV[0])::uuid;
    END IF;
    FOREACH tenant IN ARRAY changed LOOP
        INSERT INTO tenantry.tenant_changes (tenant_id) VALUES (tenant) ON CONFLICT DO NOTHING;
        IF pg_notification_queue_usage() < 0.05 THEN
            PERFORM pg_notify('tenantry_changes', tenant::text);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION tenantry.tenant_changed() FROM PUBLIC;
