//! Numbers and lengths of time as people read them.

/// A length of time: "412 ms", "3.2 s", "5 min 2 s", "3 h 12 min", "4 d 1 h".
pub fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{}.{} s", seconds, millis % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// "84 MiB".
pub fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

/// "1 request", "2 requests".
pub fn count(number: u64, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

/// No column is wider: what is longer stands out of it. A text from outside may have any length, and
/// the formatter ends the program with a width over 65535.
const WIDEST: usize = 100;

/// Text with blanks after it, up to the width of its column.
pub fn padded(text: &str, width: usize) -> String {
    format!("{text:<width$}", width = width.min(WIDEST))
}

/// The cells of a table, padded so that each column is as wide as its widest cell.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<[String; N]> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let pad =
        |row: &[String; N]| std::array::from_fn(|column| padded(&row[column], widths[column]));
    rows.iter().map(pad).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_is_no_wider_than_its_column() {
        let long = "x".repeat(70_000);
        let rows = [[long.clone(), String::new()], ["a".into(), "b".into()]];
        let shown = columns(&rows);
        assert_eq!(shown[0][0], long);
        assert_eq!(shown[1], [padded("a", WIDEST), "b".into()]);
    }

    #[test]
    fn spans_and_counts() {
        for (millis, shown) in [
            (0, "0 ms"),
            (412, "412 ms"),
            (3250, "3.2 s"),
            (302_000, "5 min 2 s"),
            (11_520_000, "3 h 12 min"),
            (350_000_000, "4 d 1 h"),
        ] {
            assert_eq!(span(millis), shown);
        }
        assert_eq!(
            (count(1, "request"), count(0, "tunnel")),
            ("1 request".into(), "0 tunnels".into())
        );
    }
}
