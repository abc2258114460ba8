//! Texts that are being written, a token at a time, in the blocks of a session that scores as well.

use karat_rules::domain::RowTensor;

use super::{
    BLOCK_TOKENS, PackedPass, PackedRead, PackedSequence, PackedSession, PackedShape, blocks::Lease, session::Turn,
};
use crate::{Cancellation, Purpose, Read, RuntimeError};

/// Writes texts on one session. Its passes take turns with those that score.
pub struct PackedTexts {
    session: PackedSession,
    output: usize,
}

/// A text so far: its tokens' keys and values, for as long as it lives.
#[derive(Debug, Default)]
pub struct PackedText {
    /// None where nothing of it is computed.
    lease: Option<Lease>,
    tokens: usize,
    /// The texts that go on from it, beside itself.
    heirs: Vec<Self>,
}

/// What comes next of a text.
#[derive(Debug)]
pub struct NextTokens<T = PackedText> {
    /// The text so far.
    pub text: T,
    /// Its next tokens, at least one.
    pub tokens: Vec<u32>,
    /// Whether the output at the last of them is wanted.
    pub read: bool,
    /// How many texts go on from there; at most one otherwise. What they have in common they share, but for the block
    /// that each writes into: the tokens that stand in it must be among `tokens`.
    pub texts: usize,
}

impl PackedText {
    /// How many of its tokens are computed.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The texts that go on from it, itself the first.
    #[must_use]
    pub fn divide(mut self) -> Vec<Self> {
        let heirs = std::mem::take(&mut self.heirs);
        std::iter::once(self).chain(heirs).collect()
    }
}

impl PackedTexts {
    /// Takes a share of a session. `output` is the place of the logits among what it was made to read.
    #[must_use]
    pub fn new(session: PackedSession, output: usize) -> Self {
        Self { session, output }
    }

    /// The model's measures.
    #[must_use]
    pub fn shape(&self) -> PackedShape {
        self.session.shape()
    }

    /// A text that begins with `prompt`: whole blocks of it may be known already, but not its last token.
    #[must_use]
    pub fn begin(&self, prompt: &[u32]) -> PackedText {
        let turn = self.session.turn(Purpose::Writing);
        let lease = turn.blocks.find(&prompt[..prompt.len().saturating_sub(1)]);
        PackedText { tokens: lease.blocks().len() * BLOCK_TOKENS, lease: Some(lease), heirs: Vec::new() }
    }

    /// Computes what comes next of some texts; gives the output at the last token of each that is read, in their order.
    ///
    /// # Errors
    /// [`RuntimeError::Row`] when the blocks are short or a text has no tokens, [`RuntimeError::Cancelled`] when
    /// `cancel` was used, [`RuntimeError::NotFinite`] when something that is read is no number, another error when the
    /// pass failed. The texts are then as they were.
    pub fn forward(&self, next: &mut [NextTokens], cancel: &Cancellation) -> Result<Vec<RowTensor>, RuntimeError> {
        let mut turn = self.session.turn(Purpose::Writing);
        let mut pass = PackedPass::default();
        let mut heirs = Vec::with_capacity(next.len());
        for next in &mut *next {
            let lease = next.text.lease.get_or_insert_with(|| turn.blocks.find(&[]));
            let (start, end) = (next.text.tokens, next.text.tokens + next.tokens.len());
            reserve(&turn, lease, end)?;
            let first = pass.tokens.len();
            for token in &next.tokens {
                pass.contract.push(pass.expand.len());
                pass.expand.push(pass.tokens.len());
                pass.tokens.push(*token);
            }
            pass.sequences.push(PackedSequence { rows: end - start, past: start, blocks: lease.blocks().to_vec() });
            if next.read {
                pass.reads.push(PackedRead { at: pass.tokens.len() - 1, output: self.output, what: Read::Numbers });
            }
            let whole = end / BLOCK_TOKENS;
            let tail = end - whole * BLOCK_TOKENS;
            if next.texts > 1 && tail > end - start {
                return Err(short("a text is divided in a block that was begun before"));
            }
            let heir = || {
                let mut lease = lease.first(whole);
                reserve(&turn, &mut lease, end)?;
                if tail > 0 {
                    let blocks = lease.blocks().to_vec();
                    pass.sequences.push(PackedSequence { rows: tail, past: whole * BLOCK_TOKENS, blocks });
                    pass.expand.extend(first + (end - start - tail)..first + (end - start));
                }
                Ok(PackedText { lease: Some(lease), tokens: end, heirs: Vec::new() })
            };
            let own = std::iter::repeat_with(heir).take(next.texts.saturating_sub(1));
            heirs.push(own.collect::<Result<Vec<_>, RuntimeError>>()?);
        }
        let reads = turn.run(&pass, None, cancel)?;
        // A text sees nothing of others, but which of them it is can't be told from an error.
        if !reads.iter().flat_map(RowTensor::values).all(|value| value.is_finite()) {
            return Err(RuntimeError::NotFinite);
        }
        for (next, heirs) in next.iter_mut().zip(heirs) {
            next.text.tokens += next.tokens.len();
            next.text.heirs = heirs;
        }
        Ok(reads)
    }

    /// Keeps the blocks that `ids` fill, which must be tokens of the text, for texts and samples that begin with them.
    pub fn keep(&self, text: &PackedText, ids: &[u32]) {
        if let Some(lease) = &text.lease {
            self.session.turn(Purpose::Writing).blocks.keep(lease, &ids[..text.tokens.min(ids.len())]);
        }
    }
}

