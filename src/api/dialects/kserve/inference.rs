//! From input tensors to samples, and from a report to output tensors.

use std::collections::BTreeMap;

use karat_engine::{
    engine::{Draft, SampleReport},
    schedule::Priority,
    text::TextOptions,
};
use karat_rules::domain::{Image, Picture, Sample};

use super::{
    describe::{INPUTS, OUTPUTS},
    tensor::{InputTensor, OutputTensor, OutputValues},
};
use crate::api::{
    dialects::parts::{Call, ModelField, Scored, Scores, invalid, narrow, sample, texts},
    images::ImageSource,
    problem::Problem,
};

/// What a client wants scored.
#[derive(Debug)]
pub(super) struct InferRequest {
    /// The client's own name for the request, sent back.
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<InputTensor>,
    /// The names of the wanted outputs; all when there are none.
    pub(super) outputs: Vec<String>,
    pub(super) parameters: Parameters,
}

/// What a request says beside its tensors.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parameters {
    /// 1 is the most urgent, 0 stands for the usual.
    pub(super) priority: Option<u64>,
    /// The time in microseconds after which the request is given up.
    pub(super) timeout: Option<u64>,
    /// Whether the tokenizer adds its special tokens to text.
    pub(super) add_special_tokens: Option<bool>,
}

/// A scored request.
#[derive(Debug)]
pub(super) struct Inferred {
    pub(super) id: String,
    pub(super) report: Scores,
    pub(super) outputs: Vec<OutputTensor>,
}

/// Scores a request with the model that its path names.
pub(super) async fn run(mut call: Call<()>, request: InferRequest) -> Result<Inferred, Problem> {
    let InferRequest { id, inputs, outputs, parameters } = request;
    let wanted = wanted(&outputs)?;
    let samples = samples(inputs)?;
    call.url.priority = call.url.priority.or(match parameters.priority {
        None | Some(0 | 2) => None,
        Some(1) => Some(Priority::High),
        Some(_) => Some(Priority::Low),
    });
    let timeout = parameters.timeout.filter(|micros| *micros > 0);
    call.url.timeout_ms = call.url.timeout_ms.or(timeout.map(|micros| micros.div_ceil(1000)));
    let text = TextOptions { special_tokens: parameters.add_special_tokens, ..TextOptions::default() };
    // Whoever names the request finds its rewards again under that name.
    call.id = id.filter(|id| !id.is_empty()).unwrap_or(call.id);
    let report = call.score(ModelField::Absent, samples, text).await?;
    let outputs = wanted.into_iter().map(|name| output(name, &report)).collect();
    Ok(Inferred { id: call.id, report, outputs })
}

fn wanted(names: &[String]) -> Result<Vec<&'static str>, Problem> {
    let known = OUTPUTS.map(|output| output.name);
    if names.is_empty() {
        return Ok(known.to_vec());
    }
    let find = |name: &String| {
        known
            .into_iter()
            .find(|known| known == name)
            .ok_or_else(|| invalid(format!("there is no output {name:?}; ask for some of {}", known.join(", "))))
    };
    names.iter().map(find).collect()
}

