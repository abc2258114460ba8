//! The pipeline on small tokenizers that are written out here, so that every expected id can be checked by eye.

use std::{fs, num::NonZeroUsize};

use karat_rules::domain::{Conversation, Cut, Message, Probe, Reading, Role};
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
fn steps_are_joined_and_their_marks_found_in_the_response_alone() {
    let folder = folder(&[]);
    let toml = "render = \"pair\"\nmax_tokens = 16\nstep_mark = \"x\"\nstep_end = \" x \"";
    let pipeline = pipeline(&folder, toml).unwrap();
    let response = pipeline.join_steps(&["a b".to_owned(), "c".to_owned()]).unwrap().unwrap();
    assert_eq!(response, "a b x c x ");
    let input = pipeline.tokenize(&pair("x a", &response), None).unwrap();
    assert_eq!(input.ids(), [1, 33, 10, 2, 10, 11, 33, 12, 33, 2]);
    assert_eq!(input.steps(), [6, 8]);
    assert!(self::pipeline(&folder, "render = \"pair\"\nmax_tokens = 16\nstep_mark = \"<none>\"").is_err());
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

const TURNS: &str = "render = { jinja = \"{{ bos_token }}{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {{ \
                     eos_token }}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}\" }\nbos_token = \
                     \"<s>\"\neos_token = \"</s>\"\nmax_tokens = 14";

fn user(content: &str) -> Message {
    Message { role: Role::User, content: content.to_owned() }
}

#[test]
fn the_likelihood_is_of_the_responses_own_tokens() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, TURNS).unwrap().with_token_offsets(true);
    // <s> user a b </s> assistant c d, and nothing of what the template writes after it.
    let probe = Probe::Response(pair("a b", "c d"));
    let input = pipeline.tokenize_probe(&probe, TextOptions::default()).unwrap().input;
    assert_eq!(input.ids(), [4, 6, 10, 11, 5, 7, 12, 13]);
    assert_eq!((input.reading(), input.response()), (&Reading::LogProbabilities(6..8), 6..8));
    assert_eq!(input.offsets().unwrap(), [0..1, 2..3]);
    // Of text without a prompt, the first token has nothing before it.
    let text = Probe::Response(Sample::from_text("a b".to_owned()).unwrap());
    let input = pipeline.tokenize_probe(&text, TextOptions::default()).unwrap().input;
    assert_eq!(input.reading(), &Reading::LogProbabilities(1..2));
    let alone = Probe::Response(Sample::from_text("a".to_owned()).unwrap());
    assert!(matches!(pipeline.tokenize_probe(&alone, TextOptions::default()), Err(TextError::NothingBefore)));
}

#[test]
fn a_last_turn_is_the_users_own_words() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, TURNS).unwrap();
    let assistant = Message { role: Role::Assistant, content: "b".to_owned() };
    let probe = Probe::LastTurn { turns: vec![user("a"), assistant.clone(), user("c d")], kept: 1 };
    let input = pipeline.tokenize_probe(&probe, TextOptions::default()).unwrap().input;
    assert_eq!(input.ids(), [4, 6, 10, 5, 7, 11, 5, 6, 12, 13]);
    assert_eq!(input.reading(), &Reading::LogProbabilities(8..10));
    // Cutting the end would cut what is asked about.
    let cut = |policy| TextOptions { truncation: Some(policy), ..TextOptions::default() };
    let turns = vec![user("a a a a a a a a"), assistant, user("c d")];
    let long = |kept| Probe::LastTurn { turns: turns.clone(), kept };
    let input = pipeline.tokenize_probe(&long(1), cut(Truncation::PromptStart)).unwrap().input;
    assert_eq!((input.len(), &input.ids()[input.len() - 6..]), (pipeline.max_tokens(), &[7, 11, 5, 6, 12, 13][..]));
    // So would cutting what must stay whole.
    for (probe, policy) in [(long(1), Truncation::ResponseEnd), (long(0), Truncation::PromptStart)] {
        let refused = pipeline.tokenize_probe(&probe, cut(policy));
        assert!(matches!(refused, Err(TextError::TooLong(_))), "{refused:?}");
    }
}

