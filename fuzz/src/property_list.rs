//! Property lists of launchd jobs.

use gateway::internals::{JobPlan, Scope};
use plist::Value;

/// The characters that an XML 1.0 document may have.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_string).collect(),
        value => value.as_string().into_iter().collect(),
    }
}

/// A job that can be written is read back with each value as it was, in the order of its keys, and
/// in characters that every reader of XML takes. What is refused has a character that XML lacks.
///
/// The input is the values, each after a zero byte: the instance, the user (an agent has none), the
/// directory of the program and the working directory, the log, then names and values of variables.
pub fn property_list(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.split('\0').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (instance, user) = (next(), next());
    let mut plan = JobPlan {
        instance,
        scope: if user.is_empty() {
            Scope::User
        } else {
            Scope::System
        },
        run_as: Some(user).filter(|user| !user.is_empty()),
        bin_dir: next().into(),
        cwd: next().into(),
        log: next().into(),
        listen: Vec::new(),
        environment: Default::default(),
    };
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        plan.environment.insert(name, value);
    }
    let written = match plan.text() {
        Ok(written) => written,
        Err(error) => {
            let odd = |c: char| c != '\0' && (!is_xml(c) || c.is_control());
            assert!(
                text.contains(odd),
                "{error}, but all of {text:?} can be said"
            );
            return;
        }
    };
    assert!(written.chars().all(is_xml), "{written:?}");
    let job = Value::from_reader_xml(written.as_bytes()).expect("what was written can be read");
    let job = job.as_dictionary().unwrap();
    let one = |key: &str| job.get(key).map(texts).unwrap_or_default();
    assert_eq!(one("Label"), [plan.label()]);
    let program = plan.bin_dir.join("gateway");
    assert_eq!(
        one("ProgramArguments"),
        [
            program.to_str().unwrap(),
            "run",
            "--instance",
            &plan.instance
        ]
    );
    assert_eq!(
        one("UserName"),
        plan.run_as.as_deref().into_iter().collect::<Vec<_>>()
    );
    assert_eq!(one("WorkingDirectory"), [plan.cwd.to_str().unwrap()]);
    assert_eq!(one("StandardErrorPath"), [plan.log.to_str().unwrap()]);
    let variables = job
        .get("EnvironmentVariables")
        .and_then(Value::as_dictionary);
    let variables: Vec<(&str, &str)> = variables
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_string().unwrap()))
        .collect();
    let wanted = plan
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    assert_eq!(variables, wanted.collect::<Vec<_>>());
    for (key, value) in [("RunAtLoad", true), ("KeepAlive", true)] {
        assert_eq!(job.get(key).and_then(Value::as_boolean), Some(value));
    }
    for (key, value) in [
        ("ThrottleInterval", 1),
        ("ExitTimeOut", 30),
        ("Umask", 0o77),
    ] {
        assert_eq!(job.get(key).and_then(Value::as_signed_integer), Some(value));
    }
}
