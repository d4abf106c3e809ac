//! `Host`: how it is parsed, and which hosts `AllowHost` allows.

use tower_ws_guard::{AllowHost, AllowOrigin, Handshake, Host, OriginCheckLayer, RejectionKind};

use crate::{common::handshake, origin::code};

#[tokio::test]
async fn host_is_compared_with_its_port() {
    let hosts =
        AllowHost::list(["chat.example.com", "Alt.example.com:8080", "[::1]:3000"]).unwrap();
    for (host, expected) in [
        ("chat.example.com", "ok"),
        ("CHAT.example.com", "ok"),
        ("alt.example.com:8080", "ok"),
        ("[::1]:3000", "ok"),
        ("chat.example.com:80", "ok"),
        ("chat.example.com:443", "ok"),
        ("chat.example.com.:443", "ok"),
        ("[0:0::1]:3000", "ok"),
        ("chat.example.com:8080", "host-not-allowed"),
        ("alt.example.com", "host-not-allowed"),
        ("alt.example.com:8081", "host-not-allowed"),
        ("x.chat.example.com", "host-not-allowed"),
        ("chat.example.com.evil.example", "host-not-allowed"),
        ("chat.example.com.", "ok"),
        ("attacker.example", "host-not-allowed"),
        ("[::1]", "host-not-allowed"),
    ] {
        // After DNS rebinding the page has the same origin as the server.
        let raw = handshake()
            .with("Host", host)
            .with("Origin", format!("http://{}", host.to_lowercase()));
        let layer = OriginCheckLayer::new(AllowOrigin::dangerous_any()).allow_host(hosts.clone());
        assert_eq!(code(layer, &raw).await, expected, "{host}");
    }
}

#[test]
fn host_is_parsed_in_every_form() {
    for (host, name, port) in [
        ("chat%41%5a", "chat%41%5a", None),
        ("[v1.a:b]", "[v1.a:b]", None),
        ("[vF.~]:080", "[vF.~]", Some(80)),
        ("[2001:DB8::1]:99999", "[2001:DB8::1]", Some(99_999)),
    ] {
        let (mut parts, ()) = handshake().with("Host", host).request::<()>().into_parts();
        let read = Handshake::parse(&mut parts).unwrap().host();
        assert_eq!((read.name(), read.port()), (name, port));
    }
}

fn host(host: &str) -> Host<'_> {
    Host::parse(host.as_bytes()).unwrap()
}

#[test]
fn patterns_allow_subdomains_ports_and_addresses() {
    for (pattern, allowed, rejected) in [
        (
            "chat.example.com",
            &[
                "chat.example.com",
                "Chat.Example.COM.",
                "chat.example.com:443",
                "chat.example.com.:80",
            ][..],
            &["chat.example.com:8080", "a.chat.example.com", "example.com", "chat.example.com.."][..],
        ),
        (
            "Chat.example.com.:443",
            &["chat.example.com", "chat.example.com:80"],
            &["chat.example.com:444"],
        ),
        (
            "*.example.com",
            &["a.example.com", "A.B.example.com.", "a.example.com:443"],
            &[
                "example.com",
                "aexample.com",
                "a.example.com:8080",
                "example.com.evil.example",
                ".example.com",
                "a..example.com",
            ],
        ),
        ("*.example.com:*", &["a.example.com", "a.example.com:8080"], &["example.com:8080"]),
        ("*.example.com:8080", &["a.example.com:8080"], &["a.example.com", "a.example.com:443"]),
        ("localhost:*", &["localhost", "localhost:1", "LOCALHOST.:65535"], &["a.localhost:1"]),
        (
            "127.0.0.1:*",
            &["127.0.0.1", "127.0.0.1:3000", "127.1:3000", "0x7f.0.0.1."],
            &["127.0.0.2"],
        ),
        ("[::1]:3000", &["[::1]:3000", "[0:0::1]:3000"], &["[::1]", "[::2]:3000"]),
        ("[0:0::1]", &["[::1]", "[::1]:80"], &["[::1]:3000"]),
        ("a:65535", &["a:65535"], &["a:65536", "a:99999", "a:0", "a"]),
        ("a", &["a"], &["a:0", "a:65616"]),
    ] {
        let hosts = AllowHost::list([pattern]).unwrap();
        for (names, expected) in [(allowed, true), (rejected, false)] {
            for name in names {
                assert_eq!(hosts.allows(host(name)), expected, "{pattern} {name}");
            }
        }
    }
}

