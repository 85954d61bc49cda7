//! `gatewayctl status --watch`: on a terminal in place, elsewhere a line for each change.

use std::io::IsTerminal;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::answer::{StatusAnswer, shown};
use super::change::StatusChange;
use super::text::lines;
use crate::cli::args::StatusArgs;
use crate::cli::styled_line::StyledLine;
use crate::cli::target::Target;
use crate::cli::{CliError, Context, Exit};
use crate::control::client::Client;

/// How often it is asked: a gateway does not report changes by itself. An answer takes it well below
/// a millisecond, and running times are shown in seconds.
const EVERY: Duration = Duration::from_secs(1);

/// The top left corner; what follows a line; what follows the last one (ECMA-48, which every
/// terminal but a dumb one knows).
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_ALL: &str = "\x1b[2J";

/// Shows the status until it is interrupted, or standard output is closed.
///
/// # Errors
/// When the flags cannot mean one gateway.
pub async fn watch(ctx: &Context, args: &StatusArgs) -> Result<Exit, CliError> {
    let in_place = std::io::stdout().is_terminal()
        && !ctx.ui.is_json()
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let mut connection: Option<(Target, Client)> = None;
    let mut last: Option<Value> = None;
    if in_place {
        ctx.ui.write(CLEAR_ALL);
    }
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !ctx.ui.is_closed() {
        ticks.tick().await;
        let answer = ask(ctx, &mut connection, args.deep).await;
        if let Err(error) = &answer
            && error.exit == Exit::Usage
        {
            return Err(error.clone());
        }
        if in_place {
            ctx.ui.write(&frame(ctx, &answer));
            continue;
        }
        let change = StatusChange::of(
            answer.as_ref().map_err(|error| error.message.clone()),
            Timestamp::now(),
        );
        let key = change.key();
        if last.as_ref() != Some(&key) {
            last = Some(key);
            ctx.ui.line(&change);
            ctx.ui.say(change.sentence());
        }
    }
    Ok(Exit::Done)
}

async fn ask(
    ctx: &Context,
    connection: &mut Option<(Target, Client)>,
    deep: bool,
) -> Result<StatusAnswer, CliError> {
    let connect = async || {
        let target = ctx.target()?;
        let client = target.connect().await?;
        Ok::<_, CliError>((target, client))
    };
    let (mut target, mut client) = match connection.take() {
        Some(kept) => kept,
        None => connect().await?,
    };
    let status = match target.status_over(&mut client).await {
        Ok(status) => status,
        // The connection ended with its process: its successor is asked.
        Err(_) => {
            (target, client) = connect().await?;
            target.status_over(&mut client).await?
        }
    };
    *connection = Some((target, client));
    Ok(shown(status, deep).await)
}

/// The whole screen, written over the previous one.
fn frame(ctx: &Context, answer: &Result<StatusAnswer, CliError>) -> String {
    let now = Timestamp::now();
    let text = match answer {
        Ok(shown) => lines(&ctx.ui, shown, now),
        Err(error) => error.all_lines().map(StyledLine::from).collect(),
    };
    let (columns, rows) =
        terminal_size::terminal_size().map_or((80, 24), |(width, height)| (width.0, height.0));
    let mut frame = HOME.to_owned();
    for line in text.iter().take(usize::from(rows).saturating_sub(1)) {
        frame.push_str(&clip(line.as_str(), usize::from(columns)));
        frame.push_str(CLEAR_LINE);
        frame.push_str("\r\n");
    }
    frame.push_str(CLEAR_BELOW);
    frame
}

/// The line as far as the terminal is wide; colours take no place.
fn clip(line: &str, width: usize) -> String {
    let mut kept = String::new();
    let (mut column, mut in_color) = (0, false);
    for c in line.chars() {
        match c {
            '\x1b' => in_color = true,
            _ if in_color => in_color = c != 'm',
            _ if column == width => continue,
            _ => column += 1,
        }
        kept.push(c);
        if column == width && !line.contains('\x1b') {
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_the_terminal_ends_and_its_colours_are_closed() {
        assert_eq!(clip("abcdef", 3), "abc");
        assert_eq!(clip("größer", 4), "größ");
        assert_eq!(clip("\x1b[1mabc\x1b[0mdef", 4), "\x1b[1mabc\x1b[0md");
        assert_eq!(clip("\x1b[1mabc\x1b[0mdef", 2), "\x1b[1mab\x1b[0m");
    }
}
