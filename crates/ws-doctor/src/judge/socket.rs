//! What came behind the 101.

use tower_ws_guard::RejectionKind;

use super::{known::SOCKET_IO_VERSION, origin};
use crate::{
    codes::Code,
    exchange::{End, Received, Socket},
    finding::Finding,
    frames::{Event, Fault},
    probe::{Observations, Probe, is_usable, last_words, pusher_error},
};

pub(crate) fn findings(seen: &Observations, received: &Received) -> Vec<Finding> {
    let Some(socket) = &received.socket else { return Vec::new() };
    let mut findings = Vec::new();
    if let Some(fault) = &socket.frames.fault {
        findings.push(fault_of(seen, fault));
    } else if socket.end != End::Open {
        let origin = origin::finding(seen);
        let says_why =
            socket.frames.events.iter().any(|(_, event)| matches!(event, Event::Text(_)));
        findings.push(match (own_reason(socket), origin) {
            (Some(own), _) => own,
            // The server's own words come first.
            (None, Some(origin)) if says_why => {
                let explanation =
                    format!("{}; it sends {}", origin.explanation, last_words(&seen.main));
                Finding::new(Code::ClosedAtOnce).because(explanation).fix(origin.fix)
            }
            (None, Some(origin)) => origin.detail(last_words(&seen.main)),
            (None, None) => closed(seen, socket),
        });
    }
    findings
}

/// Adds what the server said behind a faulty response.
pub(super) fn behind(seen: &Observations, mut faults: Vec<Finding>) -> Vec<Finding> {
    let socket = seen.main.received().and_then(|received| received.socket.as_ref());
    let Some(Some((code, _))) =
        socket.and_then(|socket| socket.frames.close()).map(|(_, close)| close)
    else {
        return faults;
    };
    if let Some(first) = faults.first_mut() {
        first.explanation.push_str(&format!("; behind it comes {}", last_words(&seen.main)));
        if *code == SUBPROTOCOL {
            // Without one it closes, too.
            first.fix = subprotocol(seen);
        } else if let Some(fix) = close_code(*code) {
            first.fix = format!("{fix}\n{}", first.fix);
        }
    }
    faults
}

fn fault_of(seen: &Observations, fault: &Fault) -> Finding {
    let finding = match fault {
        Fault::NotAFrame(text) => {
            let short: String = text.chars().take(300).collect();
            let short = short.split_whitespace().collect::<Vec<_>>().join(" ");
            let finding = Finding::new(Code::NotAFrame)
                .because(format!("behind the 101 comes text, not a WebSocket frame: `{short}`"));
            if short.contains("Unsupported protocol version") {
                finding.fix(SOCKET_IO_VERSION)
            } else if short.starts_with("HTTP/1.") {
                finding.fix(
                    "a second listener for `upgrade` in the same server wrote it (Node: `ws` with `server:` beside the \
                     hot reload of a framework): have one listener that decides by path, with `noServer: true`",
                )
            } else {
                finding
            }
        }
        Fault::Masked => Finding::new(Code::MaskedFrame),
        Fault::ReservedBit(1) => compressed(seen),
        Fault::ReservedBit(bit) => {
            Finding::new(Code::ReservedBit).detail(format!("RSV{bit} is set"))
        }
        Fault::Violation(what) => Finding::new(Code::ReservedBit).detail(*what),
    };
    match seen.made(&Probe::Bare) {
        Some(bare) if is_usable(bare) => {
            let fix = format!(
                "{}\nwithout the offer of permessage-deflate it works (--as bare)",
                finding.fix
            );
            finding.fix(fix)
        }
        _ => finding,
    }
}

/// RSV1 is set, and the response agreed to no compression.
fn compressed(seen: &Observations) -> Finding {
    let is_offered =
        seen.main.request.as_ref().is_some_and(|request| {
            request.to_ascii_lowercase().contains("sec-websocket-extensions:")
        });
    let is_lost = is_offered
        && seen
            .main
            .received()
            .is_some_and(|received| received.head.get("sec-websocket-extensions").is_none());
    let finding = Finding::new(Code::ReservedBit);
    if is_lost {
        finding
            .because(
                "the server compresses (RSV1 is set), and its response has no Sec-WebSocket-Extensions: most often a \
                 proxy or gateway removed that header; clients fail",
            )
            .fix(
                "let the proxy or gateway pass Sec-WebSocket-Extensions in both directions, or turn the compression \
                 of the server off",
            )
    } else {
        finding
            .because(
                "the server compresses (RSV1 is set), and permessage-deflate was not agreed on: clients fail",
            )
            .fix("let the server compress only if it agreed to permessage-deflate, or turn its compression off")
    }
}

/// `AcceptThenClose` of `tower-ws-guard`: the code is the reason.
fn own_reason(socket: &Socket) -> Option<Finding> {
    let (_, Some((code, reason))) = socket.frames.close()? else { return None };
    let kind = RejectionKind::ALL.iter().find(|kind| kind.code() == reason)?;
    Some(Finding::of_server(
        reason,
        format!(
            "the server accepted, and then closed the socket with the code {code} and says why: {}",
            kind.title()
        ),
        kind.fix(),
    ))
}

