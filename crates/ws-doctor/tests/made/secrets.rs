//! Credentials never show.

use std::{process::Output, thread};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    common::{program, run},
    serve::{Head, Reply, Then, accepted, raw, server, status, switch},
};

const TOKEN: &str = "s3cr3t+t0ken/of=mine";

/// The forms in which a server may send it back.
fn forms() -> Vec<String> {
    let percent = |text: &str, lower: bool| {
        text.bytes().fold(String::new(), |encoded, byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => encoded + &char::from(byte).to_string(),
            _ if lower => encoded + &format!("%{byte:02x}"),
            _ => encoded + &format!("%{byte:02X}"),
        })
    };
    let once = percent(TOKEN, false);
    vec![
        TOKEN.to_owned(),
        percent(TOKEN, true),
        percent(&once, false),
        percent(&percent(TOKEN, true), true),
        once,
        STANDARD.encode(TOKEN),
        format!("{TOKEN}{TOKEN}"),
        STANDARD.encode(format!("user:{TOKEN}")),
    ]
}

fn output(arguments: &[&str]) -> Output {
    let mut command = program();
    command.args(arguments);
    run(command)
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &output.stderr].concat()).into_owned()
}

fn assert_hidden(arguments: &[&str], secrets: &[&str]) {
    let check = |style: &[&str]| {
        let arguments = [arguments, style].concat();
        let printed = printed(&output(&arguments));
        for secret in secrets {
            assert!(!printed.contains(secret), "{secret}: {arguments:?}: {printed}");
        }
    };
    thread::scope(|scope| {
        for style in [&[][..], &["-v"], &["--json"]] {
            scope.spawn(move || check(style));
        }
    });
}

#[test]
fn token_is_masked_in_every_form_in_which_it_comes_back() {
    let secrets = forms();
    let secrets: Vec<_> =
        secrets.iter().map(|secret| &**secret).chain(["s3cr3t", "t0ken"]).collect();
    let in_location = |_: &Head, form: &str| {
        let line = format!("Location: https://login.example/?next={form}\r\n");
        status("302 Found", &line, "")
    };
    for reply in [
        in_location as fn(&Head, &str) -> Reply,
        |_, form| status("403 Forbidden", "", format!("what is {form}?")),
        |head, form| accepted(head).replace("Upgrade:", &format!("X-Token: {form}\r\nUpgrade:")),
        |_, form| switch(&format!("Sec-WebSocket-Accept: {form}\r\n")),
    ] {
        let forms = forms().join("&");
        let address = server(move |head, _| reply(head, &forms));
        let url = format!("ws://{address}/ws");
        assert_hidden(&[&url, "--token", TOKEN], &secrets);
    }
}

#[test]
fn credential_is_masked_wherever_it_is_given() {
    let address = server(|head, _| accepted(head));
    let url = format!("ws://{address}/ws");
    for source in [
        "authorization",
        "basic",
        "header:X-Key",
        "cookie:session",
        "query:ticket",
        "subprotocol:token.",
        "kubernetes",
        "phoenix",
        "pair:bearer",
    ] {
        assert_hidden(
            &[&url, "--token", "s3cr3t-t0ken", "--token-in", source],
            &["s3cr3t", "t0ken", "czNjcjN0"],
        );
    }
    let with_password = format!("ws://user:s3cr3t@{address}/ws");
    let in_query = format!("ws://{address}/ws?access_token=s3cr3t&room=7");
    assert_hidden(&[&with_password], &["s3cr3t"]);
    assert_hidden(&[&in_query], &["s3cr3t"]);
    assert_hidden(&[&url, "-b", "session=s3cr3t"], &["s3cr3t"]);
    assert_hidden(&[&url, "-u", "user:s3cr3t"], &["s3cr3t"]);
    assert_hidden(&[&url, "-H", "Authorization: Bearer s3cr3t"], &["s3cr3t"]);
    for name in
        ["base64url.bearer.x.czNjcjN0", "token.eyJczNjcjN0.x.y", "czNjcjN0czNjcjN0czNjcjN0czNjcjN0"]
    {
        assert_hidden(&[&url, "--subprotocol", name], &["czNjcjN0"]);
        assert_hidden(&[&url, "-H", &format!("Sec-WebSocket-Protocol: a, {name}")], &["czNjcjN0"]);
    }
    let proxy = server(|_, _| status("407 Not s3cr3t", "", "s3cr3t"));
    assert_hidden(&[&url, "-x", &format!("http://user:s3cr3t@{proxy}")], &["s3cr3t"]);
    let in_fragment = "Location: https://a.example/#access_token=s3cr3t&x=y\r\n";
    let address = server(move |_, _| status("302 Found", in_fragment, ""));
    assert_hidden(&[&format!("ws://{address}/ws")], &["s3cr3t"]);
    // Messages of errors included.
    assert_hidden(&["ws://user:s3cr3t@server.example:99999/ws"], &["s3cr3t"]);
    assert_hidden(&[&url, "-x", "http://user:s3cr3t@127.0.0.1:1"], &["s3cr3t"]);
}

#[test]
fn set_cookie_is_masked_where_the_server_repeats_it_or_writes_it_wrongly() {
    const COOKIE: &str = "Set-Cookie: sid=s3cr3tS3cr3t; Path=/\r\n";
    for reply in [
        (|_: &Head| status("403 Forbidden", COOKIE, "no: s3cr3tS3cr3t")) as fn(&Head) -> Reply,
        |_| status("403 Forbidden", "Set-Cookie : sid=s3cr3tS3cr3t\r\n", ""),
        |_| status("403 Forbidden", "Set-Cookie: sid=\r\n s3cr3tS3cr3t\r\n", ""),
        |_| status("403 Forbidden", "Set-Cookie:\r\n\tsid=s3cr3tS3cr3t\r\n", ""),
        |_| status("403 Forbidden", "Set-Cookie: sid=s3cr3tS3cr3t\u{1}\r\n", ""),
        |_| raw(format!("HTTP/1.1 200 OK\r\n{COOKIE}")),
        |_| raw(format!("{COOKIE}\r\n")),
        |head| accepted(head).and(format!("HTTP/1.1 403 No\r\n{COOKIE}\r\n")).then(Then::Close),
    ] {
        let address = server(move |head, _| reply(head));
        assert_hidden(&[&format!("ws://{address}/ws")], &["s3cr3t"]);
    }
}

#[test]
fn set_cookie_is_masked_and_show_secrets_shows() {
    let address = server(|head, _| {
        accepted(head).replace(
            "Upgrade: websocket",
            "Upgrade: websocket\r\nSet-Cookie: session=s3cr3t; Path=/",
        )
    });
    let url = format!("ws://{address}/ws");
    assert_hidden(&[&url], &["s3cr3t"]);
    let location = "Location: https://user:s3cr3t@login.example/?access_token=s3cr3t\r\n";
    let address = server(move |_, _| status("302 Found", location, ""));
    assert_hidden(&[&format!("ws://{address}/ws")], &["s3cr3t"]);
    let shown = printed(&output(&[&url, "-v", "--show-secrets"]));
    assert!(shown.contains("session=s3cr3t"), "{shown}");
}
