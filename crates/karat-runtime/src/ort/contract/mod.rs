//! What a graph promises in its metadata, held against its inputs and outputs when it is loaded.
//!
//! `karat.contract` names the promise; without it a graph is an ordinary one of padded rows.

mod logits;
mod packed;
mod prefix;

use std::collections::BTreeMap;

use karat_rules::domain::{ElementType, GraphSignature, TensorSpec};

use crate::{Padding, RuntimeError, TextNeeds};

pub(super) use logits::LogitColumns;
pub(super) use packed::{PackedContract, names as packed_names};
pub(super) use prefix::{PrefixContract, names as prefix_names};

/// The metadata that names the contract.
const CONTRACT_KEY: &str = "karat.contract";

/// A contract that a graph keeps.
#[derive(Debug, Clone)]
pub(super) enum Contract {
    /// `rm-prefix/1`: rows behind keys and values that are handed in.
    Prefix(PrefixContract),
    /// `rm-packed/1`: packed rows over blocks of keys and values.
    Packed(PackedContract),
}

impl Contract {
    /// Whether a graph with such metadata says that it follows a contract.
    pub(super) fn is_claimed(metadata: &BTreeMap<String, String>) -> bool {
        metadata.contains_key(CONTRACT_KEY)
    }

    /// Whether a graph with such metadata says that it takes packed rows.
    pub(super) fn claims_packed(metadata: &BTreeMap<String, String>) -> bool {
        metadata.get(CONTRACT_KEY).is_some_and(|name| name == packed::NAME)
    }

    /// Reads the contract; `None` when the graph claims none.
    pub(super) fn read(
        metadata: &BTreeMap<String, String>,
        signature: &GraphSignature,
    ) -> Result<Option<Self>, RuntimeError> {
        let Some(name) = metadata.get(CONTRACT_KEY) else { return Ok(None) };
        let promise = |name| Promise { name, metadata, signature };
        match name.as_str() {
            prefix::NAME => PrefixContract::read(&promise(prefix::NAME)).map(Self::Prefix).map(Some),
            packed::NAME => PackedContract::read(&promise(packed::NAME)).map(Self::Packed).map(Some),
            _ => Err(refuse(
                format!("the graph follows the contract {name:?}, which this karat doesn't know"),
                format!("export it for {:?} or {:?}, or use a newer karat", prefix::NAME, packed::NAME),
            )),
        }
    }
}

/// What a graph says, and what it has.
struct Promise<'a> {
    /// The contract's name, for messages.
    name: &'static str,
    metadata: &'a BTreeMap<String, String>,
    signature: &'a GraphSignature,
}

/// An input or output that a contract knows: its name, number format and number of axes.
type Expected<'a> = (&'a str, ElementType, usize);

