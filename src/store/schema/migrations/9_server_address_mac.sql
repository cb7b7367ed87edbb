-- Authentication code of a server's name, host, port, TLS mode and root certificate, under a key that is sealed in the
-- vault. Without it, a role that can write to this database could lead tenants' passwords to a server of its own. Null:
-- the row was written by a version that had no codes; set_up() or rekey() writes one.
ALTER TABLE tenantry.database_servers ADD COLUMN address_mac text;
