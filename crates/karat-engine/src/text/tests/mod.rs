//! The pipeline on small tokenizers that are written out here, so that every expected id can be checked by eye.

mod asked;
mod control_tokens;
mod steps;

use std::{fs, num::NonZeroUsize};

use karat_rules::domain::{After, Conversation, Cut, Message, Probe, Reading, Role};
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A word tokenizer: each lower-case letter is a word of its own id (`a` = 10, `b` = 11, …).
fn folder(extra: &[(&str, String)]) -> TempDir {
    let mut vocabulary = serde_json::Map::new();
    for (token, id) in
        [("[PAD]", 0), ("[CLS]", 1), ("[SEP]", 2), ("[UNK]", 3), ("<s>", 4), ("</s>", 5), ("user", 6), ("assistant", 7)]
    {
        vocabulary.insert(token.to_owned(), json!(id));
    }
    for (position, letter) in ('a'..='z').enumerate() {
        vocabulary.insert(letter.to_string(), json!(10 + position));
    }
    let added = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [added(4, "<s>"), added(5, "</s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    });
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    for (name, content) in extra {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn pipeline(folder: &TempDir, toml: &str) -> Result<TextPipeline, TextError> {
    TextPipeline::load(folder.path(), &toml::from_str(toml).unwrap())
}

fn turns(turns: &[(Role, &str)]) -> Sample {
    let messages = turns.iter().map(|(role, content)| Message { role: *role, content: (*content).to_owned() });
    Sample::Conversation(Conversation::new(messages.collect()).unwrap())
}

fn pair(prompt: &str, response: &str) -> Sample {
    Sample::from_prompt(prompt.to_owned(), response.to_owned()).unwrap()
}

const PAIR: &str = "render = \"pair\"\nmax_tokens = 8";

#[test]
fn a_pair_has_its_special_tokens_and_segments_and_no_padding() {
    let input = pipeline(&folder(&[]), PAIR).unwrap().tokenize(&pair("a b", "c d"), None).unwrap();
    assert_eq!(input.ids(), [1, 10, 11, 2, 12, 13, 2]);
    assert_eq!(input.type_ids(), [0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(input.response(), 4..6);
    assert!(!input.cut().is_cut());
}

#[test]
fn a_long_sample_is_refused_unless_a_policy_was_chosen() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, PAIR).unwrap();
    let sample = pair("a b c", "d e f");
    let error = pipeline.tokenize(&sample, None).unwrap_err();
    assert!(matches!(&error, TextError::TooLong(too_long) if too_long.tokens == 9 && too_long.max_tokens == 8));
    assert!(error.to_string().contains("prompt_start"));

    let input = pipeline.tokenize(&sample, Some(Truncation::PromptStart)).unwrap();
    assert_eq!(input.ids(), [1, 11, 12, 2, 13, 14, 15, 2]);
    assert_eq!((input.cut(), input.response()), (Cut { prompt_tokens: 1, response_tokens: 0 }, 4..7));

    let input = pipeline.tokenize(&sample, Some(Truncation::ResponseEnd)).unwrap();
    assert_eq!(input.ids(), [1, 10, 11, 12, 2, 13, 14, 2]);
    assert_eq!((input.cut(), input.response()), (Cut { prompt_tokens: 0, response_tokens: 1 }, 5..7));
}

#[test]
fn the_response_is_never_cut_by_a_policy_that_keeps_it() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, PAIR).unwrap();
    let fits = pipeline.tokenize(&pair("a b c", "d e f g h"), Some(Truncation::PromptStart)).unwrap();
    assert_eq!(fits.ids(), [1, 2, 13, 14, 15, 16, 17, 2]);
    for (prompt, response, policy) in [
        ("a b c", "d e f g h i", Truncation::PromptStart),
        ("", "d e f g h i", Truncation::PromptStart),
        ("a b c d e", "f", Truncation::ResponseEnd),
    ] {
        let error = pipeline.tokenize(&pair(prompt, response), Some(policy)).unwrap_err();
        assert!(matches!(error, TextError::TooLong(_)), "{prompt:?} {response:?}");
    }
}

#[test]
fn callers_text_is_not_rendered_and_loses_the_end_that_the_policy_names() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, PAIR).unwrap();
    let text = Sample::from_text("a b c d e f g".to_owned()).unwrap();
    assert!(pipeline.tokenize(&text, None).is_err());
    let start = pipeline.tokenize(&text, Some(Truncation::PromptStart)).unwrap();
    assert_eq!(start.ids(), [1, 11, 12, 13, 14, 15, 16, 2]);
    let end = pipeline.tokenize(&text, Some(Truncation::ResponseEnd)).unwrap();
    assert_eq!(end.ids(), [1, 10, 11, 12, 13, 14, 15, 2]);
    assert_eq!((start.cut().response_tokens, end.cut().response_tokens), (1, 1));
}

