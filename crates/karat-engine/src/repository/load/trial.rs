//! Tries a graph before it takes requests: with which texts, and what becomes of the verdict.

use std::{path::Path, sync::Arc, time::Duration};

use karat_rules::{
    domain::{Cut, Image, Pixels, Reading, TokenizedInput},
    head::Head,
};
use karat_runtime::{Cancellation, Executor, RuntimeError, TokenBatch, ort::Graph};

use crate::{
    image::ImagePipeline,
    schedule::{
        Executors, Policy, recall, remember,
        trial::{Alone, Company, Conditions, Trial},
    },
    text::TextPipeline,
};

/// How long the texts are, in tokens: three of one length, and one that begins like the longest.
const LENGTHS: [usize; 5] = [17, 9, 9, 9, 6];
/// How much of the longest the last text begins with, and how long it is itself.
const BEGINNING: usize = 11;
const BEGINS_ALIKE: usize = 14;
/// How many tokens of the vocabulary texts are made of.
const WORDS: usize = 61;
/// How bright the brightest pixel of each image is, so that none is like another on average.
const BRIGHTEST: [u8; 3] = [60, 130, 250];
/// How far apart the values of an image's neighbours are: it has no factor in common with the number of values.
const STEP: usize = 7;
/// How long a trial may take before its large batches are left out.
const TIME: Duration = Duration::from_secs(1);
/// Changes whenever a trial finds out something else than before.
const EDITION: u32 = 1;
/// The samples of a batch of which it is known that they run alone: enough to show by how much they would differ.
pub(super) const SHOWN: usize = 8;

/// The texts of a model's trials, or its images.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// Texts whose scores are compared.
    compared: Vec<Arc<TokenizedInput>>,
    /// A text that holds the token with the largest id, and that token.
    extreme: Option<(TokenizedInput, u32, String)>,
}

impl Texts {
    /// Images of the size that `pipeline` makes, in place of texts: all have one shape, as the graph's inputs have.
    pub(super) fn of_images(pipeline: &ImagePipeline) -> Self {
        let [height, width] = pipeline.size();
        let values = |brightest: u8| (0..=brightest).cycle().step_by(STEP).take(height * width * 3).collect();
        let image = |brightest: u8| {
            let pixels = Pixels::new(Image::new(vec![brightest]).id(), [height, width], values(brightest))?;
            TokenizedInput::of_image(pixels, pipeline.tokens()).map(Arc::new)
        };
        Self { compared: BRIGHTEST.into_iter().filter_map(image).collect(), extreme: None }
    }

    /// Makes texts of `pipeline`'s vocabulary that are read like `short`, a text that the model takes.
    pub(super) fn new(pipeline: &TextPipeline, head: &dyn Head, short: Option<&TokenizedInput>) -> Self {
        let Some(vocabulary) = pipeline.vocabulary(WORDS) else { return Self::default() };
        let words = if vocabulary.plain.is_empty() { vec![vocabulary.largest.0] } else { vocabulary.plain };
        let frame = Frame { short, reads_steps: head.gives_steps() };
        let most = pipeline.max_tokens();
        // Two steps that have no factor in common with the number of words, so that no two texts say the same.
        let word = |text: usize, at: usize| words[(text * 17 + at * (text + 2)) % words.len()];
        let ids = |text: usize, length: usize| (0..length.min(most)).map(|at| word(text, at)).collect::<Vec<u32>>();
        let mut all: Vec<Vec<u32>> = LENGTHS.iter().enumerate().map(|(text, length)| ids(text, *length)).collect();
        let mut alike = ids(LENGTHS.len(), BEGINS_ALIKE);
        if let Some(longest) = all.first() {
            alike.iter_mut().zip(longest).take(BEGINNING).for_each(|(own, other)| *own = *other);
        }
        all.push(alike);
        let (largest, written) = vocabulary.largest;
        let mut extreme = ids(LENGTHS.len() + 1, 3);
        if let Some(middle) = extreme.get_mut(1.min(most - 1)) {
            *middle = largest;
        }
        Self {
            compared: all.into_iter().filter_map(|ids| frame.around(ids)).map(Arc::new).collect(),
            extreme: frame.inside(extreme).map(|text| (text, largest, written)),
        }
    }
}

