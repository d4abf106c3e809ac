//! A redirect: browsers do not follow that of a WebSocket.

use super::rejected::status_line;
use crate::{
    codes::Code, exchange::Received, finding::Finding, probe::Observations, target::Target,
};

pub(super) fn finding(seen: &Observations, received: &Received) -> Finding {
    let from = &seen.main.target;
    let status = status_line(received);
    let finding = Finding::new(Code::Redirected);
    let Some(location) = received.head.text("location") else {
        return finding
            .because(format!("{status}: the server redirects without saying where (no Location)"));
    };
    let Some(to) = from.redirected(&location) else {
        return finding.because(format!(
            "{status}: the server redirects to `{location}`, which is no web address"
        ));
    };
    let names = |target: &Target| (target.host() + &target.path()).to_ascii_lowercase();
    let (asked, leads) = (names(from), names(&to));
    // What is in the URL already is the name of the endpoint.
    let is_login = ["login", "signin", "sign-in", "sign_in", "auth", "sso", "saml"]
        .iter()
        .any(|word| leads.contains(word) && !asked.contains(word));
    let (why, fix) = if is_login {
        (
            format!("to a login page, `{}`: the handshake has no valid session", from.page(&location)),
            "log in first, on a page of the same host, so that the cookie of the session is sent (here: -b \
             'NAME=VALUE'); let the server respond to a handshake with 401 in place of a redirect"
                .to_owned(),
        )
    } else if !from.tls() && to.tls() && from.host() == to.host() {
        ("from ws: to wss:".to_owned(), format!("use {to}"))
    } else if to.path().trim_end_matches('/') == from.path().trim_end_matches('/')
        && to.authority() == from.authority()
    {
        ("to the path with another slash at its end".to_owned(), format!("use {to}"))
    } else if to.host() != from.host() {
        (format!("to another host, `{}`", to.host()), format!("use {to}"))
    } else {
        (format!("to `{to}`"), format!("use {to}"))
    };
    finding
        .because(format!(
            "{status}: the server redirects {why}; browsers do not follow a redirect of a WebSocket"
        ))
        .fix(if is_login { fix } else { format!("{fix}; -L follows it here") })
}

/// Where it leads to, in words.
pub(super) fn target(seen: &Observations, received: &Received) -> String {
    let location = received.head.text("location");
    location
        .map(|location| match seen.main.target.redirected(&location) {
            Some(_) => format!("it leads to `{location}`"),
            None => format!("it leads to `{location}`, which is no web address"),
        })
        .unwrap_or_default()
}
