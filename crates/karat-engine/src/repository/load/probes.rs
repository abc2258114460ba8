//! The first passes of a graph: samples that warm it up, and show that it takes what its manifest promises.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use karat_rules::{
    domain::{Cut, Reading, RowTensor, Sample, TokenizedInput},
    head::Head,
};
use karat_runtime::{
    Cancellation, DecoderExecutor, DecoderRow, Read, ReadAt, Span, TokenBatch,
    ort::{Graph, KnownNumbers, SessionTrial},
};

use super::{known::Numbers, sessions::Running};
use crate::{
    input::{InputError, InputPipeline},
    manifest::{GraphDefinition, GraphSource},
    repository::{GraphForm, GraphUnit},
    schedule::{Executors, Job},
    text::{TextError, TextOptions, TextPipeline},
};

/// How long a sample warms a graph up whose longest is known.
const KNOWN_PROBE: usize = 64;
/// The longest sample that a graph is tried with.
const LONGEST_PROBE: usize = 4096;

/// How long a sample graphs are tried with. What is known of a graph needs no trial: a decoder says how many tokens it
/// takes, and of a checkpoint it is counted. A file is tried up to a length whose pass doesn't take minutes.
pub(super) fn longest(definition: &GraphDefinition, graphs: &[Graph]) -> usize {
    let is_known = |(source, graph): (&GraphSource, &Graph)| {
        graph.decoder_shape().is_some() || matches!(source, GraphSource::Checkpoint(_))
    };
    if definition.graphs.iter().zip(graphs).all(is_known) { KNOWN_PROBE } else { LONGEST_PROBE }
}

/// Inputs to try a model with. Of text, a short sample, and a long one: the first shows that a graph runs, the second that
/// it takes what the manifest promises.
pub(super) struct Probes {
    all: Vec<Arc<TokenizedInput>>,
    /// The same, the long one cut: every session computes them, and what kernels read doesn't depend on how long a text is.
    brief: Vec<Arc<TokenizedInput>>,
}

impl Probes {
    /// Samples of at most `longest` tokens.
    ///
    /// # Errors
    /// When the head asks about texts that the model can't read, such as answers of several tokens.
    pub(super) fn new(pipeline: &InputPipeline, head: &dyn Head, longest: usize) -> Result<Self, InputError> {
        let up_to = |longest: usize| match (pipeline.text(), pipeline.image()) {
            (Some(text), None) => texts(text, head, longest).map_err(InputError::from),
            _ => images(pipeline, head),
        };
        Ok(Self { all: up_to(longest)?, brief: up_to(longest.min(KNOWN_PROBE))? })
    }

    /// Every sample, the short one first.
    pub(super) fn all(&self) -> &[Arc<TokenizedInput>] {
        &self.all
    }

    /// The short one alone, or a text and an image where there are both; none where nothing could be made up.
    pub(super) fn short(&self) -> Vec<Arc<TokenizedInput>> {
        let sees = |probe: &&Arc<TokenizedInput>| probe.pixels().is_some();
        let first = self.all.first();
        let other = self.all.iter().find(|probe| first.is_some_and(|first| sees(&first) != sees(probe)));
        first.into_iter().chain(other).cloned().collect()
    }

    /// The short one, if it is a text.
    pub(super) fn text(&self) -> Option<&TokenizedInput> {
        self.all.iter().find(|probe| probe.pixels().is_none()).map(|probe| &**probe)
    }

    /// An image.
    pub(super) fn image(&self) -> Option<&Arc<TokenizedInput>> {
        self.all.iter().find(|probe| probe.pixels().is_some())
    }
}

/// The tokens whose logits are all that a model reads of its graphs; none where it reads anything else of them, or writes.
pub(super) fn read_tokens(pipeline: &InputPipeline, definition: &GraphDefinition) -> BTreeSet<u32> {
    let (Some(text), Some(probing), None) = (pipeline.text(), definition.head.probing(), &definition.critique) else {
        return BTreeSet::new();
    };
    let probes = probing.probes(&probing.example()).unwrap_or_default();
    let tokens = probes.iter().map(|probe| {
        // What can't be asked is told by those who ask it to warm the graph up.
        match text.tokenize_probe(probe, TextOptions::default()).ok()?.input.reading() {
            Reading::Logits(_, tokens) => Some(tokens.to_vec()),
            _ => None,
        }
    });
    tokens.collect::<Option<Vec<_>>>().unwrap_or_default().into_iter().flatten().collect()
}

/// What a head asks about an image to try it with, or the image.
fn images(pipeline: &InputPipeline, head: &dyn Head) -> Result<Vec<Arc<TokenizedInput>>, InputError> {
    let Some(probing) = head.probing() else { return Ok(vec![Arc::new(pipeline.grey()?)]) };
    let probes = probing.probes(&probing.example()).unwrap_or_default();
    let prepared =
        probes.iter().map(|probe| Ok(Arc::new(pipeline.prepare_probe(probe, TextOptions::default())?.tokenized.input)));
    prepared.collect()
}

