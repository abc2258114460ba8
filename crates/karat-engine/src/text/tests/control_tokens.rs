//! Control tokens that users spell.

use super::*;

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
