//! The two attentions of packed rows: one contract, and what `PagedAttention` is told.
//!
//! That operator runs on NVIDIA GPUs alone. Its inputs and attributes are held here to their order and names in ONNX
//! Runtime's schema (`docs/ContribOperators.md`, `com.microsoft.PagedAttention`).

#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic")]

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use karat_checkpoint::{Checkpoint, Element, Form, Graph, NumbersMut, Origin};
use karat_onnx::{NodeProto, ValueInfoProto, tensor_proto::DataType, type_proto::Value as Type};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The inputs of `PagedAttention`, in their order.
const INPUTS: [&str; 17] = [
    "query",
    "key",
    "value",
    "key_cache",
    "value_cache",
    "cumulative_sequence_length",
    "past_seqlens",
    "block_table",
    "cos_cache",
    "sin_cache",
    "slot_mapping",
    "head_sink",
    "q_norm_weight",
    "k_norm_weight",
    "k_scale",
    "v_scale",
    "attention_metadata",
];

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints")
}

/// A recorded checkpoint, with other keys in its configuration.
fn checkpoint(name: &str, changes: &Value) -> (TempDir, Checkpoint) {
    let copy = TempDir::new().unwrap();
    for file in fs::read_dir(recorded().join(name)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fs::write(&path, config.to_string()).unwrap();
    let checkpoint = Checkpoint::read(&Origin::whole(copy.path())).unwrap();
    (copy, checkpoint)
}

/// What the attention of each layer is told, as names of inputs and attributes with their values.
struct Told(NodeProto);

impl Told {
    fn input(&self, name: &str) -> &str {
        let place = INPUTS.iter().position(|input| *input == name).unwrap();
        &self.0.input[place]
    }

    fn number(&self, name: &str) -> Option<f64> {
        let attribute = self.0.attribute.iter().find(|attribute| attribute.name() == name)?;
        Some(attribute.i.map_or_else(|| f64::from(attribute.f()), |value| f64::from(i32::try_from(value).unwrap())))
    }
}

fn attentions(name: &str, changes: &Value) -> Vec<Told> {
    let (_copy, checkpoint) = checkpoint(name, changes);
    let graph = checkpoint.graph_for(Form::Packed(Element::Bfloat16)).unwrap();
    let nodes = graph.model.graph.unwrap().node.into_iter();
    let nodes: Vec<Told> = nodes.filter(|node| node.op_type() == "PagedAttention").map(Told).collect();
    assert!(nodes.iter().all(|told| told.0.domain() == "com.microsoft" && told.0.input.len() == INPUTS.len()));
    nodes
}

#[test]
fn attention_is_told_of_caches_sequences_and_rotations() {
    let told = &attentions("llama3", &json!({}))[1];
    for (input, value) in [
        ("key", ""),
        ("value", ""),
        ("key_cache", "key_cache.1"),
        ("value_cache", "value_cache.1"),
        ("cumulative_sequence_length", "cumulative_sequence_length"),
        ("past_seqlens", "past_seqlens"),
        ("block_table", "block_table"),
        ("slot_mapping", ""),
        ("head_sink", ""),
        ("q_norm_weight", ""),
        ("k_norm_weight", ""),
        ("k_scale", ""),
        ("v_scale", ""),
        ("attention_metadata", "attention_metadata"),
    ] {
        assert_eq!(told.input(input), value, "{input}");
    }
    assert!(told.input("cos_cache").starts_with("cosines_0") && told.input("sin_cache").starts_with("sines_0"));
    assert_eq!(told.0.output[1..], ["key_cache_out.1", "value_cache_out.1"]);
    let numbers = ["num_heads", "kv_num_heads", "do_rotary", "is_causal", "softcap", "local_window_size"];
    let numbers = numbers.map(|name| told.number(name));
    assert_eq!(numbers, [Some(4.0), Some(2.0), Some(1.0), Some(1.0), None, None]);
    assert!((told.number("scale").unwrap() - 8.0_f64.powf(-0.5)).abs() < 1e-6);
}

#[test]
fn attention_is_told_what_families_differ_in() {
    let qwen3 = &attentions("qwen3", &json!({}))[0];
    let norms = ["q_norm_weight", "k_norm_weight"].map(|input| qwen3.input(input));
    assert!(norms[0].contains("self_attn.q_norm") && norms[1].contains("self_attn.k_norm"), "{norms:?}");
    assert!((qwen3.number("qk_norm_epsilon").unwrap() - 1e-6).abs() < 1e-9);

    let gemma2 = attentions("gemma2", &json!({ "sliding_window": 40 }));
    assert_eq!(gemma2[0].number("softcap"), Some(5.0));
    assert!((gemma2[0].number("scale").unwrap() - 12.0_f64.powf(-0.5)).abs() < 1e-6);
    let windows: Vec<_> = gemma2.iter().map(|told| told.number("local_window_size")).collect();
    assert_eq!(windows, [Some(40.0), None]);

    let smollm3 = attentions("smollm3", &json!({}));
    let rotated: Vec<_> = smollm3.iter().map(|told| (told.number("do_rotary"), told.input("cos_cache"))).collect();
    assert_eq!(rotated[1], (Some(0.0), ""));
    assert_eq!(rotated[0].0, Some(1.0));

    let bert = attentions("bert", &json!({ "num_attention_heads": 2 }));
    let caches = ["key_cache", "value_cache"].map(|input| bert[1].input(input));
    assert_eq!(caches, ["key_cache.0", "value_cache.0"]);
    assert_eq!((bert[1].number("is_causal"), bert[1].0.output.len()), (Some(0.0), 1));
}

/// Names, formats and axes; those of `element` count as 32 bits.
fn interface(values: &[ValueInfoProto], element: DataType) -> Vec<(String, DataType, String)> {
    let one = |value: &ValueInfoProto| {
        let Some(Type::TensorType(tensor)) = value.r#type.as_ref().unwrap().value.as_ref() else { panic!("no tensor") };
        let found = DataType::try_from(tensor.elem_type()).unwrap();
        let found = if found == element { DataType::Float } else { found };
        (value.name().to_owned(), found, format!("{:?}", tensor.shape))
    };
    values.iter().map(one).collect()
}

#[test]
fn both_attentions_have_one_contract() {
    let mut seen = 0;
    for folder in fs::read_dir(recorded()).unwrap().map(|entry| entry.unwrap().path()) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !folder.join("expected.json").is_file() {
            continue;
        }
        // Heads of encoders that are wide enough for the operator.
        let changes = match name.as_str() {
            "distilbert" => json!({ "n_heads": 2 }),
            "bert" | "roberta" | "xlm-roberta" | "electra" => json!({ "num_attention_heads": 2 }),
            _ => json!({}),
        };
        let (_copy, checkpoint) = checkpoint(&name, &changes);
        if !checkpoint.has(Form::Packed(Element::Float16)) {
            assert!(checkpoint.graph_for(Form::Packed(Element::Float16)).is_err(), "{name}");
            continue;
        }
        seen += 1;
        let graph = |element| checkpoint.graph_for(Form::Packed(element)).unwrap();
        let plain = graph(Element::Float32);
        for (element, data_type) in [(Element::Float16, DataType::Float16), (Element::Bfloat16, DataType::Bfloat16)] {
            let paged = graph(element);
            assert_eq!(plain.model.metadata_props, paged.model.metadata_props, "{name}");
            let both = |graph: &Graph| {
                let graph = graph.model.graph.as_ref().unwrap();
                [&graph.input, &graph.output].map(|values| interface(values, data_type))
            };
            assert_eq!(both(&plain), both(&paged), "{name}");
        }
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn what_the_operator_does_not_take_is_refused_by_name() {
    let refused = |name: &str, element| {
        let (_copy, checkpoint) = checkpoint(name, &json!({}));
        checkpoint.graph_for(Form::Packed(element)).unwrap_err().to_string()
    };
    for (name, element, part) in [
        ("bert", Element::Float16, "no multiple of 8"),
        ("deberta-v3", Element::Float32, "distances"),
        ("modernbert", Element::Float32, "look ahead"),
    ] {
        let error = refused(name, element);
        assert!(error.contains(part) && error.contains("form = \"rows\""), "{error}");
    }
}

/// A graph's weights, each as numbers of 32 bits.
fn read(checkpoint: &Checkpoint, graph: &Graph) -> Vec<Vec<f32>> {
    enum Memory {
        Whole(Vec<f32>),
        Half(Vec<f16>),
        Brain(Vec<bf16>),
    }
    let mut memory: Vec<Memory> = graph
        .tensors
        .iter()
        .map(|tensor| {
            let count = tensor.shape.iter().product();
            match tensor.element {
                Element::Float32 => Memory::Whole(vec![0.0; count]),
                Element::Float16 => Memory::Half(vec![f16::ZERO; count]),
                Element::Bfloat16 => Memory::Brain(vec![bf16::ZERO; count]),
            }
        })
        .collect();
    let places = memory.iter_mut().map(|memory| match memory {
        Memory::Whole(numbers) => NumbersMut::Float32(numbers),
        Memory::Half(numbers) => NumbersMut::Float16(numbers),
        Memory::Brain(numbers) => NumbersMut::Bfloat16(numbers),
    });
    checkpoint.read_weights(graph, places, NonZeroUsize::MIN, &|_| ()).unwrap();
    let numbers = memory.into_iter().map(|memory| match memory {
        Memory::Whole(numbers) => numbers,
        Memory::Half(numbers) => numbers.into_iter().map(f16::to_f32).collect(),
        Memory::Brain(numbers) => numbers.into_iter().map(bf16::to_f32).collect(),
    });
    numbers.collect()
}

#[test]
fn weights_come_in_the_format_that_suits_the_model() {
    let (_copy, llama) = checkpoint("llama3", &json!({}));
    let (_copy, bert) = checkpoint("bert", &json!({}));
    assert_eq!((llama.half(), bert.half()), (Element::Bfloat16, Element::Float16));
    let graph = llama.graph_for(Form::Packed(Element::Bfloat16)).unwrap();
    let plain = llama.graph_for(Form::Packed(Element::Float32)).unwrap();
    let (half, whole) = (read(&llama, &graph), read(&llama, &plain));
    let mut seen = 0;
    for (tensor, half) in graph.tensors.iter().zip(half).filter(|(tensor, _)| tensor.element == Element::Bfloat16) {
        let name = tensor.name.strip_suffix(":bfloat16").unwrap();
        let same = plain.tensors.iter().position(|other| other.name == name).unwrap();
        let whole = &whole[same];
        // Stored as bfloat16, it is the same in both.
        assert_eq!(&half, whole, "{name}");
        assert_eq!(half.len(), tensor.shape.iter().product::<usize>(), "{name}");
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
    // What is read off the last state is computed in 32 bits.
    let head = graph.tensors.iter().find(|tensor| tensor.name == "score.weight").unwrap();
    assert_eq!(head.element, Element::Float32);
}
