//! What each command prints with `--json`: the shapes, as schemas. gatewayctl-json(7) and
//! `man/gatewayctl-json.schema.json` are made from this, and the tests hold every command to it.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::commands::{history, status, why};
use super::findings_view;
use super::ui::Text;
use crate::control::protocol::Outcome;

/// A command and what it prints.
struct Shape {
    /// Its name in the schema file.
    name: &'static str,
    /// The commands, and when.
    commands: &'static str,
    schema: fn() -> Value,
}

const SHAPES: [Shape; 20] = [
    Shape {
        name: "error",
        commands: "every command, when it fails",
        schema: of::<Failed>,
    },
    Shape {
        name: "status",
        commands: "status of a gateway that answers",
        schema: of::<status::answer::StatusAnswer>,
    },
    Shape {
        name: "down",
        commands: "status of an installed gateway that does not answer",
        schema: of::<Down>,
    },
    Shape {
        name: "change",
        commands: "status --watch, a line for each change",
        schema: of::<status::change::StatusChange>,
    },
    Shape {
        name: "why",
        commands: "why",
        schema: of::<why::WhyReport>,
    },
    Shape {
        name: "history",
        commands: "history",
        schema: of::<history::HistoryAnswer>,
    },
    Shape {
        name: "list",
        commands: "list",
        schema: of::<List>,
    },
    Shape {
        name: "wait",
        commands: "wait",
        schema: of::<Waited>,
    },
    Shape {
        name: "restart",
        commands: "restart and reload, by the gateway itself",
        schema: of::<Restarted>,
    },
    Shape {
        name: "driven",
        commands: "start, stop and restart, by the service manager",
        schema: of::<Driven>,
    },
    Shape {
        name: "scheduled",
        commands: "restart by the service manager, asked from inside of the service",
        schema: of::<Scheduled>,
    },
    Shape {
        name: "doctor",
        commands: "doctor, and doctor --fix",
        schema: of::<findings_view::DoctorReport<'static>>,
    },
    Shape {
        name: "clean",
        commands: "clean",
        schema: of::<Clean>,
    },
    Shape {
        name: "outcome",
        commands: "stop and recover of a gateway, and what had nothing to do",
        schema: of::<Ended>,
    },
    Shape {
        name: "install",
        commands: "install, and install --dry-run",
        schema: of::<Installed>,
    },
    Shape {
        name: "uninstall",
        commands: "uninstall",
        schema: of::<Uninstalled>,
    },
    Shape {
        name: "update",
        commands: "update --check, and update",
        schema: of::<Updated>,
    },
    Shape {
        name: "config",
        commands: "config check, config init",
        schema: of::<Configuration>,
    },
    Shape {
        name: "text",
        commands: "completions, man without a folder, config init --stdout",
        schema: of::<Text>,
    },
    Shape {
        name: "pages",
        commands: "man DIR",
        schema: of::<Pages>,
    },
];

fn of<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

