//! Text that a terminal shows and does not obey.

/// Escapes control characters, text direction, and characters that are invisible or combine with
/// others. Line ends stay.
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\'' | '"' | '\\' => output.push(character),
            '\t' => output.push(' '),
            _ => output.extend(character.escape_debug()),
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn only_visible_text_stays() {
        for (text, shown) in [
            ("größe \"x\" 'y' \\ 日本\n", "größe \"x\" 'y' \\ 日本\n"),
            ("\u{1b}[31m\u{7}\r\u{8}", "\\u{1b}[31m\\u{7}\\r\\u{8}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("\u{202e}abc\u{2066}", "\\u{202e}abc\\u{2066}"),
            ("\u{200b}\u{feff}\u{2028}", "\\u{200b}\\u{feff}\\u{2028}"),
            ("a\u{300}\u{300}", "a\\u{300}\\u{300}"),
            ("\u{e0041}\u{f0000}", "\\u{e0041}\\u{f0000}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
