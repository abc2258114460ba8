//! What the members of an ensemble of adapters have beside the base that they share.
//!
//! Their tensors lie among the base's under names of their own, so that they are read and digested like any other.

use std::collections::BTreeMap;

use super::{Place, Update, Weights};

/// What an adapter changes, by the names of the base's tensors.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// What is added to a matrix.
    pub(crate) updates: Vec<(String, Update)>,
    /// What takes a tensor's place, or is new.
    pub(crate) replaced: Vec<(String, Place)>,
}

impl Changes {
    /// The shape of a tensor that takes another's place.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.replaced.iter().find(|(replaced, _)| replaced == name).map(|(_, place)| place.shape.as_slice())
    }
}

/// One member, by the names of the base's tensors.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// What is added to a matrix.
    updates: BTreeMap<String, LowRank>,
    /// The names of tensors that it has in the place of the base's, or alone.
    own: BTreeMap<String, String>,
}

/// `s·B·A`, which is added to a matrix, by the names of its halves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LowRank {
    /// `A` `[rank, columns]`; of a table of embeddings `[rank, rows]`.
    pub(crate) down: String,
    /// `B` `[rows, rank]`; of a table of embeddings `[columns, rank]`.
    pub(crate) up: String,
    /// `s`.
    pub(crate) scale: f32,
    /// The rank.
    pub(crate) rank: usize,
}

impl Weights {
    /// Puts an adapter beside those that are there already.
    pub(crate) fn add_member(&mut self, changes: Changes) {
        let number = self.members.len();
        let mut member = Member::default();
        for (name, Update { down, up, scale, .. }) in changes.updates {
            let halves = ["down", "up"].map(|half| format!("{number}:{name}.{half}"));
            let [down_name, up_name] = halves.clone();
            let rank = down.shape.first().copied().unwrap_or(0);
            self.places.extend(halves.into_iter().zip([down, up]));
            member.updates.insert(name, LowRank { down: down_name, up: up_name, scale, rank });
        }
        for (name, place) in changes.replaced {
            let own = format!("{number}:{name}");
            self.places.insert(own.clone(), place);
            member.own.insert(name, own);
        }
        self.members.push(member);
    }

    /// The members of an ensemble of adapters; none where the checkpoint is a model by itself.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether members differ in a tensor.
    pub(crate) fn differs(&self, name: &str) -> bool {
        self.is_replaced_by_some(name) || self.members.iter().any(|member| member.updates.contains_key(name))
    }

    /// Whether a member has a tensor of its own in the place of the base's.
    pub(crate) fn is_replaced_by_some(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.own.contains_key(name))
    }

    /// The tensors of a member as if it were a model by itself, by which its head is found.
    pub(crate) fn as_member(&self, member: &Member) -> Self {
        let mut places = self.places.clone();
        let own = member.own.iter().filter_map(|(name, own)| Some((name.clone(), self.places.get(own)?.clone())));
        places.extend(own);
        Self { places, ..Self::default() }
    }
}

impl Member {
    /// The name of its own tensor in the place of the base's.
    pub(crate) fn own(&self, name: &str) -> Option<&str> {
        self.own.get(name).map(String::as_str)
    }

    /// What it adds to a matrix.
    pub(crate) fn low_rank(&self, name: &str) -> Option<&LowRank> {
        self.updates.get(name)
    }
}
