//! Each promise, the tests that check it, and the command that measures it.
//!
//! Tests are named by file in `tests/suite/`; `cargo test --all-features --test suite <file>::` runs them. Commands
//! that measure print a table and write `target/ratios/<bench>.json`.
//!
//! | promise | tests | measured by |
//! |---|---|---|
//! | A call that fails, or a process that dies, leaves no partly created or partly removed tenant: any node completes or undoes the operation | `crash`, `engine`, `landlord`, `torture_sample` | `cargo run --release --example torture -- --runs 1000` |
//! | A process that is killed delays its operations by seconds, not by a lease: recovery or the repeated call continues them | `takeover` | `TENANTRY_TAKEOVER_KILLS=24 cargo test --all-features --test suite takeover:: -- --nocapture` |
//! | Every open operation can be ended, and the tenant purged afterwards: it is resumed, undone, abandoned, or a step is skipped | `dead_ends` | |
//! | Mail that is refused and steps after activation that fail block no operation of the tenant | `follow_up` | |
//! | Calls with one idempotency key begin one operation, also if they are repeated on other nodes | `races`, `lanes` | torture |
//! | Provisioning is close to its bare statements (goal: at most 1.3 times) | | `cargo bench --bench provision` |
//! | A suspension, an archive or a purge succeeds only after its worker has read back that no role except the exempt ones can connect | `fail_closed`, `fence`, `lifecycle`, `archive` | torture (its auditor checks with SQL of its own) |
//! | A tenant is closed within a second, also if the tenant itself or another tenant on its server is hostile | `hostile`, `clean_up` | `cargo bench --bench suspend` |
//! | A hostile login cannot access another tenant's data and cannot prevent other operations from completing | `borders`, `hostile`, `limits`, `notifications` | torture with a hostile tenant on the same server |
//! | No query fails while a login is rotated | `rotate`, `replicas` | `cargo bench --bench rotate` (goal: at most 1.4 times the bare statements) |
//! | A login that cannot be dropped blocks nothing, and is listed with its reason | `rotate`, `obstacles` | |
//! | A setup link works once; the password that was accepted is the one that works | `setup` | torture |
//! | No secret is in a log, an error, a URL, a `Debug` output or the landlord in plain text | `canary` | |
//! | No password is sent to an address that was changed in the landlord without the keys | `trust` | |
//! | A refused start changes nothing; keys can be replaced while nodes run | `keys` | |
//! | The connections of a node to a server never exceed their limit; no query sees another tenant's session | `budget`, `resolver`, `breaks` | `cargo bench --bench pool`, `--bench soak` |
//! | After a migration no node uses a session of the old schema; a statement that was executed never runs twice | `schema_changes` | |
//! | A caller's advisory locks and `LISTEN`s do not reach the next caller of its session | `handover`, `listener` | |
//! | `&TenantPool` can be used where sqlx takes `&PgPool` | `drop_in` | |
//! | A change of a tenant reaches every node within seconds, also when the notification queue is full | `changes`, `notifications` | |
//! | One write moves a server to a new address, and an old address that still answers is refused | `servers` | |
//! | Reads use a replica while it answers, and an operation that closes a tenant also ends its sessions on the replica | `replicas`, `failover` | |
//! | All implementations of a store's trait behave the same | `registry`, `seams`, and the conformance suites of feature `testing` | |
//! | Decisions are made by SQLSTATE: a server in another language behaves the same | `language`, and the suite on a German server | `.ci/run` |