const TEMPLATE: &str = "{{ bos_token }} {% for m in messages %}{{ m.role }} {{ m['content'].strip() }} {% endfor %}";

#[test]
fn a_template_comes_from_the_models_files_and_writes_its_own_special_tokens() {
    let hub = json!({"bos_token": {"content": "<s>"}, "pad_token": "[PAD]", "chat_template": TEMPLATE});
    let folder = folder(&[("tokenizer_config.json", hub.to_string())]);
    let pipeline = pipeline(&folder, "render = \"chat_template\"\nmax_tokens = 8").unwrap();
    let input = pipeline.tokenize(&turns(&[(Role::User, "a b"), (Role::Assistant, "  c d ")]), None).unwrap();
    assert_eq!(input.ids(), [4, 6, 10, 11, 7, 12, 13]);
    assert_eq!(input.response(), 5..7);
    // The response is whole, the oldest tokens go first.
    let long = turns(&[(Role::User, "a b c d"), (Role::Assistant, "x y")]);
    let input = pipeline.tokenize(&long, Some(Truncation::PromptStart)).unwrap();
    assert_eq!(input.ids()[input.response()], [33, 34]);
    assert_eq!(input.ids()[0], 4, "the beginning token stays");
    assert_eq!(input.cut(), Cut { prompt_tokens: 1, response_tokens: 0 });
}

#[test]
fn one_beginning_token_is_kept_of_two() {
    let folder = folder(&[]);
    let toml = format!("render = {{ jinja = \"{TEMPLATE}\" }}\nmax_tokens = 8\nbos_token = \"<s>\"");
    let pipeline = pipeline(&folder, &toml).unwrap();
    let doubled = pipeline.tokenize(&Sample::from_text("<s> <s> a".to_owned()).unwrap(), None).unwrap();
    let single = pipeline.tokenize(&Sample::from_text("<s> a".to_owned()).unwrap(), None).unwrap();
    assert_eq!(doubled.ids(), [4, 10]);
    assert_eq!(doubled.ids(), single.ids());
    assert_eq!(doubled.response(), 0..2);
}

#[test]
fn a_template_that_hides_the_response_can_not_cut_it() {
    let folder = folder(&[]);
    let toml = "render = { jinja = \"{{ messages[-1].content | lower }} a b c\" }\nmax_tokens = 3";
    let pipeline = pipeline(&folder, toml).unwrap();
    let sample = turns(&[(Role::Assistant, "X Y")]);
    for policy in [Truncation::PromptStart, Truncation::ResponseEnd] {
        let error = pipeline.tokenize(&sample, Some(policy)).unwrap_err();
        assert!(error.to_string().contains("can't be told apart"), "{error}");
    }
}

#[test]
fn a_template_refuses_in_its_own_words() {
    let folder = folder(&[]);
    let toml = "render = { jinja = \"{{ raise_exception('roles must alternate') }}\" }\nmax_tokens = 3";
    let error = pipeline(&folder, toml).unwrap().tokenize(&pair("a", "b"), None).unwrap_err();
    assert!(error.to_string().contains("roles must alternate"), "{error}");
}

#[test]
fn raw_models_refuse_prompts() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, "render = \"raw\"\nmax_tokens = 8").unwrap();
    assert_eq!(pipeline.tokenize(&pair("", "a b"), None).unwrap().ids(), [1, 10, 11, 2]);
    assert!(pipeline.tokenize(&pair("why", "a b"), None).is_err());
}

#[test]
fn text_without_tokens_is_refused() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, "render = { jinja = \"\" }\nmax_tokens = 8").unwrap();
    assert!(matches!(pipeline.tokenize(&pair("a", "b"), None), Err(TextError::NoTokens)));
}

fn text(text: &str) -> RenderedText {
    RenderedText::new(text.to_owned()).unwrap()
}