fn samples(inputs: Vec<InputTensor>) -> Result<Vec<Draft>, Problem> {
    let mut named: BTreeMap<String, InputTensor> = BTreeMap::new();
    for input in inputs {
        if let Some(twice) = named.insert(input.name.clone(), input) {
            return Err(invalid(format!("the input {:?} was sent twice", twice.name)));
        }
    }
    let shape = named.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
    let mut take = |name: &str| named.remove(name).ok_or_else(|| invalid(format!("the input {name:?} is missing")));
    match shape.as_str() {
        "text" | "sentences" => Ok(texts(&shape, take(&shape)?.into_texts()?)),
        "prompt response" => {
            let (prompts, responses) = (take("prompt")?.into_texts()?, take("response")?.into_texts()?);
            same_length(prompts.len(), responses.len())?;
            let pairs = prompts.into_iter().zip(responses).enumerate();
            let pairs = pairs
                .map(|(index, (prompt, response))| sample("response", index, Sample::from_prompt(prompt, response)));
            Ok(pairs.collect())
        }
        "image" => {
            let files = take("image")?.into_bytes()?.into_iter().enumerate();
            Ok(files.map(|(index, file)| seen(index, String::new(), file)).collect())
        }
        "image prompt" => {
            let (prompts, files) = (take("prompt")?.into_texts()?, take("image")?.into_bytes()?);
            same_length(prompts.len(), files.len())?;
            let pairs = prompts.into_iter().zip(files).enumerate();
            Ok(pairs.map(|(index, (prompt, file))| seen(index, prompt, file)).collect())
        }
        "tokens" => rows(take("tokens")?, None),
        "sequence_lengths tokens" => {
            let lengths = take("sequence_lengths")?.into_numbers()?;
            rows(take("tokens")?, Some(&lengths))
        }
        _ => {
            let known: Vec<&str> = INPUTS.iter().map(|input| input.name).collect();
            Err(invalid(format!(
                "the inputs {shape:?} don't make samples; of {} send text, or sentences, or prompt with response, or \
                 image alone or with prompt, or tokens with sequence_lengths",
                known.join(", ")
            )))
        }
    }
}

/// An image: the bytes of its file, or a data URI, which is all that JSON can hold of one.
fn seen(index: usize, prompt: String, file: Vec<u8>) -> Draft {
    let refuse = |reason: String| format!("image[{index}]: {reason}");
    let written = std::str::from_utf8(&file).ok().filter(|written| written.starts_with("data:"));
    let image = match written {
        Some(written) => ImageSource::parse(written).and_then(ImageSource::into_image).map_err(refuse)?,
        None => Image::new(file),
    };
    Ok(Sample::Picture(Picture::new(prompt, Vec::new(), image)))
}

fn same_length(one: usize, other: usize) -> Result<(), Problem> {
    if one == other {
        return Ok(());
    }
    Err(invalid(format!("the inputs hold {one} and {other} samples; send as many of each")))
}

/// Samples of token ids, each row cut to its length, for rows are padded at their end.
fn rows(tokens: InputTensor, lengths: Option<&[i64]>) -> Result<Vec<Draft>, Problem> {
    let rows = tokens.into_rows()?;
    if let Some(lengths) = lengths {
        same_length(rows.len(), lengths.len())?;
    }
    let rows = rows.into_iter().enumerate();
    rows.map(|(index, row)| {
        let length = match lengths.map(|lengths| lengths[index]) {
            None => row.len(),
            Some(length) => usize::try_from(length).ok().filter(|length| *length <= row.len()).ok_or_else(|| {
                invalid(format!("sequence_lengths[{index}] is {length}, and the row has {} tokens", row.len()))
            })?,
        };
        let ids = row[..length].iter().map(|id| {
            u32::try_from(*id).map_err(|_| invalid(format!("tokens[{index}]: {id} is no token id")).at(index))
        });
        Ok(sample("tokens", index, Sample::from_tokens(ids.collect::<Result<_, _>>()?)))
    })
    .collect()
}

fn output(name: &'static str, report: &Scores) -> OutputTensor {
    let results = &report.results;
    let column = |of: &dyn Fn(&SampleReport) -> f64| {
        OutputValues::Floats(results.iter().map(|result: &Scored| narrow(of(result))).collect())
    };
    let (width, values) = match name {
        "raw" => (1, column(&|result| result.raw.get())),
        "mean" => (1, column(&|result| result.ensemble.mean.get())),
        "worst_case" => (1, column(&|result| result.ensemble.worst_case.get())),
        "variance" => (1, column(&|result| result.ensemble.variance.get())),
        "members" => {
            let members = |result: &Scored| result.ensemble.members.clone();
            let all = results.iter().flat_map(members).map(|member| narrow(member.get())).collect();
            (results.first().map_or(0, |result| result.ensemble.members.len()), OutputValues::Floats(all))
        }
        "exceeded" => (1, OutputValues::Booleans(results.iter().map(|result| result.cut.is_cut()).collect())),
        _ => (1, column(&|result| result.reward.get())),
    };
    OutputTensor { name, shape: [results.len(), width], values }
}