/// Makes room in a lease for so many tokens, if need be out of a pass that was made ready for later.
fn reserve(turn: &Turn<'_>, lease: &mut Lease, tokens: usize) -> Result<(), RuntimeError> {
    let missing = tokens.div_ceil(BLOCK_TOKENS).saturating_sub(lease.blocks().len());
    if lease.extend(missing) || turn.reclaim() && lease.extend(missing) {
        Ok(())
    } else {
        Err(short("no block is free"))
    }
}

fn short(reason: &str) -> RuntimeError {
    RuntimeError::Row { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::simulated::{Control, Simulated, scores},
        *,
    };
    use crate::telemetry::PackedMetrics;

    fn session(blocks: usize) -> (PackedTexts, Control) {
        let control = Control::default();
        let shape = PackedShape { blocks, block_bytes: 1, context: 4096, causal: true };
        let executor = Box::new(Simulated::new(shape, control.clone()));
        let session = PackedSession::new(executor, PackedMetrics::unread().unwrap());
        (PackedTexts::new(session, 0), control)
    }

    fn score(ids: &[u32]) -> f32 {
        *scores(ids, &vec![0; ids.len()], true).last().unwrap()
    }

    fn prompt(number: u32, length: usize) -> Vec<u32> {
        (0..length).map(|at| number * 100 + u32::try_from(at % 7).unwrap()).collect()
    }

    /// Reads a prompt to its end in pieces and divides it.
    fn read(texts: &PackedTexts, prompt: &[u32], count: usize) -> Vec<PackedText> {
        let mut text = texts.begin(prompt);
        loop {
            let left = &prompt[text.tokens()..];
            let tokens = &left[..left.len().min(2 * BLOCK_TOKENS)];
            let last = tokens.len() == left.len();
            let mut next =
                [NextTokens { text, tokens: tokens.to_vec(), read: last, texts: if last { count } else { 1 } }];
            let reads = texts.forward(&mut next, &Cancellation::new()).unwrap();
            let [NextTokens { text: done, .. }] = next;
            if last {
                assert_eq!(reads[0].values(), [score(prompt)]);
                texts.keep(&done, prompt);
                return done.divide();
            }
            text = done;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn each_text_goes_on_from_its_own_prompt(
            prompts in vec((prop_oneof![1..10_usize, 250..260_usize, 600..780_usize], 1..4_usize), 1..4),
            steps in 1..300_usize,
        ) {
            let (texts, _) = session(64);
            let mut all: Vec<(PackedText, Vec<u32>)> = Vec::new();
            for (number, (length, count)) in (0..).zip(&prompts) {
                let prompt = prompt(number / 2, *length);
                all.extend(read(&texts, &prompt, *count).into_iter().map(|text| (text, prompt.clone())));
            }
            for step in 0..steps {
                let token = |text: usize| 1000 + u32::try_from(step * 7 + text).unwrap();
                let next = |(number, text): (usize, &mut (PackedText, Vec<u32>))| {
                    text.1.push(token(number));
                    NextTokens { text: std::mem::take(&mut text.0), tokens: vec![token(number)], read: true, texts: 1 }
                };
                let mut next: Vec<NextTokens> = all.iter_mut().enumerate().map(next).collect();
                let reads = texts.forward(&mut next, &Cancellation::new()).unwrap();
                for ((text, next), read) in all.iter_mut().zip(next).zip(reads) {
                    prop_assert_eq!(read.values(), [score(&text.1)]);
                    text.0 = next.text;
                }
            }
            drop(all);
            prop_assert_eq!(texts.session.blocks().room(), 64);
        }
    }

    #[test]
    fn a_prompt_is_read_once_and_its_texts_repeat_no_more_than_its_tail() {
        let (texts, control) = session(16);
        let written = read(&texts, &prompt(1, 700), 3);
        let again = read(&texts, &prompt(1, 700), 2);
        let passes: Vec<(usize, usize)> =
            control.passes().iter().map(|pass| (pass.tokens.len(), pass.expand.len())).collect();
        assert_eq!(passes, [(512, 512), (188, 3 * 188), (188, 2 * 188)]);
        assert_eq!(texts.session.blocks().room(), 16 - 2 - 3 - 2);
        drop((written, again));
    }

    #[test]
    fn a_text_that_failed_goes_on_as_if_nothing_had_happened() {
        let (texts, control) = session(4);
        let prompt = prompt(1, 300);
        let mut next = [NextTokens { text: texts.begin(&prompt), tokens: prompt.clone(), read: true, texts: 2 }];
        control.cancel_next();
        assert!(matches!(texts.forward(&mut next, &Cancellation::new()), Err(RuntimeError::Cancelled)));
        next[0].texts = 9;
        assert!(matches!(texts.forward(&mut next, &Cancellation::new()), Err(RuntimeError::Row { .. })));
        next[0].texts = 3;
        let reads = texts.forward(&mut next, &Cancellation::new()).unwrap();
        assert_eq!(reads[0].values(), [score(&prompt)]);
        let [NextTokens { text, .. }] = next;
        assert_eq!(text.divide().len(), 3);
        assert_eq!(texts.session.blocks().room(), 4);
    }

    #[test]
    fn turns_go_round() {
        let (texts, control) = session(4);
        let written = |number: u32| {
            for step in 0..20 {
                let tokens = vec![number * 100 + step];
                let mut next = [NextTokens { text: texts.begin(&tokens), tokens, read: true, texts: 1 }];
                texts.forward(&mut next, &Cancellation::new()).unwrap();
            }
        };
        thread::scope(|scope| {
            for number in 0..3 {
                let written = &written;
                scope.spawn(move || written(number));
            }
        });
        assert_eq!(control.passes().len(), 60);
        assert_eq!(texts.session.blocks().room(), 4);
    }
}
