//! As much of JSON Schema as the schemas of gatewayctl use: a validator crate would bring thirty
//! others.

use std::process::Output;

use serde_json::Value;

use super::gateway::said;

const SCHEMAS: &str = include_str!("../../man/gatewayctl-json.schema.json");

/// The schema of an answer, by its name.
pub fn schema_of(name: &str) -> Value {
    let all: Value = serde_json::from_str(SCHEMAS).unwrap();
    all.get(name)
        .unwrap_or_else(|| panic!("no schema {name}"))
        .clone()
}

/// The answer of a command, which is exactly one object of this shape.
pub fn object(output: &Output, shape: &str) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let value: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", said(output)));
    assert!(value.is_object(), "{text}");
    let faults = faults(&schema_of(shape), &value);
    assert!(faults.is_empty(), "{shape}: {faults:#?} in: {text}");
    value
}

/// What is wrong with a value, by its place in it; empty when it is as the schema says.
pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "$", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(path) = schema.get("$ref").and_then(Value::as_str) {
        let target = root
            .pointer(path.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{path} leads nowhere"));
        check(root, target, value, at, found);
    }
    if let Some(expected) = schema.get("const").filter(|expected| *expected != value) {
        found.push(format!("{at}: {value} is not {expected}"));
    }
    if let Some(words) = schema
        .get("enum")
        .and_then(Value::as_array)
        .filter(|words| !words.contains(value))
    {
        found.push(format!("{at}: {value} is none of {words:?}"));
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|word| is_a(value, word)) {
        found.push(format!("{at}: {value} is not of type {types:?}"));
    }
    for part in schema
        .get("allOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        check(root, part, value, at, found);
    }
    for key in ["anyOf", "oneOf"] {
        let Some(parts) = schema.get(key).and_then(Value::as_array) else {
            continue;
        };
        let tries: Vec<Vec<String>> = parts
            .iter()
            .map(|part| {
                let mut inner = Vec::new();
                check(root, part, value, at, &mut inner);
                inner
            })
            .collect();
        if !tries.iter().any(Vec::is_empty) {
            found.extend(tries.into_iter().min_by_key(Vec::len).unwrap_or_default());
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    if let Some(object) = value.as_object() {
        for name in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !object.contains_key(name) {
                found.push(format!("{at}: `{name}` is missing"));
            }
        }
        for (name, inner) in object {
            match properties.and_then(|all| all.get(name)) {
                Some(part) => check(root, part, inner, &format!("{at}.{name}"), found),
                None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                    found.push(format!("{at}: `{name}` is not documented"))
                }
                None => {}
            }
        }
    }
    if let (Some(items), Some(part)) = (
        value.as_array(),
        schema.get("items").filter(|part| part.is_object()),
    ) {
        items
            .iter()
            .enumerate()
            .for_each(|(index, item)| check(root, part, item, &format!("{at}[{index}]"), found));
    }
}

fn is_a(value: &Value, word: &str) -> bool {
    match word {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}