/// An error.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Failed {
    /// Always false.
    ok: bool,
    /// The exit code.
    exit: u8,
    /// Cause and place.
    error: String,
    /// The next command, or what to change.
    next: Option<String>,
    /// clean, restart: what was found and done at the address.
    clean: Option<Cleaned>,
    /// restart: what a client saw meanwhile.
    probe: Option<Seen>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Down {
    /// Always false.
    ok: bool,
    /// The exit code.
    exit: u8,
    /// The instance.
    instance: String,
    /// stopped, starting, stopping, failed, silent, standing by (somebody else has its address or
    /// its name), running (it is not for this user).
    stage: String,
    /// Its unit.
    unit: String,
    /// system or user.
    scope: String,
    /// The main process, 0 when none runs.
    pid: u32,
    /// success, exit-code, signal, …: systemd's word.
    result: String,
    /// The cause; `why` knows more.
    cause: String,
    /// The last lines of its journal.
    last_words: Vec<String>,
    /// The next commands.
    next: Vec<String>,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct List {
    /// Every gateway that runs here or is installed.
    instances: Vec<Listed>,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Listed {
    /// Its name.
    instance: String,
    /// What it is doing.
    stage: String,
    /// Its process.
    pid: Option<u32>,
    /// Its generation.
    generation: Option<u64>,
    /// Its addresses.
    listeners: Vec<String>,
    /// Its control socket, when it runs.
    control: Option<String>,
    /// Its unit, when it is installed.
    unit: Option<String>,
    /// system or user, when it is installed.
    scope: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Waited {
    /// Always true; an error has its own object.
    ok: bool,
    /// ready, stopped, off its port.
    state: String,
    /// How long that took.
    took_ms: u64,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Restarted {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: String,
    #[schemars(flatten)]
    outcome: Outcome,
    /// What a client saw meanwhile.
    probe: Option<Seen>,
}

/// What a probe of the front door saw, every 25 ms.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Seen {
    /// Where it looked.
    address: String,
    /// Requests sent.
    sent: u64,
    /// Requests refused, reset, timed out or answered wrongly.
    failed: u64,
    /// Milliseconds in which requests that were sent failed.
    downtime_ms: u64,
    /// The slowest good answer, in milliseconds.
    slowest_ms: u64,
    /// How often each failure came.
    failures: std::collections::BTreeMap<String, u64>,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Driven {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: String,
    /// Its unit.
    unit: String,
    /// system or user.
    scope: String,
    /// started, already running, stopped, already stopped, restarted.
    outcome: String,
    /// The main process, 0 when none runs.
    pid: u32,
    /// restart: the main process before.
    #[schemars(rename = "pidBefore")]
    pid_before: Option<u32>,
    /// restart: how long it took.
    #[schemars(rename = "tookMs")]
    took_ms: Option<u64>,
    /// restart: what a client saw meanwhile.
    probe: Option<Seen>,
    /// restart: what was cleaned from the address.
    clean: Option<Cleaned>,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Scheduled {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: String,
    /// Its unit.
    unit: String,
    /// scheduled.
    outcome: String,
    /// The unit that carries it out.
    by: String,
    /// The command that shows its log.
    journal: String,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Clean {
    /// Always true; an error has its own object.
    ok: bool,
    #[schemars(flatten)]
    report: Cleaned,
}

/// What `clean` did.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Cleaned {
    /// The addresses.
    addresses: Vec<String>,
    /// The processes that were ended, or would be: pid, name, why.
    killed: Vec<Process>,
    /// The processes that were left alone.
    kept: Vec<Process>,
    /// free, kept (by the service manager for this gateway), ours, held, busy.
    state: String,
    /// Who has it, where somebody does: a text, or several.
    by: Option<Value>,
    /// Whether nothing was done.
    dry_run: bool,
}

/// A process and what is to be said of it.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Process {
    /// Its number.
    pid: u32,
    /// Whose it is.
    uid: u32,
    /// Its name.
    name: String,
    /// killed: what it took, TERM or KILL; null when it was gone by itself or nothing was done.
    signal: Option<String>,
    /// killed: why, in a word of gatewayctl-clean(8).
    proof: Option<String>,
    /// kept: why, in a word of gatewayctl-clean(8).
    reason: Option<String>,
    /// kept: whether it is part of this very gateway.
    ours: Option<bool>,
    /// Why it was ended or left alone.
    why: String,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Ended {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance, where there is one.
    instance: Option<String>,
    /// stopped, not running, not installed, recovering, …
    outcome: String,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Installed {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: String,
    /// system or user.
    scope: String,
    /// Its unit.
    unit: String,
    /// Where the unit lies, or would.
    unit_file: String,
    /// Where the configuration lies, or would.
    config: String,
    /// installed, updated, already installed, dry run.
    outcome: String,
    /// What was done, or would be.
    actions: Vec<String>,
    /// What the operator should know.
    #[serde(default)]
    notes: Vec<String>,
    /// What would be written; only with --dry-run and --diff, secrets hidden.
    #[serde(default)]
    files: Vec<FileText>,
    /// Where it listens.
    listen: Vec<String>,
    /// Whether it runs and is ready.
    ready: bool,
    /// The main process, 0 when none runs.
    pid: u32,
    /// The command that shows its log.
    journal: String,
}

/// A file and its text, or its difference.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct FileText {
    /// Where.
    path: String,
    /// What.
    text: String,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Uninstalled {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: String,
    /// Its unit.
    unit: String,
    /// system or user.
    scope: String,
    /// What was done, or would be.
    actions: Vec<String>,
    /// What stays, and why.
    notes: Vec<String>,
    /// Whether nothing was done.
    dry_run: bool,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Updated {
    /// Always true; an error has its own object.
    ok: bool,
    /// proven (--check), updated.
    outcome: String,
    /// The version that ran.
    from: String,
    /// The version that runs now, or would.
    to: String,
    /// --check: the program that would be replaced.
    program: Option<String>,
    /// The instance.
    instance: Option<String>,
    /// The process that runs now.
    pid: Option<u32>,
    /// Where the previous program is kept.
    previous: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Configuration {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance; not of init.
    instance: Option<String>,
    /// The file; null where defaults and flags are all there is.
    file: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "what is documented, not what is run")]
struct Pages {
    /// Always true; an error has its own object.
    ok: bool,
    /// The files that were written.
    pages: Vec<String>,
}

/// All schemas, by name: the text of `gatewayctl-json.schema.json`.
pub fn schemas() -> String {
    let all: Map<String, Value> = SHAPES
        .iter()
        .map(|shape| (shape.name.to_owned(), (shape.schema)()))
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
    for shape in &SHAPES {
        let schema = (shape.schema)();
        page.push_str(&format!(".SS {}\n", roff(shape.commands)));
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
        let optional = if required.contains(&name.as_str()) {
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

/// Text as roff takes it.
fn roff(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('…', "...")
        .replace(['[', ']'], "")
        .replace('\n', " ");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

/// A usage error as the one object.
pub fn usage(message: &str) -> Value {
    let text = message.lines().next().unwrap_or_default();
    json!({"ok": false, "exit": 2, "error": text.strip_prefix("error: ").unwrap_or(text), "next": "gatewayctl --help"})
}
