//! Texts as forests: what several texts begin with stands once, and what is known already not at all.
//!
//! Each tree grows out of a beginning that the cache holds, perhaps an empty one. A node is a run of tokens that the
//! same texts have in common; its children are the ways in which they go on.

use std::{cmp::Ordering, collections::HashMap, ops::Range};

use super::cache::CachedPrefix;
use crate::{chain::Place, readout::Text};

/// A run of tokens that are computed together.
#[derive(Debug)]
pub(super) struct Node {
    /// A text that has these tokens.
    pub(super) text: usize,
    /// Where they stand in it.
    pub(super) range: Range<usize>,
    pub(super) parent: Option<usize>,
    /// The beginning that the tree grows out of.
    pub(super) root: usize,
    /// What is read of these tokens: a text and the number of its read.
    pub(super) reads: Vec<(usize, usize)>,
    /// Up to which position the keys and values are worth keeping for later requests.
    pub(super) lasting: usize,
    /// How many tokens the node and all nodes below it have.
    pub(super) below: usize,
}

/// The nodes of all trees, each parent before its children, and each tree in one piece.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) nodes: Vec<Node>,
    pub(super) roots: Vec<CachedPrefix>,
}

impl Forest {
    /// The forest of those of `texts` that `known` holds a beginning for.
    pub(super) fn grow(texts: &[Text<'_>], known: Vec<(usize, CachedPrefix)>) -> Self {
        let mut forest = Self::default();
        let mut root_of: HashMap<(Place, usize), usize> = HashMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (text, found) in known {
            let root = *root_of.entry((found.place, found.tokens)).or_insert_with(|| {
                forest.roots.push(found);
                members.push(Vec::new());
                forest.roots.len() - 1
            });
            members[root].push(text);
        }
        for (root, mut members) in members.into_iter().enumerate() {
            let start = forest.roots[root].tokens;
            let rest = |text: usize| &texts[text].ids[start..texts[text].needed];
            members.sort_by(|a, b| rest(*a).cmp(rest(*b)).then(a.cmp(b)));
            forest.branch(texts, &members, start, None, root);
        }
        for node in (0..forest.nodes.len()).rev() {
            forest.nodes[node].below += forest.nodes[node].range.len();
            if let Some(parent) = forest.nodes[node].parent {
                forest.nodes[parent].below += forest.nodes[node].below;
            }
        }
        forest
    }

    /// Adds the nodes of sorted texts that are the same up to `start`.
    fn branch(&mut self, texts: &[Text<'_>], members: &[usize], start: usize, parent: Option<usize>, root: usize) {
        // Each entry is a group of sorted texts that share everything up to where it starts and the token after that.
        let mut groups = vec![(members, start, parent)];
        while let Some((members, start, parent)) = groups.pop() {
            let mut rest = members;
            let mut found = Vec::new();
            while let Some((&first, _)) = rest.split_first() {
                if texts[first].needed <= start {
                    rest = &rest[1..];
                    continue;
                }
                let token = texts[first].ids[start];
                let same = rest.partition_point(|text| texts[*text].ids[start].cmp(&token) != Ordering::Greater);
                let (group, others) = rest.split_at(same);
                let last = group[group.len() - 1];
                let end = start + common(texts, first, last, start);
                let node = self.nodes.len();
                self.nodes.push(Self::node(texts, group, start..end, parent, root));
                found.push((group, end, Some(node)));
                rest = others;
            }
            groups.extend(found.into_iter().rev());
        }
        // Parents came before their children, but trees below siblings are mixed up.
        self.sort(root);
    }

    fn node(texts: &[Text<'_>], group: &[usize], range: Range<usize>, parent: Option<usize>, root: usize) -> Node {
        let reads = group.iter().flat_map(|text| {
            let reads = texts[*text].reads.iter().enumerate();
            reads.filter(|(_, read)| range.contains(&read.at)).map(|(read, _)| (*text, read))
        });
        // What several texts of one batch share, later ones may share as well.
        let lasting = match group {
            [only] => texts[*only].lasting.min(range.end),
            _ => range.end,
        };
        Node { text: group[0], reads: reads.collect(), range, parent, root, lasting, below: 0 }
    }

    /// Brings the nodes of the last tree into depth-first order.
    fn sort(&mut self, root: usize) {
        let first = self.nodes.iter().position(|node| node.root == root).unwrap_or(self.nodes.len());
        let mut nodes: Vec<Option<Node>> = self.nodes.drain(first..).map(Some).collect();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        let mut waiting = Vec::new();
        for (at, node) in nodes.iter().enumerate().rev() {
            match node.as_ref().and_then(|node| node.parent) {
                Some(parent) => children[parent - first].push(at),
                None => waiting.push((at, None)),
            }
        }
        while let Some((at, parent)) = waiting.pop() {
            let Some(node) = nodes[at].take() else { continue };
            let place = self.nodes.len();
            self.nodes.push(Node { parent, ..node });
            waiting.extend(children[at].iter().map(|child| (*child, Some(place))));
        }
    }

    /// How many tokens have to be computed.
    pub(super) fn tokens(&self) -> usize {
        self.nodes.iter().map(|node| node.range.len()).sum()
    }
}

/// How many tokens from `start` on two texts have in common, as far as they are needed.
fn common(texts: &[Text<'_>], a: usize, b: usize, start: usize) -> usize {
    let rest = |text: usize| &texts[text].ids[start..texts[text].needed];
    rest(a).iter().zip(rest(b)).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{super::cache::PrefixHash, *};
    use crate::{Read, readout::TextRead};

    pub(in crate::prefix) fn text(ids: &[u32]) -> Text<'_> {
        Text::new(ids, vec![TextRead { at: ids.len() - 1, output: 0, what: Read::Numbers }], 0)
    }

    pub(in crate::prefix) fn nothing(root: u64) -> CachedPrefix {
        CachedPrefix { root, past: Vec::new(), place: Place::Root(root), hash: PrefixHash::start(root), tokens: 0 }
    }

    fn grow(texts: &[Text<'_>]) -> Forest {
        Forest::grow(texts, (0..texts.len()).map(|text| (text, nothing(0))).collect())
    }

    /// Each node as its tokens, its parent and the texts that are read in it.
    fn shown(texts: &[Text<'_>], forest: &Forest) -> Vec<(Vec<u32>, Option<usize>, Vec<usize>)> {
        let node = |node: &Node| {
            let tokens = texts[node.text].ids[node.range.clone()].to_vec();
            (tokens, node.parent, node.reads.iter().map(|(text, _)| *text).collect())
        };
        forest.nodes.iter().map(node).collect()
    }

    #[test]
    fn what_texts_begin_with_stands_once() {
        let texts: Vec<Text<'_>> =
            [[1, 2, 3, 4].as_slice(), &[1, 2, 5], &[9], &[1, 2, 3, 6], &[1, 2]].into_iter().map(text).collect();
        let forest = grow(&texts);
        assert_eq!(
            shown(&texts, &forest),
            [
                (vec![1, 2], None, vec![4]),
                (vec![3], Some(0), vec![]),
                (vec![4], Some(1), vec![0]),
                (vec![6], Some(1), vec![3]),
                (vec![5], Some(0), vec![1]),
                (vec![9], None, vec![2]),
            ]
        );
        assert_eq!(forest.nodes[0].below, 6);
        assert_eq!(forest.tokens(), 7);
    }

    #[test]
    fn tokens_behind_the_last_that_is_read_are_left_out() {
        let texts = [Text::new(&[1, 2, 3], vec![TextRead { at: 1, output: 0, what: Read::Numbers }], 3)];
        assert_eq!(shown(&texts, &grow(&texts)), [(vec![1, 2], None, vec![0])]);
        assert_eq!((texts[0].needed, texts[0].sharable, texts[0].lasting), (2, 1, 2));
    }

    #[test]
    fn trees_grow_out_of_what_is_known() {
        let ids: Vec<u32> = (0..20).collect();
        let texts = [text(&ids[..18]), text(&ids), text(&ids[..3])];
        let known = CachedPrefix { tokens: 16, place: Place::After(7), ..nothing(0) };
        let forest = Forest::grow(&texts, vec![(0, known.clone()), (1, known), (2, nothing(0))]);
        assert_eq!(
            shown(&texts, &forest),
            [(vec![16, 17], None, vec![0]), (vec![18, 19], Some(0), vec![1]), (vec![0, 1, 2], None, vec![2]),]
        );
        assert_eq!(forest.nodes.iter().map(|node| node.root).collect::<Vec<_>>(), [0, 0, 1]);
    }

    proptest! {
        #[test]
        fn every_path_is_a_text_and_no_two_siblings_begin_alike(texts in vec(vec(0..3_u32, 1..12), 1..20)) {
            let texts: Vec<Text<'_>> = texts.iter().map(|ids| text(ids)).collect();
            let forest = grow(&texts);
            let mut seen = vec![0; texts.len()];
            for (at, node) in forest.nodes.iter().enumerate() {
                prop_assert!(node.parent.is_none_or(|parent| parent < at && forest.nodes[parent].range.end == node.range.start));
                prop_assert!(!node.range.is_empty());
                for (text, read) in &node.reads {
                    seen[*text] += 1;
                    // The path from the root to the node spells the text.
                    let mut spelled = texts[node.text].ids[node.range.clone()].to_vec();
                    let mut parent = node.parent;
                    while let Some(at) = parent {
                        let node = &forest.nodes[at];
                        spelled.splice(0..0, texts[node.text].ids[node.range.clone()].iter().copied());
                        parent = node.parent;
                    }
                    prop_assert_eq!(&spelled[..=texts[*text].reads[*read].at], texts[*text].ids);
                }
                let token = texts[node.text].ids[node.range.start];
                let twins = forest.nodes.iter().filter(|other| {
                    other.parent == node.parent && texts[other.text].ids[other.range.start] == token
                });
                prop_assert_eq!(twins.count(), 1);
            }
            prop_assert!(seen.iter().all(|reads| *reads == 1));
        }
    }
}