impl Promise<'_> {
    /// What the metadata says under a key.
    fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// A whole number above 0 that the metadata has to hold.
    fn number(&self, key: &str) -> Result<usize, RuntimeError> {
        let written = self.text(key);
        written.and_then(|written| written.parse::<usize>().ok()).filter(|number| *number > 0).ok_or_else(|| {
            refuse(
                format!("the graph's metadata {key} is {}", written.unwrap_or("missing")),
                "export it with a positive whole number there",
            )
        })
    }

    /// Where the score of a text stands, if the model has a token that it takes for padding.
    fn padding(&self) -> Result<Option<Padding>, RuntimeError> {
        let pad_id = self.pad_id()?;
        match self.text("karat.pad_rule") {
            None | Some("last_other") => Ok(pad_id.map(Padding::LastOther)),
            Some("before_first") => Ok(pad_id.map(Padding::BeforeFirst)),
            Some(written) => Err(refuse(
                format!("the graph's metadata karat.pad_rule is {written:?}"),
                "write \"last_other\" or \"before_first\", or leave it out for the first",
            )),
        }
    }

    /// What texts must hold.
    fn needs(&self) -> Result<TextNeeds, RuntimeError> {
        let gate_mark = match self.text("karat.gates") {
            None => false,
            Some("at_mark") => true,
            Some(written) => {
                return Err(refuse(
                    format!("the graph's metadata karat.gates is {written:?}"),
                    "write \"at_mark\", or leave it out where weights are read with the score",
                ));
            }
        };
        Ok(TextNeeds { gate_mark, last_token: self.text("karat.last_token").map(str::to_owned) })
    }

    fn pad_id(&self) -> Result<Option<u32>, RuntimeError> {
        let read = |written: &str| {
            written.parse().map_err(|_| {
                refuse(
                    format!("the graph's metadata karat.pad_id is {written:?}"),
                    "write a token id, or leave it out when the model has no padding token",
                )
            })
        };
        self.text("karat.pad_id").map(read).transpose()
    }

    fn find<'t>(&self, tensors: &'t [TensorSpec], name: &str) -> Result<&'t TensorSpec, RuntimeError> {
        tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| {
            refuse(
                format!("the graph has no {name:?}"),
                format!("export it as the contract {} says, or without naming the contract in its metadata", self.name),
            )
        })
    }

    /// Whether the graph's inputs are exactly these.
    fn takes<'t>(&self, expected: impl Iterator<Item = Expected<'t>>) -> Result<(), RuntimeError> {
        let mut known = Vec::new();
        for (name, element, rank) in expected {
            self.expect(self.find(&self.signature.inputs, name)?, element, rank)?;
            known.push(name);
        }
        match self.signature.inputs.iter().find(|input| !known.contains(&input.name.as_str())) {
            Some(unknown) => Err(refuse(format!("nothing feeds the input {unknown}"), "export the graph without it")),
            None => Ok(()),
        }
    }

    /// The outputs that are read at positions: all but `kept`, which have to be there.
    fn gives(&self, kept: &[String], element: ElementType) -> Result<Vec<TensorSpec>, RuntimeError> {
        for name in kept {
            self.expect(self.find(&self.signature.outputs, name)?, element, 4)?;
        }
        let outputs: Vec<TensorSpec> =
            self.signature.outputs.iter().filter(|output| !kept.contains(&output.name)).cloned().collect();
        match outputs.iter().find(|output| !output.element.is_float() || output.shape.len() != 2) {
            Some(odd) => Err(refuse(format!("output {odd} doesn't fit"), "export it as float [positions, width]")),
            None => Ok(outputs),
        }
    }

    fn expect(&self, tensor: &TensorSpec, element: ElementType, rank: usize) -> Result<(), RuntimeError> {
        if tensor.element == element && tensor.shape.len() == rank {
            return Ok(());
        }
        Err(refuse(
            format!("{tensor} doesn't fit the contract {}", self.name),
            format!("export it as {element} with {rank} axes"),
        ))
    }
}

fn refuse(found: impl Into<String>, advice: impl Into<String>) -> RuntimeError {
    RuntimeError::Binding { found: found.into(), advice: advice.into() }
}

/// What both contracts' tests are made of.
#[cfg(test)]
mod testing {
    use karat_rules::domain::Dimension;

    use super::{ElementType, TensorSpec};

    pub(super) fn tensor(name: &str, element: ElementType, rank: usize) -> TensorSpec {
        TensorSpec { name: name.to_owned(), element, shape: vec![Dimension::Dynamic(String::new()); rank] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_without_a_contract_is_an_ordinary_one() {
        let signature = GraphSignature { inputs: Vec::new(), outputs: Vec::new() };
        assert!(Contract::read(&BTreeMap::new(), &signature).unwrap().is_none());
        let unknown = BTreeMap::from([(CONTRACT_KEY.to_owned(), "rm-prefix/2".to_owned())]);
        let error = Contract::read(&unknown, &signature).unwrap_err().to_string();
        assert!(error.contains("rm-prefix/2") && error.contains("rm-packed/1"), "{error}");
    }
}
