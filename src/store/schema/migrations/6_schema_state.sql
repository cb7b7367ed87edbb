-- What the schema of the tenant's database was when a migration last recorded it. It is only compared: when it changes,
-- every node replaces the sessions that were opened before, because their prepared statements and cached types may no
-- longer match the tables. The trigger on this table tells the nodes. A program of an older version neither reads nor
-- writes the column, and the next migration by a newer one corrects it.
ALTER TABLE tenantry.tenant_databases ADD COLUMN schema_state text NOT NULL DEFAULT '';
