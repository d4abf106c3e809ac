//! Whether the upgrade arrived: the same GET without it tells.

use super::rejected::{path, words};
use crate::{
    codes::Code,
    exchange::{Exchange, Received},
    finding::Finding,
    probe::{Observations, Probe},
    report::status_line,
    who::{self, Proxy},
};

pub(super) fn finding(seen: &Observations, received: &Received, text: &str) -> Option<Finding> {
    let says = |list: &[&str]| list.iter().any(|words| text.contains(words));
    let is_library = says(LIBRARIES_SAY) || is_vite(received);
    let says_so = says(LIBRARIES_SAY) || says(OTHERS_SAY);
    let other = seen.made(&Probe::WithoutUpgrade).and_then(Exchange::received);
    let is_same = other.is_some_and(|other| {
        other.head.status == received.head.status
            && skeleton(&other.text) == skeleton(&received.text)
    });
    if !is_same && !says_so {
        return None;
    }
    let status = received.head.status;
    let line = status_line(received);
    if status == 404 && received.head.text("server").as_deref() == Some("uvicorn") {
        return Some(uvicorn(received));
    }
    let proxy = who::named(received);
    let path = path(seen);
    if says_so || proxy.is_some() || matches!(status, 200 | 426) {
        let proxy = proxy.unwrap_or(Proxy::Other);
        let evidence =
            if is_same { "the response is the same without Upgrade" } else { "the server says so" };
        let name = proxy.name();
        let (because, page) = if status == 200 && !is_library {
            (
                format!(
                    "an ordinary page ({evidence}): nothing sends the path `{path}` to the server of the WebSocket, or \
                     {name} in front does not pass the upgrade on"
                ),
                "send this path to the server of the WebSocket (in nginx a location with proxy_pass)\nthen ",
            )
        } else {
            // The words of a WebSocket library show that the path is right.
            let or = if is_library {
                String::new()
            } else {
                format!(", or nothing at the path `{path}` speaks WebSocket")
            };
            (
                format!(
                    "the upgrade did not arrive ({evidence}): {name} in front does not pass it on{or}"
                ),
                "",
            )
        };
        // FastAPI's body.
        let library = if status == 404 && text.contains("{\"detail\":\"not found\"}") {
            "\nif that is done, uvicorn has no WebSocket library: pip install 'uvicorn[standard]'"
        } else {
            ""
        };
        return Some(
            Finding::new(Code::UpgradeStripped)
                .because(format!("{line}: {because}"))
                .detail(words(received))
                .fix(format!("{page}{}{library}", proxy.upgrade())),
        );
    }
    if status == 404 {
        return None;
    }
    Some(
        Finding::new(Code::NoWebsocketHere)
            .because(format!(
                "{line}: nothing at the path `{path}` speaks WebSocket: an ordinary request gets the same response"
            ))
            .detail(words(received))
            .fix(format!(
                "check the path, and that the WebSocket support of the server is enabled\n{}",
                Proxy::Other.upgrade()
            )),
    )
}

/// A 404 with uvicorn's name. Proxies pass that on, so it does not tell whether one is there.
fn uvicorn(received: &Received) -> Finding {
    let line = status_line(received);
    let install = "pip install 'uvicorn[standard]' (or websockets, or wsproto), and restart it; its log says `No \
                   supported WebSocket library detected`";
    // It writes names in lower case, and proxies that remove an upgrade write them anew.
    let is_direct = received.head.raw.windows(8).any(|name| name == b"\nserver:");
    if is_direct {
        Finding::new(Code::NoWebsocketHere)
            .because(format!(
                "{line}: uvicorn takes the handshake for an ordinary request: it has no WebSocket library, or a proxy \
                 in front removes Upgrade"
            ))
            .fix(format!("{install}\n{}", Proxy::Other.upgrade()))
    } else {
        Finding::new(Code::UpgradeStripped)
            .because(format!(
                "{line}: uvicorn takes the handshake for an ordinary request: a proxy in front removes Upgrade (the \
                 headers are not written as uvicorn does), or uvicorn has no WebSocket library"
            ))
            .fix(format!("{}\nif that is done: {install}", Proxy::Other.upgrade()))
    }
}

/// Its development server adds a script to each page.
pub(super) fn is_vite(page: &Received) -> bool {
    String::from_utf8_lossy(&page.body.bytes).contains("/@vite/client")
}

/// What WebSocket libraries say when the upgrade did not arrive.
const LIBRARIES_SAY: &[&str] = &[
    "no websocket upgrade hdr",
    "can \"upgrade\" only to \"websocket\"",
    "\"connection\" must be \"upgrade\"",
    "'upgrade' token not found",
    "connection header did not include 'upgrade'",
    "`upgrade` header did not include",
    "not a websocket handshake",
    "expected a websocket",
    "not a websocket request",
    "websocket upgrade required",
    // Socket.IO.
    "{\"code\":3,\"message\":\"bad request\"}",
];

/// What others may say, too.
const OTHERS_SAY: &[&str] =
    &["missing upgrade", "invalid upgrade header", "upgrade required", "expected upgrade"];

/// The text without what changes from request to request: words with digits in them.
fn skeleton(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.bytes().any(|byte| byte.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join(" ")
}
