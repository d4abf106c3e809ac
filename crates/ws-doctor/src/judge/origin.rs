//! What the origin probes show.

use crate::{
    codes::Code,
    finding::Finding,
    probe::{Observations, Probe, is_better, last_words},
    report::result,
    who::{self, Proxy},
};

/// The finding on the origin, if a probe of it was made: the cause, or that it is undecided.
pub(crate) fn finding(seen: &Observations) -> Option<Finding> {
    if seen.is_flaky() {
        return None;
    }
    let sent = seen.main.variant.origin.as_deref();
    let own = seen.main.target.origin();
    let accepted =
        |wanted: &Probe| seen.made(wanted).is_some_and(|exchange| is_better(seen, exchange));
    let none = accepted(&Probe::WithoutOrigin);
    let with_own = accepted(&Probe::OwnOrigin(own.clone()));
    let other = seen.origin_probes().find_map(|(probe, exchange)| match probe {
        Probe::OtherOrigin(origin) if is_better(seen, exchange) => Some(origin),
        _ => None,
    });
    let main = result(&seen.main);

    let Some(sent) = sent else {
        let accepted = if with_own { Some(&own) } else { other };
        let accepted = accepted?;
        return Some(Finding::new(Code::OriginRequired).because(format!(
            "the server rejects handshakes without an Origin: with `Origin: {accepted}` it accepts, without one: {main}"
        )));
    };
    let list = |accepted: &str| {
        Finding::new(Code::OriginRejected)
            .because(format!(
                "the server rejects the origin `{sent}` ({main}), and accepts {accepted}: the origin is the cause"
            ))
            .fix(format!("{}\nCORS settings have no effect on a WebSocket", allow(seen, sent)))
    };
    if let Some(other) = other {
        return Some(list(&format!("`{other}`")));
    }
    if sent != own {
        if with_own {
            return Some(list(&format!("its own, `{own}`")));
        }
        if none {
            let finding = list("a handshake without one");
            let fix = format!(
                "{}\nit rejects its own origin too: if it compares Origin with Host, let the proxy in front pass Host on",
                finding.fix
            );
            return Some(finding.fix(fix));
        }
    } else if none {
        if seen.given.subprotocols.iter().any(|subprotocol| subprotocol == "vite-hmr") {
            return Some(vite(seen, &main));
        }
        let proxy = seen.main.received().and_then(who::named);
        let list = if seen.given.origins.is_empty() {
            format!("give the origin of your page with --origin, and add it{}", place(seen))
        } else {
            allow(seen, sent)
        };
        return Some(
            Finding::new(Code::HostChanged)
                .because(format!(
                    "the server rejects its own public origin, `{own}` ({main}), and accepts a handshake without one: \
                     a proxy in front changes Host, with which it compares Origin, or its list of origins lacks this one"
                ))
                .fix(format!(
                    "{}\nif the server has a list of allowed origins: {list}",
                    proxy.unwrap_or(Proxy::Other).host()
                )),
        );
    }
    None
}

/// Vite wants a token of all that send an Origin, which are browsers.
fn vite(seen: &Observations, main: &str) -> Finding {
    let has_token = seen.main.target.query().any(|(name, _)| name == "token");
    let (what, how) = if has_token {
        ("another token than the one in the URL, for it changes with each start of Vite", "anew ")
    } else {
        ("a token in the URL, `token=TOKEN` in its query", "")
    };
    Finding::new(Code::Rejected)
        .because(format!("{main}: Vite wants of a browser {what}; without an Origin it accepts"))
        .fix(format!(
            "take the URL {how}from the network panel of the browser, with its path and token\nfor a page from elsewhere \
             set `server.cors` and `server.hmr`"
        ))
}

/// Whether origins were tried, and none was accepted.
pub(crate) fn is_undecided(seen: &Observations) -> bool {
    !seen.is_flaky() && seen.origin_probes().next().is_some() && finding(seen).is_none()
}

/// How to allow an origin: in the words of the framework, if the responses tell which it is.
pub(crate) fn allow(seen: &Observations, origin: &str) -> String {
    let url = url::Url::parse(origin).ok();
    let host = url.as_ref().and_then(url::Url::host_str).unwrap_or(origin);
    match framework(seen) {
        Some(Framework::Channels) => format!(
            "add `{host}` to ALLOWED_HOSTS of Django (Channels with AllowedHostsOriginValidator), or `{origin}` to the \
             list of OriginValidator"
        ),
        // It compares names of hosts.
        Some(Framework::Webpack) => format!(
            "add the host in webpack-dev-server: `devServer: {{ allowedHosts: [\"{host}\"] }}`, without a scheme and \
             a port"
        ),
        _ => format!("add `{origin}`{}", place(seen)),
    }
}

