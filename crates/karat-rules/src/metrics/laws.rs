//! What holds for every metric of the list: it answers its own examples with finite numbers, and numbers at the ends of
//! `f64` in place of the examples' give finite numbers or a typed refusal.

use serde_json::Value;

use super::CATALOGUE;

/// Every number of a value replaced, integers left alone.
fn replaced(value: &Value, number: f64) -> Value {
    match value {
        Value::Number(old) if old.is_f64() => Value::from(number),
        Value::Array(list) => list.iter().map(|value| replaced(value, number)).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), replaced(value, number))).collect(),
        other => other.clone(),
    }
}

fn as_floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), Value::from),
        Value::Array(list) => list.iter().map(as_floats).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), as_floats(value))).collect(),
        other => other.clone(),
    }
}

fn nulls(value: &Value) -> usize {
    match value {
        Value::Null => 1,
        Value::Array(list) => list.iter().map(nulls).sum(),
        Value::Object(map) => map.values().map(nulls).sum(),
        _ => 0,
    }
}

#[test]
fn every_example_is_answered() {
    for entry in CATALOGUE.entries {
        assert_eq!(entry.example_values().len(), entry.examples.len(), "{}: an example is no JSON", entry.name);
        for example in entry.example_values() {
            let result = (entry.build)(example.clone()).unwrap().compute();
            assert!(result.is_ok_and(|result| result.is_object()), "{} of {example}", entry.name);
        }
    }
}

#[test]
fn extremes_are_answered_or_refused_and_never_turn_into_null() {
    for entry in CATALOGUE.entries {
        for example in entry.example_values() {
            let usual = (entry.build)(as_floats(&example)).or_else(|_| (entry.build)(example.clone())).unwrap();
            let undefined = nulls(&usual.compute().unwrap());
            for extreme in [1e30, -1e30, f64::MAX, f64::MIN, f64::MIN_POSITIVE / 2.0, 0.0, 0.5] {
                let Ok(metric) = (entry.build)(replaced(&as_floats(&example), extreme)) else { continue };
                if let Ok(result) = metric.compute() {
                    // Equal scores have no correlation: two coefficients, and what derives from one, may be undefined.
                    assert!(nulls(&result) <= undefined + 3, "{} of {extreme}: {result}", entry.name);
                }
            }
        }
    }
}
