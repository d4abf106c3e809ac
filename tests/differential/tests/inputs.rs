//! The properties of the parsers for every short input, and for the inputs that are stored for the fuzz targets.
//!
//! An input is a sequence of pieces: words of the grammar, and bytes that it treats in their own way. With `INPUT_LENGTH=N` the
//! sequences are N pieces longer.

use std::{env, fs, panic, path::Path, thread};

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
}

impl Drop for Inputs {
    fn drop(&mut self) {
        println!("{} accepted, {} rejected", self.accepted, self.rejected);
        if !thread::panicking() {
            assert!(self.accepted > 0 && self.rejected > 0, "the inputs are too much alike");
        }
    }
}

/// How many pieces longer than in a short run.
fn longer() -> usize {
    env::var("INPUT_LENGTH").map_or(0, |longer| longer.parse().expect("a number"))
}

/// Checks every sequence of up to `length` of `pieces`, which are separated by bars.
fn every(property: Property, pieces: &[u8], length: usize) {
    let pieces = pieces.split(|&byte| byte == b'|').collect::<Vec<_>>();
    let length = length + longer();
    let mut inputs = Inputs::default();
    let mut chosen: Vec<usize> = Vec::new();
    loop {
        let input = chosen.iter().map(|&at| pieces[at]).collect::<Vec<_>>();
        inputs.check(property, &input.concat());
        if chosen.len() < length {
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

#[test]
fn keys_that_differ_in_two_places_from_a_valid_one() {
    // One of each class of bytes, and those next to a class.
    const BYTES: &[u8] = b"\0\t\n\x1f !\"+,-./09:;<=>?@AFGZ[\\]^_`afgz{|}~\x7f\x80\xff";
    let valid = KEY.as_bytes();
    // In place of a byte, or before it.
    let changes = |key: Vec<u8>, bytes: &'static [u8]| {
        (0..=2 * key.len()).flat_map(move |at| {
            let (start, end) = key.split_at(at / 2);
            let (start, end) = (start.to_vec(), end.get(at % 2..).unwrap_or_default().to_vec());
            bytes.iter().map(move |&byte| [&start[..], &[byte], &end[..]].concat())
        })
    };
    let bytes: &[u8] = if longer() > 0 { BYTES } else { b"=A \n" };
    let mut inputs = Inputs::default();
    changes(valid.to_vec(), BYTES).for_each(|one| inputs.check(properties::key, &one));
    let twice = changes(valid.to_vec(), bytes).flat_map(|one| changes(one, bytes));
    twice.for_each(|two| inputs.check(properties::key, &two));
    for length in 0..=valid.len() {
        inputs.check(properties::key, &valid[..length]);
        inputs.check(properties::key, &[valid, b"\n", &valid[..length]].concat());
    }
}

#[test]
fn versions() {
    every(properties::version, b"13|0|1|2|3|5|+|,| |\t|\n|x|\xff", 3);
}

const LISTED: &[u8] = b"websocket|WebSocket|upgrade|UPGRADE|close|CLOSE|x|\"|/13|;|,| |\t|\n|\xff";

#[test]
fn lists() {
    every(properties::lists, LISTED, 3);
}

#[test]
fn lists_that_go_on() {
    every(|input| properties::lists(&[b"websocket\nUpgrade", input].concat()), LISTED, 3);
}

#[test]
fn hosts() {
    every(properties::host, b"a|A|0|80|65536|-|_|.|:|[|]|::1|127.0.0.1|%41|%|@|/| |\n|\xff", 3);
}

#[test]
fn hosts_in_brackets() {
    every(properties::host, b"[|]|:|::|0|1|fFfF|12345|.|127.0.0.1|g|v1.|:80", 4);
}

#[test]
fn origins() {
    every(
        properties::origin,
        b"null|http|https|HTTP|file|://|:|/|a|A|.|0|80|443|65536|-|_|%41|@|?| |\xff",
        3,
    );
}

#[test]
fn hosts_of_origins() {
    let behind_a_scheme: Property = |input| properties::origin(&[b"http://", input].concat());
    every(behind_a_scheme, b"a|A|.|-|0|0x|1|256|[|]|:|::|fFfF|127.0.0.1|xn--|%", 3);
}

#[test]
fn subprotocols() {
    every(properties::subprotocol, b"chat|v2.chat|a|B|,| |\t|\n|(|\"|\x7f|\xff", 3);
}

/// The first byte chooses one of six policies.
#[test]
fn extensions() {
    let deflate_by_default: Property = |input| properties::extensions(&[b"\x01", input].concat());
    every(
        deflate_by_default,
        b"permessage-deflate|x|(|;|,|=|\"|\\|client_max_window_bits|server_no_context_takeover|8|15| |\n|>",
        3,
    );
}

#[test]
fn parameters_of_deflate() {
    let behind_an_offer: Property = |input| {
        let input = [b"permessage-deflate", input].concat();
        let accepted =
            (0..6).map(|policy| properties::extensions(&[&[policy], &input[..]].concat()));
        accepted.fold(true, |all, accepted| all & accepted)
    };
    every(
        behind_an_offer,
        b";client_max_window_bits|;server_max_window_bits|;client_no_context_takeover|;server_no_context_takeover|=7|=8|=15|=16\
          |=\"9\"|=08|,permessage-deflate|\n>\npermessage-deflate| ",
        2,
    );
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
        let corpus = Path::new("../../fuzz/corpus").join(name);
        for entry in fs::read_dir(corpus).expect("the corpus is there") {
            let path = entry.expect("it can be listed").path();
            inputs.check(property, &fs::read(path).expect("it can be read"));
        }
    }
}
