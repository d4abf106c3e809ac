//! Each sentence of the RFCs in `docs/rfc.md` has one row, which names code and tests that exist.

use std::{collections::BTreeMap, fs};

use crate::security::{assert_are_there, code, in_brackets};

const PAGE: &str = include_str!("../../docs/rfc.md");

/// The number of sentences with a key word of BCP 14 in each section that has one.
const SENTENCES: &[(&str, &[(&str, usize)])] = &[
    (
        "6455",
        &[
            ("4.1", 42),
            ("4.2", 1),
            ("4.2.1", 2),
            ("4.2.2", 12),
            ("4.3", 1),
            ("4.4", 1),
            ("9", 3),
            ("9.1", 7),
            ("9.2", 1),
            ("11.3.1", 1),
            ("11.3.2", 2),
            ("11.3.3", 1),
            ("11.3.4", 2),
            ("11.3.5", 2),
        ],
    ),
    ("8441", &[("2", 1), ("3", 3), ("4", 3), ("5", 3)]),
    ("9220", &[("2", 1), ("3", 2)]),
    (
        "7692",
        &[
            ("7", 2),
            ("7.1.1.1", 3),
            ("7.1.1.2", 3),
            ("7.1.2.1", 3),
            ("7.1.2.2", 5),
            ("7.2.1", 14),
            ("7.2.2", 10),
            ("7.3", 1),
        ],
    ),
    ("6750", &[("2", 1), ("2.1", 2), ("2.2", 6), ("2.3", 5), ("3", 15), ("3.1", 5)]),
];

struct Row {
    rfc: &'static str,
    section: &'static str,
    /// Of a list in the section.
    item: Option<&'static str>,
    /// The first and the last.
    sentences: Option<(usize, usize)>,
    code: &'static str,
    /// Or a reason.
    tests: &'static str,
    line: &'static str,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut rfc = "";
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## RFC ") {
            rfc = heading.split_once(':').unwrap().0;
        }
        if !line.starts_with("| ") || line.starts_with("| sentence ") {
            continue;
        }
        let cells = line.trim_matches(['|', ' ']).split(" | ").collect::<Vec<_>>();
        let [sentence, _, _, code, tests] = cells[..] else { panic!("{line}") };
        let mut parts = sentence.split(' ');
        let section = parts.next().unwrap();
        let (mut item, mut sentences) = (None, None);
        for part in parts {
            match part.strip_prefix('#') {
                Some(numbers) => {
                    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
                    sentences = Some((first.parse().unwrap(), last.parse().unwrap()));
                }
                None => item = Some(part),
            }
        }
        assert!(item.is_some() || sentences.is_some(), "{line}");
        rows.push(Row { rfc, section, item, sentences, code, tests, line });
    }
    rows
}

#[test]
fn every_sentence_has_one_row() {
    let mut found = BTreeMap::<_, Vec<usize>>::new();
    for Row { rfc, section, sentences, .. } in rows() {
        if let Some((first, last)) = sentences {
            found.entry((rfc, section)).or_default().extend(first..=last);
        }
    }
    let sections = SENTENCES.iter().flat_map(|(rfc, sections)| {
        sections.iter().map(move |(section, count)| ((*rfc, *section), (1..=*count).collect()))
    });
    assert_eq!(found, sections.collect());
}

/// Whether a source file has an item, or a variant, of this name.
fn defines(source: &str, name: &str) -> bool {
    let is_item = |line: &str, keyword: &str| {
        line.split_once(&format!("{keyword} {name}")).is_some_and(|(before, behind)| {
            let goes_on = behind.starts_with(|next: char| next.is_alphanumeric() || next == '_');
            (before.is_empty() || before.ends_with(' ')) && !goes_on
        })
    };
    source.lines().map(str::trim).any(|line| {
        let is_variant = line.strip_suffix(',') == Some(name);
        is_variant || ["fn", "struct", "enum", "const"].iter().any(|word| is_item(line, word))
    })
}

#[test]
fn every_row_names_code_and_tests_that_exist_or_a_reason() {
    for Row { code: items, tests, line, .. } in rows() {
        let mut source = String::new();
        for name in code(items) {
            if name.contains('/') {
                let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
                source = fs::read_to_string(path).unwrap_or_else(|error| panic!("{line}: {error}"));
            } else {
                assert!(defines(&source, name), "{line}: no `{name}`");
            }
        }
        if tests.starts_with('`') {
            assert!(code(items).count() > 1, "{line}: tests of which code?");
            assert_are_there(line, tests);
        } else {
            assert!(tests.len() > 8, "{line}: neither tests nor a reason");
        }
    }
    for tests in in_brackets(PAGE) {
        assert_are_there(tests, tests);
    }
}

/// Whether a section is this one or within it.
fn is_within(section: &str, outer: &str) -> bool {
    section.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The cases of the suite name sections, and items of lists, that are here.
#[test]
fn cases_of_the_suite_name_sentences_of_the_table() {
    let rows = rows();
    let cases = format!("{}/crates/ws-handshake-suite/cases", env!("CARGO_MANIFEST_DIR"));
    let mut compared = 0;
    for file in fs::read_dir(cases).unwrap() {
        let source = fs::read_to_string(file.unwrap().path()).unwrap();
        for named in source.lines().filter_map(|line| line.strip_prefix("rfc = ")) {
            let mut rfc = "";
            for mut place in named.trim_matches('"').split(", ") {
                if let Some((number, rest)) =
                    place.strip_prefix("RFC ").and_then(|rest| rest.split_once(' '))
                {
                    (rfc, place) = (number, rest);
                }
                let (section, item) = match place.split_once(' ') {
                    Some((section, item)) => (section, Some(item)),
                    None => (place, None),
                };
                let covered: &[&str] = match rfc {
                    "6455" => &["4", "9", "11.3"],
                    "7692" => &["7"],
                    "6750" | "8441" | "9220" => &["2", "3", "4", "5"],
                    _ => &[],
                };
                if !covered.iter().any(|outer| is_within(section, outer)) {
                    continue;
                }
                let is_here = rows.iter().any(|row| {
                    let is_item = row.section == section && row.item == item;
                    row.rfc == rfc && is_within(section, row.section) && (item.is_none() || is_item)
                });
                assert!(is_here, "{named}: RFC {rfc} {place}");
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
}
