-- A worker whose node holds an advisory lock in this database stores the key of that lock beside its id. If no session
-- holds the lock, the node's process has died, and any node may claim the operation before the lease expires. NULL: the
-- lease alone counts.
--
-- The key is valid only while worker_lock_of is the operation's worker. A node of an earlier version sets the worker
-- and not the lock; the key of the worker before it must not count for it.
ALTER TABLE tenantry.operations
    ADD COLUMN worker_lock integer CHECK (worker_lock > 0),
    ADD COLUMN worker_lock_of text;
