//! The conformance suite of [`Nodes`]: heartbeats, which nodes are live, and the shares of connections.
use super::assertions::expect_ok;
use crate::store::nodes::{LiveNode, Node, Nodes, Share};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// Checks heartbeats, leaving, which nodes are live, and the shares. No other node may be live in the store.
///
/// # Panics
/// If the implementation breaks the contract of [`Nodes`]. The message names the rule.
pub async fn nodes(nodes: impl Nodes) {
    let (mut one, two) = (Node::here(), Node::here());
    assert_ne!(one.id, two.id, "expected: each call of Node::here() creates a new id");
    for node in [&one, &two, &one] {
        expect_ok(nodes.record_heartbeat(node).await, "record_heartbeat() records a heartbeat and can be repeated");
    }
    let ids = |live: Vec<LiveNode>| live.into_iter().map(|n| n.node.id).collect::<Vec<_>>();
    let live = ids(expect_ok(nodes.list_live(HOUR).await, "list_live() lists nodes"));
    assert!(live.contains(&one.id) && live.contains(&two.id), "expected: both nodes are live; got: {live:?}");
    let read = ids(expect_ok(nodes.read_live(HOUR).await, "read_live() lists nodes"));
    assert_eq!(read, live, "expected: read_live() lists the same nodes as list_live()");
    // Any heartbeat is older than zero time as soon as the store's clock has advanced.
    for _ in 0..1000 {
        if expect_ok(nodes.list_live(Duration::ZERO).await, "list_live() lists nodes").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let live = ids(expect_ok(nodes.list_live(Duration::ZERO).await, "list_live() lists nodes"));
    assert_eq!(live, [], "expected: a node without a heartbeat within the given time is not live");
    one.name = "renamed".into();
    expect_ok(nodes.record_heartbeat(&one).await, "record_heartbeat() replaces the name");
    let live = expect_ok(nodes.list_live(HOUR).await, "list_live() lists nodes");
    let name = live.into_iter().find(|n| n.node.id == one.id).map(|n| n.node.name);
    assert_eq!(name, Some(one.name.clone()), "expected: live() returns the name of the last heartbeat");
    check_shares(&nodes, &one, &two).await;
    for _ in 0..2 {
        expect_ok(nodes.leave(one.id).await, "leave() removes a node and can be repeated");
    }
    let live = ids(expect_ok(nodes.list_live(HOUR).await, "list_live() lists nodes"));
    let is_removed = !live.contains(&one.id) && live.contains(&two.id);
    assert!(is_removed, "expected: leave() removes this node and no other; got: {live:?}");
}

/// The shares never add up to more than the whole, and two nodes end with equal shares.
async fn check_shares(nodes: &impl Nodes, one: &Node, two: &Node) {
    let claim = async |node: &Node, held| {
        expect_ok(nodes.claim_share(node.id, held, HOUR).await, "claim_share() returns a share")
    };
    let unregistered = claim(&Node::here(), Share::NONE).await;
    assert_eq!(unregistered, Share::NONE, "expected: a node that never called beat() gets no share");
    let first = claim(one, Share::NONE).await;
    assert!(first > Share::NONE, "expected: every live node gets a share");
    assert_eq!(claim(two, Share::NONE).await, first, "expected: the shares of two live nodes are equal");
    claim(one, Share::ALL).await;
    let second = claim(two, Share::NONE).await;
    assert_eq!(second, Share::NONE, "expected: claim() never grants what another node still holds");
    assert_eq!(
        claim(one, Share::NONE).await,
        first,
        "expected: a node gets its equal share after it closed connections"
    );
    assert_eq!(claim(two, Share::NONE).await, first, "expected: the other node gets its equal share again");
}
