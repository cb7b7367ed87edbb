//! Pairs of damages, each pair on a tenant of its own: all of them are repaired, and nothing else is found before or after.
//! `TENANTRY_TEST_PAIRS=all` takes all 190 pairs, which needs minutes; without it a quarter of them is taken, in which
//! each damage occurs.
use super::drifts::{DRIFTS, configured};
use super::fleet::{self, Before, Drift, Names};
use futures_util::{StreamExt, stream};
use std::collections::BTreeSet;
use tenantry::testing::Harness;

/// The damages that are combined. One that keeps a superuser from entering the database or drops the login comes last,
/// because the SQL of the others needs both.
const PAIRED: [&str; 20] = [
    "public-entrant",
    "member-entrant",
    "login-createrole",
    "app-creates",
    "placement-missing",
    "login-refused",
    "login-expired",
    "login-without-role-setting",
    "login-password",
    "login-extra",
    "login-limit",
    "secret-missing",
    "secret-unreadable",
    "login-not-dropped",
    "login-unrecorded",
    "users-disagree",
    "migrator-left",
    "entry-missing",
    "database-closed",
    "login-missing",
];

/// Without entry and placement nothing tells where the database is, so a person has to.
const LEFT: (&str, &str) = ("placement-missing", "entry-missing");

/// Tenants that are provisioned or damaged at once.
const CONCURRENCY: usize = 8;

struct Pair {
    slug: String,
    damages: [&'static Drift; 2],
    names: Names,
}

fn drift(name: &str) -> &'static Drift {
    DRIFTS.iter().find(|drift| drift.name == name).unwrap_or_else(|| panic!("no damage {name}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pair_of_damages_is_repaired_in_a_fleet_without_other_findings() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    fleet::create_stranger(&harness).await;
    let takes_all = std::env::var("TENANTRY_TEST_PAIRS").is_ok_and(|pairs| pairs == "all");
    let pairs = (0..PAIRED.len()).flat_map(|a| (a + 1..PAIRED.len()).map(move |b| (a, b)));
    let pairs = pairs.filter(move |(a, b)| takes_all || (a + b) % 4 == 0);
    let provisioned = stream::iter(pairs).map(|(a, b)| {
        let (harness, tenantry) = (&harness, &tenantry);
        async move {
            let slug = format!("pair-{a}-{b}");
            let names = fleet::provision(harness, tenantry, &slug, Before::Active).await;
            Pair { slug, damages: [drift(PAIRED[a]), drift(PAIRED[b])], names }
        }
    });
    let pairs: Vec<Pair> = provisioned.buffer_unordered(CONCURRENCY).collect().await;
    fleet::assert_clean(&tenantry, "before any damage").await;
    for pair in &pairs {
        for damage in pair.damages {
            fleet::inject(&harness, &pair.names, damage.damage).await;
        }
    }
    let plan = tenantry.doctor().examine().await.unwrap();
    let found = fleet::codes_by_tenant(&plan);
    for Pair { slug, damages, names } in &pairs {
        let expected: BTreeSet<&str> = damages.iter().flat_map(|d| d.codes).map(|code| code.as_str()).collect();
        let found = found.get(&names.id).cloned().unwrap_or_default();
        let case = format!("{slug} ({} and {})", damages[0].name, damages[1].name);
        assert!(!found.is_disjoint(&expected), "{case}: found {found:?}, expected of {expected:?}");
    }

    fleet::repair_all(&tenantry).await;

    let after = tenantry.doctor().examine().await.unwrap();
    let left = fleet::codes_by_tenant(&after);
    for Pair { slug, damages: [one, other], names } in &pairs {
        let found = left.get(&names.id).cloned().unwrap_or_default();
        let is_left = (one.name, other.name) == LEFT;
        assert_eq!(!found.is_empty(), is_left, "{slug} ({} and {}): {found:?} is left", one.name, other.name);
    }
    assert_eq!(after.tenants as usize, pairs.len());
    for Pair { slug, damages: [one, other], .. } in
        pairs.iter().filter(|p| (p.damages[0].name, p.damages[1].name) != LEFT)
    {
        let case = format!("{slug} ({} and {})", one.name, other.name);
        let pool = tenantry.resolve(slug.as_str()).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
        let added = tenantry::sqlx::query("INSERT INTO notes (text) VALUES ('')").execute(&pool).await;
        added.unwrap_or_else(|error| panic!("{case}: {error:?}"));
    }
}
