//! Each promise of `SECURITY.md` and each incident of `docs/threats.md` has a test, which is there.

use std::collections::BTreeSet;

const SECURITY: &str = include_str!("../SECURITY.md");
const THREATS: &str = include_str!("../docs/threats.md");

/// The cells of the rows of all tables, without their heads.
fn rows(page: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let is_row =
        |line: &&str| line.starts_with("| ") && !line.ends_with(" tests |") && !line.starts_with("| incident ");
    page.lines().filter(is_row).map(|line| line.trim_matches(['|', ' ']).split(" | ").collect())
}

/// What is between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests of a file in `tests`.
fn tests(file: &str) -> BTreeSet<String> {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines() {
        let name = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        match name.and_then(|rest| rest.split_once('(')) {
            Some((name, _)) if is_test => drop(tests.insert(name.to_owned())),
            _ => {}
        }
        is_test = line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    }
    tests
}

#[test]
fn every_promise_has_its_tests() {
    let mut promises = 0;
    for row in rows(SECURITY) {
        let [promise, held_by] = row[..] else { panic!("{row:?}") };
        promises += 1;
        let mut in_file = None;
        let mut held = 0;
        for name in code(held_by) {
            match name.starts_with("tests/") {
                true => in_file = Some(tests(name)),
                false => {
                    assert!(in_file.as_ref().expect("a file first").contains(name), "{promise}: no test `{name}`");
                    held += 1;
                }
            }
        }
        assert!(held > 0, "{promise}");
    }
    assert!(promises > 10, "{promises}");
}

#[test]
fn every_incident_has_its_test_and_every_test_its_incident() {
    let mut named = BTreeSet::new();
    for row in rows(THREATS) {
        let [incident, _, test] = row[..] else { panic!("{row:?}") };
        let names = code(test).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names.len(), 1, "{incident}");
        // The test is called after the advisory.
        for advisory in
            incident.split([' ', ',', ';']).filter(|word| word.starts_with("CVE-") || word.starts_with("GHSA-")).take(1)
        {
            assert!(names[0].contains(&advisory.to_lowercase().replace('-', "_")), "{incident}: {names:?}");
        }
        named.extend(names);
    }
    assert_eq!(named, tests("tests/incidents.rs"));
}
