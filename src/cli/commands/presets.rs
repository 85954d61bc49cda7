//! `gatewayctl presets`: what is known of well-known servers.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::{Context, Exit};
use crate::sidecar::presets::{PRESETS, Preset};
use crate::text::human::columns;
use crate::text::roff;

/// The answer of `presets`.
#[derive(Serialize, JsonSchema)]
pub struct PresetsAnswer {
    /// The well-known servers.
    presets: &'static [Preset],
}

/// Shows the well-known servers.
pub fn presets(ctx: &Context) -> Exit {
    let heads = ["SERVER", "FLAGS", "ITS OWN RESTART", "TWO COPIES"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(heads)
        .chain(PRESETS.iter().map(row))
        .collect();
    for row in columns(&rows) {
        ctx.ui.say(row.join("  ").trim_end().to_owned());
    }
    ctx.ui
        .say("Why, and where that is documented: man gatewayctl-presets");
    ctx.ui.object(&PresetsAnswer { presets: &PRESETS });
    Exit::Done
}

fn row(preset: &Preset) -> [String; 4] {
    let or_none = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    [
        preset.program.to_owned(),
        or_none(preset.flags()),
        or_none(preset.reload.unwrap_or_default().to_owned()),
        preset.two_copies.to_string(),
    ]
}

/// The section of the manual page.
pub fn manual() -> String {
    let mut text = ".SH SERVERS\n".to_owned();
    for preset in &PRESETS {
        let escaped = |text: &str| roff::escape(text);
        text.push_str(&format!(".TP\n.B {}\n", escaped(preset.program)));
        let flags = preset.flags();
        if !flags.is_empty() {
            text.push_str(&format!("Flags: {}.\n", escaped(&flags)));
        }
        if let Some(reload) = preset.reload {
            text.push_str(&format!("Its own restart: reload = {}.\n", escaped(reload)));
        }
        text.push_str(&format!("Two copies: {}.\n", preset.two_copies));
        if !preset.note.is_empty() {
            text.push_str(&format!("{}\n", escaped(preset.note)));
        }
        text.push_str(&format!("Source: {}\n", escaped(preset.source)));
    }
    text
}
