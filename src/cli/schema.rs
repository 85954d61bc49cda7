//! The schemas of what each command prints with `--json`. gatewayctl-json(7) and
//! `man/gatewayctl-json.schema.json` are made from this, and the tests hold every command to it.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::answers::{ErrorAnswer, OutcomeAnswer, PagesAnswer};
use super::commands::clean::CleanAnswer;
use super::commands::config::{CheckedConfig, WrittenConfig};
use super::commands::demo::DemoAnswer;
use super::commands::events::EventLine;
use super::commands::history::HistoryAnswer;
use super::commands::list::GatewayList;
use super::commands::logs::{LogsAnswer, SecretLinesAnswer};
use super::commands::presets::PresetsAnswer;
use super::commands::sidecars::SidecarsAnswer;
use super::commands::status::answer::StatusAnswer;
use super::commands::status::change::StatusChange;
use super::commands::status::down::DownAnswer;
use super::commands::update::{CheckedUpdate, Updated};
use super::commands::wait::WaitAnswer;
use super::commands::why::WhyReport;
use super::findings_view::DoctorReport;
use super::restart_report::RestartAnswer;
use super::restart_via_manager::{ManagerRestartAnswer, ScheduledRestart};
use super::ui::Text;
use crate::bench::payload::RestartBenchAnswer;
use crate::control::protocol::GatewayEvent;
use crate::service::{Driven, InstallReport, Uninstalled};
use crate::text::roff::escape;

/// What some commands print.
struct AnswerSchema {
    name: &'static str,
    commands: &'static str,
    schema: Value,
}

/// What is printed: fields that are always there are required, even where they may be null.
fn of<T: JsonSchema>(name: &'static str, commands: &'static str) -> AnswerSchema {
    let generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    AnswerSchema {
        name,
        commands,
        schema: generator.into_root_schema_for::<T>().to_value(),
    }
}

fn answers() -> [AnswerSchema; 30] {
    [
        of::<ErrorAnswer>("error", "every command, when it fails"),
        of::<StatusAnswer>("status", "status of a gateway that answers"),
        of::<DownAnswer>(
            "down",
            "status of an installed gateway that does not answer",
        ),
        of::<StatusChange>("change", "status --watch, a line for each change"),
        of::<EventLine>("events", "events, a line for each event"),
        of::<SidecarsAnswer>("sidecars", "sidecars"),
        of::<WhyReport>("why", "why"),
        of::<HistoryAnswer>("history", "history"),
        of::<GatewayList>("list", "list"),
        of::<WaitAnswer>("wait", "wait"),
        of::<RestartAnswer>(
            "restart",
            "restart, reload and sidecars restart, by the gateway itself",
        ),
        of::<Driven>("driven", "start and stop, by the service manager"),
        of::<ManagerRestartAnswer>("forced", "restart, by the service manager"),
        of::<ScheduledRestart>(
            "scheduled",
            "restart by the service manager, asked from inside of the service",
        ),
        of::<DoctorReport>("doctor", "doctor, and doctor --fix"),
        of::<CleanAnswer>("clean", "clean"),
        of::<OutcomeAnswer>(
            "outcome",
            "stop and recover of a gateway, and what had nothing to do",
        ),
        of::<InstallReport>("install", "install, and install --dry-run"),
        of::<Uninstalled>("uninstall", "uninstall"),
        of::<CheckedUpdate>("update-check", "update --check"),
        of::<Updated>("update", "update"),
        of::<CheckedConfig>("config", "config check"),
        of::<WrittenConfig>("config-init", "config init"),
        of::<LogsAnswer>(
            "logs",
            "logs of a gateway that does not write to the journal",
        ),
        of::<SecretLinesAnswer>("secrets", "logs --show-secrets"),
        of::<PresetsAnswer>("presets", "presets"),
        of::<DemoAnswer>("demo", "demo"),
        of::<RestartBenchAnswer>("bench-restart", "bench restart"),
        of::<Text>(
            "text",
            "completions, man without a directory, config init --stdout",
        ),
        of::<PagesAnswer>("pages", "man DIR"),
    ]
}

/// All schemas, by name: the text of `gatewayctl-json.schema.json`.
pub fn schemas() -> String {
    let named = answers().map(|answer| (answer.name.to_owned(), answer.schema));
    format!("{:#}\n", Value::Object(named.into_iter().collect()))
}

