//! The page about refused handshakes has a section for each kind, whole and true to the table.

use tower_ws_guard::RejectionKind;

const PAGE: &str = include_str!("../docs/refusals.md");

/// What stands in front of the codes.
const GENERAL: &[&str] = &[
    "Read a failure",
    "From symptom to section",
    "Why 403",
    "Authentication",
    "Proxies and firewalls",
    "Origins",
    "TLS certificates and mixed content",
    "Connection and Upgrade",
    "The accept value",
    "Versions",
    "The codes",
];

/// What a section consists of, in order; the last three are the fix.
const PARTS: &[&str] = &["**Meaning.** ", "**Causes.** ", "**Client.** ", "**Server.** ", "**Proxy.** "];

/// The lines that are no code.
fn prose() -> impl Iterator<Item = &'static str> {
    let mut in_code = false;
    PAGE.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The second-level headings with what is below them.
fn sections() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut sections: Vec<(_, Vec<_>)> = Vec::new();
    for line in prose() {
        match (line.strip_prefix("## "), sections.last_mut()) {
            (Some(heading), _) => sections.push((heading, Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    sections
}

#[test]
fn every_kind_has_a_section_in_order_and_nothing_else_has() {
    let headings = sections().into_iter().map(|(heading, _)| heading).collect::<Vec<_>>();
    let (general, codes) = headings.split_at(GENERAL.len().min(headings.len()));
    assert_eq!(general, GENERAL);
    let expected = RejectionKind::ALL.iter().map(|kind| kind.code()).collect::<Vec<_>>();
    assert_eq!(codes, expected);
}

#[test]
fn no_other_heading_takes_an_anchor() {
    let headings = prose().filter(|line| line.starts_with('#')).collect::<Vec<_>>();
    assert_eq!(headings.iter().filter(|line| line.starts_with("# ")).count(), 1);
    assert!(headings.iter().all(|line| line.starts_with("# ") || line.starts_with("## ")), "{headings:?}");
}

#[test]
fn a_section_begins_with_what_the_answer_says() {
    let sections = sections();
    for kind in RejectionKind::ALL {
        let (_, lines) = sections.iter().find(|(heading, _)| *heading == kind.code()).expect("a section");
        let expected = format!("Status {}: {}.", kind.status().as_u16(), kind.cause());
        assert_eq!(lines.iter().find(|line| !line.is_empty()), Some(&&*expected), "{}", kind.code());
    }
}

#[test]
fn the_table_of_codes_is_complete() {
    for kind in RejectionKind::ALL {
        let row = format!("| {} | ", kind.status().as_u16());
        let link = format!("[{code}](#{code})", code = kind.code());
        assert!(prose().any(|line| line.starts_with(&row) && line.contains(&link)), "{row}{link}");
    }
}

#[test]
fn a_section_has_every_part_once_and_in_order() {
    for (heading, lines) in sections().iter().skip(GENERAL.len()) {
        let begun = lines.iter().filter(|line| line.starts_with("**")).collect::<Vec<_>>();
        assert_eq!(begun.len(), PARTS.len(), "{heading}: {begun:?}");
        for (line, part) in begun.into_iter().zip(PARTS) {
            assert!(line.starts_with(part) && line.len() > part.len(), "{heading}: `{part}` is not where it should be");
        }
    }
}

#[test]
fn links_lead_to_sections() {
    let anchor = |heading: &str| heading.to_lowercase().replace(' ', "-");
    let anchors = sections().into_iter().map(|(heading, _)| anchor(heading)).collect::<Vec<_>>();
    let mut count = 0;
    for line in prose() {
        for link in line.split("](#").skip(1) {
            let target = link.split_once(')').expect("a link ends").0;
            assert!(anchors.iter().any(|anchor| anchor == target), "`{target}` in: {line}");
            count += 1;
        }
    }
    assert!(count > RejectionKind::ALL.len(), "links are found");
}

#[test]
fn the_proxies_are_set_up_as_in_the_tests() {
    let nginx = include_str!("proxies/nginx.conf");
    let haproxy = include_str!("proxies/haproxy.cfg");
    for (first, tested) in [("map $http_upgrade", nginx), ("defaults\n", haproxy)] {
        let (_, snippet) = PAGE.split_once(first).expect("the snippet");
        let (snippet, _) = snippet.split_once("```").expect("its end");
        let lines = snippet.lines().map(str::trim);
        // Where they listen, where the server is, and what the tests call it are of no importance.
        let settings =
            lines.filter(|line| ["proxy_", "default ", "''", "timeout "].iter().any(|of| line.starts_with(of)));
        let mut settings = settings.filter(|line| !line.starts_with("proxy_pass ")).peekable();
        assert!(settings.peek().is_some());
        assert!(settings.all(|setting| tested.lines().any(|line| line.trim() == setting)), "{first}");
    }
}
