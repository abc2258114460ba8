//! Where the steps of a solution end.

use super::*;

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
fn a_mark_where_no_step_ends_is_refused() {
    let folder = folder(&[]);
    let toml = "render = \"pair\"\nmax_tokens = 16\nstep_mark = \"x\"\nstep_end = \" x \"";
    let pipeline = pipeline(&folder, toml).unwrap();
    // What a policy may write in one step, and karat's end behind it.
    for (step, place) in [("x b", 0), ("a x", 4)] {
        let response = pipeline.join_steps(&[step.to_owned()]).unwrap().unwrap();
        let error = pipeline.tokenize(&pair("a", &response), None).unwrap_err();
        assert!(matches!(error, TextError::StrayMark { at } if at == place), "{step}: {error}");
    }
    // The last end may lack the space behind it.
    assert_eq!(pipeline.tokenize(&pair("a", "a x b x"), None).unwrap().steps(), [4, 6]);
}

#[test]
fn marks_of_a_text_that_was_sent_rendered_stand_where_steps_end_too() {
    let folder = folder(&[]);
    let toml = "render = \"raw\"\nspecial_tokens = false\nmax_tokens = 16\nstep_mark = \"x\"\nstep_end = \" x \"";
    let pipeline = pipeline(&folder, toml).unwrap();
    let tokenize = |said: &str| pipeline.tokenize(&Sample::Text(text(said)), None);
    assert_eq!(tokenize("a x b x").unwrap().steps(), [1, 3]);
    // What a template writes behind the last step.
    assert_eq!(tokenize("a x b x\nc").unwrap().steps(), [1, 3]);
    for (said, place) in [("x b x", 0), ("a b\nx b", 4)] {
        let error = tokenize(said).unwrap_err();
        assert!(matches!(error, TextError::StrayMark { at } if at == place), "{said}: {error}");
    }
    // Whoever sends tokens says what is a mark.
    let ids = pipeline.tokenize(&Sample::Text(text("a x b x")), None).unwrap().ids().to_vec();
    assert_eq!(pipeline.tokenize(&Sample::Tokens(vec![ids[1], ids[0], ids[1]]), None).unwrap().steps(), [0, 2]);
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
        let as_published = turns(&[(Role::User, ""), (Role::Assistant, "1 ки\n10 ки")]);
        assert_eq!(pipeline.tokenize(&as_published, None).unwrap().steps(), input.steps());
        assert!(pipeline.join_steps(&["1 ки\n1".to_owned()]).is_err());
    }
}
