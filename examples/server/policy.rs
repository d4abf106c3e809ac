//! The policy in force: as flags, and as the lines of Rust that make it.

use serde_json::{Value, json};
use tower_ws_guard::TokenSource;

use crate::options::{Mode, Options, Style};

/// For the page. Visitors from other machines get only what a script needs to connect.
pub(crate) fn describe(options: &Options, warnings: &[String]) -> Value {
    let sources: Vec<_> = options.sources().iter().map(TokenSource::to_string).collect();
    json!({
        "dangerous": !warnings.is_empty(),
        "tokens": !options.token.is_empty(),
        "sources": sources.iter().filter(|source| is_for_scripts(source)).collect::<Vec<_>>(),
        "tickets": options.tickets.is_some(),
        "policy": options.is_private().then(|| json!({
            "mode": match options.mode { Mode::Guard => "guard", Mode::Responder => "responder" },
            "sources": sources,
            "subprotocol": options.subprotocol.first(),
            "deflate": options.deflate,
            "max_connections": options.max_connections.as_ref().map(|limit| limit.max),
            "max_per_key": options.max_per_key,
            "evicts": options.evict_oldest,
            "drain_ms": options.drain_timeout,
            "flags": flags(options),
            "rust": rust(options),
            "warnings": warnings,
        })),
    })
}

/// A script can set no headers on a WebSocket.
fn is_for_scripts(source: &str) -> bool {
    !["authorization", "basic", "header"].iter().any(|header| source.starts_with(header))
}

/// The dangerous flags, and `lints`: dangerous combinations of flags.
pub(crate) fn warnings(options: &Options, lints: &[String]) -> Vec<String> {
    let dangerous = [
        (
            options.dangerous_any_origin,
            "dangerous-any-origin: every page on the web may connect with the cookies of your users; list the pages with `--allow-origin`",
        ),
        (
            options.allow_null_origin,
            "allow-null-origin: every page on the web may connect from a sandboxed frame, whose origin is `null`; leave the flag out",
        ),
    ];
    let dangerous = dangerous.into_iter().filter(|(is_set, _)| *is_set);
    dangerous.map(|(_, text)| text.to_owned()).chain(lints.iter().cloned()).collect()
}

/// The flags of a private server that differ from the defaults, for a shell. Tokens are not shown.
fn flags(options: &Options) -> Vec<String> {
    let mut flags = Vec::new();
    let mut set = |flag: &str, is_set: bool| {
        if is_set {
            flags.push(format!("--{flag}"));
        }
    };
    set("mode guard", matches!(options.mode, Mode::Guard));
    for origin in &options.allow_origin {
        set(&format!("allow-origin {}", quoted(origin)), true);
    }
    set("same-origin", options.same_origin);
    set("allow-missing-origin", options.allow_missing_origin);
    set("allow-null-origin", options.allow_null_origin);
    set("no-browsers", options.no_browsers);
    set("dangerous-any-origin", options.dangerous_any_origin);
    for host in &options.allow_host {
        set(&format!("allow-host {}", quoted(host)), true);
    }
    for index in 1..=options.token.len() {
        let number = if index == 1 { String::new() } else { index.to_string() };
        set(&format!("token \"$TOKEN{number}\""), true);
    }
    for source in &options.token_from {
        set(&format!("token-from {}", quoted(&source.to_string())), true);
    }
    set("first-token", options.first_token);
    set(
        &format!("max-token-length {}", options.max_token_length),
        options.max_token_length != 8192,
    );
    if let Some(store) = &options.tickets {
        set(&format!("tickets {}", kind_of_store(store)), true);
    }
    for name in &options.subprotocol {
        set(&format!("subprotocol {}", quoted(name)), true);
    }
    set("accept-unmatched-subprotocols", options.accept_unmatched_subprotocols);
    set("deflate", options.deflate);
    match options.rejection {
        Style::Problem => {}
        Style::Empty => set("rejection empty", true),
        Style::Plain => set("rejection plain", true),
        Style::Close => set("rejection close", true),
    }
    if let Some(limit) = &options.max_connections {
        set(&format!("max-connections {}", limit.max), true);
    }
    if let Some(max) = options.max_per_key {
        set(&format!("max-per-key {max}"), true);
    }
    set("evict-oldest", options.evict_oldest);
    set(&format!("sessions {}", kind_of_store(&options.sessions)), options.sessions != "memory");
    set(
        &format!("handshake-timeout {}", options.handshake_timeout),
        options.handshake_timeout != 10_000,
    );
    set(&format!("drain-timeout {}", options.drain_timeout), options.drain_timeout != 10_000);
    set("tls-self-signed", options.tls_self_signed);
    set("tls-cert … --tls-key …", options.tls_cert.is_some());
    set("require-websocket", options.require_websocket);
    set("report-only", options.report_only);
    set("metrics", options.metrics);
    flags
}