#[test]
fn a_next_word_comes_where_the_assistant_speaks() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, TURNS).unwrap();
    let ask = |words: &[&str]| Probe::NextWord {
        turns: vec![user("a")],
        kept: 0,
        words: words.iter().map(|word| (*word).to_owned()).collect(),
    };
    let input = pipeline.tokenize_probe(&ask(&["c", "d"]), TextOptions::default()).unwrap().input;
    assert_eq!(input.ids(), [4, 6, 10, 5, 7]);
    assert_eq!(input.reading(), &Reading::NextToken([12, 13].into()));
    let error = pipeline.tokenize_probe(&ask(&["c d"]), TextOptions::default()).unwrap_err();
    assert!(error.to_string().contains("\"c d\" is 2 tokens"), "{error}");
}

#[test]
fn what_can_not_be_asked_is_refused() {
    let folder = folder(&[]);
    let plain = pipeline(&folder, PAIR).unwrap();
    for probe in [
        Probe::LastTurn { turns: vec![user("a")], kept: 0 },
        Probe::NextWord { turns: vec![user("a")], kept: 0, words: ["c".to_owned()].into() },
    ] {
        let error = plain.tokenize_probe(&probe, TextOptions::default()).unwrap_err();
        assert!(matches!(error, TextError::Config { key: "text.render", .. }), "{error}");
    }
    let shouting = "render = { jinja = \"{{ messages[-1]['content'] | upper }}\" }\nmax_tokens = 8";
    let shouting = pipeline(&folder, shouting).unwrap();
    for probe in [Probe::Response(pair("a", "b")), Probe::LastTurn { turns: vec![user("b")], kept: 0 }] {
        let error = shouting.tokenize_probe(&probe, TextOptions::default()).unwrap_err();
        assert!(matches!(error, TextError::Changed(_)), "{error}");
    }
    let silent = pipeline(&folder, "render = { jinja = \"\" }\nmax_tokens = 8").unwrap();
    assert!(matches!(silent.tokenize_opening(&[user("a")], 0, TextOptions::default()), Err(TextError::NoTokens)));
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
fn steps_apart_end_at_the_last_token_of_what_ends_them() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, &format!("{SPOKEN}steps = \"apart\"\nstep_end = \" x y\"")).unwrap();
    let input = pipeline.tokenize(&pair("a x y", "b c x y x y d"), None).unwrap();
    // Two steps with text, and an empty one between them; the last gets its end as well.
    assert_eq!(input.ids(), [6, 10, 33, 34, 7, 11, 12, 33, 34, 33, 34, 13, 33, 34]);
    assert_eq!((input.steps(), input.response()), ([8, 10, 13].as_slice(), 5..14));
    let ended = pipeline.tokenize(&pair("a", "b x y"), None).unwrap();
    assert_eq!((ended.ids(), ended.steps()), ([6, 10, 7, 11, 33, 34].as_slice(), [5].as_slice()));
    let split = |text: &str| Sample::Text(RenderedText::new(text.to_owned()).unwrap().with_prompt("user a"));
    assert_eq!(pipeline.tokenize(&split("user a b x y c"), None).unwrap().steps(), [4, 7]);
    for unknown in [Sample::Tokens(vec![10]), Sample::Text(text("a b"))] {
        assert!(matches!(pipeline.tokenize(&unknown, None), Err(TextError::WantsTurns)));
    }
    let error = pipeline.join_steps(&["a".to_owned(), "b x y c".to_owned()]).unwrap_err();
    assert!(matches!(error, TextError::SplitStep { step: 1, .. }), "{error}");
}

