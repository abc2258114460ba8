//! Preferences: what a row of a preference file or of a file of stored scores says.
//!
//! To be scored: `chosen` and `rejected`, each a text, a dialogue, or a list of either (one against many, RewardBench 2);
//! without a prompt, transcripts as hh-rlhf has them.
//! Scored already: the same two fields with numbers or with what this command wrote; `scores_chosen` and
//! `scores_rejected` (RewardBench); or `scores`, of which the first `num_correct` belong to right responses
//! (RewardBench 2).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::{
    backend::Input,
    rows::{answers, text},
    style::plain,
};

/// The largest score, either way, whose squares still have room to be summed.
const LARGEST: f64 = 1e100;

/// The subset of rows that name none.
pub(super) const NO_SUBSET: &str = "all";

/// A preference whose responses wait for their scores.
#[derive(Debug, Clone)]
pub(super) struct Unscored {
    pub(super) label: Label,
    pub(super) chosen: Vec<Input>,
    pub(super) rejected: Vec<Input>,
}

/// A preference with its scores.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Item {
    #[serde(flatten)]
    pub(super) label: Label,
    /// Of the right responses, at least one.
    pub(super) chosen: Vec<Scores>,
    /// Of the wrong ones, at least one.
    pub(super) rejected: Vec<Scores>,
}

/// What a preference is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Label {
    /// The part of the file that it is counted with.
    pub(super) subset: String,
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
}

/// The scores of one response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scores {
    /// The reward.
    pub(super) reward: f64,
    /// Each member's score, where they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) members: Vec<f64>,
}

/// One row.
#[derive(Debug, Clone)]
pub(super) enum Read {
    Unscored(Unscored),
    Scored(Item),
}

/// The fields that hold a preference.
#[derive(Debug, Clone)]
pub(super) struct Names<'a> {
    pub(super) prompt: &'a str,
    pub(super) chosen: &'a str,
    pub(super) rejected: &'a str,
    pub(super) subset: &'a str,
}

/// Reads one row.
pub(super) fn read(fields: &Map<String, Value>, names: &Names<'_>) -> Result<Read, String> {
    let label = Label {
        subset: fields.get(names.subset).and_then(text).map_or_else(|| NO_SUBSET.to_owned(), |name| plain(&name)),
        id: fields.get("id").filter(|id| !id.is_null()).map(|id| text(id).unwrap_or_else(|| id.to_string())),
    };
    let stored = |name: &str| fields.get(name).map(|side| scores(side).map_err(|reason| format!("{name:?} {reason}")));
    if let (Some(chosen), Some(rejected)) = (stored("scores_chosen"), stored("scores_rejected")) {
        return item(label, chosen?, rejected?);
    }
    if let Some(all) = stored("scores") {
        let (mut all, right) = (all?, fields.get("num_correct").and_then(Value::as_u64).unwrap_or(1));
        let right = usize::try_from(right).unwrap_or(usize::MAX).min(all.len());
        let wrong = all.split_off(right);
        return item(label, all, wrong);
    }
    let side = |name: &str| fields.get(name).filter(|side| !side.is_null()).ok_or_else(|| format!("has no {name:?}"));
    let (chosen, rejected) = (side(names.chosen)?, side(names.rejected)?);
    if is_scored(chosen) && is_scored(rejected) {
        let numbers = |name: &str, side: &Value| scores(side).map_err(|reason| format!("{name:?} {reason}"));
        return item(label, numbers(names.chosen, chosen)?, numbers(names.rejected, rejected)?);
    }
    let prompt = fields.get(names.prompt).filter(|prompt| !prompt.is_null());
    let inputs = |name: &str, side: &Value| answers(prompt, side).map_err(|reason| format!("{name:?}: {reason}"));
    let (chosen, rejected) = (inputs(names.chosen, chosen)?, inputs(names.rejected, rejected)?);
    Ok(Read::Unscored(Unscored { label, chosen, rejected }))
}

fn item(label: Label, chosen: Vec<Scores>, rejected: Vec<Scores>) -> Result<Read, String> {
    if chosen.is_empty() || rejected.is_empty() {
        return Err("needs the score of at least one right and one wrong response".to_owned());
    }
    let all = chosen.iter().chain(&rejected).flat_map(|scores| scores.members.iter().chain([&scores.reward]));
    if let Some(beyond) = all.into_iter().find(|score| score.abs() > LARGEST) {
        return Err(format!("holds the score {beyond:e}, and statistics of scores beyond ±{LARGEST:e} overflow"));
    }
    Ok(Read::Scored(Item { label, chosen, rejected }))
}

/// Whether a side holds scores rather than responses.
fn is_scored(side: &Value) -> bool {
    match side {
        Value::Array(entries) => entries.first().is_some_and(is_scored),
        Value::Object(fields) => fields.contains_key("reward"),
        side => side.is_number(),
    }
}

/// One score or a list of them; a list within a list with one number is that number, as some files nest them.
fn scores(side: &Value) -> Result<Vec<Scores>, String> {
    let one = |value: &Value| match value {
        Value::Array(nested) if nested.len() == 1 => score(&nested[0]),
        value => score(value),
    };
    match side {
        Value::Array(entries) => entries.iter().map(one).collect(),
        side => Ok(vec![score(side)?]),
    }
}