/// What a model's texts have around their words, and how they are read.
struct Frame<'a> {
    short: Option<&'a TokenizedInput>,
    reads_steps: bool,
}

impl Frame<'_> {
    /// Gives a text the first and the last token that the model's texts have.
    fn around(&self, mut ids: Vec<u32>) -> Option<TokenizedInput> {
        if let ([first, .., last], Some(short)) = (ids.as_mut_slice(), self.short) {
            *first = *short.ids().first()?;
            *last = *short.ids().last()?;
        }
        self.inside(ids)
    }

    fn inside(&self, ids: Vec<u32>) -> Option<TokenizedInput> {
        let length = ids.len();
        let mut text = TokenizedInput::new(ids, vec![0; length], 0..length, Cut::default())?;
        if let Some(short) = self.short {
            text = match short.reading() {
                Reading::LogProbabilities(_) => text.with_reading(Reading::LogProbabilities(1..length))?,
                other => text.with_reading(other.clone())?,
            };
            if short.gate().is_some() {
                text = text.with_gate(length / 2)?;
            }
        }
        if self.reads_steps { text.with_steps(vec![length - 1]) } else { Some(text) }
    }
}

/// One graph on trial.
pub(super) struct GraphTrial<'a> {
    pub(super) texts: &'a Texts,
    pub(super) graph: &'a Graph,
    /// What the verdict depends on beside the conditions: the model's passes, the provider and the library.
    pub(super) fingerprint: String,
    /// Where it is kept between starts.
    pub(super) file: &'a Path,
    /// Whether anything is kept.
    pub(super) keeps: bool,
}

