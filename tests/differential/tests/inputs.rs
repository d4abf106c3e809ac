//! The properties of the parsers for every short input, and for the inputs that are stored for the fuzz targets.
//!
//! An input is a sequence of pieces: what the grammar has names for, and each byte that it treats in its own way. With
//! `INPUT_LENGTH=1` all sequences are one piece longer.

use std::{env, fs, panic, path::Path};

use differential::properties::{self, KEY};

type Property = fn(&[u8]) -> bool;

#[derive(Default)]
struct Inputs {
    accepted: u32,
    rejected: u32,
}

impl Inputs {
    fn check(&mut self, property: Property, input: &[u8]) {
        let is_accepted = panic::catch_unwind(|| property(input)).unwrap_or_else(|panic| {
            eprintln!("the input: {}", input.escape_ascii());
            panic::resume_unwind(panic)
        });
        *if is_accepted { &mut self.accepted } else { &mut self.rejected } += 1;
    }

    /// Every sequence of up to `length` pieces.
    fn check_all(&mut self, property: Property, pieces: &[&[u8]], length: usize) {
        let longer = env::var("INPUT_LENGTH").map_or(0, |longer| longer.parse().expect("a number"));
        let mut chosen = Vec::new();
        loop {
            self.check(
                property,
                &chosen.iter().map(|&at: &usize| pieces[at]).collect::<Vec<_>>().concat(),
            );
            if chosen.len() < length + longer {
                chosen.push(0);
                continue;
            }
            // The next one of the same length, or of a shorter one.
            while chosen.pop_if(|last| *last + 1 == pieces.len()).is_some() {}
            match chosen.last_mut() {
                Some(last) => *last += 1,
                None => return,
            }
        }
    }
}

/// Each property must hold of something that is accepted, and of something that is not.
impl Drop for Inputs {
    fn drop(&mut self) {
        println!("{} accepted, {} rejected", self.accepted, self.rejected);
        if !std::thread::panicking() {
            assert!(self.accepted > 0 && self.rejected > 0, "the inputs are too much alike");
        }
    }
}

fn every(property: Property, pieces: &[&[u8]], length: usize) {
    Inputs::default().check_all(property, pieces, length);
}

/// One of each class of bytes that the grammar tells apart, and those next to a class.
const BYTES: &[u8] = b"\0\t\n\x1f !\"#%&'()*+,-./09:;<=>?@AFGZ[\\]^_`afgz{|}~\x7f\x80\xff";

#[test]
fn keys_that_differ_from_a_valid_one_in_two_places() {
    let mut inputs = Inputs::default();
    let valid = KEY.as_bytes();
    for at in 0..=valid.len() {
        for then in at..=valid.len() {
            let (start, middle, end) = (&valid[..at], &valid[at..then], &valid[then..]);
            for one in BYTES {
                for two in BYTES {
                    // Inserted, or in place of another byte.
                    let middles = [middle, middle.get(1..).unwrap_or_default()];
                    let ends = [end, end.get(1..).unwrap_or_default()];
                    for middle in middles {
                        for end in ends {
                            inputs.check(
                                properties::key,
                                &[start, &[*one], middle, &[*two], end].concat(),
                            );
                        }
                    }
                }
            }
        }
    }
    for length in 0..=valid.len() {
        inputs.check(properties::key, &valid[..length]);
        inputs.check(properties::key, &[valid, b"\n", &valid[..length]].concat());
    }
}

#[test]
fn versions() {
    every(
        properties::version,
        &[b"13", b"0", b"1", b"2", b"3", b"5", b"+", b",", b" ", b"\t", b"\n", b"x", b"\xff"],
        4,
    );
}

#[test]
fn lists() {
    let pieces: [&[u8]; 14] = [
        b"websocket",
        b"WebSocket",
        b"upgrade",
        b"UPGRADE",
        b"close",
        b"x",
        b"\"",
        b"/13",
        b";",
        b",",
        b" ",
        b"\t",
        b"\n",
        b"\xff",
    ];
    every(properties::lists, &pieces, 4);
}

