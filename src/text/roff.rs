//! Text in a manual page.

use roff::{Roff, roman};

/// Escapes text so that roff prints it as it is. The text is a line or a paragraph.
pub fn escape(text: &str) -> String {
    Roff::new()
        .text([roman(text)])
        .to_roff()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_roff_would_take_for_itself_is_escaped() {
        assert_eq!(escape("--json\\x"), "\\-\\-json\\\\x");
        assert_eq!(escape(".TH"), "\\&.TH");
        assert_eq!(escape("'s"), "\\&'s");
    }
}
