//! What a manifest says of texts and images that its head can do nothing with.

use karat_rules::{
    domain::Probe,
    head::{DecoderOutput, Head},
};

use crate::text::{StepForm, TextConfig};

/// A key of `[text]` that nothing would come of with this head: what was found, and what to write instead.
pub(super) fn misplaced(text: &TextConfig, head: &dyn Head) -> Option<(&'static str, String, &'static str)> {
    let name = head.name();
    let asks = head.probing().is_some_and(|probing| !head.gives_steps() && probing.reads() == DecoderOutput::Logits);
    if text.gate_mark.is_some() && !head.reads_gate() {
        let wanted = "remove the key, or write a head with gating such as attributes";
        return Some(("text.gate_mark", format!("the {name} head reads no weights at a mark"), wanted));
    }
    if text.steps != StepForm::Marked && !head.gives_steps() {
        return Some((
            "text.steps",
            format!("the {name} head reads no steps"),
            "remove the key, or write a process head",
        ));
    }
    if text.last_token.is_some() && asks {
        let found = format!("the {name} head asks about texts that end where a token is to be predicted");
        return Some(("text.last_token", found, "remove the key"));
    }
    None
}

/// Why a head doesn't fit a model of texts, of images or of both: the key, what was found, and what to write instead.
pub(super) fn unseen(reads: bool, sees: bool, head: &dyn Head) -> Option<(&'static str, String, &'static str)> {
    let name = head.name();
    let compares = head.probing().is_some_and(|probing| probing.reads() == DecoderOutput::Embeddings);
    let shape = head.shape();
    if compares && !sees {
        return Some(("image", format!("the {name} head compares images, and the table is missing"), "add [image]"));
    }
    if compares || !sees {
        // Whether the head compares with texts, and they are read, its example shows.
        let unread = head
            .probing()
            .and_then(|probing| probing.probes(&probing.example()).ok())
            .is_some_and(|probes| compares && !reads && probes.iter().any(|probe| matches!(probe, Probe::Text(_))));
        let wanted = "add [text] with the tokenizer of the model, or compare images alone";
        return unread.then(|| ("text", format!("the {name} head compares images with texts"), wanted));
    }
    if reads {
        let wanted = "write the likeness head, or remove [text] or [image]";
        return Some(("head", format!("the {name} head reads one of texts and images"), wanted));
    }
    let by_place = shape.steps || shape.tokens || head.probing().is_some() || head.reads_gate();
    let wanted = "write one that reads a whole input, such as scalar, multi, classifier or likeness";
    by_place.then(|| ("head", format!("the {name} head reads text, and this model sees"), wanted))
}