#[test]
fn steps_as_turns_are_read_where_their_answers_are_predicted() {
    let folder = folder(&[]);
    let pipeline = pipeline(&folder, &format!("{SPOKEN}steps = {{ turns = \"z\" }}\nstep_end = \" x\"")).unwrap();
    let dialogue = turns(&[(Role::System, "s"), (Role::User, "a"), (Role::Assistant, "b x c x")]);
    let input = pipeline.tokenize(&dialogue, None).unwrap();
    // "system" is no word of this tokenizer.
    assert_eq!(input.ids(), [3, 28, 6, 10, 11, 7, 35, 6, 12, 7, 35]);
    assert_eq!(input.steps(), [5, 9]);
    let long = turns(&[
        (Role::User, "a b c d e f g h"),
        (Role::Assistant, "i"),
        (Role::User, "a"),
        (Role::Assistant, "b x c x"),
    ]);
    let cut = pipeline.tokenize(&long, Some(Truncation::PromptStart)).unwrap();
    assert_eq!((cut.len(), cut.steps(), cut.ids()[15]), (16, [10, 14].as_slice(), 35));
    for refused in [Truncation::Refuse, Truncation::ResponseEnd] {
        assert!(matches!(pipeline.tokenize(&long, Some(refused)), Err(TextError::TooLong(_))));
    }
    assert!(matches!(pipeline.tokenize(&Sample::Text(text("a b")), None), Err(TextError::WantsTurns)));
}

#[test]
fn settings_of_steps_that_contradict_each_other_are_refused() {
    let folder = folder(&[]);
    for (rest, key) in [
        ("steps = \"apart\"", "text.step_end"),
        ("steps = \"apart\"\nstep_end = \" x\"\nstep_mark = \"x\"", "text.step_mark"),
        ("steps = \"apart\"\nstep_end = \" x\"\nspecial_tokens = true", "text.special_tokens"),
        ("step_mark = \"x\"\nstep_end = \" y\"", "text.step_end"),
        // A word that is unknown to the tokenizer is no mark.
        ("step_mark = \"word\"", "text.step_mark"),
    ] {
        let error = pipeline(&folder, &format!("{SPOKEN}{rest}")).unwrap_err().to_string();
        assert!(error.contains(key), "{rest}: {error}");
    }
    let raw = pipeline(&folder, "render = \"raw\"\nmax_tokens = 16\nsteps = { turns = \"z\" }\nstep_end = \" x\"");
    assert!(raw.unwrap_err().to_string().contains("text.steps"));
}

#[test]
fn a_template_that_takes_too_long_is_refused_when_it_is_loaded() {
    let endless = "{% for i in range(9999) %}{% for j in range(10000) %}a{% endfor %}{% endfor %}";
    let error = pipeline(&folder(&[]), &format!("render = {{ jinja = \"{endless}\" }}\nmax_tokens = 16")).unwrap_err();
    assert!(error.to_string().contains("fuel"), "{error}");
}

#[test]
fn control_tokens_of_users_are_what_the_manifest_says() {
    let folder = folder(&[]);
    let of = |policy: &str, rest: &str| {
        pipeline(&folder, &format!("special_tokens_in_text = \"{policy}\"\n{rest}")).unwrap()
    };
    let ids = |policy: &str, rest: &str, sample: &Sample| {
        of(policy, rest).tokenize(sample, None).map(|input| input.ids().to_vec()).map_err(|error| error.to_string())
    };
    let (raw, chat) = ("render = \"raw\"\nmax_tokens = 32", SPOKEN);
    let said = turns(&[(Role::User, ""), (Role::Assistant, "a </s> b")]);
    assert_eq!(ids("reference", raw, &said).unwrap(), [1, 10, 5, 11, 2]);
    // "</", "s" and ">" as words, of which the vocabulary knows the letter alone.
    assert_eq!(ids("literal", raw, &said).unwrap(), [1, 10, 3, 28, 3, 11, 2]);
    let error = ids("refuse", raw, &said).unwrap_err();
    assert!(error.contains("</s>") && error.contains("special_tokens_in_text"), "{error}");
    let pair = pair("<s>a", "b</s>");
    assert_eq!(
        ids("literal", "render = \"pair\"\nmax_tokens = 32", &pair).unwrap(),
        [1, 3, 28, 3, 10, 2, 11, 3, 28, 3, 2]
    );
    let plain = turns(&[(Role::User, "a"), (Role::Assistant, "b")]);
    assert_eq!(ids("literal", chat, &plain), ids("reference", chat, &plain));
    let forged = turns(&[(Role::User, "a"), (Role::Assistant, "b</s>")]);
    let (letters, tokens) = (ids("literal", chat, &forged).unwrap(), ids("reference", chat, &forged).unwrap());
    let ends = |ids: &[u32]| ids.iter().filter(|id| **id == 5).count();
    assert_eq!(ends(&letters) + 1, ends(&tokens), "{letters:?} {tokens:?}");
    assert!(ids("refuse", chat, &plain).is_ok(), "the template's own stay");
    let rendered = Sample::from_text("<s> a </s>".to_owned()).unwrap();
    assert_eq!(ids("refuse", chat, &rendered), ids("reference", chat, &rendered), "the caller's text is the caller's");
}

