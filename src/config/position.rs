//! Where something stands in a configuration file, and what a word was most likely meant to be.

use toml::de::{DeTable, DeValue};

/// A place in a text: line and column, counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// The place of a byte offset in `text`.
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset.min(text.len())).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Self { line, column }
    }
}

/// The candidate that `word` was most likely meant to be: more than half of it is right, swapped
/// letters counting as one slip.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LIKELY: f64 = 0.5;
    known
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(word, candidate),
                candidate,
            )
        })
        .filter(|(score, _)| *score > LIKELY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The place of a key in a file: table names, keys and array indices from the outside in.
pub(super) fn locate(text: &str, keys: &[String]) -> Option<Position> {
    let document = DeTable::parse(text).ok()?;
    let mut value: Option<&DeValue<'_>> = None;
    let mut offset = None;
    for key in keys {
        let table = match value {
            None => document.get_ref(),
            Some(DeValue::Table(table)) => table,
            Some(DeValue::Array(array)) => {
                let item = array.get(key.parse::<usize>().ok()?)?;
                offset = Some(item.span().start);
                value = Some(item.get_ref());
                continue;
            }
            Some(_) => break,
        };
        let Some((name, inner)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            break;
        };
        offset = Some(name.span().start);
        value = Some(inner.get_ref());
    }
    offset.map(|offset| Position::of(text, offset))
}
