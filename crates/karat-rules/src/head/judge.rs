//! A decoder as a judge: which of two words it would say next.
//!
//! A judge of single responses is asked a question about the dialogue and answers yes or no; the score is
//! `P(yes) / (P(yes) + P(no))`. A judge of pairs is shown two responses and names one; it is asked in both orders, and the
//! preference is the mean of the two, since such judges favour a place (Zhou et al. 2024, "SCIR", the generative judge:
//! `P("A") / (P("A") + P("B"))`).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    HeadError, HeadOutput, HeadShape, ProbeError, Probing, finite,
    parameters::Names,
    probing::{dialogue, of_one_graph, pair, unexpected, with_user_turn},
};
use crate::{
    domain::{
        Message, Pair, Pattern, Probe, Reading, Reward, Role, RowTensor, Sample, TokenizedInput,
        catalogue::{Law, Rule},
        dialogue_text,
    },
    numeric::{mean, sigmoid},
};

/// Parameters of the judge; exactly one of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// Judges one response at a time.
    #[serde(default)]
    single: Option<Single>,
    /// Judges two responses, in both orders; for `POST /v1/compare`.
    #[serde(default)]
    pair: Option<Two>,
}

/// A question about one response.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Single {
    /// What the user asks after the dialogue.
    question: String,
    /// The spellings of yes, each one token, with a leading space where the model writes one.
    yes: Vec<String>,
    /// The spellings of no.
    no: Vec<String>,
}

/// A question about two responses.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Two {
    /// What the user asks: `{prompt}` stands for what was said before, `{first}` and `{second}` for the responses.
    question: String,
    /// The spellings of the answer that names the first one, each one token.
    first: Vec<String>,
    /// The spellings of the answer that names the second one.
    second: Vec<String>,
}

#[derive(Debug, Clone)]
enum Question {
    Single(String),
    Pair(Pattern),
}

/// Two answers in several spellings each: those of the first, then those of the second.
#[derive(Debug, Clone)]
struct Answers {
    words: Arc<[String]>,
    of_first: usize,
}

impl Answers {
    fn new(sides: [(&str, Vec<String>); 2]) -> Result<Self, String> {
        if let Some((name, _)) = sides.iter().find(|(_, words)| words.is_empty() || words.iter().any(String::is_empty))
        {
            return Err(format!("{name} needs at least one spelling, none of them empty"));
        }
        let [(_, first), (_, second)] = sides;
        let of_first = first.len();
        let words = Names::named("the answers' spellings", [first, second].concat())?;
        Ok(Self { words: words.shared(), of_first })
    }

    /// `P(first) / (P(first) + P(second))` of the words' logits: what all other words sum up to cancels.
    fn share(&self, logits: &[f64]) -> f64 {
        let (first, second) = logits.split_at(self.of_first.min(logits.len()));
        sigmoid(log_sum_exp(first) - log_sum_exp(second))
    }
}

/// `log Σ e^x`, the largest taken out first.
fn log_sum_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + values.iter().map(|value| (value - largest).exp()).sum::<f64>().ln()
}

#[derive(Debug, Clone)]
pub(super) struct Judge {
    question: Question,
    answers: Answers,
}