#[test]
fn rendered_text_whose_prompt_is_known_is_a_pair_to_a_model_of_pairs() {
    let folder = folder(&[]);
    let pair_model = pipeline(&folder, PAIR).unwrap();
    let sample = Sample::Text(text("a b c d").with_prompt("a b"));
    let tokenize = |sample: &Sample| pair_model.tokenize(sample, None).unwrap();
    assert_eq!(tokenize(&sample), tokenize(&pair("a b", " c d")));

    // A model with a template gets the text as it is, but a cut knows what is the response.
    let toml = format!("render = {{ jinja = \"{TEMPLATE}\" }}\nmax_tokens = 3");
    let input = pipeline(&folder, &toml).unwrap().tokenize(&sample, Some(Truncation::PromptStart)).unwrap();
    assert_eq!((input.ids(), input.response()), ([11, 12, 13].as_slice(), 1..3));
    assert_eq!(input.cut(), Cut { prompt_tokens: 1, response_tokens: 0 });
}

#[test]
fn special_tokens_and_lengths_are_the_requests_choice() {
    let pipeline = pipeline(&folder(&[]), PAIR).unwrap();
    let tokenize = |sample: &Sample, special_tokens, max_tokens| {
        let options =
            TextOptions { special_tokens, max_tokens: NonZeroUsize::new(max_tokens), ..TextOptions::default() };
        pipeline.tokenize_with(sample, options).map(|tokenized| tokenized.input.ids().to_vec())
    };
    let sample = Sample::Text(text("a b"));
    assert_eq!(tokenize(&sample, None, 0).unwrap(), [1, 10, 11, 2]);
    assert_eq!(tokenize(&sample, Some(false), 0).unwrap(), [10, 11]);
    assert_eq!(tokenize(&pair("a", "b"), Some(false), 0).unwrap(), [1, 10, 2, 11, 2], "a pair needs its separators");
    assert!(matches!(tokenize(&sample, None, 3), Err(TextError::TooLong(_))));
}

#[test]
fn a_dropped_beginning_token_is_reported() {
    let toml = "render = \"pair\"\nmax_tokens = 8\nbos_token = \"[CLS]\"";
    let pipeline = pipeline(&folder(&[]), toml).unwrap();
    for (ids, doubled) in [(vec![1, 1, 10], true), (vec![1, 10], false)] {
        let tokenized = pipeline.tokenize_with(&Sample::Tokens(ids), TextOptions::default()).unwrap();
        assert_eq!((tokenized.input.ids(), tokenized.doubled_beginning), ([1, 10].as_slice(), doubled));
    }
}

#[test]
fn token_ids_are_taken_as_they_are_if_the_tokenizer_knows_them() {
    let pipeline = pipeline(&folder(&[]), PAIR).unwrap();
    assert_eq!(pipeline.tokenize(&Sample::Tokens(vec![10, 2, 11]), None).unwrap().ids(), [10, 2, 11]);
    let error = pipeline.tokenize(&Sample::Tokens(vec![10, 99_999]), None).unwrap_err();
    assert!(matches!(error, TextError::UnknownToken(99_999)));
    assert!(matches!(pipeline.tokenize(&Sample::Tokens(vec![10; 9]), None), Err(TextError::TooLong(_))));
}

#[test]
fn text_can_be_ended_with_exactly_one_end_token() {
    let folder = folder(&[]);
    let toml = format!("render = {{ jinja = \"{TEMPLATE}\" }}\nmax_tokens = 8\n");
    let ends = pipeline(&folder, &format!("{toml}eos_token = \"</s>\"\npad_token = \"[PAD]\"")).unwrap();
    let options = TextOptions { ending: Ending::OneEos, ..TextOptions::default() };
    for written in ["a b", "a b</s>", "a b</s></s>[PAD][PAD]", "a b[PAD]"] {
        let tokenized = ends.tokenize_with(&Sample::Text(text(written)), options).unwrap();
        assert_eq!(tokenized.input.ids(), [10, 11, 5], "{written}");
    }
    let endless = pipeline(&folder, &toml).unwrap();
    let error = endless.tokenize_with(&Sample::Text(text("a")), options).unwrap_err();
    assert!(error.to_string().contains("text.eos_token"), "{error}");
}

