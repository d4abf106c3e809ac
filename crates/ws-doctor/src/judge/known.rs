//! Responses of well-known software, by what only it writes.

use crate::{codes::Code, exchange::Received};

/// What a response of it means.
pub(super) struct Known {
    pub(super) code: Code,
    pub(super) means: &'static str,
    pub(super) fix: &'static str,
}

/// What to do about `EIO` in the query.
pub(super) const SOCKET_IO_VERSION: &str = "connect with `EIO=4` in the query, the version of Socket.IO 3 and newer, or \
                                            set `allowEIO3: true` in the server";

/// A mark in the text of the body, in lower case.
const BODIES: &[(&str, Known)] = &[
    (
        "no connection with that id",
        Known {
            code: Code::Rejected,
            means: "SignalR says `No Connection with that ID`: the id in the URL is of another server instance, has \
                    expired, or there was no negotiation",
            fix: "turn sticky sessions on in the load balancer (or use Azure SignalR Service); a client of your own calls \
                  POST …/negotiate first and connects with its connectionToken, or skips negotiation and sends no id",
        },
    ),
    (
        "session id unknown",
        Known {
            code: Code::Rejected,
            means: "Socket.IO says `Session ID unknown`: the `sid` in the URL is of another server instance, or has expired",
            fix: "turn sticky sessions on in the load balancer, or let the client use `transports: [\"websocket\"]`; to try \
                  it here, leave `sid` out of the URL",
        },
    ),
    (
        "transport unknown",
        Known {
            code: Code::Rejected,
            means: "Socket.IO says `Transport unknown`: the query does not name the transport",
            fix: "add `EIO=4&transport=websocket` to the query of the URL",
        },
    ),
    (
        "unsupported protocol version",
        Known {
            code: Code::Rejected,
            means: "Socket.IO says `Unsupported protocol version`: client and server are of different versions",
            fix: SOCKET_IO_VERSION,
        },
    ),
    (
        "default backend - 404",
        Known {
            code: Code::NotFound,
            means: "this is the default page of the ingress controller (Kubernetes): it has no rule for this host and path",
            fix: "compare host, path and ingressClassName of the Ingress with this URL; --resolve HOST:PORT:ADDRESS sends the \
                  name of the rule to this address",
        },
    ),
    (
        "blocked request. this host",
        Known {
            code: Code::Rejected,
            means: "Vite does not allow this host",
            fix: "add the host to `server.allowedHosts` in the configuration of Vite",
        },
    ),
    (
        "invalid host header",
        Known {
            code: Code::Rejected,
            means: "webpack-dev-server does not allow this host",
            fix: "add the host to `allowedHosts` in the configuration of webpack-dev-server",
        },
    ),
];

const TOO_LARGE: Known = Known {
    code: Code::Rejected,
    means: "the headers of the request are too large, most often the cookies",
    fix: "delete the cookies of the site, and make tokens smaller; or raise the limit: nginx `large_client_header_buffers 4 \
          32k;`, Node `--max-http-header-size=32768`",
};

const ENVOY: Known = Known {
    code: Code::Intermediary,
    means: "Envoy rejects upgrades that are not enabled with an empty 403, as this one is",
    fix: "enable it in Envoy's http_connection_manager or route: `upgrade_configs: [{ upgrade_type: websocket }]`; in \
          Contour `enableWebsockets: true` on the route",
};

pub(super) fn known(received: &Received, text: &str) -> Option<&'static Known> {
    let status = received.head.status;
    if matches!(status, 431 | 494) || text.contains("header or cookie too large") {
        return Some(&TOO_LARGE);
    }
    let is_envoy =
        received.head.text("server").is_some_and(|server| server.eq_ignore_ascii_case("envoy"));
    if status == 403 && is_envoy && text.is_empty() {
        return Some(&ENVOY);
    }
    BODIES.iter().find(|(mark, _)| text.contains(mark)).map(|(_, known)| known)
}
