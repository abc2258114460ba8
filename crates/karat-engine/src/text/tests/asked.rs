//! What a language model is asked about a sample: how likely a text is, or which word comes next.

use super::*;

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
    assert_eq!(input.reading(), &Reading::Logits(After::End, [12, 13].into()));
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