fn texts(pipeline: &TextPipeline, head: &dyn Head, longest: usize) -> Result<Vec<Arc<TokenizedInput>>, TextError> {
    let mut asked = Vec::new();
    if let Some(probing) = head.probing() {
        // The example has the shape that the head takes.
        for probe in probing.probes(&probing.example()).unwrap_or_default() {
            asked.push(pipeline.tokenize_probe(&probe, TextOptions::default())?.input);
        }
    }
    // A model that takes text out of a policy's template refuses plain text, but no conversation.
    let text = Sample::from_text("warm up".to_owned());
    let turn = Sample::from_prompt(String::new(), "warm up".to_owned());
    let mut plain = None;
    for sample in [text, turn].into_iter().flatten().filter(|_| asked.is_empty()) {
        match pipeline.tokenize(&sample, None) {
            Ok(found) => plain = plain.or(Some(found)),
            // Whatever a client sends, its template writes the mark or doesn't.
            Err(error @ TextError::NoGate { .. }) if matches!(sample, Sample::Conversation(_)) => return Err(error),
            Err(_) => {}
        }
    }
    let Some(mut short) = asked.into_iter().next().or(plain) else { return Ok(Vec::new()) };
    if head.gives_steps() && short.steps().is_empty() {
        short = at_its_end(short);
    }
    let ids: Vec<u32> = short.ids().iter().copied().cycle().take(longest.max(short.len())).collect();
    let type_ids = vec![0; ids.len()];
    let response = 0..ids.len();
    let long = TokenizedInput::new(ids, type_ids, response, Cut::default());
    let long = long.and_then(|long| long.with_reading(short.reading().clone()));
    let long = long.and_then(|long| match short.gate() {
        Some(gate) => long.with_gate(gate),
        None => Some(long),
    });
    let long = long.map(|long| if head.gives_steps() { at_its_end(long) } else { long });
    Ok([Some(short), long].into_iter().flatten().map(Arc::new).collect())
}

/// An input that is one step, which is read at its last token.
fn at_its_end(input: TokenizedInput) -> TokenizedInput {
    let last = input.len() - 1;
    // The last token lies within the tokens.
    input.clone().with_steps(vec![last]).unwrap_or(input)
}

/// Gives the memory of weights back that the sessions of a graph don't read any more. That they don't is tried with every
/// session, `writing` among them, and all brief probes of text: their numbers must stay the same, bit for bit. `known` are
/// those of an earlier start; gives them where they had to be found out.
pub(super) fn give_back_weights(
    graph: &Graph,
    running: &mut Running,
    writing: Option<&mut dyn DecoderExecutor>,
    probes: &Probes,
    known: Option<&Numbers>,
) -> Option<Numbers> {
    let texts = || probes.brief.iter().filter(|probe| probe.pixels().is_none());
    let first = texts().next()?;
    let batches: Vec<TokenBatch> = texts().map(|text| TokenBatch::single(Arc::clone(text))).collect();
    let Running { executors: Executors { parallel, single }, form, .. } = running;
    let form = &*form;
    // What one session has computed of a prefix, another would remember.
    let prefixes = match form {
        GraphForm::Prefixes(prefixes) => Some(Mutex::new(prefixes)),
        GraphForm::Padded | GraphForm::Packed { .. } => None,
    };
    let (batches, prefixes) = (&batches, &prefixes);
    let scoring = parallel.iter_mut().chain(single).map(|session| -> SessionTrial<'_> {
        Box::new(move || {
            let mut numbers = Vec::new();
            for batch in batches {
                let prefixes =
                    prefixes.as_ref().map(|prefixes| prefixes.lock().unwrap_or_else(PoisonError::into_inner));
                prefixes.iter().for_each(|prefixes| prefixes.forget());
                let rows = session.run(batch, &Cancellation::new()).ok()?;
                prefixes.iter().for_each(|prefixes| prefixes.forget());
                numbers.extend(rows.iter().flatten().flat_map(bits));
            }
            Some(numbers)
        })
    });
    let row = &whole(first);
    let mut singles = match form {
        GraphForm::Prefixes(prefixes) => prefixes.singles().take(),
        GraphForm::Padded | GraphForm::Packed { .. } => None,
    };
    let singles = singles.iter_mut().flat_map(|singles| singles.iter_mut()).map(|session| &mut **session as _);
    let bare = singles.chain(writing).map(|session| bare_trial(session, row));
    let mut sessions: Vec<SessionTrial<'_>> = scoring.chain(bare).collect();
    let is_known = |bits: &[u32]| known.is_some_and(|known| known.hold(bits));
    let is_known: Option<KnownNumbers<'_>> = match known {
        Some(known) if !known.is_empty() => Some(&is_known),
        _ => None,
    };
    graph.give_back_weights(&mut sessions, is_known).map(|given| Numbers::of(&given))
}

/// Tries a session that computes rows and shares nothing.
fn bare_trial<'a>(session: &'a mut dyn DecoderExecutor, row: &'a DecoderRow) -> SessionTrial<'a> {
    Box::new(move || {
        let output = session.forward(row, &Cancellation::new()).ok()?;
        Some(output.reads.iter().flat_map(bits).collect())
    })
}

fn bits(row: &RowTensor) -> impl Iterator<Item = u32> + '_ {
    row.values().iter().map(|number| number.to_bits())
}

/// A text as a row of its own, which is read at its end.
fn whole(text: &TokenizedInput) -> DecoderRow {
    let span = Span { tokens: text.ids().to_vec(), ..Span::default() };
    let read = ReadAt { at: text.len() - 1, output: 0, what: Read::Numbers };
    DecoderRow { spans: vec![span], reads: vec![read], ..DecoderRow::default() }
}

/// Runs each probe once; an error comes with the length of the sample that failed.
pub(super) fn warm_up(unit: &GraphUnit, probes: &[Arc<TokenizedInput>]) -> Result<(), (usize, String)> {
    for probe in probes {
        let scheduler = &unit.side_of(probe).scheduler;
        let failed = |reason: &dyn std::fmt::Display| (probe.len(), reason.to_string());
        let tickets = scheduler.submit(vec![Job::new(Arc::clone(probe))]).map_err(|refusal| failed(&refusal))?;
        for ticket in tickets {
            futures_executor::block_on(ticket).map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}
