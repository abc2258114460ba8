//! The cache under several threads: what is found, what is waited for, and what goes first.

use std::thread;

use karat_rules::domain::ElementType;
use prometheus::Registry;

use super::*;
use crate::{DecoderShape, Numbers, telemetry::PrefixMetrics};

const SHAPE: DecoderShape =
    DecoderShape { layers: 1, kv_heads: 1, head_dim: 1, context: 1000, element: ElementType::Float32 };
const BYTES: u64 = (BLOCK * 8 + OVERHEAD) as u64;

fn cache(blocks: u64) -> PrefixCache {
    PrefixCache::new(blocks * BYTES, PrefixMetrics::register(&Registry::new()).unwrap().cache())
}

fn values(number: f32) -> Arc<KeyValues> {
    Arc::new(KeyValues::new(&SHAPE, BLOCK, Numbers::Float32([number; 2 * BLOCK].into())).unwrap())
}

/// Keeps every block of a text that begins with `letter`s.
fn keep(cache: &PrefixCache, root: u64, ids: &[u32]) -> Option<Place> {
    let found = cache.find(root, ids, ids.len());
    let mut place = found.place;
    for block in ids[found.tokens..].chunks_exact(BLOCK) {
        place = cache.insert(root, place, block, values(block[0] as f32))?;
    }
    Some(place)
}

fn text(letters: &[u32]) -> Vec<u32> {
    letters.iter().flat_map(|letter| [*letter; BLOCK]).collect()
}

fn known(cache: &PrefixCache, root: u64, ids: &[u32]) -> usize {
    cache.find(root, ids, ids.len()).tokens / BLOCK
}

#[test]
fn a_text_finds_exactly_the_blocks_that_it_begins_with() {
    let cache = cache(100);
    let (root, other) = (cache.new_root(), cache.new_root());
    keep(&cache, root, &text(&[1, 2, 3])).unwrap();
    for (ids, blocks) in
        [(text(&[1, 2, 3]), 3), (text(&[1, 2, 4]), 2), (text(&[2, 3]), 0), (text(&[1, 2])[..31].to_vec(), 1)]
    {
        assert_eq!(known(&cache, root, &ids), blocks, "{ids:?}");
        assert_eq!(known(&cache, other, &ids), 0, "another graph's");
    }
    let found = cache.find(root, &text(&[1, 2, 3]), 47);
    assert_eq!((found.tokens, found.past.len()), (32, 2), "no block reaches beyond what is wanted");
    assert_eq!(found.past[1].values.numbers(), values(2.0).numbers());
    // One token differs in the middle of the first block.
    let mut odd = text(&[1, 2]);
    odd[7] = 9;
    assert_eq!(known(&cache, root, &odd), 0);
}

#[test]
fn the_least_recently_used_go_first_and_ends_before_beginnings() {
    let cache = cache(4);
    let root = cache.new_root();
    keep(&cache, root, &text(&[1, 2])).unwrap();
    keep(&cache, root, &text(&[5, 6])).unwrap();
    assert_eq!(known(&cache, root, &text(&[1, 2])), 2);
    keep(&cache, root, &text(&[1, 3])).unwrap();
    assert_eq!(known(&cache, root, &text(&[5, 6])), 1, "its end went");
    assert_eq!(known(&cache, root, &text(&[1, 2])) + known(&cache, root, &text(&[1, 3])), 4);
    assert!(cache.bytes() as u64 <= 4 * BYTES);
}

#[test]
fn a_text_that_does_not_fit_keeps_its_beginning() {
    let cache = cache(2);
    let root = cache.new_root();
    assert_eq!(keep(&cache, root, &text(&[1, 2, 3, 4])), None);
    assert_eq!(known(&cache, root, &text(&[1, 2, 3, 4])), 2);
    let nothing = PrefixCache::new(0, PrefixMetrics::register(&Registry::new()).unwrap().cache());
    assert_eq!(keep(&nothing, 1, &text(&[1])), None);
    assert_eq!(nothing.bytes(), 0);
}

#[test]
fn a_graph_is_forgotten_and_no_other() {
    let cache = cache(100);
    let (root, other) = (cache.new_root(), cache.new_root());
    keep(&cache, root, &text(&[1, 2])).unwrap();
    keep(&cache, other, &text(&[1])).unwrap();
    cache.forget(root);
    assert_eq!((known(&cache, root, &text(&[1, 2])), known(&cache, other, &text(&[1]))), (0, 1));
    assert_eq!(cache.bytes() as u64, BYTES);
}

#[test]
fn a_block_after_one_that_went_is_not_kept() {
    let cache = cache(2);
    let root = cache.new_root();
    let place = keep(&cache, root, &text(&[1])).unwrap();
    keep(&cache, root, &text(&[5, 6])).unwrap();
    assert_eq!(known(&cache, root, &text(&[1])), 0);
    assert_eq!(cache.insert(root, place, &text(&[2]), values(2.0)), None);
}

#[test]
fn a_worker_waits_for_what_another_computes() {
    let cache = cache(100);
    let root = cache.new_root();
    let first = PrefixHash::start(root).extended(&text(&[1]));
    let second = first.extended(&text(&[2]));
    let (ours, theirs) = (cache.claimant(), cache.claimant());
    let tokens = |claimant: &Claimant, letters: &[u32]| {
        let ids = text(letters);
        claimant.find_or_claim(root, &ids, ids.len(), ids.len()).map(|found| found.tokens)
    };
    assert_eq!(tokens(&ours, &[1, 2]), Ok(0));
    assert_eq!(tokens(&ours, &[1]), Ok(0), "its own claims are no hindrance");
    assert_eq!(tokens(&theirs, &[1]), Err(first));
    assert_eq!(tokens(&theirs, &[]), Ok(0), "nothing is missing");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| cache.wait(first, &Cancellation::new()));
        keep(&cache, root, &text(&[1]));
        ours.release(first);
        waiter.join().unwrap();
    });
    assert_eq!(tokens(&theirs, &[1]), Ok(BLOCK), "what was computed meanwhile is found, not claimed");
    assert_eq!(tokens(&theirs, &[1, 2]), Err(second));
    drop(ours);
    assert_eq!(tokens(&theirs, &[1, 2]), Ok(BLOCK), "given up");
    let cancel = Cancellation::new();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| cache.wait(second, &cancel));
        cancel.cancel();
        waiter.join().unwrap();
    });
}

#[test]
fn a_block_never_outlives_the_one_before() {
    let cache = cache(3);
    let root = cache.new_root();
    let long = text(&[1, 2, 3]);
    let place = cache.find(root, &long, 0).place;
    let first = cache.insert(root, place, &text(&[1]), values(1.0)).unwrap();
    // Others come and go while the text's next block is computed.
    keep(&cache, root, &text(&[7])).unwrap();
    cache.insert(root, first, &text(&[2]), values(2.0)).unwrap();
    keep(&cache, root, &text(&[8])).unwrap();
    assert_eq!(known(&cache, root, &text(&[7])), 1);
    assert_eq!(known(&cache, root, &text(&[8])), 1);
    assert_eq!(known(&cache, root, &long), 1, "its last block went first");
}