#[test]
fn host_that_never_matches_is_a_config_error() {
    for (value, hint) in [
        ("", "empty"),
        ("*", "leave the list out"),
        (".example.com", "`*.`"),
        ("http://a", "without a scheme"),
        ("https://*.a", "without a scheme"),
        ("a/b", "no path"),
        ("a:", "no port behind the colon"),
        ("a:x", "name:port"),
        ("a:0", "1 to 65535"),
        ("a:65536", "1 to 65535"),
        ("user@a", "no user name"),
        ("::1", "brackets"),
        ("::1:3000", "brackets"),
        ("b\u{fc}cher.example", "punycode"),
        ("a.*.example.com", "the first labels"),
        ("*a.example.com", "the first labels"),
        ("*.*.example.com", "the first labels"),
        ("*:3000", "the first labels"),
        ("*.127.0.0.1", "not a name"),
        ("*.[::1]", "not a name"),
        ("*.", "empty"),
        ("127.0.0.256", "can send"),
        ("a.1", "can send"),
        ("a..b", "can send"),
        ("a%2fb", "can send"),
        ("[v1.a]", "can send"),
        ("a,b", "can send"),
    ] {
        let error = AllowHost::list(["fine.example", value]).unwrap_err().to_string();
        let shown = if value.is_ascii() { value } else { "cher.example" };
        assert!(error.contains(shown) && error.contains(hint), "{value}: {error}");
    }
    assert!(AllowHost::list([""; 0]).unwrap_err().to_string().contains("empty list"));
}

#[tokio::test]
async fn loopback_allows_every_name_of_this_machine() {
    for (name, expected) in [
        ("localhost", true),
        ("LocalHost:3000", true),
        ("localhost.:3000", true),
        ("app.localhost:3000", true),
        ("127.0.0.1:3000", true),
        ("127.255.255.254", true),
        ("127.1", true),
        ("2130706433:1", true),
        ("[::1]:3000", true),
        ("[0:0::1]", true),
        ("[::ffff:127.0.0.1]:3000", true),
        ("localhost.example.com", false),
        ("notlocalhost", false),
        (".localhost", false),
        ("a..localhost", false),
        ("127.0.0.1.example.com", false),
        ("128.0.0.1", false),
        ("0.0.0.0", false),
        ("192.168.0.1", false),
        ("[::]", false),
        ("[::2]", false),
        ("evil.example:3000", false),
    ] {
        assert_eq!(AllowHost::loopback().allows(host(name)), expected, "{name}");
        let layer = OriginCheckLayer::new(AllowOrigin::dangerous_any());
        let raw = handshake().with("Host", name);
        let code = code(layer.allow_host(AllowHost::loopback()), &raw).await;
        assert_eq!(code == "ok", expected, "{name}");
    }
}

#[test]
fn policies_of_hosts_are_joined_by_or() {
    let policy = AllowHost::list(["a.example"])
        .unwrap()
        .or(AllowHost::loopback())
        .or(AllowHost::predicate(|host| {
            host.name() == "Tenant.example" && host.port() == Some(8080)
        }))
        .or(AllowHost::list(["b.example", "*.c.example"]).unwrap());
    for (name, expected) in [
        ("a.example", true),
        ("b.example", true),
        ("x.c.example", true),
        ("localhost:1", true),
        // A predicate sees the host as it was sent.
        ("Tenant.example:8080", true),
        ("tenant.example:8080", false),
        ("Tenant.example", false),
        ("c.example", false),
    ] {
        assert_eq!(policy.allows(host(name)), expected, "{name}");
    }
    let shown = format!("{policy:?}");
    assert!(shown.contains("loopback: true") && shown.contains("predicates: 1"), "{shown}");
}

/// To copy or sort all patterns at each step would take minutes.
#[test]
fn many_policies_of_hosts_are_joined_one_by_one() {
    let mut policy = AllowHost::loopback();
    for i in 0..20_000 {
        let patterns = [format!("a{i}.example"), format!("*.b{i}.example")];
        policy = policy.or(AllowHost::list(patterns).unwrap());
    }
    for (name, expected) in [
        ("a0.example", true),
        ("a19999.example", true),
        ("x.y.b0.example", true),
        ("x.b19999.example", true),
        ("localhost", true),
        ("a20000.example", false),
        ("b0.example", false),
    ] {
        assert_eq!(policy.allows(host(name)), expected, "{name}");
    }
}

#[test]
fn rejection_of_a_host_says_what_is_wrong() {
    for (host, hint) in [
        ("::1:3000", "brackets"),
        ("::1", "brackets"),
        ("a:", "no port behind the colon"),
        ("http://a", "no scheme"),
        ("u@a", "user name"),
        ("", "empty"),
    ] {
        let (mut parts, ()) = handshake().with("Host", host).request::<()>().into_parts();
        let rejection = Handshake::parse(&mut parts).unwrap_err();
        assert_eq!(rejection.kind(), RejectionKind::HostInvalid);
        let source = std::error::Error::source(&rejection).unwrap().to_string();
        assert!(source.contains(hint), "{host}: {source}");
    }
}