#[test]
fn text_in_the_policys_template_is_rendered_in_the_models() {
    let folder = folder(&[]);
    let toml = format!(
        "{PAIR}\nretemplate = {{ markers = {{ user = {{ start = \"user\", end = \"|\" }}, \
                        assistant = {{ start = \"assistant\", end = \"|\" }}, trim = true }} }}"
    );
    let pipeline = pipeline(&folder, &toml).unwrap();
    let sample = Sample::Text(text("user a b| assistant c d|"));
    let tokenize = |sample: &Sample| pipeline.tokenize(sample, None).unwrap();
    assert_eq!(tokenize(&sample), tokenize(&pair("a b", "c d")));
    let error = pipeline.tokenize(&Sample::Text(text("a b c d")), None).unwrap_err();
    assert!(matches!(error, TextError::ParseTemplate(_)), "{error}");
}

#[test]
fn offsets_count_the_characters_of_the_response() {
    let folder = folder(&[]);
    for toml in [PAIR, "render = { jinja = \"é {{ messages[-1].content }} z\" }\nmax_tokens = 8"] {
        let pipeline = pipeline(&folder, toml).unwrap().with_token_offsets(true);
        let input = pipeline.tokenize(&pair("ä", "é b ç d"), None).unwrap();
        assert_eq!(input.offsets().unwrap(), [0..1, 2..3, 4..5, 6..7], "{toml}");
        let cut = pipeline.tokenize(&pair("ä", "é b ç d e f g h"), Some(Truncation::ResponseEnd)).unwrap();
        assert_eq!(cut.offsets().unwrap().len(), cut.response().len());
    }
}

#[test]
fn a_trimmed_response_is_found_where_it_stands() {
    let folder = folder(&[]);
    let toml = "render = { jinja = \"{% for m in messages %}{{ m.role }} {{ m.content | trim }} {% endfor %}\" }\n\
                max_tokens = 16\nstep_mark = \"x\"";
    let pipeline = pipeline(&folder, toml).unwrap().with_token_offsets(true).reading_response(true);
    let read = |response: &str| pipeline.tokenize(&pair("b a x a b", response), None).unwrap();
    let bare = read("a x");
    assert_eq!((bare.response(), bare.steps()), (7..9, [8].as_slice()));
    assert_eq!(bare.offsets().unwrap(), [0..1, 2..3]);
    assert_eq!(read("a x "), bare);
    let led = read("\n a x");
    assert_eq!((led.ids(), led.response(), led.steps()), (bare.ids(), bare.response(), bare.steps()));
    assert_eq!(led.offsets().unwrap(), [2..3, 4..5], "of the response as it was sent");
}

#[test]
fn tokens_of_a_response_that_the_template_changes_are_not_guessed() {
    let folder = folder(&[]);
    // What some templates do to thoughts.
    let toml = "render = { jinja = \"{{ messages[0].content }} {{ messages[-1].content.split('z')[-1] }}\" }\n\
                max_tokens = 8\nstep_mark = \"x\"";
    let whole = pipeline(&folder, toml).unwrap();
    let thought = pair("a b z c d", "b z c");
    assert_eq!(whole.tokenize(&thought, None).unwrap().ids().len(), 6, "a score after the text needs no more");
    let reads = pipeline(&folder, toml).unwrap().reading_response(true);
    let error = reads.tokenize(&thought, None).unwrap_err();
    assert!(matches!(&error, TextError::Changed(said) if said == "b z c"), "{error}");
    assert_eq!(reads.tokenize(&pair("a b z c d", "c"), None).unwrap().response(), 5..6);
}

#[test]
fn broken_files_name_themselves_and_the_key() {
    let broken = folder(&[("tokenizer_config.json", "{".to_owned())]);
    assert!(
        matches!(pipeline(&broken, PAIR), Err(TextError::File { path, .. }) if path.ends_with("tokenizer_config.json"))
    );
    let plain = folder(&[]);
    let cases = [
        ("render = \"chat_template\"\nmax_tokens = 8", "chat_template"),
        ("render = { jinja = \"{% if %}\" }\nmax_tokens = 8", "not valid Jinja"),
        ("render = \"pair\"\nmax_tokens = 8\npad_token = \"<none>\"", "text.pad_token"),
        ("render = \"pair\"\nmax_tokens = 8\ntokenizer = \"missing.json\"", "missing.json"),
        ("render = { jinja_file = \"missing.jinja\" }\nmax_tokens = 8", "missing.jinja"),
    ];
    for (toml, needle) in cases {
        let error = pipeline(&plain, toml).unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
    }
}

