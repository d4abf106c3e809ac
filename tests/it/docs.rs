//! The guides: `docs/rejections.md` has a complete and correct section for each rejection kind, links between
//! pages lead to sections, and the configurations of proxies are the tested ones.

use tower_ws_guard::RejectionKind;

const PAGE: &str = include_str!("../../docs/rejections.md");

/// The pages of the module `guide`, by the names of their modules.
const GUIDES: [(&str, &str); 11] = [
    ("browsers", include_str!("../../docs/browsers.md")),
    ("fleet", include_str!("../../docs/fleet.md")),
    ("getting_started", include_str!("../../docs/getting-started.md")),
    ("hardening", include_str!("../../docs/hardening.md")),
    ("migrating", include_str!("../../docs/migrating.md")),
    ("operating", include_str!("../../docs/operating.md")),
    ("policies", include_str!("../../docs/policies.md")),
    ("proxies", include_str!("../../docs/proxies.md")),
    ("rejections", PAGE),
    ("testing", include_str!("../../docs/testing.md")),
    ("threats", include_str!("../../docs/threats.md")),
];

/// The headings before those of the codes.
const GENERAL: &[&str] = &[
    "Read a failure",
    "From symptom to section",
    "Why 403",
    "TLS certificates and mixed content",
    "Connection and Upgrade",
    "The accept value",
    "Versions",
    "The codes",
];

/// The parts of a section in order; the last three are the fix.
const PARTS: &[&str] =
    &["**Meaning.** ", "**Causes.** ", "**Client.** ", "**Server.** ", "**Proxy.** "];

/// The lines of the page of rejections outside of code blocks.
fn prose() -> impl Iterator<Item = &'static str> {
    prose_of(PAGE)
}

fn prose_of(page: &'static str) -> impl Iterator<Item = &'static str> {
    let mut in_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The second-level headings with their lines.
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
fn rejection_kinds_have_their_sections_in_order() {
    let headings = sections().into_iter().map(|(heading, _)| heading).collect::<Vec<_>>();
    let (general, codes) = headings.split_at(GENERAL.len().min(headings.len()));
    assert_eq!(general, GENERAL);
    let expected = RejectionKind::ALL.iter().map(|kind| kind.code()).collect::<Vec<_>>();
    assert_eq!(codes, expected);
}

#[test]
fn headings_are_only_of_first_and_second_level() {
    let headings = prose().filter(|line| line.starts_with('#')).collect::<Vec<_>>();
    assert_eq!(headings.iter().filter(|line| line.starts_with("# ")).count(), 1);
    assert!(
        headings.iter().all(|line| line.starts_with("# ") || line.starts_with("## ")),
        "{headings:?}"
    );
}

#[test]
fn section_begins_with_status_and_cause() {
    let sections = sections();
    for kind in RejectionKind::ALL {
        let (_, lines) =
            sections.iter().find(|(heading, _)| *heading == kind.code()).expect("a section");
        let expected = format!("Status {}: {}.", kind.status().as_u16(), kind.title());
        assert_eq!(
            lines.iter().find(|line| !line.is_empty()),
            Some(&&*expected),
            "{}",
            kind.code()
        );
    }
}

#[test]
fn table_lists_every_code() {
    for kind in RejectionKind::ALL {
        let row = format!("| {} | ", kind.status().as_u16());
        let link = format!("[{code}](#{code})", code = kind.code());
        assert!(prose().any(|line| line.starts_with(&row) && line.contains(&link)), "{row}{link}");
    }
}

#[test]
fn section_has_every_part_once_and_in_order() {
    for (heading, lines) in sections().iter().skip(GENERAL.len()) {
        let begun = lines.iter().filter(|line| line.starts_with("**")).collect::<Vec<_>>();
        assert_eq!(begun.len(), PARTS.len(), "{heading}: {begun:?}");
        for (line, part) in begun.into_iter().zip(PARTS) {
            assert!(
                line.starts_with(part) && line.len() > part.len(),
                "{heading}: `{part}` is not where it should be"
            );
        }
    }
}

#[test]
fn section_links_to_its_kind_and_what_causes_it() {
    let sections = sections();
    for kind in RejectionKind::ALL {
        let (_, lines) =
            sections.iter().find(|(heading, _)| *heading == kind.code()).expect("a section");
        let link = format!("[`RejectionKind::{kind:?}`]; from ");
        let line = lines.iter().find(|line| line.starts_with(&link));
        let causes = line.unwrap_or_else(|| panic!("`{link}` in {}", kind.code()));
        assert!(causes[link.len()..].contains("[`"), "{}: {causes}", kind.code());
    }
}

/// As rustdoc makes it from a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .replace(' ', "-")
        .replace(|c: char| !c.is_alphanumeric() && c != '-' && c != '_', "")
}

#[test]
fn links_between_the_guides_lead_to_sections() {
    let anchors = |page: &'static str| {
        prose_of(page)
            .filter(|line| line.starts_with('#'))
            .map(|line| anchor(line.trim_start_matches(['#', ' '])))
            .collect::<Vec<_>>()
    };
    let mut count = 0;
    for (name, page) in GUIDES {
        for line in prose_of(page) {
            for link in line.split("](").skip(1) {
                let (link, _) = link.split_once(')').expect("a link ends");
                let Some((to, section)) = link.split_once('#') else { continue };
                let to = if to.is_empty() { name } else { to };
                let Some((_, target)) = GUIDES.iter().find(|(name, _)| *name == to) else {
                    // To the documentation of the crate, or to the web.
                    assert!(
                        to.starts_with("crate::") || to.starts_with("https://"),
                        "`{link}` in {name}"
                    );
                    continue;
                };
                assert!(
                    anchors(target).iter().any(|anchor| anchor == section),
                    "`{link}` in {name}"
                );
                count += 1;
            }
        }
    }
    assert!(count > 2 * RejectionKind::ALL.len(), "{count}");
}

