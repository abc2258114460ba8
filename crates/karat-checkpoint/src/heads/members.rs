//! The heads of an ensemble of adapters: one for each member, which reads that member's own state.

use super::{Head, Kind};
use crate::{config::Config, graphs::Nodes, problems::Problems, trunks::Decoder, weights::Weights};

/// A head for each member, each of which gives one number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Members(Vec<Head>);

impl Members {
    /// Finds the head of each member, which has the given name in messages.
    pub(super) fn find(
        kind: Kind,
        names: &[&str],
        weights: &Weights,
        config: &Config,
        problems: &mut Problems,
    ) -> Option<(Kind, Head)> {
        let mut heads = Vec::new();
        for (name, member) in names.iter().zip(weights.members()) {
            let own = weights.as_member(member);
            let found = problems.within(name, |problems| {
                let (kind, head) = Head::find_one(kind, &own, config, problems)?;
                let rows: usize = match (&head, kind) {
                    (Head::Linear(_) | Head::Mlp(_), Kind::Sequence) => head.rows(&own),
                    _ => 0,
                };
                match rows {
                    1 => Some((kind, head)),
                    _ => problems.add(format!(
                        "its head is {}, and members of an ensemble give one score for a whole text each: a matrix of one \
                         row, or two matrices with a rectifier between them; serve it as a model by itself",
                        head.name()
                    )),
                }
            });
            heads.extend(found);
        }
        (heads.len() == names.len())
            .then(|| (Kind::Sequence, Head::Members(Self(heads.into_iter().map(|(_, head)| head).collect()))))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// What the names of their tensors begin with.
    pub(super) fn name(&self) -> &str {
        self.0.first().map_or("", Head::name)
    }

    /// Adds them to a graph, from the members' final states `[m · members, hidden]`.
    pub(super) fn build(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) {
        let states = nodes.by_member(state, trunk.hidden);
        let mut scores = Vec::new();
        for (member, (head, state)) in self.0.iter().zip(states).enumerate() {
            let output = format!("scores_{member}");
            nodes.as_member(member, |nodes| head.build_into(nodes, trunk, &state, &output));
            scores.push(output);
        }
        nodes.concat_into("scores", &scores);
    }
}
