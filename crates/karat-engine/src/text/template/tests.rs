//! Templates against what Transformers makes of them, as `tests/templates/record.py` recorded it.

use std::{env, fs, path::PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::*;

/// What a template makes of conversations.
#[derive(Deserialize)]
struct Recorded {
    /// The tokenizer's settings.
    tokens: serde_json::Value,
    date: Date,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    messages: Vec<Message>,
    #[serde(default)]
    opening: bool,
    /// What Transformers renders, if it does.
    text: Option<String>,
    /// What Transformers says instead.
    refused: Option<String>,
}

fn folder() -> PathBuf {
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/templates");
    env::var_os("KARAT_TEMPLATES").map_or_else(|| recorded.into(), PathBuf::from)
}

impl Recorded {
    fn special_tokens(&self) -> SpecialTokens {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tokenizer_config.json"), self.tokens.to_string()).unwrap();
        let config = toml::from_str("render = \"chat_template\"\nmax_tokens = 8").unwrap();
        SpecialTokens::load(folder.path(), &config).unwrap()
    }

    /// The cases in which karat does otherwise than Transformers, and how.
    fn differences(&self, source: &str) -> Vec<String> {
        let date = source.contains(TODAY).then_some(self.date);
        let made = Template::new(source, self.special_tokens(), date);
        let compare = |case: &Case| {
            let found = match &made {
                Ok(template) => template.render(&case.messages, case.opening).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let alike = match (&found, &case.text) {
                (Ok(found), Some(text)) => found == text,
                (Err(found), None) => {
                    let raised = case.refused.as_ref().and_then(|said| said.strip_prefix("TemplateError: "));
                    raised.is_none_or(|said| found.contains(said))
                }
                _ => false,
            };
            (!alike).then(|| format!("{}: {found:?}\n  not {:?}", case.name, case.text.as_ref().ok_or(&case.refused)))
        };
        self.cases.iter().filter_map(compare).collect()
    }
}

#[test]
fn every_template_gives_the_text_of_transformers_or_its_refusal() {
    let mut files: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(!files.is_empty());
    let mut different = Vec::new();
    for file in &files {
        let recorded: Recorded = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let source = fs::read_to_string(file.with_extension("jinja")).unwrap();
        let differences = recorded.differences(&source);
        if !differences.is_empty() {
            different.push(format!("{}\n{}", file.display(), differences.join("\n")));
        }
    }
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), files.len(), different.join("\n"));
}

fn tokenizer(files: &[(&str, serde_json::Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn config(more: &str) -> TextConfig {
    toml::from_str(&format!("render = \"chat_template\"\nmax_tokens = 8\n{more}")).unwrap()
}

/// As `AutoTokenizer` reads them: `special_tokens_map.json` counts where no added tokens are listed, and a null in it
/// takes a token away.
#[test]
fn special_tokens_come_from_the_files_that_transformers_reads() {
    let settings =
        json!({"bos_token": "<a>", "eos_token": {"content": "<b>"}, "pad_token": "<c>", "add_bos_token": true});
    let map = json!({"bos_token": {"content": "<d>"}, "pad_token": null, "unk_token": "<e>"});
    let old = tokenizer(&[("tokenizer_config.json", settings.clone()), ("special_tokens_map.json", map.clone())]);
    let mut listed = settings;
    listed["added_tokens_decoder"] = json!({});
    let new = tokenizer(&[("tokenizer_config.json", listed), ("special_tokens_map.json", map)]);
    let read = |folder: &tempfile::TempDir, more: &str| {
        let tokens = SpecialTokens::load(folder.path(), &config(more)).unwrap();
        tokens.iter().map(|(name, text)| format!("{name} {text}")).collect::<Vec<_>>()
    };
    assert_eq!(read(&old, ""), ["bos_token <d>", "eos_token <b>", "unk_token <e>"]);
    assert_eq!(read(&new, ""), ["bos_token <a>", "eos_token <b>", "pad_token <c>"]);
    assert_eq!(read(&new, "pad_token = \"<f>\""), ["bos_token <a>", "eos_token <b>", "pad_token <f>"]);
}

#[test]
fn template_files_go_before_the_tokenizers_settings() {
    let render = |files: &[(&str, serde_json::Value)]| {
        let folder = tokenizer(files);
        let template = Template::of_model(folder.path(), &config(""), SpecialTokens::default())?;
        template.render(&[], false)
    };
    let listed =
        json!({"chat_template": [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]});
    let settings = ("tokenizer_config.json", listed);
    let file = ("chat_template.jinja", json!("c\n"));
    let more = ("additional_chat_templates/default.jinja", json!("d"));
    assert_eq!(render(std::slice::from_ref(&settings)).unwrap(), "b");
    assert_eq!(render(&[settings.clone(), file.clone()]).unwrap(), "c");
    assert_eq!(render(&[settings, file, more]).unwrap(), "d");
    let nameless = ("tokenizer_config.json", json!({"chat_template": [{"name": "tool_use", "template": "a"}]}));
    assert!(render(&[nameless]).unwrap_err().to_string().contains("neither was found"));
}

#[test]
fn what_can_not_be_rendered_alike_is_refused_when_the_model_is_loaded() {
    let load = |source: &str, date: Option<Date>| Template::new(source, SpecialTokens::default(), date);
    let day: Date = "2024-07-26".parse().unwrap();
    let hidden = "{% if tools %}{{ strftime_now('%Y') }}{% endif %}{{ messages[0].content }}";
    for (source, date, needle) in [
        (hidden, None, "text.date: the chat template asks for today's date"),
        ("{{ messages[0].content }}", Some(day), "text.date: the chat template never asks"),
        ("{{ '%s' % messages[0].content }}", None, "text.render: the chat template can't be rendered"),
        ("{{ messages[0].content | urlize }}", None, "urlize"),
        ("{% if messages[0].role == 'system' %}{{ messages[0].content.zfill(3) }}{% endif %}", None, "zfill"),
        ("{% if add_generation_prompt %}{{ missing() }}{% endif %}", None, "missing"),
    ] {
        let error = load(source, date).unwrap_err().to_string();
        assert!(error.contains(needle), "{source}: {error}");
    }
    assert!(load(hidden, Some(day)).is_ok());
    // Templates may refuse what they weren't written for.
    assert!(load("{{ raise_exception('never') }}", None).is_ok());
    assert!(load("{% if messages[0].role == 'system' %}{{ missing.attribute }}{% endif %}", None).is_ok());
}
