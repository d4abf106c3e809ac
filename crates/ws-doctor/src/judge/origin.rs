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
            .because(format!("the server rejects the origin `{sent}`: {accepted} it accepts, with this one: {main}"))
            .fix(format!(
                "add `{sent}` to the allowed origins of the server{}; CORS settings have no effect on a WebSocket",
                setting(seen)
            ))
    };
    if let Some(other) = other {
        return Some(list(&format!("with `{other}`")));
    }
    if sent != own {
        if with_own {
            return Some(list(&format!("with its own, `{own}`,")));
        }
        if none {
            let finding = list("without an Origin");
            let fix = finding.fix.clone();
            return Some(finding.fix(format!(
                "{fix}; it rejects its own origin too: if it compares Origin with Host, let the proxy in front pass \
                 Host on"
            )));
        }
    } else if none {
        if seen.given.subprotocols.iter().any(|subprotocol| subprotocol == "vite-hmr") {
            return Some(list("without an Origin").fix(
                "Vite wants the token of its own page in the URL, `?token=…`: take the URL from the network panel of \
                 the browser; for a page from elsewhere set `server.cors` and `server.hmr`",
            ));
        }
        let proxy = seen.main.received().and_then(who::named);
        let list = if seen.given.origins.is_empty() {
            "give the origin of your page with --origin, and add it to the allowed origins"
                .to_owned()
        } else {
            format!("add `{own}` to it")
        };
        return Some(
            Finding::new(Code::HostChanged)
                .because(format!(
                    "the server rejects its own public origin, `{own}` ({main}), and accepts without an Origin: either \
                     it compares Origin with Host, and a proxy in front changes Host; or its list of allowed origins \
                     does not have it"
                ))
                .fix(format!(
                    "{}; if the server has a list{}: {list}",
                    proxy.unwrap_or(Proxy::Other).host(),
                    setting(seen)
                )),
        );
    }
    None
}

/// Whether origins were tried, and none was accepted.
pub(crate) fn is_undecided(seen: &Observations) -> bool {
    !seen.is_flaky() && seen.origin_probes().next().is_some() && finding(seen).is_none()
}

const TORNADO: &str = " (Tornado: `check_origin`; Jupyter: `c.ServerApp.allow_origin`)";
const CHANNELS: &str =
    " (Django Channels: `AllowedHostsOriginValidator` and ALLOWED_HOSTS, or `OriginValidator`)";

/// Where the framework has its list, if the response tells the framework.
fn setting(seen: &Observations) -> &'static str {
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
            let reason = received.head.reason.clone();
            [headers.collect::<Vec<_>>().join("\n"), reason, text, last_words(&seen.main)]
                .join("\n")
        })
        .collect::<Vec<_>>()
        .join("\n")
        .to_ascii_lowercase();
    let known = [
        ("tornadoserver", TORNADO),
        ("cross origin websockets not allowed", TORNADO),
        ("access denied", CHANNELS),
        ("daphne", CHANNELS),
        ("x-runtime: ", " (Rails: `config.action_cable.allowed_request_origins`)"),
        ("server: puma", " (Rails: `config.action_cable.allowed_request_origins`)"),
        ("invalid host/origin header", " (webpack-dev-server: `allowedHosts`)"),
        // Spring's handling of CORS, which a WebSocket goes through, too.
        ("vary: access-control-request-method", " (Spring: `setAllowedOrigins` of the endpoint)"),
        ("server: cowboy", " (in Phoenix `check_origin` of the endpoint)"),
        ("server: kestrel", " (ASP.NET Core: `WebSocketOptions.AllowedOrigins`)"),
        ("server: gunicorn", " (Flask-SocketIO: `cors_allowed_origins`)"),
        ("server: werkzeug", " (Flask-SocketIO: `cors_allowed_origins`)"),
    ];
    known.into_iter().find(|(mark, _)| text.contains(mark)).map_or("", |(_, setting)| setting)
}
