//! The schemas of what each command prints with `--json`. gatewayctl-json(7) and
//! `man/gatewayctl-json.schema.json` are made from this, and the tests hold every command to it.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::answers::{ErrorAnswer, OutcomeAnswer, PagesAnswer};
use super::commands::clean::CleanAnswer;
use super::commands::config::{CheckedConfig, WrittenConfig};
use super::commands::history;
use super::commands::list::GatewayList;
use super::commands::logs::LogsAnswer;
use super::commands::status::answer::StatusAnswer;
use super::commands::status::change::StatusChange;
use super::commands::status::down::DownAnswer;
use super::commands::update::{CheckedUpdate, Updated};
use super::commands::wait::WaitAnswer;
use super::commands::why::WhyReport;
use super::findings_view;
use super::restart_report::RestartAnswer;
use super::restart_via_manager::{ManagerRestartAnswer, ScheduledRestart};
use super::ui::Text;
use crate::service::{Driven, InstallReport, Uninstalled};
use crate::text::roff::escape;

/// The name of a schema, the commands that print it, and the schema of the type that they print.
type AnswerSchema = (&'static str, &'static str, fn() -> Value);

const ANSWERS: [AnswerSchema; 24] = [
    (
        "error",
        "every command, when it fails",
        of::<ErrorAnswer<'static>>,
    ),
    (
        "status",
        "status of a gateway that answers",
        of::<StatusAnswer>,
    ),
    (
        "down",
        "status of an installed gateway that does not answer",
        of::<DownAnswer<'static>>,
    ),
    (
        "change",
        "status --watch, a line for each change",
        of::<StatusChange>,
    ),
    ("why", "why", of::<WhyReport>),
    ("history", "history", of::<history::HistoryAnswer>),
    ("list", "list", of::<GatewayList>),
    ("wait", "wait", of::<WaitAnswer>),
    (
        "restart",
        "restart and reload, by the gateway itself",
        of::<RestartAnswer<'static>>,
    ),
    (
        "driven",
        "start and stop, by the service manager",
        of::<Driven>,
    ),
    (
        "forced",
        "restart, by the service manager",
        of::<ManagerRestartAnswer<'static>>,
    ),
    (
        "scheduled",
        "restart by the service manager, asked from inside of the service",
        of::<ScheduledRestart<'static>>,
    ),
    (
        "doctor",
        "doctor, and doctor --fix",
        of::<findings_view::DoctorReport<'static>>,
    ),
    ("clean", "clean", of::<CleanAnswer<'static>>),
    (
        "outcome",
        "stop and recover of a gateway, and what had nothing to do",
        of::<OutcomeAnswer<'static>>,
    ),
    (
        "install",
        "install, and install --dry-run",
        of::<InstallReport>,
    ),
    ("uninstall", "uninstall", of::<Uninstalled>),
    (
        "update-check",
        "update --check",
        of::<CheckedUpdate<'static>>,
    ),
    ("update", "update", of::<Updated<'static>>),
    ("config", "config check", of::<CheckedConfig<'static>>),
    ("config-init", "config init", of::<WrittenConfig<'static>>),
    (
        "logs",
        "logs of a gateway that does not write to the journal",
        of::<LogsAnswer<'static>>,
    ),
    (
        "text",
        "completions, man without a folder, config init --stdout",
        of::<Text>,
    ),
    ("pages", "man DIR", of::<PagesAnswer<'static>>),
];

/// What is printed: fields that are always there are required, even where they may be null.
fn of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// All schemas, by name: the text of `gatewayctl-json.schema.json`.
pub fn schemas() -> String {
    let all: Map<String, Value> = ANSWERS
        .iter()
        .map(|(name, _, schema)| ((*name).to_owned(), schema()))
        .collect();
    format!("{:#}\n", Value::Object(all))
}

/// The text of gatewayctl-json(7).
pub fn page() -> String {
    let mut page = String::from(
        ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.TH gatewayctl\\-json 7 \"\" \"gateway\" \"gateway\"\n.SH NAME\ngatewayctl\\-json \\- what gatewayctl prints with \\-\\-json\n\
        .SH DESCRIPTION\nWith \\fB\\-\\-json\\fR every command of gatewayctl(8) prints exactly one JSON object on standard output, errors included; \
        progress stays on standard error, and the exit code says the same as without it.\n.PP\n\
        Three print something else: \\fBlogs\\fR one object for each entry of the journal, in the journal's own fields; \
        \\fBstatus \\-\\-watch\\fR one object a line for each change; \\fBinhibit\\fR whatever its command prints. \
        \\fBconfig show\\fR prints the configuration, as in gateway.toml(5), and \\fBconfig schema\\fR its schema.\n.PP\n\
        Fields may be added in later versions; those that are here stay. Times are RFC 3339 in UTC, lengths of time milliseconds. \
        \"Optional\" fields may be absent or null. The same as JSON schemas is in the file gatewayctl\\-json.schema.json.\n.SH OBJECTS\n",
    );
    let mut known = Map::new();
    for (_, commands, schema) in &ANSWERS {
        let schema = schema();
        page.push_str(&format!(".SS {}\n", roff(commands)));
        describe(&mut page, &schema);
        if let Some(definitions) = schema.get("$defs").and_then(Value::as_object) {
            known.extend(definitions.clone());
        }
    }
    page.push_str(".SH PARTS\n");
    for (name, schema) in &known {
        page.push_str(&format!(".SS {}\n", roff(name)));
        describe(&mut page, schema);
    }
    page.push_str(".SH SEE ALSO\ngatewayctl(8), gateway\\-control(7), gateway.toml(5)\n");
    page
}

/// The fields of an object, the words of an enumeration, or the kinds of either.
fn describe(page: &mut String, schema: &Value) {
    if let Some(text) = schema.get("description").and_then(Value::as_str) {
        page.push_str(&format!("{}\n", roff(text)));
    }
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let optional = if required.contains(&name.as_str()) && !may_be_null(field) {
            ""
        } else {
            ", optional"
        };
        let text = field
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        page.push_str(&format!(
            ".TP\n\\fB{}\\fR ({}{optional})\n{}\n",
            roff(name),
            roff(&kind(field)),
            roff(text)
        ));
    }
    for word in schema
        .get("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        page.push_str(&format!(".br\n\\(dq{}\\(dq\n", roff(word)));
    }
    for part in ["oneOf", "anyOf"]
        .iter()
        .filter_map(|key| schema.get(key)?.as_array())
        .flatten()
    {
        page.push_str(".PP\n");
        match part.get("const").and_then(Value::as_str) {
            Some(word) => page.push_str(&format!(
                "\\(dq{}\\(dq: {}\n",
                roff(word),
                roff(part["description"].as_str().unwrap_or_default())
            )),
            None => describe(page, part),
        }
    }
}

fn may_be_null(field: &Value) -> bool {
    let null = Value::from("null");
    let of_type = |part: &Value| match part.get("type") {
        Some(Value::Array(types)) => types.contains(&null),
        other => other == Some(&null),
    };
    let parts = field.get("anyOf").and_then(Value::as_array);
    of_type(field) || parts.into_iter().flatten().any(of_type)
}

/// A type in a word.
fn kind(field: &Value) -> String {
    let named = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    if let Some(path) = field.get("$ref").and_then(Value::as_str) {
        return named(path);
    }
    if let Some(word) = field.get("const") {
        return word.to_string();
    }
    if let Some(all) = ["anyOf", "allOf", "oneOf"]
        .iter()
        .find_map(|key| field.get(key)?.as_array())
    {
        let kinds: Vec<String> = all.iter().map(kind).filter(|kind| kind != "null").collect();
        return kinds.join(" or ");
    }
    let word = match field.get("type") {
        Some(Value::String(word)) => word.clone(),
        Some(Value::Array(words)) => words
            .iter()
            .filter_map(Value::as_str)
            .find(|word| *word != "null")
            .unwrap_or_default()
            .to_owned(),
        _ => return "anything".to_owned(),
    };
    match field.get("items") {
        Some(items) if word == "array" => format!("array of {}", kind(items)),
        _ => word,
    }
}

/// Escapes text for a manual page, on one line; rustdoc's link brackets are left out.
fn roff(text: &str) -> String {
    let text = text
        .replace('…', "...")
        .replace(['[', ']'], "")
        .replace('\n', " ");
    escape(&text)
}
