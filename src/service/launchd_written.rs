//! The property list of a job as it lies on the disk: launchd reads it at a load, and somebody may have edited
//! it since.

use std::io;
use std::path::Path;

use plist::{Dictionary, Value};

use crate::config::regular_file;

/// A longer property list is not read.
const PLIST_MAX: u64 = 1024 * 1024;

/// Its text.
pub(super) fn text(path: &Path) -> io::Result<Vec<u8>> {
    regular_file::read(path, PLIST_MAX)
}

/// The keys that a text says.
///
/// # Errors
/// Why it is no property list of a job.
pub(super) fn keys(text: &[u8]) -> Result<Dictionary, String> {
    let value = Value::from_reader_xml(text).map_err(|error| error.to_string())?;
    let keys = value.into_dictionary();
    keys.ok_or_else(|| "it holds no dictionary".to_owned())
}

/// The words of its command.
pub(super) fn arguments(keys: &Dictionary) -> Option<Vec<&str>> {
    let words = keys.get("ProgramArguments")?.as_array()?;
    Some(words.iter().filter_map(Value::as_string).collect())
}

/// The first word of its command.
pub(super) fn first_word(keys: &Dictionary) -> Option<&str> {
    let words = keys.get("ProgramArguments")?.as_array()?;
    words.first()?.as_string()
}

/// The program that launchd runs for it.
pub(super) fn program(keys: &Dictionary) -> Option<&str> {
    let program = keys.get("Program").and_then(Value::as_string);
    program.or_else(|| first_word(keys))
}
