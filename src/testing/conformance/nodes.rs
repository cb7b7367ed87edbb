//! [`Nodes`].
use super::assertions::expect_ok;
use crate::store::nodes::{Node, Nodes, Share};
use std::time::Duration;

/// Beating, leaving, and who counts as live.
///
/// # Panics
/// When a promise of [`Nodes`] is broken.
pub async fn nodes(nodes: impl Nodes) {
    const HOUR: Duration = Duration::from_secs(3600);
    let (mut one, two) = (Node::here(), Node::here());
    assert_ne!(one.id, two.id, "expected: each start is a node of its own");
    for node in [&one, &two, &one] {
        expect_ok(nodes.beat(node).await, "a node beats, also again");
    }
    let ids = |live: Vec<crate::store::nodes::LiveNode>| live.into_iter().map(|n| n.node.id).collect::<Vec<_>>();
    let live = ids(expect_ok(nodes.live(HOUR).await, "who beats is live"));
    assert!(live.contains(&one.id) && live.contains(&two.id), "expected: both are live; {live:?}");
    // Any time at all is longer than no time.
    for _ in 0..1000 {
        if expect_ok(nodes.live(Duration::ZERO).await, "who was live lately").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let live = ids(expect_ok(nodes.live(Duration::ZERO).await, "who was live lately"));
    assert_eq!(live, [], "expected: who gave no sign within the time is not live");
    one.facts = serde_json::json!({ "generation": 7 });
    expect_ok(nodes.beat(&one).await, "a beat says something new");
    let told = expect_ok(nodes.live(HOUR).await, "it is told").into_iter().find(|n| n.node.id == one.id);
    assert_eq!(told.map(|n| n.node.facts), Some(one.facts.clone()), "expected: the newest facts are told");
    shares(&nodes, &one, &two).await;
    for _ in 0..2 {
        expect_ok(nodes.leave(one.id).await, "leaving, also twice");
    }
    let live = ids(expect_ok(nodes.live(HOUR).await, "the other stays"));
    assert!(!live.contains(&one.id) && live.contains(&two.id), "expected: who left is not live; {live:?}");
}

/// Whoever else is live, at most all is given away, and two nodes end with equal parts.
async fn shares(nodes: &impl Nodes, one: &Node, two: &Node) {
    const HOUR: Duration = Duration::from_secs(3600);
    let claim = async |node: &Node, held| expect_ok(nodes.claim(node.id, held, HOUR).await, "a live node has a part");
    assert_eq!(claim(&Node::here(), Share::NONE).await, Share::NONE, "expected: who has not beaten has no part");
    let first = claim(one, Share::NONE).await;
    assert!(first > Share::NONE, "expected: there is something for everybody");
    assert_eq!(claim(two, Share::NONE).await, first, "expected: parts are equal");
    claim(one, Share::ALL).await;
    assert_eq!(claim(two, Share::NONE).await, Share::NONE, "expected: nobody gets what another node still has");
    assert_eq!(claim(one, Share::NONE).await, first, "expected: what is closed is free");
    assert_eq!(claim(two, Share::NONE).await, first, "expected: parts are equal again");
}
