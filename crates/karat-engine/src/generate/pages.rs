//! Where the keys and values of texts stand, and what computes more of them.

use karat_rules::domain::RowTensor;
use karat_runtime::{
    Cancellation, RuntimeError,
    packed::{NextTokens, PackedText, PackedTexts},
};

/// What a generator writes on.
pub(super) trait Pages {
    /// A text so far. The default is one of which nothing is computed.
    type Text: Default;

    /// A text that begins with `prompt`. Whole blocks of it may be known already, but never its last token.
    fn begin(&mut self, prompt: &[u32]) -> Self::Text;

    /// How many tokens of a text are computed.
    fn tokens(text: &Self::Text) -> usize;

    /// Computes what comes next of some texts; gives the logits after each that is read, in their order. On an error,
    /// or where it panics, the texts are as they were.
    fn compute(
        &mut self,
        next: &mut [NextTokens<Self::Text>],
        cancel: &Cancellation,
    ) -> Result<Vec<RowTensor>, RuntimeError>;

    /// A prompt that was read to its end, as so many texts that go on from it: as many as were said when its last tokens
    /// were computed.
    fn divide(&mut self, prompt: &[u32], text: Self::Text, texts: usize) -> Vec<Self::Text>;

    /// Takes a text's places back.
    fn end(&mut self, text: Self::Text);

    /// Called when texts have come and gone.
    fn tidy(&mut self) {}
}

impl Pages for PackedTexts {
    type Text = PackedText;

    fn begin(&mut self, prompt: &[u32]) -> PackedText {
        Self::begin(self, prompt)
    }

    fn tokens(text: &PackedText) -> usize {
        text.tokens()
    }

    fn compute(&mut self, next: &mut [NextTokens], cancel: &Cancellation) -> Result<Vec<RowTensor>, RuntimeError> {
        self.forward(next, cancel)
    }

    fn divide(&mut self, prompt: &[u32], text: PackedText, _texts: usize) -> Vec<PackedText> {
        self.keep(&text, prompt);
        text.divide()
    }

    fn end(&mut self, text: PackedText) {
        drop(text);
    }
}
