//! `--explain`: the symptom table and the table of codes, without the network.

use crate::codes::Code;

const SYMPTOMS: &str = include_str!("../docs/symptoms.md");

/// A row of the symptom table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symptom {
    /// The message, the status or the close code.
    pub symptom: String,
    /// What it means.
    pub means: String,
    /// What to do.
    pub todo: String,
}

/// All rows of the table.
#[must_use]
pub fn symptoms() -> Vec<Symptom> {
    let rows = SYMPTOMS.lines().filter_map(|line| {
        let cells = cells(line.trim())?;
        let [symptom, means, todo] = <[String; 3]>::try_from(cells).ok()?;
        let is_rule = symptom.chars().all(|c| "-: ".contains(c));
        (!is_rule && symptom != "symptom").then_some(Symptom { symptom, means, todo })
    });
    rows.collect()
}

/// The cells of a row; `\|` is a bar within a cell.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = vec![String::new()];
    let mut characters = inner.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'|') => cells.last_mut()?.extend(characters.next()),
            '|' => cells.push(String::new()),
            _ => cells.last_mut()?.push(character),
        }
    }
    Some(cells.iter().map(|cell| cell.trim().to_owned()).collect())
}

/// What is known of a message, a status, a close code, or a code of a finding; the best first.
#[must_use]
pub fn explain(text: &str) -> Vec<Symptom> {
    let wanted = text.trim().to_ascii_lowercase();
    if let Some(code) = Code::ALL.iter().find(|code| code.as_str() == wanted) {
        return vec![Symptom {
            symptom: code.as_str().into(),
            means: code.explanation().into(),
            todo: code.fix().into(),
        }];
    }
    if let Some(kind) = tower_ws_guard::RejectionKind::ALL.iter().find(|kind| kind.code() == wanted)
    {
        return vec![Symptom {
            symptom: kind.code().into(),
            means: kind.title().into(),
            todo: kind.fix().into(),
        }];
    }
    let words = words(&wanted);
    let mut rows = symptoms()
        .into_iter()
        .filter_map(|row| {
            let score = score(&wanted, &words, &row.symptom.to_ascii_lowercase());
            (score > 0).then_some((score, row))
        })
        .collect::<Vec<_>>();
    rows.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let best = rows.first().map_or(0, |(score, _)| *score);
    rows.into_iter().filter(|(score, _)| *score * 2 > best).take(5).map(|(_, row)| row).collect()
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    let words = words.filter(|word| word.len() > 2 || word.parse::<u16>().is_ok());
    words.map(str::to_owned).collect()
}

/// How well a row fits: a quotation of it in the text, or the share of its words.
fn score(wanted: &str, words: &[String], symptom: &str) -> usize {
    let quoted = symptom.split('`').skip(1).step_by(2);
    let quoted = quoted.map(|quote| quote.trim_matches(['…', ' ', '.'])).filter(|quote| {
        quote.len() > 2 && (wanted.contains(quote) || (wanted.len() > 2 && quote.contains(wanted)))
    });
    let longest = quoted.map(str::len).max().unwrap_or_default();
    let row = self::words(symptom);
    let is_number = |word: &String| word.parse::<u16>().is_ok();
    let numbers = words.iter().filter(|word| is_number(word)).collect::<Vec<_>>();
    let hits = words.iter().filter(|word| row.contains(word));
    let weight =
        hits.map(|word| if is_number(word) { 12 } else { word.len().min(8) }).sum::<usize>();
    // A status or a close code that the row does not have is another one.
    if longest == 0 && !numbers.is_empty() && !numbers.iter().any(|number| row.contains(number)) {
        return 0;
    }
    if longest == 0 && weight < 8 { 0 } else { longest * 4 + weight }
}