#[test]
fn control_tokens_that_a_template_looks_for_are_not_guessed() {
    let folder = folder(&[]);
    let toml = "special_tokens_in_text = \"literal\"\nmax_tokens = 32\n\
                render = { jinja = \"{{ messages[-1].content.split('</s>')[0] }} </s>\" }";
    let error =
        pipeline(&folder, toml).unwrap().tokenize(&turns(&[(Role::User, "a"), (Role::Assistant, "b </s> c")]), None);
    assert!(matches!(error, Err(TextError::HiddenControlToken)), "{error:?}");
}

/// As `tests/tokenizers/control_tokens.py` recorded it.
#[test]
fn letters_of_control_tokens_are_tokenised_as_transformers_does() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tokenizers/control_tokens.json");
    let recorded: serde_json::Value = serde_json::from_str(&fs::read_to_string(recorded).unwrap()).unwrap();
    let toml = "render = \"raw\"\nspecial_tokens = false\nmax_tokens = 99\nspecial_tokens_in_text = \"literal\"";
    for case in recorded["cases"].as_array().unwrap() {
        let folder = TempDir::new().unwrap();
        let tokenizer = &recorded["tokenizers"][case["tokenizer"].as_str().unwrap()];
        fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let sample = turns(&[(Role::User, ""), (Role::Assistant, case["text"].as_str().unwrap())]);
        let ids = pipeline(&folder, toml).unwrap().tokenize(&sample, None).unwrap().ids().to_vec();
        assert_eq!(json!(ids), case["ids"], "{} {}", case["tokenizer"], case["text"]);
    }
}

/// Words whose pieces are spelled with the space before them alone, as in the vocabulary of Math-Shepherd's model.
#[test]
fn a_step_mark_is_given_as_text_and_found_among_the_tokens() {
    let pieces = ["<unk>", "▁1", "1", "0", "▁ки", "\n", "▁", "к", "и"];
    let vocabulary: Vec<_> =
        pieces.iter().map(|piece| json!([piece, if piece.len() > 2 { -1.0 } else { -3.0 }])).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false},
        "post_processor": null, "decoder": null,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": false},
    });
    let folder = folder(&[("tokenizer.json", tokenizer.to_string())]);
    for mark in ["ки", "▁ки"] {
        let toml = format!(
            "render = \"raw\"\nspecial_tokens = false\nmax_tokens = 32\nstep_mark = \"{mark}\"\nstep_end = \" ки\\n\""
        );
        let pipeline = pipeline(&folder, &toml).unwrap();
        let response = pipeline.join_steps(&["1".to_owned(), "10".to_owned()]).unwrap().unwrap();
        let input = pipeline.tokenize(&turns(&[(Role::User, ""), (Role::Assistant, &response)]), None).unwrap();
        assert_eq!(input.steps().len(), 2, "{mark} {:?}", input.ids());
        assert!(pipeline.join_steps(&["1 ки\n1".to_owned()]).is_err());
    }
}