/// ` to the allowed origins of the server`, with the setting of the framework.
fn place(seen: &Observations) -> String {
    let setting = match framework(seen) {
        Some(Framework::Setting(setting)) => format!(" ({setting})"),
        Some(Framework::Channels) => {
            " (Django Channels with AllowedHostsOriginValidator: its host to ALLOWED_HOSTS)".into()
        }
        Some(Framework::Webpack) => " (webpack-dev-server: its host to `allowedHosts`)".into(),
        None => String::new(),
    };
    format!(" to the allowed origins of the server{setting}")
}

/// What has the list of origins.
#[derive(Clone, Copy)]
enum Framework {
    Channels,
    Webpack,
    /// The name, and the setting that takes origins.
    Setting(&'static str),
}

const TORNADO: Framework =
    Framework::Setting("Tornado: `check_origin`; Jupyter: `c.ServerApp.allow_origin`");
const RAILS: Framework = Framework::Setting("Rails: `config.action_cable.allowed_request_origins`");
const FLASK: Framework = Framework::Setting("Flask-SocketIO: `cors_allowed_origins`");

/// By marks in the responses, in lower case.
const FRAMEWORKS: &[(&str, Framework)] = &[
    ("tornadoserver", TORNADO),
    ("cross origin websockets not allowed", TORNADO),
    // The reason that Daphne sends in the status line.
    ("\nreason: access denied\n", Framework::Channels),
    ("server: daphne", Framework::Channels),
    ("x-runtime: ", RAILS),
    ("server: puma", RAILS),
    ("invalid host/origin header", Framework::Webpack),
    // Spring's handling of CORS, which a WebSocket goes through, too.
    (
        "vary: access-control-request-method",
        Framework::Setting("Spring: `setAllowedOrigins` of the endpoint"),
    ),
    ("server: cowboy", Framework::Setting("Phoenix: `check_origin` of the endpoint")),
    ("server: kestrel", Framework::Setting("ASP.NET Core: `WebSocketOptions.AllowedOrigins`")),
    ("server: gunicorn", FLASK),
    ("server: werkzeug", FLASK),
];

fn framework(seen: &Observations) -> Option<Framework> {
    let probes = seen.probes.iter().map(|(_, exchange)| exchange);
    let received =
        [&seen.main].into_iter().chain(probes).filter_map(|exchange| exchange.received());
    let text = received
        .map(|received| {
            let headers = received.head.headers.iter();
            let headers = headers.map(|(name, value)| {
                format!("{name}: {}", String::from_utf8_lossy(&value[..value.len().min(200)]))
            });
            let text: String = received.text.chars().take(2000).collect();
            let reason = format!("\nreason: {}", received.head.reason);
            [headers.collect::<Vec<_>>().join("\n"), reason, text, last_words(&seen.main)]
                .join("\n")
        })
        .collect::<Vec<_>>()
        .join("\n")
        .to_ascii_lowercase();
    FRAMEWORKS.iter().find(|(mark, _)| text.contains(mark)).map(|(_, framework)| *framework)
}

/// All origins were rejected: it may be the list, the credential or the path.
pub(crate) fn undecided(seen: &Observations, status: &str) -> Finding {
    let tried = seen.origin_probes().map(|(probe, _)| match probe {
        Probe::OwnOrigin(origin) | Probe::OtherOrigin(origin) => format!("`{origin}`"),
        _ => "none".into(),
    });
    let sent = seen.main.variant.origin.as_ref().map(|origin| format!("`{origin}`"));
    let tried = sent.into_iter().chain(tried).collect::<Vec<_>>().join(", ");
    let finding = Finding::new(Code::OriginUndecided).because(format!(
        "{status}: the server rejects every origin that was tried ({tried}): it allows another one only, or rejects the \
         credential or the path"
    ));
    let (Some(_), Some(origin)) = (framework(seen), &seen.main.variant.origin) else {
        return finding;
    };
    let fix = format!(
        "if your page has this origin, {}\nto be sure: {}",
        allow(seen, origin),
        finding.fix
    );
    finding.fix(fix)
}