/// The text of gatewayctl-json(7).
pub fn page() -> String {
    let mut page = String::from(
        ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.TH gatewayctl\\-json 7 \"\" \"gateway\" \"gateway\"\n.SH NAME\ngatewayctl\\-json \\- what gatewayctl prints with \\-\\-json\n\
        .SH DESCRIPTION\nWith \\fB\\-\\-json\\fR every command of gatewayctl(8) prints exactly one JSON object on standard output, errors included; \
        progress stays on standard error, and the exit code says the same as without it.\n.PP\n\
        Four print something else: \\fBlogs\\fR one object for each entry of the journal, in the journal's own fields; \
        \\fBstatus \\-\\-watch\\fR one object a line for each change, and \\fBevents\\fR one for each event; \\fBinhibit\\fR whatever its command prints. \
        \\fBconfig show\\fR prints the configuration, as in gateway.toml(5), and \\fBconfig schema\\fR its schema.\n.PP\n\
        Fields may be added in later versions; those that are here stay. Times are RFC 3339 in UTC, lengths of time milliseconds. \
        \"Optional\" fields may be absent or null. The same as JSON schemas is in the file gatewayctl\\-json.schema.json.\n.SH OBJECTS\n",
    );
    let mut known = Map::new();
    for answer in answers() {
        page.push_str(&format!(".SS {}\n", roff(answer.commands)));
        describe(&mut page, &answer.schema);
        if let Some(definitions) = answer.schema["$defs"].as_object() {
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

/// What subscribers are told: a part of gateway-control(7).
pub fn events() -> String {
    let schema = of::<GatewayEvent>("event", "").schema;
    let definitions = &schema["$defs"];
    let mut page = String::new();
    for event in schema["oneOf"].as_array().into_iter().flatten() {
        let fields = &event["properties"];
        let name = fields["event"]["const"].as_str().unwrap_or_default();
        let payload = kind(&fields["payload"]);
        page.push_str(&format!(".SS {}\n", roff(name)));
        let about = event["description"].as_str().unwrap_or_default();
        page.push_str(&format!("{}\n.PP\n", roff(about)));
        describe(&mut page, &definitions[payload]);
    }
    page
}

/// The fields of an object, the words of an enumeration, or the kinds of either.
fn describe(page: &mut String, schema: &Value) {
    let list = |key: &str| schema[key].as_array().into_iter().flatten();
    if let Some(text) = schema["description"].as_str() {
        page.push_str(&format!("{}\n", roff(text)));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let required = list("required").any(|one| one == name) && !may_be_null(field);
        page.push_str(&format!(
            ".TP\n\\fB{}\\fR ({}{})\n{}\n",
            roff(name),
            roff(&kind(field)),
            if required { "" } else { ", optional" },
            roff(field["description"].as_str().unwrap_or_default())
        ));
    }
    if let Some(path) = schema["$ref"].as_str() {
        let name = path.rsplit('/').next().unwrap_or(path);
        page.push_str(&format!(".PP\nand the fields of {}\n", roff(name)));
    }
    for word in list("enum").filter_map(Value::as_str) {
        page.push_str(&format!(".br\n\\(dq{}\\(dq\n", roff(word)));
    }
    for part in list("oneOf").chain(list("anyOf")) {
        page.push_str(".PP\n");
        match part["const"].as_str() {
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
    let of_type = |part: &Value| match &part["type"] {
        Value::Array(types) => types.contains(&null),
        other => *other == null,
    };
    of_type(field) || field["anyOf"].as_array().into_iter().flatten().any(of_type)
}

/// A type in a word.
fn kind(field: &Value) -> String {
    if let Some(path) = field["$ref"].as_str() {
        return path.rsplit('/').next().unwrap_or(path).to_owned();
    }
    if let Some(word) = field.get("const") {
        return word.to_string();
    }
    let parts = ["anyOf", "allOf", "oneOf"].map(|key| field[key].as_array());
    if let Some(parts) = parts.into_iter().flatten().next() {
        let kinds = parts.iter().map(kind).filter(|kind| kind != "null");
        return kinds.collect::<Vec<_>>().join(" or ");
    }
    let word = match &field["type"] {
        Value::String(word) => word,
        Value::Array(words) => words
            .iter()
            .filter_map(Value::as_str)
            .find(|word| *word != "null")
            .unwrap_or_default(),
        _ => return "anything".to_owned(),
    };
    match field.get("items") {
        Some(items) if word == "array" => format!("array of {}", kind(items)),
        _ => word.to_owned(),
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
