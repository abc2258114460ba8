//! Every head, aggregation, transform, selection rule and metric as data, and as one page of documentation.
//!
//! Both come from the lists that the server builds its rules from, so that what is documented, what is announced over
//! HTTP and what runs can't differ.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{aggregate, domain::catalogue::Description, head, metrics, select, transform};

/// One list with what a reader needs to know before its entries.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Section {
    /// What the list is called, such as "Aggregations".
    pub title: &'static str,
    /// What its entries do and where they are written.
    pub introduction: &'static str,
    /// Its entries, in the order of the list.
    pub entries: Vec<Description>,
}

/// Every list, in the order in which a request passes through them.
#[must_use]
pub fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "Heads",
            introduction: "A head turns what a model's graph returns for a response into scores. It is named in the \
                           model's manifest and checked against the graph when the model is loaded.",
            entries: head::CATALOGUE.describe(),
        },
        Section {
            title: "Aggregations",
            introduction: "An aggregation makes one reward of the scores of an ensemble's members, or of several \
                           objectives. One that can't apply to a model is refused when it is read.",
            entries: aggregate::CATALOGUE.describe(),
        },
        Section {
            title: "Transforms",
            introduction: "Transforms change rewards in the order in which they are written. Those that act on steps \
                           need a process reward; where no transform makes one number of the steps, their sum is the \
                           reward. Those that compare responses need several responses to one prompt.",
            entries: transform::CATALOGUE.describe(),
        },
        Section {
            title: "Selection rules",
            introduction: "A selection rule picks among the candidates for one prompt. Candidates are known by their \
                           index: equal responses keep their own places, and ties go to the lowest index.",
            entries: select::CATALOGUE.describe(),
        },
        Section {
            title: "Metrics",
            introduction: "A metric is computed from scores that are sent in; its parameters are its input.",
            entries: metrics::CATALOGUE.describe(),
        },
    ]
}

/// The documentation page of every list, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(
        "# Catalogue\n\nWhat this server can compute, with formulas and sources. An entry is written by its bare name \
         where no parameter is required, or as a table with its name as the only key.\n",
    );
    for section in sections() {
        push(&mut page, format_args!("\n## {}\n\n{}\n", section.title, section.introduction));
        for entry in &section.entries {
            push_entry(&mut page, entry);
        }
    }
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = page.write_fmt(text);
}

fn push_entry(page: &mut String, entry: &Description) {
    push(page, format_args!("\n### `{}`\n\n{}\n\n", entry.name, entry.summary));
    push(page, format_args!("```text\n{}\n```\n\nSource: {}.\n", entry.formula, entry.source.trim_end_matches('.')));
    let required: Vec<&str> =
        entry.parameters["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let parameters: Vec<(&String, &Value)> = entry.parameters["properties"].as_object().into_iter().flatten().collect();
    if !parameters.is_empty() {
        page.push_str("\n| parameter | value | default | meaning |\n|---|---|---|---|\n");
    }
    for (name, schema) in parameters {
        let default = match schema.get("default") {
            Some(default) if !default.is_null() => format!("`{default}`"),
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            _ => "none".to_owned(),
        };
        let meaning = schema["description"].as_str().unwrap_or_default();
        push(page, format_args!("| `{name}` | {} | {default} | {} |\n", cell(&value_of(schema)), cell(meaning)));
    }
    if !entry.laws.is_empty() {
        page.push_str("\nHolds for every input:\n\n");
    }
    for law in entry.laws {
        push(page, format_args!("- {}\n", law.sentence()));
    }
    page.push_str("\n```json\n");
    for example in &entry.examples {
        match example.as_object() {
            Some(parameters) if parameters.is_empty() => push(page, format_args!("\"{}\"\n", entry.name)),
            _ => push(page, format_args!("{{\"{}\": {example}}}\n", entry.name)),
        }
    }
    page.push_str("```\n");
}

/// Text for a cell of a table, on one line and without column marks.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// What a schema admits, in words: its type, or its alternatives.
fn value_of(schema: &Value) -> String {
    let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(key)?.as_array());
    if let Some(alternatives) = alternatives {
        let mut words: Vec<String> = alternatives.iter().map(value_of).filter(|word| word != "null").collect();
        words.dedup();
        return words.join(" or ");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ");
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    let kinds = schema["type"].as_array();
    let kind =
        kinds.into_iter().flatten().chain([&schema["type"]]).filter_map(Value::as_str).find(|kind| *kind != "null");
    match (kind, schema["properties"].as_object(), &schema["items"]) {
        (Some("object"), Some(properties), _) => {
            let keys: Vec<String> =
                properties.iter().map(|(key, value)| format!("{key}: {}", value_of(value))).collect();
            format!("{{ {} }}", keys.join(", "))
        }
        (Some("object"), None, _) => "table".to_owned(),
        (Some("array"), _, items) if items.is_object() => format!("list of {}", value_of(items)),
        (kind, ..) => kind.unwrap_or("null").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_fully_described() {
        for entry in sections().iter().flat_map(|section| &section.entries) {
            let name = entry.name;
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
            assert!(entry.summary.ends_with('.') && !entry.formula.is_empty() && !entry.source.is_empty(), "{name}");
            assert!(!entry.examples.is_empty(), "{name} has no example");
            let properties = entry.parameters["properties"].as_object().cloned().unwrap_or_default();
            assert_eq!(entry.parameters["additionalProperties"], false, "{name} takes unknown parameters");
            for (key, schema) in &properties {
                assert!(schema["description"].is_string(), "{name}.{key} has no description");
            }
            let required: Vec<&str> =
                entry.parameters["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            assert!(required.is_empty() || !entry.has_defaults, "{name} builds without a required parameter");
            for example in &entry.examples {
                let keys = example.as_object().unwrap();
                assert!(keys.keys().all(|key| properties.contains_key(key)), "{name}: {example}");
                assert!(required.iter().all(|key| keys.contains_key(*key)), "{name}: {example}");
            }
        }
    }

    #[test]
    fn names_are_unique_within_a_list() {
        for section in sections() {
            let mut names: Vec<&str> = section.entries.iter().map(|entry| entry.name).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count, "{}", section.title);
        }
    }

    #[test]
    fn the_page_shows_every_entry_with_its_parameters() {
        let page = markdown();
        for entry in sections().iter().flat_map(|section| &section.entries) {
            assert!(page.contains(&format!("### `{}`", entry.name)), "{}", entry.name);
            assert!(page.contains(entry.formula), "{}", entry.name);
        }
        assert!(page.contains("| `lambda` | number | required | The weight of the variance, at least 0. |"), "{page}");
        assert!(page.contains("| `ddof` | `0` or `1` | `0` |"), "{page}");
        assert!(page.contains("| `members` | integer | none |") && page.contains("| `objectives` | list of string |"));
        assert!(page.contains("| `activation` | `\"softmax\"` or `\"sigmoid\"` | `\"softmax\"` |"), "{page}");
        assert!(page.contains("- The result lies between the lowest and the highest member."));
    }
}
