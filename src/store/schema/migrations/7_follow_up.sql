-- Follow-up work of a provisioning (the delivery of its setup link, the application's steps after activation) is an
-- operation about the tenant that has no lane: it blocks no other operation. Its lane is stored as 'change', which earlier
-- versions can read; they learn from the lanes which operation occupies one.
ALTER TABLE tenantry.operations ADD COLUMN occupies_lane boolean NOT NULL DEFAULT true;

-- Why a person skipped a step or abandoned an operation.
ALTER TABLE tenantry.operation_events ADD COLUMN reason text;