impl Rule for Judge {
    const NAME: &'static str = "judge";
    const SUMMARY: &'static str = "The probability that a language model answers yes to a question about the response, \
        or that it names the first of two responses, asked in both orders. Each answer is a token or several spellings \
        of one; a decoder's output logits.";
    const FORMULA: &'static str =
        "R = P(yes) / (P(yes) + P(no)); P(y > y2) = mean over both orders of P(A) / (P(A) + P(B))";
    const SOURCE: &'static str = "Zhou et al. 2024, SCIR (the generative judge; both orders as in its evaluation)";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"single": {"question": "Is the answer right? Answer yes or no.", "yes": ["yes", "Yes"], "no": ["no", "No"]}}"#,
        r#"{"pair": {"question": "{prompt}\n\nA: {first}\n\nB: {second}\n\nWhich answer is better, A or B?",
                     "first": ["A"], "second": ["B"]}}"#,
    ];
    const LAWS: &'static [Law] = &[Law::Probability];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Judge {
    type Error = String;

    fn try_from(parameters: Parameters) -> Result<Self, String> {
        let (question, answers) = match parameters {
            Parameters { single: Some(Single { question, yes, no }), pair: None } => {
                if question.trim().is_empty() {
                    return Err("single.question is empty; write what the judge is asked".to_owned());
                }
                (Question::Single(question), Answers::new([("yes", yes), ("no", no)])?)
            }
            Parameters { single: None, pair: Some(Two { question, first, second }) } => {
                let pattern = Pattern::parse(&question, &["prompt", "first", "second"])
                    .map_err(|reason| format!("pair.question: {reason}"))?;
                (Question::Pair(pattern), Answers::new([("first", first), ("second", second)])?)
            }
            _ => return Err("write either single or pair".to_owned()),
        };
        Ok(Self { question, answers })
    }
}

impl Judge {
    fn ask(&self, turns: Vec<Message>, kept: usize) -> Probe {
        Probe::NextWord { turns, kept, words: Arc::clone(&self.answers.words) }
    }

    fn ask_about(&self, pattern: &Pattern, pair: &Pair, first: &str, second: &str) -> Probe {
        let question = pattern.fill(&[&dialogue_text(pair.turns()), first, second]);
        self.ask(with_user_turn(&[], question), 0)
    }
}