fn closed(seen: &Observations, socket: &Socket) -> Finding {
    let seconds = socket.time.as_secs_f64();
    let close = socket.frames.close().map(|(_, close)| close);
    let time = if seconds < 1.0 {
        format!("after {} ms", socket.time.as_millis())
    } else {
        format!("after {seconds:.1} s")
    };
    let words = last_words(&seen.main);
    let is_mute = socket.frames.events.is_empty();
    let explanation = match &socket.end {
        End::Eof if is_mute => format!(
            "the server accepted the handshake, and ended the connection {time}, without a close frame"
        ),
        End::Reset(_) if is_mute => format!(
            "the server accepted the handshake, and reset the connection {time}, without a close frame"
        ),
        _ => format!("the server accepted the handshake, and ended the socket {time}: {words}"),
    };
    let finding = Finding::new(Code::ClosedAtOnce).because(explanation);
    let fix = match close {
        Some(Some((1011, reason))) if reason.contains("ping timeout") => Some(no_pong(socket)),
        Some(Some((SUBPROTOCOL, _))) => Some(subprotocol(seen)),
        Some(Some((code, _))) => close_code(*code).map(str::to_owned),
        Some(None) => None,
        None => idle(seconds).map(str::to_owned),
    };
    let texts = || {
        socket.frames.events.iter().filter_map(|(_, event)| match event {
            Event::Text(text) => Some(text),
            _ => None,
        })
    };
    let pusher = texts().find_map(|text| pusher_error(text)).map(|(code, _)| code);
    let finding = match (fix, pusher) {
        (Some(fix), _) => finding.fix(fix),
        (None, Some(4001)) => finding.fix(
            "compare the application key in the URL with that of the server (Laravel Reverb: REVERB_APP_KEY and \
             VITE_REVERB_APP_KEY)",
        ),
        (None, Some(4009)) => finding
            .fix("add the origin to the allowed ones (Laravel Reverb: `allowed_origins` in config/reverb.php)"),
        _ if texts().next().is_some() => {
            finding.fix("if the message above does not say why, look into the log of the server for the same moment")
        }
        // A handler that fails sends a close frame in most libraries.
        _ if is_mute && seconds < 0.1 => finding.fix(
            "look for a second listener for `upgrade` in the same server, which ends what is not its own (in Node, \
             that of Next.js): let one listener decide by path, or give the socket its own port\n\
             if there is none, look into the log of the server: an exception, or a credential that it misses",
        ),
        _ => finding.fix(
            "look into the log of the server for this moment: an exception in its handler, a credential or a first \
             message that it misses",
        ),
    };
    match seen.made(&Probe::Bare) {
        Some(bare) if is_usable(bare) => {
            finding.detail("with the headers of --as bare it stays open")
        }
        _ => finding,
    }
}

fn no_pong(socket: &Socket) -> String {
    let came = socket.frames.events.iter().any(|(_, event)| matches!(event, Event::Ping(_)));
    format!(
        "the server says that no pong came in time{}: the client or its event loop is blocked, or a proxy in between is \
         silent\nor raise the limit in the server (Python's websockets: `ping_timeout`)",
        if came { "" } else { " (no ping reached this program)" }
    )
}

/// The close code of GraphQL servers for a subprotocol.
const SUBPROTOCOL: u16 = 4406;

fn subprotocol(seen: &Observations) -> String {
    let what = if seen.given.subprotocols.is_empty() {
        "the server wants a subprotocol, and none was offered"
    } else {
        "the server wants another subprotocol than the offered one"
    };
    let graphql = [
        ("graphql-transport-ws", "of the library graphql-ws"),
        ("graphql-ws", "of the older subscriptions-transport-ws"),
    ];
    let untried = graphql
        .iter()
        .filter(|(name, _)| !seen.given.subprotocols.iter().any(|given| given == name));
    let untried =
        untried.map(|(name, of)| format!("--subprotocol {name} ({of})")).collect::<Vec<_>>();
    if untried.is_empty() {
        format!("{what}: look for its name in the documentation of the server")
    } else {
        format!("{what}: for GraphQL try {}", untried.join(" or "))
    }
}

/// RFC 6455 7.4.1, and codes that many servers use.
fn close_code(code: u16) -> Option<&'static str> {
    Some(match code {
        1000 => {
            "the server has nothing to say to this client: look at its documentation for what a client sends first"
        }
        1001 => "the server goes away or restarts: connect again",
        1002 => {
            "the server says that the client violates the protocol: look for a proxy that changes bytes"
        }
        1003 => "the server does not accept this kind of message",
        1006 | 1015 => "a server must not send this code: correct it there",
        1008 => {
            "the server says that its policy is violated: most often the credential or the origin; check both"
        }
        1009 => "a message was too large for the server",
        1011 => "an exception in the server: look into its log",
        1012 | 1013 => "the server restarts or is overloaded: connect again later",
        3000 | 4401 => "the server misses a valid credential: send one with --token or -b",
        3003 | 4403 => {
            "the server does not allow this: check the rights of the credential, and the origin"
        }
        4400 => {
            "the server does not accept the request: for graphql-ws, the first message must be connection_init"
        }
        4404 => "the server has nothing under this path or name",
        4408 => "the server waited for a first message: for graphql-ws, connection_init",
        4429 => "too many connections or requests: wait, and connect again with growing delays",
        _ => return None,
    })
}

/// The time-outs of well-known intermediaries for connections without traffic.
fn idle(seconds: f64) -> Option<&'static str> {
    let near = |limit: f64| (seconds - limit).abs() < 1.5;
    Some(if near(60.0) {
        "60 seconds without traffic is the limit of nginx (`proxy_read_timeout`) and of AWS load balancers: send pings \
         more often, or raise it"
    } else if near(55.0) {
        "55 seconds without traffic is the limit of Heroku: send pings more often"
    } else if near(100.0) {
        "100 seconds without traffic is the limit of Cloudflare: send pings more often"
    } else if near(30.0) {
        "30 seconds is the default time-out of Google's load balancers: raise it, or send pings more often"
    } else if near(240.0) {
        "4 minutes without traffic is the limit of Azure's load balancer: send pings more often"
    } else if near(350.0) {
        "350 seconds without traffic is the limit of AWS network load balancers: send pings more often"
    } else {
        return None;
    })
}