#[test]
fn a_text_that_cannot_fit_is_refused_before_it_is_tokenised() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, PAIR).unwrap();
    let sample = pair("a b", &"d ".repeat(4 << 20));
    for truncation in [Truncation::Refuse, Truncation::ResponseEnd] {
        let error = pipeline.tokenize(&sample, Some(truncation)).unwrap_err();
        assert!(matches!(&error, TextError::TooManyBytes(found) if found.bytes > 8 << 20 && found.max_tokens == 8));
    }
    // What is to be cut may be much longer than what is left.
    let cut = pair("a b", &"d ".repeat(100_000));
    assert_eq!(pipeline.tokenize(&cut, Some(Truncation::ResponseEnd)).unwrap().len(), 8);
    assert!(pipeline.tokenize(&cut, None).unwrap_err().to_string().contains("bytes"));
}

/// Writes the turns' contents, each behind its role.
const SPOKEN: &str = "render = { jinja = \"{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}\" }\n\
                     max_tokens = 16\n";

#[test]
fn a_last_token_is_appended_once_counted_and_never_cut() {
    let folder = folder(&[]);
    let with = |rest: &str| pipeline(&folder, &format!("{SPOKEN}last_token = \"z\"\n{rest}")).unwrap();
    let pipeline = with("");
    assert_eq!(pipeline.tokenize(&pair("a", "b"), None).unwrap().ids(), [6, 10, 7, 11, 35]);
    assert_eq!(pipeline.tokenize(&pair("a", "b z"), None).unwrap().ids(), [6, 10, 7, 11, 35]);
    assert_eq!(pipeline.tokenize(&Sample::Tokens(vec![10, 11]), None).unwrap().ids(), [10, 11, 35]);
    let long = "b c d e f g h i j k l m n o";
    let Err(TextError::TooLong(too_long)) = pipeline.tokenize(&pair("a", long), None) else { panic!("it fits") };
    assert_eq!(too_long.tokens, 18);
    for (policy, prompt) in [(Truncation::ResponseEnd, 2), (Truncation::PromptStart, 1)] {
        let cut = pipeline.tokenize(&pair("a", long), Some(policy)).unwrap();
        assert_eq!((cut.len(), cut.ids()[15]), (16, 35), "{prompt}");
    }
    // What a template ends with stays as well.
    let ended = pipeline.tokenize(&pair("a", "b c d e f g h i j k l m n z"), Some(Truncation::ResponseEnd)).unwrap();
    assert_eq!((ended.len(), ended.ids()[15], ended.ids()[14]), (16, 35, 22));
    let unknown = self::pipeline(&folder, &format!("{SPOKEN}last_token = \"<none>\""));
    assert!(unknown.unwrap_err().to_string().contains("text.last_token"));
}

#[test]
fn a_gate_stands_at_the_last_mark_whatever_is_cut() {
    let folder = folder(&[]);
    let toml = format!("{SPOKEN}gate_mark = \"x y\"");
    let pipeline = pipeline(&folder, &toml).unwrap();
    assert_eq!(pipeline.tokenize(&pair("a x y x y", "b"), None).unwrap().gate(), Some(4));
    assert_eq!(pipeline.tokenize(&pair("a x y", "b x y"), None).unwrap().gate(), Some(6));
    let long = pair("a b c d e f g h i j x y", "k l m n");
    let cut = pipeline.tokenize(&long, Some(Truncation::PromptStart)).unwrap();
    assert_eq!((cut.gate(), cut.ids()[9]), (Some(9), 33));
    let error = pipeline.tokenize(&pair("a", "b"), None).unwrap_err();
    assert!(matches!(&error, TextError::NoGate { mark } if mark == "x y"), "{error}");
}

#[test]
fn a_template_that_takes_too_long_is_refused_when_it_is_loaded() {
    let endless = "{% for i in range(9999) %}{% for j in range(10000) %}a{% endfor %}{% endfor %}";
    let error = pipeline(&folder(&[]), &format!("render = {{ jinja = \"{endless}\" }}\nmax_tokens = 16")).unwrap_err();
    assert!(error.to_string().contains("fuel"), "{error}");
}