impl Probing for Judge {
    fn gives_probabilities(&self) -> bool {
        true
    }

    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        match &self.question {
            Question::Single(question) => {
                let turns = dialogue(sample)?.messages();
                // The response is the last turn before the question.
                Ok(vec![self.ask(with_user_turn(turns, question.clone()), turns.len() - 1)])
            }
            Question::Pair(pattern) => {
                let pair = pair(sample)?;
                let ask = |first, second| self.ask_about(pattern, pair, first, second);
                Ok(vec![ask(pair.first(), pair.second()), ask(pair.second(), pair.first())])
            }
        }
    }

    fn gives(&self) -> HeadShape {
        HeadShape { pairs: matches!(self.question, Question::Pair(_)), ..HeadShape::of(1) }
    }

    fn read_pass(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        match (input.reading(), rows) {
            (Reading::Logits(..), [row]) if row.values().len() == self.answers.words.len() => {
                Ok(HeadOutput::Members(vec![Reward::new(self.answers.share(&finite(row.values())?))?]))
            }
            _ => Err(unexpected(Self::NAME)),
        }
    }

    fn example(&self) -> Sample {
        let turns = vec![Message { role: Role::User, content: "Warm up.".to_owned() }];
        let pair = Pair::new(turns, "One is warm.".to_owned(), "Two is warm.".to_owned());
        let single = Sample::from_prompt("Warm up.".to_owned(), "All is warm.".to_owned());
        let example = match self.question {
            Question::Single(_) => single,
            Question::Pair(_) => pair.map(Sample::Pair),
        };
        // None of the texts is blank.
        example.unwrap_or(Sample::Tokens(vec![0]))
    }

    fn combine(&self, readings: &[Vec<&HeadOutput>]) -> Result<HeadOutput, HeadError> {
        let probes = of_one_graph(Self::NAME, readings)?;
        let answers: Vec<f64> = probes.iter().flat_map(|probe| probe.members()).map(|reward| reward.get()).collect();
        match (&self.question, answers.as_slice()) {
            (Question::Single(_), [_]) => Ok(probes[0].clone()),
            (Question::Pair(_), [forwards, backwards]) => {
                let orders = [*forwards, 1.0 - backwards];
                Ok(HeadOutput::Pairwise { preference: Reward::new(mean(&orders))?, orders: Some(orders) })
            }
            _ => Err(unexpected(Self::NAME)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{choosing, head, numbers, row};
    use super::*;
    use crate::{
        head::Head,
        numeric::testing::{assert_all_close, assert_close},
    };

    const SINGLE: &str = r#"{"judge":{"single":{"question":"Good?","yes":["yes","Yes"],"no":["no"]}}}"#;
    const PAIR: &str = r#"{"judge":{"pair":{"question":"{prompt}|{first}|{second}","first":["A"],"second":["B"]}}}"#;

    fn answer(head: &dyn Head, probabilities: &[f32]) -> HeadOutput {
        // Logits are log-probabilities but for what all have in common.
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln() + 7.0).collect();
        head.read(&choosing(probabilities.len()), &[row(&[logits.len()], &logits)]).unwrap()
    }

    #[test]
    fn spellings_add_up_and_other_words_dont_count() {
        let head = head(SINGLE).unwrap();
        let read = answer(&*head, &[0.2, 0.1, 0.1]);
        let combined = head.probing().unwrap().combine(&[vec![&read]]).unwrap();
        assert_all_close(&numbers(combined.members()), &[0.75]);
        let sample = Sample::from_prompt("why?".to_owned(), "so".to_owned()).unwrap();
        let probes = head.probing().unwrap().probes(&sample).unwrap();
        let [Probe::NextWord { turns, words, .. }] = probes.as_slice() else { panic!("{probes:?}") };
        assert_eq!((turns.len(), turns[2].content.as_str(), words.len()), (3, "Good?", 3));
    }

    #[test]
    fn both_orders_are_asked_and_a_favoured_place_cancels() {
        let head = head(PAIR).unwrap();
        let probing = head.probing().unwrap();
        let turns = vec![Message { role: Role::User, content: "why?".to_owned() }];
        let sample = Sample::Pair(Pair::new(turns, "so".to_owned(), "no".to_owned()).unwrap());
        let asked: Vec<String> = probing
            .probes(&sample)
            .unwrap()
            .into_iter()
            .map(|probe| {
                let Probe::NextWord { turns, .. } = probe else { panic!("{probe:?}") };
                turns[0].content.clone()
            })
            .collect();
        assert_eq!(asked, ["why?|so|no", "why?|no|so"]);

        // Whatever stands first is named with 0.9, whichever it is: no preference.
        let biased = answer(&*head, &[0.9, 0.1]);
        let combined = probing.combine(&[vec![&biased, &biased]]).unwrap();
        assert_all_close(&numbers(combined.members()), &[0.5]);
        // 0.8 for the first response when it stands first, 0.6 when it stands second.
        let combined = probing.combine(&[vec![&answer(&*head, &[0.8, 0.2]), &answer(&*head, &[0.4, 0.6])]]).unwrap();
        let HeadOutput::Pairwise { preference, orders: Some([forwards, backwards]) } = combined else {
            panic!("{combined:?}")
        };
        assert_all_close(&[forwards, backwards], &[0.8, 0.6]);
        assert_close(preference.get(), 0.7);
    }

    #[test]
    fn a_judge_takes_the_shape_that_it_judges() {
        let one = Sample::from_prompt("why?".to_owned(), "so".to_owned()).unwrap();
        let two = Sample::Pair(Pair::new(Vec::new(), "so".to_owned(), "no".to_owned()).unwrap());
        assert_eq!(head(PAIR).unwrap().probing().unwrap().probes(&one), Err(ProbeError::WantsPair));
        assert_eq!(head(SINGLE).unwrap().probing().unwrap().probes(&two), Err(ProbeError::WantsOne));
        for bad in [
            r#"{}"#,
            r#"{"single":{"question":" ","yes":["y"],"no":["n"]}}"#,
            r#"{"single":{"question":"q","yes":[],"no":["n"]}}"#,
            r#"{"single":{"question":"q","yes":["y"],"no":["y"]}}"#,
            r#"{"pair":{"question":"{prompt} {first}","first":["A"],"second":["B"]}}"#,
        ] {
            assert!(head(&format!(r#"{{"judge":{bad}}}"#)).is_err(), "{bad}");
        }
    }
}