#[test]
fn proxy_snippets_equal_the_tested_configuration() {
    let nginx = include_str!("../proxies/nginx.conf");
    let haproxy = include_str!("../proxies/haproxy.cfg");
    for (first, tested) in [("map $http_upgrade", nginx), ("defaults\n", haproxy)] {
        let (_, page) = GUIDES.iter().find(|(name, _)| *name == "proxies").expect("the page");
        let (_, snippet) = page.split_once(first).expect("the snippet");
        let (snippet, _) = snippet.split_once("```").expect("its end");
        let lines = snippet.lines().map(str::trim);
        // Addresses and names may differ between the page and the tests.
        let settings = lines.filter(|line| {
            ["proxy_", "default ", "''", "timeout "].iter().any(|of| line.starts_with(of))
        });
        let mut settings = settings.filter(|line| !line.starts_with("proxy_pass ")).peekable();
        assert!(settings.peek().is_some());
        assert!(
            settings.all(|setting| tested.lines().any(|line| line.trim() == setting)),
            "{first}"
        );
    }
}

#[test]
fn dashboard_and_alerts_name_metrics_and_codes_that_exist() {
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let queries = targets.map(|target| target["expr"].as_str().expect("a query"));
    let queries = queries.chain([include_str!("../../docs/alerts.yml")]).collect::<Vec<_>>();

    let documented = include_str!("../../src/telemetry/mod.rs");
    let (mut metrics, mut codes) = (0, 0);
    for query in queries {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.starts_with("ws_guard_")) {
            let metric = metric.trim_end_matches("_bucket");
            assert!(documented.contains(&format!("`{metric}`")), "{metric}");
            metrics += 1;
        }
        let matchers = query.split("code").filter(|rest| rest.starts_with(['=', '!']));
        for list in matchers.filter_map(|rest| rest.split('"').nth(1)) {
            for code in list.split('|').filter(|code| code.contains('-')) {
                assert!(RejectionKind::ALL.iter().any(|kind| kind.code() == code), "{code}");
                codes += 1;
            }
        }
    }
    assert!(metrics > 15 && codes > 5, "{metrics} {codes}");
}