#[test]
fn hosts() {
    let pieces: [&[u8]; 20] = [
        b"a",
        b"A",
        b"0",
        b"80",
        b"65536",
        b"-",
        b"_",
        b".",
        b":",
        b"[",
        b"]",
        b"::1",
        b"127.0.0.1",
        b"%41",
        b"%",
        b"@",
        b"/",
        b" ",
        b"\n",
        b"\xff",
    ];
    every(properties::host, &pieces, 4);
}

#[test]
fn hosts_in_brackets() {
    every(
        properties::host,
        &[
            b"[",
            b"]",
            b":",
            b"::",
            b"0",
            b"1",
            b"fFfF",
            b"12345",
            b".",
            b"127.0.0.1",
            b"g",
            b"v1.",
            b":80",
        ],
        5,
    );
}

#[test]
fn origins() {
    let pieces: [&[u8]; 22] = [
        b"null", b"http", b"https", b"HTTP", b"file", b"://", b":", b"/", b"a", b"A", b".", b"0",
        b"80", b"443", b"65536", b"-", b"_", b"%41", b"@", b"?", b" ", b"\xff",
    ];
    every(properties::origin, &pieces, 4);
}

/// Behind a scheme, so that more of a sequence is the host.
#[test]
fn hosts_of_origins() {
    let pieces: [&[u8]; 16] = [
        b"a",
        b"A",
        b".",
        b"-",
        b"0",
        b"0x",
        b"1",
        b"256",
        b"[",
        b"]",
        b":",
        b"::",
        b"fFfF",
        b"127.0.0.1",
        b"xn--",
        b"%",
    ];
    every(|input| properties::origin(&[b"http://", input].concat()), &pieces, 4);
}

#[test]
fn subprotocols() {
    every(
        properties::subprotocol,
        &[b"chat", b"v2.chat", b"a", b"B", b",", b" ", b"\t", b"\n", b"(", b"\"", b"\x7f", b"\xff"],
        4,
    );
}

#[test]
fn extensions() {
    let pieces: [&[u8]; 14] = [
        b"permessage-deflate",
        b"x",
        b";",
        b",",
        b"=",
        b"\"",
        b"\\",
        b"client_max_window_bits",
        b"server_no_context_takeover",
        b"8",
        b"15",
        b" ",
        b"\n",
        b">",
    ];
    // The first byte chooses a policy that takes what it can.
    every(|input| properties::extensions(&[b"\x01", input].concat()), &pieces, 3);
}

/// Behind an offer, so that a sequence is its parameters, for each of the policies that the first byte chooses.
#[test]
fn parameters_of_deflate() {
    let pieces: [&[u8]; 13] = [
        b";client_max_window_bits",
        b";server_max_window_bits",
        b";client_no_context_takeover",
        b";server_no_context_takeover",
        b"=7",
        b"=8",
        b"=15",
        b"=16",
        b"=\"9\"",
        b"=08",
        b",permessage-deflate",
        b"\n>\npermessage-deflate",
        b" ",
    ];
    let all_policies: Property = |input| {
        let accepted = (0..6).map(|policy| {
            properties::extensions(&[&[policy], &b"permessage-deflate"[..], input].concat())
        });
        accepted.fold(true, |all, accepted| all & accepted)
    };
    every(all_policies, &pieces, 3);
}

#[test]
fn stored_inputs() {
    let corpora: [(&str, Property); 7] = [
        ("extensions", properties::extensions),
        ("host", properties::host),
        ("key", properties::key),
        ("lists", properties::lists),
        ("origin", properties::origin),
        ("subprotocol", properties::subprotocol),
        ("version", properties::version),
    ];
    for (name, property) in corpora {
        let mut inputs = Inputs::default();
        for entry in
            fs::read_dir(Path::new("../../fuzz/corpus").join(name)).expect("the corpus is there")
        {
            inputs.check(
                property,
                &fs::read(entry.expect("it can be listed").path()).expect("it can be read"),
            );
        }
    }
}
