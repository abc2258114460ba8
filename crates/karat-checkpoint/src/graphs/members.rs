//! An ensemble of adapters in one graph, over weights that are there once.
//!
//! What a member computes stands beside what the others do: a value of a width has a row for each token and member, those
//! of a token one behind the other, `[tokens · members, width]`. So products with what members share see one matrix of
//! more rows, and to attention the same numbers are a token's heads, `[tokens, members · width]`: members are further
//! heads, of queries and of keys and values.
//!
//! What an adapter adds to a product is computed apart, `y = W x + s·B (A x)` (Hu et al. 2021, "LoRA").

use super::nodes::{Attribute, Nodes, signed};
use crate::{
    trunks::{Norm, Piece},
    weights::LowRank,
};

/// Whose weights are meant by a tensor's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Everybody's, who mustn't differ in them.
    All,
    /// The base's, whatever members add to them.
    Base,
    /// One member's.
    Member(usize),
}

impl Nodes<'_> {
    /// How many rows a token has: the members of an ensemble of adapters, or 1.
    pub(crate) fn members(&self) -> usize {
        self.weights.members().len().max(1)
    }

    /// The name of a tensor in the checkpoint, by whose it is.
    pub(super) fn resolve(&mut self, tensor: &str) -> String {
        if self.whose == Whose::All && self.weights.differs(tensor) {
            self.problems.add::<()>(format!(
                "the adapters change {tensor}, which all members of an ensemble share; serve each as a model by itself"
            ));
        }
        self.own(tensor).unwrap_or(tensor).to_owned()
    }

    /// The name of the tensor that this member has in another's place.
    pub(super) fn own(&self, tensor: &str) -> Option<&str> {
        let Whose::Member(member) = self.whose else { return None };
        self.weights.members().get(member).and_then(|member| member.own(tensor))
    }

    /// Whether this member adds to the matrix of a piece.
    pub(super) fn is_adapted(&self, piece: &Piece) -> bool {
        self.low_rank(&format!("{}.weight", piece.tensor)).is_some()
    }

    /// Adds nodes that compute with one member's weights.
    pub(crate) fn as_member<T>(&mut self, member: usize, add: impl FnOnce(&mut Self) -> T) -> T {
        self.as_whose(Whose::Member(member), add)
    }

    fn as_whose<T>(&mut self, whose: Whose, add: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.whose, whose);
        let added = add(self);
        self.whose = before;
        added
    }

    /// A value `[tokens · members, width]` as attention sees it, `[tokens, members · width]`.
    pub(super) fn folded(&mut self, value: &str, width: usize) -> String {
        match self.members() {
            1 => value.to_owned(),
            members => self.grouped(value, &[members * width]),
        }
    }

    /// A value `[tokens, members · width]` with a row for each member again.
    pub(super) fn unfolded(&mut self, value: &str, width: usize) -> String {
        match self.members() {
            1 => value.to_owned(),
            _ => self.grouped(value, &[width]),
        }
    }

    /// Some tokens' rows of a value.
    pub(super) fn gathered(&mut self, value: &str, width: usize, tokens: &str) -> String {
        let value = self.folded(value, width);
        let value = self.add("Gather", &[&value, tokens]);
        self.unfolded(&value, width)
    }

    /// Each member's rows of a value `[tokens · members, width]`, `[tokens, width]`.
    pub(crate) fn by_member(&mut self, value: &str, width: usize) -> Vec<String> {
        let members = self.members();
        let value = self.folded(value, width);
        let name = format!("Split_{}", self.nodes.len());
        let parts: Vec<String> = (0..members).map(|member| format!("{name}_{member}")).collect();
        let attributes = [("axis", Attribute::Int(-1)), ("num_outputs", Attribute::Int(signed(members)))];
        self.push("Split", &[&value], &parts, &attributes);
        parts
    }

    /// Members' values side by side along their last axis.
    pub(crate) fn concat_into(&mut self, output: &str, values: &[String]) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        self.push("Concat", &values, &[output.to_owned()], &[("axis", Attribute::Int(-1))]);
    }

    /// What each member makes of its rows of some values, each with its width; `width` is that of what comes out.
    fn each_member<const N: usize>(
        &mut self,
        values: [(&str, usize); N],
        width: usize,
        make: impl Fn(&mut Self, [&str; N]) -> String,
    ) -> String {
        let mut parts = values.map(|(value, width)| self.by_member(value, width).into_iter());
        let mut made = Vec::new();
        for member in 0..self.members() {
            // Each value has a part for each member.
            let own = parts.each_mut().map(|parts| parts.next().unwrap_or_default());
            made.push(self.as_member(member, |nodes| make(nodes, own.each_ref().map(String::as_str))));
        }
        self.side_by_side(&made, width)
    }

    /// Members' values `[tokens, width]` as the rows of one.
    fn side_by_side(&mut self, values: &[String], width: usize) -> String {
        let all = format!("Concat_{}", self.nodes.len());
        self.concat_into(&all, values);
        self.unfolded(&all, width)
    }

    /// Whether members differ in the matrix or in the bias of a piece that all compute with.
    pub(super) fn differs(&self, piece: &Piece) -> bool {
        let differs = |part| self.weights.differs(&format!("{}.{part}", piece.tensor));
        self.whose == Whose::All && (differs("weight") || differs("bias"))
    }

    /// What this member adds to a matrix.
    fn low_rank(&self, tensor: &str) -> Option<LowRank> {
        let Whose::Member(member) = self.whose else { return None };
        self.weights.members().get(member).and_then(|member| member.low_rank(tensor)).cloned()
    }

    /// A product that members differ in: that of what they share, and what each of them adds.
    pub(super) fn linear_of_members(&mut self, piece: &Piece, value: &str, shape: [usize; 2], bias: bool) -> String {
        let [rows, columns] = shape;
        let [weight, offset] = ["weight", "bias"].map(|part| format!("{}.{part}", piece.tensor));
        if self.weights.is_replaced_by_some(&weight) {
            return self
                .each_member([(value, columns)], rows, |nodes, [value]| nodes.linear(piece, value, shape, bias));
        }
        let shares_bias = bias && !self.weights.differs(&offset);
        let shared = self.as_whose(Whose::Base, |nodes| nodes.linear(piece, value, shape, shares_bias));
        self.each_member([(value, columns), (&shared, rows)], rows, |nodes, [value, shared]| {
            if !bias || shares_bias {
                return nodes.adapted(piece, value, shared, shape);
            }
            let offset = nodes.weight(&offset, &piece.rows, &shape[..1], false);
            let sum = nodes.add("Add", &[shared, &offset]);
            nodes.adapted(piece, value, &sum, shape)
        })
    }

    /// A product, and what this member adds to it.
    pub(super) fn adapted(&mut self, piece: &Piece, value: &str, product: &str, [rows, columns]: [usize; 2]) -> String {
        let Some(LowRank { down, up, scale, rank }) = self.low_rank(&format!("{}.weight", piece.tensor)) else {
            return product.to_owned();
        };
        let down = self.weight(&down, &[], &[rank, columns], false);
        let up = self.weight(&up, &piece.rows, &[rows, rank], false);
        let inner = self.add_with("Gemm", &[value, &down], &[("transB", Attribute::Int(1))]);
        let inner = self.rounded(&inner);
        let attributes = [("transB", Attribute::Int(1)), ("alpha", Attribute::Number(scale.into()))];
        let sum = self.add_with("Gemm", &[&inner, &up, product], &attributes);
        self.rounded(&sum)
    }

    /// A norm whose weights members differ in.
    pub(super) fn norm_of_members(&mut self, piece: &Piece, value: &str, size: usize, norm: Norm) -> String {
        self.each_member([(value, size)], size, |nodes, [value]| nodes.norm(piece, value, size, norm))
    }

    /// The embeddings of token ids `[tokens]`, a row for each token and member, from a table of that shape.
    pub(super) fn embedded(&mut self, piece: &Piece, shape: [usize; 2], ids: &str) -> String {
        let tensor = format!("{}.weight", piece.tensor);
        if !self.weights.differs(&tensor) {
            let table = self.table(piece, shape);
            let embedded = self.add("Gather", &[&table, ids]);
            let members = self.members();
            if members == 1 {
                return embedded;
            }
            let times = self.integers(&format!("times_{members}"), &[1, signed(members)]);
            let all = self.add("Tile", &[&embedded, &times]);
            return self.unfolded(&all, shape[1]);
        }
        let mut embedded = Vec::new();
        for member in 0..self.members() {
            embedded.push(self.as_member(member, |nodes| {
                let table = nodes.table(piece, shape);
                let own = nodes.add("Gather", &[&table, ids]);
                nodes.adapted_rows(&tensor, &own, shape, ids)
            }));
        }
        self.side_by_side(&embedded, shape[1])
    }

    /// Rows of a table of embeddings, and what this member adds to them.
    fn adapted_rows(&mut self, tensor: &str, rows: &str, [vocabulary, width]: [usize; 2], ids: &str) -> String {
        let Some(LowRank { down, up, scale, rank }) = self.low_rank(tensor) else { return rows.to_owned() };
        let down = self.weight(&down, &[], &[rank, vocabulary], false);
        let up = self.weight(&up, &[], &[width, rank], false);
        let inner = self.add_with("Gather", &[&down, ids], &[("axis", Attribute::Int(1))]);
        let alpha = ("alpha", Attribute::Number(scale.into()));
        let attributes = [("transA", Attribute::Int(1)), ("transB", Attribute::Int(1)), alpha];
        let sum = self.add_with("Gemm", &[&inner, &up, rows], &attributes);
        self.rounded(&sum)
    }
}
