//! What clients are told, and what they aren't.

use karat_engine::text::TextError;

use super::*;

#[test]
fn nobody_is_sent_a_body_of_his_own_back() {
    for letter in ["a", "é", "\u{1}", "\u{1f600}", "\""] {
        let long = letter.repeat(1_000_000);
        let problem = invalid(&long).about("field");
        let encoded = serde_json::to_string(&problem.clone().into_body()).unwrap();
        assert!(encoded.len() < 4096 && problem.detail().len() <= LONGEST_DETAIL + 3, "{}", encoded.len());
        let refused = ScoreError::Sample { index: 0, source: TextError::Template(long) };
        let from_engine = Problem::from(refused);
        assert!(from_engine.detail().len() <= LONGEST_DETAIL + 3);
    }
    assert_eq!(invalid("short").detail(), "short");
}

#[test]
fn a_full_disk_is_told_as_what_may_be_mended_and_any_other_failure_as_ours() {
    let full = Problem::from(StoreError::Full).into_response();
    assert_eq!((full.status().as_u16(), &full.headers()["retry-after"]), (507, &HeaderValue::from_static("60")));
    let problem = full.extensions().get::<Problem>().unwrap();
    assert!(problem.detail().contains("--state") && problem.detail().contains("sent again"));
    assert_eq!(Problem::from(StoreError::Closed).into_response().status().as_u16(), 500);
}

#[test]
fn where_folders_lie_is_not_told() {
    let reason = "/srv/models/a/model.toml: can't be read; also \"/opt/x/y/tokenizer.json\", and /v1/models lists 1/2";
    let shorter = without_folders(reason);
    assert_eq!(shorter, "a/model.toml: can't be read; also \"y/tokenizer.json\", and /v1/models lists 1/2");
}
