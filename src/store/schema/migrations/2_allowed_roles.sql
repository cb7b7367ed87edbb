-- Roles that the host lets into suspended tenants' databases of a server: a support login, a monitoring agent.
ALTER TABLE tenantry.database_servers ADD COLUMN allowed_roles jsonb NOT NULL DEFAULT '[]';