/// A word of a shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte);
    if word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Its URL may hold a password.
fn kind_of_store(store: &str) -> &str {
    if store == "memory" { "memory" } else { "redis://…" }
}

/// The lines of an application with the policy of a private server.
fn rust(options: &Options) -> String {
    let mut before = String::new();
    let mut guard = vec![format!("GuardLayer::new({})", origins(options))];
    let mut add = |call: String| guard.push(call);

    match list(&options.allow_host) {
        Some(hosts) => add(format!("allow_host(AllowHost::list({hosts})?)")),
        None => add("allow_host(AllowHost::loopback())".into()),
    }
    if let Some(names) = list(&options.subprotocol) {
        add(format!("subprotocols(Subprotocols::list({names})?)"));
    }
    if options.accept_unmatched_subprotocols {
        add("accept_unmatched_subprotocols()".into());
    }
    if options.deflate {
        let deflate = "PermessageDeflate::new()\n        .server_window_bits(9..=15)?\n        .server_no_context_takeover()\n        .client_no_context_takeover()";
        add(format!("extensions({deflate})"));
    }
    if let Some(tokens) = tokens(options) {
        before += &tokens;
        add("token(tokens)?".into());
    }
    if options.require_websocket {
        add("require_websocket()".into());
    }
    match options.rejection {
        Style::Empty => {}
        Style::Plain => add("reject_with(PlainText)".into()),
        Style::Problem => add("reject_with(ProblemJson::new())".into()),
        Style::Close => {
            add("reject_with(ProblemJson::new())".into());
            add("accept_then_close(AcceptThenClose::new())".into());
        }
    }
    if options.handshake_timeout != 10_000 {
        let timeout = options.handshake_timeout;
        add(format!("check_timeout(Duration::from_millis({timeout}))?"));
    }
    if let Some(limit) = &options.max_connections {
        add(format!("limit(ConnectionLimit::total({})?)", limit.max));
    }
    if let Some(max) = options.max_per_key {
        // The server has more of it: `sessions.rs`.
        before += &format!("let sessions = Sessions::per_key({max}, key)?");
        if options.evict_oldest {
            before += ".when_full(WhenFull::EvictOldest)";
        }
        before += ";\n";
        add("sessions(&sessions)".into());
    }
    add("drain(&drain)".into());
    if options.report_only {
        add("dangerous_report_only()".into());
    }
    if matches!(options.mode, Mode::Responder) {
        add("respond()".into());
    }
    let guard = guard.join("\n    .");
    let handler = match options.mode {
        Mode::Guard => "axum completes the handshake",
        Mode::Responder => "the guard completes the handshake",
    };
    format!(
        "{before}let guard = {guard};\n\n// In `handler`, {handler}.\nlet app = Router::new().route(\"/ws\", any(handler).layer(guard));\n"
    )
}

fn origins(options: &Options) -> String {
    if options.no_browsers {
        return "AllowOrigin::no_browsers()".into();
    }
    let own = "AllowOrigin::same_origin()";
    let mut origins = match list(&options.allow_origin) {
        Some(listed) if options.same_origin => format!("AllowOrigin::list({listed})?.or({own})"),
        Some(listed) => format!("AllowOrigin::list({listed})?"),
        None => own.into(),
    };
    if options.allow_missing_origin {
        origins += ".allow_missing()";
    }
    if options.allow_null_origin {
        origins += ".allow_null()";
    }
    if options.dangerous_any_origin {
        origins += ".or(AllowOrigin::dangerous_any())";
    }
    origins
}

/// `None` without tokens. `verifier` and `tickets` are the application's.
fn tokens(options: &Options) -> Option<String> {
    let sources = options.sources();
    let mut tokens = match &*sources {
        [] => return None,
        [source] if *source == TokenSource::authorization() => {
            "let tokens = TokenPolicy::bearer(verifier)".to_owned()
        }
        sources => {
            let sources: Vec<_> =
                sources.iter().map(|source| format!("{:?}.parse()?", source.to_string())).collect();
            format!("let tokens = TokenPolicy::from_sources([{}], verifier)?", sources.join(", "))
        }
    };
    if options.tickets.is_some() {
        tokens +=
            "\n    .or(TokenPolicy::from_sources([TokenSource::query(\"ticket\")?], tickets)?)?";
    }
    if options.first_token {
        tokens += "\n    .first_source_wins()";
    }
    if options.max_token_length != 8192 {
        tokens += &format!("\n    .max_length({})?", options.max_token_length);
    }
    Some(tokens + ";\n")
}

fn list(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| format!("{values:?}"))
}