fn score(value: &Value) -> Result<Scores, String> {
    match value {
        Value::Number(number) => {
            Ok(Scores { reward: number.as_f64().ok_or("holds a number too large")?, members: Vec::new() })
        }
        Value::Object(_) => serde_json::from_value(value.clone()).map_err(|error| error.to_string()),
        _ => Err("holds something other than scores".to_owned()),
    }
}

/// The rows of a file that is one object with a list for each column; `None` where it isn't.
pub(super) fn columns(fields: &Map<String, Value>) -> Option<Vec<Map<String, Value>>> {
    let scored = ["scores", "scores_chosen", "chosen"].iter().find_map(|name| fields.get(*name)?.as_array())?;
    // In a row, the subset is a text; among columns it is a list.
    let listed = ["subset", "id"].iter().any(|name| fields.get(*name).is_some_and(Value::is_array));
    if !listed {
        return None;
    }
    let row = |index: usize| {
        let cell = |(name, column): (&String, &Value)| {
            let column = column.as_array().filter(|column| column.len() == scored.len())?;
            Some((name.clone(), column[index].clone()))
        };
        fields.iter().filter_map(cell).collect()
    };
    Some((0..scored.len()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAMES: Names<'static> = Names { prompt: "prompt", chosen: "chosen", rejected: "rejected", subset: "subset" };

    fn row(row: &Value) -> Result<Read, String> {
        read(row.as_object().unwrap(), &NAMES)
    }

    fn stored(value: &Value) -> (usize, usize, f64) {
        let Ok(Read::Scored(item)) = row(value) else { panic!("{value} holds no scores") };
        (item.chosen.len(), item.rejected.len(), item.chosen[0].reward)
    }

    #[test]
    fn preferences_come_one_by_one_and_one_against_many() {
        for (value, chosen, rejected) in [
            (json!({"prompt": "q", "chosen": "a", "rejected": "b"}), 1, 1),
            (json!({"prompt": "q", "chosen": "a", "rejected": ["b", "c"]}), 1, 2),
            // RewardBench 2
            (json!({"id": "3", "prompt": "q", "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1}), 1, 3),
        ] {
            let Ok(Read::Unscored(item)) = row(&value) else { panic!("{value}") };
            assert_eq!((item.chosen.len(), item.rejected.len()), (chosen, rejected), "{value}");
        }
        assert!(row(&json!({"prompt": "q", "chosen": "a"})).unwrap_err().contains("no \"rejected\""));
        assert!(row(&json!({"chosen": "a", "rejected": "b"})).unwrap_err().contains("no prompt"));
        // hh-rlhf
        let side = |answer: &str| format!("\n\nHuman: q\n\nAssistant: {answer}");
        let Ok(Read::Unscored(item)) = row(&json!({"chosen": side("a"), "rejected": side("b")})) else { panic!("hh") };
        assert!(matches!(&item.chosen[..], [Input::Messages { messages }] if messages.len() == 2));
    }

    #[test]
    fn stored_scores_come_in_the_shapes_that_are_published() {
        assert_eq!(stored(&json!({"subset": "s", "scores_chosen": 0.5, "scores_rejected": [1, 2]})), (1, 2, 0.5));
        assert_eq!(stored(&json!({"scores": [3, 1, 0, 2], "num_correct": 1})), (1, 3, 3.0));
        assert_eq!(stored(&json!({"scores": [[3], [1], [0]], "num_correct": 2})), (2, 1, 3.0));
        let own = json!({"chosen": [{"reward": 1.5, "members": [1, 2]}], "rejected": [{"reward": 0}]});
        assert_eq!(stored(&own), (1, 1, 1.5));
        assert!(row(&json!({"scores": [3], "num_correct": 1})).is_err());
        assert!(row(&json!({"scores_chosen": 1e308, "scores_rejected": -1e308})).unwrap_err().contains("overflow"));
        assert!(row(&json!({"scores_chosen": "high", "scores_rejected": 1})).is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let scores = |reward| vec![Scores { reward, members: vec![reward, 2.0] }];
        let label = Label { subset: "s".to_owned(), id: Some("tied:1".to_owned()) };
        let item = Item { label, chosen: scores(1.0), rejected: scores(0.5) };
        let Ok(Read::Scored(again)) = row(&serde_json::to_value(&item).unwrap()) else { panic!("not scored") };
        assert_eq!((again.label, again.chosen, again.rejected), (item.label, item.chosen, item.rejected));
    }

    #[test]
    fn a_file_of_columns_becomes_rows() {
        let file = json!({"model": "m", "subset": ["a", "b"], "scores_chosen": [1, 2], "scores_rejected": [0, 3]});
        let rows = columns(file.as_object().unwrap()).unwrap();
        assert_eq!(
            rows[1],
            json!({"subset": "b", "scores_chosen": 2, "scores_rejected": 3}).as_object().unwrap().clone()
        );
        assert!(columns(json!({"subset": "a", "scores_chosen": [1]}).as_object().unwrap()).is_none());
    }
}
