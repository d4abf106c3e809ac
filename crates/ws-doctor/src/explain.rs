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
    Some(cells.iter().map(|cell| unlink(cell.trim())).collect())
}

/// Links of Markdown become their text.
fn unlink(cell: &str) -> String {
    let mut output = String::new();
    let mut rest = cell;
    while let Some((before, after)) = rest.split_once('[') {
        output.push_str(before);
        match after.split_once("](").and_then(|(text, url)| Some((text, url.split_once(')')?.1))) {
            Some((text, tail)) if !text.contains('[') => {
                output.push_str(text);
                rest = tail;
            }
            _ => {
                output.push('[');
                rest = after;
            }
        }
    }
    output + rest
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
    let numbers = words.iter().filter_map(|word| word.parse().ok()).collect::<Vec<u16>>();
    let mut rows = symptoms()
        .into_iter()
        .filter_map(|row| {
            let symptom = row.symptom.to_ascii_lowercase();
            let score = if has_number(&symptom, &numbers) { 1000 } else { 0 }
                + score(&wanted, &words, &symptom);
            (score > 0).then_some((score, row))
        })
        .collect::<Vec<_>>();
    if rows.is_empty() && wanted.len() > 3 {
        // Such as the name of a product.
        let is_named = |cell: &str| cell.to_ascii_lowercase().contains(&wanted);
        let named =
            symptoms().into_iter().filter(|row| is_named(&row.means) || is_named(&row.todo));
        return named.take(4).collect();
    }
    rows.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    // A row for the number, and one for the message around it.
    let best = rows.iter().map(|(score, _)| *score % 1000).max().unwrap_or_default();
    rows.retain(|(score, _)| *score >= 1000 || *score * 2 > best);
    rows.into_iter().take(4).map(|(_, row)| row).collect()
}

/// Whether the row is about one of the numbers: `404`, or `4000`…`4999`.
fn has_number(symptom: &str, numbers: &[u16]) -> bool {
    let quotes = symptom.split('`').collect::<Vec<_>>();
    let number = |at: usize| quotes.get(at)?.trim().parse::<u16>().ok();
    (1..quotes.len()).step_by(2).any(|at| {
        let Some(first) = number(at) else { return false };
        let last =
            quotes.get(at + 1).filter(|between| between.trim() == "…").and_then(|_| number(at + 2));
        numbers.iter().any(|wanted| (first..=last.unwrap_or(first)).contains(wanted))
    })
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
        let is_number = quote.parse::<u16>().is_ok();
        let is_in = |text: &str, part: &str| part.len() > 2 && text.contains(part);
        !is_number && quote.split('…').map(str::trim).any(|part| is_in(wanted, part))
            || is_in(quote, wanted)
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