impl GraphTrial<'_> {
    /// What is known of the graph, where batches may be so large.
    pub(super) fn conditions(&self, masks: bool, most_samples: usize, most_tokens: usize) -> Conditions {
        let quantises = !self.graph.is_batch_invariant();
        Conditions {
            rounds_to: self.graph.rounds_to(),
            masks,
            quantises,
            most_samples: if quantises { SHOWN } else { most_samples },
            most_tokens,
            time: TIME,
        }
    }

    fn fingerprint(&self, conditions: &Conditions) -> String {
        format!("{} {EDITION} {conditions:?}", self.fingerprint)
    }

    /// What an earlier start found.
    pub(super) fn recall(&self, conditions: &Conditions) -> Option<Trial> {
        let sound = |trial: &Trial| match trial.tolerance.is_finite()
            && (trial.company == Company::Any || trial.reason.is_some())
        {
            true => Ok(()),
            false => Err("a trial was kept that none can come to".to_owned()),
        };
        recall(self.file, &self.fingerprint(conditions), sound)
    }

    /// Runs the texts alone.
    ///
    /// # Errors
    /// When the graph fails on a token that its tokenizer has, or gives one text two scores.
    pub(super) fn alone(&self, executor: &mut dyn Executor, conditions: &Conditions) -> Result<Alone, RuntimeError> {
        let alone = match Alone::compute(executor, &self.texts.compared) {
            Ok(alone) => alone,
            // The warm-up runs into the same error, and tells at which length.
            Err(RuntimeError::Pass { .. } | RuntimeError::Shape { .. } | RuntimeError::NotFinite) => {
                return Alone::compute(executor, &[]);
            }
            Err(error) => return Err(error),
        };
        if let Some(difference) = alone.wavers(conditions.rounds_to) {
            return Err(RuntimeError::Binding {
                found: format!("the graph gives one text two scores, which differ by {difference:.1e}"),
                advice: "it draws at random: export it in evaluation mode (model.eval()), without dropout".to_owned(),
            });
        }
        if let Some((text, largest, written)) = &self.texts.extreme {
            match executor.run(&TokenBatch::single(Arc::new(text.clone())), &Cancellation::new()) {
                Ok(_) | Err(RuntimeError::NotFinite) => {}
                Err(error @ RuntimeError::Pass { .. }) => {
                    return Err(RuntimeError::Binding {
                        found: format!("the graph fails on the tokenizer's token {largest} ({written:?}): {error}"),
                        advice: beyond().to_owned(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(alone)
    }

    /// Runs them in company, keeps the verdict and tells of it.
    ///
    /// # Errors
    /// When an executor breaks down.
    pub(super) fn compare(
        &self,
        alone: &Alone,
        executor: &mut dyn Executor,
        conditions: &Conditions,
    ) -> Result<Trial, RuntimeError> {
        let trial = alone.compare(executor, conditions)?;
        let (seconds, company) = (alone.elapsed().as_secs_f64(), trial.company);
        tracing::debug!(file = %self.file.display(), seconds, ?company, "graph tried");
        if self.keeps
            && let Err(error) = remember(self.file, &self.fingerprint(conditions), &trial)
        {
            tracing::info!(file = %self.file.display(), %error, "trial not kept: run again next time");
        }
        Ok(trial)
    }
}

/// Checks that the graph's table has a row for each of the tokenizer's ids, where that can be told.
///
/// # Errors
/// Both numbers, and what to do.
pub(super) fn check_vocabulary(graph: &Graph, input: &str, texts: &Texts) -> Result<(), RuntimeError> {
    match (graph.table_rows(input), &texts.extreme) {
        (Some(rows), Some((_, largest, written))) if usize::try_from(*largest).is_ok_and(|largest| largest >= rows) => {
            Err(RuntimeError::Binding {
                found: format!(
                    "the tokenizer has ids up to {largest} ({written:?}), and the graph a table of {rows} embeddings"
                ),
                advice: beyond().to_owned(),
            })
        }
        _ => Ok(()),
    }
}

fn beyond() -> &'static str {
    "put the tokenizer beside the graph that it was trained with, or take tokens that the model doesn't have out of \
     tokenizer.json"
}

/// Holds a graph's sessions and batches to what its trial came to.
pub(super) fn enforce(trial: &Trial, executors: &mut Executors, policy: Policy) -> Policy {
    if trial.company != Company::Any {
        for executor in executors.parallel.iter_mut().chain(&mut executors.single) {
            executor.allow_rounding(false);
        }
    }
    policy.in_company(trial.company)
}

#[cfg(test)]
mod tests {
    use karat_rules::{domain::catalogue::Choice, head};

    use super::*;

    fn pipeline(max_tokens: usize) -> (tempfile::TempDir, TextPipeline) {
        let folder = tempfile::tempdir().unwrap();
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            (0..300).map(|id| (id.to_string(), id.into())).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0", "added_tokens": [{"id": 300, "content": "<end>", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true}],
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "10"},
        });
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let config = toml::from_str(&format!("render = \"raw\"\nmax_tokens = {max_tokens}")).unwrap();
        let pipeline = TextPipeline::load(folder.path(), &config).unwrap();
        (folder, pipeline)
    }

    #[test]
    fn texts_differ_in_length_and_words_and_two_begin_alike() {
        let (_folder, pipeline) = pipeline(64);
        let scalar = head::CATALOGUE.build(&Choice::named("scalar")).unwrap();
        let short = TokenizedInput::new(vec![101, 7, 102], vec![0; 3], 0..3, Cut::default()).unwrap();
        let texts = Texts::new(&pipeline, &*scalar, Some(&short));
        let ids: Vec<&[u32]> = texts.compared.iter().map(|text| text.ids()).collect();
        assert_eq!(ids.iter().map(|ids| ids.len()).collect::<Vec<_>>(), [17, 9, 9, 9, 6, 14]);
        assert!(ids.iter().all(|ids| ids[0] == 101 && ids[ids.len() - 1] == 102), "framed as the model's own: {ids:?}");
        assert!(ids.iter().all(|ids| !ids.contains(&300)), "no text holds what was added");
        assert_eq!(ids[0][..11], ids[5][..11]);
        let different: std::collections::BTreeSet<&[u32]> = ids.iter().copied().collect();
        assert_eq!(different.len(), ids.len());
        let (extreme, largest, written) = texts.extreme.unwrap();
        assert!(extreme.ids().contains(&300) && (largest, &*written) == (300, "<end>"));
    }

    #[test]
    fn a_model_of_few_tokens_gets_short_texts() {
        for most in [1, 2, 8] {
            let (_folder, pipeline) = pipeline(most);
            let scalar = head::CATALOGUE.build(&Choice::named("scalar")).unwrap();
            let texts = Texts::new(&pipeline, &*scalar, None);
            assert_eq!(texts.compared.iter().map(|text| text.len()).max(), Some(most));
        }
    }
}
